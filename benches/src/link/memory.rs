//! The most memory that the sending side needs while it drains a backlog of files.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::sites::{Sites, pause};
use super::{Run, Subject, noise};
use crate::Error;
use crate::report::{Figure, tell};
use emulator::Conditions;
use emulator::{Lateness, Link, Span};

/// Fast enough that a gigabyte takes two minutes, slow enough that two cores seal, encrypt and forward it.
const RATE: u64 = 100_000_000;

/// Each file; the core takes up to 100 MiB.
const FILE_BYTES: usize = 50_000_000;

pub(super) fn run(run: &mut Run) -> Result<(), Error> {
    if run.subjects(&[Subject::Holdfast]).is_empty() {
        return Ok(());
    }
    let files = run.pick(1, 20);
    let dir = run.bench.scratch()?;
    let params = [("kbit/s", json!(RATE / 1000)), ("backlog MB", json!(files * FILE_BYTES / 1_000_000))];
    let figures = match drain(files, run.args.seed, dir.path()) {
        Err(e) => vec![("peak RSS MB", Figure::missing(e))],
        Ok((peak, start, took, lateness)) => {
            tell(&format!("   {peak:.1} MB at most, {start:.1} MB at the start"));
            run.bench.summary.peak_rss_mb = Some(peak);
            vec![
                ("peak RSS MB", Figure::from(peak).unless_late(lateness)),
                ("RSS at start MB", Figure::from(start)),
                ("took s", Figure::from(took)),
                ("late p99 ms", Figure::from(lateness.p99_ms)),
                ("late max ms", Figure::from(lateness.max_ms)),
            ]
        }
    };
    run.row("memory", "holdfast", &params, &figures);
    Ok(())
}

/// Peak and beginning in MB (10^6 bytes), seconds, lateness.
fn drain(files: usize, seed: u64, dir: &Path) -> Result<(f64, f64, f64, Lateness), Error> {
    let conditions = Conditions::new(RATE, Duration::from_millis(20), 0.0);
    let link = Link::open(&conditions, "cubic", seed)?;
    let mut sites = Sites::found(&link, dir, RATE)?;
    sites.restart_silent()?;
    let shared: Result<Vec<String>, Error> = (0..files)
        .map(|number| sites.share(&format!("imagery-{number}.bin"), &noise(seed + number as u64, FILE_BYTES)))
        .collect();
    let shared = shared?;
    sites.wait_captured()?;
    // What the uploads needed is not what draining needs.
    sites.restart_silent()?;
    let start = sites.edge.memory("VmRSS")?;
    let began = link.now();
    sites.resume()?;
    let limit = began + conditions.time_of((files * FILE_BYTES) as u64) * 4 + Duration::from_secs(30);
    while !sites.hub_has_all(&shared, (files * FILE_BYTES) as u64)? {
        if link.now() > limit {
            return Err(
                format!("only {} bytes had arrived after four times the ideal time", sites.hub_content()?).into()
            );
        }
        pause();
    }
    let whole = Span { from: began, until: link.now() };
    Ok((sites.edge.memory("VmHWM")?, start, whole.seconds(), link.lateness(whole)))
}
