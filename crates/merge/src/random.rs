//! Counter-based draws for random masks.

/// SplitMix64's finaliser.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A stream of draws for one tensor of one expert.
#[derive(Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64, tensor: &str, expert: usize) -> Self {
        let name = tensor.bytes().fold(mix(seed), |state, byte| mix(state ^ u64::from(byte)));
        Self(mix(name ^ mix(expert as u64)))
    }
    /// Draw number `element` in [0, 1).
    pub(crate) fn uniform(self, element: usize) -> f64 {
        (mix(self.0.wrapping_add((element as u64).wrapping_mul(0xD134_2543_DE82_EF95))) >> 11) as f64
            / (1u64 << 53) as f64
    }
}
