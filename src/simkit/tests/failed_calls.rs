//! What one failed call, or a process killed between two calls, once cost.

use simkit::trial::{Recorded, Step, Trial};
use simkit::Examination;

#[test]
fn a_consumer_that_is_removed_stays_removed_though_its_receipts_were_not_written_yet() {
    // The reissue gave every consumer a receipt that was to be written with the next append. That was the removal, and the
    // receipt stood behind it: after a restart the consumer was back, and trimming waited for it for ever.
    let mut trial = Trial::new(1);
    let steps = [Step::Own, Step::Own, Step::Charlie, Step::Receipts, Step::Own, Step::Reissue, Step::Charlie];
    trial.run(&steps).expect("a disk without faults opens");
    every_state_holds(&trial.finish(), usize::MAX);
}

fn every_state_holds(recorded: &Recorded, states_max: usize) {
    let found = Examination { states_max, ..Examination::default() }.of(recorded);
    let broken: Vec<_> = found.violations.iter().map(|v| format!("{}: {}", v.state, v.what)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
