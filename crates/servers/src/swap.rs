//! How a server is given other weights while it runs, and how it proves that it has them.

use crate::http::{Said, said};
use crate::rules::Swap;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The SHA-256 of no bytes.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// SGLang's own routes.
const SGLANG: [&str; 2] = ["/update_weights_from_disk", "/generate"];

/// Why a server does not hold what it was given.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SwapError {
    #[error("no answer of {route}: {reason}")]
    Gone { route: &'static str, reason: String },
    #[error("{route} is not there; {mend}")]
    NoRoute { route: &'static str, mend: &'static str },
    #[error("{route} fails: {said}")]
    Refused { route: &'static str, said: String },
    #[error(
        "its weights are called `{found}` after they were to become `{wanted}`: it does not hold what it was given"
    )]
    Version { found: String, wanted: String },
    #[error("its weights are the same as before ({checksum}), though it was given another checkpoint")]
    Unchanged { checksum: String },
    #[error(
        "it says other things than the checkpoint that it was given: log probabilities are {apart:.2} nats apart; leave `swap` out, so that \
         servers are started again"
    )]
    Says { apart: f64 },
    #[error(
        "it cannot show that its output head changed: vLLM's build for CPUs keeps the head of its first checkpoint where it is tied to the embeddings; leave `swap` out, so that servers are started again"
    )]
    TiedHead,
}

/// Token ids with their log probabilities, each after those before it: what a checkpoint says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Of all but the first, in nats.
    pub log_probabilities: Vec<f64>,
}

/// How far log probabilities may be off in the mean, in nats: more than half precision makes of it, less than another model does.
const TOLERANCE: f64 = 0.1;

/// A server's routes.
pub(crate) struct Remote<'r> {
    pub(crate) http: &'r reqwest::Client,
    /// Its address, without `/v1`.
    pub(crate) base: &'r str,
    pub(crate) timeout: Duration,
}

impl Remote<'_> {
    async fn post(&self, route: &'static str, body: Option<Value>) -> Result<Value, SwapError> {
        let mut request = self.http.post(format!("{}{route}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.answer(route, said(request, self.timeout).await)
    }

    fn answer(&self, route: &'static str, said: Result<Said, String>) -> Result<Value, SwapError> {
        let said = said.map_err(|reason| SwapError::Gone { route, reason })?;
        match said.status {
            404 if SGLANG.contains(&route) => {
                Err(SwapError::NoRoute { route, mend: "is it SGLang, as `swap` says, and its address?" })
            }
            404 => Err(SwapError::NoRoute {
                route,
                mend: "vLLM has it with VLLM_SERVER_DEV_MODE=1, which no key protects: on a private network only",
            }),
            // vLLM and SGLang say it with a status, with a flag, or with both.
            _ if !said.is_good() || said.json["success"] == false => {
                Err(SwapError::Refused { route, said: said.words() })
            }
            _ => Ok(said.json),
        }
    }

    /// Lets open requests end and takes no more.
    pub(crate) async fn drain(&self, swap: Swap) -> Result<(), SwapError> {
        match swap {
            // It waits by itself.
            Swap::Sglang => Ok(()),
            Swap::Vllm => self.post("/pause?mode=wait", None).await.map(|_| ()),
        }
    }

    /// Loads the weights at `dir`, forgets what was computed with others, and takes requests again.
    pub(crate) async fn load(&self, swap: Swap, dir: &str, digest: &str) -> Result<(), SwapError> {
        match swap {
            Swap::Sglang => {
                let body = json!({"model_path": dir, "weight_version": digest, "flush_cache": true});
                self.post(SGLANG[0], Some(body)).await?;
            }
            Swap::Vllm => {
                let kwargs = json!({"weights_path": dir, "is_checkpoint_format": true});
                let body = json!({"method": "reload_weights", "kwargs": kwargs});
                // Where this fails the server stays paused: it may hold half of each checkpoint.
                self.post("/collective_rpc", Some(body)).await?;
                self.post("/reset_prefix_cache", None).await?;
                self.post("/update_weight_version", Some(json!({"new_version": digest}))).await?;
                self.post("/resume", None).await?;
            }
        }
        Ok(())
    }

    /// That a server calls its weights by this digest.
    pub(crate) async fn called(&self, swap: Swap, digest: &str) -> Result<(), SwapError> {
        let found = match swap {
            Swap::Sglang => {
                let body = json!({"text": "Hi", "sampling_params": {"max_new_tokens": 1, "temperature": 0}});
                self.post(SGLANG[1], Some(body)).await?["meta_info"]["weight_version"].take()
            }
            Swap::Vllm => {
                let route = "/weight_info";
                let said = said(self.http.get(format!("{}{route}", self.base)), self.timeout).await;
                self.answer(route, said)?["weight_version"].take()
            }
        };
        if found == digest {
            return Ok(());
        }
        let found = found.as_str().map_or("nothing".to_owned(), |found| found.chars().take(80).collect());
        Err(SwapError::Version { found, wanted: digest.to_owned() })
    }

    /// That a server says what its checkpoint says, where it gives log probabilities of a prompt.
    pub(crate) async fn says(&self, swap: Swap, model: &str, expected: &Expected) -> Result<(), SwapError> {
        let Expected { ids, log_probabilities } = expected;
        let said: Vec<f64> = match swap {
            _ if ids.is_empty() => return Ok(()),
            Swap::Sglang => {
                let sampling = json!({"max_new_tokens": 1, "temperature": 0});
                let body = json!({"input_ids": ids, "sampling_params": sampling, "return_logprob": true, "logprob_start_len": 0});
                let mut answer = self.post(SGLANG[1], Some(body)).await?;
                let tokens = answer["meta_info"]["input_token_logprobs"].take();
                tokens.as_array().into_iter().flatten().skip(1).filter_map(|token| token[0].as_f64()).collect()
            }
            Swap::Vllm => {
                let body =
                    json!({"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0});
                let mut answer = self.post("/v1/completions", Some(body)).await?;
                let tokens = answer["choices"][0]["prompt_logprobs"].take();
                let of = |(token, id): (&Value, &u32)| token[id.to_string()]["logprob"].as_f64();
                tokens.as_array().into_iter().flatten().zip(ids).skip(1).filter_map(of).collect()
            }
        };
        if said.len() != log_probabilities.len() {
            return Ok(());
        }
        let apart = said.iter().zip(log_probabilities).map(|(a, b)| (a - b).abs()).sum::<f64>() / said.len() as f64;
        if apart.is_nan() || apart > TOLERANCE { Err(SwapError::Says { apart }) } else { Ok(()) }
    }

    /// What a server's weights are, where it tells: one digest of the checksums of all tensors.
    pub(crate) async fn checksum(&self, swap: Swap) -> Result<Option<Checksum>, SwapError> {
        if swap == Swap::Sglang {
            return Ok(None);
        }
        let route = "/weight_checker";
        let sums = self.post(route, Some(json!({"action": "checksum"}))).await?;
        let sums: Option<BTreeMap<&String, &str>> =
            sums["checksums"].as_object().and_then(|sums| sums.iter().map(|(k, v)| Some((k, v.as_str()?))).collect());
        let sums = sums.filter(|sums| !sums.is_empty());
        let sums = sums.ok_or_else(|| SwapError::Refused { route, said: "no checksums".into() })?;
        let whole = Sha256::digest(format!("{sums:?}"));
        Ok(Some(Checksum {
            all: whole.iter().take(6).map(|b| format!("{b:02x}")).collect(),
            is_whole: !sums.values().any(|sum| *sum == OF_NOTHING),
        }))
    }
}

/// A digest of a server's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) all: String,
    /// Whether all tensors are in it: vLLM's build for CPUs packs some away.
    is_whole: bool,
}

impl Checksum {
    /// That the weights at `dir` can have replaced others.
    pub(crate) fn covers(&self, dir: &Path) -> Result<(), SwapError> {
        let config = fs::read(dir.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        // Where it is not said, it depends on the architecture.
        let may_be_tied = config["tie_word_embeddings"] != false;
        if may_be_tied && !self.is_whole { Err(SwapError::TiedHead) } else { Ok(()) }
    }
}
