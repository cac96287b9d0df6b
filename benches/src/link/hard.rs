//! Links that are hardly there: 9.6 kbit/s, and one that comes and goes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::flow::Headers;
use super::sites::Sites;
use super::{Run, Subject, noise};
use crate::Error;
use crate::report::{Figure, tell};
use emulator::Conditions;
use emulator::{Lateness, Link, Span};

/// How long the flapping link is up, and then down.
const UP: Duration = Duration::from_secs(30);

/// A backlog over a link, until it is through or the time is over.
struct Task {
    conditions: Conditions,
    bytes: usize,
    at_most: Duration,
    /// Seconds of the time for which the link is up.
    up_s: fn(f64) -> f64,
}

/// What became of it.
struct Outcome {
    delivered: u64,
    took: f64,
    /// Payload over rate x (1 - loss) x (packet - headers) / packet x time for which the link was up.
    share: f64,
    connections: f64,
    lateness: Lateness,
}

/// 200 kB at 9.6 kbit/s.
pub(super) fn thin(run: &mut Run) -> Result<(), Error> {
    let conditions = Conditions::new(9_600, Duration::from_millis(300), 0.05);
    let bytes = 200_000;
    let at_most = Duration::from_secs(run.args.seconds.unwrap_or(400));
    let params = [("kbit/s", json!(9.6)), ("rtt ms", json!(600)), ("loss %", json!(5)), ("bytes", json!(bytes))];
    note(run, "thin", &params, Task { conditions, bytes, at_most, up_s: |all| all })
}

/// Up for 30 s and down for 30 s, again and again.
pub(super) fn flap(run: &mut Run) -> Result<(), Error> {
    let at_most = Duration::from_secs(run.args.seconds.unwrap_or(run.pick(180, 1_200)));
    let outages = (0..=at_most.as_secs() / 60).map(|n| (UP * (2 * n as u32 + 1), UP * (2 * n as u32 + 2)));
    let link = Conditions::new(2_000_000, Duration::from_millis(40), 0.05);
    let conditions = Conditions { outages: outages.collect(), ..link };
    // More than fits into the time.
    let bytes = (at_most.as_secs() * 2_000_000 / 8) as usize;
    let params = [("kbit/s", json!(2_000)), ("rtt ms", json!(80)), ("loss %", json!(5)), ("bytes", json!(bytes))];
    let up_s = |all: f64| (all / 60.0).floor() * 30.0 + (all % 60.0).min(30.0);
    note(run, "flap", &params, Task { conditions, bytes, at_most, up_s })
}

fn note(run: &mut Run, case: &'static str, params: &[(&str, serde_json::Value)], task: Task) -> Result<(), Error> {
    if run.subjects(&[Subject::Holdfast]).is_empty() {
        return Ok(());
    }
    if !run.args.full && !run.args.case.iter().any(|name| name == case) {
        run.row(case, "holdfast", params, &[("share", Figure::missing("takes minutes: with --full, or by name"))]);
        return Ok(());
    }
    let dir = run.bench.scratch()?;
    let figures = match drain(&task, run.args.seed, dir.path()) {
        Err(e) => vec![("share", Figure::missing(e))],
        Ok(outcome) => {
            tell(&format!("   {:.1} % after {:.0} s", outcome.share * 100.0, outcome.took));
            vec![
                ("share", Figure::from(outcome.share).unless_late(outcome.lateness)),
                ("delivered B", Figure::from(outcome.delivered as f64)),
                ("took s", Figure::from(outcome.took)),
                ("connections", Figure::from(outcome.connections)),
                ("late p99 ms", Figure::from(outcome.lateness.p99_ms)),
                ("late max ms", Figure::from(outcome.lateness.max_ms)),
            ]
        }
    };
    run.row(case, "holdfast", params, &figures);
    Ok(())
}

fn drain(task: &Task, seed: u64, dir: &Path) -> Result<Outcome, Error> {
    let conditions = &task.conditions;
    let link = Link::open(&Conditions::new(100_000_000, Duration::from_millis(1), 0.0), "cubic", seed)?;
    let mut sites = Sites::found(&link, dir, conditions.rate)?;
    sites.restart_silent()?;
    let (mut left, mut shared) = (task.bytes, Vec::new());
    for number in 0.. {
        let part = left.min(50_000_000);
        shared.push(sites.share(&format!("backlog-{number}.bin"), &noise(seed + number, part))?);
        left -= part;
        if left == 0 {
            break;
        }
    }
    sites.wait_captured()?;
    let began = link.set(conditions);
    sites.resume()?;
    let mut delivered = 0;
    let mut until = began;
    while until < began + task.at_most && delivered < task.bytes as u64 {
        super::sites::pause();
        let all = sites.hub_has_all(&shared, task.bytes as u64)?;
        delivered = if all { task.bytes as u64 } else { sites.hub_content()? };
        until = link.now();
    }
    let whole = Span { from: began, until };
    let packet = link.forward(whole).iter().map(|passage| passage.bytes).max().ok_or("nothing was sent")?;
    let payload_share = f64::from(packet - Headers::Quic.bytes()) / f64::from(packet);
    let ceiling = conditions.rate as f64 * (1.0 - conditions.loss.share()) * payload_share;
    let up = (task.up_s)(whole.seconds());
    let connections = sites.edge.metric("holdfast_link_reconnects_total")?;
    Ok(Outcome {
        delivered,
        took: whole.seconds(),
        share: delivered as f64 * 8.0 / (ceiling * up),
        connections,
        lateness: link.lateness(whole),
    })
}
