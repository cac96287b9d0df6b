//! A hub and an edge in one process, over real sockets: what is written on either side is on both.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apply::{PurgeReceipt, PurgeRequest, PurgeStatus, PurgeTarget};
use capture::{CaptureSettings, ChannelKind, ReleaseRule};
use carrier::{CarrierSettings, Emission, SystemClock};
use edge::{Environment, Site, SiteConfig};
use hub::Hub;
use mission::types::{ClientInfo, Login, NewPost, NewPostMetadata, NewTeam, NewUser, PostPatch, Priority, Session};
use mission::{Core, Snapshot};
use model::{BitsPerSecond, Id, Outcome};
use telemetry::{Direction, Health, Metrics};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn config(dir: &Path, name: &str) -> SiteConfig {
    SiteConfig {
        data_dir: dir.to_owned(),
        name: name.parse().unwrap(),
        api_listen: "127.0.0.1:0".parse().unwrap(),
        core: mission::CoreSettings::default(),
        http: mission::http::HttpSettings::default(),
        journal: journal::JournalSettings::default(),
        scrub: journal::ScrubSettings::default(),
        data_keys: data_keys(dir),
        microsoft: None,
        directory: None,
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

fn data_keys(dir: &Path) -> keys::DataKeys {
    let mut surroundings = keys::Surroundings { credentials: None, ask: &mut || None };
    let now = model::UnixMillis(1_700_000_000_000);
    edge::open_keyring(dir, &keys::KeysSettings::default(), &mut surroundings, now).unwrap().data_keys()
}

fn environment() -> Environment {
    environment_with(Arc::new(Metrics::new()))
}

fn environment_with(metrics: Arc<Metrics>) -> Environment {
    let clock = Arc::new(SystemClock);
    Environment { clock: clock.clone(), metrics, health: Health::new(clock) }
}

fn sign_in(core: &Core, name: &str) -> Session {
    let new = NewUser {
        username: name.to_owned(),
        email: format!("{name}@example.com"),
        password: "correct-horse-1".to_owned(),
        ..NewUser::default()
    };
    let user = core.operator_creates_user(name, &new.email, &new.password, true).unwrap();
    let login = Login { login_id: user.username, password: new.password, ..Login::default() };
    core.login(&login, &ClientInfo::default()).unwrap().1
}

fn post(channel: &str, message: &str) -> NewPost {
    NewPost { channel_id: channel.to_owned(), message: message.to_owned(), ..NewPost::default() }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_on_either_side_is_on_both_after_an_outage() {
    let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut at_hub = config(dirs.0.path(), "bravo");
    at_hub.carrier.listen = Some("127.0.0.1:0".parse().unwrap());
    let hub = Hub::start(at_hub, environment()).await.unwrap();
    let edge = Site::start(config(dirs.1.path(), "alpha"), environment()).await.unwrap();

    let invitation = hub.invite(&"alpha".parse().unwrap(), None, Duration::from_secs(60)).unwrap();
    edge.join(&invitation.token.0, PATIENCE).await.unwrap();

    let alice = sign_in(edge.core(), "alice");
    let team = NewTeam {
        name: "mission".to_owned(),
        display_name: "مهمة 任務".to_owned(),
        kind: "O".to_owned(),
        ..NewTeam::default()
    };
    let team = edge.core().create_team(&alice, &team).unwrap();
    let square = edge.core().channel_by_name(&alice, team.id, "town-square", false).unwrap();
    let hello = edge.core().create_post(&alice, &post(square.id.as_str(), "hello"), true).unwrap();
    until("the first post reached the hub", || snapshot(hub.site().core()).posts.contains_key(hello.id.as_str())).await;

    // Someone at the hub joins and answers; the edge goes silent meanwhile and both sides go on.
    let carol = sign_in(hub.site().core(), "carol");
    hub.site().core().add_team_member(&carol, team.id, carol.user_id).unwrap();
    hub.site().core().add_channel_member(&carol, square.id, carol.user_id).unwrap();
    edge.carrier().set_emission(Emission::Silent).unwrap();
    let reply =
        NewPost { root_id: hello.id.to_string(), ..post(square.id.as_str(), "an answer from the enterprise side") };
    hub.site().core().create_post(&carol, &reply, true).unwrap();

    let mut upload = edge.core().begin_upload(&alice, square.id, "карта.bin").unwrap();
    let bytes: Vec<u8> = (0..700_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    upload.write_all(&bytes).unwrap();
    let file = upload.finish().unwrap();
    let with_file = NewPost { file_ids: vec![file.id.to_string()], ..post(square.id.as_str(), "the map") };
    edge.core().create_post(&alice, &with_file, true).unwrap();
    let urgent = Priority { priority: "urgent".to_owned(), ..Priority::default() };
    let urgent = NewPost {
        metadata: Some(NewPostMetadata { priority: Some(urgent) }),
        ..post(square.id.as_str(), "contact at grid 4825")
    };
    edge.core().create_post(&alice, &urgent, true).unwrap();
    let edit = PostPatch { message: Some("hello, all".to_owned()), ..PostPatch::default() };
    edge.core().patch_post(&alice, hello.id, &edit).unwrap();
    edge.core().save_reaction(&alice, alice.user_id, hello.id, "thumbsup").unwrap();
    edge.carrier().set_emission(Emission::Normal).unwrap();

    until("both sides are equal", || {
        let (a, b) = (snapshot(edge.core()), snapshot(hub.site().core()));
        a == b && a.posts.len() >= 5
    })
    .await;
    let stored = hub.site().core().file_path(file.id).unwrap().expect("the file's bytes are at the hub");
    assert_eq!(std::fs::read(stored).unwrap(), bytes);

    until("nothing is held on either side", || {
        let up = edge.equation(hub.site().node()).unwrap().unwrap();
        let down = hub.site().equation(edge.node()).unwrap().unwrap();
        up.held() == 0 && down.held() == 0
    })
    .await;
    for equation in [edge.equation(hub.site().node()).unwrap(), hub.site().equation(edge.node()).unwrap()] {
        let equation = equation.unwrap();
        let t = &equation.journal.total;
        assert_eq!(equation.accepted(), t.applied, "everything was released and applied: {equation:?}");
    }
    edge.stop().await;
    hub.stop().await;
}

/// Files below the directory that hold the bytes.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        // A file that goes while it is looked for is gone.
        } else if std::fs::read(&path).is_ok_and(|read| read.windows(bytes.len()).any(|w| w == bytes)) {
            found.push(path);
        }
    }
    found
}

/// Two sites that are joined, a user at the edge and a channel.
struct Sites {
    hub: Hub,
    edge: Site,
    hub_dir: TempDir,
    edge_dir: TempDir,
    edge_metrics: Arc<Metrics>,
    alice: Session,
    square: String,
}

impl Sites {
    async fn joined() -> Self {
        let (hub_dir, edge_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut at_hub = config(hub_dir.path(), "bravo");
        at_hub.carrier.listen = Some("127.0.0.1:0".parse().unwrap());
        let hub = Hub::start(at_hub, environment()).await.unwrap();
        let edge_metrics = Arc::new(Metrics::new());
        let environment = environment_with(Arc::clone(&edge_metrics));
        let edge = Site::start(config(edge_dir.path(), "alpha"), environment).await.unwrap();
        let invitation = hub.invite(&"alpha".parse().unwrap(), None, Duration::from_secs(60)).unwrap();
        edge.join(&invitation.token.0, PATIENCE).await.unwrap();
        let alice = sign_in(edge.core(), "alice");
        let team = NewTeam {
            name: "mission".to_owned(),
            display_name: "mission".to_owned(),
            kind: "O".to_owned(),
            ..NewTeam::default()
        };
        let team = edge.core().create_team(&alice, &team).unwrap();
        let square = edge.core().channel_by_name(&alice, team.id, "town-square", false).unwrap().id.to_string();
        let sites = Self { hub, edge, hub_dir, edge_dir, edge_metrics, alice, square };
        sites.say("before").await;
        sites
    }

    /// Posts and waits until the hub has it.
    async fn say(&self, text: &str) -> Id {
        let id = self.edge.core().create_post(&self.alice, &post(&self.square, text), true).unwrap().id;
        until("a post reached the hub", || snapshot(self.hub.site().core()).posts.contains_key(id.as_str())).await;
        id
    }

    /// Shares a file and waits until the hub has its bytes. Returns how many bytes left the edge for it, and by how many the
    /// journals of edge and hub grew.
    async fn share(&self, name: &str, bytes: &[u8]) -> [u64; 3] {
        let wire = || self.edge_metrics.link_wire_bytes_total.get((telemetry::PeerName::new("bravo"), Direction::Up));
        // The counter follows once a second.
        let counted = async || {
            let (mut last, mut since) = (wire(), 0);
            until("the link is quiet", || {
                (last, since) = if wire() == last { (last, since + 1) } else { (wire(), 0) };
                since > 40
            })
            .await;
        };
        counted().await;
        let sizes = || [wire(), self.edge.journal().stats().bytes, self.hub.site().journal().stats().bytes];
        let before = sizes();
        let mut upload = self.edge.core().begin_upload(&self.alice, self.square.parse().unwrap(), name).unwrap();
        upload.write_all(bytes).unwrap();
        let file = upload.finish().unwrap();
        let new = NewPost { file_ids: vec![file.id.to_string()], ..post(&self.square, name) };
        self.edge.core().create_post(&self.alice, &new, true).unwrap();
        let hub = self.hub.site().core();
        until("the file is at the hub", || hub.file_path(file.id).unwrap().is_some()).await;
        let there = std::fs::read(hub.file_path(file.id).unwrap().unwrap()).unwrap();
        assert!(there == bytes, "{name} is at the hub byte for byte");
        counted().await;
        let after = sizes();
        std::array::from_fn(|i| after[i] - before[i])
    }

    fn order(&self, site: &Site, id: Id) {
        let target = PurgeTarget::Object(id);
        let (by, reason) = ("duty officer".to_owned(), "spilled".to_owned());
        let request = PurgeRequest { target, by, reason, keep_files: false, everywhere_used: false };
        let ids = site.applied().order_purge(&request).unwrap();
        assert_eq!(ids.len(), 1);
    }

    async fn done_everywhere(&self) {
        until("the order is carried out on both sides", || {
            let (up, down) = (self.edge.applied().purges().unwrap(), self.hub.site().applied().purges().unwrap());
            let ended = |s: &PurgeStatus| s.receipts.values().all(|r| *r == PurgeReceipt::Ended(Outcome::Applied));
            let done = |s: &PurgeStatus| s.done_at.is_some() && ended(s);
            up.len() == down.len() && !up.is_empty() && up.iter().chain(&down).all(done)
        })
        .await;
    }

    /// Nothing is held, the sums are right, the journals are sound and the sites are equal but for posts of these ids.
    async fn settled(&self, but_for: &[Id]) {
        until("nothing is held on either side", || {
            let up = self.edge.equation(self.hub.site().node()).unwrap().unwrap();
            let down = self.hub.site().equation(self.edge.node()).unwrap().unwrap();
            up.held() == 0 && down.held() == 0
        })
        .await;
        for site in [&self.edge, self.hub.site()] {
            let peer = if site.node() == self.edge.node() { self.hub.site().node() } else { self.edge.node() };
            let equation = site.equation(peer).unwrap().unwrap();
            let t = &equation.journal.total;
            let ended = t.applied + t.quarantined + t.expired + t.superseded + t.withheld + t.purged;
            assert_eq!(equation.accepted(), ended, "{equation:?}");
            assert_eq!(t.quarantined, 0, "{equation:?}");
            let verified = site.journal().verify(&mut |_| {}).unwrap();
            assert!(verified.is_clean(), "{:?}", verified.findings);
        }
        let (mut a, mut b) = (snapshot(self.edge.core()), snapshot(self.hub.site().core()));
        for snapshot in [&mut a, &mut b] {
            but_for.iter().for_each(|id| drop(snapshot.posts.remove(id.as_str())));
        }
        assert_eq!(a, b);
    }

    async fn stop(self) {
        self.edge.stop().await;
        self.hub.stop().await;
    }
}

/// A text document as office programs save it: one member holds all text, and the properties change at every save.
fn document(level: u32, edited: bool) -> Vec<u8> {
    let mut state = u64::from(level);
    let mut text = String::from("<w:document><w:body>");
    for n in 0..4_800 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = if edited && n == 2_400 { "Kestrel".to_owned() } else { format!("{:x}", state >> 30) };
        text += &format!(
            "<w:p><w:r><w:rPr><w:sz w:val=\"22\"/></w:rPr><w:t>advance to {word} and report</w:t></w:r></w:p>"
        );
    }
    text += "</w:body></w:document>";
    let styles: String = (0..400).map(|n| format!("<w:style w:styleId=\"s{}\"/>", n * n)).collect();
    let properties =
        format!("<cp:coreProperties><cp:revision>{}</cp:revision></cp:coreProperties>", 7 + i32::from(edited));
    let members = [("word/document.xml", text), ("word/styles.xml", styles), ("docProps/core.xml", properties)];
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, plain) in &members {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(plain.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(plain.as_bytes());
        let mut header = [20u16, 0, 8, 0, 33].map(u16::to_le_bytes).concat();
        header.extend([crc.sum(), packed.len() as u32, plain.len() as u32].map(u32::to_le_bytes).concat());
        header.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        directory.extend([b"PK\x01\x02\x14\0", header.as_slice(), &[0; 10]].concat());
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend([b"PK\x03\x04", header.as_slice(), name.as_bytes(), &packed].concat());
    }
    let at = out.len() as u32;
    out.extend([directory.as_slice(), b"PK\x05\x06\0\0\0\0"].concat());
    out.extend([members.len() as u16; 2].map(u16::to_le_bytes).concat());
    out.extend([directory.len() as u32, at].map(u32::to_le_bytes).concat());
    out.extend([0; 2]);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_word_edited_in_a_document_crosses_and_is_kept_for_little_on_both_sides() {
    let sites = Sites::joined().await;
    for level in [6, 9] {
        let first = sites.share("order.docx", &document(level, false)).await;
        assert!(first.iter().all(|cost| *cost > 10_000), "level {level}: the first copy {first:?}");
        let edited = document(level, true);
        assert!(edited.len() > 30_000);
        // On the wire and in the journals with the post, its receipts, and what the carrier adds.
        let second = sites.share("order.docx", &edited).await;
        assert!(second.iter().all(|cost| *cost < 8_000), "level {level}: the edited copy {second:?}");
    }
    sites.settled(&[]).await;
    sites.stop().await;
}

const SPILL: &str = "the courier meets at grid 38SMB4595 at first light";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_purged_post_and_its_file_are_in_no_file_of_either_side() {
    let sites = Sites::joined().await;
    let (edge, hub) = (&sites.edge, sites.hub.site());
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let mut upload = edge.core().begin_upload(&sites.alice, sites.square.parse().unwrap(), "courier-plan.bin").unwrap();
    upload.write_all(&bytes).unwrap();
    let file = upload.finish().unwrap();
    let new = NewPost { file_ids: vec![file.id.to_string()], ..post(&sites.square, SPILL) };
    let spilled = edge.core().create_post(&sites.alice, &new, true).unwrap().id;
    edge.core().save_reaction(&sites.alice, sites.alice.user_id, spilled, "thumbsup").unwrap();
    let edit = PostPatch { message: Some(format!("{SPILL}, or later")), ..PostPatch::default() };
    edge.core().patch_post(&sites.alice, spilled, &edit).unwrap();
    until("the file is at the hub", || hub.core().file_path(file.id).unwrap().is_some()).await;
    until("both sides are equal", || snapshot(edge.core()) == snapshot(hub.core())).await;
    let probes: [&[u8]; 4] = [SPILL.as_bytes(), b"or later", &bytes[1_000..1_100], b"courier-plan"];
    for dir in [&sites.edge_dir, &sites.hub_dir] {
        assert!(probes.iter().any(|probe| !holding(dir.path(), probe).is_empty()), "it is there to be found");
    }
    sites.order(edge, spilled);
    sites.done_everywhere().await;
    for dir in [&sites.edge_dir, &sites.hub_dir] {
        for probe in probes {
            let found = holding(dir.path(), probe);
            assert!(found.is_empty(), "{}: {found:?}", String::from_utf8_lossy(probe));
        }
    }
    for site in [edge, hub] {
        let gone = &snapshot(site.core()).posts[spilled.as_str()];
        assert_eq!((gone["message"].as_str(), gone["delete_at"].as_i64() > Some(0)), (Some(""), true));
        assert_eq!(site.core().file_path(file.id).unwrap(), None);
        let done = site.applied().purges().unwrap().remove(0).done;
        assert!(done.journal.entries >= 3 && done.journal.chunks >= 1, "{done:?}");
    }
    sites.say("after").await;
    sites.settled(&[]).await;
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_given_while_the_link_is_silent_takes_the_content_here_at_once_and_there_later() {
    let sites = Sites::joined().await;
    let spilled = sites.say(SPILL).await;
    sites.edge.carrier().set_emission(Emission::Silent).unwrap();
    sites.order(&sites.edge, spilled);
    until("the edge is clean", || sites.edge.applied().purges().unwrap()[0].done_at.is_some()).await;
    assert!(holding(sites.edge_dir.path(), SPILL.as_bytes()).is_empty());
    let waiting = sites.edge.applied().purges().unwrap().remove(0);
    assert!(waiting.receipts.values().all(|r| *r == PurgeReceipt::Waiting), "{waiting:?}");
    assert_eq!(snapshot(sites.hub.site().core()).posts[spilled.as_str()]["message"], SPILL);
    sites.edge.carrier().set_emission(Emission::Normal).unwrap();
    sites.done_everywhere().await;
    assert!(holding(sites.hub_dir.path(), SPILL.as_bytes()).is_empty());
    sites.settled(&[]).await;
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_purged_before_it_was_sent_never_crosses_and_counts_as_purged() {
    let sites = Sites::joined().await;
    sites.edge.carrier().set_emission(Emission::Silent).unwrap();
    let spilled = sites.edge.core().create_post(&sites.alice, &post(&sites.square, SPILL), true).unwrap().id;
    let answer = NewPost { root_id: spilled.to_string(), ..post(&sites.square, "a reply that needs it") };
    let answer = sites.edge.core().create_post(&sites.alice, &answer, true).unwrap().id;
    let peer = sites.hub.site().node();
    until("both are captured", || sites.edge.equation(peer).unwrap().unwrap().capturing == 0).await;
    sites.order(&sites.edge, spilled);
    until("the edge is clean", || sites.edge.applied().purges().unwrap()[0].done_at.is_some()).await;
    sites.edge.carrier().set_emission(Emission::Normal).unwrap();
    sites.done_everywhere().await;
    until("the reply is not held by what it needs", || {
        snapshot(sites.hub.site().core()).posts.contains_key(answer.as_str())
    })
    .await;
    assert!(!snapshot(sites.hub.site().core()).posts.contains_key(spilled.as_str()));
    assert!(holding(sites.hub_dir.path(), SPILL.as_bytes()).is_empty());
    sites.settled(&[spilled]).await;
    assert_eq!(sites.edge.equation(peer).unwrap().unwrap().journal.total.purged, 1);
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_hub_purges_what_an_edge_wrote_and_the_edge_obeys() {
    let sites = Sites::joined().await;
    let spilled = sites.say(SPILL).await;
    sites.order(sites.hub.site(), spilled);
    sites.done_everywhere().await;
    for dir in [&sites.edge_dir, &sites.hub_dir] {
        assert!(holding(dir.path(), SPILL.as_bytes()).is_empty());
    }
    sites.settled(&[]).await;
    sites.stop().await;
}
