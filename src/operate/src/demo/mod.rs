//! `holdfast demo`: a mission crosses an outage, in one process, in two minutes.
//!
//! ```text
//!  script --HTTP--> edge site --UDP--> relay (rate, delay, loss, switch) --UDP--> hub site <--HTTP-- script
//!                       ^------------------- compare, report, page -------------------^
//! ```
//!
//! Invariants
//! - Everything is asked for through the doors that users have: the HTTP API, the WebSocket and the sites' own figures.
//! - Nothing leaves the loopback, and nothing is left behind: the sites live in a temporary directory.
//! - The run passes only if both sides show the same objects, nothing is held, and nothing took effect twice.
//!
//! Not here: starting a site in earnest (`edge`, `hub`).
//! Start reading at [`run`]; the course of events is in `story`, what people write is data in `script`.

mod client;
mod compare;
mod local;
mod page;
mod relay;
mod report;
mod script;
mod story;
mod watch;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use model::BitsPerSecond;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::output;

pub use client::ApiError;
pub use report::{Ledger, LinkFacts, PerDirection, Report, Waiting};

/// What to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rate of the link in each direction, e.g. 9600bit/s or 2Mbit/s
    #[arg(long, default_value = "256kbit/s", value_name = "RATE")]
    pub rate: BitsPerSecond,
    /// Propagation delay one way, e.g. 300ms or 1s
    #[arg(long, default_value = "300ms", value_name = "TIME")]
    pub delay: Delay,
    /// Share of datagrams that the link loses at random
    #[arg(long, default_value = "5%", value_name = "PERCENT")]
    pub loss: Loss,
    /// Decides what is written and which datagrams are lost
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write less, with a file of 200 kB
    #[arg(long)]
    pub quick: bool,
    /// Print one JSON object at the end and nothing else
    #[arg(long)]
    pub json: bool,
    /// Keep both sites running with a local page that shows them, until interrupted
    #[arg(long)]
    pub hold: bool,
    /// Where the page listens, on the loopback; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS", requires = "hold")]
    pub page: SocketAddr,
}

/// A one-way delay: `300ms` or `2s`, at most ten seconds (the moon is 1.3 s away).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub Duration);

/// A share of datagrams: `5%` or `0.5%`, at most 90 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss(pub f64);

/// Text that is no delay or no loss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {wanted}")]
pub struct BadSetting {
    text: String,
    wanted: &'static str,
}

impl FromStr for Delay {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        const DELAY_MAX: Duration = Duration::from_secs(10);
        let millis = match text.strip_suffix("ms") {
            Some(number) => number.parse().ok(),
            None => text.strip_suffix('s').and_then(|number| number.parse::<u64>().ok()?.checked_mul(1_000)),
        };
        millis
            .map(Duration::from_millis)
            .filter(|delay| *delay <= DELAY_MAX)
            .map(Self)
            .ok_or_else(|| BadSetting { text: text.to_owned(), wanted: "delay such as `300ms` or `2s`, up to 10s" })
    }
}

impl FromStr for Loss {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        percent
            .filter(|percent| (0.0..=90.0).contains(percent))
            .map(|percent| Self(percent / 100.0))
            .ok_or_else(|| BadSetting { text: text.to_owned(), wanted: "share such as `5%`, up to 90%" })
    }
}

/// One end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The tactical site.
    Edge,
    /// The enterprise site.
    Hub,
}

impl Side {
    /// Both, edge first.
    const BOTH: [Self; 2] = [Self::Edge, Self::Hub];

    /// The one across the link.
    fn other(self) -> Self {
        match self {
            Self::Edge => Self::Hub,
            Self::Hub => Self::Edge,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Hub => "hub",
        })
    }
}

/// Why the demo could not show what it is to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum DemoError {
    /// A site or the link between them did not start.
    #[error("the {what} did not start: {reason}; nothing outside the demo's temporary directory was touched")]
    Start { what: &'static str, reason: String },
    /// A scripted call failed.
    #[error("the mission stopped: {0}; the demo's own data is discarded")]
    Api(#[from] ApiError),
    /// An object did not cross the link.
    #[error("{path} did not arrive at the {side} within {} s; it is still held at the other side", waited.as_secs())]
    NotArrived { side: Side, path: String, waited: Duration },
    /// The backlog did not drain.
    #[error("{held} entries are still held {} s after the link came back; nothing is lost", waited.as_secs())]
    NotSettled { held: u64, waited: Duration },
    /// A site's figures could not be read.
    #[error("the {side}'s figures cannot be read: {reason}")]
    Figures { side: Side, reason: String },
    /// The page's address cannot be used.
    #[error("the page cannot listen on {address}: {reason}; the sites were not started")]
    Page { address: SocketAddr, reason: String },
    /// Ctrl-C.
    #[error("interrupted; the demo's own data is discarded")]
    Interrupted,
}

impl DemoError {
    /// What the operator should do, shown by the CLI.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Start { .. } => "check that the temporary directory has 200 MB free and that 127.0.0.1 can be used",
            Self::Api(_) | Self::Figures { .. } => "run again with RUST_LOG=debug and report what is logged",
            Self::NotArrived { .. } | Self::NotSettled { .. } => {
                "try a faster --rate or less --loss; with RUST_LOG=debug the link says what it waits for"
            }
            Self::Page { .. } => "choose a free port on the loopback with --page 127.0.0.1:PORT",
            Self::Interrupted => "run it again; nothing of it was kept",
        }
    }
}

/// The two sites under the demo, as far as it looks inside them.
trait Sites: Send + Sync {
    /// Where a site's HTTP API listens.
    fn api(&self, side: Side) -> SocketAddr;

    /// The equation of what `from` accepted for the other side.
    fn ledger(&self, from: Side) -> Result<Ledger, DemoError>;

    /// What waits at `from` for the other side, by class; classes with nothing waiting are left out.
    fn backlog(&self, from: Side) -> Result<Vec<Waiting>, DemoError>;

    /// What a site's core exports of itself for comparison.
    fn stored(&self, side: Side) -> Result<serde_json::Value, DemoError>;

    /// Tells both sites that the link has another rate, as an operator would.
    fn set_rate(&self, rate: BitsPerSecond) -> Result<(), DemoError>;
}

/// Shows the whole story and tells how it went.
///
/// # Errors
/// When it could not be played to its end. A story with a bad end (sides that differ) is a [`Report`] that did not pass.
pub async fn run(options: Options) -> Result<Report, DemoError> {
    let console = Console { for_people: !options.json, started: Instant::now() };
    let controls = relay::Controls { up: true, rate: options.rate, delay: options.delay.0, loss: options.loss.0 };
    let page = if options.hold { Some(page::Page::bind(options.page).await?) } else { None };
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let local = Arc::new(local::start(controls, options.seed, &mut tasks, &stop).await?);
    let outcome = tokio::select! {
        // A held demo that is interrupted has told its story: its report comes before the interruption.
        biased;
        outcome = story::tell(&options, console, page, &local, &mut tasks, &stop) => outcome,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    if let Some(local) = Arc::into_inner(local) {
        local.stop().await;
    }
    outcome
}

/// Completes on Ctrl-C or SIGTERM. Cancel-safe.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            // Without a handler the signal ends the process as it always does.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// Prints what a person watches; with `--json` nothing.
#[derive(Clone, Copy)]
struct Console {
    for_people: bool,
    started: Instant,
}

impl Console {
    fn say(&self, text: &str) {
        if self.for_people {
            output::line(format!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            options: Options,
        }
        <Cli as clap::Parser>::try_parse_from(["demo"].iter().chain(arguments)).map(|cli| cli.options)
    }

    #[test]
    fn the_default_link_is_the_one_of_the_manual() {
        let options = options(&[]).unwrap();
        assert_eq!(options.rate, BitsPerSecond(256_000));
        assert_eq!(options.delay, Delay(Duration::from_millis(300)));
        assert_eq!(options.loss, Loss(0.05));
    }

    #[test]
    fn settings_without_a_unit_or_out_of_range_are_refused() {
        for bad in [["--delay", "300"], ["--delay", "11s"], ["--loss", "0.05"], ["--loss", "91%"], ["--rate", "256"]] {
            assert!(options(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_page_address_makes_sense_only_while_holding() {
        assert!(options(&["--page", "127.0.0.1:8000"]).is_err());
        assert!(options(&["--hold", "--page", "127.0.0.1:8000"]).is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_quick_mission_crosses_an_outage_and_both_sides_are_equal() {
        let arguments = ["--quick", "--json", "--rate", "10Mbit/s", "--delay", "10ms", "--loss", "2%"];
        let report = run(options(&arguments).unwrap()).await.unwrap();
        assert!(report.passed(), "{}", report.to_text());
        assert!(report.total.accepted > 50);
        assert_eq!(report.total.withheld, 0);
        assert!(report.wire_bytes_up > 0 && report.wire_bytes_down > 0 && report.api_bytes > 0);
    }
}
