//! Every call that a workload makes to its disk fails once, in every way; and from some call on all of a kind fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use simkit::trial::{NotOpened, Recorded, Step, Trial};
use simkit::{Call, DiskError, Examination, Fault, Op};

#[test]
fn no_failed_call_costs_what_was_acknowledged() {
    let calls = calls_of_the_workload(None);
    let mut faults = Vec::new();
    for (after, op) in (0..).zip(&calls) {
        let errors: &[DiskError] = match op {
            Op::Open | Op::Len | Op::Read | Op::List => &[DiskError::Io, DiskError::Interrupted],
            Op::Append => &DiskError::ALL,
            Op::MakeDir
            | Op::Create
            | Op::Truncate
            | Op::SyncData
            | Op::Rename
            | Op::Unlink
            | Op::SyncDir
            | Op::Lock => &[DiskError::Io, DiskError::NoSpace, DiskError::Quota, DiskError::Interrupted],
        };
        faults.extend(errors.iter().map(|error| Fault { after, only: None, error: *error, lasting: false }));
    }
    let outcomes = try_all(&faults);
    println!("{} runs: each of {} calls failed once with each error that it can have", faults.len(), calls.len());
    println!("call | runs | told of to the caller");
    for (op, (runs, told)) in outcomes {
        println!("{op:?} | {runs} | {told}");
    }
}

#[test]
fn a_disk_that_fails_for_good_costs_nothing_that_was_acknowledged() {
    let mut faults = Vec::new();
    for op in [Op::Append, Op::SyncData, Op::SyncDir, Op::Create, Op::Rename, Op::Unlink, Op::Truncate] {
        let calls = calls_of_the_workload(Some(op));
        for error in [DiskError::PartIo, DiskError::NoSpace] {
            faults.extend((0..calls.len() as u64).map(|after| Fault { after, only: Some(op), error, lasting: true }));
        }
    }
    try_all(&faults);
    println!("{} runs", faults.len());
}

/// Everything happens: segments roll and are trimmed, consumers come and go, the node restarts and loses power.
fn workload() -> Vec<Step> {
    use Step::{Advance, Charlie, Epoch, File, Foreign, Own, OwnTogether, PowerCut, Receipts, Reissue, Reopen, Trim};
    let mut steps = vec![Own, OwnTogether(3), Foreign, File(2), Charlie, Receipts];
    steps.extend([Own; 9]);
    steps.extend([File(3), Own, Receipts, Advance, Trim, Epoch, Own, Reissue, Charlie, Reopen, Own, Foreign, Receipts]);
    steps.extend([PowerCut, Own, File(2), OwnTogether(4), Receipts, Advance, Trim, Own]);
    steps
}

const SEED: u64 = 11;

fn calls_of_the_workload(only: Option<Op>) -> Vec<Op> {
    let mut trial = Trial::new(SEED).sealed();
    trial.disk().set_fault(Some(Fault { after: u64::MAX, only, error: DiskError::Io, lasting: false }));
    trial.run(&workload()).expect("a disk without faults opens");
    trial.disk().calls()
}

/// Runs and told errors by the kind of call that failed.
type Outcomes = BTreeMap<Op, (usize, usize)>;

fn try_all(faults: &[Fault]) -> Outcomes {
    let (next, outcomes, broken) = (AtomicUsize::new(0), Mutex::new(Outcomes::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match attempt(*fault) {
                        Ok(Some((op, told))) => {
                            let mut outcomes = outcomes.lock().expect("no thread panics with it");
                            let (runs, tellings) = outcomes.entry(op).or_default();
                            (*runs, *tellings) = (*runs + 1, *tellings + usize::from(told));
                        }
                        Ok(None) => {}
                        Err(e) => broken.lock().expect("no thread panics with it").push(format!("{fault:?}: {e}")),
                    }
                    if broken.lock().expect("no thread panics with it").len() >= 5 {
                        return;
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().expect("no thread panics with it");
    assert!(broken.is_empty(), "{} runs, the first:\n{}", broken.len(), broken.join("\n"));
    outcomes.into_inner().expect("no thread panics with it")
}

/// What failed and whether the caller was told; `None` when the run ended before.
fn attempt(fault: Fault) -> Result<Option<(Op, bool)>, String> {
    let mut trial = Trial::new(SEED).sealed();
    trial.disk().set_fault(Some(fault));
    match trial.run(&workload()) {
        Ok(()) => {}
        Err(NotOpened(e)) if !fault.lasting => return Err(format!("it does not open any more: {e}")),
        Err(NotOpened(_)) => {}
    }
    let failed = trial.disk().failed_call();
    trial.disk().set_fault(None);
    if fault.lasting {
        // The disk works again.
        trial.run(&[Step::Reopen, Step::Own, Step::Foreign]).map_err(|NotOpened(e)| format!("afterwards: {e}"))?;
    }
    let recorded = trial.finish();
    if !fault.lasting {
        no_sync_is_tried_again(&recorded)?;
    }
    let examination = Examination { threads: 1, last_calls: 1, states_max: 8, ..Examination::default() };
    let found = examination.of(&recorded);
    if let Some(violation) = found.violations.first() {
        return Err(format!("{}: {}\n  told: {:?}", violation.state, violation.what, recorded.errors));
    }
    Ok(failed.map(|op| (op, !recorded.errors.is_empty())))
}

/// A sync that failed once says nothing when it succeeds: the system has dropped the pages.
fn no_sync_is_tried_again(recorded: &Recorded) -> Result<(), String> {
    for leg in &recorded.legs {
        let mut doubtful = BTreeSet::new();
        for call in leg.trace.calls() {
            let Call::SyncData { file, well } = call else { continue };
            if doubtful.contains(file) {
                return Err(format!("file #{file} is synced again after that had failed"));
            }
            if !well {
                doubtful.insert(*file);
            }
        }
    }
    Ok(())
}
