//! `teams-import`: what was said, in a channel of Teams, at the times and by the people it was said at and by.
//!
//! Graph takes messages with times and authors of their own only into a channel that this application has opened for it, and
//! while that is open nobody else can post there. So everything gathers for a while and large files go to the drive first; then
//! the channel is opened ([`super::gate`]), what has gathered is imported, and it is closed again.
//!
//! The time is the natural key: a channel holds one message for each millisecond. Each message gets its own, durably and
//! before it is sent; sent again, it is refused as being there.
//!
//! Invariants
//! - The time of a message is its original, or the next millisecond that is free; it never changes once it was taken there.
//! - A post goes out as it was last said before it went. What changes later cannot be expressed, and is counted.
//! - Whoever Entra does not know is named in the text of a message of the stand-in account.

use std::time::Duration;

use microsoft::Failure;
use microsoft::html;
use microsoft::targets::TargetSettings;
use microsoft::teams::{Author, Content, Message, MessageOf, posted};
use model::event::{FileStub, PostState};
use model::{Event, Id, Kind, UnixMillis};
use rusqlite::{OptionalExtension as _, Transaction, params};
use tracing::debug;

use super::TargetError;
use super::gate::{Gate, Window};
use super::item::{After, FORBIDDEN, TRIES_MAX, after, is_due, wait_ms};
use super::ledger::{Item, Ledger, LedgerError, State};
use super::remote::{Part, Remote};
use super::route::{Missing, post_key};
use super::runner::{Load, Loaded, NOT_THERE, Next, Runner, name_of};
use super::teams::{Facts, Work, hash, placeholder};

/// With the channel open, something that is due so soon is waited for.
const LINGER_MS: i64 = 10_000;
/// Files that are looked at for one step.
const FILES_MAX: usize = 64;
/// Posts that are looked at for the earliest time; where one is earlier still, the channel is closed and opened once more.
const EARLIEST_MAX: usize = 4_096;
/// The channel is to begin so long before what is imported.
const MARGIN_MS: i64 = 1_000;
/// Graph refuses what is in the future by its clock, which may be behind this node's.
const SKEW_MS: i64 = 10 * 60_000;

/// Requests that opening and closing the channel takes: how it stands, open, close.
pub(super) const REQUESTS_OF_A_WINDOW: u64 = 3;

/// How often the channel is opened for what takes so long.
pub(super) fn windows(target: &TargetSettings, takes: Duration) -> u32 {
    let open = Duration::from_secs(60) * target.open_minutes.max(1);
    takes.as_millis().div_ceil(open.as_millis()).try_into().unwrap_or(u32::MAX)
}

/// The next step towards the entry's state.
pub(super) fn next(facts: &Facts<'_>) -> Work {
    match facts.event {
        Event::Post(state) if state.delete_at.0 != 0 => match file_that_stands(facts) {
            Some(id) => Work::RemoveFile(id),
            None if facts.own.parts.is_empty() => Work::Nothing,
            None => Work::Missing(Missing::Delete),
        },
        Event::Post(state) => write(facts, state),
        Event::File(_) if facts.withdrawn => match file_that_stands(facts) {
            Some(id) => Work::RemoveFile(id),
            None => Work::Nothing,
        },
        Event::File(_) if facts.own.gone || !facts.own.parts.is_empty() => Work::Nothing,
        Event::File(state) => {
            let Some(file) = &facts.own.file else { return Work::Upload };
            // Its post was given up: nothing shows where it belongs.
            let Some(thread) = facts.post.and_then(Remote::thread) else { return Work::Missing(Missing::FileBytes) };
            let (url, name) = (html::escape(&file.url), html::escape(&state.stub.name));
            Work::Import {
                thread: Some(thread.to_owned()),
                html: format!("<p>\u{1F4CE} <a href=\"{url}\">{name}</a></p>"),
                part: 0,
            }
        }
        // Nothing else is routed here.
        Event::Reaction(_)
        | Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_)
        | Event::Emoji(_) => Work::Nothing,
    }
}

/// A file of the post, or the file itself, that is in the drive or may be.
fn file_that_stands(facts: &Facts<'_>) -> Option<Id> {
    let stands = |file: &Remote| !file.gone && (file.file.is_some() || file.meant.is_some());
    facts.files.iter().find(|(_, file)| stands(file)).map(|(id, _)| *id)
}

fn write(facts: &Facts<'_>, state: &PostState) -> Work {
    let parts = parts(state);
    let thread = facts.post.and_then(Remote::thread).or(facts.own.thread());
    for (n, html) in parts.iter().enumerate() {
        match facts.own.parts.get(n) {
            None => return Work::Import { thread: thread.map(str::to_owned), html: html.clone(), part: n },
            Some(part) if part.hash == hash(html) => {}
            Some(_) => return Work::Missing(Missing::Edit),
        }
    }
    match facts.own.parts.len() > parts.len() {
        true => Work::Missing(Missing::Edit),
        false => Work::Nothing,
    }
}

/// Is what stands there, if anything does, the beginning of this state?
pub(super) fn goes_on(event: &Event, own: &Remote) -> bool {
    match event {
        Event::Post(state) if state.delete_at.0 == 0 => {
            let parts = parts(state);
            own.parts.len() <= parts.len() && own.parts.iter().zip(&parts).all(|(there, html)| there.hash == hash(html))
        }
        Event::Post(_)
        | Event::File(_)
        | Event::Reaction(_)
        | Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_)
        | Event::Emoji(_) => false,
    }
}

/// The messages that a post becomes, without their author.
fn parts(state: &PostState) -> Vec<String> {
    let texts = html::parts(&state.message, html::UNITS_MAX);
    let last = texts.len() - 1;
    let one = |(n, text): (usize, &String)| {
        let mut html = html::render(text);
        if n == last {
            html.extend(state.files.iter().map(|file: &FileStub| placeholder(file)));
            if state.edit_at.0 != 0 {
                html.push_str("<p><em>(edited)</em></p>");
            }
        }
        // Graph takes no message without a text.
        if html.is_empty() { "<p>&nbsp;</p>".to_owned() } else { html }
    };
    texts.iter().enumerate().map(one).collect()
}

/// The text as it is sent: by the stand-in account, with the name of whoever said it.
fn attributed(html: &str, stands_in_for: Option<&str>) -> String {
    match stands_in_for {
        Some(name) => format!("<p><strong>{}</strong></p>{html}", html::escape(name)),
        None => html.to_owned(),
    }
}

/// The millisecond that a message has in its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp {
    at: UnixMillis,
    /// It may be there, from `author` and with a text of this `hash`.
    maybe: bool,
    author: String,
    hash: String,
    /// It is attributed to the stand-in account although Entra knows its author: Graph would not have it otherwise.
    stand_in: bool,
}

/// A message on its way.
struct Sent {
    thread: Option<String>,
    /// Without its author.
    html: String,
    part: usize,
    stamp: Stamp,
}

impl Runner {
    /// Uploads, opens, imports, closes.
    pub(super) async fn step_import(&mut self, now: UnixMillis) -> Result<Next, TargetError> {
        let window = self.window().await?;
        if let Some(at) = self.gate().keep(&window).await? {
            return Ok(if at > now { Next::At(at) } else { Next::Again });
        }
        // Bytes take their time on a thin link: they go while people can post.
        if window.is_closed() && self.upload_for_import(now).await? {
            return Ok(Next::Again);
        }
        let target = self.target.name.clone();
        let heads = move |ledger: &Ledger| {
            let (mut heads, (_, due)) = (ledger.heads(&target)?, ledger.next_file(&target, now)?);
            for file in ledger.files(&target, now, FILES_MAX)? {
                if !needs_upload(ledger, &target, &file)? && ledger.before(&target, &file)?.is_none() {
                    heads.push(file);
                }
            }
            Ok((heads, due))
        };
        let (found, earliest) = self.head(now, heads).await?;
        let Some(item) = found else {
            if !window.is_closed() && earliest.is_none_or(|at| at.0 > now.0 + LINGER_MS) {
                self.gate().begin_to_close(window, true).await?;
                return Ok(Next::Again);
            }
            return Ok(self.idle(earliest));
        };
        let load = if item.kind == Kind::Purge { None } else { Some(self.load(&item).await?) };
        let import = match &load {
            Some(Load::Loaded(loaded)) => match next(&self.facts(loaded, &item)) {
                Work::Import { thread, html, part } => Some((thread, html, part)),
                Work::Nothing
                | Work::Missing(_)
                | Work::Post { .. }
                | Work::Keep { .. }
                | Work::Discard
                | Work::Edit { .. }
                | Work::Remove { .. }
                | Work::RemoveFile(_)
                | Work::React { .. }
                | Work::Upload => None,
            },
            Some(Load::Ends(_) | Load::Dead(_)) | None => None,
        };
        match (import, load) {
            (Some((thread, html, part)), Some(Load::Loaded(loaded))) => {
                // A mapping that was narrowed holds for what was taken in before.
                if let Some(why) = loaded.withheld().filter(|_| item.state == State::Planned) {
                    self.withheld(&item, why).await?;
                    return Ok(Next::Again);
                }
                let stamp = self.stamp(&item, &loaded.event, part).await?;
                if item.state != State::Planned && (loaded.is_stopped || loaded.withheld().is_some()) {
                    self.settle_import(&item, &loaded, Sent { thread, html, part, stamp }).await?;
                    return Ok(Next::Again);
                }
                if window.is_closed() {
                    return self.open_for(window, stamp.at, now).await;
                }
                if stamp.at <= window.begins {
                    // Something older has come since the channel was opened.
                    self.gate().begin_to_close(window, false).await?;
                    return Ok(Next::Again);
                }
                self.import(&item, &loaded, Sent { thread, html, part, stamp }).await?;
            }
            (_, Some(load)) => self.work_with(item, load).await?,
            (_, None) => self.work_on(item).await?,
        }
        Ok(Next::Again)
    }

    /// Looks after a channel that is open while nothing is imported: it is closed in time. Says when to come again for it.
    pub(super) async fn watch_channel(&mut self) -> Result<Option<UnixMillis>, TargetError> {
        if self.gate.is_none() {
            return Ok(None);
        }
        let window = self.window().await?;
        if window.is_closed() {
            return Ok(None);
        }
        let at = self.gate().keep(&window).await?;
        Ok(Some(at.unwrap_or_else(|| self.gate().closes_at(&window))))
    }

    /// Closes the channel, once, before the node ends: nobody would else until it starts again.
    pub(super) async fn wind_up(&mut self) -> Result<(), TargetError> {
        if self.gate.is_none() {
            return Ok(());
        }
        let window = self.window().await?;
        match window.is_closed() {
            true => Ok(()),
            false => self.gate().begin_to_close(window, false).await,
        }
    }

    fn gate(&mut self) -> &mut Gate {
        self.gate.as_mut().expect("a target that imports is made with its gate")
    }

    async fn window(&mut self) -> Result<Window, TargetError> {
        let (team, channel) = self.target.channel_of_teams().unwrap_or_default();
        let configured = Window::closed(team, channel);
        let known = self.gate().window().await?;
        Ok(match known {
            Some(window) if !window.is_closed() => window,
            Some(window) if (&window.team, &window.channel) == (&configured.team, &configured.channel) => window,
            Some(_) | None => configured,
        })
    }

    /// Opens the channel once enough has gathered and people have had it for long enough.
    async fn open_for(&mut self, window: Window, at: UnixMillis, now: UnixMillis) -> Result<Next, TargetError> {
        let target = self.target.name.clone();
        let since = self.shared.ledger(move |ledger| ledger.waits_since(&target)).await?.unwrap_or(now);
        let gathered = since.0.min(now.0) + i64::from(self.target.gather_seconds) * 1_000;
        let left_to_people = window.left_to_people(self.target.closed_minutes, now);
        let due = if is_due(window.due, now) { 0 } else { window.due.0 };
        let from = UnixMillis(gathered.max(left_to_people.0).max(due));
        if from > now {
            return Ok(Next::At(from));
        }
        let target = self.target.name.clone();
        let earliest = self.shared.blocking(move |shared| earliest(shared, &target)).await?;
        let earliest = earliest.map_or(at, |earliest| earliest.min(at));
        self.gate().open(window, UnixMillis(earliest.0 - MARGIN_MS)).await?;
        Ok(Next::Again)
    }

    /// Puts the bytes of the next file into the drive. Says whether there was one.
    async fn upload_for_import(&mut self, now: UnixMillis) -> Result<bool, TargetError> {
        let target = self.target.name.clone();
        let found = self
            .shared
            .ledger(move |ledger| {
                for item in ledger.files(&target, now, FILES_MAX)? {
                    if needs_upload(ledger, &target, &item)? {
                        return Ok(Some(item));
                    }
                }
                Ok(None)
            })
            .await?;
        let Some(item) = found else { return Ok(false) };
        self.work_on(item).await?;
        Ok(true)
    }

    /// The time of the message, taken for good.
    async fn stamp(&self, item: &Item, event: &Event, part: usize) -> Result<Stamp, TargetError> {
        let (target, object, now) = (self.target.name.clone(), item.object.clone(), self.shared.now());
        let (said, post) = match event {
            Event::Post(state) => (state.create_at, state.root_id),
            Event::File(state) => (state.stub.create_at, state.post_id),
            Event::Reaction(_)
            | Event::User(_)
            | Event::Team(_)
            | Event::TeamMember(_)
            | Event::Channel(_)
            | Event::ChannelMember(_)
            | Event::Purge(_)
            | Event::Acknowledgement(_)
            | Event::Bookmark(_)
            | Event::Emoji(_) => (now, None),
        };
        // Nothing is imported from the future: a clock was wrong.
        let said = said.min(now);
        self.shared.ledger(move |ledger| ledger.with(|tx| take_stamp(tx, &target, &object, part, said, post))).await
    }

    async fn import(&mut self, item: &Item, loaded: &Loaded, sent: Sent) -> Result<(), TargetError> {
        let Sent { stamp, .. } = &sent;
        let stand_in = self.stand_in().await?;
        // What may be there already is tried again as it was: it is told apart by its author.
        let was_stand_in = stamp.stand_in || (stamp.maybe && stamp.author == stand_in.id);
        let person = loaded.person.clone().filter(|_| !was_stand_in);
        let is_known = person.is_some();
        let author = person.unwrap_or(stand_in);
        let text = attributed(&sent.html, (!is_known).then_some(loaded.author.as_str()));
        let content = Content { html: text.clone(), ..Content::default() };
        let call = self.channel().import(sent.thread.as_deref(), &content, stamp.at, &author, item.precedence);
        self.may_be_there(stamp, &author.id, &sent.html).await?;
        let failure = match self.send(item, call).await?.and_then(|answer| posted(&answer)) {
            Ok(id) => return self.imported(item, loaded, &sent, id, hash(&sent.html)).await,
            Err(failure) => failure,
        };
        let refused = match &failure {
            Failure::Refused(refusal) => refusal.status.as_u16(),
            Failure::Unknown(_) | Failure::Broken(_) => return self.put_off(item, &failure, true).await,
            Failure::Held(_) | Failure::Throttled { .. } | Failure::SignIn(_) => 0,
        };
        // Nothing came of this request; of an earlier one something may have.
        self.was_not_taken(stamp).await?;
        match refused {
            409 => {
                let id = stamp.at.0.to_string();
                match self.is_ours(item, &sent, &id, &author, &text).await {
                    Ok(true) => {
                        debug!(object = item.object, "what may have been imported is there");
                        let hash = if stamp.maybe { stamp.hash.clone() } else { hash(&sent.html) };
                        self.imported(item, loaded, &sent, id, hash).await
                    }
                    Ok(false) => {
                        let (target, at) = (self.target.name.clone(), stamp.at);
                        self.shared.ledger(move |ledger| ledger.with(|tx| move_stamp(tx, &target, at))).await?;
                        self.again_soon(item).await
                    }
                    Err(failure) => self.put_off(item, &failure, stamp.maybe).await,
                }
            }
            // The channel may have been closed.
            403 => {
                self.gate().doubt();
                self.try_again(item, &failure, stamp.maybe).await
            }
            400 if self.shared.now().0 - stamp.at.0 < SKEW_MS => self.try_again(item, &failure, stamp.maybe).await,
            400 if is_known => {
                // Perhaps its author was deleted in Entra.
                let (target, at) = (self.target.name.clone(), stamp.at);
                self.shared.ledger(move |ledger| ledger.with(|tx| attribute(tx, &target, at))).await?;
                self.again_soon(item).await
            }
            _ => self.put_off(item, &failure, stamp.maybe).await,
        }
    }

    async fn imported(
        &mut self,
        item: &Item,
        loaded: &Loaded,
        sent: &Sent,
        id: String,
        hash: String,
    ) -> Result<(), TargetError> {
        let mut own = loaded.own.remote.clone();
        own.parts.push(Part { id, hash });
        if sent.part == 0 {
            own.root = sent.thread.clone().unwrap_or_default();
        }
        self.went_on(item, &item.object, own, None).await
    }

    /// What follows a request that failed. `maybe`: the message may be there; it is sent again, and refused if it is.
    async fn put_off(&mut self, item: &Item, failure: &Failure, maybe: bool) -> Result<(), TargetError> {
        let now = self.shared.now();
        match after(failure, true, item.tries.max(item.looks) + 1, now) {
            After::Again { at, counts, reason } => self.wait(item, at, counts, &reason, maybe).await,
            After::Look { at, reason } | After::Park { at, reason } => self.wait(item, at, true, &reason, maybe).await,
            After::Rest { at, reason, next_step } => {
                self.rest(at, &reason, next_step.as_deref());
                self.wait(item, now, false, &reason, maybe).await
            }
            After::Forbidden { at, reason } => {
                self.rest(at, &reason, Some(FORBIDDEN));
                self.wait(item, at, true, &reason, maybe).await
            }
            After::Dead { reason } => self.dead(item, &reason).await,
        }
    }

    /// It was refused, and is tried again for a while all the same.
    async fn try_again(&mut self, item: &Item, failure: &Failure, maybe: bool) -> Result<(), TargetError> {
        let tries = item.tries.max(item.looks) + 1;
        if tries >= TRIES_MAX {
            return self.dead(item, &failure.to_string()).await;
        }
        let at = UnixMillis(self.shared.now().0 + wait_ms(tries));
        self.wait(item, at, true, &failure.to_string(), maybe).await
    }

    async fn wait(
        &mut self,
        item: &Item,
        at: UnixMillis,
        counts: bool,
        reason: &str,
        maybe: bool,
    ) -> Result<(), TargetError> {
        let (row, looks, reason) = (item.row, item.looks + u32::from(counts), reason.to_owned());
        self.shared
            .ledger(move |ledger| match maybe {
                true => ledger.unknown(row, at, looks, &reason),
                false => ledger.again(row, at, counts, &reason),
            })
            .await
    }

    /// It may be there, and must not be sent again: whether it is decides.
    async fn settle_import(&mut self, item: &Item, loaded: &Loaded, sent: Sent) -> Result<(), TargetError> {
        if !sent.stamp.maybe {
            return self.again_soon(item).await;
        }
        let id = sent.stamp.at.0.to_string();
        match self.message_at(item, &sent, &id).await {
            Ok(message) if is_of(&message, [sent.stamp.author.as_str(), self.account()]) => {
                let hash = sent.stamp.hash.clone();
                self.imported(item, loaded, &sent, id, hash).await
            }
            Ok(_) => self.not_found(item, NOT_THERE).await,
            Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => self.not_found(item, NOT_THERE).await,
            Err(failure) => self.look_failed(item, &failure).await,
        }
    }

    async fn message_at(&self, item: &Item, sent: &Sent, id: &str) -> Result<Message, Failure> {
        let of = MessageOf { root: sent.thread.as_deref().unwrap_or(id), id };
        self.shared.options.graph.call(self.channel().one(of, item.precedence)).await?.json()
    }

    fn account(&self) -> &str {
        self.target.account.as_deref().unwrap_or_default()
    }

    /// The channel has a message of this time: is it the one that was to be imported?
    async fn is_ours(&self, item: &Item, sent: &Sent, id: &str, author: &Author, text: &str) -> Result<bool, Failure> {
        let maybe = sent.stamp.maybe;
        let message = match self.message_at(item, sent, id).await {
            Ok(message) => message,
            // It cannot be read, or not yet: then what this node knows decides.
            Err(Failure::Refused(refusal)) if matches!(refusal.status.as_u16(), 403 | 404) => return Ok(maybe),
            Err(failure) => return Err(failure),
        };
        if message.deleted_date_time.is_some() {
            return Ok(maybe);
        }
        if maybe {
            // Whom Entra knows its author as may have changed since.
            return Ok(is_of(&message, [sent.stamp.author.as_str(), author.id.as_str()]));
        }
        let says = message.body.content.as_deref().unwrap_or_default();
        Ok(is_of(&message, [author.id.as_str()]) && html::same_words(says, text))
    }

    /// Whom messages are attributed to whose authors Entra does not know.
    async fn stand_in(&self) -> Result<Author, TargetError> {
        let id = self.account().to_owned();
        let tenant = self.shared.options.graph.settings().tenant.to_string();
        self.shared
            .blocking(move |shared| {
                let known = shared.options.core.user_by_entra(&tenant, &id).ok();
                let name = known.map_or_else(|| "Holdfast".to_owned(), |user| name_of(&user));
                Ok(Author { id, name })
            })
            .await
    }

    /// The message is about to be sent. What is known of an earlier time stays: either may have been taken.
    async fn may_be_there(&self, stamp: &Stamp, author: &str, html: &str) -> Result<(), TargetError> {
        if stamp.maybe {
            return Ok(());
        }
        let (target, at, author, hash) = (self.target.name.clone(), stamp.at, author.to_owned(), hash(html));
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    let sql = "UPDATE stamps SET maybe = 1, author = ?3, hash = ?4 WHERE target = ?1 AND at = ?2";
                    tx.execute(sql, params![target, at.0, author, hash])?;
                    Ok(())
                })
            })
            .await
    }

    async fn was_not_taken(&self, stamp: &Stamp) -> Result<(), TargetError> {
        if stamp.maybe {
            return Ok(());
        }
        let (target, at) = (self.target.name.clone(), stamp.at);
        self.shared
            .ledger(move |ledger| {
                ledger.with(|tx| {
                    tx.execute("UPDATE stamps SET maybe = 0 WHERE target = ?1 AND at = ?2", params![target, at.0])?;
                    Ok(())
                })
            })
            .await
    }
}

/// Is the message there, and by one of these accounts?
fn is_of<const N: usize>(message: &Message, accounts: [&str; N]) -> bool {
    let by = message.from.as_ref().and_then(|from| from.user.as_ref()).map_or("", |user| user.id.as_str());
    message.deleted_date_time.is_none() && accounts.iter().any(|account| by.eq_ignore_ascii_case(account))
}

/// Is it a file whose bytes are to be in the drive before it can be shown?
fn needs_upload(ledger: &Ledger, target: &str, item: &Item) -> Result<bool, LedgerError> {
    if item.kind != Kind::File || ledger.is_purged(target, &item.object)? {
        return Ok(false);
    }
    let own = ledger.standing(target, &item.object)?.remote;
    if own.file.is_some() || own.gone {
        return Ok(false);
    }
    let Some(post) = item.post else { return Ok(true) };
    let post_there = ledger.standing(target, &post_key(post))?.remote;
    Ok(!post_there.gone && !post_there.withdrawn && ledger.removals(target, &post_key(post))?.is_empty())
}

/// The earliest time of the posts that are open.
fn earliest(shared: &super::Shared, target: &str) -> Result<Option<UnixMillis>, TargetError> {
    let items = shared.lock().planned_rows(target, EARLIEST_MAX)?;
    let mut earliest: Option<UnixMillis> = None;
    for item in items.iter().filter(|item| item.kind == Kind::Post) {
        let Some(listed) = shared.options.journal.show(journal::Which::Id(item.id))? else { continue };
        if let Ok(Event::Post(state)) = wire::decode_event(&listed.entry) {
            earliest = Some(earliest.map_or(state.create_at, |at| at.min(state.create_at)));
        }
    }
    Ok(earliest)
}

/// The stamp of a part of an object: the one that it has, or the first that is free from `said` on, and after what it follows in
/// its thread.
fn take_stamp(
    tx: &Transaction<'_>,
    target: &str,
    object: &str,
    part: usize,
    said: UnixMillis,
    post: Option<Id>,
) -> Result<Stamp, LedgerError> {
    let part = part as i64;
    let found = tx
        .query_row(
            "SELECT at, maybe, author, hash, stand_in FROM stamps WHERE target = ?1 AND object = ?2 AND part = ?3",
            params![target, object, part],
            |r| {
                let at = UnixMillis(r.get(0)?);
                Ok(Stamp { at, maybe: r.get(1)?, author: r.get(2)?, hash: r.get(3)?, stand_in: r.get(4)? })
            },
        )
        .optional()?;
    if let Some(stamp) = found {
        return Ok(stamp);
    }
    let post = post.map_or_else(String::new, post_key);
    let after: Option<i64> = tx.query_row(
        "SELECT max(at) FROM stamps WHERE target = ?1 AND ((object = ?2 AND part < ?3) OR (object = ?4 AND part = 0))",
        params![target, object, part, post],
        |r| r.get(0),
    )?;
    let at = free(tx, target, after.map_or(said.0, |after| said.0.max(after + 1)))?;
    put_stamp(tx, target, at, object, part)?;
    Ok(Stamp { at: UnixMillis(at), ..Stamp::default() })
}

fn put_stamp(tx: &Transaction<'_>, target: &str, at: i64, object: &str, part: i64) -> Result<(), LedgerError> {
    tx.execute(
        "INSERT INTO stamps (target, at, object, part, maybe, stand_in, author, hash)
         VALUES (?1, ?2, ?3, ?4, 0, 0, '', '')",
        params![target, at, object, part],
    )?;
    Ok(())
}

/// The first millisecond from this one on that no message of the target has.
fn free(tx: &Transaction<'_>, target: &str, from: i64) -> Result<i64, LedgerError> {
    let mut taken = tx.prepare_cached("SELECT at FROM stamps WHERE target = ?1 AND at >= ?2 ORDER BY at")?;
    let mut rows = taken.query(params![target, from])?;
    let mut at = from;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? != at {
            break;
        }
        at += 1;
    }
    Ok(at)
}

/// Somebody else's message has this time: it stays taken, and ours gets the next one.
fn move_stamp(tx: &Transaction<'_>, target: &str, at: UnixMillis) -> Result<(), LedgerError> {
    let next = free(tx, target, at.0 + 1)?;
    tx.execute("UPDATE stamps SET at = ?3, maybe = 0 WHERE target = ?1 AND at = ?2", params![target, at.0, next])?;
    put_stamp(tx, target, at.0, &format!("taken:{}", at.0), 0)
}

/// Its author is named in the text from now on. What may be there by that author still may.
fn attribute(tx: &Transaction<'_>, target: &str, at: UnixMillis) -> Result<(), LedgerError> {
    tx.execute("UPDATE stamps SET stand_in = 1 WHERE target = ?1 AND at = ?2", params![target, at.0])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::remote::RemoteFile;
    use crate::targets::testkit::{file, id, post_state, target};
    use microsoft::Cloud;
    use microsoft::targets::TargetKind;
    use model::Precedence;

    fn facts<'a>(event: &'a Event, own: &'a Remote, post: Option<&'a Remote>) -> Facts<'a> {
        Facts {
            event,
            precedence: Precedence::Routine,
            author: "Alice",
            own,
            post,
            files: &[],
            withdrawn: false,
            anybody_reacts: false,
            cloud: Cloud::Global,
        }
    }

    fn there(id: &str, html: &str) -> Remote {
        Remote { parts: vec![Part { id: id.to_owned(), hash: hash(html) }], ..Remote::default() }
    }

    #[test]
    fn a_post_is_imported_once_and_what_changes_later_is_missing_by_name() {
        let mut state = post_state(1, "**hello** <b>");
        let of = |state: &PostState, own: &Remote| next(&facts(&Event::Post(state.clone()), own, None));
        let Work::Import { thread: None, html, part: 0 } = of(&state, &Remote::default()) else { panic!() };
        assert_eq!(html, "<p><strong>hello</strong> &lt;b&gt;</p>");
        let own = there("1", &html);
        assert_eq!(of(&state, &own), Work::Nothing);
        state.is_pinned = true;
        assert_eq!(of(&state, &own), Work::Nothing);
        state.message = "other".to_owned();
        assert_eq!(of(&state, &own), Work::Missing(Missing::Edit));
        state.delete_at = UnixMillis(9);
        assert_eq!(of(&state, &own), Work::Missing(Missing::Delete));
        assert_eq!(of(&state, &Remote::default()), Work::Nothing);
    }

    #[test]
    fn a_later_state_takes_the_place_of_an_earlier_one_as_long_as_it_fits_what_is_there() {
        let (first, second) = (post_state(1, "teh plan"), post_state(1, "the plan"));
        let there = |state: &PostState| there("1", &parts(state)[0]);
        assert!(goes_on(&Event::Post(second.clone()), &Remote::default()));
        assert!(goes_on(&Event::Post(second.clone()), &there(&second)));
        assert!(!goes_on(&Event::Post(second), &there(&first)));
    }

    #[test]
    fn a_long_text_goes_on_in_replies() {
        let state = Event::Post(post_state(1, &"word ".repeat(6_000)));
        let mut own = Remote::default();
        let mut threads = Vec::new();
        while let Work::Import { thread, html, part } = next(&facts(&state, &own, None)) {
            assert!(html::units(&html) <= html::UNITS_MAX);
            assert_eq!(own.parts.len(), part);
            own.parts.push(Part { id: format!("m{part}"), hash: hash(&html) });
            threads.push(thread);
        }
        assert!(threads.len() >= 3);
        assert!(threads[0].is_none() && threads[1..].iter().all(|t| t.as_deref() == Some("m0")), "{threads:?}");
    }

    #[test]
    fn a_file_is_uploaded_then_linked_below_its_post_and_never_without_it() {
        let event = file(9, 1, "plan <1>.pdf", 10);
        let post = there("r", "x");
        let mut own = Remote::default();
        assert_eq!(next(&facts(&event, &own, Some(&post))), Work::Upload);
        own.file = Some(RemoteFile { url: "https://s.example/p".into(), ..RemoteFile::default() });
        let Work::Import { thread, html, part: 0 } = next(&facts(&event, &own, Some(&post))) else { panic!() };
        assert!(thread.as_deref() == Some("r") && html.contains("plan &lt;1&gt;.pdf</a>"), "{html}");
        assert_eq!(next(&facts(&event, &own, Some(&Remote::default()))), Work::Missing(Missing::FileBytes));
        let files = [(id(9), own.clone())];
        let withdrawn = |files| next(&Facts { withdrawn: true, files, ..facts(&event, &own, Some(&post)) });
        assert_eq!(withdrawn(&files), Work::RemoveFile(id(9)), "its post was removed after it had been uploaded");
        assert_eq!(withdrawn(&[]), Work::Nothing);
    }

    #[test]
    fn each_message_has_a_millisecond_of_its_own_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let mut take = |object: &str, part, said, post: Option<Id>| {
            ledger.with(|tx| take_stamp(tx, "t", object, part, UnixMillis(said), post)).unwrap().at.0
        };
        let root = post_key(id(1));
        assert_eq!(take(&root, 0, 1_000, None), 1_000);
        assert_eq!(take("post:b", 0, 1_000, None), 1_001);
        assert_eq!(take("post:c", 0, 1_000, None), 1_002);
        assert_eq!(take(&root, 0, 5_000, None), 1_000, "asked again it is the same");
        assert_eq!(take(&root, 1, 1_000, None), 1_003, "behind its first part");
        assert_eq!(take("post:reply", 0, 900, Some(id(1))), 1_004, "no reply comes before what it answers");
        assert_eq!(take("post:d", 0, 900, None), 900);
        ledger.with(|tx| move_stamp(tx, "t", UnixMillis(1_001))).unwrap();
        let moved = ledger.with(|tx| take_stamp(tx, "t", "post:b", 0, UnixMillis(0), None)).unwrap();
        assert_eq!(moved.at.0, 1_005);
        let next = ledger.with(|tx| take_stamp(tx, "t", "post:e", 0, UnixMillis(1_001), None)).unwrap();
        assert_eq!(next.at.0, 1_006, "a time that somebody else has is not tried again");
    }

    #[test]
    fn windows_are_as_many_as_the_time_needs() {
        let mut settings = target(TargetKind::TeamsImport);
        settings.open_minutes = 1;
        let of = |seconds| windows(&settings, Duration::from_secs(seconds));
        assert_eq!((of(0), of(60), of(61), of(600)), (0, 1, 2, 10));
    }
}
