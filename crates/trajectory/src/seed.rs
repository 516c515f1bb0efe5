//! Randomness by key: every draw is a pure function of what it is for.
//!
//! Nothing in an episode depends on which thread, endpoint or hour it ran in, because each number is drawn from a
//! [`Key`] that names the run seed, suite, task, trial and turn, and a counter.

use serde::{Deserialize, Serialize};

/// The run's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seed(pub u64);

/// A point in the space of random streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// SplitMix64's finaliser: a bijection of 64 bits (Steele, Lea, Flood 2014).
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Key {
    /// The root stream of a run.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self(mix(seed.0))
    }
    /// The stream below this one that `name` names.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        let mut state = mix(self.0 ^ name.len() as u64);
        for chunk in name.as_bytes().chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            state = mix(state ^ u64::from_le_bytes(word));
        }
        Self(state)
    }
    /// The stream below this one with number `index`.
    #[must_use]
    pub fn index(self, index: u64) -> Self {
        Self(mix(self.0 ^ mix(index)))
    }
    /// Draw number `counter` as 64 bits.
    #[must_use]
    pub fn bits(self, counter: u64) -> u64 {
        mix(self.0.wrapping_add(counter.wrapping_mul(0xD134_2543_DE82_EF95)))
    }
    /// Draw number `counter` in [0, 1), with 53 bits.
    #[must_use]
    pub fn uniform(self, counter: u64) -> f64 {
        (self.bits(counter) >> 11) as f64 / (1u64 << 53) as f64
    }
    /// A generator that walks this stream.
    #[must_use]
    pub fn rng(self) -> Rng {
        Rng { key: self, counter: 0 }
    }
}

/// A [`Key`] with its counter: sequential draws.
#[derive(Debug, Clone)]
pub struct Rng {
    key: Key,
    counter: u64,
}

impl Rng {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.counter += 1;
        self.key.bits(self.counter - 1)
    }
    /// The next number in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }
    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }
    /// One of `items`.
    ///
    /// # Panics
    /// If `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
    /// A standard normal draw (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
    /// Fisher–Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_apart_and_repeat() {
        let root = Key::new(Seed(7));
        assert_eq!(root.child("os").index(3).bits(5), Key::new(Seed(7)).child("os").index(3).bits(5));
        let draws = [root.child("os").bits(0), root.child("tau").bits(0), root.index(0).bits(0), root.index(1).bits(0)];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b));
        }
        let mut rng = root.rng();
        let mean = (0..10_000).map(|_| rng.uniform()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
