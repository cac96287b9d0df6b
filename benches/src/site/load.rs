//! Users at work: sockets that listen, and requests at the pace of people or as fast as they are answered.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use hyper::Method;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::ClientRequestBuilder;

use super::mission::Plan;
use crate::Error;
use crate::clock::Stopwatch;
use crate::link::api::{Api, User};
use crate::report::{percentile, tell};

/// One post in so many of a user's is an answer to the last root of the channel.
const REPLY_SHARE: f64 = 0.35;

/// A server that is measured.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Host and port.
    pub(crate) at: String,
    pub(crate) plan: Plan,
    pub(crate) team: String,
    /// By the mission's numbers, as the users.
    pub(crate) channels: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) users: Vec<User>,
    /// Whose memory it is; none where it cannot be told.
    pub(crate) processes: Vec<u32>,
}

impl Target {
    /// Resident megabytes (10^6), pages that processes share counted once.
    pub(crate) fn memory_mb(&self) -> Option<f64> {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let kb: Vec<f64> = self.processes.iter().filter_map(of).collect();
        (!kb.is_empty()).then(|| kb.iter().sum::<f64>() * 1024.0 / 1e6)
    }
}

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    CreatePost,
    LoadChannel,
    Search,
}

impl Deed {
    pub(crate) const ALL: [Self; 3] = [Self::CreatePost, Self::LoadChannel, Self::Search];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CreatePost => "create post",
            Self::LoadChannel => "load channel",
            Self::Search => "search",
        }
    }

    /// How long a user takes from one to the next.
    fn pause(self) -> Duration {
        Duration::from_secs(match self {
            Self::CreatePost => 20,
            Self::LoadChannel => 10,
            Self::Search => 60,
        })
    }

    /// How many do it at once where nobody pauses.
    fn at_once(self) -> usize {
        match self {
            Self::CreatePost => 32,
            Self::LoadChannel => 8,
            Self::Search => 4,
        }
    }
}

/// What became of one kind of deed.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) done: usize,
    pub(crate) failed: u64,
}

#[derive(Default)]
struct Record {
    ms: Mutex<Vec<f64>>,
    failed: AtomicU64,
}

impl Record {
    fn note(&self, took: Duration, outcome: &Result<(), Error>) {
        match outcome {
            Ok(()) => self.ms.lock().unwrap_or_else(PoisonError::into_inner).push(took.as_secs_f64() * 1e3),
            Err(error) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tell(&format!("failed: {error}"));
                }
            }
        }
    }

    fn timings(&self, span: Duration) -> Timings {
        let mut ms = std::mem::take(&mut *self.ms.lock().unwrap_or_else(PoisonError::into_inner));
        ms.sort_by(f64::total_cmp);
        Timings {
            per_second: ms.len() as f64 / span.as_secs_f64(),
            p50_ms: percentile(&ms, 50),
            p99_ms: percentile(&ms, 99),
            done: ms.len(),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// Everybody who is online.
pub(crate) struct Crowd {
    target: Arc<Target>,
    api: Arc<Api>,
    /// Last root post of each channel that the crowd wrote.
    roots: Arc<Vec<Mutex<String>>>,
    heard: Arc<AtomicU64>,
    sockets: JoinSet<()>,
    lost: Arc<AtomicU64>,
}

impl Crowd {
    /// Connects everybody, `sockets` for each.
    pub(crate) async fn gather(target: Arc<Target>, sockets: usize) -> Result<Self, Error> {
        let roots = target.channels.iter().map(|_| Mutex::default()).collect();
        let mut crowd = Self {
            api: Arc::new(Api::at(&target.at)),
            target,
            roots: Arc::new(roots),
            heard: Arc::default(),
            sockets: JoinSet::new(),
            lost: Arc::default(),
        };
        for user in crowd.target.users.iter().flat_map(|user| std::iter::repeat_n(user, sockets)) {
            let uri = format!("ws://{}/api/v4/websocket", crowd.target.at).parse()?;
            let request = ClientRequestBuilder::new(uri).with_header("Authorization", format!("Bearer {}", user.token));
            let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
            let (heard, lost) = (Arc::clone(&crowd.heard), Arc::clone(&crowd.lost));
            crowd.sockets.spawn(async move {
                while let Some(Ok(_)) = socket.next().await {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
                lost.fetch_add(1, Ordering::Relaxed);
            });
        }
        Ok(crowd)
    }

    /// Sockets that are open, and frames that came so far.
    pub(crate) fn sockets(&self) -> (u64, u64) {
        let open = self.sockets.len() as u64 - self.lost.load(Ordering::Relaxed);
        (open, self.heard.load(Ordering::Relaxed))
    }

    /// Everybody at the pace of people, times `haste`, for so long. What is late is timed from when it was due.
    pub(crate) async fn live(&self, span: Duration, haste: u32) -> [Timings; 3] {
        let records: [Arc<Record>; 3] = Default::default();
        let begun = Stopwatch::start();
        let mut people = JoinSet::new();
        for user in 0..self.target.users.len() {
            for (deed, record) in Deed::ALL.into_iter().zip(&records) {
                let (mut actor, record) = (self.actor(user, deed), Arc::clone(record));
                let pause = deed.pause() / haste;
                people.spawn(async move {
                    let mut due = pause.mul_f64(actor.rng.random_range(0.0..1.0));
                    while due < span {
                        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
                        let outcome = actor.act().await;
                        record.note(begun.elapsed().saturating_sub(due), &outcome);
                        due += pause;
                    }
                });
            }
        }
        while people.join_next().await.is_some() {}
        records.map(|record| record.timings(span.max(begun.elapsed())))
    }

    /// Some users, each as fast as they are answered.
    pub(crate) async fn rush(&self, deed: Deed, span: Duration) -> Timings {
        let record = Arc::new(Record::default());
        let over = Arc::new(AtomicBool::new(false));
        let begun = Stopwatch::start();
        let mut people = JoinSet::new();
        for user in 0..deed.at_once().min(self.target.users.len()) {
            let (mut actor, record, over) = (self.actor(user, deed), Arc::clone(&record), Arc::clone(&over));
            people.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let since = Stopwatch::start();
                    let outcome = actor.act().await;
                    record.note(since.elapsed(), &outcome);
                }
            });
        }
        tokio::time::sleep(span).await;
        over.store(true, Ordering::Relaxed);
        while people.join_next().await.is_some() {}
        record.timings(begun.elapsed())
    }

    fn actor(&self, user: usize, deed: Deed) -> Actor {
        Actor {
            target: Arc::clone(&self.target),
            api: Arc::clone(&self.api),
            roots: Arc::clone(&self.roots),
            user,
            channels: self.target.plan.channels_of(user),
            deed,
            rng: ChaCha8Rng::seed_from_u64(user as u64 * 8 + deed as u64),
        }
    }
}

/// One user doing one kind of thing.
struct Actor {
    target: Arc<Target>,
    api: Arc<Api>,
    roots: Arc<Vec<Mutex<String>>>,
    user: usize,
    channels: Vec<usize>,
    deed: Deed,
    rng: ChaCha8Rng,
}

impl Actor {
    async fn act(&mut self) -> Result<(), Error> {
        let channel = self.channels[self.rng.random_range(0..self.channels.len())];
        match self.deed {
            Deed::CreatePost => self.create_post(channel).await,
            Deed::LoadChannel => self.load_channel(channel).await,
            Deed::Search => self.search(channel).await,
        }
    }

    fn me(&self) -> &User {
        &self.target.users[self.user]
    }

    async fn create_post(&mut self, channel: usize) -> Result<(), Error> {
        let last = || self.roots[channel].lock().unwrap_or_else(PoisonError::into_inner);
        let root = if self.rng.random_bool(REPLY_SHARE) { last().clone() } else { String::new() };
        let other = &self.target.names[self.rng.random_range(0..self.target.names.len())];
        let message = match self.rng.random_range(0..10) {
            0 => format!("@{other} what is your ETA at the LRP?"),
            1..4 => "roger".to_owned(),
            _ => {
                format!("{other} this is me, bridge intact at 35VLG {:05}. Will update.", self.rng.next_u32() % 100_000)
            }
        };
        let body = json!({"channel_id": self.target.channels[channel], "message": message, "root_id": root});
        let id = self.api.post(self.me(), "/posts", body).await?;
        if root.is_empty() {
            *last() = id;
        }
        Ok(())
    }

    /// What a client asks for when its user opens a channel; it asks for all of it at once.
    async fn load_channel(&self, channel: usize) -> Result<(), Error> {
        let (me, team, channel) = (&self.me().id, &self.target.team, &self.target.channels[channel]);
        let view = json!({"channel_id": channel, "prev_channel_id": ""});
        let collapsed = "skipFetchThreads=false&collapsedThreads=true&collapsedThreadsExtended=false";
        let get = |path: String| (Method::GET, path, None);
        let requests: [(Method, String, Option<&Value>); 6] = [
            get(format!("/users/{me}/channels/{channel}/posts/unread?limit_before=30&limit_after=30&{collapsed}")),
            get(format!("/channels/{channel}/members?page=0&per_page=60")),
            get(format!("/channels/{channel}/stats")),
            get(format!("/users/{me}/channels/{channel}/unread")),
            get(format!("/users/{me}/teams/{team}/threads?per_page=25&extended=false&deleted=false")),
            (Method::POST, format!("/channels/members/{me}/view"), Some(&view)),
        ];
        let calls = requests
            .into_iter()
            .map(|(method, path, body)| async move { self.api.call(self.me(), method, &path, body).await });
        try_join_all(calls).await.map(drop)
    }

    async fn search(&mut self, channel: usize) -> Result<(), Error> {
        let other = &self.target.names[self.rng.random_range(0..self.target.names.len())];
        let terms = match self.rng.random_range(0..6) {
            0 => "bridge intact".to_owned(),
            1 => "\"mortar impact\"".to_owned(),
            2 => format!("from:{other} sitrep"),
            3 => format!("in:net-{channel} medevac"),
            4 => format!("{:05}", self.rng.random_range(0..100_000)),
            _ => "quadcopter -roger".to_owned(),
        };
        let body = json!({"terms": terms, "is_or_search": false, "page": 0, "per_page": 20});
        let path = format!("/teams/{}/posts/search", self.target.team);
        self.api.call(self.me(), Method::POST, &path, Some(&body)).await.map(drop)
    }
}
