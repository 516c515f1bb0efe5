//! Intervals and tests beside what scipy and statsmodels say (`tests/peers/intervals.py` records it).
#![allow(missing_docs)]

use rolegraft_report::{Stratum, holm, mcnemar, newcombe, of_means, permutation, wilson};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn near(ours: &[f64], theirs: &Value, most: f64, what: &Value) {
    let theirs = numbers(theirs);
    assert!(
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= most),
        "{what}: {ours:?} against {theirs:?}"
    );
}

#[test]
fn they_agree_with_scipy_and_statsmodels() {
    let recorded: Value = serde_json::from_str(include_str!("statistics.json")).unwrap();
    let cases = |kind: &str| recorded[kind].as_array().filter(|cases| cases.len() > 2).unwrap().clone();
    let count = |value: &Value| value.as_u64().unwrap() as usize;
    for case in cases("wilson") {
        let (low, high) = wilson(case["successes"].as_f64().unwrap(), count(&case["n"]));
        near(&[low, high], &case["interval"], 1e-9, &case);
    }
    for case in cases("newcombe") {
        let counts: Vec<usize> = case["counts"].as_array().unwrap().iter().map(count).collect();
        let (low, high) = newcombe(counts.try_into().unwrap());
        near(&[low, high], &case["interval"], 1e-9, &case);
    }
    for case in cases("mcnemar") {
        let p = mcnemar(count(&case["wins"]), count(&case["losses"]));
        assert!((p - case["p"].as_f64().unwrap()).abs() < 1e-9, "{case}: {p}");
    }
    for case in cases("holm") {
        near(&holm(&numbers(&case["p"])), &case["adjusted"], 1e-12, &case);
    }
    for case in cases("permutation") {
        let p = permutation(&[(1.0, numbers(&case["differences"]))], 1);
        assert!((p - case["p"].as_f64().unwrap()).abs() < 1e-9, "{case}: {p}");
    }
    for case in cases("bca") {
        let suites = case["suites"].as_array().unwrap();
        let weight = 1.0 / suites.len() as f64;
        let suites: Vec<Stratum<f64>> = suites.iter().map(|suite| (weight, numbers(suite))).collect();
        let (low, high) = of_means(&suites, false, 1).unwrap();
        // Of other resamples.
        near(&[low, high], &case["interval"], 0.012, &case);
    }
}
