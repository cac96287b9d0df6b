//! The session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use model::{
    ChunkName, Entry, EntryId, Epoch, Kind, Label, LocalPos, NodeId, Outbound, OutboundError, Outcome, Precedence,
    RangeSet, Seq, UnixMillis,
};
use wire::Frame;
use wire::frame::{Bye, ByeCode, Custody, FRAME_BYTES_MAX, Greet, NAME_BYTES_MAX, PROTOCOL};
use wire::parcel::PARCEL_BYTES_MAX;

use crate::fetch::{Fetch, OnRequest};
use crate::history::Held;
use crate::limits::{GRANT_BYTES_MIN, GREETING_MAX, KEEPALIVE, QUIET_MAX};
use crate::mend::Mend;
use crate::output::{LinkError, LinkEvent, Output};
use crate::progress::EpochProgress;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::sent::SentSoFar;
use crate::serve::Serve;
use crate::transit::Transit;

/// The time, as protocol and as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary start, never stepping: for deadlines.
    pub mono: Duration,
    /// Wall clock: for expiry.
    pub wall: UnixMillis,
}

/// Who talks to whom, and what may be said.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// This node.
    pub me: NodeId,
    /// Its configured name, told in the greeting.
    pub name: String,
    /// Random per start of this process.
    pub boot: u64,
    /// The peer.
    pub peer: NodeId,
    /// Labels that the peer may get. `local` is never carried, whatever stands here.
    pub labels: BTreeSet<Label>,
    /// The peer's chunk secret: its chunks are verified with it.
    pub peer_chunk_secret: [u8; 32],
    /// zstd level for what is sent, 1 to 19.
    pub compression: i32,
}

/// What is durably known about own entries at the peer.
#[derive(Clone, Debug)]
pub struct SenderState {
    /// Own epochs and their last number (0 while there is none), the open one included.
    pub epochs: BTreeMap<Epoch, u64>,
    /// From the peer's consumer in the journal.
    pub progress: BTreeMap<Epoch, EpochProgress>,
    /// Every own entry before this position is final at the peer: reading starts here.
    pub scan_from: LocalPos,
}

impl Default for SenderState {
    fn default() -> Self {
        Self { epochs: BTreeMap::new(), progress: BTreeMap::new(), scan_from: LocalPos::START }
    }
}

/// What is durably known about the peer's entries here.
#[derive(Clone, Debug, Default)]
pub struct ReceiverState {
    /// `stored` from the journal, `outcomes` from the ledger that apply keeps.
    pub progress: BTreeMap<Epoch, EpochProgress>,
}

/// What a grant is for; the same lanes as the shaper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small frames that everything else waits for.
    Control,
    /// Entries and file slices of a class.
    Class(Precedence),
}

/// What waits to be sent, for the shaper's demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Control frames wait.
    pub control: bool,
    /// By class: something waits.
    pub classes: [bool; 5],
}

impl Waiting {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        !self.control && !self.classes.contains(&true)
    }
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: SessionConfig,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) fetch: Fetch,
    serve: Serve,
    mend: Mend,
    transit: Transit,
    pub(crate) held: Held,
    /// The carrier sees to it that the peer is there, and says when it is not.
    watched_below: bool,
    connection: Option<Connection>,
    /// The peer's boot at its last greeting.
    boot_seen: Option<u64>,
    pub(crate) outputs: VecDeque<Output>,
}

/// One connection, from the transport's opening to its end.
#[derive(Debug)]
struct Connection {
    /// What this side still has to say before it resumes.
    ours: Greeting,
    peer_greeted: Option<Greet>,
    /// How many receipts its greeting has, once it said so.
    peer_parts: Option<u32>,
    /// Which of them came.
    parts: RangeSet,
    last_sent: Duration,
    last_heard: Duration,
    /// Nothing was sent for [`KEEPALIVE`].
    keepalive: bool,
    /// The shell was told to close.
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Greet,
    /// With the number of receipts so far.
    Receipts(u32),
    Done,
}

impl Connection {
    fn is_up(&self) -> bool {
        self.ours == Greeting::Done && self.peer_is_ready() && !self.closing
    }

    fn peer_is_ready(&self) -> bool {
        self.peer_greeted.is_some() && self.peer_parts.is_some_and(|parts| self.parts.count() >= u64::from(parts))
    }

    /// When the peer has been quiet for too long. `watched`: the carrier says so, once the peer is ready.
    fn quiet_at(&self, watched: bool) -> Option<Duration> {
        match self.peer_is_ready() {
            true => (!watched).then(|| self.last_heard + QUIET_MAX),
            false => Some(self.last_heard + GREETING_MAX),
        }
    }

    fn keepalive_at(&self) -> Duration {
        self.last_sent + KEEPALIVE
    }
}

impl Session {
    /// A session without a connection.
    pub fn new(config: SessionConfig, sender: SenderState, receiver: ReceiverState) -> Self {
        Self {
            sender: Sender::new(config.me, config.labels.clone(), config.compression, sender),
            receiver: Receiver::new(config.peer, receiver),
            fetch: Fetch::new(config.peer, config.peer_chunk_secret),
            serve: Serve::new(config.me, config.compression),
            mend: Mend::new(config.me, config.peer, config.compression),
            transit: Transit::default(),
            held: Held::new(config.peer),
            watched_below: false,
            connection: None,
            boot_seen: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// The carrier sends signs of life as its links need them, or none, and says when the peer is gone: this session does neither.
    pub fn watched_below(&mut self) {
        self.watched_below = true;
    }

    /// A connection to the authenticated peer is there; it replaces an earlier one.
    pub fn connected(&mut self, now: Now) {
        if self.connection.is_some() {
            self.disconnected();
        }
        self.sender.connected();
        self.receiver.connected();
        self.mend.connected();
        self.transit.connected();
        self.held.connected();
        self.connection = Some(Connection {
            ours: Greeting::Greet,
            peer_greeted: None,
            peer_parts: None,
            parts: RangeSet::new(),
            last_sent: now.mono,
            last_heard: now.mono,
            keepalive: false,
            closing: false,
        });
    }

    /// The connection is gone. What was under way counts as lost until the peer says otherwise.
    pub fn disconnected(&mut self) {
        self.connection = None;
        self.sender.disconnected();
        self.receiver.disconnected();
        self.fetch.disconnected();
        self.serve.disconnected();
        self.mend.disconnected();
    }

    /// Takes a frame of the current connection. Poll the outputs afterwards.
    ///
    /// # Errors
    /// When the peer broke a rule or the journal cannot be read: send a `Bye` with [`LinkError::code`] and close.
    pub fn frame(&mut self, frame: Frame, outbound: &dyn Outbound, now: Now) -> Result<(), LinkError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.last_heard = now.mono;
        let greeting = !connection.peer_is_ready();
        let outputs = &mut self.outputs;
        match frame {
            Frame::Greet(greet) => self.greeted(greet)?,
            Frame::Ready(parts) => connection.peer_parts = Some(parts),
            Frame::Receipt(receipt) => {
                if receipt.part > 0 {
                    connection.parts.insert(u64::from(receipt.part));
                }
                self.sender.receipt(receipt, outbound, now, outputs)?;
            }
            Frame::Resume(resume) => self.sender.resume_at(resume),
            Frame::Batch(batch) => {
                if let Some(entries) = self.held.entries(&batch)? {
                    let new = self.receiver.batch(entries, outbound, now.mono, outputs)?;
                    self.note_files(&new);
                }
            }
            Frame::Fragment(fragment) => {
                let new = self.receiver.fragment(&fragment, outbound, now.mono, outputs)?;
                self.note_files(&new);
            }
            Frame::Skip(skip) => self.receiver.skip(skip, now.mono, outputs)?,
            Frame::Verify(verify) => self.receiver.verify(&verify, outbound)?,
            Frame::Verdict(verdict) => self.sender.verdict(&verdict, now, outputs),
            Frame::Want(want) => self.serve.want(want)?,
            Frame::Unavailable(gone) => self.fetch.unavailable(&gone, outputs),
            Frame::Slice(slice) => self.fetch.slice(&slice, outputs)?,
            Frame::KeepAlive => {}
            Frame::Bye(Bye { code, text }) => {
                connection.closing = true;
                outputs.push_back(Output::Event(LinkEvent::PeerLeft { code, text }));
            }
            Frame::Again(lost) => self.sender.asked_again(&lost, outputs),
            Frame::Recall(lost) => self.mend.recalled(&lost, &self.receiver.stored_of(lost.epoch))?,
            Frame::Returned(part) => self.mend.returned(&part, outputs)?,
            Frame::Gone(gone) => self.mend.gone(&gone, outputs),
            Frame::History(offer) => self.held.offered(offer, outbound)?,
            Frame::HistoryHeld(held) => self.sender.history_held(&held),
            Frame::HistoryGone(name) => self.sender.history_gone(name, outputs),
            Frame::Claim(claim) => {
                if claim.part > 0 {
                    connection.parts.insert(u64::from(claim.part));
                }
                self.sender.claim(claim, now, outputs);
            }
            Frame::Whole(list) => self.fetch.list_ahead(&list, outbound, outputs)?,
            Frame::Join(_) | Frame::Got(_) | Frame::Shut(_) => {
                return Err(LinkError::Protocol("it sent the session what is the carrier's"));
            }
            Frame::OnRequest(files) => self.serve.on_request(&files, &self.sender),
            Frame::Urge(urge) => self.serve.urge(urge),
            Frame::Carried(carried) => self.transit.carried(carried, outputs)?,
            Frame::Kept(kept) => self.transit.kept(kept, outputs),
        }
        if greeting {
            self.resume_when_ready();
        }
        Ok(())
    }

    fn greeted(&mut self, greet: Greet) -> Result<(), LinkError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if greet.protocol != PROTOCOL {
            return Err(LinkError::Version { found: greet.protocol, known: PROTOCOL });
        }
        if greet.node != self.config.peer {
            return Err(LinkError::WrongPeer { found: greet.node, expected: self.config.peer });
        }
        // Said twice is said once.
        if connection.peer_greeted.is_some() {
            return Ok(());
        }
        let Greet { boot, epoch, next_seq, ref name, .. } = greet;
        if self.boot_seen != Some(boot) {
            self.held.peer_restarted();
        }
        self.outputs.push_back(Output::PeerGreeted { name: name.clone(), boot, epoch, next_seq });
        connection.peer_greeted = Some(greet);
        Ok(())
    }

    fn resume_when_ready(&mut self) {
        let Some(connection) = &self.connection else { return };
        if let (true, Some(greet)) = (connection.peer_is_ready(), &connection.peer_greeted) {
            let restarted = self.boot_seen != Some(greet.boot);
            self.boot_seen = Some(greet.boot);
            self.sender.resume(restarted, &mut self.outputs);
        }
    }

    pub(crate) fn note_files(&mut self, entries: &[Arc<Entry>]) {
        entries.iter().filter(|e| e.header.kind == Kind::File).for_each(|e| self.fetch.arrived(e));
    }

    /// Entries of an [`Output::Store`] are durable (or were held already with the same content).
    pub fn entries_stored(&mut self, ids: &[EntryId], now: Now) {
        self.receiver.stored(ids, now.mono);
        ids.iter().for_each(|id| self.fetch.entry_stored(*id));
    }

    /// Entries of an [`Output::Store`] could not be made durable. Nothing of them is remembered; disconnect, and the
    /// peer sends them again on the next connection.
    pub fn entries_not_stored(&mut self, ids: &[EntryId]) {
        self.receiver.not_stored(ids);
        ids.iter().for_each(|id| self.fetch.entry_not_stored(*id));
    }

    /// The entry of an [`Output::Store`] is held under the same number with another content.
    pub fn entry_conflicts(&mut self, id: EntryId) {
        self.receiver.conflicts(id);
        self.fetch.entry_not_stored(id);
    }

    /// The ledger says that these entries of the peer ended so, durably.
    pub fn finals(&mut self, epoch: Epoch, outcome: Outcome, ranges: &RangeSet, now: Now) {
        self.receiver.finals(epoch, outcome, ranges, now.mono, &mut self.outputs);
        if outcome == Outcome::Purged {
            self.fetch.forget(epoch, ranges);
            self.held.purged(epoch, ranges);
        }
    }

    /// All entries of the peer that took effect before their turn because something more urgent needed them, each with the one
    /// it jumped over, as long as that has not ended. To be told before the finals that they belong to, and once at the start:
    /// until then no skip counts whose place is behind another entry.
    pub fn jumped(&mut self, jumped: impl IntoIterator<Item = (EntryId, EntryId)>) {
        let number = |id: EntryId| (id.epoch, id.seq.get());
        let jumped = jumped.into_iter().map(|(id, over)| (number(id), number(over))).collect();
        self.receiver.jumped(jumped, &mut self.outputs);
    }

    /// Chunks of an [`Output::StoreChunk`] are durable.
    pub fn chunks_stored(&mut self, names: &[ChunkName]) {
        self.fetch.stored(names);
    }

    /// Chunks of an [`Output::StoreChunk`] could not be made durable; see [`Session::entries_not_stored`].
    pub fn chunks_not_stored(&mut self, names: &[ChunkName]) {
        self.fetch.not_stored(names);
    }

    /// Fetch the chunks of this stored file entry of the peer, as far as they are missing. For files that were
    /// incomplete when the process started, or found incomplete later; files that arrive through this session are
    /// fetched without asking. Other entries are ignored.
    pub fn want_file(&mut self, entry: &Entry) {
        if entry.header.id.origin == self.config.peer && entry.header.kind == Kind::File {
            self.fetch.want(entry);
        }
    }

    /// Content of files with more bytes than this is asked for only on request, from the next file on. `None` for none.
    pub fn hold_files_above(&mut self, bytes: Option<u64>) {
        self.fetch.hold_files_above(bytes);
    }

    /// Somebody wants the content of this stored file entry of the peer, whatever its size; it is to travel in this class.
    /// Repeating it is harmless; other entries are ignored.
    pub fn request_file(&mut self, entry: &Entry, class: Precedence) {
        if entry.header.id.origin == self.config.peer && entry.header.kind == Kind::File {
            self.fetch.request(entry, class);
        }
    }

    /// Files of the peer whose content nobody has wanted so far.
    pub fn files_on_request(&self) -> Vec<OnRequest> {
        self.fetch.on_request()
    }

    /// Gives the peer a parcel to take or to carry on, in this class. Returns its name, [`wire::parcel::name_of`] its bytes.
    /// It is offered on every connection until an [`Output::ParcelKept`] tells what became of it; repeating it is harmless.
    ///
    /// # Panics
    /// When the parcel is larger than any.
    pub fn hand_over(&mut self, class: Precedence, parcel: Vec<u8>) -> u64 {
        assert!(parcel.len() <= PARCEL_BYTES_MAX, "a parcel of {} bytes", parcel.len());
        self.transit.hand_over(class, parcel)
    }

    /// A parcel need not be handed over any more.
    pub fn withdraw_parcel(&mut self, name: u64) {
        self.transit.withdraw(name);
    }

    /// By class, bytes of the parcels that the peer has not answered for: for the shell to bound.
    pub fn handing_over(&self) -> [usize; Precedence::ALL.len()] {
        self.transit.handing_over()
    }

    /// What has become of the parcel of an [`Output::TakeParcel`]: it is durable, or is not taken.
    pub fn parcel_answered(&mut self, name: u64, custody: Custody) {
        self.transit.answer(name, custody);
    }

    /// The journal has more own entries.
    pub fn appended(&mut self) {
        self.sender.appended();
    }

    /// The journal cannot give these own numbers any more: their entries are damaged ([`Outcome::Quarantined`]), were
    /// purged, or were trimmed before this peer had them ([`Outcome::Expired`]). The peer is told, so that nothing waits for them there;
    /// they are recorded when it confirms. Repeating it is harmless.
    pub fn lost(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) {
        self.sender.lost(epoch, outcome, numbers, self.connection.as_ref().is_some_and(Connection::is_up));
    }

    /// Entries of the peer that were stored here were damaged before they were used: they count as not received, and
    /// the peer is asked to send them again until they come or it says why they do not.
    pub fn forget(&mut self, epoch: Epoch, numbers: &RangeSet) {
        self.receiver.forget(epoch, numbers);
    }

    /// These own entries, and no others, are damaged here and may be held by the peer: it is asked to give them back.
    /// What comes is an [`Output::Restore`], what does not an [`Output::NotReturned`].
    pub fn recall(&mut self, missed: BTreeMap<Epoch, RangeSet>) {
        self.mend.miss(missed);
    }

    /// An own epoch and its last number (0 while there is none): after an [`Output::StartEpoch`], and before
    /// [`Session::appended`]. Of one that has ended too, since it may have grown until then.
    pub fn own_epoch(&mut self, epoch: Epoch, last: u64) {
        self.sender.own_epoch(epoch, last);
    }

    /// The labels that the peer may get changed in the configuration. What was withheld stays withheld.
    pub fn set_labels(&mut self, labels: BTreeSet<Label>) {
        self.sender.set_labels(labels);
    }

    /// Honours deadlines that have passed.
    pub fn tick(&mut self, now: Now) {
        let Some(connection) = self.connection.as_mut().filter(|c| !c.closing) else { return };
        self.receiver.tick(now.mono);
        let watched = self.watched_below;
        if !watched && now.mono >= connection.keepalive_at() {
            connection.keepalive = true;
        }
        if connection.quiet_at(watched).is_some_and(|at| at <= now.mono) {
            connection.closing = true;
            let quiet = now.mono.saturating_sub(connection.last_heard).as_secs();
            let text = format!("nothing was heard from the peer for {quiet} s; the link is tried again");
            self.outputs.push_back(Output::Close { code: ByeCode::Quiet, text });
        }
    }

    /// When [`Session::tick`] is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let connection = self.connection.as_ref().filter(|c| !c.closing)?;
        let watched = self.watched_below;
        let keepalive = (!watched && !connection.keepalive).then(|| connection.keepalive_at());
        [connection.quiet_at(watched), keepalive, self.receiver.due()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What waits to be sent on the current connection. Poll the outputs afterwards: skips come out of this too.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn waiting(&mut self, outbound: &dyn Outbound, now: Now) -> Result<Waiting, OutboundError> {
        let mut waiting = Waiting::default();
        let Some(connection) = self.connection.as_ref().filter(|c| !c.closing) else { return Ok(waiting) };
        if !connection.is_up() {
            waiting.control = connection.ours != Greeting::Done || connection.keepalive;
            if connection.ours == Greeting::Done {
                for class in Precedence::ALL {
                    waiting.classes[class.index()] = self.sender.waits(class, outbound, now)?;
                }
            }
            return Ok(waiting);
        }
        for class in Precedence::ALL {
            waiting.classes[class.index()] = self.sender.waits(class, outbound, now)? || self.transit.waits(class);
        }
        if let Some(class) = self.serve.waits() {
            waiting.classes[class.index()] = true;
        }
        if let Some(class) = self.mend.waits(outbound)? {
            waiting.classes[class.index()] = true;
        }
        waiting.control = connection.keepalive
            || self.sender.has_control()
            || self.receiver.has_control()
            || self.held.has_control()
            || self.fetch.has_control()
            || self.serve.has_control()
            || self.mend.has_control()
            || self.transit.has_control();
        self.sender.flush(&mut self.outputs);
        Ok(waiting)
    }

    /// The next frame for a grant, at most `bytes_max` long without the stream's length prefix ([`GRANT_BYTES_MIN`] at
    /// least). `None` when nothing waits in the lane. Poll the outputs afterwards: skips and events come out of
    /// this too.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next_frame(
        &mut self,
        lane: Lane,
        bytes_max: usize,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Option<Frame>, OutboundError> {
        let bytes_max = bytes_max.clamp(GRANT_BYTES_MIN, FRAME_BYTES_MAX);
        let Some(connection) = self.connection.as_ref().filter(|c| !c.closing) else { return Ok(None) };
        let frame = match lane {
            Lane::Control => self.next_control(bytes_max, outbound, now)?,
            Lane::Class(_) if connection.ours != Greeting::Done => None,
            Lane::Class(class) if !connection.is_up() => match self.next_list(class, bytes_max, outbound, now)? {
                None => self.sender.next_entries(class, bytes_max, outbound, now, &mut self.outputs)?,
                list => list,
            },
            Lane::Class(class) if self.transit.waits(class) && self.transit.takes_turn(class) => {
                self.transit.next_part(class, bytes_max)
            }
            Lane::Class(class) if let Some(list) = self.next_list(class, bytes_max, outbound, now)? => Some(list),
            Lane::Class(class) => {
                let entries = self.sender.next_entries(class, bytes_max, outbound, now, &mut self.outputs)?;
                match entries.or_else(|| self.mend.next_part(class, bytes_max)) {
                    None if self.serve.waits() == Some(class) => {
                        self.serve.next_slice(bytes_max, &self.sender, outbound)?
                    }
                    None => self.transit.next_part(class, bytes_max),
                    other => other,
                }
            }
        };
        self.sender.flush(&mut self.outputs);
        if let (Some(_), Some(connection)) = (&frame, &mut self.connection) {
            connection.last_sent = now.mono;
            connection.keepalive = false;
        }
        Ok(frame)
    }

    fn next_list(
        &mut self,
        class: Precedence,
        bytes_max: usize,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Option<Frame>, OutboundError> {
        let front = self.sender.front(class, outbound, now)?;
        front.map_or(Ok(None), |front| self.serve.next_list(front, bytes_max, outbound))
    }

    fn next_control(
        &mut self,
        bytes_max: usize,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Option<Frame>, OutboundError> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        match connection.ours {
            Greeting::Greet => {
                connection.ours = Greeting::Receipts(0);
                return Ok(Some(self.greet()));
            }
            Greeting::Receipts(ref mut parts) => {
                let frame = self.receiver.next_greeting(parts, bytes_max).unwrap_or(Frame::Ready(*parts));
                if matches!(frame, Frame::Ready(_)) {
                    connection.ours = Greeting::Done;
                }
                return Ok(Some(frame));
            }
            Greeting::Done => {}
        }
        if !connection.is_up() {
            return Ok(connection.keepalive.then_some(Frame::KeepAlive));
        }
        let keepalive = connection.keepalive;
        if let Some(frame) = self.held.next_control(bytes_max).or_else(|| self.receiver.next_control(bytes_max)) {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.sender.next_control(bytes_max, outbound, now, &mut self.outputs)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.fetch.next_control(bytes_max, outbound, &mut self.outputs)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.serve.next_control(bytes_max).or_else(|| self.mend.next_control(bytes_max)) {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.transit.next_control() {
            return Ok(Some(frame));
        }
        Ok(keepalive.then_some(Frame::KeepAlive))
    }

    fn greet(&self) -> Frame {
        let (epoch, last) = self.sender.open_epoch();
        let mut name = self.config.name.clone();
        while name.len() > NAME_BYTES_MAX {
            name.pop();
        }
        let (node, boot) = (self.config.me, self.config.boot);
        let next_seq = Seq::new(last.saturating_add(1)).unwrap_or(Seq::FIRST);
        Frame::Greet(Greet { protocol: PROTOCOL, node, boot, epoch, next_seq, name })
    }

    /// What was sent so far, and what is known of the peer's holdings.
    pub fn sent_so_far(&mut self) -> SentSoFar {
        let mut sent = self.sender.sent_so_far();
        self.serve.add_sent(&self.sender, &mut sent);
        sent
    }

    /// When an own entry was sent on the present connection, on the monotonic clock; `None` when it was not, or when
    /// there is a receipt.
    pub fn sent_at(&self, epoch: Epoch, seq: Seq) -> Option<Duration> {
        self.sender.sent_at((epoch, seq.get()))
    }

    /// Is the peer to answer something that was sent on this connection: its greeting, a receipt, a chunk, a parcel?
    /// What has its answer and only waits to be applied there awaits nothing.
    pub fn awaits_answer(&self) -> bool {
        let Some(connection) = self.connection.as_ref().filter(|c| !c.closing) else { return false };
        !connection.peer_is_ready()
            || self.sender.awaits_receipts()
            || self.fetch.awaits_chunks()
            || self.transit.awaits_answers()
    }

    /// Is a connection attached, greeted or not?
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Is a connection attached and greeted by both sides?
    pub fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_up)
    }
}
