//! The client against the simulator of Entra and Graph: what was committed is asked of the simulator, not of the client.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "what fails here fails the test; what is skipped is said")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use graphsim::{App, Credential as Made, Failure as Fault, FaultRule, Settings, Sim, Team, TeamMade, Time, User, What};
use http::Method;
use microsoft::entra::Expected;
use microsoft::graph::{BatchItem, UploadPlan, UploadState};
use microsoft::{
    Acting, Advice, Budget, Call, CallBody, Cloud, Credential, Failure, Graph, GraphEnvironment, GraphSettings,
    HeldBecause, Hosts, NoToken, Retry, Scope, Timer, Vault, entra::VerifyError,
};
use model::{Clock, Precedence, Sensitive, UnixMillis};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use telemetry::{Health, Metrics, MicrosoftReach};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SECRET: &str = "a-secret-of-the-test";
const BEGIN_MS: i64 = 1_800_000_000_000;

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
        UnixMillis(BEGIN_MS + self.elapsed().as_millis() as i64)
    }
}

impl Timer for Hands {
    fn now(&self) -> Duration {
        self.elapsed()
    }

    fn until(&self, at: Duration) -> BoxFuture<'_, ()> {
        // Up, or a moment between two microseconds is never reached.
        self.0.fetch_max(at.as_nanos().div_ceil(1000) as u64, Ordering::SeqCst);
        Box::pin(tokio::task::yield_now())
    }
}

/// Grants everything, in small pieces, unless it is closed.
#[derive(Default)]
struct Gate {
    closed: watch::Sender<bool>,
    granted: AtomicI64,
}

impl Budget for Gate {
    fn take(&self, _: Precedence, bytes: u64) -> BoxFuture<'_, Result<u64, HeldBecause>> {
        Box::pin(async move {
            if *self.closed.borrow() {
                return Err(HeldBecause::Emission);
            }
            let granted = bytes.min(8 * 1024);
            self.granted.fetch_add(granted as i64, Ordering::SeqCst);
            Ok(granted)
        })
    }

    fn forbidden(&self) -> BoxFuture<'_, HeldBecause> {
        let mut closed = self.closed.subscribe();
        Box::pin(async move {
            closed.wait_for(|closed| *closed).await.expect("the gate outlives the node");
            HeldBecause::Emission
        })
    }
}

struct Xor;

impl Vault for Xor {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        plain.iter().map(|b| b ^ 0x5A).collect()
    }

    fn open(&self, sealed: &[u8]) -> Option<Sensitive<Vec<u8>>> {
        Some(Sensitive(self.seal(sealed)))
    }
}

/// The simulator, and a node beside it.
struct World {
    sim: Sim,
    hands: Hands,
    gate: Arc<Gate>,
    dir: tempfile::TempDir,
    settings: GraphSettings,
    client: String,
    ada: String,
    team: TeamMade,
}

const APPLICATION: &[&str] = &["User.Read.All", "Files.ReadWrite.All", "Mail.Send", "Group.Read.All"];
const DELEGATED: &[&str] = &["ChannelMessage.Send", "ChannelMessage.Read.All", "User.Read", "offline_access"];

impl World {
    fn new() -> Self {
        Self::with(|app| app.secret(SECRET), |_| Credential::Secret(Sensitive(SECRET.to_owned())))
    }

    /// With what is registered, and what the node holds.
    fn with(register: impl FnOnce(App) -> App, credential: impl FnOnce(&Sim) -> Credential) -> Self {
        let hands = Hands::default();
        let time = hands.clone();
        let given = Time::Given(Arc::new(move || Clock::now(&time).0 as u64));
        let sim = Sim::start(Settings { time: given, subset: subset(), ..Settings::seeded(7) }).unwrap();
        let client = sim
            .add_app(
                register(App::new("Holdfast").application(APPLICATION).delegated(DELEGATED))
                    .identifier_uri("api://tab.example/app")
                    .redirect("http://localhost/back"),
            )
            .unwrap();
        let ada = sim.add_user(User::new("ada"));
        let members = BTreeSet::from([ada.clone()]);
        let channels = vec!["Ops".to_owned(), "Log".to_owned()];
        let team = sim.add_team(Team { display_name: "Alpha".to_owned(), members, channels, ..Team::default() });
        let settings = GraphSettings {
            targets: Vec::new(),
            cloud: Cloud::Other,
            hosts: Hosts {
                login: sim.login_url().parse().unwrap(),
                issuer: sim.login_url().parse().unwrap(),
                graph: sim.graph_url().parse().unwrap(),
                resource: sim.graph_url().to_owned(),
                teams: None,
            },
            tenant: sim.tenant().parse().unwrap(),
            client: client.parse().unwrap(),
            credential: credential(&sim),
            roots: Some(vec![CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap()]),
            proxy: None,
            rate: None,
            app: None,
            probe_every: Duration::from_millis(100),
            keys_stale_max: Duration::from_secs(3600),
        };
        let (gate, dir) = (Arc::new(Gate::default()), tempfile::tempdir().unwrap());
        Self { sim, hands, gate, dir, settings, client, ada, team }
    }

    fn environment(&self) -> GraphEnvironment {
        let clock: Arc<dyn Clock> = Arc::new(self.hands.clone());
        let (metrics, health) = (Arc::new(Metrics::new()), Health::new(Arc::clone(&clock)));
        let dir = self.dir.path().join("microsoft");
        let mut made = GraphEnvironment::system(clock, metrics, health, self.gate.clone(), Arc::new(Xor), dir);
        made.timer = Arc::new(self.hands.clone());
        made
    }

    /// A node that starts with what is on the disk.
    fn node(&self) -> Graph {
        Graph::new(&self.settings, self.environment()).unwrap()
    }

    fn scope(&self, channel: &str) -> Scope {
        Scope::Channel { team: self.team.id.clone(), channel: self.team.channels[channel].clone() }
    }

    /// A post of Ada's.
    fn post(&self, channel: &str, text: &str) -> Call {
        let (team, id) = (&self.team.id, &self.team.channels[channel]);
        Call {
            method: Method::POST,
            path: format!("/teams/{team}/channels/{id}/messages"),
            headers: Vec::new(),
            body: CallBody::Json(json!({"body": {"contentType": "html", "content": text}})),
            acting: Acting::User(self.ada.clone()),
            scope: self.scope(channel),
            precedence: Precedence::Routine,
            retry: Retry::Once,
        }
    }

    /// Ada signs in by a code.
    async fn sign_in(&self, graph: &Graph) -> microsoft::SignedIn {
        let code = graph.entra().device_code().await.unwrap();
        self.sim.answer_device(&code.user_code, &self.ada, false).unwrap();
        graph.entra().await_device(&code).await.unwrap()
    }

    fn count(&self, what: What) -> usize {
        self.sim.oracle().of(what).count()
    }

    fn requests_to(&self, host: &str) -> usize {
        self.sim.oracle().requests.iter().filter(|seen| seen.host == host).count()
    }

    /// Everything that was sent fits Graph's own description, and no rule was broken.
    fn settle(&self) {
        let oracle = self.sim.oracle();
        assert!(oracle.violations.is_empty(), "{:#?}", oracle.violations);
        if self.sim.validates() {
            assert!(oracle.validated > 0, "requests were held against the OpenAPI subset");
        }
    }
}

/// The OpenAPI subset lies beside the project where the project is worked on.
fn subset() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/graph-openapi-subset.yaml");
    let named = std::env::var_os("HOLDFAST_GRAPH_SUBSET").map_or(beside, PathBuf::from);
    if !named.exists() {
        eprintln!("{} is absent: requests are not held against the OpenAPI subset", named.display());
        return None;
    }
    Some(named)
}

fn users() -> Call {
    Call::get("/users?$select=id,displayName", Scope::Directory, Precedence::Routine)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_serves_many_calls_until_it_ends() {
    let world = World::new();
    let graph = world.node();
    for _ in 0..5 {
        let answer = graph.call(users()).await.unwrap();
        assert!(answer.json::<Value>().unwrap()["value"].as_array().is_some_and(|users| !users.is_empty()));
    }
    assert_eq!(world.count(What::TokenIssued), 1);
    world.hands.advance(Duration::from_secs(30 * 3600));
    graph.call(users()).await.unwrap();
    assert_eq!(world.count(What::TokenIssued), 2, "a token that has ended is asked for anew");
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proves_the_application_and_a_foreign_one_does_not() {
    let (own, foreign) = (Made::new("holdfast").unwrap(), Made::new("somebody").unwrap());
    let held = |made: &Made| Credential::Certificate {
        certificate: CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap(),
        key: Sensitive(made.key_pem.clone().into_bytes()),
    };
    let world = World::with(|app| app.certificate(&own.certificate_pem), |_| held(&own));
    world.node().call(users()).await.unwrap();
    world.settle();

    let world = World::with(|app| app.certificate(&own.certificate_pem), |_| held(&foreign));
    let graph = world.node();
    for _ in 0..3 {
        let Err(Failure::SignIn(refusal)) = graph.call(users()).await else { panic!("it was let in") };
        assert_eq!((refusal.advice, refusal.code), (Advice::FixConfiguration, Some(700027)), "{refusal}");
    }
    let asked = world.sim.oracle().requests.iter().filter(|r| r.path.ends_with("/token")).count();
    assert_eq!(asked, 1, "what people must mend is not asked for again and again");
    assert_eq!(world.requests_to("graph"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_still_signs_in_and_is_told() {
    let own = Made::new("holdfast").unwrap();
    let world = World::with(
        |app| app.certificate(&own.certificate_pem),
        |_| Credential::Certificate {
            certificate: CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).unwrap(),
            key: Sensitive(own.key_pem.clone().into_bytes()),
        },
    );
    // The node's clock lost two hours; the simulator's did not.
    world.sim.advance(Duration::from_secs(7200));
    let environment = world.environment();
    let health = environment.health.clone();
    let graph = Graph::new(&world.settings, environment).unwrap();
    graph.call(users()).await.unwrap();
    let told = health.checks().into_iter().find(|check| check.name == "microsoft-clock").unwrap();
    assert!(told.text.contains("7200 s behind"), "{}", told.text);
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_the_commit_is_unknown_and_nothing_is_sent_twice() {
    let world = World::new();
    let graph = world.node();
    world.sign_in(&graph).await;
    world.sim.fail(FaultRule::new(Fault::ResetAfterCommit).on("POST", "/messages"));
    let ended = graph.call(world.post("Ops", "contact at grid 1234")).await;
    assert!(matches!(ended, Err(Failure::Unknown(_))), "{ended:?}");
    for fault in [Fault::Truncated, Fault::RefusedAfterCommit { status: 503 }, Fault::Html { status: 502 }] {
        world.sim.fail(FaultRule::new(fault.clone()).on("POST", "/messages"));
        let ended = graph.call(world.post("Ops", "contact at grid 1234")).await;
        assert!(matches!(ended, Err(Failure::Unknown(_))), "{fault:?}: {ended:?}");
    }
    assert_eq!(world.count(What::MessagePosted), 3, "the page of a proxy came without a commit");
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_lost_is_asked_again() {
    let world = World::new();
    let graph = world.node();
    graph.call(users()).await.unwrap();
    for fault in [
        Fault::ResetBefore,
        Fault::Truncated,
        Fault::Html { status: 502 },
        Fault::Refused { status: 503, retry_after_s: Some(1.5), code: None },
    ] {
        world.sim.fail(FaultRule::new(fault.clone()).on("GET", "/users"));
        graph.call(users()).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
    }
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_a_fraction_of_a_second_is_waited_for_exactly() {
    let world = World::new();
    let graph = world.node();
    world.sign_in(&graph).await;
    graph.call(world.post("Ops", "one")).await.unwrap();
    let before = world.hands.elapsed();
    let refused = Fault::Refused { status: 429, retry_after_s: Some(2.128), code: None };
    world.sim.fail(FaultRule::new(refused).on("POST", "/messages"));
    graph.call(world.post("Ops", "two")).await.unwrap();
    let waited = world.hands.elapsed() - before;
    assert!(waited >= Duration::from_millis(2128) && waited < Duration::from_millis(3500), "{waited:?}");
    assert_eq!(world.count(What::MessagePosted), 2);

    let long = Fault::Refused { status: 429, retry_after_s: Some(120.0), code: None };
    world.sim.fail(FaultRule::new(long).on("POST", "/messages"));
    let before = Clock::now(&world.hands);
    let Err(Failure::Throttled { until }) = graph.call(world.post("Ops", "three")).await else { panic!("not told") };
    assert!((until.0 - before.0 - 120_000).abs() < 2_000, "the caller is told when to come again");
    graph.call(users()).await.expect("another scope goes on");
    let held = graph.call(world.post("Ops", "three")).await;
    assert!(matches!(held, Err(Failure::Throttled { .. })), "{held:?}");
    world.hands.advance(Duration::from_secs(121));
    graph.call(world.post("Ops", "three")).await.unwrap();
    assert_eq!(world.count(What::MessagePosted), 3);
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_three_thousand_posts_meets_no_refusal() {
    let world = World::new();
    let graph = world.node();
    world.sign_in(&graph).await;
    for i in 0..3000 {
        graph.call(world.post("Ops", &format!("message {i}"))).await.unwrap();
    }
    let refused = world.sim.oracle().requests.iter().filter(|seen| seen.status == 429).count();
    assert_eq!((world.count(What::MessagePosted), refused), (3000, 0));
    let taken = world.hands.elapsed().as_secs();
    assert!((1000..1600).contains(&taken), "between two and three a second: {taken} s");
    let Err(Failure::Throttled { until }) = graph.call(world.post("Ops", "one more")).await else { panic!("it went") };
    assert!(until.0 - BEGIN_MS > 23 * 3600 * 1000, "the next day");
    assert_eq!(world.count(What::MessagePosted), 3000);
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_with_a_new_token_that_says_what_was_asked() {
    let world = World::new();
    let graph = world.node();
    graph.call(users()).await.unwrap();
    world.hands.advance(Duration::from_secs(5));
    world.sim.revoke_app(&world.client);
    world.hands.advance(Duration::from_secs(5));
    graph.call(users()).await.unwrap();
    assert_eq!(world.count(What::TokenIssued), 2);
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_survives_a_restart_and_its_refresh_token_is_renewed() {
    let world = World::new();
    let graph = world.node();
    let ada = world.sign_in(&graph).await;
    assert_eq!(ada.oid, world.ada);
    assert_eq!(ada.username, "ada@contoso.example");
    for day in 0..3 {
        let graph = world.node();
        assert_eq!(graph.entra().signed_in().len(), 1, "day {day}");
        graph.call(world.post("Ops", "still here")).await.unwrap();
        world.hands.advance(Duration::from_secs(24 * 3600 * 5));
    }
    assert_eq!(world.count(What::MessagePosted), 3);

    world.sim.revoke_user(&world.ada);
    let graph = world.node();
    let Err(Failure::SignIn(refusal)) = graph.call(world.post("Ops", "gone")).await else { panic!("it went") };
    assert_eq!(refusal.advice, Advice::AskAPerson, "{refusal}");
    assert!(graph.entra().signed_in().is_empty(), "a sign-in that was revoked is forgotten");
    world.sign_in(&graph).await;
    graph.call(world.post("Ops", "back")).await.unwrap();
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_declines_is_not_signed_in() {
    let world = World::new();
    let graph = world.node();
    let code = graph.entra().device_code().await.unwrap();
    world.sim.answer_device(&code.user_code, &world.ada, true).unwrap();
    let Err(NoToken::Refused(refusal)) = graph.entra().await_device(&code).await else { panic!("signed in") };
    assert_eq!(refusal.advice, Advice::AskAPerson);
    assert!(graph.entra().signed_in().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tabs_token_is_checked_also_while_entra_is_away() {
    let world = World::new();
    let expected = Expected {
        audiences: vec![world.client.clone(), "api://tab.example/app".to_owned()],
        tenants: vec![world.settings.tenant],
        scope: Some("access_as_user".to_owned()),
        parties: vec!["5e3ce6c0-2b1f-4285-8d4b-75ee78787346".to_owned()],
        nonce: None,
    };
    let token = world.sim.tab_token(&world.ada, &world.client).unwrap();
    let graph = world.node();
    let identity = graph.entra().verify(&token, &expected).await.unwrap();
    assert_eq!(identity.oid.to_string(), world.ada);
    let elsewhere = Expected { tenants: vec![Uuid::nil()], ..expected.clone() };
    assert!(matches!(graph.entra().verify(&token, &elsewhere).await, Err(VerifyError::Invalid(_))));

    // On behalf of Ada a message goes out, without her signing in here.
    let signed_in = graph.entra().on_behalf_of(&identity, &token).await.unwrap();
    assert_eq!(signed_in.oid, world.ada);
    graph.call(world.post("Ops", "from the tab")).await.unwrap();

    // A key that is rotated in is fetched, once the last look is long enough ago.
    world.sim.rotate_keys().unwrap();
    world.hands.advance(Duration::from_secs(301));
    let token = world.sim.tab_token(&world.ada, &world.client).unwrap();
    graph.entra().verify(&token, &expected).await.unwrap();

    // Entra is gone, the node restarts: the keys on the disk serve, for as long as is allowed.
    world.sim.fail(FaultRule::new(Fault::ResetBefore).at("login").times(u32::MAX));
    world.hands.advance(Duration::from_secs(24 * 3600 + 1800));
    let token = world.sim.tab_token(&world.ada, &world.client).unwrap();
    let graph = world.node();
    let identity = graph.entra().verify(&token, &expected).await.unwrap();
    assert!(identity.keys_are_stale);
    world.hands.advance(Duration::from_secs(3600));
    let token = world.sim.tab_token(&world.ada, &world.client).unwrap();
    let verdict = graph.entra().verify(&token, &expected).await;
    assert!(matches!(verdict, Err(VerifyError::NoKeys(_))), "{verdict:?}");
    // A key that this node does not know is not called false while nobody can tell, however soon it is shown again.
    world.sim.rotate_keys().unwrap();
    let other = world.sim.tab_token(&world.ada, &world.client).unwrap();
    for _ in 0..2 {
        let verdict = graph.entra().verify(&other, &expected).await;
        assert!(matches!(verdict, Err(VerifyError::NoKeys(_))), "{verdict:?}");
    }
    world.sim.heal();
    world.hands.advance(Duration::from_secs(301));
    graph.entra().verify(&token, &expected).await.unwrap();
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_emission_is_forbidden_not_a_byte_is_sent() {
    let world = World::new();
    world.gate.closed.send_replace(true);
    let mut settings = world.settings.clone();
    settings.probe_every = Duration::from_millis(10);
    let mut environment = world.environment();
    environment.timer = Arc::new(microsoft::TokioTimer::start());
    let graph = Graph::new(&settings, environment).unwrap();
    let stop = CancellationToken::new();
    let keeping = graph.clone().keep_reach(stop.clone());
    let asking = async {
        let held = graph.call(users()).await;
        assert!(matches!(held, Err(Failure::Held(HeldBecause::Emission))), "{held:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(graph.reach().borrow().graph.state, MicrosoftReach::Down);
        stop.cancel();
    };
    tokio::join!(keeping, asking);
    assert_eq!(world.sim.oracle().requests.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_an_answer_that_is_being_read_and_is_known_without_a_probe() {
    let world = World::new();
    let mut settings = world.settings.clone();
    settings.probe_every = Duration::from_secs(3600);
    let mut environment = world.environment();
    environment.timer = Arc::new(microsoft::TokioTimer::start());
    let graph = Graph::new(&settings, environment).unwrap();
    let stop = CancellationToken::new();
    let keeping = graph.clone().keep_reach(stop.clone());
    let asking = async {
        let mut reach = graph.reach();
        reach.wait_for(|r| r.may_deliver()).await.unwrap();
        world.sim.fail(FaultRule::new(Fault::SlowBody { over_ms: 60_000 }).on("GET", "/users"));
        let (held, ()) = tokio::join!(graph.call(users()), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            world.gate.closed.send_replace(true);
        });
        assert!(matches!(held, Err(Failure::Held(HeldBecause::Emission))), "{held:?}");
        let down =
            |r: &microsoft::Reach| r.entra.state == MicrosoftReach::Down && r.graph.state == MicrosoftReach::Down;
        reach.wait_for(down).await.unwrap();
        let asked = world.sim.oracle().requests.len();
        world.gate.closed.send_replace(false);
        reach.wait_for(|r| r.may_deliver()).await.unwrap();
        assert!(world.sim.oracle().requests.len() > asked);
        stop.cancel();
    };
    tokio::time::timeout(Duration::from_secs(50), async { tokio::join!(keeping, asking) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_signs_people_in() {
    for off in [-20 * 60_000, 20 * 60_000] {
        let world = World::new();
        let mut environment = world.environment();
        environment.clock = Arc::new(Off(world.hands.clone(), off));
        let graph = Graph::new(&world.settings, environment).unwrap();
        world.sign_in(&graph).await;
        graph.call(world.post("Ops", "from another time")).await.unwrap();
    }
}

/// A clock that is ahead of the simulator's by so many milliseconds.
struct Off(Hands, i64);

impl Clock for Off {
    fn now(&self) -> UnixMillis {
        UnixMillis(Clock::now(&self.0).0 + self.1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captive_portal_is_not_reachable_and_delivery_begins_once_it_lets_through() {
    for portal in [Fault::CaptivePortal, Fault::CaptiveRedirect, Fault::Html { status: 503 }, Fault::ResetBefore] {
        let world = World::new();
        let mut environment = world.environment();
        environment.timer = Arc::new(microsoft::TokioTimer::start());
        let graph = Graph::new(&world.settings, environment).unwrap();
        world.sign_in(&graph).await;
        world.sim.fail(FaultRule::new(portal.clone()).times(u32::MAX));
        let stop = CancellationToken::new();
        let keeping = graph.clone().keep_reach(stop.clone());
        let watching = async {
            let mut reach = graph.reach();
            reach
                .wait_for(|r| r.entra.state == MicrosoftReach::Down && r.graph.state == MicrosoftReach::Down)
                .await
                .unwrap();
            assert!(!reach.borrow().may_deliver());
            let held = graph.call(world.post("Ops", "into the portal")).await;
            assert!(matches!(held, Err(Failure::Held(HeldBecause::Unreachable(_)))), "{portal:?}: {held:?}");
            world.sim.heal();
            reach.wait_for(|r| r.may_deliver()).await.unwrap();
            graph.call(world.post("Ops", "through")).await.unwrap();
            stop.cancel();
        };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(keeping, watching) }).await.unwrap();
        assert_eq!(world.count(What::MessagePosted), 1, "{portal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_answers_a_post_with_success_is_not_believed() {
    let world = World::new();
    let graph = world.node();
    world.sign_in(&graph).await;
    for portal in [Fault::CaptivePortal, Fault::CaptiveRedirect] {
        world.sim.fail(FaultRule::new(portal.clone()).on("POST", "/messages"));
        let ended = graph.call(world.post("Ops", "into the portal")).await;
        assert!(matches!(ended, Err(Failure::Unknown(_))), "{portal:?}: {ended:?}");
    }
    assert_eq!(world.count(What::MessagePosted), 0);
}

fn upload_to(world: &World, name: &str, resume: Option<UploadState>) -> UploadPlan {
    let drive = &world.team.drive;
    let create = Call {
        method: Method::POST,
        path: format!("/drives/{drive}/root:/{name}:/createUploadSession"),
        headers: Vec::new(),
        body: CallBody::Json(json!({"item": {"@microsoft.graph.conflictBehavior": "fail"}})),
        acting: Acting::App,
        scope: Scope::Drive(drive.clone()),
        precedence: Precedence::Deferred,
        retry: Retry::Safe,
    };
    UploadPlan { create, resume }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_crosses_resets_and_a_restart_and_is_written_once() {
    let mut world = World::new();
    // Pieces of 640 KiB: what 256 kbit/s carry in half a minute.
    world.settings.rate = Some("256kbit/s".parse().unwrap());
    let content: bytes::Bytes = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let busy = Fault::Refused { status: 503, retry_after_s: Some(0.5), code: None };
    for (skip, fault) in [(0, Fault::ResetBefore), (1, Fault::Truncated), (3, busy)] {
        world.sim.fail(FaultRule::new(fault).at("upload").after(skip));
    }
    // The node is stopped in the middle: its ledger kept the state.
    let kept: Arc<Mutex<Option<UploadState>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let graph = world.node();
    let stopped = graph
        .upload(upload_to(&world, "plan.bin", None), content.clone(), move |p| {
            *keep.lock().unwrap() = Some(p.state.clone());
            if p.stored_bytes > 1_200_000 { Err(std::io::Error::other("the node stops")) } else { Ok(()) }
        })
        .await;
    assert!(matches!(stopped, Err(Failure::Held(_))), "{stopped:?}");
    assert_eq!(world.count(What::FileWritten), 0);

    let state = kept.lock().unwrap().clone();
    let mut seen = Vec::new();
    let item = world
        .node()
        .upload(upload_to(&world, "plan.bin", state), content.clone(), |p| {
            seen.push(p.stored_bytes);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(item.size, content.len() as u64);
    assert!(item.file.and_then(|f| f.hashes.quick_xor_hash).is_some());
    assert!(seen[1] >= 1_200_000, "it goes on where it stopped: {seen:?}");
    assert_eq!(world.sim.file(&world.team.drive, "plan.bin").as_deref(), Some(content.as_ref()));
    assert_eq!((world.count(What::FileWritten), world.count(What::UploadStarted)), (1, 1));
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_with_the_last_piece_is_left_to_the_ledger() {
    let world = World::new();
    let graph = world.node();
    world.sim.fail(FaultRule::new(Fault::ResetAfterCommit).at("upload"));
    let ended =
        graph.upload(upload_to(&world, "small.bin", None), bytes::Bytes::from(vec![7; 100_000]), |_| Ok(())).await;
    assert!(matches!(ended, Err(Failure::Unknown(_))), "{ended:?}");
    assert_eq!(world.count(What::FileWritten), 1);
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_tells_of_each_call_and_what_depended_on_a_failure_did_not_run() {
    let world = World::new();
    let graph = world.node();
    let item = |id: &str, path: String, depends_on: &[&str]| BatchItem {
        id: id.to_owned(),
        call: Call::get(path, Scope::Directory, Precedence::Routine),
        depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
    };
    let ada = format!("/users/{}?$select=id", world.ada);
    let nobody = format!("/users/{}?$select=id", Uuid::nil());
    let parallel = graph.batch(vec![item("a", ada.clone(), &[]), item("b", nobody.clone(), &[])]).await.unwrap();
    assert_eq!(parallel[0].as_ref().unwrap().json::<Value>().unwrap()["id"], json!(world.ada));
    assert!(matches!(&parallel[1], Err(Failure::Refused(r)) if r.status == 404), "{:?}", parallel[1]);
    let serial = graph.batch(vec![item("a", nobody, &[]), item("b", ada, &["a"])]).await.unwrap();
    assert!(matches!(&serial[1], Err(Failure::Refused(r)) if r.status == 424), "{:?}", serial[1]);
    world.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_comes_once_and_no_link_leads_away() {
    let world = World::new();
    for i in 0..25 {
        world.sim.add_user(User::new(&format!("user{i}")));
    }
    world.hands.advance(Duration::from_secs(60));
    let graph = world.node();
    let mut pages = graph.pages(Call::get("/users?$select=id&$top=10", Scope::Directory, Precedence::Routine));
    let (mut ids, mut count) = (BTreeSet::new(), 0);
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        ids.extend(page.value.iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        count += 1;
    }
    assert_eq!((ids.len(), count), (26, 3));
    for link in [
        format!("{}/v1.0/users", world.sim.abroad_url()),
        "https://graph.microsoft.com/v1.0/users".to_owned(),
        format!("{}/beta/users", world.sim.graph_url()),
        format!("{}/v1.0evil", world.sim.graph_url()),
        "/v1.0/users".to_owned(),
    ] {
        assert!(graph.path_of_link(&link).is_err(), "{link}");
    }
    let bad = Call::get("/../../users", Scope::Directory, Precedence::Routine);
    assert!(matches!(graph.call(bad).await, Err(Failure::Broken(_))));
    world.settle();
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_reaches_a_log_an_error_or_the_recorder() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("microsoft=trace")
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    let recorded: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut environment = world.environment();
    let keep = Arc::clone(&recorded);
    environment.recorder = Some(Arc::new(move |request| keep.lock().unwrap().push(format!("{request:?}"))));
    let graph = Graph::new(&world.settings, environment).unwrap();
    world.sign_in(&graph).await;
    world.sim.fail(FaultRule::new(Fault::ResetAfterCommit).on("POST", "/messages"));
    let lost = graph.call(world.post("Ops", "words of the mission")).await.unwrap_err();
    world.sim.fail(FaultRule::new(Fault::ResetBefore).at("upload"));
    let mut states = Vec::new();
    let content = bytes::Bytes::from(vec![1; 400_000]);
    graph
        .upload(upload_to(&world, "a.bin", None), content, |p| {
            states.push(format!("{p:?}"));
            Ok(())
        })
        .await
        .unwrap();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("client_request_id") && logged.contains("request_id"), "{logged}");
    assert!(!recorded.lock().unwrap().is_empty());
    let all = [logged.clone(), format!("{lost:?} {lost}"), recorded.lock().unwrap().concat(), states.concat()].concat();
    let upload = world.sim.upload_url().trim_start_matches("https://");
    for secret in [SECRET, "eyJ", "Bearer", upload] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(!logged.contains("words of the mission") && !logged.contains(&world.ada), "{logged}");
}
