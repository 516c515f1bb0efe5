//! Models by name: a checkpoint under one of two engines, or an endpoint.

use rolegraft_checkpoint::{Checkpoint, OpenError};
use rolegraft_decoder::{Cache, Decoder, DecoderError};
use rolegraft_model::{ChatModel, Chooser, Completion, ModelError, Reply, Request};
use rolegraft_serve::{InProcess, ServeError};
use rolegraft_servers::FleetError;
use rolegraft_trajectory::{ChatArguments, ChatError, ChatTokenizer, EpisodeKey, Finish};
use serde::{Deserialize, Serialize};
use std::path::Path;
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
        "`{model}` renders conversations on its own server: `{key}` (`--chat`, or under [chat]) is for checkpoints; name the \
         model's tokenizer with `--tokenizer DIR`, and its conversations are rendered here"
    )]
    Rendered { model: String, key: String },
}

/// Opens a checkpoint directory.
///
/// # Errors
/// If it cannot be loaded.
pub async fn open_checkpoint(
    dir: &Path,
    kind: EngineKind,
    engines: usize,
    chat: &ChatArguments,
) -> Result<Arc<dyn ChatModel>, EngineError> {
    let checkpoint = Checkpoint::open(dir)?;
    Ok(match kind {
        EngineKind::Mistralrs => Arc::new(InProcess::open(checkpoint.dir(), engines, chat).await?),
        EngineKind::Candle => Arc::new(CandleEngine::open(&checkpoint, engines, chat)?),
        EngineKind::Server => return Err(EngineError::NoServers),
    })
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
    fn open(checkpoint: &Checkpoint, engines: usize, chat: &ChatArguments) -> Result<Self, EngineError> {
        Ok(Self(Arc::new(Shared {
            decoder: Decoder::load(checkpoint)?,
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
        let room = self.decoder.config().max_position_embeddings.saturating_sub(prompt.len() + 1);
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
