//! WatchPayments: every change once, in order, without gaps, and on from where it stopped.

use std::{collections::BTreeMap, time::Duration};

use causeway::{
    authn::Role,
    pb::{
        gateway::v1::{Payment, WatchPaymentsResponse, payment::State},
        mock::v1::fault::{Command, Kind},
    },
    tls::ChannelOptions,
};
use futures_util::future::join_all;
use tonic::{Status, Streaming};

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Client, Network, PAYPAL, Route,
        clients::{fault, once, refusal},
        wait_for, within,
    },
};

type Stream = Streaming<WatchPaymentsResponse>;

/// The next message; the stream must not end.
async fn next(stream: &mut Stream) -> WatchPaymentsResponse {
    within("the next change", stream.message())
        .await
        .unwrap()
        .expect("the stream goes on")
}

/// The changes up to and with the one that `last` accepts. Checks the hello that a stream begins with.
async fn changes(stream: &mut Stream, mut last: impl FnMut(&Payment) -> bool) -> Vec<(Payment, String)> {
    let mut changes = Vec::new();
    loop {
        let message = next(stream).await;
        assert!(!message.resume_token.is_empty());
        let Some(payment) = message.payment else {
            assert!(changes.is_empty(), "only the first message carries no payment");
            continue;
        };
        let end = last(&payment);
        changes.push((payment, message.resume_token));
        if end {
            return changes;
        }
    }
}

/// Accepts the end of so many payments.
fn ends(mut count: usize) -> impl FnMut(&Payment) -> bool {
    move |payment| {
        if [State::Completed, State::Aborted, State::Disputed].contains(&payment.state()) {
            count -= 1;
        }
        count == 0
    }
}

fn by_payment(changes: &[(Payment, String)]) -> BTreeMap<String, Vec<State>> {
    let mut states: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (payment, _) in changes {
        states.entry(payment.name.clone()).or_default().push(payment.state());
    }
    states
}

async fn pay_many(client: &Client, prefix: &str, count: usize) -> Vec<Payment> {
    join_all((0..count).map(|index| client.pay(Route::USD_CNY.send(&format!("{prefix}-{index}"), "1")))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_once_and_in_order_and_on_from_any_of_them() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    // From before the first payment, and from the start afterwards: the same.
    let mut live = apple.watch("", "").await.unwrap();
    assert_eq!(next(&mut live).await.payment, None);
    let paid = pay_many(&apple, "r", 20).await;
    let seen = changes(&mut live, ends(20)).await;
    let commits = [State::Preparing, State::Committing, State::Completed];
    let states = by_payment(&seen);
    assert_eq!(states.len(), 20);
    for (name, states) in &states {
        assert_eq!(states[..], commits, "{name}");
    }
    for payment in &paid {
        assert!(
            seen.iter().any(|(seen, _)| seen == payment),
            "the end as it was answered: {payment:?}"
        );
    }
    let mut from_start = apple.watch("start", "").await.unwrap();
    assert_eq!(changes(&mut from_start, ends(20)).await, seen);

    // On from every place: exactly the rest.
    let mut exercised = 0;
    for at in 0..seen.len() - 1 {
        let mut stream = apple.watch(&seen[at].1, "").await.unwrap();
        let hello = next(&mut stream).await;
        assert_eq!((hello.payment, &hello.resume_token), (None, &seen[at].1));
        let rest = changes(&mut stream, |payment| *payment == seen[seen.len() - 1].0).await;
        assert_eq!(rest, seen[at + 1..], "after change {at}");
        exercised += 1;
    }
    assert_eq!(exercised, 59);
    // Over a restart too.
    let mut network = network;
    network.stop_gateway().await;
    network.start_gateway().await;
    let apple = network.partner(APPLE);
    let mut stream = apple.watch(&seen[30].1, "").await.unwrap();
    let rest = changes(&mut stream, |payment| *payment == seen[59].0).await;
    assert_eq!(rest, seen[31..]);
    let more = pay_many(&apple, "more", 2).await;
    let after = changes(&mut stream, ends(2)).await;
    assert_eq!(by_payment(&after).len(), more.len());
    assert_eq!(network.audit().await.movements, 44);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_watchers_at_once_see_the_same_and_everybody_only_their_own() {
    let network = Network::start().await;
    let (apple, paypal, operator) = (network.partner(APPLE), network.partner(PAYPAL), network.operator());
    let mut first = apple.watch("start", "").await.unwrap();
    let mut second = network.partner(APPLE).watch("start", "").await.unwrap();
    let mut all = operator.watch("start", "").await.unwrap();
    let mut others = paypal.watch("start", "").await.unwrap();
    pay_many(&apple, "r", 10).await;
    let own = paypal.pay(Route::EUR_CNY.send("p-1", "1")).await;
    let seen = changes(&mut first, ends(10)).await;
    assert_eq!(changes(&mut second, ends(10)).await, seen);
    assert!(
        seen.iter()
            .all(|(payment, _)| payment.initiator == "partners/apple-pay")
    );
    let of_all = changes(&mut all, ends(11)).await;
    assert_eq!(of_all.len(), 33);
    // The changes between are not the partner's, nor do they come as empty messages.
    let of_paypal = changes(&mut others, ends(1)).await;
    assert_eq!(by_payment(&of_paypal).into_keys().collect::<Vec<_>>(), [own.name]);
    assert_eq!(of_paypal.len(), 3);
    // A token is a place in the feed, whoever holds it; it shows nobody more than is theirs.
    let mut borrowed = paypal.watch(&of_all[0].1, "").await.unwrap();
    assert_eq!(changes(&mut borrowed, ends(1)).await.len(), 3);
    assert_eq!(network.audit().await.completed, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_alone_and_how_each_kind_of_payment_changes() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let mock = network.mock(ALIPAY);
    pay_many(&apple, "before", 3).await;
    let rows = [
        (vec![], vec![State::Preparing, State::Committing, State::Completed]),
        (
            vec![refusal("AC04")],
            vec![State::Preparing, State::Aborting, State::Aborted],
        ),
        (
            vec![once(Kind::ForgetHold, Command::Commit)],
            vec![State::Preparing, State::Committing, State::Disputed],
        ),
        // What was lost on the way is not a change.
        (
            vec![
                once(Kind::LoseAnswer, Command::Prepare),
                once(Kind::LoseRequest, Command::Commit),
            ],
            vec![State::Preparing, State::Committing, State::Completed],
        ),
    ];
    for (index, (faults, states)) in rows.into_iter().enumerate() {
        mock.set_faults(faults).await;
        let payment = apple
            .create(Route::USD_CNY.send(&format!("r-{index}"), "1"))
            .await
            .unwrap();
        mock.set_faults([]).await;
        let mut stream = apple.watch("start", &payment.name).await.unwrap();
        let seen = changes(&mut stream, ends(1)).await;
        assert_eq!(by_payment(&seen), BTreeMap::from([(payment.name, states)]));
    }
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted, audit.disputed), (5, 1, 1));
}

/// How the stream ends: the status, after whatever was still on its way.
async fn end(stream: &mut Stream) -> Result<(), Status> {
    loop {
        match within("the stream ends", stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(status) => return Err(status),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_gateway_drains_and_goes_on_at_the_next() {
    let mut network = Network::start().await;
    let apple = network.partner(APPLE);
    let mut stream = apple.watch("start", "").await.unwrap();
    let mut idle = network.operator().watch("", "").await.unwrap();
    pay_many(&apple, "r", 3).await;
    let seen = changes(&mut stream, ends(3)).await;
    network.begin_drain();
    for stream in [&mut stream, &mut idle] {
        let refusal = refused("the stream", end(stream).await, "DRAINING", &[]);
        assert!(refusal.retry_after.is_some(), "{refusal:?}");
    }
    network.end_drain().await.unwrap();
    network.start_gateway().await;
    let apple = network.partner(APPLE);
    let mut stream = apple.watch(&seen[8].1, "").await.unwrap();
    pay_many(&apple, "s", 1).await;
    assert_eq!(changes(&mut stream, ends(1)).await.len(), 3);
    assert_eq!(network.audit().await.completed, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_is_far_behind_when_the_gateway_drains_is_told_so() {
    let mut network = Network::start().await;
    // As little as HTTP/2 allows in flight, so that the rest waits in the gateway.
    let narrow = ChannelOptions {
        stream_window: 65_535,
        ..ChannelOptions::default()
    };
    let slow = Client::new(network.channel_with(&network.files(Role::Partner, APPLE), narrow));
    let apple = network.partner(APPLE);
    pay_many(&apple, "r", 150).await;
    let mut stream = slow.watch("start", "").await.unwrap();
    let first = next(&mut stream).await;
    assert_eq!(first.payment, None);
    network.begin_drain();
    // It reads on only now: what was under way comes, and then why there is no more.
    refused("a slow watcher", end(&mut stream).await, "DRAINING", &[]);
    network.end_drain().await.unwrap();
    network.start_gateway().await;
    assert_eq!(network.audit().await.completed, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_leaves_leaves_nothing_behind() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    for _ in 0..200 {
        let mut stream = apple.watch("start", "").await.unwrap();
        next(&mut stream).await;
    }
    network
        .mock(ALIPAY)
        .set_faults([fault(Kind::AnswerTwice, Command::Commit)])
        .await;
    pay_many(&apple, "r", 5).await;
    let mut stream = apple.watch("start", "").await.unwrap();
    assert_eq!(changes(&mut stream, ends(5)).await.len(), 15);
    wait_for("the gateway still answers", BOUND, || async {
        apple.list(Default::default()).await
    })
    .await;
    drop(stream);
    // A drain waits for streams: it would hang if the dropped ones were still there.
    let mut network = network;
    let begun = std::time::Instant::now();
    network.stop_gateway().await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "the drain ran into its deadline"
    );
}
