//! A node on a disk that fills: what is refused first, and that it goes on by itself when there is room again.
//!
//! Each test runs itself once more in a mount namespace of its own, so that its mounts end with it. Needs root.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::compare::posts;
use crate::http::{CallError, User, text};
use crate::node::{Node, Role};
use crate::relay::Relay;
use crate::world::{Mission, World, noise, share};

/// What the node promises from the moment when there is room.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(5);

/// The node looks at its disk every second.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(20);

/// Set in the process that is in a namespace of its own.
const INSIDE: &str = "HOLDFAST_TEST_MOUNTS";

#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_fills_in_the_stated_order_and_the_node_goes_on_within_5_s_of_room() {
    let name = "a_small_disk_fills_in_the_stated_order_and_the_node_goes_on_within_5_s_of_room";
    if !in_own_namespace(name) {
        return;
    }
    let (mut world, data) = small_world(|data| mount(&["-t", "tmpfs", "-o", "size=16m", "none"], data)).await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    let mut ballast = Ballast { file: data.join("ballast") };
    let mut told = Told::default();
    told.tell(&mission, true).await;
    assert_eq!(told.last, [201, 201, 201, 201], "nothing is refused on a roomy disk: {}", level(&world.edge));

    let mut seen = Vec::new();
    // Bytes that are left with the reserve, in quarters of the reserve: a little above each mark that is passed last.
    for (quarters, expected) in [
        (14, "files_refused"),
        (10, "deferred_refused"),
        (7, "routine_refused"),
        (5, "priority_refused"),
        (4, "only_flash"),
    ] {
        ballast.leave(&world.edge, quarters, expected).await;
        told.tell(&mission, true).await;
        seen.push(told.last);
    }
    assert_eq!(
        seen,
        [
            // Upload, routine, important, urgent.
            [507, 201, 201, 201],
            [507, 201, 201, 201],
            [507, 507, 201, 201],
            [507, 507, 201, 201],
            [507, 507, 507, 201],
        ]
    );
    let complaint = "free space on the disk";
    assert!(world.edge.complains_of(complaint), "no next step: {}", world.edge.status().unwrap_or_default());

    // Another program takes all that is left, again and again.
    for _ in 0..3 {
        ballast.take_everything();
        told.tell(&mission, false).await;
        assert!(told.last.iter().all(|status| [201, 507].contains(status)), "{:?}", told.last);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }

    ballast.remove();
    let took = recovery(&mission).await;
    println!("messages and files flow {} ms after there is room", took.as_millis());
    told.tell(&mission, true).await;
    assert_eq!(told.last, [201, 201, 201, 201]);
    world.edge.assert_balanced();
    world.relay.restore();
    world.settle(&mission.channels()).await;
    told.agrees(&world.hub_admin, &mission.channel).await;
    assert_eq!(world.edge.starts(), 1, "it went on without a restart");
    world.edge.stop().await;
    world.edge.verify_journal();
    world.edge.start().await;
    world.edge.stop().await;
    drop(world);
    unmount(&data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_inodes_refuses_files_and_takes_messages() {
    if !in_own_namespace("a_disk_without_inodes_refuses_files_and_takes_messages") {
        return;
    }
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(64 << 20).unwrap();
    let path = image.path().to_str().unwrap().to_owned();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-N", "128", &path]).status().unwrap();
    assert!(made.success());
    let (mut world, data) = small_world(|data| mount(&["-o", "loop", &path], data)).await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    world.relay.cut();
    let mut told = Told::default();
    told.tell(&mission, true).await;
    assert_eq!(told.last, [201, 201, 201, 201], "{}", level(&world.edge));

    let litter = data.join("litter");
    fs::create_dir(&litter).unwrap();
    let mut files = 0;
    while File::create(litter.join(files.to_string())).is_ok() {
        files += 1;
    }
    wait_for_level(&world.edge, "files_refused").await;
    let cause = world.edge.status().unwrap()["disk"]["space"]["cause"].clone();
    assert_eq!(cause, "inodes");
    // More than a segment of 1 MiB: the next segment file cannot be made.
    let before = segments(&data);
    for _ in 0..90 {
        told.say(&mission, "routine", "", &"x".repeat(15_000)).await;
    }
    told.tell(&mission, true).await;
    assert_eq!(told.last, [507, 201, 201, 201]);
    assert_eq!(segments(&data), before);

    fs::remove_dir_all(&litter).unwrap();
    let took = recovery(&mission).await;
    println!("files flow {} ms after there are inodes", took.as_millis());
    told.tell(&mission, true).await;
    assert_eq!(told.last, [201, 201, 201, 201]);
    world.relay.restore();
    world.settle(&mission.channels()).await;
    told.agrees(&world.hub_admin, &mission.channel).await;
    assert_eq!(world.edge.starts(), 1);
    world.edge.stop().await;
    world.edge.verify_journal();
    drop(world);
    unmount(&data);
}

/// False when the test has been run in a namespace of its own by now, or cannot be.
fn in_own_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may.is_ok_and(|done| done.status.success()) {
        println!("skipped: mounting needs root (unshare -m)");
        return false;
    }
    let me = std::env::current_exe().unwrap();
    let full_name = format!("full_disk::{test}");
    let mut command = Command::new("unshare");
    command.arg("-m").arg(me).args(["--exact", &full_name, "--nocapture"]).env(INSIDE, "1");
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    println!("{said}");
    assert!(done.status.success() && said.contains("1 passed"), "failed in its namespace");
    false
}

fn mount(what: &[&str], at: &Path) {
    let done = Command::new("mount").args(what).arg(at).output().unwrap();
    assert!(done.status.success(), "mount: {}", String::from_utf8_lossy(&done.stderr));
}

fn unmount(at: &Path) {
    let done = Command::new("umount").arg("-l").arg(at).output().unwrap();
    assert!(done.status.success(), "umount: {}", String::from_utf8_lossy(&done.stderr));
}

/// A hub on the usual disk, and an edge whose data directory is what `mount` puts there.
async fn small_world(mount: impl FnOnce(&Path)) -> (World, PathBuf) {
    let mut hub = Node::init(Role::Hub, "bravo", "100Mbit/s");
    let mut edge = Node::init_on(Role::Edge, "alpha", "100Mbit/s", mount);
    hub.start().await;
    let relay = Relay::open(hub.link_address(), 7).await;
    edge.join(&hub.invite("alpha", relay.address));
    edge.start().await;
    let (hub_admin, edge_admin) = (hub.admin().await, edge.admin().await);
    let data = edge.data_dir();
    (World { hub, edge, relay, hub_admin, edge_admin }, data)
}

fn segments(data: &Path) -> usize {
    fs::read_dir(data.join("journal/segments")).unwrap().count()
}

fn space(node: &Node) -> Value {
    node.status().map(|status| status["disk"]["space"].clone()).unwrap_or_default()
}

fn level(node: &Node) -> String {
    text(&space(node), "level")
}

async fn wait_for_level(node: &Node, expected: &str) {
    let deadline = Instant::now() + NOTICE_TIME_MAX;
    while level(node) != expected {
        assert!(Instant::now() < deadline, "{} is not {expected}\n{}", space(node), node.last_words());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long until both a message and a file are accepted.
async fn recovery(mission: &Mission) -> Duration {
    let start = Instant::now();
    let content = noise(start.elapsed().as_nanos() as u64, 2_000);
    while share(&mission.ben, &mission.channel, "again.bin", &content).await.is_err() {
        assert!(start.elapsed() < RECOVERY_TIME_MAX, "not within {RECOVERY_TIME_MAX:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    start.elapsed()
}

/// What another program has written.
struct Ballast {
    file: PathBuf,
}

impl Ballast {
    /// Grows or shrinks until so much is left, and the node says what it then refuses. The node's own files move too.
    async fn leave(&mut self, node: &Node, quarters: u64, expected: &str) {
        let deadline = Instant::now() + 3 * NOTICE_TIME_MAX;
        loop {
            let space = space(node);
            let number = |field: &str| space[field].as_u64().unwrap_or_else(|| panic!("no {field}: {space}"));
            let wanted = number("reserve_wanted_bytes") * quarters / 4 + (64 << 10);
            let (left, size) = (number("disk_left_bytes"), fs::metadata(&self.file).map_or(0, |m| m.len()));
            if text(&space, "level") == expected && left.abs_diff(wanted) < 96 << 10 {
                return;
            }
            // The node was pushed past the level by its own files, and comes back only with some slack: again from above.
            let slack = if left.abs_diff(wanted) < 96 << 10 { 512 << 10 } else { 0 };
            let target = (size + left).saturating_sub(wanted + slack);
            if target > size {
                let mut file = File::options().create(true).append(true).open(&self.file).unwrap();
                // Runs against the node for the last bytes; the next look decides.
                file.write_all(&vec![0; (target - size) as usize]).ok();
            } else {
                File::options().create(true).append(true).open(&self.file).unwrap().set_len(target).unwrap();
            }
            assert!(Instant::now() < deadline, "{space} does not get to {expected}\n{}", node.last_words());
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
    }

    fn take_everything(&mut self) {
        let mut file = File::options().create(true).append(true).open(&self.file).unwrap();
        while file.write_all(&[0; 4 << 10]).is_ok() {}
    }

    fn remove(&mut self) {
        fs::remove_file(&self.file).unwrap();
    }
}

/// What was said, and whether it was accepted.
#[derive(Default)]
struct Told {
    accepted: Vec<String>,
    refused: Vec<String>,
    last: [u16; 4],
    round: u32,
}

impl Told {
    /// Tries a file and a message of each priority.
    async fn tell(&mut self, mission: &Mission, with_file: bool) {
        self.round += 1;
        let content = noise(u64::from(self.round), 10_000);
        self.last[0] = match with_file {
            true => status(&share(&mission.ben, &mission.channel, "map.bin", &content).await),
            false => 201,
        };
        for (i, priority) in ["", "important", "urgent"].into_iter().enumerate() {
            self.last[i + 1] = self.say(mission, "message", priority, "").await;
        }
    }

    async fn say(&mut self, mission: &Mission, what: &str, priority: &str, padding: &str) -> u16 {
        let number = self.accepted.len() + self.refused.len();
        let message = format!("{what} {number} {priority}{padding}");
        let mut body = json!({"channel_id": mission.channel, "message": message});
        if !priority.is_empty() {
            body["metadata"] = json!({"priority": {"priority": priority}});
        }
        let done = mission.anna.post("/posts", body).await;
        let list = if done.is_ok() { &mut self.accepted } else { &mut self.refused };
        list.push(message);
        status(&done)
    }

    /// The other side has each accepted message once and no refused one.
    async fn agrees(&self, viewer: &User, channel: &str) {
        let there = posts(viewer, channel).await.unwrap();
        let count = |message: &String| there.iter().filter(|post| post["message"] == message.as_str()).count();
        for message in &self.accepted {
            assert_eq!(count(message), 1, "accepted: {message}");
        }
        for message in &self.refused {
            assert_eq!(count(message), 0, "refused: {message}");
        }
    }
}

fn status<T>(done: &Result<T, CallError>) -> u16 {
    match done {
        Ok(_) => 201,
        Err(CallError::Refused { status, id, text }) => {
            assert!(*status != 507 || id == "holdfast.space.app_error", "{id}: {text}");
            *status
        }
        Err(CallError::Lost(why)) => panic!("no answer: {why}"),
    }
}
