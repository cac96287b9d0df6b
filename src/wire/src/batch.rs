//! Entries packed together.
//!
//! ```text
//! batch   = head | records length varint where the head has no room | name of the history, if any | check (2 LE) | packed
//! head    = bits 0-1 packing, 2 names a history, 3-7 length of the records, or 31: it follows
//! packed  = 0: records | texts        1: records | block(texts)        2: block(records | texts)
//!           3: blocks(records | texts)
//! check   = low half of the CRC-32C over the canonical bytes of all entries
//! block   = content of one zstd block; blocks = zstd blocks with their heads. What stands before them in a zstd frame
//!           never changes, and the length of a single block is known.
//! ```
//!
//! The check is for our own mistakes: were the two sides' histories to differ where their hashes do not, the entries would
//! come out as others, and nothing below would notice.

use model::Entry;

use crate::compress::{squeeze, unsqueeze};
use crate::frame::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::history::History;
use crate::reader::{Reader, put_varint};
use crate::record::{ColumnReader, Columns};
use crate::{WireError, encode_entry};

const WHAT: &str = "a batch";
const NAMES_HISTORY: u8 = 1 << 2;
const LENGTH_SHIFT: u8 = 3;
/// Length of the records that the head has no room for.
const LENGTH_FOLLOWS: usize = 31;

/// Records of so many bytes have something to gain from being compressed themselves.
const WHOLE_FROM_BYTES: usize = 48;

/// An entry of a batch, and its canonical bytes.
pub type Unpacked = (Entry, Vec<u8>);

/// Entries packed together. See [`pack_batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    packing: Packing,
    history: Option<u8>,
    records_len: usize,
    check: u16,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Texts,
    Whole,
    Blocks,
}

impl Packing {
    const ALL: [Self; 4] = [Self::Plain, Self::Texts, Self::Whole, Self::Blocks];
}

/// Packs entries together, as far as `history` does not tell them already; `name` is what the peer knows the history by,
/// `None` for [`History::none`]. Compressed where that gains.
///
/// # Panics
/// When there are more than [`BATCH_ENTRIES_MAX`] entries or more than [`BATCH_BYTES_MAX`] bytes.
pub fn pack_batch<'a>(
    entries: impl IntoIterator<Item = (&'a Entry, &'a [u8])>,
    name: Option<u8>,
    history: &History,
    level: i32,
) -> Batch {
    let mut context = history.context.clone();
    let mut columns = Columns::default();
    let (mut count, mut crc) = (0, 0);
    for (entry, canonical) in entries {
        context.put(entry, &mut columns);
        crc = crc32c::crc32c_append(crc, canonical);
        count += 1;
    }
    let Columns { records, texts } = columns;
    let records_len = records.len();
    let plain = [records.as_slice(), &texts].concat();
    assert!(count <= BATCH_ENTRIES_MAX && plain.len() <= BATCH_BYTES_MAX, "the session keeps to the batch's caps");
    let prepared = history.prepared(level);
    let mut best = (Packing::Plain, plain);
    let mut offer = |packing: Packing, bytes: Vec<u8>| {
        if bytes.len() < best.1.len() {
            best = (packing, bytes);
        }
    };
    if let Some((true, block)) = squeeze(&texts, prepared) {
        offer(Packing::Texts, [records.as_slice(), &block].concat());
    }
    if records_len >= WHOLE_FROM_BYTES || texts.len() > BATCH_BYTES_MAX / 4 {
        let whole = [records, texts].concat();
        if let Some((is_single, blocks)) = squeeze(&whole, prepared) {
            offer(if is_single { Packing::Whole } else { Packing::Blocks }, blocks);
        }
    }
    let (packing, bytes) = best;
    Batch { packing, history: name, records_len, check: crc as u16, bytes }
}

impl Batch {
    /// Bytes of the frame that carries it.
    pub fn frame_len(&self) -> usize {
        1 + self.encode().len()
    }

    /// The name of the history without which it cannot be read; `None` for [`History::none`].
    pub fn history(&self) -> Option<u8> {
        self.history
    }

    /// The entries, each with its canonical bytes.
    ///
    /// # Errors
    /// When they are not what [`pack_batch`] makes with this history, or above its caps.
    pub fn entries(&self, history: &History) -> Result<Vec<Unpacked>, WireError> {
        let unpack = |bytes: &[u8], is_single| unsqueeze(bytes, is_single, &history.dictionary(), BATCH_BYTES_MAX);
        let too_short = || WireError::Truncated(WHAT);
        let plain = match self.packing {
            Packing::Plain => self.bytes.clone(),
            Packing::Texts => {
                let (records, block) = self.bytes.split_at_checked(self.records_len).ok_or_else(too_short)?;
                [records, &unpack(block, true)?].concat()
            }
            Packing::Whole => unpack(&self.bytes, true)?,
            Packing::Blocks => unpack(&self.bytes, false)?,
        };
        let (records, texts) = plain.split_at_checked(self.records_len).ok_or_else(too_short)?;
        let mut from = ColumnReader { records: Reader::new(records, WHAT), texts: Reader::new(texts, WHAT) };
        let mut context = history.context.clone();
        let (mut entries, mut crc) = (Vec::new(), 0);
        while !from.records.is_empty() {
            if entries.len() == BATCH_ENTRIES_MAX {
                let found = entries.len() as u64 + 1;
                return Err(WireError::TooLarge { what: WHAT, found, max: BATCH_ENTRIES_MAX as u64 });
            }
            let entry = context.take(&mut from)?;
            let canonical = encode_entry(&entry);
            crc = crc32c::crc32c_append(crc, &canonical);
            entries.push((entry, canonical));
        }
        from.texts.finish()?;
        if crc as u16 != self.check {
            return Err(WireError::Malformed("a batch that was made with another history"));
        }
        let mut again = Columns::default();
        let mut context = history.context.clone();
        entries.iter().for_each(|(entry, _)| context.put(entry, &mut again));
        if again.records != records || again.texts != texts {
            return Err(WireError::NotCanonical("an entry in a batch"));
        }
        Ok(entries)
    }

    /// As it stands in a frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.bytes.len());
        let packing = Packing::ALL.iter().position(|p| *p == self.packing).unwrap_or(0) as u8;
        let names = if self.history.is_some() { NAMES_HISTORY } else { 0 };
        out.push(packing | names | (self.records_len.min(LENGTH_FOLLOWS) as u8) << LENGTH_SHIFT);
        if self.records_len >= LENGTH_FOLLOWS {
            put_varint(&mut out, self.records_len as u64);
        }
        out.extend(self.history);
        out.extend(self.check.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let head = r.u8()?;
        let packing = Packing::ALL[usize::from(head & 3)];
        let records_len = match usize::from(head >> LENGTH_SHIFT) {
            LENGTH_FOLLOWS => r.capped("the records of a batch", BATCH_BYTES_MAX)?,
            len => len,
        };
        if usize::from(head >> LENGTH_SHIFT) != records_len.min(LENGTH_FOLLOWS) {
            return Err(WireError::NotCanonical(WHAT));
        }
        let history = if head & NAMES_HISTORY == 0 { None } else { Some(r.u8()?) };
        let check = u16::from_le_bytes(r.array()?);
        Ok(Self { packing, history, records_len, check, bytes: r.rest().to_vec() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::entry::tests::entry;
    use crate::{HISTORY_ENTRIES_MAX, decode_event, encode_event, entry_hash};
    use keys::ProcessMint;
    use model::event::{FileStub, PostPriority, PostState};
    use model::{EntryHash, EntryId, Epoch, Event, Header, Hlc, Id, IdMint, Kind, NodeId, Precedence, Seq};
    use model::{SourcePosition, StreamId, UnixMillis, Version};
    use proptest::prelude::*;
    use proptest::sample::select;

    const EDGE: NodeId = NodeId([7; 16]);

    pub(crate) fn pack(entries: &[Entry]) -> Batch {
        pack_with(entries, None, &History::none(EDGE))
    }

    fn pack_with(entries: &[Entry], name: Option<u8>, history: &History) -> Batch {
        let canonical: Vec<Vec<u8>> = entries.iter().map(encode_entry).collect();
        pack_batch(entries.iter().zip(canonical.iter().map(Vec::as_slice)), name, history, 3)
    }

    fn history_of(entries: &[Entry]) -> History {
        let canonical: Vec<(Vec<u8>, EntryHash)> =
            entries.iter().map(encode_entry).map(|bytes| (bytes.clone(), entry_hash(&bytes).unwrap())).collect();
        History::of(EDGE, canonical.iter().map(|(bytes, hash)| (bytes.as_slice(), *hash))).unwrap()
    }

    /// Few of everything, so that entries refer to each other, and some of what no post of today has.
    fn post() -> impl Strategy<Value = Entry> {
        let mint = |salt: u64, skip: u64| {
            let mint = ProcessMint::with_salt(EDGE, salt);
            (0..skip).for_each(|_| {
                mint.mint();
            });
            mint.mint()
        };
        let id = move || {
            prop_oneof![
                8 => (1u64..3, 0u64..40).prop_map(move |(salt, n)| mint(salt, n)),
                1 => any::<[u8; 16]>().prop_map(Id::from_block),
                1 => "[a-z0-9]{26}".prop_map(|text| text.parse().unwrap()),
            ]
        };
        let time = || select(vec![0i64, 1_700_000_000_000, 1_700_000_000_001, 1_700_009_000_000, -5, i64::MAX]);
        let text = || select(vec!["", "roger", "grid 35V LG 12345 67890", "x\0y", "größer"]);
        let number = (select(vec![1u32, 2]), 1u64..200);
        let causes = prop::collection::vec((1u64..200, any::<bool>()), 0..4);
        let stub = (id(), text()).prop_map(|(id, name)| FileStub {
            id,
            create_at: UnixMillis(3),
            name: name.to_owned(),
            extension: "pdf".to_owned(),
            size: 77,
            mime_type: String::new(),
            width: 0,
            height: 2,
        });
        let words = (text(), text(), text(), text());
        let times = (time(), time(), time(), time(), select(vec![1u64, 9, 1_700_000_000_000, 1_700_000_004_321]));
        let ids = (id(), id(), id(), prop::option::of(id()));
        let odd = (0u8..12, 0u8..12, select(vec!["mission", "directory"]), 1u64..3);
        let more = (prop::collection::vec(stub, 0..2), prop::option::of((text(), any::<bool>())), any::<bool>());
        (number, causes, words, times, ids, (odd, more)).prop_map(
            |((epoch, seq), causes, words, times, ids, ((odd, class, label, salt), (files, priority, pinned)))| {
                let captured = Hlc(times.4 << 16 | u64::from(odd == 1));
                let plain =
                    |is: u8, value: i64, otherwise: UnixMillis| if odd == is { UnixMillis(value) } else { otherwise };
                let origin_time = plain(2, times.0, captured.millis());
                let create_at = plain(3, times.1, origin_time);
                let number = |seq, epoch| EntryId { origin: EDGE, epoch: Epoch(epoch), seq: Seq::new(seq).unwrap() };
                let (at, by) =
                    (if odd == 4 { Hlc(5) } else { captured }, if odd == 5 { NodeId([9; 16]) } else { EDGE });
                let event = Event::Post(PostState {
                    version: Version { at, by },
                    id: ids.0,
                    channel_id: ids.1,
                    user_id: ids.2,
                    root_id: ids.3,
                    create_at,
                    update_at: plain(6, times.2, create_at),
                    edit_at: plain(7, times.3, UnixMillis(0)),
                    delete_at: plain(8, times.3, UnixMillis(0)),
                    message: words.0.to_owned(),
                    kind: if odd == 9 { words.1.to_owned() } else { String::new() },
                    props: if odd == 9 { words.2.to_owned() } else { String::new() },
                    hashtags: if odd == 9 { words.3.to_owned() } else { String::new() },
                    is_pinned: odd == 10 && pinned,
                    files,
                    priority: priority.map(|(word, ack)| PostPriority {
                        priority: if ack { "urgent".to_owned() } else { word.to_owned() },
                        requested_ack: ack,
                        persistent_notifications: pinned,
                    }),
                });
                let header = Header {
                    id: number(seq, epoch),
                    source: SourcePosition(captured),
                    stream: StreamId::Channel(if odd == 11 { ids.2 } else { ids.1 }),
                    causes: causes.into_iter().map(|(n, other)| number(n, if other { 2 } else { epoch })).collect(),
                    after: Seq::new(number(seq, epoch).seq.get() - 1)
                        .filter(|_| odd % 2 == 0)
                        .map(|before| (number(seq, epoch).epoch, before)),
                    precedence: Precedence::from_index(class % 5).unwrap(),
                    captured,
                    origin_time,
                    expiry: None,
                    supersedes: None,
                    label: label.parse().unwrap(),
                    kind: Kind::Post,
                    mint_salt: salt,
                };
                let body = encode_event(&event, EDGE, salt);
                let entry = Entry { header, body };
                assert_eq!(decode_event(&entry), Ok(event));
                entry
            },
        )
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        prop_oneof![3 => post(), 1 => entry()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_batch_gives_back_its_entries_whatever_went_before(
            before in prop::collection::vec(post(), 0..12),
            entries in prop::collection::vec(any_entry(), 0..8),
            level in select(vec![1, 3, 19]),
        ) {
            let mut before = before;
            before.iter_mut().for_each(|entry| entry.header.label = "mission".parse().unwrap());
            let history = history_of(&before);
            let canonical: Vec<Vec<u8>> = entries.iter().map(encode_entry).collect();
            let pairs = entries.iter().zip(canonical.iter().map(Vec::as_slice));
            let batch = pack_batch(pairs, Some(3), &history, level);
            let encoded = crate::Frame::Batch(batch.clone()).encode();
            prop_assert_eq!(encoded.len(), batch.frame_len());
            let crate::Frame::Batch(read) = crate::Frame::decode(&encoded).unwrap() else { panic!("a batch") };
            // Canonical bytes and so the hash are what they were before.
            let read: Vec<(Entry, Vec<u8>)> = read.entries(&history).unwrap();
            prop_assert_eq!(read.iter().map(|(_, bytes)| entry_hash(bytes)).collect::<Vec<_>>(),
                canonical.iter().map(|bytes| entry_hash(bytes)).collect::<Vec<_>>());
            prop_assert_eq!(read, entries.into_iter().zip(canonical).collect::<Vec<_>>());
        }

        #[test]
        fn a_batch_read_with_another_history_is_refused_or_the_same(
            before in prop::collection::vec(post(), 1..12),
            entries in prop::collection::vec(post(), 1..8),
        ) {
            let mut before = before;
            before.iter_mut().for_each(|entry| entry.header.label = "mission".parse().unwrap());
            let batch = pack_with(&entries, Some(3), &history_of(&before));
            if let Ok(read) = batch.entries(&history_of(&before[1..])) {
                prop_assert_eq!(read.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>(), entries);
            }
        }

        #[test]
        fn damaged_batches_never_panic_and_what_decodes_is_canonical(
            entries in prop::collection::vec(any_entry(), 1..6),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            let none = History::none(EDGE);
            let mut bytes = pack(&entries).encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(batch) = Batch::decode(&mut Reader::new(&bytes, "test"))
                && let Ok(read) = batch.entries(&none)
            {
                let read: Vec<Entry> = read.into_iter().map(|(entry, _)| entry).collect();
                prop_assert_eq!(pack(&read).entries(&none).unwrap().len(), read.len());
            }
        }
    }

    /// Posts of one channel by one author, nine seconds apart.
    fn chat(numbers: std::ops::Range<u64>) -> Vec<Entry> {
        let mint = ProcessMint::with_salt(EDGE, 0x1234_5678_9abc);
        let (channel, author) = (mint.mint(), mint.mint());
        (0..numbers.end)
            .map(|n| {
                let captured = Hlc((1_700_000_000_000 + n * 9_000) << 16);
                let id = |seq| EntryId { origin: EDGE, epoch: Epoch::FIRST, seq: Seq::new(seq).unwrap() };
                let at = captured.millis();
                let event = Event::Post(PostState {
                    version: Version { at: captured, by: EDGE },
                    id: mint.mint(),
                    channel_id: channel,
                    user_id: author,
                    root_id: None,
                    create_at: at,
                    update_at: at,
                    edit_at: UnixMillis(0),
                    delete_at: UnixMillis(0),
                    message: format!("number {}", n * n * 7_919 % 1_000_003),
                    kind: String::new(),
                    props: String::new(),
                    hashtags: String::new(),
                    is_pinned: false,
                    files: Vec::new(),
                    priority: None,
                });
                let header = Header {
                    id: id(n + 3),
                    source: SourcePosition(captured),
                    stream: StreamId::Channel(channel),
                    causes: vec![id(1), id(2)],
                    after: (n > 0).then(|| (id(n + 2).epoch, id(n + 2).seq)),
                    precedence: Precedence::Routine,
                    captured,
                    origin_time: at,
                    expiry: None,
                    supersedes: None,
                    label: "mission".parse().unwrap(),
                    kind: Kind::Post,
                    mint_salt: mint.salt(),
                };
                Entry { header, body: encode_event(&event, EDGE, mint.salt()) }
            })
            .skip(numbers.start as usize)
            .collect()
    }

    #[test]
    fn a_post_whose_people_are_known_costs_little_beside_its_text() {
        let (before, posts) = (chat(0..40), chat(40..41));
        let history = history_of(&before);
        let text = "number 123456\0".len();
        let alone = pack_with(&posts, Some(1), &history).frame_len() - text;
        assert!(alone <= 12, "{alone} bytes beside the text");
        let cold = pack(&posts).frame_len() - text;
        assert!(cold <= 45, "{cold} bytes beside the text without history");
    }

    #[test]
    fn a_history_takes_one_label_and_no_more_than_it_may_hold() {
        let all = chat(0..HISTORY_ENTRIES_MAX as u64 + 1);
        let refused = |entries: &[Entry]| {
            let canonical: Vec<Vec<u8>> = entries.iter().map(encode_entry).collect();
            History::of(EDGE, canonical.iter().map(|bytes| (bytes.as_slice(), EntryHash([0; 16])))).is_err()
        };
        assert!(refused(&all) && !refused(&all[1..]));
        let mut two = chat(0..2);
        two[1].header.label = "directory".parse().unwrap();
        assert!(refused(&two));
    }

    #[test]
    fn histories_of_the_same_entries_are_the_same_and_of_others_are_not() {
        let posts = chat(0..10);
        assert_eq!(history_of(&posts).hash(), history_of(&posts).hash());
        assert_ne!(history_of(&posts).hash(), history_of(&posts[1..]).hash());
    }
}
