//! A small journal, of which any byte may be changed and any file cut, swapped or removed; and what that may cost.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use journal::{Draft, Journal, JournalOptions, JournalSettings, Listed, Reader};
use link::{Now, Output, ReceiverState, SenderState, Session, SessionConfig, StartEpochReason};
use model::{
    ByteSize, ChunkName, Disk, Entry, EntryHash, EntryId, Epoch, LocalPos, Outcome, RangeSet, Seq, UnixMillis,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::Frame;

use crate::check::{Broken, panic_text};
use crate::disk::PretendDisk;
use crate::trial::{DIR, NODE, PEER, Seal, chunk_bytes, chunk_name, draft, foreign, options};

/// What a disk gives up at once.
const SECTOR_BYTES: usize = 4 << 10;

/// Of its segments.
const SEGMENT_BYTES: u64 = 12 << 10;

/// A journal on a disk, and what it holds.
pub struct Specimen {
    disk: PretendDisk,
    seal: Seal,
    held: BTreeMap<EntryId, (LocalPos, EntryHash, Arc<Entry>)>,
    chunks: BTreeMap<ChunkName, Vec<u8>>,
}

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Entries that cannot be read any more.
    pub entries: usize,
    /// Chunks that cannot be read any more.
    pub chunks: usize,
    /// Did open, a read or verify say that something is wrong?
    pub noticed: bool,
}

impl Specimen {
    /// Some `bytes` of entries, chunks and receipts in several segments.
    pub fn new(seal: Seal, bytes: u64) -> Self {
        let disk = PretendDisk::default();
        let mut specimen = Self { disk, seal, held: BTreeMap::new(), chunks: BTreeMap::new() };
        let (journal, _) = Journal::open(specimen.options(&specimen.disk, 1)).expect("an empty disk opens");
        let bravo = journal.consumer("bravo", true).expect("there is room");
        let mut rng = ChaCha8Rng::seed_from_u64(bytes);
        let mut row = 0;
        while journal.stats().bytes < bytes {
            let mut body = vec![0; 400 + (row as usize * 97) % 1100];
            rng.fill_bytes(&mut body);
            journal.append_own(Draft { body, ..draft(row, row) }).wait().expect("there is room");
            match row % 5 {
                1 => drop(journal.append_foreign(foreign(row + 1)).wait().expect("there is room")),
                2 => {
                    let bytes = chunk_bytes(row);
                    journal.put_chunk(chunk_name(row), &bytes).wait().expect("there is room");
                    specimen.chunks.insert(chunk_name(row), bytes);
                }
                3 => {
                    bravo.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=row / 2));
                    journal.flush().wait().expect("there is room");
                }
                _ => {}
            }
            row += 1;
        }
        // Numbers that only the last entry shows, with something whole behind it.
        bravo.record_outcome(Outcome::Quarantined, Epoch(1), &RangeSet::from(1..=row));
        journal.flush().wait().expect("there is room");
        specimen.held = all(&journal).expect("it is whole").iter().map(seen).collect();
        drop((bravo, journal));
        specimen
    }

    fn options(&self, disk: &PretendDisk, salts: u64) -> JournalOptions {
        let options = options(disk, self.seal, salts);
        let settings = JournalSettings { segment_bytes: ByteSize(SEGMENT_BYTES), ..options.settings };
        JournalOptions { settings, ..options }
    }

    /// Number and offset of an own entry in each segment file but the last.
    pub fn entry_frames(&self) -> Vec<(u32, u64)> {
        let disk = self.disk.copy();
        let reader = Reader::open(Path::new(DIR), Arc::new(disk) as Arc<dyn Disk>, &self.seal.all_keys());
        let listed = reader.ok().and_then(|r| r.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).ok());
        let own = listed.into_iter().flatten().filter(|l| l.entry.header.id.origin == NODE);
        let mut frames: BTreeMap<u32, u64> = own.map(|l| (l.segment, l.offset)).collect();
        frames.pop_last();
        frames.into_iter().collect()
    }

    /// What verify says of a copy of the disk after a change, or what it finds no journal for.
    pub fn verify_after(&self, change: impl Fn(&PretendDisk)) -> Vec<String> {
        let disk = self.disk.copy();
        change(&disk);
        let reader = Reader::open(Path::new(DIR), Arc::new(disk) as Arc<dyn Disk>, &self.seal.all_keys());
        match reader.map_err(|e| e.to_string()).and_then(|r| r.verify(&mut |_| {}).map_err(|e| e.to_string())) {
            Ok(report) => report.findings.into_iter().map(|finding| finding.what).collect(),
            Err(e) => vec![e],
        }
    }

    /// Its segment files, oldest first.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = Path::new(DIR).join("segments");
        let names = self.disk.list(&dir).unwrap_or_default();
        let paths = names.into_iter().map(|name| dir.join(name));
        paths.filter_map(|path| self.disk.bytes_of(&path).map(|bytes| (path, bytes))).collect()
    }

    /// Entries that it holds.
    pub fn entries(&self) -> usize {
        self.held.len()
    }

    /// What one change to a copy of the disk costs.
    ///
    /// # Errors
    /// When the journal does not open, or returns what was never written, or gives a number out again.
    pub fn after(&self, change: impl Fn(&PretendDisk)) -> Result<Harm, Broken> {
        self.after_seen_by(change, true)
    }

    fn after_seen_by(&self, change: impl Fn(&PretendDisk), beside: bool) -> Result<Harm, Broken> {
        let disk = self.disk.copy();
        change(&disk);
        catch_unwind(AssertUnwindSafe(|| self.examine(&disk, beside))).unwrap_or_else(|panic| Err(panic_text(&*panic)))
    }

    fn examine(&self, disk: &PretendDisk, beside: bool) -> Result<Harm, Broken> {
        let mut harm = Harm::default();
        if !beside {
            // Nobody else looks.
        } else if let Ok(reader) =
            Reader::open(Path::new(DIR), Arc::new(disk.clone()) as Arc<dyn Disk>, &self.seal.all_keys())
        {
            harm.noticed |= !reader.damage().is_empty();
            let listed = reader.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).map_err(|e| e.to_string())?;
            self.compare(&listed)?;
        } else {
            harm.noticed = true;
        }
        let (journal, report) = Journal::open(self.options(disk, 2)).map_err(|e| format!("it does not open: {e}"))?;
        let listed = all(&journal)?;
        harm.entries = self.held.len() - self.compare(&listed)?;
        for (name, bytes) in &self.chunks {
            match journal.get_chunk(name).map_err(|e| e.to_string())? {
                Some(found) if *found == **bytes => {}
                Some(_) => return Err("a chunk has another content".to_owned()),
                None => harm.chunks += 1,
            }
        }
        harm.noticed |= !report.damage.is_empty()
            || report.new_epoch.is_some()
            || report.footers_written > 0
            || journal.stats().damaged > 0;
        if !harm.noticed {
            harm.noticed = !journal.verify(&mut |_| {}).map_err(|e| e.to_string())?.is_clean();
        }
        let received = journal.received(PEER).remove(&Epoch(1)).unwrap_or_default();
        for id in listed.iter().map(|l| l.entry.header.id).filter(|id| id.origin == PEER) {
            if !received.contains(id.seq.get()) {
                return Err(format!("{id} is held and not known as received"));
            }
        }
        let sums = journal.accounting("bravo").map_err(|e| e.to_string())?.ok_or("bravo is not registered")?.total;
        let ended = sums.applied + sums.quarantined + sums.expired + sums.superseded + sums.withheld + sums.purged;
        if sums.accepted != ended + sums.held {
            return Err(format!("the equation does not hold: {sums:?}"));
        }
        Ok(harm)
    }

    /// How many of the entries are there; none that is not one of them.
    fn compare(&self, listed: &[Listed]) -> Result<usize, Broken> {
        let mut met = BTreeSet::new();
        for l in listed {
            let (id, place) = seen(l);
            if self.held.get(&id) != Some(&place) {
                return Err(format!("{id} at {:?} is not what was written", l.pos));
            }
            if !met.insert(id) {
                return Err(format!("{id} is there twice"));
            }
        }
        Ok(met.len())
    }

    /// The next own number on a copy of the disk after a change, for a comparison with those that were given out.
    ///
    /// # Errors
    /// When it was given out before, or nothing can be appended.
    pub fn next_number_after(&self, change: impl Fn(&PretendDisk)) -> Result<EntryId, Broken> {
        let disk = self.disk.copy();
        change(&disk);
        let (journal, _) = Journal::open(self.options(&disk, 2)).map_err(|e| e.to_string())?;
        let appended = journal.append_own(Draft { follows: None, ..draft(1 << 20, 1 << 20) }).wait();
        let appended = appended.map_err(|e| e.to_string())?;
        let taken = self.held.contains_key(&appended.id) || self.held.values().any(|(pos, ..)| *pos == appended.pos);
        if taken { Err(format!("{} was given out before", appended.id)) } else { Ok(appended.id) }
    }

    /// Own entries that it holds.
    pub fn own_entries(&self) -> usize {
        self.held.keys().filter(|id| id.origin == NODE).count()
    }

    /// On a copy of the disk after a change: how many own entries are left, and does the greeting of a peer that has every
    /// one of them make this node begin another epoch?
    ///
    /// # Errors
    /// When the journal does not open or cannot be read, or the peer's greeting is refused.
    pub fn greeted_after(&self, change: impl Fn(&PretendDisk)) -> Result<(usize, bool), Broken> {
        let disk = self.disk.copy();
        change(&disk);
        let (journal, _) = Journal::open(self.options(&disk, 2)).map_err(|e| e.to_string())?;
        let left = all(&journal)?.iter().filter(|l| l.entry.header.id.origin == NODE).count();
        let epochs = journal.epochs().iter().map(|e| (e.epoch, e.last.map_or(0, |seq| seq.get()))).collect();
        let sender = SenderState { epochs, progress: BTreeMap::new(), scan_from: LocalPos::START };
        let config = SessionConfig {
            me: NODE,
            name: "alpha".to_owned(),
            boot: 2,
            peer: PEER,
            labels: BTreeSet::new(),
            peer_chunk_secret: [0; 32],
            compression: 1,
        };
        let mut session = Session::new(config, sender, ReceiverState::default());
        let now = Now { mono: Duration::from_secs(1), wall: UnixMillis(1_700_000_000_000) };
        session.connected(now);
        let numbers = self.held.keys().filter(|id| id.origin == NODE).map(|id| id.seq.get()).collect();
        let greet = wire::frame::Greet {
            protocol: wire::frame::PROTOCOL,
            node: PEER,
            boot: 1,
            epoch: Epoch::FIRST,
            next_seq: Seq::FIRST,
            name: "bravo".to_owned(),
        };
        let receipt = wire::frame::Receipt { part: 1, epoch: Epoch::FIRST, stored: numbers, outcomes: Vec::new() };
        for frame in [Frame::Greet(greet), Frame::Receipt(receipt)] {
            session.frame(frame, &journal.outbound(), now).map_err(|e| e.to_string())?;
        }
        let is_start =
            |output: &Output| matches!(output, Output::StartEpoch { reason: StartEpochReason::PeerIsAhead, .. });
        let begins = std::iter::from_fn(|| session.poll()).any(|output| is_start(&output));
        Ok((left, begins))
    }

    /// The disk refuses one sector of a file after the other.
    ///
    /// # Errors
    /// The first sector that costs what does not stand in it, or that nobody notices, or that shows what is wrong.
    pub fn lose_every_sector(&self) -> Result<Vec<(PathBuf, usize, Harm)>, Broken> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.copy());
        let reader = Reader::open(Path::new(DIR), disk, &self.seal.all_keys()).map_err(|e| e.to_string())?;
        let listed = reader.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).map_err(|e| e.to_string())?;
        let mut lost = Vec::new();
        for (i, (path, bytes)) in self.files().into_iter().enumerate() {
            for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
                let sector = at..bytes.len().min(at + SECTOR_BYTES);
                // What is in a frame beside the entry is less than this.
                let touches = |l: &&Listed| {
                    let (from, to) = (l.offset as usize, l.offset as usize + l.bytes as usize + 200);
                    l.segment as usize == i + 1 && from < sector.end && to > sector.start
                };
                let there = listed.iter().filter(touches).count();
                let told = |what: String| format!("sector at {at} of {}: {what}", path.display());
                let harm = self.after(|disk| disk.spoil(&path, sector.clone())).map_err(told)?;
                if harm.entries > there {
                    return Err(told(format!("{harm:?}, and no more than {there} entries stand there")));
                }
                self.next_number_after(|disk| disk.spoil(&path, sector.clone())).map_err(told)?;
                let holds_something = bytes[sector].iter().any(|byte| *byte != 0);
                if holds_something && !harm.noticed {
                    return Err(told("nobody noticed".to_owned()));
                }
                lost.push((path.clone(), at, harm));
            }
        }
        Ok(lost)
    }

    /// Flips bits of every `step`-th byte of every file: `mask` says which ones.
    ///
    /// # Errors
    /// The first flip that costs more than one entry or chunk, or that nobody notices, or that shows what is wrong.
    pub fn flip_every_byte(&self, step: usize, mask: impl Fn(usize) -> u8 + Sync) -> Result<Flips, Broken> {
        let files = self.files();
        let bytes = files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let places = files.iter().flat_map(|(path, bytes)| (0..bytes.len()).map(move |at| (path, bytes, at)));
        let places: Vec<_> = places.step_by(step).collect();
        let (next, lossless) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let broken = std::thread::scope(|scope| {
            let run = || {
                while let Some((path, bytes, at)) = places.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let mask = mask(*at);
                    let flip = |disk: &PretendDisk| {
                        let mut bytes = (*bytes).clone();
                        bytes[*at] ^= mask;
                        disk.plant(path, Some(&bytes));
                    };
                    let told = |what: String| Some(format!("byte {at} of {} ^ {mask:#04x}: {what}", path.display()));
                    let broken = match self.after_seen_by(flip, at % 16 == 0) {
                        Ok(harm) if harm.entries + harm.chunks > 1 => told(format!("{harm:?}")),
                        Ok(harm) if !harm.noticed => told("nobody noticed".to_owned()),
                        Ok(harm) => {
                            lossless.fetch_add(usize::from(harm.entries + harm.chunks == 0), Ordering::SeqCst);
                            None
                        }
                        Err(e) => told(e),
                    };
                    if broken.is_some() {
                        next.store(places.len(), Ordering::SeqCst);
                        return broken;
                    }
                }
                None
            };
            let threads: Vec<_> =
                (0..std::thread::available_parallelism().map_or(2, usize::from)).map(|_| scope.spawn(run)).collect();
            threads.into_iter().find_map(|thread| thread.join().expect("checks catch their panics"))
        });
        let flips = Flips { bytes, flips: places.len(), lossless: lossless.into_inner() };
        broken.map_or(Ok(flips), Err)
    }
}

/// What flipping came to.
#[derive(Clone, Copy, Debug)]
pub struct Flips {
    /// Bytes of the journal.
    pub bytes: usize,
    /// Bytes flipped, one at a time.
    pub flips: usize,
    /// Of these, how many cost nothing but a report.
    pub lossless: usize,
}

fn all(journal: &Journal) -> Result<Vec<Listed>, Broken> {
    journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).map_err(|e| e.to_string())
}

fn seen(listed: &Listed) -> (EntryId, (LocalPos, EntryHash, Arc<Entry>)) {
    (listed.entry.header.id, (listed.pos, listed.hash, Arc::clone(&listed.entry)))
}
