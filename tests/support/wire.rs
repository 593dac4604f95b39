//! Errors as they stand on the wire, and requests of arbitrary bytes.

use std::{collections::BTreeMap, time::Duration};

use http::uri::PathAndQuery;
use prost::bytes::{Buf, BufMut};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::StatusExt;

/// A refused call, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// `google.rpc.ErrorInfo`; empty if there was none.
    pub reason: String,
    pub domain: String,
    pub metadata: BTreeMap<String, String>,
    /// The fields of `google.rpc.BadRequest`, in the order in which they stood.
    pub violations: Vec<String>,
    /// `google.rpc.RetryInfo`.
    pub retry_after: Option<Duration>,
    pub message: String,
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().cloned();
        Self {
            code: status.code(),
            reason: info.as_ref().map(|info| info.reason.clone()).unwrap_or_default(),
            domain: info.as_ref().map(|info| info.domain.clone()).unwrap_or_default(),
            metadata: info.map(|info| info.metadata.into_iter().collect()).unwrap_or_default(),
            violations: details
                .bad_request()
                .map(|bad| {
                    bad.field_violations
                        .iter()
                        .map(|violation| violation.field.clone())
                        .collect()
                })
                .unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            message: status.message().to_owned(),
        }
    }
}

impl Refusal {
    /// The fields that are blamed: those of BadRequest, or else the one in the metadata.
    pub fn fields(&self) -> Vec<String> {
        match self.metadata.get("field") {
            Some(field) if self.violations.is_empty() => vec![field.clone()],
            _ => self.violations.clone(),
        }
    }
}

/// Sends these bytes as the request of a unary call; answers with the answer's bytes.
pub async fn call_with_bytes(channel: &Channel, path: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(Request::new(bytes), path, Bytes).await?.into_inner())
}

/// The same with a request that is opened now and sent when `bytes` is ready.
pub async fn call_with_bytes_later(
    channel: &Channel,
    path: &'static str,
    bytes: impl Future<Output = Vec<u8>> + Send + 'static,
) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let request = Request::new(futures_util::stream::once(bytes));
    Ok(grpc.client_streaming(request, path, Bytes).await?.into_inner())
}

/// The same for a server stream: its first message.
pub async fn stream_with_bytes(channel: &Channel, path: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let mut stream = grpc
        .server_streaming(Request::new(bytes), path, Bytes)
        .await?
        .into_inner();
    Ok(stream.message().await?.unwrap_or_default())
}

/// Takes and gives bytes as they are.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
