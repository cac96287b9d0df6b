//! `holdfast journal`: what reads the segments locks nothing and changes nothing, and works beside the running node; what
//! changes something is in `upkeep`.

use std::sync::Arc;

use ::journal::{Listed, Reader, StdDisk, VerifyReport, Which};
use model::{EntryId, Epoch, LocalPos, NodeId, Seq};
use serde::Serialize;

use super::{export, upkeep};
use crate::cli::{Journal, Quarantine};
use crate::exit::{Done, Exit, Failure, chain};
use crate::layout::Layout;
use crate::output::{self, Bar};
use crate::{config, secrets, show};

/// Entries read from the journal at once.
pub(super) const BATCH: usize = 500;

pub(super) fn run(layout: &Layout, verb: Journal) -> Done {
    let settings = config::load(layout.data())?;
    let reader = || open(layout, &settings);
    match verb {
        Journal::List { from, limit, format } => list(&reader()?, from, limit, format.json),
        Journal::Show { entry, format } => show_one(&reader()?, &entry, format.json),
        Journal::Verify(format) => verify(layout, &reader()?, format.json),
        Journal::Stats(format) => stats(&reader()?, &settings, format.json),
        Journal::Export { from, to, output, raw } => {
            export::run(&reader()?, &export::Wanted { from, to, raw, file: output.as_deref() })
        }
        Journal::Trim { dry_run: true, format } => upkeep::trim_plan(&reader()?, format.json),
        Journal::Trim { dry_run: false, format } => upkeep::trim(layout, format.json),
        Journal::Scrub(format) => upkeep::scrub(layout, format.json),
        Journal::RebuildIndex(format) => upkeep::rebuild_index(layout, format.json),
        Journal::Quarantine(Quarantine::List(format)) => upkeep::list(&reader()?, format.json),
        Journal::Quarantine(Quarantine::Skip { place, format }) => upkeep::skip(layout, place, format.json),
        Journal::Quarantine(Quarantine::Retry { place, format }) => upkeep::retry(layout, place, format.json),
        Journal::Hold(verb) => super::hold::run(layout, &settings, verb),
    }
}

/// Opens the journal for reading.
pub(crate) fn open(layout: &Layout, settings: &config::Settings) -> Result<Reader, Failure> {
    let keys = secrets::reader_keys(layout, &settings.keys)?;
    Reader::open(&layout.journal(), Arc::new(StdDisk), &keys).map_err(|e| Failure::new(chain(&e), e.next_step()))
}

pub(super) fn unreadable(e: &::journal::ReadError) -> Failure {
    Failure::new(chain(e), e.next_step())
}

#[derive(Serialize)]
pub(super) struct Shown {
    schema: &'static str,
    pos: u64,
    origin: String,
    epoch: u32,
    seq: u64,
    kind: &'static str,
    precedence: &'static str,
    label: String,
    stream: String,
    captured_at: i64,
    origin_time: i64,
    expires_at: Option<i64>,
    causes: Vec<String>,
    hash: String,
    bytes: u64,
    segment: u32,
    offset: u64,
}

impl Shown {
    pub(super) fn new(listed: &Listed) -> Self {
        let header = &listed.entry.header;
        Self {
            schema: "holdfast.entry/1",
            pos: listed.pos.0,
            origin: header.id.origin.to_string(),
            epoch: header.id.epoch.0,
            seq: header.id.seq.get(),
            kind: header.kind.as_str(),
            precedence: header.precedence.as_str(),
            label: header.label.to_string(),
            stream: header.stream.to_string(),
            captured_at: header.captured.millis().0,
            origin_time: header.origin_time.0,
            expires_at: header.expiry.map(|e| e.0),
            causes: header.causes.iter().map(ToString::to_string).collect(),
            hash: listed.hash.to_string(),
            bytes: listed.bytes,
            segment: listed.segment,
            offset: listed.offset,
        }
    }
}

fn list(reader: &Reader, from: u64, limit: usize, json: bool) -> Done {
    let mut next = LocalPos(from.max(1));
    let mut left = limit;
    while left > 0 {
        let batch = reader.list(next..LocalPos(u64::MAX), left.min(BATCH)).map_err(|e| unreadable(&e))?;
        let Some(last) = batch.last() else { break };
        next = last.pos.next();
        left -= batch.len().min(left);
        for listed in &batch {
            match json {
                true => output::json_line(&Shown::new(listed)),
                false => output::line(row(listed)),
            }
        }
    }
    Ok(Exit::Ok)
}

fn row(listed: &Listed) -> String {
    let header = &listed.entry.header;
    format!(
        "{:>8}  {}  {:<9} {:<14} {:<10} {:>9}  {}",
        listed.pos.0,
        show::time(header.captured.millis()),
        header.precedence.as_str(),
        header.kind.as_str(),
        header.label.as_str(),
        show::bytes(listed.bytes),
        header.id
    )
}

fn show_one(reader: &Reader, entry: &str, json: bool) -> Done {
    let which = parse_which(entry).ok_or_else(|| {
        Failure::with(
            Exit::Usage,
            format!("`{entry}` names no entry"),
            "give its place (a number) or its identity as origin/epoch/number; `holdfast journal list` shows both",
        )
    })?;
    let Some(listed) = reader.show(which).map_err(|e| unreadable(&e))? else {
        return Err(Failure::new(
            format!("the journal does not hold entry {entry} (any more)"),
            "entries go once every destination is finished with them; `holdfast journal list` shows what is held",
        ));
    };
    let shown = Shown::new(&listed);
    if json {
        output::json(&shown);
        return Ok(Exit::Ok);
    }
    let expiry = listed.entry.header.expiry.map_or("never".to_owned(), show::time);
    for (name, value) in [
        ("place", shown.pos.to_string()),
        ("identity", listed.entry.header.id.to_string()),
        ("kind", shown.kind.to_owned()),
        ("precedence", shown.precedence.to_owned()),
        ("label", shown.label),
        ("stream", shown.stream),
        ("captured", show::time(listed.entry.header.captured.millis())),
        ("written", show::time(listed.entry.header.origin_time)),
        ("expires", expiry),
        ("waits for", if shown.causes.is_empty() { "nothing".to_owned() } else { shown.causes.join(", ") }),
        ("hash", shown.hash),
        ("size", show::bytes(shown.bytes)),
        ("lies in", format!("segment {} at byte {}", shown.segment, shown.offset)),
    ] {
        output::line(format!("{name:<10}  {value}"));
    }
    Ok(Exit::Ok)
}

/// A place as a number, or `origin/epoch/number`.
pub(crate) fn parse_which(text: &str) -> Option<Which> {
    if let Ok(pos) = text.parse::<u64>() {
        return (pos > 0).then_some(Which::Pos(LocalPos(pos)));
    }
    let mut parts = text.split('/');
    let origin: NodeId = parts.next()?.parse().ok()?;
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let seq = Seq::new(parts.next()?.parse().ok()?)?;
    parts.next().is_none().then_some(Which::Id(EntryId { origin, epoch, seq }))
}

#[derive(Serialize)]
struct Verified<'a> {
    schema: &'static str,
    clean: bool,
    /// Bytes at the end that are no whole frame and never were acknowledged. The running node may be writing them.
    torn_tail_bytes: u64,
    #[serde(flatten)]
    report: &'a VerifyReport,
}

fn verify(layout: &Layout, reader: &Reader, json: bool) -> Done {
    let bar = Bar::new("verifying", json);
    let report = reader.verify(&mut |p| bar.at(p.done_bytes, p.total_bytes));
    bar.finish();
    let torn_tail_bytes = reader.torn_tail_bytes();
    let report = report.map_err(|e| unreadable(&e))?;
    let clean = report.is_clean();
    if json {
        output::json(&Verified { schema: "holdfast.verify/1", clean, torn_tail_bytes, report: &report });
    } else {
        output::line(format!(
            "{} in {} segments: {} frames, {} entries and {} chunks are good; {} entries and {} chunks were purged",
            show::bytes(report.bytes),
            report.segments,
            report.frames,
            report.entries,
            report.chunks,
            report.purged_entries,
            report.purged_chunks
        ));
        for finding in &report.findings {
            output::line(format!("segment {} at byte {}: {}", finding.segment, finding.offset, finding.what));
        }
        if torn_tail_bytes > 0 && crate::lock::holder(layout.data()).is_none() {
            output::line(format!(
                "{torn_tail_bytes} bytes at the end are a torn tail: a write that was cut short and never acknowledged; \
                 the next start cuts them off and begins a new epoch"
            ));
        }
        if !clean {
            output::line(format!("{} damaged places; every other entry is intact", report.findings_total));
            output::line("next step: copy the data directory away, check the disk (`dmesg`), then replace it");
        }
    }
    Ok(if clean { Exit::Ok } else { Exit::Degraded })
}

#[derive(Serialize)]
struct StatsShown<'a> {
    schema: &'static str,
    #[serde(flatten)]
    stats: &'a ::journal::Stats,
    /// By consumer.
    accounting: &'a std::collections::BTreeMap<String, ::journal::Accounting>,
}

fn stats(reader: &Reader, settings: &config::Settings, json: bool) -> Done {
    let mut stats = reader.stats();
    stats.limit_bytes = settings.journal.limit_bytes.0;
    let accounting = reader.accounting().map_err(|e| unreadable(&e))?;
    if json {
        output::json(&StatsShown { schema: "holdfast.journal-stats/1", stats: &stats, accounting: &accounting });
        return Ok(Exit::Ok);
    }
    let (used, limit) = (show::bytes(stats.bytes), show::bytes(stats.limit_bytes));
    output::line(format!("{used} of {limit} in {} segments", stats.segments));
    output::line(format!(
        "{} entries and {} chunks at places {} to {}",
        stats.entries,
        stats.chunks,
        stats.first,
        stats.head.saturating_sub(1)
    ));
    for epoch in &stats.epochs {
        let last = epoch.last.map_or("no entry yet".to_owned(), |last| format!("entries 1 to {}", last.get()));
        output::line(format!("epoch {}: {last}, begun because of {:?}", epoch.epoch.0, epoch.reason));
    }
    for (consumer, accounting) in &accounting {
        let t = &accounting.total;
        output::line(format!(
            "{consumer}: {} accepted = {} applied + {} held + {} quarantined + {} expired + {} superseded + {} withheld \
             + {} purged",
            t.accepted, t.applied, t.held, t.quarantined, t.expired, t.superseded, t.withheld, t.purged
        ));
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_place_or_identity() {
        assert_eq!(parse_which("7"), Some(Which::Pos(LocalPos(7))));
        let id = EntryId { origin: NodeId([7; 16]), epoch: Epoch(2), seq: Seq::FIRST };
        assert_eq!(parse_which(&id.to_string()), Some(Which::Id(id)));
        for wrong in ["", "0", "-1", "x/1/1", "7/1/1", &format!("{id}/1"), &id.to_string().replace("/1", "/0")] {
            assert_eq!(parse_which(wrong), None, "{wrong}");
        }
    }
}
