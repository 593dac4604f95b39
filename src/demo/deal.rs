//! A payment as the demonstration works it out by itself, from the ECB's table and the corridor's terms.

use super::{
    DemoError,
    cast::{CORRIDORS, Wallet},
    day::Day,
    sums::{BadNumber, Exact, bought, cross, hundredths, less_margin, needed, print},
};
use crate::pb::{gateway::v1 as gateway, money::v1::Money};

/// Who pays whom, and all sums of it. Amounts are in hundredths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Who pays.
    pub payer: Wallet,
    /// Who is paid.
    pub payee: Wallet,
    /// Which of the amounts was asked for.
    pub fixed: Fixed,
    /// One euro in the payer's currency.
    pub payer_per_euro: Exact,
    /// One euro in the payee's currency.
    pub payee_per_euro: Exact,
    /// Payee's units for one of the payer's, before margin.
    pub mid: Exact,
    /// A fraction of it.
    pub margin: Exact,
    /// What is left of it.
    pub rate: Exact,
    /// In the payer's currency.
    pub fee: i128,
    /// What the payer pays, fee included.
    pub send: i128,
    /// What the payee receives.
    pub receive: i128,
    /// What the cut to whole hundredths leaves with the gateway, in units of the payee's currency.
    pub remainder: Exact,
    /// ISO 8601.
    pub rate_date: String,
}

/// The amount that the caller names, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// The payer pays this, fee included.
    Send(i128),
    /// The payee receives this.
    Receive(i128),
}

impl Deal {
    /// Works it out.
    pub fn new(day: &Day, payer: Wallet, payee: Wallet, fixed: Fixed) -> Result<Deal, DemoError> {
        let corridor = CORRIDORS
            .iter()
            .find(|corridor| (corridor.from, corridor.to) == (payer.network, payee.network))
            .ok_or(DemoError::NoCorridor { payer, payee })?;
        let payer_per_euro = day.per_euro(payer.network.currency())?;
        let payee_per_euro = day.per_euro(payee.network.currency())?;
        let (margin, fee) = (Exact::parse(corridor.margin)?, hundredths(corridor.fee)?);
        let mid = cross(payer_per_euro, payee_per_euro)?;
        let rate = less_margin(mid, margin)?;
        let (send, receive, remainder) = match fixed {
            Fixed::Send(send) => {
                let (receive, remainder) = bought(send - fee, rate)?;
                (send, receive, remainder)
            }
            Fixed::Receive(receive) => {
                let (net, remainder) = needed(receive, rate)?;
                (net + fee, receive, remainder)
            }
        };
        Ok(Deal {
            payer,
            payee,
            fixed,
            payer_per_euro,
            payee_per_euro,
            mid,
            margin,
            rate,
            fee,
            send,
            receive,
            remainder,
            rate_date: day.published.to_string(),
        })
    }

    /// "100.00 USD", in the payer's currency.
    pub fn sent(&self, amount: i128) -> String {
        format!("{} {}", print(amount), self.payer.network.currency())
    }

    /// "607.99 CNY", in the payee's currency.
    pub fn received(&self, amount: i128) -> String {
        format!("{} {}", print(amount), self.payee.network.currency())
    }

    /// The request for a quote.
    pub fn quote(&self) -> gateway::Quote {
        gateway::Quote {
            corridor: Some(gateway::Corridor {
                source_partner: self.payer.network.resource(),
                source_currency: self.payer.network.currency().into(),
                target_partner: self.payee.network.resource(),
                target_currency: self.payee.network.currency().into(),
            }),
            payer_account: self.payer.account.into(),
            payee_account: self.payee.account.into(),
            fixed_side: self.fixed_side().into(),
            amount: Some(self.fixed_amount()),
            ..Default::default()
        }
    }

    /// The request for the payment, by a quote.
    pub fn request_by_quote(&self, request_id: &str, quote: &str) -> gateway::CreatePaymentRequest {
        self.request(request_id, gateway::payment::Pricing::Quote(quote.to_owned()))
    }

    /// The request for the payment, at the market: at no worse a rate than we worked out.
    pub fn request_at_market(&self, request_id: &str) -> gateway::CreatePaymentRequest {
        let order = gateway::payment::MarketOrder {
            fixed_side: self.fixed_side().into(),
            amount: Some(self.fixed_amount()),
            worst_rate: self.rate.to_string(),
            source_currency: self.payer.network.currency().into(),
            target_currency: self.payee.network.currency().into(),
        };
        self.request(request_id, gateway::payment::Pricing::Market(order))
    }

    fn request(&self, request_id: &str, pricing: gateway::payment::Pricing) -> gateway::CreatePaymentRequest {
        let party = |wallet: Wallet| gateway::Party {
            partner: wallet.network.resource(),
            account: wallet.account.into(),
        };
        gateway::CreatePaymentRequest {
            payment: Some(Box::new(gateway::Payment {
                payer: Some(party(self.payer)),
                payee: Some(party(self.payee)),
                pricing: Some(pricing),
                ..Default::default()
            })),
            request_id: request_id.to_owned(),
            ..Default::default()
        }
    }

    fn fixed_side(&self) -> gateway::FixedSide {
        match self.fixed {
            Fixed::Send(_) => gateway::FixedSide::Send,
            Fixed::Receive(_) => gateway::FixedSide::Receive,
        }
    }

    fn fixed_amount(&self) -> Money {
        let (amount, wallet) = match self.fixed {
            Fixed::Send(amount) => (amount, self.payer),
            Fixed::Receive(amount) => (amount, self.payee),
        };
        Money {
            currency: wallet.network.currency().into(),
            amount: print(amount),
        }
    }

    /// Where the gateway's conversion is not ours, in words.
    pub fn differences(
        &self,
        conversion: Option<&gateway::Conversion>,
        origin: Option<&gateway::RateOrigin>,
    ) -> Vec<String> {
        let Some(conversion) = conversion else {
            return vec!["the gateway shows no amounts".into()];
        };
        let mut differences = Vec::new();
        let mut number = |what: &str, ours: Exact, theirs: &str| {
            if Exact::parse(theirs) != Ok(ours) {
                differences.push(format!("{what}: the gateway says {theirs}, our own sum is {ours}"));
            }
        };
        number("mid rate", self.mid, &conversion.mid_rate);
        number("margin", self.margin, &conversion.margin);
        number("rate", self.rate, &conversion.rate);
        number("remainder", self.remainder, &conversion.remainder);
        let mut amount = |what: &str, ours: i128, wallet: Wallet, theirs: Option<&Money>| {
            if !is(theirs, ours, wallet) {
                let theirs = theirs.map_or_else(
                    || "nothing".into(),
                    |money| format!("{} {}", money.amount, money.currency),
                );
                let ours = format!("{} {}", print(ours), wallet.network.currency());
                differences.push(format!("{what}: the gateway says {theirs}, our own sum is {ours}"));
            }
        };
        amount("amount paid", self.send, self.payer, conversion.send_amount.as_ref());
        amount(
            "amount received",
            self.receive,
            self.payee,
            conversion.receive_amount.as_ref(),
        );
        amount("fee", self.fee, self.payer, conversion.fee.as_ref());
        let date = origin.map_or("none", |origin| &origin.date);
        if date != self.rate_date {
            differences.push(format!(
                "day of the rate: the gateway says {date}, it is {}",
                self.rate_date
            ));
        }
        differences
    }
}

/// Whether it is that amount in the wallet's currency.
pub fn is(money: Option<&Money>, amount: i128, wallet: Wallet) -> bool {
    let read = |money: &Money| -> Result<i128, BadNumber> { hundredths(&money.amount) };
    money.is_some_and(|money| money.currency == wallet.network.currency() && read(money) == Ok(amount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cast::{ALICE, LI_WEI};

    fn deal(fixed: Fixed) -> Deal {
        Deal::new(&"2014-10-28".parse().unwrap(), ALICE, LI_WEI, fixed).unwrap()
    }

    fn conversion() -> gateway::Conversion {
        let money = |amount: &str, currency: &str| {
            Some(Money {
                currency: currency.into(),
                amount: amount.into(),
            })
        };
        gateway::Conversion {
            send_amount: money("100.00", "USD"),
            receive_amount: money("607.99", "CNY"),
            fee: money("0.30", "USD"),
            mid_rate: "6.11350800126".into(),
            margin: "0.0025".into(),
            rate: "6.09822423125".into(),
            remainder: "0.002955855625".into(),
        }
    }

    fn origin() -> gateway::RateOrigin {
        gateway::RateOrigin {
            source: "European Central Bank".into(),
            date: "2014-10-28".into(),
        }
    }

    #[test]
    fn either_side_may_be_fixed() {
        for fixed in [Fixed::Send(10_000), Fixed::Receive(60_799)] {
            let deal = deal(fixed);
            assert_eq!((deal.send, deal.receive, deal.fee), (10_000, 60_799, 30));
            assert_eq!(deal.differences(Some(&conversion()), Some(&origin())), [""; 0]);
        }
    }

    #[test]
    fn every_difference_is_named() {
        let mut other = conversion();
        other.mid_rate = "6.1".into();
        other.margin = "0".into();
        other.rate = "6.1".into();
        other.remainder = "0".into();
        other.send_amount = None;
        other.receive_amount.as_mut().unwrap().amount = "608.00".into();
        other.fee.as_mut().unwrap().currency = "CNY".into();
        let differences = deal(Fixed::Send(10_000)).differences(Some(&other), None);
        assert_eq!(differences.len(), 8, "{differences:?}");
        assert_eq!(
            differences[5],
            "amount received: the gateway says 608.00 CNY, our own sum is 607.99 CNY"
        );
        assert_eq!(deal(Fixed::Send(10_000)).differences(None, None).len(), 1);
    }
}
