//! Sentence BLEU as AgentBench matches commands: NLTK's with up to four words and smoothing method 4.

use std::collections::HashMap;

const ORDER: usize = 4;

fn counts<'w>(words: &'w [&'w str], n: usize) -> HashMap<&'w [&'w str], usize> {
    let mut counts = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// How near a text is to a reference, between 0 and 1.
#[must_use]
pub fn bleu(reference: &str, hypothesis: &str) -> f64 {
    let reference: Vec<&str> = reference.split_whitespace().collect();
    let hypothesis: Vec<&str> = hypothesis.split_whitespace().collect();
    let length = hypothesis.len();
    let mut sum = 0.0;
    let mut zeros = 1;
    for n in 1..=ORDER {
        let (known, said) = (counts(&reference, n), counts(&hypothesis, n));
        let matched: usize = said.iter().map(|(gram, count)| (*count).min(known.get(gram).copied().unwrap_or(0))).sum();
        let of = (length + 1).saturating_sub(n).max(1) as f64;
        if matched == 0 && n == 1 {
            return 0.0;
        }
        let precision = match matched {
            0 if length > 1 => {
                let smoothed = 1.0 / (2_f64.powi(zeros) * 5.0 / (length as f64).ln());
                zeros += 1;
                smoothed / of
            }
            0 => continue,
            matched => matched as f64 / of,
        };
        sum += 0.25 * precision.ln();
    }
    let shorter = if length > reference.len() { 1.0 } else { (1.0 - reference.len() as f64 / length as f64).exp() };
    shorter * sum.exp()
}
