//! What the fuzzer feeds: each function takes foreign bytes and must neither panic nor grow without bound.
//!
//! A target also asserts what must hold for bytes that are accepted: they encode to themselves again, content is
//! only returned when its hash fits, a session keeps answering.

pub mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use journal::{Reader, Which};
use keys::{DataKeys, Invite};
use link::{Lane, Now, Output, ReceiverState, SenderState, Session, SessionConfig};
use model::{
    ChunkName, EntryHash, EntryId, Epoch, LocalPos, Manifest, NodeId, Outbound, OutboundError, Outgoing, Precedence,
    Scan, UnixMillis,
};
use simkit::PretendDisk;
use wire::frame::Custody;
use wire::{Frame, FrameBuffer, History};

/// This node, and the peer whose bytes come in.
pub const ME: NodeId = NodeId([1; 16]);
pub const PEER: NodeId = NodeId([2; 16]);

/// An entry and the event in its body, as they stand in a segment or a batch.
pub fn entry(data: &[u8]) {
    let Ok(entry) = wire::decode_entry(data) else { return };
    assert_eq!(wire::encode_entry(&entry), data, "what decodes is canonical");
    wire::entry_hash(data).expect("what decodes can be hashed");
    if let Ok(event) = wire::decode_event(&entry) {
        let origin = entry.header.id.origin;
        let body = wire::encode_event(&event, origin, entry.header.mint_salt);
        let again = model::Entry { body, ..entry.clone() };
        assert_eq!(wire::decode_event(&again).as_ref(), Ok(&event), "an event survives its bytes");
        event.needs();
        event.object().key();
    }
}

/// Frames, one by one and as a stream; batches also as if they referred to a history.
pub fn frame(data: &[u8]) {
    static HISTORY: LazyLock<History> = LazyLock::new(|| {
        let small = samples::OWN_ENTRIES.iter().filter(|o| o.bytes.len() <= wire::HISTORY_ENTRY_BYTES_MAX);
        let label = small.clone().next().map(|o| o.entry.header.label.clone());
        let same = small.filter(|o| Some(&o.entry.header.label) == label.as_ref());
        History::of(ME, same.map(|o| (&*o.bytes, o.hash))).expect("a history of own entries")
    });
    wire::frame::fuzz_frame(data);
    if let Ok(Frame::Batch(batch)) = Frame::decode(data)
        && let Ok(entries) = batch.entries(&HISTORY)
    {
        for (entry, bytes) in entries {
            assert_eq!(wire::encode_entry(&entry), bytes, "what comes with an entry are its canonical bytes");
        }
    }
}

/// A parcel and its header, before any key is asked.
pub fn parcel(data: &[u8]) {
    wire::parcel::fuzz_parcel(data);
}

/// A hostile manifest over hostile chunks: nothing comes out but content whose hash fits.
pub fn content(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((manifest, store)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len))) else { return };
    let Ok(manifest) = minicbor::decode::<Manifest>(manifest) else { return };
    let chunks = samples::chunks_of(store);
    let mut out = Vec::new();
    let get = |name: &ChunkName| Ok::<_, ()>(chunks.get(name).cloned());
    let write = |bytes: &[u8]| {
        assert!((out.len() + bytes.len()) as u64 <= manifest.content_bytes, "more than announced was written");
        out.extend_from_slice(bytes);
        Ok(())
    };
    if wire::chunk::read_manifest(&manifest, get, write).is_ok() {
        assert_eq!(blake3::hash(&out), manifest.content_hash, "another content was accepted");
    }
}

/// A segment file whose checksums are not compared, so that whatever stands in a frame is read.
pub fn segment(data: &[u8]) {
    use journal::mutations::{Mutation, with};
    with(Mutation::SkipFrameCrc, || {
        let disk = PretendDisk::default();
        let dir = Path::new("/journal");
        samples::put_file(&disk, &dir.join("segments/00000001.seg"), data);
        let Ok(reader) = Reader::open(dir, Arc::new(disk), &DataKeys::none()) else { return };
        let all = LocalPos::START..LocalPos(u64::MAX);
        if let Ok(listed) = reader.list(all, 1_000) {
            for entry in listed.into_iter().take(8) {
                let _ = reader.show(Which::Id(entry.entry.header.id));
            }
        }
        let _ = reader.accounting();
        let _ = reader.verify(&mut |_| {});
        reader.stats();
    });
}

/// An enrolment token with a right checksum around foreign bytes, and foreign text.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<Invite>();
    }
    let check = blake3::hash(data);
    let sealed = [data, &check.as_bytes()[..4]].concat();
    let text = format!("hf1.{}", BASE32_NOPAD.encode(&sealed).to_ascii_lowercase());
    if let Ok(invite) = text.parse::<Invite>() {
        assert_eq!(*invite.to_token(), text, "a token survives its text");
    }
}

/// A whole conversation with a peer that says anything. What the session wants stored is stored at once.
pub fn session(data: &[u8]) {
    let own = Own(&samples::OWN_ENTRIES);
    let labels = ["mission", "directory"].map(|l| l.parse().expect("a label")).into();
    let config = SessionConfig {
        me: ME,
        name: "fuzzed".into(),
        boot: 1,
        peer: PEER,
        labels,
        peer_chunk_secret: samples::SECRET,
        compression: 1,
    };
    let sender = SenderState {
        epochs: BTreeMap::from([(Epoch::FIRST, own.0.len() as u64)]),
        progress: BTreeMap::new(),
        scan_from: LocalPos::START,
    };
    let mut session = Session::new(config, sender, ReceiverState::default());
    let mut now = Now { mono: Duration::from_secs(1), wall: UnixMillis(1_700_000_000_000) };
    session.connected(now);
    let mut buffer = FrameBuffer::default();
    let mut stored = BTreeSet::new();
    buffer.push(data);
    while let Ok(Some(frame)) = buffer.next_frame() {
        now.mono += Duration::from_millis(40);
        if session.frame(frame, &own, now).is_err() {
            session.disconnected();
            session.connected(now);
        }
        carry_out(&mut session, &mut stored, now);
        session.tick(now);
        for lane in [Lane::Control].into_iter().chain(Precedence::ALL.map(Lane::Class)) {
            for _ in 0..8 {
                let Some(frame) = session.next_frame(lane, 1_200, &own, now).expect("the own journal reads") else {
                    break;
                };
                assert!(frame.encode().len() <= 1_200, "{} is larger than its grant", frame.kind());
            }
        }
        carry_out(&mut session, &mut stored, now);
    }
}

fn carry_out(session: &mut Session, stored: &mut BTreeSet<EntryId>, now: Now) {
    while let Some(output) = session.poll() {
        match output {
            Output::Store(incoming) => {
                let id = incoming.entry.header.id;
                assert_eq!(id.origin, PEER, "an entry of a third node is to be stored");
                assert!(stored.insert(id), "{id} is to be stored twice");
                session.entries_stored(&[id], now);
            }
            Output::StoreChunk { name, bytes, base: _, file: _ } => {
                assert_eq!(samples::name_of(&bytes), name, "a chunk is to be stored under another name");
                session.chunks_stored(&[name]);
            }
            Output::AccountSkipped { epoch, outcome, ranges } => session.finals(epoch, outcome, &ranges, now),
            Output::StartEpoch { at_least, .. } => session.own_epoch(at_least, 0),
            Output::TakeParcel { name, .. } => session.parcel_answered(name, Custody::Taken),
            Output::RetainChunk(_)
            | Output::RecordStored { .. }
            | Output::RecordOutcome { .. }
            | Output::PeerGreeted { .. }
            | Output::FileComplete(_)
            | Output::FileUnavailable(_)
            | Output::OfferFiles
            | Output::Close { .. }
            | Output::Restore(_)
            | Output::NotReturned { .. }
            | Output::ParcelKept { .. }
            | Output::Event(_) => {}
        }
    }
}

/// This node's own entries, in memory.
struct Own<'a>(&'a [Outgoing]);

impl Outbound for Own<'_> {
    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError> {
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, from);
        for outgoing in self.0.iter().filter(|o| o.pos >= from) {
            if outgoing.entry.header.precedence == class {
                if !entries.is_empty() && bytes + outgoing.bytes.len() > bytes_max {
                    return Ok(Scan { entries, next });
                }
                bytes += outgoing.bytes.len();
                entries.push(outgoing.clone());
            }
            next = outgoing.pos.next();
        }
        Ok(Scan { entries, next })
    }

    fn entry(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.0.iter().find(|o| o.entry.header.id == id).cloned())
    }

    fn received(&self, _id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(None)
    }

    fn superseded(&self, _entry: &Outgoing) -> bool {
        false
    }

    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        Ok(samples::OWN_CHUNKS.get(name).map(|bytes| Arc::from(bytes.as_slice())))
    }

    fn chunk_base(&self, _name: &ChunkName) -> Result<Option<ChunkName>, OutboundError> {
        Ok(None)
    }

    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError> {
        Ok(samples::OWN_CHUNKS.contains_key(name))
    }

    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        Ok(self.0.iter().find(|o| o.entry.header.id == id).map(|o| o.hash))
    }
}
