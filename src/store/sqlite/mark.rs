//! The high-water mark: how far the store had come when it last answered, kept beside it in `FILE.mark`.
//!
//! SQLite drops the end of a damaged log without a word (see [`super::wal`]), and a file whose log was lost, or that was
//! put back from an older copy, opens like any other. The mark says what was acknowledged, so that opening can compare.
//!
//! Invariant: the mark never says more than what is on disk. It is written after the commit's fsync and before the
//! answer, with one small write and without an fsync of its own, which would double the price of a batch: the kernel has
//! it even if the process is killed in the next instruction. A power cut may leave an older mark. That one asks for less
//! and is right all the same; what is then found is damage in all but the last commits, by the log itself.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{
    StoreError,
    wal::{self, Log, Salts},
};

const MAGIC: &[u8; 8] = b"CSWYMARK";
/// Magic, salts, frames, head, sum: within one sector, so that a power cut leaves one mark or the other.
const BYTES: usize = 36;

/// What had been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// How much of which log.
    log: Log,
    /// The number of the last change.
    head: u64,
}

/// The file that holds the mark, and the log that it speaks of.
#[derive(Debug)]
pub struct MarkFile {
    file: File,
    log: File,
    /// A mark that cannot be written is said once, not with every batch.
    failing: bool,
}

/// Compares what is there with what was acknowledged. Before SQLite opens the file: it would drop what does not fit.
///
/// # Errors
/// [`StoreError::Unusable`]: the log ends before what was acknowledged, or the mark cannot be read and written.
pub fn check_log(store: &Path, log: Option<Log>) -> Result<(), StoreError> {
    let mark = read(store)?;
    if mark.is_some() {
        open(&path_of(store), File::options().write(true))?;
    }
    let (Some(mark), Some(log)) = (mark, log) else {
        return Ok(());
    };
    // A log of another round began after all of the marked one was in the main file.
    if log.salts != mark.log.salts || log.frames >= mark.log.frames {
        return Ok(());
    }
    Err(StoreError::Unusable {
        path: wal::path_of(store).display().to_string(),
        problem: format!(
            "is damaged: {} of its frames are whole, and {} had been acknowledged; restore the store from a backup",
            log.frames, mark.log.frames
        ),
    })
}

/// A main file that is missing or empty beside a log or a mark that is not: SQLite would take it for a new store and
/// delete the log, in which acknowledged changes are. Before anything is opened or made.
///
/// # Errors
/// [`StoreError::Unusable`].
pub fn check_file(store: &Path, log: Option<Log>) -> Result<(), StoreError> {
    let empty = std::fs::metadata(store).map_or(true, |found| found.len() == 0);
    let acknowledged = log.is_some_and(|log| log.frames > 0) || read(store)?.is_some_and(|mark| mark.head > 0);
    if !empty || !acknowledged {
        return Ok(());
    }
    Err(StoreError::Unusable {
        path: store.display().to_string(),
        problem: format!(
            "is missing or empty, but {} or {} beside it says that a store was here: put the file back, nothing beside it was \
             touched; to begin anew, remove both",
            wal::path_of(store).display(),
            path_of(store).display()
        ),
    })
}

/// The same of the changes in the store.
///
/// # Errors
/// [`StoreError::Unusable`]: there are fewer than were acknowledged.
pub fn check_head(store: &Path, head: u64) -> Result<(), StoreError> {
    match read(store)? {
        Some(mark) if head < mark.head => Err(StoreError::Unusable {
            path: store.display().to_string(),
            problem: format!(
                "ends at change {head}, and change {} had been acknowledged: it or its -wal file is damaged, missing or an \
                 older copy; restore both from a backup. If it is meant to be older, remove {} first",
                mark.head,
                path_of(store).display()
            ),
        }),
        _ => Ok(()),
    }
}

impl MarkFile {
    /// Opens the mark of a store whose log is there.
    ///
    /// # Errors
    /// [`StoreError::Unusable`].
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            file: open(
                &path_of(store),
                File::options().create(true).truncate(false).write(true),
            )?,
            log: open(&wal::path_of(store), File::options().read(true))?,
            failing: false,
        })
    }

    /// Notes what has been committed through the connection, up to this change.
    pub fn note(&mut self, connection: &Connection, head: u64) {
        match self.try_note(connection, head) {
            Ok(()) => self.failing = false,
            // An older mark is right too.
            Err(error) if !self.failing => {
                tracing::warn!(%error, "the mark beside the store cannot be written; the store goes on without it");
                self.failing = true;
            }
            Err(_) => {}
        }
    }

    fn try_note(&self, connection: &Connection, head: u64) -> io::Result<()> {
        // Says how long the log is and does nothing.
        let frames: i64 = connection
            .prepare_cached("PRAGMA wal_checkpoint(NOOP)")
            .and_then(|mut statement| statement.query_row([], |row| row.get(1)))
            .map_err(io::Error::other)?;
        let mut header = [0; wal::HEADER_BYTES];
        self.log.read_exact_at(&mut header, 0)?;
        let mark = Mark {
            log: Log::noted(
                wal::salts(&header).expect("a header holds its salts"),
                u64::try_from(frames).map_err(io::Error::other)?,
            ),
            head,
        };
        self.file.write_all_at(&mark.to_bytes(), 0)
    }
}

impl Mark {
    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.log.salts);
        bytes[16..24].copy_from_slice(&self.log.frames.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.head.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.get(..BYTES)?.try_into().ok()?;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let salts: Salts = bytes[8..16].try_into().ok()?;
        let whole = bytes[..8] == *MAGIC && bytes[32..] == crc32fast::hash(&bytes[..32]).to_be_bytes();
        whole.then(|| Self {
            log: Log::noted(salts, number(16)),
            head: number(24),
        })
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<File, StoreError> {
    options.open(path).map_err(|error| StoreError::Unusable {
        path: path.display().to_string(),
        problem: format!("cannot be opened: {error}"),
    })
}

/// `FILE.mark`.
fn path_of(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".mark");
    path.into()
}

/// The mark; `None` if there is none. One that is damaged itself has nothing to compare with, and loses nothing.
fn read(store: &Path) -> Result<Option<Mark>, StoreError> {
    let path = path_of(store);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let mark = Mark::from_bytes(&bytes);
            if mark.is_none() && !bytes.is_empty() {
                tracing::warn!(path = %path.display(), "the mark beside the store is damaged and says nothing");
            }
            Ok(mark)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::Unusable {
            path: path.display().to_string(),
            problem: format!("cannot be read: {error}"),
        }),
    }
}
