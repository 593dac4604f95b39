//! A gateway that is asked to stop, or dies, while payments are under way.

use causeway::{
    coordinator::HaltPoint,
    pb::{
        gateway::v1::{AnswerAt, CreatePaymentRequest, Payment, payment::State},
        mock::v1::fault::{Command, Kind},
    },
};
use futures_util::future::join_all;
use prost::Message;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, Status};

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Client, Network, Refusal, Route, Settings,
        clients::{fault, latency, once},
        wait_for,
        wire::call_with_bytes_later,
        within,
    },
};

fn begin(apple: &Client, request: CreatePaymentRequest) -> JoinHandle<Result<Payment, Status>> {
    let apple = apple.clone();
    tokio::spawn(async move { apple.create(request).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished_and_answered_and_nothing_new_begins() {
    let mut network = Network::start().await;
    let apple = network.partner(APPLE);
    let mock = network.mock(ALIPAY);
    let done = Route::USD_CNY.send("done", "1");
    apple.pay(done.clone()).await;
    mock.set_faults([latency(Command::Prepare, 400)]).await;
    let calls: Vec<_> = (0..20)
        .map(|index| begin(&apple, Route::USD_CNY.send(&format!("r-{index}"), "1")))
        .collect();
    mock.fires(20).await;
    network.begin_drain();
    // From now on every new payment is refused, until the connection itself is gone.
    let (mut draining, mut gone) = (0, 0);
    let mut index = 0;
    while !network.has_drained() {
        index += 1;
        // What is there already is not refused because nothing new begins.
        match apple.create(done.clone()).await {
            Ok(payment) => assert_eq!(payment.state(), State::Completed),
            Err(status) => assert_ne!(Refusal::from(&status).reason, "DRAINING", "{status:?}"),
        }
        match apple.create(Route::USD_CNY.send(&format!("late-{index}"), "1")).await {
            Err(status) => {
                let refusal = Refusal::from(&status);
                match refusal.reason.as_str() {
                    "DRAINING" => {
                        assert_eq!(refusal.code, Code::Unavailable);
                        assert!(refusal.retry_after.is_some(), "{refusal:?}");
                        draining += 1;
                    }
                    // The connection says that it takes no new calls, or nobody listens any more.
                    _ => {
                        assert!(
                            [Code::Unavailable, Code::Unknown, Code::Cancelled].contains(&refusal.code),
                            "{refusal:?}"
                        );
                        gone += 1;
                    }
                }
            }
            // Begun in the moment between the request to stop and its being heard.
            Ok(payment) => assert_eq!(payment.state(), State::Completed, "{payment:?}"),
        }
    }
    for call in calls {
        let payment = call.await.unwrap().expect("a payment under way is answered");
        assert_eq!(payment.state(), State::Completed, "{payment:?}");
    }
    network.end_drain().await.unwrap();
    assert!(draining + gone > 0, "somebody came while it drained");
    mock.set_faults([]).await;
    network.start_gateway().await;
    // What was refused was not begun: its request_id is free.
    let audit = network.audit().await;
    assert!(audit.completed >= 20, "{audit:?}");
    assert_eq!(audit.movements, 2 * audit.completed);
    network
        .partner(APPLE)
        .pay(Route::USD_CNY.send(&format!("late-{index}"), "1"))
        .await;
    assert_eq!(network.audit().await.aborted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_on_its_way_when_the_drain_began_starts_nothing() {
    const CREATE: &str = "/causeway.gateway.v1.PaymentService/CreatePayment";
    let mut network = Network::start().await;
    let apple = network.partner(APPLE);
    let quote = apple.quoted(Route::USD_CNY, "1").await;
    // Opened before the drain, so that the connection still takes them; their messages come after it has begun.
    let (mut go, mut calls) = (Vec::new(), Vec::new());
    for request in [
        Route::USD_CNY.send("r-1", "1"),
        Route::USD_CNY.by_quote("r-2", &quote.name),
    ] {
        let (send, sent) = oneshot::channel::<()>();
        let (open, opened) = oneshot::channel::<()>();
        let message = async move {
            open.send(()).unwrap();
            sent.await.unwrap();
            request.encode_to_vec()
        };
        let channel = apple.channel.clone();
        calls.push(tokio::spawn(async move {
            call_with_bytes_later(&channel, CREATE, message).await
        }));
        within("the call is opened", opened).await.unwrap();
        go.push(send);
    }
    // Frames of one connection are read in order: once this call is answered, those are known to the server.
    let mut watch = apple.watch("", "").await.unwrap();
    network.begin_drain();
    let hello = within("a place in the feed", watch.message()).await.unwrap();
    assert_eq!(hello.unwrap().payment, None);
    refused(
        "the drain has begun",
        within("an end", watch.message()).await,
        "DRAINING",
        &[],
    );
    for go in go {
        go.send(()).unwrap();
    }
    for (call, id) in calls.into_iter().zip(["r-1", "r-2"]) {
        let refusal = refused(id, call.await.unwrap(), "DRAINING", &[]);
        assert!(refusal.retry_after.is_some(), "{refusal:?}");
    }
    network.end_drain().await.unwrap();
    network.start_gateway().await;
    assert_eq!(network.audit().await, Default::default());
    let apple = network.partner(APPLE);
    apple.pay(Route::USD_CNY.by_quote("r-2", &quote.name)).await;
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_the_drain_goes_on_at_the_next_start() {
    let mut network = Network::with(Settings {
        drain_ms: 100,
        ..Settings::default()
    })
    .await;
    let apple = network.partner(APPLE);
    let mock = network.mock(ALIPAY);
    let mut calls = Vec::new();
    // Some are decided and not carried out, some are not decided.
    mock.set_faults([fault(Kind::LoseRequest, Command::Commit)]).await;
    for index in 0..10 {
        let request = CreatePaymentRequest {
            answer_at: AnswerAt::Decision.into(),
            ..Route::USD_CNY.send(&format!("decided-{index}"), "1")
        };
        let payment = apple.create(request).await.unwrap();
        assert_eq!(payment.state(), State::Committing);
    }
    mock.set_faults([
        latency(Command::Prepare, 60_000),
        fault(Kind::LoseRequest, Command::Commit),
    ])
    .await;
    for index in 0..10 {
        calls.push(begin(&apple, Route::USD_CNY.send(&format!("open-{index}"), "1")));
    }
    wait_for("all are asked to vote", BOUND, || async {
        let fired = mock.fired().await;
        if fired[0] == 10 { Ok(()) } else { Err(fired) }
    })
    .await;
    network.stop_gateway().await;
    for call in calls {
        assert!(call.await.unwrap().is_err(), "it cannot have been answered");
    }
    mock.set_faults([]).await;
    network.start_gateway().await;
    let apple = network.partner(APPLE);
    for index in 0..10 {
        let decided = apple.pay(Route::USD_CNY.send(&format!("decided-{index}"), "1")).await;
        assert_eq!(decided.state(), State::Completed);
        // The retry attaches to what recovery took up: the votes are asked for again and come this time.
        apple.pay(Route::USD_CNY.send(&format!("open-{index}"), "1")).await;
    }
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.movements), (20, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_at_any_point_comes_back_to_one_end() {
    let mut exercised = 0;
    for halt in HaltPoint::ALL {
        let aborts = [HaltPoint::BeforeAbortDecided, HaltPoint::AfterAbortDecided].contains(&halt);
        let mut network = Network::with(Settings {
            halts: vec![halt],
            ..Settings::default()
        })
        .await;
        let apple = network.partner(APPLE);
        let route = if aborts {
            Route {
                payee: "gone",
                ..Route::USD_CNY
            }
        } else {
            Route::USD_CNY
        };
        // The first of the two that gets to the point stands still there; the other passes it afterwards and ends. That
        // all have acknowledged is answered before it is written, so the last point holds no answer back.
        let answers = if halt == HaltPoint::AfterEnded { 2 } else { 1 };
        let requests = ["r-1", "r-2"].map(|id| route.send(id, "100"));
        let calls = requests.clone().map(|request| begin(&apple, request));
        wait_for("those that can end have", BOUND, || async {
            let ended = calls.iter().filter(|call| call.is_finished()).count();
            if ended == answers { Ok(()) } else { Err(ended) }
        })
        .await;
        network.kill_gateway().await;
        let answered = join_all(calls)
            .await
            .into_iter()
            .filter(|call| call.as_ref().unwrap().is_ok())
            .count();
        assert_eq!(answered, answers, "{halt}");
        network.start_gateway().await;
        for request in requests {
            let payment = network.partner(APPLE).create(request).await.unwrap();
            let expected = if aborts { State::Aborted } else { State::Completed };
            assert_eq!(payment.state(), expected, "{halt}: {payment:?}");
        }
        let audit = network.audit().await;
        let completed = if aborts { 0 } else { 2 };
        assert_eq!((audit.completed, audit.aborted), (completed, 2 - completed), "{halt}");
        assert_eq!(audit.movements, 2 * completed, "{halt}");
        exercised += 1;
    }
    assert_eq!(exercised, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_under_load_loses_nothing_and_doubles_nothing() {
    let mut network = Network::start().await;
    let mock = network.mock(ALIPAY);
    // Every other command is late, some get lost: the gateway dies amid all phases.
    let late = causeway::pb::mock::v1::Fault {
        jitter_ms: 40,
        ..latency(Command::Unspecified, 0)
    };
    let lossy = [
        once(Kind::LoseAnswer, Command::Prepare),
        once(Kind::LoseRequest, Command::Commit),
    ];
    let requests: Vec<_> = (0..60)
        .map(|index| Route::USD_CNY.send(&format!("r-{index}"), "1"))
        .collect();
    for round in 0..3 {
        mock.set_faults([late.clone()].into_iter().chain(lossy.clone())).await;
        let apple = network.partner(APPLE);
        let calls: Vec<_> = requests.iter().map(|request| begin(&apple, request.clone())).collect();
        // Until some have ended in this life and some have not.
        let enough = 15 * (round + 1);
        wait_for("some have ended", BOUND, || async {
            let ended = apple.list_all("state = COMPLETED").await.len();
            if ended >= enough { Ok(()) } else { Err(ended) }
        })
        .await;
        network.kill_gateway().await;
        for call in calls {
            if let Ok(payment) = call.await.unwrap() {
                assert_eq!(payment.state(), State::Completed, "{payment:?}");
            }
        }
        network.start_gateway().await;
    }
    mock.set_faults([]).await;
    let apple = network.partner(APPLE);
    let paid = join_all(requests.iter().map(|request| apple.pay(request.clone()))).await;
    assert_eq!(paid.len(), 60);
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted, audit.movements), (60, 0, 120));
}
