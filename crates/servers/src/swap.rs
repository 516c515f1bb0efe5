//! Other weights for a server that goes on, and whether it has them.
//!
//! What a server reports of its weights is not enough: vLLM 0.32.0 on a CPU keeps a tied `lm_head` of the model that it was
//! started with, and its checksums do not show it. So what it says is held against what the checkpoint says.

use crate::rules::Swap;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How long weights may take.
const RELOAD: Duration = Duration::from_secs(900);
/// How far the mean log probability of the expected tokens may be off: more than half precision makes of it, less than another
/// model does.
const TOLERANCE: f64 = 0.1;

/// Token ids with their log probabilities, each after those before it: what a checkpoint says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Of all but the first, in nats.
    pub log_probabilities: Vec<f64>,
}

/// A server's routes.
pub(crate) struct Server<'s> {
    pub(crate) http: &'s reqwest::Client,
    /// Without `/v1`.
    pub(crate) url: &'s str,
}

impl Server<'_> {
    async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut post = self.http.post(format!("{}{path}", self.url)).timeout(RELOAD);
        if let Some(body) = body {
            post = post.json(body);
        }
        answer(path, post).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        answer(path, self.http.get(format!("{}{path}", self.url)).timeout(Duration::from_secs(15))).await
    }

    /// The models that it lists.
    pub(crate) async fn models(&self) -> Result<Vec<String>, String> {
        let list = self.get("/v1/models").await?;
        let ids = list["data"].as_array().into_iter().flatten();
        Ok(ids.filter_map(|model| Some(model["id"].as_str()?.to_owned())).collect())
    }

    /// Gives it the checkpoint in `dir`, which is called `digest` from now on.
    pub(crate) async fn swap(&self, how: Swap, dir: &Path, digest: &str) -> Result<(), String> {
        let dir = dir.to_string_lossy();
        match how {
            Swap::Sglang => {
                let asked = json!({"model_path": dir, "weight_version": digest, "flush_cache": true});
                let said = self.post("/update_weights_from_disk", Some(&asked)).await?;
                if said["success"] != true {
                    return Err(format!("/update_weights_from_disk says {said}"));
                }
            }
            Swap::Vllm => {
                let before = self.checksums().await;
                self.post("/pause?mode=wait", None).await?;
                let arguments = json!({"weights_path": dir, "is_checkpoint_format": true});
                let reload = json!({"method": "reload_weights", "kwargs": arguments});
                self.post("/collective_rpc", Some(&reload)).await?;
                self.post("/reset_prefix_cache", None).await?;
                self.post("/update_weight_version", Some(&json!({"new_version": digest}))).await?;
                self.post("/resume", None).await?;
                if before.is_some() && self.checksums().await == before {
                    return Err("its checksums are those of the weights before".into());
                }
            }
        }
        Ok(())
    }

    async fn checksums(&self) -> Option<Value> {
        let said = self.post("/weight_checker", Some(&json!({"action": "checksum"}))).await.ok()?;
        said["checksums"].is_object().then(|| said["checksums"].clone())
    }

    /// Whether it has the weights of this name, and says what they say.
    pub(crate) async fn verify(&self, how: Swap, model: &str, digest: &str, expected: &Expected) -> Result<(), String> {
        let (version, said) = match how {
            Swap::Sglang => {
                let sampling = json!({"max_new_tokens": 1, "temperature": 0.0});
                let ids = if expected.ids.is_empty() { &[0][..] } else { &expected.ids };
                let asked = json!({"input_ids": ids, "sampling_params": sampling, "return_logprob": true, "logprob_start_len": 0});
                let said = self.post("/generate", Some(&asked)).await?;
                let tokens = said["meta_info"]["input_token_logprobs"].as_array().cloned().unwrap_or_default();
                let logged: Vec<f64> = tokens.iter().skip(1).filter_map(|token| token[0].as_f64()).collect();
                (said["meta_info"]["weight_version"].clone(), logged)
            }
            Swap::Vllm => {
                let version = self.get("/weight_info").await?["weight_version"].clone();
                let mut logged = Vec::new();
                if !expected.ids.is_empty() {
                    let asked = json!({"model": model, "prompt": expected.ids, "max_tokens": 1, "temperature": 0.0,
                        "prompt_logprobs": 0, "cache_salt": digest});
                    let said = self.post("/v1/completions", Some(&asked)).await?;
                    let tokens = said["choices"][0]["prompt_logprobs"].as_array().cloned().unwrap_or_default();
                    let of = |(token, id): (&Value, &u32)| token[id.to_string()]["logprob"].as_f64();
                    logged.extend(tokens.iter().zip(&expected.ids).skip(1).filter_map(of));
                }
                (version, logged)
            }
        };
        if version != digest {
            return Err(format!("it answers with the weights {version}"));
        }
        if said.len() == expected.log_probabilities.len() && !said.is_empty() {
            let apart = said.iter().zip(&expected.log_probabilities).map(|(a, b)| (a - b).abs());
            let apart = apart.sum::<f64>() / said.len() as f64;
            if apart.is_nan() || apart > TOLERANCE {
                return Err(format!(
                    "it calls its weights {digest}, but says other things: log probabilities are {apart:.2} nats from the \
                     checkpoint's (vLLM on a CPU keeps a tied lm_head); leave `swap` out, so that servers are restarted"
                ));
            }
        }
        Ok(())
    }
}

async fn answer(path: &str, request: reqwest::RequestBuilder) -> Result<Value, String> {
    let response = request.send().await.map_err(|e| format!("{path}: {}", e.without_url()))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| format!("{path}: {}", e.without_url()))?;
    if !status.is_success() {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(format!("{path}: {status}: {shown}"));
    }
    // Some routes say nothing.
    Ok(serde_json::from_str(&text).unwrap_or_default())
}
