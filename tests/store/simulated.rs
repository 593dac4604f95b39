//! The simulation's store, on a disk without faults and in real time.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex},
};

use causeway::{
    runtime::TokioRuntime,
    store::{Store, StoreError},
};

use crate::{
    disk::{Disk, Outside, Seen},
    faults::Fault,
};

/// The disks by folder: they outlive those who open them.
static DISKS: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Disk>>>> = LazyLock::new(Mutex::default);

struct Calm;

impl Outside for Calm {
    fn fires(&self, _: Fault) -> bool {
        false
    }

    fn draw(&self, limit: u64) -> u64 {
        limit / 2
    }

    fn happened(&self, fault: Fault) {
        panic!("{fault:?} on a calm disk");
    }

    fn durable(&self, _: Seen<'_>) {}
}

pub fn open(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let runtime = TokioRuntime::shared();
    let mut disks = DISKS.lock().unwrap();
    let disk = disks.entry(folder.to_owned()).or_insert_with(|| {
        let disk = Disk::new(Arc::new(Calm));
        disk.start();
        let (own, writer) = (Arc::clone(&disk), Arc::clone(&runtime));
        runtime.spawn(Box::pin(async move { own.write(&writer).await }));
        disk
    });
    Ok(Arc::new(disk.open(runtime, 0)))
}
