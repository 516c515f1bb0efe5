//! What an ablation varies, and what it found: the document `ablation.json`.

use crate::artefact::Document;
use crate::experiment::Tokens;
use rolegraft_graft::Protect;
use serde::{Deserialize, Serialize};

/// What is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Shares of a layer's neurons that are salient.
    pub k: Vec<f64>,
    /// Whose neurons are left alone.
    pub protect: Vec<Protect>,
    /// Which tokens are traced.
    pub tokens: Vec<Tokens>,
    /// By how many tokens role spans are moved.
    pub jitter: Vec<i32>,
    /// Shares of the calibration trajectories.
    pub calibration: Vec<f64>,
    /// Seeds: of the plays, from the experiment's on, and of the shares of trajectories.
    pub seeds: u64,
    /// Test tasks played a suite.
    pub tasks: usize,
}

/// A mean over benchmarks of scores, 0 to 100, with its 95 % interval over tasks and seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// AVG over the benchmarks that experts serve.
    pub avg: f64,
    /// Where its interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// A candidate of figure 3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidatePoint {
    /// Its name.
    pub name: String,
    /// Its overlap with the experts.
    pub aos: f64,
    /// The overlap's 95 % interval over trajectories.
    pub interval: Option<(f64, f64)>,
    /// What it scores.
    pub score: Score,
}

/// The experts' overlap at some tokens, of figure 4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Which tokens.
    pub tokens: Tokens,
    /// Per layer, the share of the union of the benchmarks' sets that at least two of them have.
    pub union: Vec<f64>,
    /// Per pair of benchmarks, the Jaccard overlap of each layer.
    pub pairs: Vec<(String, String, Vec<f64>)>,
}

/// A transplant of figure 5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// Whose neurons were left alone.
    pub protect: Protect,
    /// Share of a layer's neurons that are salient.
    pub k: f64,
    /// Neurons that were transplanted.
    pub neurons: usize,
    /// Neurons of the donors that protection removed.
    pub protected_away: usize,
    /// What the checkpoint scores.
    pub score: Score,
}

/// A pool of one expert, which is its own only candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OneExpert {
    /// Its name.
    pub expert: String,
    /// Its overlap with itself.
    pub aos: f64,
    /// Benchmarks called weak.
    pub weak: usize,
    /// Neurons that the plan takes.
    pub neurons: usize,
}

/// The loop by the neurons at some tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokensCheck {
    /// Which tokens.
    pub tokens: Tokens,
    /// The backbone that was chosen.
    pub backbone: String,
    /// Its overlap.
    pub aos: f64,
    /// Benchmarks called weak.
    pub weak: Vec<String>,
    /// Neurons that were transplanted.
    pub neurons: usize,
    /// What the result scores.
    pub score: Score,
}

/// Selection where something of the traces was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The backbone that was chosen.
    pub backbone: String,
    /// The overlap of each candidate, in the experiment's order.
    pub aos: Vec<f64>,
    /// Spearman's correlation of these with those of the unchanged traces; none where one side does not vary.
    pub rank: Option<f64>,
    /// Mean overlap of the experts' own sets with the unchanged ones.
    pub sets: f64,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// The experiment's name.
    pub experiment: String,
    /// What was varied.
    pub grid: Grid,
    /// The experiment's own settings: k, protection, tokens.
    pub settings: (f64, Protect, Tokens),
    /// Names of the candidates.
    pub candidates: Vec<String>,
    /// The backbone that the run chose.
    pub backbone: String,
    /// What it scores as it is.
    pub backbone_score: Score,
    /// Weak benchmarks with their gaps.
    pub weak: Vec<(String, f64)>,
    /// Figure 3.
    pub selection: Vec<CandidatePoint>,
    /// Figure 4.
    pub overlap: Vec<Overlap>,
    /// Figure 5.
    pub sweep: Vec<SweepPoint>,
    /// The first check.
    pub one_expert: Vec<OneExpert>,
    /// The second.
    pub tokens: Vec<TokensCheck>,
    /// The third: by tokens that spans were moved.
    pub jitter: Vec<(i32, Changed)>,
    /// The third: by share of the trajectories, and seed.
    pub calibration: Vec<(f64, u64, Changed)>,
}

impl Document for Ablation {
    const KIND: &'static str = "ablation";
}
