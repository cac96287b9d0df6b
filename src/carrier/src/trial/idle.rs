//! What a link with nothing to say costs.

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
