//! `CreateQuoteRequest`: what decodes is within bounds and means the same when it is written again; what does not decode is
//! refused with the fields that are wrong.
#![no_main]

use causeway::{
    fuzzing::{QuoteOrder, malformed_path, quote_order},
    money::MAX_MINOR,
    payment::AccountId,
    pb::{
        gateway::v1::{self as pb, FixedSide},
        money::v1::Money,
    },
};
use causeway_fuzz::check_refusal;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let request = match pb::CreateQuoteRequest::decode(data) {
        Ok(request) => request,
        Err(error) => {
            let _ = malformed_path(&error.to_string());
            return;
        }
    };
    match quote_order(&request) {
        Ok(order) => {
            assert!((1..=MAX_MINOR).contains(&order.amount.minor()));
            let fixed = if order.fixed_send {
                order.pair.source
            } else {
                order.pair.target
            };
            assert_eq!(order.amount.currency(), fixed);
            let again = encode(&order);
            let reread = quote_order(&again).unwrap_or_else(|error| panic!("it was an order: {error:?}"));
            assert_eq!(encode(&reread), again);
        }
        Err(error) => check_refusal(&error.into()),
    }
});

fn encode(order: &QuoteOrder) -> pb::CreateQuoteRequest {
    let account = |account: &Option<AccountId>| account.as_ref().map(ToString::to_string).unwrap_or_default();
    pb::CreateQuoteRequest {
        quote: Some(pb::Quote {
            corridor: Some(pb::Corridor {
                source_partner: format!("partners/{}", order.source_partner),
                source_currency: order.pair.source.code().into(),
                target_partner: format!("partners/{}", order.target_partner),
                target_currency: order.pair.target.code().into(),
            }),
            payer_account: account(&order.payer_account),
            payee_account: account(&order.payee_account),
            fixed_side: if order.fixed_send {
                FixedSide::Send
            } else {
                FixedSide::Receive
            }
            .into(),
            amount: Some(Money {
                currency: order.amount.currency().code().into(),
                amount: order.amount.decimal_string(),
            }),
            ..pb::Quote::default()
        }),
    }
}
