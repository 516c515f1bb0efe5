//! What a model thinks before it speaks, and the calls that it only considers there.

use super::{Format, PayloadKind, Rule};
use crate::python_json;
use std::borrow::Cow;
use std::ops::Range;

/// Marks of reasoning that are looked at for a call around them; a reply with more is not a model's honest one.
const MAX_MARKS: usize = 16;

impl Format {
    /// Finds reasoning, and gives the reply with blanks in its place. Reasoning begins with its opening mark, or with the
    /// reply where only the closing one is there (the prompt opened it), and ends with the next closing mark, or with the
    /// reply. A mark inside a well-formed call is part of the call.
    pub(super) fn set_apart<'r>(&self, reply: &'r str) -> (Vec<Range<usize>>, Cow<'r, str>) {
        let (mut found, mut shown) = (Vec::new(), Cow::Borrowed(reply));
        let Some((open, close)) = self.reasoning.as_ref().filter(|(open, close)| !open.is_empty() && !close.is_empty())
        else {
            return (found, shown);
        };
        let all = |mark: &str| reply.match_indices(mark).map(|(at, _)| at).collect::<Vec<usize>>();
        let (opens, closes) = (all(open), all(close));
        let next = |marks: &[usize], from: usize| marks.get(marks.partition_point(|at| *at < from)).copied();
        let (mut at, mut looked_at) = (0, 0);
        while let Some(mark) = next(&opens, at).into_iter().chain(next(&closes, at)).min() {
            if looked_at < MAX_MARKS {
                let mut calls = self.calls(&shown[at..]).peekable();
                // Where no call is left, none is around a later mark.
                looked_at = if calls.peek().is_some() { looked_at + 1 } else { MAX_MARKS };
                if let Some(call) = calls.take_while(|c| at + c.start < mark).find(|c| mark < at + c.end) {
                    at += call.end;
                    continue;
                }
            }
            let thought = if next(&opens, at) == Some(mark) {
                mark..next(&closes, mark + open.len()).map_or(reply.len(), |end| end + close.len())
            } else if found.is_empty() {
                0..mark + close.len()
            } else {
                // Nobody opened it: a thought that went on after the last one, but not over a call.
                let after = self.calls(&shown[at..mark]).last().map_or(0, |call| call.end);
                at + after..mark + close.len()
            };
            shown.to_mut().replace_range(thought.clone(), &" ".repeat(thought.len()));
            at = thought.end;
            found.push(thought);
        }
        (found, shown)
    }

    /// Where well-formed calls stand in a text, by the first of the format's rules that finds any.
    fn calls<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
        let of = |rule: &'t Rule| {
            rule.pattern.captures_iter(text).filter_map(|found| {
                let whole = found.get(0)?;
                let payload = found.name("payload").unwrap_or(whole);
                python_json::loads(payload.as_str()).is_ok().then(|| payload.start()..whole.end())
            })
        };
        let rules = self.rules.iter().filter(|rule| rule.payload == PayloadKind::Json);
        rules
            .map(of)
            .find_map(|mut calls| calls.next().map(|first| std::iter::once(first).chain(calls)))
            .into_iter()
            .flatten()
    }

    /// How many calls a thought holds.
    pub(super) fn drafts(&self, thought: &str) -> usize {
        let Some((open, close)) = &self.reasoning else { return 0 };
        let inner = thought.strip_prefix(open.as_str()).unwrap_or(thought);
        self.calls(inner.strip_suffix(close.as_str()).unwrap_or(inner)).count()
    }
}
