//! The end: everyone's books against our own.

use super::{
    DemoError,
    books::{Account, Ending, Findings, Listed, Movement},
    cast::Network,
    clients::{Clients, ending, state_name, until},
    cluster::Member,
    story::Stage,
    sums::{hundredths, print},
    table::{Align, Table},
};
use crate::pb::money::v1::Money;

impl Stage<'_> {
    /// Reads all books, compares, and tells. Answers with the last line of the story.
    pub async fn audit(&mut self) -> Result<String, DemoError> {
        self.tell.heading("The books")?;
        self.tell.say(
            "PayPal is started again, for its books are looked at too. The gateway tells it at once what it missed: that \
             Alice's payment to Emma is off, and must stay off should the request for it still turn up.",
        )?;
        self.cluster.start(Member::Partner(Network::PayPal)).await?;
        let quiet = until("every payment to end", async || {
            let findings = gather(&self.clients).await?;
            Ok(is_quiet(&findings).then_some(findings))
        });
        let findings = match quiet.await {
            // What is still open is told with the rest.
            Err(DemoError::Waited { .. }) => gather(&self.clients).await?,
            findings => findings?,
        };
        self.show_accounts(&findings)?;
        self.show_payments(&findings)?;

        for difference in self.books.differences(&findings) {
            self.expect(false, || difference)?;
        }
        let count = |wanted: Ending| {
            findings
                .payments
                .iter()
                .filter(|payment| payment.ending == wanted)
                .count()
        };
        Ok(format!(
            "books balanced: {} payments, {} completed, {} aborted, {} in doubt",
            findings.payments.len(),
            count(Ending::Completed),
            count(Ending::Aborted),
            count(Ending::InDoubt),
        ))
    }

    fn show_accounts(&mut self, findings: &Findings) -> Result<(), DemoError> {
        self.tell.say(
            "Every account of every network. \"settlement\" is what the network owes the gateway (or, below zero, is \
             owed by it); \"world\" is where the wallets' first balances came from. Each network adds up to zero.",
        )?;
        let mut table = Table::new([
            ("network", Align::Left),
            ("account", Align::Left),
            ("balance", Align::Right),
            ("reserved", Align::Right),
            ("own sum", Align::Right),
        ]);
        for account in &findings.accounts {
            let currency = &account.currency;
            let own = self.books.balance_of(account.network, &account.account);
            table.row([
                account.network.to_string(),
                account.account.clone(),
                format!("{} {currency}", print(account.balance)),
                print(account.held),
                format!("{} {currency}", print(own)),
            ]);
        }
        Ok(self.tell.show(&table)?)
    }

    fn show_payments(&mut self, findings: &Findings) -> Result<(), DemoError> {
        let mut table = Table::new([
            ("payment", Align::Left),
            ("state", Align::Left),
            ("movements", Align::Right),
            ("expected", Align::Left),
        ]);
        // Newest first, as the gateway lists them; told from the beginning.
        for payment in findings.payments.iter().rev() {
            let moved = findings
                .movements
                .iter()
                .filter(|movement| movement.payment == payment.name)
                .count();
            let expected = self.books.ending(&payment.name);
            table.row([
                payment.name.clone(),
                payment.state.clone(),
                moved.to_string(),
                expected.map_or_else(|| "unknown".into(), |ending| ending.to_string()),
            ]);
        }
        Ok(self.tell.show(&table)?)
    }
}

fn is_quiet(findings: &Findings) -> bool {
    findings.open_holds.is_empty()
        && findings
            .payments
            .iter()
            .all(|payment| payment.ending != Ending::InDoubt)
}

async fn gather(clients: &Clients) -> Result<Findings, DemoError> {
    let mut findings = Findings::default();
    let read = |money: &Option<Money>| hundredths(money.as_ref().map_or("", |money| &money.amount));
    let text = |money: Option<Money>| money.map(|money| format!("{} {}", money.amount, money.currency));
    for network in Network::ALL {
        for account in clients.accounts(network).await? {
            findings.accounts.push(Account {
                network,
                currency: account
                    .balance
                    .as_ref()
                    .map_or_else(String::new, |money| money.currency.clone()),
                balance: read(&account.balance)?,
                held: read(&account.held)?,
                account: account.account,
            });
        }
        for movement in clients.movements(network, "").await? {
            findings.movements.push(Movement {
                network,
                payment: movement.payment,
                branch: movement.branch,
                account: movement.account,
                amount: text(movement.amount).unwrap_or_default(),
            });
        }
        for hold in clients.holds(network, "prepared", "").await? {
            let amount = text(hold.amount).unwrap_or_default();
            let (payment, branch, account) = (hold.payment, hold.branch, hold.account);
            findings
                .open_holds
                .push(format!("{payment}: {network} holds {amount} ({branch} of {account})"));
        }
    }
    for payment in clients.all_payments().await? {
        findings.payments.push(Listed {
            ending: ending(&payment),
            state: state_name(&payment).to_owned(),
            name: payment.name,
        });
    }
    Ok(findings)
}
