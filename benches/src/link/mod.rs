//! What Holdfast and others get out of emulated links, in the same run.
//!
//! ```text
//! scripts/bench link [--case CASE...] --> table on stdout, target/bench/link.json
//! ```
//! A case is a module with one `run(&mut Run)` and a line in [`CASES`]. For each subject it opens a [`emulator::Link`] of its
//! own, so that subjects run side by side without sharing one. Start reading at [`emulator`] for what a link does to packets,
//! at [`sites`] for how Holdfast is started, at [`flow`] for how figures come about.

pub(crate) mod api;
mod flash;
mod flow;
mod goodput;
mod hard;
mod memory;
mod posts;
mod quic;
pub(crate) mod sites;
mod tools;
mod verify;
mod whole;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::report::{Bench, Figure, Scale, tell};

/// One thing that is measured.
struct Case {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Run) -> Result<(), Error>,
}

/// The cases, in the order in which they run.
const CASES: &[Case] = &[
    Case { name: "verify", about: "the emulator against what it was asked for", run: verify::run },
    Case { name: "goodput", about: "steady goodput beside others", run: goodput::run },
    Case { name: "flash", about: "urgent posts behind a large file", run: flash::run },
    Case { name: "posts", about: "bytes on the wire for chat posts", run: posts::run },
    Case { name: "memory", about: "memory of the sending side while it drains", run: memory::run },
    Case { name: "whole", about: "whole small transfers beside others", run: whole::run },
    Case { name: "thin", about: "a backlog at 9.6 kbit/s", run: hard::thin },
    Case { name: "flap", about: "a link that is up and down for 30 s each", run: hard::flap },
];

#[derive(Args)]
pub(crate) struct LinkArgs {
    /// Only this case; may be repeated. All when none is named.
    #[arg(long)]
    case: Vec<String>,
    /// Every cell and long spans, half an hour and more; otherwise the corners, within five minutes.
    #[arg(long)]
    full: bool,
    /// Of `goodput` only this rate, such as `2mbit`; may be repeated.
    #[arg(long, value_parser = rate)]
    rate: Vec<u64>,
    /// Of `goodput` only this loss in per cent, each way; may be repeated.
    #[arg(long)]
    loss: Vec<f64>,
    /// Of `goodput` only this round trip in milliseconds; may be repeated.
    #[arg(long)]
    rtt: Vec<u64>,
    /// Only this subject, such as `holdfast` or `quinn-bbr`; may be repeated.
    #[arg(long)]
    subject: Vec<Subject>,
    /// Measure a steady flow for so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// So many subjects at once.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Seed of what is lost.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench/link.json")]
    out: PathBuf,
    /// Where the sites are made; removed afterwards.
    #[arg(long, default_value = "target/bench/data")]
    dir: PathBuf,
}

/// `2mbit`, `2Mbit/s`, `9600bit` as bits per second.
fn rate(text: &str) -> Result<u64, String> {
    let unit = text.trim_end_matches("/s").to_lowercase().replace("mbit", "Mbit").replace("gbit", "Gbit");
    format!("{unit}/s").parse::<model::BitsPerSecond>().map(|rate| rate.0).map_err(|e| e.to_string())
}

/// Whose transfers are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Subject {
    Holdfast,
    /// Kernel TCP, by iperf3.
    TcpCubic,
    TcpBbr,
    QuinnCubic,
    QuinnBbr,
    /// To a daemon, over TCP.
    RsyncCubic,
    RsyncBbr,
    NncpCubic,
    NncpBbr,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::TcpCubic => "tcp-cubic",
            Self::TcpBbr => "tcp-bbr",
            Self::QuinnCubic => "quinn-cubic",
            Self::QuinnBbr => "quinn-bbr",
            Self::RsyncCubic => "rsync-cubic",
            Self::RsyncBbr => "rsync-bbr",
            Self::NncpCubic => "nncp-cubic",
            Self::NncpBbr => "nncp-bbr",
        }
    }

    /// What TCP uses in its namespaces; always named, since distributions and kernels differ in their default.
    fn congestion(self) -> &'static str {
        match self {
            Self::TcpBbr | Self::RsyncBbr | Self::NncpBbr => "bbr",
            Self::TcpCubic | Self::RsyncCubic | Self::NncpCubic => "cubic",
            // No TCP on the link.
            Self::Holdfast | Self::QuinnCubic | Self::QuinnBbr => "cubic",
        }
    }
}

/// The figures that the targets speak of, of Holdfast; `None` and empty while their case did not run.
#[derive(Default, Serialize)]
pub(crate) struct LinkSummary {
    /// `kbit/loss %/round trip ms`: share of capacity x (1 - loss) after header cost.
    goodput: BTreeMap<String, Option<f64>>,
    /// The largest of all cells.
    redundant_share: Option<f64>,
    /// The largest of all cells at 2 Mbit/s and above.
    ack_share: Option<f64>,
    /// 99th percentile of a flash behind a large file at 1 Mbit/s without loss, less the one-way delay.
    flash_p99_excess_ms: Option<f64>,
    /// Forward bytes per post less headers, 20 at once and alone.
    post_bytes_coalesced: Option<f64>,
    post_bytes_alone: Option<f64>,
    /// IP packets that a lone flash leaves in, before an answer can be back.
    flash_wire_bytes: Option<f64>,
    /// The most that was sent in any 10 s of a goodput cell, over the configured rate.
    fullest_10s: Option<f64>,
    /// Most resident memory of the edge while it drained, MB (10^6 bytes).
    peak_rss_mb: Option<f64>,
    /// Whole transfers: A to C as a share of rate x (1 - loss), D in seconds after the link's return.
    whole: BTreeMap<&'static str, f64>,
}

/// What the cases are given.
pub(crate) struct Run {
    bench: Bench<LinkSummary>,
    args: LinkArgs,
}

impl Run {
    /// The value for this size.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.args.full { full } else { quick }
    }

    /// Those of `all` that were asked for.
    fn subjects(&self, all: &[Subject]) -> Vec<Subject> {
        let asked = &self.args.subject;
        all.iter().filter(|subject| asked.is_empty() || asked.contains(subject)).copied().collect()
    }

    fn row(&mut self, case: &'static str, subject: &str, params: &[(&str, Value)], figures: &[(&'static str, Figure)]) {
        for (unit, figure) in figures {
            self.bench.figure(case, subject, params, figure.clone(), unit);
        }
    }
}

/// Runs what was asked for.
///
/// # Errors
/// When a case is unknown or the file cannot be written. A subject that fails is a row with its reason.
pub(crate) fn link(args: LinkArgs) -> Result<(), Error> {
    if let Some(unknown) = args.case.iter().find(|name| CASES.iter().all(|case| case.name != *name)) {
        let known: Vec<String> = CASES.iter().map(|case| format!("  {:<10} {}", case.name, case.about)).collect();
        return Err(format!("no case `{unknown}`; the cases are:\n{}", known.join("\n")).into());
    }
    if let Err(reason) =
        emulator::Link::open(&emulator::Conditions::new(1_000_000, std::time::Duration::ZERO, 0.0), "cubic", 0)
    {
        tell(&format!("skipped: {reason}"));
        return Ok(());
    }
    let scale = if args.full { Scale::Full } else { Scale::Normal };
    let mut run = Run { bench: Bench::new(scale, &args.dir)?, args };
    for case in CASES {
        if !run.args.case.is_empty() && run.args.case.iter().all(|name| name != case.name) {
            continue;
        }
        tell(&format!("== {}: {}", case.name, case.about));
        (case.run)(&mut run)?;
    }
    run.bench.print();
    run.bench.write(&run.args.out)
}

impl Figure {
    /// The same, marked when the emulator was too late for it to mean anything.
    fn unless_late(self, lateness: emulator::Lateness) -> Self {
        if lateness.is_reliable() { self } else { self.noted("unreliable: packets left the emulator late") }
    }
}

/// Does `work` for every job, at most so many at once, and returns the results in the order of the jobs.
fn side_by_side<J: Sync, R: Send>(jobs: &[J], at_once: usize, work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    let result = work(job);
                    done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(index, result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).into_values().collect()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}
