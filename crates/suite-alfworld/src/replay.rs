//! Recordings of ALFWorld's games in TextWorld, and of AgentBench's loop around them.

use crate::{AlfWorldSuite, FORMAT, Game, Official, Profile, Prompts, Session, Setup, bleu, chosen, cut};
use rolegraft_spans::Format;
use rolegraft_suite::recordings::{Replayed, Report, UnreadableError, cases, same, spoken, text};
use rolegraft_suite::{AgentBenchProtocol, Environment, Limits, Suite, Task, history};
use rolegraft_trajectory::{Message, Status};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Steps of an episode.
const STEPS: usize = 35;

/// Replays recorded steps. `data` holds the games; lists of tasks are not needed.
///
/// # Errors
/// If the recordings cannot be read.
pub(crate) fn replay(traces: &Path, data: &Path) -> Result<Report, UnreadableError> {
    let games = Games { data: data.to_owned(), known: Mutex::default() };
    cases(traces, |kind, _, case| {
        Some(Replayed::Compared(match kind {
            "names" => names(&games, case),
            "process_action" => choice(case),
            "sessions" => session(&games, case),
            "agentbench_transcripts" => transcript(&games, case),
            _ => return None,
        }))
    })
}

/// Games that were read, by path and generation.
struct Games {
    data: PathBuf,
    known: Mutex<HashMap<(String, Profile), Arc<Game>>>,
}

impl Games {
    /// The folder that the path of a case's game starts from.
    fn root(&self, case: &Value) -> Result<PathBuf, String> {
        let game = text(case, "game");
        Official::root_of(&self.data, game).ok_or_else(|| {
            format!("there is no game `{game}` in `{}`; give the folder that its path starts from", self.data.display())
        })
    }

    fn get(&self, case: &Value) -> Result<Arc<Game>, String> {
        let (path, profile) = (text(case, "game").to_owned(), profile(case));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(game) = known.get(&(path.clone(), profile)) {
            return Ok(game.clone());
        }
        let game = Arc::new(Game::open(&self.root(case)?.join(&path), profile).map_err(|e| e.to_string())?);
        known.insert((path, profile), game.clone());
        Ok(game)
    }
}

fn profile(case: &Value) -> Profile {
    if case["profile"] == "classic" { Profile::Classic } else { Profile::Embedded }
}

fn names(games: &Games, case: &Value) -> Result<(), String> {
    let game = games.get(case)?;
    for (id, name) in case["names"].as_object().ok_or("no names")? {
        same(id, name, &json!(game.name_of(id)))?;
    }
    Ok(())
}

fn choice(case: &Value) -> Result<(), String> {
    let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
    let reading = format.read(text(case, "output"), None);
    let choices: Vec<&str> = case["choices"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let said = reading.action().and_then(|a| a.payload.as_str()).map(str::to_lowercase);
    let got = said.as_ref().map_or(Value::Bool(false), |said| chosen(said, &choices).into());
    // To upstream an empty action is none either, only later.
    let expected = if case["action"] == "" { &Value::Bool(false) } else { &case["action"] };
    same("action", expected, &got)?;
    let recorded = case["bleu"].as_array().map_or(&[][..], Vec::as_slice);
    for (choice, expected) in choices.iter().zip(recorded) {
        let (expected, got) =
            (expected.as_f64().unwrap_or(f64::NAN), bleu(choice, said.as_deref().unwrap_or_default()));
        if (expected - got).abs() > 1e-9 {
            return Err(format!("likeness to `{choice}`: expected {expected}, got {got}"));
        }
    }
    Ok(())
}

fn session(games: &Games, case: &Value) -> Result<(), String> {
    let mut session = Session::new(games.get(case)?);
    same("intro", &case["intro"], &session.intro().into())?;
    same("commands", &case["admissible"], &session.admissible().collect())?;
    for (i, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
        let command = text(step, "cmd");
        let seen = session.step(command);
        let what = |what: &str| format!("step {i} (`{command}`), {what}");
        same(&what("text"), &step["obs"], &seen.into())?;
        same(&what("commands"), &step["admissible"], &session.admissible().collect())?;
        same(&what("won"), &step["won"], &session.won().into())?;
        same(&what("score"), &step["score"], &u8::from(session.won()).into())?;
    }
    Ok(())
}

fn transcript(games: &Games, case: &Value) -> Result<(), String> {
    let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
    let limits = Limits { turns: STEPS, tokens: 0, temperature: 0.0, top_p: 1.0 };
    let setup = Setup {
        protocol: AgentBenchProtocol::Text,
        profile: profile(case),
        prompts: Prompts::upstream().clone(),
        games: games.root(case)?,
        logic: None,
    };
    let suite = AlfWorldSuite::new(format, limits, setup);
    let task = Task { id: text(case, "id").to_owned(), fields: json!({"game": text(case, "game")}) };
    let mut episode: Box<dyn Environment> = suite.start(&task).map_err(|e| e.to_string())?;
    let mut messages = episode.open().map_err(|e| e.to_string())?;
    let opening = messages.len() - 1;
    let (mut sent, mut last) = (Vec::new(), (Vec::new(), String::new()));
    let (mut status, mut rounds) = (Status::Unknown, 0);
    // Where the script ends, the agent's context does.
    for output in case["outputs"].as_array().into_iter().flatten().chain([&Value::Null]) {
        let (kept, notice) = history::kept(&cut(&messages, opening));
        sent.push(json!([kept.len(), messages.len() - kept.len()]));
        last = (kept, notice);
        let Some(reply) = output.as_str() else {
            status = Status::AgentContextLimit;
            break;
        };
        messages.push(Message::assistant(reply));
        let step = episode.step(reply).map_err(|e| e.to_string())?;
        rounds += usize::from(step.reading.action().is_some());
        messages.extend(step.observations);
        if let Some(ended) = step.ended {
            status = ended;
            break;
        }
    }
    let expected: Status =
        serde_json::from_value(case["status"].as_str().map_or(Value::Null, |s| s.replace(' ', "_").into()))
            .map_err(|_| format!("unknown status {}", case["status"]))?;
    if expected != status {
        return Err(format!("status: expected {expected:?}, got {status:?}"));
    }
    same("rounds", &case["rounds"], &rounds.into())?;
    same("result", &case["result"], &json!(episode.outcome().reward as i64))?;
    same("sent", &case["sent"], &sent.into())?;
    let kept = cut(&messages, opening);
    same("history", &case["messages"], &spoken(kept.iter().map(|s| &s.message)))?;
    // The recorder holds on to messages that are cut after they were sent.
    let mut shown: Vec<Message> = last.0.iter().map(|at| kept[*at].message.clone()).collect();
    shown[0].content += &last.1;
    same("what was sent last", &case["sent_last"], &spoken(&shown))
}

/// A reply as its harness read it: a case of `conformance parse`.
pub(crate) fn reply(format: &Format, case: &Value) -> Result<(), String> {
    let (reading, expected) = (format.read(text(case, "reply"), None), &case["expected"]);
    let choices: Vec<&str> = case["choices"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let said = reading.action().and_then(|action| action.payload.as_str()).map(str::to_lowercase);
    // What is empty is no action.
    let action = said.map_or_else(String::new, |said| chosen(&said, &choices));
    same("action", &json!(expected["action"].as_str().unwrap_or_default()), &json!(action))?;
    same("violations", &json!(expected["status"] == "ok"), &json!(reading.violations().next().is_none()))
}
