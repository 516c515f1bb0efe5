//! Why a model cannot be opened, or does not answer.

use crate::compute::Bytes;
use rolegraft_checkpoint::OpenError;
use rolegraft_decoder::DecoderError;
use rolegraft_model::ModelError;
use rolegraft_serve::ServeError;
use rolegraft_servers::FleetError;
use rolegraft_trajectory::ChatError;
use std::path::PathBuf;

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum EngineError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Server(#[from] FleetError),
    #[error(
        "engine `server` plays on the servers of a table [server], which the experiment does not have: say its `kind`"
    )]
    NoServerTable,
    #[error(
        "only `run` and `ablate` start servers for checkpoints; give this model's own address, or another --engine"
    )]
    NoServers,
    #[error(
        "`{}` does not fit into memory: a copy in F32 has {one}, {needed} are needed, {free} are free; close what takes memory, \
         set fewer `engines`, or play it on a server (docs/servers.md)", dir.display()
    )]
    TooLarge { dir: PathBuf, one: Bytes, needed: Bytes, free: Bytes },
    #[error("mistral.rs plays on the first GPU that it sees, not on {0}: set CUDA_VISIBLE_DEVICES, and say cuda:0")]
    OtherCard(String),
    #[error(
        "`{model}` renders conversations on its own server: `{key}` (`--chat`, or under [chat]) is for checkpoints; name the \
         model's tokenizer with `--tokenizer DIR`, and its conversations are rendered here"
    )]
    Rendered { model: String, key: String },
}
