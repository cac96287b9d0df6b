//! A middle node between two that never talk to each other: it carries what it cannot read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use toml::Table;

use crate::compare::{differences, picture};
use crate::http::User;
use crate::node::{Node, Role, set};
use crate::relay::Relay;
use crate::world::{Mission, SETTLE_TIME_MAX, enlist, noise, say, share};

/// edge alpha --[far]--> ship --[home]--> hub bravo
struct Chain {
    edge: Node,
    ship: Node,
    hub: Node,
    far: Relay,
    home: Relay,
    edge_admin: User,
    hub_admin: User,
}

impl Chain {
    async fn start() -> Self {
        let rate = "10Mbit/s";
        let mut hub = Node::init(Role::Hub, "bravo", rate);
        let mut ship = Node::init(Role::Hub, "ship", rate);
        let mut edge = Node::init(Role::Edge, "alpha", rate);
        // What is said to each other goes over the ship, sealed; nothing is said to the ship itself.
        // An idle edge notices at its next sign of life that the ship began anew: the longer time of both sides.
        let links = "links = [{ name = \"far\", keepalive_seconds = 5 }]";
        for (node, other) in [(&edge, "bravo"), (&hub, "alpha")] {
            let peers = format!("{other} = {{ via = \"ship\" }}\nship = {{ labels = [], {links} }}");
            let peers: Table = peers.parse().unwrap();
            node.configure(|config| set(config, "carrier", "peers", peers));
        }
        let peers: Table = format!("alpha = {{ {links} }}").parse().unwrap();
        ship.configure(|config| {
            set(config, "carrier", "transit_limit", "64MB");
            set(config, "carrier", "peers", peers);
        });
        accept(&edge, &hub);
        accept(&hub, &edge);
        accept(&ship, &edge);
        hub.start().await;
        let home = Relay::open(hub.link_address(), 5).await;
        ship.join(&hub.invite("ship", home.address));
        ship.start().await;
        let far = Relay::open(ship.link_address(), 6).await;
        edge.join(&ship.invite("alpha", far.address));
        edge.start().await;
        let (edge_admin, hub_admin) = (edge.admin().await, hub.admin().await);
        Self { edge, ship, hub, far, home, edge_admin, hub_admin }
    }

    /// Waits until edge and hub show the same.
    async fn equal(&self, mission: &Mission) {
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        loop {
            let edge = picture(&self.edge_admin, &mission.channels()).await;
            let hub = picture(&self.hub_admin, &mission.channels()).await;
            let said = match (&edge, &hub) {
                (Ok(edge), Ok(hub)) => differences(edge, hub),
                (Err(e), _) | (_, Err(e)) => vec![e.to_string()],
            };
            if said.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{}\n{}", said.join("\n"), self.last_words());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}\n{}", self.last_words());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn last_words(&self) -> String {
        let backlogs = [&self.edge, &self.ship, &self.hub].map(|node| asked(node, &["backlog"]).to_string());
        let nodes = [&self.edge, &self.ship, &self.hub].map(Node::last_words);
        format!("{}\n{}", backlogs.join("\n"), nodes.join("\n"))
    }

    /// What the ship holds for a node, and that its equation holds.
    fn carried(&self, to: &str) -> u64 {
        let backlog = asked(&self.ship, &["backlog"]);
        let Some(transit) = backlog["transit"].as_array() else { return 0 };
        for row in transit {
            let term = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("no {name} in {row}"));
            let sum = ["held", "handed_on", "expired", "dropped"].map(term).iter().sum::<u64>();
            assert_eq!(term("found") + term("taken"), sum, "{row}");
            assert_eq!((term("expired"), term("dropped")), (0, 0), "{row}");
        }
        transit.iter().find(|row| row["to"] == to).map_or(0, |row| row["held"].as_u64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_carries_what_it_cannot_read_and_a_kill_of_it_loses_nothing() {
    let mut chain = Chain::start().await;
    let mission = Mission::found(&chain.edge_admin, &chain.edge).await;
    chain.equal(&mission).await;
    chain.until("receipts come back over the ship", |c| c.edge.held() == Some(0) && c.hub.held() == Some(0)).await;
    for (node, peer) in [(&chain.edge, "bravo"), (&chain.hub, "alpha")] {
        let status = node.status().unwrap();
        let facts = status["peers"].as_array().unwrap().iter().find(|p| p["name"] == peer).unwrap();
        assert_eq!(facts["link"]["state"], "relayed", "{facts}");
        assert_eq!(facts["link"]["up_bits_per_second"], 0, "they never talk directly: {facts}");
    }

    // The ship is cut off from home: it takes everything and holds it.
    chain.home.cut();
    let marks = ["kestrel-nine-crosses-at-dawn", "ford-at-grid-38SMB4595", "a-third-of-the-fuel"];
    say(&mission.anna, &mission.channel, marks[0]).await.unwrap();
    for n in 0..20 {
        say(&mission.ben, &mission.channel, &format!("{} {n}", marks[1])).await.unwrap();
    }
    let content = [marks[2].as_bytes(), &noise(21, 300_000), marks[2].as_bytes()].concat();
    share(&mission.ben, &mission.channel, "annex.bin", &content).await.unwrap();
    let all_is_over = |c: &Chain| {
        let row = peer_of(&asked(&c.edge, &["backlog"]), "bravo");
        row["entries"].as_u64() >= Some(22) && row["via"]["handed_over"] == row["entries"] && c.carried("bravo") > 0
    };
    chain.until("everything is on the ship", all_is_over).await;
    chain.until("the file too", |c| c.ship_bytes() > 300_000).await;
    let held = chain.edge.held().unwrap();
    chain.edge.assert_balanced();

    // Killed with all of it, and restarted while the edge is gone: hop by hop, never end to end.
    let on_board = chain.carried("bravo");
    chain.ship.kill();
    let seen = look_for(&chain.ship.data_dir(), &marks);
    assert!(seen.is_empty(), "the ship can read {seen:?}");
    assert!(!look_for(&chain.edge.data_dir(), &marks).is_empty(), "the look finds what is there");
    chain.far.cut();
    chain.ship.start().await;
    assert_eq!(chain.carried("bravo"), on_board);
    chain.home.restore();
    chain.equal(&mission).await;
    assert_eq!(chain.edge.held(), Some(held), "nobody has told the edge");
    chain.until("the hub's receipts are on the ship", |c| c.carried("alpha") > 0).await;
    chain.until("the ship has nothing left for the hub", |c| c.carried("bravo") == 0).await;
    // The last of the receipts is told ten seconds after the first at the latest.
    chain.home.cut();
    chain.far.restore();
    chain.until("some receipts arrive", |c| c.edge.held() < Some(held)).await;
    chain.home.restore();
    chain.until("all receipts arrive", |c| c.edge.held() == Some(0) && c.hub.held() == Some(0)).await;
    chain.edge.assert_balanced();
    chain.hub.assert_balanced();

    // The other way, and a kill of the ship in the middle of it.
    let hanna = enlist(&chain.hub_admin, &chain.hub, &mission.team, "hanna").await;
    let member = serde_json::json!({"user_id": hanna.id});
    chain.hub_admin.post(&format!("/channels/{}/members", mission.channel), member).await.unwrap();
    for n in 0..10 {
        say(&hanna, &mission.channel, &format!("heron-two-has-heard {n}")).await.unwrap();
    }
    chain.ship.kill_and_restart().await;
    chain.equal(&mission).await;
    chain.until("nothing is held", |c| c.edge.held() == Some(0) && c.hub.held() == Some(0)).await;
    chain.until("the ship holds nothing", |c| c.carried("alpha") + c.carried("bravo") == 0).await;
    chain.hub.assert_balanced();
    chain.hub.verify_journal();
    assert!(look_for(&chain.ship.data_dir(), &["kestrel", "heron-two"]).is_empty());
}

impl Chain {
    fn ship_bytes(&self) -> u64 {
        let backlog = asked(&self.ship, &["backlog"]);
        let rows = backlog["transit"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["held_bytes"].as_u64()).sum()
    }
}

/// `at` learns the card of `of`.
fn accept(at: &Node, of: &Node) {
    let card = asked(of, &["enroll", "card"]);
    let done = at.run(&["enroll", "accept", card["card"].as_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
}

fn peer_of(backlog: &Value, name: &str) -> Value {
    let peers = backlog["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().find(|peer| peer["name"] == name).unwrap_or_default()
}

fn asked(node: &Node, verb: &[&str]) -> Value {
    let done = node.run(&[verb, &["--json"]].concat());
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{verb:?}: {e}\n{done:?}"))
}

/// Which of `marks` stand in any file below `dir`.
fn look_for<'a>(dir: &Path, marks: &[&'a str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap().flatten() {
        let (path, kind) = (item.path(), item.file_type().unwrap());
        if kind.is_dir() {
            found.extend(look_for(&path, marks));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let is_there = |mark: &&&str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
            found.extend(marks.iter().filter(is_there).copied());
        }
    }
    found
}
