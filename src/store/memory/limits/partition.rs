//! One partition of a limit: the counts of its pooled keys, who has given up a free share of them, and the log by
//! which gateways hear of keys that were pooled or released.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::limiter::share::{Shares, remaining};
use crate::limiter::window::Counts;
use crate::store::limits::{Fleet, GatewayId, KeyReply, KeyTurn, LimitReply, LimitTurn, Standing};

/// Most pooled keys of a partition: about 300 bytes each, so 20 MiB. A limit has 16 partitions unless told
/// otherwise.
pub const KEYS_MAX: usize = 65_536;

/// Log entries that are kept for gateways to catch up.
pub const LOG_MAX: usize = 2 * KEYS_MAX;

/// Most idle keys that one turn releases.
pub const RELEASED_PER_TURN: usize = 64;

/// Asked within this long, gateways share what is left of a key.
pub const ASKING: Duration = Duration::from_millis(150);

/// Budget is good for a tenth of the window, or for this long when little remains.
pub const SHORT_LIFE: Duration = Duration::from_millis(50);

/// So long after its life began a partition waits for what every gateway knows, before it grants anything.
pub const YOUNG: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Partition {
    born: Timestamp,
    /// The newest that was heard of who is alive.
    fleet: Arc<Fleet>,
    /// Gateways that have said all they know in this life.
    settled: BTreeSet<GatewayId>,
    keys: HashMap<Key, Pooled>,
    /// Pooled keys by the window in which they were last mentioned.
    by_use: BTreeSet<(u64, Key)>,
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
    /// Who asked lately, when, and for how much.
    askers: Vec<(GatewayId, Timestamp, u64)>,
    /// The window in which a gateway last said or asked anything of it.
    mentioned: u64,
}

/// What a turn is applied under.
struct Scene<'a> {
    turn: &'a LimitTurn,
    shares: BTreeMap<GatewayId, Shares>,
    now: Timestamp,
    index: u64,
    /// Whether anything may be granted: it is sure who is alive, and everyone has been heard.
    may_grant: bool,
}

impl Partition {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            born: now,
            fleet: Arc::default(),
            settled: BTreeSet::new(),
            keys: HashMap::new(),
            by_use: BTreeSet::new(),
            log: VecDeque::new(),
            log_start: 0,
            sequences: BTreeMap::new(),
        }
    }

    pub(super) fn apply(&mut self, turn: &LimitTurn, now: Timestamp) -> LimitReply {
        if turn.fleet.sure_until > self.fleet.sure_until {
            self.fleet = Arc::clone(&turn.fleet);
        }
        if turn.said_all && (turn.epoch == self.epoch() || turn.epoch == 0) {
            self.settled.insert(turn.gateway);
        }
        let scene = self.scene(turn, now);
        let epoch = self.epoch();
        let last = self.sequences.entry(turn.gateway).or_default();
        // What was said to another life is said again in this one, so none of it is counted here.
        let elsewhere = turn.epoch != 0 && turn.epoch != epoch;
        let again = turn.sequence <= *last || elsewhere;
        *last = turn.sequence.max(*last);
        let keys = if again {
            Vec::new()
        } else {
            turn.keys.iter().map(|key| self.key(key, &scene)).collect()
        };
        self.release(&scene);
        self.reply(turn, keys, now)
    }

    pub(super) fn count(&self, key: Key, turn: &LimitTurn, now: Timestamp) -> u64 {
        let scene = self.scene(turn, now);
        self.keys.get(&key).map_or(0, |pooled| {
            let silent = scene.silent(&pooled.reported);
            let shares: u64 = silent.map(|shares| shares.blended(turn.terms.window, now)).sum();
            pooled.counts.used(turn.terms.window, now) + shares
        })
    }

    /// A life is named by the moment it began.
    fn epoch(&self) -> u64 {
        self.born.as_micros()
    }

    fn scene<'a>(&self, turn: &'a LimitTurn, now: Timestamp) -> Scene<'a> {
        let index = turn.terms.window.index(now);
        let members = self.fleet.members(now);
        let all_heard = now.since(self.born) >= YOUNG || members.iter().all(|gateway| self.settled.contains(gateway));
        Scene {
            turn,
            shares: self.fleet.all_shares(turn.terms.allows, turn.terms.window, index),
            now,
            index,
            may_grant: all_heard && now <= self.fleet.sure_until,
        }
    }

    fn key(&mut self, asked: &KeyTurn, scene: &Scene<'_>) -> KeyReply {
        if !self.mention(asked.key, scene) {
            return scene.not_pooled();
        }
        let pooled = self.keys.entry(asked.key).or_default();
        pooled.counts = pooled.counts.turned_to(scene.index);
        pooled.mentioned = scene.index;
        pooled.settle(asked, scene);
        pooled.note_asker(asked, scene);
        pooled.answer(asked, scene)
    }

    /// Notes that a key was spoken of, and pools it if there is a place; `false` if there is none.
    fn mention(&mut self, key: Key, scene: &Scene<'_>) -> bool {
        match self.keys.get(&key) {
            Some(pooled) if pooled.mentioned == scene.index => return true,
            Some(pooled) => {
                self.by_use.remove(&(pooled.mentioned, key));
            }
            None if self.keys.len() >= KEYS_MAX => return false,
            None => self.push_log(key, true),
        }
        self.by_use.insert((scene.index, key));
        true
    }

    /// Lets go of a few keys that were spoken of in neither window, so that free shares count for them again.
    fn release(&mut self, scene: &Scene<'_>) {
        for _ in 0..RELEASED_PER_TURN {
            match self.by_use.first() {
                Some((mentioned, key)) if mentioned + 2 <= scene.index => {
                    let key = *key;
                    self.by_use.pop_first();
                    self.keys.remove(&key);
                    self.push_log(key, false);
                }
                _ => return,
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
        let cursor = if turn.epoch == self.epoch() { turn.cursor } else { 0 };
        let from_the_start = cursor < self.log_start;
        let log = if from_the_start {
            self.by_use.iter().map(|(_, key)| (*key, true)).collect()
        } else {
            let known = usize::try_from(cursor - self.log_start).unwrap_or(usize::MAX);
            self.log.iter().skip(known).copied().collect()
        };
        LimitReply {
            now,
            epoch: self.epoch(),
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
            .retain(|(gateway, at, _)| *gateway != scene.turn.gateway && scene.now.since(*at) < ASKING);
        if asked.ask > 0 {
            self.askers.push((scene.turn.gateway, scene.now, asked.ask));
        }
    }

    fn answer(&mut self, asked: &KeyTurn, scene: &Scene<'_>) -> KeyReply {
        let terms = scene.turn.terms;
        let reserve = scene.reserve(&self.reported);
        let left = remaining(terms.allows, self.counts, reserve, terms.window, scene.now);
        let granted = if scene.may_grant {
            self.grant(asked.ask, left)
        } else {
            0
        };
        self.counts.cur += granted;
        let life = if left - granted > granted {
            terms.window.length() / 10
        } else {
            SHORT_LIFE
        };
        let limit = terms.allows.saturating_sub(reserve.0);
        let wait = self.counts.wait(terms.window, limit, 1, scene.now);
        KeyReply {
            granted,
            valid_until: terms.window.end(scene.now).min(scene.now + life.max(SHORT_LIFE)),
            remaining: left - granted,
            wait: wait.unwrap_or(terms.window.length()),
            excess: self.counts.used(terms.window, scene.now).saturating_sub(terms.allows),
            standing: if self.reported.contains(&scene.turn.gateway) {
                Standing::Reported
            } else {
                Standing::Unreported
            },
        }
    }

    /// What is left is split among those who ask for it, in equal parts or as they ask, whichever gives more: one
    /// gateway with nearly all the load is not held to the part of one with hardly any. One who asks alone may have
    /// it all.
    fn grant(&self, ask: u64, left: u64) -> u64 {
        let equal = left.div_ceil((self.askers.len() as u64).max(1));
        let asked = self
            .askers
            .iter()
            .map(|(_, _, ask)| u128::from(*ask))
            .sum::<u128>()
            .max(1);
        let weighed = (u128::from(left) * u128::from(ask) / asked) as u64;
        ask.min(equal.max(weighed)).min(left)
    }
}

impl Scene<'_> {
    /// What must be kept back for gateways that have not said what they used, now and at the end of the window.
    fn reserve(&self, reported: &[GatewayId]) -> (u64, u64) {
        self.silent(reported)
            .map(|shares| shares.reserve(self.turn.terms.window, self.now))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn silent(&self, reported: &[GatewayId]) -> impl Iterator<Item = &Shares> {
        let silent = self.shares.iter().filter(|(gateway, _)| !reported.contains(gateway));
        silent.map(|(_, shares)| shares)
    }

    fn not_pooled(&self) -> KeyReply {
        let end = self.turn.terms.window.end(self.now);
        KeyReply {
            granted: 0,
            valid_until: self.now,
            remaining: 0,
            wait: end.since(self.now),
            excess: 0,
            standing: Standing::NotPooled,
        }
    }
}
