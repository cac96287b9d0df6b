//! Refresh tokens of people who signed in, each in a sealed file of its own.
//!
//! A token is replaced by writing a new file, syncing it and renaming it over the old one: after a power cut the old or the
//! new token is there, and Entra takes both.
//!
//! A renewal takes a while, and a person may sign out or in again meanwhile. What it brings is therefore kept only while the
//! token that it was asked with is still the one in the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Sensitive, UnixMillis};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::environment::Vault;

/// Someone on whose behalf this node may act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Entra's id of the person in this tenant.
    pub oid: String,
    /// The name they signed in with; may change, so it is for people only.
    pub username: String,
    /// When the present refresh token came. It dies when it is not used for 90 days.
    pub renewed: UnixMillis,
    pub(crate) refresh_token: Sensitive<String>,
    /// It came to a public client: Entra refuses a secret or certificate with it.
    pub(crate) public: bool,
}

/// What a file holds before it is sealed.
#[derive(Serialize, Deserialize)]
struct Record {
    oid: String,
    username: String,
    renewed_ms: i64,
    refresh_token: String,
    public: bool,
}

/// The files.
#[derive(Clone)]
pub(crate) struct Book {
    dir: PathBuf,
    vault: Arc<dyn Vault>,
    /// Held from a look at a file to its replacement.
    changing: Arc<Mutex<()>>,
}

impl Book {
    /// `dir` is made with the first token.
    pub(crate) fn at(dir: PathBuf, vault: Arc<dyn Vault>) -> Self {
        Self { dir, vault, changing: Arc::default() }
    }

    /// The token of a person; `None` when they never signed in here, or the file is damaged or from another node.
    pub(crate) fn get(&self, oid: &str) -> Option<SignedIn> {
        self.read(&self.file(oid)?)
    }

    /// Everyone, by id.
    pub(crate) fn list(&self) -> Vec<SignedIn> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let files = entries.filter_map(|e| e.ok()).map(|e| e.path());
        let mut found: Vec<SignedIn> =
            files.filter(|p| p.extension().is_some_and(|e| e == EXTENSION)).filter_map(|p| self.read(&p)).collect();
        found.sort_by(|a, b| a.oid.cmp(&b.oid));
        found
    }

    /// Notes the token of somebody who signed in, durably.
    ///
    /// # Errors
    /// When it cannot be written; the token before it is still there.
    pub(crate) fn put(&self, signed_in: &SignedIn) -> io::Result<()> {
        let _changing = self.changing();
        self.write(signed_in)
    }

    /// Notes what `used` was renewed to, durably, unless the person signed out or in again since. Says whether it was noted.
    ///
    /// # Errors
    /// When it cannot be written; the token before it is still there.
    pub(crate) fn renew(&self, used: &SignedIn, next: &SignedIn) -> io::Result<bool> {
        let _changing = self.changing();
        if self.get(&used.oid).is_none_or(|now| now.refresh_token != used.refresh_token) {
            return Ok(false);
        }
        self.write(next).map(|()| true)
    }

    /// Forgets a token that has ended, durably, unless the person signed in again since. Says whether it was there.
    ///
    /// # Errors
    /// As of [`Book::remove`].
    pub(crate) fn end(&self, used: &SignedIn) -> io::Result<bool> {
        let _changing = self.changing();
        match self.get(&used.oid) {
            Some(now) if now.refresh_token == used.refresh_token => self.unlink(&used.oid),
            Some(_) | None => Ok(false),
        }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, signed_in: &SignedIn) -> io::Result<()> {
        let path = self.file(&signed_in.oid).ok_or_else(|| io::Error::other("the id of a person is a GUID"))?;
        let record = Record {
            oid: signed_in.oid.clone(),
            username: signed_in.username.clone(),
            renewed_ms: signed_in.renewed.0,
            refresh_token: signed_in.refresh_token.0.clone(),
            public: signed_in.public,
        };
        let plain = serde_json::to_vec(&record).expect("plain fields become JSON");
        write_durably(&path, &self.vault.seal(&plain))
    }

    /// Forgets the token of a person, durably. Says whether there was one.
    ///
    /// # Errors
    /// When the file cannot be removed; the token is still there then.
    pub(crate) fn remove(&self, oid: &str) -> io::Result<bool> {
        let _changing = self.changing();
        self.unlink(oid)
    }

    fn unlink(&self, oid: &str) -> io::Result<bool> {
        let Some(path) = self.file(oid) else { return Ok(false) };
        match fs::remove_file(&path) {
            Ok(()) => File::open(&self.dir)?.sync_all().map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn read(&self, path: &Path) -> Option<SignedIn> {
        let plain = self.vault.open(&fs::read(path).ok()?)?;
        let record: Record = serde_json::from_slice(&plain.0).ok()?;
        Some(SignedIn {
            oid: record.oid,
            username: record.username,
            renewed: UnixMillis(record.renewed_ms),
            refresh_token: Sensitive(record.refresh_token),
            public: record.public,
        })
    }

    /// Only a GUID becomes a file name.
    fn file(&self, oid: &str) -> Option<PathBuf> {
        let oid = Uuid::try_parse(oid).ok()?;
        Some(self.dir.join(format!("{}.{EXTENSION}", oid.as_hyphenated())))
    }
}

const EXTENSION: &str = "signin";

/// Replaces a file so that after a power cut the old or the new content is there. Readable by the owner alone.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let dir = path.parent().ok_or_else(|| io::Error::other("the file has a directory"))?;
    if !dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if let Some(above) = dir.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    let temp = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::TestVault;

    fn signed_in(token: &str) -> SignedIn {
        SignedIn {
            oid: "6f1a1a9e-0000-4000-8000-000000000001".to_owned(),
            username: "ada@example.org".to_owned(),
            renewed: UnixMillis(7),
            refresh_token: Sensitive(token.to_owned()),
            public: true,
        }
    }

    #[test]
    fn a_token_survives_a_restart_and_is_not_readable_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::at(dir.path().join("people"), Arc::new(TestVault::new(1)));
        book.put(&signed_in("secret-token-1")).unwrap();
        book.put(&signed_in("secret-token-2")).unwrap();

        let again = Book::at(dir.path().join("people"), Arc::new(TestVault::new(1)));
        assert_eq!(again.list(), vec![signed_in("secret-token-2")]);
        for entry in fs::read_dir(dir.path().join("people")).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(12).any(|w| w == b"secret-token"));
        }
        let other = Book::at(dir.path().join("people"), Arc::new(TestVault::new(2)));
        assert_eq!(other.list(), Vec::new(), "another node's vault opens nothing");
    }

    #[test]
    fn a_renewal_that_comes_late_undoes_neither_a_sign_out_nor_a_new_sign_in() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::at(dir.path().join("people"), Arc::new(TestVault::new(1)));
        let (used, renewed) = (signed_in("used"), signed_in("renewed"));
        book.put(&used).unwrap();
        assert!(book.renew(&used, &renewed).unwrap());
        assert_eq!(book.get(&used.oid), Some(renewed.clone()));

        assert!(!book.renew(&used, &signed_in("late")).unwrap());
        assert!(!book.end(&used).unwrap(), "the end of a token that is not in use any more ends nothing");
        assert_eq!(book.get(&used.oid), Some(renewed.clone()));

        assert!(book.remove(&used.oid).unwrap());
        assert!(!book.renew(&renewed, &signed_in("late")).unwrap());
        assert_eq!(book.list(), Vec::new());

        book.put(&used).unwrap();
        assert!(book.end(&used).unwrap());
        assert_eq!(book.list(), Vec::new());
    }

    #[test]
    fn a_failed_write_leaves_the_token_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::at(dir.path().join("people"), Arc::new(TestVault::new(1)));
        book.put(&signed_in("old")).unwrap();
        let blocked = dir.path().join("people").join("6f1a1a9e-0000-4000-8000-000000000001.new");
        fs::create_dir(&blocked).unwrap();
        assert!(book.put(&signed_in("new")).is_err());
        assert_eq!(book.get(&signed_in("").oid).unwrap().refresh_token.0, "old");
    }

    #[test]
    fn only_a_guid_names_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::at(dir.path().to_owned(), Arc::new(TestVault::new(1)));
        let bad = SignedIn { oid: "../x".to_owned(), ..signed_in("t") };
        assert!(book.put(&bad).is_err());
        assert_eq!(book.get("../x"), None);
    }
}
