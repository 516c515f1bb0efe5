//! Tool calls of a chat API as text, and back.
//!
//! A trajectory is text; an endpoint with native tool calls answers in two parts, what it says and what it calls. Both
//! are written into one text, in the form that the reply format `native` reads: the content, then each call as
//! `<tool_call id="ID">`, `{"name": …, "arguments": …}` and `</tool_call>` on lines of their own. The arguments are the
//! endpoint's own characters, valid JSON or not, so nothing is lost on the way back; in an id, what would end it is
//! written as in XML.

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
/// What an id is written without, and how that is written; undone from the last to the first.
const ESCAPED: [(&str, &str); 3] = [("&", "&amp;"), ("\"", "&quot;"), ("\n", "&#10;")];

/// What an endpoint said and called, as one text.
#[must_use]
pub fn write(content: &str, calls: &[NativeCall]) -> String {
    let mut text = content.to_owned();
    for call in calls {
        if !text.is_empty() {
            text.push('\n');
        }
        let id = ESCAPED.iter().fold(call.id.clone(), |id, (raw, written)| id.replace(raw, written));
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
    let (mut content, mut calls, mut at) = (text, Vec::new(), 0);
    while let Some(start) = text[at..].find(OPEN).map(|start| at + start) {
        at = start + OPEN.len();
        // What only begins like a call is something said.
        let Some((call, after)) = one(&text[at..]) else { continue };
        if calls.is_empty() {
            content = text[..start].strip_suffix('\n').unwrap_or(&text[..start]);
        }
        calls.push(call);
        at = text.len() - after.len();
    }
    (content.to_owned(), calls)
}

fn one(text: &str) -> Option<(NativeCall, &str)> {
    let (id, rest) = text.split_once('"')?;
    let rest = rest.strip_prefix(">\n").filter(|_| !id.contains('\n'))?;
    let id = ESCAPED.iter().rev().fold(id.to_owned(), |id, (raw, written)| id.replace(written, raw));
    let (body, after) = rest.split_once(CLOSE)?;
    let inner = body.strip_prefix("{\"name\": ")?.strip_suffix('}')?;
    let mut names = serde_json::Deserializer::from_str(inner).into_iter::<String>();
    let name = names.next()?.ok()?;
    let arguments = inner[names.byte_offset()..].strip_prefix(", \"arguments\": ")?;
    Some((NativeCall { id, name, arguments: arguments.to_owned() }, after))
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
            ("", vec![call("\r\u{fffd}1\"9\n\0&quot;>&", "think", "{}"), call("\n", "think", "{}")]),
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

    #[test]
    fn what_only_begins_like_a_call_is_content() {
        for content in ["<tool_call id=\"1", "<tool_call id=\"1\">\n", "<tool_call id=\"1\n2\">\n"] {
            assert_eq!(read(content), (content.to_owned(), vec![]));
            let calls = vec![call("call_1", "think", "{}")];
            assert_eq!(read(&write(content, &calls)), (content.to_owned(), calls));
        }
    }
}
