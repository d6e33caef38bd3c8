//! One partition of a limit: the counts of its pooled keys, who has given up a free share of them, and the log by
//! which gateways hear of keys that were pooled or released.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::limiter::share::{LITTLE_OF_SHARE, Shares};
use crate::limiter::usage::{Reserve, Usage, View};
use crate::store::limits::{Fleet, GatewayId, KeyReply, KeyTurn, LOG_READ_MAX, LimitReply, LimitTurn, Standing};

/// Most pooled keys of a partition: about 500 bytes each, so 33 MiB. A limit has 16 partitions unless told
/// otherwise.
pub const KEYS_MAX: usize = 65_536;

/// The log is cut where it is longer than twice the pooled keys and so much. Half of it is then outdated at least, so
/// looking at four entries for each that is added shortens it.
pub const LOG_SLACK: usize = 4_096;
const CUT_PER_ENTRY: usize = 4;

/// Most idle keys that one turn releases.
const RELEASED_PER_TURN: usize = 64;

/// Asked within this long, gateways share what is left of a key.
const ASKING: Duration = Duration::from_millis(150);

/// When so many gateways have reported a key, those are forgotten that are in no fleet any more: they have no share that
/// could be kept back, and would add up while the key is in use. Below that nobody is taken for gone who is only new.
const REPORTED_MANY: usize = 64;

/// A gateway that is alive usually says what it used of a newly pooled key within so long.
const HEARD_WITHIN: Duration = Duration::from_millis(1_100);

/// So long after its life began a partition waits for what every gateway knows, before it grants anything.
const YOUNG: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Partition {
    born: Timestamp,
    /// The newest that was heard of who is alive.
    fleet: Arc<Fleet>,
    /// Who is in it, or was as far back as windows matter.
    known: BTreeSet<GatewayId>,
    /// Gateways that have said all they know in this life.
    settled: BTreeSet<GatewayId>,
    keys: HashMap<Key, Pooled>,
    /// Pooled keys by the frame in which they were last in use, or until which something is owed.
    by_use: BTreeSet<(u64, Key)>,
    /// What happened, and so far as it has been cut: every pooled key is in it after whatever else is said of that key.
    log: VecDeque<(Key, bool)>,
    /// How many entries have left the log's front.
    log_start: u64,
    sequences: BTreeMap<GatewayId, u64>,
}

#[derive(Debug)]
struct Pooled {
    usage: Usage,
    /// Gateways that have given up their free share of it.
    reported: Vec<GatewayId>,
    /// Who asked lately, when, and for how much.
    askers: Vec<(GatewayId, Timestamp, u64)>,
    /// The frame in which a gateway last said or asked anything of it, or a later one until which something is owed.
    mentioned: u64,
    /// Which entry of the log says that it is pooled, counted from the first there ever was.
    logged: u64,
}

/// What a turn is applied under.
struct Scene<'a> {
    turn: &'a LimitTurn,
    shares: BTreeMap<GatewayId, Shares>,
    now: Timestamp,
    /// The frame that counts now.
    index: u64,
    /// Who uses no more of a key in two windows does not use it much: a part of the least share that a gateway has.
    little: u64,
    /// Whether anything may be granted: it is sure who is alive, and everyone has been heard.
    may_grant: bool,
    /// Who is alive.
    members: Vec<GatewayId>,
    /// Since when the fleet is what it is.
    same_since: Option<Timestamp>,
}

impl Partition {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            born: now,
            fleet: Arc::default(),
            known: BTreeSet::new(),
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
            let lately = self.fleet.lately(&turn.terms).iter();
            self.known = lately.flat_map(|(_, members)| members).copied().collect();
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
        if !turn.keys.is_empty() {
            *last = turn.sequence.max(*last);
        }
        let log_end = self.log_end();
        let keys = if again {
            Vec::new()
        } else {
            turn.keys.iter().map(|key| self.key(key, &scene)).collect()
        };
        self.release(&scene);
        self.cut_log((self.log_end() - log_end) as usize);
        self.reply(turn, keys, now)
    }

    pub(super) fn count(&self, key: Key, turn: &LimitTurn, now: Timestamp) -> u64 {
        let scene = self.scene(turn, now);
        self.keys.get(&key).map_or(0, |pooled| {
            let frames = [Some(scene.index), scene.index.checked_sub(1)];
            let joined = |gateway, index| self.fleet.joined(gateway, &turn.terms, index).is_some();
            let came_late = |gateway: &&GatewayId| frames.into_iter().flatten().any(|index| joined(**gateway, index));
            let late = scene.shares.keys().filter(came_late);
            let spoken_for: Vec<_> = pooled.reported.iter().chain(late).copied().collect();
            let view = scene.view(&spoken_for);
            let mut usage = pooled.usage.clone();
            usage.turn(&view);
            usage.count(&view)
        })
    }

    /// How many gateways a key remembers to have given up their share of it.
    #[cfg(test)]
    pub(super) fn reported_of(&self, key: Key) -> usize {
        self.keys.get(&key).map_or(0, |pooled| pooled.reported.len())
    }

    /// A life is named by the moment it began.
    fn epoch(&self) -> u64 {
        self.born.as_micros()
    }

    fn scene<'a>(&self, turn: &'a LimitTurn, now: Timestamp) -> Scene<'a> {
        let index = turn.terms.frames().index(now);
        let members = self.fleet.members(now);
        let all_heard = now.since(self.born) >= YOUNG || members.iter().all(|gateway| self.settled.contains(gateway));
        let shares = self.fleet.all_shares(&turn.terms, index);
        let least = shares.values().map(|share| share.prev.min(share.cur)).min();
        Scene {
            turn,
            shares,
            members: members.to_vec(),
            now,
            index,
            little: least.unwrap_or(0) / LITTLE_OF_SHARE,
            may_grant: all_heard && now <= self.fleet.sure_until,
            same_since: self.fleet.timeline.last().map(|(from, _)| *from),
        }
    }

    fn key(&mut self, asked: &KeyTurn, scene: &Scene<'_>) -> KeyReply {
        self.pool(asked, scene);
        let Some(pooled) = self.keys.get_mut(&asked.key) else {
            return scene.not_pooled();
        };
        pooled.usage.turn(&scene.view(&pooled.reported));
        pooled.settle(asked, scene, &self.known);
        pooled.note_asker(asked, scene);
        let reply = pooled.answer(asked, scene);
        let in_use = asked.report.is_some() || !pooled.usage.is_within(scene.little);
        let until = scene.index + pooled.usage.owed_frames(&scene.view(&pooled.reported));
        if in_use && pooled.mentioned != until {
            self.by_use.remove(&(pooled.mentioned, asked.key));
            self.by_use.insert((until, asked.key));
            pooled.mentioned = until;
        }
        reply
    }

    /// Pools a key that is not, if there is a place for it.
    fn pool(&mut self, asked: &KeyTurn, scene: &Scene<'_>) {
        if self.keys.contains_key(&asked.key) || self.keys.len() >= KEYS_MAX {
            return;
        }
        let logged = self.log_end();
        self.log.push_back((asked.key, true));
        self.by_use.insert((scene.index, asked.key));
        self.keys.insert(asked.key, Pooled::new(asked, logged, scene));
    }

    /// Lets go of a few keys that were in use in neither window, so that free shares count for them again. Whatever each
    /// gateway used of such a key, or still holds, is less than its share.
    fn release(&mut self, scene: &Scene<'_>) {
        for _ in 0..RELEASED_PER_TURN {
            match self.by_use.first() {
                Some((mentioned, key)) if mentioned + 2 <= scene.index => {
                    let key = *key;
                    self.by_use.pop_first();
                    self.keys.remove(&key);
                    self.log.push_back((key, false));
                }
                _ => return,
            }
        }
    }

    fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// Cuts the log, after so many entries were added. What is still true of what is cut off is said again at its end, so
    /// whoever reads it from its beginning hears of every pooled key.
    fn cut_log(&mut self, added: usize) {
        let most = 2 * self.keys.len() + LOG_SLACK;
        let over = self.log.len().saturating_sub(most).min(CUT_PER_ENTRY * added);
        for _ in 0..over {
            let cut = self.log.pop_front().map(|(key, _)| key);
            self.log_start += 1;
            let end = self.log_end();
            let pooled = cut.and_then(|key| Some((key, self.keys.get_mut(&key)?)));
            if let Some((key, pooled)) = pooled
                && pooled.logged == self.log_start - 1
            {
                pooled.logged = end;
                self.log.push_back((key, true));
            }
        }
    }

    fn reply(&self, turn: &LimitTurn, keys: Vec<KeyReply>, now: Timestamp) -> LimitReply {
        let known = if turn.epoch == self.epoch() { turn.cursor } else { 0 };
        let missed = known < self.log_start || known > self.log_end();
        let from = if missed { self.log_start } else { known };
        let behind = self.log.iter().skip((from - self.log_start) as usize);
        let log: Vec<_> = behind.take(LOG_READ_MAX).copied().collect();
        let cursor = from + log.len() as u64;
        LimitReply {
            now,
            epoch: self.epoch(),
            keys,
            log,
            cursor,
            more: cursor < self.log_end(),
            missed,
        }
    }
}

impl Pooled {
    fn new(asked: &KeyTurn, logged: u64, scene: &Scene<'_>) -> Self {
        let share = scene.shares.get(&scene.turn.gateway).map_or(0, |shares| shares.prev);
        let used = asked.report.map(|report| report.turned_to(scene.index).prev);
        let unused = used.map_or(0, |used| share.saturating_sub(used));
        Self {
            usage: Usage::fresh(&scene.view(&[]), unused),
            reported: Vec::new(),
            askers: Vec::new(),
            mentioned: scene.index,
            logged,
        }
    }

    /// Counts what a gateway has used and not yet told, and what it gives back. `known` are those who may have shares.
    fn settle(&mut self, asked: &KeyTurn, scene: &Scene<'_>, known: &BTreeSet<GatewayId>) {
        let gateway = scene.turn.gateway;
        if let Some(report) = asked.report {
            let mut given_up = Shares::default();
            if !self.reported.contains(&gateway) {
                if self.reported.len() >= REPORTED_MANY {
                    self.reported.retain(|gateway| known.contains(gateway));
                }
                self.reported.push(gateway);
                given_up = scene.shares.get(&gateway).copied().unwrap_or_default();
            }
            self.usage.report(report, given_up, &scene.view(&self.reported));
        }
        let view = scene.view(&self.reported);
        self.usage.overdraw(asked.overdraft, &view);
        if let Some((lot, unspent)) = asked.give_back {
            self.usage.give_back(lot, unspent, &view);
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
        let view = scene.view(&self.reported);
        let left = self.usage.left(&view);
        let granted = if scene.may_grant {
            self.grant(asked.ask, left)
        } else {
            0
        };
        let valid_until = self.usage.grant(granted, left, &view);
        KeyReply {
            granted,
            valid_until,
            remaining: left - granted,
            wait: self.wait(left - granted, &view, scene),
            excess: self.usage.excess(&view),
            standing: if self.reported.contains(&scene.turn.gateway) {
                Standing::Reported
            } else {
                Standing::Unreported
            },
        }
    }

    /// Until there is something left. What is kept back for a gateway that is alive will be there once it has spoken.
    fn wait(&self, left: u64, view: &View, scene: &Scene<'_>) -> Duration {
        let wait = if left > 0 {
            Duration::ZERO
        } else {
            self.usage.wait(view)
        };
        let is_awaited = |gateway: &&GatewayId| {
            **gateway != scene.turn.gateway && scene.shares.contains_key(gateway) && !self.reported.contains(gateway)
        };
        match scene.members.iter().find(is_awaited) {
            Some(_) => wait.min(HEARD_WITHIN),
            None => wait,
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
    /// How use is judged while all but the `reported` are silent.
    fn view(&self, reported: &[GatewayId]) -> View {
        let (terms, now) = (self.turn.terms, self.now);
        let silent = self.shares.iter().filter(|(gateway, _)| !reported.contains(gateway));
        View {
            terms,
            now,
            silent: silent.fold(Reserve::default(), |sum, (_, shares)| sum.with(*shares, &terms, now)),
            same_since: self.same_since,
        }
    }

    fn not_pooled(&self) -> KeyReply {
        let end = self.turn.terms.frames().end(self.now);
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
