//! `rolegraft merge`.

use crate::talk::{ByteReporter, Reporter, bytes, peak_memory, say, stop_flag, tell};
use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use rolegraft_pipeline::{
    Bytes, Execution, Location, Outcome, Plan, PlanOptions, Recipe, check_merge, execute_merge, plan_adapted,
    plan_merge, recipe_text,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Merge {
    /// The recipe: mergekit's YAML, or the same in TOML.
    #[arg(required_unless_present = "adapter")]
    recipe: Option<PathBuf>,
    /// Where the named results of a recipe file with several YAML documents go; what is there already is not made again.
    #[arg(long, short = 'I', value_name = "DIR")]
    intermediate_dir: Option<PathBuf>,
    /// Apply this LoRA adapter to --base instead of following a recipe.
    #[arg(long, requires = "base", conflicts_with = "recipe")]
    adapter: Option<PathBuf>,
    /// The checkpoint that --adapter is for.
    #[arg(long, requires = "adapter")]
    base: Option<PathBuf>,
    /// Dtype of the result [default: the base's].
    #[arg(long, requires = "adapter")]
    dtype: Option<String>,
    /// Where the merged checkpoint goes; must not exist, or be empty.
    #[arg(long, short, alias = "out-path", required_unless_present_any = ["out_path", "dry_run", "explain"])]
    out: Option<PathBuf>,
    #[arg(hide = true, conflicts_with = "out")]
    out_path: Option<PathBuf>,
    /// Threads (0: one a core). The bytes written do not depend on them.
    #[arg(long, short = 'j', alias = "num-threads", default_value_t = 0)]
    threads: usize,
    /// Largest shard, as 5GB, 500MB or a number of bytes.
    #[arg(long, alias = "out-shard-size", default_value = "5GB", value_parser = size)]
    shard_size: u64,
    /// Seed of random operators.
    #[arg(long, alias = "seed", default_value_t = 0)]
    random_seed: u64,
    /// Memory that a least-squares merge may use besides a layer's weights and statistics: `12GB` [default: half of what is
    /// free].
    #[arg(long)]
    memory: Option<Bytes>,
    /// Check everything and say what would be done, without reading or writing weights.
    #[arg(long)]
    dry_run: bool,
    /// Say what one tensor is made of, with its parameters, and stop.
    #[arg(long, value_name = "TENSOR")]
    explain: Option<String>,
    /// Merge NaN and infinite values as they are and count them, instead of stopping.
    #[arg(long, alias = "allow-nan")]
    allow_nonfinite: bool,
    /// Give rebuilt embeddings exactly the tokenizer's height, as mergekit does, instead of the inputs' padded height.
    #[arg(long)]
    exact_vocab: bool,
    /// Cut embeddings of different heights to the lowest, instead of refusing them.
    #[arg(long)]
    unsafe_truncate_embeddings: bool,
    #[command(flatten)]
    mergekit: MergekitFlags,
}

impl Merge {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        self.mergekit.explain();
        if self.adapter.is_some() {
            let location = Location { dir: self.base.clone().unwrap_or_default(), adapter: self.adapter.clone() };
            self.carry_out(&plan_adapted(&location.path(), self.dtype.as_deref())?, self.out())?;
            return Ok(ExitCode::SUCCESS);
        }
        let path = self.recipe.clone().unwrap_or_default();
        let intermediate = self.intermediate_dir.clone();
        let recipes = Recipe::read_all(&path, intermediate.as_deref().unwrap_or(Path::new("")))?;
        if recipes.len() > 1 && intermediate.is_none() {
            bail!(
                "`{}` holds {} recipes; say where named results go: --intermediate-dir DIR",
                path.display(),
                recipes.len()
            );
        }
        if recipes.len() > 1 && (self.dry_run || self.explain.is_some()) {
            bail!(
                "`{}` holds several recipes, of which later ones need what earlier ones make; give one alone",
                path.display()
            );
        }
        for (name, recipe) in recipes {
            let out = match &name {
                None => self.out().map(Path::to_owned),
                Some(name) => intermediate.as_ref().map(|dir| dir.join(name)),
            };
            let plan = self.plan(recipe)?;
            let Some(named) = name.as_ref().and(out.as_ref()) else {
                self.carry_out(&plan, out.as_deref())?;
                continue;
            };
            // Whole, since a merge gets its name at its end.
            match std::fs::read_to_string(named.join("mergekit_config.yml")) {
                Ok(text) if text == recipe_text(&plan) => tell!("{}: there already", named.display()),
                Ok(_) => bail!(
                    "`{}` holds what another recipe made; remove it, or give another --intermediate-dir",
                    named.display()
                ),
                Err(_) => self.carry_out(&plan, Some(named))?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn out(&self) -> Option<&Path> {
        self.out.as_deref().or(self.out_path.as_deref())
    }

    fn plan(&self, recipe: Recipe) -> Result<Plan> {
        let options =
            PlanOptions { truncate_embeddings: self.unsafe_truncate_embeddings, exact_vocab: self.exact_vocab };
        let reporter = Reporter::new();
        let plan = plan_merge(recipe, &options, &reporter);
        reporter.done();
        Ok(plan?)
    }

    fn carry_out(&self, plan: &Plan, out: Option<&Path>) -> Result<()> {
        if let Some(tensor) = &self.explain {
            let Some(text) = plan.explain(tensor) else {
                bail!(
                    "the merge has no tensor `{tensor}`; --dry-run lists the models, `rolegraft inspect` their tensors"
                );
            };
            say(&text);
            return Ok(());
        }
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        };
        if plan.recipe.fit.is_some() && (self.unsafe_truncate_embeddings || self.allow_nonfinite) {
            bail!(
                "a least-squares merge runs its models, which must be whole: --unsafe-truncate-embeddings and --allow-nonfinite \
                 cannot be had with it"
            );
        }
        describe(plan, threads);
        // A merge that is carried out checks this itself, before it writes.
        if self.dry_run {
            check_merge(plan)?;
        }
        let Some(out) = out.filter(|_| !self.dry_run) else { return Ok(()) };
        let reporter = Reporter::new();
        let (stop, started, progress) = (stop_flag()?, Instant::now(), ByteReporter::new());
        let outcome = execute_merge(
            plan,
            out,
            &Execution {
                threads: self.threads,
                shard_size: self.shard_size,
                seed: self.random_seed,
                allow_nonfinite: self.allow_nonfinite,
                stop: &stop,
                progress: &|p| progress.update(p.written, p.total, p.resumed, p.tensor),
                ..Execution::default()
            },
            self.memory,
            &reporter,
        );
        progress.done();
        reporter.done();
        let outcome = outcome?;
        self.conclude(plan, &outcome, out, started);
        Ok(())
    }

    fn conclude(&self, plan: &Plan, outcome: &Outcome, out: &Path, started: Instant) {
        if outcome.nonfinite_in > 0 {
            tell!("warning: {} NaN or infinite values in the inputs were merged as they are", outcome.nonfinite_in);
        }
        if outcome.nonfinite_out > outcome.nonfinite_in {
            tell!("warning: {} values of the output are NaN or infinite", outcome.nonfinite_out);
        }
        if !outcome.all_zero.is_empty() {
            tell!("warning: all zero: {}", outcome.all_zero.join(", "));
        }
        let seconds = started.elapsed().as_secs_f64();
        let (_, written) = plan.bytes();
        let rate = (written - outcome.resumed.min(written)) as f64 / seconds.max(1e-9);
        tell!(
            "{} tensors, {} in {seconds:.1} s ({}/s), peak memory {}",
            plan.outputs.len(),
            bytes(written),
            bytes(rate as u64),
            peak_memory().map_or_else(|| "unknown".into(), |n| bytes(n).to_string())
        );
        say(&out.display().to_string());
    }
}

/// What is going to be done, on stderr.
fn describe(plan: &Plan, threads: usize) {
    let spec = plan.recipe.operator.spec();
    let (read, written) = plan.bytes();
    let relaxed = if plan.recipe.aim.is_some() { ", relaxed by aim" } else { "" };
    let fitted = plan.recipe.fit.as_ref();
    let fitted =
        fitted.map_or(String::new(), |fit| format!("{}: linear maps by least squares; the rest by ", fit.method));
    tell!("{fitted}{}{relaxed}: {}", spec.name, spec.summary);
    for (i, model) in plan.models.iter().enumerate() {
        let role = if plan.recipe.base == Some(i) { " (base)" } else { "" };
        tell!("  {}{role}", model.name);
    }
    for note in &plan.notes {
        tell!("note: {note}");
    }
    tell!(
        "{} tensors, {} in, {} out; about {} of memory with {threads} threads",
        plan.outputs.len(),
        bytes(read),
        bytes(written),
        bytes(plan.memory(threads) + (32 << 20))
    );
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; give 5GB, 500MB, 100k or a number of bytes");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        // mergekit's letter for 10⁹.
        "b" | "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    bytes.ok_or_else(wrong)
}

/// Options that users of mergekit type and that mean nothing here, so that their command lines work as they are.
pub(crate) struct MergekitFlags(Vec<&'static str>);

const SWITCHES: [(&str, &str); 18] = [
    ("cuda", "merging runs on the processor"),
    ("low-cpu-memory", "memory is bounded anyway"),
    ("read-to-gpu", "merging runs on the processor"),
    ("gpu-rich", "merging runs on the processor"),
    ("multi-gpu", "merging runs on the processor"),
    ("lazy-unpickle", "only safetensors are read"),
    ("safe-serialization", "only safetensors are written"),
    ("copy-tokenizer", "tokenizer files always go with the weights"),
    ("no-copy-tokenizer", "tokenizer files always go with the weights"),
    ("clone-tensors", "tensors are never shared"),
    ("trust-remote-code", "no code of a checkpoint is ever run"),
    ("no-trust-remote-code", ""),
    ("async-write", "shards are always written while tensors are merged"),
    ("write-model-card", ""),
    ("no-write-model-card", "the card always goes with the weights"),
    ("quiet", ""),
    ("no-allow-crimes", ""),
    ("allow-crimes", "models of different architectures are refused all the same"),
];
const VALUED: [(&str, &str); 5] = [
    ("device", "merging runs on the processor"),
    ("write-threads", "writing needs no threads of its own"),
    ("transformers-cache", "models are looked for in the Hugging Face cache that HF_HOME names"),
    ("lora-merge-cache", "adapters are applied while they are read"),
    ("lora-merge-dtype", "adapters are applied in F32"),
];

impl MergekitFlags {
    /// Says what has no effect.
    fn explain(&self) {
        for flag in &self.0 {
            let why = SWITCHES.iter().chain(&VALUED).find(|(name, _)| name == flag).map_or("", |(_, why)| *why);
            if !why.is_empty() {
                tell!("note: --{flag} has no effect: {why}");
            }
        }
    }
}

impl FromArgMatches for MergekitFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let switches = SWITCHES.iter().filter(|(name, _)| matches.get_flag(name));
        let valued = VALUED.iter().filter(|(name, _)| matches.contains_id(name));
        Ok(Self(switches.chain(valued).map(|(name, _)| *name).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for MergekitFlags {
    fn augment_args(command: Command) -> Command {
        let switch = |(name, _): &(&'static str, _)| Arg::new(*name).long(*name).hide(true).action(ArgAction::SetTrue);
        let valued = |(name, _): &(&'static str, _)| Arg::new(*name).long(*name).hide(true).action(ArgAction::Set);
        command.args(SWITCHES.iter().map(switch)).args(VALUED.iter().map(valued))
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_mergekit_and_people_write_them() {
        let read = |t: &str| size(t).ok();
        assert_eq!(
            [read("5GB"), read("5B"), read("2m"), read("1gib"), read("77")],
            [Some(5_000_000_000), Some(5_000_000_000), Some(2_000_000), Some(1 << 30), Some(77)]
        );
        assert_eq!([read("0"), read("GB"), read("5XB"), read("99999999999GB"), read("-1")], [None; 5]);
    }
}
