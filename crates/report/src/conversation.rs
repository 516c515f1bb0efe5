//! Episodes as the page's script wants them: messages in stretches of text, of which some are marked.

use crate::plain;
use rolegraft_trajectory::{Episode, Role, Turn};
use serde_json::{Value, json};
use std::ops::Range;

/// A stretch that is marked: where, how, and what is said of it.
type Mark = (Range<usize>, &'static str, String);

/// `[{"r": who speaks, "t": the turn's number, "p": stretches}]`; a stretch is a text, or a text with its mark ("v": a
/// violation, "s": a span) and what is said of it.
pub(crate) fn conversation(episode: &Episode) -> Value {
    let message = |(at, message): (usize, &rolegraft_trajectory::Message)| {
        let turn = episode.turns.iter().enumerate().find(|(_, t)| t.message == at);
        let role = if message.role == Role::Assistant { "model" } else { message.role.as_str() };
        let stretches = stretches(&message.content, turn.map_or_else(Vec::new, |(_, t)| marks(t)));
        match turn {
            Some((number, _)) => json!({"r": role, "t": number, "p": stretches}),
            None => json!({"r": role, "p": stretches}),
        }
    };
    episode.messages.iter().enumerate().map(message).collect()
}

/// Violations; where there are none, spans.
fn marks(turn: &Turn) -> Vec<Mark> {
    if turn.violations.is_empty() {
        return turn.spans.iter().map(|(role, range)| (range.clone(), "s", role.as_str().to_owned())).collect();
    }
    turn.violations
        .iter()
        .map(|v| (v.range.clone(), "v", plain(&format!("{}: {}", v.kind.as_str(), v.detail))))
        .collect()
}

/// Splits a text at its marks; of overlapping ones the first is kept.
fn stretches(text: &str, mut marks: Vec<Mark>) -> Vec<Value> {
    marks.sort_by_key(|(range, ..)| (range.start, range.end));
    let (mut out, mut at) = (Vec::new(), 0);
    let mut push = |stretch: Value, text: &str| (!text.is_empty()).then(|| out.push(stretch));
    for (range, kind, said) in marks {
        let (Some(before), Some(inside)) = (text.get(at..range.start), text.get(range.clone())) else { continue };
        push(json!(plain(before)), before);
        push(json!([plain(inside), kind, said]), inside);
        at = range.end;
    }
    let rest = text.get(at..).unwrap_or_default();
    push(json!(plain(rest)), rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_split_at_its_marks() {
        let mark = |range: Range<usize>| (range, "s", "action".to_owned());
        let split = stretches("a<b>&c\u{202e}", vec![mark(2..5), mark(3..4), mark(90..95)]);
        assert_eq!(json!(split), json!(["a<", ["b>&", "s", "action"], "c\\u{202e}"]));
    }
}
