//! The corpus in a store of Holdfast, and Holdfast serving it.
//!
//! ```text
//!  holdfast init --> keys, configuration --+
//!  users, channels: Core, as the API does  +--> kept below the directory --> holdfast edge
//!  posts: Replica::apply, by thousands   --+
//! ```
//! The past is written as entries of another node, with the clock set to each post's time: the one way into the store
//! that takes many posts in a transaction. Users and channels go through the outbox as usual, so the first start
//! captures them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use keys::{NodeKey, ProcessMint};
use mission::events::NoEvents;
use mission::types::{ClientInfo, Login, NewChannel, NewTeam, NewUser};
use mission::{Core, CoreOptions, CoreSettings, Incoming};
use model::event::PostState;
use model::{Clock, EntryId, Epoch, Event, HybridClock, NodeId, Seq, UnixMillis, Version};
use tokio_util::sync::CancellationToken;

use super::load::Target;
use super::mission::{Mission, Plan, Said};
use crate::Error;
use crate::clock::{Stopwatch, WallClock};
use crate::link::api::{Api, User};
use crate::report::tell;

const PASSWORD: &str = "Correct-Horse-7";

/// The node that the past comes from.
const ELSEWHERE: NodeId = NodeId([0x42; 16]);

/// Posts in one transaction.
const BATCH: usize = 2_000;

/// A start takes longer on a store that is not in the system's cache.
const PATIENCE: Duration = Duration::from_secs(120);

struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

/// What a filled store is known by.
#[derive(serde::Serialize, serde::Deserialize)]
struct Filled {
    plan: Plan,
    team: String,
    channels: Vec<String>,
    names: Vec<String>,
    users: Vec<User>,
}

/// Holdfast with the corpus, serving.
pub(crate) struct Ours {
    target: Arc<Target>,
    /// Ends with this value.
    _serving: Serving,
}

enum Serving {
    Process(#[expect(dead_code, reason = "held for its end")] Ending),
    Here { stop: CancellationToken, served: Option<std::thread::JoinHandle<()>> },
}

/// A child, ended by force: everything it acknowledged is durable.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        match self {
            Self::Process(_) => {}
            Self::Here { stop, served } => {
                stop.cancel();
                let _ = served.take().map(std::thread::JoinHandle::join);
            }
        }
    }
}

impl Ours {
    pub(crate) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target)
    }

    /// Takes the corpus below `dir`, or makes it there, and serves it: by the program beside this one, or with `here` by this
    /// process, where memory is then everybody's.
    pub(crate) fn start(dir: &Path, plan: Plan, here: bool) -> Result<Self, Error> {
        let dir = dir.join(format!("core-{}-{}-{}", plan.posts, plan.users, plan.channels));
        let note = dir.join("filled.json");
        let filled: Filled = match fs::read(&note) {
            Ok(known) => serde_json::from_slice(&known)?,
            Err(_) => {
                // Without the note it is half a corpus.
                let _ = fs::remove_dir_all(&dir);
                fs::create_dir_all(&dir)?;
                let node = if here { ELSEWHERE } else { init(&dir)? };
                let filled = fill(&dir.join("core"), node, plan)?;
                fs::write(&note, serde_json::to_vec(&filled)?)?;
                filled
            }
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = format!("127.0.0.1:{port}");
        let (serving, pid) = if here { serve_here(&dir, port)? } else { serve(&dir, port)? };
        let target = Target {
            name: "holdfast",
            at,
            plan: filled.plan,
            team: filled.team,
            channels: filled.channels,
            names: filled.names,
            users: filled.users,
            processes: pid.into_iter().collect(),
        };
        Ok(Self { target: Arc::new(target), _serving: serving })
    }
}

/// The program beside this one: `scripts/bench` builds both.
fn command(dir: &Path, args: &[&str]) -> Result<Command, Error> {
    let mut command = Command::new(std::env::current_exe()?.with_file_name("holdfast"));
    command.arg("--data").arg(dir).args(args).env("HOLDFAST_PASSWORD", PASSWORD).stdin(Stdio::null());
    Ok(command)
}

fn init(dir: &Path) -> Result<NodeId, Error> {
    let args = ["init", "--role", "edge", "--name", "bench", "--admin", "bench-admin", "--release", "all"];
    let done = command(dir, &args)?.output()?;
    if !done.status.success() {
        return Err(format!("holdfast init: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(NodeKey::load(&dir.join("keys"))?.ok_or("init made no key")?.node_id())
}

fn serve(dir: &Path, port: u16) -> Result<(Serving, Option<u32>), Error> {
    let path = dir.join("holdfast.toml");
    let mut config: toml::Table = fs::read_to_string(&path)?.parse()?;
    for (section, listen) in [("api", format!("127.0.0.1:{port}")), ("metrics", "127.0.0.1:0".to_owned())] {
        let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().ok_or("a key where a section was expected")?.insert("listen".to_owned(), listen.into());
    }
    fs::write(&path, config.to_string())?;
    let log = fs::File::create(dir.join("edge.log"))?;
    let mut command = command(dir, &["edge"])?;
    let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
    let pid = child.id();
    let mut child = Ending(child);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let api = Api::at(&format!("127.0.0.1:{port}"));
    let since = Stopwatch::start();
    while !runtime.block_on(api.answers()) {
        if child.0.try_wait()?.is_some() || since.elapsed() > PATIENCE {
            return Err(format!("holdfast does not start; see {}", dir.join("edge.log").display()).into());
        }
        crate::link::sites::pause();
    }
    Ok((Serving::Process(child), Some(pid)))
}

/// The API of the core alone, without journal and links.
fn serve_here(dir: &Path, port: u16) -> Result<(Serving, Option<u32>), Error> {
    let stop = CancellationToken::new();
    let sockets = mission::ws::WsHub::new(stop.child_token());
    let core = Core::open(CoreOptions {
        dir: dir.join("core"),
        node: ELSEWHERE,
        node_name: "bench".to_owned(),
        mint: Arc::new(ProcessMint::new(ELSEWHERE)),
        clock: Arc::new(WallClock),
        hybrid: Arc::new(HybridClock::default()),
        events: Arc::new(sockets.clone()),
        settings: CoreSettings::default(),
    })?;
    let state = mission::http::ApiState::new(core, sockets.clone(), mission::http::HttpSettings::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", port)))?;
    let ended = stop.clone();
    let served = std::thread::spawn(move || {
        runtime.block_on(async {
            if let Err(error) = mission::http::serve(listener, state, ended).await {
                tell(&format!("serving ended: {error}"));
            }
            sockets.ended().await;
        });
    });
    Ok((Serving::Here { stop, served: Some(served) }, None))
}

/// Writes the corpus.
fn fill(dir: &Path, node: NodeId, plan: Plan) -> Result<Filled, Error> {
    let mut mission = Mission::new(plan, WallClock.now().0 - 60_000);
    let clock = Arc::new(SetClock(AtomicI64::new(mission.begin() - 60_000)));
    let core = Core::open(CoreOptions {
        dir: dir.to_owned(),
        node,
        node_name: "bench".to_owned(),
        mint: Arc::new(ProcessMint::new(node)),
        clock: clock.clone(),
        hybrid: Arc::new(HybridClock::default()),
        events: Arc::new(NoEvents),
        settings: CoreSettings { open_registration: true, ..CoreSettings::default() },
    })?;
    tell(&format!("holdfast: {} users in {} channels", plan.users, plan.channels));
    let mut sessions = Vec::new();
    for name in mission.names() {
        let email = format!("{name}@bench.invalid");
        let new = NewUser { username: name.clone(), email, password: PASSWORD.to_owned(), ..NewUser::default() };
        core.create_user(None, &new)?;
        let login = Login { login_id: name.clone(), password: PASSWORD.to_owned(), ..Login::default() };
        sessions.push(core.session(&core.login(&login, &ClientInfo::default())?.1.token)?);
    }
    let first = &sessions[0];
    let kind = "O".to_owned();
    let new = NewTeam { name: "bench".to_owned(), display_name: "Bench".to_owned(), kind, ..NewTeam::default() };
    let team = core.create_team(first, &new)?.id;
    let mut users = Vec::new();
    for session in &sessions {
        if session.user_id != first.user_id {
            core.add_team_member(first, team, session.user_id)?;
        }
        let token = core.create_token(session, session.user_id, "bench")?.token;
        users.push(User { id: session.user_id.to_string(), token });
    }
    let mut channels = Vec::new();
    for n in 0..plan.channels {
        let new = NewChannel {
            team_id: team.to_string(),
            name: format!("net-{n}"),
            display_name: format!("Net {n}"),
            kind: "O".to_owned(),
            ..NewChannel::default()
        };
        let channel = core.create_channel(first, &new)?.id;
        for user in plan.members(n) {
            core.add_channel_member(first, channel, sessions[user].user_id)?;
        }
        channels.push(channel);
    }
    let since = Stopwatch::start();
    let (mut seq, mut batch) = (Some(Seq::FIRST), Vec::with_capacity(BATCH));
    let hybrid = HybridClock::default();
    let mut written = 0;
    loop {
        let said = mission.next();
        if let Some(said) = &said {
            clock.0.store(said.at, Ordering::SeqCst);
            let number = seq.ok_or("the numbers ran out")?;
            let at = hybrid.tick(UnixMillis(said.at));
            let state =
                state_of(said, Version { at, by: ELSEWHERE }, channels[said.channel], sessions[said.author].user_id);
            let id = EntryId { origin: ELSEWHERE, epoch: Epoch::FIRST, seq: number };
            batch.push(Incoming { id, event: Event::Post(state), content: None });
            seq = number.next();
        }
        if batch.len() == BATCH || said.is_none() {
            written += batch.len();
            core.replica().apply(std::mem::take(&mut batch))?;
            if written % 100_000 == 0 || said.is_none() {
                let rate = written as f64 / since.elapsed().as_secs_f64();
                tell(&format!("holdfast: {written} of {} posts, {rate:.0} per second", plan.posts));
            }
        }
        if said.is_none() {
            break;
        }
    }
    // People have read what was said.
    for (n, session) in sessions.iter().enumerate() {
        let own: Vec<_> = plan.channels_of(n).into_iter().map(|channel| channels[channel]).collect();
        core.mark_channels_read(session, session.user_id, &own)?;
        core.read_all_threads(session, session.user_id, team)?;
    }
    Ok(Filled {
        plan,
        team: team.to_string(),
        channels: channels.iter().map(ToString::to_string).collect(),
        names: mission.names().to_vec(),
        users,
    })
}

fn state_of(said: &Said, version: Version, channel_id: model::Id, user_id: model::Id) -> PostState {
    PostState {
        version,
        id: said.id,
        channel_id,
        user_id,
        root_id: said.root,
        create_at: UnixMillis(said.at),
        update_at: UnixMillis(said.at),
        edit_at: UnixMillis(0),
        delete_at: UnixMillis(0),
        message: said.text.clone(),
        kind: String::new(),
        props: String::new(),
        hashtags: String::new(),
        is_pinned: false,
        files: Vec::new(),
        priority: None,
    }
}
