//! Ids of payments and quotes.

use std::fmt;

use ring::digest;
use uuid::{Builder, Uuid};

use super::{PartnerName, RequestId};

/// How many buckets the payments fall into. Fixed for the life of a store: the bucket leads every key, so that a store
/// that is spread over machines keeps all of one payment in one place.
pub const BUCKETS: u16 = 1024;

/// The id of a payment, derived from its initiator and its `request_id`.
///
/// A version 8 UUID (RFC 9562, section 5.8) over SHA-256. A retry after any crash, at any replica, arrives at the same
/// id, so the store's primary key is the idempotency, and the participants meet the same (payment, branch) again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(Uuid);

impl PaymentId {
    /// The collection in a resource name: `payments/{payment}` (AIP-122).
    pub const COLLECTION: &'static str = "payments/";

    /// The id of the payment that `partner` asks for with `request_id`.
    pub fn derive(partner: &PartnerName, request_id: &RequestId) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"causeway payment\0");
        context.update(partner.as_str().as_bytes());
        // Neither part can contain a zero byte, so no two pairs meet in the same bytes.
        context.update(b"\0");
        context.update(request_id.as_str().as_bytes());
        let digest = context.finish();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_ref()[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The bucket of the payment, below [`BUCKETS`].
    pub fn bucket(self) -> u16 {
        let bytes = self.0.as_bytes();
        u16::from_be_bytes([bytes[0], bytes[1]]) % BUCKETS
    }

    /// The sixteen bytes, as the store keeps them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the store's bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Reads `payments/{payment}`; `None` if it is not of that form (lower-case, hyphenated).
    pub fn parse_name(name: &str) -> Option<Self> {
        parse_uuid(name.strip_prefix(Self::COLLECTION)?).map(Self)
    }

    /// An even spread of this payment's bits, for jitter: the same for the same payment, branch and attempt.
    pub fn spread(self, salt: u64) -> u64 {
        let (high, low) = self.0.as_u64_pair();
        // SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit.
        let mut z = high ^ low.rotate_left(32) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::COLLECTION, self.0.as_hyphenated())
    }
}

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of a quote: random, so that nobody can guess another partner's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuoteId(Uuid);

impl QuoteId {
    /// The collection in a resource name: `quotes/{quote}` (AIP-122).
    pub const COLLECTION: &'static str = "quotes/";

    /// From sixteen random bytes; randomness comes in as a value.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The sixteen bytes, as the store keeps them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the store's bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Reads `quotes/{quote}`; `None` if it is not of that form (lower-case, hyphenated).
    pub fn parse_name(name: &str) -> Option<Self> {
        parse_uuid(name.strip_prefix(Self::COLLECTION)?).map(Self)
    }

    /// The bucket of the quote, below [`BUCKETS`].
    pub fn bucket(self) -> u16 {
        let bytes = self.0.as_bytes();
        u16::from_be_bytes([bytes[0], bytes[1]]) % BUCKETS
    }
}

impl fmt::Display for QuoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::COLLECTION, self.0.as_hyphenated())
    }
}

impl fmt::Debug for QuoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One spelling only: `Uuid::try_parse` takes braces, capitals and more, and two names of one thing would be two keys.
fn parse_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.as_hyphenated().to_string() == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(partner: &str, request: &str) -> PaymentId {
        PaymentId::derive(
            &PartnerName::parse(partner).unwrap(),
            &RequestId::parse(request).unwrap(),
        )
    }

    #[test]
    fn an_id_is_the_same_for_ever() {
        // Pinned: a change here would orphan every stored payment.
        assert_eq!(
            id("apple-pay", "r-1").to_string(),
            "payments/f8e89d9a-268c-882a-8489-4d0f2aedb3fc"
        );
        assert_eq!(id("apple-pay", "r-1"), id("apple-pay", "r-1"));
        assert_ne!(id("apple-pay", "r-1"), id("apple-pay", "r-2"));
        assert_ne!(id("apple-pay", "r-1"), id("paypal", "r-1"));
    }

    #[test]
    fn names_have_one_spelling() {
        let name = id("apple-pay", "r-1").to_string();
        assert_eq!(PaymentId::parse_name(&name), Some(id("apple-pay", "r-1")));
        for wrong in [
            name.to_uppercase(),
            name.replace('-', ""),
            name.replace("payments/", "quotes/"),
            "payments/".into(),
            String::new(),
        ] {
            assert_eq!(PaymentId::parse_name(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn buckets_fill_evenly() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..20_000 {
            let bucket = id("apple-pay", &format!("r-{n}")).bucket();
            assert!(bucket < BUCKETS);
            seen.insert(bucket);
        }
        assert_eq!(seen.len(), usize::from(BUCKETS));
    }
}
