//! Carries payments out.
//!
//! [`protocol`] is the pure core; [`Coordinator`] feeds it: one task a payment, which makes each step's forced records
//! durable before it releases the step's effects (promise 3 holds by construction), publishes what is durable, and waits
//! for answers, time or a cancellation. Recovery reads what has not ended from the store and goes on where the records
//! end. Called by `api` and by `gateway`; calls `store` and `participant`. Invariant: what a [`Handle`] shows is durable,
//! or follows from what participants have acknowledged.

mod driver;
mod halt;
mod live;
mod pace;
pub mod protocol;
mod recovery;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{
    participant::Participant,
    payment::{Outcome, PartnerName, PaymentId, Terms},
    runtime::SharedRuntime,
    store::{Store, StoreError},
};
use driver::Driver;
use live::{Entry, Live};
use pace::Pace;
use protocol::{Policy, State, Transaction, fold};

pub use halt::{HaltPoint, Halts, UnknownHaltPoint};

/// How a coordinator behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ladders.
    pub policy: Policy,
    /// How many repeated commands a second go to one partner at most; first ones are not held back.
    pub redeliveries_per_second: u32,
    /// How many Prepares are in flight to one partner at most, and as many commands that follow a decision; more wait.
    pub calls_per_partner: usize,
    /// How often the store is searched for payments that nobody drives.
    pub recovery_interval: Duration,
    /// Where to stop for ever, for tests.
    pub halts: Halts,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            redeliveries_per_second: 500,
            calls_per_partner: 2_048,
            recovery_interval: Duration::from_secs(30),
            halts: Halts::default(),
        }
    }
}

/// Drives payments. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    participants: BTreeMap<PartnerName, Peer>,
    options: Options,
    runtime: SharedRuntime,
    live: Live,
    tasks: TaskTracker,
    draining: AtomicBool,
}

struct Peer {
    participant: Arc<dyn Participant>,
    /// Before the decision: a slow partner fills its own lane and nobody else's.
    voting: Lane,
    /// After it.
    deciding: Lane,
}

/// How much goes to a partner at once, and how often what is repeated.
struct Lane {
    room: Semaphore,
    redelivery: Pace,
}

impl Shared {
    /// Starts a driver; a drain waits for it.
    fn spawn(&self, driver: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(self.tasks.track_future(driver)));
    }
}

impl Lane {
    fn new(options: &Options) -> Self {
        Self {
            room: Semaphore::new(options.calls_per_partner),
            redelivery: Pace::new(options.redeliveries_per_second),
        }
    }
}

/// A payment that is being driven, or was.
#[derive(Clone, Debug)]
pub struct Handle {
    view: watch::Receiver<View>,
    own: bool,
}

/// What is known of a payment to those who wait for it.
#[derive(Clone, Debug)]
enum View {
    /// Its beginning is not durable yet.
    Beginning,
    /// It never began.
    Failed(BeginError),
    /// It is there.
    Present(Arc<Transaction>),
}

/// Why a payment did not begin. Nothing was stored and nothing moves.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BeginError {
    /// The caller's: the quote is gone, or another payment has it.
    #[error("the quote is taken")]
    QuoteTaken {
        /// The payment that has it; `None` if the quote is not there.
        by: Option<PaymentId>,
    },
    /// The gateway is about to stop.
    #[error("the gateway is draining")]
    Draining,
    /// The store's. If it has failed, the payment may have begun all the same, and its retry will find it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a payment could not be cancelled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CancelError {
    /// The caller's: there is no such payment.
    #[error("no such payment")]
    Unknown,
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coordinator {
    /// A coordinator over a store and the partner networks by name.
    pub fn new(
        store: Arc<dyn Store>,
        participants: BTreeMap<PartnerName, Arc<dyn Participant>>,
        options: Options,
        runtime: SharedRuntime,
    ) -> Self {
        let participants = participants
            .into_iter()
            .map(|(name, participant)| {
                let peer = Peer {
                    participant,
                    voting: Lane::new(&options),
                    deciding: Lane::new(&options),
                };
                (name, peer)
            })
            .collect();
        Self {
            shared: Arc::new(Shared {
                store,
                participants,
                options,
                runtime,
                live: Live::default(),
                tasks: TaskTracker::new(),
                draining: AtomicBool::new(false),
            }),
        }
    }

    /// Begins a payment, or attaches to the one of this id that is under way. Whether that one has the same body is for
    /// the caller to compare: see [`Handle::begun`].
    pub fn begin(&self, terms: Arc<Terms>) -> Result<Handle, BeginError> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(BeginError::Draining);
        }
        let (handle, driver) = match self.shared.live.enter(terms.id, View::Beginning) {
            Entry::Occupied(handle) => return Ok(handle),
            Entry::Entered { handle, seat } => (handle, Driver::new(Arc::clone(&self.shared), terms.id, seat)),
        };
        // A task of its own: a caller that goes away changes nothing.
        self.shared.spawn(driver.run_new(terms));
        Ok(handle)
    }

    /// The payment of this id as it stands: from memory while it is driven, else from the store.
    pub async fn find(&self, id: PaymentId) -> Result<Option<Arc<Transaction>>, StoreError> {
        if let Some(handle) = self.shared.live.get(id)
            && let Ok(transaction) = handle.begun().await
        {
            return Ok(Some(transaction));
        }
        let Some(history) = self.shared.store.payment(id).await? else {
            return Ok(None);
        };
        match fold(&history.records) {
            Ok(State::Present(transaction)) => Ok(Some(Arc::new(transaction))),
            Ok(State::Absent) => Ok(None),
            Err(impossible) => Err(StoreError::Damaged(format!("{id}: {impossible}"))),
        }
    }

    /// The handle of a payment that is being driven.
    pub fn attach(&self, id: PaymentId) -> Option<Handle> {
        self.shared.live.get(id)
    }

    /// Aborts the payment if it is not decided, and answers with it once it is.
    pub async fn cancel(&self, id: PaymentId, outcome: Outcome) -> Result<Arc<Transaction>, CancelError> {
        if let Some(mut handle) = self.shared.live.get(id) {
            self.shared.live.cancel(id, outcome);
            if let Some(transaction) = handle.when(|transaction| transaction.decision().is_some()).await {
                return Ok(transaction);
            }
        }
        self.find(id).await?.ok_or(CancelError::Unknown)
    }

    /// How many payments are being driven.
    pub fn live_count(&self) -> usize {
        self.shared.live.count()
    }

    /// Takes no new payments from now on.
    pub fn close(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Waits until no payment is being driven. Bound it: what a partner does not answer waits for the next start.
    pub async fn drained(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Stops for ever at this point if it is armed; for tests.
    pub async fn halt(&self, point: HaltPoint, id: PaymentId) {
        self.shared.options.halts.reach(point, id).await;
    }
}

impl Handle {
    /// Whether the call that answered with this handle is the one that began the payment.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The payment once its beginning is durable, or why it never began.
    pub async fn begun(mut self) -> Result<Arc<Transaction>, BeginError> {
        let seen = self.view.wait_for(|view| !matches!(view, View::Beginning)).await;
        match seen.as_deref() {
            Ok(View::Present(transaction)) => Ok(Arc::clone(transaction)),
            Ok(View::Failed(error)) => Err(error.clone()),
            // The driver is gone without a word: the store has closed under it.
            Ok(View::Beginning) | Err(_) => Err(BeginError::Store(StoreError::Closed)),
        }
    }

    /// The payment as it stands; `None` if it has not begun.
    pub fn now(&self) -> Option<Arc<Transaction>> {
        match &*self.view.borrow() {
            View::Present(transaction) => Some(Arc::clone(transaction)),
            View::Beginning | View::Failed(_) => None,
        }
    }

    /// The payment once it passes the test; `None` if it is not driven any more and never did.
    pub async fn when(&mut self, test: impl Fn(&Transaction) -> bool) -> Option<Arc<Transaction>> {
        let seen = self
            .view
            .wait_for(|view| match view {
                View::Beginning => false,
                View::Failed(_) => true,
                View::Present(transaction) => test(transaction),
            })
            .await;
        match seen.as_deref() {
            Ok(View::Present(transaction)) => Some(Arc::clone(transaction)),
            Ok(View::Beginning | View::Failed(_)) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
