//! Ways to misbehave, and how often each still does.
//!
//! Owns which command meets which faults; carrying them out is [`super::service`]'s. Invariant: a fault with a count
//! fires exactly that often, however many commands arrive at once.

use std::{fmt, str::FromStr, sync::Mutex, time::Duration};

use super::lock;
use crate::pb::mock::v1 as pb;

/// How many faults there may be at once.
pub(super) const FAULTS_MAX: usize = 100;
/// mock_service.proto: at most ten minutes.
const LATENCY_MAX_MS: u32 = 600_000;
/// ISO 20022 MS03: reason not specified.
const REFUSAL_CODE_DEFAULT: &str = "MS03";

/// How a fault misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Wait this long, and up to the jitter more, before acting.
    Latency {
        /// At least.
        latency_ms: u32,
        /// On top, evenly spread.
        jitter_ms: u32,
    },
    /// Vote no. Meets Prepare only.
    Refuse {
        /// An ISO 20022 reason code.
        code: String,
    },
    /// Act, then answer UNAVAILABLE.
    LoseAnswer,
    /// Answer UNAVAILABLE without acting.
    LoseRequest,
    /// Act, then end the process without answering.
    CrashAfter,
    /// Act twice, answer the second time.
    AnswerTwice,
    /// Forget the branch and its hold, then act.
    ForgetHold,
}

impl FaultKind {
    fn as_str(&self) -> &'static str {
        match self {
            FaultKind::Latency { .. } => "latency",
            FaultKind::Refuse { .. } => "refuse",
            FaultKind::LoseAnswer => "lose-answer",
            FaultKind::LoseRequest => "lose-request",
            FaultKind::CrashAfter => "crash-after",
            FaultKind::AnswerTwice => "answer-twice",
            FaultKind::ForgetHold => "forget-hold",
        }
    }
}

/// The commands of ParticipantService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCommand {
    /// Prepare.
    Prepare,
    /// Commit.
    Commit,
    /// Abort.
    Abort,
    /// GetBranch.
    GetBranch,
}

impl FaultCommand {
    const ALL: [FaultCommand; 4] = [
        FaultCommand::Prepare,
        FaultCommand::Commit,
        FaultCommand::Abort,
        FaultCommand::GetBranch,
    ];

    fn as_str(self) -> &'static str {
        match self {
            FaultCommand::Prepare => "prepare",
            FaultCommand::Commit => "commit",
            FaultCommand::Abort => "abort",
            FaultCommand::GetBranch => "get-branch",
        }
    }
}

/// One way to misbehave: "lose-answer:prepare:3".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSpec {
    /// How.
    pub kind: FaultKind,
    /// Which command it meets; `None` is any.
    pub command: Option<FaultCommand>,
    /// How many commands it meets before it ends by itself; 0 means all.
    pub count: u32,
}

/// Why a text or message is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct FaultError {
    /// The field to blame, as mock_service.proto names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

fn wrong(field: &'static str, detail: impl Into<String>) -> FaultError {
    FaultError {
        field,
        detail: detail.into(),
    }
}

impl FaultSpec {
    /// Parses `KIND[:COMMAND[:COUNT]]`, for latency `latency:COMMAND:COUNT:MS[:JITTER_MS]`, for a refusal
    /// `refuse[:COMMAND[:COUNT[:CODE]]]`. COMMAND is `any`, `prepare`, `commit`, `abort` or `get-branch`; COUNT 0, or
    /// none, is for ever.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<FaultSpec, FaultError> {
        let mut parts = text.split(':');
        let kind = parts.next().unwrap_or_default();
        let command = match parts.next() {
            None | Some("any") => None,
            Some(word) => Some(
                FaultCommand::ALL
                    .into_iter()
                    .find(|command| command.as_str() == word)
                    .ok_or_else(|| {
                        wrong(
                            "command",
                            format!("{word:?} is none of any, prepare, commit, abort, get-branch"),
                        )
                    })?,
            ),
        };
        let number = |field, part: Option<&str>| match part {
            None => Ok(None),
            Some(part) => part
                .parse()
                .map(Some)
                .map_err(|_| wrong(field, format!("{part:?} is no number"))),
        };
        let count = number("count", parts.next())?.unwrap_or(0);
        let kind = match kind {
            "latency" => FaultKind::Latency {
                latency_ms: number("latency_ms", parts.next())?
                    .ok_or_else(|| wrong("latency_ms", "missing: latency:COMMAND:COUNT:MS[:JITTER_MS]"))?,
                jitter_ms: number("jitter_ms", parts.next())?.unwrap_or(0),
            },
            "refuse" => FaultKind::Refuse {
                code: parts.next().unwrap_or(REFUSAL_CODE_DEFAULT).to_owned(),
            },
            "lose-answer" => FaultKind::LoseAnswer,
            "lose-request" => FaultKind::LoseRequest,
            "crash-after" => FaultKind::CrashAfter,
            "answer-twice" => FaultKind::AnswerTwice,
            "forget-hold" => FaultKind::ForgetHold,
            _ => {
                let kinds = "latency, refuse, lose-answer, lose-request, crash-after, answer-twice, forget-hold";
                return Err(wrong("kind", format!("{kind:?} is none of {kinds}")));
            }
        };
        if let Some(rest) = parts.next() {
            return Err(wrong("kind", format!("{rest:?} is too much")));
        }
        FaultSpec { kind, command, count }.checked()
    }

    fn checked(self) -> Result<FaultSpec, FaultError> {
        match &self.kind {
            FaultKind::Latency { latency_ms, .. } if *latency_ms > LATENCY_MAX_MS => {
                Err(wrong("latency_ms", format!("{latency_ms} is above {LATENCY_MAX_MS}")))
            }
            FaultKind::Latency { jitter_ms, .. } if *jitter_ms > LATENCY_MAX_MS => {
                Err(wrong("jitter_ms", format!("{jitter_ms} is above {LATENCY_MAX_MS}")))
            }
            // ISO 20022 ExternalStatusReason1Code: one to four characters.
            FaultKind::Refuse { code }
                if !(1..=4).contains(&code.len()) || !code.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                Err(wrong(
                    "refusal_code",
                    format!("{code:?} is not one to four letters and digits"),
                ))
            }
            FaultKind::Refuse { .. } if !matches!(self.command, None | Some(FaultCommand::Prepare)) => {
                Err(wrong("command", "only a Prepare can be refused"))
            }
            _ => Ok(self),
        }
    }

    fn applies_to(&self, command: FaultCommand) -> bool {
        let only_prepare = matches!(self.kind, FaultKind::Refuse { .. });
        self.command.is_none_or(|of| of == command) && (!only_prepare || command == FaultCommand::Prepare)
    }
}

impl FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<FaultSpec, FaultError> {
        FaultSpec::parse(text)
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.command.map_or("any", FaultCommand::as_str);
        write!(f, "{}:{command}:{}", self.kind.as_str(), self.count)?;
        match &self.kind {
            FaultKind::Latency { latency_ms, jitter_ms } => write!(f, ":{latency_ms}:{jitter_ms}"),
            FaultKind::Refuse { code } => write!(f, ":{code}"),
            _ => Ok(()),
        }
    }
}

impl TryFrom<pb::Fault> for FaultSpec {
    type Error = FaultError;

    fn try_from(fault: pb::Fault) -> Result<FaultSpec, FaultError> {
        use pb::fault::{Command, Kind};
        let number = |field, value: i32| u32::try_from(value).map_err(|_| wrong(field, "is negative"));
        let kind = match Kind::try_from(fault.kind) {
            Ok(Kind::Latency) => FaultKind::Latency {
                latency_ms: number("latency_ms", fault.latency_ms)?,
                jitter_ms: number("jitter_ms", fault.jitter_ms)?,
            },
            Ok(Kind::Refuse) if fault.refusal_code.is_empty() => FaultKind::Refuse {
                code: REFUSAL_CODE_DEFAULT.to_owned(),
            },
            Ok(Kind::Refuse) => FaultKind::Refuse {
                code: fault.refusal_code,
            },
            Ok(Kind::LoseAnswer) => FaultKind::LoseAnswer,
            Ok(Kind::LoseRequest) => FaultKind::LoseRequest,
            Ok(Kind::CrashAfter) => FaultKind::CrashAfter,
            Ok(Kind::AnswerTwice) => FaultKind::AnswerTwice,
            Ok(Kind::ForgetHold) => FaultKind::ForgetHold,
            Ok(Kind::Unspecified) | Err(_) => return Err(wrong("kind", "is none of the kinds")),
        };
        let command = match Command::try_from(fault.command) {
            Ok(Command::Unspecified) => None,
            Ok(Command::Prepare) => Some(FaultCommand::Prepare),
            Ok(Command::Commit) => Some(FaultCommand::Commit),
            Ok(Command::Abort) => Some(FaultCommand::Abort),
            Ok(Command::GetBranch) => Some(FaultCommand::GetBranch),
            Err(_) => return Err(wrong("command", "is none of the commands")),
        };
        FaultSpec {
            kind,
            command,
            count: number("count", fault.count)?,
        }
        .checked()
    }
}

/// What befalls one command: the sum of all faults that it met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub latency: Duration,
    pub refusal_code: Option<String>,
    pub forget: bool,
    pub lose_request: bool,
    pub twice: bool,
    pub crash: bool,
    pub lose_answer: bool,
}

/// The faults as they stand.
#[derive(Debug, Default)]
pub(super) struct Faults {
    active: Mutex<Vec<Active>>,
}

#[derive(Debug)]
struct Active {
    spec: FaultSpec,
    fired: u32,
}

impl Faults {
    pub(super) fn new(specs: Vec<FaultSpec>) -> Faults {
        let faults = Faults::default();
        faults.replace(specs);
        faults
    }

    /// Ends all faults and begins these, none of which has fired.
    pub(super) fn replace(&self, specs: Vec<FaultSpec>) {
        *lock(&self.active) = specs.into_iter().map(|spec| Active { spec, fired: 0 }).collect();
    }

    /// Fires every fault that a command meets. `random` draws the jitter: a number from 0 to its argument.
    pub(super) fn meet(&self, command: FaultCommand, random: impl Fn(u32) -> u32) -> Plan {
        let mut plan = Plan::default();
        for active in lock(&self.active).iter_mut() {
            let exhausted = active.spec.count != 0 && active.fired >= active.spec.count;
            if exhausted || !active.spec.applies_to(command) {
                continue;
            }
            active.fired = active.fired.saturating_add(1);
            match &active.spec.kind {
                FaultKind::Latency { latency_ms, jitter_ms } => {
                    let ms = u64::from(*latency_ms) + u64::from(random(*jitter_ms));
                    plan.latency += Duration::from_millis(ms);
                }
                // The first refusal is the answer; further ones have nothing left to refuse.
                FaultKind::Refuse { code } => plan.refusal_code = plan.refusal_code.or_else(|| Some(code.clone())),
                FaultKind::LoseAnswer => plan.lose_answer = true,
                FaultKind::LoseRequest => plan.lose_request = true,
                FaultKind::CrashAfter => plan.crash = true,
                FaultKind::AnswerTwice => plan.twice = true,
                FaultKind::ForgetHold => plan.forget = true,
            }
        }
        plan
    }

    pub(super) fn list(&self) -> Vec<pb::Fault> {
        lock(&self.active)
            .iter()
            .map(|active| to_wire(&active.spec, active.fired))
            .collect()
    }
}

fn to_wire(spec: &FaultSpec, fired: u32) -> pb::Fault {
    use pb::fault::{Command, Kind};
    // Numbers came from an i32 or are bounded; a count given as a flag may be above, and means "very often" then.
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let (latency_ms, jitter_ms) = match spec.kind {
        FaultKind::Latency { latency_ms, jitter_ms } => (number(latency_ms), number(jitter_ms)),
        _ => (0, 0),
    };
    let kind = match spec.kind {
        FaultKind::Latency { .. } => Kind::Latency,
        FaultKind::Refuse { .. } => Kind::Refuse,
        FaultKind::LoseAnswer => Kind::LoseAnswer,
        FaultKind::LoseRequest => Kind::LoseRequest,
        FaultKind::CrashAfter => Kind::CrashAfter,
        FaultKind::AnswerTwice => Kind::AnswerTwice,
        FaultKind::ForgetHold => Kind::ForgetHold,
    };
    let command = match spec.command {
        None => Command::Unspecified,
        Some(FaultCommand::Prepare) => Command::Prepare,
        Some(FaultCommand::Commit) => Command::Commit,
        Some(FaultCommand::Abort) => Command::Abort,
        Some(FaultCommand::GetBranch) => Command::GetBranch,
    };
    let refusal_code = match &spec.kind {
        FaultKind::Refuse { code } => code.clone(),
        _ => String::new(),
    };
    pb::Fault {
        kind: kind.into(),
        command: command.into(),
        count: number(spec.count),
        latency_ms,
        jitter_ms,
        refusal_code,
        fired_count: i64::from(fired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_parse_and_print_back() {
        for (text, printed) in [
            ("lose-answer:prepare:3", "lose-answer:prepare:3"),
            ("latency:any:0:200:50", "latency:any:0:200:50"),
            ("latency:commit:1:200", "latency:commit:1:200:0"),
            ("refuse:prepare:1:AM04", "refuse:prepare:1:AM04"),
            ("refuse", "refuse:any:0:MS03"),
            ("crash-after:prepare:1", "crash-after:prepare:1"),
            ("lose-request", "lose-request:any:0"),
            ("answer-twice:commit", "answer-twice:commit:0"),
            ("forget-hold:get-branch:2", "forget-hold:get-branch:2"),
        ] {
            let spec = FaultSpec::parse(text).unwrap();
            assert_eq!(spec.to_string(), printed);
            assert_eq!(printed.parse(), Ok(spec.clone()));
            assert_eq!(FaultSpec::try_from(to_wire(&spec, 0)), Ok(spec));
        }
    }

    #[test]
    fn flags_that_mean_nothing_are_refused() {
        for (text, field) in [
            ("", "kind"),
            ("explode", "kind"),
            ("lose-answer:prepare:1:2", "kind"),
            ("lose-answer:pay", "command"),
            ("refuse:commit", "command"),
            ("lose-answer:any:x", "count"),
            ("lose-answer:any:-1", "count"),
            ("latency:any:0", "latency_ms"),
            ("latency:any:0:600001", "latency_ms"),
            ("latency:any:0:1:600001", "jitter_ms"),
            ("refuse:any:0:", "refusal_code"),
            ("refuse:any:0:NO_GOOD", "refusal_code"),
        ] {
            assert_eq!(FaultSpec::parse(text).expect_err(text).field, field, "{text}");
        }
        for (fault, field) in [
            (pb::Fault::default(), "kind"),
            (
                pb::Fault {
                    kind: 99,
                    ..Default::default()
                },
                "kind",
            ),
            (
                pb::Fault {
                    kind: 3,
                    command: 9,
                    ..Default::default()
                },
                "command",
            ),
            (
                pb::Fault {
                    kind: 3,
                    count: -1,
                    ..Default::default()
                },
                "count",
            ),
            (
                pb::Fault {
                    kind: 1,
                    latency_ms: -1,
                    ..Default::default()
                },
                "latency_ms",
            ),
        ] {
            assert_eq!(FaultSpec::try_from(fault).unwrap_err().field, field);
        }
    }

    #[test]
    fn a_command_meets_every_fault_that_applies_as_often_as_it_counts() {
        let specs = [
            "latency:any:0:100:50",
            "latency:prepare:1:7",
            "refuse:any:1:AC04",
            "refuse:any:0:AM04",
            "lose-answer:commit:2",
        ];
        let faults = Faults::new(specs.map(|text| text.parse().unwrap()).to_vec());
        let meet = |command| faults.meet(command, |most| most);
        let latency = |ms| Duration::from_millis(ms);
        let commit = meet(FaultCommand::Commit);
        assert_eq!(
            commit,
            Plan {
                latency: latency(150),
                lose_answer: true,
                ..Plan::default()
            }
        );
        let prepare = meet(FaultCommand::Prepare);
        assert_eq!(
            prepare,
            Plan {
                latency: latency(157),
                refusal_code: Some("AC04".to_owned()),
                ..Plan::default()
            }
        );
        let prepare = meet(FaultCommand::Prepare);
        assert_eq!(
            prepare,
            Plan {
                latency: latency(150),
                refusal_code: Some("AM04".to_owned()),
                ..Plan::default()
            }
        );
        assert!(meet(FaultCommand::Commit).lose_answer);
        assert!(!meet(FaultCommand::Commit).lose_answer);
        let fired: Vec<_> = faults.list().into_iter().map(|fault| fault.fired_count).collect();
        assert_eq!(fired, [5, 1, 1, 2, 2]);
        faults.replace(Vec::new());
        assert_eq!(meet(FaultCommand::Commit), Plan::default());
    }
}
