//! The hub as a mirror: what its users are told while the site that they read is away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::plain;
use crate::world::{Mission, World, enlist, reply, say};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn readers_at_the_hub_are_told_how_old_it_is_and_whether_their_answer_has_arrived() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let question = say(&mission.anna, &mission.channel, "Is the bridge open?").await.unwrap();
    world.settle(&mission.channels()).await;
    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let path = format!("/channels/{}/members", mission.channel);
    world.hub_admin.post(&path, json!({"user_id": hanna.id})).await.unwrap();
    world.settle(&mission.channels()).await;
    let config = hanna.get("/config/client?format=old").await.unwrap();
    assert_eq!(config["EnableBanner"], "false", "nothing is old while the edge is reached");

    let mut screen = hanna.listen().await;
    world.edge.stop().await;
    let told = screen.until("the clients are told", |event| event["event"] == "config_changed").await;
    let banner = told["data"]["config"]["BannerText"].as_str().unwrap_or_default().to_owned();
    assert!(banner.contains("you read alpha as of ") && banner.contains("UTC"), "{banner}");
    let config = hanna.get("/config/client?format=old").await.unwrap();
    assert_eq!((&config["EnableBanner"], config["BannerText"].as_str()), (&json!("true"), Some(banner.as_str())));
    let anonymous = plain(world.hub.api_address(), "/api/v4/config/client?format=old").await;
    assert!(!anonymous.contains("alpha"), "a passer-by learns of no site: {anonymous}");

    let answer = reply(&hanna, &mission.channel, &question, "Open for trucks").await.unwrap();
    let shown = hanna.get(&format!("/posts/{answer}")).await.unwrap();
    assert_eq!(shown["props"]["holdfast"]["delivery"], "pending", "{shown}");
    let listed = hanna.get(&format!("/channels/{}/posts", mission.channel)).await.unwrap();
    assert_eq!(listed["posts"][&answer]["props"]["holdfast"]["delivery"], "pending");
    assert_eq!(listed["posts"][&question]["props"].get("holdfast"), None, "it came from there");

    world.edge.start().await;
    let confirmed = screen.until("the answer is confirmed", |event| {
        let post = event["data"]["post"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        event["event"] == "post_edited" && post.is_some_and(|post| post["id"] == answer.as_str())
    });
    confirmed.await;
    let here = hanna.get(&format!("/posts/{answer}")).await.unwrap();
    assert_eq!(here["props"].get("holdfast"), None, "{here}");
    let there = world.edge_admin.get(&format!("/posts/{answer}")).await.unwrap();
    assert_eq!((&there["message"], &there["edit_at"]), (&json!("Open for trucks"), &json!(0)));
    let banner_goes = async {
        while hanna.get("/config/client?format=old").await.unwrap()["EnableBanner"] != "false" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, banner_goes).await.expect("the banner goes");
}
