//! The rates in use: a cache in front of a source, and what holds when the source fails or errs.
//!
//! Owns when to fetch (expiry, one fetch for many waiters, refresh ahead), how long a rate may be used, and the breaker
//! against jumps. Leaves to others how to fetch ([`super::source`]) and what follows from a rate ([`super::quote`]).
//! Called by the rate and quote services; operators see and close breakers.
//!
//! Wall clock comes in as `now_ms` and decides staleness; cache lifetimes run on the monotonic clock.
//!
//! Invariant: at most one fetch is under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};

use super::FxError;
use super::breaker::{Breaker, Event, Guard};
use super::source::{Fetched, RateSource, SourceError};
use super::table::{RateOrigin, RateTable, published_ms};
use crate::money::{Currency, Rate};

/// The name that the rate of a currency in itself carries: no source is asked for it.
const PAR: &str = "par";

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
    /// One entry: the table that was last fetched, for as long as it may be served without asking again.
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
    fetched_at: Instant,
    lifetime: Duration,
}

/// What is in use, cached or not.
struct Book {
    guard: Guard,
    /// The last good table: outlives its entry in the cache.
    current: Option<Snapshot>,
    /// Fetches ended.
    ended: u64,
    /// Of the last fetch, if it failed: what it met and when the next may start.
    failed: Option<(Arc<SourceError>, Instant)>,
}

/// Lets each entry of the cache live as long as it says.
struct Lifetime;

impl Expiry<(), Snapshot> for Lifetime {
    fn expire_after_create(&self, (): &(), snapshot: &Snapshot, _: Instant) -> Option<Duration> {
        Some(snapshot.lifetime)
    }

    fn expire_after_update(&self, (): &(), snapshot: &Snapshot, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(snapshot.lifetime)
    }
}

impl Rates {
    /// Rates from `source`; nothing is fetched before the first call.
    pub fn new(source: impl RateSource, config: RatesConfig) -> Rates {
        Rates::from_boxed(Box::new(source), config)
    }

    /// As [`Rates::new`], from a source that was chosen at run time.
    pub fn from_boxed(source: Box<dyn RateSource>, config: RatesConfig) -> Rates {
        let book = Book {
            guard: Guard::new(config.deviation_max),
            current: None,
            ended: 0,
            failed: None,
        };
        let inner = Inner {
            source,
            config,
            cache: Cache::builder().max_capacity(1).expire_after(Lifetime).build(),
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
        let entry = self.inner.cache.entry(()).or_try_insert_with(self.load(now_ms)).await;
        let entry = entry.map_err(|error| FxError::SourceUnavailable {
            name: self.source_name().to_owned(),
            error: Arc::clone(&error),
        })?;
        let fresh = entry.is_fresh();
        let cached = entry.into_value();
        if !fresh {
            self.inner.hits.fetch_add(1, Ordering::Relaxed);
            if cached.fetched_at.elapsed() >= self.inner.config.refresh_after {
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

    /// Fills the cache for callers that wait. A source that fails leaves the last good table in use, for a short while
    /// before it is asked again.
    async fn load(&self, now_ms: i64) -> Result<Snapshot, Arc<SourceError>> {
        let fetched = match self.failed_lately() {
            Some(error) => Err(error),
            None => self.fetch(now_ms).await,
        };
        let error = match fetched {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => error,
        };
        let last_good = self.book().current.clone();
        let last_good = last_good.ok_or(error)?;
        let lifetime = self.inner.config.retry_after;
        Ok(Snapshot {
            fetched_at: Instant::now(),
            lifetime,
            ..last_good
        })
    }

    /// Starts a fetch that nobody waits for, unless one is under way or just failed.
    fn refresh_ahead(&self, now_ms: i64) {
        if self.failed_lately().is_some() || self.inner.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let rates = self.clone();
        tokio::spawn(async move {
            // Reset even if the source panics.
            let _reset = Reset(&rates.inner.refreshing);
            if let Ok(snapshot) = rates.fetch(now_ms).await {
                rates.inner.cache.insert((), snapshot).await;
            }
        });
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
        let fetched = tokio::time::timeout(limit, self.inner.source.fetch()).await;
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
                book.failed = Some((Arc::clone(&error), Instant::now() + self.inner.config.retry_after));
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
            fetched_at: Instant::now(),
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
        (Instant::now() < *retry_at).then(|| Arc::clone(error))
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
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use time::macros::{date, datetime};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::fx::source::{Embedded, FetchFuture};

    const DAY: Date = date!(2014 - 10 - 28);
    const HOUR_MS: i64 = 3_600_000;

    /// Noon of the 29th: the rates of the 28th are in force.
    fn now() -> i64 {
        datetime!(2014-10-29 12:00 UTC).unix_timestamp() * 1_000
    }

    fn table(date: Date, values: &[(Currency, &str)]) -> Fetched {
        let mut table = RateTable::new(Currency::EUR, "test");
        for (currency, value) in values {
            table
                .insert(Rate::parse(Currency::EUR, *currency, value).unwrap(), date)
                .unwrap();
        }
        Fetched::Table(table)
    }

    fn usual() -> Fetched {
        table(DAY, &[(Currency::USD, "1.25"), (Currency::CNY, "8")])
    }

    fn failure() -> Result<Fetched, SourceError> {
        Err(SourceError::Transport {
            detail: "refused".to_owned(),
        })
    }

    /// A source that plays a script and then fails; counts fetches, and how many run at once.
    #[derive(Clone)]
    struct Script {
        answers: Arc<Mutex<VecDeque<Result<Fetched, SourceError>>>>,
        /// A fetch takes a permit before it answers; closed for good, it lets all through.
        gate: Arc<Semaphore>,
        fetches: Arc<AtomicUsize>,
        running: Arc<AtomicUsize>,
        running_max: Arc<AtomicUsize>,
    }

    impl Script {
        fn new(answers: impl IntoIterator<Item = Result<Fetched, SourceError>>) -> Script {
            let script = Script::gated(answers);
            script.gate.close();
            script
        }

        fn gated(answers: impl IntoIterator<Item = Result<Fetched, SourceError>>) -> Script {
            Script {
                answers: Arc::new(Mutex::new(answers.into_iter().collect())),
                gate: Arc::new(Semaphore::new(0)),
                fetches: Arc::default(),
                running: Arc::default(),
                running_max: Arc::default(),
            }
        }

        fn then(&self, answer: Result<Fetched, SourceError>) {
            self.answers.lock().unwrap().push_back(answer);
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::SeqCst)
        }
    }

    struct Running(Arc<AtomicUsize>);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl RateSource for Script {
        fn name(&self) -> &str {
            "script"
        }

        fn fetch(&self) -> FetchFuture<'_> {
            Box::pin(async {
                self.fetches.fetch_add(1, Ordering::SeqCst);
                let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
                let _running = Running(self.running.clone());
                self.running_max.fetch_max(running, Ordering::SeqCst);
                if let Ok(permit) = self.gate.acquire().await {
                    permit.forget();
                }
                self.answers.lock().unwrap().pop_front().unwrap_or_else(failure)
            })
        }
    }

    /// Never expires, never refreshes, retries at once, and stale after 6 days.
    fn config() -> RatesConfig {
        let never = Duration::from_secs(1_000_000);
        RatesConfig {
            expire_after: never,
            refresh_after: never,
            retry_after: Duration::ZERO,
            ..RatesConfig::default()
        }
    }

    /// As [`config`], with a cache that forgets at once: every call fetches.
    fn forgetful() -> RatesConfig {
        RatesConfig {
            expire_after: Duration::ZERO,
            ..config()
        }
    }

    async fn usd(rates: &Rates, now_ms: i64) -> String {
        rates
            .mid(Currency::EUR, Currency::USD, now_ms)
            .await
            .unwrap()
            .rate
            .value_string()
    }

    /// Waits until `holds` holds, a bounded time.
    async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn a_rate_says_where_it_stands() {
        let rates = Rates::new(Script::new([Ok(usual())]), config());
        let mid = rates.mid(Currency::USD, Currency::CNY, now()).await.unwrap();
        assert_eq!(mid.rate.value_string(), "6.4");
        assert_eq!(
            mid.origin,
            RateOrigin {
                source: "test".into(),
                date: DAY
            }
        );
        assert_eq!(mid.fetch_ms, now());
        assert_eq!(
            mid.stale_ms,
            Some(datetime!(2014-11-03 15:00 UTC).unix_timestamp() * 1_000)
        );
        assert!(matches!(
            rates.mid(Currency::USD, Currency::KWD, now()).await,
            Err(FxError::RateUnknown {
                missing: Currency::KWD,
                ..
            })
        ));
        assert_eq!(
            rates.stats(),
            RatesStats {
                hits: 1,
                fetches: 1,
                ..RatesStats::default()
            }
        );
    }

    #[tokio::test]
    async fn a_currency_in_itself_needs_no_source() {
        let script = Script::new([]);
        let rates = Rates::new(script.clone(), config());
        let mid = rates.mid(Currency::KWD, Currency::KWD, now()).await.unwrap();
        assert_eq!(mid.rate, Rate::identity(Currency::KWD));
        assert_eq!(
            mid.origin,
            RateOrigin {
                source: PAR.into(),
                date: date!(2014 - 10 - 29)
            }
        );
        assert_eq!((mid.stale_ms, script.fetches()), (None, 0));
        for now_ms in [i64::MIN, i64::MAX] {
            assert!(rates.mid(Currency::USD, Currency::USD, now_ms).await.is_ok());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_waiters_share_one_fetch() {
        let script = Script::gated([Ok(usual())]);
        let rates = Rates::new(script.clone(), config());
        let mut waiters = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let rates = rates.clone();
            waiters.spawn(async move { usd(&rates, now()).await });
        }
        eventually("the fetch starts", async || script.fetches() == 1).await;
        script.gate.add_permits(100);
        let answers = waiters.join_all().await;
        assert!(answers.iter().all(|usd| usd == "1.25"));
        assert_eq!((answers.len(), script.fetches()), (100, 1));
        assert_eq!(
            rates.stats(),
            RatesStats {
                hits: 99,
                fetches: 1,
                ..RatesStats::default()
            }
        );
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_does_not_take_the_fetch_from_the_others() {
        let script = Script::gated([Ok(usual())]);
        let rates = Rates::new(script.clone(), config());
        let first = tokio::spawn({
            let rates = rates.clone();
            async move { usd(&rates, now()).await }
        });
        eventually("the fetch starts", async || script.fetches() == 1).await;
        let second = tokio::spawn({
            let rates = rates.clone();
            async move { usd(&rates, now()).await }
        });
        first.abort();
        script.gate.add_permits(10);
        assert_eq!(second.await.unwrap(), "1.25");
    }

    #[tokio::test]
    async fn an_expired_table_is_fetched_again() {
        let script = Script::new([Ok(usual()), Ok(table(DAY, &[(Currency::USD, "1.26")]))]);
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                expire_after: Duration::from_millis(20),
                ..config()
            },
        );
        assert_eq!(usd(&rates, now()).await, "1.25");
        eventually("the table expires", async || usd(&rates, now() + 1).await == "1.26").await;
        let mid = rates.mid(Currency::EUR, Currency::USD, now() + 2).await.unwrap();
        assert!(mid.fetch_ms > now());
    }

    #[tokio::test]
    async fn a_hit_past_its_prime_refreshes_once_in_the_background() {
        let script = Script::gated([Ok(usual()), Ok(table(DAY, &[(Currency::USD, "1.26")]))]);
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                refresh_after: Duration::from_millis(5),
                ..config()
            },
        );
        script.gate.add_permits(1);
        assert_eq!(usd(&rates, now()).await, "1.25");
        // The refresh starts and hangs at the gate: everybody is served from the old table, and nobody fetches more.
        eventually("the refresh starts", async || {
            assert_eq!(usd(&rates, now()).await, "1.25");
            script.fetches() == 2
        })
        .await;
        for _ in 0..100 {
            assert_eq!(usd(&rates, now()).await, "1.25");
            tokio::task::yield_now().await;
        }
        assert_eq!(script.fetches(), 2);
        // Nor do they queue up behind it.
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
        script.gate.add_permits(1);
        eventually("the refreshed table is served", async || {
            usd(&rates, now()).await == "1.26"
        })
        .await;
        assert_eq!(script.running_max.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_refresh_and_a_waiting_caller_do_not_both_fetch() {
        let script = Script::gated([Ok(usual()), Ok(table(DAY, &[(Currency::USD, "1.26")]))]);
        let times = (Duration::from_millis(1), Duration::from_millis(50));
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                refresh_after: times.0,
                expire_after: times.1,
                ..config()
            },
        );
        script.gate.add_permits(1);
        assert_eq!(usd(&rates, now()).await, "1.25");
        rates.refresh_ahead(now());
        eventually("the refresh starts", async || script.fetches() == 2).await;
        eventually("the table expires", async || rates.inner.cache.get(&()).await.is_none()).await;
        let waiting = tokio::spawn({
            let rates = rates.clone();
            async move { usd(&rates, now()).await }
        });
        // Whether it has come to the gate by then or not, it must not fetch.
        tokio::task::yield_now().await;
        script.gate.add_permits(10);
        assert_eq!(waiting.await.unwrap(), "1.26");
        assert_eq!(script.fetches(), 2);
        assert_eq!(script.running_max.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failed_refresh_leaves_the_table_and_waits_before_the_next() {
        let script = Script::new([Ok(usual())]);
        let never = Duration::from_secs(1_000_000);
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                refresh_after: Duration::ZERO,
                retry_after: never,
                ..config()
            },
        );
        assert_eq!(usd(&rates, now()).await, "1.25");
        eventually("the refresh fails", async || {
            assert_eq!(usd(&rates, now()).await, "1.25");
            rates.stats().failures == 1
        })
        .await;
        for _ in 0..20 {
            assert_eq!(usd(&rates, now()).await, "1.25");
            tokio::task::yield_now().await;
        }
        assert_eq!(script.fetches(), 2);
    }

    #[tokio::test]
    async fn a_source_that_was_never_reached_is_unavailable_until_it_is() {
        let script = Script::new([failure(), Ok(usual())]);
        let rates = Rates::new(script.clone(), config());
        let error = rates.mid(Currency::EUR, Currency::USD, now()).await.unwrap_err();
        assert_eq!(error.to_string(), "rate source script unavailable: transport: refused");
        assert!(matches!(error, FxError::SourceUnavailable { .. }));
        assert_eq!(usd(&rates, now()).await, "1.25");
        assert_eq!(
            rates.stats(),
            RatesStats {
                fetches: 2,
                failures: 1,
                ..RatesStats::default()
            }
        );
    }

    #[tokio::test]
    async fn a_source_that_just_failed_is_left_in_peace() {
        let script = Script::new([failure(), Ok(usual())]);
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                retry_after: Duration::from_millis(100),
                ..config()
            },
        );
        for _ in 0..10 {
            if rates.mid(Currency::EUR, Currency::USD, now()).await.is_ok() {
                assert_eq!(script.fetches(), 2);
            }
        }
        eventually("it is asked again", async || {
            rates.mid(Currency::EUR, Currency::USD, now()).await.is_ok()
        })
        .await;
        assert_eq!(script.fetches(), 2);
    }

    #[tokio::test]
    async fn a_source_that_hangs_is_given_up() {
        let script = Script::gated([Ok(usual())]);
        let limit = Duration::from_millis(50);
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                fetch_timeout: limit,
                ..config()
            },
        );
        let asked = rates.mid(Currency::EUR, Currency::USD, now());
        let error = tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "rate source script unavailable: no answer within 50 ms"
        );
    }

    /// A source that panics at its fetches of even number, from 0.
    struct Panics(AtomicUsize);

    impl RateSource for Panics {
        fn name(&self) -> &str {
            "panics"
        }

        fn fetch(&self) -> FetchFuture<'_> {
            Box::pin(async {
                let fetch = self.0.fetch_add(1, Ordering::SeqCst);
                assert!(fetch % 2 == 1, "fetch {fetch} panics");
                Ok(table(DAY, &[(Currency::USD, ["1.25", "1.26"][(fetch / 2).min(1)])]))
            })
        }
    }

    #[tokio::test]
    async fn a_source_that_panics_leaves_the_cache_working() {
        let rates = Rates::new(
            Panics(AtomicUsize::new(0)),
            RatesConfig {
                refresh_after: Duration::ZERO,
                ..config()
            },
        );
        let first = tokio::spawn({
            let rates = rates.clone();
            async move { rates.mid(Currency::EUR, Currency::USD, now()).await }
        });
        assert!(first.await.unwrap_err().is_panic());
        assert_eq!(usd(&rates, now()).await, "1.25");
        // The first refresh panics too; the second one comes all the same.
        eventually("the second refresh", async || usd(&rates, now()).await == "1.26").await;
    }

    #[tokio::test]
    async fn a_failing_source_leaves_the_last_good_rate_until_it_is_stale() {
        let script = Script::new([Ok(usual())]);
        let rates = Rates::new(script.clone(), forgetful());
        let stale_ms = rates
            .mid(Currency::EUR, Currency::USD, now())
            .await
            .unwrap()
            .stale_ms
            .unwrap();
        assert_eq!(stale_ms, published_ms(DAY) + 6 * 24 * HOUR_MS);
        let last = rates.mid(Currency::EUR, Currency::USD, stale_ms - 1).await.unwrap();
        assert_eq!((last.rate.value_string().as_str(), last.fetch_ms), ("1.25", now()));
        assert!(script.fetches() > 1);
        let error = rates.mid(Currency::EUR, Currency::USD, stale_ms).await.unwrap_err();
        assert!(matches!(error, FxError::RateStale { date: DAY, .. }));
        assert_eq!(
            error.to_string(),
            "rate EUR/USD of 2014-10-28 is older than the limit of 144 hours"
        );
        // It is still shown, with its time.
        assert_eq!(rates.list(None, stale_ms).await.unwrap().len(), 2);
        script.then(Ok(table(date!(2014 - 11 - 03), &[(Currency::USD, "1.26")])));
        assert_eq!(usd(&rates, stale_ms).await, "1.26");
    }

    #[tokio::test]
    async fn rates_hold_over_easter() {
        let thursday = date!(2015 - 04 - 02);
        let rates = Rates::new(Script::new([Ok(table(thursday, &[(Currency::USD, "1.08")]))]), config());
        let tuesday = datetime!(2015-04-07 18:00 UTC).unix_timestamp() * 1_000;
        assert_eq!(usd(&rates, tuesday).await, "1.08");
    }

    #[tokio::test]
    async fn a_pinned_source_is_never_stale() {
        let source = Embedded { date: Some(DAY) };
        let rates = Rates::new(
            source,
            RatesConfig {
                stale_after: None,
                ..config()
            },
        );
        for now_ms in [0, now(), datetime!(2099-01-01 0:00 UTC).unix_timestamp() * 1_000] {
            let mid = rates.mid(Currency::USD, Currency::CNY, now_ms).await.unwrap();
            assert_eq!(
                (mid.rate.value_string().as_str(), mid.stale_ms),
                ("6.11350800126", None)
            );
        }
    }

    #[tokio::test]
    async fn rates_of_days_to_come_are_refused() {
        let tomorrow = table(date!(2014 - 10 - 30), &[(Currency::USD, "1.26")]);
        let later = table(date!(2014 - 10 - 31), &[(Currency::USD, "1.27")]);
        let rates = Rates::new(Script::new([Ok(tomorrow), Ok(later)]), forgetful());
        assert_eq!(usd(&rates, now()).await, "1.26");
        assert_eq!(usd(&rates, now()).await, "1.26");
        assert_eq!(rates.stats().failures, 1);
    }

    #[tokio::test]
    async fn nothing_new_keeps_the_table_and_renews_its_fetch_time() {
        let rates = Rates::new(Script::new([Ok(usual()), Ok(Fetched::NotModified)]), forgetful());
        assert_eq!(usd(&rates, now()).await, "1.25");
        let mid = rates.mid(Currency::EUR, Currency::USD, now() + 5).await.unwrap();
        assert_eq!((mid.rate.value_string().as_str(), mid.fetch_ms), ("1.25", now() + 5));
        let first = Rates::new(Script::new([Ok(Fetched::NotModified)]), config());
        assert!(matches!(
            first.mid(Currency::EUR, Currency::USD, now()).await,
            Err(FxError::SourceUnavailable { .. })
        ));
    }

    #[tokio::test]
    async fn another_base_is_refused() {
        let mut other = RateTable::new(Currency::USD, "test");
        other
            .insert(Rate::parse(Currency::USD, Currency::CNY, "6").unwrap(), DAY)
            .unwrap();
        let rates = Rates::new(Script::new([Ok(usual()), Ok(Fetched::Table(other))]), forgetful());
        assert_eq!(usd(&rates, now()).await, "1.25");
        assert_eq!(usd(&rates, now()).await, "1.25");
        assert_eq!(rates.stats().failures, 1);
    }

    #[tokio::test]
    async fn a_jump_trips_the_breaker_of_its_currency_alone() {
        let next = date!(2014 - 10 - 29);
        let jump = || Ok(table(next, &[(Currency::USD, "2.5"), (Currency::CNY, "8.1")]));
        let script = Script::new([Ok(usual()), jump(), jump()]);
        let rates = Rates::new(script.clone(), forgetful());
        assert_eq!(usd(&rates, now()).await, "1.25");
        assert_eq!(rates.breakers(), []);
        for _ in 0..2 {
            let held = rates.mid(Currency::EUR, Currency::USD, now() + HOUR_MS).await.unwrap();
            assert_eq!((held.rate.value_string().as_str(), held.origin.date), ("1.25", DAY));
        }
        let cny = rates.mid(Currency::EUR, Currency::CNY, now()).await.unwrap();
        assert_eq!((cny.rate.value_string().as_str(), cny.origin.date), ("8.1", next));
        // Of a cross rate, the older of its two days.
        let cross = rates.mid(Currency::CNY, Currency::USD, now()).await.unwrap();
        assert_eq!(cross.origin.date, DAY);
        let [breaker] = &rates.breakers()[..] else {
            panic!("{:?}", rates.breakers())
        };
        assert_eq!((breaker.currency, breaker.since_ms), (Currency::USD, now() + HOUR_MS));
        assert_eq!(breaker.offered.rate.value_string(), "2.5");
        assert_eq!(rates.stats().trips, 1);
        // The held rate grows stale on its own; the others do not.
        let later = published_ms(DAY) + 6 * 24 * HOUR_MS;
        assert!(matches!(
            rates.mid(Currency::EUR, Currency::USD, later).await,
            Err(FxError::RateStale { .. })
        ));
        assert!(rates.mid(Currency::EUR, Currency::CNY, later).await.is_ok());
        // The source returns.
        script.then(Ok(table(next, &[(Currency::USD, "1.26")])));
        assert_eq!(usd(&rates, now()).await, "1.26");
        assert_eq!(rates.breakers(), []);
    }

    #[tokio::test]
    async fn an_accepted_jump_is_used_at_once() {
        let next = date!(2014 - 10 - 29);
        let script = Script::new([Ok(usual()), Ok(table(next, &[(Currency::USD, "2.5")]))]);
        let rates = Rates::new(
            script.clone(),
            RatesConfig {
                refresh_after: Duration::ZERO,
                ..config()
            },
        );
        assert_eq!(rates.accept(Currency::USD), None);
        eventually("the breaker trips", async || {
            assert_eq!(usd(&rates, now()).await, "1.25");
            !rates.breakers().is_empty()
        })
        .await;
        let accepted = rates.accept(Currency::USD).unwrap();
        assert_eq!(accepted.held.rate.value_string(), "1.25");
        let mid = rates.mid(Currency::EUR, Currency::USD, now()).await.unwrap();
        assert_eq!((mid.rate.value_string().as_str(), mid.origin.date), ("2.5", next));
        assert_eq!(rates.breakers(), []);
        assert_eq!(rates.accept(Currency::USD), None);
    }

    #[tokio::test]
    async fn the_list_has_every_other_currency_by_code() {
        let rates = Rates::new(
            Embedded { date: Some(DAY) },
            RatesConfig {
                stale_after: None,
                ..config()
            },
        );
        let codes = |list: &[MidRate]| list.iter().map(|mid| mid.rate.quote()).collect::<Vec<_>>();
        let of_base = rates.list(None, now()).await.unwrap();
        assert_eq!(of_base.len(), 32);
        assert!(of_base.iter().all(|mid| mid.rate.base() == Currency::EUR));
        assert!(codes(&of_base).is_sorted());
        let of_usd = rates.list(Some(Currency::USD), now()).await.unwrap();
        assert_eq!(of_usd.len(), 32);
        assert!(codes(&of_usd).contains(&Currency::EUR) && !codes(&of_usd).contains(&Currency::USD));
        for mid in of_usd {
            assert_eq!(rates.mid(Currency::USD, mid.rate.quote(), now()).await.unwrap(), mid);
        }
        let unknown = rates.list(Some(Currency::KWD), now()).await;
        assert!(matches!(
            unknown,
            Err(FxError::RateUnknown {
                missing: Currency::KWD,
                ..
            })
        ));
    }
}
