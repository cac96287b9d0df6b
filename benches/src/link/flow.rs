//! What a transfer delivered over time, and what it cost on the link.

use std::sync::Mutex;
use std::time::Duration;

use crate::report::percentile;
use emulator::{Conditions, Fate, Passage};
use emulator::{Link, Span};

/// Bytes that the receiving application has, over time on the link's clock.
pub(crate) struct Delivered<'l> {
    link: &'l Link,
    samples: Mutex<Vec<(Duration, u64)>>,
}

impl<'l> Delivered<'l> {
    pub(crate) fn new(link: &'l Link) -> Self {
        Self { link, samples: Mutex::default() }
    }

    /// More bytes have arrived.
    pub(crate) fn add(&self, bytes: u64) {
        let mut samples = self.samples();
        let total = samples.last().map_or(0, |(_, total)| *total) + bytes;
        samples.push((self.link.now(), total));
    }

    /// So many bytes had arrived by `at`; nothing is noted while that does not change.
    pub(crate) fn total(&self, at: Duration, total: u64) {
        let mut samples = self.samples();
        if samples.last().is_none_or(|(_, before)| *before < total) && total > 0 {
            samples.push((at, total));
        }
    }

    /// When the first byte was there.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.samples().first().map(|(at, _)| *at)
    }

    /// Where the flow is steady: so long after the start-up, which lasts until four round trips after the first arrival if
    /// that comes late. Before it is known when that is, and when nothing came for [`FIRST_MAX`], it is the earliest it could be.
    pub(crate) fn steady_span(&self, plan: Plan) -> Span {
        let first = self.first().map_or(plan.began, |first| (first + plan.round_trip * 4).min(plan.began + FIRST_MAX));
        let from = first.max(plan.began + plan.start_up);
        Span { from, until: from + plan.measured }
    }

    /// Is everything measured that is to be?
    pub(crate) fn is_measured(&self, plan: Plan) -> bool {
        let now = self.link.now();
        let waits = self.first().is_none() && now < plan.began + FIRST_MAX;
        !waits && now >= self.steady_span(plan).until
    }

    /// When so many bytes were there.
    pub(crate) fn reached(&self, bytes: u64) -> Option<Duration> {
        self.samples().iter().find(|(_, total)| *total >= bytes).map(|(at, _)| *at)
    }

    /// Bytes and the exact time between the first and the last arrival within the span. Counting from an arrival to an
    /// arrival keeps pieces that come whole (a chunk, an interval) from being cut by the span's ends.
    pub(crate) fn within(&self, span: Span) -> Option<(u64, Span)> {
        let samples = self.samples();
        let mut inside = samples.iter().filter(|(at, _)| span.holds(*at));
        let first = inside.next()?;
        let last = inside.next_back()?;
        Some((last.1 - first.1, Span { from: first.0, until: last.0 }))
    }

    fn samples(&self) -> std::sync::MutexGuard<'_, Vec<(Duration, u64)>> {
        self.samples.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A transfer that has delivered nothing by then is not waited for.
const FIRST_MAX: Duration = Duration::from_secs(40);

/// When a flow is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) began: Duration,
    pub(crate) round_trip: Duration,
    /// Shortest time from the beginning that is not measured.
    pub(crate) start_up: Duration,
    pub(crate) measured: Duration,
}

/// Header bytes of a full packet: what carries no payload however well a sender does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Headers {
    /// IPv4 20, UDP 8, AEAD tag 16, QUIC short header and stream frame 12.
    Quic,
    /// IPv4 20, TCP with time stamps 32.
    Tcp,
}

impl Headers {
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::Quic => 56,
            Self::Tcp => 52,
        }
    }
}

/// A steady flow over a span, from the emulator's records and the receiver's count.
#[derive(Clone, Debug)]
pub(crate) struct Steady {
    /// Payload per second, bits.
    pub(crate) goodput: f64,
    /// goodput / (rate x (1 - loss) x (largest packet - headers) / largest packet).
    pub(crate) share: f64,
    /// Bytes that arrived beyond payload, headers and framing, over the payload: needless repetitions, and everything that is
    /// none of these.
    pub(crate) redundant: f64,
    /// What frames of the payload need beyond it and the headers, over the payload.
    pub(crate) framing: f64,
    /// Bytes sent backwards over bytes sent forwards.
    pub(crate) acks: f64,
    /// Sent, over what the link can take.
    pub(crate) offered: f64,
    /// Time that packets waited for the link, median and 95th percentile, milliseconds.
    pub(crate) queue_ms: (f64, f64),
    /// Largest packet, bytes.
    pub(crate) packet: u32,
}

/// Judges the flow within `span`; `None` when nothing arrived in it. `framing`: bytes of each packet in which the subject
/// says what its payload is, beside the headers.
pub(crate) fn steady(
    link: &Link,
    conditions: &Conditions,
    delivered: &Delivered<'_>,
    headers: Headers,
    framing: u32,
    span: Span,
) -> Option<Steady> {
    let (payload, exact) = delivered.within(span)?;
    let (forward, back) = (link.forward(exact), link.back(exact));
    let packet = forward.iter().map(|passage| passage.bytes).max()?;
    let goodput = payload as f64 * 8.0 / exact.seconds();
    let payload_share = f64::from(packet.saturating_sub(headers.bytes())) / f64::from(packet);
    let ceiling = conditions.rate as f64 * (1.0 - conditions.loss.share()) * payload_share;
    // By the time of arrival, as the payload is counted: what waits in a growing queue is not redundant.
    let all = link.forward(Span { until: exact.until, ..Span::ALWAYS });
    let arrives = |passage: &&Passage| exact.holds(passage.left + conditions.delay);
    let arrived: Vec<&Passage> = all.iter().filter(|p| p.fate == Fate::Delivered).filter(arrives).collect();
    let beyond = bytes(&arrived) - arrived.len() as f64 * f64::from(headers.bytes()) - payload as f64;
    let framing = arrived.len() as f64 * f64::from(framing);
    let sent = bytes(&forward.iter().collect::<Vec<_>>());
    let mut waits: Vec<f64> = forward.iter().map(|passage| wait_ms(passage, conditions)).collect();
    waits.sort_by(f64::total_cmp);
    Some(Steady {
        goodput,
        share: goodput / ceiling,
        redundant: ((beyond - framing) / payload as f64).max(0.0),
        framing: framing / payload as f64,
        acks: bytes(&back.iter().collect::<Vec<_>>()) / sent,
        offered: sent * 8.0 / exact.seconds() / conditions.rate as f64,
        queue_ms: (percentile(&waits, 50), percentile(&waits, 95)),
        packet,
    })
}

/// The most that was sent in any `window`, as a share of what the rate allows in it.
pub(crate) fn fullest_window(sent: &[Passage], rate: u64, window: Duration) -> f64 {
    let (mut first, mut held, mut most) = (0, 0_u64, 0_u64);
    for passage in sent {
        held += u64::from(passage.bytes);
        while passage.at - sent[first].at > window {
            held -= u64::from(sent[first].bytes);
            first += 1;
        }
        most = most.max(held);
    }
    most as f64 * 8.0 / (rate as f64 * window.as_secs_f64())
}

fn bytes(passages: &[&Passage]) -> f64 {
    passages.iter().map(|passage| f64::from(passage.bytes)).sum()
}

/// Time between being offered and the first bit's leaving.
fn wait_ms(passage: &Passage, conditions: &Conditions) -> f64 {
    let own = conditions.time_of(u64::from(passage.bytes));
    passage.left.saturating_sub(passage.at).saturating_sub(own).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_window_is_found_wherever_it_lies() {
        let at = |ms: u64| Passage {
            at: Duration::from_millis(ms),
            left: Duration::from_millis(ms),
            bytes: 1_000,
            fate: Fate::Delivered,
        };
        // A packet each 100 ms is 80 kbit/s; ten more between 5.0 and 5.1 s are not hidden by the quiet around them.
        let mut sent: Vec<Passage> = (0..100).map(|n| at(100 * n)).collect();
        sent.extend((0..10).map(|n| at(5_000 + 10 * n)));
        sent.sort_by_key(|passage| passage.at);
        let second = fullest_window(&sent, 80_000, Duration::from_secs(1));
        assert!((second - 2.1).abs() < 0.01, "{second}");
        let all = fullest_window(&sent, 80_000, Duration::from_secs(10));
        assert!((all - 1.1).abs() < 0.01, "{all}");
    }
}
