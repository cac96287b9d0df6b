//! Channels, who belongs to them, and what is unread.

use std::collections::BTreeMap;

use model::Id;
use serde::Deserialize;
use serde_json::json;

use super::call::Call;
use super::reply::Reply;
use super::{teams, users};
use crate::error::{AppError, AppResult};
use crate::types::{Channel, ChannelPatch, ChannelView, NewChannel, StringMap};

/// Users added by one request (the original's number).
const ADDED_MAX: usize = 1_000;
/// Channels in one autocompletion (the original's number).
const AUTOCOMPLETE_MAX: usize = 50;

fn show(channel: &Channel) -> AppResult<Reply> {
    Ok(Reply::json(channel)?.etag(&[&channel.id, &channel.update_at]))
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: NewChannel = call.json("channel")?;
    if new.team_id.is_empty() {
        return Err(AppError::body_param("createChannel", "team_id"));
    }
    if new.display_name.is_empty() {
        return Err(AppError::body_param("createChannel", "display_name"));
    }
    Reply::created(&call.core().create_channel(call.session()?, &new)?)
}

pub(crate) fn create_direct(call: &Call) -> AppResult<Reply> {
    let users: Vec<Id> = call.json("user_ids")?;
    let (a, b) = match users[..] {
        [only] if only == call.me()? => (only, only),
        [a, b] => (a, b),
        _ => return Err(AppError::body_param("createDirectChannel", "user_ids")),
    };
    Reply::created(&call.core().direct_channel(call.session()?, a, b)?)
}

pub(crate) fn create_group(call: &Call) -> AppResult<Reply> {
    Reply::created(&call.core().group_channel(call.session()?, &call.ids("user_ids")?)?)
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    show(&call.core().channel(call.session()?, call.id("channel_id")?)?)
}

pub(crate) fn by_name(call: &Call) -> AppResult<Reply> {
    named(call, call.id("team_id")?)
}

pub(crate) fn by_team_and_name(call: &Call) -> AppResult<Reply> {
    let team = call.core().team_by_name(call.session()?, &call.text("team_name").to_lowercase())?;
    named(call, team.id)
}

fn named(call: &Call, team: Id) -> AppResult<Reply> {
    let name = call.text("channel_name").to_lowercase();
    let include_deleted = call.query.flag("include_deleted");
    show(&call.core().channel_by_name(call.session()?, team, &name, include_deleted)?)
}

pub(crate) fn patch(call: &Call) -> AppResult<Reply> {
    let patch: ChannelPatch = call.json("channel")?;
    Reply::json(&call.core().patch_channel(call.session()?, call.id("channel_id")?, &patch)?)
}

/// `PUT /channels/{id}`: the whole channel; what a client may not set is ignored.
pub(crate) fn update(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Whole {
        id: Id,
    }
    let whole: Whole = call.json("channel")?;
    if whole.id != call.id("channel_id")? {
        return Err(AppError::body_param("updateChannel", "channel_id"));
    }
    patch(call)
}

pub(crate) fn set_privacy(call: &Call) -> AppResult<Reply> {
    let kind = users::field(call, "privacy")?;
    if kind != "O" && kind != "P" {
        return Err(AppError::body_param("updateChannelPrivacy", "privacy"));
    }
    Reply::json(&call.core().set_channel_privacy(call.session()?, call.id("channel_id")?, &kind)?)
}

pub(crate) fn archive(call: &Call) -> AppResult<Reply> {
    call.core().archive_channel(call.session()?, call.id("channel_id")?)?;
    Reply::ok()
}

pub(crate) fn restore(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().restore_channel(call.session()?, call.id("channel_id")?)?)
}

pub(crate) fn stats(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().channel_stats(call.session()?, call.id("channel_id")?)?)
}

/// Zones matter for mentions of everybody in a channel around the world; here it is one mission.
pub(crate) fn timezones(call: &Call) -> AppResult<Reply> {
    let zones = call.core().channel_timezones(call.session()?, call.id("channel_id")?)?;
    // Null where nobody has set one, as the original answers.
    Reply::json(&(!zones.is_empty()).then_some(zones))
}

pub(crate) fn member_counts(call: &Call) -> AppResult<Reply> {
    let count = |channel: Id| Ok((channel, call.core().channel_stats(call.session()?, channel)?.member_count));
    let counts: AppResult<BTreeMap<Id, i64>> = call.ids("channel_ids")?.into_iter().map(count).collect();
    Reply::json(&counts?)
}

pub(crate) fn all(call: &Call) -> AppResult<Reply> {
    let include_deleted = call.query.flag("include_deleted");
    let channels = call.core().all_channels(call.session()?, include_deleted, call.page(), call.per_page())?;
    if call.query.flag("include_total_count") {
        let every = |page| call.core().all_channels(call.session()?, include_deleted, page, super::PER_PAGE_MAX);
        let total = teams::total(every)?;
        return Reply::json(&json!({ "channels": channels, "total_count": total }));
    }
    Reply::json(&channels)
}

pub(crate) fn public_of_team(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    Reply::json(&call.core().public_channels(call.session()?, team, call.page(), call.per_page())?)
}

pub(crate) fn archived_of_team(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    Reply::json(&call.core().archived_channels(call.session()?, team, call.page(), call.per_page())?)
}

pub(crate) fn by_ids(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().channels_by_ids(call.session()?, call.id("team_id")?, &call.ids("channel_ids")?)?)
}

pub(crate) fn search(call: &Call) -> AppResult<Reply> {
    let term = users::field(call, "term")?;
    Reply::json(&call.core().search_channels(call.session()?, call.id("team_id")?, &term)?)
}

pub(crate) fn autocomplete(call: &Call) -> AppResult<Reply> {
    let term = call.query.get("name").unwrap_or("");
    let mut found = call.core().search_channels(call.session()?, call.id("team_id")?, term)?;
    found.truncate(AUTOCOMPLETE_MAX);
    Reply::json(&found)
}

pub(crate) fn of_user(call: &Call) -> AppResult<Reply> {
    list_of_user(call, None)
}

pub(crate) fn of_user_in_team(call: &Call) -> AppResult<Reply> {
    list_of_user(call, Some(call.id("team_id")?))
}

fn list_of_user(call: &Call, team: Option<Id>) -> AppResult<Reply> {
    let since = call.query.number("last_delete_at").unwrap_or(0);
    if since < 0 {
        return Err(AppError::url_param("getChannelsForUser", "last_delete_at"));
    }
    let include_deleted = call.query.flag("include_deleted");
    Reply::json(&call.core().channels_of(call.session()?, call.own_user()?, team, include_deleted, since)?)
}

pub(crate) fn memberships_in_team(call: &Call) -> AppResult<Reply> {
    let team = call.id("team_id")?;
    Reply::json(&call.core().channel_members_in_team(call.session()?, call.own_user()?, team)?)
}

/// All memberships by page; page -1 asks for all at once.
pub(crate) fn memberships(call: &Call) -> AppResult<Reply> {
    let members = call.core().channel_members_of(call.session()?, call.own_user()?)?;
    if call.query.number("page").is_some_and(|page| page < 0) {
        return Reply::json_lines(&members);
    }
    let (page, per_page) = (call.page() as usize, call.per_page() as usize);
    let page: Vec<_> = members.into_iter().skip(page.saturating_mul(per_page)).take(per_page).collect();
    Reply::json(&page)
}

pub(crate) fn members(call: &Call) -> AppResult<Reply> {
    let channel = call.id("channel_id")?;
    Reply::json(&call.core().channel_members(call.session()?, channel, call.page(), call.per_page())?)
}

pub(crate) fn members_by_ids(call: &Call) -> AppResult<Reply> {
    let channel = call.id("channel_id")?;
    Reply::json(&call.core().channel_members_by_ids(call.session()?, channel, &call.ids("user_ids")?)?)
}

pub(crate) fn member(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().channel_member(call.session()?, call.id("channel_id")?, call.user()?)?)
}

pub(crate) fn add_member(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        user_id: Option<Id>,
        user_ids: Option<Vec<Id>>,
    }
    let channel = call.id("channel_id")?;
    let body: Body = call.json("user_id or user_ids")?;
    match body {
        Body { user_ids: Some(users), .. } => {
            if users.is_empty() || users.len() > ADDED_MAX {
                return Err(AppError::body_param("addChannelMember", "user_ids"));
            }
            let added = users.iter().map(|user| call.core().add_channel_member(call.session()?, channel, *user));
            Reply::created(&added.collect::<AppResult<Vec<_>>>()?)
        }
        Body { user_id: Some(user), .. } => {
            Reply::created(&call.core().add_channel_member(call.session()?, channel, user)?)
        }
        Body { .. } => Err(AppError::body_param("addChannelMember", "user_id or user_ids")),
    }
}

pub(crate) fn remove_member(call: &Call) -> AppResult<Reply> {
    call.core().remove_channel_member(call.session()?, call.id("channel_id")?, call.user()?)?;
    Reply::ok()
}

pub(crate) fn set_member_roles(call: &Call) -> AppResult<Reply> {
    let roles = users::field(call, "roles")?;
    call.core().set_channel_member_roles(call.session()?, call.id("channel_id")?, call.user()?, &roles)?;
    Reply::ok()
}

/// `POST /channels/search`: over all teams, for administrators.
pub(crate) fn search_all(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        term: String,
        #[serde(default)]
        include_deleted: bool,
        page: Option<u32>,
        per_page: Option<u32>,
    }
    let body: Body = call.json("channel_search")?;
    let deleted = body.include_deleted || call.query.flag("include_deleted");
    let (page, per_page) = (body.page.unwrap_or(0), body.per_page.unwrap_or(super::PER_PAGE_MAX));
    let term = body.term.trim();
    let (channels, total) = call.core().search_every_channel(call.session()?, term, deleted, page, per_page)?;
    match (body.page, body.per_page) {
        (Some(_), Some(_)) => Reply::json(&json!({ "channels": channels, "total_count": total })),
        (Some(_) | None, _) => Reply::json(&channels),
    }
}

pub(crate) fn set_scheme_roles(call: &Call) -> AppResult<Reply> {
    let roles: teams::SchemeRoles = call.json("scheme_roles")?;
    let roles = roles.names("updateChannelMemberSchemeRoles", "channel")?;
    call.core().set_channel_member_roles(call.session()?, call.id("channel_id")?, call.user()?, &roles)?;
    Reply::ok()
}

pub(crate) fn set_notify_props(call: &Call) -> AppResult<Reply> {
    let props: StringMap = call.json("notify_props")?;
    call.core().set_channel_notify_props(call.session()?, call.id("channel_id")?, call.own_user()?, &props)?;
    Reply::ok()
}

pub(crate) fn view(call: &Call) -> AppResult<Reply> {
    let view: ChannelView = call.json("channel_view")?;
    for (id, name) in [(&view.channel_id, "channel_id"), (&view.prev_channel_id, "prev_channel_id")] {
        if !id.is_empty() && id.parse::<Id>().is_err() {
            return Err(AppError::body_param("viewChannel", &format!("channel_view.{name}")));
        }
    }
    let viewed = call.core().view_channel(call.session()?, call.own_user()?, &view)?;
    call.core().touch_session(call.session()?)?;
    Reply::json(&viewed)
}

pub(crate) fn mark_read(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().mark_channels_read(call.session()?, call.own_user()?, &call.ids("channel_ids")?)?)
}

pub(crate) fn unread(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().channel_unread(call.session()?, call.own_user()?, call.id("channel_id")?)?)
}
