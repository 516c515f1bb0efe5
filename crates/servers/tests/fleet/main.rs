//! Servers that are started, fed, swapped, killed and swept. This program acts as the servers, too.

mod fake;
#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../../../model/tests/servers/fake.rs"]
mod http;

use fake::{Fake, Fault, weights};
use rolegraft_servers::{
    Expected, Feed, Fleet, FleetError, Launch, Process, ServerRules, Serving, StartError, State, SwapError,
    WorkerError, sweep,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take that takes a moment.
const LONG: Duration = Duration::from_secs(60);

/// Whether a process runs.
fn is_alive(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

/// Waits until something is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn again(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["acts_as_a_server", "--exact", "--nocapture"]).env("ROLE", role).stdin(Stdio::null());
    command
}

/// A child of a server, in a session of its own.
fn child() -> i64 {
    i64::from(again("child").stdout(Stdio::null()).spawn().unwrap().id())
}

#[test]
#[expect(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "it is a server here, not a test")]
fn acts_as_a_server() {
    let Ok(role) = std::env::var("ROLE") else { return };
    let arguments: Vec<String> = std::env::args().skip(4).collect();
    let serve = |fault| {
        let [dir, port, name, digest] = &arguments[..] else { panic!("{arguments:?}") };
        let gpus = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let about = json!({"pid": std::process::id(), "child": child(), "gpus": gpus,
            "dev": std::env::var("VLLM_SERVER_DEV_MODE").ok()});
        let _fake = Fake::start(port.parse().unwrap(), dir, name, digest, about, fault);
        loop {
            std::thread::park();
        }
    };
    match role.as_str() {
        "server" => serve(Fault::None),
        "never ready" => {
            (0..30).for_each(|line| eprintln!("loading shard {line}"));
            serve(Fault::NeverReady)
        }
        "ends" => {
            (0..30).for_each(|line| eprintln!("line {line}"));
            eprintln!("\x1b[31mno memory\x1b[0m");
            std::process::exit(7)
        }
        "child" => {
            rustix::process::setsid().unwrap();
            loop {
                std::thread::park();
            }
        }
        "owner" => {
            let place = PathBuf::from(std::env::var("PLACE").unwrap());
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let mut here = Here { place, notes: Arc::default() }.fleet(&served(""));
            let serving = runtime.block_on(here.serve(&feed(&PathBuf::from(std::env::var("CHECKPOINT").unwrap()))));
            println!("{}", serving.unwrap().urls[0]);
            loop {
                std::thread::park();
            }
        }
        role => panic!("{role}"),
    }
}

/// Checkpoints, a folder for records, and what was told.
struct Here {
    place: PathBuf,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Here {
    fn fleet(&self, rules: &ServerRules) -> Fleet {
        let notes = self.notes.clone();
        let tell = Arc::new(move |note: &str| notes.lock().unwrap().push(note.to_owned()));
        Fleet::new(rules.clone(), &self.records(), http(), Arc::default(), tell).unwrap()
    }
    fn records(&self) -> PathBuf {
        self.place.join("servers")
    }
    /// How many records there are.
    fn recorded(&self) -> usize {
        let entries = fs::read_dir(self.records()).into_iter().flatten();
        entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "json")).count()
    }
    fn checkpoint(&self, weights: &str) -> PathBuf {
        let dir = self.place.join(weights);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("weights"), weights).unwrap();
        dir
    }
    fn notes(&self) -> String {
        self.notes.lock().unwrap().join("\n")
    }
}

fn here() -> (tempfile::TempDir, Here) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    (folder, Here { place, notes: Arc::default() })
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn feed(dir: &Path) -> Feed {
    let digest = format!("{}{}", weights(dir.to_str().unwrap()).unwrap(), "0".repeat(12));
    Feed { dir: dir.to_owned(), digest, context: 512, name: "merged".into(), expected: Expected::default() }
}

fn rules(text: &str) -> ServerRules {
    toml::from_str(text).unwrap()
}

/// Rules of servers in this role of this program.
fn acting(role: &str, more: &str) -> ServerRules {
    let exe = std::env::current_exe().unwrap();
    let command =
        format!("{} acts_as_a_server --exact --nocapture {{dir}} {{port}} {{name}} {{digest}}", exe.display());
    rules(&format!("kind = 'custom'\nready = '/health'\ncommand = '{command}'\n{more}\n[env]\nROLE = '{role}'"))
}

fn served(more: &str) -> ServerRules {
    acting("server", more)
}

async fn about(url: &str) -> Value {
    let url = format!("{}/about", url.trim_end_matches("/v1"));
    http().get(url).send().await.unwrap().json().await.unwrap()
}

async fn says(serving: &Serving) -> Vec<String> {
    let mut all = Vec::new();
    for url in &serving.urls {
        let said: Value = http().post(format!("{url}/completions")).send().await.unwrap().json().await.unwrap();
        all.push(said["choices"][0]["text"].as_str().unwrap().to_owned());
    }
    all
}

fn left_out(error: &FleetError) -> Vec<&WorkerError> {
    match error {
        FleetError::NoneLeft { left_out, .. } => left_out.iter().map(|left| &*left.why).collect(),
        other => panic!("{other}"),
    }
}

async fn start_error(here: &Here, rules: &ServerRules) -> String {
    let error = here.fleet(rules).serve(&feed(&here.checkpoint("a"))).await.unwrap_err();
    assert!(matches!(left_out(&error)[0], WorkerError::Start(_)), "{error}");
    assert_eq!(here.recorded(), 0);
    error.to_string()
}

#[tokio::test]
async fn servers_start_serve_and_end_with_their_children() {
    let (_folder, here) = here();
    let rules = served("replicas = 2");
    let mut fleet = here.fleet(&ServerRules {
        env: rules
            .env
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .chain([("CUDA_VISIBLE_DEVICES".into(), "4,5".into())])
            .collect(),
        ..rules
    });
    let serving = fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap();
    assert_eq!(serving.model, "rolegraft-a00000000000");
    assert_eq!((serving.version.as_ref(), serving.cache_salt.as_ref()), (None, None));
    assert_eq!(says(&serving).await, ["a", "a"]);
    assert_eq!(fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap(), serving);
    let first = [about(&serving.urls[0]).await, about(&serving.urls[1]).await];
    assert_eq!(first.each_ref().map(|about| about["gpus"].as_str().unwrap()), ["4", "5"]);
    // Without a swap another checkpoint takes another start.
    let second = fleet.serve(&feed(&here.checkpoint("b"))).await.unwrap();
    assert_eq!((says(&second).await, second.model.as_str()), (vec!["b".into(), "b".into()], "rolegraft-b00000000000"));
    let second = [about(&second.urls[0]).await, about(&second.urls[1]).await];
    assert_eq!(here.recorded(), 2);
    let pids =
        |abouts: &[Value; 2]| abouts.iter().flat_map(|a| [a["pid"].clone(), a["child"].clone()]).collect::<Vec<_>>();
    assert!(pids(&first).iter().all(|pid| !is_alive(pid.as_i64().unwrap())));
    assert!(pids(&second).iter().all(|pid| is_alive(pid.as_i64().unwrap())));
    drop(fleet);
    assert!(pids(&second).iter().all(|pid| !is_alive(pid.as_i64().unwrap())));
    assert_eq!((here.recorded(), here.notes()), (0, String::new()));
}

#[tokio::test]
async fn a_server_that_ends_shows_its_last_words() {
    let (_folder, here) = here();
    let said = start_error(&here, &acting("ends", "")).await;
    assert!(said.contains("exit status: 7") && said.contains("[31mno memory"), "{said}");
    assert!(said.contains("\nline 11\n") && !said.contains("\nline 10\n") && !said.contains('\x1b'), "{said}");
}

#[tokio::test]
async fn a_server_that_is_never_ready_ends_and_shows_its_last_words() {
    let (_folder, here) = here();
    let said = start_error(&here, &acting("never ready", "ready_within = 1")).await;
    assert!(said.contains("within 1 s (/health answers 503") && said.contains("loading shard 29"), "{said}");
    assert!(said.contains("ready_within"), "{said}");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let (_folder, here) = here();
    let said = start_error(&here, &rules("kind = 'custom'\ncommand = 'vllm-of-nobody {dir} {port}'")).await;
    assert!(said.contains("`vllm-of-nobody` is not found: install it, or say another `command`"), "{said}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_before_the_start() {
    let (_folder, here) = here();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = start_error(&here, &served(&format!("port = {port}"))).await;
    assert!(said.contains(&format!("port {port} is taken")), "{said}");
}

#[tokio::test]
async fn another_server_on_the_port_is_not_taken_for_ours() {
    let (_folder, here) = here();
    let dir = here.checkpoint("a");
    let launch = Launch {
        command: vec!["sleep".into(), "600".into()],
        env: BTreeMap::new(),
        port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
        ready: "/health".into(),
        within: LONG,
        model: Some("ours".into()),
        log: here.place.join("log"),
        records: here.place.clone(),
    };
    let process = Process::spawn(launch.clone()).unwrap();
    let _other = Fake::start(launch.port, dir.to_str().unwrap(), "theirs", "", Value::Null, Fault::None);
    let error = process.ready(&http(), &AtomicBool::new(false)).await.unwrap_err();
    assert!(matches!(&error, StartError::OtherServer { listed, .. } if listed == "`theirs`"), "{error}");
    assert!(matches!(process.ready(&http(), &AtomicBool::new(true)).await, Err(StartError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_comes_back_with_what_it_held_last() {
    let (_folder, here) = here();
    let mut fleet = here.fleet(&served("swap = 'sglang'"));
    fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap();
    let serving = fleet.serve(&feed(&here.checkpoint("b"))).await.unwrap();
    let before = about(&serving.urls[0]).await;
    let pid = before["pid"].as_i64().unwrap();
    let killed = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    until("it comes back", || here.notes().contains("is back"));
    let after = about(&serving.urls[0]).await;
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!(says(&serving).await, ["b"]);
    assert!(!is_alive(before["child"].as_i64().unwrap()), "its child has outlived it");
    assert!(here.notes().contains("died (signal: 9 (SIGKILL)) and is started again (1 of 3)"), "{}", here.notes());
    drop(fleet);
    assert!(!is_alive(after["pid"].as_i64().unwrap()) && !is_alive(after["child"].as_i64().unwrap()));
    assert_eq!(here.recorded(), 0);
}

#[tokio::test]
async fn what_a_killed_owner_leaves_is_swept() {
    let (_folder, here) = here();
    let log = here.place.join("owner.log");
    let mut owner = again("owner")
        .env("PLACE", &here.place)
        .env("CHECKPOINT", here.checkpoint("a"))
        .stdout(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let url = || {
        let said = fs::read_to_string(&log).unwrap();
        said.lines().find(|line| line.starts_with("http")).filter(|_| said.ends_with('\n')).map(str::to_owned)
    };
    until("the owner serves", || url().is_some());
    let about = about(&url().unwrap()).await;
    let pids = [&about["pid"], &about["child"]].map(|pid| pid.as_i64().unwrap());
    assert_eq!(sweep(&here.records()).unwrap(), 0);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert_eq!(sweep(&here.records()).unwrap(), 1);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!((here.recorded(), sweep(&here.records()).unwrap()), (0, 0));
}

/// Servers that run already, one for each fault.
fn running(here: &Here, faults: &[Fault]) -> Vec<Fake> {
    let dir = here.checkpoint("first");
    faults.iter().map(|fault| Fake::start(0, dir.to_str().unwrap(), "m", "default", Value::Null, *fault)).collect()
}

fn at(fakes: &[Fake], swap: &str) -> ServerRules {
    let urls: Vec<&str> = fakes.iter().map(|fake| fake.url.as_str()).collect();
    rules(&format!("kind = '{swap}'\nswap = '{swap}'\nurls = {urls:?}"))
}

/// The only server that is left out, of several.
fn only_left_out(fleet: &Fleet) -> &WorkerError {
    let out: Vec<&Arc<WorkerError>> = fleet
        .states()
        .filter_map(|(_, state)| if let State::Quarantined(why) = state { Some(why) } else { None })
        .collect();
    let [why] = out[..] else { panic!("{out:?}") };
    why
}

#[tokio::test]
async fn sglang_swaps_weights() {
    let (_folder, here) = here();
    let fakes = running(&here, &[Fault::None, Fault::None]);
    let mut fleet = here.fleet(&at(&fakes, "sglang"));
    for name in ["a", "b"] {
        let serving = fleet.serve(&feed(&here.checkpoint(name))).await.unwrap();
        assert_eq!(says(&serving).await, [name, name]);
        assert_eq!((serving.model.as_str(), serving.cache_salt), ("m", None));
        assert_eq!(serving.version, Some(feed(&here.checkpoint(name)).digest));
    }
    fleet.serve(&feed(&here.checkpoint("b"))).await.unwrap();
    assert_eq!(fakes[0].asked(), ["/update_weights_from_disk"; 2]);
}

#[tokio::test]
async fn vllm_swaps_weights() {
    let (_folder, here) = here();
    let fakes = running(&here, &[Fault::None, Fault::None]);
    let mut fleet = here.fleet(&at(&fakes, "vllm"));
    for name in ["first", "a", "b"] {
        let serving = fleet.serve(&feed(&here.checkpoint(name))).await.unwrap();
        assert_eq!(says(&serving).await, [name, name]);
        assert_eq!(serving.cache_salt, Some(feed(&here.checkpoint(name)).digest));
        assert_eq!((serving.model.as_str(), serving.version), ("m", None));
    }
    let once = ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/resume"];
    assert_eq!(fakes[1].asked(), [once, once, once].concat());
}

#[tokio::test]
async fn vllm_on_cpus_swaps_what_is_not_tied() {
    let (_folder, here) = here();
    let fakes = running(&here, &[Fault::Packed]);
    let dir = here.checkpoint("a");
    fs::write(dir.join("config.json"), "{\"tie_word_embeddings\": false}").unwrap();
    let serving = here.fleet(&at(&fakes, "vllm")).serve(&feed(&dir)).await.unwrap();
    assert_eq!(says(&serving).await, ["a"]);
}

#[tokio::test]
async fn servers_of_ours_swap_without_a_new_start() {
    let (_folder, here) = here();
    let mut fleet = here.fleet(&served("swap = 'vllm'"));
    let first = fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap();
    let before = about(&first.urls[0]).await;
    let second = fleet.serve(&feed(&here.checkpoint("b"))).await.unwrap();
    assert_eq!(says(&second).await, ["b"]);
    assert_eq!(about(&second.urls[0]).await, before);
    assert_eq!(before["dev"], "1");
    assert_eq!((first.model.as_str(), first.urls), ("rolegraft", second.urls));
}

#[tokio::test]
async fn a_server_that_lies_or_dies_is_left_out() {
    for (swap, fault, expected) in [
        ("sglang", Fault::OldVersion, "called `default`"),
        ("sglang", Fault::Dies, "no answer of /update_weights_from_disk"),
        ("vllm", Fault::OldVersion, "called `default`"),
        ("vllm", Fault::OldWeights, "the same as before"),
        ("vllm", Fault::OldCache, "/reset_prefix_cache fails"),
        ("vllm", Fault::WrongWeights, "but most servers hold model `m` with checksum"),
        ("vllm", Fault::Packed, "output head changed"),
        ("vllm", Fault::Dies, "no answer of /collective_rpc"),
        ("vllm", Fault::Plain, "VLLM_SERVER_DEV_MODE=1"),
    ] {
        let (_folder, here) = here();
        let fakes = running(&here, &[Fault::None, fault, Fault::None]);
        let mut fleet = here.fleet(&at(&fakes, swap));
        let serving = fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap();
        assert_eq!(serving.urls, [&fakes[0], &fakes[2]].map(|fake| format!("{}/v1", fake.url)), "{fault:?}");
        let why = only_left_out(&fleet).to_string();
        assert!(why.contains(expected), "{fault:?}: {why}");
        assert!(here.notes().contains(&format!("{} is left out", fakes[1].url)), "{}", here.notes());
        // It is asked nothing more.
        let asked = fakes[1].asked();
        fleet.serve(&feed(&here.checkpoint("b"))).await.unwrap();
        assert_eq!((fakes[1].asked(), fakes[0].weights()), (asked, "b".into()));
    }
}

#[tokio::test]
async fn nothing_is_served_where_all_are_left_out() {
    let (_folder, here) = here();
    let fakes = running(&here, &[Fault::OldWeights, Fault::OldVersion]);
    let error = here.fleet(&at(&fakes, "vllm")).serve(&feed(&here.checkpoint("a"))).await.unwrap_err();
    assert!(matches!(
        left_out(&error)[..],
        [
            WorkerError::Swap(SwapError::Version { .. } | SwapError::Unchanged { .. }),
            WorkerError::Swap(SwapError::Version { .. })
        ]
    ));
    let said = error.to_string();
    assert!(said.starts_with("no server holds `merged`:"), "{said}");
    assert!(fakes.iter().all(|fake| said.contains(&fake.url)), "{said}");
}

#[tokio::test]
async fn nothing_is_served_where_servers_hold_different_things() {
    let (_folder, here) = here();
    let fakes = running(&here, &[Fault::None, Fault::WrongWeights]);
    let error = here.fleet(&at(&fakes, "vllm")).serve(&feed(&here.checkpoint("a"))).await.unwrap_err();
    assert!(left_out(&error).iter().all(|why| matches!(why, WorkerError::Undecided { .. })), "{error}");
}

#[tokio::test]
async fn a_checkpoint_that_servers_cannot_load_is_told() {
    let (_folder, here) = here();
    for swap in ["sglang", "vllm"] {
        let fakes = running(&here, &[Fault::None]);
        let gone = Feed { dir: here.place.join("gone"), ..feed(&here.checkpoint("a")) };
        let error = here.fleet(&at(&fakes, swap)).serve(&gone).await.unwrap_err().to_string();
        assert!(error.contains("fails: ") && error.contains("ailed"), "{error}");
    }
}

#[tokio::test]
async fn addresses_come_from_the_files_of_a_folder() {
    let (_folder, here) = here();
    let fakes = running(&here, &[Fault::None, Fault::None]);
    let urls = here.place.join("urls");
    fs::create_dir(&urls).unwrap();
    let mut fleet = here.fleet(&rules(&format!("kind = 'sglang'\nswap = 'sglang'\nurls = '{}'", urls.display())));
    let error = fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap_err();
    assert!(error.to_string().contains("holds no addresses"), "{error}");
    fs::write(urls.join("gpu02"), format!("{}/v1\n", fakes[1].url)).unwrap();
    fs::write(urls.join(".gpu01.part"), "http://").unwrap();
    let serving = fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap();
    assert_eq!(serving.urls, [format!("{}/v1", fakes[1].url)]);
    // A server that joins later is fed with the next checkpoint.
    fs::write(urls.join("gpu01"), &fakes[0].url).unwrap();
    let serving = fleet.serve(&feed(&here.checkpoint("b"))).await.unwrap();
    assert_eq!(serving.urls, [0, 1].map(|at| format!("{}/v1", fakes[at].url)));
    assert_eq!(says(&serving).await, ["b", "b"]);
    fs::write(urls.join("gpu03"), "gpu03:30000").unwrap();
    let error = fleet.serve(&feed(&here.checkpoint("a"))).await.unwrap_err();
    assert!(error.to_string().contains("`gpu03:30000` is no server's address"), "{error}");
}

#[tokio::test]
async fn a_run_that_is_stopped_waits_for_no_server() {
    let (_folder, here) = here();
    let stop = Arc::new(AtomicBool::new(false));
    let rules = acting("never ready", "");
    let mut fleet = Fleet::new(rules, &here.records(), http(), stop.clone(), Arc::new(|_: &str| {})).unwrap();
    let checkpoint = feed(&here.checkpoint("a"));
    let (error, ()) = tokio::join!(fleet.serve(&checkpoint), async {
        while here.recorded() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(matches!(error, Err(FleetError::Stopped)));
    drop(fleet);
    assert_eq!(here.recorded(), 0);
}
