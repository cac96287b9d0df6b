//! Parcels cut into datagrams of which enough make the parcel whole, whichever they are. No I/O, no clock.
//!
//! ```text
//! datagram = magic "HFO1" | sender (4) | object (8) | length of the parcel (4 LE) | tag (8) | payload id (4) | symbol (1144)
//! sender   = first 4 bytes of the sender's node id: says whose key the tag is made with
//! object   = first 8 bytes of the BLAKE3 hash of the parcel
//! tag      = first 8 bytes of the keyed BLAKE3 hash of everything else
//! ```
//!
//! RaptorQ (RFC 6330) with one source block and fixed parameters, so that nothing but the length comes from outside. The tag
//! keeps damaged symbols out, of which one would spoil the whole object, and makes a datagram of somebody who is not
//! enrolled cost a hash and no memory. Whether the parcel is genuine is decided where it is opened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::NodeId;
use raptorq::{Encoder, EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder};
use wire::parcel::PARCEL_BYTES_MAX;

const MAGIC: &[u8; 4] = b"HFO1";

/// With the header, UDP and IPv6 a datagram of 1,224 bytes: below every path's least MTU of 1,280.
pub(crate) const SYMBOL_BYTES: usize = 1_144;
const TAG_AT: usize = 4 + 4 + 8 + 4;
const ID_AT: usize = TAG_AT + 8;
const HEADER_BYTES: usize = ID_AT + 4;
/// Bytes of every datagram.
pub(crate) const DATAGRAM_BYTES: usize = HEADER_BYTES + SYMBOL_BYTES;

/// Symbols of the largest parcel; decoding takes time and memory with their number.
const SYMBOLS_MAX: usize = PARCEL_BYTES_MAX.div_ceil(SYMBOL_BYTES);
const _: () = assert!(SYMBOLS_MAX <= 2_000, "larger objects are slow to decode");

/// Parcels that are partly here: several senders with some seconds of carousel each. What is kept beside their symbols is at
/// most 100 kB each.
pub(crate) const OBJECTS_MAX: usize = 128;

/// Bytes of symbols held for parcels that are partly here: beyond it the one that grew least recently goes.
pub(crate) const HELD_BYTES_MAX: usize = 32 << 20;

/// Objects that were whole: what is still repeated of them is not collected again.
const DONE_MAX: usize = 16_384;

/// Different symbols beyond those of which an object is made that mean that it never will be whole: with ten more, decoding fails
/// once in 10^20.
const SYMBOLS_SPARE: usize = 16;

pub(crate) type ObjectId = [u8; 8];

/// What two nodes tag the datagrams of one direction with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TagKey([u8; 32]);

impl TagKey {
    /// From what the two told each other at enrolment, and nobody else knows both of.
    pub(crate) fn new(from: NodeId, from_secret: &[u8; 32], to: NodeId, to_secret: &[u8; 32]) -> Self {
        let material = zeroize::Zeroizing::new([&from.0[..], from_secret, &to.0[..], to_secret].concat());
        Self(blake3::derive_key("holdfast one-way datagram v1", &material))
    }

    fn tag(&self, datagram: &[u8]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&datagram[..TAG_AT]).update(&datagram[ID_AT..]);
        let mut tag = [0; 8];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        tag
    }
}

/// The senders that are listened to.
#[derive(Default)]
pub(crate) struct Senders(BTreeMap<[u8; 4], Vec<TagKey>>);

impl Senders {
    pub(crate) fn add(&mut self, from: NodeId, key: TagKey) {
        self.0.entry(hint(from)).or_default().push(key);
    }

    fn tagged(&self, datagram: &[u8]) -> bool {
        let Some(keys) = datagram.get(4..8).and_then(|hint| self.0.get(hint)) else { return false };
        keys.iter().any(|key| key.tag(datagram) == datagram[TAG_AT..ID_AT])
    }
}

fn hint(node: NodeId) -> [u8; 4] {
    let [a, b, c, d, ..] = node.0;
    [a, b, c, d]
}

/// A parcel to send.
pub(crate) struct Cut {
    from: [u8; 4],
    key: TagKey,
    id: ObjectId,
    len: u32,
    encoder: Encoder,
    symbols: u32,
    /// Repair symbols given so far: every pass gives others, so that each that arrives counts.
    repairs: u32,
    passes: u32,
}

fn config(len: u32) -> ObjectTransmissionInformation {
    ObjectTransmissionInformation::new(u64::from(len), SYMBOL_BYTES as u16, 1, 1, 8)
}

fn id_of(parcel: &[u8]) -> ObjectId {
    let mut id = ObjectId::default();
    id.copy_from_slice(&blake3::hash(parcel).as_bytes()[..8]);
    id
}

impl Cut {
    /// Prepares a parcel.
    ///
    /// # Panics
    /// When it is empty or larger than any parcel.
    pub(crate) fn new(from: NodeId, key: &TagKey, parcel: &[u8]) -> Self {
        assert!((1..=PARCEL_BYTES_MAX).contains(&parcel.len()), "a parcel of {} bytes", parcel.len());
        let len = parcel.len() as u32;
        let symbols = len.div_ceil(SYMBOL_BYTES as u32);
        let encoder = Encoder::new(parcel, config(len));
        Self { from: hint(from), key: key.clone(), id: id_of(parcel), len, encoder, symbols, repairs: 0, passes: 0 }
    }

    /// The datagrams of the next pass: enough to make the parcel whole by themselves where fewer than
    /// `redundancy_percent` are lost.
    pub(crate) fn next_pass(&mut self, redundancy_percent: u32) -> Vec<Vec<u8>> {
        let extra = self.symbols * redundancy_percent / 100 + 2;
        let block = &self.encoder.get_block_encoders()[0];
        let mut packets = if self.passes == 0 { block.source_packets() } else { Vec::new() };
        let repairs = self.symbols + extra - packets.len() as u32;
        packets.extend(block.repair_packets(self.repairs, repairs));
        self.repairs += repairs;
        self.passes += 1;
        packets.into_iter().map(|packet| self.datagram(packet)).collect()
    }

    pub(crate) fn passes(&self) -> u32 {
        self.passes
    }

    fn datagram(&self, packet: EncodingPacket) -> Vec<u8> {
        let (payload_id, symbol) = packet.split();
        let mut out = Vec::with_capacity(DATAGRAM_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend(self.from);
        out.extend(self.id);
        out.extend(self.len.to_le_bytes());
        out.extend([0; 8]);
        out.extend(payload_id.serialize());
        out.extend(symbol);
        let tag = self.key.tag(&out);
        out[TAG_AT..ID_AT].copy_from_slice(&tag);
        out
    }
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// It is no datagram of this lane, damaged, or of nobody who is enrolled.
    Rejected,
    /// Kept, or of a parcel that was whole before.
    Noted,
    /// The parcel is whole.
    Whole(Vec<u8>),
}

/// Puts parcels together. Bounded by [`OBJECTS_MAX`] and [`HELD_BYTES_MAX`].
#[derive(Default)]
pub(crate) struct Assembler {
    partial: BTreeMap<ObjectId, Partial>,
    held_bytes: usize,
    done: BTreeSet<ObjectId>,
    /// The same, the oldest first.
    done_order: VecDeque<ObjectId>,
    /// Counts datagrams, for what grew least recently.
    clock: u64,
    /// Parcels given up: pushed out by others, or never whole.
    given_up: u64,
}

struct Partial {
    len: u32,
    decoder: SourceBlockDecoder,
    /// Numbers of the symbols that came: one that comes again is nothing new.
    symbols: BTreeSet<u32>,
    touched: u64,
}

/// A parcel that is partly here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HalfReceived {
    /// Its length.
    pub bytes: u64,
    /// Symbols that came.
    pub symbols: u64,
    /// Symbols of which it is made; one or two more are needed now and then.
    pub needed: u64,
}

impl Assembler {
    /// Takes a datagram from anywhere.
    pub(crate) fn take(&mut self, senders: &Senders, datagram: &[u8]) -> Arrived {
        let Some((id, len, packet)) = parse(senders, datagram) else { return Arrived::Rejected };
        if self.done.contains(&id) {
            return Arrived::Noted;
        }
        self.clock += 1;
        if !self.partial.contains_key(&id) {
            self.make_room();
            let decoder =
                SourceBlockDecoder::new(0, &config(len), u64::from(len).next_multiple_of(SYMBOL_BYTES as u64));
            self.partial.insert(id, Partial { len, decoder, symbols: BTreeSet::new(), touched: 0 });
        }
        let Some(partial) = self.partial.get_mut(&id) else { return Arrived::Rejected };
        // Another length under the same name: an enrolled node plays.
        if partial.len != len {
            return Arrived::Rejected;
        }
        partial.touched = self.clock;
        if !partial.symbols.insert(packet.payload_id().encoding_symbol_id()) {
            return Arrived::Noted;
        }
        self.held_bytes += SYMBOL_BYTES;
        let needed = len.div_ceil(SYMBOL_BYTES as u32) as usize;
        let whole = partial.decoder.decode([packet]).map(|mut bytes| {
            bytes.truncate(len as usize);
            bytes
        });
        match whole {
            Some(bytes) if id_of(&bytes) == id => {
                self.forget(&id);
                self.note_done(id);
                Arrived::Whole(bytes)
            }
            // Put together of symbols that do not belong together: begun anew with the next pass.
            Some(_) => {
                self.forget(&id);
                self.given_up += 1;
                Arrived::Noted
            }
            None => {
                if partial.symbols.len() > needed + SYMBOLS_SPARE {
                    self.forget(&id);
                    self.given_up += 1;
                }
                Arrived::Noted
            }
        }
    }

    fn make_room(&mut self) {
        while self.partial.len() >= OBJECTS_MAX || self.held_bytes + 2 * PARCEL_BYTES_MAX > HELD_BYTES_MAX {
            let Some(oldest) = self.partial.iter().min_by_key(|(_, partial)| partial.touched).map(|(id, _)| *id) else {
                return;
            };
            self.forget(&oldest);
            self.given_up += 1;
        }
    }

    fn forget(&mut self, id: &ObjectId) {
        if let Some(partial) = self.partial.remove(id) {
            self.held_bytes -= partial.symbols.len() * SYMBOL_BYTES;
        }
    }

    fn note_done(&mut self, id: ObjectId) {
        if self.done_order.len() >= DONE_MAX
            && let Some(oldest) = self.done_order.pop_front()
        {
            self.done.remove(&oldest);
        }
        if self.done.insert(id) {
            self.done_order.push_back(id);
        }
    }

    /// A whole parcel could not be kept: it is collected again.
    pub(crate) fn collect_again(&mut self, parcel: &[u8]) {
        let again = id_of(parcel);
        self.done.remove(&again);
        self.done_order.retain(|id| *id != again);
    }

    /// Parcels that are partly here.
    pub(crate) fn half_received(&self) -> Vec<HalfReceived> {
        let of = |partial: &Partial| HalfReceived {
            bytes: u64::from(partial.len),
            symbols: partial.symbols.len() as u64,
            needed: u64::from(partial.len.div_ceil(SYMBOL_BYTES as u32)),
        };
        self.partial.values().map(of).collect()
    }

    /// Parcels given up since the start.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }
}

fn parse(senders: &Senders, datagram: &[u8]) -> Option<(ObjectId, u32, EncodingPacket)> {
    if datagram.len() != DATAGRAM_BYTES || &datagram[..4] != MAGIC || !senders.tagged(datagram) {
        return None;
    }
    let id: ObjectId = datagram[8..16].try_into().ok()?;
    let len = u32::from_le_bytes(datagram[16..TAG_AT].try_into().ok()?);
    if !(1..=PARCEL_BYTES_MAX).contains(&(len as usize)) {
        return None;
    }
    let payload_id = PayloadId::deserialize(datagram[ID_AT..HEADER_BYTES].try_into().ok()?);
    if payload_id.source_block_number() != 0 {
        return None;
    }
    Some((id, len, EncodingPacket::new(payload_id, datagram[HEADER_BYTES..].to_vec())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    pub(crate) const ALPHA: NodeId = NodeId([1; 16]);
    const BRAVO: NodeId = NodeId([2; 16]);

    pub(crate) fn key() -> TagKey {
        TagKey::new(ALPHA, &[3; 32], BRAVO, &[4; 32])
    }

    pub(crate) fn senders() -> Senders {
        let mut senders = Senders::default();
        senders.add(ALPHA, key());
        senders
    }

    fn cut(parcel: &[u8]) -> Cut {
        Cut::new(ALPHA, &key(), parcel)
    }

    fn noise(len: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn a_fifth_lost_and_a_burst_leave_every_parcel_whole_once() {
        for seed in 0..8 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let parcels: Vec<Vec<u8>> =
                [1, 1_144, 1_145, 20_000, 70_000, 150_000].map(|len| noise(len, &mut rng)).into();
            let mut cuts: Vec<Cut> = parcels.iter().map(|parcel| cut(parcel)).collect();
            let mut assembler = Assembler::default();
            let mut whole = Vec::new();
            for pass in 0..3 {
                for (at, cut) in cuts.iter_mut().enumerate() {
                    for (i, datagram) in cut.next_pass(30).into_iter().enumerate() {
                        assert_eq!(datagram.len(), DATAGRAM_BYTES);
                        let burst = pass == 0 && at == 3 && (2..18).contains(&i);
                        if burst || rng.random_bool(0.2) {
                            continue;
                        }
                        // Some networks give a datagram twice.
                        for _ in 0..=usize::from(rng.random_bool(0.1)) {
                            if let Arrived::Whole(parcel) = assembler.take(&senders(), &datagram) {
                                whole.push(parcel);
                            }
                        }
                    }
                }
            }
            whole.sort();
            let mut all = parcels;
            all.sort();
            assert_eq!(whole.len(), all.len(), "seed {seed}");
            assert!(whole == all, "seed {seed}");
            assert!(assembler.half_received().is_empty() && assembler.held_bytes == 0);
        }
    }

    #[test]
    fn what_arrives_in_several_passes_adds_up() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let parcel = noise(100_000, &mut rng);
        let mut cut = cut(&parcel);
        let mut assembler = Assembler::default();
        // Of each pass only two fifths arrive: none is enough alone.
        let mut whole = None;
        for _ in 0..3 {
            for (i, datagram) in cut.next_pass(5).into_iter().enumerate() {
                if i % 5 < 2
                    && let Arrived::Whole(parcel) = assembler.take(&senders(), &datagram)
                {
                    whole = Some(parcel);
                }
            }
        }
        assert!(whole == Some(parcel));
    }

    /// What an enrolled node may say that means harm: any symbol of any object.
    fn tagged(id: ObjectId, len: u32, symbol: u32, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let (id, from) = (id.as_slice(), &ALPHA.0[..4]);
        let head = [MAGIC, from, id, &len.to_le_bytes(), &[0; 8], &symbol.to_be_bytes()].concat();
        let mut datagram = [head, noise(SYMBOL_BYTES, rng)].concat();
        let tag = key().tag(&datagram);
        datagram[TAG_AT..ID_AT].copy_from_slice(&tag);
        datagram
    }

    #[test]
    fn memory_for_halves_is_bounded_whatever_an_enrolled_node_sends() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut assembler = Assembler::default();
        let senders = senders();
        for n in 0..40u64 {
            for symbol in 0..870 {
                let datagram = tagged(n.to_le_bytes(), 1_000_000, symbol, &mut rng);
                assert_eq!(assembler.take(&senders, &datagram), Arrived::Noted);
            }
            assert!(assembler.held_bytes <= HELD_BYTES_MAX);
        }
        assert!(assembler.given_up() > 0);
        // A flood of names: one datagram of each.
        let before = assembler.given_up();
        for n in 0..5_000u64 {
            let datagram = tagged((1_000 + n).to_le_bytes(), PARCEL_BYTES_MAX as u32, 7, &mut rng);
            assert_eq!(assembler.take(&senders, &datagram), Arrived::Noted);
            assert!(assembler.partial.len() <= OBJECTS_MAX);
        }
        assert!(assembler.given_up() > before + 4_000);
        for len in [0, PARCEL_BYTES_MAX as u32 + 1, u32::MAX] {
            assert_eq!(assembler.take(&senders, &tagged([9; 8], len, 0, &mut rng)), Arrived::Rejected);
        }
        // What is genuine gets through while it is sent.
        let parcel = noise(50_000, &mut rng);
        let arrived =
            cut(&parcel).next_pass(0).iter().any(|d| assembler.take(&senders, d) == Arrived::Whole(parcel.clone()));
        assert!(arrived);
    }

    #[test]
    fn rubbish_and_datagrams_of_strangers_are_rejected_and_cost_no_memory() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut assembler = Assembler::default();
        let mut datagram = cut(b"parcel").next_pass(0).remove(0);
        for at in 0..datagram.len() {
            datagram[at] ^= 1;
            assert_eq!(assembler.take(&senders(), &datagram), Arrived::Rejected, "byte {at}");
            datagram[at] ^= 1;
        }
        for len in (0..60).chain([DATAGRAM_BYTES - 1, DATAGRAM_BYTES, DATAGRAM_BYTES + 1, 9_000, 65_507]) {
            assert_eq!(assembler.take(&senders(), &noise(len, &mut rng)), Arrived::Rejected);
        }
        let strangers = TagKey::new(ALPHA, &[5; 32], BRAVO, &[4; 32]);
        let forged = Cut::new(ALPHA, &strangers, &noise(3_000, &mut rng)).next_pass(50);
        assert!(forged.iter().all(|datagram| assembler.take(&senders(), datagram) == Arrived::Rejected));
        // The way back has another key: nothing can be sent back to where it came from.
        let back = TagKey::new(BRAVO, &[4; 32], ALPHA, &[3; 32]);
        assert!(back != key());
        assert!(assembler.partial.is_empty() && assembler.held_bytes == 0);
    }

    #[test]
    fn symbols_with_the_highest_numbers_and_of_other_objects_do_no_harm() {
        // An enrolled node can tag what it likes.
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut assembler = Assembler::default();
        let parcel = noise(40_000, &mut rng);
        let mut given_up = 0;
        for n in 0..200u32 {
            let datagram = tagged(id_of(&parcel), 40_000, 0x00ff_ffff - n, &mut rng);
            assert_eq!(assembler.take(&senders(), &datagram), Arrived::Noted);
            given_up = assembler.given_up();
        }
        assert!(given_up > 0, "noise never makes an object");
        assert!(assembler.held_bytes <= 100 * SYMBOL_BYTES);
        // The true one is whole with a later pass, once what does not belong to it is gone.
        let mut cut = cut(&parcel);
        let whole = (0..3).any(|_| {
            cut.next_pass(30)
                .iter()
                .any(|datagram| assembler.take(&senders(), datagram) == Arrived::Whole(parcel.clone()))
        });
        assert!(whole);
    }
}
