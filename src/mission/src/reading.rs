//! Lists of posts: a channel's by page, around a post, around what is unread and by change; threads; pinned and saved.

use std::collections::BTreeSet;

use model::Id;
use rusqlite::{Connection, ToSql, params};

use crate::access::{require, require_read, require_self};
use crate::channels::{member, require_channel};
use crate::core::{Core, Inner};
use crate::error::{AppError, AppResult};
use crate::posts::{post_row_by_id, render, require_post};
use crate::rows::{PostRow, all, count, first_id, get, id_array, post_row, text};
use crate::threads::add_threads;
use crate::types::{PostList, PostQuery, PostView, Session, ThreadPart};
use crate::users::page;

/// Most posts in an answer to `since=`, the real server's number.
const SINCE_MAX: usize = 1_000;

/// Most posts that an answer carries of threads besides those it lists; the newest.
const OF_THREADS_MAX: i64 = 1_000;

/// What a list brings along of the threads that it touches.
#[derive(Clone, Copy)]
enum Along {
    /// Roots of listed replies.
    Roots,
    /// Every post of the threads of listed replies.
    ThreadsOfReplies,
    /// Every post of the threads of listed posts.
    Threads,
}

/// The list, with the roots of listed replies.
pub(crate) fn to_list(core: &Inner, db: &Connection, rows: Vec<PostRow>) -> AppResult<PostList> {
    let nobody = Id::from_block([0; 16]);
    listed(core, db, rows, Along::Roots, nobody, &PostView::default())
}

/// The list, with what it brings along. `reader` is who sees it.
fn listed(
    core: &Inner,
    db: &Connection,
    rows: Vec<PostRow>,
    along: Along,
    reader: Id,
    view: &PostView,
) -> AppResult<PostList> {
    let order: Vec<Id> = rows.iter().map(|r| r.id).collect();
    let mut every = rows;
    if view.collapsed_threads {
        let mut posts = render(core, db, every)?;
        add_threads(db, &mut posts, reader, view.extended)?;
        return Ok(PostList { order, posts: posts.into_iter().map(|p| (p.id, p)).collect(), ..PostList::default() });
    }
    let here: BTreeSet<Id> = order.iter().copied().collect();
    let along = if view.skip_fetch_threads { Along::Roots } else { along };
    let threads: BTreeSet<Id> = match along {
        Along::Roots | Along::ThreadsOfReplies => every.iter().filter_map(|r| r.root_id).collect(),
        Along::Threads => every.iter().map(|r| r.root_id.unwrap_or(r.id)).collect(),
    };
    let threads: Vec<Id> = threads.into_iter().collect();
    let sql = "SELECT * FROM posts WHERE id IN (SELECT value FROM json_each(?1))";
    every.extend(all(db, sql, [id_array(&threads)], post_row)?.into_iter().filter(|r| !here.contains(&r.id)));
    match along {
        Along::Roots => {}
        Along::ThreadsOfReplies | Along::Threads => {
            let sql = "SELECT * FROM posts WHERE root_id IN (SELECT value FROM json_each(?1)) AND root_id <> ''
                AND original_id = '' AND (?2 OR delete_at = 0) ORDER BY create_at DESC, id DESC LIMIT ?3";
            let replies = all(db, sql, params![id_array(&threads), view.include_deleted, OF_THREADS_MAX], post_row)?;
            every.extend(replies.into_iter().filter(|r| !here.contains(&r.id)));
        }
    }
    let posts = render(core, db, every)?.into_iter().map(|p| (p.id, p)).collect();
    Ok(PostList { order, posts, ..PostList::default() })
}

/// The next newer or older live post of the channel; with collapsed threads the next root.
fn neighbour(db: &Connection, channel: Id, of: Id, newer: bool, view: &PostView) -> rusqlite::Result<Option<Id>> {
    let (op, order) = if newer { (">", "ASC") } else { ("<", "DESC") };
    let sql = format!(
        "SELECT id FROM posts WHERE channel_id = ?1 AND original_id = '' AND delete_at = 0
            AND (NOT ?3 OR root_id = '') AND (create_at, id) {op} (SELECT create_at, id FROM posts WHERE id = ?2)
         ORDER BY create_at {order}, id {order} LIMIT 1"
    );
    get(db, &sql, params![channel.as_str(), of.as_str(), view.collapsed_threads], first_id)
}

fn query_posts(
    core: &Inner,
    db: &Connection,
    channel: Id,
    query: &PostQuery,
    reader: Id,
    view: &PostView,
) -> AppResult<PostList> {
    const LIVE: &str = "SELECT * FROM posts WHERE channel_id = ?1 AND original_id = '' AND (?2 OR delete_at = 0)
        AND (NOT ?3 OR root_id = '')";
    let collapsed = view.collapsed_threads;
    let around = |post: &Id, page_number: u32, per_page: u32, op: &str, order: &str| {
        if per_page == 0 {
            return Ok(Vec::new());
        }
        let (limit, offset) = page(page_number, per_page);
        let sql = format!(
            "{LIVE} AND (create_at, id) {op} (SELECT create_at, id FROM posts WHERE id = ?4)
             ORDER BY create_at {order}, id {order} LIMIT ?5 OFFSET ?6"
        );
        let params = params![channel.as_str(), view.include_deleted, collapsed, post.as_str(), limit, offset];
        all(db, &sql, params, post_row)
    };
    let (rows, along) = match query {
        PostQuery::Since { at, before } => return changes(core, db, channel, at.0, *before, reader, view),
        PostQuery::Page { page: number, per_page } => {
            let (limit, offset) = page(*number, *per_page);
            let sql = format!("{LIVE} ORDER BY create_at DESC, id DESC LIMIT ?4 OFFSET ?5");
            let params = params![channel.as_str(), view.include_deleted, collapsed, limit, offset];
            (all(db, &sql, params, post_row)?, Along::ThreadsOfReplies)
        }
        PostQuery::Before { post, page, per_page } => (around(post, *page, *per_page, "<", "DESC")?, Along::Threads),
        PostQuery::After { post, page, per_page } => {
            let mut rows = around(post, *page, *per_page, ">", "ASC")?;
            rows.reverse();
            (rows, Along::Threads)
        }
    };
    let mut list = listed(core, db, rows, along, reader, view)?;
    list.next_post_id = match (list.order.first(), query) {
        (_, PostQuery::Before { post, page: 0, .. }) => Some(*post),
        (Some(newest), _) => neighbour(db, channel, *newest, true, view)?,
        (None, _) => None,
    };
    list.prev_post_id = match (list.order.last(), query) {
        (_, PostQuery::After { post, page: 0, .. }) => Some(*post),
        (Some(oldest), _) => neighbour(db, channel, *oldest, false, view)?,
        (None, _) => None,
    };
    Ok(list)
}

/// What changed in a channel after a moment: the latest changes, those deleted among them. Where there are more than
/// fit, `has_next` says so and `prev_post_id` names the post to go on before.
fn changes(
    core: &Inner,
    db: &Connection,
    channel: Id,
    after: i64,
    before: Option<Id>,
    reader: Id,
    view: &PostView,
) -> AppResult<PostList> {
    let sql = "SELECT * FROM posts WHERE channel_id = ?1 AND changed_at > ?2 AND original_id = ''
            AND (NOT ?3 OR root_id = '') AND (?4 = '' OR changed_at < (SELECT changed_at FROM posts WHERE id = ?4))
        ORDER BY changed_at DESC LIMIT ?5";
    let limit = SINCE_MAX as i64 + 1;
    let params = params![channel.as_str(), after, view.collapsed_threads, text(&before), limit];
    let mut rows = all(db, sql, params, post_row)?;
    let more = rows.len() > SINCE_MAX;
    rows.truncate(SINCE_MAX);
    let earliest = rows.last().map(|r| r.id).filter(|_| more);
    rows.sort_by_key(|r| std::cmp::Reverse((r.create_at, r.id)));
    let mut list = listed(core, db, rows, Along::Roots, reader, view)?;
    list.has_next = Some(more);
    list.prev_post_id = earliest;
    Ok(list)
}

impl Core {
    /// The thread of a post, or part of it. With collapsed threads the post is its root and comes first.
    ///
    /// # Errors
    /// 404, or 403 when its channel is not the asker's.
    pub fn thread(&self, by: &Session, id: Id, part: &ThreadPart) -> AppResult<PostList> {
        self.read(|db| {
            let row = require_post(db, id)?;
            require_read("getPostThread", db, by, &require_channel(db, row.channel_id)?.channel)?;
            let collapsed = part.view.collapsed_threads;
            let root = if collapsed { row.id } else { row.root_id.unwrap_or(row.id) };
            let mut wanted: Vec<Box<dyn ToSql>> = vec![Box::new(root.to_string()), Box::new(!collapsed)];
            let mut sql = "SELECT * FROM posts WHERE ((?2 AND id = ?1) OR (root_id = ?1 AND root_id <> ''))
                AND original_id = '' AND delete_at = 0"
                .to_owned();
            let down = part.down == Some(true);
            let op = if down { '>' } else { '<' };
            for (column, from) in [("create_at", part.from_create_at), ("update_at", part.from_update_at)] {
                // The other direction by change is not asked for, and the real server ignores it here.
                if from == 0 || (column == "update_at" && collapsed && !down) {
                    continue;
                }
                wanted.push(Box::new(from));
                let n = wanted.len();
                match part.from_post {
                    None => sql.push_str(&format!(" AND {column} {op} ?{n}")),
                    Some(post) => {
                        wanted.push(Box::new(post.to_string()));
                        sql.push_str(&format!(" AND ({column}, id) {op} (?{n}, ?{})", n + 1));
                    }
                }
            }
            let column = if part.updates_only { "update_at" } else { "create_at" };
            let order = if down { "ASC" } else { "DESC" };
            sql.push_str(&format!(" ORDER BY {column} {order}, id {order}"));
            if part.per_page > 0 {
                sql.push_str(&format!(" LIMIT {}", part.per_page + 1));
            }
            let found = || -> rusqlite::Result<Vec<PostRow>> {
                if part.view.skip_fetch_threads && !collapsed {
                    return Ok(Vec::new());
                }
                all(db, &sql, rusqlite::params_from_iter(&wanted), post_row)
            };
            let mut rows = found()?;
            let has_next = part.per_page > 0 && rows.len() > part.per_page as usize;
            if has_next {
                rows.truncate(part.per_page as usize);
            }
            // A part names the post that was asked for first; the whole has its place in the order.
            let whole =
                part.down.is_none() && part.per_page == 0 && part.from_create_at == 0 && part.from_update_at == 0;
            if collapsed || !whole || rows.is_empty() {
                rows.retain(|r| r.id != row.id);
                rows.insert(0, row);
            }
            let view = PostView { collapsed_threads: false, skip_fetch_threads: true, ..part.view };
            let mut list = listed(&self.0, db, rows, Along::Roots, by.user_id, &view)?;
            if collapsed && let Some(post) = list.posts.get_mut(&root) {
                add_threads(db, std::slice::from_mut(post), by.user_id, part.view.extended)?;
            }
            list.has_next = Some(has_next);
            Ok(list)
        })
    }

    /// Posts of a channel by page, around a post, or by change.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's or deleted posts are not for the asker.
    pub fn channel_posts(&self, by: &Session, channel: Id, query: &PostQuery, view: &PostView) -> AppResult<PostList> {
        if view.include_deleted {
            require("getPostsForChannel", by, "read_deleted_posts")?;
        }
        self.read(|db| {
            require_read("getPostsForChannel", db, by, &require_channel(db, channel)?.channel)?;
            query_posts(&self.0, db, channel, query, by.user_id, view)
        })
    }

    /// The posts around where a user stopped reading, so many before and after; the newest page when everything is read.
    ///
    /// # Errors
    /// 403 for others or a channel that is not the asker's, 404 when the user is no member.
    pub fn posts_around_unread(
        &self,
        by: &Session,
        user: Id,
        channel: Id,
        (limit_before, limit_after): (u32, u32),
        view: &PostView,
    ) -> AppResult<PostList> {
        require_self("getPostsForChannelAroundLastUnread", by, user)?;
        self.read(|db| {
            require_read("getPostsForChannel", db, by, &require_channel(db, channel)?.channel)?;
            let member = member(db, channel, user)?
                .ok_or_else(|| AppError::not_found("GetChannelMember", "app.channel.get_member.missing.app_error"))?;
            // By arrival: a late post is unread although it is old.
            let sql = "SELECT id FROM (
                SELECT * FROM (SELECT id, create_at FROM posts WHERE channel_id = ?1 AND original_id = ''
                    AND delete_at = 0 AND (NOT ?3 OR root_id = '') AND create_at > ?2 ORDER BY create_at, id LIMIT 1)
                UNION ALL
                SELECT * FROM (SELECT id, create_at FROM posts WHERE channel_id = ?1 AND original_id = ''
                    AND delete_at = 0 AND (NOT ?3 OR root_id = '') AND arrived_at > 0 AND arrived_at > ?2
                    ORDER BY create_at, id LIMIT 1)
                ) ORDER BY create_at, id LIMIT 1";
            let first = match member.last_viewed_at {
                0 => None,
                seen => get(db, sql, params![channel.as_str(), seen, view.collapsed_threads], first_id)?,
            };
            let posts = |query| query_posts(&self.0, db, channel, &query, user, view);
            let Some(first) = first else {
                return posts(PostQuery::Page { page: 0, per_page: limit_before.max(1) });
            };
            let older = posts(PostQuery::Before { post: first, page: 0, per_page: limit_before })?;
            let newer = posts(PostQuery::After { post: first, page: 0, per_page: limit_after.saturating_sub(1) })?;
            let rows = post_row_by_id(db, first)?.into_iter().collect();
            let middle = listed(&self.0, db, rows, Along::Threads, user, view)?;
            let mut list = PostList {
                next_post_id: if newer.order.is_empty() {
                    neighbour(db, channel, first, true, view)?
                } else {
                    newer.next_post_id
                },
                prev_post_id: if older.order.is_empty() {
                    neighbour(db, channel, first, false, view)?
                } else {
                    older.prev_post_id
                },
                ..PostList::default()
            };
            for part in [newer, middle, older] {
                list.order.extend(part.order);
                list.posts.extend(part.posts);
            }
            Ok(list)
        })
    }

    /// The pinned posts of a channel.
    ///
    /// # Errors
    /// 403 when the channel is not the asker's.
    pub fn pinned_posts(&self, by: &Session, channel: Id) -> AppResult<PostList> {
        self.read(|db| {
            require_read("getPinnedPosts", db, by, &require_channel(db, channel)?.channel)?;
            // The plus keeps SQLite from walking the whole channel in order to find its few pinned posts.
            let sql = "SELECT * FROM posts WHERE channel_id = ?1 AND is_pinned = 1 AND delete_at = 0
                AND +original_id = '' ORDER BY create_at DESC, id DESC";
            let rows = all(db, sql, [channel.as_str()], post_row)?;
            to_list(&self.0, db, rows)
        })
    }

    /// The posts that a user saved for later, in a channel, in a team (with direct channels), or all.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn flagged_posts(
        &self,
        by: &Session,
        user: Id,
        (channel, team): (Option<Id>, Option<Id>),
        page_number: u32,
        per_page: u32,
    ) -> AppResult<PostList> {
        require_self("getFlaggedPostsForUser", by, user)?;
        let (limit, offset) = page(page_number, per_page);
        let team = team.filter(|_| channel.is_none());
        self.read(|db| {
            let sql = "SELECT p.* FROM posts p JOIN channels c ON c.id = p.channel_id
                WHERE p.delete_at = 0 AND p.id IN
                    (SELECT name FROM preferences WHERE user_id = ?1 AND category = 'flagged_post')
                AND p.channel_id IN (SELECT channel_id FROM channel_members WHERE user_id = ?1 AND delete_at = 0)
                AND (?4 = '' OR p.channel_id = ?4) AND (?5 = '' OR c.team_id IN (?5, ''))
                ORDER BY p.create_at DESC, p.id DESC LIMIT ?2 OFFSET ?3";
            let rows = all(db, sql, params![user.as_str(), limit, offset, text(&channel), text(&team)], post_row)?;
            to_list(&self.0, db, rows)
        })
    }

    /// The newest change position of a channel, for ETags.
    ///
    /// # Errors
    /// When the store fails.
    pub fn channel_changed_at(&self, channel: Id) -> AppResult<i64> {
        let sql = "SELECT coalesce(max(changed_at), 0) FROM posts WHERE channel_id = ?1";
        self.read(|db| Ok(count(db, sql, [channel.as_str()])?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Node;
    use model::UnixMillis;

    #[test]
    fn pages_hang_together() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let square = node.team(&alice, "mission").1.id;
        node.advance(10);
        let ids: Vec<Id> = (0..7)
            .map(|n| {
                node.advance(1);
                node.say(&alice, square, None, &format!("{n}")).id
            })
            .collect();
        let page = |query| node.core.channel_posts(&alice, square, &query, &PostView::default()).unwrap();
        let newest = page(PostQuery::Page { page: 0, per_page: 3 });
        assert_eq!(newest.order, [ids[6], ids[5], ids[4]]);
        assert_eq!((newest.next_post_id, newest.prev_post_id), (None, Some(ids[3])));
        let before = page(PostQuery::Before { post: ids[4], page: 0, per_page: 2 });
        assert_eq!(before.order, [ids[3], ids[2]]);
        assert_eq!((before.next_post_id, before.prev_post_id), (Some(ids[4]), Some(ids[1])));
        let after = page(PostQuery::After { post: ids[1], page: 0, per_page: 2 });
        assert_eq!(after.order, [ids[3], ids[2]]);
        assert_eq!((after.next_post_id, after.prev_post_id), (Some(ids[4]), Some(ids[1])));
    }

    #[test]
    fn more_changes_than_fit_are_told_in_blocks_without_gap_or_repetition() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let square = node.team(&alice, "mission").1.id;
        node.advance(10);
        let since = node.core.now();
        node.advance(1);
        let mut ids: BTreeSet<Id> = BTreeSet::new();
        for n in 0..(SINCE_MAX + 5) {
            node.advance(1);
            ids.insert(node.say(&alice, square, None, &format!("{n}")).id);
        }
        let get = |before| {
            let query = PostQuery::Since { at: UnixMillis(since.0), before };
            node.core.channel_posts(&alice, square, &query, &PostView::default()).unwrap()
        };
        let first = get(None);
        assert_eq!((first.order.len(), first.has_next), (SINCE_MAX, Some(true)));
        let rest = get(first.prev_post_id);
        assert_eq!((rest.order.len(), rest.has_next, rest.prev_post_id), (5, Some(false), None));
        let told: Vec<Id> = first.order.iter().chain(&rest.order).copied().collect();
        assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), ids);
        assert_eq!(told.len(), ids.len());
        let times: Vec<i64> = first.order.iter().map(|id| first.posts[id].create_at).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "newest first, as the real server");
    }
}
