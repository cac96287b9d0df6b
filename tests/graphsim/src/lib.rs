//! A simulator of Entra ID and Microsoft Graph for tests: stricter than the services, never laxer.
//!
//! ```text
//!                 +-- login  (TLS) -- entra  --+
//! what is tested -+-- graph  (TLS) -- graph  --+-- World: one lock, one clock, one seed -- Oracle
//!                 +-- upload (TLS) -- files  --+        ^
//!                 +-- abroad (TLS) ------------+        +-- the test: apps, users, teams, failures
//! ```
//!
//! Invariants
//! - What is tested knows base addresses, a certificate authority and credentials, and nothing else of the simulator.
//! - An effect is committed whole or not at all, before a byte of its answer leaves.
//! - The oracle is append-only; a rule that was broken stays in it.
//! - A rule that is not the service's own, or that an official client cannot bear, has a name and may be relaxed by it.
//!
//! Not here: anything that knows Holdfast. Start reading at [`Sim::start`]; README.md lists what is simulated and how sure
//! we are of it.

mod clock;
mod control;
mod entra;
mod faults;
mod graph;
mod http;
mod openapi;
mod oracle;
mod pki;
mod quickxor;
mod serve;
mod settings;
mod things;
mod world;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use clock::{DAY, Millis, Time, iso};
pub use faults::{Failure, FaultRule};
pub use graph::rows;
pub use openapi::{Contract, ContractError};
pub use oracle::{Effect, Oracle, Rule, Seen, Violation, What};
pub use pki::{Credential, PkiError};
pub use settings::{Cloud, Lag, Limits, Names, Relaxation, Settings};
pub use things::{App, Chat, Group, Secret, Team, TeamMade, TeamsApp, User};

use clock::Clock;
use pki::Pki;
use serve::{Host, Shared};
use world::{Urls, World};

/// The simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No port or no thread.
    #[error("no port could be opened: {0}")]
    Io(#[from] io::Error),
    /// No key or certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The OpenAPI subset was named and is not usable.
    #[error(transparent)]
    Contract(#[from] ContractError),
}

/// A running simulator; it ends when this is dropped.
pub struct Sim {
    shared: Arc<Shared>,
    urls: Urls,
    ca_pem: String,
    control: Option<String>,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Sim {
    /// Opens its ports, on loopback unless it is named otherwise, and serves them from threads of its own, so that a test may block.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        Self::started(settings, false)
    }

    /// The same with a control port, for tests in other languages.
    pub fn start_with_control(settings: Settings) -> Result<Self, StartError> {
        Self::started(settings, true)
    }

    fn started(settings: Settings, controlled: bool) -> Result<Self, StartError> {
        let contract = settings.subset.as_deref().map(Contract::read).transpose()?;
        let Names { services, elsewhere } = &settings.names;
        let pki = Pki::new(&[services, elsewhere])?;
        let hosts = [Host::Login, Host::Graph, Host::Upload, Host::Abroad];
        let names = [services, services, elsewhere, elsewhere];
        let (mut listeners, mut urls) = (Vec::new(), Vec::new());
        for name in names {
            let listener = listen(name)?;
            urls.push(format!("https://{name}:{}", listener.local_addr()?.port()));
            listeners.push(listener);
        }
        let [login, graph, upload, abroad] = urls.try_into().expect("one for each host");
        let urls = Urls { login, graph, upload, abroad };
        let clock = Arc::new(Clock::new(settings.time.clone()));
        let world = World::new(settings, clock, urls.clone())?;
        let shared = Arc::new(Shared { world: std::sync::Mutex::new(world), contract });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("graphsim")
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        for (host, listener) in hosts.into_iter().zip(listeners) {
            let port = serve::accept(host, listener, Some(Arc::clone(&pki.server)), Arc::clone(&shared), stop.clone());
            runtime.handle().spawn(port);
        }
        let control = if controlled {
            let listener = listen("127.0.0.1")?;
            let url = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
            runtime.handle().spawn(control::accept(listener, Arc::clone(&shared), stop.clone()));
            Some(url)
        } else {
            None
        };
        Ok(Self { shared, urls, ca_pem: pki.ca_pem, control, stop, runtime: Some(runtime) })
    }

    /// Base address of Entra ID, such as `https://localhost:...`.
    pub fn login_url(&self) -> &str {
        &self.urls.login
    }

    /// Base address of Graph, without `/v1.0`; also the resource that tokens are asked for.
    pub fn graph_url(&self) -> &str {
        &self.urls.graph
    }

    /// Base address of uploads and downloads.
    pub fn upload_url(&self) -> &str {
        &self.urls.upload
    }

    /// A host that is none of Microsoft's; whatever token arrives there is a leak.
    pub fn abroad_url(&self) -> &str {
        &self.urls.abroad
    }

    /// Base address of the control port, if there is one.
    pub fn control_url(&self) -> Option<&str> {
        self.control.as_deref()
    }

    /// The authority that clients must trust, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Tenant id.
    pub fn tenant(&self) -> String {
        self.shared.world().tenant.clone()
    }

    /// Registers an app; its client id. Fails where a certificate is none.
    pub fn add_app(&self, app: App) -> Result<String, String> {
        self.shared.world().put_app(app)
    }

    /// Changes an app that is registered, or says `false`.
    pub fn change_app(&self, id: &str, change: impl FnOnce(&mut App)) -> bool {
        self.shared.world().entra.apps.get_mut(id).map(change).is_some()
    }

    /// Adds a user; the object id.
    pub fn add_user(&self, user: User) -> String {
        self.shared.world().put_user(user)
    }

    /// Adds a group; the object id.
    pub fn add_group(&self, group: Group) -> String {
        self.shared.world().put_group(group)
    }

    /// Changes properties of a user or group; null clears one. `accountEnabled: false` disables a user.
    pub fn change_object(&self, id: &str, properties: Map<String, Value>) -> Result<(), String> {
        self.shared.world().change_object(id, properties)
    }

    /// Deletes a user or group, for thirty days or for good.
    pub fn delete_object(&self, id: &str, for_good: bool) -> Result<(), String> {
        self.shared.world().delete_object(id, for_good)
    }

    /// Takes a user or group out of the recycle bin.
    pub fn restore_object(&self, id: &str) -> Result<(), String> {
        self.shared.world().restore_object(id)
    }

    /// Puts a member into a group or takes one out.
    pub fn set_group_member(&self, group: &str, member: &str, present: bool) -> Result<(), String> {
        self.shared.world().set_member(group, member, present)
    }

    /// The next use of a directory delta token is answered with 410 and a `Location`.
    pub fn move_directory(&self) {
        self.shared.world().directory.moved = true;
    }

    /// Adds a team with channels, a site and a drive.
    pub fn add_team(&self, team: Team) -> TeamMade {
        self.shared.world().put_team(team)
    }

    /// Puts a user into a team or takes one out, at once.
    pub fn set_team_member(&self, team: &str, user: &str, present: bool) -> Result<(), String> {
        self.shared.world().set_team_member(team, user, present)
    }

    /// Adds a chat; its id.
    pub fn add_chat(&self, chat: Chat) -> String {
        self.shared.world().put_chat(chat)
    }

    /// The bytes of a file, by its path in a drive.
    pub fn file(&self, drive: &str, path: &str) -> Option<Bytes> {
        self.shared.world().file_at(drive, path)
    }

    /// What was committed, asked and broken until now.
    pub fn oracle(&self) -> Oracle {
        self.shared.world().oracle.clone()
    }

    /// Lets something fail.
    pub fn fail(&self, rule: FaultRule) {
        self.shared.world().faults.push(rule);
    }

    /// How often a failure has happened until now, by the name of its kind in JSON. One that stalls has begun then and goes on.
    pub fn happened(&self, kind: &str) -> usize {
        let world = self.shared.world();
        world.oracle.requests.iter().filter(|seen| seen.failure.as_deref() == Some(kind)).count()
    }

    /// Forgets every failure that has not happened yet.
    pub fn heal(&self) {
        self.shared.world().faults.clear();
    }

    /// Simulated time, in milliseconds since 1970.
    pub fn now(&self) -> Millis {
        self.shared.world().now()
    }

    /// Puts simulated time ahead.
    pub fn advance(&self, by: Duration) {
        self.shared.world().clock.advance(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    }

    /// From now on the `Date` of answers is wrong by so many milliseconds.
    pub fn date_off_by(&self, ms: i64) {
        self.shared.world().date_off_ms = ms;
    }

    /// Publishes a new signing key, which signs from now on, and withdraws the oldest.
    pub fn rotate_keys(&self) -> Result<(), PkiError> {
        self.shared.world().entra.rotate_keys()
    }

    /// Voids a user's sign-ins and, where the client announced that it understands challenges, access tokens too.
    pub fn revoke_user(&self, user: &str) {
        self.shared.world().revoke_user(user);
    }

    /// Challenges an app's tokens for itself from now on, where it announced that it understands that.
    pub fn revoke_app(&self, app: &str) {
        self.shared.world().revoke_app(app);
    }

    /// The token that Teams gives a tab: a user's, for the app. `None` where either is not known.
    pub fn tab_token(&self, user: &str, app: &str) -> Option<String> {
        self.shared.world().tab_token(user, app)
    }

    /// A user enters a device's code and signs in, with a second factor, or declines.
    pub fn answer_device(&self, user_code: &str, user: &str, declined: bool) -> Result<(), &'static str> {
        self.shared.world().answer_device(user_code, user, true, declined)
    }

    /// Rules that are switched off, by name; every report prints them.
    pub fn relaxed(&self) -> Vec<Relaxation> {
        self.shared.world().settings.relaxed.iter().copied().collect()
    }

    /// Whether answers and requests are held against the OpenAPI subset.
    pub fn validates(&self) -> bool {
        self.shared.contract.is_some()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(name: &str) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = (name, 0).to_socket_addrs()?.filter(SocketAddr::is_ipv4).collect();
    let listener = TcpListener::bind(&addresses[..])?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
