//! The keyring of a node's journal: opened, or made for a journal that does not exist yet.

use std::fs;
use std::io;
use std::path::Path;

use keys::{Keyring, KeysError, KeysSettings, Surroundings, WrapSecret};
use model::UnixMillis;

/// Opens the keyring of the data directory, for whoever holds its lock. Without one, and without a segment that
/// needs one, it is made.
///
/// # Errors
/// When it is missing although the journal has segments, or does not open; nothing was changed then.
pub fn open_keyring(
    data_dir: &Path,
    settings: &KeysSettings,
    surroundings: &mut Surroundings<'_>,
    now: UnixMillis,
) -> Result<Keyring, KeysError> {
    let dir = data_dir.join("keys");
    if Keyring::exists(&dir) {
        let mut keyring = Keyring::open(&dir, WrapSecret::find(settings, &dir, surroundings, false)?)?;
        if keyring.mend()? {
            tracing::warn!("one copy of the keyring was damaged; it is written anew, check the disk");
        }
        return Ok(keyring);
    }
    if has_segments(data_dir)? {
        return Err(KeysError::KeyringMissing { path: dir.join(keys::KEYRING_FILE) });
    }
    Keyring::create(&dir, WrapSecret::find(settings, &dir, surroundings, true)?, now)
}

fn has_segments(data_dir: &Path) -> Result<bool, KeysError> {
    let path = data_dir.join("journal/segments");
    match fs::read_dir(&path) {
        Ok(mut items) => Ok(items.next().is_some()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(KeysError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_made_for_an_empty_journal_and_never_for_one_with_segments() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let mut surroundings = Surroundings { credentials: None, ask: &mut || None };
            open_keyring(dir.path(), &KeysSettings::default(), &mut surroundings, UnixMillis(1))
        };
        let made = open().unwrap().list();
        fs::create_dir_all(dir.path().join("journal/segments")).unwrap();
        fs::write(dir.path().join("journal/segments/00000001.seg"), "sealed").unwrap();
        assert_eq!(open().unwrap().list(), made);
        fs::remove_file(dir.path().join("keys/journal.keys")).unwrap();
        assert!(matches!(open(), Err(KeysError::KeyringMissing { .. })));
    }
}
