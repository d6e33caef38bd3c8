//! What a limit counts by: the client, a header, a cookie, or several of these together.
//!
//! A key is a keyed hash of what the request shows, so no client's value is stored, sent to a store or logged, and
//! every key takes the same room. Where keys are counted, and how often, is not decided here.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::client_ip::fold;
use super::digits::hexadecimal;
use super::exchange::Request;
use super::misfit::Misfit;
use super::one_or_many::OneOrMany;
use super::parameters::without_parameters;
use super::unit;

/// Most parts of one key: more than this is a mistake, and every part costs every request.
const KEY_PARTS_MAX: usize = 8;

/// One part of a key, as operators write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyPart {
    /// The client's address, behind trusted proxies. IPv6 clients count by their network.
    ClientIp,
    /// The route that took the request.
    Route,
    /// The host asked for.
    Host,
    /// The normalised path.
    Path,
    /// The first value of this request header, as in `{ header: x-client }`.
    Header(FieldName),
    /// The value of this cookie, as in `{ cookie: session }`.
    Cookie(String),
    /// The decoded value of this query parameter, as in `{ query: api_key }`.
    Query(String),
    /// The value of this claim of a verified JWT, as in `{ jwt: sub }`.
    Jwt(String),
}

/// One part, or several that count together.
pub type KeySpec = OneOrMany<KeyPart>;

impl KeyPart {
    /// Whether a request may come without it. An empty value counts as none: it names nobody.
    pub const fn may_be_missing(&self) -> bool {
        match self {
            Self::ClientIp | Self::Route | Self::Host | Self::Path => false,
            Self::Header(_) | Self::Cookie(_) | Self::Query(_) | Self::Jwt(_) => true,
        }
    }

    /// A byte that sets this kind apart from the others. Changing one starts every count afresh.
    const fn tag(&self) -> u8 {
        match self {
            Self::ClientIp => 1,
            Self::Route => 2,
            Self::Host => 3,
            Self::Path => 4,
            Self::Header(_) => 5,
            Self::Cookie(_) => 6,
            Self::Query(_) => 7,
            Self::Jwt(_) => 8,
        }
    }

    /// What it is called within its kind; nothing for a kind that there is one of.
    fn name(&self) -> &str {
        match self {
            Self::ClientIp | Self::Route | Self::Host | Self::Path => "",
            Self::Header(name) => name.0.as_str(),
            Self::Cookie(name) | Self::Query(name) | Self::Jwt(name) => name,
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Route => f.write_str("route"),
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header: {}", name.0),
            Self::Cookie(name) => write!(f, "cookie: {name}"),
            Self::Query(name) => write!(f, "query: {name}"),
            Self::Jwt(claim) => write!(f, "jwt: {claim}"),
        }
    }
}

/// The name of a header, in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(pub HeaderName);

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is not a header's name: use letters, digits and `-`, without a colon, as in `x-client`")
        })
    }
}

unit::text_type!(FieldName, "FieldName", r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$");

/// What turns values into keys. All gateways on one store need the same; who knows it can make two clients share a
/// key, so it is a secret and does not show itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySeed(pub [u8; 16]);

impl fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySeed")
    }
}

/// Whom a count belongs to: 128 bits, so that among 10 million keys two meet with a chance below 2^-80.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u128);

impl Key {
    /// Eight digits by which operators tell keys apart, and from which nobody learns whose they are.
    pub fn fingerprint(self) -> String {
        format!("{:08x}", (self.0 >> 96) as u32)
    }
}

/// Reads a key off a request. Allocates nothing.
#[derive(Clone)]
pub struct KeyExtractor {
    parts: Vec<KeyPart>,
    ipv6_prefix: u8,
    /// Seeded, and fed the description of the key: the same value in two different headers is two keys.
    start: SipHasher13,
}

impl KeyExtractor {
    /// What counts by `parts`, an IPv6 client by the first `ipv6_prefix` bits of its address (above 128: by all).
    ///
    /// # Errors
    /// When there is no part, more than [`KEY_PARTS_MAX`], one twice, one without a name, or one that this version
    /// cannot tell. Where it is one part's fault, the path leads to that part.
    pub fn new(parts: &[KeyPart], ipv6_prefix: u8, seed: &KeySeed) -> Result<Self, Misfit> {
        if parts.is_empty() || parts.len() > KEY_PARTS_MAX {
            let count = parts.len();
            return Err(Misfit::new(format!(
                "a key has 1 to {KEY_PARTS_MAX} parts, and this one has {count}"
            )));
        }
        let mut start = SipHasher13::new_with_key(&seed.0);
        for (index, part) in parts.iter().enumerate() {
            check(part, &parts[..index]).map_err(|misfit| misfit.under(index))?;
            start.write(&[part.tag()]);
            absorb(&mut start, part.name().as_bytes());
        }
        Ok(Self {
            parts: parts.to_vec(),
            ipv6_prefix,
            start,
        })
    }

    /// Whether a request may come without a part of this key.
    #[cfg(test)]
    pub fn may_be_missing(&self) -> bool {
        self.parts.iter().any(KeyPart::may_be_missing)
    }

    /// The key of a request; none when it lacks a part.
    pub fn extract(&self, request: &Request<'_>) -> Option<Key> {
        let mut hasher = self.start;
        for part in &self.parts {
            self.absorb_part(&mut hasher, part, request)?;
        }
        Some(Key(hasher.finish128().into()))
    }

    /// The one key of all requests that lack a part. No request that has them all gets it.
    pub fn of_the_missing(&self) -> Key {
        // A key with its parts is longer by at least the length of one, so the two cannot be the same bytes.
        Key(self.start.finish128().into())
    }

    fn absorb_part(&self, hasher: &mut SipHasher13, part: &KeyPart, request: &Request<'_>) -> Option<()> {
        let value = match part {
            KeyPart::ClientIp => {
                match fold(request.client_ip, self.ipv6_prefix) {
                    IpAddr::V4(address) => absorb(hasher, &address.octets()),
                    IpAddr::V6(address) => absorb(hasher, &address.octets()),
                }
                return Some(());
            }
            KeyPart::Query(name) => {
                return absorb_decoded(hasher, query_value(request.query?, name)?);
            }
            KeyPart::Route => request.route.map_or("", |name| name.as_str()).as_bytes(),
            KeyPart::Host => request.host.as_bytes(),
            // What does not lead elsewhere makes no other key: else each parameter would have a limit of its own.
            KeyPart::Path => {
                absorb(hasher, without_parameters(request.path).as_bytes());
                return Some(());
            }
            KeyPart::Header(name) => present(request.headers.get(&name.0)?.as_bytes())?,
            KeyPart::Cookie(name) => present(request.cookie(name)?.as_bytes())?,
            // `new` takes no such part.
            KeyPart::Jwt(_) => return None,
        };
        absorb(hasher, value);
        Some(())
    }
}

impl fmt::Debug for KeyExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.parts;
        f.debug_struct("KeyExtractor")
            .field("parts", parts)
            .finish_non_exhaustive()
    }
}

fn check(part: &KeyPart, earlier: &[KeyPart]) -> Result<(), Misfit> {
    if let KeyPart::Jwt(_) = part {
        let message = "needs the `jwt` plugin before it in the chain, which this version does not have";
        return Err(Misfit::new(message));
    }
    if earlier.contains(part) {
        return Err(Misfit::new(format!(
            "`{part}` stands in this key twice; leave one of them out"
        )));
    }
    let nameless = match part {
        KeyPart::Cookie(name) => name.is_empty() || name.contains(['=', ';']) || name.contains(char::is_whitespace),
        KeyPart::Query(name) => name.is_empty(),
        KeyPart::ClientIp | KeyPart::Route | KeyPart::Host | KeyPart::Path => false,
        KeyPart::Header(_) | KeyPart::Jwt(_) => false,
    };
    if nameless {
        return Err(Misfit::new(format!(
            "`{part}` names nothing that a request could carry; write its name"
        )));
    }
    Ok(())
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

/// The length comes first: else `ab`, `c` and `a`, `bc` would be one key.
fn absorb(hasher: &mut SipHasher13, value: &[u8]) {
    hasher.write(&(value.len() as u64).to_le_bytes());
    hasher.write(value);
}

/// As [`absorb`], of the value that the upstream will see. A client could otherwise be a new one with every spelling
/// of the same value.
fn absorb_decoded(hasher: &mut SipHasher13, value: &str) -> Option<()> {
    let value = value.as_bytes();
    if !value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        absorb(hasher, present(value)?);
        return Some(());
    }
    hasher.write(&(decoded(value).count() as u64).to_le_bytes());
    decoded(value).for_each(|byte| hasher.write(&[byte]));
    Some(())
}

/// The still encoded value of the first parameter that decodes to `name`.
fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name || decoded(key.as_bytes()).eq(name.bytes()))
        .map(|(_, value)| value)
}

/// The bytes that a part of a query stands for: `%41` is `A`, `+` is a space; what is not well-formed stands for itself.
fn decoded(encoded: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (byte, width) = match *rest {
            [b'%', high, low, ..] => hexadecimal(high, low).map_or((b'%', 1), |byte| (byte, 3)),
            [b'+', ..] => (b' ', 1),
            [byte, ..] => (byte, 1),
            [] => return None,
        };
        rest = &rest[width..];
        Some(byte)
    })
}

#[cfg(test)]
mod tests;
