//! Format files, built in and others, compiled.

use super::error::FormatError;
use super::{Alternative, Format, PayloadKind, Rule, Select};
use crate::reading::{Role, ViolationKind};
use include_dir::{Dir, include_dir};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// The formats that come with the program.
static PARSERS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../parsers");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatFile {
    name: String,
    role: Role,
    /// A reply without a span is a message, not a violation.
    #[serde(default)]
    optional: bool,
    /// Text beside a span, reasoning excepted, is a violation.
    #[serde(default)]
    alone: bool,
    /// What opens reasoning, and what closes it.
    reasoning: Option<(String, String)>,
    schema: Option<String>,
    action_field: Option<String>,
    arguments_field: Option<String>,
    #[serde(default)]
    span: Vec<RuleFile>,
    #[serde(default)]
    confusion: Vec<ConfusionFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    pattern: String,
    #[serde(default)]
    select: Select,
    payload: PayloadKind,
    fence: Option<(String, String)>,
    #[serde(default)]
    alternative: Vec<AlternativeFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlternativeFile {
    action: String,
    when: String,
    blocks: Option<String>,
    #[serde(default)]
    single: bool,
    #[serde(default)]
    join: String,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfusionFile {
    pattern: String,
    violation: ViolationKind,
}

impl Format {
    /// A format that comes with the program.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn builtin(name: &str) -> Result<Self, FormatError> {
        let text = |file: &str| PARSERS.get_file(file).and_then(|file| file.contents_utf8());
        let toml = text(&format!("{name}.toml")).ok_or_else(|| {
            let files = PARSERS.files().filter_map(|file| file.path().to_str()?.strip_suffix(".toml"));
            FormatError::Unknown { name: name.to_owned(), known: files.collect::<Vec<_>>().join(", ") }
        })?;
        Self::compile(name, toml, |file| text(file).map(str::to_owned).ok_or_else(|| "is not built in".into()))
    }

    /// A format from `PATH`, its schema beside it.
    ///
    /// # Errors
    /// If a file is missing, or does not say what a format needs.
    pub fn load(path: &Path) -> Result<Self, FormatError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| FormatError::Read { path: path.to_owned(), source })?;
        Self::compile(&path.display().to_string(), &text, |file| {
            std::fs::read_to_string(path.with_file_name(file)).map_err(|e| format!("cannot be read: {e}"))
        })
    }

    fn compile(name: &str, text: &str, schema: impl Fn(&str) -> Result<String, String>) -> Result<Self, FormatError> {
        let file: FormatFile =
            toml::from_str(text).map_err(|source| FormatError::Toml { name: name.to_owned(), source })?;
        let regex = |pattern: &str| {
            Regex::new(pattern).map_err(|source| FormatError::Pattern {
                name: name.to_owned(),
                pattern: pattern.to_owned(),
                source,
            })
        };
        let mut digest_source = text.to_owned();
        let schema = match &file.schema {
            None => None,
            Some(path) => {
                let wrong = |reason: String| FormatError::Schema { name: name.to_owned(), file: path.clone(), reason };
                let text = schema(path).map_err(wrong)?;
                digest_source.push_str(&text);
                let json: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
                Some(jsonschema::validator_for(&json).map_err(|e| wrong(format!("is not a JSON Schema: {e}")))?)
            }
        };
        let rules = file
            .span
            .into_iter()
            .map(|rule| {
                let alternatives = rule
                    .alternative
                    .into_iter()
                    .map(|a| {
                        Ok(Alternative {
                            when: regex(&a.when)?,
                            blocks: a.blocks.as_deref().map(regex).transpose()?,
                            action: a.action,
                            single: a.single,
                            join: a.join,
                            value: a.value,
                        })
                    })
                    .collect::<Result<_, FormatError>>()?;
                Ok(Rule {
                    pattern: regex(&rule.pattern)?,
                    select: rule.select,
                    payload: rule.payload,
                    fence: rule.fence,
                    alternatives,
                })
            })
            .collect::<Result<_, FormatError>>()?;
        let confusions = file
            .confusion
            .into_iter()
            .map(|c| Ok((regex(&c.pattern)?, c.violation)))
            .collect::<Result<_, FormatError>>()?;
        Ok(Self {
            name: file.name,
            role: file.role,
            optional: file.optional,
            alone: file.alone,
            action_field: file.action_field,
            arguments_field: file.arguments_field,
            schema,
            rules,
            confusions,
            reasoning: file.reasoning,
            digest_source,
        })
    }
}
