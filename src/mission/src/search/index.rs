//! The full-text index: SQLite's FTS5 beside the tables, kept by triggers, so that whatever changes a row changes it too.
//!
//! ```text
//!  posts --triggers--> search_posts (time slot -> post) --> posts_fts (words, tags, marks)
//!  files --triggers--> search_files (time slot -> file) --> files_fts (words, marks)
//! ```
//!
//! Invariants
//! - A live post that is no message of the system is in the index, and nothing else is.
//! - The number of a row in the index rises with its time, so the newest matches are found without sorting.
//! - The index holds words and no text, and takes them out when it removes a row (`secure-delete`).

use std::collections::BTreeSet;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::words;
use crate::rows::{all, exists, get, run};

/// The tables. A slot is the time in milliseconds and a number within it; see [`slot`].
///
/// The words are made by this program ([`words`]), so the tokenizer only has to split at blanks.
pub(crate) const TABLES: &str = "
CREATE TABLE search_posts (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE search_files (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
CREATE VIRTUAL TABLE posts_fts USING fts5 (words, tags, marks, content='', columnsize=0,
    tokenize=\"unicode61 remove_diacritics 0 categories 'L* M* N* P* S* Co'\");
CREATE VIRTUAL TABLE files_fts USING fts5 (words, marks, content='', columnsize=0,
    tokenize=\"unicode61 remove_diacritics 0 categories 'L* M* N* P* S* Co'\");
INSERT INTO posts_fts (posts_fts, rank) VALUES ('secure-delete', 1);
INSERT INTO files_fts (files_fts, rank) VALUES ('secure-delete', 1);
";

/// Slots of one millisecond. More posts than this at one time stand before all others.
const SLOTS: i64 = 1 << 16;
/// Latest time that has slots of its own: the year 4199. A peer chooses the times of its posts.
const TIME_MAX: i64 = 1 << 46;

/// The first slot of a time.
pub(super) fn slot(time: i64) -> i64 {
    time.clamp(0, TIME_MAX) * SLOTS
}

/// The last slot of a time.
pub(super) fn last_slot(time: i64) -> i64 {
    slot(time) + SLOTS - 1
}

/// What of a table is indexed and how; `{r}` is the row.
struct Indexed {
    table: &'static str,
    /// Maps slots to rows.
    map: &'static str,
    fts: &'static str,
    columns: &'static str,
    values: &'static str,
    /// Is the row indexed?
    live: &'static str,
    /// Columns whose change matters.
    watched: &'static [&'static str],
}

const INDEXED: [Indexed; 2] = [
    Indexed {
        table: "posts",
        map: "search_posts",
        fts: "posts_fts",
        columns: "words, tags, marks",
        values: "search_words({r}.message), search_tags({r}.hashtags), 'c' || {r}.channel_id || ' u' || {r}.user_id",
        live: "{r}.delete_at = 0 AND {r}.original_id = '' AND substr({r}.type, 1, 7) <> 'system_'",
        watched: &["message", "hashtags", "delete_at", "type", "original_id"],
    },
    Indexed {
        table: "files",
        map: "search_files",
        fts: "files_fts",
        columns: "words, marks",
        values: "search_words({r}.name),
            'c' || {r}.channel_id || ' u' || {r}.user_id || ' ' || search_tags('e' || {r}.extension)",
        live: "{r}.delete_at = 0 AND {r}.post_id <> ''",
        watched: &["name", "extension", "channel_id", "delete_at", "post_id"],
    },
];

impl Indexed {
    /// Takes the row out, if it is in.
    fn remove(&self, row: &str) -> String {
        let Self { map, fts, columns, .. } = self;
        let values = self.values.replace("{r}", row);
        format!(
            "INSERT INTO {fts} ({fts}, rowid, {columns}) SELECT 'delete', n, {values} FROM {map} WHERE id = {row}.id;
             DELETE FROM {map} WHERE id = {row}.id;"
        )
    }

    /// Puts the row in, if it belongs there.
    fn insert(&self, row: &str) -> String {
        let Self { map, fts, columns, .. } = self;
        let (values, live) = (self.values.replace("{r}", row), self.live.replace("{r}", row));
        let last = SLOTS - 1;
        format!(
            "INSERT INTO {map} (n, id) SELECT CASE
                    WHEN top IS NULL THEN first
                    WHEN top < first + {last} THEN top + 1
                    ELSE (SELECT min(0, min(n)) - 1 FROM {map}) END, {row}.id
                FROM (SELECT first, (SELECT max(n) FROM {map} WHERE n BETWEEN first AND first + {last}) AS top
                    FROM (SELECT search_slot({row}.create_at) AS first))
                WHERE {live};
             INSERT INTO {fts} (rowid, {columns}) SELECT n, {values} FROM {map} WHERE id = {row}.id;"
        )
    }

    fn triggers(&self) -> String {
        let Self { table, watched, .. } = self;
        let (remove, insert) = (self.remove("old"), self.insert("new"));
        let differs: Vec<String> = watched.iter().map(|c| format!("old.{c} IS NOT new.{c}")).collect();
        let (columns, differs) = (watched.join(", "), differs.join(" OR "));
        format!(
            "DROP TRIGGER IF EXISTS {table}_search_insert;
             DROP TRIGGER IF EXISTS {table}_search_update;
             DROP TRIGGER IF EXISTS {table}_search_delete;
             CREATE TRIGGER {table}_search_insert AFTER INSERT ON {table} BEGIN {insert} END;
             CREATE TRIGGER {table}_search_update AFTER UPDATE OF {columns} ON {table} WHEN {differs}
                BEGIN {remove} {insert} END;
             CREATE TRIGGER {table}_search_delete AFTER DELETE ON {table} BEGIN {remove} END;"
        )
    }
}

/// The functions that the triggers and searches call; for every connection.
pub(crate) fn functions(db: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    db.create_scalar_function("search_words", 1, flags, |c| Ok(words::index_words(c.get_raw(0).as_str()?)))?;
    db.create_scalar_function("search_tags", 1, flags, |c| Ok(words::index_tags(c.get_raw(0).as_str()?)))?;
    db.create_scalar_function("search_slot", 1, flags, |c| Ok(slot(c.get(0)?)))?;
    // The first argument is a term that `words::name_term` made; the others are names.
    db.create_scalar_function("name_matches", -1, flags, |c| {
        let term = c.get_raw(0).as_str()?;
        Ok((1..c.len()).any(|n| match c.get_raw(n) {
            ValueRef::Text(name) => words::name_matches(term, &String::from_utf8_lossy(name)),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => false,
        }))
    })
}

/// Makes the index where there is none by the present rules. It reads every post, once.
pub(crate) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    let known: Option<i64> = get(db, "SELECT value FROM meta WHERE key = 'search_rules'", [], |r| r.get(0))?;
    if known == Some(words::RULES) {
        return Ok(());
    }
    db.execute_batch("BEGIN EXCLUSIVE")?;
    for indexed in &INDEXED {
        let Indexed { table, map, fts, .. } = indexed;
        db.execute_batch(&format!("INSERT INTO {fts} ({fts}) VALUES ('delete-all'); DELETE FROM {map};"))?;
        db.execute_batch(&indexed.triggers())?;
        // Through a trigger, so that there is one way into the index; of a view, which keeps no copy of the rows.
        let insert = indexed.insert("new");
        db.execute_batch(&format!(
            "CREATE TEMP VIEW index_anew AS SELECT * FROM {table};
             CREATE TEMP TRIGGER index_anew_insert INSTEAD OF INSERT ON index_anew BEGIN {insert} END;
             INSERT INTO index_anew SELECT * FROM {table};
             DROP VIEW index_anew;"
        ))?;
    }
    let sql = "INSERT INTO meta (key, value) VALUES ('search_rules', ?1)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    run(db, sql, [words::RULES])?;
    db.execute_batch("COMMIT")
}

/// Key in `meta` while the index is to be rewritten: see [`still_names`].
pub(crate) const REWRITE: &str = "search_rewrite";

/// What the index holds of a post's text.
pub(crate) fn words_of_post(message: &str, hashtags: &str) -> Vec<String> {
    [words::index_words(message), words::index_tags(hashtags)].iter().flat_map(|words| each(words)).collect()
}

/// What the index holds of a file's name.
pub(crate) fn words_of_file(name: &str, extension: &str) -> Vec<String> {
    [words::index_words(name), words::index_tags(&format!("e{extension}"))]
        .iter()
        .flat_map(|words| each(words))
        .collect()
}

fn each(words: &str) -> impl Iterator<Item = String> {
    words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned)
}

/// Does a page of the index still bear the beginning of a removed word that no row begins a word with? FTS5 names a page by
/// as much of its first word as tells it from the page before, also after that word went. Most words name no page, so that
/// the index of all posts need not be rewritten for the removal of a few.
///
/// Within the transaction that removed the rows: afterwards nobody knows the words.
pub(crate) fn still_names(db: &Connection, removed: &BTreeSet<String>) -> rusqlite::Result<bool> {
    for Indexed { fts, .. } in &INDEXED {
        db.execute_batch(&format!(
            "CREATE VIRTUAL TABLE IF NOT EXISTS temp.{fts}_words USING fts5vocab(main, {fts}, instance)"
        ))?;
        // Opening the vocabulary writes out what the transaction changed, so that the names below are up to date.
        let begins_with = format!(
            "SELECT substr(CAST(term AS BLOB), 1, length(?1)) = ?1 FROM {fts}_words WHERE term >= CAST(?1 AS TEXT) LIMIT 1"
        );
        let is_used = |beginning: &[u8]| {
            Ok::<_, rusqlite::Error>(get(db, &begins_with, [beginning], |r| r.get(0))?.unwrap_or(false))
        };
        let sql = format!(
            "WITH RECURSIVE segment (id) AS (SELECT min(segid) FROM {fts}_idx
                UNION SELECT (SELECT min(segid) FROM {fts}_idx WHERE segid > segment.id) FROM segment WHERE id IS NOT NULL)
             SELECT 1 FROM segment CROSS JOIN {fts}_idx AS page ON page.segid = segment.id AND page.term = ?1"
        );
        let mut seen = BTreeSet::new();
        for beginning in removed.iter().flat_map(|word| (1..=word.len()).map(|n| &word.as_bytes()[..n])) {
            if seen.insert(beginning) && !is_used(beginning)? && exists(db, &sql, [[&b"0"[..], beginning].concat()])? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Rewrites the index, so that no page keeps even the beginning of a word whose last row was removed: FTS5 names a page by
/// the beginning of its first word, also after that word went.
pub(crate) fn scrub(db: &Connection) -> rusqlite::Result<()> {
    for Indexed { fts, columns, .. } in &INDEXED {
        // One segment alone is not rewritten, so another is put beside it.
        let blank = columns.split(", ").map(|_| "'scrub'").collect::<Vec<_>>().join(", ");
        db.execute_batch(&format!(
            "INSERT INTO {fts} (rowid, {columns}) VALUES ({0}, {blank});
             INSERT INTO {fts} ({fts}) VALUES ('optimize');
             INSERT INTO {fts} ({fts}, rowid, {columns}) VALUES ('delete', {0}, {blank});",
            i64::MIN
        ))?;
    }
    Ok(())
}

/// Rows of the index by slot, the newest first.
pub(super) struct Wanted<'a> {
    /// What matches, in the language of FTS5.
    pub(super) expression: &'a str,
    /// From and to, inclusive, in milliseconds.
    pub(super) span: (i64, i64),
    pub(super) without_span: Option<(i64, i64)>,
    pub(super) limit: i64,
    pub(super) offset: i64,
}

/// Ids of the posts that match.
pub(super) fn posts(db: &Connection, wanted: &Wanted<'_>) -> rusqlite::Result<Vec<model::Id>> {
    found(db, &INDEXED[0], wanted)
}

/// Ids of the files that match.
pub(super) fn files(db: &Connection, wanted: &Wanted<'_>) -> rusqlite::Result<Vec<model::Id>> {
    found(db, &INDEXED[1], wanted)
}

fn found(db: &Connection, indexed: &Indexed, wanted: &Wanted<'_>) -> rusqlite::Result<Vec<model::Id>> {
    let Indexed { map, fts, .. } = indexed;
    let sql = format!(
        "SELECT map.id FROM (SELECT rowid AS n FROM {fts} WHERE {fts} MATCH ?1 AND rowid BETWEEN ?2 AND ?3
            AND rowid NOT BETWEEN ?4 AND ?5 ORDER BY rowid DESC LIMIT ?6 OFFSET ?7) AS found
         CROSS JOIN {map} AS map ON map.n = found.n ORDER BY found.n DESC"
    );
    let (from, to) = wanted.span;
    // Rows without a slot of their time stand below all slots.
    let from = if from == i64::MIN { i64::MIN } else { slot(from) };
    let without = wanted.without_span.map_or((1, 0), |(from, to)| (slot(from), last_slot(to)));
    let values = params![wanted.expression, from, last_slot(to), without.0, without.1, wanted.limit, wanted.offset];
    all(db, &sql, values, crate::rows::first_id)
}
