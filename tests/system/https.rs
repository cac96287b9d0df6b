//! The HTTPS lane between real nodes: it carries where UDP is blocked, and takes over in the middle of a transfer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use toml::{Table, Value as Toml};

use crate::node::{Node, free_port};
use crate::world::{Mission, World, noise, say, share};

/// A TCP path that can go dead without a word.
struct Path {
    address: SocketAddr,
    dead: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Path {
    async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mut tasks) = (listener.local_addr().unwrap(), JoinSet::new());
        let (dead, carried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let state = (Arc::clone(&dead), Arc::clone(&carried));
        tasks.spawn(async move {
            let mut inside = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                // The hub is restarted at times.
                let Ok(far) = TcpStream::connect(hub).await else { continue };
                let ((from, to_near), (back, to_far)) = (near.into_split(), far.into_split());
                inside.spawn(carry(from, to_far, state.clone()));
                inside.spawn(carry(back, to_near, state.clone()));
            }
        });
        Self { address, dead, carried, _tasks: tasks }
    }

    fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: (Arc<AtomicBool>, Arc<AtomicU64>)) {
    let mut buffer = [0u8; 4_096];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        while state.0.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
        state.1.fetch_add(len as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

/// What the log shows for peers that pin the certificate.
fn pin_of(hub: &Node) -> String {
    let log = hub.last_words();
    let pin = log
        .split("peers can come in over HTTPS")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 64).map(str::to_owned));
    pin.unwrap_or_else(|| panic!("no pin in the log:\n{log}"))
}

/// The edge gets a second link, over HTTPS, that costs more.
async fn with_https(world: &mut World) -> Path {
    let listen = free_port();
    let at = |table: &mut Table| {
        table["carrier"].as_table_mut().unwrap().insert("https_listen".into(), listen.to_string().into())
    };
    world.hub.restart_with(|config| drop(at(config))).await;
    let (path, pin) = (Path::to(listen).await, pin_of(&world.hub));
    let links: Table = format!(
        "[[links]]\nname = \"radio\"\n\
         [[links]]\nname = \"web\"\nlane = \"https\"\naddress = \"{}\"\ncost = 9\nhttps = {{ pin = \"{pin}\" }}\n",
        path.address
    )
    .parse()
    .unwrap();
    let peers = Table::from_iter([("bravo".to_owned(), Toml::Table(links))]);
    world
        .edge
        .restart_with(|config| {
            config["carrier"].as_table_mut().unwrap().insert("peers".into(), peers.into());
        })
        .await;
    world.follow();
    path
}

fn states(edge: &Node) -> Vec<(String, String, String)> {
    let done = edge.run(&["link", "list", "--json"]);
    let list: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = list["links"].as_array().unwrap().iter();
    rows.map(|row| (text(row, "link"), text(row, "lane"), text(row, "state"))).collect()
}

async fn until(what: &str, world: &World, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "waited in vain: {what}\n{}\n{}",
            world.edge.last_words(),
            world.hub.last_words()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_carries_where_udp_is_blocked() {
    let mut world = World::start().await;
    world.relay.cut();
    let path = with_https(&mut world).await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    for n in 0..20 {
        say(&mission.anna, &mission.channel, &format!("word {n}")).await.unwrap();
    }
    share(&mission.ben, &mission.channel, "photo.bin", &noise(4, 200_000)).await.unwrap();
    let seen = world.settle(&mission.channels()).await;
    let words: BTreeSet<&str> =
        seen.values().filter_map(|o| o["message"].as_str()).filter(|m| m.starts_with("word ")).collect();
    assert_eq!(words.len(), 20);
    let states = states(&world.edge);
    assert!(states[0].0 == "radio" && states[0].2 != "up", "{states:?}");
    assert_eq!(states[1], ("web".to_owned(), "https".to_owned(), "up".to_owned()));
    assert!(path.carried() > 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_changes_from_udp_to_https_and_back_and_arrives_once() {
    let mut world = World::start_with_rate("2Mbit/s").await;
    let path = with_https(&mut world).await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    world.settle(&mission.channels()).await;
    // Nine seconds at 2 Mbit/s.
    share(&mission.ben, &mission.channel, "survey.bin", &noise(9, 2_200_000)).await.unwrap();
    for n in 0..30 {
        say(&mission.anna, &mission.channel, &format!("word {n}")).await.unwrap();
    }
    let (udp, tcp) = (world.relay.bytes_carried(), path.carried());
    until("a part of it over UDP", &world, || world.relay.bytes_carried() - udp > 400_000).await;
    world.relay.cut();
    until("a part of it over HTTPS", &world, || path.carried() - tcp > 500_000).await;
    world.relay.restore();
    path.dead.store(true, Ordering::SeqCst);
    let seen = world.settle(&mission.channels()).await;
    let words = seen.values().filter_map(|o| o["message"].as_str()).filter(|m| m.starts_with("word ")).count();
    assert_eq!(words, 30);
}
