//! Everything there is, in its smallest form: what is stored, what each gateway has in memory, where each participant's
//! branch stands, and what is on its way.
//!
//! Two worlds that are equal here behave the same for ever: what is left out (attempt numbers, how often something
//! failed, instants, words) is shown by `lockstep.rs` not to matter. So there are finitely many, without a bound on
//! faults.

use causeway::coordinator::protocol::Command;

/// No payment has more branches: debit, credit, liquidity.
pub const BRANCHES_MAX: usize = 3;
/// How many gateways there are, on one store. Each may drive the payment.
pub const GATEWAYS: usize = 2;
/// No history is longer: begun, decided, ended; or begun, decided, and a dispute for each thing learned after it.
pub const RECORDS_MAX: usize = 6;

/// The world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct World {
    /// The durable records.
    pub store: Records,
    /// A write of a gateway that has crashed since, which may still arrive at the store. One is enough: of all that state
    /// the same version one at most can be accepted, and any may be lost.
    pub stray_write: Records,
    /// Both gateways. They run the same code and have no identity, so they are kept in order: a world and its mirror
    /// image are one.
    pub gateways: [Gateway; GATEWAYS],
    /// Every participant, at the index of its branch.
    pub participants: [Participant; BRANCHES_MAX],
    /// Commands that were sent, of which a copy may arrive at any time, any number of times, or never. What cannot
    /// change anything any more is taken out.
    pub strays: [Strays; BRANCHES_MAX],
    /// An end was shown to somebody: shown before it is durable.
    pub end_shown: bool,
    /// What went wrong in the last step, which no state shows afterwards.
    pub wrong: Option<Wrong>,
}

/// What a step must never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A command left before what it follows from was durable.
    Early(Command),
    /// A Prepare left, or commit was decided, after the time to decide.
    Late,
    /// `decide` or `apply` stopped at an assertion of its own.
    Impossible,
    /// What the store has cannot be read back.
    Unreadable,
}

/// A list of durable records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Records {
    list: [Option<Entry>; RECORDS_MAX],
}

/// A durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    Begun,
    CommitDecided(Knowns),
    AbortDecided(Why, Knowns),
    Ended(Knowns),
    Disputed(Knowns),
}

/// What is known of each branch.
pub type Knowns = [Known; BRANCHES_MAX];

/// `protocol::Knowledge` without its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Known {
    #[default]
    Unknown,
    Prepared,
    Refused,
    Committed,
    Aborted,
    Contradicted,
}

/// Why abort was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    Refused,
    TimedOut,
    Cancelled,
    Rejected,
    RemembersAbort,
    MovedBefore,
}

/// What a gateway is doing about the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Gateway {
    /// It does not drive it: not yet, not any more, or it has crashed.
    #[default]
    Away,
    /// It waits for an answer, for time, or for a cancellation.
    Driving(Memory),
    /// It waits for the store, with a step that follows from this input.
    Writing {
        /// What it has in memory, as before the step.
        memory: Memory,
        /// What it decided about.
        input: Input,
        /// Whether that was after the time to decide, by its clock.
        late: bool,
        /// Whether the store has done it already; the gateway does not know yet.
        landed: bool,
    },
    /// It waits for the store, which has gone on without it: it will forget what it has in memory, and read.
    Outrun {
        /// What it shows until then.
        shown: Phase,
        /// What it wanted to decide, if anything; whether to commit.
        decides: Option<bool>,
    },
}

/// What a driver has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Memory {
    /// The transaction.
    pub core: Core,
    /// The calls in flight, one a branch.
    pub calls: [Call; BRANCHES_MAX],
}

/// `protocol::State` without instants, counters and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Core {
    pub phase: Phase,
    pub version: u8,
    pub known: Knowns,
    pub under_way: [UnderWay; BRANCHES_MAX],
}

/// `protocol::Phase`, and absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Phase {
    #[default]
    Absent,
    Preparing,
    Committing,
    Completed,
    Aborting,
    Aborted,
    DisputedCommit,
    DisputedAbort,
}

/// `protocol::Delivery`: how long a wait still lasts is for the search to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum UnderWay {
    #[default]
    Nothing,
    Sent(Command),
    Waiting,
}

/// A slot of the driver's: the call to one branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Call {
    #[default]
    None,
    /// Not answered.
    Open {
        /// What was sent.
        command: Command,
        /// Whether the transaction still counts it as the branch's last attempt.
        current: bool,
    },
    /// The participant acted, and answers once that is on its disk.
    Unsynced {
        command: Command,
        reply: Reply,
        current: bool,
    },
    /// The answer is on its way.
    Answered { reply: Reply, current: bool },
}

/// What goes into `decide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    Begin,
    Recover,
    Cancel,
    /// Time has passed: the wait of this branch is over, or the time to decide.
    Wake(Option<u8>),
    Answer {
        branch: u8,
        said: Said,
        current: bool,
    },
}

/// What a participant can say of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reply {
    Prepared,
    Refused,
    Committed,
    Aborted,
    Missing,
}

/// What a gateway makes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Said {
    Reply(Reply),
    Unknown,
    Rejected,
}

/// A participant's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Participant {
    /// As its disk has it.
    pub durable: Place,
    /// As its memory has it: ahead of the disk until it has synced.
    pub memory: Place,
    /// How often the money moved; counted up to two.
    pub moved: u8,
    /// It may break its word.
    pub rogue: bool,
    /// It did.
    pub broke: bool,
}

/// Where a branch stands at its participant. See `participant.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Place {
    #[default]
    Nothing,
    Holding,
    Refused,
    Moved,
    Released,
    /// It heard of an abort and of nothing before.
    Tombstone,
    /// A late Prepare has met the tombstone.
    TombstoneMet,
}

/// Which commands may still arrive at a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Strays(u8);

impl Records {
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut records = Self::default();
        for entry in entries {
            records.push(entry);
        }
        records
    }

    pub fn push(&mut self, entry: Entry) {
        let len = self.len();
        assert!(len < RECORDS_MAX, "a history without an end: {self:?} and {entry:?}");
        self.list[len] = Some(entry);
    }

    pub fn len(&self) -> usize {
        self.list.iter().take_while(|entry| entry.is_some()).count()
    }

    pub fn is_empty(&self) -> bool {
        self.list[0].is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.list.iter().map_while(|entry| *entry)
    }

    /// The store's compare-and-set. False if the version is not the expected one; then nothing changes.
    pub fn append(&mut self, expected_version: usize, entries: &Self) -> bool {
        if self.len() != expected_version {
            return false;
        }
        for entry in entries.iter() {
            self.push(entry);
        }
        true
    }

    /// Whether commit is decided here: the first decision counts.
    pub fn commits(&self) -> Option<bool> {
        self.iter().find_map(|entry| match entry {
            Entry::CommitDecided(_) => Some(true),
            Entry::AbortDecided(..) => Some(false),
            Entry::Begun | Entry::Ended(_) | Entry::Disputed(_) => None,
        })
    }

    /// How often anything was decided.
    pub fn decisions(&self) -> usize {
        let decided = |entry: &Entry| matches!(entry, Entry::CommitDecided(_) | Entry::AbortDecided(..));
        self.iter().filter(decided).count()
    }

    pub fn has_ended(&self) -> bool {
        self.iter().any(|entry| matches!(entry, Entry::Ended(_)))
    }

    pub fn is_disputed(&self) -> bool {
        self.iter().any(|entry| matches!(entry, Entry::Disputed(_)))
    }

    pub fn why(&self) -> Option<Why> {
        self.iter().find_map(|entry| match entry {
            Entry::AbortDecided(why, _) => Some(why),
            Entry::Begun | Entry::CommitDecided(_) | Entry::Ended(_) | Entry::Disputed(_) => None,
        })
    }
}

impl Strays {
    pub fn insert(&mut self, command: Command) {
        self.0 |= Self::bit(command);
    }

    pub fn remove(&mut self, command: Command) {
        self.0 &= !Self::bit(command);
    }

    pub fn has(self, command: Command) -> bool {
        self.0 & Self::bit(command) != 0
    }

    /// An inquiry changes nothing, whenever it arrives, so no copy of it is kept.
    fn bit(command: Command) -> u8 {
        match command {
            Command::Prepare => 1,
            Command::Commit => 2,
            Command::Abort => 4,
            Command::Inquire => 0,
        }
    }
}

impl Phase {
    /// Whether commit is decided; `None` while nothing is.
    pub fn commits(self) -> Option<bool> {
        match self {
            Self::Absent | Self::Preparing => None,
            Self::Committing | Self::Completed | Self::DisputedCommit => Some(true),
            Self::Aborting | Self::Aborted | Self::DisputedAbort => Some(false),
        }
    }

    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Aborted)
    }
}

impl Memory {
    pub fn of(core: Core) -> Self {
        Self {
            core,
            calls: [Call::None; BRANCHES_MAX],
        }
    }
}

impl Call {
    /// The same call, of which the transaction knows that another has replaced it.
    pub fn replaced(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Open { command, .. } => Self::Open {
                command,
                current: false,
            },
            Self::Unsynced { command, reply, .. } => Self::Unsynced {
                command,
                reply,
                current: false,
            },
            Self::Answered { reply, .. } => Self::Answered { reply, current: false },
        }
    }
}

impl World {
    /// The calls of both gateways to a branch.
    pub fn calls_to(&mut self, branch: usize) -> impl Iterator<Item = &mut Call> {
        self.gateways.iter_mut().filter_map(move |gateway| match gateway {
            Gateway::Away | Gateway::Outrun { .. } => None,
            Gateway::Driving(memory) | Gateway::Writing { memory, .. } => Some(&mut memory.calls[branch]),
        })
    }

    /// Whether its gateways are the other way round than they are kept.
    pub fn is_mirrored(&self) -> bool {
        self.gateways[1] < self.gateways[0]
    }
}
