//! Engines as the conformance list sees them: one runner each.

use crate::UnreadableError;
use rolegraft_checkpoint::{Architecture, Checkpoint};
use rolegraft_decoder::{Decoder, DeviceName, Place, Precision};
use rolegraft_model::{Completions, EndpointConfig, KEY_VARIABLE};
use rolegraft_serve::{InProcess, Serving, lacks};
use rolegraft_trajectory::ChatArguments;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// An engine.
pub trait Runner {
    /// What reports call it.
    fn name(&self) -> &str;
    /// Makes it ready for the model in `dir`, which recordings call `model`.
    ///
    /// # Errors
    /// Why it cannot run it.
    fn load(&self, dir: &Path, model: &str) -> Result<Box<dyn Loaded>, String>;
}

/// A model in an engine.
pub trait Loaded {
    /// The likeliest `count` tokens after a prompt.
    ///
    /// # Errors
    /// Why there are none.
    fn greedy(&self, prompt: &[u32], count: usize) -> Result<Decoded, String>;

    /// Who decodes instead of the engine, and why, if another does.
    fn stand_in(&self) -> Option<String> {
        None
    }
}

/// What an engine decodes.
pub enum Decoded {
    /// Token ids.
    Ids(Vec<u32>),
    /// Their text, from a server that gives no ids.
    Text(String),
}

/// The names of the engines in process.
pub const IN_PROCESS: [&str; 2] = ["candle", "mistralrs"];

/// Runners by name: `candle`, `mistralrs`, or the address of a server, `http://HOST/v1[#MODEL]`, which is asked for the
/// recording's own name of a model if none is given. Those in process work on `device`.
///
/// # Errors
/// If a name is unknown, or the asynchronous runtime does not start.
pub fn runners<'n>(
    names: impl IntoIterator<Item = &'n str>,
    device: DeviceName,
) -> Result<Vec<Box<dyn Runner>>, UnreadableError> {
    let runtime = Arc::new(Runtime::new().map_err(|e| UnreadableError::Data(e.into()))?);
    let place = Place::open(device, Precision::F32).map_err(|e| UnreadableError::Data(e.into()))?;
    let one = |name: &str| -> Result<Box<dyn Runner>, UnreadableError> {
        match name {
            "candle" => Ok(Box::new(Candle(place.clone()))),
            "mistralrs" => Ok(Box::new(Mistralrs(place.clone(), runtime.clone()))),
            _ if name.starts_with("http://") || name.starts_with("https://") => {
                Ok(Box::new(Server { address: name.to_owned(), runtime: runtime.clone() }))
            }
            _ => Err(UnreadableError::Data(
                format!("there is no engine `{name}`: candle, mistralrs, or a server as http://HOST/v1#MODEL").into(),
            )),
        }
    };
    names.into_iter().map(one).collect()
}

struct Candle(Place);

impl Runner for Candle {
    fn name(&self) -> &str {
        "candle"
    }
    fn load(&self, dir: &Path, _: &str) -> Result<Box<dyn Loaded>, String> {
        let checkpoint = Checkpoint::open(dir).map_err(|e| e.to_string())?;
        Ok(Box::new(Decoder::load(&checkpoint, &self.0).map_err(|e| e.to_string())?))
    }
}

impl Loaded for Decoder {
    fn greedy(&self, prompt: &[u32], count: usize) -> Result<Decoded, String> {
        let (mut cache, mut next, mut ids) = (self.cache(), prompt.to_vec(), Vec::new());
        while ids.len() < count {
            let logits = self.forward(&next, &mut cache).map_err(|e| e.to_string())?;
            let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32;
            ids.push(best);
            next = vec![best];
        }
        Ok(Decoded::Ids(ids))
    }
}

struct Mistralrs(Place, Arc<Runtime>);

/// Our own decoder, where mistral.rs does not do something of the architecture: as in the loop.
struct Instead(Decoder, String);

impl Loaded for Instead {
    fn greedy(&self, prompt: &[u32], count: usize) -> Result<Decoded, String> {
        self.0.greedy(prompt, count)
    }
    fn stand_in(&self) -> Option<String> {
        Some(format!("our own decoder, for {}", self.1))
    }
}

impl Runner for Mistralrs {
    fn name(&self) -> &str {
        "mistralrs"
    }
    fn load(&self, dir: &Path, _: &str) -> Result<Box<dyn Loaded>, String> {
        let checkpoint = Checkpoint::open(dir).map_err(|e| e.to_string())?;
        let architecture = Architecture::of(&checkpoint).map_err(|e| e.to_string())?;
        if let Some(what) = lacks(&architecture, self.0.is_cpu()) {
            return Ok(Box::new(Instead(Decoder::load(&checkpoint, &self.0).map_err(|e| e.to_string())?, what)));
        }
        let serving =
            if self.0.is_cpu() { Serving::Cpu { engines: 1 } } else { Serving::Card { at_once: Serving::AT_ONCE } };
        let opened = self.1.block_on(InProcess::open(&checkpoint, serving, &ChatArguments::default()));
        Ok(Box::new((opened.map_err(|e| e.to_string())?, self.1.clone())))
    }
}

impl Loaded for (InProcess, Arc<Runtime>) {
    fn greedy(&self, prompt: &[u32], count: usize) -> Result<Decoded, String> {
        self.1.block_on(self.0.greedy(prompt, count)).map(Decoded::Ids).map_err(|e| e.to_string())
    }
}

struct Server {
    address: String,
    runtime: Arc<Runtime>,
}

impl Runner for Server {
    fn name(&self) -> &str {
        &self.address
    }
    fn load(&self, _: &Path, model: &str) -> Result<Box<dyn Loaded>, String> {
        let named = self.address.contains('#');
        let address = if named { self.address.clone() } else { format!("{}#{model}", self.address) };
        let client = Completions::new(EndpointConfig::of(&address, 1, vec![KEY_VARIABLE]));
        Ok(Box::new((client.map_err(|e| e.to_string())?, self.runtime.clone())))
    }
}

impl Loaded for (Completions, Arc<Runtime>) {
    fn greedy(&self, prompt: &[u32], count: usize) -> Result<Decoded, String> {
        let continued = self.1.block_on(self.0.greedy(prompt, count)).map_err(|e| e.to_string())?;
        Ok(continued.ids.map_or(Decoded::Text(continued.text), Decoded::Ids))
    }
}
