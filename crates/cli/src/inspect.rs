//! `rolegraft inspect`, `diff` and `extract-lora`.

use crate::talk::{Reporter, say, stop_flag};
use anyhow::{Context, Result};
use clap::Args;
use rolegraft_pipeline::{Findings, compare, extract_lora, inspect};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
struct Form {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Also write a page with tables and charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Form {
    fn show(&self, findings: &Findings) -> Result<()> {
        if let Some(path) = &self.html {
            std::fs::write(path, &findings.html).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        if self.json {
            say(&serde_json::to_string_pretty(&findings.json)?);
        } else {
            say(findings.text.trim_end());
        }
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Diff {
    /// A checkpoint directory, BASE+ADAPTER, or a safetensors file.
    a: PathBuf,
    /// Another.
    b: PathBuf,
    /// Largest difference of two numbers that does not count.
    #[arg(long, default_value_t = 0.0)]
    atol: f64,
    #[command(flatten)]
    form: Form,
}

impl Diff {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let findings = compare(&self.a, &self.b, self.atol)?;
        self.form.show(&findings)?;
        Ok(if findings.exceeds { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// Checkpoint directories, or BASE+ADAPTER.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Also measure the task vectors against this base: norms, unchanged elements, cosines between the checkpoints.
    #[arg(long)]
    base: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

impl Inspect {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let reporter = Reporter::new();
        let dirs: Vec<&Path> = self.dirs.iter().map(PathBuf::as_path).collect();
        let findings = inspect(&dirs, self.base.as_deref(), &reporter);
        reporter.done();
        self.form.show(&findings?)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct ExtractLora {
    /// The checkpoint that was fine-tuned, or merged.
    model: PathBuf,
    /// What it came from.
    #[arg(long, alias = "base-model")]
    base: PathBuf,
    /// Rank of the adapter.
    #[arg(long, alias = "max-rank", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    rank: u32,
    /// Where the adapter goes, as PEFT reads it.
    #[arg(long, short, alias = "out-path")]
    out: PathBuf,
    #[command(flatten)]
    form: Form,
}

impl ExtractLora {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let (stop, reporter) = (stop_flag()?, Reporter::new());
        let findings = extract_lora((&self.model, &self.base), self.rank as usize, &self.out, &stop, &reporter);
        reporter.done();
        self.form.show(&findings?)?;
        Ok(ExitCode::SUCCESS)
    }
}
