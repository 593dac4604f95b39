//! The payments that are being driven in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Handle, View};
use crate::payment::{Outcome, PaymentId};

/// How many shards; payments spread over them by their bits, so that no two often meet at one lock.
const SHARDS: u64 = 64;

/// A map from payment to driver, one driver a payment.
#[derive(Debug)]
pub struct Live {
    shards: Vec<Mutex<HashMap<PaymentId, Slot>>>,
}

#[derive(Debug)]
struct Slot {
    mailbox: Arc<Mailbox>,
    view: watch::Receiver<View>,
}

/// What comes to a driver from outside: a cancellation, once. Small, for there is one for every payment that waits.
#[derive(Debug, Default)]
pub struct Mailbox {
    cancel: Mutex<Option<Outcome>>,
    filled: Notify,
}

impl Mailbox {
    /// The cancellation, when it comes.
    pub async fn cancelled(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.cancel.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return outcome;
            }
            // A permit is kept for a notice that came since.
            self.filled.notified().await;
        }
    }
}

/// What came of an attempt to enter.
pub enum Entry {
    /// Somebody drives it already.
    Occupied(Handle),
    /// Nobody did: the seat is the caller's to drive from.
    Entered {
        /// For those who wait.
        handle: Handle,
        /// For the driver.
        seat: Seat,
    },
}

/// The driver's end. Leaving is [`Live::leave`].
#[derive(Debug)]
pub struct Seat {
    pub mailbox: Arc<Mailbox>,
    pub view: watch::Sender<View>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Live {
    /// Takes the payment's seat if it is free.
    pub fn enter(&self, id: PaymentId, view: View) -> Entry {
        let mut shard = self.shard(id);
        if let Some(slot) = shard.get(&id) {
            return Entry::Occupied(Handle {
                view: slot.view.clone(),
                own: false,
            });
        }
        let mailbox = Arc::new(Mailbox::default());
        let (view, receiver) = watch::channel(view);
        shard.insert(
            id,
            Slot {
                mailbox: Arc::clone(&mailbox),
                view: receiver.clone(),
            },
        );
        Entry::Entered {
            handle: Handle {
                view: receiver,
                own: true,
            },
            seat: Seat { mailbox, view },
        }
    }

    /// Gives the seat up.
    pub fn leave(&self, id: PaymentId) {
        self.shard(id).remove(&id);
    }

    /// The handle of the payment, if it is driven.
    pub fn get(&self, id: PaymentId) -> Option<Handle> {
        self.shard(id).get(&id).map(|slot| Handle {
            view: slot.view.clone(),
            own: false,
        })
    }

    /// Asks the payment's driver to abort it, if it is driven.
    pub fn cancel(&self, id: PaymentId, outcome: Outcome) {
        if let Some(slot) = self.shard(id).get(&id) {
            *slot.mailbox.cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            slot.mailbox.filled.notify_one();
        }
    }

    /// How many are driven.
    pub fn count(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    fn shard(&self, id: PaymentId) -> MutexGuard<'_, HashMap<PaymentId, Slot>> {
        let index = id.spread(0) % SHARDS;
        self.shards[index as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the seat when dropped, so that a driver that panics does not keep it for ever.
pub struct Leave<'a> {
    pub live: &'a Live,
    pub id: PaymentId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.live.leave(self.id);
    }
}

/// Wraps what is shown.
pub fn present(transaction: super::Transaction) -> View {
    View::Present(Arc::new(transaction))
}
