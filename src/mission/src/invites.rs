//! How a team is opened and closed, found, joined by invitation, and taken out of the archive.
//!
//! An invitation is the team's `invite_id`: whoever knows it joins. It is this node's own: other nodes have one of their own for the
//! same team.

use model::Id;
use rusqlite::params;

use crate::access::{may, require, require_in_team};
use crate::core::{Core, Tx, random_id};
use crate::error::{AppError, AppResult};
use crate::rows::{TeamRow, all, channel, count, get, run, team};
use crate::teams::{add_to_team, require_team, shown};
use crate::types::{Channel, Session, Team, TeamMember};
use crate::users::page;

/// What whoever holds an invitation is told before they join.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "Mattermost field names")]
pub struct InviteInfo {
    pub display_name: String,
    pub description: String,
    pub name: String,
    pub id: Id,
}

const INVITED: &str = "SELECT * FROM teams WHERE invite_id = ?1 AND delete_at = 0";

fn no_such_invite(where_: &'static str) -> AppError {
    let message = "Unable to find the existing team.";
    AppError::new(where_, "app.team.get_by_invite_id.finding.app_error", message, 404)
}

impl Core {
    /// Opens a team to everybody ("O") or closes it ("I"). Closing makes earlier invitations void.
    ///
    /// # Errors
    /// 403 without `manage_team` and `invite_user`, 400 for another kind, 404 for no such team.
    pub fn set_team_privacy(&self, by: &Session, id: Id, kind: &str) -> AppResult<Team> {
        if kind != "O" && kind != "I" {
            return Err(AppError::body_param("updateTeamPrivacy", "privacy"));
        }
        let open = kind == "O";
        self.change_team("updateTeamPrivacy", by, id, "update_team", |tx, row| {
            let t = &mut row.team;
            if (t.allow_open_invite != open || t.kind != kind) && !open {
                tx.renew_invite(t)?;
            }
            kind.clone_into(&mut t.kind);
            t.allow_open_invite = open;
            Ok(())
        })
    }

    /// Makes a new invitation; earlier ones are void.
    ///
    /// # Errors
    /// 403 without `manage_team` and `invite_user`, 404 for no such team.
    pub fn regenerate_team_invite(&self, by: &Session, id: Id) -> AppResult<Team> {
        self.change_team("regenerateTeamInviteId", by, id, "update_team", |tx, row| tx.renew_invite(&mut row.team))
    }

    /// Takes a team out of the archive.
    ///
    /// # Errors
    /// 403 without `manage_team`, 404 for no such team.
    pub fn restore_team(&self, by: &Session, id: Id) -> AppResult<Team> {
        self.change_team("restoreTeam", by, id, "restore_team", |_, row| {
            row.team.delete_at = 0;
            Ok(())
        })
    }

    fn change_team(
        &self,
        where_: &'static str,
        by: &Session,
        id: Id,
        event: &'static str,
        change: impl FnOnce(&mut Tx<'_>, &mut TeamRow) -> AppResult<()>,
    ) -> AppResult<Team> {
        self.write(|tx| {
            require_in_team(where_, &tx.db, by, id, "manage_team")?;
            let mut row = require_team(&tx.db, id)?;
            let before = row.version;
            change(tx, &mut row)?;
            row.team.update_at = tx.now.max(row.team.update_at + 1);
            tx.save_team(&mut row, Some(before))?;
            tx.tell_team(event, &row.team)?;
            shown(&tx.db, by, row.team)
        })
    }

    /// What an invitation leads to.
    ///
    /// # Errors
    /// 404 for no such invitation, 403 when the team is closed.
    pub fn invite_info(&self, invite: &str) -> AppResult<InviteInfo> {
        let found = self.read(|db| Ok::<_, AppError>(get(db, INVITED, [invite], team)?))?;
        let t = found.ok_or_else(|| no_such_invite("GetTeamByInviteId"))?;
        if t.kind != "O" {
            let message = "Invite is invalid because this is not an open team.";
            return Err(AppError::new("getInviteInfo", "api.team.get_invite_info.not_open_team", message, 403));
        }
        Ok(InviteInfo { display_name: t.display_name, description: t.description, name: t.name, id: t.id })
    }

    /// Joins the team that an invitation leads to.
    ///
    /// # Errors
    /// 404 for no such invitation, 400 when the team is full.
    pub fn join_by_invite(&self, by: &Session, invite: &str) -> AppResult<TeamMember> {
        self.write(|tx| {
            let found = get(&tx.db, INVITED, [invite], team)?;
            let t = found.ok_or_else(|| no_such_invite("AddUserToTeamByInviteId"))?;
            add_to_team(tx, by, t.id, by.user_id, false)
        })
    }

    /// Teams with the term in their names, and how many there are: those that the asker may join or, with
    /// `list_private_teams`, every team.
    ///
    /// # Errors
    /// When the store fails.
    pub fn search_teams(
        &self,
        by: &Session,
        term: &str,
        page_number: u32,
        per_page: u32,
    ) -> AppResult<(Vec<Team>, i64)> {
        let (every, open) = (may(by, "list_private_teams"), may(by, "list_public_teams"));
        let (limit, offset) = page(page_number, per_page);
        let among = "FROM teams WHERE (?1 OR (?2 AND allow_open_invite = 1 AND type = 'O' AND delete_at = 0))
            AND (instr(lower(display_name), lower(?3)) > 0 OR instr(name, lower(?3)) > 0)";
        self.read(|db| {
            let total = count(db, &format!("SELECT count(*) {among}"), params![every, open, term])?;
            let sql = format!("SELECT * {among} ORDER BY display_name, id LIMIT ?4 OFFSET ?5");
            let teams = all(db, &sql, params![every, open, term, limit, offset], team)?;
            let teams: AppResult<Vec<Team>> = teams.into_iter().map(|t| shown(db, by, t)).collect();
            Ok((teams?, total))
        })
    }

    /// Open and private channels of all teams with the term in their names, and how many there are.
    ///
    /// # Errors
    /// 403 without `sysconsole_read_user_management_channels`.
    pub fn search_every_channel(
        &self,
        by: &Session,
        term: &str,
        include_deleted: bool,
        page_number: u32,
        per_page: u32,
    ) -> AppResult<(Vec<Channel>, i64)> {
        require("searchAllChannels", by, "sysconsole_read_user_management_channels")?;
        let (limit, offset) = page(page_number, per_page);
        let among = "FROM channels WHERE type IN ('O', 'P') AND (?1 OR delete_at = 0)
            AND (instr(lower(display_name), lower(?2)) > 0 OR instr(name, lower(?2)) > 0)";
        self.read(|db| {
            let total = count(db, &format!("SELECT count(*) {among}"), params![include_deleted, term])?;
            let sql = format!("SELECT * {among} ORDER BY display_name, id LIMIT ?3 OFFSET ?4");
            Ok((all(db, &sql, params![include_deleted, term, limit, offset], channel)?, total))
        })
    }

    /// The private channels of a team, for those who administrate it.
    ///
    /// # Errors
    /// 403 without `manage_team`.
    pub fn private_channels(&self, by: &Session, team: Id, page_number: u32, per_page: u32) -> AppResult<Vec<Channel>> {
        let (limit, offset) = page(page_number, per_page);
        self.read(|db| {
            require_in_team("getPrivateChannelsForTeam", db, by, team, "manage_team")?;
            let sql = "SELECT * FROM channels WHERE team_id = ?1 AND type = 'P' AND delete_at = 0
                       ORDER BY display_name, id LIMIT ?2 OFFSET ?3";
            Ok(all(db, sql, params![team.as_str(), limit, offset], channel)?)
        })
    }
}

impl Tx<'_> {
    fn renew_invite(&mut self, t: &mut Team) -> AppResult<()> {
        t.invite_id = random_id().to_string();
        run(&self.db, "UPDATE teams SET invite_id = ?2 WHERE id = ?1", [t.id.as_str(), &t.invite_id])?;
        Ok(())
    }
}
