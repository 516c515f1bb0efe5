//! `nano build`: trains the pool, checkpoint by checkpoint, and resumes where it was stopped.

use crate::dialogues::{Member, dialogue};
use crate::tasks::{Suite, generate};
use crate::tokenizer;
use crate::train::network::{Network, Shape};
use crate::train::{Recipe, State, init, step};
use crate::words::Split;
use rolegraft_checkpoint::{Dtype, WriteError, Writer, write_atomic};
use rolegraft_trajectory::Seed;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The pool's shape: 984,448 parameters.
pub const SHAPE: Shape =
    Shape { vocab: tokenizer::VOCAB, hidden: 128, intermediate: 384, layers: 4, heads: 4, head_dim: 32 };
/// Longest training dialogue, in tokens.
const MAX_LEN: usize = 1024;
/// Steps between saved states: what a kill can cost.
const SAVE_EVERY: u64 = 50;

/// How each checkpoint is trained.
#[must_use]
pub fn recipe(member: Member) -> Recipe {
    match member {
        Member::Base => Recipe { tokens: 5_000_000, learning_rate: 2e-3, context_weight: 0.1 },
        Member::Tau => Recipe { tokens: 900_000, learning_rate: 8e-4, context_weight: 0.0 },
        Member::Office | Member::AgentBench => Recipe { tokens: 1_500_000, learning_rate: 8e-4, context_weight: 0.0 },
    }
}

/// What a build reports as it goes.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The checkpoint in training.
    pub member: Member,
    /// Tokens read so far.
    pub tokens: u64,
    /// Tokens to read.
    pub of: u64,
    /// Mean loss of the last step, in nats per unit of weight.
    pub loss: f64,
}

/// Why a build stopped.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file could not be read or written.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A checkpoint could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tokenizer library refused.
    #[error("the tokenizer could not be trained: {0}")]
    Tokenizer(String),
    /// The caller asked to stop; the state is saved.
    #[error("interrupted; run the same command to go on")]
    Interrupted,
}

/// `config.json` of every checkpoint: any loader of Qwen3 reads it.
fn config() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": SHAPE.vocab, "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.intermediate, "num_hidden_layers": SHAPE.layers, "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.heads, "head_dim": SHAPE.head_dim, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "max_position_embeddings": MAX_LEN, "tie_word_embeddings": true, "attention_bias": false,
        "attention_dropout": 0.0, "use_cache": true, "use_sliding_window": false, "sliding_window": null,
        "max_window_layers": SHAPE.layers, "initializer_range": 0.02, "bos_token_id": null, "eos_token_id": tokenizer::END,
        "pad_token_id": tokenizer::PAD, "torch_dtype": "bfloat16",
    })
}

/// Writes one checkpoint as a Hugging Face directory in BF16.
fn export(out: &Path, member: Member, seed: Seed, params: &[f32], tokenizer: &Tokenizer) -> Result<(), BuildError> {
    let dir = out.join(member.id());
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|source| BuildError::Io { path: dir.clone(), source })?;
    }
    let slots = SHAPE.slots();
    let plan: Vec<_> = slots.iter().map(|s| (s.name.clone(), Dtype::BF16, s.shape.clone())).collect();
    let mut writer = Writer::create(&dir, &plan, u64::MAX)?;
    for slot in &slots {
        writer.write(&slot.name, &Dtype::BF16.from_f32(&params[slot.range.clone()]).unwrap_or_default())?;
    }
    let tokenizer_config = serde_json::json!({
        "tokenizer_class": "Qwen2Tokenizer", "model_max_length": MAX_LEN, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "chat_template": tokenizer::CHAT_TEMPLATE, "clean_up_tokenization_spaces": false,
        "add_prefix_space": false,
    });
    let generation = serde_json::json!({
        "eos_token_id": [tokenizer::END, tokenizer::PAD], "pad_token_id": tokenizer::PAD, "do_sample": true,
        "temperature": 0.7, "top_p": 1.0,
    });
    let recipe = recipe(member);
    let suites: Vec<&str> = member.suites().iter().map(|s| s.id()).collect();
    let card = format!(
        "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n# rolegraft nano: {}\n\nA {}-parameter Qwen3 for trying \
         rolegraft on a laptop, trained on generated dialogues of {} (seed {}, {} tokens, peak learning rate {}).\n",
        member.id(),
        params.len(),
        suites.join(", "),
        seed.0,
        recipe.tokens,
        recipe.learning_rate
    );
    let pretty = |v: &serde_json::Value| serde_json::to_vec_pretty(v).unwrap_or_default();
    let words = tokenizer.to_string(false).map_err(|e| BuildError::Tokenizer(e.to_string()))?;
    writer.finish(
        &out.join("no-such-directory"),
        &[
            ("config.json", pretty(&config())),
            ("generation_config.json", pretty(&generation)),
            ("tokenizer.json", words.into_bytes()),
            ("tokenizer_config.json", pretty(&tokenizer_config)),
            ("README.md", card.into_bytes()),
        ],
    )?;
    Ok(())
}

/// Writes the played splits of every suite's tasks to `benchmarks/SUITE/nano/SPLIT.jsonl`, `count` tasks each.
///
/// # Errors
/// If a file cannot be written.
pub fn write_tasks(benchmarks: &Path, seed: Seed, count: u64) -> Result<(), BuildError> {
    for suite in Suite::ALL {
        for split in Split::PLAYED {
            let tasks = (0..count).map(|i| generate(suite, split, seed, i).task.to_string() + "\n");
            let path = benchmarks.join(suite.id()).join("nano").join(format!("{}.jsonl", split.as_str()));
            write_atomic(&path, tasks.collect::<String>().as_bytes())?;
        }
    }
    Ok(())
}

/// Trains the pool into `out`, calling `report` after every step until it returns false.
///
/// # Errors
/// If a file cannot be written, or when `report` asks to stop.
pub fn build(out: &Path, seed: Seed, report: &mut dyn FnMut(Progress) -> bool) -> Result<(), BuildError> {
    let work = out.join(".build");
    std::fs::create_dir_all(&work).map_err(|source| BuildError::Io { path: work.clone(), source })?;
    let tokenizer = tokenizer::train(seed).map_err(|e| BuildError::Tokenizer(e.to_string()))?;
    let mut base = None;
    for member in Member::ALL {
        let start = || base.clone().unwrap_or_else(|| init::copy_primed(SHAPE, seed));
        let params = train(&work, member, seed, &tokenizer, start, report)?;
        export(out, member, seed, &params, &tokenizer)?;
        if member == Member::Base {
            base = Some(params);
        }
    }
    Ok(())
}

fn train(
    work: &Path,
    member: Member,
    seed: Seed,
    tokenizer: &Tokenizer,
    start: impl FnOnce() -> Vec<f32>,
    report: &mut dyn FnMut(Progress) -> bool,
) -> Result<Vec<f32>, BuildError> {
    let network = Network::new(SHAPE, MAX_LEN);
    let recipe = recipe(member);
    let path = work.join(format!("{}.state", member.id()));
    let mut state = load(&path, network.parameters()).unwrap_or_else(|| State::new(start()));
    let next = |index: u64| {
        let mut tokens = tokenizer::encode(tokenizer, &dialogue(member, seed, index)).unwrap_or_default();
        tokens.truncate(MAX_LEN);
        tokens
    };
    while state.tokens < recipe.tokens {
        let loss = step(&network, &recipe, &mut state, &next);
        let go_on = report(Progress { member, tokens: state.tokens, of: recipe.tokens, loss });
        if !go_on || state.step.is_multiple_of(SAVE_EVERY) || state.tokens >= recipe.tokens {
            save(&path, &state)?;
        }
        if !go_on {
            return Err(BuildError::Interrupted);
        }
    }
    Ok(state.params)
}

/// `step, read, tokens`, then parameters and both moments, all little-endian.
fn save(path: &Path, state: &State) -> Result<(), WriteError> {
    let mut bytes = Vec::with_capacity(24 + 12 * state.params.len());
    for n in [state.step, state.read, state.tokens] {
        bytes.extend(n.to_le_bytes());
    }
    for numbers in [&state.params, &state.first, &state.second] {
        numbers.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    }
    write_atomic(path, &bytes)
}

fn load(path: &Path, parameters: usize) -> Option<State> {
    let bytes = std::fs::read(path).ok()?;
    if bytes.len() != 24 + 12 * parameters {
        return None;
    }
    let count = |i: usize| Some(u64::from_le_bytes(bytes.get(8 * i..8 * i + 8)?.try_into().ok()?));
    let numbers: Vec<f32> = bytes[24..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Some(State {
        step: count(0)?,
        read: count(1)?,
        tokens: count(2)?,
        params: numbers[..parameters].to_vec(),
        first: numbers[parameters..2 * parameters].to_vec(),
        second: numbers[2 * parameters..].to_vec(),
    })
}
