//! How turns and answers are packed for the scripts: one argument and one reply a call, numbers big-endian. The other
//! side of this is `read_turn` in `lua/limit_scene.lua`, `read_said` and `reply` in `lua/limit_turn.lua`, and
//! `lua/fleet_alive.lua`.
//!
//! A reply is read with suspicion: whatever is not exactly as it should be is [`StoreFault::Garbled`].

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::limiter::terms::{Algorithm, Terms};
use crate::limiter::window::Window;
use crate::store::limits::{Fleet, GatewayId, KeyReply, KeyTurn, LimitReply, LimitTurn, Standing, StoreFault};

/// A script counts in doubles, which are exact up to here. Nothing a gateway says comes near it.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Bytes of the answer to one key.
const KEY_REPLY_BYTES: usize = 41;

/// Bytes of an entry of the log.
const LOG_ENTRY_BYTES: usize = 17;

const REPORT: u8 = 1;
const OVERDRAFT: u8 = 2;
const GIVE_BACK: u8 = 4;
const ASK: u8 = 8;

/// A turn as the script's argument.
pub(super) fn turn(turn: &LimitTurn) -> Vec<u8> {
    let fleet = fleet_of(turn);
    let mut out = Vec::with_capacity(64 + fleet.len() + 32 * turn.keys.len());
    out.extend(turn.gateway.0.to_be_bytes());
    put(&mut out, turn.sequence);
    put(&mut out, turn.epoch);
    out.push(u8::from(turn.said_all));
    put(&mut out, turn.cursor);
    terms(&mut out, turn.terms);
    out.extend((fleet.len() as u32).to_be_bytes());
    out.extend(fleet);
    out.extend((turn.keys.len() as u32).to_be_bytes());
    for key in &turn.keys {
        out.extend(key.key.0.to_be_bytes());
    }
    for key in &turn.keys {
        key_turn(&mut out, key);
    }
    out
}

/// What a limit allows, and what follows from that, so that a script need not work it out: the limit, lengths of window
/// and frame, most at once, what is free in a frame; how many frames before their own shares are fixed; lives of budget
/// when little remains and when much does, how far back use counts, and how finely moments are told apart there;
/// whether as of the end of such a cell; and the dates of a calendar, if there is one. Spans are in microseconds.
fn terms(out: &mut Vec<u8>, terms: Terms) {
    let micros = |span: Duration| span.as_micros() as u64;
    let numbers = [
        terms.allows,
        micros(terms.window.length()),
        micros(terms.frames().length()),
        terms.capacity(),
        terms.free(),
    ];
    numbers.into_iter().for_each(|number| put(out, number));
    out.push(terms.lag() as u8);
    let numbers = [
        micros(terms.life(false)),
        micros(terms.life(true)),
        terms.span(),
        terms.cell(),
    ];
    numbers.into_iter().for_each(|number| put(out, number));
    out.push(u8::from(matches!(terms.algorithm, Algorithm::Slices(_))));
    match terms.window {
        Window::Aligned(_) => out.push(0),
        Window::Calendar(dates) => {
            out.push(1);
            put(out, dates.index);
            dates.starts.iter().for_each(|start| put(out, start.as_micros()));
        }
    }
}

/// What is said of a key; the keys themselves go before all of it.
fn key_turn(out: &mut Vec<u8>, turn: &KeyTurn) {
    let flags = out.len();
    out.push(0);
    let mut said = 0;
    if let Some(report) = turn.report {
        said |= REPORT;
        put(out, report.index);
        put(out, report.prev);
        put(out, report.cur);
    }
    if turn.overdraft > 0 {
        said |= OVERDRAFT;
        put(out, turn.overdraft);
    }
    if let Some((index, unspent)) = turn.give_back {
        said |= GIVE_BACK;
        put(out, index);
        put(out, unspent);
    }
    if turn.ask > 0 {
        said |= ASK;
        put(out, turn.ask);
    }
    out[flags] = said;
}

/// The fleet as far as it matters to a turn.
fn fleet_of(turn: &LimitTurn) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, turn.fleet.sure_until.as_micros());
    changes(&mut out, turn.fleet.lately(&turn.terms));
    out
}

/// What a gateway knew of the fleet, as the argument of `fleet_alive`.
pub(super) fn fleet(fleet: &Fleet) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, fleet.now.as_micros());
    put(&mut out, fleet.sure_until.as_micros());
    changes(&mut out, &fleet.timeline);
    out
}

fn changes(out: &mut Vec<u8>, timeline: &[(Timestamp, Vec<GatewayId>)]) {
    out.extend((timeline.len() as u16).to_be_bytes());
    for (from, members) in timeline.iter().take(usize::from(u16::MAX)) {
        put(out, from.as_micros());
        out.extend((members.len() as u16).to_be_bytes());
        for member in members.iter().take(usize::from(u16::MAX)) {
            out.extend(member.0.to_be_bytes());
        }
    }
}

/// A number, or a moment or span in microseconds.
pub(super) fn put(out: &mut Vec<u8>, number: u64) {
    out.extend(number.min(NUMBER_MAX).to_be_bytes());
}

/// The script's answer to a turn with so many keys.
pub(super) fn read_reply(bytes: &[u8], asked: usize) -> Result<LimitReply, StoreFault> {
    let mut reader = Reader(bytes);
    let reply = reader.reply(asked).filter(|_| reader.0.is_empty());
    reply.ok_or(StoreFault::Garbled)
}

/// The answer of `fleet_alive`.
pub(super) fn read_fleet(bytes: &[u8]) -> Result<Fleet, StoreFault> {
    let mut reader = Reader(bytes);
    let fleet = reader.fleet().filter(|_| reader.0.is_empty());
    fleet.ok_or(StoreFault::Garbled)
}

/// What of an answer has not been read yet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn moment(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_micros)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.take::<1>()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn key(&mut self) -> Option<Key> {
        self.take().map(|bytes| Key(u128::from_be_bytes(bytes)))
    }

    /// So many parts of this many bytes; none if there cannot be that many, so that nothing is allocated for them.
    pub(super) fn list<T>(
        &mut self,
        size: usize,
        bytes: usize,
        part: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        if size.checked_mul(bytes)? > self.0.len() {
            return None;
        }
        (0..size).map(|_| part(self)).collect()
    }

    fn reply(&mut self, asked: usize) -> Option<LimitReply> {
        let (now, epoch, cursor) = (self.moment()?, self.number()?, self.number()?);
        let (missed, more) = (self.flag()?, self.flag()?);
        let keys = u32::from_be_bytes(self.take()?) as usize;
        let log = u32::from_be_bytes(self.take()?) as usize;
        if keys != 0 && keys != asked {
            return None;
        }
        Some(LimitReply {
            now,
            epoch,
            cursor,
            more,
            missed,
            keys: self.list(keys, KEY_REPLY_BYTES, Self::key_reply)?,
            log: self.list(log, LOG_ENTRY_BYTES, |reader| Some((reader.key()?, reader.flag()?)))?,
        })
    }

    fn key_reply(&mut self) -> Option<KeyReply> {
        Some(KeyReply {
            granted: self.number()?,
            valid_until: self.moment()?,
            remaining: self.number()?,
            wait: Duration::from_micros(self.number()?),
            excess: self.number()?,
            standing: match self.take::<1>()? {
                [0] => Standing::Reported,
                [1] => Standing::Unreported,
                [2] => Standing::NotPooled,
                _ => return None,
            },
        })
    }

    fn fleet(&mut self) -> Option<Fleet> {
        let (now, sure_until) = (self.moment()?, self.moment()?);
        let changes = usize::from(u16::from_be_bytes(self.take()?));
        let timeline = self.list(changes, 10, |reader| {
            let from = reader.moment()?;
            let members = usize::from(u16::from_be_bytes(reader.take()?));
            let members = reader.list(members, 8, |reader| reader.number().map(GatewayId))?;
            Some((from, members))
        })?;
        Some(Fleet {
            timeline,
            sure_until,
            now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::window::{Counts, Window};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn secs(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn told(timeline: Vec<(Timestamp, Vec<GatewayId>)>) -> LimitTurn {
        LimitTurn {
            gateway: GatewayId(7),
            sequence: 1,
            limit: "per-client".parse().unwrap(),
            terms: Terms {
                allows: 100,
                window: Window::new(Duration::from_secs(10)),
                algorithm: Algorithm::SlidingWindow,
            },
            partition: 0,
            epoch: 0,
            said_all: true,
            cursor: 0,
            fleet: Arc::new(Fleet {
                timeline,
                sure_until: secs(1_003),
                now: secs(1_000),
            }),
            keys: Vec::new(),
        }
    }

    #[test]
    fn a_fleet_is_told_as_far_back_as_windows_matter() {
        let members = |number| vec![GatewayId(number)];
        let turn = told(vec![
            (secs(0), members(1)),
            (secs(500), members(2)),
            (secs(979), members(3)),
            (secs(985), members(4)),
        ]);
        let sent = fleet_of(&turn);
        let kept = [told(vec![(secs(979), members(3)), (secs(985), members(4))])];
        assert_eq!(sent, fleet_of(&kept[0]));
        assert_eq!(sent.len(), 8 + 2 + 2 * (8 + 2 + 8));
    }

    #[test]
    fn only_what_is_said_of_a_key_is_sent() {
        let mut turn = told(Vec::new());
        let empty = super::turn(&turn).len();
        let silent = KeyTurn {
            key: Key(1),
            report: None,
            overdraft: 0,
            give_back: None,
            ask: 0,
        };
        turn.keys = vec![silent];
        assert_eq!(super::turn(&turn).len(), empty + 17);
        turn.keys[0] = KeyTurn {
            report: Some(Counts::default()),
            overdraft: 1,
            give_back: Some((1, 1)),
            ask: 1,
            ..silent
        };
        assert_eq!(super::turn(&turn).len(), empty + 17 + 7 * 8);
    }

    #[test]
    fn a_fleet_comes_back_as_it_went() {
        let turn = told(vec![
            (secs(0), Vec::new()),
            (secs(9), vec![GatewayId(1), GatewayId(u64::MAX)]),
        ]);
        assert_eq!(read_fleet(&fleet(&turn.fleet)), Ok((*turn.fleet).clone()));
    }

    #[test]
    fn answers_to_other_questions_are_garbled() {
        let mut bytes = vec![0; 26];
        bytes.extend(1_u32.to_be_bytes());
        bytes.extend(0_u32.to_be_bytes());
        bytes.extend([0; KEY_REPLY_BYTES]);
        assert!(read_reply(&bytes, 1).is_ok());
        assert_eq!(read_reply(&bytes, 2), Err(StoreFault::Garbled));
        bytes.push(0);
        assert_eq!(read_reply(&bytes, 1), Err(StoreFault::Garbled));
        bytes.truncate(41);
        assert_eq!(read_reply(&bytes, 1), Err(StoreFault::Garbled));
    }

    proptest! {
        #[test]
        fn garbage_is_garbled_and_nothing_worse(bytes in proptest::collection::vec(any::<u8>(), 0..200), asked in 0usize..5) {
            let reply = read_reply(&bytes, asked);
            prop_assert!(reply.is_ok_and(|reply| reply.keys.len() <= asked) || read_reply(&bytes, asked).is_err());
            let fleet = read_fleet(&bytes);
            prop_assert!(fleet.is_err() || bytes.len() >= 18);
        }
    }
}
