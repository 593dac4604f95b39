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
    // It stays in the cache: how old it may become is counted by the runtime's clock, not by the cache's.
    eventually("the table expires", async || {
        let snapshot = rates.inner.cache.get(&()).await.expect("it is cached");
        snapshot.has_expired(&*rates.inner.runtime)
    })
    .await;
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
    let first = rates.mid(Currency::EUR, Currency::USD, now()).await;
    assert!(matches!(&first, Err(FxError::SourceUnavailable { .. })), "{first:?}");
    assert_eq!(usd(&rates, now()).await, "1.25");
    // The first refresh panics too; the second one comes all the same.
    eventually("the second refresh", async || usd(&rates, now()).await == "1.26").await;
}

#[tokio::test]
async fn a_source_that_hangs_keeps_nobody_waiting_who_can_be_served() {
    let script = Script::gated([Ok(usual())]);
    let rates = Rates::new(script.clone(), forgetful());
    script.gate.add_permits(1);
    let served = usd(&rates, now()).await;
    // Whatever it would say next, it says it to nobody for now.
    script.then(Ok(usual()));
    for _ in 0..3 {
        let again = tokio::time::timeout(PATIENCE * 3, usd(&rates, now())).await;
        assert_eq!(again.expect("waited for a source that hangs"), served);
    }
    assert_eq!(script.fetches(), 2, "one fetch hangs; no other is started beside it");
}

#[tokio::test]
async fn callers_that_give_up_do_not_end_the_fetch() {
    let script = Script::gated([Ok(usual())]);
    let rates = Rates::new(script.clone(), config());
    for _ in 0..300 {
        let gave_up = tokio::time::timeout(Duration::from_millis(1), rates.mid(Currency::EUR, Currency::USD, now()));
        assert!(gave_up.await.is_err());
    }
    script.gate.add_permits(1);
    usd(&rates, now()).await;
    assert_eq!(script.fetches(), 1);
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
