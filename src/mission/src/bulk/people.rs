//! Users, bots and their memberships, as lines have them.

use model::Id;
use rusqlite::{Connection, params};
use serde_json::Value;

use super::check::lower;
use super::import::{Importer, Prepared};
use super::line::{BotLine, ChannelOfUser, Marks, NotifyOfMember, NotifyOfUser, UserLine};
use crate::access::role_exists;
use crate::bots;
use crate::channels::JOIN_LEAVE;
use crate::channels::default_notify_props;
use crate::core::Tx;
use crate::error::{AppError, AppResult};
use crate::rows::{UserRow, count, exists, get, run, to_json, user_row};
use crate::teams::TOWN_SQUARE;
use crate::types::{Channel, StringMap, User};
use crate::users::{LICENSED_ROLES, check_free, check_profile, new_row};

/// Settings that the format carries: its name, then category and name of the setting (`exportablePreferences`).
pub(crate) const SETTINGS: [(&str, &str, &str); 19] = [
    ("theme", "theme", ""),
    ("feature_enabled_markdown_preview", "advanced_settings", "feature_enabled_markdown_preview"),
    ("formatting", "advanced_settings", "formatting"),
    ("send_on_ctrl_enter", "advanced_settings", "send_on_ctrl_enter"),
    ("code_block_ctrl_enter", "advanced_settings", "code_block_ctrl_enter"),
    ("show_join_leave", "advanced_settings", "join_leave"),
    ("show_unread_scroll_position", "advanced_settings", "unread_scroll_position"),
    ("sync_drafts", "advanced_settings", "sync_drafts"),
    ("show_unread_section", "sidebar_settings", "show_unread_section"),
    ("limit_visible_dms_gms", "sidebar_settings", "limit_visible_dms_gms"),
    ("military_time", "display_settings", "use_military_time"),
    ("link_previews", "display_settings", "collapse_previews"),
    ("message_display", "display_settings", "message_display"),
    ("collapse_consecutive_messages", "display_settings", "collapse_consecutive_messages"),
    ("colorize_usernames", "display_settings", "colorize_usernames"),
    ("channel_display_mode", "display_settings", "channel_display_mode"),
    ("name_format", "display_settings", "name_format"),
    ("email_interval", "notifications", "email_interval"),
    (TUTORIAL, TUTORIAL, ""),
];
/// Its setting has the user's id as name.
pub(crate) const TUTORIAL: &str = "tutorial_step";
/// Words of the format for seconds between mails.
const INTERVALS: [(&str, &str); 3] = [("immediately", "30"), ("fifteen", "900"), ("hour", "3600")];
/// Longest value of a setting, in characters.
const VALUE_RUNES_MAX: usize = 20_000;

/// `notify_props` of a user by the names of the format.
pub(crate) fn notify_pairs(line: &NotifyOfUser) -> [(&'static str, &Option<String>); 8] {
    [
        ("desktop", &line.desktop),
        ("desktop_sound", &line.desktop_sound),
        ("email", &line.email),
        ("push", &line.mobile),
        ("push_status", &line.mobile_push_status),
        ("channel", &line.channel),
        ("comments", &line.comments),
        ("mention_keys", &line.mention_keys),
    ]
}

fn member_pairs(line: &NotifyOfMember) -> [(&'static str, &Option<String>); 6] {
    [
        ("desktop", &line.desktop),
        ("push", &line.mobile),
        ("mark_unread", &line.mark_unread),
        ("email", &line.email),
        ("ignore_channel_mentions", &line.ignore_channel_mentions),
        ("channel_auto_follow_threads", &line.channel_auto_follow_threads),
    ]
}

/// The setting's value as it is kept.
pub(crate) fn kept_value(category: &str, value: &str) -> String {
    let interval = INTERVALS.iter().find(|(word, _)| category == "notifications" && *word == value);
    interval.map_or(value, |(_, seconds)| seconds).to_owned()
}

/// The setting's value as the format has it.
pub(crate) fn written_value(category: &str, value: &str) -> String {
    let interval = INTERVALS.iter().find(|(_, seconds)| category == "notifications" && *seconds == value);
    interval.map_or(value, |(word, _)| word).to_owned()
}

/// Brings a profile to what the line says; what it does not name stays.
pub(crate) fn fill(u: &mut User, line: &UserLine) {
    if let Some(email) = lower(&line.email) {
        u.email = email;
    }
    for (field, value) in [
        (&mut u.nickname, &line.nickname),
        (&mut u.first_name, &line.first_name),
        (&mut u.last_name, &line.last_name),
        (&mut u.position, &line.position),
    ] {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    if let Some(locale) = line.locale.as_ref().filter(|locale| !locale.is_empty()) {
        u.locale.clone_from(locale);
    }
    for (name, value) in line.notify_props.iter().flat_map(notify_pairs) {
        if let Some(value) = value {
            u.notify_props.insert(name.to_owned(), value.clone());
        }
    }
}

fn by_name(db: &Connection, name: &str) -> rusqlite::Result<Option<UserRow>> {
    get(db, "SELECT * FROM users WHERE username = ?1", [name], user_row)
}

pub(crate) fn set_preference(tx: &Tx<'_>, user: Id, category: &str, name: &str, value: &str) -> rusqlite::Result<()> {
    // What somebody has set here since is theirs.
    run(
        &tx.db,
        "INSERT INTO preferences (user_id, category, name, value) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        [user.as_str(), category, name, value],
    )?;
    Ok(())
}

impl Importer<'_> {
    pub(crate) fn user(&mut self, tx: &mut Tx<'_>, line: &UserLine, prepared: &Prepared) -> AppResult<()> {
        let name = lower(&line.username).unwrap_or_default();
        let known = by_name(&tx.db, &name)?;
        let user = match known {
            Some(row) => self.known_user(tx, row, line)?,
            None => self.new_user(tx, name, line, prepared)?,
        };
        for team in line.teams.iter().flatten() {
            let Some(team_id) = self.team_id(&tx.db, &lower(&team.name).unwrap_or_default())? else { continue };
            let roles = team.roles.as_deref().unwrap_or("");
            let is_admin = roles.split_whitespace().any(|role| role == "team_admin");
            let sql = "SELECT 1 FROM team_members WHERE team_id = ?1 AND user_id = ?2";
            // Who left, left.
            if !exists(&tx.db, sql, [team_id.as_str(), user.as_str()])? {
                tx.save_team_member(team_id, user, tx.now, 0, is_admin)?;
                self.added("team membership");
            }
            if let Some(theme) = &team.theme {
                set_preference(tx, user, "theme", team_id.as_str(), theme)?;
            }
            let square = ChannelOfUser { name: Some(TOWN_SQUARE.to_owned()), ..ChannelOfUser::default() };
            let channels = line_channels(team.channels.as_deref().unwrap_or_default(), &square);
            for channel in channels {
                self.membership(tx, user, team_id, channel)?;
            }
        }
        Ok(())
    }

    fn known_user(&mut self, tx: &mut Tx<'_>, mut row: UserRow, line: &UserLine) -> AppResult<Id> {
        let id = row.user.id;
        // The node's own bot, profiles that another node or the directory keeps, and bots are not the archive's to change.
        if row.local || row.placeholder || row.entra.is_some() || row.user.is_bot {
            return Ok(id);
        }
        let before = row.clone();
        fill(&mut row.user, line);
        if row.user != before.user {
            check_profile(&row.user)?;
            check_free(&tx.db, &row.user)?;
            row.user.update_at = tx.now.max(row.user.update_at + 1);
            tx.save_user(&mut row, Some(before.version))?;
            self.changed("user");
        }
        Ok(id)
    }

    fn new_user(&mut self, tx: &mut Tx<'_>, name: String, line: &UserLine, prepared: &Prepared) -> AppResult<Id> {
        let mut row = new_row(tx.mint(), tx.now, name);
        let id = row.user.id;
        fill(&mut row.user, line);
        let u = &mut row.user;
        u.email_verified = true;
        let roles = line.roles.as_deref().unwrap_or("");
        let known = |role: &&str| role_exists(role) && role.starts_with("system_") && !LICENSED_ROLES.contains(role);
        let roles: Vec<&str> = roles.split_whitespace().filter(known).collect();
        if !roles.is_empty() {
            u.roles = roles.join(" ");
        }
        if let Some(deleted) = line.delete_at.filter(|at| *at > 0) {
            u.delete_at = deleted;
        }
        if let Some(status) = line.custom_status.clone().and_then(|status| status.checked_at(tx.now)) {
            u.props.insert(crate::custom_status::PROP.to_owned(), to_json(&status));
        }
        if let Some(hash) = &prepared.password {
            row.password.clone_from(hash);
            u.last_password_update = tx.now;
        } else if u.delete_at == 0 {
            self.done.without_password += 1;
        }
        check_profile(u)?;
        check_free(&tx.db, u)?;
        tx.save_user(&mut row, None)?;
        for (name, category, of) in SETTINGS {
            let Some(value) = line.settings.get(name).and_then(Value::as_str) else { continue };
            let of = if name == TUTORIAL { id.as_str() } else { of };
            if !value.is_empty() && value.chars().count() <= VALUE_RUNES_MAX {
                set_preference(tx, id, category, of, &kept_value(category, value))?;
            }
        }
        for (category, name, value) in [
            ("recommended_next_steps", "hide", "false"),
            (TUTORIAL, id.as_str(), "0"),
            ("system_notice", "GMasDM", "true"),
        ] {
            set_preference(tx, id, category, name, value)?;
        }
        if let Some(picture) = &prepared.picture {
            tx.store_picture(id, picture)?;
            tx.picture_changed(id, tx.now)?;
        }
        self.added("user");
        Ok(id)
    }

    fn membership(&mut self, tx: &mut Tx<'_>, user: Id, team: Id, line: &ChannelOfUser) -> AppResult<()> {
        let name = lower(&line.name).unwrap_or_default();
        let Some(c) = self.channel_of(&tx.db, team, &name)? else { return Ok(()) };
        let is_admin = line.roles.iter().flat_map(|roles| roles.split_whitespace()).any(|role| role == "channel_admin");
        if self.member(tx, &c, user, is_admin, &line.marks, line.notify_props.as_ref())? && line.favorite == Some(true)
        {
            crate::sidebar::favor(tx, user, team, c.id)?;
        }
        Ok(())
    }

    /// Makes `user` a member who has read as far as the marks say; whoever left is left alone. `false` for who was one before.
    pub(crate) fn member(
        &mut self,
        tx: &mut Tx<'_>,
        c: &Channel,
        user: Id,
        is_admin: bool,
        marks: &Marks,
        notify: Option<&NotifyOfMember>,
    ) -> AppResult<bool> {
        let sql = "SELECT 1 FROM channel_members WHERE channel_id = ?1 AND user_id = ?2";
        if exists(&tx.db, sql, [c.id.as_str(), user.as_str()])? {
            return Ok(false);
        }
        tx.save_channel_member(c, user, tx.now, 0, is_admin)?;
        self.added("channel membership");
        mark(tx, c.id, user, marks, notify)?;
        Ok(true)
    }

    pub(crate) fn bot(&mut self, tx: &mut Tx<'_>, line: &BotLine, prepared: &Prepared) -> AppResult<()> {
        let name = lower(&line.username).unwrap_or_default();
        if let Some(known) = by_name(&tx.db, &name)? {
            if !known.user.is_bot {
                self.warn(format!("`{name}` is an account of a person here, and stays one"));
            }
            return Ok(());
        }
        bots::require_room(&tx.db)?;
        let owner = line.owner.as_deref().unwrap_or("");
        let owner_id = by_name(&tx.db, &owner.to_lowercase())?.map_or(owner.to_owned(), |row| row.user.id.to_string());
        let mut row = new_row(tx.mint(), tx.now, name);
        let id = row.user.id;
        let u = &mut row.user;
        u.is_bot = true;
        u.first_name = line.display_name.clone().unwrap_or_default();
        u.bot_description = line.description.clone().unwrap_or_default();
        u.delete_at = line.delete_at.filter(|at| *at > 0).unwrap_or(0);
        check_free(&tx.db, u)?;
        let deleted = u.delete_at;
        tx.save_user(&mut row, None)?;
        bots::insert(tx, id, &owner_id)?;
        run(&tx.db, "UPDATE bots SET delete_at = ?2 WHERE user_id = ?1", params![id.as_str(), deleted])?;
        if let Some(picture) = &prepared.picture {
            tx.store_picture(id, picture)?;
            tx.picture_changed(id, tx.now)?;
        }
        self.added("bot");
        Ok(())
    }
}

/// The channels of a line, and the one that everybody in a team is in.
fn line_channels<'a>(channels: &'a [ChannelOfUser], square: &'a ChannelOfUser) -> Vec<&'a ChannelOfUser> {
    let has_square = channels.iter().any(|c| lower(&c.name).as_deref() == Some(TOWN_SQUARE));
    channels.iter().chain((!has_square).then_some(square)).collect()
}

/// Sets how far a new member has read: to everything where nothing is said of it.
pub(crate) fn mark(
    tx: &Tx<'_>,
    channel: Id,
    user: Id,
    marks: &Marks,
    notify: Option<&NotifyOfMember>,
) -> AppResult<()> {
    let mut props: StringMap = default_notify_props();
    for (name, value) in notify.iter().flat_map(|notify| member_pairs(notify)) {
        if let Some(value) = value.as_ref().filter(|value| value.len() <= 64) {
            props.insert(name.to_owned(), value.clone());
        }
    }
    let viewed = marks.last_viewed_at.map_or(tx.now, |at| at.clamp(0, tx.now));
    let (all, roots) = read_until(&tx.db, channel, viewed)?;
    run(
        &tx.db,
        "UPDATE channel_members SET notify_props = ?3, last_viewed_at = ?4, msg_count = ?5, msg_count_root = ?6,
            mention_count = ?7, mention_count_root = ?8, urgent_mention_count = ?9
         WHERE channel_id = ?1 AND user_id = ?2",
        params![
            channel.as_str(),
            user.as_str(),
            to_json(&props),
            viewed,
            all,
            roots,
            marks.mention_count.unwrap_or(0).max(0),
            marks.mention_count_root.unwrap_or(0).max(0),
            marks.urgent_mention_count.unwrap_or(0).max(0),
        ],
    )?;
    Ok(())
}

/// How many of a channel's messages were written up to then: all, and those that begin threads.
///
/// What is behind it is counted, which is little for whoever reads now and then.
pub(crate) fn read_until(db: &Connection, channel: Id, at: i64) -> Result<(i64, i64), AppError> {
    if at == 0 {
        return Ok((0, 0));
    }
    let total = |column: &str| count(db, &format!("SELECT {column} FROM channels WHERE id = ?1"), [channel.as_str()]);
    let behind = |roots: &str| {
        let sql = format!(
            "SELECT count(*) FROM posts WHERE channel_id = ?1 AND create_at > ?2 AND original_id = ''
                AND type NOT IN {JOIN_LEAVE} {roots}"
        );
        count(db, &sql, params![channel.as_str(), at])
    };
    let all = (total("total_msg_count")? - behind("")?).max(0);
    Ok((all, (total("total_msg_count_root")? - behind("AND root_id = ''")?).max(0)))
}
