//! A real Mattermost server with the same corpus, named by environment variables.
//!
//! | variable | is |
//! |---|---|
//! | `HOLDFAST_MATTERMOST` | its address, such as `http://127.0.0.1:8065` |
//! | `HOLDFAST_MATTERMOST_ADMIN` | name and password of a system administrator, such as `admin:Correct-Horse-7` |
//! | `HOLDFAST_MATTERMOST_POSTGRES` | its database for `psql`, such as `postgres://postgres@127.0.0.1:5439/mm`. Without it the posts go through the API, fewer of them |
//!
//! Users, team and channels are made through the API; the posts, what is counted of them and their threads are copied into the
//! tables that the server keeps. They stay there, as does a higher limit of members of a team; measure a server of your own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::StreamExt as _;
use hyper::Method;
use hyper::body::Bytes;
use model::{Clock as _, Id};
use serde_json::{Value, json};

use super::load::Target;
use super::mission::{Mission, Plan};
use crate::Error;
use crate::clock::{Stopwatch, WallClock};
use crate::link::api::{Api, User};
use crate::report::tell;

const PASSWORD: &str = "Correct-Horse-7";

/// Posts that are written through the API where there is no way to the database: some minutes.
const POSTS_BY_API_MAX: u64 = 20_000;

/// Users in one answer, as many as there may be.
const PAGE: usize = 200;

/// Of the addresses of users that a corpus has.
const DOMAIN: &str = "@bench.invalid";

/// More than any corpus has.
const TEAM_MEMBERS_MAX: u32 = 10_000;

/// Calls at once while the corpus is made.
const AT_ONCE: usize = 8;

/// Where the server is.
pub(crate) struct Given {
    at: String,
    admin: (String, String),
    postgres: Option<String>,
}

/// What a filled server is known by.
#[derive(serde::Serialize, serde::Deserialize)]
struct Filled {
    plan: Plan,
    team: String,
    channels: Vec<String>,
    names: Vec<String>,
}

impl Given {
    /// From the environment; `None` where no server is named.
    pub(crate) fn read() -> Result<Option<Self>, Error> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = variable("HOLDFAST_MATTERMOST") else { return Ok(None) };
        let at = url.strip_prefix("http://").ok_or("HOLDFAST_MATTERMOST: only http:// is measured")?;
        let admin = variable("HOLDFAST_MATTERMOST_ADMIN").unwrap_or_default();
        let (name, password) = admin.split_once(':').ok_or("HOLDFAST_MATTERMOST_ADMIN: name:password is missing")?;
        Ok(Some(Self {
            at: at.trim_end_matches('/').to_owned(),
            admin: (name.to_owned(), password.to_owned()),
            postgres: variable("HOLDFAST_MATTERMOST_POSTGRES"),
        }))
    }

    /// The largest corpus that it is given.
    pub(crate) fn posts_max(&self) -> u64 {
        if self.postgres.is_some() { u64::MAX } else { POSTS_BY_API_MAX }
    }

    /// Fills the server unless it was filled before, as noted below `dir`, and signs everybody in.
    pub(crate) async fn start(&self, dir: &Path, plan: Plan) -> Result<Target, Error> {
        let api = Api::at(&self.at);
        let admin = api.sign_in(&self.admin.0, &self.admin.1).await?;
        let note = dir.join(format!("mattermost-{}-{}-{}.json", plan.posts, plan.users, plan.channels));
        let known = fs::read(&note).ok().and_then(|known| serde_json::from_slice::<Filled>(&known).ok());
        let filled = match known {
            Some(known) if api.has(&admin, &format!("/teams/{}", known.team)).await => known,
            _ => {
                let filled = self.fill(&api, &admin, plan).await?;
                fs::create_dir_all(dir)?;
                fs::write(&note, serde_json::to_vec(&filled)?)?;
                filled
            }
        };
        tell(&format!("mattermost: {} users sign in", filled.names.len()));
        let users = futures_util::stream::iter(&filled.names)
            .map(|name| api.sign_in(name, PASSWORD))
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        Ok(Target {
            name: "mattermost",
            at: self.at.clone(),
            plan: filled.plan,
            team: filled.team,
            channels: filled.channels,
            names: filled.names,
            users: users.into_iter().collect::<Result<_, _>>()?,
            processes: processes(),
        })
    }

    async fn fill(&self, api: &Api, admin: &User, plan: Plan) -> Result<Filled, Error> {
        let now = WallClock.now().0;
        let end = now - 60_000;
        // Names of an earlier corpus are taken.
        let mark = now / 1_000 % 1_000_000;
        // A fresh server lets 50 into a team.
        let patch = json!({"TeamSettings": {"MaxUsersPerTeam": TEAM_MEMBERS_MAX}});
        api.call(admin, Method::PUT, "/config/patch", Some(&patch)).await?;
        self.retire(api, admin).await?;
        let body = json!({"name": format!("bench-{mark}"), "display_name": "Bench", "type": "O"});
        let team = api.post(admin, "/teams", body).await?;
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for name in Mission::new(plan, end).names() {
            let name = format!("{name}-{mark}");
            let body = json!({"username": name, "email": format!("{name}{DOMAIN}"), "password": PASSWORD});
            let id = match api.post(admin, "/users", body).await {
                // Without a licence a server takes some 250, its administrator included.
                Err(error) if error.to_string().contains("user_limits.exceeded") && !ids.is_empty() => break,
                made => made?,
            };
            let member = json!({"team_id": team, "user_id": id});
            api.call(admin, Method::POST, &format!("/teams/{team}/members"), Some(&member)).await?;
            ids.push(id);
            names.push(name);
        }
        // Users are named one after the other, so fewer of them have the same names.
        let plan = Plan { users: ids.len(), ..plan };
        let mission = Mission::new(plan, end);
        tell(&format!("mattermost: {} users in {} channels", plan.users, plan.channels));
        let mut channels = Vec::new();
        for n in 0..plan.channels {
            let body =
                json!({"team_id": team, "name": format!("net-{n}"), "display_name": format!("Net {n}"), "type": "O"});
            let channel = api.post(admin, "/channels", body).await?;
            let path = format!("/channels/{channel}/members");
            let added = futures_util::stream::iter(plan.members(n)).map(|user| {
                let body = json!({"user_id": ids[user]});
                let path = &path;
                async move { api.call(admin, Method::POST, path, Some(&body)).await }
            });
            collected::<Bytes>(added).await?;
            channels.push(channel);
        }
        match &self.postgres {
            Some(url) => copy(url, mission, &team, &channels, &ids)?,
            None => say(api, mission, &channels, &names).await?,
        }
        Ok(Filled { plan, team, channels, names })
    }
}

impl Given {
    /// Deactivates the users of earlier corpora: the server counts who is active.
    async fn retire(&self, api: &Api, admin: &User) -> Result<(), Error> {
        let mut retired = Vec::new();
        for page in 0.. {
            let path = format!("/users?active=true&per_page={PAGE}&page={page}");
            let users: Vec<Value> = serde_json::from_slice(&api.call(admin, Method::GET, &path, None).await?)?;
            let ours = |user: &&Value| user["email"].as_str().is_some_and(|email| email.ends_with(DOMAIN));
            retired.extend(users.iter().filter(ours).filter_map(|user| user["id"].as_str().map(str::to_owned)));
            if users.len() < PAGE {
                break;
            }
        }
        for id in retired {
            api.call(admin, Method::DELETE, &format!("/users/{id}"), None).await?;
        }
        Ok(())
    }
}

async fn collected<T>(
    work: impl futures_util::Stream<Item = impl Future<Output = Result<T, Error>>>,
) -> Result<Vec<T>, Error> {
    work.buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
}

/// Posts through the API, each by its author and with the time of now.
async fn say(api: &Api, mission: Mission, channels: &[String], names: &[String]) -> Result<(), Error> {
    let mut users = Vec::new();
    for name in names {
        users.push(api.sign_in(name, PASSWORD).await?);
    }
    let since = Stopwatch::start();
    // Roots by the id that the mission gave them: replies come after.
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut said = Vec::new();
    let all: Vec<_> = mission.collect();
    for (n, post) in all.iter().enumerate() {
        said.push(post);
        let is_last = n + 1 == all.len();
        let root_waits = all.get(n + 1).and_then(|next| next.root).is_some_and(|root| !ids.contains_key(root.as_str()));
        if said.len() < AT_ONCE && !is_last && !root_waits {
            continue;
        }
        let written = futures_util::stream::iter(said.drain(..)).map(|post| {
            let root = post.root.and_then(|root| ids.get(root.as_str()).cloned()).unwrap_or_default();
            let body = json!({"channel_id": channels[post.channel], "message": post.text, "root_id": root});
            let author = &users[post.author];
            async move { Ok((post.id.to_string(), api.post(author, "/posts", body).await?)) }
        });
        ids.extend(collected::<(String, String)>(written).await?);
        if n % 5_000 == 0 || is_last {
            let rate = n as f64 / since.elapsed().as_secs_f64();
            tell(&format!("mattermost: {n} of {} posts, {rate:.0} per second", all.len()));
        }
    }
    Ok(())
}

/// Posts, threads and counts straight into the tables.
fn copy(url: &str, mission: Mission, team: &str, channels: &[String], users: &[String]) -> Result<(), Error> {
    struct Thread {
        replies: u64,
        last: i64,
        participants: Vec<usize>,
        channel: usize,
    }
    let since = Stopwatch::start();
    tell("mattermost: posts are copied into its database");
    let mut child = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("psql (package postgresql-client): {e}"))?;
    let mut sql = BufWriter::new(child.stdin.take().ok_or("psql takes no input")?);
    writeln!(
        sql,
        "COPY posts (id, createat, updateat, editat, deleteat, ispinned, userid, channelid, rootid, originalid, message,
            type, props, hashtags, filenames, fileids, hasreactions, remoteid) FROM STDIN;"
    )?;
    let mut threads: BTreeMap<String, Thread> = BTreeMap::new();
    let mut authors: BTreeMap<String, usize> = BTreeMap::new();
    let mut counts = vec![(0_u64, 0_u64, 0_i64, 0_i64); channels.len()];
    // A corpus of an earlier run may be there, and the mission gives its posts the same ids each time.
    let run = users[0].parse::<Id>()?.to_block().ok_or("the server's ids are not those of Mattermost")?;
    let fresh = |id: Id| {
        let block = id.to_block().expect("the mission's ids hold a block");
        Id::from_block(std::array::from_fn(|at| block[at] ^ run[at]))
    };
    for post in mission {
        let root = post.root.map(|root| fresh(root).to_string()).unwrap_or_default();
        let text = post.text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
        let (user, channel, at) = (&users[post.author], &channels[post.channel], post.at);
        writeln!(
            sql,
            "{}\t{at}\t{at}\t0\t0\tf\t{user}\t{channel}\t{root}\t\t{text}\t\t{{}}\t\t[]\t[]\tf\t",
            fresh(post.id)
        )?;
        let count = &mut counts[post.channel];
        (count.0, count.2) = (count.0 + 1, at);
        if root.is_empty() {
            (count.1, count.3) = (count.1 + 1, at);
            authors.insert(fresh(post.id).to_string(), post.author);
            continue;
        }
        let thread = threads.entry(root).or_insert(Thread {
            replies: 0,
            last: 0,
            participants: Vec::new(),
            channel: post.channel,
        });
        (thread.replies, thread.last) = (thread.replies + 1, at);
        thread.participants.retain(|user| *user != post.author);
        thread.participants.push(post.author);
    }
    writeln!(sql, "\\.")?;
    writeln!(sql, "COPY threads (postid, replycount, lastreplyat, participants, channelid, threadteamid) FROM STDIN;")?;
    for (root, thread) in &threads {
        let participants: Vec<&str> = thread.participants.iter().map(|user| users[*user].as_str()).collect();
        let participants = serde_json::to_string(&participants)?;
        let (replies, last, channel) = (thread.replies, thread.last, &channels[thread.channel]);
        writeln!(sql, "{root}\t{replies}\t{last}\t{participants}\t{channel}\t{team}")?;
    }
    writeln!(sql, "\\.")?;
    writeln!(
        sql,
        "COPY threadmemberships (postid, userid, following, lastviewed, lastupdated, unreadmentions) FROM STDIN;"
    )?;
    for (root, thread) in &threads {
        let followers: BTreeSet<usize> = thread.participants.iter().chain(authors.get(root)).copied().collect();
        for user in followers {
            let (user, last) = (&users[user], thread.last);
            writeln!(sql, "{root}\t{user}\tt\t{last}\t{last}\t0")?;
        }
    }
    writeln!(sql, "\\.")?;
    let mut counted = String::new();
    for (channel, (all, roots, last, last_root)) in channels.iter().zip(&counts) {
        write!(
            counted,
            "UPDATE channels SET totalmsgcount = totalmsgcount + {all}, totalmsgcountroot = totalmsgcountroot + {roots},
                lastpostat = {last}, lastrootpostat = {last_root} WHERE id = '{channel}';
             UPDATE channelmembers m SET msgcount = c.totalmsgcount, msgcountroot = c.totalmsgcountroot, mentioncount = 0,
                mentioncountroot = 0, lastviewedat = {last} FROM channels c WHERE c.id = m.channelid AND c.id = '{channel}';"
        )?;
    }
    writeln!(sql, "{counted}\nANALYZE;")?;
    sql.flush()?;
    drop(sql);
    if !child.wait()?.success() {
        return Err("psql did not take the corpus".into());
    }
    tell(&format!("mattermost: copied in {:.0} s", since.elapsed().as_secs_f64()));
    Ok(())
}

/// Processes on this machine that are the server or its database, by name: its memory is theirs together.
fn processes() -> Vec<u32> {
    let found = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        ["mattermost", "postgres"].contains(&name.trim()).then_some(pid)
    });
    found.collect()
}

/// What the server says it is.
pub(crate) async fn version(at: &str, user: &User) -> Result<String, Error> {
    let config = Api::at(at).call(user, Method::GET, "/config/client?format=old", None).await?;
    let config: Value = serde_json::from_slice(&config)?;
    Ok(config["Version"].as_str().unwrap_or("unknown").to_owned())
}
