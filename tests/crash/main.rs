//! The whole-process crash test: real gateways and real partner networks on loopback, killed and frozen at random and at every
//! named point, and a network between them that cuts, swallows, delays and reorders. In the end an auditor compares what
//! callers were told with what wallets show.
//!
//! Reading order: [`cast`] (who takes part), [`cluster`] (processes and links), [`proxy`] (the network), [`chaos`] (what
//! befalls whom), [`callers`] and [`watchers`] (who asks and who looks on), [`history`] (what is written down), [`closing`]
//! (what must be so in the end), [`auditor`] (what was wrong), [`report`] (how much was exercised).
//!
//! `CRASH_SECONDS` is how long faults go on (30), `CRASH_SEED` what they are chosen by (a new one each time). The last thing
//! that the test says is one line for scripts, `crash: N kills, L lost, D doubled, I in doubt`. It goes to standard output
//! past the capture of the test harness, so that it shows whether or not the test passes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::type_complexity,
    reason = "the rows of tables are tuples, each explained where it stands"
)]

mod auditor;
#[cfg(test)]
mod auditor_tests;
mod callers;
mod cast;
mod chaos;
mod closing;
mod cluster;
#[path = "../support/decimal.rs"]
mod decimal;
mod dice;
mod evidence;
mod history;
#[path = "../support/process.rs"]
mod process;
mod proxy;
mod report;
#[path = "../support/requests.rs"]
#[allow(dead_code, reason = "every test binary uses its own part")]
mod requests;
mod watchers;
#[path = "../support/wire.rs"]
#[allow(dead_code, reason = "every test binary uses its own part")]
mod wire;

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use causeway::pb::gateway::v1::payment_service_client::PaymentServiceClient;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use auditor::{Class, judge};
use callers::{Caller, Desk};
use cast::{CAST, OPERATOR};
use chaos::{GatewayActor, PartnerActor, Stage, weather};
use closing::{HEALS_WITHIN, Watching, ask_for_all, gather, heal};
use cluster::Cluster;
use dice::Dice;
use history::{History, now_ms};
use proxy::Link;
use report::{Tally, tell};
use watchers::{Watcher, inspect};

/// Callers of each network.
const CALLERS: u64 = 8;

/// The number in this variable.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_doubled_or_in_doubt_whoever_dies() {
    let lasts = Duration::from_secs(number("CRASH_SECONDS").unwrap_or(30));
    let seed = number("CRASH_SEED").unwrap_or_else(|| now_ms() as u64);
    println!(
        "seed {seed}; the same choices again: CRASH_SEED={seed} CRASH_SECONDS={} cargo test --release --test crash",
        lasts.as_secs()
    );
    let cluster = Arc::new(Cluster::new().await);
    let history = Arc::new(History::default());
    let began = Instant::now();
    let stage = Stage {
        cluster: Arc::clone(&cluster),
        history: Arc::clone(&history),
        seed,
        until: began + lasts,
    };

    let watching = watchers(&stage);
    let inspected = CancellationToken::new();
    let mut inspectors = JoinSet::new();
    for cast in &CAST {
        inspectors.spawn(inspect(
            Arc::clone(&cluster),
            Arc::clone(&history),
            cast.name,
            inspected.clone(),
        ));
    }
    // Kept to the end: a process ends with its handle.
    let (_processes, healing_since) = faults(&stage).await;
    heal(&cluster, healing_since).await;
    let healed = healing_since.elapsed();
    let asking_since = Instant::now();
    ask_for_all(&cluster, &history).await;
    heal(&cluster, asking_since).await;
    let settled = asking_since.elapsed();
    inspected.cancel();
    while let Some(ended) = inspectors.join_next().await {
        ended.expect("the inspector does not panic");
    }
    let evidence = gather(&cluster, &history, watching).await;
    let verdict = judge(&evidence);

    let links: Vec<Link> = cluster.links().cloned().collect();
    let tally = Tally::take(&history, &evidence, &links, lasts);
    println!("{}", tally.table());
    println!("healed within {healed:?}, and within {settled:?} after every order was asked for again");
    if !verdict.findings.is_empty() {
        println!("{}", tell(&verdict, &evidence, &history));
    }
    closing_line(&format!(
        "crash: {} kills, {} lost, {} doubled, {} in doubt",
        history.kills(),
        verdict.count(Class::Lost),
        verdict.count(Class::Doubled),
        verdict.count(Class::InDoubt),
    ));
    assert!(
        verdict.findings.is_empty(),
        "{} findings, told above",
        verdict.findings.len()
    );
    assert!(healed < HEALS_WITHIN && settled < HEALS_WITHIN, "did not heal in time");
    let too_little = tally.too_little();
    assert!(too_little.is_empty(), "too little happened: {too_little:#?}");
}

/// For scripts, on a line of its own. The harness captures what `println!` prints, and not this.
fn closing_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{line}").unwrap();
    stdout.flush().unwrap();
}

/// Callers call and everything breaks, until the time is up; answers with the processes, all well, and since when they are.
async fn faults(stage: &Stage) -> (Vec<process::Process>, Instant) {
    let mut actors = JoinSet::new();
    for cast in &CAST {
        let mut actor = PartnerActor::new(stage.clone(), cast.name);
        let process = actor.first().await;
        actors.spawn(actor.run(process));
    }
    actors.spawn(GatewayActor::new(stage.clone()).run());
    let mut others = JoinSet::new();
    for link in stage.cluster.links() {
        others.spawn(weather(stage.clone(), link.clone()));
    }
    for cast in &CAST {
        for number in 0..CALLERS {
            let name = format!("{}-caller{number}", cast.name);
            let caller = Caller {
                dice: Dice::of(stage.seed, &name),
                desk: Desk::new(stage.cluster.as_partner(cast.name), Arc::clone(&stage.history)),
                initiator: cast.name,
                name,
            };
            others.spawn(caller.run(stage.until));
        }
    }
    let mut processes = Vec::new();
    while let Some(process) = actors.join_next().await {
        processes.push(process.expect("told above"));
    }
    for link in stage.cluster.links() {
        link.clear();
    }
    let healing_since = Instant::now();
    while let Some(ended) = others.join_next().await {
        ended.expect("told above");
    }
    (processes, healing_since)
}

/// A watcher for each network, and one for the operator.
fn watchers(stage: &Stage) -> Vec<Watching> {
    let networks = CAST.iter().map(|cast| {
        let channel = stage.cluster.as_partner(cast.name);
        (cast.name, PaymentServiceClient::new(channel))
    });
    let all = networks.chain([(OPERATOR, stage.cluster.as_operator())]);
    all.map(|(who, client)| {
        let (in_all, receiver) = watch::channel(None);
        let watcher = Watcher {
            client,
            history: Arc::clone(&stage.history),
            dice: Dice::of(stage.seed, &format!("watcher of {who}")),
            in_all: receiver,
        };
        let seen = tokio::spawn(watcher.run());
        Watching { who, in_all, seen }
    })
    .collect()
}
