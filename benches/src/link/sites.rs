//! A Holdfast edge and hub at the two ends of a link: the real binary, made and enrolled as an operator would do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, User};
use crate::Error;
use crate::clock::Stopwatch;
use emulator::{FAR, Link};
use emulator::{Namespace, Process};

/// A site starts, and acquaintance is made, within this time even on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

const PASSWORD: &str = "Correct-Horse-7";

/// An enrolled edge and hub with a team, a channel and a user, as after some time of service.
pub(crate) struct Sites<'l> {
    pub(crate) edge: Site<'l>,
    pub(crate) hub: Site<'l>,
    /// Who posts at the edge.
    pub(crate) sender: User,
    /// Who reads at the hub.
    pub(crate) reader: User,
    pub(crate) channel: String,
}

impl<'l> Sites<'l> {
    /// Makes both below `dir`, enrols the edge and waits until the hub shows the channel. Both send at most `rate`.
    ///
    /// # Errors
    /// When a site does not start, or acquaintance is not made.
    pub(crate) fn found(link: &'l Link, dir: &Path, rate: u64) -> Result<Self, Error> {
        let mut hub = Site::init(&link.far, dir, "hub", "bravo", rate)?;
        let mut edge = Site::init(&link.near, dir, "edge", "alpha", rate)?;
        hub.start()?;
        let invited = hub.run(&["enroll", "invite", "alpha", "--address", &format!("{FAR}:7800"), "--json"])?;
        let invitation: Value = serde_json::from_slice(&invited)?;
        edge.run(&["enroll", "join", invitation["token"].as_str().ok_or("an invitation without a token")?])?;
        edge.start()?;

        let (sender, team, channel) = link.near.run_async(async || {
            let api = Api::new();
            let admin = api.sign_in("alpha-admin", PASSWORD).await?;
            let body = json!({"name": "task-force", "display_name": "Task Force", "type": "O"});
            let team = api.post(&admin, "/teams", body).await?;
            let body = json!({"team_id": team, "name": "fires", "display_name": "Fires", "type": "O"});
            let channel = api.post(&admin, "/channels", body).await?;
            Ok((admin, team, channel))
        })?;
        let reader = link.far.run_async(async || {
            let api = Api::new();
            let reader = api.sign_in("bravo-admin", PASSWORD).await?;
            let since = Stopwatch::start();
            while !api.has(&reader, &format!("/channels/{channel}")).await {
                if since.elapsed() > PATIENCE {
                    return Err("the hub never learnt of the channel".into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let path = format!("/teams/{team}/members");
            api.post(&reader, &path, json!({"team_id": team, "user_id": reader.id})).await?;
            api.post(&reader, &format!("/channels/{channel}/members"), json!({"user_id": reader.id})).await?;
            Ok(reader)
        })?;
        let sites = Self { edge, hub, sender, reader, channel };
        sites.wait_idle(PATIENCE)?;
        Ok(sites)
    }

    /// Stops both and starts them again with emission at the edge silenced: nothing is connected, nothing of what was
    /// learnt about the link is left, and [`Self::resume`] is the start.
    pub(crate) fn restart_silent(&mut self) -> Result<(), Error> {
        self.edge.run(&["link", "silence"])?;
        self.edge.stop()?;
        self.hub.stop()?;
        self.hub.start()?;
        self.edge.start()
    }

    /// Lets the edge send.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.edge.run(&["link", "resume"]).map(drop)
    }

    /// Uploads a file at the edge and posts it; returns the file's id.
    pub(crate) fn share(&self, name: &str, content: &[u8]) -> Result<String, Error> {
        self.edge.at.run_async(async || Api::new().share(&self.sender, &self.channel, name, content).await)
    }

    /// Waits until everything that the edge captured is in its journal, so that the start is the start of the link alone.
    pub(crate) fn wait_captured(&self) -> Result<(), Error> {
        let since = Stopwatch::start();
        while self.edge.status()?["capture_pending_rows"] != 0 {
            if since.elapsed() > PATIENCE {
                return Err(format!("the edge did not capture everything within {PATIENCE:?}").into());
            }
            pause();
        }
        Ok(())
    }

    /// Waits until the first bytes of a file are at the hub.
    pub(crate) fn wait_underway(&self) -> Result<(), Error> {
        let since = Stopwatch::start();
        while self.hub_content()? == 0 {
            if since.elapsed() > PATIENCE {
                return Err(format!("no content arrived within {PATIENCE:?}\n{}", self.edge.last_words()).into());
            }
            pause();
        }
        Ok(())
    }

    /// Bytes of file content that became durable at the hub since its start.
    pub(crate) fn hub_content(&self) -> Result<u64, Error> {
        Ok(self.hub.metric("holdfast_link_received_chunk_bytes_total")? as u64)
    }

    /// Does the hub have all these files, `bytes` in all? The count may lack a little of them: content that was on its way to the
    /// disk when a connection ended is stored but not counted. So near the end the files themselves are asked for.
    pub(crate) fn hub_has_all(&self, files: &[String], bytes: u64) -> Result<bool, Error> {
        if self.hub_content()? < bytes / 100 * 98 {
            return Ok(false);
        }
        for file in files.iter().rev() {
            if !self.hub_has(file)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does the hub have the whole file?
    pub(crate) fn hub_has(&self, file: &str) -> Result<bool, Error> {
        self.hub.at.run_async(async || Ok(Api::new().download(&self.reader, file).await.is_ok()))
    }

    /// Waits until neither side holds anything for the other.
    pub(crate) fn wait_idle(&self, at_most: Duration) -> Result<(), Error> {
        let since = Stopwatch::start();
        while !(self.edge.is_idle()? && self.hub.is_idle()?) {
            if since.elapsed() > at_most {
                return Err(format!("still something held after {at_most:?}\n{}", self.edge.last_words()).into());
            }
            pause();
        }
        Ok(())
    }
}

/// One site: its directory and, while it runs, its process.
pub(crate) struct Site<'l> {
    pub(crate) at: &'l Namespace,
    role: &'static str,
    data: PathBuf,
    process: Option<Process>,
}

impl<'l> Site<'l> {
    fn init(at: &'l Namespace, dir: &Path, role: &'static str, name: &str, rate: u64) -> Result<Self, Error> {
        let site = Self { at, role, data: dir.join(role), process: None };
        let admin = format!("{name}-admin");
        site.run(&["init", "--role", role, "--name", name, "--admin", &admin, "--release", "all"])?;
        site.configure("carrier", "rate", format!("{rate}bit/s").into())?;
        Ok(site)
    }

    /// Sets one key in the file of a site that is stopped.
    pub(crate) fn configure(&self, section: &str, key: &str, value: toml::Value) -> Result<(), Error> {
        let path = self.data.join("holdfast.toml");
        let mut config: toml::Table = fs::read_to_string(&path)?.parse()?;
        let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().ok_or("a key where a section was expected")?.insert(key.to_owned(), value);
        Ok(fs::write(&path, config.to_string())?)
    }

    /// Starts the process and waits until its API answers.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        let mut command = self.command(&[self.role]);
        command.env("HOLDFAST_LOG", "info");
        let process = self.process.insert(self.at.spawn(&command, Some(&self.log()))?);
        let since = Stopwatch::start();
        while !self.at.run_async(async || Ok(Api::new().answers().await))? {
            if process.has_ended() || since.elapsed() > PATIENCE {
                return Err(format!("the {} does not start\n{}", self.role, self.last_words()).into());
            }
            pause();
        }
        Ok(())
    }

    /// Asks the process to end and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.terminate();
        let since = Stopwatch::start();
        while !process.has_ended() {
            if since.elapsed() > PATIENCE {
                return Err(format!("the {} does not stop\n{}", self.role, self.last_words()).into());
            }
            pause();
        }
        Ok(())
    }

    /// A line of the process's memory in MB (10^6 bytes), such as `VmHWM`, the most that was resident since its start.
    pub(crate) fn memory(&self, line: &str) -> Result<f64, Error> {
        let pid = self.process.as_ref().ok_or("the site is not running")?.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let value =
            status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.split_whitespace().next());
        Ok(value.ok_or("no such line in the process's status")?.parse::<f64>()? * 1024.0 / 1e6)
    }

    /// Runs a verb and returns what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Vec<u8>, Error> {
        let done = self.at.run(|| Ok(self.command(args).output()?))?;
        match done.status.success() {
            true => Ok(done.stdout),
            false => Err(format!("holdfast {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr)).into()),
        }
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, Error> {
        self.at.run_async(async || Api::new().metric(name).await)
    }

    /// What `holdfast status` says; its exit status tells an operator's script whether all is well.
    pub(crate) fn status(&self) -> Result<Value, Error> {
        let said = self.at.run(|| Ok(self.command(&["status", "--json"]).output()?))?;
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    fn is_idle(&self) -> Result<bool, Error> {
        let status = self.status()?;
        let peers = status["peers"].as_array().ok_or("a status without peers")?;
        let done = peers.iter().all(|peer| peer["outbound"]["held"] == 0 && peer["outbound"]["capturing"] == 0);
        Ok(status["running"] == true && !peers.is_empty() && done)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--data").arg(&self.data).args(args).env("HOLDFAST_PASSWORD", PASSWORD);
        command
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The end of what the process wrote.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let from = text.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
        format!("-- log of the {}:\n{}", self.role, &text[from..])
    }
}

/// The program beside this one: `scripts/bench` builds both.
fn binary() -> PathBuf {
    std::env::current_exe().map_or_else(|_| "holdfast".into(), |own| own.with_file_name("holdfast"))
}

/// Between two looks at something that happens by itself.
#[allow(clippy::disallowed_methods, reason = "another process is waited for, there is no event to wait for")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
