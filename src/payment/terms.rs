//! What was asked and what was agreed.

use crate::money::{Amount, Conversion, Currency, Rate};

use super::{AccountId, PartnerName, PaymentId, QuoteId, RequestId};

/// An account at a partner network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// The network.
    pub partner: PartnerName,
    /// The account there.
    pub account: AccountId,
}

/// Where a mid rate came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateOrigin {
    /// The source's name.
    pub source: String,
    /// ISO 8601 calendar date for which the source published it.
    pub date: String,
}

/// What the initiator asked for: the part of a payment that a retry must repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The initiator's id of the request.
    pub request_id: RequestId,
    /// Who pays.
    pub payer: Party,
    /// Who is paid.
    pub payee: Party,
    /// How it is priced.
    pub pricing: OrderPricing,
}

/// How a payment is priced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderPricing {
    /// By a quote made before.
    Quote(QuoteId),
    /// At the rate of the moment.
    Market(MarketOrder),
}

/// An order at the rate of the moment, within a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketOrder {
    /// True if the send amount is fixed, false if the receive amount is.
    pub fixed_send: bool,
    /// The fixed amount.
    pub amount: Amount,
    /// The lowest rate, margin included, that the payer accepts. Carries the pair of currencies.
    pub worst_rate: Rate,
}

impl Order {
    /// The fields, by their path in `CreatePaymentRequest`, in which another order under the same `request_id` differs.
    /// Empty means that it is a retry. Values are compared, not spellings: they are parsed by now.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut fields = Vec::new();
        let mut compare = |same: bool, field| {
            if !same {
                fields.push(field);
            }
        };
        compare(self.payer.partner == other.payer.partner, "payment.payer.partner");
        compare(self.payer.account == other.payer.account, "payment.payer.account");
        compare(self.payee.partner == other.payee.partner, "payment.payee.partner");
        compare(self.payee.account == other.payee.account, "payment.payee.account");
        match (&self.pricing, &other.pricing) {
            (OrderPricing::Quote(a), OrderPricing::Quote(b)) => compare(a == b, "payment.quote"),
            (OrderPricing::Market(a), OrderPricing::Market(b)) => {
                compare(a.fixed_send == b.fixed_send, "payment.market.fixed_side");
                compare(a.amount == b.amount, "payment.market.amount");
                compare(
                    a.worst_rate.base() == b.worst_rate.base(),
                    "payment.market.source_currency",
                );
                compare(
                    a.worst_rate.quote() == b.worst_rate.quote(),
                    "payment.market.target_currency",
                );
                compare(
                    a.worst_rate.value() == b.worst_rate.value(),
                    "payment.market.worst_rate",
                );
            }
            (OrderPricing::Quote(_), OrderPricing::Market(_)) | (OrderPricing::Market(_), OrderPricing::Quote(_)) => {
                compare(false, "payment.quote");
                compare(false, "payment.market");
            }
        }
        fields
    }
}

/// A branch's id within its payment. Small and dense, so that state is kept in the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(u8);

impl BranchId {
    /// The payer's side.
    pub const DEBIT: Self = Self(0);
    /// The payee's side.
    pub const CREDIT: Self = Self(1);
    /// A third party's side; no corridor has one yet, the protocol takes any number.
    pub const LIQUIDITY: Self = Self(2);
    const NAMES: [&'static str; 3] = ["debit", "credit", "liquidity"];

    /// The branch at this place in [`Terms::branches`].
    pub fn at(index: usize) -> Self {
        assert!(
            index < Self::NAMES.len(),
            "a payment has at most {} branches, got {index}",
            Self::NAMES.len()
        );
        Self(index as u8)
    }

    /// The place in [`Terms::branches`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// Which way the money moves at a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Out of the customer's account.
    Debit,
    /// Into the customer's account.
    Credit,
}

/// One participant's part of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The branch.
    pub id: BranchId,
    /// Whose it is.
    pub party: Party,
    /// Which way the money moves there.
    pub direction: Direction,
    /// How much.
    pub amount: Amount,
}

/// All about a payment that never changes once it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The payment.
    pub id: PaymentId,
    /// Who asked for it.
    pub initiator: PartnerName,
    /// What was asked.
    pub order: Order,
    /// Both amounts and the rate.
    pub conversion: Conversion,
    /// Where the mid rate came from.
    pub origin: RateOrigin,
    /// The participants' parts, at the index of their ids. See [`Terms::legs`].
    pub branches: Vec<Branch>,
    /// When it began, in milliseconds since the Unix epoch.
    pub begin_ms: i64,
    /// Commit cannot be decided after this, in milliseconds since the Unix epoch.
    pub decide_by_ms: i64,
    /// The holds' lifetime: past it a participant asks, in milliseconds since the Unix epoch.
    pub hold_expire_ms: i64,
}

impl Terms {
    /// The two branches that an order and its conversion make: the payer's debit and the payee's credit.
    pub fn legs(order: &Order, conversion: &Conversion) -> Vec<Branch> {
        vec![
            Branch {
                id: BranchId::DEBIT,
                party: order.payer.clone(),
                direction: Direction::Debit,
                amount: conversion.send,
            },
            Branch {
                id: BranchId::CREDIT,
                party: order.payee.clone(),
                direction: Direction::Credit,
                amount: conversion.receive,
            },
        ]
    }

    /// Whether the partner initiated the payment or has a branch in it.
    pub fn concerns(&self, partner: &PartnerName) -> bool {
        self.initiator == *partner || self.takes_part(partner)
    }

    /// Whether the partner has a branch in the payment.
    pub fn takes_part(&self, partner: &PartnerName) -> bool {
        self.branches.iter().any(|branch| branch.party.partner == *partner)
    }
}

/// A rate pinned to two amounts until an expiry, for one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The quote.
    pub id: QuoteId,
    /// Who made it.
    pub owner: PartnerName,
    /// The paying network.
    pub source_partner: PartnerName,
    /// The receiving network.
    pub target_partner: PartnerName,
    /// The account it is bound to, if any.
    pub payer_account: Option<AccountId>,
    /// The account it is bound to, if any.
    pub payee_account: Option<AccountId>,
    /// True if the send amount was fixed, false if the receive amount was.
    pub fixed_send: bool,
    /// Both amounts and the rate.
    pub conversion: Conversion,
    /// Where the mid rate came from.
    pub origin: RateOrigin,
    /// When it was made, in milliseconds since the Unix epoch.
    pub create_ms: i64,
    /// No payment is decided on it from this instant on, in milliseconds since the Unix epoch.
    pub expire_ms: i64,
}

impl Quote {
    /// Currency of the payer.
    pub fn source_currency(&self) -> Currency {
        self.conversion.send.currency()
    }

    /// Currency of the payee.
    pub fn target_currency(&self) -> Currency {
        self.conversion.receive.currency()
    }

    /// The fields, by their path in `CreatePaymentRequest`, in which a payment is not what the quote is for.
    pub fn mismatches(&self, order: &Order) -> Vec<&'static str> {
        let mut fields = Vec::new();
        if self.source_partner != order.payer.partner {
            fields.push("payment.payer.partner");
        }
        if self
            .payer_account
            .as_ref()
            .is_some_and(|account| *account != order.payer.account)
        {
            fields.push("payment.payer.account");
        }
        if self.target_partner != order.payee.partner {
            fields.push("payment.payee.partner");
        }
        if self
            .payee_account
            .as_ref()
            .is_some_and(|account| *account != order.payee.account)
        {
            fields.push("payment.payee.account");
        }
        fields
    }
}
