//! Which servers are started and how they are given other weights: the `[server]` table of an experiment.

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a command may name in braces.
const PLACEHOLDERS: [&str; 5] = ["dir", "port", "name", "context", "digest"];
/// What a served name begins with.
const NAME: &str = "rolegraft";
/// Digits of a digest in a served name.
const DIGITS: usize = 12;

/// Servers: those that we start with `command`, or those that run at `urls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRules {
    /// Which server it is; gives the defaults of all else.
    pub kind: Kind,
    /// How many are started on this machine.
    #[serde(default = "one")]
    pub replicas: usize,
    /// What starts one, split into words as a shell does it, but run by none. `{dir}`, `{port}`, `{name}`, `{context}` and
    /// `{digest}` stand for what they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The route that answers 200 when a server is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// How long a server may take to be ready or to change its weights, in seconds.
    #[serde(default = "fifteen_minutes")]
    pub ready_within: u64,
    /// The first server's port, each other one's is one higher; absent: ports that are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Tokens that fit; absent: as many as the checkpoint takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Servers that run already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Urls>,
    /// How weights are changed without a new start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// Environment variables of servers that we start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

fn one() -> usize {
    1
}

fn fifteen_minutes() -> u64 {
    900
}

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// vLLM's `vllm serve`.
    Vllm,
    /// SGLang's `sglang.launch_server`.
    Sglang,
    /// mistral.rs's `mistralrs serve`.
    Mistralrs,
    /// llama.cpp's `llama-server`.
    Llamacpp,
    /// `transformers serve`.
    Transformers,
    /// Any other that speaks OpenAI's API.
    Custom,
}

/// How a server is given other weights while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    /// SGLang's `/update_weights_from_disk`.
    Sglang,
    /// The routes that vLLM has with `VLLM_SERVER_DEV_MODE=1`.
    Vllm,
}

/// Where servers run already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Urls {
    /// At these addresses.
    List(Vec<String>),
    /// Each file of a folder holds an address, as jobs of a cluster write them.
    Folder(PathBuf),
}

impl Serialize for Urls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::List(urls) => urls.serialize(serializer),
            Self::Folder(folder) => folder.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherUrls)
    }
}

struct EitherUrls;

impl<'de> Visitor<'de> for EitherUrls {
    type Value = Urls;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of addresses, or the path of a folder whose files hold one each")
    }
    fn visit_str<E>(self, folder: &str) -> Result<Urls, E> {
        Ok(Urls::Folder(folder.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Urls, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = seq.next_element()? {
            urls.push(url);
        }
        Ok(Urls::List(urls))
    }
}

/// What cannot be meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum RulesError {
    #[error("`replicas` is 0: say how many servers to start, 1 or more")]
    NoReplicas,
    #[error("`command` and `urls` exclude each other: servers are started, or run already")]
    CommandAndUrls,
    #[error(
        "servers at `urls` cannot be given other weights without `swap`; say swap = \"sglang\" or \"vllm\", or let rolegraft start them with `command`"
    )]
    UrlsWithoutSwap,
    #[error("`{0}` says how servers are started, but those at `urls` run already: leave it out")]
    StartedAtUrls(&'static str),
    #[error("`urls` is empty: give an address such as \"http://gpu01:30000\"")]
    NoUrls,
    #[error("`{0}` is no server's address: give one such as \"http://gpu01:30000\"")]
    Url(String),
    #[error("kind = \"custom\" has no command of its own: say `command`")]
    CustomWithoutCommand,
    #[error(
        "kind = \"llamacpp\" has no command of its own, as llama.cpp reads GGUF and not this checkpoint: say a `command` that converts {{dir}} and serves it"
    )]
    LlamacppWithoutCommand,
    #[error("`command` is empty or has a quote that is not closed: {0}")]
    Quotes(String),
    #[error("`command` has no {{{placeholder}}}: a server has to be told {what}")]
    Without { placeholder: &'static str, what: &'static str },
    #[error(
        "`command` has {{{0}}}, which stands for nothing; there are {{dir}}, {{port}}, {{name}}, {{context}}, {{digest}}"
    )]
    Placeholder(String),
    #[error("`ready` is `{0}`: say a route such as \"/health\"")]
    Ready(String),
    #[error("`ready_within` is 0: say how many seconds a server may take")]
    NoTime,
    #[error("port {port} and {replicas} servers go beyond port 65535")]
    Ports { port: u16, replicas: usize },
    #[error("a server of this kind does not know swap = \"{}\": leave `swap` out, so that it is started again", .0.name())]
    Swap(Swap),
    #[error("`env` cannot set `{0}`: not a variable's name, or a value with a zero byte")]
    Variable(String),
}

impl Swap {
    fn name(self) -> &'static str {
        match self {
            Self::Sglang => "sglang",
            Self::Vllm => "vllm",
        }
    }
}

impl Kind {
    fn command(self) -> Result<&'static str, RulesError> {
        Ok(match self {
            Self::Vllm => {
                "vllm serve {dir} --host 127.0.0.1 --port {port} --served-model-name {name} --max-model-len {context}"
            }
            Self::Sglang => {
                "python -m sglang.launch_server --model-path {dir} --host 127.0.0.1 --port {port} --served-model-name {name} --context-length {context} --weight-version {digest}"
            }
            Self::Transformers => "transformers serve {dir} --host 127.0.0.1 --port {port}",
            Self::Mistralrs => "mistralrs serve --host 127.0.0.1 --port {port} -m {dir}",
            Self::Llamacpp => return Err(RulesError::LlamacppWithoutCommand),
            Self::Custom => return Err(RulesError::CustomWithoutCommand),
        })
    }

    fn knows(self, swap: Swap) -> bool {
        matches!((self, swap), (Self::Custom, _) | (Self::Vllm, Swap::Vllm) | (Self::Sglang, Swap::Sglang))
    }
}

/// What stands for the placeholders of a command.
pub(crate) struct Filling<'f> {
    pub(crate) dir: &'f str,
    pub(crate) port: u16,
    pub(crate) name: &'f str,
    pub(crate) context: usize,
    pub(crate) digest: &'f str,
}

impl ServerRules {
    /// Refuses what cannot be meant, before anything runs.
    ///
    /// # Errors
    /// With the mend.
    pub fn check(&self) -> Result<(), RulesError> {
        if self.ready_within == 0 {
            return Err(RulesError::NoTime);
        }
        if let Some(route) = self.ready.as_ref().filter(|route| !route.starts_with('/')) {
            return Err(RulesError::Ready(route.clone()));
        }
        if let Some(swap) = self.swap.filter(|swap| !self.kind.knows(*swap)) {
            return Err(RulesError::Swap(swap));
        }
        match &self.urls {
            Some(urls) => self.check_urls(urls),
            None => self.check_command(),
        }
    }

    fn check_urls(&self, urls: &Urls) -> Result<(), RulesError> {
        if self.command.is_some() {
            return Err(RulesError::CommandAndUrls);
        }
        if self.swap.is_none() {
            return Err(RulesError::UrlsWithoutSwap);
        }
        let started = [("replicas", self.replicas != 1), ("port", self.port.is_some()), ("env", !self.env.is_empty())];
        if let Some((field, _)) = started.into_iter().find(|(_, said)| *said) {
            return Err(RulesError::StartedAtUrls(field));
        }
        let Urls::List(urls) = urls else { return Ok(()) };
        if urls.is_empty() {
            return Err(RulesError::NoUrls);
        }
        urls.iter().try_for_each(|url| base(url).map(|_| ()))
    }

    fn check_command(&self) -> Result<(), RulesError> {
        if self.replicas == 0 {
            return Err(RulesError::NoReplicas);
        }
        if let Some(port) = self.port.filter(|port| usize::from(*port) + self.replicas - 1 > usize::from(u16::MAX)) {
            return Err(RulesError::Ports { port, replicas: self.replicas });
        }
        let bad =
            |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
        if let Some((name, _)) = self.env.iter().find(bad) {
            return Err(RulesError::Variable(name.clone()));
        }
        let words = self.words()?;
        if let Some(unknown) = words.iter().flat_map(|word| placeholders(word)).find(|p| !PLACEHOLDERS.contains(p)) {
            return Err(RulesError::Placeholder(unknown.to_owned()));
        }
        let mut needed = vec![("dir", "where its checkpoint is"), ("port", "where to listen")];
        if self.swap == Some(Swap::Sglang) {
            needed.push(("digest", "what its first weights are called (--weight-version {digest})"));
        }
        for (placeholder, what) in needed {
            if !self.names(placeholder) {
                return Err(RulesError::Without { placeholder, what });
            }
        }
        Ok(())
    }

    /// The command's words, placeholders and all.
    fn words(&self) -> Result<Vec<String>, RulesError> {
        let command = match &self.command {
            Some(command) => command,
            None => self.kind.command()?,
        };
        shlex::split(command).filter(|words| !words.is_empty()).ok_or_else(|| RulesError::Quotes(command.to_owned()))
    }

    /// Whether the command has a placeholder.
    fn names(&self, placeholder: &str) -> bool {
        self.words().is_ok_and(|words| words.iter().any(|word| placeholders(word).any(|p| p == placeholder)))
    }

    /// The command for one server.
    pub(crate) fn filled(&self, filling: &Filling<'_>) -> Result<Vec<String>, RulesError> {
        let (port, context) = (filling.port.to_string(), filling.context.to_string());
        let value = |placeholder: &str| match placeholder {
            "dir" => Some(filling.dir),
            "port" => Some(port.as_str()),
            "name" => Some(filling.name),
            "context" => Some(context.as_str()),
            "digest" => Some(filling.digest),
            _ => None,
        };
        Ok(self.words()?.iter().map(|word| fill(word, value)).collect())
    }

    /// The route that tells whether a server is ready.
    pub(crate) fn ready(&self) -> &str {
        match (&self.ready, self.kind) {
            (Some(route), _) => route,
            (None, Kind::Custom) => "/v1/models",
            (None, _) => "/health",
        }
    }

    /// `{name}`: of the weights, unless it outlives them.
    pub(crate) fn name(&self, digest: &str) -> String {
        match self.swap {
            Some(_) => NAME.to_owned(),
            None => format!("{NAME}-{}", digest.chars().take(DIGITS).collect::<String>()),
        }
    }

    /// What a server that we start has to list as its model; absent: whatever is the only one.
    pub(crate) fn listed(&self, name: &str, dir: &str) -> Option<String> {
        match self.kind {
            _ if self.names("name") => Some(name.to_owned()),
            Kind::Transformers | Kind::Mistralrs => Some(dir.to_owned()),
            _ => None,
        }
    }

    /// What a server that we start does to a checkpoint's replies without a word of it.
    pub(crate) fn caveat(&self, dir: &Path) -> Option<String> {
        let file = dir.join("generation_config.json");
        let bytes = std::fs::read(&file).unwrap_or_default();
        let says: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        (self.kind == Kind::Transformers && says["do_sample"] != true).then(|| {
            format!(
                "`{}` does not say `\"do_sample\": true`: `transformers serve` then takes the likeliest tokens, whatever the \
                 temperature, and trials repeat each other",
                file.display()
            )
        })
    }

    /// Whether answers carry the weights' digest.
    pub(crate) fn versioned(&self) -> bool {
        self.swap == Some(Swap::Sglang) || self.kind == Kind::Sglang && self.urls.is_none() && self.names("digest")
    }

    /// The environment variables of one server.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.env.clone();
        let ours = [
            (self.kind == Kind::Transformers, "HF_HUB_OFFLINE"),
            (self.swap == Some(Swap::Vllm), "VLLM_SERVER_DEV_MODE"),
        ];
        for (_, name) in ours.into_iter().filter(|(wanted, _)| *wanted) {
            variables.entry(name.to_owned()).or_insert_with(|| "1".to_owned());
        }
        variables
    }
}

/// The address without `/v1`.
pub(crate) fn base(url: &str) -> Result<String, RulesError> {
    let base = url.trim().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
    match host.filter(|host| !host.is_empty()).and_then(|_| reqwest::Url::parse(base).ok()) {
        Some(_) => Ok(base.to_owned()),
        None => Err(RulesError::Url(url.chars().filter(|c| !c.is_control()).take(100).collect())),
    }
}

/// The parts of a word: text, and the name between braces that follows it. Other braces are text.
fn parts(word: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let found = text.match_indices('{').find_map(|(at, _)| {
            let name = text[at + 1..].split_once('}')?.0;
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            is_name.then_some((at, name))
        });
        let Some((at, name)) = found else { return Some((text, None)) };
        rest = Some(&text[at + name.len() + 2..]);
        Some((&text[..at], Some(name)))
    })
}

fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    parts(word).filter_map(|(_, name)| name)
}

fn fill<'v>(word: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    parts(word).flat_map(|(text, name)| [text, name.and_then(&value).unwrap_or_default()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> ServerRules {
        toml::from_str(text).unwrap()
    }

    fn refusal(text: &str) -> String {
        rules(text).check().unwrap_err().to_string()
    }

    const FILLING: Filling<'_> = Filling { dir: "/a b", port: 7, name: "n", context: 9, digest: "d" };

    #[test]
    fn every_kind_has_a_command_or_asks_for_one() {
        for kind in ["vllm", "sglang", "mistralrs", "transformers"] {
            rules(&format!("kind = \"{kind}\"")).check().unwrap();
        }
        assert!(refusal("kind = \"llamacpp\"").contains("GGUF"));
        assert!(refusal("kind = \"custom\"").contains("say `command`"));
        rules("kind = \"sglang\"\nswap = \"sglang\"").check().unwrap();
        rules("kind = \"vllm\"\nswap = \"vllm\"").check().unwrap();
    }

    #[test]
    fn a_command_is_split_before_it_is_filled() {
        let rules = rules(
            r#"kind = "custom"
command = "serve --dir={dir} '{port} {name}' '{\"a\": {context}}' {digest}""#,
        );
        rules.check().unwrap();
        assert_eq!(rules.filled(&FILLING).unwrap(), ["serve", "--dir=/a b", "7 n", "{\"a\": 9}", "d"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let custom = |rest: &str| refusal(&format!("kind = \"custom\"\n{rest}"));
        for (rest, words) in [
            ("command = 'serve {port}'", "{dir}"),
            ("command = 'serve {dir}'", "{port}"),
            ("command = 'serve {dir} {port} {model}'", "{model}"),
            ("command = \"serve {dir} {port} 'a\"", "quote"),
            ("command = ''", "empty"),
            ("command = 'serve {dir} {port}'\nreplicas = 0", "replicas"),
            ("command = 'serve {dir} {port}'\nreplicas = 9\nport = 65530", "65535"),
            ("command = 'serve {dir} {port}'\nready = 'health'", "ready"),
            ("command = 'serve {dir} {port}'\nready_within = 0", "ready_within"),
            ("command = 'serve {dir} {port}'\nswap = 'sglang'", "--weight-version"),
            ("command = 'serve {dir} {port}'\n[env]\n'A=B' = 'c'", "env"),
            ("command = 'serve {dir} {port}'\nurls = ['http://a']", "exclude"),
            ("urls = ['http://a']", "without `swap`"),
            ("urls = []\nswap = 'vllm'", "empty"),
            ("urls = ['gpu01:30000']\nswap = 'vllm'", "address"),
            ("urls = 'folder/'\nswap = 'vllm'\nreplicas = 2", "replicas"),
        ] {
            assert!(custom(rest).contains(words), "{rest}: {}", custom(rest));
        }
        assert!(refusal("kind = 'transformers'\nswap = 'vllm'").contains("leave `swap` out"));
    }

    #[test]
    fn addresses_are_a_list_or_a_folder() {
        let list = rules("kind = 'sglang'\nswap = 'sglang'\nurls = ['http://gpu01:30000/v1/']");
        list.check().unwrap();
        assert_eq!(base("http://gpu01:30000/v1/").unwrap(), "http://gpu01:30000");
        let folder = rules("kind = 'sglang'\nswap = 'sglang'\nurls = 'folder/'");
        assert_eq!(folder.urls, Some(Urls::Folder("folder/".into())));
        for rules in [list, folder] {
            assert_eq!(toml::from_str::<ServerRules>(&toml::to_string(&rules).unwrap()).unwrap(), rules);
        }
        assert!(toml::from_str::<ServerRules>("kind = 'vllm'\nurl = 'http://a'").is_err());
    }

    #[test]
    fn a_name_that_outlives_weights_does_not_name_them() {
        assert_eq!(rules("kind = 'vllm'").name("0123456789abcdef"), "rolegraft-0123456789ab");
        assert_eq!(rules("kind = 'vllm'\nswap = 'vllm'").name("0123456789abcdef"), "rolegraft");
        assert_eq!(rules("kind = 'transformers'").listed("n", "/d").as_deref(), Some("/d"));
        assert_eq!(rules("kind = 'vllm'").listed("n", "/d").as_deref(), Some("n"));
    }

    #[test]
    fn a_checkpoint_that_transformers_decodes_greedily_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = |kind: &str| rules(&format!("kind = '{kind}'")).caveat(dir.path()).is_some();
        assert!(told("transformers") && !told("vllm"));
        for (says, expected) in [("{}", true), ("{\"do_sample\": false}", true), ("{\"do_sample\": true}", false)] {
            std::fs::write(dir.path().join("generation_config.json"), says).unwrap();
            assert_eq!(told("transformers"), expected, "{says}");
        }
    }
}
