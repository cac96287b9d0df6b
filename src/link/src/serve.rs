//! The sending half for files: chunks that the peer asked for, cut into slices.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    ChunkName, EntryId, Epoch, Event, Header, Kind, NodeId, Outbound, OutboundError, Outgoing, Precedence, RangeSet,
    Seq,
};
use wire::chunk::{check_list_len, check_manifest, read_name_list};
use wire::frame::{Frame, Numbers, Packed, Slice, Unavailable, Urge, Want, Whole};

use crate::limits::{NAMES_MAX, RANGES_PER_FRAME, SERVING_MAX};
use crate::output::LinkError;
use crate::progress::take_fitting;
use crate::sender::Sender;
use crate::sent::{FileThere, Packing, SentSoFar};

type Number = (Epoch, Seq);

/// Index, checksum and length of what the peer holds of a chunk.
type Partial = (u32, u32, u32);

#[derive(Debug)]
pub(crate) struct Serve {
    me: NodeId,
    compression: i32,
    /// What is asked for, the oldest file first.
    todo: BTreeMap<(Number, u8), Asked>,
    /// Numbers of the questions that came on this connection, the latest of them: the same one may come several times.
    heard: BTreeSet<u64>,
    /// What the peer asked for and has no room for at present.
    paused: BTreeMap<(Number, u8), RangeSet>,
    /// The latest of the questions that said so.
    paused_by: u64,
    /// The file whose lists of names went ahead of its entry, or go, and what is left of them.
    ahead: (Option<EntryId>, VecDeque<ChunkName>),
    /// The list of names that the indexes of the first of these count in.
    names: Option<Names>,
    current: Option<Current>,
    gone: VecDeque<Unavailable>,
    packing: Packing,
    /// Files that were served, as far as they are not complete: kept over connections.
    served: BTreeMap<Number, Served>,
    /// Plain bytes that were sent for the first time.
    first_bytes: u64,
    /// Classes of files that somebody wants.
    urged: BTreeMap<Number, Precedence>,
    /// Files that the peer does not ask for until somebody wants them: at most those that are not complete there.
    on_request: BTreeMap<Epoch, RangeSet>,
}

/// What is known of a file at the peer.
#[derive(Clone, Copy, Debug)]
struct Served {
    content_bytes: u64,
    /// What it has not got and was not sent on this connection.
    missing_bytes: u64,
    /// The least that it ever missed.
    least_missing: u64,
}

/// Names of a level of a file.
#[derive(Debug)]
struct Names {
    of: (Number, u8),
    names: Vec<ChunkName>,
    /// Length of the whole file's content.
    content_bytes: u64,
    /// Length of the form of it that the chunks hold.
    form_bytes: u64,
}

/// What is asked for of one list.
#[derive(Debug, Default)]
struct Asked {
    indexes: RangeSet,
    /// Those of which the peer has no base.
    whole: RangeSet,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Current {
    number: Number,
    level: u8,
    index: u32,
    packed: Packed,
    /// Of the content, what the chunk stands for; nothing for a list of names.
    plain_bytes: u64,
    offset: u32,
}

impl Serve {
    pub(crate) fn new(me: NodeId, compression: i32) -> Self {
        let compression = compression.min(CHUNK_COMPRESSION_MAX);
        Self {
            me,
            compression,
            todo: BTreeMap::new(),
            heard: BTreeSet::new(),
            paused: BTreeMap::new(),
            paused_by: 0,
            ahead: (None, VecDeque::new()),
            names: None,
            current: None,
            gone: VecDeque::new(),
            packing: Packing::default(),
            served: BTreeMap::new(),
            first_bytes: 0,
            urged: BTreeMap::new(),
            on_request: BTreeMap::new(),
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.todo.clear();
        self.heard.clear();
        self.paused.clear();
        self.paused_by = 0;
        self.ahead = (None, VecDeque::new());
        self.names = None;
        self.current = None;
        self.gone.clear();
    }

    /// Adds what was sent of files. Files that ended are forgotten.
    pub(crate) fn add_sent(&mut self, sender: &Sender, sent: &mut SentSoFar) {
        self.served.retain(|(epoch, seq), _| !sender.has_ended(*epoch, seq.get()));
        self.urged.retain(|(epoch, seq), _| !sender.has_ended(*epoch, seq.get()));
        for (epoch, set) in &mut self.on_request {
            *set = set.difference(&sender.ended(*epoch));
        }
        sent.on_request = self.on_request.clone();
        sent.files = self.packing;
        sent.first_bytes += self.first_bytes;
        let there = |((epoch, seq), served): (&Number, &Served)| FileThere {
            epoch: *epoch,
            seq: *seq,
            bytes: served.content_bytes.saturating_sub(served.missing_bytes),
        };
        sent.files_there = self.served.iter().map(there).collect();
    }

    /// Notes what the peer misses of the file that is being served: what it asked for, at the file's mean length of a chunk.
    fn note_missing(&mut self) {
        let Some(Names { of: (number, 0), names, content_bytes, .. }) = &self.names else { return };
        let asked = self.todo.get(&(*number, 0)).map(|asked| &asked.indexes);
        let asked = [asked, self.paused.get(&(*number, 0))].into_iter().flatten().map(RangeSet::count).sum::<u64>();
        let missing = u128::from(asked) * u128::from(*content_bytes) / names.len().max(1) as u128;
        let part = self.current.as_ref().filter(|c| (c.number, c.level) == (*number, 0)).map_or(0, |c| {
            let left = u64::from(c.packed.total() - c.offset.min(c.packed.total()));
            c.plain_bytes * left / u64::from(c.packed.total().max(1))
        });
        let missing_bytes = u64::try_from(missing).unwrap_or(u64::MAX).saturating_add(part).min(*content_bytes);
        if self.served.len() >= SERVED_MAX && !self.served.contains_key(number) {
            self.served.pop_first();
        }
        let served = self.served.entry(*number).or_insert(Served {
            content_bytes: *content_bytes,
            missing_bytes,
            least_missing: missing_bytes,
        });
        served.missing_bytes = missing_bytes;
        self.first_bytes += served.least_missing.saturating_sub(missing_bytes);
        served.least_missing = served.least_missing.min(missing_bytes);
    }

    pub(crate) fn want(&mut self, want: Want) -> Result<(), LinkError> {
        if !self.heard.insert(want.number) {
            return Ok(());
        }
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_first();
        }
        let key = ((want.epoch, want.seq), want.level);
        if want.indexes.is_empty() {
            // Unless it has found room since.
            if self.heard.last() == Some(&want.number) {
                self.paused_by = want.number;
                self.paused.extend(self.todo.remove(&key).map(|asked| (key, asked.indexes)));
            }
            return Ok(());
        }
        if want.number < self.paused_by {
            // Overtaken: what was asked is asked again.
            return Ok(());
        }
        self.paused.remove(&key);
        if let Some(waiting) = self.on_request.get_mut(&want.epoch).filter(|_| want.level == 0) {
            waiting.remove(want.seq.get());
        }
        if !self.todo.contains_key(&key) && self.todo.len() >= SERVING_MAX {
            return Err(LinkError::Protocol("more files asked for at a time than allowed"));
        }
        let asked = self.todo.entry(key).or_default();
        asked.indexes.union_with(&want.indexes);
        if want.whole {
            asked.whole.union_with(&want.indexes);
        }
        asked.partial = want.partial.or(asked.partial);
        Ok(())
    }

    /// A list of names of the file whose entry goes `next`. Few bytes ahead of it spare a question and its answer, which the
    /// content would wait for; of what is not short the question costs less than the lists would that the peer holds.
    pub(crate) fn next_list(
        &mut self,
        next: &Outgoing,
        bytes_max: usize,
        outbound: &dyn Outbound,
    ) -> Result<Option<Frame>, OutboundError> {
        let Header { id, kind, ref label, .. } = next.entry.header;
        if kind != Kind::File {
            return Ok(None);
        }
        if self.ahead.0 != Some(id) {
            let file = match wire::decode_event(&next.entry) {
                Ok(Event::File(state)) => state.content,
                Ok(_) | Err(_) => None,
            };
            let lists = file.filter(|manifest| manifest.level == 1 && check_manifest(manifest).is_ok());
            let mut lists: VecDeque<ChunkName> = lists.map(|manifest| manifest.chunks.into()).unwrap_or_default();
            // Of a file that was edited the peer holds most lists already.
            for name in &lists {
                if outbound.chunk_base(name)?.is_some() {
                    lists = VecDeque::new();
                    break;
                }
            }
            self.ahead = (Some(id), lists);
        }
        let Some(name) = self.ahead.1.pop_front() else { return Ok(None) };
        let Some(list) = outbound.chunk(&name)? else { return Ok(None) };
        let frame = Frame::Whole(Whole::new(id.epoch, id.seq, label.clone(), &list, self.compression));
        if frame.encode().len() > bytes_max {
            self.ahead.1.clear();
            return Ok(None);
        }
        Ok(Some(frame))
    }

    pub(crate) fn urge(&mut self, urge: Urge) {
        if self.urged.len() >= SERVED_MAX {
            self.urged.pop_first();
        }
        self.urged.insert((urge.epoch, urge.seq), urge.class);
    }

    /// The peer asks for these only when somebody wants them.
    pub(crate) fn on_request(&mut self, files: &Numbers, sender: &Sender) {
        let own = sender.numbers_of(files.epoch);
        self.on_request.entry(files.epoch).or_default().union_with(&files.numbers.intersection(&own));
        self.on_request.retain(|_, set| !set.is_empty());
    }

    fn class_of(&self, number: &Number) -> Precedence {
        self.urged.get(number).copied().unwrap_or(Precedence::Deferred)
    }

    /// The class in which something of a file waits, if anything does.
    pub(crate) fn waits(&self) -> Option<Precedence> {
        let todo = self.todo.keys().map(|(number, _)| number);
        todo.chain(self.current.as_ref().map(|current| &current.number)).map(|number| self.class_of(number)).min()
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.gone.is_empty()
    }

    pub(crate) fn next_control(&mut self, bytes_max: usize) -> Option<Frame> {
        let gone = self.gone.front_mut()?;
        let indexes = take_fitting(&mut gone.indexes, bytes_max - OVERHEAD, RANGES_PER_FRAME);
        let frame = Frame::Unavailable(Unavailable { indexes, ..gone.clone() });
        if gone.indexes.is_empty() {
            self.gone.pop_front();
        }
        Some(frame)
    }

    /// The next slice, at most `bytes_max` as a frame.
    pub(crate) fn next_slice(
        &mut self,
        bytes_max: usize,
        sender: &Sender,
        outbound: &dyn Outbound,
    ) -> Result<Option<Frame>, OutboundError> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.next_chunk(sender, outbound)? {
                Some(current) => current,
                None => return Ok(None),
            },
        };
        let ((epoch, seq), level, index) = (current.number, current.level, current.index);
        // Nearly every byte on a busy link is a slice's: its fields are counted as they are, not as long as they may be.
        let one = current.packed.part(current.offset, 1);
        let fields =
            Frame::Slice(Slice { epoch, seq, level, index, part: one.clone() }).encode().len() - one.bytes.len();
        let part = current.packed.part(current.offset, bytes_max.saturating_sub(fields));
        current.offset += part.bytes.len() as u32;
        let plain = current.plain_bytes * part.bytes.len() as u64 / u64::from(current.packed.total().max(1));
        self.packing.add(plain, part.bytes.len() + fields);
        if current.offset < current.packed.total() {
            self.current = Some(current);
        }
        self.note_missing();
        Ok(Some(Frame::Slice(Slice { epoch, seq, level, index, part })))
    }

    fn next_chunk(&mut self, sender: &Sender, outbound: &dyn Outbound) -> Result<Option<Current>, OutboundError> {
        // The most urgent first, then the oldest.
        while let Some(key) = self.todo.keys().min_by_key(|(number, level)| (self.class_of(number), *number, *level)) {
            let (number, level) = *key;
            let Entry::Occupied(mut first) = self.todo.entry((number, level)) else { break };
            let Asked { indexes: todo, whole, partial } = first.get_mut();
            // What is partly there goes first, so that it is whole soon.
            let begun = partial.take().filter(|(index, _, _)| todo.contains(u64::from(*index)));
            let Some(index) = begun.map(|(index, _, _)| u64::from(index)).or_else(|| todo.first()) else {
                first.remove();
                continue;
            };
            if self.names.as_ref().is_none_or(|names| names.of != (number, level)) {
                match names_of(self.me, number, level, sender, outbound)? {
                    Some(names) => self.names = Some(names),
                    None => {
                        let indexes = RangeSet::from(index..=index);
                        self.gone.push_back(Unavailable { epoch: number.0, seq: number.1, level, indexes });
                        first.remove();
                        continue;
                    }
                }
            }
            let known = self.names.as_ref();
            let name = known.and_then(|known| known.names.get(usize::try_from(index).ok()?));
            let (Some(known), Some(name)) = (known, name) else {
                // Indexes are asked for in ascending order: what is left lies beyond the end too.
                first.remove();
                continue;
            };
            let Some(chunk) = outbound.chunk(name)? else {
                // The file cannot be completed from here: one answer for all that was asked of it.
                let indexes = RangeSet::from(index..=index);
                self.gone.push_back(Unavailable { epoch: number.0, seq: number.1, level, indexes });
                first.remove();
                continue;
            };
            let base = if whole.contains(index) { None } else { outbound.chunk_base(name)? };
            todo.remove(index);
            if todo.is_empty() {
                first.remove();
            }
            let base = match base {
                Some(base) => outbound.chunk(&base)?.map(|bytes| (base, bytes)),
                None => None,
            };
            let packed = match base {
                Some((base, bytes)) => Packed::from_base(&chunk, base, &bytes, COMPRESSION_FROM_BASE),
                None => Packed::new(&chunk, self.compression),
            };
            let held = begun.filter(|(_, crc, _)| *crc == packed.crc());
            // At least the last byte is sent again, so that the peer completes it.
            let offset = held.map_or(0, |(_, _, held)| held.min(packed.total().saturating_sub(1)));
            let share = u128::from(known.content_bytes) * chunk.len() as u128 / u128::from(known.form_bytes.max(1));
            let plain_bytes = if level == 0 { u64::try_from(share).unwrap_or(u64::MAX) } else { 0 };
            return Ok(Some(Current { number, level, index: index as u32, packed, plain_bytes, offset }));
        }
        Ok(None)
    }
}

/// The names that indexes of `level` count in; `None` when the entry is no file of ours that the peer may have, or
/// a name list is not held any more.
fn names_of(
    me: NodeId,
    number: Number,
    level: u8,
    sender: &Sender,
    outbound: &dyn Outbound,
) -> Result<Option<Names>, OutboundError> {
    let id = EntryId { origin: me, epoch: number.0, seq: number.1 };
    let Some(own) = outbound.entry(id)? else { return Ok(None) };
    if !sender.releases(&own.entry.header.label) {
        return Ok(None);
    }
    let Ok(Event::File(state)) = wire::decode_event(&own.entry) else { return Ok(None) };
    let Some(manifest) = state.content.filter(|m| check_manifest(m).is_ok()) else { return Ok(None) };
    if level > manifest.level {
        return Ok(None);
    }
    let mut names = manifest.chunks.clone();
    for below in (level..manifest.level).rev() {
        let mut list = Vec::new();
        for name in &names {
            let Some(chunk) = outbound.chunk(name)? else { return Ok(None) };
            list.extend_from_slice(&chunk);
            if list.len() / ChunkName::LEN > NAMES_MAX || check_list_len(&manifest, below, list.len()).is_err() {
                return Ok(None);
            }
        }
        match read_name_list(&list) {
            Ok(list) => names = list,
            Err(_) => return Ok(None),
        }
    }
    let content_bytes = manifest.content_bytes;
    let form_bytes = manifest.coded.map_or(content_bytes, |coded| coded.bytes);
    Ok(Some(Names { of: (number, level), names, content_bytes, form_bytes }))
}

/// Incomplete files at the peer of which it is remembered how much is there: more than it may ask for at a time.
const SERVED_MAX: usize = 4 * SERVING_MAX;

/// Copies of a question come within seconds. 1 024 x 8 B.
const HEARD_MAX: usize = 1_024;

/// Most files are compressed already; more effort on them is heat.
const CHUNK_COMPRESSION_MAX: i32 = 6;

/// Chunks that are sent as what differs from another are short, and more effort finds more.
const COMPRESSION_FROM_BASE: i32 = 9;

/// Type, number and level.
const OVERHEAD: usize = 24;
