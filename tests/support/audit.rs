//! The auditor: what the partner networks say moved, against what the gateway says it did.
//!
//! Shares no code with the gateway: amounts are read as integers here, and the networks' own books are the evidence.
//! Panics at the first thing that does not add up.

use std::collections::{BTreeMap, BTreeSet};

use causeway::pb::{
    gateway::v1::{Payment, payment::State, payment_branch},
    money::v1::Money,
};

use super::{BOUND, Client, Mock, decimal::check_conversion, wait_for};

/// What a customer's account opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    pub partner: &'static str,
    pub account: String,
    pub currency: String,
    pub balance: String,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub completed: usize,
    pub aborted: usize,
    pub disputed: usize,
    pub movements: usize,
}

impl Audit {
    /// Takes stock. Everything must have ended.
    pub async fn take(operator: &Client, mocks: &[Mock], openings: &[Opening]) -> Self {
        let payments = operator.list_all("").await;
        let mut audit = Self::default();
        let mut names = BTreeSet::new();
        // What each (partner, payment, branch) must have moved: account, currency, minor units.
        let mut owed = BTreeMap::new();
        for payment in &payments {
            assert!(names.insert(payment.name.clone()), "listed twice: {}", payment.name);
            audit.payment(payment, &mut owed);
        }
        let mut deltas: BTreeMap<(String, String, String), i128> = BTreeMap::new();
        for mock in mocks {
            for movement in mock.movements("").await {
                audit.movements += 1;
                let what = format!("{} {} {}", mock.name, movement.payment, movement.branch);
                assert!(names.contains(&movement.payment), "moved for no payment: {what}");
                let amount = movement.amount.expect("a movement has an amount");
                let moved = (movement.account.clone(), amount.currency.clone(), minor(&amount));
                let key = (mock.name.to_owned(), movement.payment.clone(), movement.branch.clone());
                // Taken out, so that a second movement of the same branch finds nothing.
                let expected = owed.remove(&key);
                assert_eq!(
                    expected,
                    Some(moved.clone()),
                    "moved otherwise, twice, or though it must not: {what}"
                );
                let sign = if movement.branch == "debit" { -1 } else { 1 };
                *deltas.entry((mock.name.to_owned(), moved.0, moved.1)).or_default() += sign * moved.2;
            }
        }
        assert!(owed.is_empty(), "committed, but did not move: {owed:?}");
        for mock in mocks {
            books(mock, openings, &deltas).await;
        }
        audit
    }

    fn payment(&mut self, payment: &Payment, owed: &mut BTreeMap<(String, String, String), (String, String, i128)>) {
        check_conversion(
            payment.conversion.as_ref().expect("an operator sees all"),
            &payment.name,
        );
        let must_move = match payment.state() {
            State::Completed => {
                self.completed += 1;
                assert!(payment.outcome.is_none(), "{payment:?}");
                assert_eq!(states(payment), [payment_branch::State::Committed; 2], "{payment:?}");
                true
            }
            State::Aborted => {
                self.aborted += 1;
                assert!(payment.outcome.is_some(), "{payment:?}");
                false
            }
            State::Disputed => {
                self.disputed += 1;
                assert!(payment.outcome.is_some(), "{payment:?}");
                true
            }
            other => panic!("not ended: {other:?}: {payment:?}"),
        };
        let ends = payment.state() != State::Disputed;
        assert_eq!(payment.end_time.is_some(), ends, "{payment:?}");
        assert!(payment.decide_time.is_some(), "{payment:?}");
        for branch in &payment.branches {
            let committed = branch.state() == payment_branch::State::Committed;
            assert!(must_move || !committed, "aborted, and yet committed: {payment:?}");
            if committed {
                let amount = branch.amount.as_ref().expect("an operator sees all");
                let partner = branch.partner.trim_start_matches("partners/").to_owned();
                let key = (partner, payment.name.clone(), branch.branch.clone());
                owed.insert(key, (branch.account.clone(), amount.currency.clone(), minor(amount)));
            }
        }
    }
}

/// Waits until no payment is under way, no network holds anything, and the store says so too.
pub async fn wait_until_quiet(operator: &Client, mocks: &[Mock]) {
    wait_for("every payment has ended", BOUND, || async {
        let open = operator
            .list_all("state != COMPLETED AND state != ABORTED AND state != DISPUTED")
            .await;
        if open.is_empty() { Ok(()) } else { Err(open) }
    })
    .await;
    for mock in mocks {
        wait_for("nothing is held", BOUND, || async {
            let held = mock.holds("prepared").await;
            if held.is_empty() { Ok(()) } else { Err(held) }
        })
        .await;
    }
}

/// A network's books: zero in sum per currency, nothing held, and every customer's balance what it opened with and what
/// moved since.
async fn books(mock: &Mock, openings: &[Opening], deltas: &BTreeMap<(String, String, String), i128>) {
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    let mut expected: BTreeMap<(String, String), i128> = openings
        .iter()
        .filter(|opening| opening.partner == mock.name)
        .map(|opening| {
            (
                (opening.account.clone(), opening.currency.clone()),
                whole(&opening.currency, &opening.balance),
            )
        })
        .collect();
    for ((partner, account, currency), delta) in deltas {
        if partner == mock.name {
            *expected.entry((account.clone(), currency.clone())).or_default() += delta;
        }
    }
    for account in mock.accounts().await {
        let (balance, held) = (
            account.balance.expect("a balance"),
            account.held.expect("a held amount"),
        );
        assert_eq!(
            minor(&held),
            0,
            "{}: {} holds back {held:?}",
            mock.name,
            account.account
        );
        *sums.entry(balance.currency.clone()).or_default() += minor(&balance);
        if let Some(expected) = expected.remove(&(account.account.clone(), balance.currency.clone())) {
            assert_eq!(
                minor(&balance),
                expected,
                "{}: {}: {balance:?}",
                mock.name,
                account.account
            );
        }
    }
    assert!(expected.is_empty(), "{}: accounts are gone: {expected:?}", mock.name);
    assert!(
        sums.values().all(|sum| *sum == 0),
        "{}: does not add up to zero: {sums:?}",
        mock.name
    );
}

fn states(payment: &Payment) -> Vec<payment_branch::State> {
    payment.branches.iter().map(|branch| branch.state()).collect()
}

/// Minor units, for an amount that is written with all of its decimals.
fn minor(money: &Money) -> i128 {
    whole(&money.currency, &money.amount)
}

fn whole(currency: &str, amount: &str) -> i128 {
    let decimals = match currency {
        "JPY" => 0,
        "KWD" => 3,
        "USD" | "CNY" | "EUR" | "GBP" => 2,
        other => panic!("the auditor does not know {other}"),
    };
    let (units, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let padded = format!("{units}{fraction:0<decimals$}");
    assert!(fraction.len() <= decimals, "{amount} {currency} has too many decimals");
    padded.parse().unwrap_or_else(|_| panic!("{amount:?} is no amount"))
}
