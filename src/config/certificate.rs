//! Certificates in files: whether they can be used, and whom they are for. Which one answers is `server/`'s affair.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate's two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first, as PEM.
    pub cert: PathBuf,
    /// The private key, as PEM.
    pub key: PathBuf,
}

/// A certificate file that cannot be used, and why.
#[derive(Debug)]
pub struct TlsFault {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.why)
    }
}

impl std::error::Error for TlsFault {}

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// What a handshake takes.
    pub key: CertifiedKey,
    /// The host names that it is for, in lower case.
    pub names: Vec<String>,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
}

impl CertificateFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// Names the file that cannot be read or used; a key must belong to its certificate.
    pub fn read(&self) -> Result<Certificate, TlsFault> {
        let in_cert = |why: String| TlsFault::of(&self.cert, why);
        let in_key = |why: String| TlsFault::of(&self.key, why);
        let chain = certificates(&self.cert)?;
        let Some(leaf) = chain.first() else {
            return Err(in_cert("there is no certificate in it".to_owned()));
        };
        let (names, not_after) = describe(leaf).map_err(in_cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| in_key(format!("no usable private key: {error}")))?;
        let key = ring::sign::any_supported_type(&key)
            .map_err(|error| in_key(format!("this kind of key cannot be used: {error}")))?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|error| {
            let it = format!("it is not the key of `{}`", self.cert.display());
            in_key(match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => it,
                other => format!("{it}: {other}"),
            })
        })?;
        Ok(Certificate { key, names, not_after })
    }
}

impl TlsFault {
    fn of(file: &Path, why: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            why: why.to_string(),
        }
    }
}

/// Lets in who has a certificate of an authority in `file`.
///
/// # Errors
/// When the file cannot be read, or holds no authority.
pub fn authority(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|error| TlsFault::of(file, error))?;
    }
    if roots.is_empty() {
        return Err(TlsFault::of(file, "there is no certificate in it"));
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| TlsFault::of(file, error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let fault = |error| TlsFault::of(file, format!("no usable certificate: {error}"));
    CertificateDer::pem_file_iter(file)
        .map_err(fault)?
        .collect::<Result<_, _>>()
        .map_err(fault)
}

/// The host names that a certificate is for, in lower case, and when it expires, in seconds since the epoch.
pub(crate) fn describe(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| format!("its names cannot be read: {error}"))?;
    let names = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
    Ok((names.collect(), leaf.validity().not_after.timestamp()))
}
