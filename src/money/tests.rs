//! Conversions against an auditor that shares no code with them: schoolbook arithmetic on strings of digits.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;

/// Unsigned decimals of any length as strings of digits: slow, obvious, and apart from the code under test.
mod schoolbook {
    use std::cmp::Ordering;

    /// Digits without the point, least significant first, and how many of them are decimals.
    #[derive(Clone, Debug)]
    pub struct Number {
        digits: Vec<u8>,
        decimals: usize,
    }

    pub fn number(text: &str) -> Number {
        let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let digits = text
            .bytes()
            .rev()
            .filter(u8::is_ascii_digit)
            .map(|byte| byte - b'0')
            .collect();
        Number { digits, decimals }
    }

    impl Number {
        fn aligned(&self, decimals: usize, len: usize) -> Vec<u8> {
            let mut digits = vec![0; decimals - self.decimals];
            digits.extend(&self.digits);
            digits.resize(len, 0);
            digits
        }

        fn both(&self, other: &Number) -> (Vec<u8>, Vec<u8>, usize) {
            let decimals = self.decimals.max(other.decimals);
            let len = self.digits.len().max(other.digits.len()) + decimals + 1;
            (self.aligned(decimals, len), other.aligned(decimals, len), decimals)
        }

        pub fn plus(&self, other: &Number) -> Number {
            let (a, b, decimals) = self.both(other);
            let mut carry = 0;
            let sum = a.iter().zip(&b).map(|(a, b)| {
                let column = a + b + carry;
                carry = column / 10;
                column % 10
            });
            Number {
                digits: sum.collect(),
                decimals,
            }
        }

        pub fn minus(&self, other: &Number) -> Number {
            assert!(self.compare(other).is_ge(), "below zero");
            let (a, b, decimals) = self.both(other);
            let mut borrow = 0;
            let difference = a.iter().zip(&b).map(|(a, b)| {
                let column = a + 10 - b - borrow;
                borrow = u8::from(column < 10);
                column % 10
            });
            Number {
                digits: difference.collect(),
                decimals,
            }
        }

        pub fn times(&self, other: &Number) -> Number {
            let mut columns = vec![0u32; self.digits.len() + other.digits.len() + 1];
            for (i, a) in self.digits.iter().enumerate() {
                for (j, b) in other.digits.iter().enumerate() {
                    columns[i + j] += u32::from(a * b);
                }
            }
            let mut carry = 0;
            let digits = columns.into_iter().map(|column| {
                let column = column + carry;
                carry = column / 10;
                (column % 10) as u8
            });
            Number {
                digits: digits.collect(),
                decimals: self.decimals + other.decimals,
            }
        }

        pub fn compare(&self, other: &Number) -> Ordering {
            let (a, b, _) = self.both(other);
            a.iter().rev().cmp(b.iter().rev())
        }
    }

    #[test]
    fn it_can_do_sums() {
        assert!(number("12.5").times(&number("0.08")).compare(&number("1")).is_eq());
        assert!(number("99.99").plus(&number("0.01")).compare(&number("100")).is_eq());
        assert!(number("100").minus(&number("0.001")).compare(&number("99.999")).is_eq());
        assert!(number("2").compare(&number("1.999999")).is_gt());
    }
}

use schoolbook::number;

fn amount(text: &str) -> Amount {
    let (value, code) = text.split_once(' ').unwrap();
    Amount::parse(Currency::parse(code).unwrap(), value).unwrap()
}

fn pricing(mid: &str, margin: &str, fee: &str) -> Pricing {
    let (value, pair) = mid.split_once(' ').unwrap();
    let (base, quote) = pair.split_once('/').unwrap();
    let mid = Rate::parse(base.parse().unwrap(), quote.parse().unwrap(), value).unwrap();
    Pricing {
        mid,
        margin: Margin::parse(margin).unwrap(),
        fee: amount(fee),
    }
}

/// One minor unit of a currency, as a decimal string.
fn unit(currency: Currency) -> String {
    Amount::from_minor(currency, 1).unwrap().decimal_string()
}

/// The promise, checked digit for digit: `(send - fee) x rate = receive + remainder`.
fn assert_balanced(conversion: &Conversion) {
    let net = number(&conversion.send.decimal_string()).minus(&number(&conversion.fee.decimal_string()));
    let worth = net.times(&number(&conversion.rate.value_string()));
    let receive = number(&conversion.receive.decimal_string());
    let sum = receive.plus(&number(&conversion.remainder_string()));
    assert!(worth.compare(&sum).is_eq(), "{conversion:?}");
    assert!(receive.compare(&worth).is_le(), "the gateway loses: {conversion:?}");
    assert!(!conversion.remainder.is_sign_negative());
    assert_eq!(conversion.check(), Ok(()));
}

fn parts<'a>(conversion: &Conversion, remainder: &'a str) -> ConversionParts<'a> {
    let Conversion {
        send,
        receive,
        fee,
        mid,
        margin,
        rate,
        ..
    } = *conversion;
    ConversionParts {
        send,
        receive,
        fee,
        mid,
        margin,
        rate,
        remainder,
    }
}

#[test]
fn fixed_send_rounds_down_once() {
    let check = |send: &str, priced: Pricing, receive: &str, remainder: &str| {
        let conversion = Conversion::fixed_send(amount(send), &priced).unwrap_or_else(|e| panic!("{send}: {e}"));
        assert_balanced(&conversion);
        assert_eq!(conversion.send, amount(send));
        assert_eq!(conversion.receive, amount(receive), "{send}");
        assert_eq!(conversion.remainder_string(), remainder, "{send}");
    };
    let alipay = pricing("6.11350800125 USD/CNY", "0.0025", "0.30 USD");
    check("100.00 USD", alipay, "607.99 CNY", "0.002955854628");
    check("0.31 USD", alipay, "0.06 CNY", "0.0009822423124");
    check("12.34 USD", pricing("1 USD/USD", "0", "0 USD"), "12.34 USD", "0");
    check("12.34 USD", pricing("1 USD/USD", "0", "0.34 USD"), "12.00 USD", "0");
    check("100 JPY", pricing("0.0021 JPY/KWD", "0", "0 JPY"), "0.210 KWD", "0");
    check(
        "1.000 KWD",
        pricing("470.123 KWD/JPY", "0", "0 KWD"),
        "470 JPY",
        "0.123",
    );
    check(
        "999999999999999 JPY",
        pricing("1 JPY/KRW", "0", "0 JPY"),
        "999999999999999 KRW",
        "0",
    );
    check("5 JPY", pricing("100 JPY/KWD", "0", "0 JPY"), "500.000 KWD", "0");
}

#[test]
fn fixed_receive_rounds_up_once() {
    let check = |receive: &str, priced: Pricing, send: &str, remainder: &str| {
        let conversion =
            Conversion::fixed_receive(amount(receive), &priced).unwrap_or_else(|e| panic!("{receive}: {e}"));
        assert_balanced(&conversion);
        assert_eq!(conversion.receive, amount(receive));
        assert_eq!(conversion.send, amount(send), "{receive}");
        assert_eq!(conversion.remainder_string(), remainder, "{receive}");
    };
    check(
        "607.99 CNY",
        pricing("6.11350800125 USD/CNY", "0.0025", "0.30 USD"),
        "100.00 USD",
        "0.002955854628",
    );
    check("12.34 USD", pricing("1 USD/USD", "0", "1 USD"), "13.34 USD", "0");
    // One yen is two fils and a bit: the remainder may be more than a fils.
    check("0.001 KWD", pricing("0.0021 JPY/KWD", "0", "0 JPY"), "1 JPY", "0.0011");
    check(
        "1 JPY",
        pricing("470.123 KWD/JPY", "0", "0 KWD"),
        "0.003 KWD",
        "0.410369",
    );
    check("0.001 KWD", pricing("100 JPY/KWD", "0", "0 JPY"), "1 JPY", "99.999");
}

#[test]
fn too_small_names_the_least_that_would_do() {
    let check = |send: &str, priced: Pricing, least: &str| {
        let refused = Conversion::fixed_send(amount(send), &priced);
        assert_eq!(
            refused,
            Err(ConversionError::AmountTooSmall {
                side: Side::Send,
                minimum: amount(least)
            })
        );
        assert!(Conversion::fixed_send(amount(least), &priced).is_ok(), "{least}");
        let below = amount(least)
            .checked_sub(Amount::from_minor(priced.mid.base(), 1).unwrap())
            .unwrap();
        assert!(Conversion::fixed_send(below, &priced).is_err(), "{below}");
    };
    check("0 USD", pricing("6.1 USD/CNY", "0", "0 USD"), "0.01 USD");
    check("0.30 USD", pricing("6.1 USD/CNY", "0", "0.30 USD"), "0.31 USD");
    check("0.29 USD", pricing("6.1 USD/CNY", "0", "0.30 USD"), "0.31 USD");
    check("0.30 CNY", pricing("0.16 CNY/USD", "0", "0.30 CNY"), "0.37 CNY");
    check("1 IDR", pricing("0.000024 IDR/KWD", "0", "0 IDR"), "41.67 IDR");
    let nothing = Conversion::fixed_receive(amount("0 CNY"), &pricing("6.1 USD/CNY", "0", "0 USD"));
    let minimum = amount("0.01 CNY");
    assert_eq!(
        nothing,
        Err(ConversionError::AmountTooSmall {
            side: Side::Receive,
            minimum
        })
    );
}

#[test]
fn too_large_names_the_most_that_fits() {
    let too_large = |side, currency| {
        Err(ConversionError::AmountTooLarge {
            side,
            maximum: Amount::max(currency),
        })
    };
    let strong = pricing("999999999999 USD/JPY", "0", "0 USD");
    let weak = pricing("0.000000000000000000000001 USD/JPY", "0", "0 USD");
    let max = Amount::max(Currency::USD);
    assert_eq!(
        Conversion::fixed_send(max, &strong),
        too_large(Side::Receive, Currency::JPY)
    );
    assert_eq!(Conversion::fixed_send(max, &weak), too_large(Side::Send, Currency::USD));
    assert_eq!(
        Conversion::fixed_receive(Amount::max(Currency::JPY), &weak),
        too_large(Side::Send, Currency::USD)
    );
    let with_fee = pricing("1 USD/USD", "0", "0.01 USD");
    assert_eq!(
        Conversion::fixed_receive(max, &with_fee),
        too_large(Side::Send, Currency::USD)
    );
}

#[test]
fn currencies_must_fit() {
    let mismatch = |expected, got| Err(ConversionError::CurrencyMismatch { expected, got });
    let fits = pricing("6.1 USD/CNY", "0", "0 USD");
    let wrong_fee = pricing("6.1 USD/CNY", "0", "0 CNY");
    let (usd, cny) = (Currency::USD, Currency::CNY);
    assert_eq!(Conversion::fixed_send(amount("1 CNY"), &fits), mismatch(usd, cny));
    assert_eq!(Conversion::fixed_receive(amount("1 USD"), &fits), mismatch(cny, usd));
    assert_eq!(Conversion::fixed_send(amount("1 USD"), &wrong_fee), mismatch(usd, cny));
    assert_eq!(
        Conversion::fixed_receive(amount("1 CNY"), &wrong_fee),
        mismatch(usd, cny)
    );
}

#[test]
fn what_was_written_down_reads_back_and_what_was_tampered_with_does_not() {
    let made = Conversion::fixed_send(
        amount("100 USD"),
        &pricing("6.11350800125 USD/CNY", "0.0025", "0.3 USD"),
    )
    .unwrap();
    let text = made.remainder_string();
    assert_eq!(Conversion::restore(parts(&made, &text)), Ok(made.clone()));

    let check = |violation: &str, tampered: ConversionParts<'_>| {
        let error = Conversion::restore(tampered).unwrap_err();
        assert_eq!(error.to_string(), violation, "{tampered:?}");
    };
    let whole = parts(&made, &text);
    let unbalanced = "inconsistent conversion: (send - fee) x rate is not receive + remainder";
    check(
        unbalanced,
        ConversionParts {
            send: amount("100.01 USD"),
            ..whole
        },
    );
    check(
        unbalanced,
        ConversionParts {
            receive: amount("608 CNY"),
            ..whole
        },
    );
    check(
        unbalanced,
        ConversionParts {
            fee: amount("0.29 USD"),
            ..whole
        },
    );
    check(
        unbalanced,
        ConversionParts {
            remainder: "0.002955854629",
            ..whole
        },
    );
    check(
        unbalanced,
        ConversionParts {
            remainder: "0",
            ..whole
        },
    );
    let other_rate = "inconsistent conversion: the rate is not the mid rate less the margin";
    check(
        other_rate,
        ConversionParts {
            margin: Margin::ZERO,
            ..whole
        },
    );
    check(
        other_rate,
        ConversionParts {
            rate: made.mid,
            ..whole
        },
    );
    let nothing_left = "inconsistent conversion: the fee leaves nothing to convert";
    check(
        nothing_left,
        ConversionParts {
            fee: amount("100 USD"),
            ..whole
        },
    );
    check(
        "inconsistent conversion: nothing is received",
        ConversionParts {
            receive: amount("0 CNY"),
            ..whole
        },
    );
    check(
        "currency mismatch: expected CNY, got USD",
        ConversionParts {
            receive: amount("607.99 USD"),
            ..whole
        },
    );
    check(
        "currency mismatch: expected USD, got CNY",
        ConversionParts {
            fee: amount("0.3 CNY"),
            ..whole
        },
    );
    let not_a_decimal = "inconsistent conversion: the remainder is not a decimal";
    for remainder in [
        "",
        "-0.1",
        "1e-3",
        "0.00000000000000000000000000001",
        "99999999999999999999999999999999",
    ] {
        check(not_a_decimal, ConversionParts { remainder, ..whole });
    }
    // In balance, and yet ten fen short of what one rounding would deliver.
    let short = ConversionParts {
        receive: amount("607.89 CNY"),
        remainder: "0.102955854628",
        ..whole
    };
    check(
        "inconsistent conversion: the remainder is more than one rounding leaves",
        short,
    );
    let negative = Conversion {
        remainder: Decimal::from_str_exact("-0.007044145372").unwrap(),
        ..made
    };
    let negative = Conversion {
        receive: amount("608.00 CNY"),
        ..negative
    };
    assert_eq!(
        negative.check(),
        Err(ConversionError::Inconsistent {
            violation: "the remainder is negative"
        })
    );
}

fn currencies() -> impl Strategy<Value = Currency> {
    prop::sample::select(Currency::all().collect::<Vec<_>>())
}

/// Minor units, as likely of any number of digits.
fn minors() -> impl Strategy<Value = u64> {
    (0u32..=15).prop_flat_map(|digits| 0..10u64.pow(digits))
}

/// Rates as likely of any size, up to the bounds and including them.
fn rates(base: Currency, quote: Currency) -> impl Strategy<Value = Rate> {
    let coefficient = (1u32..=12).prop_flat_map(|digits| 1..10u64.pow(digits));
    (coefficient, 0u32..=24).prop_map(move |(coefficient, scale)| {
        let text = Decimal::from_i128_with_scale(i128::from(coefficient), scale).to_string();
        Rate::parse(base, quote, &text).unwrap()
    })
}

fn pricings() -> impl Strategy<Value = Pricing> {
    let margins = prop_oneof![Just(0u32), 0u32..200, 0u32..10_000];
    let fees = prop_oneof![Just(0), 0u64..1_000, minors()];
    (currencies(), currencies(), margins, fees).prop_flat_map(|(base, quote, margin, fee)| {
        let margin = Margin::from_basis_points(margin).unwrap();
        let fee = Amount::from_minor(base, fee).unwrap();
        rates(base, quote).prop_map(move |mid| Pricing { mid, margin, fee })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn amounts_print_and_read_back(currency in currencies(), minor in minors()) {
        let amount = Amount::from_minor(currency, minor).unwrap();
        prop_assert_eq!(Amount::parse(currency, &amount.decimal_string()), Ok(amount));
    }

    #[test]
    fn rates_print_and_read_back(rate in rates(Currency::EUR, Currency::USD)) {
        prop_assert_eq!(Rate::parse(Currency::EUR, Currency::USD, &rate.value_string()), Ok(rate));
    }

    #[test]
    fn any_text_is_an_amount_a_rate_and_a_margin_or_an_error(text in "[0-9.+eE\\- ]{0,40}") {
        // What is read prints as an equal number: nothing is rounded, nothing invented.
        if let Ok(amount) = Amount::parse(Currency::KWD, &text) {
            prop_assert!(number(&amount.decimal_string()).compare(&number(&text)).is_eq());
        }
        if let Ok(rate) = Rate::parse(Currency::EUR, Currency::USD, &text) {
            prop_assert!(number(&rate.value_string()).compare(&number(&text)).is_eq());
        }
        if let Ok(margin) = Margin::parse(&text) {
            prop_assert!(number(&margin.as_string()).compare(&number(&text)).is_eq());
        }
    }

    #[test]
    fn the_customer_rate_is_never_above_the_mid_rate_less_the_margin(priced in pricings()) {
        if let Ok(rate) = priced.rate() {
            let kept = number("1").minus(&number(&priced.margin.as_string()));
            let exact = number(&priced.mid.value_string()).times(&kept);
            prop_assert!(number(&rate.value_string()).compare(&exact).is_le());
        }
    }

    #[test]
    fn a_cross_rate_is_within_half_a_unit_of_its_last_digit(
        from in rates(Currency::EUR, Currency::USD),
        to in rates(Currency::EUR, Currency::CNY),
    ) {
        if let Ok(cross) = Rate::cross(from, to) {
            // |cross x from - to| <= from x half a unit of the 12th digit.
            let text = cross.value_string();
            let (cross, from, to) = (number(&text), number(&from.value_string()), number(&to.value_string()));
            let digits = text.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
            let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len()) as i32 + 12 - digits as i32;
            let half = match decimals {
                0 => "0.5".to_owned(),
                decimals if decimals > 0 => format!("0.{}5", "0".repeat(decimals as usize)),
                decimals => format!("5{}", "0".repeat(-decimals as usize - 1)),
            };
            let bound = number(&half).times(&from);
            let product = cross.times(&from);
            let off = if product.compare(&to).is_ge() { product.minus(&to) } else { to.minus(&product) };
            prop_assert!(off.compare(&bound).is_le(), "{} off by more than {}", text, half);
        }
    }

    #[test]
    fn fixed_send_is_exact_and_rounds_less_than_one_minor_unit(priced in pricings(), minor in minors()) {
        let send = Amount::from_minor(priced.mid.base(), minor).unwrap();
        if let Ok(conversion) = Conversion::fixed_send(send, &priced) {
            assert_balanced(&conversion);
            prop_assert_eq!(conversion.send, send);
            let unit = number(&unit(priced.mid.quote()));
            prop_assert!(number(&conversion.remainder_string()).compare(&unit).is_lt());
            let text = conversion.remainder_string();
            prop_assert_eq!(Conversion::restore(parts(&conversion, &text)), Ok(conversion));
        }
    }

    #[test]
    fn fixed_receive_delivers_exactly_and_one_unit_less_would_not(priced in pricings(), minor in minors()) {
        let receive = Amount::from_minor(priced.mid.quote(), minor).unwrap();
        if let Ok(conversion) = Conversion::fixed_receive(receive, &priced) {
            assert_balanced(&conversion);
            prop_assert_eq!(conversion.receive, receive);
            let net = number(&conversion.send.decimal_string()).minus(&number(&conversion.fee.decimal_string()));
            let less = net.minus(&number(&unit(priced.mid.base())));
            let worth = less.times(&number(&conversion.rate.value_string()));
            prop_assert!(worth.compare(&number(&receive.decimal_string())).is_lt(), "not the fewest: {conversion:?}");
            let text = conversion.remainder_string();
            prop_assert_eq!(Conversion::restore(parts(&conversion, &text)), Ok(conversion));
        }
    }

    #[test]
    fn sending_what_was_asked_for_delivers_at_least_as_much(priced in pricings(), minor in minors()) {
        let receive = Amount::from_minor(priced.mid.quote(), minor).unwrap();
        if let Ok(asked) = Conversion::fixed_receive(receive, &priced) {
            match Conversion::fixed_send(asked.send, &priced) {
                Ok(sent) => prop_assert!(sent.receive.minor() >= receive.minor()),
                // At the very top the coarser send unit is worth more than an amount can hold.
                Err(error) => prop_assert!(
                    matches!(error, ConversionError::AmountTooLarge { side: Side::Receive, .. }), "{error}"
                ),
            }
        }
    }

    #[test]
    fn the_least_that_would_do_does(priced in pricings(), minor in 0u64..1_000) {
        let send = Amount::from_minor(priced.mid.base(), minor).unwrap();
        if let Err(ConversionError::AmountTooSmall { minimum, .. }) = Conversion::fixed_send(send, &priced) {
            prop_assert!(minimum.minor() > minor);
            let delivered = Conversion::fixed_send(minimum, &priced);
            prop_assert!(
                matches!(delivered, Ok(_) | Err(ConversionError::AmountTooLarge { side: Side::Receive, .. })),
                "{delivered:?}"
            );
        }
    }
}
