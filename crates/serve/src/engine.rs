//! Engines, requests, and the self-check.

use crate::form::normalised;
use candle_core::Tensor;
use mistralrs::core::{
    Constraint, CustomLogitsProcessor, NormalRequest, Request as EngineRequest, RequestMessage, Response, ResponseOk,
};
use mistralrs::{
    MemoryGpuConfig, Model, ModelDType, PagedAttentionMetaBuilder, SamplingParams, TextModelBuilder, TokenSource,
};
use rolegraft_checkpoint::{Architecture, ArchitectureError, Checkpoint};
use rolegraft_model::{ChatModel, Chooser, Completion, ModelError, Reply, Request, Sampling};
use rolegraft_trajectory::{ChatArguments, ChatError, ChatTokenizer, Finish, Key, Seed};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;
use tokio::sync::{RwLock, Semaphore, SemaphorePermit};

/// Bytes of key-value cache an engine may leave behind before it is built anew: entries are never evicted on the CPU.
const CACHE_BUDGET: usize = 128 << 20;
/// Tokens per block of the engine's cache.
const CACHE_BLOCK: usize = 512;

/// Why a checkpoint cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ServeError {
    #[error("`{}` has no `{file}`, which serving needs", dir.display())]
    MissingFile { dir: PathBuf, file: &'static str },
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    #[error("no folder of links can be made for mistral.rs")]
    Form(#[source] std::io::Error),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error("mistral.rs cannot load `{}`: {reason}", dir.display())]
    Load { dir: PathBuf, reason: String },
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// Where a checkpoint is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// By so many engines side by side on the CPU, each with a copy of the weights in F32.
    Cpu {
        /// How many; at least one.
        engines: usize,
    },
    /// On the first GPU that the process sees, in BF16 with paged attention.
    Card {
        /// Replies at once, where its self-check finds that they do not disturb each other; at least one.
        at_once: usize,
    },
}

impl Serving {
    /// Replies at once on a card, if nobody says how many.
    pub const AT_ONCE: usize = 32;
}

/// A checkpoint served by one or more engines in this process.
pub struct InProcess {
    form: TempDir,
    chat: Arc<ChatTokenizer>,
    architecture: Architecture,
    /// An end-of-turn id other than the first, for the engine's eyes only.
    sentinel: Option<u32>,
    serving: Serving,
    free: Semaphore,
    engines: Vec<Engine>,
}

struct Engine {
    serving: Serving,
    cached: bool,
    /// Who may use it at once.
    places: Semaphore,
    /// Bytes of cache since it was built.
    left_behind: AtomicUsize,
    /// Exclusive while it is built.
    model: RwLock<Option<Model>>,
}

/// What the processor shares with the request that made it.
#[derive(Default)]
struct Picked {
    ids: Vec<u32>,
    ended: bool,
}

struct Picker {
    chooser: Chooser,
    prompt: usize,
    limit: usize,
    end_ids: Vec<u32>,
    sentinel: Option<u32>,
    state: Arc<Mutex<Picked>>,
}

impl CustomLogitsProcessor for Picker {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> candle_core::Result<Tensor> {
        let values: Vec<f32> = logits.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1()?;
        let position = context.len().saturating_sub(self.prompt);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = self.sentinel.or(self.end_ids.first().copied()).unwrap_or_default();
        let chosen = if state.ended && position >= state.ids.len() {
            stop
        } else {
            state.ids.truncate(position);
            let pick = self.chooser.pick(&values, position);
            let is_end = self.end_ids.contains(&pick);
            state.ids.push(pick);
            state.ended = is_end || state.ids.len() >= self.limit;
            // The engine stores the last id it is given without its keys and values: never let that be the id which
            // the next prompt goes on with.
            if is_end { stop } else { pick }
        };
        let mut one_hot = vec![-1e30f32; values.len()];
        if let Some(at) = one_hot.get_mut(chosen as usize) {
            *at = 0.0;
        }
        Tensor::from_vec(one_hot, logits.shape().clone(), logits.device())
    }
}

/// How often an engine is made anew if making it panics.
const BUILD_TRIES: usize = 5;

impl Engine {
    async fn load(dir: &Path, serving: Serving, cached: bool) -> Result<Self, ServeError> {
        let places = match serving {
            Serving::Cpu { .. } => 1,
            Serving::Card { at_once } => at_once,
        };
        let (left_behind, places) = (AtomicUsize::new(0), Semaphore::new(places));
        let engine = Self { serving, cached, places, left_behind, model: RwLock::new(None) };
        engine.build(dir).await?;
        Ok(engine)
    }

    fn builder(&self, dir: &Path) -> anyhow::Result<TextModelBuilder> {
        let builder = TextModelBuilder::new(dir.display().to_string()).with_token_source(TokenSource::None);
        Ok(match self.serving {
            Serving::Cpu { .. } => builder
                .with_force_cpu()
                .with_dtype(ModelDType::F32)
                .with_max_num_seqs(1)
                .with_prefix_cache_n(self.cached.then_some(16)),
            Serving::Card { at_once } => {
                // Weights are on the card before its cache is: nine tenths of what they leave.
                let paged = PagedAttentionMetaBuilder::default().with_gpu_memory(MemoryGpuConfig::Utilization(0.9));
                builder.with_dtype(ModelDType::BF16).with_max_num_seqs(at_once).with_paged_attn(paged.build()?)
            }
        })
    }

    async fn build(&self, dir: &Path) -> Result<(), ServeError> {
        let failed = |reason: String| ServeError::Load { dir: dir.to_owned(), reason };
        let mut model = self.model.write().await;
        *model = None;
        self.left_behind.store(0, Ordering::Relaxed);
        let mut tries = 0;
        let built = loop {
            let builder = self.builder(dir).map_err(|e| failed(first_line(&e)))?;
            tries += 1;
            // mistral.rs 0.8.1 panics if its new engine's thread is quicker than the one that makes it, which asks for the
            // pipeline's name with `try_lock().unwrap()` (mistralrs-core, src/lib.rs): rare, and over with the next try.
            match tokio::spawn(builder.build()).await {
                Err(panic) if panic.is_panic() && tries < BUILD_TRIES => {}
                Err(panic) => break Err(first_line(&panic)),
                Ok(built) => break built.map_err(|e| first_line(&e)),
            }
        };
        *model = Some(built.map_err(failed)?);
        Ok(())
    }

    /// Token ids of a reply, the end of turn included if there was one.
    async fn generate(&self, prompt: Vec<u32>, picker: Picker, limit: usize) -> Result<(), ServeError> {
        let model = self.model.read().await;
        let model = model.as_ref().ok_or_else(|| ServeError::Engine("no model is loaded".into()))?;
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        let mut sampling = SamplingParams::deterministic();
        sampling.max_len = Some(limit + 1);
        let request = EngineRequest::Normal(Box::new(NormalRequest {
            messages: RequestMessage::CompletionTokens(prompt),
            sampling_params: sampling,
            response: sender,
            return_logprobs: false,
            is_streaming: false,
            id: 0,
            constraint: Constraint::None,
            suffix: None,
            tools: None,
            tool_choice: None,
            logits_processors: Some(vec![Arc::new(picker)]),
            return_raw_logits: false,
            web_search_options: None,
            model_id: None,
            truncate_sequence: false,
        }));
        let engine = model.inner().get_sender(None).map_err(|e| ServeError::Engine(first_line(&e)))?;
        engine.send(request).await.map_err(|_| ServeError::Engine("the engine has stopped".into()))?;
        let response: Response =
            receiver.recv().await.ok_or_else(|| ServeError::Engine("the engine gave up a request".into()))?;
        match response.as_result() {
            Ok(ResponseOk::CompletionDone(_)) => Ok(()),
            Ok(_) => Err(ServeError::Engine("the engine gave another kind of answer".into())),
            Err(e) => Err(ServeError::Engine(first_line(&e))),
        }
    }
}

fn first_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl InProcess {
    /// Loads a checkpoint and proves on the machine at hand what its engines bear: on the CPU, that they decode alike with
    /// and without the prefix cache, which stays off if not; on a card, that replies at once are those one by one, which
    /// come one by one if not.
    ///
    /// # Errors
    /// If a file is missing, the architecture is one that mistral.rs [lacks](crate::lacks), or the engine cannot load the model.
    pub async fn open(
        checkpoint: &Checkpoint,
        serving: Serving,
        arguments: &ChatArguments,
    ) -> Result<Self, ServeError> {
        let dir = checkpoint.dir();
        if !dir.join("tokenizer.json").exists() {
            return Err(ServeError::MissingFile { dir: dir.to_owned(), file: "tokenizer.json" });
        }
        let architecture = Architecture::of(checkpoint)?;
        if let Some(what) = crate::lacks(&architecture, matches!(serving, Serving::Cpu { .. })) {
            return Err(ServeError::Load { dir: dir.to_owned(), reason: format!("it does not do {what}") });
        }
        let form = normalised(checkpoint, &architecture).map_err(ServeError::Form)?;
        let chat = Arc::new(ChatTokenizer::open(dir, arguments)?);
        let sentinel = chat.end_ids().get(1).copied();
        let (free, engines) = (Semaphore::new(1), Vec::new());
        let mut served = Self { form, chat, architecture, sentinel, serving, free, engines };
        let (first, count) = match serving {
            Serving::Cpu { engines } => (served.on_cpu().await?, engines.max(1)),
            Serving::Card { at_once } => (served.on_card(at_once).await?, 1),
        };
        let (cached, places) = (first.cached, first.places.available_permits());
        served.engines.push(first);
        for _ in 1..count {
            served.engines.push(Engine::load(served.form.path(), serving, cached).await?);
        }
        served.free = Semaphore::new(count * places);
        Ok(served)
    }

    /// An engine on the CPU, with the prefix cache where three turns are the same with it and without.
    async fn on_cpu(&self) -> Result<Engine, ServeError> {
        let dir = self.form.path();
        if self.sentinel.is_some() {
            // One at a time: two copies need not fit into the machine.
            let without = self.three_turns(&Engine::load(dir, self.serving, false).await?).await?;
            let engine = Engine::load(dir, self.serving, true).await?;
            if self.three_turns(&engine).await? == without {
                return Ok(engine);
            }
        }
        Engine::load(dir, self.serving, false).await
    }

    async fn three_turns(&self, engine: &Engine) -> Result<Vec<u32>, ServeError> {
        let start = self.chat.vocabulary().encode(CHECKED)?;
        let mut prompt = start.clone();
        for _ in 0..3 {
            prompt.extend(self.decode(engine, &prompt, GREEDY, Key::new(Seed(0)), 8).await?);
            prompt.extend(&start);
        }
        Ok(prompt)
    }

    /// An engine on a card, with as many places as replies at once do not disturb each other.
    async fn on_card(&self, at_once: usize) -> Result<Engine, ServeError> {
        let engine = Engine::load(self.form.path(), self.serving, false).await?;
        let ids = self.chat.vocabulary().encode(&CHECKED.repeat(8))?;
        // Of equal and of unequal lengths.
        let prompts: Vec<&[u32]> = [5, 9, 9, 17, 17, 40].iter().map(|long| &ids[..ids.len().min(*long)]).collect();
        let reply = |prompt| self.decode(&engine, prompt, GREEDY, Key::new(Seed(0)), 8);
        let mut alone = Vec::new();
        for prompt in &prompts {
            alone.push(reply(prompt).await?);
        }
        let replies = prompts.iter().map(|prompt| reply(prompt));
        let together: Vec<Vec<u32>> = futures_util::future::try_join_all(replies).await?;
        if together != alone {
            engine.places.forget_permits(at_once.saturating_sub(1));
        }
        Ok(engine)
    }

    async fn decode(
        &self,
        engine: &Engine,
        prompt: &[u32],
        sampling: Sampling,
        key: Key,
        limit: usize,
    ) -> Result<Vec<u32>, ServeError> {
        let state = Arc::new(Mutex::new(Picked::default()));
        let picker = |state: &Arc<Mutex<Picked>>| Picker {
            chooser: Chooser::new(sampling, key, self.chat.vocabulary().size()),
            prompt: prompt.len(),
            limit,
            end_ids: self.chat.end_ids().to_vec(),
            sentinel: self.sentinel,
            state: state.clone(),
        };
        let (a, tokens) = (&self.architecture, prompt.len() + limit);
        let bytes = a.num_hidden_layers * 2 * a.keys() * size_of::<f32>() * tokens.next_multiple_of(CACHE_BLOCK);
        if engine.cached && engine.left_behind.load(Ordering::Relaxed) + bytes > CACHE_BUDGET {
            engine.build(self.form.path()).await?;
        }
        engine.left_behind.fetch_add(bytes, Ordering::Relaxed);
        if engine.generate(prompt.to_vec(), picker(&state), limit).await.is_err() {
            // An engine that died restarts; what it was doing is done again from the start, once.
            *state.lock().unwrap_or_else(PoisonError::into_inner) = Picked::default();
            engine.build(self.form.path()).await?;
            engine.generate(prompt.to_vec(), picker(&state), limit).await?;
        }
        let ids = std::mem::take(&mut state.lock().unwrap_or_else(PoisonError::into_inner).ids);
        Ok(ids)
    }

    /// Greedy token ids after a prompt of token ids, the end of turn included.
    ///
    /// # Errors
    /// If the engine fails.
    pub async fn greedy(&self, prompt: &[u32], limit: usize) -> Result<Vec<u32>, ServeError> {
        let (_permit, engine, _place) = self.idle().await?;
        self.decode(engine, prompt, GREEDY, Key::new(Seed(0)), limit).await
    }

    /// An engine with a free place.
    async fn idle(&self) -> Result<(SemaphorePermit<'_>, &Engine, SemaphorePermit<'_>), ServeError> {
        let closed = |e: tokio::sync::AcquireError| ServeError::Engine(e.to_string());
        let permit = self.free.acquire().await.map_err(closed)?;
        for engine in &self.engines {
            if let Ok(place) = engine.places.try_acquire() {
                return Ok((permit, engine, place));
            }
        }
        let first = self.engines.first().ok_or_else(|| ServeError::Engine("no engine is loaded".into()))?;
        Ok((permit, first, first.places.acquire().await.map_err(closed)?))
    }

    async fn answer(&self, request: &Request) -> Result<Completion, ServeError> {
        let prompt = self.chat.prompt_ids(&request.messages, &request.recorded)?;
        let room = self.architecture.max_position_embeddings.saturating_sub(prompt.len() + 1);
        let limit = request.sampling.max_tokens.min(room);
        if limit == 0 {
            return Ok(Completion::without_reply(Finish::ContextLimit));
        }
        let (_permit, engine, _place) = self.idle().await?;
        let mut ids = self.decode(engine, &prompt, request.sampling, request.key, limit).await?;
        let finish = match ids.last() {
            Some(last) if self.chat.end_ids().contains(last) => {
                ids.pop();
                Finish::Stop
            }
            _ => Finish::Length,
        };
        Ok(Completion::of_tokens(self.chat.vocabulary().decode(&ids), ids, finish, prompt.len()))
    }
}

/// What engines are checked with.
const CHECKED: &str = "The quick brown fox";

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 0 };

impl ChatModel for InProcess {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move { self.answer(request).await.map_err(|e| ModelError::Fatal(e.to_string())) })
    }
    fn concurrency(&self) -> usize {
        // Twice the replies at once: environments and tokenizing overlap with decoding.
        2 * match self.serving {
            Serving::Cpu { .. } => self.engines.len(),
            Serving::Card { at_once } => at_once,
        }
    }
}
