//! Whole small transfers, start-up and tail included: from the sender's first word until the receiver has the last byte.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::api::Api;
use super::flow::Delivered;
use super::quic::{self, Amount, Control};
use super::sites::{Sites, pause};
use super::{Run, Subject, noise, side_by_side, tools};
use crate::Error;
use crate::report::{Figure, tell};
use emulator::Conditions;
use emulator::{Lateness, Link, Span};

const SUBJECTS: &[Subject] = &[
    Subject::Holdfast,
    Subject::QuinnBbr,
    Subject::NncpBbr,
    Subject::RsyncBbr,
    Subject::QuinnCubic,
    Subject::NncpCubic,
    Subject::RsyncCubic,
];

/// Those that are compared with when there is little time: the best that were seen, and the common one.
const FEW: &[Subject] = &[Subject::Holdfast, Subject::QuinnBbr, Subject::NncpBbr, Subject::RsyncCubic];

/// A link and what is sent over it.
#[derive(Clone, Copy)]
struct Transfer {
    name: &'static str,
    rate: u64,
    one_way_ms: u64,
    loss: f64,
    bytes: u64,
    /// From and until, seconds.
    outage: Option<(u64, u64)>,
}

const TRANSFERS: &[Transfer] = &[
    Transfer { name: "A", rate: 256_000, one_way_ms: 300, loss: 0.05, bytes: 400_000, outage: None },
    Transfer { name: "B", rate: 2_000_000, one_way_ms: 40, loss: 0.10, bytes: 1_500_000, outage: None },
    Transfer { name: "C", rate: 1_000_000, one_way_ms: 300, loss: 0.20, bytes: 1_000_000, outage: None },
    Transfer { name: "D", rate: 2_000_000, one_way_ms: 40, loss: 0.10, bytes: 1_500_000, outage: Some((3, 33)) },
];

impl Transfer {
    fn conditions(self) -> Conditions {
        let outages = self.outage.map(|(from, until)| (Duration::from_secs(from), Duration::from_secs(until)));
        let link = Conditions::new(self.rate, Duration::from_millis(self.one_way_ms), self.loss);
        Conditions { outages: outages.into_iter().collect(), ..link }
    }

    /// What the bytes alone need at rate x (1 - loss).
    fn ideal_s(self) -> f64 {
        self.bytes as f64 * 8.0 / (self.rate as f64 * (1.0 - self.loss))
    }
}

/// Time until all was there, and how late the emulator was meanwhile.
struct Outcome {
    took: Option<Duration>,
    lateness: Lateness,
}

pub(super) fn run(run: &mut Run) -> Result<(), Error> {
    let limit = Duration::from_secs(run.pick(60, 240));
    let subjects = run.subjects(run.pick(FEW, SUBJECTS));
    let (dir, seed) = (run.bench.scratch()?, run.args.seed);
    let mut jobs = Vec::new();
    for transfer in TRANSFERS {
        jobs.extend(subjects.iter().map(|subject| (*transfer, *subject)));
    }
    // The longest first.
    jobs.sort_by_key(|(transfer, _)| std::cmp::Reverse(transfer.outage));
    // Small transfers on thin links: twice as many as of long ones do not disturb each other.
    let outcomes = side_by_side(&jobs, run.args.at_once * 2, |(transfer, subject)| {
        let dir = dir.path().join(format!("{}-{}", transfer.name, subject.name()));
        let done = carry(*transfer, *subject, limit, seed, &dir);
        let said = match &done {
            Ok(Outcome { took: Some(took), .. }) => format!("{:.1} s", took.as_secs_f64()),
            Ok(Outcome { took: None, .. }) => "not delivered".to_owned(),
            Err(e) => format!("failed: {e}"),
        };
        tell(&format!("   {} {}: {said}", transfer.name, subject.name()));
        done
    });
    let mut noted: Vec<_> = jobs.iter().zip(outcomes).collect();
    noted.sort_by_key(|((transfer, subject), _)| (transfer.name, *subject));
    for ((transfer, subject), outcome) in noted {
        note(run, *transfer, *subject, limit, outcome);
    }
    Ok(())
}

fn carry(transfer: Transfer, subject: Subject, limit: Duration, seed: u64, dir: &Path) -> Result<Outcome, Error> {
    std::fs::create_dir(dir)?;
    let conditions = transfer.conditions();
    let link = Link::open(&Conditions::new(100_000_000, Duration::from_millis(1), 0.0), subject.congestion(), seed)?;
    let content = noise(u64::from(transfer.name.as_bytes()[0]), transfer.bytes as usize);
    let (began, done) = match subject {
        Subject::Holdfast => holdfast(&link, &conditions, &content, limit, dir)?,
        Subject::QuinnCubic | Subject::QuinnBbr => {
            let control = if subject == Subject::QuinnBbr { Control::Bbr } else { Control::Cubic };
            let delivered = Delivered::new(&link);
            let began = link.set(&conditions);
            // A connection that gave up has not delivered.
            let sent = quic::send(&link, control, Amount::Bytes(transfer.bytes, limit), &delivered);
            let done = delivered.reached(transfer.bytes);
            if done.is_none() {
                sent?;
            }
            (began, done)
        }
        Subject::RsyncCubic | Subject::RsyncBbr => by_tool(&link, &conditions, &content, limit, dir, tools::rsync)?,
        Subject::NncpCubic | Subject::NncpBbr => by_tool(&link, &conditions, &content, limit, dir, tools::nncp)?,
        Subject::TcpCubic | Subject::TcpBbr => return Err("iperf3 has no whole transfers".into()),
    };
    let whole = Span { from: began, until: done.unwrap_or(began + limit) };
    Ok(Outcome { took: done.map(|done| done - began), lateness: link.lateness(whole) })
}

/// Sends a file with a tool that `start` starts.
fn by_tool(
    link: &Link,
    conditions: &Conditions,
    content: &[u8],
    limit: Duration,
    dir: &Path,
    start: impl Fn(&Link, &Path, &Path) -> Result<tools::Tool, Error>,
) -> Result<(Duration, Option<Duration>), Error> {
    let file = dir.join("content.bin");
    std::fs::write(&file, content)?;
    let began = link.set(conditions);
    let mut tool = start(link, dir, &file)?;
    while link.now() < began + limit {
        if tool.is_done(link, content.len() as u64)? {
            return Ok((began, Some(link.now())));
        }
        pause();
    }
    Ok((began, None))
}

/// A file that waits at a silent edge; it has arrived when the hub serves it whole.
fn holdfast(
    link: &Link,
    conditions: &Conditions,
    content: &[u8],
    limit: Duration,
    dir: &Path,
) -> Result<(Duration, Option<Duration>), Error> {
    let mut sites = Sites::found(link, dir, conditions.rate)?;
    sites.restart_silent()?;
    let file = sites.share("report.bin", content)?;
    sites.wait_captured()?;
    let began = link.set(conditions);
    sites.resume()?;
    let done = link.far.run_async(async || {
        let api = Api::new();
        while link.now() < began + limit {
            let asked = link.now();
            if let Ok(arrived) = api.download(&sites.reader, &file).await {
                return match arrived.as_ref() == content {
                    true => Ok(Some(asked)),
                    false => Err("the file arrived with other content".into()),
                };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(None)
    })?;
    Ok((began, done))
}

fn note(run: &mut Run, transfer: Transfer, subject: Subject, limit: Duration, outcome: Result<Outcome, Error>) {
    let link = format!(
        "{} kbit/s, {} ms, {} %{}",
        transfer.rate / 1000,
        transfer.one_way_ms,
        transfer.loss * 100.0,
        if transfer.outage.is_some() { ", 30 s out" } else { "" }
    );
    let params = [("transfer", json!(transfer.name)), ("link", json!(link)), ("bytes", json!(transfer.bytes))];
    let outage = transfer.outage.map_or(0, |(from, until)| until - from);
    let (took, lateness) = match outcome {
        Ok(Outcome { took: Some(took), lateness }) => (took.as_secs_f64(), lateness),
        Ok(Outcome { took: None, lateness }) => {
            let missing = Figure::missing(format!("not delivered within {} s", limit.as_secs()));
            run.row("whole", subject.name(), &params, &[("share", missing.unless_late(lateness))]);
            return;
        }
        Err(e) => return run.row("whole", subject.name(), &params, &[("share", Figure::missing(e))]),
    };
    let ideal = transfer.ideal_s();
    let share = ideal / (took - outage as f64);
    let mut figures = vec![("share", Figure::from(share).unless_late(lateness)), ("took s", Figure::from(took))];
    let mut summary = share;
    if let Some((_, until)) = transfer.outage {
        summary = took - until as f64;
        figures.push(("s after return", Figure::from(summary)));
    }
    figures.push(("ideal s", Figure::from(ideal + outage as f64)));
    figures.push(("late p99 ms", Figure::from(lateness.p99_ms)));
    figures.push(("late max ms", Figure::from(lateness.max_ms)));
    run.row("whole", subject.name(), &params, &figures);
    if subject == Subject::Holdfast {
        run.bench.summary.whole.insert(transfer.name, summary);
    }
}
