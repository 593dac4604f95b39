//! That the small forms of `world.rs` leave out nothing that matters: real states, with attempts that count up, failures,
//! ladders with jitter and a clock that runs, are walked at random beside their small forms. After every input both must
//! agree on all that the search looks at.

use std::{collections::BTreeSet, sync::Arc};

use causeway::{
    coordinator::protocol::{self, Delivery, Durability, Event, Policy, Record, State, apply, decide, fold, wake_at},
    payment::{BranchId, Reason},
};

use super::{
    real::{BEGIN_MS, DECIDE_BY_MS, Real, answer, entry, fold_up, fold_up_step, outcome},
    world::{Input, Phase, Records, Reply, Said},
};

const WALKS: u64 = 2_000;
const STEPS: usize = 60;
const SAID: [Said; 7] = [
    Said::Reply(Reply::Prepared),
    Said::Reply(Reply::Refused),
    Said::Reply(Reply::Committed),
    Said::Reply(Reply::Aborted),
    Said::Reply(Reply::Missing),
    Said::Unknown,
    Said::Rejected,
];

/// A real transaction on its way.
struct Walk<'a> {
    real: &'a Real,
    policy: Policy,
    state: State,
    written: Vec<Record>,
    now_ms: i64,
    chance: Chance,
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % count as u64) as usize
    }
}

/// Walks; what differs is said with the seed of its walk.
pub fn check() -> Result<(), String> {
    let mut met = BTreeSet::new();
    for seed in 0..WALKS {
        let real = Real::new(1 + (seed % 3) as usize);
        let mut walk = Walk {
            real: &real,
            policy: Policy::default(),
            state: State::Absent,
            written: Vec::new(),
            now_ms: BEGIN_MS,
            chance: Chance(seed),
        };
        for step in 0..STEPS {
            let key = walk
                .step()
                .map_err(|problem| format!("walk {seed}, step {step}: {problem}"))?;
            met.insert(key);
        }
    }
    // Every phase but absent meets every input but a beginning, and every answer, in time and late where that can be.
    if met.len() < 100 {
        return Err(format!(
            "only {} pairs of a phase and an input were met: {met:?}",
            met.len()
        ));
    }
    Ok(())
}

impl Walk<'_> {
    fn step(&mut self) -> Result<(Phase, String, bool), String> {
        let over = self.pass_time();
        let late = self.now_ms > DECIDE_BY_MS;
        let core = fold_up(&self.state);
        let woken = wake_at(&self.state).is_some_and(|at_ms| at_ms <= self.now_ms);
        if woken != self.real.wakes(core, over, late) {
            return Err(format!("woken: {woken}, of {:?} as {core:?}", self.state));
        }
        let (small, input) = self.choose(over);
        if small == Input::Recover {
            self.state = fold(&self.written).map_err(|impossible| impossible.to_string())?;
        }
        let core = if small == Input::Recover {
            let written = Records::of(self.written.iter().map(|record| entry(&record.event)));
            self.real.fold(written).ok_or("what was written cannot be read")?
        } else {
            core
        };
        if core != fold_up(&self.state) {
            return Err(format!("read back as {core:?}: {:?}", self.state));
        }
        let step = decide(&self.policy, &self.state, input, self.now_ms);
        let first = step
            .records
            .first()
            .map_or_else(|| self.state.clone(), |record| apply(self.state.clone(), record));
        let after = step.records.iter().fold(self.state.clone(), apply);
        let found = fold_up_step(&self.state, &step, &first, &after, late);
        let expected = self.real.step(core, small, late);
        if found != expected {
            return Err(format!(
                "{small:?} of {:?}\nreally {found:?}\nsmall {expected:?}",
                self.state
            ));
        }
        let durable = |record: &&Record| record.event.durability() > Durability::Volatile;
        self.written.extend(step.records.iter().filter(durable).cloned());
        // A history with more disputes than the search has room for comes of answers that no participant gives.
        let disputes = self
            .written
            .iter()
            .filter(|record| matches!(record.event, Event::Disputed { .. }))
            .count();
        self.state = after;
        if disputes > 2 {
            self.state = State::Absent;
            self.written.clear();
            self.now_ms = BEGIN_MS;
        }
        let name = match small {
            Input::Answer { said, current, .. } => format!("{said:?} {current}"),
            other => format!("{other:?}"),
        };
        Ok((core.phase, name, late))
    }

    /// Lets the clock run, so far that one wait is over, or none. Says which.
    fn pass_time(&mut self) -> Option<u8> {
        let mut waits = self.waits();
        waits.sort_unstable();
        let (at_ms, branch) = match (waits.first(), self.chance.below(4)) {
            (Some((at_ms, branch)), 0 | 1) => (*at_ms, Some(*branch)),
            (Some((at_ms, _)), _) => ((self.now_ms + 50).min(at_ms - 1), None),
            (None, 0) => (DECIDE_BY_MS + 1, None),
            (None, _) => (self.now_ms + 50, None),
        };
        self.now_ms = self.now_ms.max(at_ms);
        // Two waits that are over at once: the first is enough, the other is woken next.
        let over = |(until_ms, _): &&(i64, u8)| *until_ms <= self.now_ms;
        if waits.iter().filter(over).count() > 1 {
            self.state = State::Absent;
            self.written.clear();
            self.now_ms = BEGIN_MS;
            return None;
        }
        branch
    }

    fn waits(&self) -> Vec<(i64, u8)> {
        let State::Present(transaction) = &self.state else {
            return Vec::new();
        };
        let wait = |(at, branch): (usize, &protocol::Branch)| match branch.delivery {
            Delivery::Waiting { until_ms } => Some((until_ms, at as u8)),
            Delivery::Idle | Delivery::InFlight(_) => None,
        };
        transaction.branches.iter().enumerate().filter_map(wait).collect()
    }

    /// An input, small and real.
    fn choose(&mut self, over: Option<u8>) -> (Input, protocol::Input) {
        let State::Present(transaction) = &self.state else {
            let terms = Arc::clone(self.real.terms());
            return (Input::Begin, protocol::Input::Begin(terms));
        };
        // What is over is woken, not left lying: the search wakes it before anything else, too.
        if over.is_some() {
            return (Input::Wake(over), protocol::Input::Wake);
        }
        match self.chance.below(40) {
            0 => (Input::Recover, protocol::Input::Recover),
            1 => (Input::Cancel, protocol::Input::Cancel(outcome(Reason::Cancelled))),
            2 | 3 => (Input::Wake(None), protocol::Input::Wake),
            _ => {
                let branch = self.chance.below(transaction.branches.len());
                let current = self.chance.below(4) > 0;
                let attempt = transaction.branches[branch].attempt;
                // Mostly what does not decide, so that a walk is long.
                let mut said = SAID[self.chance.below(SAID.len())];
                if self.chance.below(2) == 0 {
                    said = Said::Unknown;
                }
                let real = protocol::Input::Answer {
                    branch: BranchId::at(branch),
                    attempt: if current {
                        attempt
                    } else {
                        attempt.wrapping_sub(1 + self.chance.below(2) as u32)
                    },
                    answer: answer(said),
                };
                let branch = branch as u8;
                (Input::Answer { branch, said, current }, real)
            }
        }
    }
}
