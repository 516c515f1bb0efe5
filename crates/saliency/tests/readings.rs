//! Several readings of one pass, against a pass for each.
#![allow(missing_docs)]

use rolegraft_checkpoint::Checkpoint;
use rolegraft_saliency::{Reading, TokenRun, Trajectory, trace, trace_readings};
use std::path::PathBuf;

#[test]
fn each_reading_gets_what_a_pass_of_its_own_gives() {
    let pool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool");
    let checkpoint = Checkpoint::open(pool.join("tau")).unwrap();
    // Lengths on both sides of the attention's blocks, more runs than are summed at once, one trajectory of two runs.
    let ids =
        |at: usize, long: usize| -> Vec<u32> { (0..long).map(|i| (1 + (i * 7 + at * 31) % 300) as u32).collect() };
    let mut runs: Vec<Vec<Vec<u32>>> = (0..70).map(|at| vec![ids(at, 9 + at)]).collect();
    runs.push(vec![ids(70, 300), ids(71, 260)]);
    let seen: Vec<Vec<&[u32]>> = runs.iter().map(|t| t.iter().map(Vec::as_slice).collect()).collect();
    let every = |step: usize, from: usize, kept: &dyn Fn(usize) -> bool| -> Reading {
        let positions = |run: &Vec<u32>| (from..run.len()).step_by(step).collect();
        let one = |(at, t): (usize, &Vec<Vec<u32>>)| kept(at).then(|| t.iter().map(positions).collect());
        runs.iter().enumerate().map(one).collect()
    };
    // Late and early positions, some trajectories alone, positions that only long runs have.
    let readings =
        [every(1, 0, &|_| true), every(3, 5, &|_| true), every(2, 1, &|at| at % 3 == 0), every(40, 60, &|_| true)];
    let together = trace_readings(&checkpoint, &seen, &readings).unwrap();
    for (reading, saliency) in readings.iter().zip(&together) {
        assert_eq!(trace_readings(&checkpoint, &seen, std::slice::from_ref(reading)).unwrap()[0], *saliency);
        let role = |(runs, positions): (&Vec<Vec<u32>>, &Vec<Vec<usize>>)| Trajectory {
            runs: runs
                .iter()
                .zip(positions)
                .map(|(ids, role)| TokenRun { ids: ids.clone(), role: role.clone() })
                .collect(),
        };
        let own: Vec<Trajectory> =
            runs.iter().zip(reading).filter_map(|(t, positions)| Some(role((t, positions.as_ref()?)))).collect();
        assert_eq!(trace(&checkpoint, &own).unwrap(), *saliency);
    }
    assert_eq!(together[2].traced, 24);
    assert!(together[3].without_role > 0 && together[3].traced > 0);
    // A position that is not there is an error, not a panic.
    let beyond: Reading = vec![Some(vec![vec![9]])];
    assert!(trace_readings(&checkpoint, &seen[..1], &[beyond]).is_err());
}
