//! The loop as resumable stages, and the one place where suites meet concrete models.
//!
//! An [`Experiment`] file drives it. Every stage is a pure function of its inputs; its output in the cache is named by
//! their digest, so a second run does only what changed, a killed run resumes, and experiments share what they have in
//! common. Results land in `results/runs/NAME/`.

mod ablate;
pub mod artefact;
mod ask;
mod chat;
mod columns;
mod compute;
mod decoding;
mod endpoints;
mod energy;
mod engine;
mod engine_error;
mod error;
mod experiment;
mod export;
mod forecast;
mod generation;
mod host;
mod import;
mod inspect;
mod kept;
mod logbook;
mod logs;
pub mod machine;
mod plain;
mod progress;
mod projected;
mod record;
mod repair;
mod rescore;
mod run;
mod servers;
mod solo;
pub mod stages;
pub mod steps;
mod store;
mod view;

pub use ablate::{AblationSummary, Grid, ablate};
pub use ask::examine;
pub use chat::names;
pub use compute::{Bytes, Compute, duration, free_memory};
pub use endpoints::{EndpointRules, Endpoints, is_endpoint};
pub use engine::{EngineKind, open_checkpoint};
pub use engine_error::EngineError;
pub use error::RunError;
pub use experiment::{Experiment, ExperimentError, Shift, Source, Tokens};
pub use export::{ExportForm, Exported, export};
pub use forecast::{Forecast, StageForecast, forecast};
pub use import::{Imported, import, write_log};
pub use inspect::{Findings, compare, extract_lora, inspect};
pub use logbook::{Listed, LogsMerged, MergeRules, each_episode, list_logs, merge_logs, split_log};
pub use logs::{logs_report, write_logs_report};
pub use progress::Progress;
pub use rescore::{Rescored, rescore};
pub use rolegraft_checkpoint::Location;
pub use rolegraft_decoder::{DeviceName, Precision};
pub use rolegraft_graft::{DiagnosisRules, Evidence, Protect};
pub use rolegraft_merge::{Execution, Outcome, Plan, PlanOptions, Recipe, TokenWeights, nearest, recipe_text};
pub use rolegraft_servers::ServerRules;
pub use rolegraft_suites::{Speaker, SpeakerError, Split};
pub use rolegraft_trajectory::{ChatArguments, Context, Episode, Message, Spent, Status};
pub use run::{RunSummary, run};
pub use solo::{Solo, evaluate, play_solutions};
pub use stages::merge::{check_merge, execute_merge, plan_adapted, plan_merge};
pub use store::{Store, StoreError};
pub use tokio::runtime::Runtime;
pub use view::{ViewError, view};
