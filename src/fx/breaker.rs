//! The breaker: which of the values that a source offers are believed. Pure.
//!
//! A value that jumps beyond the deviation limit against the last good one is held back, alone: the old value stays,
//! with its old date, so that it grows stale if nobody acts. It closes when the source comes back within range, or
//! when an operator accepts the jump. Older rates than those in use are held back too, without tripping anything.
//!
//! Invariant: a value that [`Guard::admit`] lets through is the first of its currency, within the limit of the last
//! good one, or accepted.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::table::{Entry, RateTable};
use crate::money::Currency;

/// A currency whose offered rate is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// The currency that jumped against the source's base.
    pub currency: Currency,
    /// The last good entry: what is in use.
    pub held: Entry,
    /// What the source offers now.
    pub offered: Entry,
    /// When it tripped, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// What happened while a table was admitted; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The value jumped; the old one stays in use.
    Tripped(Breaker),
    /// The source came back within range of the last good value.
    Closed(Breaker),
    /// The source offered an older day than the one in use, which stays.
    Older {
        currency: Currency,
        held: Entry,
        offered: Entry,
    },
}

/// The last good value of each currency, and the breakers that are open.
#[derive(Debug)]
pub(super) struct Guard {
    deviation_max: Decimal,
    /// Kept when a currency drops out of the table, so that a jump cannot hide behind an absence.
    trusted: BTreeMap<Currency, Entry>,
    breakers: BTreeMap<Currency, Breaker>,
}

impl Guard {
    /// A guard that has seen nothing. `deviation_max` is a fraction of the last good value.
    pub(super) fn new(deviation_max: Decimal) -> Guard {
        Guard {
            deviation_max,
            trusted: BTreeMap::new(),
            breakers: BTreeMap::new(),
        }
    }

    /// The table to use instead of the offered one: the same currencies, each with its last good value.
    pub(super) fn admit(&mut self, offered: &RateTable, now_ms: i64) -> (RateTable, Vec<Event>) {
        let mut table = offered.clone();
        let mut events = Vec::new();
        for (&currency, &offered) in offered.entries() {
            let (entry, event) = self.admit_entry(currency, offered, now_ms);
            table.replace(entry);
            events.extend(event);
        }
        (table, events)
    }

    /// Takes the offered value of a tripped currency as good; returns the breaker that this closes.
    pub(super) fn accept(&mut self, currency: Currency) -> Option<Breaker> {
        let breaker = self.breakers.remove(&currency)?;
        self.trusted.insert(currency, breaker.offered);
        Some(breaker)
    }

    /// The open breakers, by currency.
    pub(super) fn breakers(&self) -> impl Iterator<Item = &Breaker> {
        self.breakers.values()
    }

    fn admit_entry(&mut self, currency: Currency, offered: Entry, now_ms: i64) -> (Entry, Option<Event>) {
        let Some(&held) = self.trusted.get(&currency) else {
            self.trusted.insert(currency, offered);
            return (offered, None);
        };
        if offered.date < held.date {
            return (
                held,
                Some(Event::Older {
                    currency,
                    held,
                    offered,
                }),
            );
        }
        if self.within_range(held, offered) {
            self.trusted.insert(currency, offered);
            return (offered, self.breakers.remove(&currency).map(Event::Closed));
        }
        let open = self.breakers.get(&currency);
        let since_ms = open.map_or(now_ms, |breaker| breaker.since_ms);
        let breaker = Breaker {
            currency,
            held,
            offered,
            since_ms,
        };
        // Said once, not at every fetch that offers the same jump.
        let event = open.is_none().then(|| Event::Tripped(breaker.clone()));
        self.breakers.insert(currency, breaker);
        (held, event)
    }

    /// Whether `|offered - held| <= deviation_max x held`. What cannot be computed is out of range.
    fn within_range(&self, held: Entry, offered: Entry) -> bool {
        let distance = offered.value().checked_sub(held.value()).map(|distance| distance.abs());
        let allowed = held.value().checked_mul(self.deviation_max);
        matches!((distance, allowed), (Some(distance), Some(allowed)) if distance <= allowed)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;
    use time::{Date, Duration};

    use super::*;
    use crate::money::Rate;

    const DAY: Date = date!(2014 - 10 - 27);

    fn entry(quote: Currency, value: &str, date: Date) -> Entry {
        Entry {
            rate: Rate::parse(Currency::EUR, quote, value).unwrap(),
            date,
        }
    }

    fn table(day: i64, values: &[(Currency, &str)]) -> RateTable {
        let mut table = RateTable::new(Currency::EUR, "test");
        for (currency, value) in values {
            table
                .insert(entry(*currency, value, DAY).rate, DAY + Duration::days(day))
                .unwrap();
        }
        table
    }

    fn guard() -> Guard {
        let mut guard = Guard::new(Decimal::new(10, 2));
        guard.admit(&table(0, &[(Currency::USD, "1.25"), (Currency::CNY, "8")]), 0);
        guard
    }

    #[test]
    fn the_limit_is_a_fraction_of_the_last_good_value_either_way() {
        let check = |value: &str, admitted: bool| {
            let (table, events) = guard().admit(&table(1, &[(Currency::USD, value)]), 7);
            assert_eq!(
                table.entries()[&Currency::USD].rate.value_string() == value,
                admitted,
                "{value}"
            );
            assert_eq!(events.is_empty(), admitted, "{value}: {events:?}");
        };
        check("1.375", true);
        check("1.37500000001", false);
        check("1.125", true);
        check("1.12499999999", false);
        check("125", false);
        check("0.000000000000000000000001", false);
        check("999999999999", false);
    }

    #[test]
    fn a_jump_is_held_back_alone_and_said_once() {
        let mut guard = guard();
        let offer = table(1, &[(Currency::USD, "2.5"), (Currency::CNY, "8.1")]);
        let (table, events) = guard.admit(&offer, 7);
        let held = entry(Currency::USD, "1.25", DAY);
        let offered = entry(Currency::USD, "2.5", DAY + Duration::days(1));
        let breaker = Breaker {
            currency: Currency::USD,
            held,
            offered,
            since_ms: 7,
        };
        assert_eq!(events, [Event::Tripped(breaker.clone())]);
        assert_eq!(table.entries()[&Currency::USD], held);
        assert_eq!(
            table.entries()[&Currency::CNY],
            entry(Currency::CNY, "8.1", DAY + Duration::days(1))
        );
        assert_eq!(guard.admit(&offer, 8).1, []);
        assert_eq!(guard.breakers().collect::<Vec<_>>(), [&breaker]);
    }

    #[test]
    fn it_closes_when_the_source_comes_back() {
        let mut guard = guard();
        guard.admit(&table(1, &[(Currency::USD, "2.5")]), 7);
        let (table, events) = guard.admit(&table(2, &[(Currency::USD, "1.3")]), 8);
        assert!(matches!(&events[..], [Event::Closed(_)]));
        assert_eq!(
            table.entries()[&Currency::USD],
            entry(Currency::USD, "1.3", DAY + Duration::days(2))
        );
        assert_eq!(guard.breakers().count(), 0);
    }

    #[test]
    fn it_closes_when_an_operator_accepts_the_latest_offer() {
        let mut guard = guard();
        assert_eq!(guard.accept(Currency::USD), None);
        guard.admit(&table(1, &[(Currency::USD, "2.5")]), 7);
        guard.admit(&table(2, &[(Currency::USD, "2.6")]), 8);
        let accepted = guard.accept(Currency::USD).unwrap();
        assert_eq!(
            (accepted.offered.rate.value_string().as_str(), accepted.since_ms),
            ("2.6", 7)
        );
        let (table, events) = guard.admit(&table(3, &[(Currency::USD, "2.7")]), 9);
        assert_eq!(events, []);
        assert_eq!(table.entries()[&Currency::USD].rate.value_string(), "2.7");
    }

    #[test]
    fn a_jump_cannot_hide_behind_an_absence() {
        let mut guard = guard();
        let (without, _) = guard.admit(&table(1, &[(Currency::CNY, "8")]), 7);
        assert!(!without.entries().contains_key(&Currency::USD));
        let (_, events) = guard.admit(&table(2, &[(Currency::USD, "2.5")]), 8);
        assert!(matches!(&events[..], [Event::Tripped(_)]));
    }

    #[test]
    fn an_older_day_does_not_replace_a_newer_one() {
        let mut guard = guard();
        let (table, events) = guard.admit(&table(-1, &[(Currency::USD, "1.24")]), 7);
        assert!(matches!(&events[..], [Event::Older { .. }]));
        assert_eq!(table.entries()[&Currency::USD], entry(Currency::USD, "1.25", DAY));
        assert_eq!(guard.breakers().count(), 0);
    }
}
