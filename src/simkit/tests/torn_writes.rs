//! What a power cut in the middle of one write once cost. A write of several frames may reach the disk in any part.

use simkit::Examination;
use simkit::trial::{Step, Trial};

#[test]
fn a_torn_trim_gives_nothing_up_before_all_that_outlives_it_is_durable() {
    // The accounts, the chunks that later files need and the mark that the segment is given up went out in one write. With
    // only its last page on the disk, open removed the segment: chunks and sums of entries were gone.
    let mut steps = vec![Step::File(4); 12];
    steps.extend([Step::Receipts, Step::Advance, Step::Trim, Step::Own, Step::Receipts, Step::Trim, Step::Own]);
    every_state_holds(&steps);
}

#[test]
fn a_torn_reissue_gives_no_entry_up_without_the_one_in_its_place() {
    // New entries and the mark that the old numbers are given up went out in one write. With only its end on the disk,
    // acknowledged entries counted as superseded and were never sent.
    let reissue = [Step::Own, Step::Epoch, Step::Reissue, Step::Reissue];
    every_state_holds(&[[Step::Own; 4], reissue, reissue, reissue].concat());
}

#[test]
fn a_row_that_is_missing_in_a_torn_write_is_captured_again() {
    // Rows 4 to 8 shared a write, of which the first page was lost. The journal said that it had everything up to row 8,
    // and the source forgot row 4.
    let together = Step::OwnTogether(5);
    every_state_holds(&[Step::Own, together, together, Step::PowerCut, together, Step::PowerCut, together, Step::Own]);
}

#[test]
fn receipts_that_follow_a_new_segments_opening_survive_a_torn_write_behind_them() {
    // A segment that held nothing but its opening and receipts, and then half a frame, was taken for one whose creation had
    // been cut short, and was set aside together with the receipts.
    let mut steps = vec![Step::Own; 16];
    steps.extend([Step::Receipts, Step::Advance, Step::Reopen].repeat(4));
    let scripts = (0..12).map(|own| [vec![Step::Own; own], steps.clone(), vec![Step::Own; 2]].concat());
    scripts.for_each(|script| every_state_holds(&script));
}

fn every_state_holds(steps: &[Step]) {
    let mut trial = Trial::new(1);
    trial.run(steps).expect("a disk without faults opens");
    let recorded = trial.finish();
    assert!(recorded.errors.is_empty(), "{:?}", recorded.errors);
    let found = Examination::default().of(&recorded);
    assert!(found.distinct > 100, "{} states", found.distinct);
    let broken: Vec<_> = found.violations.iter().map(|v| format!("{}: {}", v.state, v.what)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
