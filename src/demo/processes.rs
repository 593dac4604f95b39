//! Child processes: started, watched, killed.
//!
//! Owns one process each: its log, the wait for what it says, and the news of its death. What it runs is
//! [`super::cluster`]'s. A process writes to a file, never to a pipe, so that it outlives us if it shall.
//!
//! Invariant: a process that dies without having been told to is reported, with the end of what it wrote.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    sync::watch::{self, channel},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a process may take to say what it is waited for, to start, or to die.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often its log is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How much of a dead process's log is shown.
const LOG_LINES_SHOWN: usize = 12;
/// What a process says when its port is somebody else's.
const PORT_TAKEN: &str = "cannot listen on";

/// What to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// As in "NAME listening on ADDRESS".
    pub name: &'static str,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The folder to run in.
    pub folder: PathBuf,
    /// Whether it goes on when we end.
    pub outlives_us: bool,
}

impl Spec {
    /// Where it writes: every run of it adds to the same file.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }
}

/// Why a process is not there or does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It cannot be started, or its log cannot be read.
    #[error("{name}: {source}")]
    Io {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Its port is somebody else's.
    #[error("{name}: its port is taken")]
    PortTaken {
        /// Which.
        name: &'static str,
    },
    /// It is dead.
    #[error("{0}")]
    Died(Death),
    /// It did not say it in time.
    #[error("{name} did not say {expected:?} within {} s; the end of its log:\n{log_end}", PATIENCE.as_secs())]
    Silent {
        /// Which.
        name: &'static str,
        /// What it was to say.
        expected: String,
        /// The last it said.
        log_end: String,
    },
    /// It is still there.
    #[error("{name} is still alive after {} s", PATIENCE.as_secs())]
    Alive {
        /// Which.
        name: &'static str,
    },
}

/// The end of a process that nobody told to end.
#[derive(Clone, Debug)]
pub struct Death {
    name: &'static str,
    status: String,
    log_end: String,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, status, log_end } = self;
        write!(f, "{name} died unexpectedly ({status}); the end of its log:\n{log_end}")
    }
}

/// Everyone who is being watched. Clones watch the same ones.
#[derive(Clone, Debug)]
pub struct Watch {
    first_death: watch::Sender<Option<Death>>,
    kill_all: CancellationToken,
    supervisors: TaskTracker,
}

impl Watch {
    /// Over nobody.
    pub fn new() -> Watch {
        Watch {
            first_death: watch::Sender::new(None),
            kill_all: CancellationToken::new(),
            supervisors: TaskTracker::new(),
        }
    }

    /// The first death that nobody asked for; waits for it.
    pub async fn death(&self) -> Death {
        let mut receiver = self.first_death.subscribe();
        let death = receiver.wait_for(Option::is_some).await;
        death.expect("we hold a sender").clone().expect("waited for it")
    }

    /// SIGKILL for all, those just being started among them, and waits until they are gone. Nobody is started after it.
    pub async fn kill_all(&self) -> Result<(), ProcessError> {
        self.kill_all.cancel();
        self.supervisors.close();
        let gone = timeout(PATIENCE, self.supervisors.wait()).await;
        gone.map_err(|_| ProcessError::Alive { name: "a process" })
    }

    fn tell(&self, death: Death) {
        self.first_death.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(death);
            is_first
        });
    }
}

/// A running process.
pub struct Process {
    spec: Spec,
    pid: u32,
    /// Where this run's part of the log begins.
    log_from: u64,
    kill: CancellationToken,
    /// Whether its death is news.
    watched: Arc<AtomicBool>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts it and waits until it listens. With `insist`, a port that is taken is waited for.
    pub async fn start(spec: &Spec, watch: &Watch, insist: bool) -> Result<Process, ProcessError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Self::start_once(spec, watch).await {
                Err(ProcessError::PortTaken { .. }) if insist && Instant::now() < until => sleep(LOOK_INTERVAL).await,
                result => return result,
            }
        }
    }

    async fn start_once(spec: &Spec, watch: &Watch) -> Result<Process, ProcessError> {
        let failed = |source| ProcessError::Io {
            name: spec.name,
            source,
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(spec.log())
            .map_err(failed)?;
        let log_from = log.metadata().map_err(failed)?.len();
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.arguments)
            .current_dir(&spec.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Of its own, so that a Ctrl-C in the terminal is ours alone to deal with.
            .process_group(0)
            .kill_on_drop(!spec.outlives_us);
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().expect("it was not waited for yet");
        let (kill, watched) = (watch.kill_all.child_token(), Arc::new(AtomicBool::new(false)));
        let (exited, exit) = channel(None);
        let supervisor = Supervisor {
            name: spec.name,
            log: spec.log(),
            log_from,
            kill: kill.clone(),
            watched: watched.clone(),
            watch: watch.clone(),
        };
        watch.supervisors.spawn(supervisor.run(child, exited));
        let process = Process {
            spec: spec.clone(),
            pid,
            log_from,
            kill,
            watched,
            exit,
        };
        match process.says(&format!("{} listening on", spec.name)).await {
            Ok(_) => {}
            Err(ProcessError::Died(death)) if death.log_end.contains(PORT_TAKEN) => {
                return Err(ProcessError::PortTaken { name: spec.name });
            }
            Err(error) => return Err(error),
        }
        process.watched.store(true, Ordering::SeqCst);
        // It may have died just before its death became news.
        process.is_alive()?;
        Ok(process)
    }

    /// The operating system's number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The first line of this run that contains the text; waits for it.
    pub async fn says(&self, text: &str) -> Result<String, ProcessError> {
        let until = Instant::now() + PATIENCE;
        loop {
            // Looked at before the log: what a dead process has not written by now it never will.
            let alive = self.is_alive();
            let log = self.log()?;
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            alive?;
            if Instant::now() >= until {
                return Err(ProcessError::Silent {
                    name: self.spec.name,
                    expected: text.to_owned(),
                    log_end: end_of(&log),
                });
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// From now on its death is no news: somebody asked for it.
    pub fn is_to_die(&self) {
        self.watched.store(false, Ordering::SeqCst);
    }

    /// Waits until it has died by itself.
    pub async fn dies(mut self) -> Result<(), ProcessError> {
        self.gone().await
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) -> Result<(), ProcessError> {
        self.is_to_die();
        self.kill.cancel();
        self.gone().await
    }

    async fn gone(&mut self) -> Result<(), ProcessError> {
        let name = self.spec.name;
        match timeout(PATIENCE, self.exit.wait_for(Option::is_some)).await {
            // Closed: its supervisor is gone, and it with it.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => Err(ProcessError::Alive { name }),
        }
    }

    fn is_alive(&self) -> Result<(), ProcessError> {
        match *self.exit.borrow() {
            None => Ok(()),
            Some(status) => Err(ProcessError::Died(Death {
                name: self.spec.name,
                status: status.to_string(),
                log_end: end_of(&self.log()?),
            })),
        }
    }

    fn log(&self) -> Result<String, ProcessError> {
        read_from(&self.spec.log(), self.log_from).map_err(|source| ProcessError::Io {
            name: self.spec.name,
            source,
        })
    }
}

/// Waits for a process's end in a task of its own, so that no death goes unseen.
struct Supervisor {
    name: &'static str,
    log: PathBuf,
    log_from: u64,
    kill: CancellationToken,
    watched: Arc<AtomicBool>,
    watch: Watch,
}

impl Supervisor {
    async fn run(self, mut child: Child, exited: watch::Sender<Option<ExitStatus>>) {
        let status = tokio::select! {
            status = child.wait() => status,
            () = self.kill.cancelled() => {
                // It may have died a moment ago; either way it is waited for.
                drop(child.start_kill());
                child.wait().await
            }
        };
        let Ok(status) = status else { return };
        // First the exit: whoever sees the flag too late sees that.
        exited.send_replace(Some(status));
        if self.watched.load(Ordering::SeqCst) {
            self.watch.tell(Death {
                name: self.name,
                status: status.to_string(),
                log_end: end_of(&read_from(&self.log, self.log_from).unwrap_or_default()),
            });
        }
    }
}

fn read_from(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    shown.iter().map(|line| format!("  | {line}\n")).collect()
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
