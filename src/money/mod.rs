//! Money: currencies, exact amounts, rates and the one named rounding between two amounts.
//!
//! Owns what an amount is, how it is read and printed, and how one amount follows from another at a rate. Leaves to
//! others where a rate comes from (`fx`) and how it moves (`coordinator`). Called by nearly everything.
//!
//! Pure: no clock, no I/O, no randomness, no floating point.
//!
//! Invariant: of every [`Conversion`], `(send - fee) x rate = receive + remainder`, digit for digit.

mod amount;
mod conversion;
mod currency;
mod rate;
#[cfg(test)]
mod tests;

pub use amount::{Amount, MAX_MINOR};
pub use conversion::{Conversion, ConversionError, ConversionParts, Side};
pub use currency::Currency;
pub use rate::{Margin, Pricing, Rate};

/// Why a currency, an amount, a rate or a margin was refused. The party at fault is whoever supplied the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Not a code of ISO 4217 that the gateway handles. Codes are three capital letters.
    #[error("unknown currency {found:?}")]
    UnknownCurrency {
        /// What stood there, shortened.
        found: String,
    },
    /// Not a plain decimal string: a sign, a blank, an exponent, grouping, a superfluous leading zero, or a point
    /// without a digit on both sides.
    #[error("malformed amount {found:?}")]
    AmountMalformed {
        /// What stood there, shortened.
        found: String,
    },
    /// More decimals than the currency's minor unit has (ISO 4217), zeros included. Never rounded.
    #[error("too many decimals for {currency}: at most {allowed}, got {found}")]
    TooManyDecimals {
        /// The currency of the amount.
        currency: Currency,
        /// Decimals that the minor unit has.
        allowed: u32,
        /// Decimals that stood there.
        found: u32,
    },
    /// More than 15 digits when counted in minor units.
    #[error("amount in {currency} above the maximum of {MAX_MINOR} minor units")]
    TooLarge {
        /// The currency of the amount.
        currency: Currency,
    },
    /// A difference would be below zero; amounts are never negative.
    #[error("cannot take {subtrahend} from {minuend}")]
    Negative {
        /// What there is.
        minuend: Amount,
        /// What was to be taken from it.
        subtrahend: Amount,
    },
    /// Two values that must share a currency do not.
    #[error("currency mismatch: expected {expected}, got {got}")]
    CurrencyMismatch {
        /// The currency that was called for.
        expected: Currency,
        /// The currency that came.
        got: Currency,
    },
    /// Not a plain decimal string; see [`MoneyError::AmountMalformed`].
    #[error("malformed rate {found:?}")]
    RateMalformed {
        /// What stood there, shortened.
        found: String,
    },
    /// More than 12 significant digits. Never rounded.
    #[error("rate {found:?} has more than 12 significant digits")]
    RateTooPrecise {
        /// What stood there, shortened.
        found: String,
    },
    /// Zero, above 999999999999, or with a digit beyond the 24th decimal.
    #[error("rate {base}/{quote} out of range: above 0, below 10^12, at most 24 decimals")]
    RateOutOfRange {
        /// The currency that is priced.
        base: Currency,
        /// The currency in which it is priced.
        quote: Currency,
    },
    /// Not a plain decimal string.
    #[error("malformed margin {found:?}")]
    MarginMalformed {
        /// What stood there, shortened.
        found: String,
    },
    /// Not `0 <= margin < 1` with at most 6 decimals.
    #[error("margin {found:?} out of range: from 0 to below 1, at most 6 decimals")]
    MarginOutOfRange {
        /// What stood there, shortened.
        found: String,
    },
}

/// The two halves of a plain decimal string: digits, then perhaps a point and digits. `None` for anything else.
fn split_decimal(text: &str) -> Option<(&str, &str)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(halves) => halves,
        None => (text, ""),
    };
    let digits = |half: &str| half.bytes().all(|byte| byte.is_ascii_digit());
    let superfluous_zero = whole.len() > 1 && whole.starts_with('0');
    (!whole.is_empty() && !superfluous_zero && digits(whole) && digits(fraction)).then_some((whole, fraction))
}

/// What an error repeats of a stranger's text: bounded, and without control characters.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 32;
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut found: String = text.chars().take(CHARS_MAX).map(shown).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        found.push('…');
    }
    found
}

/// A power of ten. `exponent` is bounded by the scales of amounts and rates, far below the 38 that a `u128` holds.
const fn pow10(exponent: u32) -> u128 {
    10u128.pow(exponent)
}

/// How many decimal digits a number has; zero has one.
const fn digits_of(number: u128) -> u32 {
    match number.checked_ilog10() {
        Some(log) => log + 1,
        None => 1,
    }
}
