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
