//! Records and quotes to bytes and back: the `causeway.store.v1` messages.

use std::sync::Arc;

use prost::Message;

use crate::{
    coordinator::protocol::{Decision, Event, Knowledge, Record},
    money::{Amount, Conversion, ConversionParts, Currency, Margin, Rate},
    payment::{
        AccountId, MarketOrder, Order, OrderPricing, Outcome, PartnerName, Party, PaymentId, Quote, QuoteId,
        RateOrigin, Reason, RequestId, Terms,
    },
    pb::store::v1 as pb,
};

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a message of this kind at all.
    #[error("not a readable message: {0}")]
    Unreadable(String),
    /// A field that is always written is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds what was never written there.
    #[error("{field} is {found:?}: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it holds.
        found: String,
        /// Why that cannot be.
        problem: String,
    },
}

impl From<prost::DecodeError> for CodecError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// The record's bytes. Panics on a volatile record, which nobody stores.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let event = match &record.event {
        Event::Begun(terms) => pb::record::Event::Begun(begun_to_pb(terms)),
        Event::Decided { decision, branches } => pb::record::Event::Decided(pb::Decided {
            commit: matches!(decision, Decision::Commit),
            outcome: match decision {
                Decision::Commit => None,
                Decision::Abort(outcome) => Some(outcome_to_pb(outcome)),
            },
            branches: notes_to_pb(branches),
        }),
        Event::Ended { branches } => pb::record::Event::Ended(pb::Ended {
            branches: notes_to_pb(branches),
        }),
        Event::Disputed { outcome, branches } => pb::record::Event::Disputed(pb::Disputed {
            outcome: Some(outcome_to_pb(outcome)),
            branches: notes_to_pb(branches),
        }),
        Event::Learned { .. } | Event::Asked { .. } | Event::Postponed { .. } => {
            unreachable!("bug: a volatile record went to the store: {}", record.event.name())
        }
    };
    pb::Record {
        at_ms: record.at_ms,
        event: Some(event),
    }
    .encode_to_vec()
}

/// The record of a payment from its bytes.
pub fn decode_record(id: PaymentId, bytes: &[u8]) -> Result<Record, CodecError> {
    let record = pb::Record::decode(bytes)?;
    let at_ms = record.at_ms;
    let event = match record.event.ok_or(CodecError::Missing("event"))? {
        pb::record::Event::Begun(begun) => Event::Begun(Arc::new(terms_from_pb(id, at_ms, begun)?)),
        pb::record::Event::Decided(decided) => Event::Decided {
            decision: if decided.commit {
                Decision::Commit
            } else {
                Decision::Abort(outcome_from_pb(
                    decided.outcome.ok_or(CodecError::Missing("decided.outcome"))?,
                )?)
            },
            branches: notes_from_pb(decided.branches)?,
        },
        pb::record::Event::Ended(ended) => Event::Ended {
            branches: notes_from_pb(ended.branches)?,
        },
        pb::record::Event::Disputed(disputed) => Event::Disputed {
            outcome: outcome_from_pb(disputed.outcome.ok_or(CodecError::Missing("disputed.outcome"))?)?,
            branches: notes_from_pb(disputed.branches)?,
        },
    };
    Ok(Record { at_ms, event })
}

/// The quote's bytes.
pub fn encode_quote(quote: &Quote) -> Vec<u8> {
    let account = |account: &Option<AccountId>| account.as_ref().map(ToString::to_string).unwrap_or_default();
    pb::Quote {
        owner: quote.owner.to_string(),
        source_partner: quote.source_partner.to_string(),
        target_partner: quote.target_partner.to_string(),
        payer_account: account(&quote.payer_account),
        payee_account: account(&quote.payee_account),
        fixed_send: quote.fixed_send,
        conversion: Some(conversion_to_pb(&quote.conversion)),
        origin: Some(origin_to_pb(&quote.origin)),
        create_ms: quote.create_ms,
        expire_ms: quote.expire_ms,
    }
    .encode_to_vec()
}

/// The quote from its bytes.
pub fn decode_quote(id: QuoteId, bytes: &[u8]) -> Result<Quote, CodecError> {
    let quote = pb::Quote::decode(bytes)?;
    let account = |field, text: &str| match text {
        "" => Ok(None),
        text => parse(field, text, AccountId::parse).map(Some),
    };
    Ok(Quote {
        id,
        owner: parse("owner", &quote.owner, PartnerName::parse)?,
        source_partner: parse("source_partner", &quote.source_partner, PartnerName::parse)?,
        target_partner: parse("target_partner", &quote.target_partner, PartnerName::parse)?,
        payer_account: account("payer_account", &quote.payer_account)?,
        payee_account: account("payee_account", &quote.payee_account)?,
        fixed_send: quote.fixed_send,
        conversion: conversion_from_pb(quote.conversion.ok_or(CodecError::Missing("conversion"))?)?,
        origin: origin_from_pb(quote.origin.ok_or(CodecError::Missing("origin"))?),
        create_ms: quote.create_ms,
        expire_ms: quote.expire_ms,
    })
}

fn begun_to_pb(terms: &Terms) -> pb::Begun {
    let pricing = match &terms.order.pricing {
        OrderPricing::Quote(id) => pb::pricing::Kind::Quote(id.to_string()),
        OrderPricing::Market(market) => pb::pricing::Kind::Market(pb::pricing::Market {
            fixed_send: market.fixed_send,
            amount: Some(amount_to_pb(market.amount)),
            worst_rate: market.worst_rate.value_string(),
            source_currency: market.worst_rate.base().code().into(),
            target_currency: market.worst_rate.quote().code().into(),
        }),
    };
    pb::Begun {
        initiator: terms.initiator.to_string(),
        request_id: terms.order.request_id.to_string(),
        payer: Some(party_to_pb(&terms.order.payer)),
        payee: Some(party_to_pb(&terms.order.payee)),
        pricing: Some(pb::Pricing { kind: Some(pricing) }),
        conversion: Some(conversion_to_pb(&terms.conversion)),
        origin: Some(origin_to_pb(&terms.origin)),
        decide_by_ms: terms.decide_by_ms,
        hold_expire_ms: terms.hold_expire_ms,
    }
}

fn terms_from_pb(id: PaymentId, begin_ms: i64, begun: pb::Begun) -> Result<Terms, CodecError> {
    let pricing = match begun
        .pricing
        .and_then(|pricing| pricing.kind)
        .ok_or(CodecError::Missing("pricing"))?
    {
        pb::pricing::Kind::Quote(name) => {
            OrderPricing::Quote(QuoteId::parse_name(&name).ok_or_else(|| CodecError::Invalid {
                field: "pricing.quote",
                found: name,
                problem: "not a quote's name".into(),
            })?)
        }
        pb::pricing::Kind::Market(market) => {
            let base = parse("market.source_currency", &market.source_currency, Currency::parse)?;
            let quote = parse("market.target_currency", &market.target_currency, Currency::parse)?;
            OrderPricing::Market(MarketOrder {
                fixed_send: market.fixed_send,
                amount: amount_from_pb("market.amount", market.amount)?,
                worst_rate: parse("market.worst_rate", &market.worst_rate, |text| {
                    Rate::parse(base, quote, text)
                })?,
            })
        }
    };
    let order = Order {
        request_id: parse("request_id", &begun.request_id, RequestId::parse)?,
        payer: party_from_pb("payer", begun.payer)?,
        payee: party_from_pb("payee", begun.payee)?,
        pricing,
    };
    let conversion = conversion_from_pb(begun.conversion.ok_or(CodecError::Missing("conversion"))?)?;
    Ok(Terms {
        id,
        initiator: parse("initiator", &begun.initiator, PartnerName::parse)?,
        branches: Terms::legs(&order, &conversion),
        order,
        conversion,
        origin: origin_from_pb(begun.origin.ok_or(CodecError::Missing("origin"))?),
        begin_ms,
        decide_by_ms: begun.decide_by_ms,
        hold_expire_ms: begun.hold_expire_ms,
    })
}

fn conversion_to_pb(conversion: &Conversion) -> pb::Conversion {
    pb::Conversion {
        send: Some(amount_to_pb(conversion.send)),
        receive: Some(amount_to_pb(conversion.receive)),
        fee: Some(amount_to_pb(conversion.fee)),
        mid_rate: conversion.mid.value_string(),
        margin: conversion.margin.as_string(),
        rate: conversion.rate.value_string(),
        remainder: conversion.remainder_string(),
    }
}

fn conversion_from_pb(conversion: pb::Conversion) -> Result<Conversion, CodecError> {
    let send = amount_from_pb("send", conversion.send)?;
    let receive = amount_from_pb("receive", conversion.receive)?;
    let rate = |field, text: &str| {
        parse(field, text, |text| {
            Rate::parse(send.currency(), receive.currency(), text)
        })
    };
    let parts = ConversionParts {
        send,
        receive,
        fee: amount_from_pb("fee", conversion.fee)?,
        mid: rate("mid_rate", &conversion.mid_rate)?,
        margin: parse("margin", &conversion.margin, Margin::parse)?,
        rate: rate("rate", &conversion.rate)?,
        remainder: &conversion.remainder,
    };
    // The invariant is checked again on the way in: a conversion that does not add up was not written by us.
    Conversion::restore(parts).map_err(|problem| CodecError::Invalid {
        field: "conversion",
        found: conversion.remainder.clone(),
        problem: problem.to_string(),
    })
}

fn amount_to_pb(amount: Amount) -> pb::Amount {
    pb::Amount {
        currency: amount.currency().code().into(),
        minor: amount.minor(),
    }
}

fn amount_from_pb(field: &'static str, amount: Option<pb::Amount>) -> Result<Amount, CodecError> {
    let amount = amount.ok_or(CodecError::Missing(field))?;
    let currency = parse(field, &amount.currency, Currency::parse)?;
    Amount::from_minor(currency, amount.minor).map_err(|problem| CodecError::Invalid {
        field,
        found: amount.minor.to_string(),
        problem: problem.to_string(),
    })
}

fn party_to_pb(party: &Party) -> pb::Party {
    pb::Party {
        partner: party.partner.to_string(),
        account: party.account.to_string(),
    }
}

fn party_from_pb(field: &'static str, party: Option<pb::Party>) -> Result<Party, CodecError> {
    let party = party.ok_or(CodecError::Missing(field))?;
    Ok(Party {
        partner: parse(field, &party.partner, PartnerName::parse)?,
        account: parse(field, &party.account, AccountId::parse)?,
    })
}

fn origin_to_pb(origin: &RateOrigin) -> pb::RateOrigin {
    pb::RateOrigin {
        source: origin.source.clone(),
        date: origin.date.clone(),
    }
}

fn origin_from_pb(origin: pb::RateOrigin) -> RateOrigin {
    RateOrigin {
        source: origin.source,
        date: origin.date,
    }
}

fn outcome_to_pb(outcome: &Outcome) -> pb::Outcome {
    pb::Outcome {
        reason: outcome.reason.name().into(),
        code: outcome.code.clone(),
        detail: outcome.detail.clone(),
        partner: outcome.partner.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn outcome_from_pb(outcome: pb::Outcome) -> Result<Outcome, CodecError> {
    Ok(Outcome {
        reason: Reason::from_name(&outcome.reason).ok_or_else(|| CodecError::Invalid {
            field: "outcome.reason",
            found: outcome.reason,
            problem: "not a reason that this version knows".into(),
        })?,
        code: outcome.code,
        detail: outcome.detail,
        partner: match outcome.partner.as_str() {
            "" => None,
            name => Some(parse("outcome.partner", name, PartnerName::parse)?),
        },
    })
}

fn notes_to_pb(branches: &[Knowledge]) -> Vec<pb::BranchNote> {
    branches
        .iter()
        .map(|knowledge| {
            let state = match knowledge {
                Knowledge::Unknown => pb::branch_note::State::Unknown,
                Knowledge::Prepared { .. } => pb::branch_note::State::Prepared,
                Knowledge::Refused => pb::branch_note::State::Refused,
                Knowledge::Committed { .. } => pb::branch_note::State::Committed,
                Knowledge::Aborted => pb::branch_note::State::Aborted,
                Knowledge::Contradicted => pb::branch_note::State::Contradicted,
            };
            pb::BranchNote {
                state: state.into(),
                reference: knowledge.reference().into(),
            }
        })
        .collect()
}

fn notes_from_pb(notes: Vec<pb::BranchNote>) -> Result<Vec<Knowledge>, CodecError> {
    notes
        .into_iter()
        .map(|note| {
            let reference = note.reference.as_str().into();
            Ok(match note.state() {
                pb::branch_note::State::Unknown => Knowledge::Unknown,
                pb::branch_note::State::Prepared => Knowledge::Prepared { reference },
                pb::branch_note::State::Refused => Knowledge::Refused,
                pb::branch_note::State::Committed => Knowledge::Committed { reference },
                pb::branch_note::State::Aborted => Knowledge::Aborted,
                pb::branch_note::State::Contradicted => Knowledge::Contradicted,
                pb::branch_note::State::Unspecified => {
                    return Err(CodecError::Invalid {
                        field: "branches.state",
                        found: note.state.to_string(),
                        problem: "not a state that this version knows".into(),
                    });
                }
            })
        })
        .collect()
}

fn parse<T, E: std::fmt::Display>(
    field: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, CodecError> {
    parse(text).map_err(|problem| CodecError::Invalid {
        field,
        found: text.into(),
        problem: problem.to_string(),
    })
}
