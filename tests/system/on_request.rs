//! Files that are too large to come unasked: their names cross at once, their bytes when somebody wants them.

use std::time::Duration;

use serde_json::{Value, json};
use toml::Table;

use crate::http::{User, text};
use crate::node::Node;
use crate::world::{Mission, World, enlist, noise, say, share};

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_comes_when_a_reader_or_the_operator_asks_for_it() {
    let mut world = World::start_with_rate("10Mbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    let set = |config: &mut Table| {
        let carrier = config.entry("carrier").or_insert_with(|| Table::new().into());
        carrier.as_table_mut().unwrap().insert("files_on_request_above".to_owned(), "100kB".into());
    };
    world.hub.restart_with(set).await;
    world.follow();
    world.settle(&mission.channels()).await;
    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let body = json!({"user_id": hanna.id});
    world.hub_admin.post(&format!("/channels/{}/members", mission.channel), body).await.unwrap();

    let (map, survey, note) = (noise(11, 400_000), noise(12, 300_000), noise(13, 20_000));
    let (_, map_id) = share(&mission.ben, &mission.channel, "map.bin", &map).await.unwrap();
    let (_, survey_id) = share(&mission.ben, &mission.channel, "survey.bin", &survey).await.unwrap();
    let (_, note_id) = share(&mission.ben, &mission.channel, "note.bin", &note).await.unwrap();
    assert_eq!(arrived(&hanna, &note_id).await, note, "small files come by themselves");
    let seen = until_state(&world.hub, &map_id, "on_request").await;
    assert_eq!((&seen["name"], &seen["bytes"], &seen["requested"]), (&json!("map.bin"), &json!(400_000), &Value::Null));
    assert_eq!((&seen["missing_bytes"], &seen["from"]), (&json!(400_000), &json!("alpha")), "{seen}");
    assert!(seen["eta"]["high_seconds"].as_u64() > Some(0), "{seen}");
    until_state(&world.hub, &survey_id, "on_request").await;

    // They are held, and nobody waits for them.
    let mut held = Value::Null;
    // Progress is looked at once a second.
    for _ in 0..20 {
        held = asked(&world.edge, &["backlog"])["peers"][0].clone();
        if held["no_progress_seconds"].is_null() && held["entries"] == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!((&held["entries"], &held["on_request"]), (&json!(2), &json!(2)), "{held}");
    assert!(held["link_bytes"].as_u64().unwrap() < 10_000, "{held}");
    assert_eq!(held["no_progress_seconds"], Value::Null, "{held}");
    // Clients ask for thumbnails by themselves; nothing comes of it.
    hanna.get(&format!("/files/{map_id}/thumbnail")).await.unwrap_err();
    assert_eq!(asked(&world.hub, &["file", "show", &map_id])["state"], "on_request");

    let refused = hanna.download(&map_id).await.unwrap_err().to_string();
    assert!(refused.contains("not_here_yet"), "{refused}");
    assert_eq!(arrived(&hanna, &map_id).await, map);
    assert_eq!(asked(&world.hub, &["file", "show", &map_id])["state"], "here");
    assert_eq!(asked(&world.hub, &["file", "show", &survey_id])["state"], "on_request", "nobody asked for that one");

    // What the operator asks for survives a restart before it has come.
    world.relay.cut();
    let answer = asked(&world.hub, &["file", "request", &survey_id, "--class", "priority"]);
    assert_eq!((&answer["requested"], &answer["missing_bytes"]), (&json!("priority"), &json!(300_000)), "{answer}");
    world.hub.kill_and_restart().await;
    world.relay.restore();
    world.follow();
    // An idle edge would notice at its next keepalive that the hub began anew.
    say(&mission.ben, &mission.channel, "the link is back").await.unwrap();
    until_state(&world.hub, &survey_id, "here").await;
    world.settle(&mission.channels()).await;
}

/// The file's bytes as soon as they are here.
async fn arrived(user: &User, file: &str) -> Vec<u8> {
    for _ in 0..240 {
        if let Ok(bytes) = user.download(file).await {
            return bytes.to_vec();
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{file} did not arrive within a minute");
}

async fn until_state(node: &Node, file: &str, state: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..240 {
        let answer = node.run(&["file", "show", file, "--json"]);
        last = serde_json::from_slice(&answer.stdout).unwrap_or(Value::Null);
        if text(&last, "state") == state {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{file} is not {state}: {last}");
}

fn asked(node: &Node, words: &[&str]) -> Value {
    let answer = node.run(&[words, &["--json"]].concat());
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {answer:?}"))
}
