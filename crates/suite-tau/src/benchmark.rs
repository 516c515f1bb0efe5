//! τ-bench as an entry of the registry.

use crate::replay::replay;
use crate::{Domain, Official, OfficialError, Protocol, Strategy, TauSetup, TauSuite, Users, known_bad};
use rolegraft_suite::recordings::{Report, UnreadableError};
use rolegraft_suite::{
    Benchmark, BuiltIn, Flag, Library, Limits, OfficialData, OpenError, Opening, Settings, SettingsError, SuiteFile,
    Taken, Task, TaskSet, digest,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const NAME: &str = "tau";
const SUITES: [&str; 2] = ["tau-retail", "tau-airline"];
/// What an official episode may use (arXiv 2601.07309, table 5).
const LIMITS: Limits = Limits { turns: 30, tokens: 1024, temperature: 0.2, top_p: 1.0 };
const SOURCE: &str =
    "https://github.com/sierra-research/tau-bench (59a200c); docs/tau-bench.md says how to make the JSON files";

/// τ-bench, retail and airline.
pub struct Tau;

/// How it is played.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How the agent calls tools on official tasks; `hermes` if absent.
    format: Option<Protocol>,
    /// Who answers the agent.
    user: Strategy,
    /// The model that plays the user: an endpoint or a checkpoint.
    user_model: Option<String>,
    /// Leave out tasks whose expected outcome is known to be wrong.
    exclude_known_bad: bool,
}

/// Why it cannot be played as asked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "a user played as `{0}` needs a model: name one with --user-model (in an experiment: `user_model` under [suite.tau])"
    )]
    NoUserModel(&'static str),
    #[error("a person can only take part in `rolegraft eval`")]
    NoPerson,
    #[error("it has its own prompt for `{own}`; play it in another format on the official data only")]
    OtherProtocol { own: &'static str },
    #[error("the user's model: {0}")]
    User(Box<dyn std::error::Error + Send + Sync>),
}

impl Options {
    fn users(&self, opening: &Opening<'_>) -> Result<Users, Refusal> {
        let strategy = self.user;
        if strategy == Strategy::Human {
            let person = opening.host.person().ok_or(Refusal::NoPerson)?;
            return Ok(Users::played(strategy, None, person));
        }
        if !strategy.needs_model() {
            return Ok(Users::scripted());
        }
        let name = self.user_model.as_ref().ok_or(Refusal::NoUserModel(strategy.as_str()))?;
        let speaker = opening.host.speaker(name).map_err(Refusal::User)?;
        Ok(Users::played(strategy, Some(name.clone()), speaker))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    system: String,
}

fn domain(suite: &str) -> Option<Domain> {
    Domain::ALL.into_iter().find(|domain| domain.suite() == suite)
}

impl Benchmark for Tau {
    fn name(&self) -> &'static str {
        NAME
    }
    fn kinds(&self) -> &'static [&'static str] {
        &SUITES
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let options: Options = opening.settings.read(NAME)?;
        let BuiltIn::<Prompt> { kind, format, limits, prompt, tasks } = file.read()?;
        let domain = domain(&kind).ok_or_else(|| file.wrong(format!("there is no kind `{kind}`")))?;
        let refused = |refusal: Refusal| OpenError::of(&file.name, refusal);
        let protocol = Protocol::Hermes;
        if options.format.is_some_and(|asked| asked != protocol) {
            return Err(refused(Refusal::OtherProtocol { own: protocol.as_str() }));
        }
        let setup = TauSetup {
            domain,
            protocol,
            format: opening.format(&format)?,
            limits,
            system: prompt.system,
            users: options.users(opening).map_err(refused)?,
            tools: Vec::new(),
            tables: None,
        };
        let mut library = Library::built_in(TauSuite::new(setup)?, file, tasks);
        library.person = options.user == Strategy::Human;
        Ok(library)
    }
    fn official(&self) -> &'static [&'static str] {
        &SUITES
    }
    /// Upstream's split `train` calibrates.
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let options: Options = opening.settings.read(NAME)?;
        let domain = domain(suite).ok_or_else(|| OpenError::NeedsOfficial(suite.to_owned()))?;
        let wrong = |e: OfficialError| OpenError::of(suite, e);
        let official = Official::open(data, domain).map_err(wrong)?;
        let protocol = options.format.unwrap_or(Protocol::Hermes);
        let mut sets = BTreeMap::new();
        for (split, file) in [("test", "test"), ("dev", "dev"), ("calibration", "train")] {
            let Some((goals, text)) = official.tasks(file).map_err(wrong)? else { continue };
            let bad = |index: usize| known_bad(domain).iter().any(|t| t.split == file && t.index == index);
            let wanted = goals.iter().enumerate().filter(|(index, _)| !(options.exclude_known_bad && bad(*index)));
            let task = |(index, goal): (usize, &crate::Goal)| Task {
                id: format!("{}-{file}-{index:03}", domain.as_str()),
                fields: goal.fields(protocol),
            };
            sets.insert(split, TaskSet::made_from(wanted.map(task).collect(), text.as_bytes()));
        }
        let setup = TauSetup {
            domain,
            protocol,
            format: opening.format(protocol.format())?,
            limits: LIMITS,
            system: protocol.system(&official.wiki, &official.tools),
            users: options.users(opening).map_err(|refusal| OpenError::of(suite, refusal))?,
            tools: official.tools,
            tables: Some(official.tables),
        };
        let mut library = Library::with_tasks(TauSuite::new(setup)?, sets);
        library.person = options.user == Strategy::Human;
        Ok(library)
    }
    fn flags(&self) -> Vec<Flag> {
        vec![
            Flag::choice("format", Taken::Reading, Protocol::ALL.map(Protocol::as_str)).help(
                "How an agent calls tools on official τ-bench tasks: `<tool_call>` blocks in the text (default), the endpoint's \
                 own tool calls, `Thought:` and `Action:` in the text, or `Action:` alone",
            ),
            Flag::choice("user", Taken::Playing, Strategy::ALL.map(Strategy::as_str)).or("scripted").help(
                "Who plays τ-bench's user: a rule (no model needed, but not comparable with published scores), you, or a model \
                 with one of upstream's strategies",
            ),
            Flag::text("user-model", Taken::Playing, "MODEL").sets("user_model").help(
                "The model that plays the user: an endpoint (key in ROLEGRAFT_USER_API_KEY) or a checkpoint directory",
            ),
            Flag::known_bad(),
        ]
    }
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("tau.format", "format"),
            ("tau.user", "user"),
            ("tau.user_model", "user_model"),
            ("tau.exclude_known_bad", "exclude_known_bad"),
        ]
    }
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.checked::<Options>(NAME)
    }
    fn data(&self, data: &Path, _: bool) -> Vec<OfficialData> {
        let sets = |domain: Domain| {
            let official = Official::open(data, domain)?;
            let mut sets = Vec::new();
            for set in ["test", "train", "dev"] {
                let found = official.tasks(set)?;
                sets.extend(
                    found.map(|(goals, text)| OfficialData::counted(set, goals.len(), digest(text.as_bytes()))),
                );
            }
            Ok(sets)
        };
        let one = |domain: Domain| OfficialData {
            suite: domain.suite(),
            from: SOURCE,
            licence: "MIT",
            found: sets(domain).map_err(|e: OfficialError| e.to_string()),
        };
        Domain::ALL.map(one).into()
    }
    fn recordings(&self) -> Option<&'static str> {
        Some("Episodes of sierra-research/tau-bench; needs its data")
    }
    fn replay(&self, traces: &Path, data: &Path, _: &Settings) -> Result<Report, UnreadableError> {
        replay(traces, data)
    }
}
