//! The sync from Graph, as the simulator plays it, to accounts of a real core.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use graphsim::{App, Failure, FaultRule, Group, Settings, Sim, Time, User};
use keys::ProcessMint;
use microsoft::directory::{
    Ask, Asked, DirectorySettings, DirectorySync, Gone, GroupSettings, SyncHandle, SyncOptions, Why,
};
use microsoft::{Budget, Cloud, Credential, Graph, GraphEnvironment, GraphSettings, HeldBecause, Hosts, Timer, Vault};
use mission::events::NoEvents;
use mission::types::{ClientInfo, Login};
use mission::{CoreOptions, CoreSettings};
use model::{Clock, HybridClock, NodeId, Precedence, Sensitive, UnixMillis};
use serde_json::{Map, Value, json};
use telemetry::{Health, Metrics};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

const SECRET: &str = "a-secret-of-the-test";
const PASSWORD: &str = "long enough to be one";

/// One time for the node and for the simulator; waiting moves it.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as u64, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_800_000_000_000 + self.elapsed().as_millis() as i64)
    }
}

impl Timer for Hands {
    fn now(&self) -> Duration {
        self.elapsed()
    }

    fn until(&self, at: Duration) -> BoxFuture<'_, ()> {
        self.0.fetch_max(at.as_micros() as u64, Ordering::SeqCst);
        Box::pin(tokio::task::yield_now())
    }
}

struct Free;

impl Budget for Free {
    fn take(&self, _: Precedence, bytes: u64) -> BoxFuture<'_, Result<u64, HeldBecause>> {
        Box::pin(std::future::ready(Ok(bytes)))
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
    hands: Hands,
    core: Core,
    sync: SyncHandle,
    /// Ids, as they were made.
    groups: Vec<String>,
    /// Paths that Graph was asked for since they were last taken.
    asked: Arc<Mutex<Vec<String>>>,
    health: Health,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    _dir: tempfile::TempDir,
}

/// The OpenAPI subset lies beside the project where the project is worked on.
fn subset() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/graph-openapi-subset.yaml");
    let named = std::env::var_os("HOLDFAST_GRAPH_OPENAPI").map_or(beside, PathBuf::from);
    named.exists().then_some(named)
}

impl World {
    /// `settings` is told the ids of the groups that `fill` made.
    fn new(fill: impl FnOnce(&Sim) -> Vec<String>, settings: impl FnOnce(&[String]) -> DirectorySettings) -> Self {
        Self::sized(20_000, fill, settings)
    }

    fn sized(
        max_team_members: u32,
        fill: impl FnOnce(&Sim) -> Vec<String>,
        settings: impl FnOnce(&[String]) -> DirectorySettings,
    ) -> Self {
        let hands = Hands::default();
        let time = hands.clone();
        let given = Time::Given(Arc::new(move || Clock::now(&time).0 as u64));
        let sim = Sim::start(Settings { time: given, subset: subset(), ..Settings::seeded(7) }).unwrap();
        let app = App::new("Holdfast").secret(SECRET).application(&["User.Read.All", "Group.Read.All"]);
        let client = sim.add_app(app).unwrap();
        let groups = fill(&sim);
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(hands.clone());
        let node = NodeId([1; 16]);
        let core = Core::open(CoreOptions {
            dir: dir.path().join("core"),
            node,
            node_name: "alpha".to_owned(),
            mint: Arc::new(ProcessMint::new(node)),
            clock: Arc::clone(&clock),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(NoEvents),
            settings: CoreSettings { max_team_members, ..CoreSettings::default() },
        })
        .unwrap();
        let url = |text: &str| text.parse().unwrap();
        let graph = GraphSettings {
            cloud: Cloud::Other,
            hosts: Hosts {
                login: url(sim.login_url()),
                issuer: url(sim.login_url()),
                graph: url(sim.graph_url()),
                resource: sim.graph_url().to_owned(),
                teams: None,
            },
            tenant: sim.tenant().parse().unwrap(),
            client: client.parse().unwrap(),
            credential: Credential::Secret(Sensitive(SECRET.to_owned())),
            roots: Some(certificates(sim.ca_pem())),
            proxy: None,
            rate: None,
            targets: Vec::new(),
            app: None,
            probe_every: Duration::from_secs(60),
            keys_stale_max: Duration::from_secs(3600),
        };
        let (metrics, health) = (Arc::new(Metrics::new()), Health::new(Arc::clone(&clock)));
        let mut environment = GraphEnvironment::system(
            Arc::clone(&clock),
            Arc::clone(&metrics),
            health.clone(),
            Arc::new(Free),
            Arc::new(Plain),
            dir.path().join("microsoft"),
        );
        environment.timer = Arc::new(hands.clone());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        environment.recorder = Some(Arc::new(move |request| seen.lock().unwrap().push(request.path.clone())));
        let (sync, handle) = DirectorySync::new(SyncOptions {
            graph: Graph::new(&graph, environment).unwrap(),
            sink: Arc::new(Accounts(core.clone())),
            rules: settings(&groups).read().unwrap(),
            tenant: sim.tenant().parse().unwrap(),
            clock,
            timer: Arc::new(hands.clone()),
            metrics,
            health: health.clone(),
        });
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(sync.run(stop.clone()));
        Self { sim, hands, core, sync: handle, groups, asked, health, stop, tasks, _dir: dir }
    }

    async fn round(&self) -> Asked {
        // The simulator shows what is written to it after up to 1.5 s, as Entra does after minutes.
        self.hands.advance(Duration::from_secs(60));
        self.asked.lock().unwrap().clear();
        self.sync.ask(Ask::Round { whole: false }).await.unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn account(&self, id: &str) -> Option<mission::types::User> {
        self.core.user_by_entra(&self.sim.tenant(), id).ok()
    }

    fn is_active(&self, id: &str) -> bool {
        self.account(id).is_some_and(|user| user.delete_at == 0)
    }

    fn change(&self, id: &str, properties: Value) {
        let Value::Object(properties) = properties else { panic!("properties are an object") };
        self.sim.change_object(id, properties).unwrap();
    }

    /// A team of an administrator, with a channel.
    fn team(&self, channel: &str) -> model::Id {
        self.core.operator_creates_user("admin", "admin@site.example", PASSWORD, true).unwrap();
        let by = self.login("admin");
        let new = mission::types::NewTeam {
            name: "mission".to_owned(),
            display_name: "Mission".to_owned(),
            kind: "I".to_owned(),
            ..mission::types::NewTeam::default()
        };
        let team = self.core.create_team(&by, &new).unwrap();
        let new = mission::types::NewChannel {
            team_id: team.id.to_string(),
            name: channel.to_owned(),
            display_name: channel.to_owned(),
            kind: "P".to_owned(),
            ..mission::types::NewChannel::default()
        };
        self.core.create_channel(&by, &new).unwrap().id
    }

    fn login(&self, name: &str) -> mission::types::Session {
        let login = Login { login_id: name.to_owned(), password: PASSWORD.to_owned(), ..Login::default() };
        self.core.login(&login, &ClientInfo::default()).unwrap().1
    }

    async fn ended(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.tasks.join_all()).await.expect("it stops");
        let violations = self.sim.oracle().violations;
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

fn certificates(pem: &str) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject as _;
    vec![rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
}

fn user(name: &str) -> User {
    let properties = [("mailNickname", name), ("givenName", name), ("userType", "Member")];
    let properties: Map<String, Value> = properties.map(|(k, v)| (k.to_owned(), json!(v))).into_iter().collect();
    User { properties, ..User::new(name) }
}

fn follow(groups: &[String]) -> DirectorySettings {
    let groups = groups.iter().enumerate().map(|(n, id)| GroupSettings {
        id: id.clone(),
        team: (n < 2).then(|| "mission".to_owned()),
        channels: if n == 1 { vec!["ops".to_owned()] } else { Vec::new() },
    });
    DirectorySettings { enabled: true, groups: groups.collect(), ..DirectorySettings::default() }
}

/// `HOLDFAST_DIRECTORY_PEOPLE` and `HOLDFAST_DIRECTORY_GROUPS` set the size; the contract is 10,000 and 500.
fn size(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |n| n.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_groups_follow_entra_through_deltas_an_expired_link_and_a_moved_tenant() {
    let people = size("HOLDFAST_DIRECTORY_PEOPLE", 1_000);
    let group_count = size("HOLDFAST_DIRECTORY_GROUPS", 60);
    let mut ids: Vec<String> = Vec::new();
    let world = World::new(
        |sim| {
            ids.extend((0..people).map(|n| sim.add_user(user(&format!("person{n}")))));
            let group = |n: usize| {
                let members: BTreeSet<String> = match n {
                    0 => ids.iter().cloned().collect(),
                    n => (0..20).map(|k| ids[(n * 20 + k) % people].clone()).collect(),
                };
                sim.add_group(Group { display_name: format!("Group {n}"), members, ..Group::default() })
            };
            (0..group_count).map(group).collect()
        },
        follow,
    );
    let ops = world.team("ops");
    let groups = &world.groups;
    let began = Instant::now();
    let mut first = world.round().await;
    let (calls, took) = (world.asked().len(), began.elapsed());
    println!(
        "first round: {people} people, {group_count} groups, {calls} calls, {took:?} here, {:?} of Entra's time",
        world.hands.elapsed()
    );
    // So many at once are made when an operator has looked.
    if people > 100 {
        assert_eq!((first.done.created, first.plan.create_held.len()), (0, people));
        assert!(world.account(&ids[0]).is_none());
        let began = Instant::now();
        first = world.sync.ask(Ask::Accept).await.unwrap();
        println!("accepted: {:?} here", began.elapsed());
    }
    assert_eq!(first.done.created, people as u64);
    assert!(first.plan.is_empty() && first.plan.held.is_empty());
    assert_eq!(world.core.channel_member_ids(ops).unwrap().len(), 20 + 1);

    // A delta: what changed, and nothing else.
    world.change(
        &ids[0],
        json!({ "mailNickname": "renamed", "userPrincipalName": "renamed@contoso.example", "jobTitle": "cook" }),
    );
    world.change(&ids[1], json!({ "accountEnabled": false }));
    world.sim.delete_object(&ids[2], false).unwrap();
    world.sim.set_group_member(&groups[1], &ids[20], false).unwrap();
    world.sim.set_group_member(&groups[1], &ids[3], true).unwrap();
    let fresh = world.sim.add_user(user("fresh"));
    world.sim.set_group_member(&groups[0], &fresh, true).unwrap();
    let began = Instant::now();
    let second = world.round().await;
    println!("delta: {} calls, {:?} here", world.asked().len(), began.elapsed());
    assert!(world.asked().iter().all(|path| path.contains("token=")), "{:?}", world.asked());
    let done = &second.done;
    assert_eq!((done.created, done.changed, done.disabled), (1, 1, 1), "{done:?}");
    let renamed = world.account(&ids[0]).unwrap();
    assert_eq!((renamed.username.as_str(), renamed.position.as_str()), ("renamed", "cook"));
    assert!(!world.is_active(&ids[1]), "a blocked sign-in ends the account at once");
    let waiting: Vec<_> = second.plan.waiting.iter().map(|p| p.why).collect();
    assert_eq!(waiting, [Some(Why::Gone(Gone::SoftDeleted))]);
    let in_ops = world.core.channel_member_ids(ops).unwrap();
    let id_of = |id: &str| world.account(id).unwrap().id;
    assert!(in_ops.contains(&id_of(&ids[3])) && !in_ops.contains(&id_of(&ids[20])));

    // Away for eight days: the link has expired, and somebody was deleted for good meanwhile.
    world.sim.delete_object(&ids[4], true).unwrap();
    world.hands.advance(Duration::from_secs(8 * 24 * 3600));
    let third = world.round().await;
    assert!(world.asked()[0].contains("$select"), "a link of that age is not even tried");
    assert_eq!(third.done.disabled, 1, "the grace of who was deleted before is over: {:?}", third.done);
    assert!(!world.is_active(&ids[2]) && world.is_active(&ids[4]), "who is found to be absent has the grace");
    world.hands.advance(Duration::from_secs(24 * 3600));
    assert_eq!(world.round().await.done.disabled, 1);
    assert!(!world.is_active(&ids[4]));

    // The tenant moved: 410, and everything is read again; nobody loses anything by it.
    world.sim.move_directory();
    world.sim.restore_object(&ids[2]).unwrap();
    let moved = world.round().await;
    assert!(world.asked().len() > 2 && world.asked()[0].contains("$deltatoken"), "{:?}", world.asked());
    assert_eq!((moved.done.restored, moved.done.disabled, moved.done.created), (1, 0, 0), "{:?}", moved.done);

    let dead = [&ids[1], &ids[4]];
    for id in &ids {
        assert_eq!(world.is_active(id), !dead.contains(&id), "{id}");
    }
    assert_eq!(world.sync.status().sizes.accounts, people - 1);
    assert_eq!(world.sync.status().trouble, None);

    // Who sets a password before departure signs in with Entra gone, and finds the channel.
    let core = world.core.clone();
    let anna = core.user_by_username("fresh").unwrap();
    let link = core.operator_enrols(anna.id, 3_600_000).unwrap();
    world.ended().await;
    core.enrol(&link.token, PASSWORD, "").unwrap();
    let login =
        Login { login_id: "fresh@contoso.example".to_owned(), password: PASSWORD.to_owned(), ..Login::default() };
    let (_, session) = core.login(&login, &ClientInfo::default()).unwrap();
    assert_eq!(core.teams_of(&session, session.user_id).unwrap()[0].name, "mission");
}

/// A world of so many people in one followed group.
fn crowd(people: usize, change: impl FnOnce(&mut DirectorySettings)) -> (World, Vec<String>) {
    let mut ids = Vec::new();
    let world = World::sized(
        20,
        |sim| {
            ids.extend((0..people).map(|n| sim.add_user(user(&format!("person{n}")))));
            let members = ids.iter().cloned().collect();
            vec![sim.add_group(Group { display_name: "All".to_owned(), members, ..Group::default() })]
        },
        |groups| {
            let group = GroupSettings { id: groups[0].clone(), team: None, channels: Vec::new() };
            let mut settings = DirectorySettings { groups: vec![group], ..follow(groups) };
            change(&mut settings);
            settings
        },
    );
    (world, ids)
}

/// The whole step of accounts was skipped when one followed group could not be read, round after round.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_read_keeps_nobody_in_whose_sign_in_is_blocked() {
    let (world, ids) = crowd(10, |_| {});
    assert_eq!(world.round().await.done.created, 10);
    let refused = Failure::Refused { status: 403, retry_after_s: None, code: None };
    world.sim.fail(FaultRule::new(refused).on("GET", "/groups/delta"));
    world.change(&ids[3], json!({ "accountEnabled": false }));
    world.hands.advance(Duration::from_secs(60));
    let error = world.sync.ask(Ask::Round { whole: false }).await.unwrap_err();
    assert!(error.contains("403") && error.contains("what else is known"), "{error}");
    assert!(!world.is_active(&ids[3]) && world.is_active(&ids[4]));
    assert!(world.sync.status().trouble.is_some());
    assert_eq!(world.round().await.done, Done::default());
    assert_eq!(world.sync.status().trouble, None);
    world.ended().await;
}

/// Told to wait on its third page, a round began again at the first one when the time had come, and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_told_to_wait_goes_on_where_it_was() {
    let (world, _) = crowd(350, |_| {});
    let slow = |seconds| Failure::Refused { status: 429, retry_after_s: Some(seconds), code: None };
    for seconds in [40.0, 600.0] {
        world.sim.fail(FaultRule { skip: 2, ..FaultRule::new(slow(seconds)).on("GET", "/users/delta") });
    }
    let before = world.hands.elapsed();
    world.round().await;
    assert!(world.hands.elapsed() - before >= Duration::from_secs(640));
    let people: Vec<String> = world.asked().into_iter().filter(|path| path.contains("/users/delta")).collect();
    assert_eq!(people.iter().filter(|path| path.contains("$select")).count(), 1, "{people:?}");
    let pages: BTreeSet<&String> = people.iter().collect();
    assert_eq!(people.len(), pages.len() + 2, "{people:?}");
    assert_eq!(world.sync.status().sizes.people, 350);
    // It does not wait for more than an hour in all.
    for _ in 0..2 {
        world.sim.fail(FaultRule { skip: 1, ..FaultRule::new(slow(2_000.0)).on("GET", "/users/delta") });
    }
    world.hands.advance(Duration::from_secs(60));
    let error = world.sync.ask(Ask::Round { whole: true }).await.unwrap_err();
    assert!(error.contains("limits of Microsoft 365"), "{error}");
    world.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_tenant_only_those_are_kept_who_are_needed_and_newcomers_are_asked_for() {
    let mut ids = Vec::new();
    let world = World::new(
        |sim| {
            ids.extend((0..40).map(|n| sim.add_user(user(&format!("person{n}")))));
            let members = ids[..5].iter().cloned().collect();
            vec![sim.add_group(Group { display_name: "Few".to_owned(), members, ..Group::default() })]
        },
        |groups| DirectorySettings {
            people_kept_max: 10,
            groups: vec![GroupSettings { id: groups[0].clone(), team: None, channels: Vec::new() }],
            ..follow(groups)
        },
    );
    assert_eq!(world.round().await.done.created, 5);
    assert_eq!(world.sync.status().sizes.people, 5);
    for id in &ids[20..23] {
        world.sim.set_group_member(&world.groups[0], id, true).unwrap();
    }
    world.change(&ids[30], json!({ "jobTitle": "cook" }));
    assert_eq!(world.round().await.done.created, 3);
    let asked = world.asked();
    assert_eq!(
        asked.iter().filter(|path| path.starts_with("/users/") && !path.contains("delta")).count(),
        3,
        "{asked:?}"
    );
    assert_eq!(asked.iter().filter(|path| path.contains("batch")).count(), 1, "{asked:?}");
    assert_eq!(world.sync.status().sizes.people, 8);
    assert!(world.is_active(&ids[21]));
    world.round().await;
    assert!(world.asked().iter().all(|path| path.contains("token=")), "{:?}", world.asked());
    world.ended().await;
}

/// The round after the one that met the full team had nothing to do, and health said that all was well.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_team_is_told_of_until_everybody_is_in_it() {
    let (world, ids) = crowd(25, |settings| settings.groups[0].team = Some("mission".to_owned()));
    world.team("ops");
    let first = world.round().await.done;
    assert_eq!((first.created, first.joined), (25, 19), "the administrator is in it");
    for _ in 0..2 {
        let again = world.round().await;
        assert!(again.plan.is_empty() && again.done == Done::default(), "{again:?}");
        assert_eq!(world.sync.status().full.len(), 1);
        let checks = format!("{:?}", world.health.checks());
        assert!(checks.contains("people wait for room there"), "{checks}");
    }
    let by = world.login("admin");
    let team = world.core.teams_of(&by, by.user_id).unwrap()[0].id;
    let square = world.core.channel_by_name(&by, team, "town-square", false).unwrap().id;
    let members = world.core.channel_member_ids(square).unwrap();
    let one = ids.iter().map(|id| world.account(id).unwrap().id).find(|id| members.contains(id)).unwrap();
    world.core.remove_team_member(&by, team, one).unwrap();
    assert_eq!(world.round().await.done.joined, 1, "and nobody whom somebody took out comes back by it");
    world.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_keep_their_access_until_an_operator_says_so() {
    let (world, ids) = crowd(40, |_| {});
    assert_eq!(world.round().await.done.created, 40);
    for id in &ids[..20] {
        world.change(id, json!({ "accountEnabled": false }));
    }
    let held = world.round().await;
    assert_eq!((held.done.disabled, held.plan.held.len()), (0, 20));
    assert!(world.is_active(&ids[0]));
    world.change(&ids[30], json!({ "accountEnabled": false }));
    assert_eq!(world.round().await.done.disabled, 1, "one revocation does not wait for a word on twenty others");
    let accepted = world.sync.ask(Ask::Accept).await.unwrap();
    assert_eq!((accepted.done.disabled, accepted.plan.held.len()), (20, 0));
    assert!(!world.is_active(&ids[0]));
    world.ended().await;
}
