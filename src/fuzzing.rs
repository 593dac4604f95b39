//! What the fuzz targets under `fuzz/` reach into: decoders that are private otherwise.
//!
//! Built for fuzzing alone (`--cfg fuzzing`, which cargo-fuzz sets), so that nobody else can come to depend on them. Owns
//! nothing and adds nothing: a target calls the very function that a stranger's bytes go through.

pub use crate::{
    api::{
        decode::{Pair, QuoteOrder, optional_currency, order, payment_name, quote_name, quote_order, rate_name},
        filter::{Filter, FilterError},
        malformed::path as malformed_path,
        page::{PageToken, ResumeToken},
    },
    participant::grpc::{read_branch, read_status},
    store::codec::{decode_quote, decode_record, encode_quote, encode_record},
};
