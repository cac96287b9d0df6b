//! What a thief finds on the disk: nothing of the journal without its keys, and nothing at all after a zeroize.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::node::Node;
use crate::world::{Mission, World, say};

const PLANTED: &str = "rendezvous at the third bridge at first light";

#[tokio::test(flavor = "multi_thread")]
async fn posts_stand_in_no_file_of_the_journal_and_a_rotation_loses_none() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    for n in 0..30 {
        say(&mission.anna, &mission.channel, &format!("{PLANTED} {n}")).await.unwrap();
    }
    world.settle(&mission.channels()).await;
    for node in [&world.edge, &world.hub] {
        let data = node.data_dir();
        assert_eq!(files_with(&data.join("journal"), PLANTED.as_bytes()), Vec::<PathBuf>::new());
        assert!(!files_with(&data.join("core"), PLANTED.as_bytes()).is_empty(), "the search finds what is there");
    }
    let before = entries(&world.edge);
    assert!(before > 30, "{before}");
    assert_eq!(numbers(&world.edge), [1]);
    let rotated = json(&world.edge, &["keys", "rotate", "--rewrite", "--json"]);
    assert_eq!((&rotated["number"], &rotated["destroyed"]), (&Value::from(2), &serde_json::json!([1])), "{rotated}");
    assert_eq!(numbers(&world.edge), [2]);
    assert_eq!(entries(&world.edge), before);
    world.edge.verify_journal();
    say(&mission.anna, &mission.channel, "after the rotation").await.unwrap();
    world.settle(&mission.channels()).await;
    world.edge.stop().await;
    // The same without a running node, and from then on with a passphrase.
    assert_eq!(json(&world.edge, &["keys", "rotate", "--rewrite", "--json"])["number"], 3);
    let phrase = world.edge.data_dir().join("../phrase");
    write_private(&phrase, "correct horse battery staple\n");
    let phrase = phrase.canonicalize().unwrap();
    let args = ["keys", "rewrap", "--source", "passphrase", "--passphrase-file", phrase.to_str().unwrap()];
    assert!(world.edge.run(&args).status.success());
    assert!(!world.edge.data_dir().join("keys/wrapping.key").exists(), "the former key file opens nothing any more");
    let refused = world.edge.run(&["journal", "verify"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("next step"), "{said}");
    world.edge.configure(|config| {
        let mut keys = toml::Table::new();
        keys.insert("source".to_owned(), "passphrase".into());
        keys.insert("passphrase_file".to_owned(), phrase.to_str().unwrap().into());
        config.insert("keys".to_owned(), keys.into());
    });
    world.edge.start().await;
    world.edge.verify_journal();
    write_private(&phrase, "correct horse battery stable\n");
    let refused = world.edge.run(&["journal", "verify"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("does not open with this passphrase; keyring and journal are intact"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zeroize_stops_the_node_and_leaves_neither_keys_nor_plaintext() {
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    for n in 0..10 {
        say(&mission.anna, &mission.channel, &format!("{PLANTED} {n}")).await.unwrap();
    }
    world.settle(&mission.channels()).await;
    let data = world.edge.data_dir();
    let secrets: Vec<Vec<u8>> = key_lines(&data.join("keys"));
    assert!(secrets.len() >= 4, "wrapping key, keyring, node key, chunk secret");
    let stolen = tempfile::tempdir().unwrap();
    copy(&data.join("journal/segments"), &stolen.path().join("journal/segments"));
    let name = json(&world.edge, &["status", "--json"])["node"]["name"].as_str().unwrap().to_owned();

    let refused = world.edge.run(&["zeroize", "--yes-destroy", "another"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(data.join("keys/wrapping.key").exists());
    let report = json(&world.edge, &["zeroize", "--yes-destroy", &name, "--json"]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert!(report["keys_destroyed_in_ms"].as_i64().unwrap() < 1_000, "{report:#}");
    let tried: Vec<_> = report["proofs"].as_array().unwrap().iter().map(|p| p["holds"] == true).collect();
    assert_eq!(tried, [true, true, true], "{report:#}");

    for secret in secrets.iter().map(Vec::as_slice).chain([PLANTED.as_bytes()]) {
        assert_eq!(files_with(&data, secret), Vec::<PathBuf>::new());
    }
    assert!(!data.join("journal").exists() && !data.join("core").exists() && !data.join("keys").exists());
    assert_eq!(files_with(stolen.path(), PLANTED.as_bytes()), Vec::<PathBuf>::new(), "a copy of the journal is noise");
    let again = world.edge.run(&["status"]);
    assert_eq!(again.status.code(), Some(5), "there is no node any more");
}

fn json(node: &Node, args: &[&str]) -> Value {
    let done = node.run(args);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&done.stdout));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// The data keys that there are.
fn numbers(node: &Node) -> Vec<u64> {
    let list = json(node, &["keys", "list", "--json"]);
    list["keys"].as_array().unwrap().iter().map(|key| key["number"].as_u64().unwrap()).collect()
}

fn entries(node: &Node) -> usize {
    let done = node.run(&["journal", "list", "--limit", "100000", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count()
}

/// From each key file what nothing else contains: its last 24 bytes that are not line ends.
fn key_lines(dir: &Path) -> Vec<Vec<u8>> {
    let secret = ["wrapping.key", "journal.keys", "node.key", "chunk.secret"];
    let read = |name: &&str| fs::read(dir.join(name)).unwrap();
    let tail = |bytes: Vec<u8>| {
        let end = bytes.iter().rposition(|b| *b != b'\n').unwrap() + 1;
        bytes[end - 24..end].to_vec()
    };
    secret.iter().map(read).map(tail).collect()
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn files_with(dir: &Path, wanted: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).into_iter().flatten().map(|item| item.unwrap().path()) {
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if path.is_file() && fs::read(&path).unwrap_or_default().windows(wanted.len()).any(|w| w == wanted) {
            found.push(path);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in fs::read_dir(from).unwrap().map(|item| item.unwrap().path()) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
