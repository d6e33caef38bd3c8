//! The price of a place: a puzzle that costs its solver time and its giver nothing to remember.
//!
//! A challenge is 51 bytes, 68 characters of base64url: version, bits, key id, moment of issue, salt, and an HMAC-SHA256
//! over all of them, **the room's name and the network of whoever asked**, which are not written on it. So it is worth
//! nothing in another room or from elsewhere. A solution is the challenge, a full stop and a number in decimal digits,
//! such that the SHA-256 of the whole text starts with `bits` zero bits: some 2^bits tries for whoever solves it, one
//! hash for whoever checks.
//!
//! A solution is good for [`LIFE`] from the issue of its challenge, and [`Spent`] takes it once. What is remembered
//! there is the gateway's alone, so a fleet of N takes one solution N times at most.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::base::secret::{Keyring, TAG_BYTES};

/// How long a challenge may be solved and its solution be used, from its issue.
pub const LIFE: Duration = Duration::from_secs(2 * 60);

/// Most zero bits that can be asked for: a quarter of an hour on a phone is no puzzle any more.
pub const BITS_MAX: u8 = 24;

/// Marks that are remembered of each [`LIFE`]: of solutions, and of waits instead of one (`no_script: wait`). Whoever would
/// push a solution out, to use it again, needs so many others. Solutions cost work; a wait costs none, and each network
/// has one in each delay, so that it takes some 20,000 networks at once to do it with waits.
const SPENT_MAX: usize = 262_144;

/// Characters of a challenge.
const CHALLENGE_CHARS: usize = 68;

/// Most digits of the number in a solution: those of 2^53, up to which a script counts exactly.
const NONCE_DIGITS_MAX: usize = 16;

const VERSION: u8 = 1;
const TERMS_BYTES: usize = 19;
const CHALLENGE_BYTES: usize = TERMS_BYTES + TAG_BYTES;

/// Keeps these signatures apart from anything else the same keys may ever sign.
const CONTEXT: &[u8] = b"tidegate room work\0";

/// Whom a challenge is for.
#[derive(Debug, Clone, Copy)]
pub struct Audience<'a> {
    /// The room that a place is asked of.
    pub room: &'a Name,
    /// The network of whoever asks.
    pub network: u128,
}

/// A genuine challenge, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Zero bits that a solution must start with.
    pub bits: u8,
    /// When it was given.
    pub issued: Timestamp,
    /// What it is remembered by.
    pub mark: u64,
}

/// Why a solution is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worthless {
    /// It solves no challenge of ours, or not this asker's.
    Wrong,
    /// It came too late.
    Expired,
}

/// A new challenge of `bits` zero bits. `salt` must differ from one to the next.
pub fn issue(keyring: &Keyring, audience: Audience<'_>, bits: u8, now: Timestamp, salt: u64) -> String {
    let mut bytes = [0; CHALLENGE_BYTES];
    bytes[0] = VERSION;
    bytes[1] = bits;
    bytes[3..11].copy_from_slice(&now.as_micros().to_be_bytes());
    bytes[11..19].copy_from_slice(&salt.to_be_bytes());
    // As on a ticket, the key's id is known only once it has signed and is left out of the message.
    let (id, tag) = keyring.sign(&message(&bytes, audience));
    bytes[2] = id;
    bytes[TERMS_BYTES..].copy_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a challenge; none when it is not genuine, or meant for somebody else. It may have expired.
pub fn read(keyring: &Keyring, audience: Audience<'_>, text: &str) -> Option<Challenge> {
    if text.len() != CHALLENGE_CHARS {
        return None;
    }
    let mut bytes = [0; CHALLENGE_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    if length != CHALLENGE_BYTES || bytes[0] != VERSION {
        return None;
    }
    if !keyring.verify(bytes[2], &message(&bytes, audience), &bytes[TERMS_BYTES..]) {
        return None;
    }
    Some(Challenge {
        bits: bytes[1],
        issued: Timestamp::from_micros(number(&bytes, 3)),
        mark: number(&bytes, TERMS_BYTES),
    })
}

/// The challenge that `solution` solves.
///
/// # Errors
/// When it solves none that was given to this audience within [`LIFE`] before `now`.
pub fn solved(
    keyring: &Keyring,
    audience: Audience<'_>,
    solution: &str,
    now: Timestamp,
) -> Result<Challenge, Worthless> {
    let (text, nonce) = solution.split_once('.').ok_or(Worthless::Wrong)?;
    let is_number = (1..=NONCE_DIGITS_MAX).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_digit());
    let challenge = read(keyring, audience, text)
        .filter(|_| is_number)
        .ok_or(Worthless::Wrong)?;
    if has_expired(&challenge, now) {
        return Err(Worthless::Expired);
    }
    if zero_bits(digest(&SHA256, solution.as_bytes()).as_ref()) < u32::from(challenge.bits) {
        return Err(Worthless::Wrong);
    }
    Ok(challenge)
}

/// Whether a challenge is too old to be worth anything.
pub fn has_expired(challenge: &Challenge, now: Timestamp) -> bool {
    now.since(challenge.issued) >= LIFE
}

/// Zero bits that a hash starts with.
pub fn zero_bits(hash: &[u8]) -> u32 {
    let zeros = hash.iter().take_while(|byte| **byte == 0).count();
    let bits = u32::try_from(zeros * 8).unwrap_or(u32::MAX);
    bits + hash.get(zeros).map_or(0, |byte| byte.leading_zeros())
}

/// What has been used up, for at least [`LIFE`], in bounded memory.
#[derive(Debug, Default)]
pub struct Spent {
    young: HashSet<u64>,
    old: HashSet<u64>,
    turned: Timestamp,
}

impl Spent {
    /// Uses up `mark`. False when it was used up before.
    pub fn spend(&mut self, mark: u64, now: Timestamp) -> bool {
        if now.since(self.turned) >= LIFE || self.young.len() >= SPENT_MAX {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        !self.old.contains(&mark) && self.young.insert(mark)
    }
}

/// Fields of fixed length first, the one of variable length last: no two challenges share a message.
fn message(bytes: &[u8; CHALLENGE_BYTES], audience: Audience<'_>) -> Vec<u8> {
    let room = audience.room.as_str().as_bytes();
    let mut message = Vec::with_capacity(CONTEXT.len() + TERMS_BYTES + 16 + room.len());
    message.extend_from_slice(CONTEXT);
    message.extend_from_slice(&bytes[..2]);
    message.extend_from_slice(&bytes[3..TERMS_BYTES]);
    message.extend_from_slice(&audience.network.to_be_bytes());
    message.extend_from_slice(room);
    message
}

fn number(bytes: &[u8; CHALLENGE_BYTES], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(field)
}

#[cfg(test)]
mod tests;
