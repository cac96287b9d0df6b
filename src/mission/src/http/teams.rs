//! Teams and who belongs to them.

use model::Id;
use serde::Deserialize;
use serde_json::json;

use super::call::Call;
use super::reply::Reply;
use super::users;
use crate::error::{AppError, AppResult};
use crate::types::{NewTeam, Team, TeamPatch};

/// Users added by one request (the original's number).
const ADDED_MAX: usize = 20;

fn show(team: &Team) -> AppResult<Reply> {
    Ok(Reply::json(team)?.etag(&[&team.id, &team.update_at]))
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: NewTeam = call.json("team")?;
    Reply::created(&call.core().create_team(call.session()?, &new)?)
}

pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    let teams = call.core().teams(call.session()?, call.page(), call.per_page())?;
    if call.query.flag("include_total_count") {
        let total = total(|page| call.core().teams(call.session()?, page, super::PER_PAGE_MAX))?;
        return Reply::json(&json!({ "total_count": total, "teams": teams }));
    }
    Reply::json(&teams)
}

/// Length of a list that comes by page. Lists here are short: a mission has a handful of teams.
pub(crate) fn total<T>(page_of: impl Fn(u32) -> AppResult<Vec<T>>) -> AppResult<usize> {
    let mut total = 0;
    for page in 0.. {
        let found = page_of(page)?.len();
        total += found;
        if found < super::PER_PAGE_MAX as usize {
            break;
        }
    }
    Ok(total)
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    show(&call.core().team(call.session()?, call.id("team_id")?)?)
}

pub(crate) fn by_name(call: &Call) -> AppResult<Reply> {
    show(&call.core().team_by_name(call.session()?, &call.text("team_name").to_lowercase())?)
}

pub(crate) fn exists(call: &Call) -> AppResult<Reply> {
    Reply::json(&json!({ "exists": call.core().team_exists(&call.text("team_name").to_lowercase())? }))
}

pub(crate) fn patch(call: &Call) -> AppResult<Reply> {
    let patch: TeamPatch = call.json("team")?;
    Reply::json(&call.core().patch_team(call.session()?, call.id("team_id")?, &patch)?)
}

pub(crate) fn archive(call: &Call) -> AppResult<Reply> {
    if call.query.flag("permanent") {
        let id = if call.session()?.is_system_admin() {
            "api.user.delete_team.not_enabled.for_admin.app_error"
        } else {
            "api.user.delete_team.not_enabled.app_error"
        };
        return Err(AppError::new("deleteTeam", id, "Permanent team deletion is not enabled.", 401));
    }
    call.core().archive_team(call.session()?, call.id("team_id")?)?;
    Reply::ok()
}

pub(crate) fn stats(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().team_stats(call.session()?, call.id("team_id")?)?)
}

pub(crate) fn of_user(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().teams_of(call.session()?, call.user()?)?)
}

pub(crate) fn memberships_of_user(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().team_members_of(call.session()?, call.user()?)?)
}

pub(crate) fn unread_of_user(call: &Call) -> AppResult<Reply> {
    let with_threads = call.query.get("include_collapsed_threads") == Some("true");
    let mut unread = call.core().teams_unread(call.session()?, call.own_user()?, with_threads)?;
    if let Some(excluded) = call.query_id("exclude_team")? {
        unread.retain(|team| team.team_id != excluded);
    }
    Reply::json(&unread)
}

pub(crate) fn unread(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().team_unread(call.session()?, call.own_user()?, call.id("team_id")?)?)
}

pub(crate) fn members(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    Reply::json(&call.core().team_members(call.session()?, team, call.page(), call.per_page())?)
}

pub(crate) fn members_by_ids(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().team_members_by_ids(call.session()?, call.id("team_id")?, &call.ids("user_ids")?)?)
}

pub(crate) fn member(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().team_member(call.session()?, call.id("team_id")?, call.user()?)?)
}

#[derive(Deserialize)]
struct Addition {
    team_id: Id,
    user_id: Id,
}

pub(crate) fn add_member(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    let new: Addition = call.json("team_member")?;
    if new.team_id != team {
        return Err(AppError::body_param("addTeamMember", "team_id"));
    }
    Reply::created(&call.core().add_team_member(call.session()?, team, new.user_id)?)
}

pub(crate) fn add_members(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    let new: Vec<Addition> = call.json("members")?;
    if new.is_empty() || new.len() > ADDED_MAX || new.iter().any(|n| n.team_id != team) {
        return Err(AppError::body_param("addTeamMembers", "members"));
    }
    if call.query.flag("graceful") {
        let added = new.iter().map(|n| match call.core().add_team_member(call.session()?, team, n.user_id) {
            Ok(member) => Ok(json!({ "user_id": n.user_id, "member": member, "error": null })),
            Err(e) if e.status_code < 500 => {
                Ok(json!({ "user_id": n.user_id, "member": null, "error": super::reply::error_json(&e, "") }))
            }
            Err(e) => Err(e),
        });
        return Reply::created(&added.collect::<AppResult<Vec<_>>>()?);
    }
    let added = new.iter().map(|n| call.core().add_team_member(call.session()?, team, n.user_id));
    Reply::created(&added.collect::<AppResult<Vec<_>>>()?)
}

pub(crate) fn remove_member(call: &Call) -> AppResult<Reply> {
    call.core().remove_team_member(call.session()?, call.id("team_id")?, call.user()?)?;
    Reply::ok()
}

pub(crate) fn set_member_roles(call: &Call) -> AppResult<Reply> {
    let roles = users::field(call, "roles")?;
    call.core().set_team_member_roles(call.session()?, call.id("team_id")?, call.user()?, &roles)?;
    Reply::ok()
}

/// `PUT /teams/{id}`: the whole team; what a client may not set is ignored.
pub(crate) fn update(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Whole {
        id: Id,
    }
    let whole: Whole = call.json("team")?;
    if whole.id != call.id("team_id")? {
        return Err(AppError::body_param("updateTeam", "id"));
    }
    patch(call)
}

pub(crate) fn set_privacy(call: &Call) -> AppResult<Reply> {
    let kind = users::field(call, "privacy")?;
    Reply::json(&call.core().set_team_privacy(call.session()?, call.id("team_id")?, &kind)?)
}

pub(crate) fn restore(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().restore_team(call.session()?, call.id("team_id")?)?)
}

pub(crate) fn regenerate_invite(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().regenerate_team_invite(call.session()?, call.id("team_id")?)?)
}

pub(crate) fn invite_info(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().invite_info(call.text("invite_id"))?)
}

pub(crate) fn join_by_invite(call: &Call) -> AppResult<Reply> {
    if call.query.get("token").is_some() {
        // Such links are sent by mail, which this server does not send.
        let id = "api.user.create_user.signup_link_invalid.app_error";
        return Err(AppError::bad("addUserToTeamFromInvite", id, "The signup link does not appear to be valid."));
    }
    let Some(invite) = call.query.get("invite_id") else {
        let id = "api.team.add_user_to_team.missing_parameter.app_error";
        return Err(AppError::bad("addTeamMember", id, "Parameter required to add user to team."));
    };
    Reply::created(&call.core().join_by_invite(call.session()?, invite)?)
}

pub(crate) fn search(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        term: String,
        page: Option<u32>,
        per_page: Option<u32>,
    }
    /// Teams found where no page was asked for.
    const FOUND_MAX: u32 = super::PER_PAGE_MAX;
    let body: Body = call.json("team_search")?;
    let (page, per_page) = (body.page.unwrap_or(0), body.per_page.unwrap_or(FOUND_MAX).min(FOUND_MAX));
    let (teams, total) = call.core().search_teams(call.session()?, body.term.trim(), page, per_page)?;
    match (body.page, body.per_page) {
        (Some(_), Some(_)) => Reply::json(&json!({ "teams": teams, "total_count": total })),
        (Some(_) | None, _) => Reply::json(&teams),
    }
}

#[derive(Deserialize)]
pub(crate) struct SchemeRoles {
    #[serde(default)]
    scheme_admin: bool,
    #[serde(default)]
    scheme_guest: bool,
    #[serde(default)]
    scheme_user: bool,
}

impl SchemeRoles {
    /// As role names, e.g. `team_user team_admin`. Guests need a licence, which there is none of.
    pub(crate) fn names(&self, where_: &'static str, of: &str) -> AppResult<String> {
        if !self.scheme_guest && !self.scheme_user {
            let id = "api.team.update_team_member_roles.unset_user_scheme.app_error";
            return Err(AppError::bad(where_, id, "A member must be a user."));
        }
        if self.scheme_guest {
            let id = "api.team.update_team_member_roles.guest_and_user.app_error";
            return Err(AppError::bad(where_, id, "Guests are not offered."));
        }
        Ok(if self.scheme_admin { format!("{of}_user {of}_admin") } else { format!("{of}_user") })
    }
}

pub(crate) fn set_scheme_roles(call: &Call) -> AppResult<Reply> {
    let roles: SchemeRoles = call.json("scheme_roles")?;
    let roles = roles.names("updateTeamMemberSchemeRoles", "team")?;
    call.core().set_team_member_roles(call.session()?, call.id("team_id")?, call.user()?, &roles)?;
    Reply::ok()
}

/// Invitations by mail, which this server does not send.
pub(crate) fn invite_by_mail(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    if !call.core().may_in_team(call.session()?, team, "invite_user") {
        return Err(AppError::permissions("inviteUsersToTeam", "invite_user"));
    }
    let id = "api.team.invite_members.disabled.app_error";
    Err(AppError::new("InviteNewUsersToTeam", id, "Email invitations are disabled.", 501))
}

pub(crate) fn private_channels(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    Reply::json(&call.core().private_channels(call.session()?, team, call.page(), call.per_page())?)
}
