//! What both sides of every wire share: instants, and the name under which errors are reported.

use prost_types::Timestamp;

/// The domain of every `google.rpc.ErrorInfo` of Causeway and of the participants that it speaks to (AIP-193).
pub const ERROR_DOMAIN: &str = "causeway";

/// Milliseconds since the Unix epoch as a protobuf timestamp.
pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp {
        seconds: ms.div_euclid(1_000),
        nanos: (ms.rem_euclid(1_000) * 1_000_000) as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_the_epoch_have_positive_nanos() {
        assert_eq!(
            timestamp(1_500),
            Timestamp {
                seconds: 1,
                nanos: 500_000_000
            }
        );
        assert_eq!(
            timestamp(-1),
            Timestamp {
                seconds: -1,
                nanos: 999_000_000
            }
        );
    }
}
