//! Posts, threads and reactions.

use model::{Id, UnixMillis};
use serde::Deserialize;

use super::call::Call;
use super::integrations;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::{NewPost, Post, PostList, PostPatch, PostQuery, PostView, ThreadPart};

/// Posts in one request by id (the original's number).
const BY_IDS_MAX: usize = 1_000;
/// Longest emoji name (the original's number).
const EMOJI_NAME_MAX: usize = 64;

fn show(post: &Post) -> AppResult<Reply> {
    Ok(Reply::json(post)?.etag(&[&post.id, &post.update_at]))
}

/// ETag of a list: its first post, its newest change.
fn show_list(list: &PostList) -> AppResult<Reply> {
    show_list_with(list, &[])
}

/// As [`show_list`], where more than its posts may change.
fn show_list_with(list: &PostList, more: &[&dyn std::fmt::Display]) -> AppResult<Reply> {
    let newest = list.posts.values().max_by_key(|post| (post.update_at, post.id));
    let (id, at) = newest.map_or(("0", 0), |post| (post.id.as_str(), post.update_at));
    let first = list.order.first().map_or("0", Id::as_str);
    let mut parts: Vec<&dyn std::fmt::Display> = vec![&first, &id, &at];
    parts.extend(more);
    Ok(Reply::json(list)?.etag(&parts))
}

pub(crate) fn create(call: &Call) -> AppResult<Reply> {
    let new: NewPost = call.json("post")?;
    let set_online = call.query.get("set_online").is_none_or(|_| call.query.flag("set_online"));
    let post = call.core().create_post(call.session()?, &new, set_online)?;
    call.core().touch_session(call.session()?)?;
    integrations::tell_hooks(call, &post)?;
    Reply::created(&post)
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    show(&call.core().post(call.session()?, call.id("post_id")?, include_deleted(call)?)?)
}

/// Deleted posts are for system administrators.
fn include_deleted(call: &Call) -> AppResult<bool> {
    let asked = call.query.flag("include_deleted");
    if asked && !call.session()?.is_system_admin() {
        return Err(AppError::permissions("http", "read_deleted_posts"));
    }
    Ok(asked)
}

pub(crate) fn by_ids(call: &Call) -> AppResult<Reply> {
    let ids = call.ids("post_ids")?;
    if ids.len() > BY_IDS_MAX {
        let message = "The number of Post IDs received has exceeded the maximum size of 1000";
        return Err(AppError::bad("getPostsByIds", "api.post.posts_by_ids.invalid_body.request_error", message));
    }
    Reply::json(&call.core().posts_by_ids(call.session()?, &ids)?)
}

pub(crate) fn patch(call: &Call) -> AppResult<Reply> {
    let patch: PostPatch = call.json("post")?;
    Reply::json(&call.core().patch_post(call.session()?, call.id("post_id")?, &patch)?)
}

/// `PUT /posts/{id}`: the whole post; what a client may not set is ignored.
pub(crate) fn update(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Whole {
        id: Id,
        #[serde(flatten)]
        patch: PostPatch,
    }
    let whole: Whole = call.json("post")?;
    let id = call.id("post_id")?;
    if whole.id != id {
        return Err(AppError::body_param("updatePost", "id"));
    }
    Reply::json(&call.core().patch_post(call.session()?, id, &whole.patch)?)
}

pub(crate) fn delete(call: &Call) -> AppResult<Reply> {
    let id = call.id("post_id")?;
    if call.query.flag("permanent") {
        let message = "Permanent post deletion feature is not enabled.";
        return Err(AppError::new("deletePost", "api.post.delete_post.not_enabled.app_error", message, 501));
    }
    call.core().delete_post(call.session()?, id)?;
    Reply::ok()
}

/// How a list is to be shown.
fn view(call: &Call) -> AppResult<PostView> {
    Ok(PostView {
        collapsed_threads: call.query.flag("collapsedThreads"),
        extended: call.query.flag("collapsedThreadsExtended"),
        skip_fetch_threads: call.query.flag("skipFetchThreads"),
        include_deleted: include_deleted(call)?,
    })
}

/// `GET /posts/{id}/thread`: the whole thread, or the part of it that a client still lacks.
///
/// Parts: `fromCreateAt` with `direction` and `perPage` pages through the replies, `fromUpdateAt` with
/// `updatesOnly` asks for changes. The post that was asked for is always among `posts`.
pub(crate) fn thread(call: &Call) -> AppResult<Reply> {
    let id = call.id("post_id")?;
    let bad = |name: &str| AppError::body_param("getPostThread", name);
    let number = |name: &'static str| match call.query.get(name) {
        Some(text) => text.parse::<i64>().map_err(|_| bad(name)),
        None => Ok(0),
    };
    let part = ThreadPart {
        view: PostView { include_deleted: false, ..view(call)? },
        down: match call.query.get("direction") {
            None => None,
            Some("down") => Some(true),
            Some("up") => Some(false),
            Some(_) => return Err(bad("direction")),
        },
        per_page: u32::try_from(number("perPage")?).map_err(|_| bad("perPage"))?,
        from_create_at: number("fromCreateAt")?,
        from_update_at: number("fromUpdateAt")?,
        from_post: call.query.get("fromPost").map(|id| id.parse().map_err(|_| bad("fromPost"))).transpose()?,
        updates_only: call.query.get("updatesOnly") == Some("true"),
    };
    if part.per_page > super::PER_PAGE_MAX {
        return Err(bad("perPage"));
    }
    if part.from_post.is_some() && part.from_create_at == 0 {
        return Err(bad("if fromPost is set, then fromCreateAt must also be set"));
    }
    if (part.from_update_at != 0 && part.from_create_at != 0) || (part.updates_only && part.from_update_at == 0) {
        return Err(bad("fromUpdateAt"));
    }
    if part.updates_only && part.down == Some(false) {
        return Err(bad("updatesOnly"));
    }
    let list = call.core().thread(call.session()?, id, &part)?;
    if part.view.collapsed_threads {
        // Who follows the thread is no change of its posts.
        let followed = list.posts.get(&id).and_then(|post| post.is_following);
        return show_list_with(&list, &[&format!("{followed:?}")]);
    }
    show_list(&list)
}

/// `GET /channels/{id}/posts` by page, around a post, or since a moment.
pub(crate) fn of_channel(call: &Call) -> AppResult<Reply> {
    let channel = call.id("channel_id")?;
    let post = |name: &str| match call.query.get(name) {
        Some(id) => id.parse().map(Some).map_err(|_| AppError::body_param("getPostsForChannel", name)),
        None => Ok(None),
    };
    let (after, before): (Option<Id>, Option<Id>) = (post("after")?, post("before")?);
    let since = match call.query.get("since") {
        Some(text) => text.parse().map_err(|_| AppError::body_param("getPostsForChannel", "since"))?,
        None => 0,
    };
    let (page, per_page) = (call.page(), call.per_page());
    let query = match (since, after, before) {
        (1.., _, _) => PostQuery::Since { at: UnixMillis(since), before },
        (_, Some(post), _) => PostQuery::After { post, page, per_page },
        (_, None, Some(post)) => PostQuery::Before { post, page, per_page },
        (_, None, None) => PostQuery::Page { page, per_page },
    };
    let view = view(call)?;
    // Read first: a post that comes in between makes the tag too old, which costs a second look, not a lost post.
    let changed_at = call.core().channel_changed_at(channel)?;
    let threads_at = match view.collapsed_threads {
        true => call.core().threads_changed_at(call.me()?, channel)?,
        false => 0,
    };
    let list = call.core().channel_posts(call.session()?, channel, &query, &view)?;
    let reply = Reply::json(&list)?;
    match query {
        PostQuery::Since { .. } => Ok(reply),
        PostQuery::Page { .. } | PostQuery::Before { .. } | PostQuery::After { .. } => {
            Ok(reply.etag(&[&changed_at, &threads_at]))
        }
    }
}

pub(crate) fn around_unread(call: &Call) -> AppResult<Reply> {
    let limits = (call.limit("limit_before"), call.limit("limit_after"));
    if limits.1 == 0 {
        return Err(AppError::url_param("getPostsForChannelAroundLastUnread", "limit_after"));
    }
    let (user, channel) = (call.own_user()?, call.id("channel_id")?);
    let view = PostView { include_deleted: false, ..view(call)? };
    Reply::json(&call.core().posts_around_unread(call.session()?, user, channel, limits, &view)?)
}

pub(crate) fn pin(call: &Call) -> AppResult<Reply> {
    call.core().pin_post(call.session()?, call.id("post_id")?, true)?;
    Reply::ok()
}

pub(crate) fn unpin(call: &Call) -> AppResult<Reply> {
    call.core().pin_post(call.session()?, call.id("post_id")?, false)?;
    Reply::ok()
}

pub(crate) fn pinned(call: &Call) -> AppResult<Reply> {
    show_list(&call.core().pinned_posts(call.session()?, call.id("channel_id")?)?)
}

/// Flags are preferences of the category `flagged_post`.
pub(crate) fn flagged(call: &Call) -> AppResult<Reply> {
    let of = (call.query_id("channel_id")?, call.query_id("team_id")?);
    Reply::json(&call.core().flagged_posts(call.session()?, call.own_user()?, of, call.page(), call.per_page())?)
}

/// A message for one user that nobody keeps.
pub(crate) fn create_ephemeral(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        user_id: String,
        post: Option<NewPost>,
    }
    let body: Body = call.json("body")?;
    let user = body.user_id.parse().map_err(|_| AppError::body_param("createEphemeralPost", "user_id"))?;
    let post = body.post.ok_or_else(|| AppError::body_param("createEphemeralPost", "post"))?;
    Reply::created(&call.core().ephemeral_post(call.session()?, user, &post)?)
}

pub(crate) fn info(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().post_info(call.session()?, call.id("post_id")?)?)
}

pub(crate) fn restore(call: &Call) -> AppResult<Reply> {
    let (post, version) = (call.id("post_id")?, call.id("restore_version_id")?);
    Reply::json(&call.core().restore_post(call.session()?, post, version)?)
}

/// `target_time` is in seconds.
pub(crate) fn remind(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        target_time: i64,
    }
    let body: Body = call.json("target_time")?;
    call.core().remind(call.session()?, call.own_user()?, call.id("post_id")?, body.target_time)?;
    Reply::ok()
}

pub(crate) fn acknowledge(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().acknowledge(call.session()?, call.own_user()?, call.id("post_id")?)?)
}

pub(crate) fn withdraw_acknowledgement(call: &Call) -> AppResult<Reply> {
    call.core().withdraw_acknowledgement(call.session()?, call.own_user()?, call.id("post_id")?)?;
    Reply::ok()
}

pub(crate) fn edit_history(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().edit_history(call.session()?, call.id("post_id")?)?)
}

pub(crate) fn files(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().files_of_post(call.session()?, call.id("post_id")?)?)
}

pub(crate) fn set_unread(call: &Call) -> AppResult<Reply> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        collapsed_threads_supported: bool,
    }
    // Clients of before collapsed threads send no body.
    let body: Body = serde_json::from_slice(&call.body).unwrap_or_default();
    let (user, post) = (call.own_user()?, call.id("post_id")?);
    Reply::json(&call.core().set_post_unread(call.session()?, user, post, body.collapsed_threads_supported)?)
}

pub(crate) fn react(call: &Call) -> AppResult<Reply> {
    #[derive(Deserialize)]
    struct Body {
        user_id: Id,
        post_id: Id,
        emoji_name: String,
    }
    let new: Body = call.json("reaction")?;
    if new.emoji_name.is_empty() || new.emoji_name.len() > EMOJI_NAME_MAX {
        let message = "Reaction is not valid.";
        return Err(AppError::bad("saveReaction", "api.reaction.save_reaction.invalid.app_error", message));
    }
    if new.user_id != call.me()? {
        let message = "You cannot save reaction for the other user.";
        return Err(AppError::new("saveReaction", "api.reaction.save_reaction.user_id.app_error", message, 403));
    }
    Reply::json(&call.core().save_reaction(call.session()?, new.user_id, new.post_id, &new.emoji_name)?)
}

pub(crate) fn unreact(call: &Call) -> AppResult<Reply> {
    let (user, post) = (call.own_user()?, call.id("post_id")?);
    call.core().delete_reaction(call.session()?, user, post, call.text("emoji_name"))?;
    Reply::ok()
}

/// `null` for none, as in the original.
pub(crate) fn reactions(call: &Call) -> AppResult<Reply> {
    let reactions = call.core().reactions(call.session()?, call.id("post_id")?)?;
    Reply::json(&Some(reactions).filter(|reactions| !reactions.is_empty()))
}

pub(crate) fn reactions_of_posts(call: &Call) -> AppResult<Reply> {
    Reply::json(&call.core().reactions_of_posts(call.session()?, &call.ids("post_ids")?)?)
}
