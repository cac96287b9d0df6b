//! Entries that are here but must wait. Pure.

use std::collections::BTreeMap;

use model::{Cause, EntryId, Epoch, Id, LocalPos, NodeId, Precedence, RangeSet};

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

/// What an entry waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// An entry that must end first.
    Cause(Cause),
    /// The entry before it in its stream and precedence.
    Earlier(EntryId),
    /// Bytes of a file.
    Chunks,
    /// This order to purge, until it is carried out.
    Purge(Id),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    id: EntryId,
    precedence: Precedence,
    waits_for: WaitsFor,
}

/// Parked entries by position. Bounded by what the journal holds: about 200 bytes for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parked {
    by_pos: BTreeMap<LocalPos, Place>,
    positions: BTreeMap<EntryId, LocalPos>,
    /// Entries, here or not, that something waits for, and the most urgent of what does.
    wanted: BTreeMap<EntryId, Precedence>,
    /// Entries that were applied before their turn, and what they jumped over: what follows them waits for that. Where
    /// they stand holds the cursor, so that a restart learns it again.
    jumped: BTreeMap<EntryId, (LocalPos, EntryId)>,
}

impl Parked {
    /// Sets an entry aside. `urgency` as from [`Parked::urgency`].
    pub(crate) fn park(
        &mut self,
        pos: LocalPos,
        id: EntryId,
        precedence: Precedence,
        urgency: Precedence,
        waits_for: WaitsFor,
    ) {
        self.by_pos.insert(pos, Place { id, precedence, waits_for });
        self.positions.insert(id, pos);
        if let WaitsFor::Cause(cause) = waits_for {
            self.want(cause, urgency);
        }
    }

    /// How urgent an entry is: as much as the most urgent one that waits for it.
    pub(crate) fn urgency(&self, id: EntryId, own: Precedence) -> Precedence {
        self.wanted.get(&id).map_or(own, |wanted| own.min(*wanted))
    }

    fn want(&mut self, mut id: EntryId, urgency: Precedence) {
        loop {
            let wanted = self.wanted.entry(id).or_insert(urgency);
            let known = std::mem::replace(wanted, urgency.min(*wanted));
            let place = self.positions.get(&id).and_then(|pos| self.by_pos.get(pos));
            match place.map(|place| place.waits_for) {
                // What it waits for is as urgent. A cause is older than what needs it, so this ends.
                Some(WaitsFor::Cause(cause)) if cause < id => id = cause,
                Some(WaitsFor::Cause(_) | WaitsFor::Earlier(_) | WaitsFor::Chunks | WaitsFor::Purge(_)) | None => {
                    return;
                }
            }
            if known < urgency {
                return;
            }
        }
    }

    /// Takes an entry out again.
    pub(crate) fn release(&mut self, pos: LocalPos) {
        if let Some(place) = self.by_pos.remove(&pos) {
            self.positions.remove(&place.id);
        }
    }

    /// As [`Parked::release`], by identity.
    pub(crate) fn release_entry(&mut self, id: EntryId) {
        if let Some(pos) = self.positions.get(&id).copied() {
            self.release(pos);
        }
    }

    /// The lowest position that the cursor must not pass.
    pub(crate) fn first(&self) -> Option<LocalPos> {
        let jumped = self.jumped.values().map(|(pos, _)| *pos).min();
        self.by_pos.keys().next().copied().into_iter().chain(jumped).min()
    }

    /// What an entry must still wait for, whose predecessor is `before`: that one, or what it jumped over.
    pub(crate) fn blocked_by(&self, mut before: EntryId, ended: impl Fn(EntryId) -> bool) -> Option<EntryId> {
        while ended(before) {
            // What was jumped over is older.
            before = self.jumped.get(&before).map(|(_, over)| *over).filter(|over| *over < before)?;
        }
        Some(before)
    }

    /// An entry goes although `over`, which stands before it, has not ended.
    pub(crate) fn jump(&mut self, id: EntryId, pos: LocalPos, over: EntryId) {
        self.jumped.insert(id, (pos, over));
    }

    /// Entries that went before their turn, and what they jumped over.
    pub(crate) fn jumped(&self) -> impl Iterator<Item = (EntryId, EntryId)> {
        self.jumped.iter().map(|(id, (_, over))| (*id, *over))
    }

    /// Everything parked.
    pub(crate) fn ids(&self) -> impl Iterator<Item = EntryId> {
        self.by_pos.values().map(|place| place.id)
    }

    /// Positions, in order, of those whose wait for another entry has come to its end: that one has ended, or something
    /// more urgent needs them and they need not keep their place.
    pub(crate) fn can_go(&mut self, ended: &Accounted) -> Vec<LocalPos> {
        self.wanted.retain(|id, _| !ended.contains(*id));
        let over =
            |id: &EntryId| self.jumped.get(id).and_then(|(_, over)| self.blocked_by(*over, |id| ended.contains(id)));
        let jumped: BTreeMap<_, _> =
            self.jumped.iter().filter_map(|(id, (pos, _))| Some((*id, (*pos, over(id)?)))).collect();
        self.jumped = jumped;
        let goes = |place: &Place| match place.waits_for {
            WaitsFor::Cause(cause) => ended.contains(cause),
            WaitsFor::Earlier(before) => {
                ended.contains(before) || self.urgency(place.id, place.precedence) < place.precedence
            }
            WaitsFor::Chunks | WaitsFor::Purge(_) => false,
        };
        self.by_pos.iter().filter(|(_, place)| goes(place)).map(|(pos, _)| *pos).collect()
    }

    /// Positions waiting for entries, in order.
    pub(crate) fn waiting_for_entries(&self) -> Vec<LocalPos> {
        let waits = |place: &Place| match place.waits_for {
            WaitsFor::Cause(_) | WaitsFor::Earlier(_) => true,
            WaitsFor::Chunks | WaitsFor::Purge(_) => false,
        };
        self.by_pos.iter().filter(|(_, place)| waits(place)).map(|(pos, _)| *pos).collect()
    }

    /// Positions waiting for file bytes, of the entries that `which` wants.
    pub(crate) fn waiting_for_chunks(&self, which: impl Fn(&EntryId) -> bool) -> Vec<LocalPos> {
        let files = self.by_pos.iter().filter(|(_, place)| place.waits_for == WaitsFor::Chunks && which(&place.id));
        files.map(|(pos, _)| *pos).collect()
    }

    /// Every entry that brought an order to purge: it may have come under more than one number.
    pub(crate) fn waiting_for_purge(&self, order: Id) -> Vec<EntryId> {
        self.by_pos.values().filter(|place| place.waits_for == WaitsFor::Purge(order)).map(|place| place.id).collect()
    }

    /// Parked entries of an origin.
    pub(crate) fn count(&self, origin: NodeId) -> usize {
        self.by_pos.values().filter(|place| place.id.origin == origin).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Seq;

    fn id(origin: u8, seq: u64) -> EntryId {
        EntryId { origin: NodeId([origin; 16]), epoch: Epoch::FIRST, seq: Seq::new(seq).unwrap() }
    }

    fn ended(numbers: &[u64]) -> Accounted {
        let mut accounted = Accounted::default();
        let numbers = numbers.iter().copied().collect::<RangeSet>();
        accounted.insert_ranges(NodeId([1; 16]), Epoch::FIRST, &numbers);
        accounted
    }

    #[test]
    fn an_entry_goes_when_the_one_before_it_has_ended() {
        let mut parked = Parked::default();
        let routine = Precedence::Routine;
        parked.park(LocalPos(5), id(1, 5), routine, routine, WaitsFor::Earlier(id(1, 4)));
        assert_eq!(parked.can_go(&ended(&[3])), []);
        assert_eq!(parked.can_go(&ended(&[4])), [LocalPos(5)]);
        parked.release(LocalPos(5));
        assert_eq!(parked.first(), None);
    }

    #[test]
    fn what_something_urgent_needs_leaves_its_place_and_so_does_what_that_needs() {
        let mut parked = Parked::default();
        let (routine, flash) = (Precedence::Routine, Precedence::Flash);
        parked.park(LocalPos(1), id(1, 5), routine, routine, WaitsFor::Earlier(id(1, 4)));
        parked.park(LocalPos(2), id(1, 6), routine, routine, WaitsFor::Cause(id(1, 5)));
        parked.park(LocalPos(3), id(1, 8), routine, routine, WaitsFor::Earlier(id(1, 7)));
        assert_eq!(parked.can_go(&ended(&[])), [], "another routine entry gives no right of way");
        parked.park(LocalPos(4), id(1, 9), flash, flash, WaitsFor::Cause(id(1, 6)));
        assert_eq!(parked.urgency(id(1, 6), routine), flash);
        assert_eq!(parked.can_go(&ended(&[])), [LocalPos(1)]);
        assert_eq!(parked.urgency(id(1, 8), routine), routine);
    }

    #[test]
    fn what_follows_an_entry_that_jumped_waits_for_what_that_jumped_over() {
        let mut parked = Parked::default();
        parked.jump(id(1, 5), LocalPos(7), id(1, 4));
        parked.jump(id(1, 6), LocalPos(8), id(1, 5));
        assert_eq!(parked.blocked_by(id(1, 6), |i| i == id(1, 5) || i == id(1, 6)), Some(id(1, 4)));
        assert_eq!(parked.first(), Some(LocalPos(7)));
        let all = ended(&[4, 5, 6]);
        assert_eq!(parked.blocked_by(id(1, 6), |i| all.contains(i)), None);
        parked.can_go(&all);
        assert_eq!(parked.first(), None);
    }

    #[test]
    fn a_file_on_its_way_holds_the_cursor() {
        let mut parked = Parked::default();
        parked.park(LocalPos(3), id(1, 3), Precedence::Deferred, Precedence::Deferred, WaitsFor::Chunks);
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
