//! Spilled content goes from everything that the processes keep, on both sides.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::node::Node;
use crate::world::{Mission, SETTLE_TIME_MAX, World, edit, noise, react, reply, say, share};

const SPILL: &str = "the courier meets at grid 38SMB4595 at first light";

/// Files below the directory that hold the bytes.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        // What goes while it is looked for is gone; the admin socket is no file.
        } else if fs::read(&path).is_ok_and(|read| read.windows(bytes.len()).any(|w| w == bytes)) {
            found.push(path);
        }
    }
    found
}

fn json(node: &Node, args: &[&str]) -> (bool, Value) {
    let done = node.run(args);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{said}"));
    (done.status.success(), value)
}

/// Waits until the newest order is carried out here and at the peer.
async fn done(node: &Node) -> Value {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    loop {
        let (done, purges) = json(node, &["purge", "status", "--json"]);
        if done {
            return purges["purges"][0].clone();
        }
        assert!(Instant::now() < deadline, "not carried out: {purges}\n{}", node.last_words());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_post_with_edits_and_a_file_is_in_no_file_of_either_node() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let (anna, channel) = (&mission.anna, mission.channel.as_str());
    let content = noise(11, 1_500_000);
    let (post, file) = share(anna, channel, "courier-plan.bin", &content).await.unwrap();
    edit(anna, &post, SPILL).await.unwrap();
    edit(anna, &post, &format!("{SPILL}, or an hour later")).await.unwrap();
    react(anna, &post, "eyes").await.unwrap();
    let answer = reply(&mission.ben, channel, &post, "understood").await.unwrap();
    say(anna, channel, "before").await.unwrap();
    world.settle(&mission.channels()).await;
    let probes: [&[u8]; 4] = [SPILL.as_bytes(), b"an hour later", &content[700_000..700_080], b"courier-plan"];
    for node in [&world.edge, &world.hub] {
        for probe in probes {
            let found = holding(&node.data_dir(), probe);
            assert!(!found.is_empty(), "{} is there to be found", String::from_utf8_lossy(probe));
        }
    }

    // Not agreed to, nothing happens.
    let (_, would) = json(&world.edge, &["purge", &post, "--reason", "spilled", "--json"]);
    assert_eq!((would["ordered"].as_bool(), would["files"][0]["id"].as_str()), (Some(false), Some(file.as_str())));
    assert_eq!(would["posts"][0]["replies"], 1);
    assert!(!holding(&world.hub.data_dir(), SPILL.as_bytes()).is_empty());

    world.relay.cut();
    let ordered = world.edge.run(&["purge", &post, "--reason", "spilled", "--by", "s2", "--yes"]);
    let said = String::from_utf8_lossy(&ordered.stdout).into_owned();
    assert_eq!(ordered.status.code(), Some(3), "it waits for the hub: {said}");
    assert!(said.contains("waiting"), "{said}");
    let status = world.edge.status().unwrap();
    let problems = status["problems"].to_string();
    assert!(problems.contains("purge"), "health says that an order waits: {problems}");
    world.relay.restore();

    let order = done(&world.edge).await;
    assert_eq!((order["by"].as_str(), order["nodes"][0]["state"].as_str()), (Some("s2"), Some("done")));
    let at_hub = done(&world.hub).await;
    assert_eq!((at_hub["id"].as_str(), at_hub["origin"].as_str()), (order["id"].as_str(), Some("alpha")));
    for round in 0..2 {
        for node in [&world.edge, &world.hub] {
            for probe in probes {
                let found = holding(&node.data_dir(), probe);
                assert!(found.is_empty(), "round {round}: {}: {found:?}", String::from_utf8_lossy(probe));
            }
            node.verify_journal();
        }
        if round == 0 {
            for node in [&mut world.edge, &mut world.hub] {
                node.stop().await;
                node.start().await;
            }
        }
    }
    world.follow();
    let seen = world.settle(&mission.channels()).await;
    assert!(seen.contains_key(&format!("post/{answer}")), "the reply stays");
    let spilled = seen.get(&format!("post/{post}")).and_then(|o| o["message"].as_str());
    assert!(spilled.is_none_or(str::is_empty), "{spilled:?}");
    say(&mission.anna.at(world.edge.api_address()), &mission.channel, "after").await.unwrap();
    world.settle(&mission.channels()).await;
}
