//! Sign-in, sessions and personal access tokens. Tokens are kept only as hashes.

use model::Id;
use rusqlite::{Row, params};
use sha2::{Digest, Sha256};

use crate::access::{may, require, require_self};
use crate::core::{Core, random_id};
use crate::error::{AppError, AppResult};
use crate::push::DEVICE_ID_BYTES_MAX;
use crate::rows::{UserRow, all, get, id, run, team_member, to_json, user_row};
use crate::types::{ClientInfo, Login, Session, StringMap, User, UserAccessToken};
use crate::users::{password_matches, require_user};

const HOUR_MS: i64 = 3_600_000;
/// As the real server: a token session does not expire in practice.
const TOKEN_LIFE_MS: i64 = 100 * 365 * 24 * HOUR_MS;
/// How stale `last_activity_at` may be before a request writes it; spares a commit per request.
const ACTIVITY_MS: i64 = 5 * 60 * 1_000;

pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn session_row(r: &Row<'_>) -> rusqlite::Result<Session> {
    let props: String = r.get("props")?;
    Ok(Session {
        id: id(r, "id")?,
        token: String::new(),
        create_at: r.get("create_at")?,
        expires_at: r.get("expires_at")?,
        last_activity_at: r.get("last_activity_at")?,
        user_id: id(r, "user_id")?,
        device_id: r.get("device_id")?,
        roles: r.get("roles")?,
        is_oauth: false,
        expired_notify: false,
        props: serde_json::from_str(&props).unwrap_or_default(),
        team_members: Vec::new(),
        local: false,
    })
}

pub(crate) fn token_row(r: &Row<'_>) -> rusqlite::Result<UserAccessToken> {
    Ok(UserAccessToken {
        id: id(r, "id")?,
        token: String::new(),
        user_id: id(r, "user_id")?,
        description: r.get("description")?,
        is_active: r.get("is_active")?,
    })
}

const SESSION: &str = "SELECT s.*, u.roles FROM sessions s JOIN users u ON u.id = s.user_id AND u.delete_at = 0";

impl Core {
    /// Signs in with a password.
    ///
    /// # Errors
    /// 401 that does not tell whether the account or the password was wrong; the ids that clients branch on
    /// (inactive, too many attempts, bot, blank password) pass as they are.
    pub fn login(&self, login: &Login, client: &ClientInfo) -> AppResult<(User, Session)> {
        let refuse = |id: &'static str, message: &'static str, status| Err(AppError::new("login", id, message, status));
        let masked = || {
            refuse(
                "api.user.login.invalid_credentials_email_username",
                "Enter a valid email or username and/or password.",
                401,
            )
        };
        if login.password.is_empty() {
            return refuse("api.user.login.blank_pwd.app_error", "Password field must not be blank.", 400);
        }
        if login.device_id.len() > DEVICE_ID_BYTES_MAX {
            return Err(AppError::body_param("login", "device_id"));
        }
        let sql = "SELECT * FROM users WHERE (?1 <> '' AND id = ?1) OR (?1 = '' AND (username = ?2 OR email = ?2))
                   ORDER BY password = '' LIMIT 1";
        let name = login.login_id.trim().to_lowercase();
        let found = self.read(|db| Ok::<_, AppError>(get(db, sql, params![login.id, name], user_row)?))?;
        let Some(row) = found else {
            password_matches("", &login.password);
            return masked();
        };
        if row.user.is_bot {
            return refuse("api.user.login.bot_login_forbidden.app_error", "Bot login is forbidden.", 401);
        }
        if !self.password_is(&row, &login.password)? {
            return masked();
        }
        if row.user.delete_at > 0 {
            return refuse(
                "api.user.login.inactive.app_error",
                "Login failed because your account has been deactivated. Please contact an administrator.",
                401,
            );
        }
        self.check_mfa(row.user.id, &login.token)?;
        let session = self.start_session(&row.user, &login.device_id, client)?;
        Ok((row.user, session))
    }

    /// Signs in somebody for whom a directory vouches, which has looked at their password and second factor itself.
    ///
    /// # Errors
    /// 401 when the account is deactivated or a bot's, 404 when there is none.
    pub fn login_vouched_for(&self, user: Id, client: &ClientInfo) -> AppResult<(User, Session)> {
        let row = self.read(|db| require_user(db, user))?;
        if row.user.is_bot || row.user.delete_at > 0 {
            return Err(AppError::new(
                "login",
                "api.user.login.inactive.app_error",
                "Login failed because your account has been deactivated. Please contact an administrator.",
                401,
            ));
        }
        let session = self.start_session(&row.user, "", client)?;
        Ok((row.user, session))
    }

    /// Holds a guess against a user's password. Wrong ones count, wherever they are made: a session that got
    /// into wrong hands is no way to try more passwords than the sign-in page allows.
    pub(crate) fn password_is(&self, row: &UserRow, guess: &str) -> AppResult<bool> {
        if row.user.failed_attempts >= i64::from(self.0.settings.login_attempts_max) {
            return Err(AppError::new(
                "login",
                "api.user.check_user_login_attempts.too_many.app_error",
                "Your account is locked because of too many failed password attempts. Please reset your password.",
                401,
            ));
        }
        let right = password_matches(&row.password, guess);
        if !right {
            self.write(|tx| {
                let sql = "UPDATE users SET failed_attempts = failed_attempts + 1 WHERE id = ?1";
                run(&tx.db, sql, [row.user.id.as_str()]).map_err(AppError::from)
            })?;
        }
        Ok(right)
    }

    fn start_session(&self, user: &User, device_id: &str, client: &ClientInfo) -> AppResult<Session> {
        let mobile = client.is_mobile || !device_id.is_empty();
        let hours = if mobile { self.0.settings.session_hours_mobile } else { self.0.settings.session_hours };
        let now = self.0.clock.now().0;
        let props: StringMap = [
            ("csrf", random_id().to_string()),
            ("platform", client.platform.clone()),
            ("os", client.os.clone()),
            ("browser", client.browser.clone()),
            ("isMobile", mobile.to_string()),
            ("isSaml", "false".to_owned()),
            ("isOAuthUser", "false".to_owned()),
            ("is_guest", "false".to_owned()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
        let mut session = Session {
            id: random_id(),
            token: random_id().to_string(),
            create_at: now,
            expires_at: now + i64::from(hours) * HOUR_MS,
            last_activity_at: now,
            user_id: user.id,
            device_id: device_id.to_owned(),
            roles: user.roles.clone(),
            is_oauth: false,
            expired_notify: false,
            props,
            team_members: Vec::new(),
            local: false,
        };
        self.write(|tx| {
            run(&tx.db, "UPDATE users SET failed_attempts = 0 WHERE id = ?1", [user.id.as_str()])?;
            run(&tx.db, "DELETE FROM sessions WHERE expires_at < ?1", [now])?;
            tx.take_device(&session.device_id)?;
            run(
                &tx.db,
                "INSERT INTO sessions (id, token_hash, create_at, expires_at, last_activity_at, user_id, device_id,
                    props) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    session.id.as_str(),
                    token_hash(&session.token),
                    session.create_at,
                    session.expires_at,
                    session.last_activity_at,
                    session.user_id.as_str(),
                    session.device_id,
                    to_json(&session.props),
                ],
            )?;
            session.team_members = all(
                &tx.db,
                "SELECT * FROM team_members WHERE user_id = ?1 AND delete_at = 0",
                [user.id.as_str()],
                team_member,
            )?;
            Ok::<_, AppError>(())
        })?;
        Ok(session)
    }

    /// The session that this token opens: a login's, or one for a personal access token.
    ///
    /// # Errors
    /// 401 when it is unknown, expired, revoked, or its user is deactivated.
    pub fn session(&self, token: &str) -> AppResult<Session> {
        let hash = token_hash(token);
        let now = self.0.clock.now().0;
        self.read(|db| {
            if let Some(session) = get(db, &format!("{SESSION} WHERE s.token_hash = ?1"), [&hash[..]], session_row)? {
                if session.expires_at < now {
                    return Err(AppError::session_expired("GetSession"));
                }
                return Ok(Session { token: token.to_owned(), ..session });
            }
            let sql = "SELECT t.id, t.user_id, t.create_at, u.roles, u.is_bot FROM access_tokens t
                JOIN users u ON u.id = t.user_id AND u.delete_at = 0 WHERE t.token_hash = ?1 AND t.is_active = 1";
            get(db, sql, [&hash[..]], |r| {
                let create_at: i64 = r.get("create_at")?;
                let props = [("type", "UserAccessToken"), ("user_access_token_id", r.get_ref("id")?.as_str()?)];
                Ok(Session {
                    id: id(r, "id")?,
                    token: token.to_owned(),
                    create_at,
                    expires_at: create_at + TOKEN_LIFE_MS,
                    last_activity_at: now,
                    user_id: id(r, "user_id")?,
                    device_id: String::new(),
                    roles: r.get("roles")?,
                    is_oauth: false,
                    expired_notify: false,
                    props: props.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                    team_members: Vec::new(),
                    local: false,
                })
            })?
            .ok_or_else(|| AppError::session_expired("GetSession"))
        })
    }

    /// Ends the asker's session.
    ///
    /// # Errors
    /// When the store fails.
    pub fn logout(&self, by: &Session) -> AppResult<()> {
        self.write(|tx| {
            run(&tx.db, "DELETE FROM sessions WHERE id = ?1", [by.id.as_str()])?;
            tx.sessions_ended.push(by.user_id);
            Ok(())
        })
    }

    /// A user's sessions, newest activity first, without tokens.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn sessions(&self, by: &Session, user: Id) -> AppResult<Vec<Session>> {
        require_self("getSessions", by, user)?;
        let now = self.0.clock.now().0;
        self.read(|db| {
            let sql = format!("{SESSION} WHERE s.user_id = ?1 AND s.expires_at >= ?2 ORDER BY s.last_activity_at DESC");
            Ok(all(db, &sql, params![user.as_str(), now], session_row)?)
        })
    }

    /// Ends one session of a user.
    ///
    /// # Errors
    /// 403 for others', 400 when there is no such session.
    pub fn revoke_session(&self, by: &Session, user: Id, session: Id) -> AppResult<()> {
        require_self("revokeSession", by, user)?;
        self.write(|tx| {
            let sql = "DELETE FROM sessions WHERE id = ?1 AND user_id = ?2";
            match run(&tx.db, sql, [session.as_str(), user.as_str()])? {
                0 => Err(AppError::bad("GetSessionById", "app.session.get.app_error", "There is no such session.")),
                _ => {
                    tx.sessions_ended.push(user);
                    Ok(())
                }
            }
        })
    }

    /// Ends every session of a user.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn revoke_all_sessions(&self, by: &Session, user: Id) -> AppResult<()> {
        require_self("revokeAllSessionsForUser", by, user)?;
        self.write(|tx| {
            run(&tx.db, "DELETE FROM sessions WHERE user_id = ?1", [user.as_str()])?;
            tx.sessions_ended.push(user);
            Ok(())
        })
    }

    /// Notes activity and prolongs the session; writes at most every five minutes.
    ///
    /// # Errors
    /// When the store fails.
    pub fn touch_session(&self, by: &Session) -> AppResult<()> {
        let now = self.0.clock.now().0;
        if now - by.last_activity_at < ACTIVITY_MS {
            return Ok(());
        }
        self.write(|tx| {
            run(
                &tx.db,
                "UPDATE sessions SET expires_at = max(expires_at, ?2 + expires_at - last_activity_at),
                    last_activity_at = ?2 WHERE id = ?1",
                params![by.id.as_str(), now],
            )?;
            run(&tx.db, "UPDATE users SET last_activity_at = ?2 WHERE id = ?1", params![by.user_id.as_str(), now])?;
            Ok(())
        })
    }

    /// Makes a personal access token; the answer is the only place where the token itself appears.
    ///
    /// # Errors
    /// 403 without permission, 501 where the configuration forbids it, 400 without a description.
    pub fn create_token(&self, by: &Session, user: Id, description: &str) -> AppResult<UserAccessToken> {
        require_self("createUserAccessToken", by, user)?;
        let admin = may(by, "manage_system");
        if !self.0.settings.users_may_create_tokens && !admin {
            return Err(AppError::new(
                "CreateUserAccessToken",
                "app.user_access_token.disabled",
                "Personal access tokens are disabled on this server.",
                501,
            ));
        }
        if description.is_empty() || description.len() > 255 {
            return Err(AppError::body_param("createUserAccessToken", "description"));
        }
        let token = UserAccessToken {
            id: random_id(),
            token: random_id().to_string(),
            user_id: user,
            description: description.to_owned(),
            is_active: true,
        };
        self.write(|tx| {
            require_user(&tx.db, user)?;
            run(
                &tx.db,
                "INSERT INTO access_tokens (id, token_hash, user_id, description, is_active, create_at)
                 VALUES (?1, ?2, ?3, ?4, 1, ?5)",
                params![token.id.as_str(), token_hash(&token.token), user.as_str(), description, tx.now],
            )?;
            Ok(token)
        })
    }

    /// A user's tokens, without the tokens themselves.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn tokens(&self, by: &Session, user: Id) -> AppResult<Vec<UserAccessToken>> {
        require_self("getUserAccessTokensForUser", by, user)?;
        let sql = "SELECT * FROM access_tokens WHERE user_id = ?1 ORDER BY create_at";
        self.read(|db| Ok(all(db, sql, [user.as_str()], token_row)?))
    }

    /// One token, without the token itself.
    ///
    /// # Errors
    /// 403 for others', 404 when there is none.
    pub fn token(&self, by: &Session, token: Id) -> AppResult<UserAccessToken> {
        let found = self.read(|db| {
            get(db, "SELECT * FROM access_tokens WHERE id = ?1", [token.as_str()], token_row)?
                .ok_or_else(|| AppError::not_found("GetUserAccessToken", "app.user_access_token.get_by_user.app_error"))
        })?;
        if found.user_id != by.user_id {
            require("getUserAccessToken", by, "edit_other_users")?;
        }
        Ok(found)
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// As [`Core::token`].
    pub fn revoke_token(&self, by: &Session, token: Id) -> AppResult<()> {
        let user = self.token(by, token)?.user_id;
        self.write(|tx| {
            tx.sessions_ended.push(user);
            run(&tx.db, "DELETE FROM access_tokens WHERE id = ?1", [token.as_str()])?;
            Ok(())
        })
    }

    /// Switches a token off or on.
    ///
    /// # Errors
    /// As [`Core::token`].
    pub fn set_token_active(&self, by: &Session, token: Id, active: bool) -> AppResult<()> {
        let user = self.token(by, token)?.user_id;
        self.write(|tx| {
            tx.sessions_ended.push(user);
            run(&tx.db, "UPDATE access_tokens SET is_active = ?2 WHERE id = ?1", params![token.as_str(), active])?;
            Ok(())
        })
    }
}
