//! An entry in a batch: only what the entries before it do not tell.
//!
//! ```text
//! batch    = records | texts          records tell how many texts there are and of what kind
//! record   = 0, header length, header relative to the entry before, body length      text: body
//!          | shape, fields                                                           texts: message NUL, ...
//! shape    = bit 0 set; 1 reply; 2 number follows, else the next; 3 more; 4 causes follow; 5 id follows, else the next
//!            6-7 class: routine, flash, immediate, 3 it follows
//! fields   = class u8 | more varint | label | epoch varint | salt varint | ticks varint | origin time, version, ...
//!            | number zigzag | captured, milliseconds zigzag | id | place or thread | author | causes
//! more     = bits, each for a field that is written; see the constants
//! id       = 0, 16 bytes | 1, 26 bytes | 2, salt, counter | 3 + zigzag difference to the counter after the last
//! place, thread, author = rank among those met last, the latest first; their number: a new one, its id follows
//!            (a new thread: and its place)
//! ```
//!
//! What an entry before told is kept in a [`Context`]: both sides have the same one, since both made it from the same
//! entries. It begins as the history that the batch names left it ([`crate::History`]), and goes on within the batch.
//!
//! A post's causes are the entries that created its channel, author and thread, as far as they are known: the context
//! knows them from the post before.

use keys::{EntryIds, IdCipher};
use model::event::{FileStub, PostPriority, PostState};
use model::{
    Cause, Entry, EntryId, Epoch, Event, Header, Hlc, Id, Kind, Label, NodeId, Precedence, Seq, SourcePosition,
    StreamId, UnixMillis, Version,
};

use crate::WireError;
use crate::entry::{self, ENTRY_BYTES_MAX, HEADER_BYTES_MAX};
use crate::reader::{Reader, put_cbor, put_varint, put_zigzag};

const WHAT: &str = "a record";

const POST: u8 = 1;
const REPLY: u8 = 1 << 1;
const NUMBER: u8 = 1 << 2;
const MORE: u8 = 1 << 3;
const CAUSES: u8 = 1 << 4;
const ID: u8 = 1 << 5;
const CLASS_SHIFT: u8 = 6;
/// The classes that the shape has room for.
const CLASSES: [Precedence; 3] = [Precedence::Routine, Precedence::Flash, Precedence::Immediate];

/// Another label than the entry before.
const LABEL: u64 = 1;
/// Another entry stands before it than the context tells.
const AFTER: u64 = 1 << 1;
const SALT: u64 = 1 << 2;
/// The clock reading is not the first of its millisecond.
const TICKS: u64 = 1 << 3;
/// The user did it at another moment than the clock reading says.
const ORIGIN_TIME: u64 = 1 << 4;
/// The version is not the clock reading.
const VERSION: u64 = 1 << 5;
/// Another node's version.
const VERSION_BY: u64 = 1 << 6;
/// Created before it was captured.
const CREATED: u64 = 1 << 7;
/// Updated after it was created.
const UPDATED: u64 = 1 << 8;
const EDITED: u64 = 1 << 9;
const DELETED: u64 = 1 << 10;
/// Type, props and hashtags, among the texts.
const STRINGS: u64 = 1 << 11;
const PINNED: u64 = 1 << 12;
/// As CBOR, among the texts.
const FILES: u64 = 1 << 13;
const PRIORITY: u64 = 1 << 14;
const EPOCH: u64 = 1 << 15;
const MORE_END: u64 = 1 << 16;

/// Words of [`PostPriority::priority`] that have a number; any other stands among the texts.
const PRIORITIES: [&str; 3] = ["", "urgent", "important"];

/// Places, authors and threads that are remembered: each is told by one byte.
const RECENT_MAX: usize = 120;

const NUL: u8 = 0;

/// What the entries so far have told.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    cipher: IdCipher,
    origin: NodeId,
    /// Header of the last entry, without its causes.
    last: Option<Header>,
    /// The counter that the next id has, if it follows the last that was seen under the last entry's salt.
    next_counter: u64,
    places: Recent<Id>,
    authors: Recent<Id>,
    /// With the place.
    threads: Recent<(Id, Id)>,
    /// The last entry of each stream and precedence.
    lanes: Recent<(StreamId, Precedence)>,
}

/// Objects, the one that was met last first, with the entry that created each.
#[derive(Clone, Debug)]
struct Recent<K>(Vec<(K, Creator)>);

/// Which entry created an object, as the causes of entries that need it tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Creator {
    /// None told yet.
    Unknown,
    /// They name none.
    Nobody,
    Entry(EntryId),
}

impl<K: Copy + PartialEq> Recent<K> {
    fn rank(&self, is: impl Fn(&K) -> bool) -> usize {
        self.0.iter().position(|(key, _)| is(key)).unwrap_or(self.0.len())
    }

    fn creator(&self, rank: usize) -> Creator {
        self.0.get(rank).map_or(Creator::Unknown, |(_, creator)| *creator)
    }

    /// To the front, with what is known of it.
    fn meet(&mut self, key: K, creator: Creator) {
        let known = match self.0.iter().position(|(k, _)| *k == key) {
            Some(at) => self.0.remove(at).1,
            None => Creator::Unknown,
        };
        self.0.insert(0, (key, if creator == Creator::Unknown { known } else { creator }));
        self.0.truncate(RECENT_MAX);
    }
}

/// Records and texts of a batch.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) records: Vec<u8>,
    pub(crate) texts: Vec<u8>,
}

/// Where a batch is read.
pub(crate) struct ColumnReader<'a> {
    pub(crate) records: Reader<'a>,
    pub(crate) texts: Reader<'a>,
}

impl ColumnReader<'_> {
    /// The next text that is closed by a NUL.
    fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.texts.until(NUL)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Malformed("a text"))
    }
}

/// What header fields are told relative to.
struct Base {
    epoch: Epoch,
    seq: u64,
    label: Label,
    salt: u64,
    captured: Hlc,
}

impl Context {
    /// Nothing is known but who captured the entries.
    pub(crate) fn new(origin: NodeId) -> Self {
        let cipher = IdCipher::for_node(origin);
        let (places, authors, threads) = (Recent(Vec::new()), Recent(Vec::new()), Recent(Vec::new()));
        let lanes = Recent(Vec::new());
        Self { cipher, origin, last: None, next_counter: 0, places, authors, threads, lanes }
    }

    /// The label of the last entry.
    pub(crate) fn label(&self) -> Option<&Label> {
        self.last.as_ref().map(|last| &last.label)
    }

    fn base(&self) -> Base {
        match &self.last {
            Some(h) => Base {
                epoch: h.id.epoch,
                seq: h.id.seq.get(),
                label: h.label.clone(),
                salt: h.mint_salt,
                captured: h.captured,
            },
            None => {
                let label = "mission".parse().expect("the label that capture gives where nothing else is configured");
                Base { epoch: Epoch::FIRST, seq: 0, label, salt: 0, captured: Hlc::ZERO }
            }
        }
    }

    fn ids(&self, salt: u64) -> EntryIds {
        EntryIds::with_cipher(self.cipher.clone(), salt)
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// When the entry has more causes than capture gives one.
    pub(crate) fn put(&mut self, entry: &Entry, out: &mut Columns) {
        let event = self.event(entry);
        let post = event.as_ref().and_then(|event| self.plain_post(entry, event));
        match post {
            Some(post) => self.put_post(&entry.header, post, out),
            None => {
                out.records.push(0);
                let cipher = (entry.header.id.origin == self.origin).then_some(&self.cipher);
                let header = entry::encode_header(&entry.header, self.last.as_ref(), cipher);
                put_varint(&mut out.records, header.len() as u64);
                out.records.extend_from_slice(&header);
                put_varint(&mut out.records, entry.body.len() as u64);
                out.texts.extend_from_slice(&entry.body);
            }
        }
        self.note(entry, event.as_ref());
    }

    /// Takes the next entry.
    pub(crate) fn take(&mut self, from: &mut ColumnReader<'_>) -> Result<Entry, WireError> {
        let shape = from.records.u8()?;
        let (entry, event) = if shape == 0 {
            let len = from.records.capped("an entry's header", HEADER_BYTES_MAX)?;
            let header = from.records.take(len)?;
            let len = from.records.capped("an entry's body", ENTRY_BYTES_MAX)?;
            let body = from.texts.take(len)?.to_vec();
            let header = entry::decode_header(header, self.last.as_ref())?;
            let entry = Entry { header, body };
            let event = self.event(&entry);
            (entry, event)
        } else if shape & POST != 0 {
            let (header, post) = self.take_post(shape, from)?;
            let event = Event::Post(post);
            let body = event.encode_with(&mut self.ids(header.mint_salt));
            (Entry { header, body }, Some(event))
        } else {
            return Err(WireError::Malformed(WHAT));
        };
        self.note(&entry, event.as_ref());
        Ok(entry)
    }

    /// The event in an entry's body, if encoding it gives this body.
    fn event(&self, entry: &Entry) -> Option<Event> {
        let h = &entry.header;
        if h.id.origin != self.origin {
            return None;
        }
        let event = Event::decode_with(h.kind, &entry.body, &mut self.ids(h.mint_salt)).ok()?;
        (event.encode_with(&mut self.ids(h.mint_salt)) == entry.body).then_some(event)
    }

    /// A post whose fields say all that the entry does.
    fn plain_post<'e>(&self, entry: &Entry, event: &'e Event) -> Option<&'e PostState> {
        let (h, post) = (&entry.header, as_post(event)?);
        let texts = [&post.message, &post.kind, &post.props, &post.hashtags];
        let priority = post.priority.as_ref().map(|p| &p.priority);
        let plain = h.source.0 == h.captured
            && h.expiry.is_none()
            && h.supersedes.is_none()
            && h.stream == StreamId::Channel(post.channel_id)
            && texts.into_iter().chain(priority).all(|text| !text.as_bytes().contains(&NUL));
        plain.then_some(post)
    }

    fn put_post(&self, h: &Header, post: &PostState, out: &mut Columns) {
        let base = self.base();
        let millis = h.captured.millis();
        let ticks = h.captured.0 & 0xffff;
        let next_counter = self.counter_after(&base, h.mint_salt);
        let is_next_id = self.cipher.open(&post.id) == Some((h.mint_salt, next_counter));
        let class = CLASSES.iter().position(|class| *class == h.precedence);
        let (places, people) =
            (self.places.rank(|id| *id == post.channel_id), self.authors.rank(|id| *id == post.user_id));
        let thread = post.root_id.map(|root| self.threads.rank(|of| *of == (root, post.channel_id)));
        let causes = (self.expected(places, people, thread).as_ref() != Some(&h.causes)).then_some(&h.causes);
        let strings = [&post.kind, &post.props, &post.hashtags];
        let more: u64 = [
            (LABEL, h.label != base.label),
            (AFTER, h.after != self.last_of(h.lane())),
            (EPOCH, h.id.epoch != base.epoch),
            (SALT, h.mint_salt != base.salt),
            (TICKS, ticks != 0),
            (ORIGIN_TIME, h.origin_time != millis),
            (VERSION, post.version.at != h.captured),
            (VERSION_BY, post.version.by != self.origin),
            (CREATED, post.create_at != h.origin_time),
            (UPDATED, post.update_at != post.create_at),
            (EDITED, post.edit_at != UnixMillis(0)),
            (DELETED, post.delete_at != UnixMillis(0)),
            (STRINGS, strings.iter().any(|text| !text.is_empty())),
            (PINNED, post.is_pinned),
            (FILES, !post.files.is_empty()),
            (PRIORITY, post.priority.is_some()),
        ]
        .into_iter()
        .filter_map(|(bit, is)| is.then_some(bit))
        .sum();
        let shape = [
            (REPLY, thread.is_some()),
            (NUMBER, h.id.seq.get() != base.seq.wrapping_add(1)),
            (MORE, more != 0),
            (CAUSES, causes.is_some()),
            (ID, !is_next_id),
        ];
        let shape: u8 = shape.into_iter().filter_map(|(bit, is)| is.then_some(bit)).sum();
        let r = &mut out.records;
        r.push(POST | shape | (class.unwrap_or(CLASSES.len()) as u8) << CLASS_SHIFT);
        if class.is_none() {
            r.push(h.precedence as u8);
        }
        out.texts.extend_from_slice(post.message.as_bytes());
        out.texts.push(NUL);
        let difference = |a: UnixMillis, b: UnixMillis| a.0.wrapping_sub(b.0);
        if more != 0 {
            put_varint(r, more);
            if more & LABEL != 0 {
                put_varint(r, h.label.as_str().len() as u64);
                r.extend_from_slice(h.label.as_str().as_bytes());
            }
            if more & EPOCH != 0 {
                put_varint(r, u64::from(h.id.epoch.0));
            }
            if more & SALT != 0 {
                put_varint(r, h.mint_salt);
            }
            if more & TICKS != 0 {
                put_varint(r, ticks);
            }
            if more & ORIGIN_TIME != 0 {
                put_zigzag(r, difference(h.origin_time, millis));
            }
            if more & VERSION != 0 {
                put_zigzag(r, post.version.at.0.wrapping_sub(h.captured.0) as i64);
            }
            if more & VERSION_BY != 0 {
                r.extend(post.version.by.0);
            }
            if more & CREATED != 0 {
                put_zigzag(r, difference(post.create_at, h.origin_time));
            }
            if more & UPDATED != 0 {
                put_zigzag(r, difference(post.update_at, post.create_at));
            }
            if more & EDITED != 0 {
                put_zigzag(r, difference(post.edit_at, post.update_at));
            }
            if more & DELETED != 0 {
                put_zigzag(r, difference(post.delete_at, post.update_at));
            }
            if more & STRINGS != 0 {
                for text in strings {
                    out.texts.extend_from_slice(text.as_bytes());
                    out.texts.push(NUL);
                }
            }
            if more & FILES != 0 {
                put_cbor(&mut out.texts, &post.files, &mut self.ids(h.mint_salt));
            }
            if let Some(priority) = &post.priority {
                let word = PRIORITIES.iter().position(|word| *word == priority.priority);
                let flags = u8::from(priority.requested_ack) << 2 | u8::from(priority.persistent_notifications) << 3;
                r.push(word.unwrap_or(PRIORITIES.len()) as u8 | flags);
                if word.is_none() {
                    out.texts.extend_from_slice(priority.priority.as_bytes());
                    out.texts.push(NUL);
                }
            }
        }
        if shape & NUMBER != 0 {
            put_zigzag(r, h.id.seq.get().wrapping_sub(base.seq) as i64);
        }
        put_zigzag(r, difference(millis, base.captured.millis()));
        if shape & ID != 0 {
            self.put_id(post.id, h.mint_salt, next_counter, r);
        }
        let at_new_place = match (thread, post.root_id) {
            (Some(rank), Some(root)) => {
                put_varint(r, rank as u64);
                let is_new = rank == self.threads.0.len();
                if is_new {
                    self.put_id(root, h.mint_salt, next_counter, r);
                }
                is_new
            }
            _ => true,
        };
        if at_new_place {
            put_varint(r, places as u64);
            if places == self.places.0.len() {
                self.put_id(post.channel_id, h.mint_salt, next_counter, r);
            }
        }
        put_varint(r, people as u64);
        if people == self.authors.0.len() {
            self.put_id(post.user_id, h.mint_salt, next_counter, r);
        }
        if let Some(causes) = causes {
            entry::put_causes(r, h.id, causes);
        }
        if more & AFTER != 0 {
            entry::put_after(r, h.id, h.after);
        }
    }

    /// The last entry of a stream and precedence, as far as the entries before tell.
    fn last_of(&self, lane: Option<(StreamId, Precedence)>) -> Option<(Epoch, Seq)> {
        let lane = lane?;
        match self.lanes.creator(self.lanes.rank(|of| *of == lane)) {
            Creator::Entry(id) => Some((id.epoch, id.seq)),
            Creator::Unknown | Creator::Nobody => None,
        }
    }

    fn take_post(&self, shape: u8, from: &mut ColumnReader<'_>) -> Result<(Header, PostState), WireError> {
        let bad = WireError::Malformed;
        let base = self.base();
        let class = usize::from(shape >> CLASS_SHIFT);
        let precedence = match CLASSES.get(class) {
            Some(class) => *class,
            None => Precedence::from_index(from.records.u8()?).ok_or(bad("a record's precedence"))?,
        };
        let message = from.text()?;
        let r = &mut from.records;
        let more = if shape & MORE == 0 { 0 } else { r.varint()? };
        if more >= MORE_END {
            return Err(bad(WHAT));
        }
        let has = |bit: u64| more & bit != 0;
        let label = if has(LABEL) { entry::read_label(r)? } else { base.label.clone() };
        let epoch = if has(EPOCH) { entry::read_epoch(r)? } else { base.epoch };
        let mint_salt = if has(SALT) { r.varint()? } else { base.salt };
        let ticks = if has(TICKS) { r.varint()? } else { 0 };
        if ticks > 0xffff {
            return Err(bad("a clock reading"));
        }
        // Relative to the clock reading, which stands behind them: small numbers first.
        let mut difference = |bit: u64| if has(bit) { r.zigzag().map(Some) } else { Ok(None) };
        let origin_time = difference(ORIGIN_TIME)?;
        let version_at = difference(VERSION)?;
        let version_by = if has(VERSION_BY) { NodeId(r.array()?) } else { self.origin };
        let mut difference = |bit: u64| if has(bit) { r.zigzag().map(Some) } else { Ok(None) };
        let (created, updated) = (difference(CREATED)?, difference(UPDATED)?);
        let (edited, deleted) = (difference(EDITED)?, difference(DELETED)?);
        let [kind, props, hashtags] =
            if has(STRINGS) { [from.text()?, from.text()?, from.text()?] } else { Default::default() };
        let files: Vec<FileStub> = if has(FILES) { from.texts.cbor(&mut self.ids(mint_salt))? } else { Vec::new() };
        let priority = if has(PRIORITY) { Some(take_priority(from)?) } else { None };
        let r = &mut from.records;
        let seq = if shape & NUMBER == 0 { 1 } else { r.zigzag()? };
        let seq = Seq::new(base.seq.wrapping_add(seq as u64)).ok_or(bad("a record's number"))?;
        let millis = base.captured.millis().0.wrapping_add(r.zigzag()?);
        let captured = u64::try_from(millis).ok().filter(|ms| *ms < 1 << 48).ok_or(bad("a clock reading"))?;
        let captured = Hlc(captured << 16 | ticks);
        let next_counter = self.counter_after(&base, mint_salt);
        let id = if shape & ID == 0 {
            self.cipher.id(mint_salt, next_counter).ok_or(bad("a record's id"))?
        } else {
            self.take_id(mint_salt, next_counter, r)?
        };
        let known_thread = |rank: usize| self.threads.0.get(rank).map(|(of, _)| *of);
        let (thread, root_id, place) = if shape & REPLY == 0 {
            (None, None, None)
        } else {
            let rank = r.capped("a thread", self.threads.0.len())?;
            match known_thread(rank) {
                Some((root, place)) => (Some(rank), Some(root), Some(place)),
                None => (Some(rank), Some(self.take_id(mint_salt, next_counter, r)?), None),
            }
        };
        let channel_id = match place {
            Some(place) => place,
            None => self.take_one(&self.places, mint_salt, next_counter, r)?,
        };
        let user_id = self.take_one(&self.authors, mint_salt, next_counter, r)?;
        let entry_id = EntryId { origin: self.origin, epoch, seq };
        let causes = if shape & CAUSES == 0 {
            let (places, people) = (self.places.rank(|id| *id == channel_id), self.authors.rank(|id| *id == user_id));
            self.expected(places, people, thread).ok_or(bad("a record's causes"))?
        } else {
            entry::read_causes(r, entry_id)?
        };
        let stands_after = if has(AFTER) {
            entry::read_after(r, epoch, seq)?
        } else {
            let last = self.last_of(Some((StreamId::Channel(channel_id), precedence)));
            if last.is_some_and(|last| last >= (epoch, seq)) {
                return Err(bad("a record's place"));
            }
            last
        };
        let after = |time: UnixMillis, by: Option<i64>| UnixMillis(time.0.wrapping_add(by.unwrap_or(0)));
        let origin_time = after(captured.millis(), origin_time);
        let create_at = after(origin_time, created);
        let update_at = after(create_at, updated);
        let state = PostState {
            version: Version { at: Hlc(captured.0.wrapping_add(version_at.unwrap_or(0) as u64)), by: version_by },
            id,
            channel_id,
            user_id,
            root_id,
            create_at,
            update_at,
            edit_at: edited.map_or(UnixMillis(0), |by| after(update_at, Some(by))),
            delete_at: deleted.map_or(UnixMillis(0), |by| after(update_at, Some(by))),
            message,
            kind,
            props,
            hashtags,
            is_pinned: has(PINNED),
            files,
            priority,
        };
        let header = Header {
            id: entry_id,
            source: SourcePosition(captured),
            stream: StreamId::Channel(channel_id),
            causes,
            after: stands_after,
            precedence,
            captured,
            origin_time,
            expiry: None,
            supersedes: None,
            label,
            kind: Kind::Post,
            mint_salt,
        };
        Ok((header, state))
    }

    /// The counter that follows under a salt.
    fn counter_after(&self, base: &Base, salt: u64) -> u64 {
        if base.salt == salt { self.next_counter } else { 0 }
    }

    fn put_id(&self, id: Id, salt: u64, next_counter: u64, out: &mut Vec<u8>) {
        match self.cipher.open(&id) {
            Some((of, counter)) if of == salt => {
                // Counters have 48 bits, so that the difference has room for what comes before it.
                let by = counter as i64 - next_counter as i64;
                put_varint(out, 3 + ((by << 1) ^ (by >> 63)) as u64);
            }
            Some((of, counter)) => {
                out.push(2);
                put_varint(out, of);
                put_varint(out, counter);
            }
            None => match id.to_block() {
                Some(block) => {
                    out.push(0);
                    out.extend(block);
                }
                None => {
                    out.push(1);
                    out.extend_from_slice(id.as_str().as_bytes());
                }
            },
        }
    }

    fn take_id(&self, salt: u64, next_counter: u64, r: &mut Reader<'_>) -> Result<Id, WireError> {
        let bad = WireError::Malformed("a record's id");
        match r.varint()? {
            0 => Ok(Id::from_block(r.array()?)),
            1 => std::str::from_utf8(r.take(26)?).ok().and_then(|text| text.parse().ok()).ok_or(bad),
            2 => {
                let (salt, counter) = (r.varint()?, r.varint()?);
                self.cipher.id(salt, counter).ok_or(bad)
            }
            n => {
                let n = n - 3;
                let by = (n >> 1) as i64 ^ -((n & 1) as i64);
                let counter = (next_counter as i64).checked_add(by).and_then(|n| u64::try_from(n).ok());
                counter.and_then(|counter| self.cipher.id(salt, counter)).ok_or(bad)
            }
        }
    }

    fn take_one(&self, of: &Recent<Id>, salt: u64, next_counter: u64, r: &mut Reader<'_>) -> Result<Id, WireError> {
        let rank = r.capped(WHAT, of.0.len())?;
        match of.0.get(rank) {
            Some((id, _)) => Ok(*id),
            None => self.take_id(salt, next_counter, r),
        }
    }

    /// The causes of a post, if the creators of all that it needs are known.
    fn expected(&self, place: usize, author: usize, thread: Option<usize>) -> Option<Vec<Cause>> {
        let creators = [
            Some(self.places.creator(place)),
            Some(self.authors.creator(author)),
            thread.map(|t| self.threads.creator(t)),
        ];
        let mut causes = Vec::new();
        for creator in creators.into_iter().flatten() {
            match creator {
                Creator::Unknown => return None,
                Creator::Nobody => {}
                Creator::Entry(id) => causes.push(id),
            }
        }
        Some(causes)
    }

    /// Remembers what an entry tells.
    fn note(&mut self, entry: &Entry, event: Option<&Event>) {
        let h = &entry.header;
        if let Some(lane) = h.lane().filter(|_| h.id.origin == self.origin) {
            self.lanes.meet(lane, Creator::Entry(h.id));
        }
        if self.last.as_ref().is_none_or(|last| last.mint_salt != h.mint_salt) {
            self.next_counter = 0;
        }
        let created = Creator::Entry(h.id);
        match event {
            Some(Event::Post(post)) => {
                self.note_post(h, post);
            }
            Some(Event::User(user)) if user.update_at <= user.create_at => {
                self.count(user.id, h.mint_salt);
                self.authors.meet(user.id, created);
            }
            Some(Event::Channel(channel)) if channel.update_at <= channel.create_at => {
                self.count(channel.id, h.mint_salt);
                self.places.meet(channel.id, created);
            }
            Some(
                Event::User(_)
                | Event::Channel(_)
                | Event::Team(_)
                | Event::TeamMember(_)
                | Event::ChannelMember(_)
                | Event::Reaction(_)
                | Event::File(_)
                | Event::Emoji(_)
                | Event::Purge(_)
                | Event::Acknowledgement(_)
                | Event::Bookmark(_),
            )
            | None => {}
        }
        self.last = Some(Header { causes: Vec::new(), ..h.clone() });
    }

    fn note_post(&mut self, h: &Header, post: &PostState) {
        self.count(post.id, h.mint_salt);
        let mut creators = [
            Some(self.places.creator(self.places.rank(|id| *id == post.channel_id))),
            Some(self.authors.creator(self.authors.rank(|id| *id == post.user_id))),
            post.root_id.map(|root| self.threads.creator(self.threads.rank(|of| *of == (root, post.channel_id)))),
        ];
        attribute(&mut creators, &h.causes);
        let known = |creator: Option<Creator>| creator.unwrap_or(Creator::Unknown);
        self.places.meet(post.channel_id, known(creators[0]));
        self.authors.meet(post.user_id, known(creators[1]));
        match post.root_id {
            Some(root) => self.threads.meet((root, post.channel_id), known(creators[2])),
            // The first state of a post creates it; what changes it later does not.
            None if post.edit_at == UnixMillis(0)
                && post.delete_at == UnixMillis(0)
                && post.update_at == post.create_at =>
            {
                self.threads.meet((post.id, post.channel_id), Creator::Entry(h.id));
            }
            None => {}
        }
    }

    fn count(&mut self, id: Id, salt: u64) {
        if let Some((of, counter)) = self.cipher.open(&id)
            && of == salt
        {
            self.next_counter = self.next_counter.max(counter + 1);
        }
    }
}

/// Which of the causes created what: of the ways to share them out in their order, the one that contradicts least of what
/// is known; of equals the first. A wrong guess costs bytes, nothing else.
fn attribute(creators: &mut [Option<Creator>; 3], causes: &[Cause]) {
    let needs: Vec<usize> = (0..creators.len()).filter(|at| creators[*at].is_some()).collect();
    let share = |mask: u32| {
        let mut causes = causes.iter();
        let made = |at: usize| if mask & 1 << at == 0 { None } else { causes.next().copied() };
        (0..needs.len()).map(made).map(|cause| cause.map_or(Creator::Nobody, Creator::Entry)).collect::<Vec<_>>()
    };
    let contradicts = |mask: &u32| {
        let known = needs.iter().filter_map(|at| creators[*at]);
        known.zip(share(*mask)).filter(|(known, is)| *known != Creator::Unknown && known != is).count()
    };
    let masks = (0..1u32 << needs.len()).filter(|mask| mask.count_ones() as usize == causes.len());
    if let Some(best) = masks.min_by_key(contradicts) {
        let shared = share(best);
        for (at, creator) in needs.iter().zip(shared) {
            creators[*at] = Some(creator);
        }
    }
}

fn as_post(event: &Event) -> Option<&PostState> {
    if let Event::Post(post) = event { Some(post) } else { None }
}

fn take_priority(from: &mut ColumnReader<'_>) -> Result<PostPriority, WireError> {
    let flags = from.records.u8()?;
    if flags >= 1 << 4 {
        return Err(WireError::Malformed("a post's priority"));
    }
    let priority = match PRIORITIES.get(usize::from(flags & 3)) {
        Some(word) => (*word).to_owned(),
        None => from.text()?,
    };
    Ok(PostPriority { priority, requested_ack: flags & 4 != 0, persistent_notifications: flags & 8 != 0 })
}
