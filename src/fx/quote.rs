//! Quotes: what a corridor charges, and how a fixed amount is priced on it. Pure.
//!
//! Owns limits, margin and fee per corridor. Leaves to others the rounding (`money`), the mid rate ([`super::cache`]),
//! and keeping a quote until it expires.
//!
//! Invariant: a conversion priced here lies within the corridor's limits.

use crate::money::{Amount, Conversion, ConversionError, Currency, Margin, Pricing, Rate, Side};

/// An ordered pair of (partner, currency): money leaves at the source and arrives at the target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Corridor {
    /// The paying partner's name, without "partners/".
    pub source_partner: String,
    /// What the payer pays in.
    pub source: Currency,
    /// The receiving partner's name, without "partners/".
    pub target_partner: String,
    /// What the payee receives in.
    pub target: Currency,
}

/// The amount that the caller fixes; the other one follows from the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FixedSide {
    /// The payer pays exactly this, fee included.
    Send(Amount),
    /// The payee receives exactly this.
    Receive(Amount),
}

/// What a corridor charges, how long its quotes hold, and how much one payment may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorridorPricing {
    /// The gateway's part of the mid rate.
    pub margin: Margin,
    /// The fee, in the source currency, part of what the payer pays.
    pub fee: Amount,
    /// How long a quote holds, in milliseconds.
    pub quote_ttl_ms: i64,
    /// The most that one payment may send, fee included, in the source currency.
    pub send_max: Option<Amount>,
    /// The least that one payment may send, fee included, in the source currency.
    pub send_min: Option<Amount>,
}

impl CorridorPricing {
    /// When a quote made at `now_ms` expires; both in milliseconds since the Unix epoch.
    pub fn expire_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.quote_ttl_ms)
    }

    /// Whether an amount to send lies within the limits.
    fn check_limits(&self, send: Amount) -> Result<(), ConversionError> {
        for limit in self.send_min.iter().chain(&self.send_max) {
            if limit.currency() != send.currency() {
                let (expected, got) = (send.currency(), limit.currency());
                return Err(ConversionError::CurrencyMismatch { expected, got });
            }
        }
        if let Some(minimum) = self.send_min.filter(|minimum| send.minor() < minimum.minor()) {
            return Err(ConversionError::AmountTooSmall {
                side: Side::Send,
                minimum,
            });
        }
        if let Some(maximum) = self.send_max.filter(|maximum| send.minor() > maximum.minor()) {
            return Err(ConversionError::AmountTooLarge {
                side: Side::Send,
                maximum,
            });
        }
        Ok(())
    }
}

/// Prices a fixed amount at a mid rate on a corridor. The limits are on what the payer sends, whichever side is fixed.
///
/// # Errors
/// [`ConversionError`]: too small or too large by the corridor's limits or by what an amount can hold; a currency that
/// does not fit the mid rate; a mid rate and margin that make no usable rate.
pub fn price(fixed: FixedSide, mid: Rate, pricing: &CorridorPricing) -> Result<Conversion, ConversionError> {
    let terms = Pricing {
        mid,
        margin: pricing.margin,
        fee: pricing.fee,
    };
    let conversion = match fixed {
        FixedSide::Receive(receive) => Conversion::fixed_receive(receive, &terms)?,
        FixedSide::Send(send) => {
            Conversion::fixed_send(send, &terms).map_err(|error| match (error, pricing.send_min) {
                // Both minimums hold: the caller is told the one that would really do.
                (
                    ConversionError::AmountTooSmall {
                        side: Side::Send,
                        minimum,
                    },
                    Some(limit),
                ) if limit.currency() == minimum.currency() && limit.minor() > minimum.minor() => {
                    ConversionError::AmountTooSmall {
                        side: Side::Send,
                        minimum: limit,
                    }
                }
                (error, _) => error,
            })?
        }
    };
    pricing.check_limits(conversion.send)?;
    Ok(conversion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Amount {
        Amount::parse(Currency::USD, text).unwrap()
    }

    fn cny(text: &str) -> Amount {
        Amount::parse(Currency::CNY, text).unwrap()
    }

    fn mid() -> Rate {
        Rate::parse(Currency::USD, Currency::CNY, "6.11350800126").unwrap()
    }

    fn pricing() -> CorridorPricing {
        CorridorPricing {
            margin: Margin::from_basis_points(25).unwrap(),
            fee: usd("0.30"),
            quote_ttl_ms: 60_000,
            send_max: Some(usd("500")),
            send_min: Some(usd("1")),
        }
    }

    #[test]
    fn either_side_may_be_fixed() {
        let sent = price(FixedSide::Send(usd("100")), mid(), &pricing()).unwrap();
        assert_eq!(
            (sent.send, sent.receive, sent.fee),
            (usd("100"), cny("607.99"), usd("0.30"))
        );
        let received = price(FixedSide::Receive(cny("607.99")), mid(), &pricing()).unwrap();
        assert_eq!((received.send, received.receive), (usd("100"), cny("607.99")));
        assert_eq!(sent.check(), Ok(()));
        assert_eq!(received.rate.value_string(), "6.09822423125");
    }

    #[test]
    fn limits_are_on_what_is_sent() {
        let check = |fixed, expected: Result<(), ConversionError>| {
            assert_eq!(price(fixed, mid(), &pricing()).map(|_| ()), expected, "{fixed:?}");
        };
        let too_large = || {
            Err(ConversionError::AmountTooLarge {
                side: Side::Send,
                maximum: usd("500"),
            })
        };
        let too_small = || {
            Err(ConversionError::AmountTooSmall {
                side: Side::Send,
                minimum: usd("1"),
            })
        };
        check(FixedSide::Send(usd("500")), Ok(()));
        check(FixedSide::Send(usd("500.01")), too_large());
        check(FixedSide::Send(usd("1")), Ok(()));
        check(FixedSide::Send(usd("0.99")), too_small());
        // Not even the fee: the minimum named is still the one that would do.
        check(FixedSide::Send(usd("0.01")), too_small());
        check(FixedSide::Receive(cny("3047.28")), Ok(()));
        check(FixedSide::Receive(cny("3047.29")), too_large());
        check(FixedSide::Receive(cny("0.01")), too_small());
        let error = price(FixedSide::Send(usd("501")), mid(), &pricing()).unwrap_err();
        assert_eq!(error.to_string(), "send amount too large: at most 500.00 USD");
    }

    #[test]
    fn a_minimum_in_the_way_of_the_fee_is_the_greater_one() {
        let small = CorridorPricing {
            send_min: Some(usd("0.10")),
            ..pricing()
        };
        let refused = price(FixedSide::Send(usd("0.05")), mid(), &small);
        assert_eq!(
            refused,
            Err(ConversionError::AmountTooSmall {
                side: Side::Send,
                minimum: usd("0.31")
            })
        );
        let open = CorridorPricing {
            send_min: None,
            send_max: None,
            ..pricing()
        };
        assert!(price(FixedSide::Send(usd("0.31")), mid(), &open).is_ok());
        assert!(price(FixedSide::Send(usd("9999999999.99")), mid(), &open).is_ok());
    }

    #[test]
    fn a_limit_in_another_currency_is_refused() {
        let broken = CorridorPricing {
            send_max: Some(cny("500")),
            ..pricing()
        };
        let (expected, got) = (Currency::USD, Currency::CNY);
        let refused = price(FixedSide::Send(usd("100")), mid(), &broken);
        assert_eq!(refused, Err(ConversionError::CurrencyMismatch { expected, got }));
    }

    #[test]
    fn a_quote_expires_after_its_time() {
        assert_eq!(pricing().expire_ms(1_000), 61_000);
        assert_eq!(pricing().expire_ms(i64::MAX), i64::MAX);
    }
}
