//! What a server means by an answer that is no reply.
//!
//! Servers agree on status codes and on little else; what is told here from the words of a body is what vLLM, SGLang,
//! llama.cpp, `transformers serve`, TGI and the public APIs say (endpoints' own sources and reports of 2026).

use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

/// Why there is no reply, and so what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The prompt does not fit the model.
    Overflow,
    /// The prompt fits, the tokens asked for behind it do not: only so many, where the server says it.
    TooManyAsked(Option<u64>),
    /// A content filter.
    Filtered,
    /// This field of the request.
    Field(String),
    /// Reasoning of earlier turns has to be sent back.
    WantsReasoning,
    /// Too many requests.
    Slow,
    /// The server failed at this very request, or altogether.
    Broken,
    /// Something that may pass.
    Passing,
    /// Not by this key, or not at all.
    Forbidden,
    /// Nothing that another try would mend.
    Final,
}

fn regex(pattern: &str) -> Regex {
    // Patterns are constants, each used in a test.
    Regex::new(pattern).unwrap_or_else(|e| unreachable!("{e}"))
}

static FILTER: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)content[ _-]?(filter|policy|management|moderation|violation)|responsibleaipolicy",
        r"|data_inspection_failed|prohibited_content|safety (system|filter|polic)|flagged (as|by|for)|violates? .{0,40}polic"
    ))
});
static CONTEXT: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)context[ _](length|size|window|limit)|maximum context|too many tokens|prompt is too long|reduce the length",
        r"|(input|prompt) .{0,60}(longer than|too large for|exceeds)|exceeds the (available|maximum) .{0,40}(tokens|context)",
        r"|fewer output tokens|max_tokens must be at least 1, got 0|max_new_tokens.{0,3} must be <=|`?inputs`? must have less than"
    ))
});
/// Numbers that say how long a context may be.
static LIMIT: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    [
        regex(concat!(
            r"(?i)(?:maximum )?context (?:length|window|size)(?: is| of| limit)*(?: only)? \(?(\d+)|n_ctx\D{1,4}(\d+)",
            r"|max_model_len=(\d+)|must be <= (\d+)|less than (\d+) tokens|with (\d+) maximum|number of tokens allowed \((\d+)"
        )),
        regex(r"> (\d+)(?: maximum| -|\b)"),
    ]
});
/// Numbers that say how long a prompt is.
static PROMPT: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)(\d+)(?: tokens)? (?:in|from) the (?:input |text )*(?:messages|prompt|input)|(?:has|at least|contains) (\d+) (?:input )?tokens",
        r"|prompt is too long: (\d+)|given: (\d+)|input \((\d+) tokens|n_prompt_tokens\D{1,4}(\d+)",
        r"|exceed context limit: (\d+)|token count \((\d+)\)|request \((\d+) tokens"
    ))
});
/// Words for the tokens that are to be written.
static ASKED: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)max_(new_|completion_)?tokens|output tokens|(in|for) the completion"));
static COMPLAINT: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)\b(un(supported|recogni[sz]ed|known|expected|support)|invalid|extra|forbidden|deprecated|cannot (both )?be|only one of)\b",
        r"|\bnot (\w+ )?(support|permitted|allowed|accepted|available)"
    ))
});
static REASONING: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)reasoning(_content)?\W.{0,80}passed back"));

fn number(regex: &Regex, body: &str) -> Option<u64> {
    regex.captures(body)?.iter().skip(1).flatten().find_map(|m| m.as_str().parse().ok())
}

/// What an answer of this status and body means for a request with these fields, the question itself aside. `asked`: its
/// limit of new tokens.
pub(crate) fn refusal(status: u16, body: &str, fields: &[String], asked: u64) -> Refusal {
    match status {
        429 => return Refusal::Slow,
        451 => return Refusal::Filtered,
        _ => {}
    }
    if matches!(status, 200 | 400 | 403 | 413 | 422 | 500) {
        if CONTEXT.is_match(body) {
            return context(body, asked);
        }
        if FILTER.is_match(body) {
            return Refusal::Filtered;
        }
    }
    match status {
        400 | 422 if REASONING.is_match(body) => Refusal::WantsReasoning,
        400 | 422 => field(body, fields).map_or(Refusal::Final, Refusal::Field),
        401 | 403 => Refusal::Forbidden,
        500 => Refusal::Broken,
        // 200: an error in the place of a reply.
        200 | 408 | 425 | 501.. => Refusal::Passing,
        _ => Refusal::Final,
    }
}

/// Whether it is the prompt that does not fit, or what is asked for behind it.
fn context(body: &str, asked: u64) -> Refusal {
    let limit = LIMIT.iter().find_map(|regex| number(regex, body));
    match (limit, number(&PROMPT, body)) {
        (Some(limit), Some(prompt)) if prompt >= limit => Refusal::Overflow,
        (Some(limit), Some(prompt)) if prompt + asked > limit => Refusal::TooManyAsked(Some(limit - prompt)),
        (Some(limit), None) if asked > limit => Refusal::TooManyAsked(Some(limit)),
        // vLLM, of a prompt that fills the context exactly.
        _ if body.contains("at least 1, got 0") => Refusal::Overflow,
        _ if ASKED.is_match(body) && asked > 1 => Refusal::TooManyAsked(None),
        _ => Refusal::Overflow,
    }
}

/// The field of ours that is complained of.
fn field(body: &str, fields: &[String]) -> Option<String> {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let error = if json["error"].is_object() { &json["error"] } else { &json };
    let ours = |name: &str| fields.iter().find(|field| *field == name).cloned();
    if let Some(name) = error["param"].as_str().and_then(ours) {
        return Some(name);
    }
    // As pydantic lists them: the place of each error ends with the field.
    let listed = json["detail"].as_array().into_iter().flatten();
    let mut places =
        listed.filter_map(|error| error["loc"].as_array()?.iter().rev().find_map(|part| ours(part.as_str()?)));
    if let Some(name) = places.next() {
        return Some(name);
    }
    let text = error["message"].as_str().or(json["detail"].as_str()).unwrap_or(body);
    if !COMPLAINT.is_match(text) {
        return None;
    }
    let mut named: Vec<String> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter_map(ours).collect();
    // Of two that exclude each other, the one that says less goes.
    let at =
        named.iter().position(|name| name == "top_p").filter(|_| text.contains("both") || text.contains("only one"));
    (!named.is_empty()).then(|| named.swap_remove(at.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Vec<String> {
        ["max_tokens", "temperature", "top_p", "seed", "return_token_ids"].map(str::to_owned).into()
    }

    #[test]
    fn context_limits_tell_the_prompt_from_what_is_asked() {
        use Refusal::{Overflow, TooManyAsked};
        for (status, body, expected) in [
            (
                400,
                "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8100 in the messages, \
                   900 in the completion). Please reduce the length of the messages or completion.",
                TooManyAsked(Some(92)),
            ),
            (
                400,
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. Please \
                   reduce the length of the messages.",
                Overflow,
            ),
            (
                400,
                "'max_tokens' or 'max_completion_tokens' is too large: 900. This model's maximum context length is 1000 tokens \
                   and your request has 300 input tokens (900 > 1000 - 300).",
                TooManyAsked(Some(700)),
            ),
            (
                400,
                "maximum context length is 1000 tokens, however you requested 900 output tokens and your prompt contains at \
                   least 300 input tokens",
                TooManyAsked(Some(700)),
            ),
            (
                400,
                "This model's maximum context length is 1000 tokens. However, your request has 3000 input tokens.",
                Overflow,
            ),
            (
                400,
                "max_tokens=900 cannot be greater than max_model_len=800. Please request fewer output tokens. (parameter=max_tokens)",
                TooManyAsked(Some(800)),
            ),
            (400, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", Overflow),
            (
                400,
                "Please reduce the length of the messages or completion: max_tokens is too large",
                TooManyAsked(None),
            ),
            (
                400,
                r#"{"error":{"message":"the request exceeds the available context size, try increasing it","n_prompt_tokens":5000,"n_ctx":4096}}"#,
                Overflow,
            ),
            (500, "Context size has been exceeded.", Overflow),
            (
                400,
                "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total of 2900 \
                   tokens: 2000 tokens from the input messages and 900 tokens for the completion.",
                TooManyAsked(Some(48)),
            ),
            (400, "The input (3000 tokens) is longer than the model's context length (2048 tokens).", Overflow),
            (413, "prompt is too long: 200001 tokens > 200000 maximum", Overflow),
            (
                400,
                "input length and `max_tokens` exceed context limit: 199500 + 900 > 200000, decrease input length or `max_tokens`",
                TooManyAsked(Some(500)),
            ),
            (
                422,
                "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 900 `max_new_tokens`",
                TooManyAsked(Some(96)),
            ),
            (422, "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", Overflow),
            (400, "The input token count (1048600) exceeds the maximum number of tokens allowed (1048576).", Overflow),
            (
                400,
                "Prompt contains 70000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
                Overflow,
            ),
            (200, r#"{"error":{"code":"context_length_exceeded"}}"#, Overflow),
        ] {
            assert_eq!(refusal(status, body, &sent(), 900), expected, "{body}");
        }
    }

    #[test]
    fn fields_filters_and_failures_are_told_apart() {
        use Refusal::*;
        let field = |name: &str| Field(name.to_owned());
        for (status, body, expected) in [
            (
                400,
                r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","param":"max_tokens","code":"unsupported_parameter"}}"#,
                field("max_tokens"),
            ),
            (
                400,
                r#"{"error":{"message":"Unsupported value: 'temperature' does not support 0.0 with this model.","param":"temperature"}}"#,
                field("temperature"),
            ),
            (
                400,
                r#"{"error":{"message":"`temperature` and `top_p` cannot both be specified for this model. Please use only one."}}"#,
                field("top_p"),
            ),
            (422, r#"{"detail":"Unexpected keys in the request: {'return_token_ids'}"}"#, field("return_token_ids")),
            (
                422,
                r#"{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}"#,
                field("seed"),
            ),
            (400, r#"{"error":{"message":"Unrecognized request argument supplied: seed"}}"#, field("seed")),
            (400, "the prompt must be a string", Final),
            (
                400,
                r#"{"error":{"code":"content_filter","message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy."}}"#,
                Filtered,
            ),
            (403, "Your request was flagged as violating our policy", Filtered),
            (451, "", Filtered),
            (403, "key", Forbidden),
            (401, "", Forbidden),
            (429, "maximum context length", Slow),
            (500, "Internal Server Error", Broken),
            (503, "loading", Passing),
            (404, "no such model", Final),
            (400, "The `reasoning_content` in the thinking mode must be passed back to the API.", WantsReasoning),
        ] {
            assert_eq!(refusal(status, body, &sent(), 900), expected, "{body}");
        }
    }
}
