//! Made-up entities (words, names, ids), disjoint between splits by construction.
//!
//! An entity belongs to the split whose range holds its bucket, a hash of its text. No lists are kept, and no entity
//! of the test split can have been seen in training.

use md5::{Digest, Md5};
use rolegraft_trajectory::Rng;

/// Which tasks an entity may appear in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Training of the pool.
    Train,
    /// Trajectories for tracing.
    Calibration,
    /// Diagnosis of weak benchmarks.
    Dev,
    /// The figures in the tables.
    Test,
}

impl Split {
    /// The splits that become task files, in the order of use.
    pub const PLAYED: [Self; 3] = [Self::Calibration, Self::Dev, Self::Test];

    /// The name used in file names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Calibration => "calibration",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
    fn holds(self, entity: &str) -> bool {
        let digest = Md5::digest(entity.as_bytes());
        let bucket = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % 100;
        match self {
            Self::Train => bucket < 80,
            Self::Calibration => (80..86).contains(&bucket),
            Self::Dev => (86..93).contains(&bucket),
            Self::Test => bucket >= 93,
        }
    }
}

/// A source of entities of one split.
pub struct Entities<'a> {
    /// The split that every entity belongs to.
    pub split: Split,
    /// Where the draws come from.
    pub rng: &'a mut Rng,
}

const ONSETS: [&str; 18] =
    ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "tr", "st", "ch"];
const VOWELS: [&str; 7] = ["a", "e", "i", "o", "u", "ai", "ea"];
const CODAS: [&str; 8] = ["", "", "", "n", "r", "l", "s", "m"];
const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";

impl Entities<'_> {
    fn draw(&mut self, mut make: impl FnMut(&mut Rng) -> String) -> String {
        loop {
            let entity = make(self.rng);
            if self.split.holds(&entity) {
                return entity;
            }
        }
    }
    /// Two syllables in lower case.
    pub fn word(&mut self) -> String {
        self.draw(|rng| {
            (0..2).map(|_| format!("{}{}{}", rng.pick(&ONSETS), rng.pick(&VOWELS), rng.pick(&CODAS))).collect()
        })
    }
    /// A capitalised [`Self::word`].
    pub fn name(&mut self) -> String {
        let word = self.word();
        word[..1].to_uppercase() + &word[1..]
    }
    /// `digits` decimal digits, the first not zero.
    pub fn number(&mut self, digits: u32) -> String {
        self.draw(|rng| (10usize.pow(digits - 1) + rng.below(9 * 10usize.pow(digits - 1))).to_string())
    }
    /// Two letters and two digits: a reservation.
    pub fn reservation(&mut self) -> String {
        self.draw(|rng| format!("{}{}{}", *rng.pick(LETTERS) as char, *rng.pick(LETTERS) as char, 10 + rng.below(90)))
    }
    /// A payment method id.
    pub fn payment(&mut self) -> String {
        let kind = *self.rng.pick(&["gift_card", "credit_card", "paypal"]);
        format!("{kind}_{}", self.number(4))
    }
    /// A user id: a word and two digits.
    pub fn user_id(&mut self) -> String {
        format!("{}_{}", self.word(), 10 + self.rng.below(90))
    }
}
