//! DecisionService: what a participant in doubt is told, and that it is enough to end its doubt.

use causeway::{
    coordinator::HaltPoint,
    pb::{
        gateway::v1::{get_decision_response::Decision, payment::State},
        mock::v1::fault::{Command, Kind},
    },
};

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Client, Network, PAYPAL, Route, Settings,
        clients::{fault, latency, once, refusal},
        wait_for,
    },
};

async fn decision(client: &Client, payment: &str) -> Decision {
    client.decision(payment).await.unwrap().decision()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_learns_how_it_was_decided_and_nobody_else_does() {
    let network = Network::start().await;
    let (apple, alipay, paypal, operator) = (
        network.partner(APPLE),
        network.partner(ALIPAY),
        network.partner(PAYPAL),
        network.operator(),
    );
    let mock = network.mock(ALIPAY);
    let unknown = "payments/00000000-0000-8000-8000-000000000000";
    for client in [&apple, &alipay, &paypal, &operator] {
        let answer = client.decision(unknown).await.unwrap();
        assert_eq!(answer.decision(), Decision::Abort, "presumed");
        assert_eq!(answer.retry_time, None);
    }

    let completed = apple.pay(Route::USD_CNY.send("done", "1")).await;
    mock.set_faults([refusal("AC04")]).await;
    let aborted = apple.create(Route::USD_CNY.send("refused", "1")).await.unwrap();
    mock.set_faults([once(Kind::ForgetHold, Command::Commit)]).await;
    let disputed = apple.create(Route::USD_CNY.send("forgotten", "1")).await.unwrap();
    assert_eq!(disputed.state(), State::Disputed);
    // The initiator of this one has no part in it.
    mock.set_faults([]).await;
    let collected = paypal.pay(Route::CNY_USD.send("collected", "10")).await;
    for (payment, expected) in [
        (&completed, Decision::Commit),
        (&aborted, Decision::Abort),
        // The decision stands, whatever a participant made of it.
        (&disputed, Decision::Commit),
        (&collected, Decision::Commit),
    ] {
        for client in [&apple, &alipay, &operator] {
            assert_eq!(decision(client, &payment.name).await, expected, "{payment:?}");
        }
        let stranger = paypal.decision(&payment.name).await;
        refused("not a participant", stranger, "PAYMENT_NOT_FOUND", &["payment"]);
    }
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted, audit.disputed), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_is_decided_the_answer_is_to_ask_again_later() {
    let network = Network::start().await;
    let (apple, alipay) = (network.partner(APPLE), network.partner(ALIPAY));
    network
        .mock(ALIPAY)
        .set_faults([latency(Command::Prepare, 60_000)])
        .await;
    let call = tokio::spawn({
        let apple = apple.clone();
        async move { apple.create(Route::USD_CNY.send("r-1", "1")).await }
    });
    network.mock(ALIPAY).fires(1).await;
    let payment = apple.list_all("").await.remove(0);
    for client in [&apple, &alipay] {
        let answer = client.decision(&payment.name).await.unwrap();
        assert_eq!(answer.decision(), Decision::Pending);
        let (retry, decide_by) = (answer.retry_time.unwrap(), payment.decide_by_time.unwrap());
        let after = (retry.seconds, retry.nanos) > (decide_by.seconds, decide_by.nanos);
        assert!(after, "by then it has fallen: {retry} {decide_by}");
    }
    apple.cancel(&payment.name).await.unwrap();
    for client in [&apple, &alipay] {
        assert_eq!(decision(client, &payment.name).await, Decision::Abort, "and it stays");
    }
    assert_eq!(call.await.unwrap().unwrap().state(), State::Aborted);
    network.mock(ALIPAY).set_faults([]).await;
    assert_eq!(network.audit().await.movements, 0);
}

/// Holds that are over soon after the vote.
fn impatient_holds(halt: HaltPoint) -> Settings {
    Settings {
        voting_ms: 500,
        hold_ms: 1_000,
        halts: vec![halt],
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_in_doubt_ask_and_carry_out_what_they_are_told() {
    // The gateway decides, and then never gets round to telling anybody.
    let mut network = Network::with(impatient_holds(HaltPoint::AfterCommitDecided)).await;
    let apple = network.partner(APPLE);
    let call = tokio::spawn({
        let apple = apple.clone();
        async move { apple.create(Route::USD_CNY.send("r-1", "100")).await }
    });
    for mock in [network.mock(APPLE), network.mock(ALIPAY)] {
        wait_for("it has asked, and moved the money", BOUND, || async {
            let moved = mock.movements("").await;
            if moved.len() == 1 { Ok(()) } else { Err(moved) }
        })
        .await;
    }
    network.kill_gateway().await;
    assert!(call.await.unwrap().is_err(), "the gateway is dead");
    network.start_gateway().await;
    // Recovery tells them what they know already.
    let payment = network.partner(APPLE).pay(Route::USD_CNY.send("r-1", "100")).await;
    assert_eq!(payment.outcome, None);
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.movements), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_in_doubt_about_an_abort_let_go() {
    let mut network = Network::with(impatient_holds(HaltPoint::AfterAbortDecided)).await;
    let apple = network.partner(APPLE);
    network
        .mock(ALIPAY)
        .set_faults([latency(Command::Prepare, 100), refusal("AC04")])
        .await;
    let call = tokio::spawn({
        let apple = apple.clone();
        async move { apple.create(Route::USD_CNY.send("r-1", "100")).await }
    });
    let mock = network.mock(APPLE);
    wait_for("the payer's network has asked, and let go", BOUND, || async {
        let holds = mock.holds("aborted").await;
        if holds.len() == 1 { Ok(()) } else { Err(holds) }
    })
    .await;
    network.kill_gateway().await;
    assert!(call.await.unwrap().is_err(), "the gateway is dead");
    network.start_gateway().await;
    let payment = network
        .partner(APPLE)
        .create(Route::USD_CNY.send("r-1", "100"))
        .await
        .unwrap();
    assert_eq!(payment.state(), State::Aborted, "{payment:?}");
    assert_eq!(payment.outcome.unwrap().reason, "ACCOUNT_CLOSED");
    assert_eq!(network.audit().await.movements, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlives_its_time_for_as_long_as_the_gateway_is_silent() {
    let mut network = Network::with(Settings {
        voting_ms: 500,
        hold_ms: 1_000,
        ..Settings::default()
    })
    .await;
    let apple = network.partner(APPLE);
    network
        .mock(ALIPAY)
        .set_faults([fault(Kind::LoseRequest, Command::Commit)])
        .await;
    let call = tokio::spawn({
        let apple = apple.clone();
        async move { apple.create(Route::USD_CNY.send("r-1", "100")).await }
    });
    network.mock(ALIPAY).fires(1).await;
    network.kill_gateway().await;
    assert!(call.await.unwrap().is_err(), "the gateway is dead");
    let held = network.mock(ALIPAY).holds("prepared").await;
    assert_eq!(held.len(), 1, "a participant lets go of nothing on its own: {held:?}");
    network.start_gateway().await;
    // Commit never gets through: the decision does.
    let payment = network.partner(APPLE).pay(Route::USD_CNY.send("r-1", "100")).await;
    assert_eq!(payment.state(), State::Completed);
    network.mock(ALIPAY).set_faults([]).await;
    assert_eq!(network.audit().await.movements, 2);
}
