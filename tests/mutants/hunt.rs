//! One bug at a time: who notices, and after how much.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, ExitStatus},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{list::Bug, tree::Programs, work};

/// How many payments the simulation makes at most to notice a bug.
const PAYMENTS_MAX: u32 = 4_000;
/// From where its campaign is drawn.
const SEED: u32 = 1;
/// How long a run may take: of a healthy copy, and so of one in which nothing is noticed.
const RUN_MAX: Duration = Duration::from_secs(420);
/// How many bugs are hunted at once.
const HUNTS: usize = 2;
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How a bug was noticed.
#[derive(Clone, Debug)]
pub struct Catch {
    /// By which test binary.
    pub by: String,
    /// What was broken, in its words.
    pub broken: String,
    /// After how many payments or states.
    pub after: String,
}

/// What a run came to.
struct Run {
    /// `None` if it was ended for its length.
    status: Option<ExitStatus>,
    said: String,
}

/// Without a bug everything passes.
pub fn healthy(programs: &Programs) -> Result<(), String> {
    for (name, program) in programs {
        let run = run(name, program, "")?;
        if !run.status.is_some_and(|status| status.success()) || caught(name, &run).is_some() {
            return Err(format!("with no bug armed {name} does not pass: {}", tail(&run.said)));
        }
    }
    Ok(())
}

/// Hunts every bug; in the order of the list, who noticed it or why nobody did.
pub fn hunt<'a>(programs: &Programs, bugs: &'a [Bug]) -> Vec<(&'a Bug, Result<Catch, String>)> {
    let next = Mutex::new(0..bugs.len());
    let found: Mutex<Vec<Option<Result<Catch, String>>>> = Mutex::new(vec![None; bugs.len()]);
    thread::scope(|scope| {
        for _ in 0..HUNTS {
            scope.spawn(|| {
                while let Some(index) = next.lock().unwrap_or_else(PoisonError::into_inner).next() {
                    let bug = &bugs[index];
                    let result = hunt_one(programs, bug);
                    eprintln!("{}: {}", bug.name, describe(&result));
                    found.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    bugs.iter()
        .zip(found)
        .map(|(bug, found)| (bug, found.expect("every bug was hunted")))
        .collect()
}

fn hunt_one(programs: &Programs, bug: &Bug) -> Result<Catch, String> {
    let mut missed = Vec::new();
    for name in &bug.hunters {
        let Some(program) = programs.get(name) else {
            missed.push(format!("there is no {name}"));
            continue;
        };
        let run = run(name, program, &bug.name)?;
        match (caught(name, &run), run.status) {
            (Some(catch), Some(status)) if !status.success() => return Ok(catch),
            (_, None) => missed.push(format!("{name} was ended after {} s", RUN_MAX.as_secs())),
            (_, Some(status)) if status.success() => missed.push(format!("{name} passes")),
            (_, Some(status)) => missed.push(format!("{name} names no promise ({status}): {}", tail(&run.said))),
        }
    }
    Err(missed.join("; "))
}

fn describe(result: &Result<Catch, String>) -> String {
    match result {
        Ok(catch) => format!("caught by {}: {} after {}", catch.by, catch.broken, catch.after),
        Err(missed) => format!("NOT CAUGHT: {missed}"),
    }
}

/// Runs a test binary with a bug armed, or none.
fn run(name: &str, program: &Path, bug: &str) -> Result<Run, String> {
    let out = work().join("out");
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let path = out.join(format!("{}-{name}.txt", if bug.is_empty() { "none" } else { bug }));
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let copy = file
        .try_clone()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let mut command = Command::new(program);
    command
        .current_dir(work().join("tree"))
        .env("CAUSEWAY_MUTANT", bug)
        .env("CAUSEWAY_MODEL", "quick")
        .env("SIM_PAYMENTS", PAYMENTS_MAX.to_string())
        .env("SIM_SEED", SEED.to_string())
        .stdin(std::process::Stdio::null())
        .stdout(file)
        .stderr(copy);
    if name == "simulation" {
        command.arg("the_promises_hold");
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let end = Instant::now() + RUN_MAX;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break Some(status),
            None if Instant::now() < end => thread::sleep(LOOK),
            None => {
                child
                    .kill()
                    .and_then(|()| child.wait())
                    .map_err(|error| error.to_string())?;
                break None;
            }
        }
    };
    let said = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Run {
        status,
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

/// The broken promise that a run names, if it does.
fn caught(name: &str, run: &Run) -> Option<Catch> {
    let by = name.to_owned();
    let line = |start: &str| {
        run.said
            .lines()
            .find_map(|line| line.strip_prefix(start).map(str::to_owned))
    };
    match name {
        "model" => Some(Catch {
            by,
            broken: line("model: violated: ")?,
            after: line("after ")?.trim_end_matches(':').to_owned(),
        }),
        // "simulation: broken promise 2 after 120 payments: what"
        "simulation" => {
            let said = line("simulation: broken promise ")?;
            let (promise, rest) = said.split_once(" after ")?;
            let (after, what) = rest.split_once(": ")?;
            Some(Catch {
                by,
                broken: format!("{promise}: {what}"),
                after: after.to_owned(),
            })
        }
        // Any other: the first test that fails.
        _ => Some(Catch {
            by,
            broken: run
                .said
                .lines()
                .find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))?
                .to_owned(),
            after: "1 run".to_owned(),
        }),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
