//! The real disk, counting what is asked of it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::StdDisk;
use model::{Disk, DiskFile, DiskLock, LockError, OpenMode};

/// How often and how much.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// [`StdDisk`] that counts `sync_data` and the bytes of `write_at`, but for zeros.
#[derive(Default)]
pub(crate) struct CountingDisk(pub(crate) Arc<Counts>);

struct CountingFile(Box<dyn DiskFile>, Arc<Counts>);

impl Disk for CountingDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        StdDisk.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(CountingFile(StdDisk.open(path, mode)?, Arc::clone(&self.0))))
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

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        StdDisk.lock(path)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Zeros ahead of the content are written over later, and are none of its size. No frame begins with one.
        if bytes.first().is_some_and(|byte| *byte != 0) {
            self.1.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        self.0.write_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        self.0.sync_data()
    }
}
