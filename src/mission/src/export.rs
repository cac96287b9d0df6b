//! Every replicated object in a form that two nodes can be compared by.

use std::collections::BTreeMap;

use model::Id;
use rusqlite::Row;
use serde_json::{Value, json};

use crate::core::{Core, StoreError};
use crate::rows::{all, post_row, put_version};

/// The replicated objects, by id. Equal snapshots mean equal nodes.
///
/// Left out: what is a node's own (roles, credentials, read marks, its bot), and what is derived (counters,
/// suffixes of colliding names, edit history).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[allow(missing_docs, reason = "each is named after what it holds")]
pub struct Snapshot {
    pub users: BTreeMap<String, Value>,
    pub teams: BTreeMap<String, Value>,
    pub team_members: BTreeMap<String, Value>,
    pub channels: BTreeMap<String, Value>,
    pub channel_members: BTreeMap<String, Value>,
    pub posts: BTreeMap<String, Value>,
    pub reactions: BTreeMap<String, Value>,
    pub acknowledgements: BTreeMap<String, Value>,
    pub bookmarks: BTreeMap<String, Value>,
}

fn fields(r: &Row<'_>, texts: &[&str], numbers: &[&str]) -> rusqlite::Result<Value> {
    let mut object = serde_json::Map::new();
    for name in texts {
        object.insert((*name).to_owned(), r.get::<_, String>(*name)?.into());
    }
    for name in numbers {
        object.insert((*name).to_owned(), r.get::<_, i64>(*name)?.into());
    }
    let version = put_version(r)?;
    object.insert("version".to_owned(), format!("{}@{}", version.at.0, version.by).into());
    Ok(Value::Object(object))
}

fn key(r: &Row<'_>, columns: &[&str]) -> rusqlite::Result<String> {
    let parts: Vec<String> = columns.iter().map(|c| r.get(*c)).collect::<rusqlite::Result<_>>()?;
    Ok(parts.join("/"))
}

impl Core {
    /// Everything replicated, from one moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn export_snapshot(&self) -> Result<Snapshot, StoreError> {
        self.read(|db| {
            let table = |sql: &str, keys: &[&str], texts: &[&str], numbers: &[&str]| {
                let rows = all(db, sql, [], |r| Ok((key(r, keys)?, fields(r, texts, numbers)?)))?;
                Ok::<_, StoreError>(rows.into_iter().collect::<BTreeMap<_, _>>())
            };
            let shared = "(SELECT id FROM channels WHERE local = 0)";
            let times = &["create_at", "update_at", "delete_at"];
            let mut posts = BTreeMap::new();
            let sql = format!("SELECT * FROM posts WHERE original_id = '' AND channel_id IN {shared}");
            for p in all(db, &sql, [], post_row)? {
                let mut files = Vec::new();
                for file in &p.file_ids {
                    files.push(self.file_of_snapshot(db, *file)?);
                }
                let post = json!({
                    "channel_id": p.channel_id, "user_id": p.user_id, "root_id": p.root_id,
                    "create_at": p.create_at, "update_at": p.update_at, "edit_at": p.edit_at,
                    "delete_at": p.delete_at, "message": p.message, "type": p.kind, "props": p.props_map(),
                    "hashtags": p.hashtags, "is_pinned": p.is_pinned, "priority": p.priority, "files": files,
                    "version": format!("{}@{}", p.version.at.0, p.version.by),
                });
                posts.insert(p.id.to_string(), post);
            }
            Ok(Snapshot {
                users: table(
                    "SELECT * FROM users WHERE local = 0 AND placeholder = 0",
                    &["id"],
                    &["wanted_username", "email", "nickname", "first_name", "last_name", "position", "locale", "entra"],
                    &["create_at", "update_at", "delete_at", "is_bot"],
                )?,
                teams: table(
                    "SELECT * FROM teams",
                    &["id"],
                    &["wanted_name", "display_name", "description", "type"],
                    &["create_at", "update_at", "delete_at", "allow_open_invite"],
                )?,
                team_members: table(
                    "SELECT * FROM team_members",
                    &["team_id", "user_id"],
                    &[],
                    &["create_at", "delete_at", "scheme_admin"],
                )?,
                channels: table(
                    "SELECT * FROM channels WHERE local = 0",
                    &["id"],
                    &["team_id", "type", "wanted_name", "display_name", "header", "purpose", "creator_id"],
                    times,
                )?,
                channel_members: table(
                    &format!("SELECT * FROM channel_members WHERE channel_id IN {shared}"),
                    &["channel_id", "user_id"],
                    &[],
                    &["create_at", "delete_at", "scheme_admin"],
                )?,
                posts,
                reactions: table(
                    &format!("SELECT * FROM reactions WHERE channel_id IN {shared}"),
                    &["post_id", "user_id", "emoji_name"],
                    &["channel_id"],
                    times,
                )?,
                acknowledgements: table(
                    &format!("SELECT * FROM acknowledgements WHERE channel_id IN {shared}"),
                    &["post_id", "user_id"],
                    &["channel_id"],
                    &["acknowledged_at"],
                )?,
                bookmarks: table(
                    &format!("SELECT * FROM bookmarks WHERE channel_id IN {shared}"),
                    &["id"],
                    &[
                        "channel_id",
                        "owner_id",
                        "file_id",
                        "display_name",
                        "link_url",
                        "image_url",
                        "emoji",
                        "type",
                        "original_id",
                    ],
                    &["create_at", "update_at", "delete_at", "sort_order"],
                )?,
            })
        })
    }

    fn file_of_snapshot(&self, db: &rusqlite::Connection, file: Id) -> rusqlite::Result<Value> {
        let sql = "SELECT name, size, mime_type, width, height, hash FROM files WHERE id = ?1";
        let found = crate::rows::get(db, sql, [file.as_str()], |r| {
            Ok(json!({
                "id": file, "name": r.get::<_, String>(0)?, "size": r.get::<_, i64>(1)?,
                "mime_type": r.get::<_, String>(2)?, "width": r.get::<_, i64>(3)?, "height": r.get::<_, i64>(4)?,
                "hash": r.get::<_, String>(5)?,
            }))
        })?;
        Ok(found.unwrap_or(Value::Null))
    }
}
