//! Servers that play the checkpoints of a run, one checkpoint after another.

use crate::endpoints::EndpointRules;
use crate::engine_error::EngineError;
use crate::progress::Progress;
use rolegraft_checkpoint::Checkpoint;
use rolegraft_decoder::{Decoder, Place};
use rolegraft_model::{KEY_VARIABLE, ModelError, Probed, Sampling, Wanted, probe};
use rolegraft_servers::{Expected, Feed, Fleet, FleetError, ServerRules, Serving, sweep};
use rolegraft_trajectory::{ChatArguments, ChatTokenizer};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Runtime;

/// What a checkpoint is asked to say where weights were changed in a server that went on: prose, code and calls, in which
/// models differ.
const SAID: &str = "{\"name\": \"cancel_order\", \"arguments\": {\"order_id\": \"#W3507\", \"reason\": \"ordered by mistake\"}} \
    ls -la /etc | grep conf; the capital of France is Paris. def add(a, b): return a + b";

/// The servers of a run.
pub(crate) struct Servers {
    fleet: Mutex<Fleet>,
    rules: ServerRules,
    /// What a person should know of them, until it is told.
    told: Arc<Mutex<Vec<String>>>,
}

impl Servers {
    /// By their rules; their records and logs lie in `folder`.
    pub(crate) fn new(rules: &ServerRules, folder: &Path, stop: Arc<AtomicBool>) -> Result<Self, EngineError> {
        let told = Arc::<Mutex<Vec<String>>>::default();
        let into = told.clone();
        let tell =
            Arc::new(move |text: &str| into.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned()));
        let swept = sweep(folder).map_err(|source| FleetError::Files { path: folder.to_owned(), source })?;
        if swept > 0 {
            tell(&format!("{swept} servers that a run left behind, which was killed, are stopped"));
        }
        // The proxy of a machine knows nothing of its own servers.
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|e| ModelError::Fatal(format!("no HTTP client: {e}")))?;
        let fleet = Mutex::new(Fleet::new(rules.clone(), folder, http, stop, tell)?);
        Ok(Self { fleet, rules: rules.clone(), told })
    }

    /// What the digests of episodes say of the engine.
    pub(crate) fn name(&self, rules: &EndpointRules) -> String {
        let fields = serde_json::to_string(&rules.fields).unwrap_or_default();
        format!("Server {:?} {fields}", self.rules.kind)
    }

    /// Passes on what was told since.
    pub(crate) fn notes(&self, progress: &dyn Progress) {
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        told.iter().for_each(|text| progress.note(text));
    }

    /// Gives the servers a checkpoint, by directory, digest and name, and asks them for it.
    pub(crate) fn give(
        &self,
        (dir, digest, name): (&Path, String, String),
        (chat, rules): (&ChatArguments, &EndpointRules),
        (runtime, progress): (&Runtime, &dyn Progress),
    ) -> Result<Probed, EngineError> {
        let chat = ChatTokenizer::open(dir, chat)?;
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let context = chat.context().unwrap_or(4096);
        // A server that starts reads what it is given; one that goes on might keep what it has.
        let expected = self.rules.swap.and_then(|_| says(&dir, &chat)).unwrap_or_default();
        let feed = Feed { dir, digest, context, name, expected };
        let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = runtime.block_on(fleet.serve(&feed));
        drop(fleet);
        self.notes(progress);
        let Serving { urls, model, version, cache_salt } = serving?;
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_tokens: 1 };
        let wanted = Wanted { version, cache_salt, ..Wanted::text(Some(chat), sampling) };
        let address = format!("{}#{}", urls.join(","), model);
        let config = rules.config(&address, vec![KEY_VARIABLE]);
        let probed = runtime.block_on(probe(config, wanted))?;
        probed.notes.iter().for_each(|note| progress.note(note));
        Ok(probed)
    }
}

/// What a checkpoint says by the tracer's decoder; nothing where it does not know the architecture.
fn says(dir: &Path, chat: &ChatTokenizer) -> Option<Expected> {
    let decoder = Decoder::load(&Checkpoint::open(dir).ok()?, &Place::cpu()).ok()?;
    let ids = chat.vocabulary().encode(SAID).ok()?;
    let (mut cache, mut log_probabilities) = (decoder.cache(), Vec::new());
    for pair in ids.windows(2) {
        let logits = decoder.forward(&pair[..1], &mut cache).ok()?;
        let most = logits.iter().fold(f32::MIN, |most, logit| most.max(*logit));
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        let of = *logits.get(usize::try_from(pair[1]).ok()?)?;
        log_probabilities.push(f64::from(of - most) - sum.ln());
    }
    Some(Expected { ids, log_probabilities })
}
