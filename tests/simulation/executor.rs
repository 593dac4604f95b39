//! Virtual time and a scheduler that draws who goes next.
//!
//! Owns nodes (processes that start, stop and die), their tasks, timers and clocks. One task is polled at a time; which of
//! those that are ready is drawn from the seed. When none is ready, time jumps to the next timer. A node that is killed
//! loses its tasks where they stand, between two polls; one that is paused keeps them and its timers go by. There is no
//! thread, no socket and no real clock here: the same seed gives the same run.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use causeway::runtime::{Runtime, SharedRuntime, Sleep, Task};

use crate::random::Random;

/// 2026-01-05T00:00:00Z, a Monday: when every simulation begins, in milliseconds since the Unix epoch.
pub const START_MS: i64 = 1_767_571_200_000;
/// A run that needs more polls hangs.
const POLLS_MAX: u64 = 50_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// The scheduler.
pub struct Executor {
    inner: Mutex<Inner>,
    /// Ids of tasks that are ready, sorted: what was woken in one poll is the same set whatever the order, and tokio's watch
    /// channel wakes in an order of its own choice.
    ready: Arc<Mutex<Vec<usize>>>,
}

struct Inner {
    now_us: u64,
    random: Random,
    tasks: Vec<Option<Slot>>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(u64, u64, TimerCell)>>,
    timer_sequence: u64,
    nodes: Vec<Node>,
    polls: u64,
}

struct Slot {
    node: NodeId,
    /// Taken out while it is polled.
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

struct Node {
    name: String,
    alive: bool,
    paused: bool,
    /// Tasks that became ready while it was paused.
    parked: Vec<usize>,
    /// Dies at the poll after so many.
    doom: Option<u64>,
    /// Counts its lives.
    life: u64,
    clock: Clock,
    watchers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    offset_ms: i64,
    /// How much too fast, in millionths.
    rate_ppm: i64,
    /// What the wrong rate has added so far.
    drifted_us: i64,
    since_us: u64,
}

/// A timer's waker, gone when nobody waits for it any more.
#[derive(Clone, Default)]
struct TimerCell(Arc<Mutex<Option<Waker>>>);

impl PartialEq for TimerCell {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for TimerCell {}
impl PartialOrd for TimerCell {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for TimerCell {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        // Timers are told apart by their sequence.
        std::cmp::Ordering::Equal
    }
}

struct TaskWaker {
    id: usize,
    queued: AtomicBool,
    dead: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

fn insert(ready: &mut Vec<usize>, id: usize) {
    if let Err(place) = ready.binary_search(&id) {
        ready.insert(place, id);
    }
}

fn remove(ready: &mut Vec<usize>, id: usize) {
    if let Ok(place) = ready.binary_search(&id) {
        ready.remove(place);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.dead.load(Ordering::Relaxed) && !self.queued.swap(true, Ordering::Relaxed) {
            insert(&mut self.ready.lock().unwrap(), self.id);
        }
    }
}

impl Executor {
    pub fn new(random: Random) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                now_us: 0,
                random,
                tasks: Vec::new(),
                free: Vec::new(),
                timers: BinaryHeap::new(),
                timer_sequence: 0,
                nodes: Vec::new(),
                polls: 0,
            }),
            ready: Arc::default(),
        })
    }

    pub fn add_node(&self, name: impl Into<String>) -> NodeId {
        let mut inner = self.inner();
        inner.nodes.push(Node {
            name: name.into(),
            alive: true,
            paused: false,
            parked: Vec::new(),
            doom: None,
            life: 0,
            clock: Clock::default(),
            watchers: Vec::new(),
        });
        NodeId(inner.nodes.len() - 1)
    }

    /// The node's clocks, timers and tasks, for as long as it lives this life.
    pub fn runtime(self: &Arc<Self>, node: NodeId) -> SharedRuntime {
        let life = self.inner().nodes[node.0].life;
        Arc::new(NodeRuntime {
            executor: Arc::clone(self),
            node,
            life,
        })
    }

    /// Runs until the future is done. Panics if nothing can happen any more.
    pub fn run<T: Send + 'static>(
        self: &Arc<Self>,
        node: NodeId,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let result: Arc<Mutex<Option<T>>> = Arc::default();
        let out = Arc::clone(&result);
        self.spawn(node, Box::pin(async move { *out.lock().unwrap() = Some(future.await) }));
        loop {
            if let Some(value) = result.lock().unwrap().take() {
                return value;
            }
            assert!(self.step(), "nothing is left to happen, and the end was not reached");
        }
    }

    pub fn spawn(self: &Arc<Self>, node: NodeId, task: Task) {
        let mut inner = self.inner();
        if !inner.nodes[node.0].alive {
            return;
        }
        let id = inner.free.pop().unwrap_or_else(|| {
            inner.tasks.push(None);
            inner.tasks.len() - 1
        });
        let waker = Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(true),
            dead: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        inner.tasks[id] = Some(Slot {
            node,
            task: Some(task),
            waker,
        });
        insert(&mut self.ready.lock().unwrap(), id);
    }

    pub fn now_us(&self) -> u64 {
        self.inner().now_us
    }

    pub fn polls(&self) -> u64 {
        self.inner().polls
    }

    /// The true time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        START_MS + (self.now_us() / 1_000) as i64
    }

    /// What the node's wall clock says.
    pub fn clock_ms(&self, node: NodeId) -> i64 {
        let inner = self.inner();
        let drifted_us = inner.nodes[node.0].clock.drifted_us(inner.now_us);
        START_MS + (inner.now_us as i64 + drifted_us) / 1_000 + inner.nodes[node.0].clock.offset_ms
    }

    /// Draws below `limit` from the scheduler's own randomness.
    pub fn draw(&self, limit: u64) -> u64 {
        self.inner().random.below(limit)
    }

    pub fn sleep_us(self: &Arc<Self>, us: u64) -> SleepUntil {
        SleepUntil {
            executor: Arc::clone(self),
            at_us: self.now_us() + us,
            cell: None,
        }
    }

    pub fn is_alive(&self, node: NodeId) -> bool {
        self.inner().nodes[node.0].alive
    }

    pub fn life(&self, node: NodeId) -> u64 {
        self.inner().nodes[node.0].life
    }

    /// Ends every task of the node where it stands.
    pub fn kill(&self, node: NodeId) {
        let mut dropped = Vec::new();
        let watchers = {
            let mut inner = self.inner();
            let state = &mut inner.nodes[node.0];
            if !state.alive {
                return;
            }
            state.alive = false;
            state.paused = false;
            state.doom = None;
            state.parked.clear();
            state.life += 1;
            let watchers = std::mem::take(&mut state.watchers);
            for id in 0..inner.tasks.len() {
                if inner.tasks[id].as_ref().is_some_and(|slot| slot.node == node) {
                    let slot = inner.tasks[id].take().expect("looked at above");
                    slot.waker.dead.store(true, Ordering::Relaxed);
                    inner.free.push(id);
                    dropped.push(slot);
                }
            }
            watchers
        };
        self.ready
            .lock()
            .unwrap()
            .retain(|id| !dropped.iter().any(|slot| slot.waker.id == *id));
        // What they hold is dropped when nothing is locked: it may wake others.
        drop(dropped);
        for watcher in watchers {
            watcher.wake();
        }
    }

    /// The node dies after so many more polls of its tasks.
    pub fn doom(&self, node: NodeId, polls: u64) {
        self.inner().nodes[node.0].doom = Some(polls);
    }

    pub fn start(&self, node: NodeId) {
        let mut inner = self.inner();
        assert!(!inner.nodes[node.0].alive, "{} runs already", inner.nodes[node.0].name);
        inner.nodes[node.0].alive = true;
    }

    /// Waits until the node is dead.
    pub fn death(self: &Arc<Self>, node: NodeId) -> impl Future<Output = ()> + Send + use<> {
        let executor = Arc::clone(self);
        std::future::poll_fn(move |context| {
            let mut inner = executor.inner();
            match inner.nodes[node.0].alive {
                false => Poll::Ready(()),
                true => {
                    inner.nodes[node.0].watchers.push(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    /// Its tasks stand still, its timers go by: SIGSTOP, a long pause of a virtual machine.
    pub fn pause(&self, node: NodeId) {
        self.inner().nodes[node.0].paused = true;
    }

    pub fn resume(&self, node: NodeId) {
        let parked = {
            let mut inner = self.inner();
            inner.nodes[node.0].paused = false;
            std::mem::take(&mut inner.nodes[node.0].parked)
        };
        let mut ready = self.ready.lock().unwrap();
        parked.into_iter().for_each(|id| insert(&mut ready, id));
    }

    /// Puts the node's wall clock forward or back.
    pub fn jump_clock(&self, node: NodeId, by_ms: i64) {
        self.inner().nodes[node.0].clock.offset_ms += by_ms;
    }

    /// Makes both of the node's clocks go too fast or too slow from now on.
    pub fn drift_clock(&self, node: NodeId, rate_ppm: i64) {
        let mut inner = self.inner();
        let now_us = inner.now_us;
        let clock = &mut inner.nodes[node.0].clock;
        clock.drifted_us = clock.drifted_us(now_us);
        clock.since_us = now_us;
        clock.rate_ppm = rate_ppm;
    }

    /// Sets the node's wall clock right, as a time service does in the end.
    pub fn set_clock_right(&self, node: NodeId) {
        self.drift_clock(node, 0);
        let mut inner = self.inner();
        let clock = &mut inner.nodes[node.0].clock;
        clock.offset_ms = -clock.drifted_us / 1_000;
    }

    /// One poll, or one jump of the time. False if there is neither.
    fn step(self: &Arc<Self>) -> bool {
        let id = {
            let mut inner = self.inner();
            let mut ready = self.ready.lock().unwrap();
            match ready.len() {
                0 => None,
                len => Some(ready.remove(inner.random.below(len as u64) as usize)),
            }
        };
        match id {
            Some(id) => {
                self.poll(id);
                true
            }
            None => self.jump(),
        }
    }

    fn poll(self: &Arc<Self>, id: usize) {
        let (mut task, waker) = {
            let mut inner = self.inner();
            let Some(slot) = &inner.tasks[id] else { return };
            let node = slot.node;
            let state = &mut inner.nodes[node.0];
            if state.paused {
                state.parked.push(id);
                return;
            }
            match &mut state.doom {
                Some(0) => {
                    drop(inner);
                    return self.kill(node);
                }
                Some(polls) => *polls -= 1,
                None => {}
            }
            inner.polls += 1;
            assert!(inner.polls < POLLS_MAX, "the run does not end");
            let slot = inner.tasks[id].as_mut().expect("looked at above");
            slot.waker.queued.store(false, Ordering::Relaxed);
            let Some(task) = slot.task.take() else { return };
            (task, Arc::clone(&slot.waker))
        };
        let done = loop {
            let own = Waker::from(Arc::clone(&waker));
            let done = task.as_mut().poll(&mut Context::from_waker(&own)).is_ready();
            // One that woke itself goes on at once, without a draw: moka's housekeeping does so whenever the machine's clock
            // says that it is due, and that must not show.
            let again = waker.queued.swap(false, Ordering::Relaxed);
            if again {
                remove(&mut self.ready.lock().unwrap(), id);
            }
            if done || !again || waker.dead.load(Ordering::Relaxed) {
                break done;
            }
        };
        let mut inner = self.inner();
        // It may have killed its own node: then it is dropped with everything it holds.
        if waker.dead.load(Ordering::Relaxed) {
            drop(inner);
            drop(task);
            return;
        }
        match done {
            false => inner.tasks[id].as_mut().expect("it is alive").task = Some(task),
            true => {
                waker.dead.store(true, Ordering::Relaxed);
                inner.tasks[id] = None;
                inner.free.push(id);
                drop(inner);
                drop(task);
            }
        }
    }

    fn jump(&self) -> bool {
        let mut due = Vec::new();
        {
            let mut inner = self.inner();
            while let Some(Reverse((at_us, _, cell))) = inner.timers.peek() {
                if !due.is_empty() && *at_us > inner.now_us {
                    break;
                }
                let (at_us, waker) = (*at_us, cell.0.lock().unwrap().take());
                inner.timers.pop();
                // One that nobody waits for any more does not move the time.
                if let Some(waker) = waker {
                    inner.now_us = inner.now_us.max(at_us);
                    due.push(waker);
                }
            }
        }
        let any = !due.is_empty();
        for waker in due {
            waker.wake();
        }
        any
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a simulation that panicked has ended")
    }
}

impl Clock {
    fn drifted_us(&self, now_us: u64) -> i64 {
        self.drifted_us + (now_us - self.since_us) as i64 * self.rate_ppm / 1_000_000
    }
}

/// A wait in virtual time.
pub struct SleepUntil {
    executor: Arc<Executor>,
    at_us: u64,
    cell: Option<TimerCell>,
}

impl Future for SleepUntil {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.executor.inner();
        if inner.now_us >= self.at_us {
            return Poll::Ready(());
        }
        match &self.cell {
            Some(cell) => *cell.0.lock().unwrap() = Some(context.waker().clone()),
            None => {
                let cell = TimerCell::default();
                *cell.0.lock().unwrap() = Some(context.waker().clone());
                inner.timer_sequence += 1;
                let entry = Reverse((self.at_us, inner.timer_sequence, cell.clone()));
                inner.timers.push(entry);
                drop(inner);
                self.cell = Some(cell);
            }
        }
        Poll::Pending
    }
}

impl Drop for SleepUntil {
    fn drop(&mut self) {
        if let Some(cell) = &self.cell {
            *cell.0.lock().unwrap() = None;
        }
    }
}

/// One life of a node, as the code under test sees it.
struct NodeRuntime {
    executor: Arc<Executor>,
    node: NodeId,
    life: u64,
}

impl fmt::Debug for NodeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in its life {}", self.node, self.life)
    }
}

impl Runtime for NodeRuntime {
    fn now_ms(&self) -> i64 {
        self.executor.clock_ms(self.node)
    }

    fn monotonic(&self) -> Duration {
        let inner = self.executor.inner();
        let now_us = inner.now_us as i64 + inner.nodes[self.node.0].clock.drifted_us(inner.now_us);
        Duration::from_micros(now_us.max(0) as u64)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let rate_ppm = self.executor.inner().nodes[self.node.0].clock.rate_ppm;
        // Rounded up: a wait is never too short by the node's own clock.
        let us = (duration.as_micros() as i64 * 1_000_000 / (1_000_000 + rate_ppm)) as u64 + 1;
        Box::pin(self.executor.sleep_us(us))
    }

    fn spawn(&self, task: Task) {
        if self.executor.life(self.node) == self.life {
            self.executor.spawn(self.node, task);
        }
    }

    fn random(&self) -> [u8; 16] {
        self.executor.inner().random.bytes()
    }
}
