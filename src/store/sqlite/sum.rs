//! Checksums of rows, so that a bit that the medium turned over is found when the row is read.
//!
//! SQLite has none for what lies in the main file. Each sum covers the row's key and its place as well as its data: a key
//! that points to a sound row of another payment is found out too. CRC-32 finds every change of up to three bits in rows
//! of this size and all but one in four thousand million of any others; it guards against accidents, not against
//! somebody who edits the file. Called by `read`, `write` and `check`.

use crate::payment::{PaymentId, QuoteId};

/// The sum of a record: what the column `record.sum` holds.
pub fn record_sum(sequence: u64, id: PaymentId, version: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // Rows of different tables never have the same sum by being alike.
    hasher.update(b"record");
    hasher.update(&sequence.to_be_bytes());
    hasher.update(id.as_bytes());
    hasher.update(&version.to_be_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// The sum of what never changes of a quote: the column `quote.sum`.
pub fn quote_sum(id: QuoteId, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(b"quote");
    hasher.update(id.as_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// The sum of who took a quote: the column `quote.taken_sum`, set together with `quote.taken_by`.
pub fn taken_sum(id: QuoteId, by: PaymentId) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(b"taken");
    hasher.update(id.as_bytes());
    hasher.update(by.as_bytes());
    hasher.finalize()
}
