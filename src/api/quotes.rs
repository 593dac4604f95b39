//! `QuoteService`.

use tonic::{Request, Response, Status};

use super::{
    Api, Caller, Shared, decode, encode,
    status::{ApiError, ErrorReason, conversion_error},
};
use crate::{
    config::CorridorTerms,
    fx::{Corridor, FixedSide, MidRate, price},
    money::{Amount, Conversion},
    payment::{PartnerName, Quote, QuoteId},
    pb::gateway::v1::{self as pb, quote_service_server::QuoteService},
    store::StoredQuote,
};

#[tonic::async_trait]
impl QuoteService for Api {
    async fn create_quote(&self, request: Request<pb::CreateQuoteRequest>) -> Result<Response<pb::Quote>, Status> {
        let owner = Caller::of(&self.shared, &request)?.into_partner()?;
        let stored = create(&self.shared, owner, request.get_ref()).await?;
        Ok(Response::new(encode::quote(&stored)))
    }

    async fn get_quote(&self, request: Request<pb::GetQuoteRequest>) -> Result<Response<pb::Quote>, Status> {
        let caller = Caller::of(&self.shared, &request)?;
        let id = decode::quote_name("name", &request.get_ref().name)?;
        let stored = find(&self.shared, id, caller.confined_to(), "name").await?;
        Ok(Response::new(encode::quote(&stored)))
    }
}

async fn create(
    shared: &Shared,
    owner: PartnerName,
    request: &pb::CreateQuoteRequest,
) -> Result<StoredQuote, ApiError> {
    let order = decode::quote_order(request)?;
    let corridor = Corridor {
        source_partner: order.source_partner.to_string(),
        source: order.pair.source,
        target_partner: order.target_partner.to_string(),
        target: order.pair.target,
    };
    let terms = shared.corridor(&owner, &corridor, "quote.corridor")?;
    let now_ms = shared.now_ms();
    let priced = shared
        .price(&corridor, terms, order.fixed_send, order.amount, "quote.amount", now_ms)
        .await?;
    // Fetching a rate may have taken its time: the quote lives from here.
    let now_ms = shared.now_ms();
    let quote = Quote {
        id: QuoteId::from_random(shared.runtime.random()),
        owner,
        source_partner: order.source_partner,
        target_partner: order.target_partner,
        payer_account: order.payer_account,
        payee_account: order.payee_account,
        fixed_send: order.fixed_send,
        conversion: priced.conversion,
        origin: encode::rate_origin(&priced.mid.origin),
        create_ms: now_ms,
        expire_ms: terms.pricing.expire_ms(now_ms),
    };
    shared.store.put_quote(quote.clone()).await?;
    Ok(StoredQuote { quote, taken_by: None })
}

/// The quote, if it is the owner's (or anybody's, without one).
pub(super) async fn find(
    shared: &Shared,
    id: QuoteId,
    owner: Option<&PartnerName>,
    field: &'static str,
) -> Result<StoredQuote, ApiError> {
    let stored = shared.store.quote(id).await?;
    stored
        .filter(|stored| owner.is_none_or(|owner| stored.quote.owner == *owner))
        // The same answer for another's as for none: its existence is not the caller's business.
        .ok_or_else(|| {
            ApiError::new(ErrorReason::QuoteNotFound, format!("{field}: no quote {id}")).with("field", field)
        })
}

/// A price and the mid rate that it is made of.
pub(super) struct Priced {
    pub conversion: Conversion,
    pub mid: MidRate,
}

impl Shared {
    /// The corridor's terms, if the partner may initiate on it.
    pub(super) fn corridor(
        &self,
        initiator: &PartnerName,
        corridor: &Corridor,
        field: &'static str,
    ) -> Result<&CorridorTerms, ApiError> {
        self.corridors
            .get(corridor)
            .filter(|terms| terms.initiators.contains(initiator))
            .ok_or_else(|| {
                let Corridor {
                    source_partner,
                    source,
                    target_partner,
                    target,
                } = corridor;
                let what = format!("{source_partner}/{source} -> {target_partner}/{target}");
                ApiError::new(
                    ErrorReason::CorridorForbidden,
                    format!("{field}: {initiator} may not initiate on {what}, or there is no such corridor"),
                )
                .with("field", field)
                .with("corridor", what)
            })
    }

    /// Prices an amount at the mid rate of the moment.
    pub(super) async fn price(
        &self,
        corridor: &Corridor,
        terms: &CorridorTerms,
        fixed_send: bool,
        amount: Amount,
        field: &'static str,
        now_ms: i64,
    ) -> Result<Priced, ApiError> {
        let mid = self.rates.mid(corridor.source, corridor.target, now_ms).await?;
        let fixed = if fixed_send {
            FixedSide::Send(amount)
        } else {
            FixedSide::Receive(amount)
        };
        let conversion = price(fixed, mid.rate, &terms.pricing).map_err(|error| conversion_error(error, field))?;
        Ok(Priced { conversion, mid })
    }
}
