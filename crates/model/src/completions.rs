//! Servers that are given token ids.

use crate::ModelError;
use crate::client::{Answer, Client, EndpointConfig};
use rolegraft_trajectory::{Key, Seed};
use serde_json::{Value, json};

/// A client of `/completions` whose prompts are token ids, which vLLM and SGLang take.
pub struct Completions(Client);

/// What a server went on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continued {
    /// As text.
    pub text: String,
    /// As token ids, where the server gives them (vLLM: `return_token_ids`).
    pub ids: Option<Vec<u32>>,
}

impl Completions {
    /// A client; the key comes from the environment.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub fn new(config: EndpointConfig) -> Result<Self, ModelError> {
        Client::new(config).map(Self)
    }

    /// The likeliest `count` tokens after a prompt, past any end of turn.
    ///
    /// # Errors
    /// If the server does not answer, or the prompt does not fit.
    pub async fn greedy(&self, prompt: &[u32], count: usize) -> Result<Continued, ModelError> {
        let body = json!({
            "model": self.0.config.model, "prompt": prompt, "max_tokens": count, "temperature": 0.0,
            "ignore_eos": true, "return_token_ids": true, "skip_special_tokens": false,
        });
        match self.0.post("/completions", &body, Key::new(Seed(0)), continued).await? {
            (Answer::Given(continued), _) => Ok(continued),
            (Answer::Overflow, _) => {
                Err(ModelError::Fatal(format!("a prompt of {} tokens does not fit", prompt.len())))
            }
        }
    }
}

fn continued(json: &Value) -> Option<Continued> {
    let choice = &json["choices"][0];
    let ids = choice["token_ids"].as_array().map(|ids| {
        ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect::<Option<Vec<u32>>>()
    });
    Some(Continued { text: choice["text"].as_str()?.to_owned(), ids: ids.flatten() })
}
