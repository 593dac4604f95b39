//! The embedded store: one SQLite file.
//!
//! One thread writes, and commits whatever has queued as one transaction (group commit), so that many payments share an
//! fsync. WAL and `synchronous=FULL`: what is answered is on disk. Reads have connections of their own and never wait for
//! the writer. A lock file keeps a second process out for as long as this one lives.
//!
//! What the medium damages is found and never shown as if it were so: the log is read before SQLite may cut it short
//! (`wal`), a mark beside the file says how far the store had come (`mark`), rows have checksums (`sum`), what is searched
//! for twice must be found twice (`read`), and a thread looks through all of it once after the start (`check`).

mod check;
mod mark;
mod read;
mod schema;
mod sum;
mod wal;
mod write;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::{
    feed::{Feed, Subscription},
    payment::{PaymentId, Quote, QuoteId},
};

use super::{
    Append, AppendOutcome, Begin, BeginOutcome, Change, History, ListQuery, Listed, Pending, Store, StoreError,
    StoredQuote,
};
use check::{Checker, Depth};
use mark::MarkFile;
use write::{Job, Writer};

pub use check::Checked;
pub use sum::record_sum;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file. Its folder must exist.
    pub path: PathBuf,
    /// How many reads of single payments and quotes run at once, and as many lists beside them.
    pub readers: usize,
    /// How many writes may queue before more are turned away.
    pub queue_max: usize,
    /// How many writes share a transaction at most.
    pub batch_max: usize,
    /// How long writes that nobody waits for may wait for company.
    pub linger: Duration,
    /// How many pages of 4,096 bytes the file may have, so that it cannot fill a disk that it shares; no limit if absent.
    pub pages_max: Option<u32>,
    /// Whether a thread looks through the whole store once after the start, and logs what is damaged. It takes at most a
    /// fifth of one core. See [`SqliteStore::check`].
    pub check: bool,
}

impl SqliteOptions {
    /// The file with everything else as usual.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readers: 4,
            queue_max: 65_536,
            batch_max: 4_096,
            linger: Duration::from_millis(5),
            pages_max: None,
            check: true,
        }
    }
}

/// A store in one SQLite file. See the module's documentation.
#[derive(Debug)]
pub struct SqliteStore {
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    checker: Option<Checker>,
    readers: Arc<Readers>,
    /// For what may take long: lists and the far end of the feed. They never keep a payment waiting.
    long_readers: Arc<Readers>,
    feed: Subscription,
    failure: watch::Receiver<Option<StoreError>>,
    _lock: File,
}

#[derive(Debug)]
struct Readers {
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

impl SqliteStore {
    /// Opens the file, making or migrating it as needed. Errors say what is wrong with the file: not SQLite, not
    /// Causeway's, of a newer version, damaged, in use by another process, not writable.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let lock = lock(&options.path)?;
        // SQLite names what lies beside the file after the file itself, not after a link to it.
        let real = options.path.canonicalize().unwrap_or_else(|_| options.path.clone());
        let log = wal::read(&real)?;
        mark::check_file(&real, log)?;
        mark::check_log(&real, log)?;
        if let Some(log) = log {
            wal::make_durable(&real, log)?;
        }
        let mut connection = connect(
            &options.path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        )?;
        // Until all has been looked at, nothing is folded: a store that is refused is left as it was found.
        keep_log(&connection, true, &options.path)?;
        if let Ok(head) = read::head(&connection) {
            mark::check_head(&real, head)?;
        }
        schema::prepare(&mut connection, &options)?;
        let head = read::head(&connection).map_err(|error| StoreError::Unusable {
            path: options.path.display().to_string(),
            problem: format!("cannot be used: {error}; restore it from a backup"),
        })?;
        mark::check_head(&real, head)?;
        keep_log(&connection, false, &options.path)?;
        let mut mark = MarkFile::open(&real)?;
        mark.note(&connection, head);

        let readers = Readers::open(&options.path, options.readers)?;
        let long_readers = Readers::open(&options.path, options.readers)?;

        let feed = Feed::new(head);
        let subscription = feed.subscribe();
        let (failed, failure) = watch::channel(None);
        let (jobs, queue) = sync_channel(options.queue_max);
        let checker = options.check.then(|| Checker::start(&options.path)).transpose()?;
        let writer = Writer::new(connection, mark, queue, feed, failed, options.batch_max, options.linger);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unavailable(format!("cannot start the writer thread: {error}")))?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            checker,
            readers,
            long_readers,
            feed: subscription,
            failure,
            _lock: lock,
        })
    }

    /// Looks through the whole store: every payment, change, list entry and quote is there, is what was written, and is
    /// found by every way that leads to it. The thread that [`SqliteOptions::check`] asks for does the same, slowly.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::Unavailable`] if it cannot be looked through at all.
    pub fn check(&self) -> Pending<Checked> {
        self.long_readers
            .read(|connection| check::run(connection, Depth::Pages, &mut |_| true))
    }

    fn write<T: Send + 'static>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Pending<T> {
        let (reply, answer) = oneshot::channel();
        let sent = match &self.jobs {
            Some(jobs) => jobs.try_send(job(reply)).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Unavailable("too many writes are waiting".into()),
                TrySendError::Disconnected(_) => StoreError::Closed,
            }),
            None => Err(StoreError::Closed),
        };
        Box::pin(async move {
            sent?;
            answer.await.map_err(|_| StoreError::Closed)?
        })
    }
}

impl Readers {
    fn open(path: &Path, count: usize) -> Result<Arc<Self>, StoreError> {
        let idle = (0..count.max(1))
            .map(|_| connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY))
            .collect::<Result<Vec<_>, _>>()?;
        let places = Arc::new(Semaphore::new(idle.len()));
        Ok(Arc::new(Self {
            places,
            idle: Mutex::new(idle),
        }))
    }

    fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        let readers = Arc::clone(self);
        Box::pin(async move {
            let place = Arc::clone(&readers.places)
                .acquire_owned()
                .await
                .map_err(|_| StoreError::Closed)?;
            let done = tokio::task::spawn_blocking(move || {
                let _place = place;
                let connection = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let connection = connection.expect("there is a connection for each place");
                let result = read(&connection);
                readers
                    .idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
                result
            });
            done.await.map_err(|_| StoreError::Closed)?
        })
    }
}

impl Store for SqliteStore {
    fn begin(&self, begin: Begin) -> Pending<BeginOutcome> {
        self.write(|reply| Job::Begin(Box::new(begin), reply))
    }

    fn append(&self, append: Append) -> Pending<AppendOutcome> {
        self.write(|reply| Job::Append(Box::new(append), reply))
    }

    fn put_quote(&self, quote: Quote) -> Pending<()> {
        self.write(|reply| Job::PutQuote(Box::new(quote), reply))
    }

    fn forget_quotes(&self, lapsed_before_ms: i64) -> Pending<usize> {
        self.write(|reply| Job::ForgetQuotes {
            lapsed_before_ms,
            reply,
        })
    }

    fn quote(&self, id: QuoteId) -> Pending<Option<StoredQuote>> {
        self.readers.read(move |connection| read::quote(connection, id))
    }

    fn payment(&self, id: PaymentId) -> Pending<Option<History>> {
        self.readers.read(move |connection| read::payment(connection, id))
    }

    fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Pending<Vec<PaymentId>> {
        self.long_readers
            .read(move |connection| read::unfinished(connection, after, limit))
    }

    fn list(&self, query: ListQuery) -> Pending<Vec<Listed>> {
        self.long_readers.read(move |connection| read::list(connection, &query))
    }

    fn changes(&self, after: u64, limit: usize) -> Pending<Vec<Change>> {
        let head = self.feed.head();
        self.long_readers
            .read(move |connection| read::changes(connection, after, limit, head))
    }

    fn feed(&self) -> Subscription {
        self.feed.clone()
    }

    fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.failure.clone()
    }
}

impl Drop for SqliteStore {
    /// Writes what has queued, then lets go of the file.
    fn drop(&mut self) {
        drop(self.checker.take());
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so on the way; there is nothing left to wait for.
            let _ = writer.join();
        }
    }
}

/// Holds `FILE.lock` for the life of the process. The operating system lets go of it even after SIGKILL.
fn lock(path: &Path) -> Result<File, StoreError> {
    // One file, one lock, however its path is spelled. It has to be there to have one name; what is wrong with it if it
    // cannot be made is said when it is opened. Where a log lies it is not made: the file that it belongs to is missing.
    if !wal::path_of(path).exists() {
        let _ = File::options().create(true).append(true).open(path);
    }
    let real = path.canonicalize();
    let mut lock_path = real.as_deref().unwrap_or(path).as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let unusable = |problem: String| StoreError::Unusable {
        path: lock_path.display().to_string(),
        problem,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|error| unusable(format!("cannot be opened: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unusable {
            path: path.display().to_string(),
            problem: "another process is using this store; stop it first, or give each gateway its own file".into(),
        }),
        Err(TryLockError::Error(error)) => Err(unusable(format!("cannot be locked: {error}"))),
    }
}

/// Whether the log is kept as it is when the connection is closed.
fn keep_log(connection: &Connection, keep: bool, path: &Path) -> Result<(), StoreError> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(drop)
        .map_err(|error| unusable(path, &error))
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|error| unusable(path, &error))
}

/// The error of a file that cannot be opened as a store.
fn unusable(path: &Path, error: &rusqlite::Error) -> StoreError {
    let problem = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "is not a SQLite database".into(),
        Some(ErrorCode::DatabaseCorrupt) => format!("is damaged ({error}); restore it from a backup"),
        Some(ErrorCode::ReadOnly) => "is read-only; the gateway must be able to write it".into(),
        Some(ErrorCode::DiskFull) => "lies on a full disk".into(),
        Some(ErrorCode::CannotOpen) => format!("cannot be opened ({error}); its folder must exist and be writable"),
        _ => format!("cannot be used: {error}"),
    };
    StoreError::Unusable {
        path: path.display().to_string(),
        problem,
    }
}

/// The error of a read.
fn read_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        Some(_) => StoreError::Unavailable(error.to_string()),
        // Not SQLite's: a column holds what was never written there.
        None => StoreError::Damaged(error.to_string()),
    }
}
