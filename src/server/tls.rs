//! Certificates by server name, and the TLS settings of a listener. Certificates are reloaded when their files
//! change; connections that stand keep theirs.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring::Ticketer;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::base::clock::Timestamp;
use crate::telemetry::metrics::METRICS;

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

/// The certificates of one listener, chosen by the name the client asks for.
#[derive(Debug)]
pub struct Certificates {
    files: Vec<CertificateFiles>,
    current: ArcSwap<ByName>,
}

#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the asterisk, as `.example.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// The first of the list: for clients that name no host, or one that no certificate covers.
    default: Arc<CertifiedKey>,
    expiry: Vec<(String, i64)>,
}

impl Certificates {
    /// Loads all pairs.
    ///
    /// # Errors
    /// Names the file that cannot be read or used; a key must belong to its certificate.
    pub fn load(files: Vec<CertificateFiles>) -> Result<Arc<Self>, TlsFault> {
        let current = ArcSwap::from_pointee(ByName::load(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// Loads the files again. A pair that is broken, or half written, leaves all certificates as they are.
    pub fn reload(&self) -> Result<(), TlsFault> {
        self.current.store(Arc::new(ByName::load(&self.files)?));
        Ok(())
    }

    /// The files, to be watched.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .flat_map(|pair| [pair.cert.as_path(), pair.key.as_path()])
    }

    /// Shows in a metric how long each certificate is still valid.
    pub fn show_expiry(&self, now: Timestamp) {
        for (label, expiry) in &self.current.load().expiry {
            let seconds = *expiry as f64 - now.as_secs() as f64;
            METRICS
                .tls_expiry_seconds
                .with_label_values(&[label.as_str()])
                .set(seconds);
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        Some(current.choose(hello.server_name()))
    }
}

impl ByName {
    fn load(files: &[CertificateFiles]) -> Result<Self, TlsFault> {
        let (mut exact, mut wildcard, mut expiry) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut default = None;
        for pair in files {
            let key = Arc::new(load_pair(pair)?);
            let (names, not_after) = describe(&key.cert[0]).map_err(|why| TlsFault {
                file: pair.cert.clone(),
                why,
            })?;
            for name in names {
                match name.strip_prefix('*') {
                    Some(suffix) => wildcard.entry(suffix.to_owned()).or_insert_with(|| Arc::clone(&key)),
                    None => exact.entry(name).or_insert_with(|| Arc::clone(&key)),
                };
            }
            expiry.push((pair.cert.display().to_string(), not_after));
            default.get_or_insert(key);
        }
        let default = default.ok_or_else(|| TlsFault {
            file: PathBuf::new(),
            why: "no certificate is given".to_owned(),
        })?;
        Ok(Self {
            exact,
            wildcard,
            default,
            expiry,
        })
    }

    /// An asterisk stands for exactly one label (RFC 6125).
    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let named = name.and_then(|name| {
            let suffix = name.find('.').map(|dot| &name[dot..]);
            self.exact.get(name).or_else(|| self.wildcard.get(suffix?))
        });
        Arc::clone(named.unwrap_or(&self.default))
    }
}

fn load_pair(pair: &CertificateFiles) -> Result<CertifiedKey, TlsFault> {
    let in_cert = |why: String| TlsFault {
        file: pair.cert.clone(),
        why,
    };
    let in_key = |why: String| TlsFault {
        file: pair.key.clone(),
        why,
    };
    let chain = certificates(&pair.cert)?;
    if chain.is_empty() {
        return Err(in_cert("there is no certificate in it".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| in_key(format!("no usable private key: {error}")))?;
    let key = any_supported_type(&key).map_err(|error| in_key(format!("this kind of key cannot be used: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|error| in_key(format!("it is not the key of {}: {error}", pair.cert.display())))?;
    Ok(certified)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let fault = |error: &dyn fmt::Display| TlsFault {
        file: file.to_owned(),
        why: format!("no usable certificate: {error}"),
    };
    CertificateDer::pem_file_iter(file)
        .map_err(|e| fault(&e))?
        .collect::<Result<_, _>>()
        .map_err(|e| fault(&e))
}

/// The host names that a certificate is for, in lower case, and when it expires, in seconds since the epoch.
fn describe(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
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

/// The TLS settings of a listener: TLS 1.2 and 1.3, session tickets whose keys rotate, no early data. With
/// `client_ca`, only clients with a certificate of that authority get in.
///
/// # Errors
/// Names the file of the authority when it cannot be used.
pub fn settings(
    certificates: &Arc<Certificates>,
    client_ca: Option<&Path>,
    http2: bool,
) -> Result<ServerConfig, TlsFault> {
    let fault = |error: &dyn fmt::Display| TlsFault {
        file: client_ca.map(Path::to_owned).unwrap_or_default(),
        why: error.to_string(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| fault(&e))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(file)? {
                roots.add(authority).map_err(|e| fault(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| fault(&e))?)
        }
    };
    let mut settings = builder.with_cert_resolver(Arc::clone(certificates) as Arc<dyn ResolvesServerCert>);
    settings.alpn_protocols = if http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    settings.ticketer = Ticketer::new().map_err(|e| fault(&e))?;
    Ok(settings)
}

#[cfg(test)]
mod tests;
