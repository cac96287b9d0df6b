//! What an operator and a monitoring system see.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::http::{CallError, plain};
use crate::node::Node;
use crate::world::{Mission, World, say};

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_metrics_of_both_roles() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    say(&mission.anna, &mission.channel, "something to count").await.unwrap();
    world.settle(&mission.channels()).await;
    for node in [&world.edge, &world.hub] {
        let metrics = with_the_equation(node).await;
        let Ok(promtool) = std::env::var("HOLDFAST_PROMTOOL") else {
            println!("skipped: HOLDFAST_PROMTOOL is not set; `scripts/test system` installs promtool and sets it");
            continue;
        };
        let mut check = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
        let done = check.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.trim().is_empty(), "promtool: {said}");
    }
}

/// The metrics, once the node has counted the equation: it does so every few seconds.
async fn with_the_equation(node: &Node) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = plain(node.metrics_address(), "/metrics").await;
        if metrics.contains("holdfast_equation_entries{") {
            return metrics;
        }
        assert!(Instant::now() < deadline, "the equation is not exported:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_are_answered() {
    let world = World::start().await;
    for node in [&world.edge, &world.hub] {
        for path in ["/healthz", "/readyz"] {
            plain(node.metrics_address(), path).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_or_malformed_body_is_refused_with_an_error_of_mattermosts_shape() {
    let world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    let huge = "x".repeat(20_000);
    let refused = say(&mission.anna, &mission.channel, &huge).await.unwrap_err();
    let CallError::Refused { status, id, .. } = refused else { panic!("no answer to a long post: {refused}") };
    assert_eq!((status, id.is_empty()), (400, false));
    let refused = mission.anna.post("/posts", json!({"channel_id": 7})).await.unwrap_err();
    assert!(matches!(&refused, CallError::Refused { status: 400, id, .. } if !id.is_empty()), "{refused}");
    say(&mission.anna, &mission.channel, "still served").await.unwrap();
}
