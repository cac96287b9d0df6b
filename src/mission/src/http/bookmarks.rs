//! Bookmarks of channels.

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::{BookmarkPatch, NewBookmark};

pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    let since = call.query.number("bookmarks_since").unwrap_or(0);
    Reply::json(&call.core().bookmarks(call.session()?, call.id("channel_id")?, since)?)
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: NewBookmark = call.json("channelBookmark")?;
    Reply::created(&call.core().add_bookmark(call.session()?, call.id("channel_id")?, &new, call.connection())?)
}

pub(crate) fn patch(call: &Call) -> AppResult<Reply> {
    let patch: BookmarkPatch = call.json("channelBookmarkPatch")?;
    let (channel, bookmark) = (call.id("channel_id")?, call.id("bookmark_id")?);
    Reply::json(&call.core().patch_bookmark(call.session()?, channel, bookmark, &patch, call.connection())?)
}

/// The body is the place alone.
pub(crate) fn sort(call: &Call) -> AppResult<Reply> {
    let place: i64 = call.json("channelBookmarkSortOrder")?;
    let bad = |_| AppError::body_param("updateChannelBookmarkSortOrder", "channelBookmarkSortOrder");
    let place = usize::try_from(place).map_err(bad)?;
    let (channel, bookmark) = (call.id("channel_id")?, call.id("bookmark_id")?);
    Reply::json(&call.core().sort_bookmark(call.session()?, channel, bookmark, place, call.connection())?)
}

pub(crate) fn delete(call: &Call) -> AppResult<Reply> {
    let (channel, bookmark) = (call.id("channel_id")?, call.id("bookmark_id")?);
    Reply::json(&call.core().delete_bookmark(call.session()?, channel, bookmark, call.connection())?)
}
