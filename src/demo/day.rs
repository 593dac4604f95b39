//! The day whose rates are used, read from the European Central Bank's table by the demonstration itself.
//!
//! Owns which days there are and what one euro was worth on them; the gateway reads the same table with its own code.

use std::str::FromStr;

use time::{Date, macros::format_description};

use super::sums::{BadNumber, Exact};
use crate::fx::ecb::SAMPLE;

/// Reference rates hold over weekends and holidays; a longer gap is a gap in the table.
const GAP_DAYS_MAX: i32 = 7;
/// What stands for the newest day.
const LATEST: &str = "latest";

/// A day with rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// The day that was asked for.
    pub asked: Date,
    /// The day whose rates hold on it: the same, or the last banking day before it.
    pub published: Date,
}

/// Why there are no rates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DayError {
    /// Not a date.
    #[error("{found:?} is neither a date such as 2014-10-28 nor \"latest\"")]
    Malformed {
        /// What it was.
        found: String,
    },
    /// None on that day.
    #[error("there are no rates of {asked}; there are the ECB's {}", list(.there))]
    Missing {
        /// The day.
        asked: Date,
        /// First and last day of every stretch that is there.
        there: Vec<(Date, Date)>,
    },
}

fn list(there: &[(Date, Date)]) -> String {
    let stretches: Vec<_> = there
        .iter()
        .map(|(first, last)| format!("from {first} to {last}"))
        .collect();
    stretches.join(", and ")
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Day, DayError> {
        let days = days();
        let there = stretches(&days);
        if let (LATEST, Some((_, last))) = (text, there.last()) {
            return Ok(Day {
                asked: *last,
                published: *last,
            });
        }
        let asked = parse(text).ok_or_else(|| DayError::Malformed { found: text.to_owned() })?;
        let published = days.into_iter().filter(|day| *day <= asked).max();
        match published {
            Some(published) if there.iter().any(|(first, last)| (*first..=*last).contains(&asked)) => {
                Ok(Day { asked, published })
            }
            _ => Err(DayError::Missing { asked, there }),
        }
    }
}

impl Day {
    /// How many units of a currency one euro was worth.
    ///
    /// # Errors
    /// There was no rate.
    pub fn per_euro(&self, currency: &str) -> Result<Exact, BadNumber> {
        if currency == "EUR" {
            return Exact::parse("1");
        }
        let column = SAMPLE
            .lines()
            .next()
            .and_then(|head| head.split(',').position(|code| code == currency));
        let row = SAMPLE
            .lines()
            .find(|line| line.starts_with(&self.published.to_string()));
        let cell = row.zip(column).and_then(|(row, column)| row.split(',').nth(column));
        Exact::parse(cell.unwrap_or("no rate"))
    }
}

fn parse(text: &str) -> Option<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).ok()
}

/// Every day of the table, oldest first.
fn days() -> Vec<Date> {
    let first_cells = SAMPLE.lines().skip(1).filter_map(|line| line.split(',').next());
    let mut days: Vec<Date> = first_cells.filter_map(parse).collect();
    days.sort_unstable();
    days
}

fn stretches(days: &[Date]) -> Vec<(Date, Date)> {
    let mut stretches: Vec<(Date, Date)> = Vec::new();
    for day in days {
        match stretches.last_mut() {
            Some((_, last)) if day.to_julian_day() - last.to_julian_day() <= GAP_DAYS_MAX => *last = *day,
            _ => stretches.push((*day, *day)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banking_day_has_its_own_rates() {
        let day: Day = "2014-10-28".parse().unwrap();
        assert_eq!(day.asked, day.published);
        assert_eq!(day.per_euro("USD"), Exact::parse("1.2748"));
        assert_eq!(day.per_euro("CNY"), Exact::parse("7.7935"));
        assert_eq!(day.per_euro("EUR"), Exact::parse("1"));
        assert!(day.per_euro("CYP").is_err(), "not available on that day");
        assert!(day.per_euro("XXX").is_err());
    }

    #[test]
    fn a_weekend_has_the_rates_of_the_friday() {
        let day: Day = "2014-10-26".parse().unwrap();
        assert_eq!(day.published.to_string(), "2014-10-24");
    }

    #[test]
    fn other_days_are_refused_with_those_that_are_there() {
        for text in ["2014-09-30", "2014-11-01", "2015-06-01", "2026-10-31", "1999-01-04"] {
            let message = text.parse::<Day>().unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
            assert!(
                message.contains("from 2014-10-01 to 2014-10-31, and from 2026-08-03 to 2026-10-30"),
                "{message}"
            );
        }
        for text in ["", "today", "2014-13-01", "28.10.2014"] {
            assert!(
                matches!(text.parse::<Day>(), Err(DayError::Malformed { .. })),
                "{text:?}"
            );
        }
        assert_eq!("latest".parse::<Day>().unwrap().asked.to_string(), "2026-10-30");
    }
}
