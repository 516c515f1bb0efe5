//! The loop as resumable stages, and the one place where concrete suites meet concrete models.
//!
//! An [`Experiment`] file drives it. Every stage is a pure function of its inputs; its output in the cache is named by
//! their digest, so a second run does only what changed, a killed run resumes, and experiments share what they have in
//! common. Results land in `results/runs/NAME/`.

mod ablate;
mod agentbench;
pub mod artefact;
mod chat;
mod data;
mod energy;
mod engine;
mod error;
mod experiment;
mod import;
mod inspect;
mod kept;
mod logs;
pub mod machine;
mod progress;
mod record;
mod repair;
mod rescore;
mod run;
mod solo;
mod speaker;
pub mod stages;
pub mod steps;
mod store;
mod suites;
mod view;

pub use ablate::{AblationSummary, Grid, ablate};
pub use agentbench::AgentBenchOptions;
pub use data::{OfficialData, official_data};
pub use engine::{EngineError, EngineKind, open_model};
pub use error::RunError;
pub use experiment::{Experiment, ExperimentError, Shift, Tokens};
pub use import::{Imported, import, write_log};
pub use inspect::{Findings, compare, inspect};
pub use logs::{logs_report, write_page};
pub use progress::Progress;
pub use rescore::{Rescored, rescore};
pub use rolegraft_graft::{DiagnosisRules, Evidence, Protect};
pub use rolegraft_merge::{Execution, Outcome, Plan, PlanOptions, nearest};
pub use rolegraft_suite::AgentBenchProtocol;
pub use rolegraft_suite::Split;
pub use rolegraft_suite::docker::has_image;
pub use rolegraft_suite::sandbox::BoxUser;
pub use rolegraft_suite::{Speaker, SpeakerError};
pub use rolegraft_suite_alfworld::Profile;
pub use rolegraft_suite_office::{Apps, Mode, Official as OfficialOffice, Program};
pub use rolegraft_suite_os::Shell;
pub use rolegraft_suite_tau::{Protocol, Strategy};
pub use rolegraft_trajectory::{ChatArguments, Context, Episode, Message, Spent};
pub use run::{RunSummary, run};
pub use solo::{Solo, evaluate, play_solutions};
pub use stages::merge::plan_merge;
pub use store::{Store, StoreError};
pub use suites::{NotRun, OfficeOptions, SuiteLibrary, SuiteOptions, SuitesError, TauOptions};
pub use tokio::runtime::Runtime;
pub use view::{ViewError, view};

/// Whether model-written shell can run here, and what is missing if not.
///
/// # Errors
/// What to install, or what the kernel refuses.
pub fn sandbox_works() -> Result<(), String> {
    rolegraft_suite::Sandbox::start().map(|_| ()).map_err(|e| e.to_string())
}

/// Whether a private database server can be had for DB-bench.
#[must_use]
pub fn private_database_works() -> bool {
    rolegraft_suite_db::Server::installed()
}
