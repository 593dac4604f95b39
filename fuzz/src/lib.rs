//! What the targets share.

pub mod rates;

use std::sync::Arc;

use causeway::{
    money::{Amount, Conversion, Currency, Margin, Pricing, Rate},
    payment::{
        AccountId, MarketOrder, Order, OrderPricing, PartnerName, Party, PaymentId, RateOrigin, RequestId, Terms,
    },
};
use tonic::Status;
use tonic_types::StatusExt;

/// How long an error's message may be, whatever the caller wrote: 80 of its characters, each escaped, and what is said of
/// them.
pub const MESSAGE_CHARS_MAX: usize = 1_000;
/// How large a whole status may become: every field of a request is named at most once.
pub const DETAILS_BYTES_MAX: usize = 16 << 10;

/// A refusal names a field, and repeats no more of the request than a reader needs.
pub fn check_refusal(status: &Status) {
    assert!(!status.message().is_empty());
    assert!(
        status.message().chars().count() <= MESSAGE_CHARS_MAX,
        "{} characters",
        status.message().len()
    );
    assert!(
        !status.message().contains(|c: char| c.is_control()),
        "{:?}",
        status.message()
    );
    assert!(
        status.details().len() <= DETAILS_BYTES_MAX,
        "{} bytes",
        status.details().len()
    );
    let details = status.get_error_details();
    let request = details.bad_request().expect("a refusal says which fields");
    assert!(!request.field_violations.is_empty());
    for violation in &request.field_violations {
        assert!(!violation.field.is_empty() && !violation.description.is_empty());
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '[' | ']');
        assert!(violation.field.chars().all(named), "{:?}", violation.field);
        assert!(
            violation.description.chars().count() <= MESSAGE_CHARS_MAX,
            "{}",
            violation.description.len()
        );
    }
}

/// A payment to ask about.
pub fn terms() -> Arc<Terms> {
    let party = |partner: &str, account: &str| Party {
        partner: PartnerName::parse(partner).expect("a name"),
        account: AccountId::parse(account).expect("an account"),
    };
    let rate = Rate::parse(Currency::USD, Currency::CNY, "6.1").expect("a rate");
    let amount = Amount::parse(Currency::USD, "10.00").expect("an amount");
    let order = Order {
        request_id: RequestId::parse("r-1").expect("an id"),
        payer: party("apple-pay", "alice"),
        payee: party("alipay", "bob"),
        pricing: OrderPricing::Market(MarketOrder {
            fixed_send: true,
            amount,
            worst_rate: rate,
        }),
    };
    let pricing = Pricing {
        mid: rate,
        margin: Margin::ZERO,
        fee: Amount::zero(Currency::USD),
    };
    let conversion = Conversion::fixed_send(amount, &pricing).expect("it converts");
    let initiator = order.payer.partner.clone();
    Arc::new(Terms {
        id: PaymentId::derive(&initiator, &order.request_id),
        initiator,
        branches: Terms::legs(&order, &conversion),
        order,
        conversion,
        origin: RateOrigin {
            source: "European Central Bank".into(),
            date: "2014-10-28".into(),
        },
        begin_ms: 0,
        decide_by_ms: 60_000,
        hold_expire_ms: 120_000,
    })
}

/// A text, or nothing to do.
pub fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
