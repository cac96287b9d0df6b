//! Orders to remove content for good, given here or received, and what they do to the store.
//!
//! ```text
//!  operator --order--> rows emptied, ids remembered, outbox row     in one transaction
//!  replica  --order--> rows emptied, ids remembered                 in one transaction
//!      then, by the apply room: journal --> free pages, WAL and file bytes --> done, with the ledger row of a received order
//! ```
//!
//! Invariants
//! - A post or file that was purged never comes back, whatever arrives of it later.
//! - A purged post keeps its row, empty and deleted, so that threads and counts stay whole.
//! - An order is done only when neither a free page, nor the write-ahead log, nor a file holds the content.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;

use model::event::{EntryNumbers, PurgeState};
use model::{EntryId, Epoch, Event, Hlc, Id, Kind, Label, NodeId, Outcome, RangeSet, RawIds, Seq, UnixMillis};
use rusqlite::{Connection, Row, params};

use crate::channels::channel_row_by_id;
use crate::core::{Core, StoreError, Tx};
use crate::posts::post_row_by_id;
use crate::replica::{Ledger, Replica, epoch_of, save_ledger};
use crate::rows::{PostRow, all, count, exists, first_id, get, id_array, run};
use crate::search::index;

/// What an operator wants removed. Ids that are not known here are remembered all the same.
#[derive(Clone, Debug, Default)]
pub struct NewPurge {
    /// Posts.
    pub posts: Vec<Id>,
    /// Files, without those of the posts.
    pub files: Vec<Id>,
    /// Entries that hold the content, as far as the journal knows them.
    pub entries: Vec<EntryNumbers>,
    /// Their release label.
    pub label: Option<Label>,
    /// Who orders it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The posts' files stay.
    pub keep_files: bool,
    /// Other files with the same bytes go too.
    pub everywhere_used: bool,
}

/// What would go, without its text: whoever looks need not be allowed to read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "each is named after what it holds")]
pub struct PurgePreview {
    pub posts: Vec<PostToGo>,
    pub files: Vec<FileToGo>,
}

/// A post that would go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "each is named after what it holds")]
pub struct PostToGo {
    pub id: String,
    pub author: String,
    pub channel: String,
    pub create_at: UnixMillis,
    /// Older texts in its edit history.
    pub edits: u64,
    pub reactions: u64,
    /// Replies, which stay: each is a post of its own.
    pub replies: u64,
}

/// A file that would go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "each is named after what it holds")]
pub struct FileToGo {
    pub id: String,
    pub name: String,
    pub bytes: u64,
    /// Other files with the same bytes: these stay unless they are named or asked for.
    pub same_bytes: Vec<String>,
}

/// An order and how far it is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeRow {
    /// The order.
    pub order: PurgeState,
    /// The entry that brought it; `None` for one that was given here.
    pub source: Option<EntryId>,
    /// When it was taken up here.
    pub begun_at: UnixMillis,
    /// Changes up to here may hold the content: it is done only after they were captured.
    pub barrier: Hlc,
    /// When nothing of the content was left here; `None` before.
    pub done_at: Option<UnixMillis>,
    /// What was done, as JSON; "" before.
    pub report: String,
}

impl Core {
    /// What an order for these would remove here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn purge_preview(&self, posts: &[Id], files: &[Id], keep_files: bool) -> Result<PurgePreview, StoreError> {
        self.read(|db| {
            let mut preview = PurgePreview::default();
            let mut going: BTreeSet<Id> = files.iter().copied().collect();
            for row in posts.iter().filter_map(|id| post_row_by_id(db, *id).transpose()) {
                let row = row?;
                let id = row.id.as_str();
                let n = |sql: &str| count(db, sql, [id]).map(|n| n as u64);
                let author = get(db, "SELECT username FROM users WHERE id = ?1", [row.user_id.as_str()], |r| r.get(0))?;
                preview.posts.push(PostToGo {
                    id: id.to_owned(),
                    author: author.unwrap_or_default(),
                    channel: channel_row_by_id(db, row.channel_id)?.map_or(String::new(), |c| c.channel.name),
                    create_at: UnixMillis(row.create_at),
                    edits: n("SELECT count(*) FROM posts WHERE original_id = ?1 AND original_id <> ''")?,
                    reactions: n("SELECT count(*) FROM reactions WHERE post_id = ?1 AND delete_at = 0")?,
                    replies: n("SELECT count(*) FROM posts WHERE root_id = ?1 AND root_id <> '' AND original_id = ''
                        AND delete_at = 0")?,
                });
                if !keep_files {
                    going.extend(files_of_post(db, &row)?);
                }
            }
            let all_going: Vec<Id> = going.iter().copied().collect();
            for id in &going {
                let sql = "SELECT name, size, hash FROM files WHERE id = ?1";
                let read = |r: &Row<'_>| Ok((r.get(0)?, r.get::<_, i64>(1)?, r.get::<_, String>(2)?));
                let Some((name, size, hash)) = get(db, sql, [id.as_str()], read)? else { continue };
                let sql = "SELECT id FROM files WHERE hash = ?1 AND hash <> ''
                    AND id NOT IN (SELECT value FROM json_each(?2))";
                let same: Vec<Id> = all(db, sql, params![hash, id_array(&all_going)], first_id)?;
                let same_bytes = same.iter().map(Id::to_string).collect();
                preview.files.push(FileToGo { id: id.to_string(), name, bytes: size as u64, same_bytes });
            }
            Ok(preview)
        })
    }

    /// Every file that goes with these posts and files. With `same_bytes` also files that hold the same bytes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn files_to_purge(
        &self,
        posts: &[Id],
        files: &[Id],
        keep_files: bool,
        same_bytes: bool,
    ) -> Result<Vec<Id>, StoreError> {
        self.read(|db| {
            let mut going: BTreeSet<Id> = files.iter().copied().collect();
            for id in posts.iter().filter(|_| !keep_files) {
                if let Some(row) = post_row_by_id(db, *id)? {
                    going.extend(files_of_post(db, &row)?);
                }
            }
            if same_bytes {
                let ids: Vec<Id> = going.iter().copied().collect();
                let sql = "SELECT id FROM files WHERE hash <> '' AND hash IN
                    (SELECT hash FROM files WHERE id IN (SELECT value FROM json_each(?1)))";
                going.extend(all(db, sql, [id_array(&ids)], first_id)?);
            }
            Ok(going.into_iter().collect())
        })
    }

    /// Is there such a post here, or such a file? (Purged ones count.)
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn knows_post_or_file(&self, id: Id) -> Result<(bool, bool), StoreError> {
        self.read(|db| {
            let post = post_row_by_id(db, id)?.is_some_and(|row| row.original_id.is_none());
            Ok((post, exists(db, "SELECT 1 FROM files WHERE id = ?1", [id.as_str()])?))
        })
    }

    /// Takes an order up: its content is out of every answer when this returns, and the order will travel.
    ///
    /// # Errors
    /// When the store fails; nothing has changed then.
    pub fn order_purge(&self, new: &NewPurge) -> Result<PurgeState, StoreError> {
        let files = self.files_to_purge(&new.posts, &new.files, new.keep_files, new.everywhere_used)?;
        self.write(|tx| {
            let at = tx.tick();
            let mut channel = None;
            for post in &new.posts {
                channel = channel.or(post_row_by_id(&tx.db, *post)?.map(|row| row.channel_id));
            }
            for file in &files {
                let sql = "SELECT channel_id FROM files WHERE id = ?1";
                channel = channel.or(get(&tx.db, sql, [file.as_str()], first_id)?);
            }
            let order = PurgeState {
                version: tx.version_after(at, None),
                id: tx.mint(),
                at: UnixMillis(tx.now),
                by: new.by.clone(),
                reason: new.reason.clone(),
                posts: new.posts.clone(),
                files: files.clone(),
                entries: new.entries.clone(),
                keep_files: new.keep_files,
                everywhere_used: new.everywhere_used,
                label: new.label.clone(),
                channel_id: channel,
            };
            // The order stands behind every change that may hold the content, so it is its own barrier.
            let blobs = tx.purge_content(&order, true)?.blobs;
            tx.note_purge(&order, None, at, &blobs)?;
            tx.emit(at, &Event::Purge(order.clone()))?;
            Ok::<_, StoreError>(order)
        })
    }

    /// Is every change up to here captured, or set aside? What is set aside is read again before it is captured.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_captured_through(&self, barrier: Hlc) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM outbox WHERE at <= ?1 AND aside = 0";
        self.read(|db| Ok(!exists(db, sql, [barrier.0 as i64])?))
    }

    /// Posts and files that went under an order on this node.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn purged_under(&self, order: Id) -> Result<Vec<Id>, StoreError> {
        let sql = "SELECT id FROM purged WHERE purge = ?1";
        self.read(|db| all(db, sql, [order.as_str()], first_id).map_err(StoreError::from))
    }

    /// Orders, the newest first. `open`: only those that are not done here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn purges(&self, open: bool) -> Result<Vec<PurgeRow>, StoreError> {
        let sql = "SELECT * FROM purges WHERE done_at = 0 OR NOT ?1 ORDER BY begun_at DESC, id DESC";
        let rows = self.read(|db| all(db, sql, [open], purge_row).map_err(StoreError::from))?;
        rows.into_iter().map(|row| row.ok_or_else(|| StoreError("an order does not decode".to_owned()))).collect()
    }
}

impl Replica {
    /// Takes up an order of another node, once: its content is out of every answer when this returns. An order may come
    /// under more than one number; `true` when it was carried out before, and this entry has its effect with that.
    ///
    /// # Errors
    /// When the store fails; nothing has changed then.
    pub fn begin_purge(&self, order: &PurgeState, source: EntryId) -> Result<bool, StoreError> {
        self.core.write(|tx| {
            tx.core.hybrid.observe(order.version.at, UnixMillis(tx.now));
            let known = get(&tx.db, "SELECT done_at FROM purges WHERE id = ?1", [order.id.as_str()], |r| r.get(0))?;
            if let Some(done_at) = known {
                let done = i64::is_positive(done_at);
                if done {
                    account_orders(tx, &[source])?;
                }
                return Ok(done);
            }
            let wiped = tx.purge_content(order, false)?;
            tx.note_purge(order, Some(source), wiped.barrier, &wiped.blobs)?;
            Ok::<_, StoreError>(false)
        })
    }

    /// Was the object of this event purged?
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_purged(&self, event: &Event) -> Result<Option<PurgeState>, StoreError> {
        self.core.read(|db| {
            let Some(order) = order_over(db, event)? else { return Ok(None) };
            let row = get(db, "SELECT * FROM purges WHERE id = ?1", [&order], purge_row)?.flatten();
            Ok(row.map(|row| row.order))
        })
    }

    /// Accounts for entries that were purged: what had another end keeps it. Returns the numbers that ended so now.
    ///
    /// # Errors
    /// When the store fails; nothing is accounted for.
    pub fn account_purged(&self, origin: NodeId, epoch: Epoch, seqs: &RangeSet) -> Result<RangeSet, StoreError> {
        self.core.write(|tx| {
            let mut ledger = Ledger::new();
            let of_epoch = epoch_of(tx, &mut ledger, origin, epoch)?;
            let fresh = of_epoch.values().fold(seqs.clone(), |left, known| left.difference(known));
            of_epoch.entry(Outcome::Purged).or_default().union_with(&fresh);
            save_ledger(tx, &ledger)?;
            // By ranges: a peer says how long they are.
            for range in seqs.iter() {
                let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                let sql = "UPDATE quarantine SET body = x'' WHERE origin = ?1 AND epoch = ?2 AND seq BETWEEN ?3 AND ?4";
                run(&tx.db, sql, params![origin.0, epoch.0, bound(*range.start()), bound(*range.end())])?;
            }
            Ok(fresh)
        })
    }

    /// Removes what SQLite and the file store still hold of emptied rows: free pages, the write-ahead log, bytes that no
    /// row names.
    ///
    /// # Errors
    /// When the disk fails, or a reader keeps the log in use for long; to be tried again.
    pub fn scrub_store(&self) -> Result<(), StoreError> {
        let blobs: Vec<String> = self.core.read(|db| {
            let sql = "SELECT DISTINCT blob.value FROM purges, json_each(purges.blobs) AS blob WHERE done_at = 0
                AND NOT EXISTS (SELECT 1 FROM files WHERE hash = blob.value)";
            all(db, sql, [], |r| r.get(0)).map_err(StoreError::from)
        })?;
        let failed = |e: io::Error| StoreError(format!("removing a file's bytes: {e}"));
        for hash in blobs.iter().filter(|hash| hash.len() > 2) {
            self.core.remove_previews(hash).map_err(failed)?;
            let path = self.core.blob_path(hash);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
                Err(_) => {}
                Ok(()) => {
                    let folder = path.parent().expect("a blob lies in a folder");
                    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
                }
            }
        }
        self.core.scrub_database()
    }

    /// Notes what was done for an order so far.
    ///
    /// # Errors
    /// When the store fails; nothing is noted.
    pub fn report_purge(&self, id: Id, report: &str) -> Result<(), StoreError> {
        self.core.write(|tx| {
            run(&tx.db, "UPDATE purges SET report = ?2 WHERE id = ?1", params![id.as_str(), report])?;
            Ok::<_, StoreError>(())
        })
    }

    /// Notes that nothing of the order's content is left on this node; a received order has its effect with that, and so
    /// have the `others` that brought it too.
    ///
    /// # Errors
    /// When the store fails; nothing is noted.
    pub fn finish_purge(&self, id: Id, report: &str, others: &[EntryId]) -> Result<(), StoreError> {
        self.core.write(|tx| {
            let row = get(&tx.db, "SELECT * FROM purges WHERE id = ?1", [id.as_str()], purge_row)?.flatten();
            let Some(row) = row else { return Ok(()) };
            let sql = "UPDATE purges SET done_at = ?2, report = ?3, blobs = '[]' WHERE id = ?1";
            run(&tx.db, sql, params![id.as_str(), tx.now, report])?;
            let brought: Vec<EntryId> = row.source.iter().chain(others).copied().collect();
            account_orders(tx, &brought)?;
            Ok::<_, StoreError>(())
        })
    }
}

/// Entries that brought an order which is carried out have had their effect.
fn account_orders(tx: &Tx<'_>, entries: &[EntryId]) -> Result<(), StoreError> {
    let mut ledger = Ledger::new();
    for id in entries {
        let of_epoch = epoch_of(tx, &mut ledger, id.origin, id.epoch)?;
        if !of_epoch.values().any(|known| known.contains(id.seq.get())) {
            of_epoch.entry(Outcome::Applied).or_default().insert(id.seq.get());
        }
    }
    Ok(save_ledger(tx, &ledger)?)
}

/// What emptying rows leaves to be done.
#[derive(Debug, Default)]
struct Wiped {
    /// The newest outbox row that held some of it.
    barrier: Hlc,
    /// Hashes of file bytes.
    blobs: Vec<String>,
}

impl Tx<'_> {
    fn note_purge(
        &mut self,
        order: &PurgeState,
        source: Option<EntryId>,
        barrier: Hlc,
        blobs: &[String],
    ) -> rusqlite::Result<()> {
        let blobs = serde_json::to_string(blobs).expect("strings become JSON");
        let sql = "INSERT INTO purges (id, event, origin, epoch, seq, begun_at, barrier, blobs, done_at, report)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, '')";
        let event = Event::Purge(order.clone()).encode_with(&mut RawIds);
        let (origin, epoch, seq) = match source {
            Some(id) => (id.origin.0.to_vec(), id.epoch.0, id.seq.get() as i64),
            None => (Vec::new(), 0, 0),
        };
        let barrier = barrier.0 as i64;
        run(&self.db, sql, params![order.id.as_str(), event, origin, epoch, seq, self.now, barrier, blobs])?;
        Ok(())
    }

    fn purge_content(&mut self, order: &PurgeState, ours: bool) -> Result<Wiped, StoreError> {
        let mut wiped = Wiped::default();
        let (mut emptied, mut words) = (Vec::new(), BTreeSet::new());
        let mut files: BTreeSet<Id> = order.files.iter().copied().collect();
        let mut with_names = BTreeSet::new();
        for post in &order.posts {
            let sql = "INSERT INTO purged (id, purge, with_files) VALUES (?1, ?2, ?3)
                ON CONFLICT (id) DO UPDATE SET purge = excluded.purge, with_files = max(with_files, excluded.with_files)";
            run(&self.db, sql, params![post.as_str(), order.id.as_str(), !order.keep_files])?;
            let Some(row) = post_row_by_id(&self.db, *post)?.filter(|row| row.original_id.is_none()) else { continue };
            // What never leaves a node is no other node's to remove.
            if !ours && channel_row_by_id(&self.db, row.channel_id)?.is_none_or(|c| c.local) {
                continue;
            }
            if !order.keep_files {
                let of_post = files_of_post(&self.db, &row)?;
                files.extend(&of_post);
                with_names.extend(of_post);
            }
            words.extend(self.words_of_post(&row)?);
            emptied.extend(self.empty_post(row, order)?);
        }
        let threads: BTreeSet<Id> = emptied.iter().map(|row| row.root_id.unwrap_or(row.id)).collect();
        for thread in threads {
            self.recount_thread(thread)?;
        }
        for row in &emptied {
            // Not as it was, as for a deleted post: the text must not go out once more.
            self.tell_post_deleted(row)?;
        }
        if order.everywhere_used {
            let ids: Vec<Id> = files.iter().copied().collect();
            let sql = "SELECT id FROM files WHERE hash <> '' AND hash IN
                (SELECT hash FROM files WHERE id IN (SELECT value FROM json_each(?1)))";
            files.extend(all(&self.db, sql, [id_array(&ids)], first_id)?);
        }
        for file in &files {
            let sql = "SELECT name, extension FROM files WHERE id = ?1";
            let named = get(&self.db, sql, [file.as_str()], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
            if let Some((name, extension)) = named {
                words.extend(index::words_of_file(&name, &extension));
            }
            wiped.blobs.extend(self.empty_file(*file, order, with_names.contains(file))?);
        }
        wiped.barrier = self.empty_outbox(order, &files)?;
        self.empty_quarantine(order, &files)?;
        if index::still_names(&self.db, &words)? {
            let sql = "INSERT INTO meta (key, value) VALUES (?1, 1) ON CONFLICT (key) DO NOTHING";
            run(&self.db, sql, [index::REWRITE])?;
        }
        Ok(wiped)
    }

    /// What the index holds, or held, of a post and its earlier texts.
    fn words_of_post(&self, row: &PostRow) -> rusqlite::Result<BTreeSet<String>> {
        let sql = "SELECT message, hashtags FROM posts WHERE id = ?1 OR (original_id = ?1 AND original_id <> '')";
        let texts = all(&self.db, sql, [row.id.as_str()], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
        Ok(texts.iter().flat_map(|(message, hashtags)| index::words_of_post(message, hashtags)).collect())
    }

    /// Empties a post; returns it as it is then, unless it was so before.
    fn empty_post(&mut self, mut row: PostRow, order: &PurgeState) -> Result<Option<PostRow>, StoreError> {
        let id = row.id;
        run(&self.db, "DELETE FROM posts WHERE original_id = ?1 AND original_id <> ''", [id.as_str()])?;
        run(&self.db, "DELETE FROM reactions WHERE post_id = ?1", [id.as_str()])?;
        run(&self.db, "DELETE FROM acknowledgements WHERE post_id = ?1", [id.as_str()])?;
        run(&self.db, "DELETE FROM late_posts WHERE post_id = ?1", [id.as_str()])?;
        if row.version >= order.version && row.message.is_empty() && row.delete_at > 0 {
            return Ok(None);
        }
        row.message = String::new();
        row.props = "{}".to_owned();
        row.hashtags = String::new();
        row.priority = String::new();
        row.is_pinned = false;
        row.edit_at = 0;
        row.delete_at = order.at.0;
        row.update_at = row.update_at.max(order.at.0);
        row.state_at = row.state_at.max(order.at.0);
        row.version = row.version.max(order.version);
        row.changed_at = self.change(row.update_at);
        if !order.keep_files {
            row.file_ids.clear();
        }
        self.put_post(&row)?;
        Ok(Some(row))
    }

    /// Takes a file's bytes away, and with the post that showed it also what it was called. Returns the bytes' hash.
    fn empty_file(&mut self, id: Id, order: &PurgeState, with_name: bool) -> Result<Option<String>, StoreError> {
        let sql = "INSERT INTO purged (id, purge, with_files) VALUES (?1, ?2, 0)
            ON CONFLICT (id) DO UPDATE SET purge = excluded.purge";
        run(&self.db, sql, [id.as_str(), order.id.as_str()])?;
        let sql = "SELECT hash, post_id FROM files WHERE id = ?1";
        let read = |r: &Row<'_>| Ok((r.get::<_, String>(0)?, crate::rows::opt_id(r, "post_id")?));
        let Some((hash, post)) = get(&self.db, sql, [id.as_str()], read)? else { return Ok(None) };
        let sql = "UPDATE files SET hash = '', mini_preview = '', delete_at = ?2, update_at = max(update_at, ?2),
                name = CASE WHEN ?3 THEN '' ELSE name END, extension = CASE WHEN ?3 THEN '' ELSE extension END,
                mime_type = CASE WHEN ?3 THEN '' ELSE mime_type END, size = CASE WHEN ?3 THEN 0 ELSE size END,
                width = CASE WHEN ?3 THEN 0 ELSE width END, height = CASE WHEN ?3 THEN 0 ELSE height END
            WHERE id = ?1";
        run(&self.db, sql, params![id.as_str(), order.at.0, with_name])?;
        if let Some(row) = post.map(|post| post_row_by_id(&self.db, post)).transpose()?.flatten()
            && row.delete_at == 0
        {
            let changed = self.change(row.update_at);
            run(&self.db, "UPDATE posts SET changed_at = ?2 WHERE id = ?1", params![row.id.as_str(), changed])?;
            self.tell_post("post_edited", &row)?;
        }
        Ok((!hash.is_empty()).then_some(hash))
    }

    /// What waits to be captured goes on without its content. Returns the place of the newest such row: capture may have
    /// read it before it was emptied.
    fn empty_outbox(&mut self, order: &PurgeState, files: &BTreeSet<Id>) -> Result<Hlc, StoreError> {
        let sql = "SELECT at, kind, event FROM outbox ORDER BY at";
        let rows: Vec<(i64, u8, Vec<u8>)> = all(&self.db, sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        let mut newest = Hlc::ZERO;
        for (at, kind, bytes) in rows {
            let event = Kind::from_number(kind).and_then(|kind| Event::decode_with(kind, &bytes, &mut RawIds).ok());
            let Some(mut event) = event.filter(|event| is_about(event, order, files)) else { continue };
            newest = newest.max(Hlc(at as u64));
            match &mut event {
                Event::Post(post) => {
                    post.message = String::new();
                    post.props = String::new();
                    post.hashtags = String::new();
                    post.priority = None;
                    post.delete_at = order.at;
                    if !order.keep_files {
                        post.files.clear();
                    }
                }
                Event::File(file) => {
                    file.stub.name = String::new();
                    file.stub.extension = String::new();
                    file.stub.mime_type = String::new();
                }
                // An emoji or a time, and two ids.
                Event::Reaction(_) | Event::Acknowledgement(_) => continue,
                Event::User(_)
                | Event::Team(_)
                | Event::TeamMember(_)
                | Event::Channel(_)
                | Event::ChannelMember(_)
                | Event::Emoji(_)
                | Event::Purge(_)
                | Event::Bookmark(_) => continue,
            }
            let emptied = event.encode_with(&mut RawIds);
            run(&self.db, "UPDATE outbox SET event = ?2 WHERE at = ?1", params![at, emptied])?;
        }
        Ok(newest)
    }

    fn empty_quarantine(&mut self, order: &PurgeState, files: &BTreeSet<Id>) -> Result<(), StoreError> {
        let sql = "SELECT rowid, kind, body FROM quarantine WHERE length(body) > 0";
        let rows: Vec<(i64, u8, Vec<u8>)> = all(&self.db, sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        for (rowid, kind, body) in rows {
            let event = Kind::from_number(kind).and_then(|kind| Event::decode_with(kind, &body, &mut RawIds).ok());
            if event.is_some_and(|event| is_about(&event, order, files)) {
                run(&self.db, "UPDATE quarantine SET body = x'' WHERE rowid = ?1", [rowid])?;
            }
        }
        Ok(())
    }

    /// Was the object of this event purged?
    pub(crate) fn is_purged(&self, event: &Event) -> rusqlite::Result<bool> {
        Ok(order_over(&self.db, event)?.is_some())
    }
}

/// Does the event hold content that the order is about?
fn is_about(event: &Event, order: &PurgeState, files: &BTreeSet<Id>) -> bool {
    match event {
        Event::Post(s) => order.posts.contains(&s.id),
        Event::Reaction(s) => order.posts.contains(&s.post_id),
        Event::Acknowledgement(s) => order.posts.contains(&s.post_id),
        Event::File(s) => {
            files.contains(&s.stub.id) || (!order.keep_files && s.post_id.is_some_and(|p| order.posts.contains(&p)))
        }
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Emoji(_)
        | Event::Purge(_)
        | Event::Bookmark(_) => false,
    }
}

/// The order under which the object of an event went, if it did.
fn order_over(db: &Connection, event: &Event) -> rusqlite::Result<Option<String>> {
    const BY_ID: &str = "SELECT purge FROM purged WHERE id = ?1";
    let by_id = |id: Id| get(db, BY_ID, [id.as_str()], |r| r.get(0));
    match event {
        Event::Post(s) => by_id(s.id),
        Event::Reaction(s) => by_id(s.post_id),
        Event::Acknowledgement(s) => by_id(s.post_id),
        Event::File(s) => match (by_id(s.stub.id)?, s.post_id) {
            (None, Some(post)) => {
                let sql = "SELECT purge FROM purged WHERE id = ?1 AND with_files = 1";
                get(db, sql, [post.as_str()], |r| r.get(0))
            }
            (found, _) => Ok(found),
        },
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Emoji(_)
        | Event::Purge(_)
        | Event::Bookmark(_) => Ok(None),
    }
}

fn files_of_post(db: &Connection, row: &PostRow) -> rusqlite::Result<Vec<Id>> {
    let sql = "SELECT id FROM files WHERE (post_id = ?1 AND post_id <> '')
        OR id IN (SELECT value FROM json_each(?2))";
    all(db, sql, params![row.id.as_str(), id_array(&row.file_ids)], first_id)
}

fn purge_row(r: &Row<'_>) -> rusqlite::Result<Option<PurgeRow>> {
    let bytes: Vec<u8> = r.get("event")?;
    let Ok(Event::Purge(order)) = Event::decode_with(Kind::Purge, &bytes, &mut RawIds) else { return Ok(None) };
    let origin: Vec<u8> = r.get("origin")?;
    let seq = Seq::new(r.get::<_, i64>("seq")? as u64);
    let epoch = Epoch(r.get("epoch")?);
    let source = <[u8; 16]>::try_from(origin).ok().zip(seq);
    let done_at: i64 = r.get("done_at")?;
    Ok(Some(PurgeRow {
        order,
        source: source.map(|(origin, seq)| EntryId { origin: NodeId(origin), epoch, seq }),
        begun_at: UnixMillis(r.get("begun_at")?),
        barrier: Hlc(r.get::<_, i64>("barrier")? as u64),
        done_at: (done_at > 0).then_some(UnixMillis(done_at)),
        report: r.get("report")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Applied;
    use crate::testkit::{Node, Sent};
    use crate::types::{NewPost, PostPatch};

    fn order(node: &Node, new: &NewPurge) -> PurgeState {
        let order = node.core.order_purge(new).unwrap();
        node.core.replica().scrub_store().unwrap();
        node.core.replica().finish_purge(order.id, "{}", &[]).unwrap();
        order
    }

    fn of_posts(posts: &[Id]) -> NewPurge {
        let (by, reason) = ("duty officer".to_owned(), "wrong channel".to_owned());
        NewPurge { posts: posts.to_vec(), by, reason, ..NewPurge::default() }
    }

    /// Is the text in any file of the store, the database's own among them?
    fn is_kept(node: &Node, text: &str) -> bool {
        fn search(dir: &std::path::Path, text: &[u8]) -> bool {
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).any(|path| match path.is_dir() {
                true => search(&path, text),
                false => fs::read(&path).unwrap().windows(text.len()).any(|w| w == text),
            })
        }
        search(node.dir.path(), text.as_bytes())
    }

    fn is_lost(node: &Node, file: Id) -> bool {
        node.core.file_path(file).unwrap().is_none()
    }

    #[test]
    fn a_purged_post_leaves_nothing_in_pages_or_log_and_clients_hear_no_text() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let post = node.say(&alice, square.id, None, "spilled at first");
        for n in 0..30 {
            let text = format!("spilled in edit {n}, {}", "long ".repeat(200));
            node.core.patch_post(&alice, post.id, &PostPatch { message: Some(text), ..PostPatch::default() }).unwrap();
            node.say(&alice, square.id, None, "something else");
        }
        assert!(is_kept(&node, "spilled in edit 3"));
        node.events.take();
        order(&node, &of_posts(&[post.id]));
        assert!(!is_kept(&node, "spilled"));
        let told = node.events.take();
        assert!(told.iter().any(|b| b.event == "post_deleted"));
        assert!(told.iter().all(|b| !format!("{b:?}").contains("spilled")), "{told:?}");
        assert_eq!(node.core.post(&alice, post.id, false).unwrap_err().status_code, 404);
        let node = node.reopened();
        assert!(!is_kept(&node, "spilled"));
        assert!(node.core.purges(true).unwrap().is_empty());
        assert_eq!(node.core.purges(false).unwrap().len(), 1);
    }

    #[test]
    fn what_comes_of_a_purged_post_later_changes_nothing() {
        let (a, b) = (Node::new(1), Node::new(2));
        let alice = a.user("alice");
        let (_, square) = a.team(&alice, "mission");
        b.apply(&a.drain());
        let post = a.say(&alice, square.id, None, "spilled");
        a.core.save_reaction(&alice, alice.user_id, post.id, "eyes").unwrap();
        let original = a.drain();
        order(&a, &of_posts(&[post.id]));
        let sent: Vec<Sent> = a.drain();
        let Event::Purge(received) = &sent.last().unwrap().event else { panic!("the order travels: {sent:?}") };
        b.core.replica().begin_purge(received, sent.last().unwrap().id).unwrap();
        assert!(b.apply(&original).iter().all(|applied| *applied == Applied::Purged));
        assert!(!is_kept(&b, "spilled"));
        assert!(b.core.replica().is_purged(&original[0].event).unwrap().is_some());
        assert_eq!(b.core.replica().ledger().unwrap().iter().filter(|r| r.outcome == Outcome::Purged).count(), 1);
    }

    #[test]
    fn a_file_goes_alone_and_equal_bytes_only_when_asked_for() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let files: Vec<Id> = (0..3).map(|n| node.upload(&alice, square.id, &format!("{n}.txt"), b"spilled")).collect();
        let share = |file: Id| {
            let new = NewPost {
                channel_id: square.id.to_string(),
                message: "see file".to_owned(),
                file_ids: vec![file.to_string()],
                ..NewPost::default()
            };
            node.core.create_post(&alice, &new, true).unwrap().id
        };
        let posts: Vec<Id> = files.iter().map(|file| share(*file)).collect();
        let preview = node.core.purge_preview(&[], &files[..1], false).unwrap();
        assert_eq!(preview.files[0].same_bytes.len(), 2);
        order(&node, &NewPurge { files: vec![files[0]], ..of_posts(&[]) });
        assert!(is_lost(&node, files[0]) && !is_lost(&node, files[1]) && is_kept(&node, "spilled"));
        assert_eq!(node.core.post(&alice, posts[0], false).unwrap().message, "see file");
        assert_eq!(node.core.file_info(&alice, files[0]).unwrap_err().status_code, 404);
        // An edit of the post does not bring it back.
        let patch = PostPatch { message: Some("see nothing".to_owned()), ..PostPatch::default() };
        node.core.patch_post(&alice, posts[0], &patch).unwrap();
        assert_eq!(node.core.file_info(&alice, files[0]).unwrap_err().status_code, 404);
        order(&node, &NewPurge { keep_files: true, ..of_posts(&posts[1..2]) });
        assert!(!is_lost(&node, files[1]), "told to keep it");
        order(&node, &NewPurge { everywhere_used: true, ..of_posts(&posts[1..2]) });
        assert!(is_lost(&node, files[1]) && is_lost(&node, files[2]));
        assert!(
            node.core
                .blob_path(&data_encoding::HEXLOWER.encode(blake3::hash(b"spilled").as_bytes()))
                .metadata()
                .is_err()
        );
    }

    #[test]
    fn bodies_kept_aside_and_rows_not_captured_yet_are_emptied() {
        let (a, b) = (Node::new(1), Node::new(2));
        let alice = a.user("alice");
        let (_, square) = a.team(&alice, "mission");
        // The channel is not known at the other side: the post is kept aside there.
        a.drain();
        let post = a.say(&alice, square.id, None, "spilled");
        let sent = a.drain();
        assert!(matches!(b.apply(&sent)[0], Applied::Quarantined { .. }));
        assert!(is_kept(&b, "spilled"));
        a.core
            .patch_post(
                &alice,
                post.id,
                &PostPatch { message: Some("spilled more".to_owned()), ..PostPatch::default() },
            )
            .unwrap();
        order(&a, &of_posts(&[post.id]));
        let waiting = a.outbox();
        assert!(waiting.iter().all(|row| !format!("{:?}", row.event).contains("spilled")), "{waiting:?}");
        let Event::Purge(received) = &waiting.last().unwrap().event else { panic!("{waiting:?}") };
        let source = EntryId { seq: Seq::new(99).unwrap(), ..sent[0].id };
        b.core.replica().begin_purge(received, source).unwrap();
        b.core.replica().scrub_store().unwrap();
        assert!(!is_kept(&b, "spilled"));
        b.core.replica().finish_purge(received.id, "{}", &[]).unwrap();
        let ledger = b.core.replica().ledger().unwrap();
        assert!(ledger.iter().any(|r| r.outcome == Outcome::Applied && r.ranges.contains(99)));
    }

    #[test]
    fn accounting_costs_by_ranges_however_many_numbers_they_have() {
        let (a, b) = (Node::new(1), Node::new(2));
        let alice = a.user("alice");
        let (_, square) = a.team(&alice, "mission");
        a.drain();
        a.say(&alice, square.id, None, "spilled");
        let sent = a.drain();
        assert!(matches!(b.apply(&sent)[0], Applied::Quarantined { .. }));
        let numbers: RangeSet = RangeSet::from(1..=u64::MAX / 2 + 9);
        let replica = b.core.replica();
        let fresh = replica.account_purged(a.id(), Epoch::FIRST, &numbers).unwrap();
        assert!(!fresh.contains(sent[0].id.seq.get()), "it had ended as kept aside");
        assert_eq!(replica.quarantine_list().unwrap()[0].body_bytes, 0);
    }
}
