//! Counter-based draws for random masks: Philox4x32-7 (Salmon et al., SC 2011, the fastest of the family that passes
//! BigCrush), keyed by seed, tensor and expert, with the element's index as counter. Any element's draw can be made alone, so masks do not depend on threads or order.

use twox_hash::XxHash3_64;

/// A stream of draws for one tensor of one expert.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    key: [u32; 2],
}

/// Counters whose rounds run side by side.
const LANES: usize = 16;
/// Draws that [`Stream::fill`] makes at a time; blocks of elements start at multiples of it.
pub(crate) const DRAWS: usize = 4 * LANES;

impl Stream {
    pub(crate) fn new(seed: u64, tensor: &str, expert: usize) -> Self {
        let key = XxHash3_64::oneshot_with_seed(seed, format!("{expert}\0{tensor}").as_bytes());
        Self { key: [key as u32, (key >> 32) as u32] }
    }

    /// Draws of elements `start..start + out.len()`, uniform over all of u32.
    #[inline(always)]
    pub(crate) fn fill(self, start: u64, out: &mut [u32]) {
        let skip = (start % DRAWS as u64) as usize;
        let mut counter = start / DRAWS as u64;
        let mut out = out;
        if skip > 0 {
            let (head, rest) = out.split_at_mut((DRAWS - skip).min(out.len()));
            head.copy_from_slice(&self.draws(counter)[skip..skip + head.len()]);
            (out, counter) = (rest, counter + 1);
        }
        let (groups, tail) = out.as_chunks_mut::<DRAWS>();
        for group in groups {
            *group = self.draws(counter);
            counter += 1;
        }
        tail.copy_from_slice(&self.draws(counter)[..tail.len()]);
    }

    /// The draws of sixteen consecutive counters: word `w` of counter `c` is element `DRAWS·group + LANES·w + c`.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "lanes of four words run side by side")]
    fn draws(self, group: u64) -> [u32; DRAWS] {
        // Words live in the low halves of 64-bit lanes, so that a product's halves need no unpacking; what is left in
        // the high halves is never looked at.
        const LOW: u64 = 0xFFFF_FFFF;
        let first = group * LANES as u64;
        let mut x: [[u64; LANES]; 4] = [[0; LANES]; 4];
        for lane in 0..LANES {
            let counter = first + lane as u64;
            x[0][lane] = counter;
            x[1][lane] = counter >> 32;
        }
        let mut key = self.key;
        for _ in 0..7 {
            let [one, two] = key.map(u64::from);
            for lane in 0..LANES {
                let a = (x[0][lane] & LOW) * 0xD251_1F53;
                let b = (x[2][lane] & LOW) * 0xCD9E_8D57;
                x[0][lane] = (b >> 32) ^ x[1][lane] ^ one;
                x[1][lane] = b;
                x[2][lane] = (a >> 32) ^ x[3][lane] ^ two;
                x[3][lane] = a;
            }
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let mut out = [0; DRAWS];
        for (word, lanes) in x.iter().enumerate() {
            out[word * LANES..(word + 1) * LANES].iter_mut().zip(lanes).for_each(|(o, l)| *o = *l as u32);
        }
        out
    }
}

/// An element is kept with probability `p` < 1 where its draw is below this.
#[inline(always)]
pub(crate) fn bound(p: f64) -> u32 {
    (p.max(0.0) * 4_294_967_296.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_its_known_answers() {
        // Random123 kat_vectors, philox4x32 7: counter 0, key 0.
        let draws = Stream { key: [0, 0] }.draws(0);
        assert_eq!([draws[0], draws[16], draws[32], draws[48]], [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48]);
    }

    #[test]
    fn any_range_gives_the_same_draws() {
        let stream = Stream::new(7, "w", 2);
        let mut all = vec![0; 1000];
        stream.fill(0, &mut all);
        for (start, len) in [(0, 1), (5, 64), (63, 2), (64, 300), (999, 1)] {
            let mut part = vec![0; len];
            stream.fill(start as u64, &mut part);
            assert_eq!(part, all[start..start + len], "{start}");
        }
    }

    #[test]
    fn streams_are_uniform_and_apart() {
        let draw = |seed, tensor, expert| {
            let mut out = vec![0; 1 << 16];
            Stream::new(seed, tensor, expert).fill(0, &mut out);
            out
        };
        let a = draw(1, "a", 0);
        let mut cells = [0f64; 256];
        a.iter().for_each(|d| cells[(d >> 24) as usize] += 1.0);
        let chi: f64 = cells.iter().map(|c| (c - 256.0).powi(2) / 256.0).sum();
        assert!((150.0..380.0).contains(&chi), "{chi}");
        for other in [draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1)] {
            let agree = a.iter().zip(&other).filter(|(x, y)| (**x < 1 << 31) == (**y < 1 << 31)).count() as f64;
            assert!((agree - 32_768.0).abs() < 4.0 * 128.0, "{agree}");
        }
    }
}
