//! `rolegraft conformance`.

use crate::talk::say;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rolegraft_pipeline::{AgentBenchOptions, BoxUser};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Merges recorded of mergekit and the methods' own programs.
    Merge,
    /// Episodes of sierra-research/tau-bench; needs its data.
    Tau,
    /// Steps of OfficeBench as the paper's experts were tuned on it; needs its data.
    Officebench,
    /// Steps of AgentBench OS; whole tasks need its data and a root folder for the boxes.
    Os,
    /// Steps of AgentBench DB-bench; needs its data, and for some a MariaDB or MySQL server.
    Dbbench,
    /// Games of ALFWorld, and AgentBench's episodes on them; needs the games.
    Alfworld,
    /// Conversations as transformers renders them, and tokens of texts.
    Chat,
    /// Replies as the official harnesses parsed them.
    Parse,
    /// Saliencies recorded of PyTorch; `--data` is where model folders are that do not lie beside the recordings.
    Saliency,
    /// Greedy decoding recorded of transformers, under both engines; `--data` as for saliency.
    Engine,
    /// WebShop's pages, searches and rewards, and AgentBench's episodes on them; needs the catalogue.
    Webshop,
}

/// Who root is in AgentBench's boxes.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BoxedUser {
    /// The machine's root with Docker's capabilities, bounded by control groups; needs root.
    Root,
    /// Root of a user namespace.
    Namespace,
}

impl From<BoxedUser> for BoxUser {
    fn from(user: BoxedUser) -> Self {
        match user {
            BoxedUser::Root => Self::Root,
            BoxedUser::Namespace => Self::Namespace,
        }
    }
}

/// Where AgentBench's tasks are played.
#[derive(Args)]
pub(crate) struct AgentBenchFlags {
    /// The root folder of AgentBench's boxes (docs/agentbench.md).
    #[arg(long, env = "ROLEGRAFT_OS_ROOT")]
    pub(crate) os_root: Option<PathBuf>,
    /// Who root is in them; the better of the two here if absent.
    #[arg(long, value_enum)]
    pub(crate) os_user: Option<BoxedUser>,
    /// A Docker image for AgentBench's boxes, in place of a root folder; `{}` stands for the last part of the name of the
    /// task's own image, so that `local-os/{}` gives AgentBench's.
    #[arg(long, env = "ROLEGRAFT_OS_DOCKER", conflicts_with = "os_root")]
    pub(crate) os_docker: Option<String>,
    /// The server of DB-bench's databases, `mysql://USER:PASSWORD@HOST:PORT`, or `docker:IMAGE` for one in a container; a
    /// private one if absent.
    #[arg(long, env = "ROLEGRAFT_DB")]
    pub(crate) db: Option<String>,
}

impl AgentBenchFlags {
    /// What is said here, on top of how tasks are played.
    pub(crate) fn options(&self) -> AgentBenchOptions {
        AgentBenchOptions {
            os_root: self.os_root.clone(),
            os_user: self.os_user.map(Into::into),
            os_docker: self.os_docker.clone(),
            db: self.db.clone(),
            ..Default::default()
        }
    }
}

#[derive(Args)]
pub(crate) struct Conformance {
    /// What was recorded.
    #[arg(value_enum)]
    kind: Kind,
    /// The recordings: for merge a folder with a manifest, or a folder of such folders; for saliency and engine a folder
    /// with cases.json; for the others a JSONL file (gzip-compressed or not), or a folder of them.
    #[arg(long)]
    traces: PathBuf,
    /// The official data, or folder of models, for the kinds that need any.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    places: AgentBenchFlags,
}

impl Conformance {
    fn data(&self) -> Result<&Path> {
        self.data.as_deref().context("this kind needs the official data: give its folder with `--data DIR`")
    }
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let report = match self.kind {
            Kind::Merge => rolegraft_conformance::merge(&self.traces)?,
            Kind::Chat => rolegraft_conformance::chat(&self.traces)?,
            Kind::Parse => rolegraft_conformance::parse(&self.traces)?,
            Kind::Saliency => rolegraft_conformance::saliency(&self.traces, self.data.as_deref())?,
            Kind::Engine => rolegraft_conformance::engine(&self.traces, self.data.as_deref())?,
            Kind::Officebench => rolegraft_conformance::officebench(&self.traces, self.data()?)?,
            Kind::Os => rolegraft_conformance::os(&self.traces, self.data()?, self.places.options().image().as_ref())?,
            Kind::Dbbench => rolegraft_conformance::dbbench(&self.traces, self.data()?, self.places.db.as_deref())?,
            Kind::Alfworld => rolegraft_conformance::alfworld(&self.traces, self.data()?)?,
            Kind::Webshop => rolegraft_conformance::webshop(&self.traces, self.data()?)?,
            Kind::Tau => rolegraft_conformance::tau(&self.traces, self.data()?)?,
        };
        say(&report.to_string());
        if report.verdicts.is_empty() && report.skipped.is_empty() {
            bail!("`{}` holds nothing of this kind to replay", self.traces.display());
        }
        Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
