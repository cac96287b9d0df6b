//! The simulator as a process: its line, its control port, and its end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::read;

#[tokio::test]
async fn a_process_says_where_it_is_does_what_it_is_told_and_ends_with_its_input() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_graphsim"))
        .args(["--seed", "3", "--cloud", "usgov", "--relax", "unthrottled", "--lag", r#"{"mail_ms":0}"#])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["relaxed"], &line["validates"]), (&json!(["unthrottled"]), &json!(false)));

    let http = reqwest::Client::new();
    let control = |verb: &str, body: Value| {
        let request = http.post(format!("{}/_sim/{verb}", line["control"].as_str().unwrap()));
        read(request.header("content-type", "application/json").body(body.to_string()))
    };
    let anna = control("user", json!({ "userPrincipalName": "anna@contoso.example" })).await.ok()["id"].clone();
    let team = control("team", json!({ "displayName": "Bravo", "members": [anna], "channels": ["Ops"] })).await.ok();
    assert!(team["channels"]["Ops"].as_str().unwrap().ends_with("@thread.tacv2"));
    let failure = json!({ "path": "/messages", "failure": { "kind": "resetAfterCommit" } });
    control("fail", failure).await.ok();
    for wrong in
        [json!({ "failure": { "kind": "unheardOf" } }), json!({ "paths": "/", "failure": { "kind": "truncated" } })]
    {
        assert_eq!(control("fail", wrong).await.status, 400);
    }
    let before = control("clock/advance", json!({ "ms": 0 })).await.ok()["nowMs"].as_u64().unwrap();
    let after = control("clock/advance", json!({ "ms": 86_400_000 })).await.ok()["nowMs"].as_u64().unwrap();
    assert!(after - before >= 86_400_000);
    let info = read(http.get(format!("{}/_sim/info", line["control"].as_str().unwrap()))).await.ok();
    assert_eq!((&info["cloud"], &info["seed"], &info["tenant"]), (&json!("usgov"), &json!(3), &line["tenant"]));

    drop(child.stdin.take());
    for _ in 0..100 {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().unwrap();
    panic!("it lives on although its input has ended");
}
