//! Parcels that this node and the peer hand to each other, for themselves or for nodes further on.
//!
//! ```text
//!  hand_over --> Carried, part by part, in the parcel's class -->  peer --> Output::TakeParcel (durable there)
//!  Output::ParcelKept <----------------- Kept (taken, refused) <--'
//! ```
//!
//! Invariants
//! - A parcel is offered until the peer has answered for it, over as many connections as that takes.
//! - What came of a parcel stays here over a lost connection, within [`PARTIAL_PARCELS_MAX`], and the peer is told how much.
//! - Nothing is answered before the shell has made the parcel durable.
//!
//! Not here: what is in a parcel and whether it is genuine (`wire::parcel`), which way it goes, where it rests (the shell).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::Precedence;
use wire::frame::{Assembly, Carried, Custody, CustodyRefusal, Frame, Kept, PART_OVERHEAD, Packed};
use wire::parcel::{PARCEL_BYTES_MAX, name_of};

use crate::limits::PARTIAL_PARCELS_MAX;
use crate::output::{LinkError, Output};

/// Whole parcels that are being made durable. A peer that hands over faster than the disk takes them waits.
const TAKING_MAX: usize = 8;

/// Answers that wait to be sent; a peer that does not read them gets no more of those that it will ask for again.
const ANSWERS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Transit {
    /// For the peer, by name.
    outgoing: BTreeMap<u64, Outgoing>,
    /// Those with bytes to send, by class.
    queues: [VecDeque<u64>; 5],
    /// Whose turn it is in a class: parcels and the node's own traffic share it frame by frame.
    own_turn: [bool; 5],
    /// From the peer, with when each grew last.
    incoming: BTreeMap<u64, (u64, Assembly)>,
    /// Counts parts.
    clock: u64,
    /// What it counted when the connection began.
    connected_at: u64,
    /// With the shell.
    taking: BTreeSet<u64>,
    /// Answered for good on this connection, the newest last: their parts may come twice.
    answered: VecDeque<u64>,
    answers: VecDeque<Kept>,
}

/// Copies of a part come within a few round trips.
const ANSWERED_MAX: usize = 256;

#[derive(Debug)]
struct Outgoing {
    class: Precedence,
    packed: Packed,
    sent: u32,
}

impl Transit {
    pub(crate) fn hand_over(&mut self, class: Precedence, parcel: Vec<u8>) -> u64 {
        let name = name_of(&parcel);
        if let Entry::Vacant(place) = self.outgoing.entry(name) {
            place.insert(Outgoing { class, packed: Packed::raw(parcel), sent: 0 });
            self.queues[class.index()].push_back(name);
        }
        name
    }

    pub(crate) fn withdraw(&mut self, name: u64) {
        if let Some(gone) = self.outgoing.remove(&name) {
            self.queues[gone.class.index()].retain(|other| *other != name);
        }
    }

    /// By class, bytes of the parcels that the peer has not answered for.
    pub(crate) fn handing_over(&self) -> [usize; 5] {
        let mut bytes = [0; 5];
        self.outgoing.values().for_each(|out| bytes[out.class.index()] += out.packed.total() as usize);
        bytes
    }

    /// Everything that is not answered for is offered anew; what is partly here is told.
    pub(crate) fn connected(&mut self) {
        self.connected_at = self.clock;
        self.queues = Default::default();
        for (name, out) in &mut self.outgoing {
            out.sent = 0;
            self.queues[out.class.index()].push_back(*name);
        }
        self.answers.clear();
        self.answered.clear();
        for (name, (_, assembly)) in &self.incoming {
            self.answers.push_back(Kept { parcel: *name, custody: Custody::Partly(assembly.held()) });
        }
    }

    pub(crate) fn carried(&mut self, carried: Carried, outputs: &mut VecDeque<Output>) -> Result<(), LinkError> {
        let Carried { parcel, part } = carried;
        if self.taking.contains(&parcel) || self.answered.contains(&parcel) {
            return Ok(());
        }
        self.clock += 1;
        if !self.incoming.contains_key(&parcel) && (self.taking.len() >= TAKING_MAX || !self.has_room()) {
            // Each further part of it is refused as well; one answer says so.
            if self.answers.len() < ANSWERS_MAX && self.answers.back().is_none_or(|last| last.parcel != parcel) {
                self.answer(parcel, Custody::Refused(CustodyRefusal::Busy));
            }
            return Ok(());
        }
        let (grew, assembly) = self.incoming.entry(parcel).or_insert_with(|| (0, Assembly::of(&part)));
        *grew = self.clock;
        if !assembly.takes(&part) {
            self.incoming.remove(&parcel);
            return Err(LinkError::Protocol("two parcels of one name"));
        }
        assembly.add(&part);
        if assembly.is_complete() {
            let whole = self.incoming.remove(&parcel).map(|(_, assembly)| assembly.unpack(PARCEL_BYTES_MAX));
            match whole {
                Some(Ok(bytes)) if name_of(&bytes) == parcel => {
                    self.taking.insert(parcel);
                    outputs.push_back(Output::TakeParcel { name: parcel, bytes });
                }
                Some(_) | None => self.answer(parcel, Custody::Refused(CustodyRefusal::Damaged)),
            }
        }
        Ok(())
    }

    /// Whether one more may be begun. What has not grown since the connection began may never grow again, and goes first.
    fn has_room(&mut self) -> bool {
        if self.incoming.len() < PARTIAL_PARCELS_MAX {
            return true;
        }
        let oldest = self.incoming.iter().min_by_key(|(_, (grew, _))| *grew).map(|(name, (grew, _))| (*name, *grew));
        match oldest {
            Some((name, grew)) if grew <= self.connected_at => self.incoming.remove(&name).is_some(),
            Some(_) | None => false,
        }
    }

    /// The shell has made a parcel durable, or will not.
    pub(crate) fn answer(&mut self, parcel: u64, custody: Custody) {
        self.taking.remove(&parcel);
        let comes_again = matches!(custody, Custody::Refused(why) if why.is_retryable());
        if !comes_again {
            self.answered.push_back(parcel);
            let surplus = self.answered.len().saturating_sub(ANSWERED_MAX);
            self.answered.drain(..surplus);
        }
        self.answers.push_back(Kept { parcel, custody });
    }

    pub(crate) fn kept(&mut self, kept: Kept, outputs: &mut VecDeque<Output>) {
        let Some(out) = self.outgoing.get_mut(&kept.parcel) else { return };
        match kept.custody {
            Custody::Partly(held) => out.sent = out.sent.max(held.min(out.packed.total().saturating_sub(1))),
            Custody::Taken | Custody::Refused(_) => {
                self.withdraw(kept.parcel);
                outputs.push_back(Output::ParcelKept { name: kept.parcel, custody: kept.custody });
            }
        }
    }

    pub(crate) fn waits(&self, class: Precedence) -> bool {
        !self.queues[class.index()].is_empty()
    }

    /// Is it a parcel's turn in a class where the node's own traffic may wait too?
    pub(crate) fn takes_turn(&mut self, class: Precedence) -> bool {
        let own = &mut self.own_turn[class.index()];
        *own = !*own;
        *own
    }

    pub(crate) fn next_part(&mut self, class: Precedence, bytes_max: usize) -> Option<Frame> {
        let queue = &mut self.queues[class.index()];
        let name = *queue.front()?;
        let out = self.outgoing.get_mut(&name)?;
        let part = out.packed.part(out.sent, bytes_max.saturating_sub(PART_OVERHEAD).max(1));
        out.sent = part.offset + part.bytes.len() as u32;
        if out.sent >= out.packed.total() {
            queue.pop_front();
        }
        Some(Frame::Carried(Carried { parcel: name, part }))
    }

    /// Was a parcel handed over that the peer has not answered for?
    pub(crate) fn awaits_answers(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(crate) fn next_control(&mut self) -> Option<Frame> {
        self.answers.pop_front().map(Frame::Kept)
    }
}
