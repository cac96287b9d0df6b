//! Takes one fsync, directory sync, checksum or ordering out of the journal at a time, and shows that the kit notices.
//!
//! `MUTATION=SkipDataSync` tries that one alone. `HOLDFAST_UPDATE_DOCS=1` writes the table into docs/durability.md.

#![allow(clippy::disallowed_methods, reason = "it tells how long it took")]

#[path = "upkeep/mod.rs"]
mod upkeep;

use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use journal::mutations::{Mutation, with};
use simkit::damage::Specimen;
use simkit::faults::{every_call_once, every_kind_for_good, try_faults};
use simkit::trial::{NODE, Seal, Step, Trial, script};
use simkit::{Examination, PretendDisk};

/// The part of the kit that notices a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The power is cut after every call of random workloads.
    PowerCuts,
    /// Each call fails once.
    FailedCall,
    /// Calls of one kind fail for good.
    FailedKind,
    /// The process is killed, and the power is cut later.
    Kill,
    /// Bytes are flipped.
    Flip,
    /// Frames stand in another's place, or say something else with a right checksum.
    Forge,
    /// The power is cut after every call of a change of keys, of a purge, of keeping damage aside.
    Rotation,
    Purge,
    Quarantine,
    /// The real disk, where it cannot sync.
    RealDisk,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            Self::PowerCuts => "power cut at every call",
            Self::FailedCall => "every call failed once",
            Self::FailedKind => "a disk that fails for good",
            Self::Kill => "kill, then power cut",
            Self::Flip => "flipped bytes",
            Self::Forge => "misplaced and forged frames",
            Self::Rotation => "power cut at every call of a rotation",
            Self::Purge => "power cut at every call of a purge",
            Self::Quarantine => "power cut at every call of a quarantine",
            Self::RealDisk => "power cut of a real file system",
        }
    }
}

const BUGS: &[(Mutation, By)] = &[
    (Mutation::SkipDataSync, By::PowerCuts),
    (Mutation::AckBeforeSync, By::PowerCuts),
    (Mutation::RetryFailedSync, By::FailedCall),
    (Mutation::SkipTakeBack, By::FailedCall),
    (Mutation::SkipTakeBackSync, By::FailedCall),
    (Mutation::SkipSuspectNote, By::FailedCall),
    (Mutation::SkipMendSync, By::FailedCall),
    (Mutation::SkipMendDirSync, By::FailedCall),
    (Mutation::SkipHeaderSync, By::PowerCuts),
    (Mutation::SkipSegmentDirSync, By::PowerCuts),
    (Mutation::SkipFooterSync, By::PowerCuts),
    (Mutation::SkipUndoSegment, By::FailedCall),
    (Mutation::SkipUndoDirSync, By::FailedCall),
    (Mutation::SkipStopInDoubt, By::FailedKind),
    (Mutation::SkipOpenDirSync, By::Kill),
    (Mutation::SkipTailSync, By::Kill),
    (Mutation::SkipTailCut, By::PowerCuts),
    (Mutation::SkipTornTailEpoch, By::Flip),
    (Mutation::SkipDamageEpoch, By::Flip),
    (Mutation::SkipPositionsSkip, By::Flip),
    (Mutation::SkipHoleCheck, By::PowerCuts),
    (Mutation::SkipOpeningEnd, By::PowerCuts),
    (Mutation::SkipTrimOrder, By::PowerCuts),
    (Mutation::TrimFileFirst, By::PowerCuts),
    (Mutation::SkipTrimDirSync, By::PowerCuts),
    (Mutation::SkipReissueOrder, By::PowerCuts),
    (Mutation::SkipRemovedFilter, By::FailedCall),
    (Mutation::SkipFrameCrc, By::Flip),
    (Mutation::SkipPlaceInCrc, By::Forge),
    (Mutation::SkipHeaderCrc, By::Flip),
    (Mutation::SkipFooterCheck, By::Flip),
    (Mutation::SkipEntryHash, By::Forge),
    (Mutation::SkipChainCheck, By::Forge),
    (Mutation::SkipSyncOnZeros, By::PowerCuts),
    (Mutation::SkipSyncOfZeros, By::PowerCuts),
    (Mutation::SkipZerosLook, By::PowerCuts),
    (Mutation::SkipZerosCut, By::PowerCuts),
    (Mutation::SkipRewriteSync, By::Rotation),
    (Mutation::SkipRewriteDirSync, By::Rotation),
    (Mutation::SkipPurgeWhole, By::Purge),
    (Mutation::PurgeDoneFirst, By::Purge),
    (Mutation::SkipPurgeResume, By::Purge),
    (Mutation::SkipSetAsideSync, By::Purge),
    (Mutation::SkipQuarantineSync, By::Quarantine),
    (Mutation::SkipQuarantineDirSync, By::Quarantine),
    (Mutation::SkipQuarantineRemoveSync, By::Purge),
    (Mutation::SkipReturnedCheck, By::Quarantine),
    (Mutation::SkipStdDataSync, By::RealDisk),
    (Mutation::SkipStdDirSync, By::RealDisk),
    (Mutation::SkipStdParentSync, By::RealDisk),
];

#[test]
fn every_bug_that_is_put_into_the_journal_is_caught() {
    for by in [By::Kill, By::Flip, By::Forge, By::Rotation, By::Purge, By::Quarantine] {
        assert_eq!(caught(by), None, "{by:?}: without a bug nothing is caught");
    }
    let mountable = upkeep::real_disk::power_cut(&Cell::new(0));
    let mut table = String::from("| mutation | caught by | tries until caught |\n|---|---|---|\n");
    let (mut missed, mut slowest) = (Vec::new(), None);
    let only = std::env::var("MUTATION").ok();
    for (mutation, by) in BUGS.iter().filter(|(m, _)| only.as_ref().is_none_or(|only| *only == format!("{m:?}"))) {
        if *mutation == Mutation::SkipStdParentSync && !mountable {
            println!("{mutation:?} | {} | SKIPPED", by.as_str());
            continue;
        }
        let began = Instant::now();
        let found = with(*mutation, || caught(*by));
        let took = began.elapsed();
        slowest = slowest.max(Some((took, *mutation)));
        match found {
            Some((tries, what)) => {
                println!("{mutation:?} | {} | {tries} | {:.1} s | {what}", by.as_str(), took.as_secs_f64());
                let _ = writeln!(table, "| `{mutation:?}` | {} | {tries} |", by.as_str());
            }
            None => {
                println!("{mutation:?} | {} | NOT CAUGHT", by.as_str());
                missed.push(*mutation);
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
        assert!(mountable && only.is_none(), "the table is of all bugs");
        let (took, mutation) = slowest.expect("there are bugs");
        let _ = writeln!(table, "\n`{mutation:?}` took longest: {:.1} s.", took.as_secs_f64());
        update(&table);
    }
}

/// How many states or runs it took until a promise was broken, and which.
fn caught(by: By) -> Option<(usize, String)> {
    match by {
        By::PowerCuts => {
            let kills = |step: &Step| matches!(step, Step::Kill(_));
            let random = (0..8).map(|seed| script(seed, 60).into_iter().filter(|step| !kills(step)).collect());
            let scripts = [trims(), reissues()].into_iter().chain(random);
            scripts.zip(0..).try_fold(0, |tries, (steps, seed): (Vec<Step>, _)| power_cuts(&steps, seed, tries)).err()
        }
        By::Kill => (0..16)
            .try_fold(0, |tries, calls| {
                let steps = [vec![Step::Own; 14], vec![Step::Kill(calls)], vec![Step::Own; 9], vec![Step::Receipts]];
                power_cuts(&steps.concat(), 1, tries)
            })
            .err(),
        By::FailedCall => failing(&every_call_once(), 14),
        By::FailedKind => failing(&every_kind_for_good(), 4),
        By::Flip => flipped(),
        By::Forge => forged(),
        By::Rotation => panicked(upkeep::rotation::at_every_call),
        By::Purge => panicked(upkeep::purge::at_every_call),
        By::Quarantine => panicked(upkeep::quarantine::at_every_call),
        By::RealDisk => panicked(|cuts| {
            upkeep::real_disk::power_cut(cuts);
        }),
    }
}

/// For what tells a broken promise by a panic.
fn panicked(check: impl FnOnce(&Cell<usize>)) -> Option<(usize, String)> {
    let tries = Cell::new(0);
    let panic = catch_unwind(AssertUnwindSafe(|| check(&tries))).err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Some((tries.get(), first_line(text.unwrap_or("a panic"))))
}

fn trims() -> Vec<Step> {
    let mut steps = vec![Step::Own, Step::Own];
    steps.extend([Step::File(4); 9]);
    steps.extend([Step::Receipts; 6]);
    steps.extend([Step::Advance, Step::Trim]);
    steps
}

fn reissues() -> Vec<Step> {
    [[Step::Own; 4], [Step::Own, Step::Epoch, Step::Reissue, Step::Reissue]].concat()
}

fn power_cuts(steps: &[Step], seed: u64, before: usize) -> Result<usize, (usize, String)> {
    let mut trial = Trial::new(seed);
    if seed % 2 == 1 {
        trial = trial.sealed();
    }
    if let Err(e) = trial.run(steps) {
        return Err((before + 1, e.0.to_string()));
    }
    let recorded = trial.finish();
    if let Some(error) = recorded.errors.first() {
        return Err((before + 1, error.clone()));
    }
    let found = Examination { seed, violations_max: 1, ..Examination::default() }.of(&recorded);
    match found.violations.into_iter().next() {
        Some(violation) => Err((before + found.checked, first_line(&violation.what))),
        None => Ok(before + found.checked),
    }
}

fn failing(faults: &[simkit::Fault], near: usize) -> Option<(usize, String)> {
    let found = try_faults(faults, near);
    found.broken.first().map(|(_, what)| (found.runs, first_line(what)))
}

fn flipped() -> Option<(usize, String)> {
    let mut tries = 0;
    for seal in [Seal::Plain, Seal::Sealed] {
        let specimen = Specimen::new(seal, 16 << 10);
        let files = specimen.files();
        // Where numbers are hidden by what is damaged last, before the zeros that were written ahead.
        let (path, bytes) = files.last().expect("it has files");
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (end.saturating_sub(2500)..end).step_by(3) {
            tries += 1;
            let cut = |disk: &PretendDisk| disk.plant(path, Some(&bytes[..at]));
            let flip = |disk: &PretendDisk| disk.plant(path, Some(&flip(bytes, at)));
            // A cut between two frames is for a peer's receipt to tell.
            let next = specimen.after(cut).and_then(|harm| match harm.noticed {
                true => specimen.next_number_after(cut).map(drop),
                false => Ok(()),
            });
            if let Err(e) = next.and_then(|()| specimen.next_number_after(flip)) {
                return Some((tries, first_line(&e)));
            }
        }
        match specimen.flip_every_byte(5, |at| 1 << (at % 8)) {
            Ok(flips) => tries += flips.flips,
            Err(e) => return Some((tries, first_line(&e))),
        }
    }
    None
}

fn flip(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

/// What a checksum of its own does not show.
fn forged() -> Option<(usize, String)> {
    let specimen = Specimen::new(Seal::Plain, 48 << 10);
    let files = specimen.files();
    let file =
        |number: u32| files.iter().find(|(path, _)| path.ends_with(format!("{number:08}.seg"))).expect("it is there");
    let mut tries = 0;
    // A block of one file lands in another, at the same place.
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        tries += 1;
        let ((_, from), (path, bytes)) = (file(from), file(to));
        let mut misdirected = bytes.clone();
        misdirected[4096..8192].copy_from_slice(&from[4096..8192]);
        if let Err(e) = specimen.after(|disk| disk.plant(path, Some(&misdirected))) {
            return Some((tries, first_line(&e)));
        }
    }
    for (segment, offset) in specimen.entry_frames() {
        let (path, bytes) = file(segment);
        for with_hash in [false, true] {
            tries += 1;
            let forged = forge(bytes, segment, offset, with_hash);
            let found = specimen.verify_after(|disk| disk.plant(path, Some(&forged)));
            let told = |what: &str| found.iter().any(|finding| finding.contains(what));
            let noticed = if with_hash { told("hash chain") } else { told("another hash") };
            if !noticed {
                return Some((tries, format!("verify says {found:?} of a forged entry")));
            }
        }
    }
    None
}

/// Changes an entry and makes its checksum right again, and its hash too.
fn forge(bytes: &[u8], segment: u32, offset: u64, with_hash: bool) -> Vec<u8> {
    const HEAD: usize = 12;
    const HASH: std::ops::Range<usize> = 10..26;
    let mut bytes = bytes.to_vec();
    let at = offset as usize;
    let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes"));
    let kind = bytes[at + 2];
    let payload = &mut bytes[at + HEAD..at + HEAD + len as usize];
    // The last byte is one of the body.
    *payload.last_mut().expect("it has a body") ^= 1;
    if with_hash {
        let start = (26..payload.len()).find(|start| wire::decode_entry(&payload[*start..]).is_ok()).expect("an entry");
        let hash = wire::entry_hash(&payload[start..]).expect("an entry");
        payload[HASH].copy_from_slice(&hash.0);
    }
    let mut crc = crc32c::crc32c_append(crc32c::crc32c(&NODE.0), &segment.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &[kind, 0]);
    crc = crc32c::crc32c_append(crc, &len.to_le_bytes());
    crc = crc32c::crc32c_append(crc, payload);
    bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

const BEGIN: &str = "<!-- mutations: begin -->\n";
const END: &str = "<!-- mutations: end -->\n";

/// Puts the table between its marks; the file is made when there is none.
fn update(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/durability.md");
    let old = std::fs::read_to_string(&path)
        .unwrap_or_else(|_| format!("# Durability\n\n## Bugs that the fault kit catches\n\n{BEGIN}{END}"));
    let (before, rest) = old.split_once(BEGIN).expect("docs/durability.md has the first mark");
    let (_, after) = rest.split_once(END).expect("docs/durability.md has the second mark");
    std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("docs can be written");
}
