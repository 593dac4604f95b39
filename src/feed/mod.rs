//! The order in which changes became durable, for whoever watches.
//!
//! Owns the recent end of the feed in memory; the store has all of it. A [`Subscription`] that keeps up never touches
//! the store; one that falls behind reads the store until it has caught up. Written by the store after each commit, read
//! by `api`'s watch streams. Invariant: sequence numbers in the ring are consecutive and end at the head.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::store::Change;

/// How many changes stay in memory.
const RECENT_MAX: usize = 8_192;

/// The writing end, which the store holds.
#[derive(Debug)]
pub struct Feed {
    recent: Arc<RwLock<VecDeque<Arc<Change>>>>,
    head: watch::Sender<u64>,
}

/// The reading end.
#[derive(Clone, Debug)]
pub struct Subscription {
    recent: Arc<RwLock<VecDeque<Arc<Change>>>>,
    head: watch::Receiver<u64>,
}

/// What memory has after a place in the feed.
#[derive(Debug)]
pub enum Recent {
    /// These, in order; empty if nothing has happened since.
    Changes(Vec<Arc<Change>>),
    /// Not all of them any more: ask the store.
    Behind,
}

impl Feed {
    /// A feed whose last durable change has this number (0 if there is none).
    pub fn new(head: u64) -> Self {
        Self {
            recent: Arc::default(),
            head: watch::Sender::new(head),
        }
    }

    /// Adds durable changes. Panics if they do not follow the head, which is a bug in the store.
    pub fn publish(&self, changes: Vec<Change>) {
        let Some(last) = changes.last().map(|change| change.sequence) else {
            return;
        };
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            let mut head = *self.head.borrow();
            for change in changes {
                head += 1;
                assert_eq!(change.sequence, head, "bug: the feed has a gap");
                if recent.len() == RECENT_MAX {
                    recent.pop_front();
                }
                recent.push_back(Arc::new(change));
            }
        }
        self.head.send_replace(last);
    }

    /// A reading end.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            recent: Arc::clone(&self.recent),
            head: self.head.subscribe(),
        }
    }
}

impl Subscription {
    /// The number of the last durable change; 0 if there is none.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Waits until there is a change after this one. False if the store has closed and there will be none.
    pub async fn wait_beyond(&mut self, sequence: u64) -> bool {
        self.head.wait_for(|head| *head > sequence).await.is_ok()
    }

    /// Up to `limit` changes after this one, from memory.
    pub fn recent(&self, after: u64, limit: usize) -> Recent {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if after >= self.head() {
            return Recent::Changes(Vec::new());
        }
        let Some(first) = recent.front().map(|change| change.sequence) else {
            return Recent::Behind;
        };
        if after + 1 < first {
            return Recent::Behind;
        }
        let skip = (after + 1 - first) as usize;
        Recent::Changes(recent.iter().skip(skip).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::protocol::State;

    fn change(sequence: u64) -> Change {
        Change {
            sequence,
            state: State::Absent,
        }
    }

    fn numbers(recent: Recent) -> Option<Vec<u64>> {
        match recent {
            Recent::Changes(changes) => Some(changes.iter().map(|change| change.sequence).collect()),
            Recent::Behind => None,
        }
    }

    #[test]
    fn memory_answers_for_what_it_has_and_says_when_it_has_not() {
        let feed = Feed::new(10);
        let subscription = feed.subscribe();
        assert_eq!(numbers(subscription.recent(10, 5)), Some(vec![]));
        assert_eq!(numbers(subscription.recent(9, 5)), None, "10 was before this process");
        feed.publish(vec![change(11), change(12)]);
        feed.publish(vec![change(13)]);
        assert_eq!(numbers(subscription.recent(10, 5)), Some(vec![11, 12, 13]));
        assert_eq!(numbers(subscription.recent(11, 1)), Some(vec![12]));
        assert_eq!(numbers(subscription.recent(13, 5)), Some(vec![]));
        for sequence in 14..14 + RECENT_MAX as u64 {
            feed.publish(vec![change(sequence)]);
        }
        assert_eq!(numbers(subscription.recent(12, 5)), None, "13 has left the ring");
        assert_eq!(numbers(subscription.recent(13, 1)), Some(vec![14]));
    }

    #[test]
    #[should_panic(expected = "the feed has a gap")]
    fn a_gap_is_a_bug() {
        Feed::new(0).publish(vec![change(2)]);
    }
}
