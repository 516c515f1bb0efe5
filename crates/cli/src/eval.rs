//! `rolegraft eval` and `rolegraft score`.

use crate::commands::{ChatFlags, EndpointFlags, Engine, at_least_one};
use crate::report::Prices;
use crate::suites::{PLAYING, READING, SuiteFlags};
use crate::talk::{Reporter, Terminal, say, stop_flag};
use anyhow::Result;
use clap::{Args, ValueEnum};
use rolegraft_pipeline::{DeviceName, Endpoints, Solo, Split, Status, evaluate, rescore};
use rolegraft_report::{Price, SuiteScore, Tally, suite_scores};
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
    setup: SuiteFlags<PLAYING>,
    /// Which tasks.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// Only the first N tasks.
    #[arg(short, long, value_parser = at_least_one)]
    n: Option<usize>,
    /// Episodes a task; more than one gives pass^k.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What plays a checkpoint.
    #[arg(long, value_enum, default_value = "mistralrs")]
    engine: Engine,
    /// Engines side by side; on a card, replies at once (0: one a core; on a card, 32).
    #[arg(long, default_value_t = 0)]
    engines: usize,
    /// Where a checkpoint is played: auto, cpu, cuda:N, metal:N.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    chat: ChatFlags,
    #[command(flatten)]
    endpoints: EndpointFlags,
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
        let reporter = Arc::new(Reporter::new());
        let setup = self.setup.resolve(&[])?;
        let solo = Solo {
            model: &self.model,
            suite: &self.suite,
            setup: setup.as_setup(),
            person: Some(Arc::new(Terminal(reporter.clone()))),
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
            device: self.device,
            chat: &self.chat.arguments()?,
            endpoints: &self.endpoints.over(Endpoints::default())?,
        };
        let outcome = evaluate(&solo, &self.log, &stop_flag()?, &*reporter);
        reporter.done();
        // What the log holds besides was asked for by another call.
        let tally = Tally::of_log(&self.log, Some(&outcome?.into_iter().collect()))?;
        for score in suite_scores(&tally, self.seed) {
            say(&if self.json { self.as_json(&score, &tally).to_string() } else { self.as_text(&score, &tally) });
        }
        Ok(ExitCode::SUCCESS)
    }

    fn as_text(&self, score: &SuiteScore, tally: &Tally) -> String {
        let rates = tally.failures(&score.suite);
        let percent = |x: f64| format!("{:.1}", 100.0 * x);
        let kinds: Vec<String> = rates.kinds.iter().map(|(k, r)| format!("{} {} %", k.as_str(), percent(*r))).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
        let mut text = format!(
            "{} {} (95 % {} to {}; {} tasks, {} episodes; turns with a violation {} %{})",
            score.suite,
            percent(score.reward),
            percent(score.interval.0),
            percent(score.interval.1),
            score.tasks,
            rates.episodes,
            percent(rates.turn_violations),
            kinds
        );
        if score.trials > 1 {
            let passes: Vec<String> =
                score.pass.iter().enumerate().map(|(i, (p, _))| format!("pass^{} {}", i + 1, percent(*p))).collect();
            text += &format!("\n{}", passes.join(", "));
        }
        let filtered = rates.statuses.get(&Status::ServerFiltered).copied().unwrap_or(0.0);
        if filtered > 0.0 {
            text += &format!("\nthe server's filter ended {} % of episodes, which count as 0", percent(filtered));
        }
        if rates.drafts > 0.0 {
            text +=
                &format!("\ncalls that were only considered, in reasoning: in {} % of turns", percent(rates.drafts));
        }
        let (agent, users) = (tally.agent, tally.others);
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

    fn as_json(&self, score: &SuiteScore, tally: &Tally) -> Value {
        let rates = tally.failures(&score.suite);
        let kinds: Map<String, Value> = rates.kinds.iter().map(|(k, r)| (k.as_str().to_owned(), json!(r))).collect();
        let (agent, users) = (tally.agent, tally.others);
        let patterns = tally.cascades(&score.suite).map(|c| {
            json!({"repeated_failure": c.repeated_failure, "redundant_query": c.redundant_query,
                   "redundant_calls": c.redundant_calls, "missing_action": c.missing_action,
                   "wrong_target": c.wrong_target, "needless_change": c.needless_change})
        });
        json!({
            "suite": score.suite, "score": 100.0 * score.reward, "interval": score.interval, "tasks": score.tasks,
            "trials": score.trials, "pass_hat": score.pass.iter().map(|(share, _)| share).collect::<Vec<_>>(),
            "pass_hat_tasks": score.pass.iter().map(|(_, tasks)| tasks).collect::<Vec<_>>(), "episodes": rates.episodes,
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
    setup: SuiteFlags<READING>,
}

impl Score {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let results = rescore(&self.setup.resolve(&[])?.as_setup(), &self.log)?;
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
