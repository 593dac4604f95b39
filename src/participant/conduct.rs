//! How a partner behaves: counted and logged, each call once.
//!
//! Owns the kinds of misbehaviour and the series of one partner. Leaves to `grpc` and `channel` to find it out, and to
//! `telemetry` to show it. Called by `grpc` for every answer and by `coordinator` for contradicted decisions. Invariant: a
//! partner that misbehaves at every call makes every count go up and a bounded number of lines.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tonic::{Code, Status, TimeoutExpired};

use super::Call;
use crate::{
    coordinator::protocol::{Answer, Command},
    payment::{PartnerName, Reason},
    runtime::SharedRuntime,
    telemetry::{
        Counter, Limiter, PARTICIPANT_ANSWERS, PARTICIPANT_HEURISTIC_OUTCOMES, PARTICIPANT_MISBEHAVIOUR,
        PARTICIPANT_UNREACHABLE, Telemetry,
    },
};

/// How much of what a partner wrote goes into an outcome or a line of the log.
pub const EXCERPT_CHARS_MAX: usize = 200;
/// One line a partner and kind in this time; the next one says how many were left out.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

const COMMANDS: [Command; 4] = [Command::Prepare, Command::Commit, Command::Abort, Command::Inquire];
const ANSWERS: [&str; 7] = [
    "prepared",
    "refused",
    "committed",
    "aborted",
    "missing",
    "unknown",
    "rejected",
];
const OUTCOMES: [(Reason, &str); 2] = [(Reason::HeuristicCommit, "commit"), (Reason::HeuristicAbort, "abort")];

/// What an answer can do that the participant's contract (docs/partners.md) does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// The call was taken and not answered in its time.
    NoAnswer,
    /// The answer's stream was reset, or ended without a status.
    CutShort,
    /// What came is not gRPC over HTTP/2.
    NotGrpc,
    /// The bytes are no branch.
    Undecodable,
    /// The answer is larger than any branch.
    TooLarge,
    /// Something came after the one answer.
    SecondAnswer,
    /// The answer is about another payment.
    OtherPayment,
    /// The answer is about the payment's other branch, or one that it has not.
    OtherBranch,
    /// The branch has no state, or one that there is not.
    NoState,
    /// A Commit or Abort was answered with PREPARED.
    NotDone,
    /// A NOT_FOUND that does not name its reason, or that this command cannot have.
    BadStatus,
    /// The reference is not 0 to 64 visible ASCII characters.
    BadReference,
    /// The refusal's code is not four characters of A-Z and 0-9.
    BadRefusalCode,
}

impl Misbehaviour {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::NoAnswer,
        Self::CutShort,
        Self::NotGrpc,
        Self::Undecodable,
        Self::TooLarge,
        Self::SecondAnswer,
        Self::OtherPayment,
        Self::OtherBranch,
        Self::NoState,
        Self::NotDone,
        Self::BadStatus,
        Self::BadReference,
        Self::BadRefusalCode,
    ];

    /// As logs and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::CutShort => "cut_short",
            Self::NotGrpc => "not_grpc",
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
            Self::SecondAnswer => "second_answer",
            Self::OtherPayment => "other_payment",
            Self::OtherBranch => "other_branch",
            Self::NoState => "no_state",
            Self::NotDone => "not_done",
            Self::BadStatus => "bad_status",
            Self::BadReference => "bad_reference",
            Self::BadRefusalCode => "bad_refusal_code",
        }
    }
}

/// What was found out about a call, beside what its answer is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub fault: Fault,
    /// What was seen: of what the partner sent, clean and bounded.
    pub excerpt: String,
}

/// Whose fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The participant's.
    Misbehaviour(Misbehaviour),
    /// Nobody's that can be told: there was no connection, or it was lost.
    Unreachable,
}

impl Finding {
    /// A misbehaviour. The excerpt is cleaned here.
    pub fn misbehaviour(kind: Misbehaviour, excerpt: &str) -> Self {
        Self {
            fault: Fault::Misbehaviour(kind),
            excerpt: clean(excerpt),
        }
    }

    /// What a status that the transport made tells of the call: what `channel` found, what HTTP/2 did, what became of the
    /// connection. `None` if the status is the participant's own word.
    pub fn of_transport(status: &Status) -> Option<Self> {
        let fault = chain(status).find_map(|error| {
            if let Some(broken) = error.downcast_ref::<Broken>() {
                Some(Fault::Misbehaviour(broken.0))
            } else if error.is::<TimeoutExpired>() {
                Some(Fault::Misbehaviour(Misbehaviour::NoAnswer))
            } else {
                error.downcast_ref().map(fault_of_http2)
            }
        });
        let is_transport = status.source().is_some();
        // Whatever else tonic, hyper and the system have to say is about the connection.
        let fault = fault.or(is_transport.then_some(Fault::Unreachable))?;
        let told: Vec<_> = chain(status).map(ToString::to_string).collect();
        let mut excerpt = status.message().to_owned();
        for part in told.iter().filter(|part| !part.is_empty()) {
            if !excerpt.contains(part.as_str()) {
                excerpt = format!("{excerpt}: {part}");
            }
        }
        Some(Self {
            fault,
            excerpt: clean(&excerpt),
        })
    }
}

/// The status's source, that one's source, and so on.
fn chain<'a>(status: &'a Status) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(status.source(), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

fn fault_of_http2(error: &h2::Error) -> Fault {
    if error.is_reset() && error.is_remote() {
        return match error.reason() {
            // RFC 9113 8.7: not processed, safe to send again. That is how a server sheds load.
            Some(h2::Reason::REFUSED_STREAM) => Fault::Unreachable,
            _ => Fault::Misbehaviour(Misbehaviour::CutShort),
        };
    }
    match error.is_library() {
        // Our side ended it, for what came was against the rules.
        true => Fault::Misbehaviour(Misbehaviour::NotGrpc),
        false => Fault::Unreachable,
    }
}

/// Carried by a status that is not the participant's word but what this side makes of what it sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.name())]
pub struct Broken(Misbehaviour);

impl Broken {
    /// The status of a call whose answer is not one.
    pub fn status(code: Code, kind: Misbehaviour, message: impl Into<String>) -> Status {
        let mut status = Status::new(code, message);
        status.set_source(std::sync::Arc::new(Self(kind)));
        status
    }
}

/// One partner's series and lines.
#[derive(Debug)]
pub struct Conduct {
    partner: PartnerName,
    runtime: SharedRuntime,
    /// By command, then by answer.
    answers: Vec<Counter>,
    misbehaviour: Vec<Series>,
    unreachable: Series,
    outcomes: Vec<Counter>,
}

/// A count and the lines that go with it.
#[derive(Debug)]
struct Series {
    counter: Counter,
    limiter: Mutex<Limiter>,
}

impl Series {
    fn new(counter: Counter) -> Self {
        Self {
            counter,
            limiter: Mutex::new(Limiter::new(LINE_INTERVAL)),
        }
    }

    /// Counts it. If it is to be logged: how many were left out since the last line.
    fn count(&self, now: Duration) -> Option<u64> {
        self.counter.count();
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).pass(now)
    }
}

impl Conduct {
    /// Nothing is known of the partner yet.
    pub fn new(partner: PartnerName, telemetry: &Telemetry, runtime: SharedRuntime) -> Self {
        let name = partner.as_str();
        let answers = COMMANDS
            .iter()
            .flat_map(|command| ANSWERS.iter().map(move |answer| (command_name(*command), *answer)))
            .map(|(command, answer)| telemetry.counter(&PARTICIPANT_ANSWERS, &[name, command, answer]))
            .collect();
        let misbehaviour = Misbehaviour::ALL
            .iter()
            .map(|kind| Series::new(telemetry.counter(&PARTICIPANT_MISBEHAVIOUR, &[name, kind.name()])))
            .collect();
        let outcomes = OUTCOMES
            .iter()
            .map(|(_, outcome)| telemetry.counter(&PARTICIPANT_HEURISTIC_OUTCOMES, &[name, outcome]))
            .collect();
        Self {
            answers,
            misbehaviour,
            unreachable: Series::new(telemetry.counter(&PARTICIPANT_UNREACHABLE, &[name])),
            outcomes,
            partner,
            runtime,
        }
    }

    /// A call has ended with this answer, and perhaps with something to tell about it.
    pub fn answered(&self, call: &Call, answer: &Answer, finding: Option<&Finding>) {
        let command = COMMANDS.iter().position(|command| *command == call.command);
        let command = command.expect("every command is listed");
        self.answers[command * ANSWERS.len() + answer_index(answer)].count();
        let Some(Finding { fault, excerpt }) = finding else {
            return;
        };
        let (series, kind) = match fault {
            Fault::Misbehaviour(kind) => (&self.misbehaviour[*kind as usize], kind.name()),
            Fault::Unreachable => (&self.unreachable, "unreachable"),
        };
        let Some(left_out) = series.count(self.runtime.monotonic()) else {
            return;
        };
        let (partner, payment) = (&self.partner, call.terms.id);
        let (branch, command) = (call.branch.name(), command_name(call.command));
        match fault {
            Fault::Misbehaviour(_) => {
                tracing::warn!(%partner, %payment, branch, command, kind, excerpt, left_out, "a partner misbehaved");
            }
            Fault::Unreachable => {
                tracing::warn!(%partner, %payment, branch, command, kind, excerpt, left_out, "a partner was not reached");
            }
        }
    }

    /// The partner has acted against a decision. Whoever found out logs it: it is an error, and one line each.
    pub fn contradicted(&self, reason: Reason) {
        if let Some(index) = OUTCOMES.iter().position(|(known, _)| *known == reason) {
            self.outcomes[index].count();
        }
    }
}

fn command_name(command: Command) -> &'static str {
    match command {
        Command::Prepare => "prepare",
        Command::Commit => "commit",
        Command::Abort => "abort",
        Command::Inquire => "get_branch",
    }
}

/// The answer's place in [`ANSWERS`].
fn answer_index(answer: &Answer) -> usize {
    match answer {
        Answer::Prepared { .. } => 0,
        Answer::Refused(_) => 1,
        Answer::Committed { .. } => 2,
        Answer::Aborted => 3,
        Answer::Missing => 4,
        Answer::Unknown { .. } => 5,
        Answer::Rejected { .. } => 6,
    }
}

/// Of a text that a partner wrote: no control characters, and not too much.
pub fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(EXCERPT_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests;
