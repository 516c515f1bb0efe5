//! `rolegraft eval` and `rolegraft score`.

use crate::commands::{ChatFlags, Engine};
use crate::conformance::AgentBenchFlags;
use crate::report::Prices;
use crate::talk::{Quiet, Reporter, Terminal, say, stop_flag};
use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use rolegraft_pipeline::{
    AgentBenchOptions, AgentBenchProtocol, ChatArguments, Episode, Mode, OfficeOptions, Profile, Progress, Protocol,
    Runtime, Shell, Solo, Speaker, Split, Strategy, SuiteLibrary, SuiteOptions, TauOptions, evaluate, rescore,
};
use rolegraft_report::{Price, SuiteScore, Tally, cascades, failure_rates, spending, suite_scores};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    Calibration,
    Dev,
    Test,
}

/// A parser of the names in `all`.
pub(crate) fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|one| name(*one)))
        .try_map(move |text| all.iter().copied().find(|one| name(*one) == text).ok_or("unknown name"))
}

/// Flags of commands that set up a suite.
#[derive(Args)]
pub(crate) struct SuiteFlags {
    /// Folder of the suites' folders.
    #[arg(long, default_value = "benchmarks")]
    pub(crate) suites: PathBuf,
    /// Play the official tasks in this folder (tau-retail, tau-airline, officebench-2-apps, officebench-3-apps, os,
    /// dbbench, webshop, alfworld) instead of the built-in ones.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// OfficeBench's official tasks as published, oddities and all, or with these mended (not comparable with published
    /// scores; docs/officebench.md lists them).
    #[arg(long, default_value = "official", value_parser = one_of(&Mode::ALL, Mode::as_str))]
    pub(crate) mode: Mode,
    /// How an agent speaks on AgentBench's official tasks: in words, or with the endpoint's own tool calls.
    #[arg(long, default_value = "text", value_parser = one_of(&AgentBenchProtocol::ALL, AgentBenchProtocol::as_str))]
    protocol: AgentBenchProtocol,
    /// What an agent sees of AgentBench's shell: its output, or what upstream's terminal reader makes of it.
    #[arg(long, default_value = "clean", value_parser = one_of(&Shell::ALL, Shell::as_str))]
    shell: Shell,
    /// Which generation of ALFWorld's texts: AgentBench's, or what the game files say.
    #[arg(long, default_value = "classic", value_parser = one_of(&Profile::ALL, Profile::as_str))]
    profile: Profile,
    #[command(flatten)]
    places: AgentBenchFlags,
}

impl SuiteFlags {
    /// The suite, to be looked at without a model.
    pub(crate) fn library(&self, suite: &str, chat: &ChatArguments) -> Result<SuiteLibrary> {
        let runtime = Runtime::new()?;
        let (tau, agentbench) = (TauOptions::default(), self.agentbench());
        Ok(SuiteLibrary::open(&self.options(&tau, &agentbench, &runtime, chat), suite)?)
    }

    /// How suites are set up, where no model plays.
    fn options<'o>(
        &'o self,
        tau: &'o TauOptions,
        agentbench: &'o AgentBenchOptions,
        runtime: &'o Runtime,
        chat: &'o ChatArguments,
    ) -> SuiteOptions<'o> {
        SuiteOptions {
            root: &self.suites,
            data: self.data.as_deref(),
            tau,
            office: OfficeOptions { mode: self.mode },
            agentbench,
            person: None,
            runtime: runtime.handle(),
            engine: Engine::Candle.into(),
            chat,
            progress: None,
        }
    }

    pub(crate) fn agentbench(&self) -> AgentBenchOptions {
        AgentBenchOptions {
            protocol: self.protocol,
            shell: self.shell,
            alfworld_profile: self.profile,
            ..self.places.options()
        }
    }
}

/// How an agent calls tools.
#[derive(Args)]
struct FormatFlag {
    /// How an agent calls tools on official τ-bench tasks: `<tool_call>` blocks in the text (default), the endpoint's own
    /// tool calls, `Thought:` and `Action:` in the text, or `Action:` alone.
    #[arg(long, value_parser = one_of(&Protocol::ALL, Protocol::as_str))]
    format: Option<Protocol>,
}

#[derive(Args)]
pub(crate) struct Eval {
    /// A checkpoint directory, or an endpoint as `http://HOST/v1#MODEL` (several: separated by commas; key in
    /// ROLEGRAFT_API_KEY).
    #[arg(long)]
    model: String,
    /// The suite: a folder under --suites.
    #[arg(long)]
    suite: String,
    #[command(flatten)]
    setup: SuiteFlags,
    #[command(flatten)]
    calls: FormatFlag,
    /// Who plays τ-bench's user: a rule (no model needed, but not comparable with published scores), you, or a model with
    /// one of upstream's strategies.
    #[arg(long, default_value = "scripted", value_parser = one_of(&Strategy::ALL, Strategy::as_str))]
    user: Strategy,
    /// The model that plays the user: an endpoint (key in ROLEGRAFT_USER_API_KEY) or a checkpoint directory.
    #[arg(long)]
    user_model: Option<String>,
    /// Leave out official tasks whose expected outcome is known to be wrong.
    #[arg(long)]
    exclude_known_bad: bool,
    /// Which tasks.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// Only the first N tasks.
    #[arg(short, long)]
    n: Option<usize>,
    /// Episodes a task; more than one gives pass^k.
    #[arg(long, default_value_t = 1)]
    trials: u32,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What plays a checkpoint.
    #[arg(long, value_enum, default_value = "mistralrs")]
    engine: Engine,
    /// Engines side by side (0: one a core).
    #[arg(long, default_value_t = 0)]
    engines: usize,
    #[command(flatten)]
    chat: ChatFlags,
    #[command(flatten)]
    prices: Prices,
    /// Episode log; an existing one is resumed.
    #[arg(long)]
    log: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let tau = TauOptions {
            format: self.calls.format,
            user: self.user,
            user_model: self.user_model.clone(),
            exclude_known_bad: self.exclude_known_bad,
        };
        let person: Option<Arc<dyn Speaker>> =
            if self.user == Strategy::Human { Some(Arc::new(Terminal)) } else { None };
        let solo = Solo {
            model: &self.model,
            suites: &self.setup.suites,
            suite: &self.suite,
            data: self.setup.data.as_deref(),
            tau: &tau,
            office: OfficeOptions { mode: self.setup.mode },
            agentbench: &self.setup.agentbench(),
            person: person.clone(),
            split: match self.split {
                SplitName::Calibration => Split::Calibration,
                SplitName::Dev => Split::Dev,
                SplitName::Test => Split::Test,
            },
            tasks: self.n,
            trials: self.trials,
            seed: self.seed,
            engine: self.engine.into(),
            engines: self.engines,
            chat: &self.chat.arguments()?,
        };
        let reporter = Reporter::new();
        // A bar would be drawn over what a person types.
        let progress: &dyn Progress = if person.is_some() { &Quiet } else { &reporter };
        let outcome = evaluate(&solo, &self.log, &stop_flag()?, progress);
        reporter.done();
        let episodes = outcome?;
        for score in suite_scores(&Tally::of(&episodes), self.seed) {
            say(&if self.json { self.as_json(&score, &episodes).to_string() } else { self.as_text(&score, &episodes) });
        }
        Ok(ExitCode::SUCCESS)
    }

    fn as_text(&self, score: &SuiteScore, episodes: &[Episode]) -> String {
        let rates = failure_rates(episodes);
        let percent = |x: f64| format!("{:.1}", 100.0 * x);
        let kinds: Vec<String> = rates.kinds.iter().map(|(k, r)| format!("{} {} %", k.as_str(), percent(*r))).collect();
        let mut text = format!(
            "{} {} (95 % {} to {}; {} tasks, {} episodes; turns with a violation {} %: {})",
            score.suite,
            percent(score.reward),
            percent(score.interval.0),
            percent(score.interval.1),
            score.tasks,
            rates.episodes,
            percent(rates.turn_violations),
            kinds.join(", ")
        );
        if score.trials > 1 {
            let passes: Vec<String> =
                score.pass.iter().enumerate().map(|(i, p)| format!("pass^{} {}", i + 1, percent(*p))).collect();
            text += &format!("\n{}", passes.join(", "));
        }
        if rates.drafts > 0.0 {
            text +=
                &format!("\ncalls that were only considered, in reasoning: in {} % of turns", percent(rates.drafts));
        }
        let (agent, users) = spending(episodes);
        for (who, spent, price) in [("agent", agent, self.prices.price), ("users", users, self.prices.user_price)] {
            if !spent.is_nothing() {
                let cost = price.map_or(String::new(), |p: Price| format!(", cost {:.2}", p.of(&spent)));
                text += &format!(
                    "\n{who}: {} calls, {} failed tries, {} + {} tokens{cost}",
                    spent.calls, spent.failures, spent.prompt_tokens, spent.completion_tokens
                );
            }
        }
        text
    }

    fn as_json(&self, score: &SuiteScore, episodes: &[Episode]) -> Value {
        let rates = failure_rates(episodes);
        let kinds: Map<String, Value> = rates.kinds.iter().map(|(k, r)| (k.as_str().to_owned(), json!(r))).collect();
        let (agent, users) = spending(episodes);
        let patterns = cascades(episodes).map(|c| {
            json!({"repeated_failure": c.repeated_failure, "redundant_query": c.redundant_query,
                   "redundant_calls": c.redundant_calls, "missing_action": c.missing_action,
                   "wrong_target": c.wrong_target, "needless_change": c.needless_change})
        });
        json!({
            "suite": score.suite, "score": 100.0 * score.reward, "interval": score.interval, "tasks": score.tasks,
            "trials": score.trials, "pass_hat": score.pass, "episodes": rates.episodes,
            "turn_violations": rates.turn_violations, "kinds": kinds, "turns_with_drafted_calls": rates.drafts, "cascades": patterns,
            "agent": agent, "users": users, "cost": self.prices.price.map(|p| p.of(&agent)),
            "user_cost": self.prices.user_price.map(|p| p.of(&users)),
        })
    }
}

#[derive(Args)]
pub(crate) struct Score {
    /// An episode log (JSONL).
    log: PathBuf,
    #[command(flatten)]
    setup: SuiteFlags,
    #[command(flatten)]
    calls: FormatFlag,
}

impl Score {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let runtime = Runtime::new()?;
        let tau = TauOptions { format: self.calls.format, ..TauOptions::default() };
        let (agentbench, chat) = (self.setup.agentbench(), ChatArguments::default());
        let options = self.setup.options(&tau, &agentbench, &runtime, &chat);
        let results = rescore(&options, &self.log)?;
        let unknown: Vec<_> = results.iter().filter(|r| r.unknown).collect();
        if !unknown.is_empty() {
            say(&format!(
                "the log does not say what the model was shown in {} of {} episodes: it was written before logs did; by \
                 today's rules the conversation was cut in {} of them",
                unknown.len(),
                results.len(),
                unknown.iter().filter(|r| r.cut).count()
            ));
        }
        let differ: Vec<_> = results.iter().filter(|r| !r.same || r.recorded != r.now).collect();
        for r in &differ {
            say(&format!(
                "{} {} trial {}: recorded {}, now {}{}",
                r.key.suite,
                r.key.task,
                r.key.trial,
                r.recorded,
                r.now,
                if r.same { "" } else { ", and its turns are read, or were shown, differently" }
            ));
        }
        let mean = 100.0 * results.iter().map(|r| r.now).sum::<f64>() / results.len().max(1) as f64;
        say(&format!("score {mean:.1} over {} episodes", results.len()));
        say(&format!("{} passed, {} failed", results.len() - differ.len(), differ.len()));
        Ok(if differ.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
