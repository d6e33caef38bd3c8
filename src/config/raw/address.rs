//! Small things that are written as text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::base::misfit::UNQUOTED;
use crate::base::unit::text_type;
use crate::store::redis::address::Address;

/// An address and a port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind(pub SocketAddr);

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address and a port: write them as in `127.0.0.1:8080` or `[::]:8443`")
        })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| {
            format!("`{text}` is not a network: write one as in `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`")
        })
    }
}

/// A server's host, by name or address, and its port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub name: String,
    /// The port, at least 1.
    pub port: u16,
}

/// Longest host name, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a host and a port: write them as in `10.0.0.7:9000` or `shop.internal:9000`");
        if text.contains("//") || text.starts_with("unix:") {
            return Err(format!(
                "`{text}` is not a host and a port: this version speaks plain HTTP to `host:port`, as in `10.0.0.7:9000`"
            ));
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if is_host_name(name) => name.to_ascii_lowercase(),
            None => return Err(wrong()),
        };
        Ok(Self { name, port })
    }
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOST_BYTES_MAX && name.split('.').all(label)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// A moment, written with its offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening(pub jiff::Timestamp);

impl FromStr for Opening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is not a moment: write a date, a time and an offset, as in `2026-12-01T20:00:00+09:00`")
        })
    }
}

/// An HTTP method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verb(pub http::Method);

impl FromStr for Verb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a method: write one as in `GET`");
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!(
                "methods are in capitals: write `{}`, not `{text}`",
                text.to_ascii_uppercase()
            ));
        }
        http::Method::from_str(text).map(Self).map_err(|_| wrong())
    }
}

text_type!(Bind, "address and port", r"^.+:[0-9]{1,5}$");
text_type!(Network, "network", r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$");
text_type!(Host, "host and port", r"^.+:[0-9]{1,5}$");
text_type!(
    Opening,
    "moment",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})$"
);
text_type!(Verb, "method", r"^[A-Z0-9!#$%&'*+.^_`|~-]+$");

/// The URL of a server of the store. It never shows its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl(pub Address);

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|why: String| format!("{UNQUOTED}{why}"))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(StoreUrl, "URL of a server of the store", "^[a-z+]+://[^#]*$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in ["10.0.0.7:9000", "shop.internal:80", "[2001:db8::1]:443", "localhost:1"] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "shop",
            "shop:0",
            "shop:65536",
            ":80",
            "a b:80",
            "[x]:80",
            "2001:db8::1:80",
            "http://a:80",
            "-a:80",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
        for text in ["http://a:80", "https://a", "unix:/run/a.sock", "unix:///run/a.sock"] {
            let why = text.parse::<Host>().unwrap_err();
            assert!(why.contains("plain HTTP to `host:port`"), "{why}");
        }
        assert!("127.0.0.1".parse::<Bind>().unwrap_err().contains("`127.0.0.1:8080`"));
    }

    #[test]
    fn a_single_address_is_a_network_of_its_own() {
        assert_eq!("192.0.2.7".parse::<Network>().unwrap().0.to_string(), "192.0.2.7/32");
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("10.0.0/8".parse::<Network>().is_err());
    }

    #[test]
    fn a_moment_needs_its_offset() {
        assert!("2026-12-01T20:00:00+09:00".parse::<Opening>().is_ok());
        assert!("2026-12-01T20:00:00Z".parse::<Opening>().is_ok());
        assert!("2026-12-01T20:00:00".parse::<Opening>().is_err());
        assert!("tomorrow".parse::<Opening>().is_err());
    }

    #[test]
    fn methods_are_in_capitals() {
        assert_eq!("GET".parse::<Verb>().unwrap().0, http::Method::GET);
        assert!("get".parse::<Verb>().unwrap_err().contains("write `GET`"));
        assert!("G E T".parse::<Verb>().is_err());
    }
}
