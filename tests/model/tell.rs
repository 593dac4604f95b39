//! Tells a path through the model to a person.

use std::fmt::Write;

use causeway::payment::BranchId;
use stateright::Path;

use super::{
    steps::{Action, Rules},
    world::{Call, Entry, Gateway, Memory, Participant, UnderWay, World},
};

/// The path, a step a line, each with what it changed.
pub fn tell(rules: &Rules, path: Path<World, Action>) -> String {
    let mut text = String::new();
    // The model keeps the gateways in order; here they keep their names.
    let mut swapped = false;
    for (number, (world, action)) in path.into_vec().into_iter().enumerate() {
        let Some(action) = action else { break };
        let after = rules.plain(rules.happen(&world, action));
        _ = writeln!(text, "{:4}. {}", number + 1, action_text(action, swapped));
        for (before, after) in parts(rules, &world, swapped)
            .into_iter()
            .zip(parts(rules, &after, swapped))
        {
            if before != after {
                _ = writeln!(text, "        {after}");
            }
        }
        swapped ^= after.is_mirrored();
    }
    text
}

/// A world, a part a line.
pub fn describe(rules: &Rules, world: &World) -> String {
    parts(rules, world, false)
        .iter()
        .map(|part| format!("        {part}\n"))
        .collect()
}

fn name(gateway: usize, swapped: bool) -> &'static str {
    ["gateway A", "gateway B"][gateway ^ usize::from(swapped)]
}

fn clock(late: bool) -> &'static str {
    if late { " (late)" } else { "" }
}

fn branch_name(branch: usize) -> &'static str {
    BranchId::at(branch).name()
}

fn action_text(action: Action, swapped: bool) -> String {
    let gateway_name = |gateway| name(gateway, swapped);
    match action {
        Action::Request { gateway, late } => {
            format!("the caller's request reaches {}{}", gateway_name(gateway), clock(late))
        }
        Action::TakeUp { gateway, late } => format!("{} takes the payment up{}", gateway_name(gateway), clock(late)),
        Action::Cancel { gateway, .. } => format!("the caller cancels at {}", gateway_name(gateway)),
        Action::Wake { gateway, over, late } => match over {
            Some(branch) => format!(
                "{} has waited for {}{}",
                gateway_name(gateway),
                branch_name(branch.into()),
                clock(late)
            ),
            None => format!("{} wakes: the time to decide has passed", gateway_name(gateway)),
        },
        Action::Store { gateway } => format!("the store takes the write of {}", gateway_name(gateway)),
        Action::Read { gateway, late } => {
            format!("{} finds that another was first{}", gateway_name(gateway), clock(late))
        }
        Action::Stored { gateway, .. } => format!("{} hears that its write is durable", gateway_name(gateway)),
        Action::TurnAway { gateway } => format!("the store turns the write of {} away", gateway_name(gateway)),
        Action::Crash { gateway, write_goes_on } => {
            let write = if write_goes_on { "; its write goes on" } else { "" };
            format!("{} crashes{write}", gateway_name(gateway))
        }
        Action::StrayWrite => "the write of a gateway that is gone reaches the store".into(),
        Action::Deliver { gateway, branch, yes } => {
            let no = if yes { "" } else { ", which refuses" };
            format!(
                "the call of {} reaches {}{no}",
                gateway_name(gateway),
                branch_name(branch)
            )
        }
        Action::Stray { branch, command, yes } => {
            let no = if yes { "" } else { ", which refuses" };
            format!("a copy of {command:?} reaches {}{no}", branch_name(branch))
        }
        Action::Answer { gateway, branch, late } => {
            format!(
                "the answer of {} reaches {}{}",
                branch_name(branch),
                gateway_name(gateway),
                clock(late)
            )
        }
        Action::TimeOut { gateway, branch, late } => {
            format!(
                "{} gives its call to {} up{}",
                gateway_name(gateway),
                branch_name(branch),
                clock(late)
            )
        }
        Action::Reject { gateway, branch, late } => {
            format!(
                "the call of {} to {} is rejected{}",
                gateway_name(gateway),
                branch_name(branch),
                clock(late)
            )
        }
        Action::Stale {
            gateway, branch, reply, ..
        } => format!(
            "an old answer of {} reaches {}: {reply:?}",
            branch_name(branch),
            gateway_name(gateway)
        ),
        Action::Ask { gateway, branch } => format!("{}, in doubt, asks {}", branch_name(branch), gateway_name(gateway)),
        Action::Sync { branch } => format!("{} syncs", branch_name(branch)),
        Action::CrashParticipant { branch } => format!("{} crashes and starts again", branch_name(branch)),
        Action::Break { branch, deed } => format!("{} breaks its word: {deed:?}", branch_name(branch)),
    }
}

/// What the world is made of, a line each.
fn parts(rules: &Rules, world: &World, swapped: bool) -> Vec<String> {
    let branches = rules.setting.branches;
    let mut parts = vec![format!("store: {}", list(world.store.iter().map(entry_text)))];
    for (index, gateway) in world.gateways.iter().enumerate() {
        parts.push(format!("{}: {}", name(index, swapped), gateway_text(gateway, branches)));
    }
    for (index, participant) in world.participants[..branches].iter().enumerate() {
        parts.push(format!("{}: {}", branch_name(index), participant_text(participant)));
    }
    if let Some(wrong) = world.wrong {
        parts.push(format!("wrong: {wrong:?}"));
    } else {
        parts.push(String::new());
    }
    parts
}

fn list(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() {
        "nothing".into()
    } else {
        texts.join(", ")
    }
}

fn entry_text(entry: Entry) -> String {
    match entry {
        Entry::Begun => "begun".into(),
        Entry::CommitDecided(_) => "commit decided".into(),
        Entry::AbortDecided(why, _) => format!("abort decided ({why:?})"),
        Entry::Ended(_) => "ended".into(),
        Entry::Disputed(_) => "disputed".into(),
    }
}

fn gateway_text(gateway: &Gateway, branches: usize) -> String {
    match gateway {
        Gateway::Away => "away".into(),
        Gateway::Driving(memory) => memory_text(memory, branches),
        Gateway::Outrun { shown, .. } => format!("{shown:?}; writing, and another was first"),
        Gateway::Writing {
            memory, input, landed, ..
        } => {
            let stage = if *landed { "written, not told" } else { "writing" };
            format!("{}; {stage} what follows from {input:?}", memory_text(memory, branches))
        }
    }
}

fn memory_text(memory: &Memory, branches: usize) -> String {
    let branch = |at: usize| {
        let under_way = match memory.core.under_way[at] {
            UnderWay::Nothing => String::new(),
            UnderWay::Sent(command) => format!(", {command:?} sent"),
            UnderWay::Waiting => ", waits".into(),
        };
        let call = match memory.calls[at] {
            Call::None => String::new(),
            Call::Open { .. } => ", no answer yet".into(),
            Call::Unsynced { reply, .. } => format!(", {reply:?} not synced"),
            Call::Answered { reply, .. } => format!(", {reply:?} on its way"),
        };
        format!("{} {:?}{under_way}{call}", branch_name(at), memory.core.known[at])
    };
    let branches: Vec<_> = (0..branches).map(branch).collect();
    format!("{:?} [{}]", memory.core.phase, branches.join("; "))
}

fn participant_text(participant: &Participant) -> String {
    let unsynced = if participant.is_synced() {
        String::new()
    } else {
        format!(" (on disk {:?})", participant.durable)
    };
    format!("{:?}{unsynced}, moved {} times", participant.memory, participant.moved)
}
