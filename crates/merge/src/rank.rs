//! Exact order statistics over a tensor that is never held: the element of a given rank, found by narrowing an interval
//! of bit patterns with a histogram. A sample guesses the first interval, so that few elements touch the histogram.
//!
//! Keys are u32 whose order is the order of interest (the bits of a magnitude, for instance). Equal keys are ordered by
//! index.

use crate::MergeError;
use crate::source::{FEW_SEGMENTS, Rows, Source, View};

/// Where an element of given rank lies: its key, and how many of the elements with the same key come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: u32,
    /// Elements with this key that rank below.
    pub(crate) before: u64,
    /// Elements with this key.
    pub(crate) equal: u64,
}

/// Writes the keys of stream `s` for a block.
pub(crate) trait Keys: Fn(&View<'_>, usize, &mut [u32]) + Sync {}
impl<F: Fn(&View<'_>, usize, &mut [u32]) + Sync> Keys for F {}

const BINS: usize = 1 << 16;
const SAMPLE_RUNS: usize = 256;
const SAMPLE_LENGTH: usize = 256;

/// An interval of keys that holds the wanted rank.
struct Search {
    stream: usize,
    rank: u64,
    low: u32,
    high: u32,
}

impl Search {
    fn shift(&self) -> u32 {
        let width = u64::from(self.high - self.low) + 1;
        (u64::BITS - (width - 1).leading_zeros()).saturating_sub(BINS.trailing_zeros())
    }
}

/// The elements of the given ascending ranks (0 = smallest), per stream.
pub(crate) fn places(source: &Source<'_>, ranks: &[Vec<u64>], key: impl Keys) -> Result<Vec<Vec<Place>>, MergeError> {
    let mut searches: Vec<Search> = Vec::new();
    for (stream, ranks) in ranks.iter().enumerate() {
        searches.extend(ranks.iter().map(|rank| Search { stream, rank: *rank, low: 0, high: u32::MAX }));
    }
    if source.len() > 2 * SAMPLE_RUNS * SAMPLE_LENGTH {
        guess(source, &mut searches, ranks.len(), &key)?;
    }
    let mut found: Vec<Option<Place>> = vec![None; searches.len()];
    while found.iter().any(Option::is_none) {
        let open: Vec<usize> = (0..searches.len()).filter(|i| found[*i].is_none()).collect();
        for (i, (below, bins)) in open.iter().zip(count(source, &searches, &open, &key)?) {
            let search = &mut searches[*i];
            let inside: u64 = bins.iter().sum();
            if search.rank < below {
                (search.low, search.high) = (0, search.low - 1);
            } else if search.rank >= below + inside {
                (search.low, search.high) = (search.high + 1, u32::MAX);
            } else {
                let (shift, mut at) = (search.shift(), below);
                let bin = bins
                    .iter()
                    .position(|n| {
                        at += n;
                        at > search.rank
                    })
                    .unwrap_or(0);
                at -= bins[bin];
                if shift == 0 {
                    found[*i] =
                        Some(Place { key: search.low + bin as u32, before: search.rank - at, equal: bins[bin] });
                } else {
                    let low = search.low + ((bin as u32) << shift);
                    search.high = search.high.min(low + ((1 << shift) - 1));
                    search.low = low;
                }
            }
        }
    }
    let mut out = vec![Vec::new(); ranks.len()];
    for (search, place) in searches.iter().zip(found.into_iter().flatten()) {
        out[search.stream].push(place);
    }
    Ok(out)
}

/// First intervals from a sample. A wrong guess costs a pass, never the result.
fn guess(source: &Source<'_>, searches: &mut [Search], streams: usize, key: &impl Keys) -> Result<(), MergeError> {
    let mut samples: Vec<Vec<u32>> = vec![Vec::new(); streams];
    let mut keys = Vec::new();
    source.sample(SAMPLE_RUNS, SAMPLE_LENGTH, |view| {
        keys.resize(view.len, 0);
        for (stream, sample) in samples.iter_mut().enumerate() {
            key(view, stream, &mut keys);
            sample.extend_from_slice(&keys);
        }
    })?;
    samples.iter_mut().for_each(|s| s.sort_unstable());
    for search in searches {
        let sample = &samples[search.stream];
        let share = search.rank as f64 / source.len() as f64;
        let middle = share * sample.len() as f64;
        // Neighbours resemble each other, so the margin is three times that of independent draws.
        let margin = 12.0 * (sample.len() as f64 * share * (1.0 - share)).sqrt() + 64.0;
        search.low = if middle < margin { 0 } else { sample[(middle - margin) as usize] };
        search.high = sample.get((middle + margin) as usize).copied().unwrap_or(u32::MAX);
    }
    Ok(())
}

/// Per open search: elements below its interval, and the histogram inside it.
fn count(
    source: &Source<'_>,
    searches: &[Search],
    open: &[usize],
    key: &impl Keys,
) -> Result<Vec<(u64, Vec<u64>)>, MergeError> {
    let make = || (Vec::new(), open.iter().map(|_| (0u64, vec![0u32; BINS])).collect::<Vec<_>>());
    let parts = source.scan(Rows::Any, FEW_SEGMENTS, make, |(keys, counts), view| {
        keys.resize(view.len, 0);
        let mut filled = None;
        for (i, (below, bins)) in open.iter().zip(counts.iter_mut()) {
            let search = &searches[*i];
            if filled != Some(search.stream) {
                key(view, search.stream, keys);
                filled = Some(search.stream);
            }
            let (low, high, shift) = (search.low, search.high, search.shift());
            *below += keys.iter().map(|k| u64::from(*k < low)).sum::<u64>();
            let width = high - low;
            // Runs without a candidate are skipped: with a good guess that is most of them.
            for run in keys.chunks(16) {
                if run.iter().any(|k| k.wrapping_sub(low) <= width) {
                    for k in run.iter().filter(|k| k.wrapping_sub(low) <= width) {
                        bins[((k - low) >> shift) as usize] += 1;
                    }
                }
            }
        }
    })?;
    let mut total: Vec<(u64, Vec<u64>)> = open.iter().map(|_| (0, vec![0; BINS])).collect();
    for (_, part) in parts {
        for ((below, bins), (more_below, more)) in total.iter_mut().zip(part) {
            *below += more_below;
            bins.iter_mut().zip(more).for_each(|(t, p)| *t += u64::from(p));
        }
    }
    Ok(total)
}

/// The index of the `nth` element (from 0) whose key in a stream is `wanted`, for several questions at once.
pub(crate) fn indices_of(
    source: &Source<'_>,
    questions: &[(usize, u32, u64)],
    key: impl Keys,
) -> Result<Vec<u64>, MergeError> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    // Per segment and question: how many there are, block by block.
    let blocks = source.scan(
        Rows::Any,
        usize::MAX,
        || (Vec::new(), Vec::new()),
        |(keys, counts), view| {
            keys.resize(view.len, 0);
            let mut row = Vec::with_capacity(questions.len());
            for (stream, wanted, _) in questions {
                key(view, *stream, keys);
                row.push(keys.iter().map(|k| u64::from(k == wanted)).sum::<u64>());
            }
            counts.push((view.start, row));
        },
    )?;
    let blocks: Vec<(usize, Vec<u64>)> = blocks.into_iter().flat_map(|(_, counts)| counts).collect();
    let mut out = Vec::new();
    for (i, (stream, wanted, nth)) in questions.iter().enumerate() {
        let mut left = *nth;
        let block = blocks.iter().find(|(_, row)| match row[i] {
            n if n > left => true,
            n => {
                left -= n;
                false
            }
        });
        let start = block.map_or(0, |(start, _)| *start);
        let mut index = u64::MAX;
        let mut keys = Vec::new();
        source.range(start, |view| {
            keys.resize(view.len, 0);
            key(view, *stream, &mut keys);
            let hit = keys.iter().enumerate().filter(|(_, k)| *k == wanted).nth(left as usize);
            index = hit.map_or(u64::MAX, |(at, _)| (view.start + at) as u64);
        })?;
        out.push(index);
    }
    Ok(out)
}

/// Elements whose rank lies in a range, decided element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Key above, or equal with an index of at most this.
    Above(u32, u64),
    /// Key above, or equal with an index of at least this.
    From(u32, u64),
    /// Key below, or equal with an index below this.
    Below(u32, u64),
}

impl Cut {
    #[inline(always)]
    pub(crate) fn keeps(self, key: u32, index: u64) -> bool {
        match self {
            Self::Above(bound, last) => key > bound || (key == bound && index <= last),
            Self::From(bound, first) => key > bound || (key == bound && index >= first),
            Self::Below(bound, end) => key < bound || (key == bound && index < end),
        }
    }
}

/// Per stream: the cut that keeps the `keep[s]` largest keys, equal keys by lower index. `None` keeps nothing.
pub(crate) fn largest(source: &Source<'_>, keep: &[u64], key: impl Keys) -> Result<Vec<Option<Cut>>, MergeError> {
    let len = source.len() as u64;
    let partial = |k: u64| k > 0 && k < len;
    let ranks: Vec<Vec<u64>> = keep.iter().map(|k| if partial(*k) { vec![len - k] } else { Vec::new() }).collect();
    let found = places(source, &ranks, &key)?;
    // Of the equal ones those with low indices stay: as many as rank at or above the place.
    let stay = |p: &Place| p.equal - p.before;
    let questions: Vec<(usize, u32, u64)> = found
        .iter()
        .enumerate()
        .flat_map(|(s, p)| p.iter().filter(|p| p.before > 0).map(move |p| (s, p.key, stay(p) - 1)))
        .collect();
    let mut indices = indices_of(source, &questions, &key)?.into_iter();
    Ok(found
        .iter()
        .zip(keep)
        .map(|(p, k)| match p.first() {
            Some(p) if p.before > 0 => Some(Cut::Above(p.key, indices.next().unwrap_or(u64::MAX))),
            Some(p) => Some(Cut::Above(p.key, u64::MAX)),
            None if *k >= len && len > 0 => Some(Cut::Above(0, u64::MAX)),
            None => None,
        })
        .collect())
}

/// A bit pattern whose order as u32 is the order of the numbers.
#[inline(always)]
pub(crate) fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}
