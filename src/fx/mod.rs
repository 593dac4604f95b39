//! Foreign exchange: where mid rates come from, how long they are good for, and how a quote is priced from one.
//!
//! Owns rate sources, the cache in front of them, and pricing per corridor. Leaves to others how amounts convert
//! (`money`), and making, storing and expiring quotes (`api`, `store`). Called by the rate and quote services.
//!
//! [`table`], [`ecb`], [`quote`] and the breaker are pure; [`source`] and [`cache`] do the I/O.
//!
//! Invariant: a rate that is served was published by the source, is not past the staleness limit, and did not jump
//! beyond the deviation limit unless an operator accepted it.

mod breaker;
pub mod cache;
pub mod ecb;
pub mod quote;
pub mod source;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use time::Date;

pub use breaker::Breaker;
pub use cache::{MidRate, Rates, RatesConfig, RatesStats};
pub use quote::{Corridor, CorridorPricing, FixedSide, price};
pub use source::{Fetched, RateSource, SourceError};
pub use table::{Entry, RateOrigin, RateTable};

use crate::money::{Currency, MoneyError};

/// Why there is no mid rate.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FxError {
    /// The source publishes no rate for one of the two currencies (RATE_UNKNOWN).
    #[error("no rate {base}/{quote}: {origin} has none for {missing}")]
    RateUnknown {
        /// The currency to be priced.
        base: Currency,
        /// The currency in which it was to be priced.
        quote: Currency,
        /// The one of the two that the source does not have.
        missing: Currency,
        /// The source's name.
        origin: Arc<str>,
    },
    /// The last rate is too old to quote from (RATE_STALE).
    #[error("rate {base}/{quote} of {date} is older than the limit of {} hours", limit.as_secs() / 3600)]
    RateStale {
        /// The currency to be priced.
        base: Currency,
        /// The currency in which it was to be priced.
        quote: Currency,
        /// The day for which it was published; of a cross rate, the older of its two days.
        date: Date,
        /// How old a rate may be, counted from its publication.
        limit: Duration,
    },
    /// The source was never reached, so there is no rate at all (UNAVAILABLE).
    #[error("rate source {name} unavailable: {error}")]
    SourceUnavailable {
        /// The source's name.
        name: String,
        /// What the last attempt met.
        #[source]
        error: Arc<SourceError>,
    },
    /// The source's two values make a rate that the gateway cannot hold.
    #[error("unusable rate: {0}")]
    RateUnusable(#[source] MoneyError),
}
