//! What every balance must be, and where the networks and the gateway say otherwise.
//!
//! Owns the expectations: wallets, the networks' settlement accounts, and how every payment ended. Pure; [`super::audit`]
//! gathers what is compared.
//!
//! Invariant: a payment that completed is on two wallets and two settlement accounts, any other on none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    cast::{Network, WALLETS, Wallet},
    deal::Deal,
    sums::{BadNumber, hundredths, print},
};

/// What the gateway is owed or owes in a network.
const SETTLEMENT: &str = "settlement";
/// Where the wallets' first balances came from.
const WORLD: &str = "world";

/// How a payment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Both sides moved.
    Completed,
    /// Neither side moved.
    Aborted,
    /// None of these, yet.
    InDoubt,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Completed => "completed",
            Ending::Aborted => "aborted",
            Ending::InDoubt => "in doubt",
        })
    }
}

/// What must be.
#[derive(Clone, Debug)]
pub struct Books {
    balances: BTreeMap<(Network, String), i128>,
    payments: BTreeMap<String, (Deal, Ending)>,
}

/// A wallet's side of a payment that moved money.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Movement {
    /// Where.
    pub network: Network,
    /// "payments/...".
    pub payment: String,
    /// "debit" or "credit".
    pub branch: String,
    /// Whose.
    pub account: String,
    /// "100.00 USD".
    pub amount: String,
}

/// An account as its network shows it, in hundredths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Where.
    pub network: Network,
    /// Its id.
    pub account: String,
    /// ISO 4217.
    pub currency: String,
    /// What it holds.
    pub balance: i128,
    /// What is reserved of it.
    pub held: i128,
}

/// A payment as the gateway shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// "payments/...".
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// The state's name.
    pub state: String,
}

/// All that is there when the story is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Of all networks.
    pub accounts: Vec<Account>,
    /// Of all networks.
    pub movements: Vec<Movement>,
    /// Holds that are neither taken nor released, in words.
    pub open_holds: Vec<String>,
    /// The gateway's.
    pub payments: Vec<Listed>,
}

impl Books {
    /// As the story begins.
    pub fn open() -> Result<Books, BadNumber> {
        let mut books = Books {
            balances: BTreeMap::new(),
            payments: BTreeMap::new(),
        };
        for wallet in WALLETS {
            let opening = hundredths(wallet.opening)?;
            books.add(wallet.network, wallet.account, opening);
            books.add(wallet.network, WORLD, -opening);
        }
        Ok(books)
    }

    /// A payment has ended.
    pub fn enter(&mut self, payment: &str, deal: &Deal, ending: Ending) {
        if ending == Ending::Completed {
            let (payer, payee) = (deal.payer, deal.payee);
            self.add(payer.network, payer.account, -deal.send);
            self.add(payer.network, SETTLEMENT, deal.send);
            self.add(payee.network, payee.account, deal.receive);
            self.add(payee.network, SETTLEMENT, -deal.receive);
        }
        self.payments.insert(payment.to_owned(), (deal.clone(), ending));
    }

    fn add(&mut self, network: Network, account: &str, amount: i128) {
        *self.balances.entry((network, account.to_owned())).or_default() += amount;
    }

    /// What must be in a wallet.
    pub fn balance(&self, wallet: Wallet) -> i128 {
        self.balance_of(wallet.network, wallet.account)
    }

    /// What must be in an account.
    pub fn balance_of(&self, network: Network, account: &str) -> i128 {
        self.balances
            .get(&(network, account.to_owned()))
            .copied()
            .unwrap_or_default()
    }

    /// How a payment must have ended.
    pub fn ending(&self, payment: &str) -> Option<Ending> {
        self.payments.get(payment).map(|(_, ending)| *ending)
    }

    /// Everything that is not as it must be, in words.
    pub fn differences(&self, findings: &Findings) -> Vec<String> {
        let mut differences = self.wrong_accounts(&findings.accounts);
        differences.extend(self.wrong_movements(&findings.movements));
        differences.extend(self.wrong_payments(&findings.payments));
        differences.extend(findings.open_holds.iter().map(|hold| format!("still in doubt: {hold}")));
        differences
    }

    fn wrong_accounts(&self, found: &[Account]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut sums: BTreeMap<(Network, &str), i128> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for account in found {
            let Account { network, currency, .. } = account;
            let name = format!("{} at {network}", account.account);
            if *currency != network.currency() {
                differences.push(format!(
                    "{name}: there is an account in {currency}, which nobody opened"
                ));
            }
            let expected = self.balance_of(*network, &account.account);
            // A settlement account is opened by a first hold, whatever becomes of it.
            let known = self.balances.contains_key(&(*network, account.account.clone()));
            if !known && account.account != SETTLEMENT {
                differences.push(format!("{name}: nobody opened that account"));
            }
            if account.balance != expected {
                let (found, expected) = (print(account.balance), print(expected));
                differences.push(format!(
                    "{name}: holds {found} {currency}, our own sum is {expected} {currency}"
                ));
            }
            if account.held != 0 {
                differences.push(format!("{name}: {} {currency} are still reserved", print(account.held)));
            }
            *sums.entry((*network, currency)).or_default() += account.balance;
            seen.insert((*network, account.account.clone()));
        }
        for ((network, account), balance) in &self.balances {
            if *balance != 0 && !seen.contains(&(*network, account.clone())) {
                let (balance, currency) = (print(*balance), network.currency());
                differences.push(format!(
                    "{account} at {network}: missing, our own sum is {balance} {currency}"
                ));
            }
        }
        for ((network, currency), sum) in sums {
            if sum != 0 {
                let sum = print(sum);
                differences.push(format!(
                    "{network}: all accounts add up to {sum} {currency}, not to zero"
                ));
            }
        }
        differences
    }

    fn wrong_movements(&self, found: &[Movement]) -> Vec<String> {
        let mut counts: BTreeMap<&Movement, (usize, usize)> = BTreeMap::new();
        let expected: Vec<_> = self.payments.iter().flat_map(expected_movements).collect();
        for movement in &expected {
            counts.entry(movement).or_default().0 += 1;
        }
        for movement in found {
            counts.entry(movement).or_default().1 += 1;
        }
        let wrong = counts.into_iter().filter(|(_, (expected, found))| expected != found);
        wrong
            .map(|(movement, (expected, found))| {
                let Movement {
                    network,
                    payment,
                    branch,
                    account,
                    amount,
                } = movement;
                format!(
                    "{payment}: {network} moved {amount} ({branch} of {account}) {found} times, expected {expected}"
                )
            })
            .collect()
    }

    fn wrong_payments(&self, found: &[Listed]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut seen = BTreeSet::new();
        for Listed { name, ending, state } in found {
            if !seen.insert(name) {
                differences.push(format!("{name}: the gateway lists it twice"));
            }
            match self.payments.get(name) {
                None => differences.push(format!("{name}: nobody asked for it")),
                Some((_, expected)) if expected != ending => {
                    differences.push(format!("{name}: the gateway says {state}, expected {expected}"));
                }
                Some(_) => {}
            }
        }
        for name in self.payments.keys().filter(|name| !seen.contains(name)) {
            differences.push(format!("{name}: the gateway does not list it"));
        }
        differences
    }
}

fn expected_movements((payment, (deal, ending)): (&String, &(Deal, Ending))) -> Vec<Movement> {
    let movement = |wallet: Wallet, branch: &str, amount: String| Movement {
        network: wallet.network,
        payment: payment.clone(),
        branch: branch.to_owned(),
        account: wallet.account.to_owned(),
        amount,
    };
    match ending {
        Ending::Completed => vec![
            movement(deal.payer, "debit", deal.sent(deal.send)),
            movement(deal.payee, "credit", deal.received(deal.receive)),
        ],
        Ending::Aborted | Ending::InDoubt => Vec::new(),
    }
}

#[cfg(test)]
#[path = "books_tests.rs"]
mod tests;
