//! The kinds of Microsoft 365 that import, behind a real node that is killed again and again: what was written is there once, and
//! people have their channel of Teams again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use graphsim::{App, Failure, FaultRule, Lag, Limits, Sim, Team, User as Person, What};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::time::Instant;

use crate::node::{Node, Role};
use crate::world::{Mission, say, seed};

/// Kills of the node; `HOLDFAST_KILLS=50` is the full number.
const KILLS: u32 = 8;

/// Longest wait until everything has arrived. Reached only when something is wrong.
const ARRIVE_TIME_MAX: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_imports_doubles_nothing_and_closes_the_channel() {
    let seed = seed();
    let kills = std::env::var("HOLDFAST_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/graph-openapi-subset.yaml");
    let subset = std::env::var_os("HOLDFAST_GRAPH_SUBSET").map_or(beside, PathBuf::from);
    let settings = graphsim::Settings {
        subset: subset.exists().then_some(subset),
        lag: Lag { directory_ms: 0, ..Lag::default() },
        limits: Limits { answer_after_ms: 200, ..Limits::default() },
        ..graphsim::Settings::seeded(seed)
    };
    let sim = Sim::start(settings).expect("the simulator starts");
    let allowed = ["Teamwork.Migrate.All", "Channel.ReadBasic.All", "ChannelMessage.Read.All", "Mail.ReadWrite"];
    let app = sim.add_app(App::new("Holdfast").secret("s3cret").application(&allowed)).expect("an app");
    let account = sim.add_user(Person::new("holdfast"));
    let (members, channels) = (BTreeSet::from([account.clone()]), vec!["History".to_owned()]);
    let team = sim.add_team(Team { display_name: "Bravo".into(), members, channels, ..Team::default() });

    let mut edge = Node::init(Role::Edge, "alpha", "1Mbit/s");
    let (ca, secret) = (edge.path_for("ca.pem"), edge.path_for("secret"));
    std::fs::write(&ca, sim.ca_pem()).expect("a file");
    std::fs::write(&secret, "s3cret").expect("a file");
    let common =
        "labels = [\"mission\"]\nteams = [\"*\"]\nchannels = [\"fires\"]\ngather_seconds = 0\nclosed_minutes = 0";
    let section = format!(
        "login = \"{login}\"\nissuer = \"{login}\"\ngraph = \"{graph}\"\nresource = \"{graph}\"\nprobe_seconds = 10\n\
         tenant = \"{tenant}\"\nclient = \"{app}\"\nsecret_file = \"{secret}\"\nroots_file = \"{ca}\"\n\
         [[target]]\nname = \"history\"\nkind = \"teams-import\"\n{common}\nteam = \"{team}\"\nchannel = \"{channel}\"\n\
         account = \"{account}\"\n\
         [[target]]\nname = \"mail\"\nkind = \"mail-import\"\n{common}\nmailbox = \"holdfast@contoso.example\"\nfolder = \"Mission\"\n",
        login = sim.login_url(),
        graph = sim.graph_url(),
        tenant = sim.tenant(),
        secret = secret.display(),
        ca = ca.display(),
        team = team.id,
        channel = team.channels["History"],
    );
    let section: toml::Table = section.parse().expect("it is TOML");
    edge.configure(|config| {
        config.insert("microsoft".to_owned(), section.into());
    });
    edge.start().await;
    let admin = edge.admin().await;
    let mission = Mission::found(&admin, &edge).await;
    sim.fail(FaultRule::new(Failure::ResetAfterCommit).at("graph").times(u32::MAX).chance(0.15));

    let mut written = Vec::new();
    let (mut under_way, mut open) = (0, 0);
    for _ in 0..kills {
        let anna = mission.anna.at(edge.api_address());
        for _ in 0..4 {
            let text = format!("message {:04}", written.len());
            say(&anna, &mission.channel, &text).await.expect("a post");
            written.push(text);
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..3_000))).await;
        edge.kill();
        open += u32::from(is_open(&sim));
        edge.start().await;
        under_way += u32::from(edge.logged("requests were under way when the node ended"));
    }
    sim.heal();
    println!("{kills} kills, {under_way} of them with requests under way, {open} with the channel open; SEED={seed}");

    let deadline = Instant::now() + ARRIVE_TIME_MAX;
    loop {
        let wrong = differences(&sim, &edge, &written);
        if wrong.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "SEED={seed}: {}\n{}", wrong.join("\n"), edge.last_words());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(
        under_way > 0 && open > 0,
        "no kill fell into a request or an open channel: nothing is proven; SEED={seed}"
    );
    let oracle = sim.oracle();
    assert!(oracle.violations.is_empty(), "{:#?}", oracle.violations);
    assert_eq!(sim.validates(), oracle.validated > 0);
}

/// Is the channel open for import, by what the service did last?
fn is_open(sim: &Sim) -> bool {
    let oracle = sim.oracle();
    oracle.of(What::MigrationStarted).count() > oracle.of(What::MigrationCompleted).count()
}

/// What is not as it should be, one line each.
fn differences(sim: &Sim, edge: &Node, written: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let shown: Value = serde_json::from_slice(&edge.run(&["m365", "targets", "--json"]).stdout).unwrap_or_default();
    let targets = shown["targets"].as_array().cloned().unwrap_or_default();
    if targets.len() != 2 || targets.iter().any(|target| target["terms"]["held"] != 0 || target["dead"] != 0) {
        wrong.push(format!("something is held or given up: {shown}"));
    }
    if is_open(sim) {
        wrong.push("the channel is open for import".to_owned());
    }
    let oracle = sim.oracle();
    let imported = oracle.of(What::MessagePosted).map(|effect| effect.detail["sent"]["content"].to_string());
    let imported: Vec<String> = imported.collect();
    let mail: Vec<String> = oracle.of(What::MailCreated).map(|e| e.detail["body"]["content"].to_string()).collect();
    for text in written {
        for (kind, all) in [("history", &imported), ("mail", &mail)] {
            let times = all.iter().filter(|there| there.contains(text.as_str())).count();
            if times != 1 {
                wrong.push(format!("{kind}: `{text}` is there {times} times"));
            }
        }
    }
    wrong
}
