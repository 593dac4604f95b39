//! Payments, quotes and rates as the caller may see them.

use super::Caller;
use crate::{
    coordinator::protocol::{Knowledge, Phase, Transaction},
    fx,
    money::{Amount, Conversion},
    payment::{self, OrderPricing, Outcome, Party, RateOrigin, Reason, Terms},
    pb::{gateway::v1 as pb, money::v1::Money},
    store::StoredQuote,
    wire::timestamp,
};

/// A payment as this caller may see it: the initiator and operators see all, a participant its own branch only
/// (promise 12).
pub fn payment(caller: &Caller, transaction: &Transaction) -> pb::Payment {
    let mut message = terms(caller, &transaction.terms);
    let (state, decide_ms, end_ms, reason) = match &transaction.phase {
        Phase::Preparing => (pb::payment::State::Preparing, None, None, None),
        Phase::Committing { decide_ms } => (pb::payment::State::Committing, Some(*decide_ms), None, None),
        Phase::Completed { decide_ms, end_ms } => {
            (pb::payment::State::Completed, Some(*decide_ms), Some(*end_ms), None)
        }
        Phase::Aborting { outcome, decide_ms } => (pb::payment::State::Aborting, Some(*decide_ms), None, Some(outcome)),
        Phase::Aborted {
            outcome,
            decide_ms,
            end_ms,
        } => (
            pb::payment::State::Aborted,
            Some(*decide_ms),
            Some(*end_ms),
            Some(outcome),
        ),
        Phase::Disputed { outcome, decide_ms, .. } => {
            (pb::payment::State::Disputed, Some(*decide_ms), None, Some(outcome))
        }
    };
    message.state = state.into();
    message.decide_time = decide_ms.map(timestamp);
    message.end_time = end_ms.map(timestamp);
    message.outcome = reason.map(outcome);
    for (message, branch) in message.branches.iter_mut().zip(&transaction.branches) {
        message.state = branch_state(&branch.knowledge).into();
        message.reference = branch.knowledge.reference().into();
    }
    let (full, own) = view(caller, &transaction.terms);
    if !full {
        for (index, message) in message.branches.iter_mut().enumerate() {
            if !own(index) {
                message.reference.clear();
                message.state = pb::payment_branch::State::Unspecified.into();
            }
        }
        // It may hold what several networks said.
        if let (Some(shown), Some(Reason::VotingTimedOut)) =
            (&mut message.outcome, reason.map(|outcome| outcome.reason))
        {
            shown.detail.clear();
        }
        // Who it came from, but not why: that another network's customer is short of funds is nobody's business here.
        if let (Some(shown), Some(reason)) = (&mut message.outcome, reason)
            && reason.partner.as_ref() != caller.confined_to()
        {
            *shown = pb::Outcome {
                partner: std::mem::take(&mut shown.partner),
                ..pb::Outcome::default()
            };
        }
    }
    message
}

/// A payment before it has begun: no name, no state.
pub fn draft(caller: &Caller, terms_: &Terms) -> pb::Payment {
    terms(caller, terms_)
}

/// A quote; only its owner and operators come this far.
pub fn quote(stored: &StoredQuote) -> pb::Quote {
    let quote = &stored.quote;
    let account = |account: &Option<payment::AccountId>| account.as_ref().map(ToString::to_string).unwrap_or_default();
    let conversion_ = &quote.conversion;
    pb::Quote {
        name: quote.id.to_string(),
        corridor: Some(pb::Corridor {
            source_partner: quote.source_partner.resource(),
            source_currency: quote.source_currency().code().into(),
            target_partner: quote.target_partner.resource(),
            target_currency: quote.target_currency().code().into(),
        }),
        payer_account: account(&quote.payer_account),
        payee_account: account(&quote.payee_account),
        fixed_side: if quote.fixed_send {
            pb::FixedSide::Send
        } else {
            pb::FixedSide::Receive
        }
        .into(),
        amount: Some(money(if quote.fixed_send {
            conversion_.send
        } else {
            conversion_.receive
        })),
        conversion: Some(conversion(conversion_)),
        rate_origin: Some(origin(&quote.origin)),
        create_time: Some(timestamp(quote.create_ms)),
        expire_time: Some(timestamp(quote.expire_ms)),
        payment: stored.taken_by.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// A mid rate.
pub fn rate(mid: &fx::MidRate) -> pb::Rate {
    let (source, target) = (mid.rate.base().code(), mid.rate.quote().code());
    pb::Rate {
        name: format!("rates/{source}-{target}"),
        source_currency: source.into(),
        target_currency: target.into(),
        mid_rate: mid.rate.value_string(),
        origin: Some(origin(&rate_origin(&mid.origin))),
        fetch_time: Some(timestamp(mid.fetch_ms)),
        stale_time: mid.stale_ms.map(timestamp),
    }
}

/// The origin of a rate as payments and quotes keep it.
pub fn rate_origin(origin: &fx::RateOrigin) -> RateOrigin {
    RateOrigin {
        source: origin.source.to_string(),
        date: origin.date.to_string(),
    }
}

/// Whether the caller sees all of the payment, and if not, which branches.
fn view<'a>(caller: &'a Caller, terms: &'a Terms) -> (bool, impl Fn(usize) -> bool + 'a) {
    let partner = caller.confined_to();
    let full = partner.is_none_or(|partner| terms.initiator == *partner);
    (full, move |index: usize| {
        partner.is_some_and(|partner| terms.branches[index].party.partner == *partner)
    })
}

fn terms(caller: &Caller, terms: &Terms) -> pb::Payment {
    let (full, own) = view(caller, terms);
    let party = |party: &Party, index: usize| pb::Party {
        partner: party.partner.resource(),
        account: if full || own(index) {
            party.account.to_string()
        } else {
            String::new()
        },
    };
    let branches = terms
        .branches
        .iter()
        .enumerate()
        .map(|(index, branch)| {
            let shown = full || own(index);
            pb::PaymentBranch {
                branch: branch.id.name().into(),
                partner: branch.party.partner.resource(),
                account: if shown {
                    branch.party.account.to_string()
                } else {
                    String::new()
                },
                amount: shown.then(|| money(branch.amount)),
                state: pb::payment_branch::State::Unspecified.into(),
                reference: String::new(),
            }
        })
        .collect();
    pb::Payment {
        name: terms.id.to_string(),
        request_id: if full {
            terms.order.request_id.to_string()
        } else {
            String::new()
        },
        initiator: terms.initiator.resource(),
        payer: Some(party(&terms.order.payer, 0)),
        payee: Some(party(&terms.order.payee, 1)),
        pricing: full.then(|| pricing(&terms.order.pricing)),
        conversion: full.then(|| conversion(&terms.conversion)),
        rate_origin: full.then(|| origin(&terms.origin)),
        state: pb::payment::State::Unspecified.into(),
        outcome: None,
        branches,
        create_time: Some(timestamp(terms.begin_ms)),
        decide_by_time: Some(timestamp(terms.decide_by_ms)),
        decide_time: None,
        end_time: None,
    }
}

fn pricing(pricing: &OrderPricing) -> pb::payment::Pricing {
    match pricing {
        OrderPricing::Quote(id) => pb::payment::Pricing::Quote(id.to_string()),
        OrderPricing::Market(market) => pb::payment::Pricing::Market(pb::payment::MarketOrder {
            fixed_side: if market.fixed_send {
                pb::FixedSide::Send
            } else {
                pb::FixedSide::Receive
            }
            .into(),
            amount: Some(money(market.amount)),
            worst_rate: market.worst_rate.value_string(),
            source_currency: market.worst_rate.base().code().into(),
            target_currency: market.worst_rate.quote().code().into(),
        }),
    }
}

fn conversion(conversion: &Conversion) -> pb::Conversion {
    pb::Conversion {
        send_amount: Some(money(conversion.send)),
        receive_amount: Some(money(conversion.receive)),
        fee: Some(money(conversion.fee)),
        mid_rate: conversion.mid.value_string(),
        margin: conversion.margin.as_string(),
        rate: conversion.rate.value_string(),
        remainder: conversion.remainder_string(),
    }
}

fn outcome(outcome: &Outcome) -> pb::Outcome {
    pb::Outcome {
        code: outcome.code.clone(),
        reason: outcome.reason.name().into(),
        detail: outcome.detail.clone(),
        partner: outcome
            .partner
            .as_ref()
            .map(payment::PartnerName::resource)
            .unwrap_or_default(),
    }
}

fn branch_state(knowledge: &Knowledge) -> pb::payment_branch::State {
    match knowledge {
        Knowledge::Unknown => pb::payment_branch::State::Unknown,
        Knowledge::Prepared { .. } => pb::payment_branch::State::Prepared,
        Knowledge::Refused => pb::payment_branch::State::Refused,
        Knowledge::Committed { .. } => pb::payment_branch::State::Committed,
        Knowledge::Aborted => pb::payment_branch::State::Aborted,
        Knowledge::Contradicted => pb::payment_branch::State::Disputed,
    }
}

fn origin(origin: &RateOrigin) -> pb::RateOrigin {
    pb::RateOrigin {
        source: origin.source.clone(),
        date: origin.date.clone(),
    }
}

fn money(amount: Amount) -> Money {
    Money {
        currency: amount.currency().code().into(),
        amount: amount.decimal_string(),
    }
}
