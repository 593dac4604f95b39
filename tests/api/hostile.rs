//! A partner that breaks the protocol itself, on the level of HTTP/2, gRPC and bytes, over real sockets and TLS: it is named in
//! log and metrics, its payments abort in time, and no other partner's payments suffer.
//!
//! The partner's server ([`server`]) shares no code with the gateway's client. How it answers is chosen by the payee's account;
//! everything happens at once, on one connection.

mod server;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use causeway::{
    pb::gateway::v1::{AnswerAt, CreatePaymentRequest, Payment, payment::State},
    tls::{self, ListenLimits, TlsConnection, TlsFiles},
};
use futures_util::{StreamExt, future::join_all};
use h2::Reason;
use http::{HeaderValue, Response};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use crate::support::{
    ALIPAY, APPLE, BOUND, Client, Metrics, Network, PAYPAL, Route, Settings, requests::partner, wait_for, within,
};
use server::{Deeds, Expected, HOSTILE_AFTER, HOSTILITIES, Hostility, LATE, serve};

/// What a caller gives a payment that will not be voted on: it is decided within this.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// What the gateway may take for it on a machine that is busy with everything here.
const ABORTED_WITHIN: Duration = Duration::from_secs(8);
/// How long a command to a partner may take.
const COMMAND_MS: u32 = 2_000;
/// No payment between others takes longer, and half of them far less than a command that is not answered.
const OTHERS_WITHIN: Duration = Duration::from_secs(5);
const OTHERS_HALF_WITHIN: Duration = Duration::from_secs(1);
const OTHERS_AT_ONCE: usize = 4;
/// How many payments meet each kind of hostility, at once.
const EACH: usize = 3;
/// HTTP/2's flow control of one call and of one connection, by which the gateway bounds what waits to be read.
const STREAM_WINDOW: usize = 1 << 20;
/// Of each partner and kind at most one line in this time.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

const MISBEHAVIOUR: &str = "causeway_participant_misbehaviour_total";
const UNREACHABLE: &str = "causeway_participant_unreachable_total";
const ANSWERS: &str = "causeway_participant_answers_total";

fn impatient() -> Settings {
    Settings {
        command_ms: COMMAND_MS,
        inquiry_ms: COMMAND_MS,
        ..Settings::default()
    }
}

/// Payments between two partners who behave, one after the other in several lines, for as long as it is there.
struct Others {
    stop: Arc<AtomicBool>,
    lines: Vec<JoinHandle<Vec<Duration>>>,
}

impl Others {
    fn start(network: &Network) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let lines = (0..OTHERS_AT_ONCE).map(|line| {
            let (name, route) = [(APPLE, Route::USD_EUR), (PAYPAL, Route::EUR_USD)][line % 2];
            let (client, stop) = (network.partner(name), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    client
                        .pay(route.send(&format!("other-{line}-{}", times.len()), "1"))
                        .await;
                    times.push(start.elapsed());
                }
                times
            })
        });
        Self {
            lines: lines.collect(),
            stop,
        }
    }

    /// All of them have completed in time; answers how many they were.
    async fn end(self, least: usize) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let lines = within("the others' payments end", join_all(self.lines)).await;
        let mut times: Vec<_> = lines.into_iter().flat_map(|line| line.expect("all complete")).collect();
        times.sort();
        let (half, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{} payments between others: half within {half:?}, all within {longest:?}",
            times.len()
        );
        assert!(times.len() >= least, "only {} payments between others", times.len());
        assert!(
            half < OTHERS_HALF_WITHIN && longest < OTHERS_WITHIN,
            "{half:?}, {longest:?}"
        );
        times.len()
    }
}

/// Pays to the hostile partner as a shop does that wants an answer soon; the payment once it is decided, and how long that
/// took.
async fn pay(client: Client, request: CreatePaymentRequest) -> (Payment, Duration) {
    let start = Instant::now();
    let mut hurried = tonic::Request::new(request.clone());
    hurried.set_timeout(PATIENCE);
    // Whether or not the answer makes it: the payment is decided by then, and a retry is told.
    let _ = client.payments.clone().create_payment(hurried).await;
    let payment = client
        .create(CreatePaymentRequest {
            answer_at: AnswerAt::Decision.into(),
            ..request
        })
        .await
        .expect("the payment is there");
    (payment, start.elapsed())
}

fn check(payment: &Payment, reason: &str, took: Duration, what: &str) {
    let aborting = [State::Aborting, State::Aborted].contains(&payment.state());
    assert!(aborting, "{what}: {payment:?}");
    let outcome = payment.outcome.as_ref().expect("it says why");
    let found = (outcome.reason.as_str(), outcome.partner.as_str());
    assert_eq!(found, (reason, partner(ALIPAY).as_str()), "{what}: {payment:?}");
    assert!(took < ABORTED_WITHIN, "{what}: decided after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_nonsense_at_once_is_named_and_harms_nobody_else() {
    let mut network = Network::with(impatient()).await;
    let deeds = Arc::new(Deeds::default());
    network.kill_partner(ALIPAY).await;
    network
        .start_stand_in(ALIPAY, |listener, files| serve(listener, files, Arc::clone(&deeds)))
        .await;
    let apple = network.partner(APPLE);
    let start = Instant::now();
    let others = Others::start(&network);

    let hostile = HOSTILITIES.iter().flat_map(|row| (0..EACH).map(move |n| (row, n)));
    let paid = hostile.map(|(row, n)| {
        let route = Route {
            payee: row.account,
            ..Route::USD_CNY
        };
        let request = route.send(&format!("{}-{n}", row.account), "10");
        let apple = apple.clone();
        async move { (row, pay(apple, request).await) }
    });
    let mut names = BTreeMap::new();
    for (row, (payment, took)) in join_all(paid).await {
        check(&payment, row.reason, took, row.account);
        names.insert(payment.name, row);
    }
    assert_eq!(names.len(), HOSTILITIES.len() * EACH);
    // It does as it is told at last, and the payments end.
    for name in names.keys() {
        apple.reaches(name, &[State::Aborted]).await;
    }
    let paid_by_others = others.end(100).await;
    let took = start.elapsed();

    let metrics = network.metrics().await;
    let named = names_in_metrics(&metrics, &names);
    names_in_log(&network, &names, took);
    let calls = deeds.calls.load(Ordering::Relaxed);
    let counted = metrics.sum(ANSWERS, ("partner", ALIPAY)) as usize;
    println!("{calls} calls, of which {counted} were waited for and {named} named, in {took:?}");
    // Two commands a payment at the least: a Prepare and Aborts.
    assert!(
        counted >= 2 * names.len() && named >= names.len(),
        "{counted} answers, {named} named"
    );
    for name in [APPLE, PAYPAL] {
        assert_eq!(metrics.sum(MISBEHAVIOUR, ("partner", name)), 0, "{name} is blamed");
        assert_eq!(metrics.value(UNREACHABLE, &[("partner", name)]), 0, "{name} is blamed");
    }

    check_endless(&deeds).await;
    // The books, with the real network back in its place.
    network.kill_partner(ALIPAY).await;
    network.start_partner(ALIPAY).await;
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted), (paid_by_others, names.len()));
    assert_eq!((audit.disputed, audit.movements), (0, 2 * paid_by_others));
}

/// Every kind has been counted at least once for each payment that met it; answers how many were counted in all.
fn names_in_metrics(metrics: &Metrics, names: &BTreeMap<String, &Expected>) -> usize {
    let mut least: BTreeMap<&str, u64> = BTreeMap::new();
    for row in names.values() {
        *least.entry(row.kind).or_default() += 1;
    }
    assert!(least.len() >= 11, "{least:?}");
    let mut named = 0;
    for (kind, least) in least {
        let found = match kind {
            "unreachable" => metrics.value(UNREACHABLE, &[("partner", ALIPAY)]),
            kind => metrics.value(MISBEHAVIOUR, &[("partner", ALIPAY), ("kind", kind)]),
        };
        println!("{kind}: {found}");
        assert!(found >= least, "{kind}: {found}, at least {least}");
        named += found as usize;
    }
    named
}

/// Every kind has its line, with a payment that met it; and there are few.
fn names_in_log(network: &Network, names: &BTreeMap<String, &Expected>, took: Duration) {
    let mut kinds: Vec<_> = names.values().map(|row| row.kind).collect();
    kinds.sort();
    kinds.dedup();
    let most = 1 + took.as_secs() as usize / LINE_INTERVAL.as_secs() as usize;
    for kind in kinds {
        let lines = network
            .log()
            .lines(&["WARN", "partner=alipay", &format!("kind=\"{kind}\"")]);
        assert!((1..=most).contains(&lines.len()), "{kind}: {lines:#?}");
        for line in lines {
            let (_, rest) = line.split_once("payment=").expect("the payment is named");
            let payment = rest.split(' ').next().expect("there is a word");
            let row = names
                .get(payment)
                .unwrap_or_else(|| panic!("not of these payments: {line}"));
            let parts = ["branch=\"credit\"", "command=\"", "excerpt=\"", "left_out="];
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
            // A payment whose stream was reset half-way may also have had no answer in time.
            assert!(
                row.kind == kind || kind == "no_answer",
                "{} is not {}: {line}",
                row.account,
                kind
            );
            assert!(!line.contains('\u{1b}'), "a terminal would obey: {line:?}");
        }
    }
    assert!(network.log().lines(&["partner=apple-pay"]).is_empty());
    assert!(network.log().lines(&["partner=paypal"]).is_empty());
}

/// Every stream without end was ended by the gateway, before more came than HTTP/2's flow control lets in.
async fn check_endless(deeds: &Deeds) {
    let kinds = [
        Hostility::EndlessAfterTheAnswer,
        Hostility::EndlessInstead,
        Hostility::AGigabyte,
    ];
    // A Prepare, and what came after the decision, of each payment at the least.
    let expected = EACH * (1 + HOSTILE_AFTER);
    let streams = wait_for("the streams without end are ended", BOUND, || async {
        let streams = deeds.endless.lock().unwrap().clone();
        let counts = kinds.map(|kind| streams.iter().filter(|stream| stream.hostility == kind).count());
        if counts.iter().all(|count| *count >= expected) {
            Ok(streams)
        } else {
            Err(counts)
        }
    })
    .await;
    let largest = streams
        .iter()
        .map(|stream| stream.bytes)
        .max()
        .expect("there are streams");
    println!(
        "{} streams without end, at most {largest} bytes of one were taken",
        streams.len()
    );
    for stream in streams {
        // What was read is let in again: one window, and the few pieces until the first wrong byte.
        assert!(stream.bytes <= STREAM_WINDOW + (64 << 10), "{stream:?}");
        assert!(stream.bytes > 0, "{stream:?}");
    }
}

/// What somebody at the partner's address does with a connection.
#[derive(Clone, Copy, Debug)]
enum Lineman {
    /// Accepts, and says nothing, not even in TLS.
    Mute,
    /// TLS with the partner's certificate, then bytes that are no HTTP/2.
    Noise,
    /// TLS, then the end.
    HangsUp,
    /// HTTP/2 until the first call, then the end.
    HangsUpOnCalls,
    /// HTTP/2 that goes away at each call.
    GoesAway,
    /// HTTP/2 with headers of more than is read.
    HugeHeaders,
    /// No TLS at all.
    Plain,
}

async fn stand(listener: TcpListener, files: TlsFiles, lineman: Lineman, met: Arc<AtomicUsize>) {
    let mut kept = Vec::new();
    if matches!(lineman, Lineman::Mute | Lineman::Plain) {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            met.fetch_add(1, Ordering::Relaxed);
            if matches!(lineman, Lineman::Plain) {
                let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
            }
            kept.push(stream);
        }
    }
    let config = tls::server_config(&files).expect("the files are good");
    let connections = tls::incoming(listener, config, ListenLimits::default());
    let mut connections = std::pin::pin!(connections);
    let mut tasks = JoinSet::new();
    while let Some(connection) = connections.next().await {
        let mut connection = connection.unwrap();
        met.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(async move {
            match lineman {
                Lineman::Noise => {
                    let _ = connection.write_all(&[0xff; 4_096]).await;
                    let _ = connection.flush().await;
                    // The other side hangs up.
                    let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
                }
                Lineman::HangsUp => drop(connection),
                Lineman::HangsUpOnCalls | Lineman::GoesAway | Lineman::HugeHeaders => {
                    hang_up_on_a_call(connection, lineman).await;
                }
                Lineman::Mute | Lineman::Plain => unreachable!("they speak no TLS"),
            }
        });
    }
}

async fn hang_up_on_a_call(connection: TlsConnection, lineman: Lineman) {
    let Ok(mut connection) = h2::server::handshake(connection).await else {
        return;
    };
    let Some(Ok((_call, mut respond))) = connection.accept().await else {
        return;
    };
    match lineman {
        Lineman::GoesAway => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
        Lineman::HugeHeaders => {
            let huge = HeaderValue::from_str(&"x".repeat(64 << 10)).unwrap();
            let head = Response::builder()
                .header("content-type", "application/grpc")
                .header("x", huge);
            let _ = respond.send_response(head.body(()).unwrap(), true);
        }
        _ => return,
    }
    let _ = poll_fn(|context| connection.poll_closed(context)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_leads_nowhere_is_named_and_harms_nobody_else() {
    let mut network = Network::with(impatient()).await;
    let apple = network.partner(APPLE);
    network.kill_partner(ALIPAY).await;
    let others = Others::start(&network);
    let mut paid = 0;
    for (lineman, kind) in [
        (Lineman::Mute, "no_answer"),
        (Lineman::Plain, "unreachable"),
        (Lineman::Noise, "not_grpc"),
        (Lineman::HangsUp, "unreachable"),
        (Lineman::HangsUpOnCalls, "unreachable"),
        (Lineman::GoesAway, "unreachable"),
        (Lineman::HugeHeaders, "not_grpc"),
    ] {
        let value = |metrics: &Metrics| match kind {
            "unreachable" => metrics.value(UNREACHABLE, &[("partner", ALIPAY)]),
            kind => metrics.value(MISBEHAVIOUR, &[("partner", ALIPAY), ("kind", kind)]),
        };
        let before = value(&network.metrics().await);
        let met = Arc::new(AtomicUsize::new(0));
        network
            .start_stand_in(ALIPAY, |listener, files| {
                stand(listener, files, lineman, Arc::clone(&met))
            })
            .await;
        let request = Route::USD_CNY.send(&format!("{lineman:?}"), "10");
        let (payment, took) = pay(apple.clone(), request).await;
        check(&payment, LATE, took, &format!("{lineman:?}"));
        let after = value(&network.metrics().await);
        println!(
            "{lineman:?}: {kind} {} times, {} connections",
            after - before,
            met.load(Ordering::Relaxed)
        );
        assert!(after > before, "{lineman:?} should be {kind}");
        assert!(met.load(Ordering::Relaxed) > 0, "{lineman:?} was not met");
        let lines = network
            .log()
            .lines(&["WARN", "partner=alipay", &format!("kind=\"{kind}\"")]);
        assert!(!lines.is_empty(), "{lineman:?}");
        network.kill_partner(ALIPAY).await;
        paid += 1;
    }
    let paid_by_others = others.end(100).await;
    let metrics = network.metrics().await;
    for name in [APPLE, PAYPAL] {
        assert_eq!(metrics.sum(MISBEHAVIOUR, ("partner", name)), 0, "{name} is blamed");
        assert_eq!(metrics.value(UNREACHABLE, &[("partner", name)]), 0, "{name} is blamed");
    }
    network.start_partner(ALIPAY).await;
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted), (paid_by_others, paid));
    assert_eq!((audit.disputed, audit.movements), (0, 2 * paid_by_others));
}
