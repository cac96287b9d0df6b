//! Channels, their members and their read marks.

use std::collections::{BTreeMap, BTreeSet};

use model::event::{ChannelMemberState, ChannelState};
use model::{Event, Hlc, Id, UnixMillis, Version};
use rusqlite::{Connection, Row, params};
use sha1::{Digest, Sha1};

use crate::access::{may_in_channel, require, require_in_channel, require_in_team, require_read, require_self};
use crate::core::{Core, Tx, channel_id_of_name, version_of};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::mentions::Reader;
use crate::posts::require_post;
use crate::rows::{
    ChannelRow, all, channel, channel_member, channel_row, count, exists, first_id, get, id_array, json, post_row, run,
    text, to_json,
};
use crate::search::words::name_term;
use crate::teams::{TOWN_SQUARE, member_of_team, team_member_ids};
use crate::types::{
    Channel, ChannelMember, ChannelMemberWithTeam, ChannelPatch, ChannelStats, ChannelUnread, ChannelUnreadAt,
    ChannelView, ChannelViewResponse, ChannelWithTeam, NewChannel, Session, StringMap, TeamData,
};
use crate::users::{page, require_user};

const DISPLAY_NAME_MAX_RUNES: usize = 64;
const NAME_MAX_BYTES: usize = 64;
const HEADER_MAX_RUNES: usize = 1024;
const PURPOSE_MAX_RUNES: usize = 250;

/// Posts of these types do not count as messages.
pub(crate) const JOIN_LEAVE: &str = "('system_join_leave', 'system_add_remove', 'system_join_channel',
    'system_leave_channel', 'system_join_team', 'system_leave_team', 'system_add_to_channel',
    'system_remove_from_channel', 'system_add_to_team', 'system_remove_from_team')";

const MINE: &str = "(SELECT channel_id FROM channel_members WHERE user_id = ?1 AND delete_at = 0)";

pub(crate) fn channel_row_by_id(db: &Connection, id: Id) -> rusqlite::Result<Option<ChannelRow>> {
    get(db, "SELECT * FROM channels WHERE id = ?1", [id.as_str()], channel_row)
}

pub(crate) fn require_channel(db: &Connection, id: Id) -> AppResult<ChannelRow> {
    channel_row_by_id(db, id)?.ok_or_else(|| AppError::not_found("GetChannel", "app.channel.get.existing.app_error"))
}

/// Users who are members of the channel.
pub(crate) fn member_ids(db: &Connection, channel: Id) -> rusqlite::Result<Vec<Id>> {
    let sql = "SELECT user_id FROM channel_members WHERE channel_id = ?1 AND delete_at = 0 ORDER BY user_id";
    all(db, sql, [channel.as_str()], first_id)
}

pub(crate) fn member(db: &Connection, channel: Id, user: Id) -> rusqlite::Result<Option<ChannelMember>> {
    let sql = "SELECT * FROM channel_members WHERE channel_id = ?1 AND user_id = ?2 AND delete_at = 0";
    get(db, sql, [channel.as_str(), user.as_str()], channel_member)
}

fn require_member(db: &Connection, channel: Id, user: Id) -> AppResult<ChannelMember> {
    member(db, channel, user)?
        .ok_or_else(|| AppError::not_found("GetChannelMember", "app.channel.get_member.missing.app_error"))
}

impl ChannelRow {
    fn state(&self) -> ChannelState {
        let c = &self.channel;
        ChannelState {
            version: self.version,
            id: c.id,
            create_at: UnixMillis(c.create_at),
            update_at: UnixMillis(c.update_at),
            delete_at: UnixMillis(c.delete_at),
            team_id: c.team_id,
            kind: c.kind.clone(),
            name: self.wanted_name.clone(),
            display_name: c.display_name.clone(),
            header: c.header.clone(),
            purpose: c.purpose.clone(),
            creator_id: c.creator_id,
        }
    }
}

/// A channel with nothing in it.
pub(crate) fn blank_channel(id: Id, now: i64, kind: &str, name: &str) -> ChannelRow {
    ChannelRow {
        wanted_name: name.to_owned(),
        version: Version { at: Hlc::ZERO, by: model::NodeId([0; 16]) },
        local: false,
        channel: Channel {
            id,
            create_at: now,
            update_at: now,
            delete_at: 0,
            team_id: None,
            kind: kind.to_owned(),
            display_name: String::new(),
            name: name.to_owned(),
            header: String::new(),
            purpose: String::new(),
            last_post_at: now,
            total_msg_count: 0,
            extra_update_at: 0,
            creator_id: None,
            scheme_id: None,
            props: None,
            group_constrained: None,
            autotranslation: false,
            shared: (kind == "D" || kind == "G").then_some(false),
            total_msg_count_root: 0,
            policy_id: None,
            last_root_post_at: now,
            banner_info: None,
            policy_enforced: false,
            policy_is_active: false,
            default_category_name: String::new(),
        },
    }
}

/// Posts in which mentions are counted when a channel is marked as unread from far back.
pub(crate) const MENTIONS_LOOKED_AT_MAX: i64 = 10_000;

fn team_data(r: &Row<'_>) -> rusqlite::Result<TeamData> {
    Ok(TeamData {
        team_display_name: r.get("of_display_name")?,
        team_name: r.get("of_name")?,
        team_update_at: r.get("of_update_at")?,
    })
}

/// What a member may set in `notify_props`; the rest of a request is left out, as the original does.
const NOTIFY_PROPS: [&str; 10] = [
    "desktop",
    "desktop_notification_sound",
    "desktop_sound",
    "desktop_threads",
    "email",
    "mark_unread",
    "push",
    "push_threads",
    "ignore_channel_mentions",
    "channel_auto_follow_threads",
];

/// `notify_props` of a fresh member.
pub(crate) fn default_notify_props() -> StringMap {
    [
        ("desktop", "default"),
        ("mark_unread", "all"),
        ("push", "default"),
        ("email", "default"),
        ("ignore_channel_mentions", "default"),
        ("channel_auto_follow_threads", "off"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

impl Tx<'_> {
    /// Writes the row; counters of an existing row stay.
    pub(crate) fn put_channel(&mut self, row: &ChannelRow) -> rusqlite::Result<()> {
        let c = &row.channel;
        run(
            &self.db,
            "INSERT INTO channels (id, create_at, update_at, delete_at, team_id, type, name, wanted_name, display_name,
                header, purpose, creator_id, last_post_at, last_root_post_at, ver_at, ver_by, local)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (id) DO UPDATE SET create_at = excluded.create_at, update_at = excluded.update_at,
                delete_at = excluded.delete_at, type = excluded.type, name = excluded.name,
                wanted_name = excluded.wanted_name, display_name = excluded.display_name, header = excluded.header,
                purpose = excluded.purpose, creator_id = excluded.creator_id, ver_at = excluded.ver_at,
                ver_by = excluded.ver_by",
            params![
                c.id.as_str(),
                c.create_at,
                c.update_at,
                c.delete_at,
                text(&c.team_id),
                c.kind,
                c.name,
                row.wanted_name,
                c.display_name,
                c.header,
                c.purpose,
                text(&c.creator_id),
                c.last_post_at,
                c.last_root_post_at,
                row.version.at.0 as i64,
                row.version.by.0,
                row.local,
            ],
        )?;
        Ok(())
    }

    pub(crate) fn save_channel(&mut self, row: &mut ChannelRow, current: Option<Version>) -> rusqlite::Result<()> {
        let at = self.tick();
        row.version = self.version_after(at, current);
        self.put_channel(row)?;
        if !row.local {
            self.emit(at, &Event::Channel(row.state()))?;
        }
        Ok(())
    }

    /// A new open or private channel, without members.
    #[allow(clippy::too_many_arguments, reason = "the fields of a channel")]
    pub(crate) fn new_team_channel(
        &mut self,
        team: Id,
        creator: Id,
        kind: &str,
        name: &str,
        display_name: &str,
        header: &str,
        purpose: &str,
    ) -> AppResult<ChannelRow> {
        let mut row = blank_channel(self.mint(), self.now, kind, name);
        row.channel.team_id = Some(team);
        row.channel.creator_id = Some(creator);
        row.channel.display_name = display_name.trim().to_owned();
        row.channel.header = header.to_owned();
        row.channel.purpose = purpose.to_owned();
        check_channel(&row.channel)?;
        if exists(&self.db, "SELECT 1 FROM channels WHERE team_id = ?1 AND name = ?2", [team.as_str(), name])? {
            return Err(AppError::bad(
                "CreateChannel",
                "store.sql_channel.save_channel.exists.app_error",
                "A channel with that name already exists on the same team.",
            ));
        }
        self.save_channel(&mut row, None)?;
        Ok(row)
    }

    /// Writes a membership state; joining and leaving keep the row so that it has a version.
    pub(crate) fn put_channel_member(&mut self, s: &ChannelMemberState) -> rusqlite::Result<()> {
        self.members.change(s.channel_id);
        run(
            &self.db,
            "INSERT INTO channel_members (channel_id, user_id, create_at, delete_at, scheme_admin, notify_props,
                last_update_at, ver_at, ver_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (channel_id, user_id) DO UPDATE SET create_at = excluded.create_at,
                delete_at = excluded.delete_at, scheme_admin = excluded.scheme_admin,
                last_update_at = excluded.last_update_at, ver_at = excluded.ver_at, ver_by = excluded.ver_by",
            params![
                s.channel_id.as_str(),
                s.user_id.as_str(),
                s.create_at.0,
                s.delete_at.0,
                s.scheme_admin,
                to_json(&default_notify_props()),
                self.now,
                s.version.at.0 as i64,
                s.version.by.0,
            ],
        )?;
        Ok(())
    }

    pub(crate) fn save_channel_member(
        &mut self,
        c: &Channel,
        user: Id,
        joined: i64,
        left: i64,
        admin: bool,
    ) -> AppResult<()> {
        let sql = "SELECT ver_at, ver_by FROM channel_members WHERE channel_id = ?1 AND user_id = ?2";
        let current = version_of(&self.db, sql, [c.id.as_str(), user.as_str()])?;
        let at = self.tick();
        let state = ChannelMemberState {
            version: self.version_after(at, current),
            channel_id: c.id,
            user_id: user,
            create_at: UnixMillis(joined),
            delete_at: UnixMillis(left),
            scheme_admin: admin,
        };
        self.put_channel_member(&state)?;
        if count(&self.db, "SELECT local FROM channels WHERE id = ?1", [c.id.as_str()])? == 0 {
            self.emit(at, &Event::ChannelMember(state))?;
        }
        Ok(())
    }

    /// Tells the channel's members.
    pub(crate) fn tell_channel_updated(&mut self, c: &Channel) -> rusqlite::Result<()> {
        let members = self.member_ids(c.id)?;
        self.tell(Broadcast::to_channel("channel_updated", c.id, members).with_text("channel", c));
        Ok(())
    }

    /// Tells the team of an open channel, or the members of another.
    pub(crate) fn tell_channel_gone_or_back(&mut self, event: &'static str, c: &Channel) -> rusqlite::Result<()> {
        let broadcast = match c.team_id {
            Some(team) if c.kind == "O" => Broadcast::to_team(event, team, team_member_ids(&self.db, team)?),
            _ => Broadcast::to_channel(event, c.id, self.member_ids(c.id)?),
        };
        let broadcast = broadcast.with("channel_id", c.id.as_str());
        self.tell(if c.delete_at > 0 { broadcast.with("delete_at", c.delete_at) } else { broadcast });
        Ok(())
    }

    /// Tells the channel and the user that the user is in.
    pub(crate) fn tell_user_added(&mut self, c: &Channel, user: Id) -> rusqlite::Result<()> {
        let members = self.member_ids(c.id)?;
        let others = Broadcast::to_channel("user_added", c.id, members).omitting(user);
        self.tell(others.with("user_id", user.as_str()).with("team_id", text(&c.team_id)));
        self.tell_added_user(c, user);
        Ok(())
    }

    /// Tells the user alone of being in.
    fn tell_added_user(&mut self, c: &Channel, user: Id) {
        let own = Broadcast::to_user("user_added", user).with("user_id", user.as_str());
        let mut own = own.with("team_id", text(&c.team_id));
        own.channel_id = Some(c.id);
        self.tell(own);
    }

    /// Tells the channel and the user that the user is out.
    pub(crate) fn tell_user_removed(&mut self, c: &Channel, user: Id, remover: Id) -> rusqlite::Result<()> {
        let members = self.member_ids(c.id)?;
        self.tell(
            Broadcast::to_channel("user_removed", c.id, members)
                .with("user_id", user.as_str())
                .with("remover_id", remover.as_str()),
        );
        self.tell(
            Broadcast::to_user("user_removed", user)
                .with("channel_id", c.id.as_str())
                .with("remover_id", remover.as_str()),
        );
        Ok(())
    }

    /// A direct channel of the local bot with a user: neither leaves this node.
    pub(crate) fn bot_channel(&mut self, bot: Id, user: Id) -> AppResult<Channel> {
        open_direct(self, bot, user, true)
    }
}

/// `a__b` in id order.
pub(crate) fn direct_name(a: Id, b: Id) -> String {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    format!("{low}__{high}")
}

/// Name of the group channel of these users: SHA-1 over the ids in their order.
pub(crate) fn group_name(users: &[Id]) -> String {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    let mut hash = Sha1::new();
    for user in &users {
        hash.update(user.as_str());
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// Name of the direct or group channel of these users.
pub(crate) fn name_of_direct(users: &[Id]) -> String {
    match users[..] {
        [a, b] => direct_name(a, b),
        _ => group_name(users),
    }
}

/// The direct channel of two users, made when missing.
pub(crate) fn open_direct(tx: &mut Tx<'_>, a: Id, b: Id, local: bool) -> AppResult<Channel> {
    let name = direct_name(a, b);
    let id = channel_id_of_name(&name);
    if let Some(row) = channel_row_by_id(&tx.db, id)? {
        return Ok(row.channel);
    }
    let mut row = blank_channel(id, tx.now, "D", &name);
    row.channel.creator_id = Some(a);
    row.local = local;
    tx.save_channel(&mut row, None)?;
    let users = if a == b { vec![a] } else { vec![a, b] };
    for user in &users {
        tx.save_channel_member(&row.channel, *user, tx.now, 0, false)?;
    }
    tx.tell(
        Broadcast::to_channel("direct_added", id, users).with("creator_id", a.as_str()).with("teammate_id", b.as_str()),
    );
    Ok(row.channel)
}

/// The group channel of these users, made when missing.
pub(crate) fn open_group(tx: &mut Tx<'_>, users: &[Id], creator: Id, local: bool) -> AppResult<Channel> {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    let name = group_name(&users);
    let id = channel_id_of_name(&name);
    if let Some(row) = channel_row_by_id(&tx.db, id)? {
        return Ok(row.channel);
    }
    let mut names = Vec::new();
    for user in &users {
        names.push(require_user(&tx.db, *user)?.user.username);
    }
    names.sort();
    let mut row = blank_channel(id, tx.now, "G", &name);
    row.channel.display_name = names.join(", ").chars().take(DISPLAY_NAME_MAX_RUNES).collect();
    row.channel.creator_id = Some(creator);
    row.local = local;
    tx.save_channel(&mut row, None)?;
    for user in &users {
        tx.save_channel_member(&row.channel, *user, tx.now, 0, false)?;
    }
    tx.tell(Broadcast::to_channel("group_added", id, users.clone()).with_text("teammate_ids", &users));
    Ok(row.channel)
}

/// Makes `user` a member and tells everyone concerned.
pub(crate) fn join(tx: &mut Tx<'_>, c: &Channel, user: Id, admin: bool) -> AppResult<()> {
    match begin_membership(tx, c, user, admin)? {
        true => Ok(tx.tell_user_added(c, user)?),
        false => Ok(()),
    }
}

/// As [`join`], and tells `user` alone: for those who come by the thousand. The others see them when they next look.
pub(crate) fn join_among_many(tx: &mut Tx<'_>, c: &Channel, user: Id, admin: bool) -> AppResult<()> {
    if begin_membership(tx, c, user, admin)? {
        tx.tell_added_user(c, user);
    }
    Ok(())
}

/// `false` for who was a member before.
fn begin_membership(tx: &mut Tx<'_>, c: &Channel, user: Id, admin: bool) -> AppResult<bool> {
    if member(&tx.db, c.id, user)?.is_some() {
        return Ok(false);
    }
    tx.save_channel_member(c, user, tx.now, 0, admin)?;
    // A member who comes back starts reading afresh.
    run(
        &tx.db,
        "UPDATE channel_members SET msg_count = 0, msg_count_root = 0, mention_count = 0, mention_count_root = 0,
            urgent_mention_count = 0, last_viewed_at = 0, explicit_roles = '' WHERE channel_id = ?1 AND user_id = ?2",
        [c.id.as_str(), user.as_str()],
    )?;
    Ok(true)
}

/// Ends a membership and tells everyone concerned.
pub(crate) fn leave(tx: &mut Tx<'_>, c: &Channel, user: Id, remover: Id) -> AppResult<()> {
    let gone = require_member(&tx.db, c.id, user)?;
    tx.save_channel_member(c, user, tx.now, tx.now, gone.scheme_admin)?;
    tx.forget_threads(c.id, user)?;
    Ok(tx.tell_user_removed(c, user, remover)?)
}

pub(crate) fn check_channel(c: &Channel) -> AppResult<()> {
    let bad = |field: &str| {
        Err(AppError::bad(
            "Channel.IsValid",
            format!("model.channel.is_valid.{field}.app_error"),
            "The channel's name, address, header or purpose is not valid.",
        ))
    };
    if c.display_name.chars().count() > DISPLAY_NAME_MAX_RUNES {
        return bad("display_name");
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let name = c.name.as_bytes();
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.iter().all(|b| plain(*b) || *b == b'-' || *b == b'_')
        && name.first().copied().is_some_and(plain)
        && name.last().copied().is_some_and(plain);
    if !fits {
        return bad("1_or_more");
    }
    if !["O", "P", "D", "G"].contains(&c.kind.as_str()) {
        return bad("type");
    }
    if c.header.chars().count() > HEADER_MAX_RUNES {
        return bad("header");
    }
    if c.purpose.chars().count() > PURPOSE_MAX_RUNES {
        return bad("purpose");
    }
    let looks_group = c.name.len() == 40 && c.name.bytes().all(|b| b.is_ascii_hexdigit());
    let looks_direct = c.name.split_once("__").is_some_and(|(a, b)| a.parse::<Id>().is_ok() && b.parse::<Id>().is_ok());
    if !c.is_direct_or_group() && (looks_group || looks_direct) {
        return bad("name");
    }
    Ok(())
}

/// The permission that changing this channel's members or properties takes.
fn manage(c: &Channel, open: &'static str, private: &'static str) -> &'static str {
    if c.kind == "O" { open } else { private }
}

impl Core {
    /// Makes an open or private channel; the maker is its first member and administrator.
    ///
    /// # Errors
    /// 403 without permission in the team, 400 for bad or taken names.
    pub fn create_channel(&self, by: &Session, new: &NewChannel) -> AppResult<Channel> {
        let team: Id = new.team_id.parse().map_err(|_| AppError::body_param("createChannel", "team_id"))?;
        let permission = match new.kind.as_str() {
            "O" => "create_public_channel",
            "P" => "create_private_channel",
            _ => return Err(AppError::body_param("createChannel", "type")),
        };
        self.write(|tx| {
            require_in_team("createChannel", &tx.db, by, team, permission)?;
            let name = new.name.trim();
            let c = tx
                .new_team_channel(team, by.user_id, &new.kind, name, &new.display_name, &new.header, &new.purpose)?
                .channel;
            tx.save_channel_member(&c, by.user_id, tx.now, 0, true)?;
            let creator = require_user(&tx.db, by.user_id)?.user;
            let message = format!("{} joined the channel.", creator.username);
            tx.system_post(&c, by.user_id, "system_join_channel", message, &[("username", &creator.username)])?;
            tx.tell(
                Broadcast::to_user("channel_created", by.user_id)
                    .with("channel_id", c.id.as_str())
                    .with("team_id", team.as_str()),
            );
            Ok(require_channel(&tx.db, c.id)?.channel)
        })
    }

    /// The direct channel of two users, made when missing.
    ///
    /// # Errors
    /// 403 when the asker is neither (and no administrator), 404 for a missing user.
    pub fn direct_channel(&self, by: &Session, a: Id, b: Id) -> AppResult<Channel> {
        require("createDirectChannel", by, "create_direct_channel")?;
        if a != by.user_id && b != by.user_id {
            require("createDirectChannel", by, "manage_system")?;
        }
        self.write(|tx| {
            let bot = require_user(&tx.db, a)?.local || require_user(&tx.db, b)?.local;
            open_direct(tx, a, b, bot)
        })
    }

    /// The group channel of three to eight users (the asker included), made when missing.
    ///
    /// # Errors
    /// 400 for a wrong number, 404 for a missing user.
    pub fn group_channel(&self, by: &Session, users: &[Id]) -> AppResult<Channel> {
        require("createGroupChannel", by, "create_group_channel")?;
        let mut users = users.to_vec();
        users.push(by.user_id);
        users.sort_unstable();
        users.dedup();
        if !(3..=8).contains(&users.len()) {
            return Err(AppError::bad(
                "CreateGroup",
                "api.channel.create_group.bad_size.app_error",
                "Group message channels must contain at least 3 and no more than 8 users.",
            ));
        }
        self.write(|tx| {
            let mut local = false;
            for user in &users {
                local |= require_user(&tx.db, *user)?.local;
            }
            open_group(tx, &users, by.user_id, local)
        })
    }

    /// A channel.
    ///
    /// # Errors
    /// 404, or 403 when it is not the asker's.
    pub fn channel(&self, by: &Session, id: Id) -> AppResult<Channel> {
        self.read(|db| {
            let c = require_channel(db, id)?.channel;
            require_channel_view(db, by, &c)?;
            Ok(c)
        })
    }

    /// A channel by its name in a team. Direct and group channels have names too.
    ///
    /// # Errors
    /// 404; also for a private channel of others, so that names do not leak.
    pub fn channel_by_name(&self, by: &Session, team: Id, name: &str, include_deleted: bool) -> AppResult<Channel> {
        let missing = || AppError::not_found("GetChannelByName", "app.channel.get_by_name.missing.app_error");
        self.read(|db| {
            let sql = "SELECT * FROM channels WHERE team_id IN (?1, '') AND name = ?2 AND (?3 OR delete_at = 0)";
            let c = get(db, sql, params![team.as_str(), name.to_lowercase(), include_deleted], channel)?
                .ok_or_else(missing)?;
            require_channel_view(db, by, &c).map_err(|_| missing())?;
            Ok(c)
        })
    }

    /// The channels that a user is in: of one team (with direct and group channels), or of all.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn channels_of(
        &self,
        by: &Session,
        user: Id,
        team: Option<Id>,
        include_deleted: bool,
        last_delete_at: i64,
    ) -> AppResult<Vec<Channel>> {
        require_self("getChannelsForUser", by, user)?;
        self.read(|db| {
            let sql = format!(
                "SELECT * FROM channels WHERE id IN {MINE} AND (?2 = '' OR team_id IN (?2, ''))
                    AND (delete_at = 0 OR (?3 AND delete_at >= ?4)) ORDER BY display_name, id"
            );
            Ok(all(db, &sql, params![user.as_str(), text(&team), include_deleted, last_delete_at], channel)?)
        })
    }

    /// Open channels of a team.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn public_channels(&self, by: &Session, team: Id, page_number: u32, per_page: u32) -> AppResult<Vec<Channel>> {
        let (limit, offset) = page(page_number, per_page);
        self.read(|db| {
            require_in_team("getPublicChannelsForTeam", db, by, team, "list_team_channels")?;
            let sql = "SELECT * FROM channels WHERE team_id = ?1 AND type = 'O' AND delete_at = 0
                       ORDER BY display_name, id LIMIT ?2 OFFSET ?3";
            Ok(all(db, sql, params![team.as_str(), limit, offset], channel)?)
        })
    }

    /// Archived channels of a team that the asker may see.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn archived_channels(
        &self,
        by: &Session,
        team: Id,
        page_number: u32,
        per_page: u32,
    ) -> AppResult<Vec<Channel>> {
        let (limit, offset) = page(page_number, per_page);
        self.read(|db| {
            require_in_team("getDeletedChannelsForTeam", db, by, team, "list_team_channels")?;
            let sql = format!(
                "SELECT * FROM channels WHERE team_id = ?2 AND delete_at > 0 AND (type = 'O' OR id IN {MINE})
                 ORDER BY display_name, id LIMIT ?3 OFFSET ?4"
            );
            Ok(all(db, &sql, params![by.user_id.as_str(), team.as_str(), limit, offset], channel)?)
        })
    }

    /// Open and private channels of all teams, for administrators.
    ///
    /// # Errors
    /// 403 for others.
    pub fn all_channels(
        &self,
        by: &Session,
        include_deleted: bool,
        page_number: u32,
        per_page: u32,
    ) -> AppResult<Vec<ChannelWithTeam>> {
        require("getAllChannels", by, "sysconsole_read_user_management_channels")?;
        let (limit, offset) = page(page_number, per_page);
        let sql = "SELECT c.*, t.display_name AS of_display_name, t.name AS of_name, t.update_at AS of_update_at
                   FROM channels c JOIN teams t ON t.id = c.team_id
                   WHERE c.type IN ('O', 'P') AND (?1 OR c.delete_at = 0) ORDER BY c.display_name, c.id LIMIT ?2 OFFSET ?3";
        let with_team = |r: &Row<'_>| Ok(ChannelWithTeam { channel: channel(r)?, team: team_data(r)? });
        self.read(|db| Ok(all(db, sql, params![include_deleted, limit, offset], with_team)?))
    }

    /// Open channels of a team, and the asker's private ones, whose name starts with the term.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn search_channels(&self, by: &Session, team: Id, term: &str) -> AppResult<Vec<Channel>> {
        self.read(|db| {
            require_in_team("searchChannelsForTeam", db, by, team, "list_team_channels")?;
            let sql = format!(
                "SELECT * FROM channels WHERE team_id = ?2 AND delete_at = 0 AND (type = 'O' OR id IN {MINE})
                    AND (?3 = '' OR name_matches(?3, name, display_name)) ORDER BY display_name LIMIT 100"
            );
            Ok(all(db, &sql, params![by.user_id.as_str(), team.as_str(), name_term(term)], channel)?)
        })
    }

    /// These channels of a team, as far as the asker may see them.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn channels_by_ids(&self, by: &Session, team: Id, ids: &[Id]) -> AppResult<Vec<Channel>> {
        self.read(|db| {
            require_in_team("getPublicChannelsByIdsForTeam", db, by, team, "view_team")?;
            let sql = format!(
                "SELECT * FROM channels WHERE team_id = ?2 AND id IN (SELECT value FROM json_each(?3))
                    AND (type = 'O' OR id IN {MINE}) ORDER BY display_name"
            );
            Ok(all(db, &sql, params![by.user_id.as_str(), team.as_str(), id_array(ids)], channel)?)
        })
    }

    /// Changes a channel; header, purpose and display name changes are announced in it.
    ///
    /// # Errors
    /// 403 without permission, 400 for bad values or an archived channel.
    pub fn patch_channel(&self, by: &Session, id: Id, patch: &ChannelPatch) -> AppResult<Channel> {
        self.write(|tx| {
            let mut row = require_channel(&tx.db, id)?;
            let before = row.clone();
            let old = &before.channel;
            if old.is_direct_or_group() {
                require_member(&tx.db, id, by.user_id)?;
            } else {
                let permission = manage(old, "manage_public_channel_properties", "manage_private_channel_properties");
                require_in_channel("patchChannel", &tx.db, by, old, permission)?;
            }
            require_live(old)?;
            let c = &mut row.channel;
            if let Some(display) = &patch.display_name {
                c.display_name = display.trim().to_owned();
            }
            if let Some(header) = &patch.header {
                c.header.clone_from(header);
            }
            if let Some(purpose) = &patch.purpose {
                c.purpose.clone_from(purpose);
            }
            if let Some(name) = patch.name.as_ref().filter(|n| **n != c.name) {
                if c.is_direct_or_group() || c.name == TOWN_SQUARE {
                    return Err(AppError::bad(
                        "updateChannel",
                        "api.channel.update_channel.tried.app_error",
                        "Tried to perform an invalid update of the default channel.",
                    ));
                }
                let sql = "SELECT 1 FROM channels WHERE team_id = ?1 AND name = ?2 AND id <> ?3";
                if exists(&tx.db, sql, [text(&c.team_id), name, id.as_str()])? {
                    return Err(AppError::bad(
                        "UpdateChannel",
                        "store.sql_channel.save_channel.exists.app_error",
                        "A channel with that name already exists on the same team.",
                    ));
                }
                c.name.clone_from(name);
                row.wanted_name.clone_from(name);
            }
            let c = &mut row.channel;
            check_channel(c)?;
            c.update_at = tx.now.max(c.update_at + 1);
            tx.save_channel(&mut row, Some(before.version))?;
            let c = &row.channel;
            let editor = require_user(&tx.db, by.user_id)?.user.username;
            if c.display_name != old.display_name && !c.is_direct_or_group() {
                let (from, to) = (&old.display_name, &c.display_name);
                let message = format!("{editor} updated the channel display name from: {from} to: {to}");
                let props = [("username", editor.as_str()), ("old_displayname", from), ("new_displayname", to)];
                tx.system_post(c, by.user_id, "system_displayname_change", message, &props)?;
            }
            for (what, kind, from, to, old_key, new_key) in [
                ("header", "system_header_change", &old.header, &c.header, "old_header", "new_header"),
                ("purpose", "system_purpose_change", &old.purpose, &c.purpose, "old_purpose", "new_purpose"),
            ] {
                if from == to {
                    continue;
                }
                let message = if from.is_empty() {
                    format!("{editor} updated the channel {what} to: {to}")
                } else if to.is_empty() {
                    format!("{editor} removed the channel {what} (was: {from})")
                } else {
                    format!("{editor} updated the channel {what} from: {from} to: {to}")
                };
                let props = [("username", editor.as_str()), (old_key, from), (new_key, to)];
                tx.system_post(c, by.user_id, kind, message, &props)?;
            }
            let c = require_channel(&tx.db, id)?.channel;
            tx.tell_channel_updated(&c)?;
            Ok(c)
        })
    }

    /// Makes an open channel private or the reverse. `kind` is "O" or "P".
    ///
    /// # Errors
    /// 403 without permission, 400 for another kind or the default channel.
    pub fn set_channel_privacy(&self, by: &Session, id: Id, kind: &str) -> AppResult<Channel> {
        if kind != "O" && kind != "P" {
            return Err(AppError::body_param("updateChannelPrivacy", "privacy"));
        }
        self.write(|tx| {
            let mut row = require_channel(&tx.db, id)?;
            let permission =
                if kind == "P" { "convert_public_channel_to_private" } else { "convert_private_channel_to_public" };
            require_in_channel("updateChannelPrivacy", &tx.db, by, &row.channel, permission)?;
            if row.channel.name == TOWN_SQUARE && kind == "P" || row.channel.is_direct_or_group() {
                return Err(AppError::bad(
                    "updateChannelPrivacy",
                    "api.channel.update_channel_privacy.default_channel_error",
                    "The default channel cannot be made private.",
                ));
            }
            if row.channel.kind == kind {
                return Ok(row.channel);
            }
            let before = row.version;
            row.channel.kind = kind.to_owned();
            row.channel.update_at = tx.now.max(row.channel.update_at + 1);
            tx.save_channel(&mut row, Some(before))?;
            let message = if kind == "O" {
                "This channel has been converted to a Public Channel and can be joined by any team member."
            } else {
                "This channel has been converted to a Private Channel."
            };
            let editor = require_user(&tx.db, by.user_id)?.user.username;
            let props = [("username", editor.as_str())];
            tx.system_post(&row.channel, by.user_id, "system_change_chan_privacy", message.to_owned(), &props)?;
            if let Some(team) = row.channel.team_id {
                let members = team_member_ids(&tx.db, team)?;
                tx.tell(
                    Broadcast::to_team("channel_converted", team, members).with("channel_id", row.channel.id.as_str()),
                );
            }
            Ok(require_channel(&tx.db, id)?.channel)
        })
    }

    /// Archives a channel.
    ///
    /// # Errors
    /// 403 without permission, 400 for the default, a direct or an archived channel.
    pub fn archive_channel(&self, by: &Session, id: Id) -> AppResult<()> {
        self.write(|tx| {
            let mut row = require_channel(&tx.db, id)?;
            let c = &row.channel;
            if c.is_direct_or_group() {
                return Err(AppError::bad(
                    "deleteChannel",
                    "api.channel.delete_channel.type.invalid",
                    "Direct and group channels cannot be archived.",
                ));
            }
            let permission = manage(c, "delete_public_channel", "delete_private_channel");
            require_in_channel("deleteChannel", &tx.db, by, c, permission)?;
            if c.delete_at > 0 {
                return Err(AppError::bad(
                    "deleteChannel",
                    "api.channel.delete_channel.deleted.app_error",
                    "The channel has been archived or deleted.",
                ));
            }
            if c.name == TOWN_SQUARE {
                return Err(AppError::bad(
                    "deleteChannel",
                    "api.channel.delete_channel.cannot.app_error",
                    "Cannot delete the default channel town-square.",
                ));
            }
            let editor = require_user(&tx.db, by.user_id)?.user.username;
            let message = format!("{editor} archived the channel.");
            tx.system_post(c, by.user_id, "system_channel_deleted", message, &[("username", &editor)])?;
            let before = row.version;
            row.channel.update_at = tx.now.max(row.channel.update_at + 1);
            row.channel.delete_at = row.channel.update_at;
            tx.save_channel(&mut row, Some(before))?;
            Ok(tx.tell_channel_gone_or_back("channel_deleted", &row.channel)?)
        })
    }

    /// Brings an archived channel back.
    ///
    /// # Errors
    /// 403 without `manage_team`, 400 when it is not archived.
    pub fn restore_channel(&self, by: &Session, id: Id) -> AppResult<Channel> {
        self.write(|tx| {
            let mut row = require_channel(&tx.db, id)?;
            match row.channel.team_id {
                Some(team) => require_in_team("restoreChannel", &tx.db, by, team, "manage_team")?,
                None => require("restoreChannel", by, "manage_system")?,
            }
            if row.channel.delete_at == 0 {
                return Err(AppError::bad(
                    "restoreChannel",
                    "api.channel.restore_channel.restored.app_error",
                    "Unable to unarchive channel. The channel is not archived.",
                ));
            }
            let before = row.version;
            row.channel.update_at = tx.now.max(row.channel.update_at + 1);
            row.channel.delete_at = 0;
            tx.save_channel(&mut row, Some(before))?;
            tx.tell_channel_gone_or_back("channel_restored", &row.channel)?;
            let editor = require_user(&tx.db, by.user_id)?.user.username;
            let message = format!("{editor} unarchived the channel.");
            let props = [("username", editor.as_str())];
            tx.system_post(&row.channel, by.user_id, "system_channel_restored", message, &props)?;
            Ok(require_channel(&tx.db, id)?.channel)
        })
    }

    /// A page of a channel's members.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's.
    pub fn channel_members(
        &self,
        by: &Session,
        channel: Id,
        page_number: u32,
        per_page: u32,
    ) -> AppResult<Vec<ChannelMember>> {
        let (limit, offset) = page(page_number, per_page);
        self.read(|db| {
            require_read("getChannelMembers", db, by, &require_channel(db, channel)?.channel)?;
            let sql = "SELECT * FROM channel_members WHERE channel_id = ?1 AND delete_at = 0
                       ORDER BY user_id LIMIT ?2 OFFSET ?3";
            Ok(all(db, sql, params![channel.as_str(), limit, offset], channel_member)?)
        })
    }

    /// The memberships of these users.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's.
    pub fn channel_members_by_ids(&self, by: &Session, channel: Id, users: &[Id]) -> AppResult<Vec<ChannelMember>> {
        self.read(|db| {
            require_read("getChannelMembersByIds", db, by, &require_channel(db, channel)?.channel)?;
            let sql = "SELECT * FROM channel_members WHERE channel_id = ?1 AND delete_at = 0
                       AND user_id IN (SELECT value FROM json_each(?2)) ORDER BY user_id";
            Ok(all(db, sql, params![channel.as_str(), id_array(users)], channel_member)?)
        })
    }

    /// One membership.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's, 404 when the user is no member.
    pub fn channel_member(&self, by: &Session, channel: Id, user: Id) -> AppResult<ChannelMember> {
        self.read(|db| {
            require_read("getChannelMember", db, by, &require_channel(db, channel)?.channel)?;
            require_member(db, channel, user)
        })
    }

    /// The memberships of a user in one team, with direct and group channels.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn channel_members_in_team(&self, by: &Session, user: Id, team: Id) -> AppResult<Vec<ChannelMember>> {
        require_self("getChannelMembersForUser", by, user)?;
        let sql = "SELECT m.* FROM channel_members m JOIN channels c ON c.id = m.channel_id
            WHERE m.user_id = ?1 AND m.delete_at = 0 AND c.team_id IN (?2, '') ORDER BY m.channel_id";
        self.read(|db| Ok(all(db, sql, [user.as_str(), team.as_str()], channel_member)?))
    }

    /// The memberships of a user everywhere, each with its channel's team.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn channel_members_of(&self, by: &Session, user: Id) -> AppResult<Vec<ChannelMemberWithTeam>> {
        require_self("getChannelMembersForUser", by, user)?;
        let sql = "SELECT m.*, coalesce(t.display_name, '') AS of_display_name, coalesce(t.name, '') AS of_name,
                coalesce(t.update_at, 0) AS of_update_at
            FROM channel_members m JOIN channels c ON c.id = m.channel_id LEFT JOIN teams t ON t.id = c.team_id
            WHERE m.user_id = ?1 AND m.delete_at = 0 ORDER BY m.channel_id";
        let with_team = |r: &Row<'_>| Ok(ChannelMemberWithTeam { member: channel_member(r)?, team: team_data(r)? });
        self.read(|db| Ok(all(db, sql, [user.as_str()], with_team)?))
    }

    /// Joins an open channel, or adds someone.
    ///
    /// # Errors
    /// 403 without permission, 404 when the user is not in the team, 400 for direct or archived channels.
    pub fn add_channel_member(&self, by: &Session, channel: Id, user: Id) -> AppResult<ChannelMember> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            let Some(team) = c.team_id.filter(|_| !c.is_direct_or_group()) else {
                return Err(AppError::bad(
                    "addUserToChannel",
                    "api.channel.add_user_to_channel.type.app_error",
                    "Can not add user to this channel type.",
                ));
            };
            require_live(&c)?;
            if let Some(member) = member(&tx.db, channel, user)? {
                return Ok(member);
            }
            if user == by.user_id && c.kind == "O" {
                require_in_team("addChannelMember", &tx.db, by, team, "join_public_channels")?;
            } else {
                let permission = manage(&c, "manage_public_channel_members", "manage_private_channel_members");
                require_in_channel("addChannelMember", &tx.db, by, &c, permission)?;
            }
            let joiner = require_user(&tx.db, user)?.user;
            if member_of_team(&tx.db, team, user)?.is_none() {
                return Err(AppError::not_found("AddUserToChannel", "app.team.get_member.missing.app_error"));
            }
            join(tx, &c, user, false)?;
            if user == by.user_id {
                let message = format!("{} joined the channel.", joiner.username);
                tx.system_post(&c, user, "system_join_channel", message, &[("username", &joiner.username)])?;
            } else {
                let adder = require_user(&tx.db, by.user_id)?.user;
                let message = format!("{} added to the channel by {}.", joiner.username, adder.username);
                let props = [
                    ("userId", by.user_id.as_str()),
                    ("username", &adder.username),
                    ("addedUserId", user.as_str()),
                    ("addedUsername", &joiner.username),
                ];
                tx.system_post(&c, by.user_id, "system_add_to_channel", message, &props)?;
            }
            require_member(&tx.db, channel, user)
        })
    }

    /// Leaves a channel, or removes someone.
    ///
    /// # Errors
    /// 403 without permission, 404 when the user is no member, 400 for the default or a direct channel.
    pub fn remove_channel_member(&self, by: &Session, channel: Id, user: Id) -> AppResult<()> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            if c.is_direct_or_group() {
                return Err(AppError::bad(
                    "removeChannelMember",
                    "api.channel.remove_channel_member.type.app_error",
                    "Unable to remove user from channel.",
                ));
            }
            if c.name == TOWN_SQUARE {
                return Err(AppError::bad(
                    "RemoveUserFromChannel",
                    "api.channel.remove.default.app_error",
                    "Unable to remove user from the default channel town-square.",
                ));
            }
            if by.user_id != user {
                let permission = manage(&c, "manage_public_channel_members", "manage_private_channel_members");
                require_in_channel("removeChannelMember", &tx.db, by, &c, permission)?;
            }
            let leaver = require_user(&tx.db, user)?.user;
            leave(tx, &c, user, by.user_id)?;
            if by.user_id == user {
                let message = format!("@{} left the channel.", leaver.username);
                tx.system_post(&c, user, "system_leave_channel", message, &[("username", &leaver.username)])?;
            } else {
                let message = format!("@{} removed from the channel.", leaver.username);
                let props = [("removedUserId", user.as_str()), ("removedUsername", &leaver.username)];
                tx.system_post(&c, by.user_id, "system_remove_from_channel", message, &props)?;
            }
            Ok(())
        })
    }

    /// Sets a member's roles in the channel. Being administrator is replicated, and there is nothing else to set.
    ///
    /// # Errors
    /// 403 without `manage_channel_roles`, 400 for an unknown role, 404 when the user is no member.
    pub fn set_channel_member_roles(&self, by: &Session, channel: Id, user: Id, roles: &str) -> AppResult<()> {
        self.write(|tx| {
            let c = require_channel(&tx.db, channel)?.channel;
            require_in_channel("updateChannelMemberRoles", &tx.db, by, &c, "manage_channel_roles")?;
            require_member(&tx.db, channel, user)?;
            // A role of the system would permit here what its holder may do nowhere else.
            if !roles.split_whitespace().all(|r| ["channel_user", "channel_admin"].contains(&r)) {
                return Err(AppError::body_param("updateChannelMemberRoles", "roles"));
            }
            let admin = roles.split_whitespace().any(|r| r == "channel_admin");
            let sql = "SELECT create_at FROM channel_members WHERE channel_id = ?1 AND user_id = ?2";
            let joined = count(&tx.db, sql, [channel.as_str(), user.as_str()])?;
            tx.save_channel_member(&c, user, joined, 0, admin)?;
            let member = require_member(&tx.db, channel, user)?;
            tx.tell(Broadcast::to_user("channel_member_updated", user).with_text("channelMember", &member));
            Ok(())
        })
    }

    /// Sets how a member is notified; this node's own.
    ///
    /// # Errors
    /// 403 for others, 404 when the user is no member.
    pub fn set_channel_notify_props(&self, by: &Session, channel: Id, user: Id, props: &StringMap) -> AppResult<()> {
        require_self("updateChannelMemberNotifyProps", by, user)?;
        self.write(|tx| {
            let mut member = require_member(&tx.db, channel, user)?;
            let known = props.iter().filter(|(name, _)| NOTIFY_PROPS.contains(&name.as_str()));
            member.notify_props.extend(known.map(|(name, value)| (name.clone(), value.clone())));
            member.last_update_at = tx.now;
            run(
                &tx.db,
                "UPDATE channel_members SET notify_props = ?3, last_update_at = ?4 WHERE channel_id = ?1 AND user_id = ?2",
                params![channel.as_str(), user.as_str(), to_json(&member.notify_props), tx.now],
            )?;
            tx.tell(Broadcast::to_user("channel_member_updated", user).with_text("channelMember", &member));
            Ok(())
        })
    }

    /// Member, pin and file counts.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's.
    pub fn channel_stats(&self, by: &Session, channel: Id) -> AppResult<ChannelStats> {
        self.read(|db| {
            require_read("getChannelStats", db, by, &require_channel(db, channel)?.channel)?;
            let n = |sql| count(db, sql, [channel.as_str()]);
            Ok(ChannelStats {
                channel_id: channel,
                member_count: n("SELECT count(*) FROM channel_members m JOIN users u ON u.id = m.user_id
                    WHERE m.channel_id = ?1 AND m.delete_at = 0 AND u.delete_at = 0")?,
                guest_count: 0,
                pinnedpost_count: n("SELECT count(*) FROM posts
                    WHERE channel_id = ?1 AND is_pinned = 1 AND delete_at = 0 AND original_id = ''")?,
                files_count: n("SELECT count(*) FROM files WHERE channel_id = ?1 AND post_id <> '' AND delete_at = 0")?,
            })
        })
    }

    /// The time zones that its members have set, each once.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's.
    pub fn channel_timezones(&self, by: &Session, channel: Id) -> AppResult<BTreeSet<String>> {
        self.read(|db| {
            require_read("getChannelMembersTimezones", db, by, &require_channel(db, channel)?.channel)?;
            let sql = "SELECT u.timezone FROM channel_members m JOIN users u ON u.id = m.user_id
                       WHERE m.channel_id = ?1 AND m.delete_at = 0";
            let set: Vec<StringMap> = all(db, sql, [channel.as_str()], |r| json(r, "timezone"))?;
            let chosen = |zone: StringMap| {
                let automatic = zone.get("useAutomaticTimezone").is_some_and(|is| is == "true");
                zone.get(if automatic { "automaticTimezone" } else { "manualTimezone" }).cloned()
            };
            Ok(set.into_iter().filter_map(chosen).filter(|zone| !zone.is_empty()).collect())
        })
    }

    /// What a user has not read in a channel.
    ///
    /// # Errors
    /// 403 for others', 404 when the user is no member.
    pub fn channel_unread(&self, by: &Session, user: Id, channel: Id) -> AppResult<ChannelUnread> {
        require_self("getChannelUnread", by, user)?;
        self.read(|db| {
            let c = require_channel(db, channel)?.channel;
            let m = require_member(db, channel, user)?;
            Ok(ChannelUnread {
                team_id: c.team_id,
                channel_id: channel,
                msg_count: (c.total_msg_count - m.msg_count).max(0),
                mention_count: m.mention_count,
                mention_count_root: m.mention_count_root,
                urgent_mention_count: m.urgent_mention_count,
                msg_count_root: (c.total_msg_count_root - m.msg_count_root).max(0),
            })
        })
    }

    /// The user looks at a channel, and has left the one before: both are read.
    ///
    /// # Errors
    /// 403 for others, 400 for a malformed channel id.
    pub fn view_channel(&self, by: &Session, user: Id, view: &ChannelView) -> AppResult<ChannelViewResponse> {
        let mut channels = Vec::new();
        for (name, value) in [("channel_id", &view.channel_id), ("prev_channel_id", &view.prev_channel_id)] {
            if !value.is_empty() {
                channels.push(value.parse().map_err(|_| AppError::body_param("viewChannel", name))?);
            }
        }
        self.read_channels(by, user, &channels, view.collapsed_threads_supported)
    }

    /// Marks these channels as read, threads apart.
    ///
    /// # Errors
    /// 403 for others.
    pub fn mark_channels_read(&self, by: &Session, user: Id, channels: &[Id]) -> AppResult<ChannelViewResponse> {
        self.read_channels(by, user, channels, true)
    }

    /// Marks these channels as read; their threads too where the client shows replies in the channel.
    fn read_channels(
        &self,
        by: &Session,
        user: Id,
        channels: &[Id],
        threads_apart: bool,
    ) -> AppResult<ChannelViewResponse> {
        require_self("viewChannel", by, user)?;
        self.write(|tx| {
            let times = mark_read(tx, user, channels)?;
            if !times.is_empty() {
                let value = serde_json::to_value(&times).expect("ids are strings");
                tx.tell(Broadcast::to_user("multiple_channels_viewed", user).with("channel_times", value));
                if !threads_apart {
                    let read: Vec<Id> = times.keys().copied().collect();
                    tx.read_threads_of(user, &read)?;
                }
            }
            Ok(ChannelViewResponse { status: "OK".to_owned(), last_viewed_at_times: times })
        })
    }

    /// Moves the read mark back to just before a post. A client that shows replies in the channel (not `threads_apart`)
    /// finds the thread of a reply unread as well, and the counts of root posts as they were not.
    ///
    /// # Errors
    /// 403 for others or a channel that is not the asker's, 404 for a missing post.
    pub fn set_post_unread(&self, by: &Session, user: Id, post: Id, threads_apart: bool) -> AppResult<ChannelUnreadAt> {
        require_self("setPostUnread", by, user)?;
        self.write(|tx| {
            let post = require_post(&tx.db, post)?;
            let c = require_channel(&tx.db, post.channel_id)?.channel;
            require_read("setPostUnread", &tx.db, by, &c)?;
            let of_member = require_member(&tx.db, c.id, user)?.notify_props;
            let in_thread_only = !threads_apart && post.root_id.is_some();
            if in_thread_only {
                tx.unread_thread_from(&c, user, &post)?;
            }
            let from = post.create_at - 1;
            let after = |roots: &str| {
                let sql = format!(
                    "SELECT count(*) FROM posts WHERE channel_id = ?1 AND create_at > ?2 AND delete_at = 0
                        AND original_id = '' AND type NOT IN {JOIN_LEAVE} {roots}"
                );
                count(&tx.db, &sql, params![c.id.as_str(), from])
            };
            let unread = after("")?;
            let unread_root = if in_thread_only { 0 } else { after("AND root_id = ''")? };
            let mut mentions = (0, 0, 0);
            let sql =
                "SELECT * FROM posts WHERE channel_id = ?1 AND create_at > ?2 AND delete_at = 0 AND original_id = ''
                AND user_id <> ?3 ORDER BY create_at DESC LIMIT ?4";
            let reader = Reader::new(&require_user(&tx.db, user)?.user, &of_member);
            // One at a time, and the newest only: nobody can write meanwhile.
            {
                let mut statement = tx.db.prepare_cached(sql)?;
                let newest = params![c.id.as_str(), from, user.as_str(), MENTIONS_LOOKED_AT_MAX];
                for row in statement.query_map(newest, post_row)? {
                    let row = row?;
                    if reader.is_mentioned(&c, &row) {
                        mentions.0 += 1;
                        if row.root_id.is_none() && !in_thread_only {
                            mentions.1 += 1;
                            mentions.2 += i64::from(row.priority.contains("\"urgent\""));
                        }
                    }
                }
            }
            run(
                &tx.db,
                "UPDATE channel_members SET mention_count = ?3, mention_count_root = ?4, urgent_mention_count = ?5,
                    msg_count = ?6, msg_count_root = ?7, last_viewed_at = ?8, last_update_at = ?9
                 WHERE channel_id = ?1 AND user_id = ?2",
                params![
                    c.id.as_str(),
                    user.as_str(),
                    mentions.0,
                    mentions.1,
                    mentions.2,
                    c.total_msg_count - unread,
                    c.total_msg_count_root - unread_root,
                    from,
                    tx.now,
                ],
            )?;
            let m = require_member(&tx.db, c.id, user)?;
            let mut told = Broadcast::to_user("post_unread", user)
                .with("msg_count", m.msg_count)
                .with("msg_count_root", m.msg_count_root)
                .with("mention_count", m.mention_count)
                .with("mention_count_root", m.mention_count_root)
                .with("urgent_mention_count", m.urgent_mention_count)
                .with("last_viewed_at", m.last_viewed_at)
                .with("post_id", post.id.as_str());
            told.channel_id = Some(c.id);
            told.team_id = c.team_id;
            tx.tell(told);
            Ok(ChannelUnreadAt {
                team_id: c.team_id,
                user_id: user,
                channel_id: c.id,
                msg_count: m.msg_count,
                mention_count: m.mention_count,
                mention_count_root: m.mention_count_root,
                urgent_mention_count: m.urgent_mention_count,
                msg_count_root: m.msg_count_root,
                last_viewed_at: m.last_viewed_at,
            })
        })
    }

    /// Members of a channel, for scoping what is not stored (typing).
    ///
    /// # Errors
    /// When the store fails.
    pub fn channel_member_ids(&self, channel: Id) -> AppResult<Vec<Id>> {
        self.read(|db| Ok(member_ids(db, channel)?))
    }
}

fn require_live(c: &Channel) -> AppResult<()> {
    if c.delete_at == 0 {
        return Ok(());
    }
    Err(AppError::bad(
        "channel",
        "api.channel.update_channel.deleted.app_error",
        "The channel has been archived or deleted.",
    ))
}

pub(crate) fn require_channel_view(db: &Connection, by: &Session, c: &Channel) -> AppResult<()> {
    match c.team_id {
        Some(team) if c.kind == "O" => require_in_team("getChannel", db, by, team, "read_public_channel"),
        _ if may_in_channel(db, by, c, "read_channel")? => Ok(()),
        _ => Err(AppError::permissions("getChannel", "read_channel")),
    }
}

/// Sets the read marks of the user's channels among these to everything; the time of each channel's last post.
pub(crate) fn mark_read(tx: &mut Tx<'_>, user: Id, channels: &[Id]) -> rusqlite::Result<BTreeMap<Id, i64>> {
    let mut times = BTreeMap::new();
    for channel in channels {
        let sql = "UPDATE channel_members SET mention_count = 0, mention_count_root = 0, urgent_mention_count = 0,
                msg_count = max(msg_count, c.total_msg_count),
                msg_count_root = max(channel_members.msg_count_root, c.total_msg_count_root),
                last_viewed_at = max(last_viewed_at, c.last_post_at),
                last_update_at = max(last_viewed_at, c.last_post_at)
            FROM (SELECT id, total_msg_count, total_msg_count_root, last_post_at FROM channels WHERE id = ?1) c
            WHERE channel_id = ?1 AND user_id = ?2 AND channel_members.delete_at = 0";
        if run(&tx.db, sql, [channel.as_str(), user.as_str()])? > 0 {
            let last = count(&tx.db, "SELECT last_post_at FROM channels WHERE id = ?1", [channel.as_str()])?;
            times.insert(*channel, last);
            tx.clear_pushes(user, *channel)?;
        }
    }
    Ok(times)
}
