//! The official clients, unchanged, against the real binary. `scripts/test clients` installs them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::node::set;
use crate::world::{Mission, PASSWORD, World, enlist, say};

/// Both scripts wait up to 90 s for one replica; in practice they take a few seconds.
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn official_python_driver_works_at_the_edge_and_sees_the_replica_at_the_hub() {
    let Ok(python) = std::env::var("HOLDFAST_PYTHON") else {
        return println!("skipped: HOLDFAST_PYTHON is not set; `scripts/test clients` installs the driver and sets it");
    };
    run(&python, "python/replica.py").await;
}

/// Both clients over every endpoint of tests/clients/sets.txt, and every answer against Mattermost's description of its API
/// where that is at hand.
#[tokio::test(flavor = "multi_thread")]
async fn official_clients_use_every_endpoint_of_both_sets_and_are_answered_as_described() {
    let (Ok(python), Ok(_)) = (std::env::var("HOLDFAST_PYTHON"), std::env::var("HOLDFAST_NODE_MODULES")) else {
        return println!(
            "skipped: HOLDFAST_PYTHON or HOLDFAST_NODE_MODULES is not set; `scripts/test clients` installs the clients and sets them"
        );
    };
    let mut world = World::start().await;
    world.edge.stop().await;
    world.edge.configure(|config| {
        // The scripts sign in more often than people do, and call back to themselves.
        set(config, "http", "logins_per_second", 0);
        let integrations = toml::toml! { allowed_internal = ["127.0.0.1"] };
        set(config, "core", "integrations", integrations);
    });
    world.edge.start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut traffic = Vec::new();
    for (client, interpreter, script) in
        [("python", python.as_str(), "python/main.py"), ("javascript", "node", "javascript/main.mjs")]
    {
        let file = dir.path().join(client);
        run_in(&world, interpreter, script, |command| command.env("HOLDFAST_TRAFFIC", &file)).await;
        traffic.push(format!("{client}={}", file.display()));
    }
    run_in(&world, &python, "python/conformance.py", |command| command.args(traffic)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn official_javascript_client_works_at_the_edge_and_sees_the_replica_at_the_hub() {
    if std::env::var("HOLDFAST_NODE_MODULES").is_err() {
        return println!(
            "skipped: HOLDFAST_NODE_MODULES is not set; `scripts/test clients` installs the client and sets it"
        );
    }
    run("node", "javascript/replica.mjs").await;
}

/// What the story of tests/clients/python/story.py is answered at an edge, against the recording of a real server's answers, and
/// against Mattermost's description of its API where that is at hand.
#[tokio::test(flavor = "multi_thread")]
async fn official_answers_have_the_shapes_that_a_real_server_gives() {
    let Ok(python) = std::env::var("HOLDFAST_PYTHON") else {
        return println!(
            "skipped: HOLDFAST_PYTHON is not set; `scripts/test clients` installs the libraries and sets it"
        );
    };
    run(&python, "python/recorded.py").await;
}

/// Mattermost's own web app in Chromium. Its build is nobody's to ship: HOLDFAST_WEBAPP names the directory.
#[tokio::test(flavor = "multi_thread")]
async fn official_web_app_is_used_in_a_browser() {
    let (Ok(webapp), Ok(_)) = (std::env::var("HOLDFAST_WEBAPP"), std::env::var("HOLDFAST_CHROMIUM")) else {
        return println!(
            "skipped: HOLDFAST_WEBAPP (the `client` directory of a Mattermost release) or HOLDFAST_CHROMIUM is not set"
        );
    };
    let mut world = World::start().await;
    world.edge.stop().await;
    world.edge.configure(|config| set(config, "http", "webapp", webapp.as_str()));
    world.edge.start().await;
    run_in(&world, "node", "javascript/webapp.mjs", |command| command).await;
}

/// The same at a hub: its reader sees the age of what the edge wrote, answers while the edge is away, and the answer is
/// confirmed when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn official_web_app_at_a_hub_shows_how_old_it_is_and_answers_arrive() {
    let (Ok(webapp), Ok(_)) = (std::env::var("HOLDFAST_WEBAPP"), std::env::var("HOLDFAST_CHROMIUM")) else {
        return println!(
            "skipped: HOLDFAST_WEBAPP (the `client` directory of a Mattermost release) or HOLDFAST_CHROMIUM is not set"
        );
    };
    let mut world = World::start().await;
    let mission = Mission::found(&world.edge_admin, &world.edge).await;
    say(&mission.anna, &mission.channel, "Is the bridge open?").await.expect("a post");
    world.settle(&mission.channels()).await;
    world.hub.stop().await;
    world.hub.configure(|config| set(config, "http", "webapp", webapp.as_str()));
    world.hub.start().await;
    let hanna = enlist(&world.hub_admin, &world.hub, &mission.team, "hanna").await;
    let path = format!("/channels/{}/members", mission.channel);
    world.hub_admin.post(&path, json!({"user_id": hanna.id})).await.expect("a member");
    world.settle(&mission.channels()).await;
    world.edge.stop().await;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/javascript/mirror.mjs");
    let mut command = Command::new("node");
    command.arg(path).kill_on_drop(true).stdout(Stdio::piped());
    command.env("HOLDFAST_HUB_URL", format!("http://{}", world.hub.api_address()));
    command.env("HOLDFAST_USER", "hanna").env("HOLDFAST_PASSWORD", PASSWORD);
    command.env("HOLDFAST_CHANNEL", "task-force/channels/fires");
    let mut browser = command.spawn().expect("it starts");
    let mut lines = BufReader::new(browser.stdout.take().expect("it is piped")).lines();
    let used = async {
        while let Some(line) = lines.next_line().await.expect("lines") {
            println!("{line}");
            if line == "ok - hub: answered" {
                world.edge.start().await;
            }
        }
        browser.wait().await.expect("it ends")
    };
    let status = tokio::time::timeout(SCRIPT_TIME_MAX, used).await.expect("it ends");
    assert!(status.success(), "mirror.mjs: {status}\n{}", world.hub.last_words());
    let posts = mission.anna.get(&format!("/channels/{}/posts", mission.channel)).await.expect("the posts");
    assert!(posts.to_string().contains("Open for trucks"), "the answer is not at the edge: {posts}");
}

async fn run(interpreter: &str, script: &str) {
    run_in(&World::start().await, interpreter, script, |command| command).await;
}

/// Runs a script of tests/clients; `more` adds arguments and variables.
async fn run_in(world: &World, interpreter: &str, script: &str, more: impl FnOnce(&mut Command) -> &mut Command) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = Command::new(interpreter);
    let description = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mattermost-openapi.yaml");
    if description.exists() {
        command.env("MATTERMOST_OPENAPI", description);
    }
    command.arg(path).kill_on_drop(true).env("PYTHONDONTWRITEBYTECODE", "1");
    for (side, node) in [("EDGE", &world.edge), ("HUB", &world.hub)] {
        command
            .env(format!("HOLDFAST_{side}_URL"), format!("http://{}", node.api_address()))
            .env(format!("HOLDFAST_{side}_ADMIN"), node.admin_name())
            .env(format!("HOLDFAST_{side}_PASSWORD"), PASSWORD);
    }
    more(&mut command);
    let done = tokio::time::timeout(SCRIPT_TIME_MAX, command.output()).await.expect("it ends").expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    println!("{out}");
    assert!(
        done.status.success(),
        "{script}: {}\n{out}{err}\n{}\n{}",
        done.status,
        world.edge.last_words(),
        world.hub.last_words()
    );
}
