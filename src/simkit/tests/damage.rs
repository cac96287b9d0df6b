//! Flipped bytes, cut files, and files that were swapped, doubled or removed.
//!
//! `FLIPS=all` flips every byte in both ways; otherwise every byte in one way or the other.

use simkit::PretendDisk;
use simkit::damage::Specimen;
use simkit::trial::Seal;

const BYTES: u64 = 64 << 10;

/// How many bytes on in an ordinary run; the two journals start at different ones.
fn step() -> usize {
    if std::env::var("FLIPS").is_ok_and(|flips| flips == "all") { 1 } else { 8 }
}

#[test]
fn a_flipped_bit_in_a_sealed_journal_costs_at_most_one_entry_and_is_noticed() {
    let specimen = Specimen::new(Seal::Sealed, BYTES);
    let flips = specimen.flip_every_byte(step(), |at| 1 << (at * 7 % 8)).expect("a flip costs one entry");
    println!("{flips:?}, {} entries", specimen.entries());
}

#[test]
fn an_inverted_byte_of_a_plain_journal_costs_at_most_one_entry_and_is_noticed() {
    let specimen = Specimen::new(Seal::Plain, BYTES);
    let flips = specimen.flip_every_byte(step(), |_| 0xff).expect("a flip costs one entry");
    println!("{flips:?}, {} entries", specimen.entries());
}

#[test]
fn a_sector_that_the_disk_refuses_costs_what_stands_in_it_and_is_noticed() {
    for seal in [Seal::Sealed, Seal::Plain] {
        let specimen = Specimen::new(seal, BYTES);
        let sectors = specimen.lose_every_sector().expect("a sector costs what stands in it");
        let entries: usize = sectors.iter().map(|(.., harm)| harm.entries).sum();
        println!("{} sectors, {entries} entries lost in all of {}", sectors.len(), specimen.entries());
        assert!(entries > 0 && sectors.len() > 10);
    }
}

#[test]
fn a_cut_file_keeps_exactly_what_stands_before_the_cut_and_the_loss_is_noticed() {
    let specimen = Specimen::new(Seal::Sealed, 16 << 10);
    let files = specimen.files();
    let (mut cuts, mut unnoticed) = (0, 0);
    for (i, (path, bytes)) in files.iter().enumerate() {
        let is_tail = i + 1 == files.len();
        let mut before = specimen.entries();
        for at in (0..bytes.len()).rev().step_by(if is_tail { 1 } else { step() }) {
            let harm = specimen.after(|disk| disk.plant(path, Some(&bytes[..at]))).expect("a prefix survives");
            let left = specimen.entries() - harm.entries;
            assert!(left <= before, "a shorter file holds more: {at} of {}", path.display());
            before = left;
            cuts += 1;
            // Without its footer, which is not missed, a segment is whole.
            if !harm.noticed && harm.entries + harm.chunks > 0 {
                // Only the last segment can be cut between two frames without a word: that is for a peer to tell.
                assert!(is_tail, "cut at {at} of {} went unnoticed: {harm:?}", path.display());
                unnoticed += 1;
            }
        }
    }
    println!("{cuts} cuts, {unnoticed} between two frames of the last segment");
}

/// What is cut off between two frames of the last segment is missed by nobody here.
#[test]
fn a_cut_that_only_a_peer_can_tell_is_told_by_its_receipt() {
    let specimen = Specimen::new(Seal::Sealed, 16 << 10);
    let (path, bytes) = specimen.files().pop().expect("a journal has a segment");
    let (mut told, mut kept) = (0, 0);
    // Zeros are written ahead.
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it has a header") + 1;
    for at in 0..=end {
        let cut = |disk: &PretendDisk| disk.plant(&path, Some(&bytes[..at]));
        let (left, begins) = specimen.greeted_after(cut).expect("a prefix survives");
        let lost = specimen.own_entries() - left;
        if lost == 0 {
            assert!(!begins, "cut at {at}: nothing is lost, and another epoch begins");
            kept += 1;
        } else if begins {
            told += 1;
        } else {
            // Open began it already, because it saw the loss.
            let harm = specimen.after(cut).expect("a prefix survives");
            assert!(harm.noticed, "cut at {at}: {lost} entries are gone and nobody says so");
        }
    }
    println!("{told} cuts told by the peer, {kept} without a loss, of {}", end + 1);
    assert!(told > 0 && kept > 0);
}

#[test]
fn segment_files_that_are_swapped_doubled_or_removed_are_noticed_and_never_believed() {
    let specimen = Specimen::new(Seal::Sealed, BYTES);
    let files = specimen.files();
    for (i, (path, bytes)) in files.iter().enumerate() {
        let (next_path, next) = &files[(i + 1) % files.len()];
        let swap = |disk: &PretendDisk| {
            disk.plant(path, Some(next));
            disk.plant(next_path, Some(bytes));
        };
        let harm = specimen.after(swap).expect("nothing wrong is returned");
        assert!(harm.noticed, "{} and its neighbour are swapped: {harm:?}", path.display());
        let double = |disk: &PretendDisk| disk.plant(next_path, Some(bytes));
        let harm = specimen.after(double).expect("nothing wrong is returned");
        assert!(harm.noticed, "{} is there twice: {harm:?}", path.display());
        if i + 1 < files.len() {
            let harm = specimen.after(|disk| disk.plant(path, None)).expect("nothing wrong is returned");
            // The oldest ones are gone after a trim; and the last one is for a peer to miss.
            assert!(harm.noticed || i == 0, "{} is gone: {harm:?}", path.display());
        }
    }
}
