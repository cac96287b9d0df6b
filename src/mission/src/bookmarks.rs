//! Bookmarks of channels: links and files above the posts.

use model::event::{BookmarkState, FileState};
use model::{Event, Id, UnixMillis, Version};
use rusqlite::{Connection, Row, params};

use crate::access::{require_in_channel, require_read};
use crate::channels::{member, require_channel};
use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::posts::{files_of, stub_of};
use crate::rows::{all, count, exists, get, id, opt_id, put_version, run, text};
use crate::types::{Bookmark, BookmarkChange, BookmarkPatch, Channel, FileInfo, NewBookmark, Session};

/// Most bookmarks of one channel (the real server's number).
const BOOKMARKS_MAX: usize = 50;
const NAME_MAX_RUNES: usize = 64;
const LINK_MAX_RUNES: usize = 1_024;
/// Longest name of an emoji, as for reactions.
const EMOJI_MAX_BYTES: usize = 64;

struct BookmarkRow {
    bookmark: Bookmark,
    version: Version,
}

fn bookmark_row(r: &Row<'_>) -> rusqlite::Result<BookmarkRow> {
    Ok(BookmarkRow {
        bookmark: Bookmark {
            id: id(r, "id")?,
            create_at: r.get("create_at")?,
            update_at: r.get("update_at")?,
            delete_at: r.get("delete_at")?,
            channel_id: id(r, "channel_id")?,
            owner_id: id(r, "owner_id")?,
            file_id: opt_id(r, "file_id")?,
            display_name: r.get("display_name")?,
            sort_order: r.get("sort_order")?,
            link_url: r.get("link_url")?,
            image_url: r.get("image_url")?,
            emoji: r.get("emoji")?,
            kind: r.get("type")?,
            original_id: opt_id(r, "original_id")?,
            file: None,
        },
        version: put_version(r)?,
    })
}

fn by_id(db: &Connection, bookmark: Id) -> rusqlite::Result<Option<BookmarkRow>> {
    get(db, "SELECT * FROM bookmarks WHERE id = ?1", [bookmark.as_str()], bookmark_row)
}

/// With what is known of its file.
fn with_file(db: &Connection, mut bookmark: Bookmark) -> rusqlite::Result<Bookmark> {
    bookmark.file = files_of(db, bookmark.file_id.as_slice())?.pop();
    Ok(bookmark)
}

/// Is there a bookmark that shows the file to the channel's readers?
pub(crate) fn shows_file(db: &Connection, file: &FileInfo) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM bookmarks WHERE file_id = ?1 AND file_id <> '' AND channel_id = ?2 AND delete_at = 0";
    exists(db, sql, [file.id.as_str(), file.channel_id.as_str()])
}

fn live(db: &Connection, channel: Id) -> rusqlite::Result<Vec<BookmarkRow>> {
    let sql = "SELECT * FROM bookmarks WHERE channel_id = ?1 AND delete_at = 0 ORDER BY sort_order, create_at, id";
    all(db, sql, [channel.as_str()], bookmark_row)
}

fn invalid(field: &str) -> AppError {
    let id = format!("model.channel_bookmark.is_valid.{field}.app_error");
    AppError::bad("ChannelBookmark.IsValid", id, "The bookmark is not valid.")
}

fn is_web_address(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.split(['/', '?', '#']).next().is_some_and(|host| !host.is_empty()))
        && text.chars().count() <= LINK_MAX_RUNES
        && !text.chars().any(|c| c.is_control() || c == ' ')
}

fn check(b: &Bookmark) -> AppResult<()> {
    if b.display_name.is_empty() || b.display_name.chars().count() > NAME_MAX_RUNES {
        return Err(invalid("display_name"));
    }
    if b.emoji.len() > EMOJI_MAX_BYTES {
        return Err(invalid("emoji"));
    }
    match b.kind.as_str() {
        "link" if b.file_id.is_some() => Err(invalid("file_id.missing_or_invalid")),
        "link" if !is_web_address(&b.link_url) => Err(invalid("link_url.missing_or_invalid")),
        "link" if !b.image_url.is_empty() && !is_web_address(&b.image_url) => Err(invalid("image_url")),
        "file" if !b.link_url.is_empty() => Err(invalid("link_url.missing_or_invalid")),
        "file" if b.file_id.is_none() => Err(invalid("file_id.missing_or_invalid")),
        "file" if !b.image_url.is_empty() => Err(invalid("link_file")),
        "link" | "file" => Ok(()),
        _ => Err(invalid("type")),
    }
}

/// Who may do this to the bookmarks of the channel: in direct and group channels its members.
fn require_bookmark(db: &Connection, by: &Session, c: &Channel, verb: &str) -> AppResult<()> {
    if c.delete_at > 0 {
        let what = if verb == "add" { "create" } else { verb };
        let id = format!("api.channel.bookmark.{what}_channel_bookmark.deleted_channel.forbidden.app_error");
        return Err(AppError::new("channelBookmark", id, "The channel is archived.", 403));
    }
    // A role in the team lets its administrator change bookmarks, but not see what is in a private channel of others.
    require_read("channelBookmark", db, by, c)?;
    match c.kind.as_str() {
        "O" => require_in_channel("channelBookmark", db, by, c, &format!("{verb}_bookmark_public_channel")),
        "P" => require_in_channel("channelBookmark", db, by, c, &format!("{verb}_bookmark_private_channel")),
        _ if member(db, c.id, by.user_id)?.is_some() => Ok(()),
        _ => Err(AppError::permissions("channelBookmark", "read_channel")),
    }
}

fn missing() -> AppError {
    AppError::not_found("GetBookmark", "app.channel.bookmark.get.app_error")
}

/// A live bookmark of the channel.
fn require_one(db: &Connection, channel: Id, bookmark: Id) -> AppResult<BookmarkRow> {
    let row = by_id(db, bookmark)?.filter(|row| row.bookmark.delete_at == 0).ok_or_else(missing)?;
    if row.bookmark.channel_id == channel {
        Ok(row)
    } else {
        Err(AppError::body_param("channelBookmark", "channel_id"))
    }
}

impl Tx<'_> {
    fn put_bookmark(&self, b: &Bookmark, version: Version) -> rusqlite::Result<()> {
        run(
            &self.db,
            "INSERT INTO bookmarks (id, create_at, update_at, delete_at, channel_id, owner_id, file_id, display_name,
                sort_order, link_url, image_url, emoji, type, original_id, ver_at, ver_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT (id) DO UPDATE SET update_at = excluded.update_at, delete_at = excluded.delete_at,
                file_id = excluded.file_id, display_name = excluded.display_name, sort_order = excluded.sort_order,
                link_url = excluded.link_url, image_url = excluded.image_url, emoji = excluded.emoji,
                ver_at = excluded.ver_at, ver_by = excluded.ver_by",
            params![
                b.id.as_str(),
                b.create_at,
                b.update_at,
                b.delete_at,
                b.channel_id.as_str(),
                b.owner_id.as_str(),
                text(&b.file_id),
                b.display_name,
                b.sort_order,
                b.link_url,
                b.image_url,
                b.emoji,
                b.kind,
                text(&b.original_id),
                version.at.0 as i64,
                version.by.0,
            ],
        )?;
        self.settle_bookmarked(b.file_id)
    }

    /// Versions, writes and emits a bookmark of this node. `fresh_file`: the bytes of its file must travel.
    fn save_bookmark(&mut self, b: &Bookmark, current: Option<Version>, fresh_file: bool) -> AppResult<()> {
        let at = self.tick();
        let version = self.version_after(at, current);
        self.put_bookmark(b, version)?;
        if count(&self.db, "SELECT local FROM channels WHERE id = ?1", [b.channel_id.as_str()])? > 0 {
            return Ok(());
        }
        let file = files_of(&self.db, b.file_id.as_slice())?.pop();
        let state = BookmarkState {
            version,
            id: b.id,
            create_at: UnixMillis(b.create_at),
            update_at: UnixMillis(b.update_at),
            delete_at: UnixMillis(b.delete_at),
            channel_id: b.channel_id,
            owner_id: b.owner_id,
            kind: b.kind.clone(),
            file: file.as_ref().map(stub_of),
            display_name: b.display_name.clone(),
            sort_order: b.sort_order,
            link_url: b.link_url.clone(),
            image_url: b.image_url.clone(),
            emoji: b.emoji.clone(),
            original_id: b.original_id,
        };
        self.emit(at, &Event::Bookmark(state))?;
        let Some(file) = file.filter(|_| fresh_file) else { return Ok(()) };
        let at = self.tick();
        let state = FileState {
            version: self.version_after(at, None),
            stub: stub_of(&file),
            user_id: file.user_id,
            channel_id: b.channel_id,
            post_id: None,
            content: None,
        };
        Ok(self.emit(at, &Event::File(state))?)
    }

    fn tell_bookmark<T: serde::Serialize>(
        &mut self,
        event: &'static str,
        channel: Id,
        (name, value): (&str, &T),
        connection: Option<Id>,
    ) -> rusqlite::Result<()> {
        let members = self.member_ids(channel)?;
        let told = Broadcast::to_channel(event, channel, members).with_text(name, value);
        self.tell(told.omitting_connection(connection));
        Ok(())
    }

    /// A file may be bookmarked by who uploaded it to the channel and used it for nothing else.
    fn require_free_file(&self, by: &Session, channel: Id, file: Option<Id>) -> AppResult<()> {
        let Some(file) = file else { return Ok(()) };
        let found = files_of(&self.db, &[file])?.pop();
        let free = match found {
            Some(f) => {
                f.user_id == by.user_id
                    && f.channel_id == channel
                    && f.post_id.is_none()
                    && f.delete_at == 0
                    && !shows_file(&self.db, &f)?
            }
            None => false,
        };
        if free { Ok(()) } else { Err(invalid("file_id.missing_or_invalid")) }
    }

    /// A file that no bookmark shows any more is deleted, and comes back with one that does.
    fn settle_bookmarked(&self, file: Option<Id>) -> rusqlite::Result<()> {
        let sql = "UPDATE files SET delete_at = CASE WHEN id NOT IN (SELECT id FROM purged) AND EXISTS
                (SELECT 1 FROM bookmarks b WHERE b.file_id = files.id AND b.delete_at = 0) THEN 0 ELSE ?2 END
            WHERE id = ?1 AND post_id = '' AND NOT (delete_at > 0 AND id IN (SELECT id FROM purged))";
        run(&self.db, sql, params![text(&file), self.now])?;
        Ok(())
    }

    /// `fresh_file`: the bytes of its file must travel.
    fn add_bookmark(&mut self, b: &Bookmark, fresh_file: bool) -> AppResult<Bookmark> {
        check(b)?;
        if live(&self.db, b.channel_id)?.len() >= BOOKMARKS_MAX {
            return Err(AppError::bad(
                "CreateChannelBookmark",
                "app.channel.bookmark.save.app_error",
                "The channel has as many bookmarks as it can have.",
            ));
        }
        self.save_bookmark(b, None, fresh_file)?;
        Ok(with_file(&self.db, b.clone())?)
    }

    /// Applies another node's. The channel is known here.
    pub(crate) fn apply_bookmark(&mut self, s: &BookmarkState) -> rusqlite::Result<()> {
        let before = by_id(&self.db, s.id)?;
        if before.as_ref().is_some_and(|row| s.version <= row.version || row.bookmark.channel_id != s.channel_id) {
            return Ok(());
        }
        let b = Bookmark {
            id: s.id,
            create_at: s.create_at.0,
            update_at: s.update_at.0,
            delete_at: s.delete_at.0,
            channel_id: s.channel_id,
            owner_id: s.owner_id,
            file_id: s.file.as_ref().map(|f| f.id),
            display_name: s.display_name.clone(),
            sort_order: s.sort_order,
            link_url: s.link_url.clone(),
            image_url: s.image_url.clone(),
            emoji: s.emoji.clone(),
            kind: s.kind.clone(),
            original_id: s.original_id,
            file: None,
        };
        self.put_bookmark(&b, s.version)?;
        self.settle_bookmarked(before.as_ref().and_then(|row| row.bookmark.file_id))?;
        let was_there = before.is_some_and(|row| row.bookmark.delete_at == 0);
        let b = with_file(&self.db, b)?;
        match (was_there, b.delete_at == 0) {
            (false, true) => self.tell_bookmark("channel_bookmark_created", s.channel_id, ("bookmark", &b), None),
            (true, true) => {
                let change = BookmarkChange { updated: b, deleted: None };
                self.tell_bookmark("channel_bookmark_updated", s.channel_id, ("bookmarks", &change), None)
            }
            (true, false) => self.tell_bookmark("channel_bookmark_deleted", s.channel_id, ("bookmark", &b), None),
            (false, false) => Ok(()),
        }
    }
}

impl Core {
    /// The bookmarks of a channel in their order; with `since` those that changed then or later, removed ones among them.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's.
    pub fn bookmarks(&self, by: &Session, channel: Id, since: i64) -> AppResult<Vec<Bookmark>> {
        self.read(|db| {
            require_read("listChannelBookmarksForChannel", db, by, &require_channel(db, channel)?.channel)?;
            let rows = if since > 0 {
                let sql = "SELECT * FROM bookmarks WHERE channel_id = ?1 AND update_at >= ?2
                    ORDER BY sort_order, delete_at, id LIMIT ?3";
                all(db, sql, params![channel.as_str(), since, 2 * BOOKMARKS_MAX as i64], bookmark_row)?
            } else {
                live(db, channel)?
            };
            rows.into_iter().map(|row| Ok(with_file(db, row.bookmark)?)).collect()
        })
    }

    /// Bookmarks a link or a file. `connection` is that of the client.
    ///
    /// # Errors
    /// 403 without permission or in an archived channel, 400 for a bad bookmark or too many.
    pub fn add_bookmark(
        &self,
        by: &Session,
        channel: Id,
        new: &NewBookmark,
        connection: Option<Id>,
    ) -> AppResult<Bookmark> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            require_bookmark(&tx.db, by, &c, "add")?;
            let file_id = match new.file_id.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| invalid("file_id.missing_or_invalid"))?),
            };
            tx.require_free_file(by, channel, file_id)?;
            let last = live(&tx.db, channel)?.iter().map(|row| row.bookmark.sort_order).max();
            let b = Bookmark {
                id: tx.mint(),
                create_at: tx.now,
                update_at: tx.now,
                delete_at: 0,
                channel_id: channel,
                owner_id: by.user_id,
                file_id,
                display_name: new.display_name.clone(),
                sort_order: last.map_or(0, |n| n + 1),
                link_url: new.link_url.clone(),
                image_url: new.image_url.clone(),
                emoji: new.emoji.trim_matches(':').to_owned(),
                kind: new.kind.clone(),
                original_id: None,
                file: None,
            };
            let b = tx.add_bookmark(&b, true)?;
            tx.tell_bookmark("channel_bookmark_created", channel, ("bookmark", &b), connection)?;
            Ok(b)
        })
    }

    /// Changes a bookmark. Whoever changes that of somebody else puts one of their own in its place.
    ///
    /// # Errors
    /// 404, 403 without permission or in an archived channel, 400 for a bad bookmark.
    pub fn patch_bookmark(
        &self,
        by: &Session,
        channel: Id,
        bookmark: Id,
        patch: &BookmarkPatch,
        connection: Option<Id>,
    ) -> AppResult<BookmarkChange> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            require_bookmark(&tx.db, by, &c, "edit")?;
            let before = require_one(&tx.db, channel, bookmark)?;
            let mut b = before.bookmark.clone();
            if let Some(file) = &patch.file_id {
                b.file_id = match file.as_str() {
                    "" => None,
                    text => Some(text.parse().map_err(|_| invalid("file_id.missing_or_invalid"))?),
                };
            }
            let other_file = b.file_id != before.bookmark.file_id;
            if other_file {
                tx.require_free_file(by, channel, b.file_id)?;
            }
            for (field, value) in [
                (&mut b.display_name, &patch.display_name),
                (&mut b.link_url, &patch.link_url),
                (&mut b.image_url, &patch.image_url),
                (&mut b.emoji, &patch.emoji),
            ] {
                if let Some(value) = value {
                    field.clone_from(value);
                }
            }
            b.emoji = b.emoji.trim_matches(':').to_owned();
            b.sort_order = patch.sort_order.unwrap_or(b.sort_order);
            b.update_at = tx.now.max(b.update_at + 1);
            let change = if b.owner_id == by.user_id {
                check(&b)?;
                tx.save_bookmark(&b, Some(before.version), other_file)?;
                tx.settle_bookmarked(before.bookmark.file_id)?;
                BookmarkChange { updated: with_file(&tx.db, b)?, deleted: None }
            } else {
                let mut gone = before.bookmark.clone();
                gone.update_at = b.update_at;
                gone.delete_at = b.update_at;
                tx.save_bookmark(&gone, Some(before.version), false)?;
                let own = Bookmark {
                    id: tx.mint(),
                    create_at: tx.now,
                    update_at: tx.now,
                    owner_id: by.user_id,
                    original_id: Some(gone.id),
                    ..b
                };
                BookmarkChange { updated: tx.add_bookmark(&own, other_file)?, deleted: Some(gone) }
            };
            tx.tell_bookmark("channel_bookmark_updated", channel, ("bookmarks", &change), connection)?;
            Ok(change)
        })
    }

    /// Moves a bookmark to a place, from 0; the whole new order.
    ///
    /// # Errors
    /// 404, 403 without permission or in an archived channel, 400 for a place that there is not.
    pub fn sort_bookmark(
        &self,
        by: &Session,
        channel: Id,
        bookmark: Id,
        place: usize,
        connection: Option<Id>,
    ) -> AppResult<Vec<Bookmark>> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            require_bookmark(&tx.db, by, &c, "order")?;
            let mut rows = live(&tx.db, channel)?;
            if place >= rows.len() {
                return Err(AppError::bad(
                    "UpdateSortOrder",
                    "app.channel.bookmark.update_sort.invalid_input.app_error",
                    "There is no such place.",
                ));
            }
            let from = rows.iter().position(|row| row.bookmark.id == bookmark).ok_or_else(|| {
                AppError::not_found("UpdateSortOrder", "app.channel.bookmark.update_sort.missing_bookmark.app_error")
            })?;
            let moved = rows.remove(from);
            rows.insert(place, moved);
            let mut sorted = Vec::with_capacity(rows.len());
            for (at, row) in rows.into_iter().enumerate() {
                let mut b = row.bookmark;
                if b.sort_order != at as i64 {
                    b.sort_order = at as i64;
                    b.update_at = tx.now.max(b.update_at + 1);
                    tx.save_bookmark(&b, Some(row.version), false)?;
                }
                sorted.push(with_file(&tx.db, b)?);
            }
            tx.tell_bookmark("channel_bookmark_sorted", channel, ("bookmarks", &sorted), connection)?;
            Ok(sorted)
        })
    }

    /// Removes a bookmark, and its file.
    ///
    /// # Errors
    /// 404, 403 without permission or in an archived channel.
    pub fn delete_bookmark(
        &self,
        by: &Session,
        channel: Id,
        bookmark: Id,
        connection: Option<Id>,
    ) -> AppResult<Bookmark> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            require_bookmark(&tx.db, by, &c, "delete")?;
            let row = require_one(&tx.db, channel, bookmark)?;
            let mut b = row.bookmark;
            b.update_at = tx.now.max(b.update_at + 1);
            b.delete_at = b.update_at;
            tx.save_bookmark(&b, Some(row.version), false)?;
            let b = with_file(&tx.db, b)?;
            tx.tell_bookmark("channel_bookmark_deleted", channel, ("bookmark", &b), connection)?;
            Ok(b)
        })
    }
}
