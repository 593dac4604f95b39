//! A partner network over gRPC.

use std::{future::Future, sync::Arc, time::Duration};

use prost::{Message, bytes::Bytes};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use super::{
    Answering, Call, Participant,
    channel::ChannelTransport,
    conduct::{Conduct, Finding, Misbehaviour, clean},
};
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
    telemetry::Telemetry,
    wire,
};

/// ISO 20022 MS03: reason not specified.
const CODE_UNSPECIFIED: &str = "MS03";
/// Characters of a reference.
const REFERENCE_CHARS_MAX: usize = 64;

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
    /// The participant's status, which has no source; or the transport's own, whose source says what happened.
    fn unary(
        &self,
        path: &'static str,
        message: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Branch, Status>> + Send;
}

/// A partner network over gRPC, one unary call a command.
#[derive(Clone, Debug)]
pub struct GrpcParticipant<T = ChannelTransport> {
    partner: PartnerName,
    transport: T,
    timeouts: Timeouts,
    runtime: SharedRuntime,
    conduct: Arc<Conduct>,
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
        let conduct = Conduct::new(partner.clone(), &Telemetry::default(), Arc::clone(&runtime));
        Self {
            partner,
            transport,
            timeouts,
            runtime,
            conduct: Arc::new(conduct),
        }
    }

    /// The same, counting among these metrics; otherwise nobody sees its counts.
    pub fn counting(mut self, telemetry: &Telemetry) -> Self {
        let conduct = Conduct::new(self.partner.clone(), telemetry, Arc::clone(&self.runtime));
        self.conduct = Arc::new(conduct);
        self
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
            let reading = match runtime::timeout(&*this.runtime, timeout, answered).await {
                Some(Ok(branch)) => read_branch(&this.partner, &call, branch),
                Some(Err(status)) => read_status(&call, &status),
                None => Reading::nothing(
                    Misbehaviour::NoAnswer,
                    format!("no answer within {} ms", timeout.as_millis()),
                ),
            };
            this.conduct.answered(&call, &reading.answer, reading.finding.as_ref());
            reading.answer
        })
    }

    fn contradicted(&self, reason: Reason) {
        self.conduct.contradicted(reason);
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

/// What an answer is worth, and what there is to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) answer: Answer,
    finding: Option<Finding>,
}

impl Reading {
    fn good(answer: Answer) -> Self {
        Self { answer, finding: None }
    }

    /// It is worth nothing.
    fn nothing(kind: Misbehaviour, cause: String) -> Self {
        Self {
            finding: Some(Finding::misbehaviour(kind, &cause)),
            answer: Answer::Unknown { cause: cause.into() },
        }
    }

    /// It is worth something, but for a part of it; what was said before weighs more.
    fn but(mut self, kind: Misbehaviour, text: &str) -> Self {
        self.finding.get_or_insert_with(|| Finding::misbehaviour(kind, text));
        self
    }
}

/// What an answer is worth.
pub(crate) fn read_branch(partner: &PartnerName, call: &Call, branch: Branch) -> Reading {
    let (payment, name) = (call.terms.id.to_string(), call.branch.name());
    if branch.payment != payment || branch.branch != name {
        let kind = match branch.payment == payment {
            true => Misbehaviour::OtherBranch,
            false => Misbehaviour::OtherPayment,
        };
        let found = clean(&format!("{}/{}", branch.payment, branch.branch));
        return Reading::nothing(kind, format!("answered for another branch: {found}"));
    }
    match branch.state() {
        State::Prepared => {
            let reading = with_reference(branch.reference, |reference| Answer::Prepared { reference });
            match call.command {
                Command::Prepare | Command::Inquire => reading,
                Command::Commit | Command::Abort => Reading {
                    finding: Some(Finding::misbehaviour(Misbehaviour::NotDone, "answered PREPARED")),
                    ..reading
                },
            }
        }
        State::Committed => with_reference(branch.reference, |reference| Answer::Committed { reference }),
        State::Aborted => Reading::good(Answer::Aborted),
        State::Refused => {
            let refusal = branch.refusal.unwrap_or_default();
            let given = refusal.code.as_str();
            let is_code = given.len() == 4 && given.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
            let code = if is_code { given } else { CODE_UNSPECIFIED };
            let reading = Reading::good(Answer::Refused(Outcome {
                reason: Reason::from_refusal_code(code),
                code: code.into(),
                detail: clean(&refusal.detail),
                partner: Some(partner.clone()),
            }));
            match is_code {
                true => reading,
                false => reading.but(Misbehaviour::BadRefusalCode, &format!("{given:?} is taken as {code}")),
            }
        }
        State::Unspecified => Reading::nothing(Misbehaviour::NoState, format!("answered with state {}", branch.state)),
    }
}

/// A gRPC error says nothing of the branch, but for the one that says there is none.
pub(crate) fn read_status(call: &Call, status: &Status) -> Reading {
    let cause: Arc<str> = format!("{:?}: {}", status.code(), clean(status.message())).into();
    let answer = match status.code() {
        Code::NotFound if is_branch_unknown(status) => {
            let reading = Reading::good(Answer::Missing);
            return match call.command {
                Command::Commit | Command::Inquire => reading,
                // The one makes a branch and the other a tombstone: there is no such answer to either.
                Command::Prepare | Command::Abort => reading.but(Misbehaviour::BadStatus, &cause),
            };
        }
        Code::NotFound => return Reading::nothing(Misbehaviour::BadStatus, cause.to_string()),
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
    };
    Reading {
        answer,
        finding: Finding::of_transport(status),
    }
}

fn is_branch_unknown(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.reason == "BRANCH_UNKNOWN" && info.domain == wire::ERROR_DOMAIN)
}

/// A reference that breaks the rules is left out; the vote or the movement that it came with still counts.
fn with_reference(text: String, answer: impl FnOnce(Arc<str>) -> Answer) -> Reading {
    if text.len() <= REFERENCE_CHARS_MAX && text.chars().all(|c| c.is_ascii_graphic()) {
        return Reading::good(answer(text.into()));
    }
    Reading::good(answer("".into())).but(Misbehaviour::BadReference, &text)
}

#[cfg(test)]
mod tests;
