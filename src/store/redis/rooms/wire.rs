//! How turns of rooms and their answers are packed for the script: one argument and one reply, numbers big-endian. The
//! other side of this is `read_turn` and `reply` in `lua/room_turn.lua` and `lua/room_answer.lua`.
//!
//! A reply is read with suspicion: whatever is not exactly as it should be is [`StoreFault::Garbled`].

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::rate::Rate;
use crate::queue::earlier::{Return, Returned, Shows};
use crate::queue::lobby::Draw;
use crate::queue::log::{Change, Cursor, Snapshot};
use crate::queue::shuffle::Seed;
use crate::queue::terms::{Mode, Order, Setting, Terms};
use crate::queue::turn::{Counts, Entered, Join, Joined, Otherwise, Outcome, Refusal, Stage, Tally, Turn};
use crate::store::limits::StoreFault;
use crate::store::redis::wire::{Reader, put};
use crate::store::rooms::{News, RoomReply, RoomTurn};

/// Order numbers are six bytes. Nobody gives a larger one.
const NUMBER_MAX: u64 = (1 << 48) - 1;

/// Longest span: added to a moment it stays where doubles are exact. 142 years.
const SPAN_MAX: u64 = 1 << 52;

const VISITORS: u8 = 1;
const ADMIT: u8 = 2;
const OPEN: u8 = 4;
const SHUFFLE: u8 = 8;
/// In an answer, where a turn has [`OPEN`].
const TICK_AT: u8 = 4;

const OWNED: u8 = 1;
const REFUSE: u8 = 2;
const SHARED: u8 = 4;
/// In a return, where a join has [`REFUSE`].
const PASS: u8 = 2;

/// Bytes that tell of a lobby that was drawn.
const LOBBY_BYTES: usize = 57;

/// Bytes of a change that names no number.
const CHANGE_BYTES: usize = 48;

/// A turn as the script's argument.
pub(super) fn turn(request: &RoomTurn) -> Vec<u8> {
    let RoomTurn { turn, cursor } = request;
    let signs = turn.touches.len() + turn.enters.len() + turn.leaves.len();
    let mut out = Vec::with_capacity(192 + 6 * signs + 14 * turn.renewals.len() + 29 * turn.joins.len());
    terms(&mut out, &turn.terms);
    put(&mut out, turn.epoch);
    put(&mut out, cursor.epoch);
    put(&mut out, cursor.sequence);
    out.push(u8::from(turn.tick));
    size(&mut out, turn.settings.len());
    turn.settings.iter().for_each(|said| setting(&mut out, *said));
    size(&mut out, turn.renewals.len());
    for (renewed, until) in &turn.renewals {
        number(&mut out, *renewed);
        put(&mut out, until.as_micros());
    }
    for list in [&turn.touches, &turn.enters, &turn.leaves] {
        size(&mut out, list.len());
        list.iter().for_each(|one| number(&mut out, *one));
    }
    size(&mut out, turn.joins.len());
    turn.joins.iter().for_each(|one| join(&mut out, one));
    size(&mut out, turn.returns.len());
    turn.returns.iter().for_each(|one| comes_back(&mut out, one));
    out.extend(format!("{:032x}", turn.nonce).into_bytes());
    out
}

fn terms(out: &mut Vec<u8>, terms: &Terms) {
    let said = [
        terms.visitors.map_or(0, |_| VISITORS),
        terms.admit.map_or(0, |_| ADMIT),
        terms.open.map_or(0, |_| OPEN),
        if terms.order == Order::Shuffle { SHUFFLE } else { 0 },
    ];
    out.push(said.into_iter().sum());
    out.push(mode(terms.mode));
    put(out, terms.visitors.unwrap_or(0));
    rate(out, terms.admit);
    span(out, terms.pass);
    put(out, terms.open.map_or(0, |open| open.as_micros()));
    span(out, terms.abandon_after);
    span(out, terms.claim_within);
    span(out, terms.tick);
    put(out, terms.max_waiting);
}

fn rate(out: &mut Vec<u8>, rate: Option<Rate>) {
    put(out, rate.map_or(0, |rate| rate.count.get()));
    span(out, rate.map_or(Duration::ZERO, |rate| rate.window));
}

const fn mode(mode: Mode) -> u8 {
    match mode {
        Mode::Auto => 0,
        Mode::Hold => 1,
        Mode::Off => 2,
        Mode::Drain => 3,
    }
}

pub(super) fn setting(out: &mut Vec<u8>, setting: Setting) {
    let (what, value, window) = match setting {
        Setting::Mode(said) => (0, u64::from(mode(said)), Duration::ZERO),
        Setting::Visitors(visitors) => (1, visitors, Duration::ZERO),
        Setting::Admit(rate) => (2, rate.count.get(), rate.window),
        Setting::AsWritten => (3, 0, Duration::ZERO),
        Setting::Revoke(number) => (4, number.min(NUMBER_MAX), Duration::ZERO),
        Setting::Measured { rate, .. } => (5, rate.count.get(), rate.window),
        Setting::Written(file) => (6, file.min(NUMBER_MAX), Duration::ZERO),
    };
    out.push(what);
    put(out, value);
    span(out, window);
    if let Setting::Measured { gateway, .. } = setting {
        number(out, gateway);
    }
}

/// An owner of all zeros is none, as on a ticket.
fn join(out: &mut Vec<u8>, join: &Join) {
    let owner = join.owner.filter(|owner| *owner != 0);
    let refuse = match join.otherwise {
        Otherwise::Wait => 0,
        Otherwise::Refuse => REFUSE,
    };
    out.push(owner.map_or(0, |_| OWNED) | refuse | join.share.map_or(0, |_| SHARED));
    out.extend(owner.iter().flat_map(|owner| owner.to_be_bytes()));
    if let Some(share) = join.share {
        out.extend(share.network.to_be_bytes());
        out.extend(share.most.to_be_bytes());
    }
}

fn comes_back(out: &mut Vec<u8>, one: &Return) {
    let owner = one.owner.filter(|owner| *owner != 0);
    let (pass, moment) = match one.shows {
        Shows::Ticket { heard } => (0, heard),
        Shows::Pass { until } => (PASS, until),
    };
    out.push(owner.map_or(0, |_| OWNED) | pass);
    put(out, one.epoch);
    number(out, one.rank);
    put(out, moment.as_micros().min(SPAN_MAX));
    out.extend(owner.iter().flat_map(|owner| owner.to_be_bytes()));
}

pub(super) fn size(out: &mut Vec<u8>, size: usize) {
    out.extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
}

pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.min(NUMBER_MAX).to_be_bytes()[2..]);
}

fn span(out: &mut Vec<u8>, span: Duration) {
    put(out, u64::try_from(span.as_micros()).unwrap_or(SPAN_MAX).min(SPAN_MAX));
}

/// The script's answer to a turn.
pub(super) fn read_reply(bytes: &[u8], asked: &Turn) -> Result<RoomReply, StoreFault> {
    let mut reader = Reader(bytes);
    let reply = reader.room_reply().filter(|_| reader.0.is_empty());
    let reply = reply.filter(|RoomReply { outcome, .. }| {
        let answered = |outcome: &Outcome| (outcome.enters.len(), outcome.returns.len(), outcome.joins.len());
        answered(outcome) == (asked.enters.len(), asked.returns.len(), asked.joins.len()) || outcome.restoring.is_some()
    });
    reply.ok_or(StoreFault::Garbled)
}

impl Reader<'_> {
    fn room_reply(&mut self) -> Option<RoomReply> {
        let (epoch, now, sequence) = (self.number()?, self.moment()?, self.number()?);
        if epoch == 0 {
            return self.restoring(now, Timestamp::from_micros(sequence));
        }
        let (counts, tick_at) = self.counts()?;
        let counts = self.lobby(counts)?;
        let enters = self.sized(1, Self::entered)?;
        let joins = self.sized(1, Self::joined)?;
        let returns = self.sized(1, Self::returned)?;
        let tally = Tally {
            entered: self.number()?,
            waits: self.sized(8, |reader| reader.number().map(Duration::from_micros))?,
            ..Tally::default()
        };
        let change = if self.flag()? { Some(self.change()?) } else { None };
        let news = match self.flag()? {
            false => News::Changes(self.sized(CHANGE_BYTES, |reader| reader.change().map(Arc::new))?),
            true => News::Snapshot(self.snapshot(&counts)?),
        };
        let outcome = Outcome {
            epoch,
            now,
            enters,
            returns,
            joins,
            tally: tallied(tally, change.as_ref()),
            change,
            counts,
            tick_at,
            restoring: None,
        };
        let cursor = Cursor { epoch, sequence };
        Some(RoomReply { outcome, news, cursor })
    }

    fn counts(&mut self) -> Option<(Counts, Option<Timestamp>)> {
        let counts = Counts {
            waiting: self.number()?,
            called: self.number()?,
            inside: self.number()?,
            last: self.number()?,
            frontier: self.number()?,
            ..Counts::default()
        };
        let [flags, mode] = self.take()?;
        let mode = match mode {
            0 => Mode::Auto,
            1 => Mode::Hold,
            2 => Mode::Off,
            3 => Mode::Drain,
            _ => return None,
        };
        let (visitors, count, window) = (self.number()?, self.number()?, self.number()?);
        let tick_at = self.moment()?;
        let admit = match flags & ADMIT {
            0 => None,
            _ => Some(Rate {
                count: NonZeroU64::new(count)?,
                window: Duration::from_micros(window),
            }),
        };
        let counts = Counts {
            mode,
            visitors: (flags & VISITORS != 0).then_some(visitors),
            admit,
            ..counts
        };
        Some((counts, (flags & TICK_AT != 0).then_some(tick_at)))
    }

    fn lobby(&mut self, counts: Counts) -> Option<Counts> {
        let size = self.size()?;
        let lobby = self.flag()?;
        let draw = match size {
            1 => None,
            LOBBY_BYTES => Some(Draw {
                seed: Seed(u128::from_str_radix(str::from_utf8(&self.take::<32>()?).ok()?, 16).ok()?),
                before: self.number()?,
                size: self.number()?,
                at: self.moment()?,
            }),
            _ => return None,
        };
        let draw = draw.filter(|draw| draw.size <= NUMBER_MAX && draw.before <= NUMBER_MAX);
        Some(Counts { lobby, draw, ..counts })
    }

    fn entered(&mut self) -> Option<Entered> {
        Some(match self.take()? {
            [0] => Entered::Now { until: self.moment()? },
            [1] => Entered::Already {
                since: self.moment()?,
                until: self.moment()?,
            },
            [2] => Entered::NotYet,
            [3] => Entered::Gone,
            _ => return None,
        })
    }

    fn joined(&mut self) -> Option<Joined> {
        let [kind] = self.take()?;
        let refusal = match kind {
            0..=2 => return self.place(kind),
            3 => Refusal::Off,
            4 => Refusal::Closed,
            5 => Refusal::Full,
            6 => Refusal::NoRoom,
            7 => Refusal::Crowded,
            _ => return None,
        };
        Some(Joined::Refused(refusal))
    }

    fn returned(&mut self) -> Option<Returned> {
        let [kind] = self.take()?;
        match kind {
            0..=2 => match self.place(kind)? {
                Joined::Place { number, since, stage } => Some(Returned::Place { number, since, stage }),
                Joined::Refused(_) => None,
            },
            3 => Some(Returned::Unknown),
            _ => None,
        }
    }

    fn place(&mut self, stage: u8) -> Option<Joined> {
        let (number, since) = (self.order_number()?, self.moment()?);
        let stage = match stage {
            0 => Stage::Waiting,
            1 => Stage::Called,
            _ => Stage::Inside { until: self.moment()? },
        };
        Some(Joined::Place { number, since, stage })
    }

    fn change(&mut self) -> Option<Change> {
        let (at, last, frontier) = (self.moment()?, self.order_number()?, self.order_number()?);
        let called = self.number()?;
        let [left, unclaimed, entered] = [self.size()?, self.size()?, self.size()?];
        let [ended, returned] = [self.size()?, self.size()?];
        Some(Change {
            at,
            last,
            frontier,
            called,
            left: self.list(left, 6, Self::order_number)?,
            unclaimed: self.list(unclaimed, 6, Self::order_number)?,
            entered: self.list(entered, 6, Self::order_number)?,
            ended: self.list(ended, 6, Self::order_number)?,
            returned: self.list(returned, 6, Self::order_number)?,
        })
    }

    /// Bits at or below the frontier mean nothing; while a lobby is called, those below the lobby.
    fn snapshot(&mut self, counts: &Counts) -> Option<Snapshot> {
        let (base, size) = (self.number()?, self.size()?);
        let bits = self.list(size, 1, |reader| reader.take::<1>())?;
        let set = (0_u64..).zip(&bits).flat_map(|(at, [byte])| {
            let is_set = move |bit: &u64| byte & (0x80 >> bit) != 0;
            (0..8).filter(is_set).map(move |bit| 8 * at + bit)
        });
        let waiting = set.filter_map(|bit| base.checked_add(bit));
        let called = counts.draw.filter(|draw| counts.frontier < draw.last());
        let floor = called.map_or(counts.frontier, |draw| draw.before);
        Some(Snapshot {
            last: counts.last,
            frontier: counts.frontier,
            waiting: waiting.filter(|number| *number > floor).collect(),
            called: self.sized(6, Self::order_number)?,
            inside: self.sized(6, Self::order_number)?,
        })
    }

    fn order_number(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.take::<6>()?);
        Some(u64::from_be_bytes(bytes))
    }

    fn size(&mut self) -> Option<usize> {
        self.take().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    /// A list that says its size first. A part is at least so many bytes.
    fn sized<T>(&mut self, bytes: usize, part: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let size = self.size()?;
        self.list(size, bytes, part)
    }
}

/// What a change tells of the tally need not be said twice.
fn tallied(tally: Tally, change: Option<&Change>) -> Tally {
    let Some(change) = change else { return tally };
    Tally {
        called: change.called,
        abandoned: change.left.len() as u64,
        unclaimed: change.unclaimed.len() as u64,
        ..tally
    }
}

#[cfg(test)]
mod tests;
