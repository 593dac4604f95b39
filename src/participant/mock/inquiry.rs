//! Asking the gateway about branches in doubt: prepared, and past the hold's lifetime.
//!
//! Owns when to ask and whom; what a decision does is [`super::ledger`]'s, exactly as if Commit or Abort had arrived.
//!
//! Invariant: only a decision ends a hold. Silence, errors and PENDING do not, however long they last.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::{
    ledger::InDoubt,
    service,
    store::{Stopped, Store, now_ms},
};
use crate::pb::gateway::v1::{
    GetDecisionRequest, decision_service_client::DecisionServiceClient, get_decision_response::Decision,
};

/// A PENDING's retry_time is honoured up to here: a clock gone wrong must not silence the question for years.
const RETRY_TIME_MAX: Duration = Duration::from_secs(3_600);

/// How often and how many to ask.
#[derive(Clone, Debug)]
pub struct InquiryOptions {
    /// The wait after the first question, the second and so on; the last one for ever after. A tenth at most is added
    /// at random, so that many branches do not ask in step.
    pub ladder: Vec<Duration>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The wait between rounds.
    pub interval: Duration,
    /// Questions in one round; with the interval, the bound of the rate.
    pub batch_max: usize,
    /// Questions at the same time.
    pub concurrency_max: usize,
}

impl Default for InquiryOptions {
    /// As wallet rails ask: after 4, 4, 30, 60, 60, 60 s, then every 5 min; an answer within 5 s.
    fn default() -> Self {
        InquiryOptions {
            ladder: [4, 4, 30, 60, 60, 60, 300].map(Duration::from_secs).to_vec(),
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(1),
            batch_max: 256,
            concurrency_max: 16,
        }
    }
}

pub(super) struct Inquiry {
    pub store: Store,
    pub gateway: Channel,
    pub options: InquiryOptions,
}

impl Inquiry {
    /// Asks for ever; ends when the store does.
    pub(super) async fn run(&self) -> Stopped {
        loop {
            if let Err(stopped) = self.round().await {
                return stopped;
            }
            sleep(self.options.interval).await;
        }
    }

    async fn round(&self) -> Result<(), Stopped> {
        let limit = self.options.batch_max;
        // A store that fails has its own way to say so.
        let due = self.store.run(move |ledger| ledger.in_doubt(limit)).await?;
        let mut asked = stream::iter(due)
            .map(|branch| self.ask(branch))
            .buffer_unordered(self.options.concurrency_max.max(1));
        while let Some(outcome) = asked.next().await {
            outcome?;
        }
        Ok(())
    }

    async fn ask(&self, InDoubt { key, asks }: InDoubt) -> Result<(), Stopped> {
        let request = GetDecisionRequest {
            payment: key.payment.clone(),
        };
        let mut gateway = DecisionServiceClient::new(self.gateway.clone());
        let not_before_ms = match timeout(self.options.timeout, gateway.get_decision(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                match answer.decision() {
                    Decision::Commit => {
                        tracing::info!(payment = key.payment, "in doubt, decided: commit");
                        // Not found: it was forgotten meanwhile, and there is nothing to apply.
                        return self.store.run(move |ledger| ledger.commit(&key)).await.map(|_| ());
                    }
                    Decision::Abort => {
                        tracing::info!(payment = key.payment, "in doubt, decided: abort");
                        return self.store.run(move |ledger| ledger.abort(&key)).await.map(|_| ());
                    }
                    Decision::Pending | Decision::Unspecified => answer.retry_time.and_then(service::to_ms),
                }
            }
            Ok(Err(status)) => {
                tracing::info!(payment = key.payment, code = ?status.code(), message = status.message(), "in doubt");
                None
            }
            Err(_) => {
                tracing::info!(payment = key.payment, "in doubt, the gateway does not answer");
                None
            }
        };
        let now_ms = now_ms();
        let latest_ms = now_ms.saturating_add(millis(RETRY_TIME_MAX));
        let next_ms = now_ms
            .saturating_add(millis(self.wait(asks)))
            .max(not_before_ms.unwrap_or(0).min(latest_ms));
        self.store.run(move |ledger| ledger.ask_again(&key, next_ms)).await
    }

    fn wait(&self, asks: u32) -> Duration {
        let ladder = &self.options.ladder;
        let step = usize::try_from(asks)
            .unwrap_or(usize::MAX)
            .min(ladder.len().saturating_sub(1));
        let wait = ladder.get(step).copied().unwrap_or(self.options.interval);
        wait + Duration::from_millis(u64::from(service::random(
            u32::try_from(millis(wait / 10)).unwrap_or(u32::MAX),
        )))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
