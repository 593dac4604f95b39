//! A disk that is full, and files that cannot be written.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    FILE, MARK, Model, block_on, copy, history, open, options, scratch, steps_in,
    tally::{self, Tally},
    write,
};
use causeway::store::{SqliteStore, Store, StoreError};

/// The name of this module's test that is the other process.
const CHILD: &str = "fire::full::the_other_process";

/// A file system in memory of a size of its own.
struct Mount {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mount {
    /// `None` where this user may not mount.
    fn new(kib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], &path);
        mounted.then(|| Self { path, _folder: folder })
    }

    fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.path));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let mounted = Command::new("mount")
        .args(arguments)
        .arg(path)
        .stderr(Stdio::null())
        .status();
    mounted.is_ok_and(|status| status.success())
}

#[test]
fn a_disk_that_fills_refuses_writes_and_loses_nothing() {
    let steps = history(600);
    let mut tally = Tally::default();
    for kib in (300..1_000).step_by(70) {
        let mut acknowledged = 0;
        let mut model = Model::default();
        let Some(disk) = Mount::new(kib) else {
            // What a full disk does is tried all the same, with a bound on the file: tests/store/sqlite.rs.
            eprintln!("skipped: no file system can be mounted here to fill it");
            tally::done("full disks", tally);
            return;
        };
        block_on(async {
            let store = SqliteStore::open(options(&disk.path)).unwrap();
            for room_kib in [kib + 100, kib + 300, 8_000] {
                let refusal = loop {
                    match write(&store, &mut model, steps[acknowledged]).await {
                        Ok(()) => acknowledged += 1,
                        Err(error) => break error,
                    }
                };
                assert!(matches!(refusal, StoreError::Unavailable(_)), "{kib} KiB: {refusal:?}");
                assert!(
                    store.failure().borrow().is_none(),
                    "a full disk is not the end of the store"
                );
                assert_eq!(steps_in(&store, &steps).await, acknowledged);
                // And so it stays while there is no room.
                let again = write(&store, &mut model, steps[acknowledged]).await;
                assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
                tally.full_disks += 1;
                disk.remount(&format!("size={room_kib}k"));
                // Room again: the same store goes on.
                write(&store, &mut model, steps[acknowledged]).await.unwrap();
                acknowledged += 1;
            }
            drop(store);
            let store = SqliteStore::open(options(&disk.path)).unwrap();
            assert_eq!(steps_in(&store, &steps).await, acknowledged, "{kib} KiB");
            assert_eq!(store.check().await.unwrap().problems, [""; 0]);
        });
    }
    assert_eq!(tally.full_disks, 30);
    tally::done("full disks", tally);
}

#[test]
fn the_other_process() {
    // Run by the test below, as a user who may not do everything.
    let Some(folder) = std::env::var_os("FIRE_READ_ONLY") else {
        return;
    };
    match SqliteStore::open(options(Path::new(&folder))) {
        Ok(_) => println!("OPENED"),
        Err(StoreError::Unusable { path, problem }) => println!("REFUSED {path}: {problem}"),
        Err(error) => println!("OTHERWISE {error:?}"),
    }
}

/// What opening comes to for a user who is not root, for whom nothing is read-only.
fn opening(folder: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([CHILD, "--exact", "--nocapture", "--test-threads", "1"])
        .env("FIRE_READ_ONLY", folder);
    if rustix::process::geteuid().is_root() {
        // nobody
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = text
        .lines()
        .find_map(|line| Some(&line[line.find("REFUSED").or(line.find("OPENED"))?..]));
    said.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        .to_owned()
}

#[test]
fn what_cannot_be_written_is_refused_and_left_alone() {
    let mut tally = Tally::default();
    let made = scratch();
    let mut model = Model::default();
    block_on(async {
        let store = SqliteStore::open(options(made.path())).unwrap();
        for step in history(4) {
            write(&store, &mut model, step).await.unwrap();
        }
    });
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // The modes of the folder, of the file, and of the mark; what the refusal says.
    for (folder_mode, file_mode, mark_mode, needle) in [
        (0o777, 0o666, 0o666, None),
        (0o777, 0o444, 0o666, Some("read-only")),
        (0o777, 0o666, 0o444, Some("cannot be opened")),
        (0o777, 0o000, 0o666, Some("cannot be opened")),
        (0o555, 0o666, 0o666, Some("cannot be opened")),
        (0o555, 0o444, 0o444, Some("cannot be opened")),
    ] {
        let folder = scratch();
        copy(made.path(), folder.path(), &[FILE, MARK]);
        let before = fs::read(folder.path().join(FILE)).unwrap();
        mode(&folder.path().join(FILE), file_mode);
        mode(&folder.path().join(MARK), mark_mode);
        mode(folder.path(), folder_mode);
        let said = opening(folder.path());
        mode(folder.path(), 0o755);
        let modes = format!("{folder_mode:o} {file_mode:o} {mark_mode:o}");
        match needle {
            None => assert_eq!(said, "OPENED", "{modes}"),
            Some(needle) => {
                assert!(said.starts_with("REFUSED") && said.contains(needle), "{modes}: {said}");
                assert!(
                    said.contains(&*folder.path().to_string_lossy()),
                    "names the file: {said}"
                );
                assert!(
                    fs::read(folder.path().join(FILE)).unwrap() == before,
                    "{modes}: it was changed"
                );
                tally.read_only += 1;
                tally.refused += 1;
            }
        }
        let store = open(folder.path()).unwrap();
        assert_eq!(
            block_on(steps_in(&store, &history(4))),
            model.changes.len() + model.quotes.len()
        );
    }
    if let Some(disk) = Mount::new(4_000) {
        copy(made.path(), &disk.path, &[FILE, MARK]);
        disk.remount("ro");
        let said = open(&disk.path).map(|_| ()).unwrap_err();
        assert!(said.contains("Read-only file system"), "{said}");
        tally.read_only += 1;
        tally.refused += 1;
    }
    assert!(tally.read_only >= 5, "{tally:?}");
    tally::done("read-only", tally);
}
