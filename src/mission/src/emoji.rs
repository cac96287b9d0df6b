//! Custom emoji: a name and a small picture that every client shows, here and at the other nodes.
//!
//! Names are unique on a node. Two nodes may make the same name apart; then each shows the other's with the origin's name
//! added, as with channels.

use std::collections::BTreeSet;

use model::event::EmojiState;
use model::{Event, Id, UnixMillis, Version};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::access::{may, may_in_team};
use crate::core::{Core, Tx, version_of};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::images::{self, EmojiError};
use crate::rows::{all, count, exists, first_id, get, id, run, to_json};
use crate::types::Session;
use crate::users::page;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Emoji of one node. Each may hold half a mebibyte in the database and on the link.
const EMOJI_MAX: i64 = 5_000;
/// Most emoji in an answer to a search.
const SEARCH_MAX: i64 = 200;
const AUTOCOMPLETE_MAX: i64 = 100;
/// Names looked for in one post.
const NAMES_PER_POST_MAX: usize = 100;

/// A custom emoji.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Emoji {
    pub(crate) id: Id,
    pub(crate) create_at: i64,
    pub(crate) update_at: i64,
    pub(crate) delete_at: i64,
    pub(crate) creator_id: Id,
    pub(crate) name: String,
}

/// The `emoji` field of `POST /emoji`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NewEmoji {
    pub(crate) creator_id: String,
    pub(crate) name: String,
}

impl Core {
    /// Makes an emoji of a picture, made small.
    ///
    /// # Errors
    /// 403 without permission or for another user, 400 for a bad name or picture.
    pub(crate) fn create_emoji(&self, by: &Session, new: &NewEmoji, image: &[u8]) -> AppResult<Emoji> {
        const WHERE: &str = "CreateEmoji";
        self.read(|db| require_anywhere(db, by, WHERE, "create_emojis"))?;
        check_name(&new.name)?;
        if new.creator_id != by.user_id.as_str() {
            let message = "Invalid user id.";
            return Err(AppError::new(WHERE, "api.emoji.create.other_user.app_error", message, 403));
        }
        let bad = |id: &'static str, message: &'static str| AppError::bad("uploadEmojiImage", id, message);
        let image = images::emoji(image).map_err(|error| match error {
            EmojiError::NoPicture => {
                bad("api.emoji.upload.image.app_error", "Unable to create emoji. The file must be a PNG, JPEG, or GIF.")
            }
            EmojiError::TooLarge => bad(
                "api.emoji.upload.large_image.too_large.app_error",
                "Unable to create emoji. Image must be smaller than 1028 by 1028 and its file than 512 KiB.",
            ),
            EmojiError::Broken => {
                bad("api.emoji.upload.large_image.decode_error", "Unable to create emoji. The image could not be read.")
            }
        })?;
        self.write(|tx| {
            let duplicate = || {
                let message = "Unable to create emoji. Another emoji with the same name already exists.";
                AppError::bad(WHERE, "api.emoji.create.duplicate.app_error", message)
            };
            if exists(&tx.db, "SELECT 1 FROM emoji WHERE name = ?1 AND delete_at = 0", [&new.name])? {
                return Err(duplicate());
            }
            let emoji = tx.add_emoji(by.user_id, &new.name, image)?;
            tx.tell_emoji(&emoji);
            Ok(emoji)
        })
    }

    /// Takes an emoji away. Reactions with it stay and are shown as text.
    ///
    /// # Errors
    /// 404, or 403 without permission.
    pub(crate) fn delete_emoji(&self, by: &Session, id: Id) -> AppResult<()> {
        const WHERE: &str = "deleteEmoji";
        self.write(|tx| {
            let emoji = require_emoji(&tx.db, id)?;
            require_anywhere(&tx.db, by, WHERE, "delete_emojis")?;
            if emoji.creator_id != by.user_id {
                require_anywhere(&tx.db, by, WHERE, "delete_others_emojis")?;
            }
            let current = version_of(&tx.db, VERSION, [id.as_str()])?;
            let wanted = get(&tx.db, "SELECT wanted_name FROM emoji WHERE id = ?1", [id.as_str()], |r| r.get(0))?;
            let at = tx.tick();
            let state = EmojiState {
                version: tx.version_after(at, current),
                id,
                create_at: UnixMillis(emoji.create_at),
                update_at: UnixMillis(tx.now),
                delete_at: UnixMillis(tx.now),
                creator_id: emoji.creator_id,
                name: wanted.unwrap_or_default(),
                image: Vec::new(),
            };
            tx.put_emoji(&state, &emoji.name)?;
            tx.emit(at, &Event::Emoji(state))?;
            Ok(())
        })
    }

    /// Emoji by page, the newest first or by name.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn emoji_list(&self, by_name: bool, page_number: u32, per_page: u32) -> AppResult<Vec<Emoji>> {
        let (limit, offset) = page(page_number, per_page);
        let order = if by_name { "name" } else { "create_at, id" };
        let sql = format!("SELECT * FROM emoji WHERE delete_at = 0 ORDER BY {order} LIMIT ?1 OFFSET ?2");
        self.read(|db| Ok(all(db, &sql, [limit, offset], emoji)?))
    }

    /// One emoji.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn emoji(&self, id: Id) -> AppResult<Emoji> {
        self.read(|db| require_emoji(db, id))
    }

    /// Emoji with these names; there may be fewer.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn emoji_by_names(&self, names: &[String]) -> AppResult<Vec<Emoji>> {
        self.read(|db| Ok(by_names(db, names)?))
    }

    /// Emoji whose name begins with the term or holds it.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn search_emoji(&self, term: &str, prefix_only: bool, autocomplete: bool) -> AppResult<Vec<Emoji>> {
        let limit = if autocomplete { AUTOCOMPLETE_MAX } else { SEARCH_MAX };
        let place = if prefix_only { "= 1" } else { "> 0" };
        let sql = format!(
            "SELECT * FROM emoji WHERE delete_at = 0 AND instr(lower(name), lower(?1)) {place} ORDER BY name LIMIT ?2"
        );
        self.read(|db| Ok(all(db, &sql, params![term, limit], emoji)?))
    }

    /// Its picture.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn emoji_image(&self, id: Id) -> AppResult<Vec<u8>> {
        let sql = "SELECT image FROM emoji WHERE id = ?1 AND delete_at = 0";
        self.read(|db| get(db, sql, [id.as_str()], |r| r.get(0))?.ok_or_else(missing))
    }
}

impl Tx<'_> {
    /// Makes an emoji of a free name and of a picture that is small already.
    pub(crate) fn add_emoji(&mut self, creator: Id, name: &str, image: Vec<u8>) -> AppResult<Emoji> {
        if count(&self.db, "SELECT count(*) FROM emoji WHERE delete_at = 0", [])? >= EMOJI_MAX {
            let message = "There are too many custom emoji. Delete some first.";
            return Err(AppError::bad("CreateEmoji", "holdfast.emoji.too_many.app_error", message));
        }
        let at = self.tick();
        let state = EmojiState {
            version: self.version_after(at, None),
            id: self.mint(),
            create_at: UnixMillis(self.now),
            update_at: UnixMillis(self.now),
            delete_at: UnixMillis(0),
            creator_id: creator,
            name: name.to_owned(),
            image,
        };
        self.put_emoji(&state, &state.name)?;
        self.emit(at, &Event::Emoji(state.clone()))?;
        Ok(emoji_of(&state, &state.name))
    }

    pub(crate) fn put_emoji(&mut self, s: &EmojiState, shown: &str) -> rusqlite::Result<()> {
        let sql =
            "INSERT INTO emoji (id, create_at, update_at, delete_at, creator_id, name, wanted_name, image, ver_at,
                ver_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET update_at = excluded.update_at, delete_at = excluded.delete_at,
                name = excluded.name, wanted_name = excluded.wanted_name, image = excluded.image,
                ver_at = excluded.ver_at, ver_by = excluded.ver_by";
        let values = params![
            s.id.as_str(),
            s.create_at.0,
            s.update_at.0,
            s.delete_at.0,
            s.creator_id.as_str(),
            shown,
            s.name,
            s.image,
            s.version.at.0 as i64,
            s.version.by.0,
        ];
        run(&self.db, sql, values).map(drop)
    }

    pub(crate) fn tell_emoji(&mut self, emoji: &Emoji) {
        self.tell(Broadcast::to_all("emoji_added").with_text("emoji", emoji));
    }
}

/// What of a state of another node cannot be: its name and picture go to every client here.
pub(crate) fn impossible_in(s: &EmojiState) -> Option<&'static str> {
    let is_name = is_name(&s.name);
    match (is_name, s.delete_at.0 > 0) {
        (false, _) => Some("the name of an emoji has characters that none may have"),
        (true, true) if !s.image.is_empty() => Some("a deleted emoji has no picture"),
        (true, true) => None,
        (true, false) if s.image.len() > EmojiState::IMAGE_BYTES_MAX => Some("the picture of an emoji is too large"),
        (true, false) if images::emoji_mime(&s.image).is_none() => Some("the picture of an emoji is none"),
        (true, false) => None,
    }
}

pub(crate) fn emoji_of(s: &EmojiState, shown: &str) -> Emoji {
    Emoji {
        id: s.id,
        create_at: s.create_at.0,
        update_at: s.update_at.0,
        delete_at: s.delete_at.0,
        creator_id: s.creator_id,
        name: shown.to_owned(),
    }
}

pub(crate) const VERSION: &str = "SELECT ver_at, ver_by FROM emoji WHERE id = ?1";

/// Version and creation of a known emoji.
pub(crate) fn known(db: &Connection, id: Id) -> rusqlite::Result<Option<(Version, i64)>> {
    let at = get(db, "SELECT create_at FROM emoji WHERE id = ?1", [id.as_str()], |r| r.get(0))?;
    Ok(version_of(db, VERSION, [id.as_str()])?.zip(at))
}

/// The custom emoji that a text names between colons, by what reactions name besides.
pub(crate) fn named_in(
    db: &Connection,
    message: &str,
    reactions: &[crate::types::Reaction],
) -> rusqlite::Result<Vec<Emoji>> {
    if message.matches(':').take(2).count() < 2 && reactions.is_empty() {
        return Ok(Vec::new());
    }
    let words = message.split(':').filter(|word| is_name(word));
    let names: BTreeSet<&str> =
        words.chain(reactions.iter().map(|r| r.emoji_name.as_str())).take(NAMES_PER_POST_MAX).collect();
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    if names.is_empty() { Ok(Vec::new()) } else { by_names(db, &names) }
}

fn by_names(db: &Connection, names: &[String]) -> rusqlite::Result<Vec<Emoji>> {
    let sql = "SELECT * FROM emoji WHERE name IN (SELECT value FROM json_each(?1)) AND delete_at = 0 ORDER BY name";
    all(db, sql, [to_json(&names)], emoji)
}

fn emoji(r: &Row<'_>) -> rusqlite::Result<Emoji> {
    Ok(Emoji {
        id: id(r, "id")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
        creator_id: id(r, "creator_id")?,
        name: r.get("name")?,
    })
}

fn missing() -> AppError {
    AppError::not_found("GetEmoji", "app.emoji.get.no_result")
}

fn require_emoji(db: &Connection, id: Id) -> AppResult<Emoji> {
    get(db, "SELECT * FROM emoji WHERE id = ?1 AND delete_at = 0", [id.as_str()], emoji)?.ok_or_else(missing)
}

/// By the session's own roles, or those in any team.
fn require_anywhere(db: &Connection, by: &Session, where_: &'static str, permission: &str) -> AppResult<()> {
    if may(by, permission) {
        return Ok(());
    }
    let sql = "SELECT team_id FROM team_members WHERE user_id = ?1 AND delete_at = 0";
    for team in all(db, sql, [by.user_id.as_str()], first_id)? {
        if may_in_team(db, by, team, permission)? {
            return Ok(());
        }
    }
    Err(AppError::permissions(where_, permission))
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_+".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Do clients have an emoji of this name by themselves?
pub(crate) fn is_system(name: &str) -> bool {
    emojis::get_by_shortcode(name).is_some()
}

pub(crate) fn check_name(name: &str) -> AppResult<()> {
    if !is_name(name) {
        let message = "Name must be 1 to 64 lowercase alphanumeric characters.";
        return Err(AppError::bad("Emoji.IsValid", "model.emoji.name.app_error", message));
    }
    if is_system(name) {
        let message = "Name conflicts with existing system emoji name.";
        return Err(AppError::bad("Emoji.IsValid", "model.emoji.system_emoji_name.app_error", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;
    use crate::images::tests::picture;
    use crate::replica::Applied;
    use crate::testkit::{Node, Sent};

    fn make(node: &Node, by: &Session, name: &str) -> Emoji {
        let new = NewEmoji { creator_id: by.user_id.to_string(), name: name.to_owned() };
        node.core.create_emoji(by, &new, &picture(32, 32, ImageFormat::Png)).unwrap()
    }

    #[test]
    fn an_emoji_goes_to_the_other_node_with_its_picture_and_away_again() {
        let (a, b) = (Node::new(1), Node::new(2));
        let alice = a.user("alice");
        let (_, square) = a.team(&alice, "mission");
        let emoji = make(&a, &alice, "hold-fast");
        let post = a.say(&alice, square.id, None, "we :hold-fast: at 10:30: and :nothing:");
        b.apply(&a.drain());
        let reader = b.enrol("alice");
        assert_eq!(b.core.emoji(emoji.id).unwrap(), emoji);
        assert_eq!(b.core.emoji_image(emoji.id).unwrap(), a.core.emoji_image(emoji.id).unwrap());
        let shown = b.core.post(&reader, post.id, false).unwrap().metadata.emojis;
        assert_eq!(shown, [serde_json::to_value(&emoji).unwrap()]);
        a.core.delete_emoji(&alice, emoji.id).unwrap();
        assert_eq!(b.apply(&a.drain()), [Applied::Applied]);
        assert_eq!(b.core.emoji(emoji.id).unwrap_err().status_code, 404);
        assert_eq!(b.core.emoji_image(emoji.id).unwrap_err().status_code, 404);
        assert!(b.outbox().is_empty());
        make(&a, &alice, "hold-fast");
    }

    #[test]
    fn the_same_name_made_apart_is_shown_with_the_origin_and_older_states_change_nothing() {
        let (a, b) = (Node::new(1), Node::new(2));
        let (alice, bob) = (a.user("alice"), b.user("bob"));
        b.core.replica().set_node_name(a.id(), "alpha").unwrap();
        let (one, two) = (make(&a, &alice, "our-boat"), make(&b, &bob, "our-boat"));
        let sent: Vec<Sent> = a.drain();
        b.apply(&sent);
        assert_eq!(b.core.emoji(two.id).unwrap().name, "our-boat");
        assert_eq!(b.core.emoji(one.id).unwrap().name, "our-boat-alpha");
        a.core.delete_emoji(&alice, one.id).unwrap();
        b.apply(&a.drain());
        let mut again = sent.last().unwrap().clone();
        again.id.seq = model::Seq::new(900).unwrap();
        assert_eq!(b.apply(&[again]), [Applied::Applied]);
        assert_eq!(b.core.emoji(one.id).unwrap_err().status_code, 404, "it stays away");
    }

    #[test]
    fn what_no_client_could_show_is_kept_aside() {
        let (a, b) = (Node::new(1), Node::new(2));
        let alice = a.user("alice");
        make(&a, &alice, "our-boat");
        let sent = a.drain();
        let spoil = |n: u64, spoil: &dyn Fn(&mut EmojiState)| {
            let mut evil = sent.last().unwrap().clone();
            evil.id.seq = model::Seq::new(900 + n).unwrap();
            let Event::Emoji(state) = &mut evil.event else { panic!("an emoji") };
            state.id = b.core.random_id();
            spoil(state);
            assert!(matches!(b.apply(&[evil])[0], Applied::Quarantined { .. }), "{n}");
        };
        spoil(1, &|s| s.name = "a\"><script>".to_owned());
        spoil(2, &|s| s.image = b"<svg onload=alert(1)>".to_vec());
        spoil(3, &|s| s.image = vec![0; EmojiState::IMAGE_BYTES_MAX + 1]);
        spoil(4, &|s| s.image = picture(200, 200, ImageFormat::Png));
        spoil(5, &|s| s.delete_at = UnixMillis(1));
    }
}
