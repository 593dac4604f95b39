//! The demonstration's own arithmetic, in whole numbers.
//!
//! Owns every sum that the gateway is checked against, and shares no code with the gateway's money: a test that compares
//! the two compares two opinions. All three currencies of the story have two decimals (ISO 4217), so an amount is a
//! count of hundredths.
//!
//! Invariant: nothing is rounded but where the protos say so (`party.proto`, `Conversion`), and nothing overflows
//! unnoticed.

use std::fmt;

/// Decimals of USD, CNY and EUR (ISO 4217).
const PLACES: u32 = 2;
/// One above the largest number of 12 digits: rates have at most 12 significant digits.
const RATE_DIGITS_END: i128 = 1_000_000_000_000;

/// A decimal number, not negative: `digits / 10^places`, without superfluous zeros, so that equal numbers are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    digits: i128,
    places: u32,
}

/// A number that is none, or too large to count with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot count with {what}")]
pub struct BadNumber {
    what: String,
}

fn bad(what: impl Into<String>) -> BadNumber {
    BadNumber { what: what.into() }
}

impl Exact {
    /// Reads "6.1135".
    pub fn parse(text: &str) -> Result<Exact, BadNumber> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let joined = format!("{whole}{decimals}");
        let is_number = !whole.is_empty() && joined.len() <= 36 && joined.bytes().all(|byte| byte.is_ascii_digit());
        let (true, Ok(digits), Ok(places)) = (is_number, joined.parse(), u32::try_from(decimals.len())) else {
            return Err(bad(format!("{text:?}")));
        };
        Ok(Exact::new(digits, places))
    }

    fn new(mut digits: i128, mut places: u32) -> Exact {
        while places > 0 && digits % 10 == 0 {
            digits /= 10;
            places -= 1;
        }
        Exact { digits, places }
    }

    /// As a percentage: 0.0025 is 0.25.
    pub fn percent(self) -> Exact {
        match self.places.checked_sub(2) {
            Some(places) => Exact::new(self.digits, places),
            None => Exact::new(self.digits * 10_i128.pow(2 - self.places), 0),
        }
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places as usize;
        let digits = format!("{:0>width$}", self.digits, width = places + 1);
        let (whole, decimals) = digits.split_at(digits.len() - places);
        f.write_str(whole)?;
        if !decimals.is_empty() {
            write!(f, ".{decimals}")?;
        }
        Ok(())
    }
}

/// How many target units one source unit is worth, from what one euro is worth in each: rounded half to even at the
/// 12th significant digit.
pub fn cross(source_per_euro: Exact, target_per_euro: Exact) -> Result<Exact, BadNumber> {
    let too_large = || bad(format!("{target_per_euro} / {source_per_euro}"));
    let mut above = scaled(target_per_euro.digits, source_per_euro.places).ok_or_else(too_large)?;
    let below = scaled(source_per_euro.digits, target_per_euro.places).ok_or_else(too_large)?;
    if below == 0 || above == 0 {
        return Err(too_large());
    }
    let mut places = 0;
    while above / below < RATE_DIGITS_END / 10 {
        above = scaled(above, 1).ok_or_else(too_large)?;
        places += 1;
    }
    let (quotient, rest) = (above / below, above % below);
    if quotient >= RATE_DIGITS_END {
        return Err(too_large());
    }
    let up = match (rest * 2).cmp(&below) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    Ok(Exact::new(quotient + i128::from(up), places))
}

/// `mid x (1 - margin)`, cut at the 12th significant digit.
pub fn less_margin(mid: Exact, margin: Exact) -> Result<Exact, BadNumber> {
    let too_large = || bad(format!("{mid} less a margin of {margin}"));
    let one = scaled(1, margin.places).ok_or_else(too_large)?;
    let mut digits = mid.digits.checked_mul(one - margin.digits).ok_or_else(too_large)?;
    let mut places = mid.places + margin.places;
    while digits >= RATE_DIGITS_END {
        digits /= 10;
        places = places.checked_sub(1).ok_or_else(too_large)?;
    }
    Ok(Exact::new(digits, places))
}

/// What an amount (hundredths) buys: whole hundredths, and what the cut leaves over, in units.
pub fn bought(amount: i128, rate: Exact) -> Result<(i128, Exact), BadNumber> {
    let too_large = || bad(format!("{} x {rate}", print(amount)));
    let product = amount.checked_mul(rate.digits).ok_or_else(too_large)?;
    let unit = scaled(1, rate.places).ok_or_else(too_large)?;
    Ok((product / unit, Exact::new(product % unit, rate.places + PLACES)))
}

/// The fewest hundredths that buy at least `wanted`, and what they buy beyond it, in units.
pub fn needed(wanted: i128, rate: Exact) -> Result<(i128, Exact), BadNumber> {
    let too_large = || bad(format!("{} / {rate}", print(wanted)));
    let wanted = scaled(wanted, rate.places).ok_or_else(too_large)?;
    if rate.digits == 0 {
        return Err(too_large());
    }
    let amount = (wanted + rate.digits - 1) / rate.digits;
    let product = amount.checked_mul(rate.digits).ok_or_else(too_large)?;
    Ok((amount, Exact::new(product - wanted, rate.places + PLACES)))
}

/// Whole units as hundredths.
pub const fn units(whole: i128) -> i128 {
    whole * 100
}

/// Reads "-12.30" as hundredths.
pub fn hundredths(text: &str) -> Result<i128, BadNumber> {
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, text),
    };
    let exact = Exact::parse(number)?;
    let missing = PLACES
        .checked_sub(exact.places)
        .ok_or_else(|| bad(format!("{text:?}")))?;
    scaled(exact.digits, missing)
        .map(|digits| sign * digits)
        .ok_or_else(|| bad(format!("{text:?}")))
}

/// Hundredths as "-12.30".
pub fn print(hundredths: i128) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let digits = hundredths.unsigned_abs();
    format!("{sign}{}.{:02}", digits / 100, digits % 100)
}

/// As [`print`], with the sign of what comes in too.
pub fn print_change(hundredths: i128) -> String {
    let sign = if hundredths > 0 { "+" } else { "" };
    format!("{sign}{}", print(hundredths))
}

fn scaled(digits: i128, places: u32) -> Option<i128> {
    digits.checked_mul(10_i128.checked_pow(places)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    #[test]
    fn numbers_lead_back_and_nonsense_is_refused() {
        for (text, printed) in [
            ("0", "0"),
            ("7.7935", "7.7935"),
            ("1.10", "1.1"),
            ("100.00", "100"),
            ("0.0025", "0.0025"),
        ] {
            assert_eq!(exact(text).to_string(), printed);
        }
        assert_eq!(exact("1.0"), exact("1"));
        for text in ["", ".", ".5", "-1", "1e3", "1.2.3", "N/A", " 1", &"9".repeat(37)] {
            assert!(Exact::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(exact("0.0025").percent().to_string(), "0.25");
        assert_eq!(exact("0.5").percent().to_string(), "50");
    }

    /// Worked out by hand with long division.
    #[test]
    fn cross_rates_have_twelve_digits_half_to_even() {
        for (source, target, rate) in [
            // 7.7935 / 1.2748 = 6.113508001255...
            ("1.2748", "7.7935", "6.11350800126"),
            // 1.2748 / 7.7935 = 0.1635722076089...
            ("7.7935", "1.2748", "0.163572207609"),
            // 1 / 1.2748 = 0.78443677439598...
            ("1.2748", "1", "0.784436774396"),
            ("1", "1.2748", "1.2748"),
            // Ties: to the even digit.
            ("2", "1.00000000001", "0.500000000005"),
            ("2", "2.00000000001", "1"),
            ("2", "2.00000000003", "1.00000000002"),
            // All nines carry over.
            ("1", "9.9999999999996", "10"),
        ] {
            assert_eq!(
                cross(exact(source), exact(target)).unwrap().to_string(),
                rate,
                "{target} / {source}"
            );
        }
        assert!(cross(exact("0"), exact("1")).is_err());
        assert!(cross(exact("1"), exact("0")).is_err());
    }

    #[test]
    fn a_margin_is_taken_off_and_cut() {
        // 6.11350800126 x 0.9975 = 6.09822423125685
        let rate = less_margin(exact("6.11350800126"), exact("0.0025")).unwrap();
        assert_eq!(rate.to_string(), "6.09822423125");
        assert_eq!(less_margin(exact("1.5"), exact("0")).unwrap(), exact("1.5"));
    }

    #[test]
    fn amounts_buy_what_they_buy() {
        let rate = exact("6.09822423125");
        // 99.70 x 6.09822423125 = 607.992955855625
        assert_eq!(bought(9_970, rate).unwrap(), (60_799, exact("0.002955855625")));
        // The fewest: 99.69 would buy 607.93.
        assert_eq!(needed(60_799, rate).unwrap(), (9_970, exact("0.002955855625")));
        assert_eq!(needed(0, rate).unwrap(), (0, exact("0")));
        for wanted in 1..2_000 {
            let (amount, _) = needed(wanted, rate).unwrap();
            assert!(bought(amount, rate).unwrap().0 >= wanted);
            assert!(bought(amount - 1, rate).unwrap().0 < wanted);
        }
        assert!(bought(i128::MAX, rate).is_err());
        assert!(needed(1, exact("0")).is_err());
    }

    #[test]
    fn hundredths_lead_back() {
        for (text, count, printed) in [
            ("0", 0, "0.00"),
            ("-1000.00", -100_000, "-1000.00"),
            ("-0.05", -5, "-0.05"),
            ("12.3", 1_230, "12.30"),
        ] {
            assert_eq!(hundredths(text), Ok(count));
            assert_eq!(print(count), printed);
        }
        assert!(hundredths("1.234").is_err());
        assert!(hundredths("--1").is_err());
        assert_eq!(print_change(5), "+0.05");
        assert_eq!(print_change(0), "0.00");
        assert_eq!(print_change(-5), "-0.05");
    }
}
