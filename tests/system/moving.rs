//! A whole server as an archive, by the operator's verbs: from a node, into another one, and through kills.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::compare::posts;
use crate::http::{User, text};
use crate::node::{Node, Role};
use crate::world::{Mission, edit, noise, react, reply, say, share};

const RATE: &str = "1Mbit/s";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_moves_by_archive_to_a_node_that_runs_and_to_one_that_does_not() {
    let mut old = Node::init(Role::Edge, "alpha", RATE);
    old.start().await;
    let admin = old.admin().await;
    let mission = Mission::found(&admin, &old).await;
    let channel = &mission.channel;
    let root = say(&mission.anna, channel, "Is the bridge open?").await.unwrap();
    reply(&mission.ben, channel, &root, "For trucks too").await.unwrap();
    react(&mission.ben, &root, "eyes").await.unwrap();
    let changed = say(&mission.ben, channel, "grid 1234").await.unwrap();
    edit(&mission.ben, &changed, "grid 1243").await.unwrap();
    share(&mission.anna, channel, "sketch.bin", &noise(1, 300_000)).await.unwrap();
    let there = seen(&admin).await;
    assert!(there.len() >= 4, "{there:?}");

    let [running, stopped] = ["running.zip", "stopped.zip"].map(|name| old.path_for(name));
    let export = |file: &Path| old.run(&["core", "export", path(file), "--attachments", "--json"]);
    let told = answer(&export(&running), "holdfast.core-export/1");
    assert_eq!(told["missing_files"], 0, "{told}");
    let again = export(&running);
    assert!(!again.status.success() && said(&again).contains("exists"), "a file was written over: {}", said(&again));
    old.stop().await;
    let export = old.run(&["core", "export", path(&stopped), "--attachments", "--json"]);
    answer(&export, "holdfast.core-export/1");
    assert_eq!(lines(&running), lines(&stopped));

    let mut new = Node::init(Role::Edge, "bravo", RATE);
    new.start().await;
    let import = |more: &[&str]| new.run(&[&["core", "import", path(&running), "--json"], more].concat());
    let checked = answer(&import(&["--dry-run"]), "holdfast.core-check/1");
    assert_eq!(checked["errors"]["count"], 0, "{checked}");
    let admin = new.admin().await;
    assert!(admin.get("/teams/name/task-force").await.is_err(), "a look changed something");
    let done = answer(&import(&[]), "holdfast.core-import/1");
    assert_eq!(done["without_password"], 3, "{done}");
    assert_eq!(seen(&admin).await, there);
    assert_eq!(answer(&import(&[]), "holdfast.core-import/1")["added"], json!({}));
    assert_eq!(seen(&admin).await, there);
    new.assert_balanced();

    let mut third = Node::init(Role::Edge, "charlie", RATE);
    answer(&third.run(&["core", "import", path(&stopped), "--json"]), "holdfast.core-import/1");
    third.start().await;
    assert_eq!(seen(&third.admin().await).await, there);
    third.assert_balanced();
}

/// One wrong line, and everything stays as it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_with_a_wrong_line_changes_nothing_and_says_which() {
    let mut node = Node::init(Role::Edge, "alpha", RATE);
    node.start().await;
    let file = node.path_for("wrong.zip");
    let mut lines = history(3);
    lines[5]["post"]["user"] = json!("nobody");
    write(&file, &lines);
    let looked = node.run(&["core", "import", path(&file), "--dry-run"]);
    assert_eq!(looked.status.code(), Some(3), "{}", said(&looked));
    let refused = node.run(&["core", "import", path(&file)]);
    assert!(!refused.status.success());
    for done in [looked, refused] {
        let said = said(&done);
        assert!(said.contains("line 6") && said.contains("nobody"), "{said}");
    }
    let admin = node.admin().await;
    assert!(admin.get("/teams/name/task-force").await.is_err());
    assert!(admin.get("/users/username/anna").await.is_err());
}

/// The node dies in the middle of an import, twice: the same command brings it to its end, each post once.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_through_kills_has_each_post_once() {
    const POSTS: usize = 6_000;
    let mut node = Node::init(Role::Edge, "alpha", RATE);
    node.start().await;
    let file = node.path_for("history.zip");
    write(&file, &history(POSTS));
    for part in [POSTS / 10, POSTS / 2] {
        let import = node.spawn(&["core", "import", path(&file), "--json"]);
        let admin = node.admin().await;
        let deadline = Instant::now() + Duration::from_secs(120);
        while count(&admin).await < part {
            assert!(Instant::now() < deadline, "no progress\n{}", node.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node.kill();
        let ended = import.wait_with_output().unwrap();
        assert!(!ended.status.success(), "it was over before the kill: {}", said(&ended));
        node.start().await;
    }
    answer(&node.run(&["core", "import", path(&file), "--json"]), "holdfast.core-import/1");
    let admin = node.admin().await;
    let channel = channel(&admin).await.expect("the channel was imported");
    let mut texts: Vec<String> = posts(&admin, &channel).await.unwrap().iter().map(|p| text(p, "message")).collect();
    texts.retain(|text| text.starts_with("message "));
    texts.sort();
    let wanted: Vec<String> = (0..POSTS).map(message).collect();
    assert!(texts == wanted, "{} posts of {POSTS}", texts.len());
    node.assert_balanced();
    node.verify_journal();
}

fn message(n: usize) -> String {
    format!("message {n:06}")
}

/// A channel with so many posts, in Mattermost's form.
fn history(posts: usize) -> Vec<Value> {
    const START: usize = 1_700_000_000_000;
    let channels = json!([{"name": "fires", "roles": "channel_user"}]);
    let mut lines = vec![
        json!({"type": "version", "version": 1}),
        json!({"type": "team", "team": {"name": "task-force", "display_name": "Task Force", "type": "O"}}),
        json!({"type": "channel", "channel": {"team": "task-force", "name": "fires", "display_name": "Fires", "type": "O"}}),
        json!({"type": "user", "user": {"username": "anna", "email": "anna@example.mil",
            "teams": [{"name": "task-force", "roles": "team_user", "channels": channels}]}}),
    ];
    lines.extend((0..posts).map(|n| {
        json!({"type": "post", "post": {"team": "task-force", "channel": "fires", "user": "anna",
            "message": message(n), "create_at": START + 1_000 * n}})
    }));
    lines
}

fn write(file: &Path, lines: &[Value]) {
    let mut zip = ZipWriter::new(File::create(file).unwrap());
    zip.start_file("import.jsonl", SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
        .unwrap();
    for line in lines {
        writeln!(zip, "{line}").unwrap();
    }
    zip.finish().unwrap();
}

/// The lines of an archive, without its own time.
fn lines(file: &Path) -> Vec<Value> {
    let mut text = String::new();
    ZipArchive::new(File::open(file).unwrap())
        .unwrap()
        .by_name("import.jsonl")
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["type"] != "version").collect()
}

fn path(file: &Path) -> &str {
    file.to_str().expect("the tests' paths are text")
}

fn said(done: &Output) -> String {
    [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn answer(done: &Output, schema: &str) -> Value {
    assert!(done.status.success(), "{}", said(done));
    let value: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(value["schema"], schema, "{value}");
    value
}

async fn channel(viewer: &User) -> Option<String> {
    let found = viewer.get("/teams/name/task-force/channels/name/fires").await.ok()?;
    Some(text(&found, "id"))
}

/// Messages that the channel holds by its own count.
async fn count(viewer: &User) -> usize {
    let Ok(found) = viewer.get("/teams/name/task-force/channels/name/fires").await else { return 0 };
    found["total_msg_count"].as_u64().unwrap_or(0) as usize
}

/// What people see in the channel, by what survives a move: ids do not.
async fn seen(viewer: &User) -> BTreeMap<String, Value> {
    let channel = channel(viewer).await.expect("the channel is there");
    let posts = posts(viewer, &channel).await.unwrap();
    let texts: BTreeMap<String, String> = posts.iter().map(|p| (text(p, "id"), text(p, "message"))).collect();
    let mut seen = BTreeMap::new();
    for post in posts.iter().filter(|post| text(post, "type").is_empty()) {
        let author = viewer.get(&format!("/users/{}", text(post, "user_id"))).await.unwrap();
        let mut files = Vec::new();
        for file in post["metadata"]["files"].as_array().into_iter().flatten() {
            let bytes = viewer.download(&text(file, "id")).await.unwrap();
            files.push(json!([text(file, "name"), bytes.len(), bytes[..] == noise(1, bytes.len())[..]]));
        }
        let reactions = post["metadata"]["reactions"].as_array().into_iter().flatten();
        let state = json!({
            "author": text(&author, "username"),
            "at": post["create_at"],
            "edited": post["edit_at"],
            "under": texts.get(&text(post, "root_id")),
            "reactions": reactions.map(|r| json!([text(r, "emoji_name"), r["create_at"]])).collect::<Vec<_>>(),
            "files": files,
        });
        assert!(seen.insert(text(post, "message"), state).is_none(), "{} is there twice", text(post, "message"));
    }
    seen
}
