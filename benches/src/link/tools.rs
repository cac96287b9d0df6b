//! Programs of others on a link: iperf3, rsync and nncp, set up as their manuals tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::flow::{Delivered, Plan};
use super::sites::pause;
use crate::Error;
use emulator::Process;
use emulator::{FAR, Link};

/// Sends by iperf3 until the plan is measured; what the receiving side counts in each fifth of a second is recorded.
///
/// # Errors
/// When it is not installed or does not start.
pub(super) fn iperf(
    link: &Link,
    congestion: &str,
    plan: Plan,
    delivered: &Delivered<'_>,
    dir: &Path,
) -> Result<(), Error> {
    installed("iperf3")?;
    let log = dir.join("iperf3.log");
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--interval", "0.2", "--forceflush", "--format", "k"]);
    let _server = link.far.spawn(&server, Some(&log))?;
    while !fs::read_to_string(&log).unwrap_or_default().contains("listening") {
        pause();
    }
    let mut client = Command::new("iperf3");
    // Blocks of 4 kB: a block is counted when it is complete, and the default is 128 kB.
    client.args(["--client", &FAR.to_string(), "--congestion", congestion, "--length", "4K"]);
    client.args(["--time", "3600"]);
    let _client = link.near.spawn(&client, Some(&dir.join("iperf3-client.log")))?;
    let (mut seen, mut first) = (0, None);
    let mut bits = 0.0;
    while !delivered.is_measured(plan) {
        let text = fs::read_to_string(&log)?;
        let intervals: Vec<(f64, f64)> = text.lines().filter_map(interval).collect();
        for (end, kbit) in &intervals[seen..] {
            let first = *first.get_or_insert_with(|| link.now().saturating_sub(Duration::from_secs_f64(*end)));
            bits += kbit * 1e3 * 0.2;
            delivered.total(first + Duration::from_secs_f64(*end), (bits / 8.0) as u64);
        }
        seen = intervals.len();
        pause();
    }
    Ok(())
}

/// End in seconds and kbit/s of a line such as `[  5]   0.20-0.40   sec   128 KBytes  5243 Kbits/sec`.
fn interval(line: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = line.strip_prefix('[')?.split(']').nth(1)?.split_whitespace().collect();
    let [span, "sec", _, _, rate, "Kbits/sec", ..] = fields[..] else { return None };
    let (begin, end) = span.split_once('-')?;
    let (begin, end): (f64, f64) = (begin.parse().ok()?, end.parse().ok()?);
    // The sum at the end is no interval.
    (end - begin < 0.5).then(|| Some((end, rate.parse().ok()?))).flatten()
}

/// A transfer of one file by a tool that is running; it ends when dropped.
pub(super) struct Tool {
    /// They run until the file is there.
    processes: Vec<Process>,
    /// Started anew when it ends before that, as a user would.
    again: Option<Command>,
    /// Where the file appears when it is complete.
    arrives: Arrives,
}

enum Arrives {
    At(PathBuf),
    /// As the only complete packet of a spool.
    InSpool(PathBuf),
}

impl Tool {
    /// Is the file there? Restarts what gave up.
    pub(super) fn is_done(&mut self, link: &Link, bytes: u64) -> Result<bool, Error> {
        if self.again.is_some() && self.processes.last_mut().is_some_and(Process::has_ended) {
            let again = self.again.take().ok_or("nothing to start again")?;
            self.processes.pop();
            self.processes.push(link.near.spawn(&again, None)?);
            self.again = Some(again);
        }
        let is_whole = |path: &Path| fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.len() >= bytes);
        Ok(match &self.arrives {
            Arrives::At(path) => is_whole(path),
            Arrives::InSpool(dir) => fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .any(|entry| entry.path().extension().is_none() && is_whole(&entry.path())),
        })
    }
}

/// rsync to a daemon, over plain TCP.
pub(super) fn rsync(link: &Link, dir: &Path, file: &Path) -> Result<Tool, Error> {
    installed("rsync")?;
    let (module, config) = (dir.join("module"), dir.join("rsyncd.conf"));
    fs::create_dir(&module)?;
    fs::write(
        &config,
        format!(
            "use chroot = no\nuid = root\ngid = root\npid file = {}\ntimeout = 300\n[in]\npath = {}\nread only = no\n",
            dir.join("rsyncd.pid").display(),
            module.display()
        ),
    )?;
    let mut daemon = Command::new("rsync");
    daemon.args(["--daemon", "--no-detach", "--port", "5873"]).arg(format!("--config={}", config.display()));
    let daemon = link.far.spawn(&daemon, Some(&dir.join("rsyncd.log")))?;
    wait_listening(link, 5873)?;
    let mut client = Command::new("rsync");
    client.arg("--partial").arg("--whole-file").arg(file).arg(format!("rsync://{FAR}:5873/in/"));
    let sender = link.near.spawn(&client, Some(&dir.join("rsync.log")))?;
    let name = file.file_name().ok_or("a file without a name")?;
    Ok(Tool { processes: vec![daemon, sender], again: Some(client), arrives: Arrives::At(module.join(name)) })
}

/// nncp with a caller that tries once a second, as for a link that comes and goes.
pub(super) fn nncp(link: &Link, dir: &Path, file: &Path) -> Result<Tool, Error> {
    installed("nncp-cfgnew")?;
    let keys = [nncp_keys()?, nncp_keys()?];
    let config = |own: usize, called: &str| {
        let other = &keys[1 - own];
        let spool = dir.join(format!("spool-{own}"));
        let facts = |keys: &BTreeMap<String, String>, names: &[&str]| {
            names.iter().map(|name| format!("      {name}: {}\n", keys[*name])).collect::<String>()
        };
        let public = ["id", "exchpub", "signpub", "noisepub"];
        let all = ["id", "exchpub", "exchprv", "signpub", "signprv", "noiseprv", "noisepub"];
        let text = format!(
            "{{\n  spool: {}\n  log: {}\n  self: {{\n{}  }}\n  neigh: {{\n    self: {{\n{}    }}\n    peer: {{\n{}{called}    }}\n  }}\n}}\n",
            spool.display(),
            dir.join(format!("nncp-{own}.log")).display(),
            facts(&keys[own], &all),
            facts(&keys[own], &public),
            facts(other, &public),
        );
        let path = dir.join(format!("nncp-{own}.hjson"));
        fs::create_dir_all(&spool).and_then(|()| fs::write(&path, text)).map(|()| (path, spool))
    };
    let calls = format!(
        "      addrs: {{far: \"{FAR}:5400\"}}\n      calls: [{{cron: \"*/1 * * * * * *\", onlinedeadline: 3600}}]\n"
    );
    let (near, _) = config(0, &calls)?;
    let (far, spool) = config(1, "")?;
    let queued = Command::new("nncp-file").arg("-cfg").arg(&near).arg("-quiet").arg(file).arg("peer:").output()?;
    if !queued.status.success() {
        return Err(format!("nncp-file: {}", String::from_utf8_lossy(&queued.stderr)).into());
    }
    let mut daemon = Command::new("nncp-daemon");
    daemon.arg("-cfg").arg(&far).args(["-bind", "0.0.0.0:5400"]);
    let daemon = link.far.spawn(&daemon, Some(&dir.join("nncp-daemon.log")))?;
    wait_listening(link, 5400)?;
    let mut caller = Command::new("nncp-caller");
    caller.arg("-cfg").arg(&near).arg("peer");
    let caller = link.near.spawn(&caller, Some(&dir.join("nncp-caller.log")))?;
    let arrives = Arrives::InSpool(spool.join(&keys[0]["id"]).join("rx"));
    Ok(Tool { processes: vec![daemon, caller], again: None, arrives })
}

/// The keys that `nncp-cfgnew` makes, by their names in the configuration.
fn nncp_keys() -> Result<BTreeMap<String, String>, Error> {
    let made = Command::new("nncp-cfgnew").arg("-nocomments").output()?;
    let text = String::from_utf8(made.stdout)?;
    let own = text.split("neigh:").next().unwrap_or_default();
    let pairs = own.lines().filter_map(|line| line.trim().split_once(": "));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Waits until something listens at the far side's TCP port, without a packet on the link.
fn wait_listening(link: &Link, port: u16) -> Result<(), Error> {
    let needle = format!(":{port:04X} ");
    for _ in 0..500 {
        let listens = link.far.run(|| {
            let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
            let tables = read("tcp") + &read("tcp6");
            // State 0A is LISTEN.
            Ok(tables.lines().any(|line| line.contains(&needle) && line.contains(" 0A ")))
        })?;
        if listens {
            return Ok(());
        }
        pause();
    }
    Err(format!("nothing listens on port {port}").into())
}

fn installed(program: &str) -> Result<(), Error> {
    let asked = Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?;
    if asked.status.success() { Ok(()) } else { Err(format!("{program} is not installed").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_and_their_sum_is_not() {
        let line = "[  5]   0.20-0.40   sec   128 KBytes  5243 Kbits/sec                  ";
        assert_eq!(interval(line), Some((0.4, 5243.0)));
        assert_eq!(interval("[  5]   0.00-1.00   sec   640 KBytes  5242 Kbits/sec                  receiver"), None);
        assert_eq!(interval("[ ID] Interval           Transfer     Bitrate"), None);
        assert_eq!(interval("Accepted connection from 127.0.0.1, port 43978"), None);
    }
}
