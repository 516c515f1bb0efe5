//! AgentBench OS as an entry of the registry.

use crate::replay::{replay, reply};
use crate::{FORMAT, KNOWN_BAD, Official, OfficialError, OsSuite, Prompt, Setup, Shell};
use rolegraft_suite::recordings::{ReplayReply, Report, UnreadableError};
use rolegraft_suite::sandbox::{BoxUser, Image, available};
use rolegraft_suite::{
    AGENTBENCH, AgentBenchProtocol, Benchmark, BuiltIn, Flag, Library, Need, OfficialData, OpenError, Opening,
    Settings, SettingsError, SuiteFile, Taken, TaskSet, agentbench_limits, docker,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NAME: &str = "os";

/// AgentBench OS.
pub struct Os;

/// How its official tasks are played, and where.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How the agent speaks.
    protocol: AgentBenchProtocol,
    /// What it sees of the shell.
    shell: Shell,
    /// The root folder of the boxes.
    root: Option<PathBuf>,
    /// Who root is in them; the better of the two here if absent.
    user: Option<BoxUser>,
    /// The boxes' Docker image, in place of a root folder; `{}` stands for the task's own.
    image: Option<String>,
    /// Leave out tasks whose expected outcome is known to be wrong.
    exclude_known_bad: bool,
}

impl Options {
    /// What the boxes hold.
    fn boxes(&self) -> Option<Image> {
        let root = || {
            let user = self.user.unwrap_or_else(BoxUser::best);
            Some(Image::Root { path: self.root.clone()?, user })
        };
        self.image.clone().map(Image::Docker).or_else(root)
    }
}

/// There is nothing to play official tasks in.
#[derive(Debug, thiserror::Error)]
#[error(
    "AgentBench's OS tasks change everything in their box: name a root folder for it with --os-root, or a Docker image with \
     --os-docker (in an experiment: `root` or `image` under [suite.os]); docs/agentbench.md says how to make either"
)]
struct NoBoxError;

impl Benchmark for Os {
    fn name(&self) -> &'static str {
        NAME
    }
    fn kinds(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let BuiltIn { format, limits, prompt, tasks, .. } = file.read()?;
        let setup = Setup { prompt, ..Default::default() };
        let mut library = Library::built_in(OsSuite::new(opening.format(&format)?, limits, setup), file, tasks);
        library.lacks = available().err().map(|error| format!("a sandbox for model-written shell: {error}"));
        Ok(library)
    }
    fn official(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let options: Options = opening.settings.read(NAME)?;
        let image = options.boxes().ok_or_else(|| OpenError::of(suite, NoBoxError))?;
        let wrong = |e: OfficialError| OpenError::of(suite, e);
        let official = Official::open(data).map_err(wrong)?;
        let mut sets = BTreeMap::new();
        for split in ["test", "dev"] {
            let (mut tasks, digest) = official.tasks(split).map_err(wrong)?;
            tasks.retain(|task| !(options.exclude_known_bad && KNOWN_BAD.iter().any(|(id, _)| *id == task.id)));
            sets.insert(split, TaskSet { tasks, digest });
        }
        let protocol = options.protocol;
        let (prompt, trims) = (Prompt::upstream(protocol), protocol == AgentBenchProtocol::Text);
        let setup = Setup { protocol, shell: options.shell, image, prompt, trims };
        let format = opening.format(protocol.format(FORMAT))?;
        Ok(Library::with_dev(OsSuite::new(format, agentbench_limits(8), setup), sets))
    }
    fn flags(&self) -> Vec<Flag> {
        vec![
            AgentBenchProtocol::flag(),
            Flag::choice("shell", Taken::Reading, Shell::ALL.map(Shell::as_str)).or("clean").help(
                "What an agent sees of AgentBench's shell: its output, or what upstream's terminal reader makes of it",
            ),
            Flag::text("os-root", Taken::Always, "DIR")
                .sets("root")
                .env("ROLEGRAFT_OS_ROOT")
                .help("The root folder of AgentBench's boxes (docs/agentbench.md)"),
            Flag::choice("os-user", Taken::Always, BoxUser::ALL.map(BoxUser::as_str)).sets("user").help(
                "Who root is in them: the machine's root with Docker's capabilities, bounded by control groups; or root of a \
                 user namespace. The better of the two here if absent",
            ),
            Flag {
                conflicts: &["os-root"],
                ..Flag::text("os-docker", Taken::Always, "IMAGE").sets("image").env("ROLEGRAFT_OS_DOCKER").help(
                    "A Docker image for AgentBench's boxes, in place of a root folder; `{}` stands for the last part of the name \
                     of the task's own image, so that `local-os/{}` gives AgentBench's",
                )
            },
            Flag::known_bad(),
        ]
    }
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("agentbench.protocol", "protocol"),
            ("agentbench.shell", "shell"),
            ("agentbench.os_root", "root"),
            ("agentbench.os_user", "user"),
            ("agentbench.os_docker", "image"),
            ("tau.exclude_known_bad", "exclude_known_bad"),
        ]
    }
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.checked::<Options>(NAME)
    }
    fn data(&self, data: &Path, _: bool) -> Vec<OfficialData> {
        let found = Official::open(data).map_err(|e| e.to_string()).and_then(|official| {
            let count = |set: &str| {
                let (tasks, digest) = official.tasks(set).map_err(|e| e.to_string())?;
                Ok(OfficialData::counted(set, tasks.len(), digest))
            };
            ["test", "dev"].into_iter().map(count).collect()
        });
        vec![OfficialData { suite: NAME, from: AGENTBENCH, licence: "Apache-2.0", found }]
    }
    fn needs(&self, settings: &Settings, _: Option<&Path>) -> Vec<Need> {
        let options: Options = settings.read(NAME).unwrap_or_default();
        let image = options.image.unwrap_or_else(|| "local-os/{}".to_owned()).replace("{}", "default");
        let has_root = options.root.is_some_and(|root| root.join("bin/bash").exists());
        vec![
            Need::Thing {
                what: "sandbox for model-written shell (suite os)".into(),
                found: available().map_err(|e| e.to_string()),
                needed: true,
            },
            Need::Thing {
                what: format!("Docker with the image {image}, for AgentBench's boxes"),
                found: docker::has_image(&image)
                    .map_err(|e| format!("{e}; not needed where bubblewrap is the sandbox")),
                needed: false,
            },
            Need::Thing {
                what: "root folder for AgentBench's boxes (suite os on official tasks)".into(),
                found: has_root
                    .then_some(())
                    .ok_or_else(|| "name one with --os-root; docs/agentbench.md says how to make it".into()),
                needed: false,
            },
            Need::Note(match BoxUser::best() {
                BoxUser::Root => {
                    "boxes can have the machine's root, bounded by control groups: tasks with several users work"
                }
                BoxUser::Namespace => {
                    "boxes have root of a user namespace only: official tasks with several users fail (as root, with control \
                     groups, they would not)"
                }
            }),
        ]
    }
    fn replies(&self) -> Option<(&'static str, ReplayReply)> {
        Some((FORMAT, reply))
    }
    fn recordings(&self) -> Option<&'static str> {
        Some("Steps of AgentBench OS; whole tasks need its data and a root folder for the boxes")
    }
    fn replay(&self, traces: &Path, data: &Path, settings: &Settings) -> Result<Report, UnreadableError> {
        let options: Options = settings.read(NAME).map_err(|e| UnreadableError::Data(e.into()))?;
        replay(traces, data, options.boxes().as_ref())
    }
}
