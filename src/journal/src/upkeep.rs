//! What an operator asks of a journal: what a trim would free, and an index made anew a segment at a time.

use std::sync::Arc;

use crate::error::ReadError;
use crate::journal::Journal;
use crate::reader::Reader;
use crate::summary::Summary;
use crate::types::Progress;
use crate::view::{Log, Segment, View, failed, grow};

/// What a trim would make of a segment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TrimPlan {
    /// Number of the segment.
    pub segment: u32,
    /// Size of its file.
    pub bytes: u64,
    /// It would go: nobody waits for it, nor for one before it.
    pub goes: bool,
    /// Who still needs it; empty for one that only waits for those before it.
    pub waiting_for: Vec<String>,
}

impl View {
    /// Who still needs a sealed segment. `files` says that chunks of a file are being put which may stand in it.
    pub(crate) fn waiting_for(&self, segment: &Segment, files: bool) -> Vec<String> {
        let summary = &segment.summary;
        let required = || self.state.consumers.iter().filter(|(_, account)| account.state.required);
        let mut waiting: Vec<_> =
            required().filter(|(_, account)| !account.is_done_with(summary)).map(|(name, _)| name.clone()).collect();
        // A kind of consumer that is not registered yet will want it all.
        if !summary.pages.is_empty() && !required().any(|(_, account)| account.reads_own()) {
            waiting.push("a required peer, none is registered".to_owned());
        }
        if summary.has_foreign() && !required().any(|(_, account)| account.reads_foreign()) {
            waiting.push("the local apply, it is not registered".to_owned());
        }
        if summary.pages.is_empty() && !summary.has_foreign() && required().next().is_none() {
            waiting.push("a consumer, none is registered".to_owned());
        }
        let is_held = |later: &Summary| required().any(|(_, account)| !account.is_done_with(later));
        let later = self.summaries().filter(|(number, _)| *number > segment.number);
        let files_later = later.filter(|(_, s)| s.chunks_since.is_some_and(|since| since <= summary.next_pos));
        let chunks = files_later.map(|(_, later)| later).any(is_held);
        if summary.chunks + summary.chunks_needed > 0 && (files || chunks) {
            waiting.push("a file whose chunks it holds".to_owned());
        }
        waiting
    }
}

impl Log {
    fn trim_plan(&self) -> Vec<TrimPlan> {
        let view = self.read();
        let mut goes = true;
        let plan = |segment: &Arc<Segment>| {
            let waiting_for = view.waiting_for(segment, false);
            goes &= waiting_for.is_empty();
            TrimPlan { segment: segment.number, bytes: segment.bytes, goes, waiting_for }
        };
        view.sealed.values().map(plan).collect()
    }

    /// The sealed segment after a number, with how far it brings a walk over all of them.
    pub(crate) fn next_sealed(&self, after: u32) -> Option<(Arc<Segment>, Progress)> {
        let view = self.read();
        let (_, segment) = view.sealed.range(after.checked_add(1)?..).next()?;
        let total_bytes = view.sealed.values().map(|segment| segment.end).sum();
        let done_bytes = view.sealed.range(..=segment.number).map(|(_, segment)| segment.end).sum();
        Some((Arc::clone(segment), Progress { done_bytes, total_bytes }))
    }
}

impl Reader {
    /// What a trim would free, and what the other segments wait for. Files that are being captured at this moment are
    /// not known here.
    pub fn trim_plan(&self) -> Vec<TrimPlan> {
        self.log().trim_plan()
    }
}

impl Journal {
    /// Indexes the first sealed segment after this number anew; 0 begins. `None` when there is none.
    ///
    /// # Errors
    /// When the segment cannot be read; its rows in the index are gone then, and made again at the next lookup.
    pub fn reindex_next(&self, after: u32) -> Result<Option<(u32, Progress)>, ReadError> {
        let Some((segment, progress)) = self.log().next_sealed(after) else { return Ok(None) };
        self.log().index_remove(segment.number);
        let growing = grow(&segment).map_err(failed)?;
        self.log().index_put(&segment, &growing.tables);
        Ok(Some((segment.number, progress)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Epoch, Outcome};

    use crate::tests::{append, data_keys, open, own, tempdir};
    use crate::{Reader, StdDisk, Which};

    #[test]
    fn the_plan_is_what_the_trim_then_does() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..200);
        let bravo = journal.consumer("bravo", true).unwrap();
        bravo.record_outcome(Outcome::Applied, Epoch(1), &(1..=120).into());
        journal.flush().wait().unwrap();
        let reader = || Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
        let plan = reader().trim_plan();
        let goes = plan.iter().filter(|p| p.goes);
        let (count, bytes) = (goes.clone().count() as u32, goes.map(|p| p.bytes).sum::<u64>());
        let next = plan.iter().find(|p| !p.goes).unwrap();
        assert_eq!(next.waiting_for, ["bravo"]);
        let report = journal.trim().unwrap();
        assert_eq!((report.segments, report.bytes), (count, bytes));
        assert!(count > 0);
        assert!(reader().trim_plan().iter().all(|p| !p.goes), "what is left waits");
    }

    #[test]
    fn an_index_made_anew_finds_everything() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..200);
        let (mut after, mut last) = (0, None);
        while let Some((segment, progress)) = journal.reindex_next(after).unwrap() {
            (after, last) = (segment, Some(progress));
        }
        let last = last.unwrap();
        assert_eq!(last.done_bytes, last.total_bytes);
        assert!((1..=200).all(|seq| journal.show(Which::Id(own(1, seq))).unwrap().is_some()));
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
    }
}
