//! Models by name: a checkpoint under one of two engines, or an endpoint.

use crate::compute::{Bytes, free_memory};
use crate::decoding::OwnEngine;
use crate::engine_error::EngineError;
use rolegraft_checkpoint::{Architecture, Checkpoint};
use rolegraft_decoder::{DecoderError, DeviceName, Place, Precision};
use rolegraft_model::ChatModel;
use rolegraft_serve::{InProcess, Serving, lacks};
use rolegraft_trajectory::ChatArguments;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What plays checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// mistral.rs in process.
    #[default]
    Mistralrs,
    /// The tracer's own decoder: exact, for small models.
    Candle,
    /// Servers that are started, or named, under `[server]`.
    Server,
}

/// How many copies of a model play side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// As many as are asked for.
    Exactly(usize),
    /// As many as fit into memory, and no more than this.
    UpTo(usize),
}

/// A model that is ready to play, and what a person should know of it.
pub struct Opened {
    /// The model.
    pub model: Arc<dyn ChatModel>,
    /// Notes.
    pub notes: Vec<String>,
}

/// Opens a checkpoint directory. What mistral.rs cannot play right, the tracer's decoder plays.
///
/// # Errors
/// If it cannot be loaded, or does not fit into memory.
pub async fn open_checkpoint(
    dir: &Path,
    kind: EngineKind,
    copies: Copies,
    chat: &ChatArguments,
    device: DeviceName,
) -> Result<Opened, EngineError> {
    let checkpoint = Checkpoint::open(dir)?;
    let architecture = Architecture::of(&checkpoint).map_err(DecoderError::from)?;
    let place = Place::open(device, Precision::F32)?;
    let foreign = || match checkpoint.adapter() {
        Some(_) => Some("LoRA adapters to a checkpoint on disk".to_owned()),
        None => (!checkpoint.is_plain()).then(|| "checkpoints of `torch.save`".to_owned()),
    };
    let lacking = foreign().or_else(|| lacks(&architecture, place.is_cpu())).filter(|_| kind == EngineKind::Mistralrs);
    let note =
        lacking.as_ref().map(|what| format!("mistral.rs 0.8.1 does not do {what}; the tracer's own decoder plays it"));
    let mut notes: Vec<String> = note.into_iter().collect();
    let fitting = |copies| fitting(dir, &architecture, copies, if place.is_cpu() { free_memory() } else { usize::MAX });
    let model: Arc<dyn ChatModel> = match kind {
        EngineKind::Server => return Err(EngineError::NoServers),
        EngineKind::Mistralrs if lacking.is_none() => {
            // On a card one copy answers all.
            let (engines, note) = fitting(if place.is_cpu() { copies } else { Copies::Exactly(1) })?;
            notes.extend(note);
            let serving = match (place.is_cpu(), device) {
                (true, _) => Serving::Cpu { engines },
                (false, DeviceName::Cuda(1..) | DeviceName::Metal(1..)) => {
                    return Err(EngineError::OtherCard(device.to_string()));
                }
                (false, _) => Serving::Card {
                    at_once: match copies {
                        Copies::Exactly(n) => n.max(1),
                        Copies::UpTo(_) => Serving::AT_ONCE,
                    },
                },
            };
            Arc::new(InProcess::open(&checkpoint, serving, chat).await?)
        }
        EngineKind::Mistralrs | EngineKind::Candle => {
            // All who play share one copy.
            fitting(Copies::Exactly(1))?;
            Arc::new(OwnEngine::open(&checkpoint, copies.most(), chat, &place)?)
        }
    };
    Ok(Opened { model, notes })
}

impl Copies {
    /// Of the engines side by side that are asked for; 0: one a core.
    pub(crate) fn of(engines: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if engines > 0 { Self::Exactly(engines) } else { Self::UpTo(cores) }
    }

    /// How many an engine loads: all who play on our own decoder share one.
    pub(crate) fn loaded(self, kind: EngineKind) -> Self {
        if kind == EngineKind::Candle { Self::Exactly(1) } else { self }
    }

    fn most(self) -> usize {
        match self {
            Self::Exactly(n) | Self::UpTo(n) => n.max(1),
        }
    }
}

/// How many copies in F32 fit into memory, with what to say of it.
pub(crate) fn fitting(
    dir: &Path,
    architecture: &Architecture,
    copies: Copies,
    free: usize,
) -> Result<(usize, Option<String>), EngineError> {
    let one = size_of::<f32>() * architecture.parameters();
    let (wanted, room) = (copies.most(), free / one.max(1));
    let needed = if copies == Copies::Exactly(wanted) { wanted } else { 1 };
    let (size, free) = (Bytes(one), Bytes(free));
    if room < needed {
        return Err(EngineError::TooLarge { dir: dir.to_owned(), one: size, needed: Bytes(one * needed), free });
    }
    let fit = format!("{room} of {wanted} copies, of {size} each, fit into the {free} of memory that are free");
    Ok((wanted.min(room), (room < wanted).then_some(fit)))
}
