//! How quinn is set up for thin, slow and lossy links.
//!
//! The rate is kept by the [`crate::governor`]; the window here only has to be large enough not to be in the way, and
//! small enough that a link slower than configured does not fill the modem's queue. Loss does not change it:
//! on a radio, loss says nothing about congestion.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::BitsPerSecond;
use quinn::congestion::{Controller, ControllerFactory};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, PathStats, TransportConfig, VarInt};
use quinn_proto::RttEstimator;

use crate::governor::time_on_link;

/// A full datagram on the wire: 1,200 bytes of UDP payload and the IPv4 and UDP headers.
pub(crate) const FULL_DATAGRAM: u64 = 1_228;

/// The session speaks up once a minute on each side (`link::limits::KEEPALIVE`) and gives up after two and a half, so
/// quinn needs no keep-alive of its own: an idle link costs 134 B a minute each way, measured. This only ends connections that no session looks after.
const IDLE_MAX: Duration = Duration::from_secs(190);

const _: () =
    assert!(IDLE_MAX.as_secs() > link::limits::QUIET_MAX.as_secs(), "the session decides first, and says why");

/// Frames on their way at the same time; each has a stream of its own, and half of them may wait for their confirmation: 4.7 MB
/// of slices that fill a datagram, what 25 Mbit/s carry in 600 ms with the repetitions at 30 % loss.
pub(crate) const STREAMS_MAX: u32 = 8192;

/// Below this rate a probe for a larger datagram costs more link time than larger datagrams would ever save.
const MTU_PROBING_FROM: BitsPerSecond = BitsPerSecond(128_000);

/// The rate that a connection's window follows; changed while the connection lives.
#[derive(Clone, Debug)]
pub(crate) struct SharedRate(Arc<AtomicU64>);

impl SharedRate {
    pub(crate) fn new(rate: BitsPerSecond) -> Self {
        Self(Arc::new(AtomicU64::new(rate.0)))
    }

    pub(crate) fn set(&self, rate: BitsPerSecond) {
        self.0.store(rate.0, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> BitsPerSecond {
        BitsPerSecond(self.0.load(Ordering::Relaxed))
    }
}

/// How long an acknowledgement may wait for company: 18 datagrams, which it costs less than 1 % of even when 30 % are lost
/// and it names 64 gaps in 200 bytes. From about 6 Mbit/s up [`ACK_EVERY`] comes first.
fn ack_delay(rate: BitsPerSecond) -> Duration {
    time_on_link(18 * FULL_DATAGRAM, rate).clamp(Duration::from_millis(25), Duration::from_millis(250))
}

/// Datagrams per acknowledgement. quinn names at most 64 gaps: at 30 % loss they reach back over 300 datagrams, so nine
/// acknowledgements in a row must be lost before something is taken for lost that had arrived.
const ACK_EVERY: u32 = 32;

/// How long one attempt to connect may take: both sides' keys with their post-quantum share are about six full
/// datagrams, and losses double that; twelve each way, and six seconds of round trips.
pub(crate) fn handshake_patience(rate: BitsPerSecond) -> Duration {
    Duration::from_secs(6) + time_on_link(24 * FULL_DATAGRAM, rate)
}

/// What is assumed before anything was measured. The first packets wait for their turn on the link; repeating them earlier
/// would only make it longer.
fn initial_rtt(rate: BitsPerSecond) -> Duration {
    Duration::from_millis(333) + time_on_link(2 * FULL_DATAGRAM, rate)
}

/// The settings of one connection over a link of `rate`.
pub(crate) fn transport(rate: &SharedRate) -> Arc<TransportConfig> {
    let at_start = rate.get();
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY))
        .max_ack_delay(Some(ack_delay(at_start)))
        // A gap is no reason to hurry: on a lossy link every third datagram follows one.
        .reordering_threshold(VarInt::from_u32(0));
    config
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(4))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX).expect("190 s fit")))
        .initial_rtt(initial_rtt(at_start))
        .initial_mtu(1_200)
        .mtu_discovery_config((at_start >= MTU_PROBING_FROM).then(MtuDiscoveryConfig::default))
        .ack_frequency_config(Some(acks))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(16 << 20))
        // What waits is bounded by who writes (see `pipe`): a limit here would let bulk block flash.
        .send_window(64 << 20)
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .allow_spin(false)
        .congestion_controller_factory(Arc::new(RateWindow::new(rate.clone())));
    Arc::new(config)
}

/// Bytes that may be on their way: what the link carries in two round trips and during the wait of six acknowledgements,
/// since bursts of loss swallow several in a row, and eight datagrams so that a very thin link always has one to send. The
/// queue in the modem is kept short by the rate, not by this.
pub(crate) fn window_bytes(rate: BitsPerSecond, round_trip: Duration) -> u64 {
    let millis = round_trip.as_millis() as u64 * 2 + 6 * ack_delay(rate).as_millis() as u64;
    rate.bytes_in_millis(millis) + 8 * FULL_DATAGRAM
}

/// Bytes that may still be handed to quinn while `outstanding_bytes` in `frames` frames are not confirmed.
///
/// A window's worth may be on its way. What is repeated stays here for a round trip or two more, so the loss of the path
/// comes on top: at 20 % a frame in two datagrams is repeated every third time.
pub(crate) fn room(rate: BitsPerSecond, path: &PathStats, outstanding_bytes: u64, frames: usize) -> u64 {
    if frames >= STREAMS_MAX as usize / 2 {
        return 0;
    }
    let window = window_bytes(rate, path.rtt);
    // An outage loses everything; that says nothing about the path.
    let lost_percent = (path.lost_packets * 100 / path.sent_packets.max(1)).min(30);
    (window + window * 3 * lost_percent / 100).saturating_sub(outstanding_bytes)
}

/// How long a round trip is remembered as the shortest. Longer than any queue of ours stands, shorter than it takes an
/// operator to notice that the link changed from radio to satellite.
const SHORTEST_KEPT: Duration = Duration::from_secs(20);

/// The window of a link with a configured rate.
#[derive(Clone)]
struct RateWindow {
    rate: SharedRate,
    /// quinn reports the assumption until it has measured.
    assumed: Duration,
    /// Shortest round trips seen, ascending, each newer than the one before it.
    shortest: VecDeque<(Instant, Duration)>,
}

impl RateWindow {
    fn new(rate: SharedRate) -> Self {
        Self { assumed: initial_rtt(rate.get()), rate, shortest: VecDeque::new() }
    }

    fn sample(&mut self, now: Instant, round_trip: Duration) {
        if round_trip == self.assumed {
            return;
        }
        while self.shortest.back().is_some_and(|(_, kept)| *kept >= round_trip) {
            self.shortest.pop_back();
        }
        self.shortest.push_back((now, round_trip));
        while self.shortest.front().is_some_and(|(at, _)| now.duration_since(*at) > SHORTEST_KEPT) {
            self.shortest.pop_front();
        }
        // Rising round trips make a sample per acknowledgement: keep few, the newest always.
        if self.shortest.len() > 64 {
            self.shortest.remove(1);
        }
    }
}

impl Controller for RateWindow {
    fn on_ack(&mut self, now: Instant, _sent: Instant, _bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.sample(now, rtt.get());
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        match self.shortest.front() {
            Some((_, round_trip)) => window_bytes(self.rate.get(), *round_trip),
            None => self.initial_window(),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        window_bytes(self.rate.get(), Duration::from_millis(600))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl ControllerFactory for RateWindow {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        // The assumption is the one that was configured, whatever the rate is by the time the path changes.
        Box::new(Self { shortest: VecDeque::new(), ..(*self).clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn loss_does_not_shrink_the_window_and_a_new_rate_moves_it() {
        let rate = SharedRate::new(BitsPerSecond(256_000));
        let mut window = RateWindow::new(rate.clone());
        let start = clock::now();
        window.sample(start, Duration::from_millis(600));
        let before = window.window();
        for _ in 0..1_000 {
            window.on_congestion_event(start, start, true, 1_200);
        }
        assert_eq!(window.window(), before);
        assert!(before >= BitsPerSecond(256_000).bytes_in_millis(750), "a round trip and a quarter fits: {before}");
        rate.set(BitsPerSecond(2_000_000));
        assert!(window.window() > 4 * before);
    }

    #[test]
    fn a_queue_below_us_does_not_grow_the_window_but_a_longer_path_does() {
        let mut window = RateWindow::new(SharedRate::new(BitsPerSecond(256_000)));
        let start = clock::now();
        for s in 0..10 {
            window.sample(start + Duration::from_secs(s), Duration::from_millis(40 + 100 * s));
        }
        let queued = window.window();
        assert_eq!(queued, window_bytes(BitsPerSecond(256_000), Duration::from_millis(40)));
        for s in 10..40 {
            window.sample(start + Duration::from_secs(s), Duration::from_millis(640));
        }
        assert_eq!(window.window(), window_bytes(BitsPerSecond(256_000), Duration::from_millis(640)));
    }

    #[test]
    fn what_was_only_assumed_does_not_count_as_the_shortest_round_trip() {
        let rate = BitsPerSecond(1_000_000);
        let mut window = RateWindow::new(SharedRate::new(rate));
        let start = clock::now();
        window.sample(start, initial_rtt(rate));
        window.sample(start, Duration::from_millis(640));
        assert_eq!(window.window(), window_bytes(rate, Duration::from_millis(640)));
    }

    #[test]
    fn a_very_thin_link_always_has_a_datagram_to_send() {
        assert!(window_bytes(BitsPerSecond(1), Duration::ZERO) >= 8 * FULL_DATAGRAM);
    }
}
