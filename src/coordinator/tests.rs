//! The driver between a store that can be held back and partners that answer as they are told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    protocol::{Answer, Command, Phase},
    *,
};
use crate::{
    feed::Subscription,
    participant::{Answering, Call},
    payment::{BranchId, Quote, QuoteId, Reason},
    runtime::TokioRuntime,
    store::{
        Append, AppendOutcome, Begin, BeginOutcome, Change, History, ListQuery, Listed, Pending, SqliteOptions,
        SqliteStore, StoredQuote,
    },
};

/// How long anything may take that has to happen.
const BOUND: Duration = Duration::from_secs(20);

/// A real store behind a gate: a write waits for a ticket, or is turned away.
struct Gated {
    inner: SqliteStore,
    tickets: Semaphore,
    waiting: AtomicUsize,
    refusals: AtomicUsize,
    /// What a page that was read a while ago says has not ended.
    stale: Mutex<Vec<PaymentId>>,
}

struct GatedStore(Arc<Gated>);

impl Gated {
    fn new(folder: &std::path::Path, tickets: usize) -> Arc<Self> {
        let inner = SqliteStore::open(SqliteOptions::new(folder.join("store.sqlite"))).unwrap();
        Arc::new(Self {
            inner,
            tickets: Semaphore::new(tickets),
            waiting: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            stale: Mutex::default(),
        })
    }

    fn pass<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&SqliteStore) -> Pending<T> + Send + 'static,
    ) -> Pending<T> {
        let this = Arc::clone(self);
        Box::pin(async move {
            this.waiting.fetch_add(1, Ordering::SeqCst);
            this.tickets.acquire().await.unwrap().forget();
            this.waiting.fetch_sub(1, Ordering::SeqCst);
            let refused = this
                .refusals
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if refused.is_ok() {
                return Err(StoreError::Unavailable("the disk is full".into()));
            }
            write(&this.inner).await
        })
    }
}

impl Store for GatedStore {
    fn begin(&self, begin: Begin) -> Pending<BeginOutcome> {
        self.0.pass(move |store| store.begin(begin))
    }
    fn append(&self, append: Append) -> Pending<AppendOutcome> {
        self.0.pass(move |store| store.append(append))
    }
    fn put_quote(&self, quote: Quote) -> Pending<()> {
        self.0.inner.put_quote(quote)
    }
    fn forget_quotes(&self, lapsed_before_ms: i64) -> Pending<usize> {
        self.0.inner.forget_quotes(lapsed_before_ms)
    }
    fn quote(&self, id: QuoteId) -> Pending<Option<StoredQuote>> {
        self.0.inner.quote(id)
    }
    fn payment(&self, id: PaymentId) -> Pending<Option<History>> {
        self.0.inner.payment(id)
    }
    fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Pending<Vec<PaymentId>> {
        let stale = std::mem::take(&mut *self.0.stale.lock().unwrap());
        match stale.is_empty() {
            true => self.0.inner.unfinished(after, limit),
            false => Box::pin(async move { Ok(stale) }),
        }
    }
    fn list(&self, query: ListQuery) -> Pending<Vec<Listed>> {
        self.0.inner.list(query)
    }
    fn changes(&self, after: u64, limit: usize) -> Pending<Vec<Change>> {
        self.0.inner.changes(after, limit)
    }
    fn feed(&self) -> Subscription {
        self.0.inner.feed()
    }
    fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.0.inner.failure()
    }
}

/// A partner that answers what it was told to, in order, and then waits to be told more.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<Answer>>,
    told: Notify,
    heard: Arc<Mutex<Vec<(BranchId, Command)>>>,
}

impl Scripted {
    fn tell(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().extend(answers);
        self.told.notify_waiters();
    }

    fn heard(&self) -> Vec<Command> {
        self.heard.lock().unwrap().iter().map(|(_, command)| *command).collect()
    }
}

struct Handed(Arc<Scripted>);

impl Participant for Handed {
    fn call(&self, call: Call) -> Answering {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            this.heard.lock().unwrap().push((call.branch, call.command));
            loop {
                let told = this.told.notified();
                tokio::pin!(told);
                told.as_mut().enable();
                let next = this.script.lock().unwrap().pop_front();
                match next {
                    Some(answer) => return answer,
                    None => told.await,
                }
            }
        })
    }
}

struct Bench {
    coordinator: Coordinator,
    debit: Arc<Scripted>,
    credit: Arc<Scripted>,
}

fn bench(store: &Arc<Gated>) -> Bench {
    let (debit, credit) = (Arc::<Scripted>::default(), Arc::<Scripted>::default());
    let terms = protocol::test_terms(0);
    let participants: BTreeMap<PartnerName, Arc<dyn Participant>> = [
        (
            terms.order.payer.partner.clone(),
            Arc::new(Handed(Arc::clone(&debit))) as Arc<dyn Participant>,
        ),
        (
            terms.order.payee.partner.clone(),
            Arc::new(Handed(Arc::clone(&credit))) as Arc<dyn Participant>,
        ),
    ]
    .into();
    let policy = Policy {
        voting_ladder_ms: vec![10],
        delivery_ladder_ms: vec![10],
        jitter_percent: 0,
    };
    let options = Options {
        policy,
        ..Options::default()
    };
    let store: Arc<dyn Store> = Arc::new(GatedStore(Arc::clone(store)));
    Bench {
        coordinator: Coordinator::new(store, participants, options, TokioRuntime::shared()),
        debit,
        credit,
    }
}

/// Terms that can be decided for a minute from now.
fn terms() -> Arc<Terms> {
    protocol::test_terms(TokioRuntime::shared().now_ms())
}

fn prepared() -> Answer {
    Answer::Prepared { reference: "H".into() }
}

fn committed() -> Answer {
    Answer::Committed { reference: "M".into() }
}

fn refused() -> Answer {
    Answer::Refused(Outcome::new(Reason::InsufficientFunds, "", None))
}

async fn until(what: &str, test: impl Fn() -> bool) {
    let waited = tokio::time::timeout(BOUND, async {
        while !test() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// What a future answers, which it has to in time.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("took too long")
}

/// Everything that is ready to run has run: a task that meant to send something has sent it.
async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_leaves_before_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 0);
    let bench = bench(&store);
    let (id, handle) = (terms().id, bench.coordinator.begin(terms()).unwrap());
    until("the beginning at the gate", || {
        store.waiting.load(Ordering::SeqCst) == 1
    })
    .await;
    settle().await;
    assert_eq!(bench.debit.heard(), [], "no Prepare before the beginning is durable");
    assert!(handle.now().is_none(), "and nobody is told of it");

    store.tickets.add_permits(1);
    until("both Prepares", || {
        bench.debit.heard().len() + bench.credit.heard().len() == 2
    })
    .await;
    bench.debit.tell([prepared()]);
    bench.credit.tell([prepared()]);
    until("the decision at the gate", || store.waiting.load(Ordering::SeqCst) == 1).await;
    settle().await;
    assert_eq!(
        bench.debit.heard(),
        [Command::Prepare],
        "no Commit before the decision is durable"
    );
    assert!(
        matches!(handle.now().unwrap().phase, Phase::Preparing),
        "and nobody is told of it"
    );

    store.tickets.add_permits(1);
    until("both Commits", || {
        bench.debit.heard().len() + bench.credit.heard().len() == 4
    })
    .await;
    bench.debit.tell([committed()]);
    bench.credit.tell([committed()]);
    // That both have acknowledged is so, whether or not it is written.
    let mut handle = bench.coordinator.attach(id).unwrap();
    let done = within(handle.when(Transaction::has_ended)).await.unwrap();
    assert!(matches!(done.phase, Phase::Completed { .. }));
    store.tickets.add_permits(1);
    until("the driver's end", || bench.coordinator.live_count() == 0).await;
}

#[tokio::test]
async fn a_store_that_turns_writes_away_delays_the_decision_and_loses_nothing() {
    for (debit, commits) in [(prepared(), true), (refused(), false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Gated::new(folder.path(), 1_000);
        let bench = bench(&store);
        within(bench.coordinator.begin(terms()).unwrap().begun()).await.unwrap();
        store.refusals.store(3, Ordering::SeqCst);
        bench.debit.tell([debit]);
        bench.credit.tell([prepared()]);
        until("the refusals", || store.refusals.load(Ordering::SeqCst) == 0).await;
        match commits {
            true => {
                bench.debit.tell([committed()]);
                bench.credit.tell([committed()]);
            }
            false => bench.credit.tell([Answer::Aborted]),
        }
        until("the driver's end", || bench.coordinator.live_count() == 0).await;
        let end = bench.coordinator.find(terms().id).await.unwrap().unwrap();
        assert_eq!(matches!(end.phase, Phase::Completed { .. }), commits, "{:?}", end.phase);
    }
}

#[tokio::test]
async fn a_beginning_that_the_store_turns_away_began_nothing_and_may_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let bench = bench(&store);
    store.refusals.store(1, Ordering::SeqCst);
    let refused = within(bench.coordinator.begin(terms()).unwrap().begun()).await;
    assert!(
        matches!(refused, Err(BeginError::Store(StoreError::Unavailable(_)))),
        "{refused:?}"
    );
    until("the seat is free", || bench.coordinator.live_count() == 0).await;
    assert!(bench.coordinator.find(terms().id).await.unwrap().is_none());
    assert_eq!(bench.debit.heard(), []);
    within(bench.coordinator.begin(terms()).unwrap().begun()).await.unwrap();
}

#[tokio::test]
async fn of_two_coordinators_on_one_store_the_first_decides_and_the_other_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let (slow, quick) = (bench(&store), bench(&store));
    let id = terms().id;
    let handle = slow.coordinator.begin(terms()).unwrap();
    within(handle.clone().begun()).await.unwrap();
    until("the first Prepares", || {
        slow.debit.heard().len() + slow.credit.heard().len() == 2
    })
    .await;

    // The other one takes it up, is answered, and commits.
    assert_eq!(quick.coordinator.recover().await.unwrap(), 1);
    for partner in [&quick.debit, &quick.credit] {
        partner.tell([prepared(), committed()]);
    }
    until("the quick one's end", || quick.coordinator.live_count() == 0).await;

    // Only now does the slow one hear, and what it hears would make it abort.
    slow.debit.tell([refused()]);
    slow.credit.tell([prepared()]);
    let mut handle = slow.coordinator.attach(id).unwrap();
    let seen = within(handle.when(Transaction::has_ended)).await.unwrap();
    assert!(matches!(seen.phase, Phase::Completed { .. }), "{:?}", seen.phase);
    until("the slow one's end", || slow.coordinator.live_count() == 0).await;
    for partner in [&slow.debit, &slow.credit] {
        assert!(
            !partner.heard().contains(&Command::Abort),
            "what it decided was not sent: {:?}",
            partner.heard()
        );
    }
    let stored = store.inner.payment(id).await.unwrap().unwrap();
    assert_eq!(stored.records.len(), 3, "one beginning, one decision, one end");
}

#[tokio::test]
async fn a_cancellation_wakes_a_payment_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let bench = bench(&store);
    within(bench.coordinator.begin(terms()).unwrap().begun()).await.unwrap();
    until("both Prepares", || {
        bench.debit.heard().len() + bench.credit.heard().len() == 2
    })
    .await;
    let cancelled = bench
        .coordinator
        .cancel(terms().id, Outcome::new(Reason::Cancelled, "", None))
        .await
        .unwrap();
    assert!(matches!(&cancelled.phase, Phase::Aborting { outcome, .. } if outcome.reason == Reason::Cancelled));
    until("the Aborts", || bench.credit.heard().last() == Some(&Command::Abort)).await;
    bench.debit.tell([Answer::Aborted]);
    bench.credit.tell([Answer::Aborted]);
    until("the driver's end", || bench.coordinator.live_count() == 0).await;
    assert_eq!(bench.debit.heard(), [Command::Prepare, Command::Abort]);
}

#[tokio::test]
async fn a_partner_has_so_much_room_and_decisions_do_not_queue_behind_votes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let mut bench = bench(&store);
    let shared = Arc::get_mut(&mut bench.coordinator.shared).unwrap();
    for peer in shared.participants.values_mut() {
        peer.voting.room = Semaphore::new(1);
        peer.deciding.room = Semaphore::new(1);
    }
    let now_ms = TokioRuntime::shared().now_ms();
    let payments: Vec<_> = (0..3)
        .map(|n| protocol::test_terms_of(&format!("r-{n}"), now_ms))
        .collect();
    for terms in &payments {
        bench
            .coordinator
            .begin(Arc::clone(terms))
            .unwrap()
            .begun()
            .await
            .unwrap();
    }
    until("a first Prepare", || !bench.debit.heard().is_empty()).await;
    settle().await;
    assert_eq!(bench.debit.heard(), [Command::Prepare], "the others wait for room");
    // Cancelled while its own Prepare, and two more, stand in line: its Abort passes them.
    bench
        .coordinator
        .cancel(payments[2].id, Outcome::new(Reason::Cancelled, "", None))
        .await
        .unwrap();
    until("an Abort", || bench.debit.heard().contains(&Command::Abort)).await;
    assert_eq!(bench.debit.heard(), [Command::Prepare, Command::Abort]);
}

/// A payment that the bench has carried to its end.
async fn completed(bench: &Bench) {
    within(bench.coordinator.begin(terms()).unwrap().begun()).await.unwrap();
    for partner in [&bench.debit, &bench.credit] {
        partner.tell([prepared(), committed()]);
    }
    until("the driver's end", || bench.coordinator.live_count() == 0).await;
}

#[tokio::test]
async fn a_payment_that_ended_since_the_page_was_read_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let bench = bench(&store);
    completed(&bench).await;
    let heard = bench.debit.heard().len();
    *store.stale.lock().unwrap() = vec![terms().id];
    bench.coordinator.recover().await.unwrap();
    let seen = within(bench.coordinator.find(terms().id)).await.unwrap().unwrap();
    assert!(
        matches!(seen.phase, Phase::Completed { .. }),
        "it never shows less than its end: {:?}",
        seen.phase
    );
    until("the driver's end", || bench.coordinator.live_count() == 0).await;
    settle().await;
    assert_eq!(bench.debit.heard().len(), heard, "nothing is sent for it");
}

#[tokio::test]
async fn an_end_that_the_store_turns_away_is_written_when_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let bench = bench(&store);
    within(bench.coordinator.begin(terms()).unwrap().begun()).await.unwrap();
    bench.debit.tell([prepared()]);
    bench.credit.tell([prepared()]);
    until("both Commits", || {
        bench.debit.heard().len() + bench.credit.heard().len() == 4
    })
    .await;
    store.refusals.store(2, Ordering::SeqCst);
    bench.debit.tell([committed()]);
    bench.credit.tell([committed()]);
    until("the driver's end", || bench.coordinator.live_count() == 0).await;
    assert_eq!(store.refusals.load(Ordering::SeqCst), 0);
    assert_eq!(store.inner.payment(terms().id).await.unwrap().unwrap().records.len(), 3);
}

#[tokio::test]
async fn a_payment_that_cannot_be_read_does_not_keep_the_others_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let now_ms = TokioRuntime::shared().now_ms();
    let payments: Vec<_> = (0..5)
        .map(|n| protocol::test_terms_of(&format!("r-{n}"), now_ms))
        .collect();
    let store = SqliteStore::open(SqliteOptions::new(&path)).unwrap();
    for terms in &payments {
        let event = protocol::Event::Begun(Arc::clone(terms));
        let record = protocol::Record {
            at_ms: terms.begin_ms,
            event,
        };
        store
            .begin(Begin {
                terms: Arc::clone(terms),
                record,
            })
            .await
            .unwrap();
    }
    drop(store);
    let file = rusqlite::Connection::open(&path).unwrap();
    let damaged = payments[2].id;
    let changed = file
        .execute("UPDATE record SET data = x'FFFF' WHERE id = ?1", [damaged.as_bytes()])
        .unwrap();
    assert_eq!(changed, 1);
    drop(file);

    let store = Gated::new(folder.path(), 1_000);
    let bench = bench(&store);
    bench.coordinator.recover().await.unwrap();
    until("the others' Prepares", || bench.debit.heard().len() == 4).await;
    let unreadable = bench.coordinator.find(damaged).await;
    assert!(matches!(unreadable, Err(StoreError::Damaged(_))), "{unreadable:?}");
    // Watchers and lists pass it by.
    let changes = store.inner.changes(0, 10).await.unwrap();
    let read = changes
        .iter()
        .filter(|change| matches!(change.state, State::Present(_)))
        .count();
    assert_eq!((changes.len(), read), (5, 4));
    let listed = store
        .inner
        .list(ListQuery {
            limit: 10,
            ..ListQuery::default()
        })
        .await
        .unwrap();
    let readable = listed.iter().filter(|listed| listed.history.is_ok()).count();
    assert_eq!((listed.len(), readable), (5, 4));
}

#[tokio::test]
async fn a_beginning_that_was_durable_too_late_asks_nobody_for_a_vote() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 0);
    let bench = bench(&store);
    let mut terms = (*terms()).clone();
    terms.decide_by_ms = TokioRuntime::shared().now_ms() + 20;
    let decide_by_ms = terms.decide_by_ms;
    let handle = bench.coordinator.begin(Arc::new(terms)).unwrap();
    // The disk is slower than the time to decide.
    until("decide_by", || TokioRuntime::shared().now_ms() > decide_by_ms).await;
    store.tickets.add_permits(2);
    let mut handle = handle;
    let seen = within(handle.when(|transaction| transaction.decision().is_some()))
        .await
        .unwrap();
    assert!(matches!(&seen.phase, Phase::Aborting { outcome, .. } if outcome.reason == Reason::VotingTimedOut));
    until("the Aborts", || {
        bench.debit.heard().len() + bench.credit.heard().len() == 2
    })
    .await;
    for partner in [&bench.debit, &bench.credit] {
        assert_eq!(partner.heard(), [Command::Abort], "promise 9");
    }
}

#[tokio::test]
async fn a_payment_that_waits_for_the_store_holds_up_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::new(folder.path(), 1_000);
    let mut bench = bench(&store);
    let shared = Arc::get_mut(&mut bench.coordinator.shared).unwrap();
    for peer in shared.participants.values_mut() {
        peer.deciding.room = Semaphore::new(1);
    }
    let now_ms = TokioRuntime::shared().now_ms();
    let payments: Vec<_> = (0..2)
        .map(|n| protocol::test_terms_of(&format!("r-{n}"), now_ms))
        .collect();
    for terms in &payments {
        within(bench.coordinator.begin(Arc::clone(terms)).unwrap().begun())
            .await
            .unwrap();
    }
    until("every Prepare", || {
        bench.debit.heard().len() + bench.credit.heard().len() == 4
    })
    .await;
    for partner in [&bench.debit, &bench.credit] {
        partner.tell([prepared(), prepared()]);
    }
    for terms in &payments {
        let mut handle = bench.coordinator.attach(terms.id).unwrap();
        within(handle.when(|transaction| transaction.decision().is_some()))
            .await
            .unwrap();
    }
    // One Commit is at the credit's partner and one stands in line behind it; both are at the debit's or in line there.
    until("a Commit at each", || {
        [&bench.debit, &bench.credit]
            .iter()
            .all(|partner| partner.heard().contains(&Command::Commit))
    })
    .await;
    // The store takes no more writes, and the debit's partner contradicts: that payment's driver is stuck.
    let tickets = store.tickets.available_permits();
    store.tickets.forget_permits(tickets);
    bench.debit.tell([Answer::Aborted]);
    until("a dispute at the gate", || store.waiting.load(Ordering::SeqCst) == 1).await;
    // Both Commits to the credit's partner are answered all the same, whichever of them was first in line.
    bench.credit.tell([committed(), committed()]);
    until("both Commits at the credit's partner", || {
        bench
            .credit
            .heard()
            .iter()
            .filter(|command| **command == Command::Commit)
            .count()
            == 2
    })
    .await;
    store.tickets.add_permits(1_000);
    bench.debit.tell([committed()]);
    until("the drivers' end", || bench.coordinator.live_count() == 0).await;
}
