//! Flash posts behind a large file: from the call of the API at the edge until a reader at the hub is shown the post.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::api::{Api, follow};
use super::sites::{PATIENCE, Sites};
use super::{Run, Subject, noise, side_by_side};
use crate::Error;
use crate::report::{Figure, percentile, tell};
use emulator::Conditions;
use emulator::{Lateness, Link, Span};

const RATE: u64 = 1_000_000;
const ONE_WAY: Duration = Duration::from_millis(100);

/// After the last post; what is not there by then is missing.
const REST: Duration = Duration::from_secs(10);

/// One link's samples.
struct Outcome {
    /// Milliseconds, ascending.
    latencies: Vec<f64>,
    missing: usize,
    /// Was the file still underway at the end?
    behind_file: bool,
    lateness: Lateness,
}

pub(super) fn run(run: &mut Run) -> Result<(), Error> {
    if run.subjects(&[Subject::Holdfast]).is_empty() {
        return Ok(());
    }
    let (samples, gap) = run.pick((300, Duration::from_millis(300)), (300, Duration::from_millis(700)));
    let bytes = run.pick(20_000_000, 90_000_000);
    let (dir, seed) = (run.bench.scratch()?, run.args.seed);
    let losses = [0.0, 10.0];
    let outcomes = side_by_side(&losses, run.args.at_once, |loss| {
        sample(loss / 100.0, samples, gap, bytes, seed, &dir.path().join(format!("{loss}")))
    });
    for (loss, outcome) in losses.iter().zip(outcomes) {
        let params = [
            ("kbit/s", json!(RATE / 1000)),
            ("loss %", json!(loss)),
            ("one-way ms", json!(ONE_WAY.as_millis() as u64)),
            ("file B", json!(bytes)),
        ];
        let Outcome { latencies, missing, behind_file, lateness } = match outcome {
            Ok(outcome) => outcome,
            Err(e) => {
                run.row("flash", "holdfast", &params, &[("p99 ms", Figure::missing(e))]);
                continue;
            }
        };
        let p99 = percentile(&latencies, 99);
        let mut figure = Figure::from(p99).unless_late(lateness);
        if missing > 0 {
            figure = figure.noted(format!("{missing} posts never arrived"));
        }
        if !behind_file {
            figure = figure.noted("the file had arrived before the last post");
        }
        tell(&format!("   {loss} %: p99 {p99:.0} ms of {} posts, {missing} missing", latencies.len()));
        let excess = p99 - ONE_WAY.as_secs_f64() * 1e3;
        let figures = [
            ("p99 ms", figure),
            ("p50 ms", Figure::from(percentile(&latencies, 50))),
            ("p95 ms", Figure::from(percentile(&latencies, 95))),
            ("max ms", Figure::from(latencies.last().copied().unwrap_or(f64::NAN))),
            ("p99 - one-way ms", Figure::from(excess)),
            ("posts", Figure::from(latencies.len() as f64)),
            ("missing", Figure::from(missing as f64)),
            ("late p99 ms", Figure::from(lateness.p99_ms)),
            ("late max ms", Figure::from(lateness.max_ms)),
        ];
        run.row("flash", "holdfast", &params, &figures);
        if *loss == 0.0 && missing == 0 && behind_file {
            run.bench.summary.flash_p99_excess_ms = Some(excess);
        }
    }
    Ok(())
}

fn sample(loss: f64, samples: usize, gap: Duration, bytes: usize, seed: u64, dir: &Path) -> Result<Outcome, Error> {
    std::fs::create_dir(dir)?;
    let link = Link::open(&Conditions::new(100_000_000, Duration::from_millis(1), 0.0), "cubic", seed)?;
    let mut sites = Sites::found(&link, dir, RATE)?;
    sites.restart_silent()?;
    let file = sites.share("imagery.bin", &noise(seed, bytes))?;
    sites.wait_captured()?;
    link.set(&Conditions::new(RATE, ONE_WAY, loss));
    sites.resume()?;
    sites.wait_underway()?;

    let arrived: Mutex<BTreeMap<String, Duration>> = Mutex::default();
    let (ready, listening) = std::sync::mpsc::channel();
    let begins = link.now();
    let listen_for = (gap * 3 / 2 * samples as u32) + REST;
    let (sites, link, seen) = (&sites, &link, &arrived);
    let posted = std::thread::scope(|scope| {
        scope.spawn(move || {
            link.far.run_async(async || {
                let note = |post| {
                    seen.lock().expect("nothing panics while holding it").insert(post, link.now());
                };
                // Nobody waits for it any more when the time for that is over.
                let opened = || ready.send(()).unwrap_or_default();
                // Ends with the time; the socket stays open until then.
                let heard = follow(&sites.reader, opened, note);
                tokio::time::timeout(listen_for, heard).await.unwrap_or(Ok(()))
            })
        });
        listening.recv_timeout(PATIENCE).map_err(|_| "the hub's WebSocket did not open")?;
        sites.edge.at.run_async(async || {
            let (api, mut random) = (Api::new(), ChaCha8Rng::seed_from_u64(seed));
            let mut posted = Vec::new();
            for number in 0..samples {
                tokio::time::sleep(gap.mul_f64(random.random_range(0.5..1.5))).await;
                let text = format!("Contact, grid {:08}, {number} vehicles", random.random_range(0..100_000_000));
                let body = json!({
                    "channel_id": sites.channel, "message": text, "metadata": {"priority": {"priority": "urgent"}},
                });
                let sent = link.now();
                posted.push((api.post(&sites.sender, "/posts", body).await?, sent));
            }
            tokio::time::sleep(REST).await;
            Ok(posted)
        })
    })?;
    let behind_file = !sites.hub_has(&file)?;
    let arrived = arrived.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut latencies: Vec<f64> =
        posted.iter().filter_map(|(post, sent)| Some((*arrived.get(post)? - *sent).as_secs_f64() * 1e3)).collect();
    latencies.sort_by(f64::total_cmp);
    let missing = posted.len() - latencies.len();
    let lateness = link.lateness(Span { from: begins, until: link.now() });
    Ok(Outcome { latencies, missing, behind_file, lateness })
}
