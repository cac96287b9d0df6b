//! The power is cut after every call that a workload makes to its disk, in every way that the disk's rules allow.

use simkit::trial::{Trial, script};
use simkit::{Examination, Findings, seeds};

/// In a CI run; `STATES` asks for another number.
const STATES: usize = 20_000;

/// Steps of one workload: about 150 calls that change the disk.
const STEPS: usize = 60;

/// `SEED=n` takes that workload alone, `STATE=leg/calls/state` that state of it.
#[test]
fn no_power_cut_loses_what_was_acknowledged_or_brings_what_was_not() {
    let wanted = std::env::var("STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(STATES);
    let only = std::env::var("STATE").ok();
    let (mut distinct, mut checked, mut calls, mut workloads) = (0, 0, 0, 0);
    let first = seeds(1)[0];
    for seed in first.. {
        // Every other workload is sealed.
        let mut trial = Trial::new(seed);
        if seed % 2 == 1 {
            trial = trial.sealed();
        }
        trial.run(&script(seed, STEPS)).expect("a disk without faults opens");
        let recorded = trial.finish();
        assert!(recorded.errors.is_empty(), "SEED={seed}: {:?}", recorded.errors);
        let found = Examination { seed, only: only.clone(), ..Examination::default() }.of(&recorded);
        println!("seed {seed}: {} states, {} checks, {} calls", found.distinct, found.checked, found.calls);
        report(seed, &found);
        (distinct, checked) = (distinct + found.distinct, checked + found.checked);
        (calls, workloads) = (calls + found.calls, workloads + 1);
        if distinct >= wanted || only.is_some() || std::env::var("SEED").is_ok() {
            break;
        }
    }
    println!(
        "{distinct} distinct states of the disk after {calls} calls of {workloads} workloads, {checked} checks, 0 violations"
    );
}

fn report(seed: u64, found: &Findings) {
    let list: Vec<String> =
        found.violations.iter().map(|v| format!("SEED={seed} STATE={}: {}", v.state, v.what)).collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}
