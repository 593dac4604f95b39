//! Requests that are not protobuf, or hold a string that is not UTF-8, as the caller's error.
//!
//! tonic reports a request that it cannot decode as INTERNAL, the server's fault, and one that is too large as
//! OUT_OF_RANGE, both without details. This layer turns exactly those answers into INVALID_ARGUMENT with the field's path,
//! which prost names in its message, and RESOURCE_EXHAUSTED, as other gRPC servers have it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::status::{ApiError, ErrorReason};

const DECODE_FAILED: &str = "failed to decode Protobuf message: ";
const TOO_LARGE: &str = "Error, decoded message length too large: ";

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct MalformedLayer;

/// The service that [`MalformedLayer`] makes.
#[derive(Clone, Debug)]
pub struct Malformed<S> {
    inner: S,
}

impl<S> Layer<S> for MalformedLayer {
    type Service = Malformed<S>;

    fn layer(&self, inner: S) -> Malformed<S> {
        Malformed { inner }
    }
}

impl<S, B> Service<Request<B>> for Malformed<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let response = self.inner.call(request);
        Box::pin(async move { Ok(translate(response.await?)) })
    }
}

fn translate(response: Response<Body>) -> Response<Body> {
    // An answer without a message carries its status in the headers.
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    if let (Code::OutOfRange, Some(problem)) = (status.code(), status.message().strip_prefix(TOO_LARGE)) {
        let error = ApiError::new(
            ErrorReason::RequestTooLarge,
            format!("the message is too large: {problem}"),
        );
        return Status::from(error).into_http();
    }
    let Some(problem) = status.message().strip_prefix(DECODE_FAILED) else {
        return response;
    };
    if status.code() != Code::Internal {
        return response;
    }
    let error = match path(problem) {
        Some(field) => ApiError::field(ErrorReason::RequestMalformed, &field, problem),
        None => ApiError::new(
            ErrorReason::RequestMalformed,
            format!("the message cannot be decoded: {problem}"),
        ),
    };
    Status::from(error).into_http()
}

/// The field's path out of prost's "Inner.field: Outer.field: what is wrong": it starts where it failed.
pub fn path(problem: &str) -> Option<String> {
    let mut fields = Vec::new();
    let mut inner = None;
    for part in problem.split(": ") {
        let Some((message, field)) = part.split_once('.') else {
            break;
        };
        let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !(is_name(message) && is_name(field)) {
            break;
        }
        // prost names the oneof; callers know its fields. Only one of them is a text.
        fields.push(match (message, field, inner) {
            ("Payment", "pricing", Some("MarketOrder")) => "market",
            ("Payment", "pricing", None) if problem.contains("invalid string value") => "quote",
            _ => field,
        });
        inner = Some(message);
    }
    fields.reverse();
    (!fields.is_empty()).then(|| fields.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_read_from_what_prost_says() {
        let nested =
            "Party.account: Payment.payer: CreatePaymentRequest.payment: invalid string value: data is not UTF-8";
        assert_eq!(path(nested).as_deref(), Some("payment.payer.account"));
        assert_eq!(
            path("GetPaymentRequest.name: invalid string value: data is not UTF-8").as_deref(),
            Some("name")
        );
        assert_eq!(path("invalid wire type value: 7"), None);
        // A oneof goes by the name of the field that is set.
        for (problem, field) in [
            (
                "Payment.pricing: CreatePaymentRequest.payment: invalid string value",
                "payment.quote",
            ),
            (
                "Payment.pricing: CreatePaymentRequest.payment: buffer underflow",
                "payment.pricing",
            ),
            (
                "MarketOrder.worst_rate: Payment.pricing: CreatePaymentRequest.payment: invalid string value",
                "payment.market.worst_rate",
            ),
            (
                "Money.amount: MarketOrder.amount: Payment.pricing: CreatePaymentRequest.payment: invalid string value",
                "payment.market.amount.amount",
            ),
        ] {
            assert_eq!(path(problem).as_deref(), Some(field), "{problem}");
        }
    }
}
