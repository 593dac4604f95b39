//! What kills, cuts off, stops and puts clocks wrong: the faults that are done to processes, not to messages.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    executor::NodeId,
    faults::Fault,
    random::Random,
    world::{NOWHERE, Shared},
};

/// The faults under way.
pub struct Nemesis {
    world: Shared,
    stopped: Arc<AtomicBool>,
}

type Strike = fn(&Shared, &mut Random) -> Option<u64>;

/// What is done to whom. Each answers with how many milliseconds the next one waits at least.
const STRIKES: [(Fault, Strike); 12] = [
    (Fault::GatewayKilled, kill_gateway),
    (Fault::GatewayStopped, stop_gateway),
    (Fault::GatewayPaused, pause_gateway),
    (Fault::StoreKilled, kill_store),
    (Fault::WalletKilled, kill_wallet),
    (Fault::WalletPaused, pause_wallet),
    (Fault::PartitionedOneWay, partition_one_way),
    (Fault::PartitionedBothWays, partition_both_ways),
    (Fault::ClockDrifted, drift_clock),
    (Fault::ClockForward, jump_forward),
    (Fault::ClockBack, jump_back),
    (Fault::RateJumped, jump_rate),
];

pub fn start_all(world: &Shared) -> Nemesis {
    let stopped = Arc::new(AtomicBool::new(false));
    let mut random = Random::new(world.plan.seed ^ 0xe71);
    for (fault, strike) in STRIKES {
        let ppm = world.plan.rates.of(fault);
        let mut random = random.fork();
        if ppm == 0 {
            continue;
        }
        let (world, stopped) = (Arc::clone(world), Arc::clone(&stopped));
        // From every half second to once in the window.
        let mean_ms = random.spread(500, world.plan.window_ms.max(1_000));
        world.clone().spawn(NOWHERE, async move {
            loop {
                let wait_ms = 1 + random.below(2 * mean_ms);
                world.sleep_ms(wait_ms).await;
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(at_least_ms) = strike(&world, &mut random) {
                    world.happened(fault, String::new());
                    world.sleep_ms(at_least_ms).await;
                }
            }
        });
    }
    publish(world, random.fork(), &stopped);
    Nemesis {
        world: Arc::clone(world),
        stopped,
    }
}

impl Nemesis {
    /// Nothing new is done from here on.
    pub async fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        // What was done to somebody for a while may last a little.
        self.world.sleep_ms(100).await;
    }
}

/// New rates now and then, and sometimes none for a week.
fn publish(world: &Shared, mut random: Random, stopped: &Arc<AtomicBool>) {
    let (world, stopped) = (Arc::clone(world), Arc::clone(stopped));
    let every_ms = random.spread(1_000, world.plan.window_ms.max(2_000));
    world.clone().spawn(NOWHERE, async move {
        loop {
            world.sleep_ms(1 + random.below(2 * every_ms)).await;
            if stopped.load(Ordering::Relaxed) {
                // So that those who come back later find a rate.
                return world.publication.publish(world.executor.now_ms(), false);
            }
            let now_ms = world.executor.now_ms();
            match world.fires(Fault::RateStale, String::new) {
                true => world.publication.grow_old(now_ms, 12),
                false => world.publication.publish(now_ms, false),
            }
        }
    });
}

fn gateway(world: &Shared, random: &mut Random) -> NodeId {
    random.pick(&world.gateways).node
}

fn wallet(world: &Shared, random: &mut Random) -> NodeId {
    random.pick(&world.wallets).node
}

fn kill_gateway(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = gateway(world, random);
    // Not at once, but after a few more polls: between any two steps, however close in time.
    world
        .executor
        .is_alive(node)
        .then(|| world.executor.doom(node, random.below(120)))?;
    Some(100)
}

/// As an operator does for a new version.
fn stop_gateway(world: &Shared, random: &mut Random) -> Option<u64> {
    let gateway = random.pick(&world.gateways);
    if !gateway.is_up() {
        return None;
    }
    gateway.stop.notify_waiters();
    Some(2_000)
}

fn kill_store(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = world.store?;
    world
        .executor
        .is_alive(node)
        .then(|| world.executor.doom(node, random.below(40)))?;
    Some(500)
}

fn kill_wallet(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = wallet(world, random);
    world
        .executor
        .is_alive(node)
        .then(|| world.executor.doom(node, random.below(40)))?;
    Some(100)
}

fn pause_gateway(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = gateway(world, random);
    pause(world, node, random)
}

fn pause_wallet(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = wallet(world, random);
    pause(world, node, random)
}

fn pause(world: &Shared, node: NodeId, random: &mut Random) -> Option<u64> {
    if !world.executor.is_alive(node) {
        return None;
    }
    world.executor.pause(node);
    for_a_while(world, random, 20_000, move |world| world.executor.resume(node));
    Some(1_000)
}

fn partition_one_way(world: &Shared, random: &mut Random) -> Option<u64> {
    let (from, to) = ends(world, random);
    world.block(from, to);
    for_a_while(world, random, 30_000, move |world| world.unblock(from, to));
    Some(500)
}

fn partition_both_ways(world: &Shared, random: &mut Random) -> Option<u64> {
    let (from, to) = ends(world, random);
    world.block(from, to);
    world.block(to, from);
    for_a_while(world, random, 30_000, move |world| {
        world.unblock(from, to);
        world.unblock(to, from);
    });
    Some(500)
}

/// A gateway and somebody who talks with it.
fn ends(world: &Shared, random: &mut Random) -> (NodeId, NodeId) {
    let gateway = gateway(world, random);
    let other = match random.below(3) {
        0 => *random.pick(&world.offices),
        _ => wallet(world, random),
    };
    match random.below(2) {
        0 => (gateway, other),
        _ => (other, gateway),
    }
}

fn any_clock(world: &Shared, random: &mut Random) -> NodeId {
    match random.below(3) {
        0 => wallet(world, random),
        _ => gateway(world, random),
    }
}

fn drift_clock(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = any_clock(world, random);
    // Up to five in a hundred, either way.
    world.executor.drift_clock(node, random.below(100_001) as i64 - 50_000);
    Some(1_000)
}

fn jump_forward(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = any_clock(world, random);
    world.executor.jump_clock(node, random.spread(1, 600_000) as i64);
    Some(1_000)
}

fn jump_back(world: &Shared, random: &mut Random) -> Option<u64> {
    let node = any_clock(world, random);
    world.executor.jump_clock(node, -(random.spread(1, 600_000) as i64));
    Some(1_000)
}

fn jump_rate(world: &Shared, _: &mut Random) -> Option<u64> {
    world.publication.publish(world.executor.now_ms(), true);
    Some(1_000)
}

fn for_a_while(world: &Shared, random: &mut Random, ms_max: u64, end: impl FnOnce(&Shared) + Send + 'static) {
    let (own, ms) = (Arc::clone(world), 1 + random.below(ms_max));
    world.spawn(NOWHERE, async move {
        own.sleep_ms(ms).await;
        end(&own);
    });
}
