//! Which of the entries that both sides hold may serve as dictionary: offered by the side that captured them, made by the other.
//!
//! ```text
//! receipts, journal --> Offers --History(name, entries, hash)--> Held --HistoryHeld--> batches name it
//!                          ^                                      |
//!                          `---- HistoryGone: sent again without --'  whatever the reason
//! ```
//!
//! A history names its entries one by one, so neither side needs to know what else the other holds: what one of them has
//! trimmed, purged or never had is left out. It is made from the journals, so a restart costs a round trip and not what was
//! said before. A name means the same as long as both processes live, across connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{EntryHash, EntryId, Epoch, Label, NodeId, Outbound, OutboundError, Outgoing, RangeSet, Seq};
use wire::frame::{Frame, HISTORY_EPOCHS_MAX, HistoryHeld, HistoryOf};
use wire::{Batch, HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, HISTORY_ENTRY_BYTES_MAX, History, Unpacked, WireError};

use crate::limits::{HISTORIES_HELD_MAX, HISTORY_FAILURES_MAX};
use crate::progress::{EpochProgress, is_skip, take_fitting};

type Number = (Epoch, u64);

/// With fewer bytes of canonical entries a history is not worth its frame: some ten posts.
const WORTH_BYTES: usize = 2 << 10;

/// A history is replaced when so much of it would be new: a frame of 30 bytes for each 128 posts of a full one.
const RENEWED_SHARE: usize = 4;

/// Ranges, their epochs and how many there are.
const HISTORY_OVERHEAD: usize = 16;

/// Histories of own entries.
#[derive(Debug)]
pub(crate) struct Offers {
    me: NodeId,
    none: Arc<History>,
    shelves: BTreeMap<Label, Shelf>,
    next_name: u8,
    /// How often the peer could not use a history on this connection.
    failures: u32,
    /// The journal was looked at for what was acknowledged before this process started.
    has_read_back: bool,
}

/// Acknowledged entries of one label, the latest of them.
#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<Number, (Arc<[u8]>, EntryHash)>,
    bytes: usize,
    /// Bytes that came since the last offer was made.
    fresh_bytes: usize,
    /// The salt of ids in the last entry that came.
    salt: u64,
    /// What batches may name.
    current: Option<Offer>,
    /// What the peer has not answered to.
    asked: Option<Offer>,
    /// It was told so on this connection.
    is_told: bool,
}

#[derive(Clone, Debug)]
struct Offer {
    name: u8,
    history: Arc<History>,
    numbers: BTreeMap<Epoch, RangeSet>,
    salt: u64,
}

impl Offer {
    fn holds_any(&self, epoch: Epoch, numbers: &RangeSet) -> bool {
        self.numbers.get(&epoch).is_some_and(|own| !own.intersection(numbers).is_empty())
    }
}

impl Shelf {
    fn remove(&mut self, number: Number) {
        if let Some((bytes, _)) = self.entries.remove(&number) {
            self.bytes -= bytes.len();
        }
    }

    fn is_due(&self) -> bool {
        let renewed = match &self.current {
            None => self.bytes >= WORTH_BYTES,
            // Ids of a new process cost their salt in every frame until a history tells it.
            Some(current) if current.salt != self.salt => self.fresh_bytes >= WORTH_BYTES / 4,
            Some(_) => self.fresh_bytes >= WORTH_BYTES.max(self.bytes / RENEWED_SHARE),
        };
        match &self.asked {
            Some(_) => !self.is_told,
            None => renewed,
        }
    }
}

impl Offers {
    pub(crate) fn new(me: NodeId) -> Self {
        let none = Arc::new(History::none(me));
        Self { me, none, shelves: BTreeMap::new(), next_name: 0, failures: 0, has_read_back: false }
    }

    /// What a batch of this label may refer to, and its name.
    pub(crate) fn of(&self, label: &Label) -> (Option<u8>, Arc<History>) {
        match self.shelves.get(label).and_then(|shelf| shelf.current.as_ref()) {
            Some(offer) => (Some(offer.name), Arc::clone(&offer.history)),
            None => self.none(),
        }
    }

    /// Is an entry of so many canonical bytes kept until it is acknowledged?
    pub(crate) fn takes(bytes: usize) -> bool {
        bytes <= HISTORY_ENTRY_BYTES_MAX
    }

    /// What a batch may refer to that must be understood whatever the peer has.
    pub(crate) fn none(&self) -> (Option<u8>, Arc<History>) {
        (None, Arc::clone(&self.none))
    }

    /// The peer holds this own entry durably.
    pub(crate) fn acknowledged(&mut self, entry: &Outgoing) {
        if !Self::takes(entry.bytes.len()) {
            return;
        }
        let h = &entry.entry.header;
        let shelf = self.shelves.entry(h.label.clone()).or_default();
        let kept = (Arc::clone(&entry.bytes), entry.hash);
        let number = (h.id.epoch, h.id.seq.get());
        if shelf.entries.insert(number, kept).is_some() {
            return;
        }
        shelf.bytes += entry.bytes.len();
        shelf.fresh_bytes += entry.bytes.len();
        shelf.salt = h.mint_salt;
        let epochs = |shelf: &Shelf| shelf.entries.keys().map(|(epoch, _)| epoch).collect::<BTreeSet<_>>().len();
        while shelf.bytes > HISTORY_BYTES_MAX
            || shelf.entries.len() > HISTORY_ENTRIES_MAX
            || (shelf.entries.first_key_value().map(|(n, _)| n.0) != Some(number.0)
                && epochs(shelf) > HISTORY_EPOCHS_MAX)
        {
            let Some((oldest, _)) = shelf.entries.first_key_value() else { break };
            shelf.remove(*oldest);
        }
    }

    /// What was acknowledged before this process started, as far as the journal still holds it: once.
    pub(crate) fn read_back(
        &mut self,
        progress: &BTreeMap<Epoch, EpochProgress>,
        outbound: &dyn Outbound,
    ) -> Result<(), OutboundError> {
        if std::mem::replace(&mut self.has_read_back, true) {
            return Ok(());
        }
        let mut found = Vec::new();
        let mut looked_at = 0;
        'all: for (epoch, progress) in progress.iter().rev() {
            let mut held = progress.stored.clone();
            for (_, ended) in progress.outcomes.iter().filter(|(outcome, _)| !is_skip(**outcome)) {
                held.union_with(ended);
            }
            let ranges: Vec<_> = held.iter().collect();
            for n in ranges.into_iter().rev().flat_map(Iterator::rev) {
                if looked_at == 2 * HISTORY_ENTRIES_MAX || found.len() == HISTORY_ENTRIES_MAX {
                    break 'all;
                }
                looked_at += 1;
                let id = Seq::new(n).map(|seq| EntryId { origin: self.me, epoch: *epoch, seq });
                let entry = id.map(|id| outbound.entry(id)).transpose()?.flatten();
                found.extend(entry.filter(|entry| Self::takes(entry.bytes.len())));
            }
        }
        found.iter().rev().for_each(|entry| self.acknowledged(entry));
        Ok(())
    }

    /// Both sides have greeted.
    pub(crate) fn resume(&mut self, peer_restarted: bool) {
        self.failures = 0;
        for shelf in self.shelves.values_mut() {
            shelf.is_told = false;
            if peer_restarted && let Some(current) = shelf.current.take() {
                // What it had it can make again.
                shelf.asked.get_or_insert(current);
            }
        }
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.has_read_back || (self.failures < HISTORY_FAILURES_MAX && self.shelves.values().any(Shelf::is_due))
    }

    /// An offer, at most `bytes_max` long.
    pub(crate) fn next_control(&mut self, bytes_max: usize) -> Option<Frame> {
        if !self.has_control() {
            return None;
        }
        let me = self.me;
        let shelf = self.shelves.values_mut().find(|shelf| shelf.is_due())?;
        if shelf.asked.is_none() {
            self.next_name = self.next_name.wrapping_add(1);
            shelf.asked = offer(me, shelf, self.next_name, bytes_max);
            shelf.fresh_bytes = 0;
        }
        shelf.is_told = true;
        let asked = shelf.asked.as_ref()?;
        let entries = asked.numbers.iter().map(|(epoch, set)| (*epoch, set.clone())).collect();
        let frame = Frame::History(HistoryOf { name: asked.name, hash: asked.history.hash(), entries });
        if frame.encode().len() > bytes_max {
            // Told again over a link that is thinner than the one before: another is made.
            shelf.asked = None;
            shelf.fresh_bytes = shelf.bytes;
            return None;
        }
        Some(frame)
    }

    /// The peer has made the history, or says what it misses.
    pub(crate) fn answered(&mut self, held: &HistoryHeld) {
        let is = |shelf: &&mut Shelf| shelf.asked.as_ref().is_some_and(|asked| asked.name == held.name);
        let Some(shelf) = self.shelves.values_mut().find(is) else { return };
        let asked = shelf.asked.take();
        if held.missing.iter().all(|(_, set)| set.is_empty()) {
            if shelf.current.is_some() {
                // The one before it served until now.
                self.failures = 0;
            }
            shelf.current = asked;
            return;
        }
        for (epoch, missing) in &held.missing {
            let kept = shelf.entries.range((*epoch, 0)..=(*epoch, u64::MAX)).map(|(number, _)| *number);
            let gone: Vec<Number> = kept.filter(|number| missing.contains(number.1)).collect();
            gone.into_iter().for_each(|number| shelf.remove(number));
        }
        // What is left is offered at once, or later when there is more of it.
        shelf.fresh_bytes = shelf.bytes;
        self.failures += 1;
    }

    /// The peer has no history of this name.
    pub(crate) fn gone(&mut self, name: u8) {
        let mut known = false;
        for shelf in self.shelves.values_mut() {
            for offer in [&mut shelf.current, &mut shelf.asked] {
                if offer.as_ref().is_some_and(|offer| offer.name == name) {
                    *offer = None;
                    shelf.fresh_bytes = shelf.bytes;
                    known = true;
                }
            }
        }
        self.failures += u32::from(known);
    }

    /// The content of these own entries must go, and what was made of it.
    pub(crate) fn purged(&mut self, epoch: Epoch, numbers: &RangeSet) {
        for shelf in self.shelves.values_mut() {
            let kept = shelf.entries.range((epoch, 0)..=(epoch, u64::MAX)).map(|(number, _)| *number);
            let gone: Vec<Number> = kept.filter(|number| numbers.contains(number.1)).collect();
            gone.into_iter().for_each(|number| shelf.remove(number));
            for offer in [&mut shelf.current, &mut shelf.asked] {
                if offer.as_ref().is_some_and(|offer| offer.holds_any(epoch, numbers)) {
                    *offer = None;
                    shelf.fresh_bytes = shelf.bytes;
                }
            }
        }
    }
}

/// A history of what the shelf holds; of its latest entries where naming all would make the frame too long.
fn offer(me: NodeId, shelf: &mut Shelf, name: u8, bytes_max: usize) -> Option<Offer> {
    let mut numbers: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
    for (epoch, n) in shelf.entries.keys() {
        numbers.entry(*epoch).or_default().insert(*n);
    }
    let len = |numbers: &BTreeMap<Epoch, RangeSet>| {
        let entries = numbers.iter().map(|(epoch, set)| (*epoch, set.clone())).collect();
        Frame::History(HistoryOf { name, hash: 0, entries }).encode().len()
    };
    while len(&numbers) > bytes_max {
        let (epoch, oldest) = numbers.iter().find_map(|(epoch, set)| Some((*epoch, set.iter().next()?)))?;
        let rest = numbers.get(&epoch)?.difference(&oldest.into());
        if rest.is_empty() {
            numbers.remove(&epoch);
        } else {
            numbers.insert(epoch, rest);
        }
    }
    let is_named = |number: &Number| numbers.get(&number.0).is_some_and(|set| set.contains(number.1));
    let dropped: Vec<Number> = shelf.entries.keys().filter(|number| !is_named(number)).copied().collect();
    dropped.into_iter().for_each(|number| shelf.remove(number));
    let entries = shelf.entries.values().map(|(bytes, hash)| (&**bytes, *hash));
    let history = History::of(me, entries).expect("a shelf keeps own entries of one label within a history's caps");
    Some(Offer { name, history: Arc::new(history), numbers, salt: shelf.salt })
}

/// One of them.
#[derive(Debug)]
struct HeldHistory {
    name: u8,
    history: History,
    entries: Vec<(Epoch, RangeSet)>,
}

/// Histories of the peer's entries.
#[derive(Debug)]
pub(crate) struct Held {
    peer: NodeId,
    none: History,
    /// By name, the last one made at the end.
    histories: VecDeque<HeldHistory>,
    answers: VecDeque<HistoryHeld>,
    /// Names that batches had and that are not here.
    gone: BTreeSet<u8>,
}

impl Held {
    pub(crate) fn new(peer: NodeId) -> Self {
        let none = History::none(peer);
        Self { peer, none, histories: VecDeque::new(), answers: VecDeque::new(), gone: BTreeSet::new() }
    }

    /// The peer's process is another than before: its names mean something else.
    pub(crate) fn peer_restarted(&mut self) {
        self.histories.clear();
    }

    pub(crate) fn connected(&mut self) {
        self.answers.clear();
        self.gone.clear();
    }

    /// The peer offers a history: it is made of what is held here.
    pub(crate) fn offered(&mut self, offer: HistoryOf, outbound: &dyn Outbound) -> Result<(), OutboundError> {
        let HistoryOf { name, hash, entries } = offer;
        self.histories.retain(|held| held.name != name);
        let named = entries.iter().flat_map(|(_, set)| set.numbers());
        let count = named.take(HISTORY_ENTRIES_MAX + 1).count();
        let mut held: Vec<Outgoing> = Vec::new();
        let mut missing: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        if count <= HISTORY_ENTRIES_MAX {
            for (epoch, n) in entries.iter().flat_map(|(epoch, set)| set.numbers().map(|n| (*epoch, n))) {
                let id = Seq::new(n).map(|seq| EntryId { origin: self.peer, epoch, seq });
                match id.map(|id| outbound.received(id)).transpose()?.flatten() {
                    Some(entry) => held.push(entry),
                    None => drop(missing.entry(epoch).or_default().insert(n)),
                }
            }
        }
        let history = History::of(self.peer, held.iter().map(|entry| (&*entry.bytes, entry.hash)));
        let history = history.ok().filter(|history| missing.is_empty() && history.hash() == hash);
        let missing = match history {
            Some(history) => {
                let label = history.label().cloned();
                let same_label = |held: &HeldHistory| held.history.label() == label.as_ref();
                // Frames overtake each other: the one before is still named by some.
                if self.histories.iter().filter(|held| same_label(held)).count() >= 2
                    && let Some(oldest) = self.histories.iter().position(same_label)
                {
                    self.histories.remove(oldest);
                }
                if self.histories.len() == HISTORIES_HELD_MAX {
                    self.histories.pop_front();
                }
                self.histories.push_back(HeldHistory { name, history, entries });
                Vec::new()
            }
            // Everything is here, but not the same: nothing of it can serve.
            None if missing.is_empty() => entries,
            None => missing.into_iter().collect(),
        };
        if self.answers.len() == HISTORIES_HELD_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(HistoryHeld { name, missing });
        Ok(())
    }

    /// The entries of a batch; `None` when the history that it names is not here, which the peer is told.
    pub(crate) fn entries(&mut self, batch: &Batch) -> Result<Option<Vec<Unpacked>>, WireError> {
        let Some(name) = batch.history() else { return batch.entries(&self.none).map(Some) };
        let held = self.histories.iter().find(|held| held.name == name);
        if let Some(entries) = held.and_then(|held| batch.entries(&held.history).ok()) {
            return Ok(Some(entries));
        }
        // Not here, or not the same as the peer's: it goes on without.
        self.histories.retain(|held| held.name != name);
        self.gone.insert(name);
        Ok(None)
    }

    /// The content of these entries of the peer must go, and what was made of it.
    pub(crate) fn purged(&mut self, epoch: Epoch, numbers: &RangeSet) {
        let gone = &mut self.gone;
        self.histories.retain(|held| {
            let holds = held.entries.iter().any(|(of, set)| *of == epoch && !set.intersection(numbers).is_empty());
            if holds {
                gone.insert(held.name);
            }
            !holds
        });
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.answers.is_empty() || !self.gone.is_empty()
    }

    pub(crate) fn next_control(&mut self, bytes_max: usize) -> Option<Frame> {
        if let Some(name) = self.gone.pop_first() {
            return Some(Frame::HistoryGone(name));
        }
        let HistoryHeld { name, missing } = self.answers.pop_front()?;
        // What does not fit is missed when the rest is offered.
        let mut left = bytes_max - HISTORY_OVERHEAD;
        let mut told = Vec::new();
        for (epoch, mut set) in missing {
            let fits = take_fitting(&mut set, left.saturating_sub(5), usize::MAX);
            if fits.is_empty() {
                break;
            }
            told.push((epoch, fits));
            left = left.saturating_sub(5 + crate::progress::set_len(&told.last()?.1));
        }
        Some(Frame::HistoryHeld(HistoryHeld { name, missing: told }))
    }
}
