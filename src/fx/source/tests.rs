use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use time::macros::date;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::money::Currency;

const CSV: &str = "Date,USD,\n2014-10-28,1.2748,\n";
const XML: &str =
    "<Envelope><Cube><Cube time='2014-10-28'><Cube currency='USD' rate='1.2748'/></Cube></Cube></Envelope>";

type Body = Either<Full<Bytes>, StreamBody<futures_util::stream::Pending<Result<Frame<Bytes>, Infallible>>>>;

fn full(text: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(text.into()))
}

/// A file server over TLS that answers as it is told, and the certificate to trust.
struct Server {
    port: u16,
    ca: tempfile::NamedTempFile,
    requests: Arc<Mutex<Vec<http::HeaderMap>>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    async fn start(answer: impl Fn(&Request<Incoming>) -> Response<Body> + Send + Sync + 'static) -> Server {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(certified.cert.pem().as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = tokio_util::sync::CancellationToken::new();
        let (seen, stopped, answer) = (requests.clone(), stop.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Some(Ok((socket, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (acceptor, seen, answer) = (acceptor.clone(), seen.clone(), answer.clone());
                let serve = async move {
                    // A client that does not trust us hangs up here.
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        seen.lock().unwrap().push(request.headers().clone());
                        let response = answer(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                };
                tokio::spawn(stopped.clone().run_until_cancelled_owned(serve));
            }
        });
        Server {
            port,
            ca,
            requests,
            _stop: stop.drop_guard(),
        }
    }

    fn config(&self, path: &str) -> HttpsConfig {
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        HttpsConfig {
            roots: Roots::File(self.ca.path().to_owned()),
            ..HttpsConfig::new(url)
        }
    }

    fn source(&self, path: &str) -> Https {
        Https::new(self.config(path)).unwrap()
    }

    fn header(&self, request: usize, name: HeaderName) -> Option<String> {
        let requests = self.requests.lock().unwrap();
        requests[request]
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    }
}

fn usd(fetched: Result<Fetched, SourceError>) -> String {
    match fetched {
        Ok(Fetched::Table(table)) => table.entries()[&Currency::USD].rate.value_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_publication_over_https_in_either_layout() {
    let server = Server::start(|request| {
        let xml = request.uri().path().contains("xml") || request.uri().query() == Some("xml");
        Response::new(full(if xml { XML } else { CSV }))
    });
    let server = server.await;
    for path in ["/hist.csv", "/daily.xml", "/rates", "/rates?xml"] {
        assert_eq!(usd(server.source(path).fetch().await), "1.2748", "{path}");
    }
    let source = server.source("/hist.csv");
    assert_eq!(source.name(), "https://127.0.0.1/hist.csv");
    assert_eq!(server.header(0, header::IF_NONE_MATCH), None);
    assert!(server.header(0, header::USER_AGENT).unwrap().starts_with("causeway/"));
}

/// A server that says "not modified" when the named condition comes back as it was handed out.
async fn conditional(handed_out: HeaderName, asked: HeaderName, value: &'static str) {
    let condition = asked.clone();
    let server = Server::start(move |request| {
        let same = request.headers().get(&condition).is_some_and(|header| header == value);
        let response = Response::builder().header(&handed_out, value);
        match same {
            true => response.status(304).body(full("")).unwrap(),
            false => response.body(full(CSV)).unwrap(),
        }
    });
    let server = server.await;
    let source = server.source("/hist.csv");
    assert_eq!(usd(source.fetch().await), "1.2748");
    for _ in 0..2 {
        assert_eq!(source.fetch().await.unwrap(), Fetched::NotModified);
    }
    assert_eq!(server.header(0, asked.clone()), None);
    assert_eq!(server.header(2, asked).as_deref(), Some(value));
}

#[tokio::test]
async fn nothing_new_by_etag() {
    conditional(header::ETAG, header::IF_NONE_MATCH, "\"abc\"").await;
}

#[tokio::test]
async fn nothing_new_by_date() {
    let day = "Tue, 28 Oct 2014 15:00:00 GMT";
    conditional(header::LAST_MODIFIED, header::IF_MODIFIED_SINCE, day).await;
}

#[tokio::test]
async fn garbage_is_an_error_and_is_not_remembered_as_good() {
    let server = Server::start(|_| {
        Response::builder()
            .header(header::ETAG, "\"x\"")
            .body(full("<html>"))
            .unwrap()
    });
    let server = server.await;
    let source = server.source("/daily.xml");
    for _ in 0..2 {
        assert!(matches!(source.fetch().await, Err(SourceError::Malformed(_))));
    }
    assert_eq!(server.header(1, header::IF_NONE_MATCH), None);
}

#[tokio::test]
async fn other_answers_are_errors() {
    let server = Server::start(|request| {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder()
            .status(status)
            .header(header::LOCATION, "/200")
            .body(full(CSV))
            .unwrap()
    });
    let server = server.await;
    for status in [500, 503, 404, 204, 206, 301, 302, 304] {
        let fetched = server.source(&format!("/{status}")).fetch().await;
        assert!(
            matches!(&fetched, Err(SourceError::Status { status: got }) if *got == status),
            "{fetched:?}"
        );
    }
    let server = Server::start(|_| {
        Response::builder()
            .header("content-encoding", "gzip")
            .body(full(CSV))
            .unwrap()
    });
    let server = server.await;
    let fetched = server.source("/hist.csv").fetch().await;
    assert!(matches!(fetched, Err(SourceError::Encoding { .. })), "{fetched:?}");
}

#[tokio::test]
async fn an_oversized_body_is_cut_off() {
    let server = Server::start(|_| Response::new(full(CSV.repeat(1_000)))).await;
    let config = HttpsConfig {
        body_max: CSV.len() * 999,
        ..server.config("/hist.csv")
    };
    let fetched = Https::new(config).unwrap().fetch().await;
    assert!(matches!(fetched, Err(SourceError::TooLong { .. })), "{fetched:?}");
    let server = Server::start(|_| Response::new(full(CSV))).await;
    let config = HttpsConfig {
        body_max: CSV.len(),
        ..server.config("/hist.csv")
    };
    assert_eq!(usd(Https::new(config).unwrap().fetch().await), "1.2748");
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    let server = Server::start(|_| Response::new(Either::Right(StreamBody::new(futures_util::stream::pending()))));
    let server = server.await;
    let limit = Duration::from_millis(200);
    let config = HttpsConfig {
        timeout: limit,
        ..server.config("/hist.csv")
    };
    let source = Https::new(config).unwrap();
    let fetched = tokio::time::timeout(Duration::from_secs(20), source.fetch())
        .await
        .unwrap();
    assert!(
        matches!(fetched, Err(SourceError::Timeout { limit: got }) if got == limit),
        "{fetched:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_trusted_or_not_there_is_an_error() {
    let server = Server::start(|_| Response::new(full(CSV))).await;
    let other = Server::start(|_| Response::new(full(CSV))).await;
    let config = HttpsConfig {
        roots: Roots::File(other.ca.path().to_owned()),
        ..server.config("/hist.csv")
    };
    let fetched = Https::new(config).unwrap().fetch().await;
    assert!(matches!(fetched, Err(SourceError::Transport { .. })), "{fetched:?}");
    assert!(server.requests.lock().unwrap().is_empty());

    let source = server.source("/hist.csv");
    let port = server.port;
    drop(server);
    // The port is free again once the listener is gone.
    let gone = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert!(matches!(source.fetch().await, Err(SourceError::Transport { .. })));
}

#[tokio::test]
async fn only_https_addresses_are_accepted() {
    let check = |url: &str, expected: &str| {
        let error = Https::new(HttpsConfig::new(url)).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    };
    check("http://example.org/a.csv", "only https is accepted");
    check("ftp://example.org/a.csv", "only https is accepted");
    check("/a.csv", "only https is accepted");
    check("https://", "not an address");
    check("not an address", "not an address");
    check(
        "https://me:secret@example.org/a.csv",
        "user and password are not accepted",
    );
    let error = Https::new(HttpsConfig::new("https://me:secret@example.org/")).unwrap_err();
    assert!(!error.to_string().contains("secret"));
    let roots = Roots::File("/nowhere/ca.pem".into());
    let error = Https::new(HttpsConfig {
        roots,
        ..HttpsConfig::new("https://example.org")
    })
    .unwrap_err();
    assert!(matches!(error, SourceError::File { .. }));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let roots = Roots::File(empty.path().to_owned());
    let error = Https::new(HttpsConfig {
        roots,
        ..HttpsConfig::new("https://example.org")
    })
    .unwrap_err();
    assert!(error.to_string().contains("no certificate in it"), "{error}");
}

#[test]
fn the_system_certificates_are_found_or_said_to_be_missing() {
    let made = Https::new(HttpsConfig::new(
        "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml",
    ));
    assert!(matches!(made, Ok(_) | Err(SourceError::Roots { .. })), "{made:?}");
}

#[tokio::test]
async fn files_and_the_embedded_sample() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(ecb::SAMPLE.as_bytes()).unwrap();
    assert_eq!(usd(CsvFile::new(file.path(), None).fetch().await), "1.1172");
    assert_eq!(
        usd(CsvFile::new(file.path(), Some(date!(2014 - 10 - 28))).fetch().await),
        "1.2748"
    );
    assert_eq!(usd(Embedded::default().fetch().await), "1.1172");
    assert_eq!(
        usd(Embedded {
            date: Some(date!(2014 - 10 - 26))
        }
        .fetch()
        .await),
        "1.2659"
    );
    assert!(matches!(
        XmlFile::new(file.path()).fetch().await,
        Err(SourceError::Malformed(_))
    ));
    let mut xml = tempfile::NamedTempFile::new().unwrap();
    xml.write_all(XML.as_bytes()).unwrap();
    assert_eq!(usd(XmlFile::new(xml.path()).fetch().await), "1.2748");
    let missing = CsvFile::new("/nowhere/rates.csv", None);
    assert!(matches!(missing.fetch().await, Err(SourceError::File { .. })));
    assert_eq!(missing.name(), "European Central Bank (/nowhere/rates.csv)");
    let long = tempfile::NamedTempFile::new().unwrap();
    long.as_file().set_len(ecb::BYTES_MAX as u64 + 1).unwrap();
    assert!(matches!(
        CsvFile::new(long.path(), None).fetch().await,
        Err(SourceError::TooLong { .. })
    ));
}
