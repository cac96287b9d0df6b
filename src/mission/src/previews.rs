//! Previews and thumbnails on disk, made of a file's bytes when somebody first looks at them.
//!
//! ```text
//!  files/<hash>  --images::previews-->  previews/<2 hex>/<hash>.preview, .thumbnail     and the mini preview in the row
//! ```
//!
//! They can always be made again, so nothing depends on them, and they go with the bytes that they were made of.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use model::Id;
use rusqlite::params;

use crate::FileAvailability;
use crate::core::Core;
use crate::error::AppResult;
use crate::images::{self, Made};
use crate::rows::{get, run};
use crate::types::{FileInfo, Session};

/// Larger files are not read for a preview. A picture of as many pixels as are decoded is smaller, but for uncompressed ones.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is shown instead of a whole picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Preview,
    Thumbnail,
}

impl Shown {
    pub(crate) const ALL: [Self; 2] = [Self::Preview, Self::Thumbnail];

    fn name(self) -> &'static str {
        match self {
            Self::Preview => "preview",
            Self::Thumbnail => "thumbnail",
        }
    }
}

/// Is there a preview of a file?
#[derive(Debug)]
pub(crate) enum PreviewOf {
    /// It is this file, of this MIME type.
    Here { info: FileInfo, file: File, mime_type: &'static str },
    /// It can be made: [`Core::make_previews`].
    ToBeMade,
    /// The file's bytes have not arrived.
    NotHereYet { info: FileInfo },
    /// The file is no picture that can be shown.
    None,
}

/// Columns of `files.preview`.
const MADE: u8 = 1;
const IMPOSSIBLE: u8 = 2;

/// May there be a preview, by what the row says? 0 is not known yet.
pub(crate) fn may_have(column: u8, info: &FileInfo, is_here: bool) -> bool {
    is_here && column != IMPOSSIBLE && images::is_previewable(&info.mime_type, info.width, info.height)
}

impl Core {
    pub(crate) fn preview_path(&self, hash: &str, shown: Shown) -> PathBuf {
        self.0.dir.join("previews").join(&hash[..2]).join(format!("{hash}.{}", shown.name()))
    }

    /// The preview of a file, if it was made.
    ///
    /// # Errors
    /// 404, or 403 when the file's channel is not the asker's.
    pub(crate) fn preview(&self, by: &Session, id: Id, shown: Shown) -> AppResult<PreviewOf> {
        let info = match self.open_file(by, id)? {
            FileAvailability::Here { info, .. } => info,
            FileAvailability::NotHereYet { info } => return Ok(PreviewOf::NotHereYet { info }),
        };
        if !info.has_preview_image {
            return Ok(PreviewOf::None);
        }
        let Some(hash) = self.hash_of(id)? else { return Ok(PreviewOf::NotHereYet { info }) };
        let Ok(mut file) = File::open(self.preview_path(&hash, shown)) else { return Ok(PreviewOf::ToBeMade) };
        let mime_type = {
            let mut first = [0];
            file.read_exact(&mut first)?;
            io::Seek::rewind(&mut file)?;
            // Only PNG begins so; everything else is made as JPEG.
            if first == [0x89] { "image/png" } else { "image/jpeg" }
        };
        Ok(PreviewOf::Here { info, file, mime_type })
    }

    /// Makes the previews of a file where they are missing. Takes long and much memory: one at a time.
    ///
    /// # Errors
    /// When the disk or the store fails; there are none then.
    pub(crate) fn make_previews(&self, id: Id) -> AppResult<()> {
        match self.hash_of(id)? {
            Some(hash) => self.make_previews_of(&hash),
            None => Ok(()),
        }
    }

    fn make_previews_of(&self, hash: &str) -> AppResult<()> {
        let paths = Shown::ALL.map(|shown| self.preview_path(hash, shown));
        if paths.iter().all(|path| path.exists()) {
            return Ok(());
        }
        let made = self.read_for_preview(hash)?.and_then(|bytes| images::previews(&bytes));
        let (column, mini) = match &made {
            Some(made) => (MADE, data_encoding::BASE64.encode(&made.mini)),
            None => (IMPOSSIBLE, String::new()),
        };
        if let Some(made) = &made {
            for (path, made) in paths.iter().zip([&made.preview, &made.thumbnail]) {
                self.write_preview(path, made)?;
            }
        }
        let sql = "UPDATE files SET preview = ?2, mini_preview = ?3 WHERE hash = ?1 AND hash <> ''";
        let rows = self.write(|tx| run(&tx.db, sql, params![hash, column, mini]))?;
        if rows == 0 {
            // The file was purged meanwhile.
            self.remove_previews(hash)?;
        }
        Ok(())
    }

    /// Removes what was made of these bytes.
    pub(crate) fn remove_previews(&self, hash: &str) -> io::Result<()> {
        for path in Shown::ALL.map(|shown| self.preview_path(hash, shown)) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Err(_) => {}
                Ok(()) => File::open(path.parent().expect("a preview lies in a folder"))?.sync_all()?,
            }
        }
        Ok(())
    }

    fn hash_of(&self, id: Id) -> AppResult<Option<String>> {
        let sql = "SELECT hash FROM files WHERE id = ?1 AND hash <> ''";
        self.read(|db| Ok(get(db, sql, [id.as_str()], |r| r.get(0))?))
    }

    fn read_for_preview(&self, hash: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.blob_path(hash)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if file.metadata()?.len() > FILE_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write_preview(&self, path: &std::path::Path, made: &Made) -> io::Result<()> {
        let mut staged = self.stage()?;
        staged.write_all(&made.bytes)?;
        let staged = staged.finish()?;
        fs::create_dir_all(path.parent().expect("a preview lies in a folder"))?;
        fs::rename(staged.path(), path)
    }
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;
    use crate::images::tests::{picture, turned};
    use crate::purges::NewPurge;
    use crate::testkit::{Node, words};

    fn share(node: &Node, by: &Session, channel: Id, name: &str, bytes: &[u8]) -> (Id, Id) {
        let file = node.upload(by, channel, name, bytes);
        let mut new = words(channel, None, "look");
        new.file_ids = vec![file.to_string()];
        (file, node.core.create_post(by, &new, true).unwrap().id)
    }

    fn shown(node: &Node, by: &Session, file: Id) -> (Vec<u8>, Vec<u8>) {
        node.core.make_previews(file).unwrap();
        let read = |shown| match node.core.preview(by, file, shown).unwrap() {
            PreviewOf::Here { mut file, .. } => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            }
            other @ (PreviewOf::ToBeMade | PreviewOf::NotHereYet { .. } | PreviewOf::None) => panic!("{other:?}"),
        };
        (read(Shown::Preview), read(Shown::Thumbnail))
    }

    #[test]
    fn a_picture_has_previews_here_and_once_its_bytes_came_there() {
        let (a, b) = (Node::new(1), Node::new(2));
        let alice = a.user("alice");
        let (_, square) = a.team(&alice, "mission");
        b.apply(&a.drain());
        let reader = b.enrol("alice");
        let (file, post) = share(&a, &alice, square.id, "photo.jpg", &turned(300, 200, 6));
        let info = a.core.file_info(&alice, file).unwrap();
        assert_eq!((info.width, info.height, info.has_preview_image), (200, 300, true));
        let (preview, thumbnail) = shown(&a, &alice, file);
        let mini = a.core.file_info(&alice, file).unwrap().mini_preview.unwrap();
        assert!(data_encoding::BASE64.decode(mini.as_bytes()).unwrap().starts_with(&[0xff, 0xd8]));
        let mut sent = a.drain();
        let bytes = sent.pop().unwrap();
        b.apply(&sent);
        let early = &b.core.post(&reader, post, false).unwrap().metadata.files[0];
        assert!(!early.has_preview_image && early.width == 200);
        assert!(matches!(b.core.preview(&reader, file, Shown::Preview).unwrap(), PreviewOf::NotHereYet { .. }));
        b.apply(&[bytes]);
        assert!(b.core.post(&reader, post, false).unwrap().metadata.files[0].has_preview_image);
        assert!(matches!(b.core.preview(&reader, file, Shown::Preview).unwrap(), PreviewOf::ToBeMade));
        assert_eq!(shown(&b, &reader, file), (preview, thumbnail));
        // Lost with a disk that was restored without them: made once more.
        fs::remove_dir_all(b.dir.path().join("previews")).unwrap();
        assert!(matches!(b.core.preview(&reader, file, Shown::Thumbnail).unwrap(), PreviewOf::ToBeMade));
        shown(&b, &reader, file);
    }

    #[test]
    fn what_is_no_picture_has_none_and_what_only_looks_like_one_is_found_out() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let mut broken = picture(60, 60, ImageFormat::Png);
        let middle = broken.len() / 2;
        broken.truncate(middle);
        for (name, bytes, promised) in [
            ("note.txt", b"hello".to_vec(), false),
            ("photo.jpg", b"not a picture".to_vec(), false),
            ("drawing.svg", b"<svg/>".to_vec(), false),
            ("broken.png", broken, true),
        ] {
            let file = node.upload(&alice, square.id, name, &bytes);
            assert_eq!(node.core.file_info(&alice, file).unwrap().has_preview_image, promised, "{name}");
            node.core.make_previews(file).unwrap();
            assert!(!node.core.file_info(&alice, file).unwrap().has_preview_image, "{name}");
            assert!(matches!(node.core.preview(&alice, file, Shown::Preview).unwrap(), PreviewOf::None), "{name}");
        }
    }

    #[test]
    fn a_purge_takes_previews_along_also_those_that_are_made_meanwhile() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let (file, post) = share(&node, &alice, square.id, "a.png", &picture(50, 50, ImageFormat::Png));
        shown(&node, &alice, file);
        let hash = node.core.hash_of(file).unwrap().unwrap();
        let purge = |post: Id| {
            let new = NewPurge { posts: vec![post], by: "duty".into(), reason: "test".into(), ..NewPurge::default() };
            node.core.order_purge(&new).unwrap();
            node.core.replica().scrub_store().unwrap();
        };
        purge(post);
        for shown in Shown::ALL {
            assert!(!node.core.preview_path(&hash, shown).exists());
        }
        let kept = node.core.read(|db| {
            get(db, "SELECT mini_preview FROM files WHERE id = ?1", [file.as_str()], |r| r.get::<_, String>(0))
        });
        assert_eq!(kept.unwrap(), Some(String::new()));
        // Bytes that are read for a preview while they are purged: nothing is left of it.
        let (other, post) = share(&node, &alice, square.id, "b.png", &picture(70, 50, ImageFormat::Png));
        let hash = node.core.hash_of(other).unwrap().unwrap();
        let bytes = fs::read(node.core.blob_path(&hash)).unwrap();
        purge(post);
        fs::create_dir_all(node.core.blob_path(&hash).parent().unwrap()).unwrap();
        fs::write(node.core.blob_path(&hash), bytes).unwrap();
        node.core.make_previews_of(&hash).unwrap();
        assert!(Shown::ALL.iter().all(|shown| !node.core.preview_path(&hash, *shown).exists()));
    }
}
