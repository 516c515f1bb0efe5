//! One server of a fleet: what it holds, and how it comes to hold something else.

use crate::http::{models, names};
use crate::process::{Launch, StartError};
use crate::rules::{ServerRules, Swap};
use crate::swap::{Checksum, Expected, Remote, SwapError};
use crate::watch::{Own, Shared};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to say which model it has.
const LIST: Duration = Duration::from_secs(15);

/// What a server is doing.
#[derive(Debug, Clone)]
pub enum State {
    /// It starts, or was never given anything.
    Starting,
    /// It ends open requests.
    Draining,
    /// It loads weights.
    Swapping,
    /// It shows that it has them.
    Verifying,
    /// It holds a checkpoint.
    Ready,
    /// It failed or lied, and is asked nothing more.
    Quarantined(Arc<WorkerError>),
}

impl State {
    fn doing(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Swapping => "swapping weights",
            Self::Verifying => "verifying weights",
            Self::Ready | Self::Quarantined(_) => "comparing with others",
        }
    }
}

/// Why a server is left out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum WorkerError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Swap(#[from] SwapError),
    #[error("it cannot say which model it has: {0}")]
    Unlisted(String),
    #[error("it holds {own}, but most servers hold {others}")]
    Outvoted { own: String, others: String },
    #[error("it holds {own}, and no more than half of the servers hold the same")]
    Undecided { own: String },
}

/// A server.
pub(crate) struct Worker {
    /// Its place among those that we start.
    pub(crate) at: usize,
    /// Its address, without `/v1`.
    pub(crate) base: String,
    pub(crate) own: Option<Arc<Own>>,
    pub(crate) state: State,
    pub(crate) model: String,
    held: Option<Held>,
}

/// What a worker holds.
#[derive(Clone)]
pub(crate) struct Held {
    digest: String,
    checksum: Option<Checksum>,
}

/// A server that is left out.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Its address, without `/v1`.
    pub url: String,
    /// Why.
    pub why: Arc<WorkerError>,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  {}: {}", self.url, self.why)
    }
}

/// A checkpoint as servers are told of it.
pub(crate) struct Told<'f> {
    pub(crate) dir: &'f str,
    pub(crate) digest: &'f str,
    pub(crate) expected: &'f Expected,
}

impl Worker {
    pub(crate) fn at(at: usize, base: String) -> Self {
        Self { at, base, own: None, state: State::Starting, model: String::new(), held: None }
    }

    /// Starts a server of ours with a checkpoint.
    pub(crate) async fn start(
        at: usize,
        launch: Launch,
        rules: &ServerRules,
        shared: &Shared,
        told: &Told<'_>,
    ) -> Self {
        let mut worker = Self::at(at, format!("http://127.0.0.1:{}", launch.port));
        let timeout = launch.within;
        match Own::start(launch, shared).await {
            Ok((own, model)) => (worker.own, worker.model) = (Some(own), model),
            Err(error) => {
                worker.quarantine(error.into(), shared);
                return worker;
            }
        }
        worker.state = State::Verifying;
        let remote = Remote { http: &shared.http, base: &worker.base, timeout };
        let verified = async {
            if rules.versioned() {
                remote.called(Swap::Sglang, told.digest).await?;
            }
            match rules.swap {
                Some(swap) => remote.checksum(swap).await,
                None => Ok(None),
            }
        };
        match verified.await {
            Ok(checksum) => {
                worker.held = Some(Held { digest: told.digest.to_owned(), checksum });
                worker.state = State::Ready;
            }
            Err(error) => worker.quarantine(error.into(), shared),
        }
        worker
    }

    /// Swaps weights, unless they are the ones that are held.
    pub(crate) async fn take(&mut self, swap: Swap, told: &Told<'_>, shared: &Shared, timeout: Duration) {
        let holds = self.held.as_ref().is_some_and(|held| held.digest == told.digest);
        if holds || matches!(self.state, State::Quarantined(_)) {
            return;
        }
        match self.swapped(swap, told, shared, timeout).await {
            Ok(held) => (self.held, self.state) = (Some(held), State::Ready),
            Err(error) => self.quarantine(error, shared),
        }
    }

    async fn swapped(
        &mut self,
        swap: Swap,
        told: &Told<'_>,
        shared: &Shared,
        timeout: Duration,
    ) -> Result<Held, WorkerError> {
        let remote = Remote { http: &shared.http, base: &self.base, timeout };
        let before = match self.held.take() {
            Some(held) => held.checksum,
            None => {
                let models = models(&shared.http, &self.base, LIST).await.map_err(WorkerError::Unlisted)?;
                let [model] = names(&models)[..] else {
                    return Err(WorkerError::Unlisted(format!("it lists {} models", models.len())));
                };
                self.model = model.to_owned();
                // A server that was started with this very checkpoint has nothing to change.
                let has_it = models.iter().any(|model| model["root"] == told.dir);
                if has_it { None } else { remote.checksum(swap).await? }
            }
        };
        self.state = State::Draining;
        remote.drain(swap).await?;
        self.state = State::Swapping;
        remote.load(swap, told.dir, told.digest).await?;
        self.state = State::Verifying;
        remote.called(swap, told.digest).await?;
        let checksum = remote.checksum(swap).await?;
        if let Some(now) = &checksum {
            if before.as_ref() == Some(now) {
                return Err(SwapError::Unchanged { checksum: now.all.clone() }.into());
            }
            now.covers(Path::new(told.dir))?;
        }
        remote.says(swap, &self.model, told.expected).await?;
        Ok(Held { digest: told.digest.to_owned(), checksum })
    }

    pub(crate) fn quarantine(&mut self, why: WorkerError, shared: &Shared) {
        (shared.tell)(&format!("{} is left out, as it failed at {}: {why}", self.base, self.state.doing()));
        self.state = State::Quarantined(Arc::new(why));
    }

    /// What all workers have to have in common.
    pub(crate) fn holds(&self) -> String {
        let checksum = self.held.as_ref().and_then(|held| held.checksum.as_ref());
        checksum.map_or_else(
            || format!("model `{}`", self.model),
            |checksum| format!("model `{}` with checksum {}", self.model, checksum.all),
        )
    }

    pub(crate) fn left_out(&self) -> Option<LeftOut> {
        match &self.state {
            State::Quarantined(why) => Some(LeftOut { url: self.base.clone(), why: why.clone() }),
            _ => None,
        }
    }
}
