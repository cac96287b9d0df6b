use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use keys::{DataKey, DataKeys, KeyNumber};
use model::{
    ByteSize, ChunkName, Clock, Disk, DiskFile, DiskLock, Entry, EntryId, Epoch, Header, Hlc, Kind, Label, LocalPos,
    LockError, NodeId, ObjectKey, OpenMode, Outbound, Outcome, Precedence, RangeSet, Seq, SourcePosition, StreamId,
    SupersessionKey, UnixMillis,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::format::{FORMAT_VERSION, SEGMENT_HEADER_BYTES};
use crate::*;

#[test]
fn what_was_appended_is_there_after_reopening() {
    let dir = tempdir();
    let appended: Vec<_> = {
        let journal = open(&dir).0;
        (0..50).map(|n| journal.append_own(draft(n)).wait().unwrap()).collect()
    };
    let (journal, report) = open(&dir);
    assert!(!report.created && report.discarded_bytes == 0 && report.new_epoch.is_none(), "{report:?}");
    let listed = everything(&journal);
    assert_eq!(listed.iter().map(|l| (l.entry.header.id, l.pos, l.hash)).collect::<Vec<_>>(), ids(&appended));
    assert_eq!(journal.highest_source(), Some(SourcePosition(Hlc(49))));
    assert_eq!(listed[7].entry.body, body(7));
    assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn numbers_start_at_one_and_go_on_after_reopening() {
    let dir = tempdir();
    for n in 0..5 {
        let journal = open(&dir).0;
        let appended = journal.append_own(draft(n)).wait().unwrap();
        assert_eq!(appended.id, own(1, n + 1));
        assert_eq!(appended.pos, LocalPos(n + 1));
    }
}

#[test]
fn a_second_opener_is_refused_and_told_who_has_it() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let error = Journal::open(options(dir.path())).err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    drop(journal);
    open(&dir);
}

#[test]
fn another_nodes_journal_is_refused() {
    let dir = tempdir();
    open(&dir).0.append_own(draft(1)).wait().unwrap();
    let mut options = options(dir.path());
    options.node = PEER;
    assert!(matches!(Journal::open(options), Err(OpenError::OtherNode { .. })));
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    let dir = tempdir();
    {
        let journal = open(&dir).0;
        append(&journal, 0..3);
    }
    let path = segment(&dir, 1);
    let mut bytes = fs::read(&path).unwrap();
    for copy in bytes[..SEGMENT_HEADER_BYTES].chunks_mut(SEGMENT_HEADER_BYTES / 2) {
        let (fields, crc) = copy.split_last_chunk_mut::<4>().unwrap();
        fields[8..10].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        *crc = crc32c::crc32c(fields).to_le_bytes();
    }
    fs::write(&path, &bytes).unwrap();
    let error = Journal::open(options(dir.path())).err().unwrap();
    let expected = (1, FORMAT_VERSION + 1, FORMAT_VERSION);
    assert!(
        matches!(error, OpenError::NewerFormat { segment, found, known } if (segment, found, known) == expected),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn many_threads_share_one_order() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let appended: Vec<Appended> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|t| {
                let journal = journal.clone();
                scope.spawn(move || -> Vec<_> {
                    (0..10).map(|n| journal.append_own(draft(t * 100 + n)).wait().unwrap()).collect()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = ids(&appended);
    sorted.sort();
    let expected: Vec<_> = (1..=640).map(|n| (own(1, n), LocalPos(n))).collect();
    assert_eq!(sorted.iter().map(|(id, pos, _)| (*id, *pos)).collect::<Vec<_>>(), expected);
    drop(journal);
    assert_eq!(everything(&open(&dir).0).len(), 640);
}

#[test]
fn a_torn_tail_keeps_every_whole_frame_and_begins_a_new_epoch() {
    let dir = tempdir();
    {
        let journal = open(&dir).0;
        append(&journal, 0..6);
    }
    let path = segment(&dir, 1);
    let whole = fs::read(&path).unwrap();
    let ends = entry_ends(&dir);
    // Of the zeros behind them some are enough.
    for cut in (first_entry_start(&dir)..ends[5] + 16).chain([whole.len() as u64 - 1]) {
        let copy = copy_of(&dir);
        fs::OpenOptions::new().write(true).open(segment(&copy, 1)).unwrap().set_len(cut).unwrap();
        let survivors = ends.iter().filter(|end| **end <= cut).count();
        let (journal, report) = open(&copy);
        assert_eq!(numbers(&journal), (1..=survivors as u64).collect::<Vec<_>>(), "cut at {cut}");
        // Behind the last entry stand zeros that were written ahead.
        let in_zeros = ends.last().is_some_and(|last| cut >= *last);
        let on_boundary = cut == first_entry_start(&dir) || ends.contains(&cut) || in_zeros;
        assert_eq!(report.discarded_bytes == 0, on_boundary, "cut at {cut}: {report:?}");
        assert_eq!(report.new_epoch.is_none(), on_boundary, "cut at {cut}: {report:?}");
        let next = journal.append_own(draft(99)).wait().unwrap();
        let expected = if on_boundary { own(1, survivors as u64 + 1) } else { own(2, 1) };
        assert_eq!(next.id, expected, "cut at {cut}");
        drop(journal);
        let (_, report) = open(&copy);
        assert!(
            report.new_epoch.is_none() && report.discarded_bytes == 0,
            "a mended journal opens quietly: {report:?}"
        );
    }
}

#[test]
fn positions_that_a_torn_tail_hides_do_not_come_after_a_second_restart_either() {
    let dir = tempdir();
    append(&open(&dir).0, 0..6);
    let torn = entry_ends(&dir)[4] + 3;
    fs::OpenOptions::new().write(true).open(segment(&dir, 1)).unwrap().set_len(torn).unwrap();
    // Who reads what peers send goes to the end, and keeps where that is in a place of its own.
    let passed = open(&dir).0.read_foreign(LocalPos::START, 10).unwrap().next;
    let (journal, _) = open(&dir);
    assert!(journal.append_own(draft(99)).wait().unwrap().pos >= passed, "it would be passed over");
    assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn a_write_that_was_torn_on_zeros_is_told_from_zeros_that_wait_for_one() {
    let dir = tempdir();
    {
        let journal = open(&dir).0;
        append(&journal, 0..6);
        assert!(journal.stats().ahead_bytes > 0, "{:?}", journal.stats());
    }
    let whole = fs::read(segment(&dir, 1)).unwrap();
    let ends = entry_ends(&dir);
    for kept in ends[4] as usize..=ends[5] as usize {
        let copy = copy_of(&dir);
        let mut bytes = whole.clone();
        bytes[kept..].fill(0);
        fs::write(segment(&copy, 1), &bytes).unwrap();
        let (journal, report) = open(&copy);
        // A frame may end with zeros.
        let is_whole = bytes == whole;
        assert_eq!(numbers(&journal).len(), if is_whole { 6 } else { 5 }, "kept up to {kept}");
        let is_torn = kept > ends[4] as usize && !is_whole;
        let torn = bytes[ends[4] as usize..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        assert_eq!(report.discarded_bytes, if is_torn { torn as u64 } else { 0 }, "kept up to {kept}: {report:?}");
        assert_eq!(report.new_epoch.is_some(), is_torn, "kept up to {kept}: {report:?}");
        let next = journal.append_own(draft(99)).wait().unwrap();
        let expected = if is_torn { own(2, 1) } else { own(1, if is_whole { 7 } else { 6 }) };
        assert_eq!(next.id, expected, "kept up to {kept}");
        drop(journal);
        let report = open(&copy).1;
        assert!(report.new_epoch.is_none() && report.discarded_bytes == 0, "{report:?}");
    }
}

#[test]
fn zeros_ahead_are_written_over_and_a_sealed_segment_has_none() {
    let dir = tempdir();
    let len = |number| fs::metadata(segment(&dir, number)).unwrap().len();
    append(&open(&dir).0, 0..1);
    let before = len(1);
    {
        let (journal, report) = open(&dir);
        assert!(report.new_epoch.is_none(), "{report:?}");
        append(&journal, 1..2);
        assert_eq!(len(1), before, "the second entry stands where zeros stood");
        let stats = journal.stats();
        assert_eq!((before, stats.bytes + stats.ahead_bytes), (4 << 10, 4 << 10), "{stats:?}");
        append(&journal, 2..60);
        let segments = journal.stats().segments;
        assert!(segments > 2);
        let files = (1..=segments).map(len).sum::<u64>();
        assert_eq!(files, journal.stats().bytes + journal.stats().ahead_bytes);
        for sealed in 1..segments {
            assert_eq!(&fs::read(segment(&dir, sealed)).unwrap()[len(sealed) as usize - 4..], b"SEAL");
        }
    }
    let (journal, report) = open(&dir);
    assert_eq!((numbers(&journal).len(), report.footers_written), (60, 0));
    assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn an_entry_that_ends_with_zeros_is_no_part_of_those_ahead_of_it() {
    let dir = tempdir();
    let plain = || Journal::open(JournalOptions { at_rest: AtRest::Plain, ..options(dir.path()) }).unwrap();
    let zeros = |number| Draft { body: vec![0; 100], ..draft(number) };
    plain().0.append_own(zeros(1)).wait().unwrap();
    let (journal, report) = plain();
    assert!(report.new_epoch.is_none() && report.discarded_bytes == 0, "{report:?}");
    journal.append_own(zeros(2)).wait().unwrap();
    drop(journal);
    assert_eq!(everything(&plain().0).iter().map(|l| l.entry.body.len()).collect::<Vec<_>>(), [100, 100]);
}

#[test]
fn an_append_that_fits_is_taken_where_zeros_ahead_of_it_do_not() {
    let dir = tempdir();
    let disk = Arc::<FaultyDisk>::default();
    // Enough for an entry and not for the zeros.
    disk.faults.set_room(Some(1 << 10));
    let journal = open_on(&dir, &disk);
    append(&journal, 0..3);
    let stats = journal.stats();
    assert_eq!(stats.ahead_bytes, 0);
    assert_eq!(fs::metadata(segment(&dir, 1)).unwrap().len(), stats.bytes, "the room is given back");
    disk.faults.set_room(None);
    append(&journal, 3..40);
    assert!(journal.stats().ahead_bytes > 0, "the next segment tries again: {:?}", journal.stats());
    drop((journal, disk));
    assert_eq!(everything(&open(&dir).0).len(), 40);
}

#[test]
fn one_flipped_byte_costs_at_most_one_entry_and_is_noticed() {
    let dir = tempdir();
    let hashes: BTreeMap<u64, _> = {
        let journal = open(&dir).0;
        journal.consumer("bravo", true).unwrap();
        (0..6).map(|n| journal.append_own(draft(n)).wait().unwrap()).map(|a| (a.id.seq.get(), a.hash)).collect()
    };
    let whole = fs::read(segment(&dir, 1)).unwrap();
    let written = entry_ends(&dir)[5] as usize;
    // Of the zeros behind them some are enough.
    for at in (0..written + 16).chain([whole.len() - 1]) {
        let copy = copy_of(&dir);
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(segment(&copy, 1), &bytes).unwrap();
        let reader = match Reader::open(copy.path(), Arc::new(StdDisk), &data_keys()) {
            Ok(reader) => reader,
            Err(e) => panic!("flip at {at}: {e}"),
        };
        let opened = Journal::open(options(copy.path()));
        let (journal, report) = match opened {
            Ok(opened) => opened,
            Err(e) => panic!("flip at {at}: {e}"),
        };
        let left = everything(&journal);
        assert!(left.len() >= 5, "flip at {at}: {} entries left", left.len());
        for listed in &left {
            assert_eq!(hashes.get(&listed.entry.header.id.seq.get()), Some(&listed.hash), "flip at {at}");
        }
        let noticed = !report.damage.is_empty() || report.discarded_bytes > 0;
        assert!(noticed, "flip at {at} went unnoticed: {report:?}");
        assert_eq!(reader.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().len(), left.len());
        // No number is given out a second time.
        let next = journal.append_own(draft(50)).wait().unwrap();
        assert!(!hashes.contains_key(&next.id.seq.get()) || next.id.epoch > Epoch(1), "flip at {at}: {}", next.id);
        assert!(next.pos.0 > 6, "flip at {at}: {:?}", next.pos);
    }
}

/// What was appended to the newest segment between the look at it and its sealing was left out, and what follows in the next
/// segments was listed.
#[test]
fn a_walk_leaves_nothing_out_while_segments_are_sealed() {
    let dir = tempdir();
    let journal = open(&dir).0;
    append(&journal, 0..30);
    let segments = journal.stats().segments;
    let mut seen = Vec::new();
    let visit = |prefix: crate::format::EntryPrefix, _: &[u8], segment: u32, _: u64| {
        // While the newest one is read.
        if segment == segments && journal.stats().segments == segments {
            append(&journal, 30..120);
        }
        seen.push(prefix.pos);
        crate::view::Walk::On
    };
    journal.log().walk(1, |_| true, visit).unwrap();
    assert!(journal.stats().segments > segments + 1);
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());
    assert_eq!(numbers(&journal).len(), 120);
}

/// Both copies of the header stood in the first sector: with that the newest segment was lost, and any one that had no trailer
/// yet, since nothing else said how it was sealed.
#[test]
fn a_segment_that_lost_its_first_sector_keeps_the_others() {
    const SECTOR: usize = 4 << 10;
    let dir = tempdir();
    let open = |dir: &TempDir| {
        let options = options(dir.path());
        let settings = JournalSettings { segment_bytes: ByteSize(64 << 10), ..options.settings };
        Journal::open(JournalOptions { settings, ..options }).unwrap()
    };
    append(&open(&dir).0, 0..150);
    let all = everything(&open(&dir).0);
    let path = segment(&dir, 1);
    let bytes = fs::read(&path).unwrap();
    let behind: Vec<u64> = all.iter().filter(|l| l.offset >= SECTOR as u64).map(|l| l.pos.0).collect();
    assert!(bytes.len() > 4 * SECTOR && !segment(&dir, 2).exists() && behind.len() > 50, "it is the newest one");
    let disk = Arc::<FaultyDisk>::default();
    for is_refused in [false, true] {
        let copy = copy_of(&dir);
        let path = segment(&copy, 1);
        disk.faults.bad.lock().unwrap().clear();
        match is_refused {
            true => disk.faults.bad.lock().unwrap().push((path.clone(), 0..SECTOR as u64)),
            false => fs::write(&path, [&vec![0; SECTOR], &bytes[SECTOR..]].concat()).unwrap(),
        }
        let listed = |found: Vec<Listed>| found.iter().map(|l| l.pos.0).collect::<Vec<_>>();
        let reopen = || {
            let options = options(copy.path());
            let settings = JournalSettings { segment_bytes: ByteSize(64 << 10), ..options.settings };
            let disk = Arc::clone(&disk) as Arc<dyn Disk>;
            Journal::open(JournalOptions { disk, settings, ..options }).unwrap()
        };
        let (journal, report) = reopen();
        assert!(!report.damage.is_empty() && report.new_epoch.is_some(), "{report:?}");
        assert_eq!(listed(everything(&journal)), behind, "refused: {is_refused}");
        append(&journal, 150..300);
        drop(journal);
        let journal = reopen().0;
        assert_eq!(everything(&journal).len(), behind.len() + 150);
    }
}

#[test]
fn an_entry_damaged_in_a_sealed_segment_is_skipped_and_the_rest_is_read() {
    let dir = tempdir();
    {
        let journal = open(&dir).0;
        append(&journal, 0..200);
        assert!(journal.stats().segments > 3);
    }
    damage_entry(&dir, 36, 2);
    let (journal, report) = open(&dir);
    assert!(report.new_epoch.is_none(), "the tail is whole: {report:?}");
    let expected: Vec<u64> = (1..=200).filter(|n| *n != 36).collect();
    assert_eq!(numbers(&journal), expected);
    assert!(journal.show(Which::Id(own(1, 36))).unwrap().is_none());
    assert!(journal.stats().damaged > 0);
    let verified = journal.verify(&mut |_| {}).unwrap();
    assert!(verified.findings.iter().any(|f| f.segment == 2 && f.what.contains("no frame")), "{verified:?}");
}

#[test]
fn a_segment_without_its_footer_is_read_instead() {
    let dir = tempdir();
    let before = {
        let journal = open(&dir).0;
        append(&journal, 0..200);
        journal.consumer("bravo", true).unwrap().record_outcome(Outcome::Applied, Epoch(1), &(3..=9).into());
        let accounting = journal.accounting("bravo").unwrap();
        journal.flush().wait().unwrap();
        accounting
    };
    let path = segment(&dir, 2);
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 7).unwrap();
    let (journal, report) = open(&dir);
    assert!(report.new_epoch.is_none() && report.damage.is_empty(), "{report:?}");
    assert_eq!(numbers(&journal), (1..=200).collect::<Vec<_>>());
    assert_eq!(journal.accounting("bravo").unwrap(), before);
}

#[test]
fn losing_or_damaging_the_index_loses_nothing() {
    let dir = tempdir();
    let object = ObjectKey(77);
    {
        let journal = open_sled(&dir).0;
        for n in 0..200 {
            let object = if n == 20 { Some(object) } else { None };
            journal.append_own(Draft { object, ..draft(n) }).wait().unwrap();
        }
    }
    type Break = fn(&Path);
    let breaks: [(&str, Break); 5] = [
        ("whole", |_| {}),
        ("gone", |index| fs::remove_dir_all(index).unwrap()),
        ("cut", |index| {
            let db = index.join("db");
            let len = fs::metadata(&db).unwrap().len();
            fs::OpenOptions::new().write(true).open(db).unwrap().set_len(len / 2).unwrap();
        }),
        ("zeros", |index| {
            let db = index.join("db");
            let mut bytes = fs::read(&db).unwrap();
            let (from, to) = (bytes.len() / 4, bytes.len() / 4 * 3);
            bytes[from..to].fill(0);
            fs::write(db, bytes).unwrap();
        }),
        ("snapshot", |index| {
            for item in fs::read_dir(index).unwrap() {
                let path = item.unwrap().path();
                if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                    let len = fs::metadata(&path).unwrap().len();
                    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len / 2).unwrap();
                }
            }
        }),
    ];
    for (name, damage) in breaks {
        let copy = copy_of(&dir);
        damage(&copy.path().join("index"));
        let (journal, report) = open_sled(&copy);
        assert!(report.new_epoch.is_none(), "{name}: {report:?}");
        if name == "gone" {
            assert!(report.index_rebuilt.is_some(), "{name}: {report:?}");
        }
        if name == "whole" {
            assert!(report.index_rebuilt.is_none(), "{name}: {report:?}");
        }
        for n in 1..=200 {
            assert!(journal.show(Which::Id(own(1, n))).unwrap().is_some(), "{name}: entry {n}");
        }
        assert_eq!(journal.creator(object).unwrap(), Some(own(1, 21)), "{name}");
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean(), "{name}");
    }
}

#[test]
fn a_received_entry_is_stored_once_and_another_content_is_a_conflict() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let bytes = foreign(4, b"text");
    let stored = journal.append_foreign(bytes.clone()).wait().unwrap();
    assert_eq!(stored, ForeignOutcome::Stored(LocalPos(1)));
    assert_eq!(journal.append_foreign(bytes.clone()).wait().unwrap(), ForeignOutcome::AlreadyHeld);
    let other = journal.append_foreign(foreign(4, b"another")).wait().unwrap();
    assert!(matches!(other, ForeignOutcome::Conflict { .. }), "{other:?}");
    assert_eq!(journal.received(PEER), BTreeMap::from([(Epoch(1), RangeSet::from(4..=4))]));
    let batch = journal.read_foreign(LocalPos::START, 10).unwrap();
    assert_eq!(batch.entries.len(), 1);
    assert_eq!(batch.entries[0].entry.body, b"text");
    assert_eq!(batch.next, journal.head());
    drop(journal);
    let journal = open(&dir).0;
    assert_eq!(journal.append_foreign(bytes).wait().unwrap(), ForeignOutcome::AlreadyHeld);
    let own_entry = Foreign { bytes: wire::encode_entry(&entry_of(NODE, 9, b"x")).into(), object: None };
    assert!(matches!(journal.append_foreign(own_entry).wait(), Err(AppendError::Malformed(_))));
    let garbage = Foreign { bytes: Arc::from(&b"no entry"[..]), object: None };
    assert!(matches!(journal.append_foreign(garbage).wait(), Err(AppendError::Malformed(_))));
}

#[test]
fn reading_received_entries_in_pieces_meets_each_once() {
    let dir = tempdir();
    let journal = open(&dir).0;
    for n in 1..=100 {
        journal.append_own(draft(n)).wait().unwrap();
        journal.append_foreign(foreign(n, b"text")).wait().unwrap();
    }
    let mut from = LocalPos::START;
    let mut met = Vec::new();
    while from < journal.head() {
        let batch = journal.read_foreign(from, 7).unwrap();
        met.extend(batch.entries.iter().map(|received| received.entry.header.id.seq.get()));
        from = batch.next;
    }
    assert_eq!(met, (1..=100).collect::<Vec<_>>());
}

#[test]
fn the_outbound_view_reads_own_entries_of_one_class_in_order() {
    let dir = tempdir();
    let journal = open(&dir).0;
    for n in 0..150 {
        let precedence = Precedence::ALL[n as usize % 5];
        journal.append_own(Draft { precedence, ..draft(n) }).wait().unwrap();
        journal.append_foreign(foreign(n + 1, b"text")).wait().unwrap();
    }
    let view = journal.outbound();
    let mut from = LocalPos::START;
    let mut met = Vec::new();
    loop {
        let scan = view.scan(Precedence::Flash, from, 500).unwrap();
        met.extend(scan.entries.iter().map(|e| e.entry.header.id.seq.get()));
        assert!(scan.entries.len() <= 10, "the size is bounded");
        from = scan.next;
        if scan.entries.is_empty() {
            break;
        }
    }
    assert_eq!(met, (0..30).map(|n| n * 5 + 1).collect::<Vec<_>>());
    assert_eq!(from, journal.head());
    let entry = view.entry(own(1, 6)).unwrap().unwrap();
    assert_eq!(wire::entry_hash(&entry.bytes).unwrap(), entry.hash);
}

#[test]
fn a_newer_state_supersedes_an_older_one() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let keyed = |n| Draft { supersedes: Some(SupersessionKey(5)), ..draft(n) };
    let old = journal.append_own(keyed(1)).wait().unwrap();
    append(&journal, 2..120);
    let view = journal.outbound();
    let outgoing = |id| view.entry(id).unwrap().unwrap();
    assert!(!view.superseded(&outgoing(old.id)));
    let new = journal.append_own(keyed(120)).wait().unwrap();
    assert!(view.superseded(&outgoing(old.id)));
    assert!(!view.superseded(&outgoing(new.id)));
}

#[test]
fn causes_are_found_even_while_they_are_on_their_way() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let (channel, root) = (ObjectKey(1), ObjectKey(2));
    let tickets = [
        journal.append_own(Draft { object: Some(channel), ..draft(1) }),
        journal.append_own(Draft { object: Some(root), needs: vec![channel], ..draft(2) }),
        journal.append_own(Draft { needs: vec![channel, root, ObjectKey(9)], object: Some(root), ..draft(3) }),
    ];
    let appended = tickets.map(|ticket| ticket.wait().unwrap());
    let listed = everything(&journal);
    assert_eq!(listed[2].entry.header.causes, [appended[0].id, appended[1].id]);
    assert_eq!(journal.creator(root).unwrap(), Some(appended[1].id), "the first entry of an object creates it");
}

#[test]
fn renumbered_entries_are_superseded_for_every_consumer() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let before = journal.consumer("bravo", true).unwrap();
    let old: Vec<_> = (0..3).map(|n| journal.append_own(draft(n)).wait().unwrap().id).collect();
    assert_eq!(journal.start_epoch(EpochReason::Conflict).wait().unwrap(), Epoch(2));
    let again = journal.reissue(old.clone()).wait().unwrap();
    assert_eq!(
        again.iter().map(|(id, a)| (*id, a.id)).collect::<Vec<_>>(),
        [(own(1, 1), own(2, 1)), (own(1, 2), own(2, 2)), (own(1, 3), own(2, 3))]
    );
    assert!(journal.reissue(old).wait().unwrap().is_empty(), "only once");
    drop((journal, before));
    let journal = open(&dir).0;
    let late = journal.consumer("charlie", false).unwrap();
    for name in ["bravo", "charlie"] {
        let total = journal.accounting(name).unwrap().unwrap().total;
        assert_eq!((total.accepted, total.superseded, total.held), (6, 3, 3), "{name}");
    }
    assert_eq!(late.outcome_of(Epoch(1), Seq::FIRST), Some(Outcome::Superseded));
}

#[test]
fn receipts_survive_reopening_and_the_first_outcome_stays() {
    let dir = tempdir();
    {
        let journal = open(&dir).0;
        let bravo = journal.consumer("bravo", true).unwrap();
        append(&journal, 0..10);
        bravo.record_stored(Epoch(1), &(1..=6).into());
        bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=4).into());
        bravo.record_outcome(Outcome::Quarantined, Epoch(1), &(3..=5).into());
        bravo.record_outcome(Outcome::Applied, Epoch(1), &(9..=u64::MAX).into());
        assert_eq!(bravo.low_water().unwrap(), LocalPos(6));
    }
    let journal = open(&dir).0;
    let total = journal.accounting("bravo").unwrap().unwrap().total;
    assert_eq!((total.accepted, total.applied, total.quarantined, total.held, total.stored), (10, 6, 1, 3, 1));
    assert!(total.held_bytes > 0);
    assert_eq!(total.oldest_held, Some(Hlc(5 << 16).millis()));
    let reader = Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
    assert_eq!(reader.accounting().unwrap()["bravo"].total, total);
}

#[test]
fn trim_waits_for_the_slowest_required_consumer_and_for_the_local_apply() {
    let dir = tempdir();
    let journal = open(&dir).0;
    for n in 1..=100 {
        journal.append_own(draft(n)).wait().unwrap();
        journal.append_foreign(foreign(n, b"text")).wait().unwrap();
    }
    assert_eq!(journal.trim().unwrap().segments, 0, "nobody is registered");
    let [fast, slow] = ["fast", "slow"].map(|name| journal.consumer(name, true).unwrap());
    let lazy = journal.consumer("lazy", false).unwrap();
    fast.record_outcome(Outcome::Applied, Epoch(1), &(1..=100).into());
    slow.record_outcome(Outcome::Applied, Epoch(1), &(1..=50).into());
    assert_eq!(journal.trim().unwrap().segments, 0, "the local apply is not registered");
    let apply = journal.consumer("apply", true).unwrap();
    apply.advance(LocalPos(20));
    assert_eq!(journal.trim().unwrap().waiting_for, ["apply"]);
    apply.advance(journal.head());
    let report = journal.trim().unwrap();
    assert!(report.segments > 0, "{report:?}");
    assert_eq!(report.waiting_for, ["slow"]);
    assert!(journal.show(Which::Id(own(1, 51))).unwrap().is_some());
    assert!(journal.show(Which::Id(own(1, 1))).unwrap().is_none());
    let check = |journal: &Journal| {
        let total = |name: &str| journal.accounting(name).unwrap().unwrap().total;
        assert_eq!((total("slow").accepted, total("slow").applied, total("slow").held), (100, 50, 50));
        assert_eq!((total("fast").accepted, total("fast").applied), (100, 100));
        assert_eq!(total("lazy").accepted, 100);
        assert!(total("lazy").expired > 0, "what went before the lazy one had it is accounted for");
        assert_eq!(journal.received(PEER)[&Epoch(1)], RangeSet::from(1..=100), "received numbers are kept");
    };
    check(&journal);
    let left = journal.stats().segments;
    drop((journal, fast, slow, lazy, apply));
    let journal = open(&dir).0;
    assert_eq!(journal.stats().segments, left);
    check(&journal);
    assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn trim_waits_for_a_reader_of_own_and_received_entries_alike() {
    let dir = tempdir();
    let journal = open(&dir).0;
    for n in 1..=100 {
        journal.append_own(draft(n)).wait().unwrap();
        journal.append_foreign(foreign(n, b"text")).wait().unwrap();
    }
    let apply = journal.consumer("apply", true).unwrap();
    apply.advance(journal.head());
    let target = journal.consumer("target", true).unwrap();
    target.advance_over_all(LocalPos::START);
    assert_eq!(journal.trim().unwrap().waiting_for, ["target"], "an edge without a hub has no other reader of its own");
    target.advance_over_all(LocalPos(101));
    assert!(journal.trim().unwrap().segments > 0);
    assert!(journal.show(Which::Pos(LocalPos(1))).unwrap().is_none());
    assert!(journal.show(Which::Pos(LocalPos(101))).unwrap().is_some());
    journal.flush().wait().unwrap();
    drop((journal, apply, target));
    let journal = open(&dir).0;
    assert_eq!(journal.trim().unwrap().waiting_for, ["target"], "it is remembered what it reads");
    journal.consumer("target", true).unwrap().advance_over_all(journal.head());
    assert!(journal.trim().unwrap().segments > 0);
}

#[test]
fn a_trim_that_was_cut_short_is_finished_at_open() {
    let dir = tempdir();
    let journal = open(&dir).0;
    append(&journal, 0..100);
    let bravo = journal.consumer("bravo", true).unwrap();
    bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=100).into());
    let first = fs::read(segment(&dir, 1)).unwrap();
    assert!(journal.trim().unwrap().segments > 0);
    let total = journal.accounting("bravo").unwrap().unwrap().total;
    drop((journal, bravo));
    // The power fails between the note in the log and the removal of the file.
    fs::write(segment(&dir, 1), first).unwrap();
    let journal = open(&dir).0;
    assert!(!segment(&dir, 1).exists());
    assert_eq!(journal.accounting("bravo").unwrap().unwrap().total, total);
    assert_eq!(total.accepted, 100);
}

#[test]
fn chunks_are_written_once_and_read_back() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let (text, noise) = (vec![b'a'; 20_000], noise(20_000));
    assert_eq!(journal.put_chunk(chunk_name(1), &text).wait().unwrap(), ChunkPut::Stored);
    assert_eq!(journal.put_chunk(chunk_name(2), &noise).wait().unwrap(), ChunkPut::Stored);
    journal.flush().wait().unwrap();
    let bytes = journal.stats().bytes;
    assert!(bytes < 25_000, "text is compressed: {bytes}");
    assert_eq!(journal.put_chunk(chunk_name(2), &noise).wait().unwrap(), ChunkPut::AlreadyHeld);
    assert!(journal.stats().bytes < bytes + 100);
    assert_eq!(journal.stats().chunks, 2);
    drop(journal);
    let journal = open(&dir).0;
    assert_eq!(&*journal.get_chunk(&chunk_name(1)).unwrap().unwrap(), text);
    assert_eq!(&*journal.outbound().chunk(&chunk_name(2)).unwrap().unwrap(), noise);
    assert!(journal.get_chunk(&chunk_name(3)).unwrap().is_none());
    assert!(!journal.retain_chunk(chunk_name(3)).wait().unwrap());
    let huge = vec![0; (1 << 20) + 1];
    assert!(matches!(journal.put_chunk(chunk_name(4), &huge).wait(), Err(AppendError::TooLarge { .. })));
}

#[test]
fn chunks_that_a_later_file_shares_survive_the_trim_of_the_first() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let bravo = journal.consumer("bravo", true).unwrap();
    let put = |names: &[u8]| {
        let file = journal.begin_file();
        for n in names {
            journal.put_chunk(chunk_name(*n), &noise(1000 + usize::from(*n))).wait().unwrap();
        }
        let draft = Draft { chunks: Some(file.chunks(2_000)), ..draft(1) };
        journal.append_own(draft).wait().unwrap().id.seq.get()
    };
    let first = put(&[1, 2]);
    append(&journal, 0..100);
    put(&[2, 3]);
    append(&journal, 0..100);
    bravo.record_outcome(Outcome::Applied, Epoch(1), &(first..=50).into());
    let report = journal.trim().unwrap();
    assert_eq!((report.segments > 0, report.chunks_kept), (true, 1), "{report:?}");
    assert!(journal.get_chunk(&chunk_name(1)).unwrap().is_none(), "only the first file had it");
    assert_eq!(&*journal.get_chunk(&chunk_name(2)).unwrap().unwrap(), noise(1002));
    drop((journal, bravo));
    let journal = open(&dir).0;
    assert_eq!(&*journal.get_chunk(&chunk_name(2)).unwrap().unwrap(), noise(1002));
    assert_eq!(&*journal.get_chunk(&chunk_name(3)).unwrap().unwrap(), noise(1003));
}

#[test]
fn a_held_file_counts_with_its_content_and_still_does_after_reopening_and_renumbering() {
    let dir = tempdir();
    const CONTENT: u64 = 1 << 30;
    let held = |journal: &Journal| journal.accounting("bravo").unwrap().unwrap().total.held_bytes;
    {
        let journal = open(&dir).0;
        let bravo = journal.consumer("bravo", true).unwrap();
        let file = journal.begin_file();
        let appended = journal.append_own(Draft { chunks: Some(file.chunks(CONTENT)), ..draft(1) }).wait().unwrap();
        assert!((CONTENT..CONTENT + 2_048).contains(&held(&journal)), "{}", held(&journal));
        journal.reissue(vec![appended.id]).wait().unwrap();
        assert!((CONTENT..CONTENT + 2_048).contains(&held(&journal)), "{}", held(&journal));
        drop(bravo);
    }
    let journal = open(&dir).0;
    let bravo = journal.consumer("bravo", true).unwrap();
    assert!((CONTENT..CONTENT + 2_048).contains(&held(&journal)), "{}", held(&journal));
    bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=2).into());
    assert_eq!(held(&journal), 0);
}

#[test]
fn a_file_in_progress_keeps_its_chunks() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let bravo = journal.consumer("bravo", true).unwrap();
    let file = journal.begin_file();
    journal.put_chunk(chunk_name(1), &noise(1000)).wait().unwrap();
    append(&journal, 0..100);
    bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=100).into());
    assert_eq!(journal.trim().unwrap().segments, 0);
    journal.append_own(Draft { chunks: Some(file.chunks(1_000)), ..draft(1) }).wait().unwrap();
    drop(file);
    assert_eq!(journal.trim().unwrap().segments, 0, "the entry is still held");
    append(&journal, 0..100);
    bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=150).into());
    journal.trim().unwrap();
    assert!(journal.get_chunk(&chunk_name(1)).unwrap().is_none());
}

#[test]
fn a_full_journal_refuses_and_continues_after_a_trim() {
    let dir = tempdir();
    let mut options = options(dir.path());
    options.settings.limit_bytes = ByteSize(20_000);
    let journal = Journal::open(options).unwrap().0;
    let bravo = journal.consumer("bravo", true).unwrap();
    let mut accepted = 0;
    let error = loop {
        match journal.append_own(draft(accepted)).wait() {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(error, AppendError::Full { .. }) && error.is_retryable(), "{error}");
    bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=accepted).into());
    assert!(journal.trim().unwrap().segments > 0);
    let next = journal.append_own(draft(accepted)).wait().unwrap();
    assert_eq!(next.id, own(1, accepted + 1), "a refused append takes no number");
}

#[test]
fn a_full_disk_refuses_and_the_journal_continues_when_space_returns() {
    let dir = tempdir();
    let disk = Arc::new(FaultyDisk::default());
    let journal = open_on(&dir, &disk);
    append(&journal, 0..3);
    for room in 0..100 {
        disk.faults.set_room(Some(room));
        let error = journal.append_own(draft(3)).wait().unwrap_err();
        assert!(matches!(error, AppendError::NoSpace(_)) && error.is_retryable(), "{room}: {error}");
        assert_eq!(numbers(&journal), [1, 2, 3]);
    }
    disk.faults.set_room(None);
    assert_eq!(journal.append_own(draft(3)).wait().unwrap().id, own(1, 4));
    drop(journal);
    let (journal, report) = open(&dir);
    assert!(report.new_epoch.is_none() && report.discarded_bytes == 0, "{report:?}");
    assert_eq!(numbers(&journal), [1, 2, 3, 4]);
}

#[test]
fn a_disk_without_room_for_the_next_segment_fills_the_old_one_further() {
    let dir = tempdir();
    let disk = Arc::new(FaultyDisk::default());
    let journal = open_on(&dir, &disk);
    append(&journal, 0..20);
    disk.faults.refuse_new_files.store(true, Ordering::SeqCst);
    append(&journal, 20..100);
    assert_eq!(journal.stats().segments, 1);
    disk.faults.refuse_new_files.store(false, Ordering::SeqCst);
    append(&journal, 100..102);
    journal.flush().wait().unwrap();
    assert_eq!(journal.stats().segments, 2);
    drop(journal);
    assert_eq!(numbers(&open(&dir).0), (1..=102).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_fails_to_sync_stops_the_journal_and_its_tail_is_written_anew() {
    let dir = tempdir();
    let disk = Arc::new(FaultyDisk::default());
    let journal = open_on(&dir, &disk);
    append(&journal, 0..3);
    disk.faults.fail_syncs.store(true, Ordering::SeqCst);
    let error = journal.append_own(draft(3)).wait().unwrap_err();
    assert!(matches!(error, AppendError::Stopped(_)) && !error.is_retryable(), "{error}");
    disk.faults.fail_syncs.store(false, Ordering::SeqCst);
    let error = journal.append_own(draft(4)).wait().unwrap_err();
    assert!(matches!(error, AppendError::Stopped(_)), "a sync that works again proves nothing: {error}");
    assert_eq!(numbers(&journal), [1, 2, 3], "it can still be read");
    assert!(journal.stats().stopped.is_some());
    drop(journal);
    fs::write(dir.path().join("suspect"), "00000001.seg").unwrap();
    let (journal, report) = open(&dir);
    assert_eq!(report.new_epoch.map(|e| (e.epoch, e.reason)), Some((Epoch(2), EpochReason::SyncFailed)));
    assert_eq!(numbers(&journal)[..3], [1, 2, 3]);
    assert_eq!(journal.append_own(draft(5)).wait().unwrap().id, own(2, 1));
    drop(journal);
    assert!(open(&dir).1.new_epoch.is_none());
}

#[test]
fn an_own_entry_that_is_damaged_later_counts_as_quarantined_and_does_not_hold_up_the_trim() {
    let dir = tempdir();
    let journal = open(&dir).0;
    append(&journal, 0..100);
    let bravo = journal.consumer("bravo", true).unwrap();
    damage_entry(&dir, 5, 1);
    assert_eq!(journal.outbound().scan(Precedence::Routine, LocalPos::START, usize::MAX).unwrap().entries.len(), 99);
    assert_eq!(journal.unreadable(), BTreeMap::from([(Epoch(1), RangeSet::from(5..=5))]));
    let total = |journal: &Journal| journal.accounting("bravo").unwrap().unwrap().total;
    assert_eq!((total(&journal).accepted, total(&journal).quarantined, total(&journal).held), (100, 1, 99));
    let mut rest = RangeSet::from(1..=100);
    rest.remove(5);
    bravo.record_outcome(Outcome::Applied, Epoch(1), &rest);
    assert_eq!(total(&journal).held_bytes, 0);
    assert!(journal.trim().unwrap().segments > 0);
    assert_eq!((total(&journal).accepted, total(&journal).quarantined, total(&journal).applied), (100, 1, 99));
    assert!(journal.trimmed()[&Epoch(1)].contains(5), "who comes later is told that it will never get it");
    assert!(!journal.trimmed()[&Epoch(1)].contains(100));
    drop((journal, bravo));
    assert_eq!(total(&open(&dir).0).quarantined, 1);
}

#[test]
fn subscribers_hear_of_appends_until_they_leave() {
    let dir = tempdir();
    let journal = open(&dir).0;
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let subscription = journal.on_append(Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    journal.append_own(draft(1)).wait().unwrap();
    journal.flush().wait().unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    drop(subscription);
    journal.append_own(draft(2)).wait().unwrap();
    journal.flush().wait().unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

#[test]
fn a_reader_sees_what_is_durable_while_the_owner_goes_on() {
    let dir = tempdir();
    let journal = open(&dir).0;
    append(&journal, 0..100);
    let reader = Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
    assert_eq!(reader.node(), NODE);
    append(&journal, 0..100);
    assert_eq!(reader.list(LocalPos::START..LocalPos(u64::MAX), 1000).unwrap().len(), 100);
    assert!(reader.show(Which::Id(own(1, 40))).unwrap().is_some());
    assert!(reader.verify(&mut |_| {}).unwrap().is_clean());
    assert_eq!(reader.stats().entries, 100);
    let empty = tempdir();
    assert!(Reader::open(empty.path(), Arc::new(StdDisk), &data_keys()).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Own(u8),
    Foreign(u8),
    Outcome(u8, u8, u8),
    Stored(u8, u8),
    Advance,
    Trim,
    Epoch,
    Reissue(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u8..5).prop_map(Step::Own),
        3 => any::<u8>().prop_map(Step::Foreign),
        3 => (0u8..6, any::<u8>(), 0u8..30).prop_map(|(o, a, n)| Step::Outcome(o, a, n)),
        1 => (any::<u8>(), 0u8..30).prop_map(|(a, n)| Step::Stored(a, n)),
        1 => Just(Step::Advance),
        2 => Just(Step::Trim),
        1 => Just(Step::Epoch),
        1 => any::<u8>().prop_map(Step::Reissue),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Model: what was appended as a list, what ended as a map. Trimmed entries leave the list from the front.
    #[test]
    fn it_behaves_like_a_list_and_the_equation_always_holds(steps in steps()) {
        let dir = tempdir();
        let mut journal = open(&dir).0;
        let mut consumers = register(&journal);
        let mut log: Vec<(LocalPos, EntryId)> = Vec::new();
        let mut finals: BTreeMap<EntryId, Outcome> = BTreeMap::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let mut classes: BTreeMap<EntryId, Precedence> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Own(class) => {
                    let precedence = Precedence::ALL[usize::from(class)];
                    let appended = journal.append_own(Draft { precedence, ..draft(n as u64) }).wait().unwrap();
                    log.push((appended.pos, appended.id));
                    last.insert(appended.id.epoch.0, appended.id.seq.get());
                    classes.insert(appended.id, precedence);
                }
                Step::Foreign(seq) => {
                    let held = journal.received(PEER).get(&Epoch(1)).is_some_and(|set| set.contains(u64::from(seq) + 1));
                    match journal.append_foreign(foreign(u64::from(seq) + 1, b"text")).wait().unwrap() {
                        ForeignOutcome::Stored(pos) => {
                            prop_assert!(!held);
                            log.push((pos, EntryId { origin: PEER, ..own(1, u64::from(seq) + 1) }));
                        }
                        ForeignOutcome::AlreadyHeld => prop_assert!(held),
                        ForeignOutcome::Conflict { .. } => prop_assert!(false, "the same bytes conflict"),
                    }
                }
                Step::Outcome(outcome, from, count) => {
                    let outcome = Outcome::ALL[usize::from(outcome)];
                    let epoch = *last.keys().next_back().unwrap_or(&1);
                    let numbers = u64::from(from)..=u64::from(from) + u64::from(count);
                    consumers[0].record_outcome(outcome, Epoch(epoch), &numbers.clone().into());
                    for seq in numbers.filter(|seq| (1..=last.get(&epoch).copied().unwrap_or(0)).contains(seq)) {
                        finals.entry(own(epoch, seq)).or_insert(outcome);
                    }
                }
                Step::Stored(from, count) => {
                    let numbers = u64::from(from)..=u64::from(from) + u64::from(count);
                    consumers[0].record_stored(journal.epochs().last().unwrap().epoch, &numbers.into());
                }
                Step::Advance => consumers[1].advance(journal.head()),
                Step::Trim => {
                    journal.trim().unwrap();
                    let first = journal.stats().first;
                    for (_, id) in log.iter().filter(|(pos, id)| pos.0 < first && id.origin == NODE) {
                        prop_assert!(finals.contains_key(id), "{} was trimmed while it was held", id);
                    }
                    log.retain(|(pos, _)| pos.0 >= first);
                }
                Step::Epoch => {
                    journal.start_epoch(EpochReason::Operator).wait().unwrap();
                }
                Step::Reissue(pick) => {
                    let own: Vec<_> = log.iter().filter(|(_, id)| id.origin == NODE).map(|(_, id)| *id).collect();
                    let Some(id) = own.get(usize::from(pick) % own.len().max(1)) else { continue };
                    for (old, appended) in journal.reissue(vec![*id]).wait().unwrap() {
                        finals.entry(old).or_insert(Outcome::Superseded);
                        log.push((appended.pos, appended.id));
                        last.insert(appended.id.epoch.0, appended.id.seq.get());
                        classes.insert(appended.id, classes[&old]);
                    }
                }
                Step::Reopen => {
                    drop((journal, consumers));
                    let (again, report) = open(&dir);
                    prop_assert!(report.new_epoch.is_none() && report.damage.is_empty(), "{:?}", report);
                    journal = again;
                    consumers = register(&journal);
                }
            }
            let listed: Vec<_> = everything(&journal).iter().map(|l| (l.pos, l.entry.header.id)).collect();
            prop_assert_eq!(&listed, &log);
            let accounting = journal.accounting("bravo").unwrap().unwrap();
            for class in Precedence::ALL {
                let sums = accounting.by_class[class.index()];
                let accepted = classes.values().filter(|c| **c == class).count() as u64;
                let ended = |o| finals.iter().filter(|(id, outcome)| **outcome == o && classes[id] == class).count() as u64;
                let expected = Outcome::ALL.map(ended);
                let found =
                    [sums.applied, sums.quarantined, sums.expired, sums.superseded, sums.withheld, sums.purged];
                prop_assert_eq!(found, expected);
                prop_assert_eq!(sums.accepted, accepted);
                prop_assert_eq!(sums.held, accepted - expected.iter().sum::<u64>());
                prop_assert_eq!(sums.held == 0, sums.held_bytes == 0);
                prop_assert_eq!(sums.held == 0, sums.oldest_held.is_none());
            }
        }
        let verified = journal.verify(&mut |_| {}).unwrap();
        prop_assert!(verified.is_clean(), "{:?}", verified);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The power fails after some number of disk operations, again and again. Whatever was acknowledged before is there
    /// afterwards, under its number, and no number ever stands for two contents.
    #[test]
    fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(
        seed: u64,
        cuts in prop::collection::vec(1usize..160, 1..5),
    ) {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let dir = PathBuf::from("/journal");
        let mut disk = Arc::new(MemoryDisk::default());
        let mut acknowledged: BTreeMap<EntryId, model::EntryHash> = BTreeMap::new();
        let mut finals = 0;
        let mut reported = std::collections::BTreeSet::new();
        for cut in cuts {
            disk.cut_after(cut, rng.random());
            let options = JournalOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..options(&dir) };
            let Ok((journal, report)) = Journal::open(options) else {
                prop_assert!(false, "a disk without faults must open");
                unreachable!();
            };
            let listed = everything(&journal);
            let first = journal.stats().first;
            for (id, hash) in &acknowledged {
                let found = listed.iter().find(|l| l.entry.header.id == *id);
                match found {
                    Some(found) => prop_assert_eq!(&found.hash, hash),
                    None => prop_assert!(id.epoch == Epoch(1) && id.seq.get() <= finals, "{} is lost, first {}", id, first),
                }
            }
            let verified = journal.verify(&mut |_| {}).unwrap();
            // A hole in a batch that was never acknowledged looks like damage, and nothing else may. It is told when it is
            // met first; after its segment is sealed only verify meets it.
            reported.extend(report.damage.iter().map(|damage| (damage.segment, damage.offset)));
            for finding in &verified.findings {
                prop_assert!(reported.contains(&(finding.segment, finding.offset)), "{:?} {:?}", finding, report);
            }
            let bravo = journal.consumer("bravo", true).unwrap();
            for n in 0..rng.random_range(1..80) {
                let text = rng.random::<u64>();
                let draft = Draft { body: format!("{text:x} {n}").repeat(3).into_bytes(), ..draft(n) };
                let tickets = [journal.append_own(draft.clone()), journal.append_own(draft)];
                let appended = tickets.map(|ticket| ticket.wait().unwrap());
                if disk.is_cut() {
                    continue;
                }
                for appended in appended {
                    let before = acknowledged.insert(appended.id, appended.hash);
                    prop_assert!(before.is_none(), "{} was given out twice", appended.id);
                }
                if rng.random_range(0..20) == 0 {
                    finals = journal.epochs()[0].last.map_or(0, Seq::get);
                    bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=finals.max(1)).into());
                    journal.trim().unwrap();
                }
            }
            let total = journal.accounting("bravo").unwrap().unwrap().total;
            // A number in a hole counts as quarantined.
            prop_assert_eq!(total.accepted, total.applied + total.held + total.quarantined);
            drop((journal, bravo));
            disk = Arc::new(disk.after_the_cut());
        }
    }
}

/// A disk in memory that remembers what was synced. When the power fails, a file keeps what was synced and any part of the
/// rest, a name that was not synced may be missing, and a removed one may be back.
#[derive(Default)]
struct MemoryDisk(Arc<Mutex<MemoryState>>);

#[derive(Clone, Default)]
struct MemoryState {
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    files: Vec<MemoryContent>,
    operations_left: usize,
    seed: u64,
    image: Option<Box<MemoryState>>,
}

#[derive(Clone, Default)]
struct MemoryContent {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl MemoryDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, MemoryState> {
        self.0.lock().unwrap()
    }

    fn cut_after(&self, operations: usize, seed: u64) {
        let mut state = self.state();
        (state.operations_left, state.seed) = (operations, seed);
    }

    fn is_cut(&self) -> bool {
        self.state().image.is_some()
    }

    fn after_the_cut(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(state.image.as_deref().cloned().unwrap_or_else(|| state.crashed()))))
    }
}

impl MemoryState {
    /// One operation that changes the disk is about to happen.
    fn tick(&mut self) {
        if self.operations_left == 0 && self.image.is_none() {
            self.image = Some(Box::new(self.crashed()));
        }
        self.operations_left = self.operations_left.saturating_sub(1);
    }

    fn crashed(&self) -> Self {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(self.seed);
        let mut image = Self::default();
        let both = self.names.iter().chain(&self.synced_names);
        for path in both.map(|(path, _)| path.clone()).collect::<std::collections::BTreeSet<_>>() {
            let names = if rng.random() { &self.names } else { &self.synced_names };
            let Some(file) = names.get(&path) else { continue };
            let MemoryContent { bytes, synced } = &self.files[*file];
            let same = bytes.iter().zip(synced).take_while(|(now, then)| now == then).count();
            let all = bytes.len() - same;
            let extra = if rng.random() { all } else { rng.random_range(0..=all) };
            let mut kept = bytes[..same + extra].to_vec();
            // Of what was not synced, a block may be missing while a later one is there.
            if extra > 0 && rng.random_range(0..4) == 0 {
                let hole = same + rng.random_range(0..extra);
                for (at, byte) in kept.iter_mut().enumerate().skip(hole).take(64) {
                    *byte = synced.get(at).copied().unwrap_or(0);
                }
            }
            // What stood there before, and was written over or cut.
            if extra < all || rng.random() {
                kept.extend_from_slice(synced.get(kept.len()..).unwrap_or_default());
            }
            image.names.insert(path, image.files.len());
            image.files.push(MemoryContent { bytes: kept.clone(), synced: kept });
        }
        image.synced_names = image.names.clone();
        image
    }
}

struct MemoryFile {
    disk: Arc<Mutex<MemoryState>>,
    file: usize,
}

struct NoLock;

impl DiskLock for NoLock {}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let file = match (state.names.get(path).copied(), mode) {
            (Some(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), OpenMode::Read | OpenMode::Append) => file,
            (None, OpenMode::Create) => {
                state.tick();
                let file = state.files.len();
                state.files.push(MemoryContent::default());
                state.names.insert(path.to_owned(), file);
                file
            }
            (None, OpenMode::Read | OpenMode::Append) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(MemoryFile { disk: Arc::clone(&self.0), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick();
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick();
        state.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick();
        let (names, mut synced) = (state.names.clone(), std::mem::take(&mut state.synced_names));
        synced.retain(|path, _| path.parent() != Some(dir));
        synced.extend(names.into_iter().filter(|(path, _)| path.parent() == Some(dir)));
        state.synced_names = synced;
        Ok(())
    }

    fn lock(&self, _: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        Ok(Box::new(NoLock))
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().unwrap().files[self.file].bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock().unwrap();
        let bytes = state.files[self.file].bytes.get(offset as usize..).unwrap_or_default();
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock().unwrap();
        state.tick();
        let (content, end) = (&mut state.files[self.file].bytes, offset as usize + bytes.len());
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock().unwrap();
        state.tick();
        state.files[self.file].bytes.truncate(len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock().unwrap();
        state.tick();
        let file = &mut state.files[self.file];
        file.synced = file.bytes.clone();
        Ok(())
    }
}

fn register(journal: &Journal) -> [Consumer; 2] {
    let consumers = ["bravo", "apply"].map(|name| journal.consumer(name, true).unwrap());
    consumers[1].advance(LocalPos::START);
    consumers
}

pub(crate) const NODE: NodeId = NodeId([1; 16]);
pub(crate) const PEER: NodeId = NodeId([2; 16]);

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

pub(crate) fn tempdir() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        dir: dir.to_owned(),
        node: NODE,
        disk: Arc::new(StdDisk),
        clock: Arc::new(StoppedClock),
        // Many tests copy the directory, a reserve with it.
        settings: JournalSettings {
            segment_bytes: ByteSize(4 << 10),
            limit_bytes: ByteSize(100 << 20),
            reserve_bytes: ByteSize(0),
        },
        index: IndexPlace::Memory,
        at_rest: sealed(),
    }
}

pub(crate) fn data_keys() -> DataKeys {
    DataKeys::new([(KeyNumber(1), DataKey::from_bytes([1; 32]))])
}

fn sealed() -> AtRest {
    AtRest::Sealed { keys: data_keys(), salts: Arc::new(CountedSalts::default()) }
}

/// The same salts in every run.
#[derive(Default)]
struct CountedSalts(AtomicUsize);

impl Salts for CountedSalts {
    fn salt(&self) -> [u8; 16] {
        (self.0.fetch_add(1, Ordering::SeqCst) as u128).to_le_bytes()
    }
}

pub(crate) fn open(dir: &TempDir) -> (Journal, OpenReport) {
    Journal::open(options(dir.path())).unwrap()
}

pub(crate) fn open_sled(dir: &TempDir) -> (Journal, OpenReport) {
    Journal::open(JournalOptions { index: IndexPlace::Sled, ..options(dir.path()) }).unwrap()
}

pub(crate) fn open_on(dir: &TempDir, disk: &Arc<FaultyDisk>) -> Journal {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Journal::open(JournalOptions { disk, ..options(dir.path()) }).unwrap().0
}

/// The real disk with faults on demand.
#[derive(Default)]
pub(crate) struct FaultyDisk {
    pub(crate) faults: Arc<Faults>,
}

#[derive(Default)]
pub(crate) struct Faults {
    room: Mutex<Option<usize>>,
    fail_syncs: AtomicBool,
    refuse_new_files: AtomicBool,
    pub(crate) refuse_unlinks: AtomicBool,
    /// Reads that touch these bytes fail.
    pub(crate) bad: Mutex<Vec<(PathBuf, Range<u64>)>>,
    /// Nothing is read or written any more.
    pub(crate) gone: AtomicBool,
}

impl Faults {
    /// Every write of more bytes fails after so many; `None` for no limit.
    fn set_room(&self, room: Option<usize>) {
        *self.room.lock().unwrap() = room;
    }

    fn answers(&self) -> io::Result<()> {
        const EIO: i32 = 5;
        if self.gone.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    fn reads(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        const EIO: i32 = 5;
        let bad = self.bad.lock().unwrap();
        match bad.iter().any(|(of, bad)| of == path && bad.start < bytes.end && bytes.start < bad.end) {
            true => Err(io::Error::from_raw_os_error(EIO)),
            false => Ok(()),
        }
    }
}

struct FaultyFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        StdDisk.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::Create && self.faults.refuse_new_files.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.faults.answers()?;
        let (path, faults) = (path.to_owned(), Arc::clone(&self.faults));
        Ok(Box::new(FaultyFile { file: StdDisk.open(&path, mode)?, path, faults }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        if self.faults.refuse_unlinks.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        StdDisk.unlink(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        StdDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        StdDisk.lock(path)
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.answers()?;
        self.faults.reads(&self.path, offset..offset + buf.len() as u64)?;
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.answers()?;
        match *self.faults.room.lock().unwrap() {
            Some(room) if room < bytes.len() => {
                self.file.write_at(&bytes[..room], offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => self.file.write_at(bytes, offset),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.faults.fail_syncs.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the disk is gone")),
            false => self.file.sync_data(),
        }
    }
}

pub(crate) fn copy_of(dir: &TempDir) -> TempDir {
    let copy = tempdir();
    copy_into(dir.path(), copy.path());
    copy
}

pub(crate) fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_into(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

pub(crate) fn segment(dir: &TempDir, number: u32) -> PathBuf {
    dir.path().join("segments").join(format!("{number:08}.seg"))
}

pub(crate) fn body(n: u64) -> Vec<u8> {
    format!("message number {n} of this test").into_bytes()
}

pub(crate) fn draft(n: u64) -> Draft {
    Draft {
        source: SourcePosition(Hlc(n)),
        follows: None,
        stream: StreamId::Directory,
        causes: Vec::new(),
        needs: Vec::new(),
        precedence: Precedence::Routine,
        captured: Hlc(n << 16),
        origin_time: UnixMillis(n as i64),
        expiry: None,
        supersedes: None,
        label: Label::directory(),
        kind: Kind::Post,
        mint_salt: 7,
        body: body(n),
        object: None,
        chunks: None,
    }
}

pub(crate) fn own(epoch: u32, seq: u64) -> EntryId {
    EntryId { origin: NODE, epoch: Epoch(epoch), seq: Seq::new(seq).unwrap() }
}

pub(crate) fn entry_of(origin: NodeId, seq: u64, body: &[u8]) -> Entry {
    let Draft {
        source,
        stream,
        causes,
        precedence,
        captured,
        origin_time,
        expiry,
        supersedes,
        label,
        kind,
        mint_salt,
        ..
    } = draft(seq);
    let id = EntryId { origin, ..own(1, seq) };
    let header = Header {
        id,
        source,
        stream,
        causes,
        after: None,
        precedence,
        captured,
        origin_time,
        expiry,
        supersedes,
        label,
        kind,
        mint_salt,
    };
    Entry { header, body: body.to_vec() }
}

pub(crate) fn foreign(seq: u64, body: &[u8]) -> Foreign {
    Foreign { bytes: wire::encode_entry(&entry_of(PEER, seq, body)).into(), object: None }
}

pub(crate) fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
    for n in numbers {
        journal.append_own(draft(n)).wait().unwrap();
    }
}

fn everything(journal: &Journal) -> Vec<Listed> {
    journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap()
}

pub(crate) fn numbers(journal: &Journal) -> Vec<u64> {
    everything(journal).iter().map(|listed| listed.entry.header.id.seq.get()).collect()
}

fn ids(appended: &[Appended]) -> Vec<(EntryId, LocalPos, model::EntryHash)> {
    appended.iter().map(|a| (a.id, a.pos, a.hash)).collect()
}

/// Flips a bit in the payload of the entry at a position, which stands in that segment.
fn damage_entry(dir: &TempDir, pos: u64, number: u32) {
    let reader = Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
    let listed = reader.show(Which::Pos(LocalPos(pos))).unwrap().unwrap();
    assert_eq!(listed.segment, number, "the test expects the entry there");
    let path = segment(dir, number);
    let mut bytes = fs::read(&path).unwrap();
    bytes[listed.offset as usize + 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
}

fn first_entry_start(dir: &TempDir) -> u64 {
    let reader = Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
    reader.list(LocalPos(1)..LocalPos(2), 1).unwrap()[0].offset
}

/// Where each entry's frame ends, for a journal of one segment that holds nothing behind its entries.
fn entry_ends(dir: &TempDir) -> Vec<u64> {
    let reader = Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
    let starts: Vec<u64> =
        reader.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().iter().map(|l| l.offset).collect();
    starts[1..].iter().copied().chain([reader.stats().bytes]).collect()
}

pub(crate) fn chunk_name(n: u8) -> ChunkName {
    let mut name = [n; ChunkName::LEN];
    name[0] = ChunkName::BLAKE3_KEYED;
    ChunkName(name)
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; len];
    rand_chacha::ChaCha8Rng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn an_entry_behind_a_refused_one_of_its_source_is_refused_too() {
    let dir = tempdir();
    let (journal, _) = open(&dir);
    let first = journal.append_own(draft(1));
    let refused = journal.append_own(Draft {
        follows: Some(SourcePosition(Hlc(1))),
        body: vec![0; 2 * wire::entry::ENTRY_BYTES_MAX],
        ..draft(2)
    });
    let behind = journal.append_own(Draft { follows: Some(SourcePosition(Hlc(2))), ..draft(3) });
    first.wait().unwrap();
    assert!(matches!(refused.wait(), Err(AppendError::TooLarge { .. })));
    assert_eq!(behind.wait().unwrap_err(), AppendError::OutOfOrder);
    let again = journal.append_own(Draft { follows: Some(SourcePosition(Hlc(1))), ..draft(2) });
    assert!(again.wait().is_ok());
}
