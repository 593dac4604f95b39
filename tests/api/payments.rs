//! Payments that go well: how they are priced, who sees what of them, and when they are answered.

use causeway::pb::gateway::v1::{
    AnswerAt, CreatePaymentRequest, FixedSide, Payment, PaymentBranch,
    payment::{Pricing, State},
    payment_branch,
};
use prost_types::Timestamp;

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Network, PAYPAL, Route,
        clients::{branch, branch_states, fault},
        decimal::{Exact, check_conversion},
        requests::{money, partner},
        wait_for,
    },
};
use causeway::pb::mock::v1::fault::{Command, Kind};

/// One payment of each kind: the route, the fixed side and amount, then what is sent and received (empty: only checked
/// by arithmetic).
const PRICED: [(Route, FixedSide, &str, &str, &str); 12] = [
    // 99.70 USD at 6.09822423125: the mid rate 7.7935 / 1.2748 less 25 basis points.
    (Route::USD_CNY, FixedSide::Send, "100.00", "100.00", "607.99"),
    (Route::USD_CNY, FixedSide::Receive, "607.99", "100.00", "607.99"),
    (Route::USD_CNY, FixedSide::Send, "1", "1.00", "4.26"),
    (Route::CNY_USD, FixedSide::Send, "607.99", "607.99", ""),
    (Route::CNY_USD, FixedSide::Receive, "0.01", "", "0.01"),
    (Route::EUR_USD, FixedSide::Send, "50.10", "50.10", "63.67"),
    (Route::USD_EUR, FixedSide::Receive, "10.5", "", "10.50"),
    (Route::CNY_EUR, FixedSide::Send, "1000", "1000.00", ""),
    (Route::EUR_CNY, FixedSide::Send, "12.34", "12.34", ""),
    // No decimals at one end, three at the other.
    (Route::JPY_KWD, FixedSide::Send, "10015", "10015", ""),
    (Route::JPY_KWD, FixedSide::Receive, "1.234", "", "1.234"),
    (Route::KWD_JPY, FixedSide::Send, "7.125", "7.125", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_is_paid_as_it_was_quoted_in_every_direction() {
    let network = Network::start().await;
    for (index, (route, side, amount, send, receive)) in PRICED.into_iter().enumerate() {
        let what = format!("{index}: {route:?}");
        let initiator = network.partner(route.from);
        let quote = initiator.quote(route.quote(side, amount)).await.unwrap();
        let conversion = quote.conversion.clone().unwrap();
        check_amounts(&what, &conversion, side, (route, send, receive));
        assert_eq!(quote.payment, "", "{what}");
        assert_eq!(initiator.get_quote(&quote.name).await.unwrap(), quote, "{what}");

        let request = route.by_quote(&format!("q-{index}"), &quote.name);
        let payment = initiator.pay(request.clone()).await;
        assert_eq!(payment.conversion, Some(conversion), "{what}: promise 9");
        assert_eq!(payment.rate_origin, quote.rate_origin, "{what}");
        check_payment(&what, &payment, &request, route);
        let (decide_by, expire) = (payment.decide_by_time.unwrap(), quote.expire_time.unwrap());
        assert!(
            ms(&decide_by) < ms(&expire),
            "{what}: decided while the quote holds: {decide_by} {expire}"
        );
        assert_eq!(initiator.get(&payment.name).await.unwrap(), payment, "{what}");
        let used = initiator.get_quote(&quote.name).await.unwrap();
        assert_eq!(
            used.payment, payment.name,
            "{what}: the quote names the payment that took it"
        );
    }
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.movements), (PRICED.len(), 2 * PRICED.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_order_is_paid_at_the_rate_of_the_moment() {
    let network = Network::start().await;
    for (index, (route, side, amount, send, receive)) in PRICED.into_iter().enumerate() {
        let what = format!("{index}: {route:?}");
        let initiator = network.partner(route.from);
        let request = route.market(&format!("m-{index}"), side, amount);
        let payment = initiator.pay(request.clone()).await;
        check_amounts(
            &what,
            payment.conversion.as_ref().unwrap(),
            side,
            (route, send, receive),
        );
        check_payment(&what, &payment, &request, route);
    }
    // The limit itself is still allowed.
    let mut exact = Route::USD_CNY.send("m-exact", "100");
    let Some(Pricing::Market(market)) = &mut exact.payment.as_mut().unwrap().pricing else {
        unreachable!("a market order")
    };
    market.worst_rate = "6.09822423125".into();
    network.partner(APPLE).pay(exact).await;
    let audit = network.audit().await;
    assert_eq!(
        (audit.completed, audit.movements),
        (PRICED.len() + 1, 2 * PRICED.len() + 2)
    );
}

fn check_amounts(
    what: &str,
    conversion: &causeway::pb::gateway::v1::Conversion,
    side: FixedSide,
    (route, send, receive): (Route, &str, &str),
) {
    check_conversion(conversion, what);
    let (sent, received) = (
        conversion.send_amount.clone().unwrap(),
        conversion.receive_amount.clone().unwrap(),
    );
    assert_eq!(
        (sent.currency.as_str(), received.currency.as_str()),
        (route.source, route.target)
    );
    for (expected, found) in [(send, &sent), (receive, &received)] {
        assert!(
            expected.is_empty() || expected == found.amount,
            "{what}: {conversion:?}"
        );
    }
    // One rounding, on the side that is not fixed.
    let bound = match side {
        FixedSide::Send => Exact::last_place(&received.amount),
        _ => Exact::last_place(&sent.amount).times(Exact::parse(&conversion.rate)),
    };
    assert!(Exact::parse(&conversion.remainder) < bound, "{what}: {conversion:?}");
}

fn check_payment(what: &str, payment: &Payment, request: &CreatePaymentRequest, route: Route) {
    let asked = request.payment.clone().unwrap();
    let conversion = payment.conversion.clone().unwrap();
    assert!(payment.name.starts_with("payments/"), "{what}");
    assert_eq!(payment.request_id, request.request_id, "{what}");
    assert_eq!(payment.initiator, partner(route.from), "{what}");
    assert_eq!((&payment.payer, &payment.payee), (&asked.payer, &asked.payee), "{what}");
    let origin = payment.rate_origin.as_ref().unwrap();
    assert_eq!(origin.date, "2014-10-28", "{what}");
    assert_eq!(payment.outcome, None, "{what}");
    assert_eq!(branch_states(payment), [payment_branch::State::Committed; 2], "{what}");
    for (name, of, account, amount) in [
        ("debit", route.from, route.payer, conversion.send_amount),
        ("credit", route.to, route.payee, conversion.receive_amount),
    ] {
        let branch = branch(payment, name);
        assert_eq!(branch.partner, partner(of), "{what}");
        assert_eq!(branch.account, account, "{what}");
        assert_eq!(branch.amount, amount, "{what}");
        assert!(!branch.reference.is_empty(), "{what}: the network's own reference");
    }
    let times = [payment.create_time, payment.decide_time, payment.end_time].map(|time| ms(&time.unwrap()));
    assert!(times.is_sorted(), "{what}: {times:?}");
    assert!(
        times[1] <= ms(&payment.decide_by_time.unwrap()),
        "{what}: decided too late"
    );
}

fn ms(time: &Timestamp) -> i64 {
    assert_eq!(time.nanos % 1_000_000, 0, "to the millisecond");
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn the_decision_is_answered_before_the_end_if_asked_for() {
    let network = Network::start().await;
    let (apple, alipay) = (network.partner(APPLE), network.mock(ALIPAY));
    // Commit does not get through: the end is far, the decision is not.
    alipay.set_faults([fault(Kind::LoseRequest, Command::Commit)]).await;
    let request = CreatePaymentRequest {
        answer_at: AnswerAt::Decision.into(),
        ..Route::USD_CNY.send("r-1", "100")
    };
    let payment = apple.create(request.clone()).await.unwrap();
    assert_eq!(payment.state(), State::Committing, "{payment:?}");
    assert!(
        payment.decide_time.is_some() && payment.end_time.is_none(),
        "{payment:?}"
    );
    // The retry that waits for the end gets it, once there is one.
    let end = CreatePaymentRequest {
        answer_at: AnswerAt::End.into(),
        ..request
    };
    let waiting = tokio::spawn({
        let apple = apple.clone();
        async move { apple.create(end).await }
    });
    alipay.fires(3).await;
    assert!(!waiting.is_finished(), "there is no end yet");
    alipay.set_faults([]).await;
    let ended = waiting.await.unwrap().unwrap();
    assert_eq!((ended.state(), &ended.name), (State::Completed, &payment.name));
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_what_is_theirs() {
    let network = Network::start().await;
    let (apple, alipay, paypal, operator) = (
        network.partner(APPLE),
        network.partner(ALIPAY),
        network.partner(PAYPAL),
        network.operator(),
    );
    let quote = apple.quoted(Route::USD_CNY, "100").await;
    let full = apple.pay(Route::USD_CNY.by_quote("r-1", &quote.name)).await;
    assert_eq!(operator.get(&full.name).await.unwrap(), full, "an operator sees all");
    assert_eq!(operator.get_quote(&quote.name).await.unwrap().payment, full.name);

    let redacted = redacted(&full, &[1]);
    assert_eq!(alipay.get(&full.name).await.unwrap(), redacted, "the payee's network");
    let nothing = ["alice", "r-1", "100.00", "6.11350800126", &quote.name];
    let printed = format!("{redacted:?}");
    assert!(nothing.iter().all(|secret| !printed.contains(secret)), "{printed}");
    // The end is answered before it is written: a list may be a moment behind.
    wait_for("the store has the end", BOUND, || async {
        let ended = alipay.list_all("state = COMPLETED").await;
        if ended.len() == 1 { Ok(()) } else { Err(ended) }
    })
    .await;
    let listed = alipay.list(Default::default()).await.unwrap().payments;
    assert_eq!(listed, std::slice::from_ref(&redacted), "a list shows no more");
    let mut stream = alipay.watch("start", "").await.unwrap();
    while let Some(change) = stream.message().await.unwrap() {
        let Some(payment) = change.payment else { continue };
        let printed = format!("{payment:?}");
        assert!(nothing.iter().all(|secret| !printed.contains(secret)), "{printed}");
        if payment.state() == State::Completed {
            assert_eq!(payment, redacted, "nor does the feed");
            break;
        }
    }

    // Why the payer's network refused is the payer's business; that it did is everybody's.
    let unknown = Route {
        payer: "nobody",
        ..Route::USD_CNY
    };
    let broke = apple.create(unknown.send("r-broke", "1")).await.unwrap();
    let full_outcome = broke.outcome.clone().unwrap();
    assert_eq!(
        (full_outcome.code.as_str(), full_outcome.partner.as_str()),
        ("AC03", "partners/apple-pay")
    );
    let outcome = alipay.get(&broke.name).await.unwrap().outcome.unwrap();
    assert_eq!(
        outcome,
        causeway::pb::gateway::v1::Outcome {
            partner: "partners/apple-pay".into(),
            ..Default::default()
        }
    );
    // And the other way round its own refusal is shown to it whole.
    let gone = apple
        .create(
            Route {
                payee: "nobody",
                ..Route::USD_CNY
            }
            .send("r-gone", "1"),
        )
        .await
        .unwrap();
    assert_eq!(alipay.get(&gone.name).await.unwrap().outcome, gone.outcome);

    // Who has no part in it cannot even tell it from one that never was.
    refused("get", paypal.get(&full.name).await, "PAYMENT_NOT_FOUND", &["name"]);
    refused(
        "cancel",
        paypal.cancel(&full.name).await,
        "PAYMENT_NOT_FOUND",
        &["name"],
    );
    refused(
        "watch",
        paypal.watch("", &full.name).await,
        "PAYMENT_NOT_FOUND",
        &["payment"],
    );
    assert_eq!(paypal.list(Default::default()).await.unwrap().payments, []);
    // A quote is its maker's, whoever else has a part in the corridor.
    refused(
        "quote",
        alipay.get_quote(&quote.name).await,
        "QUOTE_NOT_FOUND",
        &["name"],
    );

    // The third party that initiates sees all of its own payment; the two networks each their branch.
    let collected = paypal.pay(Route::CNY_USD.send("c-1", "610")).await;
    assert_eq!(collected.initiator, partner(PAYPAL));
    assert_eq!(branch(&collected, "debit").account, "bao");
    assert_eq!(
        alipay.get(&collected.name).await.unwrap(),
        self::redacted(&collected, &[0])
    );
    assert_eq!(
        apple.get(&collected.name).await.unwrap(),
        self::redacted(&collected, &[1])
    );
    assert_eq!(network.audit().await.completed, 2);
}

/// What a participant with these branches may see of a payment.
fn redacted(full: &Payment, own: &[usize]) -> Payment {
    let mut seen = Payment {
        request_id: String::new(),
        pricing: None,
        conversion: None,
        rate_origin: None,
        ..full.clone()
    };
    for (index, party) in [&mut seen.payer, &mut seen.payee].into_iter().enumerate() {
        if !own.contains(&index) {
            party.as_mut().unwrap().account.clear();
        }
    }
    for (index, branch) in seen.branches.iter_mut().enumerate() {
        if !own.contains(&index) {
            *branch = PaymentBranch {
                account: String::new(),
                amount: None,
                reference: String::new(),
                state: 0,
                ..branch.clone()
            };
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_only_checks_everything_and_does_nothing() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let quote = apple.quoted(Route::USD_CNY, "100").await;
    let balances = |network: &Network| {
        let mocks = network.mocks();
        async move {
            let mut all = Vec::new();
            for mock in mocks {
                all.push(mock.balances().await);
                assert_eq!(mock.holds("").await, [], "no network heard of it");
            }
            all
        }
    };
    let before = balances(&network).await;
    for (what, request) in [
        ("quote", Route::USD_CNY.by_quote("r-1", &quote.name)),
        ("market", Route::USD_CNY.send("r-1", "100")),
    ] {
        let dry = CreatePaymentRequest {
            validate_only: true,
            ..request.clone()
        };
        let draft = apple.create(dry.clone()).await.unwrap();
        assert_eq!(draft.state(), State::Unspecified, "{what}: {draft:?}");
        assert_eq!(draft.conversion, quote.conversion, "{what}");
        assert_eq!(
            (draft.request_id.as_str(), draft.initiator.as_str()),
            ("r-1", "partners/apple-pay")
        );
        assert_eq!(branch(&draft, "credit").amount, Some(money("CNY", "607.99")), "{what}");
        assert!(
            draft.create_time.is_some() && draft.decide_time.is_none(),
            "{what}: {draft:?}"
        );
        assert_eq!(
            apple.create(dry).await.unwrap().state(),
            State::Unspecified,
            "{what}: again"
        );
        refused(what, apple.get(&draft.name).await, "PAYMENT_NOT_FOUND", &["name"]);
    }
    let bad = CreatePaymentRequest {
        validate_only: true,
        ..Route::USD_CNY.by_quote("r 1", &quote.name)
    };
    refused(
        "a dry run checks",
        apple.create(bad).await,
        "FIELD_INVALID",
        &["request_id"],
    );
    assert_eq!(network.operator().list_all("").await, []);
    assert_eq!(balances(&network).await, before);
    // The quote is free, and so is the request_id.
    assert_eq!(apple.get_quote(&quote.name).await.unwrap().payment, "");
    let paid = apple.pay(Route::USD_CNY.by_quote("r-1", &quote.name)).await;
    // Of a payment that is there, a dry run shows what a retry would: the payment.
    let dry = CreatePaymentRequest {
        validate_only: true,
        ..Route::USD_CNY.by_quote("r-1", &quote.name)
    };
    assert_eq!(apple.create(dry).await.unwrap(), paid);
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_are_shown_to_everybody_who_is_known() {
    let network = Network::start().await;
    for client in [network.partner(APPLE), network.operator()] {
        let mut rates = client.rates.clone();
        let mut get = async |name: &str| {
            let request = causeway::pb::gateway::v1::GetRateRequest { name: name.into() };
            rates.get_rate(request).await.map(tonic::Response::into_inner)
        };
        let rate = get("rates/USD-CNY").await.unwrap();
        assert_eq!(rate.mid_rate, "6.11350800126");
        assert_eq!(
            (rate.source_currency.as_str(), rate.target_currency.as_str()),
            ("USD", "CNY")
        );
        assert_eq!(rate.origin.unwrap().date, "2014-10-28");
        assert!(
            rate.fetch_time.is_some() && rate.stale_time.is_none(),
            "pinned to a day"
        );
        assert_eq!(get("rates/EUR-USD").await.unwrap().mid_rate, "1.2748");
        let list = async |base: &str| {
            let request = causeway::pb::gateway::v1::ListRatesRequest {
                source_currency: base.into(),
            };
            let listed = client
                .rates
                .clone()
                .list_rates(request)
                .await
                .unwrap()
                .into_inner()
                .rates;
            listed
                .into_iter()
                .map(|rate| (rate.target_currency, rate.mid_rate))
                .collect::<Vec<_>>()
        };
        let of_euro = [
            ("CNY", "7.7935"),
            ("JPY", "137.94"),
            ("KWD", "0.36814"),
            ("USD", "1.2748"),
        ];
        assert_eq!(
            list("").await,
            of_euro.map(|(code, rate)| (code.to_owned(), rate.to_owned()))
        );
        let codes: Vec<_> = list("USD").await.into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, ["CNY", "EUR", "JPY", "KWD"]);
    }
}
