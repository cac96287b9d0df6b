//! Many worlds, each from one seed.

use std::time::Duration;

use model::BitsPerSecond;
use simkit::{World, seeds};

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[test]
fn every_change_takes_effect_once_and_in_order_however_bad_the_link() {
    let mut crashes = 0;
    for seed in seeds(100) {
        let mut world =
            World::new(seed).edge("alpha").hub("bravo").loss(0.2).outages(minutes(2), minutes(3)).crashes(minutes(2));
        world.capture(60);
        world.run_for(minutes(15));
        world.heal_and_settle();
        world.assert_all_arrived_once_and_in_order();
        crashes += world.crash_count();
    }
    assert!(crashes > 0, "no power was cut");
}

#[test]
fn a_link_that_flaps_every_few_seconds_still_carries_everything() {
    for seed in seeds(20) {
        let mut world = World::new(seed)
            .rate(BitsPerSecond(256_000))
            .delay(Duration::from_millis(100))
            .outages(Duration::from_secs(4), Duration::from_secs(1));
        world.capture(60);
        world.run_for(minutes(8));
        world.heal_and_settle();
        world.assert_all_arrived_once_and_in_order();
    }
}

#[test]
fn a_week_without_a_link_is_made_up_for() {
    let mut world = World::new(1).rate(BitsPerSecond(9_600)).outages(Duration::from_secs(1), minutes(7 * 24 * 60));
    world.capture(200);
    world.run_for(minutes(7 * 24 * 60));
    world.heal_and_settle();
    world.assert_all_arrived_once_and_in_order();
}
