//! Tool calls of a chat API as text, and back.
//!
//! A trajectory is text; an endpoint with native tool calls answers in two parts, what it says and what it calls. Both
//! are written into one text, in the form that the reply format `native` reads: the content, then each call as
//! `<tool_call id="ID">`, `{"name": …, "arguments": …}` and `</tool_call>` on lines of their own. The arguments are the
//! endpoint's own characters, valid JSON or not, so nothing is lost on the way back.

use serde_json::Value;

/// One call as an endpoint made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeCall {
    /// The endpoint's id of it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments, verbatim.
    pub arguments: String,
}

const OPEN: &str = "<tool_call id=\"";
const CLOSE: &str = "\n</tool_call>";

/// What an endpoint said and called, as one text.
#[must_use]
pub fn write(content: &str, calls: &[NativeCall]) -> String {
    let mut text = content.to_owned();
    for call in calls {
        if !text.is_empty() {
            text.push('\n');
        }
        let id: String = call.id.chars().filter(|c| !matches!(c, '"' | '\n')).collect();
        let name = Value::String(call.name.clone());
        text += &format!("{OPEN}{id}\">\n{{\"name\": {name}, \"arguments\": {}}}{CLOSE}", call.arguments);
    }
    text
}

/// What a model wrote whose server took the calls out of its text, as far as that can be known: in the markup that servers
/// read unasked (Hermes').
#[must_use]
pub fn written_back(content: &str, calls: &[NativeCall]) -> String {
    let mut text = content.to_owned();
    for call in calls {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let (name, arguments) = (Value::String(call.name.clone()), &call.arguments);
        text += &format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}{CLOSE}");
    }
    text
}

/// The content and the calls of a text that [`write`] made.
#[must_use]
pub fn read(text: &str) -> (String, Vec<NativeCall>) {
    let (mut content, mut calls, mut rest) = (String::new(), Vec::new(), text);
    while let Some(start) = rest.find(OPEN) {
        let Some((call, after)) = one(&rest[start + OPEN.len()..]) else { break };
        if calls.is_empty() {
            let said = &rest[..start];
            content.push_str(said.strip_suffix('\n').unwrap_or(said));
        }
        calls.push(call);
        rest = after;
    }
    if calls.is_empty() {
        content.push_str(text);
    }
    (content, calls)
}

fn one(text: &str) -> Option<(NativeCall, &str)> {
    let (id, rest) = text.split_once("\">\n")?;
    let (body, after) = rest.split_once(CLOSE)?;
    let inner = body.strip_prefix("{\"name\": ")?.strip_suffix('}')?;
    let mut names = serde_json::Deserializer::from_str(inner).into_iter::<String>();
    let name = names.next()?.ok()?;
    let arguments = inner[names.byte_offset()..].strip_prefix(", \"arguments\": ")?;
    Some((NativeCall { id: id.to_owned(), name, arguments: arguments.to_owned() }, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_spans::{Format, ViolationKind};

    fn call(id: &str, name: &str, arguments: &str) -> NativeCall {
        NativeCall { id: id.into(), name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn calls_come_back_as_they_were_and_the_format_reads_them() {
        let format = Format::builtin("native").unwrap();
        let good = call("call_1", "get_order_details", "{\"order_id\": \"#W1\"}");
        for (content, calls) in [
            ("", vec![good.clone()]),
            ("Let me\nsee.", vec![good.clone(), call("call_2", "think", "{}")]),
            ("a <tool_call> in words", vec![]),
            ("", vec![call("", "a\"b", "{broken")]),
            ("", vec![call("x", "think", "")]),
        ] {
            let text = write(content, &calls);
            assert_eq!(read(&text), (content.to_owned(), calls.clone()), "{text}");
            let reading = format.read(&text, None);
            assert_eq!(reading.spans.len(), usize::from(!calls.is_empty()), "{text}");
            let kinds: Vec<_> = reading.violations().map(|v| v.kind).collect();
            let broken = calls.first().is_some_and(|c| serde_json::from_str::<Value>(&c.arguments).is_err());
            assert_eq!(kinds.contains(&ViolationKind::InvalidJson), broken, "{text}");
            assert_eq!(kinds.contains(&ViolationKind::Multiple), calls.len() > 1, "{text}");
            assert_eq!(kinds.contains(&ViolationKind::Prose), !calls.is_empty() && !content.is_empty(), "{text}");
        }
    }
}
