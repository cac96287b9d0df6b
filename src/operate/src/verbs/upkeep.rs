//! `holdfast journal` where it changes something: by the running node, or on the files of one that is stopped.

use ::journal::{Reader, Scrubbed};
use serde::Serialize;

use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::output::{self, Bar};
use crate::show;
use crate::upkeep::{Keeper, Upkeep, UpkeepDone};

/// An answer that belongs to another question: another version runs.
fn misunderstood(done: &UpkeepDone) -> Failure {
    Failure::new(
        format!("the node did something else than was asked: {done:?}"),
        "use a `holdfast` of the same version as the running node",
    )
}

#[derive(Serialize)]
struct ScrubShown {
    schema: &'static str,
    clean: bool,
    #[serde(flatten)]
    found: Scrubbed,
}

pub(super) fn scrub(layout: &Layout, json: bool) -> Done {
    let keeper = Keeper::find(layout)?;
    let bar = Bar::new("scrubbing", json);
    let (mut all, mut after) = (Scrubbed::default(), 0);
    loop {
        let done = keeper.ask(&Upkeep::Scrub { after })?;
        if matches!(done, UpkeepDone::Finished) {
            break;
        }
        let UpkeepDone::Scrubbed { segment, found, progress } = done else { return Err(misunderstood(&done)) };
        after = segment;
        all.add(found);
        bar.at(progress.done_bytes, progress.total_bytes);
    }
    bar.finish();
    let clean = all.is_clean();
    if json {
        output::json(&ScrubShown { schema: "holdfast.scrub/1", clean, found: all });
    } else {
        output::line(format!("{} in {} sealed segments were read again", show::bytes(all.bytes), all.segments));
        if !clean {
            output::line(format!("{} damaged places, {} wrong hashes", all.damaged_places, all.wrong_hashes));
            output::line("next step: `holdfast journal quarantine list`; check the disk (`dmesg`)");
        }
    }
    Ok(if clean { Exit::Ok } else { Exit::Degraded })
}

#[derive(Serialize)]
struct Reindexed {
    schema: &'static str,
    segments: u32,
    bytes: u64,
}

pub(super) fn rebuild_index(layout: &Layout, json: bool) -> Done {
    let keeper = Keeper::find(layout)?;
    let bar = Bar::new("rebuilding the index", json);
    let (mut segments, mut bytes, mut after) = (0, 0, 0);
    loop {
        let done = keeper.ask(&Upkeep::Reindex { after })?;
        if matches!(done, UpkeepDone::Finished) {
            break;
        }
        let UpkeepDone::Reindexed { segment, progress } = done else { return Err(misunderstood(&done)) };
        (after, bytes) = (segment, progress.done_bytes);
        segments += 1;
        bar.at(progress.done_bytes, progress.total_bytes);
    }
    bar.finish();
    match json {
        true => output::json(&Reindexed { schema: "holdfast.index/1", segments, bytes }),
        false => output::line(format!("{segments} sealed segments ({}) are indexed anew", show::bytes(bytes))),
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Trimmed<T> {
    schema: &'static str,
    dry_run: bool,
    #[serde(flatten)]
    report: T,
}

#[derive(Serialize)]
struct Plan {
    segments: usize,
    bytes: u64,
    plan: Vec<::journal::TrimPlan>,
}

/// What a trim would free; changes nothing.
pub(super) fn trim_plan(reader: &Reader, json: bool) -> Done {
    let plan = reader.trim_plan();
    let goes = || plan.iter().filter(|p| p.goes);
    let (segments, bytes) = (goes().count(), goes().map(|p| p.bytes).sum());
    if json {
        let report = Plan { segments, bytes, plan };
        output::json(&Trimmed { schema: "holdfast.trim/1", dry_run: true, report });
        return Ok(Exit::Ok);
    }
    for p in &plan {
        let why = match (p.goes, p.waiting_for.is_empty()) {
            (true, _) => "would go".to_owned(),
            (false, true) => "waits for the segments before it".to_owned(),
            (false, false) => format!("waits for {}", p.waiting_for.join(", ")),
        };
        output::line(format!("segment {:>8}  {:>10}  {why}", p.segment, show::bytes(p.bytes)));
    }
    output::line(format!("{segments} segments with {} would go; nothing was changed", show::bytes(bytes)));
    Ok(Exit::Ok)
}

pub(super) fn trim(layout: &Layout, json: bool) -> Done {
    let done = Keeper::find(layout)?.ask(&Upkeep::Trim)?;
    let UpkeepDone::Trimmed(report) = done else { return Err(misunderstood(&done)) };
    if json {
        output::json(&Trimmed { schema: "holdfast.trim/1", dry_run: false, report });
        return Ok(Exit::Ok);
    }
    output::line(format!("{} segments with {} were removed", report.segments, show::bytes(report.bytes)));
    if !report.waiting_for.is_empty() {
        output::line(format!("the next one waits for {}", report.waiting_for.join(", ")));
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Listed {
    schema: &'static str,
    #[serde(flatten)]
    report: ::journal::QuarantineReport,
}

pub(super) fn list(reader: &Reader, json: bool) -> Done {
    let report = reader.quarantine();
    let clean = report.open_places() == 0 && report.missing.is_empty();
    let exit = if clean { Exit::Ok } else { Exit::Degraded };
    if json {
        output::json(&Listed { schema: "holdfast.quarantine-list/1", report });
        return Ok(exit);
    }
    for place in &report.places {
        let seen = if place.acknowledged { ", acknowledged" } else { "" };
        let own = match place.own_entries.is_empty() {
            true => "no own entry was missing".to_owned(),
            false => format!("own entries {} were missing", place.own_entries.join(", ")),
        };
        let (name, bytes, at) = (&place.name, show::bytes(place.bytes), show::time(place.found_at));
        output::line(format!("{name}  {bytes} found {at}{seen}; in its segment {own}"));
    }
    for numbers in &report.missing {
        let what = match numbers.awaited_from.is_empty() {
            true => "nobody holds them; `quarantine skip` gives them up, a backup of the segment may still have them"
                .to_owned(),
            false => format!("asked for from {}", numbers.awaited_from.join(", ")),
        };
        output::line(format!("own entries {}/{}-{} are missing: {what}", numbers.epoch, numbers.first, numbers.last));
    }
    output::line(format!(
        "{} damaged places, {} own entries missing, {} restored",
        report.places.len(),
        report.missing_count(),
        report.restored
    ));
    Ok(exit)
}

#[derive(Serialize)]
struct Handled {
    schema: &'static str,
    #[serde(flatten)]
    done: UpkeepDone,
}

pub(super) fn skip(layout: &Layout, place: String, json: bool) -> Done {
    let done = Keeper::find(layout)?.ask(&Upkeep::Skip { place: named(place) })?;
    let UpkeepDone::Skipped { entries } = done else { return Err(misunderstood(&done)) };
    match json {
        true => output::json(&Handled { schema: "holdfast.quarantine-done/1", done }),
        false => output::line(format!(
            "{entries} own entries end as quarantined for every destination; the places are acknowledged"
        )),
    }
    Ok(Exit::Ok)
}

pub(super) fn retry(layout: &Layout, place: String, json: bool) -> Done {
    let keeper = Keeper::find(layout)?;
    let done = keeper.ask(&Upkeep::Retry { place: named(place) })?;
    let UpkeepDone::Retried { damaged_places } = done else { return Err(misunderstood(&done)) };
    let peers = if keeper.is_node() { "are asked again" } else { "are asked when the node runs" };
    match json {
        true => output::json(&Handled { schema: "holdfast.quarantine-done/1", done }),
        false => output::line(format!(
            "{damaged_places} places are damaged still; the peers that may hold what they held {peers}"
        )),
    }
    Ok(if damaged_places > 0 { Exit::Degraded } else { Exit::Ok })
}

fn named(place: String) -> Option<String> {
    (place != "all").then_some(place)
}
