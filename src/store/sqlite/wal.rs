//! The write-ahead log as it lies on the disk, read before SQLite reads it.
//!
//! SQLite ends the log at the first frame whose checksum is wrong, without a word. After a power cut that is right: such a
//! frame was being written, and nobody had been answered. It is wrong for a frame that was on disk and that the medium
//! damaged since: that frame and all behind it were acknowledged. This module tells the two apart and refuses the second:
//! - A commit is synced before the next one is written. So if a commit is followed by another one that continues its
//!   checksums, it was on disk whole, and an invalid frame before it is damage.
//! - The header is synced before the first frame is written. So an invalid header before a frame is damage.
//!
//! What remains is damage in the last commit of the log; [`super::mark`] finds that. Frames that an earlier round of the
//! log or a commit that failed left behind the end do not continue the checksums, and are no damage.
//!
//! What it finds it makes durable ([`make_durable`]), before anybody acts on it.
//!
//! Called once, when the store is opened and nothing else has it open. Never changes a byte. Layout:
//! <https://www.sqlite.org/fileformat2.html#walformat>.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::StoreError;

pub const HEADER_BYTES: usize = 32;
pub const FRAME_HEADER_BYTES: usize = 24;
/// The last bit says in which order of bytes the checksums are computed.
const MAGIC: u32 = 0x377f_0682;
const FORMAT: u32 = 3_007_000;

/// Which round of the log it is: chosen anew each time SQLite starts the log again from its beginning.
pub type Salts = [u8; 8];

/// What there is of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its round.
    pub salts: Salts,
    /// How many frames SQLite will find, up to the last whole commit.
    pub frames: u64,
    /// How many bytes they take up, with the header.
    bytes: u64,
}

impl Log {
    /// So many frames of a round, wherever that is known from.
    pub fn noted(salts: Salts, frames: u64) -> Self {
        Self {
            salts,
            frames,
            bytes: 0,
        }
    }
}

/// `FILE-wal`.
pub fn path_of(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// The round that the open log is in; `None` if it has none yet.
pub fn salts(header: &[u8]) -> Option<Salts> {
    header.get(16..24)?.try_into().ok()
}

/// Reads the log of the store; `None` if there is none or nothing in it.
///
/// # Errors
/// [`StoreError::Unusable`]: acknowledged changes in it are damaged, or it cannot be read.
pub fn read(store: &Path) -> Result<Option<Log>, StoreError> {
    let path = path_of(store);
    let unusable = |problem: String| StoreError::Unusable {
        path: path.display().to_string(),
        problem,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(format!("cannot be read: {error}"))),
    };
    let scanned = scan(BufReader::with_capacity(1 << 16, file));
    match scanned.map_err(|error| unusable(format!("cannot be read: {error}")))? {
        Scan::Nothing => Ok(None),
        Scan::Sound(log) => Ok(Some(log)),
        Scan::Damaged { found } => Err(unusable(format!(
            "is damaged: {found}. Changes that were acknowledged are in it; restore the store from a backup"
        ))),
    }
}

/// Writes the frames of the log again, as they are, and syncs them.
///
/// They may be in the kernel's memory only: written by a process that was killed before its fsync, or that ended because
/// the fsync failed. After that the kernel takes the pages for clean, and no later fsync writes them
/// (<https://lwn.net/Articles/752063/>). A decision that was read from there, told to a participant and then lost in a
/// power cut would break promise 3; a checkpoint that copied some of its pages would break the file. Written again, the
/// pages are not clean any more. On the disk each byte is what it was or what it should be, whenever the power goes.
///
/// # Errors
/// [`StoreError::Unusable`]: it cannot be written or synced.
pub fn make_durable(store: &Path, log: Log) -> Result<(), StoreError> {
    let path = path_of(store);
    let rewrite = || {
        let file = File::options().read(true).write(true).open(&path)?;
        let mut buffer = vec![0; 1 << 16];
        let mut at = 0;
        while at < log.bytes {
            let length = usize::try_from(log.bytes - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact_at(&mut buffer[..length], at)?;
            file.write_all_at(&buffer[..length], at)?;
            at += length as u64;
        }
        file.sync_all()
    };
    rewrite().map_err(|error: io::Error| StoreError::Unusable {
        path: path.display().to_string(),
        problem: format!("cannot be written and synced: {error}"),
    })
}

enum Scan {
    Nothing,
    Sound(Log),
    Damaged { found: String },
}

fn scan(mut from: impl Read) -> io::Result<Scan> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut from, &mut header)? {
        return Ok(Scan::Nothing);
    }
    let Some(start) = Start::parse(&header) else {
        // Its first frame is at least on its way.
        let behind = fill(&mut from, &mut [0; FRAME_HEADER_BYTES])?;
        return Ok(if behind {
            let found = "its header is invalid, and changes follow it".into();
            Scan::Damaged { found }
        } else {
            Scan::Nothing
        });
    };
    let mut log = Log {
        salts: start.salts,
        frames: 0,
        bytes: HEADER_BYTES as u64,
    };
    let mut frame = vec![0; FRAME_HEADER_BYTES + start.page_bytes];
    let (mut number, mut broken_at) = (0u64, None);
    // The checksums that the next frame continues, as stored, and whether they are those of a commit behind the break.
    let (mut before, mut commit_behind) = (start.sums, None);
    while fill(&mut from, &mut frame)? {
        number += 1;
        let stored = [word(&frame, 16), word(&frame, 20)];
        let continues = {
            let sums = start.sum(before, &frame[..8]);
            start.sum(sums, &frame[FRAME_HEADER_BYTES..]) == stored
        };
        let current = frame[8..16] == start.salts;
        let is_commit = word(&frame, 4) > 0;
        match broken_at {
            None if current && continues && word(&frame, 0) > 0 => {
                if is_commit {
                    log.frames = number;
                    log.bytes = HEADER_BYTES as u64 + number * frame.len() as u64;
                }
            }
            None => broken_at = Some(number),
            Some(broken) => {
                if let (Some(commit), true) = (commit_behind, current && continues) {
                    let found = format!(
                        "its frame {broken} is invalid, and frame {number} continues the commit in frame {commit} behind it"
                    );
                    return Ok(Scan::Damaged { found });
                }
            }
        }
        commit_behind = (broken_at.is_some() && is_commit).then_some(number);
        before = stored;
    }
    Ok(Scan::Sound(log))
}

/// What a valid header says.
struct Start {
    salts: Salts,
    page_bytes: usize,
    sums: [u32; 2],
    big_endian: bool,
}

impl Start {
    fn parse(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let page_bytes = word(header, 8);
        let start = Self {
            salts: salts(header)?,
            page_bytes: page_bytes as usize,
            sums: [word(header, 24), word(header, 28)],
            big_endian: word(header, 0) & 1 == 1,
        };
        let valid = word(header, 0) & !1 == MAGIC
            && word(header, 4) == FORMAT
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && start.sum([0, 0], &header[..24]) == start.sums;
        valid.then_some(start)
    }

    /// SQLite's checksum, continued over these bytes, of which there is a multiple of eight.
    fn sum(&self, [mut a, mut b]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        let read = if self.big_endian {
            u32::from_be_bytes
        } else {
            u32::from_le_bytes
        };
        for pair in bytes.as_chunks::<8>().0 {
            let [b0, b1, b2, b3, b4, b5, b6, b7] = *pair;
            a = a.wrapping_add(read([b0, b1, b2, b3])).wrapping_add(b);
            b = b.wrapping_add(read([b4, b5, b6, b7])).wrapping_add(a);
        }
        [a, b]
    }
}

/// Fills the buffer; false at the end of the file, where what is left does not matter.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = &bytes[at..at + 4];
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
