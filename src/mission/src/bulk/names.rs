//! What archives call the accounts, teams and channels that stand for theirs here.
//!
//! Names change, and the format knows nothing else. Whatever a line of an archive made or met is noted under the name that the archive
//! has for it, and that note is asked before the name: the same archive finds again what was renamed here since.

use model::Id;
use rusqlite::Connection;

use crate::core::Tx;
use crate::rows::{exists, first_id, get, run};

/// `made` tells what an import made from what was here before.
pub(crate) const TABLES: &str = "
CREATE TABLE imported (
    kind TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, made INTEGER NOT NULL, PRIMARY KEY (kind, name))
    STRICT, WITHOUT ROWID;
CREATE INDEX imported_by_id ON imported (id);
";

/// What has a name in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    User,
    Team,
    /// Named together with its team; see [`channel_key`].
    Channel,
}

impl Named {
    fn text(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Team => "team",
            Self::Channel => "channel",
        }
    }
}

/// The name of a channel of a team.
pub(crate) fn channel_key(team: &str, name: &str) -> String {
    format!("{team}/{name}")
}

fn noted(db: &Connection, kind: Named, name: &str) -> rusqlite::Result<Option<Id>> {
    get(db, "SELECT id FROM imported WHERE kind = ?1 AND name = ?2", [kind.text(), name], first_id)
}

/// The account that an archive calls so.
pub(crate) fn user(db: &Connection, name: &str) -> rusqlite::Result<Option<Id>> {
    match noted(db, Named::User, name)? {
        Some(id) => Ok(Some(id)),
        None => get(db, "SELECT id FROM users WHERE username = ?1", [name], first_id),
    }
}

/// The team that an archive calls so.
pub(crate) fn team(db: &Connection, name: &str) -> rusqlite::Result<Option<Id>> {
    match noted(db, Named::Team, name)? {
        Some(id) => Ok(Some(id)),
        None => get(db, "SELECT id FROM teams WHERE name = ?1", [name], first_id),
    }
}

/// The channel that an archive calls so in the team that it calls so.
pub(crate) fn channel(db: &Connection, of: &str, name: &str) -> rusqlite::Result<Option<Id>> {
    if let Some(id) = noted(db, Named::Channel, &channel_key(of, name))? {
        return Ok(Some(id));
    }
    let Some(team) = team(db, of)? else { return Ok(None) };
    get(db, "SELECT id FROM channels WHERE team_id = ?1 AND name = ?2", [team.as_str(), name], first_id)
}

/// Notes what an archive calls `id`, and whether the import made it. What was noted first stays.
pub(crate) fn note(tx: &Tx<'_>, kind: Named, name: &str, id: Id, made: bool) -> rusqlite::Result<()> {
    let sql = "INSERT INTO imported (kind, name, id, made) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    run(&tx.db, sql, rusqlite::params![kind.text(), name, id.as_str(), made])?;
    Ok(())
}

/// Did an import make it, this one or one before?
pub(crate) fn is_made(db: &Connection, kind: Named, id: Id) -> rusqlite::Result<bool> {
    exists(db, "SELECT 1 FROM imported WHERE id = ?1 AND kind = ?2 AND made = 1", [id.as_str(), kind.text()])
}
