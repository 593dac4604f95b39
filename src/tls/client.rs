//! The calling side.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::ServerName,
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{ALPN_H2, Identity, TlsError, TlsFiles, pair_error, provider};
use crate::authn::Principal;

/// How a channel behaves. Deadlines of calls are the callers'.
#[derive(Clone, Copy, Debug)]
pub struct ChannelOptions {
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// A ping after so much silence, so that a dead peer is noticed.
    pub keepalive_interval: Duration,
    /// How long the ping's answer may take.
    pub keepalive_timeout: Duration,
    /// How many calls wait for the connection before `ready` does.
    pub buffer_size: usize,
    /// HTTP/2 flow control of one call, bytes.
    pub stream_window: u32,
    /// HTTP/2 flow control of all calls together, bytes.
    pub connection_window: u32,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        ChannelOptions {
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            buffer_size: 4_096,
            stream_window: 1 << 20,
            connection_window: 8 << 20,
        }
    }
}

/// A lazy channel to `endpoint` ("https://HOST:PORT") that speaks to `expected` and nobody else: the server's chain, its
/// name or address and its principal are verified at every connect, so that no partner can pose as another.
///
/// # Errors
/// The endpoint or the files are not usable. That nobody answers, or somebody else, shows in the calls: UNAVAILABLE.
pub fn channel(
    endpoint: &str,
    files: &TlsFiles,
    expected: &Principal,
    options: ChannelOptions,
) -> Result<Channel, TlsError> {
    let target = Arc::new(Target::parse(endpoint)?);
    let connector = TlsConnector::from(client_config(files)?);
    let expected = Arc::new(expected.clone());
    let connect = service_fn(move |_: Uri| {
        let (target, connector, expected) = (target.clone(), connector.clone(), expected.clone());
        async move { connect(&target, &connector, &expected).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|error| TlsError::Endpoint {
            endpoint: endpoint.to_owned(),
            detail: error.to_string(),
        })?
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .buffer_size(options.buffer_size)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window);
    Ok(endpoint.connect_with_connector_lazy(connect))
}

fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let Identity { roots, chain, key } = Identity::load(files)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::Ca {
            path: files.ca.clone(),
            detail: error.to_string(),
        })?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|error| pair_error(files, error))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // As on the server: every connection proves its certificates anew.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

struct Target {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Target {
    fn parse(endpoint: &str) -> Result<Target, TlsError> {
        let wrong = |detail: &str| TlsError::Endpoint {
            endpoint: endpoint.to_owned(),
            detail: detail.to_owned(),
        };
        let uri: Uri = endpoint
            .parse()
            .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("the scheme is not https"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("there is a path"));
        }
        let host = uri.host().ok_or_else(|| wrong("there is no host"))?;
        let port = uri.port_u16().ok_or_else(|| wrong("there is no port"))?;
        // A URI brackets an IPv6 address (RFC 3986 3.2.2), nobody else does.
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let server_name =
            ServerName::try_from(host.to_owned()).map_err(|_| wrong("the host is neither a name nor an address"))?;
        Ok(Target {
            host: host.to_owned(),
            port,
            server_name,
        })
    }
}

async fn connect(target: &Target, connector: &TlsConnector, expected: &Principal) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    let stream = connector.connect(target.server_name.clone(), stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("the server showed no certificate"))?;
    match Principal::from_certificate(certificate) {
        Ok(principal) if principal == *expected => Ok(stream),
        Ok(principal) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the server is {principal}, expected {expected}"),
        )),
        Err(error) => Err(io::Error::new(io::ErrorKind::PermissionDenied, error)),
    }
}
