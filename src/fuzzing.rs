//! What the fuzz targets under `fuzz/` reach into: decoders that are private otherwise.
//!
//! Built for fuzzing alone (`--cfg fuzzing`, which cargo-fuzz sets), so that nobody else can come to depend on them. Owns
//! nothing and adds nothing: a target calls the very function that a stranger's bytes go through.

use tonic::Status;

use crate::{
    coordinator::protocol::Answer,
    participant::{Call, grpc},
    payment::PartnerName,
    pb::participant::v1::Branch,
};

pub use crate::{
    api::{
        decode::{Pair, QuoteOrder, optional_currency, order, payment_name, quote_name, quote_order, rate_name},
        filter::{Filter, FilterError},
        malformed::path as malformed_path,
        page::{PageToken, ResumeToken},
    },
    store::codec::{decode_quote, decode_record, encode_quote, encode_record},
};

/// What a branch that a participant answered with is worth.
pub fn read_branch(partner: &PartnerName, call: &Call, branch: Branch) -> Answer {
    grpc::read_branch(partner, call, branch).answer
}

/// What a status that a participant answered with is worth.
pub fn read_status(call: &Call, status: &Status) -> Answer {
    grpc::read_status(call, status).answer
}
