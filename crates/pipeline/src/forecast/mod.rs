//! What a run would take, and what it lacks: found from headers, task files and a measurement of seconds.

mod found;
mod inputs;
mod play;

use crate::compute::{Bytes, free_memory};
use crate::engine::{Copies, EngineKind, fitting};
use crate::error::RunError;
use crate::experiment::{Experiment, SelectBy};
use crate::progress::Progress;
use crate::stages::merge::candidate_plan;
use crate::store::Store;
pub use found::{Forecast, StageForecast};
use inputs::{Inputs, told};
use play::Load;
use rolegraft_checkpoint::{Architecture, Digest};
use rolegraft_decoder::{Pace, Pass, Place};
use rolegraft_files::Scratch;
use rolegraft_least_squares::statistics_bytes;
use rolegraft_merge::{Execution, Plan};
use rolegraft_saliency::{Saliency, wave_tokens};
use rolegraft_suites::Split;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one thing is measured; there are few.
const MEASURED: Duration = Duration::from_millis(1500);
/// Bytes that are merged, or hashed, to see how fast it goes.
const SAMPLE: u64 = 64 << 20;
/// Tokens of an episode at least, where only what is missing is asked for.
const LEAST_TOKENS: usize = 4;
/// Tokens of the longest trajectory, against the mean.
const LONGEST: usize = 4;

/// Looks at an experiment without running it. Nothing is kept.
pub fn forecast(experiment: &Experiment, results: &Path, episode_tokens: usize, progress: &dyn Progress) -> Forecast {
    progress.stage("read headers and tasks");
    look(experiment, results, episode_tokens, &mut |asked, found| {
        progress.stage("measure this machine");
        asked.measure(found)
    })
}

/// That nothing is missing that can be seen before anything is done.
///
/// # Errors
/// Everything that is missing.
pub(crate) fn check(experiment: &Experiment, results: &Path) -> Result<(), RunError> {
    let found = look(experiment, results, LEAST_TOKENS, &mut |_, _| Speeds::default());
    match found.missing.is_empty() {
        true => Ok(()),
        false => Err(RunError::Missing { what: found.missing, of_the_machine: found.of_the_machine }),
    }
}

fn look(
    experiment: &Experiment,
    results: &Path,
    episode_tokens: usize,
    measure: &mut dyn FnMut(&Asked<'_>, &mut Forecast) -> Speeds,
) -> Forecast {
    let mut found = Forecast::default();
    let inputs = Inputs::open(experiment, &mut found);
    let place = match experiment.compute.place(experiment.trace.precision) {
        Ok(place) => place,
        Err(error) => {
            found.lacks(told(&error));
            Place::cpu()
        }
    };
    let shape = inputs.base.as_ref().and_then(|base| Architecture::of(base).ok());
    let loads = Load::of_suites(experiment, &inputs, shape.as_ref(), episode_tokens);
    let plans = plans(experiment, &inputs, &mut found);
    let (inputs, plans, loads, shape, place) = (&inputs, plans.as_deref(), loads.as_slice(), shape.as_ref(), &place);
    let asked = Asked { experiment, inputs, plans, shape, place, loads, results };
    let speeds = measure(&asked, &mut found);
    let mut stages = Vec::new();
    if !experiment.candidate.is_empty() {
        stages = vec![asked.merge(&speeds), asked.played("calibrate", Split::Calibration, &speeds, &mut found)];
        stages.extend(asked.fit(&speeds));
        stages.extend([
            asked.trace(&speeds, &mut found),
            asked.select(&speeds),
            asked.played("diagnose", Split::Dev, &speeds, &mut found),
            asked.transplant(&speeds),
        ]);
    }
    stages.push(asked.played("evaluate", Split::Test, &speeds, &mut found));
    found.stages = stages;
    if Store::new(results).run(&experiment.name).exists() {
        found.notes.push("a run of that name is there: what it made already will not be made again".into());
    } else {
        asked.room(&mut found);
    }
    found
}

/// How each candidate is merged; nothing if a model is missing, or a candidate cannot be merged.
fn plans(experiment: &Experiment, inputs: &Inputs, found: &mut Forecast) -> Option<Vec<Plan>> {
    let (base, experts) = inputs.pool(experiment)?;
    let mut plan = |entry| match candidate_plan(entry, ("base", base), &experts) {
        Ok(plan) => Some(plan),
        Err(error) => {
            found.lacks(told(&error));
            None
        }
    };
    experiment.candidate.iter().map(&mut plan).collect()
}

/// How fast this machine does it; nothing where it could not be measured.
#[derive(Default)]
struct Speeds {
    model: Option<Pace>,
    /// Seconds of all candidates' merges together.
    merges: Option<f64>,
    /// Bytes read and hashed in a second.
    hashing: Option<f64>,
}

struct Asked<'a> {
    experiment: &'a Experiment,
    inputs: &'a Inputs,
    /// How each candidate is merged, if all the pool is there.
    plans: Option<&'a [Plan]>,
    shape: Option<&'a Architecture>,
    place: &'a Place,
    loads: &'a [Load],
    results: &'a Path,
}

impl Asked<'_> {
    /// Bytes of a checkpoint's files.
    fn checkpoint(&self) -> Option<u64> {
        let base = self.inputs.base.as_ref()?;
        Some(base.files().filter_map(|file| Some(file.metadata().ok()?.len())).sum())
    }

    fn measure(&self, found: &mut Forecast) -> Speeds {
        let mut speeds = Speeds::default();
        let Some(base) = &self.inputs.base else { return speeds };
        if self.shape.is_some() {
            match Pace::measure(base, self.place, MEASURED) {
                Ok(pace) => speeds.model = Some(pace),
                Err(error) => found.lacks(format!("pool.base cannot be run: {}", told(&error))),
            }
        }
        speeds.hashing = base.files().next().and_then(|file| {
            let (begun, mut part) = (Instant::now(), Vec::new());
            File::open(file).ok()?.take(SAMPLE).read_to_end(&mut part).ok()?;
            std::hint::black_box(Digest::of(&part));
            Some(part.len() as f64 / begun.elapsed().as_secs_f64())
        });
        speeds.merges = self.merge_seconds(found);
        speeds
    }

    /// Seconds of all candidates' merges, from a part of each; nothing if a model is missing.
    fn merge_seconds(&self, found: &mut Forecast) -> Option<f64> {
        let plans = self.plans?;
        let folder = self.results.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        let scratch = Scratch::create(&folder.join("rolegraft-plan"));
        let scratch = match scratch {
            Ok(scratch) => scratch,
            Err(error) => {
                found.lacks(format!("nothing can be written to `{}`: {error}", folder.display()));
                return None;
            }
        };
        let (mut seconds, mut measured, mut unknown) = (0.0, 0, 0);
        for (at, (entry, plan)) in self.experiment.candidate.iter().zip(plans).enumerate() {
            let execution = Execution { seed: entry.seed, ..Execution::default() };
            match plan.pace(&scratch.path().join(at.to_string()), SAMPLE, &execution) {
                Ok(Some(pace)) => {
                    seconds += plan.bytes().1 as f64 / pace;
                    measured += 1;
                }
                Ok(None) => unknown += 1,
                Err(error) => found.lacks(format!("candidate `{}`: {}", entry.name, told(&error))),
            }
        }
        // One that looks at everything first reads it twice.
        let usual = seconds / f64::from(measured.max(1));
        (measured > 0).then_some(seconds + 2.0 * usual * f64::from(unknown))
    }

    fn merge(&self, speeds: &Speeds) -> StageForecast {
        let (experiment, one) = (self.experiment, self.checkpoint());
        let (experts, merges) = (experiment.pool.experts.len() as u64, experiment.candidate.len() as u64);
        // Checkpoints are known by the hash of all that they hold: the pool's, and those that are made.
        let hashed = one.map(|one| one * (1 + experts + merges));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let read = self.plans.map(|plans| plans.iter().map(|plan| plan.bytes().0).sum::<u64>());
        let written = self.plans.map(|plans| plans.iter().map(|plan| plan.bytes().1).sum());
        StageForecast {
            name: "merge",
            work: counted(merges, "candidate"),
            read: read.zip(hashed).map(|(read, hashed)| read + hashed),
            written: written.or(one.map(|one| one * merges)),
            memory: self.plans.and_then(|plans| plans.iter().map(|plan| plan.memory(threads)).max()),
            tokens: None,
            seconds: speeds
                .merges
                .zip(hashed.zip(speeds.hashing))
                .map(|(merges, (bytes, pace))| merges + bytes as f64 / pace),
        }
    }

    /// A stage in which models play.
    fn played(&self, name: &'static str, side: Split, speeds: &Speeds, found: &mut Forecast) -> StageForecast {
        let experiment = self.experiment;
        let players = |load: &Load| match side {
            // Of those that come with solutions nobody is asked.
            Split::Calibration => u64::from(load.served && !load.solved),
            // Whoever may be the backbone, and the expert.
            Split::Dev => {
                let dev = experiment.selection.by == SelectBy::Dev;
                u64::from(load.served) * (1 + if dev { experiment.candidate.len() as u64 } else { 1 })
            }
            Split::Test if experiment.candidate.is_empty() => 1 + experiment.pool.experts.len() as u64,
            Split::Test => (2 + experiment.pool.experts.len() + experiment.candidate.len()) as u64,
        };
        let (mut episodes, mut read, mut written) = (0, 0, 0);
        for load in self.loads {
            let many = load.episodes(side) * players(load);
            episodes += many;
            read += many * load.read;
            written += many * load.written;
        }
        let served = experiment.engine == EngineKind::Server;
        let mut memory = None;
        if let Some(shape) = self.shape.filter(|_| !served && episodes > 0 && self.place.is_cpu()) {
            let copies = Copies::of(experiment.engines).loaded(experiment.engine);
            match fitting(self.inputs.base_dir(), shape, copies, free_memory()) {
                Ok((fit, note)) => {
                    memory = Some((size_of::<f32>() * shape.parameters() * fit) as u64);
                    found.notes.extend(note.filter(|note| !found.notes.contains(note)));
                }
                Err(error) => found.lacks(told(&error)),
            }
        }
        let pace = speeds.model.filter(|_| !served);
        StageForecast {
            name,
            work: counted(episodes, "episode"),
            read: Some(0),
            written: Some((read + written) * play::LOGGED),
            memory,
            tokens: Some(read + written),
            seconds: pace.map(|pace| read as f64 / pace.reading + written as f64 / pace.writing),
        }
    }

    /// What least-squares merges add to those of their rest; nothing if there are none.
    fn fit(&self, speeds: &Speeds) -> Option<StageForecast> {
        let fits = self.plans?.iter().filter(|plan| plan.recipe.fit.is_some()).count() as u64;
        let tokens = self.calibrated();
        let memory = self.shape.map(|shape| {
            let states = (size_of::<f32>() * shape.hidden_size) as u64 * tokens;
            let layer = statistics_bytes(shape) + Pass::bytes(shape, 1).0;
            layer as u64 + states.min(self.experiment.compute.budget() as u64)
        });
        (fits > 0).then(|| StageForecast {
            name: "fit",
            work: counted(fits, "candidate"),
            read: self.checkpoint().map(|one| one * fits * self.experiment.pool.experts.len() as u64),
            written: self.checkpoint().map(|one| one * fits),
            memory,
            tokens: Some(fits * tokens),
            // Sums and equations take about as long as the layers themselves.
            seconds: speeds.model.map(|pace| 2.0 * (fits * tokens) as f64 / pace.reading),
        })
    }

    /// Tokens of all calibration sets.
    fn calibrated(&self) -> u64 {
        let of = |load: &Load| load.episodes(Split::Calibration) * (load.read + load.written);
        self.loads.iter().filter(|load| load.served).map(of).sum()
    }

    fn trace(&self, speeds: &Speeds, found: &mut Forecast) -> StageForecast {
        let models = 1 + self.experiment.candidate.len() as u64;
        let (mut runs, mut tokens, mut longest, mut of) = (0, 0, 1, Vec::new());
        for benchmark in self.experiment.benchmark.iter().filter(|b| b.expert.is_some()) {
            let loads = self.loads.iter().filter(|load| benchmark.suites.contains(&load.suite));
            let mut own = 0;
            for load in loads {
                let episodes = load.episodes(Split::Calibration);
                runs += episodes;
                own += episodes * (load.read + load.written);
                longest = longest.max(LONGEST * (load.read + load.written) as usize);
            }
            tokens += own;
            of.push(own);
        }
        let budget = self.experiment.compute.budget();
        let mut stage = StageForecast {
            name: "trace",
            work: format!("{} through {}", counted(runs, "trajectory"), counted(models, "model")),
            tokens: Some(tokens * models),
            ..StageForecast::default()
        };
        let Some(shape) = self.shape else { return stage };
        let longest = longest.min(shape.max_position_embeddings);
        let (wave, used) = match wave_tokens(shape, longest, budget, self.place) {
            Ok(fits) => fits,
            Err(error) => {
                found.lacks(told(&error));
                return stage;
            }
        };
        let waves: u64 = of.iter().map(|own| own.div_ceil(wave as u64)).sum();
        let sums = Saliency::bytes(shape) as u64;
        stage.read = self.checkpoint().map(|one| one * waves * models);
        stage.written = Some(sums * of.len() as u64 * (models + 1));
        stage.memory = Some((used + Pass::bytes(shape, longest).0) as u64);
        let pace = speeds.model;
        stage.seconds = pace.map(|p| models as f64 * (tokens as f64 / p.reading + waves as f64 * p.loading));
        stage
    }

    fn select(&self, speeds: &Speeds) -> StageForecast {
        let served = self.experiment.benchmark.iter().filter(|b| b.expert.is_some()).count() as u64;
        let files = served * (1 + self.experiment.candidate.len() as u64);
        let read = self.shape.map(|shape| Saliency::bytes(shape) as u64 * files);
        StageForecast {
            name: "select",
            work: counted(files, "saliency"),
            read,
            written: Some(0),
            memory: read,
            tokens: None,
            seconds: read.zip(speeds.hashing).map(|(bytes, pace)| bytes as f64 / pace),
        }
    }

    fn transplant(&self, speeds: &Speeds) -> StageForecast {
        let one = self.checkpoint();
        let merge = speeds.merges.map(|seconds| seconds / self.experiment.candidate.len().max(1) as f64);
        StageForecast {
            name: "transplant",
            work: "1 checkpoint".into(),
            // Copied, what changes patched, and hashed.
            read: one.map(|one| 2 * one),
            written: one,
            memory: None,
            tokens: None,
            seconds: merge.zip(one.zip(speeds.hashing)).map(|(merge, (bytes, pace))| merge + bytes as f64 / pace),
        }
    }

    /// Whether what is written fits where results land.
    fn room(&self, found: &mut Forecast) {
        let needed: u64 = found.stages.iter().filter_map(|stage| stage.written).sum();
        let folder: PathBuf = std::path::absolute(self.results).unwrap_or_else(|_| self.results.to_owned());
        let Some(folder) = folder.ancestors().find(|dir| dir.is_dir()) else { return };
        let Ok(system) = rustix::fs::statvfs(folder) else { return };
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let (needs, has) = (Bytes(needed as usize), Bytes(free as usize));
        if needed > free {
            let folder = folder.display();
            found.of_the_machine = true;
            found.lacks(format!("disk: {needs} are written under `{folder}`, where {has} are free"));
        } else {
            found.notes.push(format!("{needs} of {has} free are written; {} of memory are free", Bytes(free_memory())));
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}
