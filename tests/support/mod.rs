//! A whole network in one process: partner networks, the gateway between them and clients with certificates, over real
//! sockets and mutual TLS.
//!
//! Owns starting and stopping, requests that are right as they are, waiting with a bound, and the [`audit`]. What is
//! asserted of an answer is the tests'. Shared by several test binaries, each of which uses its own part.
#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod audit;
pub mod clients;
pub mod decimal;
pub mod network;
pub mod observed;
pub mod ports;
pub mod requests;
pub mod wire;

use std::{fmt::Debug, future::Future, time::Duration};

pub use clients::{Client, Mock};
pub use network::{Network, Settings};
pub use observed::Metrics;
pub use requests::{ALIPAY, APPLE, PAYPAL, Route};
pub use wire::Refusal;

/// Nothing here takes longer unless it hangs.
pub const BOUND: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` sees what it looks for, and answers with it. Panics after `bound`, with what was seen last.
pub async fn wait_for<T, S, F>(what: &str, bound: Duration, mut look: impl FnMut() -> F) -> T
where
    S: Debug,
    F: Future<Output = Result<T, S>>,
{
    let deadline = tokio::time::Instant::now() + bound;
    loop {
        let seen = match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) => format!("{seen:?}"),
            Err(_) => "nothing: the look itself did not end".to_owned(),
        };
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within {bound:?}: {what}; seen last: {seen}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// The future's output. Panics after [`BOUND`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"))
}
