//! A wallet network: what docs/partners.md asks of one, written for the simulation alone, over a disk that forgets what was
//! not synced; and the ways in which one breaks its word.
//!
//! It keeps its books in double entry: every movement has its counterpart on the network's settlement account, so that the sum
//! over all accounts of a currency never changes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use causeway::pb::{
    gateway::v1::{self as pb, decision_service_server::DecisionService, get_decision_response::Decision},
    participant::v1::{self as participant, Branch, Refusal, branch::State},
};
use prost::{Message, bytes::Bytes};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    cast::{self, NETWORKS},
    executor::NodeId,
    faults::Fault,
    history::{Act, Command, Event, Money, Network, Payment, branch_name},
    world::{Shared, World, request},
};

pub struct Wallet {
    pub network: Network,
    pub node: NodeId,
    /// Whether it may break its word.
    rogue: bool,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    branches: BTreeMap<Key, Kept>,
    prepared: BTreeSet<Key>,
    accounts: BTreeMap<(String, &'static str), Account>,
    /// What is not on disk yet, oldest first, and how to undo it.
    unsynced: VecDeque<Step>,
    /// Steps ever made.
    steps: u64,
}

type Key = (Payment, &'static str);

#[derive(Clone, Debug)]
struct Kept {
    state: State,
    money: Option<Money>,
    code: &'static str,
    hold_expire_ms: i64,
    /// For the name on the wire.
    name: Arc<str>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    balance: i128,
    held: i128,
    closed: bool,
}

struct Step {
    number: u64,
    key: Key,
    branch: Option<Kept>,
    accounts: Vec<((String, &'static str), Account)>,
    act: Act,
}

/// A command as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub command: Command,
    pub payment: String,
    pub branch: String,
    pub decide_by_ms: i64,
    hold_expire_ms: i64,
    money: Option<Money>,
}

impl Request {
    /// Panics on what no gateway may send.
    pub fn decode(path: &str, message: &Bytes) -> Self {
        let method = path
            .strip_prefix("/causeway.participant.v1.ParticipantService/")
            .unwrap_or_else(|| panic!("no participant serves {path}"));
        let bare = |command, payment, branch| Self {
            command,
            payment,
            branch,
            decide_by_ms: 0,
            hold_expire_ms: 0,
            money: None,
        };
        match method {
            "Prepare" => {
                let request = participant::PrepareRequest::decode(message.clone()).expect("a Prepare");
                let amount = request.amount.clone().expect("a Prepare has an amount");
                let ms = |time: Option<prost_types::Timestamp>| {
                    let time = time.expect("a Prepare has its times");
                    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
                };
                let money = Money {
                    account: request.account.clone(),
                    minor: minor(&amount.currency, &amount.amount),
                    currency: amount.currency,
                    debit: request.direction() == participant::Direction::Debit,
                };
                Self {
                    decide_by_ms: ms(request.decide_by_time),
                    hold_expire_ms: ms(request.hold_expire_time),
                    money: Some(money),
                    ..bare(Command::Prepare, request.payment, request.branch)
                }
            }
            "Commit" => {
                let request = participant::CommitRequest::decode(message.clone()).expect("a Commit");
                bare(Command::Commit, request.payment, request.branch)
            }
            "Abort" => {
                let request = participant::AbortRequest::decode(message.clone()).expect("an Abort");
                bare(Command::Abort, request.payment, request.branch)
            }
            "GetBranch" => {
                let request = participant::GetBranchRequest::decode(message.clone()).expect("a GetBranch");
                bare(Command::Inquire, request.payment, request.branch)
            }
            other => panic!("no participant serves {other}"),
        }
    }
}

/// Minor units of a decimal string. Panics on one that is not exact: a gateway must never send it.
pub fn minor(currency: &str, text: &str) -> u64 {
    let decimals = cast::decimals(currency) as usize;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(
        fraction.len() <= decimals,
        "{text} {currency} is not exact to the minor unit"
    );
    format!("{whole}{fraction:0<decimals$}")
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} is no amount"))
}

impl Wallet {
    pub fn new(network: Network, node: NodeId, rogue: bool) -> Self {
        let mut books = Books::default();
        for currency in NETWORKS[network.0].1 {
            let mut open = |name: String, balance: u64, closed| {
                let balance = i128::from(balance);
                books.accounts.insert(
                    (name, currency),
                    Account {
                        balance,
                        held: 0,
                        closed,
                    },
                );
                books
                    .accounts
                    .entry(("settlement".into(), currency))
                    .or_default()
                    .balance -= balance;
            };
            for n in 0..cast::RICH {
                open(format!("rich-{n}"), cast::RICH_MINOR, false);
            }
            for n in 0..cast::POOR {
                open(format!("poor-{n}"), cast::POOR_MINOR, false);
            }
            open("closed-0".into(), cast::POOR_MINOR, true);
        }
        Self {
            network,
            node,
            rogue,
            books: Mutex::new(books),
        }
    }

    /// Whether any hold is left.
    pub fn holds_anything(&self) -> bool {
        !self.books().prepared.is_empty()
    }

    /// Writes down the sum of every currency.
    pub fn count(&self, world: &World) {
        for currency in NETWORKS[self.network.0].1 {
            let books = self.books();
            let sum = books
                .accounts
                .iter()
                .filter(|((_, of), _)| of == currency)
                .map(|(_, account)| account.balance)
                .sum();
            drop(books);
            world.log(Event::Counted {
                network: self.network,
                currency,
                sum,
            });
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("whoever panicked has ended the test")
    }

    /// What the command does to the books: docs/partners.md, "Every command in every state".
    fn carry_out(&self, request: &Request, payment: Payment, now_ms: i64) -> Result<Branch, Status> {
        let mut books = self.books();
        let key = (payment, branch_name(&request.branch));
        let name: Arc<str> = request.payment.as_str().into();
        let kept = books.branches.get(&key).cloned();
        let answer = match (request.command, kept) {
            (Command::Prepare, None) => {
                let money = request.money.clone().expect("a Prepare has an amount");
                let code = books.judge(&money, now_ms > request.decide_by_ms);
                let kept = Kept {
                    state: if code.is_empty() {
                        State::Prepared
                    } else {
                        State::Refused
                    },
                    money: Some(money.clone()),
                    code,
                    hold_expire_ms: request.hold_expire_ms,
                    name,
                };
                let act = if code.is_empty() {
                    Act::Prepared(money)
                } else {
                    Act::Refused(code)
                };
                books.step(key, kept, act)
            }
            (Command::Prepare, Some(kept)) => {
                if kept
                    .money
                    .as_ref()
                    .is_some_and(|money| Some(money) != request.money.as_ref())
                {
                    return Err(Status::invalid_argument("other terms than before"));
                }
                kept
            }
            (Command::Abort, None) => {
                let kept = Kept {
                    state: State::Aborted,
                    money: None,
                    code: "",
                    hold_expire_ms: 0,
                    name,
                };
                books.step(key, kept, Act::Tombstone)
            }
            (Command::Commit | Command::Inquire, None) => return Err(unknown_branch()),
            (Command::Commit, Some(kept)) if kept.state == State::Prepared => {
                books.settle(key, kept, State::Committed, false)
            }
            (Command::Abort, Some(kept)) if kept.state == State::Prepared => {
                books.settle(key, kept, State::Aborted, false)
            }
            (Command::Commit | Command::Abort | Command::Inquire, Some(kept)) => kept,
        };
        Ok(answer.message(key.1))
    }

    /// Waits until all that has been done is on disk.
    async fn sync(&self, world: &Shared) {
        let upto = self.books().steps;
        let us = 50 + world.executor.draw(3_000);
        world.executor.sleep_us(us).await;
        let synced: Vec<Step> = {
            let mut books = self.books();
            let count = books.unsynced.iter().take_while(|step| step.number <= upto).count();
            books.unsynced.drain(..count).collect()
        };
        self.write_down(world, synced);
    }

    fn write_down(&self, world: &World, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            world.log(Event::Wallet {
                network: self.network,
                payment: step.key.0,
                branch: step.key.1,
                act: step.act,
            });
        }
    }

    /// The process has died: part of what was not synced is on disk, the rest never was.
    fn lose_unsynced(&self, world: &World) {
        let survived: Vec<Step> = {
            let mut books = self.books();
            let count = world.executor.draw(books.unsynced.len() as u64 + 1) as usize;
            let lost = books.unsynced.split_off(count);
            if !lost.is_empty() {
                world.happened(Fault::WalletLostUnsynced, format!("{} steps", lost.len()));
            }
            for step in lost.into_iter().rev() {
                books.undo(step);
            }
            std::mem::take(&mut books.unsynced).into()
        };
        self.write_down(world, survived);
    }

    /// What only a rogue does, some time after it voted yes.
    fn break_word(&self, key: Key, fault: Fault) {
        let mut books = self.books();
        let Some(kept) = books
            .branches
            .get(&key)
            .filter(|kept| kept.state == State::Prepared)
            .cloned()
        else {
            return;
        };
        match fault {
            Fault::WalletCommittedAlone => drop(books.settle(key, kept, State::Committed, true)),
            Fault::WalletAbortedAlone => drop(books.settle(key, kept, State::Aborted, true)),
            Fault::WalletForgot => books.forget(key, &kept),
            other => panic!("{other:?} breaks no word"),
        }
    }
}

impl Books {
    /// Why the network says no; empty is a yes.
    fn judge(&self, money: &Money, late: bool) -> &'static str {
        if late {
            return "TM01";
        }
        let Some(currency) = known(&money.currency) else {
            return "AM03";
        };
        match self.accounts.get(&(money.account.clone(), currency)) {
            None => "AC03",
            Some(account) if account.closed => "AC04",
            Some(account) if money.debit && account.balance - account.held < i128::from(money.minor) => "AM04",
            Some(_) => "",
        }
    }

    fn step(&mut self, key: Key, kept: Kept, act: Act) -> Kept {
        let mut step = self.new_step(key, act);
        if let (Act::Prepared(money), Some(account)) = (&step.act, self.account_of(&kept)) {
            if money.debit {
                step.accounts.push((account.clone(), self.accounts[&account].clone()));
                self.accounts.get_mut(&account).expect("judged").held += i128::from(money.minor);
            }
            self.prepared.insert(key);
        }
        self.branches.insert(key, kept.clone());
        self.unsynced.push_back(step);
        kept
    }

    fn new_step(&mut self, key: Key, act: Act) -> Step {
        self.steps += 1;
        Step {
            number: self.steps,
            key,
            branch: self.branches.get(&key).cloned(),
            accounts: Vec::new(),
            act,
        }
    }

    /// A hold ends: the money moves, or it does not.
    fn settle(&mut self, key: Key, mut kept: Kept, state: State, alone: bool) -> Kept {
        let money = kept.money.clone().expect("a hold has an amount");
        let act = match (state, alone) {
            (State::Committed, false) => Act::Moved(money.clone()),
            (State::Committed, true) => Act::MovedAlone(money.clone()),
            (_, false) => Act::Released,
            (_, true) => Act::ReleasedAlone,
        };
        let mut step = self.new_step(key, act);
        let account = self.account_of(&kept).expect("judged");
        let settlement = ("settlement".to_owned(), account.1);
        for name in [&account, &settlement] {
            step.accounts.push((name.clone(), self.accounts[name].clone()));
        }
        let amount = i128::from(money.minor);
        if money.debit {
            self.accounts.get_mut(&account).expect("judged").held -= amount;
        }
        if state == State::Committed {
            let signed = if money.debit { -amount } else { amount };
            self.accounts.get_mut(&account).expect("judged").balance += signed;
            self.accounts.get_mut(&settlement).expect("opened").balance -= signed;
        }
        self.prepared.remove(&key);
        kept.state = state;
        self.branches.insert(key, kept.clone());
        self.unsynced.push_back(step);
        kept
    }

    fn forget(&mut self, key: Key, kept: &Kept) {
        let mut step = self.new_step(key, Act::Forgot);
        let money = kept.money.as_ref().expect("a hold has an amount");
        let account = self.account_of(kept).expect("judged");
        if money.debit {
            step.accounts.push((account.clone(), self.accounts[&account].clone()));
            self.accounts.get_mut(&account).expect("judged").held -= i128::from(money.minor);
        }
        self.prepared.remove(&key);
        self.branches.remove(&key);
        self.unsynced.push_back(step);
    }

    fn undo(&mut self, step: Step) {
        match step.branch {
            Some(kept) => {
                match kept.state {
                    State::Prepared => self.prepared.insert(step.key),
                    _ => self.prepared.remove(&step.key),
                };
                self.branches.insert(step.key, kept);
            }
            None => {
                self.prepared.remove(&step.key);
                self.branches.remove(&step.key);
            }
        }
        self.accounts.extend(step.accounts);
    }

    fn account_of(&self, kept: &Kept) -> Option<(String, &'static str)> {
        let money = kept.money.as_ref()?;
        Some((money.account.clone(), known(&money.currency)?))
    }
}

impl Kept {
    fn message(&self, branch: &str) -> Branch {
        Branch {
            payment: self.name.to_string(),
            branch: branch.into(),
            state: self.state.into(),
            reference: format!("R-{branch}"),
            refusal: (self.state == State::Refused).then(|| Refusal {
                code: self.code.into(),
                detail: "as the account stands".into(),
            }),
        }
    }
}

fn known(currency: &str) -> Option<&'static str> {
    NETWORKS
        .iter()
        .flat_map(|(_, own)| own.iter())
        .find(|own| **own == currency)
        .copied()
}

fn unknown_branch() -> Status {
    let details = ErrorDetails::with_error_info(
        "BRANCH_UNKNOWN",
        "causeway",
        std::collections::HashMap::<String, String>::new(),
    );
    Status::with_error_details(Code::NotFound, "no trace of it", details)
}

/// Carries one command out and answers it, well or badly.
pub async fn serve(
    world: Shared,
    index: usize,
    request: Request,
    answer: impl FnOnce(Result<Branch, Status>) + Send + 'static,
) {
    let wallet = &world.wallets[index];
    if world.fires(Fault::WalletSilent, || NETWORKS[index].0.into()) {
        return std::future::pending().await;
    }
    let payment = world.payment(&request.payment);
    let now_ms = world.executor.clock_ms(wallet.node);
    let result = wallet.carry_out(&request, payment, now_ms);
    if result
        .as_ref()
        .is_err_and(|status| status.code() == Code::InvalidArgument)
    {
        world.log(Event::Wallet {
            network: wallet.network,
            payment,
            branch: branch_name(&request.branch),
            act: Act::OtherTerms,
        });
    }
    // Even what only reads waits: it may have read what is not on disk yet.
    wallet.sync(&world).await;
    if wallet.rogue
        && request.command == Command::Prepare
        && matches!(&result, Ok(branch) if branch.state() == State::Prepared)
    {
        tempt(&world, index, (payment, branch_name(&request.branch)));
    }
    if world.fires(Fault::WalletLate, || format!("{:?}", request.command)) {
        let late_us = (world.plan.timings.command_ms + world.executor.draw(20_000)) * 1_000;
        world.executor.sleep_us(late_us).await;
    }
    answer(distort(&world, index, &request, payment, result));
}

/// A rogue may break its word some time after it has given it.
fn tempt(world: &Shared, index: usize, key: Key) {
    for fault in [
        Fault::WalletCommittedAlone,
        Fault::WalletAbortedAlone,
        Fault::WalletForgot,
    ] {
        if world.fires(fault, || format!("{key:?}")) {
            let own = Arc::clone(world);
            world.spawn(world.wallets[index].node, async move {
                let us = own.executor.draw(20_000_000);
                own.executor.sleep_us(us).await;
                let wallet = &own.wallets[index];
                wallet.break_word(key, fault);
                wallet.sync(&own).await;
            });
        }
    }
}

/// What a broken server makes of an answer. None of it says anything of the branch, but for what a rogue says.
fn distort(
    world: &World,
    index: usize,
    request: &Request,
    payment: Payment,
    result: Result<Branch, Status>,
) -> Result<Branch, Status> {
    let draw = |limit| world.executor.draw(limit);
    if world.fires(Fault::WalletGarbage, || NETWORKS[index].0.into()) {
        return match draw(4) {
            // What cannot be decoded is tonic's INTERNAL.
            0 => Err(Status::internal("failed to decode Protobuf message")),
            1 => Ok(Branch::default()),
            2 => result.map(|branch| Branch { state: 77, ..branch }),
            _ => Ok(Branch {
                reference: "\u{7}".repeat(200),
                ..Branch::default()
            }),
        };
    }
    if world.fires(Fault::WalletOtherBranch, || NETWORKS[index].0.into()) {
        // The truth, but of another branch: another payment's, or the other side of this one.
        let books = world.wallets[index].books();
        let other = draw(books.branches.len().max(1) as u64) as usize;
        let other = books.branches.iter().nth(other).filter(|(key, _)| key.0 != payment);
        return match other {
            Some((key, kept)) => Ok(kept.message(key.1)),
            None => result.map(|branch| Branch {
                branch: if branch.branch == "debit" { "credit" } else { "debit" }.into(),
                ..branch
            }),
        };
    }
    if world.fires(Fault::WalletError, || NETWORKS[index].0.into()) {
        let codes = [
            Code::Unknown,
            Code::Internal,
            Code::Aborted,
            Code::ResourceExhausted,
            // Of a router in between, without the detail that would make it mean something.
            Code::NotFound,
            Code::DataLoss,
            // Before the decision these abort a payment.
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::Unimplemented,
        ];
        let code = codes[draw(codes.len() as u64) as usize];
        if matches!(
            code,
            Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented
        ) {
            world.log(Event::Wallet {
                network: Network(index),
                payment,
                branch: branch_name(&request.branch),
                act: Act::Rejected,
            });
        }
        return Err(Status::new(code, "broken"));
    }
    if world.wallets[index].rogue && world.fires(Fault::WalletLied, || NETWORKS[index].0.into()) {
        let states = [State::Prepared, State::Refused, State::Committed, State::Aborted];
        let lie = states[draw(4) as usize];
        let truth = result.as_ref().map(|branch| branch.state()).ok();
        // A refusal for a made-up reason is a lie too.
        if truth != Some(lie) || lie == State::Refused {
            world.log(Event::Wallet {
                network: Network(index),
                payment,
                branch: branch_name(&request.branch),
                act: Act::Lied,
            });
        }
        return Ok(Branch {
            payment: request.payment.clone(),
            branch: request.branch.clone(),
            state: lie.into(),
            reference: "L".into(),
            refusal: (lie == State::Refused).then(|| Refusal {
                code: "AM04".into(),
                detail: String::new(),
            }),
        });
    }
    result
}

/// Starts the process anew whenever it has died.
pub async fn supervise(world: Shared, network: Network) {
    let wallet = &world.wallets[network.0];
    loop {
        world.spawn(wallet.node, ask_when_in_doubt(Arc::clone(&world), network));
        world.executor.death(wallet.node).await;
        wallet.lose_unsynced(&world);
        let down_ms = 10 + world.executor.draw(5_000);
        world.sleep_ms(down_ms).await;
        world.executor.start(wallet.node);
    }
}

/// Past the lifetime of a hold its network asks for the decision, and never lets go before it has one.
async fn ask_when_in_doubt(world: Shared, network: Network) {
    let wallet = &world.wallets[network.0];
    let runtime = world.executor.runtime(wallet.node);
    loop {
        let wait_ms = if world.plan.impatient { 500 } else { 5_000 };
        runtime.sleep(std::time::Duration::from_millis(wait_ms)).await;
        let now_ms = runtime.now_ms();
        let doubtful: Vec<(Key, Arc<str>)> = {
            let books = wallet.books();
            let due = books.prepared.iter().map(|key| (*key, &books.branches[key]));
            due.filter(|(_, kept)| world.plan.impatient || kept.hold_expire_ms < now_ms)
                .map(|(key, kept)| (key, Arc::clone(&kept.name)))
                .take(100)
                .collect()
        };
        for (key, name) in doubtful {
            ask(&world, network, key, &name).await;
        }
    }
}

async fn ask(world: &Shared, network: Network, key: Key, name: &str) {
    let wallet = &world.wallets[network.0];
    let principal = cast::principal(network.0);
    let message = pb::GetDecisionRequest {
        payment: name.to_owned(),
    };
    let gateway = world.executor.draw(world.gateways.len() as u64) as usize;
    let call = world.call(wallet.node, gateway, move |api| {
        Box::pin(async move { api.get_decision(request(&principal, message, None)).await })
    });
    let answered = tokio::select! {
        biased;
        answered = call => answered,
        () = world.executor.sleep_us(5_000_000) => return,
    };
    let Ok(response) = answered else { return };
    let decision = response.into_inner().decision();
    world.log(Event::DecisionTold {
        network,
        payment: key.0,
        decision: decision.into(),
    });
    {
        let mut books = wallet.books();
        let prepared = books
            .branches
            .get(&key)
            .filter(|kept| kept.state == State::Prepared)
            .cloned();
        match (decision, prepared) {
            (Decision::Commit, Some(kept)) => drop(books.settle(key, kept, State::Committed, false)),
            (Decision::Abort, Some(kept)) => drop(books.settle(key, kept, State::Aborted, false)),
            (_, None) | (Decision::Pending | Decision::Unspecified, _) => {}
        }
    }
    wallet.sync(world).await;
}
