//! What happens while the link is away, and when it comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::http::text;
use crate::world::{Mission, World, edit, enlist, noise, reply, say, share};

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_go_on_through_an_outage_and_end_equal_also_on_the_same_post() {
    let mut world = World::start_with_rate("2Mbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let disputed = say(&mission.anna, &mission.channel, "bridge is intact").await.unwrap();
    world.settle(&mission.channels()).await;
    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let body = json!({"user_id": hanna.id});
    world.hub_admin.post(&format!("/channels/{}/members", mission.channel), body).await.unwrap();
    world.settle(&mission.channels()).await;

    world.relay.cut();
    for n in 0..25 {
        let post = say(&mission.anna, &mission.channel, &format!("edge {n}")).await.unwrap();
        reply(&mission.ben, &mission.channel, &post, &format!("seen {n}")).await.unwrap();
        say(&hanna, &mission.channel, &format!("hub {n}")).await.unwrap();
    }
    share(&mission.ben, &mission.channel, "photo.bin", &noise(4, 200_000)).await.unwrap();
    edit(&mission.anna, &disputed, "bridge is damaged").await.unwrap();
    edit(&world.hub_admin, &disputed, "bridge is destroyed").await.unwrap();
    assert!(world.edge.held().unwrap() > 0, "nothing is held during an outage");
    world.relay.restore();

    let seen = world.settle(&mission.channels()).await;
    assert_eq!(
        seen[&format!("post/{disputed}")]["message"],
        "bridge is destroyed",
        "the later edit wins on both sides"
    );
    let messages: Vec<&str> = seen.values().filter_map(|o| o["message"].as_str()).collect();
    let unique: BTreeSet<&&str> = messages.iter().filter(|m| m.starts_with("edge ") || m.starts_with("hub ")).collect();
    assert_eq!(unique.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_online_at_the_hub_during_the_outage_sees_every_late_post() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let body = json!({"user_id": hanna.id});
    world.hub_admin.post(&format!("/channels/{}/members", mission.channel), body).await.unwrap();
    world.settle(&mission.channels()).await;

    let mut screen = hanna.listen().await;
    let before = say(&hanna, &mission.channel, "last word before the outage").await.unwrap();
    let marker = world.hub_admin.get(&format!("/posts/{before}")).await.unwrap()["update_at"].as_i64().unwrap();
    world.relay.cut();
    let mut late = BTreeSet::new();
    for n in 0..40 {
        late.insert(say(&mission.anna, &mission.channel, &format!("late {n}")).await.unwrap());
    }
    world.relay.restore();

    let mut unseen = late.clone();
    while !unseen.is_empty() {
        let post = screen.next_post().await;
        unseen.remove(&text(&post, "id"));
    }
    // A client that was away asks for what changed since its last sight; late posts must be among it
    // although they were written earlier.
    let path = format!("/channels/{}/posts?since={marker}", mission.channel);
    let answer = hanna.get(&path).await.unwrap();
    let posts = answer["posts"].as_object().unwrap();
    let missed: Vec<&String> = late.iter().filter(|id| !posts.contains_key(*id)).collect();
    assert!(missed.is_empty(), "`since=` hides late posts: {missed:?}");
    world.settle(&mission.channels()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_message_passes_a_file_that_was_queued_first() {
    let mut world = World::start_with_rate("256kbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let body = json!({"user_id": hanna.id});
    world.hub_admin.post(&format!("/channels/{}/members", mission.channel), body).await.unwrap();
    let mut screen = hanna.listen().await;

    // 1.5 MB at 256 kbit/s take about 47 s.
    share(&mission.ben, &mission.channel, "bulk.bin", &noise(5, 1_500_000)).await.unwrap();
    let message = json!({"channel_id": mission.channel, "message": "contact north",
        "metadata": {"priority": {"priority": "urgent"}}});
    let urgent = text(&mission.anna.post("/posts", message).await.unwrap(), "id");
    let sent = tokio::time::Instant::now();
    while screen.next_post().await["id"] != urgent.as_str() {}
    let took = sent.elapsed();
    assert!(took < Duration::from_secs(10), "the urgent message took {took:?} behind a bulk file");
    assert!(world.edge.held().unwrap() > 0, "the file should still be on its way");
    world.settle(&mission.channels()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_emits_nothing_and_catches_up_when_it_may_speak() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;

    world.edge.silence();
    world.hub.silence();
    world.relay_is_quiet().await;
    say(&mission.anna, &mission.channel, "written in silence").await.unwrap();
    let before = world.relay.datagrams_seen();
    // Silence is proved by time alone; 4 s cover every keepalive and probe interval of the carrier.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.relay.datagrams_seen(), before, "a silent node emitted something");

    world.edge.kill_and_restart().await;
    world.follow();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.relay.datagrams_seen(), before, "silence did not survive a restart");

    world.edge.resume();
    world.hub.resume();
    world.settle(&mission.channels()).await;
}

impl World {
    /// Waits until no datagram was seen for a second: what was under way has arrived.
    async fn relay_is_quiet(&self) {
        for _ in 0..30 {
            let before = self.relay.datagrams_seen();
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.relay.datagrams_seen() == before {
                return;
            }
        }
        panic!("the link is still busy 30 s after both nodes were told to be silent");
    }
}
