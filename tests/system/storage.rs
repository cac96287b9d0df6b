//! What a node makes of a damaged, doubled or older data directory.

use std::fs;
use std::io::Write;

use crate::world::{Mission, World, noise, say, share};

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_index_of_a_stopped_node_loses_nothing() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    for n in 0..20 {
        say(&mission.anna, &mission.channel, &format!("held {n}")).await.unwrap();
    }
    // Several sealed segments, which are what the index is about.
    share(&mission.ben, &mission.channel, "held.bin", &noise(6, 4_000_000)).await.unwrap();
    world.edge.stop().await;
    world.hub.stop().await;
    for node in [&world.edge, &world.hub] {
        let index = node.index_dir();
        assert!(index.is_dir(), "{} is not where the index is", index.display());
        fs::remove_dir_all(index).unwrap();
    }

    world.hub.start().await;
    world.edge.start().await;
    world.relay.restore();
    let seen = world.settle(&mission.channels()).await;
    let held = seen.values().filter(|o| o["message"].as_str().is_some_and(|m| m.starts_with("held "))).count();
    assert_eq!(held, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_rebuilt_and_said_so() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    share(&mission.ben, &mission.channel, "map.bin", &noise(8, 4_000_000)).await.unwrap();
    world.settle(&mission.channels()).await;
    world.edge.stop().await;
    for file in fs::read_dir(world.edge.index_dir()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        fs::write(file, b"this is no index").unwrap();
    }

    world.edge.start().await;
    let log = world.edge.last_words();
    assert!(log.contains("index") && log.contains("rebuil"), "the rebuild is not mentioned:\n{log}");
    say(&mission.anna.at(world.edge.api_address()), &mission.channel, "after the rebuild").await.unwrap();
    world.settle(&mission.channels()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_journal_tail_is_cut_off_in_a_new_epoch_and_nothing_is_lost() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    say(&mission.anna, &mission.channel, "held over the crash").await.unwrap();
    let before = world.edge.epoch();
    world.edge.kill();
    // What a power cut leaves: a write that was begun and never synced, so never acknowledged.
    let tail = world.edge.newest_segment();
    fs::OpenOptions::new().append(true).open(&tail).unwrap().write_all(&noise(7, 100)).unwrap();

    world.edge.start().await;
    let log = world.edge.last_words();
    assert!(log.contains("torn") || log.contains("discard"), "the torn tail is not mentioned:\n{log}");
    world.relay.restore();
    say(&mission.anna.at(world.edge.api_address()), &mission.channel, "after the crash").await.unwrap();
    let seen = world.settle(&mission.channels()).await;
    for message in ["held over the crash", "after the crash"] {
        assert_eq!(seen.values().filter(|o| o["message"] == message).count(), 1, "{message}");
    }
    assert!(world.edge.epoch() > before, "bytes were discarded, yet the epoch went on");
    world.edge.verify_journal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;

    let second = world.edge.run_a_second().await;
    assert!(!second.status.success(), "two processes shared one data directory");
    let said = String::from_utf8_lossy(&second.stderr).to_lowercase();
    assert!(said.contains("another") || said.contains("already") || said.contains("in use"), "unclear refusal: {said}");

    say(&mission.anna, &mission.channel, "undisturbed").await.unwrap();
    world.settle(&mission.channels()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_snapshot_goes_on_in_a_new_epoch_with_nothing_lost_or_doubled() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    say(&mission.anna, &mission.channel, "before the snapshot").await.unwrap();
    world.settle(&mission.channels()).await;
    world.edge.stop().await;
    let snapshot = world.edge.snapshot();
    world.edge.start().await;
    let anna = mission.anna.at(world.edge.api_address());
    let overwritten = say(&anna, &mission.channel, "after the snapshot").await.unwrap();
    world.settle(&mission.channels()).await;
    let before = world.edge.epoch();

    world.edge.stop().await;
    world.edge.restore(&snapshot);
    world.edge.start().await;
    world.follow();
    let anna = mission.anna.at(world.edge.api_address());
    let fresh = say(&anna, &mission.channel, "after the restore").await.unwrap();
    assert_ne!(fresh, overwritten, "an id was given out twice");

    world.nothing_is_held().await;
    for (id, message) in [(&overwritten, "after the snapshot"), (&fresh, "after the restore")] {
        let post = world.hub_admin.get(&format!("/posts/{id}")).await.unwrap_or_else(|e| panic!("{message}: {e}"));
        assert_eq!(post["message"], message);
    }
    let at_the_hub = crate::compare::posts(&world.hub_admin, &mission.channel).await.unwrap();
    for message in ["before the snapshot", "after the snapshot", "after the restore"] {
        assert_eq!(at_the_hub.iter().filter(|p| p["message"] == message).count(), 1, "{message}");
    }
    assert!(world.edge.epoch() > before, "a restored node must not go on in the old numbering");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_node_cleanly_and_what_it_held_is_there_afterwards() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    say(&mission.anna, &mission.channel, "held").await.unwrap();
    let held = world.edge.held().unwrap();
    assert!(held > 0);
    let before = world.edge.epoch();

    world.edge.stop().await;
    world.edge.start().await;
    assert_eq!(world.edge.held(), Some(held));
    assert_eq!(world.edge.epoch(), before, "a clean stop needs no new epoch");
    world.relay.restore();
    world.settle(&mission.channels()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_one_identity_are_named_and_the_one_that_stays_loses_nothing() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.edge.stop().await;
    let snapshot = world.edge.snapshot();
    world.edge.start().await;
    world.edge.connected().await;

    let mut twin = world.edge.twin(&snapshot);
    twin.start().await;
    let clone = "two machines use this node's identity";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !(world.edge.complains_of(clone) || twin.complains_of(clone)) {
        assert!(tokio::time::Instant::now() < deadline, "nobody noticed: {}", world.edge.status().unwrap_or_default());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let anna = mission.anna.at(world.edge.api_address());
    let written = say(&anna, &mission.channel, "written while a twin was about").await.unwrap();

    twin.stop().await;
    world.edge.stop().await;
    world.edge.start().await;
    world.follow();
    world.nothing_is_held().await;
    let post = world.hub_admin.get(&format!("/posts/{written}")).await.unwrap();
    assert_eq!(post["message"], "written while a twin was about");
}
