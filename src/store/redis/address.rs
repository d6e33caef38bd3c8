//! The URL of a server. It may hold a password, so it never shows itself whole.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// What a URL may begin with: plain, by TLS, or by a socket of this machine.
const SCHEMES: [&str; 7] = [
    "redis",
    "rediss",
    "redis+unix",
    "unix",
    "valkey",
    "valkeys",
    "valkey+unix",
];

/// The URL of a server, as in `redis://user:password@10.0.0.5:6379/0`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    /// The same without what only the server may know.
    shown: String,
    kind: AddressKind,
    has_password: bool,
    database: i64,
}

/// By what a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// Plain TCP.
    Plain,
    /// TCP and TLS.
    Tls,
    /// A socket of this machine.
    Socket,
}

impl Address {
    /// By what the server is reached.
    pub fn kind(&self) -> AddressKind {
        self.kind
    }

    /// Whether the URL holds a password.
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// The number of the database; 0 unless told otherwise.
    pub fn database(&self) -> i64 {
        self.database
    }

    pub(super) fn info(&self) -> Result<ConnectionInfo, String> {
        connection_info(&self.text)
    }
}

impl FromStr for Address {
    type Err = String;

    /// No error quotes what it is about: the password may stand in any part of a URL that is wrong.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("not the URL of a server: write one as in `redis://10.0.0.5:6379`")?;
        if !SCHEMES.contains(&scheme) {
            return Err(
                "a URL of the store begins with `redis://`, with `rediss://` for TLS, or with `redis+unix://` \
                        for a socket"
                    .to_owned(),
            );
        }
        if rest.contains('#') {
            return Err(
                "the URL of a server has no `#`: write `%23` in a password; and certificates are always checked"
                    .to_owned(),
            );
        }
        let info = connection_info(text)?;
        Ok(Self {
            shown: format!("{scheme}://{}", info.addr()),
            kind: match info.addr() {
                ConnectionAddr::Unix(_) => AddressKind::Socket,
                ConnectionAddr::TcpTls { .. } => AddressKind::Tls,
                _ => AddressKind::Plain,
            },
            has_password: info.redis_settings().password().is_some(),
            database: info.redis_settings().db(),
            text: text.to_owned(),
        })
    }
}

fn connection_info(text: &str) -> Result<ConnectionInfo, String> {
    let parsed = redis::parse_redis_url(text).and_then(|url| url.into_connection_info().ok());
    parsed.ok_or_else(|| {
        "the URL of this server cannot be read: write it as in `redis://user:password@10.0.0.5:6379/0`, with `%40` for \
         an `@` in the password"
            .to_owned()
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_does_not_show_its_password() {
        let address: Address = "rediss://gateway:hunter2@cache.internal:6380/3".parse().unwrap();
        assert_eq!(
            format!("{address} {address:?}"),
            "rediss://cache.internal:6380 rediss://cache.internal:6380"
        );
        assert_eq!(
            (address.kind(), address.has_password(), address.database()),
            (AddressKind::Tls, true, 3)
        );
        let socket: Address = "redis+unix:///run/redis.sock?pass=hunter2".parse().unwrap();
        assert_eq!(
            (socket.to_string().as_str(), socket.kind()),
            ("redis+unix:///run/redis.sock", AddressKind::Socket)
        );
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused_and_never_quoted() {
        for text in [
            "10.0.0.5:6379",
            "hunter2@10.0.0.5",
            "http://:hunter2@10.0.0.5",
            "redis://:hunter2@:6379",
            "redis://:hunter2@10.0.0.5:none",
            "redis://:hunter2@10.0.0.5/first",
            "rediss://:hunter2@10.0.0.5#insecure",
            "redis://:hun/ter2@10.0.0.5:6379",
            "",
        ] {
            let refused = text.parse::<Address>().unwrap_err();
            assert!(
                !refused.contains("hunter2") && !refused.contains("ter2"),
                "{text}: {refused}"
            );
        }
    }
}
