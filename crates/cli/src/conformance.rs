//! `rolegraft conformance`.

use crate::suites::{ALWAYS, SettingFlags};
use crate::talk::{note, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use rolegraft_conformance::{IN_PROCESS, Report, UnreadableError, runners};
use rolegraft_pipeline::DeviceName;
use rolegraft_suites::Registry;
use std::path::PathBuf;
use std::process::ExitCode;

type Replay = fn(&Conformance) -> Result<Report, UnreadableError>;

/// Recordings of what all benchmarks rest on.
const KINDS: [(&str, &str, Replay); 7] = [
    ("merge", "Merges recorded of mergekit and the methods' own programs", |c| rolegraft_conformance::merge(&c.traces)),
    ("lora", "LoRA adapters, by PEFT", |c| rolegraft_conformance::lora(&c.traces)),
    ("least-squares", "Least-squares merges, by the formulas in F64", |c| {
        rolegraft_conformance::least_squares(&c.traces)
    }),
    ("chat", "Conversations as transformers renders them, and tokens of texts", |c| {
        rolegraft_conformance::chat(&c.traces)
    }),
    ("parse", "Replies as the official harnesses parsed them", |c| {
        rolegraft_conformance::parse(&c.traces, &Registry::default())
    }),
    (
        "saliency",
        "Saliencies recorded of PyTorch; `--data` is where model folders are that do not lie beside the recordings",
        |c| rolegraft_conformance::saliency(&c.traces, c.data.as_deref(), c.device),
    ),
    ("engine", "Greedy decoding recorded of transformers, under each engine; `--data` as for saliency", |c| {
        let named = c.engine.iter().map(String::as_str);
        let names: Vec<&str> = if c.engine.is_empty() { IN_PROCESS.into() } else { named.collect() };
        rolegraft_conformance::engine(&c.traces, c.data.as_deref(), &runners(names, c.device)?)
    }),
];

fn kinds() -> PossibleValuesParser {
    let ours = KINDS.into_iter().map(|(name, help, _)| PossibleValue::new(name).help(help));
    let registry = Registry::default();
    let of = |(name, help)| PossibleValue::new(name).help(help);
    let theirs = registry.iter().filter_map(|b| Some((b.name(), b.recordings()?))).map(of);
    PossibleValuesParser::new(ours.chain(theirs).collect::<Vec<_>>())
}

#[derive(Args)]
pub(crate) struct Conformance {
    /// What was recorded.
    #[arg(value_parser = kinds())]
    kind: String,
    /// The recordings: for merge, lora and least-squares a folder with a manifest, or a folder of such folders; for saliency and engine a folder
    /// with cases.json; for the others a JSONL file (gzip-compressed or not), or a folder of them.
    #[arg(long)]
    traces: PathBuf,
    /// The official data, or folder of models, for the kinds that need any.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    data: Option<PathBuf>,
    /// For engine: hold only these to the recordings: candle, mistralrs, or a server that takes token ids, as vLLM does
    /// (`http://HOST/v1#MODEL`; key in ROLEGRAFT_API_KEY).
    #[arg(long, value_delimiter = ',')]
    engine: Vec<String>,
    /// For engine and saliency: where models are run: cpu, auto, cuda:N, metal:N.
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    #[command(flatten)]
    settings: SettingFlags<ALWAYS>,
}

impl Conformance {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let registry = Registry::default();
        let report = match KINDS.iter().find(|(name, ..)| *name == self.kind) {
            Some((_, _, replay)) => replay(self)?,
            None => {
                let data = self
                    .data
                    .as_deref()
                    .context("this kind needs the official data: give its folder with `--data DIR`")?;
                registry.replay(&self.kind, (&self.traces, data), &self.settings.resolve(&registry, &[])?)?
            }
        };
        say(&report.to_string());
        if report.verdicts.is_empty() && report.skipped.is_empty() {
            bail!("`{}` holds nothing of this kind to replay", self.traces.display());
        }
        if report.verdicts.is_empty() {
            note("nothing was compared: all cases were skipped");
            return Ok(ExitCode::from(3));
        }
        Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
