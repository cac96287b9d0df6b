//! Throttling and batches.

use std::time::Duration;

use graphsim::{Limits, Relaxation, Rule, Settings, What};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, html, quick};

fn throttled() -> Settings {
    let mut settings = quick();
    settings.relaxed.remove(&Relaxation::Unthrottled);
    settings
}

#[tokio::test]
async fn more_than_four_requests_a_second_on_a_channel_are_told_to_wait_a_fraction() {
    let world = World::start(throttled()).await;
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let (mut waits, mut silent) = (Vec::new(), 0);
    for n in 0..40 {
        let got = world.send(&anna, Method::POST, &messages, Some(html(&format!("<p>{n}</p>")))).await;
        if got.status == 429 {
            assert_eq!(got.code(), "TooManyRequests");
            match got.header("retry-after") {
                "" => silent += 1,
                text => waits.push(text.parse::<f64>().unwrap()),
            }
        }
    }
    assert!(waits.iter().any(|w| w.fract() != 0.0), "{waits:?}");
    assert!(waits.last() > waits.first(), "who goes on waits longer: {waits:?}");
    assert!(silent > 0, "some refusals come without a time");
    let oracle = world.sim.oracle();
    assert_eq!(oracle.of(What::MessagePosted).count() + waits.len() + silent, 40);
    assert!(oracle.violations.iter().all(|v| v.rule == Rule::RetriedTooEarly));
    world.sim.advance(Duration::from_secs_f64(waits.last().unwrap() + 1.0));
    world.send(&anna, Method::POST, &messages, Some(html("<p>in time</p>"))).await.ok();
}

#[tokio::test]
async fn a_client_that_comes_back_too_early_is_told_of() {
    let world = World::start(throttled()).await;
    let ops = world.ops();
    for _ in 0..20 {
        world.get(&ops).await;
    }
    world.sim.advance(Duration::from_millis(600));
    world.get(&ops).await;
    assert!(world.sim.oracle().violations.iter().any(|v| v.rule == Rule::RetriedTooEarly));
}

#[tokio::test]
async fn a_channel_takes_so_many_messages_a_day_and_an_import_is_not_counted() {
    let limits = Limits { channel_messages_per_day: 3, ..Limits::default() };
    let world = World::start(Settings { limits, ..throttled() }).await;
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let post = || async {
        world.sim.advance(Duration::from_secs(2));
        world.send(&anna, Method::POST, &messages, Some(html("<p>x</p>"))).await
    };
    for _ in 0..3 {
        post().await.ok();
    }
    let refused = post().await;
    let left: u64 = refused.header("retry-after").parse().unwrap();
    assert!(refused.status == 429 && left <= 86_400, "{left}");
    let begin = json!({ "conversationCreationDateTime": "2026-01-01T00:00:00Z" });
    assert_eq!(world.post(&format!("{}/startMigration", world.ops()), begin).await.status, 204);
    for second in 1..=6 {
        world.sim.advance(Duration::from_secs(1));
        let mut body = html("<p>then</p>");
        body["createdDateTime"] = json!(format!("2026-02-01T00:00:0{second}Z"));
        body["from"] = json!({ "user": { "id": world.ben, "displayName": "ben", "userIdentityType": "aadUser" } });
        world.post(&messages, body).await.ok();
    }
    assert_eq!(
        world.send(&world.token, Method::POST, &format!("{}/completeMigration", world.ops()), None).await.status,
        204
    );
    world.sim.advance(Duration::from_secs(left));
    let fresh = world.user_token("anna").await;
    world.send(&fresh, Method::POST, &messages, Some(html("<p>a new day</p>"))).await.ok();
    world.oracle();
}

#[tokio::test]
async fn equal_token_requests_without_end_are_a_loop() {
    let limits = Limits { equal_token_requests: 5, ..Limits::default() };
    let world = World::start(Settings { limits, ..quick() }).await;
    let scope = format!("{}/.default", world.sim.graph_url());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &world.app),
        ("client_secret", "s3cret"),
        ("scope", &scope),
    ];
    for _ in 0..4 {
        world.ask_token(&form).await.ok();
    }
    let got = world.ask_token(&form).await;
    assert_eq!((got.status, got.json["error_codes"][0].as_u64()), (429, Some(50196)));
    world.sim.advance(Duration::from_secs(301));
    world.ask_token(&form).await.ok();
}

fn by_id(answer: &Value) -> Vec<(String, u64)> {
    let mut found: Vec<(String, u64)> = answer["responses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["id"].as_str().unwrap().to_owned(), r["status"].as_u64().unwrap()))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_batch_answers_each_and_what_depends_on_a_failure_fails() {
    let world = World::quick().await;
    let mail = json!({ "message": { "subject": "x", "toRecipients": [{ "emailAddress": { "address": "ben@contoso.example" } }] } });
    let send = |id: &str, after: Value| {
        json!({
            "id": id, "method": "POST", "url": format!("/users/{}/sendMail", world.anna), "body": mail,
            "headers": { "Content-Type": "application/json" }, "dependsOn": after,
        })
    };
    let answer = world
        .post(
            "/$batch",
            json!({ "requests": [
                { "id": "1", "method": "GET", "url": "/organization" },
                { "id": "2", "method": "GET", "url": "/users/nobody" },
                send("3", json!(["2"])), send("4", json!(["1"])), send("5", json!(["3"])),
            ]}),
        )
        .await
        .ok();
    let wanted =
        [("1", 200), ("2", 404), ("3", 424), ("4", 202), ("5", 424)].map(|(id, status)| (id.to_owned(), status));
    assert_eq!(by_id(&answer), wanted);
    assert_eq!(world.oracle().of(What::MailSent).count(), 1);
    let many: Vec<Value> =
        (0..21).map(|n| json!({ "id": n.to_string(), "method": "GET", "url": "/organization" })).collect();
    let twice = json!([{ "id": "a", "method": "GET", "url": "/organization" }, { "id": "A", "method": "GET", "url": "/organization" }]);
    let bare = json!([{ "id": "1", "method": "POST", "url": "/users/a/sendMail", "body": {} }]);
    for wrong in [json!(many), twice, bare] {
        assert_eq!(world.post("/$batch", json!({ "requests": wrong })).await.status, 400);
    }
}

#[tokio::test]
async fn each_request_of_a_batch_is_throttled_for_itself() {
    let world = World::start(throttled()).await;
    let requests: Vec<Value> =
        (0..10).map(|n| json!({ "id": n.to_string(), "method": "GET", "url": world.ops() })).collect();
    let answer = world.post("/$batch", json!({ "requests": requests })).await.ok();
    let refused = by_id(&answer).iter().filter(|(_, status)| *status == 429).count();
    assert_eq!(refused, 6, "four a second on one channel");
    let timed =
        answer["responses"].as_array().unwrap().iter().filter(|r| r["headers"]["Retry-After"].is_string()).count();
    assert!(timed > 0);
    world.oracle();
}

#[tokio::test]
async fn a_mailbox_takes_four_requests_at_a_time() {
    let limits = Limits { answer_after_ms: 400, ..Limits::default() };
    let world = World::start(Settings { limits, ..throttled() }).await;
    let path = format!("/users/{}/messages", world.anna);
    let together = (0..6).map(|_| world.get(&path));
    let mut statuses: Vec<u16> = futures_util::future::join_all(together).await.iter().map(|got| got.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
    world.sim.advance(Duration::from_secs(1));
    world.get(&path).await.ok();
    world.oracle();
}

#[tokio::test]
async fn the_directory_and_sharepoint_tell_of_their_units() {
    let limits = Limits { directory_units_per_10s: 10.0, sharepoint_units_per_min: 10.0, ..Limits::default() };
    let world = World::start(Settings { limits, ..throttled() }).await;
    let user = format!("/users/{}", world.anna);
    assert_eq!(world.get(&user).await.header("x-ms-resource-unit"), "1");
    for _ in 0..8 {
        world.get(&user).await.ok();
    }
    let got = world.get(&user).await;
    assert!(got.header("x-ms-throttle-limit-percentage").parse::<f64>().unwrap() >= 0.8);
    let got = world.get(&user).await;
    assert_eq!((got.status, got.code()), (429, "Request_ThrottledTemporarily"));
    assert!(got.header("x-ms-throttle-scope").starts_with("Tenant_Application/ReadWrite/"));
    assert!(!got.header("retry-after").is_empty(), "the directory always says when");
    let root = format!("/drives/{}/root", world.team.drive);
    assert_eq!(world.get(&root).await.header("ratelimit-limit"), "");
    for _ in 0..7 {
        world.get(&root).await.ok();
    }
    let got = world.get(&root).await;
    assert_eq!((got.header("ratelimit-limit"), got.header("ratelimit-remaining")), ("10", "1"));
    world.oracle();
}
