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

/// Compares scores and spans. A score is the mean over the benchmark's suites that both played.
#[must_use]
pub fn diagnose(compared: &[Compared], rules: &DiagnosisRules) -> Diagnosed {
    let signals = compared.iter().map(|Compared { benchmark, backbone, expert }| {
        let played = |episodes: &[Episode], suite: &String| episodes.iter().any(|e| e.key.suite == *suite);
        let mut common = benchmark.clone();
        common.suites.retain(|suite| played(backbone, suite) && played(expert, suite));
        let score = |episodes: &[Episode]| match common.suites.is_empty() {
            true => 0.0,
            false => ModelScores::new("", episodes).score(&common).unwrap_or(0.0),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_trajectory::{EpisodeKey, Spent, Status};

    fn episodes(suite: &str, reward: f64) -> Vec<Episode> {
        vec![Episode {
            key: EpisodeKey { suite: suite.into(), task: "1".into(), trial: 0 },
            status: Status::Completed,
            reward,
            messages: Vec::new(),
            turns: Vec::new(),
            detail: serde_json::Value::Null,
            spent: Spent::default(),
            others_spent: Spent::default(),
            seconds: 0.0,
        }]
    }

    #[test]
    fn a_suite_that_is_not_played_does_not_hide_a_gap() {
        let suites = vec!["retail".into(), "airline".into()];
        let benchmark = Benchmark { id: "tau".into(), title: "τ".into(), suites };
        let compared = Compared { benchmark, backbone: episodes("retail", 0.25), expert: episodes("retail", 0.75) };
        let found = diagnose(&[compared], &DiagnosisRules::default()).diagnosis;
        assert_eq!((found.signals[0].backbone, found.signals[0].expert), (25.0, 75.0));
        assert_eq!(found.weak, [("tau".to_owned(), 50.0)]);
    }
}
