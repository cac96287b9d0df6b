//! What administrators do with accounts besides changing profiles, and what people may know of each other.

use model::Id;
use rusqlite::params;

use crate::access::require;
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::rows::{all, count, first_id, run, to_json, user};
use crate::sessions::token_row;
use crate::types::{Session, User, UserAccessToken};
use crate::users::{page, require_user};

/// Which accounts [`Core::count_users`] counts.
#[derive(Clone, Debug, Default)]
pub struct UserCount {
    /// Members of this team.
    pub in_team: Option<Id>,
    /// Members of this channel.
    pub in_channel: Option<Id>,
    /// Deactivated ones, too.
    pub include_deleted: bool,
    /// Bots, too.
    pub include_bots: bool,
    /// With one of these roles; empty for all.
    pub roles: Vec<String>,
}

impl Core {
    /// Lets an account that too many wrong passwords locked sign in again.
    ///
    /// # Errors
    /// 403 without `sysconsole_write_user_management_users`, 404 for no such user.
    pub fn reset_failed_attempts(&self, by: &Session, id: Id) -> AppResult<()> {
        require("resetPasswordFailedAttempts", by, "sysconsole_write_user_management_users").map_err(|e| AppError {
            id: "api.user.reset_password_failed_attempts.permissions.app_error".into(),
            ..e
        })?;
        self.write(|tx| {
            require_user(&tx.db, id)?;
            run(&tx.db, "UPDATE users SET failed_attempts = 0 WHERE id = ?1", [id.as_str()])?;
            Ok(())
        })
    }

    /// Everybody with whom the asker shares a channel.
    ///
    /// # Errors
    /// When the store fails.
    pub fn known_users(&self, by: &Session) -> AppResult<Vec<Id>> {
        let sql = "SELECT DISTINCT other.user_id FROM channel_members own
            JOIN channel_members other ON other.channel_id = own.channel_id AND other.delete_at = 0
            WHERE own.user_id = ?1 AND own.delete_at = 0 AND other.user_id <> ?1";
        self.read(|db| Ok(all(db, sql, [by.user_id.as_str()], first_id)?))
    }

    /// How many accounts there are of a kind.
    ///
    /// # Errors
    /// 403 without `sysconsole_read_user_management_users`.
    pub fn count_users(&self, by: &Session, which: &UserCount) -> AppResult<i64> {
        require("getFilteredUsersStats", by, "sysconsole_read_user_management_users")?;
        let sql = "SELECT count(*) FROM users u WHERE (?1 OR delete_at = 0) AND (?2 OR is_bot = 0)
            AND (?3 = '' OR id IN (SELECT user_id FROM team_members WHERE team_id = ?3 AND delete_at = 0))
            AND (?4 = '' OR id IN (SELECT user_id FROM channel_members WHERE channel_id = ?4 AND delete_at = 0))
            AND (?5 = '[]' OR EXISTS
                (SELECT 1 FROM json_each(?5) role WHERE instr(' ' || u.roles || ' ', ' ' || role.value || ' ') > 0))";
        let text = |id: &Option<Id>| id.map(|id| id.to_string()).unwrap_or_default();
        let values = params![
            which.include_deleted,
            which.include_bots,
            text(&which.in_team),
            text(&which.in_channel),
            to_json(&which.roles)
        ];
        self.read(|db| Ok(count(db, sql, values)?))
    }

    /// Accounts whose mail address can reach nobody.
    ///
    /// # Errors
    /// 403 without `sysconsole_read_user_management_users`, 400 where registration is open.
    pub fn users_with_invalid_emails(&self, by: &Session, page_number: u32, per_page: u32) -> AppResult<Vec<User>> {
        if self.0.settings.open_registration {
            let message = "TeamSettings.EnableOpenServer is enabled";
            return Err(AppError::bad("GetUsersWithInvalidEmails", "", message));
        }
        require("getUsersWithInvalidEmails", by, "sysconsole_read_user_management_users")?;
        let (limit, offset) = page(page_number, per_page);
        let sql = "SELECT * FROM users WHERE is_bot = 0 AND local = 0 AND (email NOT LIKE '%_@_%' OR email LIKE '%@localhost')
            ORDER BY username LIMIT ?1 OFFSET ?2";
        self.read(|db| Ok(all(db, sql, [limit, offset], user)?))
    }

    /// Ends every session of everybody, also the asker's.
    ///
    /// # Errors
    /// 403 for others than system administrators.
    pub fn revoke_everybodys_sessions(&self, by: &Session) -> AppResult<()> {
        require("revokeAllSessionsAllUsers", by, "manage_system")?;
        self.write(|tx| {
            let sql = "SELECT DISTINCT user_id FROM sessions";
            let users = all(&tx.db, sql, [], first_id)?;
            run(&tx.db, "DELETE FROM sessions", [])?;
            tx.sessions_ended.extend(users);
            Ok(())
        })
    }

    /// Everybody's tokens by page, without the tokens themselves.
    ///
    /// # Errors
    /// 403 for others than system administrators.
    pub fn everybodys_tokens(&self, by: &Session, page_number: u32, per_page: u32) -> AppResult<Vec<UserAccessToken>> {
        require("getUserAccessTokens", by, "manage_system")?;
        let (limit, offset) = page(page_number, per_page);
        let sql = "SELECT * FROM access_tokens ORDER BY create_at, id LIMIT ?1 OFFSET ?2";
        self.read(|db| Ok(all(db, sql, [limit, offset], token_row)?))
    }

    /// Tokens whose id, or whose user's id or name, starts with `term`.
    ///
    /// # Errors
    /// 403 for others than system administrators, 400 for an empty term.
    pub fn search_tokens(&self, by: &Session, term: &str) -> AppResult<Vec<UserAccessToken>> {
        require("searchUserAccessTokens", by, "manage_system")?;
        if term.is_empty() {
            return Err(AppError::body_param("searchUserAccessTokens", "term"));
        }
        let sql = "SELECT t.* FROM access_tokens t JOIN users u ON u.id = t.user_id
            WHERE instr(t.id, ?1) = 1 OR instr(t.user_id, ?1) = 1 OR instr(u.username, lower(?1)) = 1
            ORDER BY t.create_at, t.id LIMIT 200";
        self.read(|db| Ok(all(db, sql, [term], token_row)?))
    }
}
