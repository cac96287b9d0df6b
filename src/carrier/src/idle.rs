//! What an idle link says: one frame of the dialling side from time to time, or nothing at all.
//!
//! The frame and its acknowledgement show both sides that the other is there, so one side speaking is enough. How often
//! is said by both when a connection begins ([`wire::frame::Join`]), and whoever wants to hear less is obeyed: a link that must not
//! emit while there is nothing to say does not, whichever side was configured so.

use std::time::{Duration, Instant};

use crate::https::meter::SEGMENT_HEADER;
use crate::https::stream::FRAME_HEADERS;
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
}
