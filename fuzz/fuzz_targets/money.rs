//! Decimal strings of strangers: what is taken is exactly what was written, and prints in one way.
#![no_main]

use causeway::money::{Amount, Currency, MAX_MINOR, Margin, Rate};
use causeway_fuzz::{MESSAGE_CHARS_MAX, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    for currency in [
        Currency::JPY,
        Currency::USD,
        Currency::parse("KWD").expect("it has three decimals"),
    ] {
        match Amount::parse(currency, text) {
            Ok(amount) => {
                assert!(amount.minor() <= MAX_MINOR);
                assert_eq!(Amount::parse(currency, &amount.decimal_string()), Ok(amount));
                assert_eq!(Amount::from_minor(currency, amount.minor()), Ok(amount));
                same_value(text, &amount.decimal_string());
            }
            Err(error) => bounded(&error.to_string()),
        }
    }
    match Rate::parse(Currency::USD, Currency::CNY, text) {
        Ok(rate) => {
            assert_eq!(
                Rate::parse(Currency::USD, Currency::CNY, &rate.value_string()),
                Ok(rate)
            );
            same_value(text, &rate.value_string());
            // Through the base and back: a cross rate exists or is refused, never wrong by more than its rounding.
            if let Ok(cross) = Rate::cross(rate, Rate::identity(Currency::USD)) {
                assert_eq!((cross.base(), cross.quote()), (Currency::CNY, Currency::USD));
            }
        }
        Err(error) => bounded(&error.to_string()),
    }
    match Margin::parse(text) {
        Ok(margin) => {
            assert_eq!(Margin::parse(&margin.as_string()), Ok(margin));
            same_value(text, &margin.as_string());
        }
        Err(error) => bounded(&error.to_string()),
    }
    match Currency::parse(text) {
        Ok(currency) => assert_eq!(currency.code(), text),
        Err(error) => bounded(&error.to_string()),
    }
});

/// Digit for digit, but for zeros at the end of the decimals.
fn same_value(written: &str, printed: &str) {
    let plain = |text: &str| match text.split_once('.') {
        Some((whole, fraction)) => (whole.to_owned(), fraction.trim_end_matches('0').to_owned()),
        None => (text.to_owned(), String::new()),
    };
    assert_eq!(plain(written), plain(printed));
}

fn bounded(message: &str) {
    assert!(
        message.chars().count() <= MESSAGE_CHARS_MAX && !message.contains(char::is_control),
        "{message:?}"
    );
}
