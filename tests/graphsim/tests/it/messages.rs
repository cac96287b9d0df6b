//! Teams: who may post, and what becomes of it.

use graphsim::{Failure, FaultRule, What};
use reqwest::Method;
use serde_json::json;

use crate::world::{World, html};

#[tokio::test]
async fn an_app_may_not_post_outside_migration_mode_and_a_member_may() {
    let world = World::quick().await;
    let messages = format!("{}/messages", world.ops());
    let got = world.post(&messages, html("x")).await;
    assert!(got.status == 403 && got.text.contains("import purposes"), "{}", got.text);
    let anna = world.user_token("anna").await;
    let posted = world.send(&anna, Method::POST, &messages, Some(html("<p>a<script>b</script></p>"))).await.ok();
    assert_eq!(posted["body"]["content"], "<p>a</p>");
    let reply = format!("{messages}/{}/replies", posted["id"].as_str().unwrap());
    let replied = world.send(&anna, Method::POST, &reply, Some(html("<p>b</p>"))).await.ok();
    let nested = format!("{messages}/{}/replies", replied["id"].as_str().unwrap());
    assert_eq!(world.send(&anna, Method::POST, &nested, Some(html("<p>c</p>"))).await.status, 404, "one level");
    world.sim.set_team_member(&world.team.id, &world.anna, false).unwrap();
    let got = world.send(&anna, Method::POST, &messages, Some(html("x"))).await;
    assert_eq!((got.status, got.code()), (403, "Forbidden"));
    assert_eq!(world.oracle().of(What::MessagePosted).count(), 2);
}

#[tokio::test]
async fn migration_mode_keeps_original_times_once_each_and_blocks_people() {
    let world = World::quick().await;
    let (channel, messages) = (world.ops(), format!("{}/messages", world.ops()));
    let anna = world.user_token("anna").await;
    let begin = json!({ "conversationCreationDateTime": "2026-01-01T00:00:00Z" });
    assert_eq!(world.post(&format!("{channel}/startMigration"), begin.clone()).await.status, 204);
    assert_eq!(world.post(&format!("{channel}/startMigration"), json!({})).await.status, 400, "twice");
    let import = |at: &str| {
        let mut body = html("<p>then</p>");
        body["createdDateTime"] = json!(at);
        body["from"] = json!({ "user": { "id": world.ben, "displayName": "ben", "userIdentityType": "aadUser" } });
        body
    };
    let first = world.post(&messages, import("2026-02-03T04:05:06.007Z")).await.ok();
    assert_eq!(first["createdDateTime"], "2026-02-03T04:05:06.007Z");
    let got = world.post(&messages, import("2026-02-03T04:05:06.007Z")).await;
    assert_eq!((got.status, got.code()), (409, "Conflict"));
    assert_eq!(world.post(&messages, import("2025-12-31T00:00:00Z")).await.status, 400, "before the channel");
    assert_eq!(world.post(&messages, import("2099-01-01T00:00:00Z")).await.status, 400, "in the future");
    assert_eq!(world.send(&anna, Method::POST, &messages, Some(html("x"))).await.status, 403);
    assert_eq!(world.get(&channel).await.ok()["migrationMode"], "inProgress");
    assert_eq!(world.send(&world.token, Method::POST, &format!("{channel}/completeMigration"), None).await.status, 204);
    assert_eq!(world.send(&world.token, Method::POST, &format!("{channel}/completeMigration"), None).await.status, 400);
    assert_eq!(world.post(&format!("{channel}/startMigration"), json!({})).await.status, 204);
    assert_eq!(
        world.post(&messages, import("2026-02-03T04:05:06.009Z")).await.status,
        400,
        "without a time: the present"
    );
    assert_eq!(world.send(&world.token, Method::POST, &format!("{channel}/completeMigration"), None).await.status, 204);
    world.send(&anna, Method::POST, &messages, Some(html("<p>now</p>"))).await.ok();
    let oracle = world.oracle();
    let posted: Vec<_> = oracle.of(What::MessagePosted).map(|e| e.detail["imported"].as_bool().unwrap()).collect();
    assert_eq!(posted, [true, false]);
}

#[tokio::test]
async fn mentions_attachments_and_sizes_must_be_right() {
    let world = World::quick().await;
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let send = |body| world.send(&anna, Method::POST, &messages, Some(body));
    assert_eq!(send(html(r#"<at id="0">ben</at>"#)).await.status, 400, "a mention without its entry");
    let mut mention = html(r#"<at id="0">ben</at>"#);
    mention["mentions"] = json!([{ "id": 0, "mentionText": "ben", "mentioned": { "user": { "id": world.ben, "displayName": "ben", "userIdentityType": "aadUser" } } }]);
    send(mention).await.ok();
    assert_eq!(send(html(r#"<attachment id="a"></attachment>"#)).await.status, 400);
    let got = send(html(&"x".repeat(15_000))).await;
    assert_eq!((got.status, got.code()), (413, "RequestEntityTooLarge"));
    world.oracle();
}

#[tokio::test]
async fn edits_reactions_and_soft_deletion_are_the_authors() {
    let world = World::quick().await;
    let (anna, ben) = (world.user_token("anna").await, world.user_token("ben").await);
    let messages = format!("{}/messages", world.ops());
    let id = world.send(&anna, Method::POST, &messages, Some(html("<p>a</p>"))).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let one = format!("{messages}/{id}");
    assert_eq!(world.send(&ben, Method::PATCH, &one, Some(html("<p>b</p>"))).await.status, 403);
    assert_eq!(world.send(&anna, Method::PATCH, &one, Some(html("<p>b</p>"))).await.status, 204);
    let react = json!({ "reactionType": "👍" });
    assert_eq!(world.send(&ben, Method::POST, &format!("{one}/setReaction"), Some(react.clone())).await.status, 204);
    assert_eq!(world.send(&ben, Method::POST, &format!("{one}/setReaction"), Some(react)).await.status, 204);
    let seen = world.get(&one).await.ok();
    assert_eq!((seen["body"]["content"].as_str(), seen["reactions"].as_array().unwrap().len()), (Some("<p>b</p>"), 1));
    assert_eq!(world.send(&anna, Method::POST, &format!("{one}/softDelete"), None).await.status, 204);
    assert!(world.get(&one).await.ok()["deletedDateTime"].is_string());
    world.oracle();
}

#[tokio::test]
async fn a_reset_after_the_commit_leaves_the_effect_and_no_answer() {
    let world = World::quick().await;
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("POST", "/messages"));
    let request = world.http.post(world.url(&messages)).bearer_auth(&anna).header("content-type", "application/json");
    let lost = request.body(html("<p>once</p>").to_string()).send().await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(world.oracle().of(What::MessagePosted).count(), 1);
    world.send(&anna, Method::POST, &messages, Some(html("<p>again</p>"))).await.ok();
    assert_eq!(world.oracle().of(What::MessagePosted).count(), 2, "Graph does not notice that it is the same");
}

#[tokio::test]
async fn pictures_stand_in_the_text_and_are_read_back() {
    let world = World::quick().await;
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let with = |content: &str, bytes: &str| {
        let mut body = html(content);
        body["hostedContents"] = json!([{
            "@microsoft.graph.temporaryId": "1", "contentBytes": bytes, "contentType": "image/png",
        }]);
        body
    };
    let picture = "<p><img src=\"../hostedContents/1/$value\"></p>";
    let send = |body| world.send(&anna, Method::POST, &messages, Some(body));
    assert_eq!(send(with("<p>none</p>", "aGVsbG8=")).await.status, 400, "it does not stand in the text");
    assert_eq!(send(html(picture)).await.status, 400, "it did not come along");
    assert_eq!(send(with(picture, "no base64!")).await.status, 400);
    let posted = send(with(picture, "aGVsbG8=")).await.ok();
    let content = posted["body"]["content"].as_str().unwrap();
    let address = content.split("src=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(address.starts_with(world.sim.graph_url()), "{content}");
    assert_eq!(world.get(address).await.text, "hello");
    let listed = world.get(&format!("{messages}/{}/hostedContents", posted["id"].as_str().unwrap())).await.ok();
    assert_eq!(listed["value"].as_array().unwrap().len(), 1);
    world.oracle();
}
