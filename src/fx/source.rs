//! Rate sources: where a table of rates is fetched from.
//!
//! Owns getting a publication (the sample in the binary, a file, HTTPS) and its limits in bytes and time. Leaves to
//! others what the bytes mean ([`super::ecb`]), when to fetch, and what to do when it fails ([`super::cache`]).
//!
//! Invariant: no source reads more than [`ecb::BYTES_MAX`] bytes, and none answers with half a publication.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::Date;
use tokio::io::AsyncReadExt;

use super::ecb::{self, EcbError};
use super::table::RateTable;

/// What a fetch brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// What the source publishes now.
    Table(RateTable),
    /// Nothing new since the last table that this source brought.
    NotModified,
}

/// A fetch under way.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<Fetched, SourceError>> + Send + 'a>>;

/// Where a table of rates comes from. [`super::Rates`] fetches from it, one fetch at a time.
pub trait RateSource: Send + Sync + 'static {
    /// What the source is called in logs and errors.
    fn name(&self) -> &str;

    /// Gets what the source publishes now. Dropping the future abandons the fetch, and the next one starts afresh.
    fn fetch(&self) -> FetchFuture<'_>;
}

/// Why a fetch brought nothing. The source is at fault, or the operator who set it up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The publication is malformed.
    #[error("malformed publication: {0}")]
    Malformed(#[from] EcbError),
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The publication is longer than the limit.
    #[error("publication longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The address is not `https://host/...` without user and password.
    #[error("address {url:?}: {problem}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There are no certificates to trust.
    #[error("trusted certificates: {detail}")]
    Roots {
        /// What was tried and what came of it.
        detail: String,
    },
    /// The server could not be reached, its certificate is not trusted, or the connection broke.
    #[error("transport: {detail}")]
    Transport {
        /// The error and its causes.
        detail: String,
    },
    /// The server answered with neither the file nor "not modified". Redirects are not followed.
    #[error("server answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
    /// The answer is compressed although that was not asked for.
    #[error("unexpected content encoding {encoding:?}")]
    Encoding {
        /// What the server says it is.
        encoding: String,
    },
    /// The fetch took longer than it may.
    #[error("no answer within {} ms", limit.as_millis())]
    Timeout {
        /// How long it may take.
        limit: Duration,
    },
    /// "Not modified" without a table to keep: a bug of the source.
    #[error("not modified, but there is nothing to keep")]
    NothingToKeep,
    /// The rates are of a day that has not come yet: the source's clock or the gateway's is wrong.
    #[error("rates of {date}, a day that has not come yet")]
    Future {
        /// The day.
        date: Date,
    },
    /// The table is for another base than the last one.
    #[error("rates in {got}, until now they were in {expected}")]
    BaseChanged {
        /// The base until now.
        expected: crate::money::Currency,
        /// The base that came.
        got: crate::money::Currency,
    },
}

/// How a publication is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bank's history: [`ecb::parse_csv`].
    Csv,
    /// The bank's daily file: [`ecb::parse_xml`].
    Xml,
}

/// The sample that is compiled in: October 2014, and the 90 days up to 2026-10-30. For tests and demonstrations.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    /// The day to read; the newest if there is none. See [`ecb::parse_csv`].
    pub date: Option<Date>,
}

impl RateSource for Embedded {
    fn name(&self) -> &str {
        "European Central Bank (embedded sample)"
    }

    fn fetch(&self) -> FetchFuture<'_> {
        Box::pin(async { Ok(Fetched::Table(ecb::parse_csv(ecb::SAMPLE.as_bytes(), self.date)?)) })
    }
}

/// The bank's history as a file.
#[derive(Clone, Debug)]
pub struct CsvFile {
    path: PathBuf,
    date: Option<Date>,
    name: String,
}

impl CsvFile {
    /// Reads `path` at every fetch; the row of `date` if given ([`ecb::parse_csv`]), else the newest.
    pub fn new(path: impl Into<PathBuf>, date: Option<Date>) -> CsvFile {
        let path = path.into();
        let name = format!("{} ({})", ecb::NAME, path.display());
        CsvFile { path, date, name }
    }
}

impl RateSource for CsvFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch(&self) -> FetchFuture<'_> {
        Box::pin(fetch_file(&self.path, Format::Csv, self.date))
    }
}

/// The bank's daily file, as a file.
#[derive(Clone, Debug)]
pub struct XmlFile {
    path: PathBuf,
    name: String,
}

impl XmlFile {
    /// Reads `path` at every fetch.
    pub fn new(path: impl Into<PathBuf>) -> XmlFile {
        let path = path.into();
        let name = format!("{} ({})", ecb::NAME, path.display());
        XmlFile { path, name }
    }
}

impl RateSource for XmlFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch(&self) -> FetchFuture<'_> {
        Box::pin(fetch_file(&self.path, Format::Xml, None))
    }
}

/// Whose certificates an HTTPS source trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The system's.
    #[default]
    System,
    /// Those of a PEM file, and no others.
    File(PathBuf),
}

/// How an HTTPS source is set up.
#[derive(Clone, Debug)]
pub struct HttpsConfig {
    /// `https://host/path`; nothing else is accepted.
    pub url: String,
    /// The layout; if not given, the suffix of the path tells (`.csv`, `.xml`), else the content.
    pub format: Option<Format>,
    /// Whose certificates are trusted.
    pub roots: Roots,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a fetch may take in all, from connecting to the last byte.
    pub timeout: Duration,
    /// The most bytes of an answer's body.
    pub body_max: usize,
}

impl HttpsConfig {
    /// The usual limits: 5 s to connect, 20 s in all, [`ecb::BYTES_MAX`]; the system's certificates.
    pub fn new(url: impl Into<String>) -> HttpsConfig {
        HttpsConfig {
            url: url.into(),
            format: None,
            roots: Roots::System,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(20),
            body_max: ecb::BYTES_MAX,
        }
    }
}

/// A publication behind an address, over TLS 1.3. Asks whether there is anything new (`If-None-Match`,
/// `If-Modified-Since`; RFC 9110 section 13.1) and follows no redirects.
#[derive(Debug)]
pub struct Https {
    url: Uri,
    name: String,
    format: Option<Format>,
    timeout: Duration,
    body_max: usize,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Of the last publication that was read to the end and understood.
    validators: Mutex<Validators>,
}

/// What the server said of a publication, to be sent back: is it still the same?
#[derive(Clone, Debug, Default)]
struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Https {
    /// Checks the address and loads the certificates; connects at the first fetch only.
    ///
    /// # Errors
    /// [`SourceError::Address`], [`SourceError::Roots`], [`SourceError::File`].
    pub fn new(config: HttpsConfig) -> Result<Https, SourceError> {
        let HttpsConfig {
            url,
            format,
            roots,
            connect_timeout,
            timeout,
            body_max,
        } = config;
        let uri = parse_address(&url)?;
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(connect_timeout));
        // The connector below refuses plain HTTP; this one must let https through to it.
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(&roots)?)
            .https_only()
            .enable_http1()
            .wrap_connector(http);
        // Fetches are far apart: an idle connection would only be found dead.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        let name = format!("https://{}{}", uri.host().unwrap_or_default(), uri.path());
        Ok(Https {
            url: uri,
            name,
            format,
            timeout,
            body_max,
            client,
            validators: Mutex::default(),
        })
    }

    async fn fetch_now(&self) -> Result<Fetched, SourceError> {
        let known = self.validators.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let request = self.request(&known)?;
        let response = self.client.request(request).await.map_err(|error| transport(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if known.etag.is_some() || known.last_modified.is_some() => {
                return Ok(Fetched::NotModified);
            }
            status => return Err(SourceError::Status { status }),
        }
        if let Some(encoding) = response
            .headers()
            .get(header::CONTENT_ENCODING)
            .filter(|value| *value != "identity")
        {
            return Err(SourceError::Encoding {
                encoding: String::from_utf8_lossy(encoding.as_bytes()).into_owned(),
            });
        }
        let fresh = Validators {
            etag: response.headers().get(header::ETAG).cloned(),
            last_modified: response.headers().get(header::LAST_MODIFIED).cloned(),
        };
        let bytes = self.body(response).await?;
        let format = self.format.unwrap_or_else(|| guess_format(self.url.path(), &bytes));
        let table = parse(format, bytes, None).await?;
        // Only now: had the body been cut or garbage, the next fetch must not be told "not modified".
        *self.validators.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(Fetched::Table(table))
    }

    fn request(&self, known: &Validators) -> Result<Request<Empty<Bytes>>, SourceError> {
        const AGENT: &str = concat!("causeway/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::get(self.url.clone())
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, "text/csv, application/xml, text/xml, */*;q=0.1");
        let conditions: [(HeaderName, &Option<HeaderValue>); 2] = [
            (header::IF_NONE_MATCH, &known.etag),
            (header::IF_MODIFIED_SINCE, &known.last_modified),
        ];
        for (name, value) in conditions {
            if let Some(value) = value {
                request = request.header(name, value.clone());
            }
        }
        request.body(Empty::new()).map_err(|error| transport(&error))
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Vec<u8>, SourceError> {
        let limit = self.body_max;
        match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(error) if error.is::<LengthLimitError>() => Err(SourceError::TooLong { limit }),
            Err(error) => Err(transport(error.as_ref())),
        }
    }
}

impl RateSource for Https {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch(&self) -> FetchFuture<'_> {
        let limit = self.timeout;
        Box::pin(async move {
            let fetched = tokio::time::timeout(limit, self.fetch_now()).await;
            fetched.unwrap_or(Err(SourceError::Timeout { limit }))
        })
    }
}

fn parse_address(url: &str) -> Result<Uri, SourceError> {
    let address = |problem| SourceError::Address {
        url: url.to_owned(),
        problem,
    };
    let uri: Uri = url.parse().map_err(|_| address("not an address"))?;
    if uri.scheme_str() != Some("https") {
        return Err(address("only https is accepted"));
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| address("no host"))?;
    if authority.as_str().contains('@') {
        return Err(SourceError::Address {
            url: "***".to_owned(),
            problem: "user and password are not accepted",
        });
    }
    Ok(uri)
}

fn tls_config(roots: &Roots) -> Result<rustls::ClientConfig, SourceError> {
    let no_roots = |error: &dyn std::error::Error| SourceError::Roots {
        detail: error.to_string(),
    };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| no_roots(&error))?;
    let file = match roots {
        Roots::System => {
            return Ok(builder
                .with_native_roots()
                .map_err(|error| no_roots(&error))?
                .with_no_client_auth());
        }
        Roots::File(path) => path,
    };
    let mut store = rustls::RootCertStore::empty();
    let pem = std::fs::read(file).map_err(|error| SourceError::File {
        path: file.clone(),
        error,
    })?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| no_roots(&error))?;
        store.add(certificate).map_err(|error| no_roots(&error))?;
    }
    if store.is_empty() {
        return Err(SourceError::Roots {
            detail: format!("{}: no certificate in it", file.display()),
        });
    }
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// The error and what caused it: the outermost one alone says nothing ("client error").
fn transport(error: &dyn std::error::Error) -> SourceError {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        detail = format!("{detail}: {error}");
        cause = error.source();
    }
    SourceError::Transport { detail }
}

fn guess_format(path: &str, bytes: &[u8]) -> Format {
    let suffix = Path::new(path)
        .extension()
        .and_then(|suffix| suffix.to_str())
        .unwrap_or_default();
    if suffix.eq_ignore_ascii_case("csv") {
        return Format::Csv;
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    if suffix.eq_ignore_ascii_case("xml") || text.starts_with(b"<") {
        Format::Xml
    } else {
        Format::Csv
    }
}

async fn fetch_file(path: &Path, format: Format, date: Option<Date>) -> Result<Fetched, SourceError> {
    let file_error = |error| SourceError::File {
        path: path.to_owned(),
        error,
    };
    let limit = ecb::BYTES_MAX;
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(file_error)?;
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(file_error)?;
    if bytes.len() > limit {
        return Err(SourceError::TooLong { limit });
    }
    Ok(Fetched::Table(parse(format, bytes, date).await?))
}

/// Off the runtime's threads: 27 years of rates take a while to read.
async fn parse(format: Format, bytes: Vec<u8>, date: Option<Date>) -> Result<RateTable, SourceError> {
    let parse = move || match format {
        Format::Csv => ecb::parse_csv(&bytes, date),
        Format::Xml => ecb::parse_xml(&bytes, date),
    };
    let parsed = tokio::task::spawn_blocking(parse).await;
    Ok(parsed.map_err(|error| SourceError::Transport {
        detail: format!("reader stopped: {error}"),
    })??)
}

#[cfg(test)]
mod tests {
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
}
