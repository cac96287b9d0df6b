//! The official clients, unchanged, against the real binary. `scripts/test clients` installs them.

use std::path::Path;
use std::time::Duration;

use crate::node::set;
use crate::world::{PASSWORD, World};

/// Both scripts wait up to 90 s for one replica; in practice they take a few seconds.
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn official_python_driver_works_at_the_edge_and_sees_the_replica_at_the_hub() {
    let Ok(python) = std::env::var("HOLDFAST_PYTHON") else {
        return println!("skipped: HOLDFAST_PYTHON is not set; `scripts/test clients` installs the driver and sets it");
    };
    run(&python, "official.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn official_python_driver_manages_people_bots_and_teams() {
    let Ok(python) = std::env::var("HOLDFAST_PYTHON") else {
        return println!("skipped: HOLDFAST_PYTHON is not set; `scripts/test clients` installs the driver and sets it");
    };
    run(&python, "people.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn official_javascript_client_works_at_the_edge_and_sees_the_replica_at_the_hub() {
    if std::env::var("HOLDFAST_NODE_MODULES").is_err() {
        return println!(
            "skipped: HOLDFAST_NODE_MODULES is not set; `scripts/test clients` installs the client and sets it"
        );
    }
    run("node", "official.mjs").await;
}

/// What the story of tests/clients/story.py is answered at an edge, against the recording of a real server's answers, and
/// against Mattermost's description of its API where that is at hand.
#[tokio::test(flavor = "multi_thread")]
async fn official_answers_have_the_shapes_that_a_real_server_gives() {
    let Ok(python) = std::env::var("HOLDFAST_PYTHON") else {
        return println!(
            "skipped: HOLDFAST_PYTHON is not set; `scripts/test clients` installs the libraries and sets it"
        );
    };
    run(&python, "recorded.py").await;
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
    run_in(&world, "node", "webapp.mjs").await;
}

async fn run(interpreter: &str, script: &str) {
    run_in(&World::start().await, interpreter, script).await;
}

async fn run_in(world: &World, interpreter: &str, script: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = tokio::process::Command::new(interpreter);
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
