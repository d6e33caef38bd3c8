//! What a limit counts by: the client, a header, a cookie, or several of these together.
//!
//! A key is a keyed hash of what the request shows, so no client's value is stored, sent to a store or logged, and
//! every key takes the same room. Where keys are counted, and how often, is not decided here.
//!
//! Of a value that is sent twice, some servers take the first and some the last. So a request that says two things has
//! no key of its own: else the one that the server does not take would make a new client of every request.

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
use super::path::without_parameters;
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
    /// The value of this request header, as in `{ header: x-client }`.
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

impl KeySeed {
    /// A seed for one purpose, such as one room's: of what is hashed with it nothing follows for another.
    #[must_use]
    pub fn for_purpose(&self, purpose: &str) -> Self {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        absorb(&mut hasher, purpose.as_bytes());
        Self(hasher.finish128().as_bytes())
    }
}

impl fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySeed")
    }
}

/// Whom a count belongs to: 128 bits, so that among 10 million keys two meet with a chance below 2^-80.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u128);

impl Key {
    /// Eight hexadecimal digits by which operators tell keys apart, and from which nobody learns whose they are.
    pub fn fingerprint(self) -> [u8; 8] {
        std::array::from_fn(|place| b"0123456789abcdef"[(self.0 >> (124 - 4 * place)) as usize & 15])
    }
}

/// Why a request has no key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    /// It lacks a part.
    Missing,
    /// It has a part more than once, with different values.
    Ambiguous,
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

    /// The key of a request.
    ///
    /// # Errors
    /// When it has none. A part that is there in two ways outweighs one that is missing.
    pub fn extract(&self, request: &Request<'_>) -> Result<Key, Keyless> {
        let (mut hasher, mut is_whole) = (self.start, true);
        for part in &self.parts {
            match self.absorb_part(&mut hasher, part, request) {
                Ok(()) => {}
                Err(Keyless::Missing) => is_whole = false,
                Err(Keyless::Ambiguous) => return Err(Keyless::Ambiguous),
            }
        }
        is_whole.then(|| Key(hasher.finish128().into())).ok_or(Keyless::Missing)
    }

    /// The one key of all requests that have none for the same reason. No request that has a key gets it.
    pub fn of_all(&self, keyless: Keyless) -> Key {
        // A key with its parts is longer by at least the length of one, so the two cannot be the same bytes.
        let mut hasher = self.start;
        match keyless {
            Keyless::Missing => {}
            Keyless::Ambiguous => hasher.write(&[1]),
        }
        Key(hasher.finish128().into())
    }

    fn absorb_part(&self, hasher: &mut SipHasher13, part: &KeyPart, request: &Request<'_>) -> Result<(), Keyless> {
        let value = match part {
            KeyPart::ClientIp => {
                match fold(request.client_ip, self.ipv6_prefix) {
                    IpAddr::V4(address) => absorb(hasher, &address.octets()),
                    IpAddr::V6(address) => absorb(hasher, &address.octets()),
                }
                return Ok(());
            }
            KeyPart::Query(name) => {
                let values = query_values(request.query.unwrap_or_default(), name);
                absorb_decoded(hasher, the_one(values, |one, other| decoded(one).eq(decoded(other)))?);
                return Ok(());
            }
            KeyPart::Route => request.route.map_or("", |name| name.as_str()).as_bytes(),
            KeyPart::Host => request.host.as_bytes(),
            // What does not lead elsewhere makes no other key: else each parameter would have a limit of its own.
            KeyPart::Path => {
                absorb(hasher, without_parameters(request.path).as_bytes());
                return Ok(());
            }
            KeyPart::Header(name) => {
                let values = request.headers.get_all(&name.0).iter();
                the_one(values.map(|value| value.as_bytes()), PartialEq::eq)?
            }
            KeyPart::Cookie(name) => the_one(cookie_values(request, name), PartialEq::eq)?,
            // `new` takes no such part.
            KeyPart::Jwt(_) => return Err(Keyless::Missing),
        };
        absorb(hasher, value);
        Ok(())
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

/// The value of a part that is there once, or several times with the same. An empty one says nothing, but it may be the
/// one that is taken, so beside another it is a second.
fn the_one<'v>(
    mut values: impl Iterator<Item = &'v [u8]>,
    are_same: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<&'v [u8], Keyless> {
    let first = values.next().ok_or(Keyless::Missing)?;
    if !values.all(|value| are_same(first, value)) {
        return Err(Keyless::Ambiguous);
    }
    if first.is_empty() {
        Err(Keyless::Missing)
    } else {
        Ok(first)
    }
}

/// The values of a cookie, of all fields. Servers drop the white space around its name, so a name with it is the same.
fn cookie_values<'r>(request: &Request<'r>, name: &str) -> impl Iterator<Item = &'r [u8]> {
    let named = request.cookies().filter(move |(key, _)| key.trim_ascii() == name);
    named.map(|(_, value)| value.as_bytes().trim_ascii())
}

/// The length comes first: else `ab`, `c` and `a`, `bc` would be one key.
fn absorb(hasher: &mut SipHasher13, value: &[u8]) {
    hasher.write(&(value.len() as u64).to_le_bytes());
    hasher.write(value);
}

/// As [`absorb`], of the value that the upstream will see. A client could otherwise be a new one with every spelling
/// of the same value.
fn absorb_decoded(hasher: &mut SipHasher13, value: &[u8]) {
    if !value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return absorb(hasher, value);
    }
    hasher.write(&(decoded(value).count() as u64).to_le_bytes());
    decoded(value).for_each(|byte| hasher.write(&[byte]));
}

/// The still encoded values of all parameters whose names decode to `name`.
fn query_values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q [u8]> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let named = pairs.filter(move |(key, _)| *key == name || decoded(key.as_bytes()).eq(name.bytes()));
    named.map(|(_, value)| value.as_bytes())
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
