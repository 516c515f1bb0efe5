//! The answer in a sentence.

use crate::{Difference, Scoreboard};

/// How the result of a run compares with the best expert of each benchmark, and with its backbone.
#[must_use]
pub fn verdict(board: &Scoreboard, result: &str, backbone: &str) -> String {
    let played = board.model(result).and_then(|ours| {
        let avg = board.summary(ours)?.avg;
        let best = board.average_difference(ours, &|b| board.best_expert_on(b))?;
        let own = board.model(backbone);
        Some((avg, best, board.average_difference(ours, &|_| own)))
    });
    let name = result.to_uppercase();
    let Some((avg, best, own)) = played else {
        return format!(
            "{name} (backbone `{backbone}`) and an expert were not both played on every benchmark: there is no AVG to compare."
        );
    };
    let mut text = format!(
        "{name} (backbone `{backbone}`) scores AVG {avg:.1}, {} the best expert of each benchmark ({}): {}.",
        distance(&best),
        interval(&best),
        outcome(&best)
    );
    if let Some(own) = own {
        text += &format!(
            " Against its backbone it stands at {} points ({}): {}.",
            signed(own.points),
            interval(&own),
            outcome(&own)
        );
    }
    text
}

/// Which of several models leads, and whether by more than chance; of equals, the first.
#[must_use]
pub fn leader(board: &Scoreboard) -> String {
    let mut ranked: Vec<_> = board.models.iter().filter_map(|m| Some((m, board.summary(m)?.avg))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let Some((first, avg)) = ranked.first() else {
        return "No model was played on every suite: there is no average to compare.".into();
    };
    let (low, high) = board.average_interval(first);
    let mut text = format!("`{}` scores {avg:.1} on average (95 % {low:.1} to {high:.1})", first.name);
    if let Some((second, _)) = ranked.get(1)
        && let Some(lead) = board.average_difference(first, &|_| Some(second))
    {
        let name = &second.name;
        text += &format!(", {} `{name}` on the same tasks ({}): {}", distance(&lead), interval(&lead), outcome(&lead));
    }
    text + "."
}

fn distance(difference: &Difference) -> String {
    let side = if difference.points < 0.0 { "below" } else { "above" };
    format!("{:.1} {side}", difference.points.abs())
}

fn interval(difference: &Difference) -> String {
    format!("95 % {} to {}", signed(difference.low), signed(difference.high))
}

fn outcome(difference: &Difference) -> String {
    match difference.is_significant() {
        true if difference.points < 0.0 => "a significant loss".into(),
        true => "a significant gain".into(),
        false => format!(
            "no significant difference ({} tasks show one from {:.0} points on)",
            difference.tasks,
            difference.detectable()
        ),
    }
}

/// A number with its sign, the minus as long as the plus.
pub(crate) fn signed(points: f64) -> String {
    format!("{points:+.1}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Benchmark, ModelScores};

    fn board(arm: f64, backbone: f64, expert: f64) -> Scoreboard {
        let model = |name: &str, share: f64| {
            let rewards = (0..40).map(|i| (format!("t{i:02}"), vec![f64::from(u8::from(f64::from(i) < 40.0 * share))]));
            ModelScores { name: name.into(), rewards: [("os".into(), rewards.collect())].into() }
        };
        Scoreboard {
            benchmarks: vec![Benchmark { id: "os".into(), title: "OS".into(), suites: vec!["os".into()] }],
            models: vec![model("ties", backbone), model("expert", expert), model("arm", arm)],
            experts: vec!["expert".into()],
            seed: 1,
        }
    }

    #[test]
    fn a_verdict_says_what_the_interval_allows() {
        let loss = verdict(&board(0.5, 0.5, 0.9), "arm", "ties");
        assert!(loss.starts_with("ARM (backbone `ties`) scores AVG 50.0, 40.0 below the best expert"), "{loss}");
        assert!(loss.contains("): a significant loss.") && loss.contains("(95 % −"), "{loss}");
        assert!(
            loss.contains("at +0.0 points (95 % −4.7 to +4.7): no significant difference (40 tasks show one from 7 "),
            "{loss}"
        );
        let even = verdict(&board(0.525, 0.2, 0.5), "arm", "ties");
        assert!(
            even.contains("2.5 above the best expert of each benchmark (95 % ") && even.contains("): no significant"),
            "{even}"
        );
        assert!(even.ends_with("a significant gain."), "{even}");
        let mut without = board(0.5, 0.5, 0.5);
        without.models.remove(1);
        assert!(verdict(&without, "arm", "ties").ends_with("there is no AVG to compare."));
    }

    #[test]
    fn the_leader_is_the_first_of_the_best() {
        let board = board(0.5, 0.5, 0.9);
        let text = leader(&board);
        assert!(text.starts_with("`expert` scores 90.0 on average") && text.contains("40.0 above `ties`"), "{text}");
        assert_eq!(
            leader(&Scoreboard::default()),
            "No model was played on every suite: there is no average to compare."
        );
    }
}
