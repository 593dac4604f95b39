//! SPIFFE ids (SPIFFE-ID and X509-SVID specifications) with Causeway's three kinds of path.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// SPIFFE-ID 2.3: the longest trust domain that every implementation has to support.
const TRUST_DOMAIN_LEN_MAX: usize = 255;
/// A name is used as one DNS label too (`NAME.localhost`), and RFC 1035 bounds that.
const NAME_LEN_MAX: usize = 63;

/// What kind of party a certificate stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A wallet network: a client of the gateway, and a participant.
    Partner,
    /// A person or program that runs the gateway.
    Operator,
    /// The gateway itself, as its partners see it.
    Gateway,
}

impl Role {
    /// The word in the SPIFFE path: "partner", "operator" or "gateway".
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Partner => "partner",
            Role::Operator => "operator",
            Role::Gateway => "gateway",
        }
    }

    fn parse(word: &str) -> Option<Role> {
        [Role::Partner, Role::Operator, Role::Gateway]
            .into_iter()
            .find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A party that proved itself by a certificate: "spiffe://causeway.dev/partner/apple-pay".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    role: Role,
    name: String,
    trust_domain: String,
}

/// Why there is no principal. Blames the certificate (or the configured URI), never the caller's intent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The DER is no X.509 certificate.
    #[error("the certificate cannot be parsed: {0}")]
    Certificate(String),
    /// X509-SVID 2: exactly one URI SAN.
    #[error("the certificate carries {got} URI names, expected exactly one")]
    UriCount {
        /// How many there are.
        got: usize,
    },
    /// Another scheme than `spiffe`.
    #[error("{uri:?} is not a spiffe:// URI")]
    Scheme {
        /// What there was.
        uri: String,
    },
    /// SPIFFE-ID 2.1: lower-case letters, digits, `.`, `-`, `_`; no port, no user.
    #[error("{uri:?} has no valid trust domain (a-z, 0-9, '.', '-' and '_', at most 255)")]
    TrustDomain {
        /// What there was.
        uri: String,
    },
    /// Not `/partner/NAME`, `/operator/NAME` or `/gateway/NAME`.
    #[error("{uri:?} is not of the form spiffe://TRUST-DOMAIN/(partner|operator|gateway)/NAME")]
    Path {
        /// What there was.
        uri: String,
    },
    /// A name with other characters, or too long, or empty.
    #[error("{name:?} is no valid name (a-z, 0-9 and '-', 1 to 63 characters)")]
    Name {
        /// What there was.
        name: String,
    },
}

impl Principal {
    /// A principal from its parts.
    ///
    /// # Errors
    /// [`IdentityError::Name`] or [`IdentityError::TrustDomain`].
    pub fn new(role: Role, name: &str, trust_domain: &str) -> Result<Principal, IdentityError> {
        if !is_name(name) {
            return Err(IdentityError::Name { name: name.to_owned() });
        }
        if !is_trust_domain(trust_domain) {
            return Err(IdentityError::TrustDomain {
                uri: trust_domain.to_owned(),
            });
        }
        Ok(Principal {
            role,
            name: name.to_owned(),
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// Parses "spiffe://causeway.dev/partner/apple-pay". Strict: no query, fragment, port, encoding or empty segment.
    ///
    /// # Errors
    /// What is wrong with the URI.
    pub fn parse(uri: &str) -> Result<Principal, IdentityError> {
        let rest = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| IdentityError::Scheme { uri: uri.to_owned() })?;
        let (trust_domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_trust_domain(trust_domain) {
            return Err(IdentityError::TrustDomain { uri: uri.to_owned() });
        }
        let not_a_path = || IdentityError::Path { uri: uri.to_owned() };
        let (role, name) = path.split_once('/').ok_or_else(not_a_path)?;
        let role = Role::parse(role).ok_or_else(not_a_path)?;
        Principal::new(role, name, trust_domain)
    }

    /// The principal of a certificate that was verified already.
    ///
    /// # Errors
    /// The certificate names none, or more than one.
    pub fn from_certificate(der: &CertificateDer<'_>) -> Result<Principal, IdentityError> {
        let certificate =
            EndEntityCert::try_from(der).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let mut uris = certificate.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Principal::parse(uri),
            (None, _) => Err(IdentityError::UriCount { got: 0 }),
            (Some(_), Some(_)) => Err(IdentityError::UriCount { got: 2 + uris.count() }),
        }
    }

    /// Which kind of party.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Which one: "apple-pay".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In whose realm: "causeway.dev".
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// "spiffe://causeway.dev/partner/apple-pay".
    pub fn spiffe_uri(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.role, self.name)
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_trust_domain(domain: &str) -> bool {
    (1..=TRUST_DOMAIN_LEN_MAX).contains(&domain.len())
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{Authority, LeafSpec, issue};

    #[test]
    fn a_spiffe_uri_parses_and_prints_back() {
        for (uri, role, name) in [
            ("spiffe://causeway.dev/partner/apple-pay", Role::Partner, "apple-pay"),
            ("spiffe://causeway.dev/operator/ops", Role::Operator, "ops"),
            ("spiffe://a-b_c.example/gateway/gateway", Role::Gateway, "gateway"),
            ("spiffe://x/partner/0", Role::Partner, "0"),
        ] {
            let principal = Principal::parse(uri).unwrap();
            assert_eq!((principal.role(), principal.name()), (role, name), "{uri}");
            assert_eq!(principal.spiffe_uri(), uri);
        }
    }

    #[test]
    fn whatever_is_not_exactly_the_form_is_refused() {
        let long_name = format!("spiffe://causeway.dev/partner/{}", "a".repeat(64));
        let long_domain = format!("spiffe://{}/partner/a", "d".repeat(256));
        for (uri, expected) in [
            ("", "spiffe:// URI"),
            ("https://causeway.dev/partner/a", "spiffe:// URI"),
            ("SPIFFE://causeway.dev/partner/a", "spiffe:// URI"),
            ("spiffe:///partner/a", "trust domain"),
            ("spiffe://Causeway.dev/partner/a", "trust domain"),
            ("spiffe://causeway.dev:443/partner/a", "trust domain"),
            ("spiffe://user@causeway.dev/partner/a", "trust domain"),
            ("spiffe://causeway.dev", "of the form"),
            ("spiffe://causeway.dev/", "of the form"),
            ("spiffe://causeway.dev/partner", "of the form"),
            ("spiffe://causeway.dev/bank/a", "of the form"),
            ("spiffe://causeway.dev//partner/a", "of the form"),
            ("spiffe://causeway.dev/partner/", "valid name"),
            ("spiffe://causeway.dev/partner/a/b", "valid name"),
            ("spiffe://causeway.dev/partner/a/", "valid name"),
            ("spiffe://causeway.dev/partner/Apple", "valid name"),
            ("spiffe://causeway.dev/partner/a?b", "valid name"),
            ("spiffe://causeway.dev/partner/a#b", "valid name"),
            ("spiffe://causeway.dev/partner/a%2fb", "valid name"),
            ("spiffe://causeway.dev/partner/ä", "valid name"),
            (&long_name, "valid name"),
            (&long_domain, "trust domain"),
        ] {
            let error = Principal::parse(uri).expect_err(uri);
            assert!(error.to_string().contains(expected), "{uri}: {error}");
        }
    }

    #[test]
    fn a_certificate_names_one_principal_or_none() {
        let authority = Authority::new(30).unwrap();
        let uri = "spiffe://causeway.dev/partner/apple-pay".to_owned();
        let other = "spiffe://causeway.dev/partner/alipay".to_owned();
        let principal_of = |uris: Vec<String>| {
            let leaf = issue(
                &authority,
                &LeafSpec {
                    uris,
                    ..LeafSpec::default()
                },
            )
            .unwrap();
            Principal::from_certificate(leaf.certificate_der())
        };
        assert_eq!(principal_of(vec![uri.clone()]), Principal::parse(&uri));
        assert_eq!(principal_of(vec![]), Err(IdentityError::UriCount { got: 0 }));
        assert_eq!(
            principal_of(vec![uri.clone(), other.clone()]),
            Err(IdentityError::UriCount { got: 2 })
        );
        assert_eq!(
            principal_of(vec![uri.clone(), other, uri]),
            Err(IdentityError::UriCount { got: 3 })
        );
        let foreign = principal_of(vec!["https://causeway.dev/partner/a".to_owned()]);
        assert!(matches!(foreign, Err(IdentityError::Scheme { .. })));
        let garbage = Principal::from_certificate(&CertificateDer::from(vec![1, 2, 3]));
        assert!(matches!(garbage, Err(IdentityError::Certificate(_))));
    }
}
