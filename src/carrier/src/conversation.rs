//! The conversation with one peer: link session, shaper and journal put together.
//!
//! ```text
//!  pipe --frame--> Session --Store--> journal --ticket--> entries_stored --> Session --receipt--> pipe
//!                     ^                                                         ^
//!  ledger --finals----'      journal --appended, own entries--------------------'
//! ```
//!
//! The session decides; this carries out. What is acknowledged to the peer was durable first, because the session
//! hears of it only when the journal's ticket is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use journal::{
    AppendError, ChunkPut, Consumer, EpochReason, Foreign, ForeignOutcome, Journal, OutboundView, Subscription,
};
use keys::{EntryIds, Peer, PeerName};
use link::{
    CloneDetector, CloneVerdict, EpochProgress, Incoming, Lane, LinkError, LinkEvent, Now, Output, ReceiverState,
    SenderState, Session, SessionConfig, StartEpochReason, Waiting,
};
use model::{BitsPerSecond, ChunkName, Clock, EntryId, Epoch, Event, NodeId, ObjectKey, Outcome, RangeSet};
use telemetry::Metrics;
use tokio::sync::{mpsc, watch};
use wire::frame::{ByeCode, Custody, Frame};

use crate::ask::{Asks, Question, Telling};
use crate::parcel::{ParcelDesk, Parcels, receipts_every};
use crate::talk::{Refusal, Talk, Talks};
use crate::transit::Transit;
use crate::{CarrierSettings, Ledger, LedgerError, consumer_name};

/// A full or failing disk is asked again after this: a node goes on within 5 s after room has come back, of which
/// noticing takes one.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A peer that claims an epoch far ahead of ours is followed this far at a time: each step is a durable write.
const EPOCHS_PER_CLAIM: u32 = 64;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What all conversations of a node share.
pub(crate) struct Conversations {
    options: ConversationOptions,
    boot: u64,
    /// Counts appends to the journal.
    appended: watch::Sender<u64>,
    _subscription: Subscription,
}

/// What [`Conversations::new`] needs.
pub(crate) struct ConversationOptions {
    pub(crate) me: NodeId,
    pub(crate) name: PeerName,
    pub(crate) journal: Journal,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) settings: CarrierSettings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    /// Counts changes of the finals.
    pub(crate) finals: watch::Receiver<u64>,
    /// Where operators ask.
    pub(crate) asks: Arc<Asks>,
    /// Where parcels go in and out.
    pub(crate) parcels: Arc<ParcelDesk>,
    /// Parcels by way of others.
    pub(crate) transit: Arc<Transit>,
    /// Holds what is known of parcels.
    pub(crate) data_dir: PathBuf,
}

impl Conversations {
    pub(crate) fn new(options: ConversationOptions) -> Self {
        let mut boot = [0u8; 8];
        getrandom::fill(&mut boot).expect("the operating system gives random bytes once it has booted");
        let appended = watch::Sender::new(0);
        let notify = appended.clone();
        let subscription = options.journal.on_append(Box::new(move || notify.send_modify(|n| *n += 1)));
        Self { options, boot: u64::from_le_bytes(boot), appended, _subscription: subscription }
    }
}

impl Talks for Conversations {
    type Talk = Conversation;

    fn open(&self, peer: &Peer, rate: BitsPerSecond) -> Result<Conversation, String> {
        let o = &self.options;
        let registered = o.journal.consumer(&consumer_name(peer.node), true);
        let consumer = registered.map_err(|e| format!("{e}; {}", e.next_step()))?;
        let receiver = receiver_state(&o.journal, o.ledger.as_ref(), peer.node).map_err(|e| e.to_string())?;
        let sender = sender_state(&o.journal, &consumer).map_err(|e| format!("{e}; {}", e.next_step()))?;
        let relayed_at = o.settings.via_of(&peer.name).map(|relay| o.settings.rate_of(relay));
        let (desk, dir, sealing) = (Arc::clone(&o.parcels), o.data_dir.clone(), peer.sealing.clone());
        let parcels = Parcels::new(desk, dir, peer.node, sealing, receipts_every(relayed_at));
        let parcels = parcels.map_err(|e| format!("what is known of parcels cannot be read: {e}; check the disk"))?;
        let config = SessionConfig {
            me: o.me,
            name: o.name.to_string(),
            boot: self.boot,
            peer: peer.node,
            labels: o.settings.labels_of(&peer.name).iter().cloned().collect(),
            peer_chunk_secret: *peer.chunk_secret.expose(),
            compression: compression(rate),
        };
        let mut session = Session::new(config, sender, receiver);
        session.watched_below();
        session.restore_parcels(parcels.state.sent.clone(), parcels.state.came.clone());
        session.hold_files_above(o.settings.files_on_request_above_of(&peer.name));
        Ok(Conversation {
            peer: peer.node,
            label: telemetry::PeerName::new(peer.name.as_str()),
            session,
            parcels,
            journal: o.journal.clone(),
            outbound: o.journal.outbound(),
            consumer,
            ledger: Arc::clone(&o.ledger),
            clock: Arc::clone(&o.clock),
            metrics: Arc::clone(&o.metrics),
            clones: CloneDetector::default(),
            appended: self.appended.subscribe(),
            finals: o.finals.clone(),
            questions: o.asks.open(peer.node),
            files: o.asks.files.subscribe(),
            asked: Vec::new(),
            appends: FuturesUnordered::new(),
            appended_done: Vec::new(),
            retains: 0,
            files_done: Vec::new(),
            own_news: false,
            finals_due: false,
            files_due: true,
            stalled: Vec::new(),
            retry_at: None,
            damage_told: 0,
            purged_told: 0,
            transit_news: o.transit.subscribe(),
            transit: Arc::clone(&o.transit),
            transit_due: false,
            taking: FuturesUnordered::new(),
            taken: Vec::new(),
            handed: BTreeSet::new(),
        })
    }

    fn retain(&self, enrolled: &BTreeSet<NodeId>) {
        let kept: BTreeSet<String> = enrolled.iter().map(|node| consumer_name(*node)).collect();
        for name in self.options.journal.consumers() {
            if name.starts_with("peer:") && !kept.contains(&name) {
                match self.options.journal.remove_consumer(&name) {
                    Ok(_) => tracing::info!(consumer = %name, "the journal does not wait for a removed peer any more"),
                    Err(e) => tracing::warn!(consumer = %name, reason = %e, "a removed peer is still waited for"),
                }
            }
        }
    }
}

/// Link bytes are dear where the link is thin and the processor is where it is not: level 19 packs about 5 MB/s.
pub fn compression(rate: BitsPerSecond) -> i32 {
    match rate.0 {
        0..=512_000 => 19,
        512_001..=10_000_000 => 9,
        _ => 3,
    }
}

/// What is durably known of own entries at the peer that a consumer stands for.
///
/// # Errors
/// When the journal cannot be read.
pub fn sender_state(journal: &Journal, consumer: &Consumer) -> Result<SenderState, journal::ReadError> {
    let state = consumer.state();
    let mut progress: BTreeMap<Epoch, EpochProgress> = BTreeMap::new();
    for (epoch, stored) in state.stored {
        progress.entry(epoch).or_default().stored = stored;
    }
    for (epoch, outcomes) in state.outcomes {
        let ended = Outcome::ALL.into_iter().zip(outcomes).filter(|(_, numbers)| !numbers.is_empty());
        progress.entry(epoch).or_default().outcomes = ended.collect();
    }
    let last = |e: &journal::OwnEpoch| (e.epoch, e.last.map_or(0, model::Seq::get));
    let epochs = journal.epochs().iter().map(last).collect();
    Ok(SenderState { epochs, progress, scan_from: consumer.low_water()? })
}

fn receiver_state(journal: &Journal, ledger: &dyn Ledger, peer: NodeId) -> Result<ReceiverState, LedgerError> {
    let mut progress: BTreeMap<Epoch, EpochProgress> = BTreeMap::new();
    for (epoch, stored) in journal.received(peer) {
        progress.entry(epoch).or_default().stored = stored;
    }
    for (epoch, outcome, numbers) in ledger.ledger(peer)? {
        progress.entry(epoch).or_default().outcomes.entry(outcome).or_default().union_with(&numbers);
    }
    Ok(ReceiverState { progress })
}

/// Something on its way into the journal.
pub(crate) enum Append {
    Entry(Incoming),
    Chunk(ChunkName, Arc<[u8]>, Option<ChunkName>, EntryId),
    Retain(ChunkName),
    Restore(Incoming),
}

/// What became of it.
enum Appended {
    Entry(Incoming, Result<ForeignOutcome, AppendError>),
    Chunk(ChunkName, Arc<[u8]>, Option<ChunkName>, EntryId, Result<ChunkPut, AppendError>),
    Retain(ChunkName, Result<bool, AppendError>),
    Restore(Incoming, Result<bool, AppendError>),
}

/// One peer's conversation.
pub(crate) struct Conversation {
    pub(crate) peer: NodeId,
    pub(crate) label: telemetry::PeerName,
    pub(crate) session: Session,
    pub(crate) parcels: Parcels,
    pub(crate) journal: Journal,
    pub(crate) outbound: OutboundView,
    pub(crate) consumer: Consumer,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    clones: CloneDetector,
    appended: watch::Receiver<u64>,
    finals: watch::Receiver<u64>,
    questions: mpsc::Receiver<Question>,
    /// Somebody wants a file.
    files: watch::Receiver<u64>,
    asked: Vec<Question>,
    /// Bounded by what the session has stored at a time (`link::limits`).
    appends: FuturesUnordered<Boxed<Appended>>,
    appended_done: Vec<Appended>,
    /// Chunks among `appends` that are held and to be kept.
    retains: usize,
    /// Files that are complete as soon as `retains` is zero.
    files_done: Vec<EntryId>,
    own_news: bool,
    finals_due: bool,
    files_due: bool,
    /// What a full disk did not take; as bounded as `appends`.
    pub(crate) stalled: Vec<Append>,
    retry_at: Option<Duration>,
    /// [`Journal::damage_changes`] when the session was told.
    damage_told: u64,
    /// How many own numbers were purged when the session was told.
    purged_told: u64,
    transit: Arc<Transit>,
    transit_news: watch::Receiver<u64>,
    transit_due: bool,
    /// Parcels of the peer that are being opened or stored. The peer has few under way without an answer.
    taking: FuturesUnordered<Boxed<(u64, Custody)>>,
    taken: Vec<(u64, Custody)>,
    /// Parcels that the session has and the peer has not answered for.
    handed: BTreeSet<u64>,
}

impl Talk for Conversation {
    fn connected(&mut self, now: Duration) -> Result<(), Refusal> {
        let now = self.now(now);
        self.consumer.begin_session();
        self.tell_ended();
        self.tell_damage(now.mono);
        self.tell_purged();
        self.session.connected(now);
        self.transit.set_up(self.peer, true);
        self.transit_due = true;
        self.finals_due = true;
        self.perform(now)
    }

    fn disconnected(&mut self) {
        self.session.disconnected();
        self.transit.set_up(self.peer, false);
        self.consumer.end_session();
    }

    fn received(&mut self, now: Duration, frame: Frame) -> Result<(), Refusal> {
        let now = self.now(now);
        if let Err(e) = self.session.frame(frame, &self.outbound, now) {
            self.metrics.link_bad_frames_total.inc((self.label.clone(),));
            return Err(refusal(&e));
        }
        self.perform(now)
    }

    fn needs_settling(&self, now: Duration) -> bool {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        !self.appended_done.is_empty()
            || !self.asked.is_empty()
            || self.own_news
            || self.finals_due
            || self.parcels.is_due(self.appends.is_empty())
            || self.files_due
            || self.transit_due
            || !self.taken.is_empty()
            || due(self.retry_at)
            || due(self.session.poll_timeout())
    }

    fn settle(&mut self, mono: Duration) -> Result<(), Refusal> {
        let now = self.now(mono);
        self.answer(mono);
        self.finish_appends(now)?;
        if self.retry_at.is_some_and(|at| at <= mono) {
            self.retry_at = None;
            for append in std::mem::take(&mut self.stalled) {
                self.append(append);
            }
            // The ledger too may have been out of reach.
            self.finals_due = true;
            self.files_due = true;
        }
        if std::mem::take(&mut self.own_news) {
            self.tell_own_epoch();
            self.session.appended();
        }
        if std::mem::take(&mut self.finals_due) {
            match self.ledger.ledger(self.peer) {
                Ok(finals) => {
                    // Read behind them, told before: what jumped does not count without what it jumped over.
                    if let Some(jumped) = self.ledger.jumped(self.peer) {
                        self.session.jumped(jumped);
                    }
                    for (epoch, outcome, numbers) in finals {
                        self.session.finals(epoch, outcome, &numbers, now);
                    }
                }
                Err(e) => self.later(mono, &e),
            }
        }
        if std::mem::take(&mut self.files_due) {
            self.want_files(mono);
        }
        for (name, custody) in std::mem::take(&mut self.taken) {
            self.session.parcel_answered(name, custody);
        }
        if std::mem::take(&mut self.transit_due) && self.session.is_connected() {
            for (class, parcel) in self.transit.next(self.peer, &self.handed, self.session.handing_over()) {
                self.handed.insert(self.session.hand_over(class, parcel));
            }
        }
        if self.session.poll_timeout().is_some_and(|at| at <= mono) {
            self.session.tick(now);
        }
        self.perform(now)?;
        self.serve_parcels(now)
    }

    fn waiting(&mut self, mono: Duration) -> Result<Waiting, Refusal> {
        let now = self.now(mono);
        if self.purged_told != self.journal.purged_count() {
            self.tell_purged();
        }
        let mut waiting = self.look_ahead(now)?;
        // Reading ahead may have met damage: what it hides is told on this connection.
        if self.damage_told != self.journal.damage_changes() {
            self.tell_damage(mono);
            waiting = self.look_ahead(now)?;
        }
        Ok(waiting)
    }

    fn next_frame(&mut self, mono: Duration, lane: Lane, bytes_max: usize) -> Result<Option<Frame>, Refusal> {
        let now = self.now(mono);
        let made = self.session.next_frame(lane, bytes_max, &self.outbound, now);
        let made = made.map_err(|e| refusal(&e.into()))?;
        self.perform(now)?;
        Ok(made)
    }

    fn awaits_answer(&self) -> bool {
        self.session.awaits_answer()
    }

    fn deadline(&self) -> Option<Duration> {
        [self.session.poll_timeout(), self.retry_at].into_iter().flatten().min()
    }

    async fn wait(&mut self) {
        tokio::select! {
            Some(done) = self.appends.next() => {
                self.appended_done.push(done);
                // One group commit completes many: their receipts share a frame.
                while let Some(Some(done)) = self.appends.next().now_or_never() {
                    self.appended_done.push(done);
                }
            }
            Some(question) = self.questions.recv() => self.asked.push(question),
            Ok(()) = self.appended.changed() => self.own_news = true,
            Ok(()) = self.finals.changed() => self.finals_due = true,
            Some(ask) = self.parcels.inbox.recv() => self.parcels.push(ask),
            Ok(()) = self.files.changed() => self.files_due = true,
            Ok(()) = self.transit_news.changed() => self.transit_due = true,
            Some(taken) = self.taking.next() => self.taken.push(taken),
            else => std::future::pending().await,
        }
    }
}

impl Conversation {
    fn look_ahead(&mut self, now: Now) -> Result<Waiting, Refusal> {
        let waiting = self.session.waiting(&self.outbound, now).map_err(|e| refusal(&e.into()))?;
        self.perform(now)?;
        Ok(waiting)
    }

    fn answer(&mut self, mono: Duration) {
        for Question { entry, answer } in std::mem::take(&mut self.asked) {
            let sent_at = entry.and_then(|(epoch, seq)| self.session.sent_at(epoch, seq));
            let on_its_way = sent_at.map(|at| mono.saturating_sub(at));
            // Whoever asked may have gone.
            let (sent, on_request) = (self.session.sent_so_far(), self.session.files_on_request());
            let _ = answer.send(Telling { sent, on_request, on_its_way });
        }
    }

    fn now(&self, mono: Duration) -> Now {
        Now { mono, wall: self.clock.now() }
    }

    fn later(&mut self, mono: Duration, reason: &dyn std::fmt::Display) {
        tracing::warn!(peer = %self.peer, %reason, "will be tried again");
        self.retry_at = Some(mono + RETRY_AFTER);
    }

    /// What was purged is not sent any more, not even what was read ahead.
    fn tell_purged(&mut self) {
        // Counted before: what is purged meanwhile is told the next time.
        self.purged_told = self.journal.purged_count();
        for (epoch, numbers) in self.journal.purged() {
            self.session.lost(epoch, Outcome::Purged, &numbers);
        }
    }

    /// What was damaged here is asked for where the peer holds it, and wanted once more where it is the peer's. What
    /// nobody holds never reaches the peer unless it did already; told, so that nothing there waits for it.
    fn tell_damage(&mut self, mono: Duration) {
        // Read before: what is met meanwhile is told the next time.
        self.damage_told = self.journal.damage_changes();
        let missed = self.journal.missed_by(self.consumer.name());
        for (epoch, numbers) in missed.lost {
            self.session.lost(epoch, Outcome::Quarantined, &numbers);
        }
        self.session.recall(missed.recall);
        for (epoch, numbers) in self.journal.forgotten(self.peer) {
            self.session.forget(epoch, &numbers);
        }
        // Damage may have taken chunks of a file that was complete.
        self.want_files(mono);
    }

    fn want_files(&mut self, mono: Duration) {
        match self.ledger.incomplete_files(self.peer) {
            Ok(files) => files.iter().for_each(|file| self.session.want_file(file)),
            Err(e) => self.later(mono, &e),
        }
        match self.ledger.requested_files(self.peer) {
            Ok(files) => files.iter().for_each(|(file, class)| self.session.request_file(file, *class)),
            Err(e) => self.later(mono, &e),
        }
    }

    /// What ended without a connection and what is held no more, told so that nothing waits for it there.
    fn tell_ended(&mut self) {
        let outcomes = self.consumer.state().outcomes;
        let of = |epoch: Epoch, outcome: Outcome| {
            outcomes.get(&epoch).map(|sets| sets[outcome as usize - 1].clone()).unwrap_or_default()
        };
        for (epoch, numbers) in self.journal.trimmed() {
            self.session.lost(epoch, Outcome::Expired, &numbers.difference(&of(epoch, Outcome::Superseded)));
        }
        for epoch in outcomes.keys() {
            for outcome in [Outcome::Expired, Outcome::Superseded] {
                self.session.lost(*epoch, outcome, &of(*epoch, outcome));
            }
        }
    }

    pub(crate) fn tell_own_epoch(&mut self) {
        for own in self.journal.epochs() {
            self.session.own_epoch(own.epoch, own.last.map_or(0, model::Seq::get));
        }
    }

    /// Hands something to the journal; `wait` learns when it is durable.
    fn append(&mut self, append: Append) {
        let future: Boxed<Appended> = match append {
            Append::Entry(incoming) => {
                let object = object_of(&incoming);
                let ticket = self.journal.append_foreign(Foreign { bytes: Arc::clone(&incoming.bytes), object });
                Box::pin(async move { Appended::Entry(incoming, ticket.await) })
            }
            Append::Chunk(name, bytes, base, file) => {
                let ticket = self.journal.put_chunk_of(file, name, &bytes, base);
                Box::pin(async move { Appended::Chunk(name, bytes, base, file, ticket.await) })
            }
            Append::Retain(name) => {
                self.retains += 1;
                let ticket = self.journal.retain_chunk(name);
                Box::pin(async move { Appended::Retain(name, ticket.await) })
            }
            Append::Restore(incoming) => {
                let object = object_of(&incoming);
                let ticket = self.journal.restore(Foreign { bytes: Arc::clone(&incoming.bytes), object });
                Box::pin(async move { Appended::Restore(incoming, ticket.await) })
            }
        };
        self.appends.push(future);
    }

    /// Tells the session what has become durable.
    fn finish_appends(&mut self, now: Now) -> Result<(), Refusal> {
        let (mut entries, mut chunks) = (Vec::new(), Vec::new());
        let mut failed = None;
        for done in std::mem::take(&mut self.appended_done) {
            let (append, error) = match done {
                Appended::Entry(incoming, Ok(outcome)) => {
                    let id = incoming.entry.header.id;
                    match outcome {
                        ForeignOutcome::Stored(_) => {
                            self.metrics.link_received_entries_total.inc((self.label.clone(),));
                            entries.push(id);
                        }
                        ForeignOutcome::AlreadyHeld => {
                            self.metrics.link_duplicate_entries_total.inc((self.label.clone(),));
                            entries.push(id);
                        }
                        ForeignOutcome::Conflict { .. } => self.session.entry_conflicts(id),
                    }
                    continue;
                }
                Appended::Chunk(name, .., Ok(ChunkPut::Purged)) => {
                    self.session.chunks_not_stored(&[name]);
                    continue;
                }
                Appended::Chunk(name, bytes, _, _, Ok(ChunkPut::Stored)) => {
                    self.metrics.link_received_chunk_bytes_total.add((self.label.clone(),), bytes.len() as u64);
                    chunks.push(name);
                    continue;
                }
                Appended::Chunk(name, .., Ok(ChunkPut::AlreadyHeld)) => {
                    chunks.push(name);
                    continue;
                }
                Appended::Retain(name, Ok(held)) => {
                    self.retains -= 1;
                    if !held {
                        tracing::warn!(chunk = %name, "a chunk that was held is gone; its file is fetched again later");
                        self.files_due = true;
                    }
                    continue;
                }
                Appended::Restore(incoming, Ok(restored)) => {
                    if restored {
                        let id = incoming.entry.header.id;
                        tracing::warn!(peer = %self.peer, %id, "an entry that was damaged here came back from the peer");
                        self.metrics.journal_restored_entries_total.inc(());
                        self.session.appended();
                    }
                    continue;
                }
                Appended::Restore(incoming, Err(e @ AppendError::Malformed(_))) => {
                    // The peer's copy is not what stood here: as good as none.
                    let id = incoming.entry.header.id;
                    tracing::error!(peer = %self.peer, %id, error = %e, "the peer returned something else");
                    let number = RangeSet::from(id.seq.get()..=id.seq.get());
                    self.journal.not_returned(self.consumer.name(), id.epoch, &number);
                    continue;
                }
                Appended::Restore(incoming, Err(e)) => (Append::Restore(incoming), e),
                Appended::Entry(incoming, Err(e)) => (Append::Entry(incoming), e),
                Appended::Chunk(name, bytes, base, file, Err(e)) => (Append::Chunk(name, bytes, base, file), e),
                Appended::Retain(name, Err(e)) => {
                    self.retains -= 1;
                    (Append::Retain(name), e)
                }
            };
            match append {
                append if error.is_retryable() => self.stalled.push(append),
                Append::Entry(incoming) => self.session.entries_not_stored(&[incoming.entry.header.id]),
                Append::Chunk(name, ..) => self.session.chunks_not_stored(&[name]),
                Append::Retain(_) => self.files_due = true,
                // Asked for again over the next connection.
                Append::Restore(_) => {}
            }
            // A failure that lasts decides over one that may pass.
            if failed.as_ref().is_none_or(AppendError::is_retryable) {
                failed = Some(error);
            }
        }
        if !entries.is_empty() {
            self.session.entries_stored(&entries, now);
        }
        if !chunks.is_empty() {
            self.session.chunks_stored(&chunks);
        }
        // Without a connection nothing else moves files on that came in parcels.
        if !entries.is_empty() || !chunks.is_empty() {
            self.session.settle_files(&self.outbound).map_err(|e| refusal(&e))?;
        }
        self.tell_complete_files();
        match failed {
            // The connection stays: what is held is still worth its receipts, and the peer sends no more than its window.
            Some(e) if e.is_retryable() => self.later(now.mono, &e),
            Some(e) => return Err(Refusal { text: format!("{e}; {}", e.next_step()), retry: true }),
            None => {}
        }
        Ok(())
    }

    fn tell_complete_files(&mut self) {
        if self.retains == 0 {
            for file in self.files_done.drain(..) {
                self.ledger.file_complete(file);
            }
        }
    }

    /// Carries out what the session wants done.
    pub(crate) fn perform(&mut self, now: Now) -> Result<(), Refusal> {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Store(incoming) => self.append(Append::Entry(incoming)),
                Output::StoreChunk { name, bytes, base, file } => {
                    self.append(Append::Chunk(name, bytes.into(), base, file));
                }
                Output::RetainChunk(name) => self.append(Append::Retain(name)),
                Output::RecordStored { epoch, ranges } => self.consumer.record_stored(epoch, &ranges),
                Output::RecordOutcome { epoch, outcome, ranges } => {
                    self.consumer.record_outcome(outcome, epoch, &ranges);
                }
                Output::StartEpoch { reason, at_least, reissue } => {
                    let moved = self.start_epoch(reason, at_least, reissue);
                    moved.map_err(|e| Refusal { text: format!("{e}; {}", e.next_step()), retry: true })?;
                }
                Output::AccountSkipped { epoch, outcome, ranges } => self.account(epoch, outcome, &ranges, now)?,
                Output::PeerGreeted { name, boot, epoch, next_seq } => {
                    tracing::debug!(peer = %self.peer, %name, epoch = epoch.0, next = next_seq.get(), "peer greeted");
                    if self.clones.greeted(self.peer, boot) == CloneVerdict::Cloned {
                        return Err(Refusal { text: CloneVerdict::CLONED_TEXT.to_owned(), retry: false });
                    }
                }
                Output::FileComplete(file) => {
                    self.files_done.push(file);
                    self.tell_complete_files();
                }
                Output::FileUnavailable(file) => {
                    tracing::warn!(peer = %self.peer, %file, "the peer does not hold all of this file any more");
                }
                Output::OfferFiles => self.files_due = true,
                Output::Restore(incoming) => self.append(Append::Restore(incoming)),
                Output::NotReturned { epoch, ranges } => {
                    tracing::warn!(peer = %self.peer, epoch = epoch.0, numbers = ?ranges, "the peer does not hold them either");
                    self.journal.not_returned(self.consumer.name(), epoch, &ranges);
                }
                Output::TakeParcel { name, bytes } => {
                    let (transit, from) = (Arc::clone(&self.transit), self.peer);
                    self.taking.push(Box::pin(async move { (name, transit.take(from, name, bytes).await) }));
                }
                Output::ParcelKept { name, custody } => {
                    self.handed.remove(&name);
                    self.transit.kept(self.peer, name, custody);
                    self.transit_due = true;
                }
                Output::Close { code, text } => return Err(Refusal { text, retry: may_retry(code) }),
                Output::Event(event) => self.count(&event),
            }
        }
        Ok(())
    }

    fn start_epoch(
        &mut self,
        reason: StartEpochReason,
        at_least: Epoch,
        reissue: Vec<EntryId>,
    ) -> Result<(), AppendError> {
        let reason = match reason {
            StartEpochReason::PeerIsAhead => EpochReason::PeerIsAhead,
            StartEpochReason::Conflict => EpochReason::Conflict,
        };
        let mut open = self.journal.epochs().last().map(|open| open.epoch);
        for _ in 0..EPOCHS_PER_CLAIM {
            if open >= Some(at_least) {
                break;
            }
            open = Some(self.journal.start_epoch(reason).wait()?);
        }
        tracing::warn!(peer = %self.peer, ?reason, reissued = reissue.len(), "numbers are in doubt; a new epoch begins");
        self.journal.reissue(reissue).wait()?;
        self.tell_own_epoch();
        self.session.appended();
        Ok(())
    }

    fn account(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet, now: Now) -> Result<(), Refusal> {
        match self.ledger.account(self.peer, epoch, outcome, numbers) {
            Ok(()) => {
                self.session.finals(epoch, outcome, numbers, now);
                Ok(())
            }
            // The peer says it again over the next connection.
            Err(e) => Err(Refusal { text: e.to_string(), retry: true }),
        }
    }

    fn count(&self, event: &LinkEvent) {
        match event {
            LinkEvent::Resumed { again } => tracing::debug!(peer = %self.peer, again, "both sides have greeted"),
            LinkEvent::UrgentStored { captured, .. } => {
                let millis = self.clock.now().0.saturating_sub(captured.millis().0);
                self.metrics.link_urgent_ack_seconds.observe((self.label.clone(),), millis.max(0) as f64 / 1_000.0);
            }
            LinkEvent::Duplicates(count) => {
                self.metrics.link_duplicate_entries_total.add((self.label.clone(),), *count as u64);
            }
            LinkEvent::Sent { class, entries, bytes, plain } => {
                self.metrics.link_sent_entries_total.add((self.label.clone(), *class), *entries as u64);
                if *plain > 0 {
                    self.metrics.link_entry_plain_bytes_total.add((self.label.clone(),), *plain as u64);
                    self.metrics.link_entry_packed_bytes_total.add((self.label.clone(),), *bytes as u64);
                }
            }
            LinkEvent::HistoryLost { again } => {
                tracing::debug!(peer = %self.peer, again, "the peer no longer holds a history; entries are sent again");
                self.metrics.link_history_lost_entries_total.add((self.label.clone(),), *again as u64);
            }
            LinkEvent::PeerForgot { epoch, ranges } => {
                tracing::warn!(peer = %self.peer, epoch = epoch.0, count = ranges.count(), "the peer has lost entries");
            }
            LinkEvent::AskedAgain { epoch, ranges } => {
                let count = ranges.count();
                tracing::warn!(peer = %self.peer, epoch = epoch.0, count, "the peer lost entries, or had no room for them; they are sent again");
                self.metrics.link_asked_again_entries_total.add((self.label.clone(),), count);
            }
            LinkEvent::PeerLeft { code, text } => tracing::info!(peer = %self.peer, ?code, %text, "peer left"),
        }
    }
}

/// Does another connection help without an operator?
fn may_retry(code: ByeCode) -> bool {
    match code {
        ByeCode::Leaving | ByeCode::Protocol | ByeCode::Quiet | ByeCode::Journal | ByeCode::Replaced => true,
        ByeCode::OtherNode | ByeCode::Cloned | ByeCode::Version => false,
    }
}

fn refusal(e: &LinkError) -> Refusal {
    Refusal { text: format!("{e}; {}", e.next_step()), retry: may_retry(e.code()) }
}

/// The object whose state the entry holds. An entry that cannot be read is stored all the same: apply keeps it aside with a
/// reason.
fn object_of(incoming: &Incoming) -> Option<ObjectKey> {
    let header = &incoming.entry.header;
    let mut ids = EntryIds::new(header.id.origin, header.mint_salt);
    Event::decode_with(header.kind, &incoming.entry.body, &mut ids).ok().map(|event| event.object().key())
}
