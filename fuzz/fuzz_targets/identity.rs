//! Whom a certificate or a URI names: one principal or none, which prints as it was written.
#![no_main]

use causeway::authn::Principal;
use causeway_fuzz::text;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    if let Ok(principal) = Principal::from_certificate(&CertificateDer::from(data)) {
        check(&principal);
        // It is there, letter for letter.
        let uri = principal.spiffe_uri();
        assert!(data.windows(uri.len()).any(|window| window == uri.as_bytes()));
    }
    let Some(text) = text(data) else { return };
    match Principal::parse(text) {
        Ok(principal) => {
            assert_eq!(principal.spiffe_uri(), text);
            check(&principal);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check(principal: &Principal) {
    assert!((1..=63).contains(&principal.name().len()) && (1..=255).contains(&principal.trust_domain().len()));
    let parts = Principal::new(principal.role(), principal.name(), principal.trust_domain());
    assert_eq!(parts.as_ref(), Ok(principal));
}
