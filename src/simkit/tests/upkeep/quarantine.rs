//! Two entries of a sealed segment are damaged. The place is kept aside; the own one comes back from a peer, the received one
//! is asked for again, and the operator takes note: each of that is durable when it was told, and a copy is whole or not there.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use journal::{AppendError, Foreign, Journal, Which};
use model::{Disk as _, EntryId, Epoch, LocalPos, Outbound as _, RangeSet, Seq};
use simkit::trial::{self, Seal};
use simkit::{Call, CrashStates, PretendDisk};

const OWN: u64 = 5;

/// What was told, by the number of its note.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
enum Told {
    KeptAside = 1,
    Restored,
    AskedAgain,
    Acknowledged,
}

fn id(origin: model::NodeId, seq: u64) -> EntryId {
    EntryId { origin, epoch: Epoch(1), seq: Seq::new(seq).unwrap() }
}

fn dir() -> PathBuf {
    Path::new(trial::DIR).join("quarantine")
}

fn open(disk: &PretendDisk, salts: u64) -> Journal {
    Journal::open(trial::options(disk, Seal::Plain, salts)).unwrap().0
}

fn read_all(journal: &Journal) {
    journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
}

pub(crate) fn at_every_call(states: &Cell<usize>) {
    let disk = PretendDisk::default();
    let journal = open(&disk, 1);
    let bravo = journal.consumer("bravo", true).unwrap();
    for row in 0..60 {
        journal.append_own(trial::draft(row, row)).wait().unwrap();
        if row == 30 {
            journal.append_foreign(trial::foreign(1)).wait().unwrap();
        }
    }
    bravo.record_stored(Epoch(1), &RangeSet::from(1..=60));
    journal.flush().wait().unwrap();
    let bytes = journal.outbound().entry(id(trial::NODE, OWN)).unwrap().unwrap().bytes;
    let place_of = |id| {
        let listed = journal.show(Which::Id(id)).unwrap().unwrap();
        (listed.segment, listed.offset as usize)
    };
    let (own, received) = (place_of(id(trial::NODE, OWN)), place_of(id(trial::PEER, 1)));
    drop((bravo, journal));
    let mut damaged = BTreeMap::new();
    for (segment, offset) in [own, received] {
        let path = Path::new(trial::DIR).join(format!("segments/{segment:08}.seg"));
        let mut bytes = disk.bytes_of(&path).unwrap();
        bytes[offset + 40] ^= 1;
        disk.plant(&path, Some(&bytes));
        damaged.insert(segment, bytes);
    }
    let journal = open(&disk, 2);
    assert!(damaged.len() == 2 && journal.stats().segments > received.0, "each in a sealed segment of its own");
    disk.record();
    read_all(&journal);
    let places = journal.quarantine().places;
    assert_eq!(places.len(), 2);
    disk.note(Told::KeptAside as u64);
    let back = |bytes: &[u8]| Foreign { bytes: bytes.into(), object: None };
    let mut wrong = wire::decode_entry(&bytes).unwrap();
    wrong.body[9] ^= 1;
    let refused = journal.restore(back(&wire::encode_entry(&wrong))).wait();
    assert!(matches!(refused, Err(AppendError::Malformed(_))), "not what stood there: {refused:?}");
    journal.forget_received(BTreeMap::from([((trial::PEER, Epoch(1)), RangeSet::from(1..=1))])).wait().unwrap();
    disk.note(Told::AskedAgain as u64);
    assert!(journal.restore(back(&bytes)).wait().unwrap());
    disk.note(Told::Restored as u64);
    assert_eq!(journal.quarantine_skip(None).unwrap(), Some(0));
    disk.note(Told::Acknowledged as u64);
    let trace = disk.take_trace();
    drop(journal);

    let mut cuts = CrashStates::new(&trace, 1, 2);
    let (mut seen, mut told) = (BTreeSet::new(), BTreeSet::new());
    while let Some(boundary) = cuts.next_boundary() {
        if let Some(Call::Note(note)) = boundary.calls.checked_sub(1).map(|at| &trace.calls()[at]) {
            told.insert(*note);
        }
        let was = |what: Told| told.contains(&(what as u64));
        for state in 0..boundary.states() {
            let (disk, print) = boundary.disk(state);
            if !seen.insert((print, told.len())) {
                continue;
            }
            states.set(states.get() + 1);
            let at = format!("after call {} in state {state}: {:?}", boundary.calls, boundary.keeps(state));
            let names = disk.list(&dir()).unwrap_or_default();
            for place in &places {
                let from = place.offset as usize;
                let copy = disk.bytes_of(&dir().join(format!("{}.bin", place.name)));
                let whole = &damaged[&place.segment][from..from + place.bytes as usize];
                assert!(copy.is_none_or(|copy| copy == whole), "{at}: the copy is not what stands there");
            }
            let journal = open(&disk, 3);
            let known = journal.quarantine().places;
            let described = names.iter().filter(|name| name.ends_with(".json")).count();
            assert_eq!(known.len(), described, "{at}: a description cannot be read");
            if was(Told::KeptAside) {
                assert_eq!(known.len(), 2, "{at}: a place is forgotten");
            }
            if was(Told::Acknowledged) {
                assert_eq!(journal.quarantine().open_places(), 0, "{at}: it is an alarm again");
            }
            if was(Told::Restored) {
                let entry = journal.outbound().entry(id(trial::NODE, OWN)).unwrap();
                assert_eq!(entry.map(|entry| entry.bytes), Some(bytes.clone()), "{at}: what came back is gone");
            }
            if was(Told::AskedAgain) {
                let received = journal.received(trial::PEER).remove(&Epoch(1)).unwrap_or_default();
                assert!(received.is_empty(), "{at}: nobody would ask for it again");
            }
            read_all(&journal);
            assert_eq!(journal.quarantine().places.len(), 2, "{at}");
        }
    }
    assert_eq!(told.len(), 4);
}
