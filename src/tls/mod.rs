//! Mutual TLS under every connection: TLS 1.3 only, both sides with a certificate.
//!
//! Owns reading the PEM files, the rustls configurations, the accepting of connections ([`incoming`]) and the making of
//! channels ([`channel`]). Who a certificate stands for is [`crate::authn`]'s.
//!
//! Invariant: no byte of a call passes over a connection whose peer has not proved a certificate of our CA.

mod client;
mod server;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

pub use client::{ChannelOptions, channel};
pub use server::{ListenLimits, PeerInfo, TlsConnection, incoming, server_config};

/// RFC 9113 3.1: HTTP/2 over TLS, the only thing spoken here.
const ALPN_H2: &[u8] = b"h2";

/// The PEM files of one party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities that peers must chain to.
    pub ca: PathBuf,
    /// Our certificate, then its intermediates if any.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What a TLS file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFileKind {
    /// [`TlsFiles::ca`].
    Ca,
    /// [`TlsFiles::cert`].
    Certificate,
    /// [`TlsFiles::key`].
    Key,
}

impl fmt::Display for TlsFileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsFileKind::Ca => "CA file",
            TlsFileKind::Certificate => "certificate file",
            TlsFileKind::Key => "key file",
        })
    }
}

/// Why there is no TLS: the configured files or endpoint are to blame.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing or not readable.
    #[error("{kind} {path}: {source}")]
    Read {
        /// What for.
        kind: TlsFileKind,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not PEM.
    #[error("{kind} {path} is not PEM: {detail}")]
    Pem {
        /// What for.
        kind: TlsFileKind,
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file is PEM, but what is needed is not in it.
    #[error("{kind} {path} holds no {expected}")]
    Empty {
        /// What for.
        kind: TlsFileKind,
        /// Which.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A certificate of the CA file cannot be a trust anchor.
    #[error("CA file {path}: {detail}")]
    Ca {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The certificate and the key do not belong together, or one of them is unusable.
    #[error("certificate file {cert} and key file {key}: {detail}")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        detail: String,
    },
    /// Not "https://HOST:PORT".
    #[error("endpoint {endpoint:?} is not of the form https://HOST:PORT: {detail}")]
    Endpoint {
        /// What there was.
        endpoint: String,
        /// What is wrong with it.
        detail: String,
    },
    /// rustls refuses the configuration; a bug of ours.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
}

/// The files' contents, checked as far as they can be without a peer.
struct Identity {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn load(files: &TlsFiles) -> Result<Identity, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(TlsFileKind::Ca, &files.ca)? {
            roots.add(certificate).map_err(|error| TlsError::Ca {
                path: files.ca.clone(),
                detail: error.to_string(),
            })?;
        }
        let chain = certificates(TlsFileKind::Certificate, &files.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&read(TlsFileKind::Key, &files.key)?)
            .map_err(|error| pem_error(TlsFileKind::Key, &files.key, "private key", error))?;
        Ok(Identity {
            roots: Arc::new(roots),
            chain,
            key,
        })
    }
}

/// Passed explicitly everywhere: a process-wide default would be set by whoever comes first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn pair_error(files: &TlsFiles, error: rustls::Error) -> TlsError {
    let detail = match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
        other => other.to_string(),
    };
    TlsError::Pair {
        cert: files.cert.clone(),
        key: files.key.clone(),
        detail,
    }
}

fn certificates(kind: TlsFileKind, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(&read(kind, path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(kind, path, "certificate", error))?;
    if found.is_empty() {
        return Err(pem_error(kind, path, "certificate", pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn read(kind: TlsFileKind, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        kind,
        path: path.to_owned(),
        source,
    })
}

fn pem_error(kind: TlsFileKind, path: &Path, expected: &'static str, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::NoItemsFound => TlsError::Empty { kind, path, expected },
        // Not the error's Debug: it can quote the file, and the file can be a key.
        other => TlsError::Pem {
            kind,
            path,
            detail: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
