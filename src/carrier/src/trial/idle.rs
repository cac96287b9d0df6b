//! What a link with nothing to say costs, and how silent one may be that works.

use std::time::Duration;

use model::BitsPerSecond;
use wire::Frame;

use super::path::{Loss, Weather};
use super::talk::Talk;
use super::{CONTROL, Trial};
use crate::idle;
use crate::settings::LaneKind;

const DELAY: Duration = Duration::from_millis(300);

/// Two sessions that have greeted each other and have nothing more to say.
fn greeted(kbit: u64, loss: f64, seed: u64) -> Trial {
    let rate = BitsPerSecond(kbit * 1_000);
    let weather = Weather { rate, delay: DELAY, loss: Loss::Random(loss), queue: Duration::from_secs(5) };
    let mut trial = Trial::new(rate, weather, weather, seed);
    (trial.sites[0].talk, trial.sites[1].talk) = (Some(Talk::new(1, 2)), Some(Talk::new(2, 1)));
    trial.run(Duration::from_secs(300), |_| false);
    trial
}

/// Bytes of both directions so far, with headers.
fn bytes(trial: &Trial) -> u64 {
    trial.paths.iter().map(|path| path.counts.sent).sum()
}

/// Bytes that both directions together take in an hour in which the dialling side says now and then that it is there. It is the
/// second such hour: in the first, QUIC finds out how large datagrams may be.
fn hour(kbit: u64, loss: f64, every: Option<Duration>, seed: u64) -> u64 {
    let mut trial = greeted(kbit, loss, seed);
    let spent = [1, 2].map(|_| {
        let before = bytes(&trial);
        speak(&mut trial, every);
        bytes(&trial) - before
    });
    spent[1]
}

fn speak(trial: &mut Trial, every: Option<Duration>) {
    let end = trial.now + Duration::from_secs(3_600);
    let mut spoke = trial.instant();
    while let Some(due) = idle::due(every, spoke, spoke).filter(|due| *due < trial.base + end) {
        trial.run(due - trial.base, |_| false);
        spoke = due;
        let now = trial.now;
        trial.sites[0].send_frame(shaper::Lane::Control, Frame::KeepAlive.encode().into(), CONTROL, false, now);
        trial.settle(0);
    }
    trial.run(end, |_| false);
}

#[test]
fn an_idle_link_takes_less_than_200_bytes_a_minute_up_to_a_loss_of_a_tenth() {
    let every = Some(Duration::from_secs(idle::seconds_by_default(LaneKind::Quic).into()));
    for (kbit, loss) in [(9, 0.0), (64, 0.0), (64, 0.1), (10_000, 0.0), (10_000, 0.1)] {
        for seed in 1..=4 {
            let a_minute = hour(kbit, loss, every, seed) / 60;
            assert!((50..200).contains(&a_minute), "{kbit} kbit/s, {loss}, {seed}: {a_minute} bytes a minute");
        }
    }
}

#[test]
fn a_link_without_signs_of_life_emits_nothing_for_a_month_and_works_at_once_after_it() {
    let mut trial = greeted(64, 0.0, 1);
    let before = bytes(&trial);
    assert_eq!(idle::due(idle::agreed(0, 60), trial.instant(), trial.instant()), None);
    let month = trial.now + Duration::from_secs(30 * 86_400);
    trial.run(month, |_| false);
    assert_eq!((bytes(&trial) - before, trial.now), (0, month));
    if let Some(edge) = &mut trial.sites[0].talk {
        edge.share(&[7; 2_000]);
    }
    trial.settle(0);
    assert!(trial.run(month + Duration::from_secs(20), |t| t.sites[1].talk.as_ref().is_some_and(|hub| hub.files == 1)));
    // The file, the question for its chunk, the chunk: three times one way, and what they take on the link.
    let took = trial.now - month;
    assert!(took <= 4 * DELAY, "{took:?}");
}

/// The longest that an end has waited for any sign of the other, in parts of what it would have waited before it took the link for
/// dead.
#[derive(Default)]
struct Silence {
    heard: u64,
    was_waiting: bool,
    since: Duration,
    longest: f64,
}

impl Silence {
    fn note(&mut self, trial: &Trial) {
        let site = &trial.sites[0];
        let Some((_, connection)) = site.connection.as_ref().filter(|_| site.greeted || site.talk.is_some()) else {
            return;
        };
        let (stats, waiting) = (connection.stats(), !site.unconfirmed.is_empty());
        if stats.udp_rx.datagrams != self.heard || (waiting && !self.was_waiting) {
            self.since = trial.now;
        }
        (self.heard, self.was_waiting) = (stats.udp_rx.datagrams, waiting);
        let patience = idle::patience(stats.path.rtt, site.rate.pace());
        if waiting {
            self.longest = self.longest.max((trial.now - self.since).as_secs_f64() / patience.as_secs_f64());
        }
    }
}

#[test]
fn a_thin_link_that_works_is_never_silent_for_as_long_as_a_dead_one() {
    for (configured, loss) in [(9_600, 0.0), (9_600, 0.05), (9_600, 0.3), (38_400, 0.05)] {
        for seed in 1..=3 {
            let (rate, configured) = (BitsPerSecond(9_600), BitsPerSecond(configured));
            let weather = Weather { rate, delay: DELAY, loss: Loss::Random(loss), queue: Duration::from_secs(5) };
            let mut trial = Trial::new(configured, weather, weather, seed);
            trial.sites[0].backlog = u64::MAX;
            let mut silence = Silence::default();
            trial.run(Duration::from_secs(1_800), |trial| {
                silence.note(trial);
                false
            });
            assert!(silence.longest < 0.9, "{configured:?}, {loss}, {seed}: {:.2}", silence.longest);
        }
    }
}

/// With a queue of four seconds each way that nobody knows of.
#[test]
fn whoever_is_asked_over_a_thin_link_that_others_fill_has_the_time_to_answer() {
    for seed in 1..=4 {
        let mut trial = greeted(9, 0.05, seed);
        let mut silence = Silence::default();
        for _ in 0..30 {
            let now = trial.now;
            for (path, seconds) in trial.paths.iter_mut().zip([4, 8]) {
                // The answer finds what is left after the way there.
                path.is_filled(now, Duration::from_secs(seconds));
            }
            trial.sites[0].send_frame(shaper::Lane::Control, Frame::KeepAlive.encode().into(), CONTROL, false, now);
            trial.settle(0);
            trial.run(now + Duration::from_secs(120), |trial| {
                silence.note(trial);
                false
            });
        }
        assert!((0.3..0.9).contains(&silence.longest), "{seed}: {:.2}", silence.longest);
    }
}
