//! What a run found, for the card of the model that it made: a section of Markdown, and `model-index` as the Hub reads it
//! (huggingface/huggingface_hub@1.0.0:src/huggingface_hub/repocard_data.py).

use crate::Scoreboard;
use serde_json::json;

/// Additions to a model card.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CardScores {
    /// Lines of its front matter: YAML.
    pub index: String,
    /// A section.
    pub text: String,
}

/// The scores of one of a board's models; `digests` are of files of the run that hold the tables.
#[must_use]
pub fn card_scores(board: &Scoreboard, model: &str, digests: &[(String, String)]) -> CardScores {
    let Some(scores) = board.model(model) else { return CardScores::default() };
    let mut text =
        String::from("## Scores\n\n| benchmark | score | 95 % | tasks | best expert |\n|---|--:|--:|--:|--:|\n");
    let (mut results, mut tasks) = (Vec::new(), 0);
    for (benchmark, best) in board.benchmarks.iter().zip(board.best_expert()) {
        let Some((score, (low, high))) = scores.score(benchmark).zip(board.interval(scores, benchmark)) else {
            continue;
        };
        let of = scores.tasks(benchmark);
        tasks += of;
        text += &format!("| {} | {score:.1} | {low:.1} to {high:.1} | {of} | {best:.1} |\n", benchmark.title);
        results.push(result(
            &benchmark.id,
            &benchmark.title,
            &[("mean reward", score), ("95 % low", low), ("95 % high", high)],
        ));
    }
    if let Some(summary) = board.summary(scores).filter(|_| board.benchmarks.len() > 1) {
        let (low, high) = board.average_interval(scores);
        text += &format!("| AVG | {:.1} | {low:.1} to {high:.1} | {tasks} | |\n", summary.avg);
        text += &format!("\nWorst benchmark {:.1}, relative harmonic mean {:.3}.", summary.ws, summary.rhm);
        let all =
            [("mean reward", summary.avg), ("95 % low", low), ("95 % high", high), ("worst benchmark", summary.ws)];
        results.push(result("average", "average of the benchmarks", &all));
    }
    text += " Played by rolegraft on its test tasks; rewards in per cent, intervals by Wilson for rewards of 0 and 1, else by BCa over tasks.\n";
    if !digests.is_empty() {
        text += "\n| table | SHA-256 |\n|---|---|\n";
        digests.iter().for_each(|(name, digest)| text += &format!("| {name} | `{digest}` |\n"));
    }
    // JSON is YAML.
    let index = json!([{"name": model, "results": results}]);
    CardScores { index: format!("model-index: {index}\n"), text }
}

fn result(id: &str, title: &str, metrics: &[(&str, f64)]) -> serde_json::Value {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let metric = |(name, value): &(&str, f64)| json!({"type": "reward", "name": name, "value": rounded(*value)});
    json!({
        "task": {"type": "text-generation", "name": "multi-turn agent tasks"},
        "dataset": {"type": format!("rolegraft/{id}"), "name": title, "split": "test"},
        "metrics": metrics.iter().map(metric).collect::<Vec<_>>(),
    })
}

/// A card with these additions, in place of those that it has.
#[must_use]
pub fn with_scores(card: &str, scores: &CardScores) -> String {
    let without = card.split("\n## Scores\n").next().unwrap_or_default().trim_end();
    let kept = without.lines().filter(|line| !line.starts_with("model-index:")).collect::<Vec<_>>().join("\n");
    let (front, body) = match kept.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---")) {
        Some((front, body)) => (format!("{front}\n"), body.to_owned()),
        None => (String::new(), format!("\n{kept}")),
    };
    format!("---\n{front}{}---{body}\n\n{}", scores.index, scores.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_go_into_a_card_once() {
        let scores = CardScores { index: "model-index: []\n".into(), text: "## Scores\n\nfine\n".into() };
        let card = "---\ntags:\n- merge\n---\n# Merged model\n\n## Recipe\n\nx\n";
        let once = with_scores(card, &scores);
        assert_eq!(
            once,
            "---\ntags:\n- merge\nmodel-index: []\n---\n# Merged model\n\n## Recipe\n\nx\n\n## Scores\n\nfine\n"
        );
        assert_eq!(with_scores(&once, &scores), once);
        assert_eq!(with_scores("plain", &scores), "---\nmodel-index: []\n---\nplain\n\n## Scores\n\nfine\n");
    }
}
