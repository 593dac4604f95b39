//! The auditor is shown histories that are broken in one way each, and must say so; and one that is not.

use causeway::pb::{
    gateway::v1::{
        Conversion, CreatePaymentRequest, FixedSide, Payment,
        payment::{MarketOrder, Pricing, State},
    },
    mock::v1::{Account, Hold, Movement},
    money::v1::Money,
};
use prost_types::Timestamp;

use crate::{
    auditor::{Class, judge},
    cast::OPERATOR,
    evidence::{Answer, Books, Change, Evidence, Key, Opening, Order, Question, Sighting, Told, Watch},
    requests::{ALIPAY, APPLE, money, partner, party},
};

const PAID: &str = "payments/paid";
const REFUSED: &str = "payments/refused";
/// When the wallets moved; the caller was told later.
const MOVED_MS: i64 = 1_000_000;

/// Alice pays Bao 10.00 USD, and is told so; the poor one does not, and is told so too.
fn good() -> Evidence {
    Evidence {
        orders: vec![order(PAID, State::Completed), order(REFUSED, State::Aborted)],
        payments: vec![payment(PAID, State::Completed), payment(REFUSED, State::Aborted)],
        books: vec![
            books(APPLE, "alice", "USD", "90.00", ("debit", "10.00")),
            books(ALIPAY, "bao", "CNY", "161.00", ("credit", "61.00")),
        ],
        hanging: Vec::new(),
        watches: [OPERATOR, APPLE, ALIPAY].map(watch).into(),
    }
}

fn order(name: &str, state: State) -> Order {
    let wanted = payment(name, state);
    let request = CreatePaymentRequest {
        payment: Some(Box::new(Payment {
            payer: wanted.payer.clone(),
            payee: wanted.payee.clone(),
            pricing: wanted.pricing.clone(),
            ..Payment::default()
        })),
        request_id: wanted.request_id.clone(),
        ..CreatePaymentRequest::default()
    };
    Order {
        key: Key {
            initiator: APPLE,
            request_id: wanted.request_id.clone(),
        },
        request,
        quoted: None,
        told: vec![told(1, Question::Create, Answer::Payment(Box::new(wanted)))],
    }
}

/// The n-th answer that a caller had, one after the other.
fn told(nth: i64, question: Question, answer: Answer) -> Told {
    Told {
        asked_ms: MOVED_MS + 1_000 * nth - 900,
        told_ms: MOVED_MS + 1_000 * nth,
        question,
        answer,
    }
}

fn payment(name: &str, state: State) -> Payment {
    Payment {
        name: name.into(),
        request_id: format!("r-{}", name.trim_start_matches("payments/")),
        initiator: partner(APPLE),
        payer: Some(party(APPLE, if name == PAID { "alice" } else { "poor" })),
        payee: Some(party(ALIPAY, "bao")),
        pricing: Some(Pricing::Market(MarketOrder {
            fixed_side: FixedSide::Send.into(),
            amount: Some(money("USD", "10.00")),
            worst_rate: "1".into(),
            source_currency: "USD".into(),
            target_currency: "CNY".into(),
        })),
        conversion: Some(Conversion {
            send_amount: Some(money("USD", "10.00")),
            receive_amount: Some(money("CNY", "61.00")),
            fee: Some(money("USD", "0.00")),
            mid_rate: "6.1".into(),
            margin: "0".into(),
            rate: "6.1".into(),
            remainder: "0".into(),
        }),
        state: state.into(),
        ..Payment::default()
    }
}

fn books(
    network: &'static str,
    customer: &str,
    currency: &str,
    balance: &str,
    (branch, amount): (&str, &str),
) -> Books {
    let is = |account: &str, balance: &str| Account {
        account: account.into(),
        balance: Some(money(currency, balance)),
        held: Some(money(currency, "0.00")),
        ..Account::default()
    };
    let settlement = if branch == "debit" {
        amount.to_owned()
    } else {
        format!("-{amount}")
    };
    Books {
        network,
        openings: vec![Opening {
            account: customer.into(),
            currency: currency.into(),
            balance: "100.00".into(),
        }],
        accounts: vec![
            is(customer, balance),
            is("world", "-100.00"),
            is("settlement", &settlement),
        ],
        movements: vec![Movement {
            sequence: 1,
            payment: PAID.into(),
            branch: branch.into(),
            account: customer.into(),
            amount: Some(money(currency, amount)),
            move_time: Some(Timestamp {
                seconds: MOVED_MS / 1_000,
                nanos: 0,
            }),
        }],
        holds: Vec::new(),
    }
}

fn watch(who: &'static str) -> Watch {
    let change = |payment: &str, state| Change {
        payment: payment.into(),
        state,
    };
    let changes = vec![
        change(PAID, State::Preparing),
        change(REFUSED, State::Preparing),
        change(PAID, State::Committing),
        change(REFUSED, State::Aborting),
        change(REFUSED, State::Aborted),
        change(PAID, State::Completed),
    ];
    Watch {
        who,
        live: changes.clone(),
        replay: changes,
    }
}

fn balance(evidence: &mut Evidence, books: usize, account: usize) -> &mut Money {
    let account = &mut evidence.books[books].accounts[account];
    account.balance.as_mut().unwrap()
}

fn refused(reason: &str) -> Answer {
    Answer::Refused {
        reason: reason.into(),
        detail: String::new(),
    }
}

fn shown(name: &str, state: State) -> Answer {
    Answer::Payment(Box::new(payment(name, state)))
}

#[test]
fn a_good_history_is_good() {
    let verdict = judge(&good());
    assert_eq!(verdict.findings, []);

    // Nor is what may happen a finding: lost answers, a decision that is told before its end, an end that is not on disk yet.
    let mut evidence = good();
    let answers = [
        Answer::Nothing("cut".into()),
        shown(PAID, State::Committing),
        refused("DRAINING"),
        shown(PAID, State::Completed),
    ];
    for (nth, answer) in (2..).zip(answers) {
        evidence.orders[0].told.push(told(nth, Question::Replay, answer));
    }
    let altered = told(9, Question::Altered, refused("REQUEST_ID_REUSED"));
    evidence.orders[0].told.push(altered);
    assert_eq!(judge(&evidence).findings, []);
}

#[test]
fn every_broken_history_is_found() {
    use Class::{Doubled, InDoubt, Lost};
    let breaks: Vec<(&str, Class, &str, &str, fn(&mut Evidence))> = vec![
        ("a movement is doubled", Doubled, PAID, "the debit moved 2 times", |e| {
            let again = e.books[0].movements[0].clone();
            e.books[0].movements.push(again);
        }),
        (
            "one side moved alone",
            Lost,
            PAID,
            "the debit moved and the credit did not",
            |e| e.books[1].movements.clear(),
        ),
        ("nothing moved", Lost, PAID, "is COMPLETED and nothing moved", |e| {
            e.books.iter_mut().for_each(|books| books.movements.clear());
        }),
        ("another amount moved", Lost, PAID, "should have by", |e| {
            e.books[1].movements[0].amount = Some(money("CNY", "60.99"));
        }),
        ("another account moved", Lost, PAID, "should have by", |e| {
            e.books[1].movements[0].account = "bo".into();
        }),
        (
            "it moved after its caller was told",
            Lost,
            PAID,
            "told COMPLETED before it had moved",
            |e| {
                e.books[0].movements[0].move_time.as_mut().unwrap().seconds += 5;
            },
        ),
        (
            "an aborted payment moved",
            Doubled,
            REFUSED,
            "is ABORTED and money moved",
            |e| {
                for books in &mut e.books {
                    let mut moved = books.movements[0].clone();
                    moved.payment = REFUSED.into();
                    books.movements.push(moved);
                }
            },
        ),
        (
            "money moved for no payment",
            Doubled,
            "payments/unknown",
            "the gateway knows no such payment",
            |e| {
                let mut moved = e.books[0].movements[0].clone();
                moved.payment = "payments/unknown".into();
                e.books[0].movements.push(moved);
            },
        ),
        (
            "the decision changed",
            Lost,
            PAID,
            "told of a commit and of an abort",
            |e| {
                e.orders[0]
                    .told
                    .push(told(2, Question::Get, shown(PAID, State::Aborted)));
            },
        ),
        (
            "a decision was taken back",
            Lost,
            PAID,
            "was decided, and later was not",
            |e| {
                e.orders[0]
                    .told
                    .push(told(2, Question::Get, shown(PAID, State::Preparing)));
            },
        ),
        (
            "told of a commit, and it is aborted",
            Lost,
            REFUSED,
            "told of a commit; it is aborted",
            |e| {
                e.orders[1].told = vec![told(1, Question::Cancel, refused("PAYMENT_DECIDED"))];
            },
        ),
        (
            "told of an abort, and it is committed",
            Doubled,
            PAID,
            "told of an abort; it is committed",
            |e| {
                e.orders[0].told = vec![told(1, Question::Create, shown(PAID, State::Aborted))];
            },
        ),
        (
            "an acknowledgement is lost",
            Lost,
            PAID,
            "and the gateway knows nothing of it",
            |e| {
                e.payments.remove(0);
            },
        ),
        (
            "one request_id, two payments",
            Doubled,
            "payments/second",
            "is the second payment of one request_id",
            |e| {
                let mut second = e.payments[0].clone();
                second.name = "payments/second".into();
                e.payments.push(second);
            },
        ),
        (
            "one request_id, told of two payments",
            Doubled,
            PAID,
            "told of several",
            |e| {
                e.orders[0]
                    .told
                    .push(told(2, Question::Create, shown("payments/second", State::Completed)));
            },
        ),
        (
            "a payment that nobody ordered",
            Doubled,
            PAID,
            "was ordered by nobody",
            |e| {
                e.orders.remove(0);
            },
        ),
        (
            "told that there is no payment",
            Doubled,
            PAID,
            "told that there is none",
            |e| {
                e.orders[0]
                    .told
                    .insert(0, told(0, Question::Create, refused("QUOTE_EXPIRED")));
            },
        ),
        (
            "another body was accepted",
            Doubled,
            PAID,
            "another body under its request_id was accepted",
            |e| {
                e.orders[0]
                    .told
                    .push(told(2, Question::Altered, shown(PAID, State::Completed)));
            },
        ),
        (
            "the same body was refused",
            Lost,
            PAID,
            "the same body was refused as another",
            |e| {
                e.orders[0]
                    .told
                    .push(told(2, Question::Create, refused("REQUEST_ID_REUSED")));
            },
        ),
        (
            "no definite answer",
            InDoubt,
            PAID,
            "never got a definite answer",
            |e| {
                e.orders[0].told = vec![told(1, Question::Create, Answer::Nothing("cut".into()))];
            },
        ),
        (
            "the rate is not the one that was told",
            Lost,
            PAID,
            "its amounts or its rate have changed",
            |e| {
                let Answer::Payment(told) = &mut e.orders[0].told[0].answer else {
                    unreachable!("a payment was told")
                };
                told.conversion.as_mut().unwrap().rate = "6.2".into();
            },
        ),
        (
            "the rate is not the one that was quoted",
            Lost,
            PAID,
            "was quoted, not",
            |e| {
                let mut quoted = e.payments[0].conversion.clone().unwrap();
                quoted.receive_amount = Some(money("CNY", "61.01"));
                let payment = e.orders[0].request.payment.as_mut().unwrap();
                payment.pricing = Some(Pricing::Quote("quotes/q".into()));
                e.orders[0].quoted = Some(quoted);
            },
        ),
        (
            "the amounts do not follow from the rate",
            Lost,
            PAID,
            "its amounts are wrong",
            |e| {
                let conversion = e.payments[0].conversion.as_mut().unwrap();
                conversion.remainder = "0.001".into();
            },
        ),
        ("another amount than was ordered", Lost, PAID, "was ordered, not", |e| {
            let payment = e.orders[0].request.payment.as_mut().unwrap();
            let Some(Pricing::Market(market)) = &mut payment.pricing else {
                unreachable!("it pays at the market")
            };
            market.amount = Some(money("USD", "9.00"));
        }),
        ("one quote paid two", Doubled, REFUSED, "took quotes/q", |e| {
            for payment in &mut e.payments {
                payment.pricing = Some(Pricing::Quote("quotes/q".into()));
            }
        }),
        ("it has not ended", InDoubt, PAID, "has not ended: Committing", |e| {
            e.payments[0].state = State::Committing.into();
        }),
        ("it is disputed", InDoubt, PAID, "has not ended: Disputed", |e| {
            e.payments[0].state = State::Disputed.into()
        }),
        ("a hold is left", InDoubt, REFUSED, "still holds its credit", |e| {
            e.books[1].holds.push(Hold {
                payment: REFUSED.into(),
                branch: "credit".into(),
                ..Hold::default()
            });
        }),
        (
            "a hold hung after its payment had ended",
            InDoubt,
            REFUSED,
            "held its credit after it was told",
            |e| {
                e.hanging.push(Sighting {
                    network: ALIPAY,
                    payment: REFUSED.into(),
                    branch: "credit".into(),
                    told: State::Aborted,
                    seen_ms: MOVED_MS,
                });
            },
        ),
        (
            "an account still holds funds",
            InDoubt,
            "apple-pay: alice USD",
            "are held",
            |e| {
                e.books[0].accounts[0].held = Some(money("USD", "10.00"));
            },
        ),
        (
            "money is created",
            Doubled,
            "apple-pay: alice USD",
            "has 9001 minor units",
            |e| {
                balance(e, 0, 0).amount = "90.01".into();
            },
        ),
        (
            "a currency does not add up",
            Doubled,
            "apple-pay: all USD",
            "adds up to 1 minor units",
            |e| {
                balance(e, 0, 0).amount = "90.01".into();
            },
        ),
        (
            "money is destroyed",
            Lost,
            "alipay: bao CNY",
            "has 16099 minor units",
            |e| {
                balance(e, 1, 0).amount = "160.99".into();
            },
        ),
        ("an account is gone", Lost, "alipay: bao CNY", "is gone", |e| {
            e.books[1].accounts.remove(0);
        }),
        (
            "a watcher saw a change twice",
            Doubled,
            PAID,
            "STATE_COMPLETED 2 times",
            |e| {
                let again = e.watches[1].live[5].clone();
                e.watches[1].live.push(again);
            },
        ),
        (
            "a watcher missed a change",
            Lost,
            PAID,
            "STATE_COMMITTING 0 times",
            |e| {
                e.watches[2].live.remove(2);
            },
        ),
        (
            "a watcher saw changes out of order",
            Lost,
            REFUSED,
            "out of order",
            |e| {
                e.watches[2].live.swap(3, 4);
            },
        ),
        ("the feed has a gap", Lost, PAID, "ops's feed shows it", |e| {
            for watch in &mut e.watches {
                watch.live.remove(2);
                watch.replay.remove(2);
            }
        }),
        (
            "a participant's feed has nothing of it",
            Lost,
            PAID,
            "alipay's feed shows it []",
            |e| {
                e.watches[2].live.retain(|change| change.payment != PAID);
                e.watches[2].replay.retain(|change| change.payment != PAID);
            },
        ),
    ];
    for (what, class, subject, says, spoil) in &breaks {
        let mut evidence = good();
        spoil(&mut evidence);
        let verdict = judge(&evidence);
        let found = verdict
            .findings
            .iter()
            .any(|finding| finding.class == *class && finding.subject == *subject && finding.what.contains(says));
        assert!(
            found,
            "{what}: expected {class:?} of {subject}, {says:?}: {:#?}",
            verdict.findings
        );
    }
    assert!(breaks.len() >= 35);
}

#[test]
fn a_payment_counts_once_in_a_class() {
    let mut evidence = good();
    evidence.books[1].movements.clear();
    evidence.watches[0].live.clear();
    let verdict = judge(&evidence);
    assert!(verdict.findings.len() > 3, "{:#?}", verdict.findings);
    // Both payments, which the operator's watcher never saw, and the settlement account.
    let lost: Vec<_> = verdict.findings.iter().filter(|f| f.class == Class::Lost).collect();
    assert_eq!(verdict.count(Class::Lost), 3, "{lost:#?}");
}
