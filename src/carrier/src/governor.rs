//! The last step before the wire: may this datagram leave, and when?
//!
//! Every peer has a lane with its rate; every datagram to it is charged there with its UDP and IP headers, be it data,
//! an acknowledgement, a repetition or part of a handshake. Over any span `t` a lane passes at most
//! `rate x (t + SLACK)` bytes plus one datagram. While emission is not allowed nothing passes at all: the gate is
//! tested under the same lock that is held while sending, so when [`Governor::set_open`] returns, the last
//! datagram has left.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use model::BitsPerSecond;

use crate::quic::SharedRate;

/// How late a timer may fire without costing capacity. The kernel and tokio wake within 1 to 2 ms; a busy box needs more.
pub(crate) const SLACK: Duration = Duration::from_millis(10);

/// Lanes of addresses that have not proved to be a peer. 1,024 handshakes at once are far more than a fleet
/// of 1,000 edges starts in one moment; beyond it answers are dropped and repeated later.
const STRANGERS_MAX: usize = 1024;

/// A remote address as seen through one of this node's sockets: two links may lead to the same address.
pub(crate) type Place = (u32, SocketAddr);

/// One peer's share of the link, or one stranger's.
#[derive(Debug)]
pub(crate) struct Lane {
    bits_per_second: AtomicU64,
    /// What the present or last connection found the link to carry.
    pace: Mutex<Option<SharedRate>>,
    /// When the next datagram may leave.
    free_at: Mutex<Instant>,
    up: AtomicU64,
    down: AtomicU64,
    /// Bytes that may still leave; [`UNLIMITED`] without a budget.
    allowance: AtomicU64,
    /// Nothing leaves, whatever else allows it.
    silent: AtomicBool,
}

/// The allowance of a lane without a budget.
const UNLIMITED: u64 = u64::MAX;

impl Lane {
    pub(crate) fn new(rate: BitsPerSecond, now: Instant) -> Self {
        Self {
            bits_per_second: AtomicU64::new(rate.0.max(1)),
            pace: Mutex::new(None),
            free_at: Mutex::new(now),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            allowance: AtomicU64::new(UNLIMITED),
            silent: AtomicBool::new(false),
        }
    }

    /// From here on no more leaves than was allowed with [`Lane::allow`].
    pub(crate) fn limit(&self) {
        self.allowance.store(0, Ordering::Relaxed);
    }

    /// Bytes more that may leave.
    pub(crate) fn allow(&self, bytes: u64) {
        self.allowance.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that may still leave.
    pub(crate) fn allowance(&self) -> u64 {
        self.allowance.load(Ordering::Relaxed)
    }

    /// The same, taken back.
    pub(crate) fn take_allowance(&self) -> u64 {
        self.allowance.swap(0, Ordering::Relaxed)
    }

    /// Notes what left.
    fn charge(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
        if self.allowance() != UNLIMITED {
            let spend = |left: u64| Some(left.saturating_sub(bytes));
            // Always some.
            let _ = self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        }
    }

    /// Notes what arrived.
    pub(crate) fn arrived(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What another lane counted, before it was known whose it was, becomes this one's.
    pub(crate) fn take_over(&self, former: &Self) {
        let (up, down) = former.wire_bytes();
        self.charge(up);
        self.arrived(down);
        let busy_until = *former.free_at();
        let mut free_at = self.free_at();
        *free_at = (*free_at).max(busy_until);
    }

    fn passes(&self, bytes: u64) -> bool {
        !self.silent.load(Ordering::Relaxed) && bytes <= self.allowance()
    }

    pub(crate) fn rate(&self) -> BitsPerSecond {
        BitsPerSecond(self.bits_per_second.load(Ordering::Relaxed))
    }

    pub(crate) fn set_rate(&self, rate: BitsPerSecond) {
        self.bits_per_second.store(rate.0.max(1), Ordering::Relaxed);
    }

    /// From here on this connection's controller may slow the lane down.
    pub(crate) fn follow(&self, pace: &SharedRate) {
        *self.pace.lock().expect("nothing panics while holding a pace") = Some(pace.clone());
    }

    /// The configured rate, or what the link was found to carry if that is less.
    fn pace(&self) -> BitsPerSecond {
        let pace = self.pace.lock().expect("nothing panics while holding a pace");
        pace.as_ref().map_or(self.rate(), |found| found.pace().min(self.rate()))
    }

    /// Bytes on the wire so far, headers included: (sent, received).
    pub(crate) fn wire_bytes(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    fn free_at(&self) -> MutexGuard<'_, Instant> {
        self.free_at.lock().expect("nothing panics while holding a lane")
    }
}

/// How long `bytes` occupy a link of that rate.
pub(crate) fn time_on_link(bytes: u64, rate: BitsPerSecond) -> Duration {
    let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(rate.0.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<E> {
    /// It was handed to the socket and charged.
    Sent,
    /// It was dropped: emission is not allowed, the lane has nothing left, or too many strangers want an answer.
    Dropped,
    /// Its lane is busy until then.
    NotBefore(Instant),
    /// The socket did not take it; nothing was charged.
    Failed(E),
}

#[derive(Debug)]
pub(crate) struct Governor {
    state: Mutex<State>,
    sockets: AtomicU32,
}

#[derive(Debug)]
struct State {
    open: bool,
    lanes: HashMap<Place, Arc<Lane>>,
    strangers: HashMap<Place, Arc<Lane>>,
    stranger_rate: BitsPerSecond,
    suppressed: u64,
}

impl Governor {
    /// `stranger_rate`: for addresses that are not known to be a peer. The caller takes the lowest rate of any peer,
    /// so that the answer to a handshake never exceeds what its link may carry.
    pub(crate) fn new(open: bool, stranger_rate: BitsPerSecond) -> Self {
        let (lanes, strangers) = (HashMap::new(), HashMap::new());
        let state = Mutex::new(State { open, lanes, strangers, stranger_rate, suppressed: 0 });
        Self { state, sockets: AtomicU32::new(0) }
    }

    /// A number that no other socket has.
    pub(crate) fn next_socket(&self) -> u32 {
        self.sockets.fetch_add(1, Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding the governor")
    }

    /// Opens or closes the gate. Once this returns, what was said holds for every datagram.
    pub(crate) fn set_open(&self, open: bool) {
        self.state().open = open;
    }

    /// Silences a lane or lets it speak. Once this returns, what was said holds for every datagram of it.
    pub(crate) fn silence(&self, lane: &Lane, silent: bool) {
        let _state = self.state();
        lane.silent.store(silent, Ordering::Relaxed);
    }

    pub(crate) fn set_stranger_rate(&self, rate: BitsPerSecond) {
        let mut state = self.state();
        state.stranger_rate = rate;
        for lane in state.strangers.values() {
            lane.set_rate(rate);
        }
    }

    /// Datagrams to `place` go over that peer's lane from here on. What a stranger's lane at this place
    /// counted becomes the peer's.
    pub(crate) fn assign(&self, place: Place, lane: &Arc<Lane>) {
        let mut state = self.state();
        if let Some(stranger) = state.strangers.remove(&canonical(place)) {
            lane.take_over(&stranger);
        }
        state.lanes.insert(canonical(place), Arc::clone(lane));
    }

    /// Forgets a place, unless it belongs to another lane by now.
    pub(crate) fn release(&self, place: Place, lane: &Arc<Lane>) {
        let mut state = self.state();
        if state.lanes.get(&canonical(place)).is_some_and(|l| Arc::ptr_eq(l, lane)) {
            state.lanes.remove(&canonical(place));
        }
    }

    /// Datagrams that emission control, an operator's order or a budget held back.
    pub(crate) fn suppressed(&self) -> u64 {
        self.state().suppressed
    }

    /// Sends one datagram of `payload_bytes` if it may leave at `now`. `send` must not block.
    pub(crate) fn submit<E>(
        &self,
        to: Place,
        payload_bytes: usize,
        now: Instant,
        send: impl FnOnce() -> Result<(), E>,
    ) -> Verdict<E> {
        let mut state = self.state();
        if !state.open {
            state.suppressed += 1;
            return Verdict::Dropped;
        }
        let Some(lane) = state.lane(to, now) else { return Verdict::Dropped };
        state.pass(&lane, wire_len(to.1, payload_bytes), now, send)
    }

    /// Sends `bytes`, headers included, over a lane if they may leave at `now`. `send` must not block.
    pub(crate) fn pass<E>(
        &self,
        lane: &Lane,
        bytes: u64,
        now: Instant,
        send: impl FnOnce() -> Result<(), E>,
    ) -> Verdict<E> {
        let mut state = self.state();
        if !state.open {
            state.suppressed += 1;
            return Verdict::Dropped;
        }
        state.pass(lane, bytes, now, send)
    }

    /// How fast what goes there may leave; `None` where every byte is counted.
    pub(crate) fn rate_to(&self, to: Place, now: Instant) -> Option<BitsPerSecond> {
        let lane = self.state().lane(to, now)?;
        (lane.allowance() == UNLIMITED).then(|| lane.pace())
    }

    /// It is a peer's address: one that this node dials, or that has proved itself.
    pub(crate) fn is_assigned(&self, place: Place) -> bool {
        self.state().lanes.contains_key(&canonical(place))
    }

    /// Counts what arrived.
    pub(crate) fn received(&self, from: Place, payload_bytes: usize, datagrams: usize, now: Instant) {
        if let Some(lane) = self.state().lane(from, now) {
            lane.arrived(payload_bytes as u64 + header_len(from.1) * datagrams as u64);
        }
    }
}

impl State {
    /// The gate is open.
    fn pass<E>(&mut self, lane: &Lane, bytes: u64, now: Instant, send: impl FnOnce() -> Result<(), E>) -> Verdict<E> {
        if !lane.passes(bytes) {
            self.suppressed += 1;
            return Verdict::Dropped;
        }
        let mut free_at = lane.free_at();
        if now < *free_at {
            return Verdict::NotBefore(*free_at);
        }
        if let Err(e) = send() {
            return Verdict::Failed(e);
        }
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        *free_at = (*free_at).max(earliest) + time_on_link(bytes, lane.pace());
        lane.charge(bytes);
        Verdict::Sent
    }

    fn lane(&mut self, place: Place, now: Instant) -> Option<Arc<Lane>> {
        let place = canonical(place);
        if let Some(lane) = self.lanes.get(&place).or_else(|| self.strangers.get(&place)) {
            return Some(Arc::clone(lane));
        }
        if self.strangers.len() >= STRANGERS_MAX {
            // A lane that is free owes nothing: forgetting it lets nobody exceed a rate.
            self.strangers.retain(|_, lane| *lane.free_at() > now);
        }
        if self.strangers.len() >= STRANGERS_MAX {
            return None;
        }
        let lane = Arc::new(Lane::new(self.stranger_rate, now));
        self.strangers.insert(place, Arc::clone(&lane));
        Some(lane)
    }
}

/// An IPv4 address and its IPv6-mapped form are one place.
fn canonical((socket, address): Place) -> Place {
    (socket, SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// IP and UDP headers of a datagram to or from `address`: 20 + 8 or 40 + 8 bytes.
fn header_len(address: SocketAddr) -> u64 {
    match address.ip().to_canonical() {
        IpAddr::V4(_) => 28,
        IpAddr::V6(_) => 48,
    }
}

fn wire_len(to: SocketAddr, payload_bytes: usize) -> u64 {
    payload_bytes as u64 + header_len(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const OK: fn() -> Result<(), ()> = || Ok(());

    fn address(port: u16) -> Place {
        (0, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn a_lane_never_passes_more_than_its_rate_over_any_span() {
        let rate = BitsPerSecond(256_000);
        let start = clock::now();
        let governor = Governor::new(true, rate);
        let lane = Arc::new(Lane::new(rate, start));
        governor.assign(address(1), &lane);
        // Offered: one full datagram every millisecond, five times the rate, with a pause in the middle.
        let mut sent = Vec::new();
        for ms in (0..20_000u64).filter(|ms| !(8_000..11_000).contains(ms)) {
            let now = start + Duration::from_millis(ms);
            if governor.submit(address(1), 1_200, now, OK) == Verdict::Sent {
                sent.push(ms);
            }
        }
        for window in [10u64, 1_000, 10_000] {
            for (i, first) in sent.iter().enumerate() {
                let bytes: u64 = sent[i..].iter().take_while(|ms| **ms < first + window).map(|_| 1_228).sum();
                let allowed = rate.bytes_in_millis(window + 10) + 1_228;
                assert!(bytes <= allowed, "{bytes} bytes in {window} ms, {allowed} are allowed");
            }
        }
        let total = sent.len() as u64 * 1_228;
        assert!(total * 100 >= rate.bytes_in_millis(17_000) * 98, "the capacity is used: {total}");
        assert_eq!(lane.wire_bytes().0, total);
    }

    #[test]
    fn a_closed_gate_passes_nothing_and_counts_it() {
        let start = clock::now();
        let governor = Governor::new(false, BitsPerSecond(9_600));
        let verdict = governor.submit(address(1), 100, start, || -> Result<(), ()> { panic!("emitted") });
        assert_eq!(verdict, Verdict::Dropped);
        assert_eq!(governor.suppressed(), 1);
        governor.set_open(true);
        assert_eq!(governor.submit(address(1), 100, start, OK), Verdict::Sent);
    }

    #[test]
    fn a_handshake_counts_against_the_peer_it_turns_out_to_be() {
        let start = clock::now();
        let governor = Governor::new(true, BitsPerSecond(9_600));
        assert_eq!(governor.submit(address(1), 1_172, start, OK), Verdict::Sent);
        let lane = Arc::new(Lane::new(BitsPerSecond(9_600), start));
        governor.assign(address(1), &lane);
        assert_eq!(lane.wire_bytes(), (1_200, 0));
        let Verdict::NotBefore(free) = governor.submit(address(1), 100, start, OK) else { panic!("too early") };
        assert!(free >= start + Duration::from_millis(985), "1,200 bytes take a second at 9.6 kbit/s");
    }

    #[test]
    fn strangers_are_bounded_and_idle_ones_make_room() {
        let start = clock::now();
        let governor = Governor::new(true, BitsPerSecond(9_600));
        for port in 0..STRANGERS_MAX as u16 {
            assert_eq!(governor.submit(address(port), 1_172, start, OK), Verdict::Sent);
        }
        assert_eq!(governor.submit(address(60_000), 100, start, OK), Verdict::Dropped);
        let later = start + Duration::from_secs(2);
        assert_eq!(governor.submit(address(60_000), 100, later, OK), Verdict::Sent);
    }

    #[test]
    fn a_lane_passes_its_allowance_and_not_a_byte_more_and_nothing_while_silent() {
        let start = clock::now();
        let governor = Governor::new(true, BitsPerSecond(9_600));
        let lane = Arc::new(Lane::new(BitsPerSecond(1_000_000_000), start));
        lane.limit();
        governor.assign(address(1), &lane);
        assert_eq!(governor.submit(address(1), 72, start, OK), Verdict::Dropped);
        lane.allow(1_050);
        let sent = (0..100)
            .filter(|ms| governor.submit(address(1), 72, start + Duration::from_millis(*ms), OK) == Verdict::Sent);
        assert_eq!(sent.count(), 10);
        assert_eq!((lane.wire_bytes().0, lane.take_allowance(), lane.allowance()), (1_000, 50, 0));
        lane.allow(1_000);
        governor.silence(&lane, true);
        let later = start + Duration::from_secs(1);
        assert_eq!(
            governor.submit(address(1), 72, later, || -> Result<(), ()> { panic!("emitted") }),
            Verdict::Dropped
        );
        governor.silence(&lane, false);
        assert_eq!(governor.submit(address(1), 72, later, OK), Verdict::Sent);
    }

    #[test]
    fn two_links_to_one_address_have_their_own_lanes() {
        let start = clock::now();
        let governor = Governor::new(true, BitsPerSecond(9_600));
        let [first, second] = [(1, address(1).1), (2, address(1).1)];
        for place in [first, second] {
            governor.assign(place, &Arc::new(Lane::new(BitsPerSecond(9_600), start)));
            assert_eq!(governor.submit(place, 1_172, start, OK), Verdict::Sent);
        }
        assert!(matches!(governor.submit(first, 1_172, start, OK), Verdict::NotBefore(_)));
    }

    #[test]
    fn a_datagram_the_socket_refused_is_not_charged() {
        let start = clock::now();
        let governor = Governor::new(true, BitsPerSecond(9_600));
        assert_eq!(governor.submit(address(1), 1_172, start, || Err("full")), Verdict::Failed("full"));
        assert_eq!(governor.submit(address(1), 1_172, start, OK), Verdict::Sent);
    }
}
