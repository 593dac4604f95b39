//! Opaque tokens: places in a list and in the feed (AIP-158).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;

use super::Caller;
use crate::{payment::PaymentId, store::ListPosition};

/// A place in a list. Bound to the caller and the filter, so that it cannot be used with another.
pub struct PageToken;

impl PageToken {
    /// The token of the place after this one.
    pub fn text(position: ListPosition, caller: &Caller, filter: &str) -> String {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(position.begin_ms.to_be_bytes());
        bytes.extend(position.id.as_bytes());
        bytes.extend(query(caller, filter));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place of a token; `None` if it is not one of this query.
    pub fn parse(text: &str, caller: &Caller, filter: &str) -> Option<ListPosition> {
        let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        if bytes[24..] != query(caller, filter) {
            return None;
        }
        let begin_ms = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let id = PaymentId::from_bytes(bytes[8..24].try_into().ok()?);
        Some(ListPosition { begin_ms, id })
    }
}

/// A place in the feed.
pub struct ResumeToken;

impl ResumeToken {
    const PREFIX: &'static [u8] = b"feed";

    /// The token of the place after this change.
    pub fn text(sequence: u64) -> String {
        let mut bytes = Self::PREFIX.to_vec();
        bytes.extend(sequence.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The change that a token stands for.
    pub fn parse(text: &str) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let sequence = bytes.strip_prefix(Self::PREFIX)?;
        Some(u64::from_be_bytes(sequence.try_into().ok()?))
    }
}

fn query(caller: &Caller, filter: &str) -> [u8; 8] {
    let text = format!("{caller:?}\0{filter}");
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_ref()[..8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::PartnerName;

    #[test]
    fn tokens_lead_back_for_the_same_query_only() {
        let caller = |name| Caller::Partner(PartnerName::parse(name).unwrap());
        let position = ListPosition {
            begin_ms: 1_234,
            id: PaymentId::from_bytes([7; 16]),
        };
        let token = PageToken::text(position, &caller("a"), "state = ABORTED");
        assert_eq!(
            PageToken::parse(&token, &caller("a"), "state = ABORTED"),
            Some(position)
        );
        assert_eq!(PageToken::parse(&token, &caller("a"), ""), None);
        assert_eq!(PageToken::parse(&token, &caller("b"), "state = ABORTED"), None);
        assert_eq!(PageToken::parse(&token[1..], &caller("a"), "state = ABORTED"), None);
        assert_eq!(PageToken::parse("?", &caller("a"), ""), None);

        assert_eq!(ResumeToken::parse(&ResumeToken::text(77)), Some(77));
        for wrong in ["", "77", &ResumeToken::text(77)[2..], &token] {
            assert_eq!(ResumeToken::parse(wrong), None, "{wrong}");
        }
    }
}
