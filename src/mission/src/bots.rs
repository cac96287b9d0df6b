//! Bots: accounts that sign in with tokens only and belong to somebody.
//!
//! A bot travels as a user like any other, so that its posts have an author everywhere. Who owns it is this node's own, and it is
//! managed here alone: elsewhere it is a user that says of itself that it is a bot.

use model::Id;
use rusqlite::{Connection, Row, params};

use crate::access::{may, require};
use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::rows::{all, get, id, run};
use crate::types::{Bot, BotPatch, Session, User, UserPatch};
use crate::users::{check_free, check_username, hash_password, new_row, page, require_user};

const DISPLAY_NAME_MAX_RUNES: usize = 64;
const DESCRIPTION_MAX_RUNES: usize = 1_024;
/// Bots of one node. Each is a row and a user; a mission has a few, and a script that makes them by mistake must end.
const BOTS_MAX: i64 = 1_000;

const BOT: &str = "SELECT b.*, u.username, u.first_name, u.bot_description, u.last_picture_update
    FROM bots b JOIN users u ON u.id = b.user_id";

fn bot_row(r: &Row<'_>) -> rusqlite::Result<Bot> {
    Ok(Bot {
        user_id: id(r, "user_id")?,
        username: r.get("username")?,
        display_name: r.get("first_name")?,
        description: r.get("bot_description")?,
        owner_id: r.get("owner_id")?,
        last_icon_update: r.get("last_picture_update")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
    })
}

fn missing() -> AppError {
    AppError::not_found("SqlBotStore.Get", "store.sql_bot.get.missing.app_error")
}

fn bot_by_id(db: &Connection, bot: Id) -> AppResult<Bot> {
    get(db, &format!("{BOT} WHERE b.user_id = ?1"), [bot.as_str()], bot_row)?.ok_or_else(missing)
}

/// Whoever may not even see the bot is told that there is none, as the original does.
fn require_manage(by: &Session, bot: &Bot) -> AppResult<()> {
    let own = bot.owner_id == by.user_id.as_str();
    let (manage, read) = if own { ("manage_bots", "read_bots") } else { ("manage_others_bots", "read_others_bots") };
    if may(by, manage) {
        return Ok(());
    }
    Err(if may(by, read) { AppError::permissions("manageBot", manage) } else { missing() })
}

pub(crate) fn check(display_name: &str, description: &str, username: &str) -> AppResult<()> {
    let bad = |field: &str| {
        let id = format!("model.bot.is_valid.{field}.app_error");
        AppError::bad("Bot.IsValid", id, format!("The {field} of the bot is not valid."))
    };
    check_username(username).map_err(|_| bad("username"))?;
    if display_name.chars().count() > DISPLAY_NAME_MAX_RUNES {
        // The original names this one wrongly, and clients know it so.
        return Err(bad("user_id"));
    }
    if description.chars().count() > DESCRIPTION_MAX_RUNES {
        return Err(bad("description"));
    }
    Ok(())
}

/// May there be one more?
pub(crate) fn require_room(db: &Connection) -> AppResult<()> {
    if crate::rows::count(db, "SELECT count(*) FROM bots", [])? < BOTS_MAX {
        return Ok(());
    }
    let message = "This server has as many bots as it can have.";
    Err(AppError::bad("createBot", "holdfast.bots.too_many.app_error", message))
}

impl Core {
    /// Makes a bot that belongs to the asker.
    ///
    /// # Errors
    /// 403 without `create_bot`, 400 for bad or taken names.
    pub fn create_bot(&self, by: &Session, new: &BotPatch) -> AppResult<Bot> {
        require("createBot", by, "create_bot")?;
        let username = new.username.as_deref().unwrap_or("").trim().to_lowercase();
        let display_name = new.display_name.clone().unwrap_or_default();
        let description = new.description.clone().unwrap_or_default();
        check(&display_name, &description, &username)?;
        self.write(|tx| {
            if require_user(&tx.db, by.user_id)?.user.is_bot {
                return Err(AppError::permissions("createBot", "create_bot"));
            }
            require_room(&tx.db)?;
            let mut row = new_row(tx.mint(), tx.now, username);
            row.user.is_bot = true;
            row.user.first_name = display_name;
            row.user.bot_description = description;
            check_free(&tx.db, &row.user)?;
            tx.save_user(&mut row, None)?;
            insert(tx, row.user.id, by.user_id.as_str())?;
            tx.tell(crate::events::Broadcast::to_all("new_user").with("user_id", row.user.id.as_str()));
            bot_by_id(&tx.db, row.user.id)
        })
    }

    /// A bot.
    ///
    /// # Errors
    /// 404 when there is none, when it is disabled and `include_deleted` is not set, or when the asker may not know it.
    pub fn bot(&self, by: &Session, bot: Id, include_deleted: bool) -> AppResult<Bot> {
        let found = self.read(|db| bot_by_id(db, bot))?;
        let own = found.owner_id == by.user_id.as_str();
        let known = may(by, "read_others_bots") || (own && may(by, "read_bots"));
        if known && (include_deleted || found.delete_at == 0) { Ok(found) } else { Err(missing()) }
    }

    /// Bots by page, oldest first; with `only_orphaned` those whose owner is deactivated.
    ///
    /// # Errors
    /// 403 without `read_bots`.
    pub fn bots(
        &self,
        by: &Session,
        include_deleted: bool,
        only_orphaned: bool,
        page_number: u32,
        per_page: u32,
    ) -> AppResult<Vec<Bot>> {
        let every = may(by, "read_others_bots");
        if !every {
            require("getBots", by, "read_bots")?;
        }
        let owner = if every { "" } else { by.user_id.as_str() };
        let (limit, offset) = page(page_number, per_page);
        let sql = format!(
            "{BOT} WHERE (?1 = '' OR b.owner_id = ?1) AND (?2 OR b.delete_at = 0) AND (NOT ?3 OR EXISTS
             (SELECT 1 FROM users o WHERE o.id = b.owner_id AND o.delete_at > 0))
             ORDER BY b.create_at, b.user_id LIMIT ?4 OFFSET ?5"
        );
        let values = params![owner, include_deleted, only_orphaned, limit, offset];
        self.read(|db| Ok(all(db, &sql, values, bot_row)?))
    }

    /// Changes names and description.
    ///
    /// # Errors
    /// 404 or 403 for others' bots, 400 for bad or taken names.
    pub fn patch_bot(&self, by: &Session, bot: Id, patch: &BotPatch) -> AppResult<Bot> {
        self.write(|tx| {
            let found = bot_by_id(&tx.db, bot)?;
            require_manage(by, &found)?;
            let mut row = require_user(&tx.db, bot)?;
            let before = row.version;
            let u = &mut row.user;
            if let Some(name) = patch.username.as_ref().map(|n| n.trim().to_lowercase()).filter(|n| *n != u.username) {
                u.email = format!("{name}@localhost");
                row.wanted_username.clone_from(&name);
                u.username = name;
            }
            if let Some(name) = &patch.display_name {
                u.first_name.clone_from(name);
            }
            if let Some(description) = &patch.description {
                u.bot_description.clone_from(description);
            }
            check(&u.first_name, &u.bot_description, &u.username)?;
            check_free(&tx.db, u)?;
            u.update_at = tx.now.max(u.update_at + 1);
            tx.save_user(&mut row, Some(before))?;
            run(&tx.db, "UPDATE bots SET update_at = ?2 WHERE user_id = ?1", params![bot.as_str(), tx.now])?;
            tx.tell_user_updated(&row.user);
            bot_by_id(&tx.db, bot)
        })
    }

    /// Switches a bot off, which ends its sessions and tokens' use, or on.
    ///
    /// # Errors
    /// 404 or 403 for others' bots.
    pub fn set_bot_active(&self, by: &Session, bot: Id, active: bool) -> AppResult<Bot> {
        self.write(|tx| {
            let found = bot_by_id(&tx.db, bot)?;
            require_manage(by, &found)?;
            tx.set_active(bot, active)?;
            if (found.delete_at == 0) != active {
                let at = if active { 0 } else { tx.now };
                let sql = "UPDATE bots SET delete_at = ?2, update_at = ?3 WHERE user_id = ?1";
                run(&tx.db, sql, params![bot.as_str(), at, tx.now])?;
            }
            bot_by_id(&tx.db, bot)
        })
    }

    /// Gives a bot to another user.
    ///
    /// # Errors
    /// 404 or 403 for others' bots, 403 when the new owner is a bot.
    pub fn assign_bot(&self, by: &Session, bot: Id, owner: Id) -> AppResult<Bot> {
        self.write(|tx| {
            require_manage(by, &bot_by_id(&tx.db, bot)?)?;
            if require_user(&tx.db, owner)?.user.is_bot {
                return Err(AppError::permissions("assignBot", "assign_bot"));
            }
            let sql = "UPDATE bots SET owner_id = ?2, update_at = ?3 WHERE user_id = ?1";
            run(&tx.db, sql, params![bot.as_str(), owner.as_str(), tx.now])?;
            bot_by_id(&tx.db, bot)
        })
    }

    /// Makes an ordinary account of a bot: from here on it signs in with the password.
    ///
    /// # Errors
    /// 403 for others than system administrators, 404 for no such bot, 400 for a weak password.
    pub fn convert_bot_to_user(&self, by: &Session, bot: Id, patch: &UserPatch, admin: bool) -> AppResult<User> {
        require("convertBotToUser", by, "manage_system")?;
        let password = patch.password.as_deref().filter(|p| !p.is_empty());
        let password = password.ok_or_else(|| AppError::body_param("convertBotToUser", "userPatch"))?;
        self.0.check_password(password)?;
        let hash = hash_password(password)?;
        self.write(|tx| {
            bot_by_id(&tx.db, bot)?;
            let mut row = require_user(&tx.db, bot)?;
            let before = row.version;
            row.password = hash;
            row.user.is_bot = false;
            row.user.update_at = tx.now.max(row.user.update_at + 1);
            row.user.last_password_update = tx.now;
            if admin {
                row.user.roles = "system_user system_admin".to_owned();
            }
            run(&tx.db, "DELETE FROM bots WHERE user_id = ?1", [bot.as_str()])?;
            tx.save_user(&mut row, Some(before))?;
            tx.tell_user_updated(&row.user);
            Ok::<_, AppError>(())
        })?;
        let profile = UserPatch { password: None, ..patch.clone() };
        self.patch_user(by, bot, &profile)
    }

    /// Makes a bot of an ordinary account, which it owns itself. Its sessions end.
    ///
    /// # Errors
    /// 403 for others than system administrators, 404 for no such user.
    pub fn convert_user_to_bot(&self, by: &Session, user: Id) -> AppResult<Bot> {
        require("convertUserToBot", by, "manage_system")?;
        self.write(|tx| {
            let mut row = require_user(&tx.db, user)?;
            if row.user.is_bot {
                return bot_by_id(&tx.db, user);
            }
            let before = row.version;
            row.user.is_bot = true;
            row.password.clear();
            row.user.update_at = tx.now.max(row.user.update_at + 1);
            insert(tx, user, user.as_str())?;
            run(&tx.db, "DELETE FROM sessions WHERE user_id = ?1", [user.as_str()])?;
            tx.sessions_ended.push(user);
            tx.save_user(&mut row, Some(before))?;
            tx.tell_user_updated(&row.user);
            bot_by_id(&tx.db, user)
        })
    }
}

pub(crate) fn insert(tx: &mut Tx<'_>, bot: Id, owner: &str) -> AppResult<()> {
    let sql = "INSERT INTO bots (user_id, owner_id, create_at, update_at, delete_at) VALUES (?1, ?2, ?3, ?3, 0)";
    run(&tx.db, sql, params![bot.as_str(), owner, tx.now])?;
    Ok(())
}

impl Tx<'_> {
    /// The bots of a user whose account was deactivated stop with it.
    pub(crate) fn disable_bots_of(&mut self, owner: Id) -> AppResult<()> {
        let sql = "SELECT user_id FROM bots WHERE owner_id = ?1 AND user_id <> ?1 AND delete_at = 0";
        for bot in all(&self.db, sql, [owner.as_str()], crate::rows::first_id)? {
            self.set_active(bot, false)?;
            let sql = "UPDATE bots SET delete_at = ?2, update_at = ?2 WHERE user_id = ?1";
            run(&self.db, sql, params![bot.as_str(), self.now])?;
        }
        Ok(())
    }
}
