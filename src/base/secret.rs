//! Keys that sign tickets and passes, and the secret that clients' values are hashed with. The keys are rotated, and the
//! secret is not: what it hashed is written in stores and tickets, and would be somebody else's under another. Neither
//! ever shows itself: not in a log, not in a panic.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a signing key: as many as HMAC-SHA256 has of output.
const KEY_BYTES: usize = 32;

/// Bytes of a signature.
pub const TAG_BYTES: usize = 32;

/// Most keys a ring may hold: a rotation needs two, a botched one a few more.
pub const KEYS_MAX: usize = 8;

/// Keys in the order of their file: the first signs, all verify, so that a rotation loses nobody's place.
pub struct Keyring(Vec<Key>);

struct Key {
    id: u8,
    hmac: hmac::Key,
}

impl Keyring {
    /// Reads one key a line, 64 hex digits each; empty lines and lines starting with `#` are skipped.
    ///
    /// An error names the line and never quotes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for bytes in keys_in(text) {
            keys.push(Key::new(&bytes?));
        }
        if keys.is_empty() {
            return Err("no key in it: write one key a line, 64 hex digits each".to_owned());
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("{} keys in it: at most {KEYS_MAX}", keys.len()));
        }
        Ok(Self(keys))
    }

    /// A ring of one key that nobody else has: what it signs dies with the process.
    ///
    /// # Panics
    /// When the operating system has no randomness to give, because nothing may then be signed at all.
    pub fn random() -> Self {
        Self(vec![Key::new(&random_bytes::<KEY_BYTES>())])
    }

    /// Signs `message`; gives the id of the key used and the signature.
    pub fn sign(&self, message: &[u8]) -> (u8, [u8; TAG_BYTES]) {
        let key = &self.0[0];
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(hmac::sign(&key.hmac, message).as_ref());
        (key.id, tag)
    }

    /// Whether `tag` is the signature of `message` under the key `id`. Compared in constant time.
    pub fn verify(&self, id: u8, message: &[u8], tag: &[u8]) -> bool {
        self.0
            .iter()
            .any(|key| key.id == id && hmac::verify(&key.hmac, message, tag).is_ok())
    }
}

impl Key {
    /// The id is derived from the key, so that reordering the lines of a file changes no id.
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let hmac = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let id = hmac::sign(&hmac, b"tidegate key id").as_ref()[0];
        Self { id, hmac }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

/// What clients' values are hashed with, here and at every gateway of a fleet.
pub struct HashSecret(hmac::Key);

impl HashSecret {
    /// Reads the one line of its file, 64 hex digits; empty lines and lines starting with `#` are skipped.
    ///
    /// An error names the line and never quotes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = keys_in(text);
        let bytes = found
            .next()
            .unwrap_or_else(|| Err("no secret in it: write one line of 64 hex digits".to_owned()))?;
        match found.next() {
            None => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
            Some(_) => Err("more than one line in it: this secret is one, and is not rotated".to_owned()),
        }
    }

    /// Bytes for one purpose, of which nothing follows for another.
    pub fn derive(&self, purpose: &[u8]) -> [u8; TAG_BYTES] {
        let mut derived = [0; TAG_BYTES];
        derived.copy_from_slice(hmac::sign(&self.0, purpose).as_ref());
        derived
    }
}

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSecret")
    }
}

/// The keys of a file in their order, and what is wrong with a line.
fn keys_in(text: &str) -> impl Iterator<Item = Result<[u8; KEY_BYTES], String>> + '_ {
    let lines = text.lines().map(str::trim).enumerate();
    let written = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    written
        .map(|(index, line)| unhex(line).ok_or_else(|| format!("line {}: a key is exactly 64 hex digits", index + 1)))
}

/// Bytes that nobody can guess.
///
/// # Panics
/// When the operating system has no randomness to give.
#[expect(clippy::expect_used, reason = "a gateway without randomness must not run")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const TWO: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

    #[test]
    fn a_rotated_out_key_still_verifies_until_it_leaves_the_file() {
        let old = Keyring::parse(ONE).unwrap();
        let (id, tag) = old.sign(b"place 7");
        let rotated = Keyring::parse(&format!("{TWO}\n{ONE}\n")).unwrap();
        assert!(rotated.verify(id, b"place 7", &tag));
        assert!(!rotated.verify(id, b"place 8", &tag));
        assert!(!Keyring::parse(TWO).unwrap().verify(id, b"place 7", &tag));
    }

    #[test]
    fn a_short_key_is_refused_by_line_and_never_quoted() {
        let fault = Keyring::parse(&format!("# rotated in May\n{ONE}\nabc123\n")).unwrap_err();
        assert!(fault.contains("line 3"), "{fault}");
        assert!(!fault.contains("abc123"), "{fault}");
        assert!(Keyring::parse("\n\n").is_err());
    }

    #[test]
    fn the_secret_of_hashes_is_one_line_and_gives_other_bytes_for_each_purpose() {
        let derived = |text: &str, purpose| HashSecret::parse(text).unwrap().derive(purpose);
        let one = derived(ONE, b"seed");
        assert_eq!(derived(&format!("# made in May\n\n{ONE}\n"), b"seed"), one);
        assert_ne!(derived(TWO, b"seed"), one);
        assert_ne!(derived(ONE, b"other"), one);
        for (wrong, why) in [
            ("# nothing\n".to_owned(), "64 hex digits"),
            (format!("{ONE}\n{TWO}\n"), "not rotated"),
            (format!("\n{}", &ONE[1..]), "line 2"),
        ] {
            let fault = HashSecret::parse(&wrong).unwrap_err();
            assert!(fault.contains(why) && !fault.contains(&ONE[1..]), "{fault}");
        }
    }

    #[test]
    fn a_keyring_does_not_show_its_keys() {
        assert_eq!(format!("{:?}", Keyring::parse(ONE).unwrap()), "Keyring(1 keys)");
        assert_eq!(format!("{:?}", HashSecret::parse(ONE).unwrap()), "HashSecret");
    }
}
