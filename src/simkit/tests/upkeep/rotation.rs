//! The power is cut at every call while the data key is rotated and every segment is sealed anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;

use journal::{AtRest, Journal, JournalOptions, OpenReport, Salts, keys_in_use};
use keys::{DataKey, DataKeys, KeyNumber};
use model::{EntryHash, LocalPos};
use simkit::trial::{self, Seal};
use simkit::{CrashStates, PretendDisk};

const ENTRIES: u64 = 60;

/// Nothing is lost, and the old key is needed until no segment does.
pub(crate) fn at_every_call(states: &Cell<usize>) {
    let disk = PretendDisk::default();
    let journal = open(&disk, &[1], 1).0;
    for row in 0..ENTRIES {
        journal.append_own(trial::draft(row, row)).wait().unwrap();
    }
    let before = everything(&journal);
    let segments = journal.stats().segments;
    assert!(segments > 3, "{segments}");
    disk.record();
    journal.use_keys(keys(&[1, 2])).wait().unwrap();
    while journal.reseal_next().unwrap().is_some() {}
    let trace = disk.take_trace();
    drop(journal);

    let (mut halfway, mut done) = (0, 0);
    let mut cuts = CrashStates::new(&trace, 1, 1);
    let mut prints = std::collections::BTreeSet::new();
    let mut needed_at_the_end = true;
    while let Some(boundary) = cuts.next_boundary() {
        needed_at_the_end = false;
        for state in 0..boundary.states() {
            let (disk, print) = boundary.disk(state);
            if !prints.insert((boundary.calls, print)) {
                continue;
            }
            states.set(states.get() + 1);
            let at = format!("state {}/{state}", boundary.calls);
            // What is on the disk before anything is mended tells whether the old key may go.
            let used = keys_in_use(std::path::Path::new(trial::DIR), &disk).unwrap();
            let old_needed = used.iter().any(|(key, _)| *key == KeyNumber(1));
            needed_at_the_end |= old_needed;
            if old_needed {
                let refused = Journal::open(options(&disk, &[2], 7));
                assert!(matches!(refused, Err(journal::OpenError::KeyMissing { .. })), "{at}");
                halfway += 1;
            } else {
                done += 1;
            }
            let (journal, report) = open(&disk, &[1, 2], 8);
            // A new segment whose making was torn is set aside, and a new epoch begins: that is no damage.
            assert!(report.damage.is_empty(), "{at}: {report:?}");
            assert_eq!(everything(&journal), before, "{at}");
            while journal.reseal_next().unwrap().is_some() {}
            assert_eq!(everything(&journal), before, "{at}");
            // Where the cut came before the new segment, there is only the tail left to rotate.
            let newest = keys_in_use(std::path::Path::new(trial::DIR), &disk).unwrap();
            drop(journal);
            if newest.iter().all(|(key, _)| *key == KeyNumber(2)) {
                assert_eq!(everything(&open(&disk, &[2], 9).0), before, "{at}");
            }
        }
    }
    assert!(!needed_at_the_end, "the old key is destroyed now");
    assert!(halfway > 100 && done > 0, "{halfway} {done}");
}

fn keys(numbers: &[u32]) -> DataKeys {
    DataKeys::new(numbers.iter().map(|n| (KeyNumber(*n), DataKey::from_bytes([*n as u8; 32]))))
}

fn options(disk: &PretendDisk, numbers: &[u32], salts: u64) -> JournalOptions {
    let at_rest = AtRest::Sealed { keys: keys(numbers), salts: std::sync::Arc::new(Counted::starting(salts)) };
    JournalOptions { at_rest, ..trial::options(disk, Seal::Sealed, salts) }
}

fn open(disk: &PretendDisk, numbers: &[u32], salts: u64) -> (Journal, OpenReport) {
    Journal::open(options(disk, numbers, salts)).unwrap()
}

fn everything(journal: &Journal) -> Vec<(LocalPos, EntryHash)> {
    let listed = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
    listed.iter().map(|l| (l.pos, l.hash)).collect()
}

struct Counted(std::sync::atomic::AtomicU64);

impl Counted {
    fn starting(at: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(at << 32))
    }
}

impl Salts for Counted {
    fn salt(&self) -> [u8; keys::SALT_LEN] {
        u128::from(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).to_le_bytes()
    }
}
