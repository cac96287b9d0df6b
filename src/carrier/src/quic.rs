//! How quinn is set up for thin, slow and lossy links.
//!
//! How fast a link may be filled is found out by [`shaper::rate`] and kept by the [`crate::governor`], datagram by datagram;
//! the window here only has to be large enough not to be in the way. Loss changes neither: on a radio, it says nothing
//! about congestion.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::BitsPerSecond;
use quinn::congestion::{Controller, ControllerFactory};
use quinn::{AckFrequencyConfig, ConnectionStats, IdleTimeout, MtuDiscoveryConfig, PathStats, TransportConfig, VarInt};
use quinn_proto::RttEstimator;
use shaper::{Losses, rate};

use crate::governor::{SLACK, time_on_link};
use crate::prober::PathView;
use crate::spare::SpareView;

/// UDP payload that every path takes.
pub(crate) const MTU_FIRST: u16 = 1_200;

/// A full datagram on the wire: 1,200 bytes of UDP payload and the IPv4 and UDP headers.
pub(crate) const FULL_DATAGRAM: u64 = 1_200 + HEADERS;

/// Of IPv4 and UDP.
const HEADERS: u64 = 28;

/// quinn sends a datagram only while a full one fits into the window, whatever its size.
const PROBE_ROOM: u64 = 1_500;

/// A probe: headers, QUIC's own with its tag, and a datagram frame with nothing in it.
pub(crate) const PROBE_BYTES: u64 = HEADERS + 30;

/// A connection outlives outages: what comes back is found by probes of 58 bytes, without a handshake of six full datagrams.
/// The keeper sends signs of life as the link needs them, or none for months where it must emit nothing while idle, and gives
/// up in the end, so quinn needs no keep-alive of its own. This only ends connections that nobody looks after.
const IDLE_MAX: Duration = Duration::from_secs(100 * 86_400);

const _: () =
    assert!(IDLE_MAX.as_secs() > link::limits::QUIET_MAX.as_secs(), "the session decides first, and says why");

/// Frames on their way at the same time; each has a stream of its own, and half of them may wait for their confirmation: 4.7 MB
/// of slices that fill a datagram, what 25 Mbit/s carry in 600 ms with the repetitions at 30 % loss.
pub(crate) const STREAMS_MAX: u32 = 8192;

/// Below this rate a probe for a larger datagram costs more link time than larger datagrams would ever save.
const MTU_PROBING_FROM: BitsPerSecond = BitsPerSecond(1_000_000);

/// What a connection may send: the operator's ceiling, and what its controller makes of it. Both change while the connection
/// lives.
#[derive(Clone, Debug)]
pub(crate) struct SharedRate(Arc<Rates>);

#[derive(Debug)]
struct Rates {
    ceiling: AtomicU64,
    /// At most the ceiling.
    pace: AtomicU64,
    /// What probes may add to the window until something is confirmed: a silent link has a full one.
    probes: AtomicU64,
    /// Bytes that are on their way and neither confirmed nor given up.
    in_flight: AtomicU64,
    losses: Mutex<Losses>,
}

impl SharedRate {
    pub(crate) fn new(ceiling: BitsPerSecond) -> Self {
        Self(Arc::new(Rates {
            ceiling: AtomicU64::new(ceiling.0),
            pace: AtomicU64::new(ceiling.0),
            probes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            losses: Mutex::default(),
        }))
    }

    pub(crate) fn set_ceiling(&self, ceiling: BitsPerSecond) {
        let former = self.0.ceiling.swap(ceiling.0, Ordering::Relaxed);
        if self.0.pace.load(Ordering::Relaxed) >= former {
            self.0.pace.store(ceiling.0, Ordering::Relaxed);
        }
    }

    pub(crate) fn ceiling(&self) -> BitsPerSecond {
        BitsPerSecond(self.0.ceiling.load(Ordering::Relaxed))
    }

    /// What the link was found to carry, at most the ceiling.
    pub(crate) fn pace(&self) -> BitsPerSecond {
        BitsPerSecond(self.0.pace.load(Ordering::Relaxed)).min(self.ceiling())
    }

    /// Lets one datagram more on its way than the window.
    pub(crate) fn allow_probe(&self) {
        self.0.probes.fetch_add(PROBE_ROOM, Ordering::Relaxed);
    }

    fn in_flight(&self) -> u64 {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// What the link is found to carry.
    pub(crate) fn set_pace(&self, pace: BitsPerSecond) {
        self.0.pace.store(pace.0, Ordering::Relaxed);
    }
}

/// How long an acknowledgement may wait for company: 18 datagrams, which it costs less than 1 % of even when 30 % are lost
/// and it names 64 gaps in 200 bytes. From about 6 Mbit/s up [`ACK_EVERY`] comes first.
pub(crate) fn ack_delay(rate: BitsPerSecond) -> Duration {
    time_on_link(18 * FULL_DATAGRAM, rate).clamp(Duration::from_millis(25), Duration::from_millis(150))
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
    Duration::from_millis(80) + time_on_link(2 * FULL_DATAGRAM, rate)
}

/// The settings of one connection over a link of `rate`.
pub(crate) fn transport(rate: &SharedRate) -> Arc<TransportConfig> {
    let at_start = rate.ceiling();
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY))
        .max_ack_delay(Some(ack_delay(at_start)))
        // A gap is no reason to hurry: on a lossy link every third datagram follows one.
        .reordering_threshold(VarInt::from_u32(0));
    config
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(4))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX).expect("a hundred days fit")))
        .initial_rtt(initial_rtt(at_start))
        .initial_mtu(MTU_FIRST)
        .mtu_discovery_config((at_start >= MTU_PROBING_FROM).then(MtuDiscoveryConfig::default))
        .ack_frequency_config(Some(acks))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(16 << 20))
        // What waits is bounded by who writes (see `pipe`): a limit here would let bulk block flash.
        .send_window(64 << 20)
        .send_fairness(false)
        // Probes are empty, and nobody reads them.
        .datagram_receive_buffer_size(Some(64))
        .allow_spin(false)
        .congestion_controller_factory(Arc::new(PacerFactory(rate.clone())));
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
/// What is neither confirmed nor on its way waits in quinn, and what was lost waits behind it for its repetition: more of
/// it would make every loss dearer and gain nothing. Bounded it is by what a window and its repetitions are, for a path
/// that confirms nothing: at 20 % a frame in two datagrams is repeated every third time.
pub(crate) fn room(rate: &SharedRate, path: &PathStats, outstanding_bytes: u64, frames: usize) -> u64 {
    if frames >= STREAMS_MAX as usize / 2 {
        return 0;
    }
    let (pace, in_flight) = (rate.pace(), rate.in_flight());
    let window = window_bytes(pace, path.rtt);
    // An outage loses everything; that says nothing about the path.
    let lost_percent = (path.lost_packets * 100 / path.sent_packets.max(1)).min(30);
    // Of a frame that two datagrams carried, one may be confirmed: the more are lost, the more frames wait for their other half.
    let halves = in_flight * lost_percent.max(10) * 5 / 200;
    let waits = outstanding_bytes.saturating_sub(in_flight + halves);
    let may_wait = pace.bytes_in_millis(WAITS_MILLIS) + 4 * FULL_DATAGRAM;
    (window + window * 3 * lost_percent / 100).saturating_sub(outstanding_bytes).min(may_wait.saturating_sub(waits))
}

/// How much may wait in quinn: as long as whoever hands frames over may be late on a busy machine.
const WAITS_MILLIS: u64 = 25;

/// What the prober goes by.
pub(crate) fn path_view(rate: &SharedRate, stats: &ConnectionStats) -> PathView {
    let (round_trip, streamed) = (stats.path.rtt, stats.frame_tx.stream);
    let arrived = stats.udp_rx.datagrams;
    let ack_delay = ack_delay(rate.ceiling()).min(round_trip.max(Duration::from_millis(25)));
    PathView { round_trip, ack_delay, probe_takes: time_on_link(PROBE_BYTES, rate.pace()), streamed, arrived }
}

/// Of the datagrams whose fate is known, in thousandths, those that were lost. What is still on its way says nothing: at a start
/// that is most of them.
pub(crate) fn lost_permille(rate: &SharedRate, path: &PathStats) -> u64 {
    let on_its_way = rate.in_flight() / u64::from(path.current_mtu.max(1));
    let mut losses = rate.0.losses.lock().expect("nothing panics while holding it");
    losses.note(path.sent_packets.saturating_sub(on_its_way), path.lost_packets);
    losses.permille()
}

/// What a link is taken to lose, in thousandths, before the fate of [`KNOWN_FROM`] datagrams is known. A start is few short frames
/// that wait for one another, each of which would wait for its repetition; of a link without losses the copies take what stands idle.
const LOST_PERMILLE_ASSUMED: u64 = 100;

/// With a handshake's ten or so.
const KNOWN_FROM: u64 = 24;

/// Where a datagram takes longer, copies are too dear for a guess, as those of a handshake are.
fn is_unknown(rate: &SharedRate, path: &PathStats) -> bool {
    let on_its_way = rate.in_flight() / u64::from(path.current_mtu.max(1));
    let is_thin = time_on_link(FULL_DATAGRAM, rate.ceiling()) > crate::firsts::DATAGRAM_TAKES_MAX;
    !is_thin && path.sent_packets.saturating_sub(on_its_way) < KNOWN_FROM
}

/// How what waits for its confirmation is copied while there is nothing else to do.
pub(crate) fn spare_view(rate: &SharedRate, path: &PathStats) -> SpareView {
    let ack_delay = ack_delay(rate.ceiling()).min(path.rtt.max(Duration::from_millis(25)));
    let assumed = if is_unknown(rate, path) { LOST_PERMILLE_ASSUMED } else { 0 };
    SpareView {
        times: shaper::wanted(lost_permille(rate, path).max(assumed)),
        spacing: shaper::spacing(path.rtt),
        late: path.rtt * 3 / 2 + 2 * ack_delay,
    }
}

/// The longest frame that fits one datagram on a path that takes `mtu` bytes of UDP payload: a frame in two datagrams is lost
/// with either of them. QUIC's header and tag are 27 bytes while few packets are on their way, the head of the stream is at most 9.
pub(crate) fn frame_max(mtu: u16) -> usize {
    usize::from(mtu.max(1_200)) - 36
}

/// What a frame comes to on the wire: IP, UDP and QUIC headers and the tag of each datagram, and the head of its stream. A
/// short frame is alone in its datagram, unless others wait with it.
pub(crate) fn bytes_with_headers(frame_bytes: usize, mtu: u16) -> usize {
    frame_bytes + frame_bytes.div_ceil(frame_max(mtu)) * HEADER_BYTES
}

/// 28 of UDP and IPv4, 27 of QUIC with its tag, 7 of the stream.
const HEADER_BYTES: usize = 62;

/// quinn's side of [`shaper::rate`]: the window comes from here, the pace goes to the governor.
#[derive(Clone)]
struct Pacer {
    shared: SharedRate,
    controller: rate::Controller,
    /// Zero of the controller's time.
    base: Instant,
}

impl Pacer {
    fn new(shared: SharedRate, base: Instant) -> Self {
        let ceiling = shared.ceiling();
        let settings = rate::Settings { ceiling, datagram: FULL_DATAGRAM, ack_delay: ack_delay(ceiling), burst: SLACK };
        Self { shared, controller: rate::Controller::new(settings), base }
    }

    fn tell(&mut self) {
        self.controller.set_ceiling(self.shared.ceiling());
        self.shared.set_pace(self.controller.rate());
    }
}

impl Controller for Pacer {
    fn on_sent(&mut self, _now: Instant, bytes: u64, _last_packet_number: u64) {
        self.shared.0.in_flight.fetch_add(bytes, Ordering::Relaxed);
        self.controller.sent(bytes + HEADERS);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.controller.acknowledged(now - self.base, bytes + HEADERS, now - sent);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.controller.settled(now - self.base, in_flight);
        self.shared.0.probes.store(0, Ordering::Relaxed);
        self.shared.0.in_flight.store(in_flight, Ordering::Relaxed);
        self.tell();
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, _persistent: bool, lost_bytes: u64) {
        self.controller.lost(now - self.base, lost_bytes);
        let less = |in_flight: u64| Some(in_flight.saturating_sub(lost_bytes));
        // Always some.
        let _ = self.shared.0.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.tell();
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        let window = self.controller.window().unwrap_or_else(|| self.initial_window());
        window + self.shared.0.probes.load(Ordering::Relaxed)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        window_bytes(self.shared.ceiling(), Duration::from_millis(600))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes a [`Pacer`] for each path of a connection: a new path is measured anew.
struct PacerFactory(SharedRate);

impl ControllerFactory for PacerFactory {
    fn build(self: Arc<Self>, now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        self.0.set_pace(self.0.ceiling());
        Box::new(Pacer::new(self.0.clone(), now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_new_ceiling_counts_at_once_and_a_measured_pace_outlives_it() {
        let shared = SharedRate::new(BitsPerSecond(256_000));
        shared.set_ceiling(BitsPerSecond(64_000));
        assert_eq!(shared.pace(), BitsPerSecond(64_000));
        shared.set_ceiling(BitsPerSecond(2_000_000));
        assert_eq!(shared.pace(), BitsPerSecond(2_000_000));
        shared.set_pace(BitsPerSecond(500_000));
        shared.set_ceiling(BitsPerSecond(1_000_000));
        assert_eq!(shared.pace(), BitsPerSecond(500_000));
    }

    #[test]
    fn a_link_is_taken_for_a_lossy_one_until_it_has_shown_what_it_loses() {
        let (shared, mut path) = (SharedRate::new(BitsPerSecond(256_000)), PathStats::default());
        assert_eq!(spare_view(&shared, &path).times, 3, "a greeting may be the first that is lost");
        path.sent_packets = KNOWN_FROM;
        assert_eq!(spare_view(&shared, &path).times, 1);
        let thin = SharedRate::new(BitsPerSecond(64_000));
        assert_eq!(spare_view(&thin, &PathStats::default()).times, 1, "a copy takes time there");
    }

    #[test]
    fn loss_changes_neither_window_nor_pace() {
        let shared = SharedRate::new(BitsPerSecond(256_000));
        let start = clock::now();
        let mut pacer = Pacer::new(shared.clone(), start);
        let before = pacer.window();
        for _ in 0..1_000 {
            pacer.on_congestion_event(start, start, true, 1_200);
        }
        assert_eq!((pacer.window(), shared.pace()), (before, BitsPerSecond(256_000)));
    }

    #[test]
    fn a_very_thin_link_always_has_a_datagram_to_send() {
        assert!(window_bytes(BitsPerSecond(1), Duration::ZERO) >= 8 * FULL_DATAGRAM);
    }
}
