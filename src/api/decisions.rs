//! `DecisionService`.

use tonic::{Request, Response, Status};

use super::{
    Api, Caller, decode,
    status::{ApiError, ErrorReason},
};
use crate::{
    coordinator::protocol::Decision,
    pb::gateway::v1::{self as pb, decision_service_server::DecisionService, get_decision_response::Decision as Wire},
    wire::timestamp,
};

#[tonic::async_trait]
impl DecisionService for Api {
    async fn get_decision(
        &self,
        request: Request<pb::GetDecisionRequest>,
    ) -> Result<Response<pb::GetDecisionResponse>, Status> {
        let caller = Caller::of(&self.shared, &request)?;
        let id = decode::payment_name("payment", &request.get_ref().payment)?;
        let Some(transaction) = self.shared.coordinator.find(id).await.map_err(ApiError::from)? else {
            // Presumed abort: no Prepare leaves before its payment is durable, so nobody can hold anything for it.
            return Ok(Response::new(pb::GetDecisionResponse {
                decision: Wire::Abort.into(),
                retry_time: None,
            }));
        };
        if let Some(partner) = caller.confined_to()
            && !transaction.terms.takes_part(partner)
        {
            let message = format!("payment: no payment {id}");
            return Err(ApiError::new(ErrorReason::PaymentNotFound, message)
                .with("field", "payment")
                .into());
        }
        let answer = match transaction.decision() {
            Some(Decision::Commit) => pb::GetDecisionResponse {
                decision: Wire::Commit.into(),
                retry_time: None,
            },
            Some(Decision::Abort(_)) => pb::GetDecisionResponse {
                decision: Wire::Abort.into(),
                retry_time: None,
            },
            None => pb::GetDecisionResponse {
                decision: Wire::Pending.into(),
                retry_time: Some(timestamp(transaction.terms.decide_by_ms + 1)),
            },
        };
        Ok(Response::new(answer))
    }
}
