//! Three sites in one process: edge alpha and hub bravo know each other only by a relay, the hub `ship`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use capture::{CaptureSettings, ChannelKind, ReleaseRule};
use carrier::{CarrierSettings, PeerSettings, SystemClock, TransitStatus};
use edge::{Environment, Site, SiteConfig};
use hub::Hub;
use keys::{Card, ChunkSecret, NodeKey, PeerRole, SealingKey};
use mission::types::{ClientInfo, Login, NewPost, NewTeam, NewUser, Session};
use mission::{Core, Snapshot};
use model::{BitsPerSecond, ByteSize, Id, UnixMillis};
use telemetry::{Health, Metrics};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn config(dir: &Path, name: &str, carrier: CarrierSettings) -> SiteConfig {
    let mut surroundings = keys::Surroundings { credentials: None, ask: &mut || None };
    let data_keys =
        edge::open_keyring(dir, &keys::KeysSettings::default(), &mut surroundings, NOW).unwrap().data_keys();
    SiteConfig {
        data_dir: dir.to_owned(),
        name: name.parse().unwrap(),
        api_listen: "127.0.0.1:0".parse().unwrap(),
        core: mission::CoreSettings::default(),
        http: mission::http::HttpSettings::default(),
        journal: journal::JournalSettings::default(),
        scrub: journal::ScrubSettings::default(),
        microsoft: None,
        directory: None,
        data_keys,
        capture: CaptureSettings {
            release: vec![ReleaseRule {
                label: "mission".parse().unwrap(),
                teams: vec!["*".to_owned()],
                channels: vec!["*".to_owned()],
                kinds: vec![ChannelKind::Open, ChannelKind::Private, ChannelKind::Direct, ChannelKind::Group],
            }],
            directory: true,
            precedence: Vec::new(),
        },
        carrier,
    }
}

fn environment() -> Environment {
    let clock = Arc::new(SystemClock);
    Environment { clock: clock.clone(), metrics: Arc::new(Metrics::new()), health: Health::new(clock) }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

fn snapshot(core: &Core) -> Snapshot {
    core.export_snapshot().unwrap()
}

fn figure(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.exposition();
    let of = |line: &str| line.starts_with(name).then(|| line.rsplit(' ').next()?.parse::<f64>().ok()).flatten();
    text.lines().filter_map(of).sum::<f64>() as u64
}

/// The card that a site's operator would print.
fn card(dir: &Path, name: &str, role: PeerRole) -> Card {
    let keys = dir.join("keys");
    let (key, secret) = (NodeKey::open(&keys).unwrap(), ChunkSecret::open(&keys).unwrap());
    let sealing = SealingKey::open(&keys).unwrap();
    Card::text(&name.parse().unwrap(), role, &key, &secret, sealing.public()).parse().unwrap()
}

fn rate() -> CarrierSettings {
    let carrier = CarrierSettings { rate: BitsPerSecond(20_000_000), ..CarrierSettings::default() };
    CarrierSettings { listen: Some("127.0.0.1:0".parse().unwrap()), ..carrier }
}

/// What is for `peer` goes by the ship; the ship itself gets nothing.
fn by_the_ship(peer: &str) -> CarrierSettings {
    let mut carrier = rate();
    let via = PeerSettings { via: Some("ship".parse().unwrap()), via_repeat_minutes: 0, ..PeerSettings::default() };
    carrier.peers.insert(peer.parse().unwrap(), via);
    let ship = PeerSettings { labels: Some(Vec::new()), ..PeerSettings::default() };
    carrier.peers.insert("ship".parse().unwrap(), ship);
    carrier
}

struct Sites {
    edge: Site,
    ship: Option<Hub>,
    hub: Hub,
    ship_carrier: CarrierSettings,
    at_ship: Environment,
    at_hub: Environment,
    alice: Session,
    square: Id,
    dirs: [TempDir; 3],
}

impl Sites {
    async fn joined(limit: Option<u64>) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [at_edge, at_ship, at_hub] = [environment(), environment(), environment()];
        let hub = Hub::start(config(dirs[2].path(), "bravo", by_the_ship("alpha")), at_hub.clone()).await.unwrap();
        let ship_carrier = CarrierSettings { transit_limit: limit.map(ByteSize), ..rate() };
        let ship = Hub::start(config(dirs[1].path(), "ship", ship_carrier.clone()), at_ship.clone()).await.unwrap();
        let edge = CarrierSettings { listen: None, ..by_the_ship("bravo") };
        let edge = Site::start(config(dirs[0].path(), "alpha", edge), at_edge.clone()).await.unwrap();
        let token = ship.invite(&"alpha".parse().unwrap(), None, Duration::from_secs(60)).unwrap().token;
        edge.join(&token.0, PATIENCE).await.unwrap();
        let token = hub.invite(&"ship".parse().unwrap(), None, Duration::from_secs(60)).unwrap().token;
        ship.site().join(&token.0, PATIENCE).await.unwrap();
        edge.registry().add(card(dirs[2].path(), "bravo", PeerRole::Hub).into_peer(NOW)).unwrap();
        hub.site().registry().add(card(dirs[0].path(), "alpha", PeerRole::Edge).into_peer(NOW)).unwrap();
        edge.carrier().notify_peers();
        hub.site().carrier().notify_peers();
        let password = "correct-horse-1".to_owned();
        let new = NewUser { username: "alice".to_owned(), email: "alice@example.com".to_owned(), ..NewUser::default() };
        edge.core().operator_creates_user("alice", &new.email, &password, true).unwrap();
        let login = Login { login_id: "alice".to_owned(), password, ..Login::default() };
        let alice = edge.core().login(&login, &ClientInfo::default()).unwrap().1;
        let team = NewTeam {
            name: "mission".to_owned(),
            display_name: "mission".to_owned(),
            kind: "O".to_owned(),
            ..NewTeam::default()
        };
        let team = edge.core().create_team(&alice, &team).unwrap();
        let square = edge.core().channel_by_name(&alice, team.id, "town-square", false).unwrap().id;
        Self { edge, ship: Some(ship), hub, ship_carrier, at_ship, at_hub, alice, square, dirs }
    }

    fn post(&self, message: &str) {
        let (channel_id, message) = (self.square.to_string(), message.to_owned());
        let post = NewPost { channel_id, message, ..NewPost::default() };
        self.edge.core().create_post(&self.alice, &post, true).unwrap();
    }

    /// What the ship holds for the hub.
    fn on_board(&self) -> TransitStatus {
        let all = self.ship.as_ref().unwrap().site().carrier().transit();
        all.iter().for_each(|t| assert_eq!(t.found + t.taken, t.held + t.handed_on + t.expired + t.dropped, "{t:?}"));
        all.into_iter().find(|t| t.to == "bravo").unwrap()
    }

    fn held(&self) -> u64 {
        let equation = self.edge.equation(self.hub.site().node()).unwrap().unwrap();
        assert_eq!(equation.journal.total.quarantined, 0);
        equation.held()
    }

    async fn equal(&self) {
        until("both cores are equal", || snapshot(self.hub.site().core()) == snapshot(self.edge.core())).await;
        until("nothing is held", || self.held() == 0).await;
    }

    fn parcels_on_board(&self) -> Vec<PathBuf> {
        let dir = self.dirs[1].path().join("transit");
        fs::read_dir(dir).map(|all| all.map(|item| item.unwrap().path()).collect()).unwrap_or_default()
    }

    async fn stop_ship(&mut self) {
        self.ship.take().unwrap().stop().await;
    }

    /// Where edge and hub will find it is another port: both are told.
    async fn start_ship(&mut self) {
        let settings = config(self.dirs[1].path(), "ship", self.ship_carrier.clone());
        self.ship = Some(Hub::start(settings, self.at_ship.clone()).await.unwrap());
    }

    async fn stop(self) {
        self.edge.stop().await;
        if let Some(ship) = self.ship {
            ship.stop().await;
        }
        self.hub.stop().await;
    }
}

/// A relay that holds an altered parcel under the name that fits it hands it on; the hub refuses it, and the edge writes
/// what was in it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_relay_alters_is_refused_and_comes_again() {
    let mut sites = Sites::joined(Some(64_000_000)).await;
    sites.equal().await;
    let port = sites.ship.as_ref().unwrap().site().carrier().local_addr();
    sites.ship_carrier.listen = port;
    let before = snapshot(sites.hub.site().core()).posts.len();
    // The ship may not talk to the hub: what comes is held.
    sites.hub.site().carrier().set_emission(carrier::Emission::Silent).unwrap();
    sites.post("contact at grid 4825");
    until("the ship holds it", || sites.on_board().held > 0).await;
    sites.stop_ship().await;
    for path in sites.parcels_on_board() {
        let mut bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"contact"), "the ship can read it");
        let at = bytes.len() - 200;
        bytes[at] ^= 1;
        let old = format!("{:016x}", wire::parcel::name_of(&fs::read(&path).unwrap()));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let new = name.replace(&old, &format!("{:016x}", wire::parcel::name_of(&bytes)));
        assert_ne!(new, name);
        fs::write(path.with_file_name(new), bytes).unwrap();
        fs::remove_file(path).unwrap();
    }
    sites.start_ship().await;
    let altered = sites.on_board();
    assert!(altered.found > 0 && altered.held == altered.found, "{altered:?}");
    sites.hub.site().carrier().set_emission(carrier::Emission::Normal).unwrap();
    until("the hub refuses it", || sites.on_board().dropped == altered.found).await;
    let refused = figure(&sites.at_hub.metrics, "holdfast_parcels_refused_total{reason=\"not_genuine\"}");
    assert_eq!(refused, altered.found);
    // After the repetition, five seconds for 0 minutes.
    sites.equal().await;
    assert_eq!(snapshot(sites.hub.site().core()).posts.len(), before + 1);
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_no_relay_says_so_and_nothing_is_lost() {
    let mut sites = Sites::joined(None).await;
    sites.post("is anybody there");
    let via = |sites: &Sites| {
        let status = sites.edge.carrier().status().into_iter().find(|peer| peer.name.as_str() == "bravo").unwrap();
        let carrier::PeerState::Relayed { via } = status.state else { panic!("{status:?}") };
        via
    };
    until("the edge knows", || !via(&sites).refusal.is_empty()).await;
    assert!(via(&sites).refusal.contains("cannot be reached"), "{:?}", via(&sites));
    assert!(figure(&sites.at_ship.metrics, "holdfast_parcels_refused_total{reason=\"no_way\"}") > 0);
    assert!(sites.held() > 0 && sites.parcels_on_board().is_empty());

    // With room for little the ship takes what fits, the urgent first, and the rest as that is handed on.
    sites.ship_carrier.listen = sites.ship.as_ref().unwrap().site().carrier().local_addr();
    sites.ship_carrier.transit_limit = Some(ByteSize(60_000));
    sites.stop_ship().await;
    sites.start_ship().await;
    for n in 0..40 {
        let noise: String = blake3::hash(&[n])
            .to_hex()
            .chars()
            .cycle()
            .zip(0..3_000)
            .map(|(c, i)| if i % 7 == 0 { 'x' } else { c })
            .collect();
        sites.post(&format!("{n} {noise}"));
    }
    sites.equal().await;
    assert_eq!(sites.on_board().held, 0);
    assert_eq!(via(&sites).refusal, "");
    sites.stop().await;
}
