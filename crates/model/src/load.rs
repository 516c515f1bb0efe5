//! How many requests a server is given at once.
//!
//! As inspect_ai does it (UKGovernmentBEIS/inspect_ai@499e615:design/adaptive-concurrency.md): the limit doubles with every
//! clean round until the server first says that it is too much, and then grows by a twentieth; it falls by a fifth when
//! the server says so, at most once in 15 seconds, since one burst brings many such answers. A round is as many answers
//! as the limit, and it counts only if the limit was used.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

const FIRST: usize = 4;
const BETWEEN_CUTS: Duration = Duration::from_secs(15);
/// Share of the limit that a round must have used.
const USED: f64 = 0.8;

pub(crate) struct Load {
    most: usize,
    places: Semaphore,
    state: Mutex<State>,
    grown: Notify,
}

struct State {
    limit: usize,
    /// Places that go when they are given back.
    owed: usize,
    open: usize,
    /// Answers of this round, and the most that were open in it.
    round: usize,
    peak: usize,
    first_cut: bool,
    last_cut: Option<Instant>,
}

/// A place for one request.
pub(crate) struct Place<'l> {
    load: &'l Load,
    permit: Option<SemaphorePermit<'l>>,
}

impl Load {
    /// At most `most` at once.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        let limit = FIRST.min(most);
        let state = State { limit, owed: 0, open: 0, round: 0, peak: 0, first_cut: false, last_cut: None };
        Self { most, places: Semaphore::new(limit), state: Mutex::new(state), grown: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Place<'_> {
        // The semaphore is never closed.
        let permit = self.places.acquire().await.ok();
        let mut state = self.state();
        state.open += 1;
        state.peak = state.peak.max(state.open);
        Place { load: self, permit }
    }

    /// The limit now.
    pub(crate) fn limit(&self) -> usize {
        self.state().limit
    }
    /// Waits until the limit has grown.
    pub(crate) async fn grown(&self) {
        self.grown.notified().await;
    }

    /// A request was answered.
    pub(crate) fn answered(&self) {
        let mut state = self.state();
        state.round += 1;
        if state.round < state.limit {
            return;
        }
        let used = state.peak as f64 >= USED * state.limit as f64;
        (state.round, state.peak) = (0, state.open);
        if !used || state.limit >= self.most {
            return;
        }
        let grown = if state.first_cut { state.limit + state.limit.div_ceil(20) } else { 2 * state.limit };
        let more = grown.min(self.most) - state.limit;
        state.limit += more;
        let forgiven = more.min(state.owed);
        state.owed -= forgiven;
        drop(state);
        self.places.add_permits(more - forgiven);
        self.grown.notify_one();
    }

    /// The server said that it is too much.
    pub(crate) fn cut(&self) {
        let mut state = self.state();
        (state.round, state.peak) = (0, state.open);
        if state.last_cut.is_some_and(|at| at.elapsed() < BETWEEN_CUTS) {
            return;
        }
        (state.first_cut, state.last_cut) = (true, Some(Instant::now()));
        let less = state.limit - (state.limit * 4 / 5).max(1);
        state.limit -= less;
        state.owed += less - self.places.forget_permits(less);
    }

    /// The server failed: its round does not count.
    pub(crate) fn pause(&self) {
        let mut state = self.state();
        (state.round, state.peak) = (0, state.open);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.load.state();
        state.open -= 1;
        if state.owed > 0 {
            state.owed -= 1;
            if let Some(permit) = self.permit.take() {
                permit.forget();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a round with every place taken.
    async fn round(load: &Load) {
        let limit = load.limit();
        let mut places = Vec::new();
        for _ in 0..limit {
            places.push(load.enter().await);
        }
        (0..limit).for_each(|_| load.answered());
    }

    #[tokio::test]
    async fn the_limit_doubles_then_creeps_and_is_cut_once_a_burst() {
        let load = Load::new(100);
        assert_eq!(load.limit(), 4);
        for expected in [8, 16, 32, 64, 100, 100] {
            round(&load).await;
            assert_eq!(load.limit(), expected);
        }
        load.cut();
        load.cut();
        assert_eq!(load.limit(), 80);
        round(&load).await;
        assert_eq!((load.limit(), load.places.available_permits()), (84, 84));
        // A round that the server failed in, or that hardly used the limit, does not count.
        (0..83).for_each(|_| load.answered());
        load.pause();
        load.answered();
        assert_eq!(load.limit(), 84);
        (0..84).for_each(|_| load.answered());
        assert_eq!(load.limit(), 84);
    }

    #[tokio::test]
    async fn places_of_a_cut_go_when_they_are_given_back() {
        let load = Load::new(4);
        let places = [load.enter().await, load.enter().await, load.enter().await, load.enter().await];
        load.cut();
        assert_eq!(load.limit(), 3);
        drop(places);
        assert_eq!(load.places.available_permits(), 3);
        assert_eq!(Load::new(1).limit(), 1);
    }
}
