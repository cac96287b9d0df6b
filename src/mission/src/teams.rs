//! Teams and their members.

use model::event::{TeamMemberState, TeamState};
use model::{Event, Id, UnixMillis, Version};
use rusqlite::{Connection, params};

use crate::access::{may_in_team, require, require_in_team, require_self};
use crate::channels::{join, leave};
use crate::core::{Core, CoreSettings, Tx, random_id, version_of};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::rows::{TeamRow, all, channel, count, exists, first_id, get, id_array, run, team, team_member, team_row};
use crate::threads::team_counts;
use crate::types::{Channel, NewTeam, Session, Team, TeamMember, TeamPatch, TeamStats, TeamUnread};
use crate::users::{page, require_user};

/// The channel that every member of a team is in.
pub(crate) const TOWN_SQUARE: &str = "town-square";
pub(crate) const OFF_TOPIC: &str = "off-topic";

/// Path elements of the web app, which a team's name must not start with.
const RESERVED: &[&str] = &[
    "admin",
    "api",
    "channel",
    "claim",
    "error",
    "files",
    "help",
    "landing",
    "login",
    "mfa",
    "oauth",
    "plug",
    "plugins",
    "post",
    "signup",
    "boards",
    "playbooks",
];

pub(crate) fn team_row_by_id(db: &Connection, id: Id) -> rusqlite::Result<Option<TeamRow>> {
    get(db, "SELECT * FROM teams WHERE id = ?1", [id.as_str()], team_row)
}

pub(crate) fn require_team(db: &Connection, id: Id) -> AppResult<TeamRow> {
    team_row_by_id(db, id)?.ok_or_else(|| AppError::not_found("GetTeam", "app.team.get.find.app_error"))
}

/// Users who are members of the team.
pub(crate) fn team_member_ids(db: &Connection, team: Id) -> rusqlite::Result<Vec<Id>> {
    let sql = "SELECT user_id FROM team_members WHERE team_id = ?1 AND delete_at = 0 ORDER BY user_id";
    all(db, sql, [team.as_str()], first_id)
}

pub(crate) fn member_of_team(db: &Connection, team: Id, user: Id) -> rusqlite::Result<Option<TeamMember>> {
    let sql = "SELECT * FROM team_members WHERE team_id = ?1 AND user_id = ?2 AND delete_at = 0";
    get(db, sql, [team.as_str(), user.as_str()], team_member)
}

impl TeamRow {
    fn state(&self) -> TeamState {
        let t = &self.team;
        TeamState {
            version: self.version,
            id: t.id,
            create_at: UnixMillis(t.create_at),
            update_at: UnixMillis(t.update_at),
            delete_at: UnixMillis(t.delete_at),
            name: self.wanted_name.clone(),
            display_name: t.display_name.clone(),
            description: t.description.clone(),
            kind: t.kind.clone(),
            allow_open_invite: t.allow_open_invite,
        }
    }
}

impl Tx<'_> {
    pub(crate) fn put_team(&mut self, row: &TeamRow) -> rusqlite::Result<()> {
        let t = &row.team;
        run(
            &self.db,
            "INSERT INTO teams (id, create_at, update_at, delete_at, name, wanted_name, display_name, description,
                type, allow_open_invite, email, company_name, invite_id, ver_at, ver_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT (id) DO UPDATE SET create_at = excluded.create_at, update_at = excluded.update_at,
                delete_at = excluded.delete_at, name = excluded.name, wanted_name = excluded.wanted_name,
                display_name = excluded.display_name, description = excluded.description, type = excluded.type,
                allow_open_invite = excluded.allow_open_invite, company_name = excluded.company_name,
                ver_at = excluded.ver_at, ver_by = excluded.ver_by",
            params![
                t.id.as_str(),
                t.create_at,
                t.update_at,
                t.delete_at,
                t.name,
                row.wanted_name,
                t.display_name,
                t.description,
                t.kind,
                t.allow_open_invite,
                t.email,
                t.company_name,
                t.invite_id,
                row.version.at.0 as i64,
                row.version.by.0,
            ],
        )?;
        Ok(())
    }

    pub(crate) fn save_team(&mut self, row: &mut TeamRow, current: Option<Version>) -> rusqlite::Result<()> {
        let at = self.tick();
        row.version = self.version_after(at, current);
        self.put_team(row)?;
        self.emit(at, &Event::Team(row.state()))
    }

    pub(crate) fn tell_team(&mut self, event: &'static str, team: &Team) -> rusqlite::Result<()> {
        let members = team_member_ids(&self.db, team.id)?;
        self.tell(Broadcast::to_team(event, team.id, members).with_text("team", team));
        Ok(())
    }

    /// Writes a membership state; joining and leaving keep the row so that it has a version.
    pub(crate) fn put_team_member(&mut self, s: &TeamMemberState) -> rusqlite::Result<()> {
        run(
            &self.db,
            "INSERT INTO team_members (team_id, user_id, create_at, delete_at, scheme_admin, ver_at, ver_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (team_id, user_id) DO UPDATE SET create_at = excluded.create_at,
                delete_at = excluded.delete_at, scheme_admin = excluded.scheme_admin,
                ver_at = excluded.ver_at, ver_by = excluded.ver_by",
            params![
                s.team_id.as_str(),
                s.user_id.as_str(),
                s.create_at.0,
                s.delete_at.0,
                s.scheme_admin,
                s.version.at.0 as i64,
                s.version.by.0,
            ],
        )?;
        Ok(())
    }

    pub(crate) fn save_team_member(
        &mut self,
        team: Id,
        user: Id,
        joined: i64,
        left: i64,
        admin: bool,
    ) -> rusqlite::Result<()> {
        let sql = "SELECT ver_at, ver_by FROM team_members WHERE team_id = ?1 AND user_id = ?2";
        let current = version_of(&self.db, sql, [team.as_str(), user.as_str()])?;
        let at = self.tick();
        let state = TeamMemberState {
            version: self.version_after(at, current),
            team_id: team,
            user_id: user,
            create_at: UnixMillis(joined),
            delete_at: UnixMillis(left),
            scheme_admin: admin,
        };
        self.put_team_member(&state)?;
        self.emit(at, &Event::TeamMember(state))
    }
}

/// A team with nothing in it.
pub(crate) fn blank_team(id: Id, now: i64, name: &str) -> TeamRow {
    TeamRow {
        wanted_name: name.to_owned(),
        version: Version { at: model::Hlc::ZERO, by: model::NodeId([0; 16]) },
        team: Team {
            id,
            create_at: now,
            update_at: now,
            delete_at: 0,
            display_name: String::new(),
            name: name.to_owned(),
            description: String::new(),
            email: String::new(),
            kind: "O".to_owned(),
            company_name: String::new(),
            allowed_domains: String::new(),
            invite_id: random_id().to_string(),
            allow_open_invite: false,
            last_team_icon_update: 0,
            scheme_id: None,
            group_constrained: None,
            policy_id: None,
            cloud_limits_archived: false,
        },
    }
}

pub(crate) fn check_team(t: &Team) -> AppResult<()> {
    let bad = |field: &str| {
        Err(AppError::bad(
            "Team.IsValid",
            format!("model.team.is_valid.{field}.app_error"),
            "The team's name, address or description is not valid.",
        ))
    };
    let runes = t.display_name.chars().count();
    if runes == 0 || runes > 64 {
        return bad("name");
    }
    if t.name.len() > 64 {
        return bad("url");
    }
    if t.description.len() > 255 {
        return bad("description");
    }
    if RESERVED.iter().any(|r| t.name.starts_with(r)) {
        return bad("reserved");
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = t.name.len() >= 2
        && t.name.bytes().all(|b| plain(b) || b == b'-')
        && t.name.bytes().next().is_some_and(plain)
        && t.name.bytes().last().is_some_and(plain);
    if !fits {
        return bad("characters");
    }
    if t.kind != "O" && t.kind != "I" {
        return bad("type");
    }
    Ok(())
}

/// What others than team administrators see.
pub(crate) fn shown(db: &Connection, by: &Session, mut t: Team) -> AppResult<Team> {
    if !may_in_team(db, by, t.id, "manage_team")? {
        t.email.clear();
        if !may_in_team(db, by, t.id, "invite_user")? {
            t.invite_id.clear();
        }
    }
    Ok(t)
}

pub(crate) fn require_view(db: &Connection, by: &Session, t: &Team) -> AppResult<()> {
    if t.allow_open_invite && t.kind == "O" && crate::access::may(by, "list_public_teams") {
        return Ok(());
    }
    require_in_team("getTeam", db, by, t.id, "view_team")
}

impl Core {
    /// Makes a team with its two standard channels; the maker is its administrator.
    ///
    /// # Errors
    /// 403 without `create_team`, 400 for a bad or taken name.
    pub fn create_team(&self, by: &Session, new: &NewTeam) -> AppResult<Team> {
        require("createTeam", by, "create_team")?;
        self.write(|tx| {
            let mut row = blank_team(tx.mint(), tx.now, &new.name.trim().to_lowercase());
            let team = &mut row.team;
            new.display_name.trim().clone_into(&mut team.display_name);
            team.description.clone_from(&new.description);
            team.email = new.email.to_lowercase();
            if !new.kind.is_empty() {
                team.kind.clone_from(&new.kind);
            }
            team.allow_open_invite = new.allow_open_invite;
            check_team(team)?;
            if exists(&tx.db, "SELECT 1 FROM teams WHERE name = ?1", [&team.name])? {
                return Err(AppError::bad(
                    "CreateTeam",
                    "store.sql_team.save_team.existing.app_error",
                    "A team with that name already exists.",
                ));
            }
            tx.save_team(&mut row, None)?;
            for (name, display) in [(TOWN_SQUARE, "Town Square"), (OFF_TOPIC, "Off-Topic")] {
                tx.new_team_channel(row.team.id, by.user_id, "O", name, display, "", "")?;
            }
            add_to_team(tx, by, row.team.id, by.user_id, true)?;
            Ok(row.team)
        })
    }

    /// A team.
    ///
    /// # Errors
    /// 404, or 403 for a closed team of others.
    pub fn team(&self, by: &Session, id: Id) -> AppResult<Team> {
        self.read(|db| {
            let t = require_team(db, id)?.team;
            require_view(db, by, &t)?;
            shown(db, by, t)
        })
    }

    /// A team by its name.
    ///
    /// # Errors
    /// As [`Core::team`].
    pub fn team_by_name(&self, by: &Session, name: &str) -> AppResult<Team> {
        self.read(|db| {
            let t = get(db, "SELECT * FROM teams WHERE name = ?1", [name.to_lowercase()], team)?
                .ok_or_else(|| AppError::not_found("GetTeamByName", "app.team.get_by_name.missing.app_error"))?;
            require_view(db, by, &t)?;
            shown(db, by, t)
        })
    }

    /// Is the name taken?
    ///
    /// # Errors
    /// When the store fails.
    pub fn team_exists(&self, name: &str) -> AppResult<bool> {
        self.read(|db| Ok(exists(db, "SELECT 1 FROM teams WHERE name = ?1", [name.to_lowercase()])?))
    }

    /// Teams that the asker may join or, with `list_private_teams`, every team.
    ///
    /// # Errors
    /// When the store fails.
    pub fn teams(&self, by: &Session, page_number: u32, per_page: u32) -> AppResult<Vec<Team>> {
        let every = self.may(by, "list_private_teams");
        let (limit, offset) = page(page_number, per_page);
        self.read(|db| {
            let sql = "SELECT * FROM teams WHERE delete_at = 0 AND (?1 OR (allow_open_invite = 1 AND type = 'O'))
                       ORDER BY display_name LIMIT ?2 OFFSET ?3";
            let teams = all(db, sql, params![every, limit, offset], team)?;
            teams.into_iter().map(|t| shown(db, by, t)).collect()
        })
    }

    /// The teams of a user.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn teams_of(&self, by: &Session, user: Id) -> AppResult<Vec<Team>> {
        require_self("getTeamsForUser", by, user)?;
        self.read(|db| {
            let sql = "SELECT * FROM teams WHERE delete_at = 0 AND id IN
                (SELECT team_id FROM team_members WHERE user_id = ?1 AND delete_at = 0) ORDER BY display_name";
            let teams = all(db, sql, [user.as_str()], team)?;
            teams.into_iter().map(|t| shown(db, by, t)).collect()
        })
    }

    /// The team memberships of a user.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn team_members_of(&self, by: &Session, user: Id) -> AppResult<Vec<TeamMember>> {
        require_self("getTeamMembersForUser", by, user)?;
        let sql = "SELECT * FROM team_members WHERE user_id = ?1 AND delete_at = 0";
        self.read(|db| Ok(all(db, sql, [user.as_str()], team_member)?))
    }

    /// Unread totals of every team of a user.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn teams_unread(&self, by: &Session, user: Id, with_threads: bool) -> AppResult<Vec<TeamUnread>> {
        require_self("getTeamsUnreadForUser", by, user)?;
        self.read(|db| {
            let sql = "SELECT team_id FROM team_members WHERE user_id = ?1 AND delete_at = 0";
            let teams = all(db, sql, [user.as_str()], first_id)?;
            let counts = teams.into_iter().map(|team| {
                let mut counts = unread(db, user, team)?;
                if with_threads {
                    (counts.thread_count, counts.thread_mention_count, counts.thread_urgent_mention_count) =
                        team_counts(db, user, team)?;
                }
                Ok(counts)
            });
            counts.collect()
        })
    }

    /// Unread totals of one team.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn team_unread(&self, by: &Session, user: Id, team: Id) -> AppResult<TeamUnread> {
        require_self("getTeamUnread", by, user)?;
        self.read(|db| {
            require_in_team("getTeamUnread", db, by, team, "view_team")?;
            unread(db, user, team)
        })
    }

    /// A page of a team's members.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn team_members(&self, by: &Session, team: Id, page_number: u32, per_page: u32) -> AppResult<Vec<TeamMember>> {
        let (limit, offset) = page(page_number, per_page);
        self.read(|db| {
            require_in_team("getTeamMembers", db, by, team, "view_team")?;
            let sql =
                "SELECT * FROM team_members WHERE team_id = ?1 AND delete_at = 0 ORDER BY user_id LIMIT ?2 OFFSET ?3";
            Ok(all(db, sql, params![team.as_str(), limit, offset], team_member)?)
        })
    }

    /// The memberships of these users.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn team_members_by_ids(&self, by: &Session, team: Id, users: &[Id]) -> AppResult<Vec<TeamMember>> {
        self.read(|db| {
            require_in_team("getTeamMembersByIds", db, by, team, "view_team")?;
            let sql = "SELECT * FROM team_members WHERE team_id = ?1 AND delete_at = 0
                       AND user_id IN (SELECT value FROM json_each(?2)) ORDER BY user_id";
            Ok(all(db, sql, params![team.as_str(), id_array(users)], team_member)?)
        })
    }

    /// One membership.
    ///
    /// # Errors
    /// 403 for a team of others, 404 when the user is no member.
    pub fn team_member(&self, by: &Session, team: Id, user: Id) -> AppResult<TeamMember> {
        self.read(|db| {
            require_in_team("getTeamMember", db, by, team, "view_team")?;
            member_of_team(db, team, user)?.ok_or_else(missing_member)
        })
    }

    /// Joins an open team, or adds someone.
    ///
    /// # Errors
    /// 403 without permission, 404 for a missing team or user.
    pub fn add_team_member(&self, by: &Session, team: Id, user: Id) -> AppResult<TeamMember> {
        self.write(|tx| {
            let t = require_team(&tx.db, team)?.team;
            if user == by.user_id && t.kind == "O" && t.allow_open_invite {
                require("addTeamMember", by, "join_public_teams")?;
            } else {
                require_in_team("addTeamMember", &tx.db, by, team, "add_user_to_team")?;
            }
            add_to_team(tx, by, team, user, false)
        })
    }

    /// Leaves a team, or removes someone.
    ///
    /// # Errors
    /// 403 without permission, 404 when the user is no member.
    pub fn remove_team_member(&self, by: &Session, team: Id, user: Id) -> AppResult<()> {
        self.write(|tx| {
            if by.user_id != user {
                require_in_team("removeTeamMember", &tx.db, by, team, "remove_user_from_team")?;
            }
            member_of_team(&tx.db, team, user)?.ok_or_else(missing_member)?;
            let leaver = require_user(&tx.db, user)?.user;
            exit_team(tx, team, user, by.user_id, |tx, c| {
                let (kind, text) = if by.user_id == user {
                    ("system_leave_team", format!("@{} left the team.", leaver.username))
                } else {
                    ("system_remove_from_team", format!("@{} removed from the team.", leaver.username))
                };
                tx.system_post(c, by.user_id, kind, text, &[("username", &leaver.username)])?;
                Ok(())
            })
        })
    }

    /// Sets a member's roles in the team. Being administrator is replicated; other explicit roles are local.
    ///
    /// # Errors
    /// 403 without `manage_team_roles`, 400 for an unknown role, 404 when the user is no member.
    pub fn set_team_member_roles(&self, by: &Session, team: Id, user: Id, roles: &str) -> AppResult<()> {
        const SCHEME: [&str; 2] = ["team_user", "team_admin"];
        const EXPLICIT: [&str; 2] = ["team_post_all", "team_post_all_public"];
        self.write(|tx| {
            require_in_team("updateTeamMemberRoles", &tx.db, by, team, "manage_team_roles")?;
            member_of_team(&tx.db, team, user)?.ok_or_else(missing_member)?;
            // A role of the system would permit here what its holder may do nowhere else.
            if !roles.split_whitespace().all(|r| SCHEME.contains(&r) || EXPLICIT.contains(&r)) {
                return Err(AppError::body_param("updateTeamMemberRoles", "roles"));
            }
            let admin = roles.split_whitespace().any(|r| r == "team_admin");
            let explicit: Vec<&str> = roles.split_whitespace().filter(|r| EXPLICIT.contains(r)).collect();
            let joined = count(
                &tx.db,
                "SELECT create_at FROM team_members WHERE team_id = ?1 AND user_id = ?2",
                [team.as_str(), user.as_str()],
            )?;
            tx.save_team_member(team, user, joined, 0, admin)?;
            run(
                &tx.db,
                "UPDATE team_members SET explicit_roles = ?3 WHERE team_id = ?1 AND user_id = ?2",
                [team.as_str(), user.as_str(), &explicit.join(" ")],
            )?;
            let member = member_of_team(&tx.db, team, user)?.ok_or_else(missing_member)?;
            tx.tell(Broadcast::to_user("memberrole_updated", user).with_text("member", &member));
            Ok(())
        })
    }

    /// Changes a team.
    ///
    /// # Errors
    /// 403 without `manage_team`, 400 for bad values.
    pub fn patch_team(&self, by: &Session, id: Id, patch: &TeamPatch) -> AppResult<Team> {
        self.write(|tx| {
            require_in_team("patchTeam", &tx.db, by, id, "manage_team")?;
            let mut row = require_team(&tx.db, id)?;
            let before = row.version;
            let t = &mut row.team;
            if let Some(name) = &patch.display_name {
                t.display_name = name.trim().to_owned();
            }
            if let Some(description) = &patch.description {
                t.description.clone_from(description);
            }
            if let Some(company) = &patch.company_name {
                t.company_name.clone_from(company);
            }
            if let Some(open) = patch.allow_open_invite {
                t.allow_open_invite = open;
            }
            t.update_at = tx.now.max(t.update_at + 1);
            check_team(t)?;
            tx.save_team(&mut row, Some(before))?;
            tx.tell_team("update_team", &row.team)?;
            Ok(row.team)
        })
    }

    /// Archives a team.
    ///
    /// # Errors
    /// 403 without `manage_team`.
    pub fn archive_team(&self, by: &Session, id: Id) -> AppResult<()> {
        self.write(|tx| {
            require_in_team("deleteTeam", &tx.db, by, id, "manage_team")?;
            let mut row = require_team(&tx.db, id)?;
            if row.team.delete_at > 0 {
                return Ok(());
            }
            let before = row.version;
            row.team.update_at = tx.now.max(row.team.update_at + 1);
            row.team.delete_at = row.team.update_at;
            tx.save_team(&mut row, Some(before))?;
            tx.tell_team("delete_team", &row.team).map_err(AppError::from)
        })
    }

    /// Member counts.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn team_stats(&self, by: &Session, id: Id) -> AppResult<TeamStats> {
        self.read(|db| {
            require_in_team("getTeamStats", db, by, id, "view_team")?;
            let total = "SELECT count(*) FROM team_members WHERE team_id = ?1 AND delete_at = 0";
            let active = "SELECT count(*) FROM team_members m JOIN users u ON u.id = m.user_id
                WHERE m.team_id = ?1 AND m.delete_at = 0 AND u.delete_at = 0";
            Ok(TeamStats {
                team_id: id,
                total_member_count: count(db, total, [id.as_str()])?,
                active_member_count: count(db, active, [id.as_str()])?,
            })
        })
    }
}

fn missing_member() -> AppError {
    AppError::not_found("GetTeamMember", "app.team.get_member.missing.app_error")
}

fn unread(db: &Connection, user: Id, team: Id) -> AppResult<TeamUnread> {
    // Of a muted channel only mentions count.
    let sql = "SELECT
            coalesce(sum(CASE WHEN json_extract(m.notify_props, '$.mark_unread') = 'mention' THEN 0
                ELSE max(c.total_msg_count - m.msg_count, 0) END), 0),
            coalesce(sum(m.mention_count), 0), coalesce(sum(m.mention_count_root), 0),
            coalesce(sum(CASE WHEN json_extract(m.notify_props, '$.mark_unread') = 'mention' THEN 0
                ELSE max(c.total_msg_count_root - m.msg_count_root, 0) END), 0)
        FROM channel_members m JOIN channels c ON c.id = m.channel_id
        WHERE m.user_id = ?1 AND m.delete_at = 0 AND c.team_id = ?2 AND c.delete_at = 0";
    let unread = get(db, sql, [user.as_str(), team.as_str()], |r| {
        Ok(TeamUnread {
            team_id: team,
            msg_count: r.get(0)?,
            mention_count: r.get(1)?,
            mention_count_root: r.get(2)?,
            msg_count_root: r.get(3)?,
            thread_count: 0,
            thread_mention_count: 0,
            thread_urgent_mention_count: 0,
        })
    })?;
    Ok(unread.expect("a sum always gives a row"))
}

/// Makes `user` a member of the team and, by `join`, of its standard channels; which these are.
pub(crate) fn enter_team(
    tx: &mut Tx<'_>,
    team: Id,
    user: Id,
    admin: bool,
    join: fn(&mut Tx<'_>, &Channel, Id, bool) -> AppResult<()>,
) -> AppResult<Vec<Channel>> {
    if team_is_full(&tx.db, &tx.core.settings, team)? {
        return Err(AppError::bad(
            "JoinUserToTeam",
            "app.team.join_user_to_team.max_accounts.app_error",
            "This team has reached the maximum number of allowed accounts.",
        ));
    }
    tx.save_team_member(team, user, tx.now, 0, admin)?;
    let sql = "SELECT * FROM channels WHERE team_id = ?1 AND wanted_name IN (?2, ?3) AND delete_at = 0 ORDER BY create_at, id";
    let standard: Vec<Channel> = all(&tx.db, sql, [team.as_str(), TOWN_SQUARE, OFF_TOPIC], channel)?;
    for c in &standard {
        join(tx, c, user, admin)?;
    }
    tx.tell(Broadcast::to_user("added_to_team", user).with("team_id", team.as_str()).with("user_id", user.as_str()));
    Ok(standard)
}

/// Does the team take nobody more?
pub(crate) fn team_is_full(db: &Connection, settings: &CoreSettings, team: Id) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM team_members WHERE team_id = ?1 AND delete_at = 0";
    Ok(count(db, sql, [team.as_str()])? >= i64::from(settings.max_team_members))
}

/// Ends the membership of `user` in the team and in all of its channels, by `remover`; `post` writes of it where that is usual.
pub(crate) fn exit_team(
    tx: &mut Tx<'_>,
    team: Id,
    user: Id,
    remover: Id,
    post: impl Fn(&mut Tx<'_>, &Channel) -> AppResult<()>,
) -> AppResult<()> {
    let member = member_of_team(&tx.db, team, user)?.ok_or_else(missing_member)?;
    let sql = "SELECT * FROM channels WHERE team_id = ?1 AND id IN
        (SELECT channel_id FROM channel_members WHERE user_id = ?2 AND delete_at = 0)";
    for c in all(&tx.db, sql, [team.as_str(), user.as_str()], channel)? {
        if c.name == TOWN_SQUARE {
            post(tx, &c)?;
        }
        leave(tx, &c, user, remover)?;
    }
    let told = team_member_ids(&tx.db, team)?;
    tx.save_team_member(team, user, tx.now, tx.now, member.scheme_admin)?;
    tx.tell(Broadcast::to_team("leave_team", team, told).with("user_id", user.as_str()).with("team_id", team.as_str()));
    Ok(())
}

/// Adds `user`, who also joins the standard channels.
pub(crate) fn add_to_team(tx: &mut Tx<'_>, by: &Session, team: Id, user: Id, admin: bool) -> AppResult<TeamMember> {
    if let Some(member) = member_of_team(&tx.db, team, user)? {
        return Ok(member);
    }
    let joiner = require_user(&tx.db, user)?.user;
    for c in &enter_team(tx, team, user, admin, join)? {
        if c.name == TOWN_SQUARE {
            if by.user_id == user {
                let text = format!("{} joined the team.", joiner.username);
                tx.system_post(c, user, "system_join_team", text, &[("username", &joiner.username)])?;
            } else {
                let adder = require_user(&tx.db, by.user_id)?.user;
                let text = format!("{} added to the team by {}.", joiner.username, adder.username);
                let props = [
                    ("username", adder.username.as_str()),
                    ("addedUsername", &joiner.username),
                    ("addedUserId", user.as_str()),
                ];
                tx.system_post(c, by.user_id, "system_add_to_team", text, &props)?;
            }
        }
    }
    member_of_team(&tx.db, team, user)?.ok_or_else(missing_member)
}
