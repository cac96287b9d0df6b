//! Drafts: messages that are not posted yet, shared by the clients of their writer. This node's own.

use model::Id;
use rusqlite::{Connection, Row, params};
use serde_json::{Map, Value};

use crate::access::require_in_team;
use crate::channels::require_channel;
use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::posts::{FILES_MAX, check_props, files_of, require_create_post};
use crate::rows::{all, count, get, id, id_array, opt_id, run, text, to_json};
use crate::types::{Draft, NewDraft, PostMetadata, Session};

/// Most drafts of one user; nobody has so many messages half written.
const DRAFTS_MAX: i64 = 1_000;

/// What drafts and scheduled posts have in common. The metadata is added by [`with_files`].
pub(crate) fn draft_row(r: &Row<'_>) -> rusqlite::Result<Draft> {
    let map = |column| -> rusqlite::Result<Map<String, Value>> {
        Ok(serde_json::from_str(r.get_ref(column)?.as_str()?).unwrap_or_default())
    };
    Ok(Draft {
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: 0,
        user_id: id(r, "user_id")?,
        channel_id: id(r, "channel_id")?,
        root_id: opt_id(r, "root_id")?,
        message: r.get("message")?,
        kind: r.get("type")?,
        props: map("props")?,
        file_ids: serde_json::from_str(r.get_ref("file_ids")?.as_str()?).unwrap_or_default(),
        metadata: PostMetadata::default(),
        priority: map("priority")?,
    })
}

/// Adds what is known of the draft's files, as far as they are still its writer's to attach.
pub(crate) fn with_files(db: &Connection, draft: &mut Draft) -> rusqlite::Result<()> {
    let mut files = files_of(db, &draft.file_ids)?;
    files.retain(|f| f.user_id == draft.user_id && f.post_id.is_none() && f.delete_at == 0);
    draft.metadata.files = files;
    Ok(())
}

/// What a draft may carry besides its message: all of a user's are answered at once.
const EXTRAS_MAX_BYTES: usize = 20_000;

/// A draft as it would be saved, checked as the real server checks it.
pub(crate) fn checked(tx: &Tx<'_>, by: &Session, new: &NewDraft) -> AppResult<Draft> {
    let bad = |field: &str| {
        Err(AppError::bad(
            "Drafts.IsValid",
            format!("model.draft.is_valid.{field}.app_error"),
            "The draft is not valid.",
        ))
    };
    let Ok(channel_id) = new.channel_id.parse() else {
        return Err(AppError::permissions("draft", "create_post"));
    };
    let root_id: Option<Id> = match new.root_id.as_str() {
        "" => None,
        text => match text.parse() {
            Ok(root) => Some(root),
            Err(_) => return bad("root_id"),
        },
    };
    if new.message.chars().count() > tx.core.settings.max_post_runes {
        return bad("message_length");
    }
    if new.kind.len() > 26 {
        return bad("type");
    }
    let mut file_ids: Vec<Id> = Vec::new();
    for file in &new.file_ids {
        match file.parse() {
            Ok(file) if !file_ids.contains(&file) => file_ids.push(file),
            Ok(_) => {}
            Err(_) => return bad("file_ids"),
        }
    }
    if file_ids.len() > FILES_MAX {
        return bad("file_ids");
    }
    check_props(&new.priority)?;
    if check_props(&new.props)?.len() + to_json(&new.priority).len() > EXTRAS_MAX_BYTES {
        return bad("props");
    }
    Ok(Draft {
        create_at: tx.now,
        update_at: tx.now,
        delete_at: 0,
        user_id: by.user_id,
        channel_id,
        root_id,
        message: new.message.clone(),
        kind: new.kind.clone(),
        props: serde_json::from_str(&check_props(&new.props)?).unwrap_or_default(),
        file_ids,
        metadata: PostMetadata::default(),
        priority: new.priority.clone(),
    })
}

const ONE: &str = "SELECT * FROM drafts WHERE user_id = ?1 AND channel_id = ?2 AND root_id = ?3";

impl Tx<'_> {
    fn tell_draft(&mut self, event: &'static str, draft: &Draft, connection: Option<Id>) {
        let mut told = Broadcast::to_user(event, draft.user_id).with_text("draft", draft);
        told.channel_id = Some(draft.channel_id);
        self.tell(told.omitting_connection(connection));
    }

    /// What was to be answered is gone: so are the drafts of answers.
    pub(crate) fn forget_drafts_of(&mut self, thread: Id) -> rusqlite::Result<()> {
        run(&self.db, "DELETE FROM drafts WHERE root_id = ?1 AND root_id <> ''", [thread.as_str()])?;
        Ok(())
    }
}

impl Core {
    /// Saves a draft, or removes the one that is there where the message is empty. `connection` is that of the client.
    ///
    /// # Errors
    /// 403 where the user may not post, 400 for a bad draft, an archived channel or too many drafts.
    pub fn save_draft(&self, by: &Session, new: &NewDraft, connection: Option<Id>) -> AppResult<Option<Draft>> {
        self.write(|tx| {
            let mut draft = checked(tx, by, new)?;
            let refused = |_| AppError::permissions("upsertDraft", "create_post");
            let c = require_channel(&tx.db, draft.channel_id).map_err(refused)?.channel;
            require_create_post(&tx.db, by, &c)?;
            if c.delete_at > 0 {
                return Err(AppError::bad(
                    "CreateDraft",
                    "api.draft.create_draft.can_not_draft_to_deleted.error",
                    "Can not draft to a deleted channel.",
                ));
            }
            let key = [by.user_id.as_str(), draft.channel_id.as_str(), text(&draft.root_id)];
            if draft.message.is_empty() {
                let sql = "DELETE FROM drafts WHERE user_id = ?1 AND channel_id = ?2 AND root_id = ?3";
                run(&tx.db, sql, key)?;
                return Ok(None);
            }
            match get(&tx.db, ONE, key, draft_row)? {
                Some(before) => draft.create_at = before.create_at,
                None if count(&tx.db, "SELECT count(*) FROM drafts WHERE user_id = ?1", [key[0]])? >= DRAFTS_MAX => {
                    return Err(AppError::bad(
                        "CreateDraft",
                        "holdfast.draft.too_many.app_error",
                        "There are too many drafts; delete some.",
                    ));
                }
                None => {}
            }
            run(
                &tx.db,
                "INSERT INTO drafts (user_id, channel_id, root_id, create_at, update_at, message, type, props, file_ids,
                    priority) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (user_id, channel_id, root_id) DO UPDATE SET update_at = excluded.update_at,
                    message = excluded.message, type = excluded.type, props = excluded.props,
                    file_ids = excluded.file_ids, priority = excluded.priority",
                params![
                    key[0],
                    key[1],
                    key[2],
                    draft.create_at,
                    draft.update_at,
                    draft.message,
                    draft.kind,
                    to_json(&draft.props),
                    id_array(&draft.file_ids),
                    to_json(&draft.priority),
                ],
            )?;
            with_files(&tx.db, &mut draft)?;
            tx.tell_draft("draft_created", &draft, connection);
            Ok(Some(draft))
        })
    }

    /// The user's drafts in a team and in direct channels, the latest first.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn drafts(&self, by: &Session, team: Id) -> AppResult<Vec<Draft>> {
        self.read(|db| {
            require_in_team("getDrafts", db, by, team, "view_team")?;
            let sql = "SELECT d.* FROM drafts d JOIN channels c ON c.id = d.channel_id
                JOIN channel_members m ON m.channel_id = d.channel_id AND m.user_id = d.user_id AND m.delete_at = 0
                WHERE d.user_id = ?1 AND c.team_id IN (?2, '') ORDER BY d.update_at DESC, d.channel_id";
            let mut drafts = all(db, sql, [by.user_id.as_str(), team.as_str()], draft_row)?;
            for draft in &mut drafts {
                with_files(db, draft)?;
            }
            Ok(drafts)
        })
    }

    /// Removes a draft of a channel or thread; one that is not there is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete_draft(&self, by: &Session, channel: Id, root: Option<Id>, connection: Option<Id>) -> AppResult<()> {
        self.write(|tx| {
            let key = [by.user_id.as_str(), channel.as_str(), text(&root)];
            let Some(draft) = get(&tx.db, ONE, key, draft_row)? else { return Ok(()) };
            run(&tx.db, "DELETE FROM drafts WHERE user_id = ?1 AND channel_id = ?2 AND root_id = ?3", key)?;
            tx.tell_draft("draft_deleted", &draft, connection);
            Ok(())
        })
    }
}
