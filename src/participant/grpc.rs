//! A partner network over gRPC.

use std::{future::Future, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use prost::{
    Message,
    bytes::{BufMut, Bytes},
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_prost::ProstDecoder;
use tonic_types::StatusExt;

use super::{Answering, Call, Participant};
use crate::{
    coordinator::protocol::{Answer, Command},
    payment::{self, Outcome, PartnerName, Reason},
    pb::{
        money::v1::Money,
        participant::v1::{
            AbortRequest, Branch, CommitRequest, Direction, GetBranchRequest, PrepareRequest, branch::State,
        },
    },
    runtime::{self, SharedRuntime},
    wire,
};

/// How much of what a partner wrote goes into an outcome.
const DETAIL_CHARS_MAX: usize = 200;
/// ISO 20022 MS03: reason not specified.
const CODE_UNSPECIFIED: &str = "MS03";
/// A branch is a few hundred bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const REQUEST_BYTES_USUAL: usize = 512;

/// How long a call may take before its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Prepare, Commit and Abort. Rails have 8 s for pay, refund and cancel.
    pub command: Duration,
    /// GetBranch. Rails have 5 s.
    pub inquiry: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(8),
            inquiry: Duration::from_secs(5),
        }
    }
}

/// Carries one encoded request to a participant, and the branch that it answers with back.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Makes the call. `path` is the method's, as in gRPC over HTTP/2; `timeout` is for the participant to know, the call is
    /// given up by dropping the future.
    ///
    /// # Errors
    /// The participant's status, or the transport's own.
    fn unary(
        &self,
        path: &'static str,
        message: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Branch, Status>> + Send;
}

/// The transport of production: an HTTP/2 channel.
#[derive(Clone, Debug)]
pub struct ChannelTransport {
    client: Grpc<Channel>,
}

impl ChannelTransport {
    fn new(channel: Channel) -> Self {
        let client = Grpc::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { client }
    }
}

impl Transport for ChannelTransport {
    async fn unary(&self, path: &'static str, message: Bytes, timeout: Duration) -> Result<Branch, Status> {
        let mut client = self.client.clone();
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        let response = client
            .unary(request, PathAndQuery::from_static(path), BranchCodec)
            .await?;
        Ok(response.into_inner())
    }
}

/// A partner network over gRPC, one unary call a command.
#[derive(Clone, Debug)]
pub struct GrpcParticipant<T = ChannelTransport> {
    partner: PartnerName,
    transport: T,
    timeouts: Timeouts,
    runtime: SharedRuntime,
}

impl GrpcParticipant {
    /// The partner at the other end of the channel.
    pub fn new(partner: PartnerName, channel: Channel, timeouts: Timeouts, runtime: SharedRuntime) -> Self {
        Self::over(partner, ChannelTransport::new(channel), timeouts, runtime)
    }
}

impl<T: Transport> GrpcParticipant<T> {
    /// The partner at the other end of a transport.
    pub fn over(partner: PartnerName, transport: T, timeouts: Timeouts, runtime: SharedRuntime) -> Self {
        Self {
            partner,
            transport,
            timeouts,
            runtime,
        }
    }

    fn timeout(&self, call: &Call) -> Duration {
        match call.command {
            // A vote that comes after decide_by is of no use.
            Command::Prepare => {
                let left_ms = (call.terms.decide_by_ms - call.now_ms).max(1) as u64;
                self.timeouts.command.min(Duration::from_millis(left_ms))
            }
            Command::Commit | Command::Abort => self.timeouts.command,
            Command::Inquire => self.timeouts.inquiry,
        }
    }
}

impl<T: Transport> Participant for GrpcParticipant<T> {
    fn call(&self, call: Call) -> Answering {
        let this = self.clone();
        // Encoded before the call is made: of ten thousand calls that wait, each keeps bytes and not a message.
        let (path, message) = request(&call);
        Box::pin(async move {
            let timeout = this.timeout(&call);
            let answered = this.transport.unary(path, message, timeout);
            match runtime::timeout(&*this.runtime, timeout, answered).await {
                Some(Ok(branch)) => read_branch(&this.partner, &call, branch),
                Some(Err(status)) => read_status(&status),
                None => Answer::Unknown {
                    cause: format!("no answer within {} ms", timeout.as_millis()).into(),
                },
            }
        })
    }
}

/// The method and the encoded request of a command.
fn request(call: &Call) -> (&'static str, Bytes) {
    let branch = &call.terms.branches[call.branch.index()];
    let (payment, name) = (call.terms.id.to_string(), branch.id.name().to_owned());
    let (path, message) = match call.command {
        Command::Prepare => {
            let request = PrepareRequest {
                payment,
                branch: name,
                direction: match branch.direction {
                    payment::Direction::Debit => Direction::Debit,
                    payment::Direction::Credit => Direction::Credit,
                }
                .into(),
                account: branch.party.account.to_string(),
                amount: Some(Money {
                    currency: branch.amount.currency().code().into(),
                    amount: branch.amount.decimal_string(),
                }),
                decide_by_time: Some(wire::timestamp(call.terms.decide_by_ms)),
                hold_expire_time: Some(wire::timestamp(call.terms.hold_expire_ms)),
                end_to_end_id: call.terms.order.request_id.to_string(),
            };
            (
                "/causeway.participant.v1.ParticipantService/Prepare",
                request.encode_to_vec(),
            )
        }
        Command::Commit => {
            let request = CommitRequest { payment, branch: name };
            (
                "/causeway.participant.v1.ParticipantService/Commit",
                request.encode_to_vec(),
            )
        }
        Command::Abort => {
            let request = AbortRequest { payment, branch: name };
            (
                "/causeway.participant.v1.ParticipantService/Abort",
                request.encode_to_vec(),
            )
        }
        Command::Inquire => {
            let request = GetBranchRequest { payment, branch: name };
            (
                "/causeway.participant.v1.ParticipantService/GetBranch",
                request.encode_to_vec(),
            )
        }
    };
    (path, message.into())
}

/// Encoded requests out, branches in. All four methods answer with a branch.
#[derive(Clone, Copy, Debug, Default)]
struct BranchCodec;

impl Codec for BranchCodec {
    type Encode = Bytes;
    type Decode = Branch;
    type Encoder = Self;
    type Decoder = ProstDecoder<Branch>;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> ProstDecoder<Branch> {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for BranchCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Requests are a few hundred bytes; the usual buffer is for 8 KiB.
        BufferSettings::new(REQUEST_BYTES_USUAL, MESSAGE_BYTES_MAX)
    }
}

/// What an answer is worth.
pub fn read_branch(partner: &PartnerName, call: &Call, branch: Branch) -> Answer {
    let (payment, name) = (call.terms.id.to_string(), call.branch.name());
    if branch.payment != payment || branch.branch != name {
        let found = clean(&format!("{}/{}", branch.payment, branch.branch));
        tracing::warn!(%partner, payment, branch = name, found, "a partner answered for another branch");
        return Answer::Unknown {
            cause: format!("answered for another branch: {found}").into(),
        };
    }
    let reference = reference(partner, &payment, &branch.reference);
    match branch.state() {
        State::Prepared => Answer::Prepared { reference },
        State::Committed => Answer::Committed { reference },
        State::Aborted => Answer::Aborted,
        State::Refused => {
            let refusal = branch.refusal.unwrap_or_default();
            let code = match refusal.code.as_str() {
                code if code.len() == 4 && code.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) => code,
                _ => CODE_UNSPECIFIED,
            };
            Answer::Refused(Outcome {
                reason: Reason::from_refusal_code(code),
                code: code.into(),
                detail: clean(&refusal.detail),
                partner: Some(partner.clone()),
            })
        }
        State::Unspecified => Answer::Unknown {
            cause: format!("answered with state {}", branch.state).into(),
        },
    }
}

/// A gRPC error says nothing of the branch, but for the one that says there is none.
pub fn read_status(status: &Status) -> Answer {
    let cause: Arc<str> = format!("{:?}: {}", status.code(), clean(status.message())).into();
    match status.code() {
        Code::NotFound => match status.get_details_error_info() {
            Some(info) if info.reason == "BRANCH_UNKNOWN" && info.domain == wire::ERROR_DOMAIN => Answer::Missing,
            _ => Answer::Unknown { cause },
        },
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Answer::Rejected { cause },
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Answer::Unknown { cause },
    }
}

/// A reference that breaks the rules is left out; the vote or the movement that it came with still counts.
fn reference(partner: &PartnerName, payment: &str, text: &str) -> Arc<str> {
    if text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic()) {
        return text.into();
    }
    tracing::warn!(%partner, payment, "a partner's reference is not 0 to 64 visible ASCII characters; left out");
    "".into()
}

fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(DETAIL_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests;
