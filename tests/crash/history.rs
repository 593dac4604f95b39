//! What happened, written down as it happens: orders and answers, what was done to processes and links, how often.
//!
//! Owns the record alone; what it means is [`super::auditor`]'s. Everybody writes here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use causeway::{
    coordinator::HaltPoint,
    pb::gateway::v1::{Conversion, CreatePaymentRequest, Payment, payment::State},
};

use crate::evidence::{Answer, Change, Key, Order, Sighting, Told};

/// The clock of all that is written down, and of the partners' movements.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

/// Something that was done to a process or a link.
#[derive(Clone, Debug)]
pub struct Event {
    pub at_ms: i64,
    pub what: String,
}

/// How often; each is raised where it is done.
#[derive(Debug, Default)]
pub struct Counts {
    pub kills_gateway: AtomicU64,
    pub kills_starting: AtomicU64,
    pub kills_frozen: AtomicU64,
    pub kills_partner: AtomicU64,
    pub stops_gateway: AtomicU64,
    pub stops_partner: AtomicU64,
    pub drains: AtomicU64,
    pub rivals_refused: AtomicU64,
    pub partner_faults: AtomicU64,
    pub partner_crashes: AtomicU64,
    pub settled_by_inquiry: AtomicU64,
    pub retries: AtomicU64,
    pub retries_after_kill: AtomicU64,
    pub twins: AtomicU64,
    pub cancels: AtomicU64,
    pub alterations_refused: AtomicU64,
    pub quotes_shared: AtomicU64,
    pub watches: AtomicU64,
    pub hold_looks: AtomicU64,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[derive(Default)]
pub struct History {
    pub counts: Counts,
    /// Kills of the gateway at each named point.
    pub halted: Mutex<BTreeMap<HaltPoint, u64>>,
    events: Mutex<Vec<Event>>,
    orders: Mutex<BTreeMap<Key, Order>>,
    /// Payments that somebody was told have ended: how, and when first.
    ended: Mutex<HashMap<String, (State, i64)>>,
    hanging: Mutex<Vec<Sighting>>,
}

impl History {
    pub fn event(&self, what: impl Into<String>) {
        self.events.lock().unwrap().push(Event {
            at_ms: now_ms(),
            what: what.into(),
        });
    }

    /// SIGKILLs so far.
    pub fn kills(&self) -> u64 {
        read(&self.counts.kills_gateway) + read(&self.counts.kills_partner)
    }

    /// SIGSTOPs so far.
    pub fn stops(&self) -> u64 {
        read(&self.counts.stops_gateway) + read(&self.counts.stops_partner)
    }

    /// An order, before anybody hears of it.
    pub fn order(&self, key: &Key, request: &CreatePaymentRequest, quoted: Option<Conversion>) {
        let order = Order {
            key: key.clone(),
            request: request.clone(),
            quoted,
            told: Vec::new(),
        };
        let before = self.orders.lock().unwrap().insert(key.clone(), order);
        assert!(before.is_none(), "ordered twice: {key:?}");
    }

    /// What came back.
    pub fn told(&self, key: &Key, told: Told) {
        if let Answer::Payment(payment) = &told.answer {
            self.saw(payment);
        }
        let mut orders = self.orders.lock().unwrap();
        orders.get_mut(key).expect("ordered before").told.push(told);
    }

    /// A payment as somebody was shown it.
    pub fn saw(&self, payment: &Payment) {
        if is_final(payment.state()) {
            let mut ended = self.ended.lock().unwrap();
            ended.entry(payment.name.clone()).or_insert((payment.state(), now_ms()));
        }
    }

    /// How the payment had ended for somebody by then.
    pub fn ended_by(&self, payment: &str, ms: i64) -> Option<State> {
        let ended = self.ended.lock().unwrap();
        ended
            .get(payment)
            .filter(|(_, at_ms)| *at_ms < ms)
            .map(|(state, _)| *state)
    }

    /// A hold that should not be there; written down the first time.
    pub fn hangs(&self, sighting: Sighting) {
        let mut hanging = self.hanging.lock().unwrap();
        let same = |known: &&Sighting| {
            (known.network, &known.payment, &known.branch) == (sighting.network, &sighting.payment, &sighting.branch)
        };
        if hanging.iter().find(same).is_none() {
            hanging.push(sighting);
        }
    }

    pub fn orders(&self) -> Vec<Order> {
        self.orders.lock().unwrap().values().cloned().collect()
    }

    pub fn order_of(&self, key: &Key) -> Order {
        self.orders.lock().unwrap()[key].clone()
    }

    pub fn hanging(&self) -> Vec<Sighting> {
        self.hanging.lock().unwrap().clone()
    }

    /// What was done to processes and links from then to then.
    pub fn events_between(&self, from_ms: i64, to_ms: i64) -> Vec<Event> {
        let events = self.events.lock().unwrap();
        let between = events.iter().filter(|event| (from_ms..=to_ms).contains(&event.at_ms));
        between.cloned().collect()
    }
}

pub fn is_final(state: State) -> bool {
    matches!(state, State::Completed | State::Aborted)
}

/// Whether this settles what became of the order: the gateway's last word, either way.
pub fn is_definite(answer: &Answer) -> bool {
    match answer {
        Answer::Payment(payment) => is_final(payment.state()),
        Answer::Refused { reason, .. } => is_no_for_ever(reason),
        Answer::Nothing(_) => false,
    }
}

/// Reasons that say that no payment was made and, with the same body, never will be. The others ask to try again.
pub fn is_no_for_ever(reason: &str) -> bool {
    matches!(
        reason,
        "QUOTE_EXPIRED"
            | "QUOTE_USED"
            | "QUOTE_MISMATCH"
            | "QUOTE_NOT_FOUND"
            | "RATE_WORSE_THAN_ALLOWED"
            | "AMOUNT_TOO_SMALL"
            | "AMOUNT_TOO_LARGE"
            | "CORRIDOR_FORBIDDEN"
    )
}

impl From<&Payment> for Change {
    fn from(payment: &Payment) -> Self {
        Self {
            payment: payment.name.clone(),
            state: payment.state(),
        }
    }
}
