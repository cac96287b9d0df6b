//! An entry as bytes.
//!
//! ```text
//! entry   = varint header length | header | body (the rest)
//! header  = layout version (1)
//!           flags        bits 0-2 precedence, 3 has expiry, 4 has supersession key,
//!                        5-6 stream (0 directory, 1 team, 2 channel, 3 purge)
//!           same         bit 0 origin, 1 epoch, 2 label, 3 salt, 4 stream: as in the base; 0 in canonical bytes
//!           kind         u8
//!           origin       16 bytes                    unless same
//!           epoch        varint                      unless same
//!           seq          varint; with a base of the same epoch: zigzag difference to it
//!           label        varint length, text         unless same
//!           mint salt    varint                      unless same
//!           captured     8 bytes little-endian; with a base: zigzag difference to it
//!           source       zigzag difference to captured
//!           origin time  zigzag difference to captured's milliseconds
//!           expiry       zigzag difference to origin time, if any
//!           supersedes   8 bytes little-endian, if any
//!           stream id    CBOR Id                     for team and channel, unless same
//!           causes       varint count, then each:
//!                          n >= 2: same origin and epoch, seq lower by n - 1
//!                          1, epoch, seq: same origin
//!                          0, 16 bytes origin, epoch, seq
//!           after        varint: 0 none
//!                          n >= 2: same epoch, seq lower by n - 1
//!                          1, epoch, seq
//! ```
//!
//! The *base* is the entry before in the same batch frame: neighbours share almost everything. At rest and for the
//! hash there is no base; those bytes are the canonical ones.

use keys::{EntryIds, IdCipher};
use model::{
    Cause, EntryHash, EntryId, Epoch, Event, Header, Hlc, Id, Kind, Label, NodeId, Precedence, Seq, SourcePosition,
    StreamId, SupersessionKey, UnixMillis,
};

pub use model::Entry;

use crate::WireError;
use crate::reader::{Reader, put_cbor, put_varint, put_zigzag};

/// Largest entry. A post has at most 16 383 characters (64 KiB as UTF-8) and props of 800 kB (Mattermost's
/// `POST_PROPS_MAX_USER_RUNES`); larger content belongs into a file.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Most causes of one entry: channel, author, thread root and room for what events need later.
pub const CAUSES_MAX: usize = 64;

/// Largest header: 64 causes of 16 + 5 + 10 bytes, a label of 32 bytes and about 90 bytes of the rest.
pub const HEADER_BYTES_MAX: usize = 4_096;

const VERSION: u8 = 1;
const _: () = assert!(CAUSES_MAX * 32 + Label::MAX_LEN + 128 <= HEADER_BYTES_MAX, "the largest header fits its cap");

const HAS_EXPIRY: u8 = 1 << 3;
const HAS_KEY: u8 = 1 << 4;
const STREAM_SHIFT: u8 = 5;

const SAME_ORIGIN: u8 = 1;
const SAME_EPOCH: u8 = 1 << 1;
const SAME_LABEL: u8 = 1 << 2;
const SAME_SALT: u8 = 1 << 3;
const SAME_STREAM: u8 = 1 << 4;

/// The canonical bytes of an entry.
///
/// # Panics
/// When the entry has more than [`CAUSES_MAX`] causes; capture never writes that many.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    encode(entry, None)
}

/// The entry that canonical bytes hold.
///
/// # Errors
/// When the bytes are no entry in canonical form, or larger than [`ENTRY_BYTES_MAX`].
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, WireError> {
    let entry = decode(bytes, None)?;
    if encode_header(&entry.header, None, None) != split(bytes)?.0 {
        return Err(WireError::NotCanonical("an entry's header"));
    }
    Ok(entry)
}

/// Hash of an entry in canonical bytes: the first 16 bytes of BLAKE3(BLAKE3(header) | BLAKE3(body)).
///
/// # Errors
/// When the bytes cannot be split into header and body.
pub fn entry_hash(bytes: &[u8]) -> Result<EntryHash, WireError> {
    Ok(hash_of(split(bytes)?.0, &body_hash(bytes)?))
}

/// Hash of the body of an entry in canonical bytes.
///
/// # Errors
/// As for [`entry_hash`].
pub fn body_hash(bytes: &[u8]) -> Result<BodyHash, WireError> {
    Ok(BodyHash::of(split(bytes)?.1))
}

/// As [`entry_hash`], for an entry whose body is known by its hash alone: whatever stands behind the header does not count.
///
/// # Errors
/// As for [`entry_hash`].
pub fn entry_hash_with(bytes: &[u8], body: &BodyHash) -> Result<EntryHash, WireError> {
    Ok(hash_of(split(bytes)?.0, body))
}

/// The share of a body in the hash of its entry.
#[derive(Clone, Copy, Debug)]
pub struct BodyHash(blake3::Hash);

impl BodyHash {
    /// Of these bytes.
    pub fn of(body: &[u8]) -> Self {
        Self(blake3::hash(body))
    }

    /// For keeping it.
    pub fn to_bytes(self) -> [u8; 32] {
        *self.0.as_bytes()
    }

    /// As it was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
    }
}

fn hash_of(header: &[u8], body: &BodyHash) -> EntryHash {
    let mut both = [0u8; 64];
    both[..32].copy_from_slice(blake3::hash(header).as_bytes());
    both[32..].copy_from_slice(body.0.as_bytes());
    let mut first = [0u8; 16];
    first.copy_from_slice(&blake3::hash(&both).as_bytes()[..16]);
    EntryHash(first)
}

/// Encodes the entries of one origin, many of them: making the permutation of its ids takes longer than an entry.
pub struct OwnEntries {
    origin: NodeId,
    cipher: IdCipher,
}

/// Canonical bytes of an entry up to its body, and what follows from both.
pub struct EntryHead {
    /// Header with its length; the body follows.
    pub head: Vec<u8>,
    /// As [`entry_hash`].
    pub hash: EntryHash,
}

impl OwnEntries {
    /// For the entries of `origin`.
    pub fn of(origin: NodeId) -> Self {
        Self { origin, cipher: IdCipher::for_node(origin) }
    }

    /// Encodes the entry without reading its body, whose hash is `body`.
    ///
    /// # Errors
    /// When it is larger than a receiver takes, or has too many causes. What is within these bounds is always decoded.
    ///
    /// # Panics
    /// When the entry is of another origin.
    pub fn encode(&self, entry: &Entry, body: &BodyHash) -> Result<EntryHead, WireError> {
        assert_eq!(entry.header.id.origin, self.origin, "the permutation belongs to one origin");
        if entry.header.causes.len() > CAUSES_MAX {
            return Err(WireError::Malformed("an entry's causes"));
        }
        let header = encode_header(&entry.header, None, Some(&self.cipher));
        let mut head = Vec::with_capacity(header.len() + 2);
        put_varint(&mut head, header.len() as u64);
        head.extend_from_slice(&header);
        let bytes = head.len() + entry.body.len();
        if bytes > ENTRY_BYTES_MAX || header.len() > HEADER_BYTES_MAX {
            let (found, max) = (bytes as u64, ENTRY_BYTES_MAX as u64);
            return Err(WireError::TooLarge { what: "an entry", found, max });
        }
        Ok(EntryHead { head, hash: hash_of(&header, body) })
    }
}

/// Length of the body of an entry in canonical bytes: it stands at the end.
///
/// # Errors
/// As for [`entry_hash`].
pub fn body_len(bytes: &[u8]) -> Result<usize, WireError> {
    Ok(split(bytes)?.1.len())
}

/// The body of an entry of `origin` whose header says `mint_salt`.
pub fn encode_event(event: &Event, origin: NodeId, mint_salt: u64) -> Vec<u8> {
    event.encode_with(&mut ids_of(origin, mint_salt))
}

/// The event that an entry's body holds.
///
/// # Errors
/// When the body is no event of the kind that the header names.
pub fn decode_event(entry: &Entry) -> Result<Event, WireError> {
    let h = &entry.header;
    Event::decode_with(h.kind, &entry.body, &mut ids_of(h.id.origin, h.mint_salt))
        .map_err(|_| WireError::Malformed("an entry's body"))
}

/// Encodes relative to the entry before in a batch.
pub(crate) fn encode(entry: &Entry, base: Option<&Header>) -> Vec<u8> {
    let header = encode_header(&entry.header, base, None);
    let mut out = Vec::with_capacity(header.len() + entry.body.len() + 2);
    put_varint(&mut out, header.len() as u64);
    out.extend_from_slice(&header);
    out.extend_from_slice(&entry.body);
    out
}

/// Decodes relative to the entry before in a batch.
pub(crate) fn decode(bytes: &[u8], base: Option<&Header>) -> Result<Entry, WireError> {
    let (header, body) = split(bytes)?;
    Ok(Entry { header: decode_header(header, base)?, body: body.to_vec() })
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    if bytes.len() > ENTRY_BYTES_MAX {
        let found = bytes.len() as u64;
        return Err(WireError::TooLarge { what: "an entry", found, max: ENTRY_BYTES_MAX as u64 });
    }
    let mut reader = Reader::new(bytes, "an entry");
    let len = reader.capped("an entry's header", HEADER_BYTES_MAX)?;
    let header = reader.take(len)?;
    Ok((header, reader.rest()))
}

fn stream_number(stream: &StreamId) -> u8 {
    match stream {
        StreamId::Directory => 0,
        StreamId::Team(_) => 1,
        StreamId::Channel(_) => 2,
        StreamId::Purge => 3,
    }
}

/// `cipher` is that of the entry's origin, where it is at hand.
pub(crate) fn encode_header(h: &Header, base: Option<&Header>, cipher: Option<&IdCipher>) -> Vec<u8> {
    assert!(h.causes.len() <= CAUSES_MAX, "capture gives an entry at most {CAUSES_MAX} causes");
    let mut out = Vec::with_capacity(96);
    let mut flags = h.precedence as u8 | stream_number(&h.stream) << STREAM_SHIFT;
    if h.expiry.is_some() {
        flags |= HAS_EXPIRY;
    }
    if h.supersedes.is_some() {
        flags |= HAS_KEY;
    }
    let mut same = 0;
    if let Some(b) = base {
        let shared = [
            (SAME_ORIGIN, b.id.origin == h.id.origin),
            (SAME_EPOCH, b.id.epoch == h.id.epoch),
            (SAME_LABEL, b.label == h.label),
            (SAME_SALT, b.mint_salt == h.mint_salt),
            (SAME_STREAM, b.stream == h.stream),
        ];
        same = shared.into_iter().filter(|(_, is)| *is).map(|(bit, _)| bit).sum();
    }
    out.extend([VERSION, flags, same, h.kind as u8]);
    if same & SAME_ORIGIN == 0 {
        out.extend(h.id.origin.0);
    }
    if same & SAME_EPOCH == 0 {
        put_varint(&mut out, u64::from(h.id.epoch.0));
    }
    match base {
        Some(b) if same & SAME_EPOCH != 0 => {
            put_zigzag(&mut out, h.id.seq.get().wrapping_sub(b.id.seq.get()) as i64);
        }
        _ => put_varint(&mut out, h.id.seq.get()),
    }
    if same & SAME_LABEL == 0 {
        put_varint(&mut out, h.label.as_str().len() as u64);
        out.extend_from_slice(h.label.as_str().as_bytes());
    }
    if same & SAME_SALT == 0 {
        put_varint(&mut out, h.mint_salt);
    }
    match base {
        Some(b) => put_zigzag(&mut out, h.captured.0.wrapping_sub(b.captured.0) as i64),
        None => out.extend(h.captured.0.to_le_bytes()),
    }
    put_zigzag(&mut out, h.source.0.0.wrapping_sub(h.captured.0) as i64);
    put_zigzag(&mut out, h.origin_time.0.wrapping_sub(h.captured.millis().0));
    if let Some(expiry) = h.expiry {
        put_zigzag(&mut out, expiry.0.wrapping_sub(h.origin_time.0));
    }
    if let Some(key) = h.supersedes {
        out.extend(key.0.to_le_bytes());
    }
    if same & SAME_STREAM == 0 {
        match &h.stream {
            StreamId::Directory | StreamId::Purge => {}
            StreamId::Team(id) | StreamId::Channel(id) => {
                let cipher = cipher.cloned().unwrap_or_else(|| IdCipher::for_node(h.id.origin));
                put_cbor(&mut out, id, &mut EntryIds::with_cipher(cipher, h.mint_salt));
            }
        }
    }
    put_causes(&mut out, h.id, &h.causes);
    put_after(&mut out, h.id, h.after);
    out
}

/// The causes of the entry `of`, as at the end of a header.
pub(crate) fn put_causes(out: &mut Vec<u8>, of: EntryId, causes: &[Cause]) {
    put_varint(out, causes.len() as u64);
    for cause in causes {
        if cause.origin == of.origin && cause.epoch == of.epoch && cause.seq < of.seq {
            // A difference of 2^64 - 1 is impossible: both numbers are at least 1.
            put_varint(out, of.seq.get() - cause.seq.get() + 1);
            continue;
        }
        if cause.origin == of.origin {
            out.push(1);
        } else {
            out.push(0);
            out.extend(cause.origin.0);
        }
        put_varint(out, u64::from(cause.epoch.0));
        put_varint(out, cause.seq.get());
    }
}

pub(crate) fn read_causes(r: &mut Reader<'_>, of: EntryId) -> Result<Vec<Cause>, WireError> {
    let count = r.capped("an entry's causes", CAUSES_MAX)?;
    let mut causes = Vec::with_capacity(count);
    for _ in 0..count {
        let form = r.varint()?;
        causes.push(if form >= 2 {
            let n = of.seq.get().checked_sub(form - 1).and_then(Seq::new).ok_or(WireError::Malformed("a cause"))?;
            EntryId { seq: n, ..of }
        } else {
            let origin = if form == 1 { of.origin } else { NodeId(r.array()?) };
            EntryId { origin, epoch: read_epoch(r)?, seq: read_seq(r)? }
        });
    }
    Ok(causes)
}

pub(crate) fn put_after(out: &mut Vec<u8>, of: EntryId, after: Option<(Epoch, Seq)>) {
    match after {
        None => out.push(0),
        Some((epoch, seq)) if epoch == of.epoch && seq < of.seq => {
            put_varint(out, of.seq.get() - seq.get() + 1);
        }
        Some((epoch, seq)) => {
            out.push(1);
            put_varint(out, u64::from(epoch.0));
            put_varint(out, seq.get());
        }
    }
}

pub(crate) fn read_after(r: &mut Reader<'_>, epoch: Epoch, seq: Seq) -> Result<Option<(Epoch, Seq)>, WireError> {
    let bad = WireError::Malformed("an entry's place");
    let after = match r.varint()? {
        0 => None,
        1 => Some((read_epoch(r)?, read_seq(r)?)),
        form => Some((epoch, seq.get().checked_sub(form - 1).and_then(Seq::new).ok_or(bad.clone())?)),
    };
    // It was numbered before.
    if after.is_some_and(|after| after >= (epoch, seq)) { Err(bad) } else { Ok(after) }
}

pub(crate) fn read_label(r: &mut Reader<'_>) -> Result<Label, WireError> {
    let len = r.capped("a label", Label::MAX_LEN)?;
    let text = std::str::from_utf8(r.take(len)?).ok().and_then(|text| text.parse().ok());
    text.ok_or(WireError::Malformed("a label"))
}

pub(crate) fn decode_header(bytes: &[u8], base: Option<&Header>) -> Result<Header, WireError> {
    const WHAT: &str = "an entry's header";
    let bad = |what| WireError::Malformed(what);
    let mut r = Reader::new(bytes, WHAT);
    let version = r.u8()?;
    if version != VERSION {
        return Err(WireError::Version { what: "an entry", found: version, known: VERSION });
    }
    let flags = r.u8()?;
    let same = r.u8()?;
    if flags & 0x80 != 0 || same >= SAME_STREAM << 1 {
        return Err(bad("an entry's flags"));
    }
    // What the base lends, where the entry says that it is the same.
    let from_base = |bit: u8| match base {
        _ if same & bit == 0 => Ok(None),
        Some(b) => Ok(Some(b)),
        None => Err(WireError::Malformed("an entry's base")),
    };
    let precedence = Precedence::from_index(flags & 7).ok_or(bad("an entry's precedence"))?;
    let kind = Kind::from_number(r.u8()?).ok_or(bad("an entry's kind"))?;
    let origin = match from_base(SAME_ORIGIN)? {
        Some(b) => b.id.origin,
        None => NodeId(r.array()?),
    };
    let epoch = match from_base(SAME_EPOCH)? {
        Some(b) => b.id.epoch,
        None => read_epoch(&mut r)?,
    };
    let seq = match from_base(SAME_EPOCH)? {
        Some(b) => {
            let n = b.id.seq.get().wrapping_add(r.zigzag()? as u64);
            Seq::new(n).ok_or(bad("an entry's number"))?
        }
        None => read_seq(&mut r)?,
    };
    let label: Label = match from_base(SAME_LABEL)? {
        Some(b) => b.label.clone(),
        None => read_label(&mut r)?,
    };
    let mint_salt = match from_base(SAME_SALT)? {
        Some(b) => b.mint_salt,
        None => r.varint()?,
    };
    let captured = match base {
        Some(b) => Hlc(b.captured.0.wrapping_add(r.zigzag()? as u64)),
        None => Hlc(u64::from_le_bytes(r.array()?)),
    };
    let source = SourcePosition(Hlc(captured.0.wrapping_add(r.zigzag()? as u64)));
    let origin_time = UnixMillis(captured.millis().0.wrapping_add(r.zigzag()?));
    let expiry = if flags & HAS_EXPIRY == 0 { None } else { Some(UnixMillis(origin_time.0.wrapping_add(r.zigzag()?))) };
    let supersedes = if flags & HAS_KEY == 0 { None } else { Some(SupersessionKey(u64::from_le_bytes(r.array()?))) };
    let stream = match (from_base(SAME_STREAM)?, flags >> STREAM_SHIFT) {
        (Some(b), number) if stream_number(&b.stream) == number => b.stream,
        (None, 0) => StreamId::Directory,
        (None, 3) => StreamId::Purge,
        (None, 1) => StreamId::Team(r.cbor::<_, Id>(&mut ids_of(origin, mint_salt))?),
        (None, 2) => StreamId::Channel(r.cbor::<_, Id>(&mut ids_of(origin, mint_salt))?),
        _ => return Err(bad("an entry's stream")),
    };
    let causes = read_causes(&mut r, EntryId { origin, epoch, seq })?;
    let after = read_after(&mut r, epoch, seq)?;
    r.finish()?;
    Ok(Header {
        id: EntryId { origin, epoch, seq },
        source,
        stream,
        causes,
        after,
        precedence,
        captured,
        origin_time,
        expiry,
        supersedes,
        label,
        kind,
        mint_salt,
    })
}

pub(crate) fn read_epoch(r: &mut Reader<'_>) -> Result<Epoch, WireError> {
    u32::try_from(r.varint()?).map(Epoch).map_err(|_| WireError::Malformed("an epoch"))
}

pub(crate) fn read_seq(r: &mut Reader<'_>) -> Result<Seq, WireError> {
    Seq::new(r.varint()?).ok_or(WireError::Malformed("an entry's number"))
}

fn ids_of(origin: NodeId, mint_salt: u64) -> EntryIds {
    EntryIds::new(origin, mint_salt)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = Id> {
        prop_oneof![any::<[u8; 16]>().prop_map(Id::from_block), "[a-z0-9]{26}".prop_map(|t| t.parse().unwrap())]
    }

    fn entry_id() -> impl Strategy<Value = EntryId> {
        (prop_oneof![Just([7u8; 16]), any::<[u8; 16]>()], 0..3u32, 1..60u64).prop_map(|(node, epoch, n)| EntryId {
            origin: NodeId(node),
            epoch: Epoch(epoch),
            seq: Seq::new(n).unwrap(),
        })
    }

    pub(crate) fn entry() -> impl Strategy<Value = Entry> {
        let stream =
            prop_oneof![Just(StreamId::Directory), id().prop_map(StreamId::Team), id().prop_map(StreamId::Channel)];
        let what = (entry_id(), stream, prop::collection::vec(entry_id(), 0..5), 0u8..5, 1u8..9, "[a-z0-9-]{1,32}");
        let when = (any::<u64>(), any::<u64>(), any::<i64>(), any::<Option<i64>>(), any::<Option<u64>>(), any::<u64>());
        (what, when, prop::collection::vec(any::<u8>(), 0..200)).prop_map(
            |((id, stream, causes, class, kind, label), (captured, source, at, expiry, key, mint_salt), body)| Entry {
                header: Header {
                    id,
                    source: SourcePosition(Hlc(source)),
                    stream,
                    after: causes.iter().map(|c| (c.epoch, c.seq)).find(|after| *after < (id.epoch, id.seq)),
                    causes,
                    precedence: Precedence::from_index(class).unwrap(),
                    captured: Hlc(captured),
                    origin_time: UnixMillis(at),
                    expiry: expiry.map(UnixMillis),
                    supersedes: key.map(SupersessionKey),
                    label: label.parse().unwrap(),
                    kind: Kind::from_number(kind).unwrap(),
                    mint_salt,
                },
                body,
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_bytes(entry in entry()) {
            let bytes = encode_entry(&entry);
            prop_assert_eq!(decode_entry(&bytes), Ok(entry));
        }

        #[test]
        fn an_own_entry_has_the_same_bytes_and_hash(entry in entry()) {
            let EntryHead { head, hash } = OwnEntries::of(entry.header.id.origin).encode(&entry, &BodyHash::of(&entry.body)).unwrap();
            let bytes = [head, entry.body.clone()].concat();
            prop_assert_eq!(entry_hash(&bytes), Ok(hash));
            prop_assert_eq!(bytes, encode_entry(&entry));
        }

        #[test]
        fn an_entry_survives_relative_to_any_other(base in entry(), entry in entry()) {
            let bytes = encode(&entry, Some(&base.header));
            prop_assert_eq!(decode(&bytes, Some(&base.header)), Ok(entry));
        }

        #[test]
        fn bytes_that_decode_encode_to_the_same_bytes(entry in entry(), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = encode_entry(&entry);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(read) = decode_entry(&bytes) {
                prop_assert_eq!(encode_entry(&read), bytes);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_entry(&bytes);
            let _ = entry_hash(&bytes);
        }
    }

    pub(crate) fn post(seq: u64) -> Entry {
        let id = |n| EntryId { origin: NodeId([7; 16]), epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() };
        let captured = Hlc((1_700_000_000_000 + seq * 9_000) << 16);
        let header = Header {
            id: id(seq),
            source: SourcePosition(captured),
            stream: StreamId::Channel(Id::from_block([3; 16])),
            causes: vec![id(1), id(2)],
            after: None,
            precedence: Precedence::Routine,
            captured,
            origin_time: captured.millis(),
            expiry: None,
            supersedes: None,
            label: "mission".parse().unwrap(),
            kind: Kind::Post,
            mint_salt: 0x1234_5678_9abc,
        };
        Entry { header, body: b"a post".to_vec() }
    }

    #[test]
    fn what_a_receiver_would_refuse_is_not_encoded() {
        let entry = Entry { header: post(1).header, body: vec![0; ENTRY_BYTES_MAX] };
        let own = OwnEntries::of(entry.header.id.origin);
        assert!(matches!(own.encode(&entry, &BodyHash::of(&[])), Err(WireError::TooLarge { .. })));
        let mut header = post(1).header;
        header.causes = vec![header.id; CAUSES_MAX + 1];
        assert!(own.encode(&Entry { header, body: Vec::new() }, &BodyHash::of(&[])).is_err());
    }

    #[test]
    fn a_neighbour_costs_little_in_a_batch() {
        let (first, second) = (post(100), post(101));
        let relative = encode(&second, Some(&first.header)).len() - second.body.len();
        assert!(relative <= 20, "{relative} bytes of header");
    }

    #[test]
    fn the_hash_covers_header_and_body_apart() {
        let entry = post(9);
        let hash = entry_hash(&encode_entry(&entry)).unwrap();
        let mut other = entry.clone();
        other.body[0] ^= 1;
        assert_ne!(entry_hash(&encode_entry(&other)).unwrap(), hash);
        let mut other = entry;
        other.header.precedence = Precedence::Flash;
        assert_ne!(entry_hash(&encode_entry(&other)).unwrap(), hash);
    }

    #[test]
    fn an_entry_of_a_later_layout_is_named_as_such() {
        let mut bytes = encode_entry(&post(1));
        bytes[1] = 2;
        assert_eq!(decode_entry(&bytes), Err(WireError::Version { what: "an entry", found: 2, known: 1 }));
    }

    #[test]
    fn an_entry_above_its_cap_is_refused() {
        let mut entry = post(1);
        entry.body = vec![0; ENTRY_BYTES_MAX];
        assert!(matches!(decode_entry(&encode_entry(&entry)), Err(WireError::TooLarge { .. })));
    }
}
