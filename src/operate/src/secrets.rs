//! Where this process finds the secret that wraps the keyring.

use std::path::{Path, PathBuf};

use keys::{DataKeys, Keyring, KeysError, KeysSettings, Surroundings, WrapSecret};
use zeroize::Zeroizing;

use crate::exit::{Failure, chain};
use crate::layout::Layout;
use crate::output;

/// The failure of a key that is not there or does not fit.
pub(crate) fn failure(e: &KeysError) -> Failure {
    Failure::new(chain(e), e.next_step())
}

/// Where systemd puts what the unit's LoadCredential= names.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Calls `find` with what this process brings along. `twice` for a passphrase that is new.
pub(crate) fn surrounded<T>(twice: bool, find: impl FnOnce(&mut Surroundings<'_>) -> T) -> T {
    let credentials = credentials();
    let mut ask = || output::is_interactive().then(|| typed(twice)).flatten();
    find(&mut Surroundings { credentials: credentials.as_deref(), ask: &mut ask })
}

fn typed(twice: bool) -> Option<Zeroizing<String>> {
    let terminal = console::Term::stderr();
    let read = |prompt: &str| {
        output::ask(prompt);
        terminal.read_secure_line().ok().map(Zeroizing::new)
    };
    let first = read("Passphrase of the journal's keyring: ")?;
    if twice && read("The same again: ")? != first {
        output::note("the two differ");
        return None;
    }
    Some(first)
}

/// Opens the node's keyring, or makes it for a journal that does not exist yet. The caller holds the directory's lock.
///
/// # Errors
/// When the secret is missing or wrong, or the keyring is missing or damaged.
pub(crate) fn open_keyring(layout: &Layout, settings: &KeysSettings) -> Result<Keyring, Failure> {
    use model::Clock as _;
    let twice = !Keyring::exists(&layout.keys());
    let now = carrier::SystemClock.now();
    surrounded(twice, |around| edge::open_keyring(layout.data(), settings, around, now)).map_err(|e| failure(&e))
}

/// The keys with which a reader opens the journal; changes nothing.
///
/// # Errors
/// As for [`open_keyring`].
pub(crate) fn reader_keys(layout: &Layout, settings: &KeysSettings) -> Result<DataKeys, Failure> {
    read_keyring(layout, settings).map(|keyring| keyring.data_keys())
}

/// The keyring, for reading.
///
/// # Errors
/// As for [`open_keyring`].
pub(crate) fn read_keyring(layout: &Layout, settings: &KeysSettings) -> Result<Keyring, Failure> {
    let dir = layout.keys();
    if !Keyring::exists(&dir) {
        return Err(failure(&KeysError::KeyringMissing { path: dir.join(keys::KEYRING_FILE) }));
    }
    let opened = surrounded(false, |around| WrapSecret::find(settings, &dir, around, false))
        .and_then(|secret| Keyring::open(&dir, secret));
    opened.map_err(|e| failure(&e))
}

/// Problems of the section `[keys]` that its types cannot express: key and message.
pub(crate) fn check(settings: &KeysSettings) -> Option<(&'static str, String)> {
    let plain = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if !plain(&settings.credential) {
        return Some(("keys.credential", "a credential has a name without slashes".to_owned()));
    }
    let relative = |path: &Option<PathBuf>| path.as_deref().is_some_and(Path::is_relative);
    if relative(&settings.file) {
        return Some(("keys.file", "write the whole path, beginning with a slash".to_owned()));
    }
    relative(&settings.passphrase_file)
        .then(|| ("keys.passphrase_file", "write the whole path, beginning with a slash".to_owned()))
}
