//! ParticipantService: requests in, the ledger's answers out, with the faults between.

use std::{sync::Arc, time::Duration};

use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    Crash, amount,
    faults::{FaultCommand, Faults},
    ledger::{Branch, BranchKey, Leg, Preparation, Rejection, State, Terms},
    status::{self, Violation},
    store::Store,
};
use crate::pb::participant::v1 as pb;

/// "payments/" and an id of this many characters at most.
const PAYMENT_ID_LEN_MAX: usize = 128;
const ACCOUNT_LEN_MAX: usize = 64;
/// ISO 20022 Max35Text, with room for those who do not keep to it.
const END_TO_END_ID_LEN_MAX: usize = 128;
const PAYMENT_PREFIX: &str = "payments/";

/// The participant.
#[derive(Clone)]
pub(super) struct Participant {
    pub store: Store,
    pub faults: Arc<Faults>,
    pub crash: Crash,
}

/// A command, parsed.
#[derive(Clone, Debug)]
enum Order {
    Prepare(Preparation),
    Commit(BranchKey),
    Abort(BranchKey),
    GetBranch(BranchKey),
}

impl Order {
    fn key(&self) -> &BranchKey {
        match self {
            Order::Prepare(preparation) => &preparation.key,
            Order::Commit(key) | Order::Abort(key) | Order::GetBranch(key) => key,
        }
    }

    fn command(&self) -> FaultCommand {
        match self {
            Order::Prepare(_) => FaultCommand::Prepare,
            Order::Commit(_) => FaultCommand::Commit,
            Order::Abort(_) => FaultCommand::Abort,
            Order::GetBranch(_) => FaultCommand::GetBranch,
        }
    }
}

#[tonic::async_trait]
impl pb::participant_service_server::ParticipantService for Participant {
    async fn prepare(&self, request: Request<pb::PrepareRequest>) -> Result<Response<pb::Branch>, Status> {
        self.perform(Order::Prepare(preparation(request.into_inner())?)).await
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<pb::Branch>, Status> {
        let pb::CommitRequest { payment, branch } = request.into_inner();
        self.perform(Order::Commit(key(payment, &branch)?)).await
    }

    async fn abort(&self, request: Request<pb::AbortRequest>) -> Result<Response<pb::Branch>, Status> {
        let pb::AbortRequest { payment, branch } = request.into_inner();
        self.perform(Order::Abort(key(payment, &branch)?)).await
    }

    async fn get_branch(&self, request: Request<pb::GetBranchRequest>) -> Result<Response<pb::Branch>, Status> {
        let pb::GetBranchRequest { payment, branch } = request.into_inner();
        self.perform(Order::GetBranch(key(payment, &branch)?)).await
    }
}

impl Participant {
    /// Carries an order out, and whatever befalls it.
    async fn perform(&self, mut order: Order) -> Result<Response<pb::Branch>, Status> {
        let mut plan = self.faults.meet(order.command(), random);
        if plan.latency > Duration::ZERO {
            tokio::time::sleep(plan.latency).await;
        }
        if plan.lose_request {
            return Err(Status::unavailable("the request was lost, as the tester asked"));
        }
        if plan.forget {
            let key = order.key().clone();
            self.store
                .run(move |ledger| ledger.forget(&key))
                .await
                .map_err(status::stopped)?;
        }
        if let Order::Prepare(preparation) = &mut order {
            preparation.refuse_with = plan.refusal_code.take();
        }
        let mut answer = self.act(&order).await;
        if plan.twice {
            answer = self.act(&order).await;
        }
        if plan.crash {
            (self.crash)();
            // Whatever crash does: nothing is answered any more.
            std::future::pending::<()>().await;
        }
        if plan.lose_answer {
            return Err(Status::unavailable("the answer was lost, as the tester asked"));
        }
        answer.map(Response::new)
    }

    async fn act(&self, order: &Order) -> Result<pb::Branch, Status> {
        let key = order.key().clone();
        let order = order.clone();
        let outcome = self.store.run(move |ledger| match &order {
            Order::Prepare(preparation) => ledger.prepare(preparation),
            Order::Commit(key) => ledger.commit(key),
            Order::Abort(key) => ledger.abort(key).map(Ok),
            Order::GetBranch(key) => Ok(ledger.branch(key)?.ok_or(Rejection::Unknown)),
        });
        match outcome.await.map_err(status::stopped)? {
            Ok(branch) => Ok(to_wire(branch)),
            Err(rejection) => Err(status::rejected(&key, rejection)),
        }
    }
}

/// From 0 to `most`, both included. The bias of the remainder is below 2^-96.
pub(super) fn random(most: u32) -> u32 {
    let drawn = uuid::Uuid::new_v4().as_u128() % (u128::from(most) + 1);
    u32::try_from(drawn).unwrap_or(most)
}

fn to_wire(branch: Branch) -> pb::Branch {
    let state = match branch.state {
        State::Prepared => pb::branch::State::Prepared,
        State::Refused => pb::branch::State::Refused,
        State::Committed => pb::branch::State::Committed,
        State::Aborted => pb::branch::State::Aborted,
    };
    pb::Branch {
        payment: branch.key.payment,
        branch: branch.key.leg.as_str().to_owned(),
        state: state.into(),
        reference: format!("H{}", branch.seq),
        refusal: branch.refusal.map(|refusal| pb::Refusal {
            code: refusal.code,
            detail: refusal.detail,
        }),
    }
}

fn key(payment: String, branch: &str) -> Result<BranchKey, Status> {
    let mut violations = Vec::new();
    let key = parse_key(payment, branch, &mut violations);
    key.filter(|_| violations.is_empty())
        .ok_or_else(|| status::bad_request(violations))
}

fn parse_key(payment: String, branch: &str, violations: &mut Vec<Violation>) -> Option<BranchKey> {
    let mut violated = |field: &str, detail: &str| violations.push((field.to_owned(), detail.to_owned()));
    let id = payment.strip_prefix(PAYMENT_PREFIX).unwrap_or_default();
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if !(1..=PAYMENT_ID_LEN_MAX).contains(&id.len()) || !id.bytes().all(unreserved) {
        violated("payment", "is not of the form payments/{payment}");
    }
    let leg = Leg::parse(branch);
    if leg.is_none() {
        violated("branch", "is neither \"debit\" nor \"credit\"");
    }
    Some(BranchKey { payment, leg: leg? })
}

fn preparation(request: pb::PrepareRequest) -> Result<Preparation, Status> {
    let mut violations = Vec::new();
    let direction = match request.direction() {
        pb::Direction::Debit => Some(Leg::Debit),
        pb::Direction::Credit => Some(Leg::Credit),
        pb::Direction::Unspecified => None,
    };
    let key = parse_key(request.payment, &request.branch, &mut violations);
    let mut violated = |field: &str, detail: &str| violations.push((field.to_owned(), detail.to_owned()));
    if direction.is_none() {
        violated("direction", "is neither debit nor credit");
    }
    if !is_visible(&request.account, ACCOUNT_LEN_MAX) {
        violated("account", "is not 1 to 64 visible ASCII characters");
    }
    if !(1..=END_TO_END_ID_LEN_MAX).contains(&request.end_to_end_id.len()) {
        violated("end_to_end_id", "is not 1 to 128 bytes long");
    }
    let mut instant = |field: &str, time: Option<Timestamp>| {
        let ms = time.and_then(to_ms);
        if ms.is_none() {
            violated(field, "is missing or no timestamp");
        }
        ms
    };
    let decide_by_ms = instant("decide_by_time", request.decide_by_time);
    let hold_expire_ms = instant("hold_expire_time", request.hold_expire_time);
    if request.amount.is_none() {
        violated("amount", "is missing");
    }
    let (Some(key), Some(direction), Some(money), Some(decide_by_ms), Some(hold_expire_ms), true) = (
        key,
        direction,
        request.amount,
        decide_by_ms,
        hold_expire_ms,
        violations.is_empty(),
    ) else {
        return Err(status::bad_request(violations));
    };
    let amount = amount::parse(&money.currency, &money.amount).map_err(|error| status::bad_amount("amount", error))?;
    if amount == 0 {
        return Err(status::bad_request(vec![(
            "amount.amount".to_owned(),
            "is zero".to_owned(),
        )]));
    }
    let terms = Terms {
        direction,
        account: request.account,
        currency: money.currency,
        amount,
    };
    Ok(Preparation {
        key,
        terms,
        decide_by_ms,
        hold_expire_ms,
        refuse_with: None,
    })
}

/// 1 to `len_max` visible ASCII characters.
pub(super) fn is_visible(text: &str, len_max: usize) -> bool {
    (1..=len_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// timestamp.proto: years 1 to 9999, nanoseconds up to a second.
pub(super) fn to_ms(time: Timestamp) -> Option<i64> {
    let valid = (-62_135_596_800..=253_402_300_799).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    valid.then(|| time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000)
}
