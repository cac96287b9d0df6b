//! Opening with a backlog: how long it takes a fresh process, and how much memory that process has had at most.
//!
//! The journal is filled in this process with posts of about 150 encoded bytes, none of them acknowledged, and is opened by
//! another one each time, as a restart does. Measured are
//! - the journal as filled, with its files in the system's cache and without;
//! - the same with every fiftieth entry acknowledged, so that no part of the accounts can be taken as a whole;
//! - with a tail that is nearly full, which is all that a restart after a crash has to read;
//! - memory after 1,000 entries were looked up by id and 1,000 objects that are not there.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use journal::{AtRest, Draft, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk};
use keys::{DataKey, DataKeys, KeyNumber};
use model::{
    ByteSize, EntryId, Epoch, Hlc, Id, Kind, Label, NodeId, ObjectKey, Outcome, Precedence, RangeSet, Seq,
    SourcePosition, StreamId, UnixMillis,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::clock::{Stopwatch, WallClock};
use crate::report::{Bench, Scale, median, tell};

const NAME: &str = "open";
const SUBJECT: &str = "holdfast";
const NODE: NodeId = NodeId([7; 16]);
const CONSUMER: &str = "peer";

/// The count at which the summary is taken.
const SUMMARY_ENTRIES: u64 = 10_000_000;

/// Tickets under way at once: more than a batch holds, less than the queue takes.
const UNDER_WAY: usize = 20_000;

/// What one opening came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    seconds: f64,
    /// Of one core: what opening takes on a machine that has nothing else to do and its files in memory.
    cpu_seconds: f64,
    /// Most resident memory until the journal was open, in kB of 1024 bytes.
    peak_kb: u64,
    held: u64,
    /// The same after 1,000 lookups of each kind.
    peak_after_lookups_kb: u64,
}

pub(crate) fn run(bench: &mut Bench) -> Result<(), Error> {
    let sizes: &[u64] = bench.scale.pick(&[2_000], &[1_000_000, SUMMARY_ENTRIES], &[1_000_000, SUMMARY_ENTRIES]);
    let rounds = bench.scale.pick(1, 5, 15);
    for entries in sizes {
        measure(bench, *entries, rounds)?;
    }
    Ok(())
}

fn measure(bench: &mut Bench, entries: u64, rounds: usize) -> Result<(), Error> {
    let scratch = bench.scratch()?;
    let dir = scratch.path().join("journal");
    tell(&format!("filling a journal with {entries} entries"));
    let mut filled = {
        let journal = open(&dir)?;
        journal.consumer(CONSUMER, true)?;
        append(&journal, 1..=entries)?;
        journal.flush().wait()?;
        entries
    };
    let scale = bench.scale;
    let reopen = |bench: &mut Bench, state: &str, filled: u64, cached: bool| -> Result<Opened, Error> {
        let (mut times, mut cpu) = (Vec::new(), Vec::new());
        let mut worst: Option<Opened> = None;
        for _ in 0..rounds {
            if !cached {
                forget(&dir)?;
            }
            let opened = in_another_process(scale, &dir)?;
            times.push(opened.seconds);
            cpu.push(opened.cpu_seconds);
            worst = worst.filter(|worst| worst.peak_kb > opened.peak_kb).or(Some(opened));
        }
        let Some(mut opened) = worst else { return Err("no round".into()) };
        (opened.seconds, opened.cpu_seconds) = (median(&times), median(&cpu));
        let files = if cached { "cached" } else { "not cached" };
        let params = |after: &str| {
            [("entries", filled.into()), ("state", state.into()), ("files", files.into()), ("after", after.into())]
        };
        let mb = |kb: u64| kb as f64 * 1024.0 / 1e6;
        bench.row(NAME, SUBJECT, &params("open"), opened.seconds, "s");
        bench.row(NAME, SUBJECT, &params("open"), opened.cpu_seconds, "cpu s");
        bench.row(NAME, SUBJECT, &params("open"), mb(opened.peak_kb), "MB");
        bench.row(NAME, SUBJECT, &params("2,000 lookups"), mb(opened.peak_after_lookups_kb), "MB");
        Ok(opened)
    };

    let held = reopen(bench, "all held", filled, true)?;
    assert_eq!(held.held, filled, "the journal that was opened is the one that was filled");
    let cold = reopen(bench, "all held", filled, false)?;
    if entries == SUMMARY_ENTRIES {
        bench.summary.open_10m_s = Some(held.seconds.max(cold.seconds));
        bench.summary.open_10m_rss_mb = Some(held.peak_kb.max(cold.peak_kb) as f64 * 1024.0 / 1e6);
    }
    {
        let journal = open(&dir)?;
        while tail_bytes(&dir)? < JournalSettings::default().segment_bytes.0 / 16 * 15 && scale != Scale::Quick {
            append(&journal, filled + 1..=filled + 5_000)?;
            filled += 5_000;
        }
    }
    reopen(bench, "tail nearly full", filled, false)?;
    {
        let journal = open(&dir)?;
        let every: RangeSet = (1..=filled / 50).map(|n| n * 50).collect();
        journal.consumer(CONSUMER, true)?.record_outcome(Outcome::Applied, Epoch::FIRST, &every);
        journal.flush().wait()?;
    }
    reopen(bench, "every 50th applied", filled, true)?;
    Ok(())
}

/// What the other process does; the answer goes to its stdout.
pub(crate) fn child(dir: &Path) -> Result<Opened, Error> {
    let time = Stopwatch::start();
    let journal = open(dir)?;
    let seconds = time.elapsed().as_secs_f64();
    let (cpu_seconds, peak_kb) = (cpu_seconds()?, peak_kb()?);
    let held = journal.accounting(CONSUMER)?.map_or(0, |accounting| accounting.total.held);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..1_000 {
        let seq = Seq::new(rng.random_range(1..journal.head().0)).ok_or("a number is never 0")?;
        journal.hash_of(EntryId { origin: NODE, epoch: Epoch::FIRST, seq })?.ok_or("an entry is missing")?;
        journal.creator(ObjectKey(rng.random()))?;
    }
    Ok(Opened { seconds, cpu_seconds, peak_kb, held, peak_after_lookups_kb: self::peak_kb()? })
}

fn in_another_process(scale: Scale, dir: &Path) -> Result<Opened, Error> {
    if scale == Scale::Quick {
        // Run by a test too, whose own program knows no such command.
        return child(dir);
    }
    let output = Command::new(std::env::current_exe()?).arg("open-once").arg(dir).output()?;
    if !output.status.success() {
        return Err(format!("opening failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn open(dir: &Path) -> Result<Journal, Error> {
    let settings = JournalSettings { limit_bytes: ByteSize(1 << 40), ..JournalSettings::default() };
    let options = JournalOptions {
        dir: dir.to_owned(),
        node: NODE,
        disk: Arc::new(StdDisk),
        clock: Arc::new(WallClock),
        settings,
        index: IndexPlace::Sled,
        // The same key in every process.
        at_rest: AtRest::sealed(DataKeys::new([(KeyNumber(1), DataKey::from_bytes([7; 32]))])),
    };
    Ok(Journal::open(options)?.0)
}

fn append(journal: &Journal, numbers: std::ops::RangeInclusive<u64>) -> Result<(), Error> {
    let mut under_way = VecDeque::new();
    for n in numbers {
        if under_way.len() >= UNDER_WAY {
            for ticket in under_way.drain(..UNDER_WAY / 2) {
                let _: journal::Appended = journal::Ticket::wait(ticket)?;
            }
        }
        under_way.push_back(journal.append_own(draft(n)));
    }
    for ticket in under_way {
        ticket.wait()?;
    }
    Ok(())
}

fn draft(n: u64) -> Draft {
    let at = Hlc(1_790_000_000_000 << 16 | n);
    // Spread as ids are.
    let object = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let body =
        format!("{n:08} moving to the second checkpoint with two vehicles, next report at {object:016x}, all well");
    Draft {
        source: SourcePosition(at),
        follows: None,
        stream: StreamId::Channel(Id::from_block([1; 16])),
        causes: Vec::new(),
        needs: Vec::new(),
        precedence: if n.is_multiple_of(50) { Precedence::Immediate } else { Precedence::Routine },
        captured: at,
        origin_time: UnixMillis(1_790_000_000_000),
        expiry: None,
        supersedes: None,
        label: Label::local(),
        kind: Kind::Post,
        mint_salt: 1,
        body: body.into_bytes(),
        object: Some(ObjectKey(object)),
        chunks: None,
    }
}

/// Size of the newest segment file.
fn tail_bytes(dir: &Path) -> Result<u64, Error> {
    let newest = files(&dir.join("segments"))?.into_iter().max();
    Ok(newest.map_or(Ok(0), |path| path.metadata().map(|m| m.len()))?)
}

/// Takes the files out of the system's cache.
fn forget(dir: &Path) -> Result<(), Error> {
    for path in files(dir)? {
        let file = File::open(path)?;
        file.sync_data()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Processor time of this process, from the fields utime and stime, which Linux counts in hundredths of a second.
fn cpu_seconds() -> Result<f64, Error> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|n| n.parse::<f64>().ok()).ok_or("no times in /proc/self/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The most memory that this process has had.
fn peak_kb() -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM in /proc/self/status")?;
    Ok(number.parse()?)
}
