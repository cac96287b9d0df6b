//! The receiving half for files: which chunks of the peer's files are missing, asked for, and partly here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    ChunkName, Entry, EntryId, Epoch, Event, Label, Manifest, NodeId, Outbound, OutboundError, Precedence, RangeSet,
    Seq,
};
use wire::chunk::{CHUNK_BYTES_MAX, Namer, check_list_len, check_manifest, read_name_list};
use wire::frame::{Assembly, Frame, Numbers, Slice, Unavailable, Urge, Want, Whole};

use crate::limits::{
    BASED_MAX, CHUNKS_STORING_BYTES_MAX, FILES_ACTIVE_MAX, FILES_MAX, LIST_AHEAD_BYTES_MAX, LISTS_AHEAD_MAX, NAMES_MAX,
    NAMES_UNASKED_BYTES_MAX, RANGES_PER_FRAME,
};
use crate::output::{LinkError, Output};
use crate::partial::Partials;
use crate::progress::{take_epoch, take_fitting};

type Number = (Epoch, Seq);

#[derive(Debug)]
pub(crate) struct Fetch {
    peer: NodeId,
    secret: [u8; 32],
    /// Files whose entries the shell makes durable: a file is not complete before its entry is.
    arriving: BTreeMap<Number, File>,
    /// Waiting for their turn, oldest first.
    queued: VecDeque<(Number, File)>,
    /// Being fetched, oldest first.
    active: Vec<(Number, Active)>,
    /// A file was turned away for want of room.
    turned_away: bool,
    /// Names asked for on this connection, by whichever file.
    asked: BTreeSet<ChunkName>,
    /// Complete chunks that the shell makes durable, with their lengths.
    storing: BTreeMap<ChunkName, usize>,
    storing_bytes: usize,
    /// So many of them that the peer was told to send no more.
    full: bool,
    /// Chunks that are partly here, oldest first. They survive connections.
    partial: Partials<ChunkName>,
    /// Complete chunks that are to be unpacked with another, oldest first.
    based: VecDeque<Based>,
    /// Names of chunks whose bases are not here: asked for without.
    whole: BTreeSet<ChunkName>,
    /// Something changed that may call for new questions.
    stale: bool,
    /// Each gets its number when it is asked.
    wants: VecDeque<Want>,
    questions: u64,
    /// Lists that came ahead of files since one was complete or begun.
    lists_ahead: usize,
    /// Content of more bytes than this is asked for only on request; `None` for none.
    above: Option<u64>,
    /// Files that somebody wants, and in which class.
    requested: BTreeMap<Number, Precedence>,
    /// Files that nobody has wanted so far, with what is missing of each.
    on_request: BTreeMap<Number, u64>,
    /// Of these, what the peer has not been told on this connection.
    untold: BTreeMap<Epoch, RangeSet>,
    urges: VecDeque<Urge>,
}

#[derive(Debug)]
struct File {
    label: Label,
    manifest: Manifest,
}

/// A chunk that was sent as what differs from another.
#[derive(Debug)]
struct Based {
    name: ChunkName,
    base: ChunkName,
    packed: Assembly,
    file: Number,
    label: Label,
}

#[derive(Debug)]
struct Active {
    file: File,
    /// The level being fetched.
    level: u8,
    /// Names of that level, in order.
    names: Vec<ChunkName>,
    /// Names that are not durable here, with their first index.
    need: BTreeMap<ChunkName, u32>,
    /// Its content is not asked for until somebody wants it.
    held_back: bool,
}

/// A file of the peer whose content nobody has wanted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnRequest {
    /// The peer's epoch of its entry.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// What is missing of its content: all of it where the lists of its chunks are not here.
    pub missing_bytes: u64,
}

impl Fetch {
    pub(crate) fn new(peer: NodeId, secret: [u8; 32]) -> Self {
        Self {
            peer,
            secret,
            arriving: BTreeMap::new(),
            queued: VecDeque::new(),
            active: Vec::new(),
            turned_away: false,
            asked: BTreeSet::new(),
            storing: BTreeMap::new(),
            storing_bytes: 0,
            full: false,
            partial: Partials::default(),
            based: VecDeque::new(),
            whole: BTreeSet::new(),
            stale: false,
            wants: VecDeque::new(),
            questions: 0,
            lists_ahead: 0,
            above: None,
            requested: BTreeMap::new(),
            on_request: BTreeMap::new(),
            untold: BTreeMap::new(),
            urges: VecDeque::new(),
        }
    }

    pub(crate) fn hold_files_above(&mut self, bytes: Option<u64>) {
        self.above = bytes;
    }

    /// What is missing of the files that nobody has wanted so far.
    pub(crate) fn on_request(&self) -> Vec<OnRequest> {
        let files = self.on_request.iter();
        files.map(|((epoch, seq), missing)| OnRequest { epoch: *epoch, seq: *seq, missing_bytes: *missing }).collect()
    }

    /// Somebody wants this file of the peer, whatever its size.
    pub(crate) fn request(&mut self, entry: &Entry, class: Precedence) {
        let Some((number, file)) = file_of(entry) else { return };
        if self.requested.len() >= FILES_MAX && !self.requested.contains_key(&number) {
            return;
        }
        if self.requested.insert(number, class) != Some(class) {
            self.urges.push_back(Urge { epoch: number.0, seq: number.1, class });
        }
        self.on_request.remove(&number);
        // Its lists of names may be on their way; what they lead to is wanted now.
        if let Some((_, active)) = self.active.iter_mut().find(|(other, _)| *other == number) {
            active.held_back = false;
        }
        if let Some(untold) = self.untold.get_mut(&number.0) {
            untold.remove(number.1.get());
        }
        self.queue(number, file);
    }

    fn is_held_back(&self, number: &Number, file: &File) -> bool {
        self.above.is_some_and(|above| file.manifest.content_bytes > above) && !self.requested.contains_key(number)
    }

    /// Nobody wants it so far.
    fn hold_back(&mut self, number: Number, missing_bytes: u64) {
        // One that is not kept in mind does not come either, and comes when it is asked for.
        if self.on_request.len() >= FILES_MAX && !self.on_request.contains_key(&number) {
            return;
        }
        if self.on_request.insert(number, missing_bytes).is_none() {
            self.untold.entry(number.0).or_default().insert(number.1.get());
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.untold.clear();
        for (epoch, seq) in self.on_request.keys() {
            self.untold.entry(*epoch).or_default().insert(seq.get());
        }
        self.urges = self
            .requested
            .iter()
            .map(|((epoch, seq), class)| Urge { epoch: *epoch, seq: *seq, class: *class })
            .collect();
        self.asked.clear();
        self.based.clear();
        self.whole.clear();
        self.wants.clear();
        self.stale = true;
    }

    /// A file entry of the peer came; the shell makes it durable.
    pub(crate) fn arrived(&mut self, entry: &Entry) {
        if let Some((number, file)) = file_of(entry) {
            self.lists_ahead = 0;
            self.arriving.insert(number, file);
        }
    }

    /// An entry is durable.
    pub(crate) fn entry_stored(&mut self, id: EntryId) {
        if let Some(file) = self.arriving.remove(&(id.epoch, id.seq)) {
            self.queue((id.epoch, id.seq), file);
        }
    }

    pub(crate) fn entry_not_stored(&mut self, id: EntryId) {
        self.arriving.remove(&(id.epoch, id.seq));
    }

    /// A file entry of the peer is durable here: fetch what is missing of it.
    pub(crate) fn want(&mut self, entry: &Entry) {
        if let Some((number, file)) = file_of(entry) {
            self.queue(number, file);
        }
    }

    fn queue(&mut self, number: Number, file: File) {
        let is_known = self.queued.iter().any(|(n, _)| *n == number) || self.active.iter().any(|(n, _)| *n == number);
        if is_known || self.on_request.contains_key(&number) {
            return;
        }
        if self.queued.len() >= FILES_MAX {
            self.turned_away = true;
            return;
        }
        self.queued.push_back((number, file));
        self.stale = true;
    }

    pub(crate) fn has_control(&self) -> bool {
        self.stale || !self.wants.is_empty() || !self.urges.is_empty() || !self.untold.is_empty()
    }

    pub(crate) fn next_control(
        &mut self,
        bytes_max: usize,
        outbound: &dyn Outbound,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Option<Frame>, OutboundError> {
        if std::mem::take(&mut self.stale) {
            self.advance(outbound, outputs)?;
        }
        if let Some(urge) = self.urges.pop_front() {
            return Ok(Some(Frame::Urge(urge)));
        }
        if let Some((epoch, numbers)) = take_epoch(&mut self.untold, bytes_max - WANT_OVERHEAD, RANGES_PER_FRAME) {
            return Ok(Some(Frame::OnRequest(Numbers { epoch, numbers })));
        }
        let Some(want) = self.wants.front_mut() else { return Ok(None) };
        let indexes = take_fitting(&mut want.indexes, bytes_max - WANT_OVERHEAD, RANGES_PER_FRAME);
        let frame = Frame::Want(Want { number: self.questions, indexes, ..want.clone() });
        self.questions += 1;
        want.partial = None;
        if want.indexes.is_empty() {
            self.wants.pop_front();
        }
        Ok(Some(frame))
    }

    /// Moves every file as far as the durable chunks allow, and asks for what is missing next.
    fn advance(&mut self, outbound: &dyn Outbound, outputs: &mut VecDeque<Output>) -> Result<(), OutboundError> {
        self.unpack_based(outbound, outputs)?;
        let mut at = 0;
        let mut names_held: usize = self.active.iter().map(|(_, active)| active.names.len()).sum();
        loop {
            while let Some((number, active)) = self.active.get_mut(at) {
                if !active.need.is_empty() {
                    at += 1;
                    continue;
                }
                let held_back = active.held_back;
                let number = *number;
                let id = EntryId { origin: self.peer, epoch: number.0, seq: number.1 };
                if active.level == 0 {
                    names_held -= active.names.len();
                    self.requested.remove(&number);
                    outputs.push_back(Output::FileComplete(id));
                    self.active.remove(at);
                    continue;
                }
                // The oldest may always go on; so the names of all are at most twice as many.
                let others = if at == 0 { 0 } else { names_held - active.names.len() };
                let before = active.names.len();
                match active.descend(NAMES_MAX.saturating_sub(others), outbound, outputs)? {
                    Descent::Done => {
                        names_held = names_held - before + active.names.len();
                        // What is held of it is known from here on; the rest waits for somebody who wants it.
                        if held_back && active.level == 0 && !active.need.is_empty() {
                            let missing = active.missing_bytes();
                            names_held -= active.names.len();
                            self.active.remove(at);
                            self.hold_back(number, missing);
                        }
                    }
                    Descent::NoRoomYet => at += 1,
                    Descent::Impossible => {
                        names_held -= before;
                        outputs.push_back(Output::FileUnavailable(id));
                        self.active.remove(at);
                    }
                }
            }
            if self.active.len() >= FILES_ACTIVE_MAX {
                break;
            }
            let Some((number, file)) = self.queued.pop_front() else { break };
            let held_back = self.is_held_back(&number, &file);
            let (level, names) = (file.manifest.level, file.manifest.chunks.clone());
            let mut active = Active { file, level, names, need: BTreeMap::new(), held_back };
            active.look(outbound, outputs)?;
            // The lists of names tell how much of the content is held; those of a very large file are content enough.
            let lists = active.file.manifest.content_bytes > NAMES_UNASKED_BYTES_MAX;
            if held_back && !active.need.is_empty() && (level == 0 || lists) {
                let missing = active.missing_bytes();
                self.hold_back(number, missing);
                continue;
            }
            names_held += active.names.len();
            self.active.push((number, active));
        }
        if self.turned_away && self.queued.len() <= FILES_MAX / 2 {
            self.turned_away = false;
            outputs.push_back(Output::OfferFiles);
        }
        self.ask();
        Ok(())
    }

    /// A chunk is complete: the shell makes it durable.
    fn store(&mut self, name: ChunkName, len: usize) {
        self.storing_bytes += len;
        self.storing_bytes -= self.storing.insert(name, len).unwrap_or(0);
        if self.storing_bytes > CHUNKS_STORING_BYTES_MAX && !std::mem::replace(&mut self.full, true) {
            self.ask_no_more();
        }
    }

    /// A chunk is with the shell no more.
    fn settled(&mut self, name: &ChunkName) {
        self.storing_bytes -= self.storing.remove(name).unwrap_or(0);
        if self.storing_bytes <= CHUNKS_STORING_BYTES_MAX / 2 && std::mem::take(&mut self.full) {
            self.stale = true;
        }
    }

    /// The disk does not keep up, or is full: what was asked for and has not come is to wait at the peer. A want of nothing says so.
    fn ask_no_more(&mut self) {
        let (storing, based) = (&self.storing, &self.based);
        self.asked.retain(|name| storing.contains_key(name) || based.iter().any(|b| b.name == *name));
        self.wants = self
            .active
            .iter()
            .map(|((epoch, seq), active)| Want {
                number: 0,
                epoch: *epoch,
                seq: *seq,
                level: active.level,
                whole: false,
                indexes: RangeSet::new(),
                partial: None,
            })
            .collect();
    }

    /// Each missing chunk is asked for once, whichever files share it.
    fn ask(&mut self) {
        if self.full {
            return;
        }
        for ((epoch, seq), active) in &self.active {
            let fresh =
                active.need.iter().filter(|(name, _)| !self.asked.contains(*name) && !self.storing.contains_key(*name));
            let fresh: Vec<(ChunkName, u32)> = fresh.map(|(name, index)| (*name, *index)).collect();
            let (whole, fresh): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|(name, _)| self.whole.contains(name));
            if !whole.is_empty() {
                let indexes = whole.iter().map(|(_, index)| u64::from(*index)).collect();
                self.asked.extend(whole.iter().map(|(name, _)| *name));
                let (epoch, seq, level) = (*epoch, *seq, active.level);
                self.wants.push_back(Want { number: 0, epoch, seq, level, whole: true, indexes, partial: None });
            }
            if fresh.is_empty() {
                continue;
            }
            let index_of: BTreeMap<ChunkName, u32> = fresh.iter().copied().collect();
            let partial = self.partial.iter().find_map(|(name, part)| {
                let index = index_of.get(name)?;
                (part.held() > 0).then(|| (*index, part.crc(), part.held()))
            });
            let indexes = fresh.iter().map(|(_, index)| u64::from(*index)).collect();
            self.asked.extend(fresh.iter().map(|(name, _)| *name));
            self.wants.push_back(Want {
                number: 0,
                epoch: *epoch,
                seq: *seq,
                level: active.level,
                whole: false,
                indexes,
                partial,
            });
        }
    }

    /// Takes a part of a chunk.
    pub(crate) fn slice(&mut self, slice: &Slice, outputs: &mut VecDeque<Output>) -> Result<(), LinkError> {
        let number = (slice.epoch, slice.seq);
        // A file may be complete or given up while parts of it are still under way.
        let Some((_, active)) = self.active.iter().find(|(n, _)| *n == number) else { return Ok(()) };
        if active.level != slice.level {
            return Ok(());
        }
        let name =
            *active.names.get(slice.index as usize).ok_or(LinkError::Protocol("a chunk beyond the file's end"))?;
        let is_here = self.storing.contains_key(&name) || self.based.iter().any(|based| based.name == name);
        if !active.need.contains_key(&name) || is_here {
            return Ok(());
        }
        let begun = self.partial.take(&name).filter(|assembly| assembly.takes(&slice.part));
        let mut assembly = begun.unwrap_or_else(|| Assembly::of(&slice.part));
        assembly.add(&slice.part);
        if !assembly.is_complete() {
            for dropped in self.partial.keep(name, assembly) {
                // It was asked for, and will not come again by itself.
                self.asked.remove(&dropped);
                self.stale = true;
            }
            return Ok(());
        }
        if let Some(base) = assembly.base() {
            if self.whole.contains(&name) {
                // A copy that was under way when its base was found missing.
                return Ok(());
            }
            let label = active.file.label.clone();
            if self.based.len() >= BASED_MAX
                && let Some(oldest) = self.based.pop_front()
            {
                self.ask_whole(oldest.name);
            }
            self.based.push_back(Based { name, base, packed: assembly, file: number, label });
            self.stale = true;
            return Ok(());
        }
        let bytes = assembly.unpack(CHUNK_BYTES_MAX)?;
        if Namer::new(&self.secret, &active.file.label).name(&bytes) != name {
            return Err(LinkError::Protocol("a chunk whose content does not match its name"));
        }
        if self.storing_bytes > 2 * CHUNKS_STORING_BYTES_MAX {
            // It was told to send no more. What it sends all the same is asked for when there is room.
            self.asked.remove(&name);
            return Ok(());
        }
        self.store(name, bytes.len());
        let file = EntryId { origin: self.peer, epoch: slice.epoch, seq: slice.seq };
        outputs.push_back(Output::StoreChunk { name, bytes, base: None, file });
        Ok(())
    }

    /// Takes a chunk that came in a parcel: it is named after its content, whoever needs it.
    pub(crate) fn whole(
        &mut self,
        whole: &Whole,
        outbound: &dyn Outbound,
        outputs: &mut VecDeque<Output>,
    ) -> Result<(), LinkError> {
        let bytes = whole.chunk()?;
        let name = Namer::new(&self.secret, &whole.label).name(&bytes);
        if outbound.holds_chunk(&name)? || self.storing.contains_key(&name) {
            return Ok(());
        }
        self.store(name, bytes.len());
        let file = EntryId { origin: self.peer, epoch: whole.epoch, seq: whole.seq };
        outputs.push_back(Output::StoreChunk { name, bytes, base: None, file });
        Ok(())
    }

    /// Takes a list of names that came ahead of a file's entry.
    pub(crate) fn list_ahead(
        &mut self,
        list: &Whole,
        outbound: &dyn Outbound,
        outputs: &mut VecDeque<Output>,
    ) -> Result<(), LinkError> {
        self.lists_ahead += 1;
        if self.lists_ahead > LISTS_AHEAD_MAX || list.chunk()?.len() > LIST_AHEAD_BYTES_MAX {
            return Err(LinkError::Protocol("a chunk that nobody asked for"));
        }
        self.whole(list, outbound, outputs)
    }

    pub(crate) fn all_storing(&self) -> Vec<ChunkName> {
        self.storing.keys().copied().collect()
    }

    /// Was a chunk asked for that has not come?
    pub(crate) fn awaits_chunks(&self) -> bool {
        let is_here = |name: &ChunkName| self.storing.contains_key(name) || self.based.iter().any(|b| b.name == *name);
        self.asked.iter().any(|name| !is_here(name))
    }

    pub(crate) fn is_storing(&self, name: &ChunkName) -> bool {
        self.storing.contains_key(name)
    }

    /// Moves files on without a connection; what would be asked for is asked on the next one.
    pub(crate) fn settle(
        &mut self,
        outbound: &dyn Outbound,
        outputs: &mut VecDeque<Output>,
    ) -> Result<(), OutboundError> {
        self.advance(outbound, outputs)?;
        self.disconnected();
        Ok(())
    }

    /// Unpacks chunks whose bases are durable here by now, and asks for the others without where theirs will not come.
    fn unpack_based(&mut self, outbound: &dyn Outbound, outputs: &mut VecDeque<Output>) -> Result<(), OutboundError> {
        for based in std::mem::take(&mut self.based) {
            let Based { name, base, file, .. } = based;
            if !self.active.iter().any(|(number, active)| *number == file && active.need.contains_key(&name)) {
                continue;
            }
            let coming = self.based.iter().any(|before| before.name == base) || self.asked.contains(&base);
            if coming && base != name {
                self.based.push_back(based);
                continue;
            }
            let namer = Namer::new(&self.secret, &based.label);
            // Of another label it would tell the peer what is held there.
            let held = outbound.chunk(&base)?.filter(|bytes| namer.name(bytes) == base);
            let bytes = held.and_then(|held| based.packed.unpack_from(&held, CHUNK_BYTES_MAX).ok());
            match bytes.filter(|bytes| namer.name(bytes) == name) {
                Some(bytes) => {
                    self.store(name, bytes.len());
                    let file = EntryId { origin: self.peer, epoch: file.0, seq: file.1 };
                    outputs.push_back(Output::StoreChunk { name, bytes, base: Some(base), file });
                }
                None => self.ask_whole(name),
            }
        }
        Ok(())
    }

    fn ask_whole(&mut self, name: ChunkName) {
        self.asked.remove(&name);
        self.whole.insert(name);
        self.stale = true;
    }

    /// The peer does not hold chunks any more.
    pub(crate) fn unavailable(&mut self, gone: &Unavailable, outputs: &mut VecDeque<Output>) {
        let number = (gone.epoch, gone.seq);
        let Some(at) = self.active.iter().position(|(n, active)| *n == number && active.level == gone.level) else {
            return;
        };
        let (_, active) = self.active.remove(at);
        for name in active.need.keys() {
            self.asked.remove(name);
            self.whole.remove(name);
        }
        self.wants.retain(|want| (want.epoch, want.seq) != number);
        self.stale = true;
        outputs.push_back(Output::FileUnavailable(EntryId { origin: self.peer, epoch: number.0, seq: number.1 }));
    }

    /// These files of the peer were purged: nothing of them is fetched (on).
    pub(crate) fn forget(&mut self, epoch: Epoch, numbers: &RangeSet) {
        let is_gone = |(of, seq): &Number| *of == epoch && numbers.contains(seq.get());
        self.arriving.retain(|number, _| !is_gone(number));
        self.queued.retain(|(number, _)| !is_gone(number));
        self.on_request.retain(|number, _| !is_gone(number));
        self.requested.retain(|number, _| !is_gone(number));
        for (_, active) in self.active.extract_if(.., |(number, _)| is_gone(number)) {
            // Another file may need the same chunk, and asks for it itself then.
            active.need.keys().for_each(|name| drop(self.partial.take(name)));
            self.asked.retain(|name| !active.need.contains_key(name));
            self.whole.retain(|name| !active.need.contains_key(name));
            self.stale = true;
        }
        self.wants.retain(|want| !is_gone(&(want.epoch, want.seq)));
    }

    pub(crate) fn stored(&mut self, names: &[ChunkName]) {
        for name in names {
            self.settled(name);
            self.asked.remove(name);
            self.whole.remove(name);
            // It may have come another way.
            drop(self.partial.take(name));
            self.stale |= !self.based.is_empty();
            for (_, active) in &mut self.active {
                active.need.remove(name);
                self.stale |= active.need.is_empty();
            }
        }
    }

    /// The shell could not make these durable: they are asked for again on the next connection.
    pub(crate) fn not_stored(&mut self, names: &[ChunkName]) {
        for name in names {
            self.settled(name);
        }
    }
}

/// The file of an entry; `None` for a body that is no file, which is left to apply.
fn file_of(entry: &Entry) -> Option<(Number, File)> {
    let Ok(Event::File(state)) = wire::decode_event(entry) else { return None };
    let manifest = state.content.filter(|m| check_manifest(m).is_ok())?;
    let number = (entry.header.id.epoch, entry.header.id.seq);
    Some((number, File { label: entry.header.label.clone(), manifest }))
}

impl Active {
    /// What is needed of the content, at the mean length of a chunk; all of it on the lists above it.
    fn missing_bytes(&self) -> u64 {
        let content = self.file.manifest.content_bytes;
        match self.level {
            0 => {
                let missing = u128::from(content) * self.need.len() as u128 / self.names.len().max(1) as u128;
                u64::try_from(missing).unwrap_or(content)
            }
            _ => content,
        }
    }

    /// Compares the names with what is held.
    fn look(&mut self, outbound: &dyn Outbound, outputs: &mut VecDeque<Output>) -> Result<(), OutboundError> {
        self.need.clear();
        let mut held = BTreeSet::new();
        for (index, name) in self.names.iter().enumerate() {
            if self.need.contains_key(name) || held.contains(name) {
                continue;
            }
            if outbound.holds_chunk(name)? {
                held.insert(*name);
                outputs.push_back(Output::RetainChunk(*name));
            } else {
                self.need.insert(*name, index as u32);
            }
        }
        Ok(())
    }

    /// From complete name lists to the level below, which may have at most `names_max` names.
    fn descend(
        &mut self,
        names_max: usize,
        outbound: &dyn Outbound,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Descent, OutboundError> {
        let mut list = Vec::new();
        for name in &self.names {
            let Some(chunk) = outbound.chunk(name)? else { return Ok(Descent::Impossible) };
            list.extend_from_slice(&chunk);
            let names = list.len() / ChunkName::LEN;
            if names > NAMES_MAX || check_list_len(&self.file.manifest, self.level - 1, list.len()).is_err() {
                return Ok(Descent::Impossible);
            }
            if names > names_max {
                return Ok(Descent::NoRoomYet);
            }
        }
        let Ok(names) = read_name_list(&list) else { return Ok(Descent::Impossible) };
        self.names = names;
        self.level -= 1;
        self.look(outbound, outputs)?;
        Ok(Descent::Done)
    }
}

/// What became of going down a level.
enum Descent {
    Done,
    /// Other files' names fill the memory; it is tried again when this file is the oldest.
    NoRoomYet,
    /// The lists make no sense, are gone, or are longer than any file's that is taken.
    Impossible,
}

/// Type, number, level, flag, and the partial chunk's three numbers.
const WANT_OVERHEAD: usize = 40;
