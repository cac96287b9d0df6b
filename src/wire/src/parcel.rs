//! Parcels: what travels to a node that is not the next hop, sealed for it and signed by its origin.
//!
//! ```text
//! parcel   = magic "HFP1" | varint length | header | varint length | sealed body | signature (64)
//! header   = to (16) | from (16) | boot (8 LE) | varint number | precedence byte
//!            | varint count, then { varint length | label } in ascending order
//! body     = { varint length | frame }
//! ```
//!
//! Whoever carries a parcel sees the header, which it needs to route, order and withhold, and cannot change a byte of
//! it: the header is authenticated by the seal and by the signature. A parcel stands for itself: it needs no parcel
//! before it, and opening it twice is harmless.
//!
//! The body holds what a link would carry: entries (Batch, Fragment), what never comes (Skip), what is held of the other
//! direction (Receipt, Claim), and chunks of files (Whole). An entry never spans two parcels.

use std::collections::BTreeSet;

use keys::{NodeKey, SEAL_OVERHEAD, SIGNATURE_LEN, SealError, SealingKey, SealingPublic, verify_signature};
use model::{Label, NodeId, Precedence};

use crate::WireError;
use crate::chunk::CHUNK_BYTES_MAX;
use crate::entry::ENTRY_BYTES_MAX;
use crate::frame::{FRAME_BYTES_MAX, Frame};
use crate::reader::{Reader, put_varint};

/// What every parcel begins with.
pub const MAGIC: &[u8; 4] = b"HFP1";

/// Most labels in one parcel: as many as a peer's list of labels may have.
pub const LABELS_MAX: usize = 64;

/// Largest header: two nodes, a boot, a number, a class and the labels.
pub const HEADER_BYTES_MAX: usize = 16 + 16 + 8 + 10 + 1 + 5 + LABELS_MAX * (1 + Label::MAX_LEN);

/// Largest body. A planner stops at the size it was asked for and one entry above it; an entry may be all that it has.
pub const BODY_BYTES_MAX: usize = ENTRY_BYTES_MAX + 512 * 1_024;

/// Largest parcel.
pub const PARCEL_BYTES_MAX: usize =
    MAGIC.len() + 5 + HEADER_BYTES_MAX + 5 + BODY_BYTES_MAX + SEAL_OVERHEAD + SIGNATURE_LEN;

/// Largest frame of a body: a chunk that does not shrink, with what names it.
const BODY_FRAME_BYTES_MAX: usize = CHUNK_BYTES_MAX + 128;

const _: () = assert!(BODY_FRAME_BYTES_MAX >= FRAME_BYTES_MAX, "every frame of a link fits");

/// What two nodes call a parcel while one hands it to the other: the first 8 bytes of its BLAKE3 hash.
pub fn name_of(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// What everybody may read of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// For whom.
    pub to: NodeId,
    /// By whom.
    pub from: NodeId,
    /// The start of the origin's process that wrote it.
    pub boot: u64,
    /// Counts up from 1 for each destination.
    pub number: u64,
    /// Class of the most urgent entry.
    pub precedence: Precedence,
    /// Labels of everything in it.
    pub labels: BTreeSet<Label>,
}

/// A parcel whose form is right; whether it is genuine shows when it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// What everybody may read.
    pub header: Header,
    bytes: Vec<u8>,
    header_end: usize,
    sealed_at: usize,
}

/// A parcel cannot be used. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParcelError {
    /// Its form is wrong: damaged, or no parcel.
    #[error("this is no whole parcel: {0}")]
    Form(#[from] WireError),
    /// It is not what its origin wrote.
    #[error("the parcel is not genuine: {0}")]
    Seal(#[from] SealError),
    /// It is for another node.
    #[error("the parcel is for the node {0}")]
    OtherNode(NodeId),
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend(self.to.0);
        out.extend(self.from.0);
        out.extend(self.boot.to_le_bytes());
        put_varint(&mut out, self.number);
        out.push(self.precedence as u8);
        put_varint(&mut out, self.labels.len() as u64);
        for label in &self.labels {
            put_varint(&mut out, label.as_str().len() as u64);
            out.extend_from_slice(label.as_str().as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, "a parcel's header");
        let (to, from) = (NodeId(r.array()?), NodeId(r.array()?));
        let boot = u64::from_le_bytes(r.array()?);
        let number = r.varint()?;
        let class = usize::from(r.u8()?);
        let precedence = Precedence::ALL.into_iter().find(|p| *p as usize == class);
        let precedence = precedence.ok_or(WireError::Malformed("a parcel's class"))?;
        let count = r.capped("labels of a parcel", LABELS_MAX)?;
        let mut labels = BTreeSet::new();
        for _ in 0..count {
            let len = r.capped("a label", Label::MAX_LEN)?;
            let label = std::str::from_utf8(r.take(len)?).ok().and_then(|text| text.parse().ok());
            labels.insert(label.ok_or(WireError::Malformed("a label"))?);
        }
        r.finish()?;
        let header = Self { to, from, boot, number, precedence, labels };
        if header.encode() != bytes {
            return Err(WireError::NotCanonical("a parcel's header"));
        }
        Ok(header)
    }
}

impl Parcel {
    /// Seals frames for the node that `header` names, and signs the whole.
    ///
    /// # Panics
    /// When `key` is not that of the header's origin, or there is more than a parcel holds; the planner keeps to both.
    pub fn seal(header: Header, frames: &[Frame], to: &SealingPublic, key: &NodeKey) -> Self {
        assert_eq!(header.from, key.node_id(), "a parcel is signed by its origin");
        let mut body = Vec::new();
        for frame in frames {
            let bytes = frame.encode();
            assert!(bytes.len() <= BODY_FRAME_BYTES_MAX, "a {} frame of {} bytes", frame.kind(), bytes.len());
            put_varint(&mut body, bytes.len() as u64);
            body.extend_from_slice(&bytes);
        }
        assert!(body.len() <= BODY_BYTES_MAX, "a body of {} bytes", body.len());
        let encoded = header.encode();
        let sealed = to.seal(&encoded, &body);
        let mut bytes = Vec::with_capacity(sealed.len() + encoded.len() + SIGNATURE_LEN + 16);
        bytes.extend_from_slice(MAGIC);
        put_varint(&mut bytes, encoded.len() as u64);
        bytes.extend_from_slice(&encoded);
        let header_end = bytes.len();
        put_varint(&mut bytes, sealed.len() as u64);
        let sealed_at = bytes.len();
        bytes.extend_from_slice(&sealed);
        let signature = key.sign(&bytes);
        bytes.extend(signature);
        Self { header, bytes, header_end, sealed_at }
    }

    /// Reads the parcel that `bytes` begin with; what stands behind it is not looked at.
    ///
    /// # Errors
    /// When they begin with none, or with half of one.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, "a parcel");
        if r.take(MAGIC.len())? != MAGIC {
            return Err(WireError::Malformed("the beginning of a parcel"));
        }
        let len = r.capped("a parcel's header", HEADER_BYTES_MAX)?;
        let header = Header::decode(r.take(len)?)?;
        let header_end = bytes.len() - r.rest_len();
        let len = r.capped("a parcel's body", BODY_BYTES_MAX + SEAL_OVERHEAD)?;
        let sealed_at = bytes.len() - r.rest_len();
        r.take(len)?;
        r.take(SIGNATURE_LEN)?;
        let end = bytes.len() - r.rest_len();
        Ok(Self { header, bytes: bytes[..end].to_vec(), header_end, sealed_at })
    }

    /// Reads bytes that are one parcel and nothing else.
    ///
    /// # Errors
    /// When they are not.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let parcel = Self::read(bytes)?;
        if parcel.bytes.len() != bytes.len() {
            return Err(WireError::NotCanonical("a parcel"));
        }
        Ok(parcel)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Checks that the node with this key (SubjectPublicKeyInfo, DER) wrote it.
    ///
    /// # Errors
    /// When it did not, or a byte was changed since.
    pub fn verify(&self, spki: &[u8]) -> Result<(), ParcelError> {
        let (signed, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE_LEN);
        Ok(verify_signature(spki, signed, signature)?)
    }

    /// Verifies and opens it: the frames that it holds. `spki` is the origin's key.
    ///
    /// # Errors
    /// When it is not for this node, not genuine, or holds what cannot be read.
    pub fn open(&self, me: NodeId, key: &SealingKey, spki: &[u8]) -> Result<Vec<Frame>, ParcelError> {
        if self.header.to != me {
            return Err(ParcelError::OtherNode(self.header.to));
        }
        self.verify(spki)?;
        let sealed = &self.bytes[self.sealed_at..self.bytes.len() - SIGNATURE_LEN];
        let context = &self.bytes[..self.header_end];
        let mut header = Reader::new(&context[MAGIC.len()..], "a parcel");
        header.varint()?;
        let body = key.open_sealed(header.rest(), sealed)?;
        let mut r = Reader::new(&body, "a parcel's body");
        let mut frames = Vec::new();
        while !r.is_empty() {
            let len = r.capped("a frame", BODY_FRAME_BYTES_MAX)?;
            let frame = Frame::decode_up_to(r.take(len)?, BODY_FRAME_BYTES_MAX)?;
            frames.push(frame);
        }
        Ok(frames)
    }
}

/// Reads hostile bytes as a parcel and as its header, for fuzzing.
pub fn fuzz_parcel(bytes: &[u8]) {
    if let Ok(parcel) = Parcel::read(bytes) {
        assert!(parcel.as_bytes().len() <= PARCEL_BYTES_MAX);
        assert_eq!(Parcel::decode(parcel.as_bytes()).as_ref(), Ok(&parcel), "a parcel that is read survives its bytes");
        assert!(parcel.verify(&[]).is_err());
    }
    let _ = Header::decode(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Numbers, Skip};
    use model::{Epoch, Outcome, RangeSet};

    struct Ends {
        alpha: NodeKey,
        bravo: NodeKey,
        sealing: SealingKey,
    }

    impl Ends {
        fn new() -> Self {
            Self { alpha: NodeKey::generate(), bravo: NodeKey::generate(), sealing: SealingKey::generate() }
        }

        fn parcel(&self) -> (Parcel, Vec<Frame>) {
            let header = Header {
                to: self.bravo.node_id(),
                from: self.alpha.node_id(),
                boot: 7,
                number: 3,
                precedence: Precedence::Immediate,
                labels: [Label::directory(), "mission".parse().unwrap()].into(),
            };
            let ranges = RangeSet::from(3..=900);
            let frames = vec![
                Frame::Skip(Skip {
                    epoch: Epoch(1),
                    outcome: Outcome::Withheld,
                    ranges: ranges.clone(),
                    after: Vec::new(),
                }),
                Frame::Gone(Numbers { epoch: Epoch(2), numbers: ranges }),
            ];
            (Parcel::seal(header, &frames, self.sealing.public(), &self.alpha), frames)
        }
    }

    #[test]
    fn the_destination_opens_what_the_origin_sealed_and_nobody_else_does() {
        let ends = Ends::new();
        let (parcel, frames) = ends.parcel();
        let read = Parcel::decode(parcel.as_bytes()).unwrap();
        assert_eq!(read, parcel);
        let (to, spki) = (ends.bravo.node_id(), ends.alpha.spki());
        assert_eq!(read.open(to, &ends.sealing, spki).unwrap(), frames);
        assert_eq!(
            read.open(ends.alpha.node_id(), &ends.sealing, spki),
            Err(ParcelError::OtherNode(to)),
            "for another node"
        );
        assert_eq!(
            read.open(to, &SealingKey::generate(), spki),
            Err(ParcelError::Seal(SealError::NotOpened)),
            "sealed for a key that the node had before"
        );
        assert_eq!(
            read.open(to, &ends.sealing, ends.bravo.spki()),
            Err(ParcelError::Seal(SealError::NotSigned)),
            "signed by somebody else"
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let ends = Ends::new();
        let (parcel, _) = ends.parcel();
        for at in 0..parcel.as_bytes().len() {
            let mut altered = parcel.as_bytes().to_vec();
            altered[at] ^= 1;
            let opened = Parcel::decode(&altered)
                .map_err(ParcelError::from)
                .and_then(|p| p.open(ends.bravo.node_id(), &ends.sealing, ends.alpha.spki()));
            assert!(opened.is_err(), "byte {at}");
            assert!(Parcel::read(&parcel.as_bytes()[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_header_cannot_be_put_before_another_body() {
        // Whoever signs anew cannot make a parcel of another origin say what it did not: the seal knows its header.
        let ends = Ends::new();
        let (parcel, _) = ends.parcel();
        let mallory = NodeKey::generate();
        let header = Header { from: mallory.node_id(), ..parcel.header.clone() }.encode();
        let mut forged = MAGIC.to_vec();
        put_varint(&mut forged, header.len() as u64);
        forged.extend(header);
        forged.extend_from_slice(&parcel.as_bytes()[parcel.header_end..parcel.as_bytes().len() - SIGNATURE_LEN]);
        let signature = mallory.sign(&forged);
        forged.extend(signature);
        let forged = Parcel::decode(&forged).unwrap();
        assert_eq!(forged.verify(mallory.spki()), Ok(()));
        let opened = forged.open(ends.bravo.node_id(), &ends.sealing, mallory.spki());
        assert_eq!(opened, Err(ParcelError::Seal(SealError::NotOpened)));
    }

    #[test]
    fn parcels_stand_one_behind_the_other() {
        let ends = Ends::new();
        let (first, second) = (ends.parcel().0, ends.parcel().0);
        let both = [first.as_bytes(), second.as_bytes()].concat();
        assert_eq!(Parcel::read(&both).unwrap(), first);
        assert_eq!(Parcel::read(&both[first.as_bytes().len()..]).unwrap(), second);
        assert!(Parcel::decode(&both).is_err());
        fuzz_parcel(&both);
    }
}
