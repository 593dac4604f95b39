//! What a caller can do while nothing is decided: cancel, or have too little time to wait.

use std::time::{Duration, Instant};

use causeway::pb::{
    gateway::v1::{payment::State, payment_branch},
    mock::v1::fault::{Command, Kind},
};
use futures_util::future::join_all;
use tonic::{Code, Request};

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Network, Refusal, Route, Settings,
        clients::{branch_states, fault, latency},
        wait_for,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_cancelled_while_a_network_has_not_voted() {
    let network = Network::start().await;
    let (apple, alipay) = (network.partner(APPLE), network.partner(ALIPAY));
    let mock = network.mock(ALIPAY);
    mock.set_faults([latency(Command::Prepare, 60_000)]).await;
    let request = Route::USD_CNY.send("r-1", "100");
    let call = tokio::spawn({
        let (apple, request) = (apple.clone(), request.clone());
        async move { apple.create(request).await }
    });
    mock.fires(1).await;
    wait_for("the payer's network holds the funds", BOUND, || async {
        let held = network.mock(APPLE).holds("prepared").await;
        if held.len() == 1 { Ok(()) } else { Err(held) }
    })
    .await;
    let name = apple.list_all("state = PREPARING").await[0].name.clone();
    for (what, client) in [("the payee's network", &alipay), ("an operator", &network.operator())] {
        refused(what, client.cancel(&name).await, "NOT_INITIATOR", &[]);
        assert_eq!(apple.get(&name).await.unwrap().state(), State::Preparing, "{what}");
    }

    let cancelled = apple.cancel(&name).await.unwrap();
    assert!(
        [State::Aborting, State::Aborted].contains(&cancelled.state()),
        "{cancelled:?}"
    );
    let outcome = cancelled.outcome.clone().unwrap();
    let found = (outcome.code.as_str(), outcome.reason.as_str(), outcome.partner.as_str());
    assert_eq!(found, ("CUST", "CANCELLED", "partners/apple-pay"), "{outcome:?}");
    // Whoever waits for the payment is told.
    let answered = call.await.unwrap().unwrap();
    assert_eq!(
        (answered.state(), &answered.outcome),
        (State::Aborted, &cancelled.outcome)
    );
    assert_eq!(branch_states(&answered), [payment_branch::State::Aborted; 2]);
    // Again, and again by its request: the same.
    assert_eq!(apple.cancel(&name).await.unwrap(), answered);
    assert_eq!(apple.create(request).await.unwrap(), answered);
    mock.set_faults([]).await;
    let audit = network.audit().await;
    assert_eq!((audit.aborted, audit.movements), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_is_remembered_over_a_restart_while_a_network_cannot_be_told() {
    let mut network = Network::start().await;
    let apple = network.partner(APPLE);
    let mock = network.mock(ALIPAY);
    mock.set_faults([
        latency(Command::Prepare, 60_000),
        fault(Kind::LoseRequest, Command::Abort),
    ])
    .await;
    let request = Route::USD_CNY.send("r-1", "100");
    let call = tokio::spawn({
        let (apple, request) = (apple.clone(), request.clone());
        async move { apple.create(request).await }
    });
    wait_for("the vote is asked for", BOUND, || async {
        let fired = mock.fired().await;
        if fired[0] > 0 { Ok(()) } else { Err(fired) }
    })
    .await;
    let name = apple.list_all("").await[0].name.clone();
    let cancelled = apple.cancel(&name).await.unwrap();
    assert_eq!(cancelled.state(), State::Aborting, "{cancelled:?}");
    network.kill_gateway().await;
    assert!(call.await.unwrap().is_err(), "the gateway is dead");
    network.start_gateway().await;
    let apple = network.partner(APPLE);
    let again = apple.cancel(&name).await.unwrap();
    assert_ne!(again.state(), State::Completed);
    mock.set_faults([]).await;
    let ended = apple.reaches(&name, &[State::Aborted]).await;
    assert_eq!(
        ended.outcome.as_ref().unwrap().reason,
        "CANCELLED",
        "a decision never changes: {ended:?}"
    );
    assert_eq!(network.audit().await.movements, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_of_cancelling_and_paying_has_one_winner() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    // Votes take between nothing and some 20 ms, so that cancels come before, during and after the decision.
    let jitter = causeway::pb::mock::v1::Fault {
        jitter_ms: 20,
        ..latency(Command::Prepare, 1)
    };
    network.mock(ALIPAY).set_faults([jitter]).await;
    let rounds = (0..60).map(|index| {
        let (apple, canceller) = (apple.clone(), network.partner(APPLE));
        async move {
            let request = Route::USD_CNY.send(&format!("r-{index}"), "1");
            let name = {
                let mut dry = request.clone();
                dry.validate_only = true;
                apple.create(dry).await.unwrap().name
            };
            let cancel = async {
                wait_for("it has begun", BOUND, || async { canceller.get(&name).await }).await;
                canceller.cancel(&name).await
            };
            let (paid, cancelled) = tokio::join!(apple.create(request), cancel);
            let paid = paid.unwrap();
            match cancelled {
                Ok(cancelled) => {
                    assert_eq!(paid.state(), State::Aborted, "{paid:?}");
                    assert_eq!(paid.outcome.unwrap().reason, "CANCELLED");
                    assert_ne!(cancelled.state(), State::Completed);
                    false
                }
                refusal @ Err(_) => {
                    refused("too late", refusal, "PAYMENT_DECIDED", &[]);
                    assert_eq!(paid.state(), State::Completed, "{paid:?}");
                    true
                }
            }
        }
    });
    let completed = join_all(rounds).await.into_iter().filter(|paid| *paid).count();
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted), (completed, 60 - completed));
    assert_eq!(audit.movements, 2 * completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_deadline_shortens_the_vote() {
    let network = Network::with(Settings {
        answer_margin_ms: 500,
        ..Settings::default()
    })
    .await;
    let apple = network.partner(APPLE);
    network
        .mock(ALIPAY)
        .set_faults([latency(Command::Prepare, 60_000)])
        .await;
    // The vote may take 20 s; this caller has one.
    let mut request = Request::new(Route::USD_CNY.send("r-1", "100"));
    request.set_timeout(Duration::from_secs(1));
    let begun = Instant::now();
    let answer = apple.payments.clone().create_payment(request).await;
    let took = begun.elapsed();
    let payment = answer.expect("a definite answer in time").into_inner();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        [State::Aborting, State::Aborted].contains(&payment.state()),
        "{payment:?}"
    );
    assert_eq!(
        payment.outcome.as_ref().unwrap().reason,
        "VOTING_TIMED_OUT",
        "{payment:?}"
    );
    let ms = |time: Option<prost_types::Timestamp>| {
        let time = time.unwrap();
        time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
    };
    let (create, decide_by) = (ms(payment.create_time), ms(payment.decide_by_time));
    assert!((1..=500).contains(&(decide_by - create)), "{payment:?}");
    network.mock(ALIPAY).set_faults([]).await;
    assert_eq!(network.audit().await.movements, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_strikes_during_delivery_is_answered_with_the_decision() {
    let network = Network::with(Settings {
        answer_margin_ms: 500,
        ..Settings::default()
    })
    .await;
    let apple = network.partner(APPLE);
    network
        .mock(ALIPAY)
        .set_faults([fault(Kind::LoseRequest, Command::Commit)])
        .await;
    let mut request = Request::new(Route::USD_CNY.send("r-1", "100"));
    request.set_timeout(Duration::from_secs(2));
    let answer = apple.payments.clone().create_payment(request).await;
    let payment = answer.expect("a definite answer in time").into_inner();
    assert_eq!(payment.state(), State::Committing, "{payment:?}");
    network.mock(ALIPAY).set_faults([]).await;
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_too_short_for_a_vote_makes_no_payment() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let mut request = Request::new(Route::USD_CNY.send("r-1", "100"));
    request.set_timeout(Duration::from_millis(580));
    let status = apple.payments.clone().create_payment(request).await.unwrap_err();
    let refusal = Refusal::from(&status);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::DeadlineExceeded, "DEADLINE_TOO_SHORT")
    );
    assert_eq!(apple.list_all("").await, []);
    // With more time the same request is a first one.
    apple.pay(Route::USD_CNY.send("r-1", "100")).await;
    assert_eq!(network.audit().await.movements, 2);
}
