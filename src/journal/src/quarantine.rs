//! What becomes of a damaged place: its bytes are kept aside, what stood there is missed by name, and asked for again.
//!
//! ```text
//!  a read or the scrub meets damage --> measure the segment --> journal/quarantine/<segment>-<offset>.bin and .json
//!                                              |
//!             own entries that cannot be read -+-> a peer that holds them gives them back --> restored entry (frame 15)
//!                                              `-> nobody holds them: quarantined, told to the peers
//!  received entries that cannot be read before they were applied --> damage note (frame 16): not received; their origin
//!                                                                    sends them again
//! ```
//! Nothing is cut out of a segment: what is kept aside is a copy. The files only inform; what is missed is found again
//! by reading, and accounts never depend on them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Clock, Disk, EntryHash, EntryId, Epoch, LocalPos, NodeId, OpenMode, Outcome, RangeSet, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::committer::{Batch, Committer};
use crate::error::{AppendError, ReadError};
use crate::format::{DamageNote, EntryPrefix, EntryRecord, FrameKind, ReceivedFrame, Record, link_chain, split};
use crate::journal::Journal;
use crate::mutations::{Mutation, is, unless};
use crate::queue::Request;
use crate::reserve::Need;
use crate::scan::{Found, Refused, Scanner, Window, read_past, what_of};
use crate::state::Account;
use crate::summary::{Growing, Numbers};
use crate::ticket::Ticket;
use crate::types::{Chunks, Damage, Foreign};
use crate::view::{Log, Segment, View, failed};

/// More places than this are a disk to be replaced; the segments themselves still hold the bytes.
const PLACES_MAX: usize = 256;

/// Kept of one place: the largest entry fits several times.
const PLACE_BYTES_MAX: u64 = 4 << 20;

/// Kept in all.
const BYTES_MAX: u64 = 64 << 20;

/// Form of the description beside a copy.
const SCHEMA: &str = "holdfast.quarantine/1";

/// Received numbers, by origin and epoch.
pub(crate) type Lost = BTreeMap<(NodeId, Epoch), RangeSet>;

/// A damaged place that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedPlace {
    /// `holdfast.quarantine/1`.
    pub schema: String,
    /// Name of the place, `<segment>-<offset>`, and of its files.
    pub name: String,
    /// Number of the segment.
    pub segment: u32,
    /// First damaged byte.
    pub offset: u64,
    /// How many bytes until the next whole frame.
    pub bytes: u64,
    /// How many of them were copied.
    pub copied_bytes: u64,
    /// When it was met.
    pub found_at: UnixMillis,
    /// What was found.
    pub what: String,
    /// Own entries of the segment that could not be read then, as `epoch/first-last`.
    pub own_entries: Vec<String>,
    /// An operator has taken note: it is no alarm any more.
    pub acknowledged: bool,
}

impl QuarantinedPlace {
    fn name(segment: u32, offset: u64) -> String {
        format!("{segment:08}-{offset}")
    }

    /// The segment of the place that a file is about.
    fn segment_of(file: &str) -> Option<u32> {
        file.split_once('-')?.0.parse().ok()
    }
}

/// Own entries that cannot be read, and what is done about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuarantinedNumbers {
    /// Own epoch.
    pub epoch: u32,
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
    /// Consumers that said they hold them and may give them back; empty when nobody does.
    pub awaited_from: Vec<String>,
}

/// What is kept aside and what is missed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QuarantineReport {
    /// Damaged places, by segment and offset.
    pub places: Vec<QuarantinedPlace>,
    /// Own entries that cannot be read and have not ended everywhere.
    pub missing: Vec<QuarantinedNumbers>,
    /// Own entries that cannot be read and have ended everywhere: nobody needs them any more.
    pub ended: u64,
    /// Own entries that were missing and can be read again.
    pub restored: u64,
    /// Received entries that were damaged before they were applied, and are asked for again.
    pub asked_again: u64,
    /// Places of which no copy was kept, since there are too many.
    pub left_out: u64,
}

impl QuarantineReport {
    /// How many own entries are missing.
    pub fn missing_count(&self) -> u64 {
        self.missing.iter().map(|numbers| numbers.last - numbers.first + 1).sum()
    }

    /// Places that no operator has taken note of.
    pub fn open_places(&self) -> usize {
        self.places.iter().filter(|place| !place.acknowledged).count()
    }
}

/// How one consumer stands to the own entries that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Nobody holds them, or nobody needs them: the consumer is told that they never come.
    pub lost: BTreeMap<Epoch, RangeSet>,
    /// The consumer holds them and somebody needs them: it is asked to give them back.
    pub recall: BTreeMap<Epoch, RangeSet>,
}

/// The copies, and what is known beside them.
pub(crate) struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    places: BTreeMap<(u32, u64), QuarantinedPlace>,
    left_out: BTreeSet<(u32, u64)>,
    /// What a consumer was asked for and does not hold.
    gone: BTreeMap<String, Numbers>,
    /// Received numbers that were given up since the start, to be asked for again.
    asked_again: Lost,
}

impl Quarantine {
    /// Reads what earlier processes noted. A directory that cannot be read is reported and counts as empty.
    pub(crate) fn open(disk: Arc<dyn Disk>, journal: &Path, clock: Arc<dyn Clock>) -> Self {
        let dir = dir_in(journal);
        let places = read_places(&*disk, journal);
        let places = places.into_iter().map(|place| ((place.segment, place.offset), place)).collect();
        Self { disk, dir, clock, inner: Mutex::new(Inner { places, ..Inner::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a damaged place, once.
    ///
    /// # Errors
    /// When the disk does not read the place and takes no note of it either: it may be gone as a whole.
    fn keep(&self, window: &Window, (damage, unreadable): &(Damage, bool), own: &Numbers) -> io::Result<()> {
        let at = (damage.segment, damage.offset);
        let mut inner = self.lock();
        let is_known = inner.places.get(&at).is_some_and(|known| known.bytes >= damage.bytes);
        if is_known || inner.left_out.contains(&at) {
            return Ok(());
        }
        let (segment, offset, bytes) = (damage.segment, damage.offset, damage.bytes);
        tracing::error!(
            segment, offset, bytes, what = %damage.what,
            "a damaged place in the journal is kept aside; see `holdfast journal quarantine list`"
        );
        let kept: u64 = inner.places.values().map(|place| place.copied_bytes).sum();
        let copy = bytes.min(PLACE_BYTES_MAX);
        if inner.places.len() >= PLACES_MAX || kept + copy > BYTES_MAX {
            inner.left_out.insert(at);
            return Ok(());
        }
        let place = QuarantinedPlace {
            schema: SCHEMA.to_owned(),
            name: QuarantinedPlace::name(segment, offset),
            segment,
            offset,
            bytes,
            copied_bytes: copy,
            found_at: self.clock.now(),
            what: damage.what.clone(),
            own_entries: named(own),
            acknowledged: false,
        };
        if let Err(e) = self.copy(window, &place) {
            if *unreadable {
                return Err(e);
            }
            tracing::warn!(error = %e, segment, offset, "no copy of the damaged place was kept; the segment still holds it");
        }
        inner.places.insert(at, place);
        Ok(())
    }

    fn copy(&self, window: &Window, place: &QuarantinedPlace) -> io::Result<()> {
        let mut bytes = vec![0; place.copied_bytes as usize];
        let got = read_past(&*window.file, &mut bytes, place.offset, &mut Refused::default())?;
        bytes.truncate(got);
        self.disk.create_dir_all(&self.dir)?;
        self.write(&format!("{}.bin", place.name), &bytes)?;
        self.describe(place)
    }

    fn describe(&self, place: &QuarantinedPlace) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(place).map_err(io::Error::other)?;
        self.write(&format!("{}.json", place.name), &json)
    }

    /// Puts a file in place of one of that name, whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join(format!("{name}.new"));
        match self.disk.unlink(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let file = self.disk.open(&new, OpenMode::Create)?;
        file.append(bytes)?;
        unless(Mutation::SkipQuarantineSync, || file.sync_data())?;
        self.disk.rename(&new, &self.dir.join(name))?;
        unless(Mutation::SkipQuarantineDirSync, || self.disk.sync_dir(&self.dir))
    }

    /// Removes the copies of what is damaged in all but some segments, durably. Returns how many there were. Goes by the
    /// files: a power cut may have left a copy whose description is gone.
    ///
    /// # Errors
    /// When one of them is still there, or may come back.
    pub(crate) fn remove_but(&self, stays: impl Fn(u32) -> bool) -> io::Result<u32> {
        let mut inner = self.lock();
        let names = match self.disk.list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            listed => listed?,
        };
        let goes = |name: &&String| QuarantinedPlace::segment_of(name).is_some_and(|segment| !stays(segment));
        let going: Vec<_> = names.iter().filter(goes).collect();
        for name in &going {
            self.disk.unlink(&self.dir.join(name))?;
        }
        // Also when there are none: a process that was killed may have removed them.
        unless(Mutation::SkipQuarantineRemoveSync, || self.disk.sync_dir(&self.dir))?;
        inner.places.retain(|(segment, _), _| stays(*segment));
        Ok(going.iter().filter(|name| name.ends_with(".bin")).count() as u32)
    }

    /// Takes a place off the list whose bytes are whole again.
    fn remove(&self, at: (u32, u64)) {
        let Some(place) = self.lock().places.remove(&at) else { return };
        for end in ["json", "bin"] {
            let path = self.dir.join(format!("{}.{end}", place.name));
            if let Err(e) = self.disk.unlink(&path)
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(error = %e, path = %path.display(), "the copy of a place that is whole again stays");
            }
        }
    }
}

fn dir_in(journal: &Path) -> PathBuf {
    journal.join("quarantine")
}

/// The descriptions in a journal's quarantine; one that cannot be read is left out.
pub(crate) fn read_places(disk: &dyn Disk, journal: &Path) -> Vec<QuarantinedPlace> {
    let dir = dir_in(journal);
    let names = match disk.list(&dir) {
        Ok(names) => names,
        Err(e) => {
            if e.kind() != io::ErrorKind::NotFound {
                tracing::warn!(error = %e, dir = %dir.display(), "the quarantine cannot be listed");
            }
            return Vec::new();
        }
    };
    let read = |name: &String| -> io::Result<QuarantinedPlace> {
        let file = disk.open(&dir.join(name), OpenMode::Read)?;
        let mut bytes = vec![0; file.len()?.min(DESCRIPTION_BYTES_MAX) as usize];
        let got = file.read_at(&mut bytes, 0)?;
        serde_json::from_slice(&bytes[..got]).map_err(io::Error::other)
    };
    let mut places = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".json")) {
        match read(name) {
            Ok(place) => places.push(place),
            Err(e) => tracing::warn!(error = %e, name, "a description in the quarantine cannot be read"),
        }
    }
    places.sort_by_key(|place| (place.segment, place.offset));
    places
}

/// A description names at most the entries of one segment in ranges; more than this is none of ours.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;

fn named(numbers: &Numbers) -> Vec<String> {
    let ranges = numbers.iter().flat_map(|(epoch, set)| set.iter().map(move |range| (epoch.0, range)));
    ranges.map(|(epoch, range)| format!("{epoch}/{}-{}", range.start(), range.end())).collect()
}

fn without(numbers: &Numbers, other: &Numbers) -> Numbers {
    let left = numbers
        .iter()
        .map(|(epoch, set)| (*epoch, other.get(epoch).map_or_else(|| set.clone(), |other| set.difference(other))));
    left.filter(|(_, set)| !set.is_empty()).collect()
}

fn within(numbers: &Numbers, other: &Numbers) -> Numbers {
    without(numbers, &without(numbers, other))
}

fn count(numbers: &Numbers) -> u64 {
    numbers.values().map(RangeSet::count).sum()
}

/// A segment as it reads: what is there, and where it is damaged, with whether the disk refused to read that.
fn read_again(segment: &Segment) -> io::Result<(Growing, Vec<(Damage, bool)>)> {
    let mut growing = Growing::starting(segment.summary.first_pos, segment.summary.chain_start);
    let mut places = Vec::new();
    let mut scanner = Scanner::new(segment.window());
    while let Some(found) = scanner.next()? {
        match found {
            Found::Frame { offset, kind, payload } => {
                if let Some(record) = Record::decode(kind, &payload) {
                    growing.note(&record, offset, |epoch| segment.summary.own_before(epoch));
                }
            }
            Found::Damaged { offset, bytes, unreadable } => {
                let what = what_of(unreadable);
                places.push((Damage { segment: segment.number, offset, bytes, what }, unreadable));
            }
        }
    }
    Ok((growing, places))
}

impl View {
    /// Own numbers whose entries cannot be read.
    pub(crate) fn unreadable(&self) -> Numbers {
        let mut all = Numbers::new();
        for (epoch, set) in self.summaries().flat_map(|(_, summary)| &summary.unreadable) {
            all.entry(*epoch).or_default().union_with(set);
        }
        all
    }

    /// Marks own numbers wherever they stand. The accounts are to be counted again afterwards.
    pub(crate) fn set_readable(&mut self, numbers: &Numbers, readable: bool) {
        let marks = |summary: &crate::summary::Summary| {
            let stand = if readable { summary.unreadable.clone() } else { summary.readable_numbers() };
            !within(&stand, numbers).is_empty()
        };
        for segment in self.sealed.values_mut().filter(|segment| marks(&segment.summary)) {
            Arc::make_mut(segment).summary.set_readable(numbers, readable);
        }
        if marks(&self.tail.growing.summary) {
            self.tail.growing.summary.set_readable(numbers, readable);
        }
    }

    /// Entries that stand once more behind damaged ones can be read.
    pub(crate) fn take_restored(&mut self) {
        let mut restored = std::mem::take(&mut self.state.restored);
        for (epoch, set) in self.summaries().flat_map(|(_, summary)| &summary.restored) {
            restored.entry(*epoch).or_default().union_with(set);
        }
        self.set_readable(&restored, true);
        self.state.restored = restored;
    }

    /// Where reading must start to meet what followed the first copy of a restored entry.
    pub(crate) fn restored_from(&self, epoch: Epoch, seq: u64) -> Option<LocalPos> {
        self.state.restored.get(&epoch).filter(|set| set.contains(seq))?;
        let first = self.summaries().find(|(_, summary)| summary.has_own(epoch, seq));
        first.map(|(_, summary)| LocalPos(summary.first_pos))
    }

    /// Of the own entries that cannot be read those that some required consumer has not finished with.
    fn needed(&self, unreadable: &Numbers) -> Numbers {
        let mut needed = Numbers::new();
        let required =
            self.state.consumers.values().filter(|account| account.state.required && !account.reads_foreign());
        for account in required {
            for (epoch, set) in unreadable {
                let open = account.ended(*epoch).iter().fold(set.clone(), |open, ended| open.difference(ended));
                if !open.is_empty() {
                    needed.entry(*epoch).or_default().union_with(&open);
                }
            }
        }
        needed
    }

    /// Own entries that a consumer said it holds.
    fn held_by(account: &Account, numbers: &Numbers) -> Numbers {
        let mut held = Numbers::new();
        for (epoch, set) in numbers {
            let mut there = account.state.stored.get(epoch).cloned().unwrap_or_default();
            if let Some(outcomes) = account.state.outcomes.get(epoch) {
                there.union_with(&outcomes[Outcome::Applied as usize - 1]);
            }
            held.insert(*epoch, set.intersection(&there));
        }
        held.retain(|_, set| !set.is_empty());
        held
    }
}

impl Log {
    pub(crate) fn damage_changes(&self) -> u64 {
        self.damage_changes.load(Ordering::SeqCst)
    }

    pub(crate) fn note_damage_change(&self) {
        self.damage_changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Copies places that were met.
    ///
    /// # Errors
    /// As for [`Quarantine::keep`].
    pub(crate) fn keep_aside(&self, damage: &[Damage], unreadable: bool) -> Result<(), ReadError> {
        let Some(quarantine) = &self.quarantine else { return Ok(()) };
        for place in damage {
            let (window, own) = {
                let view = self.read();
                match view.sealed.get(&place.segment) {
                    Some(segment) => (segment.window(), segment.summary.unreadable.clone()),
                    None if view.tail.number == place.segment => {
                        (view.tail.window(), view.tail.growing.summary.unreadable.clone())
                    }
                    None => continue,
                }
            };
            quarantine.keep(&window, &(place.clone(), unreadable), &own).map_err(failed)?;
        }
        Ok(())
    }

    /// Reads a sealed segment again: what is damaged is kept aside and missed, what can be read counts as there. Returns
    /// how many damaged places there are.
    pub(crate) fn measure(&self, number: u32) -> Result<usize, ReadError> {
        let Some(sealed) = self.read().sealed.get(&number).cloned() else { return Ok(0) };
        let (found, places) = read_again(&sealed).map_err(failed)?;
        let found = found.summary;
        if let Some(quarantine) = &self.quarantine {
            // Before anything is given up for them.
            let mut summary = sealed.summary.clone();
            summary.mark_unreadable(&found);
            summary.set_readable(&self.read().state.restored, true);
            places
                .iter()
                .try_for_each(|place| quarantine.keep(&sealed.window(), place, &summary.unreadable))
                .map_err(failed)?;
        }
        let changed = {
            let mut view = self.write();
            let Some(sealed) = view.sealed.get(&number).cloned() else { return Ok(0) };
            let before = view.unreadable();
            let mut summary = sealed.summary.clone();
            summary.mark_unreadable(&found);
            summary.set_readable(&found.readable_numbers(), true);
            summary.set_readable(&view.state.restored, true);
            // A second copy can be damaged as the first one was.
            let mut lost_again = without(&summary.restored, &found.restored);
            summary.restored.clone_from(&found.restored);
            view.sealed.insert(number, Arc::new(Segment { summary, ..(*sealed).clone() }));
            for (_, summary) in view.summaries() {
                lost_again = without(&lost_again, &summary.restored);
            }
            if !lost_again.is_empty() {
                view.state.restored = without(&view.state.restored, &lost_again);
                view.set_readable(&lost_again, false);
            }
            let changed = view.unreadable() != before;
            if changed {
                view.recount();
            }
            changed
        };
        if let Some(quarantine) = &self.quarantine {
            let still: BTreeSet<(u32, u64)> = places.iter().map(|(place, _)| (place.segment, place.offset)).collect();
            let known: Vec<_> =
                quarantine.lock().places.range((number, 1)..=(number, u64::MAX)).map(|(at, _)| *at).collect();
            known.into_iter().filter(|at| !still.contains(at)).for_each(|at| quarantine.remove(at));
        }
        // Damage that hides no own entry may hide a chunk, which is then asked for again.
        if changed || !places.is_empty() {
            self.note_damage_change();
        }
        Ok(places.len())
    }

    pub(crate) fn missed_by(&self, consumer: &str) -> Missed {
        let view = self.read();
        let unreadable = view.unreadable();
        if unreadable.is_empty() {
            return Missed::default();
        }
        let needed = view.needed(&unreadable);
        let (mut recall, mut awaited) = (Numbers::new(), Numbers::new());
        for (name, account) in &view.state.consumers {
            let held = self.may_give_back(name, account, &needed);
            if name == consumer {
                recall = held;
            } else {
                held.into_iter().for_each(|(epoch, set)| awaited.entry(epoch).or_default().union_with(&set));
            }
        }
        Missed { lost: without(&without(&unreadable, &awaited), &recall), recall }
    }

    /// Of the needed entries those that a consumer holds, unless it has said that it does not.
    fn may_give_back(&self, name: &str, account: &Account, needed: &Numbers) -> Numbers {
        let held = View::held_by(account, needed);
        let gone = self.quarantine.as_ref().and_then(|quarantine| quarantine.lock().gone.get(name).cloned());
        without(&held, &gone.unwrap_or_default())
    }

    pub(crate) fn quarantine_report(&self, places: Vec<QuarantinedPlace>) -> QuarantineReport {
        let view = self.read();
        let unreadable = view.unreadable();
        let needed = match view.state.consumers.values().any(|account| !account.reads_foreign()) {
            true => view.needed(&unreadable),
            false => unreadable.clone(),
        };
        let mut missing = Vec::new();
        for (epoch, set) in &needed {
            for range in set.iter() {
                let number: Numbers = [(*epoch, RangeSet::from(range.clone()))].into();
                let holders = view
                    .state
                    .consumers
                    .iter()
                    .filter(|(name, account)| !self.may_give_back(name, account, &number).is_empty());
                missing.push(QuarantinedNumbers {
                    epoch: epoch.0,
                    first: *range.start(),
                    last: *range.end(),
                    awaited_from: holders.map(|(name, _)| name.clone()).collect(),
                });
            }
        }
        let inner = self.quarantine.as_ref().map(Quarantine::lock);
        let asked = inner.as_ref().map(|inner| self.still_asked(&view, &inner.asked_again));
        QuarantineReport {
            places,
            missing,
            ended: count(&without(&unreadable, &needed)),
            restored: count(&view.state.restored),
            asked_again: asked.unwrap_or_default().values().map(RangeSet::count).sum(),
            left_out: inner.map_or(0, |inner| inner.left_out.len() as u64),
        }
    }

    fn still_asked(&self, view: &View, asked: &Lost) -> Lost {
        let left = asked.iter().map(|(from, set)| {
            (*from, view.state.received.get(from).map_or_else(|| set.clone(), |received| set.difference(received)))
        });
        left.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Does the chain of the segment end as its footer says when the entry stands where one is missing? `None` when
    /// more than this one is missing, so that nothing can be said.
    fn chain_agrees(&self, id: &EntryId, hash: &EntryHash) -> Result<Option<bool>, ReadError> {
        let stands = |s: &&Arc<Segment>| s.summary.has_own(id.epoch, id.seq.get());
        let Some(segment) = self.read().sealed.values().find(stands).cloned() else { return Ok(None) };
        let (mut chain, mut entries, mut places) = (segment.summary.chain_start, 0, 0);
        let mut scanner = Scanner::new(segment.window());
        while let Some(found) = scanner.next().map_err(failed)? {
            match found {
                Found::Frame { kind, payload, .. } if FrameKind::is_chained(kind) => {
                    let Some((prefix, _)) = EntryPrefix::decode(&payload) else { return Ok(None) };
                    chain = link_chain(&chain, &prefix.hash);
                    entries += u64::from(kind == FrameKind::Entry as u8 || kind == FrameKind::PurgedEntry as u8);
                }
                Found::Frame { .. } => {}
                Found::Damaged { .. } => {
                    places += 1;
                    chain = link_chain(&chain, hash);
                }
            }
        }
        let one_is_missing = places == 1 && entries + 1 == segment.summary.entries;
        Ok(one_is_missing.then_some(chain == segment.summary.chain_end))
    }
}

impl Committer {
    /// An own entry that came back. Whether it was missing.
    pub(crate) fn plan_restore(&mut self, batch: &mut Batch, returned: &Foreign) -> Result<bool, AppendError> {
        let malformed = |e: wire::WireError| AppendError::Malformed(e.to_string());
        let entry = wire::decode_entry(&returned.bytes).map_err(malformed)?;
        let hash = wire::entry_hash(&returned.bytes).map_err(malformed)?;
        let header = entry.header;
        let id = header.id;
        if id.origin != self.node() {
            return Err(AppendError::Malformed(format!("{id} is no entry of this node")));
        }
        let (missing, since) = {
            let view = self.shared.log.read();
            let first = view.summaries().find(|(_, summary)| summary.has_own(id.epoch, id.seq.get()));
            let missing = view.unreadable().get(&id.epoch).is_some_and(|set| set.contains(id.seq.get()));
            (missing, first.and_then(|(_, summary)| summary.chunks_since))
        };
        let purged = self.shared.log.read().state.purged.get(&id.epoch).is_some_and(|set| set.contains(id.seq.get()));
        if !missing || purged || batch.received.contains_key(&id) {
            return Ok(false);
        }
        self.room(batch, Need::Entry(header.precedence), returned.bytes.len())?;
        let (pos, class, object) = (batch.next_pos, header.precedence, returned.object);
        // It counts where its first copy stood, with its content; of where its chunks begin the segment of that still tells.
        let chunks = since.map(|since| Chunks { since: LocalPos(since), content_bytes: 0 });
        let prefix = EntryPrefix { pos, own: true, class, hash, object, chunks };
        let bytes = returned.bytes.len() as u32;
        let record = EntryRecord { pos, own: true, class, hash, object, chunks, header, bytes };
        batch.push(FrameKind::Restored, &[&prefix.encode(), &returned.bytes], Record::Restored(Box::new(record)));
        batch.next_pos += 1;
        batch.received.insert(id, hash);
        Ok(true)
    }

    /// Received numbers that count as not received any more.
    pub(crate) fn plan_forget(&mut self, batch: &mut Batch, lost: &Lost) {
        let lost = lost.iter().flat_map(|((origin, epoch), set)| {
            split(set).into_iter().map(|numbers| ReceivedFrame { origin: *origin, epoch: *epoch, numbers })
        });
        let note = DamageNote { lost: lost.collect() };
        batch.urgent = true;
        batch.push(FrameKind::DamageNote, &[&crate::format::to_cbor(&note)], Record::DamageNote(note));
    }
}

impl Journal {
    /// How a consumer stands to the own entries that cannot be read; changes with [`Journal::damage_changes`].
    pub fn missed_by(&self, consumer: &str) -> Missed {
        self.log().missed_by(consumer)
    }

    /// The consumer was asked for these and does not hold them.
    pub fn not_returned(&self, consumer: &str, epoch: Epoch, numbers: &RangeSet) {
        if let Some(quarantine) = &self.log().quarantine {
            let mut inner = quarantine.lock();
            inner.gone.entry(consumer.to_owned()).or_default().entry(epoch).or_default().union_with(numbers);
        }
        self.log().note_damage_change();
    }

    /// Makes an own entry readable again that was damaged and that a peer gave back: it is appended under its old
    /// number, so that every consumer that has not finished with it gets it. False when it was not missing. Reads the
    /// damaged segment on the caller's thread.
    ///
    /// # Errors
    /// The ticket's: when the entry is not what stood there, as far as the segment's hash chain can tell.
    pub fn restore(&self, returned: Foreign) -> Ticket<bool> {
        match self.proves_wrong(&returned) {
            Ok(()) => self.ask(|completer| Request::Restore(returned, completer)),
            Err(e) => {
                let (completer, ticket) = crate::ticket::ticket();
                completer.complete(Err(e));
                ticket
            }
        }
    }

    fn proves_wrong(&self, returned: &Foreign) -> Result<(), AppendError> {
        let malformed = |e: wire::WireError| AppendError::Malformed(e.to_string());
        let id = wire::decode_entry(&returned.bytes).map_err(malformed)?.header.id;
        let hash = wire::entry_hash(&returned.bytes).map_err(malformed)?;
        let agrees = self.log().chain_agrees(&id, &hash).map_err(|e| AppendError::Unreadable(e.0))?;
        match agrees {
            Some(false) if !is(Mutation::SkipReturnedCheck) => {
                Err(AppendError::Malformed(format!("{id} is not what stood there: the hash chain differs")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Received entries that were damaged before they were used count as not received, so that their origin is asked
    /// to send them again.
    pub fn forget_received(&self, lost: BTreeMap<(NodeId, Epoch), RangeSet>) -> Ticket<()> {
        if let Some(quarantine) = &self.log().quarantine {
            let mut inner = quarantine.lock();
            for (from, numbers) in &lost {
                inner.asked_again.entry(*from).or_default().union_with(numbers);
            }
        }
        self.ask(|completer| Request::Forget(lost, completer))
    }

    /// Of what was forgotten since the start, the numbers of an origin that have not come again.
    pub fn forgotten(&self, origin: NodeId) -> BTreeMap<Epoch, RangeSet> {
        let Some(quarantine) = &self.log().quarantine else { return BTreeMap::new() };
        let asked = quarantine.lock().asked_again.clone();
        let view = self.log().read();
        let forgotten = |((_, epoch), set): ((NodeId, Epoch), RangeSet)| {
            // Until the note is durable they count as received.
            let received = view.state.received.get(&(origin, epoch)).cloned().unwrap_or_default();
            (epoch, set.difference(&received))
        };
        let of_origin = asked.into_iter().filter(|((node, _), _)| *node == origin);
        of_origin.map(forgotten).filter(|(_, set)| !set.is_empty()).collect()
    }

    /// What is kept aside and what is missed.
    pub fn quarantine(&self) -> QuarantineReport {
        let places = self.log().quarantine.as_ref().map(|q| q.lock().places.values().cloned().collect());
        self.log().quarantine_report(places.unwrap_or_default())
    }

    /// Gives up what a damaged place held, or all of them for `None`: the own entries of its segment that cannot be read
    /// end as quarantined for every consumer, and the place is no alarm any more. Returns how many entries ended so;
    /// `None` when there is no such place.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn quarantine_skip(&self, place: Option<&str>) -> Result<Option<u64>, AppendError> {
        let Some(chosen) = self.chosen(place) else { return Ok(None) };
        let mut given_up = Numbers::new();
        {
            let mut view = self.log().write();
            let segments: BTreeSet<u32> = chosen.iter().map(|(segment, _)| *segment).collect();
            for (number, summary) in view.summaries() {
                if place.is_none() || segments.contains(&number) {
                    for (epoch, set) in &summary.unreadable {
                        given_up.entry(*epoch).or_default().union_with(set);
                    }
                }
            }
            let needed = view.needed(&given_up);
            let mut consumers = std::mem::take(&mut view.state.consumers);
            for account in consumers.values_mut().filter(|account| !account.reads_foreign()) {
                for (epoch, set) in &given_up {
                    account.record(Outcome::Quarantined, *epoch, set, view.parts());
                }
            }
            view.state.consumers = consumers;
            given_up = needed;
        }
        self.flush().wait()?;
        if let Some(quarantine) = &self.log().quarantine {
            let mut inner = quarantine.lock();
            for at in chosen {
                let Some(known) = inner.places.get_mut(&at) else { continue };
                known.acknowledged = true;
                if let Err(e) = quarantine.describe(known) {
                    tracing::warn!(error = %e, place = %known.name, "the place is an alarm again after a restart");
                }
            }
        }
        self.log().note_damage_change();
        Ok(Some(count(&given_up)))
    }

    /// Reads the segment of a damaged place again, or of all of them for `None`, and asks every holder again. Returns how
    /// many places are still damaged; `None` when there is no such place.
    ///
    /// # Errors
    /// When a segment cannot be read at all.
    pub fn quarantine_retry(&self, place: Option<&str>) -> Result<Option<usize>, ReadError> {
        let Some(chosen) = self.chosen(place) else { return Ok(None) };
        if let Some(quarantine) = &self.log().quarantine {
            quarantine.lock().gone.clear();
        }
        let segments: BTreeSet<u32> = chosen.iter().map(|(segment, _)| *segment).collect();
        let mut still = 0;
        for segment in segments {
            still += self.log().measure(segment)?;
        }
        self.log().note_damage_change();
        Ok(Some(still))
    }

    fn chosen(&self, place: Option<&str>) -> Option<Vec<(u32, u64)>> {
        let inner = self.log().quarantine.as_ref()?.lock();
        let chosen = inner.places.iter().filter(|(_, known)| place.is_none_or(|name| name == known.name));
        let chosen: Vec<(u32, u64)> = chosen.map(|(at, _)| *at).collect();
        (place.is_none() || !chosen.is_empty()).then_some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use model::{Disk as _, Outbound as _, Precedence, Seq};
    use tempfile::TempDir;

    use super::*;
    use crate::format::{FRAME_HEADER_BYTES, MARKER};
    use crate::tests::{append, chunk_name, data_keys, draft, noise, open, own, segment, tempdir};
    use crate::{ChunkPut, Reader, StdDisk, Which};

    /// Where an own entry stands now.
    fn place_of(journal: &Journal, seq: u64) -> (u32, u64) {
        let listed = journal.show(Which::Id(own(1, seq))).unwrap().expect("it is held");
        (listed.segment, listed.offset)
    }

    /// Flips a bit, or flips it back, of the frames at these places.
    fn flip_places(dir: &TempDir, places: &[(u32, u64)]) {
        for (number, offset) in places {
            let path = segment(dir, *number);
            let mut bytes = fs::read(&path).unwrap();
            bytes[*offset as usize + FRAME_HEADER_BYTES + 3] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }

    fn flip(dir: &TempDir, journal: &Journal, entries: &[u64]) {
        let places: Vec<_> = entries.iter().map(|seq| place_of(journal, *seq)).collect();
        flip_places(dir, &places);
    }

    fn everything(journal: &Journal) -> Vec<u64> {
        let scan = journal.outbound().scan(Precedence::Routine, LocalPos::START, usize::MAX).unwrap();
        scan.entries.iter().map(|o| o.entry.header.id.seq.get()).collect()
    }

    fn bytes_of(journal: &Journal, seq: u64) -> Arc<[u8]> {
        journal.outbound().entry(own(1, seq)).unwrap().expect("it is held").bytes
    }

    fn set(numbers: &[u64]) -> RangeSet {
        numbers.iter().copied().collect()
    }

    #[test]
    fn a_damaged_place_is_kept_aside_once_and_known_after_a_restart() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..100);
        flip(&dir, &journal, &[5]);
        let segment_before = fs::read(segment(&dir, 1)).unwrap();
        assert_eq!(everything(&journal).len(), 99);
        let report = journal.quarantine();
        let [place] = &report.places[..] else { panic!("{report:?}") };
        assert_eq!((place.segment, place.own_entries.as_slice()), (1, ["1/5-5".to_owned()].as_slice()));
        let kept = fs::read(dir.path().join("quarantine").join(format!("{}.bin", place.name))).unwrap();
        let at = place.offset as usize;
        assert_eq!(kept, segment_before[at..at + place.bytes as usize]);
        assert_eq!(fs::read(segment(&dir, 1)).unwrap(), segment_before, "nothing is cut out of the segment");
        assert_eq!(report.missing_count(), 1);
        drop(journal);
        assert_eq!(open(&dir).0.quarantine().places, report.places);
        let read = Reader::open(dir.path(), Arc::new(StdDisk), &data_keys()).unwrap();
        assert_eq!(read.quarantine().places, report.places);
    }

    #[test]
    fn a_chunk_with_a_flipped_byte_is_kept_aside_and_wanted_and_taken_again() {
        const KIND_AT: usize = 2;
        let dir = tempdir();
        let journal = open(&dir).0;
        let (name, other) = (chunk_name(1), chunk_name(2));
        let (plain, plain_of_other) = (noise(300), noise(400));
        for (name, plain) in [(name, &plain), (other, &plain_of_other)] {
            assert_eq!(journal.put_chunk(name, plain).wait().unwrap(), ChunkPut::Stored);
        }
        append(&journal, 0..40);
        assert!(journal.stats().segments > 1, "they stand in a sealed segment");
        let path = segment(&dir, 1);
        let mut bytes = fs::read(&path).unwrap();
        let is_chunk = |frame: &[u8]| frame.starts_with(&MARKER) && frame[KIND_AT..] == [FrameKind::Chunk as u8, 0];
        let at = bytes.windows(KIND_AT + 2).position(is_chunk).expect("a chunk's frame");
        bytes[at + FRAME_HEADER_BYTES + 60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(journal.get_chunk(&name).unwrap(), None);
        assert!(!journal.retain_chunk(name).wait().unwrap(), "a receiver asks the peer for it");
        assert_eq!(journal.get_chunk(&other).unwrap().as_deref(), Some(&*plain_of_other));
        assert!(!journal.verify(&mut |_| {}).unwrap().is_clean());
        let report = journal.quarantine();
        let [place] = &report.places[..] else { panic!("{report:?}") };
        assert_eq!((place.segment, place.offset), (1, at as u64));
        assert_eq!(report.missing_count(), 0, "no entry is missing: {report:?}");
        assert_eq!(journal.put_chunk(name, &plain).wait().unwrap(), ChunkPut::Stored);
        drop(journal);
        let journal = open(&dir).0;
        assert_eq!(journal.get_chunk(&name).unwrap().as_deref(), Some(&*plain));
    }

    #[test]
    fn a_restored_entry_is_held_again_for_whoever_has_not_finished_with_it() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..100);
        let (alpha, bravo) = (journal.consumer("alpha", true).unwrap(), journal.consumer("bravo", true).unwrap());
        bravo.record_stored(Epoch(1), &RangeSet::from(1..=100));
        alpha.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=4));
        let bytes = bytes_of(&journal, 5);
        flip(&dir, &journal, &[5]);
        assert_eq!(everything(&journal).len(), 99);
        let (missed, by_bravo) = (journal.missed_by("alpha"), journal.missed_by("bravo"));
        assert_eq!((missed.lost.len(), missed.recall.len()), (0, 0), "alpha waits for what bravo may give back");
        assert_eq!(by_bravo.recall, BTreeMap::from([(Epoch(1), set(&[5]))]));
        let total = |name: &str| journal.accounting(name).unwrap().unwrap().total;
        assert_eq!((total("alpha").held, total("alpha").quarantined), (95, 1));

        // Another content under that number is told by the chain, and refused.
        let mut wrong = wire::decode_entry(&bytes).unwrap();
        wrong.body[0] ^= 1;
        let wrong = Foreign { bytes: wire::encode_entry(&wrong).into(), object: None };
        assert!(matches!(journal.restore(wrong).wait(), Err(AppendError::Malformed(_))));
        let returned = || Foreign { bytes: Arc::clone(&bytes), object: None };
        assert!(journal.restore(returned()).wait().unwrap());
        assert!(!journal.restore(returned()).wait().unwrap(), "once is enough");
        assert_eq!((total("alpha").held, total("alpha").quarantined, total("alpha").accepted), (96, 0, 100));
        assert_eq!(bytes_of(&journal, 5), bytes);
        let from = alpha.low_water().unwrap();
        let scan = journal.outbound().scan(Precedence::Routine, from, usize::MAX).unwrap();
        let mut seen: Vec<u64> = scan.entries.iter().map(|o| o.entry.header.id.seq.get()).collect();
        assert_eq!(seen.pop(), Some(5), "it comes last");
        assert!((6..=100).all(|n| seen.contains(&n)), "and nothing that followed it is passed over: {seen:?}");

        drop((alpha, bravo));
        drop(journal);
        let journal = open(&dir).0;
        assert_eq!(bytes_of(&journal, 5), bytes);
        everything(&journal);
        assert!(journal.unreadable().is_empty(), "meeting the damage again changes nothing");
        assert_eq!(journal.accounting("alpha").unwrap().unwrap().total.held, 96);
        // Trimming goes on as ever, and the sums stay.
        for name in ["alpha", "bravo"] {
            journal.consumer(name, true).unwrap().record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=100));
        }
        assert!(journal.trim().unwrap().segments > 0);
        let total = journal.accounting("alpha").unwrap().unwrap().total;
        assert_eq!((total.accepted, total.applied, total.quarantined), (100, 100, 0));
    }

    /// What was left of the newest segment was read without the file's entry, so nothing said any more that chunks before it are
    /// needed; and an entry that a peer gave back said nothing of them either.
    #[test]
    fn the_chunks_of_a_damaged_file_stay_until_it_is_back_and_after_that() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..30);
        let file = journal.begin_file();
        journal.put_chunk(chunk_name(1), &noise(900)).wait().unwrap();
        append(&journal, 30..60);
        let chunks = Some(file.chunks(900));
        let damaged = journal.append_own(crate::Draft { chunks, ..draft(60) }).wait().unwrap();
        drop(file);
        append(&journal, 61..64);
        let place = place_of(&journal, damaged.id.seq.get());
        let bytes = bytes_of(&journal, damaged.id.seq.get());
        assert_eq!(place.0, journal.stats().segments, "it stands in the newest segment");
        let (alpha, bravo) = (journal.consumer("alpha", true).unwrap(), journal.consumer("bravo", true).unwrap());
        bravo.record_stored(Epoch(1), &RangeSet::from(1..=64));
        journal.flush().wait().unwrap();
        drop((alpha, bravo, journal));
        flip_places(&dir, &[place]);
        let journal = open(&dir).0;
        assert_eq!(journal.unreadable()[&Epoch(1)], set(&[61]));
        // Another one restores it while the last entries are on their way.
        append(&journal, 64..100);
        for name in ["alpha", "bravo"] {
            journal.consumer(name, true).unwrap().record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=60));
        }
        let has = || journal.get_chunk(&chunk_name(1)).unwrap().is_some();
        assert!(journal.trim().unwrap().segments > 0);
        assert!(has(), "entries of its segment are held");
        assert!(journal.restore(Foreign { bytes, object: None }).wait().unwrap());
        for name in ["alpha", "bravo"] {
            journal.consumer(name, true).unwrap().record_outcome(Outcome::Applied, Epoch(1), &set(&[62, 63, 64]));
        }
        journal.trim().unwrap();
        assert!(has(), "it is held");
        // Under another number it needs them as well.
        let renumbered = journal.reissue(vec![damaged.id]).wait().unwrap();
        assert_eq!(renumbered.len(), 1);
        journal.trim().unwrap();
        assert!(has(), "it is held under its new number");
        append(&journal, 100..140);
        for name in ["alpha", "bravo"] {
            journal.consumer(name, true).unwrap().record_outcome(Outcome::Applied, Epoch(2), &RangeSet::from(1..=200));
        }
        journal.trim().unwrap();
        assert!(!has(), "nobody needs it");
    }

    #[test]
    fn a_restored_entry_can_be_damaged_too_and_is_missed_again() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..40);
        let bravo = journal.consumer("bravo", true).unwrap();
        bravo.record_stored(Epoch(1), &RangeSet::from(1..=40));
        let bytes = bytes_of(&journal, 5);
        flip(&dir, &journal, &[5]);
        everything(&journal);
        assert!(journal.restore(Foreign { bytes: Arc::clone(&bytes), object: None }).wait().unwrap());
        append(&journal, 40..140);
        flip(&dir, &journal, &[5]);
        everything(&journal);
        assert_eq!(journal.unreadable(), BTreeMap::from([(Epoch(1), set(&[5]))]));
        assert!(journal.restore(Foreign { bytes: Arc::clone(&bytes), object: None }).wait().unwrap());
        assert_eq!(bytes_of(&journal, 5), bytes);
        drop((journal, bravo));
        let journal = open(&dir).0;
        everything(&journal);
        assert_eq!(bytes_of(&journal, 5), bytes);
        assert!(journal.unreadable().is_empty());
    }

    #[test]
    fn what_nobody_holds_is_lost_for_every_consumer_and_what_nobody_needs_is_not_asked_for() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..60);
        let (alpha, bravo) = (journal.consumer("alpha", true).unwrap(), journal.consumer("bravo", true).unwrap());
        for consumer in [&alpha, &bravo] {
            consumer.record_outcome(Outcome::Applied, Epoch(1), &set(&[3]));
        }
        bravo.record_stored(Epoch(1), &set(&[4]));
        flip(&dir, &journal, &[2, 3, 4]);
        everything(&journal);
        assert_eq!(journal.missed_by("bravo").recall, BTreeMap::from([(Epoch(1), set(&[4]))]));
        assert_eq!(journal.missed_by("alpha").lost, BTreeMap::from([(Epoch(1), set(&[2, 3]))]));
        let before = journal.damage_changes();
        journal.not_returned("bravo", Epoch(1), &set(&[4]));
        assert!(journal.damage_changes() > before);
        assert!(journal.missed_by("bravo").recall.is_empty());
        assert_eq!(journal.missed_by("alpha").lost, BTreeMap::from([(Epoch(1), set(&[2, 3, 4]))]));
        let report = journal.quarantine();
        assert_eq!((report.missing_count(), report.ended), (2, 1));
        // The operator asks once more, then gives up.
        let place = report.places[0].name.clone();
        assert_eq!(journal.quarantine_retry(Some(&place)).unwrap(), Some(report.places.len()));
        assert_eq!(journal.missed_by("bravo").recall, BTreeMap::from([(Epoch(1), set(&[4]))]));
        assert_eq!(journal.quarantine_skip(Some("00000009-9")).unwrap(), None);
        assert_eq!(journal.quarantine_skip(None).unwrap(), Some(2));
        drop((alpha, bravo));
        drop(journal);
        let journal = open(&dir).0;
        everything(&journal);
        assert_eq!(journal.quarantine().open_places(), 0);
        assert_eq!(journal.quarantine().missing_count(), 0);
        let ended = journal.consumer("alpha", true).unwrap().outcome_of(Epoch(1), Seq::new(2).unwrap());
        assert_eq!(ended, Some(Outcome::Quarantined));
        let total = journal.accounting("alpha").unwrap().unwrap().total;
        assert_eq!((total.accepted, total.applied, total.quarantined, total.held), (60, 1, 2, 57));
    }

    #[test]
    fn what_can_be_read_again_after_all_leaves_the_quarantine() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..60);
        journal.consumer("bravo", true).unwrap();
        let place = place_of(&journal, 2);
        flip_places(&dir, &[place]);
        everything(&journal);
        assert_eq!(journal.quarantine().missing_count(), 1);
        flip_places(&dir, &[place]);
        assert_eq!(journal.quarantine_retry(None).unwrap(), Some(0));
        assert!(journal.quarantine().places.is_empty() && journal.unreadable().is_empty());
        assert_eq!(everything(&journal).len(), 60);
        assert!(StdDisk.list(&dir.path().join("quarantine")).unwrap().is_empty());
    }

    #[test]
    fn numbers_that_are_forgotten_are_received_anew() {
        let dir = tempdir();
        let journal = open(&dir).0;
        let origin = NodeId([9; 16]);
        let receive = |n: u64| {
            let mut entry = wire::decode_entry(&bytes_of(&journal, 1)).unwrap();
            entry.header.id = EntryId { origin, epoch: Epoch(1), seq: Seq::new(n).unwrap() };
            let bytes = wire::encode_entry(&entry).into();
            journal.append_foreign(Foreign { bytes, object: None }).wait().unwrap()
        };
        journal.append_own(draft(0)).wait().unwrap();
        for n in 1..=6 {
            receive(n);
        }
        assert_eq!(receive(3), crate::ForeignOutcome::AlreadyHeld);
        journal.forget_received(BTreeMap::from([((origin, Epoch(1)), set(&[3, 4]))])).wait().unwrap();
        assert_eq!(journal.received(origin)[&Epoch(1)], set(&[1, 2, 5, 6]));
        assert_eq!(journal.forgotten(origin), BTreeMap::from([(Epoch(1), set(&[3, 4]))]));
        assert!(matches!(receive(3), crate::ForeignOutcome::Stored(_)));
        assert_eq!(journal.forgotten(origin), BTreeMap::from([(Epoch(1), set(&[4]))]));
        append(&journal, 1..80);
        drop(journal);
        assert_eq!(open(&dir).0.received(origin)[&Epoch(1)], set(&[1, 2, 3, 5, 6]));
    }

    #[test]
    fn no_more_is_kept_aside_than_the_cap() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..40);
        let quarantine = journal.log().quarantine.as_ref().unwrap();
        let window = journal.log().read().tail.window();
        for offset in 0..PLACES_MAX as u64 + 3 {
            let damage = Damage { segment: 7, offset, bytes: 4, what: "a test".to_owned() };
            quarantine.keep(&window, &(damage, false), &Numbers::new()).unwrap();
        }
        let report = journal.quarantine();
        assert_eq!((report.places.len(), report.left_out), (PLACES_MAX, 3));
    }
}
