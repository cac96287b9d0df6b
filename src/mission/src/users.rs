//! User accounts.

use std::collections::BTreeMap;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use model::event::UserState;
use model::{EntraKey, Event, Id, UnixMillis, Version};
use rusqlite::{Connection, params};

use crate::access::{may, require, require_in_team, require_self, role_exists};
use crate::channels::{channel_row_by_id, require_channel_view};
use crate::core::{Core, Inner, Tx};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::rows::{UserRow, all, channel_row, count, exists, get, id_array, run, to_json, user, user_row};
use crate::search::words::name_term;
use crate::types::{NewUser, Session, StringMap, User, UserAutocomplete, UserFilter, UserPatch, UserSearch};

/// bcrypt's limit, which clients know from the real server.
const PASSWORD_MAX_BYTES: usize = 72;
pub(crate) const NAME_MAX_RUNES: usize = 64;
pub(crate) const POSITION_MAX_RUNES: usize = 128;
pub(crate) const EMAIL_MAX_BYTES: usize = 128;
const PAGE_MAX: u32 = 200;
/// Roles that nobody has without a licence.
pub(crate) const LICENSED_ROLES: [&str; 4] =
    ["system_manager", "system_user_manager", "system_read_only_admin", "system_custom_group_admin"];

const NOT_FOUND: &str = "app.user.missing_account.const";

pub(crate) fn user_row_by_id(db: &Connection, id: Id) -> rusqlite::Result<Option<UserRow>> {
    get(db, "SELECT * FROM users WHERE id = ?1", [id.as_str()], user_row)
}

pub(crate) fn user_row_by_entra(db: &Connection, key: EntraKey) -> rusqlite::Result<Option<UserRow>> {
    let sql = "SELECT * FROM users WHERE entra = ?1 AND entra <> '' ORDER BY delete_at > 0, create_at, id LIMIT 1";
    get(db, sql, [key.to_string()], user_row)
}

pub(crate) fn require_user(db: &Connection, id: Id) -> AppResult<UserRow> {
    user_row_by_id(db, id)?.ok_or_else(|| AppError::not_found("GetUser", NOT_FOUND))
}

pub(crate) fn page(page: u32, per_page: u32) -> (i64, i64) {
    let size = per_page.clamp(1, PAGE_MAX);
    (i64::from(size), i64::from(page) * i64::from(size))
}

impl UserRow {
    fn state(&self) -> UserState {
        let u = &self.user;
        UserState {
            version: self.version,
            id: u.id,
            create_at: UnixMillis(u.create_at),
            update_at: UnixMillis(u.update_at),
            delete_at: UnixMillis(u.delete_at),
            username: self.wanted_username.clone(),
            email: u.email.clone(),
            nickname: u.nickname.clone(),
            first_name: u.first_name.clone(),
            last_name: u.last_name.clone(),
            position: u.position.clone(),
            locale: u.locale.clone(),
            is_bot: u.is_bot,
            entra: self.entra,
        }
    }
}

impl Tx<'_> {
    /// Writes the whole row, new or changed.
    pub(crate) fn put_user(&mut self, row: &UserRow) -> rusqlite::Result<()> {
        let u = &row.user;
        run(
            &self.db,
            "INSERT INTO users (id, create_at, update_at, delete_at, username, wanted_username, email, nickname,
                first_name, last_name, position, locale, is_bot, bot_description, roles, password, email_verified,
                notify_props, props, timezone, failed_attempts, last_password_update, last_picture_update,
                ver_at, ver_by, local, placeholder, entra)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                ?22, ?23, ?24, ?25, ?26, ?27, ?28)
             ON CONFLICT (id) DO UPDATE SET create_at = excluded.create_at, update_at = excluded.update_at,
                delete_at = excluded.delete_at, username = excluded.username,
                wanted_username = excluded.wanted_username, email = excluded.email, nickname = excluded.nickname,
                first_name = excluded.first_name, last_name = excluded.last_name, position = excluded.position,
                locale = excluded.locale, is_bot = excluded.is_bot, bot_description = excluded.bot_description,
                roles = excluded.roles, password = excluded.password, email_verified = excluded.email_verified,
                notify_props = excluded.notify_props, props = excluded.props, timezone = excluded.timezone,
                failed_attempts = excluded.failed_attempts, last_password_update = excluded.last_password_update,
                last_picture_update = excluded.last_picture_update, ver_at = excluded.ver_at,
                ver_by = excluded.ver_by, local = excluded.local, placeholder = excluded.placeholder,
                entra = excluded.entra",
            params![
                u.id.as_str(),
                u.create_at,
                u.update_at,
                u.delete_at,
                u.username,
                row.wanted_username,
                u.email,
                u.nickname,
                u.first_name,
                u.last_name,
                u.position,
                u.locale,
                u.is_bot,
                u.bot_description,
                u.roles,
                row.password,
                u.email_verified,
                to_json(&u.notify_props),
                to_json(&u.props),
                to_json(&u.timezone),
                u.failed_attempts,
                u.last_password_update,
                u.last_picture_update,
                row.version.at.0 as i64,
                row.version.by.0,
                row.local,
                row.placeholder,
                row.entra.map(|key| key.to_string()).unwrap_or_default(),
            ],
        )?;
        self.put_mention_words(u)
    }

    /// Gives the row a new version, writes it and puts its public profile into the outbox.
    pub(crate) fn save_user(&mut self, row: &mut UserRow, current: Option<Version>) -> rusqlite::Result<()> {
        let at = self.tick();
        row.version = self.version_after(at, current);
        self.put_user(row)?;
        if !row.local {
            self.emit(at, &Event::User(row.state()))?;
        }
        Ok(())
    }

    /// Deactivates an account, which ends its sessions, or reactivates it.
    pub(crate) fn set_active(&mut self, id: Id, active: bool) -> AppResult<()> {
        let mut row = require_user(&self.db, id)?;
        require_arrived(&row)?;
        if (row.user.delete_at == 0) == active {
            return Ok(());
        }
        let before = row.version;
        row.user.update_at = self.now.max(row.user.update_at + 1);
        row.user.delete_at = if active { 0 } else { row.user.update_at };
        if !active {
            run(&self.db, "DELETE FROM sessions WHERE user_id = ?1", [id.as_str()])?;
            self.sessions_ended.push(id);
        }
        self.save_user(&mut row, Some(before))?;
        self.tell_user_updated(&row.user);
        Ok(())
    }

    /// Sets a password that is hashed already, and ends every session but `kept`.
    pub(crate) fn put_password(&mut self, id: Id, hash: &str, kept: &str) -> rusqlite::Result<()> {
        run(
            &self.db,
            "UPDATE users SET password = ?2, last_password_update = ?3, failed_attempts = 0 WHERE id = ?1",
            params![id.as_str(), hash, self.now],
        )?;
        // Whoever held the old password may also hold a session.
        run(&self.db, "DELETE FROM sessions WHERE user_id = ?1 AND id <> ?2", [id.as_str(), kept])?;
        self.sessions_ended.push(id);
        Ok(())
    }

    /// Tells everyone; `user_updated` carries an object, and each user gets their own full variant.
    pub(crate) fn tell_user_updated(&mut self, user: &User) {
        let public = user.clone().sanitized_for(None);
        let own = user.clone();
        let value = |u: &User| serde_json::to_value(u).expect("a user is plain JSON");
        let mut broadcast = Broadcast::to_all("user_updated").with("user", value(&public));
        let full = [("user".to_owned(), value(&own))].into_iter().collect();
        broadcast.per_user.insert(user.id, full);
        self.tell(broadcast);
    }

    /// This node's own bot, made at its first message. It is local: no other node hears of it.
    pub(crate) fn local_bot(&mut self) -> rusqlite::Result<UserRow> {
        let found = get(&self.db, "SELECT * FROM users WHERE local = 1 AND is_bot = 1", [], user_row)?;
        if let Some(row) = found {
            return Ok(row);
        }
        let id = self.mint();
        let taken = exists(&self.db, "SELECT 1 FROM users WHERE username = 'holdfast'", [])?;
        let username = if taken { format!("holdfast-{}", &id.as_str()[..8]) } else { "holdfast".to_owned() };
        let mut row = new_row(id, self.now, username);
        row.user.is_bot = true;
        row.user.bot_description = "Messages from this node itself.".to_owned();
        row.user.first_name = "Holdfast".to_owned();
        row.local = true;
        self.save_user(&mut row, None)?;
        Ok(row)
    }
}

/// A fresh ordinary account.
pub(crate) fn new_row(id: Id, now: i64, username: String) -> UserRow {
    let pairs = |pairs: &[(&str, &str)]| -> StringMap {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    UserRow {
        wanted_username: username.clone(),
        user: User {
            id,
            create_at: now,
            update_at: now,
            delete_at: 0,
            email: format!("{username}@localhost"),
            username,
            auth_data: None,
            auth_service: String::new(),
            email_verified: false,
            nickname: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            position: String::new(),
            roles: "system_user".to_owned(),
            props: StringMap::new(),
            notify_props: pairs(&[
                ("email", "true"),
                ("push", "mention"),
                ("desktop", "mention"),
                ("desktop_sound", "true"),
                ("mention_keys", ""),
                ("channel", "true"),
                ("push_status", "online"),
                ("comments", "never"),
                ("first_name", "false"),
                ("desktop_threads", "all"),
                ("email_threads", "all"),
                ("push_threads", "all"),
            ]),
            last_password_update: 0,
            last_picture_update: 0,
            failed_attempts: 0,
            locale: "en".to_owned(),
            timezone: pairs(&[("useAutomaticTimezone", "true"), ("automaticTimezone", ""), ("manualTimezone", "")]),
            remote_id: Some(String::new()),
            is_bot: false,
            bot_description: String::new(),
            mfa_active: false,
            disable_welcome_email: false,
        },
        password: String::new(),
        version: Version { at: model::Hlc::ZERO, by: model::NodeId([0; 16]) },
        local: false,
        placeholder: false,
        entra: None,
    }
}

fn invalid(field: &str) -> AppError {
    AppError::bad(
        "User.IsValid",
        format!("model.user.is_valid.{field}.app_error"),
        format!("The field {field} of the user is not valid."),
    )
}

pub(crate) fn check_profile(u: &User) -> AppResult<()> {
    check_username(&u.username)?;
    let runes = |text: &str| text.chars().count();
    if u.email.is_empty() || u.email.len() > EMAIL_MAX_BYTES || !plausible_email(&u.email) {
        return Err(invalid("email"));
    }
    if runes(&u.nickname) > NAME_MAX_RUNES {
        return Err(invalid("nickname"));
    }
    if runes(&u.position) > POSITION_MAX_RUNES {
        return Err(invalid("position"));
    }
    if runes(&u.first_name) > NAME_MAX_RUNES {
        return Err(invalid("first_name"));
    }
    if runes(&u.last_name) > NAME_MAX_RUNES {
        return Err(invalid("last_name"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if u.locale.len() > 5 || !u.locale.chars().all(plain) {
        return Err(invalid("locale"));
    }
    if to_json(&u.timezone).chars().count() > 256 {
        return Err(invalid("timezone_limit"));
    }
    Ok(())
}

pub(crate) fn check_username(name: &str) -> AppResult<()> {
    let fits = (1..=NAME_MAX_RUNES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
    if fits && !["all", "channel", "matterbot", "system"].contains(&name) { Ok(()) } else { Err(invalid("username")) }
}

pub(crate) fn plausible_email(email: &str) -> bool {
    let lower = !email.chars().any(|c| c.is_uppercase() || c.is_whitespace() || c.is_control());
    lower
        && email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
}

impl Inner {
    pub(crate) fn check_password(&self, password: &str) -> AppResult<()> {
        let least = self.settings.password_min_chars;
        let wrong = |id: &'static str, message: String| Err(AppError::bad("User.IsValid", id, message));
        if password.len() < least {
            let message = format!("Your password must contain at least {least} characters.");
            return wrong("model.user.is_valid.pwd_min_length.app_error", message);
        }
        if password.len() > PASSWORD_MAX_BYTES {
            let message = format!("Your password must contain no more than {PASSWORD_MAX_BYTES} bytes.");
            return wrong("model.user.is_valid.pwd_max_length.app_error", message);
        }
        Ok(())
    }
}

pub(crate) fn hash_password(password: &str) -> AppResult<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|h| h.to_string()).map_err(|e| {
        AppError::new(
            "HashPassword",
            "model.user.pre_save.password_hash.app_error",
            "The password could not be hashed.",
            500,
        )
        .detail(e)
    })
}

/// Costs the same whether or not there is a hash, so that timing tells nothing about accounts.
pub(crate) fn password_matches(hash: &str, password: &str) -> bool {
    match PasswordHash::new(hash) {
        Ok(parsed) => Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok(),
        Err(_) => {
            let _ = Argon2::default().hash_password(password.as_bytes());
            false
        }
    }
}

impl Core {
    /// Makes an account. `by` is `None` for a sign-up; the first account of a server becomes its administrator.
    ///
    /// # Errors
    /// AppErrors as the real server gives them for names, passwords and closed registration.
    pub fn create_user(&self, by: Option<&Session>, new: &NewUser) -> AppResult<User> {
        let first = self.read(|db| Ok::<_, AppError>(!exists(db, "SELECT 1 FROM users WHERE password <> ''", [])?))?;
        let admin = by.is_some_and(|s| may(s, "edit_other_users"));
        if !first && !admin && !self.0.settings.open_registration {
            return Err(AppError::new(
                "createUser",
                "api.user.create_user.no_open_server",
                "This server does not allow open signups. Please ask an administrator for an account.",
                403,
            ));
        }
        let roles = if first { "system_admin system_user" } else { "system_user" };
        self.insert_user(new, roles)
    }

    /// Makes an account for the operator's command line: whoever has the data directory needs no permission.
    ///
    /// # Errors
    /// As [`Core::create_user`] for names, addresses and passwords.
    pub fn operator_creates_user(&self, username: &str, email: &str, password: &str, admin: bool) -> AppResult<User> {
        let new = NewUser {
            username: username.to_owned(),
            email: email.to_owned(),
            password: password.to_owned(),
            ..NewUser::default()
        };
        self.insert_user(&new, if admin { "system_admin system_user" } else { "system_user" })
    }

    fn insert_user(&self, new: &NewUser, roles: &str) -> AppResult<User> {
        let mut row = new_row(self.0.mint.mint(), self.0.clock.now().0, new.username.trim().to_lowercase());
        let u = &mut row.user;
        u.email = new.email.trim().to_lowercase();
        u.nickname = new.nickname.clone();
        u.first_name = new.first_name.clone();
        u.last_name = new.last_name.clone();
        u.position = new.position.clone();
        if !new.locale.is_empty() {
            u.locale = new.locale.clone();
        }
        if let Some(props) = &new.notify_props {
            u.notify_props.extend(props.clone());
        }
        if let Some(props) = &new.props {
            u.props = props.clone();
        }
        if let Some(timezone) = &new.timezone {
            u.timezone = timezone.clone();
        }
        u.roles = roles.to_owned();
        u.last_password_update = u.create_at;
        check_profile(u)?;
        self.0.check_password(&new.password)?;
        row.password = hash_password(&new.password)?;
        self.write(|tx| {
            check_free(&tx.db, &row.user)?;
            tx.save_user(&mut row, None)?;
            for (category, name, value) in [
                ("recommended_next_steps", "hide", "false"),
                ("tutorial_step", row.user.id.as_str(), "0"),
                ("system_notice", "GMasDM", "true"),
            ] {
                run(
                    &tx.db,
                    "INSERT INTO preferences (user_id, category, name, value) VALUES (?1, ?2, ?3, ?4)",
                    [row.user.id.as_str(), category, name, value],
                )?;
            }
            tx.tell(Broadcast::to_all("new_user").with("user_id", row.user.id.as_str()));
            Ok(row.user.clone())
        })
    }

    /// A user, with everything but the password; show others [`User::sanitized_for`] the reader.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn user(&self, id: Id) -> AppResult<User> {
        self.read(|db| Ok(require_user(db, id)?.user))
    }

    /// As [`Core::user`], by name.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn user_by_username(&self, name: &str) -> AppResult<User> {
        self.read(|db| {
            get(db, "SELECT * FROM users WHERE username = ?1", [name.to_lowercase()], user)?
                .ok_or_else(|| AppError::not_found("GetUserByUsername", "app.user.get_by_username.app_error"))
        })
    }

    /// As [`Core::user`], by mail address.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn user_by_email(&self, email: &str) -> AppResult<User> {
        self.read(|db| {
            get(
                db,
                "SELECT * FROM users WHERE email = ?1 ORDER BY password = '' LIMIT 1",
                [email.to_lowercase()],
                user,
            )?
            .ok_or_else(|| AppError::not_found("GetUserByEmail", NOT_FOUND))
        })
    }

    /// As [`Core::user`], by what Entra calls them: claims `tid` and `oid`. Where two nodes made accounts for one person before
    /// they met, it is at each node the one that it knew first.
    ///
    /// # Errors
    /// 404 when nobody has that key, also for texts that are no GUIDs.
    pub fn user_by_entra(&self, tid: &str, oid: &str) -> AppResult<User> {
        let missing = || AppError::not_found("GetUserByEntra", NOT_FOUND);
        let (Ok(tenant), Ok(object)) = (tid.parse(), oid.parse()) else { return Err(missing()) };
        self.read(|db| Ok(user_row_by_entra(db, EntraKey { tenant, object })?.ok_or_else(missing)?.user))
    }

    /// What Entra calls a user; `None` for somebody who was not synced from there.
    ///
    /// # Errors
    /// 404 when there is no such user.
    pub fn entra_of(&self, id: Id) -> AppResult<Option<EntraKey>> {
        self.read(|db| Ok(require_user(db, id)?.entra))
    }

    /// The users with these ids that changed after `since` (0: all), unsanitised.
    ///
    /// # Errors
    /// When the store fails.
    pub fn users_by_ids(&self, ids: &[Id], since: i64) -> AppResult<Vec<User>> {
        self.read(|db| {
            let sql = "SELECT * FROM users WHERE id IN (SELECT value FROM json_each(?1)) AND update_at > ?2
                       ORDER BY username";
            Ok(all(db, sql, params![id_array(ids), since.max(-1)], user)?)
        })
    }

    /// The users with these names, unsanitised.
    ///
    /// # Errors
    /// When the store fails.
    pub fn users_by_usernames(&self, names: &[String]) -> AppResult<Vec<User>> {
        self.read(|db| {
            let sql =
                "SELECT * FROM users WHERE username IN (SELECT lower(value) FROM json_each(?1)) ORDER BY username";
            Ok(all(db, sql, [to_json(&names)], user)?)
        })
    }

    /// A page of users, unsanitised.
    ///
    /// # Errors
    /// 403 when the filter names a team or channel that is not the asker's.
    pub fn users(&self, by: &Session, filter: &UserFilter, page_number: u32, per_page: u32) -> AppResult<Vec<User>> {
        let order = match filter.sort.as_str() {
            "create_at" => "create_at DESC, username",
            "last_activity_at" => "last_activity_at DESC, username",
            _ => "username",
        };
        let (limit, offset) = page(page_number, per_page);
        let sql =
            format!("SELECT * FROM users u WHERE {USER_FILTER} AND {ROLE_FILTER} ORDER BY {order} LIMIT ?8 OFFSET ?9");
        self.read(|db| {
            let (in_team, not_in_team) = (&filter.in_team, &filter.not_in_team);
            let (in_channel, not_in_channel) = (&filter.in_channel, &filter.not_in_channel);
            require_filter(db, by, [in_team, not_in_team], [in_channel, not_in_channel])?;
            let values = params![
                in_team.as_ref().map_or("", Id::as_str),
                not_in_team.as_ref().map_or("", Id::as_str),
                in_channel.as_ref().map_or("", Id::as_str),
                not_in_channel.as_ref().map_or("", Id::as_str),
                filter.without_team,
                filter.active,
                filter.inactive,
                limit,
                offset,
                to_json(&filter.roles),
            ];
            Ok(all(db, &sql, values, user)?)
        })
    }

    /// Users whose name, nickname or username starts with the term, unsanitised.
    ///
    /// # Errors
    /// 400 for a malformed id, 403 for a team or channel that is not the asker's.
    pub fn search_users(&self, by: &Session, search: &UserSearch) -> AppResult<Vec<User>> {
        let limit = if search.limit <= 0 { 100 } else { search.limit.min(1_000) };
        let sql = format!(
            "SELECT * FROM users u WHERE {USER_FILTER} AND {TERM_MATCH} AND {ROLE_FILTER} ORDER BY username LIMIT ?9"
        );
        let active = !search.allow_inactive;
        let roles: Vec<&String> = search.roles.iter().chain([&search.role]).filter(|role| !role.is_empty()).collect();
        let id = |name: &str, text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| AppError::body_param("searchUsers", name)),
        };
        let teams = [id("team_id", &search.team_id)?, id("not_in_team_id", &search.not_in_team_id)?];
        let channels =
            [id("in_channel_id", &search.in_channel_id)?, id("not_in_channel_id", &search.not_in_channel_id)?];
        self.read(|db| {
            require_filter(db, by, teams.each_ref(), channels.each_ref())?;
            let values = params![
                search.team_id,
                search.not_in_team_id,
                search.in_channel_id,
                search.not_in_channel_id,
                search.without_team,
                active,
                false,
                name_term(&search.term),
                limit,
                to_json(&roles),
            ];
            Ok(all(db, &sql, values, user)?)
        })
    }

    /// Suggestions while typing `@`.
    ///
    /// # Errors
    /// 403 for a team or channel that is not the asker's.
    pub fn autocomplete_users(
        &self,
        by: &Session,
        term: &str,
        team: Option<Id>,
        channel: Option<Id>,
        limit: u32,
    ) -> AppResult<UserAutocomplete> {
        let text = |id: Option<Id>| id.map(|i| i.to_string()).unwrap_or_default();
        let search = |in_channel: Option<Id>, not_in_channel: Option<Id>| {
            self.search_users(
                by,
                &UserSearch {
                    term: term.to_owned(),
                    team_id: text(team),
                    in_channel_id: text(in_channel),
                    not_in_channel_id: text(not_in_channel),
                    limit: i64::from(limit.clamp(1, 100)),
                    ..UserSearch::default()
                },
            )
        };
        let users = search(channel, None)?;
        let out_of_channel = channel.map(|c| search(None, Some(c))).transpose()?;
        Ok(UserAutocomplete { users, out_of_channel })
    }

    /// The other members of the asker's group channels, unsanitised.
    ///
    /// # Errors
    /// When the store fails.
    pub fn users_of_group_channels(&self, by: &Session, channels: &[Id]) -> AppResult<BTreeMap<Id, Vec<User>>> {
        self.read(|db| {
            let mut found = BTreeMap::new();
            let sql = "SELECT * FROM channels WHERE type = 'G' AND id IN (SELECT value FROM json_each(?1)) AND id IN
                (SELECT channel_id FROM channel_members WHERE user_id = ?2 AND delete_at = 0)";
            for row in all(db, sql, params![id_array(channels), by.user_id.as_str()], channel_row)? {
                let members = all(
                    db,
                    "SELECT * FROM users WHERE id <> ?2 AND id IN
                        (SELECT user_id FROM channel_members WHERE channel_id = ?1 AND delete_at = 0) ORDER BY username",
                    params![row.channel.id.as_str(), by.user_id.as_str()],
                    user,
                )?;
                found.insert(row.channel.id, members);
            }
            Ok(found)
        })
    }

    /// How many people (not bots) have an active account.
    ///
    /// # Errors
    /// When the store fails.
    pub fn active_user_count(&self) -> AppResult<i64> {
        self.read(|db| Ok(count(db, "SELECT count(*) FROM users WHERE delete_at = 0 AND is_bot = 0", [])?))
    }

    /// Changes a profile.
    ///
    /// # Errors
    /// 403 for others' profiles, 400 for bad or taken names.
    pub fn patch_user(&self, by: &Session, id: Id, patch: &UserPatch) -> AppResult<User> {
        require_self("patchUser", by, id)?;
        // Outside the transaction: a hash takes long on purpose.
        let proven = may(by, "edit_other_users")
            || match (&patch.email, &patch.password) {
                (Some(_), Some(password)) => self.own_password(id, password)?,
                _ => false,
            };
        self.write(|tx| {
            let mut row = require_user(&tx.db, id)?;
            require_arrived(&row)?;
            let before = row.version;
            let was = row.user.clone();
            let u = &mut row.user;
            let set = |field: &mut String, value: &Option<String>| {
                if let Some(value) = value {
                    field.clone_from(value);
                }
            };
            if let Some(name) = patch.username.as_ref().map(|n| n.trim().to_lowercase()).filter(|n| *n != u.username) {
                row.wanted_username.clone_from(&name);
                u.username = name;
            }
            set(&mut u.nickname, &patch.nickname);
            set(&mut u.first_name, &patch.first_name);
            set(&mut u.last_name, &patch.last_name);
            set(&mut u.position, &patch.position);
            set(&mut u.locale, &patch.locale);
            if let Some(email) = patch.email.as_ref().map(|e| e.trim().to_lowercase()).filter(|e| *e != u.email) {
                if !proven {
                    return Err(AppError::bad(
                        "patchUser",
                        "api.context.invalid_body_param.app_error",
                        "Invalid or missing password in request body.",
                    ));
                }
                u.email = email;
            }
            for (field, value) in [
                (&mut u.notify_props, &patch.notify_props),
                (&mut u.props, &patch.props),
                (&mut u.timezone, &patch.timezone),
            ] {
                if let Some(value) = value {
                    field.clone_from(value);
                }
            }
            // The directory would only write them again.
            if row.entra.is_some() && of_directory(u) != of_directory(&was) {
                let id = "api.user.patch_user.login_provider_attribute_set.app_error";
                let message = "This is set by your organisation's directory and can be changed there only.";
                return Err(AppError::new("patchUser", id, message, 409));
            }
            u.update_at = tx.now.max(u.update_at + 1);
            check_profile(u)?;
            check_free(&tx.db, u)?;
            tx.save_user(&mut row, Some(before))?;
            tx.tell_user_updated(&row.user);
            Ok(row.user)
        })
    }

    /// Sets the roles; they are this node's own and not replicated.
    ///
    /// # Errors
    /// 403 without `manage_roles`, 400 for an unknown role.
    pub fn set_user_roles(&self, by: &Session, id: Id, roles: &str) -> AppResult<()> {
        require("updateUserRoles", by, "manage_roles")?;
        if roles.split_whitespace().any(|role| LICENSED_ROLES.contains(&role)) {
            let message = "These roles need a licence, which this server does not have.";
            return Err(AppError::bad("updateUserRoles", "api.user.update_user_roles.license.app_error", message));
        }
        if roles.split_whitespace().next().is_none() {
            return Err(AppError::body_param("updateUserRoles", "roles"));
        }
        if !roles.split_whitespace().all(role_exists) {
            let id = "app.role.check_roles_exist.role_not_found";
            return Err(AppError::bad("CheckRolesExist", id, "There is no such role."));
        }
        self.write(|tx| {
            let row = require_user(&tx.db, id)?;
            run(&tx.db, "UPDATE users SET roles = ?2 WHERE id = ?1", [id.as_str(), roles])?;
            tx.tell(Broadcast::to_user("user_role_updated", id).with("user_id", id.as_str()).with("roles", roles));
            tx.tell_user_updated(&User { roles: roles.to_owned(), ..row.user });
            Ok(())
        })
    }

    /// Deactivates (also ends the sessions) or reactivates an account. Nobody deactivates themselves: who would let them in again?
    ///
    /// # Errors
    /// 403 without the permission, 401 for oneself.
    pub fn set_user_active(&self, by: &Session, id: Id, active: bool) -> AppResult<()> {
        if by.user_id == id && !active {
            let message = "You cannot deactivate yourself on this server. Ask an administrator.";
            return Err(AppError::new("updateUserActive", "api.user.update_active.not_enable.app_error", message, 401));
        }
        require("updateUserActive", by, "edit_other_users")
            .map_err(|e| AppError { id: "api.user.update_active.permissions.app_error".into(), ..e })?;
        self.write(|tx| {
            tx.set_active(id, active)?;
            if !active {
                tx.disable_bots_of(id)?;
            }
            tx.tell(Broadcast::to_all("user_activation_status_change"));
            Ok(())
        })
    }

    fn own_password(&self, id: Id, guess: &str) -> AppResult<bool> {
        let row = self.read(|db| require_user(db, id))?;
        self.password_is(&row, guess)
    }

    /// Sets a password. Users give their current one; administrators need not.
    ///
    /// # Errors
    /// 400 for a wrong current or a weak new password, 403 for others.
    pub fn update_password(&self, by: &Session, id: Id, current: &str, new: &str) -> AppResult<()> {
        let own = by.user_id == id;
        if !own {
            require("updatePassword", by, "edit_other_users")
                .map_err(|e| AppError { id: "api.user.update_password.context.app_error".into(), ..e })?;
        }
        self.read(|db| require_user(db, id))?;
        if own && !self.own_password(id, current)? {
            return Err(AppError::bad(
                "updatePassword",
                "api.user.update_password.incorrect.app_error",
                "The \"Current Password\" you entered is incorrect. Please check that Caps Lock is off and try again.",
            ));
        }
        self.set_password(id, new, by.id.as_str())
    }

    /// Sets a password for the operator's command line: whoever has the data directory needs no permission. Ends the
    /// account's sessions.
    ///
    /// # Errors
    /// 400 for a weak password, 404 for no such user.
    pub fn operator_sets_password(&self, id: Id, new: &str) -> AppResult<()> {
        self.read(|db| require_user(db, id))?;
        self.set_password(id, new, "")
    }

    /// Sets a password and ends every session but `kept`.
    fn set_password(&self, id: Id, new: &str, kept: &str) -> AppResult<()> {
        self.0.check_password(new)?;
        let hash = hash_password(new)?;
        self.write(|tx| Ok(tx.put_password(id, &hash, kept)?))
    }
}

/// What a directory says of a person.
fn of_directory(u: &User) -> [&str; 5] {
    [&u.username, &u.email, &u.first_name, &u.last_name, &u.position]
}

/// Who belongs to a team or channel is for those to know who may look into it.
fn require_filter(db: &Connection, by: &Session, teams: [&Option<Id>; 2], channels: [&Option<Id>; 2]) -> AppResult<()> {
    for team in teams.into_iter().flatten() {
        require_in_team("getUsers", db, by, *team, "view_team")?;
    }
    for channel in channels.into_iter().flatten() {
        let found = channel_row_by_id(db, *channel)?;
        let found = found.ok_or_else(|| AppError::permissions("getUsers", "read_channel"))?;
        require_channel_view(db, by, &found.channel)?;
    }
    Ok(())
}

/// A placeholder's profile is the origin's to write: one made up here would stand against it for good.
fn require_arrived(row: &UserRow) -> AppResult<()> {
    if !row.placeholder {
        return Ok(());
    }
    Err(AppError::bad(
        "updateUser",
        "holdfast.user.not_here_yet.app_error",
        "The profile of this user has not arrived from its site yet. It can be changed as soon as it is here.",
    ))
}

const USER_FILTER: &str = "
    (?1 = '' OR id IN (SELECT user_id FROM team_members WHERE team_id = ?1 AND delete_at = 0))
    AND (?2 = '' OR id NOT IN (SELECT user_id FROM team_members WHERE team_id = ?2 AND delete_at = 0))
    AND (?3 = '' OR id IN (SELECT user_id FROM channel_members WHERE channel_id = ?3 AND delete_at = 0))
    AND (?4 = '' OR id NOT IN (SELECT user_id FROM channel_members WHERE channel_id = ?4 AND delete_at = 0))
    AND (NOT ?5 OR id NOT IN (SELECT user_id FROM team_members WHERE delete_at = 0))
    AND (NOT ?6 OR delete_at = 0) AND (NOT ?7 OR delete_at > 0)";

const ROLE_FILTER: &str = "
    (?10 = '[]' OR EXISTS (SELECT 1 FROM json_each(?10) role WHERE instr(' ' || u.roles || ' ', ' ' || role.value || ' ') > 0))";

const TERM_MATCH: &str = "
    (?8 = '' OR name_matches(?8, username, nickname, first_name || ' ' || last_name, last_name))";

pub(crate) fn check_free(db: &Connection, u: &User) -> AppResult<()> {
    let taken = |sql, value: &str| exists(db, sql, [value, u.id.as_str()]);
    if taken("SELECT 1 FROM users WHERE username = ?1 AND id <> ?2", &u.username)? {
        return Err(AppError::bad(
            "createUserOrGuest",
            "app.user.save.username_exists.app_error",
            "An account with that username already exists.",
        ));
    }
    if taken("SELECT 1 FROM users WHERE email = ?1 AND id <> ?2 AND password <> ''", &u.email)? {
        return Err(AppError::bad(
            "createUserOrGuest",
            "app.user.save.email_exists.app_error",
            "An account with that email already exists.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Node, PASSWORD};
    use crate::types::{ClientInfo, Login};

    fn login(node: &Node, name: &str, password: &str) -> AppResult<(User, Session)> {
        let login = Login { login_id: name.to_owned(), password: password.to_owned(), ..Login::default() };
        node.core.login(&login, &ClientInfo::default())
    }

    #[test]
    fn the_first_account_administers_and_the_second_does_not() {
        let node = Node::new(1);
        assert!(node.user("alice").is_system_admin());
        let bob = node.user("bob");
        assert!(!bob.is_system_admin());
        let error = node.core.set_user_roles(&bob, bob.user_id, "system_admin").unwrap_err();
        assert_eq!(error.status_code, 403);
    }

    #[test]
    fn a_wrong_name_and_a_wrong_password_look_the_same_until_the_account_locks() {
        let node = Node::new(1);
        node.user("alice");
        let unknown = login(&node, "nobody", PASSWORD).unwrap_err();
        assert_eq!(login(&node, "alice", "wrong").unwrap_err(), unknown);
        assert_eq!(unknown.id, "api.user.login.invalid_credentials_email_username");
        for _ in 1..node.core.settings().login_attempts_max {
            login(&node, "alice", "wrong").unwrap_err();
        }
        let locked = login(&node, "alice", PASSWORD).unwrap_err();
        assert_eq!(locked.id, "api.user.check_user_login_attempts.too_many.app_error");
    }

    #[test]
    fn bad_names_and_passwords_are_refused_with_the_real_ids() {
        let node = Node::new(1);
        let refused = |username: &str, email: &str, password: &str| {
            let new = NewUser {
                username: username.to_owned(),
                email: email.to_owned(),
                password: password.to_owned(),
                ..NewUser::default()
            };
            node.core.create_user(None, &new).unwrap_err().id.into_owned()
        };
        assert_eq!(refused("has space", "a@b", PASSWORD), "model.user.is_valid.username.app_error");
        assert_eq!(refused("channel", "a@b", PASSWORD), "model.user.is_valid.username.app_error");
        assert_eq!(refused("ann", "nonsense", PASSWORD), "model.user.is_valid.email.app_error");
        assert_eq!(refused("ann", "a@b", "short"), "model.user.is_valid.pwd_min_length.app_error");
        node.user("ann");
        assert_eq!(refused("ann", "a@b", PASSWORD), "app.user.save.username_exists.app_error");
        assert_eq!(refused("anna", "ann@example.org", PASSWORD), "app.user.save.email_exists.app_error");
    }

    #[test]
    fn deactivating_ends_the_sessions_and_says_so_at_sign_in() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let bob = node.user("bob");
        let token = node.core.create_token(&bob, bob.user_id, "script").unwrap().token;
        assert_eq!(node.core.session(&token).unwrap().user_id, bob.user_id);
        node.core.set_user_active(&alice, bob.user_id, false).unwrap();
        for token in [&bob.token, &token] {
            assert_eq!(node.core.session(token).unwrap_err().status_code, 401);
        }
        assert_eq!(login(&node, "bob", PASSWORD).unwrap_err().id, "api.user.login.inactive.app_error");
    }

    #[test]
    fn search_finds_the_start_of_names_in_any_script_and_takes_wildcards_literally() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let patch = UserPatch { nickname: Some("محمد".to_owned()), ..UserPatch::default() };
        node.core.patch_user(&alice, alice.user_id, &patch).unwrap();
        let find = |term: &str| {
            let search = UserSearch { term: term.to_owned(), ..UserSearch::default() };
            node.core.search_users(&alice, &search).unwrap().len()
        };
        assert_eq!((find("ali"), find("مح"), find("%"), find("a_ice")), (1, 1, 0, 0));
    }
}
