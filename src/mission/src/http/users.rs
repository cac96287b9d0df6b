//! Users, their sessions and tokens, presence and pictures.

use http::{HeaderName, HeaderValue, header};
use model::Id;
use serde::Deserialize;
use serde_json::json;

use super::call::Call;
use super::reply::Reply;
use super::token;
use crate::audits::Noted;
use crate::error::{AppError, AppResult};
use crate::types::{ClientInfo, Login, NewUser, Session, Status, StringMap, User, UserFilter, UserPatch, UserSearch};
use crate::ws;

/// Users found by an autocompletion (the original's limits).
const AUTOCOMPLETE_DEFAULT: u32 = 100;
const AUTOCOMPLETE_MAX: u32 = 1_000;

fn show(call: &Call, user: User) -> AppResult<Reply> {
    let reply = Reply::json(&user.clone().sanitized_for(call.session.as_ref()))?;
    Ok(reply.etag(&[&user.id, &user.update_at, &"", &0, &true, &true]))
}

fn show_all(call: &Call, users: Vec<User>) -> AppResult<Reply> {
    Reply::json(&sanitized(call, users))
}

fn sanitized(call: &Call, users: Vec<User>) -> Vec<User> {
    users.into_iter().map(|user| user.sanitized_in_list_for(call.session.as_ref())).collect()
}

pub(crate) fn login(call: &Call) -> AppResult<Reply> {
    let login: Login = call.json("login")?;
    let outcome = call.core().login(&login, &client_info(call, &login.device_id));
    let name = &login.login_id;
    let (by, extra) = match &outcome {
        Ok((_, session)) => (Some(session), format!("success login_id={name}")),
        Err(error) => (None, format!("fail {} login_id={name}", error.id)),
    };
    let noted = Noted { by, action: "/api/v4/users/login", extra: &extra, address: &call.address };
    if let Err(error) = call.core().note_audit(&noted) {
        tracing::warn!(%error, "the audit of a sign-in could not be written");
    }
    let (user, session) = outcome?;
    let reply =
        Reply::json(&user.sanitized_for(Some(&session)))?.with(HeaderName::from_static("token"), &session.token);
    if !token::sent_by_script(&call.headers) {
        return Ok(reply);
    }
    let cookies = session_cookies(call, &session);
    Ok(Reply { headers: reply.headers.into_iter().chain(cookies).collect(), ..reply })
}

/// What a browser keeps of a session that starts.
pub(crate) fn session_cookies(call: &Call, session: &Session) -> Vec<(HeaderName, HeaderValue)> {
    let cookies = token::SessionCookies {
        token: &session.token,
        user_id: session.user_id.as_str(),
        csrf: session.csrf(),
        max_age_s: (session.expires_at - call.core().now().0) / 1_000,
    };
    token::set_cookies(&call.headers, &cookies).into_iter().map(|cookie| (header::SET_COOKIE, cookie)).collect()
}

pub(crate) fn client_info(call: &Call, device_id: &str) -> ClientInfo {
    let agent = call.header(header::USER_AGENT);
    let any = |table: &[(&str, &str)]| {
        table.iter().find(|(mark, _)| agent.contains(mark)).map_or("", |(_, name)| *name).to_owned()
    };
    let is_mobile = !device_id.is_empty() || agent.starts_with("rnbeta") || agent.starts_with("Mattermost Mobile");
    ClientInfo {
        platform: any(&[
            ("Windows", "Windows"),
            ("iPhone", "iPhone"),
            ("iPad", "iPad"),
            ("Android", "Linux"),
            ("Macintosh", "Macintosh"),
            ("Linux", "Linux"),
        ]),
        os: any(&[
            ("Windows", "Windows"),
            ("Android", "Android"),
            ("iPhone", "iOS"),
            ("iPad", "iOS"),
            ("Macintosh", "Mac OS"),
            ("Linux", "Linux"),
        ]),
        browser: any(&[
            ("Mattermost Mobile", "Mobile App"),
            ("rnbeta", "Mobile App"),
            ("Mattermost/", "Desktop App"),
            ("mmctl", "mmctl"),
            ("Edg/", "Edge"),
            ("Firefox/", "Firefox"),
            ("Chrome/", "Chrome"),
            ("Safari/", "Safari"),
        ]),
        is_mobile,
    }
}

pub(crate) fn logout(call: &Call) -> AppResult<Reply> {
    if let Some(session) = &call.session {
        call.core().logout(session)?;
    }
    let reply = Reply::ok()?;
    let cookies = token::forget_all(&call.headers).map(|c| (header::SET_COOKIE, c));
    Ok(Reply { headers: reply.headers.into_iter().chain(cookies).collect(), ..reply })
}

/// How to sign in: with a password, always.
pub(crate) fn login_type(_: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "auth_service": "", "is_deactivated": false }))
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: NewUser = call.json("user")?;
    let user = call.core().create_user(call.session.as_ref(), &new)?;
    Reply::created(&user.sanitized_for(call.session.as_ref()))
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    let user = call.core().user(call.user()?)?;
    call.core().touch_session(call.session()?)?;
    show(call, user)
}

pub(crate) fn by_username(call: &Call) -> AppResult<Reply> {
    show(call, call.core().user_by_username(call.text("username"))?)
}

pub(crate) fn by_email(call: &Call) -> AppResult<Reply> {
    show(call, call.core().user_by_email(call.text("email"))?)
}

pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    let roles = call.query.get("role").into_iter().chain(call.query.get("roles").unwrap_or("").split(','));
    let filter = UserFilter {
        roles: roles.map(str::trim).filter(|role| !role.is_empty()).map(str::to_owned).collect(),
        in_team: call.query_id("in_team")?,
        not_in_team: call.query_id("not_in_team")?,
        in_channel: call.query_id("in_channel")?,
        not_in_channel: call.query_id("not_in_channel")?,
        without_team: call.query.flag("without_team"),
        active: call.query.flag("active"),
        inactive: call.query.flag("inactive"),
        sort: call.query.get("sort").unwrap_or("").to_owned(),
    };
    call.core().touch_session(call.session()?)?;
    show_all(call, call.core().users(call.session()?, &filter, call.page(), call.per_page())?)
}

pub(crate) fn by_ids(call: &Call) -> AppResult<Reply> {
    let since = call.query.number("since").unwrap_or(0);
    show_all(call, call.core().users_by_ids(&call.ids("user_ids")?, since)?)
}

pub(crate) fn by_usernames(call: &Call) -> AppResult<Reply> {
    show_all(call, call.core().users_by_usernames(&call.texts("usernames")?)?)
}

pub(crate) fn by_group_channels(call: &Call) -> AppResult<Reply> {
    let found = call.core().users_of_group_channels(call.session()?, &call.ids("group_channel_ids")?)?;
    let shown: std::collections::BTreeMap<Id, Vec<User>> =
        found.into_iter().map(|(channel, users)| (channel, sanitized(call, users))).collect();
    Reply::json(&shown)
}

pub(crate) fn search(call: &Call) -> AppResult<Reply> {
    let search: UserSearch = call.json("")?;
    if search.term.is_empty() {
        return Err(AppError::body_param("searchUsers", "term"));
    }
    if search.team_id.is_empty() && !search.not_in_channel_id.is_empty() {
        return Err(AppError::body_param("searchUsers", "team_id"));
    }
    if !(0..=i64::from(AUTOCOMPLETE_MAX)).contains(&search.limit) {
        return Err(AppError::body_param("searchUsers", "limit"));
    }
    show_all(call, call.core().search_users(call.session()?, &search)?)
}

pub(crate) fn autocomplete(call: &Call) -> AppResult<Reply> {
    let limit = call.query.number("limit").and_then(|n| u32::try_from(n).ok()).unwrap_or(AUTOCOMPLETE_DEFAULT);
    let term = call.query.get("name").unwrap_or("");
    let (team, channel) = (call.query_id("in_team")?, call.query_id("in_channel")?);
    let mut found =
        call.core().autocomplete_users(call.session()?, term, team, channel, limit.min(AUTOCOMPLETE_MAX))?;
    found.users = sanitized(call, found.users);
    found.out_of_channel = found.out_of_channel.map(|users| sanitized(call, users));
    Reply::json(&found)
}

pub(crate) fn stats(call: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "total_users_count": call.core().active_user_count()? }))
}

pub(crate) fn patch(call: &Call) -> AppResult<Reply> {
    let patch: UserPatch = call.json("user")?;
    let user = call.core().patch_user(call.session()?, call.user()?, &patch)?;
    Reply::json(&user.sanitized_for(call.session.as_ref()))
}

/// `PUT /users/{id}`: the whole user; what a client may not set is ignored.
pub(crate) fn update(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Whole {
        id: Id,
    }
    let whole: Whole = call.json("user")?;
    if whole.id != call.user()? {
        return Err(AppError::body_param("updateUser", "user_id"));
    }
    patch(call)
}

pub(crate) fn set_roles(call: &Call) -> AppResult<Reply> {
    call.core().set_user_roles(call.session()?, call.user()?, &field(call, "roles")?)?;
    Reply::ok()
}

/// One text field of a JSON object.
pub(crate) fn field(call: &Call, name: &str) -> AppResult<String> {
    let body: serde_json::Value = call.json(name)?;
    let text = body.get(name).and_then(serde_json::Value::as_str);
    text.map(str::to_owned).ok_or_else(|| AppError::body_param("http", name))
}

pub(crate) fn set_active(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        active: bool,
    }
    let Body { active } = call.json("active")?;
    call.core().set_user_active(call.session()?, call.user()?, active)?;
    Reply::ok()
}

pub(crate) fn deactivate(call: &Call) -> AppResult<Reply> {
    if call.query.flag("permanent") {
        // What was said stays; `holdfast purge` removes content from every site.
        let id = if call.session()?.is_system_admin() {
            "api.user.delete_user.not_enabled.for_admin.app_error"
        } else {
            "api.user.delete_user.not_enabled.app_error"
        };
        return Err(AppError::new("deleteUser", id, "Permanent user deletion is not enabled.", 401));
    }
    call.core().set_user_active(call.session()?, call.user()?, false)?;
    Reply::ok()
}

pub(crate) fn set_password(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        current_password: String,
        new_password: String,
    }
    let body: Body = call.json("new_password")?;
    call.core().update_password(call.session()?, call.user()?, &body.current_password, &body.new_password)?;
    Reply::ok()
}

pub(crate) fn status(call: &Call) -> AppResult<Reply> {
    let user = call.core().user(call.user()?)?;
    Reply::json(&call.core().status(user.id))
}

pub(crate) fn statuses(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().statuses(&call.ids("user_ids")?))
}

pub(crate) fn set_status(call: &Call) -> AppResult<Reply> {
    let user = call.own_user()?;
    let status: Status = call.json("status")?;
    if status.user_id != user {
        return Err(AppError::body_param("updateUserStatus", "user_id"));
    }
    if !["online", "offline", "away", "dnd"].contains(&status.status.as_str()) {
        return Err(AppError::body_param("updateUserStatus", "status"));
    }
    Reply::json(&call.core().set_status(call.session()?, user, &status.status, status.dnd_end_time)?)
}

pub(crate) fn typing(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        channel_id: Id,
        #[serde(default)]
        parent_id: String,
    }
    let Body { channel_id, parent_id } = call.json("channel_id")?;
    ws::announce_typing(call.core(), call.state.hub(), call.session()?, call.own_user()?, channel_id, &parent_id)?;
    Reply::ok()
}

pub(crate) fn sessions(call: &Call) -> AppResult<Reply> {
    let mut sessions = call.core().sessions(call.session()?, call.own_user()?)?;
    sessions.iter_mut().for_each(|session: &mut Session| session.token.clear());
    Reply::json(&sessions)
}

pub(crate) fn revoke_session(call: &Call) -> AppResult<Reply> {
    let session =
        field(call, "session_id")?.parse().map_err(|_| AppError::body_param("revokeSession", "session_id"))?;
    call.core().revoke_session(call.session()?, call.own_user()?, session)?;
    Reply::ok()
}

pub(crate) fn revoke_all_sessions(call: &Call) -> AppResult<Reply> {
    call.core().revoke_all_sessions(call.session()?, call.own_user()?)?;
    Reply::ok()
}

pub(crate) fn set_device(call: &Call) -> AppResult<Reply> {
    let props: StringMap = call.json("device_id")?;
    if let Some(device) = props.get("device_id").filter(|id| !id.is_empty()) {
        call.core().set_device(call.session()?, device)?;
    }
    Reply::ok()
}

pub(crate) fn create_token(call: &Call) -> AppResult<Reply> {
    let description = field(call, "description")?;
    if description.is_empty() {
        return Err(AppError::body_param("createUserAccessToken", "description"));
    }
    Reply::json(&call.core().create_token(call.session()?, call.user()?, &description)?)
}

pub(crate) fn tokens(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().tokens(call.session()?, call.user()?)?)
}

pub(crate) fn one_token(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().token(call.session()?, call.id("token_id")?)?)
}

fn token_in_body(call: &Call) -> AppResult<Id> {
    field(call, "token_id")?.parse().map_err(|_| AppError::body_param("http", "token_id"))
}

pub(crate) fn revoke_token(call: &Call) -> AppResult<Reply> {
    call.core().revoke_token(call.session()?, token_in_body(call)?)?;
    Reply::ok()
}

pub(crate) fn disable_token(call: &Call) -> AppResult<Reply> {
    call.core().set_token_active(call.session()?, token_in_body(call)?, false)?;
    Reply::ok()
}

pub(crate) fn enable_token(call: &Call) -> AppResult<Reply> {
    call.core().set_token_active(call.session()?, token_in_body(call)?, true)?;
    Reply::ok()
}
