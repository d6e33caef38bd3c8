//! Certificates by server name, and the TLS settings of a listener. Certificates are reloaded when their files
//! change; connections that stand keep theirs.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::base::clock::Timestamp;
use crate::config::certificate::{self, Certificate, CertificateFiles, TlsFault};
use crate::telemetry::metrics::METRICS;

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
            let Certificate { key, names, not_after } = pair.read()?;
            let key = Arc::new(key);
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
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| fault(&e))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(certificate::authority(file)?),
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
