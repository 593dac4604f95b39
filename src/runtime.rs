//! What the world gives to those who wait: two clocks, timers, tasks, and randomness.
//!
//! Everything that drives payments takes its time and its tasks from a [`Runtime`] that it is given, so that the very same
//! code runs on tokio in production and, in a simulation, in virtual time under a scheduler that decides who goes next,
//! whose clock is wrong and who dies. Called by `coordinator`, `participant`, `fx::cache` and `api`. Invariant: none of
//! them asks tokio, the operating system or a random number generator for any of this itself (`tests/docs/purity.rs`).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{AbortHandle, abortable};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

/// A task: runs until it is done.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A wait: over when its time has come.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A runtime as it is handed around.
pub type SharedRuntime = Arc<dyn Runtime>;

/// See the module's documentation.
pub trait Runtime: Send + Sync + fmt::Debug + 'static {
    /// The wall clock, in milliseconds since the Unix epoch. It may be set, either way.
    fn now_ms(&self) -> i64;
    /// The monotonic clock, counted from a moment of its own choice. It never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits this long by the monotonic clock.
    fn sleep(&self, duration: Duration) -> Sleep;
    /// Runs a task beside the others. It ends with the process at the latest.
    fn spawn(&self, task: Task);
    /// Sixteen bytes that nobody can guess.
    fn random(&self) -> [u8; 16];
}

/// Production: tokio's timers and tasks, the machine's clocks, the operating system's randomness.
#[derive(Debug)]
pub struct TokioRuntime {
    start: Instant,
}

impl TokioRuntime {
    /// To be shared by all that runs on the tokio runtime from which its methods are called.
    pub fn shared() -> SharedRuntime {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Runtime for TokioRuntime {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(sleep(duration))
    }

    fn spawn(&self, task: Task) {
        tokio::spawn(task);
    }

    fn random(&self) -> [u8; 16] {
        uuid::Uuid::new_v4().into_bytes()
    }
}

/// What the future came to, or `None` if it took longer than the limit.
pub async fn timeout<T>(runtime: &dyn Runtime, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // What has come in time counts, even if it is looked at late.
        biased;
        value = future => Some(value),
        () = runtime.sleep(limit) => None,
    }
}

/// A task whose result is waited for.
#[derive(Debug)]
pub struct Job<T> {
    result: oneshot::Receiver<T>,
    /// To end it when nobody waits any more; none if it goes on.
    abort: Option<AbortHandle>,
}

/// The task ended without a result: it panicked, or its process is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task ended without a result")]
pub struct Gone;

impl<T: Send + 'static> Job<T> {
    /// Starts a task that ends when the job is dropped.
    pub fn start(runtime: &dyn Runtime, work: impl Future<Output = T> + Send + 'static) -> Self {
        let (sender, result) = oneshot::channel();
        let (work, abort) = abortable(work);
        runtime.spawn(Box::pin(async move {
            if let Ok(value) = work.await {
                // Nobody may be left to hear it.
                let _ = sender.send(value);
            }
        }));
        Self {
            result,
            abort: Some(abort),
        }
    }

    /// Starts a task that goes on when the job is dropped.
    pub fn start_detached(runtime: &dyn Runtime, work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut job = Self::start(runtime, work);
        job.abort = None;
        job
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, Gone>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result)
            .poll(context)
            .map(|result| result.map_err(|_| Gone))
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_counts_and_what_does_not_is_given_up() {
        let runtime = TokioRuntime::shared();
        let soon = timeout(&*runtime, Duration::from_secs(2), runtime.sleep(Duration::from_secs(1)));
        assert_eq!(soon.await, Some(()));
        let never = timeout(&*runtime, Duration::from_secs(2), std::future::pending::<()>());
        assert_eq!(never.await, None);
        assert_eq!(runtime.monotonic(), Duration::from_secs(3));
        let at_once = timeout(&*runtime, Duration::ZERO, std::future::ready(1));
        assert_eq!(at_once.await, Some(1));
    }

    #[tokio::test]
    async fn a_job_answers_ends_when_dropped_and_says_when_it_panicked() {
        struct Flag(Arc<AtomicBool>, Option<oneshot::Sender<()>>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
                let _ = self.1.take().map(|ended| ended.send(()));
            }
        }

        let runtime = TokioRuntime::shared();
        assert_eq!(Job::start(&*runtime, async { 7 }).await, Ok(7));
        assert_eq!(
            Job::start(&*runtime, async { panic!("on purpose") }).await,
            Err::<(), _>(Gone)
        );

        let (ended, end) = oneshot::channel();
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Flag(Arc::clone(&dropped), Some(ended));
        let job = Job::start(&*runtime, async move {
            let _flag = flag;
            std::future::pending::<()>().await;
        });
        assert!(!dropped.load(Ordering::SeqCst));
        drop(job);
        tokio::time::timeout(Duration::from_secs(20), end)
            .await
            .unwrap()
            .unwrap();
        assert!(dropped.load(Ordering::SeqCst));

        let (go, gate) = oneshot::channel::<()>();
        let (done, end) = oneshot::channel();
        drop(Job::start_detached(&*runtime, async move {
            gate.await.unwrap();
            done.send(()).unwrap();
        }));
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), end)
            .await
            .unwrap()
            .unwrap();
    }
}
