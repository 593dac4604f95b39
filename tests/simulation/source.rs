//! The publisher of rates, and the source through which gateways see it: it moves, jumps, stops publishing, is away.

use std::sync::{Arc, Mutex};

use causeway::{
    fx::{Fetched, RateSource, RateTable, SourceError, source::FetchFuture},
    money::{Currency, Rate},
};
use time::{Date, Duration as Days, OffsetDateTime};

use crate::{faults::Fault, random::Random, world::Shared};

/// Units for one euro, in millionths, as they begin.
const OPENING: [(&str, u64); 4] = [
    ("USD", 1_080_000),
    ("CNY", 7_800_000),
    ("JPY", 160_000_000),
    ("KWD", 330_000),
];

/// What is published now, and all that ever was.
pub struct Publication {
    inner: Mutex<Inner>,
}

struct Inner {
    random: Random,
    now: Table,
    /// Every table that was ever to be had, for the auditor.
    all: Vec<Table>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub date: Date,
    /// Millionths, in the order of [`OPENING`].
    pub values: [u64; 4],
}

impl Publication {
    pub fn new(random: Random) -> Arc<Self> {
        let values = OPENING.map(|(_, value)| value);
        let now = Table {
            date: date_of(crate::executor::START_MS) - Days::days(1),
            values,
        };
        Arc::new(Self {
            inner: Mutex::new(Inner {
                random,
                all: vec![now.clone()],
                now,
            }),
        })
    }

    /// A new table for this day; a jump moves one currency by half.
    pub fn publish(&self, now_ms: i64, jump: bool) {
        let mut inner = self.inner.lock().unwrap();
        let mut values = inner.now.values;
        for value in &mut values {
            let step = *value / 200;
            *value = *value - step + inner.random.below(2 * step + 1);
        }
        if jump {
            let index = inner.random.below(values.len() as u64) as usize;
            values[index] = if inner.random.below(2) == 0 {
                values[index] * 3 / 2
            } else {
                values[index] / 2
            };
        }
        // However often it jumps, it stays in sight of where it began.
        for (value, (_, opening)) in values.iter_mut().zip(OPENING) {
            *value = (*value).clamp(opening / 3, opening * 3);
        }
        inner.now = Table {
            date: date_of(now_ms),
            values,
        };
        let now = inner.now.clone();
        inner.all.push(now);
    }

    /// The publisher has not published for so long: what is there bears an old date.
    pub fn grow_old(&self, now_ms: i64, days: i64) {
        let mut inner = self.inner.lock().unwrap();
        inner.now.date = date_of(now_ms) - Days::days(days);
        let now = inner.now.clone();
        inner.all.push(now);
    }

    pub fn all(&self) -> Vec<Table> {
        self.inner.lock().unwrap().all.clone()
    }

    fn table(&self) -> RateTable {
        let now = self.inner.lock().unwrap().now.clone();
        let mut table = RateTable::new(Currency::EUR, "simulated");
        for ((code, _), value) in OPENING.iter().zip(now.values) {
            let currency = Currency::parse(code).expect("they are currencies");
            let rate = Rate::parse(Currency::EUR, currency, &millionths(value)).expect("a decimal");
            table.insert(rate, now.date).expect("each once");
        }
        table
    }
}

/// "1.080000" of 1,080,000.
pub fn millionths(value: u64) -> String {
    format!("{}.{:06}", value / 1_000_000, value % 1_000_000)
}

/// The currencies that have a rate against the euro, in the order of a table's values.
pub fn currencies() -> impl Iterator<Item = &'static str> {
    OPENING.iter().map(|(code, _)| *code)
}

pub fn date_of(ms: i64) -> Date {
    OffsetDateTime::from_unix_timestamp(ms / 1_000)
        .expect("within the calendar")
        .date()
}

/// The publication as one gateway reaches it.
pub struct Source {
    world: Shared,
}

impl Source {
    pub fn new(world: &Shared) -> Self {
        Self {
            world: Arc::clone(world),
        }
    }
}

impl RateSource for Source {
    fn name(&self) -> &str {
        "simulated"
    }

    fn fetch(&self) -> FetchFuture<'_> {
        Box::pin(async {
            let us = 1_000 + self.world.executor.draw(200_000);
            self.world.executor.sleep_us(us).await;
            match self.world.fires(Fault::SourceDown, String::new) {
                true => Err(SourceError::Timeout {
                    limit: std::time::Duration::from_micros(us),
                }),
                false => Ok(Fetched::Table(self.world.publication.table())),
            }
        })
    }
}
