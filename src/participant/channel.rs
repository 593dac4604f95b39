//! Production's way to a participant: a unary gRPC call over an HTTP/2 channel.
//!
//! Owns what lies between a message and its frames (the gRPC specification's PROTOCOL-HTTP2), read here and not by tonic's
//! client: that one makes the same kind of status of its own complaints as of the participant's word, and reads a stream that
//! goes on after its one message for as long as it goes on. Leaves what an answer is worth to `grpc`. Invariant: of an answer
//! no more is kept than the largest one there may be, and the first byte that must not be there ends the stream.

use std::{future::poll_fn, pin::pin, time::Duration};

use http::{HeaderMap, HeaderValue, Request, StatusCode, header, response::Parts};
use http_body_util::{BodyExt, Full};
use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::Service;

use super::{
    Transport,
    conduct::{Broken, Misbehaviour},
};
use crate::pb::participant::v1::Branch;

/// Bytes of a message. A branch has a few hundred.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// One byte says whether the message is compressed, four how long it is.
const PREFIX_BYTES: usize = 5;
/// A timeout has at most eight digits (PROTOCOL-HTTP2, TimeoutValue).
const TIMEOUT_MAX: u128 = 99_999_999;

/// The transport of production: an HTTP/2 channel.
#[derive(Clone, Debug)]
pub struct ChannelTransport {
    channel: Channel,
}

impl ChannelTransport {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }
}

impl Transport for ChannelTransport {
    async fn unary(&self, path: &'static str, message: Bytes, timeout: Duration) -> Result<Branch, Status> {
        let mut channel = self.channel.clone();
        poll_fn(|context| channel.poll_ready(context))
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        let response = channel.call(request(path, &message, timeout)).await;
        let response = response.map_err(|error| Status::from_error(Box::new(error)))?;
        let (head, body) = response.into_parts();
        let message = read(&head, body).await?;
        Branch::decode(message).map_err(|error| undecodable(error.to_string()))
    }
}

fn request(path: &'static str, message: &[u8], timeout: Duration) -> Request<Body> {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a command is a few hundred bytes"));
    framed.put_slice(message);
    let mut request = Request::new(Body::new(Full::new(framed.freeze())));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-timeout", timeout_value(timeout));
    request
}

fn timeout_value(timeout: Duration) -> HeaderValue {
    let text = match timeout.as_millis() {
        ms @ ..=TIMEOUT_MAX => format!("{ms}m"),
        ms => format!("{}S", (ms / 1_000).min(TIMEOUT_MAX)),
    };
    HeaderValue::try_from(text).expect("digits and a letter are visible")
}

/// The one message of an answer that ends with OK.
async fn read<B>(head: &Parts, body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if head.status != StatusCode::OK {
        return Err(not_ok(head.status));
    }
    // An answer of a status alone ("Trailers-Only") has it among its headers.
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Err(match status.code() {
            Code::Ok => undecodable("OK, and no message".into()),
            _ => status,
        });
    }
    let kind = head.headers.get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let message = format!("content-type {kind:?}");
        return Err(Broken::status(Code::Unknown, Misbehaviour::NotGrpc, message));
    }
    let mut body = pin!(body);
    let mut envelope = Envelope::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        match frame.into_data() {
            Ok(data) => envelope.push(&data)?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return end(envelope, &trailers);
                }
            }
        }
    }
    let message = "the stream ended without a status";
    Err(Broken::status(Code::Unknown, Misbehaviour::CutShort, message))
}

fn end(envelope: Envelope, trailers: &HeaderMap) -> Result<Bytes, Status> {
    match Status::from_header_map(trailers) {
        None => Err(Broken::status(
            Code::Unknown,
            Misbehaviour::CutShort,
            "the trailers have no status",
        )),
        // An error is the participant's word, whatever came before it.
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) => envelope.message(),
    }
}

/// What gRPC makes of an answer by somebody who speaks HTTP and not gRPC (its http-grpc-status-mapping).
fn not_ok(status: StatusCode) -> Status {
    let message = format!("HTTP status {}", status.as_u16());
    let code = match status {
        // Somebody between here and the participant says that it cannot be reached.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => return Status::unavailable(message),
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        _ => Code::Unknown,
    };
    Broken::status(code, Misbehaviour::NotGrpc, message)
}

fn undecodable(message: String) -> Status {
    Broken::status(Code::Internal, Misbehaviour::Undecodable, message)
}

/// A message as it comes, in pieces.
#[derive(Debug, Default)]
struct Envelope {
    /// Never more than the prefix, the largest message, and the piece that was too much.
    bytes: BytesMut,
}

impl Envelope {
    fn push(&mut self, data: &[u8]) -> Result<(), Status> {
        self.bytes.put_slice(data);
        let Some(length) = self.length() else {
            return Ok(());
        };
        if self.bytes[0] != 0 {
            // 1 would be compressed, which was not offered.
            return Err(undecodable(format!(
                "the message's prefix begins with {}",
                self.bytes[0]
            )));
        }
        if length > MESSAGE_BYTES_MAX {
            let message = format!("a message of {length} bytes, at most {MESSAGE_BYTES_MAX} are read");
            return Err(Broken::status(Code::Unknown, Misbehaviour::TooLarge, message));
        }
        if self.bytes.len() > PREFIX_BYTES + length {
            let message = "the stream goes on after its one message";
            return Err(Broken::status(Code::Unknown, Misbehaviour::SecondAnswer, message));
        }
        Ok(())
    }

    /// The message's length by its prefix, once that has come.
    fn length(&self) -> Option<usize> {
        let length = self.bytes.get(1..PREFIX_BYTES)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        Some(length as usize)
    }

    fn message(self) -> Result<Bytes, Status> {
        match self.length() {
            Some(length) if self.bytes.len() == PREFIX_BYTES + length => Ok(self.bytes.freeze().slice(PREFIX_BYTES..)),
            Some(length) => {
                let (found, expected) = (self.bytes.len() - PREFIX_BYTES, length);
                Err(undecodable(format!("{found} bytes of a message of {expected}")))
            }
            None => Err(undecodable("OK, and no message".into())),
        }
    }
}

#[cfg(test)]
mod tests;
