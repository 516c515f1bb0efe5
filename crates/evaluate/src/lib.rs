//! The episode loop: one model plays the tasks of a suite, many at once, resumably.
//!
//! An episode depends on its key (run seed, suite, task, trial) and on the model alone: not on concurrency, order or
//! retries. Each finished episode is appended to the log before it is reported; one that is in the log already is not
//! played again. Environments that wait run on the runtime's blocking threads, the others where their episode runs. What
//! the machine did to an episode is not held against its model: one whose ground is gone is played anew, and one of which
//! something was killed a second time, to see whether the model does that.

use rolegraft_model::{ChatModel, ModelError, Request, Sampling};
use rolegraft_suite::{Outcome, Suite, SuiteError, Task};
use rolegraft_trajectory::{
    Context, Episode, EpisodeKey, EpisodeLog, Finish, Key, LogError, Message, Seed, Shown, Spent, Status, Turn,
    reasoning, recorded,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// How often an episode is begun whose ground goes away under it.
const TRIES: usize = 3;

/// What is played.
#[derive(Clone)]
pub struct Evaluation {
    /// The rules.
    pub suite: Arc<dyn Suite>,
    /// The tasks.
    pub tasks: Vec<Arc<Task>>,
    /// Episodes a task.
    pub trials: u32,
    /// Episodes at once, where that is fewer than the model bears: one, if a person takes part.
    pub at_once: Option<usize>,
    /// The run's seed: the same for every model, so that all face the same draws.
    pub seed: Seed,
}

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum EvaluationError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Suite(#[from] SuiteError),
    #[error(
        "suite `{0}` is played with native tool calls, which only an endpoint makes; give the model's address, or play it in a \
         text format"
    )]
    NoNativeTools(String),
    #[error("the model cannot answer: {0}")]
    Model(#[from] ModelError),
    #[error("an environment failed: {0}")]
    Panic(String),
    #[error("interrupted; every finished episode is saved")]
    Interrupted,
    #[error(
        "{failed} of {of} episodes have no result, the first because: {first}; run the same command to play them again"
    )]
    Incomplete { failed: usize, of: usize, first: String },
}

impl EvaluationError {
    /// Whether one episode has no result, and the others may have.
    fn spares_the_others(&self) -> bool {
        use rolegraft_suite::SpeakerError::Unavailable;
        matches!(
            self,
            Self::Model(ModelError::Unavailable { .. })
                | Self::Suite(SuiteError::Lost { .. } | SuiteError::Speaker { source: Unavailable(_), .. })
        )
    }
}

/// Plays what the log does not hold yet. `report` is called with (finished, of) after each episode; `stop` ends the
/// evaluation between turns.
///
/// # Errors
/// If the log, the suite or the model fails for good. Episodes whose endpoint was unavailable, or whose ground went
/// away each time, are left out of the log and reported together at the end.
pub async fn play(
    evaluation: &Evaluation,
    model: Arc<dyn ChatModel>,
    log: &mut EpisodeLog,
    stop: &Arc<AtomicBool>,
    report: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<(), EvaluationError> {
    let suite = &evaluation.suite;
    if suite.tools().is_some() && !model.has_native_tools() {
        return Err(EvaluationError::NoNativeTools(suite.id().to_owned()));
    }
    let at_once = || evaluation.at_once.unwrap_or(usize::MAX).min(model.concurrency()).max(1);
    let key = |task: &Task, trial| EpisodeKey { suite: suite.id().to_owned(), task: task.id.clone(), trial };
    let all =
        (0..evaluation.trials).flat_map(|trial| evaluation.tasks.iter().map(move |task| (key(task, trial), task)));
    let of = evaluation.tasks.len() * evaluation.trials as usize;
    let mut waiting = all.filter(|(key, _)| !log.done().contains(key)).collect::<Vec<_>>().into_iter();
    let mut finished = of - waiting.len();
    let mut running = JoinSet::new();
    let (mut failed, mut first) = (0, String::new());
    report(finished, of);
    loop {
        while running.len() < at_once()
            && !stop.load(Ordering::Relaxed)
            && let Some((key, task)) = waiting.next()
        {
            let seat = Seat { suite: suite.clone(), task: task.clone(), key, seed: evaluation.seed };
            running.spawn(seat.episode(model.clone(), stop.clone()));
        }
        let joined = tokio::select! {
            joined = running.join_next() => joined,
            () = model.grown(), if waiting.len() > 0 => continue,
        };
        let Some(joined) = joined else { break };
        let mut fatal = None;
        let mut together = Vec::new();
        for joined in std::iter::once(joined).chain(std::iter::from_fn(|| running.try_join_next())) {
            match joined.unwrap_or_else(|e| Err(EvaluationError::Panic(e.to_string()))) {
                Ok(episode) => together.push(episode),
                Err(EvaluationError::Interrupted) => {}
                Err(error) if error.spares_the_others() => {
                    failed += 1;
                    if first.is_empty() {
                        first = error.to_string();
                    }
                }
                Err(error) => fatal = fatal.or(Some(error)),
            }
        }
        log.append(&together)?;
        for _ in together {
            finished += 1;
            report(finished, of);
        }
        if let Some(error) = fatal {
            return Err(error);
        }
    }
    if stop.load(Ordering::Relaxed) && finished + failed < of {
        return Err(EvaluationError::Interrupted);
    }
    if failed > 0 { Err(EvaluationError::Incomplete { failed, of, first }) } else { Ok(()) }
}

/// Runs what an environment does: where it may wait, on a thread of its own.
async fn run<T: Send + 'static>(waits: bool, f: impl FnOnce() -> T + Send + 'static) -> Result<T, EvaluationError> {
    if waits {
        tokio::task::spawn_blocking(f).await.map_err(|e| EvaluationError::Panic(e.to_string()))
    } else {
        Ok(f())
    }
}

/// What an episode is played of.
struct Seat {
    suite: Arc<dyn Suite>,
    task: Arc<Task>,
    key: EpisodeKey,
    seed: Seed,
}

impl Seat {
    /// An episode that can be believed.
    async fn episode(self, model: Arc<dyn ChatModel>, stop: Arc<AtomicBool>) -> Result<Episode, EvaluationError> {
        let (mut lost, mut killed) = (0, false);
        loop {
            let played = self.play(&model, &stop).await;
            model.ended(&self.key);
            match played {
                Err(EvaluationError::Suite(SuiteError::Lost { .. })) if lost + 1 < TRIES => lost += 1,
                Ok((_, false)) if !killed => killed = true,
                played => return Ok(played?.0),
            }
        }
    }

    /// Plays it once; whether nothing of it was killed.
    async fn play(
        &self,
        model: &Arc<dyn ChatModel>,
        stop: &Arc<AtomicBool>,
    ) -> Result<(Episode, bool), EvaluationError> {
        let Self { suite, task, key, seed } = self;
        let (suite, task, key) = (suite.clone(), task.clone(), key.clone());
        let begun = Instant::now();
        let limits = suite.limits();
        let (tools, waits) = (suite.tools(), suite.waits());
        let sampling = Sampling { temperature: limits.temperature, top_p: limits.top_p, max_tokens: limits.tokens };
        let stream = Key::new(*seed).child(&key.suite).child(&key.task).index(u64::from(key.trial));
        let (mut environment, messages) = run(waits, move || -> Result<_, SuiteError> {
            let mut environment = suite.start(&task)?;
            let messages = environment.open()?;
            Ok((environment, messages))
        })
        .await??;
        let mut messages = Arc::new(messages);
        let mut turns: Vec<Turn> = Vec::new();
        let mut spent = Spent::default();
        let at_once = environment.ended_at_once();
        let status = loop {
            if let Some(status) = at_once {
                break status;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(EvaluationError::Interrupted);
            }
            let shown = environment.shown(&messages);
            let context = shown.as_ref().map_or(Context::All, |shown| Context::of(shown, &messages));
            let (recorded, reasoning) = (recorded(shown.as_deref(), &turns), reasoning(shown.as_deref(), &turns));
            let of_shown = |shown: Vec<Shown>| Arc::new(shown.into_iter().map(|shown| shown.message).collect());
            let request = Request {
                episode: key.clone(),
                turn: turns.len(),
                messages: shown.map_or_else(|| messages.clone(), of_shown),
                recorded,
                reasoning,
                tools: tools.clone(),
                sampling,
                key: stream.index(turns.len() as u64),
            };
            let completion = model.complete(&request).await?;
            drop(request);
            spent += completion.spent;
            match completion.finish {
                Finish::ContextLimit => break Status::AgentContextLimit,
                Finish::Filtered => break Status::ServerFiltered,
                _ => {}
            }
            let (step, text);
            (environment, step, text) = run(waits, move || {
                let step = environment.step(&completion.text).and_then(|step| environment.intact().map(|_| step));
                (environment, step, completion.text)
            })
            .await?;
            let step = step?;
            let messages = Arc::make_mut(&mut messages);
            messages.push(Message::assistant(text));
            let turn = Turn::of(messages.len() - 1, completion.finish, &step.reading, step.succeeded);
            let (ids, inexact, reasoning) = (completion.ids, completion.inexact, completion.reasoning);
            turns.push(Turn { shown: context, ids, inexact, reasoning, ..turn });
            messages.extend(step.observations);
            if let Some(status) = step.ended {
                break status;
            }
        };
        let (Outcome { reward, detail }, others_spent, intact) =
            run(waits, move || (environment.outcome(), environment.spent(), environment.intact())).await?;
        let intact = intact?;
        let messages = Arc::unwrap_or_clone(messages);
        let (reward, seconds) = (status.scored(reward), begun.elapsed().as_secs_f64());
        Ok((Episode { key, status, reward, messages, turns, detail, spent, others_spent, seconds }, intact))
    }
}
