//! The journal's own verbs, beside a running node and without one; damage as an operator meets it.

use std::fs;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::node::Node;
use crate::world::{Mission, World, noise, say, share};

/// Runs a verb that has to end well, and reads its answer.
fn answer(node: &Node, args: &[&str], schema: &str) -> Value {
    let done = node.run(&[args, &["--json"]].concat());
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&done.stderr));
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"));
    assert_eq!(value["schema"], schema, "{args:?}: {value}");
    value
}

fn entries(node: &Node) -> Vec<Value> {
    let done = node.run(&["journal", "list", "--limit", "10000", "--json"]);
    assert!(done.status.success());
    String::from_utf8_lossy(&done.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every verb of the journal, in the node's present state.
fn every_verb_works(node: &Node, state: &str) {
    let listed = entries(node);
    assert!(!listed.is_empty(), "{state}");
    let place = listed[0]["pos"].to_string();
    answer(node, &["journal", "show", &place], "holdfast.entry/1");
    let verified = answer(node, &["journal", "verify"], "holdfast.verify/1");
    assert_eq!(verified["clean"], true, "{state}: {verified}");
    let stats = answer(node, &["journal", "stats"], "holdfast.journal-stats/1");
    assert!(stats["segments"].as_u64() > Some(1), "{state}: {stats}");
    let plan = answer(node, &["journal", "trim", "--dry-run"], "holdfast.trim/1");
    assert_eq!(plan["dry_run"], true, "{state}: {plan}");
    let kept = answer(node, &["journal", "quarantine", "list"], "holdfast.quarantine-list/1");
    assert_eq!(kept["places"].as_array().map(Vec::len), Some(0), "{state}: {kept}");

    let lines = node.run(&["journal", "export"]);
    let lines = String::from_utf8_lossy(&lines.stdout).lines().count();
    assert_eq!(lines, listed.len(), "{state}");
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    let to = ["journal", "export", "--raw", "--output", bundle.to_str().unwrap()];
    assert!(node.run(&to).status.success(), "{state}");
    let bytes = fs::read(&bundle).unwrap();
    assert!(bytes.starts_with(b"HOLDFBUN"));
    let refused = node.run(&to);
    assert!(!refused.status.success(), "{state}: a file was written over");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("exists"), "{state}");
    assert_eq!(fs::read(&bundle).unwrap(), bytes);

    let scrubbed = answer(node, &["journal", "scrub"], "holdfast.scrub/1");
    assert!(scrubbed["clean"] == true && scrubbed["segments"].as_u64() > Some(0), "{state}: {scrubbed}");
    let index = answer(node, &["journal", "rebuild-index"], "holdfast.index/1");
    assert_eq!(index["segments"], scrubbed["segments"], "{state}");
    answer(node, &["journal", "quarantine", "retry", "all"], "holdfast.quarantine-done/1");
    answer(node, &["journal", "quarantine", "skip", "all"], "holdfast.quarantine-done/1");
    let wrong = node.run(&["journal", "quarantine", "skip", "00000009-9"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("next step:"), "{state}");
    let trimmed = answer(node, &["journal", "trim"], "holdfast.trim/1");
    assert_eq!(trimmed["dry_run"], false, "{state}: {trimmed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_of_the_journal_works_while_the_node_runs_and_while_it_does_not() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.relay.cut();
    say(&mission.anna, &mission.channel, "held").await.unwrap();
    // Several sealed segments; nothing of them may be trimmed while it is held.
    share(&mission.ben, &mission.channel, "held.bin", &noise(3, 4_000_000)).await.unwrap();
    captured(&world.edge).await;
    every_verb_works(&world.edge, "running");
    world.edge.stop().await;
    every_verb_works(&world.edge, "stopped");
    // A write that was cut short is told from damage.
    let tail = world.edge.newest_segment();
    fs::OpenOptions::new().append(true).open(&tail).unwrap().write_all(&noise(7, 100)).unwrap();
    let verified = world.edge.run(&["journal", "verify"]);
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && said.contains("torn tail"), "{said}");

    world.edge.start().await;
    world.relay.restore();
    world.settle(&mission.channels()).await;
}

/// Waits until everything that was written is in the journal.
async fn captured(node: &Node) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let pending = node.status().and_then(|status| status["capture_pending_rows"].as_u64());
        if pending == Some(0) {
            return;
        }
        assert!(Instant::now() < deadline, "rows are not captured: {pending:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_by_the_scrub_named_and_given_up_by_the_operator_and_the_rest_arrives() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    for n in 0..10 {
        say(&mission.anna, &mission.channel, &format!("held {n}")).await.unwrap();
    }
    share(&mission.ben, &mission.channel, "held.bin", &noise(4, 4_000_000)).await.unwrap();
    captured(&world.edge).await;
    world.edge.stop().await;
    let all = entries(&world.edge);
    let newest = all.iter().filter_map(|entry| entry["segment"].as_u64()).max().unwrap();
    let posts = all.iter().filter(|entry| entry["kind"] == "post" && entry["segment"].as_u64() < Some(newest));
    let victim = posts.clone().next_back().expect("a post in a sealed segment");
    let segment = victim["segment"].as_u64().unwrap();
    let path = world.edge.newest_segment().with_file_name(format!("{segment:08}.seg"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[victim["offset"].as_u64().unwrap() as usize + 20] ^= 1;
    fs::write(&path, bytes).unwrap();

    world.edge.start().await;
    let found = world.edge.run(&["journal", "scrub", "--json"]);
    assert_eq!(found.status.code(), Some(3), "{}", String::from_utf8_lossy(&found.stdout));
    let listed = world.edge.run(&["journal", "quarantine", "list", "--json"]);
    assert_eq!(listed.status.code(), Some(3));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let [place] = listed["places"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !world.edge.complains_of("damaged places are kept aside") {
        assert!(Instant::now() < deadline, "the damage is no alarm: {:?}", world.edge.status());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let done = answer(
        &world.edge,
        &["journal", "quarantine", "skip", place["name"].as_str().unwrap()],
        "holdfast.quarantine-done/1",
    );
    assert_eq!(done["entries"], 1, "{done}");
    world.relay.restore();
    let deadline = Instant::now() + Duration::from_secs(120);
    while world.edge.held() != Some(0) {
        assert!(Instant::now() < deadline, "something waits for what is lost: {}", world.edge.equation());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let equation = world.edge.equation();
    assert_eq!(equation["quarantined"], 1, "{equation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_older_than_the_core_beside_it_is_noticed_and_said() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.edge.stop().await;
    let snapshot = world.edge.snapshot();
    world.edge.start().await;
    let anna = mission.anna.at(world.edge.api_address());
    say(&anna, &mission.channel, "captured after the copy was made").await.unwrap();
    captured(&world.edge).await;
    assert!(!world.edge.complains_of("older than the mission core"));
    world.edge.stop().await;
    world.edge.restore_journal(&snapshot);
    world.edge.start().await;
    assert!(world.edge.complains_of("older than the mission core"), "{:?}", world.edge.status());
    assert!(world.edge.logged("older than the mission core"));
}
