//! What capture reads: every replicated change, in commit order, until it is acknowledged.

use std::path::PathBuf;

use model::{Event, Hlc, Id, Kind, Precedence, RawIds, UnixMillis};
use rusqlite::params;
use tokio::sync::watch;

use crate::channels::channel_row_by_id;
use crate::core::{Core, StoreError};
use crate::rows::{all, count, get, run};
use crate::teams::team_row_by_id;

/// One committed change that is not captured yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Position, strictly increasing; the source position of the entry.
    pub at: Hlc,
    /// Wall time of the change.
    pub origin_time: UnixMillis,
    /// The resulting state.
    pub event: Event,
    /// It was imported: what was said elsewhere before waits for what is said today.
    pub is_history: bool,
}

/// How much waits in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxStats {
    /// Rows.
    pub rows: u64,
    /// Wall time of the oldest.
    pub oldest: Option<UnixMillis>,
}

/// Counts for metrics and health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "each is named after what it counts")]
pub struct CoreStats {
    pub users: u64,
    pub teams: u64,
    pub channels: u64,
    pub posts: u64,
    pub reactions: u64,
    pub files: u64,
    pub outbox_rows: u64,
    pub quarantine_rows: u64,
}

/// What release rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPlace {
    /// "O", "P", "D" or "G".
    pub kind: String,
    /// Name of the channel, as in URLs.
    pub name: String,
    /// Name of its team; `None` for direct and group channels.
    pub team: Option<String>,
}

impl Core {
    /// Name of a team, archived or not; `None` when it is not known here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn team_name(&self, team: Id) -> Result<Option<String>, StoreError> {
        self.read(|db| Ok(team_row_by_id(db, team)?.map(|row| row.team.name)))
    }

    /// Where a channel belongs, archived or not; `None` when it is not known here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn channel_place(&self, channel: Id) -> Result<Option<ChannelPlace>, StoreError> {
        self.read(|db| {
            let Some(row) = channel_row_by_id(db, channel)? else { return Ok(None) };
            let channel = row.channel;
            let team = channel.team_id.map(|id| team_row_by_id(db, id)).transpose()?.flatten().map(|row| row.team.name);
            Ok(Some(ChannelPlace { kind: channel.kind, name: channel.name, team }))
        })
    }

    /// Rows after `after` that are not set aside, oldest first, at most `max_rows`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outbox_read(&self, after: Hlc, max_rows: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let limit = i64::try_from(max_rows).unwrap_or(i64::MAX);
        let sql =
            "SELECT at, kind, origin_time, event, history FROM outbox WHERE at > ?1 AND aside = 0 ORDER BY at LIMIT ?2";
        let raw: Vec<RawRow> =
            self.read(|db| all(db, sql, params![after.0 as i64, limit], raw_row).map_err(StoreError::from))?;
        raw.into_iter().map(decode).collect()
    }

    /// Deletes the rows up to and including `up_to` that are not set aside: they are durable in the journal. How many there
    /// were.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn outbox_ack(&self, up_to: Hlc) -> Result<u64, StoreError> {
        self.write(|tx| {
            let removed = run(&tx.db, "DELETE FROM outbox WHERE at <= ?1 AND aside = 0", [up_to.0 as i64])?;
            // Keeps positions rising across restarts when the table is empty.
            run(
                &tx.db,
                "INSERT INTO meta (key, value) VALUES ('outbox_acked', ?1)
                 ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
                [up_to.0 as i64],
            )?;
            Ok::<_, StoreError>(removed as u64)
        })
    }

    /// Sets rows aside, durably, each with the class for which there is no room: what stands behind them can be captured.
    ///
    /// # Errors
    /// When the store cannot be written; none is set aside then.
    pub fn outbox_set_aside(&self, rows: &[(Hlc, Precedence)]) -> Result<(), StoreError> {
        self.write(|tx| {
            for (at, class) in rows {
                run(&tx.db, "UPDATE outbox SET aside = ?2 WHERE at = ?1", params![at.0 as i64, *class as u8 + 1])?;
            }
            Ok(())
        })
    }

    /// The rows that are set aside, oldest first, with their classes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outbox_aside(&self) -> Result<Vec<(OutboxRow, Precedence)>, StoreError> {
        let sql = "SELECT at, kind, origin_time, event, history, aside FROM outbox WHERE aside > 0 ORDER BY at";
        let raw: Vec<(RawRow, u8)> =
            self.read(|db| all(db, sql, [], |r| Ok((raw_row(r)?, r.get("aside")?))).map_err(StoreError::from))?;
        let class = |aside: u8| Precedence::from_index(aside.saturating_sub(1)).unwrap_or(Precedence::Routine);
        raw.into_iter().map(|(row, aside)| Ok((decode(row)?, class(aside)))).collect()
    }

    /// Puts rows of these classes that were set aside behind all others, in their order and with new positions. Does so only
    /// when no other row waits, so that none of their class can overtake them. How many there were.
    ///
    /// # Errors
    /// When the store cannot be written; all are as they were then.
    pub fn outbox_take_back(&self, is_due: impl Fn(Precedence) -> bool) -> Result<u64, StoreError> {
        let due: Vec<u8> = Precedence::ALL.into_iter().filter(|class| is_due(*class)).map(|c| c as u8 + 1).collect();
        self.write(|tx| {
            if count(&tx.db, "SELECT count(*) FROM outbox WHERE aside = 0", [])? > 0 {
                return Ok(0);
            }
            let sql = "SELECT at, aside FROM outbox WHERE aside > 0 ORDER BY at";
            let rows: Vec<(i64, u8)> = all(&tx.db, sql, [], |r| Ok((r.get(0)?, r.get(1)?)))?;
            let mut taken = 0;
            for (at, _) in rows.into_iter().filter(|(_, aside)| due.contains(aside)) {
                let new = tx.tick();
                run(&tx.db, "UPDATE outbox SET at = ?2, aside = 0 WHERE at = ?1", params![at, new.0 as i64])?;
                run(&tx.db, "UPDATE undelivered SET at = ?2 WHERE at = ?1", params![at, new.0 as i64])?;
                taken += 1;
            }
            Ok(taken)
        })
    }

    /// The highest position that was deleted as durable in the journal; `None` when none was.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outbox_acked(&self) -> Result<Option<Hlc>, StoreError> {
        self.read(|db| {
            let acked: Option<i64> = get(db, "SELECT value FROM meta WHERE key = 'outbox_acked'", [], |r| r.get(0))?;
            Ok(acked.map(|at| Hlc(at as u64)))
        })
    }

    /// How much waits.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        self.read(|db| {
            let rows = count(db, "SELECT count(*) FROM outbox", [])? as u64;
            let oldest = get(db, "SELECT origin_time FROM outbox ORDER BY at LIMIT 1", [], |r| r.get(0))?;
            Ok(OutboxStats { rows, oldest: oldest.map(UnixMillis) })
        })
    }

    /// Changes whenever rows were committed; the value counts them since start.
    pub fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.0.outbox_changed.subscribe()
    }

    /// Where the bytes of a file lie; `None` when they are not here (yet).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn file_path(&self, file: Id) -> Result<Option<PathBuf>, StoreError> {
        self.read(|db| {
            let hash: Option<String> = get(db, "SELECT hash FROM files WHERE id = ?1", [file.as_str()], |r| r.get(0))?;
            Ok(hash.filter(|h| !h.is_empty()).map(|h| self.blob_path(&h)))
        })
    }

    /// Does the store answer? Costs the same however much it holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn check(&self) -> Result<(), StoreError> {
        self.read(|db| count(db, "SELECT count(*) FROM meta", []).map(drop).map_err(StoreError::from))
    }

    /// Counts of everything held.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn stats(&self) -> Result<CoreStats, StoreError> {
        self.read(|db| {
            let n = |sql: &str| count(db, sql, []).map(|n| n as u64);
            Ok(CoreStats {
                users: n("SELECT count(*) FROM users WHERE delete_at = 0")?,
                teams: n("SELECT count(*) FROM teams WHERE delete_at = 0")?,
                channels: n("SELECT count(*) FROM channels WHERE delete_at = 0")?,
                posts: n("SELECT count(*) FROM posts WHERE delete_at = 0")?,
                reactions: n("SELECT count(*) FROM reactions WHERE delete_at = 0")?,
                files: n("SELECT count(*) FROM files WHERE delete_at = 0")?,
                outbox_rows: n("SELECT count(*) FROM outbox")?,
                quarantine_rows: n("SELECT count(*) FROM quarantine")?,
            })
        })
    }
}

/// Position, kind, time, event and whether it is history, as they lie in the table.
type RawRow = (i64, u8, i64, Vec<u8>, bool);

fn raw_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((r.get("at")?, r.get("kind")?, r.get("origin_time")?, r.get("event")?, r.get("history")?))
}

fn decode((at, kind, time, bytes, is_history): RawRow) -> Result<OutboxRow, StoreError> {
    let kind = Kind::from_number(kind).ok_or_else(|| StoreError(format!("outbox row {at} has kind {kind}")))?;
    let event = Event::decode_with(kind, &bytes, &mut RawIds)
        .map_err(|e| StoreError(format!("outbox row {at} does not decode: {e}")))?;
    Ok(OutboxRow { at: Hlc(at as u64), origin_time: UnixMillis(time), event, is_history })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::AppError;
    use crate::testkit::Node;

    #[test]
    fn a_change_and_its_row_commit_together_or_not_at_all() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        node.drain();
        let before = node.core.stats().unwrap();
        let mut changed = node.core.outbox_changed();
        changed.mark_unchanged();
        // The operation does everything that it does, then fails before its commit.
        let result: Result<(), AppError> = node.core.write(|tx| {
            tx.system_post(&square, alice.user_id, "system_generic", "lost".to_owned(), &[])?;
            Err(AppError::storage("test", "the disk went away"))
        });
        assert!(result.is_err());
        assert_eq!(node.core.stats().unwrap(), before);
        assert!(!changed.has_changed().unwrap());
        node.say(&alice, square.id, None, "kept");
        assert_eq!(node.outbox().len(), 1);
        assert!(changed.has_changed().unwrap());
    }

    #[test]
    fn positions_rise_across_acknowledgement_restart_and_a_clock_that_steps_back() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let first: Vec<Hlc> = node.outbox().iter().map(|r| r.at).collect();
        assert!(first.windows(2).all(|w| w[0] < w[1]));
        let highest = *first.last().unwrap();
        assert_eq!(node.core.outbox_ack(highest).unwrap(), first.len() as u64);
        node.advance(-86_400_000 * 400);
        let node = node.reopened();
        assert_eq!(node.core.highest_outbox_hlc(), highest);
        node.advance(86_400_000 * 399);
        let alice = node.login("alice");
        node.say(&alice, square.id, None, "after");
        assert!(node.outbox()[0].at > highest);
    }

    #[test]
    fn reading_goes_on_after_a_position_and_stops_at_the_bound() {
        let node = Node::new(1);
        let alice = node.user("alice");
        node.team(&alice, "mission");
        let every = node.outbox();
        let part = node.core.outbox_read(every[1].at, 3).unwrap();
        assert_eq!(part, every[2..5]);
        let stats = node.core.outbox_stats().unwrap();
        assert_eq!((stats.rows, stats.oldest), (every.len() as u64, Some(every[0].origin_time)));
    }

    #[test]
    fn a_user_row_carries_neither_roles_nor_credentials() {
        let node = Node::new(1);
        node.user("alice");
        let Event::User(state) = &node.outbox()[0].event else { panic!("a user comes first") };
        assert_eq!(state.username, "alice");
        let bytes = node.outbox()[0].event.encode_with(&mut RawIds);
        for secret in ["argon2", "system_admin"] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret}");
        }
    }
}
