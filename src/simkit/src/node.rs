//! A node: a pretend core with outbox and ledger, a real journal on a pretend disk, a real session and shaper.

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
use link::{EpochProgress, Lane, Now, Output, ReceiverState, SenderState, Session, SessionConfig, StartEpochReason};
use model::event::{FileState, FileStub};
use model::{
    BitsPerSecond, ByteSize, Clock, Entry, EntryId, Epoch, Event, Hlc, HybridClock, Id, IdMint, Kind, Label, LocalPos,
    NodeId, ObjectKey, Outcome, Precedence, RangeSet, SourcePosition, StreamId, UnixMillis, Version,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shaper::{Demand, Emission, Shaper};
use wire::frame::Frame;

use crate::{PretendDisk, VirtualClock};

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
#[derive(Debug, Default)]
struct Core {
    outbox: Vec<Row>,
    /// How the peer's numbers ended here.
    ledger: BTreeMap<Epoch, EpochProgress>,
    cursor: Option<LocalPos>,
    /// Received and waiting for causes.
    held: Vec<(EntryId, Entry)>,
    /// Rows of the peer in the order in which they took effect.
    applied: Vec<u64>,
    incomplete: BTreeMap<EntryId, Entry>,
    files: BTreeSet<u64>,
}

/// The part of a node that ends with its process.
struct Process {
    journal: Journal,
    outbound: OutboundView,
    consumer: Consumer,
    session: Session,
    shaper: Shaper,
}

pub(crate) struct SimNode {
    pub(crate) name: String,
    me: NodeId,
    peer: NodeId,
    clock: VirtualClock,
    hybrid: HybridClock,
    disk: PretendDisk,
    core: Core,
    rate: BitsPerSecond,
    at_rest: AtRest,
    boot: u64,
    process: Option<Process>,
    pub(crate) crashes: u32,
}

/// The power went while something was being made durable.
#[derive(Debug)]
pub(crate) struct PowerLost;

impl From<AppendError> for PowerLost {
    fn from(_: AppendError) -> Self {
        Self
    }
}

impl From<io::Error> for PowerLost {
    fn from(_: io::Error) -> Self {
        Self
    }
}

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
    pub(crate) fn new(name: &str, me: NodeId, peer: NodeId, clock: VirtualClock, sealed: bool) -> Self {
        let keys = DataKeys::new([(KeyNumber(1), DataKey::from_bytes([me.0[0]; 32]))]);
        let salts = Arc::new(CountedSalts::default());
        Self {
            name: name.to_owned(),
            me,
            peer,
            clock,
            hybrid: HybridClock::default(),
            disk: PretendDisk::default(),
            core: Core::default(),
            rate: BitsPerSecond(64_000),
            at_rest: if sealed { AtRest::Sealed { keys, salts } } else { AtRest::Plain },
            boot: 0,
            process: None,
            crashes: 0,
        }
    }

    pub(crate) fn set_rate(&mut self, rate: BitsPerSecond) {
        self.rate = rate;
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.core.outbox
    }

    pub(crate) fn applied(&self) -> &[u64] {
        &self.core.applied
    }

    pub(crate) fn files(&self) -> &BTreeSet<u64> {
        &self.core.files
    }

    /// Commits a change to the core: from here on it must not be lost.
    pub(crate) fn commit(&mut self, rng: &mut ChaCha8Rng) {
        let number = self.core.outbox.len() as u64;
        let class = Precedence::ALL[rng.random_range(0..5)];
        let file = rng.random_bool(0.05);
        let back = |rng: &mut ChaCha8Rng| rng.random_range(1..20u64);
        let causes: Vec<u64> = (0..rng.random_range(0..3)).filter_map(|_| number.checked_sub(back(rng))).collect();
        let is_file = |n: &u64| self.core.outbox[*n as usize].file_bytes.is_some();
        let now = self.clock.now();
        self.core.outbox.push(Row {
            number,
            at: self.hybrid.tick(now),
            stream: rng.random_range(0..3),
            class: if file { Precedence::Deferred } else { class },
            label: if rng.random_bool(0.1) { "secret" } else { "mission" },
            expiry: rng.random_bool(0.05).then(|| UnixMillis(now.0 + rng.random_range(0..600_000))),
            causes: causes.into_iter().filter(|n| !is_file(n)).collect(),
            body_bytes: if rng.random_bool(0.05) { rng.random_range(2_000..20_000) } else { rng.random_range(0..200) },
            file_bytes: file.then(|| rng.random_range(0..120_000)),
        });
    }

    pub(crate) fn start(&mut self) -> Result<(), PowerLost> {
        self.boot += 1;
        let options = JournalOptions {
            dir: PathBuf::from("/journal"),
            node: self.me,
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(self.clock.clone()),
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
            Err(_) if self.disk.is_off() => return Err(PowerLost),
            Err(e) => panic!("{}: the journal does not open: {e}", self.name),
        };
        let consumer = journal.consumer("peer:other", true)?;
        let local = journal.consumer("local", true)?;
        local.advance(self.core.cursor.unwrap_or(LocalPos::START));
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
        let mut received = self.core.ledger.clone();
        for (epoch, stored) in journal.received(self.peer) {
            received.entry(epoch).or_default().stored = stored;
        }
        let labels: BTreeSet<Label> = ["mission".parse().expect("a label")].into();
        let config = SessionConfig {
            me: self.me,
            name: self.name.clone(),
            boot: self.boot,
            peer: self.peer,
            labels,
            peer_chunk_secret: secret(self.peer),
            compression: 3,
        };
        let mut session = Session::new(config, sender, ReceiverState { progress: received });
        self.core.incomplete.values().for_each(|entry| session.want_file(entry));
        let shaper = Shaper::new(self.rate, 1_200, Emission::Normal, self.clock.elapsed());
        self.process = Some(Process { outbound: journal.outbound(), journal, consumer, session, shaper });
        Ok(())
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
        Now { mono: self.clock.elapsed(), wall: self.clock.now() }
    }

    pub(crate) fn connected(&mut self) {
        let now = self.now();
        if let Some(process) = &mut self.process {
            process.session.connected(now);
        }
    }

    pub(crate) fn disconnected(&mut self) {
        if let Some(process) = &mut self.process {
            process.session.disconnected();
        }
    }

    /// Rows of the outbox that the journal does not have yet become entries.
    pub(crate) fn capture(&mut self) -> Result<(), PowerLost> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let captured = process.journal.highest_source();
        let fresh: Vec<&Row> =
            self.core.outbox.iter().filter(|row| captured.is_none_or(|at| SourcePosition(row.at) > at)).collect();
        let (mut follows, mut tickets) = (captured, Vec::new());
        for row in fresh {
            let (mut body, mut since) = (row.number.to_le_bytes().to_vec(), None);
            let kind = if row.file_bytes.is_some() { Kind::File } else { Kind::Post };
            if let Some(bytes) = row.file_bytes {
                let file = process.journal.begin_file();
                let namer = wire::chunk::Namer::new(&secret(self.me), &row.label.parse().expect("a label"));
                let content = file_content(row.number, bytes);
                let put = |name, chunk: &[u8]| {
                    process.journal.put_chunk(name, chunk).wait()?;
                    Ok(())
                };
                let manifest = wire::chunk::build_manifest::<PowerLost>(content.as_slice(), &namer, put)?;
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
        if !tickets.is_empty() {
            for (ticket, _file) in tickets {
                ticket.wait()?;
            }
            process.session.appended();
        }
        Ok(())
    }

    /// Carries out what the session wants.
    pub(crate) fn perform(&mut self) -> Result<(), PowerLost> {
        let now = self.now();
        let Some(process) = &mut self.process else { return Ok(()) };
        let mut tickets = Vec::new();
        loop {
            while let Some(output) = process.session.poll() {
                match output {
                    Output::Store(incoming) => {
                        let foreign = Foreign { bytes: incoming.bytes, object: None };
                        tickets.push((incoming.entry.header.id, process.journal.append_foreign(foreign)));
                    }
                    Output::StoreChunk { name, bytes, file: _ } => {
                        process.journal.put_chunk(name, &bytes).wait()?;
                        process.session.chunks_stored(&[name]);
                    }
                    Output::RetainChunk(name) => {
                        process.journal.retain_chunk(name).wait()?;
                    }
                    Output::RecordStored { epoch, ranges } => process.consumer.record_stored(epoch, &ranges),
                    Output::RecordOutcome { epoch, outcome, ranges } => {
                        process.consumer.record_outcome(outcome, epoch, &ranges);
                    }
                    Output::AccountSkipped { epoch, outcome, ranges } => {
                        let ledger = self.core.ledger.entry(epoch).or_default();
                        ledger.outcomes.entry(outcome).or_default().union_with(&ranges);
                        process.session.finals(epoch, outcome, &ranges, now);
                    }
                    Output::StartEpoch { reason, at_least, reissue } => {
                        let reason = match reason {
                            StartEpochReason::PeerIsAhead => EpochReason::PeerIsAhead,
                            StartEpochReason::Conflict => EpochReason::Conflict,
                        };
                        while process.journal.epochs().last().is_none_or(|open| open.epoch < at_least) {
                            process.journal.start_epoch(reason).wait()?;
                        }
                        process.journal.reissue(reissue).wait()?;
                        if let Some(open) = process.journal.epochs().last() {
                            process.session.own_epoch(open.epoch, open.last.map_or(0, |s| s.get()));
                        }
                        process.session.appended();
                    }
                    Output::FileComplete(id) => {
                        if let Some(entry) = self.core.incomplete.remove(&id) {
                            let number = check_file(&entry, &process.journal);
                            self.core.files.insert(number);
                        }
                    }
                    Output::FileUnavailable(id) => panic!("{}: file {id} became unavailable", self.name),
                    Output::Restore(incoming) => {
                        let returned = Foreign { bytes: incoming.bytes, object: None };
                        if process.journal.restore(returned).wait()? {
                            process.session.appended();
                        }
                    }
                    Output::NotReturned { epoch, ranges } => {
                        process.journal.not_returned(process.consumer.name(), epoch, &ranges);
                    }
                    Output::Close { .. } | Output::PeerGreeted { .. } | Output::OfferFiles | Output::Event(_) => {}
                }
            }
            if tickets.is_empty() {
                return Ok(());
            }
            for (id, ticket) in tickets.drain(..) {
                match ticket.wait()? {
                    ForeignOutcome::Stored(_) | ForeignOutcome::AlreadyHeld => {
                        process.session.entries_stored(&[id], now)
                    }
                    ForeignOutcome::Conflict { .. } => process.session.entry_conflicts(id),
                }
            }
        }
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
                    process.session.want_file(&received.entry);
                }
                self.core.held.push((id, received.entry));
            }
        }
        loop {
            let before = self.core.held.len();
            let mut behind = BTreeSet::new();
            for (id, entry) in std::mem::take(&mut self.core.held) {
                let h = &entry.header;
                let ended = |id: &EntryId| {
                    let ledger = self.core.ledger.get(&id.epoch);
                    ledger.is_some_and(|l| l.outcomes.values().any(|set| set.contains(id.seq.get())))
                };
                // What must wait holds back what stands behind it in its stream and class.
                if behind.contains(&(h.stream, h.precedence)) || !h.causes.iter().all(ended) {
                    behind.insert((h.stream, h.precedence));
                    self.core.held.push((id, entry));
                    continue;
                }
                let numbers = RangeSet::from(id.seq.get()..=id.seq.get());
                self.core.applied.push(row_of(&entry));
                let ledger = self.core.ledger.entry(id.epoch).or_default();
                ledger.outcomes.entry(Outcome::Applied).or_default().union_with(&numbers);
                process.session.finals(id.epoch, Outcome::Applied, &numbers, now);
            }
            if self.core.held.len() == before {
                return Ok(());
            }
        }
    }

    pub(crate) fn receive(&mut self, frame: Frame) -> Result<(), PowerLost> {
        let now = self.now();
        let Some(process) = &mut self.process else { return Ok(()) };
        match process.session.frame(frame, &process.outbound, now) {
            Ok(()) => Ok(()),
            Err(_) if self.disk.is_off() => Err(PowerLost),
            Err(e) => panic!("{}: {e}", self.name),
        }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now();
        if let Some(process) = &mut self.process {
            process.session.tick(now);
        }
    }

    /// The next frame that the shaper and the session agree on, or when to ask again.
    pub(crate) fn send(&mut self) -> Result<Result<Vec<u8>, Option<Duration>>, PowerLost> {
        let now = self.now();
        let Some(process) = &mut self.process else { return Ok(Err(None)) };
        let waiting = process.session.waiting(&process.outbound, now).map_err(|_| PowerLost)?;
        if waiting.is_empty() {
            return Ok(Err(None));
        }
        let demand = Demand { control: waiting.control, classes: waiting.classes };
        let Some(grant) = process.shaper.grant(now.mono, &demand) else { return Ok(Err(process.shaper.wake_at())) };
        let lane = match grant.lane {
            shaper::Lane::Control => Lane::Control,
            shaper::Lane::Class(class) => Lane::Class(class),
        };
        let frame = process.session.next_frame(lane, grant.bytes, &process.outbound, now).map_err(|_| PowerLost)?;
        // What waited may have turned out to be nothing to send: a file that is complete, a question answered.
        let Some(frame) = frame else { return Ok(Err(Some(now.mono + Duration::from_millis(1)))) };
        let mut bytes = Vec::new();
        frame.write_to(&mut bytes);
        process.shaper.spent(grant.lane, bytes.len());
        Ok(Ok(bytes))
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.process.as_ref()?.session.poll_timeout()
    }

    /// accepted = applied + held + quarantined + expired + superseded + withheld + purged, and accepted is what the
    /// core committed.
    pub(crate) fn equation(&self) -> Option<u64> {
        let process = self.process.as_ref()?;
        let sums = process.journal.accounting("peer:other").ok()??.total;
        let ended = sums.applied + sums.quarantined + sums.expired + sums.superseded + sums.withheld + sums.purged;
        assert_eq!(sums.accepted, ended + sums.held, "{}: the equation does not hold", self.name);
        let at = process.journal.highest_source();
        let captured = self.core.outbox.iter().filter(|r| at.is_some_and(|at| SourcePosition(r.at) <= at)).count();
        assert_eq!(sums.accepted, captured as u64 + sums.superseded, "{}: not what the core committed", self.name);
        Some(sums.held + (self.core.outbox.len() - captured) as u64)
    }

    pub(crate) fn is_settled(&self) -> bool {
        let up = self.process.as_ref().is_some_and(|p| p.session.is_up());
        up && self.core.held.is_empty() && self.core.incomplete.is_empty() && self.equation() == Some(0)
    }

    pub(crate) fn progress(&self) -> String {
        let held = self.equation();
        format!(
            "{}: backlog {held:?}, applied {}, waiting {}, files missing {}",
            self.name,
            self.core.applied.len(),
            self.core.held.len(),
            self.core.incomplete.len()
        )
    }
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
