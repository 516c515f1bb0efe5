//! The probability with which `della` keeps an element, by the rank of its magnitude in its row.

use crate::random::bound;

/// Buckets of magnitudes: the eight uppermost binades at the precision of BF16, and one for all below.
const BUCKETS: usize = 1024;
/// Bits of a magnitude below those that tell its bucket.
const SHIFT: u32 = 16;
/// Rows shorter than this are sorted.
const SHORT: usize = 256;

/// Keep probabilities by rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probability {
    pub(super) density: f64,
    pub(super) epsilon: f64,
}

/// Reused from row to row.
#[derive(Default)]
pub(crate) struct Ranks {
    order: Vec<u64>,
    /// Of each element: its bucket, and whether it stays.
    bucket: Vec<u16>,
    stays: Vec<bool>,
    /// Of each element, where no two magnitudes share a bucket.
    rank: Vec<u32>,
    /// Of each bucket: its elements, the ranks below it, and the bounds of its first and its last rank.
    counts: Vec<u32>,
    below: Vec<u32>,
    bounds: Vec<(u32, u32)>,
    /// Of each bucket in which ranks decide.
    open: Vec<Option<Open>>,
}

/// A bucket in which ranks decide.
#[derive(Clone, Copy, Default)]
struct Open {
    /// A magnitude that it has.
    magnitude: u32,
    /// Whether it has another.
    mixed: bool,
    /// How many have come.
    came: u32,
}

impl Probability {
    /// Of the element with `rank` (from 0) in a row of `len`. A row of one element, where the reference divides zero by
    /// zero, has the density.
    #[inline(always)]
    fn at(self, rank: usize, len: usize) -> f64 {
        if len < 2 {
            return self.density;
        }
        let share = rank as f32 / (len - 1) as f32;
        f64::from((self.density - self.epsilon) as f32 + share * 2.0 * self.epsilon as f32)
    }

    /// Zeroes the elements of a row whose draw is at or above their bound.
    ///
    /// Bounds grow with the rank, so most draws are on one side of all of a bucket's bounds, and no rank is needed; ranks are
    /// worked out in the buckets of the others.
    #[inline(always)]
    pub(super) fn mask(self, row: &mut [f32], draws: &[u32], ranks: &mut Ranks) {
        let len = row.len();
        if len < SHORT {
            ascending(row, &mut ranks.order);
            for (rank, at) in ranks.order.iter().map(|o| *o as u32 as usize).enumerate() {
                if draws[at] >= bound(self.at(rank, len)) {
                    row[at] = 0.0;
                }
            }
            return;
        }
        let top = row.iter().fold(0, |top, d| d.abs().to_bits().max(top)) >> SHIFT;
        let floor = top.saturating_sub(BUCKETS as u32 - 1);
        ranks.bucket.resize(len, 0);
        for (bucket, d) in ranks.bucket.iter_mut().zip(&*row) {
            *bucket = ((d.abs().to_bits() >> SHIFT).max(floor) - floor) as u16;
        }
        ranks.counts.clear();
        ranks.counts.resize(BUCKETS, 0);
        // The mask tells the compiler that no bucket lies outside.
        let inside = |bucket: u16| usize::from(bucket) & (BUCKETS - 1);
        ranks.bucket.iter().for_each(|bucket| ranks.counts[inside(*bucket)] += 1);
        ranks.below.resize(BUCKETS, 0);
        let mut below = 0;
        for (start, count) in ranks.below.iter_mut().zip(&ranks.counts) {
            *start = below;
            below += count;
        }
        // Of checkpoints in BF16 a bucket holds one magnitude: then equal ones rank by index, and what is zero may stay or go.
        let (mut lower, mut small) = (0, 0);
        for d in &*row {
            lower |= d.to_bits();
            let bits = d.abs().to_bits();
            small |= u32::from(bits != 0) & u32::from(bits >> SHIFT <= floor) & u32::from(floor > 0);
        }
        if lower & ((1 << SHIFT) - 1) == 0 && small == 0 {
            ranks.rank.resize(len, 0);
            for (rank, bucket) in ranks.rank.iter_mut().zip(&ranks.bucket) {
                let next = &mut ranks.below[inside(*bucket)];
                (*rank, *next) = (*next, *next + 1);
            }
            for ((d, rank), draw) in row.iter_mut().zip(&ranks.rank).zip(draws) {
                *d = if self.keeps(*rank, len, *draw) { *d } else { 0.0 };
            }
            return;
        }
        ranks.bounds.resize(BUCKETS, (0, 0));
        for ((count, start), bounds) in ranks.counts.iter().zip(&ranks.below).zip(&mut ranks.bounds) {
            if *count > 0 {
                *bounds = [*start, start + count - 1].map(|rank| bound(self.at(rank as usize, len))).into();
            }
        }
        ranks.stays.resize(len, false);
        ranks.open.clear();
        ranks.open.resize(BUCKETS, None);
        let mut open = false;
        for ((stays, bucket), draw) in ranks.stays.iter_mut().zip(&ranks.bucket).zip(draws) {
            let (first, last) = ranks.bounds[inside(*bucket)];
            *stays = *draw < last;
            if *stays & (*draw >= first) {
                (ranks.open[inside(*bucket)], open) = (Some(Open::default()), true);
            }
        }
        if open {
            self.rank(row, draws, ranks);
        }
        row.iter_mut().zip(&ranks.stays).for_each(|(d, stays)| *d = if *stays { *d } else { 0.0 });
    }

    /// Whether a draw is below the bound of a rank: `draw < bound(p)` without rounding the bound, in loops side by side.
    #[inline(always)]
    fn keeps(self, rank: u32, len: usize, draw: u32) -> bool {
        let share = rank as f32 / (len - 1) as f32;
        let p = (self.density - self.epsilon) as f32 + share * 2.0 * self.epsilon as f32;
        f64::from(draw) + 1.0 <= f64::from(p) * 4_294_967_296.0
    }

    /// Decides by rank in the buckets that are open.
    fn rank(self, row: &[f32], draws: &[u32], ranks: &mut Ranks) {
        let Ranks { order, bucket, stays, below, open, .. } = ranks;
        let magnitude = |at: usize| row[at].abs().to_bits();
        for (at, bucket) in bucket.iter().enumerate() {
            if let Some(open) = &mut open[usize::from(*bucket)] {
                if open.came == 0 {
                    (open.magnitude, open.came) = (magnitude(at), 1);
                }
                open.mixed |= open.magnitude != magnitude(at);
            }
        }
        open.iter_mut().flatten().for_each(|open| open.came = 0);
        order.clear();
        let stay = |rank: u32, at: usize| draws[at] < bound(self.at(rank as usize, row.len()));
        for (at, bucket) in bucket.iter().enumerate() {
            let Some(open) = &mut open[usize::from(*bucket)] else { continue };
            if open.mixed && magnitude(at) == 0 {
                // The lowest of all; what is zero may stay or go.
                open.came += 1;
            } else if open.mixed {
                order.push(u64::from(magnitude(at)) << 32 | at as u64);
            } else {
                // Equal ones rank by index.
                stays[at] = stay(below[usize::from(*bucket)] + open.came, at);
                open.came += 1;
            }
        }
        order.sort_unstable();
        for at in order.iter().map(|o| *o as u32 as usize) {
            let bucket = usize::from(bucket[at]);
            if let Some(open) = &mut open[bucket] {
                stays[at] = stay(below[bucket] + open.came, at);
                open.came += 1;
            }
        }
    }
}

fn ascending(row: &[f32], order: &mut Vec<u64>) {
    order.clear();
    // Magnitude above, index below: one integer to compare.
    order.extend(row.iter().zip(0u64..).map(|(d, i)| u64::from(d.abs().to_bits()) << 32 | i));
    order.sort_unstable();
}

/// Keep probabilities of a task vector with rows of length `row`, element by element.
#[must_use]
pub fn keep_probabilities(delta: &[f32], row: usize, density: f64, epsilon: f64) -> Vec<f32> {
    let mut out = vec![0.0; delta.len()];
    let mut order = Vec::new();
    for (delta, out) in delta.chunks(row.max(1)).zip(out.chunks_mut(row.max(1))) {
        ascending(delta, &mut order);
        for (rank, at) in order.iter().map(|o| *o as u32 as usize).enumerate() {
            out[at] = Probability { density, epsilon }.at(rank, delta.len()) as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn decisions_are_those_of_sorted_rows() {
        let wave = |i: usize| ((i * 7919) as f32 * 0.618).sin();
        type Row = Box<dyn Fn(usize) -> f32>;
        let rows: [(&str, Row); 6] = [
            ("many values", Box::new(wave)),
            ("few values, as of BF16", Box::new(move |i| (wave(i) * 4.0).round() * 2f32.powi(-9))),
            ("mostly zeros", Box::new(move |i| if i % 5 == 0 { wave(i) } else { 0.0 })),
            ("many binades", Box::new(move |i| wave(i) * 2f32.powi(-((i % 60) as i32)))),
            ("one value", Box::new(|_| -0.25)),
            ("zeros", Box::new(|_| 0.0)),
        ];
        let (mut ranks, mut order) = (Ranks::default(), Vec::new());
        for (name, value) in rows {
            for (len, density, epsilon) in [(255, 0.5, 0.15), (256, 0.5, 0.15), (2048, 0.3, 0.25), (3000, 0.9, 0.05)] {
                let row: Vec<f32> = (0..len).map(&value).collect();
                let mut draws = vec![0; len];
                Stream::new(3, name, len).fill(0, &mut draws);
                let probability = Probability { density, epsilon };
                let mut ours = row.clone();
                probability.mask(&mut ours, &draws, &mut ranks);
                let mut theirs = row.clone();
                ascending(&row, &mut order);
                for (rank, at) in order.iter().map(|o| *o as u32 as usize).enumerate() {
                    if draws[at] >= bound(probability.at(rank, len)) {
                        theirs[at] = 0.0;
                    }
                }
                assert!(ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}, {len}");
            }
        }
    }
}
