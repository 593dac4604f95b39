//! The names that partners, accounts and requests go by, checked once at the edge.

use std::{fmt, sync::Arc};

/// Why a name was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("is empty; {allowed}")]
    Empty {
        /// What would be taken.
        allowed: &'static str,
    },
    /// More characters than allowed.
    #[error("has {found} characters; {allowed}")]
    TooLong {
        /// How many there were.
        found: usize,
        /// What would be taken.
        allowed: &'static str,
    },
    /// A character that is not allowed.
    #[error("has {found:?} at character {position}; {allowed}")]
    Character {
        /// The character.
        found: char,
        /// Where, from 1.
        position: usize,
        /// What would be taken.
        allowed: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $allowed:literal, $test:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// What is taken, in words.
            pub const ALLOWED: &'static str = $allowed;

            /// Checks and keeps the text. Errors say what was found and what is allowed.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $max, $allowed, $test)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// The name of a partner network: `apple-pay`. On the wire `partners/apple-pay` (AIP-122).
    PartnerName,
    63,
    "1 to 63 characters of a-z 0-9 -",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);
name!(
    /// An account at a partner, opaque to the gateway.
    AccountId,
    64,
    "1 to 64 visible ASCII characters",
    |c| c.is_ascii_graphic()
);
name!(
    /// A caller's own id of one request (AIP-155), unique within the partner for ever.
    RequestId,
    64,
    "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-')
);

impl PartnerName {
    /// The collection in a resource name: `partners/{partner}`.
    pub const COLLECTION: &'static str = "partners/";

    /// `partners/{partner}`.
    pub fn resource(&self) -> String {
        format!("{}{}", Self::COLLECTION, self.0)
    }
}

fn check(text: &str, max: usize, allowed: &'static str, test: fn(char) -> bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { allowed });
    }
    // Before the characters, so that a megabyte of text is not walked through.
    if text.len() > max {
        return Err(NameError::TooLong {
            found: text.chars().count(),
            allowed,
        });
    }
    match text.chars().enumerate().find(|(_, c)| !test(*c)) {
        Some((at, found)) => Err(NameError::Character {
            found,
            position: at + 1,
            allowed,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_what_they_say() {
        for good in ["apple-pay", "a", "0", &"x".repeat(63)] {
            assert_eq!(PartnerName::parse(good).unwrap().as_str(), good);
        }
        for (bad, message) in [
            ("", "is empty; 1 to 63 characters of a-z 0-9 -"),
            ("Apple", "has 'A' at character 1; 1 to 63 characters of a-z 0-9 -"),
            ("a b", "has ' ' at character 2; 1 to 63 characters of a-z 0-9 -"),
            (&"x".repeat(64), "has 64 characters; 1 to 63 characters of a-z 0-9 -"),
        ] {
            assert_eq!(PartnerName::parse(bad).unwrap_err().to_string(), message);
        }
        for bad in ["", "a b", "é", "a\0", "a\n", &"x".repeat(65)] {
            assert!(AccountId::parse(bad).is_err(), "{bad:?}");
            assert!(RequestId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(AccountId::parse("+86/alice@x.cn").is_ok());
        assert!(RequestId::parse("3f2a:9_b.c-d").is_ok());
        assert!(RequestId::parse("a/b").is_err());
    }
}
