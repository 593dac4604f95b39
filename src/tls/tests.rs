//! Over real sockets on the loopback interface. The service behind is the health service, which answers anybody that
//! the transport lets through.

use std::{net::SocketAddr, path::PathBuf};

use futures_util::StreamExt;
use time::{Duration as Days, OffsetDateTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, timeout},
};
use tonic::{Code, Status, transport::Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::{
    authn::Principal,
    certs::{Authority, LeafSpec, issue},
};

/// Nothing here takes longer unless it hangs.
const BOUND: Duration = Duration::from_secs(20);

struct Pki {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Pki {
    fn new() -> Pki {
        Pki {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new(30).unwrap(),
        }
    }

    fn files(&self, stem: &str, spec: LeafSpec) -> TlsFiles {
        issue(&self.authority, &spec)
            .unwrap()
            .write(self.dir.path(), stem, &self.authority)
            .unwrap()
    }

    fn usual(&self, principal: &Principal) -> TlsFiles {
        self.files(
            &format!("{}-{}", principal.role(), principal.name()),
            LeafSpec::of(principal),
        )
    }
}

fn principal(path: &str) -> Principal {
    Principal::parse(&format!("spiffe://causeway.dev/{path}")).unwrap()
}

async fn serve(files: &TlsFiles, limits: ListenLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let incoming = incoming(listener, server_config(files).unwrap(), limits);
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    addr
}

async fn check(endpoint: String, files: &TlsFiles, expected: &Principal) -> Result<(), Status> {
    let channel = channel(&endpoint, files, expected, ChannelOptions::default()).unwrap();
    let mut client = HealthClient::new(channel);
    timeout(BOUND, client.check(HealthCheckRequest::default()))
        .await
        .expect("the call hangs")
        .map(|_| ())
}

/// All that an error says, its causes included.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn both_sides_prove_themselves_and_the_call_goes_through() {
    let pki = Pki::new();
    let (alipay, gateway) = (principal("partner/alipay"), principal("gateway/gateway"));
    let server = pki.usual(&alipay);
    let addr = serve(&server, ListenLimits::default()).await;
    let client = pki.usual(&gateway);
    check(format!("https://{addr}"), &client, &alipay).await.unwrap();
    check(format!("https://localhost:{}", addr.port()), &client, &alipay)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_accepted_connection_knows_its_peer() {
    let pki = Pki::new();
    let (alipay, gateway) = (principal("partner/alipay"), principal("gateway/gateway"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let config = server_config(&pki.usual(&alipay)).unwrap();
    let mut incoming = Box::pin(incoming(listener, config, ListenLimits::default()));
    let nobody = pki.files("nobody", LeafSpec::default());
    for (files, expected) in [
        (pki.usual(&gateway), Ok(gateway)),
        // A certificate of our CA that names nobody: connected, and known as nobody.
        (nobody, Err(crate::authn::IdentityError::UriCount { got: 0 })),
    ] {
        let channel = channel(&endpoint, &files, &alipay, ChannelOptions::default()).unwrap();
        let call = tokio::spawn(async move { HealthClient::new(channel).check(HealthCheckRequest::default()).await });
        let connection = timeout(BOUND, incoming.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(connection.peer().principal, expected);
        call.abort();
    }
}

#[tokio::test]
async fn clients_without_a_valid_certificate_are_refused() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let (alipay, gateway) = (principal("partner/alipay"), principal("gateway/gateway"));
    let server = pki.usual(&alipay);
    let addr = serve(&server, ListenLimits::default()).await;
    let now = OffsetDateTime::now_utc();
    let spec = LeafSpec::of(&gateway);
    let expired = LeafSpec {
        not_before: now - 2 * Days::DAY,
        not_after: now - Days::DAY,
        ..spec.clone()
    };
    let future = LeafSpec {
        not_before: now + Days::DAY,
        not_after: now + 2 * Days::DAY,
        ..spec.clone()
    };
    let ours = pki.usual(&gateway);
    // The other CA's certificate, but trusting ours, so that it is the server that refuses.
    let theirs = TlsFiles {
        ca: ours.ca.clone(),
        ..foreign.files("foreign", spec)
    };
    for (case, files) in [
        ("expired", pki.files("expired", expired)),
        ("future", pki.files("future", future)),
        ("foreign", theirs),
    ] {
        let status = check(format!("https://{addr}"), &files, &alipay).await.expect_err(case);
        assert!(
            matches!(status.code(), Code::Unavailable | Code::Unknown),
            "{case}: {status:?}"
        );
    }
    check(format!("https://{addr}"), &ours, &alipay)
        .await
        .expect("the server goes on");
}

#[tokio::test]
async fn a_client_that_shows_no_certificate_is_refused() {
    let pki = Pki::new();
    let files = pki.usual(&principal("partner/alipay"));
    let addr = serve(&files, ListenLimits::default()).await;
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(Identity::load(&files).unwrap().roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let outcome = async {
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
        // In TLS 1.3 the client is done before the server has seen that there is no certificate.
        stream.read_u8().await
    };
    let error = timeout(BOUND, outcome)
        .await
        .expect("hangs")
        .expect_err("no certificate, yet connected");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let pki = Pki::new();
    let addr = serve(&pki.usual(&principal("partner/alipay")), ListenLimits::default()).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&client_hello_tls12()).await.unwrap();
    let mut answer = [0; 7];
    timeout(BOUND, stream.read_exact(&mut answer))
        .await
        .expect("hangs")
        .unwrap();
    // RFC 8446 6: an alert record, fatal, protocol_version.
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70), "{answer:?}");
}

/// A ClientHello as RFC 5246 has it: everything is there but TLS 1.3's supported_versions. Made by hand, because TLS 1.2
/// is not compiled in.
fn client_hello_tls12() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f];
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(), // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],                  // ec_point_formats: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],      // signature_algorithms
        &[0, 23, 0, 0],                        // extended_master_secret
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, suites.len() as u8]);
    body.extend(suites);
    body.extend([1, 0]);
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut handshake = vec![1, 0, 0, body.len() as u8];
    handshake.extend(body);
    let mut record = vec![22, 3, 1, 0, handshake.len() as u8];
    record.extend(handshake);
    record
}

#[tokio::test]
async fn a_server_that_is_not_the_expected_one_is_refused() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let (alipay, paypay, gateway) = (
        principal("partner/alipay"),
        principal("partner/paypay"),
        principal("gateway/g"),
    );
    let client = pki.usual(&gateway);
    let spec = LeafSpec::of(&alipay);
    let now = OffsetDateTime::now_utc();
    let elsewhere = LeafSpec {
        dns_names: vec!["elsewhere".to_owned()],
        ip_addresses: vec![],
        ..spec.clone()
    };
    let expired = LeafSpec {
        not_before: now - 2 * Days::DAY,
        not_after: now - Days::DAY,
        ..spec.clone()
    };
    let not_a_server = LeafSpec {
        server: false,
        ..spec.clone()
    };
    let other_domain = Principal::parse("spiffe://other.dev/partner/alipay").unwrap();
    for (case, server, expected) in [
        (
            "another partner",
            pki.usual(&paypay),
            "is spiffe://causeway.dev/partner/paypay, expected",
        ),
        (
            "another trust domain",
            pki.files("domain", LeafSpec::of(&other_domain)),
            "is spiffe://other.dev",
        ),
        ("nobody", pki.files("nobody", LeafSpec::default()), "0 URI names"),
        ("another host", pki.files("elsewhere", elsewhere), "not valid for name"),
        ("expired", pki.files("expired", expired), "expired"),
        (
            "not a server",
            pki.files("operator", not_a_server),
            "extended key usage",
        ),
        // Development CAs share a name, so it is the signature that tells them apart.
        ("another CA", foreign.files("foreign", spec), "BadSignature"),
    ] {
        let addr = serve(&server, ListenLimits::default()).await;
        let status = check(format!("https://{addr}"), &client, &alipay)
            .await
            .expect_err(case);
        assert_eq!(status.code(), Code::Unavailable, "{case}: {status:?}");
        let causes = causes(&status);
        assert!(
            causes.to_lowercase().contains(&expected.to_lowercase()),
            "{case}: {causes}"
        );
    }
}

#[tokio::test]
async fn slow_handshakes_block_nobody_and_end() {
    let pki = Pki::new();
    let (alipay, gateway) = (principal("partner/alipay"), principal("gateway/gateway"));
    let limits = ListenLimits {
        handshake_timeout: Duration::from_secs(2),
        ..ListenLimits::default()
    };
    let addr = serve(&pki.usual(&alipay), limits).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // The first byte of a handshake, and never a second.
        stream.write_all(&[22]).await.unwrap();
        silent.push(stream);
    }
    let client = pki.usual(&gateway);
    let call = check(format!("https://{addr}"), &client, &alipay);
    tokio::select! {
        biased;
        answer = call => answer.unwrap(),
        _ = silent[0].readable() => panic!("the silent ones were dropped before the call was served"),
    }
    for mut stream in silent {
        let read = timeout(BOUND, stream.read(&mut [0; 8]))
            .await
            .expect("a silent handshake is never ended");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let pki = Pki::new();
    let (alipay, gateway) = (principal("partner/alipay"), principal("gateway/gateway"));
    let limits = ListenLimits {
        connections_max: 1,
        ..ListenLimits::default()
    };
    let addr = serve(&pki.usual(&alipay), limits).await;
    let files = pki.usual(&gateway);
    let connect = || {
        let channel = channel(&format!("https://{addr}"), &files, &alipay, ChannelOptions::default()).unwrap();
        HealthClient::new(channel)
    };
    let (mut first, mut second) = (connect(), connect());
    first.check(HealthCheckRequest::default()).await.unwrap();
    let mut waiting = Box::pin(second.check(HealthCheckRequest::default()));
    // A round trip on the first connection: the second one would have had the time to be served as well.
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("served beyond the limit"),
        answer = async { for _ in 0..20 { first.check(HealthCheckRequest::default()).await.unwrap(); } } => answer,
    }
    drop(first);
    timeout(BOUND, waiting)
        .await
        .expect("the place was not given back")
        .unwrap();
}

#[test]
fn a_bad_file_is_named_with_what_is_wrong() {
    let pki = Pki::new();
    let good = pki.usual(&principal("partner/alipay"));
    let other = pki.usual(&principal("partner/paypay"));
    let written = |name: &str, content: &[u8]| {
        let path = pki.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let garbage = written(
        "garbage",
        b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    let cut = written("cut", b"-----BEGIN PRIVATE KEY-----\nMIGH\n");
    let not_der = written(
        "not-der",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let missing = PathBuf::from("/nonexistent/ca.pem");
    let text = written("text", b"hello");
    for (files, kind, path, detail) in [
        (
            TlsFiles {
                ca: missing.clone(),
                ..good.clone()
            },
            "CA file",
            &missing,
            "No such file",
        ),
        (
            TlsFiles {
                cert: missing.clone(),
                ..good.clone()
            },
            "certificate file",
            &missing,
            "No such file",
        ),
        (
            TlsFiles {
                key: missing.clone(),
                ..good.clone()
            },
            "key file",
            &missing,
            "No such file",
        ),
        (
            TlsFiles {
                ca: text.clone(),
                ..good.clone()
            },
            "CA file",
            &text,
            "holds no certificate",
        ),
        (
            TlsFiles {
                ca: good.key.clone(),
                ..good.clone()
            },
            "CA file",
            &good.key,
            "holds no certificate",
        ),
        (
            TlsFiles {
                ca: not_der.clone(),
                ..good.clone()
            },
            "CA file",
            &not_der,
            "invalid peer certificate",
        ),
        (
            TlsFiles {
                cert: text.clone(),
                ..good.clone()
            },
            "certificate file",
            &text,
            "holds no certificate",
        ),
        (
            TlsFiles {
                cert: garbage.clone(),
                ..good.clone()
            },
            "certificate file",
            &garbage,
            "not PEM",
        ),
        (
            TlsFiles {
                key: text.clone(),
                ..good.clone()
            },
            "key file",
            &text,
            "holds no private key",
        ),
        (
            TlsFiles {
                key: good.cert.clone(),
                ..good.clone()
            },
            "key file",
            &good.cert,
            "holds no private key",
        ),
        (
            TlsFiles {
                key: cut.clone(),
                ..good.clone()
            },
            "key file",
            &cut,
            "not PEM",
        ),
        (
            TlsFiles {
                key: other.key.clone(),
                ..good.clone()
            },
            "key file",
            &other.key,
            "the key is not the certificate's",
        ),
    ] {
        for error in
            [server_config(&files).map(drop), channel_error(&files)].map(|result| result.unwrap_err().to_string())
        {
            let path = path.display().to_string();
            assert!(
                error.contains(kind) && error.contains(&path) && error.contains(detail),
                "{path}: {error}"
            );
        }
    }
    server_config(&good).unwrap();
}

fn channel_error(files: &TlsFiles) -> Result<(), TlsError> {
    // A channel's buffer is a task, so it needs a runtime even to be refused.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    channel(
        "https://localhost:1",
        files,
        &principal("partner/a"),
        ChannelOptions::default(),
    )
    .map(drop)
}

#[tokio::test]
async fn an_endpoint_is_https_host_and_port() {
    let pki = Pki::new();
    let files = pki.usual(&principal("partner/alipay"));
    let open = |endpoint: &str| channel(endpoint, &files, &principal("partner/a"), ChannelOptions::default());
    for endpoint in [
        "https://127.0.0.1:7001",
        "https://[::1]:7001",
        "https://partner.example:443/",
    ] {
        open(endpoint).unwrap();
    }
    for endpoint in [
        "",
        "127.0.0.1:7001",
        "http://127.0.0.1:7001",
        "https://127.0.0.1",
        "https://a:1/x",
        "https://a:1?x",
        "https://a b:1",
    ] {
        let error = open(endpoint).expect_err(endpoint).to_string();
        assert!(error.contains("https://HOST:PORT"), "{endpoint}: {error}");
    }
}
