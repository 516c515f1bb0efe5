//! What strangers write, read as the product reads it: nothing may panic, hang or take memory without bound, and what is accepted has to
//! hold together. `tests/corpora.rs` runs the corpora through the same functions with any compiler.
#![allow(missing_docs, reason = "targets, not an interface")]

use rolegraft_checkpoint::{Architecture, Checkpoint, Config, Header, Location, Tensors};
use rolegraft_merge::Recipe;
use rolegraft_model::{ChatModel, Endpoint, EndpointConfig, Request, Sampling};
use rolegraft_spans::{Actions, Format, python_json};
use rolegraft_suite::TaskSet;
use rolegraft_suite_alfworld::{Game, Profile, Session as Play};
use rolegraft_suite_office::Mode;
use rolegraft_suite_office::recorded::{Session, message};
use rolegraft_trajectory::{
    ChatArguments, ChatTemplate, EpisodeKey, EpisodeLog, Episodes, Key, Message, Origin, Seed, Vocabulary, calls,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tempfile::{TempDir, tempdir};

/// A target's name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 18] = [
    ("header", header),
    ("index", index),
    ("config", config),
    ("adapter", adapter),
    ("torch", torch),
    ("recipe", recipe),
    ("reply", reply),
    ("format", format),
    ("template", template),
    ("log", log),
    ("calibration", calibration),
    ("server", server),
    ("workbook", workbook),
    ("document", document),
    ("calendar", calendar),
    ("mail", mail),
    ("game", game),
    ("python", python),
];

/// Runs one of them.
///
/// # Panics
/// If the product fails, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let (_, run) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target's name");
    run(data);
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("space for a file");
    }
    dir
}

/// The first byte, which chooses, and the rest.
fn chosen(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}

/// Pieces between bytes of zero.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == 0)
}

fn archive<'m>(members: impl Iterator<Item = (&'m str, &'m [u8])>) -> Vec<u8> {
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        // A name given twice is refused by the writer; readers meet such archives as raw bytes.
        if writer.start_file(name, stored).is_ok() {
            writer.write_all(bytes).expect("memory");
        }
    }
    writer.finish().expect("memory").into_inner()
}

/// A safetensors file of F32 tensors of zeros.
fn safetensors(tensors: &[(&str, [usize; 2])]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let size = 4 * shape[0] * shape[1];
        header.insert((*name).into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}));
        end += size;
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; end]].concat()
}

/// The header of a file of safetensors: its tensors lie side by side in the file.
fn header(data: &[u8]) {
    let len = data.len() as u64;
    for len in [len, len.saturating_mul(1 << 20), u64::MAX] {
        if let Ok(header) = Header::parse(data, len) {
            let mut places: Vec<_> = header.tensors.iter().map(|t| (t.start, t.end)).collect();
            places.sort_unstable();
            assert!(places.iter().all(|(start, end)| start <= end && *end <= len));
            assert!(places.windows(2).all(|two| two[0].1 <= two[1].0), "tensors overlap");
        }
    }
}

/// Reads every tensor of what could be opened.
fn read_all(tensors: &Tensors) {
    for (name, tensor) in tensors.tensors() {
        if tensor.shape.iter().product::<usize>() < 1 << 20 {
            let _ = tensors.f32(name);
        }
    }
}

/// `model.safetensors.index.json` beside two shards.
fn index(data: &[u8]) {
    let dir = folder(&[
        ("model.safetensors.index.json", data),
        ("one.safetensors", &safetensors(&[("a", [2, 2])])),
        ("two.safetensors", &safetensors(&[("b", [1, 3])])),
    ]);
    if let Ok(tensors) = Tensors::open(dir.path()) {
        assert!(tensors.tensors().all(|(name, _)| ["a", "b"].contains(&name)));
        read_all(&tensors);
    }
}

/// The JSON beside a checkpoint's tensors.
fn config(data: &[u8]) {
    const NAMES: [&str; 4] = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"];
    let (choice, data) = chosen(data);
    let name = NAMES[choice % NAMES.len()];
    let dir = folder(&[("config.json", b"{}"), (name, data), ("chat_template.json", br#"{"chat_template": "x"}"#)]);
    if let Ok(config) = Config::read(dir.path()) {
        let _ = config.unquantised();
        if let Ok(architecture) = Architecture::read(&config) {
            let _ = (architecture.parameters(), architecture.layer_parameters());
            if architecture.head_dim <= 1 << 16 {
                let _ = architecture.rope.frequencies(architecture.head_dim);
            }
        }
    }
    if let Ok(template) = ChatTemplate::read(dir.path()) {
        let _ = template.render(&[Message::user("x")], true, &ChatArguments::default());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Vocabulary::parse(Path::new("tokenizer.json"), text);
    }
}

/// An adapter of PEFT's: its configuration, and the header of its tensors, as two pieces.
fn adapter(data: &[u8]) {
    let mut parts = pieces(data);
    let (rules, tensors) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let config = json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4}).to_string();
    let name = "model.layers.0.self_attn.q_proj.weight";
    // Room for whatever sizes the header says, within bounds.
    let lora = [&(tensors.len() as u64).to_le_bytes(), tensors, &[0; 512]].concat();
    let whole = Header::parse(&lora, u64::MAX).ok();
    let end = whole.and_then(|header| header.tensors.iter().map(|t| t.end).max()).unwrap_or(0);
    let lora = lora.get(..usize::try_from(end).unwrap_or(usize::MAX)).filter(|_| end > 0).unwrap_or(&lora);
    let dir = folder(&[
        ("base/config.json", config.as_bytes()),
        ("base/model.safetensors", &safetensors(&[(name, [4, 4]), ("lm_head.weight", [6, 4])])),
        ("lora/adapter_config.json", rules),
        ("lora/adapter_model.safetensors", lora),
    ]);
    let location = Location { dir: dir.path().join("base"), adapter: Some(dir.path().join("lora")) };
    let _ = location.tensors(&mut json!({})).map(|tensors| read_all(&tensors));
    let _ = Checkpoint::open(location.path());
}

/// A file of `torch.save`: as it is, or as the pickle of an archive.
fn torch(data: &[u8]) {
    let raw = data.starts_with(b"PK");
    let numbers = [0; 64];
    let members = [("m/data.pkl", data), ("m/data/0", &numbers), ("m/data/1", &numbers)];
    let packed = if raw { data.to_owned() } else { archive(members.into_iter()) };
    let dir = folder(&[("pytorch_model.bin", &packed)]);
    let _ = Tensors::open(dir.path()).map(|tensors| read_all(&tensors));
}

/// A recipe: YAML, or after an odd first byte TOML.
fn recipe(data: &[u8]) {
    let (choice, data) = chosen(data);
    let name = ["merge.yml", "merge.toml"][choice % 2];
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Recipe::parse(text, Path::new(name));
    }
    let dir = folder(&[(name, data)]);
    let _ = Recipe::read_all(&dir.path().join(name), dir.path());
}

fn check_reading(format: &Format, reply: &str) {
    let reading = format.read(reply, Some(&Actions::named(["get_order_details", "think"])));
    for range in reading.spans.iter().map(|s| &s.range).chain(reading.violations().map(|v| &v.range)) {
        assert!(reply.get(range.clone()).is_some(), "{range:?}");
    }
    let _ = (reading.action(), reading.said(reply));
}

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let names = ["hermes", "native", "react", "officebench", "agentbench-os", "agentbench-db", "agentbench-webshop"];
    names.into_iter().chain(["agentbench-alfworld"]).map(|name| Format::builtin(name).expect("built in")).collect()
});

/// A model's reply, in the format that the first byte chooses.
fn reply(data: &[u8]) {
    let (choice, data) = chosen(data);
    let text = String::from_utf8_lossy(data);
    check_reading(&FORMATS[choice % FORMATS.len()], &text);
    let (said, made) = calls::read(&text);
    if !made.is_empty() {
        assert_eq!(calls::read(&calls::write(&said, &made)), (said, made));
    }
    let _ = rolegraft_suite_office::recorded::original(&text, "excel");
}

/// A format's own file, and replies read by it.
fn format(data: &[u8]) {
    let dir = folder(&[("own.toml", data), ("own.schema.json", br#"{"type": "object", "required": ["name"]}"#)]);
    if let Ok(format) = Format::load(&dir.path().join("own.toml")) {
        for reply in ["", "<tool_call>\n{\"name\": \"think\"}\n</tool_call>", "Act: bash\n```bash\nls\n```\né"] {
            check_reading(&format, reply);
        }
    }
}

/// A chat template.
fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let Ok(template) = ChatTemplate::new(Path::new("chat_template.jinja"), text, BTreeMap::from(special)) else {
        return;
    };
    let messages = [Message::system("be brief"), Message::user(" hi "), Message::assistant("<think>a</think>b")];
    let tools = r#"tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]"#;
    for argument in ["day=1", tools] {
        let arguments = ChatArguments::parse(argument).expect("an argument");
        let _ = template.render(&messages, true, &arguments);
    }
}

/// A log: read, and opened to go on with, which keeps what reading finds.
fn log(data: &[u8]) {
    let dir = folder(&[("a.jsonl", data)]);
    let path = dir.path().join("a.jsonl");
    let read = |path: &Path| {
        let mut keys = Vec::new();
        for episode in Episodes::open(path).ok()? {
            let episode = episode.ok()?;
            let _ = (episode.contradiction(), episode.replies().count(), episode.blocking_violation());
            keys.push(episode.key);
        }
        Some(keys)
    };
    let Some(found) = read(&path) else { return };
    if let Ok(opened) = EpisodeLog::open(&path, Origin::default()) {
        // Only a last line without an end may be left out.
        assert!(found.iter().rev().skip(1).all(|key| opened.done().contains(key)), "an episode is lost");
        drop(opened);
        assert!(read(&path).is_some(), "what was opened is not read again");
    }
}

/// A file of tasks.
fn calibration(data: &[u8]) {
    let dir = folder(&[("tasks.jsonl", data)]);
    let path = dir.path().join("tasks.jsonl");
    if let Ok(all) = TaskSet::read(&path, None) {
        let first = TaskSet::read(&path, Some(all.tasks.len())).expect("as many as there are");
        assert_eq!(all.digest, first.digest);
    }
}

/// A server in this process that answers all with what was said last.
struct Server {
    answer: Arc<Mutex<(u16, Vec<u8>)>>,
    endpoint: Endpoint,
    runtime: tokio::runtime::Runtime,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::new(Mutex::new((200, Vec::new())));
    let said = Arc::clone(&answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || answer_all(stream, &said));
        }
    });
    let config = EndpointConfig::of(&format!("http://{address}/v1#m"), 1, Vec::new());
    let config = EndpointConfig { tries: 1, retries: 0, patience: Duration::ZERO, ..config };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Server { answer, endpoint: Endpoint::new(config).expect("an endpoint"), runtime }
});

fn answer_all(mut stream: TcpStream, said: &Mutex<(u16, Vec<u8>)>) -> Option<()> {
    let mut asked = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        asked.extend_from_slice(&chunk[..read]);
        let Some(head) = asked.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let fields = String::from_utf8_lossy(&asked[..head]).to_lowercase();
        let length = fields.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if asked.len() >= head + 4 + length.parse::<usize>().ok()? {
            asked.clear();
            let (status, body) = said.lock().ok()?.clone();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
        }
    }
}

/// A server's answer: the first byte chooses the status, and whether tools were asked for.
fn server(data: &[u8]) {
    const STATUS: [u16; 8] = [200, 200, 200, 200, 400, 404, 429, 500];
    let (choice, body) = chosen(data);
    *SERVER.answer.lock().expect("a server") = (STATUS[choice % STATUS.len()], body.to_owned());
    let request = Request {
        episode: EpisodeKey { suite: "s".into(), task: "t".into(), trial: 0 },
        turn: 0,
        messages: vec![Message::user("hi")].into(),
        recorded: Default::default(),
        reasoning: Default::default(),
        tools: (choice >= 128).then(|| Arc::new(vec![json!({"type": "function"})])),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 64 },
        key: Key::new(Seed(1)),
    };
    let _ = SERVER.runtime.block_on(SERVER.endpoint.complete(&request));
}

/// Pieces are members' names and contents in turn; an archive is taken as it is.
fn packed(data: &[u8]) -> Vec<u8> {
    if data.starts_with(b"PK") {
        return data.to_owned();
    }
    let parts: Vec<_> = pieces(data).collect();
    let members = parts.chunks_exact(2).filter_map(|two| Some((std::str::from_utf8(two[0]).ok()?, two[1])));
    archive(members)
}

/// An office whose files are these, asked to do things.
fn office(files: &[(&str, &[u8])], actions: &[Value]) {
    let dir = folder(files);
    let mut session = Session::new(dir.path(), "./tasks/1", "", true, Mode::Official).expect("an office");
    for action in actions {
        let _ = session.call(action.as_object().expect("an action"));
    }
}

/// A workbook, read, changed and read again.
fn workbook(data: &[u8]) {
    let at = "./tasks/1/testbed/data/a.xlsx";
    let read = json!({"app": "excel", "action": "read_file", "file_path": at});
    let cell = |action: &str| json!({"app": "excel", "action": action, "file_path": at, "row_idx": 2, "column_idx": 3, "text": "7"});
    office(
        &[("testbed/data/a.xlsx", &packed(data))],
        &[read.clone(), cell("set_cell"), read.clone(), cell("delete_cell"), read],
    );
}

/// A document, read, written to and read again.
fn document(data: &[u8]) {
    let at = "./tasks/1/testbed/data/a.docx";
    let read = json!({"app": "word", "action": "read_file", "file_path": at});
    let write = json!({"app": "word", "action": "write_to_file", "file_path": at, "contents": "one\ntwo", "style": "pure-text"});
    office(&[("testbed/data/a.docx", &packed(data))], &[read.clone(), write, read]);
}

/// A calendar, listed, added to, taken from and listed again.
fn calendar(data: &[u8]) {
    let list = json!({"app": "calendar", "action": "list_events", "username": "Bob"});
    let create = json!({
        "app": "calendar", "action": "create_event", "user": "Bob", "summary": "Lunch",
        "time_start": "2024-05-01 12:00:00", "time_end": "2024-05-01 13:00:00",
    });
    let delete = json!({"app": "calendar", "action": "delete_event", "user": "Bob", "summary": "Lunch"});
    office(&[("testbed/calendar/Bob.ics", data)], &[list.clone(), create, list.clone(), delete, list]);
}

/// A mail.
fn mail(data: &[u8]) {
    let _ = message(data);
    let list = json!({"app": "email", "action": "list_emails", "username": "Bob"});
    let read = json!({"app": "email", "action": "read_email", "username": "Bob", "email_id": "a.eml"});
    office(&[("testbed/emails/Bob/a.eml", data)], &[list, read]);
}

/// A game of ALFWorld: domain, problem and grammar, and the commands of a walkthrough, as pieces.
fn game(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (domain, problem, grammar) = (part(), part(), part());
    let walkthrough: Vec<&str> = parts.take(8).collect();
    let file = json!({"pddl_domain": domain, "pddl_problem": problem, "grammar": grammar, "walkthrough": walkthrough});
    for profile in Profile::ALL {
        let Ok(game) = Game::read(&file.to_string(), profile) else { continue };
        let commands = game.walkthrough().to_vec();
        let mut play = Play::new(Arc::new(game));
        let _ = play.intro();
        for command in commands {
            let _ = play.step(&command);
        }
        let admissible: Vec<String> = play.admissible().take(4).map(str::to_owned).collect();
        for command in admissible {
            let _ = (play.step(&command), play.won());
        }
    }
}

/// Python's literals and JSON as models write them.
fn python(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for object in
        [rolegraft_python::read(&text).ok(), rolegraft_python::exact(&text), rolegraft_python::computed(&text)]
    {
        let _ = object.map(|object| (object.repr(), object.text(), object.json(), object.is_hashable()));
    }
    let _ = (rolegraft_python::int(&text), rolegraft_python::float(&text));
    if let Ok(value) = python_json::loads(&text) {
        let written = python_json::dumps(&value);
        assert_eq!(python_json::loads(&written).map(|again| python_json::dumps(&again)).ok(), Some(written));
    }
}
