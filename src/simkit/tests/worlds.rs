//! Many worlds, each from one seed: what is safe at every moment, and what is whole once the trouble ends.
//!
//! `HOURS=10000 cargo test --release -p simkit --test worlds outage_matrix -- --nocapture` for a long run;
//! `SEED=n` repeats one world of each test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::BitsPerSecond;
use simkit::{History, Loss, Weather, World, seeds};

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Links as field teams have them, towards the hub and back.
fn links() -> [(Weather, Weather); 6] {
    let fair = |rate| Weather::fair(BitsPerSecond(rate));
    let millis = Duration::from_millis;
    let hf = Weather { loss: Loss::Bursts { good: 60.0, bad: 6.0 }, jitter: millis(800), ..fair(9_600) };
    let radio = Weather { delay: millis(60), jitter: millis(40), loss: Loss::Random(0.1), ..fair(256_000) };
    let satellite = Weather { loss: Loss::Random(0.01), ..fair(2_000_000) };
    let mobile = Weather { delay: millis(40), jitter: millis(200), loss: Loss::Random(0.3), ..fair(1_000_000) };
    let bonded = Weather { doubled: 0.2, jitter: millis(1_500), loss: Loss::Random(0.05), ..fair(64_000) };
    let thin_return = Weather { loss: Loss::Random(0.2), ..fair(2_400) };
    [(hf, hf), (radio, radio), (satellite, satellite), (mobile, mobile), (bonded, bonded), (satellite, thin_return)]
}

/// How long links are up and down on average.
fn outages() -> [Option<(Duration, Duration)>; 5] {
    [
        None,
        Some((secs(30), secs(30))),
        Some((minutes(2), minutes(3))),
        Some((minutes(10), minutes(60))),
        Some((secs(5), minutes(10))),
    ]
}

/// Worlds that are lived through however fast their hours pass.
const WORLDS_MIN: u64 = 240;

fn edges_of(seed: u64) -> usize {
    1 + seed as usize / 2 % 3
}

fn world_of(seed: u64) -> World {
    let (links, outages) = (links(), outages());
    let n = seed as usize;
    let (up, down) = links[n % links.len()];
    let mut world = World::with_edges(seed, edges_of(seed)).weather(up, down);
    if let Some((up, down)) = outages[n / links.len() % outages.len()] {
        world = world.outages(up, down);
    }
    // Every kind of trouble alone, in pairs, and all together.
    let kinds = n / 5;
    if kinds & 1 != 0 {
        world = world.crashes(minutes(6));
    }
    if kinds & 2 != 0 {
        world = world.full_disks(minutes(15));
    }
    if kinds & 4 != 0 {
        world = world.clock_steps(minutes(10));
    }
    if kinds & 8 != 0 {
        world = world.restores(minutes(25));
    }
    world
}

/// Runs a world to its end. Returns its link-hours and what it went through.
fn live(seed: u64) -> (f64, History) {
    let mut world = world_of(seed);
    world.capture(120);
    for _ in 0..6 {
        world.run_for(minutes(10));
        world.assert_safe();
    }
    world.heal_and_settle();
    world.assert_all_arrived_once_and_in_order();
    (world.elapsed().as_secs_f64() / 3_600.0 * edges_of(seed) as f64, world.history())
}

/// As many worlds as it takes for so many link-hours, at least 240, on all processors.
#[test]
#[allow(clippy::print_stdout, clippy::disallowed_methods, reason = "tells how fast the simulator is")]
fn outage_matrix() {
    if std::env::var("SEED").is_ok() {
        for seed in seeds(1) {
            live(seed);
        }
        return;
    }
    let hours: f64 = std::env::var("HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(300.0);
    let (started, next) = (Instant::now(), AtomicU64::new(0));
    let sum = Mutex::new((0.0, History::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= WORLDS_MIN && sum.lock().unwrap().0 >= hours {
                return;
            }
            let (link_hours, history) = live(seed);
            let mut sum = sum.lock().unwrap();
            *sum = (sum.0 + link_hours, sum.1 + history);
        }
    };
    std::thread::scope(|scope| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a world failed, see above"));
    });
    let (link_hours, sum) = *sum.lock().unwrap();
    let speed = link_hours * 3_600.0 / started.elapsed().as_secs_f64();
    println!("{link_hours:.0} link-hours, {speed:.0} simulated link-seconds per second; {sum:?}");
    assert!(sum.crashes > 0 && sum.restores > 0 && sum.stalls > 0 && sum.clock_steps > 0, "{sum:?}");
}

#[test]
fn every_change_takes_effect_once_and_in_order_however_bad_the_link() {
    let mut crashes = 0;
    for seed in seeds(100) {
        let weather = Weather { loss: Loss::Random(0.2), ..Weather::fair(BitsPerSecond(64_000)) };
        let mut world = World::new(seed).weather_both(weather).outages(minutes(2), minutes(3)).crashes(minutes(2));
        world.capture(60);
        world.run_for(minutes(15));
        world.heal_and_settle();
        world.assert_all_arrived_once_and_in_order();
        crashes += world.history().crashes;
    }
    assert!(crashes > 0, "no power was cut");
}

#[test]
fn a_link_that_flaps_every_few_seconds_still_carries_everything() {
    for seed in seeds(20) {
        let weather = Weather { delay: Duration::from_millis(100), ..Weather::fair(BitsPerSecond(256_000)) };
        let mut world = World::new(seed).weather_both(weather).outages(secs(4), secs(1));
        world.capture(60);
        world.run_for(minutes(8));
        world.heal_and_settle();
        world.assert_all_arrived_once_and_in_order();
    }
}

#[test]
fn a_link_slower_than_its_setting_still_carries_everything() {
    for seed in seeds(20) {
        let weather = Weather { loss: Loss::Random(0.05), ..Weather::fair(BitsPerSecond(9_600)) };
        let mut world = World::new(seed).weather_both(weather).configured_rate(BitsPerSecond(1_000_000));
        world.capture(60);
        world.run_for(minutes(8));
        world.heal_and_settle();
        world.assert_all_arrived_once_and_in_order();
    }
}

#[test]
fn a_week_without_a_link_is_made_up_for() {
    let mut world =
        World::new(1).weather_both(Weather::fair(BitsPerSecond(9_600))).outages(secs(1), minutes(7 * 24 * 60));
    world.capture(200);
    world.run_for(minutes(7 * 24 * 60));
    world.heal_and_settle();
    world.assert_all_arrived_once_and_in_order();
}
