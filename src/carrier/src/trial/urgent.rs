//! How long a flash post takes behind bulk.

use std::time::Duration;

use model::BitsPerSecond;

use super::Trial;
use super::path::{Loss, Weather};

/// Behind a file without end, one flash post every so often. Returns how much longer than the one-way delay each took,
/// ascending.
fn excesses(kbit: u64, one_way: Duration, loss: f64, posts: u64, seed: u64) -> Vec<Duration> {
    excesses_after(Duration::ZERO, kbit, one_way, loss, posts, seed)
}

/// The same where the link lost nothing for so long.
fn excesses_after(good: Duration, kbit: u64, one_way: Duration, loss: f64, posts: u64, seed: u64) -> Vec<Duration> {
    let rate = BitsPerSecond(kbit * 1_000);
    let weather = Weather { rate, delay: one_way, loss: Loss::Random(loss), queue: Duration::from_secs(5) };
    let before = Weather { loss: Loss::Random(0.0), ..weather };
    let mut trial = Trial::new(rate, before, before, seed);
    trial.sites[0].backlog = 1 << 40;
    trial.run(good, |_| false);
    trial.paths.iter_mut().for_each(|path| path.weather = weather);
    // An odd distance, so that posts meet every phase of the slices.
    let every = Duration::from_micros(1_313_131).max(crate::governor::time_on_link(1_200, rate) * 5);
    let from = good + Duration::from_secs(20) + 20 * one_way + every * 4;
    let at = |n: u64| from + every * u32::try_from(n).expect("a few hundred");
    trial.sites[0].flash.extend((0..posts).map(|n| (n, at(n))));
    trial.run(at(posts) + Duration::from_secs(60), |t| t.sites[1].arrived.len() as u64 == posts);
    let arrived = &trial.sites[1].arrived;
    let mut took: Vec<Duration> = (0..posts).map(|n| (arrived[&n] - at(n)).saturating_sub(one_way)).collect();
    took.sort();
    took
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

/// How long a slice takes: 50 ms of the link, 240 bytes at least, a datagram at most.
fn slice(kbit: u64) -> Duration {
    let bytes = (kbit * 1_000 / 8 / 20).clamp(240, 1_164);
    crate::governor::time_on_link(
        crate::quic::bytes_with_headers(bytes as usize, crate::quic::MTU_FIRST) as u64,
        BitsPerSecond(kbit * 1_000),
    )
}

#[test]
fn flash_waits_for_two_slices_at_most_behind_a_file_without_loss() {
    for (kbit, one_way) in [(1_000, 20), (1_000, 300), (256, 300), (64, 300)] {
        let took = excesses(kbit, Duration::from_millis(one_way), 0.0, 300, 3);
        let (p99, allowed) = (percentile(&took, 99), 2 * slice(kbit) + Duration::from_millis(50));
        assert!(p99 <= allowed, "{kbit} kbit/s, {one_way} ms: {p99:?}, allowed are {allowed:?}");
    }
}

#[test]
fn at_the_slowest_flash_waits_for_slices_and_not_for_full_datagrams() {
    let took = excesses(10, Duration::from_millis(300), 0.0, 300, 3);
    // Behind its own slice and two that have left, a probe or an acknowledgement: less than one full datagram takes.
    let (p99, allowed) = (percentile(&took, 99), 4 * slice(10) + Duration::from_millis(50));
    assert!(p99 <= allowed, "{p99:?}, allowed are {allowed:?}");
}

#[test]
fn copies_spare_flash_the_round_trip_of_a_repetition() {
    for one_way in [50, 300] {
        let one_way = Duration::from_millis(one_way);
        let took = excesses(1_000, one_way, 0.1, 300, 5);
        let p99 = percentile(&took, 99);
        assert!(p99 <= 2 * one_way, "{one_way:?} one way: {p99:?} beyond it, a round trip is allowed");
    }
}

/// Of all that was ever sent, 4 % were lost by then.
#[test]
fn copies_follow_what_a_link_loses_of_late() {
    let one_way = Duration::from_millis(100);
    let took = excesses_after(Duration::from_secs(600), 1_000, one_way, 0.1, 300, 5);
    let p99 = percentile(&took, 99);
    assert!(p99 <= 2 * one_way, "{p99:?} beyond the one way, a round trip is allowed");
}

/// `cargo test -p carrier --release trial::urgent::print -- --exact --ignored --nocapture`
#[test]
#[ignore = "prints figures: a minute of computing"]
#[allow(clippy::print_stdout, reason = "this is its purpose")]
fn print() {
    println!("| kbit/s | one way ms | loss | p50 ms | p99 ms | slice ms |");
    for (kbit, one_way) in [(10, 300), (64, 300), (256, 300), (1_000, 20), (1_000, 50), (1_000, 300), (10_000, 300)] {
        for loss in [0.0, 0.05, 0.1, 0.2, 0.3] {
            let took = excesses(kbit, Duration::from_millis(one_way), loss, 300, 1);
            let (p50, p99) = (percentile(&took, 50).as_millis(), percentile(&took, 99).as_millis());
            println!("| {kbit} | {one_way} | {:.0} % | {p50} | {p99} | {} |", loss * 100.0, slice(kbit).as_millis());
        }
    }
}
