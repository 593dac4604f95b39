//! Amounts as the mock partner counts them: minor units in an `i64`.
//!
//! Deliberately shares nothing with the gateway's own money: a test that compares the two sides compares two pieces of
//! code. Invariant: what is parsed and printed again is the same amount to the last digit.

/// At most 15 digits in minor units (money.proto).
const DIGITS_MAX: usize = 15;
/// ISO 4217 list one: the currencies that do not have two decimals.
const DECIMALS: [(&str, usize); 26] = [
    ("BIF", 0),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("ISK", 0),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("PYG", 0),
    ("RWF", 0),
    ("UGX", 0),
    ("UYI", 0),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
    ("BHD", 3),
    ("IQD", 3),
    ("JOD", 3),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("TND", 3),
    ("CLF", 4),
    ("UYW", 4),
];

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AmountError {
    /// Not three capital letters.
    #[error("the currency is not three capital letters")]
    Currency,
    /// Not a plain decimal number.
    #[error("the amount is not a plain decimal number")]
    Form,
    /// More decimals than the currency has.
    #[error("the amount has more decimals than the currency")]
    Decimals,
    /// More than 15 digits.
    #[error("the amount has more than 15 digits in minor units")]
    Digits,
}

/// Checks an ISO 4217 code's form; the mock partner does not keep a list of those that exist.
pub(super) fn check_currency(currency: &str) -> Result<(), AmountError> {
    let form = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    if form { Ok(()) } else { Err(AmountError::Currency) }
}

/// "12.34" of USD is 1234. Never rounds.
pub(super) fn parse(currency: &str, amount: &str) -> Result<i64, AmountError> {
    check_currency(currency)?;
    let decimals = decimals(currency);
    let (whole, fraction) = match amount.split_once('.') {
        Some((_, "")) => return Err(AmountError::Form),
        Some(parts) => parts,
        None => (amount, ""),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let superfluous_zero = whole.len() > 1 && whole.starts_with('0');
    if !digits(whole) || !digits(fraction) || superfluous_zero || (whole.is_empty() && fraction.is_empty()) {
        return Err(AmountError::Form);
    }
    if fraction.len() > decimals {
        return Err(AmountError::Decimals);
    }
    let minor = format!("{whole}{fraction:0<decimals$}");
    let significant = minor.trim_start_matches('0');
    match significant.len() {
        0 => Ok(0),
        1..=DIGITS_MAX => significant.parse().map_err(|_| AmountError::Form),
        _ => Err(AmountError::Digits),
    }
}

/// 1234 of USD is "12.34", with all decimals of the currency, and a sign if negative.
pub(super) fn print(currency: &str, minor: i64) -> String {
    let decimals = decimals(currency);
    let sign = if minor < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

fn decimals(currency: &str) -> usize {
    DECIMALS
        .iter()
        .find(|(code, _)| *code == currency)
        .map_or(2, |(_, decimals)| *decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_parse_exactly_and_print_in_full() {
        for (currency, text, minor, printed) in [
            ("USD", "12.34", 1234, "12.34"),
            ("USD", "12.3", 1230, "12.30"),
            ("USD", "12", 1200, "12.00"),
            ("USD", "0.01", 1, "0.01"),
            ("USD", ".5", 50, "0.50"),
            ("USD", "0", 0, "0.00"),
            ("USD", "9999999999999.99", 999_999_999_999_999, "9999999999999.99"),
            ("JPY", "1234", 1234, "1234"),
            ("KRW", "0", 0, "0"),
            ("KWD", "1.234", 1234, "1.234"),
            ("BHD", "0.001", 1, "0.001"),
        ] {
            assert_eq!(parse(currency, text), Ok(minor), "{currency} {text}");
            assert_eq!(print(currency, minor), printed);
        }
        assert_eq!(print("USD", -5), "-0.05");
        assert_eq!(print("JPY", i64::MIN), "-9223372036854775808");
    }

    #[test]
    fn what_is_not_exact_is_refused() {
        for (currency, text, error) in [
            ("USD", "12.345", AmountError::Decimals),
            ("USD", "12.340", AmountError::Decimals),
            ("JPY", "1.0", AmountError::Decimals),
            ("USD", "10000000000000.00", AmountError::Digits),
            ("USD", "", AmountError::Form),
            ("USD", ".", AmountError::Form),
            ("USD", "1.", AmountError::Form),
            ("USD", "-1", AmountError::Form),
            ("USD", "+1", AmountError::Form),
            ("USD", "1e3", AmountError::Form),
            ("USD", "1,000", AmountError::Form),
            ("USD", " 1", AmountError::Form),
            ("USD", "01", AmountError::Form),
            ("USD", "1.2.3", AmountError::Form),
            ("USD", "١", AmountError::Form),
            ("usd", "1", AmountError::Currency),
            ("DOLLAR", "1", AmountError::Currency),
            ("", "1", AmountError::Currency),
        ] {
            assert_eq!(parse(currency, text), Err(error), "{currency} {text}");
        }
    }
}
