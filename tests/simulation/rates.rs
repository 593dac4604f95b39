//! The rates that were ever to be had, in integers: whether a rate that was quoted is one of them.

use std::{cell::RefCell, collections::BTreeMap};

use causeway::pb::gateway::v1 as pb;

use crate::{
    decimal::Exact,
    executor::START_MS,
    source::{Table, currencies, date_of},
};

/// How long after its publication a rate may be quoted, in milliseconds: the configuration's six days.
const STALE_AFTER_MS: i64 = 518_400_000;
/// A day's rates count as published at 15:00 UTC.
const PUBLISHED_AT_MS: i64 = 15 * 3_600_000;
/// How wrong a gateway's clock can be at most, in milliseconds: jumps and drift of a whole run.
const CLOCK_WRONG_MS: i64 = 40 * 86_400_000 / 24;

pub struct RateBook {
    tables: Vec<Table>,
    /// What was found to be right before.
    known: RefCell<BTreeMap<(String, String, String), bool>>,
}

impl RateBook {
    pub fn new(tables: Vec<Table>) -> Self {
        Self {
            tables,
            known: RefCell::default(),
        }
    }

    /// Promise 9 begins here: a quote is made of a rate that was published, and not too long ago.
    pub fn check(
        &self,
        at_us: u64,
        corridor: Option<&pb::Corridor>,
        conversion: &pb::Conversion,
        origin: Option<&pb::RateOrigin>,
    ) -> Result<(), (u8, String)> {
        let (Some(corridor), Some(origin)) = (corridor, origin) else {
            return Err((9, "a quote without its corridor or its origin".into()));
        };
        let (source, target) = (&corridor.source_currency, &corridor.target_currency);
        if !self.was_published(source, target, &conversion.mid_rate) {
            return Err((
                9,
                format!("{source}-{target} at {} was never published", conversion.mid_rate),
            ));
        }
        let table = self.tables.iter().find(|table| table.date.to_string() == origin.date);
        let Some(table) = table else {
            return Err((9, format!("nothing was published on {}", origin.date)));
        };
        let published_ms = table.date.midnight().assume_utc().unix_timestamp() * 1_000 + PUBLISHED_AT_MS;
        let now_ms = START_MS + (at_us / 1_000) as i64;
        if now_ms - published_ms > STALE_AFTER_MS + CLOCK_WRONG_MS {
            let today = date_of(now_ms);
            return Err((9, format!("a rate of {} was quoted on {today}", origin.date)));
        }
        Ok(())
    }

    /// Whether the mid rate follows from values that were published.
    pub fn was_published(&self, source: &str, target: &str, mid: &str) -> bool {
        let key = (source.to_owned(), target.to_owned(), mid.to_owned());
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let published = self.look_up(source, target, mid);
        self.known.borrow_mut().insert(key, published);
        published
    }

    /// A breaker may hold one currency at an older day's value than the other.
    fn look_up(&self, source: &str, target: &str, mid: &str) -> bool {
        let mid = Exact::parse(mid);
        let is = |a: &Table, b: &Table| match (value(a, source), value(b, target)) {
            (Some(from), Some(to)) => mid == cross(from, to),
            _ => false,
        };
        self.tables.iter().any(|table| is(table, table))
            || self.tables.iter().any(|a| self.tables.iter().any(|b| is(a, b)))
    }
}

/// Units for one euro, in millionths; none of a currency that nobody publishes.
fn value(table: &Table, currency: &str) -> Option<u64> {
    match currencies().position(|code| code == currency) {
        Some(index) => Some(table.values[index]),
        None => (currency == "EUR").then_some(1_000_000),
    }
}

/// Target units for one source unit: twelve significant digits, rounded half to even.
fn cross(source: u64, target: u64) -> Exact {
    let (source, mut scaled) = (u128::from(source), u128::from(target));
    let mut scale = 0;
    while scaled / source < 100_000_000_000 {
        scaled *= 10;
        scale += 1;
    }
    // A quotient of more digits than twelve would need the other direction; none of these currencies is so far from another.
    let (quotient, rest) = (scaled / source, scaled % source);
    assert!(quotient < 1_000_000_000_000, "twelve digits");
    let up = 2 * rest > source || (2 * rest == source && quotient % 2 == 1);
    Exact::new((quotient + u128::from(up)) as i128, scale)
}
