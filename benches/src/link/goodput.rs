//! Steady goodput: a long transfer of incompressible bytes, after its start-up, as a share of what the link can carry.

use std::time::Duration;

use serde_json::json;

use super::api::Api;
use super::flow::{Delivered, Headers, Plan, Steady, fullest_window, steady};
use super::quic::{self, Amount, Control};
use super::sites::Sites;
use super::{Run, Subject, noise, side_by_side, tools};
use crate::Error;
use crate::report::{Figure, tell};
use emulator::Conditions;
use emulator::{Lateness, Link, Span};
use model::{Epoch, Seq};
use wire::Frame;
use wire::frame::{Packing, Part, Slice};

const SUBJECTS: &[Subject] =
    &[Subject::Holdfast, Subject::TcpCubic, Subject::TcpBbr, Subject::QuinnCubic, Subject::QuinnBbr];

/// One field of the table.
#[derive(Clone, Copy)]
struct Cell {
    rate: u64,
    /// Per cent, each way.
    loss: f64,
    /// Milliseconds.
    rtt: u64,
}

impl Cell {
    fn conditions(self) -> Conditions {
        Conditions::new(self.rate, Duration::from_millis(self.rtt / 2), self.loss / 100.0)
    }

    fn name(self) -> String {
        format!("{}/{}/{}", self.rate / 1000, self.loss, self.rtt)
    }
}

/// What one subject did in one cell.
struct Outcome {
    steady: Option<Steady>,
    /// Time until the first payload was there.
    first: Option<Duration>,
    /// The same share over the start-up.
    start_share: f64,
    /// The fullest ten seconds against the ceiling.
    fullest: f64,
    lateness: Lateness,
}

pub(super) fn run(run: &mut Run) -> Result<(), Error> {
    let cells = cells(run);
    let seconds = run.args.seconds.map(Duration::from_secs);
    let (dir, seed, at_once) = (run.bench.scratch()?, run.args.seed, run.args.at_once);
    let scale = run.pick((8, 400_000), (40, 1_500_000));
    let subjects = run.subjects(SUBJECTS);
    let mut jobs = Vec::new();
    for cell in &cells {
        for subject in &subjects {
            // Long enough that the chunks of a file, 16 KiB each, do not show in the figure.
            let span = Duration::from_secs(scale.0).max(cell.conditions().time_of(scale.1));
            jobs.push((jobs.len(), *cell, *subject, seconds.unwrap_or(span)));
        }
    }
    let outcomes = side_by_side(&jobs, at_once, |(number, cell, subject, span)| {
        let done = transfer(*cell, *subject, *span, seed, &dir.path().join(number.to_string()));
        let said = match &done {
            Ok(Outcome { steady: Some(steady), .. }) => format!("{:.1} %", steady.share * 100.0),
            Ok(Outcome { steady: None, .. }) => "nothing delivered".to_owned(),
            Err(e) => format!("failed: {e}"),
        };
        tell(&format!("   {} {}: {said}", cell.name(), subject.name()));
        done
    });
    for ((_, cell, subject, span), outcome) in jobs.iter().zip(outcomes) {
        note(run, *cell, *subject, *span, outcome);
    }
    Ok(())
}

fn cells(run: &Run) -> Vec<Cell> {
    let args = &run.args;
    if args.rate.is_empty() && args.loss.is_empty() && args.rtt.is_empty() && !args.full {
        let corner = |rate, loss, rtt| Cell { rate, loss, rtt };
        return vec![
            corner(256_000, 0.0, 100),
            corner(256_000, 30.0, 600),
            corner(10_000_000, 30.0, 100),
            corner(10_000_000, 0.0, 600),
        ];
    }
    let or = |asked: &[f64], all: &[f64]| if asked.is_empty() { all.to_vec() } else { asked.to_vec() };
    let mut cells = Vec::new();
    let rates = if args.rate.is_empty() { vec![256_000, 2_000_000, 10_000_000] } else { args.rate.clone() };
    let rtts = if args.rtt.is_empty() { vec![100, 600] } else { args.rtt.clone() };
    for rate in rates {
        for loss in or(&args.loss, &[0.0, 1.0, 5.0, 10.0, 20.0, 30.0]) {
            cells.extend(rtts.iter().map(|rtt| Cell { rate, loss, rtt: *rtt }));
        }
    }
    cells
}

fn transfer(
    cell: Cell,
    subject: Subject,
    measured: Duration,
    seed: u64,
    dir: &std::path::Path,
) -> Result<Outcome, Error> {
    let conditions = cell.conditions();
    // Six round trips for a sender that doubles in each, and two seconds for one that waits for time-outs.
    let start_up = Duration::from_secs(2) + Duration::from_millis(6 * cell.rtt);
    let link = Link::open(&Conditions::new(100_000_000, Duration::from_millis(1), 0.0), subject.congestion(), seed)?;
    let delivered = Delivered::new(&link);
    std::fs::create_dir(dir)?;
    let plan = |began| Plan { began, round_trip: conditions.delay * 2, start_up, measured };
    let (plan, headers) = match subject {
        Subject::Holdfast => (holdfast(&link, &conditions, plan, &delivered, dir)?, Headers::Quic),
        Subject::QuinnCubic | Subject::QuinnBbr => {
            let control = if subject == Subject::QuinnBbr { Control::Bbr } else { Control::Cubic };
            let plan = plan(link.set(&conditions));
            quic::send(&link, control, Amount::Until(plan), &delivered)?;
            (plan, Headers::Quic)
        }
        Subject::TcpCubic | Subject::TcpBbr => {
            let plan = plan(link.set(&conditions));
            tools::iperf(&link, subject.congestion(), plan, &delivered, dir)?;
            (plan, Headers::Tcp)
        }
        Subject::RsyncCubic | Subject::RsyncBbr | Subject::NncpCubic | Subject::NncpBbr => {
            return Err("its transfers are measured whole".into());
        }
    };
    let began = plan.began;
    let steady_part = delivered.steady_span(plan);
    let early_part = Span { from: began, until: began + start_up };
    let whole = Span { from: began, until: steady_part.until };
    let early = delivered.within(early_part).map_or(0.0, |(bytes, _)| bytes as f64 * 8.0 / start_up.as_secs_f64());
    Ok(Outcome {
        steady: steady(&link, &conditions, &delivered, headers, framing(subject), steady_part),
        first: delivered.first().map(|at| at - began),
        start_share: early / (conditions.rate as f64 * (1.0 - conditions.loss.share())),
        fullest: fullest_window(&link.forward(whole), conditions.rate, Duration::from_secs(10)),
        lateness: link.lateness(whole),
    })
}

/// Bytes of a full packet that say what its payload is: the fields of a slice, and the head of its stream.
fn framing(subject: Subject) -> u32 {
    if subject != Subject::Holdfast {
        return 0;
    }
    let part = Part { packing: Packing::Raw, crc: u32::MAX, total: 16_384, offset: 8_192, bytes: vec![0] };
    let slice = Slice { epoch: Epoch::FIRST, seq: Seq::FIRST, level: 0, index: 200, part };
    Frame::Slice(slice).encode().len() as u32 - 1 + STREAM_HEAD
}

/// Type, an identifier of two bytes at least and a length of two, less the byte of them that [`Headers`] has.
const STREAM_HEAD: u32 = 4;

/// A file that is longer than the measurement, uploaded while the edge is silent; the start is its first word.
fn holdfast(
    link: &Link,
    conditions: &Conditions,
    plan: impl Fn(Duration) -> Plan,
    delivered: &Delivered<'_>,
    dir: &std::path::Path,
) -> Result<Plan, Error> {
    let mut sites = Sites::found(link, dir, conditions.rate)?;
    sites.restart_silent()?;
    link.set(conditions);
    // More than the link can carry until the end, a late first byte included; in files of the size that the core takes.
    let span = plan(Duration::ZERO);
    let mut bytes =
        (conditions.rate as f64 / 8.0 * ((span.start_up + span.measured).as_secs_f64() * 1.1 + 5.0)) as usize;
    for number in 0.. {
        let part = bytes.min(90_000_000);
        sites.share(&format!("recording-{number}.bin"), &noise(number, part))?;
        bytes -= part;
        if bytes == 0 {
            break;
        }
    }
    sites.wait_captured()?;
    // The schedule of the link begins with the first packet that may leave.
    let plan = plan(link.set(conditions));
    sites.resume()?;
    link.far.run_async(async || {
        let api = Api::new();
        loop {
            let at = link.now();
            let total = api.metric("holdfast_link_received_chunk_bytes_total").await?;
            delivered.total(at, total as u64);
            if delivered.is_measured(plan) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })?;
    Ok(plan)
}

fn note(run: &mut Run, cell: Cell, subject: Subject, span: Duration, outcome: Result<Outcome, Error>) {
    let params = [
        ("kbit/s", json!(cell.rate / 1000)),
        ("loss %", json!(cell.loss)),
        ("rtt ms", json!(cell.rtt)),
        ("seconds", json!(span.as_secs())),
    ];
    let figures = match &outcome {
        Err(e) => vec![("share", Figure::missing(e))],
        Ok(Outcome { steady: None, lateness, .. }) => {
            let why = "nothing was delivered after the start-up";
            vec![("share", Figure::missing(why).unless_late(*lateness))]
        }
        Ok(Outcome { steady: Some(steady), first, start_share, fullest, lateness }) => vec![
            ("share", Figure::from(steady.share).unless_late(*lateness)),
            ("goodput kbit/s", Figure::from(steady.goodput / 1e3)),
            ("redundant", Figure::from(steady.redundant)),
            ("framing", Figure::from(steady.framing)),
            ("acks", Figure::from(steady.acks)),
            ("sent/rate", Figure::from(steady.offered)),
            ("fullest 10 s", Figure::from(*fullest)),
            ("queue p50 ms", Figure::from(steady.queue_ms.0)),
            ("queue p95 ms", Figure::from(steady.queue_ms.1)),
            ("packet B", Figure::from(f64::from(steady.packet))),
            ("first byte s", Figure::from(first.map_or(f64::NAN, |first| first.as_secs_f64()))),
            ("start share", Figure::from(*start_share)),
            ("late p99 ms", Figure::from(lateness.p99_ms)),
            ("late max ms", Figure::from(lateness.max_ms)),
        ],
    };
    run.row("goodput", subject.name(), &params, &figures);
    if subject == Subject::Holdfast {
        let (fullest, steady) = outcome.map_or((None, None), |done| (Some(done.fullest), done.steady));
        let summary = &mut run.bench.summary;
        summary.goodput.insert(cell.name(), steady.as_ref().map(|steady| steady.share));
        let larger = |held: &mut Option<f64>, seen: f64| *held = Some(held.map_or(seen, |held| held.max(seen)));
        if let Some(fullest) = fullest {
            larger(&mut summary.fullest_10s, fullest);
        }
        if let Some(steady) = steady {
            larger(&mut summary.redundant_share, steady.redundant);
            if cell.rate >= 2_000_000 {
                larger(&mut summary.ack_share, steady.acks);
            }
        }
    }
}
