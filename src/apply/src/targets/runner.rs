//! One target at work: what was read becomes items, and items become what stands at the target, a step at a time.
//!
//! A step makes at most one request that changes something. Before it the ledger says `sending`; after it what stands there.
//! Steps of one target follow each other, so nothing of it is ever under way twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use journal::{Consumer, Which};
use microsoft::drive::{self, Folder, OnConflict, Place, SMALL_BYTES_MAX};
use microsoft::graph::{DriveItem, UploadPlan, UploadSource, UploadState};
use microsoft::targets::{TargetKind, TargetSettings};
use microsoft::teams::{Author, ChannelOf, Message, MessageOf, holds_marker, marker, posted};
use microsoft::{Answer, Call, Failure, names};
use mission::StoreError;
use mission::types::User;
use model::event::{FileState, PurgeState};
use model::{Event, Header, Id, Kind, LocalPos, Outcome, Precedence, UnixMillis, Version};
use tracing::{debug, info, warn};

use super::gate::Gate;
use super::item::{After, FORBIDDEN, LOOK_AGAIN_MS, LOOKS, PARKED, Refusals, SETTLE_MS, Verdict, after, is_due};
use super::ledger::{As, Item, Ledger, LedgerError, NOT_HELD, Read, Standing, State};
use super::plan::TargetPlan;
use super::remote::{Meant, Remote, RemoteFile};
use super::route::{Missing, Route, Taken, Why, channel_of, file_key, object_key, post_key, route, takes_back};
use super::teams::{Facts, Work, hash, next, part};
use super::{Shared, TargetError};

/// Entries of one transaction of the ledger.
const BATCH: usize = 256;
/// A channel that is not known here after so long never will be.
const PLACE_WITHIN_MS: i64 = 24 * 3_600_000;
/// Between looks for what is to come: an eighth of the time since it was read, but no less, nor more.
const PLACE_AGAIN_MS: std::ops::RangeInclusive<i64> = 200..=10_000;
/// Between looks for the bytes of a file.
const NOT_HERE_YET_MS: i64 = 10_000;
/// No moment.
const NEVER: UnixMillis = UnixMillis(i64::MAX);
/// Longest wait between looks for the bytes of a file.
const BYTES_AGAIN_MS_MAX: i64 = 5 * 60_000;
/// Wait before a file is read again that the disk did not give.
const UNREADABLE_MS: i64 = 5 * 60_000;
/// Pages of 50 messages in which one is looked for.
const PAGES_MAX: u32 = 40;
/// Later states of a post that are looked at for one that is imported in its place.
const LATER_MAX: usize = 16;
/// Clocks of the service and of this node may differ by so much.
const SKEW_MS: i64 = 10 * 60_000;
/// Round trip that a plan reckons with where none was measured.
const ROUND_TRIP: Duration = Duration::from_millis(250);
/// What a look said that found nothing.
pub(super) const NOT_THERE: &str = "it was not there";
/// What to do where reading is not permitted.
pub(super) const MAY_NOT_LOOK: &str =
    "give ChannelMessage.Read.All, Mail.Read or Files.ReadWrite.All; until then what got no answer may be there twice";
/// What to do where a look is refused for another reason.
const LOOK_REFUSED: &str = "look for it by hand, then `holdfast m365 skip` or `retry`";
/// Bytes that a request costs besides its text: headers, JSON, the author's line.
const REQUEST_BYTES: u64 = 1_500;

/// When to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: something was done.
    Again,
    /// Then.
    At(UnixMillis),
    /// When something happens.
    Idle,
}

/// One target.
pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) target: TargetSettings,
    consumer: Consumer,
    /// Up to where the journal was read.
    taken: LocalPos,
    /// Nothing is tried before.
    rests_until: UnixMillis,
    /// When items that are not placed are looked at again.
    place_at: UnixMillis,
    /// Folder of the channel's files, once asked for.
    folder: Option<Folder>,
    /// Refusals for want of a permission.
    refusals: Refusals,
    /// Of a target that imports: opens its channel and closes it.
    pub(super) gate: Option<Gate>,
    /// Id of the folder in the mailbox, once asked for.
    pub(super) mail_folder: Option<String>,
}

/// An entry with everything that its next step depends on.
pub(super) struct Loaded {
    pub(super) event: Event,
    pub(super) author: String,
    /// The author in Entra, where the target asks for it.
    pub(super) person: Option<Author>,
    pub(super) own: Standing,
    pub(super) post: Option<Remote>,
    files: Vec<(Id, Remote)>,
    anybody_reacts: bool,
    /// Of a file: its post was removed, or is about to be.
    pub(super) withdrawn: bool,
    /// The mapping as it is now does not let it go any more.
    withheld: Option<Why>,
    /// It was taken back or expired while nobody knew whether it had arrived: it is not sent again.
    pub(super) is_stopped: bool,
}

impl Loaded {
    /// Why it is not to be told, unless it takes back something that was.
    pub(super) fn withheld(&self) -> Option<Why> {
        let takes_back = takes_back(&self.event) && self.own.version.is_some();
        self.withheld.filter(|_| !takes_back)
    }
}

/// What became of looking at an item.
pub(super) enum Load {
    Loaded(Box<Loaded>),
    /// It ends so, without a step.
    Ends(Outcome),
    /// It cannot be delivered.
    Dead(String),
}

impl Runner {
    pub(super) fn new(shared: Arc<Shared>, target: TargetSettings) -> Result<Self, TargetError> {
        let consumer = shared.options.journal.consumer(&super::consumer_of(&target.name), target.required)?;
        drop_withheld(&shared, &target)?;
        let taken;
        {
            let now = shared.now();
            let mut ledger = shared.lock();
            let head = shared.options.journal.head();
            if ledger.taken(&target.name)? > head {
                // It was begun anew or restored. What was told already is known by its versions and ends as superseded.
                warn!(
                    target = target.name,
                    "the journal is older than the ledger of the target; it is read from the start"
                );
                ledger.read_anew(&target.name)?;
            }
            taken = ledger.taken(&target.name)?;
            let unknown = ledger.recover(&target.name, UnixMillis(now.0 + SETTLE_MS))?;
            if unknown > 0 {
                info!(
                    target = target.name,
                    unknown, "requests were under way when the node ended; they are looked for"
                );
            }
            consumer.advance_over_all(ledger.low_water(&target.name)?);
            if let Some(channel) = &target.channel {
                let times = ledger.posted(&destination(&target), now)?;
                shared.options.graph.posted_before(channel, times.into_iter());
            }
        }
        let gate = (target.kind == TargetKind::TeamsImport)
            .then(|| Gate::new(Arc::clone(&shared), &target.name, target.open_minutes));
        Ok(Self {
            shared,
            target,
            consumer,
            taken,
            rests_until: UnixMillis(0),
            place_at: UnixMillis(0),
            folder: None,
            refusals: Refusals::default(),
            gate,
            mail_folder: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.target.name
    }

    /// Does the next thing there is to do.
    pub(super) async fn step(&mut self) -> Result<Next, TargetError> {
        // However long reading takes, and whether or not it can be done.
        let watched = self.watch_channel().await?;
        if self.take_in().await? {
            return Ok(Next::Again);
        }
        let now = self.shared.now();
        if !is_due(self.rests_until, now) {
            return Ok(Next::At(watched.map_or(self.rests_until, |at| at.min(self.rests_until))));
        }
        if self.place_at != NEVER && is_due(self.place_at, now) {
            self.place().await?;
        }
        let next = match self.target.kind {
            TargetKind::SharepointArchive => self.step_archive(now).await?,
            TargetKind::TeamsDelegated | TargetKind::MailImport => self.step_items(now, None).await?,
            TargetKind::TeamsImport => self.step_import(now).await?,
            TargetKind::TeamsDigest | TargetKind::Mail => self.step_digest(now).await?,
        };
        let (ledger_target, consumer) = (self.target.name.clone(), self.consumer.clone());
        let low = self.shared.ledger(move |ledger| ledger.low_water(&ledger_target)).await?;
        consumer.advance_over_all(low);
        Ok(next)
    }

    /// Reads on in the journal. Says whether there was something.
    async fn take_in(&mut self) -> Result<bool, TargetError> {
        let (target, from) = (self.target.clone(), self.taken);
        let next = self
            .shared
            .blocking(move |shared| {
                let head = shared.options.journal.head();
                if from >= head {
                    return Ok(None);
                }
                let listed = shared.options.journal.list(from..head, BATCH)?;
                let next = if listed.len() < BATCH { head } else { listed.last().map_or(head, |l| l.pos.next()) };
                let now = shared.now();
                let mut read = Vec::new();
                let mut orders = Vec::new();
                let mut waiting = shared.lock().unplaced_lanes(&target.name)?;
                for one in &listed {
                    let header = &one.entry.header;
                    let as_what = match wire::decode_event(&one.entry) {
                        // Of a later release, or damaged: nothing of it can be shown anywhere.
                        Err(_) => As::Ended(Outcome::Quarantined),
                        Ok(Event::Purge(order)) => {
                            orders.push(order.clone());
                            planned(&Taken {
                                lane: String::new(),
                                object: object_key(&Event::Purge(order).object()),
                                post: None,
                                deletes: false,
                            })
                        }
                        Ok(event) => {
                            let found = as_what(shared, &target, header, &event, now)?;
                            in_turn(found, line_of(header, &event).as_ref(), &mut waiting)
                        }
                    };
                    read.push(Read {
                        id: header.id,
                        pos: one.pos,
                        precedence: header.precedence,
                        kind: header.kind,
                        as_what,
                    });
                }
                let mut ledger = shared.lock();
                ledger.take_in(&target.name, next, &read, now)?;
                for order in &orders {
                    ledger.purge(&target.name, &objects_of(order))?;
                }
                Ok(Some(next))
            })
            .await?;
        if let Some(next) = next {
            self.taken = next;
            self.place_at = UnixMillis(0);
        }
        Ok(next.is_some())
    }

    /// Looks again at items that are not placed, of each lane from the oldest on to the first that has to wait further.
    async fn place(&mut self) -> Result<(), TargetError> {
        let target = self.target.clone();
        let at = self
            .shared
            .blocking(move |shared| {
                let now = shared.now();
                let due = shared.lock().unplaced_due(&target.name, now, BATCH)?;
                let mut waiting =
                    if due.is_empty() { BTreeSet::new() } else { shared.lock().unplaced_lanes(&target.name)? };
                for lane in due {
                    waiting.remove(&lane);
                    let items = shared.lock().unplaced(&target.name, &lane, BATCH)?;
                    let more = items.len() == BATCH;
                    for item in items {
                        if !place_one(shared, &target, &item, now, &mut waiting)? {
                            break;
                        }
                    }
                    if more {
                        waiting.insert(lane);
                    }
                }
                Ok(shared.lock().unplaced_at(&target.name)?)
            })
            .await?;
        self.place_at = at.unwrap_or(NEVER);
        Ok(())
    }

    /// The next step of the first item that may have one; with a kind, of items of that kind.
    pub(super) async fn step_items(
        &mut self,
        now: UnixMillis,
        kinds: Option<&'static [Kind]>,
    ) -> Result<Next, TargetError> {
        let target = self.target.name.clone();
        let heads = move |ledger: &Ledger| {
            let mut heads = ledger.heads(&target)?;
            let mut earliest = None;
            if kinds.is_none_or(|kinds| kinds.contains(&Kind::File)) {
                let (file, due) = ledger.next_file(&target, now)?;
                earliest = due;
                heads.extend(file);
            }
            heads.retain(|head| kinds.is_none_or(|kinds| kinds.contains(&head.kind)));
            Ok((heads, earliest))
        };
        let (found, earliest) = self.head(now, heads).await?;
        if let Some(item) = found {
            self.work_on(item).await?;
            return Ok(Next::Again);
        }
        Ok(self.idle(earliest))
    }

    /// The first item whose turn has come, of those that `heads` names with the moment when more will be, and when the next
    /// one's comes.
    pub(super) async fn head(
        &self,
        now: UnixMillis,
        heads: impl Fn(&Ledger) -> Result<(Vec<Item>, Option<UnixMillis>), LedgerError> + Send + 'static,
    ) -> Result<(Option<Item>, Option<UnixMillis>), TargetError> {
        let target = self.target.name.clone();
        self.shared
            .ledger(move |ledger| {
                let (mut heads, mut earliest) = heads(ledger)?;
                heads.sort_by_key(|item| (item.precedence, item.turn));
                for head in heads {
                    let urgency = head.precedence;
                    let (mut item, mut waits) = (head, false);
                    while let Some(before) = ledger.before(&target, &item)? {
                        // Something less urgent, or read later, is fetched out of its turn; what is as urgent comes in its own, so
                        // that a file does not pull its post past those before it.
                        waits = before.precedence <= urgency && before.turn < item.turn
                            || matches!(before.state, State::Gathered | State::Unplaced);
                        if waits {
                            break;
                        }
                        item = before;
                    }
                    if waits {
                        continue;
                    }
                    if is_due(item.due, now) {
                        return Ok((Some(item), earliest));
                    }
                    earliest = Some(earliest.map_or(item.due, |at| at.min(item.due)));
                }
                Ok((None, earliest))
            })
            .await
    }

    /// Nothing is to be done now: when to come again.
    pub(super) fn idle(&self, earliest: Option<UnixMillis>) -> Next {
        let mut earliest = earliest;
        if self.place_at != NEVER {
            earliest = Some(earliest.map_or(self.place_at, |at| at.min(self.place_at)));
        }
        earliest.map_or(Next::Idle, Next::At)
    }

    /// One step of one item.
    pub(super) async fn work_on(&mut self, item: Item) -> Result<(), TargetError> {
        if item.kind == Kind::Purge {
            return self.purge(item).await;
        }
        let load = self.load(&item).await?;
        self.work_with(item, load).await
    }

    /// One step of an item that was looked at.
    pub(super) async fn work_with(&mut self, item: Item, load: Load) -> Result<(), TargetError> {
        let loaded = match load {
            Load::Loaded(loaded) => loaded,
            Load::Ends(Outcome::Superseded) if self.target.kind == TargetKind::MailImport => {
                return self.superseded_mail(&item).await;
            }
            Load::Ends(Outcome::Purged) if item.state == State::Unknown => return self.settle(&item, None).await,
            Load::Ends(outcome) => return self.ended(&item, outcome, None).await,
            Load::Dead(reason) => return self.dead(&item, &reason).await,
        };
        let work = match self.target.kind {
            TargetKind::TeamsImport => super::import::next(&self.facts(&loaded, &item)),
            TargetKind::MailImport => super::mail_import::next(&self.facts(&loaded, &item)),
            TargetKind::SharepointArchive | TargetKind::TeamsDelegated | TargetKind::TeamsDigest | TargetKind::Mail => {
                next(&self.facts(&loaded, &item))
            }
        };
        if item.state != State::Planned {
            return self.settle(&item, Some((&loaded, &work))).await;
        }
        // Mappings are narrowed because something must not go: what was taken in before is held to them too.
        if let Some(why) = loaded.withheld.filter(|_| work.tells()) {
            return self.withheld(&item, why).await;
        }
        self.perform(&item, &loaded, work).await
    }

    pub(super) fn facts<'a>(&self, loaded: &'a Loaded, item: &Item) -> Facts<'a> {
        Facts {
            event: &loaded.event,
            precedence: item.precedence,
            author: &loaded.author,
            own: &loaded.own.remote,
            post: loaded.post.as_ref(),
            files: &loaded.files,
            // What may be there is looked for as what it was to be.
            withdrawn: loaded.withdrawn && item.state == State::Planned,
            anybody_reacts: loaded.anybody_reacts,
            cloud: self.shared.options.graph.settings().cloud,
        }
    }

    /// Reads everything that the item's next step depends on.
    pub(super) async fn load(&self, item: &Item) -> Result<Load, TargetError> {
        let (target, item) = (self.target.clone(), item.clone());
        self.shared.blocking(move |shared| load(shared, &target, &item)).await
    }

    async fn perform(&mut self, item: &Item, loaded: &Loaded, work: Work) -> Result<(), TargetError> {
        let channel = self.channel();
        let mut own = loaded.own.remote.clone();
        match work {
            Work::Nothing => {
                let version = loaded.event.version();
                if let Event::Post(state) = &loaded.event {
                    own.withdrawn = state.delete_at.0 != 0;
                }
                self.ended(item, Outcome::Applied, Some((version, own))).await
            }
            Work::Missing(what) => {
                own.withdrawn |= matches!(loaded.event, Event::Post(_)) && takes_back(&loaded.event);
                self.missing(item, what, loaded.event.version(), own).await
            }
            Work::Post { thread, content, part: n, marker: _ } => {
                let call = channel.post(thread.as_deref(), &content, item.precedence);
                match self.send(item, call).await? {
                    Ok(answer) => match posted(&answer) {
                        Ok(id) => {
                            own.parts.push(part(id, &content.html));
                            if n == 0 {
                                own.root = thread.unwrap_or_default();
                            }
                            let posted = Some((self.destination(), self.shared.now()));
                            self.went_on(item, &item.object, own, posted).await
                        }
                        Err(failure) => self.failed(item, &failure, false).await,
                    },
                    Err(failure) => self.failed(item, &failure, false).await,
                }
            }
            // It is made with the channel open, and not from here.
            Work::Import { .. } => self.again_soon(item).await,
            Work::Keep { html } => self.keep_mail(item, loaded, &html).await,
            Work::Discard => self.discard_mail(item, &item.object, own).await,
            Work::Edit { part: n, content } => {
                let Some(id) = own.parts.get(n).map(|part| part.id.clone()) else { return self.again_soon(item).await };
                let root = own.thread().unwrap_or(&id).to_owned();
                let call = channel.edit(MessageOf { root: &root, id: &id }, &content, item.precedence);
                match self.send(item, call).await? {
                    Ok(_) => {
                        own.parts[n].hash = hash(&content.html);
                        self.went_on(item, &item.object, own, None).await
                    }
                    Err(failure) => self.failed(item, &failure, true).await,
                }
            }
            Work::Remove { file: None } => {
                let object = item.object.clone();
                self.remove_message(item, object, own).await
            }
            Work::Remove { file: Some(id) } | Work::RemoveFile(id) => {
                let Some((_, remote)) = loaded.files.iter().find(|(file, _)| *file == id) else {
                    return self.again_soon(item).await;
                };
                self.remove_of_file(item, id, remote.clone()).await
            }
            Work::React { emoji, present } => {
                let (Some(mut post), Some(id)) = (loaded.post.clone(), item.post) else {
                    return self.again_soon(item).await;
                };
                let message = post.parts.first().map(|part| part.id.clone()).unwrap_or_default();
                let root = post.thread().unwrap_or(&message).to_owned();
                let of = MessageOf { root: &root, id: &message };
                match self.send(item, channel.react(of, &emoji, present, item.precedence)).await? {
                    Ok(_) => {
                        post.reactions.retain(|r| *r != emoji);
                        if present {
                            post.reactions.push(emoji);
                        }
                        self.went_on(item, &post_key(id), post, None).await
                    }
                    Err(failure) => self.failed(item, &failure, true).await,
                }
            }
            Work::Upload => {
                let Event::File(state) = &loaded.event else { return self.again_soon(item).await };
                let folder = match self.folder_for(item).await {
                    Ok(folder) => folder,
                    Err(failure) => return self.failed(item, &failure, true).await,
                };
                self.upload(item, state, &folder, own).await
            }
        }
    }

    /// Removes the messages of an object, last part first, so that a thread's root goes last.
    async fn remove_message(&mut self, item: &Item, object: String, mut remote: Remote) -> Result<(), TargetError> {
        let Some(id) = remote.parts.last().map(|part| part.id.clone()) else { return self.again_soon(item).await };
        let root = remote.thread().unwrap_or(&id).to_owned();
        let call = self.channel().remove(MessageOf { root: &root, id: &id }, item.precedence);
        match self.send(item, call).await? {
            Ok(_) => {}
            // Somebody removed it by hand.
            Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => {}
            Err(failure) => return self.failed(item, &failure, true).await,
        }
        match remote.parts.len() {
            // The first part stays known: replies still find their thread.
            1 => remote.gone = true,
            _ => {
                remote.parts.pop();
            }
        }
        self.went_on(item, &object, remote, None).await
    }

    /// Removes the message that shows a file, then the file.
    async fn remove_of_file(&mut self, item: &Item, id: Id, mut remote: Remote) -> Result<(), TargetError> {
        let key = file_key(id);
        if !remote.parts.is_empty() && self.can_remove_messages() {
            let message = remote.parts[0].id.clone();
            let root = remote.thread().unwrap_or(&message).to_owned();
            let call = self.channel().remove(MessageOf { root: &root, id: &message }, item.precedence);
            match self.send(item, call).await? {
                Ok(_) => {}
                Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => {}
                Err(failure) => return self.failed(item, &failure, true).await,
            }
            remote.parts.clear();
            return self.went_on(item, &key, remote, None).await;
        }
        let by_id = remote.file.take().map(|file| {
            let folder = Folder { drive: file.drive, place: Place::Path(Vec::new()) };
            folder.remove(&file.item, item.precedence)
        });
        let by_name = remote.meant.take().map(|meant| meant.folder().remove_named(&meant.name, item.precedence));
        if let Some(remove) = by_id.or(by_name) {
            match self.send(item, remove).await? {
                Ok(_) => {}
                Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => {}
                Err(failure) => return self.failed(item, &failure, true).await,
            }
        }
        remote.gone = true;
        self.went_on(item, &key, remote, None).await
    }

    fn can_remove_messages(&self) -> bool {
        matches!(self.target.kind, TargetKind::TeamsDelegated | TargetKind::TeamsDigest)
            && self.shared.options.graph.settings().cloud == microsoft::Cloud::Global
    }

    /// Carries an order to purge out, as far as this target allows.
    async fn purge(&mut self, item: Item) -> Result<(), TargetError> {
        let loaded = match self.load(&item).await? {
            Load::Loaded(loaded) => loaded,
            Load::Ends(outcome) => return self.ended(&item, outcome, None).await,
            Load::Dead(reason) => return self.dead(&item, &reason).await,
        };
        let Event::Purge(order) = loaded.event else {
            return self.dead(&item, "an order to purge that is none").await;
        };
        // Files with the same bytes are others on each node: the core knows which of its own go with the order.
        let Some(order) = self.with_twins(order).await? else {
            return self.again_at(&item, 1_000, "the mission core has not taken the order up yet").await;
        };
        let target = self.target.name.clone();
        let objects = objects_of(&order);
        let standing = self
            .shared
            .ledger(move |ledger| match ledger.is_under_way(&target, &objects)? {
                true => Ok(None),
                false => ledger.purge(&target, &objects).map(Some),
            })
            .await?;
        let Some(standing) = standing else {
            return self.again_at(&item, 1_000, "something that it removes may be under way").await;
        };
        let mut removed = false;
        for (object, remote) in standing {
            if remote.gone {
                removed = true;
                continue;
            }
            if let Some(file) = object.strip_prefix("file:").and_then(|id| id.parse().ok()) {
                if remote.file.is_some()
                    || remote.meant.is_some()
                    || (!remote.parts.is_empty() && self.can_remove_messages())
                {
                    return self.remove_of_file(&item, file, remote).await;
                }
            } else if !remote.parts.is_empty() {
                if self.target.kind == TargetKind::MailImport {
                    return self.discard_mail(&item, &object, remote).await;
                }
                if self.can_remove_messages() {
                    return self.remove_message(&item, object, remote).await;
                }
                removed = true;
            }
        }
        match self.target.kind {
            TargetKind::SharepointArchive => removed |= self.purge_records(&order).await?,
            // Letters and notices went to people.
            TargetKind::TeamsDigest | TargetKind::Mail => removed |= self.purge_digests(&order).await?,
            TargetKind::TeamsDelegated | TargetKind::TeamsImport | TargetKind::MailImport => {}
        }
        let target = self.target.name.clone();
        let version = order.version;
        self.shared
            .ledger(move |ledger| {
                if removed {
                    // The recycle bin and older versions of SharePoint, the copies that Teams keeps for compliance, and in some
                    // clouds the message itself.
                    ledger.note_rest_of_purge(&target)?;
                }
                ledger.ended(&target, &item, Outcome::Applied, Some((version, &Remote::default())))?;
                ledger.scrub()
            })
            .await
    }

    /// The order with the files of this node that it concerns besides those that it names; `None` while nobody knows them.
    async fn with_twins(&self, mut order: PurgeState) -> Result<Option<PurgeState>, TargetError> {
        if !order.everywhere_used {
            return Ok(Some(order));
        }
        self.shared
            .blocking(move |shared| {
                let core = &shared.options.core;
                if !core.purges(false)?.iter().any(|row| row.order.id == order.id) {
                    return Ok(None);
                }
                order.files.extend(core.purged_under(order.id)?);
                order.files.sort();
                order.files.dedup();
                Ok(Some(order))
            })
            .await
    }

    /// Puts the bytes of a file into a folder, under a name that follows from what it is.
    pub(super) async fn upload(
        &mut self,
        item: &Item,
        state: &FileState,
        folder: &Folder,
        mut own: Remote,
    ) -> Result<(), TargetError> {
        let local = match self.local(state).await? {
            Local::Here(local) => Some(local),
            Local::NotHere => None,
            Local::Unreadable(why) => return self.unreadable(item, why).await,
        };
        let Some(local) = local else {
            if state.content.is_none() || self.is_quarantined(item).await? {
                return self.missing(item, Missing::FileBytes, state.version, own).await;
            }
            // Its bytes are on their way, or stay with their origin until somebody asks for them: the longer that takes, the
            // more rarely they are looked for.
            let waited = self.shared.now().0 - item.at.0;
            let wait = (waited / 8).clamp(NOT_HERE_YET_MS, BYTES_AGAIN_MS_MAX);
            return self.again_at(item, wait, "its bytes are not here yet").await;
        };
        let name = file_name(state);
        let meant = Meant::in_folder(folder, &name);
        if own.meant.as_ref() != Some(&meant) {
            // Before the first byte: whatever becomes of the upload, an order to purge finds what it left.
            own.meant = Some(meant);
            let (target, object, noted) = (self.target.name.clone(), item.object.clone(), own.clone());
            self.shared.ledger(move |ledger| ledger.note(&target, &object, &noted)).await?;
        }
        let written = if local.bytes <= SMALL_BYTES_MAX {
            let bytes = match tokio::fs::read(&local.path).await {
                Ok(bytes) => Bytes::from(bytes),
                Err(e) => return self.unreadable(item, e).await,
            };
            let call = folder.put(&name, bytes, "application/octet-stream", OnConflict::Fail, item.precedence);
            self.send(item, call).await?.and_then(|answer| drive::item_of(&answer))
        } else {
            match self.upload_in_pieces(item, folder, &name, &local).await? {
                Pieces::Ended(done) => done,
                Pieces::Unreadable(why) => return self.unreadable(item, why).await,
                // The session stands: it goes on where it was.
                Pieces::Yielded => return self.again_soon(item).await,
            }
        };
        match written {
            Ok(found) => self.uploaded(item, folder, &found, own).await,
            Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 409 => {
                self.look_for_file(item, folder, &name, local.bytes, own).await
            }
            Err(failure) => self.failed(item, &failure, false).await,
        }
    }

    async fn upload_in_pieces(
        &mut self,
        item: &Item,
        folder: &Folder,
        name: &str,
        local: &LocalFile,
    ) -> Result<Pieces, TargetError> {
        let (target, object) = (self.target.name.clone(), item.object.clone());
        let (row, request, now) = (item.row, self.request_id(item), self.shared.now());
        let resume = self
            .shared
            .ledger(move |ledger| {
                ledger.sending(row, &request, now)?;
                ledger.upload(&target, &object)
            })
            .await?;
        let plan = UploadPlan { create: folder.begin_upload(name, item.precedence), resume: resume.map(UploadState) };
        let unreadable = Arc::new(Mutex::new(None));
        let source = FileSource { path: local.path.clone(), bytes: local.bytes, unreadable: Arc::clone(&unreadable) };
        let (shared, target, object) = (Arc::clone(&self.shared), self.target.name.clone(), item.object.clone());
        let mut kept: Option<UploadState> = None;
        let (taken, precedence, mut pieces) = (self.taken, item.precedence, 0u32);
        let yields = Arc::new(AtomicBool::new(false));
        let yielded = Arc::clone(&yields);
        // Called once for the session and then before each piece.
        let keep = move |progress: microsoft::graph::UploadProgress<'_>| {
            if kept.as_ref() != Some(progress.state) {
                let stored = shared.lock().keep_upload(&target, &object, Some(&progress.state.0));
                stored.map_err(std::io::Error::other)?;
                kept = Some(progress.state.clone());
            }
            pieces += 1;
            // A piece at least is sent each time, so that a file arrives however much else there is.
            if pieces > 2 {
                let something_new = shared.options.journal.head() > taken;
                if something_new
                    || shared.lock().is_outranked(&target, precedence, shared.now()).map_err(std::io::Error::other)?
                {
                    yielded.store(true, Ordering::SeqCst);
                    return Err(std::io::Error::other("something else goes first"));
                }
            }
            Ok(())
        };
        let done = self.shared.options.graph.upload(plan, source, keep).await;
        if !matches!(done, Err(Failure::Held(_) | Failure::Throttled { .. })) {
            let (target, object) = (self.target.name.clone(), item.object.clone());
            self.shared.ledger(move |ledger| ledger.keep_upload(&target, &object, None)).await?;
        }
        if yields.load(Ordering::SeqCst) {
            return Ok(Pieces::Yielded);
        }
        let unreadable = unreadable.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(unreadable.map_or(Pieces::Ended(done), Pieces::Unreadable))
    }

    /// The bytes of this file cannot be read here. Others can.
    async fn unreadable(&mut self, item: &Item, why: std::io::Error) -> Result<(), TargetError> {
        let reason = format!("its bytes cannot be read on this node: {why}");
        if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) {
            return self.dead(item, &reason).await;
        }
        self.shared.rests(&self.target.name, Some((&reason, Some("check the disk that holds the data directory"))));
        let (row, due) = (item.row, UnixMillis(self.shared.now().0 + UNREADABLE_MS));
        let (is_unknown, looks) = (item.state == State::Unknown, item.looks);
        self.shared
            .ledger(move |ledger| match is_unknown {
                true => ledger.unknown(row, due, looks, &reason),
                false => ledger.again(row, due, true, &reason),
            })
            .await
    }

    /// What lies under the name is this file: its id is in it. SharePoint writes its own properties into documents of Office,
    /// so neither size nor hash need be what was sent.
    async fn look_for_file(
        &mut self,
        item: &Item,
        folder: &Folder,
        name: &str,
        sent_bytes: u64,
        own: Remote,
    ) -> Result<(), TargetError> {
        let found = self.shared.options.graph.call(folder.find(name, item.precedence)).await;
        match found.and_then(|answer| drive::item_of(&answer)) {
            Ok(there) => {
                if there.size != sent_bytes {
                    debug!(object = item.object, sent_bytes, there.size, "the file has another size at the service");
                }
                self.uploaded(item, folder, &there, own).await
            }
            Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => self.not_found(item, NOT_THERE).await,
            Err(failure) => self.look_failed(item, &failure).await,
        }
    }

    async fn uploaded(
        &mut self,
        item: &Item,
        folder: &Folder,
        found: &DriveItem,
        mut own: Remote,
    ) -> Result<(), TargetError> {
        own.file = Some(remote_file(folder, found));
        own.meant = None;
        match self.target.kind {
            TargetKind::SharepointArchive => self.archived_file(item, own).await,
            TargetKind::TeamsDelegated
            | TargetKind::TeamsImport
            | TargetKind::TeamsDigest
            | TargetKind::Mail
            | TargetKind::MailImport => self.went_on(item, &item.object, own, None).await,
        }
    }

    /// Where the bytes of a file are, whole.
    async fn local(&self, state: &FileState) -> Result<Local, TargetError> {
        let (file, size) = (state.stub.id, state.stub.size);
        self.shared
            .blocking(move |shared| {
                let Some(path) = shared.options.core.file_path(file)? else { return Ok(Local::NotHere) };
                Ok(match std::fs::metadata(&path).map(|facts| facts.len()) {
                    Ok(bytes) if bytes == size => Local::Here(LocalFile { path, bytes }),
                    Ok(bytes) => {
                        let why = format!("{bytes} bytes of {size}");
                        Local::Unreadable(std::io::Error::new(ErrorKind::UnexpectedEof, why))
                    }
                    Err(e) => Local::Unreadable(e),
                })
            })
            .await
    }

    /// Did the mission core keep the entry aside? Its bytes never come then.
    async fn is_quarantined(&self, item: &Item) -> Result<bool, TargetError> {
        let id = item.id;
        self.shared
            .blocking(move |shared| Ok(shared.options.core.replica().outcome(id)? == Some(Outcome::Quarantined)))
            .await
    }

    /// Looks for what may have been done.
    async fn settle(&mut self, item: &Item, known: Option<(&Loaded, &Work)>) -> Result<(), TargetError> {
        match known {
            Some((loaded, Work::Post { thread, content, part: n, marker })) => {
                match self.find(item, thread.as_deref(), marker).await {
                    Ok(Some(id)) => {
                        debug!(object = item.object, "what may have been posted was found");
                        let mut own = loaded.own.remote.clone();
                        own.parts.push(part(id, &content.html));
                        if *n == 0 {
                            own.root = thread.clone().unwrap_or_default();
                        }
                        let posted = Some((self.destination(), self.shared.now()));
                        self.went_on(item, &item.object, own, posted).await
                    }
                    Ok(None) => self.not_found(item, NOT_THERE).await,
                    Err(failure) => self.look_failed(item, &failure).await,
                }
            }
            Some((loaded, Work::Upload)) => {
                let Event::File(state) = &loaded.event else { return self.again_soon(item).await };
                let folder = match self.folder_for(item).await {
                    Ok(folder) => folder,
                    Err(failure) => return self.look_failed(item, &failure).await,
                };
                let own = loaded.own.remote.clone();
                self.look_for_file(item, &folder, &file_name(state), state.stub.size, own).await
            }
            Some((loaded, Work::Keep { html })) => self.settle_mail(item, loaded, html).await,
            // It sets a state: done again it is the same.
            Some((_, Work::Nothing | Work::Missing(_) | Work::Edit { .. } | Work::Remove { .. } | Work::Discard))
            | Some((_, Work::RemoveFile(_) | Work::React { .. } | Work::Import { .. })) => self.again_soon(item).await,
            // Its content is gone, purged meanwhile: what may stand there must still be found, so that it can be removed.
            None => self.settle_without_content(item).await,
        }
    }

    async fn settle_without_content(&mut self, item: &Item) -> Result<(), TargetError> {
        let (target, object, post) = (self.target.name.clone(), item.object.clone(), item.post.map(post_key));
        let (own, post) = self
            .shared
            .ledger(move |ledger| {
                let post = post.map(|post| ledger.standing(&target, &post)).transpose()?;
                Ok((ledger.standing(&target, &object)?.remote, post.map(|s| s.remote)))
            })
            .await?;
        if let (None, Some(meant)) = (&own.file, &own.meant) {
            // An upload: the order to purge that waits for this item finds by its record what arrived.
            let found = self.shared.options.graph.call(meant.folder().find(&meant.name, item.precedence)).await;
            return match found.and_then(|answer| drive::item_of(&answer)) {
                Ok(there) => {
                    let mut own = own.clone();
                    own.file = Some(remote_file(&meant.folder(), &there));
                    own.meant = None;
                    self.ended_purged(item, own).await
                }
                Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 && item.looks + 1 >= LOOKS => {
                    self.ended(item, Outcome::Purged, None).await
                }
                Err(Failure::Refused(refusal)) if refusal.status.as_u16() == 404 => {
                    self.not_found(item, NOT_THERE).await
                }
                Err(failure) => self.look_failed(item, &failure).await,
            };
        }
        if self.target.kind == TargetKind::MailImport {
            return self.settle_mail_without_content(item, own).await;
        }
        if self.target.kind == TargetKind::TeamsImport {
            // What was imported cannot be removed, whether or not it is there.
            let (target, item) = (self.target.name.clone(), item.clone());
            return self
                .shared
                .ledger(move |ledger| {
                    ledger.note_rest_of_purge(&target)?;
                    ledger.ended(&target, &item, Outcome::Purged, None)
                })
                .await;
        }
        let id = item.object.strip_prefix("post:").or(item.object.strip_prefix("file:")).map(str::to_owned);
        let Some(id) = id.filter(|_| self.target.kind == TargetKind::TeamsDelegated) else {
            return self.ended(item, Outcome::Purged, None).await;
        };
        let thread = post.as_ref().and_then(Remote::thread).or(own.thread()).map(str::to_owned);
        let marker = marker(&id, own.parts.len());
        match self.find(item, thread.as_deref(), &marker).await {
            Ok(Some(message)) => {
                let mut own = own;
                own.parts.push(part(message, ""));
                if own.parts.len() == 1 {
                    own.root = post.as_ref().and_then(Remote::thread).unwrap_or_default().to_owned();
                }
                self.ended_purged(item, own).await
            }
            Ok(None) if item.looks + 1 >= LOOKS => self.ended(item, Outcome::Purged, None).await,
            Ok(None) => self.not_found(item, NOT_THERE).await,
            Err(failure) => self.look_failed(item, &failure).await,
        }
    }

    /// Its content is gone, and what arrived of it is noted for the order to purge.
    pub(super) async fn ended_purged(&mut self, item: &Item, own: Remote) -> Result<(), TargetError> {
        let (target, item) = (self.target.name.clone(), item.clone());
        self.shared
            .ledger(move |ledger| {
                ledger.went_on(&target, &item.object, &item, &own, None)?;
                ledger.ended(&target, &item, Outcome::Purged, None)
            })
            .await
    }

    /// The id of the message in the channel or thread that holds the reference.
    async fn find(&self, item: &Item, thread: Option<&str>, marker: &str) -> Result<Option<String>, Failure> {
        self.find_since(thread, marker, item.at, item.precedence).await
    }

    /// As [`Runner::find`], of what was sent at `sent` by this node's clock. A list begins with what was changed last, so its
    /// times of change tell when nothing younger follows; their times of creation do not.
    pub(super) async fn find_since(
        &self,
        thread: Option<&str>,
        marker: &str,
        sent: UnixMillis,
        precedence: Precedence,
    ) -> Result<Option<String>, Failure> {
        let graph = &self.shared.options.graph;
        let mut pages = graph.pages(self.channel().newest(thread, precedence));
        for _ in 0..PAGES_MAX {
            let Some(page) = pages.next().await else { return Ok(None) };
            let page = match page {
                // The thread is gone, and what was a reply in it.
                Err(Failure::Refused(refusal)) if thread.is_some() && refusal.status.as_u16() == 404 => {
                    return Ok(None);
                }
                page => page?,
            };
            let since = since(sent, self.shared.now(), graph.their_time());
            let mut all_older = !page.value.is_empty();
            for value in page.value {
                let message: Message =
                    serde_json::from_value(value).map_err(|e| Failure::Broken(format!("a message: {e}")))?;
                let text = message.body.content.as_deref().unwrap_or_default();
                if message.deleted_date_time.is_none() && holds_marker(text, marker) {
                    return Ok(Some(message.id));
                }
                let changed = message.last_modified_date_time.or(message.created_date_time);
                let changed = changed.and_then(|t| t.parse::<jiff::Timestamp>().ok());
                all_older &= changed.is_some_and(|at| at.as_millisecond() < since);
            }
            if all_older || page.is_last {
                return Ok(None);
            }
        }
        Err(Failure::Broken(format!("it is not among the {} messages that were changed last", PAGES_MAX * 50)))
    }

    /// A look found nothing, or nobody may look: after [`LOOKS`] of them it is sent again.
    pub(super) async fn not_found(&mut self, item: &Item, why: &'static str) -> Result<(), TargetError> {
        let (now, row, looks) = (self.shared.now(), item.row, item.looks + 1);
        self.shared
            .ledger(move |ledger| match looks >= LOOKS {
                true => ledger.again(row, now, true, &format!("{why}; sent again")),
                false => {
                    let due = UnixMillis(now.0 + LOOK_AGAIN_MS);
                    ledger.unknown(row, due, looks, &format!("{why}; looked for once more"))
                }
            })
            .await
    }

    /// A look got no answer, or a refusal.
    pub(super) async fn look_failed(&mut self, item: &Item, failure: &Failure) -> Result<(), TargetError> {
        if let Some(refused) = may_not_look(failure) {
            self.shared.rests(&self.target.name, Some((&refused, Some(MAY_NOT_LOOK))));
            return self.not_found(item, "nobody may look for it").await;
        }
        let (row, looks) = (item.row, item.looks);
        match after(failure, true, item.tries + 1, self.shared.now()) {
            After::Again { at, counts, reason } => {
                self.shared.ledger(move |ledger| ledger.look_again(row, at, looks, counts, &reason)).await
            }
            After::Look { at, reason } | After::Park { at, reason } => {
                self.shared.ledger(move |ledger| ledger.look_again(row, at, looks, true, &reason)).await
            }
            After::Rest { at, reason, next_step } => {
                self.rest(at, &reason, next_step.as_deref());
                self.shared.ledger(move |ledger| ledger.look_again(row, at, looks, false, &reason)).await
            }
            After::Forbidden { at, reason } => {
                self.rest(at, &reason, Some(FORBIDDEN));
                self.shared.ledger(move |ledger| ledger.look_again(row, at, looks, false, &reason)).await
            }
            After::Dead { reason } => {
                let reason = format!("it may be there, and looking for it is refused: {reason}");
                self.shared.rests(&self.target.name, Some((&reason, Some(LOOK_REFUSED))));
                self.dead(item, &reason).await
            }
        }
    }

    /// Notes that a request is about to be made, durably, and makes it.
    pub(super) async fn send(&self, item: &Item, mut call: Call) -> Result<Result<Answer, Failure>, TargetError> {
        let (row, request, now) = (item.row, self.request_id(item), self.shared.now());
        call = call.with_request_id(&request);
        self.shared.ledger(move |ledger| ledger.sending(row, &request, now)).await?;
        Ok(self.shared.options.graph.call(call).await)
    }

    /// Names one attempt of one item.
    fn request_id(&self, item: &Item) -> String {
        let mut hash = blake3::Hasher::new_derive_key("holdfast request to Microsoft 365 v1");
        hash.update(self.target.name.as_bytes()).update(item.id.to_string().as_bytes());
        hash.update(&self.shared.now().0.to_le_bytes()).update(&item.tries.to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
    }

    /// What follows a request that failed.
    pub(super) async fn failed(&mut self, item: &Item, failure: &Failure, repeatable: bool) -> Result<(), TargetError> {
        let now = self.shared.now();
        let row = item.row;
        match after(failure, repeatable, item.tries + 1, now) {
            After::Again { at, counts, reason } => {
                self.shared.ledger(move |ledger| ledger.again(row, at, counts, &reason)).await
            }
            After::Rest { at, reason, next_step } => {
                self.rests_until = at;
                self.shared.rests(&self.target.name, Some((&reason, next_step.as_deref())));
                self.shared.ledger(move |ledger| ledger.again(row, now, false, &reason)).await
            }
            After::Park { at, reason } => {
                self.shared.rests(&self.target.name, Some((&reason, Some(PARKED))));
                self.shared.ledger(move |ledger| ledger.again(row, at, false, &reason)).await
            }
            After::Forbidden { at, reason } => self.forbidden(item, at, &reason).await,
            After::Look { at, reason } => {
                info!(object = item.object, "the outcome of a request is not known; it is looked for");
                self.shared.ledger(move |ledger| ledger.unknown(row, at, 0, &reason)).await
            }
            After::Dead { reason } => self.dead(item, &reason).await,
        }
    }

    /// It is not permitted: the item alone, or everything.
    async fn forbidden(&mut self, item: &Item, at: UnixMillis, reason: &str) -> Result<(), TargetError> {
        let (target, refused) = (self.target.name.clone(), item.clone());
        let others = self.shared.ledger(move |ledger| ledger.has_others(&target, &refused)).await?;
        match self.refusals.refused(item.row, item.kind, item.tries + 1, others) {
            Verdict::GiveUp => self.dead(item, reason).await,
            Verdict::Rest(again) => {
                self.rest(at, reason, Some(FORBIDDEN));
                let (target, row, reason) = (self.target.name.clone(), item.row, reason.to_owned());
                self.shared
                    .ledger(move |ledger| {
                        if let Some(again) = again {
                            ledger.retry(&target, Some(again))?;
                        }
                        ledger.again(row, at, true, &reason)
                    })
                    .await
            }
        }
    }

    /// The target rests; nothing of what was gathered is lost.
    pub(super) fn rest(&mut self, at: UnixMillis, reason: &str, next_step: Option<&str>) {
        self.rests_until = at;
        self.shared.rests(&self.target.name, Some((reason, next_step)));
    }

    pub(super) async fn went_on(
        &mut self,
        item: &Item,
        object: &str,
        remote: Remote,
        posted: Option<(String, UnixMillis)>,
    ) -> Result<(), TargetError> {
        self.shared.rests(&self.target.name, None);
        self.refusals.went_through(item.kind);
        let (target, item, object) = (self.target.name.clone(), item.clone(), object.to_owned());
        self.shared
            .ledger(move |ledger| {
                ledger.went_on(&target, &object, &item, &remote, posted.as_ref().map(|(to, at)| (to.as_str(), *at)))
            })
            .await
    }

    pub(super) async fn ended(
        &mut self,
        item: &Item,
        outcome: Outcome,
        standing: Option<(Version, Remote)>,
    ) -> Result<(), TargetError> {
        let (target, item) = (self.target.name.clone(), item.clone());
        self.shared
            .ledger(move |ledger| ledger.ended(&target, &item, outcome, standing.as_ref().map(|(v, r)| (*v, r))))
            .await
    }

    /// It was taken in, and the mapping does not let it go any more.
    pub(super) async fn withheld(&mut self, item: &Item, why: Why) -> Result<(), TargetError> {
        let (target, item) = (self.target.name.clone(), item.clone());
        self.shared.ledger(move |ledger| ledger.place(&target, &item, &As::Withheld(why), UnixMillis(0))).await
    }

    async fn missing(&mut self, item: &Item, what: Missing, version: Version, own: Remote) -> Result<(), TargetError> {
        let (target, item) = (self.target.name.clone(), item.clone());
        self.shared.ledger(move |ledger| ledger.missing(&target, &item, what, version, &own)).await
    }

    pub(super) async fn dead(&mut self, item: &Item, reason: &str) -> Result<(), TargetError> {
        warn!(object = item.object, reason, "an item is given up; `holdfast m365 retry` or `skip` decides on it");
        let (target, item, reason) = (self.target.name.clone(), item.clone(), reason.to_owned());
        self.shared
            .blocking(move |shared| {
                let held = shared.options.journal.show(Which::Id(item.id))?;
                let content = held.map(|held| wire::encode_entry(&held.entry)).unwrap_or_default();
                Ok(shared.lock().dead(&target, &item, &reason, &content, shared.now())?)
            })
            .await
    }

    pub(super) async fn again_soon(&mut self, item: &Item) -> Result<(), TargetError> {
        let (row, now) = (item.row, self.shared.now());
        self.shared.ledger(move |ledger| ledger.again(row, now, false, "")).await
    }

    async fn again_at(&mut self, item: &Item, after_ms: i64, reason: &'static str) -> Result<(), TargetError> {
        let (row, due) = (item.row, UnixMillis(self.shared.now().0 + after_ms));
        self.shared.ledger(move |ledger| ledger.again(row, due, false, reason)).await
    }

    pub(super) fn channel(&self) -> ChannelOf {
        channel_of_target(&self.target)
    }

    fn destination(&self) -> String {
        destination(&self.target)
    }

    /// Where the bytes of a file go.
    async fn folder_for(&mut self, item: &Item) -> Result<Folder, Failure> {
        if self.target.kind == TargetKind::SharepointArchive {
            return Ok(self.files_place(item));
        }
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let answer = self.shared.options.graph.call(self.channel().files_folder(item.precedence)).await?;
        let folder = drive::folder_of(&answer)?;
        self.folder = Some(folder.clone());
        Ok(folder)
    }
}

fn channel_of_target(target: &TargetSettings) -> ChannelOf {
    let own = |text: &Option<String>| text.clone().unwrap_or_default();
    ChannelOf { team: own(&target.team), channel: own(&target.channel), account: own(&target.account) }
}

/// Where a target writes, as the ledger counts it.
fn destination(target: &TargetSettings) -> String {
    let own = |text: &Option<String>| text.clone().unwrap_or_default();
    match target.kind {
        TargetKind::SharepointArchive => format!("{}/{}", own(&target.drive), own(&target.folder)),
        TargetKind::TeamsDelegated | TargetKind::TeamsImport => {
            format!("{}/{}", own(&target.team), own(&target.channel))
        }
        TargetKind::TeamsDigest if target.account.is_some() => {
            format!("{}/{} and {} people", own(&target.team), own(&target.channel), target.recipients.len())
        }
        TargetKind::TeamsDigest | TargetKind::Mail => target.recipients.join(", "),
        TargetKind::MailImport => format!("{}/{}", own(&target.mailbox), own(&target.folder)),
    }
}

/// How sending a file in pieces ended.
enum Pieces {
    Ended(Result<DriveItem, Failure>),
    /// Something else goes first.
    Yielded,
    /// Its bytes cannot be read here.
    Unreadable(std::io::Error),
}

/// Whether the bytes of a file are on this node's disk.
enum Local {
    Here(LocalFile),
    /// They are on their way, or stay elsewhere.
    NotHere,
    /// They should be here.
    Unreadable(std::io::Error),
}

/// A file on this node's disk.
struct LocalFile {
    path: PathBuf,
    bytes: u64,
}

struct FileSource {
    path: PathBuf,
    bytes: u64,
    /// What reading it failed with, if it did: else that looks as if Graph were not reached.
    unreadable: Arc<Mutex<Option<std::io::Error>>>,
}

impl UploadSource for FileSource {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let path = self.path.clone();
        Box::pin(async move {
            let read = move || {
                let mut file = std::fs::File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                let mut bytes = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
                file.read_exact(&mut bytes)?;
                Ok(Bytes::from(bytes))
            };
            let read = tokio::task::spawn_blocking(read).await.expect("reading a file does not panic");
            read.map_err(|e: std::io::Error| {
                let told = std::io::Error::new(e.kind(), e.to_string());
                *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                told
            })
        })
    }
}

/// The name under which a file is uploaded: its id makes it one file for ever.
pub(super) fn file_name(state: &FileState) -> String {
    names::fit(&format!("{}_{}", state.stub.id, state.stub.name))
}

fn remote_file(folder: &Folder, found: &DriveItem) -> RemoteFile {
    RemoteFile {
        drive: folder.drive.clone(),
        item: found.id.clone(),
        url: found.web_url.clone().unwrap_or_default(),
        guid: drive::guid_of(found).unwrap_or_default(),
        name: found.name.clone(),
    }
}

/// Keys of what an order to purge names.
fn objects_of(order: &PurgeState) -> Vec<String> {
    let posts = order.posts.iter().map(|id| post_key(*id));
    posts.chain(order.files.iter().map(|id| file_key(*id))).collect()
}

fn planned(taken: &Taken) -> As {
    As::Item {
        state: State::Planned,
        lane: taken.lane.clone(),
        object: taken.object.clone(),
        post: taken.post,
        deletes: taken.deletes,
    }
}

/// What an entry is behind while something is not placed.
struct Line {
    /// Its channel: everything in one that is not known waits together.
    channel: String,
    /// Others of its origin and class in the channel, which the core takes in this order; a file is by itself, since its bytes
    /// may stay away for long.
    own: String,
}

fn line_of(header: &Header, event: &Event) -> Option<Line> {
    let channel = channel_of(event)?.to_string();
    let own = if let Event::File(s) = event {
        file_key(s.stub.id)
    } else {
        format!("{channel} {} {}", header.id.origin, header.precedence)
    };
    Some(Line { channel, own })
}

/// Behind what is not placed yet waits what follows in its line, although that could be placed: else a reply or reaction would
/// come before its post. `waiting` are the lanes that something waits in.
fn in_turn(found: As, line: Option<&Line>, waiting: &mut BTreeSet<String>) -> As {
    let (As::Item { state, lane, object, deletes, .. }, Some(line)) = (&found, line) else { return found };
    if *state == State::Unplaced {
        waiting.insert(lane.clone());
        return found;
    }
    let behind = [&line.channel, &line.own].into_iter().find(|lane| waiting.contains(*lane));
    match behind {
        Some(lane) => unplaced(lane, object, *deletes),
        None => found,
    }
}

fn unplaced(lane: &str, object: &str, deletes: bool) -> As {
    let (lane, object) = (lane.to_owned(), object.to_owned());
    As::Item { state: State::Unplaced, lane, object, post: None, deletes }
}

/// Places an item, if its time has come. Says whether it is placed, or has ended.
fn place_one(
    shared: &Shared,
    target: &TargetSettings,
    item: &Item,
    now: UnixMillis,
    waiting: &mut BTreeSet<String>,
) -> Result<bool, TargetError> {
    let listed = shared.options.journal.show(Which::Id(item.id))?;
    let event = listed.as_ref().and_then(|l| wire::decode_event(&l.entry).ok());
    let (Some(listed), Some(event)) = (&listed, &event) else {
        shared.lock().place(&target.name, item, &As::Ended(Outcome::Purged), now)?;
        return Ok(true);
    };
    let header = &listed.entry.header;
    let line = line_of(header, event);
    let found = as_what(shared, target, header, event, now)?;
    // What the core applied before it is in the journal: it is read first, so that this one comes behind it.
    if matches!(found, As::Item { state: State::Planned, .. })
        && shared.options.journal.head() > shared.lock().taken(&target.name)?
    {
        return Ok(false);
    }
    let is_lost = line
        .as_ref()
        .is_some_and(|line| matches!(&found, As::Item { state: State::Unplaced, lane, .. } if *lane == line.channel));
    let found = match is_lost && now.0 - item.at.0 > PLACE_WITHIN_MS {
        true => As::Withheld(Why::UnknownChannel),
        false => in_turn(found, line.as_ref(), waiting),
    };
    let waits = matches!(&found, As::Item { state: State::Unplaced, .. });
    let most = if item.kind == Kind::File { BYTES_AGAIN_MS_MAX } else { *PLACE_AGAIN_MS.end() };
    let wait = ((now.0 - item.at.0) / 8).clamp(*PLACE_AGAIN_MS.start(), most);
    let due = if waits { UnixMillis(now.0 + wait) } else { UnixMillis(0) };
    shared.lock().place(&target.name, item, &found, due)?;
    Ok(!waits)
}

/// What was gathered and is not written yet is held to the mapping as it is now: it may have been narrowed before the start.
fn drop_withheld(shared: &Shared, target: &TargetSettings) -> Result<(), TargetError> {
    let gathered = shared.lock().gathered(&target.name)?;
    for item in gathered {
        let Some(listed) = shared.options.journal.show(Which::Id(item.id))? else { continue };
        let Ok(event) = wire::decode_event(&listed.entry) else { continue };
        // What takes something back may go.
        if takes_back(&event) {
            continue;
        }
        let Some(why) = withheld(shared, target, &listed.entry.header, &event)? else { continue };
        let author = author_of(shared, &event)?;
        let mut ledger = shared.lock();
        let is_out = match target.kind {
            TargetKind::SharepointArchive => {
                super::archive::drop_gathered(&mut ledger, &target.name, &item, &event, &author)?
            }
            TargetKind::TeamsDigest | TargetKind::Mail => {
                super::digest::drop_gathered(&mut ledger, &target.name, &item, &event)?
            }
            TargetKind::TeamsDelegated | TargetKind::TeamsImport | TargetKind::MailImport => false,
        };
        if is_out {
            info!(target = target.name, object = item.object, why = why.as_str(), "what was gathered is withheld");
            ledger.place(&target.name, &item, &As::Withheld(why), UnixMillis(0))?;
        }
    }
    Ok(())
}

/// What becomes of an entry at a target, as far as is known now.
fn as_what(
    shared: &Shared,
    target: &TargetSettings,
    header: &Header,
    event: &Event,
    now: UnixMillis,
) -> Result<As, TargetError> {
    let object = object_key(&event.object());
    let place = channel_of(event).map(|channel| shared.options.core.channel_place(channel)).transpose()?.flatten();
    let route = route(target, header, event, place.as_ref());
    if matches!(route, Route::Take(_) | Route::Unplaced) {
        if shared.lock().is_purged(&target.name, &object)? {
            return Ok(As::Ended(Outcome::Purged));
        }
        if header.expiry.is_some_and(|expiry| expiry <= now) {
            return Ok(As::Ended(Outcome::Expired));
        }
        // What another node wrote goes once the core has it: then its channel, its author and its root are known, and what the
        // core keeps aside is not told to others.
        if header.id.origin != shared.options.core.node() {
            match shared.options.core.replica().outcome(header.id)? {
                Some(Outcome::Applied) => {}
                None => {
                    let lane = line_of(header, event).map_or_else(String::new, |line| line.own);
                    return Ok(unplaced(&lane, &object, takes_back(event)));
                }
                Some(other) => return Ok(As::Ended(other)),
            }
        }
    }
    Ok(match route {
        Route::Take(taken) => planned(&taken),
        // What was told can be taken back, however the mapping was narrowed since.
        Route::Withhold(_) if takes_back(event) && shared.lock().standing(&target.name, &object)?.version.is_some() => {
            let lane = place.map_or_else(String::new, |p| format!("{}/{}", p.team.unwrap_or_default(), p.name));
            let post = if let Event::Reaction(s) = event { Some(s.post_id) } else { None };
            planned(&Taken { lane, object, post, deletes: matches!(event, Event::Post(_)) })
        }
        Route::Withhold(why) => As::Withheld(why),
        Route::Missing(what) => As::Missing(what),
        Route::Unplaced => {
            let lane = channel_of(event).map_or_else(String::new, |channel| channel.to_string());
            unplaced(&lane, &object, takes_back(event))
        }
        // Not of here: an order is taken in as one.
        Route::Purge => As::Ended(Outcome::Quarantined),
    })
}

/// Is a removal of the object in hand that is later than this version of it?
fn is_taken_back(
    shared: &Shared,
    ledger: &Ledger,
    target: &str,
    object: &str,
    version: Option<Version>,
) -> Result<bool, TargetError> {
    for removal in ledger.removals(target, object)? {
        let Some(listed) = shared.options.journal.show(Which::Id(removal.id))? else { continue };
        if wire::decode_event(&listed.entry).is_ok_and(|event| Some(event.version()) > version) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why the mapping as it is now does not let an entry go that was taken in.
fn withheld(
    shared: &Shared,
    target: &TargetSettings,
    header: &Header,
    event: &Event,
) -> Result<Option<Why>, TargetError> {
    let place = channel_of(event).map(|channel| shared.options.core.channel_place(channel)).transpose()?.flatten();
    Ok(match route(target, header, event, place.as_ref()) {
        Route::Withhold(why) => Some(why),
        Route::Take(_) | Route::Missing(_) | Route::Unplaced | Route::Purge => None,
    })
}

fn load(shared: &Shared, settings: &TargetSettings, item: &Item) -> Result<Load, TargetError> {
    let target = settings.name.as_str();
    let entry = match shared.options.journal.show(Which::Id(item.id))? {
        Some(listed) => Arc::unwrap_or_clone(listed.entry),
        None => {
            let ledger = shared.lock();
            let kept = ledger.content(item.row)?.and_then(|bytes| wire::decode_entry(&bytes).ok());
            match kept {
                Some(entry) => entry,
                None if ledger.is_purged(target, &item.object)? => return Ok(Load::Ends(Outcome::Purged)),
                None => return Ok(Load::Dead(NOT_HELD.to_owned())),
            }
        }
    };
    let Ok(mut event) = wire::decode_event(&entry) else {
        return Ok(Load::Dead("its content cannot be read".to_owned()));
    };
    let author = author_of(shared, &event)?;
    let withheld = withheld(shared, settings, &entry.header, &event)?;
    let imports = settings.kind == TargetKind::TeamsImport;
    let person = if imports { person_of(shared, &event)? } else { None };
    let mut ledger = shared.lock();
    let own = ledger.standing(target, &item.object)?;
    if ledger.is_purged(target, &item.object)? && item.kind != Kind::Purge {
        return Ok(Load::Ends(Outcome::Purged));
    }
    if own.version.is_some_and(|version| version >= event.version()) {
        return Ok(Load::Ends(Outcome::Superseded));
    }
    let post = item.post.map(|post| ledger.standing(target, &post_key(post))).transpose()?;
    let withdrawn = match (item.post, &post) {
        (Some(id), Some(Standing { version, remote })) if item.kind == Kind::File => {
            remote.gone || remote.withdrawn || is_taken_back(shared, &ledger, target, &post_key(id), *version)?
        }
        (Some(_) | None, _) => false,
    };
    let post = post.map(|standing| standing.remote);
    let is_expired = entry.header.expiry.is_some_and(|expiry| expiry <= shared.now());
    // Nobody is to find at the enterprise what its author removed before it went out.
    let stops = match own.remote.is_nowhere() {
        true if withdrawn || is_taken_back(shared, &ledger, target, &item.object, Some(event.version()))? => {
            Some(Outcome::Superseded)
        }
        true if is_expired => Some(Outcome::Expired),
        true | false => None,
    };
    if let Some(outcome) = stops
        && item.state == State::Planned
    {
        return Ok(Load::Ends(outcome));
    }
    let is_stopped = stops.is_some();
    // What is imported cannot be changed, so it goes as it was last said.
    if imports && own.version.is_none() {
        for other in ledger.others_planned(target, item, LATER_MAX)? {
            let Some(listed) = shared.options.journal.show(Which::Id(other.id))? else { continue };
            match wire::decode_event(&listed.entry) {
                Ok(said) if said.version() > event.version() && super::import::goes_on(&said, &own.remote) => {
                    event = said;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    let mut files = Vec::new();
    if let Event::File(state) = &event {
        files.push((state.stub.id, own.remote.clone()));
    }
    if let Event::Post(state) = &event
        && state.delete_at.0 != 0
    {
        for file in &state.files {
            files.push((file.id, ledger.standing(target, &file_key(file.id))?.remote));
        }
    }
    let anybody_reacts = if let Event::Reaction(s) = &event {
        !ledger.react(target, s.post_id, &s.emoji_name, s.user_id, s.delete_at.0 == 0)?.is_empty()
    } else {
        false
    };
    drop(ledger);
    Ok(Load::Loaded(Box::new(Loaded {
        event,
        author,
        person,
        own,
        post,
        files,
        anybody_reacts,
        withdrawn,
        withheld,
        is_stopped,
    })))
}

/// Whom Entra knows whoever wrote or shared as, in the tenant that the target writes to.
fn person_of(shared: &Shared, event: &Event) -> Result<Option<Author>, TargetError> {
    let user = match event {
        Event::Post(s) => s.user_id,
        Event::File(s) => s.user_id,
        Event::Reaction(_)
        | Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_)
        | Event::Emoji(_) => return Ok(None),
    };
    let known = shared.options.core.entra_of(user).and_then(|key| Ok((key, shared.options.core.user(user)?)));
    let (key, user) = match known {
        Ok((Some(key), user)) => (key, user),
        Ok((None, _)) => return Ok(None),
        Err(e) if e.status_code == 404 => return Ok(None),
        Err(e) => return Err(StoreError(e.detailed_error).into()),
    };
    let is_here = key.tenant.to_string() == shared.options.graph.settings().tenant.to_string();
    Ok(is_here.then(|| Author { id: key.object.to_string(), name: name_of(&user) }))
}

/// A person's name, without the one that they sign in with.
pub(super) fn name_of(user: &User) -> String {
    let name = format!("{} {}", user.first_name, user.last_name);
    match name.trim() {
        "" => user.username.clone(),
        name => name.to_owned(),
    }
}

/// Name of who wrote, reacted or shared.
fn author_of(shared: &Shared, event: &Event) -> Result<String, TargetError> {
    Ok(match event {
        Event::Post(s) => author(shared, s.user_id)?,
        Event::Reaction(s) => author(shared, s.user_id)?,
        Event::File(s) => author(shared, s.user_id)?,
        Event::User(_)
        | Event::Team(_)
        | Event::TeamMember(_)
        | Event::Channel(_)
        | Event::ChannelMember(_)
        | Event::Purge(_)
        | Event::Acknowledgement(_)
        | Event::Bookmark(_)
        | Event::Emoji(_) => String::new(),
    })
}

/// A person's name as readers at the enterprise know it.
fn author(shared: &Shared, user: Id) -> Result<String, TargetError> {
    let user = match shared.options.core.user(user) {
        Ok(user) => user,
        Err(e) if e.status_code == 404 => return Ok("unknown".to_owned()),
        Err(e) => return Err(StoreError(e.detailed_error).into()),
    };
    let name = format!("{} {}", user.first_name, user.last_name);
    Ok(match name.trim() {
        "" => format!("@{}", user.username),
        name => format!("{name} (@{})", user.username),
    })
}

/// What was sent at `sent`, by this node's clock, was not changed before that, in milliseconds of the service's clock. Was this
/// node's clock set back since, then nobody knows how long ago it was sent.
fn since(sent: UnixMillis, now: UnixMillis, theirs: UnixMillis) -> i64 {
    let ago = now.0 - sent.0;
    if ago < 0 { i64::MIN } else { theirs.0 - ago - SKEW_MS }
}

/// What was said when reading is not permitted.
pub(super) fn may_not_look(failure: &Failure) -> Option<String> {
    if let Failure::Refused(refusal) = failure
        && refusal.status.as_u16() == 403
    {
        return Some(format!("403 {} for a look at what may have been sent", refusal.code));
    }
    None
}

/// What would go to one target.
pub(super) fn plan(shared: &Shared, target: &TargetSettings) -> Result<TargetPlan, TargetError> {
    const ITEMS_MAX: usize = 200_000;
    let mut plan = TargetPlan {
        name: target.name.clone(),
        kind: target.kind.to_string(),
        destination: destination(target),
        ..TargetPlan::default()
    };
    let mut open = Vec::new();
    let items;
    let mut from = {
        let ledger = shared.lock();
        items = ledger.open_items(&target.name, ITEMS_MAX)?;
        ledger.taken(&target.name)?
    };
    for item in items {
        let why = match shared.options.journal.show(Which::Id(item.id))? {
            Some(listed) if matches!(item.state, State::Unplaced | State::Planned) => {
                match wire::decode_event(&listed.entry) {
                    Ok(event) if !takes_back(&event) => withheld(shared, target, &listed.entry.header, &event)?,
                    Ok(_) | Err(_) => None,
                }
            }
            Some(_) | None => None,
        };
        match why {
            Some(why) => *plan.withheld.entry(why.as_str().to_owned()).or_default() += 1,
            None => open.push((item.id, item.lane, item.kind, item.object)),
        }
    }
    let head = shared.options.journal.head();
    while from < head && open.len() < ITEMS_MAX {
        let listed = shared.options.journal.list(from..head, BATCH)?;
        let Some(last) = listed.last() else { break };
        from = last.pos.next();
        for one in listed {
            let Ok(event) = wire::decode_event(&one.entry) else { continue };
            match as_what(shared, target, &one.entry.header, &event, shared.now())? {
                As::Item { lane, object, .. } => open.push((one.entry.header.id, lane, one.entry.header.kind, object)),
                As::Withheld(why) => *plan.withheld.entry(why.as_str().to_owned()).or_default() += 1,
                As::Missing(what) => *plan.withheld.entry(what.as_str().to_owned()).or_default() += 1,
                As::Ended(_) => {}
            }
        }
    }
    let mut posts: u32 = 0;
    let mut lines: u32 = 0;
    let mut uploads: u32 = 0;
    let mut seen = BTreeSet::new();
    let mut records: BTreeMap<String, u64> = BTreeMap::new();
    for (id, lane, kind, object) in open {
        *plan.lanes.entry(lane.clone()).or_default() += 1;
        *plan.kinds.entry(kind.as_str().to_owned()).or_default() += 1;
        let body = shared.options.journal.show(Which::Id(id))?.map_or(0, |l| l.bytes);
        match (target.kind, kind) {
            (TargetKind::TeamsDelegated, Kind::File) => {
                posts += 1;
                plan.requests += 2;
                plan.bytes += 2 * REQUEST_BYTES + file_bytes(shared, id)?;
            }
            (TargetKind::TeamsDelegated | TargetKind::MailImport, _) => {
                posts += 1;
                plan.requests += 1;
                plan.bytes += REQUEST_BYTES + body;
            }
            (TargetKind::TeamsImport, Kind::File) => {
                posts += 1;
                uploads += 1;
                plan.requests += 2;
                plan.bytes += 2 * REQUEST_BYTES + file_bytes(shared, id)?;
            }
            (TargetKind::TeamsImport, _) => {
                // All states of a post are one message, and none once it was imported.
                let is_new = shared.lock().standing(&target.name, &object)?.remote == Remote::default();
                if is_new && kind == Kind::Post && seen.insert(object) {
                    posts += 1;
                    plan.requests += 1;
                    plan.bytes += REQUEST_BYTES + body;
                }
            }
            (TargetKind::SharepointArchive, Kind::File) => {
                plan.requests += 1;
                plan.bytes += REQUEST_BYTES + file_bytes(shared, id)?;
            }
            (TargetKind::TeamsDigest | TargetKind::Mail, _) => {
                lines += 1;
                plan.bytes += body + 100;
            }
            (TargetKind::SharepointArchive, _) => {
                *records.entry(lane).or_default() += body + 200;
                plan.bytes += body + 200;
            }
        }
    }
    plan.requests += super::archive::documents_for(&records);
    let digests = super::digest::digests_for(lines);
    plan.requests += u64::from(digests) * super::digest::steps_of(target);
    let gathered = Duration::from_secs(target.gather_seconds.into());
    let limits = match target.kind {
        TargetKind::Mail => {
            let mailbox = target.mailbox.as_deref().unwrap_or_default();
            let call = microsoft::mail::find(mailbox, "", model::Precedence::Routine);
            let send = Call { path: "/sendMail".to_owned(), method: http::Method::POST, ..call };
            shared.options.graph.time_for(&send, digests) + gathered
        }
        TargetKind::TeamsDigest => {
            let notice = microsoft::activity::Notice {
                topic: String::new(),
                preview: String::new(),
                link: String::new(),
                chain: 0,
            };
            let call = microsoft::activity::notify("", &notice, model::Precedence::Routine);
            let notices = digests.saturating_mul(u32::try_from(target.recipients.len()).unwrap_or(u32::MAX));
            shared.options.graph.time_for(&call, notices) + gathered
        }
        TargetKind::TeamsDelegated => {
            let post = channel_of_target(target).post(None, &Default::default(), model::Precedence::Routine);
            shared.options.graph.time_for(&post, posts)
        }
        TargetKind::TeamsImport => {
            let author = Author { id: String::new(), name: String::new() };
            let channel = channel_of_target(target);
            let post = channel.import(None, &Default::default(), UnixMillis(0), &author, model::Precedence::Routine);
            let folder = Folder { drive: String::new(), place: Place::Path(Vec::new()) };
            let put = folder.put("x", Bytes::new(), "text/html", OnConflict::Fail, model::Precedence::Routine);
            let graph = &shared.options.graph;
            let times = super::import::windows(target, graph.time_for(&post, posts));
            plan.requests += u64::from(times) * super::import::REQUESTS_OF_A_WINDOW + u64::from(uploads > 0);
            let pauses = Duration::from_secs(60) * target.closed_minutes * times.saturating_sub(1);
            let gathered = if times > 0 { gathered } else { Duration::ZERO };
            graph.time_for(&post, posts) + graph.time_for(&put, uploads) + pauses + gathered
        }
        TargetKind::MailImport => {
            let mailbox = target.mailbox.as_deref().unwrap_or_default();
            // Its folder is looked for, and made.
            plan.requests += u64::from(posts > 0) * 2;
            let call = microsoft::mail::folders(mailbox, model::Precedence::Routine);
            shared.options.graph.time_for(&call, posts)
        }
        TargetKind::SharepointArchive => {
            let folder = Folder { drive: target.drive.clone().unwrap_or_default(), place: Place::Path(Vec::new()) };
            let put = folder.put("x", Bytes::new(), "text/html", OnConflict::Replace, model::Precedence::Routine);
            let requests = u32::try_from(plan.requests).unwrap_or(u32::MAX);
            shared.options.graph.time_for(&put, requests) + gathered
        }
    };
    let rate = shared.options.graph.settings().rate.map(|rate| rate.0 / 8);
    Ok(plan.timed(limits, ROUND_TRIP, rate))
}

fn file_bytes(shared: &Shared, id: model::EntryId) -> Result<u64, TargetError> {
    let Some(listed) = shared.options.journal.show(Which::Id(id))? else { return Ok(0) };
    Ok(match wire::decode_event(&listed.entry) {
        Ok(Event::File(state)) => state.stub.size,
        Ok(_) | Err(_) => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_back_a_look_goes_follows_the_clock_of_the_service() {
        let at = |minutes: i64| UnixMillis(minutes * 60_000);
        assert_eq!(since(at(100), at(105), at(105)), at(90).0);
        assert_eq!(since(at(220), at(225), at(105)), at(90).0, "this node is two hours ahead");
        assert_eq!(since(at(220), at(105), at(105)), i64::MIN, "it was, and is right again");
    }

    #[test]
    fn what_follows_waits_behind_what_is_not_placed_in_its_channel_or_its_line() {
        let [new, known] =
            ["new", "known"].map(|channel| Line { channel: channel.into(), own: format!("{channel} own") });
        let item =
            |state, lane: &str| As::Item { state, lane: lane.into(), object: "x".into(), post: None, deletes: false };
        let lane_of = |found: As| match found {
            As::Item { state: State::Unplaced, lane, .. } => lane,
            As::Item { .. } => "placed".to_owned(),
            As::Ended(_) | As::Withheld(_) | As::Missing(_) => panic!("it ended"),
        };
        let mut waiting = BTreeSet::new();
        let placed = || item(State::Planned, "a/b");
        assert_eq!(lane_of(in_turn(item(State::Unplaced, "new"), Some(&new), &mut waiting)), "new");
        assert_eq!(lane_of(in_turn(placed(), Some(&new), &mut waiting)), "new");
        assert_eq!(lane_of(in_turn(placed(), Some(&known), &mut waiting)), "placed");
        assert_eq!(lane_of(in_turn(placed(), None, &mut waiting)), "placed");
        assert!(matches!(in_turn(As::Withheld(Why::Label), Some(&new), &mut waiting), As::Withheld(Why::Label)));
        assert_eq!(waiting, BTreeSet::from(["new".to_owned()]));
        assert_eq!(lane_of(in_turn(item(State::Unplaced, "known own"), Some(&known), &mut waiting)), "known own");
        assert_eq!(lane_of(in_turn(placed(), Some(&known), &mut waiting)), "known own");
        let other = Line { own: "known of another".into(), ..known };
        assert_eq!(lane_of(in_turn(placed(), Some(&other), &mut waiting)), "placed");
    }
}
