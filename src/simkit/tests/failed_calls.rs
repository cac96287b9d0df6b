//! What one failed call, or a process killed between two calls, once cost.

use simkit::trial::{Recorded, Step, Trial};
use simkit::{Call, DiskError, Examination, Fault, Op};

#[test]
fn a_consumer_that_is_removed_stays_removed_though_its_receipts_were_not_written_yet() {
    // The reissue gave every consumer a receipt that was to be written with the next append. That was the removal, and the
    // receipt stood behind it: after a restart the consumer was back, and trimming waited for it for ever.
    let mut trial = Trial::new(1);
    let steps = [Step::Own, Step::Own, Step::Charlie, Step::Receipts, Step::Own, Step::Reissue, Step::Charlie];
    trial.run(&steps).expect("a disk without faults opens");
    every_state_holds(&trial.finish(), usize::MAX);
}

#[test]
fn names_that_a_killed_process_left_unsynced_are_made_durable_before_anything_is_acknowledged() {
    // Killed between making a segment file and syncing its directory: the next process went on in that file, acknowledged
    // what it wrote there, and a power cut took the file with all of it.
    for calls in 0..16 {
        let mut trial = Trial::new(1);
        let steps = [vec![Step::Own; 14], vec![Step::Kill(calls)], vec![Step::Own; 9], vec![Step::Receipts, Step::Own]];
        trial.run(&steps.concat()).expect("a disk without faults opens");
        every_state_holds(&trial.finish(), 4);
    }
}

#[test]
fn a_segment_file_that_can_be_neither_made_nor_removed_stops_the_journal() {
    // The old segment went on growing. When the power cut brought the new file back, its opening was taken for the newest
    // state of the log, and what had been recorded since was forgotten.
    let mut trial = Trial::new(1);
    trial.disk().set_fault(Some(Fault { after: 3, only: Some(Op::SyncDir), error: DiskError::Io, lasting: true }));
    let mut steps = vec![Step::Own; 30];
    steps.extend([Step::Foreign, Step::Epoch, Step::Receipts]);
    // It does not open either, as long as names cannot be made durable.
    trial.run(&steps).unwrap_err();
    trial.disk().set_fault(None);
    trial.run(&steps).expect("the disk works again");
    let recorded = trial.finish();
    assert!(recorded.errors[0].contains("neither made nor removed"), "{:?}", recorded.errors);
    every_state_holds(&recorded, 4);
}

#[test]
fn a_sync_that_failed_at_open_is_not_tried_again_on_the_same_file() {
    // The second open synced the same file, with success since the system had dropped its pages, and told peers that it
    // holds what the disk never got.
    let mut trial = Trial::new(1);
    trial.run(&[Step::Own, Step::Foreign, Step::Reopen]).expect("a disk without faults opens");
    trial.disk().set_fault(Some(Fault { after: 0, only: Some(Op::SyncData), error: DiskError::Io, lasting: false }));
    trial.run(&[Step::Own, Step::Foreign]).expect("it opens at the second try");
    let recorded = trial.finish();
    let mut failed = None;
    for call in recorded.legs.iter().flat_map(|leg| leg.trace.calls()) {
        let Call::SyncData { file, well } = call else { continue };
        assert_ne!(failed, Some(*file), "the sync of file #{file} is tried again");
        failed = failed.or((!well).then_some(*file));
    }
    assert!(failed.is_some(), "no sync failed");
    every_state_holds(&recorded, 4);
}

fn every_state_holds(recorded: &Recorded, states_max: usize) {
    let found = Examination { states_max, ..Examination::default() }.of(recorded);
    let broken: Vec<_> = found.violations.iter().map(|v| format!("{}: {}", v.state, v.what)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
