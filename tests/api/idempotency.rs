//! One request_id of one partner is one payment, however often and however it is sent.

use causeway::pb::{
    gateway::v1::{
        AnswerAt, CreatePaymentRequest, FixedSide, Party, Payment,
        payment::{MarketOrder, Pricing, State},
    },
    mock::v1::fault::Command,
};
use futures_util::future::join_all;

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Network, PAYPAL, Refusal, Route, Settings, clients::latency, requests::money, wait_for,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_again_is_the_same_payment() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let quote = apple.quoted(Route::USD_CNY, "100").await;
    for (index, request) in [
        Route::USD_CNY.by_quote("r-quote", &quote.name),
        Route::USD_CNY.send("r-market", "100"),
    ]
    .into_iter()
    .enumerate()
    {
        let first = apple.pay(request.clone()).await;
        for _ in 0..3 {
            assert_eq!(apple.pay(request.clone()).await, first);
        }
        assert_eq!(
            network.audit().await.movements,
            2 * (index + 1),
            "the wallets moved once"
        );
    }
    // Every other network's opinion: one movement each.
    for name in [APPLE, ALIPAY] {
        assert_eq!(network.mock(name).movements("").await.len(), 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_are_one_payment() {
    let network = Network::start().await;
    let quote = network.partner(APPLE).quoted(Route::USD_CNY, "100").await;
    for (round, request) in [
        Route::USD_CNY.by_quote("r-quote", &quote.name),
        Route::USD_CNY.send("r-market", "100"),
    ]
    .into_iter()
    .enumerate()
    {
        // Over several connections, so that they do not come in a row.
        let clients: Vec<_> = (0..5).map(|_| network.partner(APPLE)).collect();
        let calls = (0..50).map(|index| clients[index % clients.len()].pay(request.clone()));
        let payments: Vec<Payment> = join_all(calls).await;
        assert_eq!(payments.len(), 50);
        assert!(payments.iter().all(|payment| payment.name == payments[0].name));
        assert_eq!(network.audit().await.movements, 2 * (round + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_payments_for_one_quote_are_one_payment_and_49_refusals() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let quote = apple.quoted(Route::USD_CNY, "100").await;
    let calls = (0..50).map(|index| apple.create(Route::USD_CNY.by_quote(&format!("r-{index}"), &quote.name)));
    let (mut paid, mut used) = (Vec::new(), 0);
    for answer in join_all(calls).await {
        match answer {
            Ok(payment) => paid.push(payment.name),
            refusal @ Err(_) => {
                refused("the quote is another's", refusal, "QUOTE_USED", &["payment.quote"]);
                used += 1;
            }
        }
    }
    assert_eq!((paid.len(), used), (1, 49));
    assert_eq!(apple.get_quote(&quote.name).await.unwrap().payment, paid[0]);
    assert_eq!(network.audit().await.movements, 2);
}

/// How a request is changed.
type Change = fn(&mut CreatePaymentRequest);

fn payment(request: &mut CreatePaymentRequest) -> &mut Payment {
    request.payment.as_mut().unwrap()
}

fn payer(request: &mut CreatePaymentRequest) -> &mut Party {
    payment(request).payer.as_mut().unwrap()
}

fn payee(request: &mut CreatePaymentRequest) -> &mut Party {
    payment(request).payee.as_mut().unwrap()
}

fn market(request: &mut CreatePaymentRequest) -> &mut MarketOrder {
    match payment(request).pricing.as_mut().unwrap() {
        Pricing::Market(market) => market,
        Pricing::Quote(_) => panic!("a market order"),
    }
}

/// A row: what is changed, how, and the fields that differ by it.
type Difference = (&'static str, Change, &'static [&'static str]);

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_with_another_body_names_what_differs() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let original = Route::USD_CNY.market("r-1", FixedSide::Send, "100");
    let paid = apple.pay(original.clone()).await;
    let rows: [Difference; 12] = [
        (
            "payer's network",
            |r| payer(r).partner = "partners/paypal".into(),
            &["payment.payer.partner"],
        ),
        (
            "payer's account",
            |r| payer(r).account = "ann".into(),
            &["payment.payer.account"],
        ),
        (
            "payee's network",
            |r| payee(r).partner = "partners/paypal".into(),
            &["payment.payee.partner"],
        ),
        (
            "payee's account",
            |r| payee(r).account = "bo".into(),
            &["payment.payee.account"],
        ),
        (
            "fixed side",
            |r| {
                market(r).fixed_side = FixedSide::Receive.into();
                market(r).amount = Some(money("CNY", "100"));
            },
            &["payment.market.fixed_side", "payment.market.amount"],
        ),
        (
            "amount",
            |r| market(r).amount = Some(money("USD", "100.01")),
            &["payment.market.amount"],
        ),
        (
            "source currency",
            |r| {
                market(r).source_currency = "JPY".into();
                market(r).amount = Some(money("JPY", "100"));
            },
            &["payment.market.amount", "payment.market.source_currency"],
        ),
        (
            "target currency",
            |r| market(r).target_currency = "KWD".into(),
            &["payment.market.target_currency"],
        ),
        (
            "worst rate",
            |r| market(r).worst_rate = "0.000002".into(),
            &["payment.market.worst_rate"],
        ),
        (
            "pricing",
            |r| {
                let quote = "quotes/00000000-0000-4000-8000-000000000000";
                payment(r).pricing = Some(Pricing::Quote(quote.into()));
            },
            &["payment.quote", "payment.market"],
        ),
        (
            "both accounts and the rate",
            |r| {
                payer(r).account = "ann".into();
                payee(r).account = "bo".into();
                market(r).worst_rate = "6".into();
            },
            &[
                "payment.payer.account",
                "payment.payee.account",
                "payment.market.worst_rate",
            ],
        ),
        (
            "everything",
            |r| {
                *payer(r) = Party {
                    partner: "partners/paypal".into(),
                    account: "carla".into(),
                };
                *payee(r) = Party {
                    partner: "partners/apple-pay".into(),
                    account: "alice".into(),
                };
                *market(r) = MarketOrder {
                    fixed_side: FixedSide::Receive.into(),
                    amount: Some(money("USD", "5")),
                    worst_rate: "1".into(),
                    source_currency: "EUR".into(),
                    target_currency: "USD".into(),
                };
            },
            &[
                "payment.payer.partner",
                "payment.payer.account",
                "payment.payee.partner",
                "payment.payee.account",
                "payment.market.fixed_side",
                "payment.market.amount",
                "payment.market.source_currency",
                "payment.market.target_currency",
                "payment.market.worst_rate",
            ],
        ),
    ];
    for (what, change, fields) in rows {
        let mut request = original.clone();
        change(&mut request);
        let refusal = refused(what, apple.create(request.clone()).await, "REQUEST_ID_REUSED", fields);
        assert_eq!(refusal.metadata["fields"], fields.join(","), "{what}");
        assert_eq!(refusal.metadata["payment"], paid.name, "{what}");
        request.validate_only = true;
        refused(what, apple.create(request).await, "REQUEST_ID_REUSED", fields);
    }
    let first = apple.quoted(Route::USD_CNY, "10").await;
    let second = apple.quoted(Route::USD_CNY, "10").await;
    apple.pay(Route::USD_CNY.by_quote("r-2", &first.name)).await;
    let other = apple.create(Route::USD_CNY.by_quote("r-2", &second.name)).await;
    refused("quote", other, "REQUEST_ID_REUSED", &["payment.quote"]);
    let to_market = apple.create(Route::USD_CNY.send("r-2", "10")).await;
    refused(
        "to the market",
        to_market,
        "REQUEST_ID_REUSED",
        &["payment.quote", "payment.market"],
    );
    assert_eq!(
        apple.get_quote(&second.name).await.unwrap().payment,
        "",
        "it stays free"
    );
    assert_eq!(network.audit().await.movements, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_at_the_same_moment_is_refused_too() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let calls =
        (0..20).map(|index| apple.create(Route::USD_CNY.send("r-1", if index % 2 == 0 { "100" } else { "200" })));
    let (mut sent, mut reused) = (Vec::new(), 0);
    for answer in join_all(calls).await {
        match answer {
            Ok(payment) => sent.push(payment.conversion.unwrap().send_amount.unwrap().amount),
            refusal @ Err(_) => {
                refused("the loser", refusal, "REQUEST_ID_REUSED", &["payment.market.amount"]);
                reused += 1;
            }
        }
    }
    assert_eq!((sent.len(), reused), (10, 10));
    assert!(sent.iter().all(|amount| *amount == sent[0]), "{sent:?}");
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_values_in_another_spelling_are_a_retry() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let mut original = Route::USD_CNY.send("r-1", "100");
    market(&mut original).worst_rate = "6".into();
    let paid = apple.pay(original.clone()).await;
    let rows: [(&str, Change); 5] = [
        ("a rate with zeros", |r| market(r).worst_rate = "6.00".into()),
        ("one decimal", |r| market(r).amount = Some(money("USD", "100.0"))),
        ("two decimals", |r| market(r).amount = Some(money("USD", "100.00"))),
        ("how it is answered", |r| r.answer_at = AnswerAt::Decision.into()),
        ("a dry run", |r| r.validate_only = true),
    ];
    for (what, change) in rows {
        let mut request = original.clone();
        change(&mut request);
        assert_eq!(apple.create(request).await.unwrap(), paid, "{what}");
    }
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_after_its_quote_has_lapsed() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    // This corridor's quotes hold for a second.
    let quote = apple.quoted(Route::USD_EUR, "10").await;
    let spare = apple.quoted(Route::USD_EUR, "10").await;
    let request = Route::USD_EUR.by_quote("r-1", &quote.name);
    let paid = apple.pay(request.clone()).await;
    wait_for("the quotes lapse", BOUND, || async {
        let dry = CreatePaymentRequest {
            validate_only: true,
            ..Route::USD_EUR.by_quote("r-2", &spare.name)
        };
        let refusal = apple.create(dry).await.map_err(|status| Refusal::from(&status));
        match refusal {
            Err(refusal) if refusal.reason == "QUOTE_EXPIRED" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(apple.pay(request).await, paid);
    let late = apple.create(Route::USD_EUR.by_quote("r-2", &spare.name)).await;
    refused("a first try comes too late", late, "QUOTE_EXPIRED", &["payment.quote"]);
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_of_two_partners_is_two_payments() {
    let network = Network::start().await;
    let mut names = Vec::new();
    for (client, route, amount) in [
        (network.partner(APPLE), Route::USD_CNY, "100"),
        (network.partner(ALIPAY), Route::CNY_USD, "100"),
        (network.partner(PAYPAL), Route::CNY_USD, "100"),
    ] {
        names.push(client.pay(route.send("r-1", amount)).await.name);
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3);
    assert_eq!(network.audit().await.movements, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_changes_nothing() {
    let network = Network::start().await;
    let (apple, alipay) = (network.partner(APPLE), network.mock(ALIPAY));
    alipay.set_faults([latency(Command::Prepare, 300)]).await;
    let quote = apple.quoted(Route::USD_CNY, "100").await;
    let requests = [
        Route::USD_CNY.by_quote("r-0", &quote.name),
        Route::USD_CNY.send("r-1", "100"),
        Route::USD_CNY.send("r-2", "100"),
    ];
    let calls: Vec<_> = requests
        .iter()
        .map(|request| {
            let (apple, request) = (apple.clone(), request.clone());
            tokio::spawn(async move { apple.create(request).await })
        })
        .collect();
    wait_for("all of them have begun", BOUND, || async {
        let begun = apple.list(Default::default()).await.unwrap().payments;
        if begun.len() == requests.len() {
            Ok(())
        } else {
            Err(begun)
        }
    })
    .await;
    // Dropping the call resets its stream: the server sees it go.
    for call in calls {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled(), "it was still waiting");
    }
    // One retry attaches while the payment is on its way, one finds it ended, the last payment ends by itself.
    let attached = apple.pay(requests[0].clone()).await;
    assert_eq!(attached.request_id, "r-0");
    wait_for("the others end without their callers", BOUND, || async {
        let ended = apple.list_all("state = COMPLETED").await;
        if ended.len() == 3 { Ok(()) } else { Err(ended.len()) }
    })
    .await;
    assert_eq!(apple.pay(requests[1].clone()).await.state(), State::Completed);
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.movements), (3, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_restart_is_the_same_payment() {
    let mut network = Network::with(Settings::default()).await;
    let apple = network.partner(APPLE);
    let quote = apple.quoted(Route::USD_CNY, "100").await;
    let unused = apple.quoted(Route::USD_CNY, "7").await;
    let request = Route::USD_CNY.by_quote("r-1", &quote.name);
    let paid = apple.pay(request.clone()).await;
    network.stop_gateway().await;
    network.start_gateway().await;
    let apple = network.partner(APPLE);
    assert_eq!(apple.pay(request).await, paid);
    let other = apple.create(Route::USD_CNY.send("r-1", "100")).await;
    refused(
        "another body",
        other,
        "REQUEST_ID_REUSED",
        &["payment.quote", "payment.market"],
    );
    let again = apple.create(Route::USD_CNY.by_quote("r-2", &quote.name)).await;
    refused("the quote is used", again, "QUOTE_USED", &["payment.quote"]);
    // Quotes outlive a restart too.
    assert_eq!(apple.get_quote(&unused.name).await.unwrap(), unused);
    apple.pay(Route::USD_CNY.by_quote("r-2", &unused.name)).await;
    assert_eq!(network.audit().await.movements, 4);
}
