//! A workload in which calls to the disk fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::check::{Broken, Examination};
use crate::disk::{Call, DiskError, Fault, Op};
use crate::trial::{NotOpened, Recorded, Step, Trial};

/// Everything happens: segments roll and are trimmed, consumers come and go, keys change, the node restarts
/// and loses power.
pub fn workload() -> Vec<Step> {
    use Step::{Advance, Charlie, Epoch, File, Foreign, Own, OwnTogether, PowerCut};
    use Step::{Receipts, Reissue, Rekey, Reopen, Trim};
    let mut steps = vec![Own, OwnTogether(3), Foreign, File(2), Charlie, Receipts];
    steps.extend([Own; 9]);
    steps.extend([File(3), Own, Receipts, Advance, Rekey, Trim, Epoch, Own, Reissue, Charlie, Reopen, Own, Foreign]);
    steps.extend([Receipts, PowerCut, Own, File(2), OwnTogether(4), Own, Own, Receipts, Advance, Trim]);
    steps.push(Own);
    steps
}

const SEED: u64 = 11;

/// What the workload asks of a disk without faults, in order; of one kind only, if so.
pub fn calls_of_the_workload(only: Option<Op>) -> Vec<Op> {
    let mut trial = Trial::new(SEED).sealed();
    trial.disk().set_fault(Some(Fault { after: u64::MAX, only, error: DiskError::Io, lasting: false }));
    trial.run(&workload()).expect("a disk without faults opens");
    trial.disk().calls()
}

/// Each call fails once with each error that it can have.
pub fn every_call_once() -> Vec<Fault> {
    let mut faults = Vec::new();
    for (after, op) in (0..).zip(calls_of_the_workload(None)) {
        let errors: &[DiskError] = match op {
            Op::Open | Op::Len | Op::Read | Op::List => &[DiskError::Io, DiskError::Interrupted],
            Op::Write => &DiskError::ALL,
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
    faults
}

/// From each call of a kind on, all of that kind fail.
pub fn every_kind_for_good() -> Vec<Fault> {
    let mut faults = Vec::new();
    for op in [Op::Write, Op::SyncData, Op::SyncDir, Op::Create, Op::Rename, Op::Unlink, Op::Truncate] {
        let calls = calls_of_the_workload(Some(op)).len() as u64;
        for error in [DiskError::PartIo, DiskError::NoSpace] {
            faults.extend((0..calls).map(|after| Fault { after, only: Some(op), error, lasting: true }));
        }
    }
    faults
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct FaultFindings {
    /// Runs, and how many of them told an error to the caller, by the kind of the first call that failed.
    pub outcomes: BTreeMap<Op, (usize, usize)>,
    /// What broke; after [`BROKEN_MAX`] of them the rest is left out.
    pub broken: Vec<(Fault, Broken)>,
    /// Runs so far.
    pub runs: usize,
}

/// More broken runs than this tell nothing new.
pub const BROKEN_MAX: usize = 3;

/// Runs the workload with each of the faults. The power is cut at the end, and after each of the `near` calls that follow a
/// failed one.
pub fn try_faults(faults: &[Fault], near: usize) -> FaultFindings {
    let (next, findings) = (AtomicUsize::new(0), Mutex::new(FaultFindings::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let outcome = attempt(*fault, near);
                    let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
                    findings.runs += 1;
                    match outcome {
                        Ok(Some((op, told))) => {
                            let (runs, tellings) = findings.outcomes.entry(op).or_default();
                            (*runs, *tellings) = (*runs + 1, *tellings + usize::from(told));
                        }
                        Ok(None) => {}
                        Err(e) => findings.broken.push((*fault, e)),
                    }
                    if findings.broken.len() >= BROKEN_MAX {
                        return;
                    }
                }
            });
        }
    });
    findings.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What failed and whether the caller was told; `None` when the run ended before.
fn attempt(fault: Fault, near: usize) -> Result<Option<(Op, bool)>, Broken> {
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
    let examination = Examination {
        threads: 1,
        last_calls: 1,
        near_failures: near,
        states_max: 6,
        clean_close: false,
        ..Examination::default()
    };
    let found = examination.of(&recorded);
    if let Some(violation) = found.violations.first() {
        return Err(format!("{}: {}\n  told: {:?}", violation.state, violation.what, recorded.errors));
    }
    Ok(failed.map(|op| (op, !recorded.errors.is_empty())))
}

/// A sync that failed once says nothing when it succeeds: the system has dropped the pages.
fn no_sync_is_tried_again(recorded: &Recorded) -> Result<(), Broken> {
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
