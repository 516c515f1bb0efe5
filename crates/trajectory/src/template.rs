//! Chat templates, rendered exactly as Hugging Face transformers renders them.
//!
//! The reference is `apply_chat_template(tokenize=False)` of transformers 5.24
//! (huggingface/transformers@v5.24.0:src/transformers/{tokenization_utils_base,utils/chat_template_utils}.py). Which
//! template of a checkpoint is taken, which tokens it may name and what a conversation is to it is decided here; what
//! it then writes, [`rolegraft_jinja`] knows.

mod arguments;

pub use arguments::{ArgumentError, ChatArguments};

use crate::Message;
use rolegraft_jinja::{Enumerator, LONGEST, Object, RenderError, Template, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a chat template cannot be read or does not render a conversation.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum TemplateError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not JSON as a tokenizer writes it: {reason}", path.display())]
    Json { path: PathBuf, reason: String },
    #[error("`{}` holds no chat template; add a chat_template.jinja, or `chat_template` to tokenizer_config.json", .0.display())]
    None(PathBuf),
    #[error("the chat templates of `{}` are for conversations with tools, and none is called `default`; give the argument `tools`", .0.display())]
    NoDefault(PathBuf),
    #[error("the chat template of `{}` is not a template: {reason}", path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("the chat template of `{}` refuses the conversation: {sentence}", path.display())]
    Refused { path: PathBuf, sentence: String },
    #[error("the chat template of `{}` does not end", .0.display())]
    Endless(PathBuf),
    #[error("the chat template of `{}` writes a text of {bytes} bytes or more; {} are allowed", path.display(), LONGEST)]
    TooLong { path: PathBuf, bytes: usize },
    #[error("the chat template of `{}` fails: {reason}", path.display())]
    Failed { path: PathBuf, reason: String },
    #[error(transparent)]
    Argument(#[from] ArgumentError),
}

/// A checkpoint's chat template, or the two that a render chooses from, with the special tokens that they may name.
#[derive(Debug)]
pub struct ChatTemplate {
    default: Option<Named>,
    tool_use: Option<Named>,
    special: BTreeMap<String, String>,
}

/// A template and the file that holds it.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    source: String,
    template: Template,
}

impl Named {
    fn new(path: PathBuf, source: String) -> Result<Self, TemplateError> {
        match Template::new(&source) {
            Ok(template) => Ok(Self { path, source, template }),
            Err(error) => Err(TemplateError::Syntax { path, reason: error.to_string() }),
        }
    }
}

impl ChatTemplate {
    /// Reads the templates of a checkpoint as transformers looks for them: `chat_template.jinja` and
    /// `additional_chat_templates/`; else `chat_template` of tokenizer_config.json, a text or several named ones;
    /// else that of chat_template.json, where processors kept it. Of several, only `default` and `tool_use` are ever taken.
    ///
    /// # Errors
    /// If a file cannot be read or is broken, or none holds one of the two.
    pub fn read(dir: &Path) -> Result<Self, TemplateError> {
        let config_path = dir.join("tokenizer_config.json");
        let config = read_json(&config_path)?.unwrap_or_default();
        let map_path = dir.join("special_tokens_map.json");
        let mut special = BTreeMap::new();
        // The map is older than the configuration and is read only where that does not list its tokens.
        if config["added_tokens_decoder"].is_null() {
            add_special(&mut special, &read_json(&map_path)?.unwrap_or_default(), &map_path)?;
        }
        let mut configured = BTreeMap::new();
        add_special(&mut configured, &config, &config_path)?;
        for (name, token) in configured {
            special.entry(name).or_insert(token);
        }
        let mut sources = find_sources(dir, config_path, &config)?;
        let mut take = |name: &str| sources.remove(name).map(|(path, source)| Named::new(path, source)).transpose();
        let (default, tool_use) = (take("default")?, take("tool_use")?);
        if default.is_none() && tool_use.is_none() {
            return Err(TemplateError::None(dir.to_owned()));
        }
        Ok(Self { default, tool_use, special })
    }

    /// A template from its text; `name` stands for it in errors.
    ///
    /// # Errors
    /// If it is not a template.
    pub fn new(name: &Path, source: &str, special: BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let default = Some(Named::new(name.to_owned(), source.to_owned())?);
        Ok(Self { default, tool_use: None, special })
    }

    /// The conversation as text; `generate` asks for the start of the next reply (`add_generation_prompt`). Where there
    /// is a template called `tool_use`, it is taken if `tools` is an argument and not null.
    ///
    /// # Errors
    /// If the template refuses the conversation, fails, does not end, or writes too much.
    pub fn render(
        &self,
        messages: &[Message],
        generate: bool,
        arguments: &ChatArguments,
    ) -> Result<String, TemplateError> {
        let named = match (&self.tool_use, &self.default) {
            (Some(tool_use), _) if arguments.has_tools() => tool_use,
            (_, Some(default)) => default,
            (tool_use, None) => {
                let path = tool_use.as_ref().map(|named| named.path.clone());
                return Err(TemplateError::NoDefault(path.unwrap_or_default()));
            }
        };
        let day = arguments.day()?;
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        variables.extend(self.special.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))));
        for name in ["tools", "documents"] {
            variables.insert(name, Value::from(()));
        }
        variables.extend(arguments.variables());
        variables.insert("messages", messages.iter().map(Turn::of).collect());
        variables.insert("add_generation_prompt", Value::from(generate));
        named.template.render(variables, day).map_err(|error| {
            let path = named.path.clone();
            match error {
                RenderError::Refused(sentence) => TemplateError::Refused { path, sentence },
                RenderError::Endless => TemplateError::Endless(path),
                RenderError::TooLong(bytes) => TemplateError::TooLong { path, bytes },
                RenderError::Failed(reason) => TemplateError::Failed { path, reason },
            }
        })
    }

    fn all(&self) -> impl Iterator<Item = &Named> {
        self.default.iter().chain(&self.tool_use)
    }
    /// The file that holds it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.all().next().map_or(Path::new(""), |named| &named.path)
    }
    /// Whether what it writes may depend on the day.
    #[must_use]
    pub fn writes_date(&self) -> bool {
        self.all().any(|named| named.source.contains("strftime_now"))
    }
    /// Its text as it was read, of two that of `default` first.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.all().map(|named| named.source.as_str())
    }
    /// The tokens it may name, by variable.
    #[must_use]
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special
    }
}

fn read_text(path: &Path) -> Result<Option<String>, TemplateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Read { path: path.to_owned(), source }),
    }
}

/// What is in a directory; nothing, where there is none.
fn files(dir: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let entries = match std::fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
        entries => entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()),
    };
    entries.map_err(|source| TemplateError::Read { path: dir.to_owned(), source })
}

fn read_json(path: &Path) -> Result<Option<Json>, TemplateError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let broken = |reason: String| TemplateError::Json { path: path.to_owned(), reason };
    let json: Json = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
    if json.is_object() { Ok(Some(json)) } else { Err(broken("it is not an object".into())) }
}

/// Adds the tokens of a configuration that are set: every `*_token`, and the named ones of `extra_special_tokens`.
fn add_special(special: &mut BTreeMap<String, String>, config: &Json, path: &Path) -> Result<(), TemplateError> {
    let tokens = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
    let extra = ["model_specific_special_tokens", "extra_special_tokens"];
    let extra = extra.iter().filter_map(|name| config[*name].as_object()).flatten();
    for (name, token) in tokens.chain(extra) {
        let token = match token {
            Json::Object(token) => token.get("content"),
            token => Some(token),
        };
        match token {
            Some(Json::String(token)) => {
                special.insert(name.clone(), token.clone());
            }
            // `add_bos_token` and its like are settings, and an unset token is undefined.
            Some(Json::Bool(_) | Json::Null) => {}
            _ => {
                let reason = format!("`{name}` is neither a token nor unset");
                return Err(TemplateError::Json { path: path.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Templates by name, each with the file that holds it.
type Sources = BTreeMap<String, (PathBuf, String)>;

/// The templates of the first place that holds any.
fn find_sources(dir: &Path, config_path: PathBuf, config: &Json) -> Result<Sources, TemplateError> {
    let mut sources = Sources::new();
    let path = dir.join("chat_template.jinja");
    if let Some(text) = read_text(&path)? {
        sources.insert("default".into(), (path, text));
    }
    for path in files(&dir.join("additional_chat_templates"))? {
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jinja"));
        if let (Some(name), Some(text)) = (name, read_text(&path)?) {
            sources.insert(name.to_owned(), (path.clone(), text));
        }
    }
    if !sources.is_empty() {
        return Ok(sources);
    }
    let path = dir.join("chat_template.json");
    match named_sources(&config["chat_template"], &config_path)? {
        Some(sources) => Ok(sources),
        None => match read_json(&path)? {
            Some(json) => Ok(named_sources(&json["chat_template"], &path)?.unwrap_or_default()),
            None => Ok(sources),
        },
    }
}

/// The templates that a configuration holds: one text, a list of names and templates, or a dict.
fn named_sources(value: &Json, path: &Path) -> Result<Option<Sources>, TemplateError> {
    let pairs: Option<Vec<(&str, &str)>> = match value {
        Json::Null => return Ok(None),
        Json::String(text) => Some(vec![("default", text)]),
        Json::Array(list) => list.iter().map(|e| Some((e["name"].as_str()?, e["template"].as_str()?))).collect(),
        Json::Object(named) => named.iter().map(|(name, text)| Some((name.as_str(), text.as_str()?))).collect(),
        _ => None,
    };
    let reason = "`chat_template` is neither a text nor holds texts by name";
    let pairs = pairs.ok_or_else(|| TemplateError::Json { path: path.to_owned(), reason: reason.into() })?;
    Ok(Some(pairs.into_iter().map(|(name, text)| (name.to_owned(), (path.to_owned(), text.to_owned()))).collect()))
}

/// A message as a template sees it: a dict with `role` and `content`, made without a table.
#[derive(Debug)]
struct Turn {
    role: Value,
    content: Value,
}

impl Turn {
    fn of(message: &Message) -> Value {
        let (role, content) = (Value::from(message.role.as_str()), Value::from(message.content.as_str()));
        Value::from_object(Self { role, content })
    }
}

impl Object for Turn {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "role" => Some(self.role.clone()),
            "content" => Some(self.content.clone()),
            _ => None,
        }
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["role", "content"])
    }
}
