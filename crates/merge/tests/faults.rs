//! Inputs that lie, and recipes that cannot be followed: every message names its place and a mend.
#![allow(missing_docs)]

mod pool;

use pool::{checkpoint, merge, random};
use proptest::prelude::*;
use rolegraft_checkpoint::{Dtype, Tensors};
use rolegraft_merge::{Execution, Plan, PlanOptions, Recipe, Solution};
use std::path::Path;

const TASK: &str = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: one}, {model: two}]\nparameters: {weight: 0.5}\n";

/// A recipe of regmean with more parameters.
fn regmean(parameters: &str) -> Result<Recipe, String> {
    let recipe = format!(
        "merge_method: regmean\nbase_model: pool/base\nmodels:\n- model: pool/one\n- model: pool/two\nparameters:\n{parameters}"
    );
    Recipe::parse(&recipe, Path::new("recipe.yaml"))
}

#[test]
fn fits_are_read_with_their_merges() {
    let recipe = regmean(
        "  calibration: {one: a.jsonl, pool/two: [b.jsonl, c.jsonl]}\n  ridge: 0.3\n  weights: {context: 0}\n  rest: anchor\n  \
         anchor: {merge_method: task_arithmetic, parameters: {weight: 0.35}}\n",
    );
    let recipe = recipe.unwrap();
    let fit = recipe.fit.as_ref().unwrap();
    assert_eq!(fit.experts, ["pool/one", "pool/two"]);
    assert_eq!(fit.calibration["pool/one"], [Path::new("a.jsonl")]);
    assert_eq!(fit.calibration["pool/two"].len(), 2);
    assert_eq!((fit.ridge, fit.off_diagonal, fit.sequential, fit.embedding), (0.3, 1.0, false, None));
    assert_eq!((fit.weights.role, fit.weights.context), (1.0, 0.0));
    assert_eq!(recipe.operator.spec().name, "task_arithmetic");
    assert_eq!(fit.anchor.models, ["pool/base", "pool/one", "pool/two"]);
    // The mean, which knows no base, unless it is said.
    let mean = regmean("  ridge: 0.1\n").unwrap();
    assert_eq!(mean.operator.spec().name, "linear");
    assert_eq!(
        (&mean.models, &mean.fit.unwrap().anchor.models),
        (&recipe.models[1..].to_vec(), &recipe.models[1..].to_vec())
    );
}

#[test]
fn neighbours_of_regmean_are_read() {
    let of = |method: &str, parameters: &str| {
        let recipe = format!(
            "merge_method: {method}\nbase_model: base\nmodels: [{{model: one}}]\nparameters: {{{parameters}}}\n"
        );
        Recipe::parse(&recipe, Path::new("recipe.yaml"))
    };
    let lot = of("lot", "").unwrap().fit.unwrap();
    assert_eq!(
        (lot.ridge, lot.anchor.operator.spec().name, lot.solution),
        (0.0, "task_arithmetic", Solution::LeastSquares)
    );
    let recipe = of("featcal", "alpha: 0.5, rest: {merge_method: ties}").unwrap();
    let fit = recipe.fit.as_ref().unwrap();
    assert_eq!((fit.ridge, fit.solution), (0.05, Solution::FeatCal { blend: 2.0, teacher: 0.5 }));
    assert_eq!((recipe.operator.spec().name, &*fit.experts), ("ties", &["one".to_owned()][..]));
    assert_eq!(of("esm", "alpha: 2").unwrap().fit.unwrap().solution, Solution::EssentialSubspace { scale: 2.0 });
    assert_eq!(of("acm", "").unwrap().fit.unwrap().solution, Solution::Consensus { theta: 0.7 });
    assert!(of("acm", "ridge: 1").unwrap_err().contains("`acm` has no parameter `ridge`"));
    let error = of("featcal", "sequential: true").unwrap_err();
    assert!(error.contains("`featcal` has no parameter `sequential`"), "{error}");
    assert!(of("featcal", "alpha: 2").unwrap_err().contains("`alpha` must be a number between 0 and 1"));
}

#[test]
fn fits_that_cannot_be_are_named_with_line_and_mend() {
    for (parameters, expected) in [
        ("  rigde: 0.1\n", &["line 7", "`rigde`", "did you mean `ridge`?"][..]),
        ("  ridge: -1\n", &["line 7", "`ridge` must be a number of 0 or more"]),
        ("  off_diagonal: 2\n", &["`off_diagonal` must be a number between 0 and 1"]),
        ("  sequential: 1\n", &["`sequential` must be true or false"]),
        ("  embedding: 0\n", &["`embedding` must be a number above 0"]),
        ("  weights: {roles: 1}\n", &["did you mean `role`?"]),
        ("  weights: {role: 0, reply: 0, context: 0}\n", &["all weights are 0"]),
        ("  calibration: {three: a.jsonl}\n", &["`three`, which is no one model of the recipe"]),
        ("  calibration: a.jsonl\n", &["must be a table of experts"]),
        ("  anchor: {merge_method: tise}\n", &["`anchor` cannot be merged by `tise`; did you mean `ties`?"]),
        ("  anchor: {merge_method: regmean}\n", &["`anchor` cannot be merged by `regmean`"]),
        ("  rest: {merge_method: linear, models: []}\n", &["models are those of the recipe"]),
        ("  anchor: {merge_method: task_arithmetic, parameters: {wieght: 0.5}}\n", &["did you mean `weight`?"]),
        ("  only: head\n", &["`only` must be `attention` or `mlp`"]),
        ("  rest: mean\n", &["`rest` must be a table with `merge_method`"]),
    ] {
        let error = regmean(parameters).unwrap_err();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
    let own = "merge_method: regmean\nmodels: [{model: one, parameters: {weight: 1}}, {model: two}]\n";
    assert!(Recipe::parse(own, Path::new("recipe.yaml")).unwrap_err().contains("take no parameters"));
    let baseless = "merge_method: lot\nmodels: [{model: one}]\n";
    assert!(Recipe::parse(baseless, Path::new("recipe.yaml")).unwrap_err().contains("name it as `base_model`"));
    let slices = "merge_method: regmean\nslices: [{sources: [{model: one, layer_range: [0, 1]}]}]\n";
    assert!(Recipe::parse(slices, Path::new("recipe.yaml")).unwrap_err().contains("fits whole models"));
}

#[test]
fn non_finite_inputs_are_refused_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |v: f32| vec![("a.weight", vec![3], vec![0.0, v, 2.0])];
    checkpoint(&dir.path().join("base"), Dtype::F32, &tensor(1.0));
    checkpoint(&dir.path().join("one"), Dtype::F32, &tensor(f32::NAN));
    checkpoint(&dir.path().join("two"), Dtype::F32, &tensor(1.0));
    let out = dir.path().join("out");
    let error = merge(dir.path(), TASK, &out, &Execution::default()).unwrap_err().to_string();
    assert!(error.contains("`a.weight` of `one`") && error.contains("--allow-nonfinite"), "{error}");
    assert!(!out.exists());
    let allowed = Execution { allow_nonfinite: true, ..Execution::default() };
    let outcome = merge(dir.path(), TASK, &out, &allowed).unwrap();
    assert_eq!((outcome.nonfinite_in, outcome.nonfinite_out), (1, 1));
}

#[test]
fn overflow_of_the_output_dtype_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |v: f32| vec![("a.weight", vec![2], vec![0.0, v])];
    for (model, v) in [("base", 1.0), ("one", 60_000.0), ("two", 60_000.0)] {
        checkpoint(&dir.path().join(model), Dtype::F16, &tensor(v));
    }
    let recipe = TASK.replace("0.5", "1.0");
    let outcome = merge(dir.path(), &recipe, &dir.path().join("out"), &Execution::default()).unwrap();
    assert_eq!((outcome.nonfinite_in, outcome.nonfinite_out), (0, 1));
}

#[test]
fn damaged_weights_name_file_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    let path = dir.path().join("two/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let fails = |bytes: &[u8], expected: &[&str]| {
        std::fs::write(&path, bytes).unwrap();
        let out = dir.path().join("out");
        let error = merge(dir.path(), TASK, &out, &Execution::default()).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!("; {cause}");
            source = cause.source();
        }
        assert!(expected.iter().all(|e| text.contains(e)), "{text}");
        assert!(!out.exists());
    };
    fails(&whole[..whole.len() / 2], &["two", "model.safetensors"]);
    fails(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", &["git lfs pull"]);
    fails(b"<!DOCTYPE html><html>not found</html>", &["two"]);
    std::fs::write(&path, &whole).unwrap();
    // Cut while the plan stands: reading notices.
    let recipe = Recipe::parse(TASK, Path::new("r.yaml")).unwrap();
    let plan = Plan::new(recipe, &[dir.path()], &PlanOptions::default()).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    let error = plan.execute(&dir.path().join("out"), &Execution::default()).unwrap_err();
    let text = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(text.contains("two") && text.contains("changed while it was being read"), "{text}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn an_input_that_changes_meanwhile_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    let recipe = Recipe::parse(TASK, Path::new("r.yaml")).unwrap();
    let plan = Plan::new(recipe, &[dir.path()], &PlanOptions::default()).unwrap();
    let path = dir.path().join("two/model.safetensors");
    let touch = |_: &rolegraft_merge::Progress<'_>| {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let error = plan.execute(&dir.path().join("out"), &Execution { progress: &touch, ..Execution::default() });
    assert!(error.unwrap_err().to_string().contains("changed while it was being merged"));
    assert!(!dir.path().join("out").exists());
}

#[test]
fn the_output_is_never_an_input_nor_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    let before = std::fs::read(dir.path().join("one/model.safetensors")).unwrap();
    assert!(merge(dir.path(), TASK, &dir.path().join("one"), &Execution::default()).is_err());
    assert_eq!(std::fs::read(dir.path().join("one/model.safetensors")).unwrap(), before);
    // The same directory under another name is the same model.
    std::os::unix::fs::symlink(dir.path().join("one"), dir.path().join("alias")).unwrap();
    let twice = TASK.replace("model: two", "model: alias");
    let error = merge(dir.path(), &twice, &dir.path().join("out"), &Execution::default()).unwrap_err().to_string();
    assert!(error.contains("same directory"), "{error}");
}

#[test]
fn integer_buffers_are_copied_if_equal() {
    let dir = tempfile::tempdir().unwrap();
    let write = |model: &str, last: u8| {
        checkpoint(&dir.path().join(model), Dtype::F32, &[]);
        let mut bytes = rolegraft_checkpoint::Header::encode(&[("ids".into(), Dtype::I64, vec![2])]);
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0, 0, 0, 0]);
        std::fs::write(dir.path().join(model).join("model.safetensors"), bytes).unwrap();
    };
    for model in ["base", "one", "two"] {
        write(model, 5);
    }
    merge(dir.path(), TASK, &dir.path().join("out"), &Execution::default()).unwrap();
    let merged = Tensors::open(dir.path().join("out")).unwrap();
    assert_eq!(merged.bytes("ids").unwrap()[8], 5);
    write("two", 6);
    let error = merge(dir.path(), TASK, &dir.path().join("out2"), &Execution::default()).unwrap_err().to_string();
    assert!(error.contains("`ids`") && error.contains("`two`"), "{error}");
}

/// Recipes that cannot be followed, with what the message must say.
#[test]
fn recipes_are_refused_with_line_and_mend() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    let models = "base_model: base\nmodels:\n- model: one\n- model: two\n";
    for (recipe, expected) in [
        ("models: [{model: one}]\n".to_owned(), vec!["`merge_method` is missing"]),
        (format!("merge_method: tiess\n{models}"), vec!["line 1", "did you mean `ties`"]),
        (format!("merge_method: ties\n{models}"), vec!["`weight`", "line 4", "`parameters`"]),
        (format!("merge_method: linear\n{models}parameters: {{weight: 1}}\ndtype: float64\n"), vec!["float64"]),
        ("merge_method: linear\nmodels: [{model: one+adapter}]\n".to_owned(), vec!["`adapter`", "neither a directory"]),
        ("merge_method: linear\nmodels: [{model: {model: one, lora: two}}]\n".to_owned(), vec!["adapter_config.json"]),
        ("merge_method: linear\nmodels: [{model: one}, {model: one}]\n".to_owned(), vec!["listed twice"]),
        ("merge_method: linear\nmodels: [{model: absent}]\nparameters: {weight: 1}\n".to_owned(), vec!["`absent`"]),
        (
            "merge_method: linear\nmodels: [{model: org/absent}]\nparameters: {weight: 1}\n".to_owned(),
            vec!["hf download org/absent"],
        ),
        (format!("merge_method: slerp\n{models}parameters: {{t: 0.5}}\n"), vec!["`slerp` takes at most 1"]),
        ("merge_method: model_stock\nbase_model: base\nmodels: [{model: one}]\n".to_owned(), vec!["at least 2"]),
        (
            "merge_method: ties\nmodels: [{model: one}]\nparameters: {weight: 1}\n".to_owned(),
            vec!["needs a base model"],
        ),
        (
            format!("merge_method: ties\n{models}parameters: {{weight: heavy}}\n"),
            vec!["line 6", "`weight` must be a finite number, not `heavy`"],
        ),
        (format!("merge_method: linear\n{models}parameters: {{weight: 1}}\nslices: []\n"), vec!["only one of"]),
        (format!("merge_method: aim\n{models}parameters: {{weight: 1}}\n"), vec!["`importance`", "`calibration`"]),
        (
            "merge_method: linear\nslices: [{sources: [{model: one, layer_range: [0, 9]}]}]\nparameters: {weight: 1}\n"
                .to_owned(),
            vec!["1 layers, not 9"],
        ),
        (
            format!("merge_method: linear\n{models}parameters: {{weight: 1}}\nchat_template: chatmll\n"),
            vec!["did you mean `chatml`"],
        ),
    ] {
        let out = dir.path().join("out");
        let error = merge(dir.path(), &recipe, &out, &Execution::default()).unwrap_err().to_string();
        assert!(expected.iter().all(|e| error.contains(e)), "{recipe}\n{error}");
        assert!(!out.exists());
    }
}

#[test]
fn words_without_effect_are_refused() {
    let of = |recipe: &str| Recipe::parse(recipe, Path::new("r.yaml"));
    let refused = |recipe: &str, parts: &[&str]| {
        let error = of(recipe).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(
        "merge_method: ties\nbase_modell: base\nmodels: [{model: one}]\n",
        &["line 2", "did you mean `base_model`"],
    );
    refused(
        "merge_method: ties\nmodels: [{model: one}]\nparameters: {weigth: 1}\n",
        &["line 3", "did you mean `weight`"],
    );
    refused("merge_method: ties\nmodels: [{model: one, wait: 1}]\n", &["line 2", "a model has no key `wait`"]);
    // A key that only holds what others refer to has an effect; of one key the last counts, which is said.
    let recipe = "constant: &ONE one\nconstant: &TWO two\nconstant: &SHARE {weight: 0.25}\nmerge_method: linear\n\
                  models:\n- {model: *ONE, parameters: {<<: *SHARE}}\n- {model: *TWO, parameters: {<<: *SHARE, weight: 0.75}}\n\
                  dtype: float16\ndtype: float32\n";
    let recipe = of(recipe).unwrap();
    assert_eq!((&recipe.models[..], recipe.out_dtype), (&["one".to_owned(), "two".to_owned()][..], Some(Dtype::F32)));
    assert_eq!(recipe.warnings, ["line 9: `dtype` counts, not that of line 8"]);
    refused("a: &A {b: 1}\nmerge_method: linear\nmodels: [{model: one}]\n", &["line 1", "`a`"]);
    refused("merge_method: linear\nmodels: [{model: *NONE}]\n", &["line 2", "anchor"]);
    refused("merge_method: linear\nmodels:\n- {model: one, parameters: {<<: 3}}\n", &["line 3", "`<<`", "a number"]);
    refused("merge_method: linear\nmodels:\n-\tmodel: one\n", &["line 3", "a tab"]);
    refused("merge_method: linear\n---\nmerge_method: linear\n", &["2 documents", "--intermediate-dir"]);
}

#[test]
fn what_comes_of_one_input_is_said_and_may_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    for (model, id, template) in [("base", 1, "{{ 'a' }}"), ("one", 1, "{{ 'a' }}"), ("two", 2, "{{ 'b' }}")] {
        let write = |name: &str, text: String| std::fs::write(dir.path().join(model).join(name), text).unwrap();
        write("generation_config.json", format!("{{\"eos_token_id\": [{id}], \"transformers_version\": \"{id}\"}}"));
        write("chat_template.jinja", template.to_owned());
    }
    let recipe = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: one}, {model: two}]\nparameters: {weight: 0.5}\n";
    let plan = |recipe: &str| {
        Plan::new(Recipe::parse(recipe, Path::new("r.yaml")).unwrap(), &[dir.path()], &PlanOptions::default()).unwrap()
    };
    let notes = plan(recipe).notes.join("\n");
    assert!(
        notes.contains("of `two`") && notes.contains("end-of-turn ids ({2}, not {1}), the chat template"),
        "{notes}"
    );
    assert!(!notes.contains("of `one`") && notes.contains("`chat_template: two`"), "{notes}");
    let chosen = plan(&format!("{recipe}chat_template: two\n"));
    assert!(chosen.notes.iter().any(|note| note.contains("of `base`")), "{:?}", chosen.notes);
    let out = dir.path().join("out");
    chosen.execute(&out, &Execution::default()).unwrap();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert!(read("generation_config.json").contains("[2]") && read("chat_template.jinja").contains("'b'"));
}

/// A checkpoint of some tensors of F32, each 4 by 4 of one number, and its config.
fn small(dir: &Path, tensors: &[(&str, f32)], config: &serde_json::Value) {
    let plan: Vec<_> = tensors.iter().map(|(name, _)| ((*name).to_owned(), Dtype::F32, vec![4, 4])).collect();
    let mut bytes = rolegraft_checkpoint::Header::encode(&plan);
    tensors.iter().for_each(|(_, value)| bytes.extend([*value; 16].iter().flat_map(|v| v.to_le_bytes())));
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn experts_of_a_mixture_merge_and_what_is_stale_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::json!({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 1,
        "num_experts": 2, "quantization_config": {"quant_method": "gptq"}, "auto_map": {"AutoModel": "modeling_x.X"}});
    let names = |value: f32| {
        [
            ("model.layers.0.mlp.experts.0.gate_proj.weight", value),
            ("model.layers.0.mlp.experts.1.gate_proj.weight", 10.0 * value),
            ("model.layers.0.mlp.gate.weight", 100.0 * value),
        ]
    };
    small(&dir.path().join("one"), &names(1.0), &config);
    let with_buffer = [&names(3.0)[..], &[("model.layers.0.self_attn.rotary_emb.inv_freq", 1.0)]].concat();
    small(&dir.path().join("two"), &with_buffer, &config);
    let recipe = "merge_method: linear\nmodels: [{model: one}, {model: two}]\nparameters: {weight: 0.5}\n";
    let plan =
        Plan::new(Recipe::parse(recipe, Path::new("r.yaml")).unwrap(), &[dir.path()], &PlanOptions::default()).unwrap();
    let notes = plan.notes.join("\n");
    for part in ["1 buffers `rotary_emb.inv_freq`", "`quantization_config` is left out", "modeling_x.X"] {
        assert!(notes.contains(part), "{notes}");
    }
    let out = dir.path().join("out");
    plan.execute(&out, &Execution::default()).unwrap();
    let merged = Tensors::open(&out).unwrap();
    for (name, value) in names(2.0) {
        assert_eq!(merged.f32(name).unwrap(), [value; 16], "{name}");
    }
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    assert!(!config.contains("quantization_config") && config.contains("qwen3_moe"), "{config}");
    small(
        &dir.path().join("two"),
        &[("model.layers.0.mlp.up_proj.qweight", 1.0)],
        &serde_json::json!({"architectures": ["Qwen3MoeForCausalLM"]}),
    );
    let error = merge(
        dir.path(),
        "merge_method: passthrough\nmodels: [{model: two}]\n",
        &dir.path().join("no"),
        &Execution::default(),
    );
    assert!(error.unwrap_err().to_string().contains("quantised"));
}

#[test]
fn slices_may_take_no_layers() {
    let dir = tempfile::tempdir().unwrap();
    random(dir.path(), Dtype::F32);
    let recipe = "merge_method: passthrough\nslices:\n- sources: [{model: one, layer_range: [0, 0]}]\n\
                  - sources: [{model: two, layer_range: [0, 1]}]\n- sources: [{model: one, layer_range: [1, 1]}]\n";
    let out = dir.path().join("out");
    merge(dir.path(), recipe, &out, &Execution::default()).unwrap();
    let (merged, one, two) = (
        Tensors::open(&out).unwrap(),
        Tensors::open(dir.path().join("one")).unwrap(),
        Tensors::open(dir.path().join("two")).unwrap(),
    );
    let like = |name: &str, other: &Tensors| assert!(merged.f32(name).unwrap() == other.f32(name).unwrap(), "{name}");
    for (name, _) in merged.tensors().filter(|(name, t)| t.dtype == Dtype::F32 && one.tensor(name).is_some()) {
        // What comes before the layers is the first slice's, what comes after the last one's.
        like(name, if name.contains("layers.") { &two } else { &one });
    }
    assert!(
        merged.tensors().any(|(name, _)| name.contains("layers.0."))
            && !merged.tensors().any(|(name, _)| name.contains("layers.1."))
    );
}

proptest! {
    #[test]
    fn any_text_is_a_recipe_or_an_error(text in "(merge_method|regmean|calibration|anchor|rest|models|slices|model|parameters|weight|base_model|tokenizer|source|layer_range|filter|value|- |: |\\[|\\]|\\{|\\}|ties|[0-9.]|\n|  |'|\"){0,80}") {
        let _ = Recipe::parse(&text, Path::new("r.yaml"));
        let _ = Recipe::parse(&text, Path::new("r.toml"));
    }
}
