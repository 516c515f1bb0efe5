//! A server of ours that is started again where it dies.

use crate::process::{LOOK, Launch, Process, StartError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// New starts of a server that died.
const RESTARTS: u32 = 3;

/// What all servers of a fleet share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) http: reqwest::Client,
    pub(crate) stop: Arc<AtomicBool>,
    /// Tells people what happens.
    pub(crate) tell: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A server that is watched until it is closed.
pub(crate) struct Own {
    shared: Shared,
    now: Mutex<Now>,
}

struct Now {
    /// How it is started, the next time too.
    launch: Launch,
    /// Absent once it is closed.
    process: Option<Arc<Process>>,
}

impl Own {
    /// Starts a server, waits until it is ready, and watches it from then on; gives its model's name too.
    pub(crate) async fn start(launch: Launch, shared: &Shared) -> Result<(Arc<Self>, String), StartError> {
        let process = Arc::new(Process::spawn(launch.clone())?);
        let own =
            Arc::new(Self { shared: shared.clone(), now: Mutex::new(Now { launch, process: Some(process.clone()) }) });
        let ready = process.ready(&shared.http, &shared.stop).await;
        drop(process);
        match ready {
            Ok(model) => {
                tokio::spawn(own.clone().watch());
                Ok((own, model))
            }
            Err(error) => {
                blocking(move || own.close()).await;
                Err(error)
            }
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is started from now on, at its port.
    pub(crate) fn relaunch_with<E>(&self, launch: impl FnOnce(u16) -> Result<Launch, E>) -> Result<(), E> {
        let mut now = self.now();
        now.launch = launch(now.launch.port)?;
        Ok(())
    }

    /// Whether it is up now.
    pub(crate) async fn answers(&self) -> bool {
        let process = self.now().process.clone();
        match process {
            Some(process) => process.exited().is_none() && process.listed(&self.shared.http).await.is_ok(),
            None => false,
        }
    }

    /// Ends the server; it is not started again. Blocks until it has gone.
    pub(crate) fn close(&self) {
        let process = self.now().process.take();
        if let Some(process) = process {
            process.stop();
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut restarts = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(process) = self.now().process.clone() else { return };
            let Some(status) = process.exited() else { continue };
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let base = process.base();
            if restarts == RESTARTS {
                (self.shared.tell)(&format!(
                    "{base} died again ({status}), and is left dead after {RESTARTS} new starts"
                ));
                return;
            }
            restarts += 1;
            (self.shared.tell)(&format!("{base} died ({status}) and is started again ({restarts} of {RESTARTS})"));
            // Its children may outlive it.
            blocking(move || process.stop()).await;
            let process = match self.spawn_again() {
                Ok(Some(process)) => process,
                Ok(None) => return,
                Err(error) => {
                    (self.shared.tell)(&format!("{base} cannot be started again: {error}"));
                    return;
                }
            };
            match process.ready(&self.shared.http, &self.shared.stop).await {
                Ok(_) => (self.shared.tell)(&format!("{base} is back")),
                Err(StartError::Stopped) => return,
                Err(error) => {
                    (self.shared.tell)(&format!("{base} did not come back: {error}"));
                    blocking(move || process.stop()).await;
                }
            }
        }
    }

    fn spawn_again(&self) -> Result<Option<Arc<Process>>, StartError> {
        let mut now = self.now();
        if now.process.is_none() {
            return Ok(None);
        }
        let process = Arc::new(Process::spawn(now.launch.clone())?);
        now.process = Some(process.clone());
        Ok(Some(process))
    }
}

/// Does on a thread of its own what blocks.
pub(crate) async fn blocking(work: impl FnOnce() + Send + 'static) {
    // It only fails where the work panics or the runtime ends.
    let _ = tokio::task::spawn_blocking(work).await;
}
