//! What stands above a connection: a link session over a journal in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::{Now, Output, ReceiverState, SenderState, Session, SessionConfig, Waiting};
use model::event::{FileState, FileStub};
use model::{
    ChunkName, Entry, EntryHash, EntryId, Epoch, Event, Header, Hlc, Id, Kind, Label, LocalPos, NodeId, Outbound,
    OutboundError, Outgoing, Precedence, Scan, Seq, SourcePosition, StreamId, UnixMillis, Version,
};
use wire::Frame;
use wire::frame::Join;

use crate::spare;

const WALL: UnixMillis = UnixMillis(1_700_000_000_000);

/// Everything is durable at once.
#[derive(Default)]
struct Journal {
    own: Vec<Outgoing>,
    came: BTreeMap<EntryId, Outgoing>,
    chunks: BTreeMap<ChunkName, Arc<[u8]>>,
}

impl Outbound for Journal {
    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError> {
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, from);
        for own in self.own.iter().filter(|own| own.pos >= from) {
            if own.entry.header.precedence == class {
                if !entries.is_empty() && bytes + own.bytes.len() > bytes_max {
                    return Ok(Scan { entries, next });
                }
                bytes += own.bytes.len();
                entries.push(own.clone());
            }
            next = own.pos.next();
        }
        Ok(Scan { entries, next })
    }

    fn entry(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.own.iter().find(|own| own.entry.header.id == id).cloned())
    }

    fn received(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.came.get(&id).cloned())
    }

    fn superseded(&self, _entry: &Outgoing) -> bool {
        false
    }

    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        Ok(self.chunks.get(name).cloned())
    }

    fn chunk_base(&self, _name: &ChunkName) -> Result<Option<ChunkName>, OutboundError> {
        Ok(None)
    }

    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError> {
        Ok(self.chunks.contains_key(name))
    }

    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        Ok(self.entry(id)?.or_else(|| self.came.get(&id).cloned()).map(|entry| entry.hash))
    }
}

/// One end's conversation.
pub(super) struct Talk {
    me: NodeId,
    session: Session,
    journal: Journal,
    greeted: bool,
    /// What overtook the greeting.
    early: Vec<Frame>,
    /// Bytes of slices that were handed to the connection.
    pub(super) sliced: u64,
    /// Bytes of chunks that are held and came from the peer, and files of its that are complete.
    pub(super) content: u64,
    pub(super) files: usize,
}

impl Talk {
    pub(super) fn new(me: u8, peer: u8) -> Self {
        let (me, peer) = (NodeId([me; 16]), NodeId([peer; 16]));
        let config = SessionConfig {
            me,
            name: "alpha".to_owned(),
            boot: u64::from(me.0[0]),
            peer,
            labels: [label()].into(),
            peer_chunk_secret: peer.0.repeat(2).try_into().expect("twice 16"),
            compression: 3,
        };
        let sender = SenderState { epochs: [(Epoch::FIRST, 0)].into(), ..SenderState::default() };
        let mut session = Session::new(config, sender, ReceiverState::default());
        session.watched_below();
        session.jumped([]);
        Self {
            me,
            session,
            journal: Journal::default(),
            greeted: false,
            early: Vec::new(),
            sliced: 0,
            content: 0,
            files: 0,
        }
    }

    /// A file is captured.
    pub(super) fn share(&mut self, content: &[u8]) {
        let secret: [u8; 32] = self.me.0.repeat(2).try_into().expect("twice 16");
        let namer = wire::chunk::Namer::new(&secret, &label());
        let chunks = &mut self.journal.chunks;
        let manifest = wire::chunk::build_manifest::<std::io::Error>(content, &namer, |name, bytes| {
            chunks.insert(name, bytes.into());
            Ok(())
        });
        let id = Id::from_block([4; 16]);
        let stub = FileStub {
            id,
            name: "recording.bin".to_owned(),
            extension: "bin".to_owned(),
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
            content: Some(manifest.expect("memory can be read")),
        };
        let number = self.journal.own.len() as u64 + 1;
        let captured = Hlc((WALL.0 as u64) << 16);
        let header = Header {
            id: EntryId { origin: self.me, epoch: Epoch::FIRST, seq: Seq::new(number).expect("from 1") },
            source: SourcePosition(captured),
            stream: StreamId::Channel(id),
            causes: Vec::new(),
            after: None,
            precedence: Precedence::Deferred,
            captured,
            origin_time: WALL,
            expiry: None,
            supersedes: None,
            label: label(),
            kind: Kind::File,
            mint_salt: 5,
        };
        let entry = Entry { header, body: wire::encode_event(&Event::File(state), self.me, 5) };
        let bytes = wire::encode_entry(&entry);
        let hash = wire::entry_hash(&bytes).expect("it was just encoded");
        self.journal.own.push(Outgoing { pos: LocalPos(number), entry: Arc::new(entry), bytes: bytes.into(), hash });
        self.session.own_epoch(Epoch::FIRST, number);
        self.session.appended();
    }

    /// A connection is there. The frame that says to which session it belongs comes first.
    pub(super) fn connected(&mut self, now: Duration) -> Bytes {
        self.session.connected(at(now));
        Frame::Join(Join { session: 1, keepalive_seconds: 60, link: "main".to_owned() }).encode().into()
    }

    /// Takes a frame as the keeper does. True when it is the peer's first word on the connection.
    pub(super) fn take(&mut self, bytes: &[u8], now: Duration) -> bool {
        let frame = Frame::decode(bytes).expect("the peer sends frames");
        if matches!(frame, Frame::Join(_)) {
            return !self.session.is_connected();
        }
        if !self.greeted && !matches!(frame, Frame::Greet(_)) {
            self.early.push(frame);
            return false;
        }
        let mut frames = vec![frame];
        if !std::mem::replace(&mut self.greeted, true) {
            frames.append(&mut self.early);
        }
        for frame in frames {
            self.session.frame(frame, &self.journal, at(now)).expect("the peer keeps to the rules");
            self.perform(now);
        }
        false
    }

    pub(super) fn waiting(&mut self, now: Duration) -> Waiting {
        self.session.tick(at(now));
        self.perform(now);
        self.session.waiting(&self.journal, at(now)).expect("memory can be read")
    }

    /// The next frame, and whether a start waits for it.
    pub(super) fn next_frame(&mut self, lane: link::Lane, bytes_max: usize, now: Duration) -> Option<(Bytes, bool)> {
        let frame = self.session.next_frame(lane, bytes_max, &self.journal, at(now)).expect("memory can be read");
        self.perform(now);
        if let Some(Frame::Slice(slice)) = &frame {
            self.sliced += slice.part.bytes.len() as u64;
        }
        let greeted = self.greeted;
        frame.map(|frame| (frame.encode().into(), spare::is_hurried(&frame) || !greeted))
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.session.poll_timeout()
    }

    fn perform(&mut self, now: Duration) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Store(incoming) => {
                    let id = incoming.entry.header.id;
                    let (entry, bytes, hash) = (incoming.entry, incoming.bytes, incoming.hash);
                    self.journal.came.insert(id, Outgoing { pos: LocalPos(1), entry, bytes, hash });
                    self.session.entries_stored(&[id], at(now));
                }
                Output::StoreChunk { name, bytes, .. } => {
                    self.content += bytes.len() as u64;
                    self.journal.chunks.insert(name, bytes.into());
                    self.session.chunks_stored(&[name]);
                }
                Output::FileComplete(_) => self.files += 1,
                Output::RetainChunk(_)
                | Output::RecordStored { .. }
                | Output::RecordOutcome { .. }
                | Output::AccountSkipped { .. }
                | Output::PeerGreeted { .. }
                | Output::OfferFiles
                | Output::Event(_) => {}
                Output::StartEpoch { .. }
                | Output::FileUnavailable(_)
                | Output::Close { .. }
                | Output::Restore(_)
                | Output::NotReturned { .. }
                | Output::TakeParcel { .. }
                | Output::ParcelKept { .. } => panic!("nothing is lost here: {output:?}"),
            }
        }
    }
}

fn label() -> Label {
    "mission".parse().expect("a label")
}

fn at(now: Duration) -> Now {
    Now { mono: now, wall: WALL }
}
