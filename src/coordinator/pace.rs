//! A bound on how often something happens.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::runtime::Runtime;

/// How much lateness is made up for.
const SLACK: Duration = Duration::from_millis(10);

/// Lets so many pass a second, evenly spaced, in the order in which they came. Who gives up before its turn leaves no gap.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Mutex<Option<Duration>>,
}

impl Pace {
    /// At most this many a second (at least one).
    pub fn new(per_second: u32) -> Self {
        Self {
            gap: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(None),
        }
    }

    /// Waits for a turn.
    pub async fn turn(&self, runtime: &dyn Runtime) {
        // The one at the head of the line holds the lock while it sleeps: the lock is the line.
        let mut next = self.next.lock().await;
        let now = runtime.monotonic();
        let turn = next.unwrap_or(now);
        if turn > now {
            runtime.sleep(turn - now).await;
        }
        // Counted from the turn and not from when its sleep happened to end: timers are late, and lateness adds up.
        let late = runtime.monotonic().saturating_sub(SLACK);
        *next = Some(turn.max(late) + self.gap);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::runtime::TokioRuntime;

    #[tokio::test(start_paused = true)]
    async fn turns_are_a_gap_apart_and_those_who_leave_take_none() {
        let runtime = TokioRuntime::shared();
        let pace = Pace::new(100);
        let start = Instant::now();
        for n in 0..50 {
            pace.turn(&*runtime).await;
            // The clock of a paused runtime counts in milliseconds.
            let expected = n * Duration::from_millis(10);
            assert!(
                start.elapsed() >= expected && start.elapsed() < expected + Duration::from_millis(n.into()) + pace.gap
            );
        }
        let before = Instant::now();
        for _ in 0..1_000 {
            let gave_up = tokio::time::timeout(Duration::ZERO, pace.turn(&*runtime)).await;
            assert!(gave_up.is_err());
        }
        pace.turn(&*runtime).await;
        assert!(before.elapsed() < Duration::from_millis(50), "{:?}", before.elapsed());
    }
}
