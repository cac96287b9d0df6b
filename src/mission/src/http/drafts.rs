//! Drafts and scheduled posts.

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::NewDraft;

pub(crate) fn save(call: &Call) -> AppResult<Reply> {
    let new: NewDraft = call.json("draft")?;
    Reply::created(&call.core().save_draft(call.session()?, &new, call.connection())?)
}

/// Always the caller's own, whomever the path names, and `null` for none, as in the original.
pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    call.own_user()?;
    let drafts = call.core().drafts(call.session()?, call.id("team_id")?)?;
    Reply::json(&Some(drafts).filter(|drafts| !drafts.is_empty()))
}

pub(crate) fn delete(call: &Call) -> AppResult<Reply> {
    let channel = call.id("channel_id")?;
    call.own_user()?;
    let root = match call.text("thread_id") {
        "" => None,
        _ => Some(call.id("thread_id")?),
    };
    call.core().delete_draft(call.session()?, channel, root, call.connection())?;
    Reply::ok()
}

pub(crate) fn schedule(call: &Call) -> AppResult<Reply> {
    let new: NewDraft = call.json("schedule_post")?;
    Reply::created(&call.core().schedule_post(call.session()?, &new, call.connection())?)
}

pub(crate) fn scheduled(call: &Call) -> AppResult<Reply> {
    let with_direct = call.query.get("includeDirectChannels") == Some("true");
    Reply::json(&call.core().scheduled_posts(call.session()?, call.id("team_id")?, with_direct)?)
}

/// 201, as in the original.
pub(crate) fn update_scheduled(call: &Call) -> AppResult<Reply> {
    let new: NewDraft = call.json("schedule_post")?;
    let id = call.id("scheduled_post_id")?;
    if new.id != id.as_str() {
        return Err(AppError::url_param("updateScheduledPost", "scheduled_post_id"));
    }
    Reply::created(&call.core().update_scheduled_post(call.session()?, id, &new, call.connection())?)
}

/// 201, as in the original.
pub(crate) fn delete_scheduled(call: &Call) -> AppResult<Reply> {
    let id = call.id("scheduled_post_id")?;
    Reply::created(&call.core().delete_scheduled_post(call.session()?, id, call.connection())?)
}
