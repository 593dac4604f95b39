//! Decimal strings by integer arithmetic, written for the tests alone: it shares nothing with the code that is tested.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{cmp::Ordering, fmt};

use causeway::pb::gateway::v1::Conversion;

/// `digits / 10^scale`, exact.
#[derive(Clone, Copy)]
pub struct Exact {
    digits: i128,
    scale: u32,
}

impl Exact {
    /// `digits / 10^scale`.
    pub fn new(digits: i128, scale: u32) -> Self {
        Self { digits, scale }
    }

    /// Reads "-12.34". Panics on anything that is no plain decimal.
    pub fn parse(text: &str) -> Self {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        assert!(
            !whole.is_empty() && plain(whole) && plain(fraction),
            "{text:?} is no decimal"
        );
        let digits: i128 = format!("{whole}{fraction}").parse().expect("few enough digits");
        Self {
            digits: if negative { -digits } else { digits },
            scale: fraction.len() as u32,
        }
    }

    /// One in the last place of a decimal: 0.01 for "12.34".
    pub fn last_place(text: &str) -> Self {
        Self {
            digits: 1,
            scale: Self::parse(text).scale,
        }
    }

    pub fn plus(self, other: Self) -> Self {
        let (a, b, scale) = self.aligned(other);
        Self { digits: a + b, scale }
    }

    pub fn minus(self, other: Self) -> Self {
        let (a, b, scale) = self.aligned(other);
        Self { digits: a - b, scale }
    }

    pub fn times(self, other: Self) -> Self {
        Self {
            digits: self.digits.checked_mul(other.digits).expect("few enough digits"),
            scale: self.scale + other.scale,
        }
    }

    /// Cut, never rounded up, after so many significant digits.
    pub fn cut(self, significant: usize) -> Self {
        let (mut digits, mut scale) = (self.digits, self.scale);
        while digits.unsigned_abs().to_string().len() > significant {
            digits /= 10;
            scale = scale.checked_sub(1).expect("only decimals are cut");
        }
        Self { digits, scale }
    }

    pub fn is_negative(self) -> bool {
        self.digits < 0
    }

    fn aligned(self, other: Self) -> (i128, i128, u32) {
        let scale = self.scale.max(other.scale);
        let stretch = |value: Self| {
            10i128
                .checked_pow(scale - value.scale)
                .and_then(|factor| value.digits.checked_mul(factor))
                .expect("few enough digits")
        };
        (stretch(self), stretch(other), scale)
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let (a, b, _) = self.aligned(*other);
        a.partial_cmp(&b)
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}e-{}", self.digits, self.scale)
    }
}

/// Panics unless the conversion is right; see [`conversion_problem`].
pub fn check_conversion(conversion: &Conversion, what: &str) {
    if let Some(problem) = conversion_problem(conversion) {
        panic!("{what}: {problem}: {conversion:?}");
    }
}

/// What is wrong with a conversion, unless it is exact to the last digit and what its one rounding left is as small as it
/// can be: below one minor unit of the target, or below what one minor unit of the source buys.
pub fn conversion_problem(conversion: &Conversion) -> Option<&'static str> {
    let money = |money: &Option<causeway::pb::money::v1::Money>| money.clone().expect("an amount").amount;
    let (send, receive, fee) = (
        money(&conversion.send_amount),
        money(&conversion.receive_amount),
        money(&conversion.fee),
    );
    let one = Exact::parse("1");
    let (rate, remainder) = (Exact::parse(&conversion.rate), Exact::parse(&conversion.remainder));
    let converted = Exact::parse(&send).minus(Exact::parse(&fee)).times(rate);
    let (target_unit, source_unit) = (Exact::last_place(&receive), Exact::last_place(&send).times(rate));
    let rate_expected = Exact::parse(&conversion.mid_rate)
        .times(one.minus(Exact::parse(&conversion.margin)))
        .cut(12);
    let rules = [
        (
            converted == Exact::parse(&receive).plus(remainder),
            "not (send - fee) x rate = receive + remainder",
        ),
        (!remainder.is_negative(), "the remainder is negative"),
        (
            remainder < target_unit || remainder < source_unit,
            "more than one rounding left",
        ),
        (rate == rate_expected, "not rate = mid x (1 - margin)"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, problem)| problem)
}

#[test]
fn the_check_of_conversions_sees_a_cent_and_the_last_digit() {
    let money = |amount: &str| {
        Some(causeway::pb::money::v1::Money {
            currency: "USD".into(),
            amount: amount.into(),
        })
    };
    let good = Conversion {
        send_amount: money("10.00"),
        receive_amount: money("19.60"),
        fee: money("0.20"),
        mid_rate: "2.5".into(),
        margin: "0.2".into(),
        rate: "2".into(),
        remainder: "0".into(),
    };
    assert_eq!(conversion_problem(&good), None);
    type Break = fn(&mut Conversion);
    let breaks: [(&str, Break); 4] = [
        ("receive + remainder", |c| {
            c.receive_amount.as_mut().expect("set").amount = "19.61".into()
        }),
        ("receive + remainder", |c| c.remainder = "0.000000001".into()),
        ("more than one rounding", |c| {
            c.receive_amount.as_mut().expect("set").amount = "19.50".into();
            c.remainder = "0.1".into();
        }),
        ("mid x (1 - margin)", |c| c.mid_rate = "2.6".into()),
    ];
    for (says, change) in breaks {
        let mut bad = good.clone();
        change(&mut bad);
        let problem = conversion_problem(&bad).expect("a problem");
        assert!(problem.contains(says), "{says}: {problem}");
    }
}
