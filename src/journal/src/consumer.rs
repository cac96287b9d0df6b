//! One destination's durable record of what became of this node's entries there.

use model::{Epoch, LocalPos, Outcome, RangeSet};

use crate::error::{AppendError, ReadError};
use crate::journal::Journal;
use crate::queue::Request;
use crate::state::Account;
use crate::types::ConsumerState;
use crate::view::View;

/// A registered consumer. A cheap handle; several may name the same consumer.
///
/// What is recorded counts at once and is on disk soon after. A crash may forget the newest of it, which is harmless:
/// receipts are cumulative and are repeated. Trimming makes them durable first.
#[derive(Clone)]
pub struct Consumer {
    journal: Journal,
    name: String,
}

impl Consumer {
    pub(crate) fn register(journal: &Journal, name: &str, required: bool) -> Result<Self, AppendError> {
        {
            let mut view = journal.log().write();
            let first = view.summaries().next().map_or(1, |(number, _)| number);
            let mut consumers = std::mem::take(&mut view.state.consumers);
            let account = consumers.entry(name.to_owned()).or_insert_with(|| {
                let mut account =
                    Account { trimmed_through: first - 1, version: 1, begins: true, ..Account::default() };
                account.recount(view.parts());
                account
            });
            // Of an account from an earlier opening too: the power may have gone before it was told.
            for (epoch, set) in &view.state.renumbered {
                account.record(Outcome::Superseded, *epoch, set, view.parts());
            }
            for (epoch, set) in &view.state.purged {
                account.record(Outcome::Purged, *epoch, set, view.parts());
            }
            if account.state.required != required {
                account.state.required = required;
                account.version += 1;
            }
            view.state.consumers = consumers;
        }
        journal.ask(Request::Flush).wait()?;
        Ok(Self { journal: journal.clone(), name: name.to_owned() })
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Its registered name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The peer holds these own numbers durably.
    pub fn record_stored(&self, epoch: Epoch, numbers: &RangeSet) {
        self.change(|account, view| {
            let numbers = numbers.intersection(&given_out(&view.state, epoch));
            account.record_stored(epoch, &numbers, view.parts());
        });
    }

    /// These own numbers ended so. The first outcome of a number stays, and numbers that were never given out are ignored.
    pub fn record_outcome(&self, outcome: Outcome, epoch: Epoch, numbers: &RangeSet) {
        self.change(|account, view| {
            let numbers = numbers.intersection(&given_out(&view.state, epoch));
            account.record(outcome, epoch, &numbers, view.parts());
        });
    }

    /// The local apply is done with everything before `cursor`. The first call makes this a consumer of received
    /// entries, and one of own entries no more.
    pub fn advance(&self, cursor: LocalPos) {
        self.change(|account, _| {
            if account.state.cursor.is_none_or(|at| at < cursor) {
                account.state.cursor = Some(cursor);
                account.version += 1;
            }
        });
    }

    /// As [`Consumer::advance`], of a consumer that reads own and received entries alike: both wait for it.
    pub fn advance_over_all(&self, cursor: LocalPos) {
        self.change(|account, _| {
            if account.state.cursor.is_none_or(|at| at < cursor) || !account.state.reads_all {
                account.state.cursor = Some(account.state.cursor.map_or(cursor, |at| at.max(cursor)));
                account.state.reads_all = true;
                account.version += 1;
            }
        });
    }

    /// The local apply has to look at everything once more: its own book knows less than the journal.
    pub fn rewind(&self) {
        self.change(|account, _| {
            if account.state.cursor.replace(LocalPos::START) != Some(LocalPos::START) {
                account.version += 1;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Account, &View)) {
        {
            let mut view = self.journal.log().write();
            let mut consumers = std::mem::take(&mut view.state.consumers);
            if let Some(account) = consumers.get_mut(&self.name) {
                change(account, &view);
            }
            view.state.consumers = consumers;
        }
        self.journal.shared().queue.note_receipts();
    }

    /// A copy of what is recorded.
    pub fn state(&self) -> ConsumerState {
        self.journal.log().read().state.consumers.get(&self.name).map(|a| a.state.clone()).unwrap_or_default()
    }

    /// How one own number ended here, if it did.
    pub fn outcome_of(&self, epoch: Epoch, seq: model::Seq) -> Option<Outcome> {
        self.journal.log().read().state.consumers.get(&self.name)?.outcome_of(epoch, seq.get())
    }

    /// Every own entry before this position is final here: where a scan may start.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn low_water(&self) -> Result<LocalPos, ReadError> {
        let log = self.journal.log();
        let (first, head, restored) = {
            let view = log.read();
            let account = view.state.consumers.get(&self.name);
            let first = account.and_then(|account| view.first_held(account, None));
            let restored = first.and_then(|(epoch, seq)| view.restored_from(epoch, seq));
            (first, view.state.next_pos, restored)
        };
        let Some((epoch, seq)) = first else { return Ok(LocalPos(head)) };
        // What was restored stands behind what followed its first copy.
        if let Some(first) = restored {
            return Ok(first);
        }
        let seq = model::Seq::new(seq).expect("numbers of runs start at 1");
        let held = log.entry(&model::EntryId { origin: log.node, epoch, seq })?;
        // An entry that has been damaged since open: be careful and start from the beginning.
        Ok(held.map_or(LocalPos::START, |held| LocalPos(held.prefix.pos)))
    }
}

/// Own numbers of an epoch that were ever given out.
fn given_out(state: &crate::state::State, epoch: Epoch) -> RangeSet {
    state.own_last(epoch).map_or_else(RangeSet::new, |last| RangeSet::from(1..=last.get()))
}
