//! What was written where: the durable book of every target.
//!
//! One SQLite database, `synchronous=FULL`: what a method returned from survives a power cut. It holds no content but
//! that of items which died (so that they can be tried again when the journal has moved on) and the rows of records.
//!
//! ```text
//!  targets   how far the journal was read
//!  items     what is open: one row for each entry that the target takes and that has not ended
//!  objects   what stands at the target: remote ids and versions by object
//!  counts    how everything else ended: the terms of the equation
//!  missing   what could not be expressed, by name
//!  posted    messages by destination and hour, for the limit of a day
//!  windows   channels that are, or may be, open for import
//!  stamps    the millisecond that each imported message has in its channel
//! ```
//!
//! Invariants
//! - An entry is taken in by the transaction that moves the place up to which the journal was read: once, whatever happens.
//! - An item ends, and is counted, in the transaction that notes what stands at the target.
//! - `sending` is durable before the request.
//! - Items go in the order of their turns: by position, but within an origin, lane and class as they were written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::{EntryId, Epoch, Id, Kind, LocalPos, NodeId, Outcome, Precedence, Seq, UnixMillis, Version};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::item::WAIT_MS_LONGEST;
use super::remote::Remote;
use super::route::{Missing, Why};

/// Why an item died whose entry the journal does not hold.
pub(super) const NOT_HELD: &str = "the journal does not hold it any more";

/// Name of the database.
const FILE: &str = "targets.sqlite";

/// Form of the database: how many of [`STEPS`] were taken.
const VERSION: i64 = STEPS.len() as i64;

/// What makes each form out of the one before.
const STEPS: [&str; 3] = [FIRST, IMPORTS, TURNS];

const TURNS: &str = "
ALTER TABLE items ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
UPDATE items SET turn = pos << 20;
CREATE INDEX items_line ON items (target, lane, precedence, origin, epoch, seq);
";

const IMPORTS: &str = "
CREATE TABLE windows (
    target TEXT PRIMARY KEY, stands INTEGER NOT NULL, team TEXT NOT NULL, channel TEXT NOT NULL,
    since INTEGER NOT NULL, begins INTEGER NOT NULL, due INTEGER NOT NULL, pause INTEGER NOT NULL
) STRICT;
CREATE TABLE stamps (
    target TEXT NOT NULL, at INTEGER NOT NULL, object TEXT NOT NULL, part INTEGER NOT NULL,
    maybe INTEGER NOT NULL, stand_in INTEGER NOT NULL, author TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (target, at)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX stamps_object ON stamps (target, object, part);
";

const FIRST: &str = "
CREATE TABLE targets (name TEXT PRIMARY KEY, taken INTEGER NOT NULL) STRICT;
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL, origin BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    pos INTEGER NOT NULL, lane TEXT NOT NULL, precedence INTEGER NOT NULL, kind INTEGER NOT NULL,
    object TEXT NOT NULL, post TEXT NOT NULL, deletes INTEGER NOT NULL,
    state INTEGER NOT NULL, tries INTEGER NOT NULL, looks INTEGER NOT NULL, request TEXT NOT NULL,
    at INTEGER NOT NULL, due INTEGER NOT NULL, reason TEXT NOT NULL, content BLOB,
    UNIQUE (target, origin, epoch, seq)
) STRICT;
CREATE INDEX items_open ON items (target, state, precedence, lane, pos);
CREATE INDEX items_object ON items (target, object, pos);
CREATE TABLE objects (
    target TEXT NOT NULL, object TEXT NOT NULL, version_at INTEGER NOT NULL, version_by BLOB NOT NULL, remote TEXT NOT NULL,
    PRIMARY KEY (target, object)
) STRICT, WITHOUT ROWID;
CREATE TABLE reactions (
    target TEXT NOT NULL, post TEXT NOT NULL, emoji TEXT NOT NULL, user TEXT NOT NULL,
    PRIMARY KEY (target, post, emoji, user)
) STRICT, WITHOUT ROWID;
CREATE TABLE purged (target TEXT NOT NULL, object TEXT NOT NULL, PRIMARY KEY (target, object)) STRICT, WITHOUT ROWID;
CREATE TABLE uploads (
    target TEXT NOT NULL, object TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (target, object)
) STRICT, WITHOUT ROWID;
CREATE TABLE counts (target TEXT NOT NULL, term TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (target, term)) STRICT, WITHOUT ROWID;
CREATE TABLE missing (
    target TEXT NOT NULL, what TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (target, what)
) STRICT, WITHOUT ROWID;
CREATE TABLE posted (
    destination TEXT NOT NULL, hour INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (destination, hour)
) STRICT, WITHOUT ROWID;
CREATE TABLE digests (
    target TEXT NOT NULL, number INTEGER NOT NULL, state INTEGER NOT NULL, done INTEGER NOT NULL,
    tries INTEGER NOT NULL, looks INTEGER NOT NULL, due INTEGER NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (target, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE digest_rows (
    target TEXT NOT NULL, number INTEGER NOT NULL, post TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (target, number, post)
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    target TEXT NOT NULL, lane TEXT NOT NULL, day TEXT NOT NULL, post TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (target, post)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_day ON records (target, lane, day, at);
CREATE TABLE days (
    target TEXT NOT NULL, lane TEXT NOT NULL, day TEXT NOT NULL,
    generation INTEGER NOT NULL, written INTEGER NOT NULL, due INTEGER NOT NULL, tries INTEGER NOT NULL,
    sending INTEGER NOT NULL, clean INTEGER NOT NULL, item TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (target, lane, day)
) STRICT, WITHOUT ROWID;
";

/// The ledger could not be read or written. What it holds is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The directory.
    #[error("the directory of the ledger of Microsoft 365 could not be made: {0}")]
    Dir(#[source] std::io::Error),
    /// SQLite.
    #[error("the ledger of Microsoft 365 failed: {0}; nothing was sent for it")]
    Store(#[from] rusqlite::Error),
    /// A later release wrote it.
    #[error("the ledger of Microsoft 365 has form {found}, this release knows {VERSION}; nothing was changed")]
    Newer {
        /// What it says.
        found: i64,
    },
    /// A row that no release wrote.
    #[error("the ledger of Microsoft 365 holds a row that makes no sense: {0}; nothing was sent for it")]
    Row(String),
}

impl LedgerError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Dir(_) | Self::Store(_) => "check the disk that holds the data directory, and its free space",
            Self::Newer { .. } => "start the newer release again",
            Self::Row(_) => "restore the data directory from a backup",
        }
    }
}

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// Its channel is not known here yet.
    Unplaced = 0,
    /// Its turn will come.
    Planned = 1,
    /// A request was begun.
    Sending = 2,
    /// A request may have been carried out: it is looked for.
    Unknown = 3,
    /// In a record or digest that is not written yet.
    Gathered = 4,
    /// Given up until somebody says otherwise; counted as quarantined.
    Dead = 5,
}

impl State {
    const ALL: [Self; 6] = [Self::Unplaced, Self::Planned, Self::Sending, Self::Unknown, Self::Gathered, Self::Dead];

    fn from_number(n: i64) -> Result<Self, LedgerError> {
        Self::ALL.into_iter().find(|s| *s as i64 == n).ok_or_else(|| LedgerError::Row(format!("state {n}")))
    }

    /// Name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unplaced => "unplaced",
            Self::Planned => "planned",
            Self::Sending => "sending",
            Self::Unknown => "unknown",
            Self::Gathered => "gathered",
            Self::Dead => "dead",
        }
    }
}

/// An entry that was read, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its identity.
    pub id: EntryId,
    /// Its place in the journal.
    pub pos: LocalPos,
    /// Its class.
    pub precedence: Precedence,
    /// Its kind.
    pub kind: Kind,
    /// What becomes of it.
    pub as_what: As,
}

/// What becomes of an entry that was read.
#[derive(Clone, Debug)]
pub enum As {
    /// An item in this state.
    Item {
        /// Unplaced or planned.
        state: State,
        /// Ordering domain; the channel's id while unplaced.
        lane: String,
        /// What it is about.
        object: String,
        /// The post that it needs.
        post: Option<Id>,
        /// It says that the object is gone.
        deletes: bool,
    },
    /// Nothing more: it ended so.
    Ended(Outcome),
    /// Withheld.
    Withheld(Why),
    /// It cannot be expressed.
    Missing(Missing),
}

/// An open item, or one that died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Row in the ledger; what an operator names.
    pub row: i64,
    /// The entry.
    pub id: EntryId,
    /// Its place in the journal.
    pub pos: LocalPos,
    /// Its place in the order in which items go: that of its position, and behind what was written before it in its line.
    pub turn: i64,
    /// Ordering domain.
    pub lane: String,
    /// Its class.
    pub precedence: Precedence,
    /// Its kind.
    pub kind: Kind,
    /// What it is about.
    pub object: String,
    /// The post that it needs.
    pub post: Option<Id>,
    /// Where it stands.
    pub state: State,
    /// Requests so far that were refused.
    pub tries: u32,
    /// Looks so far that found nothing.
    pub looks: u32,
    /// `client-request-id` of the latest request.
    pub request: String,
    /// When it came to stand there.
    pub at: UnixMillis,
    /// Nothing is to be done before.
    pub due: UnixMillis,
    /// What was said last.
    pub reason: String,
}

/// The terms of the equation of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the terms of the equation")]
pub struct Terms {
    pub accepted: u64,
    pub applied: u64,
    pub held: u64,
    pub quarantined: u64,
    pub expired: u64,
    pub superseded: u64,
    pub withheld: u64,
    pub purged: u64,
}

impl Terms {
    /// Does the equation hold?
    pub fn hold(&self) -> bool {
        self.accepted
            == self.applied
                + self.held
                + self.quarantined
                + self.expired
                + self.superseded
                + self.withheld
                + self.purged
    }
}

/// What stands at a target of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Version that was delivered; `None` when nothing was.
    pub version: Option<Version>,
    /// Where it is.
    pub remote: Remote,
}

/// The book of all targets of a node.
pub struct Ledger {
    db: Connection,
}

impl Ledger {
    /// Was there ever one?
    pub fn is_there(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Opens it, or makes it.
    ///
    /// # Errors
    /// When it cannot be opened, or is of a later release.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        std::fs::create_dir_all(dir).map_err(LedgerError::Dir)?;
        let db = Connection::open(dir.join(FILE))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        // What is removed is overwritten: after an order to purge nothing of it may lie in free pages.
        db.pragma_update(None, "secure_delete", "ON")?;
        let found: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        let Some(steps) = usize::try_from(found).ok().and_then(|taken| STEPS.get(taken..)) else {
            return Err(LedgerError::Newer { found });
        };
        if !steps.is_empty() {
            db.execute_batch(&format!("BEGIN; {} PRAGMA user_version = {VERSION}; COMMIT;", steps.concat()))?;
        }
        Ok(Self { db })
    }

    fn write<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    /// Up to where the journal was read for the target.
    pub fn taken(&self, target: &str) -> Result<LocalPos, LedgerError> {
        let taken: Option<i64> =
            self.db.query_row("SELECT taken FROM targets WHERE name = ?1", [target], |r| r.get(0)).optional()?;
        Ok(taken.map_or(LocalPos::START, |n| LocalPos(n as u64)))
    }

    /// Names of the targets that ever read something.
    pub fn targets(&self) -> Result<Vec<String>, LedgerError> {
        let mut statement = self.db.prepare("SELECT name FROM targets ORDER BY name")?;
        let names = statement.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    /// The journal is another than the one that was read: it is read from the start.
    pub fn read_anew(&mut self, target: &str) -> Result<(), LedgerError> {
        self.write(|tx| {
            tx.execute("UPDATE targets SET taken = ?2 WHERE name = ?1", params![target, LocalPos::START.0 as i64])?;
            Ok(())
        })
    }

    /// Takes in what was read, up to `next`. `orders` are objects that are to be purged.
    pub fn take_in(&mut self, target: &str, next: LocalPos, read: &[Read], now: UnixMillis) -> Result<(), LedgerError> {
        self.write(|tx| {
            for one in read {
                if is_read_again(tx, target, one)? {
                    continue;
                }
                count(tx, target, "accepted", 1)?;
                match &one.as_what {
                    As::Ended(outcome) => count(tx, target, outcome.as_str(), 1)?,
                    As::Withheld(why) => {
                        count(tx, target, Outcome::Withheld.as_str(), 1)?;
                        count(tx, target, &format!("withheld:{}", why.as_str()), 1)?;
                    }
                    As::Missing(what) => {
                        count(tx, target, Outcome::Quarantined.as_str(), 1)?;
                        note_missing(tx, target, what.as_str())?;
                    }
                    As::Item { state, lane, object, post, deletes } => {
                        tx.prepare_cached(
                            "INSERT INTO items (target, origin, epoch, seq, pos, lane, precedence, kind, object, post, deletes,
                                state, tries, looks, request, at, due, reason, turn)
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0, '', ?13, 0, '', ?5 << 20)",
                        )?
                        .execute(params![
                            target,
                            one.id.origin.0,
                            one.id.epoch.0,
                            one.id.seq.get() as i64,
                            one.pos.0 as i64,
                            lane,
                            one.precedence.index() as i64,
                            one.kind as i64,
                            object,
                            post.map_or_else(String::new, |p| p.to_string()),
                            deletes,
                            *state as i64,
                            now.0
                        ])?;
                        if *state == State::Planned {
                            put_in_line(tx, tx.last_insert_rowid())?;
                        }
                    }
                }
            }
            tx.execute(
                "INSERT INTO targets (name, taken) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET taken = ?2",
                params![target, next.0 as i64],
            )?;
            Ok(())
        })
    }

    /// Lanes of items that are not placed yet.
    pub fn unplaced_lanes(&self, target: &str) -> Result<BTreeSet<String>, LedgerError> {
        let sql = "SELECT DISTINCT +lane FROM items WHERE target = ?1 AND state = 0";
        let mut statement = self.db.prepare_cached(sql)?;
        let lanes = statement.query_map([target], |r| r.get(0))?.collect::<Result<_, _>>()?;
        Ok(lanes)
    }

    /// Those of them whose first item is due, at most `max`, those that waited longest first.
    pub fn unplaced_due(&self, target: &str, now: UnixMillis, max: usize) -> Result<Vec<String>, LedgerError> {
        let sql = format!("SELECT lane FROM ({FIRST_UNPLACED}) WHERE due <= ?2 OR due > ?4 ORDER BY due LIMIT ?3");
        let mut statement = self.db.prepare_cached(&sql)?;
        let far = now.0.saturating_add(WAIT_MS_LONGEST);
        let lanes = statement.query_map(params![target, now.0, max as i64, far], |r| r.get(0))?;
        Ok(lanes.collect::<Result<_, _>>()?)
    }

    /// When the first item of one of them is due; `None` while everything is placed.
    pub fn unplaced_at(&self, target: &str) -> Result<Option<UnixMillis>, LedgerError> {
        let sql = format!("SELECT min(due) FROM ({FIRST_UNPLACED})");
        let at: Option<i64> = self.db.prepare_cached(&sql)?.query_row([target], |r| r.get(0))?;
        Ok(at.map(UnixMillis))
    }

    /// Items of one lane that are not placed yet, those of an origin in the order in which they were written.
    pub fn unplaced(&self, target: &str, lane: &str, max: usize) -> Result<Vec<Item>, LedgerError> {
        self.items(
            "target = ?1 AND state = 0 AND lane = ?2 ORDER BY precedence, origin, epoch, seq LIMIT ?3",
            params![target, lane, max as i64],
        )
    }

    /// The item's place is known now, or its end is. Looked at again at `due`.
    pub fn place(&mut self, target: &str, item: &Item, as_what: &As, due: UnixMillis) -> Result<(), LedgerError> {
        self.write(|tx| {
            match as_what {
                As::Item { state, lane, object, post, deletes } => {
                    tx.execute(
                        "UPDATE items SET state = ?2, lane = ?3, object = ?4, post = ?5, deletes = ?6, due = ?7 WHERE id = ?1",
                        params![
                            item.row,
                            *state as i64,
                            lane,
                            object,
                            post.map_or_else(String::new, |p| p.to_string()),
                            deletes,
                            due.0
                        ],
                    )?;
                    if *state == State::Planned {
                        put_in_line(tx, item.row)?;
                    }
                }
                As::Ended(outcome) => end(tx, target, item.row, *outcome)?,
                As::Withheld(why) => {
                    end(tx, target, item.row, Outcome::Withheld)?;
                    count(tx, target, &format!("withheld:{}", why.as_str()), 1)?;
                }
                As::Missing(what) => {
                    end(tx, target, item.row, Outcome::Quarantined)?;
                    note_missing(tx, target, what.as_str())?;
                }
            }
            Ok(())
        })
    }

    /// After a start: whatever was being sent may have arrived.
    pub fn recover(&mut self, target: &str, due: UnixMillis) -> Result<u64, LedgerError> {
        self.write(|tx| {
            let n = tx.execute(
                "UPDATE items SET state = 3, looks = 0, due = ?2, reason = 'the node ended during the request'
                 WHERE target = ?1 AND state = 2",
                params![target, due.0],
            )?;
            tx.execute("UPDATE days SET sending = 0 WHERE target = ?1", [target])?;
            tx.execute(
                "UPDATE digests SET state = 3, looks = 0, due = ?2 WHERE target = ?1 AND state = 2",
                params![target, due.0],
            )?;
            Ok(n as u64)
        })
    }

    /// The first item of each lane and class, most urgent and oldest first. Files are not among them: none waits for another.
    pub fn heads(&self, target: &str) -> Result<Vec<Item>, LedgerError> {
        // SQLite takes the bare columns from the row that has the minimum.
        let sql = format!(
            "SELECT {COLUMNS}, min(turn) FROM items WHERE target = ?1 AND state BETWEEN 1 AND 3 AND kind <> ?2
             GROUP BY precedence, lane ORDER BY precedence, turn"
        );
        self.query(&sql, params![target, Kind::File as i64])
    }

    /// The first file that is due and whose post and earlier states have ended, most urgent and oldest first; else the moment
    /// when one will be due.
    pub fn next_file(&self, target: &str, now: UnixMillis) -> Result<(Option<Item>, Option<UnixMillis>), LedgerError> {
        let found = self.items(
            "target = ?1 AND state BETWEEN 1 AND 3 AND kind = ?2 AND (due <= ?3 OR due > ?4) AND NOT EXISTS (
                SELECT 1 FROM items b WHERE b.target = ?1 AND b.object IN (items.object, 'post:' || items.post)
                AND +b.state BETWEEN 0 AND 4 AND (b.turn < items.turn AND +b.state <> 0 OR b.object <> items.object
                    AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.target = ?1 AND o.object = b.object)))
             ORDER BY precedence, turn LIMIT 1",
            params![target, Kind::File as i64, now.0, now.0.saturating_add(WAIT_MS_LONGEST)],
        )?;
        let due: Option<i64> = self.db.query_row(
            "SELECT min(due) FROM items WHERE target = ?1 AND state BETWEEN 1 AND 3 AND kind = ?2 AND due > ?3",
            params![target, Kind::File as i64, now.0],
            |r| r.get(0),
        )?;
        Ok((found.into_iter().next(), due.map(UnixMillis)))
    }

    /// The open item that must end first before this one: an earlier state of the same object, or the post that it needs, also
    /// when that was read later and nothing of it stands there yet. A state that is not placed may never be, and holds up no
    /// other of its object: their versions settle which one counts.
    pub fn before(&self, target: &str, item: &Item) -> Result<Option<Item>, LedgerError> {
        let post = item.post.map_or_else(String::new, super::route::post_key);
        // A plus keeps SQLite from choosing an index by that column: here and below the one of objects is meant.
        let found = self.items(
            "target = ?1 AND object IN (?3, ?4) AND +state BETWEEN 0 AND 4 AND (turn < ?2 AND +state <> 0
                OR object = ?4 AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.target = ?1 AND o.object = ?4))
             ORDER BY turn LIMIT 1",
            params![target, item.turn, item.object, post],
        )?;
        Ok(found.into_iter().next())
    }

    /// Planned posts and reactions, oldest first, most urgent first; no reaction whose post is still to come.
    pub fn planned_rows(&self, target: &str, max: usize) -> Result<Vec<Item>, LedgerError> {
        let (post, reaction) = (Kind::Post as i64, Kind::Reaction as i64);
        self.items(
            "target = ?1 AND state IN (1, 2, 3) AND kind IN (?2, ?3) AND NOT (kind = ?3 AND EXISTS (
                SELECT 1 FROM items b WHERE b.target = ?1 AND b.state BETWEEN 0 AND 3 AND b.object = 'post:' || items.post
                AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.target = ?1 AND o.object = b.object)))
             ORDER BY precedence, turn LIMIT ?4",
            params![target, post, reaction, max as i64],
        )
    }

    /// What is in a record or digest that is not written yet, the latest first.
    pub fn gathered(&self, target: &str) -> Result<Vec<Item>, LedgerError> {
        self.items("target = ?1 AND state = 4 ORDER BY turn DESC", params![target])
    }

    /// Is something more urgent due: an item, a record or a digest?
    pub fn is_outranked(&self, target: &str, precedence: Precedence, now: UnixMillis) -> Result<bool, LedgerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM items WHERE target = ?1 AND state BETWEEN 0 AND 3 AND precedence < ?2 AND due <= ?3)
                   OR EXISTS (SELECT 1 FROM days WHERE target = ?1 AND generation > written AND due <= ?3)";
        Ok(self.db.query_row(sql, params![target, precedence.index() as i64, now.0], |r| r.get(0))?)
    }

    /// Does another item of the same kind wait for its turn?
    pub fn has_others(&self, target: &str, item: &Item) -> Result<bool, LedgerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM items WHERE target = ?1 AND kind = ?2 AND state = 1 AND id <> ?3)";
        Ok(self.db.query_row(sql, params![target, item.kind as i64, item.row], |r| r.get(0))?)
    }

    /// Open states of the object that say it is gone, placed or not.
    pub fn removals(&self, target: &str, object: &str) -> Result<Vec<Item>, LedgerError> {
        let which = "target = ?1 AND object = ?2 AND deletes = 1 AND +state BETWEEN 0 AND 4 ORDER BY turn";
        self.items(which, params![target, object])
    }

    /// Other states of the same object that are planned, the latest first, at most `max`.
    pub fn others_planned(&self, target: &str, item: &Item, max: usize) -> Result<Vec<Item>, LedgerError> {
        self.items(
            "target = ?1 AND object = ?2 AND id <> ?3 AND +state = 1 ORDER BY turn DESC LIMIT ?4",
            params![target, item.object, item.row, max as i64],
        )
    }

    /// Open files whose turn has come, oldest first.
    pub fn files(&self, target: &str, now: UnixMillis, max: usize) -> Result<Vec<Item>, LedgerError> {
        let kind = Kind::File as i64;
        self.items(
            "target = ?1 AND state BETWEEN 1 AND 3 AND kind = ?2 AND (due <= ?3 OR due > ?5) ORDER BY precedence, turn LIMIT ?4",
            params![target, kind, now.0, max as i64, now.0.saturating_add(WAIT_MS_LONGEST)],
        )
    }

    /// Since when the oldest of what is open waits.
    pub fn waits_since(&self, target: &str) -> Result<Option<UnixMillis>, LedgerError> {
        let sql = "SELECT min(at) FROM items WHERE target = ?1 AND state BETWEEN 1 AND 3";
        let at: Option<i64> = self.db.query_row(sql, [target], |r| r.get(0))?;
        Ok(at.map(UnixMillis))
    }

    /// A request is about to be made.
    pub fn sending(&mut self, row: i64, request: &str, now: UnixMillis) -> Result<(), LedgerError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE items SET state = 2, request = ?2, at = ?3, looks = 0 WHERE id = ?1",
                params![row, request, now.0],
            )?;
            Ok(())
        })
    }

    /// What stands at the target, or may, of an object.
    pub fn note(&mut self, target: &str, object: &str, remote: &Remote) -> Result<(), LedgerError> {
        self.write(|tx| put_remote(tx, target, object, None, remote))
    }

    /// A request did what it should for `object`, and more may be to do for the item.
    pub fn went_on(
        &mut self,
        target: &str,
        object: &str,
        item: &Item,
        remote: &Remote,
        posted: Option<(&str, UnixMillis)>,
    ) -> Result<(), LedgerError> {
        self.write(|tx| {
            put_remote(tx, target, object, None, remote)?;
            note_posted(tx, posted)?;
            tx.execute(
                "UPDATE items SET state = 1, tries = 0, looks = 0, due = 0, reason = '' WHERE id = ?1",
                [item.row],
            )?;
            Ok(())
        })
    }

    /// Nothing is left to do for the item: it ended so. With a version and what stands at the target, if that changed.
    pub fn ended(
        &mut self,
        target: &str,
        item: &Item,
        outcome: Outcome,
        standing: Option<(Version, &Remote)>,
    ) -> Result<(), LedgerError> {
        self.write(|tx| {
            if let Some((version, remote)) = standing {
                put_remote(tx, target, &item.object, Some(version), remote)?;
            }
            tx.execute("DELETE FROM uploads WHERE target = ?1 AND object = ?2", params![target, item.object])?;
            end(tx, target, item.row, outcome)
        })
    }

    /// It cannot be expressed at the target.
    pub fn missing(
        &mut self,
        target: &str,
        item: &Item,
        what: Missing,
        version: Version,
        remote: &Remote,
    ) -> Result<(), LedgerError> {
        self.write(|tx| {
            put_remote(tx, target, &item.object, Some(version), remote)?;
            note_missing(tx, target, what.as_str())?;
            end(tx, target, item.row, Outcome::Quarantined)
        })
    }

    /// Tried again at `due`.
    pub fn again(&mut self, row: i64, due: UnixMillis, counts: bool, reason: &str) -> Result<(), LedgerError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE items SET state = 1, tries = tries + ?3, due = ?2, reason = ?4 WHERE id = ?1",
                params![row, due.0, counts, reason],
            )?;
            Ok(())
        })
    }

    /// It may have been done: looked for at `due`.
    pub fn unknown(&mut self, row: i64, due: UnixMillis, looks: u32, reason: &str) -> Result<(), LedgerError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE items SET state = 3, due = ?2, looks = ?3, reason = ?4 WHERE id = ?1",
                params![row, due.0, looks, reason],
            )?;
            Ok(())
        })
    }

    /// A look got no answer: looked for again at `due`. `counts`: it was refused.
    pub fn look_again(
        &mut self,
        row: i64,
        due: UnixMillis,
        looks: u32,
        counts: bool,
        reason: &str,
    ) -> Result<(), LedgerError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE items SET state = 3, due = ?2, looks = ?3, tries = tries + ?4, reason = ?5 WHERE id = ?1",
                params![row, due.0, looks, counts, reason],
            )?;
            Ok(())
        })
    }

    /// Given up until somebody says otherwise. `content` is the encoded entry.
    pub fn dead(
        &mut self,
        target: &str,
        item: &Item,
        reason: &str,
        content: &[u8],
        now: UnixMillis,
    ) -> Result<(), LedgerError> {
        self.write(|tx| {
            count(tx, target, Outcome::Quarantined.as_str(), 1)?;
            tx.execute(
                "UPDATE items SET state = 5, reason = ?2, content = ?3, at = ?4, looks = ?5 WHERE id = ?1",
                // Tried again it is looked for first, if it may be there.
                params![item.row, reason, content, now.0, item.state == State::Unknown],
            )?;
            Ok(())
        })
    }

    /// What died, oldest first.
    pub fn list_dead(&self, target: Option<&str>, max: usize) -> Result<Vec<(String, Item)>, LedgerError> {
        let mut all = Vec::new();
        for name in self.targets()?.into_iter().filter(|name| target.is_none_or(|t| t == name)) {
            let items = self.items("target = ?1 AND state = 5 ORDER BY pos LIMIT ?2", params![name, max as i64])?;
            all.extend(items.into_iter().map(|item| (name.clone(), item)));
        }
        Ok(all)
    }

    /// Items that died are planned again. Says how many.
    pub fn retry(&mut self, target: &str, row: Option<i64>) -> Result<u64, LedgerError> {
        self.write(|tx| {
            let n = tx.execute(
                "UPDATE items SET state = CASE WHEN looks = 0 THEN 1 ELSE 3 END, tries = 0, looks = 0, due = 0
                 WHERE target = ?1 AND state = 5 AND ?2 IN (id, -1)",
                params![target, row.unwrap_or(-1)],
            )?;
            count(tx, target, Outcome::Quarantined.as_str(), -(n as i64))?;
            Ok(n as u64)
        })
    }

    /// Items that died are put away; they stay counted as quarantined. Says how many.
    pub fn skip(&mut self, target: &str, row: Option<i64>) -> Result<u64, LedgerError> {
        self.write(|tx| {
            let n = tx.execute(
                "DELETE FROM items WHERE target = ?1 AND state = 5 AND ?2 IN (id, -1)",
                params![target, row.unwrap_or(-1)],
            )?;
            Ok(n as u64)
        })
    }

    /// The encoded entry of an item that had died, if it was kept.
    pub fn content(&self, row: i64) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.db.query_row("SELECT content FROM items WHERE id = ?1", [row], |r| r.get(0)).optional()?.flatten())
    }

    /// What stands at the target of an object.
    pub fn standing(&self, target: &str, object: &str) -> Result<Standing, LedgerError> {
        let found = self
            .db
            .prepare_cached("SELECT version_at, version_by, remote FROM objects WHERE target = ?1 AND object = ?2")?
            .query_row(params![target, object], |r| {
                Ok((r.get::<_, i64>(0)?, r.get::<_, [u8; 16]>(1)?, r.get::<_, String>(2)?))
            })
            .optional()?;
        let Some((at, by, remote)) = found else { return Ok(Standing::default()) };
        let version = (at != 0).then_some(Version { at: model::Hlc(at as u64), by: NodeId(by) });
        let remote = serde_json::from_str(&remote).map_err(|e| LedgerError::Row(format!("{object}: {e}")))?;
        Ok(Standing { version, remote })
    }

    /// Notes who reacts how; says who does now.
    pub fn react(
        &mut self,
        target: &str,
        post: Id,
        emoji: &str,
        user: Id,
        present: bool,
    ) -> Result<BTreeSet<String>, LedgerError> {
        self.write(|tx| {
            let sql = match present {
                true => "INSERT OR IGNORE INTO reactions (target, post, emoji, user) VALUES (?1, ?2, ?3, ?4)",
                false => "DELETE FROM reactions WHERE target = ?1 AND post = ?2 AND emoji = ?3 AND user = ?4",
            };
            tx.execute(sql, params![target, post.as_str(), emoji, user.as_str()])?;
            let mut statement =
                tx.prepare_cached("SELECT user FROM reactions WHERE target = ?1 AND post = ?2 AND emoji = ?3")?;
            let users = statement.query_map(params![target, post.as_str(), emoji], |r| r.get(0))?;
            Ok(users.collect::<Result<_, _>>()?)
        })
    }

    /// Objects that are to be purged: what is planned of them ends so. Says which of them stand at the target.
    pub fn purge(&mut self, target: &str, objects: &[String]) -> Result<Vec<(String, Remote)>, LedgerError> {
        self.write(|tx| {
            let mut standing = Vec::new();
            for object in objects {
                tx.execute("INSERT OR IGNORE INTO purged (target, object) VALUES (?1, ?2)", params![target, object])?;
                // Counted as quarantined; what was kept of them goes.
                tx.execute(
                    "DELETE FROM items WHERE target = ?1 AND object = ?2 AND state = 5",
                    params![target, object],
                )?;
                let open = tx.execute(
                    "DELETE FROM items WHERE target = ?1 AND object = ?2 AND state IN (0, 1)",
                    params![target, object],
                )?;
                count(tx, target, Outcome::Purged.as_str(), open as i64)?;
                let remote: Option<String> = tx
                    .query_row(
                        "SELECT remote FROM objects WHERE target = ?1 AND object = ?2",
                        params![target, object],
                        |r| r.get(0),
                    )
                    .optional()?;
                if let Some(remote) = remote {
                    let remote =
                        serde_json::from_str(&remote).map_err(|e| LedgerError::Row(format!("{object}: {e}")))?;
                    standing.push((object.clone(), remote));
                }
            }
            Ok(standing)
        })
    }

    /// May something of these objects be under way?
    pub fn is_under_way(&self, target: &str, objects: &[String]) -> Result<bool, LedgerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM items WHERE target = ?1 AND object = ?2 AND state IN (2, 3))
                   OR EXISTS (SELECT 1 FROM items i JOIN digests d ON d.target = i.target AND CAST(d.number AS TEXT) = i.request
                       WHERE i.target = ?1 AND i.object = ?2 AND i.state = 4 AND d.state IN (2, 3))";
        for object in objects {
            if self.db.query_row(sql, params![target, object], |r| r.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Of purged content something stays at the service that no program may remove.
    pub fn note_rest_of_purge(&mut self, target: &str) -> Result<(), LedgerError> {
        self.write(|tx| note_missing(tx, target, "purge-rest"))
    }

    /// Was it purged?
    pub fn is_purged(&self, target: &str, object: &str) -> Result<bool, LedgerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM purged WHERE target = ?1 AND object = ?2)";
        Ok(self.db.query_row(sql, params![target, object], |r| r.get(0))?)
    }

    /// Gives free pages and the write-ahead log back, so that nothing purged lies in them.
    pub fn scrub(&mut self) -> Result<(), LedgerError> {
        self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// When messages went to a destination in the last 24 hours: of each hour its end, or now, so rather too late than too early.
    pub fn posted(&self, destination: &str, now: UnixMillis) -> Result<Vec<UnixMillis>, LedgerError> {
        let hour = now.0.div_euclid(HOUR_MS);
        let mut statement =
            self.db.prepare("SELECT hour, n FROM posted WHERE destination = ?1 AND hour >= ?2 ORDER BY hour")?;
        let rows =
            statement.query_map(params![destination, hour - 24], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))?;
        let mut times = Vec::new();
        for row in rows {
            let (hour, n) = row?;
            let at = UnixMillis(((hour + 1) * HOUR_MS).min(now.0));
            times.extend(std::iter::repeat_n(at, usize::try_from(n).unwrap_or(0)));
        }
        Ok(times)
    }

    /// The place before which the target has finished with everything.
    pub fn low_water(&self, target: &str) -> Result<LocalPos, LedgerError> {
        let lowest: Option<i64> = self.db.query_row(
            "SELECT min(pos) FROM items WHERE target = ?1 AND state BETWEEN 0 AND 4",
            [target],
            |r| r.get(0),
        )?;
        Ok(lowest.map_or(self.taken(target)?, |n| LocalPos(n as u64)))
    }

    /// The equation, of what was read. Entries that were not read yet are accepted and held besides.
    pub fn terms(&self, target: &str) -> Result<Terms, LedgerError> {
        let counts = self.counts(target)?;
        let of = |outcome: Outcome| counts.get(outcome.as_str()).copied().unwrap_or(0);
        let held: i64 = self.db.query_row(
            "SELECT count(*) FROM items WHERE target = ?1 AND state BETWEEN 0 AND 4",
            [target],
            |r| r.get(0),
        )?;
        Ok(Terms {
            accepted: counts.get("accepted").copied().unwrap_or(0),
            applied: of(Outcome::Applied),
            held: held as u64,
            quarantined: of(Outcome::Quarantined),
            expired: of(Outcome::Expired),
            superseded: of(Outcome::Superseded),
            withheld: of(Outcome::Withheld),
            purged: of(Outcome::Purged),
        })
    }

    /// Every count by name: terms, and `withheld:` with the reason.
    pub fn counts(&self, target: &str) -> Result<BTreeMap<String, u64>, LedgerError> {
        self.sums("SELECT term, n FROM counts WHERE target = ?1", target)
    }

    /// What could not be expressed, by name.
    pub fn missing_of(&self, target: &str) -> Result<BTreeMap<String, u64>, LedgerError> {
        self.sums("SELECT what, n FROM missing WHERE target = ?1", target)
    }

    /// How many items are open, by class and kind.
    pub fn open_by_class(&self, target: &str) -> Result<Vec<(Precedence, Kind, u64)>, LedgerError> {
        let mut statement = self.db.prepare(
            "SELECT precedence, kind, count(*) FROM items WHERE target = ?1 AND state BETWEEN 0 AND 4 GROUP BY 1, 2",
        )?;
        let rows =
            statement.query_map([target], |r| Ok((r.get::<_, u8>(0)?, r.get::<_, u8>(1)?, r.get::<_, i64>(2)?)))?;
        let mut all = Vec::new();
        for row in rows {
            let (class, kind, n) = row?;
            let class = Precedence::from_index(class).ok_or_else(|| LedgerError::Row(format!("class {class}")))?;
            let kind = Kind::from_number(kind).ok_or_else(|| LedgerError::Row(format!("kind {kind}")))?;
            all.push((class, kind, n as u64));
        }
        Ok(all)
    }

    /// Open items from the oldest on, for a plan.
    pub fn open_items(&self, target: &str, max: usize) -> Result<Vec<Item>, LedgerError> {
        self.items("target = ?1 AND state BETWEEN 0 AND 4 ORDER BY pos LIMIT ?2", params![target, max as i64])
    }

    fn sums(&self, sql: &str, target: &str) -> Result<BTreeMap<String, u64>, LedgerError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let rows =
            statement.query_map([target], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?.max(0) as u64)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn items(&self, which: &str, params: impl rusqlite::Params) -> Result<Vec<Item>, LedgerError> {
        self.query(&format!("SELECT {COLUMNS} FROM items WHERE {which}"), params)
    }

    fn query(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Item>, LedgerError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(item(row)?);
        }
        Ok(all)
    }

    /// The upload of a file that was begun, sealed.
    pub fn upload(&self, target: &str, object: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let sql = "SELECT state FROM uploads WHERE target = ?1 AND object = ?2";
        Ok(self.db.query_row(sql, params![target, object], |r| r.get(0)).optional()?)
    }

    /// An upload was begun, or `None`: it is over.
    pub fn keep_upload(&mut self, target: &str, object: &str, state: Option<&[u8]>) -> Result<(), LedgerError> {
        self.write(|tx| {
            match state {
                Some(state) => tx.execute(
                    "INSERT INTO uploads (target, object, state) VALUES (?1, ?2, ?3)
                     ON CONFLICT (target, object) DO UPDATE SET state = ?3",
                    params![target, object, state],
                )?,
                None => tx.execute("DELETE FROM uploads WHERE target = ?1 AND object = ?2", params![target, object])?,
            };
            Ok(())
        })
    }

    /// The connection, for the rows of records.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// One transaction over the rows of records.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.write(work)
    }
}

const HOUR_MS: i64 = 3_600_000;

const COLUMNS: &str = "id, origin, epoch, seq, pos, lane, precedence, kind, object, post, state, tries, looks, request, at, due, reason, turn";

/// Lanes of items that are not placed yet, each with the moment when its first item is due.
const FIRST_UNPLACED: &str =
    "SELECT lane, (SELECT due FROM items f WHERE f.target = ?1 AND f.lane = l.lane AND f.state = 0
    ORDER BY precedence, origin, epoch, seq LIMIT 1) AS due
    FROM (SELECT DISTINCT +lane AS lane FROM items WHERE target = ?1 AND state = 0) l";

fn item(r: &Row<'_>) -> Result<Item, LedgerError> {
    let bad = |what: &str| LedgerError::Row(what.to_owned());
    let post: String = r.get(9)?;
    Ok(Item {
        row: r.get(0)?,
        id: EntryId {
            origin: NodeId(r.get(1)?),
            epoch: Epoch(r.get(2)?),
            seq: Seq::new(r.get::<_, i64>(3)? as u64).ok_or_else(|| bad("number 0"))?,
        },
        pos: LocalPos(r.get::<_, i64>(4)? as u64),
        lane: r.get(5)?,
        precedence: Precedence::from_index(r.get(6)?).ok_or_else(|| bad("precedence"))?,
        kind: Kind::from_number(r.get(7)?).ok_or_else(|| bad("kind"))?,
        object: r.get(8)?,
        post: match post.as_str() {
            "" => None,
            post => Some(post.parse().map_err(|_| bad("post"))?),
        },
        state: State::from_number(r.get(10)?)?,
        tries: r.get(11)?,
        looks: r.get(12)?,
        request: r.get(13)?,
        at: UnixMillis(r.get(14)?),
        due: UnixMillis(r.get(15)?),
        reason: r.get(16)?,
        turn: r.get(17)?,
    })
}

/// Gives a planned item its turn: that of its position, behind all that was written before it in its line (origin, lane and
/// class); what was written after it comes behind it. A file has no line: its bytes may stay away for long.
fn put_in_line(tx: &Transaction<'_>, row: i64) -> Result<(), LedgerError> {
    const LINE: &str = "target = ?1 AND lane = ?2 AND precedence = ?3 AND origin = ?4 AND kind <> ?5";
    // Twenty bits below a position have room for what jumped ahead of it.
    tx.prepare_cached("UPDATE items SET turn = pos << 20 WHERE id = ?1")?.execute([row])?;
    type Place = (String, String, i64, [u8; 16], i64, i64, i64, i64);
    let (target, lane, precedence, origin, epoch, seq, kind, mut turn): Place = tx
        .prepare_cached("SELECT target, lane, precedence, origin, epoch, seq, kind, turn FROM items WHERE id = ?1")?
        .query_row([row], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?))
        })?;
    let file = Kind::File as i64;
    if kind == file {
        return Ok(());
    }
    let line = params![target, lane, precedence, origin, file, epoch, seq];
    let of = |sql: String| tx.prepare_cached(&sql)?.query_row(line, |r| r.get::<_, i64>(0)).optional();
    let sql = "AND (epoch, seq) < (?6, ?7) ORDER BY epoch DESC, seq DESC LIMIT 1";
    if let Some(before) = of(format!("SELECT turn FROM items WHERE {LINE} {sql}"))?
        && before >= turn
    {
        turn = before + 1;
        tx.execute("UPDATE items SET turn = ?2 WHERE id = ?1", [row, turn])?;
    }
    let sql = "AND (epoch, seq) > (?6, ?7) ORDER BY epoch, seq LIMIT 1";
    if of(format!("SELECT turn FROM items WHERE {LINE} {sql}"))?.is_some_and(|after| after <= turn) {
        let sql = format!(
            "UPDATE items SET turn = max(turn, later.least) FROM (
                SELECT id, ?8 + row_number() OVER (ORDER BY epoch, seq) AS least
                FROM items WHERE {LINE} AND (epoch, seq) > (?6, ?7)) AS later WHERE items.id = later.id"
        );
        tx.execute(&sql, params![target, lane, precedence, origin, file, epoch, seq, turn])?;
    }
    Ok(())
}

/// Was the entry read before, and is it open or dead? Then it is where it stands now, and what died because the journal did not
/// hold it is planned again.
fn is_read_again(tx: &Transaction<'_>, target: &str, one: &Read) -> Result<bool, LedgerError> {
    let known: Option<(i64, i64, String)> = tx
        .prepare_cached(
            "SELECT id, state, reason FROM items WHERE target = ?1 AND origin = ?2 AND epoch = ?3 AND seq = ?4",
        )?
        .query_row(params![target, one.id.origin.0, one.id.epoch.0, one.id.seq.get() as i64], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .optional()?;
    let Some((row, state, reason)) = known else { return Ok(false) };
    tx.execute("UPDATE items SET pos = ?2, turn = ?2 << 20 WHERE id = ?1", params![row, one.pos.0 as i64])?;
    if state != State::Unplaced as i64 {
        put_in_line(tx, row)?;
    }
    if state == State::Dead as i64 && reason == NOT_HELD {
        tx.execute("UPDATE items SET state = 1, tries = 0, looks = 0, due = 0, reason = '' WHERE id = ?1", [row])?;
        count(tx, target, Outcome::Quarantined.as_str(), -1)?;
    }
    Ok(true)
}

pub(super) fn count(tx: &Transaction<'_>, target: &str, term: &str, n: i64) -> Result<(), LedgerError> {
    tx.prepare_cached(
        "INSERT INTO counts (target, term, n) VALUES (?1, ?2, ?3) ON CONFLICT (target, term) DO UPDATE SET n = n + ?3",
    )?
    .execute(params![target, term, n])?;
    Ok(())
}

pub(super) fn note_missing(tx: &Transaction<'_>, target: &str, what: &str) -> Result<(), LedgerError> {
    tx.execute(
        "INSERT INTO missing (target, what, n) VALUES (?1, ?2, 1) ON CONFLICT (target, what) DO UPDATE SET n = n + 1",
        params![target, what],
    )?;
    Ok(())
}

/// The item ends: its row goes and it is counted.
pub(super) fn end(tx: &Transaction<'_>, target: &str, row: i64, outcome: Outcome) -> Result<(), LedgerError> {
    let n = tx.execute("DELETE FROM items WHERE id = ?1", [row])?;
    count(tx, target, outcome.as_str(), n as i64)
}

/// Nothing of the object is known at the target any more.
pub(super) fn forget(tx: &Transaction<'_>, target: &str, object: &str) -> Result<(), LedgerError> {
    tx.execute("DELETE FROM objects WHERE target = ?1 AND object = ?2", params![target, object])?;
    Ok(())
}

pub(super) fn put_remote(
    tx: &Transaction<'_>,
    target: &str,
    object: &str,
    version: Option<Version>,
    remote: &Remote,
) -> Result<(), LedgerError> {
    let remote = serde_json::to_string(remote).map_err(|e| LedgerError::Row(e.to_string()))?;
    let (at, by) = version.map_or((0, [0; 16]), |v| (v.at.0 as i64, v.by.0));
    tx.prepare_cached(
        "INSERT INTO objects (target, object, version_at, version_by, remote) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (target, object) DO UPDATE SET remote = ?5,
            version_at = CASE WHEN ?3 = 0 THEN version_at ELSE ?3 END,
            version_by = CASE WHEN ?3 = 0 THEN version_by ELSE ?4 END",
    )?
    .execute(params![target, object, at, by, remote])?;
    Ok(())
}

fn note_posted(tx: &Transaction<'_>, posted: Option<(&str, UnixMillis)>) -> Result<(), LedgerError> {
    let Some((destination, now)) = posted else { return Ok(()) };
    let hour = now.0.div_euclid(HOUR_MS);
    tx.execute(
        "INSERT INTO posted (destination, hour, n) VALUES (?1, ?2, 1) ON CONFLICT (destination, hour) DO UPDATE SET n = n + 1",
        params![destination, hour],
    )?;
    tx.execute("DELETE FROM posted WHERE hour < ?1", [hour - 48])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testkit::{entry_id, id};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn read(n: u64, class: Precedence, object: &str, post: Option<Id>) -> Read {
        Read {
            id: entry_id(n),
            pos: LocalPos(n),
            precedence: class,
            kind: Kind::Post,
            as_what: As::Item {
                state: State::Planned,
                lane: "alpha/ops".to_owned(),
                object: object.to_owned(),
                post,
                deletes: false,
            },
        }
    }

    fn check(ledger: &Ledger, target: &str) -> Terms {
        let terms = ledger.terms(target).unwrap();
        assert!(terms.hold(), "{terms:?}");
        terms
    }

    #[test]
    fn what_is_taken_in_is_held_until_it_ends_and_the_equation_holds_all_along() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let mut all = vec![read(1, Precedence::Routine, "post:a", None), read(2, Precedence::Flash, "post:b", None)];
        for (n, as_what) in
            [(3, As::Withheld(Why::Label)), (4, As::Missing(Missing::Bookmark)), (5, As::Ended(Outcome::Expired))]
        {
            all.push(Read { as_what, ..read(n, Precedence::Routine, "", None) });
        }
        ledger.take_in("t", LocalPos(6), &all, NOW).unwrap();
        let terms = check(&ledger, "t");
        assert_eq!((terms.accepted, terms.held, terms.withheld, terms.quarantined, terms.expired), (5, 2, 1, 1, 1));
        assert_eq!(ledger.low_water("t").unwrap(), LocalPos(1));
        let heads = ledger.heads("t").unwrap();
        assert_eq!(heads.iter().map(|i| i.pos.0).collect::<Vec<_>>(), [2, 1], "the urgent one first");
        ledger.ended("t", &heads[1], Outcome::Applied, None).unwrap();
        assert_eq!(ledger.low_water("t").unwrap(), LocalPos(2));
        ledger.dead("t", &heads[0], "400 BadRequest", b"entry", NOW).unwrap();
        let terms = check(&ledger, "t");
        assert_eq!((terms.applied, terms.held, terms.quarantined), (1, 0, 2));
        drop(ledger);
        let mut ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.taken("t").unwrap(), LocalPos(6));
        assert_eq!(ledger.low_water("t").unwrap(), LocalPos(6));
        assert_eq!(ledger.retry("t", Some(heads[0].row)).unwrap(), 1);
        assert_eq!(ledger.content(heads[0].row).unwrap().unwrap(), b"entry");
        assert_eq!(check(&ledger, "t").held, 1);
        assert_eq!(ledger.missing_of("t").unwrap()["bookmark"], 1);
    }

    #[test]
    fn a_ledger_of_an_earlier_form_is_taken_on_and_one_of_a_later_form_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join(FILE)).unwrap();
        db.execute_batch(&format!("BEGIN; {FIRST} PRAGMA user_version = 1; COMMIT;")).unwrap();
        db.execute("INSERT INTO targets (name, taken) VALUES ('t', 7)", []).unwrap();
        let open = "INSERT INTO items SELECT NULL, 't', zeroblob(16), 1, pos, pos, 'a/b', 3, ?1, 'post:' || pos, '', 0,
            1, 0, 0, '', 0, 0, '', NULL FROM (SELECT 6 AS pos UNION SELECT 5)";
        db.execute(open, [Kind::Post as i64]).unwrap();
        drop(db);
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.taken("t").unwrap(), LocalPos(7));
        assert_eq!(ledger.heads("t").unwrap()[0].pos, LocalPos(5));
        let tables = "SELECT count(*) FROM sqlite_master WHERE name IN ('windows', 'stamps')";
        assert_eq!(ledger.db().query_row(tables, [], |r| r.get::<_, i64>(0)).unwrap(), 2);
        ledger.db().execute_batch("PRAGMA user_version = 99").unwrap();
        drop(ledger);
        assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Newer { found: 99 })));
    }

    #[test]
    fn a_line_goes_in_the_order_of_writing_however_it_arrived() {
        for (n, arrival) in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3], [3, 4, 1, 2], [4, 1, 2, 3]].iter().enumerate() {
            let (dir, t) = (tempfile::tempdir().unwrap(), format!("t{n}"));
            let mut ledger = Ledger::open(dir.path()).unwrap();
            for (pos, &seq) in (1..).zip(arrival) {
                let one = read(seq, Precedence::Routine, &format!("post:{seq}"), None);
                let mut other = Read { id: entry_id(100 + pos), ..read(100, Precedence::Flash, "post:other", None) };
                other.pos = LocalPos(2 * pos + 1);
                let both = [Read { pos: LocalPos(2 * pos), ..one }, other];
                ledger.take_in(&t, LocalPos(2 * pos + 2), &both, NOW).unwrap();
            }
            let mut told = Vec::new();
            while let Some(head) = ledger.heads(&t).unwrap().into_iter().find(|i| i.precedence == Precedence::Routine) {
                told.push(head.id.seq.get());
                ledger.ended(&t, &head, Outcome::Applied, None).unwrap();
            }
            assert_eq!(told, [1, 2, 3, 4], "{arrival:?}");
        }
    }

    #[test]
    fn a_start_finds_what_was_being_sent_and_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.take_in("t", LocalPos(2), &[read(1, Precedence::Routine, "post:a", None)], NOW).unwrap();
        let item = ledger.heads("t").unwrap().remove(0);
        ledger.sending(item.row, "request-1", NOW).unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.recover("t", UnixMillis(NOW.0 + 5)).unwrap(), 1);
        let item = ledger.heads("t").unwrap().remove(0);
        assert_eq!((item.state, item.request.as_str(), item.due.0), (State::Unknown, "request-1", NOW.0 + 5));
    }

    #[test]
    fn what_died_while_nobody_knew_whether_it_arrived_is_looked_for_when_it_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.take_in("t", LocalPos(2), &[read(1, Precedence::Routine, "post:a", None)], NOW).unwrap();
        let row = ledger.heads("t").unwrap().remove(0).row;
        ledger.unknown(row, NOW, 0, "no answer").unwrap();
        let item = ledger.heads("t").unwrap().remove(0);
        ledger.dead("t", &item, "looking for it is refused", b"entry", NOW).unwrap();
        ledger.retry("t", None).unwrap();
        assert_eq!(ledger.heads("t").unwrap()[0].state, State::Unknown);
    }

    #[test]
    fn an_entry_that_comes_again_is_accepted_once_and_planned_again_if_its_content_was_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let [a, b] = [read(1, Precedence::Routine, "post:a", None), read(2, Precedence::Routine, "post:b", None)];
        ledger.take_in("t", LocalPos(3), &[a.clone(), b.clone()], NOW).unwrap();
        let item = ledger.heads("t").unwrap().remove(0);
        ledger.dead("t", &item, NOT_HELD, &[], NOW).unwrap();
        let again = [Read { pos: LocalPos(7), ..a }, Read { pos: LocalPos(8), ..b }];
        ledger.take_in("t", LocalPos(9), &again, NOW).unwrap();
        let terms = check(&ledger, "t");
        assert_eq!((terms.accepted, terms.held, terms.quarantined), (2, 2, 0));
        assert_eq!(ledger.low_water("t").unwrap(), LocalPos(7));
    }

    #[test]
    fn a_file_that_waits_for_its_bytes_or_its_post_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let file = |n, object, post| Read { kind: Kind::File, ..read(n, Precedence::Deferred, object, post) };
        let all = [
            read(1, Precedence::Routine, &super::super::route::post_key(id(1)), None),
            file(2, "file:a", Some(id(1))),
            file(3, "file:b", Some(id(2))),
            file(4, "file:c", Some(id(3))),
        ];
        ledger.take_in("t", LocalPos(5), &all, NOW).unwrap();
        assert_eq!(ledger.heads("t").unwrap().len(), 1);
        let (next, due) = ledger.next_file("t", NOW).unwrap();
        let next = next.unwrap();
        assert_eq!((next.pos.0, due), (3, None), "the first waits for its post");
        ledger.again(next.row, UnixMillis(NOW.0 + 10), false, "its bytes are not here yet").unwrap();
        let (next, due) = ledger.next_file("t", NOW).unwrap();
        assert_eq!((next.unwrap().pos.0, due), (4, Some(UnixMillis(NOW.0 + 10))));
    }

    #[test]
    fn a_reply_waits_for_its_root_and_an_edit_for_what_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let root = super::super::route::post_key(id(1));
        let all = [
            read(1, Precedence::Routine, &root, None),
            read(2, Precedence::Flash, "post:reply", Some(id(1))),
            read(3, Precedence::Immediate, "post:reply", Some(id(1))),
        ];
        ledger.take_in("t", LocalPos(4), &all, NOW).unwrap();
        let heads = ledger.heads("t").unwrap();
        assert_eq!(heads[0].pos.0, 2);
        assert_eq!(ledger.before("t", &heads[0]).unwrap().unwrap().pos.0, 1);
        assert_eq!(ledger.before("t", &heads[1]).unwrap().unwrap().pos.0, 1);
        ledger.ended("t", &heads[2], Outcome::Applied, None).unwrap();
        assert_eq!(ledger.before("t", &heads[0]).unwrap(), None);
        // A root that another node's journal brought after its reply.
        let late = super::super::route::post_key(id(9));
        let all = [read(5, Precedence::Flash, "post:early", Some(id(9))), read(6, Precedence::Routine, &late, None)];
        ledger.take_in("t", LocalPos(7), &all, NOW).unwrap();
        let early = ledger.open_items("t", 9).unwrap().into_iter().find(|item| item.object == "post:early").unwrap();
        assert_eq!(ledger.before("t", &early).unwrap().unwrap().pos.0, 6);
        assert_eq!(ledger.before("t", &heads[1]).unwrap().unwrap().pos.0, 2);
    }

    #[test]
    fn what_is_purged_ends_so_and_later_states_of_it_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.take_in("t", LocalPos(2), &[read(1, Precedence::Routine, "post:a", None)], NOW).unwrap();
        assert!(ledger.purge("t", &["post:a".to_owned()]).unwrap().is_empty());
        assert!(ledger.is_purged("t", "post:a").unwrap());
        assert_eq!(check(&ledger, "t").purged, 1);
    }

    #[test]
    fn messages_of_a_day_are_counted_and_leave_the_count_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.with(|tx| note_posted(tx, Some(("team/channel", NOW)))).unwrap();
        assert_eq!(ledger.posted("team/channel", NOW).unwrap(), [NOW]);
        let later = UnixMillis(NOW.0 + 2 * HOUR_MS);
        let [at] = ledger.posted("team/channel", later).unwrap()[..] else { panic!() };
        assert!(at >= NOW && at < later);
        assert!(ledger.posted("team/channel", UnixMillis(NOW.0 + 26 * HOUR_MS)).unwrap().is_empty());
    }
}
