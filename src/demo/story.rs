//! The stage on which the story plays, and its quiet part: payments each way, a lost answer, an empty wallet.
//!
//! Owns what every step has in common: look at the wallets, act, look again, compare with our own sums, tell. What goes
//! wrong in earnest is in [`super::trouble`].

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    DemoError,
    books::{Books, Ending},
    cast::{ALICE, LI_WEI, Network, Wallet},
    clients::{Balance, Clients, ending, fault, state_name, until},
    cluster::{Cluster, Member},
    day::Day,
    deal::{Deal, Fixed},
    sums::{print, print_change, units},
    table::{Align, Table},
    tell::Tell,
};
use crate::pb::{
    gateway::v1::Payment,
    mock::v1::{
        Fault,
        fault::{Command, Kind},
    },
};

/// How long Alice's phone waits before it sends again: so short that three times is less than Alipay takes.
const PHONE_PATIENCE: Duration = Duration::from_millis(120);
/// How slow Alipay is in that step, in milliseconds.
const ALIPAY_LATENCY_MS: i32 = 600;
/// How often the phone sends.
const SENDINGS: usize = 4;

/// Everything that a step needs.
pub struct Stage<'a> {
    pub cluster: &'a mut Cluster,
    pub clients: Clients,
    pub books: Books,
    pub tell: Tell,
    pub day: Day,
    /// All that was not as it must be.
    pub differences: Vec<String>,
}

/// Wallets and what was in them at one time.
pub type Wallets = Vec<(Wallet, Balance)>;

impl Stage<'_> {
    /// Tells who is there.
    pub fn introduce(&mut self) -> Result<(), DemoError> {
        self.tell.heading("Causeway: payments between wallet networks")?;
        self.tell.say(
            "Three wallet networks (mock ones) and the gateway between them are running on this machine, each a process \
             of its own with a certificate of its own. Every connection is TLS with certificates on both sides.",
        )?;
        let mut table = Table::new([
            ("process", Align::Left),
            ("keeps accounts in", Align::Left),
            ("listens on", Align::Left),
            ("process id", Align::Right),
        ]);
        for (member, (name, pid)) in Member::ALL.into_iter().zip(self.cluster.pids()) {
            let currency = match member {
                Member::Partner(network) => network.currency(),
                Member::Gateway => "-",
            };
            table.row([
                name.into(),
                currency.into(),
                self.cluster.address(member),
                pid.to_string(),
            ]);
        }
        self.tell.show(&table)?;
        let Day { asked, published } = self.day;
        let hold = if asked == published {
            String::new()
        } else {
            format!(" (they hold on {asked} too)")
        };
        let (dollars, yuan) = (self.day.per_euro("USD")?, self.day.per_euro("CNY")?);
        self.tell.say(&format!(
            "The rates are the European Central Bank's of {published}{hold}: one euro is {dollars} dollars or {yuan} \
             yuan. This program works every amount out a second time, with arithmetic of its own, and compares every \
             balance with it; \"own sum\" below is what it expects.",
        ))?;
        Ok(())
    }

    /// A payment from dollars to yuan, by a quote.
    pub async fn there(&mut self) -> Result<(), DemoError> {
        self.tell.step("Alice pays Li Wei: from Apple Pay to Alipay")?;
        self.tell.say(
            "Alice's wallet is at Apple Pay, in dollars. Li Wei's is at Alipay, in yuan. Alice pays 100.00 USD. Apple Pay \
             asks the gateway for a quote, which pins the rate for a minute, and pays by it.",
        )?;
        let deal = self.deal(ALICE, LI_WEI, Fixed::Send(units(100)))?;
        self.pay_by_quote("demo-1", &deal).await
    }

    /// A payment from yuan to dollars, by a quote.
    pub async fn back(&mut self) -> Result<(), DemoError> {
        self.tell.step("Li Wei pays Alice: from Alipay to Apple Pay")?;
        self.tell.say(
            "The other way round, and now the other amount is fixed: Alice is to receive exactly 50.00 USD, and the quote \
             says what that costs Li Wei.",
        )?;
        let deal = self.deal(LI_WEI, ALICE, Fixed::Receive(units(50)))?;
        self.pay_by_quote("demo-2", &deal).await
    }

    async fn pay_by_quote(&mut self, request_id: &str, deal: &Deal) -> Result<(), DemoError> {
        let (payer, payee) = (deal.payer.network, deal.payee.network);
        let rate = self.clients.rate(payer, payee).await?;
        self.expect(rate.mid_rate == deal.mid.to_string(), || {
            format!("GetRate says {}, our own sum is {}", rate.mid_rate, deal.mid)
        })?;
        let quote = self.clients.quote(payer, deal.quote()).await?;
        for difference in deal.differences(quote.conversion.as_ref(), quote.rate_origin.as_ref()) {
            self.differs(format!("{}: {difference}", quote.name))?;
        }
        self.show_deal(deal)?;
        let before = self.look(&[deal.payer, deal.payee]).await?;
        let request = deal.request_by_quote(request_id, &quote.name);
        let payment = self.clients.pay(payer, &request).await?;
        self.conclude(deal, &payment, Ending::Completed, before).await
    }

    /// The same request four times, for the answer was lost.
    pub async fn four_times(&mut self) -> Result<(), DemoError> {
        self.tell
            .step("The answer is lost, and the same request is sent four times")?;
        self.tell.say(
            "Alice pays 25.00 USD. Alipay is slow today, and its first answer to the gateway is lost on the way. Alice's \
             phone hears nothing, hangs up and sends the very same request again, and again, and again. However often it \
             is sent, one request is one payment.",
        )?;
        let deal = self.deal(ALICE, LI_WEI, Fixed::Send(units(25)))?;
        self.show_deal(&deal)?;
        let slow = Fault {
            latency_ms: ALIPAY_LATENCY_MS,
            ..fault(Kind::Latency, Command::Prepare)
        };
        let lost = fault(Kind::LoseAnswer, Command::Prepare);
        self.clients.set_faults(Network::Alipay, &[slow, lost]).await?;
        let before = self.look(&[ALICE, LI_WEI]).await?;

        let request = deal.request_at_market("demo-3");
        let mut sent = Table::new([("request sent", Align::Left), ("what the phone heard", Align::Left)]);
        for sending in 1..SENDINGS {
            let begun = Instant::now();
            // Not before the gateway has the payment: from then on there is something that could be paid twice.
            let hang_up = async {
                let known = until("the gateway to have the payment", async || {
                    self.clients.payment_of(Network::ApplePay, "demo-3").await
                });
                tokio::join!(known, sleep(PHONE_PATIENCE)).0
            };
            let heard = tokio::select! {
                known = hang_up => {
                    known?;
                    // The call is dropped, hence reset.
                    format!("nothing; hung up after {} ms", begun.elapsed().as_millis())
                }
                answer = self.clients.pay_once(Network::ApplePay, request.clone()) => {
                    format!("{} (thrown away)", answer?.name)
                }
            };
            sent.row([format!("{sending}. demo-3"), heard]);
        }
        let payment = self.clients.pay(Network::ApplePay, &request).await?;
        sent.row([
            format!("{SENDINGS}. demo-3"),
            format!("{} {}", payment.name, state_name(&payment)),
        ]);
        self.tell.show(&sent)?;
        self.clients.set_faults(Network::Alipay, &[]).await?;
        self.show_movements(&deal, &payment).await?;
        self.conclude(&deal, &payment, Ending::Completed, before).await
    }

    /// More than there is.
    pub async fn no_funds(&mut self) -> Result<(), DemoError> {
        self.tell.step("Not enough money")?;
        let deal = self.deal(ALICE, LI_WEI, Fixed::Send(units(5000)))?;
        let before = self.look(&[ALICE, LI_WEI]).await?;
        self.tell.say(&format!(
            "Alice has {} and tries to pay {}. Alipay is ready to take the money in, Apple Pay refuses to let it go: one \
             no is enough, and neither side moves.",
            deal.sent(self.books.balance(ALICE)),
            deal.sent(deal.send),
        ))?;
        self.show_deal(&deal)?;
        let request = deal.request_at_market("demo-4");
        let payment = self.clients.pay(Network::ApplePay, &request).await?;
        self.expect_reason(&payment, "INSUFFICIENT_FUNDS")?;
        self.conclude(&deal, &payment, Ending::Aborted, before).await
    }

    /// Works a payment out.
    pub fn deal(&self, payer: Wallet, payee: Wallet, fixed: Fixed) -> Result<Deal, DemoError> {
        Deal::new(&self.day, payer, payee, fixed)
    }

    /// The rate and the amounts, as we worked them out.
    pub fn show_deal(&mut self, deal: &Deal) -> Result<(), DemoError> {
        let (source, target) = (deal.payer.network.currency(), deal.payee.network.currency());
        let mut table = Table::new([("", Align::Left), ("", Align::Left), ("", Align::Left)]);
        let rate = |rate| format!("1 {source} = {rate} {target}");
        table.row([
            format!("ECB rate of {}", deal.rate_date),
            rate(deal.mid),
            format!(
                "{} {target} / {} {source}, for one euro",
                deal.payee_per_euro, deal.payer_per_euro
            ),
        ]);
        table.row([
            "rate applied".into(),
            rate(deal.rate),
            format!("less a margin of {} %", deal.margin.percent()),
        ]);
        let fee = format!("of which {} are the fee", deal.sent(deal.fee));
        table.row([format!("{} is to pay", deal.payer.person), deal.sent(deal.send), fee]);
        let remainder = format!("{} {target} are left by rounding, with the gateway", deal.remainder);
        table.row([
            format!("{} is to receive", deal.payee.person),
            deal.received(deal.receive),
            remainder,
        ]);
        Ok(self.tell.show(&table)?)
    }

    /// What is in these wallets now.
    pub async fn look(&self, wallets: &[Wallet]) -> Result<Wallets, DemoError> {
        let mut found = Vec::new();
        for wallet in wallets {
            found.push((*wallet, self.clients.balance(*wallet).await?));
        }
        Ok(found)
    }

    /// A payment has ended: is it what we worked out, did it end as it must, is in the wallets what must be?
    pub async fn conclude(
        &mut self,
        deal: &Deal,
        payment: &Payment,
        expected: Ending,
        before: Wallets,
    ) -> Result<(), DemoError> {
        let (name, found) = (&payment.name, ending(payment));
        self.expect(found == expected, || {
            format!("{name}: the gateway says {}, expected {expected}", state_name(payment))
        })?;
        self.conclude_without(None, deal, payment, expected, before).await
    }

    /// As [`Stage::conclude`], of a payment that is decided, but that a network that is away has not been told of.
    pub async fn conclude_without(
        &mut self,
        away: Option<Network>,
        deal: &Deal,
        payment: &Payment,
        expected: Ending,
        before: Wallets,
    ) -> Result<(), DemoError> {
        self.books.enter(&payment.name, deal, expected);
        for difference in deal.differences(payment.conversion.as_ref(), payment.rate_origin.as_ref()) {
            self.differs(format!("{}: {difference}", payment.name))?;
        }
        self.show_wallets(away, before).await?;
        let why = payment
            .outcome
            .as_ref()
            .map(|outcome| format!(", {} (ISO 20022 {}): {}", outcome.reason, outcome.code, outcome.detail));
        let (name, state) = (&payment.name, state_name(payment));
        self.tell.say(&format!(
            "The gateway says: {name} is {state}{}.",
            why.unwrap_or_default()
        ))?;
        Ok(())
    }

    /// Wallets before and after, beside our own sums.
    async fn show_wallets(&mut self, away: Option<Network>, before: Wallets) -> Result<(), DemoError> {
        let mut table = Table::new([
            ("wallet", Align::Left),
            ("before", Align::Right),
            ("change", Align::Right),
            ("after", Align::Right),
            ("own sum", Align::Right),
        ]);
        for (wallet, before) in before {
            let expected = self.books.balance(wallet);
            let currency = wallet.network.currency();
            let amount = |amount| format!("{} {currency}", print(amount));
            if away == Some(wallet.network) {
                let unknown = format!("{} is down", wallet.network);
                table.row([
                    wallet.to_string(),
                    amount(before.total),
                    "?".into(),
                    unknown,
                    amount(expected),
                ]);
                continue;
            }
            let after = self.clients.balance(wallet).await?;
            let change = print_change(after.total - before.total);
            table.row([
                wallet.to_string(),
                amount(before.total),
                change,
                amount(after.total),
                amount(expected),
            ]);
            self.expect(after.total == expected, || {
                let (found, expected) = (print(after.total), print(expected));
                format!("{wallet}: holds {found} {currency}, our own sum is {expected} {currency}")
            })?;
            self.expect(after.held == 0, || {
                format!("{wallet}: {} {currency} are still reserved", print(after.held))
            })?;
        }
        Ok(self.tell.show(&table)?)
    }

    /// What each network moved for the payment; says so if it is not one movement each.
    pub async fn show_movements(&mut self, deal: &Deal, payment: &Payment) -> Result<(), DemoError> {
        let mut table = Table::new([
            ("movements of this payment", Align::Left),
            ("", Align::Right),
            ("", Align::Left),
        ]);
        for (wallet, branch) in [(deal.payer, "debit"), (deal.payee, "credit")] {
            let movements = self.clients.movements(wallet.network, &payment.name).await?;
            for movement in &movements {
                let amount = movement
                    .amount
                    .as_ref()
                    .map(|money| format!("{} {}", money.amount, money.currency));
                table.row([wallet.to_string(), amount.unwrap_or_default(), movement.branch.clone()]);
            }
            self.expect(movements.len() == 1 && movements[0].branch == branch, || {
                format!(
                    "{wallet}: moved {} times for {}, expected once",
                    movements.len(),
                    payment.name
                )
            })?;
        }
        Ok(self.tell.show(&table)?)
    }

    /// The payment must not have happened, for this reason.
    pub fn expect_reason(&mut self, payment: &Payment, expected: &str) -> Result<(), DemoError> {
        let reason = payment.outcome.as_ref().map_or("none", |outcome| &outcome.reason);
        self.expect(reason == expected, || {
            format!("{}: the reason is {reason}, expected {expected}", payment.name)
        })
    }

    /// Notes a difference unless it is as it must be.
    pub fn expect(&mut self, as_it_must_be: bool, difference: impl FnOnce() -> String) -> Result<(), DemoError> {
        if as_it_must_be {
            Ok(())
        } else {
            self.differs(difference())
        }
    }

    fn differs(&mut self, difference: String) -> Result<(), DemoError> {
        self.tell.differs(&difference)?;
        self.differences.push(difference);
        Ok(())
    }
}
