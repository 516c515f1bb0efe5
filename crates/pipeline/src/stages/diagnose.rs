//! On which benchmarks a backbone lost what an expert has.

use crate::artefact::Document;
use rolegraft_graft::{Diagnosis, DiagnosisRules, Signal, diagnose as judge};
use rolegraft_report::{Benchmark, ModelScores, failure_rates};
use rolegraft_trajectory::Episode;
use serde::{Deserialize, Serialize};

/// Weak benchmarks, with the rules that called them so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosed {
    /// The rules.
    pub rules: DiagnosisRules,
    /// What was found.
    pub diagnosis: Diagnosis,
}

impl Document for Diagnosed {
    const KIND: &'static str = "diagnosis";
}

/// Episodes of the backbone and of the expert on one benchmark.
pub struct Compared {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The backbone's episodes on the dev split.
    pub backbone: Vec<Episode>,
    /// The expert's.
    pub expert: Vec<Episode>,
}

/// Compares scores and spans.
#[must_use]
pub fn diagnose(compared: &[Compared], rules: &DiagnosisRules) -> Diagnosed {
    let signals = compared.iter().map(|Compared { benchmark, backbone, expert }| {
        let score = |episodes: &[Episode]| ModelScores::new("", episodes).score(benchmark).unwrap_or(0.0);
        let (ours, theirs) = (failure_rates(backbone), failure_rates(expert));
        Signal {
            benchmark: benchmark.id.clone(),
            backbone: score(backbone),
            expert: score(expert),
            backbone_violations: ours.turn_violations,
            expert_violations: theirs.turn_violations,
            backbone_blocked: ours.blocked,
            expert_blocked: theirs.blocked,
        }
    });
    Diagnosed { rules: *rules, diagnosis: judge(signals.collect(), rules) }
}
