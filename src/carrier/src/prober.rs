//! When a silent link is asked whether it is there.
//!
//! QUIC notices a loss by what is confirmed after it. When nothing follows, it waits, and waits twice as long each time: after
//! an outage of half a minute that is half a minute more. A probe of a few bytes is what follows. It goes the way of
//! everything else, through the governor, so it obeys the budget and emission control.
//!
//! Whoever dialled also sends some while nothing of its own waits. An acknowledgement of the handshake stops quinn's timer for all
//! others (quinn-proto 0.11.19); what the peer says first is then confirmed with the next datagram that leaves, or after
//! [`crate::quic`]'s 32 datagrams. Without a confirmation the peer does not repeat what was lost, which may be the greeting that this
//! side waits for.

use std::time::{Duration, Instant};

/// A link that something waits for is asked this often whether it is back: it is found within three seconds although a probe
/// or its answer may get lost.
const GAP_MAX: Duration = Duration::from_secs(1);

/// And not more often than that.
const GAP_MIN: Duration = Duration::from_millis(100);

/// Frames in a row from which on the end of them is probed before anything is late: a lone post should not cost a probe.
const BURST: u32 = 16;

/// Probes at the end of a burst, since they get lost too.
const EARLY: u32 = 3;

/// Probes of the dialling side at a start, since they get lost too.
const OWED: u32 = 6;

/// What is known about the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathView {
    pub(crate) round_trip: Duration,
    /// How long the peer's acknowledgement may wait for company.
    pub(crate) ack_delay: Duration,
    /// What a probe takes on the link.
    pub(crate) probe_takes: Duration,
    /// Frames, or parts of them, that QUIC has sent so far, repetitions included.
    pub(crate) streamed: u64,
    /// Datagrams that have arrived so far.
    pub(crate) arrived: u64,
}

/// Watches one connection.
#[derive(Debug)]
pub(crate) struct Prober {
    /// Frames since nothing waited for its confirmation.
    burst: u32,
    /// When QUIC was last seen to have sent a frame, and how many it had sent then.
    sent_last: Instant,
    streamed: u64,
    /// When something was last seen to have arrived, and how much had then.
    heard: Instant,
    arrived: u64,
    probed_last: Option<Instant>,
    /// Since a frame was sent.
    probes: u32,
    /// Whoever dialled: since when it may have confirmed nothing, and how many probes may still carry it.
    owes: Option<(Instant, u32)>,
}

impl Prober {
    /// A connection came about. `dialled`: from this side.
    pub(crate) fn new(dialled: bool, now: Instant) -> Self {
        let owes = dialled.then_some((now, OWED));
        Self { burst: 0, sent_last: now, streamed: 0, heard: now, arrived: 0, probed_last: None, probes: 0, owes }
    }

    /// A frame was handed to QUIC; `waiting`: others are not confirmed yet.
    pub(crate) fn sent(&mut self, waiting: bool, now: Instant) {
        self.burst = if waiting { self.burst.saturating_add(1) } else { 1 };
        (self.sent_last, self.probes) = (now, 0);
    }

    /// Takes note of what has happened on the path.
    pub(crate) fn note(&mut self, path: &PathView, now: Instant) {
        if self.streamed != path.streamed {
            (self.streamed, self.sent_last, self.probes) = (path.streamed, now, 0);
            // What leaves by then carries the confirmation.
            if self.owed_at(path).is_some_and(|at| at <= now) {
                self.owes = None;
            }
        }
        if self.arrived != path.arrived {
            (self.arrived, self.heard) = (path.arrived, now);
        }
    }

    /// When to send a probe. `waiting`: something has not been confirmed.
    pub(crate) fn due(&self, path: &PathView, waiting: bool) -> Option<Instant> {
        let late = waiting.then(|| self.late(path));
        late.into_iter().chain(self.owed_at(path)).min()
    }

    /// quinn puts the confirmation into whatever leaves a round trip and the wait of an acknowledgement after those of the handshake.
    fn owed_at(&self, path: &PathView) -> Option<Instant> {
        self.owes.map(|(since, _)| since + path.round_trip + 2 * path.ack_delay)
    }

    fn late(&self, path: &PathView) -> Instant {
        let (after, gap) = if self.burst >= BURST && self.probes < EARLY {
            let early = (path.round_trip / 8).max(GAP_MIN / 5).max(4 * path.probe_takes);
            (early, early)
        } else {
            // By then a confirmation is late.
            (path.round_trip * 9 / 8 + path.ack_delay, self.gap(path))
        };
        let late = self.sent_last + after;
        self.probed_last.map_or(late, |at| late.max(at + gap))
    }

    /// Is a probe to be sent now? It counts as sent.
    pub(crate) fn probe(&mut self, path: &PathView, waiting: bool, now: Instant) -> bool {
        self.note(path, now);
        let due = self.due(path, waiting).is_some_and(|at| at <= now);
        if due {
            if self.owed_at(path).is_some_and(|at| at <= now) {
                self.owes = self.owes.and_then(|(_, left)| Some((now, left.checked_sub(1).filter(|left| *left > 0)?)));
            }
            self.probed_last = Some(now);
            self.probes = self.probes.saturating_add(1);
        }
        due
    }

    /// Between probes: half a round trip at first, longer while the link stays silent, and never more than a tenth of the
    /// link.
    fn gap(&self, path: &PathView) -> Duration {
        let silence = self.probed_last.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.heard));
        let gap = (path.round_trip / 2).max(silence / 64).clamp(GAP_MIN, GAP_MAX);
        gap.max(10 * path.probe_takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PATH: PathView = PathView {
        round_trip: Duration::from_millis(600),
        ack_delay: Duration::from_millis(100),
        probe_takes: Duration::from_millis(1),
        streamed: 0,
        arrived: 0,
    };

    /// When probes are sent while nothing arrives, in milliseconds.
    fn probes(prober: &mut Prober, path: &PathView, start: Instant, seconds: u64) -> Vec<u64> {
        (0..seconds * 1_000)
            .step_by(10)
            .filter(|ms| prober.probe(path, true, start + Duration::from_millis(*ms)))
            .collect()
    }

    #[test]
    fn a_silent_link_is_probed_every_second_for_as_long_as_something_waits() {
        let start = clock::now();
        let mut prober = Prober::new(false, start);
        prober.sent(false, start);
        let sent = probes(&mut prober, &PATH, start, 120);
        assert!(sent[0] >= 775, "a lone frame has time to be confirmed: {sent:?}");
        let gaps: Vec<u64> = sent.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| (100..=1_010).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().rev().take(50).all(|gap| *gap >= 1_000), "{gaps:?}");
    }

    #[test]
    fn the_end_of_a_burst_is_probed_at_once_and_not_while_it_lasts() {
        let start = clock::now();
        let mut prober = Prober::new(false, start);
        for ms in 0..1_000 {
            let now = start + Duration::from_millis(ms);
            prober.sent(ms > 0, now);
            assert!(!prober.probe(&PathView { streamed: ms, ..PATH }, true, now));
        }
        let end = start + Duration::from_millis(1_000);
        let sent = probes(&mut prober, &PathView { streamed: 999, ..PATH }, end, 1);
        assert!(sent[0] <= 100 && sent.len() >= 3, "{sent:?}");
    }

    #[test]
    fn whoever_dialled_confirms_what_it_hears_although_it_has_nothing_to_say() {
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut prober = Prober::new(true, start);
        let sent: Vec<u64> = (0..60_000).step_by(10).filter(|ms| prober.probe(&PATH, false, at(*ms))).collect();
        assert_eq!(sent, [800, 1_600, 2_400, 3_200, 4_000, 4_800], "several, since they get lost too");
        // Frames of its own carry the confirmation, but for those that left with the handshake.
        let mut prober = Prober::new(true, start);
        prober.note(&PathView { streamed: 2, ..PATH }, at(10));
        assert_eq!(prober.due(&PathView { streamed: 2, ..PATH }, false), Some(at(800)));
        prober.note(&PathView { streamed: 3, ..PATH }, at(800));
        assert_eq!(prober.due(&PathView { streamed: 3, ..PATH }, false), None);
        assert_eq!(Prober::new(false, start).due(&PATH, false), None);
    }

    #[test]
    fn probes_take_no_more_than_a_tenth_of_a_very_thin_link() {
        let start = clock::now();
        let mut prober = Prober::new(false, start);
        prober.sent(false, start);
        let thin = PathView { probe_takes: Duration::from_secs(2), ..PATH };
        let gaps: Vec<u64> = probes(&mut prober, &thin, start, 200).windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 20_000), "{gaps:?}");
    }
}
