//! `CreatePaymentRequest`: what decodes is within bounds and means the same when it is written again; what does not
//! decode is refused with the fields that are wrong.
#![no_main]

use causeway::{
    fuzzing::{malformed_path, order},
    money::MAX_MINOR,
    payment::{Order, OrderPricing, Party},
    pb::{
        gateway::v1::{self as pb, FixedSide},
        money::v1::Money,
    },
};
use causeway_fuzz::check_refusal;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let request = match pb::CreatePaymentRequest::decode(data) {
        Ok(request) => request,
        Err(error) => {
            // The field's path is read from what prost says.
            if let Some(path) = malformed_path(&error.to_string()) {
                assert!(!path.is_empty() && path.len() < 200, "{path}");
            }
            return;
        }
    };
    match order(&request) {
        Ok(parsed) => {
            assert_ne!(parsed.payer, parsed.payee);
            if let OrderPricing::Market(market) = &parsed.pricing {
                assert!((1..=MAX_MINOR).contains(&market.amount.minor()));
                let fixed = if market.fixed_send {
                    market.worst_rate.base()
                } else {
                    market.worst_rate.quote()
                };
                assert_eq!(market.amount.currency(), fixed);
            }
            let again = encode(&parsed);
            assert_eq!(order(&again).as_ref().ok(), Some(&parsed));
            assert!(order(&again).expect("it was an order").differences(&parsed).is_empty());
        }
        Err(error) => check_refusal(&error.into()),
    }
});

fn encode(order: &Order) -> pb::CreatePaymentRequest {
    let party = |party: &Party| {
        Some(pb::Party {
            partner: format!("partners/{}", party.partner),
            account: party.account.to_string(),
        })
    };
    let pricing = match &order.pricing {
        OrderPricing::Quote(id) => pb::payment::Pricing::Quote(id.to_string()),
        OrderPricing::Market(market) => pb::payment::Pricing::Market(pb::payment::MarketOrder {
            fixed_side: if market.fixed_send {
                FixedSide::Send
            } else {
                FixedSide::Receive
            }
            .into(),
            amount: Some(Money {
                currency: market.amount.currency().code().into(),
                amount: market.amount.decimal_string(),
            }),
            worst_rate: market.worst_rate.value_string(),
            source_currency: market.worst_rate.base().code().into(),
            target_currency: market.worst_rate.quote().code().into(),
        }),
    };
    pb::CreatePaymentRequest {
        payment: Some(Box::new(pb::Payment {
            payer: party(&order.payer),
            payee: party(&order.payee),
            pricing: Some(pricing),
            ..pb::Payment::default()
        })),
        request_id: order.request_id.to_string(),
        ..pb::CreatePaymentRequest::default()
    }
}
