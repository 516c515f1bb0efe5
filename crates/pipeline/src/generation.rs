//! What checkpoints say of how they want to be sampled.

use rolegraft_suites::Suite;
use serde_json::Value;
use std::path::Path;

/// Settings of `generation_config.json` that change what is sampled, and what they are where nothing is changed.
const SETTINGS: [(&str, f64); 9] = [
    ("temperature", 1.0),
    ("top_p", 1.0),
    ("top_k", 0.0),
    ("min_p", 0.0),
    ("typical_p", 1.0),
    ("repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("presence_penalty", 0.0),
    ("frequency_penalty", 0.0),
];

/// Where a checkpoint's own sampling is other than a suite's, which is what is played.
pub(crate) fn differs<'s>(name: &str, dir: &Path, suites: impl Iterator<Item = &'s dyn Suite>) -> Option<String> {
    let bytes = std::fs::read(dir.join("generation_config.json")).ok()?;
    let config: Value = serde_json::from_slice(&bytes).ok()?;
    // transformers samples only where `do_sample` says so.
    let greedy = !config["do_sample"].as_bool().unwrap_or(false);
    let mut others: Vec<String> = Vec::new();
    for suite in suites {
        let limits = suite.limits();
        let played = |setting: &str, neutral: f64| match setting {
            "temperature" => limits.temperature,
            "top_p" => limits.top_p,
            _ => neutral,
        };
        let own = |setting: &str| match setting {
            "temperature" if greedy => Some(0.0),
            "top_p" | "top_k" | "min_p" | "typical_p" if greedy => None,
            _ => config[setting].as_f64(),
        };
        let differ = SETTINGS.iter().filter_map(|(setting, neutral)| {
            let (own, played) = (own(setting)?, played(setting, *neutral));
            // transformers 4 wrote 50, its default, without anyone's wish; on a greedy suite a cut changes nothing.
            let cut = *setting != "temperature" && *setting != "repetition_penalty" && limits.temperature == 0.0;
            (own != played && !cut).then(|| format!("{setting} {own} (played: {played})"))
        });
        let differ: Vec<String> = differ.collect();
        if !differ.is_empty() {
            others.push(format!("{} {}", suite.id(), differ.join(", ")));
        }
    }
    // A file that says nothing of sampling wishes for nothing.
    let says = SETTINGS.iter().any(|(setting, _)| !config[*setting].is_null()) || config["do_sample"].is_boolean();
    (says && !others.is_empty()).then(|| {
        format!(
            "`generation_config.json` of `{name}` wants other sampling than the suites, whose own is played: {}",
            others.join("; ")
        )
    })
}
