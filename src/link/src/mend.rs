//! Own entries that this node lost and the peer holds: asked for, given back.
//!
//! ```text
//!  lost here --Recall--> held there? --yes--> Returned (in parts, in the entry's class) --> Output::Restore
//!                                    `--no--> Gone ----------------------------------------> Output::NotReturned
//! ```
//! The other direction, entries of the peer that were lost here, needs no more than a question ([`Frame::Again`]): the
//! sender still holds them and sends them once more. See `receiver` and `sender`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::{EntryId, Epoch, NodeId, Outbound, OutboundError, Precedence, RangeSet, Seq};
use wire::entry::ENTRY_BYTES_MAX;
use wire::frame::{Assembly, Fragment, Frame, Numbers, PART_OVERHEAD, Packed};

use crate::limits::{EPOCHS_MAX, RANGES_PER_FRAME};
use crate::output::{Incoming, LinkError, Output};
use crate::partial::Partials;
use crate::progress::{take_epoch, union_into};
use crate::sender::SET_OVERHEAD;

type Number = (Epoch, Seq);

/// Numbers looked up for one frame: what is not held costs a lookup and no bytes.
const LOOKUPS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Mend {
    me: NodeId,
    peer: NodeId,
    compression: i32,
    /// Own entries that are missed and that the peer may hold.
    missed: BTreeMap<Epoch, RangeSet>,
    /// Of these, what was not asked for on this connection.
    to_ask: BTreeMap<Epoch, RangeSet>,
    /// Entries that are partly back, oldest first.
    partial: Partials<Number>,
    /// What the peer misses of its own entries.
    to_give: BTreeMap<Epoch, RangeSet>,
    giving: Option<Giving>,
    gone: BTreeMap<Epoch, RangeSet>,
}

#[derive(Debug)]
struct Giving {
    number: Number,
    class: Precedence,
    packed: Packed,
    offset: u32,
}

impl Mend {
    pub(crate) fn new(me: NodeId, peer: NodeId, compression: i32) -> Self {
        Self {
            me,
            peer,
            compression,
            missed: BTreeMap::new(),
            to_ask: BTreeMap::new(),
            partial: Partials::default(),
            to_give: BTreeMap::new(),
            giving: None,
            gone: BTreeMap::new(),
        }
    }

    /// A connection begins: what is still missed is asked for again.
    pub(crate) fn connected(&mut self) {
        self.to_ask = self.missed.clone();
    }

    pub(crate) fn disconnected(&mut self) {
        self.to_ask.clear();
        self.to_give.clear();
        self.giving = None;
        self.gone.clear();
    }

    /// These own entries are exactly those that are missed and that the peer may hold.
    pub(crate) fn miss(&mut self, missed: BTreeMap<Epoch, RangeSet>) {
        for (epoch, numbers) in &missed {
            let known = self.missed.get(epoch).cloned().unwrap_or_default();
            union_into(&mut self.to_ask, *epoch, &numbers.difference(&known));
        }
        for (epoch, numbers) in &mut self.to_ask {
            *numbers = missed.get(epoch).map_or_else(RangeSet::new, |missed| numbers.intersection(missed));
        }
        self.missed = missed;
    }

    /// A part of what was asked for.
    pub(crate) fn returned(&mut self, f: &Fragment, outputs: &mut VecDeque<Output>) -> Result<(), LinkError> {
        let number = (f.epoch, f.seq);
        if !self.missed.get(&f.epoch).is_some_and(|set| set.contains(f.seq.get())) {
            return Ok(());
        }
        let begun = self.partial.take(&number).filter(|assembly| assembly.takes(&f.part));
        let mut assembly = begun.unwrap_or_else(|| Assembly::of(&f.part));
        assembly.add(&f.part);
        if !assembly.is_complete() {
            for (epoch, seq) in self.partial.keep(number, assembly) {
                union_into(&mut self.to_ask, epoch, &RangeSet::from(seq.get()..=seq.get()));
            }
            return Ok(());
        }
        let bytes = assembly.unpack(ENTRY_BYTES_MAX)?;
        let entry = wire::decode_entry(&bytes)?;
        if entry.header.id != (EntryId { origin: self.me, epoch: f.epoch, seq: f.seq }) {
            return Err(LinkError::Protocol("it returned another entry than was asked for"));
        }
        let hash = wire::entry_hash(&bytes)?;
        outputs.push_back(Output::Restore(Incoming { entry: Arc::new(entry), bytes: bytes.into(), hash }));
        Ok(())
    }

    /// The peer does not hold these either.
    pub(crate) fn gone(&mut self, f: &Numbers, outputs: &mut VecDeque<Output>) {
        let Some(missed) = self.missed.get_mut(&f.epoch) else { return };
        let ranges = missed.intersection(&f.numbers);
        if !ranges.is_empty() {
            *missed = missed.difference(&ranges);
            outputs.push_back(Output::NotReturned { epoch: f.epoch, ranges });
        }
    }

    /// The peer misses these of its own entries; `stored` are those that are durable here.
    pub(crate) fn recalled(&mut self, f: &Numbers, stored: &RangeSet) -> Result<(), LinkError> {
        // Never looked up one by one: a peer may name as many numbers as there are.
        let held = f.numbers.intersection(stored);
        union_into(&mut self.to_give, f.epoch, &held);
        union_into(&mut self.gone, f.epoch, &f.numbers.difference(&held));
        let ranges: usize = self.to_give.values().chain(self.gone.values()).map(RangeSet::ranges_len).sum();
        if ranges > RangeSet::RANGES_MAX || self.gone.len() > EPOCHS_MAX {
            return Err(LinkError::Protocol("it recalls more at a time than allowed"));
        }
        Ok(())
    }

    /// The class in which something waits to be given back.
    pub(crate) fn waits(&mut self, outbound: &dyn Outbound) -> Result<Option<Precedence>, OutboundError> {
        for _ in 0..LOOKUPS_MAX {
            if self.giving.is_some() {
                break;
            }
            let Some((epoch, n)) = self.to_give.iter().find_map(|(e, set)| Some((*e, set.first()?))) else { break };
            if let Some(set) = self.to_give.get_mut(&epoch) {
                set.remove(n);
            }
            let Some(seq) = Seq::new(n) else { continue };
            match outbound.received(EntryId { origin: self.peer, epoch, seq })? {
                Some(held) => {
                    let packed = Packed::new(&held.bytes, self.compression);
                    let class = held.entry.header.precedence;
                    self.giving = Some(Giving { number: (epoch, seq), class, packed, offset: 0 });
                }
                None => drop(self.gone.entry(epoch).or_default().insert(n)),
            }
        }
        self.to_give.retain(|_, set| !set.is_empty());
        Ok(self.giving.as_ref().map(|giving| giving.class))
    }

    /// A part of what is given back, if that is of this class.
    pub(crate) fn next_part(&mut self, class: Precedence, bytes_max: usize) -> Option<Frame> {
        let mut giving = self.giving.take_if(|giving| giving.class == class)?;
        let (epoch, seq) = giving.number;
        let part = giving.packed.part(giving.offset, bytes_max.saturating_sub(PART_OVERHEAD));
        giving.offset += part.bytes.len() as u32;
        if giving.offset < giving.packed.total() {
            self.giving = Some(giving);
        }
        Some(Frame::Returned(Fragment { epoch, seq, part }))
    }

    pub(crate) fn has_control(&self) -> bool {
        self.to_ask.values().chain(self.gone.values()).any(|set| !set.is_empty())
    }

    pub(crate) fn next_control(&mut self, bytes_max: usize) -> Option<Frame> {
        if let Some((epoch, numbers)) = take_epoch(&mut self.to_ask, bytes_max - SET_OVERHEAD, RANGES_PER_FRAME) {
            return Some(Frame::Recall(Numbers { epoch, numbers }));
        }
        let (epoch, numbers) = take_epoch(&mut self.gone, bytes_max - SET_OVERHEAD, RANGES_PER_FRAME)?;
        Some(Frame::Gone(Numbers { epoch, numbers }))
    }
}
