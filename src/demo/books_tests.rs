use super::*;
use crate::demo::{
    cast::{ALICE, EMMA, LI_WEI},
    deal::Fixed,
};

/// One payment that completed, one that did not.
fn books() -> Books {
    let mut books = Books::open().unwrap();
    let day = "2014-10-28".parse().unwrap();
    let paid = Deal::new(&day, ALICE, LI_WEI, Fixed::Send(10_000)).unwrap();
    let refused = Deal::new(&day, ALICE, EMMA, Fixed::Send(5_000)).unwrap();
    books.enter("payments/a", &paid, Ending::Completed);
    books.enter("payments/b", &refused, Ending::Aborted);
    books
}

fn account(network: Network, account: &str, balance: i128) -> Account {
    Account {
        network,
        account: account.into(),
        currency: network.currency().into(),
        balance,
        held: 0,
    }
}

fn movement(network: Network, branch: &str, account: &str, amount: &str) -> Movement {
    Movement {
        network,
        payment: "payments/a".into(),
        branch: branch.into(),
        account: account.into(),
        amount: amount.into(),
    }
}

fn listed(name: &str, ending: Ending) -> Listed {
    Listed {
        name: name.into(),
        ending,
        state: format!("STATE_{ending:?}"),
    }
}

/// Written down by hand.
fn findings() -> Findings {
    use Network::{Alipay, ApplePay, PayPal};
    Findings {
        accounts: vec![
            account(ApplePay, "alice", 90_000),
            account(ApplePay, "settlement", 10_000),
            account(ApplePay, "world", -100_000),
            account(Alipay, "li-wei", 560_799),
            account(Alipay, "settlement", -60_799),
            account(Alipay, "world", -500_000),
            account(PayPal, "emma", 80_000),
            account(PayPal, "world", -80_000),
        ],
        movements: vec![
            movement(ApplePay, "debit", "alice", "100.00 USD"),
            movement(Alipay, "credit", "li-wei", "607.99 CNY"),
        ],
        open_holds: Vec::new(),
        payments: vec![
            listed("payments/b", Ending::Aborted),
            listed("payments/a", Ending::Completed),
        ],
    }
}

#[test]
fn what_is_as_it_must_be_has_no_differences() {
    assert_eq!(books().differences(&findings()), [""; 0]);
    assert_eq!(books().ending("payments/a"), Some(Ending::Completed));
    assert_eq!(books().balance(LI_WEI), 560_799);
}

#[test]
fn every_difference_is_found_and_named() {
    type Break = fn(&mut Findings);
    let cases: &[(Break, &[&str])] = &[
        (
            |found| found.accounts[0].balance += 1,
            &[
                "alice at Apple Pay: holds 900.01 USD, our own sum is 900.00 USD",
                "Apple Pay: all accounts add up to 0.01 USD, not to zero",
            ],
        ),
        (
            |found| found.accounts[3].held = 500,
            &["li-wei at Alipay: 5.00 CNY are still reserved"],
        ),
        (
            |found| drop(found.accounts.remove(4)),
            &[
                "settlement at Alipay: missing, our own sum is -607.99 CNY",
                "Alipay: all accounts add up to 607.99 CNY, not to zero",
            ],
        ),
        (
            |found| found.accounts.push(account(Network::PayPal, "mallory", 0)),
            &["mallory at PayPal: nobody opened that account"],
        ),
        (
            |found| found.movements.push(found.movements[0].clone()),
            &["payments/a: Apple Pay moved 100.00 USD (debit of alice) 2 times, expected 1"],
        ),
        (
            |found| drop(found.movements.pop()),
            &["payments/a: Alipay moved 607.99 CNY (credit of li-wei) 0 times, expected 1"],
        ),
        (
            |found| found.movements[0].payment = "payments/b".into(),
            &[
                "payments/a: Apple Pay moved 100.00 USD (debit of alice) 0 times, expected 1",
                "payments/b: Apple Pay moved 100.00 USD (debit of alice) 1 times, expected 0",
            ],
        ),
        (
            |found| found.payments[0] = listed("payments/b", Ending::InDoubt),
            &["payments/b: the gateway says STATE_InDoubt, expected aborted"],
        ),
        (
            |found| drop(found.payments.pop()),
            &["payments/a: the gateway does not list it"],
        ),
        (
            |found| found.payments.push(listed("payments/c", Ending::Completed)),
            &["payments/c: nobody asked for it"],
        ),
        (
            |found| found.payments.push(listed("payments/a", Ending::Completed)),
            &["payments/a: the gateway lists it twice"],
        ),
        (
            |found| found.open_holds.push("a hold".into()),
            &["still in doubt: a hold"],
        ),
    ];
    for (break_it, expected) in cases {
        let mut found = findings();
        break_it(&mut found);
        assert_eq!(books().differences(&found), *expected);
    }
}

#[test]
fn a_wrong_expectation_is_a_difference_too() {
    let mut books = books();
    books.add(Network::ApplePay, "alice", 1);
    assert_eq!(books.differences(&findings()).len(), 1);
}
