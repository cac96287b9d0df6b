//! Posts: writing and changing them, and one by one. Lists of them are in `reading`.

use std::collections::{BTreeMap, BTreeSet};

use model::event::{FileState, FileStub, PostPriority, PostState};
use model::{Event, Hlc, Id, UnixMillis, Version};
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use crate::access::{may, may_in_channel, may_in_team, require, require_in_channel, require_read};
use crate::acknowledgements::acknowledgements_of;
use crate::bookmarks::shows_file;
use crate::channels::{JOIN_LEAVE, mark_read, require_channel};
use crate::core::{Core, Inner, Tx};
use crate::delivery;
use crate::emoji;
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::integrations;
use crate::rows::{PostRow, all, count, file_info, first_id, get, id_array, post_row, reaction, run, text, to_json};
use crate::threads::{ReplyNoted, add_followers, followers_to_notify};
use crate::types::{Channel, FileInfo, NewPost, Post, PostMetadata, PostPatch, Priority, Reaction, Session};
use crate::users::require_user;

/// Most files on one post, as the real server.
pub(crate) const FILES_MAX: usize = 10;
pub(crate) const PROPS_MAX_RUNES: usize = 800_000;
/// Longest message in bytes that the real server's column holds (`PostMessageMaxBytesV2`).
pub(crate) const MESSAGE_MAX_BYTES: usize = 65_535;
const HASHTAGS_MAX_RUNES: usize = 1_000;
/// Most bytes of what a post says, with its props, hashtags and names of files: it travels in one entry of a mebibyte at most
/// (`wire::ENTRY_BYTES_MAX`), and the rest of it has ids and sizes of files. The original's limits are in characters, which may
/// have four bytes.
const WEIGHT_MAX_BYTES: usize = 900_000;

pub(crate) fn post_row_by_id(db: &Connection, id: Id) -> rusqlite::Result<Option<PostRow>> {
    get(db, "SELECT * FROM posts WHERE id = ?1", [id.as_str()], post_row)
}

fn missing() -> AppError {
    AppError::not_found("GetSinglePost", "app.post.get.app_error")
}

pub(crate) fn require_post(db: &Connection, id: Id) -> AppResult<PostRow> {
    post_row_by_id(db, id)?.filter(|p| p.delete_at == 0).ok_or_else(missing)
}

pub(crate) fn is_join_leave(kind: &str) -> bool {
    kind.starts_with("system_") && JOIN_LEAVE.contains(&format!("'{kind}'"))
}

pub(crate) fn files_of(db: &Connection, ids: &[Id]) -> rusqlite::Result<Vec<FileInfo>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT * FROM files WHERE id IN (SELECT value FROM json_each(?1))";
    let mut found = all(db, sql, [id_array(ids)], file_info)?;
    found.sort_by_key(|f| ids.iter().position(|id| *id == f.id));
    Ok(found)
}

pub(crate) fn stub_of(f: &FileInfo) -> FileStub {
    FileStub {
        id: f.id,
        create_at: UnixMillis(f.create_at),
        name: f.name.clone(),
        extension: f.extension.clone(),
        size: f.size,
        mime_type: f.mime_type.clone(),
        width: f.width,
        height: f.height,
    }
}

fn state_of(db: &Connection, row: &PostRow) -> rusqlite::Result<PostState> {
    let priority: Option<Priority> = serde_json::from_str(&row.priority).ok();
    Ok(PostState {
        version: row.version,
        id: row.id,
        channel_id: row.channel_id,
        user_id: row.user_id,
        root_id: row.root_id,
        create_at: UnixMillis(row.create_at),
        update_at: UnixMillis(row.update_at),
        edit_at: UnixMillis(row.edit_at),
        delete_at: UnixMillis(row.delete_at),
        message: row.message.clone(),
        kind: row.kind.clone(),
        props: if row.props == "{}" { String::new() } else { row.props.clone() },
        hashtags: row.hashtags.clone(),
        is_pinned: row.is_pinned,
        files: files_of(db, &row.file_ids)?.iter().map(stub_of).collect(),
        priority: priority.map(|p| PostPriority {
            priority: p.priority,
            requested_ack: p.requested_ack,
            persistent_notifications: p.persistent_notifications,
        }),
    })
}

/// From rows to what clients see, in the rows' order.
pub(crate) fn render(core: &Inner, db: &Connection, rows: Vec<PostRow>) -> rusqlite::Result<Vec<Post>> {
    let threads: BTreeSet<Id> = rows.iter().map(|r| r.root_id.unwrap_or(r.id)).collect();
    let threads: Vec<Id> = threads.into_iter().collect();
    let sql = "SELECT post_id, reply_count FROM threads WHERE post_id IN (SELECT value FROM json_each(?1))";
    let replies: BTreeMap<Id, i64> =
        all(db, sql, [id_array(&threads)], |r| Ok((first_id(r)?, r.get(1)?)))?.into_iter().collect();
    let live: Vec<Id> = rows.iter().filter(|r| r.delete_at == 0).map(|r| r.id).collect();
    let pending = delivery::pending(db, &live)?;
    let mut reactions = reactions_of(db, &live)?;
    let mut acknowledgements = acknowledgements_of(db, &live)?;
    let mut posts = Vec::with_capacity(rows.len());
    for row in rows {
        let mut metadata = PostMetadata::default();
        if row.delete_at == 0 {
            metadata.files = files_of(db, &row.file_ids)?;
            metadata.reactions = reactions.remove(&row.id).unwrap_or_default();
            metadata.emojis = emoji::named_in(db, &row.message, &metadata.reactions)?
                .iter()
                .map(|emoji| serde_json::to_value(emoji).expect("an emoji is texts and numbers"))
                .collect();
            metadata.priority = serde_json::from_str(&row.priority).ok();
            metadata.acknowledgements = acknowledgements.remove(&row.id).unwrap_or_default();
        }
        let mut props = row.props_map();
        integrations::hide_actions(&mut props);
        if row.delete_at > 0 {
            // What an integration said is in the props.
            props.retain(|key, _| key == "deleteBy");
        }
        if row.arrived_at > 0 {
            let origin = node_name(core, db, row.origin)?;
            let late = json!({ "late": true, "origin": origin, "arrived_at": row.arrived_at });
            props.insert("holdfast".to_owned(), late);
        } else if pending.contains(&row.id) {
            props.insert("holdfast".to_owned(), json!({ "delivery": "pending" }));
        }
        posts.push(Post {
            id: row.id,
            create_at: row.create_at,
            update_at: row.update_at,
            edit_at: row.edit_at,
            delete_at: row.delete_at,
            is_pinned: row.is_pinned,
            user_id: row.user_id,
            channel_id: row.channel_id,
            root_id: row.root_id,
            original_id: row.original_id,
            message: if row.delete_at == 0 { row.message } else { String::new() },
            kind: row.kind,
            props,
            hashtags: if row.delete_at == 0 { row.hashtags } else { String::new() },
            file_ids: if row.delete_at == 0 { row.file_ids } else { Vec::new() },
            pending_post_id: String::new(),
            has_reactions: !metadata.reactions.is_empty(),
            remote_id: String::new(),
            reply_count: replies.get(&row.root_id.unwrap_or(row.id)).copied().unwrap_or(0),
            last_reply_at: 0,
            participants: None,
            is_following: None,
            metadata,
        });
    }
    Ok(posts)
}

pub(crate) fn render_one(core: &Inner, db: &Connection, row: PostRow) -> rusqlite::Result<Post> {
    Ok(render(core, db, vec![row])?.remove(0))
}

/// The name under which users know a node.
pub(crate) fn node_name(core: &Inner, db: &Connection, node: model::NodeId) -> rusqlite::Result<String> {
    if node == core.node {
        return Ok(core.node_name.clone());
    }
    let known = get(db, "SELECT name FROM node_names WHERE node = ?1", [&node.0[..]], |r| r.get(0))?;
    Ok(known.unwrap_or_else(|| node.to_string()[..8].to_owned()))
}

pub(crate) fn reactions_of(db: &Connection, posts: &[Id]) -> rusqlite::Result<BTreeMap<Id, Vec<Reaction>>> {
    let sql = "SELECT * FROM reactions WHERE post_id IN (SELECT value FROM json_each(?1)) AND delete_at = 0
               ORDER BY create_at, user_id, emoji_name";
    let mut found: BTreeMap<Id, Vec<Reaction>> = BTreeMap::new();
    for r in all(db, sql, [id_array(posts)], reaction)? {
        found.entry(r.post_id).or_default().push(r);
    }
    Ok(found)
}

/// Words of the message that are hashtags, as the real server stores them.
pub(crate) fn hashtags(message: &str) -> String {
    let mut tags: Vec<&str> = Vec::new();
    let mut runes = 0;
    for word in message.split_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '#');
        let Some(tag) = word.strip_prefix('#') else { continue };
        let fits = tag.chars().count() >= 2
            && tag.chars().next().is_some_and(char::is_alphabetic)
            && tag.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        runes += word.chars().count() + 1;
        if fits && runes <= HASHTAGS_MAX_RUNES {
            tags.push(word);
        }
    }
    tags.join(" ")
}

/// What a new post meant to its channel and thread.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) mentioned: BTreeSet<Id>,
    pub(crate) thread: ReplyNoted,
}

impl Tx<'_> {
    pub(crate) fn put_post(&mut self, row: &PostRow) -> rusqlite::Result<()> {
        run(
            &self.db,
            "INSERT INTO posts (id, channel_id, user_id, root_id, original_id, create_at, update_at, edit_at, delete_at,
                message, type, props, hashtags, is_pinned, file_ids, priority, pending_post_id, state_at, changed_at,
                arrived_at, shown_at, origin, ver_at, ver_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                ?22, ?23, ?24)
             ON CONFLICT (id) DO UPDATE SET update_at = excluded.update_at, edit_at = excluded.edit_at,
                delete_at = excluded.delete_at, message = excluded.message, type = excluded.type,
                props = excluded.props, hashtags = excluded.hashtags, is_pinned = excluded.is_pinned,
                file_ids = excluded.file_ids, priority = excluded.priority, state_at = excluded.state_at,
                changed_at = excluded.changed_at, ver_at = excluded.ver_at, ver_by = excluded.ver_by",
            params![
                row.id.as_str(),
                row.channel_id.as_str(),
                row.user_id.as_str(),
                text(&row.root_id),
                text(&row.original_id),
                row.create_at,
                row.update_at,
                row.edit_at,
                row.delete_at,
                row.message,
                row.kind,
                row.props,
                row.hashtags,
                row.is_pinned,
                id_array(&row.file_ids),
                row.priority,
                row.pending_post_id,
                row.state_at,
                row.changed_at,
                row.arrived_at,
                row.shown_at,
                row.origin.0,
                row.version.at.0 as i64,
                row.version.by.0,
            ],
        )?;
        Ok(())
    }

    /// Keeps a replaced or losing text as an edit-history row of this node.
    pub(crate) fn keep_history(&mut self, old: &PostRow, replaced_at: i64) -> rusqlite::Result<()> {
        let mut history = old.clone();
        history.id = self.mint();
        history.original_id = Some(old.id);
        history.delete_at = replaced_at;
        history.update_at = replaced_at;
        history.pending_post_id = String::new();
        // A reply's old text must not count as a reply.
        self.put_post(&history)
    }

    /// Raises a thread's root after a reply changed; derived on every node, so it gives no outbox row.
    pub(crate) fn bump(&mut self, post: Id, update_at: i64) -> rusqlite::Result<()> {
        let changed = self.change(update_at);
        run(
            &self.db,
            "UPDATE posts SET update_at = max(update_at, ?2), changed_at = ?3 WHERE id = ?1 AND update_at < ?2",
            params![post.as_str(), update_at, changed],
        )?;
        Ok(())
    }

    /// The files of the post's list belong to it and share its fate; any other of its files is deleted.
    pub(crate) fn settle_files(&mut self, row: &PostRow) -> rusqlite::Result<()> {
        run(
            &self.db,
            "UPDATE files SET post_id = ?1, channel_id = ?2, delete_at = ?3, update_at = max(update_at, ?3)
             WHERE id IN (SELECT value FROM json_each(?4))",
            params![row.id.as_str(), row.channel_id.as_str(), row.delete_at, id_array(&row.file_ids)],
        )?;
        // The bytes of a purged one will never be here.
        run(
            &self.db,
            "UPDATE files SET delete_at = min(update_at, 9223372036854775806) + 1 WHERE delete_at = 0
             AND id IN (SELECT value FROM json_each(?1)) AND id IN (SELECT id FROM purged)",
            [id_array(&row.file_ids)],
        )?;
        run(
            &self.db,
            "UPDATE files SET delete_at = ?2, update_at = ?2 WHERE post_id = ?1 AND post_id <> '' AND delete_at = 0
             AND id NOT IN (SELECT value FROM json_each(?3))",
            params![row.id.as_str(), row.update_at, id_array(&row.file_ids)],
        )?;
        Ok(())
    }

    /// Everything that a new post means to its channel and thread, wherever it was written.
    pub(crate) fn count_post(&mut self, c: &Channel, row: &PostRow) -> rusqlite::Result<Counted> {
        let counts = !is_join_leave(&row.kind);
        let root = row.root_id.is_none();
        let shown_at = row.create_at.max(row.arrived_at);
        run(
            &self.db,
            "UPDATE channels SET total_msg_count = total_msg_count + ?2,
                total_msg_count_root = total_msg_count_root + ?3, last_post_at = max(last_post_at, ?4),
                last_root_post_at = max(last_root_post_at, ?5) WHERE id = ?1",
            params![
                c.id.as_str(),
                i64::from(counts),
                i64::from(counts && root),
                shown_at,
                if root { shown_at } else { 0 },
            ],
        )?;
        if counts {
            // One's own words are read.
            run(
                &self.db,
                "UPDATE channel_members SET msg_count = msg_count + 1, msg_count_root = msg_count_root + ?3
                 WHERE channel_id = ?1 AND user_id = ?2 AND delete_at = 0",
                params![c.id.as_str(), row.user_id.as_str(), i64::from(root)],
            )?;
        }
        if let Some(root) = row.root_id {
            self.bump(root, row.state_at)?;
        }
        if row.delete_at > 0 {
            return Ok(Counted::default());
        }
        let mentioned = self.mentioned(c, row)?;
        let urgent = row.priority.contains("\"urgent\"");
        if !mentioned.is_empty() {
            run(
                &self.db,
                "UPDATE channel_members SET mention_count = mention_count + 1,
                    mention_count_root = mention_count_root + ?3, urgent_mention_count = urgent_mention_count + ?4,
                    last_update_at = ?5
                 WHERE channel_id = ?1 AND user_id IN (SELECT value FROM json_each(?2)) AND delete_at = 0",
                params![c.id.as_str(), to_json(&mentioned), i64::from(root), i64::from(urgent), self.now],
            )?;
        }
        let thread = self.note_reply(c, row, &mentioned)?;
        Ok(Counted { mentioned, thread })
    }

    /// The `posted` event. A late post notifies nobody: the digest does.
    pub(crate) fn tell_posted(
        &mut self,
        c: &Channel,
        row: &PostRow,
        counted: &Counted,
        set_online: bool,
    ) -> rusqlite::Result<()> {
        let sender = get(&self.db, "SELECT username FROM users WHERE id = ?1", [row.user_id.as_str()], |r| {
            r.get::<_, String>(0)
        })?;
        let sender = format!("@{}", sender.unwrap_or_default());
        let late = row.arrived_at > 0;
        let mut post = render_one(self.core, &self.db, row.clone())?;
        post.pending_post_id.clone_from(&row.pending_post_id);
        let display = if c.kind == "D" { sender.clone() } else { c.display_name.clone() };
        let mut broadcast = Broadcast::to_channel("posted", c.id, self.member_ids(c.id)?)
            .with_text("post", &post)
            .with("channel_type", c.kind.as_str())
            .with("channel_display_name", display)
            .with("channel_name", c.name.as_str())
            .with("sender_name", sender)
            .with("team_id", text(&c.team_id))
            .with("set_online", set_online && !late);
        if !post.metadata.files.is_empty() {
            broadcast = broadcast.with("otherFile", "true");
            if post.metadata.files.iter().any(|f| f.mime_type.starts_with("image/")) {
                broadcast = broadcast.with("image", "true");
            }
        }
        if !late {
            for user in &counted.mentioned {
                let mentions = [("mentions".to_owned(), Value::from(to_json(&[user])))];
                broadcast.per_user.insert(*user, mentions.into_iter().collect());
            }
            let followers = followers_to_notify(&self.db, c, row, &counted.mentioned)?;
            add_followers(&mut broadcast.per_user, &followers);
            self.note_pushes(c, row, &counted.mentioned)?;
        }
        self.tell(broadcast);
        if !late {
            return self.tell_followers(c, row, &counted.mentioned, &counted.thread);
        }
        if let Some(thread) = row.root_id {
            self.late_threads.insert(thread, c.id);
        }
        Ok(())
    }

    pub(crate) fn tell_post(&mut self, event: &'static str, row: &PostRow) -> rusqlite::Result<()> {
        let post = render_one(self.core, &self.db, row.clone())?;
        let members = self.member_ids(row.channel_id)?;
        self.tell(Broadcast::to_channel(event, row.channel_id, members).with_text("post", &post));
        Ok(())
    }

    /// `post_deleted` carries the post as it was, text included.
    pub(crate) fn tell_post_deleted(&mut self, before: &PostRow) -> rusqlite::Result<()> {
        let live = PostRow { delete_at: 0, ..before.clone() };
        self.tell_post("post_deleted", &live)
    }

    fn local_channel(&self, c: Id) -> rusqlite::Result<bool> {
        Ok(count(&self.db, "SELECT local FROM channels WHERE id = ?1", [c.as_str()])? > 0)
    }

    /// Versions, writes and emits a post of this node.
    pub(crate) fn save_post(&mut self, row: &mut PostRow, current: Option<Version>) -> rusqlite::Result<()> {
        let at = self.tick();
        row.version = self.version_after(at, current);
        row.state_at = row.update_at;
        row.changed_at = self.change(row.update_at);
        self.put_post(row)?;
        if !self.local_channel(row.channel_id)? {
            let state = state_of(&self.db, row)?;
            self.emit(at, &Event::Post(state))?;
            if current.is_none() && !self.is_history {
                self.note_undelivered(row, at)?;
            }
        }
        Ok(())
    }

    /// One row per file whose bytes must travel.
    pub(crate) fn emit_files(&mut self, row: &PostRow, files: &[Id]) -> rusqlite::Result<()> {
        if self.local_channel(row.channel_id)? {
            return Ok(());
        }
        for f in files_of(&self.db, files)? {
            let at = self.tick();
            let event = Event::File(FileState {
                version: self.version_after(at, None),
                stub: stub_of(&f),
                user_id: f.user_id,
                channel_id: row.channel_id,
                post_id: Some(row.id),
                content: None,
            });
            self.emit(at, &event)?;
        }
        Ok(())
    }

    /// A post that the server writes in a user's name.
    pub(crate) fn system_post(
        &mut self,
        c: &Channel,
        user: Id,
        kind: &str,
        message: String,
        props: &[(&str, &str)],
    ) -> AppResult<PostRow> {
        let props: Map<String, Value> = props.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
        let mut row = self.blank_post(c.id, user, self.now);
        row.message = message;
        row.kind = kind.to_owned();
        row.props = to_json(&props);
        self.save_post(&mut row, None)?;
        let counted = self.count_post(c, &row)?;
        self.tell_posted(c, &row, &counted, true)?;
        Ok(row)
    }

    pub(crate) fn blank_post(&self, channel: Id, user: Id, at: i64) -> PostRow {
        PostRow {
            id: self.mint(),
            channel_id: channel,
            user_id: user,
            root_id: None,
            original_id: None,
            create_at: at,
            update_at: at,
            edit_at: 0,
            delete_at: 0,
            message: String::new(),
            kind: String::new(),
            props: "{}".to_owned(),
            hashtags: String::new(),
            is_pinned: false,
            file_ids: Vec::new(),
            priority: String::new(),
            pending_post_id: String::new(),
            state_at: at,
            changed_at: at,
            arrived_at: 0,
            shown_at: at.max(self.now),
            origin: self.core.node,
            version: Version { at: Hlc::ZERO, by: self.core.node },
        }
    }

    /// Writes a post of a session's user.
    pub(crate) fn write_post(&mut self, by: &Session, new: &NewPost, set_online: bool) -> AppResult<Post> {
        let channel: Id = new.channel_id.parse().map_err(|_| AppError::permissions("createPost", "create_post"))?;
        let root: Option<Id> = match new.root_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| bad_root())?),
        };
        let c =
            require_channel(&self.db, channel).map_err(|_| AppError::permissions("createPost", "create_post"))?.channel;
        require_create_post(&self.db, by, &c)?;
        if !new.file_ids.is_empty() {
            require_in_channel("createPost", &self.db, by, &c, "upload_file")?;
        }
        check_new(self, new, &c, root)?;
        if let Some(found) = pending(&self.db, by.user_id, &new.pending_post_id)? {
            let mut post = render_one(self.core, &self.db, found)?;
            post.pending_post_id.clone_from(&new.pending_post_id);
            return Ok(post);
        }
        self.require_room_for_post(new.metadata.as_ref().and_then(|m| m.priority.as_ref()), &c)?;
        let author = require_user(&self.db, by.user_id)?.user;
        let backdated = new.create_at > 0 && may(by, "manage_system");
        let mut row = self.blank_post(channel, by.user_id, if backdated { new.create_at } else { self.now });
        row.root_id = root;
        row.message.clone_from(&new.message);
        row.kind.clone_from(&new.kind);
        row.hashtags = hashtags(&new.message);
        row.pending_post_id.clone_from(&new.pending_post_id);
        let mut props = new.props.clone();
        props.remove("add_channel_member");
        if author.is_bot {
            props.insert("from_bot".to_owned(), "true".into());
        }
        integrations::name_actions(&mut props);
        row.props = check_props(&props)?;
        let priority = new.metadata.as_ref().and_then(|m| m.priority.as_ref());
        row.priority = priority.filter(|p| **p != Priority::default()).map(to_json).unwrap_or_default();
        check_weight(&row.message, &row.props, &row.hashtags, std::iter::empty())?;
        row.file_ids = self.attachable(&new.file_ids, by.user_id, channel)?;
        if row.message.trim().is_empty() && row.file_ids.is_empty() && row.props == "{}" {
            return Err(AppError::bad(
                "createPost",
                "api.context.invalid_body_param.app_error",
                "Invalid or missing message in request body.",
            ));
        }
        self.settle_files(&row)?;
        self.save_post(&mut row, None)?;
        let files = row.file_ids.clone();
        self.emit_files(&row, &files)?;
        let counted = self.count_post(&c, &row)?;
        self.tell_posted(&c, &row, &counted, set_online)?;
        // Who answers in a thread looks at the thread, not at the channel.
        let from_hook = props.get("from_webhook").is_some_and(|value| value == "true");
        if !author.is_bot && !from_hook && root.is_none() {
            let times = mark_read(self, by.user_id, &[channel])?;
            let value = serde_json::to_value(&times).expect("ids are strings");
            self.tell(Broadcast::to_user("multiple_channels_viewed", by.user_id).with("channel_times", value));
        }
        let mut post = render_one(self.core, &self.db, row)?;
        post.pending_post_id.clone_from(&new.pending_post_id);
        Ok(post)
    }

    /// Changes a post; `restoring` brings files back that it had before.
    pub(crate) fn patch_post(&mut self, by: &Session, id: Id, patch: &PostPatch, restoring: bool) -> AppResult<Post> {
        let mut row = require_post(&self.db, id).map_err(|_| AppError::permissions("patchPost", "edit_post"))?;
        let c = require_channel(&self.db, row.channel_id)?.channel;
        let permission = if row.user_id == by.user_id { "edit_post" } else { "edit_others_posts" };
        require_in_channel("patchPost", &self.db, by, &c, permission)?;
        if row.kind.starts_with("system_") {
            return Err(AppError::bad(
                "UpdatePost",
                "api.post.update_post.system_message.app_error",
                "Unable to update system message.",
            ));
        }
        if c.delete_at > 0 {
            return Err(AppError::bad(
                "UpdatePost",
                "api.post.update_post.can_not_update_post_in_deleted.error",
                "Can not update a post in a deleted channel.",
            ));
        }
        let before = row.clone();
        let now = self.now.max(row.update_at + 1);
        if let Some(message) = patch.message.as_ref().filter(|m| **m != row.message) {
            self.core.check_message(message)?;
            row.message.clone_from(message);
            row.hashtags = hashtags(message);
            row.edit_at = now;
        }
        if let Some(pinned) = patch.is_pinned {
            row.is_pinned = pinned;
        }
        if let Some(props) = &patch.props {
            let mut props = props.clone();
            integrations::name_actions(&mut props);
            row.props = check_props(&props)?;
        }
        check_weight(&row.message, &row.props, &row.hashtags, std::iter::empty())?;
        let mut added = Vec::new();
        if let Some(ids) = &patch.file_ids {
            added = self.attachable(ids, by.user_id, c.id)?;
            let wanted: Vec<Id> = ids.iter().filter_map(|i| i.parse().ok()).collect();
            let own = if restoring { self.files_ever_of(id)? } else { before.file_ids.clone() };
            let keep = |f: &Id| own.contains(f) || added.contains(f);
            let files: Vec<Id> = wanted.into_iter().filter(keep).take(FILES_MAX).collect();
            if files != row.file_ids {
                row.edit_at = now;
            }
            row.file_ids = files;
        }
        row.update_at = now;
        if row.message != before.message || row.file_ids != before.file_ids {
            self.keep_history(&before, now)?;
        }
        self.settle_files(&row)?;
        self.save_post(&mut row, Some(before.version))?;
        self.emit_files(&row, &added)?;
        run(
            &self.db,
            "UPDATE channels SET last_post_at = max(last_post_at, ?2) WHERE id = ?1",
            params![c.id.as_str(), self.now],
        )?;
        if let Some(root) = row.root_id {
            self.bump(root, row.state_at)?;
        }
        self.tell_post("post_edited", &row)?;
        Ok(render_one(self.core, &self.db, row)?)
    }

    /// Files that belong to the post or did.
    fn files_ever_of(&self, post: Id) -> rusqlite::Result<Vec<Id>> {
        all(&self.db, "SELECT id FROM files WHERE post_id = ?1 AND post_id <> ''", [post.as_str()], first_id)
    }

    /// The user's own unattached uploads to the channel among these ids, in their order.
    fn attachable(&self, ids: &[String], user: Id, channel: Id) -> AppResult<Vec<Id>> {
        let ids: Vec<Id> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let mut seen = BTreeSet::new();
        Ok(files_of(&self.db, &ids)?
            .into_iter()
            .filter(|f| f.user_id == user && f.channel_id == channel && f.post_id.is_none() && f.delete_at == 0)
            // Of a bookmark it is already, and a file is of one object.
            .map(|f| Ok((shows_file(&self.db, &f)?, f.id)))
            .collect::<rusqlite::Result<Vec<_>>>()?
            .into_iter()
            .filter(|(is_shown, id)| !is_shown && seen.insert(*id))
            .map(|(_, id)| id)
            .take(FILES_MAX)
            .collect())
    }
}

impl Inner {
    pub(crate) fn check_message(&self, message: &str) -> AppResult<()> {
        if message.chars().count() <= self.settings.max_post_runes {
            return Ok(());
        }
        Err(AppError::bad(
            "Post.IsValid",
            "model.post.is_valid.message_length.app_error",
            format!(
                "Post Message property is longer than the maximum permitted length ({}).",
                self.settings.max_post_runes
            ),
        ))
    }
}

pub(crate) fn check_props(props: &Map<String, Value>) -> AppResult<String> {
    let mut props = props.clone();
    // Rendered, never stored: nobody may fake a late mark.
    props.remove("holdfast");
    let text = to_json(&props);
    if text.chars().count() <= PROPS_MAX_RUNES {
        return Ok(text);
    }
    Err(AppError::bad("Post.IsValid", "model.post.is_valid.props.app_error", "The post's props are too long."))
}

/// Does a post fit into one entry?
pub(crate) fn check_weight<'a>(
    message: &str,
    props: &str,
    hashtags: &str,
    names: impl Iterator<Item = &'a str>,
) -> AppResult<()> {
    let bytes = message.len() + props.len() + hashtags.len() + names.map(str::len).sum::<usize>();
    if bytes <= WEIGHT_MAX_BYTES {
        return Ok(());
    }
    let text = format!("The post with its props is {bytes} bytes; {WEIGHT_MAX_BYTES} are permitted.");
    Err(AppError::bad("Post.IsValid", "model.post.is_valid.props.app_error", text))
}

impl Core {
    /// Writes a post. The same `pending_post_id` again gives the post that is there already.
    ///
    /// # Errors
    /// AppErrors as the real server gives them.
    pub fn create_post(&self, by: &Session, new: &NewPost, set_online: bool) -> AppResult<Post> {
        if set_online {
            self.note_activity(by.user_id, true);
        }
        self.write(|tx| tx.write_post(by, new, set_online))
    }

    /// One post.
    ///
    /// # Errors
    /// 404, or 403 when its channel is not the asker's or deleted posts are not for the asker.
    pub fn post(&self, by: &Session, id: Id, include_deleted: bool) -> AppResult<Post> {
        if include_deleted {
            require("getPost", by, "manage_system")?;
        }
        self.read(|db| {
            let row = post_row_by_id(db, id)?.filter(|p| include_deleted || p.delete_at == 0).ok_or_else(missing)?;
            require_read("getPost", db, by, &require_channel(db, row.channel_id)?.channel)?;
            Ok(render_one(&self.0, db, row)?)
        })
    }

    /// These posts, as far as the asker may read them; of deleted ones what is left, as the original does.
    ///
    /// # Errors
    /// 404 when there is none of them.
    pub fn posts_by_ids(&self, by: &Session, ids: &[Id]) -> AppResult<Vec<Post>> {
        self.read(|db| {
            let sql =
                "SELECT * FROM posts WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY create_at DESC, id DESC";
            let found = all(db, sql, [id_array(ids)], post_row)?;
            if found.is_empty() {
                return Err(AppError::not_found("GetPostsByIds", "app.post.get.app_error"));
            }
            let mut readable = Vec::new();
            for row in found {
                if require_read("getPostsByIds", db, by, &require_channel(db, row.channel_id)?.channel).is_ok() {
                    readable.push(row);
                }
            }
            Ok(render(&self.0, db, readable)?)
        })
    }

    /// Changes message, pin, props or files of a post.
    ///
    /// # Errors
    /// 403 without permission, 400 for system, deleted or over-long posts.
    pub fn patch_post(&self, by: &Session, id: Id, patch: &PostPatch) -> AppResult<Post> {
        self.write(|tx| tx.patch_post(by, id, patch, false))
    }

    /// Gives a post an earlier text and its files again.
    ///
    /// # Errors
    /// 403 for others' or what is no earlier text, 400 when it is one of another post; and as [`Core::patch_post`].
    pub fn restore_post(&self, by: &Session, id: Id, version: Id) -> AppResult<Post> {
        self.write(|tx| {
            let refused = || AppError::permissions("restorePostVersion", "edit_post");
            let old = post_row_by_id(&tx.db, version)?.filter(|old| old.user_id == by.user_id).ok_or_else(refused)?;
            if old.original_id != Some(id) {
                return Err(AppError::bad(
                    "RestorePostVersion",
                    "app.post.restore_post_version.not_an_history_item.app_error",
                    "This is no earlier version of the post.",
                ));
            }
            let files = old.file_ids.iter().map(Id::to_string).collect();
            let patch = PostPatch { message: Some(old.message), file_ids: Some(files), ..PostPatch::default() };
            tx.patch_post(by, id, &patch, true)
        })
    }

    /// Deletes a post, and its replies when it is a root. The text stays in the store.
    ///
    /// # Errors
    /// 404, or 403 without permission.
    pub fn delete_post(&self, by: &Session, id: Id) -> AppResult<()> {
        self.write(|tx| {
            let row = require_post(&tx.db, id)?;
            let c = require_channel(&tx.db, row.channel_id)?.channel;
            let permission = if row.user_id == by.user_id { "delete_post" } else { "delete_others_posts" };
            require_in_channel("deletePost", &tx.db, by, &c, permission)?;
            if c.delete_at > 0 {
                return Err(AppError::bad(
                    "DeletePost",
                    "api.post.delete_post.can_not_delete_post_in_deleted.error",
                    "Can not delete a post in a deleted channel.",
                ));
            }
            // The root first: each reply then raises it.
            let sql = "SELECT * FROM posts WHERE (id = ?1 OR (root_id = ?1 AND root_id <> '')) AND original_id = '' AND delete_at = 0
                       ORDER BY id <> ?1, create_at, id";
            for mut post in all(&tx.db, sql, [id.as_str()], post_row)? {
                let before = post.version;
                let mut props = post.props_map();
                props.insert("deleteBy".to_owned(), by.user_id.as_str().into());
                post.props = to_json(&props);
                post.update_at = tx.now.max(post.update_at + 1);
                post.delete_at = post.update_at;
                tx.save_post(&mut post, Some(before))?;
                tx.settle_files(&post)?;
                if let Some(root) = post.root_id {
                    tx.bump(root, post.state_at)?;
                }
            }
            tx.forget_reply(&c, &row)?;
            tx.forget_drafts_of(row.id)?;
            Ok(tx.tell_post_deleted(&row)?)
        })
    }

    /// Pins or unpins a post.
    ///
    /// # Errors
    /// 404, 403 when the channel is not the asker's, 400 in an archived channel.
    pub fn pin_post(&self, by: &Session, id: Id, pinned: bool) -> AppResult<()> {
        self.write(|tx| {
            let mut row = require_post(&tx.db, id)?;
            let c = require_channel(&tx.db, row.channel_id)?.channel;
            require_in_channel("saveIsPinnedPost", &tx.db, by, &c, "create_post")?;
            if c.delete_at > 0 {
                return Err(AppError::bad(
                    "UpdatePost",
                    "api.post.update_post.can_not_update_post_in_deleted.error",
                    "Can not update a post in a deleted channel.",
                ));
            }
            if row.is_pinned == pinned {
                return Ok(());
            }
            let before = row.version;
            row.is_pinned = pinned;
            row.update_at = tx.now.max(row.update_at + 1);
            tx.save_post(&mut row, Some(before))?;
            if let Some(root) = row.root_id {
                tx.bump(root, row.state_at)?;
            }
            Ok(tx.tell_post("post_edited", &row)?)
        })
    }

    /// Earlier texts of a post, newest first; those that lost against another node's edit among them.
    ///
    /// # Errors
    /// 404 when there is none, 403 for others than the author and administrators.
    pub fn edit_history(&self, by: &Session, id: Id) -> AppResult<Vec<Post>> {
        self.read(|db| {
            let row = require_post(db, id)?;
            require_read("getEditHistoryForPost", db, by, &require_channel(db, row.channel_id)?.channel)?;
            if row.user_id != by.user_id {
                require("getEditHistoryForPost", by, "edit_others_posts")?;
            }
            let sql = "SELECT * FROM posts WHERE original_id = ?1 AND original_id <> '' ORDER BY edit_at DESC, update_at DESC";
            let history = all(db, sql, [id.as_str()], post_row)?;
            if history.is_empty() {
                return Err(AppError::not_found("GetEditHistoryForPost", "app.post.get_edit_history.not_found"));
            }
            let gone: Vec<i64> = history.iter().map(|r| r.delete_at).collect();
            // Their text is the point, so they are rendered as if live.
            let live = history.into_iter().map(|r| PostRow { delete_at: 0, ..r }).collect();
            let mut posts = render(&self.0, db, live)?;
            for (post, delete_at) in posts.iter_mut().zip(gone) {
                post.delete_at = delete_at;
            }
            Ok(posts)
        })
    }

    /// The files of a post.
    ///
    /// # Errors
    /// 404, or 403 when its channel is not the asker's.
    pub fn files_of_post(&self, by: &Session, id: Id) -> AppResult<Vec<FileInfo>> {
        Ok(self.post(by, id, false)?.metadata.files)
    }
}

/// Members write; in an open channel also whom their role in the team lets.
pub(crate) fn require_create_post(db: &Connection, by: &Session, c: &Channel) -> AppResult<()> {
    match c.team_id {
        Some(team) if c.kind == "O" && may_in_team(db, by, team, "create_post_public")? => Ok(()),
        _ => require_in_channel("createPost", db, by, c, "create_post"),
    }
}

fn bad_root() -> AppError {
    AppError::bad("createPost", "api.post.create_post.root_id.app_error", "Invalid RootId parameter.")
}

fn pending(db: &Connection, user: Id, pending_post_id: &str) -> rusqlite::Result<Option<PostRow>> {
    if pending_post_id.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT * FROM posts WHERE pending_post_id = ?1 AND pending_post_id <> '' AND user_id = ?2 LIMIT 1";
    get(db, sql, [pending_post_id, user.as_str()], post_row)
}

fn check_new(tx: &Tx<'_>, new: &NewPost, c: &Channel, root: Option<Id>) -> AppResult<()> {
    if new.kind.starts_with("system_") {
        return Err(AppError::bad(
            "CreatePostAsUser",
            "api.context.invalid_param.app_error",
            "Invalid post.type parameter.",
        ));
    }
    if !matches!(new.kind.as_str(), "" | "slack_attachment" | "me" | "reminder") && !new.kind.starts_with("custom_") {
        return Err(AppError::bad("Post.IsValid", "model.post.is_valid.type.app_error", "Invalid type."));
    }
    if c.delete_at > 0 {
        return Err(AppError::bad(
            "createPost",
            "api.post.create_post.can_not_post_to_deleted.error",
            "Can not post to deleted channel.",
        ));
    }
    tx.core.check_message(&new.message)?;
    if new.pending_post_id.len() > 128 {
        return Err(AppError::body_param("createPost", "pending_post_id"));
    }
    if let Some(root) = root {
        let parent = require_post(&tx.db, root).map_err(|_| bad_root())?;
        if parent.channel_id != c.id {
            return Err(AppError::bad(
                "createPost",
                "api.post.create_post.channel_root_id.app_error",
                "Invalid ChannelId for RootId parameter.",
            ));
        }
        if parent.root_id.is_some() || parent.original_id.is_some() {
            return Err(bad_root());
        }
    }
    check_priority(new.metadata.as_ref().and_then(|m| m.priority.as_ref()), root.is_some())
}

/// Only root posts have a priority, and only urgent ones notify again and again.
pub(crate) fn check_priority(priority: Option<&Priority>, is_reply: bool) -> AppResult<()> {
    let Some(priority) = priority else { return Ok(()) };
    if is_reply {
        return Err(AppError::bad(
            "createPost",
            "api.post.post_priority.priority_post_only_allowed_for_root_post.request_error",
            "Only root posts can have a priority.",
        ));
    }
    if !matches!(priority.priority.as_str(), "" | "urgent" | "important") {
        return Err(AppError::body_param("createPost", "metadata.priority"));
    }
    if priority.persistent_notifications && priority.priority != "urgent" {
        return Err(AppError::bad(
            "createPost",
            "api.post.post_priority.urgent_persistent_notification_post.request_error",
            "Persistent notifications need an urgent post.",
        ));
    }
    Ok(())
}

/// Deleting and editing in a channel also need the right to read it; used by reactions too.
pub(crate) fn may_react(db: &Connection, by: &Session, c: &Channel, permission: &str) -> AppResult<()> {
    if may_in_channel(db, by, c, permission)? { Ok(()) } else { Err(AppError::permissions("reaction", permission)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Node, START, words};
    use crate::types::{PostQuery, PostView, ThreadPart};

    fn world() -> (Node, Session, Session, Id) {
        let node = Node::new(1);
        let alice = node.user("alice");
        let bob = node.user("bob");
        let (team, square) = node.team(&alice, "mission");
        node.core.add_team_member(&bob, team.id, bob.user_id).unwrap();
        node.core.mark_channels_read(&bob, bob.user_id, &[square.id]).unwrap();
        node.advance(10);
        node.events.take();
        (node, alice, bob, square.id)
    }

    #[test]
    fn the_same_pending_id_posts_once() {
        let (node, alice, bob, square) = world();
        let mut new = words(square, None, "once");
        new.pending_post_id = format!("{}:1", alice.user_id);
        let first = node.core.create_post(&alice, &new, true).unwrap();
        let again = node.core.create_post(&alice, &new, true).unwrap();
        assert_eq!(first, again);
        assert_eq!(first.pending_post_id, new.pending_post_id);
        assert_ne!(node.core.create_post(&bob, &new, true).unwrap().id, first.id);
    }

    #[test]
    fn deleting_a_root_takes_its_replies_and_keeps_the_text_out_of_answers() {
        let (node, alice, bob, square) = world();
        let root = node.say(&alice, square, None, "root");
        let reply = node.say(&bob, square, Some(root.id), "reply");
        assert_eq!(node.core.thread(&alice, root.id, &ThreadPart::default()).unwrap().posts[&root.id].reply_count, 1);
        node.drain();
        node.events.take();
        node.advance(5);
        node.core.delete_post(&alice, root.id).unwrap();
        assert_eq!(node.drain().len(), 2, "each has its own state");
        assert_eq!(node.core.post(&bob, reply.id, false).unwrap_err().status_code, 404);
        let since = PostQuery::Since { at: UnixMillis(reply.update_at), before: None };
        let gone = node.core.channel_posts(&bob, square, &since, &PostView::default()).unwrap();
        assert_eq!(gone.posts.len(), 2);
        assert!(gone.posts.values().all(|p| p.delete_at > 0 && p.message.is_empty()));
        let told = node.events.take();
        let deleted: Vec<_> = told.iter().filter(|e| e.event == "post_deleted").collect();
        assert_eq!(deleted.len(), 1);
        assert!(deleted[0].data["post"].as_str().unwrap().contains("\"message\":\"root\""));
    }

    #[test]
    fn a_mention_counts_and_is_announced_to_the_mentioned_alone() {
        let (node, alice, bob, square) = world();
        node.say(&alice, square, None, "@bob. come in");
        let unread = node.core.channel_unread(&bob, bob.user_id, square).unwrap();
        assert_eq!((unread.msg_count, unread.mention_count), (1, 1));
        let unread = node.core.channel_unread(&alice, alice.user_id, square).unwrap();
        assert_eq!((unread.msg_count, unread.mention_count), (0, 0));
        let told = node.events.take();
        let posted = told.iter().find(|e| e.event == "posted").unwrap();
        assert_eq!(posted.data["sender_name"], "@alice");
        assert_eq!(posted.per_user.keys().collect::<Vec<_>>(), [&bob.user_id]);
        assert_eq!(posted.per_user[&bob.user_id]["mentions"], format!("[\"{}\"]", bob.user_id));
        node.core.mark_channels_read(&bob, bob.user_id, &[square]).unwrap();
        assert_eq!(node.core.channel_unread(&bob, bob.user_id, square).unwrap().mention_count, 0);
    }

    #[test]
    fn the_rules_of_the_real_server_answer_with_its_ids() {
        let (node, alice, bob, square) = world();
        let refused = |new: &NewPost, by: &Session| node.core.create_post(by, new, true).unwrap_err();
        let long = "x".repeat(node.core.settings().max_post_runes + 1);
        assert_eq!(refused(&words(square, None, &long), &alice).id, "model.post.is_valid.message_length.app_error");
        let mut system = words(square, None, "x");
        system.kind = "system_join_channel".to_owned();
        assert_eq!(refused(&system, &alice).id, "api.context.invalid_param.app_error");
        let nowhere = words(node.core.random_id(), None, "x");
        assert_eq!(refused(&nowhere, &alice).id, "api.context.permissions.app_error");
        let root = node.say(&alice, square, None, "root");
        let reply = node.say(&alice, square, Some(root.id), "reply");
        let nested = words(square, Some(reply.id), "x");
        assert_eq!(refused(&nested, &alice).id, "api.post.create_post.root_id.app_error");
        let patch = PostPatch { message: Some("no".to_owned()), ..PostPatch::default() };
        let error = node.core.patch_post(&bob, root.id, &patch).unwrap_err();
        assert_eq!((error.id.as_ref(), error.status_code), ("api.context.permissions.app_error", 403));
    }

    #[test]
    fn a_reply_raises_its_root_and_an_urgent_priority_stays_with_the_root() {
        let (node, alice, _, square) = world();
        let mut new = words(square, None, "contact");
        let urgent = Priority { priority: "urgent".to_owned(), ..Priority::default() };
        new.metadata = Some(crate::types::NewPostMetadata { priority: Some(urgent.clone()) });
        let root = node.core.create_post(&alice, &new, true).unwrap();
        assert_eq!(root.metadata.priority, Some(urgent));
        node.advance(50);
        let reply = node.say(&alice, square, Some(root.id), "copy");
        assert_eq!(reply.create_at, START + 60);
        assert_eq!(node.core.post(&alice, root.id, false).unwrap().update_at, reply.create_at);
        new.root_id = root.id.to_string();
        assert_eq!(node.core.create_post(&alice, &new, true).unwrap_err().status_code, 400);
    }

    #[test]
    fn hashtags_are_found_in_every_script() {
        assert_eq!(hashtags("#sitrep, (#地図) #1 #a #élan!"), "#sitrep #地図 #élan");
    }
}
