//! Microsoft 365 at the end of the way: the official Mattermost client, real nodes, the simulator of Entra and Graph, and its
//! oracle, which says what was committed. What was written is compared with it item by item.
//!
//! `writers` is the client and what it wrote, `differences` the comparison; `kills` ends the delivering node at the worst moments.

mod differences;
mod kills;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use emulator::Conditions;
use graphsim::{App, Lag, Sim, Team, TeamMade, TeamsApp, User as Person, What};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::http::{plain, text};
use crate::node::{Node, Role};
use crate::thin_link::ThinLink;
use crate::world::World;
use writers::{Writers, Written, official_client_is_here};

/// Longest wait until everything has arrived. Reached only when something is wrong: a lost answer costs up to 35 s, and
/// several may follow each other in one channel.
const ARRIVE_TIME_MAX: Duration = Duration::from_secs(300);

/// Longest wait for the browser.
const BROWSER_TIME_MAX: Duration = Duration::from_secs(120);

/// Every kind that delivers, under its own name.
const TARGETS: [&str; 4] = ["archive", "posts", "digest", "letters"];

/// accepted = the sum of the others.
const TERMS: [&str; 7] = ["applied", "held", "quarantined", "expired", "superseded", "withheld", "purged"];

/// A tenant in the simulator with everything that the four targets need.
struct Tenant {
    sim: Sim,
    app: String,
    account: String,
    team: TeamMade,
}

impl Tenant {
    /// A simulator with these settings. The directory shows at once what was written to it.
    fn new(settings: graphsim::Settings) -> Self {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/graph-openapi-subset.yaml");
        let subset = std::env::var_os("HOLDFAST_GRAPH_SUBSET").map_or(beside, PathBuf::from);
        let settings = graphsim::Settings {
            subset: subset.exists().then_some(subset),
            lag: Lag { directory_ms: 0, ..Lag::default() },
            ..settings
        };
        let sim = Sim::start(settings).expect("the simulator starts");
        let app = App::new("Holdfast")
            .secret("s3cret")
            .redirect("http://localhost")
            .application(&["Files.ReadWrite.All", "Mail.Send", "Mail.ReadWrite", "TeamsActivity.Send"])
            .delegated(&["User.Read", "ChannelMessage.Send", "ChannelMessage.Read.All", "ChannelMessage.ReadWrite"]);
        let app = sim.add_app(app).expect("an app");
        let account = sim.add_user(Person::new("holdfast"));
        let members = BTreeSet::from([account.clone()]);
        sim.change_app(&app, |app| {
            app.teams_app = Some(TeamsApp { installed_for: members.clone(), ..TeamsApp::default() });
        });
        let channels = vec!["Ops".to_owned(), "Digest".to_owned()];
        let team = sim.add_team(Team { display_name: "Bravo".into(), members, channels, ..Team::default() });
        Self { sim, app, account, team }
    }

    /// Writes section `[microsoft]` with all targets into the configuration of a stopped node.
    fn configure(&self, node: &Node, way: &str) {
        let (ca, secret) = (node.path_for("ca.pem"), node.path_for("secret"));
        std::fs::write(&ca, self.sim.ca_pem()).expect("a file");
        std::fs::write(&secret, "s3cret").expect("a file");
        let (login, graph, account, team) = (self.sim.login_url(), self.sim.graph_url(), &self.account, &self.team);
        let (drive, [ops, digest]) = (&team.drive, ["Ops", "Digest"].map(|name| &team.channels[name]));
        let common = "labels = [\"mission\"]\nteams = [\"task-force\"]\nchannels = [\"fires\", \"log-*\", \"medical\", \"signals\", \"engineers\"]\ngather_seconds = 1";
        let text = format!(
            "login = \"{login}\"\nissuer = \"{login}\"\ngraph = \"{graph}\"\nresource = \"{graph}\"\nprobe_seconds = 10\n\
             tenant = \"{tenant}\"\nclient = \"{app}\"\nsecret_file = \"{secret}\"\nroots_file = \"{ca}\"\n{way}\n\
             [[target]]\nname = \"archive\"\nkind = \"sharepoint-archive\"\n{common}\ndrive = \"{drive}\"\nfolder = \"Holdfast\"\n\
             [[target]]\nname = \"posts\"\nkind = \"teams-delegated\"\n{common}\n\
             team = \"{team}\"\nchannel = \"{ops}\"\naccount = \"{account}\"\n\
             [[target]]\nname = \"digest\"\nkind = \"teams-digest\"\n{common}\n\
             team = \"{team}\"\nchannel = \"{digest}\"\naccount = \"{account}\"\nrecipients = [\"{account}\"]\n\
             link = \"https://teams.microsoft.com/l/entity/app/holdfast\"\n\
             [[target]]\nname = \"letters\"\nkind = \"mail\"\n{common}\n\
             mailbox = \"holdfast@contoso.example\"\nrecipients = [\"holdfast@contoso.example\"]\n",
            tenant = self.sim.tenant(),
            app = self.app,
            secret = secret.display(),
            ca = ca.display(),
            team = team.id,
        );
        let section: toml::Table = text.parse().expect("it is TOML");
        node.configure(|config| {
            config.insert("microsoft".to_owned(), section.into());
        });
    }

    /// The posting account signs in as an operator lets it: a code on the console of the node, entered elsewhere.
    fn sign_in(&self, node: &Node) {
        let mut console = node.spawn(&["m365", "sign-in", "--json"]);
        let mut lines = BufReader::new(console.stdout.take().expect("its output")).lines();
        let mut next = || lines.next().unwrap_or_else(|| panic!("sign-in ended\n{}", node.last_words())).expect("text");
        let code: Value = serde_json::from_str(&next()).expect("JSON");
        self.sim.answer_device(code["user_code"].as_str().expect("a code"), &self.account, false).expect("it is known");
        let person: Value = serde_json::from_str(&next()).expect("JSON");
        assert_eq!(person["oid"], self.account.as_str(), "{person}");
        assert!(console.wait().expect("it ends").success());
    }

    /// Waits until everything stands where it should and no target holds anything; the equation holds all the while.
    async fn receives(&self, node: &Node, written: &[Written]) {
        let deadline = Instant::now() + ARRIVE_TIME_MAX;
        loop {
            let held = held(node);
            let wrong = self.differences(written);
            if held.values().all(|held| *held == 0) && held.len() == TARGETS.len() && wrong.is_empty() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "not as written after {ARRIVE_TIME_MAX:?}; held: {held:?}\n{}\n{}",
                wrong.join("\n"),
                node.last_words()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let oracle = self.sim.oracle();
        assert!(oracle.violations.is_empty(), "{:#?}", oracle.violations);
        assert_eq!(self.sim.validates(), oracle.validated > 0);
        println!(
            "{} requests, {} of them and their answers held against the OpenAPI subset; {} effects; {} failures",
            oracle.requests.len(),
            oracle.validated,
            oracle.effects.len(),
            oracle.requests.iter().filter(|r| r.failure.is_some()).count()
        );
        let shown = plain(node.metrics_address(), "/metrics").await;
        for target in TARGETS {
            let value = |term: &str| -> u64 {
                let name = format!("holdfast_equation_entries{{destination=\"m365:{target}\",term=\"{term}\"}} ");
                let line = shown.lines().find_map(|line| line.strip_prefix(&name));
                line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {name}in the metrics"))
            };
            assert_eq!(value("accepted"), TERMS.iter().map(|term| value(term)).sum::<u64>(), "{target}");
        }
    }
}

/// What each target holds. The equation must hold, and nothing may have been given up.
fn held(node: &Node) -> BTreeMap<String, u64> {
    let shown: Value = serde_json::from_slice(&node.run(&["m365", "targets", "--json"]).stdout).unwrap_or_default();
    let mut held = BTreeMap::new();
    for target in shown["targets"].as_array().into_iter().flatten() {
        let term = |name: &str| target["terms"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {target}"));
        assert_eq!(term("accepted"), TERMS.iter().map(|name| term(name)).sum::<u64>(), "{target}");
        // What a sum does not show is told by name, and nothing else is quarantined.
        let missing = target["missing"].as_object().expect("what it cannot show");
        let may_miss = |what: &str| what == "reaction" || what == "file-bytes";
        let sums = ["digest", "letters"].contains(&text(target, "name").as_str());
        assert!(missing.keys().all(|what| sums && may_miss(what)), "{target}\n{}", node.last_words());
        let told: u64 = missing.values().filter_map(Value::as_u64).sum();
        assert_eq!((term("quarantined"), &target["dead"]), (told, &0.into()), "{target}\n{}", node.last_words());
        held.insert(text(target, "name"), term("held"));
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_writes_during_an_outage_and_every_target_of_the_hub_has_it_once_and_in_order() {
    if !official_client_is_here() {
        return;
    }
    let mut world = World::start_with_rate("10Mbit/s").await;
    let tenant = Tenant::new(graphsim::Settings::seeded(1));
    world.hub.stop().await;
    tenant.configure(&world.hub, "");
    world.hub.start().await;
    tenant.sign_in(&world.hub);
    let mut writers = Writers::found(&world.edge).await;
    let before = writers.says(0).await;
    let corrected = writers.says(1).await;
    tenant.receives(&world.hub, &writers.written).await;

    world.relay.cut();
    let delivered = || tenant.sim.oracle().effects.iter().filter(|effect| effect.what != What::TokenIssued).count();
    let unchanged = delivered();
    // One file is put at once, one goes through an upload session.
    writers.work(5, &[30_000, 4_500_000]).await;
    writers.replies(0, &before).await;
    writers.reacts(&before).await;
    writers.edits(&corrected).await;
    let regretted = writers.says(1).await;
    writers.removes(&regretted).await;
    assert!(world.edge.held().unwrap() > 0, "nothing is held during an outage");
    assert_eq!(delivered(), unchanged, "something went another way");
    world.relay.restore();
    tenant.receives(&world.hub, &writers.written).await;
    let sessions = tenant.sim.oracle().of(What::UploadStarted).count();
    assert_eq!(sessions, 2, "the large file goes to the archive and to the channel's folder, by a session each");
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_writes_at_an_edge_without_a_hub_that_is_killed_behind_a_thin_and_lossy_link() {
    const KILLS: u32 = 4;
    if !official_client_is_here() {
        return;
    }
    let Some(link) = ThinLink::open(&Conditions::new(256_000, Duration::from_millis(100), 0.05), 3) else { return };
    let settings = graphsim::Settings { names: link.names(), ..graphsim::Settings::seeded(3) };
    let tenant = link.far(|| Tenant::new(settings));
    let mut edge = Node::init(Role::Edge, "alpha", "1Mbit/s");
    tenant.configure(&edge, "rate = \"256kbit/s\"");
    edge.move_behind(&link);
    edge.start().await;
    tenant.sign_in(&edge);
    let mut writers = Writers::found(&edge).await;
    writers.work(4, &[20_000, 150_000]).await;
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(1_700 + 900 * u64::from(kill))).await;
        assert!(held(&edge).values().sum::<u64>() > 0, "everything was delivered before kill {kill}");
        edge.kill();
        edge.start().await;
    }
    tenant.receives(&edge, &writers.written).await;
    let (bytes, arrived, lost) = link.carried();
    println!("{bytes} bytes left over the thin link; {lost} of {} packets were lost", arrived + lost);
    assert!(bytes > 2 * 170_000, "the files went another way");
    assert!(lost * 50 > arrived, "hardly anything was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn official_browser_signs_the_account_in_that_posts() {
    if std::env::var_os("HOLDFAST_CHROMIUM").is_none() || !official_client_is_here() {
        return println!("skipped: a browser is to be named by HOLDFAST_CHROMIUM");
    }
    let tenant = Tenant::new(graphsim::Settings::seeded(5));
    let mut edge = Node::init(Role::Edge, "alpha", "1Mbit/s");
    tenant.configure(&edge, "");
    edge.start().await;
    let mut console = edge.spawn(&["m365", "sign-in", "--browser", "--json"]);
    let mut lines = BufReader::new(console.stdout.take().expect("its output")).lines();
    let mut next = || lines.next().unwrap_or_else(|| panic!("sign-in ended\n{}", edge.last_words())).expect("text");
    let begun: Value = serde_json::from_str(&next()).expect("JSON");
    let mut browser = tokio::process::Command::new("node");
    browser.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/sign_in.mjs")).kill_on_drop(true);
    browser.env("HOLDFAST_ADDRESS", text(&begun, "url"));
    browser.env("HOLDFAST_USER", "holdfast@contoso.example").env("HOLDFAST_PASSWORD", "holdfast-password");
    let used = tokio::time::timeout(BROWSER_TIME_MAX, browser.output()).await.expect("it ends").expect("it runs");
    let shown = String::from_utf8_lossy(&used.stdout);
    assert!(shown.contains("go back to the terminal"), "{shown}{}", String::from_utf8_lossy(&used.stderr));
    let person: Value = serde_json::from_str(&next()).expect("JSON");
    assert_eq!(person["oid"], tenant.account.as_str(), "{person}");
    assert!(console.wait().expect("it ends").success());
    let mut writers = Writers::found(&edge).await;
    writers.says(0).await;
    tenant.receives(&edge, &writers.written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_writes_in_a_government_cloud_and_what_that_does_not_offer_is_listed() {
    if !official_client_is_here() {
        return;
    }
    let tenant = Tenant::new(graphsim::Settings { cloud: graphsim::Cloud::Usgov, ..graphsim::Settings::seeded(6) });
    let mut edge = Node::init(Role::Edge, "alpha", "1Mbit/s");
    tenant.configure(&edge, "cloud = \"usgov-l4\"");
    edge.start().await;
    tenant.sign_in(&edge);
    let mut writers = Writers::found(&edge).await;
    let [edited, removed, kept] = [writers.says(0).await, writers.says(1).await, writers.says(2).await];
    writers.replies(2, &kept).await;
    tenant.receives(&edge, &writers.written).await;

    let before = tenant.sim.oracle();
    writers.edits(&edited).await;
    writers.removes(&removed).await;
    writers.reacts(&kept).await;
    let deadline = Instant::now() + ARRIVE_TIME_MAX;
    let expected = json!({"edit": 1, "delete": 1});
    loop {
        let shown: Value = serde_json::from_slice(&edge.run(&["m365", "targets", "--json"]).stdout).expect("JSON");
        let targets = shown["targets"].as_array().expect("targets");
        let posts = targets.iter().find(|target| target["name"] == "posts").expect("the target");
        if posts["missing"] == expected && targets.iter().all(|target| target["terms"]["held"] == 0) {
            assert_eq!((&posts["dead"], &posts["terms"]["quarantined"]), (&0.into(), &2.into()), "{posts}");
            break;
        }
        assert!(Instant::now() < deadline, "{posts}\n{}", edge.last_words());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let after = tenant.sim.oracle();
    assert!(after.violations.is_empty(), "{:#?}", after.violations);
    let since: Vec<What> = after.effects[before.effects.len()..].iter().map(|effect| effect.what).collect();
    assert!(since.contains(&What::ReactionSet), "a reaction is offered there: {since:?}");
    let asked_in_vain = after.requests[before.requests.len()..].iter().filter(|seen| seen.status >= 400);
    assert_eq!(asked_in_vain.count(), 0, "what the cloud refuses is not even asked for");
    // The record says all of it: there nothing is missing.
    let record = writers.of(&edited).text.clone();
    let documents = after.of(What::FileWritten).filter_map(|effect| effect.detail["path"].as_str());
    let says = |path: &str| {
        tenant.sim.file(&tenant.team.drive, path).is_some_and(|b| String::from_utf8_lossy(&b).contains(&record))
    };
    assert!(documents.into_iter().any(says), "the record lacks `{record}`");
}
