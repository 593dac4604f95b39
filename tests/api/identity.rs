//! Who gets in, over real sockets: certificates that are missing, strange, expired, or of the wrong party.

use std::time::Duration;

use causeway::{
    authn::{Principal, Role},
    certs::{Authority, LeafSpec},
    pb::{
        gateway::v1::{GetDecisionRequest, GetRateRequest, ListRatesRequest},
        mock::v1::{ListAccountsRequest, mock_service_client::MockServiceClient},
        participant::v1::{GetBranchRequest, participant_service_client::ParticipantServiceClient},
    },
    tls::TlsFiles,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};

use crate::{
    refused,
    support::{
        ALIPAY, APPLE, Client, Network, Refusal, Route,
        network::{TRUST_DOMAIN, UNCONFIGURED, principal},
        within,
    },
};

const NO_PAYMENT: &str = "payments/00000000-0000-8000-8000-000000000000";

/// Every unary call of the gateway, as this client gets it answered.
async fn every_call(client: &Client) -> Vec<(&'static str, Result<(), Status>)> {
    let rate = GetRateRequest {
        name: "rates/USD-CNY".into(),
    };
    let decision = GetDecisionRequest {
        payment: NO_PAYMENT.into(),
    };
    vec![
        (
            "CreatePayment",
            client.create(Route::USD_CNY.send("r-1", "100")).await.map(drop),
        ),
        ("GetPayment", client.get(NO_PAYMENT).await.map(drop)),
        ("ListPayments", client.list(Default::default()).await.map(drop)),
        ("CancelPayment", client.cancel(NO_PAYMENT).await.map(drop)),
        ("WatchPayments", client.watch("", "").await.map(drop)),
        (
            "CreateQuote",
            client
                .quote(Route::USD_CNY.quote(causeway::pb::gateway::v1::FixedSide::Send, "100"))
                .await
                .map(drop),
        ),
        (
            "GetQuote",
            client
                .get_quote("quotes/00000000-0000-4000-8000-000000000000")
                .await
                .map(drop),
        ),
        ("GetRate", client.rates.clone().get_rate(rate).await.map(drop)),
        (
            "ListRates",
            client
                .rates
                .clone()
                .list_rates(ListRatesRequest::default())
                .await
                .map(drop),
        ),
        (
            "GetDecision",
            client.decisions.clone().get_decision(decision).await.map(drop),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_names_nobody_here_is_unauthenticated() {
    let network = Network::start().await;
    let authority = network.authority();
    let issue = |stem: &str, uris: &[&str]| {
        let spec = LeafSpec {
            uris: uris.iter().map(ToString::to_string).collect(),
            ..LeafSpec::default()
        };
        network.issue(&authority, stem, &spec)
    };
    let own = format!("spiffe://{TRUST_DOMAIN}/partner/apple-pay");
    let rows = [
        ("not configured", network.files(Role::Partner, UNCONFIGURED)),
        (
            "another trust domain",
            issue("foreign", &["spiffe://elsewhere.example/partner/apple-pay"]),
        ),
        (
            "an operator of another trust domain",
            issue("foreign-op", &["spiffe://elsewhere.example/operator/ops"]),
        ),
        ("no name", issue("nameless", &[])),
        (
            "two names",
            issue("twofold", &[&own, "spiffe://causeway.dev/operator/ops"]),
        ),
        (
            "no SPIFFE id",
            issue("https", &["https://causeway.dev/partner/apple-pay"]),
        ),
        (
            "no such role",
            issue("admin", &["spiffe://causeway.dev/admin/apple-pay"]),
        ),
        (
            "a longer path",
            issue("longer", &["spiffe://causeway.dev/partner/apple-pay/x"]),
        ),
    ];
    let mut exercised = 0;
    for (what, files) in rows {
        let client = Client::new(network.channel(&files));
        for (call, answer) in every_call(&client).await {
            refused(&format!("{what}: {call}"), answer, "IDENTITY_UNKNOWN", &[]);
            exercised += 1;
        }
    }
    assert_eq!(exercised, 8 * 10);
    // The same certificate with the right name is let in: it is the name that counts.
    let right = Client::new(network.channel(&issue("right", &[&own])));
    right.pay(Route::USD_CNY.send("r-1", "100")).await;
    assert_eq!(network.audit().await.movements, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_certificate_in_the_wrong_role_is_forbidden() {
    let network = Network::start().await;
    let gateway = Client::new(network.channel(&network.files(Role::Gateway, "gateway")));
    let impostor = Client::new(network.channel(&network.files(Role::Gateway, "impostor")));
    for client in [gateway, impostor] {
        for (call, answer) in every_call(&client).await {
            refused(&format!("a gateway: {call}"), answer, "ROLE_FORBIDDEN", &[]);
        }
    }
    let operator = network.operator();
    let (mut forbidden, mut other) = (Vec::new(), Vec::new());
    for (call, answer) in every_call(&operator).await {
        match answer.map_err(|status| Refusal::from(&status).reason) {
            Err(reason) if reason == "ROLE_FORBIDDEN" => forbidden.push(call),
            answer => other.push((call, answer)),
        }
    }
    // An operator looks, and moves no money.
    assert_eq!(forbidden, ["CreatePayment", "CreateQuote"]);
    assert_eq!(other.len(), 8, "{other:?}");
    assert_eq!(network.audit().await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_network_lets_in_its_gateway_and_its_testers_only() {
    let network = Network::start().await;
    let branch = || GetBranchRequest {
        payment: NO_PAYMENT.into(),
        branch: "debit".into(),
    };
    let foreign = network.issue(
        &network.authority(),
        "foreign",
        &LeafSpec {
            uris: vec!["spiffe://elsewhere.example/gateway/gateway".into()],
            ..LeafSpec::default()
        },
    );
    let allowed = "BRANCH_UNKNOWN";
    for (what, files, expected) in [
        ("the gateway", network.files(Role::Gateway, "gateway"), allowed),
        (
            "another gateway",
            network.files(Role::Gateway, "impostor"),
            "PRINCIPAL_NOT_ALLOWED",
        ),
        ("a gateway of another trust domain", foreign, "PRINCIPAL_NOT_ALLOWED"),
        (
            "the partner itself",
            network.files(Role::Partner, ALIPAY),
            "PRINCIPAL_NOT_ALLOWED",
        ),
        (
            "another partner",
            network.files(Role::Partner, APPLE),
            "PRINCIPAL_NOT_ALLOWED",
        ),
        (
            "an operator",
            network.files(Role::Operator, "ops"),
            "PRINCIPAL_NOT_ALLOWED",
        ),
    ] {
        let mut client = ParticipantServiceClient::new(network.partner_channel(ALIPAY, &files));
        let refusal = Refusal::from(&within(what, client.get_branch(branch())).await.expect_err(what));
        let code = if expected == allowed {
            Code::NotFound
        } else {
            Code::PermissionDenied
        };
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (code, expected),
            "{what}: {refusal:?}"
        );
    }
    for (what, files, enters) in [
        ("an operator", network.files(Role::Operator, "ops"), true),
        ("the partner itself", network.files(Role::Partner, ALIPAY), true),
        ("another partner", network.files(Role::Partner, APPLE), false),
    ] {
        let mut client = MockServiceClient::new(network.partner_channel(ALIPAY, &files));
        let answer = within(what, client.list_accounts(ListAccountsRequest {})).await;
        match answer {
            Ok(_) => assert!(enters, "{what}"),
            Err(status) => assert_eq!((enters, status.code()), (false, Code::PermissionDenied), "{what}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_passes_over_a_connection_without_a_good_certificate() {
    let network = Network::start().await;
    let (own, now) = (network.authority(), OffsetDateTime::now_utc());
    let strangers = Authority::new(10).unwrap();
    let spec = |principal: &Principal| LeafSpec::of(principal);
    let apple = principal(Role::Partner, APPLE);
    let expired = LeafSpec {
        not_before: now - Duration::from_secs(7_200),
        not_after: now - Duration::from_secs(60),
        ..spec(&apple)
    };
    let early = LeafSpec {
        not_before: now + Duration::from_secs(3_600),
        not_after: now + Duration::from_secs(7_200),
        ..spec(&apple)
    };
    let rows = [
        (
            "another authority's",
            network.issue(&strangers, "stranger", &spec(&apple)),
        ),
        ("expired", network.issue(&own, "expired", &expired)),
        ("not valid yet", network.issue(&own, "early", &early)),
    ];
    for (what, files) in rows {
        let client = Client::new(network.channel(&files));
        for (call, answer) in every_call(&client).await {
            let refusal = Refusal::from(&answer.expect_err(what));
            // From the transport: nobody answered, hence no reason.
            assert_eq!(refusal.reason, "", "{what}: {call}: {refusal:?}");
            assert!(
                [Code::Unavailable, Code::Unknown, Code::Cancelled].contains(&refusal.code),
                "{what}: {call}: {refusal:?}"
            );
        }
        let alert = handshake(&network, Some(&files)).await.expect_err(what);
        assert!(alert.contains("alert"), "{what}: {alert}");
    }
    let alert = handshake(&network, None).await.expect_err("no certificate");
    assert!(alert.contains("CertificateRequired"), "{alert}");
    // The same hand-made handshake with a good certificate: it is the certificate that counts.
    handshake(&network, Some(&network.files(Role::Partner, APPLE)))
        .await
        .unwrap();
    assert_eq!(network.audit().await, Default::default());
}

/// Connects and reads the server's first bytes; the alert, if it sends one instead.
async fn handshake(network: &Network, files: Option<&TlsFiles>) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = network.authority();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.cert).unwrap();
            let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let exchange = async {
        let stream = TcpStream::connect(network.gateway_addr()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(std::sync::Arc::new(config));
        let mut stream = connector.connect(name, stream).await?;
        // TLS 1.3: the client's side is done before the server has seen its certificate. The HTTP/2 preface (RFC 9113
        // 3.4) and empty settings, which a server that goes on answers with its own.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        stream.read_u8().await.map(drop)
    };
    within("the handshake", exchange)
        .await
        .map_err(|error: std::io::Error| error.to_string())
}
