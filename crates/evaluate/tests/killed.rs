//! Episodes under which the machine gave way, and those that the model itself brings down.
#![allow(missing_docs)]

use rolegraft_evaluate::{Evaluation, EvaluationError, play};
use rolegraft_model::Scripted;
use rolegraft_spans::Format;
use rolegraft_suite::{Environment, Limits, Outcome, Roles, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{EpisodeKey, EpisodeLog, Message, Origin, Seed, Status};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Tasks say what becomes of how many of their episodes.
struct Ground {
    format: Format,
    begun: Mutex<BTreeMap<String, u64>>,
}

struct Episode {
    task: String,
    lost: bool,
    killed: bool,
}

impl Suite for Ground {
    fn id(&self) -> &str {
        "ground"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        Limits { turns: 1, tokens: 1, temperature: 0.0, top_p: 1.0 }
    }
    fn roles(&self) -> Roles {
        Roles::with_user(false)
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let mut begun = self.begun.lock().unwrap();
        let begun = begun.entry(task.id.clone()).or_default();
        *begun += 1;
        let still = |what: &str| task.fields[what].as_u64().unwrap_or(0) >= *begun;
        Ok(Box::new(Episode { task: task.id.clone(), lost: still("lost"), killed: still("killed") }))
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        Ok(vec![Message::user("Go.")])
    }
    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = Format::builtin("react").unwrap().read(reply, None);
        let status = if self.killed { Status::TaskError } else { Status::Completed };
        Ok(Step { reading, succeeded: !self.killed, observations: Vec::new(), ended: Some(status) })
    }
    fn outcome(&mut self) -> Outcome {
        Outcome { reward: 1.0, detail: json!(null) }
    }
    fn intact(&mut self) -> Result<bool, SuiteError> {
        let gone = || SuiteError::Lost {
            suite: "ground".into(),
            task: self.task.clone(),
            what: "floor",
            reason: "it fell".into(),
        };
        if self.lost { Err(gone()) } else { Ok(!self.killed) }
    }
}

#[test]
fn an_episode_counts_once_its_ground_has_held_or_the_model_is_known_to_break_it() {
    const ALWAYS: u64 = 99;
    // How many episodes lose their ground, how many are killed; how many are begun, and how the task ends.
    let cases = [
        ("held", 0, 0, 1, Some(Status::Completed)),
        ("fell once", 1, 0, 2, Some(Status::Completed)),
        ("fell twice", 2, 0, 3, Some(Status::Completed)),
        ("falls", ALWAYS, 0, 3, None),
        ("killed once", 0, 1, 2, Some(Status::Completed)),
        ("kills", 0, ALWAYS, 2, Some(Status::TaskError)),
        ("fell, and kills", 1, ALWAYS, 3, Some(Status::TaskError)),
    ];
    let tasks: Vec<_> = cases
        .iter()
        .map(|(id, lost, killed, ..)| Task { id: (*id).into(), fields: json!({"lost": lost, "killed": killed}) })
        .map(Arc::new)
        .collect();
    let key = |task: &str| EpisodeKey { suite: "ground".into(), task: task.into(), trial: 0 };
    let model = Arc::new(Scripted::new(tasks.iter().map(|task| (key(&task.id), vec!["Done.".to_owned()]))));
    let suite = Arc::new(Ground { format: Format::builtin("react").unwrap(), begun: Mutex::default() });
    let evaluation = Evaluation { suite: suite.clone(), tasks, trials: 1, at_once: None, seed: Seed(1) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let mut log = EpisodeLog::open(&path, Origin::of("d")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let error = runtime.block_on(play(&evaluation, model, &mut log, &stop, &mut |_, _| {})).unwrap_err();
    drop(log);
    assert!(matches!(error, EvaluationError::Incomplete { failed: 1, of: 7, .. }), "{error}");
    assert!(error.to_string().contains("suite `ground`, task `falls`: the floor is gone: it fell"), "{error}");
    let (_, episodes) = EpisodeLog::read(&path).unwrap();
    assert_eq!(episodes.len(), cases.len() - 1);
    let begun = suite.begun.lock().unwrap();
    for (id, _, _, times, status) in cases {
        assert_eq!(begun[id], times, "{id}");
        let logged: Vec<_> = episodes.iter().filter(|e| e.key.task == id).map(|e| e.status).collect();
        assert_eq!(logged, Vec::from_iter(status), "{id}");
    }
}
