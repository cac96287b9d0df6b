//! Files whose bytes are not here and that somebody wants: asked for by a reader or by the operator, kept until they come.

use std::sync::Arc;

use model::{Id, Precedence};
use rusqlite::params;
use tokio::sync::watch;

use crate::core::{Core, StoreError};
use crate::rows::{all, get, run};

/// What it takes until the bytes of a file are here; `None` when nothing is known of it. Asked when a reader wants a file, so
/// it may read the journal.
pub type FileOutlookOf = Arc<dyn Fn(Id) -> Option<FileOutlook> + Send + Sync>;

/// What it takes until the bytes of a file are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOutlook {
    /// Bytes that are missing.
    pub missing_bytes: u64,
    /// Seconds of an open link, at best and at worst.
    pub seconds: (u64, u64),
}

/// A file, as far as its request is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileBrief {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its type.
    pub mime_type: String,
    /// Its bytes are here.
    pub is_here: bool,
    /// In which class it was asked for, if it was and is not here yet.
    pub requested: Option<Precedence>,
}

impl Core {
    /// Who knows how long a file takes. Only the first call counts.
    pub fn set_file_outlook(&self, outlook: FileOutlookOf) {
        self.0.file_outlook.get_or_init(|| outlook);
    }

    pub(crate) fn file_outlook(&self, file: Id) -> Option<FileOutlook> {
        self.0.file_outlook.get().and_then(|outlook| outlook(file))
    }

    /// What is known of a file; `None` when there is none of this id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn file_brief(&self, file: Id) -> Result<Option<FileBrief>, StoreError> {
        let sql = "SELECT name, size, mime_type, hash <> '', (SELECT class FROM file_requests WHERE file_id = files.id)
                   FROM files WHERE id = ?1 AND delete_at = 0";
        self.read(|db| {
            get(db, sql, [file.as_str()], |r| {
                let (is_here, class): (bool, Option<u8>) = (r.get(3)?, r.get(4)?);
                Ok(FileBrief {
                    name: r.get(0)?,
                    size: r.get::<_, i64>(1)?.max(0) as u64,
                    mime_type: r.get(2)?,
                    is_here,
                    requested: class.filter(|_| !is_here).and_then(Precedence::from_index),
                })
            })
            .map_err(StoreError::from)
        })
    }

    /// Somebody wants the bytes of a file; a more urgent wish replaces a lesser one. False when they are here, or there is
    /// no such file.
    ///
    /// # Errors
    /// When the store cannot be written; nothing is asked for then.
    pub fn request_file(&self, file: Id, class: Precedence) -> Result<bool, StoreError> {
        let changed = self.write(|tx| {
            let asked = run(
                &tx.db,
                "INSERT INTO file_requests (file_id, class)
                 SELECT id, ?2 FROM files WHERE id = ?1 AND hash = '' AND delete_at = 0
                 ON CONFLICT (file_id) DO UPDATE SET class = min(class, excluded.class)",
                params![file.as_str(), class as u8],
            )?;
            Ok::<_, StoreError>(asked > 0)
        })?;
        if changed {
            self.0.file_requests_changed.send_modify(|n| *n += 1);
        }
        Ok(changed)
    }

    /// Files that somebody wants and that are not here, and in which class. What has come is forgotten.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn file_requests(&self) -> Result<Vec<(Id, Precedence)>, StoreError> {
        let sql = "SELECT file_id, class, hash FROM file_requests LEFT JOIN files ON files.id = file_requests.file_id";
        let rows: Vec<(String, u8, Option<String>)> =
            self.read(|db| all(db, sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).map_err(StoreError::from))?;
        let (open, done): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(.., hash)| hash.as_ref().is_some_and(String::is_empty));
        if !done.is_empty() {
            self.write(|tx| {
                for (file, ..) in &done {
                    run(&tx.db, "DELETE FROM file_requests WHERE file_id = ?1", [file])?;
                }
                Ok::<_, StoreError>(())
            })?;
        }
        let request = |(file, class, _): (String, u8, _)| Some((file.parse().ok()?, Precedence::from_index(class)?));
        Ok(open.into_iter().filter_map(request).collect())
    }

    /// Changes whenever a file was asked for.
    pub fn file_requests_changed(&self) -> watch::Receiver<u64> {
        self.0.file_requests_changed.subscribe()
    }
}
