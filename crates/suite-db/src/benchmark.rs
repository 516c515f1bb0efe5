//! AgentBench DB-bench as an entry of the registry.

use crate::replay::{replay, reply};
use crate::{DbSuite, FORMAT, KNOWN_BAD, Make, OfficialError, Place, Prompt, Server, entries, folder};
use rolegraft_suite::recordings::{ReplayReply, Report, UnreadableError};
use rolegraft_suite::{
    AGENTBENCH, AgentBenchProtocol, Benchmark, BuiltIn, Flag, Library, Need, OfficialData, OpenError, Opening,
    Settings, SettingsError, SuiteFile, Taken, Task, TaskSet, agentbench_limits,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const NAME: &str = "dbbench";
/// What plays where there is neither a server of ours nor a named one.
const NO_SERVER: &str = "MySQL or MariaDB (package: mysql-server-core or mariadb-server-core) and bubblewrap, or a server named with --db (`server` under \
     [suite.dbbench])";

const STAND_IN: &str = "MariaDB stands in for MySQL, DB-bench's reference: they differ in some reserved words, in casts and in ties of ORDER BY \
     (docs/agentbench.md)";

/// AgentBench DB-bench.
pub struct DbBench;

/// How it is played, and where.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How the agent speaks on official tasks.
    protocol: AgentBenchProtocol,
    /// The server, `mysql://…` or `docker:IMAGE`; `mysql` or `mariadb` for a private one of that make; any private one if absent. It may hold a password, and is not shown.
    #[serde(skip_serializing)]
    server: Option<String>,
    /// Leave out tasks whose expected outcome is known to be wrong.
    exclude_known_bad: bool,
}

impl Benchmark for DbBench {
    fn name(&self) -> &'static str {
        NAME
    }
    fn kinds(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let options: Options = opening.settings.read(NAME)?;
        let BuiltIn { format, limits, prompt, tasks, .. } = file.read()?;
        let (format, place) = (opening.format(&format)?, Place::named(options.server.as_deref()));
        let make = place.is_private().then(Server::installed);
        let suite = DbSuite::new(AgentBenchProtocol::Text, format, limits, prompt, place);
        let mut library = Library::built_in(suite, file, tasks);
        library.lacks = (make == Some(None)).then(|| NO_SERVER.to_owned());
        library.notes.extend((make == Some(Some(Make::MariaDb))).then(|| STAND_IN.to_owned()));
        Ok(library)
    }
    fn official(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let options: Options = opening.settings.read(NAME)?;
        let wrong = |e: OfficialError| OpenError::of(suite, e);
        let protocol = options.protocol;
        let folder = folder(data).map_err(wrong)?;
        let mut sets = BTreeMap::new();
        for (split, file) in [("test", "standard.jsonl"), ("dev", "dev.jsonl")] {
            let entries = entries(&folder, file, protocol == AgentBenchProtocol::Fc).map_err(wrong)?;
            let bytes = serde_json::to_vec(&entries).unwrap_or_default();
            let stem = file.trim_end_matches(".jsonl");
            let bad = |i: usize| {
                let known = KNOWN_BAD.iter().find(|(index, ..)| *index == i && split == "test");
                known.is_some_and(|(_, text_only, _)| !text_only || protocol == AgentBenchProtocol::Text)
            };
            let numbered = entries.into_iter().enumerate();
            let wanted = numbered.filter(|(i, _)| !(options.exclude_known_bad && bad(*i)));
            let tasks = wanted.map(|(i, fields)| Task { id: format!("{stem}-{i:03}"), fields }).collect();
            sets.insert(split, TaskSet::made_from(tasks, &bytes));
        }
        let (format, place) = (opening.format(protocol.format(FORMAT))?, Place::named(options.server.as_deref()));
        Ok(Library::with_dev(DbSuite::new(protocol, format, agentbench_limits(15), Prompt::upstream(), place), sets))
    }
    fn flags(&self) -> Vec<Flag> {
        vec![
            AgentBenchProtocol::flag(),
            Flag::text("db", Taken::Always, "SERVER").sets("server").env("ROLEGRAFT_DB").help(
                "The server of DB-bench's databases, `mysql://USER:PASSWORD@HOST:PORT`, or `docker:IMAGE` for one in a container, \
                 or `mysql` or `mariadb` for a private one of that make; if absent a private one, MySQL where that is installed",
            ),
            Flag::known_bad(),
        ]
    }
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("agentbench.protocol", "protocol"),
            ("agentbench.db", "server"),
            ("tau.exclude_known_bad", "exclude_known_bad"),
        ]
    }
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.checked::<Options>(NAME)
    }
    fn data(&self, data: &Path, whole: bool) -> Vec<OfficialData> {
        let found = folder(data).map_err(|e| e.to_string()).and_then(|folder| {
            ["standard.jsonl", "dev.jsonl"]
                .into_iter()
                .map(|name| OfficialData::file(&folder.join(name), whole))
                .collect()
        });
        vec![OfficialData { suite: NAME, from: AGENTBENCH, licence: "Apache-2.0", found }]
    }
    fn needs(&self, _: &Settings, _: Option<&Path>) -> Vec<Need> {
        let mend = "install mysql-server-core or mariadb-server-core, and bubblewrap, or name a server with --db";
        let made = Server::installed();
        let mut needs = vec![Need::Thing {
            what: "MySQL or MariaDB, and bubblewrap, for a private server (suite dbbench)".into(),
            found: made.map(|_| ()).ok_or_else(|| mend.into()),
            needed: false,
        }];
        needs.extend(made.map(|make| match make {
            Make::MariaDb => Need::Note(STAND_IN),
            Make::MySql => Need::Note("MySQL 9 has lost MD5(): changed tables are hashed here, where it is missing"),
        }));
        needs
    }
    fn replies(&self) -> Option<(&'static str, ReplayReply)> {
        Some((FORMAT, reply))
    }
    fn recordings(&self) -> Option<&'static str> {
        Some("Steps of AgentBench DB-bench; needs its data, and for some a MariaDB or MySQL server")
    }
    fn replay(&self, traces: &Path, data: &Path, settings: &Settings) -> Result<Report, UnreadableError> {
        let options: Options = settings.read(NAME).map_err(|e| UnreadableError::Data(e.into()))?;
        replay(traces, data, options.server.as_deref())
    }
}
