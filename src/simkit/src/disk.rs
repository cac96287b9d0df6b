//! A disk in memory that remembers what was synced and, at a power cut, forgets the rest; that runs full; whose calls
//! fail on demand; and that writes down what was asked of it, so that [`crate::CrashStates`] can cut the power at each call.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use model::{Disk, DiskFile, DiskLock, DiskSpace, LockError, OpenMode};
use rand::RngExt;

use crate::crash::random_keeps;
use crate::media::{Keep, Media, dir_of};

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct PretendDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A call waits at the gate, or the gate was opened.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    media: Media,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier power-on are dead.
    power_on: u64,
    /// Bytes that may still be written before the power goes.
    bytes_left: Option<usize>,
    off: bool,
    /// Calls that change the disk before the process is killed.
    calls_left: Option<u64>,
    /// Bytes and files that there is room for.
    room_bytes: Option<u64>,
    room_files: Option<usize>,
    quota: bool,
    fault: Option<Fault>,
    /// Bytes of files that cannot be read.
    bad: BTreeMap<u64, Vec<Range<usize>>>,
    /// Calls that count for the fault.
    calls: Vec<Op>,
    failed_call: Option<Op>,
    trace: Option<Trace>,
    gate_shut: bool,
    at_gate: u32,
}

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as in model::Disk and model::DiskFile")]
pub enum Op {
    MakeDir,
    Open,
    Create,
    Len,
    Read,
    Write,
    Truncate,
    SyncData,
    Rename,
    Unlink,
    List,
    SyncDir,
    Lock,
}

impl Op {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::MakeDir,
        Self::Open,
        Self::Create,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::Truncate,
        Self::SyncData,
        Self::Rename,
        Self::Unlink,
        Self::List,
        Self::SyncDir,
        Self::Lock,
    ];
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// EIO; nothing of it was done.
    Io,
    /// EIO; of a write half was done.
    PartIo,
    /// ENOSPC; of a write half was done.
    NoSpace,
    /// EDQUOT; of a write half was done.
    Quota,
    /// EINTR, as a layer below that does not repeat the call would show it.
    Interrupted,
    /// A write that ended early without a reason; elsewhere as `Io`.
    Short,
}

impl DiskError {
    /// Every error.
    pub const ALL: [Self; 6] = [Self::Io, Self::PartIo, Self::NoSpace, Self::Quota, Self::Interrupted, Self::Short];

    fn error(self, op: Op) -> io::Error {
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const ENOSPC: i32 = 28;
        const EDQUOT: i32 = 122;
        match self {
            Self::Io | Self::PartIo => io::Error::from_raw_os_error(EIO),
            Self::NoSpace => io::Error::from_raw_os_error(ENOSPC),
            Self::Quota => io::Error::from_raw_os_error(EDQUOT),
            Self::Interrupted => io::Error::from_raw_os_error(EINTR),
            // As `write_all` reports a write of no bytes.
            Self::Short if op == Op::Write => io::ErrorKind::WriteZero.into(),
            Self::Short => io::Error::from_raw_os_error(EIO),
        }
    }

    /// How much of a write is done nevertheless.
    fn part(self, len: usize) -> usize {
        match self {
            Self::Io | Self::Interrupted => 0,
            Self::PartIo | Self::NoSpace | Self::Quota | Self::Short => len / 2,
        }
    }
}

/// A call that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// How many calls succeed before it.
    pub after: u64,
    /// Counts and fails only calls of this kind; `None` for all.
    pub only: Option<Op>,
    /// How it fails.
    pub error: DiskError,
    /// Every later call (of the kind) fails too.
    pub lasting: bool,
}

/// What was asked of a disk, in order. Reading is left out.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub(crate) start: Media,
    pub(crate) calls: Vec<Call>,
}

/// A call that changes the disk, as it went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in model::Disk and model::DiskFile; `file` numbers files as they were made")]
pub enum Call {
    MakeDir {
        dir: PathBuf,
    },
    Create {
        path: PathBuf,
    },
    Write {
        file: u64,
        offset: usize,
        bytes: Vec<u8>,
        well: bool,
    },
    Truncate {
        file: u64,
        len: usize,
    },
    SyncData {
        file: u64,
        well: bool,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
        well: bool,
    },
    Lock {
        path: PathBuf,
    },
    /// A call that failed and of which nothing was done.
    Failed(Op),
    /// Something that happened elsewhere; see [`PretendDisk::note`].
    Note(u64),
}

impl Call {
    pub(crate) fn failed(&self) -> bool {
        match self {
            Self::Write { well, .. } | Self::SyncData { well, .. } | Self::SyncDir { well, .. } => !well,
            Self::Failed(_) => true,
            Self::MakeDir { .. }
            | Self::Create { .. }
            | Self::Truncate { .. }
            | Self::Rename { .. }
            | Self::Unlink { .. }
            | Self::Lock { .. }
            | Self::Note(_) => false,
        }
    }

    pub(crate) fn apply(&self, media: &mut Media) {
        match self {
            Self::MakeDir { dir } => media.make_dir(dir),
            Self::Create { path } => drop(media.create(path)),
            Self::Write { file, offset, bytes, well: _ } => media.write(*file, *offset, bytes),
            Self::Truncate { file, len } => media.set_len(*file, *len),
            Self::SyncData { file, well } => media.synced(*file, *well),
            Self::Rename { from, to } => media.rename(from, to),
            Self::Unlink { path } => media.unlink(path),
            Self::SyncDir { dir, well } => media.synced_dir(dir, *well),
            Self::Lock { .. } | Self::Failed(_) | Self::Note(_) => {}
        }
    }
}

impl Trace {
    /// The calls, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }
}

impl PretendDisk {
    pub(crate) fn holding(media: Media) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(State { media, ..State::default() }), ..Shared::default() }))
    }

    /// The power goes after so many more written bytes, in the middle of a write.
    pub fn cut_power_after(&self, bytes: usize) {
        self.state().bytes_left = Some(bytes);
    }

    /// The process is killed when it makes the call after so many more that change the disk: that call and every later one
    /// is not done. What was not synced stays as it is; see [`PretendDisk::restart_process`].
    pub fn kill_after(&self, calls: u64) {
        self.state().calls_left = Some(calls);
    }

    /// Another process begins, on the disk as the killed one left it.
    pub fn restart_process(&self) {
        let mut state = self.state();
        state.power_on += 1;
        (state.off, state.calls_left) = (false, None);
        state.locks.clear();
    }

    /// The power goes.
    pub fn cut_power(&self) {
        self.state().off = true;
        self.0.changed.notify_all();
    }

    /// Did it go?
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Power off and on: what was synced is there, of the rest a random part.
    pub fn crash(&self, rng: &mut impl RngExt) {
        let mut state = self.state();
        let keeps = random_keeps(&state.media.undecided(), rng);
        state.restart(&keeps);
    }

    /// Power off and on: what was synced is there, and the rest too if `all`, else none of it.
    pub fn crash_keeping(&self, all: bool) {
        let mut state = self.state();
        let keep = if all { Keep::Yes } else { Keep::No };
        let keeps = vec![keep; state.media.undecided().len()];
        state.restart(&keeps);
    }

    /// Room for so many bytes in files; `None` for as many as are written. A write beyond writes what fits and fails,
    /// and succeeds again when the room is raised or a file removed.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state().room_bytes = bytes;
    }

    /// Is there a bound on what it takes?
    pub fn is_bounded(&self) -> bool {
        self.state().room_bytes.is_some()
    }

    /// Room for so many files; `None` for as many as are made. Like a file system out of inodes, creating one more fails.
    pub fn set_files_max(&self, files: Option<usize>) {
        self.state().room_files = files;
    }

    /// Whether a lack of room is an exceeded quota (EDQUOT) rather than a full disk (ENOSPC).
    pub fn set_quota(&self, quota: bool) {
        self.state().quota = quota;
    }

    /// Bytes in files.
    pub fn used_bytes(&self) -> u64 {
        self.state().media.used_bytes()
    }

    /// Files with a name.
    pub fn file_count(&self) -> usize {
        self.state().media.file_count()
    }

    /// Calls fail so from here on; `None` for not any more.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        (state.fault, state.calls, state.failed_call) = (fault, Vec::new(), None);
    }

    /// The first call that failed since [`PretendDisk::set_fault`].
    pub fn failed_call(&self) -> Option<Op> {
        self.state().failed_call
    }

    /// Calls since [`PretendDisk::set_fault`] that counted for the fault.
    pub fn calls(&self) -> Vec<Op> {
        self.state().calls.clone()
    }

    /// Begins to write down what is asked of the disk.
    pub fn record(&self) {
        let mut state = self.state();
        state.trace = Some(Trace { start: state.media.clone(), calls: Vec::new() });
    }

    /// What was asked of the disk since [`PretendDisk::record`].
    pub fn take_trace(&self) -> Trace {
        self.state().trace.take().unwrap_or_default()
    }

    /// Writes down that something happened between two calls, e.g. an acknowledgement.
    pub fn note(&self, what: u64) {
        self.state().write_down(|| Call::Note(what));
        self.0.changed.notify_all();
    }

    /// Holds up calls that change the disk until the gate is opened.
    pub fn shut_gate(&self) {
        self.state().gate_shut = true;
    }

    /// Returns when a call waits at the gate, or something was noted and it is `done`.
    pub fn wait_for_caller(&self, done: impl Fn() -> bool) {
        let mut state = self.state();
        while state.at_gate == 0 && !done() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets calls through.
    pub fn open_gate(&self) {
        self.state().gate_shut = false;
        self.0.changed.notify_all();
    }

    /// Bytes of a file, as programs see it.
    pub fn bytes_of(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.media.find(path).map(|file| state.media.bytes(file).to_vec())
    }

    /// Puts a file there, durably, as if it had always been: for damage that no program did.
    pub fn plant(&self, path: &Path, bytes: Option<&[u8]>) {
        let mut state = self.state();
        if state.media.find(path).is_some() {
            state.media.unlink(path);
        }
        if let Some(bytes) = bytes {
            state.media.make_dir(dir_of(path));
            let file = state.media.create(path);
            state.media.write(file, 0, bytes);
            state.media.synced(file, true);
        }
        state.media.synced_dir(dir_of(path), true);
    }

    /// Every read that touches these bytes of a file fails from here on, and every write to a part of them.
    pub fn spoil(&self, path: &Path, bytes: Range<usize>) {
        let mut state = self.state();
        if let Some(file) = state.media.find(path) {
            state.bad.entry(file).or_default().push(bytes);
        }
    }

    /// Another disk with what programs see on this one, all of it durable.
    pub fn copy(&self) -> Self {
        let state = self.state();
        let keeps = vec![Keep::Yes; state.media.undecided().len()];
        Self::holding(state.media.after(&keeps))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that reads.
    fn reading(&self, op: Op) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.off {
            return Err(no_power());
        }
        match state.failing(op) {
            Some(error) => Err(error.error(op)),
            None => Ok(state),
        }
    }

    /// A call that changes the disk, and how it is to fail.
    fn changing(&self, op: Op) -> io::Result<(MutexGuard<'_, State>, Option<DiskError>)> {
        let mut state = self.state();
        while state.gate_shut && !state.off {
            state.at_gate += 1;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.at_gate -= 1;
        }
        state.off |= state.calls_left == Some(0);
        state.calls_left = state.calls_left.map(|left| left.saturating_sub(1));
        if state.off {
            return Err(no_power());
        }
        let failing = state.failing(op);
        Ok((state, failing))
    }

    /// As [`PretendDisk::changing`], for calls of which nothing is done when they fail.
    fn whole(&self, op: Op) -> io::Result<MutexGuard<'_, State>> {
        let (mut state, failing) = self.changing(op)?;
        match failing {
            Some(error) => {
                state.write_down(|| Call::Failed(op));
                Err(error.error(op))
            }
            None => Ok(state),
        }
    }
}

impl State {
    fn restart(&mut self, keeps: &[Keep]) {
        self.media = self.media.after(keeps);
        self.power_on += 1;
        (self.off, self.bytes_left, self.calls_left, self.gate_shut) = (false, None, None, false);
        self.locks.clear();
    }

    fn failing(&mut self, op: Op) -> Option<DiskError> {
        let fault = self.fault.filter(|fault| fault.only.is_none_or(|only| only == op))?;
        let call = self.calls.len() as u64;
        self.calls.push(op);
        let fails = call == fault.after || (fault.lasting && call > fault.after);
        if fails {
            self.failed_call.get_or_insert(op);
        }
        fails.then_some(fault.error)
    }

    fn write_down(&mut self, call: impl FnOnce() -> Call) {
        if let Some(trace) = &mut self.trace {
            trace.calls.push(call());
        }
    }

    fn perform(&mut self, call: Call) {
        call.apply(&mut self.media);
        self.write_down(|| call);
    }

    /// Are some of these bytes bad?
    fn is_bad(&self, file: u64, bytes: &Range<usize>) -> bool {
        self.bad.get(&file).into_iter().flatten().any(|bad| bad.start < bytes.end && bytes.start < bad.end)
    }

    fn full(&self) -> io::Error {
        let kind = if self.quota { io::ErrorKind::QuotaExceeded } else { io::ErrorKind::StorageFull };
        kind.into()
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk for PretendDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.whole(Op::MakeDir)?;
        state.perform(Call::MakeDir { dir: dir.to_owned() });
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let (file, power_on) = match mode {
            OpenMode::Read | OpenMode::Append => {
                let state = self.reading(Op::Open)?;
                (state.media.find(path).ok_or(io::ErrorKind::NotFound)?, state.power_on)
            }
            OpenMode::Create => {
                let mut state = self.whole(Op::Create)?;
                if state.media.find(path).is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                if state.room_files.is_some_and(|room| state.media.file_count() >= room) {
                    return Err(state.full());
                }
                state.perform(Call::Create { path: path.to_owned() });
                (state.media.find(path).ok_or(io::ErrorKind::NotFound)?, state.power_on)
            }
        };
        Ok(Box::new(PretendFile { disk: self.clone(), file, power_on }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.whole(Op::Rename)?;
        state.media.find(from).ok_or(io::ErrorKind::NotFound)?;
        state.perform(Call::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.whole(Op::Unlink)?;
        state.media.find(path).ok_or(io::ErrorKind::NotFound)?;
        state.perform(Call::Unlink { path: path.to_owned() });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.reading(Op::List)?;
        if !state.media.has_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(state.media.names_in(dir).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, failing) = self.changing(Op::SyncDir)?;
        state.perform(Call::SyncDir { dir: dir.to_owned(), well: failing.is_none() });
        failing.map_or(Ok(()), |error| Err(error.error(Op::SyncDir)))
    }

    fn space(&self, _: &Path) -> io::Result<Option<DiskSpace>> {
        let state = self.state();
        let Some(total_bytes) = state.room_bytes else { return Ok(None) };
        let free_bytes = total_bytes.saturating_sub(state.media.used_bytes());
        let free_files = state.room_files.map(|room| room.saturating_sub(state.media.file_count()) as u64);
        // A quota does not show in what a file system says of itself.
        let free_bytes = if state.quota { u64::MAX / 2 } else { free_bytes };
        Ok(Some(DiskSpace { free_bytes, total_bytes, free_files }))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let mut state = self.whole(Op::Lock)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(LockError::Held { holder: None });
        }
        state.write_down(|| Call::Lock { path: path.to_owned() });
        Ok(Box::new(PretendLock { disk: self.clone(), path: path.to_owned(), power_on: state.power_on }))
    }
}

struct PretendLock {
    disk: PretendDisk,
    path: PathBuf,
    power_on: u64,
}

impl DiskLock for PretendLock {}

impl Drop for PretendLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.power_on == self.power_on {
            state.locks.remove(&self.path);
        }
    }
}

struct PretendFile {
    disk: PretendDisk,
    file: u64,
    power_on: u64,
}

impl PretendFile {
    fn check(&self, state: &State) -> io::Result<()> {
        if state.power_on == self.power_on { Ok(()) } else { Err(no_power()) }
    }
}

impl DiskFile for PretendFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.reading(Op::Len)?;
        self.check(&state)?;
        Ok(state.media.bytes(self.file).len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.reading(Op::Read)?;
        self.check(&state)?;
        let bytes = state.media.bytes(self.file);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let len = buf.len().min(bytes.len() - from);
        if state.is_bad(self.file, &(from..from + len)) {
            return Err(DiskError::Io.error(Op::Read));
        }
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(bytes, Some(usize::try_from(offset).unwrap_or(usize::MAX)))
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes, None)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.whole(Op::Truncate)?;
        self.check(&state)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        state.perform(Call::Truncate { file: self.file, len });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, failing) = self.disk.changing(Op::SyncData)?;
        self.check(&state)?;
        state.perform(Call::SyncData { file: self.file, well: failing.is_none() });
        failing.map_or(Ok(()), |error| Err(error.error(Op::SyncData)))
    }
}

impl PretendFile {
    /// At `offset`, or at the end.
    fn write(&self, bytes: &[u8], offset: Option<usize>) -> io::Result<()> {
        let (mut state, failing) = self.disk.changing(Op::Write)?;
        self.check(&state)?;
        let mut error = failing.map(|failing| failing.error(Op::Write));
        let mut done = failing.map_or(bytes.len(), |failing| failing.part(bytes.len()));
        let end = state.media.bytes(self.file).len();
        let offset = offset.unwrap_or(end);
        assert!(offset <= end, "a file is written without gaps");
        if state.is_bad(self.file, &(offset..offset + bytes.len())) {
            return Err(DiskError::Io.error(Op::Write));
        }
        // What is written over takes no more room.
        let room = state.room_bytes.map(|room| room.saturating_sub(state.media.used_bytes()) + (end - offset) as u64);
        if let Some(room) = room.filter(|room| *room < done as u64) {
            (done, error) = (room as usize, Some(state.full()));
        }
        if let Some(left) = state.bytes_left {
            if left < done {
                (done, error, state.off) = (left, Some(no_power()), true);
            }
            state.bytes_left = Some(left - done);
        }
        let (file, well) = (self.file, error.is_none());
        state.perform(Call::Write { file, offset, bytes: bytes[..done].to_vec(), well });
        error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn disk_with_a_file() -> (PretendDisk, Box<dyn DiskFile>) {
        let disk = PretendDisk::default();
        disk.create_dir_all(Path::new("/data")).unwrap();
        let file = disk.open(Path::new("/data/a"), OpenMode::Create).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        (disk, file)
    }

    fn read(disk: &PretendDisk) -> Vec<u8> {
        disk.bytes_of(Path::new("/data/a")).unwrap()
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_is_there_in_any_part() {
        for seed in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (disk, file) = disk_with_a_file();
            file.append(b"synced").unwrap();
            file.sync_data().unwrap();
            file.append(b" lost?").unwrap();
            disk.open(Path::new("/data/b"), OpenMode::Create).unwrap();
            disk.crash(&mut rng);
            assert!(file.append(b"x").is_err(), "a handle from before the power cut works");
            let bytes = read(&disk);
            let (synced, rest) = bytes.split_at(6);
            assert_eq!(synced, b"synced");
            assert!(rest.iter().zip(b" lost?").all(|(found, written)| found == written || *found == 0));
        }
    }

    #[test]
    fn the_power_goes_in_the_middle_of_a_write() {
        let (disk, file) = disk_with_a_file();
        disk.cut_power_after(3);
        assert!(file.append(b"four").is_err() && disk.is_off());
        assert!(disk.sync_dir(Path::new("/data")).is_err());
    }

    #[test]
    fn a_sync_after_a_failed_one_proves_nothing() {
        let (disk, file) = disk_with_a_file();
        file.append(b"one").unwrap();
        disk.set_fault(Some(Fault { after: 0, only: Some(Op::SyncData), error: DiskError::Io, lasting: false }));
        assert!(file.sync_data().is_err() && disk.failed_call() == Some(Op::SyncData));
        file.append(b"two").unwrap();
        file.sync_data().unwrap();
        assert_eq!(read(&disk), b"onetwo", "programs see what may never reach the disk");
        disk.crash_keeping(false);
        assert_eq!(read(&disk), b"\0\0\0two");
    }

    #[test]
    fn a_full_disk_writes_what_fits_and_works_again_when_there_is_room() {
        let (disk, file) = disk_with_a_file();
        disk.set_room(Some(5));
        let error = file.append(b"seventy").unwrap_err();
        assert_eq!((error.kind(), read(&disk)), (io::ErrorKind::StorageFull, b"seven".to_vec()));
        disk.set_quota(true);
        assert_eq!(file.append(b"x").unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        file.truncate(0).unwrap();
        file.append(b"five!").unwrap();
        disk.set_room(None);
        file.append(b" more").unwrap();
        disk.set_files_max(Some(1));
        assert!(disk.open(Path::new("/data/b"), OpenMode::Create).is_err());
        disk.set_files_max(None);
        disk.open(Path::new("/data/b"), OpenMode::Create).unwrap();
        assert_eq!(disk.used_bytes(), 10);
    }

    #[test]
    fn a_name_is_durable_after_the_sync_of_its_directory_only() {
        let (disk, file) = disk_with_a_file();
        file.append(b"x").unwrap();
        file.sync_data().unwrap();
        disk.rename(Path::new("/data/a"), Path::new("/data/b")).unwrap();
        disk.crash_keeping(false);
        assert_eq!(disk.list(Path::new("/data")).unwrap(), ["a"]);
        disk.rename(Path::new("/data/a"), Path::new("/data/b")).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        disk.crash_keeping(false);
        assert_eq!(disk.list(Path::new("/data")).unwrap(), ["b"]);
    }
}
