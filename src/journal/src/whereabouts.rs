//! Where an entry is at each destination and what goes before it, and what is held, by stream.
//!
//! What goes before an entry is added up from summaries and pages and reads no entry. The entries about an object, and
//! those of a stream, are found by walking the log; each walk has a bound and says when it met that.

use std::collections::BTreeMap;

use model::{EntryId, Epoch, LocalPos, ObjectKey, Outcome, Precedence, RangeSet, Seq, StreamId, UnixMillis};

use crate::error::ReadError;
use crate::journal::Journal;
use crate::reader::Reader;
use crate::state::Account;
use crate::summary::Tally;
use crate::types::Listed;
use crate::view::{Log, View, Walk};

/// Entries that one walk looks at. At 300 B each these are 300 MB, read in order.
pub const WALK_MAX: u64 = 1_000_000;

/// Entries about one object that are given: a post that was edited more often is shown by its newest states.
const ABOUT_MAX: usize = 100;

/// Streams that are told apart; what is beyond them counts together.
const STREAMS_MAX: usize = 10_000;

/// An own entry as one consumer has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the consumer.
    pub consumer: String,
    /// It is durable there.
    pub stored: bool,
    /// How it ended there, if it did.
    pub outcome: Option<Outcome>,
    /// Entries that are neither stored there nor ended and that go first, by class: all of the more urgent classes, and
    /// those of its own class with lower numbers. Zero once it is stored.
    pub ahead: [Ahead; 5],
}

/// A number of entries and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Entries.
    pub entries: u64,
    /// Their encoded size, with the whole content of files.
    pub bytes: u64,
}

/// The answer of [`Journal::about`].
#[derive(Clone, Debug)]
pub struct About {
    /// Entries with the objects' states, oldest first; the newest ones where there are many.
    pub entries: Vec<Listed>,
    /// Every entry was looked at.
    pub complete: bool,
    /// Entries that were looked at.
    pub walked: u64,
}

/// Held entries of one stream and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeld {
    /// The stream; `None` for the sum of those that are not told apart.
    pub stream: Option<StreamId>,
    /// The class.
    pub class: Precedence,
    /// Held entries.
    pub entries: u64,
    /// Of these, durable at the consumer.
    pub stored: u64,
    /// Encoded size of the held ones, with the whole content of files.
    pub bytes: u64,
    /// When the oldest was captured.
    pub oldest: UnixMillis,
}

/// The answer of [`Journal::held_by_stream`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldByStream {
    /// Most urgent class first, then the most bytes.
    pub streams: Vec<StreamHeld>,
    /// Every held entry was looked at.
    pub complete: bool,
}

impl View {
    fn ahead(&self, account: &Account, id: EntryId, class: Precedence) -> [Ahead; 5] {
        let mut ahead = [Ahead::default(); 5];
        let mut add = |class: Precedence, tally: &Tally| {
            ahead[class.index()].entries += tally.count[class.index()];
            ahead[class.index()].bytes += tally.bytes[class.index()];
        };
        let seq = id.seq.get();
        for part in self.parts().filter(|part| part.number() > account.trimmed_through) {
            let summary = part.summary();
            if account.held_in(part.number(), summary)[..=class.index()].iter().sum::<u64>() == 0 {
                continue;
            }
            for (i, page) in summary.pages.iter().enumerate() {
                let mut waiting = account.held_numbers(summary, page);
                if let Some(stored) = account.state.stored.get(&page.epoch) {
                    waiting = waiting.difference(stored);
                }
                let all = part.tally(i, &waiting);
                Precedence::ALL.into_iter().filter(|c| *c < class).for_each(|c| add(c, &all));
                if page.epoch < id.epoch || (page.epoch == id.epoch && page.last() < seq) {
                    add(class, &all);
                } else if page.epoch == id.epoch && page.first < seq {
                    add(class, &part.tally(i, &waiting.intersection(&RangeSet::from(page.first..=seq - 1))));
                }
            }
        }
        ahead
    }
}

impl Log {
    fn places(&self, id: EntryId, class: Precedence) -> Vec<Place> {
        let view = self.read();
        let own = view.state.consumers.iter().filter(|(_, account)| !account.reads_foreign());
        own.map(|(name, account)| {
            let seq = id.seq.get();
            let stored = account.state.stored.get(&id.epoch).is_some_and(|set| set.contains(seq));
            let outcome = account.outcome_of(id.epoch, seq);
            let ahead = match stored || outcome.is_some() {
                true => Default::default(),
                false => view.ahead(account, id, class),
            };
            Place { consumer: name.clone(), stored, outcome, ahead }
        })
        .collect()
    }

    fn about(&self, objects: &[ObjectKey], from: Option<EntryId>, walk_max: u64) -> Result<About, ReadError> {
        let first = from.map(|id| self.entry(&id)).transpose()?.flatten();
        let mut about = About { entries: Vec::new(), complete: true, walked: 0 };
        self.walk(
            first.map_or(0, |held| held.prefix.pos),
            |summary| summary.entries > 0,
            |prefix, bytes, segment, offset| {
                about.walked += 1;
                if prefix.object.is_some_and(|object| objects.contains(&object))
                    && let Ok(entry) = wire::decode_entry(bytes)
                {
                    if about.entries.len() == ABOUT_MAX {
                        about.entries.remove(0);
                    }
                    about.entries.push(Listed {
                        pos: LocalPos(prefix.pos),
                        entry: entry.into(),
                        hash: prefix.hash,
                        bytes: bytes.len() as u64,
                        segment,
                        offset,
                    });
                }
                about.complete = about.walked < walk_max;
                if about.complete { Walk::On } else { Walk::Stop }
            },
        )?;
        Ok(about)
    }

    fn held_by_stream(&self, consumer: &str, walk_max: u64) -> Result<Option<HeldByStream>, ReadError> {
        let (account, first) = {
            let view = self.read();
            let Some(account) = view.state.consumers.get(consumer) else { return Ok(None) };
            (account.clone(), view.first_held(account, None))
        };
        let mut held = HeldByStream { streams: Vec::new(), complete: true };
        let Some((epoch, seq)) = first.and_then(|(epoch, seq)| Some((epoch, Seq::new(seq)?))) else {
            return Ok(Some(held));
        };
        let from = self.entry(&EntryId { origin: self.node, epoch, seq })?.map_or(0, |held| held.prefix.pos);
        let mut sums: BTreeMap<(Precedence, Option<StreamId>), StreamHeld> = BTreeMap::new();
        let mut walked = 0;
        self.walk(
            from,
            |summary| !summary.pages.is_empty(),
            |prefix, bytes, _, _| {
                walked += 1;
                held.complete = walked < walk_max;
                if prefix.own
                    && let Ok(entry) = wire::decode_entry(bytes)
                {
                    let header = &entry.header;
                    let number: (Epoch, u64) = (header.id.epoch, header.id.seq.get());
                    if account.outcome_of(number.0, number.1).is_none() {
                        let key = (header.precedence, Some(header.stream));
                        let is_known = sums.contains_key(&key) || sums.len() < STREAMS_MAX;
                        let stream = key.1.filter(|_| is_known);
                        let captured = header.captured.millis();
                        let class = header.precedence;
                        let sum = sums.entry((class, stream)).or_insert(StreamHeld {
                            stream,
                            class,
                            entries: 0,
                            stored: 0,
                            bytes: 0,
                            oldest: captured,
                        });
                        let stored = account.state.stored.get(&number.0).is_some_and(|set| set.contains(number.1));
                        sum.entries += 1;
                        sum.stored += u64::from(stored);
                        sum.bytes += bytes.len() as u64 + prefix.chunks.map_or(0, |chunks| chunks.content_bytes);
                        sum.oldest = sum.oldest.min(captured);
                    }
                }
                if held.complete { Walk::On } else { Walk::Stop }
            },
        )?;
        held.streams = sums.into_values().collect();
        held.streams.sort_by_key(|sum| (sum.class, std::cmp::Reverse(sum.bytes)));
        Ok(Some(held))
    }
}

impl Journal {
    /// Where an own entry of this class is, at each consumer.
    pub fn places(&self, id: EntryId, class: Precedence) -> Vec<Place> {
        self.log().places(id, class)
    }

    /// The entries about any of these objects, from the first that the index names on. Looks at [`WALK_MAX`] entries at
    /// most.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn about(&self, objects: &[ObjectKey]) -> Result<About, ReadError> {
        let mut first: Option<(LocalPos, EntryId)> = None;
        for object in objects {
            let Some(creator) = self.creator(*object)? else { continue };
            let pos = self.show(crate::Which::Id(creator))?.map_or(LocalPos::START, |listed| listed.pos);
            first = first.into_iter().chain([(pos, creator)]).min();
        }
        match first {
            Some((_, creator)) => self.log().about(objects, Some(creator), WALK_MAX),
            // The index names every object of the entries that are held: there is nothing to walk for.
            None => Ok(About { entries: Vec::new(), complete: true, walked: 0 }),
        }
    }

    /// What these own entries come to, by class, as far as they are held here and not ended at the consumer.
    pub fn held_sizes(&self, consumer: &str, numbers: &BTreeMap<Epoch, RangeSet>) -> [Ahead; 5] {
        let view = self.log().read();
        let mut sizes = [Ahead::default(); 5];
        let Some(account) = view.state.consumers.get(consumer) else { return sizes };
        for part in view.parts().filter(|part| part.number() > account.trimmed_through) {
            for (i, page) in part.summary().pages.iter().enumerate() {
                let Some(wanted) = numbers.get(&page.epoch) else { continue };
                let held = account.held_numbers(part.summary(), page).intersection(wanted);
                let tally = part.tally(i, &held);
                for (class, size) in sizes.iter_mut().enumerate() {
                    size.entries += tally.count[class];
                    size.bytes += tally.bytes[class];
                }
            }
        }
        sizes
    }

    /// What a consumer has not finished with, by stream and class; `None` when it is not registered. Looks at
    /// [`WALK_MAX`] entries at most.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn held_by_stream(&self, consumer: &str) -> Result<Option<HeldByStream>, ReadError> {
        self.log().held_by_stream(consumer, WALK_MAX)
    }
}

impl Reader {
    /// As [`Journal::places`], as of the newest durable receipts.
    pub fn places(&self, id: EntryId, class: Precedence) -> Vec<Place> {
        self.log().places(id, class)
    }

    /// As [`Journal::about`]; without the index the walk begins at the oldest entry.
    ///
    /// # Errors
    /// As there.
    pub fn about(&self, objects: &[ObjectKey]) -> Result<About, ReadError> {
        self.log().about(objects, None, WALK_MAX)
    }

    /// As [`Journal::held_by_stream`], as of the newest durable receipts.
    ///
    /// # Errors
    /// As there.
    pub fn held_by_stream(&self, consumer: &str) -> Result<Option<HeldByStream>, ReadError> {
        self.log().held_by_stream(consumer, WALK_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{draft, open, tempdir};
    use crate::{Appended, Draft};

    fn post(n: u64, class: Precedence, object: u64) -> Draft {
        Draft { precedence: class, object: Some(ObjectKey(object)), ..draft(n) }
    }

    fn filled(journal: &Journal) -> Vec<Appended> {
        use Precedence::{Deferred, Flash, Routine};
        let classes = [Routine, Flash, Deferred, Routine, Flash, Routine];
        let drafts = (0u64..).zip(classes).map(|(n, class)| post(n, class, n % 3));
        drafts.map(|draft| journal.append_own(draft).wait().unwrap()).collect()
    }

    #[test]
    fn what_goes_before_an_entry_is_what_is_more_urgent_and_what_is_older_of_its_class() {
        let dir = tempdir();
        let journal = open(&dir).0;
        let consumer = journal.consumer("peer:x", true).unwrap();
        let entries = filled(&journal);
        let ahead = |n: usize, class: Precedence| {
            let places = journal.places(entries[n].id, class);
            let [place] = places.as_slice() else { panic!("{places:?}") };
            place.ahead.map(|class| class.entries)
        };
        assert_eq!(ahead(5, Precedence::Routine), [2, 0, 0, 2, 0]);
        assert_eq!(ahead(4, Precedence::Flash), [1, 0, 0, 0, 0]);
        assert_eq!(ahead(2, Precedence::Deferred), [2, 0, 0, 3, 0]);
        // What is stored there stands in nobody's way, and what ended neither.
        consumer.record_stored(Epoch(1), &RangeSet::from(2..=2));
        consumer.record_outcome(Outcome::Withheld, Epoch(1), &RangeSet::from(1..=1));
        assert_eq!(ahead(5, Precedence::Routine), [1, 0, 0, 1, 0]);
        let of = |n: usize| journal.places(entries[n].id, Precedence::Flash).remove(0);
        assert!(of(1).stored && of(1).outcome.is_none() && of(1).ahead == [Ahead::default(); 5]);
        assert_eq!(of(0).outcome, Some(Outcome::Withheld));
        let bytes = journal.places(entries[5].id, Precedence::Routine).remove(0).ahead[0].bytes;
        let flash = journal.show(crate::Which::Id(entries[4].id)).unwrap().unwrap();
        assert_eq!(bytes, flash.bytes);
    }

    #[test]
    fn the_states_of_an_object_are_found_with_and_without_the_index() {
        let dir = tempdir();
        let journal = open(&dir).0;
        let entries = filled(&journal);
        let expected: Vec<EntryId> = vec![entries[1].id, entries[4].id];
        let ids = |about: &About| about.entries.iter().map(|l| l.entry.header.id).collect::<Vec<_>>();
        let about = journal.about(&[ObjectKey(77), ObjectKey(1)]).unwrap();
        assert_eq!((ids(&about), about.complete, about.walked), (expected.clone(), true, 5));
        let reader = Reader::open(dir.path(), std::sync::Arc::new(crate::StdDisk), &crate::tests::data_keys()).unwrap();
        let about = reader.about(&[ObjectKey(1)]).unwrap();
        assert_eq!((ids(&about), about.walked), (expected, 6));
        assert!(journal.about(&[ObjectKey(99)]).unwrap().entries.is_empty());
        let bounded = journal.log().about(&[ObjectKey(0)], None, 3).unwrap();
        assert_eq!((bounded.entries.len(), bounded.complete), (1, false));
    }

    #[test]
    fn held_entries_are_added_up_by_stream_and_class() {
        let dir = tempdir();
        let journal = open(&dir).0;
        let consumer = journal.consumer("peer:x", true).unwrap();
        filled(&journal);
        consumer.record_stored(Epoch(1), &RangeSet::from(5..=5));
        consumer.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=1));
        let held = journal.held_by_stream("peer:x").unwrap().unwrap();
        let rows: Vec<_> = held.streams.iter().map(|s| (s.class, s.entries, s.stored)).collect();
        let expected = [(Precedence::Flash, 2, 1), (Precedence::Routine, 2, 0), (Precedence::Deferred, 1, 0)];
        assert_eq!((rows.as_slice(), held.complete), (expected.as_slice(), true));
        let accounting = journal.accounting("peer:x").unwrap().unwrap();
        let some = [(Epoch(1), RangeSet::from(1..=2))].into();
        let sizes = journal.held_sizes("peer:x", &some);
        assert_eq!(sizes.map(|size| size.entries), [1, 0, 0, 0, 0], "of the two one has ended");
        assert!(sizes[0].bytes > 0);
        assert_eq!(held.streams.iter().map(|s| s.bytes).sum::<u64>(), accounting.total.held_bytes);
        assert!(journal.held_by_stream("peer:y").unwrap().is_none());
        assert!(!journal.log().held_by_stream("peer:x", 2).unwrap().unwrap().complete);
    }
}
