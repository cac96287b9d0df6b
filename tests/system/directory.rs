//! People whom Entra knows, at a hub that syncs them and an edge that knows Entra only by its hub.

use std::time::Duration;

use graphsim::{App, Failure, FaultRule, Group, Lag, Settings, Sim, User as Person};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::Instant;
use toml::Table;

use crate::http::{CallError, User, text};
use crate::node::{Node, set};
use crate::world::{PASSWORD, World, open_channel, say};

/// Longest wait for accounts to be made, and for one to end.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(60);

/// Posts that wait for the thin link, of so many letters each, drawn at random: some 200 kB, 25 s at 64 kbit/s.
const BACKLOG_POSTS: usize = 250;
const BACKLOG_LETTERS: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_person_signs_in_at_the_edge_without_entra_and_a_revocation_overtakes_the_backlog_of_a_thin_link() {
    let mut world = World::start_with_rate("64kbit/s").await;
    let lag = Lag { directory_ms: 0, ..Lag::default() };
    let sim = Sim::start(Settings { lag, ..Settings::seeded(11) }).expect("the simulator starts");
    let [anna, ben] = ["anna", "ben"].map(|name| sim.add_user(Person::new(name)));
    let members = [anna.clone(), ben].into();
    let group = sim.add_group(Group { display_name: "Mission".into(), members, ..Group::default() });
    let body = json!({"name": "task-force", "display_name": "Task Force", "type": "O"});
    let team = text(&world.hub_admin.post("/teams", body).await.expect("a team"), "id");
    let fires = open_channel(&world.hub_admin, &team, "fires", "Fires").await;
    world.hub.stop().await;
    follow(&world.hub, &sim, &group);
    world.hub.start().await;
    world.follow();
    sync(&world.hub);
    for name in ["anna", "ben"] {
        enrols(&world.edge, &world.edge_admin, name).await;
    }

    // Neither Entra nor the hub can be asked.
    sim.fail(FaultRule::new(Failure::ResetBefore).times(u32::MAX));
    world.relay.cut();
    let anna_at_edge = User::sign_in(world.edge.api_address(), "anna", PASSWORD).await.expect("anna signs in");
    let ben_at_edge = User::sign_in(world.edge.api_address(), "ben", PASSWORD).await.expect("ben signs in");
    say(&anna_at_edge, &fires, "here without Entra").await.expect("a place in the mapped channel");
    let (mut annas, mut bens) = (anna_at_edge.listen().await, ben_at_edge.listen().await);

    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..BACKLOG_POSTS {
        let letters: String = (0..BACKLOG_LETTERS).map(|_| char::from(rng.random_range(b'!'..=b'~'))).collect();
        say(&world.hub_admin, &fires, &letters).await.expect("a post");
    }
    sim.heal();
    let Value::Object(blocked) = json!({"accountEnabled": false}) else { unreachable!("an object") };
    sim.change_object(&anna, blocked).expect("she is known");
    sync(&world.hub);
    let backlog = world.hub.held().expect("the hub answers");
    assert!(backlog > BACKLOG_POSTS as u64, "only {backlog} entries wait");
    world.relay.restore();
    world.edge.connected().await;
    let since = Instant::now();
    annas.ends(CHANGE_TIME_MAX).await;
    let (took, left) = (since.elapsed(), world.hub.held().expect("the hub answers"));
    println!("the socket ended {took:?} after the link was back; {left} of {backlog} entries still waited");
    assert!(left * 2 > backlog, "the revocation did not go ahead: {left} of {backlog} entries still waited");
    for refused in [
        anna_at_edge.get("/users/me").await.map(drop),
        User::sign_in(world.edge.api_address(), "anna", PASSWORD).await.map(drop),
    ] {
        assert!(matches!(refused, Err(CallError::Refused { status: 401, .. })), "{refused:?}");
    }
    let mine = say(&ben_at_edge, &fires, "still here").await.expect("ben goes on");
    bens.until("his own post", |event| event["data"]["post"].as_str().is_some_and(|post| post.contains(&mine))).await;
    world.nothing_is_held().await;
}

/// The sync of a stopped node follows one group, which leads to the team and its channel.
fn follow(node: &Node, sim: &Sim, group: &str) {
    let app = App::new("Holdfast").secret("s3cret").application(&["User.Read.All", "Group.Read.All"]);
    let client = sim.add_app(app).expect("an app");
    let (roots, secret) = (node.path_for("roots.pem"), node.path_for("secret"));
    std::fs::write(&roots, sim.ca_pem()).expect("a file");
    std::fs::write(&secret, "s3cret").expect("a file");
    node.configure(|config| {
        for (key, value) in [
            ("login", sim.login_url()),
            ("issuer", sim.login_url()),
            ("graph", sim.graph_url()),
            ("resource", sim.graph_url()),
            ("tenant", &sim.tenant()),
            ("client", &client),
            ("secret_file", secret.to_str().expect("text")),
            ("roots_file", roots.to_str().expect("text")),
        ] {
            set(config, "microsoft", key, value);
        }
        let directory =
            json!({"enabled": true, "groups": [{"id": group, "team": "task-force", "channels": ["fires"]}]});
        set(config, "microsoft", "directory", Table::try_from(directory).expect("a section"));
    });
}

/// A round of the sync, as an operator asks for it.
fn sync(node: &Node) {
    let done = node.run(&["directory", "sync", "--json"]);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}\n{}", node.last_words());
}

/// Waits for the account and sets a password by a link that the operator of this node hands out.
async fn enrols(node: &Node, admin: &User, name: &str) {
    let deadline = Instant::now() + CHANGE_TIME_MAX;
    while admin.get(&format!("/users/username/{name}")).await.is_err() {
        assert!(Instant::now() < deadline, "{name} is not here\n{}", node.last_words());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let done = node.run(&["directory", "enroll", name, "--url", "https://edge.test", "--json"]);
    let shown: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    let (_, token) = shown["links"][0]["url"].as_str().expect("a link").split_once("token=").expect("a token");
    let body = json!({"token": token, "new_password": PASSWORD});
    User::anonymous(node.api_address()).post("/users/password/reset", body).await.expect("the link is good");
}
