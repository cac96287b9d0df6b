//! Two sessions over a bad link, with journals in memory.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use link::{
    EpochProgress, Incoming, Lane, LinkEvent, Now, Output, ReceiverState, SenderState, Session, SessionConfig, Settled,
    StartEpochReason,
};
use model::event::{FileState, FileStub};
use model::{
    ChunkName, Entry, EntryHash, EntryId, Epoch, Event, Header, Hlc, Id, Kind, Label, LocalPos, Manifest, NodeId,
    Outbound, OutboundError, Outcome, Outgoing, Precedence, RangeSet, Scan, Seq, SourcePosition, StreamId,
    SupersessionKey, UnixMillis, Version,
};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::frame::{ByeCode, Custody, CustodyRefusal};
use wire::{Frame, FrameBuffer};

const ALPHA: NodeId = NodeId([1; 16]);
const BRAVO: NodeId = NodeId([2; 16]);
const WALL: UnixMillis = UnixMillis(1_700_000_000_000);

/// An opened parcel: the start of its origin that wrote it, and what it holds.
type Carried = (u64, Vec<Frame>);

/// What a node keeps across restarts.
#[derive(Clone, Default)]
struct Disk {
    own: Vec<Outgoing>,
    epochs: BTreeMap<Epoch, u64>,
    foreign: BTreeMap<EntryId, EntryHash>,
    chunks: BTreeMap<ChunkName, Arc<[u8]>>,
    /// Chunks that are held as the difference to another.
    bases: BTreeMap<ChunkName, ChunkName>,
    /// Of own entries, at the peer.
    sent: BTreeMap<Epoch, EpochProgress>,
    /// Of the peer's entries, here.
    received: BTreeMap<Epoch, EpochProgress>,
    /// The order in which the peer's entries came.
    arrived: Vec<Arc<Entry>>,
    /// The peer's entries as they are held.
    held: BTreeMap<EntryId, Outgoing>,
    incomplete: BTreeMap<EntryId, Arc<Entry>>,
}

impl Outbound for Disk {
    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError> {
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, from);
        for o in self.own.iter().filter(|o| o.pos >= from) {
            if o.entry.header.precedence == class {
                if !entries.is_empty() && bytes + o.bytes.len() > bytes_max {
                    return Ok(Scan { entries, next });
                }
                bytes += o.bytes.len();
                entries.push(o.clone());
            }
            next = o.pos.next();
        }
        Ok(Scan { entries, next })
    }

    fn entry(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.own.iter().find(|o| o.entry.header.id == id).cloned())
    }

    fn received(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.held.get(&id).cloned())
    }

    fn superseded(&self, entry: &Outgoing) -> bool {
        let key = entry.entry.header.supersedes;
        self.own.iter().any(|o| o.pos > entry.pos && o.entry.header.supersedes == key)
    }

    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        Ok(self.chunks.get(name).cloned())
    }

    fn chunk_base(&self, name: &ChunkName) -> Result<Option<ChunkName>, OutboundError> {
        Ok(self.bases.get(name).copied())
    }

    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError> {
        Ok(self.chunks.contains_key(name))
    }

    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        Ok(self.own.iter().find(|o| o.entry.header.id == id).map(|o| o.hash).or(self.foreign.get(&id).copied()))
    }
}

/// What to capture.
#[derive(Clone)]
struct Draft {
    class: Precedence,
    label: &'static str,
    expired: bool,
    key: Option<u64>,
    /// How many entries back a cause stands.
    causes: Vec<usize>,
    body: Vec<u8>,
    kind: Kind,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { class, label, expired, key, causes, body, .. } = self;
        write!(f, "{class} {label} expired={expired} {key:?} causes={causes:?} {} B", body.len())
    }
}

fn draft(class: Precedence, bytes: usize) -> Draft {
    let body = (0..bytes).map(|i| (i * 7 % 31) as u8).collect();
    Draft { class, label: "mission", expired: false, key: None, causes: Vec::new(), body, kind: Kind::Post }
}

struct Node {
    me: NodeId,
    peer: NodeId,
    boot: u64,
    disk: Disk,
    session: Session,
    /// Entries that the shell has not made durable yet.
    storing: Vec<Incoming>,
    /// Its disk has no room for chunks, and what waits for some.
    is_full: bool,
    unstored: Vec<(ChunkName, Vec<u8>)>,
    events: Vec<LinkEvent>,
    closed: Option<(ByeCode, String)>,
    epochs_started: Vec<(StartEpochReason, Vec<EntryId>)>,
    not_returned: Vec<(Epoch, RangeSet)>,
    /// The histories that its batches referred to.
    referred: Vec<Option<u8>>,
    /// Parcels that the peer handed over, and what became of its own.
    parcels: Vec<Vec<u8>>,
    kept: Vec<(u64, Custody)>,
    /// Bytes of parcels that it sent.
    carried_bytes: usize,
    /// Parts of entries that it sent.
    fragments: usize,
}

fn secret(node: NodeId) -> [u8; 32] {
    [node.0[0]; 32]
}

fn session(me: NodeId, peer: NodeId, boot: u64, disk: &Disk) -> Session {
    let labels: BTreeSet<Label> = ["mission", "directory"].map(|l| l.parse().unwrap()).into();
    let config =
        SessionConfig { me, name: "n".into(), boot, peer, labels, peer_chunk_secret: secret(peer), compression: 3 };
    let sender = SenderState { epochs: disk.epochs.clone(), progress: disk.sent.clone(), scan_from: LocalPos::START };
    let mut session = Session::new(config, sender, ReceiverState { progress: disk.received.clone() });
    session.jumped([]);
    session
}

impl Node {
    fn new(me: NodeId, peer: NodeId) -> Self {
        let mut disk = Disk::default();
        disk.epochs.insert(Epoch::FIRST, 0);
        Self {
            me,
            peer,
            boot: 1,
            session: session(me, peer, 1, &disk),
            disk,
            storing: Vec::new(),
            is_full: false,
            unstored: Vec::new(),
            events: Vec::new(),
            closed: None,
            epochs_started: Vec::new(),
            not_returned: Vec::new(),
            referred: Vec::new(),
            parcels: Vec::new(),
            kept: Vec::new(),
            carried_bytes: 0,
            fragments: 0,
        }
    }

    /// The process ends and starts again: only the disk remains.
    fn restart(&mut self) {
        self.boot += 1;
        let (sent, came) = (self.session.in_parcels().clone(), self.session.came_in_parcels().clone());
        self.session = session(self.me, self.peer, self.boot, &self.disk);
        self.session.restore_parcels(sent, came);
        self.storing.clear();
        for entry in self.disk.incomplete.values() {
            self.session.want_file(entry);
        }
    }

    fn capture(&mut self, draft: Draft) -> EntryId {
        let (epoch, last) = self.disk.epochs.last_key_value().map(|(e, n)| (*e, *n)).unwrap();
        let n = last + 1;
        self.disk.epochs.insert(epoch, n);
        let at = self.disk.own.len();
        let causes = draft.causes.iter().filter_map(|back| at.checked_sub(back + 1));
        let causes = causes.map(|i| &self.disk.own[i].entry.header).filter(|h| h.kind != Kind::File).map(|h| h.id);
        let captured = Hlc((WALL.0 as u64 + at as u64) << 16);
        let header = Header {
            id: EntryId { origin: self.me, epoch, seq: Seq::new(n).unwrap() },
            source: SourcePosition(captured),
            stream: StreamId::Channel(Id::from_block([9; 16])),
            causes: causes.collect(),
            after: None,
            precedence: draft.class,
            captured,
            origin_time: captured.millis(),
            expiry: draft.expired.then_some(UnixMillis(WALL.0 - 1)),
            supersedes: draft.key.map(SupersessionKey),
            label: draft.label.parse().unwrap(),
            kind: draft.kind,
            mint_salt: 5,
        };
        let id = header.id;
        self.append(Entry { header, body: draft.body });
        id
    }

    fn append(&mut self, entry: Entry) {
        let bytes = wire::encode_entry(&entry);
        let hash = wire::entry_hash(&bytes).unwrap();
        let pos = LocalPos(self.disk.own.len() as u64 + 1);
        self.disk.own.push(Outgoing { pos, entry: Arc::new(entry), bytes: bytes.into(), hash });
        self.session.appended();
    }

    fn capture_file(&mut self, content: &[u8]) -> EntryId {
        let namer = wire::chunk::Namer::new(&secret(self.me), &"mission".parse().unwrap());
        let manifest: Manifest = wire::chunk::build_manifest::<std::io::Error>(content, &namer, |name, bytes| {
            self.disk.chunks.insert(name, bytes.into());
            Ok(())
        })
        .unwrap();
        let id = Id::from_block([4; 16]);
        let stub = FileStub {
            id,
            name: "map.bin".into(),
            extension: "bin".into(),
            size: content.len() as u64,
            mime_type: String::new(),
            width: 0,
            height: 0,
            create_at: WALL,
        };
        let state = FileState {
            version: Version { at: Hlc(1), by: self.me },
            stub,
            user_id: id,
            channel_id: id,
            post_id: None,
            content: Some(manifest),
        };
        let body = wire::encode_event(&Event::File(state), self.me, 5);
        self.capture(Draft { kind: Kind::File, body, ..draft(Precedence::Deferred, 0) })
    }

    /// Carries out what the session wants; entries become durable when `durable` says so.
    fn work(&mut self, now: Now, durable: bool) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Store(incoming) => {
                    let id = incoming.entry.header.id;
                    assert!(!self.disk.foreign.contains_key(&id), "{id} was stored twice");
                    assert!(!self.storing.iter().any(|s| s.entry.header.id == id), "{id} is being stored twice");
                    self.storing.push(incoming);
                }
                Output::StoreChunk { name, bytes, .. } if self.is_full => self.unstored.push((name, bytes)),
                Output::StoreChunk { name, bytes, base, file: _ } => {
                    self.disk.chunks.insert(name, bytes.into());
                    self.disk.bases.extend(base.map(|base| (name, base)));
                    self.session.chunks_stored(&[name]);
                }
                Output::RetainChunk(name) => assert!(self.disk.chunks.contains_key(&name)),
                Output::RecordStored { epoch, ranges } => {
                    self.disk.sent.entry(epoch).or_default().stored.union_with(&ranges);
                }
                Output::RecordOutcome { epoch, outcome, ranges } => {
                    let progress = self.disk.sent.entry(epoch).or_default();
                    for set in progress.outcomes.values() {
                        assert!(set.intersection(&ranges).is_empty(), "an entry ended twice");
                    }
                    progress.outcomes.entry(outcome).or_default().union_with(&ranges);
                }
                Output::AccountSkipped { epoch, outcome, ranges } => {
                    let progress = self.disk.received.entry(epoch).or_default();
                    assert!(progress.stored.intersection(&ranges).is_empty(), "a skip for what was received");
                    progress.outcomes.entry(outcome).or_default().union_with(&ranges);
                    self.session.finals(epoch, outcome, &ranges, now);
                }
                Output::StartEpoch { reason, at_least, reissue } => {
                    let (open, last) = self.disk.epochs.last_key_value().map(|(e, n)| (*e, *n)).unwrap();
                    let (epoch, mut n) = if open >= at_least { (open, last) } else { (at_least, 0) };
                    for id in &reissue {
                        let old = self.disk.entry(*id).unwrap().unwrap();
                        n += 1;
                        let mut entry = (*old.entry).clone();
                        entry.header.id = EntryId { origin: self.me, epoch, seq: Seq::new(n).unwrap() };
                        self.append(entry);
                    }
                    self.disk.epochs.insert(epoch, n);
                    self.epochs_started.push((reason, reissue));
                    self.session.own_epoch(epoch, n);
                    self.session.appended();
                }
                Output::FileComplete(id) => drop(self.disk.incomplete.remove(&id)),
                Output::FileUnavailable(id) => panic!("{id} became unavailable"),
                Output::Close { code, text } => self.closed = Some((code, text)),
                Output::Restore(Incoming { entry, bytes, hash }) => {
                    let pos = LocalPos(self.disk.own.len() as u64 + 1_000);
                    self.disk.own.push(Outgoing { pos, entry, bytes, hash });
                    self.session.appended();
                }
                Output::NotReturned { epoch, ranges } => self.not_returned.push((epoch, ranges)),
                Output::Event(event) => self.events.push(event),
                Output::PeerGreeted { .. } | Output::OfferFiles => {}
                Output::TakeParcel { name, bytes } => {
                    self.parcels.push(bytes);
                    self.session.parcel_answered(name, Custody::Taken);
                }
                Output::ParcelKept { name, custody } => self.kept.push((name, custody)),
            }
        }
        if durable {
            let stored: Vec<Incoming> = self.storing.drain(..).collect();
            for incoming in stored {
                let id = incoming.entry.header.id;
                self.disk.foreign.insert(id, incoming.hash);
                let (entry, bytes, hash) = (Arc::clone(&incoming.entry), Arc::clone(&incoming.bytes), incoming.hash);
                self.disk.held.insert(id, Outgoing { pos: LocalPos(1), entry, bytes, hash });
                self.disk.received.entry(id.epoch).or_default().stored.insert(id.seq.get());
                if incoming.entry.header.kind == Kind::File {
                    self.disk.incomplete.insert(id, Arc::clone(&incoming.entry));
                }
                self.disk.arrived.push(incoming.entry);
                self.session.entries_stored(&[id], now);
            }
        }
    }

    /// Received entries are damaged before they are applied.
    fn lose_received(&mut self, numbers: &RangeSet) {
        let lost = |id: &EntryId| numbers.contains(id.seq.get());
        self.disk.foreign.retain(|id, _| !lost(id));
        self.disk.held.retain(|id, _| !lost(id));
        self.disk.arrived.retain(|e| !lost(&e.header.id));
        let progress = self.disk.received.get_mut(&Epoch::FIRST).unwrap();
        progress.stored = progress.stored.difference(numbers);
        self.session.forget(Epoch::FIRST, numbers);
    }

    /// Own entries are damaged.
    fn lose_own(&mut self, numbers: &RangeSet) {
        self.disk.own.retain(|o| !numbers.contains(o.entry.header.id.seq.get()));
    }

    /// The local apply ends everything that is stored.
    fn apply(&mut self, now: Now) {
        for (epoch, progress) in &mut self.disk.received {
            let mut ended = RangeSet::new();
            progress.outcomes.values().for_each(|set| ended.union_with(set));
            let new = progress.stored.difference(&ended);
            if !new.is_empty() {
                progress.outcomes.entry(Outcome::Applied).or_default().union_with(&new);
                self.session.finals(*epoch, Outcome::Applied, &new, now);
            }
        }
    }

    /// The next frame as a shaper would have it: control, then the most urgent class.
    fn send(&mut self, bytes: usize, now: Now) -> Option<Frame> {
        let waiting = self.session.waiting(&self.disk, now).unwrap();
        let lane = if waiting.control {
            Lane::Control
        } else {
            Lane::Class(*Precedence::ALL.iter().find(|c| waiting.classes[c.index()])?)
        };
        let frame = self.session.next_frame(lane, bytes, &self.disk, now).unwrap();
        if let Some(frame) = &frame {
            assert!(frame.encode().len() <= bytes, "a {} frame of {} in {bytes}", frame.kind(), frame.encode().len());
        }
        if let Some(Frame::Batch(batch)) = &frame {
            self.referred.push(batch.history());
        }
        if let Some(Frame::Carried(carried)) = &frame {
            self.carried_bytes += carried.part.bytes.len();
        }
        self.fragments += usize::from(matches!(frame, Some(Frame::Fragment(_))));
        frame
    }

    /// Everything that the peer has not receipted, and the receipts for it, as parcels.
    fn parcels(&mut self, body: usize, now: Now) -> Vec<Carried> {
        let state = SenderState {
            epochs: self.disk.epochs.clone(),
            progress: self.disk.sent.clone(),
            scan_from: LocalPos::START,
        };
        let mut planner = self.session.planner(state, Settled::default(), 3);
        let mut first = self.session.receipts();
        let mut parcels = Vec::new();
        while let Some(planned) =
            planner.next(body, Precedence::Deferred, std::mem::take(&mut first), &self.disk, now).unwrap()
        {
            self.session.note_in_parcel(&planned.numbers);
            parcels.push((self.boot, planned.frames));
        }
        for (epoch, outcome, ranges) in planner.take_skipped() {
            let progress = self.disk.sent.entry(epoch).or_default();
            progress.outcomes.entry(outcome).or_default().union_with(&ranges);
            self.session.skipped(epoch, outcome, &ranges);
        }
        parcels
    }

    fn open(&mut self, parcels: impl IntoIterator<Item = Carried>, now: Now) {
        for (boot, frames) in parcels {
            self.session.parcel(boot, frames, &self.disk, now).unwrap();
            self.work(now, true);
            self.session.settle_files(&self.disk).unwrap();
            self.work(now, true);
        }
    }

    fn take(&mut self, frame: Frame, now: Now) {
        self.session.frame(frame, &self.disk, now).unwrap();
    }
}

/// A link between two nodes that is up or down, cuts frames anywhere, and may repeat and shuffle them.
struct World {
    nodes: [Node; 2],
    now: Duration,
    rng: ChaCha8Rng,
    shuffle: bool,
    streams: [VecDeque<u8>; 2],
    buffers: [FrameBuffer; 2],
    loose: [Vec<Frame>; 2],
    up: bool,
    /// Stored entries are applied.
    applies: bool,
}

impl World {
    fn new(seed: u64, shuffle: bool) -> Self {
        Self {
            nodes: [Node::new(ALPHA, BRAVO), Node::new(BRAVO, ALPHA)],
            now: Duration::from_secs(1),
            rng: ChaCha8Rng::seed_from_u64(seed),
            shuffle,
            streams: Default::default(),
            buffers: Default::default(),
            loose: Default::default(),
            up: false,
            applies: true,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: WALL }
    }

    fn connect(&mut self) {
        self.disconnect();
        self.up = true;
        let now = self.now();
        self.nodes.iter_mut().for_each(|n| n.session.connected(now));
    }

    fn disconnect(&mut self) {
        self.up = false;
        self.streams = Default::default();
        self.buffers = Default::default();
        self.loose = Default::default();
        self.nodes.iter_mut().for_each(|n| n.session.disconnected());
    }

    /// 100 ms: each side sends a few frames, a part of what is under way arrives.
    fn step(&mut self, grant: usize) {
        self.now += Duration::from_millis(100);
        let now = self.now();
        for i in [0, 1] {
            self.nodes[i].session.tick(now);
            for _ in 0..self.rng.random_range(0..4) {
                let Some(frame) = self.nodes[i].send(grant, now) else { break };
                if self.shuffle {
                    if self.rng.random_bool(0.2) {
                        self.loose[1 - i].push(frame.clone());
                    }
                    self.loose[1 - i].push(frame);
                } else {
                    let mut bytes = Vec::new();
                    frame.write_to(&mut bytes);
                    self.streams[1 - i].extend(bytes);
                }
            }
            let durable = self.rng.random_bool(0.5);
            self.nodes[i].work(now, durable);
        }
        for i in [0, 1] {
            let n = self.rng.random_range(0..6_000).min(self.streams[i].len());
            let bytes: Vec<u8> = self.streams[i].drain(..n).collect();
            self.buffers[i].push(&bytes);
            while let Some(frame) = self.buffers[i].next_frame().unwrap() {
                self.nodes[i].take(frame, now);
            }
            for _ in 0..self.loose[i].len().min(4) {
                let at = self.rng.random_range(0..self.loose[i].len());
                let frame = self.loose[i].swap_remove(at);
                self.nodes[i].take(frame, now);
            }
            let durable = self.rng.random_bool(0.5);
            self.nodes[i].work(now, durable);
            if self.rng.random_bool(0.2) && self.applies {
                self.nodes[i].apply(now);
            }
            self.equation(i);
        }
    }

    fn settle(&mut self) {
        self.connect();
        self.settle_without_connecting();
    }

    fn settle_without_connecting(&mut self) {
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < 20_000, "no rest: {:?}", self.nodes.each_ref().map(|n| &n.disk.sent));
            self.step(1_200);
            let now = self.now();
            let applies = self.applies;
            for node in &mut self.nodes {
                node.work(now, true);
                if applies {
                    node.apply(now);
                }
            }
            let idle = self.streams.iter().all(VecDeque::is_empty)
                && self.loose.iter().all(Vec::is_empty)
                && self
                    .nodes
                    .iter_mut()
                    .all(|n| n.session.is_up() && n.session.waiting(&n.disk, now).unwrap().is_empty());
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet > 10 {
                let awaits = self.nodes.each_ref().map(|n| n.session.awaits_answer());
                assert_eq!(awaits, [false; 2], "a link at rest may be silent");
                return;
            }
        }
    }

    /// accepted = applied + held + expired + superseded + withheld, at every moment.
    fn equation(&self, i: usize) {
        let disk = &self.nodes[i].disk;
        for (epoch, last) in &disk.epochs {
            let Some(progress) = disk.sent.get(epoch) else { continue };
            let ended: u64 = progress.outcomes.values().map(RangeSet::count).sum();
            let mut all = RangeSet::new();
            progress.outcomes.values().for_each(|set| all.union_with(set));
            assert_eq!(all.count(), ended, "an entry ended in two ways");
            assert!(all.last().unwrap_or(0) <= *last, "an entry ended that was never captured");
        }
    }

    /// Everything that `i` captured has ended at the other side, in one way, and arrived if it was to arrive.
    fn check_arrival(&self, i: usize) {
        let (from, to) = (&self.nodes[i].disk, &self.nodes[1 - i].disk);
        let arrived: BTreeSet<EntryId> = to.arrived.iter().map(|e| e.header.id).collect();
        assert_eq!(arrived.len(), to.arrived.len(), "arrived twice");
        for o in &from.own {
            let h = &o.entry.header;
            let progress = &from.sent[&h.id.epoch];
            let n = h.id.seq.get();
            let ends: Vec<Outcome> =
                progress.outcomes.iter().filter(|(_, set)| set.contains(n)).map(|(o, _)| *o).collect();
            let [end] = ends[..] else { panic!("{} ended as {ends:?}", h.id) };
            match end {
                Outcome::Applied => assert!(arrived.contains(&h.id)),
                Outcome::Withheld => assert_ne!(h.label.as_str(), "mission"),
                Outcome::Expired => assert!(h.expiry.is_some()),
                Outcome::Superseded => assert!(h.supersedes.is_some() || !self.nodes[i].epochs_started.is_empty()),
                Outcome::Quarantined | Outcome::Purged => panic!("{} ended as {end:?}", h.id),
            }
        }
        assert!(to.incomplete.is_empty(), "files are incomplete");
    }

    /// Without shuffling, every entry arrives after its causes.
    fn check_causes(&self, i: usize) {
        let to = &self.nodes[1 - i].disk;
        let mut seen = BTreeSet::new();
        for entry in &to.arrived {
            for cause in &entry.header.causes {
                let withheld = to.received[&cause.epoch]
                    .outcomes
                    .iter()
                    .any(|(o, set)| *o != Outcome::Applied && set.contains(cause.seq.get()));
                assert!(seen.contains(cause) || withheld, "{} arrived before {cause}", entry.header.id);
            }
            seen.insert(entry.header.id);
        }
    }
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let size = prop_oneof![8 => 0usize..200, 2 => 200usize..3_000, 1 => 3_000usize..40_000];
    let label = prop_oneof![8 => Just("mission"), 1 => Just("local"), 1 => Just("secret")];
    let causes = prop::collection::vec(0usize..6, 0..3);
    let class = prop::sample::select(Precedence::ALL.to_vec());
    let key = prop_oneof![4 => Just(None), 1 => (0u64..3).prop_map(Some)];
    (class, size, label, prop::bool::weighted(0.1), key, causes).prop_map(
        |(class, size, label, expired, key, causes)| Draft { label, expired, key, causes, ..draft(class, size) },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn everything_releasable_arrives_once_however_bad_the_link(
        seed: u64,
        shuffle: bool,
        drafts in prop::collection::vec((any::<bool>(), any_draft(), 0usize..6), 0..60),
        grant in 120usize..1_500,
    ) {
        let mut world = World::new(seed, shuffle);
        for (left, draft, steps) in drafts {
            world.nodes[usize::from(left)].capture(draft);
            for _ in 0..steps {
                match world.rng.random_range(0..40) {
                    0 => world.disconnect(),
                    1..4 => world.connect(),
                    4 => {
                        world.disconnect();
                        let i = world.rng.random_range(0..2);
                        world.nodes[i].restart();
                    }
                    5 => {
                        let mut content = vec![0; world.rng.random_range(0..60_000)];
                        world.rng.fill_bytes(&mut content);
                        world.nodes[0].capture_file(&content);
                    }
                    _ => world.step(grant),
                }
            }
        }
        world.settle();
        for i in [0, 1] {
            world.check_arrival(i);
            if !shuffle {
                world.check_causes(i);
            }
        }
    }
}

#[test]
fn parcels_cross_over_connections_that_break_and_share_their_class_with_what_is_captured() {
    let mut world = World::new(5, false);
    let (bulk, flash) = (noise(300_000), noise(2_000));
    let bulk_name = world.nodes[0].session.hand_over(Precedence::Deferred, bulk.clone());
    assert_eq!(bulk_name, wire::parcel::name_of(&bulk));
    assert_eq!(world.nodes[0].session.hand_over(Precedence::Deferred, bulk.clone()), bulk_name, "twice is once");
    let entry = world.nodes[0].capture(draft(Precedence::Deferred, 1_500));
    let flash_name = wire::parcel::name_of(&flash);
    for round in 0..100 {
        world.connect();
        for _ in 0..60 {
            world.step(1_000);
        }
        if round == 0 {
            assert!(world.nodes[1].parcels.is_empty(), "the bulk is not through");
            assert!(world.nodes[1].disk.arrived.iter().any(|e| e.header.id == entry), "an entry is not behind it");
            world.nodes[0].session.hand_over(Precedence::Flash, flash.clone());
        }
        if world.nodes[0].kept.len() == 2 {
            break;
        }
    }
    assert!(world.nodes[1].parcels == [flash, bulk], "each came once, the urgent one first");
    assert_eq!(world.nodes[0].kept, [(flash_name, Custody::Taken), (bulk_name, Custody::Taken)]);
    assert_eq!(world.nodes[0].session.handing_over(), [0; 5]);
    // What was on its way when a connection broke is sent again, and not more: some kilobytes each time.
    assert!(world.nodes[0].carried_bytes < 2 * 302_000, "{} bytes sent", world.nodes[0].carried_bytes);
    world.settle();
    world.check_arrival(0);
}

#[test]
fn more_parcels_at_once_than_are_kept_are_refused_for_now_and_none_is_forgotten() {
    let mut world = World::new(6, false);
    world.connect();
    for _ in 0..20 {
        world.step(1_200);
    }
    let parcels: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 3_000]).collect();
    let now = world.now();
    let mut frames = Vec::new();
    for parcel in &parcels {
        world.nodes[0].session.hand_over(Precedence::Routine, parcel.clone());
    }
    while let Some(frame) = world.nodes[0].send(1_200, now) {
        frames.push(frame);
    }
    // The first part of each comes before any second one.
    let offset = |frame: &Frame| if let Frame::Carried(carried) = frame { carried.part.offset } else { 0 };
    frames.sort_by_key(offset);
    for frame in frames {
        world.nodes[1].take(frame, now);
        world.nodes[1].work(now, true);
    }
    for _ in 0..400 {
        world.step(1_200);
    }
    let kept = world.nodes[0].kept.clone();
    let busy = kept.iter().filter(|(_, custody)| *custody == Custody::Refused(CustodyRefusal::Busy)).count();
    let taken = kept.iter().filter(|(_, custody)| *custody == Custody::Taken).count();
    assert_eq!((busy + taken, world.nodes[1].parcels.len()), (40, taken), "every one is answered for");
    assert!(busy > 0 && taken > 0, "{busy} refused, {taken} taken");
}

#[test]
fn a_parcel_that_arrives_as_another_is_refused() {
    let mut world = World::new(7, false);
    world.connect();
    for _ in 0..20 {
        world.step(1_200);
    }
    let now = world.now();
    world.nodes[0].session.hand_over(Precedence::Routine, noise(900));
    let Some(Frame::Carried(mut carried)) = world.nodes[0].send(1_200, now) else { panic!("a parcel in one part") };
    let mut altered = carried.part.bytes.clone();
    altered[100] ^= 1;
    carried.part = wire::frame::Packed::raw(altered).part(0, 900);
    let name = carried.parcel;
    world.nodes[1].take(Frame::Carried(carried), now);
    for _ in 0..20 {
        world.step(1_200);
    }
    assert!(world.nodes[1].parcels.is_empty());
    assert_eq!(world.nodes[0].kept, [(name, Custody::Refused(CustodyRefusal::Damaged))]);
}

/// Two nodes that have greeted each other, and the slices of a file that the second has asked for.
fn slices_of(content: &[u8]) -> (World, Vec<Frame>) {
    let mut world = World::new(1, false);
    world.nodes[0].capture_file(content);
    world.connect();
    let now = world.now();
    let mut slices = Vec::new();
    for _ in 0..40 {
        for i in [0, 1] {
            while let Some(frame) = world.nodes[i].send(1_150, now) {
                if matches!(&frame, Frame::Slice(slice) if slice.level == 0) {
                    slices.push(frame);
                } else {
                    world.nodes[1 - i].take(frame, now);
                }
            }
            world.nodes[1 - i].work(now, true);
        }
    }
    (world, slices)
}

/// Its entry, a question for the content, and the content: a list of names that had to be asked for cost a round trip more.
#[test]
fn the_lists_of_a_short_file_go_ahead_of_it() {
    let mut world = World::new(1, false);
    world.nodes[0].capture_file(&noise(600_000));
    world.connect();
    let now = world.now();
    let mut asked = Vec::new();
    for _ in 0..40 {
        for i in [0, 1] {
            while let Some(frame) = world.nodes[i].send(1_150, now) {
                if let Frame::Want(want) = &frame {
                    asked.push(want.level);
                }
                world.nodes[1 - i].take(frame, now);
            }
            world.nodes[1 - i].work(now, true);
        }
    }
    assert!(world.nodes[1].disk.incomplete.is_empty());
    assert_eq!(asked, [0]);
}

/// Frames are sent more than once where losses ask for it, and over several links.
#[test]
fn a_question_that_comes_twice_is_answered_once() {
    let mut world = World::new(1, false);
    world.nodes[0].capture_file(&noise(100_000));
    world.connect();
    let now = world.now();
    let mut asked = Vec::new();
    for _ in 0..40 {
        for i in [0, 1] {
            while let Some(frame) = world.nodes[i].send(1_150, now) {
                asked.extend(matches!(frame, Frame::Want(_)).then(|| frame.clone()));
                world.nodes[1 - i].take(frame, now);
            }
            world.nodes[1 - i].work(now, true);
        }
    }
    assert!(world.nodes[1].disk.incomplete.is_empty() && !asked.is_empty());
    let sent = world.nodes[0].session.sent_so_far().files;
    asked.into_iter().for_each(|frame| world.nodes[0].take(frame, now));
    world.settle_without_connecting();
    assert_eq!(world.nodes[0].session.sent_so_far().files, sent, "nothing was sent again");
}

/// At 10 Mbit/s and 30 % loss the parts of 50 chunks and more are under way at a time, and overtake each other. The 33rd
/// chunk that was partly there once pushed the first one out, which nobody asked for again: 4 % of the link was used.
#[test]
fn chunks_whose_parts_overtake_each_other_are_asked_for_once() {
    let (mut world, mut slices) = slices_of(&noise(4_000_000));
    assert!(slices.len() > 3_500 && !world.nodes[1].disk.incomplete.is_empty(), "{}", slices.len());
    let now = world.now();
    for _ in 0..slices.len() {
        let at = world.rng.random_range(0..slices.len());
        let slice = slices.swap_remove(at);
        world.nodes[1].take(slice, now);
        world.nodes[1].work(now, true);
    }
    let sent = world.nodes[0].session.sent_so_far().files;
    world.settle_without_connecting();
    assert!(world.nodes[1].disk.incomplete.is_empty(), "the file is complete");
    assert_eq!(world.nodes[0].session.sent_so_far().files, sent, "nothing was sent again");
}

#[test]
fn what_there_is_no_room_for_is_asked_for_again() {
    let (mut world, slices) = slices_of(&noise(20_000_000));
    let now = world.now();
    // Of each chunk the first part comes last: far more is begun than is kept.
    let (first, rest): (Vec<_>, Vec<_>) =
        slices.into_iter().partition(|frame| matches!(frame, Frame::Slice(slice) if slice.part.offset == 0));
    for slice in rest.into_iter().chain(first) {
        world.nodes[1].take(slice, now);
        world.nodes[1].work(now, true);
    }
    assert!(!world.nodes[1].disk.incomplete.is_empty(), "not everything was kept");
    world.settle_without_connecting();
    assert!(world.nodes[1].disk.incomplete.is_empty(), "the file is complete");
}

/// A file of three times what may wait for the disk, and a disk that is full: everything that was asked for came, into memory.
#[test]
fn a_full_disk_makes_the_peer_wait_with_files_and_with_nothing_else() {
    const BOUND: usize = link::limits::CHUNKS_STORING_BYTES_MAX;
    let mut world = World::new(13, false);
    world.settle();
    let content = noise(3 * BOUND);
    let file = world.nodes[0].capture_file(&content);
    let pass = |world: &mut World, frames: usize| {
        let mut sliced = 0;
        for _ in 0..frames {
            world.now += Duration::from_millis(100);
            let now = world.now();
            for i in [0, 1] {
                world.nodes[i].session.tick(now);
                let Some(frame) = world.nodes[i].send(60_000, now) else { continue };
                sliced += if let Frame::Slice(slice) = &frame { slice.part.bytes.len() } else { 0 };
                world.nodes[1 - i].take(frame, now);
                world.nodes[1 - i].work(now, true);
                world.nodes[i].work(now, true);
            }
        }
        sliced
    };
    // With the lists of its chunks there, it fills up.
    let mut stored = 0;
    while stored < 1_000_000 {
        pass(&mut world, 1);
        stored = world.nodes[1].disk.chunks.values().map(|chunk| chunk.len()).sum::<usize>();
    }
    world.nodes[1].is_full = true;
    pass(&mut world, 2_000);
    let waiting = |world: &World| world.nodes[1].unstored.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let before = waiting(&world);
    assert!((BOUND..BOUND + (1 << 20)).contains(&before), "{before} bytes wait for the disk");
    assert_eq!(pass(&mut world, 50), 0, "it waits");
    // It knows that the rest is missing there, and says what is urgent.
    let there = world.nodes[0].session.sent_so_far().files_there[0].bytes;
    assert!(there <= (stored + before) as u64 + 70_000, "{there} bytes are said to be there");
    world.nodes[0].capture(draft(Precedence::Flash, 50));
    pass(&mut world, 5);
    assert_eq!(world.nodes[1].disk.arrived.len(), 2);
    // A little room is no reason to begin again and to stop at once.
    let store = |world: &mut World, count: usize| {
        let node = &mut world.nodes[1];
        for (name, bytes) in node.unstored.drain(..count).collect::<Vec<_>>() {
            node.disk.chunks.insert(name, bytes.into());
            node.session.chunks_stored(&[name]);
        }
    };
    store(&mut world, 10);
    assert_eq!(pass(&mut world, 50), 0);
    world.nodes[1].is_full = false;
    let rest = world.nodes[1].unstored.len();
    store(&mut world, rest);
    let sliced = pass(&mut world, 3_000);
    assert!(!world.nodes[1].disk.incomplete.contains_key(&file), "{sliced} bytes came");
    let missing = content.len() - stored - before;
    assert!(sliced.abs_diff(missing) < 500_000, "the rest of it, once: {sliced} of {missing} bytes");
}

/// Large entries, and a disk that takes none: each stayed in memory, as many as a window has.
#[test]
fn a_disk_that_takes_nothing_bounds_what_is_kept_of_entries() {
    const BOUND: usize = link::limits::ENTRIES_STORING_BYTES_MAX;
    let mut world = World::new(14, false);
    world.settle();
    for n in 0..60 {
        world.nodes[0].capture(Draft { body: noise(900_000 + n), ..draft(Precedence::Deferred, 0) });
    }
    let pass = |world: &mut World, frames: usize, durable: bool| {
        for _ in 0..frames {
            world.now += Duration::from_millis(100);
            let now = world.now();
            for i in [0, 1] {
                world.nodes[i].session.tick(now);
                let Some(frame) = world.nodes[i].send(60_000, now) else { continue };
                world.nodes[1 - i].take(frame, now);
                world.nodes[1 - i].work(now, durable);
                world.nodes[i].work(now, durable);
            }
        }
    };
    pass(&mut world, 1_200, false);
    let kept = |world: &World| world.nodes[1].storing.iter().map(|incoming| incoming.bytes.len()).sum::<usize>();
    assert!((BOUND - 1_000_000..=BOUND).contains(&kept(&world)), "{} bytes", kept(&world));
    let flash = world.nodes[0].capture(draft(Precedence::Flash, 50));
    pass(&mut world, 5, false);
    assert!(world.nodes[1].storing.iter().any(|incoming| incoming.entry.header.id == flash), "it may have room");
    pass(&mut world, 1_200, true);
    world.settle_without_connecting();
    world.check_arrival(0);
    assert_eq!(world.nodes[1].disk.arrived.len(), 61);
}

/// Two nodes that have greeted each other, and large entries of the first, in parts.
fn parts_of(entries: usize, bytes: usize) -> (World, Vec<Frame>) {
    let mut world = World::new(1, false);
    world.connect();
    let now = world.now();
    let greet = |world: &mut World| {
        for _ in 0..4 {
            for i in [0, 1] {
                while let Some(frame) = world.nodes[i].send(1_150, now) {
                    world.nodes[1 - i].take(frame, now);
                }
            }
        }
    };
    greet(&mut world);
    for n in 0..entries {
        let body = noise(bytes + n);
        world.nodes[0].capture(Draft { body, ..draft(Precedence::Routine, 0) });
    }
    world.nodes[0].work(now, true);
    let parts: Vec<Frame> = std::iter::from_fn(|| world.nodes[0].send(1_150, now)).collect();
    assert!(parts.iter().all(|frame| matches!(frame, Frame::Fragment(_))));
    (world, parts)
}

/// Of eight entries that were partly here the ninth pushed the first one out, and nobody asked for it again: it stayed under way
/// until the session ended.
#[test]
fn large_entries_whose_parts_overtake_each_other_arrive() {
    let (mut world, mut parts) = parts_of(60, 4_000);
    let now = world.now();
    while !parts.is_empty() {
        let at = world.rng.random_range(0..parts.len());
        let part = parts.swap_remove(at);
        world.nodes[1].take(part, now);
        world.nodes[1].work(now, true);
    }
    assert_eq!(world.nodes[1].disk.arrived.len(), 60, "without a question");
    world.settle_without_connecting();
    world.check_arrival(0);
}

#[test]
fn large_entries_that_there_is_no_room_for_are_asked_for_again() {
    let (mut world, parts) = parts_of(18, 1_000_000);
    let now = world.now();
    // Of each the first part comes last.
    let (first, rest): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|frame| matches!(frame, Frame::Fragment(f) if f.part.offset == 0));
    for part in rest.into_iter().chain(first) {
        world.nodes[1].take(part, now);
        world.nodes[1].work(now, true);
    }
    assert!(world.nodes[1].disk.arrived.len() < 18, "not everything was kept");
    for _ in 0..200 {
        for i in [0, 1] {
            for _ in 0..400 {
                let Some(frame) = world.nodes[i].send(1_150, now) else { break };
                world.nodes[1 - i].take(frame, now);
            }
            world.nodes[1 - i].work(now, true);
        }
    }
    assert_eq!(world.nodes[1].disk.arrived.len(), 18);
    world.settle_without_connecting();
    world.check_arrival(0);
}

fn any_hostile_frame() -> impl Strategy<Value = Frame> {
    use wire::frame::*;
    let set = || {
        prop::collection::vec((prop_oneof![0u64..40, any::<u64>()], prop_oneof![0u64..9, any::<u64>()]), 0..5).prop_map(
            |parts| {
                let mut set = RangeSet::new();
                parts.into_iter().for_each(|(a, n)| set.insert_range(a..=a.saturating_add(n)));
                set
            },
        )
    };
    let epoch = || prop_oneof![4 => Just(Epoch(1)), 1 => (0u32..4).prop_map(Epoch), 1 => any::<u32>().prop_map(Epoch)];
    let seq = || (1u64..40).prop_map(|n| Seq::new(n).unwrap());
    let outcome = || prop::sample::select(Outcome::ALL.to_vec());
    let packing = || {
        prop_oneof![
            Just(Packing::Raw),
            Just(Packing::Zstd),
            any::<u8>().prop_map(|n| Packing::From(ChunkName([n; ChunkName::LEN])))
        ]
    };
    let part = (packing(), any::<u32>(), 0u32..50, 0u32..50, prop::collection::vec(any::<u8>(), 0..50)).prop_map(
        |(packing, crc, offset, more, bytes)| Part {
            packing,
            crc,
            total: offset + more + bytes.len() as u32,
            offset,
            bytes,
        },
    );
    let (returned, parcel_part) = (part.clone(), part.clone());
    prop_oneof![
        (0u32..9, epoch(), set(), prop::collection::vec((outcome(), set()), 0..4))
            .prop_map(|(part, epoch, stored, outcomes)| Frame::Receipt(Receipt { part, epoch, stored, outcomes })),
        (0u32..9).prop_map(Frame::Ready),
        (epoch(), seq(), any::<u32>(), any::<u32>()).prop_map(|(epoch, seq, crc, offset)| Frame::Resume(Resume {
            epoch,
            seq,
            crc,
            offset
        })),
        (epoch(), seq(), part.clone()).prop_map(|(epoch, seq, part)| Frame::Fragment(Fragment { epoch, seq, part })),
        (epoch(), outcome(), set()).prop_map(|(epoch, outcome, ranges)| Frame::Skip(Skip {
            epoch,
            outcome,
            ranges,
            after: Vec::new()
        })),
        (epoch(), prop::collection::vec((seq(), any::<u64>()), 0..5))
            .prop_map(|(epoch, hashes)| Frame::Verify(Verify { epoch, hashes })),
        (epoch(), set(), set()).prop_map(|(epoch, same, different)| Frame::Verdict(Verdict { epoch, same, different })),
        (any::<u64>(), epoch(), seq(), 0u8..4, any::<bool>(), set(), any::<Option<(u32, u32, u32)>>()).prop_map(
            |(number, epoch, seq, level, whole, indexes, partial)| Frame::Want(Want {
                number,
                epoch,
                seq,
                level,
                whole,
                indexes,
                partial
            })
        ),
        (epoch(), seq(), 0u8..4, set()).prop_map(|(epoch, seq, level, indexes)| Frame::Unavailable(Unavailable {
            epoch,
            seq,
            level,
            indexes
        })),
        (epoch(), seq(), 0u8..4, 0u32..9, part).prop_map(|(epoch, seq, level, index, part)| Frame::Slice(Slice {
            epoch,
            seq,
            level,
            index,
            part
        })),
        (epoch(), set()).prop_map(|(epoch, numbers)| Frame::Again(Numbers { epoch, numbers })),
        (epoch(), set()).prop_map(|(epoch, numbers)| Frame::OnRequest(Numbers { epoch, numbers })),
        (epoch(), set()).prop_map(|(epoch, numbers)| Frame::Recall(Numbers { epoch, numbers })),
        (epoch(), set()).prop_map(|(epoch, numbers)| Frame::Gone(Numbers { epoch, numbers })),
        (0u8..3, any::<u64>(), prop::collection::vec((epoch(), set()), 0..3))
            .prop_map(|(name, hash, entries)| Frame::History(HistoryOf { name, hash, entries })),
        (0u8..3, prop::collection::vec((epoch(), set()), 0..3))
            .prop_map(|(name, missing)| Frame::HistoryHeld(HistoryHeld { name, missing })),
        (0u8..3).prop_map(Frame::HistoryGone),
        (epoch(), seq(), returned).prop_map(|(epoch, seq, part)| Frame::Returned(Fragment { epoch, seq, part })),
        (0u64..4, parcel_part).prop_map(|(parcel, part)| {
            Frame::Carried(Carried { parcel, part: Part { packing: Packing::Raw, ..part } })
        }),
        (0u64..4, any::<u32>()).prop_map(|(parcel, held)| Frame::Kept(Kept { parcel, custody: Custody::Partly(held) })),
        (0u64..4).prop_map(|parcel| Frame::Kept(Kept { parcel, custody: Custody::Taken })),
    ]
}

proptest! {
    /// A peer that says anything at all can make its own entries look however it likes, but neither crash this node
    /// nor take an entry from it.
    #[test]
    fn whatever_a_peer_says_the_session_stays_whole(
        frames in prop::collection::vec(any_hostile_frame(), 1..30),
        greeted: bool,
    ) {
        let mut world = World::new(12, false);
        for n in 0..20 {
            world.nodes[0].capture(draft(Precedence::Routine, n));
        }
        world.nodes[0].capture_file(&noise(50_000));
        world.connect();
        if greeted {
            (0..8).for_each(|_| world.step(600));
        }
        let now = world.now();
        let node = &mut world.nodes[0];
        node.session.recall([(Epoch::FIRST, RangeSet::from(3..=5))].into());
        for frame in frames {
            let frame = Frame::decode(&frame.encode()).unwrap();
            let _ = node.session.frame(frame, &node.disk, now);
            let mut epochs = 0;
            while let Some(output) = node.session.poll() {
                // Not carried out, only looked at: the pretend shell checks what an honest peer would do.
                epochs += usize::from(matches!(output, Output::StartEpoch { .. }));
            }
            prop_assert!(epochs <= 2);
            for _ in 0..4 {
                let waiting = node.session.waiting(&node.disk, now).unwrap();
                let lanes = Precedence::ALL.into_iter().filter(|c| waiting.classes[c.index()]).map(Lane::Class);
                for lane in lanes.chain(waiting.control.then_some(Lane::Control)) {
                    if let Some(frame) = node.session.next_frame(lane, 300, &node.disk, now).unwrap() {
                        prop_assert!(frame.encode().len() <= 300);
                    }
                }
            }
        }
    }
}

#[test]
fn a_flash_entry_overtakes_the_bulk_that_was_queued_first() {
    let mut world = World::new(1, false);
    world.nodes[0].capture_file(&noise(300_000));
    for _ in 0..200 {
        world.nodes[0].capture(draft(Precedence::Routine, 300));
    }
    world.connect();
    (0..40).for_each(|_| world.step(400));
    let flash = world.nodes[0].capture(draft(Precedence::Flash, 40));
    let before = world.nodes[1].disk.arrived.len();
    (0..12).for_each(|_| world.step(400));
    let place = world.nodes[1].disk.arrived.iter().position(|e| e.header.id == flash);
    assert!(place.is_some_and(|at| at < before + 30), "flash arrived at {place:?}, {before} were there before");
    world.settle();
    world.check_arrival(0);
    let urgent = |e: &LinkEvent| matches!(e, LinkEvent::UrgentStored { id, .. } if *id == flash);
    assert!(world.nodes[0].events.iter().any(urgent));
}

#[test]
fn a_flash_reply_pulls_the_thread_it_belongs_to() {
    let mut world = World::new(2, false);
    let root = world.nodes[0].capture(draft(Precedence::Routine, 100));
    for _ in 0..300 {
        world.nodes[0].capture(Draft { body: noise(200), ..draft(Precedence::Routine, 0) });
    }
    let causes = vec![world.nodes[0].disk.own.len() - 1];
    let reply = world.nodes[0].capture(Draft { causes, ..draft(Precedence::Flash, 50) });
    world.connect();
    (0..10).for_each(|_| world.step(400));
    let order: Vec<EntryId> = world.nodes[1].disk.arrived.iter().map(|e| e.header.id).take(2).collect();
    assert_eq!(order, [root, reply]);
}

#[test]
fn a_large_entry_and_a_large_chunk_resume_where_the_link_broke() {
    let mut world = World::new(3, false);
    world.nodes[0].capture(Draft { body: noise(200_000), ..draft(Precedence::Routine, 0) });
    let mut sent = 0;
    for _ in 0..400 {
        world.connect();
        for _ in 0..12 {
            world.now += Duration::from_millis(100);
            let now = world.now();
            for i in [0, 1] {
                for _ in 0..40 {
                    if let Some(frame) = world.nodes[i].send(600, now) {
                        sent += if i == 0 { frame.encode().len() } else { 0 };
                        world.nodes[1 - i].take(frame, now);
                        world.nodes[1 - i].work(now, true);
                        world.nodes[i].work(now, true);
                    }
                }
            }
        }
        if !world.nodes[1].disk.arrived.is_empty() {
            break;
        }
    }
    assert_eq!(world.nodes[1].disk.arrived.len(), 1);
    assert!(sent < 260_000, "{sent} bytes for 200 kB");
}

/// A link that takes 30 kB and breaks, again and again, with nothing of it arriving: however much is sent, it is no
/// progress, and what the peer really has of the file stays known.
#[test]
fn what_is_sent_again_is_no_progress_and_what_the_peer_has_of_a_file_is_known() {
    let mut world = World::new(5, false);
    world.nodes[0].capture_file(&noise(600_000));
    world.connect();
    let sent_so_far = |world: &mut World| world.nodes[0].session.sent_so_far();
    let exchange = |world: &mut World, lost: bool| {
        world.now += Duration::from_millis(100);
        let now = world.now();
        for i in [0, 1] {
            let Some(frame) = world.nodes[i].send(1_200, now) else { continue };
            if !(lost && matches!(frame, Frame::Slice(_))) {
                world.nodes[1 - i].take(frame, now);
            }
            world.nodes[1 - i].work(now, true);
            world.nodes[i].work(now, true);
        }
    };
    while sent_so_far(&mut world).first_bytes < 300_000 {
        exchange(&mut world, false);
    }
    let there = |world: &mut World| sent_so_far(world).files_there[0].bytes;
    let half = there(&mut world);
    assert!((240_000..360_000).contains(&half), "{half}");
    let packed = sent_so_far(&mut world).files;
    assert!((packed.plain_bytes..packed.plain_bytes * 11 / 10).contains(&packed.frame_bytes), "{packed:?}");
    let mut progress = Vec::new();
    for _ in 0..10 {
        world.connect();
        (0..40).for_each(|_| exchange(&mut world, true));
        progress.push(sent_so_far(&mut world).first_bytes);
    }
    let frames = sent_so_far(&mut world).files.frame_bytes - packed.frame_bytes;
    assert!(frames > 300_000, "{frames} bytes were sent");
    assert_eq!(progress[1..], [progress[1]; 9], "and only the first time counted");
    assert!(there(&mut world).abs_diff(half) < 70_000, "{} of {half}", there(&mut world));
}

/// A file that is too large to come unasked: its name and size cross, its bytes when somebody wants them, in the class
/// that the asker gives; what is held of it already is known before.
#[test]
fn a_large_file_comes_when_somebody_wants_it_and_in_the_class_that_was_asked_for() {
    let mut world = World::new(6, false);
    world.nodes[1].session.hold_files_above(Some(100_000));
    let content = noise(300_000);
    let small = world.nodes[0].capture_file(&content[..60_000]);
    let large = world.nodes[0].capture_file(&content);
    world.connect();
    let run = |world: &mut World, steps: usize| {
        let mut classes = BTreeSet::new();
        for _ in 0..steps {
            world.now += Duration::from_millis(100);
            let now = world.now();
            for i in [0, 1] {
                let waiting = world.nodes[i].session.waiting(&world.nodes[i].disk, now).unwrap();
                let Some(frame) = world.nodes[i].send(1_200, now) else { continue };
                if matches!(frame, Frame::Slice(_)) {
                    classes.insert(waiting.classes);
                }
                world.nodes[1 - i].take(frame, now);
                world.nodes[1 - i].work(now, true);
                world.nodes[i].work(now, true);
            }
        }
        let now = world.now();
        world.nodes[1].work(now, true);
        classes
    };
    run(&mut world, 600);
    let incomplete = world.nodes[1].disk.incomplete.clone();
    assert!(!incomplete.contains_key(&small) && incomplete.contains_key(&large), "{incomplete:?}");
    let waiting = world.nodes[1].session.files_on_request();
    let [file] = waiting.as_slice() else { panic!("{waiting:?}") };
    assert_eq!((file.epoch, file.seq), (large.epoch, large.seq));
    assert!((150_000..300_000).contains(&file.missing_bytes), "60 kB of it are held: {file:?}");
    let told = world.nodes[0].session.sent_so_far().on_request;
    assert!(told[&large.epoch].contains(large.seq.get()), "the sender knows that nobody waits for it");

    // Over another connection too it does not come unasked.
    world.connect();
    run(&mut world, 300);
    assert!(world.nodes[1].disk.incomplete.contains_key(&large));
    let entry = world.nodes[1].disk.received(large).unwrap().unwrap().entry;
    world.nodes[1].session.request_file(&entry, Precedence::Priority);
    let classes = run(&mut world, 600);
    assert!(world.nodes[1].disk.incomplete.is_empty());
    assert!(classes.iter().all(|waits| waits[Precedence::Priority.index()]), "{classes:?}");
    assert!(world.nodes[1].session.files_on_request().is_empty());
    assert_eq!(world.nodes[0].session.sent_so_far().on_request.values().map(RangeSet::count).sum::<u64>(), 0);
}

#[test]
fn two_files_that_share_chunks_cost_one() {
    let mut world = World::new(4, false);
    let content = noise(200_000);
    world.nodes[0].capture_file(&content);
    let mut edited = content.clone();
    edited[100_000] ^= 1;
    world.nodes[0].capture_file(&content);
    world.nodes[0].capture_file(&edited);
    world.connect();
    let mut sliced = 0;
    for _ in 0..3_000 {
        world.now += Duration::from_millis(100);
        let now = world.now();
        for i in [0, 1] {
            world.nodes[i].session.tick(now);
            let Some(frame) = world.nodes[i].send(1_200, now) else { continue };
            if let Frame::Slice(slice) = &frame {
                sliced += slice.part.bytes.len();
            }
            world.nodes[1 - i].take(frame, now);
            world.nodes[1 - i].work(now, true);
            world.nodes[i].work(now, true);
        }
    }
    assert!(world.nodes[1].disk.incomplete.is_empty() && world.nodes[1].disk.arrived.len() == 3);
    assert!(sliced < 200_000 + 2 * 64 * 1024 + 1_000, "{sliced} bytes of slices");
    assert_eq!(world.nodes[0].disk.chunks, world.nodes[1].disk.chunks);
}

#[test]
fn what_differs_little_from_a_held_chunk_costs_little() {
    let mut world = World::new(6, false);
    let before = noise(200_000);
    let mut after = before.clone();
    after[100_000] ^= 1;
    world.nodes[0].capture_file(&before);
    world.connect();
    assert!(slices(&mut world) >= 200_000);
    capture_edited(&mut world, &after);
    let sliced = slices(&mut world);
    assert!(sliced < 1_000, "{sliced} bytes of slices");
    assert_eq!(world.nodes[0].disk.chunks, world.nodes[1].disk.chunks);
    assert_eq!(world.nodes[0].disk.bases, world.nodes[1].disk.bases, "the peer can keep it as cheaply");
    // Both in one file: the second half is told from chunks that are themselves under way.
    let held: BTreeSet<ChunkName> = world.nodes[0].disk.chunks.keys().copied().collect();
    let first: Vec<u8> = before.into_iter().rev().collect();
    let mut second = first.clone();
    second[100_000] ^= 1;
    capture_edited(&mut world, &[first, second].concat());
    assert!(world.nodes[0].disk.bases.values().any(|base| !held.contains(base)));
    slices(&mut world);
    assert_eq!(world.nodes[0].disk.chunks, world.nodes[1].disk.chunks);
    assert_eq!(world.nodes[0].disk.bases, world.nodes[1].disk.bases);
}

#[test]
fn a_chunk_whose_base_the_peer_lacks_or_may_not_use_comes_whole() {
    let before = noise(200_000);
    let mut after = before.clone();
    after[100_000] ^= 1;
    for other_label in [false, true] {
        let mut world = World::new(7, false);
        world.nodes[0].capture_file(&before);
        world.connect();
        slices(&mut world);
        capture_edited(&mut world, &after);
        let bases: Vec<_> = world.nodes[0].disk.bases.clone().into_iter().collect();
        assert!(!bases.is_empty());
        for (name, base) in bases {
            if other_label {
                // Held by both, but under a label in which the file is not: nothing may be told of it.
                let bytes = world.nodes[0].disk.chunks[&base].clone();
                let other = wire::chunk::Namer::new(&secret(ALPHA), &"other".parse().unwrap()).name(&bytes);
                world.nodes.iter_mut().for_each(|node| drop(node.disk.chunks.insert(other, bytes.clone())));
                world.nodes[0].disk.bases.insert(name, other);
            } else {
                world.nodes[1].disk.chunks.remove(&base);
            }
        }
        let sliced = slices(&mut world);
        assert!((4_000..140_000).contains(&sliced), "{sliced} bytes of slices");
        assert_eq!(world.nodes[1].disk.bases, BTreeMap::new());
        assert!(world.nodes[1].disk.incomplete.is_empty());
        let held = &world.nodes[1].disk.chunks;
        assert!(world.nodes[0].disk.bases.keys().all(|name| held.contains_key(name)));
    }
}

/// Captures a file; each new chunk is held as the difference to one that begins alike.
fn capture_edited(world: &mut World, content: &[u8]) {
    let disk = &world.nodes[0].disk;
    let known: BTreeSet<ChunkName> = disk.chunks.keys().copied().collect();
    world.nodes[0].capture_file(content);
    let disk = &mut world.nodes[0].disk;
    let new: Vec<_> = disk.chunks.keys().copied().filter(|name| !known.contains(name)).collect();
    for name in &new {
        let alike = |other: &ChunkName| {
            let (a, b) = (&disk.chunks[name], &disk.chunks[other]);
            other != name && !disk.bases.contains_key(other) && a[..a.len().min(17)] == b[..b.len().min(17)]
        };
        if let Some(base) = known.iter().chain(&new).find(|other| alike(other)) {
            disk.bases.insert(*name, *base);
        }
    }
}

/// Lets everything cross; returns how many bytes of chunks went to the peer.
fn slices(world: &mut World) -> usize {
    let mut sliced = 0;
    for _ in 0..3_000 {
        world.now += Duration::from_millis(100);
        let now = world.now();
        for i in [0, 1] {
            world.nodes[i].session.tick(now);
            let Some(frame) = world.nodes[i].send(1_200, now) else { continue };
            if let Frame::Slice(slice) = &frame {
                sliced += slice.part.bytes.len();
            }
            world.nodes[1 - i].take(frame, now);
            world.nodes[1 - i].work(now, true);
            world.nodes[i].work(now, true);
        }
    }
    assert!(world.nodes[1].disk.incomplete.is_empty());
    sliced
}

/// A node was restored from a snapshot: it captured other entries under numbers that it had sent before. The peer
/// holds the old ones; the new ones must arrive under numbers of their own.
#[test]
fn a_restored_snapshot_gets_a_new_epoch_and_loses_nothing() {
    let mut world = World::new(5, false);
    for n in 0..10 {
        world.nodes[0].capture(draft(Precedence::Routine, 20 + n));
    }
    world.settle();
    let snapshot = world.nodes[0].disk.clone();
    for n in 0..6 {
        world.nodes[0].capture(draft(Precedence::Routine, 50 + n));
    }
    world.settle();
    world.disconnect();
    world.nodes[0].disk = snapshot;
    world.nodes[0].restart();
    let mut captured = Vec::new();
    for n in 0..3 {
        let body = vec![n; 70];
        world.nodes[0].capture(Draft { body: body.clone(), ..draft(Precedence::Routine, 0) });
        captured.push(body);
    }
    world.settle();
    let bodies: Vec<&Vec<u8>> = world.nodes[1].disk.arrived.iter().map(|e| &e.body).collect();
    for body in &captured {
        assert_eq!(bodies.iter().filter(|b| **b == body).count(), 1);
    }
    assert_eq!(bodies.len(), 10 + 6 + 3);
    let reasons: Vec<StartEpochReason> = world.nodes[0].epochs_started.iter().map(|(r, _)| *r).collect();
    assert!(reasons.contains(&StartEpochReason::PeerIsAhead) && reasons.contains(&StartEpochReason::Conflict));
    world.check_arrival(0);
}

/// What a node says before it has heard a word of the peer.
fn before_the_greeting(world: &mut World, bytes: usize) -> Vec<Frame> {
    let now = world.now();
    world.nodes[0].session.connected(now);
    let said = std::iter::from_fn(|| world.nodes[0].send(bytes, now)).collect();
    world.nodes[0].work(now, true);
    said
}

#[test]
fn what_was_never_sent_does_not_wait_for_the_peers_greeting_and_nothing_is_decided_without_it() {
    let mut world = World::new(1, false);
    world.nodes[0].capture_file(&noise(300_000));
    world.nodes[0].capture(draft(Precedence::Flash, 40));
    world.nodes[0].capture(Draft { expired: true, ..draft(Precedence::Routine, 40) });
    world.nodes[0].capture(draft(Precedence::Routine, 40));
    let said = before_the_greeting(&mut world, 1_200);
    let kinds: Vec<&str> = said.iter().map(Frame::kind).collect();
    // Routine stands behind what has expired: that the peer has it all the same its greeting may tell.
    assert_eq!(kinds, ["greet", "ready", "batch", "whole", "whole", "batch"]);
    assert!(world.nodes[0].disk.sent.values().all(|progress| progress.outcomes.is_empty()));
    world.disconnect();
    assert_eq!(before_the_greeting(&mut world, 1_200).len(), 2, "the peer may have it by now");
    world.disconnect();
    world.settle();
    world.check_arrival(0);
    let duplicates = world.nodes[1].events.iter().filter(|e| matches!(e, LinkEvent::Duplicates(_))).count();
    assert_eq!((world.nodes[1].disk.arrived.len(), duplicates), (3, 0));
}

/// How much of a large entry the peer holds its greeting tells.
#[test]
fn a_large_entry_waits_for_the_peers_greeting() {
    let mut world = World::new(1, false);
    world.nodes[0].capture(Draft { body: noise(5_000), ..draft(Precedence::Routine, 0) });
    assert_eq!(before_the_greeting(&mut world, 1_200).len(), 2);
}

/// The restored node speaks first. The peer has used the entry that once had the number, and cannot compare any more.
#[test]
fn a_restored_snapshot_that_speaks_first_believes_no_receipt_for_another_entry() {
    let mut world = World::new(5, false);
    world.nodes[0].capture(draft(Precedence::Routine, 20));
    world.settle();
    let snapshot = world.nodes[0].disk.clone();
    world.nodes[0].capture(draft(Precedence::Routine, 50));
    world.settle();
    world.disconnect();
    world.nodes[1].disk.foreign.clear();
    world.nodes[1].disk.held.clear();
    world.nodes[0].disk = snapshot;
    world.nodes[0].restart();
    world.nodes[0].capture(draft(Precedence::Routine, 70));
    let said = before_the_greeting(&mut world, 1_200);
    assert_eq!(said.iter().map(Frame::kind).collect::<Vec<_>>(), ["greet", "ready", "batch"]);
    let now = world.now();
    world.up = true;
    world.nodes[1].session.connected(now);
    said.into_iter().for_each(|frame| world.nodes[1].take(frame, now));
    world.settle_without_connecting();
    let arrived: Vec<usize> = world.nodes[1].disk.arrived.iter().map(|e| e.body.len()).collect();
    assert_eq!(arrived, [20, 50, 70]);
}

/// What comes in parts can be compared when all of them are here, and not before.
#[test]
fn a_restored_snapshot_believes_no_receipt_for_another_large_entry() {
    let mut world = World::new(5, false);
    world.nodes[0].capture(draft(Precedence::Routine, 20));
    world.settle();
    let snapshot = world.nodes[0].disk.clone();
    world.nodes[0].capture(Draft { body: noise(5_000), ..draft(Precedence::Routine, 0) });
    world.settle();
    world.disconnect();
    world.nodes[0].disk = snapshot;
    world.nodes[0].restart();
    world.nodes[0].capture(Draft { body: noise(6_000), ..draft(Precedence::Routine, 0) });
    world.settle();
    let arrived: Vec<usize> = world.nodes[1].disk.arrived.iter().map(|e| e.body.len()).collect();
    assert_eq!(arrived, [20, 5_000, 6_000]);
    world.check_arrival(0);
}

/// The peer has used the entry that once had the number, and cannot compare any more. Its greeting claims a number that the
/// session does not know of yet.
#[test]
fn what_is_captured_under_a_number_that_the_peer_claims_is_not_taken_for_what_it_has() {
    let mut world = World::new(5, false);
    world.nodes[0].capture(draft(Precedence::Routine, 20));
    world.settle();
    let snapshot = world.nodes[0].disk.clone();
    world.nodes[0].capture(Draft { body: noise(5_000), ..draft(Precedence::Routine, 0) });
    world.settle();
    world.disconnect();
    world.nodes[1].disk.foreign.clear();
    world.nodes[1].disk.held.clear();
    world.nodes[0].disk = snapshot;
    world.nodes[0].restart();
    world.nodes[0].capture(Draft { body: noise(6_000), ..draft(Precedence::Routine, 0) });
    world.settle();
    let arrived: Vec<usize> = world.nodes[1].disk.arrived.iter().map(|e| e.body.len()).collect();
    assert_eq!(arrived, [20, 5_000, 6_000]);
}

/// The process that told the peer so is gone, and the clock was set back since. A new number would bring the entry to other peers twice.
#[test]
fn what_the_peer_was_told_has_expired_stays_so_when_the_clock_goes_back() {
    let mut world = World::new(5, false);
    world.nodes[0].capture(Draft { expired: true, ..draft(Precedence::Routine, 20) });
    let mut snapshot = world.nodes[0].disk.clone();
    world.settle();
    world.disconnect();
    Arc::make_mut(&mut snapshot.own[0].entry).header.expiry = Some(UnixMillis(WALL.0 + 60_000));
    world.nodes[0].disk = snapshot;
    world.nodes[0].restart();
    world.settle();
    let reissued = world.nodes[0].epochs_started.iter().flat_map(|(_, reissued)| reissued);
    assert_eq!((world.nodes[1].disk.arrived.len(), reissued.count()), (0, 0));
    let expired = &world.nodes[0].disk.sent[&Epoch::FIRST].outcomes[&Outcome::Expired];
    assert_eq!(*expired, RangeSet::from(1..=1));
}

/// It says of everything that it holds something else under the number: each time the entry got a new number, in a new epoch, and was
/// sent once more, for as long as the peer liked.
#[test]
fn a_peer_that_denies_whatever_it_is_sent_does_not_fill_the_journal() {
    let mut world = World::new(12, false);
    world.settle();
    for _ in 0..10 {
        world.nodes[0].capture(draft(Precedence::Routine, 30));
    }
    for round in 0.. {
        assert!(round < 200, "{} entries of ten, and no end", world.nodes[0].disk.own.len());
        let now = world.now();
        let node = &mut world.nodes[0];
        while node.send(1_200, now).is_some() {}
        node.work(now, true);
        // One by one, as it may.
        let sent: Vec<EntryId> = node.disk.own.iter().map(|o| o.entry.header.id).collect();
        for id in sent {
            let (same, different) = (RangeSet::new(), RangeSet::from(id.seq.get()..=id.seq.get()));
            let verdict = wire::frame::Verdict { epoch: id.epoch, same, different };
            node.session.frame(Frame::Verdict(verdict), &node.disk, now).unwrap();
            node.work(now, true);
        }
        if round == 0 {
            assert_eq!((node.disk.own.len(), node.disk.epochs.len()), (20, 2), "one epoch for all of them");
        }
        if node.closed.is_some() {
            break;
        }
    }
    let node = &world.nodes[0];
    assert!(node.disk.own.len() <= 400 && node.disk.epochs.len() <= 40, "{} entries", node.disk.own.len());
}

/// The sender's process died after sending and before it recorded the receipts: the peer's claims are proven by
/// hash, nothing is sent twice and no epoch is spent.
#[test]
fn what_the_journal_lost_is_accounted_for_at_the_peer_and_here() {
    let mut world = World::new(21, false);
    let alpha = &mut world.nodes[0];
    for _ in 0..4 {
        alpha.capture(draft(Precedence::Routine, 30));
    }
    // Two was trimmed before the peer was enrolled; three is damaged.
    alpha.disk.own.retain(|o| !(2..=3).contains(&o.entry.header.id.seq.get()));
    alpha.session.lost(Epoch::FIRST, Outcome::Expired, &RangeSet::from(2..=2));
    alpha.session.lost(Epoch::FIRST, Outcome::Quarantined, &RangeSet::from(3..=3));
    world.settle();
    let quarantined = |node: &Node| node.disk.received[&Epoch::FIRST].outcomes[&Outcome::Quarantined].clone();
    assert_eq!(quarantined(&world.nodes[1]), RangeSet::from(3..=3));
    // One more is found to be damaged while the link is up and after it was delivered: the peer's word counts.
    world.nodes[0].session.lost(Epoch::FIRST, Outcome::Quarantined, &RangeSet::from(3..=4));
    world.settle();
    let sent = &world.nodes[0].disk.sent[&Epoch::FIRST];
    assert_eq!(sent.outcomes[&Outcome::Quarantined], RangeSet::from(3..=3));
    assert_eq!(sent.outcomes[&Outcome::Expired], RangeSet::from(2..=2));
    assert_eq!(sent.outcomes[&Outcome::Applied], [1, 4].into_iter().collect());
    assert_eq!(sent.stored, [1, 4].into_iter().collect());
    // Neither side asks or says it again after a restart.
    world.disconnect();
    world.nodes[0].restart();
    world.nodes[0].session.lost(Epoch::FIRST, Outcome::Quarantined, &RangeSet::from(3..=3));
    world.settle();
    assert_eq!(quarantined(&world.nodes[1]), RangeSet::from(3..=3));
    assert!(world.nodes[0].epochs_started.is_empty());
}

/// A purge comes while the session has what it is after in memory: one entry is half sent, others were read ahead of what
/// the link takes. None of it leaves the node any more, and the peer is told why.
#[test]
fn what_was_purged_is_not_sent_out_of_memory_either() {
    let mut world = World::new(41, false);
    let mut noise = vec![0; 9_000];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
    world.nodes[0].capture(Draft { body: noise, ..draft(Precedence::Routine, 0) });
    for _ in 0..6 {
        world.nodes[0].capture(draft(Precedence::Routine, 30));
    }
    world.connect();
    while world.nodes[0].fragments < 3 {
        world.step(1_200);
    }
    let purged: RangeSet = [1, 3, 6].into_iter().collect();
    world.nodes[0].lose_own(&purged);
    world.nodes[0].session.lost(Epoch::FIRST, Outcome::Purged, &purged);
    world.settle_without_connecting();
    let arrived: RangeSet = world.nodes[1].disk.arrived.iter().map(|entry| entry.header.id.seq.get()).collect();
    assert_eq!(arrived, [2, 4, 5, 7].into_iter().collect());
    assert_eq!(world.nodes[1].disk.received[&Epoch::FIRST].outcomes[&Outcome::Purged], purged);
    assert_eq!(world.nodes[0].disk.sent[&Epoch::FIRST].outcomes[&Outcome::Purged], purged);
    // It is told on the next connection too, to a peer that was away meanwhile, and harms nothing there.
    world.nodes[0].session.lost(Epoch::FIRST, Outcome::Purged, &purged);
    world.settle();
    assert_eq!(world.nodes[0].disk.sent[&Epoch::FIRST].outcomes[&Outcome::Applied], arrived);
}

#[test]
fn what_the_peer_lost_before_it_used_it_is_sent_again() {
    for shuffle in [false, true] {
        let mut world = World::new(31, shuffle);
        world.applies = false;
        for n in 0..9 {
            world.nodes[0].capture(draft(Precedence::Routine, 30 + n * 6_000));
        }
        world.settle();
        assert_eq!(world.nodes[1].disk.arrived.len(), 9);
        let lost: RangeSet = [2, 3, 8].into_iter().collect();
        world.nodes[1].lose_received(&lost);
        // Asked for on the connection that is up, and once more on the next one when it breaks meanwhile.
        (0..3).for_each(|_| world.step(400));
        world.settle();
        assert_eq!(world.nodes[1].disk.arrived.len(), 9);
        assert!(world.nodes[0].events.iter().any(|e| matches!(e, LinkEvent::AskedAgain { .. })));
        // The receipts went on from where they were.
        assert_eq!(world.nodes[0].disk.sent[&Epoch::FIRST].stored, RangeSet::from(1..=9));
        world.applies = true;
        world.settle();
        world.check_arrival(0);
        // Nothing of it occupies the window.
        let repeated = world.nodes[0].events.iter().filter(|e| matches!(e, LinkEvent::AskedAgain { .. })).count();
        world.settle();
        let now = world.nodes[0].events.iter().filter(|e| matches!(e, LinkEvent::AskedAgain { .. })).count();
        assert_eq!(now, repeated, "what came is not asked for again");
    }
}

#[test]
fn what_both_sides_lost_ends_as_quarantined_on_both() {
    let mut world = World::new(32, false);
    world.applies = false;
    for _ in 0..4 {
        world.nodes[0].capture(draft(Precedence::Routine, 30));
    }
    world.settle();
    let lost = RangeSet::from(2..=2);
    world.nodes[0].lose_own(&lost);
    world.nodes[1].lose_received(&lost);
    world.nodes[0].session.recall([(Epoch::FIRST, lost.clone())].into());
    world.settle();
    assert_eq!(world.nodes[0].not_returned, [(Epoch::FIRST, lost.clone())], "the peer says that it has it neither");
    world.nodes[0].session.lost(Epoch::FIRST, Outcome::Quarantined, &lost);
    world.applies = true;
    world.settle();
    assert_eq!(world.nodes[1].disk.received[&Epoch::FIRST].outcomes[&Outcome::Quarantined], lost);
    assert_eq!(world.nodes[0].disk.sent[&Epoch::FIRST].outcomes[&Outcome::Quarantined], lost);
}

#[test]
fn what_this_node_lost_comes_back_from_the_peer_that_holds_it() {
    for shuffle in [false, true] {
        let mut world = World::new(33, shuffle);
        world.applies = false;
        for n in 0..6 {
            world.nodes[0].capture(draft(Precedence::Routine, 30 + n * 8_000));
        }
        world.settle();
        let before = world.nodes[0].disk.own.clone();
        // The last one is too large for one frame.
        let lost: RangeSet = [1, 2, 6].into_iter().collect();
        world.nodes[0].lose_own(&lost);
        world.nodes[0].session.recall([(Epoch::FIRST, lost)].into());
        (0..4).for_each(|_| world.step(400));
        world.settle();
        let after = &world.nodes[0].disk.own;
        for o in &before {
            let back = after.iter().find(|a| a.entry.header.id == o.entry.header.id).expect("it came back");
            assert_eq!((&back.bytes, back.hash), (&o.bytes, o.hash));
        }
        world.nodes[0].session.recall(BTreeMap::new());
        world.applies = true;
        world.settle();
        world.check_arrival(0);
    }
}

#[test]
fn a_peer_may_recall_every_number_there_is_without_being_looked_at_one_by_one() {
    use wire::frame::Numbers;
    let mut world = World::new(34, false);
    world.settle();
    let now = world.now();
    let all = Numbers { epoch: Epoch::FIRST, numbers: RangeSet::from(1..=u64::MAX) };
    let node = &mut world.nodes[0];
    node.session.frame(Frame::Recall(all.clone()), &node.disk, now).unwrap();
    let waiting = node.session.waiting(&node.disk, now).unwrap();
    assert!(waiting.control && waiting.classes == [false; 5]);
    let answer = node.session.next_frame(Lane::Control, 1_000, &node.disk, now).unwrap();
    assert_eq!(answer, Some(Frame::Gone(all)));
}

#[test]
fn a_crash_before_the_receipt_was_recorded_costs_only_a_question() {
    let mut world = World::new(6, false);
    for n in 0..20 {
        world.nodes[0].capture(draft(Precedence::Routine, 20 + n));
    }
    let before = world.nodes[0].disk.clone();
    world.settle();
    world.disconnect();
    world.nodes[0].disk = before;
    world.nodes[0].restart();
    world.settle();
    assert_eq!(world.nodes[1].disk.arrived.len(), 20);
    assert!(world.nodes[0].epochs_started.is_empty());
    let resent = |e: &LinkEvent| matches!(e, LinkEvent::Duplicates(_));
    assert!(!world.nodes[1].events.iter().any(resent));
    world.check_arrival(0);
}

#[test]
fn a_peer_that_lost_its_disk_gets_everything_again() {
    let mut world = World::new(7, false);
    for n in 0..20 {
        world.nodes[0].capture(draft(Precedence::Routine, 20 + n));
    }
    world.settle();
    world.disconnect();
    world.nodes[1] = Node::new(BRAVO, ALPHA);
    world.nodes[1].boot = 77;
    world.nodes[1].restart();
    world.nodes[0].disk.sent.clear();
    world.settle();
    assert_eq!(world.nodes[1].disk.arrived.len(), 20);
    assert!(world.nodes[0].events.iter().any(|e| matches!(e, LinkEvent::PeerForgot { .. })));
}

#[test]
fn an_idle_link_carries_a_few_bytes_a_minute() {
    let mut world = World::new(8, false);
    world.settle();
    let (mut bytes, start) = (0, world.now);
    while world.now < start + Duration::from_secs(600) {
        world.now += Duration::from_millis(500);
        let now = world.now();
        for i in [0, 1] {
            world.nodes[i].session.tick(now);
            while let Some(frame) = world.nodes[i].send(240, now) {
                bytes += frame.encode().len() + 1;
                world.nodes[1 - i].take(frame, now);
            }
            world.nodes[i].work(now, true);
            assert_eq!(world.nodes[i].closed, None);
        }
    }
    assert!(bytes <= 60, "{bytes} bytes in ten idle minutes");
}

#[test]
fn every_deadline_that_tick_honours_is_reported() {
    // Jumping from one reported deadline to the next must find the same things as ticking every millisecond.
    let mut world = World::new(9, false);
    let now = world.now();
    world.nodes[0].session.connected(now);
    let mut at = world.now;
    for _ in 0..10 {
        let Some(due) = world.nodes[0].session.poll_timeout() else { break };
        assert!(due > at, "a deadline that passed is reported again");
        at = due;
        world.nodes[0].session.tick(Now { mono: at, wall: WALL });
        world.nodes[0].work(Now { mono: at, wall: WALL }, true);
    }
    assert!(matches!(world.nodes[0].closed, Some((ByeCode::Quiet, _))), "the greeting's deadline");
    assert_eq!(world.nodes[0].session.poll_timeout(), None);

    // Up and idle: keepalive, then quiet. With a receipt due: that first.
    let mut world = World::new(10, false);
    world.settle();
    world.nodes[1].capture(draft(Precedence::Flash, 10));
    let now = world.now();
    let frame = world.nodes[1].send(500, now).unwrap();
    world.nodes[0].take(frame, now);
    world.nodes[0].work(now, true);
    let due = world.nodes[0].session.poll_timeout().unwrap();
    assert_eq!(due, now.mono + link::limits::RECEIPT_DELAY_URGENT, "the receipt");
    let (mut at, mut frames) = (due, Vec::new());
    for _ in 0..100 {
        let now = Now { mono: at, wall: WALL };
        world.nodes[0].session.tick(now);
        frames.extend(world.nodes[0].send(500, now).map(|f| (f.kind(), at - due)));
        world.nodes[0].work(now, true);
        let Some(next) = world.nodes[0].session.poll_timeout() else { break };
        assert!(next > at);
        at = next;
    }
    let (every, quiet) = (link::limits::KEEPALIVE, link::limits::QUIET_MAX);
    let kept_alive = (1..).map(|n| ("keep_alive", n * every)).take_while(|(_, after)| *after < quiet);
    let expected: Vec<_> = [("receipt", Duration::ZERO)].into_iter().chain(kept_alive).collect();
    assert_eq!(frames, expected);
    assert!(matches!(world.nodes[0].closed, Some((ByeCode::Quiet, _))));
}

/// Of its peer's numbers, those that a session says will never come.
fn skipped(session: &mut Session) -> RangeSet {
    let mut skipped = RangeSet::new();
    while let Some(output) = session.poll() {
        if let Output::AccountSkipped { ranges, .. } = output {
            skipped.union_with(&ranges);
        }
    }
    skipped
}

#[test]
fn a_skip_waits_for_what_the_entry_before_it_jumped_over() {
    let mut world = World::new(12, false);
    world.settle();
    let now = world.now();
    let Node { session, disk, .. } = &mut world.nodes[1];
    let place = |n| (Epoch::FIRST, Seq::new(n).unwrap());
    let skip = |n, before| {
        let (ranges, after) = (RangeSet::from(n..=n), vec![(Seq::new(n).unwrap(), place(before))]);
        Frame::Skip(wire::frame::Skip { epoch: Epoch::FIRST, outcome: Outcome::Withheld, ranges, after })
    };
    let id = |n| EntryId { origin: ALPHA, epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() };
    session.frame(skip(3, 2), disk, now).unwrap();
    // Something urgent needs the second, so it goes before the first.
    session.jumped([(id(2), id(1))]);
    session.finals(Epoch::FIRST, Outcome::Applied, &RangeSet::from(2..=2), now);
    session.frame(skip(4, 2), disk, now).unwrap();
    session.frame(skip(5, 3), disk, now).unwrap();
    assert!(skipped(session).is_empty(), "what follows would go before the first");
    session.jumped([]);
    session.finals(Epoch::FIRST, Outcome::Applied, &RangeSet::from(1..=1), now);
    assert_eq!(skipped(session), RangeSet::from(3..=4));
    session.finals(Epoch::FIRST, Outcome::Withheld, &RangeSet::from(3..=4), now);
    assert_eq!(skipped(session), RangeSet::from(5..=5));
}

#[test]
fn a_skip_waits_until_it_is_known_what_jumped() {
    let ended: BTreeMap<Outcome, RangeSet> = [(Outcome::Applied, RangeSet::from(2..=2))].into();
    let received = EpochProgress { stored: RangeSet::from(2..=2), outcomes: ended };
    let config = SessionConfig {
        me: BRAVO,
        name: "n".into(),
        boot: 1,
        peer: ALPHA,
        labels: BTreeSet::new(),
        peer_chunk_secret: secret(ALPHA),
        compression: 3,
    };
    let receiver = ReceiverState { progress: [(Epoch::FIRST, received)].into() };
    let mut session = Session::new(config, SenderState::default(), receiver);
    let mut world = World::new(13, false);
    world.settle();
    let (now, disk) = (world.now(), &world.nodes[1].disk);
    session.connected(now);
    let greet = wire::frame::Greet {
        protocol: wire::frame::PROTOCOL,
        node: ALPHA,
        boot: 1,
        epoch: Epoch::FIRST,
        next_seq: Seq::FIRST,
        name: String::new(),
    };
    session.frame(Frame::Greet(greet), disk, now).unwrap();
    let after = vec![(Seq::new(3).unwrap(), (Epoch::FIRST, Seq::new(2).unwrap()))];
    let ranges = RangeSet::from(3..=3);
    let skip = wire::frame::Skip { epoch: Epoch::FIRST, outcome: Outcome::Withheld, ranges, after };
    session.frame(Frame::Skip(skip), disk, now).unwrap();
    assert!(skipped(&mut session).is_empty());
    session.jumped([]);
    assert_eq!(skipped(&mut session), RangeSet::from(3..=3));
}

#[test]
fn a_hostile_peer_ends_the_connection_and_changes_nothing() {
    let mut world = World::new(11, false);
    world.nodes[0].capture(draft(Precedence::Routine, 10));
    world.settle();
    let now = world.now();
    let mut foreign = (*world.nodes[0].disk.own[0].entry).clone();
    foreign.header.id.origin = NodeId([9; 16]);
    let hostile = [
        Frame::Batch(batch_of(&foreign)),
        Frame::Skip(wire::frame::Skip {
            epoch: Epoch(1),
            outcome: Outcome::Applied,
            ranges: RangeSet::from(1..=9),
            after: Vec::new(),
        }),
        Frame::Greet(wire::frame::Greet {
            protocol: 1,
            node: NodeId([9; 16]),
            boot: 1,
            epoch: Epoch(1),
            next_seq: Seq::FIRST,
            name: String::new(),
        }),
    ];
    for frame in hostile {
        let node = &mut world.nodes[1];
        let error = node.session.frame(frame, &node.disk, now).unwrap_err();
        assert!(!error.to_string().is_empty() && !error.next_step().is_empty());
    }
    let node = &mut world.nodes[1];
    for n in 0..200 {
        let want = wire::frame::Want {
            number: n,
            epoch: Epoch(1),
            seq: Seq::new(n + 1).unwrap(),
            level: 0,
            whole: false,
            indexes: RangeSet::from(0..=u64::MAX),
            partial: None,
        };
        if node.session.frame(Frame::Want(want), &node.disk, now).is_err() {
            assert!(n >= 64);
            return;
        }
    }
    panic!("a peer may ask for any number of files");
}

/// All of them behind one entry that never ends: bounded was only behind how many entries they waited.
#[test]
fn skips_that_wait_are_bounded_whatever_they_wait_for() {
    const MANY: u64 = link::limits::SKIPS_HELD_MAX as u64 + 5_000;
    let mut world = World::new(11, false);
    world.settle();
    let now = world.now();
    let node = &mut world.nodes[1];
    let after = |n| (Seq::new(n).unwrap(), (Epoch(1), Seq::FIRST));
    let skip = |numbers: std::ops::RangeInclusive<u64>| {
        let (epoch, outcome, after) = (Epoch(1), Outcome::Expired, numbers.clone().map(after).collect());
        Frame::Skip(wire::frame::Skip { epoch, outcome, ranges: RangeSet::from(numbers), after })
    };
    let told: Vec<Frame> = (0..MANY / 1_000).map(|k| skip(2 + 1_000 * k..=1_001 + 1_000 * k)).collect();
    // Each comes twice.
    for frame in told.iter().flat_map(|frame| [frame.clone(), frame.clone()]) {
        node.session.frame(frame, &node.disk, now).unwrap();
    }
    let mut counted = RangeSet::new();
    while let Some(output) = node.session.poll() {
        if let Output::AccountSkipped { epoch, outcome, ranges } = output {
            counted.union_with(&ranges);
            node.session.finals(epoch, outcome, &ranges, now);
        }
    }
    let waiting = MANY / 1_000 * 1_000 - counted.count();
    assert_eq!(waiting, link::limits::SKIPS_HELD_MAX as u64, "more count at once");
    // What they waited for ends, and each of them counts, once.
    node.session.finals(Epoch(1), Outcome::Applied, &RangeSet::from(1..=1), now);
    while let Some(output) = node.session.poll() {
        if let Output::AccountSkipped { ranges, .. } = output {
            assert!(counted.intersection(&ranges).is_empty());
            counted.union_with(&ranges);
        }
    }
    assert_eq!(counted.count(), MANY / 1_000 * 1_000);
}

fn batch_of(entry: &Entry) -> wire::Batch {
    let none = wire::History::none(entry.header.id.origin);
    wire::pack_batch([(entry, wire::encode_entry(entry).as_slice())], None, &none, 3)
}

/// Chat of both sides, so much that it becomes history.
fn world_with_history(shuffle: bool) -> World {
    let mut world = World::new(21, shuffle);
    world.settle();
    for _ in 0..3 {
        for node in &mut world.nodes {
            (0..40).for_each(|_| {
                node.capture(draft(Precedence::Routine, 60));
            });
        }
        world.settle();
    }
    world
}

/// A few more entries; the histories that their batches referred to.
fn referred(world: &mut World, class: Precedence) -> Vec<Option<u8>> {
    world.settle();
    world.nodes[0].referred.clear();
    world.nodes[0].capture(draft(class, 60));
    world.settle_without_connecting();
    world.check_arrival(0);
    std::mem::take(&mut world.nodes[0].referred)
}

#[test]
fn what_was_acknowledged_is_referred_to_also_after_both_sides_were_restarted() {
    let mut world = world_with_history(false);
    assert!(referred(&mut world, Precedence::Flash)[0].is_some());
    // An outage changes nothing.
    world.disconnect();
    assert!(referred(&mut world, Precedence::Routine)[0].is_some());
    for restarted in [&[0][..], &[1], &[0, 1]] {
        world.disconnect();
        restarted.iter().for_each(|at| world.nodes[*at].restart());
        world.settle();
        assert!(referred(&mut world, Precedence::Routine)[0].is_some(), "{restarted:?} restarted");
    }
}

#[test]
fn a_history_that_the_peer_has_lost_costs_a_repetition_and_no_entry() {
    let mut world = world_with_history(false);
    let now = world.now();
    // Under way, when the peer drops what it refers to: content of it was purged there.
    let id = world.nodes[0].capture(draft(Precedence::Routine, 60));
    let frame = world.nodes[0].send(1_200, now).unwrap();
    let Frame::Batch(batch) = &frame else { panic!("{}", frame.kind()) };
    assert!(batch.history().is_some());
    world.nodes[1].session.finals(Epoch::FIRST, Outcome::Purged, &RangeSet::from(1..=id.seq.get() - 1), now);
    world.nodes[1].take(frame, now);
    world.nodes[1].work(now, true);
    assert!(!world.nodes[1].disk.foreign.contains_key(&id), "it could not be read");
    while world.nodes[0].disk.sent[&Epoch::FIRST].outcomes[&Outcome::Applied].last() != Some(id.seq.get()) {
        world.step(1_200);
    }
    let lost = |event: &LinkEvent| matches!(event, LinkEvent::HistoryLost { again: 1 });
    assert!(world.nodes[0].events.iter().any(lost));
    // And the one before it is not named again: the next one goes without, or with a new one.
    world.check_arrival(0);
}

#[test]
fn a_peer_with_other_entries_under_the_same_numbers_is_not_referred_to() {
    let mut world = world_with_history(false);
    world.disconnect();
    // As after a restored snapshot: one byte of one entry differs.
    let held = world.nodes[1].disk.held.values_mut().next_back().unwrap();
    let mut other = (*held.entry).clone();
    other.body[0] ^= 1;
    let bytes = wire::encode_entry(&other);
    (held.hash, held.bytes, held.entry) = (wire::entry_hash(&bytes).unwrap(), bytes.into(), Arc::new(other));
    world.nodes.iter_mut().for_each(Node::restart);
    world.settle();
    let names = referred(&mut world, Precedence::Routine);
    assert_eq!(names, [None], "the built-in text always works");
}

#[test]
fn a_history_is_of_one_label() {
    let mut world = World::new(22, false);
    world.settle();
    for n in 0..80 {
        let label = if n % 2 == 0 { "mission" } else { "directory" };
        world.nodes[0].capture(Draft { label, ..draft(Precedence::Routine, 60) });
    }
    world.settle();
    world.nodes[0].referred.clear();
    for label in ["mission", "directory", "mission", "directory"] {
        world.nodes[0].capture(Draft { label, ..draft(Precedence::Routine, 60) });
    }
    world.settle_without_connecting();
    world.check_arrival(0);
    let names = &world.nodes[0].referred;
    assert_eq!(names.len(), 4, "a batch holds one label");
    assert!(names[0] != names[1] && names[0] == names[2] && names[1] == names[3], "{names:?}");
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn parcels_and_a_bad_link_fill_the_same_gaps(
        seed: u64,
        shuffle: bool,
        drafts in prop::collection::vec((any::<bool>(), any_draft(), 0usize..4), 1..50),
        body in 100usize..20_000,
    ) {
        let mut world = World::new(seed, shuffle);
        // Parcels on their way to either node: some never arrive, some arrive late, twice, or in another order.
        let mut under_way: [Vec<Carried>; 2] = Default::default();
        for (left, draft, steps) in drafts {
            world.nodes[usize::from(left)].capture(draft);
            for _ in 0..steps {
                let now = world.now();
                let i = world.rng.random_range(0..2usize);
                match world.rng.random_range(0..12) {
                    0 => world.disconnect(),
                    1 => world.connect(),
                    2 => {
                        world.disconnect();
                        world.nodes[i].restart();
                    }
                    3 | 4 => {
                        let made = world.nodes[i].parcels(body, now);
                        under_way[1 - i].extend(made);
                    }
                    5..8 if !under_way[i].is_empty() => {
                        let at = world.rng.random_range(0..under_way[i].len());
                        let parcel = under_way[i][at].clone();
                        if world.rng.random_bool(0.7) {
                            under_way[i].swap_remove(at);
                        }
                        world.nodes[i].open([parcel], now);
                        world.equation(i);
                    }
                    _ => if world.up { world.step(1_200) },
                }
            }
        }
        if !shuffle {
            (0..2).for_each(|i| {
                let now = world.now();
                let late = std::mem::take(&mut under_way[i]);
                world.nodes[i].open(late, now);
            });
        }
        world.settle();
        (0..2).for_each(|i| world.check_arrival(i));
    }

    #[test]
    fn without_any_link_parcels_there_and_back_account_for_everything(
        drafts in prop::collection::vec(any_draft(), 1..60),
        body in 100usize..20_000,
    ) {
        let mut world = World::new(1, false);
        for draft in drafts {
            world.nodes[0].capture(draft);
        }
        let now = world.now();
        let [alpha, bravo] = &mut world.nodes;
        let there = alpha.parcels(body, now);
        bravo.open(there, now);
        bravo.apply(now);
        let back = bravo.parcels(body, now);
        alpha.open(back, now);
        world.check_arrival(0);
        prop_assert!(world.nodes[0].parcels(body, now).iter().all(|(_, frames)| {
            frames.iter().all(|f| matches!(f, Frame::Receipt(_) | Frame::Claim(_) | Frame::Skip(_)))
        }), "nothing is left to carry");
    }
}

#[test]
fn a_file_goes_by_parcels_and_is_whole_without_a_link() {
    let mut world = World::new(1, false);
    let now = world.now();
    let mut content = vec![0u8; 900_000];
    ChaCha8Rng::seed_from_u64(3).fill_bytes(&mut content);
    let [alpha, bravo] = &mut world.nodes;
    alpha.capture(draft(Precedence::Routine, 40));
    alpha.capture_file(&content);
    let mut parcels = alpha.parcels(100_000, now);
    assert!(parcels.len() > 8, "{} parcels", parcels.len());
    parcels.reverse();
    bravo.open(parcels, now);
    assert!(bravo.disk.incomplete.is_empty(), "every chunk came, whatever the order");
    assert_eq!(bravo.disk.arrived.len(), 2);
}

#[test]
fn a_restored_snapshot_does_not_believe_receipts_for_what_it_never_wrote() {
    let mut world = World::new(1, false);
    let now = world.now();
    let [alpha, _] = &mut world.nodes;
    for _ in 0..3 {
        alpha.capture(draft(Precedence::Routine, 40));
    }
    let snapshot = alpha.disk.clone();
    for _ in 0..2 {
        alpha.capture(draft(Precedence::Routine, 50));
    }
    let old = alpha.parcels(10_000, now);

    // The machine is lost and its disk restored; other entries get the numbers 4 and 5, and go out over a link that
    // ends before they arrive.
    alpha.disk = snapshot;
    alpha.boot = 2;
    alpha.session = session(ALPHA, BRAVO, 2, &alpha.disk);
    for _ in 0..2 {
        alpha.capture(draft(Precedence::Routine, 60));
    }
    world.connect();
    for _ in 0..40 {
        let now = world.now();
        world.now += Duration::from_millis(100);
        // What bravo says arrives; of what alpha says only the greeting does.
        while let Some(frame) = world.nodes[1].send(1_200, now) {
            world.nodes[0].take(frame, now);
        }
        while let Some(frame) = world.nodes[0].send(1_200, now) {
            if !matches!(frame, Frame::Batch(_)) {
                world.nodes[1].take(frame, now);
            }
        }
        world.nodes.iter_mut().for_each(|n| n.work(now, true));
    }
    // Now the medium of before arrives, and bravo holds the old entries under these numbers.
    let now = world.now();
    world.nodes[1].open(old, now);
    assert_eq!(world.nodes[1].disk.arrived.len(), 5);
    world.step(1_200);
    let back = world.nodes[1].parcels(10_000, now);
    world.nodes[0].open(back, now);
    world.disconnect();
    world.settle();
    let bodies: Vec<usize> = world.nodes[1].disk.arrived.iter().map(|e| e.body.len()).collect();
    assert_eq!(
        bodies.iter().filter(|len| **len == 60).count(),
        2,
        "what was written after the restore arrives: {bodies:?}"
    );
    assert_eq!(
        world.nodes[0].epochs_started.iter().map(|(_, again)| again.len()).sum::<usize>(),
        2,
        "under new numbers"
    );
}

#[test]
fn what_was_written_after_a_restore_reaches_the_peer_by_parcels_alone() {
    let mut world = World::new(1, false);
    let now = world.now();
    let [alpha, bravo] = &mut world.nodes;
    for _ in 0..3 {
        alpha.capture(draft(Precedence::Routine, 40));
    }
    let snapshot = alpha.disk.clone();
    for _ in 0..2 {
        alpha.capture(draft(Precedence::Routine, 50));
    }
    bravo.open(alpha.parcels(10_000, now), now);
    alpha.disk = snapshot;
    alpha.boot = 2;
    alpha.session = session(ALPHA, BRAVO, 2, &alpha.disk);
    for _ in 0..2 {
        alpha.capture(draft(Precedence::Routine, 60));
    }
    // There, back with the refusal, there again under new numbers, back with the receipts.
    for _ in 0..2 {
        bravo.open(alpha.parcels(10_000, now), now);
        bravo.apply(now);
        alpha.open(bravo.parcels(10_000, now), now);
    }
    let arrived: Vec<usize> = bravo.disk.arrived.iter().map(|e| e.body.len()).collect();
    assert_eq!(arrived, [40, 40, 40, 50, 50, 60, 60]);
    assert_eq!(alpha.epochs_started.len(), 1, "{:?}", alpha.epochs_started);
    world.check_arrival(0);
}
