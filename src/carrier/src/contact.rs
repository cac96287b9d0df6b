//! When a link can be used: contact windows, as a list or as a cron expression. Pure; all times are UTC.

use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::{BitsPerSecond, UnixMillis};

/// A contact window as configured: `cron` with `minutes`, or `start` and `end`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// When such windows begin, as a cron expression with five fields.
    #[serde(default)]
    pub cron: Option<String>,
    /// How long each lasts.
    #[serde(default)]
    pub minutes: Option<u32>,
    /// When the one window begins, such as `2026-03-01T06:00:00Z`.
    #[serde(default)]
    pub start: Option<String>,
    /// When it ends.
    #[serde(default)]
    pub end: Option<String>,
    /// Ceiling during the window, if it is lower than the link's.
    #[serde(default)]
    pub rate: Option<BitsPerSecond>,
}

/// A contact window that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    when: When,
    rate: Option<BitsPerSecond>,
}

#[derive(Clone, Debug)]
enum When {
    Again(Box<Cron>, Duration),
    Once(UnixMillis, UnixMillis),
}

/// What the windows of a link say about now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    /// When the present window ends; `None` between windows.
    pub(crate) until: Option<UnixMillis>,
    /// Ceiling in the present window.
    pub(crate) rate: Option<BitsPerSecond>,
    /// When the next window begins.
    pub(crate) next: Option<UnixMillis>,
}

impl Window {
    /// # Errors
    /// With what is wrong, for the operator.
    pub(crate) fn parse(settings: &WindowSettings) -> Result<Self, String> {
        let time = |text: &str| {
            let parsed: Result<Timestamp, _> = text.parse();
            parsed.map(|at| UnixMillis(at.as_millisecond())).map_err(|e| format!("`{text}` is no time: {e}"))
        };
        let WindowSettings { cron, minutes, start, end, rate } = settings;
        let when = match (cron, minutes, start, end) {
            (Some(cron), Some(minutes), None, None) if *minutes > 0 => {
                let parsed: Result<Cron, _> = cron.parse();
                let cron = parsed.map_err(|e| format!("`{cron}` is no cron expression: {e}"))?;
                When::Again(Box::new(cron), Duration::from_secs(60 * u64::from(*minutes)))
            }
            (None, None, Some(start), Some(end)) => {
                let (start, end) = (time(start)?, time(end)?);
                if start >= end {
                    return Err("a window ends before it begins".to_owned());
                }
                When::Once(start, end)
            }
            _ => return Err("a window has `cron` and `minutes`, or `start` and `end`".to_owned()),
        };
        Ok(Self { when, rate: *rate })
    }

    /// When the window around `now` ends, and when the next one begins.
    fn at(&self, now: UnixMillis) -> (Option<UnixMillis>, Option<UnixMillis>) {
        match &self.when {
            When::Once(start, end) => ((*start <= now && now < *end).then_some(*end), (now < *start).then_some(*start)),
            When::Again(cron, lasts) => {
                let Ok(at) = Timestamp::from_millisecond(now.0) else { return (None, None) };
                let at = at.to_zoned(TimeZone::UTC);
                let millis = |zoned: jiff::Zoned| UnixMillis(zoned.timestamp().as_millisecond());
                // No occurrence before or after is no error here: there is no window then.
                let began = cron.find_previous_occurrence(&at, true).ok().map(millis);
                let ends = began.map(|began| UnixMillis(began.0 + lasts.as_millis() as i64)).filter(|end| *end > now);
                (ends, cron.find_next_occurrence(&at, false).ok().map(millis))
            }
        }
    }
}

/// What windows say about `now`; a link without any is asked nothing.
pub(crate) fn contact(windows: &[Window], now: UnixMillis) -> Contact {
    let mut contact = Contact { until: None, rate: None, next: None };
    for window in windows {
        let (until, next) = window.at(now);
        // Of windows that overlap, the one that lasts longest counts.
        if until > contact.until {
            contact.until = until;
            contact.rate = window.rate;
        }
        contact.next = [contact.next, next].into_iter().flatten().min();
    }
    contact
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn windows(json: serde_json::Value) -> Vec<Window> {
        let settings: Vec<WindowSettings> = serde_json::from_value(json).unwrap();
        settings.iter().map(|w| Window::parse(w).unwrap()).collect()
    }

    #[test]
    fn a_pass_every_ninety_minutes_is_open_while_it_lasts() {
        let passes = windows(serde_json::json!([{ "cron": "0,30 */3 * * *", "minutes": 12, "rate": "64kbit/s" }]));
        let open = contact(&passes, at("2026-03-01T03:11:59Z"));
        assert_eq!(open.until, Some(at("2026-03-01T03:12:00Z")));
        assert_eq!(open.rate, Some(BitsPerSecond(64_000)));
        let shut = contact(&passes, at("2026-03-01T03:12:00Z"));
        assert_eq!((shut.until, shut.next), (None, Some(at("2026-03-01T03:30:00Z"))));
        assert_eq!(contact(&passes, at("2026-03-01T23:59:00Z")).next, Some(at("2026-03-02T00:00:00Z")));
    }

    #[test]
    fn a_single_window_has_no_successor() {
        let once = windows(serde_json::json!([{ "start": "2026-03-01T06:00:00Z", "end": "2026-03-01T06:20:00Z" }]));
        assert_eq!(contact(&once, at("2026-03-01T05:00:00Z")).next, Some(at("2026-03-01T06:00:00Z")));
        assert_eq!(contact(&once, at("2026-03-01T06:00:00Z")).until, Some(at("2026-03-01T06:20:00Z")));
        let over = contact(&once, at("2026-03-01T06:20:00Z"));
        assert_eq!((over.until, over.next), (None, None));
    }

    #[test]
    fn a_window_that_makes_no_sense_is_refused_with_its_reason() {
        for bad in [
            serde_json::json!({ "cron": "0 6 * * *" }),
            serde_json::json!({ "cron": "whenever", "minutes": 5 }),
            serde_json::json!({ "cron": "0 6 * * *", "minutes": 0 }),
            serde_json::json!({ "start": "2026-03-01T06:00:00Z", "end": "2026-03-01T05:00:00Z" }),
            serde_json::json!({ "start": "tomorrow", "end": "2026-03-01T05:00:00Z" }),
        ] {
            let settings: WindowSettings = serde_json::from_value(bad).unwrap();
            assert!(!Window::parse(&settings).unwrap_err().is_empty());
        }
    }
}
