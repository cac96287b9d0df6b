//! Two sessions that talk through memory, and what they said in bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use link::{EpochProgress, Lane, Now, Output, ReceiverState, SenderState, Session, SessionConfig};
use model::{
    ChunkName, Entry, EntryHash, EntryId, Epoch, Label, LocalPos, NodeId, Outbound, OutboundError, Outcome, Outgoing,
    Precedence, Scan, UnixMillis,
};

use super::Flow;

/// The side that writes.
pub(super) const EDGE: NodeId = NodeId([0x42; 16]);
const HUB: NodeId = NodeId([0x17; 16]);

/// Largest frame that is granted: what 50 ms are worth at 512 kbit/s and more.
const GRANT_BYTES: usize = 4_000;

/// Edge and hub with a connection that loses nothing.
pub(super) struct Pair {
    sides: [Side; 2],
    compression: i32,
    now: Now,
    entry_bytes: usize,
    history_bytes: usize,
}

/// A node: what is durable, and the session.
struct Side {
    me: NodeId,
    peer: NodeId,
    disk: Disk,
    session: Session,
}

#[derive(Default)]
struct Disk {
    own: Vec<Outgoing>,
    by_id: BTreeMap<EntryId, usize>,
    held: BTreeMap<EntryId, Outgoing>,
    /// Of own entries, at the peer.
    sent: BTreeMap<Epoch, EpochProgress>,
    /// Of the peer's entries, here.
    received: BTreeMap<Epoch, EpochProgress>,
}

impl Outbound for Disk {
    fn chunk_base(&self, _: &ChunkName) -> Result<Option<ChunkName>, OutboundError> {
        Ok(None)
    }

    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError> {
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, from);
        let first = usize::try_from(from.0).map_or(usize::MAX, |n| n - 1);
        for o in self.own.iter().skip(first) {
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
        Ok(self.by_id.get(&id).map(|at| self.own[*at].clone()))
    }

    fn received(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.held.get(&id).cloned())
    }

    fn superseded(&self, _: &Outgoing) -> bool {
        false
    }

    fn chunk(&self, _: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        Ok(None)
    }

    fn holds_chunk(&self, _: &ChunkName) -> Result<bool, OutboundError> {
        Ok(false)
    }

    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        let own = self.by_id.get(&id).map(|at| self.own[*at].hash);
        Ok(own.or_else(|| self.held.get(&id).map(|o| o.hash)))
    }
}

impl Side {
    fn new(me: NodeId, peer: NodeId, boot: u64, compression: i32, disk: Disk) -> Self {
        let labels: BTreeSet<Label> = [Label::directory(), "mission".parse().expect("a label")].into();
        let (name, peer_chunk_secret) = ("node".to_owned(), [0; 32]);
        let config = SessionConfig { me, name, boot, peer, labels, peer_chunk_secret, compression };
        let epochs = BTreeMap::from([(Epoch::FIRST, disk.own.len() as u64)]);
        let sender = SenderState { epochs, progress: disk.sent.clone(), scan_from: LocalPos::START };
        let session = Session::new(config, sender, ReceiverState { progress: disk.received.clone() });
        Self { me, peer, disk, session }
    }

    fn work(&mut self, now: Now) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Store(incoming) => {
                    let id = incoming.entry.header.id;
                    let (pos, entry, bytes, hash) = (LocalPos(1), incoming.entry, incoming.bytes, incoming.hash);
                    self.disk.held.insert(id, Outgoing { pos, entry, bytes, hash });
                    let progress = self.disk.received.entry(id.epoch).or_default();
                    progress.stored.insert(id.seq.get());
                    progress.outcomes.entry(Outcome::Applied).or_default().insert(id.seq.get());
                    self.session.entries_stored(&[id], now);
                    self.session.finals(id.epoch, Outcome::Applied, &(id.seq.get()..=id.seq.get()).into(), now);
                }
                Output::RecordStored { epoch, ranges } => {
                    self.disk.sent.entry(epoch).or_default().stored.union_with(&ranges);
                }
                Output::RecordOutcome { epoch, outcome, ranges } => {
                    self.disk.sent.entry(epoch).or_default().outcomes.entry(outcome).or_default().union_with(&ranges);
                }
                Output::PeerGreeted { .. } | Output::Event(_) | Output::OfferFiles => {}
                other @ (Output::StoreChunk { .. }
                | Output::RetainChunk(_)
                | Output::AccountSkipped { .. }
                | Output::StartEpoch { .. }
                | Output::FileComplete(_)
                | Output::FileUnavailable(_)
                | Output::Close { .. }
                | Output::Restore(_)
                | Output::NotReturned { .. }
                | Output::TakeParcel { .. }
                | Output::ParcelKept { .. }) => panic!("nothing of the kind happens between these two: {other:?}"),
            }
        }
    }

    fn next_frame(&mut self, now: Now) -> Option<(Lane, wire::Frame)> {
        let waiting = self.session.waiting(&self.disk, now).expect("memory can be read");
        let lane = if waiting.control {
            Lane::Control
        } else {
            Lane::Class(*Precedence::ALL.iter().find(|class| waiting.classes[class.index()])?)
        };
        let frame = self.session.next_frame(lane, GRANT_BYTES, &self.disk, now).expect("memory can be read");
        frame.map(|frame| (lane, frame))
    }
}

impl Pair {
    /// Two nodes that know nothing yet, connected.
    pub(super) fn new(compression: i32) -> Self {
        let side = |me, peer| Side::new(me, peer, 1, compression, Disk::default());
        let now = Now { mono: Duration::from_secs(1), wall: UnixMillis(1_790_000_000_000) };
        let mut pair =
            Self { sides: [side(EDGE, HUB), side(HUB, EDGE)], compression, now, entry_bytes: 0, history_bytes: 0 };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.session.connected(now));
        self.settle();
    }

    /// Both processes end and start again: what is durable remains.
    pub(super) fn restart(&mut self) {
        for side in &mut self.sides {
            let disk = std::mem::take(&mut side.disk);
            *side = Side::new(side.me, side.peer, 2, self.compression, disk);
        }
        self.connect();
    }

    /// The edge captures an entry.
    pub(super) fn append(&mut self, entry: Entry) {
        let edge = &mut self.sides[0];
        let bytes = wire::encode_entry(&entry);
        let hash = wire::entry_hash(&bytes).expect("what was encoded can be read");
        let (id, pos) = (entry.header.id, LocalPos(edge.disk.own.len() as u64 + 1));
        edge.disk.by_id.insert(id, edge.disk.own.len());
        edge.disk.own.push(Outgoing { pos, entry: Arc::new(entry), bytes: bytes.into(), hash });
        edge.session.own_epoch(id.epoch, id.seq.get());
        edge.session.appended();
    }

    /// Lets both talk until neither has anything left to say; what arrived is what was sent.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let mut said = false;
            for at in [0, 1] {
                while let Some((_, frame)) = self.sides[at].next_frame(self.now) {
                    said = true;
                    self.count(at, &frame);
                    let now = self.now;
                    self.sides[at].work(now);
                    let to = &mut self.sides[1 - at];
                    to.session.frame(frame, &to.disk, now).expect("the two understand each other");
                    to.work(now);
                }
            }
            quiet = if said { 0 } else { quiet + 1 };
            self.now.mono += Duration::from_millis(250);
            let now = self.now;
            self.sides.iter_mut().for_each(|side| side.session.tick(now));
        }
        let [edge, hub] = &self.sides;
        let same = |o: &Outgoing| hub.disk.held.get(&o.entry.header.id).is_some_and(|held| held.hash == o.hash);
        let tail = edge.disk.own.len().saturating_sub(128);
        assert!(edge.disk.own[tail..].iter().all(same), "an entry arrived as another, or not at all");
    }

    fn count(&mut self, from: usize, frame: &wire::Frame) {
        let len = frame.encode().len();
        match frame.kind() {
            "batch" | "fragment" if from == 0 => self.entry_bytes += len,
            "history" | "history_held" | "history_gone" => self.history_bytes += len,
            _ => {}
        }
    }

    /// Bytes so far.
    pub(super) fn sent(&self) -> (usize, usize) {
        (self.entry_bytes, self.history_bytes)
    }

    /// What `posts` posts cost since then.
    pub(super) fn since(&self, (entries, history): (usize, usize), posts: usize) -> Flow {
        Flow { posts, entry_bytes: self.entry_bytes - entries, history_bytes: self.history_bytes - history }
    }
}
