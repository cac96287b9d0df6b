//! Numbers, sizes, rates and times as an operator reads them.

use std::time::Duration;

use model::UnixMillis;

/// `0 B`, `12.3 KiB`, `4.0 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `up`, `up (intermittent)`, `connecting (down)`: what a link does at this moment, and what it is found to be over time.
pub fn state(state: &str, reach: &str) -> String {
    if state == reach { state.to_owned() } else { format!("{state} ({reach})") }
}

/// `0 bit/s`, `12.3 kbit/s`, `2.0 Mbit/s`.
pub fn rate(bits_per_second: u64) -> String {
    match bits_per_second {
        0..1_000 => format!("{bits_per_second} bit/s"),
        1_000..1_000_000 => format!("{:.1} kbit/s", bits_per_second as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} Mbit/s", bits_per_second as f64 / 1e6),
        _ => format!("{:.1} Gbit/s", bits_per_second as f64 / 1e9),
    }
}

/// The two leading units: `5 s`, `12 min 5 s`, `3 h 2 min`, `4 d 1 h`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        _ => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => two(s / 60, "min", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// Seconds as [`duration`].
pub fn seconds(s: u64) -> String {
    duration(Duration::from_secs(s))
}

/// `2026-11-23T01:15:09Z`.
pub fn time(at: UnixMillis) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(t) => format!("{t:.0}"),
        Err(_) => format!("{} ms", at.0),
    }
}

/// Age of something at `now`; zero for what lies in the future.
pub fn age(then: UnixMillis, now: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(then.0)).unwrap_or(0))
}

/// At most `width` characters; what was cut ends in `..`.
pub fn fit(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(2)).chain("..".chars()).collect(),
        false => text.to_owned(),
    }
}

/// Lines of at most `width` characters, broken at spaces; those after the first begin with `indent`.
pub fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let words = text.trim_start();
    let mut line = text[..text.len() - words.len()].to_owned();
    let mut lines = Vec::new();
    let mut empty = true;
    for word in words.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_naturally() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
        assert_eq!(rate(256_000), "256.0 kbit/s");
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(3_600), "1 h");
        assert_eq!(seconds(90_061), "1 d 1 h");
        assert_eq!(time(UnixMillis(1_700_000_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(fit("abcdefgh", 5), "abc..");
        assert_eq!(wrap("  one two three", 9, "    "), ["  one two", "    three"]);
    }
}
