//! What the journal asks of a disk, small enough that a pretend disk can stand in and forget what was not synced.
//!
//! Durability is as on POSIX: bytes appended survive a power cut after [`DiskFile::sync_data`] returned, a name
//! made, renamed or removed survives it after [`Disk::sync_dir`] on its directory returned, and nothing before.

use std::io;
use std::path::Path;

use crate::DiskSpace;

/// Files in directories.
pub trait Disk: Send + Sync {
    /// Makes the directory and those above it, durably. Fine when it exists.
    ///
    /// # Errors
    /// As the operating system reports.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` for a missing file unless it is to be created, `AlreadyExists` for [`OpenMode::Create`].
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in one step, replacing what stood there.
    ///
    /// # Errors
    /// As the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system reports; the state of the names is then unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Room on the file system that holds `dir`; `None` where that is not known.
    ///
    /// # Errors
    /// As the operating system reports.
    fn space(&self, _dir: &Path) -> io::Result<Option<DiskSpace>> {
        Ok(None)
    }

    /// Takes an exclusive lock that ends with the returned value or with the process.
    ///
    /// # Errors
    /// [`LockError::Held`] when somebody else has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError>;
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Append,
    /// A new file, for reading and writing.
    Create,
}

/// One open file. Several handles may be open on the same file.
pub trait DiskFile: Send + Sync {
    /// Length in bytes, of what was written, synced or not.
    ///
    /// # Errors
    /// As the operating system reports.
    fn len(&self) -> io::Result<u64>;

    /// True for a file without bytes.
    ///
    /// # Errors
    /// As for [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset` on as far as the file reaches; returns how many bytes that were.
    ///
    /// # Errors
    /// As the operating system reports.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes over what stands from `offset` on, and lengthens the file where that ends before. `offset` is not behind the
    /// end. After an error any part of `bytes` may have been written.
    ///
    /// # Errors
    /// As the operating system reports, a full disk among them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes at the end. After an error any part of `bytes` may have been written.
    ///
    /// # Errors
    /// As for [`DiskFile::write_at`].
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_at(bytes, self.len()?)
    }

    /// Lengthens the file with zeros to `len` bytes for which the disk really has room. A longer file stays as it is.
    ///
    /// # Errors
    /// As the operating system reports, a full disk among them; the file may then have grown by a part.
    fn allocate(&self, len: u64) -> io::Result<()> {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let mut missing = len.saturating_sub(self.len()?);
        while missing > 0 {
            let piece = missing.min(ZEROS.len() as u64);
            self.append(&ZEROS[..piece as usize])?;
            missing -= piece;
        }
        Ok(())
    }

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written survives a power cut.
    ///
    /// # Errors
    /// As the operating system reports. What was written since the last success may be lost, and asking again
    /// proves nothing: the system may have dropped the pages.
    fn sync_data(&self) -> io::Result<()>;
}

/// A lock that is held.
pub trait DiskLock: Send + Sync {}

/// A lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("held by {}", .holder.as_deref().unwrap_or("another process"))]
    Held {
        /// Who, as far as known, e.g. `pid 4711`.
        holder: Option<String>,
    },
    /// The lock could not be tried.
    #[error(transparent)]
    Io(#[from] io::Error),
}
