//! The power goes at every call of a purge: the journal opens as one that holds the content or one that does not, and
//! once the order was noted it never comes back.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use journal::{Draft, Journal, PurgeOrder};
use model::{
    ChunkName, Disk as _, EntryId, Epoch, Hlc, Kind, Label, LocalPos, Outbound as _, Outcome, Precedence, RangeSet,
    Seq, SourcePosition, StreamId, UnixMillis,
};
use simkit::trial::{self, Seal};
use simkit::{Call, CrashStates, PretendDisk};

const SPILL: &str = "the courier meets at grid 38SMB4595 at first light, and nobody but the company commander knows";

fn draft(n: u64, body: &str) -> Draft {
    Draft {
        source: SourcePosition(Hlc(n)),
        follows: None,
        stream: StreamId::Directory,
        causes: Vec::new(),
        needs: Vec::new(),
        precedence: Precedence::Routine,
        captured: Hlc(n << 16),
        origin_time: UnixMillis(1),
        expiry: None,
        supersedes: None,
        label: Label::directory(),
        kind: Kind::Post,
        mint_salt: 1,
        body: body.as_bytes().to_vec(),
        object: None,
        chunks: None,
    }
}

fn chunk() -> ChunkName {
    ChunkName([7; ChunkName::LEN])
}

fn content() -> Vec<u8> {
    (0..900u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Written from it, of a file that stays.
fn edited_chunk() -> ChunkName {
    ChunkName([8; ChunkName::LEN])
}

fn edited() -> Vec<u8> {
    let mut bytes = content();
    bytes[100..160].fill(b'-');
    bytes
}

fn spilled(journal: &Journal) -> Vec<(EntryId, LocalPos)> {
    let all = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
    let spilled = all.iter().filter(|l| l.entry.body == SPILL.as_bytes());
    spilled.map(|l| (l.entry.header.id, l.pos)).collect()
}

/// Files of the journal that hold any of the content.
fn holding(disk: &PretendDisk) -> Vec<String> {
    let probes = [SPILL.as_bytes().to_vec(), content()[100..160].to_vec()];
    let mut found = Vec::new();
    for dir in ["segments", "quarantine"] {
        let dir = Path::new(trial::DIR).join(dir);
        found.extend(disk.list(&dir).unwrap().into_iter().filter(|name| {
            let bytes = disk.bytes_of(&dir.join(name)).unwrap_or_default();
            probes.iter().any(|probe| bytes.windows(probe.len()).any(|w| w == probe))
        }));
    }
    found
}

/// Files that damage left behind: a torn segment, the copy of a place in the first segment, and one whose description a
/// power cut took and whose segment is trimmed.
const SET_ASIDE: [&str; 3] =
    ["segments/00000099.seg.damaged", "quarantine/00000001-96.bin", "quarantine/00000077-96.bin"];

/// All of it is there or none, and the order is never forgotten.
pub(crate) fn at_every_call(states: &Cell<usize>) {
    const ENTRIES: u64 = 40;
    let spills = [3, 17, ENTRIES];
    let disk = PretendDisk::default();
    for name in SET_ASIDE {
        disk.plant(&Path::new(trial::DIR).join(name), Some(SPILL.as_bytes()));
    }
    let journal = Journal::open(trial::options(&disk, Seal::Plain, 1)).unwrap().0;
    journal.consumer("peer:bravo", true).unwrap();
    for n in 1..=ENTRIES {
        let body = if spills.contains(&n) { SPILL.to_owned() } else { format!("message {n}") };
        journal.append_own(draft(n, &body)).wait().unwrap();
        if n == 18 {
            journal.put_chunk(chunk(), &content()).wait().unwrap();
            let file = EntryId { origin: trial::PEER, epoch: Epoch::FIRST, seq: Seq::FIRST };
            journal.put_chunk_of(file, edited_chunk(), &edited(), Some(chunk())).wait().unwrap();
            assert_eq!(journal.outbound().chunk_base(&edited_chunk()).unwrap(), Some(chunk()));
        }
    }
    journal.flush().wait().unwrap();
    disk.record();
    let order = PurgeOrder {
        id: "order".to_owned(),
        by: "duty officer".to_owned(),
        reason: "spilled".to_owned(),
        at: UnixMillis(5),
    };
    let chunks = BTreeSet::from([chunk()]);
    let report = journal.purge(&order, &spilled(&journal), &BTreeMap::new(), &chunks).unwrap();
    assert_eq!((report.entries, report.chunks, report.set_aside_files), (3, 1, 3));
    disk.note(1);
    let trace = disk.take_trace();
    drop(journal);
    assert!(holding(&disk).is_empty());

    let mut cuts = CrashStates::new(&trace, 1, 2);
    let (mut seen, mut acknowledged, mut repeated) = (BTreeSet::new(), false, 0);
    while let Some(boundary) = cuts.next_boundary() {
        acknowledged |= boundary.calls > 0 && matches!(trace.calls()[boundary.calls - 1], Call::Note(_));
        for state in 0..boundary.states() {
            let (disk, print) = boundary.disk(state);
            if !seen.insert((print, acknowledged)) {
                continue;
            }
            states.set(states.get() + 1);
            let at = format!("after call {} in state {state}: {:?}", boundary.calls, boundary.keeps(state));
            let before = holding(&disk).len();
            let (journal, report) = Journal::open(trial::options(&disk, Seal::Plain, 2)).unwrap();
            assert!(report.damage.is_empty(), "{at}: {:?}", report.damage);
            let left = spilled(&journal);
            // Whole or gone, never a part; and gone means from every file.
            assert!(left.is_empty() || left.len() == spills.len(), "{at}: {left:?}");
            assert_eq!(journal.has_chunk(&chunk()).unwrap(), !left.is_empty(), "{at}");
            assert_eq!(holding(&disk).is_empty(), left.is_empty(), "{at}: {:?}", holding(&disk));
            let kept = journal.get_chunk(&edited_chunk()).unwrap();
            assert!(kept.is_some_and(|kept| *kept == *edited()), "{at}: what was written from it is lost");
            assert!(left.is_empty() || !acknowledged, "{at}: acknowledged and forgotten");
            repeated += usize::from(before > 0 && left.is_empty());
            let sums = journal.accounting("peer:bravo").unwrap().unwrap().total;
            let purged = if left.is_empty() { spills.len() as u64 } else { 0 };
            assert_eq!((sums.accepted, sums.held), (ENTRIES, ENTRIES - sums.purged), "{at}");
            journal.consumer("peer:bravo", true).unwrap();
            assert_eq!(journal.accounting("peer:bravo").unwrap().unwrap().total.purged, purged, "{at}");
            let verified = journal.verify(&mut |_| {}).unwrap();
            assert!(verified.is_clean(), "{at}: {:?}", verified.findings);
            assert_eq!((verified.entries, verified.purged_entries), (ENTRIES - purged, purged), "{at}");
            let others = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
            assert_eq!(others.len() as u64, ENTRIES - purged, "{at}");
            // It goes on.
            let consumer = journal.consumer("peer:bravo", true).unwrap();
            consumer.record_outcome(Outcome::Applied, others[0].entry.header.id.epoch, &RangeSet::from(1..=1));
            journal.append_own(draft(ENTRIES + 1, "and on")).wait().unwrap();
        }
    }
    assert!(acknowledged && repeated > 0, "open carried out what a power cut left begun");
}
