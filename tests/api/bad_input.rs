//! Every field of every request, wrong in every way: the code, the reason and the field's path, and that nothing happens.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use causeway::pb::gateway::v1::{
    self as pb, Conversion, Corridor, CreatePaymentRequest, CreateQuoteRequest, FixedSide, GetRateRequest,
    ListPaymentsRequest, ListRatesRequest, Outcome, Party, Payment, PaymentBranch, Quote, RateOrigin,
    payment::{MarketOrder, Pricing},
};
use prost::Message;
use prost_types::Timestamp;
use tonic::{Request, Status};

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, BOUND, Client, Network, PAYPAL, Refusal, Route, Settings,
        clients::fault,
        requests::money,
        wait_for,
        wire::{call_with_bytes, stream_with_bytes},
    },
};
use causeway::pb::{
    mock::v1::fault::{Command, Kind},
    money::v1::Money,
};

/// A row: what is wrong, the change that makes it so, the reason, and the fields to blame.
type Row<T> = (&'static str, fn(&mut T), &'static str, &'static [&'static str]);

/// What the networks hold, so that a test can tell that nothing moved.
async fn stock(network: &Network) -> Vec<BTreeMap<String, String>> {
    let mut stock = Vec::new();
    for mock in network.mocks() {
        stock.push(mock.balances().await);
    }
    stock
}

/// Nothing is stored, nobody heard of anything.
async fn nothing_happened(network: &Network, before: &[BTreeMap<String, String>]) {
    for client in [
        network.operator(),
        network.partner(APPLE),
        network.partner(ALIPAY),
        network.partner(PAYPAL),
    ] {
        assert_eq!(client.list_all("").await, []);
    }
    for mock in network.mocks() {
        assert_eq!(mock.holds("").await, [], "{}", mock.name);
        assert_eq!(mock.movements("").await, [], "{}", mock.name);
    }
    assert_eq!(stock(network).await, before);
}

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

fn market_amount(request: &mut CreatePaymentRequest) -> &mut Money {
    market(request).amount.as_mut().unwrap()
}

fn quote(request: &mut CreateQuoteRequest) -> &mut Quote {
    request.quote.as_mut().unwrap()
}

fn corridor(request: &mut CreateQuoteRequest) -> &mut Corridor {
    quote(request).corridor.as_mut().unwrap()
}

fn quote_amount(request: &mut CreateQuoteRequest) -> &mut Money {
    quote(request).amount.as_mut().unwrap()
}

const NOW: Timestamp = Timestamp { seconds: 1, nanos: 0 };

/// Texts that are no amount of USD, with the reason.
const AMOUNTS: [(&str, &str); 26] = [
    ("", "FIELD_MISSING"),
    (" ", "AMOUNT_MALFORMED"),
    ("-1", "AMOUNT_MALFORMED"),
    ("+1", "AMOUNT_MALFORMED"),
    ("-0.00", "AMOUNT_MALFORMED"),
    ("1e2", "AMOUNT_MALFORMED"),
    ("1E2", "AMOUNT_MALFORMED"),
    ("01", "AMOUNT_MALFORMED"),
    ("00.50", "AMOUNT_MALFORMED"),
    (" 1", "AMOUNT_MALFORMED"),
    ("1 ", "AMOUNT_MALFORMED"),
    ("1,000", "AMOUNT_MALFORMED"),
    ("1.", "AMOUNT_MALFORMED"),
    (".5", "AMOUNT_MALFORMED"),
    ("1.2.3", "AMOUNT_MALFORMED"),
    ("0x10", "AMOUNT_MALFORMED"),
    ("NaN", "AMOUNT_MALFORMED"),
    ("١٢", "AMOUNT_MALFORMED"),
    ("1\0", "AMOUNT_MALFORMED"),
    ("12.345", "AMOUNT_TOO_MANY_DECIMALS"),
    ("12.340", "AMOUNT_TOO_MANY_DECIMALS"),
    ("0", "AMOUNT_NOT_POSITIVE"),
    ("0.00", "AMOUNT_NOT_POSITIVE"),
    ("10000000000000.00", "AMOUNT_OUT_OF_RANGE"),
    ("18446744073709551617", "AMOUNT_OUT_OF_RANGE"),
    ("99999999999999999999999999999999999999999", "AMOUNT_OUT_OF_RANGE"),
];

/// Texts that are no currency.
const CURRENCIES: [(&str, &str); 7] = [
    ("", "FIELD_MISSING"),
    ("usd", "CURRENCY_UNKNOWN"),
    ("US", "CURRENCY_UNKNOWN"),
    ("USDX", "CURRENCY_UNKNOWN"),
    (" USD", "CURRENCY_UNKNOWN"),
    ("XXX", "CURRENCY_UNKNOWN"),
    ("XAU", "CURRENCY_UNKNOWN"),
];

/// Texts that are no partner's resource name.
const PARTNERS: [(&str, &str); 7] = [
    ("", "FIELD_MISSING"),
    ("apple-pay", "FIELD_INVALID"),
    ("partners/", "FIELD_MISSING"),
    ("partners/Apple", "FIELD_INVALID"),
    ("partners/apple pay", "FIELD_INVALID"),
    ("partners/apple-pay/x", "FIELD_INVALID"),
    (
        "partners/1234567890123456789012345678901234567890123456789012345678901234",
        "FIELD_INVALID",
    ),
];

/// Texts that are no account.
const ACCOUNTS: [(&str, &str); 4] = [
    ("a b", "FIELD_INVALID"),
    ("é", "FIELD_INVALID"),
    ("a\n", "FIELD_INVALID"),
    (
        "12345678901234567890123456789012345678901234567890123456789012345",
        "FIELD_INVALID",
    ),
];

/// Texts that are no rate.
const RATES: [(&str, &str); 11] = [
    ("", "FIELD_MISSING"),
    ("0", "RATE_INVALID"),
    ("-1", "RATE_INVALID"),
    ("+1", "RATE_INVALID"),
    ("1e3", "RATE_INVALID"),
    ("01", "RATE_INVALID"),
    (" 1", "RATE_INVALID"),
    ("1,5", "RATE_INVALID"),
    ("1.2345678901234", "RATE_INVALID"),
    ("1000000000000", "RATE_INVALID"),
    ("0.0000000000000000000000001", "RATE_INVALID"),
];

/// Texts that are no payment's name.
const NAMES: [(&str, &str); 6] = [
    ("", "FIELD_MISSING"),
    ("payments/", "FIELD_INVALID"),
    ("payments/x", "FIELD_INVALID"),
    ("f8e89d9a-268c-882a-8489-4d0f2aedb3fc", "FIELD_INVALID"),
    ("payments/F8E89D9A-268C-882A-8489-4D0F2AEDB3FC", "FIELD_INVALID"),
    ("quotes/f8e89d9a-268c-882a-8489-4d0f2aedb3fc", "FIELD_INVALID"),
];

const NO_PAYMENT: &str = "payments/00000000-0000-8000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_create_quote() {
    let network = Network::start().await;
    let before = stock(&network).await;
    let apple = network.partner(APPLE);
    let right = Route::USD_CNY.quote(FixedSide::Send, "100");
    let rows: [Row<CreateQuoteRequest>; 26] = [
        ("no quote", |r| r.quote = None, "FIELD_MISSING", &["quote"]),
        (
            "no corridor",
            |r| quote(r).corridor = None,
            "FIELD_MISSING",
            &["quote.corridor"],
        ),
        (
            "no side",
            |r| quote(r).fixed_side = 0,
            "FIELD_MISSING",
            &["quote.fixed_side"],
        ),
        (
            "side out of range",
            |r| quote(r).fixed_side = 3,
            "FIELD_INVALID",
            &["quote.fixed_side"],
        ),
        (
            "negative side",
            |r| quote(r).fixed_side = -1,
            "FIELD_INVALID",
            &["quote.fixed_side"],
        ),
        (
            "no amount",
            |r| quote(r).amount = None,
            "FIELD_MISSING",
            &["quote.amount"],
        ),
        (
            "the other side's currency",
            |r| quote(r).amount = Some(money("CNY", "100")),
            "CURRENCY_MISMATCH",
            &["quote.amount.currency"],
        ),
        (
            "the source's currency on the receiving side",
            |r| quote(r).fixed_side = FixedSide::Receive.into(),
            "CURRENCY_MISMATCH",
            &["quote.amount.currency"],
        ),
        (
            "name set",
            |r| quote(r).name = "quotes/x".into(),
            "FIELD_OUTPUT_ONLY",
            &["quote.name"],
        ),
        (
            "conversion set",
            |r| quote(r).conversion = Some(Conversion::default()),
            "FIELD_OUTPUT_ONLY",
            &["quote.conversion"],
        ),
        (
            "origin set",
            |r| quote(r).rate_origin = Some(RateOrigin::default()),
            "FIELD_OUTPUT_ONLY",
            &["quote.rate_origin"],
        ),
        (
            "created",
            |r| quote(r).create_time = Some(NOW),
            "FIELD_OUTPUT_ONLY",
            &["quote.create_time"],
        ),
        (
            "expires",
            |r| quote(r).expire_time = Some(NOW),
            "FIELD_OUTPUT_ONLY",
            &["quote.expire_time"],
        ),
        (
            "used",
            |r| quote(r).payment = NO_PAYMENT.into(),
            "FIELD_OUTPUT_ONLY",
            &["quote.payment"],
        ),
        (
            "one account on both sides",
            |r| {
                corridor(r).target_partner = "partners/apple-pay".into();
                quote(r).payer_account = "alice".into();
                quote(r).payee_account = "alice".into();
            },
            "SAME_ACCOUNT",
            &["quote.payee_account"],
        ),
        (
            "one partner on both sides",
            |r| corridor(r).target_partner = "partners/apple-pay".into(),
            "CORRIDOR_FORBIDDEN",
            &["quote.corridor"],
        ),
        (
            "a partner that nobody knows",
            |r| corridor(r).target_partner = "partners/nobody".into(),
            "CORRIDOR_FORBIDDEN",
            &["quote.corridor"],
        ),
        (
            "a currency that the corridor has not",
            |r| corridor(r).target_currency = "KWD".into(),
            "CORRIDOR_FORBIDDEN",
            &["quote.corridor"],
        ),
        (
            "somebody else's corridor",
            |r| *r = Route::EUR_USD.quote(FixedSide::Send, "100"),
            "CORRIDOR_FORBIDDEN",
            &["quote.corridor"],
        ),
        (
            "below the minimum",
            |r| quote_amount(r).amount = "0.99".into(),
            "AMOUNT_TOO_SMALL",
            &["quote.amount"],
        ),
        (
            "above the maximum",
            |r| quote_amount(r).amount = "10000.01".into(),
            "AMOUNT_TOO_LARGE",
            &["quote.amount"],
        ),
        (
            "below the minimum when received",
            |r| *r = Route::USD_CNY.quote(FixedSide::Receive, "0.01"),
            "AMOUNT_TOO_SMALL",
            &["quote.amount"],
        ),
        (
            "above the maximum when received",
            |r| *r = Route::USD_CNY.quote(FixedSide::Receive, "61000"),
            "AMOUNT_TOO_LARGE",
            &["quote.amount"],
        ),
        (
            "more than any amount can hold",
            |r| *r = Route::USD_CNY.quote(FixedSide::Receive, "9999999999999.99"),
            "AMOUNT_TOO_LARGE",
            &["quote.amount"],
        ),
        (
            "everything at once",
            |r| {
                *quote(r) = Quote {
                    name: "x".into(),
                    corridor: Some(Corridor::default()),
                    payer_account: " ".into(),
                    ..Quote::default()
                };
            },
            "FIELD_OUTPUT_ONLY",
            &[
                "quote.name",
                "quote.corridor.source_partner",
                "quote.corridor.target_partner",
                "quote.corridor.source_currency",
                "quote.corridor.target_currency",
                "quote.payer_account",
                "quote.fixed_side",
                "quote.amount",
            ],
        ),
        (
            "an amount without a currency, a side that is none",
            |r| {
                quote(r).fixed_side = 9;
                quote(r).amount = Some(money("", ""));
            },
            "FIELD_INVALID",
            &["quote.fixed_side", "quote.amount.currency"],
        ),
    ];
    let mut exercised = 0;
    for (what, change, reason, fields) in rows {
        let mut request = right.clone();
        change(&mut request);
        refused(what, apple.quote(request).await, reason, fields);
        exercised += 1;
    }
    type Set = fn(&mut CreateQuoteRequest, &str);
    let texts: [(&str, Set, &[(&str, &str)]); 9] = [
        (
            "quote.corridor.source_partner",
            |r, t| corridor(r).source_partner = t.into(),
            &PARTNERS,
        ),
        (
            "quote.corridor.target_partner",
            |r, t| corridor(r).target_partner = t.into(),
            &PARTNERS,
        ),
        (
            "quote.corridor.source_currency",
            |r, t| corridor(r).source_currency = t.into(),
            &CURRENCIES,
        ),
        (
            "quote.corridor.target_currency",
            |r, t| corridor(r).target_currency = t.into(),
            &CURRENCIES,
        ),
        (
            "quote.payer_account",
            |r, t| quote(r).payer_account = t.into(),
            &ACCOUNTS,
        ),
        (
            "quote.payee_account",
            |r, t| quote(r).payee_account = t.into(),
            &ACCOUNTS,
        ),
        (
            "quote.amount.currency",
            |r, t| quote_amount(r).currency = t.into(),
            &CURRENCIES,
        ),
        (
            "quote.amount.amount",
            |r, t| quote_amount(r).amount = t.into(),
            &AMOUNTS,
        ),
        (
            "quote.amount.amount",
            |r, t| {
                *r = Route::USD_CNY.quote(FixedSide::Receive, t);
            },
            &AMOUNTS,
        ),
    ];
    for (field, set, values) in texts {
        for (text, reason) in values {
            let mut request = right.clone();
            set(&mut request, text);
            refused(
                &format!("{field} = {text:?}"),
                apple.quote(request).await,
                reason,
                &[field],
            );
            exercised += 1;
        }
    }
    // The minor unit is the currency's own: none of the yen, three of the dinar.
    for (route, side, amount, reason) in [
        (Route::JPY_KWD, FixedSide::Send, "10.5", "AMOUNT_TOO_MANY_DECIMALS"),
        (Route::JPY_KWD, FixedSide::Send, "10.0", "AMOUNT_TOO_MANY_DECIMALS"),
        (Route::JPY_KWD, FixedSide::Receive, "1.2345", "AMOUNT_TOO_MANY_DECIMALS"),
        (
            Route::JPY_KWD,
            FixedSide::Send,
            "1000000000000000",
            "AMOUNT_OUT_OF_RANGE",
        ),
        (
            Route::JPY_KWD,
            FixedSide::Receive,
            "1000000000000",
            "AMOUNT_OUT_OF_RANGE",
        ),
    ] {
        let what = format!("{amount} of {route:?}");
        refused(
            &what,
            apple.quote(route.quote(side, amount)).await,
            reason,
            &["quote.amount.amount"],
        );
        exercised += 1;
    }
    // The limits themselves are within, and say what would do.
    for amount in ["1.00", "10000"] {
        apple
            .quote(Route::USD_CNY.quote(FixedSide::Send, amount))
            .await
            .unwrap();
    }
    let small = apple.quote(Route::USD_CNY.quote(FixedSide::Send, "0.99")).await;
    let small = refused("small", small, "AMOUNT_TOO_SMALL", &["quote.amount"]);
    assert_eq!(small.metadata["minimum"], "1.00 USD");
    let large = apple.quote(Route::USD_CNY.quote(FixedSide::Send, "10000.01")).await;
    let large = refused("large", large, "AMOUNT_TOO_LARGE", &["quote.amount"]);
    assert_eq!(large.metadata["maximum"], "10000.00 USD");
    assert_eq!(exercised, 26 + 2 * 7 + 3 * 7 + 2 * 4 + 2 * 26 + 5);
    nothing_happened(&network, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_create_payment() {
    let network = Network::start().await;
    let before = stock(&network).await;
    let apple = network.partner(APPLE);
    let right = Route::USD_CNY.send("r-1", "100");
    let rows: [Row<CreatePaymentRequest>; 42] = [
        ("no payment", |r| r.payment = None, "FIELD_MISSING", &["payment"]),
        (
            "no request_id",
            |r| r.request_id.clear(),
            "FIELD_MISSING",
            &["request_id"],
        ),
        (
            "a blank in it",
            |r| r.request_id = "a b".into(),
            "FIELD_INVALID",
            &["request_id"],
        ),
        (
            "a slash in it",
            |r| r.request_id = "a/b".into(),
            "FIELD_INVALID",
            &["request_id"],
        ),
        (
            "not ASCII",
            |r| r.request_id = "é".into(),
            "FIELD_INVALID",
            &["request_id"],
        ),
        (
            "a long one",
            |r| r.request_id = "x".repeat(65),
            "FIELD_INVALID",
            &["request_id"],
        ),
        (
            "answer_at out of range",
            |r| r.answer_at = 3,
            "FIELD_INVALID",
            &["answer_at"],
        ),
        (
            "negative answer_at",
            |r| r.answer_at = -1,
            "FIELD_INVALID",
            &["answer_at"],
        ),
        (
            "name set",
            |r| payment(r).name = NO_PAYMENT.into(),
            "FIELD_OUTPUT_ONLY",
            &["payment.name"],
        ),
        (
            "request_id set within",
            |r| payment(r).request_id = "r-1".into(),
            "FIELD_OUTPUT_ONLY",
            &["payment.request_id"],
        ),
        (
            "initiator set",
            |r| payment(r).initiator = "partners/apple-pay".into(),
            "FIELD_OUTPUT_ONLY",
            &["payment.initiator"],
        ),
        (
            "conversion set",
            |r| payment(r).conversion = Some(Conversion::default()),
            "FIELD_OUTPUT_ONLY",
            &["payment.conversion"],
        ),
        (
            "origin set",
            |r| payment(r).rate_origin = Some(RateOrigin::default()),
            "FIELD_OUTPUT_ONLY",
            &["payment.rate_origin"],
        ),
        (
            "state set",
            |r| payment(r).state = 3,
            "FIELD_OUTPUT_ONLY",
            &["payment.state"],
        ),
        (
            "state out of range",
            |r| payment(r).state = 99,
            "FIELD_OUTPUT_ONLY",
            &["payment.state"],
        ),
        (
            "outcome set",
            |r| payment(r).outcome = Some(Outcome::default()),
            "FIELD_OUTPUT_ONLY",
            &["payment.outcome"],
        ),
        (
            "branches set",
            |r| payment(r).branches.push(PaymentBranch::default()),
            "FIELD_OUTPUT_ONLY",
            &["payment.branches"],
        ),
        (
            "created",
            |r| payment(r).create_time = Some(NOW),
            "FIELD_OUTPUT_ONLY",
            &["payment.create_time"],
        ),
        (
            "decide by",
            |r| payment(r).decide_by_time = Some(NOW),
            "FIELD_OUTPUT_ONLY",
            &["payment.decide_by_time"],
        ),
        (
            "decided",
            |r| payment(r).decide_time = Some(NOW),
            "FIELD_OUTPUT_ONLY",
            &["payment.decide_time"],
        ),
        (
            "ended",
            |r| payment(r).end_time = Some(NOW),
            "FIELD_OUTPUT_ONLY",
            &["payment.end_time"],
        ),
        (
            "no payer",
            |r| payment(r).payer = None,
            "FIELD_MISSING",
            &["payment.payer"],
        ),
        (
            "no payee",
            |r| payment(r).payee = None,
            "FIELD_MISSING",
            &["payment.payee"],
        ),
        (
            "no payer's account",
            |r| payer(r).account.clear(),
            "FIELD_MISSING",
            &["payment.payer.account"],
        ),
        (
            "no payee's account",
            |r| payee(r).account.clear(),
            "FIELD_MISSING",
            &["payment.payee.account"],
        ),
        (
            "no pricing",
            |r| payment(r).pricing = None,
            "FIELD_MISSING",
            &["payment.pricing"],
        ),
        (
            "no side",
            |r| market(r).fixed_side = 0,
            "FIELD_MISSING",
            &["payment.market.fixed_side"],
        ),
        (
            "side out of range",
            |r| market(r).fixed_side = 7,
            "FIELD_INVALID",
            &["payment.market.fixed_side"],
        ),
        (
            "no amount",
            |r| market(r).amount = None,
            "FIELD_MISSING",
            &["payment.market.amount"],
        ),
        (
            "the other side's currency",
            |r| market_amount(r).currency = "CNY".into(),
            "CURRENCY_MISMATCH",
            &["payment.market.amount.currency"],
        ),
        (
            "an empty quote",
            |r| payment(r).pricing = Some(Pricing::Quote(String::new())),
            "FIELD_MISSING",
            &["payment.quote"],
        ),
        (
            "a quote that is no name",
            |r| payment(r).pricing = Some(Pricing::Quote("quotes/x".into())),
            "FIELD_INVALID",
            &["payment.quote"],
        ),
        (
            "a quote that is a payment",
            |r| payment(r).pricing = Some(Pricing::Quote(NO_PAYMENT.into())),
            "FIELD_INVALID",
            &["payment.quote"],
        ),
        (
            "a quote that never was",
            |r| payment(r).pricing = Some(Pricing::Quote("quotes/00000000-0000-4000-8000-000000000000".into())),
            "QUOTE_NOT_FOUND",
            &["payment.quote"],
        ),
        (
            "one account on both sides",
            |r| *payee(r) = payer(r).clone(),
            "SAME_ACCOUNT",
            &["payment.payee.account"],
        ),
        (
            "one partner on both sides",
            |r| payee(r).partner = "partners/apple-pay".into(),
            "CORRIDOR_FORBIDDEN",
            &["payment"],
        ),
        (
            "a partner that nobody knows",
            |r| payee(r).partner = "partners/nobody".into(),
            "CORRIDOR_FORBIDDEN",
            &["payment"],
        ),
        (
            "somebody else's corridor",
            |r| *r = Route::CNY_USD.send("r-1", "100"),
            "CORRIDOR_FORBIDDEN",
            &["payment"],
        ),
        (
            "below the minimum",
            |r| market_amount(r).amount = "0.99".into(),
            "AMOUNT_TOO_SMALL",
            &["payment.market.amount"],
        ),
        (
            "above the maximum",
            |r| market_amount(r).amount = "10000.01".into(),
            "AMOUNT_TOO_LARGE",
            &["payment.market.amount"],
        ),
        (
            "a rate that is better than there is, by its last digit",
            |r| market(r).worst_rate = "6.09822423126".into(),
            "RATE_WORSE_THAN_ALLOWED",
            &["payment.market.worst_rate"],
        ),
        (
            "everything at once",
            |r| {
                r.request_id = " ".into();
                *payment(r) = Payment {
                    name: "x".into(),
                    payer: Some(Party::default()),
                    pricing: Some(Pricing::Market(MarketOrder::default())),
                    ..Payment::default()
                };
            },
            "FIELD_INVALID",
            &[
                "request_id",
                "payment.name",
                "payment.payer.partner",
                "payment.payer.account",
                "payment.payee",
                "payment.market.fixed_side",
                "payment.market.source_currency",
                "payment.market.target_currency",
                "payment.market.amount",
            ],
        ),
    ];
    let mut exercised = 0;
    for (what, change, reason, fields) in rows {
        let mut request = right.clone();
        change(&mut request);
        for validate_only in [true, false] {
            request.validate_only = validate_only;
            refused(what, apple.create(request.clone()).await, reason, fields);
            exercised += 1;
        }
    }
    type Set = fn(&mut CreatePaymentRequest, &str);
    let texts: [(&str, Set, &[(&str, &str)]); 9] = [
        ("payment.payer.partner", |r, t| payer(r).partner = t.into(), &PARTNERS),
        ("payment.payee.partner", |r, t| payee(r).partner = t.into(), &PARTNERS),
        ("payment.payer.account", |r, t| payer(r).account = t.into(), &ACCOUNTS),
        ("payment.payee.account", |r, t| payee(r).account = t.into(), &ACCOUNTS),
        (
            "payment.market.source_currency",
            |r, t| market(r).source_currency = t.into(),
            &CURRENCIES,
        ),
        (
            "payment.market.target_currency",
            |r, t| market(r).target_currency = t.into(),
            &CURRENCIES,
        ),
        (
            "payment.market.amount.currency",
            |r, t| market_amount(r).currency = t.into(),
            &CURRENCIES,
        ),
        (
            "payment.market.amount.amount",
            |r, t| market_amount(r).amount = t.into(),
            &AMOUNTS,
        ),
        (
            "payment.market.worst_rate",
            |r, t| market(r).worst_rate = t.into(),
            &RATES,
        ),
    ];
    for (field, set, values) in texts {
        for (text, reason) in values {
            let mut request = right.clone();
            set(&mut request, text);
            refused(
                &format!("{field} = {text:?}"),
                apple.create(request).await,
                reason,
                &[field],
            );
            exercised += 1;
        }
    }
    let mut worse = right.clone();
    market(&mut worse).worst_rate = "7".into();
    let worse = apple.create(worse).await;
    let worse = refused(
        "worse",
        worse,
        "RATE_WORSE_THAN_ALLOWED",
        &["payment.market.worst_rate"],
    );
    assert_eq!(worse.metadata["rate"], "6.09822423125", "what it would have been");
    assert_eq!(exercised, 2 * 42 + 2 * 7 + 2 * 4 + 3 * 7 + 26 + 11);
    nothing_happened(&network, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_that_cannot_be_used() {
    let network = Network::start().await;
    let before = stock(&network).await;
    let (apple, paypal) = (network.partner(APPLE), network.partner(PAYPAL));
    let mut bound = Route::USD_CNY.quote(FixedSide::Send, "100");
    quote(&mut bound).payer_account = "alice".into();
    quote(&mut bound).payee_account = "bao".into();
    let bound = apple.quote(bound).await.unwrap();
    let open = apple.quoted(Route::USD_CNY, "100").await;
    let foreign = paypal.quoted(Route::EUR_USD, "100").await;
    let rows: [(&str, &str, fn(&mut CreatePaymentRequest), &str, &[&str]); 7] = [
        (
            "another's quote",
            &foreign.name,
            |_| (),
            "QUOTE_NOT_FOUND",
            &["payment.quote"],
        ),
        (
            "another payer's account",
            &bound.name,
            |r| payer(r).account = "ann".into(),
            "QUOTE_MISMATCH",
            &["payment.payer.account"],
        ),
        (
            "another payee's account",
            &bound.name,
            |r| payee(r).account = "bo".into(),
            "QUOTE_MISMATCH",
            &["payment.payee.account"],
        ),
        (
            "both accounts",
            &bound.name,
            |r| {
                payer(r).account = "ann".into();
                payee(r).account = "bo".into();
            },
            "QUOTE_MISMATCH",
            &["payment.payer.account", "payment.payee.account"],
        ),
        (
            "another payee's network",
            &open.name,
            |r| payee(r).partner = "partners/paypal".into(),
            "QUOTE_MISMATCH",
            &["payment.payee.partner"],
        ),
        (
            "another payer's network",
            &open.name,
            |r| payer(r).partner = "partners/paypal".into(),
            "QUOTE_MISMATCH",
            &["payment.payer.partner"],
        ),
        (
            "all four",
            &bound.name,
            |r| {
                *payer(r) = Party {
                    partner: "partners/alipay".into(),
                    account: "bo".into(),
                };
                *payee(r) = Party {
                    partner: "partners/paypal".into(),
                    account: "carla".into(),
                };
            },
            "QUOTE_MISMATCH",
            &[
                "payment.payer.partner",
                "payment.payer.account",
                "payment.payee.partner",
                "payment.payee.account",
            ],
        ),
    ];
    for (what, name, change, reason, fields) in rows {
        let mut request = Route::USD_CNY.by_quote("r-1", name);
        change(&mut request);
        let refusal = refused(what, apple.create(request).await, reason, fields);
        if reason == "QUOTE_MISMATCH" {
            assert_eq!(refusal.metadata["fields"], fields.join(","), "{what}");
        }
    }
    // A quote that would lapse before the vote is over is as good as lapsed; so is it long after.
    let short = apple.quoted(Route::USD_EUR, "10").await;
    let late = wait_for("the quote lapses", BOUND, || async {
        let dry = CreatePaymentRequest {
            validate_only: true,
            ..Route::USD_EUR.by_quote("r-1", &short.name)
        };
        match apple.create(dry).await {
            Err(status) => Ok(Err::<Payment, _>(status)),
            Ok(taken) => Err(taken.decide_by_time),
        }
    })
    .await;
    let late = refused("about to lapse", late, "QUOTE_EXPIRED", &["payment.quote"]);
    let still_there = apple.get_quote(&short.name).await.unwrap();
    assert!(late.message.contains("lapse"), "{late:?}");
    wait_for("the quote has lapsed", BOUND, || async {
        let refusal = apple.create(Route::USD_EUR.by_quote("r-1", &short.name)).await;
        let refusal = refused("lapsed", refusal, "QUOTE_EXPIRED", &["payment.quote"]);
        if refusal.message.contains("has lapsed") {
            Ok(())
        } else {
            Err(refusal.message)
        }
    })
    .await;
    assert_eq!(
        apple.get_quote(&short.name).await.unwrap(),
        still_there,
        "it can be read"
    );
    nothing_happened(&network, &before).await;

    apple.pay(Route::USD_CNY.by_quote("r-2", &bound.name)).await;
    let used = apple.create(Route::USD_CNY.by_quote("r-3", &bound.name)).await;
    refused("used", used, "QUOTE_USED", &["payment.quote"]);
    let dry = CreatePaymentRequest {
        validate_only: true,
        ..Route::USD_CNY.by_quote("r-3", &bound.name)
    };
    refused("used, dry", apple.create(dry).await, "QUOTE_USED", &["payment.quote"]);
    for (name, reason) in [
        ("", "FIELD_MISSING"),
        ("quotes/", "FIELD_INVALID"),
        (NO_PAYMENT, "FIELD_INVALID"),
        (&foreign.name, "QUOTE_NOT_FOUND"),
        ("quotes/00000000-0000-4000-8000-000000000000", "QUOTE_NOT_FOUND"),
    ] {
        refused(
            &format!("GetQuote {name:?}"),
            apple.get_quote(name).await,
            reason,
            &["name"],
        );
    }
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_tokens_and_filters() {
    let network = Network::start().await;
    let (apple, alipay, paypal, operator) = (
        network.partner(APPLE),
        network.partner(ALIPAY),
        network.partner(PAYPAL),
        network.operator(),
    );
    let mut exercised = 0;
    for client in [&apple, &operator] {
        for (name, reason) in NAMES.into_iter().chain([(NO_PAYMENT, "PAYMENT_NOT_FOUND")]) {
            refused(&format!("get {name:?}"), client.get(name).await, reason, &["name"]);
            refused(
                &format!("cancel {name:?}"),
                client.cancel(name).await,
                reason,
                &["name"],
            );
            exercised += 2;
            if !name.is_empty() {
                refused(
                    &format!("watch {name:?}"),
                    client.watch("", name).await,
                    reason,
                    &["payment"],
                );
                exercised += 1;
            }
        }
        for (name, reason) in NAMES {
            refused(
                &format!("decision {name:?}"),
                client.decision(name).await,
                reason,
                &["payment"],
            );
            exercised += 1;
        }
    }

    let names: Vec<_> = {
        let mut names = Vec::new();
        for index in 0..3 {
            names.push(apple.pay(Route::USD_CNY.send(&format!("r-{index}"), "10")).await.name);
        }
        names
    };
    for client in [&paypal, &network.partner(PAYPAL)] {
        refused("get", client.get(&names[0]).await, "PAYMENT_NOT_FOUND", &["name"]);
        refused("cancel", client.cancel(&names[0]).await, "PAYMENT_NOT_FOUND", &["name"]);
        refused(
            "watch",
            client.watch("", &names[0]).await,
            "PAYMENT_NOT_FOUND",
            &["payment"],
        );
        refused(
            "decision",
            client.decision(&names[0]).await,
            "PAYMENT_NOT_FOUND",
            &["payment"],
        );
        exercised += 4;
    }

    let list = async |client: &Client, page_size, page_token: &str, filter: &str| {
        let request = ListPaymentsRequest {
            page_size,
            page_token: page_token.into(),
            filter: filter.into(),
        };
        client.list(request).await
    };
    let token = list(&apple, 1, "", "").await.unwrap().next_page_token;
    assert!(!token.is_empty());
    let filtered = list(&apple, 1, "", "state != ABORTED").await.unwrap().next_page_token;
    let resume = URL_SAFE_NO_PAD.encode(b"feed\0\0\0\0\0\0\0\x01");
    for (what, client, token, filter) in [
        ("garbage", &apple, "garbage", ""),
        ("not base64", &apple, "?*", ""),
        ("too short", &apple, &token[1..], ""),
        ("too long", &apple, &format!("{token}AAAA"), ""),
        ("with a filter", &apple, &token, "state != ABORTED"),
        ("without its filter", &apple, &filtered, ""),
        ("another partner's", &alipay, &token, ""),
        ("a partner's at an operator's", &operator, &token, ""),
        ("a place in the feed", &apple, &resume, ""),
    ] {
        refused(
            what,
            list(client, 1, token, filter).await,
            "PAGE_TOKEN_INVALID",
            &["page_token"],
        );
        exercised += 1;
    }
    for size in [-1, i32::MIN] {
        refused(
            "page_size",
            list(&apple, size, "", "").await,
            "FIELD_INVALID",
            &["page_size"],
        );
        exercised += 1;
    }
    let long = format!("state = COMPLETED{}", " ".repeat(1_000));
    for filter in [
        "state",
        "state COMPLETED",
        "= COMPLETED",
        "state =",
        "state = DONE",
        "state = completed",
        "state < COMPLETED",
        "state = \"COMPLETED",
        "state = COMPLETED OR state = ABORTED",
        "state = COMPLETED AND state = ABORTED",
        "state = COMPLETED AND",
        "payer.account = alice",
        "create_time = \"2026-01-31T00:00:00Z\"",
        "create_time > yesterday",
        "create_time > \"2026-13-31T00:00:00Z\"",
        "request_id != r-1",
        "request_id = \"a b\"",
        "; DROP TABLE payment",
        long.as_str(),
    ] {
        let what = format!("{filter:.60}");
        refused(&what, list(&apple, 0, "", filter).await, "FILTER_INVALID", &["filter"]);
        exercised += 1;
    }
    let of_all = list(&operator, 0, "", "request_id = r-1").await;
    refused("a request_id is one partner's", of_all, "FILTER_INVALID", &["filter"]);

    let beyond = |sequence: u64| {
        let mut bytes = b"feed".to_vec();
        bytes.extend(sequence.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    };
    for (what, token) in [
        ("garbage", "garbage".to_owned()),
        ("Start", "Start".to_owned()),
        ("a place in a list", token.clone()),
        ("a little beyond the head", beyond(1_000)),
        ("far beyond the head", beyond(u64::MAX)),
        ("cut short", beyond(1)[1..].to_owned()),
    ] {
        refused(
            what,
            apple.watch(&token, "").await,
            "RESUME_TOKEN_INVALID",
            &["resume_token"],
        );
        exercised += 1;
    }
    assert_eq!(exercised, 2 * (7 * 2 + 6 + 6) + 8 + 9 + 2 + 19 + 6);
    assert_eq!(network.audit().await.movements, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_that_are_not_there() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let get = async |name: &str| {
        let request = GetRateRequest { name: name.into() };
        apple.rates.clone().get_rate(request).await
    };
    for (name, reason, fields) in [
        ("", "FIELD_MISSING", &["name"] as &[_]),
        ("USD-CNY", "FIELD_INVALID", &["name"]),
        ("rates/", "FIELD_INVALID", &["name"]),
        ("rates/USD", "FIELD_INVALID", &["name"]),
        ("rates/USD-cny", "CURRENCY_UNKNOWN", &["name"]),
        ("rates/XXX-CNY", "CURRENCY_UNKNOWN", &["name"]),
        ("rates/USD-CNY-EUR", "CURRENCY_UNKNOWN", &["name"]),
        ("rates/-", "FIELD_MISSING", &["name", "name"]),
        // A currency of the list of ISO 4217, and none of the source's.
        ("rates/USD-GBP", "RATE_UNKNOWN", &[]),
        ("rates/GBP-USD", "RATE_UNKNOWN", &[]),
    ] {
        refused(name, get(name).await, reason, fields);
    }
    let list = async |base: &str| {
        let request = ListRatesRequest {
            source_currency: base.into(),
        };
        apple.rates.clone().list_rates(request).await
    };
    for (base, reason, fields) in [
        ("usd", "CURRENCY_UNKNOWN", &["source_currency"] as &[_]),
        ("XXX", "CURRENCY_UNKNOWN", &["source_currency"]),
        ("GBP", "RATE_UNKNOWN", &[]),
    ] {
        refused(base, list(base).await, reason, fields);
    }
    let paypal = network.partner(PAYPAL);
    let quote = paypal.quote(Route::GBP_CNY.quote(FixedSide::Send, "10")).await;
    refused("quote", quote, "RATE_UNKNOWN", &[]);
    let order = paypal.create(Route::GBP_CNY.send("r-1", "10")).await;
    refused("market order", order, "RATE_UNKNOWN", &[]);
    assert_eq!(network.audit().await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_quote_is_made_from_a_stale_rate_or_without_a_source() {
    for (rates, reason) in [
        // Published in 2014, and not pinned to that day.
        ("source = \"ecb-csv\"\npath = \"rates.csv\"\n", "RATE_STALE"),
        (
            "source = \"ecb-csv\"\npath = \"nowhere.csv\"\n",
            "RATE_SOURCE_UNAVAILABLE",
        ),
    ] {
        let network = Network::with(Settings {
            rates: rates.into(),
            ..Settings::default()
        })
        .await;
        let apple = network.partner(APPLE);
        let quote = apple.quote(Route::USD_CNY.quote(FixedSide::Send, "10")).await;
        let refusal = refused("quote", quote, reason, &[]);
        assert_eq!(
            refusal.retry_after.is_some(),
            reason == "RATE_SOURCE_UNAVAILABLE",
            "a retry may help"
        );
        refused(
            "market order",
            apple.create(Route::USD_CNY.send("r-1", "10")).await,
            reason,
            &[],
        );
        assert_eq!(network.audit().await, Default::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_leaves_no_time_to_vote() {
    let network = Network::start().await;
    let before = stock(&network).await;
    let apple = network.partner(APPLE);
    // 400 ms are kept for the answer, and a vote takes 200 ms at least.
    for (timeout, enough) in [("400m", false), ("590m", false), ("590000u", false), ("10S", true)] {
        let mut request = Request::new(CreatePaymentRequest {
            validate_only: true,
            ..Route::USD_CNY.send("r-1", "100")
        });
        // As raw metadata, so that this client itself does not give up.
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let answer = apple.payments.clone().create_payment(request).await;
        match enough {
            true => assert!(answer.is_ok(), "{timeout}: {answer:?}"),
            false => {
                let refusal = Refusal::from(&answer.expect_err(timeout));
                assert_eq!(refusal.reason, "DEADLINE_TOO_SHORT", "{timeout}: {refusal:?}");
                assert_eq!(refusal.code, tonic::Code::DeadlineExceeded, "{timeout}");
            }
        }
    }
    nothing_happened(&network, &before).await;
}

/// What a wrong text is written as, to be replaced by as many bytes that are not UTF-8.
const MARK: &str = "@@@@";

fn marked(message: &impl Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    let at: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(MARK.as_bytes()))
        .collect();
    assert_eq!(at.len(), 1, "marked once");
    bytes[at[0]..at[0] + MARK.len()].copy_from_slice(&[0xff, 0xfe, 0xc0, 0x80]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_that_is_not_utf_8() {
    const PAYMENTS: &str = "/causeway.gateway.v1.PaymentService/";
    let network = Network::start().await;
    let before = stock(&network).await;
    let apple = network.partner(APPLE);
    let order = |change: fn(&mut CreatePaymentRequest)| {
        let mut request = Route::USD_CNY.send("r-1", "100");
        change(&mut request);
        marked(&request)
    };
    let quote_order = |change: fn(&mut CreateQuoteRequest)| {
        let mut request = Route::USD_CNY.quote(FixedSide::Send, "100");
        change(&mut request);
        marked(&request)
    };
    let create = "/causeway.gateway.v1.PaymentService/CreatePayment";
    let create_quote = "/causeway.gateway.v1.QuoteService/CreateQuote";
    let mark = || MARK.to_owned();
    let rows: Vec<(&'static str, Vec<u8>, &str)> = vec![
        (create, order(|r| r.request_id = MARK.into()), "request_id"),
        (create, order(|r| payment(r).name = MARK.into()), "payment.name"),
        (
            create,
            order(|r| payment(r).request_id = MARK.into()),
            "payment.request_id",
        ),
        (
            create,
            order(|r| payment(r).initiator = MARK.into()),
            "payment.initiator",
        ),
        (
            create,
            order(|r| payer(r).partner = MARK.into()),
            "payment.payer.partner",
        ),
        (
            create,
            order(|r| payer(r).account = MARK.into()),
            "payment.payer.account",
        ),
        (
            create,
            order(|r| payee(r).partner = MARK.into()),
            "payment.payee.partner",
        ),
        (
            create,
            order(|r| payee(r).account = MARK.into()),
            "payment.payee.account",
        ),
        (
            create,
            order(|r| payment(r).pricing = Some(Pricing::Quote(MARK.into()))),
            "payment.quote",
        ),
        (
            create,
            order(|r| market(r).worst_rate = MARK.into()),
            "payment.market.worst_rate",
        ),
        (
            create,
            order(|r| market(r).source_currency = MARK.into()),
            "payment.market.source_currency",
        ),
        (
            create,
            order(|r| market(r).target_currency = MARK.into()),
            "payment.market.target_currency",
        ),
        (
            create,
            order(|r| market_amount(r).currency = MARK.into()),
            "payment.market.amount.currency",
        ),
        (
            create,
            order(|r| market_amount(r).amount = MARK.into()),
            "payment.market.amount.amount",
        ),
        (create_quote, quote_order(|r| quote(r).name = MARK.into()), "quote.name"),
        (
            create_quote,
            quote_order(|r| quote(r).payer_account = MARK.into()),
            "quote.payer_account",
        ),
        (
            create_quote,
            quote_order(|r| quote(r).payee_account = MARK.into()),
            "quote.payee_account",
        ),
        (
            create_quote,
            quote_order(|r| quote(r).payment = MARK.into()),
            "quote.payment",
        ),
        (
            create_quote,
            quote_order(|r| quote_amount(r).currency = MARK.into()),
            "quote.amount.currency",
        ),
        (
            create_quote,
            quote_order(|r| quote_amount(r).amount = MARK.into()),
            "quote.amount.amount",
        ),
        (
            create_quote,
            quote_order(|r| corridor(r).source_partner = MARK.into()),
            "quote.corridor.source_partner",
        ),
        (
            create_quote,
            quote_order(|r| corridor(r).target_currency = MARK.into()),
            "quote.corridor.target_currency",
        ),
        (
            "/causeway.gateway.v1.QuoteService/GetQuote",
            marked(&pb::GetQuoteRequest { name: mark() }),
            "name",
        ),
        (
            "/causeway.gateway.v1.PaymentService/GetPayment",
            marked(&pb::GetPaymentRequest { name: mark() }),
            "name",
        ),
        (
            "/causeway.gateway.v1.PaymentService/CancelPayment",
            marked(&pb::CancelPaymentRequest { name: mark() }),
            "name",
        ),
        (
            "/causeway.gateway.v1.PaymentService/ListPayments",
            marked(&ListPaymentsRequest {
                page_token: mark(),
                ..ListPaymentsRequest::default()
            }),
            "page_token",
        ),
        (
            "/causeway.gateway.v1.PaymentService/ListPayments",
            marked(&ListPaymentsRequest {
                filter: mark(),
                ..ListPaymentsRequest::default()
            }),
            "filter",
        ),
        (
            "/causeway.gateway.v1.RateService/GetRate",
            marked(&GetRateRequest { name: mark() }),
            "name",
        ),
        (
            "/causeway.gateway.v1.RateService/ListRates",
            marked(&ListRatesRequest {
                source_currency: mark(),
            }),
            "source_currency",
        ),
        (
            "/causeway.gateway.v1.DecisionService/GetDecision",
            marked(&pb::GetDecisionRequest { payment: mark() }),
            "payment",
        ),
    ];
    let exercised = rows.len();
    for (path, bytes, field) in rows {
        let answer = call_with_bytes(&apple.channel, path, bytes).await;
        refused(&format!("{path} {field}"), answer, "REQUEST_MALFORMED", &[field]);
    }
    assert_eq!(exercised, 30);
    for (bytes, field) in [
        (
            marked(&pb::WatchPaymentsRequest {
                resume_token: mark(),
                payment: String::new(),
            }),
            "resume_token",
        ),
        (
            marked(&pb::WatchPaymentsRequest {
                resume_token: String::new(),
                payment: mark(),
            }),
            "payment",
        ),
    ] {
        let path = "/causeway.gateway.v1.PaymentService/WatchPayments";
        let answer = stream_with_bytes(&apple.channel, path, bytes).await;
        refused(&format!("watch {field}"), answer, "REQUEST_MALFORMED", &[field]);
    }
    // Bytes that are no message at all.
    for bytes in [vec![0xff; 10], vec![0x0a, 0x7f, 0x01], vec![0x07]] {
        let answer = call_with_bytes(&apple.channel, create, bytes.clone()).await;
        let refusal = Refusal::from(&answer.expect_err("no message"));
        let found = (refusal.code, refusal.reason.as_str(), refusal.domain.as_str());
        assert_eq!(
            found,
            (tonic::Code::InvalidArgument, "REQUEST_MALFORMED", "causeway"),
            "{bytes:?}"
        );
    }
    // Both of a oneof: the last one counts, as protobuf has it; an unknown field is passed over.
    let mut both = Route::USD_CNY.by_quote("", "quotes/x").encode_to_vec();
    both.extend(Route::USD_CNY.send("", "100").encode_to_vec());
    both.extend([0xf8, 0x3f, 0x01]);
    let answer = call_with_bytes(&apple.channel, create, both).await;
    refused("both of a oneof", answer, "FIELD_MISSING", &["request_id"]);
    // More than the gateway takes.
    let huge = Route::USD_CNY.send(&"x".repeat(1 << 20), "100");
    let answer: Result<Payment, Status> = apple.create(huge).await;
    let refusal = Refusal::from(&answer.expect_err("too large"));
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (tonic::Code::ResourceExhausted, "REQUEST_TOO_LARGE")
    );
    assert!(create.starts_with(PAYMENTS));
    nothing_happened(&network, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_cancel_and_until_when() {
    let network = Network::start().await;
    let (apple, alipay, operator) = (network.partner(APPLE), network.partner(ALIPAY), network.operator());
    let paid = apple.pay(Route::USD_CNY.send("r-1", "100")).await;
    for (what, client) in [("the payee's network", &alipay), ("an operator", &operator)] {
        refused(what, client.cancel(&paid.name).await, "NOT_INITIATOR", &[]);
    }
    let decided = refused("completed", apple.cancel(&paid.name).await, "PAYMENT_DECIDED", &[]);
    assert_eq!(decided.metadata["state"], "COMPLETED");
    // Decided and not yet carried out: the same.
    let mock = network.mock(ALIPAY);
    mock.set_faults([fault(Kind::LoseRequest, Command::Commit)]).await;
    let request = CreatePaymentRequest {
        answer_at: pb::AnswerAt::Decision.into(),
        ..Route::USD_CNY.send("r-2", "100")
    };
    let payment = apple.create(request).await.unwrap();
    let decided = refused("committing", apple.cancel(&payment.name).await, "PAYMENT_DECIDED", &[]);
    assert_eq!(decided.metadata["state"], "COMMITTING");
    mock.set_faults([]).await;
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.movements), (2, 4));
}
