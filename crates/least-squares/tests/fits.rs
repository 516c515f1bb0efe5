//! Fits of the nano pool: the same in every memory and with any number of threads, to the byte after interruptions; what is refused.
#![allow(missing_docs)]

use rolegraft_checkpoint::{Checkpoint, Tensors};
use rolegraft_least_squares::{
    Calibration, Expert, LeastSquaresError, Means, Outcome, Sample, Sets, Step, Sums, merge, record,
};
use rolegraft_merge::{Execution, Plan, PlanOptions, Recipe};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const EXPERTS: [&str; 2] = ["tau", "office"];

fn plan(parameters: &str) -> Plan {
    // The method may be said among them.
    let (method, parameters) = parameters.split_once(" of ").unwrap_or(("regmean", parameters));
    let recipe = format!(
        "{{merge_method: {method}, dtype: float32, base_model: base, models: [{{model: tau}}, {{model: office}}], parameters: {{{parameters}}}}}"
    );
    let pool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool");
    Plan::new(Recipe::parse(&recipe, Path::new("recipe.yaml")).unwrap(), &[&pool], &PlanOptions::default()).unwrap()
}

/// Runs of several lengths that begin alike, a set for one expert and two for the other.
fn ids() -> Vec<Vec<u32>> {
    let run = |at: usize| (0..60 + 37 * at).map(|i| (3 + (i * 7 + i / 40 * at * 31) % 900) as u32).collect();
    (0..12).map(run).collect()
}

fn sets(ids: &[Vec<u32>]) -> Sets<'_> {
    let sample = |ids: &'_ Vec<u32>| -> (Vec<f64>, Vec<u32>) {
        let weights = (0..ids.len()).map(|at| [0.3, 1.0, 0.0][at % 3]).collect();
        (weights, (20..ids.len() as u32 - 1).collect())
    };
    let of = |ids: &'_ [Vec<u32>]| -> Vec<(Vec<f64>, Vec<u32>)> { ids.iter().map(sample).collect() };
    let set = |from: usize, to: usize| -> Vec<Sample<'_>> {
        let part = &ids[from..to];
        let rows = part.iter().zip(of(part));
        rows.map(|(ids, (weights, predicts))| Sample { ids, weights, predicts }).collect()
    };
    let samples = Calibration::Samples;
    [("tau".to_owned(), samples(vec![set(0, 5)])), ("office".to_owned(), samples(vec![set(5, 9), set(9, 12)]))].into()
}

fn fitted(parameters: &str, out: &Path, memory: usize, stop_at: Option<usize>) -> Result<Outcome, LeastSquaresError> {
    let (ids, stop, seen) = (ids(), AtomicBool::new(false), Cell::new(0));
    let progress = |_: &Step<'_>| {
        seen.set(seen.get() + 1);
        stop.store(stop_at.is_some_and(|at| seen.get() >= at), Ordering::Relaxed);
    };
    let execution = Execution { stop: &stop, ..Execution::default() };
    let means = Means { memory, progress: &progress };
    merge(&plan(parameters), sets(&ids), out, &execution, &means).map(|(_, outcome)| outcome)
}

fn weights(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("model.safetensors")).unwrap()
}

fn alike(ours: &Path, theirs: &Path, what: &str, most: f32) {
    let (ours, theirs) = (Tensors::open(ours).unwrap(), Tensors::open(theirs).unwrap());
    for (name, _) in ours.tensors() {
        let (a, b) = (ours.f32(name).unwrap(), theirs.f32(name).unwrap());
        let apart = a.iter().zip(&b).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(a.len() == b.len() && apart < most, "{what}: `{name}` is {apart} apart");
    }
}

/// Nothing but the output is left beside it.
fn alone(out: &Path) {
    let names: Vec<_> = std::fs::read_dir(out.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{names:?}");
}

#[test]
fn results_depend_neither_on_memory_nor_on_threads() {
    for parameters in ["ridge: 0.01", "sequential: true, embedding: 1"] {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole");
        assert!(!fitted(parameters, &whole, usize::MAX, None).unwrap().spilled);
        let least = match fitted(parameters, &dir.path().join("none"), 1 << 20, None) {
            Err(LeastSquaresError::Memory { least, .. }) => least,
            other => panic!("{other:?}"),
        };
        let narrow = dir.path().join("narrow");
        assert!(fitted(parameters, &narrow, least, None).unwrap().spilled);
        // Blocks of tokens, whose sums are F32, begin elsewhere.
        alike(&narrow, &whole, parameters, 1e-5);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let single = dir.path().join("single");
        one.install(|| fitted(parameters, &single, usize::MAX, None)).unwrap();
        alike(&single, &whole, parameters, 1e-6);
    }
}

#[test]
fn interrupted_fits_go_on_and_give_the_same_bytes() {
    for parameters in ["ridge: 0.01", "sequential: true"] {
        let dir = tempfile::tempdir().unwrap();
        let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
        fitted(parameters, &whole, usize::MAX, None).unwrap();
        for at in [3, 8, 4] {
            let stopped = fitted(parameters, &out, usize::MAX, Some(at));
            assert!(matches!(stopped, Err(LeastSquaresError::Interrupted)), "{stopped:?}");
            assert!(!out.exists());
        }
        fitted(parameters, &out, usize::MAX, None).unwrap();
        assert!(weights(&out) == weights(&whole), "{parameters}");
        alone(&out);
    }
}

#[test]
fn equations_without_a_ridge_keep_the_anchor_where_they_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let ids: Vec<Vec<u32>> = vec![(3..40).collect(), (50..90).collect()];
    let sample = |ids: &'_ [u32]| vec![1.0; ids.len()];
    let sets: Sets<'_> = EXPERTS
        .iter()
        .zip(&ids)
        .map(|(expert, ids)| {
            let sample = Sample { ids, weights: sample(ids), ..Sample::default() };
            ((*expert).to_owned(), Calibration::Samples(vec![vec![sample]]))
        })
        .collect();
    let means = Means { memory: usize::MAX, progress: &|_| {} };
    let outcome = merge(&plan("ridge: 0"), sets, &out, &Execution::default(), &means).unwrap().1;
    // 77 tokens span no map's inputs.
    assert_eq!(outcome.singular.len(), 4 * 7);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("28 maps have singular equations") && card.contains("self_attn.q_proj"), "{card}");
}

fn samples<'s, 'i>(sets: &'s mut Sets<'i>, expert: &str) -> &'s mut Vec<Vec<Sample<'i>>> {
    match sets.get_mut(expert) {
        Some(Calibration::Samples(samples)) => samples,
        _ => panic!("no samples of {expert}"),
    }
}

#[test]
fn sums_that_were_written_before_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let ids = ids();
    let (parameters, whole) = ("ridge: 0.01, off_diagonal: 0.9, embedding: 1", dir.path().join("whole"));
    fitted(parameters, &whole, usize::MAX, None).unwrap();
    let mut by_sums = Sets::new();
    for expert in EXPERTS {
        let mut of = sets(&ids);
        let pool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool");
        let checkpoint = Checkpoint::open(pool.join(expert)).unwrap();
        let model = Expert::new(expert, &checkpoint, std::mem::take(samples(&mut of, expert))).unwrap();
        let write = |out: &Path, stop_at: usize| {
            let (stop, seen) = (AtomicBool::new(false), Cell::new(0));
            let progress = |_: &Step<'_>| {
                seen.set(seen.get() + 1);
                stop.store(seen.get() >= stop_at, Ordering::Relaxed);
            };
            let said = [("of".to_owned(), expert.to_owned())].into();
            record(&model, &said, out, &stop, &Means { memory: usize::MAX, progress: &progress })
        };
        let (out, again) = (dir.path().join(expert), dir.path().join(format!("{expert}-again")));
        write(&out, usize::MAX).unwrap();
        for stop_at in [1, 3, 5, 7] {
            assert!(matches!(write(&again, stop_at), Err(LeastSquaresError::Interrupted)));
            assert!(!again.exists());
        }
        write(&again, usize::MAX).unwrap();
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&again).unwrap());
        assert_eq!(Sums::open(&out).unwrap().metadata("of"), Some(expert));
        // Any reader finds whole symmetric matrices.
        let sums = Tensors::open(&out).unwrap();
        let square = sums.f32("layers.1.mlp.down_proj.input").unwrap();
        let width = square.len().isqrt();
        let row: Vec<f32> = (0..width).map(|column| square[5 * width + column]).collect();
        let column: Vec<f32> = (0..width).map(|row| square[row * width + 5]).collect();
        assert!(row == column && row[5] > 0.0);
        by_sums.insert(expert.to_owned(), Calibration::Sums(out));
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
    let merged = |parameters: &str, out: &Path, sets: Sets<'_>| {
        let means = Means { memory: usize::MAX, progress: &|_| {} };
        merge(&plan(parameters), sets, out, &Execution::default(), &means)
    };
    let again = |sets: &Sets<'_>| -> Sets<'_> {
        let of = |(name, of): (&String, &Calibration<'_>)| match of {
            Calibration::Sums(path) => (name.clone(), Calibration::Sums(path.clone())),
            Calibration::Samples(_) => panic!("samples"),
        };
        sets.iter().map(of).collect()
    };
    let out = dir.path().join("out");
    merged(parameters, &out, again(&by_sums)).unwrap();
    assert!(weights(&out) == weights(&whole));
    for parameters in ["sequential: true", "featcal of ridge: 0.05", "acm of theta: 0.7"] {
        let error = merged(parameters, &dir.path().join("none"), again(&by_sums)).unwrap_err();
        assert!(error.to_string().contains("Gram matrices do not do"), "{error}");
    }
    let cut = dir.path().join("cut");
    std::fs::write(&cut, &std::fs::read(dir.path().join("tau")).unwrap()[..5000]).unwrap();
    by_sums.insert("tau".to_owned(), Calibration::Sums(cut));
    assert!(merged(parameters, &dir.path().join("none"), by_sums).unwrap_err().to_string().contains("cut"));
}

#[test]
fn what_cannot_be_fitted_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ids = ids();
    let means = Means { memory: usize::MAX, progress: &|_| {} };
    let refused = |sets: Sets<'_>| {
        let out = dir.path().join("out");
        let error = merge(&plan("ridge: 0.01"), sets, &out, &Execution::default(), &means).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    let mut lacking = sets(&ids);
    lacking.remove("office");
    assert_eq!(refused(lacking), "expert `office` has no calibration set");
    let mut weightless = sets(&ids);
    samples(&mut weightless, "office")[1].iter_mut().for_each(|sample| sample.weights.fill(0.0));
    assert!(refused(weightless).contains("expert `office`: calibration set 2 has no token with a weight above 0"));
    let mut negative = sets(&ids);
    samples(&mut negative, "tau")[0][1].weights[3] = -1.0;
    assert!(refused(negative).contains("the weight -1 of a token"));
    let mut short = sets(&ids);
    samples(&mut short, "tau")[0][0].weights.pop();
    assert!(refused(short).contains("59 weights for 60 ids"));
    let beyond = [5000_u32; 10];
    let mut foreign = sets(&ids);
    *samples(&mut foreign, "tau") = vec![vec![Sample { ids: &beyond, weights: vec![1.0; 10], ..Sample::default() }]];
    assert!(refused(foreign).contains("token 5000 is beyond the vocabulary"));
}

#[test]
fn a_calibration_that_died_while_it_wrote_a_layer_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    let parameters = "featcal of ridge: 0.05";
    fitted(parameters, &whole, usize::MAX, None).unwrap();
    let stopped = fitted(parameters, &out, usize::MAX, Some(9));
    assert!(matches!(stopped, Err(LeastSquaresError::Interrupted)), "{stopped:?}");
    // As a kill between two of a layer's maps leaves it: the note says so, and what the merge had there is gone.
    let bench = dir.path().join(".out.fit");
    let note = std::fs::read_to_string(bench.join("fitted.json")).unwrap();
    assert!(note.contains("\"layers\":2") && note.contains("\"open\":false"), "{note}");
    std::fs::write(bench.join("fitted.json"), note.replace("\"open\":false", "\"open\":true")).unwrap();
    let shard = bench.join("merged/model.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    let end = bytes.len();
    bytes[end / 2..].fill(0);
    std::fs::write(&shard, bytes).unwrap();
    fitted(parameters, &out, usize::MAX, None).unwrap();
    assert!(weights(&out) == weights(&whole));
    alone(&out);
    // Between layers it goes on.
    let again = dir.path().join("again");
    assert!(fitted(parameters, &again, usize::MAX, Some(9)).is_err());
    fitted(parameters, &again, usize::MAX, None).unwrap();
    assert!(weights(&again) == weights(&whole));
}
