//! Rates, margins, and the customer rate that the two make.

use std::fmt;

use rust_decimal::Decimal;

use super::{Amount, Currency, MoneyError, digits_of, excerpt, pow10, split_decimal};

/// Significant digits of a rate. With [`super::MAX_MINOR`]'s 15 digits a product has 27, and a `Decimal` holds 28.
const DIGITS_MAX: u32 = 12;
/// Decimals of a rate. With a minor unit's 3 a product has 27, and a `Decimal` holds 28.
const SCALE_MAX: u32 = 24;
/// The smallest coefficient with one digit too many.
const COEFFICIENT_END: u128 = pow10(DIGITS_MAX);

/// How many units of `quote` one unit of `base` is worth: above 0, below 10^12, at most 12 significant digits and
/// 24 decimals. Held as an integer coefficient and a scale without trailing zeros, so that equal rates are equal bit
/// for bit and print alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    base: Currency,
    quote: Currency,
    coefficient: u64,
    scale: u32,
}

impl Rate {
    /// The rate of a currency to itself: 1.
    pub const fn identity(currency: Currency) -> Rate {
        Rate {
            base: currency,
            quote: currency,
            coefficient: 1,
            scale: 0,
        }
    }

    /// Reads a plain decimal string: "6.1135". Trailing zeros are dropped and do not count as digits.
    ///
    /// # Errors
    /// [`MoneyError::RateMalformed`] (sign, blank, exponent, superfluous zero, longer than 64 characters),
    /// [`MoneyError::RateTooPrecise`], [`MoneyError::RateOutOfRange`].
    pub fn parse(base: Currency, quote: Currency, text: &str) -> Result<Rate, MoneyError> {
        const CHARS_MAX: usize = 64;
        let halves = split_decimal(text).filter(|_| text.len() <= CHARS_MAX);
        let (whole, fraction) = halves.ok_or_else(|| MoneyError::RateMalformed { found: excerpt(text) })?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let significant = digits.trim_end_matches('0');
        if significant.len() > DIGITS_MAX as usize {
            return Err(MoneyError::RateTooPrecise { found: excerpt(text) });
        }
        // Longer than 12 only for a whole number with many trailing zeros: out of range, as the constructor says.
        let coefficient = match digits {
            "" => 0,
            digits => digits.parse().unwrap_or(u128::MAX),
        };
        Rate::new(base, quote, coefficient, fraction.len() as u32)
    }

    /// The rate between two currencies that one source prices in its own base: `to / from`, rounded half to even at
    /// the 12th significant digit. This is the one rounding that makes a cross rate.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] if the two do not price the same base; [`MoneyError::RateOutOfRange`] if the
    /// result does not fit.
    pub fn cross(from: Rate, to: Rate) -> Result<Rate, MoneyError> {
        if from.base != to.base {
            return Err(MoneyError::CurrencyMismatch {
                expected: from.base,
                got: to.base,
            });
        }
        let divisor = u128::from(from.coefficient);
        // The shift that gives the quotient exactly 12 digits. Both coefficients have 12 at most, so it is 23 at
        // most and the dividend has 35 digits at most: a u128 holds 38.
        let (mut shift, mut dividend) = (0, u128::from(to.coefficient));
        while digits_of(dividend / divisor) < DIGITS_MAX {
            dividend *= 10;
            shift += 1;
        }
        let (mut quotient, twice_rest) = (dividend / divisor, dividend % divisor * 2);
        if twice_rest > divisor || (twice_rest == divisor && quotient % 2 == 1) {
            quotient += 1;
        }
        Rate::from_scaled(
            from.quote,
            to.quote,
            quotient,
            i64::from(to.scale + shift) - i64::from(from.scale),
        )
    }

    /// The currency that is priced.
    pub const fn base(self) -> Currency {
        self.base
    }

    /// The currency in which it is priced.
    pub const fn quote(self) -> Currency {
        self.quote
    }

    /// The value as a decimal without trailing zeros, exact.
    pub fn value(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.coefficient), self.scale)
    }

    /// The canonical decimal string, without trailing zeros: "6.1135". [`Rate::parse`] reads it back.
    pub fn value_string(self) -> String {
        self.value().to_string()
    }

    /// The digits of the value: below 10^12.
    pub(super) fn coefficient(self) -> u128 {
        u128::from(self.coefficient)
    }

    /// How many of the digits are decimals: at most 24.
    pub(super) fn scale(self) -> u32 {
        self.scale
    }

    /// `coefficient / 10^scale`, where a negative scale stands for zeros before the point.
    fn from_scaled(base: Currency, quote: Currency, coefficient: u128, scale: i64) -> Result<Rate, MoneyError> {
        let out_of_range = MoneyError::RateOutOfRange { base, quote };
        match u32::try_from(scale) {
            Ok(scale) => Rate::new(base, quote, coefficient, scale),
            // Twelve zeros before the point are out of range whatever the coefficient.
            Err(_) if scale <= -i64::from(DIGITS_MAX) => Err(out_of_range),
            Err(_) => Rate::new(base, quote, coefficient * pow10(scale.unsigned_abs() as u32), 0),
        }
    }

    /// Normalises and checks the bounds; never rounds.
    fn new(base: Currency, quote: Currency, mut coefficient: u128, mut scale: u32) -> Result<Rate, MoneyError> {
        while scale > 0 && coefficient > 0 && coefficient.is_multiple_of(10) {
            coefficient /= 10;
            scale -= 1;
        }
        if coefficient == 0 || coefficient >= COEFFICIENT_END || scale > SCALE_MAX {
            return Err(MoneyError::RateOutOfRange { base, quote });
        }
        Ok(Rate {
            base,
            quote,
            coefficient: coefficient as u64,
            scale,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.value_string(), self.base, self.quote)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rate({self})")
    }
}

/// What the gateway keeps of the mid rate, as a fraction: `0 <= margin < 1`, at most 6 decimals. 0.0025 is 25 basis
/// points.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Margin {
    millionths: u32,
}

impl Margin {
    /// No margin: the customer rate is the mid rate.
    pub const ZERO: Margin = Margin { millionths: 0 };

    /// Decimals of a margin.
    const DECIMALS: u32 = 6;
    /// One, in millionths.
    const ONE: u32 = 1_000_000;

    /// Reads a plain decimal string: "0.0025".
    ///
    /// # Errors
    /// [`MoneyError::MarginMalformed`]; [`MoneyError::MarginOutOfRange`] from 1 on or beyond 6 decimals.
    pub fn parse(text: &str) -> Result<Margin, MoneyError> {
        let malformed = || MoneyError::MarginMalformed { found: excerpt(text) };
        let (whole, fraction) = split_decimal(text).ok_or_else(malformed)?;
        let width = Margin::DECIMALS as usize;
        if whole != "0" || fraction.len() > width {
            return Err(MoneyError::MarginOutOfRange { found: excerpt(text) });
        }
        let millionths = format!("{fraction:0<width$}").parse().map_err(|_| malformed())?;
        Ok(Margin { millionths })
    }

    /// A margin in basis points, hundredths of a percent: 25 is 0.0025.
    ///
    /// # Errors
    /// [`MoneyError::MarginOutOfRange`] from 10 000 on.
    pub fn from_basis_points(basis_points: u32) -> Result<Margin, MoneyError> {
        let millionths = basis_points
            .checked_mul(100)
            .filter(|millionths| *millionths < Margin::ONE);
        let out_of_range = || MoneyError::MarginOutOfRange {
            found: format!("{basis_points} basis points"),
        };
        Ok(Margin {
            millionths: millionths.ok_or_else(out_of_range)?,
        })
    }

    /// The fraction as a decimal without trailing zeros, exact.
    pub fn value(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.millionths), Margin::DECIMALS).normalize()
    }

    /// The canonical decimal string, without trailing zeros: "0.0025", "0". [`Margin::parse`] reads it back.
    pub fn as_string(self) -> String {
        self.value().to_string()
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_string())
    }
}

impl fmt::Debug for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Margin({self})")
    }
}

/// What a conversion is priced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pricing {
    /// The rate before margin, from the send currency to the receive currency.
    pub mid: Rate,
    /// The gateway's part of the mid rate.
    pub margin: Margin,
    /// The fee, in the send currency (the mid rate's base). Taken off before conversion.
    pub fee: Amount,
}

impl Pricing {
    /// The customer rate: `mid x (1 - margin)`, cut (never rounded up) at the 12th significant digit.
    ///
    /// # Errors
    /// [`MoneyError::RateOutOfRange`] if a nearly full margin on a tiny mid rate leaves digits beyond the 24th decimal.
    pub fn rate(&self) -> Result<Rate, MoneyError> {
        // 12 digits times 6 are 18 at most; what is cut is at most the 6 that the factor's scale added.
        let product = self.mid.coefficient() * u128::from(Margin::ONE - self.margin.millionths);
        let cut = digits_of(product).saturating_sub(DIGITS_MAX);
        let scale = self.mid.scale() + Margin::DECIMALS - cut;
        Rate::new(self.mid.base(), self.mid.quote(), product / pow10(cut), scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::parse(Currency::EUR, Currency::USD, text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_rate_is_normalised() {
        let check = |text, canonical| assert_eq!(rate(text).value_string(), canonical, "{text}");
        check("1.2748", "1.2748");
        check("1.27480000000000000000", "1.2748");
        check("136", "136");
        check("136.0", "136");
        check("100", "100");
        check("999999999999", "999999999999");
        check("0.000000000000000000000001", "0.000000000000000000000001");
        check("123456.789012", "123456.789012");
        assert_eq!(rate("1.0"), rate("1.00"));
        assert_eq!(rate("1.25").value(), Decimal::from_str_exact("1.25").unwrap());
        assert_eq!(
            format!("{} {:?}", rate("1.5"), rate("2")),
            "1.5 EUR/USD Rate(2 EUR/USD)"
        );
    }

    #[test]
    fn a_rate_out_of_bounds_is_refused() {
        let out_of_range = MoneyError::RateOutOfRange {
            base: Currency::EUR,
            quote: Currency::USD,
        };
        let precise = |found: &str| MoneyError::RateTooPrecise { found: found.into() };
        let malformed = |found: &str| MoneyError::RateMalformed { found: found.into() };
        let check = |text: &str, error: MoneyError| {
            assert_eq!(Rate::parse(Currency::EUR, Currency::USD, text), Err(error), "{text}");
        };
        for text in [
            "0",
            "0.000",
            "1000000000000",
            "120000000000000000",
            "0.0000000000000000000000001",
        ] {
            check(text, out_of_range.clone());
        }
        for text in ["1.234567890123", "1234567890123", "0.1234567890123"] {
            check(text, precise(text));
        }
        for text in ["", "-1", "+1", "1e3", "N/A", "1,5", "01.5", ".5", "5.", " 1", "NaN"] {
            check(text, malformed(text));
        }
        let long = format!("1.{}", "0".repeat(64));
        assert!(matches!(
            Rate::parse(Currency::EUR, Currency::USD, &long),
            Err(MoneyError::RateMalformed { .. })
        ));
    }

    #[test]
    fn a_cross_rate_rounds_half_to_even_at_the_twelfth_digit() {
        let check = |from: &str, to: &str, value: &str| {
            let leg = |quote, text| Rate::parse(Currency::EUR, quote, text).unwrap();
            let cross = Rate::cross(leg(Currency::USD, from), leg(Currency::CNY, to)).unwrap();
            assert_eq!((cross.base(), cross.quote()), (Currency::USD, Currency::CNY));
            assert_eq!(cross.value_string(), value, "{to} / {from}");
        };
        check("1.2748", "7.7935", "6.11350800126");
        check("3", "1", "0.333333333333");
        check("3", "2", "0.666666666667");
        check("1", "1", "1");
        check("8", "1", "0.125");
        // Exactly half: 100000000000.5 goes down to the even digit, 100000000001.5 up to it.
        check("2", "200000000001", "100000000000");
        check("2", "200000000003", "100000000002");
        check("999999999999", "1", "0.000000000001");
        check("0.5", "499999999999", "999999999998");
    }

    #[test]
    fn a_cross_rate_out_of_bounds_is_refused_without_panic() {
        let leg = |quote, text| Rate::parse(Currency::EUR, quote, text).unwrap();
        let tiny = leg(Currency::USD, "0.000000000000000000000001");
        let huge = leg(Currency::CNY, "999999999999");
        assert!(matches!(
            Rate::cross(tiny, huge),
            Err(MoneyError::RateOutOfRange { .. })
        ));
        assert!(matches!(
            Rate::cross(huge, tiny),
            Err(MoneyError::RateOutOfRange { .. })
        ));
        assert_eq!(Rate::cross(tiny, tiny).unwrap().value_string(), "1");
        let other = Rate::parse(Currency::JPY, Currency::USD, "1").unwrap();
        assert!(matches!(
            Rate::cross(huge, other),
            Err(MoneyError::CurrencyMismatch { .. })
        ));
    }

    #[test]
    fn a_margin_is_a_fraction_of_at_most_six_decimals() {
        for (text, canonical) in [
            ("0", "0"),
            ("0.0", "0"),
            ("0.0025", "0.0025"),
            ("0.002500", "0.0025"),
            ("0.999999", "0.999999"),
        ] {
            assert_eq!(Margin::parse(text).unwrap().as_string(), canonical);
        }
        for text in ["1", "1.0", "0.0000001", "0.1234560", "2"] {
            assert!(
                matches!(Margin::parse(text), Err(MoneyError::MarginOutOfRange { .. })),
                "{text}"
            );
        }
        for text in ["", "-0.1", "0.", ".1", "1%", "00.1", "1e-3"] {
            assert!(
                matches!(Margin::parse(text), Err(MoneyError::MarginMalformed { .. })),
                "{text}"
            );
        }
        assert_eq!(Margin::from_basis_points(25), Margin::parse("0.0025"));
        assert_eq!(Margin::from_basis_points(0), Ok(Margin::ZERO));
        assert_eq!(Margin::from_basis_points(9_999).unwrap().as_string(), "0.9999");
        assert!(Margin::from_basis_points(10_000).is_err());
        assert!(Margin::from_basis_points(u32::MAX).is_err());
    }

    #[test]
    fn the_customer_rate_is_cut_at_the_twelfth_digit() {
        let check = |mid, margin, expected: &str| {
            let fee = Amount::zero(Currency::EUR);
            let pricing = Pricing {
                mid: rate(mid),
                margin: Margin::parse(margin).unwrap(),
                fee,
            };
            assert_eq!(pricing.rate().unwrap().value_string(), expected, "{mid} less {margin}");
        };
        check("6.11350800125", "0", "6.11350800125");
        check("6.11350800125", "0.0025", "6.09822423124");
        check("1", "0.000001", "0.999999");
        check("999999999999", "0.000001", "999998999999");
        check("1.00000000001", "0.9", "0.100000000001");
        check("100000000000", "0.999999", "100000");
        check("0.000000000000000000000001", "0", "0.000000000000000000000001");
        let fee = Amount::zero(Currency::EUR);
        let margin = Margin::parse("0.5").unwrap();
        let gone = Pricing {
            mid: rate("0.000000000000000000000001"),
            margin,
            fee,
        };
        assert!(matches!(gone.rate(), Err(MoneyError::RateOutOfRange { .. })));
    }
}
