//! Models by name: a checkpoint under one of two engines, or an endpoint.

use crate::compute::{Bytes, free_memory};
use rolegraft_checkpoint::{Architecture, Checkpoint, OpenError};
use rolegraft_decoder::{Cache, Decoder, DecoderError, DeviceName, Place, Precision};
use rolegraft_model::{ChatModel, Chooser, Completion, ModelError, Reply, Request};
use rolegraft_serve::{InProcess, ServeError, Serving, lacks};
use rolegraft_servers::FleetError;
use rolegraft_trajectory::{ChatArguments, ChatError, ChatTokenizer, EpisodeKey, Finish};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum EngineError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Server(#[from] FleetError),
    #[error(
        "engine `server` plays on the servers of a table [server], which the experiment does not have: say its `kind`"
    )]
    NoServerTable,
    #[error(
        "only `run` and `ablate` start servers for checkpoints; give this model's own address, or another --engine"
    )]
    NoServers,
    #[error(
        "`{}` does not fit into memory: a copy in F32 has {one}, {needed} are needed, {free} are free; close what takes memory, \
         set fewer `engines`, or play it on a server (docs/servers.md)", dir.display()
    )]
    TooLarge { dir: PathBuf, one: Bytes, needed: Bytes, free: Bytes },
    #[error("mistral.rs plays on the first GPU that it sees, not on {0}: set CUDA_VISIBLE_DEVICES, and say cuda:0")]
    OtherCard(String),
    #[error(
        "`{model}` renders conversations on its own server: `{key}` (`--chat`, or under [chat]) is for checkpoints; name the \
         model's tokenizer with `--tokenizer DIR`, and its conversations are rendered here"
    )]
    Rendered { model: String, key: String },
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
            Arc::new(CandleEngine::open(&checkpoint, copies.most(), chat, &place)?)
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

/// Caches kept between turns of open episodes.
const KEPT: usize = 64;

/// The tracer's decoder as an engine.
struct CandleEngine(Arc<Shared>);

struct Shared {
    decoder: Decoder,
    chat: ChatTokenizer,
    concurrency: usize,
    caches: Mutex<Vec<(EpisodeKey, Cache)>>,
}

impl CandleEngine {
    fn open(checkpoint: &Checkpoint, engines: usize, chat: &ChatArguments, place: &Place) -> Result<Self, EngineError> {
        Ok(Self(Arc::new(Shared {
            decoder: Decoder::load(checkpoint, place)?,
            chat: ChatTokenizer::open(Path::new(checkpoint.dir()), chat)?,
            concurrency: engines.max(1),
            caches: Mutex::new(Vec::new()),
        })))
    }
}

impl Shared {
    fn take(&self, key: &EpisodeKey) -> Option<Cache> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let at = caches.iter().position(|(k, _)| k == key)?;
        Some(caches.swap_remove(at).1)
    }
    fn keep(&self, key: EpisodeKey, cache: Cache) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if caches.len() >= KEPT {
            caches.remove(0);
        }
        caches.push((key, cache));
    }

    fn answer(&self, request: &Request) -> Result<Completion, EngineError> {
        let prompt = self.chat.prompt_ids(&request.messages, &request.recorded)?;
        let room = self.decoder.architecture().max_position_embeddings.saturating_sub(prompt.len() + 1);
        let limit = request.sampling.max_tokens.min(room);
        let mut ids = Vec::new();
        let mut finish = if limit == 0 { Finish::ContextLimit } else { Finish::Length };
        if limit > 0 {
            let mut cache = self.take(&request.episode).unwrap_or_else(|| self.decoder.cache());
            let shared = cache.ids().iter().zip(&prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
            self.decoder.rewind(&mut cache, shared)?;
            let chooser = Chooser::new(request.sampling, request.key, self.chat.vocabulary().size());
            let mut logits = self.decoder.forward(&prompt[shared..], &mut cache)?;
            while ids.len() < limit {
                let pick = chooser.pick(&logits, ids.len());
                if self.chat.end_ids().contains(&pick) {
                    finish = Finish::Stop;
                    break;
                }
                ids.push(pick);
                if ids.len() < limit {
                    logits = self.decoder.forward(&[pick], &mut cache)?;
                }
            }
            self.keep(request.episode.clone(), cache);
        }
        Ok(Completion::of_tokens(self.chat.vocabulary().decode(&ids), ids, finish, prompt.len()))
    }
}

impl ChatModel for CandleEngine {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            let (shared, request) = (self.0.clone(), request.clone());
            let answered = tokio::task::spawn_blocking(move || shared.answer(&request)).await;
            answered.map_err(|e| ModelError::Fatal(e.to_string()))?.map_err(|e| ModelError::Fatal(e.to_string()))
        })
    }
    fn concurrency(&self) -> usize {
        self.0.concurrency
    }
}
