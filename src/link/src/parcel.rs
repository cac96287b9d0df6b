//! Parcels: what goes to a peer, and comes from it, by way of others. See [`wire::parcel`] for their form.
//!
//! ```text
//!  own entries, files --Planner--> Planned frames --(sealed, carried, opened)--> Session::parcel --> the same outputs
//!                                                                                             as from a connection
//!  Session::receipts -----------> in a parcel the other way -------------------> Session::parcel --> RecordStored, ...
//! ```
//!
//! Invariants
//! - Putting an entry into a parcel proves nothing: it is held until the destination's receipt comes, by whatever way.
//! - A parcel may never arrive, arrive twice, late, or after a restored snapshot of its origin has used the same numbers
//!   for something else. So the destination tells what came in parcels as claims, by the start of the origin that wrote
//!   them, and the origin believes a claim only where it remembers that this start wrote this number.
//! - What went into a parcel is not decided on locally any more (expired, superseded): a receipt may be on its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{
    ChunkName, EntryId, Epoch, Event, Kind, Label, LocalPos, NodeId, Outbound, OutboundError, Outcome, Precedence,
    RangeSet,
};
use wire::chunk::{check_manifest, read_name_list};
use wire::frame::{FRAME_BYTES_MAX, Frame, Whole};
use wire::parcel::LABELS_MAX;

use crate::limits::{NAMES_MAX, READ_AHEAD_BYTES};
use crate::output::{LinkError, Output};
use crate::progress::{EpochProgress, union_into};
use crate::sender::Sender;
use crate::session::{Now, SenderState, Session};

/// Numbers by the start of a process and epoch.
pub type ByBoot = BTreeMap<u64, BTreeMap<Epoch, RangeSet>>;

/// Numbers, and files, that a planner need not plan: they are under way already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Own entries.
    pub numbers: BTreeMap<Epoch, RangeSet>,
    /// Own file entries whose chunks are all under way.
    pub files: BTreeMap<Epoch, RangeSet>,
    /// A file entry and how many of its chunks are.
    pub begun: Option<(EntryId, u64)>,
}

impl Settled {
    /// Adds what a parcel holds.
    pub fn add(&mut self, planned: &Planned) {
        planned.numbers.iter().for_each(|(epoch, set)| union_into(&mut self.numbers, *epoch, set));
        planned.files.iter().for_each(|(epoch, set)| union_into(&mut self.files, *epoch, set));
        self.begun = planned.begun;
    }

    fn has_file(&self, id: EntryId) -> bool {
        self.files.get(&id.epoch).is_some_and(|set| set.contains(id.seq.get()))
    }
}

/// What goes into one parcel.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Class of its entries.
    pub precedence: Precedence,
    /// Labels of its entries and chunks.
    pub labels: BTreeSet<Label>,
    /// Its body.
    pub frames: Vec<Frame>,
    /// Its entries.
    pub numbers: BTreeMap<Epoch, RangeSet>,
    /// File entries of which this parcel has the last chunk.
    pub files: BTreeMap<Epoch, RangeSet>,
    /// The file of which further chunks follow, and how many are in this parcel or before it.
    pub begun: Option<(EntryId, u64)>,
    /// Chunks in it.
    pub chunks: u64,
    /// Bytes of its frames.
    pub bytes: usize,
}

/// Decides what goes into parcels for one destination: what its receipts do not cover, most urgent first, files last.
#[derive(Debug)]
pub struct Planner {
    sender: Sender,
    files: Files,
    compression: i32,
    /// Decided while planning: will never be sent.
    skipped: Vec<(Epoch, Outcome, RangeSet)>,
}

impl Planner {
    /// More entries were appended.
    pub fn appended(&mut self) {
        self.sender.appended();
        self.files.dry = false;
    }

    /// The next parcel's content, about `body_bytes` and at most one entry more; `None` when everything is planned.
    /// `first` goes in front. Nothing less urgent than `least` is planned; files are with [`Precedence::Deferred`] alone.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next(
        &mut self,
        body_bytes: usize,
        least: Precedence,
        first: Vec<Frame>,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Option<Planned>, OutboundError> {
        let mut out = VecDeque::new();
        let mut planned = Planned {
            precedence: Precedence::Deferred,
            labels: BTreeSet::new(),
            frames: Vec::new(),
            numbers: BTreeMap::new(),
            files: BTreeMap::new(),
            begun: None,
            chunks: 0,
            bytes: 0,
        };
        first.into_iter().for_each(|frame| planned.push(frame));
        let control = planned.bytes;
        for class in Precedence::ALL.into_iter().filter(|class| *class <= least) {
            let before = planned.bytes;
            while planned.bytes < body_bytes.max(control + ROOM_MIN) || self.sender.is_cutting(class) {
                let room = body_bytes.saturating_sub(planned.bytes).clamp(ROOM_MIN, FRAME_BYTES_MAX);
                let Some(frame) = self.sender.next_entries(class, room, outbound, now, &mut out)? else { break };
                planned.push(frame);
            }
            if planned.bytes > before {
                planned.precedence = class;
                break;
            }
        }
        (planned.numbers, planned.labels) = self.sender.take_sent();
        self.sender.flush(&mut out);
        for output in out {
            if let Output::RecordOutcome { epoch, outcome, ranges } = output {
                self.skipped.push((epoch, outcome, ranges));
            }
        }
        // Skips are told in the parcel in which they were found, and all of them in the first of a planner.
        let mut ignored = VecDeque::new();
        while planned.bytes < body_bytes.max(control) + FRAME_BYTES_MAX {
            match self.sender.next_control(FRAME_BYTES_MAX, outbound, now, &mut ignored)? {
                Some(frame @ Frame::Skip(_)) => planned.push(frame),
                // A history would have to be agreed on: parcels are packed with the built-in dictionary.
                Some(_) | None => break,
            }
        }
        if planned.numbers.is_empty() && least == Precedence::Deferred {
            self.next_chunks(body_bytes.max(control + 1), &mut planned, outbound)?;
        }
        // Small, and what the other side waits for to free what it holds.
        if planned.is_only_control() {
            planned.precedence = Precedence::Priority;
        }
        Ok((planned.bytes > control || !planned.frames.is_empty() && control > 0).then_some(planned))
    }

    fn next_chunks(
        &mut self,
        body_bytes: usize,
        planned: &mut Planned,
        outbound: &dyn Outbound,
    ) -> Result<(), OutboundError> {
        while planned.bytes < body_bytes {
            let Some((id, label, chunk)) = self.files.next(&self.sender, outbound)? else { break };
            let whole = Whole::new(id.epoch, id.seq, label.clone(), &chunk, self.compression);
            planned.push(Frame::Whole(whole));
            planned.labels.insert(label);
            planned.chunks += 1;
        }
        for id in std::mem::take(&mut self.files.finished) {
            planned.files.entry(id.epoch).or_default().insert(id.seq.get());
        }
        planned.begun = self.files.current.as_ref().map(|walk| (walk.id, walk.given));
        Ok(())
    }

    /// The journal cannot give these own numbers any more: told, so that nothing waits for them there.
    pub fn lost(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) {
        self.sender.lost(epoch, outcome, numbers, true);
    }

    /// What was decided never to be sent, since the last call.
    pub fn take_skipped(&mut self) -> Vec<(Epoch, Outcome, RangeSet)> {
        std::mem::take(&mut self.skipped)
    }
}

impl Planned {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.encode().len() + 3;
        self.frames.push(frame);
    }

    /// Nothing but receipts and skips.
    pub fn is_only_control(&self) -> bool {
        self.numbers.is_empty() && self.chunks == 0
    }
}

/// A frame of entries is not made smaller than this for the sake of a parcel's size.
const ROOM_MIN: usize = 8 << 10;

/// Own files whose chunks go into parcels.
#[derive(Debug)]
struct Files {
    /// Where reading continues, by class.
    next: [LocalPos; 5],
    /// Files found and not begun.
    found: VecDeque<Walk>,
    current: Option<Walk>,
    /// All chunks were given since the last parcel.
    finished: Vec<EntryId>,
    settled: Settled,
    /// Given by this planner: a chunk that files share goes once.
    given: BTreeSet<ChunkName>,
    dry: bool,
}

#[derive(Debug)]
struct Walk {
    id: EntryId,
    label: Label,
    /// Names to give, with their level: lists of names come before what they name.
    names: VecDeque<(ChunkName, u8)>,
    /// How many were given, those of earlier planners included.
    given: u64,
    /// How many were given by earlier planners.
    skip: u64,
}

/// A chunk with the file that it is of.
type Given = (EntryId, Label, Arc<[u8]>);

impl Files {
    fn next(&mut self, sender: &Sender, outbound: &dyn Outbound) -> Result<Option<Given>, OutboundError> {
        loop {
            if self.current.is_none() {
                if self.found.is_empty() && !self.dry {
                    self.find(sender, outbound)?;
                }
                self.current = self.found.pop_front();
            }
            let Some(walk) = &mut self.current else { return Ok(None) };
            let Some((name, level)) = walk.names.pop_front() else {
                self.finished.push(walk.id);
                self.current = None;
                continue;
            };
            // What is gone here makes the file incomplete there, as on a link.
            let Some(chunk) = outbound.chunk(&name)? else { continue };
            if level > 0
                && let Ok(names) = read_name_list(&chunk)
                && walk.names.len() + names.len() <= NAMES_MAX
            {
                walk.names.extend(names.into_iter().map(|name| (name, level - 1)));
            }
            if walk.skip > 0 {
                walk.skip -= 1;
                continue;
            }
            walk.given += 1;
            if self.given.len() >= NAMES_MAX {
                self.given.clear();
            }
            if !self.given.insert(name) {
                continue;
            }
            return Ok(Some((walk.id, walk.label.clone(), chunk)));
        }
    }

    /// Reads on until files are found or there are no more.
    fn find(&mut self, sender: &Sender, outbound: &dyn Outbound) -> Result<(), OutboundError> {
        for class in Precedence::ALL {
            loop {
                let scan = outbound.scan(class, self.next[class.index()], READ_AHEAD_BYTES)?;
                let at = &mut self.next[class.index()];
                *at = (*at).max(scan.next);
                for own in &scan.entries {
                    let header = &own.entry.header;
                    if header.kind != Kind::File
                        || !sender.releases(&header.label)
                        || sender.has_ended(header.id.epoch, header.id.seq.get())
                    {
                        continue;
                    }
                    if self.settled.has_file(header.id) {
                        continue;
                    }
                    let Ok(Event::File(state)) = wire::decode_event(&own.entry) else { continue };
                    let Some(manifest) = state.content.filter(|m| check_manifest(m).is_ok()) else { continue };
                    let names = manifest.chunks.iter().map(|name| (*name, manifest.level)).collect();
                    let given = self.settled.begun.filter(|(id, _)| *id == header.id).map_or(0, |(_, given)| given);
                    let (id, label) = (header.id, header.label.clone());
                    self.found.push_back(Walk { id, label, names, given, skip: given });
                }
                if scan.entries.is_empty() {
                    break;
                }
                if !self.found.is_empty() {
                    return Ok(());
                }
            }
        }
        self.dry = true;
        Ok(())
    }
}

impl Session {
    /// What an earlier start of this node knew of parcels: what went into them, and what came in those of the peer.
    pub fn restore_parcels(&mut self, sent: ByBoot, came: ByBoot) {
        self.sender.restore_in_parcels(sent);
        self.receiver.restore_came(came);
    }

    /// What went into parcels and is not known to have arrived. To be durable before a parcel leaves.
    pub fn in_parcels(&self) -> &ByBoot {
        self.sender.in_parcels()
    }

    /// What came in parcels of the peer. To be durable before it is stored.
    pub fn came_in_parcels(&self) -> &ByBoot {
        self.receiver.came()
    }

    /// These own entries go into a parcel of this start.
    pub fn note_in_parcel(&mut self, numbers: &BTreeMap<Epoch, RangeSet>) {
        self.sender.trim_in_parcels();
        self.sender.note_in_parcel(self.config.boot, numbers);
    }

    /// A planner decided that these own entries will never be sent; already recorded by the shell.
    pub fn skipped(&mut self, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) {
        self.sender.skipped(epoch, outcome, numbers);
    }

    /// Plans parcels from what is durably known of the peer; what is `settled` is left out.
    ///
    /// # Panics
    /// When the peer may get more labels than a parcel names; the configuration is checked for that.
    pub fn planner(&self, mut state: SenderState, settled: Settled, compression: i32) -> Planner {
        let labels = self.sender.labels().clone();
        assert!(labels.len() <= LABELS_MAX, "the configuration is checked");
        let scan_from = state.scan_from;
        for (epoch, set) in &settled.numbers {
            let progress: &mut EpochProgress = state.progress.entry(*epoch).or_default();
            progress.stored.union_with(set);
        }
        let mut sender = Sender::new(self.config.me, labels, compression, state);
        sender.restore_in_parcels(self.sender.in_parcels().clone());
        // As after a greeting in which the peer said nothing: every skip is told.
        sender.resume(false, &mut VecDeque::new());
        let files = Files {
            next: [scan_from; 5],
            found: VecDeque::new(),
            current: None,
            finished: Vec::new(),
            settled,
            given: BTreeSet::new(),
            dry: false,
        };
        Planner { sender, files, compression, skipped: Vec::new() }
    }

    /// Everything that this node holds of the peer's entries, as frames for a parcel.
    pub fn receipts(&self) -> Vec<Frame> {
        self.receiver.everything()
    }

    /// Takes the frames of an opened parcel of the peer, whether a connection stands or not. `boot` is from its header.
    /// Poll the outputs afterwards; what [`Session::came_in_parcels`] says by then is to be durable before they are carried out.
    ///
    /// # Errors
    /// When the peer broke a rule, or the journal cannot be read. What stands before that is taken.
    pub fn parcel(
        &mut self,
        boot: u64,
        frames: Vec<Frame>,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<(), LinkError> {
        self.receiver.carrying(Some(boot));
        let taken = frames.into_iter().try_for_each(|frame| self.carried(frame, outbound, now));
        self.receiver.carrying(None);
        taken
    }

    fn carried(&mut self, frame: Frame, outbound: &dyn Outbound, now: Now) -> Result<(), LinkError> {
        let outputs = &mut self.outputs;
        match frame {
            Frame::Batch(batch) => {
                if batch.history().is_some() {
                    return Err(LinkError::Protocol("a parcel that cannot be read by itself"));
                }
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
            Frame::Receipt(mut receipt) => {
                receipt.part = 0;
                self.sender.receipt(receipt, outbound, now, outputs)?;
            }
            Frame::Claim(mut claim) => {
                claim.part = 0;
                self.sender.claim(claim, now, outputs);
            }
            Frame::Whole(whole) => self.fetch.whole(&whole, outbound, outputs)?,
            Frame::Greet(_)
            | Frame::Ready(_)
            | Frame::Resume(_)
            | Frame::Verify(_)
            | Frame::Verdict(_)
            | Frame::Want(_)
            | Frame::Unavailable(_)
            | Frame::Slice(_)
            | Frame::KeepAlive
            | Frame::Bye(_)
            | Frame::Again(_)
            | Frame::Recall(_)
            | Frame::Returned(_)
            | Frame::Gone(_)
            | Frame::History(_)
            | Frame::HistoryHeld(_)
            | Frame::HistoryGone(_)
            | Frame::Join(_)
            | Frame::Got(_)
            | Frame::Shut(_)
            | Frame::OnRequest(_)
            | Frame::Urge(_)
            | Frame::Carried(_)
            | Frame::Kept(_) => return Err(LinkError::Protocol("a parcel with a frame that belongs on a connection")),
        }
        Ok(())
    }

    /// Moves the peer's files on while there is no connection that would do so.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn settle_files(&mut self, outbound: &dyn Outbound) -> Result<(), LinkError> {
        if !self.is_connected() {
            self.fetch.settle(outbound, &mut self.outputs)?;
        }
        Ok(())
    }

    /// What is to be done, without taking it.
    pub fn peek(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter()
    }

    /// These entries of the peer are not to be made durable, though an [`Output::Store`] waits for each: see
    /// [`Session::entries_not_stored`].
    pub fn do_not_store(&mut self, ids: &[EntryId]) {
        let is_one =
            |output: &Output| matches!(output, Output::Store(incoming) if ids.contains(&incoming.entry.header.id));
        self.outputs.retain(|output| !is_one(output));
        self.entries_not_stored(ids);
    }

    /// Every entry and chunk of the peer whose storing is under way, whatever way it came.
    pub fn all_storing(&self) -> (Vec<EntryId>, Vec<ChunkName>) {
        (self.receiver.all_storing(), self.fetch.all_storing())
    }

    /// An [`Output::Store`] of this entry of the peer is under way.
    pub fn is_storing(&self, id: EntryId) -> bool {
        self.receiver.is_storing(id)
    }

    /// An [`Output::StoreChunk`] of this chunk is under way.
    pub fn is_storing_chunk(&self, name: &ChunkName) -> bool {
        self.fetch.is_storing(name)
    }

    /// Is this entry of the peer durable here?
    pub fn holds(&self, id: EntryId) -> bool {
        self.receiver.holds(id)
    }

    /// This node, the peer, and the start of this node's process, as headers of parcels have them.
    pub fn parties(&self) -> (NodeId, NodeId, u64) {
        (self.config.me, self.config.peer, self.config.boot)
    }
}
