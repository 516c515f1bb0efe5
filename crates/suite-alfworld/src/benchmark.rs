//! AgentBench ALFWorld as an entry of the registry.

use crate::replay::{replay, reply};
use crate::{AlfWorldSuite, FORMAT, Official, OfficialError, Profile, Prompts, Setup};
use rolegraft_suite::recordings::{ReplayReply, Report, UnreadableError};
use rolegraft_suite::{
    AgentBenchProtocol, Benchmark, Flag, Library, Limits, OfficialData, OpenError, Opening, Settings, SettingsError,
    SuiteFile, Taken, TaskSet, agentbench_limits,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NAME: &str = "alfworld";

/// AgentBench ALFWorld.
pub struct AlfWorld;

/// How its official tasks are played.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How the agent speaks.
    protocol: AgentBenchProtocol,
    /// Which generation of texts.
    profile: Profile,
}

/// The built-in suite's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "kind")]
    _kind: String,
    format: String,
    limits: Limits,
    prompt: Prompts,
    tasks: BTreeMap<String, PathBuf>,
    /// The domain and the grammar of its games.
    domain: PathBuf,
    grammar: PathBuf,
}

impl Benchmark for AlfWorld {
    fn name(&self) -> &'static str {
        NAME
    }
    fn kinds(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let said: File = file.read()?;
        let setup = Setup {
            protocol: AgentBenchProtocol::Text,
            profile: Profile::Embedded,
            prompts: said.prompt,
            games: file.dir.clone(),
            logic: Some((file.text_of(&said.domain)?, file.text_of(&said.grammar)?)),
        };
        let suite = AlfWorldSuite::new(opening.format(&said.format)?, said.limits, setup);
        Ok(Library::built_in(suite, file, said.tasks))
    }
    fn official(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let Options { protocol, profile } = opening.settings.read(NAME)?;
        let wrong = |e: OfficialError| OpenError::of(suite, e);
        let games = Official::open(data).map_err(wrong)?;
        let (test, turns) = match protocol {
            AgentBenchProtocol::Text => ("standard", 35),
            AgentBenchProtocol::Fc => ("new_std", 20),
        };
        let mut sets = BTreeMap::new();
        for (split, list) in [("test", test), ("dev", "dev")] {
            let (tasks, digest) = games.tasks(list).map_err(wrong)?;
            sets.insert(split, TaskSet { tasks, digest });
        }
        let prompts = Prompts::upstream().clone();
        let setup = Setup { protocol, profile, prompts, games: games.root().to_owned(), logic: None };
        let format = opening.format(protocol.format(FORMAT))?;
        Ok(Library::with_dev(AlfWorldSuite::new(format, agentbench_limits(turns), setup), sets))
    }
    fn flags(&self) -> Vec<Flag> {
        vec![
            AgentBenchProtocol::flag(),
            Flag::choice("profile", Taken::Reading, Profile::ALL.map(Profile::as_str))
                .or("classic")
                .help("Which generation of ALFWorld's texts: AgentBench's, or what the game files say"),
        ]
    }
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[("agentbench.protocol", "protocol"), ("agentbench.alfworld_profile", "profile")]
    }
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.checked::<Options>(NAME)
    }
    fn data(&self, data: &Path, _: bool) -> Vec<OfficialData> {
        let found = Official::open(data).map_err(|e| e.to_string()).and_then(|official| {
            let count = |(list, set): (&str, &str)| {
                let (tasks, digest) = official.tasks(list).map_err(|e| e.to_string())?;
                Ok(OfficialData::counted(set, tasks.len(), digest))
            };
            [("standard", "test"), ("dev", "dev")].into_iter().map(count).collect()
        });
        vec![OfficialData {
            suite: NAME,
            from: "lists: https://github.com/THUDM/AgentBench, data/alfworld; games: json_2.1.1_tw-pddl.zip of release 0.2.2 of \
                   https://github.com/alfworld/alfworld",
            licence: "MIT (games), Apache-2.0 (lists)",
            found,
        }]
    }
    fn replies(&self) -> Option<(&'static str, ReplayReply)> {
        Some((FORMAT, reply))
    }
    fn recordings(&self) -> Option<&'static str> {
        Some("Games of ALFWorld, and AgentBench's episodes on them; needs the games")
    }
    fn replay(&self, traces: &Path, data: &Path, _: &Settings) -> Result<Report, UnreadableError> {
        replay(traces, data)
    }
}
