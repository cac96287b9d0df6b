//! A scripted workload over a real journal on the recording disk, and what the journal promised while it ran.
//!
//! ```text
//!  script --appends, receipts, trims, ...--> journal --> PretendDisk --> Trace (calls, and notes between them)
//!     `-- a promise with the number of each note: what was acknowledged, and what may be gone from then on
//! ```
//! A promise counts from its note on, which stands in the trace where the answer was given: before whatever the
//! journal did next. [`crate::check`] holds any state of the disk against the promises that count in it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use journal::{
    AppendError, Appended, AtRest, Consumer, ConsumerState, Damage, Draft, EpochReason, Foreign, ForeignOutcome,
    IndexPlace, Journal, JournalOptions, JournalSettings, Listed, OpenError, OpenReport, Ticket,
};
use keys::{DataKey, DataKeys, KeyNumber};
use model::{
    ByteSize, ChunkName, Disk, Entry, EntryId, Epoch, Header, Hlc, Kind, Label, LocalPos, NodeId, ObjectKey, Outcome,
    Precedence, RangeSet, Seq, SourcePosition, StreamId, SupersessionKey, UnixMillis,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::VirtualClock;
use crate::disk::{PretendDisk, Trace};
use crate::node::CountedSalts;

/// Whose journal it is.
pub const NODE: NodeId = NodeId([1; 16]);

/// Who sends entries to it.
pub const PEER: NodeId = NodeId([2; 16]);

/// Where it lies on the disk.
pub const DIR: &str = "/journal";

/// The smallest that the journal takes: a segment holds about a dozen entries.
const SEGMENT_BYTES: u64 = 4 << 10;

/// The required peer, an optional one that comes and goes, and the local apply.
pub const CONSUMERS: [&str; 3] = ["bravo", "charlie", "apply"];

/// How segments are sealed in trials: not at all, or with a key that is always the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seal {
    /// The larger part of a frame is checked by its sum alone.
    #[default]
    Plain,
    /// As in the field, but with salts that are counted.
    Sealed,
}

impl Seal {
    /// The first `count` keys; those of [`Seal::all_keys`] open everything.
    fn keys(self, count: u32) -> DataKeys {
        let key = |n| (KeyNumber(n), DataKey::from_bytes([n as u8; 32]));
        match self {
            Self::Plain => DataKeys::none(),
            Self::Sealed => DataKeys::new((1..=count).map(key)),
        }
    }

    /// The keys that open what was sealed so.
    pub fn all_keys(self) -> DataKeys {
        self.keys(KEYS_MAX)
    }

    fn at_rest(self, keys: u32, salts: u64) -> AtRest {
        match self {
            Self::Plain => AtRest::Plain,
            Self::Sealed => {
                AtRest::Sealed { keys: self.keys(keys), salts: Arc::new(CountedSalts::starting(salts << 16)) }
            }
        }
    }
}

/// As often as a workload may change its key, and one more.
const KEYS_MAX: u32 = 5;

/// How the journal is opened in trials, with every key. Openings with the same `salts` draw the same ones.
pub fn options(disk: &PretendDisk, seal: Seal, salts: u64) -> JournalOptions {
    JournalOptions {
        dir: PathBuf::from(DIR),
        node: NODE,
        disk: Arc::new(disk.clone()) as Arc<dyn Disk>,
        clock: Arc::new(VirtualClock::default()),
        settings: JournalSettings {
            segment_bytes: ByteSize(SEGMENT_BYTES),
            limit_bytes: ByteSize(1 << 30),
            ..JournalSettings::default()
        },
        index: IndexPlace::Memory,
        at_rest: seal.at_rest(KEYS_MAX, salts),
    }
}

/// Something that the journal promised, or that may happen from then on.
#[derive(Clone, Debug)]
pub enum Promise {
    /// An own entry is durable.
    Own {
        /// Which submission it is; see [`Recorded::submissions`].
        tag: u64,
        /// As answered.
        appended: Appended,
        /// The chunks that it needs.
        chunks: Vec<ChunkName>,
    },
    /// A submission was refused: it must never appear.
    Refused(u64),
    /// A peer's entry is durable.
    Foreign(u64, LocalPos),
    /// A chunk is durable, with this content.
    Chunk(ChunkName, u64),
    /// An epoch began.
    Epoch(Epoch, EpochReason),
    /// Entries were appended again.
    Reissued(Vec<(EntryId, Appended)>),
    /// From here on a consumer may be registered.
    Registering(&'static str),
    /// A consumer is registered.
    Registered(&'static str),
    /// From here on a consumer may be gone.
    Removing(&'static str),
    /// It is gone.
    Removed(&'static str),
    /// What consumers recorded is durable.
    Receipts(BTreeMap<&'static str, ConsumerState>),
    /// From here on these own entries may be gone, received ones before the position, and chunks that nothing needs.
    MayTrim {
        /// Own entries.
        own: Vec<EntryId>,
        /// Received entries before it.
        before: LocalPos,
    },
}

/// What must be in the journal.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the promises that count, taken together")]
pub struct Expected {
    pub own: BTreeMap<EntryId, (u64, Appended)>,
    pub refused: BTreeSet<u64>,
    pub foreign: BTreeMap<u64, LocalPos>,
    pub chunks: BTreeMap<ChunkName, u64>,
    pub epochs: BTreeMap<Epoch, EpochReason>,
    pub registered: BTreeSet<&'static str>,
    pub removed: BTreeSet<&'static str>,
    pub receipts: BTreeMap<&'static str, ConsumerState>,
    pub may_be_trimmed: BTreeSet<EntryId>,
    pub foreign_gone_before: Option<LocalPos>,
    /// Chunks that are kept although no entry names them yet.
    pub fresh_chunks: BTreeSet<ChunkName>,
    pub files: BTreeMap<EntryId, Vec<ChunkName>>,
    /// Damaged places that were reported at an open before.
    pub known_damage: BTreeSet<(u32, u64)>,
}

impl Expected {
    /// Takes one more promise into account.
    pub fn keep(&mut self, promise: &Promise) {
        match promise {
            Promise::Own { tag, appended, chunks } => {
                self.own.insert(appended.id, (*tag, *appended));
                if !chunks.is_empty() {
                    self.files.insert(appended.id, chunks.clone());
                }
            }
            Promise::Refused(tag) => drop(self.refused.insert(*tag)),
            Promise::Foreign(seq, pos) => drop(self.foreign.insert(*seq, *pos)),
            Promise::Chunk(name, content) => {
                self.chunks.insert(*name, *content);
                self.fresh_chunks.insert(*name);
            }
            Promise::Epoch(epoch, reason) => drop(self.epochs.insert(*epoch, *reason)),
            Promise::Reissued(pairs) => {
                for (old, appended) in pairs {
                    let tag = self.own.get(old).map_or(u64::MAX, |(tag, _)| *tag);
                    self.own.insert(appended.id, (tag, *appended));
                    if let Some(chunks) = self.files.get(old).cloned() {
                        self.files.insert(appended.id, chunks);
                    }
                }
            }
            Promise::Registering(name) => drop(self.removed.remove(name)),
            Promise::Registered(name) => drop(self.registered.insert(name)),
            Promise::Removing(name) => {
                self.registered.remove(name);
                self.receipts.remove(name);
            }
            Promise::Removed(name) => drop(self.removed.insert(name)),
            Promise::Receipts(states) => self.receipts.extend(states.clone()),
            Promise::MayTrim { own, before } => {
                self.may_be_trimmed.extend(own);
                self.foreign_gone_before = self.foreign_gone_before.max(Some(*before));
                self.fresh_chunks.clear();
            }
        }
    }

    /// Own entries that must be held.
    pub fn held(&self) -> impl Iterator<Item = (&EntryId, u64, &Appended)> {
        let held = self.own.iter().filter(|(id, _)| !self.may_be_trimmed.contains(id));
        held.map(|(id, (tag, appended))| (id, *tag, appended))
    }

    /// Chunks that must be held, with the number of their content.
    pub fn held_chunks(&self) -> impl Iterator<Item = (&ChunkName, u64)> {
        let needed = |name: &ChunkName| {
            let mut files = self.files.iter().filter(|(id, _)| !self.may_be_trimmed.contains(id));
            self.fresh_chunks.contains(name) || files.any(|(_, chunks)| chunks.contains(name))
        };
        self.chunks.iter().filter(move |(name, _)| needed(name)).map(|(name, content)| (name, *content))
    }
}

/// A part of a workload between two power cuts.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    /// What was asked of the disk.
    pub trace: Trace,
    /// What was promised before it began.
    pub before: Expected,
    /// What was promised in it, by the number of the note.
    pub promises: BTreeMap<u64, Promise>,
}

/// An own entry as it was handed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// The row of the source, from 0 on.
    pub row: u64,
    /// The chunks that it needs.
    pub chunks: Vec<ChunkName>,
}

/// A workload, run to its end.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// In order.
    pub legs: Vec<Leg>,
    /// How it was sealed.
    pub seal: Seal,
    /// Own entries that were handed to the journal: each is a row of the source, and a row that the journal does not
    /// say that it has is handed in again.
    pub submissions: Vec<Submission>,
    /// Rows for which a new number was asked, or that were handed in again.
    pub again: BTreeSet<u64>,
    /// Errors that the workload was told of.
    pub errors: Vec<String>,
    /// The journal was open at the end and was closed; no process was killed.
    pub ended_well: bool,
}

/// One thing that a workload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the calls of the journal")]
pub enum Step {
    Own,
    /// Several at once: they share a sync.
    OwnTogether(u8),
    Foreign,
    /// A file of so many chunks.
    File(u8),
    Receipts,
    Advance,
    Trim,
    Epoch,
    Reissue,
    Charlie,
    Flush,
    Reopen,
    /// A new key, and every sealed segment under it.
    Rekey,
    /// The process is killed after so many more calls that change the disk.
    Kill(u8),
    /// The power goes, and comes back with a random one of the legal states.
    PowerCut,
}

/// A script of so many steps in which everything happens.
pub fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = |_| match rng.random_range(0..40) {
        0..=12 => Step::Own,
        13..=16 => Step::OwnTogether(rng.random_range(2..6)),
        17..=21 => Step::Foreign,
        22..=24 => Step::File(rng.random_range(1..5)),
        25..=28 => Step::Receipts,
        29..=30 => Step::Advance,
        31..=32 => Step::Trim,
        33 => Step::Epoch,
        34 => Step::Reissue,
        35 => Step::Charlie,
        36 if rng.random() => Step::Rekey,
        36 => Step::Flush,
        37 => Step::Reopen,
        38 => Step::Kill(rng.random_range(0..10)),
        _ => Step::PowerCut,
    };
    (0..steps).map(&mut pick).collect()
}

struct Site {
    journal: Journal,
    bravo: Consumer,
    charlie: Option<Consumer>,
    apply: Consumer,
}

/// A workload that runs.
pub struct Trial {
    rng: ChaCha8Rng,
    disk: PretendDisk,
    site: Option<Site>,
    now: Expected,
    leg: Leg,
    notes: u64,
    next_foreign: u64,
    recorded: Recorded,
    wants_charlie: bool,
    openings: u64,
    /// How many keys there are by now.
    keys: u32,
    killed: bool,
}

/// The journal cannot be opened, and trying again does not help.
#[derive(Debug)]
pub struct NotOpened(pub OpenError);

/// A fault lasts for so many openings at most.
const OPENINGS: usize = 3;

impl Trial {
    /// A workload on an empty disk.
    pub fn new(seed: u64) -> Self {
        Self::on(PretendDisk::default(), seed)
    }

    /// With sealed segments.
    pub fn sealed(mut self) -> Self {
        self.recorded.seal = Seal::Sealed;
        self
    }

    /// A workload on this disk.
    pub fn on(disk: PretendDisk, seed: u64) -> Self {
        disk.record();
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            disk,
            site: None,
            now: Expected::default(),
            leg: Leg::default(),
            notes: 0,
            next_foreign: 1,
            recorded: Recorded::default(),
            wants_charlie: false,
            openings: 0,
            keys: 1,
            killed: false,
        }
    }

    /// The disk of the moment.
    pub fn disk(&self) -> &PretendDisk {
        &self.disk
    }

    /// What was promised so far.
    pub fn expected(&self) -> &Expected {
        &self.now
    }

    /// The journal, while it is open.
    pub fn journal(&self) -> Option<&Journal> {
        self.site.as_ref().map(|site| &site.journal)
    }

    /// Carries out the steps; a journal that stopped is opened again.
    ///
    /// # Errors
    /// When it does not open.
    pub fn run(&mut self, steps: &[Step]) -> Result<(), NotOpened> {
        for step in steps {
            self.step(*step)?;
        }
        Ok(())
    }

    /// Closes the journal and returns what was recorded.
    pub fn finish(mut self) -> Recorded {
        self.recorded.ended_well = self.site.take().is_some() && self.recorded.errors.is_empty() && !self.killed;
        self.end_leg();
        self.recorded
    }

    /// One step.
    ///
    /// # Errors
    /// When the journal does not open.
    pub fn step(&mut self, step: Step) -> Result<(), NotOpened> {
        if self.site.is_none() && !self.open()? {
            return Ok(());
        }
        if let Err(e) = self.perform(step) {
            self.told(format!("{step:?}: {e}"));
            if matches!(e, AppendError::Stopped(_) | AppendError::Closed) {
                self.site = None;
            }
        }
        self.restart_if_killed();
        Ok(())
    }

    /// An error, unless it is that the process was killed.
    fn told(&mut self, error: String) {
        if !self.disk.is_off() {
            self.recorded.errors.push(error);
        }
    }

    fn restart_if_killed(&mut self) {
        if self.disk.is_off() {
            self.site = None;
            self.disk.restart_process();
        }
    }

    /// Opens the journal and registers who is to be. False when a consumer could not be.
    fn open(&mut self) -> Result<bool, NotOpened> {
        let mut tries = 0;
        let (journal, report) = loop {
            self.openings += 1;
            let at_rest = self.recorded.seal.at_rest(self.keys, self.openings);
            match Journal::open(JournalOptions { at_rest, ..options(&self.disk, Seal::Plain, 0) }) {
                Ok(opened) => break opened,
                Err(e) if tries < OPENINGS => {
                    self.told(format!("open: {e}"));
                    self.restart_if_killed();
                    tries += 1;
                }
                Err(e) => return Err(NotOpened(e)),
            }
        };
        self.opened(&journal, &report);
        let mut register = |name: &'static str, required| {
            let consumer = journal.consumer(name, required)?;
            self.promise(Promise::Registered(name));
            Ok::<_, AppendError>(consumer)
        };
        let consumers = register(CONSUMERS[0], true).and_then(|bravo| {
            let apply = register(CONSUMERS[2], true)?;
            Ok((bravo, apply))
        });
        match consumers {
            Ok((bravo, apply)) => {
                apply.advance(LocalPos::START);
                self.site = Some(Site { journal, bravo, charlie: None, apply });
                self.register_charlie();
                Ok(true)
            }
            Err(e) => {
                self.told(format!("register: {e}"));
                self.restart_if_killed();
                Ok(false)
            }
        }
    }

    fn opened(&mut self, journal: &Journal, report: &OpenReport) {
        let place = |damage: &Damage| (damage.segment, damage.offset);
        self.now.known_damage.extend(report.damage.iter().map(place));
        self.leg.before.known_damage.extend(report.damage.iter().map(place));
        if let Some(epoch) = report.new_epoch {
            self.promise(Promise::Epoch(epoch.epoch, epoch.reason));
        }
        // What was not acknowledged and is there all the same counts from here on.
        let listed = journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap_or_default();
        for Listed { pos, entry, hash, .. } in listed {
            let id = entry.header.id;
            if id.origin == PEER {
                if !self.now.foreign.contains_key(&id.seq.get()) {
                    self.promise(Promise::Foreign(id.seq.get(), pos));
                }
            } else if !self.now.own.contains_key(&id) {
                let tag = tag_of(&entry);
                let chunks = self.recorded.submissions.get(tag as usize).map(|s| s.chunks.clone()).unwrap_or_default();
                self.promise(Promise::Own { tag, appended: Appended { id, pos, hash }, chunks });
            }
        }
    }

    fn register_charlie(&mut self) {
        if !self.wants_charlie {
            return;
        }
        self.promise(Promise::Registering(CONSUMERS[1]));
        if let Some(site) = &mut self.site
            && let Ok(consumer) = site.journal.consumer(CONSUMERS[1], false)
        {
            site.charlie = Some(consumer);
            self.promise(Promise::Registered(CONSUMERS[1]));
        }
    }

    /// Something counts from here on.
    fn promise(&mut self, promise: Promise) {
        self.disk.note(self.notes);
        self.promised(self.notes, promise);
        self.notes += 1;
    }

    fn promised(&mut self, note: u64, promise: Promise) {
        self.now.keep(&promise);
        self.leg.promises.insert(note, promise);
    }

    fn end_leg(&mut self) {
        let mut leg = std::mem::take(&mut self.leg);
        leg.trace = self.disk.take_trace();
        self.recorded.legs.push(leg);
        self.leg.before = self.now.clone();
        self.disk.record();
    }

    /// Makes a request, and waits for its answer.
    fn ask<T>(&mut self, ask: impl FnOnce(&Journal) -> Ticket<T>) -> (u64, Result<T, AppendError>) {
        let Some(site) = &self.site else { return (u64::MAX, Err(AppendError::Closed)) };
        // Nothing is answered before somebody listens.
        self.disk.shut_gate();
        let listening = Listening::new(ask(&site.journal), &self.disk, self.notes);
        self.disk.open_gate();
        self.notes += 1;
        (self.notes - 1, listening.wait())
    }

    fn perform(&mut self, step: Step) -> Result<(), AppendError> {
        match step {
            Step::Own => self.own(),
            Step::OwnTogether(count) => self.own_together(count),
            Step::Foreign => {
                // Some come out of order, and some again.
                let seq = match self.rng.random_range(0..8) {
                    0 => self.next_foreign + 2,
                    1 if self.next_foreign > 1 => self.rng.random_range(1..self.next_foreign),
                    _ => {
                        self.next_foreign += 1;
                        self.next_foreign - 1
                    }
                };
                let (note, outcome) = self.ask(|journal| journal.append_foreign(foreign(seq)));
                match outcome? {
                    ForeignOutcome::Stored(pos) => self.promised(note, Promise::Foreign(seq, pos)),
                    ForeignOutcome::AlreadyHeld => {}
                    ForeignOutcome::Conflict { .. } => panic!("the same bytes conflict"),
                }
                Ok(())
            }
            Step::File(chunks) => self.file(chunks),
            Step::Receipts => {
                self.settle()?;
                let Some(site) = &self.site else { return Ok(()) };
                let outcome = Outcome::ALL[self.rng.random_range(0..3)];
                for consumer in [Some(&site.bravo), site.charlie.as_ref()].into_iter().flatten() {
                    let mut numbers: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
                    for id in self.now.own.keys().filter(|_| self.rng.random_bool(0.7)) {
                        numbers.entry(id.epoch).or_default().insert(id.seq.get());
                    }
                    for (epoch, numbers) in &numbers {
                        consumer.record_stored(*epoch, numbers);
                        consumer.record_outcome(outcome, *epoch, numbers);
                    }
                }
                self.flush()
            }
            Step::Advance => {
                self.settle()?;
                if let Some(site) = &self.site {
                    site.apply.advance(site.journal.head());
                }
                self.flush()
            }
            Step::Trim => self.trim(),
            Step::Epoch => {
                let (note, epoch) = self.ask(|journal| journal.start_epoch(EpochReason::Operator));
                self.promised(note, Promise::Epoch(epoch?, EpochReason::Operator));
                Ok(())
            }
            Step::Reissue => {
                let ids: Vec<EntryId> = self.now.held().map(|(id, ..)| *id).collect();
                if ids.is_empty() {
                    return Ok(());
                }
                let picked: Vec<_> = (0..2).map(|_| ids[self.rng.random_range(0..ids.len())]).collect();
                let tags = picked.iter().filter_map(|id| self.now.own.get(id)).map(|(tag, _)| *tag as usize);
                self.recorded.again.extend(tags.map(|tag| self.recorded.submissions[tag].row));
                let (note, pairs) = self.ask(|journal| journal.reissue(picked));
                self.promised(note, Promise::Reissued(pairs?));
                Ok(())
            }
            Step::Charlie => {
                self.wants_charlie = !self.wants_charlie;
                if self.wants_charlie {
                    self.register_charlie();
                    return Ok(());
                }
                self.promise(Promise::Removing(CONSUMERS[1]));
                let Some(site) = &mut self.site else { return Ok(()) };
                site.charlie = None;
                site.journal.remove_consumer(CONSUMERS[1])?;
                self.promise(Promise::Removed(CONSUMERS[1]));
                Ok(())
            }
            Step::Flush => self.flush(),
            Step::Rekey => self.rekey(),
            Step::Reopen => {
                self.site = None;
                Ok(())
            }
            Step::Kill(calls) => {
                self.killed = true;
                self.disk.kill_after(u64::from(calls));
                Ok(())
            }
            Step::PowerCut => {
                self.disk.cut_power();
                self.site = None;
                self.end_leg();
                // The trace that begins now starts with the disk after the power cut.
                self.disk.crash(&mut self.rng);
                self.disk.record();
                Ok(())
            }
        }
    }

    /// Returns when the journal is done with everything before.
    fn settle(&mut self) -> Result<(), AppendError> {
        self.ask(Journal::flush).1
    }

    /// The next row that the journal does not say that it has.
    fn next_row(&self) -> u64 {
        self.journal().and_then(Journal::highest_source).map_or(0, |source| source.0.0)
    }

    /// Notes that a row is handed in.
    fn submit(&mut self, row: u64, chunks: Vec<ChunkName>) -> (u64, Draft) {
        let tag = self.recorded.submissions.len() as u64;
        if self.recorded.submissions.iter().any(|earlier| earlier.row == row) {
            self.recorded.again.insert(row);
        }
        self.recorded.submissions.push(Submission { row, chunks });
        (tag, draft(row, tag))
    }

    fn own(&mut self) -> Result<(), AppendError> {
        let (tag, draft) = self.submit(self.next_row(), Vec::new());
        let (note, appended) = self.ask(|journal| journal.append_own(draft));
        self.own_answered(tag, note, appended)
    }

    fn own_answered(
        &mut self,
        tag: u64,
        note: u64,
        appended: Result<Appended, AppendError>,
    ) -> Result<(), AppendError> {
        match appended {
            Ok(appended) => {
                let chunks = self.recorded.submissions[tag as usize].chunks.clone();
                self.promised(note, Promise::Own { tag, appended, chunks });
                Ok(())
            }
            Err(e) => {
                // What a stopped journal had begun to write is in doubt; anything else left no trace.
                if !matches!(e, AppendError::Stopped(_) | AppendError::Closed) {
                    self.promise(Promise::Refused(tag));
                }
                Err(e)
            }
        }
    }

    fn own_together(&mut self, count: u8) -> Result<(), AppendError> {
        self.settle()?;
        let first = self.next_row();
        let drafts: Vec<_> = (first..first + u64::from(count)).map(|row| self.submit(row, Vec::new())).collect();
        let mut listening = Vec::new();
        let Some(site) = &self.site else { return Err(AppendError::Closed) };
        self.disk.shut_gate();
        for (tag, draft) in drafts {
            let one = Listening::new(site.journal.append_own(draft), &self.disk, self.notes);
            if listening.is_empty() {
                // The first one is on its way alone; the others share the sync after it.
                self.disk.wait_for_caller(|| one.is_answered());
            }
            listening.push((tag, self.notes, one));
            self.notes += 1;
        }
        self.disk.open_gate();
        let answers: Vec<_> = listening.into_iter().map(|(tag, note, one)| (tag, note, one.wait())).collect();
        let mut result = Ok(());
        for (tag, note, appended) in answers {
            if let Err(e) = self.own_answered(tag, note, appended) {
                // Those behind it were refused because it was.
                result = result.and(Err(e));
            }
        }
        result
    }

    fn file(&mut self, count: u8) -> Result<(), AppendError> {
        let Some(site) = &self.site else { return Err(AppendError::Closed) };
        let file = site.journal.begin_file();
        let mut names = Vec::new();
        for _ in 0..count {
            // Files share chunks.
            let content = self.rng.random_range(0..40);
            let bytes = chunk_bytes(content);
            let name = chunk_name(content);
            let file = EntryId { origin: PEER, epoch: Epoch(u32::MAX), seq: Seq::FIRST };
            let base = content.checked_sub(EDITED_FROM).map(chunk_name);
            let (note, put) = self.ask(|journal| journal.put_chunk_of(file, name, &bytes, base));
            put?;
            self.promised(note, Promise::Chunk(name, content));
            names.push(name);
        }
        let (tag, draft) = self.submit(self.next_row(), names);
        let chunks = Some(file.chunks(1000));
        let (note, appended) = self.ask(|journal| journal.append_own(Draft { chunks, ..draft }));
        self.own_answered(tag, note, appended)
    }

    fn flush(&mut self) -> Result<(), AppendError> {
        let Some(site) = &self.site else { return Err(AppendError::Closed) };
        let mut states = BTreeMap::from([(CONSUMERS[0], site.bravo.state()), (CONSUMERS[2], site.apply.state())]);
        if let Some(charlie) = &site.charlie {
            states.insert(CONSUMERS[1], charlie.state());
        }
        let (note, flushed) = self.ask(Journal::flush);
        flushed?;
        self.promised(note, Promise::Receipts(states));
        Ok(())
    }

    fn rekey(&mut self) -> Result<(), AppendError> {
        self.keys = (self.keys + 1).min(KEYS_MAX);
        let keys = self.recorded.seal.keys(self.keys);
        self.ask(|journal| journal.use_keys(keys)).1?;
        while let Some(site) = &self.site
            && site.journal.reseal_next()?.is_some()
        {}
        Ok(())
    }

    fn trim(&mut self) -> Result<(), AppendError> {
        self.settle()?;
        let Some(site) = &self.site else { return Err(AppendError::Closed) };
        let outcomes = site.bravo.state().outcomes;
        let is_final = |id: &EntryId| {
            outcomes.get(&id.epoch).is_some_and(|sets| sets.iter().any(|set| set.contains(id.seq.get())))
        };
        let own = self.now.own.keys().filter(|id| is_final(id)).copied().collect();
        let before = site.apply.state().cursor.unwrap_or(LocalPos::START);
        self.promise(Promise::MayTrim { own, before });
        let Some(site) = &self.site else { return Err(AppendError::Closed) };
        site.journal.trim().map(drop)
    }
}

/// An answer that is waited for: a note is written where it is given.
struct Listening<T> {
    ticket: Ticket<T>,
    answer: Option<Result<T, AppendError>>,
    noter: Arc<Noter>,
}

struct Noter {
    disk: PretendDisk,
    note: u64,
    noted: AtomicBool,
    thread: Thread,
}

impl Noter {
    fn note(&self) {
        if !self.noted.swap(true, Ordering::SeqCst) {
            self.disk.note(self.note);
        }
    }
}

impl Wake for Noter {
    fn wake(self: Arc<Self>) {
        self.note();
        self.thread.unpark();
    }
}

impl<T> Listening<T> {
    /// Call it with the gate shut: then no answer can be given before its note.
    fn new(ticket: Ticket<T>, disk: &PretendDisk, note: u64) -> Self {
        let (disk, noted, thread) = (disk.clone(), AtomicBool::new(false), std::thread::current());
        let mut listening = Self { ticket, answer: None, noter: Arc::new(Noter { disk, note, noted, thread }) };
        listening.poll();
        listening
    }

    fn poll(&mut self) {
        let waker = Arc::clone(&self.noter).into();
        if let Poll::Ready(answer) = Pin::new(&mut self.ticket).poll(&mut Context::from_waker(&waker)) {
            self.noter.note();
            self.answer = Some(answer);
        }
    }

    fn is_answered(&self) -> bool {
        self.noter.noted.load(Ordering::SeqCst)
    }

    fn wait(mut self) -> Result<T, AppendError> {
        loop {
            if let Some(answer) = self.answer.take() {
                return answer;
            }
            self.poll();
            if self.answer.is_none() {
                std::thread::park();
            }
        }
    }
}

/// A row of the source as an entry, the `tag`-th that was handed in. It is refused unless the row before is captured.
pub fn draft(row: u64, tag: u64) -> Draft {
    Draft {
        source: SourcePosition(Hlc(row + 1)),
        follows: (row > 0).then_some(SourcePosition(Hlc(row))),
        stream: StreamId::Directory,
        causes: Vec::new(),
        needs: if row > 4 && row.is_multiple_of(4) { vec![ObjectKey(row - 4)] } else { Vec::new() },
        precedence: class_of(row),
        captured: Hlc(row << 16),
        origin_time: UnixMillis(row as i64),
        expiry: None,
        supersedes: row.is_multiple_of(7).then_some(SupersessionKey(row % 3)),
        label: Label::directory(),
        kind: Kind::Post,
        mint_salt: 7,
        body: body(row, tag),
        object: row.is_multiple_of(4).then_some(ObjectKey(row)),
        chunks: None,
    }
}

/// Each class has its share.
pub fn class_of(row: u64) -> Precedence {
    Precedence::ALL[(row % 5) as usize]
}

/// What an own entry says; no other one says the same.
pub fn body(row: u64, tag: u64) -> Vec<u8> {
    let mut body = tag.to_le_bytes().to_vec();
    let len = 20 + (row * 37 % 180) as usize;
    body.extend((0..len).map(|i| (row as usize * 31 + i * 7) as u8));
    body
}

/// Which submission an own entry is.
pub fn tag_of(entry: &Entry) -> u64 {
    entry.body.first_chunk().map_or(u64::MAX, |tag| u64::from_le_bytes(*tag))
}

/// The entry that the peer sends under this number.
pub fn foreign(seq: u64) -> Foreign {
    Foreign { bytes: wire::encode_entry(&foreign_entry(seq)).into(), object: None }
}

/// The same, as an entry.
pub fn foreign_entry(seq: u64) -> Entry {
    let Draft { source, stream, causes, precedence, captured, origin_time, label, kind, .. } = draft(seq, 0);
    let id = EntryId { origin: PEER, epoch: Epoch(1), seq: Seq::new(seq).unwrap_or(Seq::FIRST) };
    let (expiry, supersedes, mint_salt) = (None, None, 9);
    let header = Header {
        id,
        source,
        stream,
        causes,
        after: None,
        precedence,
        captured,
        origin_time,
        expiry,
        supersedes,
        label,
        kind,
        mint_salt,
    };
    Entry { header, body: body(seq, 0) }
}

/// A chunk: some compress, some do not, one is larger than a page.
/// From this number on they are edited forms of the first ones, and written from those where they are held.
pub fn chunk_bytes(content: u64) -> Vec<u8> {
    if let Some(before) = content.checked_sub(EDITED_FROM) {
        let mut bytes = chunk_bytes(before);
        bytes[50] ^= 1;
        return bytes;
    }
    let len = if content == 3 { 9000 } else { 100 + (content * 61 % 900) as usize };
    let mut bytes = vec![content as u8; len];
    if !content.is_multiple_of(3) || content == 3 {
        ChaCha8Rng::seed_from_u64(content).fill_bytes(&mut bytes);
    }
    bytes
}

/// See [`chunk_bytes`].
const EDITED_FROM: u64 = 20;

/// The name of that chunk.
pub fn chunk_name(content: u64) -> ChunkName {
    wire::chunk::Namer::new(&[1; 32], &Label::directory()).name(&chunk_bytes(content))
}
