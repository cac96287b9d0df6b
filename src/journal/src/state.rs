//! What the log says, taken together: epochs, received numbers, consumers. Rebuilt from the newest snapshot and what
//! follows it; written as a snapshot at the start of each segment.

use std::collections::BTreeMap;

use model::{EntryId, Epoch, Hlc, LocalPos, NodeId, Outcome, RangeSet, Seq};

use crate::format::{
    ConsumerFrame, EpochOpened, EpochState, FrameKind, ReceivedFrame, Record, RenumberedFrame, SnapshotFrame, join,
    split, to_cbor,
};
use crate::sealer::Sealer;
use crate::summary::{OwnEntry, Summary};
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
}

/// A consumer and its sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) state: ConsumerState,
    /// Segments up to this one are counted in `trimmed`, the others in `counts`.
    pub(crate) trimmed_through: u32,
    pub(crate) trimmed: Counts,
    pub(crate) counts: Counts,
    /// Encoded size of the final entries counted in `counts`, by class.
    pub(crate) final_bytes: [u64; 5],
    /// Raised with each change; `written` is the one that the log holds.
    pub(crate) version: u64,
    pub(crate) written: u64,
}

impl State {
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => {
                self.next_pos = self.next_pos.max(entry.pos + 1);
                let id = entry.header.id;
                if entry.own {
                    self.note_own(id.epoch, id.seq.get());
                    self.highest_source = self.highest_source.max(Some(entry.header.source.0));
                } else {
                    self.received.entry((id.origin, id.epoch)).or_default().insert(id.seq.get());
                }
            }
            Record::EpochOpened(EpochOpened { epoch, reason, previous_last: _ }) => {
                self.epochs.entry(*epoch).or_insert((reason_of(*reason), 0)).0 = reason_of(*reason);
            }
            Record::Consumer(frame) => {
                self.consumers.insert(frame.name.clone(), Account::from_frame(frame));
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
            }
            Record::Chunk(_) | Record::ChunkNeeded(_) | Record::Footer => {}
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
            sealer.push(out, base, FrameKind::Consumer, &[&to_cbor(&account.to_frame(name))]);
            group += 1;
        }
        let snapshot = SnapshotFrame {
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

fn reason_of(number: u8) -> EpochReason {
    // A newer release may know more reasons; the epoch is valid all the same.
    EpochReason::ALL.into_iter().find(|r| *r as u8 == number).unwrap_or(EpochReason::Operator)
}

impl Account {
    pub(crate) fn to_frame(&self, name: &str) -> ConsumerFrame {
        let outcomes = |sets: &[RangeSet; 6]| sets.iter().map(split).collect();
        ConsumerFrame {
            name: name.to_owned(),
            required: self.state.required,
            stored: self.state.stored.iter().map(|(epoch, set)| (*epoch, split(set))).collect(),
            outcomes: self.state.outcomes.iter().map(|(epoch, sets)| (*epoch, outcomes(sets))).collect(),
            cursor: self.state.cursor,
            trimmed_through: self.trimmed_through,
            trimmed: self.trimmed.iter().map(|by_class| by_class.to_vec()).collect(),
        }
    }

    fn from_frame(frame: &ConsumerFrame) -> Self {
        let mut account = Self { trimmed_through: frame.trimmed_through, ..Self::default() };
        account.state.required = frame.required;
        account.state.cursor = frame.cursor;
        account.state.stored = frame.stored.iter().map(|(epoch, pieces)| (*epoch, join(pieces))).collect();
        for (epoch, pieces) in &frame.outcomes {
            let sets = account.state.outcomes.entry(*epoch).or_default();
            sets.iter_mut().zip(pieces).for_each(|(set, pieces)| *set = join(pieces));
        }
        for (sums, read) in account.trimmed.iter_mut().zip(&frame.trimmed) {
            sums.iter_mut().zip(read).for_each(|(sum, n)| *sum = *n);
        }
        account
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.version != self.written
    }

    /// A consumer of received entries, rather than of this node's own.
    pub(crate) fn reads_foreign(&self) -> bool {
        self.state.cursor.is_some()
    }

    /// How an own number ended here, if it did.
    pub(crate) fn outcome_of(&self, epoch: Epoch, seq: u64) -> Option<Outcome> {
        let sets = self.state.outcomes.get(&epoch)?;
        Outcome::ALL.into_iter().zip(sets).find(|(_, set)| set.contains(seq)).map(|(outcome, _)| outcome)
    }

    /// Numbers that ended in any way.
    pub(crate) fn finals(&self, epoch: Epoch) -> RangeSet {
        let mut all = RangeSet::new();
        for set in self.state.outcomes.get(&epoch).into_iter().flatten() {
            all.union_with(set);
        }
        all
    }

    /// What the segment adds to the sums of this consumer.
    pub(crate) fn counts_in(&self, summary: &Summary) -> (Counts, [u64; 5]) {
        let mut counts = Counts::default();
        let mut bytes = [0; 5];
        for run in &summary.own {
            let here = RangeSet::from(run.first..=run.last());
            let mut add = |outcome: Outcome, set: &RangeSet| {
                for seq in set.intersection(&here).numbers() {
                    let entry = run.entries[(seq - run.first) as usize];
                    counts[outcome as usize - 1][entry.class().index()] += 1;
                    bytes[entry.class().index()] += entry.bytes();
                }
            };
            for (outcome, set) in
                Outcome::ALL.into_iter().zip(self.state.outcomes.get(&run.epoch).into_iter().flatten())
            {
                add(outcome, set);
            }
        }
        // What cannot be read can never be sent.
        for (epoch, unreadable) in summary.unreadable() {
            for seq in unreadable.difference(&self.finals(epoch)).numbers() {
                let Some(entry) = summary.own_entry(epoch, seq) else { continue };
                counts[Outcome::Quarantined as usize - 1][entry.class().index()] += 1;
                bytes[entry.class().index()] += entry.bytes();
            }
        }
        (counts, bytes)
    }

    /// Counts from scratch.
    pub(crate) fn recount<'a>(&mut self, segments: impl Iterator<Item = (u32, &'a Summary)>) {
        self.counts = Counts::default();
        self.final_bytes = [0; 5];
        for (_, summary) in segments.filter(|(number, _)| *number > self.trimmed_through) {
            let (counts, bytes) = self.counts_in(summary);
            add_counts(&mut self.counts, &counts);
            self.final_bytes.iter_mut().zip(bytes).for_each(|(sum, n)| *sum += n);
        }
    }

    /// Notes an outcome; the first one of a number stays. `entry_of` finds the entries that are still held.
    pub(crate) fn record(
        &mut self,
        outcome: Outcome,
        epoch: Epoch,
        numbers: &RangeSet,
        entry_of: impl Fn(u64) -> Option<OwnEntry>,
    ) {
        let new = numbers.difference(&self.finals(epoch));
        if new.is_empty() {
            return;
        }
        for seq in new.numbers() {
            let Some(entry) = entry_of(seq) else { continue };
            let class = entry.class().index();
            if !entry.is_readable() {
                // Counted as quarantined until something is known of it.
                self.counts[Outcome::Quarantined as usize - 1][class] -= 1;
                self.final_bytes[class] -= entry.bytes();
            }
            self.counts[outcome as usize - 1][class] += 1;
            self.final_bytes[class] += entry.bytes();
        }
        self.state.outcomes.entry(epoch).or_default()[outcome as usize - 1].union_with(&new);
        self.version += 1;
    }

    /// Is everything in the segment done with, as far as it concerns this consumer?
    pub(crate) fn is_done_with(&self, summary: &Summary) -> bool {
        if let Some(cursor) = self.state.cursor {
            return !summary.has_foreign() || cursor >= LocalPos(summary.next_pos);
        }
        summary.own.iter().all(|run| {
            let finals = self.finals(run.epoch);
            let open = RangeSet::from(run.first..=run.last()).difference(&finals);
            open.numbers().all(|seq| !run.entries[(seq - run.first) as usize].is_readable())
        })
    }
}

pub(crate) fn add_counts(sums: &mut Counts, more: &Counts) {
    for (sums, more) in sums.iter_mut().zip(more) {
        sums.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
    }
}
