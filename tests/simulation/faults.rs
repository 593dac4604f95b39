//! The kinds of fault, how often each fired, and how often it is to fire in one world.

use crate::random::Random;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    RequestLost = "request lost";
    ResponseLost = "response lost";
    Duplicated = "message duplicated";
    Delayed = "message delayed by seconds";
    Reordered = "message overtaken by a later one";
    ConnectionCut = "connection cut";
    PartitionedOneWay = "partition, one way";
    PartitionedBothWays = "partition, both ways";
    GatewayKilled = "gateway killed";
    GatewayStopped = "gateway drained and stopped";
    GatewayPaused = "gateway paused";
    WalletKilled = "wallet network killed";
    WalletLostUnsynced = "wallet network lost what it had not synced";
    WalletPaused = "wallet network paused";
    StoreKilled = "store killed";
    BatchLost = "unsynced batch lost";
    BatchSurvived = "unsynced batch survived";
    WriteFailed = "write failed";
    FsyncFailed = "fsync failed";
    DiskFull = "disk full";
    DiskSlow = "disk slow";
    ClockDrifted = "clock drifted";
    ClockForward = "clock jumped forward";
    ClockBack = "clock jumped back";
    CallerRetried = "caller retried";
    CallerAltered = "caller retried with another body";
    CallerDoubled = "caller sent twice at once";
    CallerGaveUp = "caller went away in mid-call";
    CallerCancelled = "caller cancelled";
    CallerNextDay = "caller came back after a day";
    CallerLateQuote = "caller used a lapsed quote";
    CallerForeign = "caller asked for another's payment";
    WalletLate = "vote or answer after the time-out";
    WalletSilent = "wallet network silent";
    WalletGarbage = "answer that is no branch";
    WalletOtherBranch = "answer for another branch";
    WalletError = "answer with a wrong status";
    WalletForgot = "hold forgotten";
    WalletCommittedAlone = "committed on its own";
    WalletAbortedAlone = "aborted on its own";
    WalletLied = "answer contradicts an earlier one";
    SourceDown = "rate source down";
    RateJumped = "rate jumped";
    RateStale = "rate stale";
}

/// How often each kind fired.
#[derive(Clone, Debug)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; Fault::ALL.len()])
    }
}

impl Counts {
    pub fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub fn kinds(&self) -> usize {
        self.0.iter().filter(|count| **count > 0).count()
    }
}

/// How often each kind is to fire in one world, in millionths of the occasions for it. Each world draws which kinds it has
/// at all (swarm testing, Groce et al. 2012): a fault that is everywhere hides what the others would show.
#[derive(Clone, Debug)]
pub struct Rates(Vec<u64>);

impl Rates {
    pub fn draw(random: &mut Random) -> Self {
        let mut rates = vec![0; Fault::ALL.len()];
        // One world in sixteen is calm: what holds under faults has to hold without any.
        if random.below(16) > 0 {
            for rate in &mut rates {
                if random.below(3) == 0 {
                    *rate = random.spread(1_000, 250_000);
                }
            }
        }
        Self(rates)
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self(vec![0; Fault::ALL.len()])
    }
}
