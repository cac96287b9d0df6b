//! Reads every sealed segment again from time to time, so that damage is found while it can still be mended.
//!
//! ```text
//!  due? --> check a piece --> wait as long as the rate asks --> ... --> segment done: noted in journal/scrub.json
//!                                                                 `--> damage: measured, kept aside, asked for again
//! ```
//! [`Scrub`] decides what is read and how long to wait, with the time as an argument; whoever owns it sleeps. The tail
//! is left out: it is verified at each open, and sealed soon. A checksum covers a frame as it is stored; what opens is
//! compared with its hash too, and a segment without damage with the end of its hash chain.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{ByteSize, Disk, OpenMode, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::committer::lock;
use crate::error::ReadError;
use crate::format::{Chain, EntryPrefix, FrameKind, link_chain};
use crate::journal::Journal;
use crate::scan::{Found, Scanner};
use crate::types::Progress;
use crate::view::{Segment, failed};

/// Read in one go: 50 ms at the default rate.
const STEP_BYTES: u64 = 256 << 10;

/// Nothing is due: looked at again after this, since segments are sealed all the time.
const IDLE: Duration = Duration::from_secs(60);

/// A segment is begun when this part of its time is over, so that it is done when all of it is.
const BEGUN_AFTER: (i64, i64) = (3, 4);

const DAY_MS: i64 = 86_400_000;

const FILE: &str = "scrub.json";

/// Section `[scrub]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubSettings {
    /// Every sealed segment is read again within so many days, 1 to 365.
    pub every_days: u16,
    /// No more than this is read in a second, e.g. `5MiB`.
    pub bytes_per_second: ByteSize,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self { every_days: 7, bytes_per_second: ByteSize(5 << 20) }
    }
}

impl ScrubSettings {
    /// What is out of range, if anything is: the key and what to write.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !(1..=365).contains(&self.every_days) {
            return Some(("scrub.every_days", "write a number of days from 1 to 365"));
        }
        (self.bytes_per_second.0 < 64 << 10).then_some(("scrub.bytes_per_second", "write 64KiB or more"))
    }

    fn every_ms(&self) -> i64 {
        i64::from(self.every_days) * DAY_MS
    }

    /// Which of the segments is to be read at `now`: the one whose turn is longest over.
    fn due(&self, sealed: impl Iterator<Item = u32>, verified: &Verified, now: UnixMillis) -> Option<u32> {
        let begun_after = self.every_ms() / BEGUN_AFTER.1 * BEGUN_AFTER.0;
        let aged = sealed.map(|number| (verified.age(number, now).unwrap_or(i64::MAX), number));
        let due = aged.filter(|(age, _)| *age >= begun_after);
        due.max_by_key(|(age, number)| (*age, std::cmp::Reverse(*number))).map(|(_, number)| number)
    }

    /// How long reading so much occupies the rate.
    fn wait(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.0.max(1) as f64)
    }
}

/// When each sealed segment was verified last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified(BTreeMap<u32, UnixMillis>);

#[derive(Serialize, Deserialize)]
struct Noted {
    schema: String,
    verified: BTreeMap<u32, UnixMillis>,
}

impl Verified {
    /// What an earlier process noted; nothing when that cannot be read, and everything is due then.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Self {
        let read = || -> io::Result<Noted> {
            let file = disk.open(&dir.join(FILE), OpenMode::Read)?;
            // One line of 40 bytes for each segment of the largest journal.
            let mut bytes = vec![0; file.len()?.min(16 << 20) as usize];
            let got = file.read_at(&mut bytes, 0)?;
            serde_json::from_slice(&bytes[..got]).map_err(io::Error::other)
        };
        match read() {
            Ok(noted) => Self(noted.verified),
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(error = %e, "when segments were verified is not known; all of them are due");
                }
                Self::default()
            }
        }
    }

    fn save(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let noted = Noted { schema: "holdfast.scrub-state/1".to_owned(), verified: self.0.clone() };
        let new = dir.join(format!("{FILE}.new"));
        match disk.unlink(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let file = disk.open(&new, OpenMode::Create)?;
        file.append(&serde_json::to_vec_pretty(&noted).map_err(io::Error::other)?)?;
        file.sync_data()?;
        disk.rename(&new, &dir.join(FILE))?;
        disk.sync_dir(dir)
    }

    /// Milliseconds since it was verified; `None` when it never was, or in a future that a clock once showed.
    fn age(&self, segment: u32, now: UnixMillis) -> Option<i64> {
        self.0.get(&segment).map(|at| now.0 - at.0).filter(|age| *age >= 0)
    }
}

/// What reading one segment again found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Segments read.
    pub segments: u32,
    /// Bytes read.
    pub bytes: u64,
    /// Places that are no frame, or one that does not open.
    pub damaged_places: u64,
    /// Entries that are not what their hash says, and segments whose hash chain does not end as noted.
    pub wrong_hashes: u64,
}

impl Scrubbed {
    /// Everything is as it was written.
    pub fn is_clean(&self) -> bool {
        self.damaged_places == 0 && self.wrong_hashes == 0
    }

    /// Adds what another segment had.
    pub fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.damaged_places += other.damaged_places;
        self.wrong_hashes += other.wrong_hashes;
    }
}

/// Where the scrub stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Sealed segments.
    pub segments: u32,
    /// Of these, verified within the configured time.
    pub verified: u32,
    /// How long ago the segment was verified whose turn is longest over; `None` when one never was, or there is none.
    pub oldest_seconds: Option<u64>,
}

/// What [`Scrub::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes read.
    pub bytes: u64,
    /// Nothing is read before this is over.
    pub wait: Duration,
    /// A segment is done.
    pub done: Option<Scrubbed>,
}

/// A segment that cannot be read is left for so long to the others.
const UNREADABLE_FOR_MS: i64 = 3_600_000;

/// Half-read segment.
struct Checking {
    segment: Arc<Segment>,
    scanner: Scanner,
    chain: Chain,
    found: Scrubbed,
}

impl Checking {
    fn new(segment: Arc<Segment>) -> Self {
        let (scanner, chain) = (Scanner::new(segment.window()), segment.summary.chain_start);
        Self { segment, scanner, chain, found: Scrubbed { segments: 1, ..Scrubbed::default() } }
    }

    /// Reads at least `bytes` more, or to the end. True at the end.
    fn read(&mut self, bytes: u64) -> io::Result<bool> {
        let until = self.scanner.at() + bytes;
        while self.scanner.at() < until {
            let Some(found) = self.scanner.next()? else {
                self.found.bytes = self.segment.end;
                let ends = self.chain == self.segment.summary.chain_end;
                self.found.wrong_hashes += u64::from(!ends && self.found.damaged_places == 0);
                return Ok(true);
            };
            match found {
                Found::Frame { kind, payload, offset } if FrameKind::is_entry(kind) => {
                    let hash =
                        EntryPrefix::decode(&payload).map(|(prefix, bytes)| (prefix.hash, wire::entry_hash(bytes)));
                    let Some((noted, Ok(hash))) = hash else {
                        self.found.wrong_hashes += 1;
                        continue;
                    };
                    if hash != noted {
                        let segment = self.segment.number;
                        tracing::error!(segment, offset, "an entry is not what its hash says");
                        self.found.wrong_hashes += 1;
                    }
                    self.chain = link_chain(&self.chain, &noted);
                }
                Found::Frame { .. } => {}
                Found::Damaged { .. } => self.found.damaged_places += 1,
            }
        }
        Ok(false)
    }
}

/// Paces the background verification of a journal; see the module.
pub struct Scrub {
    journal: Journal,
    settings: ScrubSettings,
    checking: Option<Checking>,
    /// When a segment could not be read at all. It does not count as verified.
    unread: BTreeMap<u32, UnixMillis>,
}

impl Scrub {
    /// Goes on where the last process stopped, to the segment.
    pub fn new(journal: &Journal, settings: ScrubSettings) -> Self {
        Self { journal: journal.clone(), settings, checking: None, unread: BTreeMap::new() }
    }

    /// Reads a piece of what is due. Call again when the wait is over. Touches the disk.
    ///
    /// # Errors
    /// When a segment cannot be read, though damage is counted and no error; it is due again after the others.
    pub fn step(&mut self, now: UnixMillis) -> Result<Step, ReadError> {
        let Some(mut checking) = self.checking.take().or_else(|| self.next(now)) else {
            return Ok(Step { bytes: 0, wait: IDLE, done: None });
        };
        let from = checking.scanner.at();
        let number = checking.segment.number;
        let read = checking.read(STEP_BYTES).map_err(failed);
        let bytes = checking.scanner.at() - from;
        let done = read.and_then(|ended| match ended {
            true => self.journal.scrubbed(number, checking.found, now).map(|()| Some(checking.found)),
            false => Ok(None),
        });
        match &done {
            Ok(Some(_)) => drop(self.unread.remove(&number)),
            Ok(None) => self.checking = Some(checking),
            // Not again at once: the others have a right to be read too.
            Err(_) => drop(self.unread.insert(number, now)),
        }
        Ok(Step { bytes, wait: self.settings.wait(bytes), done: done? })
    }

    fn next(&self, now: UnixMillis) -> Option<Checking> {
        let view = self.journal.log().read();
        let verified = lock(&self.journal.shared().verified);
        let waits = |number: &u32| {
            self.unread.get(number).is_some_and(|at| (0..UNREADABLE_FOR_MS).contains(&now.0.saturating_sub(at.0)))
        };
        let number = self.settings.due(view.sealed.keys().copied().filter(|number| !waits(number)), &verified, now)?;
        view.sealed.get(&number).map(|segment| Checking::new(Arc::clone(segment)))
    }

    /// Where it stands.
    pub fn status(&self, now: UnixMillis) -> ScrubStatus {
        self.journal.scrub_status(&self.settings, now)
    }
}

impl Journal {
    /// Reads every sealed segment again at once, without a pause.
    ///
    /// # Errors
    /// When a segment cannot be read at all; damage is counted and no error.
    pub fn scrub(&self, now: UnixMillis, progress: &mut dyn FnMut(Progress)) -> Result<Scrubbed, ReadError> {
        let (mut all, mut after) = (Scrubbed::default(), 0);
        while let Some((segment, found, at)) = self.scrub_next(after, now)? {
            after = segment;
            all.add(found);
            progress(at);
        }
        Ok(all)
    }

    /// Reads the first sealed segment after this number again; 0 begins. `None` when there is none.
    ///
    /// # Errors
    /// As for [`Journal::scrub`].
    pub fn scrub_next(&self, after: u32, now: UnixMillis) -> Result<Option<(u32, Scrubbed, Progress)>, ReadError> {
        let Some((segment, progress)) = self.log().next_sealed(after) else { return Ok(None) };
        let number = segment.number;
        let mut checking = Checking::new(segment);
        while !checking.read(STEP_BYTES).map_err(failed)? {}
        self.scrubbed(number, checking.found, now)?;
        Ok(Some((number, checking.found, progress)))
    }

    /// Where the background verification stands.
    pub fn scrub_status(&self, settings: &ScrubSettings, now: UnixMillis) -> ScrubStatus {
        let view = self.log().read();
        let verified = lock(&self.shared().verified);
        let ages: Vec<Option<i64>> = view.sealed.keys().map(|number| verified.age(*number, now)).collect();
        let in_time = ages.iter().flatten().filter(|age| **age <= settings.every_ms()).count() as u32;
        let oldest = ages.iter().copied().collect::<Option<Vec<i64>>>().and_then(|ages| ages.into_iter().max());
        let oldest_seconds = oldest.and_then(|ms| u64::try_from(ms / 1_000).ok());
        ScrubStatus { segments: ages.len() as u32, verified: in_time, oldest_seconds }
    }

    /// Measures again the segments in which damage is known from earlier processes, so that what stood there is missed
    /// and asked for before somebody stumbles over it.
    ///
    /// # Errors
    /// When a segment cannot be read at all.
    pub fn meet_known_damage(&self) -> Result<(), ReadError> {
        let mut segments: Vec<u32> = self.quarantine().places.iter().map(|place| place.segment).collect();
        segments.dedup();
        segments.into_iter().try_for_each(|segment| self.log().measure(segment).map(drop))
    }

    fn scrubbed(&self, number: u32, found: Scrubbed, now: UnixMillis) -> Result<(), ReadError> {
        if found.damaged_places > 0 {
            self.log().measure(number)?;
        }
        if found.wrong_hashes > 0 {
            tracing::error!(segment = number, wrong = found.wrong_hashes, "hashes in a sealed segment are wrong");
        }
        self.note_verified(number, now);
        Ok(())
    }

    fn note_verified(&self, number: u32, now: UnixMillis) {
        let shared = self.shared();
        let verified = {
            let held: Vec<u32> = self.log().read().sealed.keys().copied().collect();
            let mut verified = lock(&shared.verified);
            verified.0.insert(number, now);
            verified.0.retain(|number, _| held.contains(number));
            verified.clone()
        };
        if let Err(e) = verified.save(&*shared.place.disk, &shared.place.dir) {
            tracing::warn!(error = %e, "that a segment was verified is forgotten at the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tests::{FaultyDisk, append, open, open_on, options, segment, tempdir};
    use crate::{JournalOptions, JournalSettings};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn days(n: i64) -> UnixMillis {
        UnixMillis(NOW.0 + n * DAY_MS)
    }

    #[test]
    fn the_oldest_comes_first_and_nothing_comes_too_early() {
        let settings = ScrubSettings::default();
        let verified = Verified([(1, days(-2)), (2, days(-6)), (3, days(-9)), (5, days(3))].into());
        let due = |segments: &[u32]| settings.due(segments.iter().copied(), &verified, NOW);
        assert_eq!(due(&[1]), None);
        assert_eq!(due(&[1, 2]), Some(2), "begun before its time is over");
        assert_eq!(due(&[1, 2, 3]), Some(3));
        assert_eq!(due(&[1, 2, 3, 4]), Some(4), "never verified");
        assert_eq!(due(&[5, 1]), Some(5), "a time that lies in the future proves nothing");
    }

    #[test]
    fn every_segment_is_read_within_the_time_and_no_faster_than_the_rate_and_a_restart_goes_on() {
        let dir = tempdir();
        let mut journal = open(&dir).0;
        append(&journal, 0..400);
        let settings = ScrubSettings { every_days: 7, bytes_per_second: ByteSize(64 << 10) };
        let mut now = NOW;
        let (mut bytes, mut segments) = (0, 0);
        for round in 0.. {
            let mut scrub = Scrub::new(&journal, settings);
            let step = scrub.step(now).unwrap();
            now.0 += step.wait.as_millis() as i64;
            bytes += step.bytes;
            segments += step.done.map_or(0, |done| done.segments);
            assert!(step.done.is_none_or(|done| done.is_clean()));
            if step.bytes == 0 {
                break;
            }
            if round == 2 {
                drop((scrub, journal));
                journal = open(&dir).0;
            }
            assert!(round < 1_000, "no end");
        }
        let status = journal.scrub_status(&settings, now);
        assert_eq!((status.segments, status.verified), (segments, segments), "each was read once");
        let reading = now.0 - NOW.0 - IDLE.as_millis() as i64;
        assert!(bytes as i64 * 1_000 / reading.max(1) <= 65 << 10, "{bytes} bytes in {reading} ms");
        // A week later all of it is due again; before three quarters of it nothing is.
        let mut scrub = Scrub::new(&journal, settings);
        assert_eq!(scrub.step(UnixMillis(now.0 + 5 * DAY_MS)).unwrap().bytes, 0);
        assert!(scrub.step(UnixMillis(now.0 + 6 * DAY_MS)).unwrap().bytes > 0);
        let late = journal.scrub_status(&settings, UnixMillis(now.0 + 8 * DAY_MS));
        assert_eq!((late.segments, late.verified), (segments, 1), "the one that was just read");
    }

    #[test]
    fn damage_that_nobody_read_is_found_measured_and_kept_aside() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..400);
        journal.consumer("bravo", true).unwrap();
        let path = segment(&dir, 2);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(&path, bytes).unwrap();
        let before = journal.damage_changes();
        let mut seen = Vec::new();
        let found = journal.scrub(NOW, &mut |p| seen.push(p)).unwrap();
        assert_eq!(found.damaged_places, 1);
        assert!(journal.damage_changes() > before);
        let report = journal.quarantine();
        assert_eq!((report.places.len(), report.places[0].segment, report.missing_count()), (1, 2, 1));
        let last = seen.last().unwrap();
        assert_eq!(last.done_bytes, last.total_bytes);
        // A later process knows the place, and misses the entry as soon as it looks there.
        drop(journal);
        let journal = open(&dir).0;
        assert_eq!(journal.quarantine().missing_count(), 0);
        journal.meet_known_damage().unwrap();
        assert_eq!(journal.quarantine().missing_count(), 1);
    }

    /// The disk refused one sector, and the whole scrub was an error: no other segment was looked at any more, and the one
    /// counted as verified.
    #[test]
    fn a_sector_that_the_disk_refuses_costs_its_entries_and_they_come_back_and_the_rest_is_read_on() {
        let dir = tempdir();
        let disk = Arc::<FaultyDisk>::default();
        let open = || {
            let options = options(dir.path());
            let settings = JournalSettings { segment_bytes: ByteSize(16 << 10), ..options.settings };
            let disk = Arc::clone(&disk) as Arc<dyn Disk>;
            Journal::open(JournalOptions { disk, settings, ..options }).unwrap().0
        };
        let journal = open();
        append(&journal, 0..400);
        let bravo = journal.consumer("bravo", true).unwrap();
        bravo.record_stored(model::Epoch(1), &(1..=400).into());
        let all = journal.list(model::LocalPos(1)..model::LocalPos(u64::MAX), 500).unwrap();
        let copies: BTreeMap<u64, crate::Foreign> = all
            .iter()
            .map(|l| {
                let bytes = wire::encode_entry(&l.entry).into();
                (l.entry.header.id.seq.get(), crate::Foreign { bytes, object: None })
            })
            .collect();
        let sector = 4_096..8_192;
        let path = segment(&dir, 2);
        assert!(fs::metadata(&path).unwrap().len() > 4 * sector.end / 3, "frames stand before and behind it");
        disk.faults.bad.lock().unwrap().push((path, sector.clone()));
        let there =
            |l: &&crate::Listed| l.segment == 2 && l.offset < sector.end && l.offset + l.bytes + 100 > sector.start;
        let there = all.iter().filter(there).count() as u64;

        let settings = ScrubSettings::default();
        let mut scrub = Scrub::new(&journal, settings);
        let mut found = Scrubbed::default();
        loop {
            let step = scrub.step(NOW).expect("a place is no reason to stop");
            step.done.into_iter().for_each(|done| found.add(done));
            if step.bytes == 0 {
                break;
            }
        }
        let segments = journal.stats().segments - 1;
        assert_eq!((found.segments, found.damaged_places, found.wrong_hashes), (segments, 1, 0));
        assert_eq!(journal.scrub_status(&settings, NOW).verified, segments);
        let report = journal.quarantine();
        assert_eq!((report.places.len(), report.places[0].segment, report.open_places()), (1, 2, 1), "{report:?}");
        let missing = report.missing_count();
        assert!((1..=there).contains(&missing), "{missing} of {there}: {report:?}");
        let listed = || journal.list(model::LocalPos(1)..model::LocalPos(u64::MAX), 500).unwrap().len() as u64;
        assert_eq!(listed(), 400 - missing, "everything else is read");
        assert!(journal.verify(&mut |_| {}).unwrap().findings.iter().any(|f| f.segment == 2));
        // The peer that holds them is asked, and gives them back.
        let recall = journal.missed_by("bravo").recall;
        assert_eq!(recall[&model::Epoch(1)].count(), missing);
        for seq in recall[&model::Epoch(1)].numbers() {
            assert!(journal.restore(copies[&seq].clone()).wait().unwrap());
        }
        assert_eq!((listed(), journal.quarantine().missing_count()), (400, 0));
        drop((scrub, bravo, journal));
        assert_eq!(open().list(model::LocalPos(1)..model::LocalPos(u64::MAX), 500).unwrap().len(), 400);
    }

    #[test]
    fn a_disk_that_is_gone_is_no_damage_and_nothing_is_given_up_for_it() {
        let dir = tempdir();
        let disk = Arc::<FaultyDisk>::default();
        let journal = open_on(&dir, &disk);
        append(&journal, 0..400);
        journal.consumer("bravo", true).unwrap();
        let before = journal.accounting("bravo").unwrap().unwrap();
        disk.faults.gone.store(true, std::sync::atomic::Ordering::SeqCst);
        let mut scrub = Scrub::new(&journal, ScrubSettings::default());
        assert!(scrub.step(NOW).is_err());
        assert!(journal.list(model::LocalPos(1)..model::LocalPos(u64::MAX), 500).is_err());
        assert_eq!(journal.unreadable(), BTreeMap::new());
        disk.faults.gone.store(false, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(journal.list(model::LocalPos(1)..model::LocalPos(u64::MAX), 500).unwrap().len(), 400);
        let after = journal.accounting("bravo").unwrap().unwrap();
        assert_eq!((after.total.held, after.total.quarantined), (before.total.held, 0));
        assert_eq!(scrub.status(NOW).verified, 0, "what could not be read is not verified");
        assert!(scrub.step(NOW).unwrap().bytes > 0, "another one");
    }

    #[test]
    fn a_state_that_cannot_be_read_makes_everything_due() {
        let dir = tempdir();
        let journal = open(&dir).0;
        append(&journal, 0..200);
        journal.scrub(NOW, &mut |_| {}).unwrap();
        drop(journal);
        fs::write(dir.path().join(FILE), b"{").unwrap();
        let journal = open(&dir).0;
        assert_eq!(journal.scrub_status(&ScrubSettings::default(), NOW).verified, 0);
        assert!(Scrub::new(&journal, ScrubSettings::default()).step(NOW).unwrap().bytes > 0);
    }
}
