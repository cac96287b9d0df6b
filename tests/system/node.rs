//! One real process of the `holdfast` binary with its own directory, driven by its command line as an operator would.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use toml::Table;

use crate::http::{User, plain_answer};
use crate::thin_link::ThinLink;
use crate::world::PASSWORD;

/// A node starts within this time even when it rebuilds its index on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A clean stop syncs and closes; the unit files allow the same.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// accepted = the sum of the others, at every moment.
const TERMS: [&str; 8] = ["accepted", "applied", "held", "quarantined", "expired", "superseded", "withheld", "purged"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Edge,
    Hub,
}

impl Role {
    fn verb(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Hub => "hub",
        }
    }
}

/// A node's directory and, while it runs, its process.
pub(crate) struct Node {
    role: Role,
    name: String,
    root: TempDir,
    child: Option<Child>,
    api: SocketAddr,
    link: SocketAddr,
    metrics: SocketAddr,
    starts: u32,
    /// For the process, from its next start on.
    pub(crate) environment: Vec<(String, String)>,
    /// The link at whose near end the process runs, from its next start on.
    behind: Option<Arc<ThinLink>>,
}

impl Node {
    /// Makes a directory with `holdfast init`: everything is released, addresses are free ports of this machine.
    pub(crate) fn init(role: Role, name: &str, rate: &str) -> Self {
        Self::init_on(role, name, rate, |_| {})
    }

    /// The same, in a data directory that `prepare` gets to see while it is empty.
    pub(crate) fn init_on(role: Role, name: &str, rate: &str, prepare: impl FnOnce(&Path)) -> Self {
        let root = tempfile::Builder::new().prefix(&format!("holdfast-{name}-")).tempdir().expect("a directory");
        let [api, link, metrics] = [free_port(), free_port(), free_port()];
        let node = Self {
            role,
            name: name.to_owned(),
            root,
            child: None,
            api,
            link,
            metrics,
            starts: 0,
            environment: Vec::new(),
            behind: None,
        };
        fs::create_dir(node.data_dir()).expect("a directory");
        prepare(&node.data_dir());
        let (api, metrics, listen) = (api.to_string(), metrics.to_string(), link.to_string());
        let admin = node.admin_name();
        let mut args = vec!["init", "--role", role.verb(), "--name", name, "--admin", &admin, "--release", "all"];
        args.extend(["--api-listen", &api, "--metrics-listen", &metrics]);
        if role == Role::Hub {
            args.extend(["--listen", &listen]);
        }
        let done = node.run(&args);
        assert!(done.status.success(), "init: {}", said(&done));
        node.configure(|config| {
            set(config, "carrier", "rate", rate);
            // Small enough that segments are sealed, indexed and trimmed within a test.
            set(config, "journal", "segment_bytes", "1MiB");
        });
        node
    }

    /// Changes the configuration of a stopped node.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Table)) {
        let path = self.config_path();
        let mut config: Table = fs::read_to_string(&path).expect("the configuration").parse().expect("it is TOML");
        change(&mut config);
        fs::write(&path, config.to_string()).expect("the configuration is written");
    }

    /// From its next start on the process knows nothing but the link; what it serves is reached from here as before.
    pub(crate) fn move_behind(&mut self, link: &Arc<ThinLink>) {
        link.reaches([self.api, self.metrics]);
        self.behind = Some(Arc::clone(link));
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.starts += 1;
        let log = File::create(self.log_path()).expect("a log file");
        let mut command = self.command(&[self.role.verb()]);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log);
        let child = match &self.behind {
            Some(link) => link.near(|| command.spawn()),
            None => command.spawn(),
        };
        self.child = Some(child.expect("the binary starts"));
        let deadline = Instant::now() + START_TIME_MAX;
        while !self.is_ready().await {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok()).flatten();
            assert!(ended.is_none(), "{} ended at start: {ended:?}\n{}", self.name, self.last_words());
            assert!(Instant::now() < deadline, "{} not ready\n{}", self.name, self.last_words());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// kill -9. A process that has died already is fine.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) async fn kill_and_restart(&mut self) {
        self.kill();
        self.start().await;
    }

    /// SIGTERM, then waits for a clean end.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill exists");
        assert!(sent.success());
        let deadline = Instant::now() + STOP_TIME_MAX;
        let status: ExitStatus = loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{} did not stop within {STOP_TIME_MAX:?}\n{}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{} ended with {status}\n{}", self.name, self.last_words());
    }

    /// Stops the node, changes its configuration and starts it again.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Table)) {
        self.stop().await;
        self.configure(change);
        self.start().await;
    }

    /// Where users and the tests reach the core.
    pub(crate) fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where a hub listens for edges.
    pub(crate) fn link_address(&self) -> SocketAddr {
        self.link
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The administrator of this node.
    pub(crate) async fn admin(&self) -> User {
        User::sign_in(self.api, &self.admin_name(), PASSWORD).await.expect("the administrator signs in")
    }

    pub(crate) fn admin_name(&self) -> String {
        format!("{}-admin", self.name)
    }

    /// A one-time token for an edge that reaches this hub at `address`.
    pub(crate) fn invite(&self, name: &str, address: SocketAddr) -> String {
        self.invite_valid_for(name, address, "1h")
    }

    pub(crate) fn invite_valid_for(&self, name: &str, address: SocketAddr, time: &str) -> String {
        let address = address.to_string();
        let done = self.run(&["enroll", "invite", name, "--address", &address, "--valid", time, "--json"]);
        assert!(done.status.success(), "invite: {}", said(&done));
        let answer: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Enrols at the hub that issued the token.
    pub(crate) fn join(&self, token: &str) {
        let done = self.run(&["enroll", "join", token]);
        assert!(done.status.success(), "join: {}", said(&done));
    }

    /// `holdfast status --json`.
    pub(crate) fn status(&self) -> Option<Value> {
        let done = self.run(&["status", "--json"]);
        serde_json::from_slice(&done.stdout).ok()
    }

    /// Entries that have no final receipt yet, rows that are not captured included; `None` while nobody answers.
    pub(crate) fn held(&self) -> Option<u64> {
        self.equation_if_running().map(|e| number(&e, "held"))
    }

    /// The terms of the equation, summed over the destinations.
    pub(crate) fn equation(&self) -> Value {
        self.equation_if_running().unwrap_or_else(|| panic!("{} gives no status\n{}", self.name, self.last_words()))
    }

    /// accepted = applied + held + quarantined + expired + superseded + withheld + purged, and nothing quarantined.
    pub(crate) fn assert_balanced(&self) {
        let equation = self.equation();
        let sum: u64 = TERMS.iter().filter(|t| **t != "accepted").map(|t| number(&equation, t)).sum();
        assert_eq!(number(&equation, "accepted"), sum, "{}: {equation}", self.name);
        assert_eq!(number(&equation, "quarantined"), 0, "{}: {equation}", self.name);
    }

    /// The node's present numbering.
    pub(crate) fn epoch(&self) -> u64 {
        let status = self.status().unwrap_or_else(|| panic!("{} gives no status", self.name));
        status["node"]["epoch"].as_u64().unwrap_or_else(|| panic!("no epoch in {status}"))
    }

    /// Reads every frame of the journal and checks it.
    pub(crate) fn verify_journal(&self) {
        let done = self.run(&["journal", "verify"]);
        assert!(done.status.success(), "journal verify: {}", said(&done));
    }

    /// Nothing may leave from the moment this returns.
    pub(crate) fn silence(&self) {
        let done = self.run(&["link", "silence"]);
        assert!(done.status.success(), "link silence: {}", said(&done));
    }

    pub(crate) fn resume(&self) {
        let done = self.run(&["link", "resume"]);
        assert!(done.status.success(), "link resume: {}", said(&done));
    }

    /// Waits until the session with the peer is up.
    pub(crate) async fn connected(&self) {
        let deadline = Instant::now() + START_TIME_MAX;
        while !self.is_connected() {
            assert!(Instant::now() < deadline, "{} is not connected\n{}", self.name, self.last_words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has tried for a while and is still not connected.
    pub(crate) async fn stays_unconnected(&self) {
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!self.is_connected(), "{} was let in", self.name);
        }
    }

    /// Fails to join with this token, is told why and what to do, and is as it was.
    pub(crate) fn is_refused(&self, invite: &str) -> String {
        let done = self.run(&["enroll", "join", invite]);
        assert!(!done.status.success(), "{} was let in", self.name);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(text.contains("next step:"), "no next step: {text}");
        text
    }

    /// Takes over another node's list of peers, but not its key.
    pub(crate) fn copy_enrolment_of(&self, other: &Self) {
        let place = |node: &Self| node.data_dir().join("keys/peers.json");
        fs::copy(place(other), place(self)).expect("the other node is enrolled");
    }

    /// The sled directory.
    pub(crate) fn index_dir(&self) -> PathBuf {
        self.data_dir().join("journal/index")
    }

    /// The segment file that is written last.
    pub(crate) fn newest_segment(&self) -> PathBuf {
        let dir = self.data_dir().join("journal/segments");
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)
            .expect("the journal's directory")
            .map(|e| e.expect("an entry").path())
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        files.sort();
        files.pop().unwrap_or_else(|| panic!("no segment in {}", dir.display()))
    }

    /// Copies the stopped node's directory.
    pub(crate) fn snapshot(&self) -> TempDir {
        assert!(self.child.is_none(), "a snapshot of a running node is another test");
        let target = tempfile::tempdir().expect("a directory");
        copy(&self.data_dir(), target.path());
        target
    }

    /// Puts an earlier copy in the place of the stopped node's directory.
    pub(crate) fn restore(&self, snapshot: &TempDir) {
        assert!(self.child.is_none(), "a running node holds its files");
        fs::remove_dir_all(self.data_dir()).expect("the directory is removed");
        copy(snapshot.path(), &self.data_dir());
    }

    /// Puts the journal of an earlier copy beside the present core of the stopped node.
    pub(crate) fn restore_journal(&self, snapshot: &TempDir) {
        assert!(self.child.is_none(), "a running node holds its files");
        let journal = self.data_dir().join("journal");
        fs::remove_dir_all(&journal).expect("the journal is removed");
        copy(&snapshot.path().join("journal"), &journal);
    }

    /// A second machine made from a copy of this node's directory, with addresses of its own.
    pub(crate) fn twin(&self, snapshot: &TempDir) -> Self {
        let twin = Self::init(self.role, &self.name, "1Mbit/s");
        twin.restore(snapshot);
        let (api, metrics) = (twin.api.to_string(), twin.metrics.to_string());
        twin.configure(|config| {
            set(config, "api", "listen", api);
            set(config, "metrics", "listen", metrics);
        });
        twin
    }

    /// `status` says this somewhere.
    pub(crate) fn complains_of(&self, text: &str) -> bool {
        self.status().is_some_and(|status| status.to_string().contains(text))
    }

    /// The process has written this since its start.
    pub(crate) fn logged(&self, text: &str) -> bool {
        fs::read_to_string(self.log_path()).is_ok_and(|log| log.contains(text))
    }

    /// What a supervisor would be told.
    pub(crate) async fn is_healthy(&self) -> bool {
        plain_answer(self.metrics, "/healthz").await.0 == 200
    }

    /// The running process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// A path beside the data, removed with the node.
    pub(crate) fn path_for(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn is_connected(&self) -> bool {
        let Some(status) = self.status() else { return false };
        status["peers"].as_array().is_some_and(|peers| peers.iter().any(|p| p["link"]["state"] == "up"))
    }

    fn equation_if_running(&self) -> Option<Value> {
        let status = self.status().filter(|s| s["running"] == true)?;
        let mut sum = serde_json::Map::new();
        for term in TERMS {
            let terms = status["peers"].as_array()?.iter().map(|peer| peer["outbound"][term].as_u64().unwrap_or(0));
            sum.insert(term.to_owned(), Value::from(terms.sum::<u64>()));
        }
        Some(sum.into())
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// How the node is, and what the process wrote since its last start.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let from = text.char_indices().rev().nth(8_000).map_or(0, |(at, _)| at);
        let status = self.run(&["status", "--json"]).stdout;
        let status = String::from_utf8_lossy(&status);
        format!("-- status of {}:\n{status}-- log since start {}:\n{}", self.name, self.starts, &text[from..])
    }

    /// Runs a verb in this node's directory.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Begins a verb that goes on for a while; its output can be read meanwhile.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).spawn().expect("the binary runs")
    }

    /// Tries to start a second process beside the running one.
    pub(crate) async fn run_a_second(&self) -> Output {
        let mut command = tokio::process::Command::from(self.command(&[self.role.verb()]));
        command.kill_on_drop(true);
        tokio::time::timeout(START_TIME_MAX, command.output()).await.expect("it ends by itself").expect("it runs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.arg("--data").arg(self.data_dir()).args(args).stdin(Stdio::null());
        command.env("HOLDFAST_PASSWORD", PASSWORD);
        command
    }

    fn config_path(&self) -> PathBuf {
        self.data_dir().join("holdfast.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("process.log")
    }

    async fn is_ready(&self) -> bool {
        User::anonymous(self.api).get("/system/ping").await.is_ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port below the range that the system hands out by itself, so that nothing takes it while a killed node is down.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    /// Test binaries that run side by side begin apart from each other.
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::SeqCst));
        let port = FIRST + (std::process::id().wrapping_mul(131) + step) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Sets one key of the configuration.
pub(crate) fn set(config: &mut Table, section: &str, key: &str, value: impl Into<toml::Value>) {
    let section = config.entry(section).or_insert_with(|| Table::new().into());
    section.as_table_mut().expect("a section").insert(key.to_owned(), value.into());
}

fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {object}"))
}

fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Copies a directory with everything in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").map(|e| e.expect("an entry")) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => copy(&source, &target),
            kind if kind.is_file() => drop(fs::copy(&source, &target).expect("a copy")),
            // Sockets belong to a process and not to a snapshot.
            _ => {}
        }
    }
}

/// Releases only this team: everything else keeps the label that no link carries.
pub(crate) fn release_only_team(config: &mut Table, team: &str) {
    let rule = Table::from_iter([
        ("label".to_owned(), toml::Value::from("mission")),
        ("teams".to_owned(), vec![toml::Value::from(team)].into()),
    ]);
    set(config, "capture", "release", vec![toml::Value::from(rule)]);
}
