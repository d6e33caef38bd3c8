//! How what a gateway remembers is packed for the script; the other side is `read_memory` in `lua/room_restore.lua`.

use std::time::Duration;

use super::wire::{number, setting, size};
use crate::base::clock::Timestamp;
use crate::queue::log::Cursor;
use crate::queue::restore::{Memory, Restoring};
use crate::queue::turn::Outcome;
use crate::store::redis::wire::{Reader, put};
use crate::store::rooms::{News, RoomReply};

/// The memory as the script's argument; nothing where there is none. Those who wait are bits, from the last multiple of
/// 8 before the first number told of.
pub(super) fn memory(memory: Option<&Memory>) -> Vec<u8> {
    let Some(memory) = memory else { return Vec::new() };
    let mut out = Vec::new();
    put(&mut out, memory.cursor.epoch);
    put(&mut out, memory.cursor.sequence);
    for one in [memory.frontier, memory.last, memory.from, memory.to] {
        number(&mut out, one);
    }
    let bits = bits(memory.from / 8 * 8, &memory.waiting);
    size(&mut out, bits.len());
    out.extend(bits);
    for list in [&memory.called, &memory.inside] {
        size(&mut out, list.len());
        list.iter().for_each(|one| number(&mut out, *one));
    }
    size(&mut out, memory.said.len());
    memory.said.iter().for_each(|said| setting(&mut out, *said));
    out.push(u8::from(memory.lobby));
    if let Some(draw) = &memory.draw {
        out.extend(draw.seed.to_string().into_bytes());
        put(&mut out, draw.before);
        put(&mut out, draw.size);
        put(&mut out, draw.at.as_micros());
    }
    out
}

fn bits(base: u64, numbers: &[u64]) -> Vec<u8> {
    let at = |number: u64| usize::try_from(number.saturating_sub(base)).unwrap_or(0);
    let mut bits = vec![0; numbers.last().map_or(0, |last| at(*last) / 8 + 1)];
    for number in numbers {
        if let Some(byte) = bits.get_mut(at(*number) / 8) {
            *byte |= 0x80 >> (at(*number) % 8);
        }
    }
    bits
}

impl Reader<'_> {
    /// What follows where the room listens.
    pub(super) fn restoring(&mut self, now: Timestamp, since: Timestamp) -> Option<RoomReply> {
        let left = Duration::from_micros(self.number()?);
        Some(RoomReply {
            outcome: Outcome::restoring(Restoring { since, left }, now),
            news: News::Changes(Vec::new()),
            cursor: Cursor::default(),
        })
    }
}
