//! What a recipe says of vocabularies.

use super::node::{Kind, Node};
use super::reader::Reader;

/// How the output's vocabulary is made.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerRule {
    /// Whose tokenizer.
    pub source: TokenizerSource,
    /// Where the rows of single tokens come from.
    pub tokens: Vec<(String, TokenRule)>,
    /// The embedding's height is a multiple of this.
    pub pad_to_multiple_of: Option<usize>,
}

/// Whose tokenizer the output has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSource {
    /// The base's, with the others' tokens added.
    Union,
    /// The base's.
    Base,
    /// A model's, by index.
    Model(usize),
}

/// Where a token's row comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRule {
    /// The row that models without the token get.
    pub row: Option<RowOrigin>,
    /// Whether models that have the token get it too.
    pub force: bool,
}

/// A row of an embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOrigin {
    /// Zeros.
    Zero,
    /// The token's row in a model.
    Model(usize),
    /// Another token's row in a model.
    Token(usize, String),
    /// A row of a model by number.
    Row(usize, usize),
}

impl Reader {
    pub(super) fn tokenizer(&mut self, node: &Node) -> Result<Option<TokenizerRule>, String> {
        let plain = |source| TokenizerRule { source, tokens: Vec::new(), pad_to_multiple_of: None };
        match (node.get("tokenizer_source"), node.get("tokenizer")) {
            (None, None) => Ok(None),
            (Some(n), None) => Ok(Some(plain(self.tokenizer_source(n)?))),
            (Some(_), Some(n)) => Err(format!("line {}: give `tokenizer_source` or `tokenizer`, not both", n.line)),
            (None, Some(n)) => {
                let Kind::Map(entries) = &n.kind else {
                    return Err(format!("line {}: `tokenizer` must be a table with `source`", n.line));
                };
                self.unknown_keys(entries, &["source", "tokens", "pad_to_multiple_of"], "`tokenizer`")?;
                let source = n.get("source").map_or(Ok(TokenizerSource::Union), |s| self.tokenizer_source(s))?;
                let pad_to_multiple_of = match n.get("pad_to_multiple_of") {
                    None => None,
                    Some(Node { kind: Kind::Number(x), .. }) if *x >= 1.0 && x.fract() == 0.0 && *x < 1e6 => {
                        Some(*x as usize)
                    }
                    Some(x) => return Err(format!("line {}: `pad_to_multiple_of` must be a whole number", x.line)),
                };
                let mut tokens = Vec::new();
                if let Some(map) = n.get("tokens") {
                    let Kind::Map(entries) = &map.kind else {
                        return Err(format!("line {}: `tokens` must be a table", map.line));
                    };
                    for entry in entries {
                        tokens.push((entry.key.clone(), self.token(&entry.value)?));
                    }
                }
                Ok(Some(TokenizerRule { source, tokens, pad_to_multiple_of }))
            }
        }
    }

    fn tokenizer_source(&mut self, node: &Node) -> Result<TokenizerSource, String> {
        match &node.kind {
            Kind::Text(t) if t == "union" => Ok(TokenizerSource::Union),
            Kind::Text(t) if t == "base" => Ok(TokenizerSource::Base),
            _ => Ok(TokenizerSource::Model(self.model(node)?)),
        }
    }

    fn token(&mut self, node: &Node) -> Result<TokenRule, String> {
        let row = match node.get("source") {
            None => None,
            Some(source) => match source.get("kind").map(|k| self.text(k, "kind")).transpose()?.as_deref() {
                Some("zero") => Some(RowOrigin::Zero),
                Some("model_token") => {
                    let model =
                        source.get("model").ok_or_else(|| format!("line {}: `model` is missing", source.line))?;
                    let model = self.model(model)?;
                    match (source.get("token"), source.get("token_id").map(|n| &n.kind)) {
                        (Some(t), None) => Some(RowOrigin::Token(model, self.text(t, "token")?)),
                        (None, Some(Kind::Number(n))) if *n >= 0.0 => Some(RowOrigin::Row(model, *n as usize)),
                        _ => return Err(format!("line {}: give `token` or `token_id`, one of them", source.line)),
                    }
                }
                Some(other) => {
                    return Err(format!("line {}: `kind` is `{other}`; known: zero, model_token", source.line));
                }
                None => Some(RowOrigin::Model(self.model(source)?)),
            },
        };
        let force = matches!(node.get("force"), Some(Node { kind: Kind::Bool(true), .. }));
        Ok(TokenRule { row, force })
    }
}
