//! Uploads in parts, which survive a broken connection and a restart.
//!
//! ```text
//!  uploads/<id>  --parts appended, fsync, then the offset in the table-->  whole  --hash, rename-->  files/<hash>
//! ```
//!
//! Invariants
//! - Everything below a session's offset is durable. What lies behind it is cut off before the next part.
//! - Only one request at a time adds to a session, and only its user's.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::PathBuf;

use model::Id;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::access::require_in_channel;
use crate::channels::require_channel;
use crate::core::{Core, lock};
use crate::error::{AppError, AppResult};
use crate::files::{StagedFile, base_name};
use crate::rows::{all, count, get, run, text};
use crate::types::{FileInfo, Session, blank_id};

/// A first part may be smaller only if it is the whole file (the original's rule, from its object stores).
const FIRST_PART_MIN: u64 = 5 * 1024 * 1024;
/// A part is made durable after so many bytes: what a broken connection costs at most.
const SAVED_EVERY: u64 = 1024 * 1024;
/// Open sessions of one user. Clients upload a few files at a time; each may hold a file's size on the disk.
const OPEN_MAX: i64 = 20;
/// A session that was not finished by then is forgotten: two days, as in the original.
const LIFE_MS: i64 = 2 * 24 * 60 * 60 * 1_000;

/// An upload that is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UploadSession {
    pub(crate) id: Id,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) create_at: i64,
    pub(crate) user_id: Id,
    /// None for an archive that is to be imported.
    #[serde(with = "blank_id")]
    pub(crate) channel_id: Option<Id>,
    pub(crate) filename: String,
    pub(crate) file_size: u64,
    pub(crate) file_offset: u64,
    pub(crate) remote_id: &'static str,
    pub(crate) req_file_id: &'static str,
}

/// `POST /uploads`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NewUpload {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) channel_id: String,
    pub(crate) filename: String,
    pub(crate) file_size: i64,
}

/// Sessions to which a request adds at the moment.
pub(crate) type Busy = std::sync::Mutex<BTreeSet<Id>>;

/// A request's turn to add to a session.
struct Turn {
    core: Core,
    id: Id,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.core.0.uploads).remove(&self.id);
    }
}

/// What came of an upload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Whole {
    /// A file of a channel.
    File(FileInfo),
    /// An archive that can be imported, by the session that brought it.
    Archive(UploadSession),
}

/// A session that takes a part: write the bytes, then [`Part::finish`]. What was written when it is dropped is kept up to the
/// last whole mebibyte.
pub(crate) struct Part {
    turn: Turn,
    file: File,
    session: UploadSession,
    /// Bytes on the disk, of which those below `session.file_offset` are durable.
    written: u64,
}

impl Write for Part {
    /// More than the file's size is taken and dropped, as the original does.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = self.session.file_size - self.written;
        let take = usize::try_from(room).unwrap_or(usize::MAX).min(buf.len());
        if take == 0 {
            return Ok(buf.len());
        }
        if !self.turn.core.space().admits_files() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(&buf[..take])?;
        self.written += take as u64;
        let is_past_first = self.session.file_offset > 0 || self.written >= FIRST_PART_MIN;
        if is_past_first && self.written - self.session.file_offset >= SAVED_EVERY {
            self.save()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Part {
    /// Bytes that the session still takes.
    pub(crate) fn missing(&self) -> u64 {
        self.session.file_size - self.written
    }

    fn save(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let (id, offset) = (self.session.id, self.written);
        let sql = "UPDATE uploads SET file_offset = ?2 WHERE id = ?1";
        let save = |tx: &mut crate::core::Tx<'_>| run(&tx.db, sql, params![id.as_str(), offset as i64]);
        self.turn.core.write(save).map_err(io::Error::other)?;
        self.session.file_offset = offset;
        Ok(())
    }

    /// Puts a whole archive where imports are.
    fn finish_import(&self, core: &Core) -> AppResult<Whole> {
        let s = &self.session;
        let target = core.import_path(s.id, &s.filename);
        fs::rename(core.upload_path(s.id), &target)?;
        File::open(core.imports_dir())?.sync_all()?;
        core.write(|tx| run(&tx.db, "DELETE FROM uploads WHERE id = ?1", [s.id.as_str()]))?;
        Ok(Whole::Archive(s.clone()))
    }

    /// Makes the part durable; what it is, once it is whole.
    ///
    /// # Errors
    /// 400 for a first part that is too small, which is forgotten; when the disk or the store fails.
    pub(crate) fn finish(mut self) -> AppResult<Option<Whole>> {
        let whole = self.written == self.session.file_size;
        if self.session.file_offset == 0 && self.written < FIRST_PART_MIN && !whole {
            self.file.set_len(0)?;
            let message = format!("Failed to upload data. First part must be at least {FIRST_PART_MIN} Bytes.");
            let id = "app.upload.upload_data.first_part_too_small.app_error";
            return Err(AppError::bad("UploadData", id, message));
        }
        if self.written > self.session.file_offset {
            self.save()?;
        }
        if !whole {
            return Ok(None);
        }
        let core = self.turn.core.clone();
        let Some(channel) = self.session.channel_id else { return self.finish_import(&core).map(Some) };
        self.file.seek(SeekFrom::Start(0))?;
        let mut hash = blake3::Hasher::new();
        hash.update_reader(&mut self.file)?;
        let path = core.upload_path(self.session.id);
        let staged = StagedFile::durable(path, *hash.finalize().as_bytes(), self.written);
        let UploadSession { id, user_id, filename, .. } = self.session.clone();
        core.admit(&staged, filename, user_id, channel, |db| {
            run(db, "DELETE FROM uploads WHERE id = ?1", [id.as_str()]).map(drop)
        })
        .map(|info| Some(Whole::File(info)))
    }
}

fn kind_of(channel: Option<Id>) -> &'static str {
    if channel.is_some() { "attachment" } else { "import" }
}

impl Core {
    fn upload_path(&self, id: Id) -> PathBuf {
        self.0.dir.join("uploads").join(id.as_str())
    }

    /// Opens a session.
    ///
    /// # Errors
    /// 403 without permission, 400 for what no file can be, 413 for too large a file, 429 with too many open.
    pub(crate) fn create_upload(&self, by: &Session, new: &NewUpload) -> AppResult<UploadSession> {
        const WHERE: &str = "createUpload";
        let is_import = new.kind == "import";
        if is_import {
            crate::access::require(WHERE, by, "manage_system")?;
        }
        let forbidden = || AppError::permissions(WHERE, "upload_file");
        let channel: Option<Id> = match is_import {
            true => None,
            false => Some(new.channel_id.parse().map_err(|_| forbidden())?),
        };
        let invalid = |field: &str| {
            let id = format!("model.upload_session.is_valid.{field}.app_error");
            AppError::bad("UploadSession.IsValid", id, format!("Invalid value for {field}."))
        };
        let deleted = self.read(|db| {
            let Some(channel) = channel else { return Ok(false) };
            let c = require_channel(db, channel).map_err(|_| forbidden())?.channel;
            require_in_channel(WHERE, db, by, &c, "upload_file")?;
            Ok::<_, AppError>(c.delete_at > 0)
        })?;
        let settings = self.settings();
        let max = if is_import { settings.max_import_bytes } else { settings.max_file_bytes };
        let file_size = u64::try_from(new.file_size).ok().filter(|n| *n > 0).ok_or_else(|| invalid("file_size"))?;
        if file_size > max {
            let message = format!("Unable to upload file. File is too large: more than {max} bytes.");
            return Err(AppError::new(WHERE, "api.upload.create.upload_too_large.app_error", message, 413));
        }
        let filename = base_name(&new.filename).ok_or_else(|| invalid("filename"))?;
        if deleted {
            let id = "app.upload.create.cannot_upload_to_deleted_channel.app_error";
            return Err(AppError::bad(WHERE, id, "Cannot upload to a deleted channel."));
        }
        self.require_room_for_files()?;
        self.forget_old_uploads()?;
        let session = self.write(|tx| {
            let sql = "SELECT count(*) FROM uploads WHERE user_id = ?1";
            if count(&tx.db, sql, [by.user_id.as_str()])? >= OPEN_MAX {
                let message = "There are too many unfinished uploads. Finish one, or wait until one is two days old.";
                return Err(AppError::new(WHERE, "holdfast.upload.too_many.app_error", message, 429));
            }
            let session = UploadSession {
                id: crate::core::random_id(),
                kind: kind_of(channel),
                create_at: tx.now,
                user_id: by.user_id,
                channel_id: channel,
                filename: filename.to_owned(),
                file_size,
                file_offset: 0,
                remote_id: "",
                req_file_id: "",
            };
            let sql = "INSERT INTO uploads (id, create_at, user_id, channel_id, filename, file_size, file_offset)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)";
            let s = &session;
            let (id, user, channel) = (s.id.as_str(), s.user_id.as_str(), text(&s.channel_id));
            run(&tx.db, sql, params![id, s.create_at, user, channel, s.filename, s.file_size as i64])?;
            Ok(session)
        })?;
        Ok(session)
    }

    /// How far a session is.
    ///
    /// # Errors
    /// 404, or 403 for those of others.
    pub(crate) fn upload_session(&self, by: &Session, id: Id) -> AppResult<UploadSession> {
        let session = self.read(|db| require_upload(db, id))?;
        if session.user_id != by.user_id && !by.is_system_admin() {
            let id = "api.upload.get_upload.forbidden.app_error";
            return Err(AppError::new("getUpload", id, "Failed to get upload.", 403));
        }
        Ok(session)
    }

    /// The open sessions of the asker.
    ///
    /// # Errors
    /// 403 for those of others.
    pub(crate) fn uploads_of(&self, by: &Session, user: Id) -> AppResult<Vec<UploadSession>> {
        if user != by.user_id {
            let id = "api.user.get_uploads_for_user.forbidden.app_error";
            return Err(AppError::new("getUploadsForUser", id, "Failed to get uploads.", 403));
        }
        let sql = "SELECT * FROM uploads WHERE user_id = ?1 ORDER BY create_at, id";
        self.read(|db| Ok(all(db, sql, [user.as_str()], upload_row)?))
    }

    /// Takes the turn to add to a session where it stands.
    ///
    /// # Errors
    /// 404; 403 for those of others or without permission any more; 400 while another request adds to it.
    pub(crate) fn begin_part(&self, by: &Session, id: Id) -> AppResult<Part> {
        const WHERE: &str = "uploadData";
        if !lock(&self.0.uploads).insert(id) {
            let message = "Unable to upload data: another request is uploading.";
            return Err(AppError::bad(WHERE, "app.upload.upload_data.concurrent.app_error", message));
        }
        let turn = Turn { core: self.clone(), id };
        let mut session = self.read(|db| {
            let session = require_upload(db, id)?;
            let channel = session.channel_id.map(|channel| require_channel(db, channel));
            if session.user_id != by.user_id {
                return Err(AppError::permissions(WHERE, "upload_file"));
            }
            match channel {
                Some(channel) => require_in_channel(WHERE, db, by, &channel?.channel, "upload_file")?,
                None => crate::access::require(WHERE, by, "manage_system")?,
            }
            Ok(session)
        })?;
        self.require_room_for_files()?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.upload_path(id))?;
        let len = file.metadata()?.len();
        // A power cut right at the end may have taken the file to its place without the row: it is sent again.
        session.file_offset = session.file_offset.min(len);
        file.set_len(session.file_offset)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Part { turn, file, written: session.file_offset, session })
    }

    /// Forgets sessions that are too old, and bytes of which no session knows.
    pub(crate) fn forget_old_uploads(&self) -> AppResult<()> {
        self.write(|tx| {
            let busy: Vec<String> = lock(&self.0.uploads).iter().map(Id::to_string).collect();
            let sql = "DELETE FROM uploads WHERE create_at < ?1 AND id NOT IN (SELECT value FROM json_each(?2))";
            let busy = serde_json::to_string(&busy).expect("texts become JSON");
            run(&tx.db, sql, params![tx.now - LIFE_MS, busy])?;
            Ok::<_, AppError>(())
        })?;
        // First the bytes, then the sessions: what is begun meanwhile is known.
        let entries: Vec<_> = fs::read_dir(self.0.dir.join("uploads"))?.flatten().collect();
        let known: Vec<String> =
            self.read(|db| Ok::<_, AppError>(all(db, "SELECT id FROM uploads", [], |r| r.get(0))?))?;
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let busy = name.parse().is_ok_and(|id| lock(&self.0.uploads).contains(&id));
            if !busy && !known.contains(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn require_upload(db: &Connection, id: Id) -> AppResult<UploadSession> {
    get(db, "SELECT * FROM uploads WHERE id = ?1", [id.as_str()], upload_row)?
        .ok_or_else(|| AppError::not_found("GetUpload", "app.upload.get.app_error"))
}

fn upload_row(r: &Row<'_>) -> rusqlite::Result<UploadSession> {
    let channel_id = crate::rows::opt_id(r, "channel_id")?;
    Ok(UploadSession {
        id: crate::rows::id(r, "id")?,
        kind: kind_of(channel_id),
        create_at: r.get("create_at")?,
        user_id: crate::rows::id(r, "user_id")?,
        channel_id,
        filename: r.get("filename")?,
        file_size: r.get::<_, i64>("file_size")? as u64,
        file_offset: r.get::<_, i64>("file_offset")? as u64,
        remote_id: "",
        req_file_id: "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Node;

    fn begin(node: &Node, by: &Session, channel: Id, size: u64) -> Id {
        let new = NewUpload {
            channel_id: channel.to_string(),
            filename: "C:\\maps\\big.bin".to_owned(),
            file_size: size as i64,
            ..NewUpload::default()
        };
        node.core.create_upload(by, &new).unwrap().id
    }

    fn bytes(len: u64) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn an_upload_goes_on_where_it_broke_off_also_after_a_restart() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let whole = bytes(7 * 1024 * 1024 + 5);
        let id = begin(&node, &alice, square.id, whole.len() as u64);
        let mut part = node.core.begin_part(&alice, id).unwrap();
        part.write_all(&whole[..5_500_000]).unwrap();
        // The process dies here: what was made durable counts, and the bytes behind it are cut off.
        drop(part);
        let node = node.reopened();
        let alice = node.login("alice");
        let at = node.core.upload_session(&alice, id).unwrap().file_offset;
        assert!((FIRST_PART_MIN..=5_500_000).contains(&at), "{at}");
        assert_eq!(node.core.uploads_of(&alice, alice.user_id).unwrap().len(), 1);
        let mut part = node.core.begin_part(&alice, id).unwrap();
        assert_eq!(part.missing(), whole.len() as u64 - at);
        part.write_all(&whole[at as usize..6_000_000]).unwrap();
        assert_eq!(part.finish().unwrap(), None);
        let mut part = node.core.begin_part(&alice, id).unwrap();
        part.write_all(&whole[6_000_000..]).unwrap();
        part.write_all(b"and more than was announced").unwrap();
        let Some(Whole::File(info)) = part.finish().unwrap() else { panic!("it is whole") };
        assert_eq!((info.name.as_str(), info.size), ("big.bin", whole.len() as u64));
        assert_eq!(fs::read(node.core.file_path(info.id).unwrap().unwrap()).unwrap(), whole);
        assert_eq!(node.core.upload_session(&alice, id).unwrap_err().status_code, 404);
        assert_eq!(fs::read_dir(node.dir.path().join("uploads")).unwrap().count(), 0);
    }

    #[test]
    fn a_small_first_part_is_refused_and_a_small_file_is_not() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let id = begin(&node, &alice, square.id, FIRST_PART_MIN + 1);
        let mut part = node.core.begin_part(&alice, id).unwrap();
        let again = node.core.begin_part(&alice, id).map(drop).unwrap_err();
        assert_eq!(again.id, "app.upload.upload_data.concurrent.app_error");
        part.write_all(&bytes(FIRST_PART_MIN - 1)).unwrap();
        let error = part.finish().unwrap_err();
        assert_eq!(
            (error.status_code, error.id.as_ref()),
            (400, "app.upload.upload_data.first_part_too_small.app_error")
        );
        assert_eq!(node.core.begin_part(&alice, id).unwrap().missing(), FIRST_PART_MIN + 1);
        let id = begin(&node, &alice, square.id, 3);
        let mut part = node.core.begin_part(&alice, id).unwrap();
        part.write_all(b"abc").unwrap();
        assert!(matches!(part.finish().unwrap(), Some(Whole::File(info)) if info.size == 3));
    }

    #[test]
    fn sessions_are_their_users_few_and_forgotten_after_two_days() {
        let node = Node::new(1);
        let (alice, mallory) = (node.user("alice"), node.user("mallory"));
        let (team, square) = node.team(&alice, "mission");
        node.core.add_team_member(&mallory, team.id, mallory.user_id).unwrap();
        let id = begin(&node, &alice, square.id, 10);
        assert_eq!(node.core.upload_session(&mallory, id).unwrap_err().status_code, 403);
        assert_eq!(node.core.uploads_of(&mallory, alice.user_id).unwrap_err().status_code, 403);
        assert_eq!(node.core.begin_part(&mallory, id).map(drop).unwrap_err().status_code, 403);
        let mut part = node.core.begin_part(&alice, id).unwrap();
        part.write_all(b"half").unwrap();
        drop(part);
        for _ in 1..OPEN_MAX {
            begin(&node, &alice, square.id, 10);
        }
        let new =
            NewUpload { channel_id: square.id.to_string(), filename: "x".into(), file_size: 1, ..NewUpload::default() };
        assert_eq!(node.core.create_upload(&alice, &new).unwrap_err().status_code, 429);
        node.advance(LIFE_MS + 1);
        node.core.create_upload(&alice, &new).unwrap();
        assert_eq!(node.core.uploads_of(&alice, alice.user_id).unwrap().len(), 1);
        assert_eq!(fs::read_dir(node.dir.path().join("uploads")).unwrap().count(), 0);
    }
}
