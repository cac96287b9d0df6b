//! Class and size of each own entry, a page of entries at a time.
//!
//! The accounts of a consumer need them only where a page ended in part: what ended in whole, or is held in whole, is
//! added up from the page's sums in the summary. Pages of sealed segments are read from their footers then, and the
//! last few are kept; so memory does not grow with what is held.
//!
//! ```text
//! width u8 (2 or 4) | entry ...      little-endian: class in the upper 3 bits, size in the others
//! ```
//! Four bytes where a size has no room in two; a bit less for the size then, one bit says that it is in KiB.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use model::{Precedence, RangeSet};

use crate::format::FrameKind;
use crate::scan::{Window, frame_at};
use crate::summary::{Growing, Page, Summary, Tally};
use crate::view::{Segment, Tail, grow};

/// Entries of one page. Reading one costs 8 kB, its sums in memory are 0.03 B for each entry.
pub(crate) const PAGE_ENTRIES: usize = 4096;

/// Pages that are kept after reading: 1 MiB. Receipts are about a few places of the log at a time.
const KEPT_PAGES: usize = 64;

/// An own entry in 32 bits: class (3), size in KiB instead of bytes (1), size (28) with the content of its chunks.
/// What has 256 MiB or more is rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnEntry(u32);

impl OwnEntry {
    const CLASS_SHIFT: u32 = 29;
    const UNIT_SHIFT: u32 = 28;
    const UNIT: u64 = 1 << 10;
    const BYTES_MAX: u32 = (1 << Self::UNIT_SHIFT) - 1;
    /// In two bytes the class keeps its three bits.
    const NARROW_SHIFT: u32 = 13;
    const NARROW_MAX: u32 = (1 << Self::NARROW_SHIFT) - 1;

    pub(crate) fn new(class: Precedence, bytes: u64) -> Self {
        let unit = u64::from(bytes > u64::from(Self::BYTES_MAX));
        let size = match unit {
            0 => bytes,
            _ => bytes.div_ceil(Self::UNIT).min(u64::from(Self::BYTES_MAX)),
        };
        Self((class as u32) << Self::CLASS_SHIFT | (unit as u32) << Self::UNIT_SHIFT | size as u32)
    }

    /// A number that was given out and of which nothing is known. Counts as routine.
    pub(crate) fn lost() -> Self {
        Self::new(Precedence::Routine, 0)
    }

    pub(crate) fn class(self) -> Precedence {
        Precedence::from_index((self.0 >> Self::CLASS_SHIFT) as u8).unwrap_or(Precedence::Routine)
    }

    pub(crate) fn bytes(self) -> u64 {
        let unit = if self.0 >> Self::UNIT_SHIFT & 1 == 1 { Self::UNIT } else { 1 };
        u64::from(self.0 & Self::BYTES_MAX) * unit
    }

    fn narrow(self) -> Option<u16> {
        let size = self.0 & !(7 << Self::CLASS_SHIFT);
        (size <= Self::NARROW_MAX).then_some(((self.0 >> Self::CLASS_SHIFT) << Self::NARROW_SHIFT | size) as u16)
    }

    fn widened(narrow: u16) -> Self {
        let narrow = u32::from(narrow);
        Self((narrow >> Self::NARROW_SHIFT) << Self::CLASS_SHIFT | narrow & Self::NARROW_MAX)
    }
}

/// A page's rows as the payload of a frame.
pub(crate) fn encode_rows(rows: &[OwnEntry]) -> Vec<u8> {
    let narrow: Option<Vec<u16>> = rows.iter().map(|row| row.narrow()).collect();
    match narrow {
        Some(rows) => [2].into_iter().chain(rows.into_iter().flat_map(u16::to_le_bytes)).collect(),
        None => [4].into_iter().chain(rows.iter().flat_map(|row| row.0.to_le_bytes())).collect(),
    }
}

/// The rows, when they are those that the page's sums were made of.
pub(crate) fn decode_rows(payload: &[u8], page: &Page) -> Option<Vec<OwnEntry>> {
    let (width, rows) = payload.split_first()?;
    if rows.len() != usize::from(*width) * page.len as usize {
        return None;
    }
    let rows: Vec<OwnEntry> = match width {
        2 => rows.as_chunks::<2>().0.iter().map(|bytes| OwnEntry::widened(u16::from_le_bytes(*bytes))).collect(),
        4 => rows.as_chunks::<4>().0.iter().map(|bytes| OwnEntry(u32::from_le_bytes(*bytes))).collect(),
        _ => return None,
    };
    (Tally::of(&rows) == page.sums).then_some(rows)
}

/// Rows of the pages read last.
#[derive(Debug, Default)]
pub(crate) struct PageCache(Mutex<VecDeque<KeptPage>>);

/// Segment, page, rows.
type KeptPage = (u32, usize, Arc<[OwnEntry]>);

impl PageCache {
    fn get(&self, segment: u32, page: usize) -> Option<Arc<[OwnEntry]>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(s, p, _)| (*s, *p) == (segment, page))?;
        let found = kept.remove(at)?;
        let rows = Arc::clone(&found.2);
        kept.push_back(found);
        Some(rows)
    }

    fn put(&self, segment: u32, page: usize, rows: Arc<[OwnEntry]>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_PAGES {
            kept.pop_front();
        }
        kept.push_back((segment, page, rows));
    }
}

/// Where the rows of a sealed segment are.
#[derive(Clone, Debug)]
pub(crate) enum RowsAt {
    /// In its footer.
    Footer { cache: Arc<PageCache>, mended: Arc<OnceLock<Vec<Vec<OwnEntry>>>> },
    /// In memory: it has no footer.
    Memory(Arc<Vec<Vec<OwnEntry>>>),
}

impl RowsAt {
    pub(crate) fn footer(cache: &Arc<PageCache>) -> Self {
        Self::Footer { cache: Arc::clone(cache), mended: Arc::default() }
    }
}

pub(crate) enum Rows<'a> {
    Held(&'a [OwnEntry]),
    Read(Arc<[OwnEntry]>),
}

impl Deref for Rows<'_> {
    type Target = [OwnEntry];

    fn deref(&self) -> &[OwnEntry] {
        match self {
            Self::Held(rows) => rows,
            Self::Read(rows) => rows,
        }
    }
}

/// A segment as the accounts see it.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    Sealed(&'a Segment),
    Tail(&'a Tail),
}

impl<'a> Part<'a> {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Sealed(segment) => segment.number,
            Self::Tail(tail) => tail.number,
        }
    }

    pub(crate) fn summary(self) -> &'a Summary {
        match self {
            Self::Sealed(segment) => &segment.summary,
            Self::Tail(tail) => &tail.growing.summary,
        }
    }

    /// Rows of a page of the summary; always as many as it has, and always of its sums.
    pub(crate) fn rows(self, page: usize) -> Rows<'a> {
        match self {
            Self::Sealed(segment) => segment.page_rows(page),
            Self::Tail(tail) => Rows::Held(&tail.growing.rows[page]),
        }
    }

    /// What the given numbers of the page come to.
    pub(crate) fn tally(self, page: usize, numbers: &RangeSet) -> Tally {
        let of = &self.summary().pages[page];
        if numbers.is_empty() {
            return Tally::default();
        }
        if numbers.contains_range(of.range()) {
            return of.sums;
        }
        let rows = self.rows(page);
        Tally::of(numbers.iter().flat_map(|range| {
            let (first, last) = ((range.start() - of.first) as usize, (range.end() - of.first) as usize);
            &rows[first..=last]
        }))
    }
}

impl Segment {
    fn page_rows(&self, page: usize) -> Rows<'_> {
        let (cache, mended) = match &self.rows {
            RowsAt::Memory(rows) => return Rows::Held(&rows[page]),
            RowsAt::Footer { cache, mended } => (cache, mended),
        };
        if let Some(rows) = mended.get() {
            return Rows::Held(&rows[page]);
        }
        if let Some(rows) = cache.get(self.number, page) {
            return Rows::Read(rows);
        }
        match self.read_rows(page) {
            Some(rows) => {
                let rows: Arc<[OwnEntry]> = rows.into();
                cache.put(self.number, page, Arc::clone(&rows));
                Rows::Read(rows)
            }
            None => Rows::Held(&mended.get_or_init(|| self.mended_rows())[page]),
        }
    }

    /// A page's rows from the footer; `None` when they cannot be read or do not agree with the summary.
    pub(crate) fn read_rows(&self, page: usize) -> Option<Vec<OwnEntry>> {
        let page = &self.summary.pages[page];
        let footer = Window { end: self.bytes, ..self.window() };
        let frame = match frame_at(&footer, u64::from(page.place)) {
            Ok(frame) => frame,
            Err(e) => {
                tracing::warn!(error = %e, segment = self.number, "a page of a footer cannot be read");
                None
            }
        };
        frame.filter(|(kind, _)| *kind == FrameKind::Rows as u8).and_then(|(_, payload)| decode_rows(&payload, page))
    }

    /// Rows of every page from the entries themselves, for a footer that is damaged. Kept in memory: it is rare.
    fn mended_rows(&self) -> Vec<Vec<OwnEntry>> {
        tracing::warn!(segment = self.number, "a damaged footer is made good from the entries; nothing is lost");
        let found = grow(self).unwrap_or_else(|e| {
            tracing::warn!(error = %e, segment = self.number, "nor can the entries be read; sums stand in for them");
            Growing::starting(self.summary.first_pos, self.summary.chain_start)
        });
        let row_of = |epoch, seq: u64| {
            let at = found.summary.pages.iter().position(|page| page.epoch == epoch && page.range().contains(&seq))?;
            let lost = found.summary.unreadable.get(&epoch).is_some_and(|set| set.contains(seq));
            (!lost).then(|| found.rows[at][(seq - found.summary.pages[at].first) as usize])
        };
        let pages = self.summary.pages.iter();
        pages.map(|page| completed(page, page.range().map(|seq| row_of(page.epoch, seq)).collect())).collect()
    }
}

/// Fills in rows that are not known so that all of them come to the page's sums.
fn completed(page: &Page, known: Vec<Option<OwnEntry>>) -> Vec<OwnEntry> {
    let mut left = page.sums;
    for row in known.iter().flatten() {
        let class = row.class().index();
        match (left.count[class].checked_sub(1), left.bytes[class].checked_sub(row.bytes())) {
            (Some(count), Some(bytes)) => (left.count[class], left.bytes[class]) = (count, bytes),
            // The entries contradict the footer: only the sums are certain.
            _ => return completed(page, vec![None; page.len as usize]),
        }
    }
    let mut fill = || {
        let class = Precedence::ALL.into_iter().find(|class| left.count[class.index()] > 0);
        let class = class.unwrap_or(Precedence::Routine);
        left.count[class.index()] = left.count[class.index()].saturating_sub(1);
        OwnEntry::new(class, std::mem::take(&mut left.bytes[class.index()]))
    };
    known.into_iter().map(|row| row.unwrap_or_else(&mut fill)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use model::{ByteSize, Epoch, Outcome};
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use tempfile::TempDir;

    use super::*;
    use crate::format::{FRAME_HEADER_BYTES, FrameHead};
    use crate::tests::{copy_of, draft, options, segment, tempdir};
    use crate::{Consumer, Draft, Journal, JournalSettings, OpenReport};

    fn open(dir: &TempDir) -> (Journal, OpenReport) {
        let mut options = options(dir.path());
        // Several pages in a segment, and several segments.
        let (segment_bytes, limit_bytes) = (ByteSize(600 << 10), ByteSize(1 << 30));
        options.settings = JournalSettings { segment_bytes, limit_bytes, ..JournalSettings::default() };
        Journal::open(options).unwrap()
    }

    fn class_of(seq: u64) -> Precedence {
        let classes = [(997, Precedence::Flash), (50, Precedence::Immediate), (7, Precedence::Deferred)];
        classes
            .into_iter()
            .find(|(every, _)| seq.is_multiple_of(*every))
            .map_or(Precedence::Routine, |(_, class)| class)
    }

    /// Some entries are files of a size that needs the wide form, so that there are pages of both.
    fn content_of(seq: u64) -> Option<u64> {
        (seq.is_multiple_of(5000)).then_some(300_000_000 + seq)
    }

    const ENTRIES: u64 = 13_000;

    fn filled() -> TempDir {
        let dir = tempdir();
        let journal = open(&dir).0;
        journal.consumer("bravo", true).unwrap();
        let append = |n: u64| {
            let chunks = content_of(n).map(|bytes| journal.begin_file().chunks(bytes));
            journal.append_own(Draft { precedence: class_of(n), chunks, ..draft(n) })
        };
        // A segment ends between two batches.
        for from in (1..=ENTRIES).step_by(1000) {
            let tickets: Vec<_> = (from..from + 1000).map(append).collect();
            for ticket in tickets {
                ticket.wait().unwrap();
            }
        }
        assert!(journal.stats().segments >= 3, "{:?}", journal.stats());
        dir
    }

    /// Class, size, stored, outcome.
    type Model = BTreeMap<u64, (Precedence, u64, bool, Option<Outcome>)>;

    fn model_of(journal: &Journal) -> Model {
        let listed = journal.list(model::LocalPos(1)..model::LocalPos(u64::MAX), usize::MAX).unwrap();
        let size = |seq: u64, bytes: u64| OwnEntry::new(class_of(seq), bytes + content_of(seq).unwrap_or(0)).bytes();
        let number = |l: &crate::Listed| l.entry.header.id.seq.get();
        listed.iter().map(|l| (number(l), (class_of(number(l)), size(number(l), l.bytes), false, None))).collect()
    }

    fn agrees(journal: &Journal, model: &Model) {
        let accounting = journal.accounting("bravo").unwrap().unwrap();
        for class in Precedence::ALL {
            let sums = accounting.by_class[class.index()];
            let of = || model.iter().filter(|(_, (c, ..))| *c == class);
            let held = || of().filter(|(_, (.., outcome))| outcome.is_none());
            let ended = |o| of().filter(|(_, (.., outcome))| *outcome == Some(o)).count() as u64;
            assert_eq!(sums.accepted, of().count() as u64, "{class:?}");
            assert_eq!(sums.held, held().count() as u64, "{class:?}");
            assert_eq!(sums.stored, held().filter(|(_, (_, _, stored, _))| *stored).count() as u64, "{class:?}");
            assert_eq!(sums.held_bytes, held().map(|(_, (_, bytes, ..))| bytes).sum::<u64>(), "{class:?}");
            let found = [sums.applied, sums.quarantined, sums.expired, sums.superseded, sums.withheld, sums.purged];
            assert_eq!(found, Outcome::ALL.map(ended), "{class:?}");
            // Entry n was captured n milliseconds after the epoch.
            let oldest = held().next().map(|(seq, _)| *seq as i64);
            assert_eq!(sums.oldest_held.map(|at| at.0), oldest, "{class:?}");
        }
    }

    fn record(consumer: &Consumer, model: &mut Model, outcome: Option<Outcome>, numbers: &RangeSet) {
        match outcome {
            None => consumer.record_stored(Epoch(1), numbers),
            Some(outcome) => consumer.record_outcome(outcome, Epoch(1), numbers),
        }
        for seq in numbers.numbers() {
            if let Some((_, _, stored, ended)) = model.get_mut(&seq) {
                *stored |= outcome.is_none();
                *ended = ended.or(outcome);
            }
        }
    }

    #[test]
    fn accounts_are_exact_over_pages_that_ended_in_part() {
        let filled = filled();
        let fresh = model_of(&open(&filled).0);
        let receipt = (prop::option::of(0usize..6), 1..=ENTRIES, 0u64..6000, prop::option::of(2u64..60));
        let receipts = (prop::collection::vec(receipt, 1..8), any::<bool>());
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) };
        let result = TestRunner::new(config).run(&receipts, |(receipts, reopen)| {
            let dir = copy_of(&filled);
            let (mut journal, _) = open(&dir);
            let mut consumer = journal.consumer("bravo", true).unwrap();
            let mut model = fresh.clone();
            agrees(&journal, &model);
            for (outcome, from, len, every) in receipts {
                let all = from..=(from + len).min(ENTRIES);
                let numbers: RangeSet = match every {
                    None => all.into(),
                    Some(every) => all.filter(|n| n.is_multiple_of(every)).collect(),
                };
                record(&consumer, &mut model, outcome.map(|i| Outcome::ALL[i]), &numbers);
                agrees(&journal, &model);
                if reopen {
                    drop((journal, consumer));
                    journal = open(&dir).0;
                    consumer = journal.consumer("bravo", true).unwrap();
                    agrees(&journal, &model);
                }
            }
            Ok(())
        });
        result.unwrap();
    }

    #[test]
    fn a_damaged_page_of_a_footer_is_made_good_from_the_entries() {
        let dir = filled();
        let path = segment(&dir, 1);
        let mut bytes = fs::read(&path).unwrap();
        let (at, len) = frames_of(&bytes, FrameKind::Rows)[1];
        bytes[at + len / 2] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        let (journal, report) = open(&dir);
        assert!(report.damage.is_empty() && report.new_epoch.is_none(), "{report:?}");
        let mut model = model_of(&journal);
        let consumer = journal.consumer("bravo", true).unwrap();
        record(&consumer, &mut model, Some(Outcome::Applied), &(10..=5003).into());
        agrees(&journal, &model);
        record(&consumer, &mut model, None, &(5000..=9000).into());
        record(&consumer, &mut model, Some(Outcome::Withheld), &(4000..=8000).into());
        agrees(&journal, &model);
        let found = journal.verify(&mut |_| {}).unwrap();
        assert!(found.findings_total == 1 && found.findings[0].what.contains("page of the footer"), "{found:?}");
    }

    #[test]
    fn where_page_and_entries_are_damaged_the_sums_stay_true() {
        let dir = filled();
        let path = segment(&dir, 1);
        let mut bytes = fs::read(&path).unwrap();
        for kind in [FrameKind::Rows, FrameKind::Entry] {
            let (at, len) = frames_of(&bytes, kind)[0];
            bytes[at + len / 2] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
        let journal = open(&dir).0;
        let consumer = journal.consumer("bravo", true).unwrap();
        let before = journal.accounting("bravo").unwrap().unwrap().total;
        consumer.record_outcome(Outcome::Applied, Epoch(1), &(1..=3).into());
        let after = journal.accounting("bravo").unwrap().unwrap().total;
        assert_eq!((after.accepted, after.held, after.applied), (before.accepted, before.held - 3, 3));
        // The damaged entry is met, and known from its receipt all the same.
        assert_eq!(journal.list(model::LocalPos(1)..model::LocalPos(10), 10).unwrap().len(), 8);
        assert_eq!(journal.accounting("bravo").unwrap().unwrap().total.applied, 3);
        consumer.record_outcome(Outcome::Applied, Epoch(1), &(1..=ENTRIES).into());
        let after = journal.accounting("bravo").unwrap().unwrap().total;
        assert_eq!((after.applied, after.held, after.held_bytes), (ENTRIES, 0, 0));
    }

    #[test]
    fn a_segment_whose_sealing_was_cut_short_gets_its_footer_at_the_next_open() {
        let dir = filled();
        let whole = fs::read(segment(&dir, 1)).unwrap();
        let pages = frames_of(&whole, FrameKind::Rows);
        // Nothing of the footer, a page of it, a piece of a page, all but the last byte.
        for len in [pages[0].0 - FRAME_HEADER_BYTES, pages[1].0 - FRAME_HEADER_BYTES, pages[1].0 + 50, whole.len() - 1]
        {
            let copy = copy_of(&dir);
            fs::write(segment(&copy, 1), &whole[..len]).unwrap();
            let (journal, report) = open(&copy);
            assert!(report.damage.is_empty() && report.new_epoch.is_none(), "{len}: {report:?}");
            let written = fs::metadata(segment(&copy, 1)).unwrap().len();
            assert!(written > len as u64, "no footer at {len}");
            let mut model = model_of(&journal);
            let consumer = journal.consumer("bravo", true).unwrap();
            record(&consumer, &mut model, Some(Outcome::Applied), &(10..=5003).into());
            agrees(&journal, &model);
            drop((journal, consumer));
            let (journal, report) = open(&copy);
            assert!(report.damage.is_empty() && report.new_epoch.is_none(), "{len}: {report:?}");
            assert_eq!(fs::metadata(segment(&copy, 1)).unwrap().len(), written, "a footer is written once");
            agrees(&journal, &model);
            assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
        }
    }

    #[test]
    fn a_page_survives_its_encoding_and_nothing_else_is_taken_for_it() {
        let entry = |n: u64| OwnEntry::new(class_of(n), if n == 70 { 900 << 20 } else { n * 110 });
        for range in [1..=60, 1..=75, 60..=75] {
            let rows: Vec<_> = range.map(entry).collect();
            let page = Page { epoch: Epoch(1), first: 1, len: rows.len() as u32, sums: Tally::of(&rows), place: 0 };
            let payload = encode_rows(&rows);
            assert_eq!(decode_rows(&payload, &page), Some(rows));
            for at in 0..payload.len() {
                assert_eq!(decode_rows(&payload[..at], &page), None, "cut at {at}");
            }
            assert_eq!(decode_rows(&[&payload[..], &[0]].concat(), &page), None);
        }
        assert_eq!(entry(70).bytes(), 900 << 20);
        assert_eq!(OwnEntry::new(Precedence::Flash, (900 << 20) + 1).bytes(), (900 << 20) + 1024);
    }

    /// Places and sizes of the payloads of the frames of a kind.
    fn frames_of(bytes: &[u8], kind: FrameKind) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = crate::format::SEGMENT_HEADER_BYTES;
        while let Some(head) = FrameHead::decode(&bytes[at..]) {
            let payload = at + FRAME_HEADER_BYTES;
            at = payload + head.len as usize;
            if head.kind == kind as u8 {
                found.push((payload, head.len as usize));
            }
        }
        found
    }
}
