//! What holds for every operator, and what random ones promise.
#![allow(missing_docs)]

mod pool;

use pool::{checkpoint, merge, random};
use rolegraft_checkpoint::{Dtype, Tensors};
use rolegraft_merge::{Base, Execution, Operator, Scope, Value};
use std::path::Path;

/// A recipe that any operator accepts: as many experts as it takes, and a value for what has no default.
fn recipe(operator: Operator, more: &str) -> String {
    let spec = operator.spec();
    let mut models: Vec<&str> = ["one", "two", "three"].into_iter().take(spec.experts.1).collect();
    if spec.base == Base::Ignored && spec.experts.1 > 1 {
        models.push("base");
    }
    let mut text = format!("merge_method: {}\n", spec.name);
    if spec.base != Base::Ignored {
        text += "base_model: base\n";
    }
    text += "models:\n";
    models.iter().for_each(|m| text += &format!("- model: {m}\n"));
    text += "parameters:\n";
    for p in spec.parameters {
        let value = match (p.name, p.scope) {
            ("weight", _) => "0.4",
            ("density", _) => "0.3",
            ("t", Scope::Shared) => "0.3",
            ("select_topk", _) => "0.4",
            _ => continue,
        };
        text += &format!("  {}: {value}\n", p.name);
    }
    text + more
}

fn needs_statistics(operator: Operator) -> bool {
    operator.spec().name == "neuron_merge"
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::BF16);
    let mut merged = 0;
    for operator in Operator::all().filter(|o| !needs_statistics(*o)) {
        let mut first: Option<Vec<u8>> = None;
        for threads in [1, 2, 5] {
            let out = dir.path().join(format!("out-{}-{threads}", operator.spec().name));
            // Small segments, so that even these tensors are cut into several.
            let execution = Execution { threads, segment: 20_000, seed: 3, ..Execution::default() };
            merge(dir.path(), &recipe(operator, ""), &out, &execution)
                .unwrap_or_else(|e| panic!("{}: {e}", operator.spec().name));
            let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
            assert!(first.get_or_insert_with(|| bytes.clone()) == &bytes, "{} with {threads}", operator.spec().name);
        }
        merged += 1;
    }
    assert!(merged >= 28, "{merged}");
}

/// Cutting tensors otherwise changes the order of sums, so a last bit at most.
#[test]
fn segments_change_nothing_but_rounding() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    for operator in Operator::all().filter(|o| !needs_statistics(*o)) {
        let name = operator.spec().name;
        let values = |segment: usize| {
            let out = dir.path().join(format!("{name}-{segment}"));
            let execution = Execution { segment, seed: 3, ..Execution::default() };
            merge(dir.path(), &recipe(operator, ""), &out, &execution).unwrap();
            let tensors = Tensors::open(&out).unwrap();
            tensors.tensors().flat_map(|(n, _)| tensors.f32(n).unwrap()).collect::<Vec<f32>>()
        };
        for (a, b) in values(usize::MAX).iter().zip(values(1)) {
            assert!((a - b).abs() <= 1e-6, "{name}: {a} against {b}");
        }
    }
}

/// A base of zeros and experts of ones: the merge shows the mask itself.
fn shown(dir: &Path, method: &str, parameters: &str, seed: u64) -> Vec<f32> {
    let tensor = |value: f32| vec![("model.layers.0.mlp.up_proj.weight", vec![512, 256], vec![value; 512 * 256])];
    if !dir.join("base").exists() {
        checkpoint(&dir.join("base"), Dtype::F32, &tensor(0.0));
        checkpoint(&dir.join("one"), Dtype::F32, &tensor(1.0));
        checkpoint(&dir.join("two"), Dtype::F32, &tensor(1.0));
    }
    let recipe = format!(
        "merge_method: {method}\nbase_model: base\nmodels:\n- model: one\nparameters: {{weight: 1, {parameters}}}\n"
    );
    let out = tempfile::tempdir_in(dir).unwrap();
    let path = out.path().join("out");
    merge(dir, &recipe, &path, &Execution { seed, ..Execution::default() }).unwrap();
    Tensors::open(&path).unwrap().f32("model.layers.0.mlp.up_proj.weight").unwrap()
}

#[test]
fn dare_keeps_its_density_and_the_l1_norm() {
    let dir = tempfile::tempdir().unwrap();
    for density in [0.05, 0.5, 0.9] {
        let values = shown(dir.path(), "dare_linear", &format!("density: {density}"), 1);
        let n = values.len() as f64;
        let kept: Vec<f32> = values.iter().copied().filter(|v| *v != 0.0).collect();
        let error = (density * (1.0 - density) / n).sqrt();
        assert!((kept.len() as f64 / n - density).abs() < 4.0 * error, "{density}: {} of {n}", kept.len());
        // One factor for all: ‖Δ‖₁/‖m⊙Δ‖₁, not 1/density.
        let factor = (n / kept.len() as f64) as f32;
        assert!(kept.iter().all(|v| (v - factor).abs() < 1e-6), "{density}");
        let paper = shown(dir.path(), "dare_linear", &format!("density: {density}, rescale: inverse-density"), 1);
        assert!(paper.iter().all(|v| *v == 0.0 || (v - (1.0 / density) as f32).abs() < 1e-6));
        let bare = shown(dir.path(), "dare_linear", &format!("density: {density}, rescale: false"), 1);
        assert!(bare.iter().zip(&values).all(|(a, b)| (*a == 0.0) == (*b == 0.0) && (*a == 0.0 || *a == 1.0)));
    }
    let (a, again, other) = (
        shown(dir.path(), "dare_ties", "density: 0.5", 1),
        shown(dir.path(), "dare_ties", "density: 0.5", 1),
        shown(dir.path(), "dare_ties", "density: 0.5", 2),
    );
    assert_eq!(a, again);
    let agree = a.iter().zip(&other).filter(|(x, y)| (**x == 0.0) == (**y == 0.0)).count() as f64;
    assert!((agree / a.len() as f64 - 0.5).abs() < 4.0 * 0.5 / (a.len() as f64).sqrt(), "{agree}");
}

#[test]
fn della_keeps_more_of_what_is_larger() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, row) = (2000, 64);
    let name = "model.layers.0.mlp.up_proj.weight";
    let tensor = |f: fn(usize) -> f32| vec![(name, vec![rows, row], (0..rows * row).map(f).collect::<Vec<f32>>())];
    checkpoint(&dir.path().join("base"), Dtype::F32, &tensor(|_| 0.0));
    checkpoint(&dir.path().join("one"), Dtype::F32, &tensor(|i| 1.0 + (i * 37 % 64) as f32));
    let recipe = "merge_method: della\nbase_model: base\nmodels:\n- model: one\nparameters: {weight: 1, density: 0.4, epsilon: 0.2, rescale: false}\n";
    merge(dir.path(), recipe, &dir.path().join("out"), &Execution::default()).unwrap();
    let values = Tensors::open(dir.path().join("out")).unwrap().f32(name).unwrap();
    let mut kept = vec![0.0; row];
    values.iter().enumerate().filter(|(_, v)| **v != 0.0).for_each(|(i, _)| kept[i * 37 % 64] += 1.0);
    for (rank, kept) in kept.iter().enumerate() {
        let p = 0.2 + 0.4 * rank as f64 / 63.0;
        let error = (p * (1.0 - p) / rows as f64).sqrt();
        assert!((kept / rows as f64 - p).abs() < 4.5 * error, "rank {rank}: {kept} of {rows}");
    }
}

/// k-th magnitude by sampling and histograms, against a sort, with many ties and without.
#[test]
fn trims_equal_a_sort() {
    let dir = tempfile::tempdir().unwrap();
    let (n, name) = (600 * 512, "model.layers.0.mlp.up_proj.weight");
    let mut noise = pool::Noise(11);
    for (case, coarse) in [("fine", false), ("coarse", true)] {
        let values: Vec<f32> = (0..n)
            .map(|_| match noise.next() {
                v if coarse => (v * 20.0).round(),
                v => v,
            })
            .collect();
        let folder = dir.path().join(case);
        checkpoint(&folder.join("base"), Dtype::F32, &[(name, vec![600, 512], vec![0.0; n])]);
        checkpoint(&folder.join("one"), Dtype::F32, &[(name, vec![600, 512], values.clone())]);
        for density in [0.001, 0.2, 0.77] {
            let recipe = format!(
                "merge_method: ties\nbase_model: base\nmodels:\n- model: one\nparameters: {{weight: 1, density: {density}}}\n"
            );
            let out = folder.join(format!("{density}"));
            merge(&folder, &recipe, &out, &Execution { segment: 50_000, ..Execution::default() }).unwrap();
            let ours = Tensors::open(&out).unwrap().f32(name).unwrap();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
            let mut expected = vec![0.0; n];
            order[..(density * n as f64) as usize].iter().for_each(|i| expected[*i] = values[*i]);
            assert!(ours == expected, "{case} {density}");
        }
    }
}

#[test]
fn neuron_merge_follows_its_groups() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = |v: f32| {
        vec![
            ("model.layers.0.mlp.down_proj.weight", vec![2, 3], vec![v; 6]),
            ("model.layers.0.mlp.up_proj.weight", vec![3, 2], vec![v; 6]),
            ("model.norm.weight", vec![2], vec![v; 2]),
        ]
    };
    for (model, value) in [("base", 0.0), ("one", 1.0), ("two", 10.0)] {
        checkpoint(&dir.path().join(model), Dtype::F32, &tensors(value));
    }
    // Neuron 0 is `one`'s, neuron 1 `two`'s, neuron 2 nobody's.
    let saliency =
        [("one/saliency", vec![1, 3], vec![3.0, 1.0, 1.0]), ("two/saliency", vec![1, 3], vec![1.0, 3.0, 1.0])];
    checkpoint(&dir.path().join("statistics"), Dtype::F32, &saliency);
    let recipe = "merge_method: neuron_merge\nbase_model: base\nmodels: [{model: one}, {model: two}]\nstatistics: statistics/model.safetensors\n";
    merge(dir.path(), recipe, &dir.path().join("out"), &Execution::default()).unwrap();
    let merged = Tensors::open(dir.path().join("out")).unwrap();
    let of = |name: &str| merged.f32(name).unwrap();
    assert_eq!(of("model.layers.0.mlp.up_proj.weight"), [1.0, 1.0, 10.0, 10.0, 5.5, 5.5]);
    assert_eq!(of("model.layers.0.mlp.down_proj.weight"), [1.0, 10.0, 5.5, 1.0, 10.0, 5.5]);
    assert_eq!(of("model.norm.weight"), [5.5, 5.5]);
}

#[test]
fn values_survive_serialization() {
    for value in [Value::Number(0.5), Value::Bool(true), Value::Text("x".into())] {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }
}

#[test]
fn the_docs_name_every_operator_and_parameter() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/merging.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for operator in Operator::all() {
        let spec = operator.spec();
        assert!(docs.contains(&format!("`{}`", spec.name)), "{}", spec.name);
        for parameter in spec.parameters.iter().filter(|p| p.name != "int8_mask") {
            assert!(docs.contains(&format!("`{}`", parameter.name)), "{}: {}", spec.name, parameter.name);
        }
    }
}
