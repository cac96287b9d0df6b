//! Legal holds: named marks that keep entries from being trimmed, whatever became of them.
//!
//! A hold keeps bytes, not delivery: what it covers is sent, expires and is superseded as if there were none. Since the
//! oldest segments go first, it also keeps everything that stands behind the first entry it covers; and of a file of this
//! node that it covers the chunks, which stand before it.
//!
//! Which segments a hold covers is read from them once, when they could otherwise go. A damaged place in one counts as
//! covered: nobody can tell that it is not.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;

use minicbor::{Decode, Encode};
use model::{Header, LocalPos, UnixMillis};

use crate::error::AppendError;
use crate::format::{EntryPrefix, FrameKind, Record};
use crate::journal::Journal;
use crate::queue::Request;
use crate::scan::{Found, Scanner};
use crate::view::Segment;

/// A legal hold. What is `None` sets no condition; one without conditions keeps the whole journal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Hold {
    /// Chosen by the operator.
    #[n(0)]
    pub name: String,
    /// Only entries of this stream: `directory`, `team:ID` or `channel:ID`.
    #[n(1)]
    pub stream: Option<String>,
    /// Only what was written at this time or later.
    #[n(2)]
    pub written_from: Option<UnixMillis>,
    /// Only what was written before this time.
    #[n(3)]
    pub written_until: Option<UnixMillis>,
    /// Only entries at this place in the journal or behind it.
    #[n(4)]
    pub first: Option<LocalPos>,
    /// Only entries at this place in the journal or before it.
    #[n(5)]
    pub last: Option<LocalPos>,
    /// When it was set.
    #[n(6)]
    pub since: UnixMillis,
}

impl Hold {
    /// Longest name in bytes.
    pub const NAME_MAX: usize = 64;

    /// Is an entry under it?
    pub fn covers(&self, pos: LocalPos, header: &Header) -> bool {
        self.stream.as_ref().is_none_or(|stream| *stream == header.stream.to_string())
            && self.written_from.is_none_or(|from| header.origin_time >= from)
            && self.written_until.is_none_or(|until| header.origin_time < until)
            && self.first.is_none_or(|first| pos >= first)
            && self.last.is_none_or(|last| pos <= last)
    }

    /// Can nothing between these positions be under it?
    pub(crate) fn passes_by(&self, first: u64, next: u64) -> bool {
        self.first.is_some_and(|from| from.0 >= next) || self.last.is_some_and(|last| last.0 < first)
    }
}

/// A hold that is set, or by its name taken away.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct HoldFrame {
    #[n(0)]
    pub(crate) hold: Hold,
    #[n(1)]
    pub(crate) removed: bool,
}

impl HoldFrame {
    pub(crate) fn apply(&self, holds: &mut BTreeMap<String, Hold>) {
        match self.removed {
            true => drop(holds.remove(&self.hold.name)),
            false => drop(holds.insert(self.hold.name.clone(), self.hold.clone())),
        }
    }
}

/// Which segments the holds cover, as far as somebody asked.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    holds: BTreeMap<String, Hold>,
    segments: HashMap<u32, Vec<Covering>>,
}

/// A hold that covers something in a segment.
#[derive(Clone, Debug)]
pub(crate) struct Covering {
    pub(crate) name: String,
    /// The position before the first chunk of the own files that it covers there.
    pub(crate) chunks_since: Option<u64>,
}

impl Covering {
    /// Does a chunk in a segment that ends before `next_pos` belong to what the hold covers?
    pub(crate) fn keeps_chunks_before(&self, next_pos: u64) -> bool {
        self.chunks_since.is_some_and(|since| since <= next_pos)
    }
}

impl Covered {
    /// The holds that cover something in the segment.
    pub(crate) fn of(&mut self, segment: &Segment, holds: &BTreeMap<String, Hold>) -> io::Result<&[Covering]> {
        if self.holds != *holds {
            *self = Self { holds: holds.clone(), segments: HashMap::new() };
        }
        let known = match self.segments.entry(segment.number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(covering(segment, holds)?),
        };
        Ok(known)
    }
}

fn covering(segment: &Segment, holds: &BTreeMap<String, Hold>) -> io::Result<Vec<Covering>> {
    let summary = &segment.summary;
    let may: Vec<&Hold> = holds.values().filter(|hold| !hold.passes_by(summary.first_pos, summary.next_pos)).collect();
    let mut found: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    let mut scanner = Scanner::new(segment.window());
    // Without files the first entry of each hold says it all.
    while found.len() < may.len() || (summary.chunks_since.is_some() && !may.is_empty()) {
        let entry = match scanner.next()? {
            None => break,
            Some(Found::Damaged { .. }) => None,
            Some(Found::Frame { kind, .. }) if !FrameKind::is_entry(kind) => continue,
            Some(Found::Frame { payload, .. }) => EntryPrefix::decode(&payload).and_then(|(prefix, bytes)| {
                let since = prefix.chunks.map(|chunks| chunks.since.0);
                Some((LocalPos(prefix.pos), wire::decode_entry(bytes).ok()?.header, since))
            }),
        };
        for hold in &may {
            let since = match &entry {
                Some((pos, header, _)) if !hold.covers(*pos, header) => continue,
                Some((_, _, since)) => *since,
                // A file may have stood there.
                None => summary.chunks_since,
            };
            let known = found.entry(&hold.name).or_default();
            *known = known.iter().copied().chain(since).min();
        }
    }
    Ok(found.into_iter().map(|(name, chunks_since)| Covering { name: name.to_owned(), chunks_since }).collect())
}

impl Journal {
    /// Sets a legal hold, durably; one of the same name is replaced.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn add_hold(&self, hold: Hold) -> Result<(), AppendError> {
        if hold.name.is_empty() || hold.name.len() > Hold::NAME_MAX {
            return Err(AppendError::Malformed(format!("the name of a hold has 1 to {} bytes", Hold::NAME_MAX)));
        }
        self.ask(|completer| Request::Hold(Box::new(HoldFrame { hold, removed: false }), completer)).wait()?;
        Ok(())
    }

    /// Takes a legal hold away, durably. False when there was none of this name.
    ///
    /// # Errors
    /// When that cannot be made durable; it is still in force then.
    pub fn remove_hold(&self, name: &str) -> Result<bool, AppendError> {
        let Some(hold) = self.holds().into_iter().find(|hold| hold.name == name) else { return Ok(false) };
        self.ask(|completer| Request::Hold(Box::new(HoldFrame { hold, removed: true }), completer)).wait()
    }

    /// The legal holds, by name.
    pub fn holds(&self) -> Vec<Hold> {
        self.log().read().state.holds.values().cloned().collect()
    }
}

/// The record of a frame's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Record> {
    Some(Record::Hold(Box::new(minicbor::decode(payload).ok()?)))
}

#[cfg(test)]
mod tests {
    use model::{Epoch, Outcome, RangeSet, StreamId};

    use super::*;
    use crate::tests::{chunk_name, draft, noise, options, tempdir};
    use crate::{Draft, Reader, StdDisk};

    fn hold(name: &str) -> Hold {
        Hold {
            name: name.to_owned(),
            stream: None,
            written_from: None,
            written_until: None,
            first: None,
            last: None,
            since: UnixMillis(7),
        }
    }

    #[test]
    fn trim_leaves_what_a_hold_covers_and_names_the_hold_across_restarts() {
        let dir = tempdir();
        let channel = StreamId::Channel(model::Id::from_block([9; 16]));
        let journal = Journal::open(options(dir.path())).unwrap().0;
        for n in 0..200 {
            let stream = if n == 100 { channel } else { StreamId::Directory };
            journal.append_own(Draft { stream, ..draft(n) }).wait().unwrap();
        }
        journal.consumer("bravo", true).unwrap().record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=200));
        journal.add_hold(Hold { stream: Some(channel.to_string()), ..hold("inquiry 7") }).unwrap();
        journal.add_hold(Hold { written_from: Some(UnixMillis(10_000)), ..hold("later") }).unwrap();
        let report = journal.trim().unwrap();
        assert!(report.segments > 0, "{report:?}");
        assert_eq!(report.waiting_for, ["legal hold inquiry 7"]);
        assert!(journal.stats().first <= 101, "the entry is still there");
        // Rolled on, so that the holds stand in a snapshot only.
        let at = LocalPos(150);
        journal.add_hold(Hold { first: Some(at), last: Some(at), ..hold("one entry") }).unwrap();
        for n in 200..400 {
            journal.append_own(draft(n)).wait().unwrap();
        }
        drop(journal);
        let reader = Reader::open(dir.path(), std::sync::Arc::new(StdDisk), &options(dir.path()).at_rest.keys());
        assert_eq!(reader.unwrap().holds().len(), 3);
        let journal = Journal::open(options(dir.path())).unwrap().0;
        assert_eq!(journal.trim().unwrap().waiting_for, ["legal hold inquiry 7"]);
        assert!(journal.remove_hold("inquiry 7").unwrap() && !journal.remove_hold("inquiry 7").unwrap());
        let report = journal.trim().unwrap();
        assert_eq!(report.waiting_for, ["legal hold one entry"], "{report:?}");
        assert!((102..=150).contains(&journal.stats().first), "{}", journal.stats().first);
        journal.remove_hold("one entry").unwrap();
        assert_eq!(journal.trim().unwrap().waiting_for, ["bravo"]);
        assert!(journal.add_hold(hold("")).is_err());
    }

    /// The consumers were done with the file, so its chunks went with the segments before it, and what the hold kept of it was
    /// a list of names.
    #[test]
    fn a_file_under_a_hold_keeps_its_content_wherever_its_chunks_stand() {
        let dir = tempdir();
        let channel = StreamId::Channel(model::Id::from_block([9; 16]));
        let journal = Journal::open(options(dir.path())).unwrap().0;
        let fill = |numbers: std::ops::Range<u64>| {
            numbers.for_each(|n| assert!(journal.append_own(draft(n)).wait().is_ok()));
        };
        // One chunk is shared with a file before, and another that was held back is new.
        journal.put_chunk(chunk_name(1), &noise(900)).wait().unwrap();
        fill(0..60);
        let file = journal.begin_file();
        for (name, bytes) in [(chunk_name(1), 900), (chunk_name(2), 700)] {
            journal.put_chunk(name, &noise(bytes)).wait().unwrap();
        }
        fill(60..120);
        let chunks = Some(file.chunks(1_600));
        let held = journal.append_own(Draft { stream: channel, chunks, ..draft(120) }).wait().unwrap();
        drop(file);
        let has = |n| journal.get_chunk(&chunk_name(n)).unwrap().is_some();
        journal.add_hold(Hold { stream: Some(channel.to_string()), ..hold("inquiry 7") }).unwrap();
        let bravo = journal.consumer("bravo", true).unwrap();
        let trim = || {
            bravo.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=1_000));
            journal.trim().unwrap()
        };
        let report = trim();
        assert!(report.segments > 0, "what stands before the file's first chunk goes: {report:?}");
        assert_eq!(report.waiting_for, ["legal hold inquiry 7"]);
        assert!(has(1) && has(2), "while the file stands in the newest segment");
        fill(121..240);
        assert_eq!(trim().waiting_for, ["legal hold inquiry 7"]);
        assert!(has(1) && has(2), "and when that is sealed");
        assert!(journal.show(crate::Which::Id(held.id)).unwrap().is_some());
        assert!(journal.remove_hold("inquiry 7").unwrap());
        trim();
        assert!(!has(1) && !has(2), "nobody needs them any more");
    }

    #[test]
    fn a_hold_without_conditions_keeps_everything() {
        let dir = tempdir();
        let journal = Journal::open(options(dir.path())).unwrap().0;
        for n in 0..100 {
            journal.append_own(draft(n)).wait().unwrap();
        }
        journal.consumer("bravo", true).unwrap().record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=100));
        journal.add_hold(hold("all")).unwrap();
        let report = journal.trim().unwrap();
        assert_eq!((report.segments, report.waiting_for), (0, vec!["legal hold all".to_owned()]));
        journal.remove_hold("all").unwrap();
        assert!(journal.trim().unwrap().segments > 0);
    }
}
