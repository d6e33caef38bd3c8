//! The id under which a request is logged, sent to its upstream and told to its client.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::secret::random_bytes;

/// Longest id that a trusted peer may give.
const ID_BYTES_MAX: usize = 64;

/// Digits of an id made here.
const ID_DIGITS: usize = 32;

/// A request's id: printable ASCII without spaces or quotes.
#[derive(Debug, Clone, Copy)]
pub struct RequestId {
    text: [u8; ID_BYTES_MAX],
    length: u8,
}

impl Default for RequestId {
    fn default() -> Self {
        Self {
            text: [0; ID_BYTES_MAX],
            length: 0,
        }
    }
}

impl RequestId {
    /// The id a trusted peer gave, if it is one.
    pub fn given(value: &HeaderValue) -> Option<Self> {
        let given = value.as_bytes();
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'=' | b'+' | b'/');
        if given.is_empty() || given.len() > ID_BYTES_MAX || !given.iter().all(plain) {
            return None;
        }
        let mut id = Self {
            length: given.len() as u8,
            ..Self::default()
        };
        id.text[..given.len()].copy_from_slice(given);
        Some(id)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or("")
    }
}

/// Gives out ids that nobody can guess and no two gateways share: a keyed hash of a counter.
#[derive(Debug)]
pub struct RequestIds {
    key: [u8; 16],
    given: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self {
            key: random_bytes(),
            given: AtomicU64::new(0),
        }
    }
}

impl RequestIds {
    /// The next id: 32 hex digits.
    pub fn next(&self) -> RequestId {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(self.given.fetch_add(1, Ordering::Relaxed));
        let hash = hasher.finish128().as_u128();
        let mut id = RequestId {
            length: ID_DIGITS as u8,
            ..RequestId::default()
        };
        for (digit, shift) in id.text[..ID_DIGITS].iter_mut().zip((0..ID_DIGITS).rev()) {
            *digit = b"0123456789abcdef"[(hash >> (4 * shift)) as usize & 15];
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_hex() {
        let ids = RequestIds::default();
        let (one, two) = (ids.next(), ids.next());
        assert_ne!(one.as_str(), two.as_str());
        assert_eq!(one.as_str().len(), ID_DIGITS);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn a_given_id_must_be_plain_and_short() {
        let given =
            |text: &'static str| RequestId::given(&HeaderValue::from_static(text)).map(|id| id.as_str().to_owned());
        assert_eq!(given("abc-123").as_deref(), Some("abc-123"));
        assert_eq!(given(""), None);
        assert_eq!(given("a b"), None);
        assert_eq!(given("a\"b"), None);
        assert!(RequestId::given(&HeaderValue::from_str(&"x".repeat(65)).unwrap()).is_none());
    }
}
