//! What an experiment says of servers: the table `[server]`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// vLLM.
    #[default]
    Vllm,
    /// SGLang.
    Sglang,
    /// mistral.rs' own server.
    Mistralrs,
    /// llama.cpp, which reads GGUF alone.
    Llamacpp,
    /// `transformers serve`.
    Transformers,
    /// Any other with OpenAI's API.
    Custom,
}

impl ServerKind {
    fn command(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some(
                "vllm serve {dir} --host 127.0.0.1 --port {port} --served-model-name {name} --max-model-len {context}",
            ),
            Self::Sglang => Some(
                "python -m sglang.launch_server --model-path {dir} --host 127.0.0.1 --port {port} --served-model-name {name} \
                 --context-length {context} --weight-version {digest}",
            ),
            Self::Mistralrs => Some("mistralrs-server --serve-ip 127.0.0.1 --port {port} plain --model-id {dir}"),
            Self::Transformers => Some("transformers serve {dir} --host 127.0.0.1 --port {port}"),
            Self::Llamacpp | Self::Custom => None,
        }
    }
}

/// How weights are changed without a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    /// `/update_weights_from_disk`.
    Sglang,
    /// `/collective_rpc` of `reload_weights`, which needs `VLLM_SERVER_DEV_MODE=1`.
    Vllm,
}

/// Servers that run already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "serde_json::Value", into = "serde_json::Value")]
pub enum Urls {
    /// Their addresses.
    Listed(Vec<String>),
    /// A folder with a file for each, which holds its address.
    Folder(PathBuf),
    /// Neither.
    Wrong(String),
}

impl From<serde_json::Value> for Urls {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(folder) => Self::Folder(folder.into()),
            serde_json::Value::Array(urls) if urls.iter().all(serde_json::Value::is_string) => {
                Self::Listed(urls.iter().filter_map(|url| Some(url.as_str()?.to_owned())).collect())
            }
            other => Self::Wrong(other.to_string()),
        }
    }
}

impl From<Urls> for serde_json::Value {
    fn from(urls: Urls) -> Self {
        match urls {
            Urls::Listed(urls) => urls.into(),
            Urls::Folder(folder) => folder.to_string_lossy().into(),
            Urls::Wrong(text) => text.into(),
        }
    }
}

impl Urls {
    /// The addresses, without `/v1`.
    ///
    /// # Errors
    /// If a folder cannot be read, or there is none.
    pub fn addresses(&self) -> Result<Vec<String>, String> {
        let urls: Vec<String> = match self {
            Self::Listed(urls) => urls.clone(),
            Self::Wrong(text) => return Err(format!("`urls` is a list of addresses, or a folder, not {text}")),
            Self::Folder(folder) => {
                let unreadable = |e: std::io::Error| format!("cannot read the folder `{}`: {e}", folder.display());
                let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
                    .map_err(unreadable)?
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.is_file())
                    .collect();
                files.sort();
                let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(unreadable);
                files.iter().map(read).collect::<Result<_, _>>()?
            }
        };
        let clean = |url: &String| url.trim().trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let urls: Vec<String> = urls.iter().map(clean).filter(|url| !url.is_empty()).collect();
        match urls.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            Some(url) => Err(format!("`{url}` is no address of a server (http://HOST:PORT)")),
            None if urls.is_empty() => Err("`urls` names no server".into()),
            None => Ok(urls),
        }
    }
}

/// Servers that play checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerRules {
    /// Which server is started; gives the default command.
    pub kind: ServerKind,
    /// How many on this machine.
    pub replicas: usize,
    /// What starts one: `{dir}`, `{port}`, `{name}`, `{context}` and `{digest}` are filled in. No shell reads it.
    pub command: Option<String>,
    /// Environment of the servers that are started.
    pub env: BTreeMap<String, String>,
    /// The route that answers once a server is ready.
    pub ready: String,
    /// Seconds that it may take.
    pub ready_within: u64,
    /// The first port; free ones, if absent.
    pub port: Option<u16>,
    /// Tokens of context; what the checkpoint says, if absent.
    pub context: Option<usize>,
    /// Servers that run already: addresses, or a folder with a file for each.
    pub urls: Option<Urls>,
    /// How weights are changed without a restart.
    pub swap: Option<Swap>,
}

impl Default for ServerRules {
    fn default() -> Self {
        Self {
            kind: ServerKind::default(),
            replicas: 1,
            command: None,
            env: BTreeMap::new(),
            ready: "/health".into(),
            ready_within: 900,
            port: None,
            context: None,
            urls: None,
            swap: None,
        }
    }
}

/// What a command's placeholders stand for.
const PLACEHOLDERS: [&str; 5] = ["dir", "port", "name", "context", "digest"];

impl ServerRules {
    /// The words that start a server.
    pub(crate) fn words(&self) -> Result<Vec<String>, String> {
        let Some(command) = self.command.as_deref().or(self.kind.command()) else {
            return Err(match self.kind {
                ServerKind::Llamacpp => {
                    "llama.cpp reads GGUF, not checkpoint directories: say how with `command`".into()
                }
                _ => "`command` says how a server of kind `custom` is started, with {dir} and {port}".into(),
            });
        };
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| format!("`command` cannot be split into words: {command}"))?;
        for word in &words {
            let mut rest = word.as_str();
            while let Some((_, after)) = rest.split_once('{') {
                let Some((name, after)) = after.split_once('}') else { break };
                let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                if is_name && !PLACEHOLDERS.contains(&name) {
                    return Err(format!(
                        "`command` has {{{name}}}, but only {{{}}} are filled in",
                        PLACEHOLDERS.join("}, {")
                    ));
                }
                rest = after;
            }
        }
        for needed in ["{dir}", "{port}"] {
            if !words.iter().any(|word| word.contains(needed)) {
                return Err(format!("`command` lacks {needed}: {command}"));
            }
        }
        Ok(words)
    }

    /// Finds what cannot be meant, before anything is started.
    ///
    /// # Errors
    /// The first of it, with the mend.
    pub fn check(&self) -> Result<(), String> {
        if self.replicas == 0 {
            return Err("replicas is 0, but must be at least 1".into());
        }
        if !self.ready.starts_with('/') {
            return Err(format!("ready is a route such as /health, not `{}`", self.ready));
        }
        let Some(urls) = &self.urls else { return self.words().map(|_| ()) };
        if self.command.is_some() {
            return Err("`command` starts servers and `urls` names some that run: say one of them".into());
        }
        if self.swap.is_none() {
            return Err(
                "servers at `urls` cannot be given other weights: say swap = \"sglang\" or swap = \"vllm\", or let them be \
                 started here with `command`"
                    .into(),
            );
        }
        if let Urls::Wrong(_) = urls { urls.addresses().map(|_| ()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> ServerRules {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_the_mend() {
        assert_eq!(ServerRules::default().check(), Ok(()));
        for (text, expected) in [
            (r#"{"replicas": 0}"#, "at least 1"),
            (r#"{"kind": "custom"}"#, "`command` says how"),
            (r#"{"kind": "llamacpp"}"#, "GGUF"),
            (r#"{"command": "serve {dir}"}"#, "lacks {port}"),
            (r#"{"command": "serve {model} {dir} {port}"}"#, "has {model}"),
            (r#"{"command": "serve 'x {dir} {port}"}"#, "cannot be split"),
            (r#"{"urls": ["http://a"]}"#, "swap = \"sglang\""),
            (r#"{"urls": ["http://a"], "command": "x {dir} {port}", "swap": "vllm"}"#, "say one of them"),
            (r#"{"urls": 7, "swap": "vllm"}"#, "not 7"),
            (r#"{"ready": "health"}"#, "a route"),
        ] {
            let error = rules(text).check().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_come_from_a_list_or_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b"), "http://gpu02:30000/v1/\n").unwrap();
        std::fs::write(dir.path().join("a"), "http://gpu01:30000\n").unwrap();
        let folder = Urls::Folder(dir.path().to_owned());
        assert_eq!(folder.addresses().unwrap(), ["http://gpu01:30000", "http://gpu02:30000"]);
        assert!(Urls::Folder(dir.path().join("none")).addresses().unwrap_err().contains("cannot read"));
        assert!(Urls::Listed(vec!["gpu01".into()]).addresses().unwrap_err().contains("no address"));
        assert!(Urls::Listed(Vec::new()).addresses().unwrap_err().contains("no server"));
    }
}
