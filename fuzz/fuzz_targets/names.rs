//! Resource names and codes: each thing has one spelling.
#![no_main]

use causeway::fuzzing::{optional_currency, payment_name, quote_name, rate_name};
use causeway_fuzz::{check_refusal, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    match payment_name("name", text) {
        Ok(id) => assert_eq!(id.to_string(), text),
        Err(error) => check_refusal(&error.into()),
    }
    match quote_name("name", text) {
        Ok(id) => assert_eq!(id.to_string(), text),
        Err(error) => check_refusal(&error.into()),
    }
    match rate_name("name", text) {
        Ok(pair) => assert_eq!(format!("rates/{}-{}", pair.source, pair.target), text),
        Err(error) => check_refusal(&error.into()),
    }
    match optional_currency("currency", text) {
        Ok(None) => assert!(text.is_empty()),
        Ok(Some(currency)) => assert_eq!(currency.code(), text),
        Err(error) => check_refusal(&error.into()),
    }
});
