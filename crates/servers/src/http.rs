//! Short questions to servers.

use serde_json::Value;
use std::time::Duration;

/// Longest answer read, in bytes: a checksum of each tensor of the largest models fits.
const LONGEST: usize = 16 << 20;
/// Characters of an answer that are shown.
const SHOWN: usize = 400;

/// What a server says: a status, and JSON where it is some.
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) json: Value,
    text: String,
}

impl Said {
    pub(crate) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
    /// Its words, for people.
    pub(crate) fn words(&self) -> String {
        let text: String = self.text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        format!("{}: {text}", self.status)
    }
}

/// Sends a request and reads what comes back; the reason, where nothing does.
pub(crate) async fn said(request: reqwest::RequestBuilder, timeout: Duration) -> Result<Said, String> {
    let ask = async {
        let mut response = request.timeout(timeout).send().await?;
        let (status, mut bytes) = (response.status().as_u16(), Vec::new());
        while let Some(chunk) = response.chunk().await?.filter(|_| bytes.len() <= LONGEST) {
            bytes.extend_from_slice(&chunk);
        }
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Said { status, json, text: String::from_utf8_lossy(&bytes).into_owned() })
    };
    ask.await.map_err(|error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    })
}

/// The models that a server lists, each with its name and what else is said of it.
pub(crate) async fn models(http: &reqwest::Client, base: &str, timeout: Duration) -> Result<Vec<Value>, String> {
    let said = said(http.get(format!("{base}/v1/models")), timeout).await?;
    let models = said.json["data"].as_array().filter(|_| said.is_good()).cloned();
    models.ok_or_else(|| format!("/v1/models gives no list: {}", said.words()))
}

/// Names of models.
pub(crate) fn names(models: &[Value]) -> Vec<&str> {
    models.iter().filter_map(|model| model["id"].as_str()).collect()
}
