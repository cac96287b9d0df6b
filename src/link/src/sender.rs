//! The sending half: own entries, what the peer made of them, and what goes next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use model::{
    EntryId, Epoch, Event, Header, Hlc, Kind, Label, LocalPos, NodeId, Outbound, OutboundError, Outcome, Outgoing,
    Precedence, RangeSet, Seq,
};
use wire::frame::{
    BATCH_BYTES_MAX, ByeCode, Claim, Fragment, HistoryHeld, Numbers, PART_OVERHEAD, Packed, Receipt, Resume, Skip,
    Verdict, Verify,
};
use wire::{Frame, pack_batch};

use crate::history::Offers;
use crate::limits::{
    EARLY_ENTRIES_MAX, KEPT_IN_FLIGHT_MAX, PULL_MAX, RANGES_PER_FRAME, READ_AHEAD_BYTES, RESUMES_MAX, WINDOW_ENTRIES,
    WINDOW_URGENT_EXTRA,
};
use crate::output::{LinkEvent, Output, StartEpochReason};
use crate::parcel::ByBoot;
use crate::progress::{EpochProgress, is_skip, take_epoch, take_fitting, union_into};
use crate::sent::{Packing, SentSoFar};
use crate::session::{Now, SenderState};

/// Number of an own entry.
type Number = (Epoch, u64);

/// Skipped entries and what stands before each.
type Places = Vec<(Seq, (Epoch, Seq))>;

#[derive(Debug)]
pub(crate) struct Sender {
    me: NodeId,
    labels: BTreeSet<Label>,
    compression: i32,
    /// Own epochs and their last number.
    epochs: BTreeMap<Epoch, u64>,
    /// What the peer made of own entries, as recorded.
    progress: BTreeMap<Epoch, EpochProgress>,
    /// Numbers whose entries this process has sent, on any connection: a claim of them needs no proof.
    sent_here: BTreeMap<Epoch, RangeSet>,
    /// Before the peer has told what it holds: how many more entries may go all the same.
    early: Option<usize>,
    /// Numbers whose entries went so early, or that the peer had claimed before. A claim of them needs proof: another entry may once
    /// have had the number.
    sent_early: BTreeMap<Epoch, RangeSet>,
    /// Own epochs and their last number when this session was made: what the process before may have sent.
    found: BTreeMap<Epoch, u64>,
    /// Sent on this connection and not receipted.
    in_flight: BTreeMap<Number, InFlight>,
    queues: [Queue; 5],
    scan_from: LocalPos,
    /// The large entry under way in each class.
    cutting: [Option<Cutting>; 5],
    /// Where the peer's copies of large entries end, from its greeting.
    resumes: BTreeMap<Number, Resume>,
    /// Skips to tell.
    skips: BTreeMap<(Epoch, Outcome), RangeSet>,
    /// Beyond the own numbers as this session knows them, and not at the peer, which has later ones: to be looked up.
    holes: BTreeMap<Epoch, RangeSet>,
    /// Told or to be told, with nothing before them in their place that the peer may still have to apply.
    free: BTreeMap<Epoch, RangeSet>,
    /// Skips decided and not yet given to the shell.
    decided: BTreeMap<(Epoch, Outcome), RangeSet>,
    /// What the peer claims, while it greets.
    claims: BTreeMap<Epoch, EpochProgress>,
    /// Numbers beyond the own ones that the peer claimed, from the first to the last: what is captured under one of these before
    /// the next epoch begins is another entry.
    claimed_beyond: BTreeMap<Epoch, (u64, u64)>,
    /// Claims without proof, to ask about.
    ask: BTreeMap<Epoch, RangeSet>,
    /// Claims without proof: neither sent nor counted meanwhile.
    doubtful: BTreeMap<Epoch, RangeSet>,
    /// How doubtful numbers ended, by the peer's word; counted once proven.
    doubtful_outcomes: BTreeMap<Epoch, BTreeMap<Outcome, RangeSet>>,
    /// Numbers whose entries the journal cannot give any more, by how they end. Told, and counted once the peer
    /// confirms: it may hold what was sent before.
    lost: BTreeMap<(Epoch, Outcome), RangeSet>,
    /// Numbers that the peer lost before it used them, to be looked up: what is held is sent once more, whatever its
    /// receipts said, and what is not becomes a skip. Receipts stay as they are.
    lost_there: BTreeMap<Epoch, RangeSet>,
    /// Of these, what waits in a queue.
    resend: BTreeSet<Number>,
    /// Of these, what was sent and is not receipted once more.
    resent: BTreeSet<Number>,
    /// Nothing is sent until the open epoch is at least this.
    wait_for_epoch: Option<Epoch>,
    /// The last epoch that was asked for because of this peer, which cannot hold anything of it that was not sent to it since.
    moved_to: Option<Epoch>,
    /// How often one was.
    moves: u32,
    /// Entries that were under way when the last connection ended.
    again: usize,
    /// What was sent, by class.
    packing: [Packing; 5],
    /// Plain bytes that were sent for the first time.
    first_bytes: u64,
    /// How much of the large entry that each class cut last was ever sent.
    cut_most: [Option<(Number, u64)>; 5],
    /// What batches may refer to.
    offers: Offers,
    /// Numbers that went into parcels, by the start of this node's process that wrote them: as the journal of the time
    /// knew them. A claim of them is believed for the same start only.
    in_parcels: ByBoot,
    /// Labels of what was put into frames, for a planner.
    labels_used: BTreeSet<Label>,
}

#[derive(Debug)]
struct InFlight {
    pos: LocalPos,
    class: Precedence,
    sent_at: Duration,
    captured: Hlc,
    /// The history that its batch referred to.
    history: Option<u8>,
    /// For a history, once it is acknowledged.
    kept: Option<Outgoing>,
}

#[derive(Debug)]
struct Queue {
    /// Where reading ahead continues.
    next: LocalPos,
    ahead: VecDeque<Outgoing>,
    /// The journal had no more at the last look.
    dry: bool,
}

/// A large entry cut into fragments.
#[derive(Debug)]
struct Cutting {
    entry: Outgoing,
    packed: Packed,
    offset: u32,
}

/// What to do with an own entry.
enum Fate {
    /// The peer has it, gets it, or will never get it.
    Settled,
    Skip(Outcome),
    Send,
}

impl Sender {
    pub(crate) fn new(me: NodeId, labels: BTreeSet<Label>, compression: i32, state: SenderState) -> Self {
        let (next, found) = (state.scan_from, state.epochs.clone());
        Self {
            me,
            labels,
            compression,
            epochs: state.epochs,
            progress: state.progress,
            sent_here: BTreeMap::new(),
            early: None,
            sent_early: BTreeMap::new(),
            found,
            in_flight: BTreeMap::new(),
            queues: std::array::from_fn(|_| Queue { next, ahead: VecDeque::new(), dry: false }),
            scan_from: next,
            cutting: [const { None }; 5],
            resumes: BTreeMap::new(),
            skips: BTreeMap::new(),
            free: BTreeMap::new(),
            holes: BTreeMap::new(),
            decided: BTreeMap::new(),
            claims: BTreeMap::new(),
            ask: BTreeMap::new(),
            claimed_beyond: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            doubtful_outcomes: BTreeMap::new(),
            lost: BTreeMap::new(),
            lost_there: BTreeMap::new(),
            resend: BTreeSet::new(),
            resent: BTreeSet::new(),
            wait_for_epoch: None,
            moved_to: None,
            moves: 0,
            again: 0,
            packing: [Packing::default(); 5],
            first_bytes: 0,
            cut_most: [None; 5],
            offers: Offers::new(me),
            in_parcels: ByBoot::new(),
            labels_used: BTreeSet::new(),
        }
    }

    pub(crate) fn set_labels(&mut self, labels: BTreeSet<Label>) {
        self.labels = labels;
    }

    pub(crate) fn appended(&mut self) {
        self.queues.iter_mut().for_each(|q| q.dry = false);
    }

    pub(crate) fn own_epoch(&mut self, epoch: Epoch, last: u64) {
        let known = self.epochs.entry(epoch).or_default();
        *known = (*known).max(last);
        if self.wait_for_epoch.is_some_and(|wanted| epoch >= wanted) {
            self.wait_for_epoch = None;
        }
    }

    /// The open epoch and its last number.
    pub(crate) fn open_epoch(&self) -> (Epoch, u64) {
        self.epochs.last_key_value().map_or((Epoch::FIRST, 0), |(epoch, last)| (*epoch, *last))
    }

    /// A connection is there: what was never sent need not wait for the peer's greeting.
    pub(crate) fn connected(&mut self) {
        self.early = Some(EARLY_ENTRIES_MAX);
    }

    /// The connection is gone: what was under way is read again from where it stands in the journal.
    pub(crate) fn disconnected(&mut self) {
        self.early = None;
        self.again = self.in_flight.len();
        let mut back = self.queues.each_ref().map(|q| q.next);
        let queued = self.queues.iter().flat_map(|q| &q.ahead).map(|o| (o.pos, o.entry.header.precedence));
        let cut = self.cutting.iter().flatten().map(|c| (c.entry.pos, c.entry.entry.header.precedence));
        let flying = self.in_flight.values().map(|f| (f.pos, f.class));
        for (pos, class) in queued.chain(cut).chain(flying) {
            back[class.index()] = back[class.index()].min(pos);
        }
        if self.doubtful.values().any(|set| !set.is_empty()) {
            back = [self.scan_from; 5];
        }
        for (queue, next) in self.queues.iter_mut().zip(back) {
            *queue = Queue { next, ahead: VecDeque::new(), dry: false };
        }
        self.cutting = [const { None }; 5];
        self.in_flight.clear();
        self.resumes.clear();
        self.skips.clear();
        self.claims.clear();
        self.ask.clear();
        self.doubtful.clear();
        self.doubtful_outcomes.clear();
        // Asked for again over the next connection.
        self.lost_there.clear();
        self.resend.clear();
        self.resent.clear();
    }

    /// The peer lost these before it used them.
    pub(crate) fn asked_again(&mut self, lost: &Numbers, outputs: &mut VecDeque<Output>) {
        let epoch = lost.epoch;
        let Some(last) = self.epochs.get(&epoch).filter(|last| **last > 0) else { return };
        let mut ranges = lost.numbers.intersection(&RangeSet::from(1..=*last));
        // One whose parts are still leaving begins anew.
        for cutting in self.cutting.iter_mut().flatten() {
            let id = cutting.entry.entry.header.id;
            if id.epoch == epoch && ranges.contains(id.seq.get()) {
                cutting.offset = 0;
                ranges.remove(id.seq.get());
            }
        }
        if !ranges.is_empty() {
            // Whatever of it is under way, the peer has no use for it.
            self.in_flight.retain(|(of, n), _| *of != epoch || !ranges.contains(*n));
            union_into(&mut self.lost_there, epoch, &ranges);
            outputs.push_back(Output::Event(LinkEvent::AskedAgain { epoch, ranges }));
        }
    }

    /// Puts what is to be sent again into the queues, a few at a time.
    fn queue_again(&mut self, outbound: &dyn Outbound) -> Result<(), OutboundError> {
        while self.resend.len() < RESEND_MAX {
            let Some((epoch, n)) = self.lost_there.iter().find_map(|(e, set)| Some((*e, set.first()?))) else { break };
            if let Some(set) = self.lost_there.get_mut(&epoch) {
                set.remove(n);
            }
            if self.in_flight.contains_key(&(epoch, n)) || self.resend.contains(&(epoch, n)) {
                continue;
            }
            let found = self.id(epoch, n).map(|id| outbound.entry(id)).transpose()?.flatten();
            match found {
                Some(entry) if self.releases(&entry.entry.header.label) => {
                    self.resend.insert((epoch, n));
                    self.queues[entry.entry.header.precedence.index()].ahead.push_front(entry);
                }
                Some(_) => drop(self.skips.entry((epoch, Outcome::Withheld)).or_default().insert(n)),
                None => {
                    let told = Outcome::ALL.into_iter().find(|outcome| {
                        let recorded = self.progress.get(&epoch).and_then(|p| p.outcomes.get(outcome));
                        let lost = self.lost.get(&(epoch, *outcome));
                        let knows = |set: Option<&RangeSet>| set.is_some_and(|set| set.contains(n));
                        (is_skip(*outcome) && knows(recorded)) || knows(lost)
                    });
                    self.skips.entry((epoch, told.unwrap_or(Outcome::Quarantined))).or_default().insert(n);
                }
            }
        }
        self.lost_there.retain(|_, set| !set.is_empty());
        Ok(())
    }

    /// Both sides have told what they hold.
    pub(crate) fn resume(&mut self, peer_restarted: bool, outputs: &mut VecDeque<Output>) {
        let claims = std::mem::take(&mut self.claims);
        let none = EpochProgress::default();
        self.early = None;
        for (epoch, sent) in &mut self.sent_early {
            let known_there = claims.get(epoch).unwrap_or(&none).known();
            union_into(&mut self.sent_here, *epoch, &sent.difference(&known_there));
            *sent = sent.intersection(&known_there);
        }
        let mut rewind = false;
        for (epoch, progress) in &mut self.progress {
            let claimed = claims.get(epoch).unwrap_or(&none);
            let known_there = claimed.known();
            for (outcome, set) in progress.outcomes.iter().filter(|(o, _)| is_skip(**o)) {
                let untold = set.difference(&known_there);
                if !untold.is_empty() {
                    self.skips.entry((*epoch, *outcome)).or_default().union_with(&untold);
                }
            }
            let forgot = progress.stored.difference(&known_there);
            if peer_restarted && !forgot.is_empty() {
                progress.stored = progress.stored.difference(&forgot);
                for (_, set) in progress.outcomes.iter_mut().filter(|(o, _)| !is_skip(**o)) {
                    *set = set.difference(&forgot);
                }
                rewind = true;
                outputs.push_back(Output::Event(LinkEvent::PeerForgot { epoch: *epoch, ranges: forgot }));
            }
        }
        // Numbers that this node gave out before it was restored from a snapshot, and that the peer does not have either,
        // never come: nothing there may wait for them.
        for (epoch, claim) in &claims {
            let (last, known) = (self.epochs.get(epoch).copied().unwrap_or(0), claim.known());
            if let Some(highest) = known.last().filter(|highest| *highest > last) {
                let holes = RangeSet::from(last + 1..=highest).difference(&known);
                // A peer may claim any number; one that was restored forgot minutes or days.
                self.holes.insert(*epoch, holes.numbers().take(HOLES_MAX).collect());
            }
        }
        for ((epoch, outcome), lost) in &self.lost {
            let mut known = claims.get(epoch).unwrap_or(&none).known();
            known.union_with(&self.progress.get(epoch).unwrap_or(&none).known());
            self.skips.entry((*epoch, *outcome)).or_default().union_with(&lost.difference(&known));
        }
        if rewind {
            self.scan_from = LocalPos::START;
            for queue in &mut self.queues {
                *queue = Queue { next: LocalPos::START, ahead: VecDeque::new(), dry: false };
            }
        }
        self.offers.resume(peer_restarted);
        outputs.push_back(Output::Event(LinkEvent::Resumed { again: std::mem::take(&mut self.again) }));
    }

    /// The journal cannot give these numbers any more. While a connection is up they are told on it, else on the next.
    pub(crate) fn lost(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet, is_up: bool) {
        let lost = self.lost.entry((epoch, outcome)).or_default();
        let new = numbers.difference(lost);
        lost.union_with(&new);
        if outcome == Outcome::Purged {
            self.offers.purged(epoch, numbers);
            let is_gone = |o: &Outgoing| {
                let id = o.entry.header.id;
                id.epoch == epoch && numbers.contains(id.seq.get())
            };
            self.queues.iter_mut().for_each(|queue| queue.ahead.retain(|o| !is_gone(o)));
            for cutting in &mut self.cutting {
                if cutting.as_ref().is_some_and(|cutting| is_gone(&cutting.entry)) {
                    *cutting = None;
                }
            }
        }
        if is_up {
            let mut settled = self.progress.get(&epoch).map(EpochProgress::known).unwrap_or_default();
            settled.union_with(&self.in_flight.range((epoch, 0)..=(epoch, u64::MAX)).map(|((_, n), _)| *n).collect());
            self.doubtful.get(&epoch).into_iter().for_each(|set| settled.union_with(set));
            self.skips.entry((epoch, outcome)).or_default().union_with(&new.difference(&settled));
        }
    }

    pub(crate) fn resume_at(&mut self, resume: Resume) {
        if self.resumes.len() < RESUMES_MAX {
            self.resumes.insert((resume.epoch, resume.seq.get()), resume);
        }
    }

    /// What the peer says it holds.
    pub(crate) fn receipt(
        &mut self,
        receipt: Receipt,
        outbound: &dyn Outbound,
        now: Now,
        outputs: &mut VecDeque<Output>,
    ) -> Result<(), OutboundError> {
        let Receipt { part, epoch, stored, outcomes } = receipt;
        let mut claim = EpochProgress { stored, outcomes: BTreeMap::new() };
        for (outcome, set) in outcomes {
            claim.outcomes.entry(outcome).or_default().union_with(&set);
        }
        let (open, open_last) = self.open_epoch();
        let highest = claim.known().last().unwrap_or(0);
        if epoch > open || (epoch == open && highest > open_last) {
            self.peer_is_ahead(epoch, outputs);
        }
        if part > 0 && (self.epochs.contains_key(&epoch) || self.claims.len() < self.epochs.len() + EPOCHS_AHEAD_MAX) {
            self.claims.entry(epoch).or_default().union_with(&claim);
        }
        if let Some(last) = self.epochs.get(&epoch)
            && highest > *last
        {
            let (_, through) = self.claimed_beyond.entry(epoch).or_insert((last + 1, highest));
            *through = highest.max(*through);
        }
        // What lies beyond the own numbers is none of ours, whatever stands there.
        let Some(last) = self.epochs.get(&epoch).copied().filter(|last| *last > 0) else { return Ok(()) };
        let ours = RangeSet::from(1..=last);
        self.receipted_again(epoch, &claim.known());
        let known = self.progress.entry(epoch).or_default().known();

        // Holding it, or having ended it otherwise than by our skip, means having received it.
        let mut received = claim.stored.intersection(&ours);
        for (outcome, set) in &claim.outcomes {
            if !is_skip(*outcome) {
                let told = self.lost.get(&(epoch, *outcome)).cloned().unwrap_or_default();
                let told = told.difference(self.sent_here.entry(epoch).or_default());
                received.union_with(&set.intersection(&ours).difference(&told));
            }
        }
        let fresh = received.difference(&known);
        let proven = fresh.intersection(self.sent_here.entry(epoch).or_default());
        let doubtful = fresh.difference(&proven);
        self.record_stored(epoch, &proven, now, outputs);
        if !doubtful.is_empty() {
            let already = self.doubtful.entry(epoch).or_default();
            self.ask.entry(epoch).or_default().union_with(&doubtful.difference(already));
            already.union_with(&doubtful);
        }

        let mut conflicts = RangeSet::new();
        for (outcome, set) in claim.outcomes {
            let set = set.intersection(&ours);
            let later = set.intersection(self.doubtful.entry(epoch).or_default());
            if !later.is_empty() {
                let stash = self.doubtful_outcomes.entry(epoch).or_default();
                stash.entry(outcome).or_default().union_with(&later);
            }
            let mut certain = set.difference(&later);
            if is_skip(outcome) {
                // A skip that is not on record here: told by a process that ended before it could record it, or about
                // another entry that once had the number.
                let unknown = certain.difference(&self.progress.entry(epoch).or_default().known());
                for n in unknown.numbers() {
                    if !self.would_skip(epoch, n, outcome, outbound, now)? {
                        conflicts.insert(n);
                    }
                }
                certain = certain.difference(&conflicts);
            }
            self.record_outcome(epoch, outcome, &certain, outputs);
        }
        self.conflict(epoch, &conflicts, outputs);
        Ok(())
    }

    /// What was sent once more changes no record; it only leaves the window.
    fn receipted_again(&mut self, epoch: Epoch, numbers: &RangeSet) {
        let numbers = |number: &Number| number.0 == epoch && numbers.contains(number.1);
        for number in self.resent.extract_if(.., numbers) {
            self.in_flight.remove(&number);
        }
    }

    /// May the peer have been told so of this very entry?
    fn would_skip(
        &self,
        epoch: Epoch,
        n: u64,
        outcome: Outcome,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<bool, OutboundError> {
        let Some(id) = self.id(epoch, n) else { return Ok(true) };
        let Some(entry) = outbound.entry(id)? else { return Ok(true) };
        // By a process that did not live to record it, whose clock was ahead. A new number would bring the entry to every peer,
        // also to those that used it, and behind what needed it.
        let was_there = self.found.get(&epoch).is_some_and(|last| n <= *last);
        if outcome == Outcome::Expired && was_there && entry.entry.header.expiry.is_some() {
            return Ok(true);
        }
        Ok(match self.fate(&entry, outbound, now) {
            Fate::Skip(_) => true,
            Fate::Send | Fate::Settled => false,
        })
    }

    /// The peer compared hashes.
    pub(crate) fn verdict(&mut self, verdict: &Verdict, now: Now, outputs: &mut VecDeque<Output>) {
        let epoch = verdict.epoch;
        if !self.epochs.contains_key(&epoch) {
            return;
        }
        let doubtful = self.doubtful.entry(epoch).or_default();
        let same = verdict.same.intersection(doubtful);
        let mut different = verdict.different.intersection(doubtful);
        *doubtful = doubtful.difference(&same).difference(&different);
        self.record_stored(epoch, &same, now, outputs);
        let stash = self.doubtful_outcomes.remove(&epoch).unwrap_or_default();
        for (outcome, set) in stash {
            self.record_outcome(epoch, outcome, &set.intersection(&same), outputs);
            let rest = set.difference(&same).difference(&different);
            if !rest.is_empty() {
                self.doubtful_outcomes.entry(epoch).or_default().insert(outcome, rest);
            }
        }
        let flying = self.in_flight.range((epoch, 0)..=(epoch, u64::MAX)).map(|((_, n), _)| *n);
        let flying: RangeSet = flying.filter(|n| verdict.different.contains(*n)).collect();
        different.union_with(&flying);
        self.conflict(epoch, &different, outputs);
    }

    /// Numbers that mean something else at the peer: they end here, and their entries get new numbers.
    fn conflict(&mut self, epoch: Epoch, numbers: &RangeSet, outputs: &mut VecDeque<Output>) {
        let ids: Vec<EntryId> = numbers.numbers().filter_map(|n| self.id(epoch, n)).collect();
        if ids.is_empty() {
            return;
        }
        // Numbers of before the last move are in doubt for the same reason as the others: their entries follow there.
        let after = match self.moved_to {
            Some(moved) if epoch < moved => Epoch(moved.0 - 1),
            Some(_) | None => self.open_epoch().0,
        };
        let Some(at_least) = self.move_behind(after, outputs) else { return };
        for n in numbers.numbers() {
            self.in_flight.remove(&(epoch, n));
        }
        self.record_outcome(epoch, Outcome::Superseded, numbers, outputs);
        outputs.push_back(Output::StartEpoch { reason: StartEpochReason::Conflict, at_least, reissue: ids });
    }

    /// The peer knows numbers up to this epoch that were never given out.
    fn peer_is_ahead(&mut self, epoch: Epoch, outputs: &mut VecDeque<Output>) {
        // While a move is under way, another claim asks for no other epoch.
        if self.wait_for_epoch > Some(epoch) {
            return;
        }
        if let Some(at_least) = self.move_behind(epoch, outputs) {
            let (reason, reissue) = (StartEpochReason::PeerIsAhead, Vec::new());
            outputs.push_back(Output::StartEpoch { reason, at_least, reissue });
        }
    }

    /// Nothing is sent before an epoch behind `after` is open. Returns which, or `None` when that was asked for too often.
    fn move_behind(&mut self, after: Epoch, outputs: &mut VecDeque<Output>) -> Option<Epoch> {
        let next = Epoch(after.0.saturating_add(1));
        let at_least = self.wait_for_epoch.map_or(next, |waiting| waiting.max(next));
        if self.moved_to < Some(at_least) {
            if self.moves >= MOVES_MAX {
                let text =
                    "the peer denies again and again what it was sent; it may be damaged or not what it says it is";
                outputs.push_back(Output::Close { code: ByeCode::Protocol, text: text.to_owned() });
                return None;
            }
            self.moves += 1;
            self.moved_to = Some(at_least);
        }
        self.wait_for_epoch = Some(at_least);
        Some(at_least)
    }

    fn id(&self, epoch: Epoch, n: u64) -> Option<EntryId> {
        Seq::new(n).map(|seq| EntryId { origin: self.me, epoch, seq })
    }

    fn record_stored(&mut self, epoch: Epoch, numbers: &RangeSet, now: Now, outputs: &mut VecDeque<Output>) {
        let progress = self.progress.entry(epoch).or_default();
        let new = numbers.difference(&progress.known());
        if new.is_empty() {
            return;
        }
        progress.stored.union_with(&new);
        for range in new.iter() {
            let keys: Vec<Number> =
                self.in_flight.range((epoch, *range.start())..=(epoch, *range.end())).map(|(k, _)| *k).collect();
            for key in keys {
                let Some(flown) = self.in_flight.remove(&key) else { continue };
                flown.kept.iter().for_each(|entry| self.offers.acknowledged(entry));
                if let (true, Some(id)) = (is_urgent(flown.class), self.id(key.0, key.1)) {
                    let after = now.mono.saturating_sub(flown.sent_at);
                    let (class, captured) = (flown.class, flown.captured);
                    outputs.push_back(Output::Event(LinkEvent::UrgentStored { id, class, after, captured }));
                }
            }
        }
        outputs.push_back(Output::RecordStored { epoch, ranges: new });
    }

    fn record_outcome(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet, outputs: &mut VecDeque<Output>) {
        let progress = self.progress.entry(epoch).or_default();
        // The first end is the end.
        let new = numbers.difference(&progress.ended());
        if !new.is_empty() {
            progress.outcomes.entry(outcome).or_default().union_with(&new);
            outputs.push_back(Output::RecordOutcome { epoch, outcome, ranges: new });
        }
    }

    fn fate(&self, o: &Outgoing, outbound: &dyn Outbound, now: Now) -> Fate {
        let h = &o.entry.header;
        let (epoch, n) = (h.id.epoch, h.id.seq.get());
        if self.resend.contains(&(epoch, n)) {
            return Fate::Send;
        }
        if self.is_settled(epoch, n) {
            return Fate::Settled;
        }
        if h.label == Label::local() || !self.labels.contains(&h.label) {
            // A purge goes wherever what it purges went, whatever may go there by now.
            if h.kind != Kind::Purge || !self.has_what_it_purges(o) {
                return Fate::Skip(Outcome::Withheld);
            }
        }
        // What was sent once may be stored at the peer without our knowing: only a receipt ends it.
        if self.may_be_there(epoch, n) {
            return Fate::Send;
        }
        if h.expiry.is_some_and(|expiry| expiry <= now.wall) {
            return Fate::Skip(Outcome::Expired);
        }
        if h.supersedes.is_some() && outbound.superseded(o) {
            return Fate::Skip(Outcome::Superseded);
        }
        Fate::Send
    }

    /// Was it ever sent, as far as this process knows?
    fn may_be_there(&self, epoch: Epoch, n: u64) -> bool {
        let holds = |sets: &BTreeMap<Epoch, RangeSet>| sets.get(&epoch).is_some_and(|set| set.contains(n));
        holds(&self.sent_here) || holds(&self.sent_early) || self.in_parcels.values().any(holds)
    }

    /// Did the peer get any own entry that this order is about?
    fn has_what_it_purges(&self, o: &Outgoing) -> bool {
        let Ok(Event::Purge(order)) = wire::decode_event(&o.entry) else { return false };
        let mut own = order.entries.iter().filter(|entries| entries.origin == self.me);
        own.any(|entries| {
            let Some(progress) = self.progress.get(&entries.epoch) else { return false };
            let got = [Outcome::Applied, Outcome::Quarantined].iter().filter_map(|o| progress.outcomes.get(o));
            got.chain([&progress.stored]).any(|set| !set.intersection(&entries.numbers).is_empty())
        })
    }

    fn skip(&mut self, o: &Outgoing, outcome: Outcome) {
        let id = o.entry.header.id;
        let (epoch, n) = (id.epoch, id.seq.get());
        self.progress.entry(epoch).or_default().outcomes.entry(outcome).or_default().insert(n);
        self.skips.entry((epoch, outcome)).or_default().insert(n);
        self.decided.entry((epoch, outcome)).or_default().insert(n);
    }

    /// Gives the decided skips to the shell.
    pub(crate) fn flush(&mut self, outputs: &mut VecDeque<Output>) {
        for ((epoch, outcome), ranges) in std::mem::take(&mut self.decided) {
            outputs.push_back(Output::RecordOutcome { epoch, outcome, ranges });
        }
    }

    /// Does anything of this class wait? Decides on skips along the way.
    pub(crate) fn waits(
        &mut self,
        class: Precedence,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<bool, OutboundError> {
        if self.wait_for_epoch.is_some() {
            return Ok(false);
        }
        self.queue_again(outbound)?;
        if self.cutting[class.index()].is_some() {
            return Ok(true);
        }
        let window = WINDOW_ENTRIES + if is_urgent(class) { WINDOW_URGENT_EXTRA } else { 0 };
        Ok(self.in_flight.len() < window && self.has_next(class, outbound, now)?)
    }

    /// The entry that the next frame of a class begins with, unless one is under way in fragments.
    pub(crate) fn front(
        &mut self,
        class: Precedence,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Option<&Outgoing>, OutboundError> {
        let waits = self.waits(class, outbound, now)? && self.cutting[class.index()].is_none();
        Ok(self.queues[class.index()].ahead.front().filter(|_| waits))
    }

    /// Brings an entry that is to be sent to the front of the class's queue.
    fn has_next(&mut self, class: Precedence, outbound: &dyn Outbound, now: Now) -> Result<bool, OutboundError> {
        loop {
            while let Some(front) = self.queues[class.index()].ahead.front() {
                let fate = self.fate(front, outbound, now);
                if let Some(left) = self.early
                    && !matches!(fate, Fate::Settled)
                {
                    let goes =
                        matches!(fate, Fate::Send) && self.is_new(front) && self.stands_alone(&front.entry.header);
                    return Ok(goes && left > 0);
                }
                if matches!(fate, Fate::Send) {
                    return Ok(true);
                }
                let front = self.queues[class.index()].ahead.pop_front();
                if let (Fate::Skip(outcome), Some(front)) = (fate, front) {
                    self.skip(&front, outcome);
                }
            }
            let queue = &mut self.queues[class.index()];
            if queue.dry {
                return Ok(false);
            }
            let scan = outbound.scan(class, queue.next, READ_AHEAD_BYTES)?;
            queue.dry = scan.entries.is_empty();
            queue.next = queue.next.max(scan.next);
            queue.ahead.extend(scan.entries);
        }
    }

    /// Is it certain that the peer does not have it?
    fn is_new(&self, o: &Outgoing) -> bool {
        let id = o.entry.header.id;
        let (epoch, n) = (id.epoch, id.seq.get());
        self.found.get(&epoch).is_none_or(|last| n > *last) && !self.may_be_there(epoch, n)
    }

    /// Is everything that it waits for at the peer, or on its way there? What becomes of the rest the greeting tells.
    fn stands_alone(&self, h: &Header) -> bool {
        let mut before = h.causes.iter().copied().chain(h.predecessor()).filter(|id| id.origin == self.me);
        before.all(|id| self.is_settled(id.epoch, id.seq.get()))
    }

    fn is_settled(&self, epoch: Epoch, n: u64) -> bool {
        self.in_flight.contains_key(&(epoch, n))
            || self.progress.get(&epoch).is_some_and(|p| p.knows(n))
            || self.doubtful.get(&epoch).is_some_and(|set| set.contains(n))
    }

    /// The entry and, before it, own causes that the peer does not have and was not sent.
    fn with_causes(
        &mut self,
        entry: Outgoing,
        picked: &BTreeSet<EntryId>,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Vec<Outgoing>, OutboundError> {
        let mut order = Vec::new();
        let mut seen = picked.clone();
        seen.insert(entry.entry.header.id);
        let mut stack = vec![(entry, 0)];
        while let Some((top, at)) = stack.last_mut() {
            let cause = top.entry.header.causes.get(*at).copied();
            *at += 1;
            let Some(cause) = cause else {
                order.extend(stack.pop().map(|(entry, _)| entry));
                continue;
            };
            if cause.origin != self.me || seen.len() >= PULL_MAX || !seen.insert(cause) {
                continue;
            }
            let Some(found) = outbound.entry(cause)? else { continue };
            if found.entry.header.kind == Kind::File {
                continue;
            }
            match self.fate(&found, outbound, now) {
                Fate::Settled => {}
                Fate::Skip(outcome) => self.skip(&found, outcome),
                Fate::Send => stack.push((found, 0)),
            }
        }
        Ok(order)
    }

    /// The next entries of a class as one frame of at most `bytes_max`.
    pub(crate) fn next_entries(
        &mut self,
        class: Precedence,
        bytes_max: usize,
        outbound: &dyn Outbound,
        now: Now,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Option<Frame>, OutboundError> {
        if !self.waits(class, outbound, now)? {
            return Ok(None);
        }
        if self.cutting[class.index()].is_some() {
            return Ok(self.next_fragment(class, bytes_max, now, outputs));
        }
        // Chat packs to a twelfth at best; what does not fit goes back to the queue.
        let plain_max = (bytes_max * 12).min(BATCH_BYTES_MAX / 2);
        let (mut picked, mut ids, mut plain) = (Vec::new(), BTreeSet::new(), 0);
        let pick_max = self.early.unwrap_or(PICK_MAX);
        while picked.len() < pick_max && plain < plain_max && self.has_next(class, outbound, now)? {
            let Some(front) = self.queues[class.index()].ahead.pop_front() else { break };
            if ids.contains(&front.entry.header.id) {
                continue;
            }
            for entry in self.with_causes(front, &ids, outbound, now)? {
                plain += entry.bytes.len();
                ids.insert(entry.entry.header.id);
                picked.push(entry);
            }
        }
        // One label's texts must not tell of another's by how well they compress together.
        let Some(label) = picked.first().map(|o| o.entry.header.label.clone()) else { return Ok(None) };
        let mut take = picked.iter().take_while(|o| o.entry.header.label == label).count();
        // Whether the peer still has a history its greeting tells.
        let (name, history) = if self.early.is_some() { self.offers.none() } else { self.offers.of(&label) };
        let batch = loop {
            if take == 0 {
                break None;
            }
            let plain: usize = picked[..take].iter().map(|o| o.bytes.len() + BATCH_ENTRY_OVERHEAD).sum();
            if plain > BATCH_BYTES_MAX {
                take /= 2;
                continue;
            }
            let entries = picked[..take].iter().map(|o| (&*o.entry, &*o.bytes));
            let batch = pack_batch(entries, name, &history, self.compression);
            let len = batch.frame_len();
            if len <= bytes_max {
                break Some(batch);
            }
            take = (take * bytes_max / len).min(take - 1);
        };
        let rest = picked.split_off(take);
        for entry in rest.into_iter().rev() {
            self.queues[class.index()].ahead.push_front(entry);
        }
        if batch.is_none() && self.early.is_some() {
            // How much of a large entry is there the greeting tells.
            self.early = Some(0);
            return Ok(None);
        }
        let Some(batch) = batch else {
            let Some(entry) = self.queues[class.index()].ahead.pop_front() else { return Ok(None) };
            self.cut(class, entry);
            return Ok(self.next_fragment(class, bytes_max, now, outputs));
        };
        for entry in &picked {
            self.sent(entry, name, now);
        }
        let (bytes, plain): (usize, usize) = (batch.frame_len(), picked.iter().map(|o| o.bytes.len()).sum());
        self.packing[class.index()].add(plain as u64, bytes);
        outputs.push_back(Output::Event(LinkEvent::Sent { class, entries: picked.len(), bytes, plain }));
        Ok(Some(Frame::Batch(batch)))
    }

    fn sent(&mut self, o: &Outgoing, history: Option<u8>, now: Now) {
        let h = &o.entry.header;
        let number = (h.id.epoch, h.id.seq.get());
        let last = self.epochs.entry(number.0).or_default();
        *last = (*last).max(number.1);
        self.early = self.early.map(|left| left.saturating_sub(1));
        let was_claimed =
            self.claimed_beyond.get(&number.0).is_some_and(|(from, to)| (*from..=*to).contains(&number.1));
        let needs_proof = self.early.is_some() || was_claimed;
        let sent = if needs_proof { &mut self.sent_early } else { &mut self.sent_here };
        if sent.entry(number.0).or_default().insert(number.1) {
            self.first_bytes += o.bytes.len() as u64;
        }
        let (pos, class, captured) = (o.pos, h.precedence, h.captured);
        let keep = self.in_flight.len() < KEPT_IN_FLIGHT_MAX && Offers::takes(o.bytes.len());
        let (sent_at, kept) = (now.mono, keep.then(|| o.clone()));
        self.in_flight.insert(number, InFlight { pos, class, sent_at, captured, history, kept });
        if self.resend.remove(&number) {
            self.resent.insert(number);
        }
        if !self.labels_used.contains(&h.label) {
            self.labels_used.insert(h.label.clone());
        }
    }

    /// What the peer says it holds of what went to it in parcels.
    pub(crate) fn claim(&mut self, claim: Claim, now: Now, outputs: &mut VecDeque<Output>) {
        let Claim { part, boot, epoch, stored, outcomes, refused } = claim;
        let mut claimed = EpochProgress { stored, outcomes: BTreeMap::new() };
        for (outcome, set) in outcomes {
            claimed.outcomes.entry(outcome).or_default().union_with(&set);
        }
        let (open, open_last) = self.open_epoch();
        let highest = claimed.known().last().unwrap_or(0);
        if epoch > open || (epoch == open && highest > open_last) {
            self.peer_is_ahead(epoch, outputs);
        }
        if part > 0 {
            self.claims.entry(epoch).or_default().union_with(&claimed);
        }
        let Some(last) = self.epochs.get(&epoch).copied().filter(|last| *last > 0) else { return };
        let ours = RangeSet::from(1..=last);
        let written = self.in_parcels.get(&boot).and_then(|sets| sets.get(&epoch)).cloned().unwrap_or_default();
        let known = self.progress.entry(epoch).or_default().known();
        // What is on record was proven once; of the rest this node must remember that it wrote it.
        let mut certain = written.intersection(&ours);
        let conflicts = refused.intersection(&certain).difference(&known);
        certain.union_with(&known);
        let proven = claimed.intersection(&certain.difference(&conflicts));
        self.receipted_again(epoch, &proven.known());
        let mut received = proven.stored.clone();
        for (_, set) in proven.outcomes.iter().filter(|(outcome, _)| !is_skip(**outcome)) {
            received.union_with(set);
        }
        self.record_stored(epoch, &received, now, outputs);
        for (outcome, set) in &proven.outcomes {
            self.record_outcome(epoch, *outcome, set, outputs);
        }
        self.conflict(epoch, &conflicts, outputs);
    }

    pub(crate) fn restore_in_parcels(&mut self, in_parcels: ByBoot) {
        self.in_parcels = in_parcels;
    }

    pub(crate) fn in_parcels(&self) -> &ByBoot {
        &self.in_parcels
    }

    pub(crate) fn note_in_parcel(&mut self, boot: u64, numbers: &BTreeMap<Epoch, RangeSet>) {
        for (epoch, set) in numbers {
            union_into(self.in_parcels.entry(boot).or_default(), *epoch, set);
            let last = self.epochs.entry(*epoch).or_default();
            *last = (*last).max(set.last().unwrap_or(0));
        }
    }

    /// Forgets parcels about whose numbers everything is known.
    pub(crate) fn trim_in_parcels(&mut self) {
        for sets in self.in_parcels.values_mut() {
            for (epoch, set) in sets.iter_mut() {
                if let Some(progress) = self.progress.get(epoch) {
                    *set = set.difference(&progress.known());
                }
            }
            sets.retain(|_, set| !set.is_empty());
        }
        self.in_parcels.retain(|_, sets| !sets.is_empty());
    }

    /// A planner decided that these will never be sent.
    pub(crate) fn skipped(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) {
        let progress = self.progress.entry(epoch).or_default();
        let new = numbers.difference(&progress.ended());
        progress.outcomes.entry(outcome).or_default().union_with(&new);
        self.skips.entry((epoch, outcome)).or_default().union_with(&new);
    }

    pub(crate) fn labels(&self) -> &BTreeSet<Label> {
        &self.labels
    }

    /// A large entry of this class is partly in frames.
    pub(crate) fn is_cutting(&self, class: Precedence) -> bool {
        self.cutting[class.index()].is_some()
    }

    /// Takes what was put into frames out of the window: in a planner it is done with.
    pub(crate) fn take_sent(&mut self) -> (BTreeMap<Epoch, RangeSet>, BTreeSet<Label>) {
        let mut numbers: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        for (epoch, n) in std::mem::take(&mut self.in_flight).into_keys() {
            numbers.entry(epoch).or_default().insert(n);
        }
        for (epoch, set) in &numbers {
            self.progress.entry(*epoch).or_default().stored.union_with(set);
        }
        (numbers, std::mem::take(&mut self.labels_used))
    }

    fn cut(&mut self, class: Precedence, entry: Outgoing) {
        let id = entry.entry.header.id;
        // A more urgent entry may need one that a lower class has begun.
        let begun = self.cutting.iter_mut().find(|c| c.as_ref().is_some_and(|c| c.entry.entry.header.id == id));
        let cutting = match begun.and_then(Option::take) {
            Some(begun) => begun,
            None => {
                let packed = Packed::new(&entry.bytes, self.compression);
                let resume = self.resumes.remove(&(id.epoch, id.seq.get()));
                // At least the last byte is sent again, so that the peer completes it.
                let offset = resume.filter(|r| r.crc == packed.crc()).map_or(0, |r| r.offset.min(packed.total() - 1));
                Cutting { entry, packed, offset }
            }
        };
        self.cutting[class.index()] = Some(cutting);
    }

    fn next_fragment(
        &mut self,
        class: Precedence,
        bytes_max: usize,
        now: Now,
        outputs: &mut VecDeque<Output>,
    ) -> Option<Frame> {
        let mut cutting = self.cutting[class.index()].take()?;
        let id = cutting.entry.entry.header.id;
        let part = cutting.packed.part(cutting.offset, bytes_max.saturating_sub(PART_OVERHEAD));
        cutting.offset += part.bytes.len() as u32;
        // Of the plain bytes, what the part stands for.
        let plain = |packed: u64| packed * cutting.entry.bytes.len() as u64 / u64::from(cutting.packed.total().max(1));
        let (part_plain, sent_plain) = (plain(part.bytes.len() as u64), plain(u64::from(cutting.offset)));
        let number = (id.epoch, id.seq.get());
        let most = self.cut_most[class.index()].filter(|(of, _)| *of == number).map_or(0, |(_, most)| most);
        self.cut_most[class.index()] = Some((number, most.max(sent_plain)));
        self.first_bytes += sent_plain.saturating_sub(most);
        let done = cutting.offset >= cutting.packed.total();
        if done {
            self.sent(&cutting.entry, None, now);
        } else {
            self.cutting[class.index()] = Some(cutting);
        }
        let frame = Frame::Fragment(Fragment { epoch: id.epoch, seq: id.seq, part });
        let bytes = frame.encode().len();
        self.packing[class.index()].add(part_plain, bytes);
        outputs.push_back(Output::Event(LinkEvent::Sent { class, entries: usize::from(done), bytes, plain: 0 }));
        Some(frame)
    }

    pub(crate) fn sent_so_far(&self) -> SentSoFar {
        SentSoFar {
            classes: self.packing,
            first_bytes: self.first_bytes,
            under_way: self.in_flight.len(),
            ..SentSoFar::default()
        }
    }

    /// Was something sent, or asked about, that the peer has not receipted or compared?
    pub(crate) fn awaits_receipts(&self) -> bool {
        !self.in_flight.is_empty() || self.doubtful.values().any(|set| !set.is_empty())
    }

    /// When an own entry was sent on this connection, while it has no receipt.
    pub(crate) fn sent_at(&self, number: Number) -> Option<Duration> {
        self.in_flight.get(&number).map(|flown| flown.sent_at)
    }

    /// Has the peer finished with it?
    pub(crate) fn has_ended(&self, epoch: Epoch, n: u64) -> bool {
        self.progress.get(&epoch).is_some_and(|p| p.outcomes.values().any(|set| set.contains(n)))
    }

    /// Numbers that ended at the peer.
    pub(crate) fn ended(&self, epoch: Epoch) -> RangeSet {
        self.progress.get(&epoch).map(EpochProgress::ended).unwrap_or_default()
    }

    /// Own numbers that were given out.
    pub(crate) fn numbers_of(&self, epoch: Epoch) -> RangeSet {
        self.epochs.get(&epoch).filter(|last| **last > 0).map_or_else(RangeSet::new, |last| RangeSet::from(1..=*last))
    }

    /// The peer answered to an offer.
    pub(crate) fn history_held(&mut self, held: &HistoryHeld) {
        self.offers.answered(held);
    }

    /// The peer could not read what referred to this history: it is sent again, and what follows without reference.
    pub(crate) fn history_gone(&mut self, name: u8, outputs: &mut VecDeque<Output>) {
        self.offers.gone(name);
        let mut back = self.queues.each_ref().map(|_| None);
        let mut again = 0;
        for (number, flown) in self.in_flight.extract_if(.., |_, flown| flown.history == Some(name)) {
            again += 1;
            if self.resent.remove(&number) {
                union_into(&mut self.lost_there, number.0, &RangeSet::from(number.1..=number.1));
                continue;
            }
            let first = back[flown.class.index()].get_or_insert(flown.pos);
            *first = flown.pos.min(*first);
        }
        for (class, first) in back.into_iter().enumerate() {
            let Some(first) = first else { continue };
            let resend = &self.resend;
            let queue = &mut self.queues[class];
            // Read again from there on, but for what was put in front.
            let first = queue.ahead.iter().map(|o| o.pos).fold(first, std::cmp::min);
            queue.ahead.retain(|o| resend.contains(&(o.entry.header.id.epoch, o.entry.header.id.seq.get())));
            queue.next = queue.next.min(first);
            queue.dry = false;
        }
        if again > 0 {
            outputs.push_back(Output::Event(LinkEvent::HistoryLost { again }));
        }
    }

    pub(crate) fn has_control(&self) -> bool {
        self.offers.has_control()
            || self.skips.values().chain(self.ask.values()).chain(self.holes.values()).any(|set| !set.is_empty())
    }

    /// A skip, a question or an offer.
    pub(crate) fn next_control(
        &mut self,
        bytes_max: usize,
        outbound: &dyn Outbound,
        now: Now,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Option<Frame>, OutboundError> {
        while let Some((epoch, numbers)) = self.holes.pop_first() {
            for id in numbers.numbers().filter_map(|n| self.id(epoch, n)).collect::<Vec<EntryId>>() {
                if outbound.hash_of(id)?.is_none() {
                    self.skips.entry((epoch, Outcome::Quarantined)).or_default().insert(id.seq.get());
                }
            }
        }
        self.skips.retain(|_, set| !set.is_empty());
        if let Some(((epoch, outcome), set)) = self.skips.iter_mut().next() {
            let (epoch, outcome) = (*epoch, *outcome);
            let half = (bytes_max - SET_OVERHEAD) / 2;
            let numbers = take_fitting(set, half, RANGES_PER_FRAME);
            let (ranges, after) = self.places(epoch, &numbers, half / SKIP_LINK_BYTES, outbound)?;
            let later = numbers.difference(&ranges);
            self.skips.entry((epoch, outcome)).or_default().union_with(&later);
            return Ok(Some(Frame::Skip(Skip { epoch, outcome, ranges, after })));
        }
        let count = ((bytes_max - SET_OVERHEAD) / 18).min(wire::frame::VERIFY_MAX);
        while let Some((epoch, asked)) = take_epoch(&mut self.ask, usize::MAX, 1) {
            let now_asked: RangeSet = asked.numbers().take(count).collect();
            let later = asked.difference(&now_asked);
            self.ask.entry(epoch).or_default().union_with(&later);
            let (mut hashes, mut gone) = (Vec::new(), RangeSet::new());
            for id in now_asked.numbers().filter_map(|n| self.id(epoch, n)) {
                match outbound.hash_of(id)? {
                    Some(hash) => hashes.push((id.seq, short(hash))),
                    None => drop(gone.insert(id.seq.get())),
                }
            }
            // What is not held any more cannot be compared, nor sent: the peer's word stands.
            self.verdict(&Verdict { epoch, same: gone, different: RangeSet::new() }, now, outputs);
            if !hashes.is_empty() {
                return Ok(Some(Frame::Verify(Verify { epoch, hashes })));
            }
        }
        self.offers.read_back(&self.progress, outbound)?;
        Ok(self.offers.next_control(bytes_max))
    }

    /// The first own number that the peer may still have to use. What stands behind it may have been used before its turn: only
    /// the peer knows.
    fn unused_from(&self) -> Number {
        let mut unused_from = (Epoch::FIRST, 1);
        for (epoch, last) in &self.epochs {
            let used = self.progress.get(epoch).map(EpochProgress::used_or_withheld).unwrap_or_default();
            let first = used.iter().next().filter(|range| *range.start() == 1).map_or(1, |range| range.end() + 1);
            unused_from = (*epoch, first);
            if first <= *last {
                break;
            }
        }
        unused_from
    }

    /// The first of these skipped numbers, and what stands before which of them: at most so many.
    fn places(
        &mut self,
        epoch: Epoch,
        numbers: &RangeSet,
        links_max: usize,
        outbound: &dyn Outbound,
    ) -> Result<(RangeSet, Places), OutboundError> {
        let (mut taken, mut links) = (RangeSet::new(), Vec::new());
        let unused_from = self.unused_from();
        for n in numbers.numbers().take(PICK_MAX) {
            let Some(id) = self.id(epoch, n) else { continue };
            // Of what cannot be read nobody knows the place.
            let after = outbound.entry(id)?.and_then(|o| o.entry.header.after);
            let is_free = |(of, seq): &(Epoch, Seq)| {
                (*of, seq.get()) < unused_from || self.free.get(of).is_some_and(|set| set.contains(seq.get()))
            };
            match after.filter(|after| !is_free(after)) {
                Some(_) if links.len() >= links_max => break,
                Some(after) => links.push((id.seq, after)),
                None => drop(self.free.entry(epoch).or_default().insert(id.seq.get())),
            }
            taken.insert(id.seq.get());
        }
        Ok((taken, links))
    }

    /// May the peer have this entry's file?
    pub(crate) fn releases(&self, label: &Label) -> bool {
        *label != Label::local() && self.labels.contains(label)
    }
}

/// Entries that the peer lost, read ahead at a time: 16 of the largest are as much as the classes read ahead.
const RESEND_MAX: usize = 16;

/// Three numbers of a Skip's place: two of 64 bits and an epoch.
const SKIP_LINK_BYTES: usize = 25;

/// Epochs that a restored node may have forgotten.
const EPOCHS_AHEAD_MAX: usize = 16;

/// How often the numbers may be in doubt because of one peer while this process runs. After a restore that is once for each epoch
/// that was forgotten; whoever goes on denying what it gets would have every entry written anew each time.
const MOVES_MAX: u32 = 2 * EPOCHS_AHEAD_MAX as u32;

/// Numbers looked up of an epoch's end that a restored node forgot.
const HOLES_MAX: usize = 65_536;

/// Entries looked at for one frame.
const PICK_MAX: usize = 1_024;

/// A length before each entry in a batch, and what a relative header may cost more than a canonical one.
const BATCH_ENTRY_OVERHEAD: usize = 16;

/// Type, epoch, outcome or count.
pub(crate) const SET_OVERHEAD: usize = 16;

fn is_urgent(class: Precedence) -> bool {
    class <= Precedence::Immediate
}

/// The part of a hash that Verify carries.
pub(crate) fn short(hash: model::EntryHash) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash.0[..8]);
    u64::from_le_bytes(first)
}
