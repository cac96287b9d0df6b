//! A disk in memory that remembers what was synced and, at a power cut, forgets the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Disk, DiskFile, DiskLock, LockError, OpenMode};
use rand::RngExt;

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct PretendDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Names as programs see them.
    names: BTreeMap<PathBuf, u64>,
    /// Names as a power cut leaves them, but for `unsynced`.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since their directory was synced, in order.
    unsynced: Vec<(PathBuf, NameChange)>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier power-on are dead.
    power_on: u64,
    /// Bytes that may still be appended before the power goes.
    bytes_left: Option<usize>,
    off: bool,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// `durable` is no prefix of `bytes` any more.
    rewritten: bool,
}

#[derive(Debug)]
enum NameChange {
    Put(PathBuf, u64),
    Take(PathBuf),
    Move(PathBuf, PathBuf, u64),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Put(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Take(path) => drop(names.remove(path)),
            Self::Move(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl PretendDisk {
    /// The power goes after so many more appended bytes, in the middle of a write.
    pub fn cut_power_after(&self, bytes: usize) {
        self.state().bytes_left = Some(bytes);
    }

    /// Did it go?
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Power off and on: what was synced is there, of the rest a random part.
    pub fn crash(&self, rng: &mut impl RngExt) {
        let mut state = self.state();
        state.power_on += 1;
        (state.off, state.bytes_left) = (false, None);
        state.locks.clear();
        let unsynced = std::mem::take(&mut state.unsynced);
        let mut names = std::mem::take(&mut state.durable_names);
        let kept = rng.random_range(0..=unsynced.len());
        unsynced[..kept].iter().for_each(|(_, change)| change.apply(&mut names));
        for content in state.files.values_mut() {
            if content.rewritten || content.bytes.len() <= content.durable.len() {
                // The cut of a file reaches the disk or does not.
                if !rng.random_bool(0.5) {
                    content.bytes = content.durable.clone();
                }
            } else {
                let more = rng.random_range(content.durable.len()..=content.bytes.len());
                content.bytes.truncate(more);
            }
            content.durable = content.bytes.clone();
            content.rewritten = false;
        }
        let used: BTreeSet<u64> = names.values().copied().collect();
        state.files.retain(|file, _| used.contains(file));
        state.names = names.clone();
        state.durable_names = names;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.off { Err(no_power()) } else { Ok(state) }
    }
}

impl State {
    fn rename(&mut self, dir: &Path, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push((dir.to_owned(), change));
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Disk for PretendDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.powered()?;
        let found = state.names.get(path).copied();
        let file = match (mode, found) {
            (OpenMode::Read | OpenMode::Append, Some(file)) => file,
            (OpenMode::Read | OpenMode::Append, None) => return Err(io::ErrorKind::NotFound.into()),
            (OpenMode::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::Create, None) => {
                let file = state.next_file;
                state.next_file += 1;
                state.files.insert(file, Content::default());
                state.rename(dir_of(path), NameChange::Put(path.to_owned(), file));
                file
            }
        };
        Ok(Box::new(PretendFile { disk: self.clone(), file, power_on: state.power_on }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(dir_of(to), NameChange::Move(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(dir_of(path), NameChange::Take(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.powered()?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.names.keys().filter(|path| dir_of(path) == dir);
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        let (synced, rest) = std::mem::take(&mut state.unsynced).into_iter().partition(|(of, _)| of == dir);
        state.unsynced = rest;
        let synced: Vec<(PathBuf, NameChange)> = synced;
        synced.iter().for_each(|(_, change)| change.apply(&mut state.durable_names));
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let mut state = self.powered()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(LockError::Held { holder: None });
        }
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
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.disk.powered()?;
        if state.power_on != self.power_on {
            return Err(no_power());
        }
        Ok(act(state.files.entry(self.file).or_default()))
    }
}

impl DiskFile for PretendFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|content| content.bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|content| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.bytes.len());
            let len = buf.len().min(content.bytes.len() - from);
            buf[..len].copy_from_slice(&content.bytes[from..from + len]);
            len
        })
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let room = {
            let mut state = self.disk.powered()?;
            if state.power_on != self.power_on {
                return Err(no_power());
            }
            let room = state.bytes_left.map_or(bytes.len(), |left| left.min(bytes.len()));
            if let Some(left) = &mut state.bytes_left {
                *left -= room;
            }
            state.files.entry(self.file).or_default().bytes.extend_from_slice(&bytes[..room]);
            state.off |= room < bytes.len();
            room
        };
        if room < bytes.len() { Err(no_power()) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|content| {
            content.bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            content.rewritten |= content.bytes.len() < content.durable.len();
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|content| {
            if std::mem::take(&mut content.rewritten) {
                content.durable = content.bytes.clone();
            } else {
                let synced = content.durable.len();
                content.durable.extend_from_slice(&content.bytes[synced..]);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn what_was_synced_survives_and_what_was_not_is_at_most_a_prefix() {
        for seed in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let disk = PretendDisk::default();
            let dir = Path::new("/data");
            disk.create_dir_all(dir).unwrap();
            let file = disk.open(&dir.join("a"), OpenMode::Create).unwrap();
            disk.sync_dir(dir).unwrap();
            file.append(b"synced").unwrap();
            file.sync_data().unwrap();
            file.append(b" lost?").unwrap();
            disk.open(&dir.join("b"), OpenMode::Create).unwrap();
            disk.crash(&mut rng);
            assert!(file.append(b"x").is_err(), "a handle from before the power cut works");
            let file = disk.open(&dir.join("a"), OpenMode::Read).unwrap();
            let mut bytes = vec![0; 100];
            let len = file.read_at(&mut bytes, 0).unwrap();
            assert!(len >= 6 && b"synced lost?".starts_with(&bytes[..len]));
        }
    }

    #[test]
    fn the_power_goes_in_the_middle_of_a_write() {
        let disk = PretendDisk::default();
        disk.create_dir_all(Path::new("/data")).unwrap();
        let file = disk.open(Path::new("/data/a"), OpenMode::Create).unwrap();
        disk.cut_power_after(3);
        assert!(file.append(b"four").is_err() && disk.is_off());
        assert!(disk.sync_dir(Path::new("/data")).is_err());
    }
}
