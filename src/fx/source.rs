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
    /// The source panicked: a bug.
    #[error("the source failed in an unforeseen way")]
    Panicked,
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
mod tests;
