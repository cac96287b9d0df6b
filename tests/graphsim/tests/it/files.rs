//! Drives: small files, sessions, conflicts.

use std::time::Duration;

use graphsim::{Rule, What};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Got, World, read};

const UNIT: usize = 320 * 1024;

async fn put(world: &World, path: &str, bytes: &'static [u8]) -> Got {
    read(world.http.put(world.url(path)).bearer_auth(&world.token).body(bytes)).await
}

async fn begin(world: &World, name: &str, conflict: &str) -> String {
    let path = format!("/drives/{}/root:/Ops/{name}:/createUploadSession", world.team.drive);
    let got = world.post(&path, json!({ "item": { "@microsoft.graph.conflictBehavior": conflict } })).await.ok();
    got["uploadUrl"].as_str().unwrap().to_owned()
}

async fn range(world: &World, url: &str, from: usize, part: &[u8], total: usize) -> Got {
    let range = format!("bytes {from}-{}/{total}", from + part.len() - 1);
    read(world.http.put(url).header("content-range", range).body(part.to_vec())).await
}

#[tokio::test]
async fn small_files_are_written_conflict_and_match_as_asked() {
    let world = World::quick().await;
    let folder = world.get(&format!("{}/filesFolder", world.ops())).await.ok();
    let (drive, parent) = (folder["parentReference"]["driveId"].as_str().unwrap(), folder["id"].as_str().unwrap());
    let path = format!("/drives/{drive}/items/{parent}:/a.txt:/content");
    let made = put(&world, &path, b"hello world").await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json["file"]["hashes"]["quickXorHash"], "aCgDG9jwBhDc4Q1yawMZAAAAAAA=");
    let got = put(&world, &format!("{path}?@microsoft.graph.conflictBehavior=fail"), b"x").await;
    assert_eq!((got.status, got.code()), (409, "nameAlreadyExists"));
    assert_eq!(put(&world, &path, b"y").await.status, 200);
    let stale = world
        .http
        .put(world.url(&path))
        .bearer_auth(&world.token)
        .header("if-match", made.json["eTag"].as_str().unwrap());
    assert_eq!(read(stale.body("z")).await.status, 412);
    assert_eq!(put(&world, &format!("/drives/{drive}/items/{parent}:/a%7Cb.txt:/content"), b"x").await.status, 400);
    let found = world.get(&format!("/drives/{drive}/root:/Ops/a.txt")).await.ok();
    assert_eq!(found["size"], 1);
    assert_eq!(world.oracle().of(What::FileWritten).count(), 2);
}

#[tokio::test]
async fn ranges_come_in_order_in_whole_units_and_without_a_token() {
    let world = World::quick().await;
    let bytes: Vec<u8> = (0..2 * UNIT + 100).map(|n| (n % 251) as u8).collect();
    let url = begin(&world, "big.bin", "fail").await;
    assert_eq!(range(&world, &url, 0, &bytes[..UNIT + 1], bytes.len()).await.status, 400, "no multiple of 320 KiB");
    assert_eq!(range(&world, &url, 0, &bytes[..UNIT], bytes.len()).await.status, 202);
    let again = range(&world, &url, 0, &bytes[..UNIT], bytes.len()).await;
    assert_eq!((again.status, again.code()), (416, "invalidRange"));
    assert_eq!(range(&world, &url, 2 * UNIT, &bytes[2 * UNIT..], bytes.len()).await.status, 416, "out of order");
    assert_eq!(range(&world, &url, UNIT, &bytes[UNIT..2 * UNIT], bytes.len() + 1).await.status, 400, "another total");
    let asked = read(world.http.get(&url)).await.ok();
    assert_eq!(asked["nextExpectedRanges"], json!([format!("{UNIT}-{}", bytes.len() - 1)]));
    let last = range(&world, &url, UNIT, &bytes[UNIT..], bytes.len()).await;
    assert_eq!(last.status, 201, "{}", last.text);
    assert_eq!(world.sim.file(&world.team.drive, "/Ops/big.bin").unwrap(), bytes);
    let gone = read(world.http.get(&url)).await;
    assert_eq!(gone.status, 404);
    world.oracle();
}

#[tokio::test]
async fn a_token_at_the_upload_address_is_refused_and_told() {
    let world = World::quick().await;
    let url = begin(&world, "b.bin", "fail").await;
    let with = world.http.put(&url).bearer_auth(&world.token).header("content-range", "bytes 0-0/1").body("x");
    assert_eq!(read(with).await.status, 401);
    let broken: Vec<Rule> = world.sim.oracle().violations.iter().map(|v| v.rule).collect();
    assert_eq!(broken, [Rule::AuthorizationOnUpload]);
}

#[tokio::test]
async fn a_session_ends_with_a_conflict_or_by_time() {
    let world = World::quick().await;
    let url = begin(&world, "c.txt", "fail").await;
    put(&world, &format!("/drives/{}/root:/Ops/c.txt:/content", world.team.drive), b"first").await.ok();
    let got = range(&world, &url, 0, b"second", 6).await;
    assert_eq!((got.status, got.code()), (409, "nameAlreadyExists"));
    let url = begin(&world, "d.txt", "rename").await;
    world.sim.advance(Duration::from_secs(3 * 86_400 + 1));
    assert_eq!(range(&world, &url, 0, b"late", 4).await.status, 404);
    world.oracle();
}

#[tokio::test]
async fn content_is_downloaded_from_another_host_without_a_token() {
    let world = World::quick().await;
    let path = format!("/drives/{}/root:/Ops/e.txt:/content", world.team.drive);
    put(&world, &path, b"text").await.ok();
    let got = world.send(&world.token, Method::GET, &path, None).await;
    assert_eq!(got.status, 302);
    let to = got.header("location").to_owned();
    assert!(to.starts_with(world.sim.upload_url()));
    assert_eq!(read(world.http.get(to)).await.text, "text");
    let children = world.get(&format!("/drives/{}/root:/Ops:/children", world.team.drive)).await.ok();
    assert_eq!(
        children["value"].as_array().unwrap().iter().map(|v| v["name"].clone()).collect::<Vec<Value>>(),
        ["e.txt"]
    );
    world.oracle();
}
