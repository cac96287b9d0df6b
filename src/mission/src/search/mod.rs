//! Searching posts and files.
//!
//! ```text
//!  terms --query--> what is asked --names, memberships--> one FTS5 expression --index--> ids, newest first --> posts
//! ```
//!
//! Invariants
//! - What is found lies in channels of which the searcher is a member, whatever the query says.
//! - A search reads lists of the index and the rows of one page; it never walks the posts.
//!
//! Start reading at [`Core::search_posts`]; the words are in `words`, the tables in `index`.

pub(crate) mod index;
mod query;
pub(crate) mod words;

use std::collections::BTreeMap;

use model::Id;
use rusqlite::{Connection, params};

use self::index::Wanted;
use self::query::Query;
use crate::access::require_in_team;
use crate::channels::direct_name;
use crate::core::Core;
use crate::error::AppResult;
use crate::posts::files_of;
use crate::reading::to_list;
use crate::rows::{all, first_id, get, id_array, post_row};
use crate::types::{FileInfo, PostList, Session};

/// How deep one may page. Who looks further narrows the search.
const DEPTH_MAX: i64 = 10_000;

/// A search as clients send it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// What is looked for, in Mattermost's grammar.
    pub(crate) terms: String,
    /// Posts with any of the terms instead of all of them.
    pub(crate) any_term: bool,
    /// Seconds east of Greenwich, for dates.
    pub(crate) time_zone_offset_s: i64,
    /// From 0.
    pub(crate) page: u32,
    pub(crate) per_page: u32,
    /// Archived channels too.
    pub(crate) include_deleted_channels: bool,
}

/// Files that a search found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct FileInfoList {
    pub(crate) order: Vec<Id>,
    pub(crate) file_infos: BTreeMap<Id, FileInfo>,
    pub(crate) next_file_info_id: &'static str,
    pub(crate) prev_file_info_id: &'static str,
    pub(crate) first_inaccessible_file_time: i64,
}

impl Core {
    /// Posts that match, the newest first, in the searcher's channels of a team or of all teams.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub(crate) fn search_posts(&self, by: &Session, team: Option<Id>, search: &Search) -> AppResult<PostList> {
        self.read(|db| {
            if let Some(team) = team {
                require_in_team("searchPosts", db, by, team, "view_team")?;
            }
            let query = query::parse(&search.terms, search.time_zone_offset_s);
            let Some(expression) = expression(db, by.user_id, team, search, &query, Of::Posts)? else {
                return Ok(PostList::default());
            };
            let Some(wanted) = wanted(search, &query, &expression) else { return Ok(PostList::default()) };
            let ids = index::posts(db, &wanted)?;
            let sql = "SELECT * FROM posts WHERE id IN (SELECT value FROM json_each(?1)) AND delete_at = 0";
            let mut rows = all(db, sql, [id_array(&ids)], post_row)?;
            rows.sort_by_key(|row| ids.iter().position(|id| *id == row.id));
            to_list(&self.0, db, rows)
        })
    }

    /// Files that match by name, the newest first, in the searcher's channels of a team or of all teams.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub(crate) fn search_files(&self, by: &Session, team: Option<Id>, search: &Search) -> AppResult<FileInfoList> {
        self.read(|db| {
            if let Some(team) = team {
                require_in_team("searchFiles", db, by, team, "view_team")?;
            }
            let query = query::parse(&search.terms, search.time_zone_offset_s);
            let Some(expression) = expression(db, by.user_id, team, search, &query, Of::Files)? else {
                return Ok(FileInfoList::default());
            };
            let Some(wanted) = wanted(search, &query, &expression) else { return Ok(FileInfoList::default()) };
            let order = index::files(db, &wanted)?;
            let file_infos = files_of(db, &order)?.into_iter().map(|info| (info.id, info)).collect();
            Ok(FileInfoList { order, file_infos, ..FileInfoList::default() })
        })
    }
}

fn wanted<'a>(search: &Search, query: &Query, expression: &'a str) -> Option<Wanted<'a>> {
    let limit = i64::from(search.per_page);
    let offset = i64::from(search.page) * limit;
    (offset < DEPTH_MAX && limit > 0).then_some(Wanted {
        expression,
        span: query.span,
        without_span: query.without_span,
        limit: limit.min(DEPTH_MAX - offset),
        offset,
    })
}

/// What a search is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Posts,
    Files,
}

/// The query in the language of FTS5; `None` when it can match nothing.
fn expression(
    db: &Connection,
    user: Id,
    team: Option<Id>,
    search: &Search,
    query: &Query,
    of: Of,
) -> AppResult<Option<String>> {
    if query.is_empty() || query.terms == ["*"] {
        return Ok(None);
    }
    let channels = channels(db, user, team, search.include_deleted_channels, query)?;
    if channels.is_empty() {
        return Ok(None);
    }
    let places = marks('c', channels.iter().map(Id::as_str));
    let (terms, tags) = match of {
        Of::Posts => {
            let terms = side("words", &query.terms, &query.without_terms, search.any_term, &places, phrase);
            let tags = side("tags", &query.tags, &query.without_tags, search.any_term, &places, tag);
            (terms, tags)
        }
        // A file has a name and no hashtags.
        Of::Files => {
            let join = |a: &[String], b: &[String]| [a, b].concat();
            let terms = join(&query.terms, &query.tags);
            let without = join(&query.without_terms, &query.without_tags);
            (side("words", &terms, &without, search.any_term, &places, phrase), Side::Unasked)
        }
    };
    // As in the original, plain terms and hashtags each find posts of their own.
    let mut whole = match (terms, tags) {
        (Side::Unasked, Side::Unasked) => places,
        (Side::Nothing, Side::Nothing | Side::Unasked) | (Side::Unasked, Side::Nothing) => return Ok(None),
        (Side::Some(one), Side::Nothing | Side::Unasked) | (Side::Nothing | Side::Unasked, Side::Some(one)) => {
            format!("({one}) AND {places}")
        }
        (Side::Some(one), Side::Some(other)) => format!("(({one}) OR ({other})) AND {places}"),
    };
    if !query.users.is_empty() {
        let users = users(db, &query.users)?;
        if users.is_empty() {
            return Ok(None);
        }
        whole = format!("({whole}) AND {}", marks('u', users.iter().map(Id::as_str)));
    }
    let without = users(db, &query.without_users)?;
    if !without.is_empty() {
        whole = format!("({whole}) NOT {}", marks('u', without.iter().map(Id::as_str)));
    }
    if of == Of::Files {
        let extension = |list: &[String]| marks('e', list.iter().map(|e| e.trim_start_matches('.')));
        if !query.extensions.is_empty() {
            whole = format!("({whole}) AND {}", extension(&query.extensions));
        }
        if !query.without_extensions.is_empty() {
            whole = format!("({whole}) NOT {}", extension(&query.without_extensions));
        }
    }
    Ok(Some(whole))
}

/// One column's part of a query.
enum Side {
    /// It does not ask this column.
    Unasked,
    /// It asks for something that is never indexed.
    Nothing,
    Some(String),
}

fn side(
    column: &str,
    terms: &[String],
    without: &[String],
    any: bool,
    places: &str,
    render: fn(&str) -> Option<String>,
) -> Side {
    if terms.is_empty() && without.is_empty() {
        return Side::Unasked;
    }
    let wanted: Vec<String> = terms.iter().filter_map(|term| render(term)).collect();
    let unwanted: Vec<String> = without.iter().filter_map(|term| render(term)).collect();
    let found = match (terms.is_empty(), wanted.is_empty()) {
        // Everything that is readable, less what is not wanted.
        (true, _) => places.to_owned(),
        (false, true) => return Side::Nothing,
        (false, false) => format!("{column}:({})", wanted.join(if any { " OR " } else { " AND " })),
    };
    match unwanted.is_empty() {
        true => Side::Some(found),
        false => Side::Some(format!("({found}) NOT {column}:({})", unwanted.join(" OR "))),
    }
}

/// A term as a phrase of indexed words. Words hold letters and digits only, so nothing needs escaping.
fn phrase(term: &str) -> Option<String> {
    let (words, prefix) = words::query_words(term, term.ends_with('*'));
    (!words.is_empty()).then(|| format!("\"{}\"{}", words.join(" "), if prefix { " *" } else { "" }))
}

fn tag(tag: &str) -> Option<String> {
    Some(format!("\"{}\"", words::tag(tag)))
}

fn marks<'a>(kind: char, values: impl Iterator<Item = &'a str>) -> String {
    let each: Vec<String> = values.map(|value| format!("\"{}\"", words::tag(&format!("{kind}{value}")))).collect();
    format!("marks:({})", each.join(" OR "))
}

/// The searcher's channels that the query is about.
fn channels(
    db: &Connection,
    user: Id,
    team: Option<Id>,
    include_deleted: bool,
    query: &Query,
) -> rusqlite::Result<Vec<Id>> {
    let sql = "SELECT id, name FROM channels WHERE (?2 = '' OR team_id = ?2 OR team_id = '') AND (?3 OR delete_at = 0)
        AND id IN (SELECT channel_id FROM channel_members WHERE user_id = ?1 AND delete_at = 0) ORDER BY id";
    let values = params![user.as_str(), crate::rows::text(&team), include_deleted];
    let mine: Vec<(Id, String)> = all(db, sql, values, |r| Ok((first_id(r)?, r.get(1)?)))?;
    let mut names = query.channels.iter().chain(&query.without_channels).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    let mut channel_names: BTreeMap<&str, String> = BTreeMap::new();
    for name in names {
        channel_names.insert(name, channel_name(db, user, name)?);
    }
    let is_named = |list: &[String], channel: &(Id, String)| {
        list.iter().any(|name| channel_names[name.as_str()] == channel.1 || name == channel.0.as_str())
    };
    let asked = |c: &(Id, String)| query.channels.is_empty() || is_named(&query.channels, c);
    Ok(mine.into_iter().filter(|c| asked(c) && !is_named(&query.without_channels, c)).map(|(id, _)| id).collect())
}

/// The name of a channel in `in:`; `@user` is the direct channel with them, `@one,two` a group.
fn channel_name(db: &Connection, user: Id, name: &str) -> rusqlite::Result<String> {
    let name = name.trim_start_matches('~');
    let Some(people) = name.strip_prefix('@') else { return Ok(name.to_owned()) };
    let names: Vec<String> = people.split(',').map(|n| n.trim_start_matches('@').to_owned()).collect();
    let mut ids = users(db, &names)?;
    if let ([other], [_]) = (ids.as_slice(), names.as_slice()) {
        return Ok(direct_name(user, *other));
    }
    if !ids.contains(&user) {
        ids.push(user);
    }
    Ok(crate::channels::group_name(&ids))
}

fn users(db: &Connection, names: &[String]) -> rusqlite::Result<Vec<Id>> {
    let mut ids = Vec::new();
    for name in names {
        let sql = "SELECT id FROM users WHERE username = ?1";
        ids.extend(get(db, sql, [name.trim_start_matches('@')], first_id)?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
