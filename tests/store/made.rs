//! Payments and quotes to store.

use std::sync::Arc;

use causeway::{
    coordinator::protocol::{Decision, Event, Knowledge, Record, State, fold},
    money::{Amount, Conversion, Currency, Margin, Pricing, Rate},
    payment::{
        AccountId, Order, OrderPricing, Outcome, PartnerName, Party, PaymentId, Quote, QuoteId, RateOrigin, Reason,
        RequestId, Terms,
    },
    store::{Append, Begin},
};

pub const BEGIN_MS: i64 = 1_700_000_000_000;

pub fn partner(name: &str) -> PartnerName {
    PartnerName::parse(name).unwrap()
}

pub fn quote_id(n: u64) -> QuoteId {
    let mut bytes = [0; 16];
    // Spread over the buckets as random ids are.
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    QuoteId::from_random(bytes)
}

fn conversion() -> Conversion {
    let mid = Rate::parse(Currency::USD, Currency::CNY, "6.11350800126").unwrap();
    let fee = Amount::parse(Currency::USD, "0.30").unwrap();
    let pricing = Pricing {
        mid,
        margin: Margin::parse("0.0025").unwrap(),
        fee,
    };
    Conversion::fixed_send(Amount::parse(Currency::USD, "100.00").unwrap(), &pricing).unwrap()
}

fn origin() -> RateOrigin {
    RateOrigin {
        source: "European Central Bank".into(),
        date: "2014-10-28".into(),
    }
}

pub fn quote(n: u64) -> Quote {
    Quote {
        id: quote_id(n),
        owner: partner("apple-pay"),
        source_partner: partner("apple-pay"),
        target_partner: partner("alipay"),
        payer_account: Some(AccountId::parse("alice").unwrap()),
        payee_account: None,
        fixed_send: true,
        conversion: conversion(),
        origin: origin(),
        create_ms: BEGIN_MS,
        expire_ms: BEGIN_MS + 60_000,
    }
}

/// The n-th payment of a partner, by the n-th quote, begun n milliseconds after the first.
pub fn terms(initiator: &str, n: u64) -> Arc<Terms> {
    let party = |name: &str, account: &str| Party {
        partner: partner(name),
        account: AccountId::parse(account).unwrap(),
    };
    let target = if initiator == "alipay" { "apple-pay" } else { "alipay" };
    let order = Order {
        request_id: RequestId::parse(&format!("r-{n}")).unwrap(),
        payer: party(initiator, "alice"),
        payee: party(target, "bob"),
        pricing: OrderPricing::Quote(quote_id(n)),
    };
    let conversion = conversion();
    let initiator = partner(initiator);
    Arc::new(Terms {
        id: PaymentId::derive(&initiator, &order.request_id),
        initiator,
        branches: Terms::legs(&order, &conversion),
        order,
        conversion,
        origin: origin(),
        begin_ms: BEGIN_MS + n as i64,
        decide_by_ms: BEGIN_MS + 100_000,
        hold_expire_ms: BEGIN_MS + 200_000,
    })
}

pub fn begin(terms: &Arc<Terms>) -> Begin {
    Begin {
        terms: Arc::clone(terms),
        record: begun(terms),
    }
}

pub fn begun(terms: &Arc<Terms>) -> Record {
    Record {
        at_ms: terms.begin_ms,
        event: Event::Begun(Arc::clone(terms)),
    }
}

pub fn committed(at_ms: i64) -> Record {
    let yes = |reference: &str| Knowledge::Prepared {
        reference: reference.into(),
    };
    Record {
        at_ms,
        event: Event::Decided {
            decision: Decision::Commit,
            branches: vec![yes("H1"), yes("H2")],
        },
    }
}

pub fn aborted(at_ms: i64) -> Record {
    let outcome = Outcome::new(Reason::InsufficientFunds, "no funds", Some(&partner("apple-pay")));
    let branches = vec![Knowledge::Refused, Knowledge::Unknown];
    Record {
        at_ms,
        event: Event::Decided {
            decision: Decision::Abort(outcome),
            branches,
        },
    }
}

pub fn ended(at_ms: i64) -> Record {
    let done = |reference: &str| Knowledge::Committed {
        reference: reference.into(),
    };
    Record {
        at_ms,
        event: Event::Ended {
            branches: vec![done("M1"), done("M2")],
        },
    }
}

pub fn disputed(at_ms: i64) -> Record {
    let outcome = Outcome::new(Reason::HeuristicAbort, "let go", Some(&partner("alipay")));
    let branches = vec![Knowledge::Committed { reference: "M1".into() }, Knowledge::Contradicted];
    Record {
        at_ms,
        event: Event::Disputed { outcome, branches },
    }
}

/// Adds the last `count` of these records, which are all that the payment will have.
pub fn append(id: PaymentId, records: &[Record], count: usize) -> Append {
    let before = records.len() - count;
    Append {
        id,
        expected_version: before as u32,
        records: records[before..].to_vec(),
        states: (before + 1..=records.len()).map(|end| state(&records[..end])).collect(),
    }
}

pub fn state(records: &[Record]) -> State {
    fold(records).unwrap()
}
