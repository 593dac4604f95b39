//! The rates in use: a cache in front of a source, and what holds when the source fails or errs.
//!
//! Owns when to fetch (expiry, one fetch for many waiters, refresh ahead), how long a rate may be used, and the breaker
//! against jumps. Leaves to others how to fetch ([`super::source`]) and what follows from a rate ([`super::quote`]).
//! Called by the rate and quote services; operators see and close breakers.
//!
//! Wall clock comes in as `now_ms` and decides staleness; cache lifetimes run on the runtime's monotonic clock.
//!
//! Invariant: at most one fetch is under way.

use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use moka::Entry;
use moka::future::Cache;
use moka::ops::compute::Op;
use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};

use super::FxError;
use super::breaker::{Breaker, Event, Guard};
use super::source::{Fetched, RateSource, SourceError};
use super::table::{RateOrigin, RateTable, published_ms};
use crate::money::{Currency, Rate};
use crate::runtime::{Job, Runtime, SharedRuntime, TokioRuntime, timeout};

/// The name that the rate of a currency in itself carries: no source is asked for it.
const PAR: &str = "par";

/// How long callers wait for a fetch while there is a last good table to serve.
const PATIENCE: Duration = Duration::from_secs(1);

/// A table fetched within twice this (or twice its own time to expire) is recent enough not to wait for the next.
const RECENT_MIN: Duration = Duration::from_secs(30 * 60);

/// How rates are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RatesConfig {
    /// How long a fetched table is served before a caller must wait for the next fetch.
    pub expire_after: Duration,
    /// How old a fetched table is when a caller that is served from it also starts a fetch in the background.
    pub refresh_after: Duration,
    /// How long to wait after a failed fetch before the next.
    pub retry_after: Duration,
    /// The longest that a fetch may take, whatever the source's own limits.
    pub fetch_timeout: Duration,
    /// How old a rate may be to quote from it, counted from its publication ([`published_ms`]). `None` for a source
    /// that is pinned to a day.
    pub stale_after: Option<Duration>,
    /// How far a currency's value may move between two fetches, as a fraction of the last good one.
    pub deviation_max: Decimal,
}

impl Default for RatesConfig {
    /// Hourly, refreshed from half an hour on, retried after half a minute; stale after 6 days, so that Easter passes
    /// (Thursday's rates hold to Tuesday's); 10 % at most from one fetch to the next.
    fn default() -> RatesConfig {
        RatesConfig {
            expire_after: Duration::from_secs(60 * 60),
            refresh_after: Duration::from_secs(30 * 60),
            retry_after: Duration::from_secs(30),
            fetch_timeout: Duration::from_secs(30),
            stale_after: Some(Duration::from_secs(6 * 24 * 60 * 60)),
            deviation_max: Decimal::new(10, 2),
        }
    }
}

/// A mid rate and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MidRate {
    /// Units of its quote currency for one unit of its base, before margin and fee.
    pub rate: Rate,
    /// The source and the day.
    pub origin: RateOrigin,
    /// When the source was last asked with success, in milliseconds since the Unix epoch.
    pub fetch_ms: i64,
    /// From this instant on it is too old to quote from, in milliseconds since the Unix epoch; `None` if it is pinned.
    pub stale_ms: Option<i64>,
}

/// What the cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatesStats {
    /// Calls that were served without starting a fetch that they waited for.
    pub hits: u64,
    /// Fetches started at the source.
    pub fetches: u64,
    /// Fetches that brought nothing usable.
    pub failures: u64,
    /// Times that a breaker tripped.
    pub trips: u64,
}

/// The mid rates in use. A handle: clones share one cache.
#[derive(Clone)]
pub struct Rates {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn RateSource>,
    config: RatesConfig,
    runtime: SharedRuntime,
    /// One entry: the table that was last fetched. How long it is served without asking again is counted by the runtime's
    /// clock; moka's own expiry would count by the machine's.
    cache: Cache<(), Snapshot>,
    book: RwLock<Book>,
    /// Held while a fetch is under way: a refresh in the background and a caller that waits must not both fetch.
    gate: tokio::sync::Mutex<()>,
    refreshing: AtomicBool,
    hits: AtomicU64,
    fetches: AtomicU64,
    failures: AtomicU64,
    trips: AtomicU64,
}

/// A table in the cache.
#[derive(Clone, Debug)]
struct Snapshot {
    table: Arc<RateTable>,
    /// Counts the changes of the table in use, so that a cached one is known to be outdated.
    version: u64,
    fetch_ms: i64,
    /// By the runtime's monotonic clock.
    fetched_at: Duration,
    lifetime: Duration,
}

impl Snapshot {
    fn age(&self, runtime: &dyn Runtime) -> Duration {
        runtime.monotonic().saturating_sub(self.fetched_at)
    }

    fn has_expired(&self, runtime: &dyn Runtime) -> bool {
        self.age(runtime) >= self.lifetime
    }
}

/// What is in use, cached or not.
struct Book {
    guard: Guard,
    /// The last good table: outlives its entry in the cache.
    current: Option<Snapshot>,
    /// Fetches ended.
    ended: u64,
    /// Of the last fetch, if it failed: what it met and when (by the monotonic clock) the next may start.
    failed: Option<(Arc<SourceError>, Duration)>,
}

impl Rates {
    /// Rates from `source`; nothing is fetched before the first call.
    pub fn new(source: impl RateSource, config: RatesConfig) -> Rates {
        Rates::from_boxed(Box::new(source), config, TokioRuntime::shared())
    }

    /// As [`Rates::new`], from a source that was chosen at run time, on a runtime of the caller's choice.
    pub fn from_boxed(source: Box<dyn RateSource>, config: RatesConfig, runtime: SharedRuntime) -> Rates {
        let book = Book {
            guard: Guard::new(config.deviation_max),
            current: None,
            ended: 0,
            failed: None,
        };
        let inner = Inner {
            source,
            config,
            runtime,
            cache: Cache::new(1),
            book: RwLock::new(book),
            gate: tokio::sync::Mutex::new(()),
            refreshing: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            trips: AtomicU64::new(0),
        };
        Rates { inner: Arc::new(inner) }
    }

    /// The mid rate of an ordered pair at `now_ms` (milliseconds since the Unix epoch). A currency in itself is 1 on
    /// any day, from no source, and never stale.
    ///
    /// Waits for a fetch only when no table may be served; callers that wait together wait for one fetch. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`FxError::RateUnknown`], [`FxError::RateStale`], [`FxError::SourceUnavailable`], [`FxError::RateUnusable`].
    pub async fn mid(&self, base: Currency, quote: Currency, now_ms: i64) -> Result<MidRate, FxError> {
        if base == quote {
            let origin = RateOrigin {
                source: PAR.into(),
                date: utc_date(now_ms),
            };
            return Ok(MidRate {
                rate: Rate::identity(base),
                origin,
                fetch_ms: now_ms,
                stale_ms: None,
            });
        }
        let snapshot = self.snapshot(now_ms).await?;
        let mid = self.mid_of(&snapshot, base, quote)?;
        match (mid.stale_ms, self.inner.config.stale_after) {
            (Some(stale_ms), Some(limit)) if now_ms >= stale_ms => Err(FxError::RateStale {
                base,
                quote,
                date: mid.origin.date,
                limit,
            }),
            _ => Ok(mid),
        }
    }

    /// The mid rates from `base` (the source's own base if `None`) to every other currency of the source, by code.
    /// To be looked at: stale ones are among them, with their `stale_ms`. Quote from [`Rates::mid`] only.
    ///
    /// # Errors
    /// [`FxError::RateUnknown`] if the source does not have `base`, [`FxError::SourceUnavailable`].
    pub async fn list(&self, base: Option<Currency>, now_ms: i64) -> Result<Vec<MidRate>, FxError> {
        let snapshot = self.snapshot(now_ms).await?;
        let base = base.unwrap_or(snapshot.table.base());
        // An unknown base is an error; the pairs below would only leave an empty list of it.
        snapshot.table.mid(base, snapshot.table.base())?;
        let others = snapshot.table.currencies().filter(|currency| *currency != base);
        // A pair whose rate cannot be held cannot be quoted either: it is not on the list.
        Ok(others
            .filter_map(|quote| self.mid_of(&snapshot, base, quote).ok())
            .collect())
    }

    /// The currencies whose offered rate is held back, by code.
    pub fn breakers(&self) -> Vec<Breaker> {
        self.book().guard.breakers().cloned().collect()
    }

    /// An operator's word that the jump of `currency` is real: the value that the source offers is used at once.
    /// Returns the breaker that this closed, `None` if there was none.
    pub fn accept(&self, currency: Currency) -> Option<Breaker> {
        let mut book = self.book_mut();
        let accepted = book.guard.accept(currency)?;
        if let Some(current) = &mut book.current {
            Arc::make_mut(&mut current.table).replace(accepted.offered);
            current.version += 1;
        }
        tracing::warn!(%currency, held = %accepted.held.rate, accepted = %accepted.offered.rate, "rate jump accepted");
        Some(accepted)
    }

    /// What the cache has done so far.
    pub fn stats(&self) -> RatesStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Inner {
            hits,
            fetches,
            failures,
            trips,
            ..
        } = &*self.inner;
        RatesStats {
            hits: read(hits),
            fetches: read(fetches),
            failures: read(failures),
            trips: read(trips),
        }
    }

    /// The source's name.
    pub fn source_name(&self) -> &str {
        self.inner.source.name()
    }

    /// The table to serve from, fetched if need be.
    async fn snapshot(&self, now_ms: i64) -> Result<Snapshot, FxError> {
        let (cached, fresh) = match self.inner.cache.get(&()).await {
            Some(cached) if !cached.has_expired(&*self.inner.runtime) => (cached, false),
            Some(_) | None => self.filled(now_ms).await?,
        };
        if !fresh {
            self.inner.hits.fetch_add(1, Ordering::Relaxed);
            if cached.age(&*self.inner.runtime) >= self.inner.config.refresh_after {
                self.refresh_ahead(now_ms);
            }
        }
        // A jump accepted since then is in the book before it is in the cache.
        let current = self
            .book()
            .current
            .clone()
            .filter(|current| current.version > cached.version);
        Ok(current.unwrap_or(cached))
    }

    /// The table once the cache is filled, and whether this call filled it. In a task of its own: a caller that goes away
    /// while it waits must not end the fetch that others wait for.
    async fn filled(&self, now_ms: i64) -> Result<(Snapshot, bool), FxError> {
        let rates = self.clone();
        let filling = Job::start_detached(&*self.inner.runtime, async move {
            // Somebody else may have filled it since: only what has expired is let go of.
            let inner = &rates.inner;
            let let_go = |entry: Option<Entry<(), Snapshot>>| {
                let expired = entry.is_some_and(|entry| entry.into_value().has_expired(&*inner.runtime));
                ready(if expired { Op::Remove } else { Op::Nop })
            };
            inner.cache.entry(()).and_compute_with(let_go).await;
            let entry = inner.cache.entry(()).or_try_insert_with(rates.load(now_ms)).await?;
            Ok((entry.is_fresh(), entry.into_value()))
        });
        let filled: Result<_, Arc<Arc<SourceError>>> =
            filling.await.unwrap_or(Err(Arc::new(Arc::new(SourceError::Panicked))));
        let (fresh, snapshot) = filled.map_err(|error| FxError::SourceUnavailable {
            name: self.source_name().to_owned(),
            error: Arc::clone(&error),
        })?;
        Ok((snapshot, fresh))
    }

    /// Fills the cache for callers that wait. A source that fails, or that keeps them waiting while there is a last good
    /// table, leaves that one in use, for a short while before it is asked again.
    async fn load(&self, now_ms: i64) -> Result<Snapshot, Arc<SourceError>> {
        let fetched = match self.failed_lately() {
            Some(error) => Err(error),
            None => self.fetch_with_patience(now_ms).await,
        };
        let error = match fetched {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => error,
        };
        let last_good = self.book().current.clone();
        let last_good = last_good.ok_or(error)?;
        let lifetime = self.inner.config.retry_after;
        Ok(Snapshot {
            fetched_at: self.inner.runtime.monotonic(),
            lifetime,
            ..last_good
        })
    }

    /// A fetch, waited for to its end if there is nothing recent to serve; else for a moment, and it goes on behind.
    async fn fetch_with_patience(&self, now_ms: i64) -> Result<Snapshot, Arc<SourceError>> {
        let recent = self.inner.config.expire_after.max(RECENT_MIN) * 2;
        let last_good = self
            .book()
            .current
            .as_ref()
            .map(|current| current.age(&*self.inner.runtime));
        if last_good.is_none_or(|age| age > recent) {
            return self.fetch(now_ms).await;
        }
        let rates = self.clone();
        let fetching = Job::start_detached(&*self.inner.runtime, async move {
            let snapshot = rates.fetch(now_ms).await?;
            rates.inner.cache.insert((), snapshot.clone()).await;
            Ok(snapshot)
        });
        match timeout(&*self.inner.runtime, PATIENCE, fetching).await {
            Some(Ok(fetched)) => fetched,
            Some(Err(_)) => Err(Arc::new(SourceError::Panicked)),
            None => Err(Arc::new(SourceError::Timeout { limit: PATIENCE })),
        }
    }

    /// Starts a fetch that nobody waits for, unless one is under way or just failed.
    fn refresh_ahead(&self, now_ms: i64) {
        if self.failed_lately().is_some() || self.inner.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let rates = self.clone();
        self.inner.runtime.spawn(Box::pin(async move {
            // Reset even if the source panics.
            let _reset = Reset(&rates.inner.refreshing);
            if let Ok(snapshot) = rates.fetch(now_ms).await {
                rates.inner.cache.insert((), snapshot).await;
            }
        }));
    }

    /// One fetch, or the outcome of the one that was under way.
    async fn fetch(&self, now_ms: i64) -> Result<Snapshot, Arc<SourceError>> {
        let ended = self.book().ended;
        let _gate = self.inner.gate.lock().await;
        if let Some(outcome) = self.outcome_since(ended) {
            return outcome;
        }
        self.inner.fetches.fetch_add(1, Ordering::Relaxed);
        let limit = self.inner.config.fetch_timeout;
        let fetched = timeout(&*self.inner.runtime, limit, self.inner.source.fetch()).await;
        let fetched = fetched.unwrap_or(Err(SourceError::Timeout { limit }));
        self.settle(fetched, now_ms)
    }

    /// What the fetch brought that ended while this caller waited its turn; `None` if none did.
    fn outcome_since(&self, ended: u64) -> Option<Result<Snapshot, Arc<SourceError>>> {
        let book = self.book();
        if book.ended == ended {
            return None;
        }
        match (&book.failed, &book.current) {
            (Some((error, _)), _) => Some(Err(Arc::clone(error))),
            (None, Some(current)) => Some(Ok(current.clone())),
            (None, None) => None,
        }
    }

    /// Takes what a fetch brought into the book.
    fn settle(&self, fetched: Result<Fetched, SourceError>, now_ms: i64) -> Result<Snapshot, Arc<SourceError>> {
        let mut book = self.book_mut();
        book.ended += 1;
        match fetched.and_then(|fetched| self.admit(&mut book, fetched, now_ms)) {
            Ok(snapshot) => {
                book.failed = None;
                book.current = Some(snapshot.clone());
                Ok(snapshot)
            }
            Err(error) => {
                self.inner.failures.fetch_add(1, Ordering::Relaxed);
                let last_good = book.current.as_ref().and_then(|current| current.table.newest());
                tracing::warn!(source = self.source_name(), %error, ?last_good, "rates could not be fetched");
                let error = Arc::new(error);
                book.failed = Some((
                    Arc::clone(&error),
                    self.inner.runtime.monotonic() + self.inner.config.retry_after,
                ));
                Err(error)
            }
        }
    }

    fn admit(&self, book: &mut Book, fetched: Fetched, now_ms: i64) -> Result<Snapshot, SourceError> {
        let (table, version) = match (fetched, &book.current) {
            (Fetched::NotModified, Some(current)) => (Arc::clone(&current.table), current.version),
            (Fetched::NotModified, None) => return Err(SourceError::NothingToKeep),
            (Fetched::Table(offered), current) => {
                self.check_offer(&offered, current.as_ref(), now_ms)?;
                let version = current.as_ref().map_or(0, |current| current.version) + 1;
                let (table, events) = book.guard.admit(&offered, now_ms);
                events.iter().for_each(|event| self.report(event));
                (Arc::new(table), version)
            }
        };
        let lifetime = self.inner.config.expire_after;
        Ok(Snapshot {
            table,
            version,
            fetch_ms: now_ms,
            fetched_at: self.inner.runtime.monotonic(),
            lifetime,
        })
    }

    /// Whether a table as a whole can be believed.
    fn check_offer(&self, offered: &RateTable, current: Option<&Snapshot>, now_ms: i64) -> Result<(), SourceError> {
        if let Some(current) = current.filter(|current| current.table.base() != offered.base()) {
            return Err(SourceError::BaseChanged {
                expected: current.table.base(),
                got: offered.base(),
            });
        }
        // Somewhere it is tomorrow already; a later day would defeat the staleness limit.
        let tomorrow = utc_date(now_ms).next_day();
        match offered.newest() {
            Some(date) if self.inner.config.stale_after.is_some() && Some(date) > tomorrow => {
                Err(SourceError::Future { date })
            }
            _ => Ok(()),
        }
    }

    fn report(&self, event: &Event) {
        let source = self.source_name();
        match event {
            Event::Tripped(Breaker {
                currency,
                held,
                offered,
                ..
            }) => {
                self.inner.trips.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    source, %currency, held = %held.rate, held_date = %held.date, offered = %offered.rate,
                    offered_date = %offered.date,
                    "rate jumped beyond the limit: the old one stays in use until the source returns or it is accepted"
                );
            }
            Event::Closed(Breaker { currency, offered, .. }) => {
                tracing::info!(source, %currency, jump = %offered.rate, "rate is back within the limit");
            }
            Event::Older {
                currency,
                held,
                offered,
            } => {
                let (held, offered) = (held.date, offered.date);
                tracing::warn!(source, %currency, %held, %offered, "source offers an older rate than the one in use");
            }
        }
    }

    fn mid_of(&self, snapshot: &Snapshot, base: Currency, quote: Currency) -> Result<MidRate, FxError> {
        let (rate, origin) = snapshot.table.mid(base, quote)?;
        let limit = self.inner.config.stale_after;
        let limit_ms = limit.map(|limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        let stale_ms = limit_ms.map(|limit_ms| published_ms(origin.date).saturating_add(limit_ms));
        Ok(MidRate {
            rate,
            origin,
            fetch_ms: snapshot.fetch_ms,
            stale_ms,
        })
    }

    fn failed_lately(&self) -> Option<Arc<SourceError>> {
        let book = self.book();
        let (error, retry_at) = book.failed.as_ref()?;
        (self.inner.runtime.monotonic() < *retry_at).then(|| Arc::clone(error))
    }

    /// The book holds plain values that are replaced whole: a panic elsewhere leaves nothing half done in it.
    fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.inner.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn book_mut(&self) -> RwLockWriteGuard<'_, Book> {
        self.inner.book.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates")
            .field("source", &self.source_name())
            .field("stats", &self.stats())
            .finish()
    }
}

/// Clears a flag when it goes out of scope.
struct Reset<'a>(&'a AtomicBool);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The calendar date (UTC) of an instant; instants beyond the calendar are its ends.
fn utc_date(now_ms: i64) -> Date {
    let end = if now_ms < 0 { Date::MIN } else { Date::MAX };
    OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1_000)).map_or(end, OffsetDateTime::date)
}

#[cfg(test)]
mod tests;
