//! Mattermost's grammar of searches: `from: in: before: after: on: ext:`, `"a phrase"`, `-without`, `#tag`, `begin*`.
//!
//! Pure: text in, what is looked for out. Names of users and channels are resolved by the caller.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};

/// Longest query in characters; the rest is not looked at. Clients cut at less.
const QUERY_RUNES_MAX: usize = 2_048;
/// Most terms and most values of one flag. A search of this size costs as much as that many list look-ups.
const TERMS_MAX: usize = 64;

/// What a query asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Plain terms; phrases stand in quotes.
    pub(super) terms: Vec<String>,
    pub(super) without_terms: Vec<String>,
    /// Hashtags with their sign.
    pub(super) tags: Vec<String>,
    pub(super) without_tags: Vec<String>,
    pub(super) channels: Vec<String>,
    pub(super) without_channels: Vec<String>,
    pub(super) users: Vec<String>,
    pub(super) without_users: Vec<String>,
    pub(super) extensions: Vec<String>,
    pub(super) without_extensions: Vec<String>,
    /// Times that match: from, to (inclusive), in milliseconds. Outside of `without_span`.
    pub(super) span: (i64, i64),
    pub(super) without_span: Option<(i64, i64)>,
}

impl Query {
    /// Does it ask for anything?
    pub(super) fn is_empty(&self) -> bool {
        *self == Self { span: EVER, ..Self::default() }
    }
}

/// Every time that a post can have.
pub(super) const EVER: (i64, i64) = (i64::MIN, i64::MAX);
const NEVER: (i64, i64) = (1, 0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    From,
    In,
    Before,
    After,
    On,
    Ext,
}

const FLAGS: [(&str, Flag); 7] = [
    ("from", Flag::From),
    ("channel", Flag::In),
    ("in", Flag::In),
    ("before", Flag::Before),
    ("after", Flag::After),
    ("on", Flag::On),
    ("ext", Flag::Ext),
];

/// Reads a query. Dates are days at `offset_s` seconds east of Greenwich.
pub(super) fn parse(text: &str, offset_s: i64) -> Query {
    let text: String = text.trim().chars().take(QUERY_RUNES_MAX).collect();
    let words = split(&text);
    let mut query = Query { span: EVER, ..Query::default() };
    let mut on = None;
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_str();
        at += 1;
        if let Some((flag, without, value)) = flag(word) {
            let next = words.get(at).filter(|_| value.is_empty());
            if next.is_some() || !value.is_empty() {
                at += usize::from(next.is_some());
                let value = next.map_or(value, String::as_str);
                set(&mut query, &mut on, flag, without, value, offset_s);
                continue;
            }
        }
        let without = word.starts_with('-');
        let term = trim(word);
        let list = match (is_tag(&term), without) {
            (true, false) => &mut query.tags,
            (true, true) => &mut query.without_tags,
            (false, false) => &mut query.terms,
            (false, true) => &mut query.without_terms,
        };
        if !term.is_empty() && list.len() < TERMS_MAX {
            list.push(term);
        }
    }
    // A day overrides every other date, as in the original.
    if let Some(day) = on {
        query.span = day;
        query.without_span = None;
    }
    query
}

fn set(query: &mut Query, on: &mut Option<(i64, i64)>, flag: Flag, without: bool, value: &str, offset_s: i64) {
    let list = match (flag, without) {
        (Flag::From, false) => &mut query.users,
        (Flag::From, true) => &mut query.without_users,
        (Flag::In, false) => &mut query.channels,
        (Flag::In, true) => &mut query.without_channels,
        (Flag::Ext, false) => &mut query.extensions,
        (Flag::Ext, true) => &mut query.without_extensions,
        (Flag::On, false) => return *on = Some(day(value, offset_s).unwrap_or(NEVER)),
        (Flag::On, true) => return query.without_span = day(value, offset_s),
        // What is no date is after the present day, and before all time.
        (Flag::After, false) => {
            let from = day(value, offset_s).map_or(i64::MAX, |(_, last)| last.saturating_add(1));
            return query.span.0 = query.span.0.max(from);
        }
        (Flag::After, true) => {
            let to = day(value, offset_s).map_or(i64::MAX, |(_, last)| last);
            return query.span.1 = query.span.1.min(to);
        }
        (Flag::Before, false) => {
            let to = day(value, offset_s).map_or(i64::MIN, |(first, _)| first.saturating_sub(1));
            return query.span.1 = query.span.1.min(to);
        }
        (Flag::Before, true) => {
            let from = day(value, offset_s).map_or(i64::MIN, |(first, _)| first);
            return query.span.0 = query.span.0.max(from);
        }
    };
    if list.len() < TERMS_MAX {
        list.push(value.to_lowercase());
    }
}

/// `2026-1-9` as its first and last millisecond.
fn day(text: &str, offset_s: i64) -> Option<(i64, i64)> {
    let mut parts = text.splitn(3, '-').map(str::parse::<i16>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let date = Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()?;
    let offset = Offset::from_seconds(i32::try_from(offset_s).ok()?).ok()?;
    let start = |date: Date| Some(date.to_zoned(TimeZone::fixed(offset)).ok()?.timestamp().as_millisecond());
    Some((start(date)?, start(date.tomorrow().ok()?)? - 1))
}

fn flag(word: &str) -> Option<(Flag, bool, &str)> {
    let (name, value) = word.split_once(':')?;
    let (name, without) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
    let (_, flag) = FLAGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some((*flag, without, value))
}

/// Words and quoted phrases; a phrase keeps its quotes and a minus before them.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut open = None;
    for (at, c) in text.char_indices().filter(|(_, c)| *c == '"') {
        match open.take() {
            Some(begin) => {
                words.push(text[begin..=at].to_owned());
                start = at + c.len_utf8();
            }
            None => {
                let begin = if text[..at].ends_with('-') { at - 1 } else { at };
                words.extend(text[start..begin.max(start)].split_whitespace().map(str::to_owned));
                open = Some(begin.max(start));
                start = begin.max(start);
            }
        }
    }
    words.extend(text[start..].split_whitespace().map(str::to_owned));
    words
}

/// Without the punctuation around a word that has no meaning in a search.
fn trim(word: &str) -> String {
    let word = word.trim_start_matches(|c: char| !(c.is_alphanumeric() || c == '#' || c == '"'));
    let is_mark = unicode_normalization::char::is_combining_mark;
    let word = word.trim_end_matches(|c: char| !(c.is_alphanumeric() || is_mark(c) || c == '*' || c == '"'));
    match word.strip_prefix("##") {
        Some(rest) => format!("#{}", rest.trim_start_matches('#')),
        None => word.to_owned(),
    }
}

fn is_tag(term: &str) -> bool {
    let Some(name) = term.strip_prefix('#') else { return false };
    name.chars().count() >= 2
        && name.starts_with(char::is_alphabetic)
        && name.ends_with(char::is_alphanumeric)
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn every_part_of_the_grammar_is_read() {
        let query = parse(
            "Lage \"in  der Stadt\" -Übung -\"kein Wort\" #ops -#test from:Bob -from:eve in: ops channel:~log ext:pdf \
             on* (weg) ## :-)",
            0,
        );
        assert_eq!(query.terms, texts(&["Lage", "\"in  der Stadt\"", "on*", "weg"]));
        assert_eq!(query.without_terms, texts(&["Übung", "\"kein Wort\""]));
        assert_eq!((query.tags, query.without_tags), (texts(&["#ops"]), texts(&["#test"])));
        assert_eq!((query.users, query.without_users), (texts(&["bob"]), texts(&["eve"])));
        assert_eq!((query.channels, query.extensions), (texts(&["ops", "~log"]), texts(&["pdf"])));
        assert_eq!(query.span, EVER);
        assert!(parse("  ", 0).is_empty() && !parse("from:x", 0).is_empty());
    }

    #[test]
    fn what_only_looks_like_grammar_is_text() {
        assert_eq!(parse("http://a.example from:", 0).terms, texts(&["http://a.example", "from"]));
        assert_eq!(parse("say \"open", 0).terms, texts(&["say", "\"open"]));
        assert_eq!(parse("#1 #a #abc. ##abc", 0).tags, texts(&["#abc", "#abc"]));
        assert_eq!(parse("مرحبا، «작전»", 0).terms, texts(&["مرحبا", "작전"]));
    }

    #[test]
    fn days_are_those_of_the_asker() {
        let day: i64 = 86_400_000;
        let start: i64 = 1_704_758_400_000; // 2024-01-09 in Greenwich
        assert_eq!(parse("on:2024-1-9", 0).span, (start, start + day - 1));
        assert_eq!(parse("on:2024-01-09", 3_600).span, (start - 3_600_000, start - 3_600_000 + day - 1));
        assert_eq!(parse("after:2024-01-09", 0).span, (start + day, i64::MAX));
        assert_eq!(parse("before:2024-01-09", 0).span, (i64::MIN, start - 1));
        assert_eq!(parse("-after:2024-01-09 -before:2024-01-09", 0).span, (start, start + day - 1));
        assert_eq!(parse("-on:2024-01-09", 0).without_span, Some((start, start + day - 1)));
        assert_eq!(parse("on:2024-01-09 before:2020-01-01 -on:2024-01-09", 0).span, (start, start + day - 1));
        for nonsense in ["on:today", "after:2024-13-01", "before:x", "on:2024-01-09-1"] {
            let (from, to) = parse(nonsense, 0).span;
            assert!(from > to || from == i64::MAX || to == i64::MIN, "{nonsense}");
        }
    }

    #[test]
    fn a_query_of_any_size_stays_small() {
        let query = parse(&"a -b #cc from:d ".repeat(10_000), 0);
        assert!(query.terms.len() <= TERMS_MAX && query.users.len() <= TERMS_MAX && query.tags.len() <= TERMS_MAX);
    }
}
