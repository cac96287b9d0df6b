//! A hub and an edge as real processes, joined by the relay, with a mission on them.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::time::Instant;

use crate::compare::{Picture, differences, picture};
use crate::http::{CallError, User, text};
use crate::node::{Node, Role};
use crate::relay::Relay;

/// Longest wait for both sides to become equal on a good link. Reached only when something is wrong.
pub(crate) const SETTLE_TIME_MAX: Duration = Duration::from_secs(180);

/// Password of every user that the tests make.
pub(crate) const PASSWORD: &str = "Correct-Horse-7";

/// Two enrolled nodes. Dropping it ends both processes.
pub(crate) struct World {
    pub(crate) hub: Node,
    pub(crate) edge: Node,
    pub(crate) relay: Relay,
    pub(crate) hub_admin: User,
    pub(crate) edge_admin: User,
}

impl World {
    /// Starts a hub and an edge that is enrolled at it over the relay.
    pub(crate) async fn start() -> Self {
        Self::start_with_rate("100Mbit/s").await
    }

    /// The same, with the rate that the edge and the hub may send.
    pub(crate) async fn start_with_rate(rate: &str) -> Self {
        let mut hub = Node::init(Role::Hub, "bravo", rate);
        let mut edge = Node::init(Role::Edge, "alpha", rate);
        hub.start().await;
        let relay = Relay::open(hub.link_address(), 7).await;
        edge.join(&hub.invite("alpha", relay.address));
        edge.start().await;
        let hub_admin = hub.admin().await;
        let edge_admin = edge.admin().await;
        Self { hub, edge, relay, hub_admin, edge_admin }
    }

    /// Signs the administrators in again after a restart; tokens outlive it, addresses may not.
    pub(crate) fn follow(&mut self) {
        self.hub_admin = self.hub_admin.at(self.hub.api_address());
        self.edge_admin = self.edge_admin.at(self.edge.api_address());
    }

    /// Waits until both sides show the same and nothing is held, then returns what they show.
    pub(crate) async fn settle(&mut self, channels: &[String]) -> Picture {
        self.follow();
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        loop {
            let edge = picture(&self.edge_admin, channels).await;
            let hub = picture(&self.hub_admin, channels).await;
            let said = match (&edge, &hub) {
                (Ok(edge), Ok(hub)) => differences(edge, hub),
                (Err(e), _) => vec![format!("edge: {e}")],
                (_, Err(e)) => vec![format!("hub: {e}")],
            };
            let held = [self.edge.held(), self.hub.held()];
            if let (Ok(edge), true, [Some(0), Some(0)]) = (&edge, said.is_empty(), held) {
                self.edge.assert_balanced();
                self.hub.assert_balanced();
                return edge.clone();
            }
            assert!(
                Instant::now() < deadline,
                "not equal after {SETTLE_TIME_MAX:?}; held at edge and hub: {held:?}\n{}\n{}\n{}",
                said.join("\n"),
                self.edge.last_words(),
                self.hub.last_words(),
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Waits until neither side holds anything, without asking that they show the same.
    pub(crate) async fn nothing_is_held(&self) {
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        while [self.edge.held(), self.hub.held()] != [Some(0), Some(0)] {
            assert!(Instant::now() < deadline, "still held\n{}\n{}", self.edge.last_words(), self.hub.last_words());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A team with one channel and two users at the edge, everybody in it.
pub(crate) struct Mission {
    pub(crate) team: String,
    pub(crate) channel: String,
    pub(crate) anna: User,
    pub(crate) ben: User,
}

impl Mission {
    pub(crate) async fn found(admin: &User, node: &Node) -> Self {
        let body = json!({"name": "task-force", "display_name": "Task Force", "type": "O"});
        let team = text(&admin.post("/teams", body).await.expect("a team"), "id");
        let anna = enlist(admin, node, &team, "anna").await;
        let ben = enlist(admin, node, &team, "ben").await;
        let channel = open_channel(admin, &team, "fires", "Fires").await;
        for user in [&anna, &ben] {
            let path = format!("/channels/{channel}/members");
            admin.post(&path, json!({"user_id": user.id})).await.expect("a member");
        }
        Self { team, channel, anna, ben }
    }

    pub(crate) fn channels(&self) -> Vec<String> {
        vec![self.channel.clone()]
    }
}

/// Makes a user, puts them in the team and signs them in.
pub(crate) async fn enlist(admin: &User, node: &Node, team: &str, name: &str) -> User {
    let body = json!({"username": name, "email": format!("{name}@example.mil"), "password": PASSWORD});
    let id = text(&admin.post("/users", body).await.expect("a user"), "id");
    let path = format!("/teams/{team}/members");
    admin.post(&path, json!({"team_id": team, "user_id": id})).await.expect("a team member");
    User::sign_in(node.api_address(), name, PASSWORD).await.expect("the new user signs in")
}

pub(crate) async fn open_channel(admin: &User, team: &str, name: &str, shown: &str) -> String {
    let body = json!({"team_id": team, "name": name, "display_name": shown, "type": "O"});
    text(&admin.post("/channels", body).await.expect("a channel"), "id")
}

/// Posts a message and returns the post's id.
pub(crate) async fn say(user: &User, channel: &str, message: &str) -> Result<String, CallError> {
    let post = user.post("/posts", json!({"channel_id": channel, "message": message})).await?;
    Ok(text(&post, "id"))
}

pub(crate) async fn reply(user: &User, channel: &str, root: &str, message: &str) -> Result<String, CallError> {
    let body = json!({"channel_id": channel, "root_id": root, "message": message});
    Ok(text(&user.post("/posts", body).await?, "id"))
}

pub(crate) async fn edit(user: &User, post: &str, message: &str) -> Result<(), CallError> {
    user.put(&format!("/posts/{post}/patch"), json!({"message": message})).await.map(|_| ())
}

pub(crate) async fn react(user: &User, post: &str, emoji: &str) -> Result<(), CallError> {
    let body = json!({"user_id": user.id, "post_id": post, "emoji_name": emoji});
    user.post("/reactions", body).await.map(|_| ())
}

/// Uploads a file and posts it; returns the post's id and the file's.
pub(crate) async fn share(
    user: &User,
    channel: &str,
    name: &str,
    content: &[u8],
) -> Result<(String, String), CallError> {
    let file = user.upload(channel, name, content).await?;
    let body = json!({"channel_id": channel, "message": format!("file {name}"), "file_ids": [file]});
    Ok((text(&user.post("/posts", body).await?, "id"), file))
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}

/// Seed of a random test: `SEED` from the environment to repeat a run, else a fresh one, printed.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("repeat this run with SEED={seed}");
    seed
}
