//! Selection, diagnosis, planning.

use rolegraft_saliency::{NeuronSet, aos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A candidate backbone's salient sets, by benchmark.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name in the experiment file.
    pub name: String,
    /// Salient set per benchmark.
    pub sets: BTreeMap<String, NeuronSet>,
}

/// The AOS table and its winner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Benchmarks, in the order of the columns.
    pub benchmarks: Vec<String>,
    /// Per candidate: name, AOS per benchmark, and their mean.
    pub rows: Vec<(String, Vec<f64>, f64)>,
    /// The candidate of highest mean; ties go to the earlier.
    pub chosen: String,
}

/// AOS(M; b) = Jaccard overlap of the candidate's and the expert's salient sets; the mean over benchmarks decides.
/// `experts` holds, per benchmark, the set of the expert that serves it.
#[must_use]
pub fn select(candidates: &[Candidate], experts: &BTreeMap<String, NeuronSet>) -> Selection {
    let benchmarks: Vec<String> = experts.keys().cloned().collect();
    let empty = NeuronSet::default();
    let rows: Vec<(String, Vec<f64>, f64)> = candidates
        .iter()
        .map(|c| {
            let overlaps: Vec<f64> = experts.iter().map(|(b, set)| aos(c.sets.get(b).unwrap_or(&empty), set)).collect();
            let mean = overlaps.iter().sum::<f64>() / overlaps.len().max(1) as f64;
            (c.name.clone(), overlaps, mean)
        })
        .collect();
    let best = rows.iter().reduce(|a, b| if b.2 > a.2 { b } else { a });
    Selection { benchmarks, chosen: best.map(|r| r.0.clone()).unwrap_or_default(), rows }
}

/// What the dev split says of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// The benchmark.
    pub benchmark: String,
    /// The backbone's score, 0 to 100.
    pub backbone: f64,
    /// The expert's score.
    pub expert: f64,
    /// Share of the backbone's turns with a violation.
    pub backbone_violations: f64,
    /// The expert's.
    pub expert_violations: f64,
    /// Share of the backbone's episodes that a violation blocked.
    pub backbone_blocked: f64,
    /// The expert's.
    pub expert_blocked: f64,
}

/// What makes a benchmark weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The score gap alone: the paper's reading.
    Score,
    /// The gap, and more violations or blocked episodes than the expert has.
    Spans,
}

/// Rules of the diagnosis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiagnosisRules {
    /// Points the expert must be ahead.
    pub min_gap: f64,
    /// Most benchmarks called weak; the largest gaps first.
    pub max_weak: usize,
    /// What counts.
    pub evidence: Evidence,
}

impl Default for DiagnosisRules {
    fn default() -> Self {
        Self { min_gap: 0.0, max_weak: usize::MAX, evidence: Evidence::Score }
    }
}

/// Weak benchmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Every signal that was looked at.
    pub signals: Vec<Signal>,
    /// Weak benchmarks with their gaps, largest first.
    pub weak: Vec<(String, f64)>,
}

/// Finds the benchmarks on which the backbone lost what an expert has.
#[must_use]
pub fn diagnose(signals: Vec<Signal>, rules: &DiagnosisRules) -> Diagnosis {
    let weak = |s: &Signal| {
        let spans = s.backbone_violations > s.expert_violations || s.backbone_blocked > s.expert_blocked;
        s.expert - s.backbone > rules.min_gap && (rules.evidence == Evidence::Score || spans)
    };
    let mut found: Vec<(String, f64)> =
        signals.iter().filter(|s| weak(s)).map(|s| (s.benchmark.clone(), s.expert - s.backbone)).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.truncate(rules.max_weak);
    Diagnosis { signals, weak: found }
}

/// Whose neurons a graft must leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protect {
    /// Those of all other benchmarks (the paper's).
    Strict,
    /// Those of benchmarks that another expert serves.
    OtherDonors,
    /// None.
    None,
}

impl Protect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Strict, Self::OtherDonors, Self::None];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::OtherDonors => "other-donors",
            Self::None => "none",
        }
    }
}

/// A transplant for one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graft {
    /// The benchmark to repair.
    pub benchmark: String,
    /// The expert that gives.
    pub donor: String,
    /// What it gives: T_b = S(expert; b) \ P.
    pub neurons: NeuronSet,
    /// Neurons of the donor's set that protection removed, per layer.
    pub protected_away: Vec<usize>,
}

/// Transplants in the order in which they are applied.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Smallest gap first, so that the largest wins where two meet.
    pub grafts: Vec<Graft>,
    /// Neurons that more than one graft claims.
    pub contested: usize,
}

impl Plan {
    /// How many neurons are taken.
    #[must_use]
    pub fn neurons(&self) -> usize {
        self.grafts.iter().map(|graft| graft.neurons.len()).sum()
    }
    /// How many were wanted, but are protected.
    #[must_use]
    pub fn protected_away(&self) -> usize {
        self.grafts.iter().flat_map(|graft| &graft.protected_away).sum()
    }
}

/// Plans the repair of `weak` benchmarks (largest gap first, as [`diagnose`] gives them).
///
/// `backbone` holds the backbone's set per benchmark; `experts` the serving expert's name and set.
#[must_use]
pub fn plan(
    weak: &[(String, f64)],
    backbone: &BTreeMap<String, NeuronSet>,
    experts: &BTreeMap<String, (String, NeuronSet)>,
    protect: Protect,
) -> Plan {
    let mut grafts: Vec<Graft> = Vec::new();
    let mut contested = NeuronSet::default();
    for (benchmark, _) in weak.iter().rev() {
        let Some((donor, wanted)) = experts.get(benchmark) else { continue };
        let protected = backbone
            .iter()
            .filter(|(other, _)| match protect {
                Protect::Strict => *other != benchmark,
                Protect::OtherDonors => experts.get(*other).is_some_and(|(d, _)| d != donor),
                Protect::None => false,
            })
            .fold(NeuronSet::default(), |p, (_, set)| p.union(set));
        let neurons = wanted.difference(&protected);
        for earlier in &grafts {
            contested = contested.union(&earlier.neurons.intersection(&neurons));
        }
        let protected_away = wanted.intersection(&protected).layers.iter().map(|l| l.len()).collect();
        grafts.push(Graft { benchmark: benchmark.clone(), donor: donor.clone(), neurons, protected_away });
    }
    Plan { grafts, contested: contested.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(neurons: &[usize]) -> NeuronSet {
        NeuronSet { layers: vec![neurons.iter().copied().collect()] }
    }

    #[test]
    fn the_highest_overlap_wins_and_ties_go_to_the_earlier() {
        let experts = BTreeMap::from([("a".to_string(), set(&[1, 2])), ("b".to_string(), set(&[3, 4]))]);
        let candidate = |name: &str, a: &[usize], b: &[usize]| Candidate {
            name: name.into(),
            sets: BTreeMap::from([("a".to_string(), set(a)), ("b".to_string(), set(b))]),
        };
        let s = select(
            &[candidate("x", &[1, 9], &[3, 4]), candidate("y", &[1, 2], &[3, 4]), candidate("z", &[1, 2], &[3, 4])],
            &experts,
        );
        assert_eq!(s.chosen, "y");
        assert_eq!(s.rows[0].1, vec![1.0 / 3.0, 1.0]);
    }

    #[test]
    fn a_pool_of_one_expert_has_nothing_to_repair() {
        let signal = Signal {
            benchmark: "a".into(),
            backbone: 70.0,
            expert: 70.0,
            backbone_violations: 0.1,
            expert_violations: 0.1,
            backbone_blocked: 0.0,
            expert_blocked: 0.0,
        };
        let diagnosis = diagnose(vec![signal], &DiagnosisRules::default());
        assert!(diagnosis.weak.is_empty());
        assert_eq!(plan(&diagnosis.weak, &BTreeMap::new(), &BTreeMap::new(), Protect::Strict), Plan::default());
    }

    #[test]
    fn weak_benchmarks_come_by_gap_and_evidence_can_be_asked_for() {
        let signal = |benchmark: &str, backbone: f64, violations: f64| Signal {
            benchmark: benchmark.into(),
            backbone,
            expert: 80.0,
            backbone_violations: violations,
            expert_violations: 0.1,
            backbone_blocked: 0.0,
            expert_blocked: 0.0,
        };
        let signals = vec![signal("a", 70.0, 0.5), signal("b", 10.0, 0.0), signal("c", 90.0, 0.9)];
        let by = |evidence, max_weak| {
            let rules = DiagnosisRules { evidence, max_weak, ..DiagnosisRules::default() };
            diagnose(signals.clone(), &rules).weak.into_iter().map(|w| w.0).collect::<Vec<_>>()
        };
        assert_eq!(by(Evidence::Score, 9), ["b", "a"]);
        assert_eq!(by(Evidence::Score, 1), ["b"]);
        assert_eq!(by(Evidence::Spans, 9), ["a"]);
    }

    proptest! {
        #[test]
        fn grafts_never_touch_what_is_protected(
            a in prop::collection::btree_set(0usize..30, 0..15), b in prop::collection::btree_set(0usize..30, 0..15),
            wanted in prop::collection::btree_set(0usize..30, 0..15),
        ) {
            let one = |s: BTreeSet<usize>| NeuronSet { layers: vec![s] };
            let backbone = BTreeMap::from([("a".to_string(), one(a)), ("b".to_string(), one(b.clone()))]);
            let experts = BTreeMap::from([("a".to_string(), ("x".to_string(), one(wanted.clone())))]);
            let plan = plan(&[("a".into(), 1.0)], &backbone, &experts, Protect::Strict);
            let graft = &plan.grafts[0];
            prop_assert!(graft.neurons.intersection(&one(b)).is_empty());
            prop_assert_eq!(graft.neurons.len() + graft.protected_away.iter().sum::<usize>(), wanted.len());
        }
    }
}
