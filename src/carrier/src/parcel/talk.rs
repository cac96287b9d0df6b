//! The part of a conversation that deals with parcels.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keys::SealingPublic;
use link::{Now, Output, Planner, Settled};
use model::{BitsPerSecond, ChunkName, EntryId, Epoch, NodeId, Outcome, Precedence, RangeSet};
use tokio::sync::{mpsc, oneshot};
use wire::frame::Frame;
use wire::parcel::{Header, Parcel};

use super::state::Run;
use super::{Ask, Begun, Lane, Made, ParcelDesk, ParcelRefused, PeerParcels, Since, Taken};
use crate::conversation::{Conversation, sender_state};
use crate::talk::Refusal;

/// Body of one parcel on a medium: large enough that what seals it weighs nothing, small enough that damage costs little.
const COURIER_BODY_BYTES: usize = 256 << 10;

/// Less than this left of what was asked for is not worth a parcel.
const ROOM_MIN: usize = 32 << 10;

/// What a parcel may have beyond the body that was asked for: a frame that is not made smaller, the seal. A large entry has more.
const OVERSHOOT: usize = 12 << 10;

/// Media are written faster than links, and most files are compressed already.
const COURIER_COMPRESSION: i32 = 9;

/// A conversation's parcels.
pub(crate) struct Parcels {
    pub(crate) desk: Arc<ParcelDesk>,
    pub(crate) inbox: mpsc::Receiver<Ask>,
    pub(crate) data_dir: PathBuf,
    /// What is sealed for the peer is sealed with this.
    pub(crate) sealing: SealingPublic,
    pub(crate) state: PeerParcels,
    /// How often receipts are told, when they change.
    receipts_every: Duration,
    asks: VecDeque<Ask>,
    taking: Option<Taking>,
    lanes: BTreeMap<Lane, Planning>,
}

/// A parcel whose content is on its way into the journal.
struct Taking {
    boot: u64,
    number: u64,
    entries: Vec<EntryId>,
    chunks: Vec<ChunkName>,
    /// What was being stored when it came. Some of it may be the parcel's too, and that is not durable yet.
    before: (Vec<EntryId>, Vec<ChunkName>),
    duplicates: u64,
    answer: oneshot::Sender<Result<Taken, ParcelRefused>>,
}

/// Entries and chunks that wait for room on the disk, from which on parcels are refused unopened. Below it they are opened, since
/// what is more urgent than what waits may have room.
const STALLED_MAX: usize = 256;

fn no_room() -> ParcelRefused {
    ParcelRefused::Store("the disk or the journal is full".to_owned())
}

/// How often one-way links repeat their receipts, when those change, beside the beginning of each round.
const RECEIPTS_EVERY: Duration = Duration::from_secs(10);

/// The same over a relay: a parcel of nothing but receipts has about 1,400 bytes, and may take a twentieth of the rate.
const RECEIPTS_BITS: f64 = 20.0 * 8.0 * 1_400.0;

/// And not more often than this, nor more rarely.
const RECEIPTS_EVERY_VIA: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// How often a peer is told its receipts in parcels. `relayed_at`: the rate of the relay, where it is reached over one.
pub(crate) fn receipts_every(relayed_at: Option<BitsPerSecond>) -> Duration {
    let Some(rate) = relayed_at else { return RECEIPTS_EVERY };
    let every = Duration::from_secs_f64(RECEIPTS_BITS / rate.0.max(1) as f64);
    every.clamp(*RECEIPTS_EVERY_VIA.start(), *RECEIPTS_EVERY_VIA.end())
}

/// Bytes are dear on a link that repeats everything.
const ONEWAY_COMPRESSION: i32 = 19;

/// A lane between [`Ask::Begin`] and [`Ask::End`].
struct Planning {
    planner: Planner,
    /// On media, or on the way there.
    settled: Settled,
    /// Given out and not said to be written or sent, the oldest first.
    pending: VecDeque<(Settled, RangeSet)>,
    /// Receipts go into the first parcel.
    receipts_due: bool,
    /// Those that went last, and when.
    told: Option<(Vec<Frame>, Duration)>,
    /// How many own numbers were purged when the planner was told.
    purged_told: u64,
}

impl Parcels {
    pub(crate) fn new(
        desk: Arc<ParcelDesk>,
        data_dir: PathBuf,
        peer: NodeId,
        sealing: SealingPublic,
        receipts_every: Duration,
    ) -> io::Result<Self> {
        let state = PeerParcels::open(&data_dir, peer)?;
        let inbox = desk.seat(peer);
        let (asks, lanes) = (VecDeque::new(), BTreeMap::new());
        Ok(Self { desk, inbox, data_dir, sealing, state, receipts_every, asks, taking: None, lanes })
    }

    pub(crate) fn push(&mut self, ask: Ask) {
        self.asks.push_back(ask);
    }

    /// Is there something to do? `appended`: nothing is on its way into the journal.
    pub(crate) fn is_due(&self, appended: bool) -> bool {
        match self.taking {
            Some(_) => appended,
            None => !self.asks.is_empty(),
        }
    }
}

impl Conversation {
    /// Serves what was asked, and answers what is done. A failure is the asker's, not the connection's.
    pub(crate) fn serve_parcels(&mut self, now: Now) -> Result<(), Refusal> {
        self.finish_taking();
        while self.parcels.taking.is_none() {
            let Some(ask) = self.parcels.asks.pop_front() else { break };
            // Nobody waits for an answer any more when sending one fails.
            match ask {
                Ask::Take { boot, number, frames, answer } => {
                    if self.parcels.state.has_taken(boot, number) {
                        drop(answer.send(Ok(Taken { already: true, ..Taken::default() })));
                        continue;
                    }
                    if self.stalled.len() >= STALLED_MAX {
                        // Each parcel could leave more that waits for room.
                        drop(answer.send(Err(no_room())));
                        continue;
                    }
                    let before = self.session.all_storing();
                    match self.take_in(boot, frames, now) {
                        Ok((entries, chunks, duplicates)) => {
                            let taking = Taking { boot, number, entries, chunks, before, duplicates, answer };
                            self.parcels.taking = Some(taking);
                            self.perform(now)?;
                            self.finish_taking();
                        }
                        Err(e) => {
                            drop(answer.send(Err(e)));
                            self.perform(now)?;
                        }
                    }
                }
                Ask::Begin { lane, since, answer } => drop(answer.send(self.begin_plan(lane, since))),
                Ask::Next { lane, bytes, least, answer } => {
                    drop(answer.send(self.next_parcels(lane, bytes, least, now)));
                }
                Ask::BeginOneWay { lane, rounds, answer } => drop(answer.send(self.begin_oneway(lane, rounds))),
                Ask::Sent { lane, rounds, answer } => drop(answer.send(self.note_sent(lane, rounds))),
                Ask::Unconfirmed { rounds, answer } => drop(answer.send(Ok(self.unconfirmed(rounds)))),
                Ask::RepeatIsDue { every, answer } => drop(answer.send(self.repeat_is_due(every, now.wall))),
                Ask::Written { lane, written, at, answer } => {
                    let noted = self.note_written(lane, &written, at);
                    drop(answer.send(noted));
                }
                Ask::End { lane, full, answer } => drop(answer.send(self.end_plan(lane, full))),
            }
        }
        Ok(())
    }

    /// Hands an opened parcel to the session; what becomes of it is carried out by the caller.
    fn take_in(
        &mut self,
        boot: u64,
        frames: Vec<Frame>,
        now: Now,
    ) -> Result<(Vec<EntryId>, Vec<ChunkName>, u64), ParcelRefused> {
        // What the session wants done from before is done, so that what follows is the parcel's.
        debug_assert!(self.session.peek().next().is_none(), "outputs are carried out in order");
        let taken = self.session.parcel(boot, frames, &self.outbound, now);
        let (mut entries, mut chunks, mut duplicates) = (Vec::new(), Vec::new(), 0);
        for output in self.session.peek() {
            match output {
                Output::Store(incoming) => entries.push(incoming.entry.header.id),
                Output::StoreChunk { name, .. } => chunks.push(*name),
                Output::Event(link::LinkEvent::Duplicates(count)) => duplicates += *count as u64,
                Output::Event(_)
                | Output::RetainChunk(_)
                | Output::RecordStored { .. }
                | Output::RecordOutcome { .. }
                | Output::StartEpoch { .. }
                | Output::AccountSkipped { .. }
                | Output::PeerGreeted { .. }
                | Output::FileComplete(_)
                | Output::FileUnavailable(_)
                | Output::OfferFiles
                | Output::Close { .. }
                | Output::Restore(_)
                | Output::NotReturned { .. }
                | Output::TakeParcel { .. }
                | Output::ParcelKept { .. } => {}
            }
        }
        if !entries.is_empty() {
            self.parcels.state.came.clone_from(self.session.came_in_parcels());
            if let Err(e) = self.save_parcels() {
                // Stored without that, after a restart they would count as proven by a link.
                self.session.do_not_store(&entries);
                return Err(e);
            }
        }
        taken.map_err(|e| ParcelRefused::Protocol(e.to_string()))?;
        Ok((entries, chunks, duplicates))
    }

    fn save_parcels(&mut self) -> Result<(), ParcelRefused> {
        let saved = self.parcels.state.save(&self.parcels.data_dir, self.peer);
        saved.map_err(|e| ParcelRefused::Store(format!("what is known of parcels cannot be written: {e}")))
    }

    fn finish_taking(&mut self) {
        let Some(taking) = &self.parcels.taking else { return };
        let (entries, chunks) = &taking.before;
        let waits = taking.entries.iter().chain(entries).any(|id| self.session.is_storing(*id))
            || taking.chunks.iter().chain(chunks).any(|name| self.session.is_storing_chunk(name));
        if waits && self.stalled.is_empty() {
            return;
        }
        let Some(taking) = self.parcels.taking.take() else { return };
        if waits {
            // It goes on by itself when there is room; the asker need not wait for that.
            return drop(taking.answer.send(Err(no_room())));
        }
        let stored = taking.entries.iter().filter(|id| self.session.holds(**id)).count() as u64;
        let chunks = taking.chunks.iter().filter(|name| self.journal.has_chunk(name).unwrap_or(false)).count() as u64;
        let label = (self.label.clone(),);
        self.metrics.parcels_taken_total.inc(label);
        let (entries_before, chunks_before) = &taking.before;
        let rest_is_durable = entries_before.iter().all(|id| self.session.holds(*id))
            && chunks_before.iter().all(|name| self.journal.has_chunk(name).unwrap_or(false));
        if !rest_is_durable {
            let text = "what came over a link meanwhile could not be stored; it is asked for again".to_owned();
            return drop(taking.answer.send(Err(ParcelRefused::Store(text))));
        }
        if stored == taking.entries.len() as u64 && chunks == taking.chunks.len() as u64 {
            self.parcels.state.note_taken(taking.boot, taking.number);
            if let Err(e) = self.save_parcels() {
                tracing::warn!(peer = %self.peer, error = %e, "a parcel that was taken would be opened once more");
            }
        }
        let taken = Taken { entries: stored, duplicates: taking.duplicates, chunks, already: false };
        drop(taking.answer.send(Ok(taken)));
    }

    fn begin_plan(&mut self, lane: Lane, since: Since) -> Result<Begun, ParcelRefused> {
        let me = self.parcels.desk.key.node_id();
        let run = self.parcels.state.run.clone().unwrap_or_default();
        let (settled, continues) = match since {
            Since::Continue if run.open => (run.settled(me), true),
            Since::Continue | Since::Start => (Settled::default(), false),
            Since::LastExport => {
                let mut settled = run.settled(me);
                for (epoch, set) in &self.parcels.state.written {
                    settled.numbers.entry(*epoch).or_default().union_with(set);
                }
                (settled, run.open)
            }
        };
        self.plan(lane, settled, COURIER_COMPRESSION)?;
        let accounting = self.journal.accounting(self.consumer.name()).ok().flatten();
        let held =
            accounting.map(|a| a.by_class.iter().fold((0, 0), |(n, b), sums| (n + sums.held, b + sums.held_bytes)));
        let (held_entries, held_bytes) = held.unwrap_or_default();
        Ok(Begun { to: self.peer, from: me, continues, held_entries, held_bytes })
    }

    fn plan(&mut self, lane: Lane, settled: Settled, compression: i32) -> Result<(), ParcelRefused> {
        let planner = self.planner(&settled, compression).map_err(|e| ParcelRefused::Store(e.to_string()))?;
        let purged_told = self.journal.purged_count();
        let pending = VecDeque::new();
        let planning = Planning { planner, settled, pending, receipts_due: true, told: None, purged_told };
        self.parcels.lanes.insert(lane, planning);
        Ok(())
    }

    fn begin_oneway(&mut self, lane: Lane, rounds: u32) -> Result<(), ParcelRefused> {
        let me = self.parcels.desk.key.node_id();
        let state = &self.parcels.state;
        let once = state.sent_in(1).cloned().unwrap_or_default();
        let settled = match lane {
            // Goes on in the middle of a file where that was when the node stopped.
            Lane::Courier | Lane::OneWay => once.settled(me),
            Lane::OneWayAgain => {
                // Those of the round before may be lost, and nothing else may ever change again.
                if let Some(new) = self.parcels.lanes.get_mut(&Lane::OneWay) {
                    new.told = None;
                }
                let epochs = self.journal.epochs();
                let last = |own: &journal::OwnEpoch| (own.epoch, own.last.map_or(0, model::Seq::get));
                let mut settled = once.without_the_rest(epochs.iter().map(last));
                if let Some(enough) = state.sent_in(rounds).filter(|_| rounds > 0) {
                    let enough = enough.settled(me);
                    union(&mut settled.numbers, &enough.numbers);
                    union(&mut settled.files, &enough.files);
                }
                settled
            }
        };
        self.plan(lane, settled, ONEWAY_COMPRESSION)
    }

    fn note_sent(&mut self, lane: Lane, rounds: u32) -> Result<(), ParcelRefused> {
        let planning = self.parcels.lanes.get_mut(&lane).ok_or(ParcelRefused::NotBegun)?;
        let (settled, _) = planning.pending.pop_front().ok_or(ParcelRefused::NotBegun)?;
        let numbers = less(&settled.numbers, &planning.settled.numbers);
        let files = less(&settled.files, &planning.settled.files);
        let sent = Settled { numbers, files, begun: settled.begun };
        planning.settled = settled;
        self.parcels.state.note_round(&sent, lane == Lane::OneWay, rounds);
        self.save_parcels()
    }

    fn repeat_is_due(&mut self, every: Duration, now: model::UnixMillis) -> Result<bool, ParcelRefused> {
        let state = &mut self.parcels.state;
        let since = state.repeated_at.map(|at| Duration::from_millis((now.0 - at.0).unsigned_abs()));
        let is_due = since.is_some_and(|since| since >= every);
        if is_due || since.is_none() {
            state.repeated_at = Some(now);
            self.save_parcels()?;
        }
        Ok(is_due)
    }

    fn unconfirmed(&self, rounds: u32) -> u64 {
        let Some(run) = self.parcels.state.sent_in(rounds) else { return 0 };
        let state = self.consumer.state();
        let of = |(epoch, set): (&Epoch, &RangeSet)| {
            let ended = state.outcomes.get(epoch).into_iter().flatten();
            let known = state.stored.get(epoch).into_iter().chain(ended);
            known.fold(set.clone(), |left, known| left.difference(known)).count()
        };
        run.numbers().iter().map(of).sum()
    }

    fn planner(&mut self, settled: &Settled, compression: i32) -> Result<Planner, journal::ReadError> {
        self.tell_own_epoch();
        let state = sender_state(&self.journal, &self.consumer)?;
        let mut planner = self.session.planner(state, settled.clone(), compression);
        let superseded = |epoch| {
            let outcomes = self.consumer.state().outcomes;
            outcomes.get(&epoch).map(|sets| sets[Outcome::Superseded as usize - 1].clone()).unwrap_or_default()
        };
        for (epoch, numbers) in self.journal.trimmed() {
            planner.lost(epoch, Outcome::Expired, &numbers.difference(&superseded(epoch)));
        }
        for (epoch, numbers) in self.journal.missed_by(self.consumer.name()).lost {
            planner.lost(epoch, Outcome::Quarantined, &numbers);
        }
        Ok(planner)
    }

    fn next_parcels(&mut self, lane: Lane, bytes: usize, least: Precedence, now: Now) -> Result<Made, ParcelRefused> {
        let mut planning = self.parcels.lanes.remove(&lane).ok_or(ParcelRefused::NotBegun)?;
        match lane {
            // What was given before and is not on a medium is for another export.
            Lane::Courier => planning.pending.clear(),
            Lane::OneWay => self.tell_changed(&mut planning, least, now),
            // Receipts are told with what is new.
            Lane::OneWayAgain => planning.receipts_due = false,
        }
        let made = self.make_parcels(&mut planning, bytes, least, now);
        // After a failure the plan is ahead of what was made: it is begun anew.
        if made.is_ok() {
            self.parcels.lanes.insert(lane, planning);
        }
        made
    }

    /// Receipts go again when they have changed, but not with every entry that comes.
    fn tell_changed(&self, planning: &mut Planning, least: Precedence, now: Now) {
        if least < Precedence::Deferred {
            planning.receipts_due = false;
            return;
        }
        let waits = planning.told.as_ref().is_some_and(|(_, at)| now.mono < *at + self.parcels.receipts_every);
        if waits {
            planning.receipts_due = false;
            return;
        }
        let receipts = self.session.receipts();
        planning.receipts_due = planning.told.as_ref().is_none_or(|(told, _)| *told != receipts);
        planning.told = Some((receipts, now.mono));
    }

    fn make_parcels(
        &mut self,
        planning: &mut Planning,
        bytes: usize,
        least: Precedence,
        now: Now,
    ) -> Result<Made, ParcelRefused> {
        let mut made = Made::default();
        let mut settled = planning.pending.back().map_or(&planning.settled, |(settled, _)| settled).clone();
        if planning.purged_told != self.journal.purged_count() {
            planning.purged_told = self.journal.purged_count();
            for (epoch, numbers) in self.journal.purged() {
                planning.planner.lost(epoch, Outcome::Purged, &numbers);
            }
        }
        let mut sealed = Vec::new();
        planning.planner.appended();
        // What may be in a parcel from here on is not decided on without a receipt.
        if !self.session.is_connected() {
            self.consumer.begin_session();
            self.consumer.end_session();
        }
        let mut size = 0;
        while size == 0 || size + ROOM_MIN <= bytes {
            let first = if planning.receipts_due { self.session.receipts() } else { Vec::new() };
            let body = COURIER_BODY_BYTES.min(bytes.saturating_sub(size + OVERSHOOT)).max(8 << 10);
            let planned = planning.planner.next(body, least, first, &self.outbound, now);
            let planned = planned.map_err(|e| ParcelRefused::Store(e.to_string()))?;
            planning.receipts_due = false;
            for (epoch, outcome, numbers) in planning.planner.take_skipped() {
                self.consumer.record_outcome(outcome, epoch, &numbers);
                self.session.skipped(epoch, outcome, &numbers);
            }
            let Some(planned) = planned else {
                made.done = true;
                break;
            };
            settled.add(&planned);
            self.session.note_in_parcel(&planned.numbers);
            made.entries += planned.numbers.values().map(RangeSet::count).sum::<u64>();
            made.chunks += planned.chunks;
            size += planned.bytes + 1_500;
            sealed.push(planned);
        }
        if sealed.is_empty() {
            return Ok(made);
        }
        // Durable before anything of it leaves: a claim is believed only where this is remembered.
        let first = self.parcels.state.last_number + 1;
        self.parcels.state.last_number += sealed.len() as u64;
        self.parcels.state.sent.clone_from(self.session.in_parcels());
        self.save_parcels()?;
        let (from, to, boot) = self.session.parties();
        for (number, planned) in (first..).zip(sealed) {
            let (precedence, labels) = (planned.precedence, planned.labels);
            let header = Header { to, from, boot, number, precedence, labels };
            let parcel = Parcel::seal(header, &planned.frames, &self.parcels.sealing, &self.parcels.desk.key);
            made.bytes.extend_from_slice(parcel.as_bytes());
            made.numbers.insert(number);
            self.metrics.parcels_made_total.inc((self.label.clone(),));
        }
        planning.pending.push_back((settled, made.numbers.clone()));
        Ok(made)
    }

    fn note_written(
        &mut self,
        lane: Lane,
        written: &super::Written,
        at: model::UnixMillis,
    ) -> Result<(), ParcelRefused> {
        let planning = self.parcels.lanes.get_mut(&lane).ok_or(ParcelRefused::NotBegun)?;
        let (settled, numbers) = planning.pending.pop_front().ok_or(ParcelRefused::NotBegun)?;
        planning.settled = settled;
        for (epoch, set) in &planning.settled.numbers {
            self.parcels.state.written.entry(*epoch).or_default().union_with(set);
        }
        self.parcels.state.run = Some(Run::new(true, &planning.settled));
        self.parcels.state.note_written(&written.stick, at, &numbers, written.bytes);
        self.save_parcels()
    }

    fn end_plan(&mut self, lane: Lane, full: bool) -> Result<(), ParcelRefused> {
        let planning = self.parcels.lanes.remove(&lane).ok_or(ParcelRefused::NotBegun)?;
        self.parcels.state.run = Some(Run::new(full, &planning.settled));
        self.save_parcels()
    }
}

fn union(into: &mut BTreeMap<Epoch, RangeSet>, more: &BTreeMap<Epoch, RangeSet>) {
    for (epoch, set) in more {
        into.entry(*epoch).or_default().union_with(set);
    }
}

fn less(all: &BTreeMap<Epoch, RangeSet>, without: &BTreeMap<Epoch, RangeSet>) -> BTreeMap<Epoch, RangeSet> {
    let nothing = RangeSet::default();
    all.iter().map(|(epoch, set)| (*epoch, set.difference(without.get(epoch).unwrap_or(&nothing)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_over_a_relay_take_a_twentieth_of_a_thin_link() {
        assert_eq!(receipts_every(None), Duration::from_secs(10));
        assert_eq!(receipts_every(Some(BitsPerSecond(9_600))).as_secs(), 23);
        assert_eq!(receipts_every(Some(BitsPerSecond(64_000))).as_millis(), 3_500);
        assert_eq!(receipts_every(Some(BitsPerSecond(10_000_000))), Duration::from_secs(1));
        assert_eq!(receipts_every(Some(BitsPerSecond(0))), Duration::from_secs(30));
    }
}
