//! Room that is kept, so that what matters most always fits, and the order in which the rest is refused.
//!
//! ```text
//!  left of journal.limit_bytes, and left on the disk with the reserve file, whichever is less, in reserves:
//!
//!  ..... ok ......|4  files  |3  deferred  |2  routine  |1.5  priority  |1.25  immediate  |0.25  flash  |0
//!                  refused below each mark, together with all before it        receipts and trimming: to the end
//! ```
//! The reserve is a file with really allocated bytes. When the disk refuses a write that carries something urgent, the
//! file gives up as much as that write needs. Half of it at most is lent to the rest of the node, whose database must
//! note an urgent message before the journal can. It is made again when there is room: [`Reserve::check`] finds that
//! out, by really allocating where a refusal was the last that was heard, because a quota does not show in free bytes.
//!
//! No new file can be made when inodes run out: the newest segment then grows on, up to [`tail_bytes_max`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Disk, DiskFile, DiskSpace, OpenMode, Precedence, SpaceLevel};

use crate::error::AppendError;

/// Name of the reserve file below the journal's directory.
const FILE: &str = "reserve";

/// The reserve is no more than this share of the limit, and of the disk.
const SHARE: u64 = 50;

/// On a disk of less than 50 MiB two in a hundred would not hold one transaction of the mission core's database.
const ON_DISK_MIN: u64 = 1 << 20;

/// A disk of less than 8 MiB gives no more than this share.
const SHARE_OF_SMALL: u64 = 8;

/// Below so many free inodes no file content is taken: each file of the mission core needs one, as does each segment.
const FREE_FILES_MIN: u64 = 16;

/// What is allocated to find out whether a disk that refused has room.
const PROBE_BYTES: u64 = 64 << 10;

/// A segment whose successor cannot be made grows to this size, or to 64 MiB above its own: offsets stay below 4 GiB
/// and its footer within a frame.
pub(crate) fn tail_bytes_max(segment_bytes: u64) -> u64 {
    (1 << 30).max(segment_bytes + (64 << 20))
}

/// What asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Content of a file.
    Files,
    /// An entry, own or received.
    Entry(Precedence),
    /// What the journal notes for itself: epochs, receipts, holds, trimming.
    Control,
}

impl Need {
    /// Left when it is taken, in quarters of a reserve.
    fn floor_quarters(self) -> u64 {
        match self {
            Self::Files => 16,
            Self::Entry(Precedence::Deferred) => 12,
            Self::Entry(Precedence::Routine) => 8,
            Self::Entry(Precedence::Priority) => 6,
            Self::Entry(Precedence::Immediate) => 5,
            Self::Entry(Precedence::Flash) => 1,
            Self::Control => 0,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Files => "file content",
            Self::Entry(class) => class.as_str(),
            Self::Control => "the journal's own notes",
        }
    }
}

/// Why there is little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpaceCause {
    /// `journal.limit_bytes` is nearly used up.
    Limit,
    /// The disk is nearly full, or a quota on it.
    Disk,
    /// The file system can make hardly any more files.
    Inodes,
}

impl SpaceCause {
    /// What is the case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "journal.limit_bytes is nearly used up",
            Self::Disk => "the disk is nearly full",
            Self::Inodes => "the disk is nearly out of inodes",
        }
    }

    /// What the operator should do.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::Limit => "bring a link up so that destinations catch up, or raise `journal.limit_bytes`",
            Self::Disk => "free space on the disk that holds the data directory; the node goes on by itself",
            Self::Inodes => "remove files from the disk that holds the data directory: it has no inodes left",
        }
    }
}

/// How much room the journal has, and what it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Space {
    /// What is refused.
    pub level: SpaceLevel,
    /// Why, when anything is.
    pub cause: Option<SpaceCause>,
    /// Bytes up to `journal.limit_bytes`.
    pub limit_left_bytes: u64,
    /// Bytes free on the disk, with those in the reserve; `None` where the disk does not say.
    pub disk_left_bytes: Option<u64>,
    /// Files that may still be made; `None` where the disk does not say.
    pub free_files: Option<u64>,
    /// Bytes in the reserve file.
    pub reserve_bytes: u64,
    /// Bytes that it has when it is whole.
    pub reserve_wanted_bytes: u64,
}

pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    limit_bytes: u64,
    /// Of the limit.
    limit_reserve: u64,
    /// `journal.reserve_bytes`.
    configured: u64,
    side: Mutex<Side>,
}

#[derive(Default)]
struct Side {
    file: Option<Box<dyn DiskFile>>,
    /// Bytes in the file.
    held: u64,
    /// Bytes that it should have.
    wanted: u64,
    found: Option<DiskSpace>,
    /// Appended since `found`.
    appended: u64,
    /// The disk refused a write, and has not been seen to take one since.
    short: bool,
    told: SpaceLevel,
}

impl Side {
    /// Bytes free on the disk, as far as is known.
    fn free(&self) -> Option<u64> {
        let found = self.found?.free_bytes.saturating_sub(self.appended);
        Some(if self.short { 0 } else { found })
    }

    fn left(&self) -> Option<u64> {
        Some(self.free()? + self.held)
    }

    fn resize(&mut self, to: u64) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let before = self.held;
        let done = if to < before { file.truncate(to) } else { file.allocate(to) };
        match done {
            Ok(()) => self.held = to,
            Err(e) => {
                // Part of it may have been allocated: leave what was there for certain.
                self.held = if file.truncate(before).is_ok() { before } else { file.len().unwrap_or(before) };
                return Err(e);
            }
        }
        file.sync_data()
    }
}

impl Reserve {
    /// Looks at the disk and makes the reserve as far as there is room. A full disk is no error.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, limit_bytes: u64, configured: u64) -> Self {
        let limit_reserve = configured.min(limit_bytes / SHARE);
        let reserve =
            Self { disk, dir: dir.to_owned(), limit_bytes, limit_reserve, configured, side: Mutex::default() };
        // Where the disk does not say how much room it has, nothing tells how much to keep.
        if configured > 0 && matches!(reserve.disk.space(dir), Ok(Some(_))) {
            let path = dir.join(FILE);
            let file = reserve.disk.open(&path, OpenMode::Append).or_else(|_| {
                let file = reserve.disk.open(&path, OpenMode::Create)?;
                reserve.disk.sync_dir(dir)?;
                Ok::<_, io::Error>(file)
            });
            match file {
                Ok(file) => {
                    let mut side = reserve.lock();
                    side.held = file.len().unwrap_or(0);
                    side.file = Some(file);
                }
                Err(e) => tracing::warn!(error = %e, "no reserve is kept on the disk until the next start"),
            }
        }
        reserve.refresh(&mut reserve.lock());
        reserve
    }

    fn lock(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May `more` bytes for `need` be appended to a journal of `used` bytes?
    pub(crate) fn admit(&self, need: Need, used: u64, more: u64) -> Result<(), AppendError> {
        let floor = |reserve: u64| reserve * need.floor_quarters() / 4;
        let used_bytes = used + more;
        if need != Need::Control && used_bytes + floor(self.limit_reserve) > self.limit_bytes {
            return Err(AppendError::Full { what: need.as_str(), used_bytes, limit_bytes: self.limit_bytes });
        }
        let mut side = self.lock();
        let fits = |side: &Side| {
            let files = need != Need::Files || !few_files(side);
            // What the journal notes for itself is tried in any case.
            let bytes = need == Need::Control || side.left().is_none_or(|left| left >= more + floor(side.wanted));
            files && bytes
        };
        if fits(&side) {
            return Ok(());
        }
        // Asked again at once, so that nothing is refused for want of room that has come back.
        self.refresh(&mut side);
        if fits(&side) {
            return Ok(());
        }
        let kept = match few_files(&side) && need == Need::Files {
            true => "hardly any more files can be made".to_owned(),
            false => format!("{} bytes are left and kept for what is more urgent", side.left().unwrap_or(0)),
        };
        Err(AppendError::NoSpace(format!("no room for {}: {kept}", need.as_str())))
    }

    /// May zeros be written ahead, so that the journal's files have `used` bytes? Only where nothing is refused then: what
    /// speeds up must not take the room of what is to be kept.
    pub(crate) fn is_plenty(&self, used: u64, more: u64) -> bool {
        let floor = |reserve: u64| reserve * Need::Files.floor_quarters() / 4;
        let side = self.lock();
        used + floor(self.limit_reserve) <= self.limit_bytes
            && !side.short
            && side.left().is_none_or(|left| left >= more + floor(side.wanted))
    }

    /// The files grew by so many bytes.
    pub(crate) fn note_appended(&self, bytes: u64) {
        self.lock().appended += bytes;
    }

    /// The disk refused a write. Returns whether this is news.
    pub(crate) fn note_short(&self) -> bool {
        !std::mem::replace(&mut self.lock().short, true)
    }

    /// Gives `bytes` of the reserve back to the disk; false when there is none.
    pub(crate) fn release(&self, bytes: u64) -> bool {
        let mut side = self.lock();
        if side.held == 0 {
            return false;
        }
        // The file system needs some for its own notes.
        let left = side.held.saturating_sub(bytes + PROBE_BYTES);
        match side.resize(left) {
            Ok(()) => {
                tracing::warn!(bytes, left, "the disk is full; the reserve was used for what is most urgent");
                true
            }
            Err(e) => {
                tracing::warn!(error = %e, "the reserve could not be used");
                false
            }
        }
    }

    /// Looks at the disk, makes the reserve anew where there is room, and tells in the log when what is refused has
    /// changed. `used` is the journal's size.
    pub(crate) fn check(&self, used: u64) -> Space {
        let mut side = self.lock();
        self.refresh(&mut side);
        let space = self.space_of(&side, used);
        let before = std::mem::replace(&mut side.told, space.level);
        drop(side);
        let Space { limit_left_bytes, disk_left_bytes, free_files, .. } = space;
        match space.cause {
            Some(cause) if space.level > before => tracing::warn!(
                level = %space.level, %before, ?cause, limit_left_bytes, ?disk_left_bytes, ?free_files,
                next_step = cause.next_step(), "room for the journal gets scarce"
            ),
            _ if space.level != before => tracing::info!(
                level = %space.level, %before, limit_left_bytes, ?disk_left_bytes, ?free_files,
                "room for the journal has come back"
            ),
            _ => {}
        }
        space
    }

    /// As of the last check.
    pub(crate) fn space(&self, used: u64) -> Space {
        self.space_of(&self.lock(), used)
    }

    fn space_of(&self, side: &Side, used: u64) -> Space {
        let limit_left_bytes = self.limit_bytes.saturating_sub(used);
        let disk_left_bytes = side.left();
        // A level that was told stays until an eighth of the reserve more is free, so that it does not flutter.
        let level = |left: u64, reserve: u64| {
            let slack = |level: SpaceLevel| if level <= side.told { reserve / 8 } else { 0 };
            let refused = |(level, need): &(SpaceLevel, Need)| {
                left < (reserve * need.floor_quarters() / 4 + slack(*level)).max(1)
            };
            LADDER.iter().rev().find(|step| refused(step)).map_or(SpaceLevel::Ok, |(level, _)| *level)
        };
        let inodes = if few_files(side) { SpaceLevel::FilesRefused } else { SpaceLevel::Ok };
        let causes = [
            (level(limit_left_bytes, self.limit_reserve), SpaceCause::Limit),
            (disk_left_bytes.map_or(SpaceLevel::Ok, |left| level(left, side.wanted)), SpaceCause::Disk),
            (inodes, SpaceCause::Inodes),
        ];
        let (level, cause) = causes.into_iter().max_by_key(|(level, _)| *level).expect("there are three");
        Space {
            level,
            cause: (level > SpaceLevel::Ok).then_some(cause),
            limit_left_bytes,
            disk_left_bytes,
            free_files: side.found.and_then(|found| found.free_files),
            reserve_bytes: side.held,
            reserve_wanted_bytes: side.wanted,
        }
    }

    fn refresh(&self, side: &mut Side) {
        match self.disk.space(&self.dir) {
            Ok(found) => (side.found, side.appended) = (found, 0),
            Err(e) => tracing::debug!(error = %e, "the disk does not say how much room it has"),
        }
        let Some(found) = side.found else {
            side.short = false;
            return;
        };
        let total = found.total_bytes;
        side.wanted = match side.file {
            Some(_) => self.configured.min((total / SHARE).max(ON_DISK_MIN)).min(total / SHARE_OF_SMALL),
            None => 0,
        };
        let free = found.free_bytes;
        // Not made again from the last bytes: what was lent would be taken back at once.
        let is_roomy = free >= 2 * side.wanted.saturating_sub(side.held) + side.wanted / 2;
        if side.short {
            self.try_disk(side);
        } else if side.held > side.wanted || (side.held < side.wanted && is_roomy) {
            side.resize(side.wanted).ok();
        }
        if free < side.wanted / 8 && side.held > side.wanted / 2 {
            let left = (side.held - side.wanted / 4).max(side.wanted / 2);
            if side.resize(left).is_ok() {
                tracing::warn!(left, "the disk is full; part of the reserve is lent to the rest of the node");
            }
        }
        if let Ok(Some(found)) = self.disk.space(&self.dir) {
            side.found = Some(found);
        }
    }

    /// Does a disk that refused take something again? The reserve file is what is tried with, and keeps what it gets.
    fn try_disk(&self, side: &mut Side) {
        let before = side.held;
        let probe = before.max(side.wanted) + PROBE_BYTES;
        if side.file.is_none() {
            side.short = false;
            return;
        }
        if side.resize(probe).is_ok() {
            side.short = false;
            let keep = before.max(side.wanted);
            side.resize(keep).ok();
        } else if side.resize(before + PROBE_BYTES).is_ok() {
            // There is some room, though not for the whole reserve.
            side.short = false;
            side.resize(before).ok();
        }
    }
}

/// Levels that bytes decide, and who is refused first at each.
const LADDER: [(SpaceLevel, Need); 6] = [
    (SpaceLevel::FilesRefused, Need::Files),
    (SpaceLevel::DeferredRefused, Need::Entry(Precedence::Deferred)),
    (SpaceLevel::RoutineRefused, Need::Entry(Precedence::Routine)),
    (SpaceLevel::PriorityRefused, Need::Entry(Precedence::Priority)),
    (SpaceLevel::OnlyFlash, Need::Entry(Precedence::Immediate)),
    (SpaceLevel::Nothing, Need::Entry(Precedence::Flash)),
];

fn few_files(side: &Side) -> bool {
    side.found.and_then(|found| found.free_files).is_some_and(|files| files < FREE_FILES_MIN)
}

/// Is there no room, of whatever kind? Running out of inodes or of a quota counts.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use model::{ByteSize, ChunkName, DiskLock, Epoch, Hlc, LocalPos, LockError, Outcome, RangeSet, SourcePosition};
    use tempfile::TempDir;

    use super::*;
    use crate::tests::{chunk_name, draft, entry_of, noise, options, tempdir};
    use crate::{Draft, Foreign, Journal, JournalOptions, StdDisk};

    const MIB: u64 = 1 << 20;

    /// Two in a hundred of it are 1 MiB.
    const DISK: u64 = 50 * MIB;

    #[test]
    fn a_filling_disk_refuses_files_first_and_flash_last() {
        let (dir, disk) = (tempdir(), SmallDisk::of(DISK));
        let journal = open(&dir, &disk);
        assert_eq!(journal.check_space(), Space { reserve_bytes: MIB, ..journal.space() });
        let mut seen = Vec::new();
        let mut number = 0;
        // What is left beside the reserve, in quarters of it; a frame of a few hundred bytes does not matter.
        for quarters in [20, 13, 11, 7, 5] {
            disk.leave(quarters * MIB / 4 - MIB + MIB / 8);
            let level = journal.check_space().level;
            seen.push((level, taken(&journal, &mut number)));
        }
        let expected = [
            (SpaceLevel::Ok, 6),
            (SpaceLevel::FilesRefused, 5),
            (SpaceLevel::DeferredRefused, 4),
            (SpaceLevel::RoutineRefused, 3),
            (SpaceLevel::PriorityRefused, 2),
        ];
        assert_eq!(seen, expected);
        disk.leave(0);
        assert_eq!((journal.check_space().level, taken(&journal, &mut number)), (SpaceLevel::OnlyFlash, 1));
        assert_eq!(journal.space().cause, Some(SpaceCause::Disk));
        disk.leave(10 * MIB);
        assert_eq!((journal.check_space().level, taken(&journal, &mut number)), (SpaceLevel::Ok, 6));
        assert_eq!(journal.space().reserve_bytes, MIB, "the reserve is whole again");
    }

    #[test]
    fn a_filling_limit_refuses_files_first_and_flash_last() {
        let (dir, disk) = (tempdir(), SmallDisk::of(1 << 40));
        let mut options = on(&dir, &disk);
        options.settings.limit_bytes = ByteSize(MIB);
        options.settings.segment_bytes = ByteSize(128 << 10);
        let journal = Journal::open(options).unwrap().0;
        let mut number = 0;
        let mut levels = vec![SpaceLevel::Ok];
        loop {
            let level = journal.check_space().level;
            if levels.last() != Some(&level) {
                levels.push(level);
            }
            let before = number;
            let precedence = Precedence::ALL.into_iter().rev().find(|class| level.admits(*class));
            let Some(precedence) = precedence else { break };
            number += 1;
            let done = journal.append_own(Draft { precedence, ..draft(number) }).wait();
            if let Err(e) = done {
                assert!(matches!(e, AppendError::Full { .. }) && e.is_retryable(), "{e}");
                // Refused a frame before the level says so: the next less urgent class was the last to fit.
                let Some(more) = Precedence::ALL[..precedence.index()].last() else { break };
                journal.append_own(Draft { precedence: *more, ..draft(number) }).wait().unwrap();
            }
            assert_eq!(number, before + 1);
        }
        // Whether the last frame of flash fits exactly is chance.
        assert_eq!(levels[..6], SpaceLevel::ALL[..6]);
        assert_eq!(journal.space().cause, Some(SpaceCause::Limit));
        // Receipts and trimming still fit, and give the room back.
        let bravo = journal.consumer("bravo", true).unwrap();
        bravo.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=number));
        journal.flush().wait().unwrap();
        assert!(journal.trim().unwrap().segments > 0);
        assert_eq!(journal.check_space().level, SpaceLevel::Ok);
    }

    #[test]
    fn flash_receipts_and_trimming_fit_on_a_disk_that_another_filled_and_nothing_else_does() {
        let (dir, disk) = (tempdir(), SmallDisk::of(DISK));
        let journal = open(&dir, &disk);
        let bravo = journal.consumer("bravo", true).unwrap();
        let mut number = 0;
        for _ in 0..40 {
            assert_eq!(taken(&journal, &mut number), 6);
        }
        // Nobody has looked since.
        use_up_zeros(&journal);
        disk.leave(0);
        let flash = |n| Draft { precedence: Precedence::Flash, ..draft(n) };
        for n in 1_000..1_020 {
            journal.append_own(flash(n)).wait().unwrap();
            let refused = journal.append_own(draft(n)).wait().unwrap_err();
            assert!(matches!(refused, AppendError::NoSpace(_)) && refused.is_retryable(), "{refused}");
        }
        assert_eq!(journal.check_space().level, SpaceLevel::OnlyFlash);
        let last = journal.epochs().last().unwrap().last.unwrap().get();
        bravo.record_outcome(Outcome::Applied, Epoch(1), &RangeSet::from(1..=last));
        journal.flush().wait().unwrap();
        assert!(journal.trim().unwrap().segments > 0);
        drop((journal, bravo));
        // A start on the full disk, then room.
        disk.leave(0);
        let journal = open(&dir, &disk);
        journal.append_own(flash(2_000)).wait().unwrap();
        disk.leave(10 * MIB);
        journal.append_own(draft(2_001)).wait().expect("an append finds by itself that there is room");
        use_up_zeros(&journal);
        disk.leave(0);
        assert!(journal.append_own(draft(2_002)).wait().is_err());
        disk.leave(10 * MIB);
        assert_eq!(journal.check_space().level, SpaceLevel::Ok, "nothing was appended since there is room");
        assert_eq!(journal.space().reserve_bytes, MIB);
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
    }

    #[test]
    fn a_quota_that_free_bytes_do_not_show_counts_as_full_and_its_end_is_noticed() {
        let (dir, disk) = (tempdir(), SmallDisk::of(DISK));
        let journal = open(&dir, &disk);
        use_up_zeros(&journal);
        disk.0.quota.store(true, Ordering::SeqCst);
        let refused = journal.append_own(draft(1)).wait().unwrap_err();
        assert!(matches!(refused, AppendError::NoSpace(_)), "{refused}");
        let space = journal.check_space();
        assert!(space.level >= SpaceLevel::PriorityRefused && space.cause == Some(SpaceCause::Disk), "{space:?}");
        disk.0.quota.store(false, Ordering::SeqCst);
        assert_eq!(journal.check_space().level, SpaceLevel::Ok);
        journal.append_own(draft(1)).wait().unwrap();
    }

    #[test]
    fn without_inodes_files_are_refused_and_entries_go_on_in_the_newest_segment() {
        let (dir, disk) = (tempdir(), SmallDisk::of(DISK));
        let journal = open(&dir, &disk);
        disk.0.files_left.store(0, Ordering::SeqCst);
        let space = journal.check_space();
        assert_eq!((space.level, space.cause), (SpaceLevel::FilesRefused, Some(SpaceCause::Inodes)));
        let mut number = 0;
        for _ in 0..40 {
            assert_eq!(taken(&journal, &mut number), 5);
        }
        assert_eq!(journal.stats().segments, 1);
        disk.0.files_left.store(100, Ordering::SeqCst);
        assert_eq!(journal.check_space().level, SpaceLevel::Ok);
        assert_eq!(taken(&journal, &mut number), 6);
        journal.flush().wait().unwrap();
        assert_eq!(journal.stats().segments, 2);
        assert!(tail_bytes_max(1 << 30) < u64::from(u32::MAX), "offsets have 32 bits");
    }

    #[test]
    fn received_entries_are_refused_by_their_class_too() {
        let (dir, disk) = (tempdir(), SmallDisk::of(DISK));
        let journal = open(&dir, &disk);
        use_up_zeros(&journal);
        disk.leave(0);
        let mut stored = Vec::new();
        for precedence in Precedence::ALL {
            let mut entry = entry_of(crate::tests::PEER, 1 + precedence as u64, b"text");
            entry.header.precedence = precedence;
            let foreign = Foreign { bytes: wire::encode_entry(&entry).into(), object: None };
            if journal.append_foreign(foreign).wait().is_ok() {
                stored.push(precedence);
            }
        }
        assert_eq!(stored, [Precedence::Flash]);
        assert_eq!(journal.received(crate::tests::PEER)[&Epoch(1)], RangeSet::from(1..=1), "no receipt without room");
    }

    /// How many of: a chunk, and an entry of each class.
    fn taken(journal: &Journal, number: &mut u64) -> usize {
        *number += 1;
        let mut bytes = noise(200);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let mut chunk = chunk_name(1);
        chunk.0[1..9].copy_from_slice(&number.to_le_bytes());
        let chunk: ChunkName = chunk;
        let mut taken = usize::from(journal.put_chunk(chunk, &bytes).wait().is_ok());
        for precedence in Precedence::ALL.into_iter().rev() {
            let source = SourcePosition(Hlc(*number * 10 + precedence as u64));
            let done = journal.append_own(Draft { source, precedence, ..draft(*number) }).wait();
            assert!(done.is_ok() || taken == 0 || precedence > Precedence::Flash);
            taken += usize::from(done.is_ok());
        }
        taken
    }

    /// What is appended next takes room.
    fn use_up_zeros(journal: &Journal) {
        let mut number = 5_000;
        while journal.stats().ahead_bytes > 0 {
            number += 1;
            journal.append_own(draft(number)).wait().unwrap();
            // Behind the roll to the next segment, if it was due.
            journal.flush().wait().unwrap();
        }
    }

    fn on(dir: &TempDir, disk: &SmallDisk) -> JournalOptions {
        let mut options = options(dir.path());
        options.settings.reserve_bytes = ByteSize(64 * MIB);
        disk.0.dir.lock().unwrap().clone_from(&dir.path().to_owned());
        JournalOptions { disk: Arc::new(disk.clone()), ..options }
    }

    fn open(dir: &TempDir, disk: &SmallDisk) -> Journal {
        let journal = Journal::open(on(dir, disk)).unwrap().0;
        assert!(journal.head() >= LocalPos::START);
        journal
    }

    /// The real disk, made small.
    #[derive(Clone)]
    struct SmallDisk(Arc<Small>);

    struct Small {
        dir: Mutex<PathBuf>,
        total: u64,
        ballast: AtomicU64,
        quota: AtomicBool,
        files_left: AtomicU64,
    }

    impl SmallDisk {
        fn of(total: u64) -> Self {
            Self(Arc::new(Small {
                dir: Mutex::default(),
                total,
                ballast: AtomicU64::new(0),
                quota: AtomicBool::new(false),
                files_left: AtomicU64::new(100_000),
            }))
        }

        /// Somebody else takes what there is but for `bytes`.
        fn leave(&self, bytes: u64) {
            self.0.ballast.store(0, Ordering::SeqCst);
            self.0.ballast.store(self.free().saturating_sub(bytes), Ordering::SeqCst);
        }

        fn free(&self) -> u64 {
            fn size(dir: &Path) -> u64 {
                let items = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
                items.map(|path| if path.is_dir() { size(&path) } else { fs::metadata(&path).unwrap().len() }).sum()
            }
            let used = size(&self.0.dir.lock().unwrap()) + self.0.ballast.load(Ordering::SeqCst);
            self.0.total.saturating_sub(used)
        }
    }

    impl Disk for SmallDisk {
        fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
            StdDisk.create_dir_all(dir)
        }

        fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
            if mode == OpenMode::Create {
                let left = self.0.files_left.load(Ordering::SeqCst).checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
                self.0.files_left.store(left, Ordering::SeqCst);
            }
            Ok(Box::new(SmallFile { file: StdDisk.open(path, mode)?, disk: self.clone() }))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            StdDisk.rename(from, to)
        }

        fn unlink(&self, path: &Path) -> io::Result<()> {
            StdDisk.unlink(path)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            StdDisk.list(dir)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            StdDisk.sync_dir(dir)
        }

        fn space(&self, _: &Path) -> io::Result<Option<DiskSpace>> {
            let free_files = Some(self.0.files_left.load(Ordering::SeqCst));
            Ok(Some(DiskSpace { free_bytes: self.free(), total_bytes: self.0.total, free_files }))
        }

        fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
            StdDisk.lock(path)
        }
    }

    struct SmallFile {
        file: Box<dyn DiskFile>,
        disk: SmallDisk,
    }

    impl DiskFile for SmallFile {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.file.read_at(buf, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let over = bytes.len().min((self.file.len()? - offset) as usize);
            if self.disk.0.quota.load(Ordering::SeqCst) && over < bytes.len() {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            let room = (over + self.disk.free() as usize).min(bytes.len());
            self.file.write_at(&bytes[..room], offset)?;
            if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn truncate(&self, len: u64) -> io::Result<()> {
            self.file.truncate(len)
        }

        /// No test here cuts the power.
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
