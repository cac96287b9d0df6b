//! Valid bytes for the fuzzer to start from, and the small world in which a target plays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{fs, io};

use journal::{AtRest, Draft, Foreign, IndexPlace, Journal, JournalOptions, JournalSettings};
use keys::{NodeKey, SealingKey};
use link::{Lane, Now, ReceiverState, SenderState, Session, SessionConfig};
use model::event::{AcknowledgementState, BookmarkState, FileState, FileStub, PostState, ReactionState, UserState};
use model::{
    ChunkName, Disk as _, EntraKey, Entry, EntryId, Epoch, Event, Guid, Header, Hlc, Id, LocalPos, Manifest, NodeId,
    OpenMode, Outcome, Outgoing, Precedence, Seq, SourcePosition, UnixMillis, Version,
};
use simkit::{PretendDisk, VirtualClock};
use wire::chunk::{Namer, build_manifest};
use wire::parcel::Parcel;

use crate::{ME, Own, PEER};

/// Chunk secret of both nodes.
pub const SECRET: [u8; 32] = [3; 32];

fn namer() -> Namer {
    Namer::new(&SECRET, &"mission".parse().expect("a label"))
}

/// The name under which a node of this world knows a chunk.
pub fn name_of(chunk: &[u8]) -> ChunkName {
    namer().name(chunk)
}

/// Bytes of a store: each chunk with its length before it.
pub fn chunks_of(mut store: &[u8]) -> BTreeMap<ChunkName, Vec<u8>> {
    let mut chunks = BTreeMap::new();
    while let Some((len, rest)) = store.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (chunk, rest) = rest.split_at(len);
        chunks.insert(name_of(chunk), chunk.to_vec());
        store = rest;
    }
    chunks
}

/// Bytes in which some places repeat and others do not, as in real files.
fn text(bytes: usize) -> Vec<u8> {
    let words = ["north", "bridge", "convoy", "grid", "42S", "0815", "medevac", "clear"];
    let mut out = Vec::new();
    let mut n = 1u32;
    while out.len() < bytes {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(words[n as usize >> 29].as_bytes());
        out.push(b' ');
    }
    out
}

fn manifest_of(content: &[u8], chunks: &mut BTreeMap<ChunkName, Vec<u8>>) -> Manifest {
    let put = |name, bytes: &[u8]| {
        chunks.insert(name, bytes.to_vec());
        Ok::<(), io::Error>(())
    };
    build_manifest(content, &namer(), put).expect("memory reads")
}

fn stub(id: Id, size: u64) -> FileStub {
    FileStub {
        id,
        create_at: UnixMillis(1),
        name: "map.txt".into(),
        extension: "txt".into(),
        size,
        mime_type: "text/plain".into(),
        width: 0,
        height: 0,
    }
}

fn events(node: NodeId) -> (Vec<Event>, BTreeMap<ChunkName, Vec<u8>>) {
    let at = UnixMillis(1_700_000_000_000);
    let version = Version { at: Hlc(7 << 16), by: node };
    let [user_id, channel_id, post_id] = [1, 2, 3].map(|n| Id::from_block([n; 16]));
    let user = UserState {
        version,
        id: user_id,
        create_at: at,
        update_at: at,
        delete_at: UnixMillis(0),
        username: "anna".into(),
        email: "anna@example.org".into(),
        nickname: String::new(),
        first_name: "Anna".into(),
        last_name: String::new(),
        position: String::new(),
        locale: "en".into(),
        is_bot: false,
        entra: Some(EntraKey { tenant: Guid([5; 16]), object: Guid([6; 16]) }),
    };
    let mut chunks = BTreeMap::new();
    let content = text(90_000);
    let file = FileState {
        version,
        stub: stub(Id::from_block([4; 16]), content.len() as u64),
        user_id,
        channel_id,
        post_id: Some(post_id),
        content: Some(manifest_of(&content, &mut chunks)),
    };
    let post = PostState {
        version,
        id: post_id,
        channel_id,
        user_id,
        root_id: None,
        create_at: at,
        update_at: at,
        edit_at: UnixMillis(0),
        delete_at: UnixMillis(0),
        message: "convoy at the bridge".into(),
        kind: String::new(),
        props: String::new(),
        hashtags: String::new(),
        is_pinned: false,
        files: vec![file.stub.clone()],
        priority: None,
    };
    let reaction = ReactionState {
        version,
        post_id,
        user_id,
        emoji_name: "thumbsup".into(),
        channel_id,
        create_at: at,
        update_at: at,
        delete_at: UnixMillis(0),
        post_update_at: at,
    };
    let acknowledgement =
        AcknowledgementState { version, post_id, user_id, channel_id, acknowledged_at: at, post_update_at: at };
    let bookmark = BookmarkState {
        version,
        id: post_id,
        create_at: at,
        update_at: at,
        delete_at: UnixMillis(0),
        channel_id,
        owner_id: user_id,
        kind: "file".into(),
        file: Some(file.stub.clone()),
        display_name: "map".into(),
        sort_order: 0,
        link_url: String::new(),
        image_url: String::new(),
        emoji: "map".into(),
        original_id: None,
    };
    (
        vec![
            Event::User(user),
            Event::Post(post),
            Event::Reaction(reaction),
            Event::File(file),
            Event::Acknowledgement(acknowledgement),
            Event::Bookmark(bookmark),
        ],
        chunks,
    )
}

/// Entries of a node: a user, a post, a reaction, a file.
fn entries(node: NodeId) -> Vec<Outgoing> {
    let mut out: Vec<Outgoing> = Vec::new();
    for (n, event) in (1u64..).zip(events(node).0) {
        let captured = Hlc((1_700_000_000_000 + n) << 16);
        let header = Header {
            id: EntryId { origin: node, epoch: Epoch::FIRST, seq: Seq::new(n).expect("numbers begin at 1") },
            source: SourcePosition(captured),
            stream: event.stream(),
            causes: out.last().map(|o| o.entry.header.id).into_iter().collect(),
            after: None,
            precedence: if matches!(event, Event::File(_)) { Precedence::Deferred } else { Precedence::Routine },
            captured,
            origin_time: captured.millis(),
            expiry: None,
            supersedes: None,
            label: "mission".parse().expect("a label"),
            kind: event.kind(),
            mint_salt: 5,
        };
        let entry = Entry { header, body: wire::encode_event(&event, node, 5) };
        let bytes = wire::encode_entry(&entry);
        let hash = wire::entry_hash(&bytes).expect("our own bytes");
        out.push(Outgoing { pos: LocalPos(n), entry: Arc::new(entry), bytes: bytes.into(), hash });
    }
    out
}

/// What this node has to send.
pub static OWN_ENTRIES: LazyLock<Vec<Outgoing>> = LazyLock::new(|| entries(ME));

/// The chunks of its file. The same content as the peer's.
pub static OWN_CHUNKS: LazyLock<BTreeMap<ChunkName, Vec<u8>>> = LazyLock::new(|| events(ME).1);

/// What a well-behaved peer says on a fresh connection.
fn conversation() -> Vec<u8> {
    let own = Own(&entries(PEER));
    let config = SessionConfig {
        me: PEER,
        name: "peer".into(),
        boot: 9,
        peer: ME,
        labels: ["mission"].map(|l| l.parse().expect("a label")).into(),
        peer_chunk_secret: SECRET,
        compression: 1,
    };
    let sender = SenderState {
        epochs: BTreeMap::from([(Epoch::FIRST, own.0.len() as u64)]),
        progress: BTreeMap::new(),
        scan_from: LocalPos::START,
    };
    let mut peer = Session::new(config, sender, ReceiverState::default());
    let now = Now { mono: Duration::from_secs(1), wall: UnixMillis(1_700_000_000_000) };
    peer.connected(now);
    // It resumes once this side has greeted.
    for frame in [
        wire::Frame::Greet(wire::frame::Greet {
            protocol: wire::frame::PROTOCOL,
            node: ME,
            boot: 1,
            epoch: Epoch::FIRST,
            next_seq: Seq::FIRST,
            name: "me".into(),
        }),
        wire::Frame::Ready(0),
        wire::Frame::Want(wire::frame::Want {
            number: 0,
            epoch: Epoch::FIRST,
            seq: Seq::new(4).expect("not 0"),
            level: 0,
            whole: false,
            indexes: (0..=3).collect(),
            partial: None,
        }),
    ] {
        peer.frame(frame, &own, now).expect("the rules are kept");
    }
    peer.hand_over(Precedence::Routine, (0..=255).cycle().take(1_500).collect());
    let mut bytes = Vec::new();
    for lane in [Lane::Control].into_iter().chain(Precedence::ALL.map(Lane::Class)) {
        while let Some(frame) = peer.next_frame(lane, 1_200, &own, now).expect("memory reads") {
            frame.write_to(&mut bytes);
        }
    }
    bytes
}

/// Puts a file on a pretend disk.
pub fn put_file(disk: &PretendDisk, path: &Path, bytes: &[u8]) {
    disk.create_dir_all(path.parent().expect("a file stands in a directory")).expect("the disk works");
    let file = disk.open(path, OpenMode::Create).expect("a new name");
    file.append(bytes).expect("the disk works");
}

/// A journal's first segment: own and received entries, chunks, a consumer with receipts.
fn segment() -> Vec<u8> {
    let disk = PretendDisk::default();
    let dir = Path::new("/journal");
    let options = JournalOptions {
        dir: dir.to_owned(),
        node: ME,
        disk: Arc::new(disk.clone()),
        clock: Arc::new(VirtualClock::default()),
        settings: JournalSettings::default(),
        index: IndexPlace::Memory,
        at_rest: AtRest::Plain,
    };
    let (journal, _) = Journal::open(options).expect("a new journal");
    let consumer = journal.consumer("peer:sample", true).expect("it is registered");
    for outgoing in entries(ME) {
        let Header { id: _, source, stream, causes, precedence, captured, origin_time, expiry, .. } =
            outgoing.entry.header.clone();
        let Header { supersedes, label, kind, mint_salt, .. } = outgoing.entry.header.clone();
        let draft = Draft {
            source,
            follows: None,
            stream,
            causes,
            needs: Vec::new(),
            precedence,
            captured,
            origin_time,
            expiry,
            supersedes,
            label,
            kind,
            mint_salt,
            body: outgoing.entry.body.clone(),
            object: None,
            chunks: None,
        };
        let appended = journal.append_own(draft).wait().expect("there is room");
        consumer.record_stored(appended.id.epoch, &(appended.id.seq.get()..=appended.id.seq.get()).into());
    }
    for outgoing in entries(PEER) {
        let foreign = Foreign { bytes: outgoing.bytes, object: None };
        journal.append_foreign(foreign).wait().expect("there is room");
    }
    for (name, bytes) in OWN_CHUNKS.iter() {
        journal.put_chunk(*name, bytes).wait().expect("there is room");
    }
    journal.flush().wait().expect("the disk works");
    let file = disk.open(&dir.join("segments/00000001.seg"), OpenMode::Read).expect("the first segment");
    let mut bytes = vec![0; file.len().expect("the disk works") as usize];
    file.read_at(&mut bytes, 0).expect("the disk works");
    bytes
}

/// Sealed parcels: one of entries, one with nothing in it.
fn parcels() -> Vec<Vec<u8>> {
    let (origin, sealing) = (NodeKey::generate(), SealingKey::generate());
    let skip = wire::Frame::Skip(wire::frame::Skip {
        epoch: Epoch::FIRST,
        outcome: Outcome::Withheld,
        ranges: (3..=900).into(),
        after: vec![(Seq::FIRST, (Epoch::FIRST, Seq::FIRST))],
    });
    let header = |number| wire::parcel::Header {
        to: PEER,
        from: origin.node_id(),
        boot: 7,
        number,
        precedence: Precedence::Immediate,
        labels: ["mission"].map(|l| l.parse().expect("a label")).into(),
    };
    let seal = |number, frames: &[_]| Parcel::seal(header(number), frames, sealing.public(), &origin).into_bytes();
    vec![seal(1, &[skip, wire::Frame::Ready(0)]), seal(2, &[])]
}

/// Writes the corpora: one folder for each target.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    let put = |target: &str, name: usize, bytes: &[u8]| {
        let dir = dir.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("sample-{name}")), bytes)
    };
    let own = entries(PEER);
    for (n, outgoing) in own.iter().enumerate() {
        put("entry", n, &outgoing.bytes)?;
    }
    put("segment", 0, &segment())?;
    let talk = conversation();
    put("session", 0, &talk)?;
    let mut buffer = wire::FrameBuffer::default();
    buffer.push(&talk);
    let mut n = 0;
    while let Ok(Some(frame)) = buffer.next_frame() {
        put("frame", n, &frame.encode())?;
        n += 1;
    }
    let contents = [text(0), text(10), text(20_000), text(400_000), include_bytes!("sample.zip").to_vec()];
    for (n, content) in contents.into_iter().enumerate() {
        let mut chunks = BTreeMap::new();
        let manifest = minicbor::to_vec(manifest_of(&content, &mut chunks)).expect("writing to a Vec cannot fail");
        let mut sample = (manifest.len() as u16).to_le_bytes().to_vec();
        sample.extend(manifest);
        for chunk in chunks.values() {
            sample.extend((chunk.len() as u16).to_le_bytes());
            sample.extend(chunk);
        }
        put("content", n, &sample)?;
    }
    for (n, parcel) in parcels().iter().enumerate() {
        put("parcel", n, parcel)?;
    }
    let mut payload = vec![7; 40];
    payload.extend(b"\x05alpha\x0ehub.local:7800\0");
    put("token", 0, &payload[..payload.len() - 1])
}
