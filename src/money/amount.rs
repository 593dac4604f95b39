//! Amounts: exact, non-negative, in one currency.

use std::fmt;

use super::{Currency, MoneyError, excerpt, pow10, split_decimal};

/// The largest amount, in minor units: 15 digits, so that an amount times a rate of 12 digits stays exact.
pub const MAX_MINOR: u64 = 999_999_999_999_999;

/// An exact amount of one currency, counted in its minor unit (ISO 4217): from 0 to [`MAX_MINOR`].
///
/// Printed with its currency: "12.34 USD".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount {
    currency: Currency,
    minor: u64,
}

impl Amount {
    /// Nothing, in `currency`.
    pub const fn zero(currency: Currency) -> Amount {
        Amount { currency, minor: 0 }
    }

    /// The largest amount of `currency`.
    pub const fn max(currency: Currency) -> Amount {
        Amount {
            currency,
            minor: MAX_MINOR,
        }
    }

    /// An amount counted in minor units: 1234 of USD is 12.34.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] above [`MAX_MINOR`].
    pub fn from_minor(currency: Currency, minor: u64) -> Result<Amount, MoneyError> {
        if minor > MAX_MINOR {
            return Err(MoneyError::TooLarge { currency });
        }
        Ok(Amount { currency, minor })
    }

    /// Reads a decimal string as it stands on the wire (`causeway.money.v1.Money`, after FSPIOP 7.2.13): digits
    /// without superfluous leading zeros, then perhaps a point and at most as many decimals as the minor unit has.
    ///
    /// # Errors
    /// [`MoneyError::AmountMalformed`] for a sign, blank, exponent, grouping, or a point without digits on both
    /// sides; [`MoneyError::TooManyDecimals`] even if the surplus ones are zeros; [`MoneyError::TooLarge`].
    pub fn parse(currency: Currency, text: &str) -> Result<Amount, MoneyError> {
        let malformed = || MoneyError::AmountMalformed { found: excerpt(text) };
        let (whole, fraction) = split_decimal(text).ok_or_else(malformed)?;
        let allowed = currency.minor_digits();
        let found = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
        if found > allowed {
            return Err(MoneyError::TooManyDecimals {
                currency,
                allowed,
                found,
            });
        }
        let too_large = || MoneyError::TooLarge { currency };
        let digits = whole.bytes().chain(fraction.bytes());
        let read = digits
            .map(|digit| u64::from(digit - b'0'))
            .try_fold(0u64, |minor, digit| minor.checked_mul(10)?.checked_add(digit));
        let scale = 10u64.pow(allowed - found);
        let minor = read.and_then(|minor| minor.checked_mul(scale)).ok_or_else(too_large)?;
        Amount::from_minor(currency, minor)
    }

    /// The amount in minor units.
    pub const fn minor(self) -> u64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.minor == 0
    }

    /// The canonical decimal string, with all the decimals of the minor unit: "12.30" USD, "12" JPY.
    /// [`Amount::parse`] reads it back.
    pub fn decimal_string(self) -> String {
        let digits = self.currency.minor_digits();
        if digits == 0 {
            return self.minor.to_string();
        }
        let unit = pow10(digits);
        let (whole, fraction) = (u128::from(self.minor) / unit, u128::from(self.minor) % unit);
        format!("{whole}.{fraction:0width$}", width = digits as usize)
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`], [`MoneyError::TooLarge`].
    pub fn checked_add(self, other: Amount) -> Result<Amount, MoneyError> {
        self.same_currency(other)?;
        // Two amounts of at most 15 digits cannot overflow 64 bits.
        Amount::from_minor(self.currency, self.minor + other.minor)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`]; [`MoneyError::Negative`] if `other` is more than there is.
    pub fn checked_sub(self, other: Amount) -> Result<Amount, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_sub(other.minor);
        let minor = minor.ok_or(MoneyError::Negative {
            minuend: self,
            subtrahend: other,
        })?;
        Ok(Amount {
            currency: self.currency,
            minor,
        })
    }

    fn same_currency(self, other: Amount) -> Result<(), MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch {
                expected: self.currency,
                got: other.currency,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal_string(), self.currency)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amount({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_wire_may_say() {
        let check = |currency, text, minor, canonical| {
            let amount = Amount::parse(currency, text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(
                (amount.minor(), amount.decimal_string().as_str()),
                (minor, canonical),
                "{text:?}"
            );
        };
        check(Currency::USD, "12.34", 1234, "12.34");
        check(Currency::USD, "12.3", 1230, "12.30");
        check(Currency::USD, "12", 1200, "12.00");
        check(Currency::USD, "0", 0, "0.00");
        check(Currency::USD, "0.00", 0, "0.00");
        check(Currency::USD, "0.05", 5, "0.05");
        check(Currency::USD, "9999999999999.99", MAX_MINOR, "9999999999999.99");
        check(Currency::JPY, "12", 12, "12");
        check(Currency::JPY, "999999999999999", MAX_MINOR, "999999999999999");
        check(Currency::KWD, "1.234", 1234, "1.234");
        check(Currency::KWD, "999999999999.999", MAX_MINOR, "999999999999.999");
    }

    #[test]
    fn refuses_the_malformed() {
        #[rustfmt::skip]
        let rows = [
            "", " ", ".", "1.", ".5", "-1", "+1", "-0", "00", "01", "00.5", "1e2", "1E2", "1,000", "1_000", " 1", "1 ",
            "1\n", "1.2.3", "1..2", "0x1", "NaN", "inf", "1.-2", "1.2 ", "١", "1\0", "$1",
        ];
        for text in rows {
            for currency in [Currency::USD, Currency::JPY, Currency::KWD] {
                let got = Amount::parse(currency, text);
                assert!(
                    matches!(got, Err(MoneyError::AmountMalformed { .. })),
                    "{text:?}: {got:?}"
                );
            }
        }
    }

    #[test]
    fn refuses_surplus_decimals_even_zeros() {
        let check = |currency, text, allowed, found| {
            assert_eq!(
                Amount::parse(currency, text),
                Err(MoneyError::TooManyDecimals {
                    currency,
                    allowed,
                    found
                }),
                "{text}"
            );
        };
        check(Currency::USD, "12.345", 2, 3);
        check(Currency::USD, "12.340", 2, 3);
        check(Currency::JPY, "12.0", 0, 1);
        check(Currency::KWD, "0.0000", 3, 4);
    }

    #[test]
    fn refuses_more_than_fifteen_digits() {
        let nines = "9".repeat(40);
        let endless = "1".repeat(100_000);
        let rows = [
            (Currency::USD, "10000000000000"),
            (Currency::USD, "10000000000000.00"),
            (Currency::JPY, "1000000000000000"),
            (Currency::KWD, "1000000000000"),
            (Currency::USD, "18446744073709551616"),
            (Currency::USD, nines.as_str()),
            (Currency::JPY, endless.as_str()),
        ];
        for (currency, text) in rows {
            assert_eq!(
                Amount::parse(currency, text),
                Err(MoneyError::TooLarge { currency }),
                "{text:.40}"
            );
        }
        let above = Amount::from_minor(Currency::USD, MAX_MINOR + 1);
        assert_eq!(
            above,
            Err(MoneyError::TooLarge {
                currency: Currency::USD
            })
        );
    }

    #[test]
    fn sums_check_currency_and_bounds() {
        let usd = |minor| Amount::from_minor(Currency::USD, minor).unwrap();
        let eur = |minor| Amount::from_minor(Currency::EUR, minor).unwrap();
        assert_eq!(usd(1).checked_add(usd(2)), Ok(usd(3)));
        assert_eq!(usd(3).checked_sub(usd(3)), Ok(Amount::zero(Currency::USD)));
        let max = Amount::max(Currency::USD);
        assert_eq!(
            max.checked_add(usd(1)),
            Err(MoneyError::TooLarge {
                currency: Currency::USD
            })
        );
        let negative = MoneyError::Negative {
            minuend: usd(1),
            subtrahend: usd(2),
        };
        assert_eq!(negative.to_string(), "cannot take 0.02 USD from 0.01 USD");
        assert_eq!(usd(1).checked_sub(usd(2)), Err(negative));
        let mismatch = MoneyError::CurrencyMismatch {
            expected: Currency::USD,
            got: Currency::EUR,
        };
        assert_eq!(usd(1).checked_add(eur(1)), Err(mismatch.clone()));
        assert_eq!(usd(1).checked_sub(eur(1)), Err(mismatch));
        assert_eq!(format!("{} {:?}", usd(1234), usd(5)), "12.34 USD Amount(0.05 USD)");
    }
}
