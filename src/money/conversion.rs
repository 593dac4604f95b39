//! Conversion: how two amounts follow from each other at a rate, with one rounding in the gateway's favour.

use std::fmt;

use rust_decimal::Decimal;

use super::{Amount, Currency, MAX_MINOR, Margin, MoneyError, Pricing, Rate, pow10, split_decimal};

/// Both amounts of a payment and all that lies between them. Exact: `(send - fee) x rate = receive + remainder`, digit
/// for digit, and the remainder is what one rounding to a minor unit left with the gateway, never negative.
///
/// The fields are public to read; a value that was not made here goes through [`Conversion::check`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversion {
    /// What the payer pays, fee included.
    pub send: Amount,
    /// What the payee receives.
    pub receive: Amount,
    /// The fee, in the send currency, part of `send`.
    pub fee: Amount,
    /// Receive units for one send unit before margin.
    pub mid: Rate,
    /// The margin, as a fraction of `mid`.
    pub margin: Margin,
    /// The rate applied: [`Pricing::rate`].
    pub rate: Rate,
    /// What the rounding left, in major units of the receive currency, exact, at most 27 decimals.
    ///
    /// With a fixed send amount it is below one minor unit of the receive currency. With a fixed receive amount it is
    /// below what one minor unit of the send currency is worth, which may be many minor units of the receive currency
    /// (one yen is two fils).
    pub remainder: Decimal,
}

/// A conversion as it was written down, for [`Conversion::restore`]. The fields are those of [`Conversion`].
#[derive(Clone, Copy, Debug)]
pub struct ConversionParts<'a> {
    /// What the payer pays, fee included.
    pub send: Amount,
    /// What the payee receives.
    pub receive: Amount,
    /// The fee, in the send currency.
    pub fee: Amount,
    /// The mid rate.
    pub mid: Rate,
    /// The margin.
    pub margin: Margin,
    /// The rate applied.
    pub rate: Rate,
    /// The remainder as [`Conversion::remainder_string`] printed it.
    pub remainder: &'a str,
}

/// One of the two amounts of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What the payer pays, fee included.
    Send,
    /// What the payee receives.
    Receive,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Send => "send",
            Side::Receive => "receive",
        })
    }
}

/// Why two amounts do not follow from each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConversionError {
    /// The caller's: below a limit, or the fee and the rounding leave less than one minor unit to deliver.
    #[error("{side} amount too small: at least {minimum}")]
    AmountTooSmall {
        /// The amount that is too small.
        side: Side,
        /// The least that would do.
        minimum: Amount,
    },
    /// The caller's: above a limit, or beyond what an [`Amount`] can hold.
    #[error("{side} amount too large: at most {maximum}")]
    AmountTooLarge {
        /// The amount that is (or would become) too large.
        side: Side,
        /// The most that would do.
        maximum: Amount,
    },
    /// The caller's: an amount, the fee or the rate is in another currency than the conversion calls for.
    #[error("currency mismatch: expected {expected}, got {got}")]
    CurrencyMismatch {
        /// The currency that was called for.
        expected: Currency,
        /// The currency that came.
        got: Currency,
    },
    /// The operator's: mid rate and margin make no usable customer rate.
    #[error("unusable rate: {0}")]
    RateUnusable(#[source] MoneyError),
    /// The store's, or a bug: these values never came from one conversion.
    #[error("inconsistent conversion: {violation}")]
    Inconsistent {
        /// Which rule is broken.
        violation: &'static str,
    },
}

impl Conversion {
    /// The payer pays exactly `send`. The fee comes off, the rest is converted, and what the payee receives is rounded
    /// down to the minor unit.
    ///
    /// # Errors
    /// [`ConversionError::AmountTooSmall`] if less than one minor unit would be delivered,
    /// [`ConversionError::AmountTooLarge`] if the receive amount (or the minimum itself) is beyond [`MAX_MINOR`],
    /// [`ConversionError::CurrencyMismatch`], [`ConversionError::RateUnusable`].
    pub fn fixed_send(send: Amount, pricing: &Pricing) -> Result<Conversion, ConversionError> {
        let rate = customer_rate(pricing)?;
        expect_currency(rate.base(), send.currency())?;
        let scales = Scales::of(rate);
        let net_minor = u128::from(send.minor().saturating_sub(pricing.fee.minor()));
        let receive_minor = net_minor * rate.coefficient() * pow10(scales.receive) / pow10(scales.product);
        if receive_minor == 0 {
            let minimum = send_minor(1, rate, pricing.fee)?;
            return Err(ConversionError::AmountTooSmall {
                side: Side::Send,
                minimum,
            });
        }
        let receive = amount(Side::Receive, rate.quote(), receive_minor)?;
        Conversion::balance(send, receive, rate, pricing)
    }

    /// The payee receives exactly `receive`. The payer pays the fewest minor units whose worth covers it, and the fee.
    ///
    /// # Errors
    /// [`ConversionError::AmountTooSmall`] if `receive` is zero, [`ConversionError::AmountTooLarge`] if the send
    /// amount is beyond [`MAX_MINOR`], [`ConversionError::CurrencyMismatch`], [`ConversionError::RateUnusable`].
    pub fn fixed_receive(receive: Amount, pricing: &Pricing) -> Result<Conversion, ConversionError> {
        let rate = customer_rate(pricing)?;
        expect_currency(rate.quote(), receive.currency())?;
        if receive.is_zero() {
            let minimum = amount(Side::Receive, receive.currency(), 1)?;
            return Err(ConversionError::AmountTooSmall {
                side: Side::Receive,
                minimum,
            });
        }
        let send = send_minor(receive.minor(), rate, pricing.fee)?;
        Conversion::balance(send, receive, rate, pricing)
    }

    /// A conversion read back from where it was written, checked as [`Conversion::check`] does.
    ///
    /// # Errors
    /// [`ConversionError::Inconsistent`], [`ConversionError::CurrencyMismatch`].
    pub fn restore(parts: ConversionParts<'_>) -> Result<Conversion, ConversionError> {
        let ConversionParts {
            send,
            receive,
            fee,
            mid,
            margin,
            rate,
            remainder,
        } = parts;
        let remainder = split_decimal(remainder)
            // from_str_exact: from_str would round what does not fit.
            .and_then(|_| Decimal::from_str_exact(remainder).ok())
            .ok_or(ConversionError::Inconsistent {
                violation: "the remainder is not a decimal",
            })?
            .normalize();
        let conversion = Conversion {
            send,
            receive,
            fee,
            mid,
            margin,
            rate,
            remainder,
        };
        conversion.check()?;
        Ok(conversion)
    }

    /// Proves that these values came from one conversion: the currencies fit, the rate is the mid rate less the
    /// margin, the sums are exact, and there was one rounding only. In integers, and on its own: what the constructors
    /// compute is not used.
    ///
    /// # Errors
    /// [`ConversionError::Inconsistent`] with the rule that is broken, [`ConversionError::CurrencyMismatch`].
    pub fn check(&self) -> Result<(), ConversionError> {
        let rule = |holds: bool, violation| {
            if holds {
                Ok(())
            } else {
                Err(ConversionError::Inconsistent { violation })
            }
        };
        let applied = customer_rate(&Pricing {
            mid: self.mid,
            margin: self.margin,
            fee: self.fee,
        })?;
        rule(applied == self.rate, "the rate is not the mid rate less the margin")?;
        expect_currency(self.rate.base(), self.send.currency())?;
        expect_currency(self.rate.quote(), self.receive.currency())?;
        rule(!self.receive.is_zero(), "nothing is received")?;
        rule(
            self.fee.minor() < self.send.minor(),
            "the fee leaves nothing to convert",
        )?;
        rule(self.remainder.mantissa() >= 0, "the remainder is negative")?;

        // All three terms as integers at one scale. An overflow means a remainder that no conversion leaves.
        let scales = Scales::of(self.rate);
        let remainder = self.remainder.normalize();
        let scale = scales.product.max(scales.receive).max(remainder.scale());
        let at_scale = |term: u128, from: u32| term.checked_mul(pow10(scale - from));
        let net_minor = u128::from(self.send.minor() - self.fee.minor());
        let terms = (
            at_scale(net_minor * self.rate.coefficient(), scales.product),
            at_scale(u128::from(self.receive.minor()), scales.receive),
            at_scale(remainder.mantissa().unsigned_abs(), remainder.scale()),
            at_scale(self.rate.coefficient(), scales.product),
            at_scale(1, scales.receive),
        );
        let (Some(worth), Some(receive), Some(rest), Some(send_unit), Some(receive_unit)) = terms else {
            return Err(ConversionError::Inconsistent {
                violation: "the remainder has too many decimals",
            });
        };
        let sum = receive.checked_add(rest);
        rule(sum == Some(worth), "(send - fee) x rate is not receive + remainder")?;
        // Fixed send leaves less than a minor unit received; fixed receive, less than a minor unit sent is worth.
        rule(
            rest < receive_unit.max(send_unit),
            "the remainder is more than one rounding leaves",
        )
    }

    /// The remainder as a canonical decimal string in major units of the receive currency: "0.0048921", "0".
    pub fn remainder_string(&self) -> String {
        self.remainder.normalize().to_string()
    }

    /// Computes the remainder of two amounts that were just made to fit.
    fn balance(send: Amount, receive: Amount, rate: Rate, pricing: &Pricing) -> Result<Conversion, ConversionError> {
        let Pricing { mid, margin, fee } = *pricing;
        let scales = Scales::of(rate);
        let scale = scales.product.max(scales.receive);
        let net_minor = u128::from(send.minor() - fee.minor());
        let worth = net_minor * rate.coefficient() * pow10(scale - scales.product);
        let rest = worth.checked_sub(u128::from(receive.minor()) * pow10(scale - scales.receive));
        // Below 10^27: a rest of fixed send is less than one minor unit, of fixed receive less than the coefficient.
        let remainder = rest.and_then(|rest| i128::try_from(rest).ok());
        let remainder = remainder.and_then(|rest| Decimal::try_from_i128_with_scale(rest, scale).ok());
        let remainder = remainder
            .ok_or(ConversionError::Inconsistent {
                violation: "the remainder cannot be represented",
            })?
            .normalize();
        let conversion = Conversion {
            send,
            receive,
            fee,
            mid,
            margin,
            rate,
            remainder,
        };
        // The promise is proven for each conversion, by arithmetic of its own.
        conversion.check()?;
        Ok(conversion)
    }
}

/// How many decimals the terms of a conversion have.
struct Scales {
    /// Of a minor unit sent times the rate: at most 3 + 24.
    product: u32,
    /// Of the receive currency's minor unit: at most 3.
    receive: u32,
}

impl Scales {
    fn of(rate: Rate) -> Scales {
        Scales {
            product: rate.base().minor_digits() + rate.scale(),
            receive: rate.quote().minor_digits(),
        }
    }
}

/// The customer rate, once the fee is known to be in its base currency.
fn customer_rate(pricing: &Pricing) -> Result<Rate, ConversionError> {
    expect_currency(pricing.mid.base(), pricing.fee.currency())?;
    pricing.rate().map_err(ConversionError::RateUnusable)
}

/// The smallest send amount that delivers `receive_minor`: rounded up to the minor unit, and the fee on top.
fn send_minor(receive_minor: u64, rate: Rate, fee: Amount) -> Result<Amount, ConversionError> {
    let scales = Scales::of(rate);
    let divisor = rate.coefficient() * pow10(scales.receive);
    // On overflow the dividend is above 10^38 and the divisor below 10^15: the quotient is beyond any amount.
    let net_minor = u128::from(receive_minor)
        .checked_mul(pow10(scales.product))
        .map(|worth| worth.div_ceil(divisor));
    let send_minor = net_minor.map_or(u128::MAX, |net_minor| net_minor.saturating_add(u128::from(fee.minor())));
    amount(Side::Send, rate.base(), send_minor)
}

/// The amount of `minor` units, if it is one.
fn amount(side: Side, currency: Currency, minor: u128) -> Result<Amount, ConversionError> {
    let too_large = ConversionError::AmountTooLarge {
        side,
        maximum: Amount::max(currency),
    };
    let minor = u64::try_from(minor).ok().filter(|minor| *minor <= MAX_MINOR);
    minor
        .and_then(|minor| Amount::from_minor(currency, minor).ok())
        .ok_or(too_large)
}

fn expect_currency(expected: Currency, got: Currency) -> Result<(), ConversionError> {
    if expected != got {
        return Err(ConversionError::CurrencyMismatch { expected, got });
    }
    Ok(())
}
