//! Engines, requests, and the self-check.

use candle_core::Tensor;
use mistralrs::core::{
    Constraint, CustomLogitsProcessor, NormalRequest, Request as EngineRequest, RequestMessage, Response, ResponseOk,
};
use mistralrs::{Model, ModelDType, SamplingParams, TextModelBuilder, TokenSource};
use rolegraft_checkpoint::{ConfigError, ModelConfig};
use rolegraft_model::{ChatModel, Chooser, Completion, ModelError, Reply, Request, Sampling};
use rolegraft_trajectory::{ChatArguments, ChatError, ChatTokenizer, Finish, Key, Seed};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

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
    Config(#[from] ConfigError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error("mistral.rs cannot load `{}`: {reason}", dir.display())]
    Load { dir: PathBuf, reason: String },
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// A checkpoint served by one or more engines in this process.
pub struct InProcess {
    dir: PathBuf,
    chat: Arc<ChatTokenizer>,
    config: ModelConfig,
    /// An end-of-turn id other than the first, for the engine's eyes only.
    sentinel: Option<u32>,
    free: Semaphore,
    engines: Vec<AsyncMutex<Engine>>,
}

struct Engine {
    model: Option<Model>,
    cached: bool,
    left_behind: usize,
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
    async fn load(dir: &Path, cached: bool) -> Result<Self, ServeError> {
        let mut engine = Self { model: None, cached, left_behind: 0 };
        engine.build(dir).await?;
        Ok(engine)
    }

    async fn build(&mut self, dir: &Path) -> Result<(), ServeError> {
        self.model = None;
        self.left_behind = 0;
        let mut tries = 0;
        let built = loop {
            let builder = TextModelBuilder::new(dir.display().to_string())
                .with_force_cpu()
                .with_dtype(ModelDType::F32)
                .with_token_source(TokenSource::None)
                .with_max_num_seqs(1)
                .with_prefix_cache_n(self.cached.then_some(16));
            tries += 1;
            // mistral.rs 0.8.1 panics if its new engine's thread is quicker than the one that makes it, which asks for the
            // pipeline's name with `try_lock().unwrap()` (mistralrs-core, src/lib.rs): rare, and over with the next try.
            match tokio::spawn(builder.build()).await {
                Err(panic) if panic.is_panic() && tries < BUILD_TRIES => {}
                Err(panic) => break Err(first_line(&panic)),
                Ok(built) => break built.map_err(|e| first_line(&e)),
            }
        };
        self.model = Some(built.map_err(|reason| ServeError::Load { dir: dir.to_owned(), reason })?);
        Ok(())
    }

    /// Token ids of a reply, the end of turn included if there was one.
    async fn generate(&mut self, prompt: Vec<u32>, picker: Picker, limit: usize) -> Result<(), ServeError> {
        let model = self.model.as_ref().ok_or_else(|| ServeError::Engine("no model is loaded".into()))?;
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
    /// Loads `engines` copies of a checkpoint and checks that they decode alike with and without the prefix cache; if
    /// not, the cache stays off.
    ///
    /// # Errors
    /// If a file is missing or the engine cannot load the model.
    pub async fn open(dir: &Path, engines: usize, arguments: &ChatArguments) -> Result<Self, ServeError> {
        for file in ["config.json", "tokenizer.json"] {
            if !dir.join(file).exists() {
                return Err(ServeError::MissingFile { dir: dir.to_owned(), file });
            }
        }
        let config = ModelConfig::read(dir)?;
        let chat = Arc::new(ChatTokenizer::open(dir, arguments)?);
        let sentinel = chat.end_ids().get(1).copied();
        let mut served = Self {
            dir: dir.to_owned(),
            chat,
            config,
            sentinel,
            free: Semaphore::new(engines.max(1)),
            engines: Vec::new(),
        };
        let mut cached = sentinel.is_some();
        if cached {
            cached = served.cache_is_exact().await?;
        }
        for _ in 0..engines.max(1) {
            served.engines.push(AsyncMutex::new(Engine::load(dir, cached).await?));
        }
        Ok(served)
    }

    /// Plays three turns with the cache on and off.
    async fn cache_is_exact(&self) -> Result<bool, ServeError> {
        let start = self.chat.vocabulary().encode("The quick brown fox")?;
        let mut outcomes = Vec::new();
        for cached in [true, false] {
            let mut engine = Engine::load(&self.dir, cached).await?;
            let mut prompt = start.clone();
            for _ in 0..3 {
                let ids = self.decode(&mut engine, &prompt, GREEDY, Key::new(Seed(0)), 8).await?;
                prompt.extend(ids);
                prompt.extend(&start);
            }
            outcomes.push(prompt);
        }
        Ok(outcomes[0] == outcomes[1])
    }

    async fn decode(
        &self,
        engine: &mut Engine,
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
        let tokens = prompt.len() + limit;
        let c = &self.config;
        let bytes =
            c.num_hidden_layers * 2 * c.num_key_value_heads * c.head_dim * 4 * tokens.next_multiple_of(CACHE_BLOCK);
        if engine.cached && engine.left_behind + bytes > CACHE_BUDGET {
            engine.build(&self.dir).await?;
        }
        engine.left_behind += bytes;
        if engine.generate(prompt.to_vec(), picker(&state), limit).await.is_err() {
            // An engine that died restarts; what it was doing is done again from the start, once.
            *state.lock().unwrap_or_else(PoisonError::into_inner) = Picked::default();
            engine.build(&self.dir).await?;
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
        let _permit = self.free.acquire().await.map_err(|e| ServeError::Engine(e.to_string()))?;
        let mut engine = self.idle().await?;
        self.decode(&mut engine, prompt, GREEDY, Key::new(Seed(0)), limit).await
    }

    async fn idle(&self) -> Result<tokio::sync::MutexGuard<'_, Engine>, ServeError> {
        let free = self.engines.iter().find_map(|e| e.try_lock().ok());
        match (free, self.engines.first()) {
            (Some(engine), _) => Ok(engine),
            (None, Some(first)) => Ok(first.lock().await),
            (None, None) => Err(ServeError::Engine("no engine is loaded".into())),
        }
    }

    async fn answer(&self, request: &Request) -> Result<Completion, ServeError> {
        let prompt = self.chat.prompt_ids(&request.messages, &request.recorded)?;
        let room = self.config.max_position_embeddings.saturating_sub(prompt.len() + 1);
        let limit = request.sampling.max_tokens.min(room);
        if limit == 0 {
            return Ok(Completion::without_reply(Finish::ContextLimit));
        }
        let _permit = self.free.acquire().await.map_err(|e| ServeError::Engine(e.to_string()))?;
        let mut engine = self.idle().await?;
        let mut ids = self.decode(&mut engine, &prompt, request.sampling, request.key, limit).await?;
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

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 0 };

impl ChatModel for InProcess {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move { self.answer(request).await.map_err(|e| ModelError::Fatal(e.to_string())) })
    }
    fn concurrency(&self) -> usize {
        // Twice the engines: environments and tokenizing overlap with decoding.
        2 * self.engines.len()
    }
}
