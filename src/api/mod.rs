//! The services that partners and operators call: one file a service.
//!
//! Owns decoding (all of a request is checked before anything is done, and every wrong field is named), what a caller may
//! see, and encoding. [`status`] alone makes a `tonic::Status`. Leaves who the caller is to `authn`, prices to `fx`, and
//! payments to `coordinator`. Invariant: a handler acts on a [`Caller`] and on parsed values, never on raw fields.

mod caller;
mod decisions;
pub(crate) mod decode;
mod encode;
pub(crate) mod filter;
pub(crate) mod malformed;
pub(crate) mod page;
mod payments;
mod quotes;
mod rates;
pub mod status;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    authn::Principal,
    config::{Config, CorridorTerms, Timing},
    coordinator::Coordinator,
    fx::{Corridor, Rates},
    payment::PartnerName,
    runtime::SharedRuntime,
    store::Store,
};

pub use caller::Caller;
pub use malformed::MalformedLayer;

/// How many payments begin at once. They share an fsync, and the next ones queue while it lasts.
const BEGINS_MAX: usize = 128;

/// What all services share.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    coordinator: Coordinator,
    store: Arc<dyn Store>,
    rates: Arc<Rates>,
    runtime: SharedRuntime,
    timing: Timing,
    trust_domain: String,
    identities: Vec<(Principal, PartnerName)>,
    corridors: BTreeMap<Corridor, CorridorTerms>,
    /// Room for payments that begin: until the first record is on disk.
    begins: Semaphore,
    /// Cancelled when the gateway drains: streams end.
    closing: CancellationToken,
}

impl Api {
    /// The services of a gateway. Streams end when `closing` is cancelled.
    pub fn new(
        config: &Config,
        coordinator: Coordinator,
        store: Arc<dyn Store>,
        rates: Arc<Rates>,
        runtime: SharedRuntime,
        closing: CancellationToken,
    ) -> Self {
        let identities = config
            .partners
            .iter()
            .map(|(name, partner)| (partner.identity.clone(), name.clone()))
            .collect();
        Self {
            shared: Arc::new(Shared {
                coordinator,
                store,
                rates,
                runtime,
                timing: config.timing.clone(),
                trust_domain: config.trust_domain.clone(),
                identities,
                corridors: config.corridors.clone(),
                begins: Semaphore::new(BEGINS_MAX),
                closing,
            }),
        }
    }
}

impl Shared {
    fn now_ms(&self) -> i64 {
        self.runtime.now_ms()
    }
}
