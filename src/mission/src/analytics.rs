//! Numbers for administrators: how much there is, and how much happened on which day.

use model::Id;
use rusqlite::params;

use crate::access::require;
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::rows::{all, count};
use crate::types::{AnalyticsRow, Session};

const DAY_MS: i64 = 86_400_000;
/// Days of a series (the original's number).
const DAYS: i64 = 31;

impl Core {
    /// The rows under a name: "standard", "extra_counts", "post_counts_day", "bot_post_counts_day" or
    /// "user_counts_with_posts_day"; of one team, or of all. `sockets` is the number of open WebSockets.
    ///
    /// # Errors
    /// 403 without `get_analytics`, 400 for another name.
    pub fn analytics(
        &self,
        by: &Session,
        name: &str,
        team: Option<Id>,
        sockets: usize,
    ) -> AppResult<Vec<AnalyticsRow>> {
        require("getAnalytics", by, "get_analytics")?;
        match name {
            "standard" => self.standard_analytics(team, sockets),
            "extra_counts" => self.extra_counts(team),
            "post_counts_day" => self.posts_by_day(team, "count(*)", ""),
            "bot_post_counts_day" => self.posts_by_day(team, "count(*)", "AND u.is_bot = 1"),
            "user_counts_with_posts_day" => self.posts_by_day(team, "count(DISTINCT p.user_id)", "AND u.is_bot = 0"),
            _ => Err(AppError::body_param("getAnalytics", "name")),
        }
    }

    fn standard_analytics(&self, team: Option<Id>, sockets: usize) -> AppResult<Vec<AnalyticsRow>> {
        let team = team.map(|t| t.to_string()).unwrap_or_default();
        let now = self.0.clock.now().0;
        self.read(|db| {
            let channels =
                "SELECT count(*) FROM channels WHERE type = ?1 AND delete_at = 0 AND (?2 = '' OR team_id = ?2)";
            let posts = "SELECT count(*) FROM posts p WHERE p.original_id = '' AND p.delete_at = 0
                AND (?1 = '' OR p.channel_id IN (SELECT id FROM channels WHERE team_id = ?1))";
            let users = "SELECT count(*) FROM users WHERE is_bot = 0 AND delete_at = 0
                AND (?1 = '' OR id IN (SELECT user_id FROM team_members WHERE team_id = ?1 AND delete_at = 0))";
            let active = "SELECT count(*) FROM users WHERE is_bot = 0 AND last_activity_at > ?1";
            Ok([
                ("channel_open_count", count(db, channels, ["O", &team])?),
                ("channel_private_count", count(db, channels, ["P", &team])?),
                ("post_count", count(db, posts, [&team])?),
                ("unique_user_count", count(db, users, [&team])?),
                ("team_count", count(db, "SELECT count(*) FROM teams WHERE delete_at = 0", [])?),
                ("total_websocket_connections", i64::try_from(sockets).unwrap_or(i64::MAX)),
                // One connection writes.
                ("total_master_db_connections", 1),
                ("total_read_db_connections", self.idle_readers()),
                ("daily_active_users", count(db, active, [now - DAY_MS])?),
                ("monthly_active_users", count(db, active, [now - DAYS * DAY_MS])?),
                (
                    "inactive_user_count",
                    count(db, "SELECT count(*) FROM users WHERE is_bot = 0 AND delete_at > 0", [])?,
                ),
                ("single_channel_guest_count", 0),
            ]
            .map(|(name, value)| AnalyticsRow { name: name.to_owned(), value })
            .into())
        })
    }

    fn extra_counts(&self, team: Option<Id>) -> AppResult<Vec<AnalyticsRow>> {
        let team = team.map(|t| t.to_string()).unwrap_or_default();
        self.read(|db| {
            let files = "FROM files WHERE delete_at = 0
                AND (?1 = '' OR channel_id IN (SELECT id FROM channels WHERE team_id = ?1))";
            Ok([
                ("session_count", count(db, "SELECT count(*) FROM sessions", [])?),
                ("total_file_count", count(db, &format!("SELECT count(*) {files}"), [&team])?),
                ("total_file_size", count(db, &format!("SELECT coalesce(sum(size), 0) {files}"), [&team])?),
            ]
            .map(|(name, value)| AnalyticsRow { name: name.to_owned(), value })
            .into())
        })
    }

    /// Newest day first, as the original has it; days without posts are left out.
    fn posts_by_day(&self, team: Option<Id>, what: &str, only: &str) -> AppResult<Vec<AnalyticsRow>> {
        let since = (self.0.clock.now().0 / DAY_MS - DAYS) * DAY_MS;
        let team = team.map(|t| t.to_string()).unwrap_or_default();
        let sql = format!(
            "SELECT date(p.create_at / 1000, 'unixepoch') AS day, {what} FROM posts p JOIN users u ON u.id = p.user_id
             WHERE p.create_at >= ?1 AND p.original_id = '' AND (?2 = '' OR p.channel_id IN
                (SELECT id FROM channels WHERE team_id = ?2)) {only} GROUP BY day ORDER BY day DESC LIMIT {DAYS}"
        );
        let row = |r: &rusqlite::Row<'_>| Ok(AnalyticsRow { name: r.get(0)?, value: r.get(1)? });
        self.read(|db| Ok(all(db, &sql, params![since, team], row)?))
    }

    /// How many posts there are, rounded down to its first digit: everybody may know the size of a site, roughly.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rough_post_count(&self) -> AppResult<i64> {
        let sql = "SELECT count(*) FROM posts WHERE original_id = '' AND delete_at = 0 AND type = ''";
        self.read(|db| Ok(rounded(count(db, sql, [])?)))
    }

    /// Bytes of all files, rounded as [`Core::rough_post_count`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn rough_storage(&self) -> AppResult<i64> {
        self.read(|db| Ok(rounded(count(db, "SELECT coalesce(sum(size), 0) FROM files WHERE delete_at = 0", [])?)))
    }

    /// Teams that are not archived.
    ///
    /// # Errors
    /// When the store fails.
    pub fn team_count(&self) -> AppResult<i64> {
        self.read(|db| Ok(count(db, "SELECT count(*) FROM teams WHERE delete_at = 0", [])?))
    }
}

fn rounded(n: i64) -> i64 {
    let zeroes = n.max(1).ilog10();
    n - n % 10_i64.pow(zeroes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_digit_is_told() {
        assert_eq!([0, 7, 10, 1_999, 2_000_123].map(rounded), [0, 7, 10, 1_000, 2_000_000]);
    }
}
