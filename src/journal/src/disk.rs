//! The real disk: [`model::Disk`] over the standard library.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use model::{Disk, DiskFile, DiskLock, DiskSpace, LockError, OpenMode};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::mutations::{Mutation, unless};

/// The file system of the operating system. New files are readable by their owner only.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdDisk;

impl Disk for StdDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        match fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        unless(Mutation::SkipStdParentSync, || self.sync_dir(parent.unwrap_or(Path::new("."))))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::Append => drop(options.write(true)),
            OpenMode::Create => drop(options.write(true).create_new(true)),
        }
        Ok(Box::new(StdFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(dir)? {
            // A name that is no text is none of ours.
            names.extend(item?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        unless(Mutation::SkipStdDirSync, || File::open(dir)?.sync_all())
    }

    fn space(&self, dir: &Path) -> io::Result<Option<DiskSpace>> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(Some(DiskSpace {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_files: (found.f_files > 0).then_some(found.f_favail),
        }))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
                return Err(LockError::Held { holder: holder.filter(|text| !text.is_empty()) });
            }
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        // Only a courtesy to whoever is refused: the lock itself is the operating system's.
        file.set_len(0)?;
        writeln!(file, "pid {}", std::process::id())?;
        Ok(Box::new(StdLock { _file: file }))
    }
}

struct StdLock {
    _file: File,
}

impl DiskLock for StdLock {}

struct StdFile(File);

impl DiskFile for StdFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let present = self.len()?;
        if len <= present {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), present, len - present) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            done => return Ok(done?),
        }
        // A file system that cannot set room aside takes zeros for it.
        let zeros = vec![0; 64 << 10];
        let mut missing = len - present;
        while missing > 0 {
            let piece = missing.min(zeros.len() as u64);
            self.append(&zeros[..piece as usize])?;
            missing -= piece;
        }
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        unless(Mutation::SkipStdDataSync, || self.0.sync_data())
    }
}
