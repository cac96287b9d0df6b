//! Microsoft 365 at the end of the way: real nodes, the simulator of Entra and Graph, and its oracle, which says what was
//! committed. What was written through the API is compared with it item by item.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use graphsim::{
    App, Effect, Failure, FaultRule, Lag, Limits, Oracle, Sim, Team, TeamMade, TeamsApp, User as Person, What,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::time::Instant;

use crate::http::{User, plain, text};
use crate::node::{Node, Role};
use crate::slow_way::{Narrowness, SlowWay};
use crate::world::{Mission, World, edit, noise, open_channel, react, reply, say, seed, share};

/// Longest wait until everything has arrived. Reached only when something is wrong: a lost answer costs up to 35 s, and
/// several may follow each other in one channel.
const ARRIVE_TIME_MAX: Duration = Duration::from_secs(300);

/// Kills of the delivering node; `HOLDFAST_KILLS=50` is the full number.
const KILLS: u32 = 12;

/// Every kind that delivers, under its own name.
const TARGETS: [&str; 4] = ["archive", "posts", "digest", "letters"];

/// Channels that the mapping names. Each waits for itself when an answer was lost, so that several keep the node at work.
const PLACES: [&str; 6] = ["fires", "log-road", "log-air", "medical", "signals", "engineers"];

/// Stands in a channel that no mapping names.
const KEPT_BACK: &str = "not for anybody else";

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
    /// Graph takes so long for each answer.
    fn new(seed: u64, answer_after_ms: u64) -> Self {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/graph-openapi-subset.yaml");
        let subset = std::env::var_os("HOLDFAST_GRAPH_SUBSET").map_or(beside, PathBuf::from);
        let settings = graphsim::Settings {
            subset: subset.exists().then_some(subset),
            lag: Lag { directory_ms: 0, ..Lag::default() },
            limits: Limits { answer_after_ms, ..Limits::default() },
            ..graphsim::Settings::seeded(seed)
        };
        let sim = Sim::start(settings).expect("the simulator starts");
        let app = App::new("Holdfast")
            .secret("s3cret")
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

    /// What differs between what was written and what the oracle knows, one line each.
    fn differences(&self, written: &[Written]) -> Vec<String> {
        let oracle = self.sim.oracle();
        let mut wrong = self.differences_of_posts(&oracle, written);
        wrong.extend(self.differences_of_records(&oracle, written));
        let place = format!("{}/{}", self.team.id, self.team.channels["Digest"]);
        let sums = oracle.of(What::MessagePosted).filter(|effect| effect.place == place);
        wrong.extend(differences_of_sums("digest", sums.map(|effect| sent(effect).to_owned()).collect(), written));
        let letters = oracle.of(What::MailSent).map(|effect| effect.detail["body"]["content"].to_string());
        wrong.extend(differences_of_sums("letters", letters.collect(), written));
        let chains: BTreeSet<_> = oracle.of(What::NotificationSent).map(|effect| &effect.id).collect();
        let digests = oracle.of(What::MessagePosted).filter(|effect| effect.place == place).count();
        if chains.len() != digests {
            wrong.push(format!("digest: {} notices for {digests} posts", chains.len()));
        }
        if oracle.effects.iter().any(|effect| effect.detail.to_string().contains(KEPT_BACK)) {
            wrong.push("what no mapping names has left".to_owned());
        }
        wrong
    }

    fn differences_of_posts(&self, oracle: &Oracle, written: &[Written]) -> Vec<String> {
        let place = format!("{}/{}", self.team.id, self.team.channels["Ops"]);
        let mut wrong = Vec::new();
        let mut shown: BTreeMap<String, Shown> = BTreeMap::new();
        let mut order: Vec<String> = Vec::new();
        for effect in oracle.effects.iter().filter(|effect| effect.place == place) {
            if effect.what == What::MessagePosted {
                let thread = effect.detail["replyToId"].as_str().map(str::to_owned);
                let (text, reference) = (sent(effect).to_owned(), reference(sent(effect)));
                order.push(reference.clone());
                shown.insert(effect.id.clone(), Shown { reference, text, thread, ..Shown::default() });
                continue;
            }
            let Some(message) = shown.get_mut(&effect.id).filter(|message| !message.gone) else {
                wrong.push(format!("posts: {:?} of a message that is not there", effect.what));
                continue;
            };
            if effect.what == What::MessageEdited {
                message.text = sent(effect).to_owned();
            } else if effect.what == What::MessageDeleted {
                message.gone = true;
            } else if effect.what == What::ReactionSet {
                message.reacted = true;
            } else {
                wrong.push(format!("posts: {:?}, which nobody asked for", effect.what));
            }
        }
        let of = |id: &str| {
            let reference = format!("{id}.1");
            shown.iter().filter(move |(_, message)| message.reference == reference).collect::<Vec<_>>()
        };
        let mut known = BTreeSet::new();
        for post in written {
            known.insert(format!("{}.1", post.id));
            let found = of(&post.id);
            match (&found[..], post.gone) {
                ([], true) => {}
                ([(_, message)], true) if message.gone => {}
                ([(_, message)], false) if !message.gone => {
                    let thread = post.root.as_deref().and_then(|root| of(root).first().map(|(id, _)| (*id).clone()));
                    if !message.text.contains(&post.text) || message.thread != thread || message.reacted != post.reacted
                    {
                        wrong.push(format!("posts: {post:?} stands there as {message:?}"));
                    }
                }
                _ => wrong.push(format!("posts: `{}` is there {} times", post.text, found.len())),
            }
            if let Some(file) = &post.file {
                known.insert(format!("{}.1", file.id));
                let times = of(&file.id).len();
                if times != 1 {
                    wrong.push(format!("posts: the file {} is shown {times} times", file.name));
                }
            }
        }
        wrong.extend(order.iter().filter(|r| !known.contains(*r)).map(|r| format!("posts: `{r}` was never written")));
        for lane in PLACES {
            let at = |post: &&Written| order.iter().position(|r| *r == format!("{}.1", post.id));
            let places: Vec<usize> = written.iter().filter(|post| post.lane == lane).filter_map(|p| at(&p)).collect();
            if !places.is_sorted() {
                wrong.push(format!("posts: {lane} is out of order: {places:?}"));
            }
        }
        wrong
    }

    fn differences_of_records(&self, oracle: &Oracle, written: &[Written]) -> Vec<String> {
        let mut wrong = Vec::new();
        let paths = |part: &str| -> Vec<String> {
            let all = oracle.of(What::FileWritten).filter_map(|effect| effect.detail["path"].as_str());
            all.filter(|path| path.contains(part)).map(str::to_owned).collect()
        };
        for lane in PLACES {
            let documents: BTreeSet<String> = paths(&format!("/Holdfast/task-force/{lane}/"))
                .into_iter()
                .filter(|path| path.ends_with(".html"))
                .collect();
            let bytes = documents.iter().filter_map(|path| self.sim.file(&self.team.drive, path));
            let record: String = bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text")).collect();
            for post in written.iter().filter(|post| post.lane == lane) {
                let times = record.matches(&format!("id=\"{}\"", post.id)).count();
                let says = record.matches(&format!("{}<", post.text)).count();
                let fits = match post.gone {
                    true => times <= 1 && says == 0,
                    false => times == 1 && says == 1,
                };
                if !fits {
                    wrong.push(format!("archive: `{}` is there {times} times and says so {says} times", post.text));
                }
            }
            let reactions = written.iter().filter(|post| post.lane == lane && post.reacted).count();
            if record.matches('\u{1F44D}').count() != reactions {
                wrong.push(format!("archive: {lane} has not {reactions} reactions"));
            }
        }
        for file in written.iter().filter_map(|post| post.file.as_ref()) {
            let places = paths(&file.id);
            let whole = |path: &String| self.sim.file(&self.team.drive, path).is_some_and(|b| *b == file.content[..]);
            let in_archive = places.iter().filter(|path| path.starts_with("/Holdfast/")).count();
            if (places.len(), in_archive) != (2, 1) || !places.iter().all(whole) {
                wrong.push(format!("archive: {} stands at {places:?}", file.name));
            }
        }
        wrong
    }
}

/// A message in the channel of Teams.
#[derive(Debug, Default)]
struct Shown {
    reference: String,
    text: String,
    thread: Option<String>,
    gone: bool,
    reacted: bool,
}

/// What the service was sent as the text of a message.
fn sent(effect: &Effect) -> &str {
    effect.detail["sent"]["content"].as_str().expect("a message has a text")
}

/// What names a message: the id of the post or file, and the part.
fn reference(text: &str) -> String {
    let (_, rest) = text.rsplit_once("ref ").unwrap_or_else(|| panic!("no reference in {text}"));
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
}

/// Sums tell each post once; its earlier text once, and a removed one at most once.
fn differences_of_sums(target: &str, sums: Vec<String>, written: &[Written]) -> Vec<String> {
    let all = sums.join("\n");
    let times = |text: &str| all.matches(&format!("<br>{text}<")).count();
    let mut wrong = Vec::new();
    for post in written {
        let (now, before) = (times(&post.text), post.before.as_deref().map_or(0, times));
        if before > 1 || now > 1 || (now == 0 && !post.gone) {
            wrong.push(format!("{target}: `{}` is there {now} times, its earlier text {before} times", post.text));
        }
    }
    wrong
}

/// A post as it must stand there in the end.
#[derive(Debug)]
struct Written {
    id: String,
    lane: &'static str,
    root: Option<String>,
    text: String,
    before: Option<String>,
    gone: bool,
    reacted: bool,
    file: Option<Sent>,
}

#[derive(Debug)]
struct Sent {
    id: String,
    name: String,
    content: Vec<u8>,
}

/// People who write, and what they wrote, in order.
struct Writers {
    anna: User,
    ben: User,
    /// By name, in the order of [`PLACES`].
    channels: Vec<String>,
    kept_back: String,
    written: Vec<Written>,
}

impl Writers {
    async fn found(admin: &User, node: &Node) -> Self {
        let mission = Mission::found(admin, node).await;
        let mut channels = vec![mission.channel.clone()];
        for name in PLACES[1..].iter().chain(&["intel"]) {
            let channel = open_channel(admin, &mission.team, name, name).await;
            for user in [&mission.anna, &mission.ben] {
                let member = serde_json::json!({"user_id": user.id});
                admin.post(&format!("/channels/{channel}/members"), member).await.expect("a member");
            }
            channels.push(channel);
        }
        let kept_back = channels.pop().expect("the last is in no mapping");
        Self { anna: mission.anna, ben: mission.ben, channels, kept_back, written: Vec::new() }
    }

    fn note(&mut self, lane: usize, id: String, root: Option<String>, text: String) {
        let (before, gone, reacted, file) = (None, false, false, None);
        self.written.push(Written { id, lane: PLACES[lane], root, text, before, gone, reacted, file });
    }

    fn next_text(&self) -> String {
        format!("message {:04}", self.written.len())
    }

    async fn says(&mut self, lane: usize) -> String {
        let text = self.next_text();
        let id = say(&self.anna, &self.channels[lane], &text).await.expect("a post");
        self.note(lane, id.clone(), None, text);
        id
    }

    async fn replies(&mut self, lane: usize, root: &str) {
        let text = self.next_text();
        let id = reply(&self.ben, &self.channels[lane], root, &text).await.expect("a reply");
        self.note(lane, id, Some(root.to_owned()), text);
    }

    async fn shares(&mut self, lane: usize, bytes: usize) {
        let name = format!("plan{:04}.bin", self.written.len());
        let content = noise(self.written.len() as u64, bytes);
        let (id, file) = share(&self.ben, &self.channels[lane], &name, &content).await.expect("a file");
        self.note(lane, id, None, format!("file {name}"));
        self.written.last_mut().expect("just noted").file = Some(Sent { id: file, name, content });
    }

    fn of(&mut self, post: &str) -> &mut Written {
        self.written.iter_mut().find(|written| written.id == post).expect("it was written here")
    }

    async fn edits(&mut self, post: &str) {
        let author = self.anna.clone();
        let written = self.of(post);
        let text = written.text.replace("message", "correction");
        edit(&author, post, &text).await.expect("an edit");
        written.before = Some(std::mem::replace(&mut written.text, text));
    }

    async fn removes(&mut self, post: &str) {
        self.anna.delete(&format!("/posts/{post}")).await.expect("a removal");
        self.of(post).gone = true;
    }

    async fn reacts(&mut self, post: &str) {
        react(&self.ben, post, "+1").await.expect("a reaction");
        self.of(post).reacted = true;
    }

    /// Some of everything.
    async fn work(&mut self, threads: usize, file_bytes: &[usize]) {
        let mut roots = Vec::new();
        for n in 0..threads {
            let lane = n % PLACES.len();
            let root = self.says(lane).await;
            self.replies(lane, &root).await;
            self.replies(lane, &root).await;
            roots.push(root);
        }
        for (n, bytes) in file_bytes.iter().enumerate() {
            self.shares(n % PLACES.len(), *bytes).await;
        }
        let gone = self.says(0).await;
        self.edits(&roots[0]).await;
        self.reacts(&roots[1]).await;
        self.removes(&gone).await;
        say(&self.anna, &self.kept_back, KEPT_BACK).await.expect("a post");
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
async fn what_was_written_at_the_edge_during_an_outage_reaches_every_target_of_the_hub_once_and_in_order() {
    let mut world = World::start_with_rate("2Mbit/s").await;
    let tenant = Tenant::new(1, 0);
    world.hub.stop().await;
    tenant.configure(&world.hub, "");
    world.hub.start().await;
    tenant.sign_in(&world.hub);
    let mut writers = Writers::found(&world.edge_admin, &world.edge).await;
    let before = writers.says(0).await;
    let corrected = writers.says(1).await;
    tenant.receives(&world.hub, &writers.written).await;

    world.relay.cut();
    writers.work(5, &[30_000, 600_000]).await;
    writers.replies(0, &before).await;
    writers.reacts(&before).await;
    writers.edits(&corrected).await;
    let regretted = writers.says(1).await;
    writers.removes(&regretted).await;
    let unchanged = tenant.sim.oracle().effects.len();
    assert!(world.edge.held().unwrap() > 0, "nothing is held during an outage");
    assert_eq!(tenant.sim.oracle().effects.len(), unchanged);
    world.relay.restore();
    tenant.receives(&world.hub, &writers.written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivering_node_that_is_killed_again_and_again_doubles_nothing_and_misses_nothing() {
    let seed = seed();
    let kills = std::env::var("HOLDFAST_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::start_with_rate("10Mbit/s").await;
    let tenant = Tenant::new(seed, 200);
    world.hub.stop().await;
    tenant.configure(&world.hub, "");
    world.hub.start().await;
    tenant.sign_in(&world.hub);
    let mut writers = Writers::found(&world.edge_admin, &world.edge).await;
    let resets = FaultRule::new(Failure::ResetAfterCommit).at("graph").times(u32::MAX).chance(0.15);
    tenant.sim.fail(resets);

    let mut under_way = 0;
    let mut roots: Vec<(usize, String)> = Vec::new();
    for round in 0..kills {
        let moment = Duration::from_millis(rng.random_range(100..2_500));
        let killing = async {
            tokio::time::sleep(moment).await;
            world.hub.kill();
        };
        let writing = async {
            let lane = rng.random_range(0..PLACES.len());
            let root = writers.says(lane).await;
            if round % 4 == 0 {
                writers.shares(lane, rng.random_range(1..400_000)).await;
            }
            if let Some((lane, root)) = roots.last().filter(|_| round % 2 == 0) {
                writers.replies(*lane, root).await;
                writers.edits(root).await;
            }
            roots.push((lane, root));
        };
        tokio::join!(killing, writing);
        world.hub.start().await;
        under_way += u32::from(world.hub.logged("requests were under way when the node ended"));
    }
    tenant.sim.heal();
    let delivered = tenant.sim.oracle().of(What::MessagePosted).count();
    println!(
        "{kills} kills, {under_way} of them with requests under way; {delivered} messages posted by then; {} posts written",
        writers.written.len()
    );
    assert!(under_way > 0, "no kill fell into a request: nothing is proven; SEED={seed}");
    tenant.receives(&world.hub, &writers.written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_without_a_hub_delivers_over_a_narrow_and_lossy_way() {
    let tenant = Tenant::new(3, 0);
    let narrow = Narrowness { bits_per_second: 256_000, delay: Duration::from_millis(100), lost_percent: 5 };
    let way = SlowWay::open(narrow, 3).await;
    let mut edge = Node::init(Role::Edge, "alpha", "1Mbit/s");
    tenant.configure(&edge, &format!("proxy = \"http://{}\"\nrate = \"256kbit/s\"", way.address));
    edge.start().await;
    tenant.sign_in(&edge);
    let admin = edge.admin().await;
    let mut writers = Writers::found(&admin, &edge).await;
    writers.work(4, &[20_000, 200_000]).await;
    tenant.receives(&edge, &writers.written).await;
    let bytes = way.bytes_out();
    println!("{bytes} bytes left through the narrow way");
    assert!(bytes > 2 * 220_000, "the files went another way");
}
