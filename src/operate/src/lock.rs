//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// File name below the data directory. It holds the process id of whoever has the lock, or had it last.
const FILE: &str = "holdfast.lock";

/// The right to change the data directory. Ends when dropped and with the process, however it ends.
#[derive(Debug)]
pub struct DataLock {
    data: PathBuf,
    _file: File,
}

impl Drop for DataLock {
    fn drop(&mut self) {
        if let Err(e) = give_back(&self.data) {
            tracing::warn!(error = %e, data = %self.data.display(), "files may belong to root instead of the node's user");
        }
    }
}

/// A service runs as a user of its own, and its operator as root. What root made in the directory goes to the
/// directory's owner, or the node could not read it at its next start.
fn give_back(data: &Path) -> io::Result<()> {
    const ROOT: u32 = 0;
    let owner = std::fs::metadata(data)?;
    if owner.uid() == ROOT || rustix::process::geteuid().as_raw() != ROOT {
        return Ok(());
    }
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for item in std::fs::read_dir(dir)? {
            let item = item?;
            let found = item.metadata()?;
            if found.uid() == ROOT {
                lchown(item.path(), Some(owner.uid()), Some(owner.gid()))?;
            }
            if found.is_dir() {
                dirs.push(item.path());
            }
        }
    }
    Ok(())
}

/// Tries to take the data directory for this process.
///
/// # Errors
/// When another process has it; the message names it.
pub fn take(data: &Path) -> Result<DataLock, Failure> {
    let path = data.join(FILE);
    let fail = |e: &std::io::Error| Failure::io("locking", &path, e);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|e| fail(&e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = read_holder(&mut file);
            return Err(Failure::with(
                Exit::InUse,
                format!("{} is in use by {holder}; that node goes on undisturbed", data.display()),
                "ask it with `holdfast status`, or stop it first (`systemctl stop holdfast-edge` or holdfast-hub)",
            ));
        }
        Err(TryLockError::Error(e)) => return Err(fail(&e)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        file.flush()
    };
    write(&mut file).map_err(|e| fail(&e))?;
    Ok(DataLock { data: data.to_owned(), _file: file })
}

/// The process that has the data directory, as `pid 4711`; `None` when none has.
pub fn holder(data: &Path) -> Option<String> {
    let mut file = OpenOptions::new().read(true).open(data.join(FILE)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_holder(&mut file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn read_holder(file: &mut File) -> String {
    let mut text = String::new();
    let pid = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_has_the_directory_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let first = take(dir.path()).unwrap();
        let refused = take(dir.path()).unwrap_err();
        let me = format!("pid {}", std::process::id());
        assert_eq!(refused.exit, Exit::InUse);
        assert!(refused.text.contains(&me), "{}", refused.text);
        assert_eq!(holder(dir.path()), Some(me));
        drop(first);
        assert_eq!(holder(dir.path()), None);
        take(dir.path()).unwrap();
    }

    #[test]
    fn what_root_makes_in_a_services_directory_belongs_to_the_service() {
        const SERVICE: u32 = 61_184;
        let dir = tempfile::tempdir().unwrap();
        if lchown(dir.path(), Some(SERVICE), Some(SERVICE)).is_err() {
            return; // only root can make the situation
        }
        let taken = take(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        std::fs::write(dir.path().join("keys/peers"), "").unwrap();
        drop(taken);
        for made in ["keys", "keys/peers", FILE] {
            assert_eq!(std::fs::metadata(dir.path().join(made)).unwrap().uid(), SERVICE, "{made}");
        }
    }
}
