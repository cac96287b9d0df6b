//! What lies on the pretend disk: files and names, of which a part is durable and the rest undecided until a sync.
//!
//! Rules, those of POSIX and of the file systems that stretch them
//! - What was synced is there. A sync of a file says nothing about its name, a sync of a directory nothing about bytes.
//! - Of what was not synced anything may be there: each change by itself, of a write any part, a part that is
//!   missing before one that is there (zeros, or what stood there before), names of one directory in any combination.
//! - After a failed sync of a file the changes are *doubtful*: the system takes its pages for clean, a later sync writes
//!   nothing and succeeds, and the changes are on the disk or not (Rebello et al., ATC 2020). Names are kept in the file
//!   system's own journal until they are written: a later sync of the directory that succeeds settles them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default)]
pub(crate) struct Media {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Names as programs see them.
    names: BTreeMap<PathBuf, u64>,
    /// Names as a power cut leaves them, but for `changes`.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Of names, since their directory was synced, in order.
    changes: Vec<Pending<NameChange>>,
    dirs: BTreeSet<PathBuf>,
    /// Changes so far.
    count: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    /// As programs see it.
    bytes: Vec<u8>,
    /// As a power cut leaves it, but for `changes`.
    durable: Vec<u8>,
    changes: Vec<Pending<Change>>,
}

/// A change that is not, or not for certain, on the disk.
#[derive(Clone, Debug)]
struct Pending<T> {
    at: u64,
    what: T,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unsynced,
    /// A sync of it failed.
    Doubtful,
    /// Synced, behind something doubtful.
    Durable,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(PathBuf, u64),
    Take(PathBuf),
    Move(PathBuf, PathBuf, u64),
}

/// What may still be there or not after a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// Bytes written to a file at this offset.
    Write {
        /// Of the first byte.
        offset: usize,
        /// How many.
        len: usize,
    },
    /// A file was cut.
    Length,
    /// A name was made, moved or removed.
    Name,
}

/// What a power cut leaves of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    No,
    /// All of it.
    Yes,
    /// Of a write the first bytes; for other changes as `Yes`.
    First(usize),
    /// Of a write all but these bytes, which are zeros or what stood there before; for other changes as `Yes`.
    Without(Range<usize>),
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

    fn dir(&self) -> &Path {
        match self {
            Self::Put(path, _) | Self::Take(path) | Self::Move(_, path, _) => dir_of(path),
        }
    }
}

impl Change {
    fn apply(&self, keep: &Keep, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(len) => {
                if *keep != Keep::No {
                    bytes.resize(*len, 0);
                }
            }
            Self::Write { offset, bytes: written } => {
                let reach = match keep {
                    Keep::No => return,
                    Keep::Yes | Keep::Without(_) => written.len(),
                    Keep::First(n) => (*n).min(written.len()),
                };
                if bytes.len() < offset + reach {
                    bytes.resize(offset + reach, 0);
                }
                let hole = match keep {
                    Keep::Without(hole) => hole.start.min(reach)..hole.end.min(reach),
                    Keep::No | Keep::Yes | Keep::First(_) => reach..reach,
                };
                for part in [0..hole.start, hole.end..reach] {
                    bytes[offset + part.start..offset + part.end].copy_from_slice(&written[part]);
                }
            }
        }
    }
}

impl Media {
    pub(crate) fn make_dir(&mut self, dir: &Path) {
        self.dirs.extend(dir.ancestors().map(Path::to_owned));
    }

    pub(crate) fn has_dir(&self, dir: &Path) -> bool {
        self.dirs.contains(dir)
    }

    pub(crate) fn find(&self, path: &Path) -> Option<u64> {
        self.names.get(path).copied()
    }

    pub(crate) fn names_in<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = String> + 'a {
        let here = self.names.keys().filter(move |path| dir_of(path) == dir);
        here.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned())
    }

    pub(crate) fn file_count(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.names.values().filter_map(|file| self.files.get(file)).map(|content| content.bytes.len() as u64).sum()
    }

    pub(crate) fn bytes(&self, file: u64) -> &[u8] {
        self.files.get(&file).map_or(&[], |content| &content.bytes)
    }

    pub(crate) fn create(&mut self, path: &Path) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Content::default());
        self.change_name(NameChange::Put(path.to_owned(), file));
        file
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) {
        assert_eq!(dir_of(from), dir_of(to), "one directory's sync covers a rename");
        if let Some(file) = self.find(from) {
            self.change_name(NameChange::Move(from.to_owned(), to.to_owned(), file));
        }
    }

    pub(crate) fn unlink(&mut self, path: &Path) {
        self.change_name(NameChange::Take(path.to_owned()));
    }

    fn change_name(&mut self, what: NameChange) {
        what.apply(&mut self.names);
        self.changes.push(Pending { at: self.count, what, fate: Fate::Unsynced });
        self.count += 1;
    }

    pub(crate) fn write(&mut self, file: u64, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(file, Change::Write { offset, bytes: bytes.to_vec() });
        }
    }

    pub(crate) fn set_len(&mut self, file: u64, len: usize) {
        self.change(file, Change::Length(len));
    }

    fn change(&mut self, file: u64, what: Change) {
        let content = self.files.entry(file).or_default();
        what.apply(&Keep::Yes, &mut content.bytes);
        content.changes.push(Pending { at: self.count, what, fate: Fate::Unsynced });
        self.count += 1;
    }

    /// A sync of a file that returned, well or badly.
    pub(crate) fn synced(&mut self, file: u64, well: bool) {
        let Some(content) = self.files.get_mut(&file) else { return };
        settle(content.changes.iter_mut(), well, false);
        let decided = content.changes.iter().take_while(|change| change.fate == Fate::Durable).count();
        for change in content.changes.drain(..decided) {
            change.what.apply(&Keep::Yes, &mut content.durable);
        }
    }

    /// A sync of a directory that returned, well or badly.
    pub(crate) fn synced_dir(&mut self, dir: &Path, well: bool) {
        settle(self.changes.iter_mut().filter(|change| change.what.dir() == dir), well, true);
        let mut waiting = BTreeSet::new();
        let (names, changes) = (&mut self.durable_names, &mut self.changes);
        changes.retain(|change| {
            let decided = change.fate == Fate::Durable && !waiting.contains(change.what.dir());
            if decided {
                change.what.apply(names);
            } else {
                waiting.insert(change.what.dir().to_owned());
            }
            !decided
        });
    }

    /// What a power cut decides, in the order in which it was done.
    pub(crate) fn undecided(&self) -> Vec<Undecided> {
        let names = self.changes.iter().filter(|c| c.fate != Fate::Durable).map(|c| (c.at, Undecided::Name));
        let in_files = self.files.values().flat_map(|content| &content.changes).filter(|c| c.fate != Fate::Durable);
        let in_files = in_files.map(|c| match &c.what {
            Change::Write { offset, bytes } => (c.at, Undecided::Write { offset: *offset, len: bytes.len() }),
            Change::Length(_) => (c.at, Undecided::Length),
        });
        let mut all: Vec<_> = names.chain(in_files).collect();
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, what)| what).collect()
    }

    /// Files whose names are durable and of whose content nothing is.
    pub(crate) fn hollow_files(&self) -> impl Iterator<Item = &Path> {
        let hollow = |file: &u64| self.files.get(file).is_some_and(|c| c.durable.is_empty() && !c.changes.is_empty());
        self.durable_names.iter().filter(move |(_, file)| hollow(file)).map(|(path, _)| path.as_path())
    }

    /// The disk after a power cut that keeps so much of each undecided change, all of it durable.
    pub(crate) fn after(&self, keeps: &[Keep]) -> Self {
        let in_files = self.files.values().flat_map(|content| &content.changes).map(|c| (c.at, c.fate));
        let mut order: Vec<u64> = in_files
            .chain(self.changes.iter().map(|c| (c.at, c.fate)))
            .filter(|(_, fate)| *fate != Fate::Durable)
            .map(|(at, _)| at)
            .collect();
        order.sort_unstable();
        let keep_of = |at: u64, fate: Fate| match fate {
            Fate::Durable => &Keep::Yes,
            Fate::Unsynced | Fate::Doubtful => {
                order.binary_search(&at).ok().and_then(|i| keeps.get(i)).unwrap_or(&Keep::No)
            }
        };
        let mut names = self.durable_names.clone();
        for change in self.changes.iter().filter(|change| *keep_of(change.at, change.fate) != Keep::No) {
            change.what.apply(&mut names);
        }
        let used: BTreeSet<u64> = names.values().copied().collect();
        let files = self.files.iter().filter(|(file, _)| used.contains(file)).map(|(file, content)| {
            let mut bytes = content.durable.clone();
            content.changes.iter().for_each(|c| c.what.apply(keep_of(c.at, c.fate), &mut bytes));
            (*file, Content { durable: bytes.clone(), bytes, changes: Vec::new() })
        });
        Self {
            files: files.collect(),
            next_file: self.next_file,
            durable_names: names.clone(),
            names,
            changes: Vec::new(),
            dirs: self.dirs.clone(),
            count: 0,
        }
    }

    /// Tells one content of the disk, as programs see it, from another.
    pub(crate) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, file) in &self.names {
            let bytes = self.bytes(*file);
            hasher.write(path.as_os_str().as_encoded_bytes());
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        }
        hasher.finish()
    }
}

/// Decides the fate of changes whose sync returned.
fn settle<'a, T: 'a>(changes: impl Iterator<Item = &'a mut Pending<T>>, well: bool, doubtful_too: bool) {
    let fate = if well { Fate::Durable } else { Fate::Doubtful };
    let open =
        |change: &&mut Pending<T>| change.fate == Fate::Unsynced || (doubtful_too && change.fate == Fate::Doubtful);
    changes.filter(open).for_each(|change| change.fate = fate);
}

pub(crate) fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
