//! A node: a pretend core with outbox and ledger, a real journal on a pretend disk, a real session and shaper per peer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use journal::{
    AppendError, AtRest, Consumer, Draft, EpochReason, Foreign, ForeignOutcome, IndexPlace, Journal, JournalOptions,
    JournalSettings, OutboundView, Salts,
};
use keys::{DataKey, DataKeys, KeyNumber, ProcessMint, SALT_LEN};
use link::{
    EpochProgress, Incoming, Lane, Now, Output, ReceiverState, SenderState, Session, SessionConfig, StartEpochReason,
};
use model::event::{FileState, FileStub};
use model::{
    BitsPerSecond, ByteSize, ChunkName, Clock, Entry, EntryId, Epoch, Event, Hlc, HybridClock, Id, IdMint, Kind, Label,
    LocalPos, NodeId, ObjectKey, Outcome, Precedence, RangeSet, SourcePosition, StreamId, UnixMillis, Version,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shaper::{Demand, Emission, Shaper};
use wire::frame::{Custody, CustodyRefusal, Frame};

use crate::PretendDisk;
use crate::clock::WallClock;
use crate::network::passes_a_full_queue;

/// A change that the core committed.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) number: u64,
    at: Hlc,
    pub(crate) stream: u8,
    pub(crate) class: Precedence,
    label: &'static str,
    expiry: Option<UnixMillis>,
    /// Rows whose entries must come first.
    pub(crate) causes: Vec<u64>,
    body_bytes: usize,
    /// A file with so many bytes of content.
    file_bytes: Option<usize>,
}

impl Row {
    pub(crate) fn is_released(&self) -> bool {
        self.label == "mission"
    }

    pub(crate) fn may_expire(&self) -> bool {
        self.expiry.is_some()
    }

    pub(crate) fn is_file(&self) -> bool {
        self.file_bytes.is_some()
    }
}

/// What survives in the core's database.
#[derive(Clone, Debug, Default)]
struct Core {
    /// Numbers of its own rows.
    outbox: Vec<u64>,
    /// How each peer's numbers ended here.
    ledger: BTreeMap<NodeId, BTreeMap<Epoch, EpochProgress>>,
    cursor: Option<LocalPos>,
    /// Received and waiting for causes.
    held: Vec<(EntryId, Entry)>,
    /// Rows of peers in the order in which they took effect.
    applied: Vec<(NodeId, u64)>,
    /// Applied before their turn, and what they jumped over.
    jumped: BTreeMap<EntryId, EntryId>,
    incomplete: BTreeMap<EntryId, Entry>,
    files: BTreeSet<(NodeId, u64)>,
}

impl Core {
    fn jumped_of(&self, origin: NodeId) -> impl Iterator<Item = (EntryId, EntryId)> + '_ {
        self.jumped.iter().filter(move |(id, _)| id.origin == origin).map(|(id, over)| (*id, *over))
    }
}

/// The part of a node that ends with its process.
struct Process {
    journal: Journal,
    outbound: OutboundView,
    talks: BTreeMap<NodeId, Talk>,
    /// A full disk is asked again then, for captures and for what peers sent.
    retry_at: Option<Duration>,
}

/// What a process has to do with one peer.
struct Talk {
    consumer: Consumer,
    session: Session,
    shaper: Shaper,
    /// What a full disk did not take.
    stalled: Vec<Append>,
}

/// Something of a peer on its way into the journal.
enum Append {
    Entry(Incoming),
    Chunk { name: ChunkName, bytes: Vec<u8>, base: Option<ChunkName>, file: EntryId },
}

/// A copy of everything that a node keeps, made while it ran.
#[derive(Clone)]
pub(crate) struct Snapshot {
    disk: PretendDisk,
    core: Core,
}

pub(crate) struct SimNode {
    pub(crate) name: String,
    pub(crate) me: NodeId,
    peers: Vec<NodeId>,
    pub(crate) wall: WallClock,
    hybrid: HybridClock,
    disk: PretendDisk,
    core: Core,
    /// Every row that was ever committed, whatever became of the database: its number is its place.
    rows: Vec<Row>,
    /// Rows that went with the restore of a snapshot. Peers may have them or not.
    lost: BTreeSet<u64>,
    /// Rows of peers that had taken effect here before such a restore, and perhaps have not any more.
    undone: BTreeSet<(NodeId, u64)>,
    rate: BitsPerSecond,
    at_rest: AtRest,
    boot: u64,
    process: Option<Process>,
    pub(crate) crashes: u32,
    pub(crate) restores: u32,
    /// How often the disk was full.
    pub(crate) stalls: u32,
}

/// The power went while something was being made durable.
#[derive(Debug)]
pub(crate) struct PowerLost;

/// Why nothing was appended.
enum Refused {
    PowerLost,
    NoRoom,
}

/// How long a node waits before it asks a full disk again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

fn secret(node: NodeId) -> [u8; 32] {
    [node.0[0]; 32]
}

fn file_content(number: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    // Every other file shares its content with the one before.
    ChaCha8Rng::seed_from_u64(number / 2).fill_bytes(&mut content);
    content
}

/// The same salts in every run of a seed.
#[derive(Default)]
pub(crate) struct CountedSalts(AtomicU64);

impl CountedSalts {
    pub(crate) fn starting(at: u64) -> Self {
        Self(AtomicU64::new(at))
    }
}

impl Salts for CountedSalts {
    fn salt(&self) -> [u8; SALT_LEN] {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)).to_le_bytes()
    }
}

impl SimNode {
    pub(crate) fn new(name: &str, me: NodeId, peers: Vec<NodeId>, wall: WallClock, sealed: bool) -> Self {
        let keys = DataKeys::new([(KeyNumber(1), DataKey::from_bytes([me.0[0]; 32]))]);
        let salts = Arc::new(CountedSalts::default());
        Self {
            name: name.to_owned(),
            me,
            peers,
            wall,
            hybrid: HybridClock::default(),
            disk: PretendDisk::default(),
            core: Core::default(),
            rows: Vec::new(),
            lost: BTreeSet::new(),
            undone: BTreeSet::new(),
            rate: BitsPerSecond(64_000),
            at_rest: if sealed { AtRest::Sealed { keys, salts } } else { AtRest::Plain },
            boot: 0,
            process: None,
            crashes: 0,
            restores: 0,
            stalls: 0,
        }
    }

    pub(crate) fn set_rate(&mut self, rate: BitsPerSecond) {
        self.rate = rate;
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Rows of a peer in the order in which they took effect.
    pub(crate) fn applied_of(&self, peer: NodeId) -> impl Iterator<Item = u64> + '_ {
        self.core.applied.iter().filter(move |(of, _)| *of == peer).map(|(_, number)| *number)
    }

    pub(crate) fn has_file(&self, peer: NodeId, number: u64) -> bool {
        self.core.files.contains(&(peer, number))
    }

    /// Did its own row go with a restore?
    pub(crate) fn has_lost(&self, number: u64) -> bool {
        self.lost.contains(&number)
    }

    /// Did the effect of a peer's row go with a restore?
    pub(crate) fn has_undone(&self, peer: NodeId, number: u64) -> bool {
        self.undone.contains(&(peer, number))
    }

    /// Commits a change to the core: from here on it must not be lost.
    pub(crate) fn commit(&mut self, rng: &mut ChaCha8Rng) {
        let number = self.rows.len() as u64;
        let class = Precedence::ALL[rng.random_range(0..5)];
        let file = rng.random_bool(0.05);
        let causes: Vec<u64> = (0..rng.random_range(0..3))
            .filter_map(|_| self.core.outbox.len().checked_sub(rng.random_range(1..20)))
            .map(|at| self.core.outbox[at])
            .filter(|n| !self.rows[*n as usize].is_file())
            .collect();
        let now = self.wall.now();
        self.core.outbox.push(number);
        self.rows.push(Row {
            number,
            at: self.hybrid.tick(now),
            stream: rng.random_range(0..3),
            class: if file { Precedence::Deferred } else { class },
            label: if rng.random_bool(0.1) { "secret" } else { "mission" },
            expiry: rng.random_bool(0.05).then(|| UnixMillis(now.0 + rng.random_range(0..600_000))),
            causes,
            body_bytes: if rng.random_bool(0.05) { rng.random_range(2_000..20_000) } else { rng.random_range(0..200) },
            file_bytes: file.then(|| rng.random_range(0..120_000)),
        });
    }

    /// A copy of what it keeps, as a virtual machine's snapshot has it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { disk: self.disk.copy(), core: self.core.clone() }
    }

    /// The machine is put back to the snapshot, and starts anew.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        self.process = None;
        let kept: BTreeSet<u64> = snapshot.core.outbox.iter().copied().collect();
        self.lost.extend(self.core.outbox.iter().filter(|n| !kept.contains(n)));
        let kept: BTreeSet<(NodeId, u64)> = snapshot.core.applied.iter().copied().collect();
        self.undone.extend(self.core.applied.iter().filter(|row| !kept.contains(row)));
        self.disk = snapshot.disk.copy();
        self.core = snapshot.core.clone();
        let last = self.core.outbox.last().map(|n| self.rows[*n as usize].at);
        self.hybrid = last.map_or_else(HybridClock::default, HybridClock::after);
        self.restores += 1;
    }

    /// From here on the disk takes so many bytes more; `None`: whatever comes.
    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        self.disk.set_room(bytes.map(|more| self.disk.used_bytes() + more));
    }

    pub(crate) fn start(&mut self) -> Result<(), PowerLost> {
        self.boot += 1;
        let options = JournalOptions {
            dir: PathBuf::from("/journal"),
            node: self.me,
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(self.wall.clone()),
            settings: JournalSettings {
                segment_bytes: ByteSize(64 << 10),
                limit_bytes: ByteSize(1 << 30),
                ..JournalSettings::default()
            },
            index: IndexPlace::Memory,
            at_rest: self.at_rest.clone(),
        };
        let (journal, _) = match Journal::open(options) {
            Ok(opened) => opened,
            // It is started again, by systemd or by hand.
            Err(_) if self.disk.is_off() || self.disk.is_bounded() => return Err(PowerLost),
            Err(e) => panic!("{}: the journal does not open: {e}", self.name),
        };
        let failed = |e: AppendError| match self.refused(&e) {
            Refused::PowerLost | Refused::NoRoom => PowerLost,
        };
        let local = journal.consumer("local", true).map_err(failed)?;
        local.advance(self.core.cursor.unwrap_or(LocalPos::START));
        let mut talks = BTreeMap::new();
        for peer in &self.peers {
            let consumer = journal.consumer(&consumer_name(*peer), true).map_err(failed)?;
            let mut session = self.session(*peer, &journal, &consumer)?;
            session.jumped(self.core.jumped_of(*peer));
            let shaper = Shaper::new(self.rate, 1_200, Emission::Normal, self.wall.elapsed());
            talks.insert(*peer, Talk { consumer, session, shaper, stalled: Vec::new() });
        }
        for (id, entry) in &self.core.incomplete {
            if let Some(talk) = talks.get_mut(&id.origin) {
                talk.session.want_file(entry);
            }
        }
        self.process = Some(Process { outbound: journal.outbound(), journal, talks, retry_at: None });
        Ok(())
    }

    fn session(&self, peer: NodeId, journal: &Journal, consumer: &Consumer) -> Result<Session, PowerLost> {
        let state = consumer.state();
        let mut progress: BTreeMap<Epoch, EpochProgress> = BTreeMap::new();
        for (epoch, stored) in state.stored {
            progress.entry(epoch).or_default().stored = stored;
        }
        for (epoch, sets) in state.outcomes {
            progress.entry(epoch).or_default().outcomes = Outcome::ALL.into_iter().zip(sets).collect();
        }
        let sender = SenderState {
            epochs: journal.epochs().iter().map(|e| (e.epoch, e.last.map_or(0, |s| s.get()))).collect(),
            progress,
            scan_from: consumer.low_water().map_err(|_| PowerLost)?,
        };
        let mut received = self.core.ledger.get(&peer).cloned().unwrap_or_default();
        for (epoch, stored) in journal.received(peer) {
            received.entry(epoch).or_default().stored = stored;
        }
        let labels: BTreeSet<Label> = ["mission".parse().expect("a label")].into();
        let config = SessionConfig {
            me: self.me,
            name: self.name.clone(),
            boot: self.boot,
            peer,
            labels,
            peer_chunk_secret: secret(peer),
            compression: 3,
        };
        Ok(Session::new(config, sender, ReceiverState { progress: received }))
    }

    /// What an append's failure means in a world where power goes and disks are full, but nothing else fails.
    fn refused(&self, e: &AppendError) -> Refused {
        if self.disk.is_off() {
            return Refused::PowerLost;
        }
        assert!(e.is_retryable(), "{}: {e}", self.name);
        Refused::NoRoom
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn cut_power_after(&self, bytes: usize) {
        self.disk.cut_power_after(bytes);
    }

    /// The power goes and comes back; the process does not.
    pub(crate) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        self.disk.crash(rng);
        self.process = None;
        self.crashes += 1;
    }

    fn now(&self) -> Now {
        Now { mono: self.wall.elapsed(), wall: self.wall.now() }
    }

    pub(crate) fn connected(&mut self, peer: NodeId) {
        let now = self.now();
        let Some(Process { journal, talks, .. }) = &mut self.process else { return };
        let Some(talk) = talks.get_mut(&peer) else { return };
        talk.consumer.begin_session();
        let outcomes = talk.consumer.state().outcomes;
        let of = |epoch: Epoch, outcome: Outcome| {
            outcomes.get(&epoch).map(|sets| sets[outcome as usize - 1].clone()).unwrap_or_default()
        };
        for (epoch, numbers) in journal.trimmed() {
            let expired = numbers.difference(&of(epoch, Outcome::Superseded));
            talk.session.lost(epoch, Outcome::Expired, &expired);
        }
        for epoch in outcomes.keys() {
            for outcome in [Outcome::Expired, Outcome::Superseded] {
                talk.session.lost(*epoch, outcome, &of(*epoch, outcome));
            }
        }
        talk.session.connected(now);
    }

    pub(crate) fn disconnected(&mut self, peer: NodeId) {
        if let Some(talk) = self.process.as_mut().and_then(|p| p.talks.get_mut(&peer)) {
            talk.session.disconnected();
            talk.consumer.end_session();
        }
    }

    /// Rows of the outbox that the journal does not have yet become entries.
    pub(crate) fn capture(&mut self) -> Result<(), PowerLost> {
        let now = self.wall.elapsed();
        if self.process.as_ref().is_none_or(|p| p.retry_at.is_some_and(|at| at > now)) {
            return Ok(());
        }
        let captured = self.capture_all();
        let Some(process) = &mut self.process else { return Ok(()) };
        match captured {
            Ok(0) => Ok(()),
            Ok(_) => {
                tell_appended(&process.journal, &mut process.talks);
                Ok(())
            }
            Err(Refused::PowerLost) => Err(PowerLost),
            Err(Refused::NoRoom) => {
                process.retry_at = Some(now + RETRY_AFTER);
                self.stalls += 1;
                // Some may have found room before the others did not.
                tell_appended(&process.journal, &mut process.talks);
                Ok(())
            }
        }
    }

    fn capture_all(&self) -> Result<usize, Refused> {
        let Some(process) = &self.process else { return Ok(0) };
        let captured = process.journal.highest_source();
        let rows = self.core.outbox.iter().map(|n| &self.rows[*n as usize]);
        let fresh: Vec<&Row> = rows.filter(|row| captured.is_none_or(|at| SourcePosition(row.at) > at)).collect();
        let (mut follows, mut tickets) = (captured, Vec::new());
        for row in fresh {
            let (mut body, mut since) = (row.number.to_le_bytes().to_vec(), None);
            let kind = if row.file_bytes.is_some() { Kind::File } else { Kind::Post };
            if let Some(bytes) = row.file_bytes {
                let mut file = process.journal.begin_file();
                let namer = wire::chunk::Namer::new(&secret(self.me), &row.label.parse().expect("a label"));
                let content = file_content(row.number, bytes);
                let put = |name, chunk: &[u8]| file.put(&namer, name, chunk).map_err(|e| NotCut(self.refused(&e)));
                let manifest = wire::chunk::build_manifest::<NotCut>(content.as_slice(), &namer, put);
                let manifest = manifest.map_err(|NotCut(refused)| refused)?;
                file.finish(&namer).map_err(|e| self.refused(&e))?;
                body = wire::encode_event(&file_event(row, self.me, manifest), self.me, 1);
                since = Some((file, bytes as u64));
            } else {
                body.extend((0..row.body_bytes).map(|i| (i % 251) as u8));
            }
            let object = |n: u64| ObjectKey(n + 1);
            let draft = Draft {
                source: SourcePosition(row.at),
                follows,
                stream: stream(row.stream),
                causes: Vec::new(),
                needs: row.causes.iter().map(|n| object(*n)).collect(),
                precedence: row.class,
                captured: row.at,
                origin_time: row.at.millis(),
                expiry: row.expiry,
                supersedes: None,
                label: row.label.parse().expect("a label"),
                kind,
                mint_salt: 1,
                body,
                object: Some(object(row.number)),
                chunks: since.as_ref().map(|(file, bytes)| file.chunks(*bytes)),
            };
            follows = Some(SourcePosition(row.at));
            // The file stays announced until its entry is durable.
            tickets.push((process.journal.append_own(draft), since));
        }
        let count = tickets.len();
        let mut first = Ok(count);
        for (ticket, _file) in tickets {
            let appended = ticket.wait().map_err(|e| self.refused(&e));
            if let (Ok(_), Err(refused)) = (&first, appended) {
                first = Err(refused);
            }
        }
        first
    }

    /// Carries out what the sessions want.
    pub(crate) fn perform(&mut self) -> Result<(), PowerLost> {
        let now = self.now();
        if let Some(process) = self.process.as_mut().filter(|p| p.retry_at.is_some_and(|at| at <= now.mono)) {
            process.retry_at = None;
            let stalled: Vec<(NodeId, Vec<Append>)> =
                process.talks.iter_mut().map(|(peer, talk)| (*peer, std::mem::take(&mut talk.stalled))).collect();
            for (peer, appends) in stalled {
                appends.into_iter().try_for_each(|append| self.append(peer, append))?;
            }
        }
        for peer in self.peers.clone() {
            while let Some(output) =
                self.process.as_mut().and_then(|p| p.talks.get_mut(&peer)).and_then(|talk| talk.session.poll())
            {
                self.carry_out(peer, output)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, peer: NodeId, append: Append) -> Result<(), PowerLost> {
        let now = self.now();
        let Some(process) = &mut self.process else { return Ok(()) };
        let outcome = match &append {
            Append::Entry(incoming) => {
                let foreign = Foreign { bytes: Arc::clone(&incoming.bytes), object: None };
                process.journal.append_foreign(foreign).wait().map(Some)
            }
            Append::Chunk { name, bytes, base, file } => {
                process.journal.put_chunk_of(*file, *name, bytes, *base).wait().map(|_| None)
            }
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(e) => {
                return match self.refused(&e) {
                    Refused::PowerLost => Err(PowerLost),
                    Refused::NoRoom => {
                        self.stalls += 1;
                        let Some(process) = &mut self.process else { return Ok(()) };
                        process.retry_at = Some(now.mono + RETRY_AFTER);
                        if let Some(talk) = process.talks.get_mut(&peer) {
                            talk.stalled.push(append);
                        }
                        Ok(())
                    }
                };
            }
        };
        let Some(talk) = process.talks.get_mut(&peer) else { return Ok(()) };
        match (append, outcome) {
            (Append::Entry(incoming), Some(ForeignOutcome::Conflict { .. })) => {
                talk.session.entry_conflicts(incoming.entry.header.id);
            }
            (Append::Entry(incoming), _) => talk.session.entries_stored(&[incoming.entry.header.id], now),
            (Append::Chunk { name, .. }, _) => talk.session.chunks_stored(&[name]),
        }
        Ok(())
    }

    fn carry_out(&mut self, peer: NodeId, output: Output) -> Result<(), PowerLost> {
        let now = self.now();
        let disk = self.disk.clone();
        let Some(Process { journal, talks, .. }) = &mut self.process else { return Ok(()) };
        let Some(talk) = talks.get_mut(&peer) else { return Ok(()) };
        // A node that cannot begin an epoch, or keep what it holds, is restarted by its supervisor.
        let restart = |e: AppendError| {
            assert!(disk.is_off() || disk.is_bounded(), "{e}");
            PowerLost
        };
        match output {
            Output::Store(incoming) => self.append(peer, Append::Entry(incoming))?,
            Output::StoreChunk { name, bytes, base, file } => {
                self.append(peer, Append::Chunk { name, bytes, base, file })?;
            }
            Output::RetainChunk(name) => {
                journal.retain_chunk(name).wait().map_err(restart)?;
            }
            Output::RecordStored { epoch, ranges } => talk.consumer.record_stored(epoch, &ranges),
            Output::RecordOutcome { epoch, outcome, ranges } => talk.consumer.record_outcome(outcome, epoch, &ranges),
            Output::AccountSkipped { epoch, outcome, ranges } => {
                let ledger = self.core.ledger.entry(peer).or_default().entry(epoch).or_default();
                ledger.outcomes.entry(outcome).or_default().union_with(&ranges);
                talk.session.finals(epoch, outcome, &ranges, now);
            }
            Output::StartEpoch { reason, at_least, reissue } => {
                let reason = match reason {
                    StartEpochReason::PeerIsAhead => EpochReason::PeerIsAhead,
                    StartEpochReason::Conflict => EpochReason::Conflict,
                };
                while journal.epochs().last().is_none_or(|open| open.epoch < at_least) {
                    journal.start_epoch(reason).wait().map_err(restart)?;
                }
                journal.reissue(reissue).wait().map_err(restart)?;
                tell_appended(journal, talks);
            }
            Output::FileComplete(id) => {
                if let Some(entry) = self.core.incomplete.remove(&id) {
                    self.core.files.insert((peer, check_file(&entry, journal)));
                }
            }
            Output::FileUnavailable(id) => {
                // A restored peer has lost it, or had been told that the file is whole by who forgot; else it is missed
                // when the world settles.
                self.core.incomplete.remove(&id);
            }
            Output::Restore(incoming) => {
                let returned = Foreign { bytes: incoming.bytes, object: None };
                if journal.restore(returned).wait().map_err(restart)? {
                    talk.session.appended();
                }
            }
            Output::NotReturned { epoch, ranges } => journal.not_returned(talk.consumer.name(), epoch, &ranges),
            // No node of these worlds hands on what is for another.
            Output::TakeParcel { name, .. } => {
                talk.session.parcel_answered(name, Custody::Refused(CustodyRefusal::NoWay));
            }
            Output::Close { .. }
            | Output::PeerGreeted { .. }
            | Output::OfferFiles
            | Output::ParcelKept { .. }
            | Output::Event(_) => {}
        }
        Ok(())
    }

    /// Received entries take effect once their causes are accounted for; effect and ledger are one transaction.
    pub(crate) fn apply(&mut self) -> Result<(), PowerLost> {
        let now = self.now();
        let Some(process) = &mut self.process else { return Ok(()) };
        loop {
            let from = self.core.cursor.unwrap_or(LocalPos::START);
            let batch = process.journal.read_foreign(from, 256).map_err(|_| PowerLost)?;
            self.core.cursor = Some(batch.next);
            if batch.entries.is_empty() {
                break;
            }
            for received in batch.entries {
                let id = received.entry.header.id;
                if received.entry.header.kind == Kind::File {
                    self.core.incomplete.insert(id, received.entry.clone());
                    // It may have become durable in a process that ended before this.
                    if let Some(talk) = process.talks.get_mut(&id.origin) {
                        talk.session.want_file(&received.entry);
                    }
                }
                self.core.held.push((id, received.entry));
            }
        }
        loop {
            let before = self.core.held.len();
            let wanted = wanted(&self.core.held);
            for (id, entry) in std::mem::take(&mut self.core.held) {
                let h = &entry.header;
                let ended = |id: &EntryId| {
                    let ledger = self.core.ledger.get(&id.origin).and_then(|ledger| ledger.get(&id.epoch));
                    ledger.is_some_and(|l| l.outcomes.values().any(|set| set.contains(id.seq.get())))
                };
                let mut before = h.predecessor();
                while let Some(ended) = before.filter(|before| ended(before)) {
                    before = self.core.jumped.get(&ended).copied();
                }
                // What something more urgent needs does not keep its place in its stream and class.
                let jumps = wanted.get(&id).is_some_and(|urgency| *urgency < h.precedence);
                if (before.is_some() && !jumps) || !h.causes.iter().all(ended) {
                    self.core.held.push((id, entry));
                    continue;
                }
                if let Some(over) = before {
                    self.core.jumped.insert(id, over);
                }
                let numbers = RangeSet::from(id.seq.get()..=id.seq.get());
                self.core.applied.push((id.origin, row_of(&entry)));
                let ledger = self.core.ledger.entry(id.origin).or_default().entry(id.epoch).or_default();
                ledger.outcomes.entry(Outcome::Applied).or_default().union_with(&numbers);
                if let Some(talk) = process.talks.get_mut(&id.origin) {
                    talk.session.jumped(self.core.jumped_of(id.origin));
                    talk.session.finals(id.epoch, Outcome::Applied, &numbers, now);
                }
            }
            if self.core.held.len() == before {
                return Ok(());
            }
        }
    }

    pub(crate) fn receive(&mut self, peer: NodeId, frame: Frame) -> Result<(), PowerLost> {
        let now = self.now();
        let Some(Process { outbound, talks, .. }) = &mut self.process else { return Ok(()) };
        let Some(talk) = talks.get_mut(&peer) else { return Ok(()) };
        match talk.session.frame(frame, outbound, now) {
            Ok(()) => Ok(()),
            Err(_) if self.disk.is_off() => Err(PowerLost),
            Err(e) => panic!("{}: {e}", self.name),
        }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now();
        if let Some(process) = &mut self.process {
            process.talks.values_mut().for_each(|talk| talk.session.tick(now));
        }
    }

    /// The next frame that the shaper and the session agree on, or when to ask again. Without `room` only what is
    /// urgent.
    pub(crate) fn send(&mut self, peer: NodeId, room: bool) -> Result<Result<Vec<u8>, Option<Duration>>, PowerLost> {
        let now = self.now();
        let Some(Process { outbound, talks, .. }) = &mut self.process else { return Ok(Err(None)) };
        let Some(talk) = talks.get_mut(&peer) else { return Ok(Err(None)) };
        let waiting = talk.session.waiting(outbound, now).map_err(|_| PowerLost)?;
        let mut demand = Demand { control: waiting.control, classes: waiting.classes };
        for class in Precedence::ALL {
            demand.classes[class.index()] &= room || passes_a_full_queue(class);
        }
        if demand == Demand::default() {
            return Ok(Err(None));
        }
        let Some(grant) = talk.shaper.grant(now.mono, &demand) else { return Ok(Err(talk.shaper.wake_at())) };
        let lane = match grant.lane {
            shaper::Lane::Control => Lane::Control,
            shaper::Lane::Class(class) => Lane::Class(class),
        };
        let frame = talk.session.next_frame(lane, grant.bytes, outbound, now).map_err(|_| PowerLost)?;
        // What waited may have turned out to be nothing to send: a file that is complete, a question answered.
        let Some(frame) = frame else { return Ok(Err(Some(now.mono + Duration::from_millis(1)))) };
        let bytes = frame.encode();
        talk.shaper.spent(grant.lane, bytes.len());
        Ok(Ok(bytes))
    }

    /// When something is due although nothing happened.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let process = self.process.as_ref()?;
        process.talks.values().filter_map(|talk| talk.session.poll_timeout()).chain(process.retry_at).min()
    }

    /// accepted = applied + held + quarantined + expired + superseded + withheld + purged, and accepted is what the
    /// core committed. Returns what is held for a peer.
    pub(crate) fn equation(&self, peer: NodeId) -> Option<u64> {
        let process = self.process.as_ref()?;
        let sums = process.journal.accounting(&consumer_name(peer)).ok()??.total;
        let ended = sums.applied + sums.quarantined + sums.expired + sums.superseded + sums.withheld + sums.purged;
        assert_eq!(sums.accepted, ended + sums.held, "{}: the equation does not hold", self.name);
        let at = process.journal.highest_source();
        let rows = self.core.outbox.iter().map(|n| &self.rows[*n as usize]);
        let captured = rows.filter(|r| at.is_some_and(|at| SourcePosition(r.at) <= at)).count();
        assert_eq!(sums.accepted, captured as u64 + sums.superseded, "{}: not what the core committed", self.name);
        Some(sums.held + (self.core.outbox.len() - captured) as u64)
    }

    pub(crate) fn is_settled(&self) -> bool {
        let Some(process) = &self.process else { return false };
        process.talks.values().all(|talk| talk.session.is_up())
            && self.core.held.is_empty()
            && self.core.incomplete.is_empty()
            && self.peers.iter().all(|peer| self.equation(*peer) == Some(0))
    }

    pub(crate) fn progress(&self) -> String {
        let held: Vec<Option<u64>> = self.peers.iter().map(|peer| self.equation(*peer)).collect();
        format!(
            "{}: backlog {held:?}, applied {}, waiting {}, files missing {}",
            self.name,
            self.core.applied.len(),
            self.core.held.len(),
            self.core.incomplete.len()
        )
    }
}

/// Entries that others wait for as causes, and the most urgent of those, through causes of causes.
fn wanted(held: &[(EntryId, Entry)]) -> BTreeMap<EntryId, Precedence> {
    let by_id: BTreeMap<EntryId, &Entry> = held.iter().map(|(id, entry)| (*id, entry)).collect();
    let mut wanted: BTreeMap<EntryId, Precedence> = BTreeMap::new();
    for (_, entry) in held {
        let mut todo = vec![(entry, entry.header.precedence)];
        while let Some((entry, urgency)) = todo.pop() {
            for cause in &entry.header.causes {
                let known = wanted.entry(*cause).or_insert(urgency);
                *known = urgency.min(*known);
                todo.extend(by_id.get(cause).map(|entry| (*entry, urgency)));
            }
        }
    }
    wanted
}

/// A file could not be cut into chunks.
struct NotCut(Refused);

impl From<io::Error> for NotCut {
    fn from(_: io::Error) -> Self {
        Self(Refused::PowerLost)
    }
}

fn tell_appended(journal: &Journal, talks: &mut BTreeMap<NodeId, Talk>) {
    let epochs = journal.epochs();
    for talk in talks.values_mut() {
        for own in &epochs {
            talk.session.own_epoch(own.epoch, own.last.map_or(0, |last| last.get()));
        }
        talk.session.appended();
    }
}

fn consumer_name(peer: NodeId) -> String {
    format!("peer:{}", peer.0[0])
}

fn stream(number: u8) -> StreamId {
    StreamId::Channel(Id::from_block([number; 16]))
}

fn file_event(row: &Row, me: NodeId, manifest: model::Manifest) -> Event {
    let id = ProcessMint::with_salt(me, 1).mint();
    let stub = FileStub {
        id,
        create_at: row.at.millis(),
        name: row.number.to_string(),
        extension: "bin".to_owned(),
        size: manifest.content_bytes,
        mime_type: String::new(),
        width: 0,
        height: 0,
    };
    let version = Version { at: row.at, by: me };
    Event::File(FileState { version, stub, user_id: id, channel_id: id, post_id: None, content: Some(manifest) })
}

/// The row of the peer that an entry was captured from.
fn row_of(entry: &Entry) -> u64 {
    match wire::decode_event(entry) {
        Ok(Event::File(state)) if entry.header.kind == Kind::File => state.stub.name.parse().expect("the row's number"),
        _ => u64::from_le_bytes(*entry.body.first_chunk().expect("a body begins with its row's number")),
    }
}

/// Rebuilds a file that is said to be complete. Returns its row.
fn check_file(entry: &Entry, journal: &Journal) -> u64 {
    let Ok(Event::File(FileState { content: Some(manifest), .. })) = wire::decode_event(entry) else {
        panic!("a file entry without a manifest")
    };
    let number = row_of(entry);
    let mut content = Vec::new();
    let write = |bytes: &[u8]| -> Result<(), journal::ReadError> {
        content.extend_from_slice(bytes);
        Ok(())
    };
    wire::chunk::read_manifest(&manifest, |name| journal.get_chunk(name), write)
        .expect("a complete file can be rebuilt");
    assert_eq!(content, file_content(number, content.len()), "another content");
    number
}
