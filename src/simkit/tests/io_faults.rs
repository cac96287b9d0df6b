//! Every call that a workload makes to its disk fails once, in every way; and from some call on all of a kind fail.

use simkit::faults::{FaultFindings, every_call_once, every_kind_for_good, try_faults};

#[test]
fn no_failed_call_costs_what_was_acknowledged() {
    let found = try_faults(&every_call_once(), 3);
    println!("{} runs: each call failed once with each error that it can have", found.runs);
    println!("call | runs | told to the caller");
    for (op, (runs, told)) in &found.outcomes {
        println!("{op:?} | {runs} | {told}");
    }
    nothing_broke(&found);
}

#[test]
fn a_disk_that_fails_for_good_costs_nothing_that_was_acknowledged() {
    let found = try_faults(&every_kind_for_good(), 4);
    println!("{} runs: from some call on all of its kind failed", found.runs);
    nothing_broke(&found);
}

fn nothing_broke(found: &FaultFindings) {
    let broken: Vec<_> = found.broken.iter().map(|(fault, what)| format!("{fault:?}: {what}")).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
