//! A participant, written from the table in docs/partners.md ("Every command in every state"). Shares no code with the
//! gateway, nor with the mock partner.

use causeway::coordinator::protocol::Command;

use super::world::{Participant, Place, Reply, Strays};

impl Place {
    /// Where the branch stands after the command, and what is answered. `yes` is how it votes, if it has to.
    pub fn on(self, command: Command, yes: bool) -> (Self, Reply) {
        let next = match (self, command) {
            (Self::Nothing, Command::Prepare) if yes => Self::Holding,
            (Self::Nothing, Command::Prepare) => Self::Refused,
            (Self::Nothing, Command::Abort) => Self::Tombstone,
            (Self::Nothing, Command::Commit | Command::Inquire) => Self::Nothing,
            (Self::Holding, Command::Commit) => Self::Moved,
            (Self::Holding, Command::Abort) => Self::Released,
            (Self::Holding, Command::Prepare | Command::Inquire) => Self::Holding,
            (Self::Tombstone, Command::Prepare) => Self::TombstoneMet,
            (stays @ (Self::Refused | Self::Moved | Self::Released | Self::Tombstone | Self::TombstoneMet), _) => stays,
        };
        (next, next.says())
    }

    /// What it answers when it is asked where the branch stands.
    pub fn says(self) -> Reply {
        match self {
            Self::Nothing => Reply::Missing,
            Self::Holding => Reply::Prepared,
            Self::Refused => Reply::Refused,
            Self::Moved => Reply::Committed,
            Self::Released | Self::Tombstone | Self::TombstoneMet => Reply::Aborted,
        }
    }

    /// Every answer that an honest participant which is here may have given on the way, so that one of them may turn
    /// up late.
    pub fn may_have_said(self) -> &'static [Reply] {
        match self {
            Self::Nothing => &[Reply::Missing],
            Self::Holding => &[Reply::Missing, Reply::Prepared],
            Self::Refused => &[Reply::Missing, Reply::Refused],
            Self::Moved => &[Reply::Missing, Reply::Prepared, Reply::Committed],
            Self::Released => &[Reply::Missing, Reply::Prepared, Reply::Aborted],
            Self::Tombstone | Self::TombstoneMet => &[Reply::Missing, Reply::Aborted],
        }
    }

    /// Holds nothing, and will not whatever comes.
    pub fn is_let_go(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Released | Self::Tombstone | Self::TombstoneMet
        )
    }
}

impl Participant {
    /// Carries a command out in memory.
    pub fn act(&mut self, command: Command, yes: bool) -> Reply {
        let (next, reply) = self.memory.on(command, yes);
        if next == Place::Moved && self.memory != Place::Moved {
            self.moved = (self.moved + 1).min(2);
        }
        self.memory = next;
        reply
    }

    pub fn sync(&mut self) {
        self.durable = self.memory;
    }

    /// Loses what was not on disk: a movement that was not, too.
    pub fn crash(&mut self) {
        if self.memory == Place::Moved && self.durable != Place::Moved {
            self.moved -= 1;
        }
        self.memory = self.durable;
    }

    pub fn is_synced(&self) -> bool {
        self.memory == self.durable
    }

    /// Whether every command gets the same answer here for ever, and changes nothing.
    pub fn says_one_thing(&self) -> bool {
        let last = matches!(
            self.memory,
            Place::Refused | Place::Moved | Place::Released | Place::TombstoneMet
        );
        last && self.is_synced() && !self.rogue
    }

    /// Takes out the commands that cannot change anything here any more. Who breaks its word forgets: then any can.
    pub fn forget_harmless(&self, strays: &mut Strays) {
        if self.rogue || !self.is_synced() {
            return;
        }
        for command in [Command::Prepare, Command::Commit, Command::Abort] {
            let unchanged = |yes| self.memory.on(command, yes).0 == self.memory;
            // A Commit of what is not there changes nothing now, and may later.
            if self.memory != Place::Nothing && unchanged(true) && unchanged(false) {
                strays.remove(command);
            }
        }
    }
}
