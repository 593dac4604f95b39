//! `PaymentService`, but for the stream of [`super::watch`].

use std::{sync::Arc, time::Duration};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    Api, Caller, Shared, decode, encode,
    filter::Filter,
    page::PageToken,
    quotes,
    status::{ApiError, ErrorReason, Violation},
    watch,
};
use crate::{
    coordinator::{
        BeginError, HaltPoint,
        protocol::{Decision, State, Transaction, fold},
    },
    fx::Corridor,
    payment::{Order, OrderPricing, Outcome, PartnerName, PaymentId, RateOrigin, Reason, Terms},
    pb::gateway::v1::{self as pb, payment_service_server::PaymentService},
    runtime,
    store::{ListQuery, Listed, StoreError},
};

const PAGE_SIZE_DEFAULT: i32 = 50;
const PAGE_SIZE_MAX: i32 = 1_000;

#[tonic::async_trait]
impl PaymentService for Api {
    async fn create_payment(
        &self,
        request: Request<pb::CreatePaymentRequest>,
    ) -> Result<Response<pb::Payment>, Status> {
        let received = self.shared.runtime.monotonic();
        // In a box of its own: what the beginning needs is given back before the payment is waited for.
        let (caller, created, waiting) = Box::pin(open(Arc::clone(&self.shared), request, received)).await?;
        let transaction = match created {
            Created::Begun(transaction) => transaction,
            Created::Draft(terms) => return Ok(Response::new(encode::draft(&caller, &terms))),
        };
        let seen = answer(&self.shared, transaction, waiting).await;
        Ok(Response::new(encode::payment(&caller, &seen)))
    }

    async fn get_payment(&self, request: Request<pb::GetPaymentRequest>) -> Result<Response<pb::Payment>, Status> {
        let caller = Caller::of(&self.shared, &request)?;
        let id = decode::payment_name("name", &request.get_ref().name)?;
        let transaction = visible(&self.shared, &caller, id, "name").await?;
        Ok(Response::new(encode::payment(&caller, &transaction)))
    }

    async fn list_payments(
        &self,
        request: Request<pb::ListPaymentsRequest>,
    ) -> Result<Response<pb::ListPaymentsResponse>, Status> {
        let caller = Caller::of(&self.shared, &request)?;
        Ok(Response::new(list(&self.shared, &caller, request.get_ref()).await?))
    }

    async fn cancel_payment(
        &self,
        request: Request<pb::CancelPaymentRequest>,
    ) -> Result<Response<pb::Payment>, Status> {
        let caller = Caller::of(&self.shared, &request)?;
        let id = decode::payment_name("name", &request.get_ref().name)?;
        let payment = cancel(&self.shared, caller, id).await?;
        Ok(Response::new(payment))
    }

    type WatchPaymentsStream = ReceiverStream<Result<pb::WatchPaymentsResponse, Status>>;

    async fn watch_payments(
        &self,
        request: Request<pb::WatchPaymentsRequest>,
    ) -> Result<Response<Self::WatchPaymentsStream>, Status> {
        let caller = Caller::of(&self.shared, &request)?;
        let stream = watch::open(&self.shared, caller, request.get_ref()).await?;
        Ok(Response::new(stream))
    }
}

/// The payment, if the caller may see it. The same answer for another's as for none.
pub(super) async fn visible(
    shared: &Shared,
    caller: &Caller,
    id: PaymentId,
    field: &'static str,
) -> Result<Arc<Transaction>, ApiError> {
    let transaction = shared.coordinator.find(id).await?;
    transaction
        .filter(|transaction| caller.may_see(transaction))
        .ok_or_else(|| {
            ApiError::new(ErrorReason::PaymentNotFound, format!("{field}: no payment {id}")).with("field", field)
        })
}

/// How long a caller waits, and for what.
#[derive(Clone, Copy)]
struct Waiting {
    decision_is_enough: bool,
    deadline: Option<Deadline>,
}

/// Makes the payment; what is left to do is to wait for it.
async fn open(
    shared: Arc<Shared>,
    request: Request<pb::CreatePaymentRequest>,
    received: Duration,
) -> Result<(Caller, Created, Waiting), ApiError> {
    let initiator = Caller::of(&shared, &request)?.into_partner()?;
    let deadline = deadline(request.metadata()).map(|left| Deadline { received, left });
    let request = request.into_inner();
    let answer_at = pb::AnswerAt::try_from(request.answer_at).map_err(|_| {
        let description = format!("is {}; ANSWER_AT_END or ANSWER_AT_DECISION", request.answer_at);
        ApiError::field(ErrorReason::FieldInvalid, "answer_at", description)
    })?;
    let waiting = Waiting {
        decision_is_enough: answer_at == pb::AnswerAt::Decision,
        deadline,
    };
    let created = create(&shared, initiator.clone(), &request, deadline).await?;
    Ok((Caller::Partner(initiator), created, waiting))
}

/// What became of a request to make a payment.
enum Created {
    /// It has begun, now or before.
    Begun(Arc<Transaction>),
    /// It would begin like this; `validate_only`.
    Draft(Box<Terms>),
}

async fn create(
    shared: &Shared,
    initiator: PartnerName,
    request: &pb::CreatePaymentRequest,
    deadline: Option<Deadline>,
) -> Result<Created, ApiError> {
    let order = decode::order(request)?;
    let id = PaymentId::derive(&initiator, &order.request_id);

    if let Some(existing) = shared.coordinator.attach(id)
        // One that never began says nothing about this request, which may be another.
        && let Ok(transaction) = existing.begun().await
    {
        same_order(&transaction, &order)?;
        return Ok(Created::Begun(transaction));
    }
    let begun = match terms(shared, initiator, id, &order, deadline).await {
        Ok(terms) if request.validate_only => Ok(Created::Draft(Box::new(terms))),
        Ok(terms) => begin(shared, terms).await.map(Created::Begun).map_err(ApiError::from),
        Err(error) => Err(error),
    };
    let existing = match &begun {
        Ok(Created::Begun(transaction)) => Some(Arc::clone(transaction)),
        // A retry is answered with its payment even if its quote has lapsed since, the rate has changed, or nothing new is
        // begun any more. That it is one is looked up only here: a request that can begin finds out when it does.
        Ok(Created::Draft(_)) | Err(_) => shared.coordinator.find(id).await?,
    };
    match existing {
        Some(transaction) => {
            same_order(&transaction, &order)?;
            Ok(Created::Begun(transaction))
        }
        None => begun,
    }
}

/// How often a beginning is tried that met another's under the same id which then came to nothing.
const BEGIN_ATTEMPTS_MAX: u32 = 3;

/// Begins the payment, or finds it begun.
async fn begin(shared: &Shared, terms: Terms) -> Result<Arc<Transaction>, BeginError> {
    // So many begin at once and no more: a burst waits here, while they share an fsync.
    let _place = shared.begins.acquire().await.expect("the semaphore is never closed");
    // Half, for it was counted a moment ago and may have been the least that is allowed.
    if terms.decide_by_ms - shared.now_ms() < shared.timing.voting_min.as_millis() as i64 / 2 {
        let error = "too many payments were waiting to begin; nothing was started".into();
        return Err(StoreError::Unavailable(error).into());
    }
    let terms = Arc::new(terms);
    let mut attempt = 1;
    loop {
        let handle = shared.coordinator.begin(Arc::clone(&terms))?;
        let own = handle.is_own();
        match handle.begun().await {
            // Why another's never began says nothing about this one.
            Err(_) if !own && attempt < BEGIN_ATTEMPTS_MAX => attempt += 1,
            begun => return begun,
        }
    }
}

/// Everything that is fixed when the payment begins; checks all that can be wrong with it.
async fn terms(
    shared: &Shared,
    initiator: PartnerName,
    id: PaymentId,
    order: &Order,
    deadline: Option<Deadline>,
) -> Result<Terms, ApiError> {
    let now_ms = shared.now_ms();
    let corridor = |source, target| Corridor {
        source_partner: order.payer.partner.to_string(),
        source,
        target_partner: order.payee.partner.to_string(),
        target,
    };
    let (conversion, origin, expire_ms) = match &order.pricing {
        OrderPricing::Quote(quote_id) => {
            let stored = quotes::find(shared, *quote_id, Some(&initiator), "payment.quote").await?;
            let quote = stored.quote;
            let mismatches = quote.mismatches(order);
            if !mismatches.is_empty() {
                return Err(quote_mismatch(&mismatches));
            }
            shared.corridor(
                &initiator,
                &corridor(quote.source_currency(), quote.target_currency()),
                "payment",
            )?;
            if stored.taken_by.is_some_and(|by| by != id) {
                return Err(BeginError::QuoteTaken { by: stored.taken_by }.into());
            }
            (quote.conversion, quote.origin, Some(quote.expire_ms))
        }
        OrderPricing::Market(market) => {
            let (source, target) = (market.worst_rate.base(), market.worst_rate.quote());
            let corridor = corridor(source, target);
            let corridor_terms = shared.corridor(&initiator, &corridor, "payment")?;
            let field = "payment.market.amount";
            let priced = shared
                .price(
                    &corridor,
                    corridor_terms,
                    market.fixed_send,
                    market.amount,
                    field,
                    now_ms,
                )
                .await?;
            if priced.conversion.rate.value() < market.worst_rate.value() {
                let (found, allowed) = (priced.conversion.rate.value_string(), market.worst_rate.value_string());
                return Err(ApiError::new(
                    ErrorReason::RateWorseThanAllowed,
                    format!("payment.market.worst_rate: the rate is {found}, worse than {allowed}"),
                )
                .with("field", "payment.market.worst_rate")
                .with("rate", found));
            }
            let origin: RateOrigin = encode::rate_origin(&priced.mid.origin);
            (priced.conversion, origin, None)
        }
    };
    // Fetching a rate may have taken its time: what is left is counted from here.
    let now_ms = shared.now_ms();
    let decide_by_ms = decide_by_ms(shared, now_ms, expire_ms, deadline)?;
    Ok(Terms {
        id,
        initiator,
        branches: Terms::legs(order, &conversion),
        order: order.clone(),
        conversion,
        origin,
        begin_ms: now_ms,
        decide_by_ms,
        hold_expire_ms: decide_by_ms + shared.timing.hold.as_millis() as i64,
    })
}

/// The latest instant of the decision: the gateway's voting time, the caller's deadline and the quote's expiry, whichever
/// comes first. Refuses a payment that would have too little time (promise 9).
fn decide_by_ms(
    shared: &Shared,
    now_ms: i64,
    expire_ms: Option<i64>,
    deadline: Option<Deadline>,
) -> Result<i64, ApiError> {
    let voting_min_ms = shared.timing.voting_min.as_millis() as i64;
    let mut voting_ms = shared.timing.voting.as_millis() as i64;
    if let Some(expire_ms) = expire_ms {
        // At its expiry a quote is lapsed already.
        let left_ms = expire_ms - 1 - now_ms;
        if left_ms < voting_min_ms {
            let when = if left_ms < 0 {
                "has lapsed"
            } else {
                "would lapse before the payment could be decided"
            };
            return Err(ApiError::new(
                ErrorReason::QuoteExpired,
                format!("payment.quote: the quote {when}; make a new one"),
            )
            .with("field", "payment.quote"));
        }
        voting_ms = voting_ms.min(left_ms);
    }
    if let Some(deadline) = deadline {
        let left_ms = deadline.left(shared).as_millis() as i64 - shared.timing.answer_margin.as_millis() as i64;
        if left_ms < voting_min_ms {
            return Err(ApiError::new(
                ErrorReason::DeadlineTooShort,
                format!(
                    "the call's deadline leaves {} ms to vote; at least {voting_min_ms} ms and {} ms to answer",
                    left_ms.max(0),
                    shared.timing.answer_margin.as_millis()
                ),
            ));
        }
        voting_ms = voting_ms.min(left_ms);
    }
    Ok(now_ms + voting_ms)
}

fn same_order(transaction: &Transaction, order: &Order) -> Result<(), ApiError> {
    let fields = transaction.terms.order.differences(order);
    if fields.is_empty() {
        return Ok(());
    }
    let request_id = &order.request_id;
    let violations = fields
        .iter()
        .map(|field| Violation {
            reason: ErrorReason::RequestIdReused,
            field: (*field).into(),
            description: format!("differs from the payment that request_id {request_id} made"),
        })
        .collect();
    Err(ApiError::new(
        ErrorReason::RequestIdReused,
        format!(
            "request_id {request_id} belongs to {}, which differs in {}",
            transaction.terms.id,
            fields.join(", ")
        ),
    )
    .with("fields", fields.join(","))
    .with("payment", transaction.terms.id.to_string())
    .with_violations(violations))
}

fn quote_mismatch(fields: &[&'static str]) -> ApiError {
    let violations = fields
        .iter()
        .map(|field| Violation {
            reason: ErrorReason::QuoteMismatch,
            field: (*field).into(),
            description: "is not what the quote was made for".into(),
        })
        .collect();
    ApiError::new(
        ErrorReason::QuoteMismatch,
        format!("not what the quote was made for: {}", fields.join(", ")),
    )
    .with("fields", fields.join(","))
    .with_violations(violations)
}

/// Waits for what the caller wants to see, or as long as its deadline lets it.
async fn answer(shared: &Shared, mut seen: Arc<Transaction>, waiting: Waiting) -> Arc<Transaction> {
    let id = seen.terms.id;
    if let Some(mut handle) = shared.coordinator.attach(id) {
        let wanted = handle.when(|transaction| match waiting.decision_is_enough {
            true => transaction.decision().is_some(),
            false => transaction.has_settled(),
        });
        let left = match waiting.deadline {
            // Half of the margin is for the way back.
            Some(deadline) => deadline.left(shared).saturating_sub(shared.timing.answer_margin / 2),
            // A partner that stays away must not keep a caller for ever: the decision stands, and it is told.
            None => shared.timing.answer,
        };
        let reached = runtime::timeout(&*shared.runtime, left, wanted).await.flatten();
        if let Some(transaction) = reached.or_else(|| handle.now()) {
            seen = transaction;
        }
    }
    shared.coordinator.halt(HaltPoint::BeforeAnswer, id).await;
    seen
}

async fn cancel(shared: &Shared, caller: Caller, id: PaymentId) -> Result<pb::Payment, ApiError> {
    let transaction = visible(shared, &caller, id, "name").await?;
    match &caller {
        Caller::Partner(partner) if transaction.terms.initiator == *partner => {}
        Caller::Partner(_) | Caller::Operator(_) => {
            return Err(ApiError::new(
                ErrorReason::NotInitiator,
                "only the partner that created a payment cancels it",
            ));
        }
    }
    let outcome = Outcome::new(
        Reason::Cancelled,
        "cancelled by its initiator",
        Some(&transaction.terms.initiator),
    );
    let transaction = shared.coordinator.cancel(id, outcome).await?;
    match transaction.decision() {
        Some(Decision::Abort(_)) => Ok(encode::payment(&caller, &transaction)),
        Some(Decision::Commit) => {
            let state = transaction.phase.name();
            Err(ApiError::new(
                ErrorReason::PaymentDecided,
                format!("commit is decided; the payment is {state}"),
            )
            .with("state", state))
        }
        // Not driven at this moment: recovery will take it up.
        None => Err(StoreError::Unavailable("the payment is not being driven; try again".into()).into()),
    }
}

async fn list(
    shared: &Shared,
    caller: &Caller,
    request: &pb::ListPaymentsRequest,
) -> Result<pb::ListPaymentsResponse, ApiError> {
    let limit = match request.page_size {
        0 => PAGE_SIZE_DEFAULT,
        size if size < 0 => {
            let description = format!("is {size}; 0 to {PAGE_SIZE_MAX}");
            return Err(ApiError::field(ErrorReason::FieldInvalid, "page_size", description));
        }
        size => size.min(PAGE_SIZE_MAX),
    } as usize;
    let filter = Filter::parse(&request.filter)
        .map_err(|problem| ApiError::field(ErrorReason::FilterInvalid, "filter", problem.to_string()))?;
    if filter.request_id.is_some() && caller.confined_to().is_none() {
        let description = "request_id is a partner's own; an operator cannot filter by it";
        return Err(ApiError::field(ErrorReason::FilterInvalid, "filter", description));
    }
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(PageToken::parse(token, caller, &request.filter).ok_or_else(|| {
            let description = "is not a token of this list with this filter; start again without one";
            ApiError::field(ErrorReason::PageTokenInvalid, "page_token", description)
        })?),
    };
    let query = ListQuery {
        concerns: caller.confined_to().cloned(),
        states: filter.states,
        begin_from_ms: filter.from_ms,
        begin_before_ms: filter.before_ms,
        request_id: filter.request_id,
        after,
        // One more than asked tells whether there is a next page.
        limit: limit + 1,
    };
    let mut listed = shared.store.list(query).await?;
    let more = listed.len() > limit;
    listed.truncate(limit);
    let last = listed.last().map(|listed| listed.position);
    let mut payments = Vec::with_capacity(listed.len());
    for Listed { position, history } in listed {
        let state = history.and_then(|history| {
            fold(&history.records).map_err(|impossible| StoreError::Damaged(format!("{}: {impossible}", position.id)))
        });
        match state {
            Ok(State::Present(transaction)) => payments.push(encode::payment(caller, &transaction)),
            Ok(State::Absent) => {}
            // It does not hide the others; who asks for it by name is told.
            Err(StoreError::Damaged(error)) => tracing::error!(payment = %position.id, error, "left out of a list"),
            Err(error) => return Err(error.into()),
        }
    }
    let next_page_token = match last {
        Some(position) if more => PageToken::text(position, caller, &request.filter),
        _ => String::new(),
    };
    Ok(pb::ListPaymentsResponse {
        payments,
        next_page_token,
    })
}

/// When the caller stops waiting.
#[derive(Clone, Copy)]
struct Deadline {
    /// By the monotonic clock.
    received: Duration,
    left: Duration,
}

impl Deadline {
    fn left(self, shared: &Shared) -> Duration {
        let elapsed = shared.runtime.monotonic().saturating_sub(self.received);
        self.left.saturating_sub(elapsed)
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Requests"). Anything else is no deadline.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(read("1u"), Some(Duration::from_micros(1)));
        for nonsense in ["", "S", "5", "5s", "-5S", "999999999S", "5 S"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(deadline(&MetadataMap::new()), None);
    }
}
