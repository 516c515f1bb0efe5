//! The real binary merging: kill and resume, a full disk, memory, and the commands around it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::miniature::{SmallDisk, interrupt, killed_when};

fn rolegraft(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolegraft"));
    command.args(arguments).current_dir(dir);
    command
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A base and three experts in F32: `tensors` matrices of `rows` × 1024.
fn pool(dir: &Path, tensors: usize, rows: usize) {
    let elements = rows * 1024;
    let mut header = serde_json::Map::new();
    for i in 0..tensors {
        let (start, end) = (i * elements * 4, (i + 1) * elements * 4);
        let entry = serde_json::json!({"dtype": "F32", "shape": [rows, 1024], "data_offsets": [start, end]});
        header.insert(format!("model.layers.{i}.mlp.up_proj.weight"), entry);
    }
    let mut json = serde_json::Value::Object(header).to_string();
    json += &" ".repeat(json.len().next_multiple_of(8) - json.len());
    let config = format!(
        r#"{{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": {tensors}, "torch_dtype": "float32"}}"#
    );
    for model in 0..4u32 {
        let folder = dir.join(["base", "one", "two", "three"][model as usize]);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), &config).unwrap();
        let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join("model.safetensors")).unwrap());
        file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
        file.write_all(json.as_bytes()).unwrap();
        let mut state = 1u32;
        for i in 0..(tensors * elements) as u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state.rotate_left(8 * model).wrapping_mul(0x9E37_79B9) >> 20) as f32 * 1e-6;
            let changed = model > 0 && !(i ^ state >> 16).is_multiple_of(3);
            let value = (state >> 16) as f32 * 1e-5 + if changed { noise * model as f32 } else { 0.0 };
            file.write_all(&value.to_le_bytes()).unwrap();
        }
        file.flush().unwrap();
    }
}

const TIES: &str = "merge_method: ties\nbase_model: base\nmodels: [{model: one}, {model: two}, {model: three}]\nparameters: {weight: 0.5, density: 0.3}\n";

/// Where a merge that is under way writes, below the folder of its output.
fn aside(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).find(|path| path.join("journal.json").exists())
}

/// What the files right below a directory take up; some may go meanwhile.
fn bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

/// Every file below a directory, by name.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|p| (p.file_name().unwrap().into(), std::fs::read(&p).unwrap())).collect()
}

#[test]
fn killed_merges_leave_nothing_that_looks_whole_and_resume() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), 12, 1024);
    std::fs::write(dir.path().join("ties.yaml"), TIES).unwrap();
    let arguments = ["merge", "ties.yaml", "--out", "out", "--shard-size", "9MB"];
    let whole =
        rolegraft(dir.path(), &["merge", "ties.yaml", "--out", "whole", "--shard-size", "9MB"]).output().unwrap();
    assert!(whole.status.success(), "{}", text(&whole));
    let expected = contents(&dir.path().join("whole"));
    assert_eq!(expected.iter().filter(|(n, _)| n.extension().is_some_and(|e| e == "safetensors")).count(), 6);
    let out = dir.path().join("out");
    let (mut killed, mut resumed) = (0, 0);
    let written = || aside(dir.path()).map_or(0, |folder| bytes(&folder));
    let total: u64 = expected.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    // Later and later, until a run is over before its kill.
    for part in 0..=16 {
        if !killed_when(rolegraft(dir.path(), &arguments), || written() * 16 >= total * part) {
            break;
        }
        if out.exists() {
            // Killed between the rename and the exit: then it is whole.
            assert_eq!(contents(&out), expected);
            break;
        }
        killed += 1;
        if killed % 4 == 0 {
            // What was finished before is taken over, and the bytes are the same.
            resumed += usize::from(aside(dir.path()).is_some());
            let output = rolegraft(dir.path(), &arguments).output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
            assert_eq!(contents(&out), expected);
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    assert!(killed >= 8, "{killed}");
    if !out.exists() {
        assert!(rolegraft(dir.path(), &arguments).output().unwrap().status.success());
    }
    assert!(resumed >= 1, "no kill came between two shards");
    assert_eq!(contents(&out), expected);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 7, "{left:?}");
}

#[test]
fn interrupted_merges_say_so_and_keep_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), 12, 1024);
    std::fs::write(dir.path().join("ties.yaml"), TIES).unwrap();
    let arguments = ["merge", "ties.yaml", "--out", "out", "--shard-size", "5MB", "--threads", "1"];
    let child = rolegraft(dir.path(), &arguments).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while aside(dir.path()).is_none() {
        std::thread::yield_now();
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("the same command goes on"), "{}", text(&output));
    assert!(!dir.path().join("out").exists());
    let again = rolegraft(dir.path(), &arguments).output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
}

#[test]
fn a_full_disk_names_the_need_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), 4, 512);
    std::fs::write(dir.path().join("ties.yaml"), TIES).unwrap();
    let Some(disk) = SmallDisk::mounted(dir.path(), "3m") else { return };
    let small = disk.path();
    let output = rolegraft(dir.path(), &["merge", "ties.yaml", "--out", "small/out"]).output().unwrap();
    let left: Vec<_> = std::fs::read_dir(small).unwrap().map(|e| e.unwrap().file_name()).collect();
    drop(disk);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the disk is full") && said.contains("bytes are needed"), "{said}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn links_and_files_in_the_way_are_named_before_the_work() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), 1, 16);
    std::fs::write(dir.path().join("ties.yaml"), TIES).unwrap();
    let merged = |out: &str| rolegraft(dir.path(), &["merge", "ties.yaml", "--out", out]).output().unwrap();
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("kept"), "mine").unwrap();
    symlink(&other, dir.path().join(".linked.partial")).unwrap();
    std::fs::write(dir.path().join(".filed.partial"), "mine").unwrap();
    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    for (out, why) in [
        ("linked", ".linked.partial` is in the way"),
        ("filed", ".filed.partial` is in the way"),
        ("dangling", "it is a link"),
    ] {
        let output = merged(out);
        assert!(!output.status.success() && text(&output).contains(why), "{out}: {}", text(&output));
    }
    assert_eq!(contents(&other), [("kept".into(), b"mine".to_vec())]);
    let output = merged("dotted/.");
    assert!(output.status.success() && dir.path().join("dotted/model.safetensors").exists(), "{}", text(&output));
}

/// Peak memory is threads × (inputs + 1) × 1 MiB + 40 MiB, whatever the size of the tensors, and the program itself: what it
/// takes for next to nothing.
#[test]
fn memory_does_not_grow_with_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    pool(&small, 1, 1);
    // One tensor is 64 MiB in F32: none of this fits the limit whole.
    pool(&large, 1, 16 * 1024);
    let limit = f64::from((2 * 5 + 40) << 20);
    let peak = |folder: &Path, recipe: &str| {
        std::fs::write(folder.join("recipe.yaml"), recipe).unwrap();
        let output = rolegraft(folder, &["merge", "recipe.yaml", "--out", "out", "--threads", "2"]).output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{recipe}: {said}");
        std::fs::remove_dir_all(folder.join("out")).unwrap();
        said.split("peak memory ").nth(1).and_then(|t| t.split(" MB").next()?.trim().parse::<f64>().ok()).unwrap() * 1e6
    };
    for (method, parameters) in [
        ("linear", "weight: 1"),
        ("task_arithmetic", "weight: 1"),
        ("ties", "weight: 1, density: 0.2"),
        ("dare_ties", "weight: 1, density: 0.5"),
        ("della", "weight: 1, density: 0.5"),
        ("breadcrumbs", "weight: 1, density: 0.5"),
        ("model_stock", "filter_wise: true"),
        ("sce", "select_topk: 0.5"),
        ("karcher", "tol: 1e-5"),
        ("ram_plus", "r: 1.2"),
        ("widen", "score_calibration_value: 1"),
    ] {
        let base = if ["linear", "karcher"].contains(&method) { "" } else { "base_model: base\n" };
        let recipe = format!(
            "merge_method: {method}\n{base}models: [{{model: one}}, {{model: two}}, {{model: three}}]\nparameters: {{{parameters}}}\n"
        );
        let (program, all) = (peak(&small, &recipe), peak(&large, &recipe));
        assert!(all - program <= limit, "{method}: {all} bytes, {program} of them the program's, {limit} allowed");
    }
}

#[test]
fn diff_inspect_and_dry_runs_tell_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), 2, 64);
    std::fs::write(dir.path().join("ties.yaml"), TIES).unwrap();
    let run = |arguments: &[&str]| rolegraft(dir.path(), arguments).output().unwrap();
    let dry = run(&["merge", "ties.yaml", "--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("2 tensors"), "{}", text(&dry));
    let explained = run(&["merge", "ties.yaml", "--explain", "model.layers.1.mlp.up_proj.weight"]);
    assert!(text(&explained).contains("density = 0.3"), "{}", text(&explained));
    let unknown = run(&["merge", "ties.yaml", "--explain", "nothing"]);
    assert_eq!(unknown.status.code(), Some(2));
    // mergekit's way of writing it, with options that mean nothing here.
    let merged =
        run(&["merge", "ties.yaml", "out", "--cuda", "--lazy-unpickle", "--out-shard-size", "1B", "--device", "cpu"]);
    assert!(merged.status.success() && text(&merged).contains("--cuda has no effect"), "{}", text(&merged));
    let names: Vec<_> = contents(&dir.path().join("out")).into_iter().map(|(n, _)| n.display().to_string()).collect();
    assert_eq!(names, ["README.md", "config.json", "mergekit_config.yml", "model.safetensors"]);
    let same = run(&["diff", "out", "out"]);
    assert!(same.status.success(), "{}", text(&same));
    let other = run(&["diff", "out", "base", "--json"]);
    assert_eq!(other.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&other.stdout).unwrap();
    assert_eq!((json["tensors"].as_u64(), json["beyond"].as_u64()), (Some(2), Some(2)));
    assert!(run(&["diff", "out", "base", "--atol", "10"]).status.success());
    let inspected = run(&["inspect", "one", "two", "--base", "base", "--html", "page.html"]);
    let said = text(&inspected);
    assert!(said.contains("Qwen3ForCausalLM") && said.contains("Cosine between task vectors"), "{said}");
    assert!(std::fs::read_to_string(dir.path().join("page.html")).unwrap().contains("<svg"));
    let absent = run(&["inspect", "absent"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(text(&absent).contains("absent"));
}

#[test]
fn aim_measures_its_own_importances() {
    let dir = tempfile::tempdir().unwrap();
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool").canonicalize().unwrap();
    let experts: Vec<_> = std::fs::read_dir(nano.join("experts")).map_or_else(
        |_| std::fs::read_dir(&nano).unwrap().flatten().map(|e| e.path()).filter(|p| !p.ends_with("base")).collect(),
        |entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>(),
    );
    let experts: Vec<_> = experts.into_iter().filter(|p| p.join("config.json").exists()).take(2).collect();
    let text_file = dir.path().join("text.txt");
    std::fs::write(&text_file, "look up the order and refund it\n\nlist the files of the folder\n\n".repeat(40))
        .unwrap();
    let models: Vec<String> = experts.iter().map(|e| format!("- model: {}\n", e.display())).collect();
    let recipe = format!(
        "merge_method: aim\nbase_model: {}\nmodels:\n{}parameters: {{weight: 0.5, omega: 0.3}}\ncalibration: {}\nimportance: importance.safetensors\n",
        nano.join("base").display(),
        models.concat(),
        text_file.display()
    );
    std::fs::write(dir.path().join("aim.yaml"), &recipe).unwrap();
    let first = rolegraft(dir.path(), &["merge", "aim.yaml", "--out", "first"]).output().unwrap();
    assert!(first.status.success(), "{}", text(&first));
    assert!(dir.path().join("importance.safetensors").exists());
    // The measured file is used the second time.
    let second = rolegraft(dir.path(), &["merge", "aim.yaml", "--out", "second"]).output().unwrap();
    assert!(second.status.success() && !text(&second).contains("measure"), "{}", text(&second));
    assert!(rolegraft(dir.path(), &["diff", "first", "second"]).status().unwrap().success());
    let card = std::fs::read_to_string(dir.path().join("first/README.md")).unwrap();
    assert!(!card.contains(&nano.display().to_string()), "{card}");
}

#[test]
fn documents_are_carried_out_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), 2, 8);
    let path = |name: &str| dir.path().join(name);
    let text_of = |second: &str| {
        format!(
            "merge_method: linear\nmodels: [{{model: both, parameters: {{weight: 0.5}}}}, {{model: three, parameters: {{weight: 0.5}}}}]\n\
             ---\nname: both\nmerge_method: linear\nmodels: [{{model: one, parameters: {{weight: 0.5}}}}, {{model: {second}, parameters: {{weight: 0.5}}}}]\n"
        )
    };
    std::fs::write(path("all.yaml"), text_of("two")).unwrap();
    let run = |arguments: &[&str]| rolegraft(dir.path(), arguments).output().unwrap();
    let refused = run(&["merge", "all.yaml", "--out", "out"]);
    assert!(!refused.status.success() && text(&refused).contains("--intermediate-dir"), "{}", text(&refused));
    let done = run(&["mergekit-multi", "all.yaml", "--out-path", "out", "-I", "parts"]);
    assert!(done.status.success(), "{}", text(&done));
    // By hand, in two steps.
    std::fs::write(
        path("first.yaml"),
        "merge_method: linear\nmodels: [{model: one}, {model: two}]\nparameters: {weight: 0.5}\n",
    )
    .unwrap();
    std::fs::write(
        path("second.yaml"),
        "merge_method: linear\nmodels: [{model: first}, {model: three}]\nparameters: {weight: 0.5}\n",
    )
    .unwrap();
    for name in ["first", "second"] {
        let done = run(&["mergekit-yaml", &format!("{name}.yaml"), name]);
        assert!(done.status.success(), "{}", text(&done));
    }
    let weights = |name: &str| std::fs::read(path(name).join("model.safetensors")).unwrap();
    assert!(weights("parts/both") == weights("first") && weights("out") == weights("second"));
    // What is there is not made again; what another recipe made is not taken for it.
    let again = run(&["merge", "all.yaml", "--out", "again", "--intermediate-dir", "parts"]);
    assert!(again.status.success() && text(&again).contains("there already"), "{}", text(&again));
    std::fs::write(path("all.yaml"), text_of("base")).unwrap();
    let other = run(&["merge", "all.yaml", "--out", "other", "--intermediate-dir", "parts"]);
    assert!(!other.status.success() && text(&other).contains("what another recipe made"), "{}", text(&other));
    let circle = "name: a\nmerge_method: linear\nmodels: [{model: b}]\n---\nname: b\nmerge_method: linear\nmodels: [{model: a}]\n";
    std::fs::write(path("circle.yaml"), circle).unwrap();
    let circle = run(&["merge", "circle.yaml", "--out", "other", "-I", "parts"]);
    assert!(text(&circle).contains("a, b refer to each other"), "{}", text(&circle));
}
