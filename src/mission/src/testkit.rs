//! Nodes for tests: a core with a clock that is set by hand, a counting mint and a recorder of broadcasts.

use std::io::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::{Clock, EntryId, Epoch, Event, Hlc, HybridClock, Id, IdMint, NodeId, Seq, UnixMillis};

use crate::core::{Core, CoreOptions, CoreSettings, lock};
use crate::events::{Broadcast, EventSink};
use crate::outbox::OutboxRow;
use crate::replica::{Applied, Incoming};
use crate::types::{Channel, ClientInfo, Login, NewPost, NewTeam, NewUser, Post, Session, Team};

pub(crate) const START: i64 = 1_790_000_000_000;
pub(crate) const PASSWORD: &str = "correct horse";

#[derive(Default)]
pub(crate) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

struct TestMint(u8, AtomicU64);

impl IdMint for TestMint {
    fn mint(&self) -> Id {
        let mut block = [self.0; 16];
        block[8..].copy_from_slice(&self.1.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        Id::from_block(*blake3::hash(&block).as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Broadcast>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Broadcast> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl EventSink for Recorder {
    fn publish(&self, broadcast: Broadcast) {
        lock(&self.0).push(broadcast);
    }
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) events: Arc<Recorder>,
    pub(crate) dir: tempfile::TempDir,
    tag: u8,
    mint: Arc<TestMint>,
    next_seq: AtomicU64,
    settings: CoreSettings,
}

/// One entry as it travels, with the bytes of a file.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: EntryId,
    pub(crate) event: Event,
    pub(crate) bytes: Option<Vec<u8>>,
}

fn options(
    dir: &std::path::Path,
    tag: u8,
    clock: &Arc<TestClock>,
    mint: &Arc<TestMint>,
    events: &Arc<Recorder>,
    settings: &CoreSettings,
) -> CoreOptions {
    CoreOptions {
        dir: dir.to_owned(),
        node: NodeId([tag; 16]),
        node_name: format!("node-{tag}"),
        mint: mint.clone(),
        clock: clock.clone(),
        hybrid: Arc::new(HybridClock::default()),
        events: events.clone(),
        settings: settings.clone(),
    }
}

impl Node {
    pub(crate) fn new(tag: u8) -> Self {
        Self::with(tag, CoreSettings::default())
    }

    /// With these settings, but that everybody may register.
    pub(crate) fn with(tag: u8, settings: CoreSettings) -> Self {
        let settings = CoreSettings { open_registration: true, ..settings };
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::default());
        clock.0.store(START, Ordering::SeqCst);
        let mint = Arc::new(TestMint(tag, AtomicU64::new(0)));
        let events = Arc::new(Recorder::default());
        let core = Core::open(options(dir.path(), tag, &clock, &mint, &events, &settings)).unwrap();
        Self { core, clock, events, dir, tag, mint, next_seq: AtomicU64::new(1), settings }
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopened(self) -> Self {
        let Self { core, clock, events, dir, tag, mint, next_seq, settings } = self;
        drop(core);
        let core = Core::open(options(dir.path(), tag, &clock, &mint, &events, &settings)).unwrap();
        Self { core, clock, events, dir, tag, mint, next_seq, settings }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.core.node()
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn user(&self, name: &str) -> Session {
        let new = NewUser {
            username: name.to_owned(),
            email: format!("{name}@example.org"),
            password: PASSWORD.to_owned(),
            ..NewUser::default()
        };
        self.core.create_user(None, &new).unwrap();
        self.login(name)
    }

    pub(crate) fn login(&self, name: &str) -> Session {
        let login = Login { login_id: name.to_owned(), password: PASSWORD.to_owned(), ..Login::default() };
        let (_, session) = self.core.login(&login, &ClientInfo::default()).unwrap();
        self.core.session(&session.token).unwrap()
    }

    pub(crate) fn team(&self, by: &Session, name: &str) -> (Team, Channel) {
        let new = NewTeam {
            name: name.to_owned(),
            display_name: name.to_owned(),
            kind: "O".to_owned(),
            allow_open_invite: true,
            ..NewTeam::default()
        };
        let team = self.core.create_team(by, &new).unwrap();
        let square = self.core.channel_by_name(by, team.id, "town-square", false).unwrap();
        (team, square)
    }

    pub(crate) fn say(&self, by: &Session, channel: Id, root: Option<Id>, text: &str) -> Post {
        self.core.create_post(by, &words(channel, root, text), true).unwrap()
    }

    pub(crate) fn upload(&self, by: &Session, channel: Id, name: &str, bytes: &[u8]) -> Id {
        let mut upload = self.core.begin_upload(by, channel, name).unwrap();
        upload.write_all(bytes).unwrap();
        upload.finish().unwrap().id
    }

    pub(crate) fn outbox(&self) -> Vec<OutboxRow> {
        self.core.outbox_read(Hlc::ZERO, usize::MAX).unwrap()
    }

    /// Takes everything out of the outbox, numbered as capture would.
    pub(crate) fn drain(&self) -> Vec<Sent> {
        let rows = self.outbox();
        if let Some(last) = rows.last() {
            self.core.outbox_ack(last.at).unwrap();
        }
        rows.into_iter()
            .map(|row| {
                let seq = Seq::new(self.next_seq.fetch_add(1, Ordering::SeqCst)).unwrap();
                let file = if let Event::File(f) = &row.event { Some(f.stub.id) } else { None };
                let bytes = file.map(|f| std::fs::read(self.core.file_path(f).unwrap().unwrap()).unwrap());
                Sent { id: EntryId { origin: self.id(), epoch: Epoch::FIRST, seq }, event: row.event, bytes }
            })
            .collect()
    }

    pub(crate) fn apply(&self, sent: &[Sent]) -> Vec<Applied> {
        apply(&self.core, sent)
    }

    /// Gives a user who came from elsewhere a password here, as enrolment would.
    pub(crate) fn enrol(&self, name: &str) -> Session {
        let user = self.core.user_by_username(name).unwrap();
        let admin = Session { user_id: user.id, roles: "system_admin".to_owned(), ..blank_session(user.id) };
        let other = Session { user_id: self.core.random_id(), ..admin };
        self.core.update_password(&other, user.id, "", PASSWORD).unwrap();
        self.login(name)
    }
}

/// Applies what another node sent.
pub(crate) fn apply(core: &Core, sent: &[Sent]) -> Vec<Applied> {
    let items = sent.iter().map(|s| Incoming {
        id: s.id,
        event: s.event.clone(),
        content: s.bytes.as_ref().map(|bytes| {
            let mut staged = core.replica().stage_file().unwrap();
            staged.write_all(bytes).unwrap();
            staged.finish().unwrap()
        }),
    });
    core.replica().apply(items.collect()).unwrap()
}

fn blank_session(user: Id) -> Session {
    Session {
        id: user,
        token: String::new(),
        create_at: 0,
        expires_at: 0,
        last_activity_at: 0,
        user_id: user,
        device_id: String::new(),
        roles: String::new(),
        is_oauth: false,
        expired_notify: false,
        props: std::collections::BTreeMap::new(),
        team_members: Vec::new(),
        local: false,
    }
}

pub(crate) fn words(channel: Id, root: Option<Id>, text: &str) -> NewPost {
    NewPost {
        channel_id: channel.to_string(),
        root_id: root.map(|r| r.to_string()).unwrap_or_default(),
        message: text.to_owned(),
        ..NewPost::default()
    }
}
