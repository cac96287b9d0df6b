//! Users, bots and their memberships, as lines have them.

use model::Id;
use rusqlite::{Connection, params};
use serde_json::Value;

use super::check::lower;
use super::import::{Importer, Prepared};
use super::line::{BotLine, ChannelOfUser, Marks, NotifyOfMember, NotifyOfUser, UserLine};
use super::names::{Named, is_made, note};
use crate::access::role_exists;
use crate::bots;
use crate::channels::JOIN_LEAVE;
use crate::channels::default_notify_props;
use crate::core::Tx;
use crate::error::{AppError, AppResult};
use crate::rows::{count, exists, get, run, to_json};
use crate::teams::TOWN_SQUARE;
use crate::types::{StringMap, User};
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

/// Fills a profile with what the line says.
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
        if let Some(value) = value.as_ref().filter(|value| value.chars().count() <= VALUE_RUNES_MAX) {
            u.notify_props.insert(name.to_owned(), value.clone());
        }
    }
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
    /// An account that is here stays as it is, whatever the line says: its address is a way to sign in.
    pub(crate) fn user(&mut self, tx: &mut Tx<'_>, line: &UserLine, prepared: &Prepared) -> AppResult<()> {
        let name = lower(&line.username).unwrap_or_default();
        let (user, made) = match self.look_up_user(&tx.db, &name)? {
            Some(known) => (known, false),
            None => (self.new_user(tx, name.clone(), line, prepared)?, true),
        };
        note(tx, Named::User, &name, user, made)?;
        for team in line.teams.iter().flatten() {
            let of = lower(&team.name).unwrap_or_default();
            let Some(team_id) = self.team_id(&tx.db, &of)? else { continue };
            if !self.team_membership(tx, &name, user, &of, team_id, team.roles.as_deref().unwrap_or(""))? {
                continue;
            }
            if let Some(theme) = team.theme.as_ref().filter(|theme| theme.chars().count() <= VALUE_RUNES_MAX) {
                set_preference(tx, user, "theme", team_id.as_str(), theme)?;
            }
            let square = ChannelOfUser { name: Some(TOWN_SQUARE.to_owned()), ..ChannelOfUser::default() };
            let channels = line_channels(team.channels.as_deref().unwrap_or_default(), &square);
            for channel in channels {
                self.membership(tx, &name, user, (&of, team_id), channel)?;
            }
        }
        Ok(())
    }

    /// Makes `user` a member, as an administrator only of a team that an import made. Is this a member then?
    fn team_membership(
        &mut self,
        tx: &mut Tx<'_>,
        name: &str,
        user: Id,
        of: &str,
        team: Id,
        roles: &str,
    ) -> AppResult<bool> {
        let sql = "SELECT delete_at FROM team_members WHERE team_id = ?1 AND user_id = ?2";
        let known: Option<i64> = get(&tx.db, sql, [team.as_str(), user.as_str()], |r| r.get(0))?;
        if let Some(left_at) = known {
            // Who left, left.
            return Ok(left_at == 0);
        }
        let is_made = is_made(&tx.db, Named::Team, team)?;
        let sql = "SELECT 1 FROM teams WHERE id = ?1 AND type = 'O' AND allow_open_invite = 1";
        if !is_made && !exists(&tx.db, sql, [team.as_str()])? {
            self.warn(format!("`{name}` becomes no member of team `{of}`, which was here before and is not open"));
            return Ok(false);
        }
        let is_admin = is_made && roles.split_whitespace().any(|role| role == "team_admin");
        tx.save_team_member(team, user, tx.now, 0, is_admin)?;
        self.added("team membership");
        Ok(true)
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

    fn membership(
        &mut self,
        tx: &mut Tx<'_>,
        user_name: &str,
        user: Id,
        (of, team): (&str, Id),
        line: &ChannelOfUser,
    ) -> AppResult<()> {
        let name = lower(&line.name).unwrap_or_default();
        let Some(c) = self.channel_of(&tx.db, of, &name)? else { return Ok(()) };
        let sql = "SELECT 1 FROM channel_members WHERE channel_id = ?1 AND user_id = ?2";
        // A member, or somebody who left.
        if exists(&tx.db, sql, [c.id.as_str(), user.as_str()])? {
            return Ok(());
        }
        let is_made = is_made(&tx.db, Named::Channel, c.id)?;
        if !is_made && c.kind != "O" {
            let text = format!(
                "`{user_name}` becomes no member of channel `{of}/{name}`, which was here before and is not open"
            );
            self.warn(text);
            return Ok(());
        }
        let mut roles = line.roles.iter().flat_map(|roles| roles.split_whitespace());
        let is_admin = is_made && roles.any(|role| role == "channel_admin");
        tx.save_channel_member(&c, user, tx.now, 0, is_admin)?;
        self.added("channel membership");
        mark(tx, c.id, user, &line.marks, line.notify_props.as_ref())?;
        if line.favorite == Some(true) {
            crate::sidebar::favor(tx, user, team, c.id)?;
        }
        Ok(())
    }

    pub(crate) fn bot(&mut self, tx: &mut Tx<'_>, line: &BotLine, prepared: &Prepared) -> AppResult<()> {
        let name = lower(&line.username).unwrap_or_default();
        if let Some(known) = self.look_up_user(&tx.db, &name)? {
            if !exists(&tx.db, "SELECT 1 FROM users WHERE id = ?1 AND is_bot = 1", [known.as_str()])? {
                self.warn(format!("`{name}` is an account of a person here, and stays one"));
            }
            note(tx, Named::User, &name, known, false)?;
            return Ok(());
        }
        bots::require_room(&tx.db)?;
        let owner = line.owner.as_deref().unwrap_or("");
        let owner_id = self.look_up_user(&tx.db, &owner.to_lowercase())?.map_or(owner.to_owned(), |id| id.to_string());
        let mut row = new_row(tx.mint(), tx.now, name.clone());
        let id = row.user.id;
        let u = &mut row.user;
        u.is_bot = true;
        u.first_name = line.display_name.clone().unwrap_or_default();
        u.bot_description = line.description.clone().unwrap_or_default();
        u.delete_at = line.delete_at.filter(|at| *at > 0).unwrap_or(0);
        check_free(&tx.db, u)?;
        let deleted = u.delete_at;
        tx.save_user(&mut row, None)?;
        note(tx, Named::User, &name, id, true)?;
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
