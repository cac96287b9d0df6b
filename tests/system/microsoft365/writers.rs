//! People who write at an edge through the official client, in one process of it, and what they wrote.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::http::text;
use crate::node::Node;
use crate::world::{PASSWORD, noise};

/// Channels that the mapping names. Each waits for itself when an answer was lost, so that several keep the node at work.
pub(super) const PLACES: [&str; 6] = ["fires", "log-road", "log-air", "medical", "signals", "engineers"];

/// Stands in a channel that no mapping names.
pub(super) const KEPT_BACK: &str = "not for anybody else";

/// Longest wait for the answer to one call: a large file is hashed and made durable first.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// What the official client needs is at hand; else says what is missing.
pub(super) fn official_client_is_here() -> bool {
    let here = std::env::var_os("HOLDFAST_NODE_MODULES").is_some();
    if !here {
        println!(
            "skipped: HOLDFAST_NODE_MODULES is not set; `scripts/test clients` installs the official client and sets it"
        );
    }
    here
}

/// A post as it must stand there in the end.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) id: String,
    pub(super) lane: &'static str,
    pub(super) author: &'static Person,
    /// As the server answered: milliseconds since 1970.
    pub(super) at: u64,
    pub(super) root: Option<String>,
    pub(super) text: String,
    pub(super) before: Option<String>,
    pub(super) gone: bool,
    pub(super) reacted: Option<&'static Person>,
    pub(super) file: Option<Sent>,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// Somebody who writes.
#[derive(Debug)]
pub(super) struct Person {
    name: &'static str,
    first: &'static str,
    last: &'static str,
}

impl Person {
    /// As readers at the enterprise know them.
    pub(super) fn shown(&self) -> String {
        format!("{} {} (@{})", self.first, self.last, self.name)
    }
}

static ANNA: Person = Person { name: "anna", first: "Anna", last: "Köhler" };
static BEN: Person = Person { name: "ben", first: "Ben", last: "Núñez" };

/// The process of the official client, and what its people wrote, in order.
pub(super) struct Writers {
    _process: Child,
    calls: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    files: tempfile::TempDir,
    ben: String,
    /// By name, in the order of [`PLACES`].
    channels: Vec<String>,
    kept_back: String,
    pub(super) written: Vec<Written>,
}

impl Writers {
    /// A team with its channels and people, made by the administrator through the same client.
    pub(super) async fn found(node: &Node) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/javascript/writers.mjs");
        let mut process = Command::new("node")
            .arg(script)
            .env("HOLDFAST_EDGE_URL", format!("http://{}", node.api_address()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let calls = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let files = tempfile::tempdir().expect("a directory");
        let (ben, channels, kept_back, written) = (String::new(), Vec::new(), String::new(), Vec::new());
        let mut writers = Self { _process: process, calls, answers, files, ben, channels, kept_back, written };
        writers.admin("login", json!([node.admin_name(), PASSWORD])).await;
        let team = json!({"name": "task-force", "display_name": "Task Force", "type": "O"});
        let team = writers.admin("createTeam", json!([team])).await;
        let mut people = Vec::new();
        for person in [&ANNA, &BEN] {
            let user = json!({
                "username": person.name, "email": format!("{}@example.mil", person.name), "password": PASSWORD,
                "first_name": person.first, "last_name": person.last,
            });
            let user = writers.admin("createUser", json!([user, "", ""])).await;
            writers.admin("addToTeam", json!([team, user])).await;
            writers.call(person.name, "login", json!([person.name, PASSWORD])).await;
            people.push(user);
        }
        for name in PLACES.iter().chain(&["intel"]) {
            let channel =
                json!({"team_id": team, "name": name, "display_name": name, "type": "O", "purpose": "", "header": ""});
            let channel = writers.admin("createChannel", json!([channel])).await;
            for user in &people {
                writers.admin("addToChannel", json!([user, channel])).await;
            }
            writers.channels.push(channel);
        }
        writers.kept_back = writers.channels.pop().expect("the last is in no mapping");
        writers.ben = people.pop().expect("two people");
        writers
    }

    /// The id of what the administrator makes.
    async fn admin(&mut self, call: &str, args: Value) -> String {
        text(&self.call("admin", call, args).await, "id")
    }

    async fn call(&mut self, person: &str, call: &str, args: Value) -> Value {
        let line = format!("{}\n", json!({"as": person, "call": call, "args": args}));
        self.calls.write_all(line.as_bytes()).await.expect("the client's process reads");
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.answers.next_line()).await.expect("an answer in time");
        let answer: Value =
            serde_json::from_str(&answer.expect("text").expect("the client's process goes on")).expect("JSON");
        assert!(answer["error"].is_null(), "{person}: {}", answer["error"]);
        answer["answer"].clone()
    }

    async fn posts(
        &mut self,
        author: &'static Person,
        lane: usize,
        root: Option<&str>,
        message: String,
        file: Option<Sent>,
    ) -> String {
        let files: Vec<&str> = file.iter().map(|file| file.id.as_str()).collect();
        let root = root.map(str::to_owned);
        let post = json!({
            "channel_id": self.channels[lane], "message": message, "root_id": root.as_deref().unwrap_or_default(),
            "file_ids": files,
        });
        let post = self.call(author.name, "createPost", json!([post])).await;
        let (id, at) = (text(&post, "id"), post["create_at"].as_u64().expect("a moment"));
        let (lane, before, gone, reacted) = (PLACES[lane], None, false, None);
        let written = Written { id: id.clone(), lane, author, at, root, text: message, before, gone, reacted, file };
        self.written.push(written);
        id
    }

    fn next_text(&self) -> String {
        format!("message {:04} über Funk", self.written.len())
    }

    pub(super) async fn says(&mut self, lane: usize) -> String {
        self.posts(&ANNA, lane, None, self.next_text(), None).await
    }

    pub(super) async fn replies(&mut self, lane: usize, root: &str) -> String {
        self.posts(&BEN, lane, Some(root), self.next_text(), None).await
    }

    pub(super) async fn shares(&mut self, lane: usize, bytes: usize) {
        let name = format!("plan{:04}.bin", self.written.len());
        let content = noise(self.written.len() as u64, bytes);
        let path = self.files.path().join(&name);
        std::fs::write(&path, &content).expect("a file");
        let sent = self.call(BEN.name, "uploadFile", json!([self.channels[lane], name, path])).await;
        let id = text(&sent["file_infos"][0], "id");
        self.posts(&BEN, lane, None, format!("file {name}"), Some(Sent { id, name, content })).await;
    }

    pub(super) fn of(&mut self, post: &str) -> &mut Written {
        self.written.iter_mut().find(|written| written.id == post).expect("it was written here")
    }

    pub(super) async fn edits(&mut self, post: &str) {
        let (author, text) = (self.of(post).author, self.of(post).text.replace("message", "correction"));
        self.call(author.name, "patchPost", json!([{"id": post, "message": text}])).await;
        let written = self.of(post);
        written.before = Some(std::mem::replace(&mut written.text, text));
    }

    pub(super) async fn removes(&mut self, post: &str) {
        let author = self.of(post).author;
        self.call(author.name, "deletePost", json!([post])).await;
        self.of(post).gone = true;
    }

    pub(super) async fn reacts(&mut self, post: &str) {
        self.call(BEN.name, "addReaction", json!([self.ben, post, "+1"])).await;
        self.of(post).reacted = Some(&BEN);
    }

    /// Some of everything.
    pub(super) async fn work(&mut self, threads: usize, file_bytes: &[usize]) {
        let mut roots = Vec::new();
        for n in 0..threads {
            let lane = n % PLACES.len();
            let root = self.says(lane).await;
            self.replies(lane, &root).await;
            self.replies(lane, &root).await;
            roots.push(root);
        }
        for (n, bytes) in file_bytes.iter().enumerate() {
            self.shares(n % PLACES.len(), *bytes).await;
        }
        let gone = self.says(0).await;
        self.edits(&roots[0]).await;
        self.reacts(&roots[1]).await;
        self.removes(&gone).await;
        let post = json!({"channel_id": self.kept_back, "message": KEPT_BACK});
        self.call(ANNA.name, "createPost", json!([post])).await;
    }
}
