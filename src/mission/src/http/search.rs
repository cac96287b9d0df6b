//! Search in posts and files.

use http::header;
use model::Id;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::reply::Reply;
use super::{PER_PAGE_DEFAULT, PER_PAGE_MAX};
use crate::error::{AppError, AppResult};
use crate::search::Search;
use crate::types::PostList;

/// The body of a search; every field may be missing or null.
#[derive(Deserialize)]
struct Body {
    terms: Option<String>,
    is_or_search: Option<bool>,
    time_zone_offset: Option<i64>,
    page: Option<i64>,
    per_page: Option<i64>,
    include_deleted_channels: Option<bool>,
}

/// A page of posts. The original's database search names no matches, so clients mark the terms themselves.
#[derive(Serialize)]
struct PostsFound {
    #[serde(flatten)]
    list: PostList,
    matches: Option<()>,
}

pub(crate) fn posts(call: &Call) -> AppResult<Reply> {
    let search = read(call, "searchPosts", "api.post.search_posts.invalid_body.app_error")?;
    let list = call.core().search_posts(call.session()?, team(call)?, &search)?;
    Ok(fresh(Reply::json(&PostsFound { list, matches: None })?))
}

pub(crate) fn files(call: &Call) -> AppResult<Reply> {
    let search = read(call, "searchFiles", "api.post.search_files.invalid_body.app_error")?;
    Ok(fresh(Reply::json(&call.core().search_files(call.session()?, team(call)?, &search)?)?))
}

fn fresh(reply: Reply) -> Reply {
    reply.with(header::CACHE_CONTROL, "no-cache, no-store, must-revalidate")
}

/// The team in the path, if the path has one.
fn team(call: &Call) -> AppResult<Option<Id>> {
    match call.text("team_id") {
        "" => Ok(None),
        _ => call.id("team_id").map(Some),
    }
}

fn read(call: &Call, where_: &'static str, id: &'static str) -> AppResult<Search> {
    let body: Body = serde_json::from_slice(&call.body)
        .map_err(|e| AppError::bad(where_, id, "The search could not be read.").detail(e))?;
    let terms = body.terms.filter(|terms| !terms.is_empty()).ok_or_else(|| AppError::body_param(where_, "terms"))?;
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    Ok(Search {
        terms,
        any_term: body.is_or_search.unwrap_or(false),
        time_zone_offset_s: body.time_zone_offset.unwrap_or(0),
        page: number(body.page).unwrap_or(0),
        per_page: number(body.per_page).filter(|n| *n > 0).unwrap_or(PER_PAGE_DEFAULT).min(PER_PAGE_MAX),
        include_deleted_channels: body.include_deleted_channels.unwrap_or(false),
    })
}
