//! The payments that are being driven in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, watch};

use super::{Handle, View, protocol::Input};
use crate::payment::PaymentId;

/// How many shards; payments spread over them by their bits, so that no two often meet at one lock.
const SHARDS: u64 = 64;
/// How many inputs from outside wait for a payment: cancellations.
const INPUTS_MAX: usize = 4;

/// A map from payment to driver, one driver a payment.
#[derive(Debug)]
pub struct Live {
    shards: Vec<Mutex<HashMap<PaymentId, Slot>>>,
}

#[derive(Debug)]
struct Slot {
    inputs: mpsc::Sender<Input>,
    view: watch::Receiver<View>,
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
    pub inputs: mpsc::Receiver<Input>,
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
            });
        }
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let (view, receiver) = watch::channel(view);
        shard.insert(
            id,
            Slot {
                inputs: sender,
                view: receiver.clone(),
            },
        );
        Entry::Entered {
            handle: Handle { view: receiver },
            seat: Seat { inputs, view },
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
        })
    }

    /// Hands an input to the payment's driver, if it is driven.
    pub async fn send(&self, id: PaymentId, input: Input) {
        let inputs = self.shard(id).get(&id).map(|slot| slot.inputs.clone());
        if let Some(inputs) = inputs {
            // A driver that has just left needs no input any more.
            let _ = inputs.send(input).await;
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
