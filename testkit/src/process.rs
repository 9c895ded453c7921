//! Child processes that cannot outlive their handle or their parent.

use crate::PATIENCE;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

/// What to run, and where its output goes.
#[derive(Debug, Clone)]
pub struct ProcessBuilder {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    cleared: Vec<String>,
    dir: PathBuf,
    log: PathBuf,
}

impl ProcessBuilder {
    /// `program` runs in `dir`; its output is appended to `dir/log`.
    pub fn new(program: impl Into<PathBuf>, dir: &Path) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            cleared: Vec::new(),
            dir: dir.to_owned(),
            log: dir.join("log"),
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((key.into(), value.into()));
        self
    }

    /// Removes the inherited environment variables that begin with `prefix`.
    pub fn without_env(mut self, prefix: &str) -> Self {
        self.cleared.push(prefix.to_owned());
        self
    }

    /// Starts it, without waiting for anything.
    pub fn spawn(&self) -> Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.args);
        command.current_dir(&self.dir).process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        for (key, _) in std::env::vars_os() {
            let inherited = key.to_string_lossy();
            if self.cleared.iter().any(|prefix| inherited.starts_with(prefix)) {
                command.env_remove(&key);
            }
        }
        command.envs(self.envs.iter().map(|(key, value)| (key, value)));
        let child = on_spawner(command).context("start setpriv (Debian: util-linux)")?;
        Ok(Process { child, name: self.name(), log: self.log.clone() })
    }

    /// Starts it and blocks until `ready` holds. Fails at once if it exits, and in any case after two minutes.
    pub fn spawn_until(&self, mut ready: impl FnMut() -> bool) -> Result<Process> {
        let mut process = self.spawn()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.exited()? {
                bail!("{} ended with {status}:\n{}", process.name, process.log_tail());
            }
            if ready() {
                return Ok(process);
            }
            if Instant::now() > deadline {
                bail!("{} not ready within {PATIENCE:?}:\n{}", process.name, process.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5)); // between two looks
        }
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(OsStr::new("process")).to_string_lossy().into_owned()
    }
}

/// Spawns on a thread that lives as long as the process: the kernel sends the parent-death signal when the *thread*
/// that forked ends, and threads of tests and runtimes do end.
fn on_spawner(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, child) = mpsc::channel();
    SPAWNER.send((command, answer)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

/// A running child, leader of its own process group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of all its threads so far.
    pub fn computed(&self) -> Duration {
        clock_getcpuclockid(self.group()).and_then(clock_gettime).map(Duration::from).unwrap_or_default()
    }

    /// The CPU time of its first thread: in a receiver, the one that serves.
    pub fn computed_by_first_thread(&self) -> Duration {
        let pid = self.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).unwrap_or_default();
        Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Sends a signal to this process only.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.group(), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Sends SIGTERM and blocks until it has ended. After two minutes it is killed, which is an error.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// Blocks until it has ended. After two minutes it is killed, which is an error.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill();
                bail!("{} did not end within {PATIENCE:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(2)); // between two looks
        }
    }

    /// Sends SIGKILL to it and to the processes that it started.
    pub fn kill(&mut self) {
        // after its leader was waited for, the group id may belong to other processes
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(self.group(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }

    /// Sends SIGSTOP: connections stay open, nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Sends SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// All its output so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `start` again if it fails: another process may take a port between the check and the server's bind.
pub(crate) fn retry<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..2 {
        match start() {
            Err(error) if error.to_string().to_lowercase().contains("address already in use") => {}
            result => return result,
        }
    }
    start()
}

/// Whether `GET path` on 127.0.0.1:`port` answers 200.
pub(crate) fn answers_ok(port: u16, path: &str) -> bool {
    use std::io::{Read, Write};
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
