//! Seeded bugs: does anything notice? Each is what a hasty engineer might have written; the model or the simulation must
//! catch every one.
//!
//! The product's source stays as it is. The bugs are listed in `core.toml`, `driver.toml`, `edge.toml` and `money.toml`: a text that
//! is in a file exactly once, and what takes its place, in which `crate::mutant::on("name")` chooses between the two. All of
//! them go into one copy of the tree (`target/mutants/tree`), which is built once; `CAUSEWAY_MUTANT=name` arms one. The
//! copy with no bug armed must pass, so that a catch is the bug's and not the copy's.
//!
//! A catch is a broken promise that is named: `model: violated: ...` or `simulation: broken promise ...`, and a failing
//! exit. A time-out, a crash of the harness or a number that differs is none.
//!
//! `cargo test --release --test mutants` does all that; an unoptimised build only checks that each text is still there once
//! and that docs/proof.md names each bug. `CAUSEWAY_MUTANTS=one,two` tries these alone; `UPDATE_DOCS=1` writes the table into
//! docs/proof.md. Why `harness = false`: as for the model, the table is to be seen.

mod hunt;
mod list;
mod table;
mod tree;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use libtest_mimic::{Arguments, Failed, Trial};

/// What is said after the list of tests.
static REPORT: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("every seeded bug still fits the code", fits),
        Trial::test("the page of proof names every seeded bug", named),
    ];
    if !cfg!(debug_assertions) {
        trials.push(Trial::test("every seeded bug is caught", caught));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    print!("{}", REPORT.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    conclusion.exit_code()
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the copy is, and what the runs have said.
fn work() -> PathBuf {
    root().join("target/mutants")
}

fn fits() -> Result<(), Failed> {
    let bugs = list::read()?;
    let files = list::apply(&bugs, |file| {
        std::fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))
    })?;
    if bugs.len() < 25 || files.is_empty() {
        return Err(format!("only {} bugs in {} files", bugs.len(), files.len()).into());
    }
    Ok(())
}

fn named() -> Result<(), Failed> {
    let bugs = list::read()?;
    table::check(&bugs).map_err(Failed::from)
}

fn caught() -> Result<(), Failed> {
    let mut bugs = list::read()?;
    if let Ok(names) = std::env::var("CAUSEWAY_MUTANTS") {
        let wanted: Vec<_> = names.split(',').collect();
        if let Some(unknown) = wanted.iter().find(|name| bugs.iter().all(|bug| bug.name != **name)) {
            return Err(format!("CAUSEWAY_MUTANTS: there is no {unknown}").into());
        }
        bugs.retain(|bug| wanted.contains(&bug.name.as_str()));
    }
    let programs = tree::build(&list::read()?)?;
    hunt::healthy(&programs)?;
    let caught = hunt::hunt(&programs, &bugs);
    let count = caught.iter().filter(|(_, found)| found.is_ok()).count();
    let mut report = table::text(&caught);
    report += &format!("mutants: {count} of {} caught\n", bugs.len());
    REPORT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push_str(&report);
    if count < bugs.len() {
        return Err(format!("{} seeded bugs were not noticed", bugs.len() - count).into());
    }
    table::update(&caught).map_err(Failed::from)
}
