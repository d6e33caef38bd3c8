//! The host that a request asks for, with all that is made of it. Made once for the requests of a connection that ask
//! for the same.

use http::HeaderValue;

use super::ToldPeer;
use crate::routing::host::{HostFault, normalise_host};

/// A host in its canonical spelling, and as an upstream is told of it.
#[derive(Debug)]
pub(in crate::proxy) struct Host {
    /// As the client wrote it.
    written: Box<str>,
    /// Without its port, in lower case.
    canonical: Box<str>,
    /// The same with its port, where the client wrote one, as the value of a header: a server makes links of it.
    pub(in crate::proxy) value: HeaderValue,
    /// The hop of `Forwarded` (RFC 7239) that this connection is.
    pub(in crate::proxy) hop: HeaderValue,
}

impl Host {
    pub(super) fn new(written: &str, peer: &ToldPeer) -> Result<Self, HostFault> {
        let canonical = normalise_host(written)?;
        // A canonical host cannot hold a quote, nor anything else that no header holds.
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| HostFault::Character);
        let told = port(written).map_or_else(|| canonical.to_string(), |port| format!("{canonical}:{port}"));
        Ok(Self {
            value: value(&told)?,
            hop: value(&[&peer.hop, &*told, "\""].concat())?,
            canonical: canonical.into(),
            written: written.into(),
        })
    }

    pub(super) fn is_written(&self, written: &str) -> bool {
        *self.written == *written
    }

    pub(in crate::proxy) fn as_str(&self) -> &str {
        &self.canonical
    }
}

/// The port of a host that is one.
fn port(written: &str) -> Option<&str> {
    let name_end = written.rfind(']').unwrap_or(0);
    written[name_end..].split_once(':').map(|(_, port)| port)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::exchange::Scheme;
    use crate::proxy::accept::Connection;

    #[test]
    fn an_ipv6_hop_is_quoted_as_the_standard_asks() {
        let peer = ToldPeer::new("2001:db8::1".parse().unwrap(), Scheme::Https);
        let host = Host::new("Shop.example.com:8443", &peer).unwrap();
        assert_eq!(
            host.hop,
            "for=\"[2001:db8::1]\";proto=https;host=\"shop.example.com:8443\""
        );
        assert_eq!(
            (host.as_str(), &host.value),
            ("shop.example.com", &HeaderValue::from_static("shop.example.com:8443"))
        );
    }

    #[test]
    fn a_server_is_told_the_port_that_was_asked_for() {
        let peer = ToldPeer::new([127, 0, 0, 1].into(), Scheme::Http);
        for (written, told) in [
            ("A.example", "a.example"),
            ("a.example.:80", "a.example:80"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[2001:DB8::1]:8080", "[2001:db8::1]:8080"),
        ] {
            assert_eq!(Host::new(written, &peer).unwrap().value, told, "{written}");
        }
    }

    #[test]
    fn a_connection_knows_each_host_by_what_was_written() {
        let connection = Connection::new(([127, 0, 0, 1], 4000).into(), Scheme::Http, None);
        let ask = |written| connection.host(written);
        let first = ask("a.example").unwrap();
        assert!(Arc::ptr_eq(&first, &ask("a.example").unwrap()));
        for (written, canonical) in [
            ("A.example", "a.example"),
            ("b.example", "b.example"),
            ("a.example", "a.example"),
        ] {
            assert_eq!(ask(written).unwrap().as_str(), canonical);
        }
        assert!(matches!(ask("a b"), Err(HostFault::Character)));
        assert_eq!(ask("a.example").unwrap().as_str(), "a.example");
    }
}
