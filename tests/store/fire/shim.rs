//! A process whose writes and syncs are seen, made to fail, or cut off: `shim.c` under it, built by `cc`.
//!
//! What it logs is all that a disk is told, in order. [`Disk`] plays it back as a disk that loses power may have kept it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::Random;

/// What power cuts tear: each sector is written whole or not at all.
const SECTOR: usize = 512;

/// The shim, built once; `None` without a C compiler, which `CAUSEWAY_REQUIRE_TOOLS` forbids.
pub fn library() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("shim.c");
        fs::write(&source, include_str!("shim.c")).unwrap();
        let library = folder.path().join("shim.so");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        match compiled {
            Ok(status) => {
                assert!(status.success(), "the shim does not compile: {status}");
                Some((folder, library))
            }
            Err(error) => {
                assert!(
                    std::env::var_os("CAUSEWAY_REQUIRE_TOOLS").is_none(),
                    "cc is required and does not run: {error}"
                );
                eprintln!("skipped: cc does not run ({error}), and without it no sync can fail and no power go");
                None
            }
        }
    });
    built.as_ref().map(|(_, library)| library.as_path())
}

/// A step of the log.
#[derive(Clone, Debug)]
pub struct Op {
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Write { offset: usize, data: Vec<u8> },
    Truncate { length: usize },
    Sync,
    Unlink,
    SyncFailed,
}

/// Reads what the shim logged.
pub fn read_log(path: &Path) -> Vec<Op> {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut ops = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let (kind, path_length, data_length) = (rest[0], word(1), word(13));
        let offset = u64::from_le_bytes(rest[5..13].try_into().unwrap()) as usize;
        let path = String::from_utf8(rest[17..17 + path_length].to_vec()).unwrap();
        let end = 17 + path_length + data_length;
        let kind = match kind {
            1 => Kind::Write {
                offset,
                data: rest[17 + path_length..end].to_vec(),
            },
            2 => Kind::Truncate { length: offset },
            3 => Kind::Sync,
            4 => Kind::Unlink,
            5 => Kind::SyncFailed,
            other => panic!("no kind {other}"),
        };
        ops.push(Op {
            path: path.trim_end_matches(" (deleted)").into(),
            kind,
        });
        rest = &rest[end..];
    }
    ops
}

/// A disk: of each file what is on it for certain, and what was written since.
///
/// A sync of a file makes all that was written to it so far certain, and, as journals do, all removals of files. A sync
/// that fails makes nothing certain, and no later one does so for what was written before it: the kernel takes those
/// pages for clean.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// `None`: not there.
    certain: Option<Vec<u8>>,
    /// Since the last sync.
    pending: Vec<Kind>,
    /// How many of the first pending ones a sync failed for.
    doomed: usize,
}

impl Disk {
    pub fn take(&mut self, op: &Op) {
        let file = self.files.entry(op.path.clone()).or_default();
        match &op.kind {
            Kind::Sync => {
                let doomed = std::mem::take(&mut file.doomed);
                for kind in std::mem::take(&mut file.pending).split_off(doomed) {
                    apply(&mut file.certain, &kind);
                }
                for file in self.files.values_mut() {
                    if let Some(last) = file.pending.iter().rposition(|kind| matches!(kind, Kind::Unlink)) {
                        file.pending.drain(..=last);
                        file.doomed = file.doomed.saturating_sub(last + 1);
                        file.certain = None;
                    }
                }
            }
            Kind::SyncFailed => file.doomed = file.pending.len(),
            kind => file.pending.push(kind.clone()),
        }
    }

    /// What may be on it when the power goes now.
    pub fn lose_power(&self, random: &mut Random) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut left = BTreeMap::new();
        for (path, file) in &self.files {
            if let Some(content) = file.lose_power(random) {
                left.insert(path.clone(), content);
            }
        }
        left
    }
}

impl File {
    fn lose_power(&self, random: &mut Random) -> Option<Vec<u8>> {
        let mut content = self.certain.clone();
        // Sizes and names change in their order, and what is written after such a change is not there before it.
        let mut rest = self.pending.as_slice();
        loop {
            let next = rest
                .iter()
                .position(|kind| matches!(kind, Kind::Truncate { .. } | Kind::Unlink));
            keep_some(&mut content, &rest[..next.unwrap_or(rest.len())], random);
            let Some(next) = next else { return content };
            if random.below(2) == 0 {
                return content;
            }
            apply(&mut content, &rest[next]);
            rest = &rest[next + 1..];
        }
    }
}

fn apply(content: &mut Option<Vec<u8>>, kind: &Kind) {
    match kind {
        Kind::Write { offset, data } => {
            let content = content.get_or_insert_default();
            if content.len() < offset + data.len() {
                content.resize(offset + data.len(), 0);
            }
            content[*offset..offset + data.len()].copy_from_slice(data);
        }
        Kind::Truncate { length } => content.get_or_insert_default().resize(*length, 0),
        Kind::Unlink => *content = None,
        Kind::Sync | Kind::SyncFailed => unreachable!("not kept"),
    }
}

/// Of each sector that was written, what it was after some of its writes, or before them all.
fn keep_some(content: &mut Option<Vec<u8>>, writes: &[Kind], random: &mut Random) {
    let mut sectors: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
    for write in writes {
        let Kind::Write { offset, data } = write else { continue };
        let mut at = *offset;
        while at < offset + data.len() {
            let end = ((at / SECTOR + 1) * SECTOR).min(offset + data.len());
            let piece = &data[at - offset..end - offset];
            sectors.entry(at / SECTOR).or_default().push((at, piece));
            at = end;
        }
    }
    // Sometimes nothing reached the disk, sometimes all of it did, mostly some.
    let luck = random.below(6);
    for pieces in sectors.values() {
        let kept = match luck {
            0 => 0,
            1 => pieces.len(),
            _ => random.below(pieces.len() + 1),
        };
        for (offset, data) in &pieces[..kept] {
            let write = Kind::Write {
                offset: *offset,
                data: data.to_vec(),
            };
            apply(content, &write);
        }
    }
}
