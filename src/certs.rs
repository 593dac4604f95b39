//! Development certificates: a CA of one's own and a leaf for everyone in a demonstration or a test.
//!
//! Owns the making and the safe writing of them; reading and trusting certificates is [`crate::tls`]'s. Called by the
//! `certs` command and by tests, never by a running gateway.
//!
//! Invariant: a set is written whole or not at all, keys are never readable by others, and nothing is overwritten that
//! the caller did not say to overwrite.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use tempfile::NamedTempFile;
use time::{Duration, OffsetDateTime};

use crate::{
    authn::{IdentityError, Principal, Role},
    tls::TlsFiles,
};

/// The issuer's name in every leaf. The same for all development CAs, so that a CA is known again by its key alone.
const CA_COMMON_NAME: &str = "Causeway development CA";
const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// A CA outlives its leaves, so that more of them can be issued.
const CA_VALID_DAYS_MIN: u32 = 3_650;
/// Certificates are valid a little before they are made: clocks differ.
const BACKDATE: Duration = Duration::hours(1);
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// What to generate.
#[derive(Clone, Debug)]
pub struct CertsOptions {
    /// Where to; made if missing.
    pub dir: PathBuf,
    /// The realm of all names: "causeway.dev".
    pub trust_domain: String,
    /// Partner networks, each `partner-NAME.pem` and `.key`.
    pub partners: Vec<String>,
    /// Operators, each `operator-NAME.pem` and `.key`.
    pub operators: Vec<String>,
    /// Gateways, each `NAME.pem` and `.key`.
    pub gateways: Vec<String>,
    /// Overwrite what exists.
    pub force: bool,
    /// How long the leaves are valid.
    pub valid_days: u32,
}

impl Default for CertsOptions {
    fn default() -> Self {
        CertsOptions {
            dir: PathBuf::from("certs"),
            trust_domain: "causeway.dev".to_owned(),
            partners: vec!["apple-pay".to_owned(), "alipay".to_owned()],
            operators: vec!["ops".to_owned()],
            gateways: vec!["gateway".to_owned()],
            force: false,
            valid_days: 90,
        }
    }
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Every file, the CA's first.
    pub files: Vec<PathBuf>,
    /// Every principal with its files.
    pub leaves: Vec<(Principal, TlsFiles)>,
}

/// Why there are no certificates. Nothing on disk has changed.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A name or the trust domain is not valid.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Two principals would share a file.
    #[error("two certificates would be written to {0}")]
    Duplicate(PathBuf),
    /// Files are in the way and `force` was not given.
    #[error("not overwriting what exists (force overwrites): {}", list(.files))]
    Exists {
        /// All that is in the way.
        files: Vec<PathBuf>,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A validity that no calendar has.
    #[error("{0} days from now is no date")]
    Validity(u32),
}

fn list(files: &[PathBuf]) -> String {
    files
        .iter()
        .map(|file| file.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Generates a CA and a leaf for each name, and writes them all, or none.
///
/// # Errors
/// A [`CertsError`]; the directory's files are then as they were.
pub fn generate(options: &CertsOptions) -> Result<Generated, CertsError> {
    let now = OffsetDateTime::now_utc();
    let valid = valid_for(now, options.valid_days)?;
    let authority = Authority::new(options.valid_days.max(CA_VALID_DAYS_MIN))?;
    let mut files = vec![
        NewFile::certificate(options.dir.join(CA_CERTIFICATE), authority.certificate_pem().to_owned()),
        NewFile::key(options.dir.join(CA_KEY), authority.key_pem()),
    ];
    let mut leaves = Vec::new();
    let names = [(Role::Gateway, &options.gateways), (Role::Partner, &options.partners)]
        .into_iter()
        .chain([(Role::Operator, &options.operators)])
        .flat_map(|(role, names)| names.iter().map(move |name| (role, name)));
    for (role, name) in names {
        let principal = Principal::new(role, name, &options.trust_domain)?;
        let leaf = issue(
            &authority,
            &LeafSpec {
                not_before: now - BACKDATE,
                not_after: valid,
                ..LeafSpec::of(&principal)
            },
        )?;
        let tls = files_of(&options.dir, &principal);
        files.push(NewFile::certificate(tls.cert.clone(), leaf.certificate_pem));
        files.push(NewFile::key(tls.key.clone(), leaf.key_pem));
        leaves.push((principal, tls));
    }
    for (index, file) in files.iter().enumerate() {
        if files[..index].iter().any(|earlier| earlier.path == file.path) {
            return Err(CertsError::Duplicate(file.path.clone()));
        }
    }
    write_set(&options.dir, &files, options.force)?;
    Ok(Generated {
        files: files.into_iter().map(|file| file.path).collect(),
        leaves,
    })
}

/// Where [`generate`] puts a principal's files.
pub fn files_of(dir: &Path, principal: &Principal) -> TlsFiles {
    let stem = match principal.role() {
        Role::Gateway => principal.name().to_owned(),
        Role::Partner | Role::Operator => format!("{}-{}", principal.role(), principal.name()),
    };
    TlsFiles {
        ca: dir.join(CA_CERTIFICATE),
        cert: dir.join(format!("{stem}.pem")),
        key: dir.join(format!("{stem}.key")),
    }
}

/// A certification authority for development: a key, and the certificate to trust.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// A new one, valid from now.
    ///
    /// # Errors
    /// [`CertsError::Validity`] or [`CertsError::Issue`].
    pub fn new(valid_days: u32) -> Result<Authority, CertsError> {
        let now = OffsetDateTime::now_utc();
        let mut params = ca_params();
        params.not_before = now - BACKDATE;
        params.not_after = valid_for(now, valid_days)?;
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            certificate_pem,
        })
    }

    /// The one that [`generate`] wrote to `dir`, to issue more leaves from it.
    ///
    /// # Errors
    /// [`CertsError::Io`] if it is not there, [`CertsError::Issue`] if the key is none.
    pub fn open(dir: &Path) -> Result<Authority, CertsError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| CertsError::Io { path, source })
        };
        let (certificate_pem, key) = (read(CA_CERTIFICATE)?, KeyPair::from_pem(&read(CA_KEY)?)?);
        Ok(Authority {
            issuer: Issuer::new(ca_params(), key),
            certificate_pem,
        })
    }

    /// The certificate that peers trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// What a leaf certificate shall say.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// URI names; a usable leaf has exactly one, a SPIFFE id.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Valid from.
    pub not_before: OffsetDateTime,
    /// Valid until.
    pub not_after: OffsetDateTime,
    /// May serve (extended key usage serverAuth) beside calling (clientAuth).
    pub server: bool,
}

impl Default for LeafSpec {
    /// No URI, localhost, valid for a day, may serve.
    fn default() -> Self {
        let now = OffsetDateTime::now_utc();
        LeafSpec {
            uris: Vec::new(),
            dns_names: vec!["localhost".to_owned()],
            ip_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            not_before: now - BACKDATE,
            not_after: now + Duration::DAY,
            server: true,
        }
    }
}

impl LeafSpec {
    /// The usual leaf of a principal: its URI, `localhost`, `NAME.localhost`, `NAME` and the loopback addresses.
    pub fn of(principal: &Principal) -> LeafSpec {
        let name = principal.name();
        LeafSpec {
            uris: vec![principal.spiffe_uri()],
            dns_names: vec!["localhost".to_owned(), format!("{name}.localhost"), name.to_owned()],
            server: principal.role() != Role::Operator,
            ..LeafSpec::default()
        }
    }
}

/// A leaf certificate with its key.
pub struct Leaf {
    certificate: rcgen::Certificate,
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf")
            .field("certificate_pem", &self.certificate_pem)
            .field("key_pem", &"***")
            .finish()
    }
}

impl Leaf {
    /// The certificate in DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// Writes `STEM.pem`, `STEM.key` and, as `STEM-ca.pem`, the authority to trust.
    ///
    /// # Errors
    /// [`CertsError::Exists`] or [`CertsError::Io`].
    pub fn write(&self, dir: &Path, stem: &str, trusted: &Authority) -> Result<TlsFiles, CertsError> {
        let path = |suffix: &str| dir.join(format!("{stem}{suffix}"));
        let tls = TlsFiles {
            ca: path("-ca.pem"),
            cert: path(".pem"),
            key: path(".key"),
        };
        let files = [
            NewFile::certificate(tls.ca.clone(), trusted.certificate_pem().to_owned()),
            NewFile::certificate(tls.cert.clone(), self.certificate_pem.clone()),
            NewFile::key(tls.key.clone(), self.key_pem.clone()),
        ];
        write_set(dir, &files, false)?;
        Ok(tls)
    }
}

/// Issues a leaf with a new key.
///
/// # Errors
/// [`CertsError::Issue`], for a name that no certificate can carry.
pub fn issue(authority: &Authority, spec: &LeafSpec) -> Result<Leaf, CertsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Causeway development");
    params.not_before = spec.not_before;
    params.not_after = spec.not_after;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    if spec.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    for uri in &spec.uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    for name in &spec.dns_names {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    params
        .subject_alt_names
        .extend(spec.ip_addresses.iter().copied().map(SanType::IpAddress));
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    Ok(Leaf {
        certificate_pem: certificate.pem(),
        certificate,
        key_pem: key.serialize_pem(),
    })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(CA_COMMON_NAME);
    // Signs leaves and nothing that signs again.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}

fn valid_for(now: OffsetDateTime, days: u32) -> Result<OffsetDateTime, CertsError> {
    // RFC 5280 4.1.2.5: the year has four digits, and `time` ends there too.
    now.checked_add(Duration::days(i64::from(days)))
        .ok_or(CertsError::Validity(days))
}

struct NewFile {
    path: PathBuf,
    content: String,
    mode: u32,
}

impl NewFile {
    fn certificate(path: PathBuf, content: String) -> NewFile {
        NewFile {
            path,
            content,
            mode: CERTIFICATE_MODE,
        }
    }

    fn key(path: PathBuf, content: String) -> NewFile {
        NewFile {
            path,
            content,
            mode: KEY_MODE,
        }
    }
}

/// Writes all of `files` or none. Each is first written whole under a temporary name, then all are put into place; what
/// was put is taken back if a later one fails.
fn write_set(dir: &Path, files: &[NewFile], force: bool) -> Result<(), CertsError> {
    fs::create_dir_all(dir).map_err(|source| CertsError::Io {
        path: dir.to_owned(),
        source,
    })?;
    if !force {
        // A link that leads nowhere is in the way as well, hence not `exists`.
        let in_the_way = |file: &&NewFile| file.path.symlink_metadata().is_ok();
        let existing: Vec<_> = files.iter().filter(in_the_way).map(|file| file.path.clone()).collect();
        if !existing.is_empty() {
            return Err(CertsError::Exists { files: existing });
        }
    }
    let staged = files
        .iter()
        .map(|file| stage(dir, file))
        .collect::<Result<Vec<_>, _>>()?;
    let mut placement = Placement { done: Vec::new() };
    for (file, temporary) in files.iter().zip(staged) {
        placement.place(dir, temporary, &file.path, force)?;
    }
    placement.keep();
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| CertsError::Io {
        path: dir.to_owned(),
        source,
    })
}

fn stage(dir: &Path, file: &NewFile) -> Result<NamedTempFile, CertsError> {
    let write = || {
        // The mode is given to open(2): there is no instant at which others could read a key.
        let mut temporary = tempfile::Builder::new()
            .prefix(".causeway-certs-")
            .permissions(Permissions::from_mode(file.mode))
            .tempfile_in(dir)?;
        temporary.write_all(file.content.as_bytes())?;
        temporary.as_file().sync_all()?;
        Ok(temporary)
    };
    write().map_err(|source| CertsError::Io {
        path: file.path.clone(),
        source,
    })
}

/// The files put into place so far, with what they replaced. Taken back on drop unless kept.
struct Placement {
    done: Vec<(PathBuf, Option<tempfile::TempPath>)>,
}

impl Placement {
    fn place(&mut self, dir: &Path, temporary: NamedTempFile, path: &Path, force: bool) -> Result<(), CertsError> {
        let failed = |source| CertsError::Io {
            path: path.to_owned(),
            source,
        };
        if !force {
            // Links instead of renaming: it fails if somebody made the file since we looked.
            temporary.persist_noclobber(path).map_err(|error| failed(error.error))?;
            self.done.push((path.to_owned(), None));
            return Ok(());
        }
        let replaced = match path.symlink_metadata() {
            Ok(_) => {
                let backup = tempfile::Builder::new()
                    .prefix(".causeway-certs-old-")
                    .tempfile_in(dir)
                    .map_err(failed)?;
                let backup = backup.into_temp_path();
                fs::rename(path, &backup).map_err(failed)?;
                Some(backup)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        self.done.push((path.to_owned(), replaced));
        temporary.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn keep(mut self) {
        self.done.clear();
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        for (path, replaced) in self.done.drain(..).rev() {
            let undone = match replaced {
                Some(backup) => backup.persist(&path).map_err(|error| error.error),
                None => fs::remove_file(&path),
            };
            if let Err(error) = undone {
                tracing::error!(path = %path.display(), %error, "a certificate file could not be put back");
            }
        }
    }
}

#[cfg(test)]
mod tests;
