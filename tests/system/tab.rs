//! The tab of Teams and Outlook in Chromium: a person of the directory signs in by what Entra says of them, and with the local
//! password when it says nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use graphsim::{App, Group, Settings, Sim, User};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use toml::Table;

use crate::node::{Node, Role, free_port, set};
use crate::world::PASSWORD;

/// Longest wait for the sync, and for the whole script.
const SYNC_TIME_MAX: Duration = Duration::from_secs(60);
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn official_library_of_teams_signs_people_in_by_entra_and_without_it() {
    let (Ok(_), Ok(modules)) = (std::env::var("HOLDFAST_CHROMIUM"), std::env::var("HOLDFAST_NODE_MODULES")) else {
        return println!(
            "skipped: HOLDFAST_CHROMIUM (a browser) or HOLDFAST_NODE_MODULES (see scripts/test) is not set"
        );
    };
    let library = Path::new(&modules).join("node_modules/@microsoft/teams-js/dist/umd/MicrosoftTeams.min.js");
    assert!(library.exists(), "{} is missing", library.display());

    let sim = Sim::start(Settings::seeded(7)).expect("it starts");
    let host = free_port();
    let site = free_port();
    let directory = ["User.Read.All", "Group.Read.All", "GroupMember.Read.All"];
    let client = sim
        .add_app(
            App::new("Holdfast").secret("s3cret").application(&directory).identifier_uri("api://chat.test/holdfast"),
        )
        .expect("an application");
    let anna = sim.add_user(User::new("anna"));
    let group =
        sim.add_group(Group { display_name: "Mission".into(), members: [anna.clone()].into(), ..Group::default() });
    let token = sim.tab_token(&anna, &client).expect("a token");

    let mut node = Node::init(Role::Hub, "bravo", "100Mbit/s");
    let files = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("its path is text").to_owned()
    };
    let (roots, secret) = (file("roots.pem", sim.ca_pem()), file("secret", "s3cret"));
    node.configure(|config| {
        set(config, "http", "site_url", format!("https://chat.test:{}", site.port()));
        set(config, "http", "frame_ancestors", format!("https://teams.test:{}", host.port()));
        for (key, value) in [
            ("login", sim.login_url()),
            ("issuer", sim.login_url()),
            ("graph", sim.graph_url()),
            ("resource", sim.graph_url()),
            ("tenant", &sim.tenant()),
            ("client", &client),
            ("secret_file", &secret),
            ("roots_file", &roots),
        ] {
            set(config, "microsoft", key, value);
        }
        let app = json!({
            "library": library,
            "developer": "Task Force",
            "website": "https://chat.test",
            "privacy": "https://chat.test/privacy",
            "terms": "https://chat.test/terms",
        });
        let followed = json!({ "enabled": true, "groups": [{ "id": group }] });
        set(config, "microsoft", "app", Table::try_from(app).expect("a section"));
        set(config, "microsoft", "directory", Table::try_from(followed).expect("a section"));
    });
    node.start().await;
    let admin = node.admin().await;
    let synced = async {
        while admin.get("/users/username/anna").await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(SYNC_TIME_MAX, synced).await.unwrap_or_else(|_| panic!("not synced\n{}", node.last_words()));
    let local = json!({ "username": "berta", "email": "berta@site.example", "password": PASSWORD });
    admin.post("/users", local).await.expect("a user");

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tab.mjs");
    let mut command = tokio::process::Command::new("node");
    command.arg(script).kill_on_drop(true).stdout(Stdio::piped()).stdin(Stdio::piped());
    command.env("HOLDFAST_NODE", format!("http://{}", node.api_address()));
    command.env("HOLDFAST_SITE_PORT", site.port().to_string()).env("HOLDFAST_HOST_PORT", host.port().to_string());
    command.env("HOLDFAST_TAB_TOKEN", &token).env("HOLDFAST_TAB_NAME", "anna");
    command.env("HOLDFAST_USER", "berta").env("HOLDFAST_PASSWORD", PASSWORD);
    let mut browser = command.spawn().expect("it starts");
    let mut lines = BufReader::new(browser.stdout.take().expect("it is piped")).lines();
    let mut input = browser.stdin.take().expect("it is piped");
    let mut sim = Some(sim);
    let used = async {
        while let Some(line) = lines.next_line().await.expect("lines") {
            println!("{line}");
            if line == "ok - tab: signed in by Entra" {
                // From here on there is no Entra.
                drop(sim.take());
            }
            if line.starts_with("ok") {
                input.write_all(b"\n").await.expect("it reads on");
            }
        }
        browser.wait().await.expect("it ends")
    };
    let status = tokio::time::timeout(SCRIPT_TIME_MAX, used).await.expect("it ends");
    assert!(status.success(), "tab.mjs: {status}\n{}", node.last_words());
    node.stop().await;
}
