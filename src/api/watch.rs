//! `PaymentService.WatchPayments`: the feed as a stream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Caller, Shared, decode, encode,
    page::ResumeToken,
    payments,
    status::{ApiError, ErrorReason, draining},
};
use crate::{
    coordinator::protocol::State,
    feed::{Recent, Subscription},
    payment::PaymentId,
    pb::gateway::v1 as pb,
    store::Change,
};

/// How many changes wait for a slow watcher; the rest waits in the store.
const CHANGES_WAITING_MAX: usize = 64;
/// How many changes are read at once.
const PAGE: usize = 256;

type Item = Result<pb::WatchPaymentsResponse, Status>;

/// Opens a stream; refuses a token that is not of this feed and a payment that the caller may not see.
pub(super) async fn open(
    shared: &Arc<Shared>,
    caller: Caller,
    request: &pb::WatchPaymentsRequest,
) -> Result<ReceiverStream<Item>, ApiError> {
    let feed = shared.store.feed();
    let after = match request.resume_token.as_str() {
        "" => feed.head(),
        "start" => 0,
        token => ResumeToken::parse(token)
            .filter(|sequence| *sequence <= feed.head())
            .ok_or_else(|| {
                let description = "is not a token of this feed; leave it empty, or say \"start\"";
                ApiError::field(ErrorReason::ResumeTokenInvalid, "resume_token", description)
            })?,
    };
    let only = match request.payment.as_str() {
        "" => None,
        name => {
            let id = decode::payment_name("payment", name)?;
            payments::visible(shared, &caller, id, "payment").await?;
            Some(id)
        }
    };
    // One more, for the goodbye.
    let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX + 1);
    let watcher = Watcher {
        shared: Arc::clone(shared),
        caller,
        only,
        feed,
        sender,
    };
    shared.runtime.spawn(Box::pin(watcher.run(after)));
    Ok(ReceiverStream::new(receiver))
}

struct Watcher {
    shared: Arc<Shared>,
    caller: Caller,
    only: Option<PaymentId>,
    feed: Subscription,
    sender: mpsc::Sender<Item>,
}

impl Watcher {
    /// Until the caller goes, or the gateway does.
    async fn run(mut self, after: u64) {
        let closing = self.shared.closing.clone();
        let sender = self.sender.clone();
        // A place of its own, so that a slow watcher too is told why there is no more: an end without a reason would look
        // as if it had seen everything.
        let goodbye = sender.clone().try_reserve_owned();
        let end = tokio::select! {
            // The end of the gateway before another change, so that a busy feed does not hold up a drain.
            biased;
            () = closing.cancelled() => Some(draining()),
            () = sender.closed() => None,
            error = self.follow(after) => error,
        };
        // A caller that has gone needs no goodbye.
        if let (Some(error), Ok(goodbye)) = (end, goodbye) {
            goodbye.send(Err(error.into()));
        }
    }

    /// Sends changes for ever; answers why it stopped, if anybody is there to hear it.
    async fn follow(&mut self, mut after: u64) -> Option<ApiError> {
        let hello = pb::WatchPaymentsResponse {
            payment: None,
            resume_token: ResumeToken::text(after),
        };
        self.sender.send(Ok(hello)).await.ok()?;
        loop {
            let changes = match self.feed.recent(after, PAGE) {
                Recent::Changes(changes) => changes,
                Recent::Behind => match self.shared.store.changes(after, PAGE).await {
                    Ok(changes) => changes.into_iter().map(Arc::new).collect(),
                    Err(error) => return Some(error.into()),
                },
            };
            for change in &changes {
                assert_eq!(change.sequence, after + 1, "bug: a watcher would miss a change");
                after = change.sequence;
                if let Some(message) = self.message(change) {
                    self.sender.send(Ok(message)).await.ok()?;
                }
            }
            if changes.is_empty() && !self.feed.wait_beyond(after).await {
                return Some(draining());
            }
        }
    }

    fn message(&self, change: &Change) -> Option<pb::WatchPaymentsResponse> {
        let State::Present(transaction) = &change.state else {
            return None;
        };
        if self.only.is_some_and(|id| id != transaction.terms.id) || !self.caller.may_see(transaction) {
            return None;
        }
        Some(pb::WatchPaymentsResponse {
            payment: Some(encode::payment(&self.caller, transaction)),
            resume_token: ResumeToken::text(change.sequence),
        })
    }
}
