//! Who calls.

use tonic::Request;

use super::{
    Shared,
    status::{ApiError, ErrorReason},
};
use crate::{authn::Role, coordinator::protocol::Transaction, payment::PartnerName, tls::PeerInfo};

/// The party behind a call, as its certificate says and the configuration knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A partner network.
    Partner(PartnerName),
    /// An operator, by name.
    Operator(String),
}

impl Caller {
    /// The caller of a request. Nobody else than a configured partner or an operator gets through.
    pub(super) fn of<T>(shared: &Shared, request: &Request<T>) -> Result<Self, ApiError> {
        let unknown = |message: String| ApiError::new(ErrorReason::IdentityUnknown, message);
        let peer = request
            .extensions()
            .get::<PeerInfo>()
            .ok_or_else(|| unknown("the connection carries no client certificate".into()))?;
        let principal = peer
            .principal
            .as_ref()
            .map_err(|error| unknown(format!("the client certificate names nobody: {error}")))?;
        if principal.trust_domain() != shared.trust_domain {
            let found = principal.spiffe_uri();
            return Err(unknown(format!(
                "{found} is not of the trust domain {}",
                shared.trust_domain
            )));
        }
        match principal.role() {
            Role::Operator => Ok(Self::Operator(principal.name().into())),
            Role::Partner => shared
                .identities
                .iter()
                .find(|(identity, _)| identity == principal)
                .map(|(_, name)| Self::Partner(name.clone()))
                .ok_or_else(|| unknown(format!("{} is not a configured partner", principal.spiffe_uri()))),
            Role::Gateway => Err(ApiError::new(
                ErrorReason::RoleForbidden,
                "a gateway's certificate does not call gateways",
            )),
        }
    }

    /// The partner, for calls that only partners make.
    pub(super) fn into_partner(self) -> Result<PartnerName, ApiError> {
        match self {
            Self::Partner(name) => Ok(name),
            Self::Operator(name) => Err(ApiError::new(
                ErrorReason::RoleForbidden,
                format!("operator {name} may not make this call; it takes a partner's certificate"),
            )),
        }
    }

    /// The partner that reads are confined to; `None` if there is no such confinement.
    pub(super) fn confined_to(&self) -> Option<&PartnerName> {
        match self {
            Self::Partner(name) => Some(name),
            Self::Operator(_) => None,
        }
    }

    /// Whether the caller may know of the payment at all.
    pub(super) fn may_see(&self, transaction: &Transaction) -> bool {
        self.confined_to()
            .is_none_or(|partner| transaction.terms.concerns(partner))
    }
}
