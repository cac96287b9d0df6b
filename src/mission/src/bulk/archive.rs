//! The zip around the lines: one `.jsonl` at its root, and attachments below `data/`.
//!
//! Nothing is ever unpacked to a path of the archive's choosing: names are looked up, and bytes go where their hash says.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use unicode_normalization::UnicodeNormalization as _;
use zip::ZipArchive;

/// Entries of an archive. Each costs some 300 bytes of memory while the archive is open.
pub(crate) const ENTRIES_MAX: usize = 500_000;
/// Bytes read to learn what there is: 300 for each entry, whose name and times seldom take 200.
const DIRECTORY_BYTES_MAX: u64 = 300 * ENTRIES_MAX as u64;
/// Where the record that counts more than 65,535 entries stands, seen from the end: the zip's comment is behind it.
const END_BYTES: u64 = 128 * 1024;
/// That record: its first bytes, its length, and where in it the count is.
const END_OF_MANY: (&[u8], usize, usize) = (b"PK\x06\x06", 56, 32);
/// So many times may the lines be longer than their packed form. Chats pack to a third; what is made to burst packs to a
/// thousandth.
const PACKED_TIMES_MAX: u64 = 200;
/// Lines up to this size are read however well they pack.
const UNPACKED_FREE: u64 = 64 * 1024 * 1024;
/// Where attachments lie (`model.ExportDataDir`).
pub(crate) const DATA: &str = "data";

/// A file that is read at places of its own, so that clones do not move each other.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    file: Arc<File>,
    len: u64,
    at: u64,
    /// So much may be read, by all clones together, until the list of entries is read.
    left: Arc<AtomicU64>,
}

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.at)?;
        self.at += read as u64;
        if self.left.load(Ordering::Relaxed) != u64::MAX {
            let too_much = |_| io::Error::new(io::ErrorKind::InvalidData, "its list of entries is too long");
            let less = |left: u64| left.checked_sub(read as u64);
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).map_err(too_much)?;
        }
        Ok(read)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Why an archive is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("it is no readable zip archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("it could not be read: {0}")]
    Io(#[from] io::Error),
    #[error("it has {0} entries, more than {ENTRIES_MAX}")]
    TooMany(u64),
    #[error("there is no file with lines (`import.jsonl`) at its root")]
    NoLines,
    #[error("there are several files with lines at its root: {0} and {1}")]
    SeveralLines(String, String),
    #[error("its lines are {unpacked} bytes and only {packed} packed: it is made to burst")]
    Bursts { unpacked: u64, packed: u64 },
}

/// What became of a path in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The entry of this number, with the size that it says it has.
    At(usize, u64),
    /// There is none.
    Nowhere,
    /// It would lead out of the archive.
    Outside,
}

/// An open archive. Clones share what is known of its entries.
#[derive(Clone)]
pub(crate) struct Archive {
    zip: ZipArchive<Shared>,
    lines: usize,
    /// Size of the lines.
    pub(crate) lines_bytes: u64,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        // Before each of them costs memory.
        let told = told_entries(&file, len)?;
        if told > ENTRIES_MAX as u64 {
            return Err(ArchiveError::TooMany(told));
        }
        let left = Arc::new(AtomicU64::new(DIRECTORY_BYTES_MAX));
        let mut zip = ZipArchive::new(Shared { file: Arc::new(file), len, at: 0, left: Arc::clone(&left) })?;
        left.store(u64::MAX, Ordering::Relaxed);
        if zip.len() > ENTRIES_MAX {
            return Err(ArchiveError::TooMany(zip.len() as u64));
        }
        let at_root = |name: &&str| !name.contains(['/', '\\']) && name.ends_with(".jsonl");
        let mut names = zip.file_names().filter(at_root).map(str::to_owned);
        let name = names.next().ok_or(ArchiveError::NoLines)?;
        if let Some(other) = names.next() {
            return Err(ArchiveError::SeveralLines(name, other));
        }
        drop(names);
        let lines = zip.index_for_name(&name).ok_or(ArchiveError::NoLines)?;
        let (unpacked, packed) = {
            let entry = zip.by_index(lines)?;
            (entry.size(), entry.compressed_size())
        };
        if unpacked > UNPACKED_FREE && unpacked / PACKED_TIMES_MAX > packed {
            return Err(ArchiveError::Bursts { unpacked, packed });
        }
        Ok(Self { zip, lines, lines_bytes: unpacked })
    }

    /// The lines, and no more of them than the archive said there are.
    pub(crate) fn lines(&mut self) -> Result<impl Read + '_, ArchiveError> {
        let said = self.lines_bytes;
        Ok(Capped { source: self.zip.by_index(self.lines)?, left: said })
    }

    /// The entry that a path of a line names, below `data/` or from the root, however its accents are written.
    pub(crate) fn find(&mut self, path: &str) -> Found {
        let path = path.trim_start_matches('/');
        if path.split(['/', '\\']).any(|part| part == "..") || path.contains('\0') {
            return Found::Outside;
        }
        let spellings = [path.to_owned(), path.nfc().collect(), path.nfd().collect()];
        let places = spellings.iter().flat_map(|name| [format!("{DATA}/{name}"), name.clone()]);
        let index = places.into_iter().find_map(|name| self.zip.index_for_name(&name));
        let Some(index) = index.filter(|index| *index != self.lines) else { return Found::Nowhere };
        match self.zip.by_index_raw(index) {
            Ok(entry) if entry.is_file() => Found::At(index, entry.size()),
            Ok(_) | Err(_) => Found::Nowhere,
        }
    }

    /// The bytes of an entry, and no more than `max`.
    pub(crate) fn open_entry(&mut self, index: usize, max: u64) -> Result<impl Read + '_, ArchiveError> {
        Ok(Capped { source: self.zip.by_index(index)?, left: max })
    }
}

/// The most entries that a record at the end of the file counts; 0 where there is none, as in archives with up to 65,535.
fn told_entries(file: &File, len: u64) -> io::Result<u64> {
    let from = len.saturating_sub(END_BYTES);
    let mut end = Vec::new();
    let mut rest =
        Shared { file: Arc::new(file.try_clone()?), len, at: from, left: Arc::new(AtomicU64::new(u64::MAX)) };
    rest.read_to_end(&mut end)?;
    let (magic, length, at) = END_OF_MANY;
    let number = |record: &[u8], at: usize| {
        record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    // Bytes of something else may begin like it; the length that follows tells the two apart.
    let records = end.windows(length).filter(|record| record.starts_with(magic) && number(record, 4) <= len);
    Ok(records.map(|record| number(record, at)).max().unwrap_or(0))
}

/// Fails where there is more than there may be: what an archive says of its sizes is a claim.
struct Capped<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "there is more of it than the archive says"));
            }
        }
        Ok(read)
    }
}
