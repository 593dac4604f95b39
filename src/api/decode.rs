//! Requests to parsed values. Every wrong field is named, not only the first.

use super::status::{ApiError, ErrorReason, Violation, money_reason};
use crate::{
    money::{Amount, Currency, Rate},
    payment::{
        AccountId, MarketOrder, NameError, Order, OrderPricing, PartnerName, Party, PaymentId, QuoteId, RequestId,
    },
    pb::{
        gateway::v1::{self as pb, FixedSide},
        money::v1::Money,
    },
};

/// How much of a wrong value goes back to the caller.
const FOUND_CHARS_MAX: usize = 80;

/// A quote to make, as asked.
pub struct QuoteOrder {
    pub source_partner: PartnerName,
    pub target_partner: PartnerName,
    pub payer_account: Option<AccountId>,
    pub payee_account: Option<AccountId>,
    pub pair: Pair,
    pub fixed_send: bool,
    pub amount: Amount,
}

/// An ordered pair of currencies.
#[derive(Clone, Copy)]
pub struct Pair {
    pub source: Currency,
    pub target: Currency,
}

/// `CreatePaymentRequest` without its options.
pub fn order(request: &pb::CreatePaymentRequest) -> Result<Order, ApiError> {
    let mut fields = Fields::default();
    let request_id = fields.name("request_id", &request.request_id, RequestId::parse);
    let empty = pb::Payment::default();
    let payment = match &request.payment {
        Some(payment) => &**payment,
        None => {
            fields.add(ErrorReason::FieldMissing, "payment", "is missing");
            return Err(fields.refuse());
        }
    };
    // Listed by name, so that a new output-only field is not forgotten here.
    let pb::Payment {
        name,
        request_id: output_request_id,
        initiator,
        payer,
        payee,
        pricing,
        conversion,
        rate_origin,
        state,
        outcome,
        branches,
        create_time,
        decide_by_time,
        decide_time,
        end_time,
    } = payment;
    fields.output_only("payment.name", *name == empty.name);
    fields.output_only("payment.request_id", *output_request_id == empty.request_id);
    fields.output_only("payment.initiator", *initiator == empty.initiator);
    fields.output_only("payment.conversion", conversion.is_none());
    fields.output_only("payment.rate_origin", rate_origin.is_none());
    fields.output_only("payment.state", *state == empty.state);
    fields.output_only("payment.outcome", outcome.is_none());
    fields.output_only("payment.branches", branches.is_empty());
    fields.output_only("payment.create_time", create_time.is_none());
    fields.output_only("payment.decide_by_time", decide_by_time.is_none());
    fields.output_only("payment.decide_time", decide_time.is_none());
    fields.output_only("payment.end_time", end_time.is_none());

    let payer = fields.party("payment.payer", payer.as_ref());
    let payee = fields.party("payment.payee", payee.as_ref());
    let pricing = match pricing {
        None => {
            fields.add(
                ErrorReason::FieldMissing,
                "payment.pricing",
                "neither quote nor market is set",
            );
            None
        }
        Some(pb::payment::Pricing::Quote(name)) => fields
            .resource("payment.quote", name, "quotes/{quote}", QuoteId::parse_name)
            .map(OrderPricing::Quote),
        Some(pb::payment::Pricing::Market(market)) => fields.market("payment.market", market).map(OrderPricing::Market),
    };
    if let (Some(payer), Some(payee)) = (&payer, &payee)
        && payer == payee
    {
        fields.add(
            ErrorReason::SameAccount,
            "payment.payee.account",
            "is the payer's own account",
        );
    }
    match (request_id, payer, payee, pricing) {
        (Some(request_id), Some(payer), Some(payee), Some(pricing)) if fields.violations.is_empty() => Ok(Order {
            request_id,
            payer,
            payee,
            pricing,
        }),
        _ => Err(fields.refuse()),
    }
}

/// `CreateQuoteRequest`.
pub fn quote_order(request: &pb::CreateQuoteRequest) -> Result<QuoteOrder, ApiError> {
    let mut fields = Fields::default();
    let Some(quote) = &request.quote else {
        fields.add(ErrorReason::FieldMissing, "quote", "is missing");
        return Err(fields.refuse());
    };
    let pb::Quote {
        name,
        corridor,
        payer_account,
        payee_account,
        fixed_side,
        amount,
        conversion,
        rate_origin,
        create_time,
        expire_time,
        payment,
    } = quote;
    fields.output_only("quote.name", name.is_empty());
    fields.output_only("quote.conversion", conversion.is_none());
    fields.output_only("quote.rate_origin", rate_origin.is_none());
    fields.output_only("quote.create_time", create_time.is_none());
    fields.output_only("quote.expire_time", expire_time.is_none());
    fields.output_only("quote.payment", payment.is_empty());
    let ends = match corridor {
        None => {
            fields.add(ErrorReason::FieldMissing, "quote.corridor", "is missing");
            None
        }
        Some(corridor) => {
            let source_partner = fields.partner("quote.corridor.source_partner", &corridor.source_partner);
            let target_partner = fields.partner("quote.corridor.target_partner", &corridor.target_partner);
            let source = fields.currency("quote.corridor.source_currency", &corridor.source_currency);
            let target = fields.currency("quote.corridor.target_currency", &corridor.target_currency);
            source_partner.zip(target_partner).zip(source.zip(target))
        }
    };
    let payer_account = fields.optional("quote.payer_account", payer_account, AccountId::parse);
    let payee_account = fields.optional("quote.payee_account", payee_account, AccountId::parse);
    if let (Some(((source, target), _)), Some(payer), Some(payee)) = (&ends, &payer_account, &payee_account)
        && source == target
        && payer == payee
    {
        fields.add(
            ErrorReason::SameAccount,
            "quote.payee_account",
            "is the payer's own account",
        );
    }
    let fixed_send = fields.fixed_side("quote.fixed_side", *fixed_side);
    let pair = ends.as_ref().map(|(_, (source, target))| Pair {
        source: *source,
        target: *target,
    });
    let amount = fields.fixed_amount("quote.amount", amount.as_ref(), fixed_send, pair);
    match (ends, pair, fixed_send, amount) {
        (Some(((source_partner, target_partner), _)), Some(pair), Some(fixed_send), Some(amount))
            if fields.violations.is_empty() =>
        {
            Ok(QuoteOrder {
                source_partner,
                target_partner,
                payer_account,
                payee_account,
                pair,
                fixed_send,
                amount,
            })
        }
        _ => Err(fields.refuse()),
    }
}

/// `payments/{payment}` in a request's field.
pub fn payment_name(field: &str, text: &str) -> Result<PaymentId, ApiError> {
    let mut fields = Fields::default();
    let id = fields.resource(field, text, "payments/{payment}", PaymentId::parse_name);
    id.ok_or_else(|| fields.refuse())
}

/// `quotes/{quote}` in a request's field.
pub fn quote_name(field: &str, text: &str) -> Result<QuoteId, ApiError> {
    let mut fields = Fields::default();
    let id = fields.resource(field, text, "quotes/{quote}", QuoteId::parse_name);
    id.ok_or_else(|| fields.refuse())
}

/// `rates/USD-CNY` in a request's field.
pub fn rate_name(field: &str, text: &str) -> Result<Pair, ApiError> {
    let mut fields = Fields::default();
    let codes = fields.resource(field, text, "rates/{source}-{target}", |text| {
        let (source, target) = text.strip_prefix("rates/")?.split_once('-')?;
        Some((source.to_owned(), target.to_owned()))
    });
    let pair = codes.and_then(|(source, target)| {
        let (source, target) = (fields.currency(field, &source), fields.currency(field, &target));
        Some(Pair {
            source: source?,
            target: target?,
        })
    });
    pair.ok_or_else(|| fields.refuse())
}

/// An ISO 4217 code in a request's field; empty is `None`.
pub fn optional_currency(field: &str, code: &str) -> Result<Option<Currency>, ApiError> {
    if code.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields::default();
    fields.currency(field, code).map(Some).ok_or_else(|| fields.refuse())
}

/// Gathers what is wrong.
#[derive(Default)]
struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    fn add(&mut self, reason: ErrorReason, field: &str, description: impl Into<String>) {
        self.violations.push(Violation {
            reason,
            field: field.into(),
            description: description.into(),
        });
    }

    fn refuse(self) -> ApiError {
        ApiError::fields(self.violations)
    }

    fn output_only(&mut self, field: &str, is_empty: bool) {
        if !is_empty {
            self.add(
                ErrorReason::FieldOutputOnly,
                field,
                "is set by the server; leave it empty",
            );
        }
    }

    fn name<T>(&mut self, field: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, NameError>) -> Option<T> {
        match parse(text) {
            Ok(name) => Some(name),
            Err(error) => {
                let reason = match error {
                    NameError::Empty { .. } => ErrorReason::FieldMissing,
                    NameError::TooLong { .. } | NameError::Character { .. } => ErrorReason::FieldInvalid,
                };
                self.add(reason, field, error.to_string());
                None
            }
        }
    }

    fn optional<T>(&mut self, field: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, NameError>) -> Option<T> {
        if text.is_empty() {
            None
        } else {
            self.name(field, text, parse)
        }
    }

    fn resource<T>(&mut self, field: &str, text: &str, form: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if text.is_empty() {
            self.add(
                ErrorReason::FieldMissing,
                field,
                format!("is empty; a name of the form {form}"),
            );
            return None;
        }
        let parsed = parse(text);
        if parsed.is_none() {
            self.add(
                ErrorReason::FieldInvalid,
                field,
                format!("is {:?}; a name of the form {form}, as the server gave it", found(text)),
            );
        }
        parsed
    }

    fn partner(&mut self, field: &str, text: &str) -> Option<PartnerName> {
        let name = self.resource(field, text, "partners/{partner}", |text| {
            text.strip_prefix(PartnerName::COLLECTION).map(str::to_owned)
        })?;
        self.name(field, &name, PartnerName::parse)
    }

    fn party(&mut self, field: &str, party: Option<&pb::Party>) -> Option<Party> {
        let Some(party) = party else {
            self.add(ErrorReason::FieldMissing, field, "is missing");
            return None;
        };
        let partner = self.partner(&format!("{field}.partner"), &party.partner);
        let account = self.name(&format!("{field}.account"), &party.account, AccountId::parse);
        Some(Party {
            partner: partner?,
            account: account?,
        })
    }

    fn currency(&mut self, field: &str, code: &str) -> Option<Currency> {
        if code.is_empty() {
            self.add(
                ErrorReason::FieldMissing,
                field,
                "is empty; a code of ISO 4217, such as USD",
            );
            return None;
        }
        match Currency::parse(code) {
            Ok(currency) => Some(currency),
            Err(_) => {
                let description = format!("is {:?}; a code of ISO 4217, such as USD", found(code));
                self.add(ErrorReason::CurrencyUnknown, field, description);
                None
            }
        }
    }

    fn fixed_side(&mut self, field: &str, value: i32) -> Option<bool> {
        match FixedSide::try_from(value) {
            Ok(FixedSide::Send) => Some(true),
            Ok(FixedSide::Receive) => Some(false),
            Ok(FixedSide::Unspecified) => {
                self.add(
                    ErrorReason::FieldMissing,
                    field,
                    "is missing; FIXED_SIDE_SEND or FIXED_SIDE_RECEIVE",
                );
                None
            }
            Err(_) => {
                let description = format!("is {value}; FIXED_SIDE_SEND or FIXED_SIDE_RECEIVE");
                self.add(ErrorReason::FieldInvalid, field, description);
                None
            }
        }
    }

    /// An amount that is more than zero.
    fn amount(&mut self, field: &str, money: Option<&Money>) -> Option<Amount> {
        let Some(money) = money else {
            self.add(ErrorReason::FieldMissing, field, "is missing");
            return None;
        };
        let currency = self.currency(&format!("{field}.currency"), &money.currency)?;
        let field = &format!("{field}.amount");
        if money.amount.is_empty() {
            self.add(
                ErrorReason::FieldMissing,
                field,
                "is empty; a decimal string such as \"12.34\"",
            );
            return None;
        }
        match Amount::parse(currency, &money.amount) {
            Ok(amount) if amount.is_zero() => {
                self.add(ErrorReason::AmountNotPositive, field, "is zero; more than zero");
                None
            }
            Ok(amount) => Some(amount),
            Err(error) => {
                self.add(money_reason(&error), field, error.to_string());
                None
            }
        }
    }

    /// The amount that a caller fixes, in the currency of the side that it fixes.
    fn fixed_amount(
        &mut self,
        field: &str,
        money: Option<&Money>,
        fixed_send: Option<bool>,
        pair: Option<Pair>,
    ) -> Option<Amount> {
        let amount = self.amount(field, money)?;
        let pair = pair?;
        let expected = if fixed_send? { pair.source } else { pair.target };
        if amount.currency() != expected {
            self.add(
                ErrorReason::CurrencyMismatch,
                &format!("{field}.currency"),
                format!("is {}; {expected}, the currency of the fixed side", amount.currency()),
            );
            return None;
        }
        Some(amount)
    }

    fn market(&mut self, field: &str, market: &pb::payment::MarketOrder) -> Option<MarketOrder> {
        let fixed_send = self.fixed_side(&format!("{field}.fixed_side"), market.fixed_side);
        let source = self.currency(&format!("{field}.source_currency"), &market.source_currency);
        let target = self.currency(&format!("{field}.target_currency"), &market.target_currency);
        let pair = source.zip(target).map(|(source, target)| Pair { source, target });
        let amount = self.fixed_amount(&format!("{field}.amount"), market.amount.as_ref(), fixed_send, pair);
        let worst_rate = pair.and_then(|pair| self.rate(&format!("{field}.worst_rate"), pair, &market.worst_rate));
        Some(MarketOrder {
            fixed_send: fixed_send?,
            amount: amount?,
            worst_rate: worst_rate?,
        })
    }

    fn rate(&mut self, field: &str, pair: Pair, text: &str) -> Option<Rate> {
        if text.is_empty() {
            self.add(
                ErrorReason::FieldMissing,
                field,
                "is empty; a decimal string such as \"6.10\"",
            );
            return None;
        }
        match Rate::parse(pair.source, pair.target, text) {
            Ok(rate) => Some(rate),
            Err(error) => {
                self.add(ErrorReason::RateInvalid, field, error.to_string());
                None
            }
        }
    }
}

fn found(text: &str) -> String {
    text.chars().take(FOUND_CHARS_MAX).collect()
}
