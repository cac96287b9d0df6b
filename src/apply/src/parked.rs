//! Entries that are here but must wait. Pure.

use std::collections::{BTreeMap, BTreeSet};

use model::{Cause, EntryId, Epoch, LocalPos, NodeId, Precedence, RangeSet, Seq, StreamId};

/// Numbers of each origin that have ended here, whatever the outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounted(BTreeMap<(NodeId, Epoch), RangeSet>);

impl Accounted {
    /// Has this entry ended here?
    pub(crate) fn contains(&self, id: EntryId) -> bool {
        self.0.get(&(id.origin, id.epoch)).is_some_and(|set| set.contains(id.seq.get()))
    }

    /// Those of the numbers that have not ended here.
    pub(crate) fn missing(&self, origin: NodeId, epoch: Epoch, numbers: &RangeSet) -> RangeSet {
        self.0.get(&(origin, epoch)).map_or_else(|| numbers.clone(), |ended| numbers.difference(ended))
    }

    /// Notes many.
    pub(crate) fn insert_ranges(&mut self, origin: NodeId, epoch: Epoch, numbers: &RangeSet) {
        self.0.entry((origin, epoch)).or_default().union_with(numbers);
    }

    /// The first cause of an entry of `origin` that this node (`me`) still has to wait for.
    ///
    /// Own entries are here by nature. Causes of third nodes cannot be waited for: nothing says that they ever
    /// come this way; what they made is shown with a placeholder then.
    pub(crate) fn first_missing(&self, me: NodeId, origin: NodeId, causes: &[Cause]) -> Option<Cause> {
        causes.iter().find(|c| c.origin != me && c.origin == origin && !self.contains(**c)).copied()
    }
}

/// Order is kept within one of these, by the origin's numbers. Not by arrival: after a cut link the entries of a batch
/// that was lost arrive behind those of the next one, and a cause that waited behind what needs it would wait for ever.
/// A cause always has a lower number than what needs it, so somebody can always go.
pub(crate) type Lane = (NodeId, StreamId, Precedence);

/// What an entry waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// An entry that must end first.
    Cause(Cause),
    /// Bytes of a file.
    Chunks,
    /// An earlier entry of the same lane.
    Earlier,
    /// An order to purge, until it is carried out.
    Purge,
}

impl WaitsFor {
    /// Does what comes behind it wait too? A file's bytes may take hours; nothing in its lane but other files' bytes,
    /// which need no order. Nothing waits for a purge.
    fn holds_lane(&self) -> bool {
        match self {
            Self::Cause(_) | Self::Earlier => true,
            Self::Chunks | Self::Purge => false,
        }
    }
}

/// Parked entries by position. Bounded by what the journal holds: about 100 bytes for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parked {
    by_pos: BTreeMap<LocalPos, (EntryId, Lane, WaitsFor)>,
    lanes: BTreeMap<Lane, BTreeSet<(Epoch, Seq)>>,
}

impl Parked {
    /// Sets an entry aside.
    pub(crate) fn park(&mut self, pos: LocalPos, id: EntryId, lane: Lane, waits_for: WaitsFor) {
        if waits_for.holds_lane() {
            self.lanes.entry(lane).or_default().insert((id.epoch, id.seq));
        }
        self.by_pos.insert(pos, (id, lane, waits_for));
    }

    /// Takes an entry out again.
    pub(crate) fn release(&mut self, pos: LocalPos) {
        if let Some((id, lane, _)) = self.by_pos.remove(&pos)
            && let Some(set) = self.lanes.get_mut(&lane)
        {
            set.remove(&(id.epoch, id.seq));
            if set.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// As [`Parked::release`], by identity.
    pub(crate) fn release_entry(&mut self, id: EntryId) {
        let place = self.by_pos.iter().find(|(_, (parked, ..))| *parked == id).map(|(pos, _)| *pos);
        if let Some(pos) = place {
            self.release(pos);
        }
    }

    /// Is an entry of this lane waiting that its origin captured before this one?
    pub(crate) fn blocks(&self, lane: &Lane, id: EntryId) -> bool {
        self.lanes.get(lane).and_then(BTreeSet::first).is_some_and(|first| *first < (id.epoch, id.seq))
    }

    /// The lowest parked position: the cursor must not pass it.
    pub(crate) fn first(&self) -> Option<LocalPos> {
        self.by_pos.keys().next().copied()
    }

    /// Everything parked.
    pub(crate) fn ids(&self) -> impl Iterator<Item = EntryId> {
        self.by_pos.values().map(|(id, ..)| *id)
    }

    /// Positions waiting for entries or for their lane, in order.
    pub(crate) fn waiting_for_entries(&self) -> Vec<LocalPos> {
        self.by_pos.iter().filter(|(_, (.., w))| w.holds_lane()).map(|(pos, _)| *pos).collect()
    }

    /// Positions waiting for file bytes, of the entries that `which` wants.
    pub(crate) fn waiting_for_chunks(&self, which: impl Fn(&EntryId) -> bool) -> Vec<LocalPos> {
        let files = self.by_pos.iter().filter(|(_, (id, _, w))| *w == WaitsFor::Chunks && which(id));
        files.map(|(pos, _)| *pos).collect()
    }

    /// Parked entries of an origin.
    pub(crate) fn count(&self, origin: NodeId) -> usize {
        self.by_pos.values().filter(|(id, ..)| id.origin == origin).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Id, Seq};

    fn id(origin: u8, seq: u64) -> EntryId {
        EntryId { origin: NodeId([origin; 16]), epoch: Epoch::FIRST, seq: Seq::new(seq).unwrap() }
    }

    fn lane(precedence: Precedence) -> Lane {
        (NodeId([1; 16]), StreamId::Channel(Id::from_block([9; 16])), precedence)
    }

    #[test]
    fn an_entry_behind_a_parked_one_waits_and_another_class_does_not() {
        let mut parked = Parked::default();
        parked.park(LocalPos(5), id(1, 5), lane(Precedence::Routine), WaitsFor::Cause(id(1, 2)));
        assert!(parked.blocks(&lane(Precedence::Routine), id(1, 6)));
        assert!(!parked.blocks(&lane(Precedence::Flash), id(1, 6)));
        parked.release(LocalPos(5));
        assert!(!parked.blocks(&lane(Precedence::Routine), id(1, 6)));
        assert_eq!(parked.first(), None);
    }

    /// A batch with a thread's root was lost with the link; the next batch, with a reply, had arrived. The root came
    /// again behind the reply, waited for its turn in the channel, and the reply waited for the root: for ever.
    #[test]
    fn a_cause_that_arrives_late_does_not_queue_behind_what_waits_for_it() {
        let mut parked = Parked::default();
        parked.park(LocalPos(5), id(1, 8), lane(Precedence::Routine), WaitsFor::Cause(id(1, 3)));
        assert!(!parked.blocks(&lane(Precedence::Routine), id(1, 3)));
        assert!(parked.blocks(&lane(Precedence::Routine), id(1, 9)));
    }

    #[test]
    fn a_file_on_its_way_holds_the_cursor_but_blocks_nobody() {
        let mut parked = Parked::default();
        parked.park(LocalPos(3), id(1, 3), lane(Precedence::Deferred), WaitsFor::Chunks);
        assert!(!parked.blocks(&lane(Precedence::Deferred), id(1, 4)));
        assert_eq!(parked.first(), Some(LocalPos(3)));
        assert_eq!(parked.waiting_for_chunks(|_| true), vec![LocalPos(3)]);
    }

    #[test]
    fn causes_of_third_nodes_and_of_this_node_are_not_waited_for() {
        let mut accounted = Accounted::default();
        let (me, origin) = (NodeId([1; 16]), NodeId([2; 16]));
        let causes = [id(1, 7), id(3, 7), id(2, 7)];
        assert_eq!(accounted.first_missing(me, origin, &causes), Some(id(2, 7)));
        accounted.insert_ranges(origin, Epoch::FIRST, &RangeSet::from(7..=7));
        assert_eq!(accounted.first_missing(me, origin, &causes), None);
    }
}
