//! Why work stops.

use crate::artefact::ArtefactError;
use crate::engine_error::EngineError;
use crate::experiment::ExperimentError;
use crate::store::StoreError;
use rolegraft_checkpoint::{OpenError, PoolError};
use rolegraft_decoder::DecoderError;
use rolegraft_evaluate::EvaluationError;
use rolegraft_files::{WriteError, disk_refuses};
use rolegraft_graft::ApplyError;
use rolegraft_merge::MergeError;
use rolegraft_saliency::TraceError;
use rolegraft_servers::FleetError;
use rolegraft_suites::{OpenError as OpenSuiteError, SettingsError};
use rolegraft_trajectory::{ChatError, LogError};
use std::path::{Path, PathBuf};

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum RunError {
    #[error(
        "expert `{expert}` ends its turns with token ids {ids:?}, with which the base does not: merged models have the base's files, and would \
         talk on; let the base's generation_config.json name them too (`eos_token_id`)"
    )]
    EndOfTurn { expert: String, ids: Vec<u64> },
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    #[error("{role} `{name}`: {source}")]
    Open { role: &'static str, name: String, source: OpenError },
    #[error(transparent)]
    Checkpoint(#[from] OpenError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Suites(#[from] OpenSuiteError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    LeastSquares(rolegraft_least_squares::LeastSquaresError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Trace(TraceError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("suite `{suite}`, model `{model}`: {source}")]
    Evaluation { suite: String, model: String, source: EvaluationError },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    #[error("`{model}` has no trace of benchmark `{benchmark}`")]
    NoTrace { model: String, benchmark: String },
    #[error("the logs hold no trajectory")]
    NoTrajectories,
    #[error(
        "benchmark `{benchmark}` has no episodes of the {side}; give its logs as well, or leave out the other side's"
    )]
    OneSided { benchmark: String, side: &'static str },
    #[error(
        "`{inexact}` was played through a server that changed what the model wrote, `{exact}` was not: their figures do not \
         compare; play both alike (`--tokenizer DIR` asks for raw text), or say `--mixed`"
    )]
    Mixed { exact: String, inexact: String },
    #[error(
        "`{}` and `{}` played `{suite}` by other rules (prompts, limits, format or scorer): their figures do not compare; play \
         both by one version, or say `--mixed`", first.display(), second.display()
    )]
    OtherRules { first: PathBuf, second: PathBuf, suite: String },
    #[error("`{}` {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("tasks of suite `{0}` come without solutions; name the expert that plays them with --expert")]
    NoSolutions(String),
    #[error("benchmark `{benchmark}` is weak, but no donor serves it: name one with --donor {benchmark}=DIR")]
    NoDonor { benchmark: String },
    #[error("{}", listed(what))]
    Missing { what: Vec<String>, of_the_machine: bool },
    #[error("benchmark `{benchmark}` cannot be played here: it lacks {lacks}")]
    Lacking { benchmark: String, lacks: String },
    #[error("benchmark `{benchmark}` cannot be traced: of {of} calibration trajectories none has a span of its role")]
    NoSpans { benchmark: String, of: usize },
    #[error("there is no [[candidate]]; name at least one operator")]
    NoCandidates,
    #[error("`{name}` is the endpoint {address}: it can be played, but its weights cannot be used")]
    Served { name: String, address: String },
    #[error("interrupted; run the same command to go on where it stopped")]
    Interrupted,
    #[error("the asynchronous runtime does not start: {0}")]
    Runtime(std::io::Error),
    #[error("suite `{suite}` has no task `{task}`; official tasks need their `--data`")]
    NoTask { suite: String, task: String },
    #[error("there is no suite `{0}` in the folder of suites")]
    UnknownSuite(String),
    #[error(
        "`{}` was played by another model, or asked in another way: {before} before, {now} now; ask the same model in the same way, or give \
         another --log", path.display()
    )]
    OtherServer { path: PathBuf, before: String, now: String },
    #[error("suite `{suite}` cannot be played through this server: said by {roles}, {said}")]
    ServerRefuses { suite: String, roles: String, said: String },
    #[error("suite `{suite}` cannot be played by this model: said by {roles}, {source}")]
    Refuses { suite: String, roles: String, source: ChatError },
}

impl From<TraceError> for RunError {
    fn from(error: TraceError) -> Self {
        match error {
            TraceError::Interrupted => Self::Interrupted,
            error => Self::Trace(error),
        }
    }
}

impl RunError {
    /// Whether a person stopped the run.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        matches!(
            self,
            Self::Interrupted
                | Self::Engine(EngineError::Server(FleetError::Stopped))
                | Self::Merge(MergeError::Interrupted)
                | Self::Evaluation { source: EvaluationError::Interrupted, .. }
        )
    }
    /// Whether the machine, not the input, is at fault.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        use rolegraft_model::ModelError::{Gone, Unavailable};
        matches!(
            self,
            Self::Missing { of_the_machine: true, .. }
                | Self::Lacking { .. }
                | Self::Evaluation {
                    source: EvaluationError::Suite(rolegraft_suites::SuiteError::Environment { .. })
                        | EvaluationError::Incomplete { .. }
                        | EvaluationError::Model(Gone { .. }),
                    ..
                }
                | Self::Engine(
                    EngineError::Model(Gone { .. } | Unavailable { .. })
                        | EngineError::Server(FleetError::NoneLeft { .. } | FleetError::NoUrls(_))
                )
        ) || matches!(
            self,
            Self::Trace(TraceError::Memory { .. })
                | Self::LeastSquares(rolegraft_least_squares::LeastSquaresError::Memory { .. })
                | Self::Decoder(DecoderError::Device { .. })
                | Self::Engine(EngineError::TooLarge { .. } | EngineError::Decoder(DecoderError::Device { .. }))
        ) || disk_refuses(self).is_some()
    }
}

/// What is missing: a sentence, or a list of them.
fn listed(what: &[String]) -> String {
    match what {
        [only] => only.clone(),
        all => format!("{} things are missing or wrong; nothing was done\n- {}", all.len(), all.join("\n- ")),
    }
}

/// For `map_err`: names the file that the disk refuses.
pub(crate) fn unwritten(path: &Path) -> impl Fn(std::io::Error) -> RunError + Copy + '_ {
    |source| RunError::Store(WriteError { path: path.to_owned(), source }.into())
}
