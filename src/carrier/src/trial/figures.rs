//! What a run shows.

use std::time::Duration;

use model::BitsPerSecond;

use super::Trial;
use super::path::{Counts, HEADERS, Loss, Weather};

/// Of a full datagram: headers of UDP, IPv4 and QUIC with its tag, and of one stream frame.
const OVERHEAD: u64 = HEADERS + 27 + 7;

fn weather(kbit: u64, one_way_ms: u64, loss: Loss) -> Weather {
    Weather {
        rate: BitsPerSecond(kbit * 1_000),
        delay: Duration::from_millis(one_way_ms),
        loss,
        queue: Duration::from_secs(5),
    }
}

/// Shares, each of one.
#[derive(Debug)]
struct Steady {
    /// Of what the link carries after loss and headers.
    goodput: f64,
    /// Sent again although it had arrived.
    redundant: f64,
    /// What flows back.
    acks: f64,
    waited: Duration,
}

/// A transfer without end, measured after the start.
fn steady(configured: BitsPerSecond, weather: Weather, seed: u64) -> Steady {
    let mut trial = Trial::new(configured, weather, weather, seed);
    trial.sites[0].backlog = u64::MAX;
    let packets = |n: u64| Duration::from_secs_f64((n * 9_600) as f64 / weather.rate.0 as f64);
    let warm = Duration::from_secs(10) + 20 * weather.delay + packets(100);
    let long = Duration::from_secs(20).max(packets(4_000)) + 20 * weather.delay;
    trial.run(warm, |_| false);
    let before = Reading::of(&trial);
    trial.run(warm + long, |_| false);
    let after = Reading::of(&trial);

    let full = u64::from(after.mtu) + HEADERS;
    let share = (full - OVERHEAD) as f64 / full as f64;
    let got = (after.delivered - before.delivered) as f64;
    let there = |f: fn(&Counts) -> u64| (f(&after.there) - f(&before.there)) as f64;
    let swallowed = there(|c| c.lost_datagrams + c.overflowed);
    let sent = there(|c| c.sent_datagrams);
    let declared = (after.declared_lost - before.declared_lost) as f64;
    let elapsed = trial.now.min(warm + long) - warm;
    let capacity = weather.rate.0 as f64 / 8.0 * elapsed.as_secs_f64();
    let arrived = capacity * (1.0 - there(|c| c.lost) / there(|c| c.sent).max(1.0));
    Steady {
        goodput: got / (arrived * share),
        redundant: ((declared - swallowed) / sent).max(0.0),
        acks: (after.back.sent - before.back.sent) as f64 / there(|c| c.sent),
        waited: (after.there.waited - before.there.waited).div_f64(sent),
    }
}

struct Reading {
    delivered: u64,
    there: Counts,
    back: Counts,
    declared_lost: u64,
    mtu: u16,
}

impl Reading {
    fn of(trial: &Trial) -> Self {
        let path = trial.sites[0].connection.as_ref().expect("it is connected").1.stats().path;
        Self {
            delivered: trial.sites[1].delivered,
            there: trial.paths[0].counts,
            back: trial.paths[1].counts,
            declared_lost: path.lost_packets + path.lost_plpmtud_probes,
            mtu: path.current_mtu,
        }
    }
}

/// Share of rate x (1 - loss) that `bytes` got, from the first handshake datagram to the last frame.
fn whole(bytes: u64, weather: Weather, loss: f64, seed: u64) -> f64 {
    let mut trial = Trial::new(weather.rate, weather, weather, seed);
    trial.sites[0].backlog = bytes;
    let done = trial.run(Duration::from_secs(3_600), |t| t.sites[1].delivered == bytes);
    assert!(done, "not delivered within an hour");
    let ideal = bytes as f64 * 8.0 / (weather.rate.0 as f64 * (1.0 - loss));
    ideal / trial.sites[1].last_arrival.as_secs_f64()
}

#[test]
fn loss_costs_what_is_lost_and_nothing_more() {
    for (kbit, one_way, loss) in [(256, 50, 0.3), (2_000, 300, 0.2)] {
        let s = steady(BitsPerSecond(kbit * 1_000), weather(kbit, one_way, Loss::Random(loss)), 7);
        assert!(s.goodput >= 0.95 && s.redundant <= 0.02, "{kbit} kbit/s, {loss}: {s:?}");
        assert!(kbit < 2_000 || s.acks <= 0.01, "{kbit} kbit/s, {loss}: {s:?}");
    }
}

#[test]
fn fades_cost_no_more_than_lone_losses() {
    let s = steady(
        BitsPerSecond(1_000_000),
        weather(1_000, 300, Loss::Fades { mean: 0.1, fade: Duration::from_millis(80) }),
        7,
    );
    assert!(s.goodput >= 0.95 && s.redundant <= 0.02, "{s:?}");
}

#[test]
fn a_link_slower_than_configured_is_filled_without_a_standing_queue() {
    for (kbit, one_way, loss) in [(1_000, 300, 0.05), (256, 50, 0.1), (2_000, 40, 0.0)] {
        let s = steady(BitsPerSecond(kbit * 2_500), weather(kbit, one_way, Loss::Random(loss)), 7);
        assert!(s.goodput >= 0.93 && s.redundant <= 0.02, "{kbit} kbit/s, {loss}: {s:?}");
        let few = Duration::from_secs_f64(4.0 * 9_600.0 / (kbit * 1_000) as f64);
        assert!(s.waited <= Duration::from_millis(one_way / 2) + few, "{kbit} kbit/s, {loss}: {s:?}");
    }
}

/// Gone in both directions in these times.
fn cut(trial: &mut Trial, outages: &[(u64, u64)]) {
    let spans = outages.iter().map(|(from, to)| (Duration::from_secs(*from), Duration::from_secs(*to)));
    let spans: Vec<(Duration, Duration)> = spans.collect();
    trial.paths.iter_mut().for_each(|path| path.outages.clone_from(&spans));
}

#[test]
fn a_transfer_is_done_soon_after_the_link_is_back() {
    for seed in 0..5 {
        let link = weather(2_000, 40, Loss::Random(0.1));
        let mut trial = Trial::new(link.rate, link, link, seed);
        cut(&mut trial, &[(3, 33)]);
        trial.sites[0].backlog = 1_500_000;
        let done = trial.run(Duration::from_millis(39_500), |t| t.sites[1].delivered == 1_500_000);
        assert!(done, "seed {seed}: {} bytes", trial.sites[1].delivered);
    }
}

#[test]
fn something_useful_arrives_within_three_seconds_and_two_round_trips_of_the_links_return() {
    for (kbit, one_way, loss) in [(10, 300, 0.05), (256, 300, 0.0), (2_000, 40, 0.1)] {
        let link = weather(kbit, one_way, Loss::Random(loss));
        let mut trial = Trial::new(link.rate, link, link, 2);
        cut(&mut trial, &[(60, 600)]);
        trial.sites[0].backlog = u64::MAX;
        trial.run(Duration::from_secs(600), |_| false);
        let before = trial.sites[1].delivered;
        // A full datagram takes a second at 10 kbit/s, and a probe may have waited behind one.
        let datagrams = Duration::from_secs_f64(3.0 * 9_824.0 / (kbit * 1_000) as f64);
        let end = Duration::from_secs(603) + 4 * link.delay + datagrams;
        assert!(trial.run(end, |t| t.sites[1].delivered > before), "{kbit} kbit/s");
    }
}

#[test]
fn a_link_that_flaps_every_half_minute_is_used_while_it_is_there() {
    let link = weather(256, 300, Loss::Random(0.05));
    let mut trial = Trial::new(link.rate, link, link, 1);
    let outages: Vec<(u64, u64)> = (0..60).map(|n| (60 * n + 30, 60 * n + 60)).collect();
    cut(&mut trial, &outages);
    trial.sites[0].backlog = u64::MAX;
    trial.run(Duration::from_secs(3_600), |_| false);
    let capacity = 256_000.0 / 8.0 * 1_800.0 * 0.95;
    let share = trial.sites[1].delivered as f64 / capacity;
    assert!(share >= 0.85, "{share:.3} of what the link carried while it was there");
}

/// `cargo test -p carrier --release trial::figures::print -- --exact --ignored --nocapture`
#[test]
#[ignore = "prints figures: minutes of computing"]
#[allow(clippy::print_stdout, reason = "this is its purpose")]
fn print() {
    println!("| kbit/s | RTT ms | loss | goodput | redundant | acks | queue ms |");
    for kbit in [256, 2_000, 10_000] {
        for one_way in [50, 300] {
            for loss in [0.0, 0.01, 0.05, 0.1, 0.2, 0.3] {
                let s = steady(BitsPerSecond(kbit * 1_000), weather(kbit, one_way, Loss::Random(loss)), 1);
                println!(
                    "| {kbit} | {} | {:.0} % | {:.3} | {:.4} | {:.4} | {} |",
                    2 * one_way,
                    loss * 100.0,
                    s.goodput,
                    s.redundant,
                    s.acks,
                    s.waited.as_millis()
                );
            }
        }
    }
    print_whole();
}

/// `cargo test -p carrier --release trial::figures::print_whole -- --ignored --nocapture`
#[test]
#[ignore = "prints figures"]
#[allow(clippy::print_stdout, reason = "this is its purpose")]
fn print_whole() {
    for (name, kbit, one_way, loss) in [("A", 256, 300, 0.05), ("B", 2_000, 40, 0.1), ("C", 1_000, 300, 0.2)] {
        for bytes in [400_000, 1_000_000, 1_500_000] {
            let mut shares: Vec<f64> =
                (0..11).map(|s| whole(bytes, weather(kbit, one_way, Loss::Random(loss)), loss, s)).collect();
            shares.sort_by(f64::total_cmp);
            println!("{name} {bytes} B: median {:.3}, worst {:.3}", shares[5], shares[0]);
        }
    }
}
