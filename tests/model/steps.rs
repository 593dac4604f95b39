//! Everything that can happen next, and what comes of it. What a gateway does is what `src/coordinator/driver.rs` does:
//! forced records go through the store's compare-and-set before effects are released, and so on, step by step.

use causeway::coordinator::protocol::Command;

use super::{
    Setting,
    real::{Real, Step},
    world::{
        BRANCHES_MAX, Call, Core, GATEWAYS, Gateway, Input, Memory, Participant, Place, Records, Reply, Said, UnderWay,
        World, Wrong,
    },
};

/// What can happen. `late` is after the time to decide, by the clock of whoever acts: clocks are arbitrary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The caller's request arrives, for the first time or again.
    Request { gateway: usize, late: bool },
    /// A gateway that does not drive the payment finds it in the store.
    TakeUp { gateway: usize, late: bool },
    /// The caller cancels.
    Cancel { gateway: usize, late: bool },
    /// Time passes: the wait of a branch is over, or the time to decide.
    Wake {
        gateway: usize,
        over: Option<u8>,
        late: bool,
    },
    /// The store does what the gateway asked for.
    Store { gateway: usize },
    /// The gateway hears that another was first, and reads what that one wrote.
    Read { gateway: usize, late: bool },
    /// The gateway hears that its write is done.
    Stored { gateway: usize, late: bool },
    /// The store turns the write away; the gateway decides anew, later.
    TurnAway { gateway: usize },
    /// The process dies. Its write, if one is on its way, is lost or goes on without it.
    Crash { gateway: usize, write_goes_on: bool },
    /// The write of a process that has died arrives.
    StrayWrite,
    /// A call's request arrives; the participant votes so, if it has to.
    Deliver { gateway: usize, branch: usize, yes: bool },
    /// A copy of a command that was sent some time arrives; nobody waits for the answer.
    Stray { branch: usize, command: Command, yes: bool },
    /// A call's answer arrives.
    Answer { gateway: usize, branch: usize, late: bool },
    /// A call is given up: its request or its answer is lost, or slow.
    TimeOut { gateway: usize, branch: usize, late: bool },
    /// A call is rejected by whoever stands before the participant.
    Reject { gateway: usize, branch: usize, late: bool },
    /// An answer to a call that another has replaced turns up all the same.
    Stale {
        gateway: usize,
        branch: usize,
        reply: Reply,
        late: bool,
    },
    /// A participant in doubt asks a gateway for the decision.
    Ask { gateway: usize, branch: usize },
    /// A participant's disk has what its memory has.
    Sync { branch: usize },
    /// A participant's process dies and starts again.
    CrashParticipant { branch: usize },
    /// A participant breaks its word.
    Break { branch: usize, deed: Deed },
}

/// How a participant that has voted yes can break its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It forgets the hold and all about it.
    Forget,
    /// It lets go by itself.
    LetGo,
    /// It moves the money by itself.
    Move,
}

impl Action {
    /// Whether it goes on happening when faults have stopped. What is on its way may still arrive.
    pub fn is_calm(self) -> bool {
        match self {
            Self::TakeUp { .. }
            | Self::Wake { .. }
            | Self::Store { .. }
            | Self::Read { .. }
            | Self::Stored { .. }
            | Self::StrayWrite
            | Self::Deliver { .. }
            | Self::Stray { .. }
            | Self::Answer { .. }
            | Self::Ask { .. }
            | Self::Sync { .. } => true,
            Self::Request { .. }
            | Self::Cancel { .. }
            | Self::TurnAway { .. }
            | Self::Crash { .. }
            | Self::TimeOut { .. }
            | Self::Reject { .. }
            | Self::Stale { .. }
            | Self::CrashParticipant { .. }
            | Self::Break { .. } => false,
        }
    }
}

/// By any clock it may be in time or late, at every step anew.
const CLOCKS: [bool; 2] = [false, true];

/// The rules of one setting.
pub struct Rules {
    pub real: Real,
    pub setting: Setting,
}

impl Rules {
    pub fn start(&self) -> World {
        let mut world = World::default();
        for participant in &mut world.participants[..self.setting.rogues] {
            participant.rogue = true;
        }
        world
    }

    /// Everything that can happen now. Some of it may change nothing.
    pub fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // A promise is broken already: what follows from it is of no interest.
        if world.wrong.is_some() {
            return;
        }
        for gateway in 0..GATEWAYS {
            self.gateway_actions(world, gateway, actions);
        }
        for branch in 0..self.setting.branches {
            self.participant_actions(world, branch, actions);
        }
        if !world.stray_write.is_empty() {
            actions.push(Action::StrayWrite);
        }
    }

    fn gateway_actions(&self, world: &World, gateway: usize, actions: &mut Vec<Action>) {
        match world.gateways[gateway] {
            Gateway::Away => {
                let driving = world.gateways.iter().filter(|other| **other != Gateway::Away).count();
                // Of two that are away either may act, and they are the same.
                let first = world.gateways.iter().position(|other| *other == Gateway::Away) == Some(gateway);
                if driving < self.setting.gateways && first {
                    actions.extend(CLOCKS.map(|late| Action::Request { gateway, late }));
                    if self.is_unfinished(world) {
                        actions.extend(CLOCKS.map(|late| Action::TakeUp { gateway, late }));
                    }
                }
            }
            Gateway::Driving(memory) => {
                actions.push(Action::Crash {
                    gateway,
                    write_goes_on: false,
                });
                self.driving_actions(world, gateway, &memory, actions);
            }
            Gateway::Outrun { .. } => {
                actions.push(Action::Crash {
                    gateway,
                    write_goes_on: false,
                });
                actions.extend(CLOCKS.map(|late| Action::Read { gateway, late }));
            }
            Gateway::Writing { memory, landed, .. } => {
                actions.push(Action::Crash {
                    gateway,
                    write_goes_on: false,
                });
                if landed {
                    actions.extend(CLOCKS.map(|late| Action::Stored { gateway, late }));
                } else {
                    actions.push(Action::Store { gateway });
                    actions.push(Action::TurnAway { gateway });
                    actions.push(Action::Crash {
                        gateway,
                        write_goes_on: true,
                    });
                }
                // Calls go on while the driver waits; it looks at what came of them afterwards.
                self.delivery_actions(world, gateway, &memory, actions);
            }
        }
    }

    fn driving_actions(&self, world: &World, gateway: usize, memory: &Memory, actions: &mut Vec<Action>) {
        let core = memory.core;
        self.delivery_actions(world, gateway, memory, actions);
        for late in CLOCKS {
            actions.push(Action::Cancel { gateway, late });
            let wake = |over| Action::Wake { gateway, over, late };
            if self.real.wakes(core, None, late) {
                actions.push(wake(None));
            }
            for branch in 0..self.setting.branches {
                let waits = core.under_way[branch] == UnderWay::Waiting;
                if waits && self.real.wakes(core, Some(branch as u8), late) {
                    actions.push(wake(Some(branch as u8)));
                }
                match memory.calls[branch] {
                    Call::None => {}
                    Call::Open { .. } | Call::Unsynced { .. } => {
                        actions.push(Action::TimeOut { gateway, branch, late });
                        actions.push(Action::Reject { gateway, branch, late });
                    }
                    Call::Answered { .. } => {
                        actions.push(Action::TimeOut { gateway, branch, late });
                        actions.push(Action::Reject { gateway, branch, late });
                        actions.push(Action::Answer { gateway, branch, late });
                    }
                }
                if self.setting.stale_answers {
                    let said = world.participants[branch].durable.may_have_said();
                    actions.extend(said.iter().map(|&reply| Action::Stale {
                        gateway,
                        branch,
                        reply,
                        late,
                    }));
                }
            }
        }
    }

    fn delivery_actions(&self, world: &World, gateway: usize, memory: &Memory, actions: &mut Vec<Action>) {
        for branch in 0..self.setting.branches {
            if let Call::Open { command, .. } = memory.calls[branch] {
                let votes = votes(&world.participants[branch], command);
                actions.extend(votes.iter().map(|&yes| Action::Deliver { gateway, branch, yes }));
            }
        }
    }

    fn participant_actions(&self, world: &World, branch: usize, actions: &mut Vec<Action>) {
        let participant = &world.participants[branch];
        for command in [Command::Prepare, Command::Commit, Command::Abort] {
            if world.strays[branch].has(command) {
                let votes = votes(participant, command);
                actions.extend(votes.iter().map(|&yes| Action::Stray { branch, command, yes }));
            }
        }
        if participant.durable == Place::Holding {
            actions.extend((0..GATEWAYS).map(|gateway| Action::Ask { gateway, branch }));
            // Only what it does after a yes and before it knows the decision: later, nobody would ask.
            if participant.rogue && participant.is_synced() {
                actions.extend([Deed::Forget, Deed::LetGo, Deed::Move].map(|deed| Action::Break { branch, deed }));
            }
        }
        if self.setting.syncs {
            actions.push(Action::Sync { branch });
            actions.push(Action::CrashParticipant { branch });
        }
    }

    /// What comes of it; `None` if nothing does.
    pub fn next(&self, world: &World, action: Action) -> Option<World> {
        let mut next = self.plain(self.happen(world, action));
        if next.is_mirrored() {
            next.gateways.swap(0, 1);
        }
        (next != *world).then_some(next)
    }

    /// The one form of all worlds that behave the same, but for the order of the gateways.
    pub fn plain(&self, mut world: World) -> World {
        let version = world.store.len();
        for gateway in &mut world.gateways {
            self.forget_idle(gateway, version);
        }
        for branch in 0..self.setting.branches {
            let participant = world.participants[branch];
            participant.forget_harmless(&mut world.strays[branch]);
            if participant.says_one_thing() {
                // When the request arrives does not matter: there is one answer to it.
                for call in world.calls_to(branch) {
                    if let Call::Open { current, .. } = *call {
                        let reply = participant.memory.says();
                        *call = Call::Answered { reply, current };
                    }
                }
            }
        }
        world
    }

    /// Takes out what a gateway that waits for the store has in memory and will never look at again. Its calls still do
    /// what they do to participants: a copy of each command is among the strays.
    fn forget_idle(&self, gateway: &mut Gateway, version: usize) {
        let Gateway::Writing {
            memory,
            input,
            late,
            landed,
        } = gateway
        else {
            return;
        };
        let step = self.real.step(memory.core, *input, *late);
        // Mostly the clock decides nothing.
        *late |= step == self.real.step(memory.core, *input, true);
        if !*landed && usize::from(memory.core.version) != version {
            let shown = if step.forced { memory.core } else { step.after };
            *gateway = Gateway::Outrun {
                shown: shown.phase,
                decides: step.durable.commits(),
            };
            return;
        }
        // What it would do if the store turned the write away and it decided anew.
        let anew = self.real.step(memory.core, *input, *late || !*landed);
        for branch in 0..BRANCHES_MAX {
            let asks = |step: &Step| step.effects.iter().flatten().any(|send| send.branch == branch);
            if self.real.is_quiet(step.after) && !step.forced || asks(&step) && asks(&anew) {
                memory.calls[branch] = Call::None;
            }
        }
    }

    /// The same, with the gateways in their places.
    pub fn happen(&self, world: &World, action: Action) -> World {
        let mut world = *world;
        match action {
            Action::Request { gateway, late } => {
                self.take_input(&mut world, gateway, Memory::of(Core::default()), Input::Begin, late);
            }
            Action::TakeUp { gateway, late } => self.reload(&mut world, gateway, late),
            Action::Cancel { gateway, late } => self.driver_input(&mut world, gateway, Input::Cancel, late),
            Action::Wake { gateway, over, late } => {
                self.driver_input(&mut world, gateway, Input::Wake(over), late);
            }
            Action::Store { gateway } => self.store(&mut world, gateway),
            // What it decided stands. The calls are dropped with the memory.
            Action::Read { gateway, late } => self.reload(&mut world, gateway, late),
            Action::Stored { gateway, late } => self.stored(&mut world, gateway, late),
            Action::TurnAway { gateway } => self.turn_away(&mut world, gateway),
            Action::Crash { gateway, write_goes_on } => self.crash(&mut world, gateway, write_goes_on),
            Action::StrayWrite => {
                let (version, write) = (world.store.len(), world.stray_write);
                let appended = world.store.append(version, &write);
                assert!(appended, "a stray write that cannot be accepted is not kept");
                world.stray_write = Records::default();
            }
            Action::Deliver { gateway, branch, yes } => self.deliver(&mut world, gateway, branch, yes),
            Action::Stray { branch, command, yes } => {
                self.act(&mut world.participants[branch], command, yes);
            }
            Action::Answer { gateway, branch, late } => self.answer(&mut world, gateway, branch, None, late),
            Action::TimeOut { gateway, branch, late } => {
                self.answer(&mut world, gateway, branch, Some(Said::Unknown), late);
            }
            Action::Reject { gateway, branch, late } => {
                self.answer(&mut world, gateway, branch, Some(Said::Rejected), late);
            }
            Action::Stale {
                gateway,
                branch,
                reply,
                late,
            } => {
                let input = Input::Answer {
                    branch: branch as u8,
                    said: Said::Reply(reply),
                    current: false,
                };
                self.driver_input(&mut world, gateway, input, late);
            }
            Action::Ask { gateway, branch } => {
                if let Some(commits) = self.told(&world, gateway) {
                    let command = if commits { Command::Commit } else { Command::Abort };
                    self.act(&mut world.participants[branch], command, true);
                }
            }
            Action::Sync { branch } => sync(&mut world, branch),
            Action::CrashParticipant { branch } => crash_participant(&mut world, branch),
            Action::Break { branch, deed } => break_word(&mut world.participants[branch], deed),
        }
        world
    }

    /// What a gateway shows of the payment: only what is durable, or follows from what participants have acknowledged.
    pub fn shown(&self, gateway: &Gateway) -> Option<Core> {
        match gateway {
            Gateway::Away => None,
            Gateway::Driving(memory) => Some(memory.core),
            Gateway::Writing {
                memory, input, late, ..
            } => {
                let step = self.real.step(memory.core, *input, *late);
                Some(if step.forced { memory.core } else { step.after })
            }
            Gateway::Outrun { shown, .. } => Some(Core {
                phase: *shown,
                ..Core::default()
            }),
        }
    }

    /// What a gateway tells a participant that asks for the decision, as `src/api/decisions.rs` does; `None` while there
    /// is no answer, or none yet.
    fn told(&self, world: &World, gateway: usize) -> Option<bool> {
        match self.shown(&world.gateways[gateway]) {
            Some(core) => self.real.commits(core),
            // Presumed abort.
            None if world.store.is_empty() => Some(false),
            None => self.real.commits(self.real.fold(world.store)?),
        }
    }

    fn is_unfinished(&self, world: &World) -> bool {
        let unfinished = |core| !self.real.is_quiet(core);
        !world.store.is_empty() && self.real.fold(world.store).is_none_or(unfinished)
    }

    /// `Driver::load`, then `Input::Recover`.
    fn reload(&self, world: &mut World, gateway: usize, late: bool) {
        match self.real.fold(world.store) {
            Some(core) => self.take_input(world, gateway, Memory::of(core), Input::Recover, late),
            None => world.wrong = Some(Wrong::Unreadable),
        }
    }

    fn driver_input(&self, world: &mut World, gateway: usize, input: Input, late: bool) {
        if let Gateway::Driving(memory) = world.gateways[gateway] {
            self.take_input(world, gateway, memory, input, late);
        }
    }

    /// `Driver::state_input`, as far as the store.
    fn take_input(&self, world: &mut World, gateway: usize, memory: Memory, input: Input, late: bool) {
        let step = self.real.step(memory.core, input, late);
        if step.impossible {
            world.wrong = Some(Wrong::Impossible);
        } else if step.too_late {
            world.wrong = Some(Wrong::Late);
        } else if step.durable.is_empty() {
            self.advance(world, gateway, memory, &step);
        } else {
            world.end_shown |= !step.forced && step.after.phase.has_ended();
            world.gateways[gateway] = Gateway::Writing {
                memory,
                input,
                late,
                landed: false,
            };
        }
    }

    /// `Driver::advance` and `Driver::release`.
    fn advance(&self, world: &mut World, gateway: usize, mut memory: Memory, step: &Step) {
        memory.core = step.after;
        for branch in 0..BRANCHES_MAX {
            if step.renewed[branch] {
                memory.calls[branch] = memory.calls[branch].replaced();
            }
        }
        for send in step.effects.iter().flatten() {
            let follows = match send.command {
                Command::Prepare => !world.store.is_empty(),
                Command::Commit => world.store.commits() == Some(true),
                Command::Abort => world.store.commits() == Some(false),
                Command::Inquire => true,
            };
            if !follows {
                world.wrong = Some(Wrong::Early(send.command));
            }
            world.strays[send.branch].insert(send.command);
            memory.calls[send.branch] = Call::Open {
                command: send.command,
                current: send.current,
            };
        }
        world.gateways[gateway] = if self.real.is_quiet(memory.core) {
            Gateway::Away
        } else {
            Gateway::Driving(memory)
        };
    }

    /// The write of a gateway: the version that it expects, and the records.
    fn write(&self, memory: &Memory, input: Input, late: bool) -> (usize, Records) {
        let mut records = self.real.step(memory.core, input, late).durable;
        if input == Input::Begin {
            // `Driver::begin` hands in the first record alone, and decides anew about the rest.
            records = Records::of(records.iter().take(1));
        }
        (memory.core.version.into(), records)
    }

    fn store(&self, world: &mut World, gateway: usize) {
        let Gateway::Writing {
            memory,
            input,
            late,
            landed: false,
        } = world.gateways[gateway]
        else {
            return;
        };
        let (expected_version, records) = self.write(&memory, input, late);
        let appended = world.store.append(expected_version, &records);
        assert!(appended, "who is outrun is known as such");
        world.stray_write = Records::default();
        world.gateways[gateway] = Gateway::Writing {
            memory,
            input,
            late,
            landed: true,
        };
    }

    fn stored(&self, world: &mut World, gateway: usize, late: bool) {
        let Gateway::Writing {
            memory,
            input,
            late: decided_late,
            landed: true,
        } = world.gateways[gateway]
        else {
            return;
        };
        let step = self.real.step(memory.core, input, decided_late);
        if input == Input::Begin && step.durable.len() > 1 {
            self.take_input(world, gateway, Memory::of(step.after_first), Input::Recover, late);
        } else {
            self.advance(world, gateway, memory, &step);
        }
    }

    fn turn_away(&self, world: &mut World, gateway: usize) {
        let Gateway::Writing {
            memory, input, late, ..
        } = world.gateways[gateway]
        else {
            return;
        };
        if input == Input::Begin {
            // The caller is told that nothing has begun.
            world.gateways[gateway] = Gateway::Away;
        } else if self.real.step(memory.core, input, late).forced {
            // Time has passed: nothing of the refused step has been released.
            self.take_input(world, gateway, memory, input, true);
        }
    }

    fn crash(&self, world: &mut World, gateway: usize, write_goes_on: bool) {
        if let Gateway::Writing {
            memory,
            input,
            late,
            landed: false,
        } = world.gateways[gateway]
            && write_goes_on
        {
            let (expected_version, records) = self.write(&memory, input, late);
            if expected_version == world.store.len() {
                world.stray_write = records;
            }
        }
        world.gateways[gateway] = Gateway::Away;
    }

    fn deliver(&self, world: &mut World, gateway: usize, branch: usize, yes: bool) {
        let (Gateway::Driving(memory) | Gateway::Writing { memory, .. }) = &mut world.gateways[gateway] else {
            return;
        };
        let Call::Open { command, current } = memory.calls[branch] else {
            return;
        };
        let participant = &mut world.participants[branch];
        let reply = self.act(participant, command, yes);
        memory.calls[branch] = if participant.is_synced() {
            Call::Answered { reply, current }
        } else {
            Call::Unsynced {
                command,
                reply,
                current,
            }
        };
    }

    /// The participant acts: on disk at once, unless when it syncs is for the search to choose.
    fn act(&self, participant: &mut Participant, command: Command, yes: bool) -> Reply {
        let reply = participant.act(command, yes);
        if !self.setting.syncs {
            participant.sync();
        }
        reply
    }

    /// A call comes to its end: with the answer that is on its way, or with another.
    fn answer(&self, world: &mut World, gateway: usize, branch: usize, other: Option<Said>, late: bool) {
        let Gateway::Driving(mut memory) = world.gateways[gateway] else {
            return;
        };
        let (said, current) = match (other, memory.calls[branch]) {
            (None, Call::Answered { reply, current }) => (Said::Reply(reply), current),
            (
                Some(said),
                Call::Open { current, .. } | Call::Unsynced { current, .. } | Call::Answered { current, .. },
            ) => (said, current),
            (None, Call::None | Call::Open { .. } | Call::Unsynced { .. }) | (Some(_), Call::None) => return,
        };
        memory.calls[branch] = Call::None;
        let branch = branch as u8;
        self.take_input(world, gateway, memory, Input::Answer { branch, said, current }, late);
    }
}

/// How the participant may vote on the command: both ways, if it has to at all.
fn votes(participant: &Participant, command: Command) -> &'static [bool] {
    if command == Command::Prepare && participant.memory == Place::Nothing {
        &[true, false]
    } else {
        &[true]
    }
}

fn sync(world: &mut World, branch: usize) {
    world.participants[branch].sync();
    for call in world.calls_to(branch) {
        if let Call::Unsynced { reply, current, .. } = *call {
            *call = Call::Answered { reply, current };
        }
    }
}

fn crash_participant(world: &mut World, branch: usize) {
    world.participants[branch].crash();
    for call in world.calls_to(branch) {
        if let Call::Unsynced { command, current, .. } = *call {
            // The connection breaks: given up some time, or sent again below us.
            *call = Call::Open { command, current };
        }
    }
}

fn break_word(participant: &mut Participant, deed: Deed) {
    participant.memory = match deed {
        Deed::Forget => Place::Nothing,
        Deed::LetGo => Place::Released,
        Deed::Move => {
            participant.moved = (participant.moved + 1).min(2);
            Place::Moved
        }
    };
    participant.broke = true;
    participant.sync();
}
