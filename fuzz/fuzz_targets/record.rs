//! The store's records and quotes: what decodes is written back the same, and its conversion adds up.
#![no_main]

use causeway::{
    coordinator::protocol::{Event, Record, State, fold},
    fuzzing::{decode_quote, decode_record, encode_quote, encode_record},
    money::{Conversion, MAX_MINOR},
    payment::{PaymentId, QuoteId},
};
use libfuzzer_sys::fuzz_target;
use rust_decimal::Decimal;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let bytes = [7; 16];
    if first & 1 == 0 {
        let id = PaymentId::from_bytes(bytes);
        if let Ok(record) = decode_record(id, rest) {
            check_record(id, &record);
        }
    } else {
        let id = QuoteId::from_bytes(bytes);
        if let Ok(quote) = decode_quote(id, rest) {
            check_conversion(&quote.conversion);
            assert_eq!(decode_quote(id, &encode_quote(&quote)).as_ref(), Ok(&quote));
        }
    }
});

fn check_record(id: PaymentId, record: &Record) {
    if let Event::Begun(terms) = &record.event {
        assert_eq!(terms.id, id);
        check_conversion(&terms.conversion);
        assert_eq!(
            (terms.branches[0].amount, terms.branches[1].amount),
            (terms.conversion.send, terms.conversion.receive)
        );
        assert!(matches!(fold([record]), Ok(State::Present(_))));
    } else {
        // Nothing but a beginning begins.
        assert!(fold([record]).is_err());
    }
    assert_eq!(decode_record(id, &encode_record(record)).as_ref(), Ok(record));
}

/// `(send - fee) x rate = receive + remainder`, digit for digit, computed here in the units of the decimals themselves.
fn check_conversion(conversion: &Conversion) {
    for amount in [conversion.send, conversion.receive, conversion.fee] {
        assert!(amount.minor() <= MAX_MINOR);
    }
    let decimal = |text: String| Decimal::from_str_exact(&text).expect("a decimal");
    let net = decimal(conversion.send.decimal_string()) - decimal(conversion.fee.decimal_string());
    let product = net
        .checked_mul(decimal(conversion.rate.value_string()))
        .expect("it fits");
    let sum = decimal(conversion.receive.decimal_string()) + decimal(conversion.remainder_string());
    assert_eq!(product.normalize(), sum.normalize(), "{conversion:?}");
}
