//! Own entries that nobody needs any more: expired, or overtaken by a newer state, while the link is down.
//!
//! A session decides on both when it is about to send. Without a link that would leave them counted as held, and their
//! bytes on the disk, for as long as the outage lasts. [`Journal::settle`] records the same outcomes meanwhile: the
//! numbers are accounted for in the equation, the peer hears of them with the next session, and the bytes may go.
//!
//! Invariants
//! - Nothing that may have been sent is decided here, only what was appended while the consumer had no session: of the
//!   rest a receipt may be on its way. What was there when the journal was opened counts as sent.
//! - A newer state makes an older one moot only in the same stream, and when it is not less urgent itself.
//! - A legal hold keeps bytes, not delivery: what is under it expires all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{EntryId, Epoch, Outcome, Precedence, RangeSet, StreamId, SupersessionKey, UnixMillis};

use crate::consumer::Consumer;
use crate::format::Record;
use crate::journal::Journal;

/// What [`Journal::settle`] recorded, in entries that ended so for at least one consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Their expiry has passed.
    pub expired: u64,
    /// A newer state exists.
    pub superseded: u64,
}

/// Entries appended since open that may become moot: some 60 bytes for each with an expiry or a supersession key.
pub(crate) struct Moot(Mutex<Inner>);

struct Inner {
    /// Positions before this one were there at open.
    opened_at: u64,
    due: BTreeMap<(UnixMillis, u64), EntryId>,
    newest: HashMap<SupersessionKey, Newest>,
    superseded: BTreeMap<u64, EntryId>,
    /// Positions before this one may have been sent, by consumer.
    offered: BTreeMap<String, u64>,
}

struct Newest {
    pos: u64,
    id: EntryId,
    stream: StreamId,
    class: Precedence,
}

impl Moot {
    pub(crate) fn new(opened_at: u64) -> Self {
        Self(Mutex::new(Inner {
            opened_at,
            due: BTreeMap::new(),
            newest: HashMap::new(),
            superseded: BTreeMap::new(),
            offered: BTreeMap::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record became durable.
    pub(crate) fn note(&self, record: &Record) {
        let Record::Entry(entry) = record else { return };
        let header = &entry.header;
        if !entry.own || (header.expiry.is_none() && header.supersedes.is_none()) {
            return;
        }
        let mut inner = self.lock();
        if let Some(expiry) = header.expiry {
            inner.due.insert((expiry, entry.pos), header.id);
        }
        if let Some(key) = header.supersedes {
            let newest = Newest { pos: entry.pos, id: header.id, stream: header.stream, class: header.precedence };
            let before = inner.newest.insert(key, newest);
            let moot = before.filter(|b| b.stream == header.stream && header.precedence <= b.class);
            inner.superseded.extend(moot.map(|b| (b.pos, b.id)));
        }
    }
}

impl Journal {
    /// Ends, for every consumer that cannot have been sent them, own entries whose expiry has passed at `now` as expired
    /// and those of which a newer state exists as superseded.
    pub fn settle(&self, now: UnixMillis) -> Settled {
        // The log first, as the committer does, which notes what may become moot while it shows it.
        let mut view = self.log().write();
        let mut inner = self.shared().moot.lock();
        let later = inner.due.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut inner.due, later);
        let superseded = std::mem::take(&mut inner.superseded);
        // Expiry first, as a session looks at it.
        let due: BTreeMap<u64, EntryId> = due.into_iter().map(|((_, pos), id)| (pos, id)).collect();
        if due.is_empty() && superseded.is_empty() {
            return Settled::default();
        }
        let mut ended: [BTreeSet<EntryId>; 2] = Default::default();
        let mut consumers = std::mem::take(&mut view.state.consumers);
        for (name, account) in consumers.iter_mut().filter(|(_, account)| !account.reads_foreign()) {
            let offered = inner.offered.get(name).copied().unwrap_or(inner.opened_at);
            for (i, (outcome, list)) in
                [(Outcome::Expired, &due), (Outcome::Superseded, &superseded)].into_iter().enumerate()
            {
                let mut numbers: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
                for id in list.range(offered..).map(|(_, id)| *id) {
                    if account.outcome_of(id.epoch, id.seq.get()).is_none() {
                        numbers.entry(id.epoch).or_default().insert(id.seq.get());
                        ended[i].insert(id);
                    }
                }
                for (epoch, numbers) in &numbers {
                    account.record(outcome, *epoch, numbers, view.parts());
                }
            }
        }
        view.state.consumers = consumers;
        drop((inner, view));
        self.shared().queue.note_receipts();
        Settled { expired: ended[0].len() as u64, superseded: ended[1].len() as u64 }
    }
}

impl Consumer {
    /// A session begins: from now on entries may be sent, and the session decides on them.
    pub fn begin_session(&self) {
        self.offer_before(u64::MAX);
    }

    /// The session ended: what is appended from now on is not sent before the next begins.
    pub fn end_session(&self) {
        self.offer_before(self.journal().head().0);
    }

    fn offer_before(&self, pos: u64) {
        self.journal().shared().moot.lock().offered.insert(self.name().to_owned(), pos);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::tests::{draft, options, tempdir};
    use crate::{Draft, Sums};

    fn total(journal: &Journal, consumer: &str) -> Sums {
        let accounting = journal.accounting(consumer).unwrap().unwrap();
        let sums = accounting.total;
        assert_eq!(sums.accepted, sums.held + sums.applied + sums.expired + sums.superseded, "{sums:?}");
        sums
    }

    #[test]
    fn what_expires_or_is_overtaken_without_a_link_is_accounted_for_and_its_bytes_go() {
        let dir = tempdir();
        let journal = Journal::open(options(dir.path())).unwrap().0;
        let bravo = journal.consumer("bravo", true).unwrap();
        let keyed = |n, precedence| Draft { supersedes: Some(SupersessionKey(5)), precedence, ..draft(n) };
        for n in 0..100 {
            let expiry = (n % 2 == 0).then_some(UnixMillis(1_000 + n as i64));
            journal.append_own(Draft { expiry, ..draft(n) }).wait().unwrap();
        }
        for (n, class) in [(100, Precedence::Priority), (101, Precedence::Priority), (102, Precedence::Routine)] {
            journal.append_own(keyed(n, class)).wait().unwrap();
        }
        assert_eq!(journal.settle(UnixMillis(999)), Settled { expired: 0, superseded: 1 });
        let sums = total(&journal, "bravo");
        assert_eq!((sums.held, sums.superseded), (102, 1), "a less urgent state does not overtake a more urgent one");
        assert_eq!(journal.settle(UnixMillis(1_000)), Settled { expired: 1, superseded: 0 });
        assert_eq!(journal.settle(UnixMillis(9_000)), Settled { expired: 49, superseded: 0 });
        assert_eq!(journal.settle(UnixMillis(9_000)), Settled::default(), "each once");
        let sums = total(&journal, "bravo");
        assert_eq!((sums.held, sums.expired, sums.superseded), (52, 50, 1));
        assert_eq!(journal.trim().unwrap().segments, 0, "the odd ones are still held");
        let open =
            RangeSet::from(1..=103).difference(&bravo.state().outcomes[&Epoch(1)][Outcome::Expired as usize - 1]);
        bravo.record_outcome(Outcome::Applied, Epoch(1), &open);
        assert!(journal.trim().unwrap().segments > 0);
        let before = total(&journal, "bravo");
        journal.flush().wait().unwrap();
        drop((bravo, journal));
        assert_eq!(total(&Journal::open(options(dir.path())).unwrap().0, "bravo"), before);
    }

    /// The committer noted an entry with an expiry while it held the log, and whoever settled held the notes and waited for the
    /// log: both for ever, and the node with them.
    #[test]
    fn settling_and_appending_never_wait_for_each_other_for_ever() {
        let dir = tempdir();
        let journal = Journal::open(options(dir.path())).unwrap().0;
        journal.consumer("bravo", true).unwrap();
        let (settler, written) = (journal.clone(), Arc::new(AtomicBool::new(false)));
        let (told, total) = std::sync::mpsc::channel();
        let until = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut expired = 0;
            while !until.load(Ordering::SeqCst) {
                expired += settler.settle(UnixMillis(2)).expired;
                std::thread::yield_now();
            }
            told.send(expired + settler.settle(UnixMillis(2)).expired).unwrap();
        });
        std::thread::spawn(move || {
            for n in 0..300 {
                journal.append_own(Draft { expiry: Some(UnixMillis(1)), ..draft(n) }).wait().unwrap();
            }
            written.store(true, Ordering::SeqCst);
        });
        let expired = total.recv_timeout(Duration::from_secs(60)).expect("both go on");
        assert_eq!(expired, 300);
    }

    #[test]
    fn what_may_have_been_sent_is_left_to_the_session() {
        let dir = tempdir();
        let expiring = |n| Draft { expiry: Some(UnixMillis(10)), ..draft(n) };
        let journal = Journal::open(options(dir.path())).unwrap().0;
        let [bravo, _] = ["bravo", "charlie"].map(|name| journal.consumer(name, true).unwrap());
        journal.append_own(expiring(1)).wait().unwrap();
        bravo.begin_session();
        journal.append_own(expiring(2)).wait().unwrap();
        bravo.end_session();
        journal.append_own(expiring(3)).wait().unwrap();
        assert_eq!(journal.settle(UnixMillis(10)).expired, 3);
        assert_eq!((total(&journal, "bravo").expired, total(&journal, "charlie").expired), (1, 3));
        journal.append_own(expiring(4)).wait().unwrap();
        drop((bravo, journal));
        let journal = Journal::open(options(dir.path())).unwrap().0;
        assert_eq!(journal.settle(UnixMillis(10)), Settled::default(), "an earlier process may have sent it");
    }

    #[test]
    fn a_consumer_that_is_slow_in_one_class_holds_up_no_other_and_the_slowest_governs_trim() {
        let dir = tempdir();
        let journal = Journal::open(options(dir.path())).unwrap().0;
        let [fast, slow] = ["fast", "slow"].map(|name| journal.consumer(name, true).unwrap());
        for n in 0..200 {
            let precedence = if n % 2 == 0 { Precedence::Flash } else { Precedence::Deferred };
            journal.append_own(Draft { precedence, ..draft(n) }).wait().unwrap();
        }
        let flash: RangeSet = (1..=200).step_by(2).collect();
        fast.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=200));
        slow.record_outcome(Outcome::Applied, Epoch(1), &flash);
        let held =
            |name: &str, class: Precedence| journal.accounting(name).unwrap().unwrap().by_class[class.index()].held;
        assert_eq!((held("slow", Precedence::Flash), held("slow", Precedence::Deferred)), (0, 100));
        assert_eq!((held("fast", Precedence::Flash), held("fast", Precedence::Deferred)), (0, 0));
        let report = journal.trim().unwrap();
        assert_eq!((report.segments, report.waiting_for), (0, vec!["slow".to_owned()]));
        // Newer ones of the class that is done with do not wait for older ones of the other.
        journal.append_own(Draft { precedence: Precedence::Flash, ..draft(200) }).wait().unwrap();
        slow.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(201..=201));
        assert_eq!(held("slow", Precedence::Flash), 0);
        slow.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=200));
        assert!(journal.trim().unwrap().segments > 0);
    }
}
