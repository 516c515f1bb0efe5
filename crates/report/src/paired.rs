//! The paired view: one task under two models, turns side by side, flagged spans marked.

use crate::table::html;
use rolegraft_trajectory::{Episode, EpisodeKey, Role};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The same task played by two models.
#[derive(Debug, Clone)]
pub struct PairedEpisode<'a> {
    /// Which.
    pub key: EpisodeKey,
    /// The first model's.
    pub left: &'a Episode,
    /// The second model's.
    pub right: &'a Episode,
    /// The first turn in which their replies differ.
    pub divergence: Option<usize>,
}

/// Pairs episodes by key: those whose rewards differ first, then in order.
#[must_use]
pub fn pair<'a>(left: &'a [Episode], right: &'a [Episode]) -> Vec<PairedEpisode<'a>> {
    let others: BTreeMap<&EpisodeKey, &Episode> = right.iter().map(|e| (&e.key, e)).collect();
    let mut pairs: Vec<PairedEpisode<'a>> = left
        .iter()
        .filter_map(|l| {
            let r = *others.get(&l.key)?;
            let (a, b): (Vec<_>, Vec<_>) = (l.replies().collect(), r.replies().collect());
            let divergence = (0..a.len().max(b.len())).find(|i| a.get(*i) != b.get(*i));
            Some(PairedEpisode { key: l.key.clone(), left: l, right: r, divergence })
        })
        .collect();
    pairs.sort_by(|a, b| (a.left.reward == a.right.reward, &a.key).cmp(&(b.left.reward == b.right.reward, &b.key)));
    pairs
}

/// The view as HTML: `shown` pairs, the first one open.
#[must_use]
pub fn paired_view(names: (&str, &str), pairs: &[PairedEpisode<'_>], shown: usize) -> String {
    let mut out = String::new();
    let differ = pairs.iter().filter(|p| p.left.reward != p.right.reward).count();
    let _ = writeln!(
        out,
        "<p>{} tasks under <b>{}</b> and <b>{}</b>; the outcome differs on {differ}, shown first. \
         <mark>Flagged</mark> text is a violation, <u>underlined</u> text a role span.</p>",
        pairs.len(),
        html(names.0),
        html(names.1)
    );
    for (i, pair) in pairs.iter().take(shown).enumerate() {
        let open = if i == 0 { " open" } else { "" };
        let divergence =
            pair.divergence.map_or("the replies are the same".into(), |d| format!("they part at turn {}", d + 1));
        let _ = write!(
            out,
            "<details{open}><summary>{} · {} · {:.0} → {:.0} · {divergence}</summary>\n<div class=\"pair\">",
            html(&pair.key.suite),
            html(&pair.key.task),
            100.0 * pair.left.reward,
            100.0 * pair.right.reward
        );
        for (name, episode) in [(names.0, pair.left), (names.1, pair.right)] {
            let _ = write!(out, "<div><h4>{} · {}</h4>", html(name), episode.status.as_str());
            conversation(&mut out, episode, pair.divergence);
            out.push_str("</div>");
        }
        out.push_str("</div></details>\n");
    }
    out
}

fn conversation(out: &mut String, episode: &Episode, divergence: Option<usize>) {
    for (index, message) in episode.messages.iter().enumerate() {
        let turn = episode.turns.iter().position(|t| t.message == index);
        let class = if turn.is_some() && turn == divergence { " first" } else { "" };
        let body = match turn.map(|t| &episode.turns[t]) {
            Some(turn) => {
                let flagged = turn.violations.iter().map(|v| {
                    (v.range.clone(), format!("<mark title=\"{}: {}\">", v.kind.as_str(), html(&v.detail)), "</mark>")
                });
                let spans = turn.spans.iter().map(|(_, range)| (range.clone(), "<u>".to_owned(), "</u>"));
                let ranges: Vec<_> = if turn.violations.is_empty() { spans.collect() } else { flagged.collect() };
                marked(&message.content, ranges)
            }
            None => html(&message.content),
        };
        let role = if message.role == Role::Assistant { "model" } else { message.role.as_str() };
        let _ = write!(
            out,
            "<div class=\"turn {}{class}\"><span>{role}</span><pre>{body}</pre></div>",
            message.role.as_str()
        );
    }
}

/// Wraps the first of overlapping ranges; the rest of the text is escaped.
fn marked(text: &str, mut ranges: Vec<(std::ops::Range<usize>, String, &str)>) -> String {
    ranges.sort_by_key(|(r, ..)| (r.start, r.end));
    let (mut out, mut at) = (String::new(), 0);
    for (range, open, close) in ranges {
        let (Some(before), Some(inside)) = (text.get(at..range.start), text.get(range.clone())) else { continue };
        let _ = write!(out, "{}{open}{}{close}", html(before), html(inside));
        at = range.end;
    }
    out + &html(text.get(at..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_wrapped_and_text_is_escaped() {
        let ranges = vec![
            (2..5, "<u>".to_owned(), "</u>"),
            (3..4, "<u>".to_owned(), "</u>"),
            (90..95, "<u>".to_owned(), "</u>"),
        ];
        assert_eq!(marked("a<b>&c", ranges), "a&lt;<u>b&gt;&amp;</u>c");
    }
}
