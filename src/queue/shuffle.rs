//! The order of a shuffled lobby: a permutation that anyone can compute from what is published.
//!
//! A lobby of `size` visitors has the lobby numbers 1 to `size`, in order of arrival. With the seed, which is drawn at
//! the opening and published, each gets its rank, 1 to `size`, and they are called in the order of ranks. This is a
//! Feistel network on a grid (after Black and Rogaway, *Ciphers with Arbitrary Finite Domains*, 2002), so a rank is
//! found without the ranks of others, and the visitor of a rank as well:
//!
//! * `width` is the least whole number whose square is at least `size`, and `height` the least with
//!   `width * height >= size`. Lobby number `k` stands in the cell `k - 1` of the grid: column `(k - 1) mod width`, row
//!   `(k - 1) div width`.
//! * Six rounds. Rounds 0, 2 and 4 add `F(round, row)` to the column, modulo `width`; rounds 1, 3 and 5 add
//!   `F(round, column)` to the row, modulo `height`.
//! * `F(round, line)` is the first eight hex digits of the SHA-1 of the text `SEED:ROUND:LINE`, as a number. The seed is
//!   written as 32 small hex digits, the others in decimal.
//! * The cell is `row * width + column` again. Where it is `size` or more, the six rounds are done again, until it is
//!   not. The rank is the cell plus one.
//!
//! SHA-1, because a Redis script has no other hash. Nobody gains by finding collisions here: the seed is not chosen by
//! who would profit, and before the opening it does not exist.
//!
//! # A worked example
//!
//! Seed `000102030405060708090a0b0c0d0e0f`, a lobby of 5: `width` is 3, `height` is 2. The table in the tests below
//! has all ranks, and every step of the way of lobby number 1.

use std::fmt;
use std::fmt::Write as _;

use ring::digest;

/// Rounds of the network: half of them move columns, half rows.
const ROUNDS: usize = 6;

/// Bytes of the text that a round hashes, at most: 32 of the seed, 20 of a line, and `:0:`.
const TEXT_BYTES_MAX: usize = 55;

/// What a lobby is shuffled by. It is no secret once it exists.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Seed(pub u128);

impl Seed {
    /// Drawn from `nonce`, which nobody could know before, and the moment: the first 32 hex digits of the SHA-1 of
    /// `NONCE:MICROSECONDS`, the nonce as 32 small hex digits.
    pub fn draw(nonce: u128, micros: u64) -> Self {
        let hash = sha1(format!("{nonce:032x}:{micros}").as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The permutation of one lobby. What the rounds add is worked out once: a lobby of a million has 1,000 lines each way,
/// so that is 6,000 hashes and 24 KB.
#[derive(Clone)]
pub struct Shuffle {
    size: u64,
    width: u64,
    height: u64,
    /// What each round adds, by line.
    added: [Vec<u32>; ROUNDS],
}

impl Shuffle {
    /// The permutation of 1 to `size`.
    pub fn new(seed: Seed, size: u64) -> Self {
        let root = size.isqrt();
        let width = if root * root < size { root + 1 } else { root.max(1) };
        let height = size.div_ceil(width).max(1);
        let added = std::array::from_fn(|round| {
            let lines = if moves_columns(round) { height } else { width };
            (0..lines).map(|line| added(seed, round, line)).collect()
        });
        Self {
            size,
            width,
            height,
            added,
        }
    }

    /// The rank of a lobby number; a number that is not of the lobby stays what it is.
    pub fn rank(&self, number: u64) -> u64 {
        self.walk(number, Self::forward)
    }

    /// The lobby number of a rank; what is not a rank of the lobby stays what it is.
    pub fn number(&self, rank: u64) -> u64 {
        self.walk(rank, Self::back)
    }

    /// The grid has fewer than `width` cells too many, so this seldom goes round twice.
    fn walk(&self, from: u64, step: impl Fn(&Self, u64) -> u64) -> u64 {
        if from == 0 || from > self.size {
            return from;
        }
        let mut cell = step(self, from - 1);
        while cell >= self.size {
            cell = step(self, cell);
        }
        cell + 1
    }

    fn forward(&self, cell: u64) -> u64 {
        let (mut column, mut row) = (cell % self.width, cell / self.width);
        for round in 0..ROUNDS {
            if moves_columns(round) {
                column = (column + self.line(round, row)) % self.width;
            } else {
                row = (row + self.line(round, column)) % self.height;
            }
        }
        row * self.width + column
    }

    fn back(&self, cell: u64) -> u64 {
        let (mut column, mut row) = (cell % self.width, cell / self.width);
        for round in (0..ROUNDS).rev() {
            if moves_columns(round) {
                column = (column + self.width - self.line(round, row) % self.width) % self.width;
            } else {
                row = (row + self.height - self.line(round, column) % self.height) % self.height;
            }
        }
        row * self.width + column
    }

    fn line(&self, round: usize, line: u64) -> u64 {
        let line = usize::try_from(line).ok();
        let added = line.and_then(|line| self.added[round].get(line));
        added.map_or(0, |added| u64::from(*added))
    }
}

impl fmt::Debug for Shuffle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shuffle(of {})", self.size)
    }
}

const fn moves_columns(round: usize) -> bool {
    round.is_multiple_of(2)
}

fn added(seed: Seed, round: usize, line: u64) -> u32 {
    let mut text = String::with_capacity(TEXT_BYTES_MAX);
    // Writing to a string cannot fail.
    let _written = write!(text, "{seed}:{round}:{line}");
    let hash = sha1(text.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn sha1(text: &[u8]) -> [u8; 20] {
    let mut hash = [0; 20];
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text).as_ref());
    hash
}

#[cfg(test)]
mod tests;
