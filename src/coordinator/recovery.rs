//! Finds the payments that nobody drives and drives them.

use std::sync::Arc;

use super::{Coordinator, View, driver::Driver, live::Entry};
use crate::store::StoreError;

/// How many payments are read at once.
const PAGE: usize = 1_000;

impl Coordinator {
    /// Takes up every payment in the store that has not ended and that nobody drives. Answers how many when all of them
    /// are being driven, not when they have ended. At start this comes before serving: a retry then finds its payment.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut recovered = 0;
        let mut after = None;
        loop {
            let page = self.shared.store.unfinished(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(recovered);
            };
            after = Some(*last);
            for id in page {
                // The page says which payments had not ended when it was read; where they stand, their drivers read for
                // themselves once the seat is theirs. A payment that has ended since shows nothing but its end.
                if let Entry::Entered { seat, .. } = self.shared.live.enter(id, View::Beginning) {
                    let driver = Driver::new(Arc::clone(&self.shared), id, seat);
                    self.shared.spawn(driver.run_recovered());
                    recovered += 1;
                }
            }
        }
    }

    /// Recovers again and again, for as long as it is polled.
    pub async fn recover_on_a_timer(&self) {
        loop {
            self.shared.runtime.sleep(self.shared.options.recovery_interval).await;
            match self.recover().await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(count, "payments that nobody drove were taken up"),
                Err(error) => tracing::warn!(%error, "recovery waits for the store"),
            }
        }
    }
}
