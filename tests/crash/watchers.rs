//! Those who look on: watchers of payments, who go on from their token whatever befalls the gateway, and an inspector who
//! looks at the networks' holds all the while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use causeway::pb::{
    gateway::v1::{WatchPaymentsRequest, WatchPaymentsResponse, payment_service_client::PaymentServiceClient},
    mock::v1::{self as mock, mock_service_client::MockServiceClient},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    cast::CAST,
    cluster::Cluster,
    dice::Dice,
    evidence::{Change, Sighting},
    history::{History, count, now_ms},
    process::BOUND,
};

/// A stream that says nothing for so long is opened again: its connection may be dead.
const SILENCE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(2);

type Client = PaymentServiceClient<Channel>;

/// One watcher of the gateway.
pub struct Watcher {
    pub client: Client,
    pub history: Arc<History>,
    pub dice: Dice,
    /// How many changes there are in the end, once that is known.
    pub in_all: watch::Receiver<Option<usize>>,
}

impl Watcher {
    /// From the first change to the last, or until too long after the last should have come.
    pub async fn run(mut self) -> Vec<Change> {
        let mut seen: Vec<Change> = Vec::new();
        let mut token = "start".to_owned();
        let mut given_up_at = None;
        while given_up_at.is_none_or(|at| Instant::now() < at) {
            if let Ok(mut stream) = open(&self.client, &token).await {
                count(&self.history.counts.watches);
                while let Ok(Ok(Some(message))) = timeout(SILENCE, stream.message()).await {
                    token = message.resume_token;
                    if let Some(payment) = message.payment {
                        self.history.saw(&payment);
                        seen.push(Change::from(&payment));
                    }
                    if self.is_enough(&seen) {
                        return seen;
                    }
                }
            }
            if self.is_enough(&seen) {
                return seen;
            }
            if self.in_all.borrow().is_some() {
                given_up_at.get_or_insert(Instant::now() + BOUND);
            }
            self.dice.pause(10..100).await;
        }
        seen
    }

    fn is_enough(&self, seen: &[Change]) -> bool {
        self.in_all.borrow().is_some_and(|in_all| seen.len() >= in_all)
    }
}

/// Every change from the start to the newest one, in one go.
pub async fn replay_all(client: &Client) -> Vec<Change> {
    let mut newest = open(client, "").await.expect("all is well");
    let hello = timeout(ANSWER, newest.message()).await.expect("an answer");
    let head = hello.expect("all is well").expect("a first message").resume_token;
    replay(client, |_, token| token == head).await
}

/// So many changes from the start, in one go; fewer if there are no more.
pub async fn replay_some(client: &Client, wanted: usize) -> Vec<Change> {
    replay(client, |changes, _| changes.len() >= wanted).await
}

async fn replay(client: &Client, is_last: impl Fn(&[Change], &str) -> bool) -> Vec<Change> {
    let mut stream = open(client, "start").await.expect("all is well");
    let mut changes = Vec::new();
    while let Ok(Ok(Some(message))) = timeout(BOUND, stream.message()).await {
        changes.extend(message.payment.map(|payment| Change::from(&payment)));
        if is_last(&changes, &message.resume_token) {
            break;
        }
    }
    changes
}

async fn open(client: &Client, token: &str) -> Result<Streaming<WatchPaymentsResponse>, Status> {
    let request = WatchPaymentsRequest {
        resume_token: token.into(),
        payment: String::new(),
    };
    let mut client = client.clone();
    match timeout(ANSWER, client.watch_payments(request)).await {
        Ok(opened) => opened.map(tonic::Response::into_inner),
        Err(_) => Err(Status::unavailable("no answer")),
    }
}

/// Looks at one network's holds again and again, past all links: a hold whose payment somebody knows to have ended is one
/// that nobody will ever decide.
pub async fn inspect(cluster: Arc<Cluster>, history: Arc<History>, network: &'static str, stop: CancellationToken) {
    let mut dice = Dice::of(0, "inspector");
    let mut open = None;
    while !stop.is_cancelled() {
        dice.pause(10..60).await;
        // The same connection for as long as it is the same process.
        let address = cluster.place(network).upstream.get();
        if open.as_ref().map(|(known, _)| *known) != address {
            open = address.and_then(|address| Some((address, cluster.control(network)?)));
        }
        let Some((_, control)) = &open else { continue };
        let asked_ms = now_ms();
        for hold in held_at(control.clone()).await.unwrap_or_default() {
            if let Some(told) = history.ended_by(&hold.payment, asked_ms) {
                history.hangs(Sighting {
                    network,
                    payment: hold.payment,
                    branch: hold.branch,
                    told,
                    seen_ms: asked_ms,
                });
            }
        }
        count(&history.counts.hold_looks);
    }
}

/// The holds that wait for a decision; none if the network does not answer.
pub async fn held(cluster: &Cluster, network: &str) -> Option<Vec<mock::Hold>> {
    held_at(cluster.control(network)?).await
}

async fn held_at(mut control: MockServiceClient<Channel>) -> Option<Vec<mock::Hold>> {
    let request = mock::ListHoldsRequest {
        state: "prepared".into(),
        payment: String::new(),
    };
    let listed = timeout(ANSWER, control.list_holds(request)).await;
    Some(listed.ok()?.ok()?.into_inner().holds)
}

/// Whether no network holds anything; false also if one does not answer.
pub async fn nothing_is_held(cluster: &Cluster) -> bool {
    for cast in &CAST {
        if held(cluster, cast.name).await.is_none_or(|holds| !holds.is_empty()) {
            return false;
        }
    }
    true
}
