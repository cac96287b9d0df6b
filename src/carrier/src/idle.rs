//! What an idle link says: one frame of the dialling side from time to time, or nothing at all.
//!
//! The frame and its acknowledgement show both sides that the other is there, so one side speaking is enough. How often
//! is said by both when a connection begins ([`wire::frame::Join`]), and whoever wants to hear less is obeyed: a link that must not
//! emit while there is nothing to say does not, whichever side was configured so.
//!
//! While an answer of the peer is awaited the link is not idle, however long nothing passes: [`Vigil`] asks whether the peer is still there.

use std::time::{Duration, Instant};

use model::BitsPerSecond;

use crate::governor::time_on_link;
use crate::https::meter::SEGMENT_HEADER;
use crate::https::stream::FRAME_HEADERS;
use crate::quic::FULL_DATAGRAM;
use crate::settings::LaneKind;

/// Seconds between two signs of life where nothing is configured, so that both directions with headers and acknowledgements take
/// less than 200 bytes a minute. On QUIC that is found in virtual time (`trial::idle`), up to a loss of a tenth; a UDP mapping is to be kept
/// for two minutes (RFC 4787). Over HTTPS it is a frame, its count, and a segment of TCP's own for each.
pub(crate) fn seconds_by_default(kind: LaneKind) -> u16 {
    match kind {
        LaneKind::Quic => 100,
        LaneKind::Https => 150,
        // Nobody answers there.
        LaneKind::OneWay => 0,
    }
}

const _: () = assert!(
    2 * (4 + FRAME_HEADERS + SEGMENT_HEADER) * 60 / 150 < 200,
    "a sign of life over HTTPS and what follows from it must stay within the bound"
);

/// What two sides agree on: the longer time, and no signs of life at all where one side wants none (0).
pub(crate) fn agreed(ours: u16, theirs: u16) -> Option<Duration> {
    let seconds = if ours == 0 || theirs == 0 { 0 } else { ours.max(theirs) };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// When the dialling side says that it is there: what it sent or heard last showed that already.
pub(crate) fn due(every: Option<Duration>, sent_last: Instant, heard_last: Instant) -> Option<Instant> {
    every.map(|every| sent_last.max(heard_last) + every)
}

/// When a side that has heard nothing since `silent_since` takes the link for dead. `waiting`: something that it sent is not
/// confirmed, which takes `patience` at most. Otherwise a sign of life must be overdue; where there are none, silence says nothing.
pub(crate) fn dead_at(
    every: Option<Duration>,
    waiting: bool,
    silent_since: Instant,
    patience: Duration,
) -> Option<Instant> {
    match (waiting, every) {
        (true, _) => Some(silent_since + patience),
        (false, Some(every)) => Some(silent_since + every + patience),
        (false, None) => None,
    }
}

/// How long something that was sent may go without any sign of the peer: several round trips, several datagrams at its pace, and
/// three seconds. What waits in front of a thin link is in the round trip.
pub(crate) fn patience(round_trip: Duration, rate: BitsPerSecond) -> Duration {
    Duration::from_secs(3) + 4 * round_trip + time_on_link(6 * FULL_DATAGRAM, rate)
}

/// A peer that only says that it is there, and does not answer for hours because its disk is full, is asked no more often than this.
const ASKED_RARELY: Duration = Duration::from_secs(100);

/// Asks whether the peer is there while its answer is awaited and everything sent is confirmed: QUIC has nothing to repeat then, so
/// a peer that died with the answer would be noticed at the next sign of life, or never where there are none.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    /// Since when nothing was heard, or asked; while an answer is awaited.
    since: Option<Instant>,
    /// How often it was asked since a frame of the peer's came.
    asked: u32,
}

impl Vigil {
    /// `heard`: something of the peer has come, on whichever link.
    pub(crate) fn note(&mut self, awaits: bool, heard: bool, now: Instant) {
        match (awaits, self.since) {
            (false, _) => *self = Self::default(),
            (true, Some(_)) if !heard => {}
            (true, Some(_) | None) => self.since = Some(now),
        }
    }

    /// A frame of the peer has come: it is at work.
    pub(crate) fn answered(&mut self) {
        self.asked = 0;
    }

    /// Is an answer awaited?
    pub(crate) fn is_kept(&self) -> bool {
        self.since.is_some()
    }

    /// When it is to be asked; `None` while no answer is awaited.
    pub(crate) fn due(&self, patience: Duration) -> Option<Instant> {
        let longer = patience.saturating_mul(1 << self.asked.min(ASKED_DOUBLINGS));
        self.since.map(|since| since + longer.min(ASKED_RARELY.max(patience)))
    }

    /// It was asked.
    pub(crate) fn asked(&mut self, now: Instant) {
        (self.since, self.asked) = (Some(now), self.asked.saturating_add(1));
    }
}

/// Three seconds, doubled so often, are more than [`ASKED_RARELY`].
const ASKED_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn whoever_wants_to_hear_less_is_obeyed() {
        assert_eq!(agreed(60, 60), Some(S(60)));
        assert_eq!(agreed(60, 600), Some(S(600)));
        assert_eq!(agreed(600, 60), Some(S(600)));
        assert_eq!((agreed(0, 60), agreed(60, 0)), (None, None));
    }

    #[test]
    fn silence_says_something_only_where_somebody_should_speak() {
        let now = clock::now();
        assert_eq!(dead_at(Some(S(60)), false, now, S(5)), Some(now + S(65)));
        assert_eq!(dead_at(Some(S(60)), true, now, S(5)), Some(now + S(5)));
        assert_eq!(dead_at(None, true, now, S(5)), Some(now + S(5)));
        assert_eq!(dead_at(None, false, now, S(5)), None);
        assert_eq!(due(None, now, now), None);
        assert_eq!(due(Some(S(60)), now, now + S(7)), Some(now + S(67)));
    }

    #[test]
    fn a_peer_whose_answer_is_awaited_is_asked_after_a_silence_and_the_more_rarely_the_longer_it_only_says_that_it_is_there()
     {
        let (start, patience) = (clock::now(), S(4));
        let mut vigil = Vigil::default();
        vigil.note(false, true, start);
        assert_eq!(vigil.due(patience), None, "nothing is awaited");
        vigil.note(true, false, start);
        vigil.note(true, true, start + S(1));
        vigil.note(true, false, start + S(3));
        assert_eq!(vigil.due(patience), Some(start + S(5)), "four seconds after it was heard");
        let mut at = start + S(5);
        for gap in [8, 16, 32, 64, 100, 100] {
            vigil.asked(at);
            // It says that it is there, and nothing else.
            vigil.note(true, true, at + S(1));
            assert_eq!(vigil.due(patience), Some(at + S(1) + S(gap)));
            at += S(1) + S(gap);
        }
        vigil.answered();
        vigil.note(true, true, at);
        assert_eq!(vigil.due(patience), Some(at + patience));
        assert_eq!(vigil.due(S(300)), Some(at + S(300)), "a link slower than that has its own measure");
        vigil.note(false, false, at);
        assert_eq!(vigil.due(patience), None);
    }

    #[test]
    fn a_thin_link_with_seconds_of_queue_has_the_time_that_it_needs() {
        let patience = patience(Duration::from_millis(600), BitsPerSecond(9_600));
        // A queue of four seconds that was not there when the round trip was measured, and a probe that gets lost in it.
        assert!(patience > S(11) && patience < S(13), "{patience:?}");
    }
}
