//! The journal in a process of its own that is killed, or whose disk stops syncing: the system calls are the real ones.
//!
//! ```text
//! test --starts--> writer (this binary again) --"own 17 1 9" once it is acknowledged--> test
//!      --SIGKILL-->                             then the test opens what is left and compares
//! ```
//! `KILLS=2000 TMPDIR=/mnt/xfs cargo test -p journal --test process` asks for more, on another file system.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journal::{AppendError, AtRest, Draft, Foreign, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk};
use keys::{DataKey, DataKeys, KeyNumber};
use model::{
    ByteSize, ChunkName, Clock, Entry, EntryId, Epoch, Header, Hlc, Kind, Label, LocalPos, NodeId, Outcome, Precedence,
    RangeSet, Seq, SourcePosition, StreamId, UnixMillis,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

const NODE: NodeId = NodeId([1; 16]);
const PEER: NodeId = NodeId([2; 16]);
const CONSUMER: &str = "peer:test";
/// The newest own entries are never declared final.
const KEPT: u64 = 100;
/// One receives, one trims, the others append.
const WRITER_THREADS: usize = 8;
/// Longer than any writer takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn nothing_acknowledged_is_lost_or_numbered_twice_over_two_hundred_kills() {
    let kills: u64 = std::env::var("KILLS").map_or(200, |n| n.parse().unwrap());
    let seed: u64 = std::env::var("SEED").map_or_else(|_| u64::from(std::process::id()), |s| s.parse().unwrap());
    println!("{kills} kills; repeat this run with SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let mut said = Said::default();
    for kill in 0..kills {
        let mut writer = Writer::start(dir.path(), kill, &[]);
        if rng.random_bool(0.9) {
            writer.take(&mut said, rng.random_range(1..400));
        } else {
            // While it opens.
            std::thread::park_timeout(Duration::from_millis(rng.random_range(0..30)));
        }
        writer.kill(&mut said);
        if kill % 10 == 9 || kill + 1 == kills {
            said.compare(dir.path(), seed);
        }
    }
    println!("{} own and {} received entries acknowledged, {} chunks", said.own.len(), said.foreign, said.chunks);
    assert!(said.own.len() as u64 > kills, "too little got through to prove anything");
}

#[test]
fn a_disk_that_stops_syncing_ends_acknowledgements_at_once() {
    let preload = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];
    if !preload.iter().all(|library| Path::new(library).exists()) {
        println!("skipped: libfiu is not installed (Debian package libfiu0)");
        return;
    }
    let dir = TempDir::new().unwrap();
    let fifo = dir.path().join("fiu");
    let environment = [("LD_PRELOAD", preload.join(" ")), ("FIU_CTRL_FIFO", fifo.display().to_string())];
    let mut said = Said::default();
    let mut writer = Writer::start(&dir.path().join("journal"), 0, &environment);
    writer.take(&mut said, 100);
    let pid = writer.child.id();
    control(&fifo, pid, "enable name=posix/io/sync/*,failinfo=5");
    // From the answer to this command on every sync fails. Each of the writer's threads is told once; what one says of an
    // earlier success may stand behind that.
    let mut told = 0;
    while told < WRITER_THREADS {
        let line = writer.lines.recv_timeout(PATIENCE).expect("a writer whose disk fails says so");
        match line.strip_prefix("stopped ") {
            Some(why) => {
                assert!(why.contains("os error 5"), "{why}");
                told += 1;
            }
            None => said.note(&line),
        }
    }
    println!("{} entries acknowledged before the disk failed", said.own.len());
    // Syncing works again, but what the failed one left behind is unknown: the journal must not go on by itself.
    control(&fifo, pid, "disable name=posix/io/sync/*");
    for _ in 0..5 {
        let line = writer.lines.recv_timeout(PATIENCE).expect("the writer goes on trying");
        assert!(line.starts_with("stopped "), "after a sync that failed: {line}");
    }
    writer.kill(&mut said);
    said.compare(&dir.path().join("journal"), 0);
}

/// Sends a command to libfiu in the process and waits for its answer.
fn control(fifo: &Path, pid: u32, command: &str) {
    let path = |end: &str| format!("{}-{pid}.{end}", fifo.display());
    let mut pipe = std::fs::OpenOptions::new().write(true).open(path("in")).unwrap();
    pipe.write_all(format!("{command}\n").as_bytes()).unwrap();
    drop(pipe);
    let mut answer = String::new();
    std::fs::File::open(path("out")).unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer.trim(), "0", "libfiu refused `{command}`");
}

/// What writers were told is durable.
#[derive(Default)]
struct Said {
    /// Own entries by source position.
    own: BTreeMap<u64, EntryId>,
    ids: BTreeSet<EntryId>,
    /// Highest number of the other origin; all up to it are durable.
    foreign: u64,
    chunks: usize,
    /// The newest chunk, and how many own entries there were then.
    newest_chunk: Option<(u64, usize)>,
    /// Own numbers that a writer was about to declare final: they may be trimmed.
    finals: BTreeMap<Epoch, u64>,
}

impl Said {
    fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|n| n.parse().unwrap_or_else(|_| panic!("unreadable: {line}"))).collect();
        match (what, numbers.as_slice()) {
            ("own", [source, epoch, seq]) => {
                let id = EntryId { origin: NODE, epoch: Epoch(*epoch as u32), seq: Seq::new(*seq).unwrap() };
                assert!(self.ids.insert(id), "{id} was given out twice");
                assert_eq!(self.own.insert(*source, id), None, "source {source} was taken twice");
            }
            ("foreign", [upto]) => self.foreign = *upto,
            ("chunk", [n]) => {
                self.chunks += 1;
                self.newest_chunk = Some((*n, self.own.len()));
            }
            ("final", [epoch, upto]) => drop(self.finals.insert(Epoch(*epoch as u32), *upto)),
            _ => panic!("an unknown line: {line}"),
        }
    }

    /// Opens what is left, and closes it again.
    fn compare(&self, dir: &Path, seed: u64) {
        let (journal, report) = Journal::open(options(dir)).unwrap();
        assert!(report.damage.is_empty(), "{report:?}; SEED={seed}");
        let held = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap();
        let held: BTreeMap<EntryId, Arc<Entry>> =
            held.into_iter().map(|listed| (listed.entry.header.id, listed.entry)).collect();
        for (source, id) in &self.own {
            match held.get(id) {
                Some(entry) => {
                    assert_eq!(entry.header.source, SourcePosition(Hlc(*source)), "{id}; SEED={seed}");
                    assert_eq!(entry.body, body(*source), "{id}; SEED={seed}");
                }
                None => {
                    let final_upto = self.finals.get(&id.epoch).copied().unwrap_or(0);
                    assert!(id.seq.get() <= final_upto, "{id} was acknowledged and is gone; SEED={seed}");
                }
            }
        }
        if self.foreign > 0 {
            let received = journal.received(PEER).remove(&Epoch::FIRST).unwrap_or_default();
            let missing = RangeSet::from(1..=self.foreign).difference(&received);
            assert!(missing.is_empty(), "received {missing:?} are gone; SEED={seed}");
        }
        if let Some((n, _)) = self.newest_chunk.filter(|(_, then)| ((self.own.len() - then) as u64) < KEPT / 2) {
            let chunk = journal.get_chunk(&chunk_name(n)).unwrap();
            assert_eq!(chunk.as_deref(), Some(body(n).as_slice()), "chunk {n}; SEED={seed}");
        }
        if let Some(accounting) = journal.accounting(CONSUMER).unwrap() {
            let t = accounting.total;
            let ended = t.applied + t.quarantined + t.expired + t.superseded + t.withheld + t.purged;
            assert_eq!(t.accepted, t.held + ended, "{accounting:?}; SEED={seed}");
        }
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean(), "SEED={seed}");
    }
}

/// A running writer; killed when dropped.
struct Writer {
    child: Child,
    lines: Receiver<String>,
}

impl Writer {
    fn start(dir: &Path, round: u64, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_writer", "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
            .env("WRITER_DIR", dir)
            .env("WRITER_ROUND", round.to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // The test harness prints around ours. It begins the first one's line.
            for line in stdout.lines().map_while(Result::ok) {
                let Some((_, ours)) = line.split_once("> ") else { continue };
                if sender.send(ours.to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for so many acknowledgements.
    fn take(&mut self, said: &mut Said, lines: usize) {
        for _ in 0..lines {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said.note(&line),
                Err(RecvTimeoutError::Timeout) => panic!("the writer said nothing for {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the writer ended: {:?}", self.child.wait()),
            }
        }
    }

    /// SIGKILL, then what it said before.
    fn kill(&mut self, said: &mut Said) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if !line.starts_with("stopped ") {
                said.note(&line);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
#[ignore = "the process that the other tests kill"]
fn the_writer() {
    let dir = PathBuf::from(std::env::var_os("WRITER_DIR").expect("started by the other tests"));
    let round: u64 = std::env::var("WRITER_ROUND").unwrap().parse().unwrap();
    let journal = Journal::open(options(&dir)).unwrap().0;
    let peer = journal.consumer(CONSUMER, true).unwrap();
    let next = AtomicU64::new(journal.highest_source().map_or(1, |s| s.0.0 + 1));
    // A source is numbered and queued in one step, as capture does: the journal takes them in this order.
    let order = Mutex::new(());
    let appends = || {
        loop {
            let (n, ticket) = {
                let _order = order.lock().unwrap();
                let n = next.fetch_add(1, Ordering::SeqCst);
                (n, journal.append_own(draft(n)))
            };
            match ticket.wait() {
                Ok(appended) => say(&format!("own {n} {} {}", appended.id.epoch.0, appended.id.seq.get())),
                Err(e) => return complain(&e),
            }
        }
    };
    let receives = || {
        let known = journal.received(PEER).remove(&Epoch::FIRST).unwrap_or_default();
        for n in known.numbers().last().unwrap_or(0) + 1.. {
            match journal.append_foreign(foreign(n)).wait() {
                Ok(_) => say(&format!("foreign {n}")),
                Err(e) => return complain(&e),
            }
            let chunk = round << 32 | n;
            match journal.put_chunk(chunk_name(chunk), &body(chunk)).wait() {
                Ok(_) => say(&format!("chunk {chunk}")),
                Err(e) => return complain(&e),
            }
        }
    };
    let trims = || {
        loop {
            for epoch in journal.epochs() {
                let upto = epoch.last.map_or(0, Seq::get).saturating_sub(KEPT);
                if upto > 0 {
                    // Said first: the kill may fall anywhere behind.
                    say(&format!("final {} {upto}", epoch.epoch.0));
                    peer.record_outcome(Outcome::Applied, epoch.epoch, &RangeSet::from(1..=upto));
                }
            }
            if let Err(e) = journal.trim().and_then(|_| journal.flush().wait()) {
                return complain(&e);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    std::thread::scope(|scope| {
        for _ in 2..WRITER_THREADS {
            scope.spawn(appends);
        }
        scope.spawn(receives);
        scope.spawn(trims);
    });
    // The disk failed, and everyone was told. Whoever started this ends it.
    for n in next.fetch_add(0, Ordering::SeqCst).. {
        match journal.append_own(draft(n)).wait() {
            Ok(appended) => say(&format!("own {n} {} {}", appended.id.epoch.0, appended.id.seq.get())),
            Err(e) => complain(&e),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// One write: no kill tears a line.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("> {line}\n").as_bytes()).ok();
    out.flush().ok();
}

fn complain(e: &AppendError) {
    say(&format!("stopped {e}"));
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        dir: dir.to_owned(),
        node: NODE,
        disk: Arc::new(StdDisk),
        clock: Arc::new(StoppedClock),
        settings: JournalSettings {
            segment_bytes: ByteSize(64 << 10),
            limit_bytes: ByteSize(1 << 30),
            ..JournalSettings::default()
        },
        index: IndexPlace::Sled,
        at_rest: AtRest::sealed(DataKeys::new([(KeyNumber(1), DataKey::from_bytes([9; 32]))])),
    }
}

/// 40 to some 4,000 bytes that name their number.
fn body(n: u64) -> Vec<u8> {
    let mut body = format!("entry {n} ").into_bytes();
    body.resize(40 + (n % 4_001 * 7_919 % 4_001) as usize, (n % 251) as u8);
    body
}

fn chunk_name(n: u64) -> ChunkName {
    let mut name = [ChunkName::BLAKE3_KEYED; ChunkName::LEN];
    name[1..9].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    name[9..17].copy_from_slice(&n.to_le_bytes());
    ChunkName(name)
}

fn header(origin: NodeId, n: u64) -> Header {
    Header {
        id: EntryId { origin, epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() },
        source: SourcePosition(Hlc(n)),
        stream: StreamId::Directory,
        causes: Vec::new(),
        after: None,
        precedence: Precedence::Routine,
        captured: Hlc(n << 16),
        origin_time: UnixMillis(n as i64),
        expiry: None,
        supersedes: None,
        label: Label::directory(),
        kind: Kind::Post,
        mint_salt: 7,
    }
}

fn draft(n: u64) -> Draft {
    let header = header(NODE, n);
    Draft {
        source: header.source,
        follows: None,
        stream: header.stream,
        causes: header.causes,
        needs: Vec::new(),
        precedence: header.precedence,
        captured: header.captured,
        origin_time: header.origin_time,
        expiry: header.expiry,
        supersedes: header.supersedes,
        label: header.label,
        kind: header.kind,
        mint_salt: header.mint_salt,
        body: body(n),
        object: None,
        chunks: None,
    }
}

fn foreign(n: u64) -> Foreign {
    Foreign { bytes: wire::encode_entry(&Entry { header: header(PEER, n), body: body(n) }).into(), object: None }
}
