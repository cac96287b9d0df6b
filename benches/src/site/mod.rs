//! One box as it is meant to be used: millions of posts, everybody online, beside a real Mattermost server.
//!
//! ```text
//!  corpus (kept) --> server <-- 1,000 sockets, 250 users --> rows: target/bench/core.json
//!     mission         ours, peer         load
//! ```
//! Start reading at [`core`]; what users do is in [`load`], how the corpus comes into each server in [`ours`] and [`peer`].

mod load;
mod mission;
mod ours;
mod peer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use self::load::{Crowd, Deed, Target, Timings};
use self::mission::Plan;
use self::ours::Ours;
use self::peer::Given;
use crate::Error;
use crate::report::{Bench, Figure, Scale, tell};

const CASE: &str = "core";

/// Sockets of one user: a handful of devices and windows.
const SOCKETS_EACH: usize = 4;

/// What the run took of `HOLDFAST_MATTERMOST`.
#[derive(Args)]
pub(crate) struct CoreArgs {
    /// Few posts and users, served by this program: shows that it runs, measures nothing worth reading.
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// Longer runs.
    #[arg(long)]
    pub(crate) full: bool,
    /// Posts before the run.
    #[arg(long)]
    pub(crate) posts: Option<u64>,
    /// Only this server, `holdfast` or `mattermost`.
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench/core.json")]
    pub(crate) out: PathBuf,
    /// Where the corpus is kept between runs: some gigabytes. Must be on the disk that is to be measured.
    #[arg(long, default_value = "target/bench/data")]
    pub(crate) dir: PathBuf,
}

/// The figures of one server.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) posts: u64,
    pub(crate) sockets: u64,
    /// Of 32 who post as fast as they are answered.
    pub(crate) create_per_s: f64,
    /// At the pace of people, as all of these.
    pub(crate) create_p50_ms: f64,
    pub(crate) create_p99_ms: f64,
    pub(crate) channel_p50_ms: f64,
    pub(crate) channel_p99_ms: f64,
    pub(crate) search_p50_ms: f64,
    pub(crate) search_p99_ms: f64,
    /// After everything, in 10^6 bytes.
    pub(crate) rss_mb: Option<f64>,
}

/// Both servers; absent what did not run.
#[derive(Default, Serialize)]
pub(crate) struct CoreSummary {
    pub(crate) holdfast: Option<Figures>,
    pub(crate) mattermost: Option<Figures>,
}

/// Runs it and writes what was found.
///
/// # Errors
/// When a server does not start or take the corpus. That it is slow is no error.
pub(crate) fn core(args: &CoreArgs) -> Result<(), Error> {
    let scale = match (args.quick, args.full) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Full,
        _ => Scale::Normal,
    };
    let plan = Plan {
        posts: args.posts.unwrap_or(scale.pick(3_000, 2_000_000, 2_000_000)),
        users: scale.pick(10, 250, 250),
        channels: scale.pick(5, 40, 40),
    };
    let wanted = |name: &str| args.subject.as_deref().is_none_or(|subject| subject == name);
    let given = Given::read()?.filter(|_| wanted("mattermost"));
    let mut bench: Bench<CoreSummary> = Bench::new(scale, &args.dir)?;
    let runtime = tokio::runtime::Runtime::new()?;
    // Without a way into its database the server has fewer posts, and then both have.
    let plan = Plan { posts: plan.posts.min(given.as_ref().map_or(u64::MAX, Given::posts_max)), ..plan };
    if wanted("holdfast") {
        let ours = Ours::start(&args.dir, plan, scale == Scale::Quick)?;
        bench.summary.holdfast = Some(runtime.block_on(measure(&mut bench, ours.target()))?);
    }
    match given {
        Some(given) => match runtime.block_on(beside(&mut bench, &given, &args.dir, plan)) {
            Ok(figures) => bench.summary.mattermost = Some(figures),
            // What was measured of the other took half an hour.
            Err(e) => bench.figure(CASE, "mattermost", &[], Figure::missing(e), "per s"),
        },
        None => bench.figure(CASE, "mattermost", &[], Figure::missing("HOLDFAST_MATTERMOST names no server"), "per s"),
    }
    bench.print();
    bench.write(&args.out)
}

async fn beside(bench: &mut Bench<CoreSummary>, given: &Given, dir: &Path, plan: Plan) -> Result<Figures, Error> {
    let target = given.start(dir, plan).await?;
    tell(&format!("mattermost: version {}", peer::version(&target.at, &target.users[0]).await?));
    measure(bench, Arc::new(target)).await
}

async fn measure(bench: &mut Bench<CoreSummary>, target: Arc<Target>) -> Result<Figures, Error> {
    let span = Duration::from_secs(bench.scale.pick(2, 60, 300));
    // Else two seconds are over before somebody searches.
    let haste = bench.scale.pick(60, 1, 1);
    let name = target.name;
    tell(&format!("{name}: {} users, {SOCKETS_EACH} sockets each", target.users.len()));
    let crowd = Crowd::gather(Arc::clone(&target), SOCKETS_EACH).await?;
    let rows = |bench: &mut Bench<CoreSummary>, deed: Deed, pace: &str, timings: &Timings| {
        let params: [(&str, Value); 4] = [
            ("posts", target.plan.posts.into()),
            ("users", target.plan.users.into()),
            ("deed", deed.name().into()),
            ("pace", pace.into()),
        ];
        let failed = (timings.failed > 0).then(|| format!("{} of {} failed", timings.failed, timings.done));
        let rate = Figure::from(timings.per_second);
        bench.figure(CASE, name, &params, failed.into_iter().fold(rate, Figure::noted), "per s");
        bench.row(CASE, name, &params, timings.p50_ms, "p50 ms");
        bench.row(CASE, name, &params, timings.p99_ms, "p99 ms");
    };
    // Not measured: what is read for the first time since a start.
    crowd.live(span / 6, haste).await;
    tell(&format!("{name}: at the pace of people"));
    let (_, before) = crowd.sockets();
    let living = crowd.live(span, haste).await;
    let (open, after) = crowd.sockets();
    for (deed, timings) in Deed::ALL.into_iter().zip(&living) {
        rows(bench, deed, "people", timings);
    }
    let of_sockets: [(&str, Value); 3] =
        [("posts", target.plan.posts.into()), ("users", target.plan.users.into()), ("pace", "people".into())];
    bench.row(CASE, name, &of_sockets, open as f64, "sockets");
    bench.row(CASE, name, &of_sockets, (after - before) as f64 / span.as_secs_f64(), "frames/s");
    let mut created = 0.0;
    for deed in Deed::ALL {
        tell(&format!("{name}: {} as fast as it goes", deed.name()));
        let timings = crowd.rush(deed, span / 3).await;
        rows(bench, deed, "rush", &timings);
        if deed == Deed::CreatePost {
            created = timings.per_second;
        }
    }
    let rss_mb = target.memory_mb();
    let memory = rss_mb.map_or_else(|| Figure::missing("its processes are not told apart here"), Figure::from);
    bench.figure(CASE, name, &of_sockets, memory, "RSS MB");
    let [create, channel, search] = living;
    Ok(Figures {
        posts: target.plan.posts,
        sockets: open,
        create_per_s: created,
        create_p50_ms: create.p50_ms,
        create_p99_ms: create.p99_ms,
        channel_p50_ms: channel.p50_ms,
        channel_p99_ms: channel.p99_ms,
        search_p50_ms: search.p50_ms,
        search_p99_ms: search.p99_ms,
        rss_mb,
    })
}
