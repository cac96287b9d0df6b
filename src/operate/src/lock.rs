//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use crate::exit::{Exit, Failure};

/// File name below the data directory. It holds the process id of whoever has the lock, or had it last.
const FILE: &str = "holdfast.lock";

/// The right to change the data directory. Ends when dropped and with the process, however it ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
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
    Ok(DataLock { _file: file })
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
}
