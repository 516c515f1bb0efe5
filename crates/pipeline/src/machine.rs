//! What a stage may use of the machine that it runs on.

use crate::compute::Compute;
use crate::endpoints::Endpoints;
use crate::engine::{Copies, EngineKind};
use crate::error::RunError;
use crate::progress::Progress;
use crate::servers::Servers;
use rolegraft_checkpoint::{Checkpoint, Digest, OpenError};
use rolegraft_decoder::Precision;
use rolegraft_trajectory::ChatArguments;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Engines, the runtime they wait on, the flag that stops them, and who is told.
pub struct Machine<'m> {
    /// Where engines and environments run.
    pub runtime: &'m tokio::runtime::Runtime,
    /// Set by whoever wants the work to end between turns.
    pub stop: Arc<AtomicBool>,
    /// Who is told of it.
    pub progress: &'m dyn Progress,
    /// What plays checkpoints.
    pub engine: EngineKind,
    /// Engines side by side; 0: one a core.
    pub engines: usize,
    /// Devices and memory.
    pub compute: Compute,
    /// How exactly a GPU traces.
    pub precision: Precision,
    /// How conversations are rendered for checkpoints.
    pub chat: &'m ChatArguments,
    /// Servers that play checkpoints, where that is the engine.
    pub(crate) servers: Option<&'m Servers>,
    /// How servers are asked.
    pub endpoints: &'m Endpoints,
    /// Seeds every draw.
    pub seed: u64,
}

impl<'m> Machine<'m> {
    /// One without servers of its own, whose draws have the seed 0.
    #[must_use]
    pub fn alone(
        runtime: &'m tokio::runtime::Runtime,
        stop: Arc<AtomicBool>,
        progress: &'m dyn Progress,
        engine: EngineKind,
        chat: &'m ChatArguments,
        endpoints: &'m Endpoints,
    ) -> Self {
        Self {
            runtime,
            stop,
            progress,
            engine,
            engines: 0,
            compute: Compute::default(),
            precision: Precision::F32,
            chat,
            servers: None,
            endpoints,
            seed: 0,
        }
    }
}

impl Machine<'_> {
    /// The same with other devices, memory and precision.
    #[must_use]
    pub fn computing(self, compute: Compute, precision: Precision) -> Self {
        Self { compute, precision, ..self }
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`RunError::Interrupted`], if not.
    pub(crate) fn goes_on(&self) -> Result<(), RunError> {
        if self.stop.load(Ordering::Relaxed) { Err(RunError::Interrupted) } else { Ok(()) }
    }

    /// How many copies of a model play side by side.
    pub(crate) fn copies(&self) -> Copies {
        Copies::of(self.engines)
    }

    /// Whose arithmetic traces are of: the CPU's, or a GPU's with some precision.
    pub(crate) fn arithmetic(&self) -> &'static str {
        match self.compute.place(self.precision) {
            Ok(place) if !place.is_cpu() => place.precision().as_str(),
            _ => "cpu",
        }
    }

    /// Whether models are played on a GPU.
    pub(crate) fn on_card(&self) -> Result<bool, RunError> {
        Ok(!self.compute.place(Precision::F32)?.is_cpu())
    }
}

/// A checkpoint by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What tables call it.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its digest.
    pub digest: Digest,
}

impl Member {
    /// The checkpoint in `dir`; `role` and `name` stand in errors.
    ///
    /// # Errors
    /// If it is none.
    pub fn open(role: &'static str, name: &str, dir: &Path) -> Result<(Checkpoint, Self), RunError> {
        let wrap = |source: OpenError| RunError::Open { role, name: name.to_owned(), source };
        let checkpoint = Checkpoint::open(dir).map_err(wrap)?;
        let digest = checkpoint.digest().map_err(wrap)?;
        Ok((checkpoint, Self { name: name.to_owned(), dir: dir.to_owned(), digest }))
    }

    /// A checkpoint by the last part of its path.
    ///
    /// # Errors
    /// If it is none.
    pub fn named_by_path(role: &'static str, dir: &Path) -> Result<(Checkpoint, Self), RunError> {
        let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = whole.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
        Self::open(role, &name, dir)
    }
}
