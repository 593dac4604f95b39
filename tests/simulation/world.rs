//! One world: its processes, the network between them, and how a run goes.
//!
//! Owns the calls between nodes and what becomes of them on the way, the lives of gateways and of the store, and the phases:
//! faults, healing, the end. What wallets, callers and the nemesis do is theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use causeway::{
    api::Api,
    authn::Principal,
    config::Config,
    coordinator::{
        Halts,
        protocol::{Decision, Event as Recorded, State},
    },
    fx::{Rates as FxRates, RatesConfig},
    gateway::Core,
    participant::{GrpcParticipant, Participant, Transport},
    payment::PartnerName,
    pb::participant::v1 as participant,
    runtime::SharedRuntime,
    store::Store,
    tls::PeerInfo,
};
use futures_util::future::abortable;
use prost::bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tonic::{Request, Status};

use crate::{
    caller,
    cast::{self, NETWORKS, Timings},
    disk::{Disk, Outside, Seen},
    executor::{Executor, NodeId},
    faults::{Fault, Rates},
    history::{Command, Event, Facts, History, Network, Payment, branch_name},
    nemesis,
    random::Random,
    source::{Publication, Source},
    wallet::{self, Wallet},
    watcher,
};

/// How long after all has healed every payment must have ended, in virtual seconds. The longest rung of the ladder is 300 s,
/// a fifth more by jitter, and a payment may need two of them.
pub const LIVENESS_S: u64 = 15 * 60;

/// What one world is like; drawn from its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub payments: u64,
    /// Two gateways share a store that is a process of its own; else there is one, with the store inside.
    pub shared_store: bool,
    /// Within this time the payments are asked for, in milliseconds.
    pub window_ms: u64,
    /// The network that breaks its word, if any.
    pub rogue: Option<Network>,
    pub timings: Timings,
    pub rates: Rates,
    pub next_day: bool,
    /// Wallet networks ask for the decision long before they have to.
    pub impatient: bool,
}

impl Plan {
    pub fn draw(seed: u64, payments: u64) -> Self {
        let mut random = Random::new(seed);
        let window_ms = payments * random.spread(5, 2_000);
        let next_day = random.below(8) == 0;
        let mut timings = Timings::draw(&mut random);
        if next_day {
            // A whole day of looking for work every second shows nothing.
            timings.recovery_interval_ms = 30_000;
        }
        Self {
            seed,
            payments,
            shared_store: random.below(3) > 0,
            window_ms: window_ms.max(5_000),
            rogue: (random.below(4) == 0).then(|| Network(random.below(NETWORKS.len() as u64) as usize)),
            timings,
            rates: Rates::draw(&mut random),
            next_day,
            impatient: random.below(3) == 0,
        }
    }
}

pub type Shared = Arc<World>;

pub struct World {
    pub plan: Plan,
    pub executor: Arc<Executor>,
    pub config: Config,
    pub gateways: Vec<Gateway>,
    pub wallets: Vec<Wallet>,
    /// Where callers and watchers are, one a network.
    pub offices: Vec<NodeId>,
    /// The store's own process, if it has one.
    pub store: Option<NodeId>,
    pub disk: Arc<Disk>,
    pub publication: Arc<Publication>,
    history: Arc<Mutex<History>>,
    links: Mutex<Links>,
}

/// A gateway's process, whether it is up or not.
pub struct Gateway {
    pub node: NodeId,
    core: Mutex<Option<Arc<Core>>>,
    /// Asks it to stop.
    pub stop: Notify,
}

impl Gateway {
    /// Whether it serves.
    pub fn is_up(&self) -> bool {
        self.core.lock().unwrap().is_some()
    }

    /// How many payments it drives.
    fn driving(&self) -> usize {
        self.core.lock().unwrap().as_ref().map_or(0, |core| core.live_count())
    }
}

/// The world itself: it carries messages and kills processes, and is never killed.
pub const NOWHERE: NodeId = NodeId(0);

#[derive(Default)]
struct Links {
    /// From, to: nothing goes through.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Messages sent and the latest of them that has arrived, to see when one overtakes another.
    order: BTreeMap<(NodeId, NodeId), (u64, u64)>,
}

struct DiskOutside {
    executor: Arc<Executor>,
    history: Arc<Mutex<History>>,
}

impl Outside for DiskOutside {
    fn fires(&self, fault: Fault) -> bool {
        self.history
            .lock()
            .unwrap()
            .fires(self.executor.now_us(), fault, String::new)
    }

    fn draw(&self, limit: u64) -> u64 {
        self.executor.draw(limit)
    }

    fn happened(&self, fault: Fault) {
        let at_us = self.executor.now_us();
        self.history.lock().unwrap().happened(at_us, fault, String::new());
    }

    fn durable(&self, seen: Seen<'_>) {
        let mut history = self.history.lock().unwrap();
        let event = match seen {
            Seen::Quote(quote) => Event::DurableQuote {
                quote: quote.id.to_string(),
            },
            Seen::Conflict { by, id } => Event::Conflict {
                by,
                payment: history.payment(&id.to_string()),
            },
            Seen::Record {
                by,
                id,
                version,
                record,
                state,
            } => {
                let State::Present(transaction) = state else {
                    panic!("a record leaves a transaction")
                };
                let terms = &transaction.terms;
                let reason = match &record.event {
                    Recorded::Decided {
                        decision: Decision::Abort(outcome),
                        ..
                    }
                    | Recorded::Disputed { outcome, .. } => outcome.reason.name(),
                    _ => "",
                };
                let facts = Facts {
                    initiator: terms.initiator.to_string(),
                    request_id: terms.order.request_id.to_string(),
                    partners: terms
                        .branches
                        .iter()
                        .map(|branch| branch.party.partner.to_string())
                        .collect(),
                    decide_by_ms: terms.decide_by_ms,
                    reason: reason.into(),
                    phase: transaction.phase.name(),
                };
                Event::Durable {
                    by,
                    payment: history.payment(&id.to_string()),
                    record: record.event.name(),
                    version,
                    clock_ms: record.at_ms,
                    facts: Box::new(facts),
                }
            }
        };
        history.push(self.executor.now_us(), event);
    }
}

impl World {
    pub fn new(plan: Plan) -> Shared {
        let mut random = Random::new(plan.seed ^ 0x5eed);
        let executor = Executor::new(random.fork());
        let history = Arc::new(Mutex::new(History::new(plan.rates.clone(), random.fork())));
        assert_eq!(executor.add_node("nowhere"), NOWHERE);
        let store = plan.shared_store.then(|| executor.add_node("store"));
        let gateways = (0..1 + usize::from(plan.shared_store))
            .map(|index| Gateway {
                node: executor.add_node(format!("gateway-{index}")),
                core: Mutex::default(),
                stop: Notify::new(),
            })
            .collect();
        let wallets = (0..NETWORKS.len())
            .map(|index| {
                let node = executor.add_node(NETWORKS[index].0);
                Wallet::new(Network(index), node, plan.rogue == Some(Network(index)))
            })
            .collect();
        let offices = NETWORKS
            .iter()
            .map(|(name, _)| executor.add_node(format!("office of {name}")))
            .collect();
        let outside = DiskOutside {
            executor: Arc::clone(&executor),
            history: Arc::clone(&history),
        };
        Arc::new(Self {
            config: cast::config(&plan.timings),
            disk: Disk::new(Arc::new(outside)),
            publication: Publication::new(random.fork()),
            plan,
            executor,
            gateways,
            wallets,
            offices,
            store,
            history,
            links: Mutex::default(),
        })
    }

    /// Runs the world to its end.
    pub fn run(self: &Arc<Self>) {
        let world = Arc::clone(self);
        self.executor.run(NOWHERE, async move { world.phases().await });
    }

    /// All that was seen, as text.
    pub fn trace(&self) -> String {
        self.history().trace()
    }

    async fn phases(self: Arc<Self>) {
        self.live();
        let callers = caller::start_all(&self);
        let nemesis = nemesis::start_all(&self);
        self.sleep_ms(self.plan.window_ms).await;
        callers.asked().await;
        nemesis.stop().await;
        self.heal();
        // A caller that finds nobody comes again; here that would only be many refused connections.
        while self.gateways.iter().any(|gateway| !gateway.is_up()) {
            self.sleep_ms(200).await;
        }
        // Those who gave up without a definite answer come back now that all is well; this is the time in which
        // everything must end.
        callers.come_back(caller::Return::Healed).await;
        let mut waited_s = 0;
        while waited_s < LIVENESS_S && self.is_busy() {
            self.sleep_ms(1_000).await;
            waited_s += 1;
        }
        for (gateway, driving) in self.gateways.iter().map(Gateway::driving).enumerate() {
            if driving > 0 {
                self.log(Event::StillDriving {
                    gateway,
                    count: driving,
                });
            }
        }
        if self.plan.next_day {
            self.log(Event::NextDay);
            self.sleep_ms(24 * 3_600 * 1_000).await;
            callers.come_back(caller::Return::NextDay).await;
        }
        callers.look_at_everything().await;
        // Watchers are a moment behind.
        self.sleep_ms(5_000).await;
        self.count_money();
    }

    /// Writes down what was seen; answers with its place.
    pub fn log(&self, event: Event) -> usize {
        let at_us = self.executor.now_us();
        self.history().push(at_us, event)
    }

    pub fn fires(&self, fault: Fault, detail: impl FnOnce() -> String) -> bool {
        let at_us = self.executor.now_us();
        self.history().fires(at_us, fault, detail)
    }

    pub fn happened(&self, fault: Fault, detail: String) {
        let at_us = self.executor.now_us();
        self.history().happened(at_us, fault, detail);
    }

    pub fn payment(&self, name: &str) -> Payment {
        self.history().payment(name)
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("whoever panicked has ended the test")
    }

    pub async fn sleep_ms(&self, ms: u64) {
        self.executor.sleep_us(ms * 1_000).await;
    }

    pub fn spawn(&self, node: NodeId, task: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(node, Box::pin(task));
    }

    /// Starts every process, and a supervisor for each that may die.
    fn live(self: &Arc<Self>) {
        if let Some(node) = self.store {
            self.executor.kill(node);
            self.spawn(NOWHERE, Arc::clone(self).supervise_store(node));
        }
        for index in 0..self.gateways.len() {
            self.executor.kill(self.gateways[index].node);
            self.spawn(NOWHERE, Arc::clone(self).supervise_gateway(index));
        }
        for wallet in &self.wallets {
            self.spawn(NOWHERE, wallet::supervise(Arc::clone(self), wallet.network));
        }
        watcher::start_all(self);
    }

    async fn supervise_store(self: Arc<Self>, node: NodeId) {
        loop {
            self.executor.start(node);
            self.disk.start();
            let (world, runtime) = (Arc::clone(&self), self.executor.runtime(node));
            self.spawn(node, async move {
                world.disk.write(&runtime).await;
                // A disk that failed is opened again by another process.
                world.executor.kill(node);
            });
            self.executor.death(node).await;
            self.disk.stop();
            self.stay_down().await;
        }
    }

    async fn supervise_gateway(self: Arc<Self>, index: usize) {
        let node = self.gateways[index].node;
        loop {
            self.executor.start(node);
            let by = index + self.gateways.len() * self.executor.life(node) as usize;
            let runtime = self.executor.runtime(node);
            if self.store.is_none() {
                self.disk.start();
                let (world, own) = (Arc::clone(&self), Arc::clone(&runtime));
                self.spawn(node, async move { world.disk.write(&own).await });
            }
            self.spawn(node, Arc::clone(&self).gateway(index, by, runtime));
            self.executor.death(node).await;
            *self.gateways[index].core.lock().unwrap() = None;
            if self.store.is_none() {
                self.disk.stop();
            }
            self.stay_down().await;
        }
    }

    /// How long it takes to start again: moments, as a rule.
    async fn stay_down(&self) {
        let long = self.executor.draw(10) == 0 && !self.history().healed;
        let down_ms = 10 + self.executor.draw(if long { 90_000 } else { 3_000 });
        self.sleep_ms(down_ms).await;
    }

    /// One life of a gateway: what `causeway::gateway::serve` does, without its sockets.
    async fn gateway(self: Arc<Self>, index: usize, by: usize, runtime: SharedRuntime) {
        let node = self.gateways[index].node;
        let store: Arc<dyn Store> = Arc::new(self.disk.open(Arc::clone(&runtime), by));
        let rates = FxRates::from_boxed(
            Box::new(Source::new(&self)),
            RatesConfig {
                stale_after: Some(self.config.rates.stale_after),
                expire_after: self.config.rates.expire_after,
                refresh_after: self.config.rates.refresh_after,
                deviation_max: self.config.rates.deviation_max,
                ..RatesConfig::default()
            },
            Arc::clone(&runtime),
        );
        let participants = NETWORKS
            .iter()
            .enumerate()
            .map(|(network, (name, _))| {
                let partner = PartnerName::parse(name).expect("the names are right");
                let transport = Line {
                    world: Arc::clone(&self),
                    gateway: index,
                    wallet: network,
                };
                let timeouts = self.config.timing.timeouts;
                let participant = GrpcParticipant::over(partner.clone(), transport, timeouts, Arc::clone(&runtime));
                (partner, Arc::new(participant) as Arc<dyn Participant>)
            })
            .collect();
        let started = Core::start(&self.config, store, rates, participants, Halts::default(), runtime).await;
        if let Ok(core) = started {
            let core = Arc::new(core);
            *self.gateways[index].core.lock().unwrap() = Some(Arc::clone(&core));
            tokio::select! {
                biased;
                _ = core.failed() => {}
                () = core.housekeeping() => {}
                () = self.gateways[index].stop.notified() => {
                    core.close();
                    let drain_us = self.config.timing.drain.as_micros() as u64;
                    tokio::select! {
                        biased;
                        () = core.drained() => {}
                        () = self.executor.sleep_us(drain_us) => {}
                    }
                }
            }
        }
        self.executor.kill(node);
    }

    /// From here on nothing goes wrong any more, and what has gone wrong is put right.
    fn heal(self: &Arc<Self>) {
        self.history().healed = true;
        self.links.lock().unwrap().blocked.clear();
        let nodes = self.gateways.iter().map(|gateway| gateway.node);
        let nodes = nodes
            .chain(self.wallets.iter().map(|wallet| wallet.node))
            .chain(self.store);
        for node in nodes.chain(self.offices.iter().copied()) {
            self.executor.resume(node);
            self.executor.set_clock_right(node);
        }
        self.log(Event::Healed);
        let world = Arc::clone(self);
        self.spawn(NOWHERE, async move {
            world.sleep_ms(LIVENESS_S * 1_000).await;
            world.log(Event::Deadline);
        });
    }

    /// Whether anything is still to be done.
    fn is_busy(&self) -> bool {
        self.disk.open_count() > 0
            || self.wallets.iter().any(Wallet::holds_anything)
            || self.gateways.iter().any(|gateway| gateway.driving() > 0)
    }

    fn count_money(&self) {
        for wallet in &self.wallets {
            wallet.count(self);
        }
    }

    pub fn block(&self, from: NodeId, to: NodeId) {
        self.links.lock().unwrap().blocked.insert((from, to));
    }

    pub fn unblock(&self, from: NodeId, to: NodeId) {
        self.links.lock().unwrap().blocked.remove(&(from, to));
    }

    /// Takes a message from one node to another. False if it never arrives.
    pub async fn transit(&self, from: NodeId, to: NodeId, lost: Fault) -> bool {
        let blocked = |links: &Links| links.blocked.contains(&(from, to));
        let sequence = {
            let mut links = self.links.lock().unwrap();
            if blocked(&links) {
                return false;
            }
            let order = links.order.entry((from, to)).or_default();
            order.0 += 1;
            order.0
        };
        if self.fires(lost, String::new) {
            return false;
        }
        let mut us = 50 + self.executor.draw(5_000);
        if self.fires(Fault::Delayed, String::new) {
            us += 500_000 + self.executor.draw(15_000_000);
        }
        self.executor.sleep_us(us).await;
        let overtaken = {
            let mut links = self.links.lock().unwrap();
            if blocked(&links) {
                return false;
            }
            let order = links.order.entry((from, to)).or_default();
            let overtaken = order.1 > sequence;
            order.1 = order.1.max(sequence);
            overtaken
        };
        if overtaken {
            // Counted, not written: it happens all the time.
            self.history().counts.add(Fault::Reordered);
        }
        true
    }

    /// Calls a gateway in a partner's name. Nothing comes back if a message is lost on the way: bound it. Dropping the call
    /// takes its handler away at wherever it stands.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        from: NodeId,
        gateway: usize,
        make: impl FnOnce(Api) -> Pin<Box<dyn Future<Output = Result<T, Status>> + Send>> + Send + 'static,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let (gone, handler) = HandlerGuard::new();
        let world = Arc::clone(self);
        self.spawn(NOWHERE, async move {
            let node = world.gateways[gateway].node;
            if !world.transit(from, node, Fault::RequestLost).await {
                return;
            }
            let api = world.gateways[gateway]
                .core
                .lock()
                .unwrap()
                .as_ref()
                .map(|core| core.api());
            let Some(api) = api.filter(|_| world.executor.is_alive(node)) else {
                if world.transit(node, from, Fault::ResponseLost).await {
                    let _ = reply.send(Err(Status::unavailable("connection refused")));
                }
                return;
            };
            let (work, abort) = abortable(make(api));
            *handler.lock().unwrap() = Some(abort);
            let back = Arc::clone(&world);
            world.spawn(node, async move {
                let Ok(result) = work.await else { return };
                let world = Arc::clone(&back);
                back.spawn(NOWHERE, async move {
                    if world.transit(node, from, Fault::ResponseLost).await {
                        let _ = reply.send(result);
                    }
                });
            });
        });
        let result = match answer.await {
            Ok(result) => result,
            // The handler's process died, or a message was lost.
            Err(_) if self.executor.draw(2) == 0 => Err(Status::unavailable("connection reset")),
            Err(_) => pending().await,
        };
        drop(gone);
        result
    }
}

/// Takes a call's handler away when its caller goes.
struct HandlerGuard(Arc<Mutex<Option<futures_util::future::AbortHandle>>>);

impl HandlerGuard {
    fn new() -> (Self, Arc<Mutex<Option<futures_util::future::AbortHandle>>>) {
        let handler = Arc::default();
        (Self(Arc::clone(&handler)), handler)
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        if let Some(handler) = self.0.lock().unwrap().take() {
            handler.abort();
        }
    }
}

/// A request in a partner's name, with its certificate and, if there is one, its deadline.
pub fn request<M>(principal: &Principal, message: M, deadline: Option<Duration>) -> Request<M> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(PeerInfo {
        addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
        principal: Ok(principal.clone()),
    });
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}

/// The way from a gateway to a wallet network.
#[derive(Clone)]
struct Line {
    world: Shared,
    gateway: usize,
    wallet: usize,
}

impl Transport for Line {
    async fn unary(
        &self,
        path: &'static str,
        message: Bytes,
        _timeout: Duration,
    ) -> Result<participant::Branch, Status> {
        let world = Arc::clone(&self.world);
        let (from, to) = (world.gateways[self.gateway].node, world.wallets[self.wallet].node);
        let request = wallet::Request::decode(path, &message);
        log_left(&world, self.gateway, &request);
        let (reply, answer) = oneshot::channel();
        let wallet = self.wallet;
        if world.fires(Fault::Duplicated, || format!("{:?}", request.command)) {
            let (world, again) = (Arc::clone(&world), request.clone());
            let later_us = world.executor.draw(20_000_000);
            self.world.spawn(NOWHERE, async move {
                world.executor.sleep_us(later_us).await;
                if world.transit(from, to, Fault::RequestLost).await {
                    world.spawn(to, wallet::serve(Arc::clone(&world), wallet, again, |_| {}));
                }
            });
        }
        let cut = world.fires(Fault::ConnectionCut, String::new);
        self.world.spawn(NOWHERE, async move {
            let arrives = !cut || world.executor.draw(2) == 0;
            if !arrives || !world.transit(from, to, Fault::RequestLost).await {
                if cut {
                    let _ = reply.send(Err(Status::unavailable("connection reset")));
                }
                return;
            }
            if !world.executor.is_alive(to) {
                if world.transit(to, from, Fault::ResponseLost).await {
                    let _ = reply.send(Err(Status::unavailable("connection refused")));
                }
                return;
            }
            let back = Arc::clone(&world);
            let answer = move |result| {
                let world = Arc::clone(&back);
                back.spawn(NOWHERE, async move {
                    if cut {
                        let _ = reply.send(Err(Status::unavailable("connection reset")));
                    } else if world.transit(to, from, Fault::ResponseLost).await {
                        let _ = reply.send(result);
                    }
                });
            };
            world.spawn(to, wallet::serve(Arc::clone(&world), wallet, request, answer));
        });
        match answer.await {
            Ok(result) => result,
            Err(_) => pending().await,
        }
    }
}

fn log_left(world: &World, gateway: usize, request: &wallet::Request) {
    let payment = world.payment(&request.payment);
    world.log(Event::Left {
        gateway,
        payment,
        branch: branch_name(&request.branch),
        command: request.command,
        clock_ms: world.executor.clock_ms(world.gateways[gateway].node),
        decide_by_ms: match request.command {
            Command::Prepare => request.decide_by_ms,
            _ => 0,
        },
    });
}
