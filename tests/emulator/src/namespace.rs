//! Network namespaces without names: they live as long as this process holds them or a process runs in them, so there is
//! nothing to clean up, however this process ends.
//!
//! Each has a resident thread. Processes are started by it: they die with the thread that started them
//! (`PR_SET_PDEATHSIG`), and it ends when the namespace is dropped.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of this process.
pub struct Namespace {
    file: File,
    jobs: Option<mpsc::Sender<Job>>,
    resident: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes one with its loopback device up and IPv6 off: it would talk on the link by itself.
    ///
    /// # Errors
    /// When the kernel does not allow it: this needs root.
    pub fn new() -> Result<Self, Error> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        let resident = std::thread::spawn(move || {
            let _ = ready.send(settle());
            for job in todo {
                job();
            }
        });
        let file = made.recv()??;
        Ok(Self { file, jobs: Some(jobs), resident: Some(resident) })
    }

    /// Moves the calling thread here, and with it every thread, socket and process that it makes.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` on a thread of its own in this namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let here = scope.spawn(|| {
                self.enter()?;
                work()
            });
            here.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs asynchronous `work` here and waits for it.
    pub fn run_async<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        self.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work()))
    }

    /// Starts a process here that ends with this one, with its output at the end of `log`. It leads a process group of
    /// its own.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, program: &Command, log: Option<&Path>) -> Result<Process, Error> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(dir) = program.get_current_dir() {
            command.current_dir(dir);
        }
        let open = |log| File::options().create(true).append(true).open(log);
        let (out, err) = match log {
            Some(log) => (open(log)?.into(), open(log)?.into()),
            None => (Stdio::null(), Stdio::null()),
        };
        command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err);
        Ok(Process(self.at_home(move || command.spawn())??))
    }

    fn at_home<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (answer, answered) = mpsc::channel();
        let jobs = self.jobs.as_ref().ok_or("the namespace is closed")?;
        let gone = "the namespace's thread has ended";
        jobs.send(Box::new(move || drop(answer.send(work())))).map_err(|_| gone)?;
        Ok(answered.recv()?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(resident) = self.resident.take() {
            let _ = resident.join();
        }
    }
}

/// On the resident thread: leaves the namespace of the process for one of its own.
fn settle() -> Result<File, Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("no network namespace: {e}; this needs root"))?;
    // `/proc/sys/net` shows the namespace of the thread that looks.
    match std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1") {
        // A kernel without IPv6 has nothing to switch off.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        done => done.map_err(|e| format!("IPv6 cannot be switched off: {e}"))?,
    }
    ip(&["link", "set", "lo", "up"])?;
    Ok(File::open("/proc/thread-self/ns/net")?)
}

/// Runs `ip` in the namespace of the calling thread.
pub fn ip(args: &[&str]) -> Result<(), Error> {
    let done = Command::new("ip").args(args).output().map_err(|e| format!("ip (package iproute2): {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim()).into()),
    }
}

/// A child of this process, ended with all of its process group when dropped.
pub struct Process(Child);

impl Process {
    /// Its process id, which is that of its group too.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Has it ended?
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}
