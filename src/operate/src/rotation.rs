//! The journal's data keys while a node runs and while it does not: what there is, a new one, the old ones gone.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Journal, StdDisk, keys_in_use};
use keys::{KeyNumber, Keyring};
use model::{Clock as _, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, chain};
use crate::secrets;

/// The data keys; `holdfast.keys/1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// Name of the form.
    pub schema: String,
    /// What wraps them: `file`, `credential` or `passphrase`.
    pub source: String,
    /// Every key, the newest last.
    pub keys: Vec<KeyRow>,
}

/// A data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its number.
    pub number: u32,
    /// When it was made, by this node's clock.
    pub created_at: UnixMillis,
    /// Segment files that need it.
    pub segments: u32,
    /// What is new is sealed with it.
    pub newest: bool,
}

/// A key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// Its number.
    pub number: u32,
}

/// How far the rewriting of old segments has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewriting {
    /// Bytes of segments that are sealed with the newest key.
    pub done_bytes: u64,
    /// Bytes of all sealed segments.
    pub total_bytes: u64,
    /// Every segment is done.
    pub finished: bool,
    /// Keys that were destroyed, since nothing needs them any more.
    pub destroyed: Vec<u32>,
    /// Old keys that some file still needs: one that was set aside as damaged, for instance.
    pub kept: Vec<u32>,
}

/// What there is.
///
/// # Errors
/// When the journal's directory cannot be read.
pub fn list(keyring: &Keyring, journal_dir: &Path) -> Result<KeyList, Failure> {
    let used = in_use(journal_dir)?;
    let infos = keyring.list();
    let newest = infos.last().map(|info| info.number);
    let row = |info: &keys::KeyInfo| KeyRow {
        number: info.number.0,
        created_at: info.created_at,
        segments: used.iter().find(|(number, _)| *number == info.number).map_or(0, |(_, segments)| *segments),
        newest: Some(info.number) == newest,
    };
    Ok(KeyList {
        schema: "holdfast.keys/1".to_owned(),
        source: keyring.source().to_string(),
        keys: infos.iter().map(row).collect(),
    })
}

fn in_use(journal_dir: &Path) -> Result<Vec<(KeyNumber, u32)>, Failure> {
    keys_in_use(journal_dir, &StdDisk).map_err(|e| Failure::io("reading the segments in", journal_dir, &e))
}

/// The keyring and the open journal that is sealed with it.
pub struct Rotation {
    keyring: Mutex<Keyring>,
    journal: Journal,
    journal_dir: std::path::PathBuf,
}

impl Rotation {
    /// For the holder of the data directory's lock.
    pub fn new(keyring: Keyring, journal: Journal, journal_dir: std::path::PathBuf) -> Self {
        Self { keyring: Mutex::new(keyring), journal, journal_dir }
    }

    fn keyring(&self) -> MutexGuard<'_, Keyring> {
        // The keyring changes in memory only after it did on disk.
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(&self) -> Result<KeyList, Failure> {
        list(&self.keyring(), &self.journal_dir)
    }

    /// Makes a new key and begins a segment with it.
    ///
    /// # Errors
    /// When the key cannot be made durable: nothing was changed then. When the segment cannot be made, the next one
    /// takes the key.
    pub fn rotate(&self) -> Result<Rotated, Failure> {
        let mut keyring = self.keyring();
        let number = keyring.add(carrier::SystemClock.now()).map_err(|e| secrets::failure(&e))?;
        let taken = self.journal.use_keys(keyring.data_keys()).wait();
        taken.map_err(|e| {
            let text = format!("key {number} is there, and no segment could be begun with it: {}", chain(&e));
            Failure::new(
                text,
                "the next segment takes it; see that the disk has room, then run it again with --rewrite",
            )
        })?;
        tracing::info!(%number, "the journal is sealed with a new data key");
        Ok(Rotated { number: number.0 })
    }

    /// Writes one segment anew that an old key seals; when there is none, destroys the keys that nothing needs.
    ///
    /// # Errors
    /// When the disk fails or has no room for one more segment. Nothing is lost; it goes on where it was.
    pub fn rewrite_step(&self) -> Result<Rewriting, Failure> {
        let step = self.journal.reseal_next().map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        if let Some(progress) = step {
            let (done_bytes, total_bytes) = (progress.done_bytes, progress.total_bytes);
            return Ok(Rewriting { done_bytes, total_bytes, ..Rewriting::default() });
        }
        let mut keyring = self.keyring();
        let used = in_use(&self.journal_dir)?;
        let destroyed = keyring.destroy(|number| !used.iter().any(|(n, _)| *n == number));
        let destroyed = destroyed.map_err(|e| secrets::failure(&e))?;
        // The journal lets go of them too; what is left includes its newest, so no segment begins.
        self.journal.use_keys(keyring.data_keys()).wait().map_err(|e| Failure::new(chain(&e), e.next_step()))?;
        let mut kept = keyring.list();
        kept.pop();
        tracing::info!(?destroyed, "the journal is sealed with one data key");
        Ok(Rewriting {
            finished: true,
            destroyed: destroyed.iter().map(|n| n.0).collect(),
            kept: kept.iter().map(|info| info.number.0).collect(),
            ..Rewriting::default()
        })
    }
}
