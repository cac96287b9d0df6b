//! The receiving half for entries: what came, what is durable, and the receipts for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use model::{Entry, EntryId, Epoch, NodeId, Outbound, Outcome, Precedence, RangeSet, Seq};
use wire::Unpacked;
use wire::entry::ENTRY_BYTES_MAX;
use wire::frame::{Assembly, Claim, FRAME_BYTES_MAX, Fragment, Frame, Numbers, Receipt, Resume, Skip, Verdict, Verify};

use crate::limits::{
    ENTRIES_STORING_BYTES_MAX, EPOCHS_MAX, RANGES_PER_FRAME, RECEIPT_DELAY, RECEIPT_DELAY_URGENT, RESUMES_MAX,
    SKIPS_HELD_MAX,
};
use crate::output::{Incoming, LinkError, LinkEvent, Output};
use crate::parcel::ByBoot;
use crate::partial::Partials;
use crate::progress::{EpochProgress, is_skip, set_len, take_epoch, take_fitting, union_into};
use crate::sender::{SET_OVERHEAD, short};
use crate::session::ReceiverState;

type Number = (Epoch, u64);

/// What became of an entry that arrived.
enum Arrival {
    New(Arc<Entry>),
    /// It is here, or on its way to the disk.
    Known,
    /// It comes again when there is room.
    NoRoom,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    peer: NodeId,
    /// What is durable here, and how it ended.
    progress: BTreeMap<Epoch, EpochProgress>,
    /// Handed to the shell and not durable yet, with the lengths.
    storing: BTreeMap<Number, (Precedence, usize)>,
    storing_bytes: usize,
    /// Came when too much was being stored: asked for when there is room.
    no_room: BTreeMap<Epoch, RangeSet>,
    /// Skips handed to the shell and not in the ledger yet.
    accounting: BTreeMap<Epoch, EpochProgress>,
    /// Skips by the entry that must end before they count: told again on the next connection.
    held_skips: BTreeMap<Number, BTreeSet<(Number, Outcome)>>,
    /// How many they are, whatever they wait for.
    skips_held: usize,
    /// Entries that took effect before their turn, and what they jumped over; `None` until that is known.
    jumped: Option<BTreeMap<Number, Number>>,
    /// What the peer has not been told on this connection.
    untold: BTreeMap<Epoch, EpochProgress>,
    /// When it should be told at the latest.
    due: Option<Duration>,
    /// It is time.
    tell: bool,
    /// Large entries that are partly here.
    partial: Partials<Number>,
    /// Offsets to tell in the greeting.
    resumes: Vec<Resume>,
    /// Answers about hashes.
    same: BTreeMap<Epoch, RangeSet>,
    different: BTreeMap<Epoch, RangeSet>,
    /// Was durable here and was lost before it was used.
    lost: BTreeMap<Epoch, RangeSet>,
    /// Of these, what the peer was not asked for on this connection.
    to_ask: BTreeMap<Epoch, RangeSet>,
    /// What came in parcels, by the start of the peer that wrote them. Told as claims: only that process knows that its
    /// numbers mean the same to the peer of today. What comes over a link as well leaves it.
    came: ByBoot,
    /// Numbers in parcels under which another content is held.
    refused: ByBoot,
    /// Whose parcel is being taken.
    carrying: Option<u64>,
    /// Claims to tell, with what was refused.
    claims: BTreeMap<(u64, Epoch), (EpochProgress, RangeSet)>,
}

impl Receiver {
    pub(crate) fn new(peer: NodeId, state: ReceiverState) -> Self {
        Self {
            peer,
            progress: state.progress,
            storing: BTreeMap::new(),
            storing_bytes: 0,
            no_room: BTreeMap::new(),
            accounting: BTreeMap::new(),
            held_skips: BTreeMap::new(),
            skips_held: 0,
            jumped: None,
            untold: BTreeMap::new(),
            due: None,
            tell: false,
            partial: Partials::default(),
            resumes: Vec::new(),
            same: BTreeMap::new(),
            different: BTreeMap::new(),
            lost: BTreeMap::new(),
            to_ask: BTreeMap::new(),
            came: ByBoot::new(),
            refused: ByBoot::new(),
            carrying: None,
            claims: BTreeMap::new(),
        }
    }

    /// A connection begins: the peer is told everything again.
    pub(crate) fn connected(&mut self) {
        self.untold = self.progress.clone();
        self.claims = self.refusals();
        self.to_ask = self.lost.clone();
        self.same.clear();
        self.different.clear();
        (self.due, self.tell) = (None, false);
        self.resumes = self
            .partial
            .iter()
            .rev()
            .filter_map(|((epoch, n), part)| {
                let (seq, offset) = (Seq::new(*n)?, part.held());
                (offset > 0).then_some(Resume { epoch: *epoch, seq, crc: part.crc(), offset })
            })
            .take(RESUMES_MAX)
            .collect();
    }

    pub(crate) fn disconnected(&mut self) {
        (self.due, self.tell) = (None, false);
        self.to_ask.clear();
        // What has no receipt comes again.
        self.no_room.clear();
        self.held_skips.clear();
        self.skips_held = 0;
    }

    /// What was stored is gone before it ended: it may come again.
    pub(crate) fn forget(&mut self, epoch: Epoch, numbers: &RangeSet) {
        let Some(progress) = self.progress.get_mut(&epoch) else { return };
        let lost = numbers.intersection(&progress.stored).difference(&progress.ended());
        progress.stored = progress.stored.difference(&lost);
        if let Some(untold) = self.untold.get_mut(&epoch) {
            untold.stored = untold.stored.difference(&lost);
        }
        union_into(&mut self.lost, epoch, &lost);
        union_into(&mut self.to_ask, epoch, &lost);
    }

    /// The peer's numbers of an epoch that are durable here.
    pub(crate) fn stored_of(&self, epoch: Epoch) -> RangeSet {
        self.progress.get(&epoch).map(|progress| progress.stored.clone()).unwrap_or_default()
    }

    /// It came, or will never come.
    fn found(&mut self, epoch: Epoch, numbers: &RangeSet) {
        for sets in [&mut self.lost, &mut self.to_ask] {
            if let Some(set) = sets.get_mut(&epoch) {
                *set = set.difference(numbers);
            }
        }
    }

    /// Takes entries that arrived, with their canonical bytes. Returns those that are new.
    pub(crate) fn batch(
        &mut self,
        entries: Vec<Unpacked>,
        outbound: &dyn Outbound,
        now: Duration,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Vec<Arc<Entry>>, LinkError> {
        let mut new = Vec::new();
        let mut duplicates = 0;
        for (entry, bytes) in entries {
            match self.entry(entry, bytes, outbound, now, outputs)? {
                Arrival::New(entry) => new.push(entry),
                Arrival::Known => duplicates += 1,
                Arrival::NoRoom => {}
            }
        }
        if duplicates > 0 {
            outputs.push_back(Output::Event(LinkEvent::Duplicates(duplicates)));
        }
        Ok(new)
    }

    fn entry(
        &mut self,
        entry: Entry,
        bytes: Vec<u8>,
        outbound: &dyn Outbound,
        now: Duration,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Arrival, LinkError> {
        let id = entry.header.id;
        if id.origin != self.peer {
            return Err(LinkError::Protocol("an entry of another origin than the sender"));
        }
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(LinkError::Protocol("an entry above the largest size"));
        }
        let hash = wire::entry_hash(&bytes)?;
        let (epoch, n) = (id.epoch, id.seq.get());
        if self.storing.contains_key(&(epoch, n)) {
            return Ok(Arrival::Known);
        }
        if let Some(progress) = self.progress.get(&epoch).filter(|p| p.knows(n)) {
            // It comes again because a receipt was lost, or because the peer gave the number to something else.
            let ours = if progress.stored.contains(n) { outbound.hash_of(id)? } else { None };
            if ours.is_some_and(|ours| ours != hash) {
                self.differs(epoch, n);
            } else {
                self.met_again(epoch, n, ours.is_some());
                self.tell_again(epoch, n, now);
            }
            return Ok(Arrival::Known);
        }
        self.admit(epoch)?;
        let class = entry.header.precedence;
        // A parcel is taken as a whole; how many are is for the shell to bound.
        if self.carrying.is_none() && !self.has_room(class, bytes.len()) {
            self.no_room.entry(epoch).or_default().insert(n);
            let ranges: usize = self.no_room.values().map(RangeSet::ranges_len).sum();
            return match ranges <= RangeSet::RANGES_MAX {
                true => Ok(Arrival::NoRoom),
                false => Err(LinkError::Protocol("more entries without a receipt than a window has")),
            };
        }
        self.storing.insert((epoch, n), (class, bytes.len()));
        self.storing_bytes += bytes.len();
        self.note_path(epoch, n);
        let entry = Arc::new(entry);
        outputs.push_back(Output::Store(Incoming { entry: Arc::clone(&entry), bytes: bytes.into(), hash }));
        Ok(Arrival::New(entry))
    }

    /// May so many bytes more be stored? What is urgent may have as much again: the disk takes it when it takes nothing else.
    fn has_room(&self, class: Precedence, bytes: usize) -> bool {
        let times = if class <= Precedence::Immediate { 2 } else { 1 };
        self.storing_bytes + bytes <= times * ENTRIES_STORING_BYTES_MAX
    }

    /// An entry is with the shell no more. Returns its class.
    fn settled(&mut self, number: Number) -> Option<Precedence> {
        let (class, len) = self.storing.remove(&number)?;
        self.storing_bytes -= len;
        if self.storing_bytes <= ENTRIES_STORING_BYTES_MAX / 2 {
            for (epoch, numbers) in std::mem::take(&mut self.no_room) {
                union_into(&mut self.to_ask, epoch, &numbers);
            }
        }
        Some(class)
    }

    /// Bounds what a peer can make this node remember about epochs.
    fn admit(&mut self, epoch: Epoch) -> Result<(), LinkError> {
        if !self.progress.contains_key(&epoch) && self.progress.len() >= EPOCHS_MAX {
            return Err(LinkError::Protocol("more epochs than a node can have had"));
        }
        self.progress.entry(epoch).or_default();
        Ok(())
    }

    fn tell_again(&mut self, epoch: Epoch, n: u64, now: Duration) {
        let Some(progress) = self.progress.get(&epoch) else { return };
        let untold = self.untold.entry(epoch).or_default();
        if progress.stored.contains(n) {
            untold.stored.insert(n);
        }
        for (outcome, _) in progress.outcomes.iter().filter(|(_, set)| set.contains(n)) {
            untold.outcomes.entry(*outcome).or_default().insert(n);
        }
        self.tell_within(RECEIPT_DELAY, now);
    }

    /// Takes a part of a large entry.
    pub(crate) fn fragment(
        &mut self,
        fragment: &Fragment,
        outbound: &dyn Outbound,
        now: Duration,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Vec<Arc<Entry>>, LinkError> {
        let number = (fragment.epoch, fragment.seq.get());
        if self.storing.contains_key(&number) {
            return Ok(Vec::new());
        }
        // One that is held may be another entry under the same number, of a peer that was restored: no receipt before it can be
        // compared.
        let begun = self.partial.take(&number).filter(|assembly| assembly.takes(&fragment.part));
        let mut assembly = begun.unwrap_or_else(|| Assembly::of(&fragment.part));
        assembly.add(&fragment.part);
        if !assembly.is_complete() {
            for (epoch, n) in self.partial.keep(number, assembly) {
                union_into(&mut self.to_ask, epoch, &RangeSet::from(n..=n));
            }
            return Ok(Vec::new());
        }
        let bytes = assembly.unpack(ENTRY_BYTES_MAX)?;
        let entry = wire::decode_entry(&bytes)?;
        if (entry.header.id.epoch, entry.header.id.seq.get()) != number {
            return Err(LinkError::Protocol("fragments of another entry than they say"));
        }
        Ok(match self.entry(entry, bytes, outbound, now, outputs)? {
            Arrival::New(entry) => vec![entry],
            Arrival::Known | Arrival::NoRoom => Vec::new(),
        })
    }

    /// Takes note of entries that will never come.
    pub(crate) fn skip(&mut self, skip: Skip, now: Duration, outputs: &mut VecDeque<Output>) -> Result<(), LinkError> {
        let Skip { epoch, outcome, ranges, after } = skip;
        // Quarantined: the peer's own copy was damaged before it could be sent.
        if !is_skip(outcome) && outcome != Outcome::Quarantined {
            return Err(LinkError::Protocol("a skip for an entry that was sent"));
        }
        self.admit(epoch)?;
        if outcome == Outcome::Purged {
            // What came of it before stays nowhere, not even in parts.
            self.partial.retain(|(of, n)| *of != epoch || !ranges.contains(*n));
        }
        let mut known = self.progress.get(&epoch).map(EpochProgress::known).unwrap_or_default();
        let again = ranges.intersection(&known);
        if !again.is_empty()
            && let Some(progress) = self.progress.get(&epoch)
        {
            let untold = self.untold.entry(epoch).or_default();
            untold.stored.union_with(&progress.stored.intersection(&again));
            for (outcome, set) in &progress.outcomes {
                untold.outcomes.entry(*outcome).or_default().union_with(&set.intersection(&again));
            }
            self.tell_within(RECEIPT_DELAY, now);
        }
        known.union_with(&self.accounting.get(&epoch).map(EpochProgress::known).unwrap_or_default());
        known.union_with(&self.storing.range((epoch, 0)..=(epoch, u64::MAX)).map(|((_, n), _)| *n).collect());
        let mut new = ranges.difference(&known);
        for (seq, (of, before)) in after {
            let n = seq.get();
            let Some(before) = self.blocked_by((of, before.get())).filter(|_| new.contains(n)) else { continue };
            let held = ((epoch, n), outcome);
            // A frame may come twice.
            if self.held_skips.get(&before).is_some_and(|skips| skips.contains(&held)) {
                new.remove(n);
            } else if self.skips_held < SKIPS_HELD_MAX {
                new.remove(n);
                self.held_skips.entry(before).or_default().insert(held);
                self.skips_held += 1;
            }
        }
        self.account(epoch, outcome, new, outputs);
        Ok(())
    }

    fn account(&mut self, epoch: Epoch, outcome: Outcome, numbers: RangeSet, outputs: &mut VecDeque<Output>) {
        if !numbers.is_empty() {
            self.accounting.entry(epoch).or_default().outcomes.entry(outcome).or_default().union_with(&numbers);
            outputs.push_back(Output::AccountSkipped { epoch, outcome, ranges: numbers });
        }
    }

    /// Compares hashes of what the peer says it sent.
    pub(crate) fn verify(&mut self, verify: &Verify, outbound: &dyn Outbound) -> Result<(), LinkError> {
        for (seq, theirs) in &verify.hashes {
            let id = EntryId { origin: self.peer, epoch: verify.epoch, seq: *seq };
            // What is not held any more cannot vouch for itself. Sending it again under a new number costs bytes;
            // believing it could cost an entry.
            let same = outbound.hash_of(id)?.is_some_and(|ours| short(ours) == *theirs);
            let sets = if same { &mut self.same } else { &mut self.different };
            sets.entry(verify.epoch).or_default().insert(seq.get());
        }
        Ok(())
    }

    pub(crate) fn stored(&mut self, ids: &[EntryId], now: Duration) {
        let peer = self.peer;
        for id in ids.iter().filter(|id| id.origin == peer) {
            let (epoch, n) = (id.epoch, id.seq.get());
            let class = self.settled((epoch, n));
            self.progress.entry(epoch).or_default().stored.insert(n);
            self.untold.entry(epoch).or_default().stored.insert(n);
            self.found(epoch, &RangeSet::from(n..=n));
            let urgent = class.is_some_and(|c| c <= Precedence::Immediate);
            self.tell_within(if urgent { RECEIPT_DELAY_URGENT } else { RECEIPT_DELAY }, now);
        }
    }

    pub(crate) fn not_stored(&mut self, ids: &[EntryId]) {
        for id in ids {
            self.settled((id.epoch, id.seq.get()));
        }
    }

    pub(crate) fn conflicts(&mut self, id: EntryId) {
        let (epoch, n) = (id.epoch, id.seq.get());
        self.settled((epoch, n));
        self.different.entry(epoch).or_default().insert(n);
    }

    pub(crate) fn finals(
        &mut self,
        epoch: Epoch,
        outcome: Outcome,
        ranges: &RangeSet,
        now: Duration,
        outputs: &mut VecDeque<Output>,
    ) {
        self.found(epoch, ranges);
        let progress = self.progress.entry(epoch).or_default();
        let new = ranges.difference(&progress.ended());
        if new.is_empty() {
            return;
        }
        progress.outcomes.entry(outcome).or_default().union_with(&new);
        self.untold.entry(epoch).or_default().outcomes.entry(outcome).or_default().union_with(&new);
        if let Some(waiting) = self.accounting.get_mut(&epoch).and_then(|p| p.outcomes.get_mut(&outcome)) {
            *waiting = waiting.difference(&new);
        }
        self.tell_within(RECEIPT_DELAY, now);
        self.release_skips(epoch, &new, outputs);
    }

    /// What a skip behind `before` must wait for: the entry there, or what it jumped over; `None` when all that has ended.
    fn blocked_by(&self, mut before: Number) -> Option<Number> {
        while self.progress.get(&before.0).is_some_and(|p| p.has_ended(before.1)) {
            // Whether it jumped is not known yet: it may have.
            let Some(jumped) = &self.jumped else { return Some(before) };
            // What was jumped over is older.
            before = jumped.get(&before).copied().filter(|over| *over < before)?;
        }
        Some(before)
    }

    /// All entries of the peer that took effect before their turn, with what they jumped over where that has not ended.
    pub(crate) fn jumped(&mut self, jumped: BTreeMap<Number, Number>, outputs: &mut VecDeque<Output>) {
        if self.jumped.replace(jumped).is_none() {
            let waited_for: Vec<Number> = self.held_skips.keys().copied().collect();
            self.release(waited_for, outputs);
        }
    }

    /// Skips that waited for these to end count now, unless these jumped over others.
    fn release_skips(&mut self, epoch: Epoch, ended: &RangeSet, outputs: &mut VecDeque<Output>) {
        let in_range = |range: std::ops::RangeInclusive<u64>| {
            let waited_for = self.held_skips.range((epoch, *range.start())..=(epoch, *range.end()));
            waited_for.map(|(number, _)| *number).collect::<Vec<Number>>()
        };
        let waited_for: Vec<Number> = ended.iter().flat_map(in_range).collect();
        self.release(waited_for, outputs);
    }

    fn release(&mut self, waited_for: Vec<Number>, outputs: &mut VecDeque<Output>) {
        for number in waited_for {
            let released = self.held_skips.remove(&number).unwrap_or_default();
            self.skips_held -= released.len();
            if let Some(before) = self.blocked_by(number) {
                let held = self.held_skips.entry(before).or_default();
                self.skips_held += released.into_iter().filter(|skip| held.insert(*skip)).count();
                continue;
            }
            for ((epoch, n), outcome) in released {
                let is_known = self.progress.get(&epoch).is_some_and(|p| p.knows(n));
                if !is_known {
                    self.account(epoch, outcome, RangeSet::from(n..=n), outputs);
                }
            }
        }
    }

    fn tell_within(&mut self, delay: Duration, now: Duration) {
        let at = now + delay;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.tell = true;
        }
    }

    /// Part of the greeting: offsets, then everything held. `None` when all is told.
    pub(crate) fn next_greeting(&mut self, parts: &mut u32, bytes_max: usize) -> Option<Frame> {
        if let Some(resume) = self.resumes.pop() {
            return Some(Frame::Resume(resume));
        }
        self.sort_claims();
        let receipt = self.next_claim(*parts + 1, bytes_max).or_else(|| self.next_receipt(*parts + 1, bytes_max))?;
        *parts += 1;
        Some(receipt)
    }

    pub(crate) fn has_control(&self) -> bool {
        self.has_verdict() || self.tell || !self.claims.is_empty() || self.to_ask.values().any(|set| !set.is_empty())
    }

    fn has_verdict(&self) -> bool {
        self.same.values().chain(self.different.values()).any(|set| !set.is_empty())
    }

    pub(crate) fn next_control(&mut self, bytes_max: usize) -> Option<Frame> {
        if self.has_verdict() {
            let half = (bytes_max - SET_OVERHEAD) / 2;
            let mut verdict = None;
            for (sets, is_same) in [(&mut self.same, true), (&mut self.different, false)] {
                let Some((epoch, set)) = take_epoch(sets, half, RANGES_PER_FRAME) else { continue };
                let empty = || Verdict { epoch, same: RangeSet::new(), different: RangeSet::new() };
                let verdict = verdict.get_or_insert_with(empty);
                if verdict.epoch != epoch {
                    sets.entry(epoch).or_default().union_with(&set);
                } else if is_same {
                    verdict.same = set;
                } else {
                    verdict.different = set;
                }
            }
            return verdict.map(Frame::Verdict);
        }
        if let Some((epoch, numbers)) = take_epoch(&mut self.to_ask, bytes_max - SET_OVERHEAD, RANGES_PER_FRAME) {
            return Some(Frame::Again(Numbers { epoch, numbers }));
        }
        if self.tell {
            self.sort_claims();
        }
        if let Some(claim) = self.next_claim(0, bytes_max) {
            return Some(claim);
        }
        if !self.tell {
            return None;
        }
        let receipt = self.next_receipt(0, bytes_max);
        if self.untold.values().all(EpochProgress::is_empty) {
            (self.tell, self.due) = (false, None);
        }
        receipt
    }

    /// Everything held of the peer's entries, for a parcel.
    pub(crate) fn everything(&self) -> Vec<Frame> {
        let mut copy = Self::new(self.peer, ReceiverState { progress: self.progress.clone() });
        copy.came.clone_from(&self.came);
        copy.refused.clone_from(&self.refused);
        copy.untold.clone_from(&self.progress);
        copy.claims = copy.refusals();
        copy.sort_claims();
        let next = || copy.next_claim(0, FRAME_BYTES_MAX).or_else(|| copy.next_receipt(0, FRAME_BYTES_MAX));
        std::iter::from_fn(next).collect()
    }

    pub(crate) fn restore_came(&mut self, came: ByBoot) {
        self.came = came;
    }

    pub(crate) fn came(&self) -> &ByBoot {
        &self.came
    }

    pub(crate) fn all_storing(&self) -> Vec<EntryId> {
        let id = |(epoch, n): &Number| Some(EntryId { origin: self.peer, epoch: *epoch, seq: Seq::new(*n)? });
        self.storing.keys().filter_map(id).collect()
    }

    pub(crate) fn is_storing(&self, id: EntryId) -> bool {
        self.storing.contains_key(&(id.epoch, id.seq.get()))
    }

    pub(crate) fn holds(&self, id: EntryId) -> bool {
        self.progress.get(&id.epoch).is_some_and(|progress| progress.stored.contains(id.seq.get()))
    }

    pub(crate) fn carrying(&mut self, boot: Option<u64>) {
        self.carrying = boot;
    }

    /// A new entry: which way did it come?
    fn note_path(&mut self, epoch: Epoch, n: u64) {
        match self.carrying {
            Some(boot) => drop(self.came.entry(boot).or_default().entry(epoch).or_default().insert(n)),
            None => self.proven(epoch, n),
        }
    }

    /// What a link brought is what the peer of today means by the number.
    fn proven(&mut self, epoch: Epoch, n: u64) {
        for sets in self.came.values_mut() {
            if let Some(set) = sets.get_mut(&epoch) {
                set.remove(n);
            }
        }
    }

    /// An entry came once more; `same` when that could be compared.
    fn met_again(&mut self, epoch: Epoch, n: u64, same: bool) {
        if !same {
            return;
        }
        match self.carrying {
            Some(_) => {
                let in_parcel = self.came.values().any(|sets| sets.get(&epoch).is_some_and(|set| set.contains(n)));
                if in_parcel {
                    self.note_path(epoch, n);
                }
            }
            None => self.proven(epoch, n),
        }
    }

    fn differs(&mut self, epoch: Epoch, n: u64) {
        match self.carrying {
            Some(boot) => {
                self.refused.entry(boot).or_default().entry(epoch).or_default().insert(n);
                self.claims.entry((boot, epoch)).or_default().1.insert(n);
            }
            None => drop(self.different.entry(epoch).or_default().insert(n)),
        }
    }

    fn refusals(&self) -> BTreeMap<(u64, Epoch), (EpochProgress, RangeSet)> {
        let sets =
            self.refused.iter().flat_map(|(boot, sets)| sets.iter().map(move |(epoch, set)| (*boot, *epoch, set)));
        sets.map(|(boot, epoch, set)| ((boot, epoch), (EpochProgress::default(), set.clone()))).collect()
    }

    /// Takes what came in parcels out of the receipts to tell.
    fn sort_claims(&mut self) {
        for (epoch, untold) in &mut self.untold {
            let mut carried = RangeSet::new();
            for (boot, sets) in &self.came {
                let Some(set) = sets.get(epoch) else { continue };
                let part = untold.intersection(set);
                if !part.is_empty() {
                    self.claims.entry((*boot, *epoch)).or_default().0.union_with(&part);
                    carried.union_with(set);
                }
            }
            untold.remove(&carried);
        }
    }

    fn next_claim(&mut self, part: u32, bytes_max: usize) -> Option<Frame> {
        let mut first = self.claims.first_entry()?;
        let (boot, epoch) = *first.key();
        let mut left = bytes_max.saturating_sub(SET_OVERHEAD + 10);
        let mut fit = |set: &mut RangeSet| {
            let piece = take_fitting(set, left, RANGES_PER_FRAME);
            left = left.saturating_sub(set_len(&piece) + 1);
            piece
        };
        let (progress, refused) = first.get_mut();
        let (stored, refused_piece) = (fit(&mut progress.stored), fit(refused));
        let mut outcomes = Vec::new();
        for (outcome, set) in &mut progress.outcomes {
            let piece = fit(set);
            if !piece.is_empty() {
                outcomes.push((*outcome, piece));
            }
        }
        if progress.is_empty() && refused.is_empty() {
            first.remove();
        }
        Some(Frame::Claim(Claim { part, boot, epoch, stored, outcomes, refused: refused_piece }))
    }

    fn next_receipt(&mut self, part: u32, bytes_max: usize) -> Option<Frame> {
        self.untold.retain(|_, untold| !untold.is_empty());
        let (epoch, untold) = self.untold.iter_mut().next()?;
        let mut left = bytes_max - SET_OVERHEAD;
        let mut fit = |set: &mut RangeSet| {
            let piece = take_fitting(set, left, RANGES_PER_FRAME);
            left = left.saturating_sub(set_len(&piece) + 1);
            piece
        };
        let stored = fit(&mut untold.stored);
        let mut outcomes = Vec::new();
        for (outcome, set) in &mut untold.outcomes {
            let piece = fit(set);
            if !piece.is_empty() {
                outcomes.push((*outcome, piece));
            }
        }
        Some(Frame::Receipt(Receipt { part, epoch: *epoch, stored, outcomes }))
    }
}
