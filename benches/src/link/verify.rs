//! The emulator against what it was asked for, measured from outside with plain UDP: rate, delay, loss.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;

use super::{Run, side_by_side};
use crate::Error;
use crate::report::Figure;
use emulator::{Conditions, Loss};
use emulator::{FAR, Lateness, Link, NEAR, Span, hurry};

const PORT: u16 = 7000;

/// Bytes of the probes' headers: IPv4 and UDP.
const HEADERS: usize = 28;

/// What arrived: number, when sent, when received, bytes of its IP packet.
struct Arrival {
    sent: Duration,
    received: Duration,
    bytes: usize,
}

pub(super) fn run(run: &mut Run) -> Result<(), Error> {
    let seed = run.args.seed;
    let ms = Duration::from_millis;
    // Loss needs many packets: of 40,000 at 10 % three deviations are 4.5 % of the share, of 100,000 less than 3 %.
    let packets = run.pick(30_000, 120_000);
    let jobs = [(256_000, ms(50)), (2_000_000, ms(300)), (10_000_000, ms(50))];
    let saturated = side_by_side(&jobs, run.args.at_once, |(rate, delay)| saturate(*rate, *delay, seed));
    for ((rate, delay), outcome) in jobs.iter().zip(saturated) {
        let params = [("kbit/s", json!(rate / 1000)), ("one-way ms", json!(delay.as_millis() as u64))];
        let figures = match outcome {
            Err(e) => vec![("rate", Figure::missing(&e))],
            Ok((carried, delayed, lateness)) => vec![
                ("rate", Figure::from(carried).unless_late(lateness)),
                ("delay", Figure::from(delayed)),
                ("late p99 ms", Figure::from(lateness.p99_ms)),
                ("late max ms", Figure::from(lateness.max_ms)),
            ],
        };
        run.row("verify", "emulator", &params, &figures);
    }
    for loss in [Loss::Random(0.1), Loss::Random(0.3), Loss::Bursts { share: 0.1, length: 5.0 }] {
        let name = match loss {
            Loss::Random(share) => format!("{share} random"),
            Loss::Bursts { share, length } => format!("{share} in bursts of {length}"),
        };
        let figures = match lose(loss, packets, seed) {
            Err(e) => vec![("loss", Figure::missing(&e))],
            Ok((lost, lateness)) => vec![
                ("loss", Figure::from(lost).unless_late(lateness)),
                ("late p99 ms", Figure::from(lateness.p99_ms)),
                ("late max ms", Figure::from(lateness.max_ms)),
            ],
        };
        run.row("verify", "emulator", &[("loss asked", json!(name)), ("packets", json!(packets))], &figures);
    }
    Ok(())
}

/// Sends half as much again as the link carries for 6 s, then single packets: the rate that arrived over the rate
/// asked for, and the delay of the single packets over the delay asked for with their own time on the link.
fn saturate(rate: u64, delay: Duration, seed: u64) -> Result<(f64, f64, Lateness), Error> {
    let conditions = Conditions::new(rate, delay, 0.0);
    let link = Link::open(&conditions, "cubic", seed)?;
    let payload = 1_200;
    let gap = conditions.time_of((payload + HEADERS) as u64 * 2 / 3);
    let flooded = Duration::from_secs(6);
    let count = flooded.as_nanos() / gap.as_nanos();
    let flood = probe(&link, payload, gap, count as usize, delay + Duration::from_secs(2))?;
    // From the second on: the first fills the queue.
    let arrived: Vec<&Arrival> = flood.iter().skip(flood.len() / 6).collect();
    let (first, last) = arrived.first().zip(arrived.last()).ok_or("nothing arrived")?;
    let bytes: usize = arrived[1..].iter().map(|arrival| arrival.bytes).sum();
    let carried = bytes as f64 * 8.0 / (last.received - first.received).as_secs_f64() / rate as f64;

    let single = probe(&link, 100, Duration::from_millis(20), 100, delay + Duration::from_secs(1))?;
    let own = conditions.time_of(100 + HEADERS as u64);
    let mean: f64 =
        single.iter().map(|arrival| (arrival.received - arrival.sent).as_secs_f64()).sum::<f64>() / single.len() as f64;
    let lateness = link.lateness(Span::ALWAYS);
    Ok((carried, mean / (delay + own).as_secs_f64(), lateness))
}

/// Sends packets one by one over a lossy link; the share that was lost over the share asked for.
fn lose(loss: Loss, packets: usize, seed: u64) -> Result<(f64, Lateness), Error> {
    let conditions = Conditions { loss, ..Conditions::new(20_000_000, Duration::from_millis(20), 0.0) };
    let link = Link::open(&conditions, "cubic", seed)?;
    let arrived = probe(&link, 72, Duration::from_micros(100), packets, Duration::from_millis(500))?;
    let lost = 1.0 - arrived.len() as f64 / packets as f64;
    let lateness = link.lateness(Span::ALWAYS);
    Ok((lost / loss.share(), lateness))
}

/// Sends numbered datagrams from near to far, one per `gap`, and waits for `rest` after the last. Both ends run before
/// everything else, as the emulator does, so that not they are measured.
fn probe(link: &Link, payload: usize, gap: Duration, count: usize, rest: Duration) -> Result<Vec<Arrival>, Error> {
    std::thread::scope(|scope| {
        let (ready, listening) = std::sync::mpsc::channel();
        let receiving = scope.spawn(move || {
            link.far.run(|| {
                hurry();
                let socket = UdpSocket::bind((FAR, PORT))?;
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                ready.send(())?;
                let (mut arrivals, mut buffer) = (Vec::new(), [0; 2048]);
                let until = link.now() + gap * count as u32 + rest;
                while link.now() < until {
                    let Ok(length) = socket.recv(&mut buffer) else { continue };
                    let stamp: [u8; 8] = buffer[..8].try_into().expect("eight bytes of eight");
                    let sent = Duration::from_nanos(u64::from_be_bytes(stamp));
                    arrivals.push(Arrival { sent, received: link.now(), bytes: length + HEADERS });
                }
                Ok(arrivals)
            })
        });
        link.near.run(move || {
            hurry();
            let socket = UdpSocket::bind((NEAR, 0))?;
            listening.recv()?;
            let mut datagram = vec![0; payload];
            let begins = link.now();
            for number in 0..count {
                let due = begins + gap * number as u32;
                // Sleeping oversleeps; packets that are due together then leave together, which the link does not mind.
                while let Some(wait) = due.checked_sub(link.now()).filter(|wait| !wait.is_zero()) {
                    pause(wait);
                }
                datagram[..8].copy_from_slice(&(link.now().as_nanos() as u64).to_be_bytes());
                socket.send_to(&datagram, (FAR, PORT))?;
            }
            Ok(())
        })?;
        receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[allow(clippy::disallowed_methods, reason = "probes keep their distance")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asserted holds on a machine that is busy: nothing arrives early, and nothing is lost that should not be.
    #[test]
    fn a_link_delays_and_carries_datagrams_between_its_namespaces() {
        let conditions = Conditions::new(1_000_000, Duration::from_millis(40), 0.0);
        let link = match Link::open(&conditions, "cubic", 1) {
            Ok(link) => link,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let arrivals = probe(&link, 100, Duration::from_millis(5), 20, Duration::from_secs(1)).unwrap();
        assert_eq!(arrivals.len(), 20);
        let earliest = Duration::from_millis(40) + conditions.time_of(128);
        assert!(arrivals.iter().all(|arrival| arrival.received - arrival.sent >= earliest));
        let seen = link.forward(Span::ALWAYS);
        assert!(seen.iter().all(|passage| passage.bytes == 128), "the namespaces talk by themselves");
    }
}
