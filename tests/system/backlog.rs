//! `holdfast backlog` and `holdfast why` say what really happens: before, during and after an outage.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::http::{User, text};
use crate::node::Node;
use crate::world::{Mission, World, noise, say, share};

const CONTENT_BYTES: usize = 900_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_the_backlog_is_what_then_happens() {
    let mut world = World::start_with_rate("256kbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    let hub = only_peer(&asked(&world.edge, &["backlog"]));
    assert_eq!((&hub["entries"], &hub["link_bytes"], &hub["stalled"]), (&json!(0), &json!(0), &json!(false)), "{hub}");

    world.relay.cut();
    let routine = say(&mission.anna, &mission.channel, "first words in the outage").await.unwrap();
    let important = say_with(&mission.anna, &mission.channel, "important").await;
    let flash = say_with(&mission.ben, &mission.channel, "urgent").await;
    share(&mission.ben, &mission.channel, "survey.bin", &noise(9, CONTENT_BYTES)).await.unwrap();
    let hub = until_captured(&world.edge).await;
    assert_eq!(hub["entries"], world.edge.status().unwrap()["peers"][0]["outbound"]["held"], "{hub}");
    assert_eq!(hub["eta_from_link_up"], hub["link"] != "up", "{hub}");
    assert_eq!(hub["streams_complete"], true);
    let by_stream: u64 = rows(&hub, "streams").iter().map(|row| row["entries"].as_u64().unwrap()).sum();
    assert_eq!(hub["entries"], by_stream, "{hub}");
    let deferred = class(&hub, "deferred")["plain_bytes"].as_u64().unwrap();
    assert!((CONTENT_BYTES as u64..CONTENT_BYTES as u64 * 11 / 10).contains(&deferred), "{hub}");
    for (post, most_urgent) in [(&flash, true), (&important, false), (&routine, false)] {
        let there = at_hub(&asked(&world.edge, &["why", post]));
        assert!(["waiting", "sent"].contains(&text(&there, "stage").as_str()), "{there}");
        let ahead = there["ahead_entries"].as_u64().unwrap();
        assert_eq!(ahead == 0, most_urgent, "{there}");
    }
    // The journal alone tells the same, less what only the process knows.
    world.edge.kill();
    let offline = asked(&world.edge, &["why", &important]);
    assert_eq!(offline["running"], false);
    let there = at_hub(&offline);
    assert_eq!((&there["stage"], &there["ahead_entries"]), (&json!("waiting"), &json!(1)), "{there}");
    let stopped = only_peer(&asked(&world.edge, &["backlog"]));
    assert_eq!(stopped["entries"], hub["entries"]);
    world.edge.start().await;
    world.follow();

    world.relay.restore();
    let (said_at, said) = until_measured(&world.edge).await;
    while world.edge.held() != Some(0) {
        assert!(said_at.elapsed() < Duration::from_secs(150), "{}", asked(&world.edge, &["backlog"]));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let really = said_at.elapsed().as_secs_f64();
    let of = |name: &str| said["eta"][name].as_f64().unwrap();
    let (low, high) = (of("low_seconds"), of("high_seconds"));
    println!("said {low} to {high} s, took {really:.1} s");
    assert!(really > low / 2.0 - 3.0 && really < high * 2.0 + 5.0, "said {low} to {high} s, took {really:.1} s");

    world.settle(&mission.channels()).await;
    for post in [&flash, &important, &routine] {
        let why = asked(&world.edge, &["why", post]);
        assert_eq!(at_hub(&why)["stage"], "applied", "{why}");
        let seen = asked(&world.hub, &["why", post]);
        assert_eq!(rows(&seen, "entries")[0]["here"], "applied", "{seen}");
    }
    let hub = only_peer(&asked(&world.edge, &["backlog"]));
    assert_eq!((&hub["entries"], &hub["link_bytes"]), (&json!(0), &json!(0)), "{hub}");
}

/// Posts with a priority; returns the id.
pub(crate) async fn say_with(user: &User, channel: &str, priority: &str) -> String {
    let message = json!({"channel_id": channel, "message": format!("an {priority} word"),
        "metadata": {"priority": {"priority": priority}}});
    text(&user.post("/posts", message).await.unwrap(), "id")
}

fn asked(node: &Node, words: &[&str]) -> Value {
    let answer = node.run(&[words, &["--json"]].concat());
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {answer:?}"))
}

fn rows<'a>(of: &'a Value, name: &str) -> &'a Vec<Value> {
    of[name].as_array().unwrap_or_else(|| panic!("no {name} in {of}"))
}

fn only_peer(backlog: &Value) -> Value {
    assert_eq!(rows(backlog, "peers").len(), 1, "{backlog}");
    backlog["peers"][0].clone()
}

fn class(peer: &Value, name: &str) -> Value {
    rows(peer, "classes").iter().find(|row| row["class"] == name).unwrap().clone()
}

/// The first entry about what was asked, at the hub.
fn at_hub(why: &Value) -> Value {
    assert_eq!(
        rows(why, "entries").first().map(|entry| entry["destinations"].as_array().unwrap().len()),
        Some(1),
        "{why}"
    );
    why["entries"][0]["destinations"][0].clone()
}

async fn until_captured(edge: &Node) -> Value {
    for _ in 0..100 {
        let backlog = asked(edge, &["backlog"]);
        let hub = only_peer(&backlog);
        if backlog["capturing"] == 0 && class(&hub, "deferred")["entries"] == 1 {
            return hub;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not captured: {}", asked(edge, &["backlog"]));
}

/// The first word that rests on a measurement, and when it was given.
async fn until_measured(edge: &Node) -> (Instant, Value) {
    for _ in 0..400 {
        let at = Instant::now();
        let hub = only_peer(&asked(edge, &["backlog"]));
        if hub["rate"]["basis"] == "measured" {
            assert!(hub["link_bytes"].as_u64().unwrap() > 0, "{hub}");
            return (at, hub);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("never measured: {}", asked(edge, &["backlog"]));
}
