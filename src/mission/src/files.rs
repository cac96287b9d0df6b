//! File bytes on disk, named by what they are.
//!
//! ```text
//!  staging/<random>  --write, fsync-->  --rename, fsync directory-->  files/<2 hex>/<64 hex of BLAKE3>
//! ```
//!
//! A row refers to bytes only after they are durable under their final name. Equal bytes lie there once.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use model::Id;
use rusqlite::params;

use crate::access::{require, require_in_channel, require_read};
use crate::bookmarks::shows_file;
use crate::channels::require_channel;
use crate::core::{Core, random_id};
use crate::error::{AppError, AppResult};
use crate::images;
use crate::posts::post_row_by_id;
use crate::previews::may_have;
use crate::rows::{file_info, get, run};
use crate::space::is_full;
use crate::types::{FileInfo, Session};

const NAME_MAX_RUNES: usize = 256;

/// Bytes on their way into the store.
pub struct StagedWriter {
    file: File,
    staged: StagedFile,
    hash: blake3::Hasher,
}

/// Durable bytes that nothing refers to yet. Dropped unused, they are removed.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    hash: [u8; 32],
    bytes: u64,
}

impl StagedFile {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3 over the bytes.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Bytes that were made durable elsewhere.
    pub(crate) fn durable(path: PathBuf, hash: [u8; 32], bytes: u64) -> Self {
        Self { path, hash, bytes }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // After it moved into the store there is nothing here; a leftover is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl Write for StagedWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hash.update(&buf[..n]);
        self.staged.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl StagedWriter {
    /// Makes the bytes durable.
    ///
    /// # Errors
    /// When the disk fails; the bytes are discarded.
    pub fn finish(self) -> io::Result<StagedFile> {
        self.file.sync_all()?;
        let mut staged = self.staged;
        staged.hash = *self.hash.finalize().as_bytes();
        Ok(staged)
    }
}

/// Are the bytes of a file here?
#[derive(Clone, Debug, PartialEq)]
pub enum FileAvailability {
    /// They lie at `path`.
    Here {
        /// What is known of it.
        info: FileInfo,
        /// Where.
        path: PathBuf,
    },
    /// The post arrived ahead of its file; the bytes will follow.
    NotHereYet {
        /// What is known of it.
        info: FileInfo,
    },
}

/// An upload in progress: write the bytes, then [`Upload::finish`]. Dropping it discards them.
pub struct Upload {
    core: Core,
    writer: StagedWriter,
    user: Id,
    channel: Id,
    name: String,
}

impl Write for Upload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let max = self.core.settings().max_file_bytes;
        if self.writer.staged.bytes.saturating_add(buf.len() as u64) > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, TooLarge(max)));
        }
        if !self.core.space().admits_files() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The upload exceeds the configured size; inside the `io::Error` of [`Upload`]'s `write`.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the file is larger than the permitted {0} bytes")]
pub struct TooLarge(pub u64);

impl From<io::Error> for AppError {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::FileTooLarge {
            return Self::new(
                "uploadFile",
                "api.file.upload_file.too_large_detailed.app_error",
                "Unable to upload file. File is too large.",
                413,
            )
            .detail(e);
        }
        if is_full(&e) {
            return Self::disk_full("uploadFile");
        }
        Self::new("uploadFile", "api.file.write_file.app_error", "Unable to write the file; nothing was changed.", 500)
            .detail(e)
    }
}

/// Bytes in their place, that no row refers to yet.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    hash: String,
    name: String,
    extension: String,
    size: u64,
    mime_type: String,
    width: u32,
    height: u32,
}

impl Kept {
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// A file of these bytes that belongs to no post yet.
    pub(crate) fn info(&self, id: Id, user: Id, channel: Id, at: i64) -> FileInfo {
        let mut info = FileInfo {
            id,
            user_id: user,
            post_id: None,
            channel_id: channel,
            create_at: at,
            update_at: at,
            delete_at: 0,
            name: self.name.clone(),
            extension: self.extension.clone(),
            size: self.size,
            mime_type: self.mime_type.clone(),
            width: self.width,
            height: self.height,
            has_preview_image: false,
            mini_preview: None,
            remote_id: String::new(),
            archived: false,
        };
        info.has_preview_image = may_have(0, &info, true);
        info
    }
}

impl Upload {
    /// Makes the file durable and known. It belongs to no post yet.
    ///
    /// # Errors
    /// When the disk or the store fails; nothing is kept.
    pub fn finish(self) -> AppResult<FileInfo> {
        let Self { core, writer, user, channel, name } = self;
        core.admit(&writer.finish()?, name, user, channel, |_| Ok(()))
    }
}

/// The name of a file without folders, which clients on Windows send; `None` for what is no name.
pub(crate) fn base_name(name: &str) -> Option<&str> {
    let name = name.rsplit(['/', '\\']).next().unwrap_or("").trim();
    let is_name = !name.is_empty() && name != "." && name != ".." && name.chars().count() <= NAME_MAX_RUNES;
    is_name.then_some(name)
}

/// Inserts the row, or fills in what a row made from a post's stub does not know yet.
pub(crate) fn put_file(db: &rusqlite::Connection, f: &FileInfo, hash: &str) -> rusqlite::Result<()> {
    run(
        db,
        "INSERT INTO files (id, user_id, post_id, channel_id, create_at, update_at, delete_at, name, extension, size,
            mime_type, width, height, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (id) DO UPDATE SET hash = CASE WHEN files.hash = '' THEN excluded.hash ELSE files.hash END",
        params![
            f.id.as_str(),
            f.user_id.as_str(),
            crate::rows::text(&f.post_id),
            f.channel_id.as_str(),
            f.create_at,
            f.update_at,
            f.delete_at,
            f.name,
            f.extension,
            f.size as i64,
            f.mime_type,
            f.width,
            f.height,
            hash,
        ],
    )?;
    Ok(())
}

impl Core {
    /// Where bytes with this hash lie.
    pub(crate) fn blob_path(&self, hash: &str) -> PathBuf {
        self.0.dir.join("files").join(&hash[..2]).join(hash)
    }

    /// Opens a place for bytes.
    pub(crate) fn stage(&self) -> io::Result<StagedWriter> {
        let path = self.0.dir.join("staging").join(random_id().as_str());
        let file = File::create_new(&path)?;
        let staged = StagedFile { path, hash: [0; 32], bytes: 0 };
        Ok(StagedWriter { file, staged, hash: blake3::Hasher::new() })
    }

    /// Moves durable bytes to their place; their hash.
    pub(crate) fn keep(&self, staged: &StagedFile) -> io::Result<String> {
        let hash = data_encoding::HEXLOWER.encode(&staged.hash);
        let target = self.blob_path(&hash);
        let folder = target.parent().expect("a blob lies in a folder").to_owned();
        if !folder.exists() {
            fs::create_dir_all(&folder)?;
            File::open(self.0.dir.join("files"))?.sync_all()?;
        }
        fs::rename(&staged.path, &target)?;
        File::open(folder)?.sync_all()?;
        Ok(hash)
    }

    /// Makes durable bytes a file that belongs to no post yet, with what else changes in the same transaction.
    pub(crate) fn admit(
        &self,
        staged: &StagedFile,
        name: String,
        user: Id,
        channel: Id,
        besides: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()>,
    ) -> AppResult<FileInfo> {
        let kept = self.keep_as(staged, name)?;
        self.write(|tx| {
            let info = kept.info(tx.mint(), user, channel, tx.now);
            put_file(&tx.db, &info, &kept.hash)?;
            besides(&tx.db)?;
            Ok(info)
        })
    }

    /// Moves durable bytes to their place, as what a file of this name is.
    pub(crate) fn keep_as(&self, staged: &StagedFile, name: String) -> AppResult<Kept> {
        let head = images::look(BufReader::new(File::open(staged.path())?));
        let extension = Path::new(&name).extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        let mime_type = mime_guess::from_ext(&extension).first_or_octet_stream().to_string();
        let (width, height) = head.map_or((0, 0), |head| (head.width, head.height));
        Ok(Kept { hash: self.keep(staged)?, name, extension, size: staged.bytes, mime_type, width, height })
    }

    /// Starts an upload to a channel.
    ///
    /// # Errors
    /// 403 without permission, 400 for a bad name.
    pub fn begin_upload(&self, by: &Session, channel: Id, name: &str) -> AppResult<Upload> {
        self.read(|db| {
            let c = require_channel(db, channel).map_err(|_| AppError::permissions("uploadFile", "upload_file"))?;
            require_in_channel("uploadFile", db, by, &c.channel, "upload_file")
        })?;
        let name = base_name(name).ok_or_else(|| AppError::body_param("uploadFile", "filename"))?;
        self.require_room_for_files()?;
        let writer = self.stage()?;
        Ok(Upload { core: self.clone(), writer, user: by.user_id, channel, name: name.to_owned() })
    }

    /// What is known of a file.
    ///
    /// # Errors
    /// 404, or 403 when its channel is not the asker's.
    pub fn file_info(&self, by: &Session, id: Id) -> AppResult<FileInfo> {
        Ok(self.file(by, id)?.0)
    }

    /// A file's bytes, if they are here.
    ///
    /// # Errors
    /// As [`Core::file_info`].
    pub fn open_file(&self, by: &Session, id: Id) -> AppResult<FileAvailability> {
        let (info, hash) = self.file(by, id)?;
        if hash.is_empty() {
            return Ok(FileAvailability::NotHereYet { info });
        }
        Ok(FileAvailability::Here { path: self.blob_path(&hash), info })
    }

    fn file(&self, by: &Session, id: Id) -> AppResult<(FileInfo, String)> {
        self.read(|db| {
            let sql = "SELECT * FROM files WHERE id = ?1 AND delete_at = 0";
            let (info, hash) = get(db, sql, [id.as_str()], |r| Ok((file_info(r)?, r.get::<_, String>("hash")?)))?
                .ok_or_else(|| AppError::not_found("GetFileInfo", "api.file.get_file_info.app_error"))?;
            match info.post_id {
                Some(post) => {
                    let channel = post_row_by_id(db, post)?.map_or(info.channel_id, |p| p.channel_id);
                    require_read("getFile", db, by, &require_channel(db, channel)?.channel)?;
                }
                None if info.user_id == by.user_id => {}
                None if shows_file(db, &info)? => {
                    require_read("getFile", db, by, &require_channel(db, info.channel_id)?.channel)?;
                }
                None => require("getFile", by, "manage_system")?,
            }
            Ok((info, hash))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Node;

    #[test]
    fn an_empty_file_is_a_file_and_equal_bytes_lie_once() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let empty = node.upload(&alice, square.id, "صفر.txt", b"");
        let path = node.core.file_path(empty).unwrap().unwrap();
        assert_eq!(fs::metadata(path).unwrap().len(), 0);
        assert_eq!(node.core.file_info(&alice, empty).unwrap().name, "صفر.txt");
        let (one, two) = (b"same", b"same");
        let one = node.upload(&alice, square.id, "one", one);
        let two = node.upload(&alice, square.id, "two", two);
        assert_ne!(one, two);
        assert_eq!(node.core.file_path(one).unwrap(), node.core.file_path(two).unwrap());
    }

    #[test]
    fn more_than_the_limit_is_refused_and_leaves_nothing() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let mut upload = node.core.begin_upload(&alice, square.id, "big.bin").unwrap();
        let piece = vec![0; 1 << 20];
        for _ in 0..100 {
            upload.write_all(&piece).unwrap();
        }
        let error = AppError::from(upload.write_all(b"x").unwrap_err());
        assert_eq!((error.status_code, error.id.as_ref()), (413, "api.file.upload_file.too_large_detailed.app_error"));
        drop(upload);
        assert_eq!(fs::read_dir(node.dir.path().join("staging")).unwrap().count(), 0);
        assert_eq!(node.core.stats().unwrap().files, 0);
    }

    #[test]
    fn a_picture_knows_its_size_and_a_stranger_does_not_see_it() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let stranger = node.user("mallory");
        let (_, square) = node.team(&alice, "mission");
        let gif = crate::images::tests::picture(2, 3, image::ImageFormat::Gif);
        let file = node.upload(&alice, square.id, "../../dot.gif", &gif);
        let info = node.core.file_info(&alice, file).unwrap();
        assert_eq!((info.width, info.height, info.mime_type.as_str()), (2, 3, "image/gif"));
        assert_eq!(info.name, "dot.gif");
        assert_eq!(node.core.file_info(&stranger, file).unwrap_err().status_code, 403);
    }
}
