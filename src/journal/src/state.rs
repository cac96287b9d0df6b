//! What the log says, taken together: epochs, received numbers, consumers. Rebuilt from the newest snapshot and what
//! follows it; written as a snapshot at the start of each segment.

use std::collections::BTreeMap;

use model::{ChunkName, EntryId, Epoch, Hlc, LocalPos, NodeId, Outcome, RangeSet, Seq};

use crate::format::{
    ConsumerFrame, EpochOpened, EpochState, FrameKind, ReceivedFrame, Record, RenumberedFrame, SnapshotFrame, join,
    split, to_cbor,
};
use crate::holds::{Hold, HoldFrame};
use crate::lanes::Lanes;
use crate::pages::Part;
use crate::purge::PurgeFrame;
use crate::sealer::Sealer;
use crate::summary::{Numbers, Page, Summary, Tally};
use crate::types::{ConsumerState, EpochReason, OwnEpoch};

/// Numbers by outcome, then by class.
pub(crate) type Counts = [[u64; 5]; 6];

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) epochs: BTreeMap<Epoch, (EpochReason, u64)>,
    pub(crate) received: BTreeMap<(NodeId, Epoch), RangeSet>,
    pub(crate) renumbered: BTreeMap<Epoch, RangeSet>,
    pub(crate) highest_source: Option<Hlc>,
    pub(crate) consumers: BTreeMap<String, Account>,
    pub(crate) next_pos: u64,
    pub(crate) trimmed_through: u32,
    /// Own numbers whose entries stand once more behind damaged ones; of segments that exist.
    pub(crate) restored: Numbers,
    pub(crate) holds: BTreeMap<String, Hold>,
    /// Own numbers whose content was purged: they end so for every consumer.
    pub(crate) purged: BTreeMap<Epoch, RangeSet>,
    /// Numbers of others whose content was purged: what still comes of them is not stored.
    pub(crate) purged_foreign: BTreeMap<(NodeId, Epoch), RangeSet>,
    /// Purges that were begun and are not done.
    pub(crate) purging: Vec<PurgeFrame>,
    /// The last own entry of each stream and precedence.
    pub(crate) lanes: Lanes,
}

/// A consumer and its sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) state: ConsumerState,
    /// Segments up to this one are counted in `trimmed`, the others in `counted`.
    pub(crate) trimmed_through: u32,
    pub(crate) trimmed: Counts,
    /// By segment; one without a row has nothing to count.
    pub(crate) counted: BTreeMap<u32, Counted>,
    /// Raised with each change; `written` is the one that the log holds.
    pub(crate) version: u64,
    pub(crate) written: u64,
    /// Numbers that the log does not hold yet.
    pub(crate) added: Added,
    /// The log does not know of it yet.
    pub(crate) begins: bool,
}

/// Ranges in one frame of a consumer's state: half a mebibyte, where each takes the most that it can.
const FRAME_RANGES: usize = 1 << 15;

/// Numbers that were added to a consumer's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    stored: BTreeMap<Epoch, RangeSet>,
    outcomes: BTreeMap<Epoch, [RangeSet; 6]>,
}

impl Added {
    pub(crate) fn ranges_len(&self) -> usize {
        self.stored.values().chain(self.outcomes.values().flatten()).map(RangeSet::ranges_len).sum()
    }

    fn take(&mut self, written: &Self) {
        for (epoch, set) in &mut self.stored {
            let Some(written) = written.stored.get(epoch) else { continue };
            *set = set.difference(written);
        }
        for (epoch, sets) in &mut self.outcomes {
            let Some(written) = written.outcomes.get(epoch) else { continue };
            sets.iter_mut().zip(written).for_each(|(set, of)| *set = set.difference(of));
        }
        self.stored.retain(|_, set| !set.is_empty());
        self.outcomes.retain(|_, sets| sets.iter().any(|set| !set.is_empty()));
    }
}

/// What the own entries of one segment came to, for one consumer. Entries that cannot be read and have no receipt count as
/// quarantined: they can never be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) outcomes: Counts,
    /// Size of those that ended in any way, by class.
    pub(crate) final_bytes: [u64; 5],
    /// Of the held ones: durable at the peer, by class.
    pub(crate) stored: [u64; 5],
}

impl Counted {
    fn add(&mut self, outcome: Outcome, tally: &Tally) {
        for class in 0..5 {
            self.outcomes[outcome as usize - 1][class] += tally.count[class];
            self.final_bytes[class] += tally.bytes[class];
        }
    }

    fn take(&mut self, outcome: Outcome, tally: &Tally) {
        for class in 0..5 {
            self.outcomes[outcome as usize - 1][class] -= tally.count[class];
            self.final_bytes[class] -= tally.bytes[class];
        }
    }

    fn plus(mut self, other: &Self) -> Self {
        add_counts(&mut self.outcomes, &other.outcomes);
        for class in 0..5 {
            self.final_bytes[class] += other.final_bytes[class];
            self.stored[class] += other.stored[class];
        }
        self
    }
}

impl State {
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) | Record::PurgedEntry(entry) => {
                self.next_pos = self.next_pos.max(entry.pos + 1);
                let id = entry.header.id;
                if entry.own {
                    self.note_own(id.epoch, id.seq.get());
                    self.lanes.note(&entry.header, entry.pos);
                    self.highest_source = self.highest_source.max(Some(entry.header.source.0));
                } else {
                    self.received.entry((id.origin, id.epoch)).or_default().insert(id.seq.get());
                }
            }
            Record::EpochOpened(EpochOpened { epoch, reason, previous_last: _, next_pos }) => {
                self.next_pos = self.next_pos.max(*next_pos);
                self.epochs.entry(*epoch).or_insert((reason_of(*reason), 0)).0 = reason_of(*reason);
            }
            Record::Consumer(frame) => {
                self.consumers.entry(frame.name.clone()).or_default().take_frame(frame);
            }
            Record::ConsumerRemoved(name) => drop(self.consumers.remove(name)),
            Record::Received(ReceivedFrame { origin, epoch, numbers }) => {
                self.received.entry((*origin, *epoch)).or_default().union_with(numbers);
            }
            Record::Renumbered(RenumberedFrame { numbers }) => {
                for (epoch, pieces) in numbers {
                    self.renumbered.entry(*epoch).or_default().union_with(&join(pieces));
                }
            }
            Record::Trimmed(segment) => self.trimmed_through = self.trimmed_through.max(*segment),
            Record::Snapshot(snapshot) => {
                for EpochState { epoch, reason, last } in &snapshot.epochs {
                    let known = self.epochs.entry(*epoch).or_insert((reason_of(*reason), 0));
                    *known = (reason_of(*reason), known.1.max(*last));
                }
                for (epoch, pieces) in &snapshot.renumbered {
                    self.renumbered.entry(*epoch).or_default().union_with(&join(pieces));
                }
                self.highest_source = self.highest_source.max(snapshot.highest_source);
                self.next_pos = self.next_pos.max(snapshot.next_pos);
                self.trimmed_through = self.trimmed_through.max(snapshot.trimmed_through);
                for (epoch, pieces) in &snapshot.purged {
                    self.purged.entry(*epoch).or_default().union_with(&join(pieces));
                }
                for ReceivedFrame { origin, epoch, numbers } in &snapshot.purged_foreign {
                    self.purged_foreign.entry((*origin, *epoch)).or_default().union_with(numbers);
                }
            }
            Record::Restored(entry) | Record::PurgedRestored(entry) => {
                self.next_pos = self.next_pos.max(entry.pos + 1);
                let id = entry.header.id;
                self.restored.entry(id.epoch).or_default().insert(id.seq.get());
            }
            Record::DamageNote(note) => {
                for ReceivedFrame { origin, epoch, numbers } in &note.lost {
                    if let Some(received) = self.received.get_mut(&(*origin, *epoch)) {
                        *received = received.difference(numbers);
                    }
                }
            }
            Record::Hold(frame) => frame.apply(&mut self.holds),
            Record::Purge(frame) => self.note_purge(frame),
            Record::Lanes(heads) => heads.iter().for_each(|head| self.lanes.insert(*head)),
            Record::Chunk { .. }
            | Record::ChunksNeeded(_)
            | Record::Rows
            | Record::Footer
            | Record::PurgedChunk
            | Record::Header => {}
        }
    }

    /// An own number was given out.
    pub(crate) fn note_own(&mut self, epoch: Epoch, last: u64) {
        // The frame that opened the epoch may have been damaged.
        let known = self.epochs.entry(epoch).or_insert((EpochReason::Damage, 0));
        known.1 = known.1.max(last);
    }

    pub(crate) fn own_last(&self, epoch: Epoch) -> Option<Seq> {
        self.epochs.get(&epoch).and_then(|(_, last)| Seq::new(*last))
    }

    /// Opens the next epoch. False when there is none any more.
    pub(crate) fn begin_epoch(&mut self, reason: EpochReason) -> bool {
        let next = self.current().map_or(Some(Epoch::FIRST), |(epoch, _)| epoch.next());
        next.is_some_and(|next| self.epochs.insert(next, (reason, 0)).is_none())
    }

    /// The open epoch and the last number given out in it.
    pub(crate) fn current(&self) -> Option<(Epoch, u64)> {
        self.epochs.last_key_value().map(|(epoch, (_, last))| (*epoch, *last))
    }

    pub(crate) fn own_epochs(&self) -> Vec<OwnEpoch> {
        self.epochs
            .iter()
            .map(|(e, (reason, last))| OwnEpoch { epoch: *e, reason: *reason, last: Seq::new(*last) })
            .collect()
    }

    pub(crate) fn has_received(&self, id: &EntryId) -> bool {
        self.received.get(&(id.origin, id.epoch)).is_some_and(|set| set.contains(id.seq.get()))
    }

    /// Was this entry of another node purged?
    pub(crate) fn is_purged(&self, id: &EntryId) -> bool {
        self.purged_foreign.get(&(id.origin, id.epoch)).is_some_and(|set| set.contains(id.seq.get()))
    }

    /// Is a chunk about to go?
    pub(crate) fn is_purging_chunk(&self, name: &ChunkName) -> bool {
        self.purging.iter().any(|frame| frame.chunks.binary_search(name).is_ok())
    }

    fn note_purge(&mut self, frame: &PurgeFrame) {
        if frame.done {
            return self.purging.clear();
        }
        for (epoch, pieces) in &frame.own {
            self.purged.entry(*epoch).or_default().union_with(&join(pieces));
        }
        for ReceivedFrame { origin, epoch, numbers } in &frame.foreign {
            self.purged_foreign.entry((*origin, *epoch)).or_default().union_with(numbers);
            self.received.entry((*origin, *epoch)).or_default().union_with(numbers);
        }
        // A segment that begins while it is under way repeats it.
        if !self.purging.contains(frame) {
            self.purging.push(frame.clone());
        }
    }

    /// Appends the group of frames with which a segment begins.
    pub(crate) fn push_group(&self, sealer: &Sealer, out: &mut Vec<u8>, base: u64) {
        let mut group = 0;
        for ((origin, epoch), set) in &self.received {
            for numbers in split(set) {
                let frame = ReceivedFrame { origin: *origin, epoch: *epoch, numbers };
                sealer.push(out, base, FrameKind::Received, &[&to_cbor(&frame)]);
                group += 1;
            }
        }
        for (name, account) in &self.consumers {
            for frame in account.frames(name, &account.all()) {
                sealer.push(out, base, FrameKind::Consumer, &[&to_cbor(&frame)]);
                group += 1;
            }
        }
        for hold in self.holds.values() {
            let frame = HoldFrame { hold: hold.clone(), removed: false };
            sealer.push(out, base, FrameKind::Hold, &[&to_cbor(&frame)]);
            group += 1;
        }
        for purge in &self.purging {
            sealer.push(out, base, FrameKind::Purge, &[&to_cbor(purge)]);
            group += 1;
        }
        for heads in self.lanes.frames() {
            sealer.push(out, base, FrameKind::Lanes, &[&heads]);
            group += 1;
        }
        let foreign = self.purged_foreign.iter().flat_map(|((origin, epoch), set)| {
            split(set).into_iter().map(|numbers| ReceivedFrame { origin: *origin, epoch: *epoch, numbers })
        });
        let snapshot = SnapshotFrame {
            purged: self.purged.iter().map(|(epoch, set)| (*epoch, split(set))).collect(),
            purged_foreign: foreign.collect(),
            group,
            epochs: self
                .epochs
                .iter()
                .map(|(epoch, (reason, last))| EpochState { epoch: *epoch, reason: *reason as u8, last: *last })
                .collect(),
            renumbered: self.renumbered.iter().map(|(epoch, set)| (*epoch, split(set))).collect(),
            highest_source: self.highest_source,
            next_pos: self.next_pos,
            trimmed_through: self.trimmed_through,
        };
        sealer.push(out, base, FrameKind::Snapshot, &[&to_cbor(&snapshot)]);
    }
}

pub(crate) fn reason_of(number: u8) -> EpochReason {
    // A newer release may know more reasons; the epoch is valid all the same.
    EpochReason::ALL.into_iter().find(|r| *r as u8 == number).unwrap_or(EpochReason::Operator)
}

impl Account {
    /// The frames that say so much of it; one at least.
    pub(crate) fn frames(&self, name: &str, added: &Added) -> Vec<ConsumerFrame> {
        let new = || ConsumerFrame {
            name: name.to_owned(),
            required: self.state.required,
            stored: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            cursor: self.state.cursor,
            trimmed_through: self.trimmed_through,
            trimmed: self.trimmed.iter().map(|by_class| by_class.to_vec()).collect(),
            reads_all: self.state.reads_all,
            begins: false,
        };
        let mut frames = vec![ConsumerFrame { begins: self.begins, ..new() }];
        let mut room = FRAME_RANGES;
        let mut put = |piece: RangeSet, put: &dyn Fn(&mut ConsumerFrame, RangeSet)| {
            if room < piece.ranges_len() {
                frames.push(new());
                room = FRAME_RANGES;
            }
            room -= piece.ranges_len();
            frames.iter_mut().next_back().into_iter().for_each(|frame| put(frame, piece.clone()));
        };
        for (epoch, set) in &added.stored {
            for piece in split(set) {
                put(piece, &|frame, piece| frame.stored.entry(*epoch).or_default().push(piece));
            }
        }
        for (epoch, sets) in &added.outcomes {
            for (i, set) in sets.iter().enumerate() {
                for piece in split(set) {
                    put(piece, &|frame, piece| {
                        let sets = frame.outcomes.entry(*epoch).or_default();
                        sets.resize_with(sets.len().max(i + 1), Vec::new);
                        sets[i].push(piece);
                    });
                }
            }
        }
        frames
    }

    /// All that its frames are to say at the start of a segment.
    fn all(&self) -> Added {
        Added { stored: self.state.stored.clone(), outcomes: self.state.outcomes.clone() }
    }

    fn take_frame(&mut self, frame: &ConsumerFrame) {
        if frame.begins {
            *self = Self::default();
        }
        self.trimmed_through = frame.trimmed_through;
        self.state.required = frame.required;
        self.state.cursor = frame.cursor;
        self.state.reads_all = frame.reads_all;
        for (epoch, pieces) in &frame.stored {
            self.state.stored.entry(*epoch).or_default().union_with(&join(pieces));
        }
        for (epoch, pieces) in &frame.outcomes {
            let sets = self.state.outcomes.entry(*epoch).or_default();
            for (i, pieces) in pieces.iter().enumerate().take(sets.len()) {
                // The first end of a number stays.
                let others = sets.iter().enumerate().filter(|(other, _)| *other != i);
                let new = others.fold(join(pieces), |new, (_, set)| new.difference(set));
                sets[i].union_with(&new);
            }
        }
        for (sums, read) in self.trimmed.iter_mut().zip(&frame.trimmed) {
            sums.iter_mut().zip(read).for_each(|(sum, n)| *sum = *n);
        }
    }

    /// What was added up to a version is in the log.
    pub(crate) fn is_written(&mut self, version: u64, added: &Added) {
        self.written = version;
        self.begins = false;
        self.added.take(added);
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.version != self.written
    }

    /// Own entries wait for it, by receipts or by its cursor.
    pub(crate) fn reads_own(&self) -> bool {
        self.state.cursor.is_none() || self.state.reads_all
    }

    /// A consumer with a cursor, over received entries or over all of them, rather than with receipts for own entries.
    pub(crate) fn reads_foreign(&self) -> bool {
        self.state.cursor.is_some()
    }

    /// How an own number ended here, if it did.
    pub(crate) fn outcome_of(&self, epoch: Epoch, seq: u64) -> Option<Outcome> {
        let sets = self.state.outcomes.get(&epoch)?;
        Outcome::ALL.into_iter().zip(sets).find(|(_, set)| set.contains(seq)).map(|(outcome, _)| outcome)
    }

    /// Numbers by how they ended.
    pub(crate) fn ended(&self, epoch: Epoch) -> &[RangeSet] {
        self.state.outcomes.get(&epoch).map_or(&[], |sets| sets.as_slice())
    }

    /// What the segment's entries came to, counted from scratch.
    fn count(&self, part: Part<'_>) -> Counted {
        let summary = part.summary();
        let mut counted = Counted::default();
        for (i, page) in summary.pages.iter().enumerate() {
            let mut open = RangeSet::from(page.range());
            let mut end = |outcome: Outcome, set: &RangeSet| {
                let ended = open.intersection(set);
                if !ended.is_empty() {
                    counted.add(outcome, &part.tally(i, &ended));
                    open = open.difference(&ended);
                }
            };
            Outcome::ALL.into_iter().zip(self.ended(page.epoch)).for_each(|(outcome, set)| end(outcome, set));
            if let Some(unreadable) = summary.unreadable.get(&page.epoch) {
                end(Outcome::Quarantined, unreadable);
            }
            if let Some(stored) = self.state.stored.get(&page.epoch) {
                let stored = part.tally(i, &open.intersection(stored)).count;
                counted.stored.iter_mut().zip(stored).for_each(|(sum, n)| *sum += n);
            }
        }
        counted
    }

    /// Counts from scratch.
    pub(crate) fn recount<'a>(&mut self, parts: impl Iterator<Item = Part<'a>>) {
        self.counted.clear();
        parts.for_each(|part| self.recount_one(part));
    }

    /// Counts one segment from scratch.
    pub(crate) fn recount_one(&mut self, part: Part<'_>) {
        if part.number() > self.trimmed_through {
            let counted = self.count(part);
            self.counted.insert(part.number(), counted);
        }
    }

    /// Sums over the segments that are not trimmed.
    pub(crate) fn counted(&self) -> Counted {
        self.counted.values().fold(Counted::default(), Counted::plus)
    }

    /// How many own entries of the segment are held, by class.
    pub(crate) fn held_in(&self, number: u32, summary: &Summary) -> [u64; 5] {
        let mut held = summary.classes.map(|class| class.count);
        for by_class in self.counted.get(&number).iter().flat_map(|counted| &counted.outcomes) {
            held.iter_mut().zip(by_class).for_each(|(held, n)| *held -= n);
        }
        held
    }

    /// Of the numbers in a page those that are held, that is can be read and have not ended.
    pub(crate) fn held_numbers(&self, summary: &Summary, page: &Page) -> RangeSet {
        summary.open_in(page, self.ended(page.epoch))
    }

    /// Notes an outcome; the first one of a number stays. `parts` are the segments that exist.
    pub(crate) fn record<'a>(
        &mut self,
        outcome: Outcome,
        epoch: Epoch,
        numbers: &RangeSet,
        parts: impl Iterator<Item = Part<'a>>,
    ) {
        let new = self.ended(epoch).iter().fold(numbers.clone(), |new, set| new.difference(set));
        if new.is_empty() {
            return;
        }
        let stored = self.state.stored.get(&epoch);
        for (part, i, here) in overlaps(parts, epoch, &new, self.trimmed_through) {
            let counted = self.counted.entry(part.number()).or_default();
            counted.add(outcome, &part.tally(i, &here));
            let mut readable = here;
            if let Some(set) = part.summary().unreadable.get(&epoch) {
                // Counted as quarantined until something is known of them.
                let unreadable = readable.intersection(set);
                counted.take(Outcome::Quarantined, &part.tally(i, &unreadable));
                readable = readable.difference(&unreadable);
            }
            if let Some(stored) = stored {
                let stored = part.tally(i, &readable.intersection(stored)).count;
                counted.stored.iter_mut().zip(stored).for_each(|(sum, n)| *sum -= n);
            }
        }
        self.end(outcome, epoch, &new);
        self.version += 1;
    }

    fn end(&mut self, outcome: Outcome, epoch: Epoch, numbers: &RangeSet) {
        for outcomes in [&mut self.state.outcomes, &mut self.added.outcomes] {
            outcomes.entry(epoch).or_default()[outcome as usize - 1].union_with(numbers);
        }
    }

    /// Notes that the peer holds these durably.
    pub(crate) fn record_stored<'a>(
        &mut self,
        epoch: Epoch,
        numbers: &RangeSet,
        parts: impl Iterator<Item = Part<'a>>,
    ) {
        let known = self.state.stored.entry(epoch).or_default();
        let new = numbers.difference(known);
        if new.is_empty() {
            return;
        }
        known.union_with(&new);
        self.added.stored.entry(epoch).or_default().union_with(&new);
        for (part, i, here) in overlaps(parts, epoch, &new, self.trimmed_through) {
            let held = self.held_numbers(part.summary(), &part.summary().pages[i]);
            let stored = part.tally(i, &here.intersection(&held)).count;
            let counted = self.counted.entry(part.number()).or_default();
            counted.stored.iter_mut().zip(stored).for_each(|(sum, n)| *sum += n);
        }
        self.version += 1;
    }

    /// Is everything in the segment done with, as far as it concerns this consumer?
    pub(crate) fn is_done_with(&self, summary: &Summary) -> bool {
        if let Some(cursor) = self.state.cursor {
            let concerns = summary.has_foreign() || (self.state.reads_all && !summary.pages.is_empty());
            return !concerns || cursor >= LocalPos(summary.next_pos);
        }
        summary.pages.iter().all(|page| self.held_numbers(summary, page).is_empty())
    }

    /// Moves the sums of a segment's entries to the trimmed ones. What was still held is never sent: it expired.
    pub(crate) fn give_up(&mut self, number: u32, summary: &Summary) {
        if number <= self.trimmed_through {
            return;
        }
        let held = self.held_in(number, summary);
        self.trimmed_through = number;
        let counted = self.counted.remove(&number).unwrap_or_default();
        if self.reads_foreign() {
            // It keeps no accounts of own entries.
            return;
        }
        add_counts(&mut self.trimmed, &counted.outcomes);
        self.trimmed[Outcome::Expired as usize - 1].iter_mut().zip(held).for_each(|(sum, n)| *sum += n);
        for page in &summary.pages {
            let held = self.held_numbers(summary, page);
            let ended =
                self.ended(page.epoch).iter().fold(RangeSet::from(page.range()), |left, set| left.difference(set));
            // What is counted as quarantined without a receipt stays so when the segment is gone.
            let unreadable = ended.difference(&held);
            self.end(Outcome::Expired, page.epoch, &held);
            self.end(Outcome::Quarantined, page.epoch, &unreadable);
        }
    }
}

/// The pages in which some of an epoch's numbers stand, each with its number in the segment and those numbers.
fn overlaps<'a>(
    parts: impl Iterator<Item = Part<'a>>,
    epoch: Epoch,
    numbers: &RangeSet,
    trimmed_through: u32,
) -> impl Iterator<Item = (Part<'a>, usize, RangeSet)> {
    let parts = parts.filter(move |part| part.number() > trimmed_through);
    let pages = parts.flat_map(|part| part.summary().pages.iter().enumerate().map(move |(i, page)| (part, i, page)));
    let within = pages.filter(move |(_, _, page)| page.epoch == epoch);
    within.filter_map(|(part, i, page)| {
        let here = RangeSet::from(page.range()).intersection(numbers);
        (!here.is_empty()).then_some((part, i, here))
    })
}

pub(crate) fn add_counts(sums: &mut Counts, more: &Counts) {
    for (sums, more) in sums.iter_mut().zip(more) {
        sums.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
    }
}

#[cfg(test)]
mod tests {
    use model::ByteSize;

    use super::*;
    use crate::format::{FRAME_HEADER_BYTES, FrameHead};
    use crate::settings::AtRest;
    use crate::tests::{append, options, tempdir};
    use crate::{Journal, JournalOptions, JournalSettings};

    /// Payload sizes of the consumers' frames among some bytes, and what the frames say.
    fn consumers(bytes: &[u8]) -> (Vec<usize>, State) {
        let (mut rest, mut sizes, mut state) = (bytes, Vec::new(), State::default());
        while let Some(head) = FrameHead::decode(rest) {
            let (payload, after) = rest[FRAME_HEADER_BYTES..].split_at(head.len as usize);
            let record = Record::decode(head.kind, payload).expect("it was just made");
            sizes.extend(matches!(record, Record::Consumer(_)).then_some(payload.len()));
            state.apply(&record);
            rest = after;
        }
        (sizes, state)
    }

    /// Every second entry is withheld from a peer, for years: the state had to fit into one frame, and a larger one was a panic
    /// with each new segment.
    #[test]
    fn a_state_with_any_number_of_ranges_is_spread_over_frames_of_a_bounded_size() {
        let mut account = Account { trimmed_through: 7, ..Account::default() };
        for epoch in 1..=12 {
            let numbers = |from: u64| (from..60_000).step_by(2).collect::<RangeSet>();
            account.state.stored.insert(Epoch(epoch), numbers(1));
            let sets = account.state.outcomes.entry(Epoch(epoch)).or_default();
            sets[Outcome::Applied as usize - 1] = numbers(1);
            sets[Outcome::Withheld as usize - 1] = numbers(2);
        }
        let state = State { consumers: [("bravo".to_owned(), account.clone())].into(), ..State::default() };
        let mut bytes = Vec::new();
        state.push_group(&Sealer::fresh(NodeId([1; 16]), 1, &AtRest::Plain), &mut bytes, 0);
        let (sizes, read) = consumers(&bytes);
        assert!(sizes.len() > 10 && sizes.iter().all(|bytes| *bytes < 1 << 20), "{sizes:?}");
        assert_eq!(read.consumers["bravo"].state, account.state);
        assert_eq!(read.consumers["bravo"].trimmed_through, 7);
    }

    /// With every receipt the whole state was written: hundreds of kilobytes for a few numbers.
    #[test]
    fn a_receipt_costs_what_it_says_whatever_was_said_before() {
        let dir = tempdir();
        let open = || {
            let options = options(dir.path());
            let settings = JournalSettings { segment_bytes: ByteSize(1 << 20), ..options.settings };
            Journal::open(JournalOptions { settings, ..options }).unwrap().0
        };
        let journal = open();
        append(&journal, 0..1_000);
        let bravo = journal.consumer("bravo", true).unwrap();
        for (outcome, from) in [(Outcome::Withheld, 1), (Outcome::Applied, 2)] {
            bravo.record_outcome(outcome, Epoch(1), &(from..=900).step_by(2).collect());
        }
        journal.flush().wait().unwrap();
        let before = journal.stats();
        bravo.record_stored(Epoch(1), &RangeSet::from(901..=902));
        bravo.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(901..=901));
        journal.flush().wait().unwrap();
        let after = journal.stats();
        assert_eq!(before.segments, after.segments);
        assert!(after.bytes - before.bytes < 250, "{} bytes", after.bytes - before.bytes);
        let expected = bravo.state();
        drop((bravo, journal));
        let journal = open();
        let bravo = journal.consumer("bravo", true).unwrap();
        assert_eq!(bravo.state(), expected);
        // One of the same name that comes after it begins from nothing.
        assert!(journal.remove_consumer("bravo").unwrap());
        journal.consumer("bravo", true).unwrap();
        drop((bravo, journal));
        let journal = open();
        assert_eq!(journal.accounting("bravo").unwrap().unwrap().total.held, 1_000);
    }
}
