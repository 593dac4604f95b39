//! One payment's task: feeds the core, makes its records durable, releases its effects.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    BeginError, HaltPoint, Shared, View,
    live::{Leave, Seat, present},
    protocol::{
        Answer, Command, Decision, Durability, Effect, Event, Input, Knowledge, Record, State, Step, apply, decide,
        fold, wake_at,
    },
};
use crate::{
    participant::Call,
    payment::{BranchId, PaymentId, Terms},
    runtime::Job,
    store::{Append, AppendOutcome, Begin, BeginOutcome, StoreError},
};

/// How long to wait before a write that the store turned away is tried again.
const STORE_RETRY: Duration = Duration::from_millis(250);
/// As slow as an answer that does not come.
const UNCONFIGURED_PAUSE: Duration = Duration::from_secs(1);
/// No sleep is longer: a clock that was set shows at the latest then.
const SLEEP_MAX: Duration = Duration::from_secs(60);

pub struct Driver {
    shared: Arc<Shared>,
    id: PaymentId,
    seat: Seat,
    state: State,
    calls: Calls,
}

/// Why a driver lets go of a payment that has not ended.
enum Gone {
    /// The store takes no more writes.
    Store(StoreError),
}

impl Driver {
    /// In a box: it moves from one future into the next, and would be kept in each.
    pub fn new(shared: Arc<Shared>, id: PaymentId, seat: Seat) -> Box<Self> {
        Box::new(Self {
            shared,
            id,
            seat,
            state: State::Absent,
            calls: Calls::default(),
        })
    }

    /// Begins the payment and drives it to its end.
    pub async fn run_new(mut self: Box<Self>, terms: Arc<Terms>) {
        let shared = Arc::clone(&self.shared);
        let _leave = Leave {
            live: &shared.live,
            id: self.id,
        };
        // Boxed, so that a payment that waits does not carry the room for its beginning.
        match Box::pin(self.begin(terms)).await {
            Ok(true) => self.drive().await,
            // Begun before: by an earlier process, or by another gateway. Its own driver, or recovery, sees to it.
            Ok(false) => match Box::pin(self.reload()).await {
                Ok(()) => self.drive_on().await,
                Err(Gone::Store(error)) => self.show(View::Failed(error.into())),
            },
            Err(error) => self.show(View::Failed(error)),
        }
    }

    /// Goes on with a payment that nobody drives, from where the store has it.
    pub async fn run_recovered(mut self: Box<Self>) {
        let shared = Arc::clone(&self.shared);
        let _leave = Leave {
            live: &shared.live,
            id: self.id,
        };
        match Box::pin(self.load()).await {
            // It has ended, or waits for an operator: there is nothing to drive.
            Ok(()) if self.is_quiet() => {}
            Ok(()) => self.drive_on().await,
            // One that cannot be read keeps neither the others waiting nor those who ask for it: the next search comes
            // back to it.
            Err(error) => {
                self.give_up(&error);
                self.show(View::Failed(error.into()));
            }
        }
    }

    async fn begin(&mut self, terms: Arc<Terms>) -> Result<bool, BeginError> {
        let now_ms = self.shared.runtime.now_ms();
        let step = decide(
            &self.shared.options.policy,
            &State::Absent,
            Input::Begin(Arc::clone(&terms)),
            now_ms,
        );
        self.halt(Some(HaltPoint::BeforeBegun)).await;
        let begin = Begin {
            terms,
            record: step.records[0].clone(),
        };
        match self.shared.store.begin(begin).await? {
            BeginOutcome::Begun => {}
            BeginOutcome::Exists => return Ok(false),
            BeginOutcome::QuoteTaken { by } => return Err(BeginError::QuoteTaken { by }),
        }
        self.state = apply(State::Absent, &step.records[0]);
        self.publish();
        self.halt(Some(HaltPoint::AfterBegun)).await;
        let rest = Step {
            records: step.records[1..].to_vec(),
            effects: step.effects,
        };
        if rest
            .records
            .iter()
            .any(|record| record.event.durability() > Durability::Volatile)
        {
            // The beginning was durable too late to vote: decide again, as after a restart.
            self.state_input(Input::Recover)
                .await
                .map_err(|Gone::Store(error)| error)?;
        } else {
            self.advance(&rest.records);
            self.release(rest.effects);
        }
        Ok(true)
    }

    async fn drive_on(&mut self) {
        match Box::pin(self.state_input(Input::Recover)).await {
            Ok(()) => self.drive().await,
            Err(Gone::Store(error)) => self.give_up(&error),
        }
    }

    /// Until nothing is left to do.
    async fn drive(&mut self) {
        while !self.is_quiet() {
            let input = self.next_input().await;
            if let Err(Gone::Store(error)) = Box::pin(self.state_input(input)).await {
                return self.give_up(&error);
            }
        }
    }

    async fn next_input(&mut self) -> Input {
        let wake = wake_at(&self.state).map(|at_ms| {
            let wait_ms = at_ms.saturating_sub(self.shared.runtime.now_ms()).max(0) as u64;
            self.shared.runtime.sleep(Duration::from_millis(wait_ms).min(SLEEP_MAX))
        });
        tokio::select! {
            // A cancellation before the vote that would decide; both before the clock, so that an answer that came in
            // time is not called late.
            biased;
            outcome = self.seat.mailbox.cancelled() => Input::Cancel(outcome),
            (branch, attempt, answer) = self.calls.next() => {
                tracing::debug!(payment = %self.id, branch = branch.name(), attempt, ?answer, "answered");
                Input::Answer { branch, attempt, answer }
            }
            () = async {
                match wake {
                    Some(wait) => wait.await,
                    None => std::future::pending().await,
                }
            } => Input::Wake,
        }
    }

    /// Takes one input through the core. A write that the store turns away is tried again with a decision made anew, for
    /// time has passed; nothing of the refused step has been released.
    async fn state_input(&mut self, mut input: Input) -> Result<(), Gone> {
        loop {
            let now_ms = self.shared.runtime.now_ms();
            let step = decide(&self.shared.options.policy, &self.state, input.clone(), now_ms);
            match self.take(step).await {
                Ok(true) => return Ok(()),
                // Another coordinator was first: what it decided stands.
                Ok(false) => {
                    let expected_version = self.version();
                    self.reload().await?;
                    self.calls.clear();
                    if self.version() == expected_version {
                        let problem = format!("{}: its records are not as many as its version says", self.id);
                        return Err(Gone::Store(StoreError::Damaged(problem)));
                    }
                    input = Input::Recover;
                }
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(payment = %self.id, error, "a step waits for the store");
                    self.shared.runtime.sleep(STORE_RETRY).await;
                }
                Err(error) => return Err(Gone::Store(error)),
            }
        }
    }

    /// Makes a step true: forced records first, then effects. False if the store has gone on without us.
    async fn take(&mut self, step: Step) -> Result<bool, StoreError> {
        let durable: Vec<Record> = step
            .records
            .iter()
            .filter(|record| record.event.durability() > Durability::Volatile)
            .cloned()
            .collect();
        if durable.is_empty() {
            self.advance(&step.records);
            self.release(step.effects);
            return Ok(true);
        }
        let State::Present(before) = &self.state else {
            unreachable!("a payment begins by Driver::begin")
        };
        let (expected_version, known) = (before.version, before.knowledge());
        let states = after_each_durable(&self.state, &step.records);
        let forced = durable
            .iter()
            .any(|record| record.event.durability() == Durability::Forced);
        let points = HaltPoints::of(&durable);

        self.halt(points.before).await;
        let append = Append {
            id: self.id,
            expected_version,
            records: durable,
            states,
        };
        let mut appended = self.shared.store.append(append.clone());
        if !forced {
            // Every branch has acknowledged: that is so, whether or not it is written down.
            self.advance(&step.records);
            self.publish();
        }
        let outcome = loop {
            match appended.await {
                // What every branch has acknowledged is not decided again; it only remains to be written.
                Err(StoreError::Unavailable(error)) if !forced => {
                    tracing::warn!(payment = %self.id, error, "an end waits for the store");
                    self.shared.runtime.sleep(STORE_RETRY).await;
                    appended = self.shared.store.append(append.clone());
                }
                outcome => break outcome?,
            }
        };
        match outcome {
            AppendOutcome::Appended => {}
            AppendOutcome::Conflict { stored_version } => {
                tracing::info!(payment = %self.id, expected_version, stored_version, "another coordinator was first");
                return Ok(false);
            }
        }
        if forced {
            self.advance(&step.records);
            self.publish();
            self.raise_alarm(known, &step.records);
        }
        self.halt(points.after).await;
        self.release(step.effects);
        Ok(true)
    }

    fn advance(&mut self, records: &[Record]) {
        let state = std::mem::take(&mut self.state);
        self.state = records.iter().fold(state, apply);
    }

    fn release(&mut self, effects: Vec<Effect>) {
        let State::Present(transaction) = &self.state else {
            return;
        };
        for Effect::Send {
            branch,
            command,
            attempt,
        } in effects
        {
            let terms = Arc::clone(&transaction.terms);
            let partner = &terms.branches[branch.index()].party.partner;
            tracing::debug!(payment = %self.id, branch = branch.name(), %partner, ?command, attempt, "sent");
            let hurry = Hurry {
                decided: transaction.decision().is_some(),
                repeated: transaction.branch(branch).failures > 0,
            };
            let call = send(Arc::clone(&self.shared), Arc::clone(&terms), branch, command, hurry);
            self.calls
                .start(branch, attempt, Job::start(&*self.shared.runtime, call));
        }
    }

    async fn reload(&mut self) -> Result<(), Gone> {
        loop {
            match self.load().await {
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(payment = %self.id, error, "a payment waits for the store");
                    self.shared.runtime.sleep(STORE_RETRY).await;
                }
                loaded => return loaded.map_err(Gone::Store),
            }
        }
    }

    /// Takes the state from the store.
    async fn load(&mut self) -> Result<(), StoreError> {
        let history = self.shared.store.payment(self.id).await?;
        let records = history.map(|history| history.records).unwrap_or_default();
        self.state = fold(&records).map_err(|impossible| StoreError::Damaged(format!("{}: {impossible}", self.id)))?;
        self.publish();
        Ok(())
    }

    /// Stops for ever at the point if it is armed. Not an async fn: its future must not hold on to the calls in flight.
    fn halt(&self, point: Option<HaltPoint>) -> impl Future<Output = ()> + Send + use<> {
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        async move {
            if let Some(point) = point {
                shared.options.halts.reach(point, id).await;
            }
        }
    }

    fn version(&self) -> u32 {
        match &self.state {
            State::Absent => 0,
            State::Present(transaction) => transaction.version,
        }
    }

    fn is_quiet(&self) -> bool {
        match &self.state {
            State::Absent => true,
            State::Present(transaction) => transaction.is_quiet(),
        }
    }

    fn publish(&self) {
        if let State::Present(transaction) = &self.state {
            self.show(present(transaction.clone()));
        }
    }

    /// A person acts on this one: two networks say different things about the same money. `known` is what was known of each
    /// branch before the step: evidence that is only completed is no second alarm.
    fn raise_alarm(&self, mut known: Vec<Knowledge>, records: &[Record]) {
        let State::Present(transaction) = &self.state else {
            return;
        };
        for record in records {
            let Event::Disputed { outcome, branches } = &record.event else {
                continue;
            };
            let (reason, detail) = (outcome.reason.name(), &outcome.detail);
            let parties = transaction.terms.branches.iter().map(|branch| &branch.party.partner);
            for ((partner, before), after) in parties.zip(&known).zip(branches) {
                if *after != Knowledge::Contradicted || before == after {
                    continue;
                }
                tracing::error!(
                    payment = %self.id, %partner, reason, detail,
                    "a payment is disputed and waits for an operator"
                );
                // Not there if it was taken out of the configuration since: then nobody counts for it either.
                if let Some(peer) = self.shared.participants.get(partner) {
                    peer.participant.contradicted(outcome.reason);
                }
            }
            known.clone_from(branches);
        }
    }

    fn show(&self, view: View) {
        self.seat.view.send_replace(view);
    }

    fn give_up(&self, error: &StoreError) {
        tracing::error!(payment = %self.id, %error, "a payment is left to recovery");
    }
}

/// The state after each durable record of a step.
fn after_each_durable(state: &State, records: &[Record]) -> Vec<State> {
    let mut state = state.clone();
    let mut states = Vec::new();
    for record in records {
        state = apply(state, record);
        if record.event.durability() > Durability::Volatile {
            states.push(state.clone());
        }
    }
    states
}

/// How a command stands in line.
#[derive(Clone, Copy)]
struct Hurry {
    /// It follows a decision.
    decided: bool,
    /// It was sent before, to no avail.
    repeated: bool,
}

/// Sends a command when there is room for it at its partner. Small while it waits: ten thousand of them do.
async fn send(shared: Arc<Shared>, terms: Arc<Terms>, branch: BranchId, command: Command, hurry: Hurry) -> Answer {
    let Hurry { decided, repeated } = hurry;
    let partner = &terms.branches[branch.index()].party.partner;
    let Some(peer) = shared.participants.get(partner) else {
        // Taken out of the configuration while it had payments in flight: they wait for its return.
        shared.runtime.sleep(UNCONFIGURED_PAUSE).await;
        return Answer::Unknown {
            cause: format!("{command:?} has nowhere to go: the partner is not configured").into(),
        };
    };
    // A decision never queues behind votes.
    let lane = if decided { &peer.deciding } else { &peer.voting };
    if repeated {
        lane.redelivery.turn(&*shared.runtime).await;
    }
    let _place = lane.room.acquire().await.expect("the room is never closed");
    let now_ms = shared.runtime.now_ms();
    // Promise 9, to the last moment: a slow disk or a full room may have eaten the time up. The driver wakes and aborts.
    if command == Command::Prepare && now_ms > terms.decide_by_ms {
        return Answer::Unknown {
            cause: "never sent: the time to decide had passed".into(),
        };
    }
    let call = Call {
        terms: Arc::clone(&terms),
        branch,
        command,
        now_ms,
    };
    peer.participant.call(call).await
}

/// The points that a step's records lie between.
struct HaltPoints {
    before: Option<HaltPoint>,
    after: Option<HaltPoint>,
}

impl HaltPoints {
    fn of(records: &[Record]) -> Self {
        let (before, after) = match &records[0].event {
            Event::Decided {
                decision: Decision::Commit,
                ..
            } => (HaltPoint::BeforeCommitDecided, HaltPoint::AfterCommitDecided),
            Event::Decided {
                decision: Decision::Abort(_),
                ..
            } => (HaltPoint::BeforeAbortDecided, HaltPoint::AfterAbortDecided),
            Event::Ended { .. } => (HaltPoint::BeforeEnded, HaltPoint::AfterEnded),
            Event::Begun(_)
            | Event::Disputed { .. }
            | Event::Learned { .. }
            | Event::Asked { .. }
            | Event::Postponed { .. } => {
                return Self {
                    before: None,
                    after: None,
                };
            }
        };
        Self {
            before: Some(before),
            after: Some(after),
        }
    }
}

/// The calls in flight: one a branch. A new one takes the old one's place, and ends it. Each runs in a task of its own: while
/// the driver waits for the store, a call must not stand still in a line that others stand in too.
#[derive(Default)]
struct Calls {
    slots: Vec<Option<(u32, Job<Answer>)>>,
}

impl Calls {
    fn start(&mut self, branch: BranchId, attempt: u32, call: Job<Answer>) {
        if self.slots.len() <= branch.index() {
            self.slots.resize_with(branch.index() + 1, || None);
        }
        self.slots[branch.index()] = Some((attempt, call));
    }

    fn clear(&mut self) {
        self.slots.clear();
    }

    /// The next answer; never, if nothing is in flight.
    async fn next(&mut self) -> (BranchId, u32, Answer) {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(BranchId, u32, Answer)> {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some((attempt, call)) = slot
                && let Poll::Ready(answer) = Pin::new(call).poll(context)
            {
                let attempt = *attempt;
                *slot = None;
                let answer = answer.unwrap_or_else(|error| {
                    tracing::error!(%error, "a call failed");
                    Answer::Unknown {
                        cause: "the call's task failed".into(),
                    }
                });
                return Poll::Ready((BranchId::at(index), attempt, answer));
            }
        }
        Poll::Pending
    }
}
