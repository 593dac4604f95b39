//! Every order of everything that can happen to one payment, searched by stateright over the real `decide` and `apply`.
//!
//! A payment with two or three participants is begun, driven, cancelled, taken up and ended by one or two gateways on one
//! store. At any instant
//! - a message is lost, doubled, late, or overtakes another: what was sent once may arrive at any time, any number of
//!   times, or never; a call may be given up at any time, its request or its answer still on its way;
//! - a process of a gateway dies, between any two steps of the driver: before a write, between a write and its answer,
//!   between the answer and what is sent because of it; its write is lost, or reaches the store after all, later;
//! - the store turns a write away, or another gateway was first;
//! - a participant dies with what it had not yet synced;
//! - a clock says whatever it likes: in time or late, at every step anew.
//!
//! **What is bounded.** The number of branches (2, 3), of gateways (1, 2) and of payments (1: no rule speaks of two).
//! Nothing else: no fault is counted. The search ends because a world is kept in a form in which it does not grow.
//! Commands on their way are a set, for receiving one twice is the same as its being doubled; attempts are "the last one" or
//! "an earlier one", for `decide` compares them and nothing more; how long a wait lasts is for the search to choose.
//! `lockstep.rs` walks real states beside these forms and finds no difference.
//!
//! **What is left out.** Amounts, names and words: they decide nothing. How long ladders are, lanes, and the pace of
//! repeated commands: they delay, and a delay is any order. That a clock is put back (a unit test of `protocol`).
//! Quotes, decoding, the real store and the real network: the simulation has them.
//!
//! Why `harness = false`: the closing line must be seen in plain `cargo test`, which swallows what passing tests print.
//! `libtest-mimic` keeps the usual arguments (`--list`, a filter, `--exact`) working.
//!
//! `CAUSEWAY_MODEL=quick` searches the small settings only, as an unoptimised build always does.

mod calm;
mod lockstep;
mod participant;
mod promises;
mod real;
mod steps;
mod tell;
mod world;

use std::{
    collections::BTreeMap,
    env, panic,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use libtest_mimic::{Arguments, Failed, Trial};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use promises::{ALWAYS, Payment};
use real::Real;
use steps::Rules;

/// What is searched, and how many different worlds there are in it.
#[derive(Clone, Copy, Debug)]
struct Setting {
    name: &'static str,
    /// Searched by unoptimised builds, too.
    quick: bool,
    branches: usize,
    gateways: usize,
    /// How many of the participants may break their word.
    rogues: usize,
    /// Whether a participant acts, syncs, and answers in three steps. Otherwise it acts and syncs in one.
    syncs: bool,
    /// Whether answers turn up to calls that others have replaced. The driver drops those; `decide` need not rely on it.
    stale_answers: bool,
    /// Pinned: a change of the protocol or of the model changes it, and is to be looked at.
    states: usize,
}

const SETTINGS: [Setting; 6] = [
    Setting {
        name: "two participants, one gateway",
        quick: true,
        branches: 2,
        gateways: 1,
        rogues: 0,
        syncs: false,
        stale_answers: false,
        states: 23_588,
    },
    Setting {
        name: "two participants that sync, one gateway, stale answers",
        quick: true,
        branches: 2,
        gateways: 1,
        rogues: 0,
        syncs: true,
        stale_answers: true,
        states: 128_675,
    },
    Setting {
        name: "two participants of which one breaks its word, one gateway",
        quick: true,
        branches: 2,
        gateways: 1,
        rogues: 1,
        syncs: false,
        stale_answers: false,
        states: 90_859,
    },
    Setting {
        name: "two participants that break their word, one gateway",
        quick: false,
        branches: 2,
        gateways: 1,
        rogues: 2,
        syncs: false,
        stale_answers: false,
        states: 354_018,
    },
    Setting {
        name: "three participants, one gateway",
        quick: false,
        branches: 3,
        gateways: 1,
        rogues: 0,
        syncs: false,
        stale_answers: false,
        states: 607_845,
    },
    Setting {
        name: "two participants, two gateways",
        quick: false,
        branches: 2,
        gateways: 2,
        rogues: 0,
        syncs: false,
        stale_answers: false,
        states: 1_245_436,
    },
];

/// What each search has to say, for after the list of tests.
static REPORT: Mutex<String> = Mutex::new(String::new());
/// What all searches together have seen.
static STATES: AtomicUsize = AtomicUsize::new(0);
static PROPERTIES: AtomicUsize = AtomicUsize::new(0);
static VIOLATED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each search takes all cores.
    arguments.test_threads = Some(1);
    let quick = cfg!(debug_assertions) || env::var_os("CAUSEWAY_MODEL").is_some_and(|value| value == "quick");
    let settings = SETTINGS.into_iter().filter(|setting| setting.quick || !quick);
    let mut trials = vec![Trial::test("the small forms leave out nothing that matters", || {
        lockstep::check().map_err(Failed::from)
    })];
    trials.extend(settings.map(|setting| Trial::test(setting.name, move || search(setting))));

    let list = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !list {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (states, properties, violated) = (count(&STATES), count(&PROPERTIES), count(&VIOLATED));
        let report = REPORT.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{report}model: {states} states, {properties} properties, {violated} violated");
    }
    conclusion.exit_code()
}

/// Searches one setting to its end, or to the first promise that is broken.
fn search(setting: Setting) -> Result<(), Failed> {
    let start = Instant::now();
    // An assertion of the core's that fails is a result: `Wrong::Impossible`.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let model = Payment::new(Rules {
        real: Real::new(setting.branches),
        setting,
    });
    let checker = model
        .checker()
        .threads(thread::available_parallelism().map_or(1, usize::from))
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    panic::set_hook(hook);

    let states = checker.unique_state_count();
    STATES.fetch_add(states, Ordering::Relaxed);
    let mut found: BTreeMap<_, _> = checker.discoveries().into_iter().collect();
    let properties = checker.model().properties();
    PROPERTIES.fetch_add(properties.len(), Ordering::Relaxed);
    let mut report = format!("model: {}: {states} states, {:.1?}\n", setting.name, start.elapsed());

    let rules = &checker.model().rules;
    let mut problems = Vec::new();
    for property in &properties {
        match (&property.expectation, found.remove(property.name)) {
            (Expectation::Sometimes, Some(_)) | (Expectation::Always | Expectation::Eventually, None) => {}
            (Expectation::Sometimes, None) => problems.push(format!("never met: {}", property.name)),
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                VIOLATED.fetch_add(1, Ordering::Relaxed);
                let last = *path.last_state();
                let mut text = tell::tell(rules, path);
                if property.name == ALWAYS[promises::ENDS].0
                    && let Some(end) = checker.model().calm.breach(rules, &last)
                {
                    text += &format!(
                        "and from there, without another fault, to\n{}",
                        tell::describe(rules, &end)
                    );
                }
                report += &format!("model: violated: {}\nafter {states} states:\n{text}", property.name);
                problems.push(format!("violated: {}", property.name));
            }
        }
    }
    REPORT.lock().unwrap_or_else(PoisonError::into_inner).push_str(&report);
    // A search that was cut short has met less.
    if VIOLATED.load(Ordering::Relaxed) > 0 {
        problems.retain(|problem| problem.starts_with("violated"));
    } else if states != setting.states {
        problems.push(format!("{states} states, and {} are pinned", setting.states));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("; ").into())
    }
}
