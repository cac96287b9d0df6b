//! What crosses on a link that works.

use serde_json::json;

use crate::compare::{Picture, posts};
use crate::http::{User, plain, text};
use crate::world::{Mission, PASSWORD, World, edit, enlist, noise, open_channel, react, reply, say, share};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_does_at_the_edge_is_seen_at_the_hub_with_the_same_ids_authors_and_times() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let (anna, ben, channel) = (&mission.anna, &mission.ben, mission.channel.as_str());

    let order = say(anna, channel, "Move to **phase line blue**").await.unwrap();
    let answer = reply(ben, channel, &order, "Moving").await.unwrap();
    edit(ben, &answer, "Moving, two vehicles").await.unwrap();
    react(anna, &answer, "white_check_mark").await.unwrap();
    let gone = say(ben, channel, "wrong channel").await.unwrap();
    ben.delete(&format!("/posts/{gone}")).await.unwrap();
    anna.post(&format!("/posts/{order}/pin"), json!({})).await.unwrap();
    let body = json!({"channel_id": channel, "message": "contact", "metadata": {"priority": {"priority": "urgent"}}});
    let urgent = text(&anna.post("/posts", body).await.unwrap(), "id");
    let (with_file, file) = share(ben, channel, "overlay.kml", &noise(1, 60_000)).await.unwrap();
    let direct = text(&anna.post("/channels/direct", json!([anna.id, ben.id])).await.unwrap(), "id");
    let aside = say(anna, &direct, "how is your water?").await.unwrap();

    let seen = world.settle(&[mission.channel.clone(), direct]).await;
    for id in [&order, &answer, &urgent, &with_file, &aside] {
        assert!(seen.contains_key(&format!("post/{id}")), "post {id} is missing at both sides");
    }
    assert_eq!(seen[&format!("post/{answer}")]["root_id"], order);
    assert_eq!(seen[&format!("post/{answer}")]["message"], "Moving, two vehicles");
    assert_eq!(seen[&format!("post/{answer}")]["reactions"].as_array().unwrap().len(), 1);
    assert_eq!(seen[&format!("post/{order}")]["is_pinned"], true);
    assert_eq!(seen[&format!("post/{urgent}")]["priority"]["priority"], "urgent");
    assert_eq!(seen[&format!("file/{file}")]["bytes"], 60_000);
    let metrics = plain(world.hub.metrics_address(), "/metrics").await;
    assert!(metrics.contains("holdfast_link_received_chunk_bytes_total{peer=\"alpha\"} 60000\n"), "{metrics}");
    assert!(!is_visible(&seen, &gone), "a deleted post is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_enterprise_user_answers_comes_back() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let question = say(&mission.anna, &mission.channel, "Request resupply").await.unwrap();
    world.settle(&mission.channels()).await;

    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let body = json!({"user_id": hanna.id});
    hanna_joins(&world.hub_admin, &mission.channel, body).await;
    let mut at_the_edge = mission.anna.listen().await;
    let answer = reply(&hanna, &mission.channel, &question, "Resupply at dawn").await.unwrap();
    react(&hanna, &question, "thumbsup").await.unwrap();

    let arrived = loop {
        let post = at_the_edge.next_post().await;
        if post["id"] == answer.as_str() {
            break post;
        }
    };
    assert_eq!(arrived["user_id"], hanna.id.as_str());
    assert_eq!(arrived["root_id"], question.as_str());
    let seen = world.settle(&mission.channels()).await;
    assert_eq!(seen[&format!("post/{question}")]["reactions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_user_is_known_at_the_hub_but_brings_no_password() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;

    let refused = User::sign_in(world.hub.api_address(), "anna", PASSWORD).await;
    assert!(refused.is_err(), "credentials must not travel");
    let path = format!("/users/{}/password", mission.anna.id);
    world.hub_admin.put(&path, json!({"new_password": PASSWORD})).await.expect("the hub's administrator sets one");
    let anna = User::sign_in(world.hub.api_address(), "anna", PASSWORD).await.expect("and it works there");
    assert_eq!(anna.id, mission.anna.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_every_script_arrive_as_they_were_written() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let mut channels = mission.channels();
    for (name, shown) in [("arabic", "قيادة اللواء"), ("cjk", "第一旅司令部・지휘소"), ("emoji", "🚁 medevac 👩🏽‍⚕️")]
    {
        let channel = open_channel(&world.edge_admin, &mission.team, name, shown).await;
        let body = json!({"user_id": mission.anna.id});
        world.edge_admin.post(&format!("/channels/{channel}/members"), body).await.unwrap();
        say(&mission.anna, &channel, &format!("{shown} \u{202e}right to left\u{202c} e\u{301} 𝕏")).await.unwrap();
        share(&mission.anna, &channel, &format!("{shown}.txt"), shown.as_bytes()).await.unwrap();
        channels.push(channel);
    }
    let nickname = json!({"nickname": "الرائد 안나 🛰"});
    mission.anna.put(&format!("/users/{}/patch", mission.anna.id), nickname.clone()).await.unwrap();

    let seen = world.settle(&channels).await;
    assert_eq!(seen[&format!("user/{}", mission.anna.id)]["nickname"], nickname["nickname"]);
    let shown = world.hub_admin.get(&format!("/channels/{}", channels[1])).await.unwrap();
    assert_eq!(shown["display_name"], "قيادة اللواء");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_and_one_of_100_mb_arrive_whole() {
    let mut world = World::start_with_rate("400Mbit/s").await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let (_, empty) = share(&mission.anna, &mission.channel, "empty.bin", b"").await.unwrap();
    let (_, large) = share(&mission.anna, &mission.channel, "terrain.bin", &noise(2, 100_000_000)).await.unwrap();

    let seen = world.settle(&mission.channels()).await;
    assert_eq!(seen[&format!("file/{empty}")]["bytes"], 0);
    assert_eq!(seen[&format!("file/{large}")]["bytes"], 100_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_shared_again_costs_little_more_than_its_reference() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let content = noise(3, 1_000_000);
    share(&mission.anna, &mission.channel, "map.bin", &content).await.unwrap();
    world.settle(&mission.channels()).await;

    let before = world.relay.bytes_carried();
    share(&mission.ben, &mission.channel, "map again.bin", &content).await.unwrap();
    world.settle(&mission.channels()).await;
    let cost = world.relay.bytes_carried() - before;
    assert!(cost < 100_000, "the second copy of 1 MB cost {cost} bytes on the wire");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_released_stays_and_is_counted_as_withheld() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.edge.restart_with(|config| crate::node::release_only_team(config, "task-force")).await;
    world.follow();

    let body = json!({"name": "intern", "display_name": "Internal", "type": "O"});
    let team = text(&world.edge_admin.post("/teams", body).await.unwrap(), "id");
    let channel = open_channel(&world.edge_admin, &team, "closed", "Closed").await;
    let secret = say(&world.edge_admin, &channel, "stays here").await.unwrap();
    say(&mission.anna.at(world.edge.api_address()), &mission.channel, "may leave").await.unwrap();

    world.settle(&mission.channels()).await;
    assert!(world.hub_admin.get(&format!("/posts/{secret}")).await.is_err(), "a withheld post reached the hub");
    assert!(world.edge.equation()["withheld"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_link_port_disturbs_nobody() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..500 {
        socket.send_to(&noise(n, (n as usize * 7) % 1400), world.hub.link_address()).unwrap();
    }
    say(&mission.anna, &mission.channel, "still here").await.unwrap();
    world.settle(&mission.channels()).await;
    assert_eq!(posts(&world.hub_admin, &mission.channel).await.unwrap().iter().filter(|p| p["type"] == "").count(), 1);
}

fn is_visible(picture: &Picture, post: &str) -> bool {
    picture.get(&format!("post/{post}")).is_some_and(|p| p["delete_at"] == 0)
}

async fn hanna_joins(admin: &User, channel: &str, body: serde_json::Value) {
    admin.post(&format!("/channels/{channel}/members"), body).await.expect("a member");
}
