//! Tickets and passes: a place, or the right to be inside, written on a slip that only this fleet can sign.
//!
//! A slip is 87 bytes, 116 characters of base64url: version, kind, key id, epoch, number, moment, binding, rank, when the
//! holder was last heard of, and an HMAC-SHA256 over all of them **and the room's name**, which is not written on it. So
//! a slip is worth nothing in another room, and it has one spelling only: 87 bytes leave no spare bits in the last
//! character.
//!
//! Whether a genuine slip is still worth something (its epoch, its number, its moment) is the reader's business.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::base::secret::{Keyring, TAG_BYTES};

/// Characters of a slip.
pub const SLIP_CHARS: usize = 116;

const VERSION: u8 = 1;
const CLAIM_BYTES: usize = 55;
/// Largest rank, and latest moment in milliseconds, that six bytes hold.
const SIX_BYTES_MAX: u64 = (1 << 48) - 1;

const SLIP_BYTES: usize = CLAIM_BYTES + TAG_BYTES;

/// Keeps these signatures apart from anything else the same keys may ever sign.
const CONTEXT: &[u8] = b"tidegate room slip\0";

/// What a slip is good for. One cannot be used as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A place in the queue. It has no expiry of its own: the queue says what it is worth.
    Ticket = 1,
    /// The right to be inside until its moment.
    Pass = 2,
    /// The right to go around the room until its moment, without a place: its number and epoch mean nothing.
    Link = 3,
}

/// Whose slip it is, and from where: hashes of the key that a room gives one place per, and of the client's network.
/// Either is 0 where the room does not ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    owner: u64,
    network: u64,
}

impl Binding {
    /// Bound to the owner, if there is one.
    pub fn to(owner: Option<u128>) -> Self {
        let folded = owner.map(|owner| ((owner >> 64) ^ owner) as u64);
        Self {
            owner: folded.map_or(0, |owner| owner.max(1)),
            network: 0,
        }
    }

    /// The same, and bound to a network as well: to its hash.
    #[must_use]
    pub fn within(self, network: u64) -> Self {
        let network = network.max(1);
        Self { network, ..self }
    }

    /// Whether whoever shows the slip may use it. Who does not say whose they are is taken at the slip's word: the
    /// queue API sees no claims, and the guarded route will see them.
    pub fn admits(self, shown_by: Self) -> bool {
        let fits = |bound: u64, shown: u64| bound == 0 || shown == 0 || bound == shown;
        fits(self.owner, shown_by.owner) && fits(self.network, shown_by.network)
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(..)")
    }
}

/// What is written on a slip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The life of the queue it belongs to.
    pub epoch: u64,
    /// The order number.
    pub number: u64,
    /// A ticket's issue; a pass's expiry.
    pub moment: Timestamp,
    /// Whose it is.
    pub binding: Binding,
    /// By which the holder is called, for a room that was lost together with its draw. 0 for none: in a lobby that is not
    /// drawn yet.
    pub rank: u64,
    /// When the holder gave a sign of life, to the millisecond; a ticket is signed anew from time to time.
    pub heard: Timestamp,
}

/// A signed slip, fit for a cookie. It never shows itself in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Slip(String);

impl Slip {
    /// The characters, for the cookie and for nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slip(..)")
    }
}

/// Signs `claim` for `room`.
pub fn sign(keyring: &Keyring, kind: Kind, room: &Name, claim: &Claim) -> Slip {
    let mut bytes = [0; SLIP_BYTES];
    bytes[0] = VERSION;
    bytes[1] = kind as u8;
    bytes[3..11].copy_from_slice(&claim.epoch.to_be_bytes());
    bytes[11..19].copy_from_slice(&claim.number.to_be_bytes());
    bytes[19..27].copy_from_slice(&claim.moment.as_micros().to_be_bytes());
    bytes[27..35].copy_from_slice(&claim.binding.owner.to_be_bytes());
    bytes[35..43].copy_from_slice(&claim.binding.network.to_be_bytes());
    bytes[43..49].copy_from_slice(&six_bytes(claim.rank));
    bytes[49..55].copy_from_slice(&six_bytes(claim.heard.as_micros() / 1_000));
    // The key's id is known only once it has signed; it is left out of the message, for a wrong id finds a
    // wrong key and fails by itself.
    let (id, tag) = keyring.sign(&message(&bytes, room));
    bytes[2] = id;
    bytes[CLAIM_BYTES..].copy_from_slice(&tag);
    Slip(URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads a slip of `kind` for `room`; none when it is not genuine. Anything but [`SLIP_CHARS`] characters is
/// refused before it is looked at.
pub fn verify(keyring: &Keyring, kind: Kind, room: &Name, text: &str) -> Option<Claim> {
    if text.len() != SLIP_CHARS {
        return None;
    }
    let mut bytes = [0; SLIP_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    if length != SLIP_BYTES || bytes[0] != VERSION || bytes[1] != kind as u8 {
        return None;
    }
    let (id, tag) = (bytes[2], &bytes[CLAIM_BYTES..]);
    if !keyring.verify(id, &message(&bytes, room), tag) {
        return None;
    }
    Some(Claim {
        epoch: u64::from_be_bytes(field(&bytes, 3)),
        number: u64::from_be_bytes(field(&bytes, 11)),
        moment: Timestamp::from_micros(u64::from_be_bytes(field(&bytes, 19))),
        binding: Binding {
            owner: u64::from_be_bytes(field(&bytes, 27)),
            network: u64::from_be_bytes(field(&bytes, 35)),
        },
        rank: read_six_bytes(&bytes, 43),
        heard: Timestamp::from_micros(read_six_bytes(&bytes, 49) * 1_000),
    })
}

/// Fixed-length fields first, the one of variable length last: no two claims share a message.
fn message(slip: &[u8; SLIP_BYTES], room: &Name) -> Vec<u8> {
    let mut message = Vec::with_capacity(CONTEXT.len() + CLAIM_BYTES + room.as_str().len());
    message.extend_from_slice(CONTEXT);
    message.extend_from_slice(&slip[..2]);
    message.extend_from_slice(&slip[3..CLAIM_BYTES]);
    message.extend_from_slice(room.as_str().as_bytes());
    message
}

fn six_bytes(number: u64) -> [u8; 6] {
    let [_, _, bytes @ ..] = number.min(SIX_BYTES_MAX).to_be_bytes();
    bytes
}

fn read_six_bytes(slip: &[u8; SLIP_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&field::<6>(slip, at));
    u64::from_be_bytes(bytes)
}

fn field<const N: usize>(slip: &[u8; SLIP_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&slip[at..at + N]);
    field
}

#[cfg(test)]
mod tests;
