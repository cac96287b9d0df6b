//! Failures at the worst moments.

use std::time::Duration;

use graphsim::{Failure, FaultRule, Lag, Rule, Settings, What};
use reqwest::Method;
use serde_json::json;

use crate::world::{World, html, quick, read};

#[tokio::test]
async fn each_failure_is_what_it_says_and_leaves_what_it_says() {
    let world = World::quick().await;
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let committed = || world.sim.oracle().of(What::MessagePosted).count();
    let post = || {
        world
            .http
            .post(world.url(&messages))
            .bearer_auth(&anna)
            .header("content-type", "application/json")
            .body(html("<p>x</p>").to_string())
    };
    for (failure, commits) in [
        (Failure::ResetBefore, false),
        (Failure::ResetAfterCommit, true),
        (Failure::Stall { for_ms: 50 }, false),
        (Failure::StallAfterCommit { for_ms: 50 }, true),
    ] {
        let before = committed();
        world.sim.fail(FaultRule::new(failure.clone()).on("POST", "/messages"));
        assert!(post().send().await.is_err(), "{failure:?}");
        assert_eq!(committed() - before, usize::from(commits), "{failure:?}");
    }
    for (failure, status, commits) in [
        (Failure::Html { status: 502 }, 502, false),
        (Failure::CaptivePortal, 200, false),
        (Failure::CaptiveRedirect, 302, false),
        (Failure::RefusedAfterCommit { status: 504 }, 504, true),
        (Failure::SlowBody { over_ms: 100 }, 201, true),
    ] {
        let before = committed();
        world.sim.fail(FaultRule::new(failure.clone()).on("POST", "/messages"));
        let got = read(post()).await;
        assert_eq!((got.status, committed() - before), (status, usize::from(commits)), "{failure:?}");
        assert_eq!(
            got.header("request-id").is_empty(),
            matches!(failure, Failure::Html { .. } | Failure::CaptivePortal | Failure::CaptiveRedirect)
        );
    }
    world.sim.fail(FaultRule::new(Failure::Truncated).on("POST", "/messages"));
    let answer = post().send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert!(answer.text().await.is_err(), "the body breaks off");
    read(post()).await.ok();
}

#[tokio::test]
async fn rules_skip_repeat_and_are_told_from_each_other() {
    let world = World::quick().await;
    world.sim.fail(
        FaultRule::new(Failure::Refused { status: 503, retry_after_s: Some(0.5), code: None })
            .on("GET", "/organization")
            .after(1)
            .times(2),
    );
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(world.get("/organization").await.status);
        world.sim.advance(Duration::from_secs(1));
    }
    assert_eq!(statuses, [200, 503, 503, 200]);
    world.oracle();
    world.sim.fail(
        FaultRule::new(Failure::Refused { status: 429, retry_after_s: Some(30.0), code: None })
            .on("GET", "/organization"),
    );
    assert_eq!(world.get("/organization").await.header("retry-after"), "30");
    world.sim.advance(Duration::from_secs(10));
    world.get("/organization").await.ok();
    let broken: Vec<Rule> = world.sim.oracle().violations.iter().map(|v| v.rule).collect();
    assert_eq!(broken, [Rule::RetriedTooEarly]);
}

#[tokio::test]
async fn a_handshake_that_stalls_and_a_clock_that_is_wrong() {
    let world = World::quick().await;
    world.sim.fail(FaultRule::new(Failure::TlsStall { for_ms: 300 }).at("login"));
    let begun = world.sim.now();
    let url = format!("{}/{}/discovery/v2.0/keys", world.sim.login_url(), world.sim.tenant());
    // A connection of its own: one that is open already has its handshake behind it.
    let fresh = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(world.sim.ca_pem().as_bytes()).unwrap()])
        .build()
        .unwrap();
    assert!(fresh.get(&url).send().await.is_err());
    assert!(world.sim.now() - begun >= 300);
    assert_eq!(fresh.get(&url).send().await.unwrap().status(), 200);
    world.sim.date_off_by(-3_600_000);
    let told = world.get("/organization").await.header("date").to_owned();
    let off = (world.sim.now() / 1000) as i64 - httpdate_s(&told);
    assert!((3_595..=3_605).contains(&off), "{told}: {off}");
}

fn httpdate_s(text: &str) -> i64 {
    jiff::fmt::rfc2822::parse(text).unwrap().timestamp().as_second()
}

#[tokio::test]
async fn the_same_seed_draws_the_same() {
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let world = World::quick().await;
        world.sim.fail(FaultRule::new(Failure::Html { status: 503 }).on("GET", "/organization").times(100).chance(0.5));
        let mut statuses = Vec::new();
        for _ in 0..12 {
            statuses.push(world.get("/organization").await.status);
        }
        drawn.push((world.sim.tenant(), statuses));
    }
    assert_eq!(drawn[0], drawn[1]);
    assert!(drawn[0].1.contains(&503) && drawn[0].1.contains(&200));
}

/// A team is not there for a moment after Graph said that it is made, and a message is not listed at once.
#[tokio::test]
async fn what_was_made_is_seen_later() {
    let lag = Lag { teams_ms: 3_600_000, ..Lag::default() };
    let world = World::start(Settings { lag, ..quick() }).await;
    let wanted = json!({ "displayName": "New", "membershipType": "standard" });
    let channels = format!("/teams/{}/channels", world.team.id);
    let made = world.post(&channels, wanted).await.ok();
    let one = format!("{channels}/{}", made["id"].as_str().unwrap());
    assert_eq!(world.get(&one).await.status, 404);
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let posted = world.send(&anna, Method::POST, &messages, Some(html("<p>x</p>"))).await.ok();
    world.get(&format!("{messages}/{}", posted["id"].as_str().unwrap())).await.ok();
    assert_eq!(world.get(&messages).await.ok()["value"].as_array().unwrap().len(), 0);
    world.sim.advance(Duration::from_secs(3_601));
    world.get(&one).await.ok();
    assert_eq!(world.get(&messages).await.ok()["value"].as_array().unwrap().len(), 1);
    world.oracle();
}

#[tokio::test]
async fn a_request_that_does_not_fit_the_contract_is_refused_and_told() {
    let world = World::quick().await;
    if !world.sim.validates() {
        return;
    }
    let (anna, messages) = (world.user_token("anna").await, format!("{}/messages", world.ops()));
    let got = world.send(&anna, Method::POST, &messages, Some(json!({ "body": { "content": "x" }, "bodie": 1 }))).await;
    assert_eq!(got.status, 400, "{}", got.text);
    assert_eq!(world.get("/no/such/thing").await.status, 400);
    assert_eq!(world.get("/subscriptions").await.status, 501);
    let oracle = world.sim.oracle();
    let broken: Vec<Rule> = oracle.violations.iter().map(|v| v.rule).collect();
    assert_eq!(broken, [Rule::RequestOutsideContract, Rule::UnknownOperation, Rule::NotSimulated]);
    assert!(oracle.validated > 0);
}

#[tokio::test]
async fn a_token_at_a_host_that_is_nobodys_is_told() {
    let world = World::quick().await;
    read(world.http.get(format!("{}/v1.0/me", world.sim.abroad_url())).bearer_auth(&world.token)).await;
    let broken: Vec<Rule> = world.sim.oracle().violations.iter().map(|v| v.rule).collect();
    assert_eq!(broken, [Rule::TokenAbroad]);
}

#[tokio::test]
async fn a_link_may_lead_abroad_and_who_follows_it_with_a_token_is_told_of() {
    let world = World::quick().await;
    world.sim.fail(FaultRule::new(Failure::ForeignLink).on("GET", "/users"));
    let page = world.get("/users?$top=1").await.ok();
    let link = page["@odata.nextLink"].as_str().unwrap().to_owned();
    assert!(link.starts_with(world.sim.abroad_url()), "{link}");
    world.oracle();
    world.get(&link).await;
    assert_eq!(world.sim.oracle().violations[0].rule, Rule::TokenAbroad);
    assert!(
        world.get("/users?$top=1").await.ok()["@odata.nextLink"].as_str().unwrap().starts_with(world.sim.graph_url())
    );
}
