//! Our own decoder as an engine: a few threads, each with some conversations that it carries on together.

use crate::engine_error::EngineError;
use rolegraft_checkpoint::Checkpoint;
use rolegraft_decoder::{Cache, Decoder, Next, Place};
use rolegraft_model::{ChatModel, Chooser, Completion, ModelError, Reply, Request};
use rolegraft_trajectory::{ChatArguments, ChatTokenizer, EpisodeKey, Finish};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Conversations that a thread carries on together on the CPU, at most. Their keys and values should stay near.
const TOGETHER: usize = 8;
/// Threads that it may have.
const THREADS: usize = 256;
/// Bytes of keys and values that open conversations of this length may take, and as many those between turns.
const BYTES: usize = 2 << 30;
const LENGTH: usize = 4096;

/// Our own decoder as an engine.
pub(crate) struct OwnEngine {
    shared: Arc<Shared>,
    concurrency: usize,
}

struct Shared {
    decoder: Decoder,
    chat: ChatTokenizer,
    threads: usize,
    together: usize,
    /// Tokens whose keys and values are kept between turns.
    most_kept: usize,
    desk: Mutex<Desk>,
    wanted: Condvar,
}

/// What the threads share.
#[derive(Default)]
struct Desk {
    waiting: VecDeque<Asked>,
    /// Replies that are being written.
    open: usize,
    /// Caches of episodes, the one used last at the end.
    caches: Vec<(EpisodeKey, Cache)>,
    closed: bool,
}

/// A reply that is asked for.
struct Asked {
    episode: EpisodeKey,
    prompt: Vec<u32>,
    limit: usize,
    chooser: Chooser,
    answer: oneshot::Sender<Result<Written, String>>,
}

/// A reply.
struct Written {
    ids: Vec<u32>,
    finish: Finish,
}

/// A reply that is being written.
struct Open {
    asked: Asked,
    cache: Cache,
    ids: Vec<u32>,
    /// What is read next.
    next: Vec<u32>,
}

impl OwnEngine {
    pub(crate) fn open(
        checkpoint: &Checkpoint,
        threads: usize,
        chat: &ChatArguments,
        place: &Place,
    ) -> Result<Self, EngineError> {
        let (decoder, threads) = (Decoder::load(checkpoint, place)?, threads.clamp(1, THREADS));
        let a = decoder.architecture();
        let most_kept = BYTES / (2 * size_of::<f32>() * a.num_hidden_layers * a.keys());
        let of_a_thread = most_kept / a.max_position_embeddings.min(LENGTH) / threads;
        let together = if place.is_cpu() { of_a_thread.clamp(1, TOGETHER) } else { 1 };
        let shared = Arc::new(Shared {
            decoder,
            chat: ChatTokenizer::open(Path::new(checkpoint.dir()), chat)?,
            threads,
            together,
            most_kept,
            desk: Mutex::default(),
            wanted: Condvar::new(),
        });
        for _ in 0..shared.threads {
            let shared = shared.clone();
            std::thread::spawn(move || shared.work());
        }
        Ok(Self { concurrency: shared.threads * together, shared })
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.shared.desk().closed = true;
        self.shared.wanted.notify_all();
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes replies until the engine is dropped.
    fn work(&self) {
        let mut open: Vec<Open> = Vec::new();
        while self.take(&mut open) {
            if let Err(error) = self.step(&mut open) {
                self.desk().open -= open.len();
                for failed in open.drain(..) {
                    let _ = failed.asked.answer.send(Err(error.to_string()));
                }
            }
        }
    }

    /// Takes a fair share of what waits; waits itself if it has nothing to do. False at the end.
    fn take(&self, open: &mut Vec<Open>) -> bool {
        let mut desk = self.desk();
        while open.is_empty() && desk.waiting.is_empty() {
            if desk.closed {
                return false;
            }
            desk = self.wanted.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        let fair = (desk.open + desk.waiting.len()).div_ceil(self.threads).min(self.together);
        while open.len() < fair
            && let Some(asked) = desk.waiting.pop_front()
        {
            let kept = desk.caches.iter().position(|(episode, _)| *episode == asked.episode);
            let cache = kept.map_or_else(|| self.decoder.cache(), |at| desk.caches.remove(at).1);
            desk.open += 1;
            open.push(Open { next: Vec::new(), ids: Vec::new(), cache, asked });
        }
        true
    }

    /// A token more of every reply; those that are at their end are sent.
    fn step(&self, open: &mut Vec<Open>) -> Result<(), EngineError> {
        for reply in open.iter_mut().filter(|reply| reply.next.is_empty()) {
            let (said, prompt) = (reply.cache.ids(), &reply.asked.prompt);
            // Of the last token the logits are wanted.
            let shared = said.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
            self.decoder.rewind(&mut reply.cache, shared)?;
            reply.next = prompt[shared..].to_vec();
        }
        let mut all: Vec<Next<'_>> =
            open.iter_mut().map(|reply| Next { ids: &reply.next, cache: &mut reply.cache }).collect();
        let logits = self.decoder.forward_each(&mut all)?;
        let mut at = 0;
        for logits in logits {
            match self.finish(&mut open[at], &logits) {
                None => at += 1,
                Some(finish) => {
                    let Open { asked, cache, ids, .. } = open.remove(at);
                    let mut desk = self.desk();
                    desk.open -= 1;
                    desk.caches.push((asked.episode, cache));
                    while desk.caches.iter().map(|(_, cache)| cache.ids().len()).sum::<usize>() > self.most_kept {
                        desk.caches.remove(0);
                    }
                    drop(desk);
                    // Who asked may have gone.
                    let _ = asked.answer.send(Ok(Written { ids, finish }));
                }
            }
        }
        Ok(())
    }

    /// Picks a token; how the reply ends, if it does.
    fn finish(&self, reply: &mut Open, logits: &[f32]) -> Option<Finish> {
        let pick = reply.asked.chooser.pick(logits, reply.ids.len());
        if self.chat.end_ids().contains(&pick) {
            return Some(Finish::Stop);
        }
        reply.ids.push(pick);
        reply.next = vec![pick];
        let is_over = reply.ids.len() >= reply.asked.limit || reply.asked.answer.is_closed();
        is_over.then_some(Finish::Length)
    }

    fn prompt(&self, request: &Request) -> Result<(Vec<u32>, usize), EngineError> {
        let prompt = self.chat.prompt_ids(&request.messages, &request.recorded)?;
        let room = self.decoder.architecture().max_position_embeddings.saturating_sub(prompt.len() + 1);
        Ok((prompt, request.sampling.max_tokens.min(room)))
    }

    fn ask(&self, request: &Request, prompt: Vec<u32>, limit: usize) -> oneshot::Receiver<Result<Written, String>> {
        let (answer, written) = oneshot::channel();
        let chooser = Chooser::new(request.sampling, request.key, self.chat.vocabulary().size());
        self.desk().waiting.push_back(Asked { episode: request.episode.clone(), prompt, limit, chooser, answer });
        self.wanted.notify_one();
        written
    }
}

impl ChatModel for OwnEngine {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            let (prompt, limit) = self.shared.prompt(request).map_err(|e| ModelError::Fatal(e.to_string()))?;
            if limit == 0 {
                return Ok(Completion::without_reply(Finish::ContextLimit));
            }
            let read = prompt.len();
            let written = self.shared.ask(request, prompt, limit).await;
            let written = written.map_err(|e| ModelError::Fatal(e.to_string()))?.map_err(ModelError::Fatal)?;
            let text = self.shared.chat.vocabulary().decode(&written.ids);
            Ok(Completion::of_tokens(text, written.ids, written.finish, read))
        })
    }
    fn concurrency(&self) -> usize {
        self.concurrency
    }
    fn ended(&self, episode: &EpisodeKey) {
        self.shared.desk().caches.retain(|(of, _)| of != episode);
    }
}
