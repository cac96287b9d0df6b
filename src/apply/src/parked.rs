//! Entries that are here but must wait. Pure.

use std::collections::{BTreeMap, BTreeSet};

use model::{Cause, EntryId, Epoch, LocalPos, NodeId, Precedence, RangeSet, StreamId};

/// Numbers of each origin that have ended here, whatever the outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounted(BTreeMap<(NodeId, Epoch), RangeSet>);

impl Accounted {
    /// Has this entry ended here?
    pub(crate) fn contains(&self, id: EntryId) -> bool {
        self.0.get(&(id.origin, id.epoch)).is_some_and(|set| set.contains(id.seq.get()))
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

/// Order is kept within one of these.
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
}

/// Parked entries by position. Bounded by what the journal holds: about 100 bytes for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parked {
    by_pos: BTreeMap<LocalPos, (EntryId, Lane, WaitsFor)>,
    lanes: BTreeMap<Lane, BTreeSet<LocalPos>>,
}

impl Parked {
    /// Sets an entry aside.
    pub(crate) fn park(&mut self, pos: LocalPos, id: EntryId, lane: Lane, waits_for: WaitsFor) {
        // A file's bytes may take hours; nothing in its lane but other files' bytes, which need no order.
        if waits_for != WaitsFor::Chunks {
            self.lanes.entry(lane).or_default().insert(pos);
        }
        self.by_pos.insert(pos, (id, lane, waits_for));
    }

    /// Takes an entry out again.
    pub(crate) fn release(&mut self, pos: LocalPos) {
        if let Some((_, lane, _)) = self.by_pos.remove(&pos)
            && let Some(set) = self.lanes.get_mut(&lane)
        {
            set.remove(&pos);
            if set.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Is an earlier entry of this lane waiting?
    pub(crate) fn blocks(&self, lane: &Lane, pos: LocalPos) -> bool {
        self.lanes.get(lane).and_then(BTreeSet::first).is_some_and(|first| *first < pos)
    }

    /// The lowest parked position: the cursor must not pass it.
    pub(crate) fn first(&self) -> Option<LocalPos> {
        self.by_pos.keys().next().copied()
    }

    /// Positions waiting for entries or for their lane, in order.
    pub(crate) fn waiting_for_entries(&self) -> Vec<LocalPos> {
        self.by_pos.iter().filter(|(_, (.., w))| *w != WaitsFor::Chunks).map(|(pos, _)| *pos).collect()
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
        assert!(parked.blocks(&lane(Precedence::Routine), LocalPos(6)));
        assert!(!parked.blocks(&lane(Precedence::Flash), LocalPos(6)));
        parked.release(LocalPos(5));
        assert!(!parked.blocks(&lane(Precedence::Routine), LocalPos(6)));
        assert_eq!(parked.first(), None);
    }

    #[test]
    fn a_file_on_its_way_holds_the_cursor_but_blocks_nobody() {
        let mut parked = Parked::default();
        parked.park(LocalPos(3), id(1, 3), lane(Precedence::Deferred), WaitsFor::Chunks);
        assert!(!parked.blocks(&lane(Precedence::Deferred), LocalPos(4)));
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
