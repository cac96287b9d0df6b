//! Who may do what: the roles of a session, a team and a channel added up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use model::Id;
use rusqlite::Connection;

use crate::core::{Core, channel_id_of_name};
use crate::error::{AppError, AppResult};
use crate::roles::{ALL, BuiltIn, ROLES};
use crate::rows::{channel_member, get, team_member};
use crate::types::{Channel, Role, Session};

fn permits(role: &str, permission: &str) -> bool {
    static TABLE: OnceLock<BTreeMap<&str, Option<BTreeSet<&str>>>> = OnceLock::new();
    let table = TABLE
        .get_or_init(|| ROLES.iter().map(|r| (r.name, r.permissions.map(|p| p.iter().copied().collect()))).collect());
    match table.get(role) {
        Some(Some(permissions)) => permissions.contains(permission),
        Some(None) => true,
        None => false,
    }
}

fn any_permits(roles: &str, permission: &str) -> bool {
    roles.split_whitespace().any(|r| permits(r, permission))
}

/// By the session's own roles.
pub(crate) fn may(by: &Session, permission: &str) -> bool {
    any_permits(&by.roles, permission)
}

/// By the roles in the team, else the session's own.
pub(crate) fn may_in_team(db: &Connection, by: &Session, team: Id, permission: &str) -> rusqlite::Result<bool> {
    let member = get(
        db,
        "SELECT * FROM team_members WHERE team_id = ?1 AND user_id = ?2 AND delete_at = 0",
        [team.as_str(), by.user_id.as_str()],
        team_member,
    )?;
    Ok(member.is_some_and(|m| any_permits(&m.roles, permission)) || may(by, permission))
}

/// By the roles in the channel, else in its team, else the session's own.
pub(crate) fn may_in_channel(
    db: &Connection,
    by: &Session,
    channel: &Channel,
    permission: &str,
) -> rusqlite::Result<bool> {
    let member = get(
        db,
        "SELECT * FROM channel_members WHERE channel_id = ?1 AND user_id = ?2 AND delete_at = 0",
        [channel.id.as_str(), by.user_id.as_str()],
        channel_member,
    )?;
    if member.is_some_and(|m| any_permits(&m.roles, permission)) {
        return Ok(true);
    }
    match channel.team_id {
        Some(team) => may_in_team(db, by, team, permission),
        None => Ok(may(by, permission)),
    }
}

/// Members read; anyone of the team reads an open channel.
pub(crate) fn may_read(db: &Connection, by: &Session, channel: &Channel) -> rusqlite::Result<bool> {
    if may_in_channel(db, by, channel, "read_channel_content")? {
        return Ok(true);
    }
    match channel.team_id {
        Some(team) if channel.kind == "O" => may_in_team(db, by, team, "read_public_channel"),
        _ => Ok(false),
    }
}

pub(crate) fn require(where_: &'static str, by: &Session, permission: &str) -> AppResult<()> {
    if may(by, permission) { Ok(()) } else { Err(AppError::permissions(where_, permission)) }
}

pub(crate) fn require_in_team(
    where_: &'static str,
    db: &Connection,
    by: &Session,
    team: Id,
    permission: &str,
) -> AppResult<()> {
    if may_in_team(db, by, team, permission)? { Ok(()) } else { Err(AppError::permissions(where_, permission)) }
}

pub(crate) fn require_in_channel(
    where_: &'static str,
    db: &Connection,
    by: &Session,
    channel: &Channel,
    permission: &str,
) -> AppResult<()> {
    if may_in_channel(db, by, channel, permission)? { Ok(()) } else { Err(AppError::permissions(where_, permission)) }
}

pub(crate) fn require_read(where_: &'static str, db: &Connection, by: &Session, channel: &Channel) -> AppResult<()> {
    if may_read(db, by, channel)? { Ok(()) } else { Err(AppError::permissions(where_, "read_channel_content")) }
}

/// Themselves, or an administrator who edits others.
pub(crate) fn require_self(where_: &'static str, by: &Session, user: Id) -> AppResult<()> {
    if by.user_id == user { Ok(()) } else { require(where_, by, "edit_other_users") }
}

fn role(built_in: &BuiltIn) -> Role {
    let permissions = built_in.permissions.unwrap_or(ALL);
    Role {
        // Roles are part of the program, so their ids may as well be derived from their names.
        id: channel_id_of_name(&format!("role {}", built_in.name)),
        name: built_in.name.to_owned(),
        display_name: built_in.display_name.to_owned(),
        description: built_in.display_name.replace(".name", ".description"),
        create_at: 1,
        update_at: 1,
        delete_at: 0,
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        scheme_managed: built_in.scheme_managed,
        built_in: true,
        scheme_id: None,
    }
}

/// Is this a role that the program knows?
pub(crate) fn role_exists(name: &str) -> bool {
    ROLES.iter().any(|r| r.name == name)
}

impl Core {
    /// The roles with these names; unknown names are left out, as the real server does.
    ///
    /// # Errors
    /// None; the signature leaves room for stored roles.
    pub fn roles_by_names(&self, names: &[String]) -> AppResult<Vec<Role>> {
        Ok(ROLES.iter().filter(|r| names.iter().any(|n| n.trim() == r.name)).map(role).collect())
    }

    /// Every role.
    pub fn roles(&self) -> Vec<Role> {
        ROLES.iter().map(role).collect()
    }

    /// May the session do this anywhere?
    pub fn may(&self, by: &Session, permission: &str) -> bool {
        may(by, permission)
    }

    /// May the session do this in the team? A store failure counts as no.
    pub fn may_in_team(&self, by: &Session, team: Id, permission: &str) -> bool {
        self.read(|db| may_in_team(db, by, team, permission)).unwrap_or(false)
    }

    /// May the session do this in the channel? A store failure or a missing channel counts as no.
    pub fn may_in_channel(&self, by: &Session, channel: Id, permission: &str) -> bool {
        let check = |db: &Connection| {
            let row = get(db, "SELECT * FROM channels WHERE id = ?1", [channel.as_str()], crate::rows::channel)?;
            row.map_or(Ok(false), |c| may_in_channel(db, by, &c, permission))
        };
        self.read::<bool, rusqlite::Error>(check).unwrap_or(false)
    }
}
