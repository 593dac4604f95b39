//! What befalls processes and links, and when: one actor for each, with dice of its own, until the time is up. Each leaves
//! what it had in its hands well and alive.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use causeway::{
    coordinator::HaltPoint,
    pb::mock::v1::{self as mock, fault},
};
use tokio::{task::block_in_place, time::timeout};

use crate::{
    cluster::{Cluster, REFUSED_BY_LOCK},
    dice::{Deck, Dice},
    history::{History, count},
    process::{BOUND, Process},
    proxy::{Kind, Link, Upstream, Way},
};

/// How long a payment may take to come to an armed point; then the point is tried again later.
const REACHES: Duration = Duration::from_secs(10);
const CONTROL: Duration = Duration::from_secs(5);

/// Where everything is, and where it is written down.
#[derive(Clone)]
pub struct Stage {
    pub cluster: Arc<Cluster>,
    pub history: Arc<History>,
    pub seed: u64,
    pub until: Instant,
}

impl Stage {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits for something that a process says, with a bound; false if it never came.
    async fn hears(&self, process: &Process, text: &str, bound: Duration) -> bool {
        let until = (Instant::now() + bound).min(self.until.max(Instant::now()));
        while process.said(text).is_none() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

/// Every point; those around the decision to commit more often, for what is told there must be so.
fn points() -> Vec<HaltPoint> {
    let mut points = HaltPoint::ALL.to_vec();
    points.extend([HaltPoint::BeforeCommitDecided, HaltPoint::AfterCommitDecided]);
    points
}

/// What this run of a process is there for.
enum Listening {
    Gateway,
    Partner(&'static str),
}

/// Waits until it listens, and tells its links where.
fn listens(process: &mut Process, upstream: &Upstream, who: &Listening) {
    let name = match who {
        Listening::Gateway => crate::cast::GATEWAY,
        Listening::Partner(name) => name,
    };
    let text = format!("{name} listening on ");
    let line = block_in_place(|| process.wait_for(&text));
    let address = line.rsplit(' ').next().and_then(|address| address.parse().ok());
    upstream.set(Some(address.expect("a line ends in an address")));
}

/// The gateway's life: one process after the other on one store.
pub struct GatewayActor {
    stage: Stage,
    dice: Dice,
    points: Deck<HaltPoint>,
    /// How one that runs without a point ends: killed, but for one that is asked to stop.
    drains: Deck<bool>,
}

impl GatewayActor {
    pub fn new(stage: Stage) -> Self {
        Self {
            dice: Dice::of(stage.seed, "gateway"),
            points: Deck::new(&points()),
            drains: Deck::new(&[false, false, false, false, false, true]),
            stage,
        }
    }

    /// Until the time is up; answers with a gateway that is alive and well.
    pub async fn run(mut self) -> Process {
        while !self.stage.is_over() {
            // Most successors start at once; some come when the time to decide is over.
            let long_away = match self.dice.below(20) {
                0..=1 => {
                    self.dies_starting().await;
                    10
                }
                2..=9 => {
                    self.dies_at_a_point().await;
                    2
                }
                _ => {
                    self.dies_anywhere().await;
                    10
                }
            };
            if self.dice.one_in(long_away) {
                self.dice.pause(800..3_500).await;
            } else if self.dice.one_in(3) {
                self.dice.pause(50..800).await;
            }
        }
        let process = self.start(&[]).await;
        self.stage.history.event("gateway: started, for good");
        process
    }

    async fn dies_starting(&mut self) {
        let mut process = self.stage.cluster.spawn_gateway(&[]);
        self.dice.pause(0..60).await;
        count(&self.stage.history.counts.kills_starting);
        self.kill(&mut process, "while it started");
    }

    async fn dies_at_a_point(&mut self) {
        let point = self.points.draw(&mut self.dice);
        let mut process = self.start(&["--halt-at", point.name()]).await;
        if self.stage.hears(&process, "halted at", REACHES).await {
            self.dice.pause(0..150).await;
            self.kill(&mut process, point.name());
            let halted = &self.stage.history.halted;
            *halted.lock().unwrap().entry(point).or_default() += 1;
        } else {
            self.points.put_back(point);
            self.kill(&mut process, "before any payment came to its point");
        }
    }

    async fn dies_anywhere(&mut self) {
        let mut process = self.start(&[]).await;
        self.dice.pause(250..1_800).await;
        if self.dice.one_in(2) {
            let history = &self.stage.history;
            count(&history.counts.stops_gateway);
            history.event("gateway: frozen");
            process.freeze();
            if self.dice.one_in(3) {
                self.rival().await;
            }
            self.dice.pause(100..2_200).await;
            if self.dice.one_in(3) {
                count(&self.stage.history.counts.kills_frozen);
                return self.kill(&mut process, "frozen");
            }
            process.thaw();
            self.stage.history.event("gateway: thawed");
            self.dice.pause(50..900).await;
        }
        if self.drains.draw(&mut self.dice) {
            self.stage.history.event("gateway: asked to stop");
            let status = block_in_place(|| process.terminate());
            assert_eq!(status.code(), Some(0), "a stop is no failure");
            self.stage.cluster.gateway.set(None);
            return count(&self.stage.history.counts.drains);
        }
        self.kill(&mut process, "anywhere");
    }

    async fn start(&mut self, arguments: &[&str]) -> Process {
        let mut process = self.stage.cluster.spawn_gateway(arguments);
        listens(&mut process, &self.stage.cluster.gateway, &Listening::Gateway);
        // What it does from here on it does as a gateway, and not as a process that starts.
        block_in_place(|| process.wait_for("recovered"));
        self.stage
            .history
            .event(format!("gateway: started {}", arguments.join(" ")));
        process
    }

    fn kill(&self, process: &mut Process, when: &str) {
        died_by_itself(process, "the gateway");
        process.kill();
        count(&self.stage.history.counts.kills_gateway);
        self.stage.history.event(format!("gateway: killed, {when}"));
        self.stage.cluster.gateway.set(None);
        if let Some(line) = process.said("panicked at") {
            panic!("the gateway panicked: {line}");
        }
    }

    /// A second gateway on the store of one that is frozen: frozen is not dead, and the store is not its.
    async fn rival(&mut self) {
        let mut rival = self.stage.cluster.spawn_gateway(&[]);
        let until = Instant::now() + BOUND;
        let status = loop {
            if let Some(status) = rival.ended() {
                break status;
            }
            let serves = rival.said("recovered").is_some();
            assert!(!serves, "a second gateway serves on the store of one that is frozen");
            assert!(Instant::now() < until, "a second gateway neither serves nor ends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(status.code(), Some(1), "a refusal is a failure");
        block_in_place(|| rival.wait_for(REFUSED_BY_LOCK));
        count(&self.stage.history.counts.rivals_refused);
        self.stage
            .history
            .event("gateway: a second one was refused by the lock of the frozen one");
    }
}

/// One that was not killed must be alive.
fn died_by_itself(process: &mut Process, who: &str) {
    if let Some(status) = process.ended() {
        let said = process.lines("").join("\n");
        panic!("{who} died by itself ({status}):\n{said}");
    }
}

/// A partner network's life.
pub struct PartnerActor {
    stage: Stage,
    name: &'static str,
    dice: Dice,
}

impl PartnerActor {
    pub fn new(stage: Stage, name: &'static str) -> Self {
        Self {
            dice: Dice::of(stage.seed, name),
            stage,
            name,
        }
    }

    /// Starts it, for the first time.
    pub async fn first(&mut self) -> Process {
        self.start(&[]).await
    }

    /// Until the time is up; answers with a network that is alive and well.
    pub async fn run(mut self, mut process: Process) -> Process {
        while !self.stage.is_over() {
            self.dice.pause(800..4_000).await;
            match self.dice.below(10) {
                0..=4 => process = self.dies(process, "anywhere").await,
                5..=6 => process = self.freezes(process).await,
                7..=8 => self.misbehaves(&process).await,
                _ => process = self.dies_of_a_command(process).await,
            }
        }
        died_by_itself(&mut process, self.name);
        self.note_inquiries(&process);
        process
    }

    async fn dies(&mut self, mut process: Process, when: &str) -> Process {
        died_by_itself(&mut process, self.name);
        process.kill();
        count(&self.stage.history.counts.kills_partner);
        self.gone(&process, &format!("killed, {when}"));
        self.dice.pause(0..1_200).await;
        self.start(&[]).await
    }

    async fn freezes(&mut self, process: Process) -> Process {
        count(&self.stage.history.counts.stops_partner);
        self.event("frozen");
        process.freeze();
        self.dice.pause(200..3_000).await;
        if self.dice.one_in(3) {
            return self.dies(process, "frozen").await;
        }
        process.thaw();
        self.event("thawed");
        process
    }

    /// Loses answers, or requests, acts twice, or takes its time, for a while.
    async fn misbehaves(&mut self, process: &Process) {
        let kind = self.dice.pick(&[
            fault::Kind::LoseAnswer,
            fault::Kind::LoseRequest,
            fault::Kind::AnswerTwice,
            fault::Kind::Latency,
        ]);
        let fault = mock::Fault {
            kind: kind.into(),
            command: fault::Command::Unspecified.into(),
            count: self.dice.within(2..12) as i32,
            latency_ms: if kind == fault::Kind::Latency { 300 } else { 0 },
            jitter_ms: if kind == fault::Kind::Latency { 2_500 } else { 0 },
            ..mock::Fault::default()
        };
        self.event(&format!("misbehaves: {}", kind.as_str_name()));
        self.set_faults(vec![fault]).await;
        self.dice.pause(300..2_000).await;
        let Some(mut control) = self.stage.cluster.control(self.name) else {
            return;
        };
        if let Ok(Ok(listed)) = timeout(CONTROL, control.list_faults(mock::ListFaultsRequest {})).await {
            let fired: i64 = listed.into_inner().faults.iter().map(|fault| fault.fired_count).sum();
            let fired = u64::try_from(fired).expect("counts are not negative");
            self.stage
                .history
                .counts
                .partner_faults
                .fetch_add(fired, Ordering::Relaxed);
        }
        self.set_faults(Vec::new()).await;
        assert!(process.said("panicked at").is_none(), "{} panicked", self.name);
    }

    /// Dies right after it has carried a command out, before it answers.
    async fn dies_of_a_command(&mut self, mut process: Process) -> Process {
        let command = self.dice.pick(&["prepare", "commit", "abort"]);
        process.kill();
        count(&self.stage.history.counts.kills_partner);
        self.gone(&process, "killed, to be started with a crash to come");
        let mut process = self.start(&[format!("crash-after:{command}:1")]).await;
        let until = (Instant::now() + REACHES).min(self.stage.until);
        while process.ended().is_none() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if process.ended().is_none() {
            return self.dies(process, "no command of the kind came").await;
        }
        count(&self.stage.history.counts.partner_crashes);
        self.gone(&process, &format!("crashed after a {command}"));
        self.dice.pause(0..800).await;
        self.start(&[]).await
    }

    async fn set_faults(&self, faults: Vec<mock::Fault>) {
        let mut control = self.stage.cluster.control(self.name).expect("it is alive");
        let set = timeout(BOUND, control.set_faults(mock::SetFaultsRequest { faults })).await;
        set.expect("an answer").expect("the faults are taken");
    }

    async fn start(&mut self, faults: &[String]) -> Process {
        let mut process = self.stage.cluster.spawn_partner(self.name, faults);
        let upstream = &self.stage.cluster.place(self.name).upstream;
        listens(&mut process, upstream, &Listening::Partner(self.name));
        self.event("started");
        process
    }

    fn gone(&self, process: &Process, how: &str) {
        self.stage.cluster.place(self.name).upstream.set(None);
        self.event(how);
        self.note_inquiries(process);
    }

    /// Branches that this process settled by asking the gateway.
    fn note_inquiries(&self, process: &Process) {
        let settled = process.lines("in doubt, decided").len() as u64;
        let counter = &self.stage.history.counts.settled_by_inquiry;
        counter.fetch_add(settled, Ordering::Relaxed);
    }

    fn event(&self, what: &str) {
        self.stage.history.event(format!("{}: {what}", self.name));
    }
}

/// The weather on one link.
pub async fn weather(stage: Stage, link: Link) {
    let mut dice = Dice::of(stage.seed, link.name);
    // Commands that come late are what aborts have to be remembered for.
    let mut all = Kind::ALL.to_vec();
    if link.carries_commands() {
        all.extend([Kind::Late; 4]);
    }
    let mut kinds = Deck::new(&all);
    loop {
        dice.pause(600..4_500).await;
        if stage.is_over() {
            return;
        }
        let kind = kinds.draw(&mut dice);
        stage.history.event(format!("{}: {kind:?} begins", link.name));
        match kind {
            Kind::Cut => link.cut(),
            Kind::Blackhole => link.hold(None),
            Kind::OneWay => link.hold(Some(dice.pick(&[Way::Up, Way::Down]))),
            Kind::Delay => link.delay(Duration::from_millis(dice.within(20..400))),
            Kind::Drip => {
                let bytes = dice.within(1..40) as usize;
                link.drip(bytes, Duration::from_millis(dice.within(1..20)));
            }
            Kind::Late => {
                link.hold_old();
                dice.pause(50..900).await;
                link.cut_clients();
            }
        }
        match kind {
            Kind::Cut => {}
            // Long enough now and then that a partner asks on its own.
            Kind::Blackhole | Kind::OneWay if dice.one_in(5) => dice.pause(3_000..6_000).await,
            _ => dice.pause(100..2_400).await,
        }
        if kind == Kind::Late {
            let percent = dice.within(20..101) as usize;
            link.trickle_old(percent, Duration::from_millis(dice.within(10..150)));
            dice.pause(500..1_500).await;
        }
        // Some holes swallow their connections.
        if matches!(kind, Kind::Blackhole | Kind::OneWay) && dice.one_in(3) {
            link.cut();
        }
        link.clear();
        stage.history.event(format!("{}: {kind:?} is over", link.name));
    }
}
