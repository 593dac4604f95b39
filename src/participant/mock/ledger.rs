//! Accounts, branches and movements, within one transaction.
//!
//! Owns the participant's rules: what a Prepare, Commit or Abort does to a branch and to the accounts. Called on the
//! store's thread only; [`super::store`] decides when a transaction begins and ends.
//!
//! Invariant: a hold is a reservation on both its accounts, so that what was prepared can always be committed; money
//! only ever moves between two accounts, and [`Ledger::finish`] fails the transaction if a currency does not sum to zero.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::store::StoreError;

/// What the gateway is owed or owes in this network.
pub(super) const SETTLEMENT: &str = "settlement";
/// Where seed money comes from.
pub(super) const WORLD: &str = "world";
/// No account goes beyond this, in minor units, in either direction; two of them still add up within an `i64`.
const BALANCE_MAX: i64 = 4_000_000_000_000_000_000;
/// How many rows a list answers at most.
const ROWS_MAX: i64 = 10_000;

pub(super) const SCHEMA: &str = "
CREATE TABLE meta (name TEXT NOT NULL) STRICT;
CREATE TABLE accounts (
  account TEXT NOT NULL,
  currency TEXT NOT NULL,
  own INTEGER NOT NULL,             -- 1: the network's own, may be negative
  balance INTEGER NOT NULL,
  held INTEGER NOT NULL CHECK (held >= 0),
  incoming INTEGER NOT NULL CHECK (incoming >= 0),
  closed INTEGER NOT NULL,
  payment_limit INTEGER,
  PRIMARY KEY (account, currency),
  CHECK (own = 1 OR balance >= held)
) STRICT, WITHOUT ROWID;
CREATE TABLE branches (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  payment TEXT NOT NULL,
  branch TEXT NOT NULL,
  state INTEGER NOT NULL,
  direction INTEGER,                -- this and the next three: NULL for an Abort that came first
  account TEXT,
  currency TEXT,
  amount INTEGER,
  refusal_code TEXT,
  refusal_detail TEXT,
  ask_ms INTEGER,                   -- when to ask for the decision: at first when the hold expires
  asks INTEGER NOT NULL DEFAULT 0,
  UNIQUE (payment, branch)
) STRICT;
CREATE INDEX in_doubt ON branches (ask_ms) WHERE state = 1;
CREATE TABLE movements (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  payment TEXT NOT NULL,
  branch TEXT NOT NULL,
  account TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount INTEGER NOT NULL CHECK (amount > 0),
  at_ms INTEGER NOT NULL
) STRICT;
";

/// What identifies a branch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BranchKey {
    /// "payments/{payment}".
    pub payment: String,
    pub leg: Leg,
}

/// The two ids that a branch can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Leg {
    Debit,
    Credit,
}

impl Leg {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Leg::Debit => "debit",
            Leg::Credit => "credit",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Leg> {
        [Leg::Debit, Leg::Credit].into_iter().find(|leg| leg.as_str() == word)
    }

    fn column(self) -> i64 {
        match self {
            Leg::Debit => 1,
            Leg::Credit => 2,
        }
    }
}

/// What a Prepare asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub direction: Leg,
    pub account: String,
    pub currency: String,
    /// Minor units, above zero.
    pub amount: i64,
}

/// A Prepare.
#[derive(Clone, Debug)]
pub(super) struct Preparation {
    pub key: BranchKey,
    pub terms: Terms,
    pub decide_by_ms: i64,
    pub hold_expire_ms: i64,
    /// Vote no, whatever the account says.
    pub refuse_with: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Prepared,
    Refused,
    Committed,
    Aborted,
}

impl State {
    const ALL: [State; 4] = [State::Prepared, State::Refused, State::Committed, State::Aborted];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Prepared => "prepared",
            State::Refused => "refused",
            State::Committed => "committed",
            State::Aborted => "aborted",
        }
    }

    pub(super) fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }

    fn column(self) -> i64 {
        match self {
            State::Prepared => 1,
            State::Refused => 2,
            State::Committed => 3,
            State::Aborted => 4,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// ISO 20022.
    pub code: String,
    pub detail: String,
}

impl Refusal {
    fn new(code: &str, detail: impl Into<String>) -> Refusal {
        Refusal {
            code: code.to_owned(),
            detail: detail.into(),
        }
    }
}

/// A branch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub seq: i64,
    pub key: BranchKey,
    pub state: State,
    /// None for an Abort that came first.
    pub terms: Option<Terms>,
    pub refusal: Option<Refusal>,
}

/// Why a command was not carried out. The caller is to blame, nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// No trace of the branch.
    Unknown,
    /// Prepared before with other terms; the fields that differ.
    Mismatch(Vec<&'static str>),
    /// "debit" that pays in, or "credit" that pays out.
    Direction,
    /// One of the network's own accounts.
    OwnAccount,
    /// The balance would not cover what is held of it.
    BalanceBelowHeld,
    /// The balance would be beyond what can be counted.
    BalanceTooHigh,
}

/// A customer's account as an operator sets it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccountSetup {
    pub account: String,
    pub currency: String,
    pub balance: i64,
    pub closed: bool,
    pub payment_limit: Option<i64>,
}

/// An account as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub key: AccountKey,
    pub own: bool,
    pub balance: i64,
    /// What prepared branches will take out.
    pub held: i64,
    /// What prepared branches will pay in.
    pub incoming: i64,
    pub closed: bool,
    pub payment_limit: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AccountKey {
    pub currency: String,
    pub account: String,
}

/// Money that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Movement {
    pub seq: i64,
    pub key: BranchKey,
    pub account: String,
    pub currency: String,
    pub amount: i64,
    pub at_ms: i64,
}

/// Which branches to list.
#[derive(Clone, Debug, Default)]
pub(super) struct HoldFilter {
    pub state: Option<State>,
    pub payment: Option<String>,
}

/// Which movements to list.
#[derive(Clone, Debug, Default)]
pub(super) struct MovementFilter {
    pub account: Option<String>,
    pub payment: Option<String>,
}

/// Some of the rows, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed<T> {
    pub rows: Vec<T>,
    pub total: i64,
}

/// A prepared branch whose hold has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InDoubt {
    pub key: BranchKey,
    /// How often the gateway was asked already.
    pub asks: u32,
}

/// One transaction on the accounts. Accounts are read once and written once, however many commands touch them.
pub(super) struct Ledger<'c> {
    connection: &'c Connection,
    now_ms: i64,
    accounts: BTreeMap<AccountKey, Cached>,
}

struct Cached {
    account: Account,
    dirty: bool,
}

impl<'c> Ledger<'c> {
    /// Begins on a connection that is in a transaction.
    pub(super) fn new(connection: &'c Connection, now_ms: i64) -> Ledger<'c> {
        Ledger {
            connection,
            now_ms,
            accounts: BTreeMap::new(),
        }
    }

    /// Reserves, or refuses for good.
    pub(super) fn prepare(&mut self, order: &Preparation) -> Result<Result<Branch, Rejection>, StoreError> {
        if let Some(branch) = self.branch(&order.key)? {
            // An Abort that came first knows no terms to differ from.
            let differing = branch
                .terms
                .as_ref()
                .map(|terms| differing(terms, &order.terms))
                .unwrap_or_default();
            return Ok(if differing.is_empty() {
                Ok(branch)
            } else {
                Err(Rejection::Mismatch(differing))
            });
        }
        if order.terms.direction != order.key.leg {
            return Ok(Err(Rejection::Direction));
        }
        let refusal = match &order.refuse_with {
            Some(code) => Some(Refusal::new(code, "refused as the tester asked")),
            None => self.judge(order)?,
        };
        if refusal.is_none() {
            self.reserve(&order.terms)?;
        }
        let state = if refusal.is_some() {
            State::Refused
        } else {
            State::Prepared
        };
        let branch = Branch {
            seq: 0,
            key: order.key.clone(),
            state,
            terms: Some(order.terms.clone()),
            refusal,
        };
        self.insert(branch, Some(order.hold_expire_ms)).map(Ok)
    }

    /// Moves the held money.
    pub(super) fn commit(&mut self, key: &BranchKey) -> Result<Result<Branch, Rejection>, StoreError> {
        let Some(mut branch) = self.branch(key)? else {
            return Ok(Err(Rejection::Unknown));
        };
        match (branch.state, &branch.terms) {
            (State::Refused | State::Committed | State::Aborted, _) => {}
            (State::Prepared, None) => return Err(StoreError::Broken("a prepared branch without terms".to_owned())),
            (State::Prepared, Some(terms)) => {
                self.post(terms)?;
                self.connection
                    .prepare_cached(
                        "INSERT INTO movements (payment, branch, account, currency, amount, at_ms)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![
                        key.payment,
                        key.leg.as_str(),
                        terms.account,
                        terms.currency,
                        terms.amount,
                        self.now_ms
                    ])?;
                self.settle(&mut branch, State::Committed)?;
            }
        }
        Ok(Ok(branch))
    }

    /// Releases the hold; remembers the abort of a branch never heard of.
    pub(super) fn abort(&mut self, key: &BranchKey) -> Result<Branch, StoreError> {
        let Some(mut branch) = self.branch(key)? else {
            // Its Prepare may still be in flight.
            let tombstone = Branch {
                seq: 0,
                key: key.clone(),
                state: State::Aborted,
                terms: None,
                refusal: None,
            };
            return self.insert(tombstone, None);
        };
        match (branch.state, &branch.terms) {
            // A refusal is final as well, and holds nothing either.
            (State::Refused | State::Committed | State::Aborted, _) => {}
            (State::Prepared, None) => return Err(StoreError::Broken("a prepared branch without terms".to_owned())),
            (State::Prepared, Some(terms)) => {
                self.release(terms)?;
                self.settle(&mut branch, State::Aborted)?;
            }
        }
        Ok(branch)
    }

    /// Drops the branch as a careless participant would: its hold goes, what moved stays moved.
    pub(super) fn forget(&mut self, key: &BranchKey) -> Result<(), StoreError> {
        if let Some(branch) = self.branch(key)? {
            if let (State::Prepared, Some(terms)) = (branch.state, &branch.terms) {
                self.release(terms)?;
            }
            self.connection
                .prepare_cached("DELETE FROM branches WHERE seq = ?1")?
                .execute([branch.seq])?;
        }
        Ok(())
    }

    /// Opens an account, or sets an existing one; the difference comes from or goes to the world.
    pub(super) fn put_account(&mut self, setup: &AccountSetup) -> Result<Result<Account, Rejection>, StoreError> {
        if is_own(&setup.account) {
            return Ok(Err(Rejection::OwnAccount));
        }
        let key = AccountKey {
            currency: setup.currency.clone(),
            account: setup.account.clone(),
        };
        let (before, held, incoming) = match self.account(&key)? {
            Some(account) => (account.balance, account.held, account.incoming),
            None => (0, 0, 0),
        };
        if setup.balance < held {
            return Ok(Err(Rejection::BalanceBelowHeld));
        }
        // Neither sum overflows: a balance and a setup are within BALANCE_MAX.
        let world = AccountKey {
            currency: setup.currency.clone(),
            account: WORLD.to_owned(),
        };
        let world_before = self.account(&world)?.map_or(0, |world| world.balance);
        let paid_in = setup.balance - before;
        if setup.balance > BALANCE_MAX - incoming || world_before < paid_in - BALANCE_MAX {
            return Ok(Err(Rejection::BalanceTooHigh));
        }
        self.open(&world, true)?;
        self.open(&key, false)?;
        self.existing(&world)?.balance -= paid_in;
        let account = self.existing(&key)?;
        account.balance = setup.balance;
        account.closed = setup.closed;
        account.payment_limit = setup.payment_limit;
        Ok(Ok(account.clone()))
    }

    /// As [`Ledger::put_account`], for an account that does not exist yet.
    pub(super) fn seed(&mut self, setup: &AccountSetup) -> Result<Result<(), Rejection>, StoreError> {
        let key = AccountKey {
            currency: setup.currency.clone(),
            account: setup.account.clone(),
        };
        if self.account(&key)?.is_some() {
            return Ok(Ok(()));
        }
        Ok(self.put_account(setup)?.map(|_| ()))
    }

    /// The next question about a branch in doubt, after one that brought no decision.
    pub(super) fn ask_again(&mut self, key: &BranchKey, at_ms: i64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE branches SET asks = asks + 1, ask_ms = ?3 WHERE payment = ?1 AND branch = ?2")?
            .execute(params![key.payment, key.leg.as_str(), at_ms])?;
        Ok(())
    }

    /// Writes the accounts back and checks the books. Ends the transaction's work; its commit is the store's.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        let mut changed = false;
        let mut update = self.connection.prepare_cached(
            "UPDATE accounts SET balance = ?3, held = ?4, incoming = ?5, closed = ?6, payment_limit = ?7
             WHERE account = ?1 AND currency = ?2",
        )?;
        for Cached { account, .. } in self.accounts.values().filter(|cached| cached.dirty) {
            changed = true;
            update.execute(params![
                account.key.account,
                account.key.currency,
                account.balance,
                account.held,
                account.incoming,
                account.closed,
                account.payment_limit
            ])?;
        }
        if changed {
            check_zero_sum(self.connection)
        } else {
            Ok(())
        }
    }

    /// The branch as it stands.
    pub(super) fn branch(&self, key: &BranchKey) -> Result<Option<Branch>, StoreError> {
        let sql =
            "SELECT seq, payment, branch, state, direction, account, currency, amount, refusal_code, refusal_detail
                   FROM branches WHERE payment = ?1 AND branch = ?2";
        let mut select = self.connection.prepare_cached(sql)?;
        Ok(select
            .query_row(params![key.payment, key.leg.as_str()], branch_row)
            .optional()?)
    }

    /// All accounts by currency and id.
    pub(super) fn accounts(&mut self) -> Result<Vec<Account>, StoreError> {
        let keys = {
            let mut select = self
                .connection
                .prepare_cached("SELECT currency, account FROM accounts ORDER BY 1, 2")?;
            let rows = select.query_map([], |row| {
                Ok(AccountKey {
                    currency: row.get(0)?,
                    account: row.get(1)?,
                })
            })?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        let mut accounts = Vec::with_capacity(keys.len());
        for key in keys {
            // Through the cache: what this transaction changed is not written back yet.
            accounts.extend(self.account(&key)?.cloned());
        }
        Ok(accounts)
    }

    /// Branches, oldest first.
    pub(super) fn holds(&self, filter: &HoldFilter) -> Result<Listed<Branch>, StoreError> {
        let state = filter.state.map(State::column);
        let chosen = "FROM branches WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR payment = ?2)";
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT seq, payment, branch, state, direction, account, currency, amount, refusal_code, refusal_detail
             {chosen} ORDER BY seq LIMIT {ROWS_MAX}"
        ))?;
        let rows = select
            .query_map(params![state, filter.payment], branch_row)?
            .collect::<Result<_, _>>()?;
        let mut count = self.connection.prepare_cached(&format!("SELECT count(*) {chosen}"))?;
        let total = count.query_row(params![state, filter.payment], |row| row.get(0))?;
        Ok(Listed { rows, total })
    }

    /// Movements, oldest first.
    pub(super) fn movements(&self, filter: &MovementFilter) -> Result<Listed<Movement>, StoreError> {
        let chosen = "FROM movements WHERE (?1 IS NULL OR account = ?1) AND (?2 IS NULL OR payment = ?2)";
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT seq, payment, branch, account, currency, amount, at_ms {chosen} ORDER BY seq LIMIT {ROWS_MAX}"
        ))?;
        let rows = select.query_map(params![filter.account, filter.payment], |row| {
            Ok(Movement {
                seq: row.get(0)?,
                key: BranchKey {
                    payment: row.get(1)?,
                    leg: leg_column(row, 2)?,
                },
                account: row.get(3)?,
                currency: row.get(4)?,
                amount: row.get(5)?,
                at_ms: row.get(6)?,
            })
        })?;
        let rows = rows.collect::<Result<_, _>>()?;
        let mut count = self.connection.prepare_cached(&format!("SELECT count(*) {chosen}"))?;
        let total = count.query_row(params![filter.account, filter.payment], |row| row.get(0))?;
        Ok(Listed { rows, total })
    }

    /// The prepared branches whose question is due, the longest due first.
    pub(super) fn in_doubt(&self, limit: usize) -> Result<Vec<InDoubt>, StoreError> {
        let mut select = self.connection.prepare_cached(
            "SELECT payment, branch, asks FROM branches WHERE state = 1 AND ask_ms <= ?1 ORDER BY ask_ms LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = select.query_map(params![self.now_ms, limit], |row| {
            let asks: i64 = row.get(2)?;
            Ok(InDoubt {
                key: BranchKey {
                    payment: row.get(0)?,
                    leg: leg_column(row, 1)?,
                },
                asks: u32::try_from(asks).unwrap_or(u32::MAX),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Why the network says no; `None` is a yes. The first reason wins, so the order is part of the contract.
    fn judge(&mut self, order: &Preparation) -> Result<Option<Refusal>, StoreError> {
        let terms = &order.terms;
        if self.now_ms > order.decide_by_ms {
            return Ok(Some(Refusal::new("TM01", "the Prepare arrived after decide_by_time")));
        }
        if is_own(&terms.account) {
            return Ok(Some(Refusal::new("AC03", "the account is unknown")));
        }
        let key = AccountKey {
            currency: terms.currency.clone(),
            account: terms.account.clone(),
        };
        let Some(account) = self.account(&key)?.cloned() else {
            let mut select = self
                .connection
                .prepare_cached("SELECT 1 FROM accounts WHERE account = ?1 LIMIT 1")?;
            return Ok(Some(if select.exists([&terms.account])? {
                Refusal::new("AM03", format!("the account has no {}", terms.currency))
            } else {
                Refusal::new("AC03", "the account is unknown")
            }));
        };
        if account.closed {
            return Ok(Some(Refusal::new("AC04", "the account is closed")));
        }
        if account.payment_limit.is_some_and(|limit| terms.amount > limit) {
            return Ok(Some(Refusal::new("AM02", "the amount is above the account's limit")));
        }
        // All sums below are of values within BALANCE_MAX, which fit twice into an i64.
        if terms.direction == Leg::Debit && account.balance - account.held < terms.amount {
            return Ok(Some(Refusal::new("AM04", "the account has not enough funds")));
        }
        let (source, target) = ends(terms);
        self.open(if source == key { &target } else { &source }, true)?;
        let (source, target) = (self.existing(&source)?.clone(), self.existing(&target)?.clone());
        let source_has_room = source.balance - source.held >= terms.amount - BALANCE_MAX;
        let target_has_room = target.balance + target.incoming <= BALANCE_MAX - terms.amount;
        Ok((!source_has_room || !target_has_room).then(|| Refusal::new("AM02", "the account cannot hold so much")))
    }

    fn reserve(&mut self, terms: &Terms) -> Result<(), StoreError> {
        let (source, target) = ends(terms);
        self.existing(&source)?.held += terms.amount;
        self.existing(&target)?.incoming += terms.amount;
        Ok(())
    }

    fn release(&mut self, terms: &Terms) -> Result<(), StoreError> {
        let (source, target) = ends(terms);
        self.existing(&source)?.held -= terms.amount;
        self.existing(&target)?.incoming -= terms.amount;
        Ok(())
    }

    fn post(&mut self, terms: &Terms) -> Result<(), StoreError> {
        self.release(terms)?;
        let (source, target) = ends(terms);
        self.existing(&source)?.balance -= terms.amount;
        self.existing(&target)?.balance += terms.amount;
        Ok(())
    }

    fn insert(&mut self, mut branch: Branch, ask_ms: Option<i64>) -> Result<Branch, StoreError> {
        let terms = branch.terms.as_ref();
        self.connection
            .prepare_cached(
                "INSERT INTO branches (payment, branch, state, direction, account, currency, amount, refusal_code,
                                       refusal_detail, ask_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                branch.key.payment,
                branch.key.leg.as_str(),
                branch.state.column(),
                terms.map(|terms| terms.direction.column()),
                terms.map(|terms| &terms.account),
                terms.map(|terms| &terms.currency),
                terms.map(|terms| terms.amount),
                branch.refusal.as_ref().map(|refusal| &refusal.code),
                branch.refusal.as_ref().map(|refusal| &refusal.detail),
                ask_ms
            ])?;
        branch.seq = self.connection.last_insert_rowid();
        Ok(branch)
    }

    fn settle(&mut self, branch: &mut Branch, state: State) -> Result<(), StoreError> {
        branch.state = state;
        self.connection
            .prepare_cached("UPDATE branches SET state = ?2 WHERE seq = ?1")?
            .execute([branch.seq, state.column()])?;
        Ok(())
    }

    fn account(&mut self, key: &AccountKey) -> Result<Option<&Account>, StoreError> {
        Ok(self.cached(key)?.map(|cached| &cached.account))
    }

    /// The account, to be changed.
    fn existing(&mut self, key: &AccountKey) -> Result<&mut Account, StoreError> {
        match self.cached(key)? {
            Some(cached) => {
                cached.dirty = true;
                Ok(&mut cached.account)
            }
            None => Err(StoreError::Broken(format!(
                "the account {} {} is gone",
                key.account, key.currency
            ))),
        }
    }

    fn cached(&mut self, key: &AccountKey) -> Result<Option<&mut Cached>, StoreError> {
        if !self.accounts.contains_key(key) {
            let sql = "SELECT own, balance, held, incoming, closed, payment_limit
                       FROM accounts WHERE account = ?1 AND currency = ?2";
            let mut select = self.connection.prepare_cached(sql)?;
            let found = select
                .query_row([&key.account, &key.currency], |row| {
                    Ok(Account {
                        key: key.clone(),
                        own: row.get(0)?,
                        balance: row.get(1)?,
                        held: row.get(2)?,
                        incoming: row.get(3)?,
                        closed: row.get(4)?,
                        payment_limit: row.get(5)?,
                    })
                })
                .optional()?;
            let Some(account) = found else { return Ok(None) };
            self.accounts.insert(key.clone(), Cached { account, dirty: false });
        }
        Ok(self.accounts.get_mut(key))
    }

    /// Opens an account, with nothing on it, unless it is there.
    fn open(&mut self, key: &AccountKey, own: bool) -> Result<(), StoreError> {
        if self.cached(key)?.is_none() {
            self.connection
                .prepare_cached(
                    "INSERT INTO accounts (account, currency, own, balance, held, incoming, closed)
                     VALUES (?1, ?2, ?3, 0, 0, 0, 0)",
                )?
                .execute(params![key.account, key.currency, own])?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Ledger<'_> {
    /// Money out of nothing, for the test that the books notice.
    pub(super) fn conjure(&mut self, account: &str, currency: &str, amount: i64) -> Result<(), StoreError> {
        let key = AccountKey {
            currency: currency.to_owned(),
            account: account.to_owned(),
        };
        self.existing(&key)?.balance += amount;
        Ok(())
    }
}

/// The books of every currency, and the holds on every account, against each other. For opening a store.
pub(super) fn check_books(connection: &Connection) -> Result<(), StoreError> {
    check_zero_sum(connection)?;
    let mut select = connection.prepare(
        "SELECT a.account, a.currency FROM accounts a LEFT JOIN (
           SELECT account, currency,
             sum(CASE direction WHEN 1 THEN amount ELSE 0 END) AS held,
             sum(CASE direction WHEN 2 THEN amount ELSE 0 END) AS incoming
           FROM branches WHERE state = 1 GROUP BY account, currency
         ) b ON b.account = a.account AND b.currency = a.currency
         WHERE a.own = 0 AND (a.held <> coalesce(b.held, 0) OR a.incoming <> coalesce(b.incoming, 0))",
    )?;
    let wrong = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let wrong: Option<(String, String)> = wrong;
    match wrong {
        None => Ok(()),
        Some((account, currency)) => Err(StoreError::Broken(format!(
            "account {account} {currency} does not hold what its branches say"
        ))),
    }
}

fn check_zero_sum(connection: &Connection) -> Result<(), StoreError> {
    let mut select = connection
        .prepare_cached("SELECT currency, sum(balance) FROM accounts GROUP BY currency HAVING sum(balance) <> 0")?;
    let wrong: Option<(String, i64)> = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match wrong {
        None => Ok(()),
        Some((currency, sum)) => Err(StoreError::Broken(format!(
            "all {currency} balances add up to {sum} minor units instead of zero"
        ))),
    }
}

pub(super) fn is_own(account: &str) -> bool {
    account == SETTLEMENT || account == WORLD
}

/// From where to where the money moves.
fn ends(terms: &Terms) -> (AccountKey, AccountKey) {
    let key = |account: &str| AccountKey {
        currency: terms.currency.clone(),
        account: account.to_owned(),
    };
    match terms.direction {
        Leg::Debit => (key(&terms.account), key(SETTLEMENT)),
        Leg::Credit => (key(SETTLEMENT), key(&terms.account)),
    }
}

fn differing(before: &Terms, now: &Terms) -> Vec<&'static str> {
    let Terms {
        direction,
        account,
        currency,
        amount,
    } = before;
    [
        ("direction", *direction != now.direction),
        ("account", *account != now.account),
        ("amount.currency", *currency != now.currency),
        ("amount.amount", *amount != now.amount),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

fn branch_row(row: &Row<'_>) -> rusqlite::Result<Branch> {
    let direction: Option<i64> = row.get(4)?;
    let terms = match direction {
        None => None,
        Some(direction) => Some(Terms {
            direction: if direction == Leg::Debit.column() {
                Leg::Debit
            } else {
                Leg::Credit
            },
            account: row.get(5)?,
            currency: row.get(6)?,
            amount: row.get(7)?,
        }),
    };
    let code: Option<String> = row.get(8)?;
    let detail: Option<String> = row.get(9)?;
    let state: i64 = row.get(3)?;
    let state = State::ALL.into_iter().find(|known| known.column() == state);
    Ok(Branch {
        seq: row.get(0)?,
        key: BranchKey {
            payment: row.get(1)?,
            leg: leg_column(row, 2)?,
        },
        state: state.ok_or(rusqlite::Error::IntegralValueOutOfRange(3, 0))?,
        terms,
        refusal: code.map(|code| Refusal {
            code,
            detail: detail.unwrap_or_default(),
        }),
    })
}

fn leg_column(row: &Row<'_>, index: usize) -> rusqlite::Result<Leg> {
    let word: String = row.get(index)?;
    Leg::parse(&word).ok_or(rusqlite::Error::InvalidQuery)
}
