//! Several readings of one trace; budgets, threads, interruptions.
#![allow(missing_docs)]

use rolegraft_checkpoint::{Architecture, Checkpoint};
use rolegraft_decoder::{Pass, Place, Segment, Site, States, Want};
use rolegraft_saliency::{Reading, Run, Saliency, TraceError, Tracing, trace, trace_readings};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

fn checkpoint() -> Checkpoint {
    let pool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool");
    Checkpoint::open(pool.join("tau")).unwrap()
}

/// Lengths on both sides of all blocks, a trajectory of two runs, and runs that begin alike.
fn set() -> Vec<Vec<Vec<u32>>> {
    let ids =
        |at: usize, long: usize| -> Vec<u32> { (0..long).map(|i| (1 + (i * 7 + at * 31) % 300) as u32).collect() };
    let mut set: Vec<Vec<Vec<u32>>> = (0..70).map(|at| vec![ids(at, 9 + at)]).collect();
    set.push(vec![ids(70, 300), ids(71, 260)]);
    for fork in [1, 64, 100, 257] {
        set.push(vec![[&ids(70, 300)[..fork], &ids(80, 50)].concat()]);
    }
    set.push(vec![ids(70, 300)]);
    set
}

fn runs(set: &[Vec<Vec<u32>>]) -> Vec<Run<'_>> {
    let one = |(trajectory, runs): (usize, &'_ Vec<Vec<u32>>)| -> Vec<(usize, usize)> {
        (0..runs.len()).map(|run| (trajectory, run)).collect()
    };
    let all: Vec<(usize, usize)> = set.iter().enumerate().flat_map(one).collect();
    all.into_iter().map(|(trajectory, run)| Run { trajectory, ids: &set[trajectory][run] }).collect()
}

/// Every so manyth position from one on, of some trajectories.
fn every<'c>(runs: &'c [Run<'c>], step: usize, from: u32, of: usize) -> Reading<'c> {
    Box::new(move |at| {
        let run = &runs[at];
        let positions = || (from..run.ids.len() as u32).step_by(step).collect();
        run.trajectory.is_multiple_of(of).then(|| Cow::Owned(positions()))
    })
}

fn readings<'c>(runs: &'c [Run<'c>]) -> Vec<Reading<'c>> {
    // Late and early positions, some trajectories alone, positions that only long runs have.
    vec![every(runs, 1, 0, 1), every(runs, 3, 5, 1), every(runs, 2, 1, 3), every(runs, 40, 60, 1)]
}

#[test]
fn each_reading_gets_what_a_trace_of_its_own_gives() {
    let (checkpoint, set) = (checkpoint(), set());
    let runs = runs(&set);
    let together = trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing::unbounded()).unwrap();
    for (reading, saliency) in readings(&runs).into_iter().zip(&together) {
        let alone = trace_readings(&checkpoint, &runs, std::slice::from_ref(&reading), &Tracing::unbounded());
        assert_eq!(alone.unwrap()[0], *saliency);
        let mut own: Vec<Vec<(Vec<u32>, Vec<u32>)>> = Vec::new();
        for (at, run) in runs.iter().enumerate() {
            let Some(positions) = reading(at) else { continue };
            if at == 0 || runs[at - 1].trajectory != run.trajectory {
                own.push(Vec::new());
            }
            own.last_mut().unwrap().push((run.ids.to_vec(), positions.into_owned()));
        }
        let own = trace(&checkpoint, &own).unwrap();
        assert_eq!(own, *saliency);
    }
    assert_eq!(together[2].traced, 26);
    assert!(together[3].without_role > 0 && together[3].traced > 0);
    // A position that is not there is an error, not a panic.
    let beyond: Reading = Box::new(|_| Some(Cow::Owned(vec![9])));
    assert!(trace_readings(&checkpoint, &runs[..1], &[beyond], &Tracing::unbounded()).is_err());
}

#[test]
fn budgets_and_threads_change_nothing() {
    let (checkpoint, set) = (checkpoint(), set());
    let runs = runs(&set);
    let whole = trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing::unbounded()).unwrap();
    let traced = |memory: usize, wave: usize| {
        let waves = Cell::new(0);
        let progress = |step: &rolegraft_saliency::Step| waves.set(step.waves);
        let tracing = Tracing { memory, wave, progress: &progress, ..Tracing::unbounded() };
        let found = trace_readings(&checkpoint, &runs, &readings(&runs), &tracing);
        (found, waves.get())
    };
    let least = match traced(0, 0).0 {
        Err(TraceError::Memory { least, .. }) => least,
        _ => panic!("no trace fits into nothing"),
    };
    assert!(matches!(traced(least - 1, 0).0, Err(TraceError::Memory { .. })));
    let (narrow, waves) = traced(least, 0);
    assert!(waves > 3, "{waves}");
    assert_eq!(narrow.unwrap(), whole);
    let (short, waves) = traced(usize::MAX, 500);
    assert!(waves > 5, "{waves}");
    assert_eq!(short.unwrap(), whole);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing::unbounded()));
        assert_eq!(again.unwrap(), whole, "{threads} threads");
    }
}

#[test]
fn an_interrupted_trace_goes_on_with_its_waves() {
    let (checkpoint, set) = (checkpoint(), set());
    let runs = runs(&set);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("partial");
    let traced = |key: &str, last: usize| -> (Result<Vec<Saliency>, TraceError>, usize) {
        let (stop, first) = (AtomicBool::new(false), Cell::new(0));
        let progress = |step: &rolegraft_saliency::Step| {
            first.set(step.waves);
            stop.store(step.wave >= last, Ordering::Relaxed);
        };
        let journal = Some((path.clone(), key.to_owned()));
        let tracing = Tracing { wave: 600, journal, stop: &stop, progress: &progress, ..Tracing::unbounded() };
        (trace_readings(&checkpoint, &runs, &readings(&runs), &tracing), first.get())
    };
    let (interrupted, all) = traced("a", 3);
    assert!(matches!(interrupted, Err(TraceError::Interrupted)) && all > 5);
    // Of something else, nothing is taken; a file that was cut is none.
    let whole = trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing::unbounded()).unwrap();
    let kept = std::fs::read(&path).unwrap();
    let (resumed, left) = traced("a", usize::MAX);
    assert_eq!((resumed.unwrap(), left), (whole.clone(), all - 2));
    std::fs::write(&path, &kept).unwrap();
    let (other, left) = traced("b", usize::MAX);
    assert_eq!((other.unwrap(), left), (whole.clone(), all));
    std::fs::write(&path, &kept[..kept.len() - 9]).unwrap();
    let (cut, left) = traced("a", usize::MAX);
    assert_eq!((cut.unwrap(), left), (whole, all));
}

#[test]
fn what_sequences_share_is_worked_out_once() {
    let (checkpoint, set) = (checkpoint(), set());
    let runs = runs(&set);
    let tokens = Cell::new(0);
    let progress = |step: &rolegraft_saliency::Step| tokens.set(step.tokens);
    trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing { progress: &progress, ..Tracing::unbounded() })
        .unwrap();
    let all: usize = runs.iter().map(|run| run.ids.len()).sum();
    assert_eq!(all - tokens.get(), 1 + 64 + 100 + 257 + 300);
}

/// Activations of the neurons at every token of a run, layer after layer.
fn activations(checkpoint: &Checkpoint, ids: &[u32]) -> Vec<Vec<Vec<f32>>> {
    let architecture = Architecture::of(checkpoint).unwrap();
    let mut pass = Pass::new(&architecture, ids.len(), &Place::cpu()).unwrap();
    let mut states = States::new(&architecture, ids.len());
    states.embed(checkpoint, &architecture, ids).unwrap();
    let one = |layer| {
        let mut rows = Vec::new();
        let see = &mut |z: rolegraft_decoder::Activations<'_>| {
            rows.extend((z.first..z.first + z.rows).map(|row| z.row(row).to_vec()));
            Ok(())
        };
        pass.load(checkpoint, layer).unwrap();
        let segments = [Segment { start: 0, rows: ids.len() }];
        pass.run(&mut states, &segments, Want { sites: &[Site::Down], whole: true }, see).unwrap();
        rows
    };
    (0..architecture.num_hidden_layers).map(one).collect()
}

#[test]
fn changes_are_distances_to_another_checkpoint_times_what_a_neuron_gives() {
    let (checkpoint, set) = (checkpoint(), set());
    let other = Checkpoint::open(checkpoint.dir().with_file_name("office")).unwrap();
    let runs = runs(&set);
    let against = || Tracing { against: Some(&other), ..Tracing::unbounded() };
    let found = trace_readings(&checkpoint, &runs, &readings(&runs), &against()).unwrap();
    for (saliency, reading) in found.iter().zip(readings(&runs)) {
        let width = saliency.sums[0].len();
        let mut sums = vec![vec![0.0f64; width]; saliency.sums.len()];
        for trajectory in 0..set.len() {
            let of: Vec<usize> = (0..runs.len()).filter(|at| runs[*at].trajectory == trajectory).collect();
            let tokens: usize = of.iter().filter_map(|at| reading(*at)).map(|positions| positions.len()).sum();
            for at in of {
                let Some(positions) = reading(at).filter(|positions| !positions.is_empty()) else { continue };
                let (ours, theirs) = (activations(&checkpoint, runs[at].ids), activations(&other, runs[at].ids));
                for (layer, sums) in sums.iter_mut().enumerate() {
                    for position in positions.iter().map(|p| *p as usize) {
                        let pairs = ours[layer][position].iter().zip(&theirs[layer][position]);
                        let changes = pairs.map(|(a, b)| f64::from((a - b).abs()) / tokens as f64);
                        sums.iter_mut().zip(changes).for_each(|(sum, change)| *sum += change);
                    }
                }
            }
        }
        for (layer, (sums, found)) in sums.iter().zip(&saliency.sums).enumerate() {
            let down = checkpoint.f32(&format!("model.layers.{layer}.mlp.down_proj.weight")).unwrap();
            for (neuron, (sum, found)) in sums.iter().zip(found).enumerate() {
                let norm = down.iter().skip(neuron).step_by(width).map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                let wanted = sum * norm;
                assert!((wanted - found).abs() <= 1e-5 * wanted, "{layer} {neuron}: {found}, not {wanted}");
            }
        }
    }
    // As with activations, neither budgets nor waves matter; against itself nothing changes.
    let least = match trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing { memory: 0, ..against() }) {
        Err(TraceError::Memory { least, .. }) => least,
        _ => panic!("no trace fits into nothing"),
    };
    let narrow = trace_readings(&checkpoint, &runs, &readings(&runs), &Tracing { memory: least, ..against() });
    assert_eq!(narrow.unwrap(), found);
    let itself = Tracing { against: Some(&checkpoint), ..Tracing::unbounded() };
    let none = trace_readings(&checkpoint, &runs, &readings(&runs), &itself).unwrap();
    assert!(none.iter().all(|saliency| saliency.sums.iter().flatten().all(|sum| *sum == 0.0)));
}

#[test]
fn tensors_on_a_device_give_the_same() {
    let checkpoint = checkpoint();
    let architecture = Architecture::of(&checkpoint).unwrap();
    let ids: Vec<u32> = (0..600).map(|i| 1 + i * 13 % 300).collect();
    let segments =
        [Segment { start: 0, rows: 290 }, Segment { start: 150, rows: 140 }, Segment { start: 0, rows: 170 }];
    let passed = |mut pass: Pass| {
        let mut states = States::new(&architecture, 600);
        states.embed(&checkpoint, &architecture, &ids).unwrap();
        let mut seen: BTreeMap<Site, Vec<f32>> = BTreeMap::new();
        for layer in 0..architecture.num_hidden_layers {
            pass.load(&checkpoint, layer).unwrap();
            let see = &mut |z: rolegraft_decoder::Activations<'_>| {
                let rows = (z.first..z.first + z.rows).flat_map(|row| z.row(row));
                seen.entry(z.site).or_default().extend(rows);
                Ok(())
            };
            pass.run(&mut states, &segments, Want { sites: &Site::ALL, whole: true }, see).unwrap();
        }
        seen
    };
    let ours = passed(Pass::new(&architecture, 290, &Place::cpu()).unwrap());
    let tensors = passed(Pass::by_tensors(&architecture, 290, &Place::cpu()).unwrap());
    assert!(ours.keys().eq(&Site::ALL) && tensors.keys().eq(&Site::ALL));
    for (site, ours) in &ours {
        let largest = ours.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let apart = ours.iter().zip(&tensors[site]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(largest > 0.1 && ours.len() == tensors[site].len(), "{site:?}");
        assert!(apart < 1e-4 * largest, "{site:?}: {apart} of {largest}");
    }
}
