//! On what was measured: a figure without it means nothing.

use std::path::Path;
use std::process::Command;

use model::Clock;

use crate::clock::WallClock;

#[derive(serde::Serialize)]
pub(crate) struct Machine {
    cores: usize,
    filesystem: String,
    kernel: String,
    commit: String,
    /// Unix milliseconds.
    at: i64,
    /// Load averages at the start: above the number of cores others are measured as well.
    load: String,
    /// Built with optimisation?
    release: bool,
}

impl Machine {
    /// Facts of this machine; the file system is the one that holds `dir`.
    pub(crate) fn here(dir: &Path) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            filesystem: filesystem(dir),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: commit(),
            at: WallClock.now().0,
            load: std::fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
            release: !cfg!(debug_assertions),
        }
    }

    pub(crate) fn line(&self) -> String {
        let Self { cores, filesystem, kernel, commit, at: _, load, release } = self;
        let build = if *release { "release" } else { "debug" };
        format!("{cores} cores, {filesystem}, Linux {kernel}, commit {commit}, load {load}, {build} build")
    }
}

/// Type and device of the mount that holds `dir`: the longest mount point that is a prefix.
fn filesystem(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields
        .filter(|f| f.len() > 2 && dir.starts_with(f[1]))
        .max_by_key(|f| f[1].len())
        .map(|f| format!("{} on {}", f[2], f[0]));
    mount.unwrap_or_else(|| "unknown".to_owned())
}

fn commit() -> String {
    let asked = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let said = asked.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    said.unwrap_or_else(|| "unknown".to_owned())
}
