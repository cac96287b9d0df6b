//! Copies of the datagrams of a handshake.
//!
//! Both sides need the five to eight datagrams of a handshake whole before anything else can follow, and QUIC waits twice as
//! long for each further repetition: at 30 % loss one handshake in four took six seconds. The link stands idle meanwhile, so
//! each of its datagrams is sent several times, which the other side drops where it was not needed. Nobody knows yet
//! what the link loses; where a datagram takes long, that is not worth it.
//!
//! Who has not proved that it receives at its address gets no more than three times what came from there, copies included
//! (RFC 9000, 8.1): else a forged address would make this node send much to somebody who never asked.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use model::BitsPerSecond;

use crate::governor::time_on_link;
use crate::quic::FULL_DATAGRAM;

/// Copies of one datagram: of five datagrams that are sent three times at 30 % loss all arrive in 87 %.
const COPIES: u32 = 2;

/// A link on which a datagram takes longer is left to QUIC: from 196 kbit/s up there are copies.
pub(crate) const DATAGRAM_TAKES_MAX: Duration = Duration::from_millis(50);

/// Datagrams that are copied in [`SPAN`]: one flight of a handshake and some repetitions. A peer that does not answer costs
/// no more.
const COPIED_MAX: usize = 8;

const SPAN: Duration = Duration::from_secs(10);

/// A copy whose time will come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) due: Instant,
    pub(crate) to: SocketAddr,
    /// The address of this node that the peer expects it from.
    pub(crate) from: Option<IpAddr>,
    pub(crate) datagram: Vec<u8>,
    /// It goes to a peer's address and to no stranger's.
    pub(crate) is_assigned: bool,
}

/// What went to and fro with a stranger.
#[derive(Debug)]
struct Stranger {
    since: Instant,
    received: u64,
    sent: u64,
}

/// RFC 9000, 8.1.
const AMPLIFICATION_MAX: u64 = 3;

/// Strangers whose bytes are counted; further ones get no copies.
const STRANGERS_MAX: usize = 1_024;

/// The copies that one socket has still to send.
#[derive(Debug, Default)]
pub(crate) struct Firsts {
    waiting: VecDeque<Copy>,
    /// Where datagrams were copied to of late, and when.
    copied: VecDeque<(Instant, SocketAddr)>,
    strangers: HashMap<SocketAddr, Stranger>,
}

impl Firsts {
    /// A datagram left `from` an address of this node `to` the peer's, over a link of that rate.
    pub(crate) fn sent(
        &mut self,
        datagram: &[u8],
        from: Option<IpAddr>,
        to: SocketAddr,
        rate: BitsPerSecond,
        is_assigned: bool,
        now: Instant,
    ) {
        if let Some(stranger) = self.strangers.get_mut(&to).filter(|_| !is_assigned) {
            stranger.sent += datagram.len() as u64;
        }
        let takes = time_on_link(FULL_DATAGRAM, rate);
        if !is_handshake(datagram) || takes > DATAGRAM_TAKES_MAX {
            return;
        }
        self.copied.retain(|(at, _)| now.saturating_duration_since(*at) < SPAN);
        if self.copied.iter().filter(|(_, place)| *place == to).count() >= COPIED_MAX
            || self.waiting.len() >= WAITING_MAX
        {
            return;
        }
        self.copied.push_back((now, to));
        // After the flight that it is of, and as long again.
        let apart = (6 * takes).max(Duration::from_millis(20));
        let copies =
            (1..=COPIES).map(|n| Copy { due: now + n * apart, to, from, datagram: datagram.to_vec(), is_assigned });
        self.waiting.extend(copies);
    }

    /// A datagram came from there. Once the peer speaks under the keys of a handshake, that is over.
    pub(crate) fn came(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        if is_handshake(datagram) {
            self.strangers.retain(|_, stranger| now.saturating_duration_since(stranger.since) < SPAN);
            if self.strangers.len() < STRANGERS_MAX || self.strangers.contains_key(&from) {
                let new = Stranger { since: now, received: 0, sent: 0 };
                self.strangers.entry(from).or_insert(new).received += datagram.len() as u64;
            }
        } else if !self.waiting.is_empty() {
            self.waiting.retain(|copy| copy.to != from);
        }
    }

    /// When the next copy is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|copy| copy.due).min()
    }

    /// A copy that is due at `now`.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Copy> {
        loop {
            let at = self.waiting.iter().position(|copy| copy.due <= now)?;
            let copy = self.waiting.remove(at)?;
            if copy.is_assigned || self.may_get(&copy) {
                return Some(copy);
            }
        }
    }

    /// What came from there by now allows for it.
    fn may_get(&mut self, copy: &Copy) -> bool {
        let len = copy.datagram.len() as u64;
        let Some(stranger) = self.strangers.get_mut(&copy.to) else { return false };
        let fits = stranger.sent + len <= AMPLIFICATION_MAX * stranger.received;
        stranger.sent += if fits { len } else { 0 };
        fits
    }

    /// Its lane is busy until then.
    pub(crate) fn later(&mut self, copy: Copy, due: Instant) {
        if let Some(stranger) = self.strangers.get_mut(&copy.to).filter(|_| !copy.is_assigned) {
            stranger.sent = stranger.sent.saturating_sub(copy.datagram.len() as u64);
        }
        self.waiting.push_front(Copy { due, ..copy });
    }
}

/// QUIC's long header: everything up to the keys that a handshake ends with.
pub(crate) fn is_handshake(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

/// A hub that many edges dial at once copies for some of them. 256 x 1.2 kB.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const RATE: BitsPerSecond = BitsPerSecond(1_000_000);

    fn peer() -> SocketAddr {
        ([10, 0, 0, 1], 7_800).into()
    }

    #[test]
    fn a_datagram_of_a_handshake_is_sent_three_times_and_others_once() {
        let (now, mut firsts) = (clock::now(), Firsts::default());
        firsts.sent(&[0x40; 100], None, peer(), RATE, true, now);
        assert_eq!(firsts.due(), None);
        firsts.sent(&[0xc0; 100], None, peer(), RATE, true, now);
        assert!(firsts.due().is_some_and(|due| due > now + Duration::from_millis(50)));
        let later = now + Duration::from_secs(1);
        let copies: Vec<Copy> = std::iter::from_fn(|| firsts.take(later)).collect();
        assert_eq!(copies.len(), 2);
        assert!(copies.iter().all(|copy| copy.datagram == [0xc0; 100] && copy.to == peer()));
    }

    #[test]
    fn nothing_is_copied_once_the_handshake_is_over_or_where_it_would_take_long() {
        let (now, mut firsts) = (clock::now(), Firsts::default());
        firsts.sent(&[0xc0; 100], None, peer(), BitsPerSecond(64_000), true, now);
        assert_eq!(firsts.due(), None);
        firsts.sent(&[0xc0; 100], None, peer(), RATE, true, now);
        firsts.came(&[0xc0; 100], peer(), now);
        assert!(firsts.due().is_some(), "its flight has other datagrams");
        firsts.came(&[0x40; 100], peer(), now);
        assert_eq!(firsts.due(), None);
    }

    #[test]
    fn a_peer_that_does_not_answer_costs_a_bounded_number_of_copies() {
        let (now, mut firsts) = (clock::now(), Firsts::default());
        for n in 0..100 {
            firsts.sent(&[0xc0; 100], None, peer(), RATE, true, now + Duration::from_millis(50 * n));
        }
        let copies = std::iter::from_fn(|| firsts.take(now + Duration::from_secs(60))).count();
        assert_eq!(copies, COPIED_MAX * COPIES as usize);
    }

    #[test]
    fn a_stranger_gets_no_more_than_three_times_what_came_from_it() {
        let (now, mut firsts) = (clock::now(), Firsts::default());
        let flight =
            |firsts: &mut Firsts| (0..3).for_each(|_| firsts.sent(&[0xc0; 1_200], None, peer(), RATE, false, now));
        let copies = |firsts: &mut Firsts| std::iter::from_fn(|| firsts.take(now + Duration::from_secs(1))).count();
        flight(&mut firsts);
        assert_eq!(copies(&mut firsts), 0, "nothing came from there");
        firsts.came(&[0xc0; 1_200], peer(), now);
        flight(&mut firsts);
        assert_eq!(copies(&mut firsts), 0, "the flight alone is three times as much");
        // An honest peer copies its greeting too.
        (0..2).for_each(|_| firsts.came(&[0xc0; 1_200], peer(), now));
        flight(&mut firsts);
        assert_eq!(copies(&mut firsts), 3, "nine came to six and these");
    }
}
