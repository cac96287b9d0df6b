//! Seals and opens the frames of one segment.
//!
//! ```text
//! segment key = HKDF(data key, salt of the segment, node | segment)        once for each segment
//! payload     = AES-256-GCM-SIV(segment key, nonce: offset u64 | 0 u32, data: node | segment | offset | kind)
//! ```
//! A frame opens only where it was put. GCM-SIV, because a place can be written twice: after a torn tail was cut off, the
//! next frame stands where the lost one stood. With a mode that needs fresh nonces both would be readable then; here
//! an observer learns whether they are equal, and nothing else. Sealing anew takes another salt, and so another key.

use std::sync::Arc;

use keys::{DataKeys, KeyNumber, SALT_LEN, SegmentCipher, TAG_LEN};
use model::NodeId;

use crate::error::OpenError;
use crate::format::{FRAME_HEADER_BYTES, FrameHead, FrameKind, Lock, MARKER, PLAIN_BYTES_MAX};
use crate::mutations::{Mutation, is};
use crate::settings::AtRest;

/// What makes frames of one segment and believes them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sealer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeId,
    segment: u32,
    /// Start value of the checksums.
    crc: u32,
    how: How,
}

#[derive(Debug)]
enum How {
    Plain,
    Sealed {
        lock: Lock,
        cipher: SegmentCipher,
    },
    /// Every copy of the lock is lost: frames can be found and not opened.
    LockLost,
}

impl Sealer {
    fn with(node: NodeId, segment: u32, how: How) -> Self {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&node.0), &segment.to_le_bytes());
        Self(Arc::new(Inner { node, segment, crc, how }))
    }

    /// For a segment that is about to be written: the newest key, and a salt of its own.
    pub(crate) fn fresh(node: NodeId, segment: u32, at_rest: &AtRest) -> Self {
        let how = match at_rest {
            AtRest::Plain => How::Plain,
            AtRest::Sealed { keys, salts } => {
                let (number, key) = keys.newest().expect("open refuses a keyring without keys");
                let salt = salts.salt();
                let cipher = key.segment_cipher(&salt, &place(node, segment));
                let lock = Lock { algorithm: Lock::GCM_SIV, key: number, salt, check: cipher.check() };
                How::Sealed { lock, cipher }
            }
        };
        Self::with(node, segment, how)
    }

    /// For a segment that exists; `lock` is `None` when no copy of it is whole.
    ///
    /// # Errors
    /// When the keys do not fit: nothing in the segment is damaged then, and nothing of it may be given up.
    pub(crate) fn of(node: NodeId, segment: u32, lock: Option<Lock>, keys: &DataKeys) -> Result<Self, OpenError> {
        let how = match lock {
            None if keys.newest().is_none() => How::Plain,
            None => How::LockLost,
            Some(Lock { algorithm: Lock::NONE, .. }) if keys.newest().is_none() => How::Plain,
            Some(Lock { algorithm: Lock::NONE, .. }) => return Err(OpenError::NotSealed { segment }),
            Some(lock) if lock.algorithm == Lock::GCM_SIV => {
                let key = keys.get(lock.key).ok_or(OpenError::KeyMissing { segment, key: lock.key })?;
                let cipher = key.segment_cipher(&lock.salt, &place(node, segment));
                if cipher.check() != lock.check {
                    return Err(OpenError::WrongKey { segment, key: lock.key });
                }
                How::Sealed { lock, cipher }
            }
            Some(lock) => return Err(OpenError::UnknownSeal { segment, algorithm: lock.algorithm }),
        };
        Ok(Self::with(node, segment, how))
    }

    /// For finding frames without opening them.
    pub(crate) fn for_checksums(node: NodeId, segment: u32) -> Self {
        Self::with(node, segment, How::LockLost)
    }

    /// Node and segment.
    pub(crate) fn place(&self) -> (NodeId, u32) {
        (self.0.node, self.0.segment)
    }

    /// What stands in the clear about how the segment is sealed; `None` when that is lost.
    pub(crate) fn lock(&self) -> Option<Lock> {
        match &self.0.how {
            How::Plain => Some(Lock::PLAIN),
            How::Sealed { lock, cipher: _ } => Some(*lock),
            How::LockLost => None,
        }
    }

    /// The data key that the segment needs; `None` when it needs none, or that is lost.
    pub(crate) fn key(&self) -> Option<KeyNumber> {
        match &self.0.how {
            How::Sealed { lock, cipher: _ } => Some(lock.key),
            How::Plain | How::LockLost => None,
        }
    }

    fn crc(&self, offset: u64, kind: u8, stored: &[u8]) -> u32 {
        let mut crc = match is(Mutation::SkipPlaceInCrc) {
            true => 0,
            false => crc32c::crc32c_append(self.0.crc, &offset.to_le_bytes()),
        };
        crc = crc32c::crc32c_append(crc, &[kind, 0]);
        crc = crc32c::crc32c_append(crc, &(stored.len() as u32).to_le_bytes());
        crc32c::crc32c_append(crc, stored)
    }

    fn nonce(offset: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&offset.to_le_bytes());
        nonce
    }

    fn context(&self, offset: u64, kind: u8) -> [u8; 29] {
        let mut context = [0; 29];
        context[..20].copy_from_slice(&place(self.0.node, self.0.segment));
        context[20..28].copy_from_slice(&offset.to_le_bytes());
        context[28] = kind;
        context
    }

    /// Appends a frame to `out`, whose first byte will stand at `base` in the file. Returns the frame's offset there.
    pub(crate) fn push(&self, out: &mut Vec<u8>, base: u64, kind: FrameKind, payload: &[&[u8]]) -> u64 {
        self.push_kind(out, base, kind as u8, payload)
    }

    /// As [`Sealer::push`], for a frame whose kind this release need not know.
    pub(crate) fn push_kind(&self, out: &mut Vec<u8>, base: u64, kind: u8, payload: &[&[u8]]) -> u64 {
        let start = out.len();
        let offset = base + start as u64;
        let len: usize = payload.iter().map(|part| part.len()).sum();
        assert!(len <= PLAIN_BYTES_MAX, "a frame's size is checked before it is made");
        out.reserve(FRAME_HEADER_BYTES + len + TAG_LEN);
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        payload.iter().for_each(|part| out.extend_from_slice(part));
        let body = start + FRAME_HEADER_BYTES;
        match &self.0.how {
            _ if FrameKind::is_clear(kind) => {}
            How::Plain => {}
            How::Sealed { cipher, lock: _ } => {
                cipher.seal(Self::nonce(offset), &self.context(offset, kind), out, body);
            }
            How::LockLost => panic!("a segment whose lock is lost is never written to"),
        }
        let (head, stored) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
        head[..2].copy_from_slice(&MARKER);
        head[2] = kind;
        head[4..8].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        head[8..].copy_from_slice(&self.crc(offset, kind, stored).to_le_bytes());
        offset
    }

    /// Is this a whole frame at `offset`, as it was stored?
    pub(crate) fn is_whole(&self, offset: u64, head: &FrameHead, stored: &[u8]) -> bool {
        head.len as usize == stored.len()
            && (self.crc(offset, head.kind, stored) == head.crc || is(Mutation::SkipFrameCrc))
    }

    /// The payload of a whole frame; `None` when it was not sealed here, with this key.
    pub(crate) fn open(&self, offset: u64, kind: u8, stored: &[u8]) -> Option<Vec<u8>> {
        match &self.0.how {
            _ if FrameKind::is_clear(kind) => Some(stored.to_vec()),
            How::Plain => Some(stored.to_vec()),
            How::Sealed { cipher, lock: _ } => cipher.open(Self::nonce(offset), &self.context(offset, kind), stored),
            How::LockLost => None,
        }
    }
}

fn place(node: NodeId, segment: u32) -> [u8; 20] {
    let mut place = [0; 20];
    place[..16].copy_from_slice(&node.0);
    place[16..].copy_from_slice(&segment.to_le_bytes());
    place
}

/// Where the salts of segments come from: the operating system, or a seed where everything comes from one.
pub trait Salts: Send + Sync {
    /// Bytes that were never used before.
    fn salt(&self) -> [u8; SALT_LEN];
}

/// The operating system's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsSalts;

impl Salts for OsSalts {
    fn salt(&self) -> [u8; SALT_LEN] {
        keys::random_salt()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use keys::DataKey;
    use model::{Clock, Hlc, Kind, Label, LocalPos, Precedence, SourcePosition, StreamId, UnixMillis};

    use super::*;
    use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
    use crate::{Draft, IndexPlace, Journal, JournalOptions, JournalSettings, OpenReport, Reader, StdDisk};

    const NODE: NodeId = NodeId([1; 16]);
    const PLANTED: &[u8] = b"grid 38SMB4595 at first light";

    #[test]
    fn a_frame_opens_only_in_its_journal_segment_and_place() {
        let sealer = Sealer::fresh(NODE, 7, &at_rest(1));
        let keys = keys(1);
        let mut out = Vec::new();
        let offset = sealer.push(&mut out, 1_000, FrameKind::Entry, &[b"a pay", b"load"]);
        let stored = &out[FRAME_HEADER_BYTES..];
        assert_eq!((offset, stored.len()), (1_000, 9 + TAG_LEN));
        assert_eq!(sealer.open(offset, FrameKind::Entry as u8, stored).as_deref(), Some(b"a payload".as_slice()));
        assert_eq!(sealer.open(offset + 1, FrameKind::Entry as u8, stored), None, "another place");
        assert_eq!(sealer.open(offset, FrameKind::Chunk as u8, stored), None, "another kind");
        let lock = sealer.lock();
        for (node, segment) in [(NODE, 8), (NodeId([2; 16]), 7)] {
            let refused = Sealer::of(node, segment, lock, &keys);
            assert!(matches!(refused, Err(OpenError::WrongKey { .. })), "{node} {segment}: {refused:?}");
        }
        assert_eq!(
            Sealer::of(NODE, 7, lock, &keys).unwrap().open(offset, 1, stored).as_deref(),
            Some(&b"a payload"[..])
        );
        let anew = Sealer::fresh(NODE, 7, &at_rest(1));
        assert_eq!(anew.open(offset, FrameKind::Entry as u8, stored), None, "another salt");
    }

    #[test]
    fn the_same_text_twice_shows_no_pattern_and_none_is_found_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), at_rest(1)).unwrap().0;
        append(&journal, 0..40);
        let chunk = model::ChunkName([9; 17]);
        journal.put_chunk(chunk, PLANTED).wait().unwrap();
        journal.consumer("bravo", true).unwrap();
        assert!(journal.stats().segments > 1, "footers are written too");
        assert_eq!(journal.get_chunk(&chunk).unwrap().as_deref(), Some(PLANTED));
        drop(journal);
        let found = files_with(dir.path(), PLANTED);
        assert!(found.is_empty(), "{found:?}");
        let found = files_with(dir.path(), b"bravo");
        assert!(found.is_empty(), "names of consumers: {found:?}");
        let plain = tempfile::tempdir().unwrap();
        let journal = open(plain.path(), AtRest::Plain).unwrap().0;
        journal.append_own(draft(1)).wait().unwrap();
        drop(journal);
        assert!(!files_with(plain.path(), PLANTED).is_empty(), "the search finds what is there");
    }

    #[test]
    fn a_missing_or_wrong_key_is_an_error_that_names_it_and_touches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        {
            let journal = open(dir.path(), at_rest(3)).unwrap().0;
            append(&journal, 0..40);
        }
        let before = contents(dir.path());
        let other = DataKeys::new([(KeyNumber(3), DataKey::from_bytes([77; 32]))]);
        let newer = DataKeys::new([(KeyNumber(4), DataKey::from_bytes([4; 32]))]);
        for (at_rest, wanted) in [
            (AtRest::Plain, "data key 3, which the keyring does not hold"),
            (AtRest::sealed(newer.clone()), "data key 3, which the keyring does not hold"),
            (AtRest::sealed(other.clone()), "data key 3 of the keyring is another one"),
            (AtRest::sealed(DataKeys::none()), "no data key"),
        ] {
            let Err(e) = open(dir.path(), at_rest) else { panic!("opened without {wanted}") };
            assert!(e.to_string().contains(wanted), "{e}");
            assert_eq!(contents(dir.path()), before);
        }
        assert!(matches!(
            Reader::open(dir.path(), Arc::new(StdDisk), &newer),
            Err(OpenError::KeyMissing { segment: 1, key: KeyNumber(3) })
        ));
        let (journal, report) = open(dir.path(), at_rest(3)).unwrap();
        assert!(report.damage.is_empty() && report.new_epoch.is_none(), "{report:?}");
        assert_eq!(journal.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().len(), 40);
    }

    #[test]
    fn a_segment_that_is_not_sealed_is_refused_in_a_sealed_journal() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), AtRest::Plain).unwrap().0.append_own(draft(1)).wait().unwrap();
        let refused = open(dir.path(), at_rest(1));
        assert!(matches!(refused, Err(OpenError::NotSealed { segment: 1 })));
    }

    #[test]
    fn new_segments_take_the_newest_key_and_old_ones_stay_readable() {
        let dir = tempfile::tempdir().unwrap();
        append(&open(dir.path(), at_rest(1)).unwrap().0, 1..2);
        let journal = open(dir.path(), at_rest(2)).unwrap().0;
        append(&journal, 2..40);
        assert_eq!(journal.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().len(), 39);
        let segments = journal.stats().segments;
        drop(journal);
        let keys: Vec<u32> = (1..=segments).map(|n| header(dir.path(), n).lock.key.0).collect();
        assert!(keys[0] == 1 && keys[1..].iter().all(|key| *key == 2) && keys.len() > 2, "{keys:?}");
    }

    #[test]
    fn a_segment_is_read_while_one_copy_of_its_lock_is_left_and_kept_when_none_is() {
        let dir = tempfile::tempdir().unwrap();
        {
            let journal = open(dir.path(), at_rest(1)).unwrap().0;
            append(&journal, 0..40);
        }
        let path = dir.path().join("segments/00000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        bytes[..SEGMENT_HEADER_BYTES].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (journal, report) = open(dir.path(), at_rest(1)).unwrap();
        assert_eq!(journal.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().len(), 40, "the trailer has a copy");
        assert_eq!(report.damage.len(), 1, "{report:?}");
        drop(journal);
        let len = bytes.len();
        bytes[len - 20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (journal, report) = open(dir.path(), at_rest(1)).unwrap();
        assert_eq!(journal.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().len(), 40, "the header is repeated");
        assert!(!report.damage.is_empty(), "{report:?}");
        drop(journal);
        let mut bytes = without_header(&path);
        let len = bytes.len();
        bytes[len - 20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (journal, report) = open(dir.path(), at_rest(1)).unwrap();
        let left = journal.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap().len();
        assert!(left < 40 && !report.damage.is_empty(), "{left} {report:?}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was cut");
        drop(journal);
        // The same for the newest segment, which has no trailer yet.
        let last = fs::read_dir(dir.path().join("segments")).unwrap().map(|f| f.unwrap().path()).max().unwrap();
        let bytes = without_header(&last);
        fs::write(&last, &bytes).unwrap();
        let report = open(dir.path(), at_rest(1)).unwrap().1;
        assert!(report.new_epoch.is_some(), "{report:?}");
        assert_eq!(fs::read(last.with_extension("seg.damaged")).unwrap(), bytes);
    }

    /// A segment's file with nothing of its header, wherever that stands.
    fn without_header(path: &Path) -> Vec<u8> {
        let mut bytes = fs::read(path).unwrap();
        bytes[..SEGMENT_HEADER_BYTES].fill(0);
        while let Some(at) = bytes.windows(8).position(|found| found == b"HOLDFSEG") {
            bytes[at..at + 64].fill(0);
        }
        bytes
    }

    #[test]
    fn a_forged_frame_with_a_right_checksum_is_damage_and_never_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        {
            let journal = open(dir.path(), at_rest(1)).unwrap().0;
            append(&journal, 0..3);
        }
        let reader = Reader::open(dir.path(), Arc::new(StdDisk), &keys(1)).unwrap();
        let listed = reader.list(LocalPos(2)..LocalPos(3), 1).unwrap().remove(0);
        let path = dir.path().join("segments/00000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        let at = listed.offset as usize;
        let head = FrameHead::decode(&bytes[at..]).unwrap();
        let body = at + FRAME_HEADER_BYTES..at + FRAME_HEADER_BYTES + head.len as usize;
        bytes[body.start + 3] ^= 1;
        let crc = Sealer::for_checksums(NODE, 1).crc(listed.offset, head.kind, &bytes[body]);
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let (journal, report) = open(dir.path(), at_rest(1)).unwrap();
        let listed = journal.list(LocalPos(1)..LocalPos(u64::MAX), 100).unwrap();
        assert_eq!(listed.iter().map(|l| l.pos.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(report.damage.len(), 1, "{report:?}");
    }

    fn keys(newest: u32) -> DataKeys {
        DataKeys::new((1..=newest).map(|n| (KeyNumber(n), DataKey::from_bytes([n as u8; 32]))))
    }

    fn at_rest(newest: u32) -> AtRest {
        AtRest::sealed(keys(newest))
    }

    fn open(dir: &Path, at_rest: AtRest) -> Result<(Journal, OpenReport), OpenError> {
        let settings = JournalSettings {
            segment_bytes: model::ByteSize(4 << 10),
            limit_bytes: model::ByteSize(1 << 30),
            ..JournalSettings::default()
        };
        Journal::open(JournalOptions {
            dir: dir.to_owned(),
            node: NODE,
            disk: Arc::new(StdDisk),
            clock: Arc::new(Noon),
            settings,
            index: IndexPlace::Sled,
            at_rest,
        })
    }

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> UnixMillis {
            UnixMillis(1_700_000_000_000)
        }
    }

    fn draft(n: u64) -> Draft {
        Draft {
            source: SourcePosition(Hlc(n)),
            follows: None,
            stream: StreamId::Directory,
            causes: Vec::new(),
            needs: Vec::new(),
            object: None,
            precedence: Precedence::Routine,
            captured: Hlc(n << 16),
            origin_time: UnixMillis(n as i64),
            expiry: None,
            supersedes: None,
            label: Label::directory(),
            kind: Kind::Post,
            mint_salt: 7,
            body: [PLANTED, n.to_string().as_bytes(), &[0; 200]].concat(),
            chunks: None,
        }
    }

    fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
        numbers.for_each(|n| assert!(journal.append_own(draft(n)).wait().is_ok()));
    }

    fn header(dir: &Path, segment: u32) -> SegmentHeader {
        let bytes = fs::read(dir.join("segments").join(crate::format::segment_name(segment))).unwrap();
        SegmentHeader::decode(&bytes).0.unwrap()
    }

    fn contents(dir: &Path) -> Vec<Vec<u8>> {
        files(&dir.join("segments")).iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn files_with(dir: &Path, wanted: &[u8]) -> Vec<std::path::PathBuf> {
        let holds = |path: &std::path::PathBuf| fs::read(path).unwrap().windows(wanted.len()).any(|w| w == wanted);
        files(dir).into_iter().filter(holds).collect()
    }

    fn files(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut items: Vec<_> = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).collect();
        items.sort();
        for path in items {
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found
    }
}
