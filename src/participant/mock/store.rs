//! The mock partner's SQLite file and the one thread that writes it.
//!
//! Owns opening and checking the file, and group commit: whatever has queued while the last transaction was being
//! synced becomes the next one. What the commands do is [`super::ledger`]'s.
//!
//! Invariant: an answer leaves after the transaction that it stands on is durable, never before. A store that could not
//! commit stops for good: only reading the file again tells what is in it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::ledger::{self, Ledger};

/// Commands that wait for the writer; beyond them callers wait.
const QUEUE_MAX: usize = 16_384;
/// Commands in one transaction.
const BATCH_MAX: usize = 1_024;
/// "CWmp", in the file's header: this is a mock partner's.
const APPLICATION_ID: i32 = 0x4357_6d70;
const SCHEMA_VERSION: i32 = 1;
/// Statements that stay compiled; more than there are.
const STATEMENTS_MAX: usize = 64;

/// Why the store cannot be used. All are final for this run.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// Not SQLite, or SQLite of another program or version.
    #[error("{path} is not a mock partner's store: {detail}")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// Of another network.
    #[error("{path} is the store of {got:?}, expected {expected:?}")]
    Network {
        /// Which file.
        path: PathBuf,
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        got: String,
    },
    /// SQLite finds the file damaged.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The books do not balance: a bug, or somebody edited the file.
    #[error("the books are wrong: {0}")]
    Broken(String),
    /// SQLite failed while running.
    #[error("the store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The thread cannot be started.
    #[error("cannot start the store's thread: {0}")]
    Thread(std::io::Error),
}

/// The store stopped before it answered. Whether the command was carried out is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has stopped")]
pub(super) struct Stopped;

/// Tells everybody waiting, once their transaction is durable.
type Answer = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce(&mut Ledger<'_>) -> Result<Answer, StoreError> + Send>;

/// A handle to the store.
#[derive(Clone)]
pub(super) struct Store {
    jobs: mpsc::Sender<Job>,
}

/// The store's thread. Dropping it ends the thread and closes the file, whatever handles there are.
pub(super) struct StoreThread {
    jobs: mpsc::Sender<Job>,
    halt: Arc<AtomicBool>,
    failure: Option<oneshot::Receiver<StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the file of `network`; ":memory:" is one that nobody keeps.
    pub(super) fn open(path: &Path, network: &str) -> Result<(Store, StoreThread), StoreError> {
        let connection = open(path, network)?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (failed, failure) = oneshot::channel();
        let halt = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            connection,
            queue,
            halt: halt.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("store-{network}"))
            .spawn(move || {
                if let Err(error) = writer.run() {
                    tracing::error!(%error, "the mock partner's store stops");
                    let _ = failed.send(error);
                }
            })
            .map_err(StoreError::Thread)?;
        let thread = StoreThread {
            jobs: jobs.clone(),
            halt,
            failure: Some(failure),
            thread: Some(thread),
        };
        Ok((Store { jobs }, thread))
    }

    /// Runs a command in the next transaction and answers once that is durable. A caller that goes away changes nothing.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |ledger| {
            let outcome = command(ledger)?;
            Ok(Box::new(move || drop(answer.send(outcome))))
        });
        self.jobs.send(job).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

impl StoreThread {
    /// Waits until the store fails. Pending for ever while it works.
    pub(super) async fn failed(&mut self) -> StoreError {
        if let Some(failure) = &mut self.failure {
            let failure = failure.await;
            self.failure = None;
            if let Ok(error) = failure {
                return error;
            }
        }
        std::future::pending().await
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.halt.store(true, Ordering::Release);
        // Wakes an idle thread. A full queue means that it is not idle, and looks at the flag before the next batch.
        let _ = self.jobs.try_send(Box::new(|_| Ok(Box::new(|| ()))));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the mock partner's store thread panicked");
        }
    }
}

struct Writer {
    connection: Connection,
    queue: mpsc::Receiver<Job>,
    halt: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) -> Result<(), StoreError> {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            if self.halt.load(Ordering::Acquire) {
                return Ok(());
            }
            let answers = self.transact(batch.drain(..))?;
            answers.into_iter().for_each(|answer| answer());
        }
        Ok(())
    }

    fn transact(&mut self, jobs: impl Iterator<Item = Job>) -> Result<Vec<Answer>, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut ledger = Ledger::new(&transaction, now_ms());
        let answers = jobs.map(|job| job(&mut ledger)).collect::<Result<Vec<_>, _>>()?;
        ledger.finish()?;
        transaction.commit()?;
        Ok(answers)
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn open(path: &Path, network: &str) -> Result<Connection, StoreError> {
    let blame = |error: StoreError| match error {
        StoreError::Sqlite(source) => match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(path.to_owned()),
            Some(ErrorCode::NotADatabase) => StoreError::Foreign {
                path: path.to_owned(),
                detail: "not a SQLite database".to_owned(),
            },
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged {
                path: path.to_owned(),
                detail: source.to_string(),
            },
            _ => StoreError::Open {
                path: path.to_owned(),
                source,
            },
        },
        StoreError::Broken(detail) => StoreError::Damaged {
            path: path.to_owned(),
            detail,
        },
        other => other,
    };
    prepare(path, network).map_err(blame)
}

fn prepare(path: &Path, network: &str) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Whoever has the lock has it for long: waiting would not help.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // EXCLUSIVE keeps the lock for as long as the file is open, and needs no shared memory. Asked before the first
    // access, because that is when the lock is taken.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // Before the journal mode, which writes: a foreign file is to be left as it is.
    let foreign = |detail: String| StoreError::Foreign {
        path: path.to_owned(),
        detail,
    };
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let new = id == 0 && version == 0 && tables == 0;
    if !new && id != APPLICATION_ID {
        return Err(foreign("a SQLite database of another program".to_owned()));
    }
    if !new && version != SCHEMA_VERSION {
        return Err(foreign(format!("schema version {version}, expected {SCHEMA_VERSION}")));
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if new {
        transaction.execute_batch(ledger::SCHEMA)?;
        transaction.execute("INSERT INTO meta (name) VALUES (?1)", [network])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    } else {
        let damage: String = transaction.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if damage != "ok" {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                detail: damage,
            });
        }
        let got: String = transaction.query_row("SELECT name FROM meta", [], |row| row.get(0))?;
        if got != network {
            let expected = network.to_owned();
            return Err(StoreError::Network {
                path: path.to_owned(),
                expected,
                got,
            });
        }
        ledger::check_books(&transaction)?;
    }
    transaction.commit()?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_error(path: &Path, network: &str) -> StoreError {
        match Store::open(path, network) {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_store_is_opened_by_one_at_a_time_and_only_by_its_network() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alipay.sqlite");
        let (_, thread) = Store::open(&path, "alipay").unwrap();
        assert!(matches!(open_error(&path, "alipay"), StoreError::InUse(_)));
        drop(thread);
        let error = open_error(&path, "paypay");
        assert!(
            matches!(&error, StoreError::Network { got, .. } if got == "alipay"),
            "{error}"
        );
        Store::open(&path, "alipay").unwrap();
    }

    #[test]
    fn files_that_are_not_ours_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "no database".repeat(100)).unwrap();
        let other = dir.path().join("other.sqlite");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        let newer = dir.path().join("newer.sqlite");
        drop(Store::open(&newer, "alipay").unwrap());
        Connection::open(&newer)
            .unwrap()
            .pragma_update(None, "user_version", 2)
            .unwrap();
        for (path, detail) in [
            (&text, "not a SQLite database"),
            (&other, "another program"),
            (&newer, "schema version 2, expected 1"),
        ] {
            let before = std::fs::read(path).unwrap();
            let error = open_error(path, "alipay").to_string();
            assert!(error.contains(detail), "{error}");
            assert_eq!(std::fs::read(path).unwrap(), before);
        }
        let missing = dir.path().join("no-such-dir").join("x.sqlite");
        assert!(matches!(open_error(&missing, "alipay"), StoreError::Open { .. }));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, damage) in [
            ("page", None),
            (
                "money",
                Some("INSERT INTO accounts VALUES ('a', 'USD', 0, 5, 0, 0, 0, NULL)"),
            ),
            (
                "held",
                Some("INSERT INTO accounts VALUES ('a', 'USD', 0, 0, 0, 7, 0, NULL)"),
            ),
            ("state", Some("DROP TABLE accounts")),
        ] {
            let path = dir.path().join(name);
            drop(Store::open(&path, "alipay").unwrap());
            match damage {
                Some(sql) => Connection::open(&path).unwrap().execute_batch(sql).unwrap(),
                None => {
                    let mut bytes = std::fs::read(&path).unwrap();
                    // The second page on, the tables and their indexes; the header stays readable.
                    bytes[4096..].fill(0xA5);
                    std::fs::write(&path, bytes).unwrap();
                }
            }
            let error = open_error(&path, "alipay");
            let text = error.to_string();
            assert!(
                matches!(error, StoreError::Damaged { .. } | StoreError::Open { .. }),
                "{name}: {text}"
            );
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_command_that_breaks_the_books_stops_the_store_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alipay.sqlite");
        let (store, mut thread) = Store::open(&path, "alipay").unwrap();
        let setup = ledger::AccountSetup {
            account: "alice".to_owned(),
            currency: "USD".to_owned(),
            balance: 500,
            closed: false,
            payment_limit: None,
        };
        store
            .run(move |ledger| ledger.put_account(&setup))
            .await
            .unwrap()
            .unwrap();
        let broken = store.run(|ledger| ledger.conjure("alice", "USD", 1)).await;
        assert_eq!(broken, Err(Stopped));
        let error = thread.failed().await.to_string();
        assert!(error.contains("add up to 1 minor units"), "{error}");
        assert_eq!(store.run(|ledger| ledger.accounts()).await, Err(Stopped));
        drop(thread);
        let (store, _thread) = Store::open(&path, "alipay").unwrap();
        let accounts = store.run(|ledger| ledger.accounts()).await.unwrap();
        assert_eq!(
            accounts.iter().map(|account| account.balance).collect::<Vec<_>>(),
            [500, -500]
        );
    }
}
