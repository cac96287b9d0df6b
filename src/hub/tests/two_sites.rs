//! A hub and an edge in one process, over real sockets: what is written on either side is on both.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use capture::{CaptureSettings, ChannelKind, ReleaseRule};
use carrier::{CarrierSettings, Emission, SystemClock};
use edge::{Environment, Site, SiteConfig};
use hub::Hub;
use mission::types::{ClientInfo, Login, NewPost, NewPostMetadata, NewTeam, NewUser, PostPatch, Priority, Session};
use mission::{Core, Snapshot};
use model::BitsPerSecond;
use telemetry::{Health, Metrics};

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
    let clock = Arc::new(SystemClock);
    Environment { clock: clock.clone(), metrics: Arc::new(Metrics::new()), health: Health::new(clock) }
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
