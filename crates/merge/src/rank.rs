//! Exact order statistics over a tensor that is never held: the element of a given rank, found by narrowing an interval
//! of keys. A sample guesses the first interval.
//!
//! Keys are u32 whose order is the order of interest (the bits of a magnitude, for instance). Equal keys are ordered by
//! index. Where an interval has few keys, as with task vectors of 16-bit checkpoints, each is counted block by block, and
//! one pass finds key and index; otherwise a histogram narrows it.

use crate::MergeError;
use crate::source::{Rows, Source, View};

/// Where an element of given rank lies: its key, and how many of the elements with the same key come before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: u32,
    /// Elements with this key that rank below.
    pub(crate) before: u64,
    /// Elements with this key.
    pub(crate) equal: u64,
    /// First element of every block, with how many of its elements have this key; empty if nobody counted.
    blocks: Vec<(usize, u64)>,
}

/// Writes the keys of stream `s` for a block.
pub(crate) trait Keys: Fn(&View<'_>, usize, &mut [u32]) + Sync {}
impl<F: Fn(&View<'_>, usize, &mut [u32]) + Sync> Keys for F {}

const BINS: usize = 1 << 16;
const SAMPLE_RUNS: usize = 256;
const SAMPLE_LENGTH: usize = 256;
/// Most keys that are counted one by one.
const LISTED: usize = 8;
/// Most keys that are gathered for all searches together, as far as a sample can tell.
const GATHERED: u64 = 1 << 21;
/// Elements whose keys are made at a time: they stay in the first-level cache.
const TILE: usize = 2048;

/// An interval of keys that holds the wanted rank.
struct Search {
    stream: usize,
    rank: u64,
    low: u32,
    high: u32,
    /// All keys that seem to occur in the interval, if they are few.
    listed: Vec<u32>,
    /// Whether so few elements seem to lie in the interval that their keys are gathered.
    gathered: bool,
}

impl Search {
    fn shift(&self) -> u32 {
        let width = u64::from(self.high - self.low) + 1;
        (u64::BITS - (width - 1).leading_zeros()).saturating_sub(BINS.trailing_zeros())
    }
    fn set(&mut self, low: u32, high: u32) {
        (self.low, self.high, self.gathered) = (low, high, false);
        let few = u64::from(high - low) < LISTED as u64;
        self.listed = if few { (low..=high).collect() } else { Vec::new() };
    }
}

/// What a pass counts for one search.
struct Count {
    /// Elements below the interval.
    below: u64,
    /// Elements in it.
    inside: u64,
    /// A histogram of it, where keys are neither listed nor gathered.
    bins: Vec<u32>,
    /// Keys in it.
    keys: Vec<u32>,
    /// Per block: its first element, and how many have each listed key.
    blocks: Vec<(usize, [u32; LISTED])>,
}

/// The elements of the given ascending ranks (0 = smallest), per stream.
pub(crate) fn places(source: &Source<'_>, ranks: &[Vec<u64>], key: impl Keys) -> Result<Vec<Vec<Place>>, MergeError> {
    let mut searches: Vec<Search> = Vec::new();
    for (stream, ranks) in ranks.iter().enumerate() {
        let search =
            |rank: &u64| Search { stream, rank: *rank, low: 0, high: u32::MAX, listed: Vec::new(), gathered: false };
        searches.extend(ranks.iter().map(search));
    }
    if source.len() > 2 * SAMPLE_RUNS * SAMPLE_LENGTH {
        guess(source, &mut searches, ranks.len(), &key)?;
    }
    let mut found: Vec<Option<Place>> = vec![None; searches.len()];
    while found.iter().any(Option::is_none) {
        let open: Vec<usize> = (0..searches.len()).filter(|i| found[*i].is_none()).collect();
        for (i, count) in open.iter().zip(count(source, &searches, &open, &key)?) {
            found[*i] = narrow(&mut searches[*i], count);
        }
    }
    let mut out = vec![Vec::new(); ranks.len()];
    for (search, place) in searches.iter().zip(found.into_iter().flatten()) {
        out[search.stream].push(place);
    }
    Ok(out)
}

/// The place, if a count decides it; else the search's interval becomes smaller, or another.
fn narrow(search: &mut Search, count: Count) -> Option<Place> {
    if search.rank < count.below {
        search.set(0, search.low - 1);
        return None;
    }
    if search.rank >= count.below + count.inside {
        search.set(search.high + 1, u32::MAX);
        return None;
    }
    let mut at = count.below;
    let mut find = |counts: &mut dyn Iterator<Item = u64>| {
        for (i, n) in counts.enumerate() {
            if at + n > search.rank {
                return Some((i, n, search.rank - at));
            }
            at += n;
        }
        None
    };
    if !search.listed.is_empty() {
        let totals: Vec<u64> =
            (0..search.listed.len()).map(|l| count.blocks.iter().map(|(_, c)| u64::from(c[l])).sum()).collect();
        if totals.iter().sum::<u64>() < count.inside {
            // The sample missed some keys.
            search.listed.clear();
            return None;
        }
        let (i, equal, before) = find(&mut totals.into_iter())?;
        let blocks = count.blocks.iter().map(|(start, counts)| (*start, u64::from(counts[i]))).collect();
        return Some(Place { key: search.listed[i], before, equal, blocks });
    }
    if search.gathered {
        let mut keys = count.keys;
        let (below, key, _) = keys.select_nth_unstable((search.rank - count.below) as usize);
        let (key, less) = (*key, below.iter().filter(|k| *k < key).count() as u64);
        let equal = keys.iter().filter(|k| **k == key).count() as u64;
        return Some(Place { key, before: search.rank - count.below - less, equal, blocks: Vec::new() });
    }
    let shift = search.shift();
    let (bin, equal, before) = find(&mut count.bins.iter().map(|n| u64::from(*n)))?;
    let low = search.low + ((bin as u32) << shift);
    if shift == 0 {
        return Some(Place { key: low, before, equal, blocks: Vec::new() });
    }
    search.set(low, search.high.min(low + ((1 << shift) - 1)));
    None
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
    let count = searches.len();
    for search in searches {
        let sample = &samples[search.stream];
        let share = search.rank as f64 / source.len() as f64;
        let middle = share * sample.len() as f64;
        // Neighbours resemble each other, so the margin is twice that of independent draws.
        let margin = 8.0 * (sample.len() as f64 * share * (1.0 - share)).sqrt() + 64.0;
        let (first, last) = ((middle - margin).max(0.0) as usize, (middle + margin) as usize);
        search.low = if middle < margin { 0 } else { sample[first] };
        search.high = sample.get(last).copied().unwrap_or(u32::MAX);
        let mut listed = sample[first..(last + 1).min(sample.len())].to_vec();
        let likely = listed.len() as u64 * source.len() as u64 / sample.len() as u64;
        listed.dedup();
        if listed.len() <= LISTED {
            search.listed = listed;
        } else {
            search.gathered = likely * count as u64 <= GATHERED;
        }
    }
    Ok(())
}

/// One pass for all open searches.
fn count(source: &Source<'_>, searches: &[Search], open: &[usize], key: &impl Keys) -> Result<Vec<Count>, MergeError> {
    let open: Vec<&Search> = open.iter().map(|i| &searches[*i]).collect();
    let empty = |search: &&Search| {
        let bins = if search.listed.is_empty() && !search.gathered { vec![0; BINS] } else { Vec::new() };
        Count { below: 0, inside: 0, bins, keys: Vec::new(), blocks: Vec::new() }
    };
    let (joints, alone) = join(&open);
    let make = || (vec![0; TILE], Marks::new(), open.iter().map(empty).collect::<Vec<Count>>());
    let parts = source.tally(
        make,
        #[inline(always)]
        |(keys, marks, counts), view| {
            for (search, count) in open.iter().zip(counts.iter_mut()).filter(|(s, _)| !s.listed.is_empty()) {
                debug_assert!(search.listed.len() <= LISTED);
                count.blocks.push((view.start, [0; LISTED]));
            }
            for start in (0..view.len).step_by(TILE) {
                let part = view.part(start, TILE.min(view.len - start));
                let keys = &mut keys[..part.len];
                let mut filled = None;
                let mut fill = |stream: usize, keys: &mut [u32]| {
                    if filled != Some(stream) {
                        key(&part, stream, keys);
                        filled = Some(stream);
                    }
                };
                for joint in &joints {
                    fill(joint.stream, keys);
                    joint.tally(keys, marks, counts);
                }
                for at in &alone {
                    fill(open[*at].stream, keys);
                    tally(open[*at], &mut counts[*at], keys);
                }
            }
        },
    )?;
    let mut total: Vec<Count> = open.iter().map(empty).collect();
    for (_, _, part) in parts {
        for (sum, mut more) in total.iter_mut().zip(part) {
            sum.below += more.below;
            sum.inside += more.inside;
            sum.bins.iter_mut().zip(more.bins).for_each(|(t, p)| *t += p);
            sum.blocks.extend(more.blocks);
            // Their order is nothing to anyone: the fewer move.
            if sum.keys.len() < more.keys.len() {
                std::mem::swap(&mut sum.keys, &mut more.keys);
            }
            sum.keys.reserve_exact(more.keys.len());
            sum.keys.extend(more.keys);
        }
    }
    total.iter_mut().for_each(|count| count.blocks.sort_unstable());
    Ok(total)
}

/// Searches of one stream that gather keys of intervals apart: counted together.
struct Joint {
    stream: usize,
    /// Which of the open searches, by their intervals.
    members: Vec<usize>,
    /// First keys of an interval and behind it, ascending.
    ends: Vec<u32>,
}

/// Of a tile's elements: how many ends are not above the key, odd within an interval; and where those are.
struct Marks {
    class: [u8; TILE],
    list: [u32; TILE],
}

impl Marks {
    fn new() -> Self {
        Self { class: [0; TILE], list: [0; TILE] }
    }
}

/// The joints among open searches, and the searches that are in none.
fn join(open: &[&Search]) -> (Vec<Joint>, Vec<usize>) {
    let (mut joints, mut alone): (Vec<Joint>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut order: Vec<usize> = (0..open.len()).collect();
    order.sort_by_key(|at| (open[*at].stream, open[*at].low));
    for at in order {
        let Search { stream, low, high, gathered, .. } = *open[at];
        if !gathered || high == u32::MAX {
            alone.push(at);
            continue;
        }
        // An end a class: they must fit a byte.
        let last = joints.last_mut().filter(|joint| joint.stream == stream && joint.members.len() < 100);
        match last.filter(|joint| joint.ends.last().is_some_and(|end| *end <= low)) {
            Some(joint) => {
                joint.members.push(at);
                joint.ends.extend([low, high + 1]);
            }
            None => joints.push(Joint { stream, members: vec![at], ends: vec![low, high + 1] }),
        }
    }
    alone.sort_unstable();
    (joints, alone)
}

impl Joint {
    #[inline(always)]
    fn tally(&self, keys: &[u32], Marks { class, list }: &mut Marks, counts: &mut [Count]) {
        let class = &mut class[..keys.len()];
        class.fill(0);
        for end in &self.ends {
            class.iter_mut().zip(keys).for_each(|(class, key)| *class += u8::from(key >= end));
        }
        let of = |number: usize| u64::from(class.iter().map(|c| u32::from(*c == number as u8)).sum::<u32>());
        let mut below = 0;
        for (at, member) in self.members.iter().enumerate() {
            let (between, inside) = (of(2 * at), of(2 * at + 1));
            counts[*member].below += below + between;
            counts[*member].inside += inside;
            below += between + inside;
        }
        // Without a branch, which few elements would take.
        let mut found = 0;
        for (at, class) in class.iter().enumerate() {
            list[found & (TILE - 1)] = at as u32;
            found += usize::from(class & 1);
        }
        for at in list[..found].iter().map(|at| *at as usize) {
            counts[self.members[usize::from(class[at] / 2)]].keys.push(keys[at]);
        }
    }
}

#[inline(always)]
fn tally(search: &Search, count: &mut Count, keys: &[u32]) {
    let (low, width) = (search.low, search.high - search.low);
    count.below += u64::from(keys.iter().map(|k| u32::from(*k < low)).sum::<u32>());
    count.inside += u64::from(keys.iter().map(|k| u32::from(k.wrapping_sub(low) <= width)).sum::<u32>());
    if let Some((_, counts)) = count.blocks.last_mut() {
        for (sum, listed) in counts.iter_mut().zip(&search.listed) {
            *sum += keys.iter().map(|k| u32::from(k == listed)).sum::<u32>();
        }
        return;
    }
    if search.gathered {
        for run in keys.chunks(16) {
            if run.iter().any(|k| k.wrapping_sub(low) <= width) {
                count.keys.extend(run.iter().filter(|k| k.wrapping_sub(low) <= width));
            }
        }
        return;
    }
    let shift = search.shift();
    for run in keys.chunks(16) {
        // With a good guess most runs have no candidate.
        if run.iter().any(|k| k.wrapping_sub(low) <= width) {
            for k in run.iter().filter(|k| k.wrapping_sub(low) <= width) {
                count.bins[((k - low) >> shift) as usize] += 1;
            }
        }
    }
}

/// The index of the `nth` element (from 0) with a place's key, for several questions (stream, place, nth) at once.
pub(crate) fn indices_of(
    source: &Source<'_>,
    questions: &[(usize, &Place, u64)],
    key: impl Keys,
) -> Result<Vec<u64>, MergeError> {
    let uncounted: Vec<usize> = (0..questions.len()).filter(|q| questions[*q].1.blocks.is_empty()).collect();
    let mut blocks: Vec<Vec<(usize, u64)>> = questions.iter().map(|(_, place, _)| place.blocks.clone()).collect();
    if !uncounted.is_empty() {
        let counted = source.scan(
            Rows::Any,
            usize::MAX,
            || (Vec::new(), Vec::new()),
            #[inline(always)]
            |(keys, counts), view| {
                keys.resize(view.len, 0);
                let counted = uncounted.iter().map(|q| {
                    let (stream, place, _) = &questions[*q];
                    key(view, *stream, keys);
                    keys.iter().map(|k| u64::from(*k == place.key)).sum::<u64>()
                });
                counts.push((view.start, counted.collect::<Vec<u64>>()));
            },
        )?;
        for (start, counts) in counted.into_iter().flat_map(|(_, counts)| counts) {
            uncounted.iter().zip(counts).for_each(|(q, n)| blocks[*q].push((start, n)));
        }
    }
    let mut out = Vec::new();
    for ((stream, place, nth), blocks) in questions.iter().zip(blocks) {
        let mut left = *nth;
        let block = blocks.iter().find(|(_, n)| {
            let here = *n > left;
            left -= if here { 0 } else { *n };
            here
        });
        let (mut index, mut keys) = (u64::MAX, Vec::new());
        source.range(block.map_or(0, |(start, _)| *start), |view| {
            keys.resize(view.len, 0);
            key(view, *stream, &mut keys);
            let hit = keys.iter().enumerate().filter(|(_, k)| **k == place.key).nth(left as usize);
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

    /// Whether equal keys stay, if that is the same for all of `start..end`.
    #[inline(always)]
    fn equal_stay(self, start: u64, end: u64) -> Option<bool> {
        let (from, until) = match self {
            Self::Above(_, last) => (0, last.saturating_add(1)),
            Self::From(_, first) => (first, u64::MAX),
            Self::Below(_, end) => (0, end),
        };
        if from <= start && end <= until {
            Some(true)
        } else if end <= from || until <= start {
            Some(false)
        } else {
            None
        }
    }

    /// Zeroes the numbers whose magnitude's rank is outside; the first is element `start`.
    #[inline(always)]
    pub(crate) fn mask(self, values: &mut [f32], start: u64) {
        let end = start + values.len() as u64;
        match (self, self.equal_stay(start, end)) {
            // Most runs are on one side of the index: a plain comparison.
            (Self::Above(bound, _) | Self::From(bound, _), Some(stay)) => {
                let least = if stay { bound } else { bound.saturating_add(1) };
                values.iter_mut().for_each(|v| *v = if v.abs().to_bits() >= least { *v } else { 0.0 });
            }
            (Self::Below(bound, _), Some(stay)) => {
                let least = if stay { bound.saturating_add(1) } else { bound };
                values.iter_mut().for_each(|v| *v = if v.abs().to_bits() < least { *v } else { 0.0 });
            }
            (cut, None) => {
                for (v, index) in values.iter_mut().zip(start..) {
                    *v = if cut.keeps(v.abs().to_bits(), index) { *v } else { 0.0 };
                }
            }
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
    let questions: Vec<(usize, &Place, u64)> = found
        .iter()
        .enumerate()
        .flat_map(|(s, p)| p.iter().filter(|p| p.before > 0).map(move |p| (s, p, p.equal - p.before - 1)))
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
