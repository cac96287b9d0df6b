//! Many worlds, each from one seed: what is safe at every moment, and what is whole once the trouble ends.
//!
//! `HOURS=10000 cargo test --release -p simkit --test worlds outage_matrix -- --nocapture` for a long run;
//! `SEED=n` repeats one world of each test.

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

fn world_of(seed: u64) -> World {
    let (links, outages) = (links(), outages());
    let n = seed as usize;
    let (up, down) = links[n % links.len()];
    let mut world = World::with_edges(seed, 1 + n / 2 % 3).weather(up, down);
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

#[test]
#[allow(clippy::print_stdout, clippy::disallowed_methods, reason = "tells how fast the simulator is")]
fn outage_matrix() {
    let hours: f64 = std::env::var("HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(300.0);
    let (mut link_hours, mut sum, mut count) = (0.0, History::default(), 0);
    let started = Instant::now();
    let tried: Box<dyn Iterator<Item = u64>> = match std::env::var("SEED") {
        Ok(_) => Box::new(seeds(1).into_iter()),
        Err(_) => Box::new(0..),
    };
    for seed in tried {
        if count >= 240 && link_hours >= hours {
            break;
        }
        let mut world = world_of(seed);
        world.capture(120);
        for _ in 0..6 {
            world.run_for(minutes(10));
            world.assert_safe();
        }
        world.heal_and_settle();
        world.assert_all_arrived_once_and_in_order();
        link_hours += world.elapsed().as_secs_f64() / 3_600.0 * (1 + seed as usize / 2 % 3) as f64;
        let history = world.history();
        sum.crashes += history.crashes;
        sum.restores += history.restores;
        sum.stalls += history.stalls;
        sum.clock_steps += history.clock_steps;
        sum.changes += history.changes;
        count += 1;
    }
    let speed = link_hours * 3_600.0 / started.elapsed().as_secs_f64();
    println!("{count} worlds, {link_hours:.0} link-hours, {speed:.0} simulated link-seconds per second; {sum:?}");
    if count > 1 {
        assert!(sum.crashes > 0 && sum.restores > 0 && sum.stalls > 0 && sum.clock_steps > 0, "{sum:?}");
    }
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
