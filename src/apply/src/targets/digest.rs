//! `mail` and `teams-digest`: what happened for a while in one letter, or in one post with a notice to those it concerns.
//!
//! ```text
//!  posts --> rows of the open digest --its time has come--> closed --> letter | post, then notices --> its items end
//! ```
//!
//! A digest is frozen when it is closed: its number makes its `Message-ID`, the reference in its post and the `chainId` of its
//! notices, so that each is found again after a lost answer. What changes later is told by a later digest.
//!
//! Invariants
//! - A post is in one digest as it was when that was closed; removed before, it is in none.
//! - An item ends when everything of its digest went out.

use std::collections::BTreeMap;

use microsoft::activity::{Notice, notify};
use microsoft::mail::{Letter, find, send};
use microsoft::targets::{TargetKind, TargetSettings};
use microsoft::teams::{Content, marker, posted};
use microsoft::{Call, Failure, html};
use model::event::{PostState, PurgeState};
use model::{Event, Kind, Outcome, Precedence, UnixMillis};
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::TargetError;
use super::item::{After, FORBIDDEN, LOOK_AGAIN_MS, LOOKS, SETTLE_MS, after, is_due};
use super::ledger::{self, Item, Ledger, LedgerError, State};
use super::route::Missing;
use super::runner::{Load, MAY_NOT_LOOK, Next, Runner, may_not_look};
use super::teams::{part, size, time};

/// Items gathered in one step.
const GATHER_MAX: usize = 64;
/// Something urgent closes the digest this soon.
const URGENT_MS: i64 = 2_000;
/// The frame of a digest in Teams besides its lines: its reference, and "edited" and "removed" of lines.
const FRAME_UNITS: usize = 500;
/// Refusals after which a notice is left out, or a digest given up.
const REFUSALS_MAX: u32 = 3;
/// Rows of one digest: what somebody still reads.
const ROWS_MAX: i64 = 200;
/// Characters of one post in a digest.
const EXCERPT_CHARS: usize = 400;
/// Files of one post in a digest, and characters of their names: a line alone fits into a message of Teams.
const FILES_MAX: usize = 10;
const FILE_NAME_CHARS: usize = 80;

/// A line of a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    lane: String,
    author: String,
    at: i64,
    text: String,
    files: Vec<(String, u64)>,
    precedence: String,
    is_reply: bool,
    /// "edited" or "removed", of a post that an earlier digest told.
    change: String,
}

/// A digest that is on its way.
#[derive(Clone, Debug)]
pub(super) struct Digest {
    number: i64,
    /// Steps that are done.
    done: i64,
    /// A step may have been done.
    unknown: bool,
    tries: u32,
    looks: u32,
    at: UnixMillis,
    lines: Vec<Line>,
    is_urgent: bool,
}

/// One step of a digest.
enum Step {
    Letter(Letter),
    Post { content: Content, marker: String },
    Notice(String, Notice),
}

/// The digest as HTML, by channel in the order of their first lines.
pub(super) fn text(name: &str, lines: &[Line]) -> String {
    let mut lanes: Vec<&str> = Vec::new();
    for line in lines {
        if !lanes.contains(&line.lane.as_str()) {
            lanes.push(&line.lane);
        }
    }
    let mut out = format!("<h3>{}: {} messages</h3>", html::escape(name), lines.len());
    for lane in lanes {
        out.push_str(&format!("<p><strong>{}</strong></p><ul>", html::escape(lane)));
        for line in lines.iter().filter(|line| line.lane == lane) {
            out.push_str(&one(line));
        }
        out.push_str("</ul>");
    }
    out
}

fn one(line: &Line) -> String {
    let mut out = String::from("<li>");
    if !line.precedence.is_empty() {
        out.push_str(&format!("<strong>{}</strong> ", line.precedence.to_uppercase()));
    }
    let reply = if line.is_reply { ", reply" } else { "" };
    let change = if line.change.is_empty() { String::new() } else { format!(", {}", line.change) };
    out.push_str(&format!("{} <em>{}{reply}{change}</em>", html::escape(&line.author), time(UnixMillis(line.at))));
    if line.change != "removed" {
        let excerpt: String = line.text.chars().take(EXCERPT_CHARS).collect();
        let more = if excerpt.len() < line.text.len() { " [...]" } else { "" };
        out.push_str(&format!("<br>{}{more}", html::escape(&excerpt).replace('\n', "<br>")));
    }
    for (name, bytes) in line.files.iter().take(FILES_MAX) {
        let name: String = name.chars().take(FILE_NAME_CHARS).collect();
        out.push_str(&format!("<br>\u{1F4CE} {} ({})", html::escape(&name), size(*bytes)));
    }
    if line.files.len() > FILES_MAX {
        out.push_str(&format!("<br>and {} more files", line.files.len() - FILES_MAX));
    }
    out.push_str("</li>");
    out
}

impl Runner {
    /// Gathers, closes and sends.
    pub(super) async fn step_digest(&mut self, now: UnixMillis) -> Result<Next, TargetError> {
        if self.gather_digest(now).await? {
            return Ok(Next::Again);
        }
        let target = self.target.name.clone();
        let (found, at) = self.shared.ledger(move |ledger| next_digest(ledger, &target, now)).await?;
        if let Some(digest) = found {
            self.send_digest(digest, now).await?;
            return Ok(Next::Again);
        }
        let next = self.step_items(now, Some(&[Kind::Purge])).await?;
        Ok(match (next, at) {
            (Next::Idle, Some(at)) => Next::At(at),
            (Next::At(a), Some(b)) => Next::At(a.min(b)),
            (next, _) => next,
        })
    }

    async fn gather_digest(&mut self, now: UnixMillis) -> Result<bool, TargetError> {
        let target = self.target.name.clone();
        let items = self.shared.ledger(move |ledger| ledger.planned_rows(&target, GATHER_MAX)).await?;
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
                    // A letter has room for everything.
                    let units_max = match self.target.kind {
                        TargetKind::TeamsDigest if self.target.account.is_some() => html::UNITS_MAX,
                        TargetKind::TeamsDigest
                        | TargetKind::Mail
                        | TargetKind::MailImport
                        | TargetKind::SharepointArchive
                        | TargetKind::TeamsImport
                        | TargetKind::TeamsDelegated => usize::MAX,
                    };
                    let gather = move |ledger: &mut Ledger| {
                        gather_one(ledger, &target, &item, &loaded.event, &loaded.author, due, units_max)
                    };
                    self.shared.ledger(gather).await?;
                }
                Load::Ends(outcome) => self.ended(&item, outcome, None).await?,
                Load::Dead(reason) => self.dead(&item, &reason).await?,
            }
        }
        Ok(any)
    }

    /// The steps of a digest, in order.
    fn steps(&self, digest: &Digest) -> Vec<Step> {
        let target = &self.target;
        let reference = format!("{}.{}", target.name, digest.number);
        let title = format!("{}: {} messages", target.name, digest.lines.len());
        let body = text(&target.name, &digest.lines);
        match target.kind {
            TargetKind::Mail => {
                let host = self.shared.options.core.node().to_string();
                vec![Step::Letter(Letter {
                    to: target.recipients.clone(),
                    subject: title,
                    html: body,
                    message_id: format!("<m365.{reference}@{host}.holdfast>"),
                    is_important: digest.is_urgent,
                })]
            }
            TargetKind::TeamsDigest => {
                let mut steps = Vec::new();
                if target.account.is_some() {
                    let marker = marker(&reference, 0);
                    let html = format!("{body}<p><em>{marker}</em></p>");
                    steps.push(Step::Post {
                        content: Content { html, is_important: digest.is_urgent, file: None },
                        marker,
                    });
                }
                let preview = digest.lines.last().map_or_else(String::new, |l| format!("{}: {}", l.author, l.text));
                let notice = Notice {
                    topic: title,
                    preview,
                    link: target.link.clone().unwrap_or_default(),
                    chain: chain(&reference),
                };
                steps.extend(target.recipients.iter().map(|user| Step::Notice(user.clone(), notice.clone())));
                steps
            }
            TargetKind::SharepointArchive
            | TargetKind::TeamsDelegated
            | TargetKind::TeamsImport
            | TargetKind::MailImport => Vec::new(),
        }
    }

    async fn send_digest(&mut self, mut digest: Digest, now: UnixMillis) -> Result<(), TargetError> {
        let steps = self.steps(&digest);
        let Some(step) = usize::try_from(digest.done).ok().and_then(|n| steps.get(n)) else {
            let (target, number) = (self.target.name.clone(), digest.number);
            self.shared.rests(&self.target.name, None);
            return self.shared.ledger(move |ledger| ledger.with(|tx| end_digest(tx, &target, number))).await;
        };
        let mailbox = self.target.mailbox.clone().unwrap_or_default();
        let precedence = if digest.is_urgent { Precedence::Immediate } else { Precedence::Routine };
        if digest.unknown {
            let found = match step {
                Step::Letter(letter) => self.letter_is_there(find(&mailbox, &letter.message_id, precedence)).await,
                Step::Post { marker, .. } => match self.find_since(None, marker, digest.at, precedence).await {
                    Ok(Some(message)) => self.note_message(&digest, message).await.map(|()| Ok(true))?,
                    Ok(None) => Ok(false),
                    Err(failure) => Err(failure),
                },
                // Sent again it replaces itself.
                Step::Notice(..) => Ok(false),
            };
            let repeats = matches!(step, Step::Notice(..));
            match found {
                Ok(true) => {
                    digest.done += 1;
                    return self.keep_digest(&digest, now, DONE, "").await;
                }
                Ok(false) if repeats || digest.looks + 1 >= LOOKS => {
                    digest.looks = 0;
                    return self.keep_digest(&digest, now, READY, "it was not there; sent again").await;
                }
                Ok(false) => {
                    digest.looks += 1;
                    return self
                        .keep_digest(&digest, UnixMillis(now.0 + LOOK_AGAIN_MS), UNKNOWN, "not there yet")
                        .await;
                }
                Err(failure) => match may_not_look(&failure) {
                    None => return self.digest_failed(digest, &failure, true, UNKNOWN, now).await,
                    // Nobody may look for it: after as many tries it is sent again.
                    Some(refused) => {
                        self.shared.rests(&self.target.name, Some((&refused, Some(MAY_NOT_LOOK))));
                        digest.looks += 1;
                        let (state, due) = match digest.looks >= LOOKS {
                            true => (READY, now),
                            false => (UNKNOWN, UnixMillis(now.0 + LOOK_AGAIN_MS)),
                        };
                        digest.looks %= LOOKS;
                        return self.keep_digest(&digest, due, state, &refused).await;
                    }
                },
            }
        }
        let (call, repeatable): (Call, bool) = match step {
            Step::Letter(letter) => (send(&mailbox, letter, precedence), false),
            Step::Post { content, .. } => (self.channel().post(None, content, precedence), false),
            Step::Notice(user, notice) => (notify(user, notice, precedence), true),
        };
        self.keep_digest(&digest, UnixMillis(now.0 + SETTLE_MS), SENDING, "").await?;
        match self.shared.options.graph.call(call).await {
            Ok(answer) => {
                if matches!(step, Step::Post { .. }) {
                    match posted(&answer) {
                        Ok(message) => self.note_message(&digest, message).await?,
                        Err(failure) => return self.digest_failed(digest, &failure, repeatable, READY, now).await,
                    }
                }
                digest.done += 1;
                digest.tries = 0;
                self.keep_digest(&digest, now, DONE, "").await
            }
            Err(failure) => self.digest_failed(digest, &failure, repeatable, READY, now).await,
        }
    }

    /// Each post in the digest stands in this message: an order to purge it removes the message.
    async fn note_message(&self, digest: &Digest, message: String) -> Result<(), TargetError> {
        let (target, number) = (self.target.name.clone(), digest.number.to_string());
        self.shared
            .ledger(move |ledger| {
                for item in ledger.gathered(&target)?.into_iter().filter(|item| item.request == number) {
                    let mut remote = ledger.standing(&target, &item.object)?.remote;
                    if !remote.parts.iter().any(|part| part.id == message) {
                        remote.parts.push(part(message.clone(), ""));
                        ledger.note(&target, &item.object, &remote)?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn letter_is_there(&self, call: Call) -> Result<bool, Failure> {
        let mut pages = self.shared.options.graph.pages(call);
        while let Some(page) = pages.next().await {
            let page = page?;
            if !page.value.is_empty() {
                return Ok(true);
            }
            if page.is_last {
                break;
            }
        }
        Ok(false)
    }

    async fn digest_failed(
        &mut self,
        mut digest: Digest,
        failure: &Failure,
        repeatable: bool,
        state: i64,
        now: UnixMillis,
    ) -> Result<(), TargetError> {
        // What cannot be done twice but the notices, which replace themselves, is the first step.
        let is_notice =
            self.target.kind == TargetKind::TeamsDigest && (digest.done > 0 || self.target.account.is_none());
        match after(failure, repeatable, digest.tries + 1, now) {
            // The app is not installed for somebody: no permission helps.
            After::Forbidden { reason, .. } if is_notice && digest.tries + 1 >= REFUSALS_MAX => {
                self.skip_notice(digest, now, &reason).await
            }
            After::Again { at, counts, reason } => {
                digest.tries += u32::from(counts);
                self.keep_digest(&digest, at, state, &reason).await
            }
            After::Park { at, reason } => self.keep_digest(&digest, at, state, &reason).await,
            After::Look { at, reason } => {
                digest.looks = 0;
                self.keep_digest(&digest, at, UNKNOWN, &reason).await
            }
            After::Rest { at, reason, next_step } => {
                self.rest(at, &reason, next_step.as_deref());
                self.keep_digest(&digest, at, state, &reason).await
            }
            After::Forbidden { at, reason } => {
                digest.tries += 1;
                self.rest(at, &reason, Some(FORBIDDEN));
                self.keep_digest(&digest, at, state, &reason).await
            }
            // One recipient that cannot be notified keeps nothing from the others.
            After::Dead { reason } if is_notice => self.skip_notice(digest, now, &reason).await,
            // Many items are in it: there is time to correct what is wrong before they are given up.
            After::Dead { reason } if digest.tries + 1 < REFUSALS_MAX => {
                let at = UnixMillis(now.0 + 5 * 60_000);
                digest.tries += 1;
                self.rest(at, &reason, Some("check what the mapping names, and the permissions of the application"));
                self.keep_digest(&digest, at, state, &reason).await
            }
            After::Dead { reason } => self.give_up_digest(&digest, &reason).await,
        }
    }

    /// The notice is counted as missing, and the next one goes.
    async fn skip_notice(&mut self, mut digest: Digest, now: UnixMillis, reason: &str) -> Result<(), TargetError> {
        warn!(target = self.target.name, reason, "a recipient of a digest cannot be notified");
        let next_step = "check the recipients that the mapping names, and that the app is installed for them";
        self.shared.rests(&self.target.name, Some((reason, Some(next_step))));
        let target = self.target.name.clone();
        self.shared.ledger(move |ledger| ledger.with(|tx| ledger::note_missing(tx, &target, "notice"))).await?;
        digest.done += 1;
        digest.tries = 0;
        self.keep_digest(&digest, now, DONE, reason).await
    }

    /// Nothing of it went out: its items are given up one by one, so that they can be tried again in another, or put away.
    async fn give_up_digest(&mut self, digest: &Digest, reason: &str) -> Result<(), TargetError> {
        let (target, number) = (self.target.name.clone(), digest.number);
        let items = self.shared.ledger(move |ledger| ledger.gathered(&target)).await?;
        let reason = format!("digest {number}: {reason}");
        for item in items.into_iter().filter(|item| item.request == number.to_string()) {
            let (target, object) = (self.target.name.clone(), item.object.clone());
            // Else it would count as told when it is tried again.
            self.shared.ledger(move |ledger| ledger.with(|tx| ledger::forget(tx, &target, &object))).await?;
            self.dead(&item, &reason).await?;
        }
        let target = self.target.name.clone();
        self.shared.ledger(move |ledger| ledger.with(|tx| end_digest(tx, &target, number))).await
    }

    async fn keep_digest(&self, digest: &Digest, due: UnixMillis, state: i64, reason: &str) -> Result<(), TargetError> {
        let (target, digest, reason) = (self.target.name.clone(), digest.clone(), reason.to_owned());
        let now = self.shared.now();
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    tx.execute(
                        "UPDATE digests SET state = ?3, done = ?4, tries = ?5, looks = ?6, due = ?7, reason = ?8,
                            at = CASE WHEN ?3 = 2 THEN ?9 ELSE at END
                         WHERE target = ?1 AND number = ?2",
                        params![
                            target,
                            digest.number,
                            state,
                            digest.done,
                            digest.tries,
                            digest.looks,
                            due.0,
                            reason,
                            now.0
                        ],
                    )?;
                    Ok(())
                })
            })
            .await
    }

    /// Takes what an order names out of digests that are still open. Says whether something of it may have gone out.
    pub(super) async fn purge_digests(&mut self, order: &PurgeState) -> Result<bool, TargetError> {
        let (target, posts) = (self.target.name.clone(), order.posts.clone());
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    let mut went_out = false;
                    for post in posts {
                        tx.execute(
                            "DELETE FROM digest_rows WHERE target = ?1 AND post = ?2",
                            params![target, post.as_str()],
                        )?;
                        let told: bool = tx.query_row(
                            "SELECT EXISTS (SELECT 1 FROM objects WHERE target = ?1 AND object = ?2 AND version_at <> 0)",
                            params![target, super::route::post_key(post)],
                            |r| r.get(0),
                        )?;
                        went_out |= told;
                    }
                    Ok(went_out)
                })
            })
            .await
    }
}

/// Digests that so many lines become at least.
pub(super) fn digests_for(lines: u32) -> u32 {
    lines.div_ceil(ROWS_MAX as u32)
}

/// Requests of one digest.
pub(super) fn steps_of(target: &TargetSettings) -> u64 {
    match target.kind {
        TargetKind::Mail => 1,
        TargetKind::TeamsDigest => u64::from(target.account.is_some()) + target.recipients.len() as u64,
        TargetKind::SharepointArchive
        | TargetKind::TeamsDelegated
        | TargetKind::TeamsImport
        | TargetKind::MailImport => 0,
    }
}

/// States of a digest.
const OPEN: i64 = 0;
const READY: i64 = 1;
const SENDING: i64 = 2;
const UNKNOWN: i64 = 3;
/// A step is done; the next one is ready.
const DONE: i64 = READY;

/// A number for the `chainId` of a digest, the same after a restart.
fn chain(reference: &str) -> i64 {
    let hash = blake3::derive_key("holdfast chain of a digest v1", reference.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    // JSON numbers are exact up to 2^53.
    (u64::from_le_bytes(first) >> 11) as i64
}

fn gather_one(
    ledger: &mut Ledger,
    target: &str,
    item: &Item,
    event: &Event,
    author: &str,
    due: i64,
    units_max: usize,
) -> Result<(), LedgerError> {
    let standing = ledger.standing(target, &item.object)?;
    let told_before = standing.version.is_some();
    ledger.with(|tx| {
        let Event::Post(state) = event else {
            ledger::note_missing(tx, target, Missing::Reaction.as_str())?;
            return ledger::end(tx, target, item.row, Outcome::Quarantined);
        };
        let removed = state.delete_at.0 != 0;
        let mut line = Line {
            lane: item.lane.clone(),
            author: author.to_owned(),
            at: state.create_at.0,
            text: if removed { String::new() } else { state.message.clone() },
            files: state.files.iter().map(|f| (f.name.clone(), f.size)).collect(),
            precedence: match item.precedence <= Precedence::Immediate {
                true => item.precedence.to_string(),
                false => String::new(),
            },
            is_reply: state.root_id.is_some(),
            change: String::new(),
        };
        let (number, known) = open_digest(tx, target, state, &line, due, units_max)?;
        // What an earlier digest told is changed by this one, whatever this one says of it already.
        let told = known.as_ref().map_or(told_before, |known| !known.change.is_empty());
        if removed && !told {
            tx.execute(
                "DELETE FROM digest_rows WHERE target = ?1 AND number = ?2 AND post = ?3",
                params![target, number, state.id.as_str()],
            )?;
        } else {
            line.change = match (told, removed) {
                (true, true) => "removed".to_owned(),
                (true, false) => "edited".to_owned(),
                (false, _) => String::new(),
            };
            let body = serde_json::to_string(&line).map_err(|e| LedgerError::Row(e.to_string()))?;
            tx.execute(
                "INSERT INTO digest_rows (target, number, post, at, body) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (target, number, post) DO UPDATE SET body = ?5",
                params![target, number, state.id.as_str(), state.create_at.0, body],
            )?;
        }
        tx.execute(
            "UPDATE items SET state = ?2, request = ?3 WHERE id = ?1",
            params![item.row, State::Gathered as i64, number.to_string()],
        )?;
        ledger::put_remote(tx, target, &item.object, Some(event.version()), &standing.remote)
    })
}

/// Takes a line out again that the mapping does not let go any more, unless some of its digest may have gone out. Says
/// whether it is out.
pub(super) fn drop_gathered(
    ledger: &mut Ledger,
    target: &str,
    item: &Item,
    event: &Event,
) -> Result<bool, LedgerError> {
    let Event::Post(state) = event else { return Ok(false) };
    let Ok(number) = item.request.parse::<i64>() else { return Ok(false) };
    ledger.with(|tx| {
        let is_open: bool = tx.query_row(
            "SELECT EXISTS (SELECT 1 FROM digests WHERE target = ?1 AND number = ?2 AND state IN (?3, ?4) AND done = 0)",
            params![target, number, OPEN, READY],
            |r| r.get(0),
        )?;
        if !is_open {
            return Ok(false);
        }
        tx.execute(
            "DELETE FROM digest_rows WHERE target = ?1 AND number = ?2 AND post = ?3",
            params![target, number, state.id.as_str()],
        )?;
        ledger::forget(tx, target, &item.object)?;
        Ok(true)
    })
}

/// The digest that gathers, and its line of the post, if it has one. One that has no room for the line is closed as it is.
fn open_digest(
    tx: &Transaction<'_>,
    target: &str,
    state: &PostState,
    line: &Line,
    due: i64,
    units_max: usize,
) -> Result<(i64, Option<Line>), LedgerError> {
    let open: Option<i64> = tx
        .query_row("SELECT number FROM digests WHERE target = ?1 AND state = ?2", params![target, OPEN], |r| r.get(0))
        .optional()?;
    if let Some(number) = open {
        let mut lines = lines_of(tx, target, number)?;
        let known = lines.remove(state.id.as_str());
        lines.insert(state.id.to_string(), line.clone());
        let all: Vec<Line> = lines.into_values().collect();
        let fits = all.len() as i64 <= ROWS_MAX
            && (units_max == usize::MAX || html::units(&text(target, &all)) + FRAME_UNITS <= units_max);
        // What was removed before it went out is not told, however full it is.
        let is_taken_out = known.is_some() && state.delete_at.0 != 0;
        if fits || is_taken_out || all.len() == 1 {
            tx.execute(
                "UPDATE digests SET due = min(due, ?3) WHERE target = ?1 AND number = ?2",
                params![target, number, due],
            )?;
            return Ok((number, known));
        }
        tx.execute(
            "UPDATE digests SET state = ?3, due = 0 WHERE target = ?1 AND number = ?2",
            params![target, number, READY],
        )?;
    }
    let number: i64 =
        tx.query_row("SELECT coalesce(max(number), 0) + 1 FROM digests WHERE target = ?1", [target], |r| r.get(0))?;
    tx.execute(
        "INSERT INTO digests (target, number, state, done, tries, looks, due, at, reason) VALUES (?1, ?2, ?3, 0, 0, 0, ?4, 0, '')",
        params![target, number, OPEN, due],
    )?;
    Ok((number, None))
}

/// Lines of a digest by their posts.
fn lines_of(tx: &Transaction<'_>, target: &str, number: i64) -> Result<BTreeMap<String, Line>, LedgerError> {
    let mut statement = tx.prepare_cached("SELECT post, body FROM digest_rows WHERE target = ?1 AND number = ?2")?;
    let rows =
        statement.query_map(params![target, number], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (post, body) = row?;
        let line = serde_json::from_str(&body).map_err(|e| LedgerError::Row(format!("a line of a digest: {e}")))?;
        Ok((post, line))
    })
    .collect()
}

/// The oldest digest whose time has come, closed by that, or the moment when one's will.
fn next_digest(
    ledger: &mut Ledger,
    target: &str,
    now: UnixMillis,
) -> Result<(Option<Digest>, Option<UnixMillis>), LedgerError> {
    ledger.with(|tx| {
        let found: Option<(i64, i64, i64, u32, u32, i64, i64)> = tx
            .query_row(
                "SELECT number, state, done, tries, looks, due, at FROM digests WHERE target = ?1 AND state < 4
                 ORDER BY number LIMIT 1",
                [target],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?)),
            )
            .optional()?;
        let Some((number, state, done, tries, looks, due, at)) = found else { return Ok((None, None)) };
        if !is_due(UnixMillis(due), now) {
            return Ok((None, Some(UnixMillis(due))));
        }
        if state == OPEN {
            tx.execute(
                "UPDATE digests SET state = ?3 WHERE target = ?1 AND number = ?2",
                params![target, number, READY],
            )?;
        }
        let mut statement =
            tx.prepare_cached("SELECT body FROM digest_rows WHERE target = ?1 AND number = ?2 ORDER BY at, post")?;
        let mut lines: Vec<Line> = Vec::new();
        for body in statement.query_map(params![target, number], |r| r.get::<_, String>(0))? {
            lines.push(serde_json::from_str(&body?).map_err(|e| LedgerError::Row(format!("a line of a digest: {e}")))?);
        }
        if lines.is_empty() {
            // Everything in it was removed before it went out.
            end_digest(tx, target, number)?;
            return Ok((None, Some(now)));
        }
        let is_urgent = lines.iter().any(|line| !line.precedence.is_empty());
        let unknown = state == UNKNOWN || state == SENDING;
        let digest = Digest { number, done, unknown, tries, looks, at: UnixMillis(at), lines, is_urgent };
        Ok((Some(digest), None))
    })
}

/// Everything of it went out.
fn end_digest(tx: &Transaction<'_>, target: &str, number: i64) -> Result<(), LedgerError> {
    let n = tx.execute(
        "DELETE FROM items WHERE target = ?1 AND state = ?2 AND request = ?3",
        params![target, State::Gathered as i64, number.to_string()],
    )?;
    ledger::count(tx, target, Outcome::Applied.as_str(), n as i64)?;
    tx.execute("DELETE FROM digest_rows WHERE target = ?1 AND number = ?2", params![target, number])?;
    // The row stays: its number is never given again.
    tx.execute("UPDATE digests SET state = 4, reason = '' WHERE target = ?1 AND number = ?2", params![target, number])?;
    tx.execute("DELETE FROM digests WHERE target = ?1 AND number < ?2 AND state = 4", params![target, number])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(lane: &str, text: &str) -> Line {
        Line {
            lane: lane.to_owned(),
            author: "Alice <a>".to_owned(),
            at: 1_700_000_000_000,
            text: text.to_owned(),
            ..Line::default()
        }
    }

    #[test]
    fn a_digest_tells_by_channel_and_escapes_what_people_wrote() {
        let mut flash = line("alpha/ops", "<b>contact</b>");
        flash.precedence = "flash".to_owned();
        let removed = Line { change: "removed".to_owned(), ..line("alpha/ops", "") };
        let html = text("ops-mail", &[flash, line("alpha/log", &"x".repeat(600)), removed]);
        assert!(html.contains("<strong>FLASH</strong> Alice &lt;a&gt;") && html.contains("&lt;b&gt;contact&lt;/b&gt;"));
        assert_eq!(html.matches("<ul>").count(), 2);
        assert!(html.contains("[...]") && html.contains(", removed</em>"), "{html}");
    }

    #[test]
    fn the_chain_of_a_digest_is_a_number_that_json_keeps() {
        assert_eq!(chain("t.1"), chain("t.1"));
        assert_ne!(chain("t.1"), chain("t.2"));
        assert!((0..1i64 << 53).contains(&chain("t.1")));
    }
}
