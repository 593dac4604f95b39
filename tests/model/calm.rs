//! Promise 4, the half that safety does not show: once faults stop, every schedule of what is left comes to an end, and
//! at that end nobody is in doubt.
//!
//! From each world that the search meets, every calm action (see `Action::is_calm`) is followed, in every order, to the
//! end. A schedule that comes back to a world it has been in could go on for ever: a breach. So could one that stops
//! where something is still open. A world that has passed is not entered again, so all of it together costs about as much
//! as the search itself. What is assumed is fairness alone: that what can happen does at last.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use super::{
    steps::{Action, Rules},
    world::{Gateway, Place, World},
};

const SHARDS: u64 = 64;

/// What is known to end.
pub struct Calm {
    hasher: RandomState,
    ended: Vec<Mutex<HashSet<u64>>>,
}

/// A world on the way down, and what has not been tried from it.
struct Visit {
    print: u64,
    next: Vec<World>,
}

impl Default for Calm {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            ended: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Calm {
    /// Whether every calm schedule from here ends well.
    pub fn ends(&self, rules: &Rules, world: &World) -> bool {
        self.breach(rules, world).is_none()
    }

    /// A world in which a calm schedule from here comes to a bad end, or to which it comes back for ever.
    pub fn breach(&self, rules: &Rules, world: &World) -> Option<World> {
        let mut way: Vec<Visit> = Vec::new();
        let mut on_the_way = HashMap::new();
        let mut entering = Some(*world);
        loop {
            if let Some(world) = entering.take() {
                let print = self.hasher.hash_one(world);
                if on_the_way.contains_key(&print) {
                    return Some(world);
                }
                if !self.has_ended(print) {
                    let next = calm_steps(rules, &world);
                    if next.is_empty() && !ends_well(rules, &world) {
                        return Some(world);
                    }
                    on_the_way.insert(print, ());
                    way.push(Visit { print, next });
                }
            }
            let visit = way.last_mut()?;
            match visit.next.pop() {
                Some(next) => entering = Some(next),
                None => {
                    let done = way.pop().expect("it is the last");
                    on_the_way.remove(&done.print);
                    self.shard(done.print).insert(done.print);
                }
            }
        }
    }

    fn has_ended(&self, print: u64) -> bool {
        self.shard(print).contains(&print)
    }

    fn shard(&self, print: u64) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.ended[(print % SHARDS) as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn calm_steps(rules: &Rules, world: &World) -> Vec<World> {
    let mut actions: Vec<Action> = Vec::new();
    rules.actions(world, &mut actions);
    let calm = actions.into_iter().filter(|action| action.is_calm());
    calm.filter_map(|action| rules.next(world, action)).collect()
}

/// Nothing goes on; was there nothing left to do?
fn ends_well(rules: &Rules, world: &World) -> bool {
    // What is wrong already is told by the promise that it breaks.
    if world.wrong.is_some() {
        return true;
    }
    let branches = &world.participants[..rules.setting.branches];
    let nobody_waits = world.gateways.iter().all(|gateway| *gateway == Gateway::Away);
    let nobody_in_doubt = branches
        .iter()
        .all(|branch| branch.memory != Place::Holding && branch.is_synced());
    let over = match rules.real.fold(world.store) {
        Some(core) => rules.real.is_quiet(core),
        None => false,
    };
    // A broken word must be seen in the end: money that moved although abort was decided, or did not although commit was.
    let contradicted = world.store.commits().is_some_and(|commits| {
        branches
            .iter()
            .any(|branch| (branch.durable == Place::Moved) != commits)
    });
    nobody_waits && nobody_in_doubt && over && (!contradicted || world.store.is_disputed())
}
