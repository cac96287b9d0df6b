//! Targets against the simulator of Entra and Graph, in its virtual time: what the oracle lists as committed is compared with
//! what was written in the mission core.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apply::targets::{Targets, TargetsHandle, TargetsOptions};
use futures_util::future::BoxFuture;
use graphsim::{App, Effect, Failure, FaultRule, Lag, Sim, Team, TeamMade, Time, User, What};
use journal::{AtRest, Draft, Foreign, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk};
use microsoft::targets::TargetSettings;
use microsoft::{Budget, Graph, GraphEnvironment, HeldBecause, MicrosoftSettings, Timer, Vault};
use mission::types::{ClientInfo, Login, NewPost, NewTeam, PostPatch, Session};
use mission::{Core, CoreOptions, CoreSettings, DirectoryBatch, DirectoryPerson, DirectoryPlace, Incoming};
use model::event::{PostState, PurgeState};
use model::{
    Clock, Entry, EntryId, Epoch, Event, Header, Hlc, HybridClock, Id, IdMint, Kind, Label, NodeId, ObjectRef, Outcome,
    Precedence, RangeSet, Sensitive, Seq, SourcePosition, UnixMillis, Version,
};
use telemetry::{Health, Metrics};
use tokio_util::sync::CancellationToken;

/// 23 November 2026.
const START: i64 = 1_795_392_000_000;
const NODE: NodeId = NodeId([7; 16]);
const PEER: NodeId = NodeId([8; 16]);
const OTHER_PEER: NodeId = NodeId([9; 16]);

/// Time that moves when somebody waits, and never by itself.
struct Virtual(AtomicI64);

impl Clock for Virtual {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

impl Timer for Virtual {
    fn now(&self) -> Duration {
        Duration::from_millis((Clock::now(self).0 - START + 1_000_000) as u64)
    }

    fn until(&self, at: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.fetch_max(at.as_millis() as i64 + START - 1_000_000 + 1, Ordering::SeqCst);
        })
    }
}

struct Mint(AtomicU64);

impl IdMint for Mint {
    fn mint(&self) -> Id {
        let n = self.0.fetch_add(1, Ordering::SeqCst);
        Id::from_block((u128::from(n) * 0x9E37_79B9_7F4A_7C15_F39C).to_be_bytes())
    }
}

struct Open;

impl Budget for Open {
    fn take(&self, _: Precedence, bytes: u64) -> BoxFuture<'_, Result<u64, HeldBecause>> {
        Box::pin(async move { Ok(bytes) })
    }

    fn forbidden(&self) -> BoxFuture<'_, HeldBecause> {
        Box::pin(std::future::pending())
    }
}

struct Plain;

impl Vault for Plain {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        plain.to_vec()
    }

    fn open(&self, sealed: &[u8]) -> Option<Sensitive<Vec<u8>>> {
        Some(Sensitive(sealed.to_vec()))
    }
}

struct World {
    sim: Sim,
    clock: Arc<Virtual>,
    dir: tempfile::TempDir,
    core: Core,
    journal: Journal,
    graph: Graph,
    alice: Session,
    channel: Id,
    team: TeamMade,
    settings: Vec<TargetSettings>,
    requests: Arc<Mutex<Vec<String>>>,
    /// Done once, when a request is made whose path holds the text.
    at_request: AtRequest,
    account: String,
}

type AtRequest = Arc<Mutex<Option<(&'static str, Box<dyn FnOnce() + Send>)>>>;

fn subset() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/graph-openapi-subset.yaml");
    let path = std::env::var_os("HOLDFAST_GRAPH_SUBSET").map_or(beside, PathBuf::from);
    path.exists().then_some(path)
}

impl World {
    async fn new(seed: u64, kinds: &[&str]) -> Self {
        let clock = Arc::new(Virtual(AtomicI64::new(START)));
        let source = Arc::clone(&clock);
        let sim = Sim::start(graphsim::Settings {
            time: Time::Given(Arc::new(move || Clock::now(&*source).0 as u64)),
            subset: subset(),
            lag: Lag { directory_ms: 0, ..Lag::default() },
            ..graphsim::Settings::seeded(seed)
        })
        .unwrap();
        let app = App::new("Holdfast")
            .secret("s3cret")
            .application(&[
                "Files.ReadWrite.All",
                "Sites.ReadWrite.All",
                "Mail.Send",
                "Mail.ReadWrite",
                "TeamsActivity.Send",
                "Teamwork.Migrate.All",
                "Channel.ReadBasic.All",
                "ChannelMessage.Read.All",
            ])
            .delegated(&[
                "User.Read",
                "ChannelMessage.Send",
                "ChannelMessage.Read.All",
                "ChannelMessage.ReadWrite",
                "Files.Read.All",
            ]);
        let app = sim.add_app(app).unwrap();
        let account = sim.add_user(User::new("holdfast"));
        let teams_app = graphsim::TeamsApp { installed_for: BTreeSet::from([account.clone()]), ..Default::default() };
        sim.change_app(&app, |app| app.teams_app = Some(teams_app));
        let members = BTreeSet::from([account.clone()]);
        let channels = vec!["Ops".to_owned(), "History".to_owned()];
        let team = sim.add_team(Team { display_name: "Bravo".into(), members, channels, ..Team::default() });
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("ca.pem", sim.ca_pem()), ("secret", "s3cret")] {
            std::fs::File::create(dir.path().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let mut text = format!(
            "cloud = \"global\"\nlogin = \"{login}\"\nissuer = \"{login}\"\ngraph = \"{graph}\"\nresource = \"{graph}\"\n\
             tenant = \"{tenant}\"\nclient = \"{app}\"\nsecret_file = \"{dir}/secret\"\nroots_file = \"{dir}/ca.pem\"\n",
            login = sim.login_url(),
            graph = sim.graph_url(),
            tenant = sim.tenant(),
            dir = dir.path().display(),
        );
        for kind in kinds {
            text.push_str(&format!(
                "[[target]]\nname = \"{kind}\"\nkind = \"{kind}\"\nlabels = [\"mission\"]\nteams = [\"alpha\"]\nchannels = [\"*\"]\n"
            ));
            text.push_str(&match *kind {
                "sharepoint-archive" => format!("drive = \"{}\"\nfolder = \"Holdfast\"\n", team.drive),
                "mail" => "mailbox = \"holdfast@contoso.example\"\nrecipients = [\"holdfast@contoso.example\"]\n".to_owned(),
                "teams-import" => {
                    let channel = &team.channels["History"];
                    format!("team = \"{}\"\nchannel = \"{channel}\"\naccount = \"{account}\"\n", team.id)
                }
                "mail-import" => "mailbox = \"holdfast@contoso.example\"\nfolder = \"Mission\"\n".to_owned(),
                "teams-digest" => {
                    let channel = &team.channels["Ops"];
                    format!(
                        "team = \"{}\"\nchannel = \"{channel}\"\naccount = \"{account}\"\nrecipients = [\"{account}\"]\n\
                         link = \"https://teams.microsoft.com/l/entity/app/holdfast\"\n",
                        team.id
                    )
                }
                _ => {
                    let channel = &team.channels["Ops"];
                    format!("team = \"{}\"\nchannel = \"{channel}\"\naccount = \"{account}\"\n", team.id)
                }
            });
        }
        let settings: MicrosoftSettings = toml::from_str(&text).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let at_request = AtRequest::default();
        let due = Arc::clone(&at_request);
        let random_state = AtomicU64::new(seed | 1);
        let environment = GraphEnvironment {
            clock: clock.clone(),
            timer: clock.clone(),
            random: Arc::new(move |buf: &mut [u8]| {
                for byte in buf {
                    let n = random_state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
                    *byte = (n ^ (n >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_be_bytes()[1];
                }
            }),
            metrics: Arc::new(Metrics::new()),
            health: Health::new(clock.clone()),
            budget: Arc::new(Open),
            vault: Arc::new(Plain),
            dir: dir.path().join("microsoft"),
            recorder: Some(Arc::new(move |r| {
                seen.lock().unwrap().push(format!("{} {}", r.method, r.path));
                let mut due = due.lock().unwrap();
                if let Some((_, then)) = due.take_if(|(text, _)| r.path.contains(*text)) {
                    then();
                }
            })),
        };
        let graph = Graph::new(&settings.read().unwrap(), environment).unwrap();
        if kinds.iter().any(|kind| kind.starts_with("teams-")) {
            let code = graph.entra().device_code().await.unwrap();
            sim.answer_device(&code.user_code, &account, false).unwrap();
            graph.entra().await_device(&code).await.unwrap();
        }
        let core = Core::open(CoreOptions {
            dir: dir.path().join("core"),
            node: NODE,
            node_name: "alpha".to_owned(),
            mint: Arc::new(Mint(AtomicU64::new(1))),
            clock: clock.clone(),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(mission::ws::WsHub::new(CancellationToken::new())),
            settings: CoreSettings::default(),
        })
        .unwrap();
        core.operator_creates_user("alice", "alice@example.org", "password-1", true).unwrap();
        let login = Login { login_id: "alice".to_owned(), password: "password-1".to_owned(), ..Login::default() };
        let (_, session) = core.login(&login, &ClientInfo::default()).unwrap();
        let alice = core.session(&session.token).unwrap();
        let new =
            NewTeam { name: "alpha".into(), display_name: "alpha".into(), kind: "O".into(), ..NewTeam::default() };
        let mission_team = core.create_team(&alice, &new).unwrap();
        let alice = core.session(&session.token).unwrap();
        let channel = core.channel_by_name(&alice, mission_team.id, "town-square", false).unwrap().id;
        let journal = open_journal(&dir, &clock);
        let settings = settings.target;
        Self { sim, clock, dir, core, journal, graph, alice, channel, team, settings, requests, at_request, account }
    }

    /// Somebody whom Entra knows under this id, with a session here.
    fn synced(&self, name: &str, oid: &str) -> Session {
        let tenant = self.sim.tenant();
        let person = DirectoryPerson {
            key: format!("entra:{tenant}:{oid}").parse().unwrap(),
            alias: name.to_owned(),
            email: format!("{name}@contoso.example"),
            first_name: name.to_uppercase(),
            last_name: String::new(),
            position: String::new(),
            locale: "en".to_owned(),
            active: true,
            places: BTreeSet::from([DirectoryPlace::Team("alpha".to_owned())]),
        };
        self.core.apply_directory(&DirectoryBatch { people: vec![person], keep: Vec::new() }).unwrap();
        let user = self.core.user_by_entra(&tenant, oid).unwrap().id;
        let (_, session) = self.core.login_vouched_for(user, &ClientInfo::default()).unwrap();
        self.core.session(&session.token).unwrap()
    }

    fn say(&self, text: &str, root: Option<Id>) -> Id {
        self.say_as(&self.alice, text, root)
    }

    fn say_as(&self, who: &Session, text: &str, root: Option<Id>) -> Id {
        self.tick();
        let new = NewPost {
            channel_id: self.channel.to_string(),
            message: text.to_owned(),
            root_id: root.map_or_else(String::new, |id| id.to_string()),
            ..NewPost::default()
        };
        self.core.create_post(who, &new, true).unwrap().id
    }

    fn share(&self, text: &str, name: &str, bytes: &[u8]) -> (Id, Id) {
        self.tick();
        let mut upload = self.core.begin_upload(&self.alice, self.channel, name).unwrap();
        upload.write_all(bytes).unwrap();
        let file = upload.finish().unwrap().id;
        let new = NewPost {
            channel_id: self.channel.to_string(),
            message: text.to_owned(),
            file_ids: vec![file.to_string()],
            ..NewPost::default()
        };
        (self.core.create_post(&self.alice, &new, true).unwrap().id, file)
    }

    fn edit(&self, post: Id, text: &str) {
        self.tick();
        let patch = PostPatch { message: Some(text.to_owned()), ..PostPatch::default() };
        self.core.patch_post(&self.alice, post, &patch).unwrap();
    }

    fn tick(&self) {
        self.clock.0.fetch_add(10, Ordering::SeqCst);
    }

    fn capture(&self, label: &str) {
        capture(&self.core, &self.journal, label);
    }

    fn order_of(&self, posts: Vec<Id>, files: Vec<Id>) -> PurgeState {
        self.tick();
        PurgeState {
            version: Version { at: Hlc((Clock::now(&*self.clock).0 as u64) << 16), by: NODE },
            id: Id::from_block([9; 16]),
            at: Clock::now(&*self.clock),
            by: "duty officer".to_owned(),
            reason: "spilled".to_owned(),
            posts,
            files,
            entries: Vec::new(),
            keep_files: false,
            everywhere_used: false,
            label: None,
            channel_id: None,
        }
    }

    /// An order in the journal, as another node's arrives. At most one in each world.
    fn order_purge(&self, posts: Vec<Id>, files: Vec<Id>) {
        let order = Event::Purge(self.order_of(posts, files));
        let at = Hlc(u64::MAX >> 1);
        let ticket = self.journal.append_own(Draft {
            source: SourcePosition(at),
            follows: None,
            stream: order.stream(),
            causes: Vec::new(),
            needs: Vec::new(),
            precedence: Precedence::Flash,
            captured: at,
            origin_time: Clock::now(&*self.clock),
            expiry: None,
            supersedes: None,
            label: "mission".parse().unwrap(),
            kind: Kind::Purge,
            mint_salt: 1,
            body: wire::encode_event(&order, NODE, 1),
            object: None,
            chunks: None,
        });
        ticket.wait().unwrap();
    }

    /// A post of another node, stored in the journal as number `n` of it; not applied yet.
    fn receive(&self, n: u64, post: u8, root: Option<u8>, text: &str) -> Incoming {
        self.receive_behind(None, n, post, root, text)
    }

    /// The same, of an entry that names the one before it.
    fn receive_behind(&self, before: Option<u64>, n: u64, post: u8, root: Option<u8>, text: &str) -> Incoming {
        self.receive_event(before, n, Event::Post(self.said(n, post, root, text)))
    }

    /// State `n` of a post as another node tells it.
    fn said(&self, n: u64, post: u8, root: Option<u8>, text: &str) -> PostState {
        PostState {
            version: Version { at: Hlc((START as u64 + n) << 16), by: PEER },
            id: Id::from_block([post; 16]),
            channel_id: self.channel,
            user_id: self.alice.user_id,
            root_id: root.map(|root| Id::from_block([root; 16])),
            create_at: UnixMillis(START + i64::from(post)),
            update_at: UnixMillis(START + n as i64),
            edit_at: UnixMillis(0),
            delete_at: UnixMillis(0),
            message: text.to_owned(),
            kind: String::new(),
            props: String::new(),
            hashtags: String::new(),
            is_pinned: false,
            files: Vec::new(),
            priority: None,
        }
    }

    fn receive_event(&self, before: Option<u64>, n: u64, event: Event) -> Incoming {
        self.receive_from(PEER, before, n, event)
    }

    fn receive_from(&self, origin: NodeId, before: Option<u64>, n: u64, event: Event) -> Incoming {
        let id = EntryId { origin, epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() };
        let at = Hlc((START as u64 + n) << 16);
        let header = Header {
            id,
            source: SourcePosition(at),
            stream: event.stream(),
            causes: Vec::new(),
            after: before.map(|before| (Epoch::FIRST, Seq::new(before).unwrap())),
            precedence: Precedence::Routine,
            captured: at,
            origin_time: UnixMillis(START),
            expiry: None,
            supersedes: None,
            label: "mission".parse().unwrap(),
            kind: event.kind(),
            mint_salt: 1,
        };
        let bytes = wire::encode_entry(&Entry { header, body: wire::encode_event(&event, origin, 1) });
        self.journal
            .append_foreign(Foreign { bytes: bytes.into(), object: Some(event.object().key()) })
            .wait()
            .unwrap();
        Incoming { id, event, content: None }
    }

    /// Where the bytes of a file were written, as often as they were.
    fn written(&self, file: Id) -> Vec<String> {
        let oracle = self.sim.oracle();
        let paths = oracle.of(What::FileWritten).map(|e| e.detail["path"].as_str().unwrap().to_owned());
        paths.filter(|path| path.contains(file.as_str())).collect()
    }

    fn targets(&self) -> (Targets, TargetsHandle) {
        self.targets_with(Health::new(self.clock.clone()))
    }

    fn targets_with(&self, health: Health) -> (Targets, TargetsHandle) {
        Targets::new(TargetsOptions {
            journal: self.journal.clone(),
            core: self.core.clone(),
            graph: self.graph.clone(),
            settings: self.settings.clone(),
            dir: self.dir.path().join("ledger"),
            clock: self.clock.clone(),
            timer: self.clock.clone(),
            metrics: Arc::new(Metrics::new()),
            health,
        })
        .unwrap()
    }

    /// Delivers until nothing is left to do, and looks at the equation at every step.
    async fn deliver(&self) -> TargetsHandle {
        let (mut targets, handle) = self.targets();
        self.drive(&mut targets, &handle, usize::MAX).await;
        for status in handle.status().unwrap() {
            assert_eq!((status.terms.held, status.dead), (0, 0), "{status:?} {:?}", handle.dead(None, 9));
        }
        handle
    }

    /// At most so many steps. Says whether nothing was left to do.
    async fn drive(&self, targets: &mut Targets, handle: &TargetsHandle, steps: usize) -> bool {
        let mut slow = 0;
        for _ in 0..steps {
            for status in handle.status().unwrap() {
                assert!(status.terms.hold(), "{status:?}");
            }
            match targets.step().await.unwrap() {
                None => return true,
                Some(at) if at > Clock::now(&*self.clock) => {
                    self.clock.0.store(at.0, Ordering::SeqCst);
                    slow += 1;
                    assert!(slow < 50_000, "it waits and waits: {:?}", handle.status());
                }
                Some(_) => {}
            }
        }
        false
    }

    /// What was imported: when it says it was said, by whom, and what.
    fn imported(&self) -> Vec<(i64, String, String)> {
        let of = |effect: &Effect| {
            let at: jiff::Timestamp = effect.detail["createdDateTime"].as_str().unwrap().parse().unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let by = text(&effect.detail["from"]["user"]["id"]);
            (at.as_millisecond(), by, text(&effect.detail["sent"]["content"]))
        };
        self.posted().iter().filter(|effect| effect.detail["imported"] == true).map(of).collect()
    }

    /// Is the channel open for import, by what the service did last?
    fn is_open(&self) -> bool {
        let oracle = self.sim.oracle();
        let last =
            oracle.effects.iter().rev().find(|e| matches!(e.what, What::MigrationStarted | What::MigrationCompleted));
        last.is_some_and(|effect| effect.what == What::MigrationStarted)
    }

    fn posted(&self) -> Vec<Effect> {
        self.sim.oracle().of(What::MessagePosted).cloned().collect()
    }

    /// Each reference that a posted message holds, with how often it was posted.
    fn references(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for effect in self.posted() {
            let text = effect.detail["sent"]["content"].as_str().unwrap().to_owned();
            let (_, rest) = text.rsplit_once("ref ").expect("every message has a reference");
            let reference: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
            *all.entry(reference).or_default() += 1;
        }
        all
    }

    fn record(&self) -> String {
        let path = "/Holdfast/alpha/town-square/2026-11-23.html";
        let bytes = self.sim.file(&self.team.drive, path).expect("the record of the day");
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn check_rules(&self) {
        let oracle = self.sim.oracle();
        assert!(oracle.violations.is_empty(), "{:#?}", oracle.violations);
        if self.sim.validates() {
            assert!(oracle.validated > 0);
        }
    }
}

/// Puts what waits in the outbox into the journal, as capture does.
fn capture(core: &Core, journal: &Journal, label: &str) {
    let rows = core.outbox_read(Hlc::ZERO, usize::MAX).unwrap();
    let mut tickets = Vec::new();
    for row in &rows {
        let priority = if let Event::Post(post) = &row.event {
            post.priority.as_ref().map_or("", |p| p.priority.as_str())
        } else {
            ""
        };
        let precedence = match (row.event.kind(), priority) {
            (Kind::File, _) => Precedence::Deferred,
            (Kind::Purge, _) | (_, "urgent") => Precedence::Flash,
            _ => Precedence::Routine,
        };
        let object = row.event.object().key();
        tickets.push(journal.append_own(Draft {
            source: SourcePosition(row.at),
            follows: None,
            stream: row.event.stream(),
            causes: Vec::new(),
            needs: row.event.needs().iter().map(ObjectRef::key).collect(),
            precedence,
            captured: row.at,
            origin_time: row.origin_time,
            expiry: None,
            supersedes: None,
            label: label.parse::<Label>().unwrap(),
            kind: row.event.kind(),
            mint_salt: 1,
            body: wire::encode_event(&row.event, NODE, 1),
            object: Some(object),
            chunks: None,
        }));
    }
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    if let Some(last) = rows.last() {
        core.outbox_ack(last.at).unwrap();
    }
}

/// Every file below a folder.
fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn open_journal(dir: &tempfile::TempDir, clock: &Arc<Virtual>) -> Journal {
    let options = JournalOptions {
        dir: dir.path().join("journal"),
        node: NODE,
        disk: Arc::new(StdDisk),
        clock: clock.clone(),
        settings: JournalSettings::default(),
        index: IndexPlace::Memory,
        at_rest: AtRest::Plain,
    };
    Journal::open(options).unwrap().0
}

const BOTH: &[&str] = &["sharepoint-archive", "teams-delegated"];

#[tokio::test]
async fn posts_replies_edits_reactions_files_and_removals_arrive_at_each_target() {
    let world = World::new(1, BOTH).await;
    let root = world.say("**bold** plan", None);
    let reply = world.say("reply", Some(root));
    let gone = world.say("to be removed", None);
    world.core.save_reaction(&world.alice, world.alice.user_id, root, "+1").unwrap();
    let (_, file) = world.share("see this", "plan.bin", b"0123456789");
    world.capture("mission");
    world.deliver().await;
    world.edit(reply, "reply, corrected");
    world.core.delete_post(&world.alice, gone).unwrap();
    world.core.delete_reaction(&world.alice, world.alice.user_id, root, "+1").unwrap();
    world.capture("mission");
    let handle = world.deliver().await;

    let oracle = world.sim.oracle();
    let references = world.references();
    assert_eq!(references.len(), 5, "{references:?}");
    assert!(references.values().all(|n| *n == 1), "{references:?}");
    let replied = oracle
        .of(What::MessagePosted)
        .find(|e| e.detail["sent"]["content"].as_str().unwrap().contains("reply"))
        .unwrap();
    let first = oracle.of(What::MessagePosted).next().unwrap();
    assert_eq!(replied.detail["replyToId"], first.detail["id"]);
    assert!(first.detail["sent"]["content"].as_str().unwrap().contains("<strong>bold</strong>"));
    assert_eq!(first.user.as_deref(), Some(world.account.as_str()));
    assert_eq!(oracle.of(What::MessageEdited).count(), 1);
    assert_eq!(oracle.of(What::MessageDeleted).count(), 1);
    assert_eq!((oracle.of(What::ReactionSet).count(), oracle.of(What::ReactionUnset).count()), (1, 1));
    let files: Vec<_> =
        oracle.of(What::FileWritten).filter(|e| e.detail["path"].as_str().unwrap().contains(file.as_str())).collect();
    assert_eq!(files.len(), 2, "one in the channel's folder, one in the archive");

    let record = world.record();
    for text in ["<strong>bold</strong>", "reply, corrected", "until ", "<em>deleted ", "plan.bin</a>", "in reply to"] {
        assert!(record.contains(text), "{text} is missing in {record}");
    }
    assert!(!record.contains("to be removed") && !record.contains("👍"), "{record}");
    for status in handle.status().unwrap() {
        assert!(status.terms.applied >= 8, "{status:?}");
    }
    world.check_rules();
}

#[tokio::test]
async fn nothing_leaves_without_label_or_mapping() {
    let mut world = World::new(2, BOTH).await;
    world.say("not released", None);
    world.capture("local");
    world.settings[0].channels = vec!["intel-*".to_owned()];
    world.settings[1].teams = Vec::new();
    world.say("not mapped", None);
    world.capture("mission");
    let handle = world.deliver().await;
    for status in handle.status().unwrap() {
        assert_eq!(status.terms.applied, 0, "{status:?}");
        assert!(status.withheld["label"] > 0 && status.withheld["unmapped"] > 0, "{status:?}");
    }
    assert!(world.requests.lock().unwrap().is_empty());
}

/// What an offline node had taken in went out by the mapping of that time, after the operator had corrected it.
#[tokio::test]
async fn a_mapping_that_was_narrowed_holds_for_what_was_taken_in_before() {
    // Steps until it is taken in, and until it is gathered.
    for (kinds, steps) in [
        (&["teams-delegated"][..], 1),
        (&["sharepoint-archive", "mail", "teams-digest"], 1),
        (&["sharepoint-archive", "mail"], 2),
    ] {
        let mut world = World::new(21, kinds).await;
        let post = world.say("not for them", None);
        world.core.save_reaction(&world.alice, world.alice.user_id, post, "+1").unwrap();
        world.share("nor this", "spilled.bin", b"bytes");
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        world.drive(&mut targets, &handle, steps).await;
        drop(targets);
        assert!(world.requests.lock().unwrap().is_empty());
        for target in &mut world.settings {
            target.channels = vec!["intel-*".to_owned()];
        }
        let (_, handle) = world.targets();
        assert_eq!(handle.plan().unwrap().targets[0].lanes, BTreeMap::new(), "{kinds:?}: the plan knows it");
        let handle = world.deliver().await;
        for status in handle.status().unwrap() {
            assert_eq!(status.terms.applied, 0, "{kinds:?} {steps}: {status:?}");
        }
        let changing = |r: &&String| !r.starts_with("GET");
        assert_eq!(world.requests.lock().unwrap().iter().filter(changing).count(), 0, "{kinds:?} {steps}");
    }
}

/// What was told can still be taken back.
#[tokio::test]
async fn a_removal_passes_a_mapping_that_was_narrowed() {
    let mut world = World::new(22, BOTH).await;
    let post = world.say("told too much", None);
    world.capture("mission");
    world.deliver().await;
    for target in &mut world.settings {
        target.channels = vec!["intel-*".to_owned()];
    }
    world.core.delete_post(&world.alice, post).unwrap();
    world.say("never told", None);
    world.capture("mission");
    world.deliver().await;
    assert_eq!(world.posted().len(), 1);
    assert_eq!(world.sim.oracle().of(What::MessageDeleted).count(), 1);
    assert!(!world.record().contains("told too much"));
}

/// A reset after the commit leaves an outcome that only the service knows; a restart forgets what was in memory.
#[tokio::test]
async fn resets_after_commit_and_restarts_leave_nothing_missing_and_nothing_doubled() {
    let seeds = std::env::var("HOLDFAST_SEEDS").map_or(4, |n| n.parse().unwrap());
    for seed in 0..seeds {
        let world = World::new(seed, BOTH).await;
        for failure in [
            Failure::ResetAfterCommit,
            Failure::ResetBefore,
            Failure::Truncated,
            Failure::RefusedAfterCommit { status: 503 },
            Failure::Refused { status: 429, retry_after_s: Some(1.5), code: None },
            Failure::Html { status: 502 },
        ] {
            world.sim.fail(FaultRule::new(failure).at("graph").times(u32::MAX).chance(0.07));
        }
        let mut posts = Vec::new();
        let mut files = Vec::new();
        for n in 0..6 {
            let root = world.say(&format!("post {n}"), None);
            let reply = world.say(&format!("reply {n}"), Some(root));
            posts.extend([root, reply]);
            if n % 3 == 0 {
                world.edit(root, &format!("post {n}, edited"));
                let (post, file) = world.share("file", &format!("f{n}.bin"), &[n as u8; 500]);
                posts.push(post);
                files.push(file);
            }
            if n % 2 == 0 {
                world.core.save_reaction(&world.alice, world.alice.user_id, root, "+1").unwrap();
            }
        }
        world.capture("mission");
        // Restarts after a varying number of steps.
        let mut steps = 3;
        let handle = loop {
            let (mut targets, handle) = world.targets();
            if world.drive(&mut targets, &handle, steps).await {
                break handle;
            }
            steps = (steps * 3 + seed as usize) % 17 + 1;
        };
        for status in handle.status().unwrap() {
            assert_eq!((status.terms.held, status.dead), (0, 0), "seed {seed}: {status:?} {:?}", handle.dead(None, 9));
        }
        let expected: BTreeSet<String> = posts.iter().chain(&files).map(|id| format!("{id}.1")).collect();
        let references = world.references();
        assert_eq!(references.keys().cloned().collect::<BTreeSet<_>>(), expected, "seed {seed}");
        assert!(references.values().all(|n| *n == 1), "seed {seed}: {references:?}");
        // In order: each channel's messages as they were written, within a class.
        let order: Vec<String> =
            world.posted().iter().map(|e| e.detail["sent"]["content"].as_str().unwrap().to_owned()).collect();
        let at = |id: &Id| order.iter().position(|text| text.contains(id.as_str())).unwrap();
        assert!(posts.windows(2).all(|two| at(&two[0]) < at(&two[1])), "seed {seed}");
        let oracle = world.sim.oracle();
        for file in &files {
            let written =
                oracle.of(What::FileWritten).filter(|e| e.detail["path"].as_str().unwrap().contains(file.as_str()));
            assert_eq!(written.count(), 2, "seed {seed}: once in each folder");
        }
        let record = world.record();
        assert!(posts.iter().all(|id| record.contains(&format!("id=\"{id}\""))), "seed {seed}");
        assert!(record.contains("post 3, edited") && record.contains("👍"), "seed {seed}");
        world.check_rules();
    }
}

/// The worst moment, at each request in turn: committed, and nobody was told.
#[tokio::test]
async fn a_reset_after_the_commit_of_any_request_changes_nothing() {
    for kinds in [
        &["sharepoint-archive"][..],
        &["teams-delegated"],
        &["teams-import"],
        &["mail"],
        &["mail-import"],
        &["teams-digest"],
    ] {
        let mut resets = 0;
        for skip in 0.. {
            let world = World::new(100 + skip, kinds).await;
            world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).at("graph").after(skip as u32));
            let root = world.say("post", None);
            world.say("reply", Some(root));
            world.share("file", "f.bin", b"bytes");
            world.core.save_reaction(&world.alice, world.alice.user_id, root, "+1").unwrap();
            world.capture("mission");
            world.deliver().await;
            world.edit(root, "post, edited");
            world.capture("mission");
            world.deliver().await;
            let oracle = world.sim.oracle();
            let mut once = BTreeMap::<String, usize>::new();
            for effect in &oracle.effects {
                let path = effect.detail["path"].as_str().filter(|path| path.ends_with("f.bin"));
                let key = if effect.what == What::MessagePosted {
                    effect.detail["sent"]["content"].to_string()
                } else if effect.what == What::MailSent {
                    effect.detail.to_string()
                } else if effect.what == What::MailCreated {
                    effect.detail["internetMessageId"].to_string()
                } else if let (What::FileWritten, Some(path)) = (effect.what, path) {
                    path.to_owned()
                } else {
                    continue;
                };
                *once.entry(key).or_default() += 1;
            }
            assert!(once.values().all(|n| *n == 1), "{kinds:?} {skip}: {once:#?}");
            let count = |what| oracle.of(what).count();
            match kinds[0] {
                "sharepoint-archive" => assert!(world.record().contains("post, edited")),
                "teams-delegated" => assert_eq!(count(What::MessagePosted), 4, "{skip}"),
                "teams-import" => {
                    assert_eq!(count(What::MessagePosted), 4, "{skip}");
                    assert!(!world.is_open(), "{skip}");
                }
                "mail" => assert_eq!(count(What::MailSent), 2, "{skip}"),
                "mail-import" => {
                    assert_eq!((count(What::MailCreated), count(What::MailDeleted)), (4, 1), "{skip}");
                    assert_eq!(count(What::MailFolderCreated), 1, "{skip}");
                }
                _ => assert_eq!(count(What::MessagePosted), 2, "{skip}"),
            }
            world.check_rules();
            let reset = oracle.requests.iter().filter(|r| r.failure.is_some()).count();
            resets += reset;
            if reset == 0 {
                break;
            }
        }
        println!("{kinds:?}: {resets} requests were cut off after their commit, one in each run");
        assert!(resets >= 2, "{kinds:?}");
    }
}

#[tokio::test]
async fn a_digest_tells_by_letter_and_by_post_with_notices() {
    let world = World::new(9, &["mail", "teams-digest"]).await;
    for n in 0..5 {
        world.say(&format!("message {n}"), None);
    }
    let gone = world.say("regretted", None);
    world.core.delete_post(&world.alice, gone).unwrap();
    world.share("with a file", "plan.bin", b"0123456789");
    world.capture("mission");
    let handle = world.deliver().await;
    let oracle = world.sim.oracle();
    let letters: Vec<_> = oracle.of(What::MailSent).collect();
    assert_eq!((letters.len(), oracle.of(What::NotificationSent).count()), (1, 1));
    let [post] = &world.posted()[..] else { panic!() };
    for text in [letters[0].detail.to_string(), post.detail.to_string()] {
        assert!(text.contains("message 0") && text.contains("message 4") && text.contains("plan.bin"), "{text}");
        assert!(!text.contains("regretted"));
    }
    for status in handle.status().unwrap() {
        assert_eq!(status.missing["file-bytes"], 1, "{status:?}");
    }
    world.check_rules();
}

/// A busy digest of Teams showed a count, and counted every line as told.
#[tokio::test]
async fn a_digest_that_has_no_room_goes_on_in_another() {
    let world = World::new(40, &["teams-digest"]).await;
    for n in 0..60 {
        world.say(&format!("message {n}. {}", "\"".repeat(380)), None);
    }
    world.capture("mission");
    world.deliver().await;
    let posted = world.posted();
    let texts: Vec<&str> = posted.iter().map(|e| e.detail["sent"]["content"].as_str().unwrap()).collect();
    assert!(texts.iter().all(|text| text.encode_utf16().count() <= microsoft::html::UNITS_MAX));
    for n in 0..60 {
        let told = texts.iter().filter(|text| text.contains(&format!("message {n}."))).count();
        assert_eq!(told, 1, "message {n}");
    }
    world.check_rules();
}

/// An edit and then a removal, both after the digest that told the post: the removal was not told.
#[tokio::test]
async fn a_digest_tells_the_removal_of_what_an_earlier_one_told() {
    let world = World::new(41, &["mail"]).await;
    let post = world.say("told once", None);
    let other = world.say("told as well", None);
    world.capture("mission");
    world.deliver().await;
    world.edit(post, "edited");
    world.edit(other, "edited once");
    world.edit(other, "edited twice");
    world.core.delete_post(&world.alice, post).unwrap();
    world.capture("mission");
    world.deliver().await;
    let oracle = world.sim.oracle();
    let letters: Vec<String> = oracle.of(What::MailSent).map(|e| e.detail.to_string()).collect();
    assert_eq!(letters.len(), 2);
    assert!(letters[1].contains(", removed") && letters[1].contains(", edited"), "{}", letters[1]);
    assert!(letters[1].contains("edited twice") && !letters[1].contains("told"), "{}", letters[1]);
}

/// One recipient had left, and the target waited for ever with everything behind it.
#[tokio::test]
async fn a_recipient_that_cannot_be_notified_keeps_nothing_from_the_others() {
    let mut world = World::new(42, &["teams-digest"]).await;
    let account = world.account.clone();
    world.settings[0].recipients = vec!["00000000-0000-4000-8000-00000000dead".to_owned(), account];
    for n in 0..2 {
        world.say(&format!("message {n}"), None);
        world.capture("mission");
        let handle = world.deliver().await;
        assert_eq!(handle.status().unwrap()[0].missing["notice"], n + 1);
    }
    let oracle = world.sim.oracle();
    assert_eq!((world.posted().len(), oracle.of(What::NotificationSent).count()), (2, 2));
}

/// A letter that is refused for good can be tried again, or put away.
#[tokio::test]
async fn a_digest_that_is_refused_for_good_is_given_up_and_can_be_tried_again() {
    let world = World::new(43, &["mail"]).await;
    let refused = Failure::Refused { status: 400, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("POST", "sendMail").times(u32::MAX));
    world.say("message", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    let status = &handle.status().unwrap()[0];
    assert_eq!((status.terms.held, status.dead), (0, 1), "{status:?}");
    assert!(handle.dead(None, 9).unwrap()[0].reason.starts_with("digest 1: 400"));
    world.sim.heal();
    assert_eq!(handle.retry("mail", None).unwrap(), 1);
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    let status = &handle.status().unwrap()[0];
    assert_eq!((status.terms.applied, status.dead), (1, 0), "{status:?}");
    let oracle = world.sim.oracle();
    let letters: Vec<String> = oracle.of(What::MailSent).map(|e| e.detail.to_string()).collect();
    assert!(matches!(&letters[..], [letter] if letter.contains("message")), "{letters:?}");
}

/// A journal that was begun anew was read from where the former one had ended.
#[tokio::test]
async fn a_journal_that_was_begun_anew_is_read_from_its_start() {
    let mut world = World::new(44, BOTH).await;
    for n in 0..5 {
        world.say(&format!("before {n}"), None);
    }
    world.capture("mission");
    world.deliver().await;
    std::fs::rename(world.dir.path().join("journal"), world.dir.path().join("former")).unwrap();
    world.journal = open_journal(&world.dir, &world.clock);
    world.say("after", None);
    world.capture("mission");
    world.deliver().await;
    assert_eq!(world.posted().len(), 6);
    assert!(world.record().contains("after"));
}

/// A clock that was a year ahead for a minute froze what was noted in it for a year.
#[tokio::test]
async fn a_clock_that_was_far_ahead_freezes_nothing() {
    let world = World::new(45, &["sharepoint-archive"]).await;
    world.clock.0.fetch_add(400 * 24 * 3_600_000, Ordering::SeqCst);
    let not_yet = Failure::Refused { status: 404, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(not_yet).on("PUT", ".html"));
    world.say("message", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while world.requests.lock().unwrap().iter().all(|r| !r.starts_with("PUT")) {
        assert!(!world.drive(&mut targets, &handle, 1).await);
    }
    world.clock.0.store(START + 3_600_000, Ordering::SeqCst);
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(handle.status().unwrap()[0].terms.held, 0);
    assert_eq!(
        world.sim.oracle().of(What::FileWritten).count(),
        2,
        "notes of the server, and the message of another day"
    );
    assert!(Clock::now(&*world.clock).0 < START + 2 * 3_600_000);
}

#[tokio::test]
async fn what_was_removed_before_it_went_out_never_goes_and_a_flash_overtakes() {
    let world = World::new(5, &["teams-delegated"]).await;
    let gone = world.say("regretted", None);
    for n in 0..5 {
        world.say(&format!("routine {n}"), None);
    }
    world.core.delete_post(&world.alice, gone).unwrap();
    world.tick();
    let urgent: NewPost = serde_json::from_value(serde_json::json!({
        "channel_id": world.channel, "message": "contact", "metadata": { "priority": { "priority": "urgent" } },
    }))
    .unwrap();
    world.core.create_post(&world.alice, &urgent, true).unwrap();
    world.capture("mission");
    world.deliver().await;
    let texts: Vec<String> =
        world.posted().iter().map(|e| e.detail["sent"]["content"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts.len(), 6);
    assert!(texts[0].contains("contact"), "{}", texts[0]);
    assert!(texts.iter().all(|text| !text.contains("regretted")));
    assert_eq!(world.posted()[0].detail["importance"], "high");
    world.check_rules();
}

/// The post was superseded by its removal, and the bytes of its file went up all the same, as a message of their own.
#[tokio::test]
async fn a_file_whose_post_was_removed_before_it_went_out_stays_here() {
    let world = World::new(23, BOTH).await;
    let (post, file) = world.share("regretted", "regretted.bin", b"regretted bytes");
    world.core.delete_post(&world.alice, post).unwrap();
    world.say("other", None);
    world.capture("mission");
    let handle = world.deliver().await;
    assert_eq!(world.posted().len(), 1, "{:?}", world.references());
    assert!(!world.requests.lock().unwrap().iter().any(|r| r.contains(file.as_str())));
    for status in handle.status().unwrap() {
        assert!(status.terms.superseded >= 1, "{status:?}");
    }
    world.check_rules();
}

/// Its origin had lost the bytes: the item waited for them for ever, and every later file of the channel behind it.
#[tokio::test]
async fn a_file_without_bytes_is_told_as_missing_and_holds_up_no_other() {
    let world = World::new(25, BOTH).await;
    let (_, lost) = world.share("lost at its origin", "lost.bin", b"lost bytes");
    world.share("whole", "whole.bin", b"whole bytes");
    world.capture("mission");
    let db = rusqlite::Connection::open(world.dir.path().join("core/core.sqlite3")).unwrap();
    db.execute("UPDATE files SET hash = '' WHERE id = ?1", [lost.as_str()]).unwrap();
    drop(db);
    let handle = world.deliver().await;
    for status in handle.status().unwrap() {
        assert_eq!(status.missing["file-bytes"], 1, "{status:?}");
    }
    let oracle = world.sim.oracle();
    let written = oracle.of(What::FileWritten).filter(|e| e.detail["path"].as_str().unwrap().ends_with("whole.bin"));
    assert_eq!(written.count(), 2);
}

/// Without the permission to read, an item whose answer was lost was looked for every 15 s for ever.
#[tokio::test]
async fn what_nobody_may_look_for_is_sent_again() {
    for kind in ["teams-delegated", "mail", "teams-digest"] {
        let world = World::new(27, &[kind]).await;
        world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).at("graph"));
        let refused = Failure::Refused { status: 403, retry_after_s: None, code: None };
        world.sim.fail(FaultRule::new(refused).on("GET", "messages").at("graph").times(u32::MAX));
        world.say("told twice", None);
        world.capture("mission");
        world.deliver().await;
        let oracle = world.sim.oracle();
        let told = oracle.of(What::MessagePosted).count() + oracle.of(What::MailSent).count();
        assert_eq!(told, 2, "{kind}: once before the answer was lost, once after nobody could look");
        assert!(world.clock.0.load(Ordering::SeqCst) - START < 10 * 60_000, "{kind}");
    }
}

/// A reply whose thread was gone was looked for for ever: 404 is an answer.
#[tokio::test]
async fn a_reply_is_not_looked_for_for_ever_in_a_thread_that_is_gone() {
    let world = World::new(28, &["teams-delegated"]).await;
    let root = world.say("root", None);
    world.capture("mission");
    world.deliver().await;
    world.say("reply", Some(root));
    world.say("what comes after", None);
    world.sim.fail(FaultRule::new(Failure::ResetBefore).on("POST", "replies"));
    let gone = Failure::Refused { status: 404, retry_after_s: None, code: None };
    for method in ["GET", "POST"] {
        world.sim.fail(FaultRule::new(gone.clone()).on(method, "replies").times(u32::MAX));
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    assert!(world.drive(&mut targets, &handle, 2_000).await);
    let status = &handle.status().unwrap()[0];
    assert_eq!((status.terms.held, status.dead), (0, 1), "{status:?}");
    assert_eq!(world.posted().len(), 2);
}

/// A consent that was withdrawn gave up the backlog, item by item.
#[tokio::test]
async fn a_permission_that_was_withdrawn_lets_the_target_rest() {
    for kind in BOTH {
        let world = World::new(29, &[kind]).await;
        let refused = Failure::Refused { status: 403, retry_after_s: None, code: None };
        for method in ["POST", "PUT", "GET"] {
            world.sim.fail(FaultRule::new(refused.clone()).on(method, "").at("graph").times(u32::MAX));
        }
        for n in 0..20 {
            world.say(&format!("message {n}"), None);
            world.share("with a file", &format!("f{n}.bin"), b"bytes");
        }
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        assert!(!world.drive(&mut targets, &handle, 300).await);
        let status = &handle.status().unwrap()[0];
        assert!(status.dead <= 1 && status.waits_for.as_deref().unwrap().starts_with("403"), "{status:?}");
        // The one that was given up on trial is taken up again as the next is refused as well.
        while handle.status().unwrap()[0].dead > 0 {
            assert!(!world.drive(&mut targets, &handle, 1).await);
        }
        world.sim.heal();
        assert!(world.drive(&mut targets, &handle, usize::MAX).await);
        let status = &handle.status().unwrap()[0];
        assert_eq!((status.terms.held, status.dead), (0, 0), "{kind}: {status:?}");
    }
}

/// A message that alone is refused is given up, and what follows goes out.
#[tokio::test]
async fn one_item_that_is_not_permitted_is_given_up_alone() {
    let world = World::new(30, &["teams-delegated"]).await;
    let first = world.say("first", None);
    world.capture("mission");
    world.deliver().await;
    let refused = Failure::Refused { status: 403, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("PATCH", "").at("graph").times(u32::MAX));
    world.edit(first, "first, edited");
    for n in 0..5 {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    assert!(world.drive(&mut targets, &handle, 2_000).await);
    let status = &handle.status().unwrap()[0];
    assert_eq!((status.terms.held, status.dead), (0, 1), "{status:?}");
    assert_eq!(world.posted().len(), 6);
}

/// Somebody has a file or the record of a day open: nothing else of the target went on.
#[tokio::test]
async fn what_is_locked_or_refused_waits_alone() {
    for (status, path) in [(423, "locked.bin"), (423, "2026-11-23.html"), (400, "2026-11-23.html")] {
        let world = World::new(31, &["sharepoint-archive"]).await;
        let locked = Failure::Refused { status, retry_after_s: None, code: None };
        world.sim.fail(FaultRule::new(locked).on("PUT", path).times(u32::MAX));
        world.share("locked", "locked.bin", b"bytes");
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        assert!(!world.drive(&mut targets, &handle, 40).await, "{path}");
        world.clock.0.fetch_add(24 * 3_600_000, Ordering::SeqCst);
        world.say("of the next day", None);
        world.share("also of the next day", "other.bin", b"bytes");
        world.capture("mission");
        assert!(!world.drive(&mut targets, &handle, 60).await, "{path}");
        let file = |path: &str| world.sim.file(&world.team.drive, path);
        assert!(file("/Holdfast/alpha/town-square/2026-11-24.html").is_some(), "{status} {path}");
        let oracle = world.sim.oracle();
        let others = oracle.of(What::FileWritten).filter(|e| e.detail["path"].as_str().unwrap().ends_with("other.bin"));
        assert_eq!(others.count(), 1, "{status} {path}");
        assert!(handle.status().unwrap()[0].terms.held > 0);
        world.sim.heal();
        assert!(world.drive(&mut targets, &handle, usize::MAX).await);
        assert_eq!(handle.status().unwrap()[0].terms.held, 0);
    }
}

/// Stored is not applied: a reply that came before its root became a message of its own, and what the core kept aside went out.
#[tokio::test]
async fn what_another_node_wrote_goes_once_the_core_has_it() {
    let world = World::new(34, BOTH).await;
    let reply = world.receive(2, 52, Some(51), "reply of a peer");
    let aside = world.receive(3, 53, None, "kept aside");
    let root = world.receive(1, 51, None, "root of a peer");
    let own = world.say("own", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    assert!(!world.drive(&mut targets, &handle, 60).await);
    assert_eq!(world.references().keys().cloned().collect::<Vec<_>>(), [format!("{own}.1")]);
    world.core.replica().apply(vec![root, reply]).unwrap();
    let numbers = RangeSet::from(3..=3);
    world.core.replica().account(PEER, aside.id.epoch, Outcome::Quarantined, &numbers).unwrap();
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    for status in handle.status().unwrap() {
        assert_eq!((status.terms.held, status.terms.quarantined), (0, 1), "{status:?}");
    }
    let posted = world.posted();
    let find = |text: &str| posted.iter().find(|e| e.detail["sent"]["content"].as_str().unwrap().contains(text));
    assert_eq!(find("reply of a peer").unwrap().detail["replyToId"], find("root of a peer").unwrap().detail["id"]);
    assert!(find("kept aside").is_none() && !world.record().contains("kept aside"));
    assert!(world.record().contains("reply of a peer"));
    world.check_rules();
}

/// Frames overtake each other: the targets told what had arrived first, an edit ahead of its post.
#[tokio::test]
async fn what_arrived_ahead_of_its_turn_is_told_in_its_turn() {
    let world = World::new(35, BOTH).await;
    let edit = world.receive_behind(Some(2), 3, 51, None, "first post, second text");
    let last = world.receive_behind(Some(3), 4, 53, None, "third post");
    let middle = world.receive_behind(Some(1), 2, 52, None, "second post");
    let first = world.receive(1, 51, None, "first post, first text");
    let applied = world.core.replica().apply(vec![first, middle, edit, last]).unwrap();
    assert!(applied.iter().all(|one| matches!(one, mission::Applied::Applied)), "{applied:?}");
    let (mut targets, handle) = world.targets();
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    for status in handle.status().unwrap() {
        assert_eq!((status.terms.held, status.terms.applied), (0, 4), "{status:?}");
    }
    let posted = world.posted();
    let texts: Vec<&str> = posted.iter().map(|e| e.detail["sent"]["content"].as_str().unwrap()).collect();
    let places = ["first post", "second post", "third post"].map(|text| texts.iter().position(|t| t.contains(text)));
    assert_eq!(places, [Some(0), Some(1), Some(2)], "{texts:?}");
    let record = world.record();
    assert!(record.contains("first text") && record.contains("second text"), "{record}");
    world.check_rules();
}

/// Applies entries of other nodes in the mission core, which takes them in the order in which they were written.
fn apply_all(world: &World, received: Vec<Incoming>) {
    let applied = world.core.replica().apply(received).unwrap();
    assert!(applied.iter().all(|one| matches!(one, mission::Applied::Applied)), "{applied:?}");
}

/// Stores entries of a peer, each of which names the one before it, in this order of arrival, and gives them in that of writing.
fn arrive(world: &World, order: &[u64], of: impl Fn(u64) -> PostState) -> Vec<Incoming> {
    let mut all: Vec<Incoming> = Vec::new();
    for &n in order {
        all.push(world.receive_event((n > 1).then(|| n - 1), n, Event::Post(of(n))));
    }
    all.sort_by_key(|one| one.id.seq);
    all
}

/// A removal that had arrived ahead of its turn was not seen, and its post went out; a correction likewise, where a message
/// cannot be changed.
#[tokio::test]
async fn what_was_removed_or_corrected_ahead_of_its_turn_never_goes() {
    for kind in ["teams-delegated", "teams-import", "mail-import"] {
        for order in [[1, 2, 4, 5, 3], [4, 5, 1, 2, 3], [5, 4, 3, 2, 1]] {
            let world = World::new(35, &[kind]).await;
            let of = |n: u64| match n {
                1 => world.said(1, 51, None, "regretted"),
                2 => world.said(2, 52, None, "teh plan"),
                3 => world.said(3, 53, None, "kept"),
                4 => PostState { delete_at: UnixMillis(START + 4), ..world.said(4, 51, None, "regretted") },
                _ => PostState { edit_at: UnixMillis(START + 5), ..world.said(5, 52, None, "the plan") },
            };
            apply_all(&world, arrive(&world, &order, of));
            world.deliver().await;
            let oracle = world.sim.oracle();
            let told: Vec<String> = oracle
                .effects
                .iter()
                .map(|effect| effect.detail.to_string())
                .filter(|text| text.contains("<p>"))
                .collect();
            assert!(!told.iter().any(|text| text.contains("regretted")), "{kind} {order:?}: {told:#?}");
            if kind == "teams-import" {
                assert_eq!(world.imported().len(), 2, "{order:?}");
                assert!(!told.iter().any(|text| text.contains("teh plan")), "{order:?}: {told:#?}");
            }
            world.check_rules();
        }
    }
}

/// The removal is here, and the core waits for an entry between: the post goes nowhere meanwhile.
#[tokio::test]
async fn a_removal_that_the_core_does_not_have_yet_stops_its_post() {
    let world = World::new(35, &["teams-delegated"]).await;
    let of = |n: u64| match n {
        1 => world.said(1, 51, None, "regretted"),
        _ => PostState { delete_at: UnixMillis(START + 4), ..world.said(3, 51, None, "regretted") },
    };
    let mut both = arrive(&world, &[1, 3], of);
    let removal = both.pop().unwrap();
    apply_all(&world, both);
    let (mut targets, handle) = world.targets();
    assert!(!world.drive(&mut targets, &handle, 60).await);
    let between = world.receive_behind(Some(1), 2, 52, None, "kept");
    apply_all(&world, vec![between, removal]);
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(world.references().len(), 1);
    assert!(world.posted()[0].detail["sent"]["content"].as_str().unwrap().contains("kept"));
    world.check_rules();
}

/// Each pair that had changed places cost an import a window, and the pause after it.
#[tokio::test]
async fn a_channel_is_opened_once_however_its_entries_overtook_each_other() {
    let world = World::new(36, &["teams-import"]).await;
    let received = arrive(&world, &[6, 4, 5, 2, 3, 1], |n| world.said(n, 50 + n as u8, None, &format!("post {n}")));
    apply_all(&world, received);
    world.deliver().await;
    assert_eq!(world.imported().len(), 6);
    assert_eq!(world.sim.oracle().of(What::MigrationStarted).count(), 1);
    let posted = world.posted();
    let texts: Vec<&str> = posted.iter().map(|e| e.detail["sent"]["content"].as_str().unwrap()).collect();
    assert!(texts.is_sorted(), "{texts:?}");
    world.check_rules();
}

/// Two entries waited in the wrong order for one that the link had lost, and the target looked every millisecond.
#[tokio::test]
async fn what_waits_for_an_entry_that_is_lost_is_looked_at_now_and_then() {
    let world = World::new(36, &["teams-delegated"]).await;
    let received = arrive(&world, &[3, 2], |n| world.said(n, 50 + n as u8, None, &format!("post {n}")));
    let (mut targets, handle) = world.targets();
    assert!(!world.drive(&mut targets, &handle, 100).await);
    let waited = Clock::now(&*world.clock).0 - START;
    assert!(waited > 60_000, "100 looks in {waited} ms");
    let mut all = vec![world.receive(1, 51, None, "post 1")];
    all.extend(received);
    apply_all(&world, all);
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(world.references().len(), 3);
}

/// Between a post and its edit stood a note that the target does not take: the edit, which had arrived first, was told first and
/// the text before it never.
#[tokio::test]
async fn an_edit_comes_behind_its_post_also_past_what_is_not_told() {
    let world = World::new(37, &["teams-delegated"]).await;
    let of = |n: u64| match n {
        1 => world.said(1, 51, None, "first text"),
        2 => PostState { kind: "system_join_channel".to_owned(), ..world.said(2, 52, None, "a note") },
        _ => PostState { edit_at: UnixMillis(START + 3), ..world.said(3, 51, None, "second text") },
    };
    apply_all(&world, arrive(&world, &[2, 3, 1], of));
    let handle = world.deliver().await;
    let terms = handle.status().unwrap()[0].terms;
    assert_eq!((terms.applied, terms.superseded, terms.withheld), (2, 0, 1), "{terms:?}");
    assert!(world.posted()[0].detail["sent"]["content"].as_str().unwrap().contains("first text"));
    world.check_rules();
}

/// Two nodes edited the same two posts, and each edit waited for one that waited for it.
#[tokio::test]
async fn edits_of_two_nodes_do_not_wait_for_each_other() {
    let world = World::new(38, &["teams-delegated"]).await;
    apply_all(&world, arrive(&world, &[1, 2], |n| world.said(n, 50 + n as u8, None, "as it was")));
    let (mut targets, handle) = world.targets();
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    let edit = |by: NodeId, n: u64, post: u8, version: u64| {
        let version = Version { at: Hlc((START as u64 + version) << 16), by };
        let state = PostState { version, edit_at: UnixMillis(START + 9), ..world.said(n, post, None, "edited") };
        world.receive_from(by, (n > 1).then(|| n - 1), n, Event::Post(state))
    };
    let (a2, b2) = (edit(PEER, 4, 52, 13), edit(OTHER_PEER, 2, 51, 14));
    let (a1, b1) = (edit(PEER, 3, 51, 11), edit(OTHER_PEER, 1, 52, 12));
    apply_all(&world, vec![a1, b1, a2, b2]);
    assert!(world.drive(&mut targets, &handle, 2_000).await, "{:?}", handle.status());
    let status = &handle.status().unwrap()[0];
    assert_eq!((status.terms.held, status.dead), (0, 0), "{status:?}");
    world.check_rules();
}

/// A list begins with what was changed last: a page of old messages that somebody had just edited ended the look before it met
/// the message, which was sent once more.
#[tokio::test]
async fn a_message_is_found_behind_old_ones_that_were_edited() {
    let world = World::new(35, &["teams-delegated"]).await;
    for n in 0..55 {
        world.say(&format!("old {n}"), None);
    }
    world.capture("mission");
    world.deliver().await;
    world.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
    world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("POST", "messages"));
    world.say("once", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while world.posted().len() < 56 {
        assert!(!world.drive(&mut targets, &handle, 1).await);
    }
    let channel = microsoft::teams::ChannelOf {
        team: world.team.id.clone(),
        channel: world.team.channels["Ops"].clone(),
        account: world.account.clone(),
    };
    for effect in world.posted().iter().take(55) {
        let id = effect.detail["id"].as_str().unwrap();
        let content = microsoft::teams::Content {
            html: effect.detail["sent"]["content"].as_str().unwrap().to_owned(),
            ..Default::default()
        };
        let edit = channel.edit(microsoft::teams::MessageOf { root: id, id }, &content, Precedence::Routine);
        world.graph.call(edit).await.unwrap();
    }
    while !world.drive(&mut targets, &handle, 100).await {}
    assert_eq!(world.posted().len(), 56, "it was sent twice");
}

/// One blob that was gone failed every step of its target, and nothing behind it went out.
#[tokio::test]
async fn a_file_that_cannot_be_read_here_is_given_up_and_the_rest_goes_on() {
    let world = World::new(26, BOTH).await;
    let mut damaged = BTreeSet::new();
    // One that is put at once, one that is uploaded in pieces.
    for (name, bytes) in [("small.bin", vec![1; 1_000]), ("large.bin", vec![2; 5 << 20])] {
        world.share("damaged", name, &bytes);
        let blobs = walk(&world.dir.path().join("core/files"));
        let blob = blobs.into_iter().find(|path| !damaged.contains(path)).unwrap();
        std::fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(10).unwrap();
        damaged.insert(blob);
    }
    world.share("whole", "whole.bin", b"whole bytes");
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    world.drive(&mut targets, &handle, usize::MAX).await;
    for status in handle.status().unwrap() {
        assert_eq!((status.terms.held, status.dead), (0, 2), "{status:?}");
    }
    let dead = handle.dead(None, 9).unwrap();
    assert!(dead.iter().all(|item| item.reason.contains("cannot be read on this node")), "{dead:?}");
    let oracle = world.sim.oracle();
    let written: Vec<_> = oracle.of(What::FileWritten).map(|e| e.detail["path"].as_str().unwrap()).collect();
    assert_eq!(written.iter().filter(|path| path.ends_with(".bin")).count(), 2, "{written:?}");
}

/// Removed while nobody knew whether the upload had arrived: what arrived goes again.
#[tokio::test]
async fn a_file_that_arrived_unseen_goes_with_its_post() {
    for kind in BOTH {
        let world = World::new(24, &[kind]).await;
        world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("PUT", "f.bin"));
        let (post, file) = world.share("regretted", "f.bin", b"bytes");
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        while world.written(file).is_empty() {
            assert!(!world.drive(&mut targets, &handle, 1).await, "{kind}");
        }
        world.core.delete_post(&world.alice, post).unwrap();
        world.capture("mission");
        while !world.drive(&mut targets, &handle, 100).await {}
        let oracle = world.sim.oracle();
        assert_eq!(oracle.of(What::ItemDeleted).count(), 1, "{kind}: the file");
        let shown = oracle.of(What::MessagePosted).count() - oracle.of(What::MessageDeleted).count();
        assert_eq!(shown, 0, "{kind}");
        assert_eq!(handle.status().unwrap()[0].terms.held, 0, "{kind}");
        world.check_rules();
    }
}

/// A large file was sent in one step, and what was written meanwhile waited for all of it.
#[tokio::test]
async fn a_flash_does_not_wait_for_a_large_file() {
    let world = World::new(39, &["teams-delegated"]).await;
    let (_, file) = world.share("a film", "film.bin", &vec![7; 35 << 20]);
    world.capture("mission");
    let (core, journal, alice, channel) =
        (world.core.clone(), world.journal.clone(), world.alice.clone(), world.channel);
    let urgent = move || {
        let urgent: NewPost = serde_json::from_value(serde_json::json!({
            "channel_id": channel, "message": "contact", "metadata": { "priority": { "priority": "urgent" } },
        }))
        .unwrap();
        core.create_post(&alice, &urgent, true).unwrap();
        capture(&core, &journal, "mission");
    };
    *world.at_request.lock().unwrap() = Some(("createUploadSession", Box::new(urgent)));
    world.deliver().await;
    let oracle = world.sim.oracle();
    let at = |what, text: &str| {
        oracle.effects.iter().position(|e| e.what == what && e.detail.to_string().contains(text)).unwrap()
    };
    assert!(at(What::MessagePosted, "contact") < at(What::FileWritten, file.as_str()));
    assert_eq!(world.written(file).len(), 1);
    let sessions = world.requests.lock().unwrap().iter().filter(|r| r.contains("createUploadSession")).count();
    assert_eq!(sessions, 1, "the session went on where it was");
    world.check_rules();
}

#[tokio::test]
async fn a_purge_reaches_messages_files_and_records() {
    let world = World::new(6, BOTH).await;
    let (post, file) = world.share("spilled text", "spilled.bin", b"spilled bytes");
    world.say("harmless", None);
    world.capture("mission");
    world.deliver().await;
    assert!(world.record().contains("spilled text"));
    world.order_purge(vec![post], vec![file]);
    let handle = world.deliver().await;
    let record = world.record();
    assert!(
        !record.contains("spilled") && record.contains("harmless") && record.contains("removed by order"),
        "{record}"
    );
    let oracle = world.sim.oracle();
    assert_eq!(oracle.of(What::MessageDeleted).count(), 2, "the post, and the message that shows the file");
    assert_eq!(
        oracle.of(What::ItemDeleted).count(),
        3,
        "the file in both folders, and the document with its older versions"
    );
    for status in handle.status().unwrap() {
        assert_eq!(status.missing["purge-rest"], 1, "what the recycle bin keeps is told: {status:?}");
    }
    let ledger = world.dir.path().join("ledger");
    for file in std::fs::read_dir(ledger).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(12).any(|w| w == b"spilled text"), "{:?}", file.path());
    }
}

/// Ordered while nobody knew whether the upload had arrived: its bytes stayed, and nothing told where.
#[tokio::test]
async fn a_purge_reaches_a_file_that_arrived_unseen() {
    for kind in BOTH {
        let world = World::new(32, &[kind]).await;
        world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("PUT", "f.bin"));
        let (post, file) = world.share("spilled", "f.bin", b"spilled bytes");
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        while world.written(file).is_empty() {
            assert!(!world.drive(&mut targets, &handle, 1).await, "{kind}");
        }
        world.order_purge(vec![post], vec![file]);
        while !world.drive(&mut targets, &handle, 100).await {}
        let [path] = &world.written(file)[..] else { panic!("{kind}") };
        assert!(world.sim.file(&world.team.drive, path).is_none(), "{kind}: {path} is still there");
        assert_eq!(handle.status().unwrap()[0].terms.held, 0, "{kind}");
        world.check_rules();
    }
}

/// SharePoint writes properties of its own into documents of Office, so that neither size nor hash are what was sent.
#[tokio::test]
async fn a_file_that_the_service_rewrote_on_upload_is_known_by_its_name() {
    let world = World::new(33, &["sharepoint-archive"]).await;
    world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("PUT", "f.docx"));
    let (_, file) = world.share("an order", "f.docx", b"bytes");
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while world.written(file).is_empty() {
        assert!(!world.drive(&mut targets, &handle, 1).await);
    }
    let [path] = &world.written(file)[..] else { panic!() };
    let names: Vec<String> = path.trim_start_matches('/').split('/').map(str::to_owned).collect();
    let (name, folder) = names.split_last().unwrap();
    let folder = microsoft::drive::Folder {
        drive: world.team.drive.clone(),
        place: microsoft::drive::Place::Path(folder.to_vec()),
    };
    let replace = microsoft::drive::OnConflict::Replace;
    let rewritten =
        folder.put(name, "rewritten bytes".into(), "application/octet-stream", replace, Precedence::Routine);
    world.graph.call(rewritten).await.unwrap();
    while !world.drive(&mut targets, &handle, 100).await {}
    let status = &handle.status().unwrap()[0];
    assert_eq!((status.terms.held, status.dead), (0, 0), "{status:?} {:?}", handle.dead(None, 9));
    assert!(world.record().contains("f.docx</a>"));
}

/// The post of a digest stayed with what was purged in it: nobody had kept its id.
#[tokio::test]
async fn a_purge_removes_the_post_of_a_digest() {
    for lost in [false, true] {
        let world = World::new(37, &["teams-digest"]).await;
        if lost {
            world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("POST", "messages"));
        }
        let post = world.say("spilled", None);
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        if lost {
            // The order comes while nobody knows whether it arrived.
            while world.posted().is_empty() {
                assert!(!world.drive(&mut targets, &handle, 1).await);
            }
        } else {
            assert!(world.drive(&mut targets, &handle, usize::MAX).await);
        }
        world.order_purge(vec![post], Vec::new());
        assert!(world.drive(&mut targets, &handle, usize::MAX).await);
        assert_eq!(world.posted().len(), 1, "{lost}");
        assert_eq!(world.sim.oracle().of(What::MessageDeleted).count(), 1, "{lost}");
        let status = &handle.status().unwrap()[0];
        assert_eq!((status.terms.held, status.dead), (0, 0), "{lost}: {status:?}");
        world.check_rules();
    }
}

/// The document was there, its answer was lost, and its older version outlived the order.
#[tokio::test]
async fn a_purge_removes_the_versions_of_a_document_that_arrived_unseen() {
    let world = World::new(38, &["sharepoint-archive"]).await;
    world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("PUT", ".html"));
    world.sim.fail(FaultRule::new(Failure::ResetBefore).on("PUT", ".html").times(u32::MAX));
    let post = world.say("spilled", None);
    world.say("harmless", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while world.sim.oracle().of(What::FileWritten).count() == 0 {
        assert!(!world.drive(&mut targets, &handle, 1).await);
    }
    world.order_purge(vec![post], Vec::new());
    world.sim.heal();
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(world.sim.oracle().of(What::ItemDeleted).count(), 1);
    assert!(world.record().contains("harmless") && !world.record().contains("spilled"));
}

/// The same bytes under another id of this node, which the order of another node does not name.
#[tokio::test]
async fn a_purge_of_bytes_wherever_they_are_used_reaches_their_twins() {
    let world = World::new(36, BOTH).await;
    let (_, file) = world.share("one", "one.bin", b"the same bytes");
    let (_, twin) = world.share("another", "another.bin", b"the same bytes");
    world.capture("mission");
    world.deliver().await;
    let order = PurgeState {
        version: Version { at: Hlc((START as u64 + 1_000) << 16), by: PEER },
        id: Id::from_block([77; 16]),
        at: UnixMillis(START + 1_000),
        by: "duty officer".to_owned(),
        reason: "spilled".to_owned(),
        posts: Vec::new(),
        files: vec![file],
        entries: Vec::new(),
        keep_files: false,
        everywhere_used: true,
        label: Some("mission".parse().unwrap()),
        channel_id: Some(world.channel),
    };
    let received = world.receive_event(None, 1, Event::Purge(order.clone()));
    world.core.replica().begin_purge(&order, received.id).unwrap();
    world.deliver().await;
    for file in [file, twin] {
        let written = world.written(file);
        assert!(!written.is_empty());
        for path in written {
            assert!(world.sim.file(&world.team.drive, &path).is_none(), "{path} is still there");
        }
    }
    assert!(!world.record().contains(".bin"), "{}", world.record());
}

/// Sends so many messages to one channel, and compares what it took with what the plan said.
async fn a_day(kind: &str, requests: impl Fn(u64) -> u64) -> String {
    let world = World::new(8, &[kind]).await;
    let messages = std::env::var("HOLDFAST_DAY_MESSAGES").map_or(3_000, |n| n.parse().unwrap());
    for n in 0..messages {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    let plan = handle.plan().unwrap();
    assert!(world.requests.lock().unwrap().is_empty(), "a plan sends nothing");
    assert_eq!(plan.targets[0].requests, requests(messages as u64));
    let began = Clock::now(&*world.clock).0;
    let mut left = true;
    while left {
        left = match targets.step().await.unwrap() {
            None => false,
            Some(at) => {
                world.clock.0.fetch_max(at.0, Ordering::SeqCst);
                true
            }
        };
    }
    let took = (Clock::now(&*world.clock).0 - began) as f64 / 1_000.0;
    assert!((took / plan.seconds - 1.0).abs() < 0.2, "planned {} s, took {took} s", plan.seconds);
    let oracle = world.sim.oracle();
    assert_eq!(oracle.of(What::MessagePosted).count(), messages);
    assert_eq!(oracle.requests.iter().filter(|r| r.status == 429).count(), 0);
    assert_eq!(handle.status().unwrap()[0].terms.applied, messages as u64);
    world.check_rules();
    format!("{kind}: {messages} messages: planned {:.0} s, took {took:.0} s of virtual time", plan.seconds)
}

#[tokio::test]
async fn a_day_of_3000_messages_takes_what_the_plan_said_and_is_never_refused_for_speed() {
    println!("{}", a_day("teams-delegated", |messages| messages).await);
}

#[tokio::test]
async fn a_day_of_3000_messages_is_imported_in_the_time_that_the_plan_said() {
    // How the channel stands, open, close.
    println!("{}", a_day("teams-import", |messages| messages + 3).await);
}

#[tokio::test]
async fn history_is_imported_with_its_times_and_authors_and_people_have_their_channel_again() {
    let world = World::new(20, &["teams-import"]).await;
    let oid = world.sim.add_user(User::new("carol"));
    let carol = world.synced("carol", &oid);
    let root = world.say_as(&carol, "**bold** plan", None);
    let reply = world.say("who are you", Some(root));
    world.core.save_reaction(&world.alice, world.alice.user_id, root, "+1").unwrap();
    let corrected = world.say_as(&carol, "teh plan", None);
    let (_, file) = world.share("see this", "plan.bin", b"0123456789");
    world.edit(corrected, "the plan");
    world.capture("mission");
    // Whatever the clock is when it goes.
    world.clock.0.fetch_add(3 * 3_600_000, Ordering::SeqCst);
    let handle = world.deliver().await;
    let said = |id: Id| world.core.post(&world.alice, id, true).unwrap().create_at;
    let imported = world.imported();
    assert_eq!(imported.len(), 5, "{imported:#?}");
    let of =
        |at: i64| imported.iter().find(|(t, ..)| *t == at).unwrap_or_else(|| panic!("nothing at {at}: {imported:#?}"));
    assert_eq!(
        (of(said(root)).1.as_str(), of(said(root)).2.as_str()),
        (oid.as_str(), "<p><strong>bold</strong> plan</p>")
    );
    let (_, by, text) = of(said(reply));
    assert_eq!(by, &world.account);
    assert!(text.contains("alice") && text.contains("who are you"), "{text}");
    let (_, by, text) = of(said(corrected));
    assert!(by == &oid && text.contains("the plan") && text.contains("(edited)"), "{text}");
    assert!(!imported.iter().any(|(_, _, text)| text.contains("teh plan")), "the last word is imported, and only that");
    let posted = world.posted();
    let find =
        |text: &str| posted.iter().find(|e| e.detail["sent"]["content"].as_str().unwrap().contains(text)).unwrap();
    assert_eq!(find("who are you").detail["replyToId"], find("bold").detail["id"]);
    assert_eq!(find("plan.bin</a>").detail["replyToId"], find("see this").detail["id"]);
    let oracle = world.sim.oracle();
    let files = oracle.of(What::FileWritten).filter(|e| e.detail["path"].as_str().unwrap().contains(file.as_str()));
    assert_eq!(files.count(), 1);
    let at = |what| oracle.effects.iter().position(|e| e.what == what).unwrap();
    assert!(at(What::FileWritten) < at(What::MigrationStarted), "bytes go while people can post");
    assert_eq!(oracle.of(What::MigrationStarted).count(), 1);
    assert!(!world.is_open());

    // What changes now cannot be expressed; it is counted, and the channel is not opened for it.
    world.edit(root, "other plan");
    world.core.delete_post(&world.alice, reply).unwrap();
    world.capture("mission");
    let before = handle.status().unwrap()[0].missing.clone();
    assert_eq!(before, BTreeMap::from([("reaction".to_owned(), 1)]));
    let handle = world.deliver().await;
    let missing = handle.status().unwrap()[0].missing.clone();
    assert_eq!((missing["edit"], missing["delete"], missing["reaction"]), (1, 1, 1), "{missing:?}");
    assert_eq!(world.sim.oracle().of(What::MigrationStarted).count(), 1);
    world.check_rules();
}

#[tokio::test]
async fn what_is_imported_after_random_failures_and_restarts_is_there_once_at_its_time() {
    let seeds = std::env::var("HOLDFAST_SEEDS").map_or(4, |n| n.parse().unwrap());
    for seed in 0..seeds {
        let world = World::new(seed, &["teams-import"]).await;
        let oid = world.sim.add_user(User::new("carol"));
        let carol = world.synced("carol", &oid);
        for failure in [
            Failure::ResetAfterCommit,
            Failure::ResetBefore,
            Failure::Truncated,
            Failure::RefusedAfterCommit { status: 503 },
            Failure::Refused { status: 429, retry_after_s: Some(1.5), code: None },
            Failure::Html { status: 502 },
        ] {
            world.sim.fail(FaultRule::new(failure).at("graph").times(u32::MAX).chance(0.07));
        }
        let mut steps = 3;
        let mut written = Vec::new();
        let mut restarts = 0;
        for round in 0..3 {
            for n in 0..6 {
                let root = world.say_as(&carol, &format!("post {round} {n}"), None);
                written.push((root, oid.clone()));
                written.push((world.say(&format!("reply {round} {n}"), Some(root)), world.account.clone()));
            }
            world.share("file", &format!("f{round}.bin"), &[round as u8; 500]);
            world.capture("mission");
            let handle = loop {
                let (mut targets, handle) = world.targets();
                if world.drive(&mut targets, &handle, steps).await {
                    break handle;
                }
                restarts += 1;
                steps = (steps * 3 + seed as usize) % 17 + 1;
            };
            let status = handle.status().unwrap().remove(0);
            assert_eq!((status.terms.held, status.dead), (0, 0), "seed {seed}: {status:?} {:?}", handle.dead(None, 9));
            assert!(!world.is_open(), "seed {seed}");
        }
        assert!(restarts > 5, "{restarts}");
        let imported = world.imported();
        let times: BTreeSet<i64> = imported.iter().map(|(at, ..)| *at).collect();
        assert_eq!((imported.len(), times.len()), (written.len() + 6, imported.len()), "seed {seed}: {imported:#?}");
        for (post, by) in written {
            let post = world.core.post(&world.alice, post, true).unwrap();
            let there: Vec<_> = imported.iter().filter(|(at, ..)| *at == post.create_at).collect();
            let [(_, author, text)] = &there[..] else {
                panic!("seed {seed}: {} is there {} times", post.message, there.len())
            };
            assert!(*author == by && text.contains(&post.message), "seed {seed}: {there:?}");
        }
        world.check_rules();
    }
}

/// The node dies with the channel open and comes back after hours: before anything else people get their channel back.
#[tokio::test]
async fn a_channel_that_was_left_open_is_closed_first_once_its_time_is_up() {
    let world = World::new(21, &["teams-import"]).await;
    for n in 0..20 {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while world.imported().len() < 5 {
        world.drive(&mut targets, &handle, 1).await;
    }
    drop(targets);
    assert!(world.is_open() && handle.status().unwrap()[0].open_since.is_some());
    world.clock.0.fetch_add(2 * 3_600_000, Ordering::SeqCst);
    // Microsoft cannot be reached at first.
    world
        .sim
        .fail(FaultRule::new(Failure::Refused { status: 503, retry_after_s: None, code: None }).at("graph").times(12));
    let health = Health::new(world.clock.clone());
    let (mut targets, handle) = world.targets_with(health.clone());
    world.drive(&mut targets, &handle, 1).await;
    let check = health.checks().into_iter().find(|check| check.name == "m365-teams-import-window").unwrap();
    assert_eq!(check.grade, telemetry::Grade::Failing, "{check:?}");
    assert!(check.text.contains("people cannot post"), "{check:?}");
    world.drive(&mut targets, &handle, usize::MAX).await;
    let effects = world.sim.oracle().effects;
    let closed = effects.iter().position(|e| e.what == What::MigrationCompleted).unwrap();
    assert_eq!(
        effects[..closed].iter().filter(|e| e.what == What::MessagePosted).count(),
        5,
        "closed before anything more"
    );
    assert_eq!(world.imported().len(), 20);
    assert!(!world.is_open());
    let check = health.checks().into_iter().find(|check| check.name == "m365-teams-import-window").unwrap();
    assert_eq!(check.grade, telemetry::Grade::Ok, "{check:?}");
    world.check_rules();
}

/// A window lasts no longer than it may, however much there is, and then people have the channel for a while.
#[tokio::test]
async fn a_long_history_is_imported_in_windows_with_pauses_between() {
    let mut world = World::new(22, &["teams-import"]).await;
    (world.settings[0].open_minutes, world.settings[0].closed_minutes) = (1, 10);
    for n in 0..300 {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    world.deliver().await;
    let effects = world.sim.oracle().effects;
    let turns: Vec<_> =
        effects.iter().filter(|e| matches!(e.what, What::MigrationStarted | What::MigrationCompleted)).collect();
    assert!(turns.len() >= 4, "{}", turns.len());
    for pair in turns.chunks(2) {
        let [opened, closed] = pair else { panic!("it stays open") };
        assert_eq!((opened.what, closed.what), (What::MigrationStarted, What::MigrationCompleted));
        assert!(closed.at_ms - opened.at_ms <= 61_000, "open for {} ms", closed.at_ms - opened.at_ms);
    }
    for pair in turns[1..].chunks(2).filter(|pair| pair.len() == 2) {
        assert!(pair[1].at_ms - pair[0].at_ms >= 600_000, "left to people for {} ms", pair[1].at_ms - pair[0].at_ms);
    }
    assert_eq!(world.imported().len(), 300);
    world.check_rules();
}

/// While the target rests for want of a permission, nobody would close the channel that it has open.
#[tokio::test]
async fn a_target_that_rests_closes_its_imports_in_time() {
    let mut world = World::new(29, &["teams-import"]).await;
    world.settings[0].open_minutes = 1;
    for n in 0..9 {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while world.imported().len() < 3 {
        world.drive(&mut targets, &handle, 1).await;
    }
    let refused = Failure::Refused { status: 401, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("POST", "/messages").times(4));
    world.drive(&mut targets, &handle, usize::MAX).await;
    let effects = world.sim.oracle().effects;
    let at = |what| effects.iter().find(|effect| effect.what == what).unwrap().at_ms;
    let open_ms = at(What::MigrationCompleted) - at(What::MigrationStarted);
    assert!((50_000..70_000).contains(&open_ms), "open for {open_ms} ms");
    assert_eq!(world.imported().len(), 9);
    assert!(!world.is_open());
}

/// Whoever takes the target out of the configuration while its channel is open must not leave people without it.
#[tokio::test]
async fn a_target_that_is_gone_closes_the_channel_that_it_opened() {
    let mut world = World::new(23, &["teams-import"]).await;
    for n in 0..9 {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while !world.is_open() {
        world.drive(&mut targets, &handle, 1).await;
    }
    drop(targets);
    world.settings.clear();
    assert!(apply::targets::left_open(&world.dir.path().join("ledger")).unwrap());
    let (mut targets, handle) = world.targets();
    world.drive(&mut targets, &handle, usize::MAX).await;
    assert!(!world.is_open());
    assert!(!apply::targets::left_open(&world.dir.path().join("ledger")).unwrap());
    world.check_rules();
}

#[tokio::test]
async fn an_orderly_end_closes_the_channel() {
    let world = World::new(24, &["teams-import"]).await;
    for n in 0..9 {
        world.say(&format!("message {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while !world.is_open() {
        world.drive(&mut targets, &handle, 1).await;
    }
    let stop = CancellationToken::new();
    stop.cancel();
    targets.run(stop).await;
    assert!(!world.is_open());
}

/// Somebody else's message has the millisecond: ours goes to the next one, and neither is lost.
#[tokio::test]
async fn a_millisecond_that_is_taken_by_somebody_else_is_left_to_them() {
    let world = World::new(25, &["teams-import"]).await;
    let at = Clock::now(&*world.clock).0 + 10;
    world.clock.0.store(at, Ordering::SeqCst);
    let channel = microsoft::teams::ChannelOf {
        team: world.team.id.clone(),
        channel: world.team.channels["History"].clone(),
        account: world.account.clone(),
    };
    let theirs = microsoft::teams::Content { html: "<p>said in Teams</p>".to_owned(), ..Default::default() };
    world.graph.call(channel.post(None, &theirs, Precedence::Routine)).await.unwrap();
    world.clock.0.store(at - 10, Ordering::SeqCst);
    let ours = world.say("said in the field", None);
    assert_eq!(world.core.post(&world.alice, ours, true).unwrap().create_at, at);
    world.capture("mission");
    world.deliver().await;
    let [(there, _, text)] = &world.imported()[..] else { panic!("{:?}", world.imported()) };
    assert!(*there == at + 1 && text.contains("said in the field"), "{there} {text}");
    world.check_rules();
}

#[tokio::test]
async fn what_somebody_wrote_whom_entra_has_deleted_is_attributed_to_the_account() {
    let world = World::new(26, &["teams-import"]).await;
    let ghost = world.synced("ghost", "0a0a0a0a-0b0b-0c0c-0d0d-0e0e0e0e0e0e");
    world.say_as(&ghost, "I was here", None);
    world.capture("mission");
    world.deliver().await;
    let [(_, by, text)] = &world.imported()[..] else { panic!("{:?}", world.imported()) };
    assert_eq!(by, &world.account);
    assert!(text.contains("GHOST") && text.contains("I was here"), "{text}");
}

/// What an edge wrote before anything that is in the channel comes late: the channel has to begin earlier for it.
#[tokio::test]
async fn something_older_than_the_beginning_of_the_channel_opens_it_once_more() {
    let world = World::new(27, &["teams-import"]).await;
    for n in 0..5 {
        world.say(&format!("new {n}"), None);
    }
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while !world.is_open() {
        world.drive(&mut targets, &handle, 1).await;
    }
    let old = NewPost {
        channel_id: world.channel.to_string(),
        message: "old".to_owned(),
        create_at: START - 40 * 24 * 3_600_000,
        ..NewPost::default()
    };
    let mut admin = world.alice.clone();
    admin.roles = "system_user system_admin".to_owned();
    let old = world.core.create_post(&admin, &old, true).unwrap();
    world.capture("mission");
    world.drive(&mut targets, &handle, usize::MAX).await;
    let imported = world.imported();
    assert_eq!(imported.len(), 6);
    assert_eq!(imported[5].0, START - 40 * 24 * 3_600_000);
    assert_eq!(old.create_at, imported[5].0);
    assert_eq!(world.sim.oracle().of(What::MigrationStarted).count(), 2);
    assert!(!world.is_open());
    world.check_rules();
}

/// The file of a post that was removed before it went out is not even uploaded.
#[tokio::test]
async fn a_file_of_a_post_that_was_removed_in_time_is_not_imported() {
    let world = World::new(28, &["teams-import"]).await;
    let (post, file) = world.share("regretted", "regretted.bin", b"regretted bytes");
    world.say("kept", None);
    world.core.delete_post(&world.alice, post).unwrap();
    world.capture("mission");
    world.deliver().await;
    assert!(world.written(file).is_empty());
    assert_eq!(world.imported().len(), 1);
    world.check_rules();
}

/// Messages of the mailbox as they stand: text, dates, sender, `Message-ID` and what they answer.
fn kept(world: &World) -> Vec<serde_json::Value> {
    let oracle = world.sim.oracle();
    let gone: BTreeSet<&String> = oracle.of(What::MailDeleted).map(|effect| &effect.id).collect();
    oracle
        .of(What::MailCreated)
        .filter(|effect| !gone.contains(&effect.id))
        .map(|effect| effect.detail.clone())
        .collect()
}

#[tokio::test]
async fn mail_keeps_dates_authors_and_threads_and_follows_edits_and_removals() {
    let world = World::new(40, &["mail-import"]).await;
    let root = world.say("**bold** plan", None);
    let reply = world.say("who are you", Some(root));
    let gone = world.say("regretted later", None);
    let never = world.say("regretted at once", None);
    world.core.delete_post(&world.alice, never).unwrap();
    world.share("see this", "plan.bin", b"0123456789");
    world.core.save_reaction(&world.alice, world.alice.user_id, root, "+1").unwrap();
    world.capture("mission");
    world.clock.0.fetch_add(3 * 3_600_000, Ordering::SeqCst);
    let (_, handle) = world.targets();
    let planned = handle.plan().unwrap().targets[0].requests;
    world.deliver().await;
    assert_eq!(world.requests.lock().unwrap().len() as u64, planned - 2, "the removed one, and what removed it");
    let all = kept(&world);
    assert_eq!(all.len(), 4, "{all:#?}");
    let find = |all: &[serde_json::Value], text: &str| {
        let found = all.iter().find(|m| m["body"]["content"].as_str().unwrap().contains(text));
        found.unwrap_or_else(|| panic!("no {text} in {all:#?}")).clone()
    };
    let first = find(&all, "<strong>bold</strong>");
    let said = world.core.post(&world.alice, root, true).unwrap().create_at;
    let at = jiff::Timestamp::from_millisecond(said).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for name in ["receivedDateTime", "sentDateTime"] {
        assert_eq!(first[name], at.as_str(), "{name}");
    }
    assert_eq!((&first["isDraft"], &first["isRead"]), (&false.into(), &true.into()));
    assert_eq!(first["from"]["emailAddress"]["address"], "alice@example.org");
    assert_eq!(find(&all, "who are you")["extended"]["String 0x1042"], first["internetMessageId"]);
    assert_eq!(find(&all, "see this")["subject"], "alpha/town-square: see this");
    let folders: BTreeSet<_> = all.iter().map(|m| m["folder"].to_string()).collect();
    assert_eq!((folders.len(), world.sim.oracle().of(What::MailFolderCreated).count()), (1, 1));

    world.edit(reply, "who are you, please");
    world.core.delete_post(&world.alice, gone).unwrap();
    world.capture("mission");
    // As another start finds them: its folder is known by its name.
    let handle = world.deliver().await;
    let all = kept(&world);
    assert_eq!(all.len(), 3, "{all:#?}");
    let answer = find(&all, "who are you, please");
    assert_eq!(answer["extended"]["String 0x1042"], first["internetMessageId"]);
    assert_eq!(world.sim.oracle().of(What::MailFolderCreated).count(), 1);
    assert_eq!(world.sim.oracle().of(What::MailSent).count(), 0, "nothing is sent to anybody");
    let missing = handle.status().unwrap()[0].missing.clone();
    assert_eq!(missing, BTreeMap::from([("file-bytes".to_owned(), 1), ("reaction".to_owned(), 1)]));
    world.check_rules();
}

#[tokio::test]
async fn what_is_kept_as_mail_after_random_failures_and_restarts_is_there_once() {
    let seeds = std::env::var("HOLDFAST_SEEDS").map_or(4, |n| n.parse().unwrap());
    for seed in 0..seeds {
        let world = World::new(seed, &["mail-import"]).await;
        for failure in [
            Failure::ResetAfterCommit,
            Failure::ResetBefore,
            Failure::Truncated,
            Failure::RefusedAfterCommit { status: 503 },
            Failure::Html { status: 502 },
        ] {
            world.sim.fail(FaultRule::new(failure).at("graph").times(u32::MAX).chance(0.07));
        }
        let mut texts = BTreeSet::new();
        for n in 0..12 {
            let post = world.say(&format!("post {n}."), None);
            if n % 3 == 0 {
                world.edit(post, &format!("post {n}, edited."));
                texts.insert(format!("post {n}, edited."));
            } else {
                texts.insert(format!("post {n}."));
            }
        }
        world.capture("mission");
        let mut steps = 3;
        let handle = loop {
            let (mut targets, handle) = world.targets();
            if world.drive(&mut targets, &handle, steps).await {
                break handle;
            }
            steps = (steps * 3 + seed as usize) % 17 + 1;
        };
        let status = handle.status().unwrap().remove(0);
        assert_eq!((status.terms.held, status.dead), (0, 0), "seed {seed}: {status:?} {:?}", handle.dead(None, 9));
        let all = kept(&world);
        assert_eq!(all.len(), texts.len(), "seed {seed}: {all:#?}");
        for text in texts {
            let times = all.iter().filter(|m| m["body"]["content"].as_str().unwrap().contains(&text)).count();
            assert_eq!(times, 1, "seed {seed}: {text}");
        }
        world.check_rules();
    }
}

#[tokio::test]
async fn a_purge_reaches_what_is_kept_as_mail() {
    let world = World::new(41, &["mail-import"]).await;
    let spilled = world.say("spilled text", None);
    world.say("harmless", None);
    world.capture("mission");
    world.deliver().await;
    world.order_purge(vec![spilled], Vec::new());
    let handle = world.deliver().await;
    let all = kept(&world);
    assert!(all.len() == 1 && all[0]["body"]["content"].as_str().unwrap().contains("harmless"), "{all:#?}");
    assert_eq!(handle.status().unwrap()[0].missing["purge-rest"], 1, "what Exchange keeps is told");
    world.check_rules();
}

/// Imported messages cannot be removed by an application: an order to purge says that they are left.
#[tokio::test]
async fn a_purge_removes_imported_files_and_tells_what_it_leaves() {
    let world = World::new(42, &["teams-import"]).await;
    let (post, file) = world.share("spilled text", "spilled.bin", b"spilled bytes");
    world.capture("mission");
    world.deliver().await;
    let [path] = &world.written(file)[..] else { panic!() };
    world.order_purge(vec![post], vec![file]);
    let handle = world.deliver().await;
    assert!(world.sim.file(&world.team.drive, path).is_none(), "{path} is still there");
    assert_eq!(handle.status().unwrap()[0].missing["purge-rest"], 1);
    world.check_rules();
}

/// Steps until a request was made whose method and path begin and end so.
async fn until_requested(world: &World, targets: &mut Targets, handle: &TargetsHandle, method: &str, path: &str) {
    let is_it = |request: &String| request.starts_with(method) && request.contains(path);
    while !world.requests.lock().unwrap().iter().any(is_it) {
        assert!(!world.drive(targets, handle, 1).await, "{method} {path} was not asked");
    }
}

/// The link died during the request; then its author removed the post, or the mapping was narrowed, and it was sent again.
#[tokio::test]
async fn what_was_removed_or_withheld_after_a_lost_answer_is_not_sent_again() {
    for (arrived, is_narrowed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(43, &["teams-import"]).await;
        let lost = if arrived { Failure::ResetAfterCommit } else { Failure::ResetBefore };
        world.sim.fail(FaultRule::new(lost).on("POST", "/messages"));
        let post = world.say("regretted", None);
        world.capture("mission");
        let (mut targets, handle) = world.targets();
        until_requested(&world, &mut targets, &handle, "POST", "/messages").await;
        if is_narrowed {
            world.settings[0].teams = vec!["bravo".to_owned()];
        } else {
            world.core.delete_post(&world.alice, post).unwrap();
            world.capture("mission");
        }
        let (mut targets, handle) = world.targets();
        assert!(world.drive(&mut targets, &handle, usize::MAX).await);
        let status = &handle.status().unwrap()[0];
        assert_eq!((status.terms.held, status.dead), (0, 0), "{status:?}");
        assert_eq!(
            world.imported().len(),
            usize::from(arrived),
            "arrived {arrived}, narrowed {is_narrowed}: {status:?}"
        );
        assert!(!world.is_open());
        world.check_rules();
    }
}

/// Reading what had gathered went ahead of closing a channel whose time was up.
#[tokio::test]
async fn a_channel_is_closed_in_time_however_much_there_is_to_read() {
    let world = World::new(45, &["teams-import"]).await;
    world.say("message", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while !world.is_open() {
        world.drive(&mut targets, &handle, 1).await;
    }
    world.clock.0.fetch_add(24 * 3_600_000, Ordering::SeqCst);
    for n in 0..600 {
        world.say(&format!("later {n}"), None);
    }
    world.capture("mission");
    world.drive(&mut targets, &handle, 1).await;
    assert!(!world.is_open());
}

/// Somebody deleted the channel while it was open: the node asked it to close for ever.
#[tokio::test]
async fn a_channel_that_is_gone_is_not_asked_to_close_for_ever() {
    let mut world = World::new(46, &["teams-import"]).await;
    world.say("message", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    while !world.is_open() {
        world.drive(&mut targets, &handle, 1).await;
    }
    drop(targets);
    let gone = Failure::Refused { status: 404, retry_after_s: None, code: None };
    for method in ["GET", "POST"] {
        world.sim.fail(FaultRule::new(gone.clone()).on(method, "/channels/").times(u32::MAX));
    }
    world.settings.clear();
    let (mut targets, handle) = world.targets();
    assert!(world.drive(&mut targets, &handle, 200).await);
    assert!(!apply::targets::left_open(&world.dir.path().join("ledger")).unwrap());
}

/// Opening was refused for good, and was asked for again every few seconds, without a word.
#[tokio::test]
async fn a_channel_that_may_not_be_opened_is_asked_now_and_then_and_the_health_page_says_so() {
    let world = World::new(47, &["teams-import"]).await;
    world.say("message", None);
    world.capture("mission");
    let refused = Failure::Refused { status: 400, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("POST", "startMigration").times(u32::MAX));
    let health = Health::new(world.clock.clone());
    let (mut targets, handle) = world.targets_with(health.clone());
    let mut degraded = false;
    while Clock::now(&*world.clock).0 < START + 2 * 3_600_000 {
        assert!(!world.drive(&mut targets, &handle, 1).await);
        let check = health.checks().into_iter().find(|check| check.name == "m365-teams-import");
        degraded |= check.is_some_and(|check| check.grade == telemetry::Grade::Degraded);
    }
    let asked = world.requests.lock().unwrap().iter().filter(|r| r.contains("startMigration")).count();
    assert!(asked <= 25 && degraded, "{asked} times in two hours, {degraded}");
    world.sim.heal();
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(world.imported().len(), 1);
}

/// Its answer was lost, and then Graph would not have its author any more: it was imported once more by the account.
#[tokio::test]
async fn what_may_be_there_by_an_author_who_is_gone_is_imported_once() {
    let world = World::new(48, &["teams-import"]).await;
    let oid = world.sim.add_user(User::new("carol"));
    let carol = world.synced("carol", &oid);
    world.say_as(&carol, "once", None);
    world.capture("mission");
    world.clock.0.fetch_add(20 * 60_000, Ordering::SeqCst);
    world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("POST", "/messages"));
    let (mut targets, handle) = world.targets();
    until_requested(&world, &mut targets, &handle, "POST", "/messages").await;
    let refused = Failure::Refused { status: 400, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("POST", "/messages"));
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(world.imported().len(), 1, "{:?}", world.imported());
    world.check_rules();
}

/// A mail whose answer was lost was given up, its post edited, and then it was tried again: both mails stayed.
#[tokio::test]
async fn a_mail_that_was_given_up_goes_when_a_later_one_is_there() {
    let world = World::new(49, &["mail-import"]).await;
    world.sim.fail(FaultRule::new(Failure::ResetAfterCommit).on("POST", "/messages"));
    let post = world.say("first text", None);
    world.capture("mission");
    let (mut targets, handle) = world.targets();
    until_requested(&world, &mut targets, &handle, "POST", "/messages").await;
    let refused = Failure::Refused { status: 400, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("GET", "/messages"));
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    assert_eq!(handle.status().unwrap()[0].dead, 1);
    world.edit(post, "second text");
    world.capture("mission");
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    let before = handle.status().unwrap()[0].terms;
    assert_eq!(handle.retry("mail-import", None).unwrap(), 1);
    assert!(world.drive(&mut targets, &handle, usize::MAX).await);
    let all = kept(&world);
    assert!(all.len() == 1 && all[0]["body"]["content"].as_str().unwrap().contains("second text"), "{all:#?}");
    let terms = handle.status().unwrap()[0].terms;
    assert_eq!((terms.superseded, terms.purged), (before.superseded + 1, before.purged), "{terms:?}");
    world.check_rules();
}
