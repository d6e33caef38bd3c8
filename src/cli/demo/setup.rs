//! What the gateway of the demo is started with: a certificate and a process file.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::scratch::Scratch;
use super::{DemoError, Options};

/// The name of the access log, in the demo's own directory.
pub(super) const ACCESS_LOG: &str = "access.log";

/// Whom the certificate is for.
const NAMES: &[&str] = &["localhost", "*.localhost", "shop.localhost", "127.0.0.1"];

/// Writes them and gives back the path of the process file.
pub(super) fn write(options: &Options, rules: &Path, scratch: &Scratch) -> Result<PathBuf, DemoError> {
    let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let pair = rcgen::generate_simple_self_signed(names).map_err(DemoError::Certificate)?;
    let cert = scratch.write("demo.pem", &pair.cert.pem())?;
    let key = scratch.write("demo.key", &pair.signing_key.serialize_pem())?;
    let Options {
        port,
        tls_port,
        admin_port,
        ..
    } = options;
    // JSON strings are YAML strings, whatever stands in a path.
    let quoted = |path: &Path| json!(path.to_string_lossy()).to_string();
    let (cert, key) = (quoted(&cert), quoted(&key));
    let (log, rules) = (quoted(&scratch.path(ACCESS_LOG)), quoted(&rules.join("*.yaml")));
    let text = format!(
        "listeners:
  - bind: 127.0.0.1:{port}
  - bind: 127.0.0.1:{tls_port}
    tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}
admin: {{ bind: 127.0.0.1:{admin_port} }}
# Nobody minds if the end of the demo cuts a page short.
timeouts: {{ drain: 2s }}
# The whole crowd comes from one address.
queue: {{ joins: 100000/s, polls: 100000/s }}
access_log: {{ to: {{ file: {log} }}, format: json }}
rules: {rules}
"
    );
    scratch.write("process.yaml", &text)
}
