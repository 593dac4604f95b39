//! Who may call which service. Set before the services, so that no method can forget it.

use tonic::{Code, Request, Status, service::Interceptor};

use super::status;
use crate::{
    authn::{Principal, Role},
    tls::PeerInfo,
};

/// Whom a service is for.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// ParticipantService: the gateway; with `None`, any of the trust domain.
    Gateway {
        gateway: Option<Principal>,
        trust_domain: String,
    },
    /// MockService: operators, gateways, and the partner itself.
    Control { name: String, trust_domain: String },
}

impl Access {
    fn allows(&self, principal: &Principal) -> bool {
        match self {
            Access::Gateway {
                gateway: Some(gateway), ..
            } => principal == gateway,
            Access::Gateway {
                gateway: None,
                trust_domain,
            } => principal.role() == Role::Gateway && principal.trust_domain() == trust_domain,
            Access::Control { name, trust_domain } => {
                let role = match principal.role() {
                    Role::Operator | Role::Gateway => true,
                    Role::Partner => principal.name() == name,
                };
                role && principal.trust_domain() == trust_domain
            }
        }
    }
}

impl Interceptor for Access {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let unknown = |message: String| status::denied(Code::Unauthenticated, "PRINCIPAL_UNKNOWN", message);
        let peer = request.extensions().get::<PeerInfo>();
        let peer = peer.ok_or_else(|| unknown("the connection has no peer".to_owned()))?;
        let principal = peer.principal.as_ref().map_err(|error| unknown(error.to_string()))?;
        if !self.allows(principal) {
            let message = format!("{principal} may not call this service");
            return Err(status::denied(Code::PermissionDenied, "PRINCIPAL_NOT_ALLOWED", message));
        }
        Ok(request)
    }
}
