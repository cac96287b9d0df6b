//! From rows to shapes, and the few helpers that every query uses.

use model::{EntraKey, Hlc, Id, NodeId, Version};
#[cfg(test)]
use rusqlite::StatementStatus;
use rusqlite::types::Type;
use rusqlite::{Connection, Params, Row, Statement};
use serde_json::{Map, Value};

use crate::previews::may_have;
use crate::types::{Channel, ChannelMember, FileInfo, Reaction, StringMap, Team, TeamMember, User};

#[cfg(test)]
thread_local! {
    /// Steps that SQLite's machine took in this thread: what a query costs, whatever clock and machine.
    pub(crate) static STEPS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Runs a statement that is kept for the next time.
fn with<T>(
    db: &Connection,
    sql: &str,
    work: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut statement = db.prepare_cached(sql)?;
    let result = work(&mut statement);
    #[cfg(test)]
    STEPS.set(STEPS.get() + i64::from(statement.reset_status(StatementStatus::VmStep)));
    result
}

/// The first row, if any.
pub(crate) fn get<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    with(db, sql, |statement| statement.query(params)?.next()?.map(map).transpose())
}

/// Every row.
pub(crate) fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    with(db, sql, |statement| statement.query_map(params, map)?.collect())
}

/// One number.
pub(crate) fn count(db: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<i64> {
    with(db, sql, |statement| statement.query_row(params, |r| r.get(0)))
}

/// Is there a row?
pub(crate) fn exists(db: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<bool> {
    with(db, sql, |statement| statement.exists(params))
}

/// Runs a statement that changes rows; how many.
pub(crate) fn run(db: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    with(db, sql, |statement| statement.execute(params))
}

/// Ids as a JSON array, for `IN (SELECT value FROM json_each(?))`.
pub(crate) fn id_array(ids: &[Id]) -> String {
    serde_json::to_string(ids).expect("ids are strings")
}

fn bad(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// An id column.
pub(crate) fn id(row: &Row<'_>, column: &str) -> rusqlite::Result<Id> {
    row.get_ref(column)?.as_str()?.parse().map_err(bad)
}

/// An id column that may be empty.
pub(crate) fn opt_id(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Id>> {
    match row.get_ref(column)?.as_str()? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(bad),
    }
}

/// The only column, an id.
pub(crate) fn first_id(row: &Row<'_>) -> rusqlite::Result<Id> {
    nth_id(row, 0)
}

/// The id in the column of that number.
pub(crate) fn nth_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Id> {
    row.get_ref(column)?.as_str()?.parse().map_err(bad)
}

/// `""` for none, as id columns have it.
pub(crate) fn text(id: &Option<Id>) -> &str {
    id.as_ref().map_or("", Id::as_str)
}

/// A node id column.
pub(crate) fn node(row: &Row<'_>, column: &str) -> rusqlite::Result<NodeId> {
    row.get::<_, [u8; 16]>(column).map(NodeId)
}

/// The version columns.
pub(crate) fn put_version(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version { at: Hlc(row.get::<_, i64>("ver_at")? as u64), by: node(row, "ver_by")? })
}

pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(bad)
}

/// JSON text of a map.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("API shapes have string keys only")
}

/// A user with what the API never shows.
#[derive(Clone, Debug)]
pub(crate) struct UserRow {
    pub(crate) user: User,
    pub(crate) wanted_username: String,
    pub(crate) password: String,
    pub(crate) version: Version,
    pub(crate) local: bool,
    pub(crate) placeholder: bool,
    pub(crate) entra: Option<EntraKey>,
}

/// As the real server calls Entra (`model/user.go`, `SERVICE_OFFICE365`).
const AUTH_SERVICE_ENTRA: &str = "office365";

fn entra(r: &Row<'_>) -> rusqlite::Result<Option<EntraKey>> {
    match r.get_ref("entra")?.as_str()? {
        "" => Ok(None),
        key => key.parse().map(Some).map_err(bad),
    }
}

pub(crate) fn user_row(r: &Row<'_>) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        user: user(r)?,
        wanted_username: r.get("wanted_username")?,
        password: r.get("password")?,
        version: put_version(r)?,
        local: r.get("local")?,
        placeholder: r.get("placeholder")?,
        entra: entra(r)?,
    })
}

pub(crate) fn user(r: &Row<'_>) -> rusqlite::Result<User> {
    let key = entra(r)?;
    // What a client offers goes by how the account signs in here: who has a local password can change it.
    let by_entra_alone = key.is_some() && r.get_ref("password")?.as_str()?.is_empty();
    Ok(User {
        id: id(r, "id")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
        username: r.get("username")?,
        auth_data: key.map(|key| key.object.to_string()),
        auth_service: if by_entra_alone { AUTH_SERVICE_ENTRA.to_owned() } else { String::new() },
        email: r.get("email")?,
        email_verified: r.get("email_verified")?,
        nickname: r.get("nickname")?,
        first_name: r.get("first_name")?,
        last_name: r.get("last_name")?,
        position: r.get("position")?,
        roles: r.get("roles")?,
        props: json::<StringMap>(r, "props")?,
        notify_props: json(r, "notify_props")?,
        last_password_update: r.get("last_password_update")?,
        last_picture_update: r.get("last_picture_update")?,
        failed_attempts: r.get("failed_attempts")?,
        locale: r.get("locale")?,
        timezone: json(r, "timezone")?,
        remote_id: (!r.get::<_, bool>("is_bot")?).then(String::new),
        is_bot: r.get("is_bot")?,
        bot_description: r.get("bot_description")?,
        mfa_active: r.get("mfa_active")?,
        disable_welcome_email: false,
    })
}

/// A team with its replication columns.
#[derive(Clone, Debug)]
pub(crate) struct TeamRow {
    pub(crate) team: Team,
    pub(crate) wanted_name: String,
    pub(crate) version: Version,
}

pub(crate) fn team_row(r: &Row<'_>) -> rusqlite::Result<TeamRow> {
    Ok(TeamRow { team: team(r)?, wanted_name: r.get("wanted_name")?, version: put_version(r)? })
}

pub(crate) fn team(r: &Row<'_>) -> rusqlite::Result<Team> {
    Ok(Team {
        id: id(r, "id")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
        display_name: r.get("display_name")?,
        name: r.get("name")?,
        description: r.get("description")?,
        email: r.get("email")?,
        kind: r.get("type")?,
        company_name: r.get("company_name")?,
        allowed_domains: String::new(),
        invite_id: r.get("invite_id")?,
        allow_open_invite: r.get("allow_open_invite")?,
        last_team_icon_update: r.get("last_icon_update")?,
        scheme_id: None,
        group_constrained: None,
        policy_id: None,
        cloud_limits_archived: false,
    })
}

fn member_roles(base: &str, admin: bool, explicit: &str) -> String {
    let mut roles = format!("{base}_user");
    if admin {
        roles.push_str(&format!(" {base}_admin"));
    }
    if !explicit.is_empty() {
        roles.push(' ');
        roles.push_str(explicit);
    }
    roles
}

pub(crate) fn team_member(r: &Row<'_>) -> rusqlite::Result<TeamMember> {
    let (admin, explicit): (bool, String) = (r.get("scheme_admin")?, r.get("explicit_roles")?);
    Ok(TeamMember {
        team_id: id(r, "team_id")?,
        user_id: id(r, "user_id")?,
        roles: member_roles("team", admin, &explicit),
        delete_at: r.get("delete_at")?,
        scheme_guest: false,
        scheme_user: true,
        scheme_admin: admin,
        explicit_roles: explicit,
    })
}

/// A channel with its replication columns.
#[derive(Clone, Debug)]
pub(crate) struct ChannelRow {
    pub(crate) channel: Channel,
    pub(crate) wanted_name: String,
    pub(crate) version: Version,
    pub(crate) local: bool,
}

pub(crate) fn channel_row(r: &Row<'_>) -> rusqlite::Result<ChannelRow> {
    Ok(ChannelRow {
        channel: channel(r)?,
        wanted_name: r.get("wanted_name")?,
        version: put_version(r)?,
        local: r.get("local")?,
    })
}

pub(crate) fn channel(r: &Row<'_>) -> rusqlite::Result<Channel> {
    Ok(Channel {
        id: id(r, "id")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
        team_id: opt_id(r, "team_id")?,
        kind: r.get("type")?,
        display_name: r.get("display_name")?,
        name: r.get("name")?,
        header: r.get("header")?,
        purpose: r.get("purpose")?,
        last_post_at: r.get("last_post_at")?,
        total_msg_count: r.get("total_msg_count")?,
        extra_update_at: 0,
        creator_id: opt_id(r, "creator_id")?,
        scheme_id: None,
        props: None,
        group_constrained: None,
        autotranslation: false,
        // The original looks this up for conversations only.
        shared: matches!(r.get_ref("type")?.as_str()?, "D" | "G").then_some(false),
        total_msg_count_root: r.get("total_msg_count_root")?,
        policy_id: None,
        last_root_post_at: r.get("last_root_post_at")?,
        banner_info: None,
        policy_enforced: false,
        policy_is_active: false,
        default_category_name: String::new(),
    })
}

pub(crate) fn channel_member(r: &Row<'_>) -> rusqlite::Result<ChannelMember> {
    let (admin, explicit): (bool, String) = (r.get("scheme_admin")?, r.get("explicit_roles")?);
    Ok(ChannelMember {
        channel_id: id(r, "channel_id")?,
        user_id: id(r, "user_id")?,
        roles: member_roles("channel", admin, &explicit),
        last_viewed_at: r.get("last_viewed_at")?,
        msg_count: r.get("msg_count")?,
        mention_count: r.get("mention_count")?,
        mention_count_root: r.get("mention_count_root")?,
        urgent_mention_count: r.get("urgent_mention_count")?,
        msg_count_root: r.get("msg_count_root")?,
        notify_props: json(r, "notify_props")?,
        last_update_at: r.get("last_update_at")?,
        scheme_guest: false,
        scheme_user: true,
        scheme_admin: admin,
        explicit_roles: explicit,
        autotranslation_disabled: false,
    })
}

/// A post as stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PostRow {
    pub(crate) id: Id,
    pub(crate) channel_id: Id,
    pub(crate) user_id: Id,
    pub(crate) root_id: Option<Id>,
    pub(crate) original_id: Option<Id>,
    pub(crate) create_at: i64,
    pub(crate) update_at: i64,
    pub(crate) edit_at: i64,
    pub(crate) delete_at: i64,
    pub(crate) message: String,
    pub(crate) kind: String,
    /// JSON object, `{}` when empty.
    pub(crate) props: String,
    pub(crate) hashtags: String,
    pub(crate) is_pinned: bool,
    pub(crate) file_ids: Vec<Id>,
    /// JSON of `metadata.priority`, or "".
    pub(crate) priority: String,
    pub(crate) pending_post_id: String,
    /// Highest `update_at` of the post's own states; unlike `update_at` it does not follow reactions and replies.
    pub(crate) state_at: i64,
    /// Local change position, see `Tx::change`.
    pub(crate) changed_at: i64,
    /// When it arrived, if late; else 0.
    pub(crate) arrived_at: i64,
    /// When it could first be read here: its creation, or its arrival where that was later.
    pub(crate) shown_at: i64,
    pub(crate) origin: NodeId,
    pub(crate) version: Version,
}

impl PostRow {
    pub(crate) fn props_map(&self) -> Map<String, Value> {
        serde_json::from_str(&self.props).unwrap_or_default()
    }
}

pub(crate) fn post_row(r: &Row<'_>) -> rusqlite::Result<PostRow> {
    Ok(PostRow {
        id: id(r, "id")?,
        channel_id: id(r, "channel_id")?,
        user_id: id(r, "user_id")?,
        root_id: opt_id(r, "root_id")?,
        original_id: opt_id(r, "original_id")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        edit_at: r.get("edit_at")?,
        delete_at: r.get("delete_at")?,
        message: r.get("message")?,
        kind: r.get("type")?,
        props: r.get("props")?,
        hashtags: r.get("hashtags")?,
        is_pinned: r.get("is_pinned")?,
        file_ids: json(r, "file_ids")?,
        priority: r.get("priority")?,
        pending_post_id: r.get("pending_post_id")?,
        state_at: r.get("state_at")?,
        changed_at: r.get("changed_at")?,
        arrived_at: r.get("arrived_at")?,
        shown_at: r.get("shown_at")?,
        origin: node(r, "origin")?,
        version: put_version(r)?,
    })
}

pub(crate) fn reaction(r: &Row<'_>) -> rusqlite::Result<Reaction> {
    Ok(Reaction {
        user_id: id(r, "user_id")?,
        post_id: id(r, "post_id")?,
        emoji_name: r.get("emoji_name")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
        remote_id: String::new(),
        channel_id: id(r, "channel_id")?,
    })
}

pub(crate) fn file_info(r: &Row<'_>) -> rusqlite::Result<FileInfo> {
    let mini: String = r.get("mini_preview")?;
    let mut info = FileInfo {
        id: id(r, "id")?,
        user_id: id(r, "user_id")?,
        post_id: opt_id(r, "post_id")?,
        channel_id: id(r, "channel_id")?,
        create_at: r.get("create_at")?,
        update_at: r.get("update_at")?,
        delete_at: r.get("delete_at")?,
        name: r.get("name")?,
        extension: r.get("extension")?,
        size: r.get::<_, i64>("size")? as u64,
        mime_type: r.get("mime_type")?,
        width: r.get("width")?,
        height: r.get("height")?,
        has_preview_image: false,
        mini_preview: Some(mini).filter(|mini| !mini.is_empty()),
        remote_id: String::new(),
        archived: false,
    };
    let is_here = !r.get_ref("hash")?.as_str()?.is_empty();
    info.has_preview_image = may_have(r.get("preview")?, &info, is_here);
    Ok(info)
}
