//! A table of rates: what one source published, and the mid rates that follow from it. Pure.
//!
//! Invariant: every entry prices the table's base in another currency.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use time::macros::format_description;
use time::{Date, Time};

use super::FxError;
use crate::money::{Currency, Rate};

/// When reference rates of a day count as published: 15:00 UTC. The European Central Bank publishes them at around
/// 16:00 Central European Time, which is 15:00 UTC in winter and 14:00 UTC in summer.
const PUBLISHED_AT: Time = time::macros::time!(15:00);

/// What a source published for one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Units of the currency for one unit of the table's base, as published.
    pub rate: Rate,
    /// The day for which it was published.
    pub date: Date,
}

impl Entry {
    /// Units of the currency for one unit of the table's base, exact.
    pub fn value(&self) -> Decimal {
        self.rate.value()
    }
}

/// Where a mid rate came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateOrigin {
    /// The source's name: "European Central Bank".
    pub source: Arc<str>,
    /// The day for which it was published; of a cross rate, the older of its two days. Prints as ISO 8601.
    pub date: Date,
}

/// Why an entry does not belong in a table. The source is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The table has a rate for the currency already.
    #[error("duplicate currency {currency}")]
    Duplicate {
        /// The currency that came twice.
        currency: Currency,
    },
    /// The entry does not price the table's base in another currency.
    #[error("rate {rate} does not belong in a table of {base}")]
    Misplaced {
        /// The rate that came.
        rate: Rate,
        /// The base of the table.
        base: Currency,
    },
}

/// What one source published: units of each currency for one unit of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateTable {
    base: Currency,
    source: Arc<str>,
    entries: BTreeMap<Currency, Entry>,
    skipped: Vec<String>,
}

impl RateTable {
    /// A table without entries.
    pub fn new(base: Currency, source: impl Into<Arc<str>>) -> RateTable {
        RateTable {
            base,
            source: source.into(),
            entries: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    /// Adds what was published for one currency.
    ///
    /// # Errors
    /// [`TableError`] if it is there already or does not price the base in another currency.
    pub fn insert(&mut self, rate: Rate, date: Date) -> Result<(), TableError> {
        let currency = rate.quote();
        if rate.base() != self.base || currency == self.base {
            return Err(TableError::Misplaced { rate, base: self.base });
        }
        if self.entries.contains_key(&currency) {
            return Err(TableError::Duplicate { currency });
        }
        self.entries.insert(currency, Entry { rate, date });
        Ok(())
    }

    /// Notes a code that the source published a rate for and that the gateway does not know.
    pub fn skip(&mut self, code: impl Into<String>) {
        self.skipped.push(code.into());
    }

    /// Puts an entry in the place of the one that the currency has.
    pub(super) fn replace(&mut self, entry: Entry) {
        if let Some(present) = self.entries.get_mut(&entry.rate.quote()) {
            *present = entry;
        }
    }

    /// The currency that every entry prices.
    pub fn base(&self) -> Currency {
        self.base
    }

    /// The source's name.
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// The entries by currency; the base has none.
    pub fn entries(&self) -> &BTreeMap<Currency, Entry> {
        &self.entries
    }

    /// Codes that the source published a rate for and that the gateway does not know.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The newest day of any entry; `None` if there are no entries.
    pub fn newest(&self) -> Option<Date> {
        self.entries.values().map(|entry| entry.date).max()
    }

    /// Every currency that can be priced, the base among them, by code.
    pub fn currencies(&self) -> impl Iterator<Item = Currency> {
        let mut currencies: Vec<Currency> = self.entries.keys().copied().chain([self.base]).collect();
        currencies.sort_unstable();
        currencies.into_iter()
    }

    /// The mid rate of an ordered pair: units of `quote` for one unit of `base`. A cross rate goes through the table's
    /// base and is rounded half to even at the 12th significant digit; against the base itself a published rate stays
    /// as it is. A currency in itself is 1, of the table's newest day.
    ///
    /// # Errors
    /// [`FxError::RateUnknown`], [`FxError::RateUnusable`].
    pub fn mid(&self, base: Currency, quote: Currency) -> Result<(Rate, RateOrigin), FxError> {
        let unknown = |missing| FxError::RateUnknown {
            base,
            quote,
            missing,
            origin: self.source.clone(),
        };
        let newest = self.newest().ok_or_else(|| unknown(quote))?;
        let origin = |date| RateOrigin {
            source: self.source.clone(),
            date,
        };
        if base == quote {
            return Ok((Rate::identity(base), origin(newest)));
        }
        let from = self.leg(base, newest).ok_or_else(|| unknown(base))?;
        let to = self.leg(quote, newest).ok_or_else(|| unknown(quote))?;
        let rate = Rate::cross(from.rate, to.rate).map_err(FxError::RateUnusable)?;
        Ok((rate, origin(from.date.min(to.date))))
    }

    /// What the base is worth in `currency`. In itself it is worth 1 on every day, so its day never is the older one.
    fn leg(&self, currency: Currency, newest: Date) -> Option<Entry> {
        if currency == self.base {
            return Some(Entry {
                rate: Rate::identity(currency),
                date: newest,
            });
        }
        self.entries.get(&currency).copied()
    }
}

/// Reads a calendar date as a [`RateOrigin`] prints it: ISO 8601, "2014-10-28".
///
/// # Errors
/// What the calendar says against it.
pub fn parse_date(text: &str) -> Result<Date, time::error::Parse> {
    Date::parse(text, format_description!("[year]-[month]-[day]"))
}

/// The instant at which the rates of a day count as published (15:00 UTC), in milliseconds since the Unix epoch.
/// Staleness is counted from it.
pub fn published_ms(date: Date) -> i64 {
    date.with_time(PUBLISHED_AT).assume_utc().unix_timestamp() * 1_000
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;
    use crate::fx::ecb;

    fn rate(quote: &str, value: &str) -> Rate {
        Rate::parse(Currency::EUR, quote.parse().unwrap(), value).unwrap()
    }

    fn table() -> RateTable {
        let mut table = RateTable::new(Currency::EUR, "test");
        table.insert(rate("USD", "1.2748"), date!(2014 - 10 - 28)).unwrap();
        table.insert(rate("CNY", "7.7935"), date!(2014 - 10 - 27)).unwrap();
        table.insert(rate("JPY", "137.45"), date!(2014 - 10 - 28)).unwrap();
        table
    }

    #[test]
    fn mid_rates_go_through_the_base() {
        let check = |base: Currency, quote: Currency, value: &str, date| {
            let (rate, origin) = table().mid(base, quote).unwrap();
            assert_eq!((rate.base(), rate.quote()), (base, quote));
            assert_eq!(rate.value_string(), value, "{base}/{quote}");
            assert_eq!(
                origin,
                RateOrigin {
                    source: "test".into(),
                    date
                },
                "{base}/{quote}"
            );
        };
        check(Currency::EUR, Currency::USD, "1.2748", date!(2014 - 10 - 28));
        check(Currency::USD, Currency::EUR, "0.784436774396", date!(2014 - 10 - 28));
        check(Currency::USD, Currency::CNY, "6.11350800126", date!(2014 - 10 - 27));
        check(Currency::CNY, Currency::JPY, "17.6364919484", date!(2014 - 10 - 27));
        check(Currency::JPY, Currency::USD, "0.00927464532557", date!(2014 - 10 - 28));
        check(Currency::EUR, Currency::CNY, "7.7935", date!(2014 - 10 - 27));
        check(Currency::USD, Currency::USD, "1", date!(2014 - 10 - 28));
        check(Currency::KWD, Currency::KWD, "1", date!(2014 - 10 - 28));
    }

    #[test]
    fn what_the_source_lacks_is_unknown() {
        let check = |base, quote, lacks| match table().mid(base, quote) {
            Err(FxError::RateUnknown { missing, .. }) => assert_eq!(missing, lacks),
            other => panic!("{other:?}"),
        };
        check(Currency::KWD, Currency::USD, Currency::KWD);
        check(Currency::USD, Currency::KWD, Currency::KWD);
        check(Currency::EUR, Currency::KWD, Currency::KWD);
        let empty = RateTable::new(Currency::EUR, "test");
        assert!(matches!(
            empty.mid(Currency::EUR, Currency::EUR),
            Err(FxError::RateUnknown { .. })
        ));
        let error = table().mid(Currency::KWD, Currency::USD).unwrap_err();
        assert_eq!(error.to_string(), "no rate KWD/USD: test has none for KWD");
    }

    #[test]
    fn an_entry_must_belong_and_comes_once() {
        let mut table = table();
        let today = date!(2014 - 10 - 28);
        let currency = Currency::USD;
        assert_eq!(
            table.insert(rate("USD", "1.3"), today),
            Err(TableError::Duplicate { currency })
        );
        let base = Currency::EUR;
        let itself = Rate::identity(base);
        assert_eq!(
            table.insert(itself, today),
            Err(TableError::Misplaced { rate: itself, base })
        );
        let foreign = Rate::parse(Currency::USD, Currency::KWD, "0.3").unwrap();
        assert_eq!(
            table.insert(foreign, today),
            Err(TableError::Misplaced { rate: foreign, base })
        );
    }

    #[test]
    fn rates_count_as_published_at_three_in_the_afternoon() {
        assert_eq!(published_ms(date!(1970 - 01 - 01)), 15 * 3_600_000);
        assert_eq!(published_ms(date!(2014 - 10 - 28)), 1_414_508_400_000);
    }

    #[test]
    fn days_print_and_read_back() {
        assert_eq!(date!(2014 - 10 - 08).to_string(), "2014-10-08");
        assert_eq!(parse_date("2014-10-08").unwrap(), date!(2014 - 10 - 08));
        for text in [
            "",
            "2014-10-8",
            "2014-02-30",
            "08.10.2014",
            "2014-10-08 ",
            "+2014-10-08T",
        ] {
            assert!(parse_date(text).is_err(), "{text:?}");
        }
    }

    /// Significant digits of `numerator / denominator`, half to even at the 12th, by long division on the published
    /// strings. Shares nothing with the implementation: it works on text and on plain integers.
    fn long_division(numerator: &str, denominator: &str) -> String {
        let integer = |text: &str| text.replace('.', "").parse::<u128>().unwrap();
        let decimals = |text: &str| text.split('.').nth(1).map_or(0, str::len);
        let width = decimals(numerator).max(decimals(denominator));
        let whole = |text: &str| integer(text) * 10u128.pow((width - decimals(text)) as u32);
        let (mut rest, divisor) = (whole(numerator), whole(denominator));

        // One digit at a time, as on paper: first the whole part, then the decimals until 12 digits count.
        let mut digits = (rest / divisor).to_string();
        rest %= divisor;
        let mut point = digits.len();
        if digits == "0" {
            digits.clear();
            point = 0;
        }
        let mut leading_zeros = 0;
        while digits.len() < 12 {
            rest *= 10;
            let digit = rest / divisor;
            rest %= divisor;
            if digits.is_empty() && digit == 0 {
                leading_zeros += 1;
            } else {
                digits.push_str(&digit.to_string());
            }
        }
        assert_eq!(
            digits.len(),
            12,
            "no published pair has more than 12 digits before the point"
        );
        let odd = digits.ends_with(['1', '3', '5', '7', '9']);
        let up = rest * 2 > divisor || (rest * 2 == divisor && odd);
        let rounded = (digits.parse::<u128>().unwrap() + u128::from(up)).to_string();
        if rounded.len() > 12 {
            point += 1;
        }
        let (before, after) = rounded.split_at(point);
        let text = format!(
            "{}.{}{after}",
            if before.is_empty() { "0" } else { before },
            "0".repeat(leading_zeros)
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    #[test]
    fn every_ordered_pair_of_one_day_agrees_with_long_division() {
        let day = date!(2014 - 10 - 28);
        let table = ecb::parse_csv(ecb::SAMPLE.as_bytes(), Some(day)).unwrap();
        let header = ecb::SAMPLE.lines().next().unwrap().split(',');
        let row = ecb::SAMPLE
            .lines()
            .find(|line| line.starts_with("2014-10-28"))
            .unwrap()
            .split(',');
        let published = header
            .zip(row)
            .skip(1)
            .filter(|(code, value)| !code.is_empty() && *value != "N/A");
        let published: Vec<(&str, &str)> = published.chain([("EUR", "1")]).collect();
        let mut pairs = 0;
        for (base, base_value) in &published {
            for (quote, quote_value) in &published {
                let (rate, origin) = table.mid(base.parse().unwrap(), quote.parse().unwrap()).unwrap();
                assert_eq!(
                    rate.value_string(),
                    long_division(quote_value, base_value),
                    "{base}/{quote}"
                );
                assert_eq!(origin.date, day);
                pairs += 1;
            }
        }
        assert_eq!(pairs, 33 * 33);
    }
}
