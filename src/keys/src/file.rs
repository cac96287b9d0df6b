//! Small secret files: private, durable, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::KeysError;

/// Far above any file here (a registry of 1,000 peers is about 2 MB), far below what would hurt to read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The content of a private file; `None` when there is none.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
    let failed = |source| KeysError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed { path: path.to_owned(), mode });
    }
    // The whole capacity at once: a growing buffer would leave copies of the secret in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len().min(FILE_BYTES_MAX) as usize + 1));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Replaces the file: after a power cut either the old content or the new one is there.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let dir = path.parent().expect("a key file lies in a key directory");
    let mut temp = PathBuf::from(path).into_os_string();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    let write = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // A leftover of a crash may have another mode, which opening does not change.
        match fs::remove_file(&temp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| KeysError::Write { path: path.to_owned(), source })
}

/// As [`write_private`]; then the old content is overwritten where it lay, as far as the medium does that.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let failed = |source| KeysError::Write { path: path.to_owned(), source };
    let old = match OpenOptions::new().write(true).open(path) {
        Ok(old) => Some(old),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed(e)),
    };
    write_private(path, bytes)?;
    old.map_or(Ok(()), |old| overwrite(&old)).map_err(failed)
}

fn overwrite(mut file: &File) -> io::Result<()> {
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    io::copy(&mut io::repeat(0).take(len), &mut file)?;
    file.sync_all()
}

/// Destroys a file: overwritten, synced, removed, and its directory synced. Returns whether there was one.
///
/// Some media write elsewhere what is written over (flash, copy-on-write file systems): there the old bytes may stay.
///
/// # Errors
/// As the operating system reports; as much as possible was done then.
pub fn destroy_file(path: &Path) -> io::Result<bool> {
    let overwritten = match OpenOptions::new().write(true).open(path) {
        Ok(file) => overwrite(&file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => Err(e),
    };
    fs::remove_file(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    overwritten.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_and_a_leftover_of_a_crash_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/secret");
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(dir.path().join("keys/secret.new"), "half").unwrap();
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap().unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_destroyed_file_is_overwritten_where_it_lay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let seen = dir.path().join("seen");
        let planted = [0xab; 5_000];
        for destroy in [
            |path: &Path| destroy_file(path).map(drop),
            |path: &Path| replace_private(path, b"new").map_err(io::Error::other),
        ] {
            fs::remove_file(&seen).ok();
            write_private(&path, &planted).unwrap();
            // A second name keeps the old file in sight.
            fs::hard_link(&path, &seen).unwrap();
            destroy(&path).unwrap();
            assert_eq!(fs::read(&seen).unwrap(), [0; 5_000]);
        }
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(destroy_file(&path).unwrap());
        assert!(!destroy_file(&path).unwrap());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read_private(&path).unwrap_err();
        assert!(refused.to_string().contains("644"), "{refused}");
        assert!(refused.next_step().contains("chmod 600"), "{}", refused.next_step());
    }
}
