//! A headless Chromium, driven through a pair of pipes.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Chromium {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    session: Value,
    sent: u64,
    /// What pages complained of since they were asked last.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// `None`, said on stderr, where there is no Chromium.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn start(test: &str) -> Option<Self> {
        let works = |b: &&str| Command::new(b).arg("--version").output().is_ok_and(|o| o.status.success());
        let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works) else {
            eprintln!("skipped: {test} (no chromium)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let pipes = ["commands", "answers"].map(|name| profile.path().join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" --remote-debugging-pipe \"$3\" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync 3<\"$1\" 4>\"$2\"", browser])
            .args(&pipes)
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = File::options().write(true).open(&pipes[0]).unwrap();
        let reader = BufReader::new(File::open(&pipes[1]).unwrap());
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for message in reader.split(0).map_while(Result::ok) {
                if send.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let (session, complaints) = (Value::Null, Vec::new());
        let mut started = Self { child, commands, answers, session, sent: 0, complaints, _profile: profile };
        let target = started.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attached = started.ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        started.session = attached["sessionId"].clone();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            started.ask(domain, json!({}));
        }
        Some(started)
    }

    pub(crate) fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": parameters});
        if self.session.is_string() {
            command["sessionId"] = self.session.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {command}"));
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => {
                    self.complaints.push(message["params"].to_string());
                }
                Some(_) => {}
                None if message["id"] == self.sent => {
                    assert!(message.get("error").is_none(), "{command}: {message}");
                    return message["result"].clone();
                }
                None => {}
            }
        }
    }

    /// What an expression comes to; promises are awaited.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.ask("Runtime.evaluate", parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub(crate) fn wait_for(&mut self, condition: &str) {
        self.evaluate(&format!(
            "new Promise((done, failed) => {{ const until = Date.now() + 30000; const look = () => \
             ({condition}) ? done(true) : Date.now() > until ? failed(new Error('waited in vain')) : setTimeout(look, 5); look(); }})"
        ));
    }

    pub(crate) fn open(&mut self, page: &Path, width: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", features);
        self.ask("Page.navigate", json!({"url": format!("file://{}", page.display())}));
        self.wait_for("document.readyState === 'complete'");
    }

    pub(crate) fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        let code = if key == "Enter" { 13 } else { 0 };
        let event = |kind: &str| json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.ask("Input.dispatchKeyEvent", event("keyDown"));
        self.ask("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}));
    }

    pub(crate) fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
