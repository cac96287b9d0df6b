//! `sharepoint-archive`: the files of a mission, and a record for each channel and day that people read and search.
//!
//! ```text
//!  posts, reactions --> rows of the ledger --> document (lane, day, number) --gathered for a while--> one PUT that replaces it
//!  files            --> <folder>/<team>/<channel>/files/<id>_<name>, once
//! ```
//!
//! A document is made whole from its rows each time, so a repeated PUT changes nothing and edits, removals, reactions and
//! late replies stand where they belong. A day goes on in another document once one has [`DOCUMENT_BYTES_MAX`], so that a
//! late word costs the link no more than that.
//!
//! Invariants
//! - A row holds only what was released to this target.
//! - An item ends when a document with its state is written, not when it is gathered.

use std::collections::BTreeMap;

use bytes::Bytes;
use microsoft::drive::{Folder, OnConflict, Place, item_of};
use microsoft::{Failure, html, names};
use model::event::{PostState, PurgeState, ReactionState};
use model::{Event, Id, Kind, Outcome, Precedence, UnixMillis};
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

use super::TargetError;
use super::item::{After, FORBIDDEN, PARKED, WAIT_MS_LONGEST, after, is_due};
use super::ledger::{self, Item, Ledger, LedgerError, State};
use super::remote::Remote;
use super::route::{Missing, takes_back};
use super::runner::{Load, Next, Runner};
use super::teams::{size, time};

/// A document is closed at this size: some seconds on a link of 64 kbit/s.
const DOCUMENT_BYTES_MAX: u64 = 48 * 1024;
/// Items gathered in one step.
const GATHER_MAX: usize = 64;
/// Something urgent is written this soon: others that belong to it come along.
const URGENT_MS: i64 = 2_000;

/// Wait before a document is written again that was refused for good.
const REFUSED_AGAIN_MS: i64 = 5 * 60_000;
/// What to do then.
const REFUSED: &str = "check the drive and the folder that the mapping names, and what lies under the document's name";

/// A post in the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Row {
    author: String,
    at: i64,
    /// Of a reply: the post that it answers.
    root: String,
    text: String,
    edited: i64,
    /// Earlier texts with the time until which they stood.
    before: Vec<(i64, String)>,
    deleted: i64,
    /// Removed by an order.
    purged: bool,
    is_note: bool,
    precedence: String,
    files: Vec<FileRow>,
    /// Who reacted, by emoji and id: two people may have one name.
    reacted: BTreeMap<String, BTreeMap<String, String>>,
    version: (u64, String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct FileRow {
    id: String,
    name: String,
    size: u64,
    url: String,
}

impl Row {
    /// Takes in a state of the post.
    fn take(&mut self, state: &PostState, author: &str, precedence: Precedence) {
        let version = (state.version.at.0, state.version.by.to_string());
        if self.version >= version || self.purged {
            return;
        }
        if !self.text.is_empty() && self.text != state.message && state.delete_at.0 == 0 {
            self.before.push((state.edit_at.0, std::mem::take(&mut self.text)));
        }
        self.version = version;
        self.author = author.to_owned();
        self.at = state.create_at.0;
        self.root = state.root_id.map_or_else(String::new, |id| id.to_string());
        self.text = state.message.clone();
        self.edited = state.edit_at.0;
        self.deleted = state.delete_at.0;
        self.is_note = state.kind.starts_with("system_");
        self.precedence = if precedence <= Precedence::Immediate { precedence.to_string() } else { String::new() };
        let known = std::mem::take(&mut self.files);
        let url = |id: &str| known.iter().find(|f| f.id == id).map_or_else(String::new, |f| f.url.clone());
        self.files = state
            .files
            .iter()
            .map(|f| FileRow { id: f.id.to_string(), name: f.name.clone(), size: f.size, url: url(f.id.as_str()) })
            .collect();
        if self.deleted != 0 {
            self.text.clear();
            self.before.clear();
            self.files.clear();
        }
    }

    /// Somebody reacts, or does so no longer.
    fn react(&mut self, state: &ReactionState, author: &str, present: bool) {
        let who = self.reacted.entry(state.emoji_name.clone()).or_default();
        match present {
            true => who.insert(state.user_id.to_string(), author.to_owned()),
            false => who.remove(state.user_id.as_str()),
        };
        self.reacted.retain(|_, who| !who.is_empty());
    }

    fn html(&self, id: &str, roots: &BTreeMap<String, (i64, String)>) -> String {
        let mut out = String::new();
        let class = if self.root.is_empty() { "post" } else { "reply" };
        out.push_str(&format!(
            "<div class=\"{class}\" id=\"{id}\"><p><strong>{}</strong> ",
            html::escape(&self.author)
        ));
        out.push_str(&format!("<time>{}</time>", time(UnixMillis(self.at))));
        if !self.precedence.is_empty() {
            out.push_str(&format!(" <b>{}</b>", self.precedence.to_uppercase()));
        }
        if let Some((at, author)) = roots.get(&self.root) {
            out.push_str(&format!(
                " in reply to <a href=\"#{}\">{}, {}</a>",
                self.root,
                html::escape(author),
                time(UnixMillis(*at))
            ));
        } else if !self.root.is_empty() {
            out.push_str(&format!(" in reply to {}", html::escape(&self.root)));
        }
        if self.edited != 0 && self.deleted == 0 {
            out.push_str(&format!(" edited {}", time(UnixMillis(self.edited))));
        }
        out.push_str("</p>");
        if self.purged {
            out.push_str("<p><em>removed by order</em></p>");
        } else if self.deleted != 0 {
            out.push_str(&format!("<p><em>deleted {}</em></p>", time(UnixMillis(self.deleted))));
        } else if self.is_note {
            out.push_str(&format!("<p><em>{}</em></p>", html::escape(&self.text)));
        } else {
            out.push_str(&html::render(&self.text));
        }
        for file in &self.files {
            let name = html::escape(&file.name);
            let shown = match file.url.as_str() {
                "" => name,
                url => format!("<a href=\"{}\">{name}</a>", html::escape(url)),
            };
            out.push_str(&format!("<p>\u{1F4CE} {shown} ({})</p>", size(file.size)));
        }
        for (at, text) in &self.before {
            out.push_str(&format!(
                "<blockquote><p>until {}</p>{}</blockquote>",
                time(UnixMillis(*at)),
                html::render(text)
            ));
        }
        if !self.reacted.is_empty() {
            let one = |(emoji, who): (&String, &BTreeMap<String, String>)| {
                let names: Vec<String> = who.values().map(|name| html::escape(name)).collect();
                let emoji = html::emoji(emoji).map_or_else(|| format!(":{}:", html::escape(emoji)), str::to_owned);
                format!("{emoji} {}", names.join(", "))
            };
            let all: Vec<String> = self.reacted.iter().map(one).collect();
            out.push_str(&format!("<p>{}</p>", all.join(" &middot; ")));
        }
        out.push_str("</div>\n");
        out
    }
}

/// A document of the record, whole.
pub(super) fn document(lane: &str, day: &str, rows: &[(String, Row)]) -> String {
    let title = format!("{} {}", html::escape(lane), html::escape(day));
    let roots: BTreeMap<String, (i64, String)> =
        rows.iter().filter(|(_, r)| r.root.is_empty()).map(|(id, r)| (id.clone(), (r.at, r.author.clone()))).collect();
    let mut out = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title><style>.reply{{margin-left:2em}}</style></head>\n\
         <body><h1>{title}</h1>\n"
    );
    rows.iter().for_each(|(id, row)| out.push_str(&row.html(id, &roots)));
    out.push_str("</body></html>\n");
    out
}

/// Documents that so many bytes of rows become, by lane.
pub(super) fn documents_for(bytes: &BTreeMap<String, u64>) -> u64 {
    bytes.values().map(|bytes| bytes.div_ceil(DOCUMENT_BYTES_MAX).max(1)).sum()
}

/// The day that a moment is in, UTC.
fn day_of(at: UnixMillis) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d").to_string()
}

/// A document that is to be written.
#[derive(Clone, Debug)]
struct Due {
    lane: String,
    day: String,
    generation: i64,
    tries: u32,
    /// Its item in the drive, to be removed first; empty where that is not known.
    clean: Option<String>,
    rows: Vec<(String, Row)>,
}

impl Runner {
    /// Gathers, then writes files, then documents whose time has come.
    pub(super) async fn step_archive(&mut self, now: UnixMillis) -> Result<Next, TargetError> {
        if self.gather(now).await? {
            return Ok(Next::Again);
        }
        let target = self.target.name.clone();
        let (due, earliest) = self.shared.ledger(move |ledger| next_document(ledger, &target, now)).await?;
        if let Some(due) = due {
            self.write_document(due).await?;
            return Ok(Next::Again);
        }
        let next = self.step_items(now, Some(&[Kind::File, Kind::Purge])).await?;
        Ok(match (next, earliest) {
            (Next::Idle, Some(at)) => Next::At(at),
            (Next::At(a), Some(b)) => Next::At(a.min(b)),
            (next, _) => next,
        })
    }

    /// Puts items that wait into the rows. Says whether there were any.
    async fn gather(&mut self, now: UnixMillis) -> Result<bool, TargetError> {
        let target = self.target.name.clone();
        let items = self
            .shared
            .ledger(move |ledger| {
                let open = ledger.planned_rows(&target, GATHER_MAX)?;
                Ok(open)
            })
            .await?;
        let any = !items.is_empty();
        for item in items {
            match self.load(&item).await? {
                Load::Loaded(loaded) => {
                    if let Some(why) = loaded.withheld() {
                        self.withheld(&item, why).await?;
                        continue;
                    }
                    let (target, gather_ms) = (self.target.name.clone(), i64::from(self.target.gather_seconds) * 1_000);
                    let due = now.0 + if item.precedence <= Precedence::Immediate { URGENT_MS } else { gather_ms };
                    self.shared
                        .ledger(move |ledger| gather_one(ledger, &target, &item, &loaded.event, &loaded.author, due))
                        .await?;
                }
                Load::Ends(outcome) => self.ended(&item, outcome, None).await?,
                Load::Dead(reason) => self.dead(&item, &reason).await?,
            }
        }
        Ok(any)
    }

    async fn write_document(&mut self, due: Due) -> Result<(), TargetError> {
        let (target, sending) = (self.target.name.clone(), due.clone());
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    let sql = "UPDATE days SET sending = ?4 WHERE target = ?1 AND lane = ?2 AND day = ?3";
                    tx.execute(sql, params![target, sending.lane, sending.day, sending.generation])?;
                    Ok(())
                })
            })
            .await?;
        let graph = self.shared.options.graph.clone();
        let folder = self.folder_of(&due.lane, None);
        let name = names::fit(&format!("{}.html", due.day));
        if let Some(item) = &due.clean {
            // Older versions of the document hold what was purged: the item goes with all of them, then it is written anew.
            // Nobody knows the item of a document whose first answer was lost.
            let remove = match item.as_str() {
                "" => folder.remove_named(&name, Precedence::Flash),
                item => folder.remove(item, Precedence::Flash),
            };
            match graph.call(remove).await {
                Ok(_) => {}
                Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => {}
                Err(failure) => return self.document_failed(&due, &failure).await,
            }
        }
        let bytes = Bytes::from(document(&due.lane, &due.day, &due.rows));
        let put = folder.put(&name, bytes, "text/html", OnConflict::Replace, Precedence::Routine);
        let written = graph.call(put).await.and_then(|answer| item_of(&answer));
        match written {
            Ok(found) => {
                let target = self.target.name.clone();
                self.shared.rests(&self.target.name, None);
                self.shared
                    .ledger(move |ledger| {
                        ledger.with(|tx| {
                            end_gathered(tx, &target, &due)?;
                            tx.execute(
                                "UPDATE days SET written = max(written, ?4), sending = 0, tries = 0, clean = 0, item = ?5, reason = ''
                                 WHERE target = ?1 AND lane = ?2 AND day = ?3",
                                params![target, due.lane, due.day, due.generation, found.id],
                            )?;
                            Ok(())
                        })
                    })
                    .await
            }
            Err(failure) => self.document_failed(&due, &failure).await,
        }
    }

    async fn document_failed(&mut self, due: &Due, failure: &Failure) -> Result<(), TargetError> {
        let now = self.shared.now();
        let (at, counts, reason) = match after(failure, true, due.tries + 1, now) {
            After::Again { at, counts, reason } => (at, counts, reason),
            After::Look { at, reason } => (at, true, reason),
            After::Rest { at, reason, next_step } => {
                self.rest(at, &reason, next_step.as_deref());
                (at, false, reason)
            }
            After::Forbidden { at, reason } => {
                self.rest(at, &reason, Some(FORBIDDEN));
                (at, true, reason)
            }
            After::Park { at, reason } => {
                self.shared.rests(&self.target.name, Some((&reason, Some(PARKED))));
                (at, false, reason)
            }
            // A document is never given up: others' words are in it. It waits by itself until somebody corrects what is wrong.
            After::Dead { reason } => {
                let reason = format!("{}/{}: {reason}", due.lane, due.day);
                self.shared.rests(&self.target.name, Some((&reason, Some(REFUSED))));
                (UnixMillis(now.0 + REFUSED_AGAIN_MS), true, reason)
            }
        };
        let (target, due) = (self.target.name.clone(), due.clone());
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    tx.execute(
                        "UPDATE days SET sending = 0, due = ?4, tries = tries + ?5, reason = ?6
                         WHERE target = ?1 AND lane = ?2 AND day = ?3",
                        params![target, due.lane, due.day, at.0, counts, reason],
                    )?;
                    Ok(())
                })
            })
            .await
    }

    fn folder_of(&self, lane: &str, below: Option<&str>) -> Folder {
        let base = self.target.folder.as_deref().unwrap_or_default();
        let path = base.split('/').chain(lane.split('/')).chain(below).filter(|name| !name.is_empty());
        Folder {
            drive: self.target.drive.clone().unwrap_or_default(),
            place: Place::Path(path.map(names::fit).collect()),
        }
    }

    /// Where files of the item's channel go.
    pub(super) fn files_place(&self, item: &Item) -> Folder {
        self.folder_of(&item.lane, Some("files"))
    }

    /// The bytes are in the drive: the record is to link to them.
    pub(super) async fn archived_file(&mut self, item: &Item, own: Remote) -> Result<(), TargetError> {
        // First of all: whatever becomes of the item, what stands there is known.
        self.went_on(item, &item.object, own.clone(), None).await?;
        let version = match self.load(item).await? {
            // Its post was removed meanwhile: it goes again.
            Load::Loaded(loaded) if loaded.withdrawn => return Ok(()),
            Load::Loaded(loaded) => loaded.event.version(),
            Load::Ends(outcome) => return self.ended(item, outcome, None).await,
            Load::Dead(reason) => return self.dead(item, &reason).await,
        };
        let (target, item) = (self.target.name.clone(), item.clone());
        let due = self.shared.now().0 + i64::from(self.target.gather_seconds) * 1_000;
        self.shared
            .ledger(move |ledger| {
                let url = own.file.as_ref().map_or_else(String::new, |f| f.url.clone());
                if let Some(post) = item.post {
                    let id = item.object.trim_start_matches("file:").to_owned();
                    ledger.with(|tx| {
                        change_row(tx, &target, post, due, |row| {
                            row.files.iter_mut().filter(|f| f.id == id).for_each(|f| f.url = url.clone());
                        })
                        .map(|_| ())
                    })?;
                }
                ledger.ended(&target, &item, Outcome::Applied, Some((version, &own)))
            })
            .await
    }

    /// Empties the rows of what an order names. Says whether there were any.
    pub(super) async fn purge_records(&mut self, order: &PurgeState) -> Result<bool, TargetError> {
        let (target, posts, files) = (self.target.name.clone(), order.posts.clone(), order.files.clone());
        let due = self.shared.now().0;
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    let mut any = false;
                    for post in posts {
                        let place = change_row(tx, &target, post, due, |row| {
                            *row = Row {
                                purged: true,
                                at: row.at,
                                author: row.author.clone(),
                                root: row.root.clone(),
                                ..Row::default()
                            };
                        })?;
                        any |= clean(tx, &target, place)?;
                    }
                    let mut statement =
                        tx.prepare("SELECT post, body FROM records WHERE target = ?1 AND instr(body, ?2) > 0")?;
                    let mut with_files = Vec::new();
                    for file in &files {
                        let rows = statement.query_map(params![target, file.as_str()], |r| r.get::<_, String>(0))?;
                        with_files.extend(rows.collect::<Result<Vec<_>, _>>()?);
                    }
                    for post in with_files.iter().filter_map(|post| post.parse::<Id>().ok()) {
                        let place = change_row(tx, &target, post, due, |row| {
                            row.files.retain(|f| !files.iter().any(|id| id.as_str() == f.id));
                        })?;
                        any |= clean(tx, &target, place)?;
                    }
                    Ok(any)
                })
            })
            .await
    }
}

/// The document is to be written anew rather than over its older versions.
fn clean(tx: &Transaction<'_>, target: &str, place: Option<(String, String)>) -> Result<bool, LedgerError> {
    let Some((lane, day)) = place else { return Ok(false) };
    tx.execute("UPDATE days SET clean = 1 WHERE target = ?1 AND lane = ?2 AND day = ?3", params![target, lane, day])?;
    Ok(true)
}

/// Puts one state into the rows. The item is gathered then, or has ended.
fn gather_one(
    ledger: &mut Ledger,
    target: &str,
    item: &Item,
    event: &Event,
    author: &str,
    due: i64,
) -> Result<(), LedgerError> {
    ledger.with(|tx| {
        let place = match event {
            Event::Post(state) => Some(take_post(tx, target, item, state, author, due)?),
            Event::Reaction(state) => change_row(tx, target, state.post_id, due, |row| {
                row.react(state, author, state.delete_at.0 == 0);
            })?,
            Event::User(_)
            | Event::Team(_)
            | Event::TeamMember(_)
            | Event::Channel(_)
            | Event::ChannelMember(_)
            | Event::File(_)
            | Event::Purge(_)
            | Event::Acknowledgement(_)
            | Event::Bookmark(_)
            | Event::Emoji(_) => None,
        };
        let Some((lane, day)) = place else {
            ledger::note_missing(tx, target, Missing::Reaction.as_str())?;
            return ledger::end(tx, target, item.row, Outcome::Quarantined);
        };
        let version = event.version();
        let generation: i64 = tx.query_row(
            "SELECT generation FROM days WHERE target = ?1 AND lane = ?2 AND day = ?3",
            params![target, lane, day],
            |r| r.get(0),
        )?;
        tx.execute(
            "UPDATE items SET state = ?2, request = ?3, looks = ?4, lane = ?5 WHERE id = ?1",
            params![item.row, State::Gathered as i64, day, generation, lane],
        )?;
        let withdrawn = matches!(event, Event::Post(_)) && takes_back(event);
        ledger::put_remote(tx, target, &item.object, Some(version), &Remote { withdrawn, ..Remote::default() })
    })
}

/// Takes an item out of the rows again that the mapping does not let go any more. Says that it is out.
pub(super) fn drop_gathered(
    ledger: &mut Ledger,
    target: &str,
    item: &Item,
    event: &Event,
    author: &str,
) -> Result<bool, LedgerError> {
    let due = item.due.0;
    ledger.with(|tx| {
        match event {
            // An earlier state of it may have been shown. It goes as well: which words of the row that was, nothing tells.
            Event::Post(state) => {
                let place: Option<(String, String)> = tx
                    .query_row(
                        "DELETE FROM records WHERE target = ?1 AND post = ?2 RETURNING lane, day",
                        params![target, state.id.as_str()],
                        |r| Ok((r.get(0)?, r.get(1)?)),
                    )
                    .optional()?;
                if let Some((lane, day)) = place {
                    touch(tx, target, &lane, &day, due)?;
                    // Never written and nothing left in it: there is no document.
                    tx.execute(
                        "DELETE FROM days WHERE target = ?1 AND lane = ?2 AND day = ?3 AND written = 0 AND item = '' AND NOT EXISTS
                            (SELECT 1 FROM records r WHERE r.target = ?1 AND r.lane = ?2 AND r.day = ?3)",
                        params![target, lane, day],
                    )?;
                }
            }
            Event::Reaction(state) => {
                change_row(tx, target, state.post_id, due, |row| row.react(state, author, false))?;
            }
            Event::User(_)
            | Event::Team(_)
            | Event::TeamMember(_)
            | Event::Channel(_)
            | Event::ChannelMember(_)
            | Event::File(_)
            | Event::Purge(_)
            | Event::Acknowledgement(_)
            | Event::Bookmark(_)
            | Event::Emoji(_) => return Ok(false),
        }
        ledger::forget(tx, target, &item.object)?;
        Ok(true)
    })
}

fn take_post(
    tx: &Transaction<'_>,
    target: &str,
    item: &Item,
    state: &PostState,
    author: &str,
    due: i64,
) -> Result<(String, String), LedgerError> {
    let change = |row: &mut Row| row.take(state, author, item.precedence);
    if let Some(place) = change_row(tx, target, state.id, due, change)? {
        return Ok(place);
    }
    let day = open_document(tx, target, &item.lane, &day_of(state.create_at))?;
    let mut row = Row::default();
    row.take(state, author, item.precedence);
    let body = to_text(&row)?;
    tx.execute(
        "INSERT INTO records (target, lane, day, post, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![target, item.lane, day, state.id.as_str(), state.create_at.0, body],
    )?;
    touch(tx, target, &item.lane, &day, due)?;
    Ok((item.lane.clone(), day))
}

/// The document of a day that still has room: `2026-11-23`, then `2026-11-23_2` and so on.
fn open_document(tx: &Transaction<'_>, target: &str, lane: &str, day: &str) -> Result<String, LedgerError> {
    let mut number = 1u32;
    loop {
        let name = if number == 1 { day.to_owned() } else { format!("{day}_{number}") };
        let bytes: i64 = tx
            .prepare_cached(
                "SELECT coalesce(sum(length(body)), 0) FROM records WHERE target = ?1 AND lane = ?2 AND day = ?3",
            )?
            .query_row(params![target, lane, name], |r| r.get(0))?;
        if (bytes as u64) < DOCUMENT_BYTES_MAX {
            return Ok(name);
        }
        number += 1;
    }
}

/// Changes the row of a post, if there is one, and says where it stands.
fn change_row(
    tx: &Transaction<'_>,
    target: &str,
    post: Id,
    due: i64,
    change: impl FnOnce(&mut Row),
) -> Result<Option<(String, String)>, LedgerError> {
    let found: Option<(String, String, String)> = tx
        .query_row(
            "SELECT lane, day, body FROM records WHERE target = ?1 AND post = ?2",
            params![target, post.as_str()],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )
        .optional()?;
    let Some((lane, day, body)) = found else { return Ok(None) };
    let mut row = of_text(&body)?;
    change(&mut row);
    tx.execute(
        "UPDATE records SET body = ?3 WHERE target = ?1 AND post = ?2",
        params![target, post.as_str(), to_text(&row)?],
    )?;
    touch(tx, target, &lane, &day, due)?;
    Ok(Some((lane, day)))
}

/// The document has to be written, at `due` or before.
fn touch(tx: &Transaction<'_>, target: &str, lane: &str, day: &str, due: i64) -> Result<(), LedgerError> {
    tx.execute(
        "INSERT INTO days (target, lane, day, generation, written, due, tries, sending, clean, item, reason)
         VALUES (?1, ?2, ?3, 1, 0, ?4, 0, 0, 0, '', '')
         ON CONFLICT (target, lane, day) DO UPDATE SET generation = generation + 1,
            due = CASE WHEN written = generation THEN ?4 ELSE min(due, ?4) END",
        params![target, lane, day, due],
    )?;
    Ok(())
}

/// The document whose time has come, or the moment when one's will.
fn next_document(
    ledger: &Ledger,
    target: &str,
    now: UnixMillis,
) -> Result<(Option<Due>, Option<UnixMillis>), LedgerError> {
    let found: Option<(String, String, i64, i64, u32, bool, String)> = ledger
        .db()
        .query_row(
            "SELECT lane, day, generation, due, tries, clean, item FROM days
             WHERE target = ?1 AND generation > written ORDER BY CASE WHEN due > ?2 THEN 0 ELSE due END LIMIT 1",
            params![target, now.0.saturating_add(WAIT_MS_LONGEST)],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?)),
        )
        .optional()?;
    let Some((lane, day, generation, due, tries, clean, item)) = found else { return Ok((None, None)) };
    if !is_due(UnixMillis(due), now) {
        return Ok((None, Some(UnixMillis(due))));
    }
    let mut statement = ledger.db().prepare_cached(
        "SELECT post, body FROM records WHERE target = ?1 AND lane = ?2 AND day = ?3 ORDER BY at, post",
    )?;
    let mut rows = Vec::new();
    for row in
        statement.query_map(params![target, lane, day], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?
    {
        let (post, body) = row?;
        rows.push((post, of_text(&body)?));
    }
    let clean = clean.then_some(item);
    Ok((Some(Due { lane, day, generation, tries, clean, rows }), None))
}

/// What the written document shows has ended.
fn end_gathered(tx: &Transaction<'_>, target: &str, due: &Due) -> Result<(), LedgerError> {
    let n = tx.execute(
        "DELETE FROM items WHERE target = ?1 AND state = ?2 AND lane = ?3 AND request = ?4 AND looks <= ?5",
        params![target, State::Gathered as i64, due.lane, due.day, due.generation],
    )?;
    ledger::count(tx, target, Outcome::Applied.as_str(), n as i64)
}

fn to_text(row: &Row) -> Result<String, LedgerError> {
    serde_json::to_string(row).map_err(|e| LedgerError::Row(e.to_string()))
}

fn of_text(text: &str) -> Result<Row, LedgerError> {
    serde_json::from_str(text).map_err(|e| LedgerError::Row(format!("a row of a record: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::testkit::reaction;

    #[test]
    fn two_people_of_one_name_react_each_by_themselves() {
        let mut row = Row::default();
        let react = |row: &mut Row, user, present| {
            let Event::Reaction(state) = reaction(1, user, "+1", present) else { panic!() };
            row.react(&state, "Alex Kim (@alex)", present);
        };
        react(&mut row, 7, true);
        react(&mut row, 8, true);
        react(&mut row, 7, false);
        assert_eq!(row.html("x", &BTreeMap::new()).matches("Alex Kim").count(), 1);
        react(&mut row, 8, false);
        assert_eq!(row.html("x", &BTreeMap::new()).matches("Alex Kim").count(), 0);
    }
}
