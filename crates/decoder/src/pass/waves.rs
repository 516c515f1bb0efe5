//! Which runs of tokens go through the layers together.

use super::rows::Segment;
use std::ops::Range;

/// Runs that pass through the layers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// Which, in the order that they were given in.
    pub runs: Range<usize>,
    /// What is worked out of each.
    pub segments: Vec<Segment>,
    /// Tokens that are worked out.
    pub rows: usize,
}

/// Cuts runs into waves of at most so many rows and bytes; a run that is more has a wave of its own. In a wave, a run goes on
/// where it parts from the one before: sorted by their ids, they share the most. `cost` says the bytes of a run of which so many
/// rows are worked out.
pub fn waves<'i>(
    ids: impl Fn(usize) -> &'i [u32],
    runs: Range<usize>,
    (most_rows, most_bytes): (usize, usize),
    cost: impl Fn(usize, usize) -> usize,
) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    let mut used = 0;
    for run in runs.clone() {
        let whole = ids(run).len();
        let shared = match run.checked_sub(1).filter(|_| run > runs.start) {
            Some(before) => ids(before).iter().zip(ids(run)).take_while(|(a, b)| a == b).count(),
            None => 0,
        };
        let rows = whole - shared;
        let fits = |wave: &&mut Wave| wave.rows + rows <= most_rows && used + cost(run, rows) <= most_bytes;
        match waves.last_mut().filter(fits) {
            Some(wave) => {
                used += cost(run, rows);
                wave.segments.push(Segment { start: shared, rows });
                (wave.runs.end, wave.rows) = (run + 1, wave.rows + rows);
            }
            None => {
                used = cost(run, whole);
                waves.push(Wave { runs: run..run + 1, segments: vec![Segment { start: 0, rows: whole }], rows: whole });
            }
        }
    }
    waves
}
