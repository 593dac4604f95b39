//! The store under fire: its file and log cut, their bits turned over, the disk full, read-only, failing to sync, losing
//! power. Whatever happens, the store opens to a prefix of the history that has all that was acknowledged, or refuses
//! and says why; and it never shows a payment as it was not.
//!
//! The history is a list of [`Step`]s, written in their order. What a store shows is compared with what a model of its
//! own ([`Model`]) says after so many steps; the model keeps records in a map and shares nothing with the store.

mod cuts;
mod flips;
mod full;
mod gateway;
mod power;
mod shim;
mod tally;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use causeway::{
    coordinator::protocol::{Phase, Record, State},
    payment::{PaymentId, Quote, Terms},
    store::{AppendOutcome, BeginOutcome, ListQuery, Pending, SqliteOptions, SqliteStore, Store, StoreError},
};

use crate::made;

/// One write. Each adds either a quote or a record, so that a store tells by counting how many steps it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The n-th quote is made.
    Quote(u64),
    /// The n-th payment begins by it.
    Begin(u64),
    /// It is decided to commit it.
    Commit(u64),
    /// It is decided to abort it.
    Abort(u64),
    /// It ends.
    End(u64),
    /// It is disputed.
    Dispute(u64),
}

/// A history of this many payments that overlap: some complete, some are disputed, some stay open.
pub fn history(payments: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for n in 0..payments {
        steps.extend([Step::Quote(n), Step::Begin(n)]);
        if let Some(m) = n.checked_sub(2) {
            steps.push(if m % 4 == 2 { Step::Abort(m) } else { Step::Commit(m) });
        }
        if let Some(m) = n.checked_sub(4) {
            match m % 4 {
                0 | 1 => steps.push(Step::End(m)),
                3 => steps.push(Step::Dispute(m)),
                _ => {}
            }
        }
    }
    steps
}

pub fn initiator(n: u64) -> &'static str {
    if n.is_multiple_of(3) { "alipay" } else { "apple-pay" }
}

/// Made once: a test compares them ten thousand times.
pub fn terms(n: u64) -> Arc<Terms> {
    static MADE: Mutex<BTreeMap<u64, Arc<Terms>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    Arc::clone(made.entry(n).or_insert_with(|| made::terms(initiator(n), n)))
}

/// The same of quotes.
pub fn quote(n: u64) -> Arc<Quote> {
    static MADE: Mutex<BTreeMap<u64, Arc<Quote>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    Arc::clone(made.entry(n).or_insert_with(|| Arc::new(made::quote(n))))
}

/// What there is after so many steps.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub quotes: BTreeMap<u64, Option<u64>>,
    pub payments: BTreeMap<u64, Vec<Record>>,
    /// Which payment each change was of, in their order.
    pub changes: Vec<u64>,
}

impl Model {
    pub fn after(steps: &[Step]) -> Self {
        let mut model = Self::default();
        for step in steps {
            model.take(*step);
        }
        model
    }

    fn take(&mut self, step: Step) {
        let (n, record) = match step {
            Step::Quote(n) => {
                self.quotes.insert(n, None);
                return;
            }
            Step::Begin(n) => {
                self.quotes.insert(n, Some(n));
                (n, made::begun(&terms(n)))
            }
            Step::Commit(n) => (n, made::committed(terms(n).begin_ms + 1)),
            Step::Abort(n) => (n, made::aborted(terms(n).begin_ms + 1)),
            Step::End(n) => (n, made::ended(terms(n).begin_ms + 2)),
            Step::Dispute(n) => (n, made::disputed(terms(n).begin_ms + 2)),
        };
        self.payments.entry(n).or_default().push(record);
        self.changes.push(n);
    }

    /// The ids of those that are still to be driven.
    pub fn unfinished(&self) -> Vec<PaymentId> {
        let is_over = |records: &[Record]| {
            let State::Present(transaction) = made::state(records) else {
                return false;
            };
            // The disputes of these tests leave nothing to deliver.
            matches!(
                transaction.phase,
                Phase::Completed { .. } | Phase::Aborted { .. } | Phase::Disputed { .. }
            )
        };
        let open = self.payments.iter().filter(|(_, records)| !is_over(records));
        let mut ids: Vec<_> = open.map(|(n, _)| terms(*n).id).collect();
        ids.sort_by_key(|id| (id.bucket(), *id));
        ids
    }
}

/// Hands the step to the store, which answers when it is written. `model` is what there is before it, and then after it.
pub fn send(store: &SqliteStore, model: &mut Model, step: Step) -> Pending<()> {
    model.take(step);
    match step {
        Step::Quote(n) => store.put_quote(made::quote(n)),
        Step::Begin(n) => {
            let begun = store.begin(made::begin(&terms(n)));
            Box::pin(async move {
                assert_eq!(begun.await?, BeginOutcome::Begun);
                Ok(())
            })
        }
        Step::Commit(n) | Step::Abort(n) | Step::End(n) | Step::Dispute(n) => {
            let appended = store.append(made::append(terms(n).id, &model.payments[&n], 1));
            Box::pin(async move {
                assert_eq!(appended.await?, AppendOutcome::Appended);
                Ok(())
            })
        }
    }
}

/// Writes the step and waits for the acknowledgement; if there is none, the model is as it was.
pub async fn write(store: &SqliteStore, model: &mut Model, step: Step) -> Result<(), StoreError> {
    let before = model.clone();
    let written = send(store, model, step).await;
    if written.is_err() {
        *model = before;
    }
    written
}

/// How the tests here open a store: few connections, and nothing that runs by itself.
pub fn options(folder: &Path) -> SqliteOptions {
    SqliteOptions {
        readers: 1,
        check: false,
        ..SqliteOptions::new(folder.join(FILE))
    }
}

pub const FILE: &str = "store.sqlite";
pub const WAL: &str = "store.sqlite-wal";
pub const MARK: &str = "store.sqlite.mark";

/// A folder in memory if there is one: what is under test here is what the bytes mean, not the disk.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A new store with pages of 512 bytes, so that few rows make a tree of many pages.
pub fn small_pages(folder: &Path) {
    let file = rusqlite::Connection::open(folder.join(FILE)).unwrap();
    file.execute_batch("PRAGMA page_size = 512; VACUUM").unwrap();
}

/// Opens the store in the folder, which may refuse; a refusal names a file of the folder.
pub fn open(folder: &Path) -> Result<SqliteStore, String> {
    match SqliteStore::open(options(folder)) {
        Ok(store) => Ok(store),
        Err(StoreError::Unusable { path, problem }) => {
            let named = Path::new(&path);
            assert!(named.starts_with(folder) && !problem.is_empty(), "{path}: {problem}");
            Err(problem)
        }
        Err(error) => panic!("another error than a refusal: {error:?}"),
    }
}

/// Reads all of a store in which nothing is damaged; answers how many of the steps it has. Panics if that is no prefix.
pub async fn steps_in(store: &SqliteStore, steps: &[Step]) -> usize {
    let mut quotes = BTreeMap::new();
    for step in steps {
        if let Step::Quote(n) = step {
            quotes.insert(n, store.quote(made::quote_id(*n)).await.unwrap());
        }
    }
    let changes = store.changes(0, usize::MAX >> 1).await.unwrap();
    let count = quotes.values().flatten().count() + changes.len();
    let model = Model::after(&steps[..count]);
    for step in steps {
        match step {
            Step::Quote(n) => {
                let stored = &quotes[n];
                let expected = model.quotes.get(n).map(|by| by.map(|by| terms(by).id));
                assert_eq!(
                    stored.as_ref().map(|stored| stored.taken_by),
                    expected,
                    "quote {n} of {count} steps"
                );
                assert!(stored.as_ref().is_none_or(|stored| stored.quote == *quote(*n)));
            }
            Step::Begin(n) => {
                let stored = store.payment(terms(*n).id).await.unwrap();
                let records = stored.map(|history| history.records);
                assert_eq!(records.as_ref(), model.payments.get(n), "payment {n} of {count} steps");
            }
            Step::Commit(_) | Step::Abort(_) | Step::End(_) | Step::Dispute(_) => {}
        }
    }
    let mut versions: BTreeMap<u64, usize> = BTreeMap::new();
    for ((expected, n), change) in (1..).zip(&model.changes).zip(&changes) {
        let version = versions.entry(*n).or_default();
        *version += 1;
        assert_eq!(change.sequence, expected);
        assert_eq!(
            change.state,
            made::state(&model.payments[n][..*version]),
            "change {expected}"
        );
    }
    assert_eq!(store.feed().head(), changes.len() as u64);
    assert_eq!(store.unfinished(None, 1_000).await.unwrap(), model.unfinished());
    let all = ListQuery {
        limit: 1_000,
        ..Default::default()
    };
    let listed = store.list(all).await.unwrap();
    assert_eq!(listed.len(), model.payments.len());
    assert!(listed.iter().all(|listed| listed.history.is_ok()));
    count
}

/// Copies these files of a folder into a new one, as a disk has them; those that are missing stay so.
pub fn copy(from: &Path, to: &Path, files: &[&str]) {
    for file in files {
        match fs::copy(from.join(file), to.join(file)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{file}: {error}"),
        }
    }
}

/// A generator with a seed, the same everywhere (SplitMix64: Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// Of the run's seed, which `FIRE_SEED` sets, and of what it is used for.
    pub fn new(purpose: &str) -> Self {
        let salt = purpose
            .bytes()
            .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self(seed().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

pub fn seed() -> u64 {
    let set = std::env::var("FIRE_SEED")
        .ok()
        .map(|text| text.parse().expect("FIRE_SEED is a number"));
    set.unwrap_or(20_261_122)
}

/// Says how to see a failure again, if there is one.
pub struct Replay(pub &'static str);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: FIRE_SEED={} cargo test --test store {}", seed(), self.0);
        }
    }
}

/// Runs on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A folder that holds a store, and what was in the log each time a step was acknowledged.
pub struct Written {
    pub folder: tempfile::TempDir,
    pub steps: Vec<Step>,
    /// After each step: how many bytes of the log were in use, and of which round of the log they were.
    pub log_bytes: Vec<(u64, [u8; 8])>,
}

impl Written {
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}
