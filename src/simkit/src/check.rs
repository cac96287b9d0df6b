//! Holds a state of the disk against what was promised, and all states of a recorded workload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use journal::{Draft, Journal, Listed, OpenReport, Reader, Which};
use model::{Disk, EntryId, Epoch, LocalPos, Outcome, RangeSet};

use crate::crash::CrashStates;
use crate::disk::{Call, PretendDisk};
use crate::trial::{
    DIR, Expected, NODE, PEER, Recorded, body, chunk_bytes, class_of, draft, foreign, foreign_entry, options, tag_of,
};

/// A promise that was broken, in words.
pub type Broken = String;

macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

/// Opens the journal on this disk, reads everything, appends, and opens it once more.
///
/// # Errors
/// The first promise that does not hold.
pub fn check(disk: &PretendDisk, expected: &Expected, recorded: &Recorded) -> Result<(), Broken> {
    let checked = catch_unwind(AssertUnwindSafe(|| checked(disk, expected, recorded)));
    checked.unwrap_or_else(|panic| Err(panic_text(&*panic)))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> Broken {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    format!("it panicked: {}", text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
}

/// Not one that the workload drew.
const SALTS: u64 = 1 << 32;

fn checked(disk: &PretendDisk, expected: &Expected, recorded: &Recorded) -> Result<(), Broken> {
    // Beside the owner, nothing is mended yet.
    match Reader::open(Path::new(DIR), Arc::new(disk.clone()) as Arc<dyn Disk>, &recorded.seal.all_keys()) {
        Ok(reader) => {
            let listed = reader.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).map_err(|e| e.to_string())?;
            entries(&listed, expected, recorded).map_err(|e| format!("reader: {e}"))?;
        }
        Err(e) => {
            let empty = expected.own.is_empty() && expected.foreign.is_empty() && expected.chunks.is_empty();
            ensure!(empty, "the reader refuses a journal with acknowledged entries: {e}");
        }
    }
    let (journal, report) =
        Journal::open(options(disk, recorded.seal, SALTS)).map_err(|e| format!("open: {e}, {:?}", e.next_step()))?;
    let before = all(&journal)?;
    entries(&before, expected, recorded)?;
    by_name(&journal, expected, recorded, &before)?;
    consumers(&journal, expected)?;
    verified(&journal, &report, expected)?;
    let after = appends(&journal, expected, &before)?;
    let accounting = journal.accounting("bravo").map_err(|e| e.to_string())?;
    drop(journal);
    let (journal, again) =
        Journal::open(options(disk, recorded.seal, SALTS)).map_err(|e| format!("second open: {e}"))?;
    let quiet = again.discarded_bytes == 0 && again.new_epoch.is_none() && !again.created;
    ensure!(quiet, "the second open is not quiet: {again:?}");
    let known = |damage: &journal::Damage| {
        report.damage.iter().any(|d| d.segment == damage.segment && d.offset == damage.offset)
    };
    ensure!(
        again.damage.iter().all(known),
        "the second open found other damage: {:?}, {:?}",
        again.damage,
        report.damage
    );
    ensure!(places(&all(&journal)?) == places(&after), "the second open reads other entries");
    ensure!(journal.accounting("bravo").map_err(|e| e.to_string())? == accounting, "the second open counts otherwise");
    Ok(())
}

fn all(journal: &Journal) -> Result<Vec<Listed>, Broken> {
    journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).map_err(|e| e.to_string())
}

fn places(listed: &[Listed]) -> Vec<(LocalPos, EntryId)> {
    listed.iter().map(|l| (l.pos, l.entry.header.id)).collect()
}

/// Everything acknowledged is there, and nothing else than what was handed in.
fn entries(listed: &[Listed], expected: &Expected, recorded: &Recorded) -> Result<(), Broken> {
    let mut found: BTreeMap<EntryId, &Listed> = BTreeMap::new();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    let acknowledged: BTreeSet<u64> = expected.own.values().map(|(tag, _)| *tag).collect();
    let mut last = LocalPos(0);
    for l in listed {
        let id = l.entry.header.id;
        ensure!(last < l.pos, "{id} stands at {:?} behind {last:?}", l.pos);
        last = l.pos;
        ensure!(found.insert(id, l).is_none(), "{id} is there twice");
        let hash = wire::entry_hash(&wire::encode_entry(&l.entry)).map_err(|e| e.to_string())?;
        ensure!(hash == l.hash, "{id} has another hash");
        if id.origin == PEER {
            ensure!(*l.entry == foreign_entry(id.seq.get()), "{id} is not what the peer sent");
            continue;
        }
        ensure!(id.origin == NODE, "{id} is of nobody");
        let tag = tag_of(&l.entry);
        let row = row_of(recorded, tag);
        ensure!(row != u64::MAX, "{id} was never written");
        ensure!(l.entry.body == body(row, tag), "{id} was never written so");
        ensure!(l.entry.header.precedence == class_of(row), "{id} is of another class");
        ensure!(!expected.refused.contains(&tag), "{id} was refused (row {row})");
        if acknowledged.contains(&tag) {
            let known = expected.own.contains_key(&id) || recorded.again.contains(&row);
            ensure!(known, "row {row} was acknowledged under another number than {id}");
        }
        *times.entry(row).or_default() += 1;
    }
    for (row, times) in times {
        ensure!(times == 1 || recorded.again.contains(&row), "row {row} is there {times} times");
    }
    for (id, tag, appended) in expected.held() {
        let Some(l) = found.get(id) else { return Err(format!("{id} (submission {tag}) is lost")) };
        ensure!((l.pos, l.hash) == (appended.pos, appended.hash), "{id} is not as acknowledged");
        ensure!(tag_of(&l.entry) == tag, "{id} has another content");
    }
    for (seq, pos) in expected.foreign.iter().filter(|(_, pos)| Some(**pos) >= expected.foreign_gone_before) {
        let there = listed.iter().any(|l| l.pos == *pos && l.entry.header.id.seq.get() == *seq);
        ensure!(there, "entry {seq} of the peer is lost");
    }
    Ok(())
}

/// The row of a submission.
fn row_of(recorded: &Recorded, tag: u64) -> u64 {
    recorded.submissions.get(tag as usize).map_or(u64::MAX, |submission| submission.row)
}

/// Chunks, numbers, epochs, rows.
fn by_name(journal: &Journal, expected: &Expected, recorded: &Recorded, listed: &[Listed]) -> Result<(), Broken> {
    let captured = journal.highest_source().map_or(0, |source| source.0.0);
    for (name, content) in expected.held_chunks() {
        let bytes = journal.get_chunk(name).map_err(|e| e.to_string())?;
        ensure!(bytes.as_deref() == Some(&chunk_bytes(content)), "chunk {content} is lost or has another content");
    }
    for (id, ..) in expected.held().take(3) {
        let shown = journal.show(Which::Id(*id)).map_err(|e| e.to_string())?;
        ensure!(shown.is_some_and(|l| l.entry.header.id == *id), "{id} is not found by its number");
    }
    let received = journal.received(PEER).remove(&Epoch(1)).unwrap_or_default();
    for seq in expected.foreign.keys() {
        ensure!(received.contains(*seq), "number {seq} of the peer is not known as received");
    }
    let epochs: BTreeMap<_, _> = journal.epochs().into_iter().map(|e| (e.epoch, e)).collect();
    for (epoch, reason) in &expected.epochs {
        let known = epochs.get(epoch);
        ensure!(known.is_some_and(|known| known.reason == *reason), "epoch {epoch:?} is not as it began: {known:?}");
    }
    for (id, (tag, appended)) in &expected.own {
        let last = epochs.get(&id.epoch).and_then(|known| known.last);
        ensure!(last >= Some(id.seq), "{id} is not known as given out");
        ensure!(journal.head() > appended.pos, "position {:?} is before that of {id}", journal.head());
        ensure!(row_of(recorded, *tag) < captured, "{id} is a row that would be captured again, from {captured} on");
    }
    // The source forgets its rows up to here.
    let trimmed = expected.own.iter().filter(|(id, _)| expected.may_be_trimmed.contains(id)).map(|(_, (tag, _))| *tag);
    let there = listed.iter().filter(|l| l.entry.header.id.origin == NODE).map(|l| tag_of(&l.entry));
    let rows: BTreeSet<u64> = trimmed.chain(there).map(|tag| row_of(recorded, tag)).collect();
    if let Some(row) = (0..captured).find(|row| !rows.contains(row)) {
        return Err(format!("row {row} counts as captured, up to {captured}, and is not there"));
    }
    // Of what was given up for a new number, the new one is there.
    let Some(bravo) = expected.registered.contains("bravo").then(|| journal.consumer("bravo", true)) else {
        return Ok(());
    };
    let bravo = bravo.map_err(|e| e.to_string())?;
    for (id, tag, _) in expected.held() {
        let row = row_of(recorded, tag);
        let same = |l: &&Listed| l.entry.header.id.origin == NODE && row_of(recorded, tag_of(&l.entry)) == row;
        let mut copies = listed.iter().filter(same).map(|l| l.entry.header.id);
        let live = copies.any(|id| bravo.outcome_of(id.epoch, id.seq) != Some(Outcome::Superseded));
        ensure!(live, "{id} was given up, and nothing came in its place");
    }
    Ok(())
}

/// Who is registered, what they recorded, and the equation.
fn consumers(journal: &Journal, expected: &Expected) -> Result<(), Broken> {
    let names = journal.consumers();
    for name in &expected.registered {
        ensure!(names.iter().any(|n| n == name), "{name} is not registered any more");
    }
    for name in &expected.removed {
        ensure!(names.iter().all(|n| n != name), "{name} is registered again");
    }
    let given_out: u64 = journal.epochs().iter().filter_map(|epoch| epoch.last).map(|last| last.get()).sum();
    for name in &names {
        let accounting = journal.accounting(name).map_err(|e| e.to_string())?.ok_or("no accounting")?;
        for sums in accounting.by_class.iter().chain([&accounting.total]) {
            let ended = sums.applied + sums.quarantined + sums.expired + sums.superseded + sums.withheld + sums.purged;
            ensure!(sums.accepted == ended + sums.held, "{name}: the equation does not hold: {sums:?}");
        }
        if name == "bravo" && expected.registered.contains("bravo") {
            let accepted = accounting.total.accepted;
            ensure!(accepted == given_out, "{name} counts {accepted} accepted of {given_out} numbers");
        }
    }
    for (name, promised) in &expected.receipts {
        let required = *name != "charlie";
        let state = journal.consumer(name, required).map_err(|e| e.to_string())?.state();
        ensure!(state.cursor >= promised.cursor, "{name} went back to {:?} from {:?}", state.cursor, promised.cursor);
        let none = RangeSet::new();
        for (epoch, stored) in &promised.stored {
            let lost = stored.difference(state.stored.get(epoch).unwrap_or(&none));
            ensure!(lost.is_empty(), "{name} forgot that {lost} of {epoch:?} are stored");
        }
        for (epoch, sets) in &promised.outcomes {
            for (i, set) in sets.iter().enumerate() {
                let lost = set.difference(state.outcomes.get(epoch).map_or(&none, |sets| &sets[i]));
                ensure!(lost.is_empty(), "{name} forgot that {lost} of {epoch:?} were {}", Outcome::ALL[i].as_str());
            }
        }
    }
    Ok(())
}

/// Nothing is wrong but what was reported, and footers whose writing was cut short: entries are found without them.
fn verified(journal: &Journal, report: &OpenReport, expected: &Expected) -> Result<(), Broken> {
    let verified = journal.verify(&mut |_| {}).map_err(|e| e.to_string())?;
    for finding in &verified.findings {
        let place = (finding.segment, finding.offset);
        let known = report.damage.iter().any(|d| (d.segment, d.offset) == place);
        let footer = finding.what.ends_with("footer is damaged");
        ensure!(known || footer || expected.known_damage.contains(&place), "verify: {finding:?}, open: {report:?}");
    }
    Ok(())
}

/// Numbers go on and were never given out before.
fn appends(journal: &Journal, expected: &Expected, before: &[Listed]) -> Result<Vec<Listed>, Broken> {
    const PROBE: u64 = 1_000_000;
    let appended = journal
        .append_own(Draft { follows: None, ..draft(PROBE, PROBE) })
        .wait()
        .map_err(|e| format!("append: {e}"))?;
    let ids = || expected.own.keys().chain(before.iter().map(|l| &l.entry.header.id)).filter(|id| id.origin == NODE);
    ensure!(
        ids().all(|id| (id.epoch, id.seq) < (appended.id.epoch, appended.id.seq)),
        "{} was given out before",
        appended.id
    );
    let places = expected.own.values().map(|(_, a)| a.pos).chain(expected.foreign.values().copied());
    let highest = places.chain(before.iter().map(|l| l.pos)).max();
    ensure!(highest < Some(appended.pos), "{:?} was given out before, up to {highest:?}", appended.pos);
    journal.append_foreign(foreign(PROBE)).wait().map_err(|e| format!("append: {e}"))?;
    let after = all(journal)?;
    ensure!(after.len() == before.len() + 2, "two appends made {} entries of {}", after.len(), before.len());
    ensure!(after[before.len()].entry.body == body(PROBE, PROBE), "the appended entry is not as written");
    Ok(after)
}

/// A state of the disk in which a promise is broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// `leg/calls/state`: where [`Examination::only`] finds it again.
    pub state: String,
    /// What is wrong, after which call.
    pub what: String,
}

/// What an examination came to.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// States of the disk that differ from each other.
    pub distinct: usize,
    /// States checked: one that is legal at several moments is held against the promises of each.
    pub checked: usize,
    /// Calls after each of which the power was cut.
    pub calls: usize,
    /// The first ones, and then it stopped.
    pub violations: Vec<Violation>,
}

/// How to go through the states of a workload.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Random states.
    pub seed: u64,
    /// How many of them at each call, beside the systematic ones.
    pub extra: usize,
    /// Threads.
    pub threads: usize,
    /// Ends after so many violations.
    pub violations_max: usize,
    /// Only this one, as [`Violation::state`] names it.
    pub only: Option<String>,
    /// Only the moments after so many calls at the end of each leg.
    pub last_calls: usize,
    /// Also the moments after so many calls behind each failed one.
    pub near_failures: usize,
    /// A workload that ends well must leave nothing undecided, and must not have made a name durable before the content.
    pub clean_close: bool,
    /// At each moment no more states than this, the first of which lose all and keep all.
    pub states_max: usize,
}

impl Default for Examination {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let (last_calls, states_max) = (usize::MAX, usize::MAX);
        Self {
            seed: 0,
            extra: 0,
            threads,
            violations_max: 3,
            only: None,
            last_calls,
            near_failures: 0,
            clean_close: true,
            states_max,
        }
    }
}

impl Examination {
    /// Cuts the power after each call of the workload, in every legal way, and checks what is left.
    pub fn of(&self, recorded: &Recorded) -> Findings {
        let (stop, violations) = (AtomicBool::new(false), AtomicUsize::new(0));
        let parts: Vec<(Findings, BTreeSet<u64>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let (stop, violations) = (&stop, &violations);
                    scope.spawn(move || self.part(recorded, thread as u64, stop, violations))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("checks catch their panics")).collect()
        });
        let mut all = Findings::default();
        for (part, prints) in parts {
            // Each thread has the prints of its own residue.
            all.distinct += prints.len();
            all.checked += part.checked;
            all.calls = part.calls;
            all.violations.extend(part.violations);
        }
        all
    }

    fn part(
        &self,
        recorded: &Recorded,
        thread: u64,
        stop: &AtomicBool,
        violations: &AtomicUsize,
    ) -> (Findings, BTreeSet<u64>) {
        let mut findings = Findings::default();
        let mut prints = BTreeSet::new();
        for (l, leg) in recorded.legs.iter().enumerate() {
            let mut expected = leg.before.clone();
            let mut states = CrashStates::new(&leg.trace, self.seed ^ (l as u64) << 32, self.extra);
            let mut checked: BTreeSet<u64> = BTreeSet::new();
            let mut failed_at = None;
            while let Some(boundary) = states.next_boundary() {
                let note = boundary.calls.checked_sub(1).map(|at| &leg.trace.calls()[at]);
                if let Some(Call::Note(note)) = note {
                    leg.promises.get(note).into_iter().for_each(|promise| expected.keep(promise));
                    checked.clear();
                }
                // A power cut before the notes that follow is no worse than one after them.
                if let Some(Call::Note(_)) = leg.trace.calls().get(boundary.calls) {
                    continue;
                }
                let calls = leg.trace.calls();
                if boundary.calls.checked_sub(1).is_some_and(|at| calls[at].failed()) {
                    failed_at = Some(boundary.calls);
                }
                let near = failed_at.is_some_and(|at| boundary.calls - at < self.near_failures);
                if boundary.calls.saturating_add(self.last_calls) < calls.len() && !near {
                    continue;
                }
                let ended = recorded.ended_well && l + 1 == recorded.legs.len() && boundary.calls == calls.len();
                if thread == 0 && self.clean_close && ended && !boundary.undecided.is_empty() {
                    let what = format!("it was closed with {:?} undecided", boundary.undecided);
                    findings.violations.push(Violation { state: format!("{l}/{}", boundary.calls), what });
                }
                let named = matches!(calls.get(boundary.calls.wrapping_sub(1)), Some(Call::SyncDir { .. }));
                if thread == 0
                    && self.clean_close
                    && recorded.ended_well
                    && named
                    && !boundary.hollow_files().is_empty()
                {
                    let what = format!("the name of {:?} is durable before its content", boundary.hollow_files());
                    findings.violations.push(Violation { state: format!("{l}/{}", boundary.calls), what });
                }
                findings.calls += 1;
                for state in 0..boundary.states().min(self.states_max) {
                    let (disk, print) = boundary.disk(state);
                    if print % self.threads as u64 != thread || !checked.insert(print) {
                        continue;
                    }
                    let name = format!("{l}/{}/{state}", boundary.calls);
                    if self.only.as_ref().is_some_and(|only| *only != name) {
                        continue;
                    }
                    prints.insert(print);
                    findings.checked += 1;
                    if let Err(what) = check(&disk, &expected, recorded) {
                        let mut text = what;
                        let _ = write!(
                            text,
                            "\n  of {:?} the power cut left {:?}",
                            boundary.undecided,
                            boundary.keeps(state)
                        );
                        let shown = leg.trace.calls()[..boundary.calls].iter().rev().take(10).rev().map(brief);
                        let _ = write!(text, "\n  after {}", shown.collect::<Vec<_>>().join(", "));
                        findings.violations.push(Violation { state: name, what: text });
                        if violations.fetch_add(1, Ordering::SeqCst) + 1 >= self.violations_max {
                            stop.store(true, Ordering::SeqCst);
                        }
                    }
                    if stop.load(Ordering::SeqCst) {
                        return (findings, prints);
                    }
                }
            }
        }
        (findings, prints)
    }
}

/// A call in one word or two.
fn brief(call: &Call) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match call {
        Call::MakeDir { dir } => format!("mkdir {}", name(dir)),
        Call::Create { path } => format!("create {}", name(path)),
        Call::Write { file, offset, bytes, well } => {
            let what = if bytes.iter().all(|byte| *byte == 0) { "zeros" } else { "bytes" };
            format!("write {} {what} to #{file} at {offset}{}", bytes.len(), if *well { "" } else { " (failed)" })
        }
        Call::Truncate { file, len } => format!("truncate #{file} to {len}"),
        Call::SyncData { file, well } => format!("sync #{file}{}", if *well { "" } else { " (failed)" }),
        Call::Rename { from, to } => format!("rename {} to {}", name(from), name(to)),
        Call::Unlink { path } => format!("unlink {}", name(path)),
        Call::SyncDir { dir, well } => format!("sync {}/{}", name(dir), if *well { "" } else { " (failed)" }),
        Call::Lock { path } => format!("lock {}", name(path)),
        Call::Failed(op) => format!("{op:?} (failed)"),
        Call::Note(note) => format!("note {note}"),
    }
}
