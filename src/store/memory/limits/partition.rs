//! One partition of a limit: the counts of its pooled keys, who has given up a free share of them, and the log by
//! which gateways hear of keys that were pooled or released.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::fleet::Members;
use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::limiter::share::{Shares, remaining};
use crate::limiter::window::Counts;
use crate::store::limits::{GatewayId, KeyReply, KeyTurn, LimitReply, LimitTurn};

/// Most pooled keys of a partition: about 200 bytes each, so 13 MiB. A limit has 16 partitions unless told
/// otherwise.
const KEYS_MAX: usize = 65_536;

/// Log entries that are kept for gateways to catch up.
const LOG_MAX: usize = 2 * KEYS_MAX;

/// Keys looked at in a turn to see whether they can be released.
const RELEASED_PER_TURN: usize = 64;

/// Keys compared to find the one with the least use, when a new one needs its place.
const SAMPLE: usize = 8;

/// Asked within this long, gateways share what is left of a key.
const ASKING: Duration = Duration::from_millis(150);

/// Budget is good for a tenth of the window, or for this long when little remains.
const SHORT_LIFE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Partition {
    keys: HashMap<Key, Pooled>,
    /// Keys in the order in which to look whether they are idle.
    idle: VecDeque<Key>,
    log: VecDeque<(Key, bool)>,
    /// How many entries have left the log's front.
    log_start: u64,
    sequences: BTreeMap<GatewayId, u64>,
}

#[derive(Debug, Default)]
struct Pooled {
    counts: Counts,
    /// Gateways that have given up their free share of it.
    reported: Vec<GatewayId>,
    askers: Vec<(GatewayId, Timestamp)>,
    /// When a gateway last said or asked anything of it.
    mentioned: Timestamp,
}

/// What a turn is applied under.
struct Scene<'a> {
    turn: &'a LimitTurn,
    shares: BTreeMap<GatewayId, Shares>,
    now: Timestamp,
    index: u64,
}

impl Partition {
    pub(super) fn apply(&mut self, turn: &LimitTurn, members: &Members, now: Timestamp) -> LimitReply {
        let index = turn.window.index(now);
        let scene = Scene {
            turn,
            shares: members.shares(turn.allows, turn.window, index),
            now,
            index,
        };
        let last = self.sequences.entry(turn.gateway).or_default();
        let again = turn.sequence <= *last;
        *last = turn.sequence.max(*last);
        let keys = if again {
            Vec::new()
        } else {
            turn.keys.iter().map(|key| self.key(key, &scene)).collect()
        };
        self.release(&scene);
        self.reply(turn, keys, now)
    }

    pub(super) fn count(&self, key: Key, turn: &LimitTurn, members: &Members, now: Timestamp) -> u64 {
        let index = turn.window.index(now);
        let scene = Scene {
            turn,
            shares: members.shares(turn.allows, turn.window, index),
            now,
            index,
        };
        self.keys.get(&key).map_or(0, |pooled| {
            pooled.counts.used(turn.window, now) + scene.reserve(&pooled.reported).0
        })
    }

    fn key(&mut self, asked: &KeyTurn, scene: &Scene<'_>) -> KeyReply {
        self.make_room(asked.key, scene);
        let pooled = self.keys.entry(asked.key).or_default();
        pooled.counts = pooled.counts.turned_to(scene.index);
        pooled.mentioned = scene.now;
        pooled.settle(asked, scene);
        pooled.note_asker(asked, scene);
        let left = remaining(
            scene.turn.allows,
            pooled.counts,
            scene.reserve(&pooled.reported),
            scene.turn.window,
            scene.now,
        );
        let granted = pooled.grant(asked.ask, left);
        pooled.counts.cur += granted;
        let life = if left - granted > granted {
            scene.turn.window.length() / 10
        } else {
            SHORT_LIFE
        };
        let (reserved, _) = scene.reserve(&pooled.reported);
        let limit = scene.turn.allows.saturating_sub(reserved);
        KeyReply {
            granted,
            valid_until: scene.turn.window.end(scene.now).min(scene.now + life.max(SHORT_LIFE)),
            remaining: left - granted,
            wait: pooled
                .counts
                .wait(scene.turn.window, limit, 1, scene.now)
                .unwrap_or(scene.turn.window.length()),
            covered: pooled.counts.used(scene.turn.window, scene.now) <= scene.turn.allows,
            reported: pooled.reported.contains(&scene.turn.gateway),
        }
    }

    /// A new key gets a place: of those idle, else that of the least used of a few. A key that is used up has the
    /// most use, so a flood of new keys cannot make the store forget it.
    fn make_room(&mut self, key: Key, scene: &Scene<'_>) {
        if self.keys.contains_key(&key) {
            return;
        }
        if self.keys.len() >= KEYS_MAX {
            let use_of = |key: &Key| self.keys[key].counts.used(scene.turn.window, scene.now);
            let sample = self.idle.iter().take(SAMPLE).filter(|key| self.keys.contains_key(key));
            if let Some(least) = sample.min_by_key(|key| use_of(key)).copied() {
                self.keys.remove(&least);
                self.push_log(least, false);
            }
            self.idle.rotate_left(SAMPLE.min(self.idle.len()));
        }
        self.idle.push_back(key);
        self.push_log(key, true);
    }

    /// Looks whether a few keys are idle: used in neither window and not mentioned for one, so that free shares may
    /// count for them again.
    fn release(&mut self, scene: &Scene<'_>) {
        for _ in 0..RELEASED_PER_TURN.min(self.idle.len()) {
            let Some(key) = self.idle.pop_front() else { return };
            let Some(pooled) = self.keys.get(&key) else { continue };
            let counts = pooled.counts.turned_to(scene.index);
            let silent = scene.now.since(pooled.mentioned) > scene.turn.window.length();
            if counts.prev == 0 && counts.cur == 0 && silent {
                self.keys.remove(&key);
                self.push_log(key, false);
            } else {
                self.idle.push_back(key);
            }
        }
    }

    fn push_log(&mut self, key: Key, pooled: bool) {
        self.log.push_back((key, pooled));
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
            self.log_start += 1;
        }
    }

    fn reply(&self, turn: &LimitTurn, keys: Vec<KeyReply>, now: Timestamp) -> LimitReply {
        let from_the_start = turn.cursor < self.log_start;
        let log = if from_the_start {
            self.keys.keys().map(|key| (*key, true)).collect()
        } else {
            let known = usize::try_from(turn.cursor - self.log_start).unwrap_or(usize::MAX);
            self.log.iter().skip(known).copied().collect()
        };
        LimitReply {
            now,
            keys,
            log,
            cursor: self.log_start + self.log.len() as u64,
            from_the_start,
        }
    }
}

impl Pooled {
    /// Counts what a gateway has used and not yet told, and what it gives back.
    fn settle(&mut self, asked: &KeyTurn, scene: &Scene<'_>) {
        if let Some(report) = asked.report {
            let report = report.turned_to(scene.index);
            self.counts.prev += report.prev;
            self.counts.cur += report.cur;
            if !self.reported.contains(&scene.turn.gateway) {
                self.reported.push(scene.turn.gateway);
            }
        }
        self.counts.cur += asked.overdraft;
        if let Some((index, unspent)) = asked.give_back {
            if index == scene.index {
                self.counts.cur = self.counts.cur.saturating_sub(unspent);
            } else if index + 1 == scene.index {
                self.counts.prev = self.counts.prev.saturating_sub(unspent);
            }
        }
    }

    fn note_asker(&mut self, asked: &KeyTurn, scene: &Scene<'_>) {
        self.askers
            .retain(|(gateway, at)| *gateway != scene.turn.gateway && scene.now.since(*at) < ASKING);
        if asked.ask > 0 {
            self.askers.push((scene.turn.gateway, scene.now));
        }
    }

    /// What is left is split among those who ask for it; one who asks alone may have it all.
    fn grant(&self, ask: u64, left: u64) -> u64 {
        let part = left.div_ceil((self.askers.len() as u64).max(1));
        ask.min(part)
    }
}

impl Scene<'_> {
    /// What must be kept back for gateways that have not said what they used, now and at the end of the window.
    fn reserve(&self, reported: &[GatewayId]) -> (u64, u64) {
        let silent = self.shares.iter().filter(|(gateway, _)| !reported.contains(gateway));
        silent
            .map(|(_, shares)| shares.reserve(self.turn.window, self.now))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}
