//! The program as a process: started, listened to, signalled, and gone when its test is.
//!
//! Owns one child each. What it runs, and what that is for, is the caller's. Shared by the test binaries that start real
//! processes, each of which uses its own part. Invariant: no child outlives its [`Process`].
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

pub const BINARY: &str = env!("CARGO_BIN_EXE_causeway");
/// How long anything may take that has to happen. A machine under load is slow; a test that waits this long has failed.
pub const BOUND: Duration = Duration::from_secs(60);

/// A process and what it has said.
pub struct Process {
    name: String,
    child: Child,
    said: Arc<(Mutex<Said>, Condvar)>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// How many of its two streams may still bring something; a process that has ended may not have been heard out.
    open: usize,
}

impl Process {
    pub fn start(name: &str, arguments: &[String]) -> Self {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let said: Arc<(Mutex<Said>, Condvar)> = Arc::default();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        said.0.lock().unwrap().open = streams.len();
        for stream in streams {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.0.lock().unwrap().lines.push(line);
                    said.1.notify_all();
                }
                said.0.lock().unwrap().open -= 1;
                said.1.notify_all();
            });
        }
        Self {
            name: name.into(),
            child,
            said,
        }
    }

    /// The first line so far that contains the text.
    pub fn said(&self, text: &str) -> Option<String> {
        self.lines(text).into_iter().next()
    }

    /// All lines so far that contain the text.
    pub fn lines(&self, text: &str) -> Vec<String> {
        let said = self.said.0.lock().unwrap();
        let lines = said.lines.iter().filter(|line| line.contains(text));
        lines.cloned().collect()
    }

    /// Waits for a line that contains the text.
    pub fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + BOUND;
        let (said, changed) = &*self.said;
        let mut said = said.lock().unwrap();
        loop {
            if let Some(line) = said.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let why = match self.child.try_wait() {
                Ok(Some(status)) if said.open == 0 => format!("ended with {status} and"),
                _ if Instant::now() >= until => format!("within {BOUND:?}"),
                _ => {
                    said = changed.wait_timeout(said, Duration::from_millis(200)).unwrap().0;
                    continue;
                }
            };
            let all = said.lines.join("\n");
            // Its readers go on.
            drop(said);
            panic!("{} {why} never said {text:?}, but:\n{all}", self.name);
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no process can do anything about it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGSTOP: it stands still with all its connections and locks, and knows nothing of it.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on where it stood.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // Nobody else can have its id: it is waited for by us alone.
        let id = Pid::from_raw(self.id() as i32).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in bytes, and its peak (Linux).
    pub fn memory_bytes(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever the test came to, nothing stays behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
