//! The power going at any moment, and syncs that fail: what was acknowledged is there, also by a process that had read it
//! from a log that was never synced.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use super::{
    FILE, MARK, Model, Random, Replay, WAL, block_on, history, open, options, scratch, send,
    shim::{self, Disk, Kind, Op},
    small_pages, steps_in,
    tally::{self, Tally},
};
use causeway::store::{SqliteStore, Store, StoreError};

const PAYMENTS: u64 = 16;
/// The name of this module's test that is the other process.
const CHILD: &str = "fire::power::the_other_process";
const ACKS: &str = "acks";

/// What the other process does.
#[derive(Clone, Copy)]
enum Task {
    /// Writes these steps, some at once, folds the log in and reopens in between, and ends by closing.
    Write,
    /// Writes until a write is refused, and ends without closing.
    WriteUntilItFails,
    /// Opens, reads, says what it has read, and ends without closing.
    Read,
}

impl Task {
    const ALL: [(&'static str, Self); 3] = [
        ("write", Self::Write),
        ("write-until-it-fails", Self::WriteUntilItFails),
        ("read", Self::Read),
    ];
}

/// A folder with a store, and another process on it with the shim in between.
struct Fire {
    folder: tempfile::TempDir,
    beside: tempfile::TempDir,
    library: &'static Path,
}

impl Fire {
    fn new() -> Option<Self> {
        let library = shim::library()?;
        Some(Self {
            folder: scratch(),
            beside: scratch(),
            library,
        })
    }

    fn log(&self) -> PathBuf {
        self.beside.path().join("log")
    }

    /// Runs the other process to its end.
    fn run(&self, task: &str, steps: Range<usize>, set: &[&str]) -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([CHILD, "--exact", "--nocapture", "--test-threads", "1"])
            .env("LD_PRELOAD", self.library)
            .env("FIRE_FOLDER", self.folder.path())
            .env("FIRE_LOG", self.log())
            .env("FIRE_TASK", task)
            .env("FIRE_STEPS", format!("{} {}", steps.start, steps.end));
        for variable in set {
            command.env(variable, self.beside.path().join("now"));
        }
        let output = command.output().unwrap();
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        output.status
    }
}

#[test]
fn the_other_process() {
    // Run by the tests below, in a process of its own.
    let Ok(task) = std::env::var("FIRE_TASK") else { return };
    let folder = PathBuf::from(std::env::var_os("FIRE_FOLDER").unwrap());
    let range = std::env::var("FIRE_STEPS").unwrap();
    let (from, to) = range.split_once(' ').unwrap();
    let range: Range<usize> = from.parse().unwrap()..to.parse().unwrap();
    let task = Task::ALL.into_iter().find(|(name, _)| *name == task).unwrap().1;
    block_on(child(task, &folder, range));
    if !matches!(task, Task::Write) {
        // As if it were killed: nothing is closed.
        std::process::exit(0);
    }
}

async fn child(task: Task, folder: &Path, range: Range<usize>) {
    let steps = history(PAYMENTS);
    let mut acks = fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join(ACKS))
        .unwrap();
    // One write each: the shim sees it in its place among the store's.
    let mut acknowledge = |count: usize| acks.write_all(format!("{count}\n").as_bytes()).unwrap();
    let mut store = SqliteStore::open(options(folder)).unwrap();
    let mut count = steps_in(&store, &steps).await;
    acknowledge(count);
    match task {
        Task::Read => std::mem::forget(store),
        Task::Write => {
            assert_eq!(count, range.start);
            let mut together = 1;
            while count < range.end {
                let end = (count + together).min(range.end);
                let mut model = Model::after(&steps[..count]);
                let sent: Vec<_> = steps[count..end]
                    .iter()
                    .map(|step| send(&store, &mut model, *step))
                    .collect();
                for pending in sent {
                    pending.await.unwrap();
                }
                count = end;
                acknowledge(count);
                together = together % 5 + 1;
                match count % 11 {
                    3 => fold_in(folder, "PASSIVE"),
                    7 => {
                        drop(store);
                        store = SqliteStore::open(options(folder)).unwrap();
                    }
                    _ => {}
                }
            }
        }
        Task::WriteUntilItFails => {
            let mut model = Model::after(&steps[..count]);
            let error = loop {
                assert!(count < range.end, "nothing failed");
                if count == range.start {
                    // The test has armed what fails; from here on it does.
                    fs::write(
                        std::env::var_os("FIRE_FAIL").or(std::env::var_os("FIRE_KILL")).unwrap(),
                        "",
                    )
                    .unwrap();
                }
                match send(&store, &mut model, steps[count]).await {
                    Ok(()) => {
                        count += 1;
                        acknowledge(count);
                    }
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(error, StoreError::Failed(_)),
                "nobody knows what is on disk: {error:?}"
            );
            assert!(store.failure().borrow().is_some());
            // No more writes, and reads go on.
            let again = store.put_quote(crate::made::quote(9_999)).await;
            assert!(matches!(again, Err(StoreError::Failed(_))), "{again:?}");
            assert!(steps_in(&store, &steps).await >= range.start);
            std::mem::forget(store);
        }
    }
}

/// What a checkpoint does that comes by itself after thousands of pages.
fn fold_in(folder: &Path, how: &str) {
    let connection = rusqlite::Connection::open(folder.join(FILE)).unwrap();
    connection
        .query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
        .unwrap();
}

/// How many steps somebody outside knew of when this was written.
fn acknowledged(op: &Op) -> Option<usize> {
    match &op.kind {
        Kind::Write { data, .. } if op.path.ends_with(ACKS) => {
            Some(String::from_utf8(data.clone()).unwrap().trim().parse().unwrap())
        }
        _ => None,
    }
}

/// Opens what a power cut left, which may not refuse; answers how many steps there are.
fn steps_after(left: &BTreeMap<PathBuf, Vec<u8>>, at: usize) -> usize {
    let folder = scratch();
    for (path, content) in left {
        let name = path.file_name().unwrap();
        // Shared memory is of no use after a restart, and SQLite knows.
        if !name.to_string_lossy().ends_with("-shm") {
            fs::write(folder.path().join(name), content).unwrap();
        }
    }
    match open(folder.path()) {
        Ok(store) => block_on(steps_in(&store, &history(PAYMENTS))),
        Err(problem) => panic!("power cut after {at} operations: refuses, as if it were damage: {problem}"),
    }
}

/// Lets the power go after operations of the log, several times each; everything acknowledged by then must be there.
fn cut_power(ops: &[Op], from: usize, times: usize, random: &mut Random, tally: &mut Tally) {
    let mut disk = Disk::default();
    let mut known = 0;
    for (index, op) in ops.iter().enumerate() {
        disk.take(op);
        known = acknowledged(op).unwrap_or(known).max(known);
        if index < from {
            continue;
        }
        for _ in 0..times {
            let count = steps_after(&disk.lose_power(random), index + 1);
            assert!(
                count >= known,
                "power cut after {} of {} operations: {count} steps are there, {known} had been acknowledged",
                index + 1,
                ops.len()
            );
            tally.power_cuts += 1;
        }
    }
}

#[test]
fn a_power_cut_at_any_moment_keeps_what_was_acknowledged() {
    let _replay = Replay("fire::power");
    let Some(fire) = Fire::new() else {
        return tally::done("power", Tally::default());
    };
    let mut tally = Tally::default();
    small_pages(fire.folder.path());
    let all = history(PAYMENTS).len();
    assert!(fire.run("write", 0..all, &[]).success());
    let mut ops = read_log(&fire);
    assert!(ops.len() > 500, "{} operations", ops.len());
    let kinds = |test: fn(&Kind) -> bool| ops.iter().filter(|op| test(&op.kind)).count();
    assert!(kinds(|kind| matches!(kind, Kind::Sync)) > 40);
    assert!(
        kinds(|kind| matches!(kind, Kind::Unlink)) > 3,
        "the log was closed and begun again"
    );
    // The empty file that the test made is there from the beginning.
    ops.splice(0..0, beginning(&fire));
    let mut random = Random::new("power");
    cut_power(&ops, 3, 2, &mut random, &mut tally);
    assert!(tally.power_cuts > 1_000, "{tally:?}");

    // What a power cut left goes on, over the torn end of its log, until the next one.
    for _ in 0..6 {
        let mut disk = Disk::default();
        let until = ops.len() / 8 + random.below(ops.len() / 2);
        ops[..until].iter().for_each(|op| disk.take(op));
        let left = disk.lose_power(&mut random);
        let from = steps_after(&left, until);
        let Some(next) = Fire::new() else {
            unreachable!("it was there before")
        };
        let mut beginning = Vec::new();
        for (path, data) in left {
            let name = path.file_name().unwrap();
            if name == FILE || name == WAL || name == MARK {
                let path = next.folder.path().join(name);
                fs::write(&path, &data).unwrap();
                let kinds = [Kind::Write { offset: 0, data }, Kind::Sync];
                beginning.extend(kinds.map(|kind| Op {
                    path: path.clone(),
                    kind,
                }));
            }
        }
        assert!(next.run("write", from..(from + 9).min(all), &[]).success());
        let mut again = read_log(&next);
        let start = beginning.len();
        again.splice(0..0, beginning);
        cut_power(&again, start, 1, &mut random, &mut tally);
    }
    tally::done("power", tally);
}

/// A sync fails, or the process is killed before it: its writes are in the kernel's memory and perhaps nowhere else. The
/// next process reads them, and may act on them. Then the power goes.
#[test]
fn what_a_restart_has_read_is_not_lost_any_more() {
    let _replay = Replay("fire::power");
    let mut random = Random::new("restart");
    let mut tally = Tally::default();
    let mut unacknowledged = 0;
    for trouble in ["FIRE_FAIL", "FIRE_KILL"] {
        for at in [3, 10, 17, 24] {
            let Some(fire) = Fire::new() else {
                return tally::done("failed syncs", Tally::default());
            };
            small_pages(fire.folder.path());
            assert!(fire.run("write", 0..at, &[]).success());
            let ended = fire.run("write-until-it-fails", at..at + 5, &[trouble]);
            assert_eq!(ended.success(), trouble == "FIRE_FAIL", "{ended}");
            fs::remove_file(fire.beside.path().join("now")).unwrap();
            let before = read_log(&fire).len();
            assert!(fire.run("read", 0..0, &[]).success());
            let mut ops = read_log(&fire);
            let beginning = beginning(&fire);
            let from = before + beginning.len();
            ops.splice(0..0, beginning);
            let read = ops.iter().filter_map(acknowledged).next_back().unwrap();
            assert!((at..=at + 1).contains(&read), "{read} steps after {at}");
            unacknowledged += usize::from(read > at);
            tally.sync_failures += 1;
            cut_power(&ops, from, 4, &mut random, &mut tally);
        }
    }
    assert!(
        unacknowledged >= 6,
        "the next process has read what nobody had been told: {unacknowledged} times"
    );
    assert!(tally.power_cuts > 200 && tally.sync_failures == 8, "{tally:?}");
    tally::done("failed syncs", tally);
}

fn read_log(fire: &Fire) -> Vec<Op> {
    shim::read_log(&fire.log())
}

/// The file as it was before the shim looked.
fn beginning(fire: &Fire) -> [Op; 2] {
    let folder = scratch();
    small_pages(folder.path());
    let path = fire.folder.path().join(FILE);
    let data = fs::read(folder.path().join(FILE)).unwrap();
    [Kind::Write { offset: 0, data }, Kind::Sync].map(|kind| Op {
        path: path.clone(),
        kind,
    })
}
