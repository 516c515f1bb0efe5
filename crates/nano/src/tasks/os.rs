//! AgentBench OS tasks: one command, then an answer or `finish`.

use super::draft::Draft;
use crate::words::Entities;
use serde_json::json;

fn bash(thought: &str, command: &str) -> String {
    format!("Think: {thought}\n\nAct: bash\n\n```bash\n{command}\n```")
}

fn question(request: String, init: String, command: String, answer: String) -> Draft {
    Draft {
        fields: json!({"description": request, "init": [{"language": "bash", "code": init}],
                       "match": {"answer": answer, "strip": true}}),
        request,
        turns: vec![
            (bash("I look.", &command), Some(format!("The output of the OS:\n\n{answer}"))),
            (format!("Think: I have it.\n\nAct: answer({answer})"), None),
        ],
    }
}

fn errand(request: String, init: String, command: String, check: String) -> Draft {
    Draft {
        fields: json!({"description": request, "init": [{"language": "bash", "code": init}],
                       "check": [{"language": "bash", "code": check}]}),
        request,
        turns: vec![
            (bash("I do it.", &command), Some("The output of the OS is empty.".into())),
            ("Think: It is done.\n\nAct: finish".into(), None),
        ],
    }
}

pub(super) fn task(e: &mut Entities<'_>) -> Draft {
    let folder = format!("/home/{}", e.word());
    let file = e.word();
    let (path, make) = (format!("{folder}/{file}.txt"), format!("mkdir -p {folder}"));
    match e.rng.below(7) {
        0 => {
            let lines = e.number(2);
            question(
                format!("How many lines has {path}?"),
                format!("{make}; seq {lines} > {path}"),
                format!("wc -l < {path}"),
                lines,
            )
        }
        1 => {
            let (word, hits) = (e.word(), 2 + e.rng.below(7));
            question(
                format!("How many lines of {path} contain {word}?"),
                format!("{make}; for i in $(seq {hits}); do echo \"$i {word}\"; done > {path}; echo none >> {path}"),
                format!("grep -c {word} {path}"),
                hits.to_string(),
            )
        }
        2 => {
            let (kind, count) = (*e.rng.pick(&["csv", "log", "md"]), 2 + e.rng.below(7));
            question(
                format!("How many {kind} files are in {folder}?"),
                format!("{make}; for i in $(seq {count}); do touch {folder}/$i.{kind}; done; touch {folder}/other.bin"),
                format!("ls {folder}/*.{kind} | wc -l"),
                count.to_string(),
            )
        }
        3 => {
            let words: Vec<String> = (0..4).map(|_| e.word()).collect();
            let line = e.rng.below(4);
            question(
                format!("What is line {} of {path}?", line + 1),
                format!("{make}; printf '%s\\n' {} > {path}", words.join(" ")),
                format!("sed -n {}p {path}", line + 1),
                words[line].clone(),
            )
        }
        4 => errand(format!("Create an empty file {path}."), make, format!("touch {path}"), format!("test -f {path}")),
        5 => {
            let new = format!("{folder}/{}", e.word());
            errand(format!("Create the folder {new}."), make, format!("mkdir -p {new}"), format!("test -d {new}"))
        }
        _ => {
            let script = format!("{folder}/{file}.sh");
            errand(
                format!("Make {script} executable."),
                format!("{make}; touch {script}; chmod 644 {script}"),
                format!("chmod +x {script}"),
                format!("test -x {script}"),
            )
        }
    }
}
