//! The host of a request in one spelling, and the hosts that a route names.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::base::unit;

/// Longest host name in bytes, without port and trailing dot (RFC 1035).
pub const HOST_BYTES_MAX: usize = 253;

/// Why a `Host` names no host. Shown to the client, so it never quotes what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostFault {
    /// Nothing, or nothing but a port or a dot.
    Empty,
    /// More than [`HOST_BYTES_MAX`] bytes.
    TooLong,
    /// A character that no host name has: `@`, a space, a control character, anything beyond ASCII.
    Character,
    /// A dot with no label before it.
    EmptyLabel,
    /// Brackets without an IPv6 address in them.
    NotIpv6,
    /// A port that is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the host is empty",
            Self::TooLong => "the host is longer than 253 bytes",
            Self::Character => "the host holds a character that no host name has",
            Self::EmptyLabel => "the host holds an empty label",
            Self::NotIpv6 => "the host's brackets do not hold an IPv6 address",
            Self::Port => "the port is not a number from 1 to 65535",
        })
    }
}

impl std::error::Error for HostFault {}

/// The one spelling of a `Host` header or `:authority`: lower case, without port and without one trailing dot.
/// An IPv6 address keeps its brackets and gets its shortest spelling.
///
/// Stricter than RFC 3986, which would also allow percent-escapes and a colon with nothing behind it.
pub fn normalise_host(raw: &str) -> Result<Cow<'_, str>, HostFault> {
    if raw.starts_with('[') {
        return normalise_ipv6(raw);
    }
    let (name, port) = raw
        .split_once(':')
        .map_or((raw, None), |(name, port)| (name, Some(port)));
    let name = name.strip_suffix('.').unwrap_or(name);
    check_name(name)?;
    port.map_or(Ok(()), check_port)?;
    Ok(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

fn normalise_ipv6(raw: &str) -> Result<Cow<'_, str>, HostFault> {
    let end = raw.find(']').ok_or(HostFault::NotIpv6)?;
    let (literal, port) = raw.split_at(end + 1);
    let address: Ipv6Addr = literal[1..end].parse().map_err(|_| HostFault::NotIpv6)?;
    match port.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if port.is_empty() => {}
        None => return Err(HostFault::Character),
    }
    let normal = format!("[{address}]");
    Ok(if normal == literal {
        Cow::Borrowed(literal)
    } else {
        Cow::Owned(normal)
    })
}

fn check_name(name: &str) -> Result<(), HostFault> {
    if name.is_empty() {
        return Err(HostFault::Empty);
    }
    if name.len() > HOST_BYTES_MAX {
        return Err(HostFault::TooLong);
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(fits) {
        return Err(HostFault::Character);
    }
    if name.split('.').any(str::is_empty) {
        return Err(HostFault::EmptyLabel);
    }
    Ok(())
}

fn check_port(port: &str) -> Result<(), HostFault> {
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits => Ok(()),
        _ => Err(HostFault::Port),
    }
}

/// The hosts that a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `shop.example.com`: that host.
    Exact(Box<str>),
    /// `*.example.com`: every host below it, at any depth (`a.b.example.com` too, as in nginx), and not
    /// `example.com` itself. The suffix is kept without `*.`.
    Below(Box<str>),
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (suffix, is_wildcard) = text.strip_prefix("*.").map_or((text, false), |suffix| (suffix, true));
        if let Some(hint) = hint(suffix) {
            return Err(format!("`{text}` is not a host: {hint}"));
        }
        let host = normalise_host(suffix).map_err(|fault| format!("`{text}` is not a host: {fault}"))?;
        let host = host.into_owned().into_boxed_str();
        Ok(if is_wildcard {
            Self::Below(host)
        } else {
            Self::Exact(host)
        })
    }
}

/// What an operator probably meant, where it is known.
fn hint(host: &str) -> Option<&'static str> {
    if host == "*" {
        Some("to take every host, leave `hosts` out")
    } else if host.contains('*') {
        Some("`*` may only stand at the start, before a dot, as in `*.example.com`")
    } else if host.contains("://") || host.contains('/') {
        Some("write it without scheme and path, as in `shop.example.com`")
    } else if !host.is_ascii() {
        Some("write it as it goes over the wire, with `xn--` labels")
    } else if host.starts_with('[') {
        (!host.ends_with(']')).then_some("write it without a port; a route takes its host on every port")
    } else if host.parse::<Ipv6Addr>().is_ok() {
        Some("an IPv6 address stands in brackets, as in `[2001:db8::1]`")
    } else {
        host.contains(':')
            .then_some("write it without a port; a route takes its host on every port")
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

unit::text_type!(
    HostPattern,
    "HostPattern",
    r"^((\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])$"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (raw, host) in [
            ("Shop.Example.COM", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("shop.example.com:8443", "shop.example.com"),
            ("shop.example.com.:443", "shop.example.com"),
            ("localhost:1", "localhost"),
            ("127.0.0.1:65535", "127.0.0.1"),
            ("xn--9n2bp8q.example", "xn--9n2bp8q.example"),
            ("a_b", "a_b"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0:0:0:0:0:1]:8080", "[2001:db8::1]"),
        ] {
            assert_eq!(normalise_host(raw).as_deref(), Ok(host), "{raw}");
        }
        assert!(matches!(normalise_host("shop.example.com:80"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn what_names_no_host_is_refused() {
        use HostFault::*;
        let long = "a".repeat(254);
        for (raw, fault) in [
            ("", Empty),
            (".", Empty),
            (":80", Empty),
            ("a..b", EmptyLabel),
            ("a..", EmptyLabel),
            (".a", EmptyLabel),
            ("user@host", Character),
            ("host@evil:80", Character),
            ("a b", Character),
            (" a", Character),
            ("a\tb", Character),
            ("a\0", Character),
            ("a\r\nb", Character),
            ("a/b", Character),
            ("a%41", Character),
            ("a,b", Character),
            ("\u{ff41}.com", Character),
            ("a:", Port),
            ("a:0", Port),
            ("a:+80", Port),
            ("a:65536", Port),
            ("a:000080", Port),
            ("a:80:80", Port),
            ("a:8 0", Port),
            ("2001:db8::1", Port),
            ("[::1", NotIpv6),
            ("[]", NotIpv6),
            ("[127.0.0.1]", NotIpv6),
            ("[fe80::1%25eth0]", NotIpv6),
            ("[::1]x", Character),
            ("[::1]:", Port),
            (&long, TooLong),
        ] {
            assert_eq!(normalise_host(raw), Err(fault), "{raw:?}");
        }
        assert!(normalise_host(&format!("{}.:80", &long[..253])).is_ok());
    }

    #[test]
    fn patterns_are_read_and_shown() {
        for (text, shown) in [
            ("Shop.Example.com", "shop.example.com"),
            ("*.Example.com.", "*.example.com"),
            ("[::0001]", "[::1]"),
        ] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_pattern_says_what_would_be_right() {
        for (text, hint) in [
            ("*", "leave `hosts` out"),
            ("*.*", "leave `hosts` out"),
            ("shop.*", "at the start"),
            ("a*.example.com", "at the start"),
            ("https://shop.example.com", "without scheme"),
            ("shop.example.com:443", "without a port"),
            ("[::1]:443", "without a port"),
            ("::1", "in brackets"),
            ("\u{d55c}\u{ad6d}.kr", "xn--"),
            ("", "empty"),
            ("a b", "character"),
        ] {
            let fault = text.parse::<HostPattern>().unwrap_err();
            assert!(fault.contains(hint) && fault.contains(text), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn normalising_a_host_is_idempotent_and_safe(raw in "[a-zA-Z0-9.:@_\\[\\] -]{0,20}|.{0,10}") {
            if let Ok(host) = normalise_host(&raw) {
                let twice = normalise_host(&host);
                prop_assert_eq!(twice.as_deref(), Ok(&*host));
                prop_assert!(host.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b'@'));
            }
        }
    }
}
