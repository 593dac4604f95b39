//! `RateService`.

use tonic::{Request, Response, Status};

use super::{Api, Caller, decode, encode, status::ApiError};
use crate::pb::gateway::v1::{self as pb, rate_service_server::RateService};

#[tonic::async_trait]
impl RateService for Api {
    async fn get_rate(&self, request: Request<pb::GetRateRequest>) -> Result<Response<pb::Rate>, Status> {
        Caller::of(&self.shared, &request)?;
        let pair = decode::rate_name("name", &request.get_ref().name)?;
        let mid = self
            .shared
            .rates
            .mid(pair.source, pair.target, self.shared.now_ms())
            .await;
        Ok(Response::new(encode::rate(&mid.map_err(ApiError::from)?)))
    }

    async fn list_rates(
        &self,
        request: Request<pb::ListRatesRequest>,
    ) -> Result<Response<pb::ListRatesResponse>, Status> {
        Caller::of(&self.shared, &request)?;
        let base = decode::optional_currency("source_currency", &request.get_ref().source_currency)?;
        let rates = self
            .shared
            .rates
            .list(base, self.shared.now_ms())
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(pb::ListRatesResponse {
            rates: rates.iter().map(encode::rate).collect(),
        }))
    }
}
