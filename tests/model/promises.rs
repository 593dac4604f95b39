//! What must always hold, by the number of its promise, and what must be seen at least once: a search that never meets
//! an outcome proves nothing about it.

use std::sync::atomic::{AtomicBool, Ordering};

use causeway::coordinator::protocol::Command;
use stateright::{Model, Property};

use super::{
    calm::Calm,
    steps::{Action, Rules},
    world::{Core, Gateway, Participant, Phase, Place, Why, World, Wrong},
};

/// The model that is searched.
pub struct Payment {
    pub rules: Rules,
    pub calm: Calm,
    /// Which properties are settled: a promise that is broken, an outcome that was met. The first time is enough.
    found: [AtomicBool; ALWAYS.len() + SOMETIMES.len()],
}

type Test = fn(&Payment, &World) -> bool;

/// What must hold in every world.
pub const ALWAYS: [(&str, Test); 12] = [
    ("1: no branch moves while another lets go", no_split),
    (
        "2: commit is decided only when every branch holds",
        commit_needs_every_hold,
    ),
    ("2: a decision never changes", one_decision),
    (
        "3: nothing is sent before what it follows from is durable",
        nothing_early,
    ),
    ("4: what is stored can be read", readable),
    (
        "4: once faults stop every schedule ends, and nobody is in doubt",
        Payment::ends,
    ),
    ("5: no wallet moves twice", moves_once),
    ("6: what has ended holds nothing and never will", ended_everywhere),
    ("7: an outcome is what a participant said", outcomes_are_said),
    (
        "9: after the time to decide nobody is asked to hold, and commit is not decided",
        nothing_late,
    ),
    ("no assertion of the core's own fails", possible),
    ("a broken word is never silent, and nobody else is blamed", never_silent),
];

/// The place of promise 4's second half in the list.
pub const ENDS: usize = 5;

/// What must be met in some world; and in which settings.
pub const SOMETIMES: [(&str, Test, Applies); 24] = [
    (
        "completed",
        |_, world| world.store.has_ended() && world.store.commits() == Some(true),
        always,
    ),
    (
        "aborted: a branch refused",
        |_, world| ended_by(world, Why::Refused),
        always,
    ),
    (
        "aborted: the votes were late",
        |_, world| ended_by(world, Why::TimedOut),
        always,
    ),
    ("aborted: cancelled", |_, world| ended_by(world, Why::Cancelled), always),
    (
        "aborted: a call was rejected",
        |_, world| ended_by(world, Why::Rejected),
        always,
    ),
    ("refused by one while all others hold", refused_by_one, always),
    (
        "nobody drives what is preparing",
        |model, world| left_in(model, world, Phase::Preparing),
        always,
    ),
    (
        "nobody drives what is committing",
        |model, world| left_in(model, world, Phase::Committing),
        always,
    ),
    (
        "nobody drives what is aborting",
        |model, world| left_in(model, world, Phase::Aborting),
        always,
    ),
    (
        "both drive what is preparing",
        |model, world| both_in(model, world, Phase::Preparing),
        two_gateways,
    ),
    (
        "both drive what is committing",
        |model, world| both_in(model, world, Phase::Committing),
        two_gateways,
    ),
    (
        "both drive what is aborting",
        |model, world| both_in(model, world, Phase::Aborting),
        two_gateways,
    ),
    (
        "commit meets an abort that was first",
        |_, world| meets(world, false),
        two_gateways,
    ),
    (
        "abort meets a commit that was first",
        |_, world| meets(world, true),
        two_gateways,
    ),
    (
        "a write outlives its writer",
        |_, world| !world.stray_write.is_empty(),
        always,
    ),
    ("a crash between a write and its effects", crash_before_effects, always),
    (
        "a late Prepare meets a tombstone",
        |_, world| {
            world
                .participants
                .iter()
                .any(|branch| branch.durable == Place::TombstoneMet)
        },
        always,
    ),
    ("a hold for a payment whose gateways are gone", orphaned_hold, always),
    ("an end that was shown is lost", end_lost, always),
    (
        "a participant acted and has not synced",
        |_, world| world.participants.iter().any(|branch| !branch.is_synced()),
        syncing,
    ),
    (
        "disputed: let go although commit was decided",
        |_, world| disputed(world, true),
        rogues,
    ),
    (
        "disputed: moved although abort was decided",
        |_, world| disputed(world, false),
        rogues,
    ),
    (
        "disputed: moved before any decision",
        |_, world| world.store.why() == Some(Why::MovedBefore),
        rogues,
    ),
    (
        "aborted: a participant remembers an abort",
        |_, world| ended_by(world, Why::RemembersAbort),
        rogues,
    ),
];

type Applies = fn(&Payment) -> bool;

fn always(_: &Payment) -> bool {
    true
}

fn two_gateways(model: &Payment) -> bool {
    model.rules.setting.gateways == 2
}

fn syncing(model: &Payment) -> bool {
    model.rules.setting.syncs
}

fn rogues(model: &Payment) -> bool {
    model.rules.setting.rogues > 0
}

impl Payment {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            calm: Calm::default(),
            found: [const { AtomicBool::new(false) }; ALWAYS.len() + SOMETIMES.len()],
        }
    }

    fn ends(&self, world: &World) -> bool {
        self.calm.ends(&self.rules, world)
    }

    /// Whether the promise holds; from the first world on in which it does not, the others are not asked.
    fn holds<const N: usize>(&self, world: &World) -> bool {
        self.found[N].load(Ordering::Relaxed) || ALWAYS[N].1(self, world) || self.found[N].swap(true, Ordering::Relaxed)
    }

    fn meets<const N: usize>(&self, world: &World) -> bool {
        let found = &self.found[ALWAYS.len() + N];
        !found.load(Ordering::Relaxed) && SOMETIMES[N].1(self, world) && !found.swap(true, Ordering::Relaxed)
    }

    fn branches<'a>(&self, world: &'a World) -> &'a [Participant] {
        &world.participants[..self.rules.setting.branches]
    }

    fn honest<'a>(&self, world: &'a World) -> impl Iterator<Item = &'a Participant> {
        self.branches(world).iter().filter(|branch| !branch.broke)
    }

    fn shown<'a>(&'a self, world: &'a World) -> impl Iterator<Item = Core> + 'a {
        world.gateways.iter().filter_map(|gateway| self.rules.shown(gateway))
    }
}

/// The checker takes plain functions: one for each place in the list.
macro_rules! numbered {
    ($kind:ident, $list:ident, $test:ident: $($number:literal)*) => {{
        let all = vec![$(Property::$kind($list[$number].0, |model: &Payment, world| model.$test::<$number>(world))),*];
        assert_eq!(all.len(), $list.len());
        all
    }};
}

impl Model for Payment {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.rules.start()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.rules.actions(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.rules.next(world, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = numbered!(always, ALWAYS, holds: 0 1 2 3 4 5 6 7 8 9 10 11);
        let sometimes =
            numbered!(sometimes, SOMETIMES, meets: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23);
        let applies = SOMETIMES.iter().map(|(_, _, applies)| applies(self));
        properties.extend(
            sometimes
                .into_iter()
                .zip(applies)
                .filter_map(|(property, applies)| applies.then_some(property)),
        );
        properties
    }
}

// What must always hold.

fn no_split(model: &Payment, world: &World) -> bool {
    let moved = model.honest(world).any(|branch| branch.durable == Place::Moved);
    let let_go = model.honest(world).any(|branch| branch.durable.is_let_go());
    !(moved && let_go)
}

fn commit_needs_every_hold(model: &Payment, world: &World) -> bool {
    let holds = |branch: &Participant| matches!(branch.durable, Place::Holding | Place::Moved);
    world.store.commits() != Some(true) || model.honest(world).all(holds)
}

fn one_decision(model: &Payment, world: &World) -> bool {
    let decided = world.store.commits();
    let agrees = |said: Option<bool>| said.is_none() || said == decided;
    let acted = model.honest(world).all(|branch| match branch.durable {
        Place::Moved => decided == Some(true),
        Place::Released | Place::Tombstone | Place::TombstoneMet => decided == Some(false),
        Place::Nothing | Place::Holding | Place::Refused => true,
    });
    let shown = model
        .shown(world)
        .all(|core| agrees(core.phase.commits()) && agrees(model.rules.real.commits(core)));
    acted && shown && world.store.decisions() <= 1
}

fn nothing_early(_: &Payment, world: &World) -> bool {
    !matches!(world.wrong, Some(Wrong::Early(_)))
}

fn readable(model: &Payment, world: &World) -> bool {
    world.wrong != Some(Wrong::Unreadable) && model.rules.real.fold(world.store).is_some()
}

fn moves_once(model: &Payment, world: &World) -> bool {
    model.branches(world).iter().all(|branch| branch.moved <= 1)
}

fn ended_everywhere(model: &Payment, world: &World) -> bool {
    let stored = world.store.has_ended().then(|| world.store.commits()).flatten();
    let shown = model
        .shown(world)
        .filter(|core| core.phase.has_ended())
        .filter_map(|core| core.phase.commits());
    stored.into_iter().chain(shown).all(|commits| {
        model.branches(world).iter().all(|branch| {
            if commits {
                branch.durable == Place::Moved
            } else {
                branch.durable.is_let_go()
            }
        })
    })
}

fn outcomes_are_said(model: &Payment, world: &World) -> bool {
    let any = |test: fn(&Participant) -> bool| model.branches(world).iter().any(test);
    match world.store.why() {
        Some(Why::Refused) => any(|branch| branch.durable == Place::Refused),
        Some(Why::RemembersAbort) => any(|branch| branch.broke && branch.durable == Place::Released),
        Some(Why::MovedBefore) => any(|branch| branch.broke && branch.durable == Place::Moved),
        Some(Why::TimedOut | Why::Cancelled | Why::Rejected) | None => true,
    }
}

fn nothing_late(_: &Payment, world: &World) -> bool {
    world.wrong != Some(Wrong::Late)
}

fn possible(_: &Payment, world: &World) -> bool {
    world.wrong != Some(Wrong::Impossible)
}

/// That every contradiction ends in a dispute is part of the fourth promise's test: see `calm.rs`.
fn never_silent(model: &Payment, world: &World) -> bool {
    !world.store.is_disputed() || model.branches(world).iter().any(|branch| branch.broke)
}

// What must be met.

fn ended_by(world: &World, why: Why) -> bool {
    world.store.has_ended() && world.store.why() == Some(why)
}

fn refused_by_one(model: &Payment, world: &World) -> bool {
    let count = |place| {
        model
            .branches(world)
            .iter()
            .filter(|branch| branch.durable == place)
            .count()
    };
    count(Place::Refused) == 1 && count(Place::Holding) == model.branches(world).len() - 1
}

fn left_in(model: &Payment, world: &World, phase: Phase) -> bool {
    let stored = model.rules.real.fold(world.store);
    model.shown(world).count() == 0 && stored.is_some_and(|core| core.phase == phase)
}

fn both_in(model: &Payment, world: &World, phase: Phase) -> bool {
    model.shown(world).filter(|core| core.phase == phase).count() == 2
}

/// A gateway is about to write one decision, and the store has the other.
fn meets(world: &World, stored: bool) -> bool {
    let wanted = |gateway: &Gateway| match gateway {
        Gateway::Outrun { decides, .. } => *decides,
        Gateway::Writing { .. } | Gateway::Driving(_) | Gateway::Away => None,
    };
    world.store.commits() == Some(stored) && world.gateways.iter().any(|gateway| wanted(gateway) == Some(!stored))
}

/// The decision is durable and nothing of it has been sent.
fn crash_before_effects(_: &Payment, world: &World) -> bool {
    let untold = |branch: &Participant| branch.durable == Place::Holding;
    let away = world.gateways.iter().all(|gateway| *gateway == Gateway::Away);
    let unsent = world.strays.iter().all(|strays| !strays.has(Command::Commit));
    away && unsent && world.store.commits() == Some(true) && world.participants.iter().any(untold)
}

fn orphaned_hold(_: &Payment, world: &World) -> bool {
    let away = world.gateways.iter().all(|gateway| *gateway == Gateway::Away);
    away && world.store.len() == 1 && world.participants.iter().any(|branch| branch.durable == Place::Holding)
}

fn end_lost(_: &Payment, world: &World) -> bool {
    let away = world.gateways.iter().all(|gateway| *gateway == Gateway::Away);
    away && world.end_shown && !world.store.has_ended() && world.stray_write.is_empty()
}

fn disputed(world: &World, commits: bool) -> bool {
    world.store.is_disputed() && world.store.commits() == Some(commits)
}
