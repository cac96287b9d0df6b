//! Threads that a user follows.

use model::Id;

use super::call::Call;
use super::reply::Reply;
use crate::error::{AppError, AppResult};
use crate::types::ThreadQuery;

pub(crate) fn list(call: &Call) -> AppResult<Reply> {
    let post = |name: &str| -> AppResult<Option<Id>> {
        let bad = |_| AppError::body_param("getThreadsForUser", name);
        call.query.get(name).map(|id| id.parse().map_err(bad)).transpose()
    };
    let since = match call.query.get("since") {
        Some(text) => text.parse::<u64>().map_err(|_| AppError::body_param("getThreadsForUser", "since"))?,
        None => 0,
    };
    let query = ThreadQuery {
        since: i64::try_from(since).unwrap_or(i64::MAX),
        before: post("before")?,
        after: post("after")?,
        per_page: call.per_page(),
        extended: call.query.flag("extended"),
        deleted: call.query.flag("deleted"),
        unread: call.query.flag("unread"),
        totals_only: call.query.flag("totalsOnly"),
        threads_only: call.query.flag("threadsOnly"),
        exclude_direct: call.query.flag("excludeDirect"),
    };
    let (user, team) = (call.own_user()?, call.id("team_id")?);
    Reply::json(&call.core().threads(call.session()?, user, team, &query)?)
}

pub(crate) fn get(call: &Call) -> AppResult<Reply> {
    call.id("team_id")?;
    let (user, thread) = (call.own_user()?, call.id("thread_id")?);
    Reply::json(&call.core().followed_thread(call.session()?, user, thread, call.query.flag("extended"))?)
}

pub(crate) fn read_all(call: &Call) -> AppResult<Reply> {
    call.core().read_all_threads(call.session()?, call.own_user()?, call.id("team_id")?)?;
    Reply::ok()
}

pub(crate) fn read(call: &Call) -> AppResult<Reply> {
    let at = call.text("timestamp").parse::<i64>().ok().filter(|at| *at > 0);
    let at = at.ok_or_else(|| AppError::url_param("updateReadStateThreadByUser", "timestamp"))?;
    let (user, team, thread) = (call.own_user()?, call.id("team_id")?, call.id("thread_id")?);
    Reply::json(&call.core().read_thread(call.session()?, user, team, thread, at)?)
}

pub(crate) fn set_unread(call: &Call) -> AppResult<Reply> {
    let (user, team, thread) = (call.own_user()?, call.id("team_id")?, call.id("thread_id")?);
    Reply::json(&call.core().unread_thread(call.session()?, user, team, thread, call.id("post_id")?)?)
}

pub(crate) fn follow(call: &Call) -> AppResult<Reply> {
    set_following(call, true)
}

pub(crate) fn unfollow(call: &Call) -> AppResult<Reply> {
    set_following(call, false)
}

fn set_following(call: &Call, following: bool) -> AppResult<Reply> {
    let (user, team, thread) = (call.own_user()?, call.id("team_id")?, call.id("thread_id")?);
    call.core().follow_thread(call.session()?, user, team, thread, following)?;
    Reply::ok()
}
