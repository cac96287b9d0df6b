//! What chat posts cost on the wire, packets and their headers included; `scripts/bench posts` counts frames alone.

use std::path::Path;
use std::time::Duration;

use model::Event;
use serde_json::json;

use super::api::Api;
use super::flow::Headers;
use super::sites::Sites;
use super::{Run, Subject};
use crate::Error;
use crate::corpus::Chat;
use crate::report::{Figure, tell};
use emulator::{Conditions, Passage};
use emulator::{Lateness, Link, Span};

/// Slow enough that a burst of posts waits for the link, as on the links where bytes count.
const RATE: u64 = 16_000;
const ONE_WAY: Duration = Duration::from_millis(150);

/// After a post or a burst, until everything that belongs to it has crossed.
const REST: Duration = Duration::from_secs(3);

/// What one way of posting cost, per post.
struct Cost {
    /// Everything forwards, IP packets.
    wire: f64,
    /// The same less headers.
    payload: f64,
    /// Everything backwards.
    back: f64,
    /// What left before an answer could have come.
    first: f64,
    packets: f64,
    posts: usize,
}

/// How posts are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone,
    ByTwenty,
    Flash,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::ByTwenty => "20 at once",
            Self::Flash => "flash alone",
        }
    }
}

pub(super) fn run(run: &mut Run) -> Result<(), Error> {
    if run.subjects(&[Subject::Holdfast]).is_empty() {
        return Ok(());
    }
    let rounds = run.pick(2, 20);
    let dir = run.bench.scratch()?;
    let (costs, lateness) = match measure(rounds, run.args.seed, dir.path()) {
        Ok(measured) => measured,
        Err(e) => {
            run.row("posts", "holdfast", &[], &[("wire B", Figure::missing(e))]);
            return Ok(());
        }
    };
    for (way, cost) in costs {
        tell(&format!("   {}: {:.0} B on the wire, {:.0} B of payload", way.name(), cost.wire, cost.payload));
        let params = [("posted", json!(way.name())), ("posts", json!(cost.posts))];
        let figures = [
            ("wire B", Figure::from(cost.wire).unless_late(lateness)),
            ("payload B", Figure::from(cost.payload)),
            ("first packets B", Figure::from(cost.first)),
            ("packets", Figure::from(cost.packets)),
            ("back B", Figure::from(cost.back)),
        ];
        run.row("posts", "holdfast", &params, &figures);
        let summary = &mut run.bench.summary;
        match way {
            Way::Alone => summary.post_bytes_alone = Some(cost.payload),
            Way::ByTwenty => summary.post_bytes_coalesced = Some(cost.payload),
            Way::Flash => summary.flash_wire_bytes = Some(cost.first),
        }
    }
    Ok(())
}

fn measure(rounds: usize, seed: u64, dir: &Path) -> Result<(Vec<(Way, Cost)>, Lateness), Error> {
    let link = Link::open(&Conditions::new(100_000_000, Duration::from_millis(1), 0.0), "cubic", seed)?;
    let sites = Sites::found(&link, dir, RATE)?;
    let began = link.set(&Conditions::new(RATE, ONE_WAY, 0.0));
    let (mut chat, _) = Chat::begin(seed);
    let mut costs = Vec::new();
    for (way, posts) in [(Way::Alone, 1), (Way::ByTwenty, 20), (Way::Flash, 1)] {
        // The first of each kind teaches the history, on which the others build.
        let mut cost = Cost { wire: 0.0, payload: 0.0, back: 0.0, first: 0.0, packets: 0.0, posts: 0 };
        for round in 0..=rounds {
            let seen = write(&link, &sites, &mut chat, way, posts)?;
            if round > 0 {
                seen.add_to(&mut cost);
                cost.posts += posts;
            }
        }
        let each = |sum: f64| sum / cost.posts as f64;
        cost = Cost {
            wire: each(cost.wire),
            payload: each(cost.payload),
            back: each(cost.back),
            first: each(cost.first),
            packets: each(cost.packets),
            posts: cost.posts,
        };
        costs.push((way, cost));
    }
    Ok((costs, link.lateness(Span { from: began, until: link.now() })))
}

/// The packets of one post or burst.
struct Seen {
    forward: Vec<Passage>,
    back: Vec<Passage>,
}

impl Seen {
    fn add_to(&self, cost: &mut Cost) {
        let sum = |passages: &[Passage]| passages.iter().map(|passage| f64::from(passage.bytes)).sum::<f64>();
        let wire = sum(&self.forward);
        let answered = self.forward.first().map_or(Duration::ZERO, |first| first.at + ONE_WAY * 2);
        let first: Vec<Passage> = self.forward.iter().filter(|passage| passage.at < answered).copied().collect();
        cost.wire += wire;
        cost.payload += wire - self.forward.len() as f64 * f64::from(Headers::Quic.bytes());
        cost.back += sum(&self.back);
        cost.first += sum(&first);
        cost.packets += self.forward.len() as f64;
    }
}

fn write(link: &Link, sites: &Sites<'_>, chat: &mut Chat, way: Way, posts: usize) -> Result<Seen, Error> {
    let texts: Vec<String> = std::iter::repeat_with(|| chat.post())
        .filter_map(|event| if let Event::Post(post) = event { Some(post.message) } else { None })
        .take(posts)
        .collect();
    let from = link.now();
    sites.edge.at.run_async(async || {
        let api = Api::new();
        let calls = texts.iter().map(|text| {
            let mut body = json!({"channel_id": sites.channel, "message": text});
            if way == Way::Flash {
                body["metadata"] = json!({"priority": {"priority": "urgent"}});
            }
            api.post(&sites.sender, "/posts", body)
        });
        for answer in futures_util::future::join_all(calls).await {
            answer?;
        }
        tokio::time::sleep(REST).await;
        Ok(())
    })?;
    let span = Span { from, until: link.now() };
    Ok(Seen { forward: link.forward(span), back: link.back(span) })
}
