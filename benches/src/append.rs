//! Durable appends: how many per second, and how long one takes.
//!
//! Closed loop: each writer makes its next write when the last one is durable. Writers of the journal are tasks that await
//! their ticket, as the carrier does for what it receives; those of a gathered store are the same; stores whose calls
//! block get a thread for each. The raw loop is the floor under all of them: it writes as many frames of the journal's size
//! as there are writers with one call, syncs, and does it again, without writers, format or index. `raw (journal's batch)`
//! does the same with as many frames as the journal really wrote per sync. Subjects take turns, and the medians over the
//! rounds are kept.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use journal::{AtRest, Draft, IndexPlace, Journal, JournalOptions, JournalSettings};
use keys::{DataKey, DataKeys, KeyNumber};
use model::{ByteSize, Hlc, Id, Kind, Label, NodeId, ObjectKey, Precedence, SourcePosition, StreamId, UnixMillis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Error;
use crate::clock::{Stopwatch, WallClock};
use crate::counting::{CountingDisk, Counts};
use crate::group::Gather;
use crate::report::{Bench, median, percentile, tell};
use crate::stores::{Fjall, Redb, Sled, Sqlite, Store};

const NAME: &str = "append";
const WRITERS: [usize; 4] = [1, 8, 64, 256];
const SIZES: [usize; 3] = [100, 512, 4_096];

/// The size at which the summary is taken.
const SUMMARY_SIZE: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// First: the raw loops need to know its frame size and batch.
    Holdfast,
    Raw,
    RawAtBatch,
    Sqlite,
    SqliteGathered,
    Sled,
    SledGathered,
    Fjall,
    FjallGathered,
    Redb,
    RedbGathered,
}

impl Subject {
    const ALL: [Self; 11] = [
        Self::Holdfast,
        Self::Raw,
        Self::RawAtBatch,
        Self::Sqlite,
        Self::SqliteGathered,
        Self::Sled,
        Self::SledGathered,
        Self::Fjall,
        Self::FjallGathered,
        Self::Redb,
        Self::RedbGathered,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::Raw => "raw",
            Self::RawAtBatch => "raw (journal's batch)",
            Self::Sqlite => "sqlite",
            Self::SqliteGathered => "sqlite, gathered",
            Self::Sled => "sled",
            Self::SledGathered => "sled, gathered",
            Self::Fjall => "fjall",
            Self::FjallGathered => "fjall, gathered",
            Self::Redb => "redb",
            Self::RedbGathered => "redb, gathered",
        }
    }

    fn is_rival(self) -> bool {
        !matches!(self, Self::Holdfast | Self::Raw | Self::RawAtBatch)
    }

    /// With one writer there is nothing to gather.
    fn is_gathered(self) -> bool {
        matches!(self, Self::SqliteGathered | Self::SledGathered | Self::FjallGathered | Self::RedbGathered)
    }
}

/// What the writers do, and for how long.
#[derive(Clone, Copy)]
struct Load {
    writers: usize,
    size: usize,
    time: Duration,
}

/// One run of one subject.
#[derive(Clone, Default)]
struct Run {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Writes per sync, and bytes per write; of the journal only.
    batch: f64,
    frame_bytes: f64,
}

/// What the runs of one subject came to.
struct Medians {
    subject: Subject,
    run: Run,
}

pub(crate) fn run(bench: &mut Bench) -> Result<(), Error> {
    let rounds = bench.scale.pick(1, 3, 7);
    let time = bench.scale.pick(Duration::from_millis(20), Duration::from_millis(600), Duration::from_secs(2));
    let (writers, sizes): (&[usize], &[usize]) =
        bench.scale.pick((&[1, 4], &[100]), (&WRITERS, &SIZES), (&WRITERS, &SIZES));
    for &writers in writers {
        for &size in sizes {
            if !bench.loads.is_empty() && !bench.loads.contains(&format!("{writers}x{size}")) {
                continue;
            }
            let medians = measure(bench, Load { writers, size, time }, rounds)?;
            report(bench, writers, size, &medians);
        }
    }
    Ok(())
}

/// Every subject in turn, as often as `rounds` says.
fn measure(bench: &Bench, load: Load, rounds: usize) -> Result<Vec<Medians>, Error> {
    // The raw loops cannot do without the journal's run.
    let asked = |s: &Subject| {
        *s == Subject::Holdfast || bench.subjects.is_empty() || bench.subjects.iter().any(|a| a == s.name())
    };
    let subjects = || Subject::ALL.into_iter().filter(|s| load.writers > 1 || !s.is_gathered()).filter(asked);
    let mut runs: Vec<(Subject, Vec<Run>)> = subjects().map(|s| (s, Vec::new())).collect();
    for round in 0..rounds {
        tell(&format!("{} writers, {} B, round {} of {rounds}", load.writers, load.size, round + 1));
        let mut journal = Run::default();
        for (subject, runs) in &mut runs {
            let scratch = bench.scratch()?;
            let run = run_one(*subject, scratch.path(), load, &journal)?;
            if *subject == Subject::Holdfast {
                journal = run.clone();
            }
            runs.push(run);
        }
    }
    Ok(runs.into_iter().map(|(subject, runs)| Medians { subject, run: medians(&runs) }).collect())
}

fn medians(runs: &[Run]) -> Run {
    let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
    Run {
        per_second: of(|r| r.per_second),
        p50_us: of(|r| r.p50_us),
        p99_us: of(|r| r.p99_us),
        batch: of(|r| r.batch),
        frame_bytes: of(|r| r.frame_bytes),
    }
}

fn report(bench: &mut Bench, writers: usize, size: usize, medians: &[Medians]) {
    for Medians { subject, run } in medians {
        let params = [("writers", writers.into()), ("size", size.into())];
        let mut row = |value, unit| bench.row(NAME, subject.name(), &params, value, unit);
        row(run.per_second, "writes/s");
        row(run.p50_us, "p50_us");
        row(run.p99_us, "p99_us");
        if *subject == Subject::Holdfast {
            row(run.batch, "writes/sync");
            row(run.frame_bytes, "bytes/write");
        }
    }
    if size != SUMMARY_SIZE {
        return;
    }
    let of = |wanted| medians.iter().find(|m| m.subject == wanted).map(|m| &m.run);
    let (Some(holdfast), Some(raw)) = (of(Subject::Holdfast), of(Subject::Raw)) else { return };
    if writers == 64 {
        let rivals = medians.iter().filter(|m| m.subject.is_rival()).map(|m| m.run.per_second);
        bench.summary.append64_vs_raw = Some(holdfast.per_second / raw.per_second);
        bench.summary.append64_vs_best_rival = rivals.max_by(f64::total_cmp).map(|best| holdfast.per_second / best);
    }
    if writers == 1 {
        bench.summary.append1_p50_vs_fdatasync = Some(holdfast.p50_us / raw.p50_us);
    }
}

/// One subject in an empty directory. `journal` is the journal's run of this round.
fn run_one(subject: Subject, dir: &Path, load: Load, journal: &Run) -> Result<Run, Error> {
    match subject {
        Subject::Holdfast => holdfast(dir, load),
        Subject::Raw => raw(dir, load, load.writers, journal.frame_bytes),
        Subject::RawAtBatch => raw(dir, load, journal.batch.round().max(1.0) as usize, journal.frame_bytes),
        Subject::Sqlite => store(&Sqlite::open(dir)?, load),
        Subject::SqliteGathered => gathered(Sqlite::open(dir)?, load),
        Subject::Sled => store(&Sled::open(dir)?, load),
        Subject::SledGathered => gathered(Sled::open(dir)?, load),
        Subject::Fjall => store(&Fjall::open(dir)?, load),
        Subject::FjallGathered => gathered(Fjall::open(dir)?, load),
        Subject::Redb => store(&Redb::open(dir)?, load),
        Subject::RedbGathered => gathered(Redb::open(dir)?, load),
    }
}

fn store(store: &dyn Store, load: Load) -> Result<Run, Error> {
    let body = body(load.size);
    drive(load, &|key| store.write(key, body.clone()))
}

fn gathered<S: crate::group::BatchStore>(mut store: S, load: Load) -> Result<Run, Error> {
    let body = body(load.size);
    std::thread::scope(|scope| {
        let gather = Gather::serve(scope, &mut store, load.writers);
        drive_tasks(load, move |key| {
            let (gather, record) = (gather.clone(), (key, body.clone()));
            async move { gather.write(record).await }
        })
    })
}

/// Writes `batch` frames with one call and syncs, again and again.
fn raw(dir: &Path, load: Load, batch: usize, frame_bytes: f64) -> Result<Run, Error> {
    let mut file = OpenOptions::new().append(true).create_new(true).open(dir.join("raw"))?;
    let bytes = body(batch * frame_bytes.round() as usize);
    let mut latencies = Vec::new();
    let all = Stopwatch::start();
    while all.elapsed() < load.time {
        let one = Stopwatch::start();
        file.write_all(&bytes)?;
        file.sync_data()?;
        latencies.push(one.elapsed().as_secs_f64() * 1e6);
    }
    let seconds = all.elapsed().as_secs_f64();
    let writes = latencies.len() * batch;
    Ok(summed(latencies, writes, seconds))
}

/// The journal as capture uses it: each draft names two objects whose creators become causes, and an object of its own.
fn holdfast(dir: &Path, load: Load) -> Result<Run, Error> {
    let counts = Arc::<Counts>::default();
    let settings = JournalSettings { limit_bytes: ByteSize(1 << 40), ..JournalSettings::default() };
    let options = JournalOptions {
        dir: dir.join("journal"),
        node: NodeId([7; 16]),
        disk: Arc::new(CountingDisk(Arc::clone(&counts))),
        clock: Arc::new(WallClock),
        settings,
        index: IndexPlace::Sled,
        at_rest: at_rest(),
    };
    let journal = Journal::open(options)?.0;
    let channel = Id::from_block([1; 16]);
    for object in NEEDS {
        journal.append_own(draft(channel, object.0, Vec::new(), Vec::new())).wait()?;
    }
    let before = (counts.syncs.load(Ordering::Relaxed), counts.bytes.load(Ordering::Relaxed));
    let body = body(load.size);
    let head = journal.head().0;
    let writer = journal.clone();
    let mut run = drive_tasks(load, move |key| {
        let ticket = writer.append_own(draft(channel, 100 + key, NEEDS.to_vec(), body.clone()));
        async move { Ok(ticket.await.map(drop)?) }
    })?;
    let writes = (journal.head().0 - head) as f64;
    run.batch = writes / (counts.syncs.load(Ordering::Relaxed) - before.0) as f64;
    run.frame_bytes = (counts.bytes.load(Ordering::Relaxed) - before.1) as f64 / writes;
    Ok(run)
}

/// As in the product: sealed, with a key that is as good as any.
pub(crate) fn at_rest() -> AtRest {
    AtRest::sealed(DataKeys::new([(KeyNumber(1), DataKey::from_bytes([1; 32]))]))
}

/// The channel and the author of every post here.
const NEEDS: [ObjectKey; 2] = [ObjectKey(1), ObjectKey(2)];

fn draft(channel: Id, number: u64, needs: Vec<ObjectKey>, body: Vec<u8>) -> Draft {
    let at = Hlc(1_790_000_000_000 << 16 | number);
    Draft {
        source: SourcePosition(at),
        follows: None,
        stream: StreamId::Channel(channel),
        causes: Vec::new(),
        needs,
        precedence: Precedence::Routine,
        captured: at,
        origin_time: UnixMillis(1_790_000_000_000),
        expiry: None,
        supersedes: None,
        label: Label::local(),
        kind: Kind::Post,
        mint_salt: 1,
        body,
        object: Some(ObjectKey(number)),
        chunks: None,
    }
}

/// Bytes that do not compress, the same at each run.
fn body(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

/// Lets threads write until the time is over. `write` gets a key that nobody else gets.
fn drive(load: Load, write: &(dyn Fn(u64) -> Result<(), Error> + Sync)) -> Result<Run, Error> {
    let next = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    // All writers, and whoever stops the time.
    let ready = Barrier::new(load.writers + 1);
    let all: Mutex<Vec<f64>> = Mutex::default();
    let failed: Mutex<Option<Error>> = Mutex::default();
    let begun = std::thread::scope(|scope| {
        for _ in 0..load.writers {
            scope.spawn(|| {
                let mut latencies = Vec::with_capacity(1 << 12);
                ready.wait();
                let time = Stopwatch::start();
                while !over.load(Ordering::Relaxed) {
                    let one = Stopwatch::start();
                    if let Err(e) = write(next.fetch_add(1, Ordering::Relaxed)) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        over.store(true, Ordering::Relaxed);
                        break;
                    }
                    latencies.push(one.elapsed().as_secs_f64() * 1e6);
                    if time.elapsed() >= load.time {
                        over.store(true, Ordering::Relaxed);
                    }
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).append(&mut latencies);
            });
        }
        ready.wait();
        Stopwatch::start()
    });
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(e) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(e);
    }
    let latencies = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let writes = latencies.len();
    Ok(summed(latencies, writes, seconds))
}

/// As [`drive`], with tasks on as many threads as there are cores.
fn drive_tasks<F, W>(load: Load, write: F) -> Result<Run, Error>
where
    F: Fn(u64) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), Error>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let write = Arc::new(write);
    let next = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let time = Stopwatch::start();
    let (latencies, seconds) = runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..load.writers {
            let (write, next, over) = (Arc::clone(&write), Arc::clone(&next), Arc::clone(&over));
            writers.spawn(async move {
                let mut latencies = Vec::with_capacity(1 << 12);
                while !over.load(Ordering::Relaxed) {
                    let one = Stopwatch::start();
                    write(next.fetch_add(1, Ordering::Relaxed)).await?;
                    latencies.push(one.elapsed().as_secs_f64() * 1e6);
                    if time.elapsed() >= load.time {
                        over.store(true, Ordering::Relaxed);
                    }
                }
                Ok::<_, Error>(latencies)
            });
        }
        let mut all = Vec::new();
        while let Some(latencies) = writers.join_next().await {
            all.append(&mut latencies??);
        }
        Ok::<_, Error>((all, time.elapsed().as_secs_f64()))
    })?;
    let writes = latencies.len();
    Ok(summed(latencies, writes, seconds))
}

fn summed(mut latencies: Vec<f64>, writes: usize, seconds: f64) -> Run {
    latencies.sort_by(f64::total_cmp);
    Run {
        per_second: writes as f64 / seconds,
        p50_us: percentile(&latencies, 50),
        p99_us: percentile(&latencies, 99),
        ..Run::default()
    }
}
