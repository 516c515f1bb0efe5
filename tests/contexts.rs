//! What a log says that a model was shown, against what it was sent: the real environments of the suites whose harness
//! cuts long conversations, with upstream's openings, and a model that talks too much.

use rolegraft_evaluate::{Evaluation, play};
use rolegraft_model::{ChatModel, Completion, Reply, Request};
use rolegraft_nano::tasks::{Suite as Nano, generate};
use rolegraft_nano::words::Split;
use rolegraft_spans::Format;
use rolegraft_suite_alfworld::Prompts;
use rolegraft_suites::{AgentBenchProtocol, Limits, Suite, Task};
use rolegraft_trajectory::{ChatArguments, ChatTokenizer, Context, EpisodeLog, Finish, Message, Origin, Role, Seed};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

const LIMITS: Limits = Limits { turns: 9, tokens: 100, temperature: 0.0, top_p: 1.0 };
const TEXT: AgentBenchProtocol = AgentBenchProtocol::Text;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Says much about nothing before each action, and remembers what it was sent.
struct Talker {
    chat: ChatTokenizer,
    action: &'static str,
    sent: Mutex<Vec<Request>>,
}

impl ChatModel for Talker {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        let thought = format!("t{} ", request.turn).repeat(700);
        let text = self.action.replace("{thought}", thought.trim());
        // Said letter by letter, as nobody would encode it again.
        let ids = text.chars().flat_map(|c| self.chat.vocabulary().encode(&c.to_string()).unwrap()).collect();
        self.sent.lock().unwrap().push(request.clone());
        Box::pin(async move { Ok(Completion::of_tokens(text, ids, Finish::Stop, 0)) })
    }
    fn concurrency(&self) -> usize {
        1
    }
}

fn a_talker_on(suite: Arc<dyn Suite>, tasks: Nano, action: &'static str) {
    let solved = generate(tasks, Split::Test, rolegraft_nano::seed(1), 0);
    let task = Task { id: solved.task["id"].as_str().unwrap().to_owned(), fields: solved.task };
    let chat = || ChatTokenizer::open(&root().join("benchmarks/nano-pool/base"), &ChatArguments::default()).unwrap();
    let model = Arc::new(Talker { chat: chat(), action, sent: Mutex::default() });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    let mut log = EpisodeLog::open(&path, Origin::of("d")).unwrap();
    let evaluation =
        Evaluation { suite: suite.clone(), tasks: vec![task.into()], trials: 1, at_once: None, seed: Seed(0) };
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(play(&evaluation, model.clone(), &mut log, &stop, &mut |_, _| {})).unwrap();

    let (_, episodes) = EpisodeLog::read(&path).unwrap();
    let episode = &episodes[0];
    let sent = model.sent.lock().unwrap();
    assert_eq!(episode.turns.len(), sent.len());
    assert!(sent.len() > 4, "{:?}", episode.status);
    let opening: Vec<Role> = episode.messages[..episode.turns[0].message].iter().map(|m| m.role).collect();
    assert_eq!(opening, suite.roles().opening);
    let cold = chat();
    let contexts = model.chat.contexts(episode).unwrap();
    assert_eq!((&contexts.other_ids, &contexts.unknown), (&vec![], &vec![]));
    let mut traced = contexts.sequences.iter().flat_map(|s| s.replies.iter().map(move |r| (s, r)));
    for (turn, request) in episode.turns.iter().zip(sent.iter()) {
        let shown = turn.shown.shown(&episode.messages[..turn.message]).unwrap();
        let shown: Vec<Message> = shown.into_iter().map(|s| s.message).collect();
        assert_eq!(shown, *request.messages);
        for (at, ids) in &request.recorded {
            assert_eq!(cold.vocabulary().decode(ids), request.messages[*at].content);
        }
        // The model's own turns are known in every context, and nobody else's are taken for them.
        let own =
            request.messages.iter().filter(|m| m.role == Role::Assistant && m.content.matches(" t").count() > 600);
        assert_eq!(request.recorded.len(), own.count());
        let prompt = cold.prompt_ids(&request.messages, &request.recorded).unwrap();
        assert_eq!(cold.vocabulary().decode(&prompt), cold.render(&request.messages, true).unwrap());
        let (sequence, reply) = traced.next().unwrap();
        let start = reply.tokens[0].0;
        assert_eq!(sequence.ids[..start], prompt);
        assert_eq!(sequence.ids[start..start + turn.ids.len()], turn.ids);
    }
    assert!(traced.next().is_none());
    assert!(episode.turns.iter().any(|turn| !turn.shown.is_all()), "nothing was cut");
    assert_eq!(episode.turns[0].shown, Context::All);

    // A log of the first version reads the same, but for what it does not say.
    let text = std::fs::read_to_string(&path).unwrap().replacen("\"rolegraft_log\":2", "\"rolegraft_log\":1", 1);
    std::fs::write(&path, text).unwrap();
    let (_, old) = EpisodeLog::read(&path).unwrap();
    assert!(old[0].turns.iter().all(|turn| turn.shown == Context::Unknown));
    assert_eq!(model.chat.contexts(&old[0]).unwrap().unknown.len(), sent.len());
}

#[test]
fn on_os() {
    if let Err(why) = rolegraft_suites::Sandbox::start() {
        eprintln!("skipped: {why}");
        return;
    }
    let setup = rolegraft_suite_os::Setup {
        prompt: rolegraft_suite_os::Prompt::upstream(TEXT),
        trims: true,
        ..Default::default()
    };
    let suite = rolegraft_suite_os::OsSuite::new(Format::builtin("agentbench-os").unwrap(), LIMITS, setup);
    a_talker_on(Arc::new(suite), Nano::Os, "Think: {thought}\n\nAct: bash\n\n```bash\necho hi\n```");
}

#[test]
fn on_dbbench() {
    if rolegraft_suite_db::Server::installed().is_none() {
        eprintln!("skipped: no MariaDB is installed");
        return;
    }
    let format = Format::builtin("agentbench-db").unwrap();
    let (prompt, place) = (rolegraft_suite_db::Prompt::upstream(), rolegraft_suite_db::Place::Private);
    let suite = rolegraft_suite_db::DbSuite::new(TEXT, format, LIMITS, prompt, place);
    a_talker_on(Arc::new(suite), Nano::Db, "{thought}\nAction: Operation\n```sql\nSELECT 1;\n```");
}

#[test]
fn on_webshop() {
    let format = Format::builtin("agentbench-webshop").unwrap();
    let prompts = rolegraft_suite_webshop::Prompts::upstream().clone();
    let suite = rolegraft_suite_webshop::WebShopSuite::new(TEXT, format, LIMITS, prompts, None);
    a_talker_on(Arc::new(suite), Nano::WebShop, "Thought:\n{thought}\n\nAction:\nsearch[boots]");
}

#[test]
fn on_alfworld() {
    let dir = root().join("benchmarks/alfworld");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let setup = rolegraft_suite_alfworld::Setup {
        protocol: TEXT,
        profile: rolegraft_suite_alfworld::Profile::Embedded,
        // A game without a folder has no example of upstream's.
        prompts: Prompts { examples: Default::default(), ..Prompts::upstream().clone() },
        games: dir.clone(),
        logic: Some((read("household.pddl"), read("household.twl2"))),
    };
    let format = Format::builtin("agentbench-alfworld").unwrap();
    let suite = rolegraft_suite_alfworld::AlfWorldSuite::new(format, LIMITS, setup);
    a_talker_on(Arc::new(suite), Nano::AlfWorld, "THOUGHT: {thought}\nACTION: look");
}
