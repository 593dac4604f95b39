//! The accepting side.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::{ALPN_H2, Identity, TlsError, TlsFiles, pair_error, provider};
use crate::authn::{IdentityError, Principal};

/// How long accepting rests after the system refused it (most likely for want of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a server accepts with: TLS 1.3, our certificate, and a client certificate that chains to the CA.
///
/// # Errors
/// A [`TlsError`] that names the file and what is wrong with it.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let Identity { roots, chain, key } = Identity::load(files)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::Ca {
            path: files.ca.clone(),
            detail: error.to_string(),
        })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| pair_error(files, error))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // No resumption: a resumed session is not asked for its certificate again, so that an expired one would live on.
    // Connections last for hours; a full handshake each costs nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a listener gives to strangers.
#[derive(Clone, Copy, Debug)]
pub struct ListenLimits {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How many connections there are at once, handshakes included; further ones wait in the system's backlog.
    pub connections_max: usize,
}

impl Default for ListenLimits {
    fn default() -> Self {
        ListenLimits {
            handshake_timeout: Duration::from_secs(10),
            connections_max: 10_000,
        }
    }
}

/// Who is at the other end, in the extensions of every request.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// From where.
    pub addr: SocketAddr,
    /// Who. The certificate is valid in any case; it may still name nobody.
    pub principal: Result<Principal, IdentityError>,
}

/// An accepted connection whose peer proved its certificate.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    /// The connection's place among `connections_max`.
    _permit: OwnedSemaphorePermit,
}

impl TlsConnection {
    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts connections for `Server::serve_with_incoming`. Handshakes run beside each other, each in its own time; one
/// that fails is logged and forgotten. The stream never ends; dropping it closes the listener and ends the handshakes.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: ListenLimits,
) -> impl Stream<Item = io::Result<TlsConnection>> + Send {
    let acceptance = Acceptance {
        listener,
        acceptor: TlsAcceptor::from(config),
        handshake_timeout: limits.handshake_timeout,
        room: Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS))),
        handshakes: JoinSet::new(),
    };
    stream::unfold(acceptance, |mut acceptance| async move {
        let connection = acceptance.next().await;
        Some((Ok(connection), acceptance))
    })
}

struct Acceptance {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
    room: Arc<Semaphore>,
    handshakes: JoinSet<Option<TlsConnection>>,
}

impl Acceptance {
    async fn next(&mut self) -> TlsConnection {
        loop {
            tokio::select! {
                // Finished handshakes first: those peers have waited longest, and have proved themselves.
                biased;
                Some(finished) = self.handshakes.join_next() => match finished {
                    Ok(Some(connection)) => return connection,
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "a TLS handshake task failed"),
                },
                (accepted, permit) = accept(&self.listener, &self.room) => match accepted {
                    Ok((stream, addr)) => {
                        let acceptor = self.acceptor.clone();
                        self.handshakes.spawn(handshake(acceptor, stream, addr, self.handshake_timeout, permit));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
    }
}

/// Cancel-safe: nothing is lost if it is dropped between its two awaits.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (io::Result<(TcpStream, SocketAddr)>, OwnedSemaphorePermit) {
    let permit = room
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    (listener.accept().await, permit)
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    addr: SocketAddr,
    limit: Duration,
    permit: OwnedSemaphorePermit,
) -> Option<TlsConnection> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%addr, %error, "connection lost before the handshake");
        return None;
    }
    let stream = match timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%addr, %error, "TLS handshake refused");
            return None;
        }
        Err(_) => {
            tracing::info!(%addr, limit_ms = limit.as_millis(), "TLS handshake took too long");
            return None;
        }
    };
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
        // The verifier demands one; without it there is no connection, whatever became of the verifier.
        tracing::error!(%addr, "TLS handshake without a client certificate");
        return None;
    };
    let principal = Principal::from_certificate(certificate);
    Some(TlsConnection {
        peer: PeerInfo { addr, principal },
        stream,
        _permit: permit,
    })
}
