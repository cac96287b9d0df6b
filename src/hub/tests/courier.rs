//! A hub and an edge in one process; what one has for the other is carried by hand, by radio, over a one-way lane, or several.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use capture::{CaptureSettings, ChannelKind, ReleaseRule};
use carrier::{
    CarrierHandle, CarrierSettings, Emission, OneWaySettings, ParcelRefused, PeerSettings, Since, SystemClock, Taken,
    Written,
};
use edge::{Environment, Site, SiteConfig};
use hub::Hub;
use mission::types::{ClientInfo, Login, NewPost, NewTeam, NewUser, Session};
use mission::{Core, Snapshot};
use model::{BitsPerSecond, Id};
use telemetry::{Health, Metrics};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

fn config(dir: &Path, name: &str) -> SiteConfig {
    let mut surroundings = keys::Surroundings { credentials: None, ask: &mut || None };
    let now = model::UnixMillis(1_700_000_000_000);
    let data_keys =
        edge::open_keyring(dir, &keys::KeysSettings::default(), &mut surroundings, now).unwrap().data_keys();
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
        carrier: CarrierSettings { rate: BitsPerSecond(20_000_000), ..CarrierSettings::default() },
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

/// Bytes that do not shrink, as text.
fn noise(seed: usize, len: usize) -> String {
    let mut bytes = vec![0u8; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.iter().map(|b| char::from(b'a' + b % 26)).collect()
}

/// Two joined sites, a user at the edge, a channel.
struct Sites {
    hub: Hub,
    edge: Site,
    at_hub: Environment,
    at_edge: Environment,
    alice: Session,
    square: Id,
    _dirs: [TempDir; 2],
}

impl Sites {
    async fn joined() -> Self {
        let sites = Self::joined_with(|_, _| {}).await;
        until("the team is at the hub", || snapshot(sites.hub.site().core()) == snapshot(sites.edge.core())).await;
        sites.settled().await;
        sites
    }

    /// `prepare` gets the hub's settings before it starts, then the edge's with where one-way lanes arrive at the hub.
    async fn joined_with(prepare: impl Fn(&mut CarrierSettings, Option<SocketAddr>)) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (at_hub, at_edge) = (environment(), environment());
        let mut settings = config(dirs[0].path(), "bravo");
        settings.carrier.listen = Some("127.0.0.1:0".parse().unwrap());
        prepare(&mut settings.carrier, None);
        let hub = Hub::start(settings, at_hub.clone()).await.unwrap();
        let mut settings = config(dirs[1].path(), "alpha");
        prepare(&mut settings.carrier, hub.site().carrier().oneway_addr());
        let edge = Site::start(settings, at_edge.clone()).await.unwrap();
        let invitation = hub.invite(&"alpha".parse().unwrap(), None, Duration::from_secs(60)).unwrap();
        edge.join(&invitation.token.0, PATIENCE).await.unwrap();
        let new = NewUser {
            username: "alice".to_owned(),
            email: "alice@example.com".to_owned(),
            password: "correct-horse-1".to_owned(),
            ..NewUser::default()
        };
        edge.core().operator_creates_user("alice", &new.email, &new.password, true).unwrap();
        let login = Login { login_id: "alice".to_owned(), password: new.password, ..Login::default() };
        let alice = edge.core().login(&login, &ClientInfo::default()).unwrap().1;
        let team = NewTeam {
            name: "mission".to_owned(),
            display_name: "mission".to_owned(),
            kind: "O".to_owned(),
            ..NewTeam::default()
        };
        let team = edge.core().create_team(&alice, &team).unwrap();
        let square = edge.core().channel_by_name(&alice, team.id, "town-square", false).unwrap().id;
        Self { hub, edge, at_hub, at_edge, alice, square, _dirs: dirs }
    }

    fn post(&self, message: String) {
        let post = NewPost { channel_id: self.square.to_string(), message, ..NewPost::default() };
        self.edge.core().create_post(&self.alice, &post, true).unwrap();
    }

    fn silent(&self) {
        self.edge.carrier().set_emission(Emission::Silent).unwrap();
        self.hub.site().carrier().set_emission(Emission::Silent).unwrap();
    }

    fn upload(&self, bytes: &[u8]) -> Id {
        let mut upload = self.edge.core().begin_upload(&self.alice, self.square, "map.bin").unwrap();
        upload.write_all(bytes).unwrap();
        let file = upload.finish().unwrap();
        let post = NewPost {
            channel_id: self.square.to_string(),
            message: "the map".to_owned(),
            file_ids: vec![file.id.to_string()],
            ..NewPost::default()
        };
        self.edge.core().create_post(&self.alice, &post, true).unwrap();
        file.id
    }

    /// Everything that was written is in the edge's journal.
    async fn captured(&self) {
        until("the outbox is empty", || {
            let equation = self.edge.equation(self.hub.site().node()).unwrap().unwrap();
            equation.capturing == 0
        })
        .await;
    }

    async fn settled(&self) {
        until("nothing is held", || self.edge.equation(self.hub.site().node()).unwrap().unwrap().held() == 0).await;
    }

    async fn stop(self) {
        self.edge.stop().await;
        self.hub.stop().await;
    }
}

/// Exports parcels of about `bytes` in all, onto one medium.
async fn export(from: &CarrierHandle, to: &str, since: Since, bytes: usize) -> (Vec<u8>, bool) {
    from.begin_export(to, since).await.unwrap();
    let mut all = Vec::new();
    let full = loop {
        let room = bytes - all.len();
        if room < 32 << 10 {
            break true;
        }
        let made = from.next_export(to, room).await.unwrap();
        assert!(made.bytes.len() <= room, "{} bytes for a medium with room for {room}", made.bytes.len());
        all.extend_from_slice(&made.bytes);
        if !made.bytes.is_empty() {
            from.note_export(to, Written { stick: "stick-1".to_owned(), bytes: all.len() as u64 }).await.unwrap();
        }
        if made.done {
            break false;
        }
    };
    from.end_export(to, full).await.unwrap();
    (all, full)
}

async fn import(at: &CarrierHandle, mut bytes: &[u8]) -> Taken {
    let mut all = Taken { already: true, ..Taken::default() };
    while !bytes.is_empty() {
        let (len, taken) = at.take_parcel(bytes).await;
        let (_, taken) = taken.unwrap();
        all.entries += taken.entries;
        all.duplicates += taken.duplicates;
        all.chunks += taken.chunks;
        all.already &= taken.already;
        bytes = &bytes[len..];
    }
    all
}

fn figure(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.exposition();
    let of = |line: &str| line.starts_with(name).then(|| line.rsplit(' ').next()?.parse::<f64>().ok()).flatten();
    text.lines().filter_map(of).sum::<f64>() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn half_by_courier_and_half_by_radio_make_one_whole() {
    let sites = Sites::joined().await;
    sites.silent();
    let posts_before = snapshot(sites.edge.core()).posts.len();
    for n in 0..60 {
        sites.post(format!("{n} {}", noise(n, 2_000)));
    }
    let bytes: Vec<u8> = noise(1_000, 300_000).into_bytes();
    let file = sites.upload(&bytes);
    sites.captured().await;
    let held = sites.edge.equation(sites.hub.site().node()).unwrap().unwrap().held();
    let sent_before = figure(&sites.at_edge.metrics, "holdfast_link_sent_entries_total");

    // Three media of which the first two hold about half; the third is never carried.
    let edge = sites.edge.carrier();
    let (first, more) = export(edge, "bravo", Since::Continue, 50_000).await;
    assert!(more, "there is more than one medium's worth");
    let (second, more) = export(edge, "bravo", Since::Continue, 50_000).await;
    assert!(more);
    let (_lost, _) = export(edge, "bravo", Since::Continue, 50_000).await;
    let hub = sites.hub.site().carrier();
    let by_hand = import(hub, &first).await;
    assert!(by_hand.entries > 0 && by_hand.duplicates == 0, "{by_hand:?}");

    // The radio comes back, and the second medium arrives while it sends.
    hub.set_emission(Emission::Normal).unwrap();
    edge.set_emission(Emission::Normal).unwrap();
    let also_by_hand = import(hub, &second).await;
    sites.settled().await;
    until("both cores are equal", || snapshot(sites.hub.site().core()) == snapshot(sites.edge.core())).await;
    until("the file is whole", || sites.hub.site().core().file_path(file).unwrap().is_some()).await;
    let stored = sites.hub.site().core().file_path(file).unwrap().unwrap();
    assert_eq!(std::fs::read(stored).unwrap(), bytes);

    let equation = sites.edge.equation(sites.hub.site().node()).unwrap().unwrap();
    assert_eq!(equation.accepted(), equation.journal.total.applied, "{equation:?}");
    let by_radio = figure(&sites.at_edge.metrics, "holdfast_link_sent_entries_total") - sent_before;
    assert!(by_radio + by_hand.entries <= held, "the radio sends nothing that a medium brought: {by_radio} of {held}");
    assert!(by_radio > 0 && also_by_hand.entries + also_by_hand.duplicates > 0);
    // What was on both ways at the same moment came twice and is there once.
    assert_eq!(snapshot(sites.hub.site().core()).posts.len(), posts_before + 61);
    assert_eq!(figure(&sites.at_hub.metrics, "holdfast_parcels_refused_total"), 0);
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_any_radio_media_carry_there_and_receipts_back() {
    let sites = Sites::joined().await;
    sites.silent();
    for n in 0..20 {
        sites.post(format!("{n} {}", noise(n, 500)));
    }
    let bytes: Vec<u8> = noise(2_000, 200_000).into_bytes();
    let file = sites.upload(&bytes);
    sites.captured().await;
    let (edge, hub) = (sites.edge.carrier(), sites.hub.site().carrier());
    let held = || sites.edge.equation(sites.hub.site().node()).unwrap().unwrap().held();
    let before = held();
    assert!(before >= 21);
    let (medium, more) = export(edge, "bravo", Since::Continue, usize::MAX >> 1).await;
    assert!(!more);
    assert_eq!(held(), before, "being on a medium is not having arrived");
    let taken = import(hub, &medium).await;
    assert_eq!((taken.entries, taken.duplicates), (before, 0));
    until("both cores are equal", || snapshot(sites.hub.site().core()) == snapshot(sites.edge.core())).await;
    until("the file is whole", || sites.hub.site().core().file_path(file).unwrap().is_some()).await;
    assert_eq!(std::fs::read(sites.hub.site().core().file_path(file).unwrap().unwrap()).unwrap(), bytes);

    // The same medium again, and the same content on another one, change nothing.
    assert!(import(hub, &medium).await.already);
    let (again, _) = export(edge, "bravo", Since::Start, usize::MAX >> 1).await;
    let taken = import(hub, &again).await;
    assert_eq!((taken.entries, taken.duplicates, taken.chunks), (0, before, 0));
    let (nothing, _) = export(edge, "bravo", Since::LastExport, usize::MAX >> 1).await;
    let taken = import(hub, &nothing).await;
    assert_eq!((taken.entries, taken.duplicates, taken.chunks), (0, 0, 0));

    // The next medium the other way brings the receipts.
    until("the hub has ended all", || {
        let ended = sites.hub.site().applied().ledger(sites.edge.node());
        ended.iter().map(|(_, _, set)| set.count()).sum::<u64>() >= before
    })
    .await;
    let (back, _) = export(hub, "alpha", Since::Continue, usize::MAX >> 1).await;
    import(edge, &back).await;
    sites.settled().await;
    let equation = sites.edge.equation(sites.hub.site().node()).unwrap().unwrap();
    assert_eq!(equation.accepted(), equation.journal.total.applied, "{equation:?}");
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_altered_parcel_and_one_for_another_node_are_refused_and_counted() {
    let sites = Sites::joined().await;
    sites.silent();
    sites.post("contact at grid 4825".to_owned());
    sites.captured().await;
    let (edge, hub) = (sites.edge.carrier(), sites.hub.site().carrier());
    let (medium, _) = export(edge, "bravo", Since::Continue, usize::MAX >> 1).await;
    assert!(!medium.windows(7).any(|w| w == b"contact"), "nobody on the way reads it");
    let mut altered = medium.clone();
    let last = altered.len() - 100;
    altered[last] ^= 1;
    let posts = || snapshot(sites.hub.site().core()).posts.len();
    let before = posts();
    let mut refused = 0;
    let mut rest = altered.as_slice();
    while !rest.is_empty() {
        let (len, taken) = hub.take_parcel(rest).await;
        refused += usize::from(matches!(taken, Err(ParcelRefused::NotGenuine(_))));
        rest = &rest[len..];
    }
    assert_eq!(refused, 1);
    assert!(matches!(edge.take_parcel(&medium).await.1, Err(ParcelRefused::OtherNode(_))));
    assert!(matches!(hub.take_parcel(&medium[..50]).await.1, Err(ParcelRefused::Damaged(_))));
    let counted = |metrics: &Metrics| figure(metrics, "holdfast_parcels_refused_total");
    assert_eq!((counted(&sites.at_hub.metrics), counted(&sites.at_edge.metrics)), (2, 1));
    assert_eq!(posts(), before);
    import(hub, &medium).await;
    until("the post is there", || posts() == before + 1).await;
    sites.stop().await;
}

/// Sends on to `to` what arrives, but loses a fifth and every now and then thirty in a row. Counts what comes back.
struct Diode {
    address: SocketAddr,
    passed: Arc<AtomicU64>,
    came_back: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Diode {
    fn open() -> (Self, UdpSocket) {
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        inside.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = inside.local_addr().unwrap();
        let (passed, came_back, stop) = Default::default();
        (Self { address, passed, came_back, stop, threads: Vec::new() }, inside)
    }

    /// What was sent before is lost.
    fn lead_to(&mut self, inside: UdpSocket, to: SocketAddr) {
        while inside.recv(&mut [0; 2_000]).is_ok() {}
        let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
        outside.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let back = outside.try_clone().unwrap();
        let (passed, stop) = (Arc::clone(&self.passed), Arc::clone(&self.stop));
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            // A linear congruential generator (Knuth, MMIX): the same losses in every run.
            let (mut dice, mut burst) = (7u64, 0u32);
            while !stop.load(Ordering::Relaxed) {
                let Ok(len) = inside.recv(&mut buffer) else { continue };
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let roll = (dice >> 33) % 1_000;
                if roll < 3 {
                    burst = 30;
                }
                if burst > 0 || roll < 200 {
                    burst = burst.saturating_sub(1);
                    continue;
                }
                passed.fetch_add(1, Ordering::Relaxed);
                outside.send_to(&buffer[..len], to).unwrap();
            }
        }));
        let (came_back, stop) = (Arc::clone(&self.came_back), Arc::clone(&self.stop));
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            while !stop.load(Ordering::Relaxed) {
                if back.recv(&mut buffer).is_ok() {
                    came_back.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Diode {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Everything for a peer goes one way, and is repeated every five seconds.
fn lane_to(diode: SocketAddr, rounds: u32) -> PeerSettings {
    let oneway = OneWaySettings {
        to: diode.to_string(),
        bind: None,
        interface: None,
        dscp: 0,
        rate: BitsPerSecond(4_000_000),
        passes: 2,
        redundancy_percent: 30,
        repeat_minutes: 0,
        rounds,
    };
    PeerSettings { never_dial: true, oneway: Some(oneway), ..PeerSettings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_diode_in_each_direction_brings_the_receipts_too() {
    let ((mut there, into_there), (mut back, into_back)) = (Diode::open(), Diode::open());
    let (to_hub, to_edge) = (there.address, back.address);
    let sites = Sites::joined_with(|carrier, arrives_at_hub| {
        carrier.oneway_listen = Some("127.0.0.1:0".parse().unwrap());
        let (peer, diode) = if arrives_at_hub.is_none() { ("alpha", to_edge) } else { ("bravo", to_hub) };
        carrier.peers.insert(peer.parse().unwrap(), lane_to(diode, 0));
    })
    .await;
    for n in 0..30 {
        sites.post(format!("{n} {}", noise(n, 400)));
    }
    sites.captured().await;
    // What is sent before the way back exists is lost, receipts among it.
    there.lead_to(into_there, sites.hub.site().carrier().oneway_addr().unwrap());
    until("both cores are equal", || snapshot(sites.hub.site().core()) == snapshot(sites.edge.core())).await;
    // The receipts are told ten seconds after the last change at the latest, and once more after ten more.
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(sites.edge.equation(sites.hub.site().node()).unwrap().unwrap().held() >= 30);
    back.lead_to(into_back, sites.edge.carrier().oneway_addr().unwrap());
    sites.settled().await;
    let equation = sites.edge.equation(sites.hub.site().node()).unwrap().unwrap();
    assert_eq!(equation.accepted(), equation.journal.total.applied, "{equation:?}");
    until("nothing is unconfirmed", || {
        let lane = sites.edge.carrier().status()[0].links.last().unwrap().oneway.clone().unwrap();
        lane.unconfirmed_entries == 0 && lane.turning_bytes == 0
    })
    .await;
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_diode_that_loses_a_fifth_delivers_to_a_side_that_may_only_receive() {
    let (mut diode, inside) = Diode::open();
    let address = diode.address;
    let sites = Sites::joined_with(|carrier, arrives| {
        if arrives.is_none() && carrier.listen.is_some() {
            carrier.oneway_listen = Some("127.0.0.1:0".parse().unwrap());
            return;
        }
        carrier.peers.insert("bravo".parse().unwrap(), lane_to(address, 2));
    })
    .await;
    let (edge, hub) = (sites.edge.carrier().clone(), sites.hub.site().carrier().clone());
    hub.set_emission(Emission::ReceiveOnly).unwrap();
    edge.set_emission(Emission::Silent).unwrap();
    diode.lead_to(inside, hub.oneway_addr().unwrap());

    for n in 0..30 {
        sites.post(format!("{n} {}", noise(n, 400)));
    }
    let bytes: Vec<u8> = noise(3_000, 150_000).into_bytes();
    let file = sites.upload(&bytes);
    sites.captured().await;
    // Nothing leaves while emission control says so. What left before is not looked at.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = edge.status()[0].links.last().unwrap().oneway.clone().unwrap().datagrams;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sent = || edge.status()[0].links.last().unwrap().oneway.clone().unwrap();
    assert_eq!(sent().datagrams, before, "silent is silent");

    edge.set_emission(Emission::Normal).unwrap();
    // Whoever reaches the receiving side without being enrolled costs it a look.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200usize {
        let len = [1_176, 0, 1, 1_175, 1_177, 9_000][n % 6];
        let rubbish = [b"HFO1".as_slice(), noise(n, len).as_bytes()].concat();
        stranger.send_to(&rubbish[..len], hub.oneway_addr().unwrap()).unwrap();
    }
    until("both cores are equal", || snapshot(sites.hub.site().core()) == snapshot(sites.edge.core())).await;
    until("the file is whole", || sites.hub.site().core().file_path(file).unwrap().is_some()).await;
    assert_eq!(std::fs::read(sites.hub.site().core().file_path(file).unwrap().unwrap()).unwrap(), bytes);

    // Without a receipt nothing counts as arrived, however often it is sent; after two rounds it is not sent again.
    let equation = || sites.edge.equation(sites.hub.site().node()).unwrap().unwrap();
    let held = equation().held();
    assert!(held >= 31 && held == equation().accepted(), "{:?}", equation());
    until("all was sent twice", || sent().unconfirmed_entries == held).await;
    until("nothing is on the carousel", || sent().turning_bytes == 0).await;
    let passed = diode.passed();
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(diode.passed(), passed, "what was sent as often as ordered is not repeated");
    assert_eq!(equation().held(), held, "unconfirmed is held");

    let received = hub.oneway_received().unwrap();
    assert!(received.whole > 0 && received.rejected == 200 && received.given_up == 0, "{received:?}");
    assert_eq!(diode.came_back.load(Ordering::Relaxed), 0, "the receiving side sends nothing");
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 10]).is_err(), "not to strangers either");
    let all = &edge.status()[0];
    assert_eq!(all.state, carrier::PeerState::OneWay, "{all:?}");
    // Each entry came in two rounds and is there once.
    assert_eq!(figure(&sites.at_hub.metrics, "holdfast_parcels_refused_total"), 0);

    // A medium brings the receipts; then nothing is unconfirmed.
    let (back, _) = export(&hub, "alpha", Since::Continue, usize::MAX >> 1).await;
    import(&edge, &back).await;
    sites.settled().await;
    until("nothing is unconfirmed", || sent().unconfirmed_entries == 0).await;
    sites.stop().await;
}
