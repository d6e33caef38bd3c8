//! One turn of a partition: what is said to the store, and what its answer changes here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::counter::{Counter, Frame};
use super::demand::{Outlook, Stock, USUAL_OVER};
use super::hot::{Grant, HotKey};
use super::partition::{Coupon, Inbox, Partition};
use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::limiter::ratio;
use crate::limiter::share::LITTLE_OF_SHARE;
use crate::limiter::terms::Terms;
use crate::limiter::window::Counts;
use crate::store::limits::{KeyReply, KeyTurn, LimitReply, LimitTurn, Standing, StoreFault};

/// Little is what is less than a grant, or than this part of what may come at once, as the store has it.
const SCARCE_OF_CAPACITY: u64 = 8;

/// While little remains of a key it is asked for so often in a pace, and so far ahead.
const SCARCE_OF_PACE: u32 = 4;

/// While much remains of a key, at most such a part of it is asked for beyond what is wanted now: little would remain.
const ASKED_OF_LEFT: u64 = 4;

/// A key that gets at most such a part of what it asks for is overrun: whoever waits for more is mostly refused.
const OVERRUN: u64 = 2;

/// Most keys in one turn; the rest wait for the next. While it applies a turn a server does nothing else, and it needs
/// some 8 us for a key.
const KEYS_PER_TURN: usize = 512;

/// Of these, most that are pooled, so that keys which are pooled already go on; and least of those without an entry.
const POOLED_PER_TURN: usize = 256;
const SINGLE_PER_TURN_LEAST: usize = 64;

/// Turns without anything to say, in paces, while there are other gateways to hear of: soon after news, and half as often
/// with each turn that brings none, down to what the driver says. A key that another gateway pools has this gateway's
/// share kept back until it is heard of, so that is what a newly hot key may wait for its whole limit.
const LISTEN_EVERY: u32 = 4;
const LISTEN_HALVED_MOST: u32 = 10;

/// While a limit has pooled keys here it listens at least so often.
const LISTEN_WHILE_HOT: Duration = Duration::from_secs(1);

/// Turns for which nobody waits come so often while what was asked for lasts, but at most every pace and at least every
/// so many.
const LEISURE_OF_AHEAD: u32 = 3;
const LEISURE_MOST: u32 = 16;

/// Least time between turns without anything to say, while there are pooled keys that may be released.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// What a partition knows of its conversation with the store.
#[derive(Debug, Default)]
pub(super) struct Link {
    sequence: u64,
    /// The store's life that was last heard of, and how far its log was read.
    epoch: u64,
    cursor: u64,
    /// What was read of each key, until the log's end is reached: before that it may be outdated.
    news: BTreeMap<Key, bool>,
    /// The log goes on; and what was read is not what happened but all that is pooled.
    behind: bool,
    missed: bool,
    /// The store's time when it was last read to its end.
    heard: Timestamp,
    /// Keys that have to be spoken of before all is said in that life.
    unsaid: HashSet<Key>,
    last: Timestamp,
    /// Turns in a row that brought no news; as many as matter.
    quiet: u32,
    /// The last turn got no answer.
    failed: bool,
    /// Sent and not answered: sent again with the same number, so that it is applied once.
    pending: Option<Outgoing>,
    /// Keys that hold budget, to be given back when it expires.
    granted: Vec<Key>,
    /// When the first of it is to go back, at the earliest.
    returns: Timestamp,
}

/// A turn on its way, and which of its keys have no entry here.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// What is sent.
    pub turn: LimitTurn,
    single: usize,
}

impl Link {
    /// Whether the last turn failed, or is unanswered and the first in a while.
    pub(super) fn awaits_answer(&self, first: bool) -> bool {
        self.failed || first && self.pending.is_some()
    }
}

impl Counter {
    /// Whether a partition should take a turn now. Where there are other gateways, one of a limit with no pooled keys
    /// listens to them every `listen`.
    pub(super) fn is_due(&self, partition: &Partition, listen: Option<Duration>, now: Timestamp) -> bool {
        let mut link = partition.link();
        // Should the clock have been set back, nothing would be due until it shows again what it showed.
        link.last = link.last.min(now);
        let since = now.since(link.last);
        let inbox = partition.inbox();
        if inbox.urgent {
            return true;
        }
        let catching_up = !self.is_member(&self.frame(now), partition) || !link.unsaid.is_empty();
        let soon = !inbox.announced.is_empty()
            || !inbox.single.is_empty()
            || link.pending.is_some()
            || catching_up
            || link.behind;
        let later = !inbox.touched.is_empty();
        let soon = soon || !link.granted.is_empty() && link.returns <= now;
        let has_hot = self.hot_count.load(Ordering::Relaxed) > 0;
        let listens = self.settings.pace * (LISTEN_EVERY << link.quiet);
        let most = |idle: Duration| if has_hot { LISTEN_WHILE_HOT } else { idle };
        let listening = listen.is_some_and(|idle| since >= listens.min(most(idle)));
        let tidying = has_hot && since >= self.terms().frames().length().max(TIDY_EVERY);
        soon && since >= self.settings.pace || later && since >= self.leisure(&self.terms()) || listening || tidying
    }

    /// Between turns for which nobody waits: what runs low is asked for early enough, and the longer budget lives the
    /// less it matters when the rest of it comes back.
    pub(super) fn leisure(&self, terms: &Terms) -> Duration {
        let pace = self.settings.pace;
        (terms.ahead() / LEISURE_OF_AHEAD).clamp(pace, pace * LEISURE_MOST)
    }

    /// Gathers what a partition has to say. Nothing is gathered while an earlier turn is unanswered.
    pub(super) fn compose(&self, number: usize, now: Timestamp) -> Outgoing {
        let partition = &self.partitions[number];
        let mut link = partition.link();
        link.last = now;
        if let Some(pending) = &mut link.pending {
            // What it says of keys stays as it was; what it is counted under is what holds now.
            pending.turn.terms = self.terms();
            pending.turn.fleet = self.fleet.load_full();
            partition.inbox().urgent = false;
            return pending.clone();
        }
        let (inbox, all_announced) = self.take_inbox(partition);
        self.stranded
            .inc_by(inbox.coupons.values().map(|coupon| coupon.granted).sum());
        let mut keys = self.report(partition, &inbox, now);
        if all_announced {
            partition.caught_up.store(link.heard.as_micros(), Ordering::SeqCst);
        }
        self.collect(&mut link, &inbox, now, &mut keys);
        let single = inbox.single.iter().map(|(key, cost)| KeyTurn {
            ask: *cost,
            ..silent(*key)
        });
        let before = keys.len();
        keys.extend(single);
        // A limit whose rule changed begins anew under the same name. It must not count from where it began before: the
        // store would take its turns for old ones.
        link.sequence = link.sequence.max(self.clock.local().as_micros()) + 1;
        let turn = LimitTurn {
            gateway: self.gateway,
            sequence: link.sequence,
            limit: self.name.clone(),
            terms: self.frame(now).terms,
            partition: number as u16,
            epoch: link.epoch,
            said_all: link.unsaid.is_empty(),
            cursor: link.cursor,
            fleet: self.fleet.load_full(),
            keys,
        };
        let outgoing = Outgoing {
            single: turn.keys.len() - before,
            turn,
        };
        link.pending = Some(outgoing.clone());
        outgoing
    }

    /// What is said in this turn, and whether that is all of the keys that are to be pooled.
    fn take_inbox(&self, partition: &Partition) -> (Inbox, bool) {
        let mut inbox = partition.inbox();
        let mut taken = std::mem::take(&mut *inbox);
        // What does not fit stays for the next turn, in the order in which it came.
        if let Some(first) = taken.announced.keys().nth(POOLED_PER_TURN).copied() {
            inbox.announced = taken.announced.split_off(&first);
        }
        let room = KEYS_PER_TURN - taken.announced.len();
        inbox.touched = taken.touched.split_off(room.min(taken.touched.len()));
        let room = (room - taken.touched.len()).max(SINGLE_PER_TURN_LEAST);
        inbox.single = taken.single.split_off(room.min(taken.single.len()));
        (taken, inbox.announced.is_empty())
    }

    /// Moves announced keys into the hot table, as many as fit, and says what the sketch knows of them. The order
    /// matters: entry first, then the sign that requests look for, then the reading.
    fn report(&self, partition: &Partition, inbox: &Inbox, now: Timestamp) -> Vec<KeyTurn> {
        self.shun(partition, inbox, now);
        let pooled: Vec<_> = inbox
            .announced
            .iter()
            .filter(|(key, _)| self.pool(**key, now))
            .collect();
        if pooled.is_empty() {
            return Vec::new();
        }
        self.pooled.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let turn = |(key, wanted): (&Key, &bool)| KeyTurn {
            report: Some(self.used_of_share(*key, now)),
            ask: if *wanted { self.first_ask() } else { 0 },
            ..silent(*key)
        };
        pooled.into_iter().map(turn).collect()
    }

    /// Notes the keys that were pooled before this gateway joined and have no place here.
    fn shun(&self, partition: &Partition, inbox: &Inbox, now: Timestamp) {
        let frame = self.frame(now);
        let has_joined = frame.shares.cur > 0;
        if has_joined && !frame.newcomer {
            *partition.shunned() = HashSet::new();
        } else if !has_joined || !self.is_member(&frame, partition) {
            let places = self
                .settings
                .hot_keys
                .saturating_sub(self.hot_count.load(Ordering::Relaxed));
            partition.shunned().extend(inbox.announced.keys().skip(places));
        }
    }

    fn used_of_share(&self, key: Key, now: Timestamp) -> Counts {
        let frame = self.frame(now);
        self.sketch.read(key.0, frame.index).without(frame.noise)
    }

    /// How much of a key to ask for. While little remains, what one gateway holds and does not spend is refused at
    /// another, so then it is what is wanted now and little more.
    fn outlook(&self, entry: &HotKey, now: Timestamp) -> Outlook {
        let (frame, pace) = (self.frame(now), self.settings.pace);
        let ahead = pace.max(frame.terms.ahead());
        let scarce = Outlook {
            ahead: pace / SCARCE_OF_PACE,
            usual_over: ahead * USUAL_OVER,
            most: frame.terms.capacity(),
            capacity: frame.terms.capacity(),
            stock: None,
        };
        if entry.is_scarce() {
            return scarce;
        }
        Outlook {
            ahead,
            most: entry.left_there() / ASKED_OF_LEFT,
            stock: (frame.renewal.within > Duration::ZERO).then(|| self.stock(entry, &frame)),
            ..scarce
        }
    }

    /// All that gateways hold of a key in vain is at most half of what remains of it. Of keys that the store would let go,
    /// because so little of them is used, nothing is held: it would count as use.
    fn stock(&self, entry: &HotKey, frame: &Frame) -> Stock {
        let gateways = self.fleet.load().size();
        let seconds = frame.frames.length().as_secs_f64();
        let little = frame.shares.prev.min(frame.shares.cur) / LITTLE_OF_SHARE;
        Stock {
            margin: entry.left_there() / gateways / 2,
            above: (1_000.0 * little as f64 / gateways as f64 / seconds) as u64,
        }
    }

    /// A first ask, before anything is known of the demand: as if it were just the limit, and as if all gateways asked.
    fn first_ask(&self) -> u64 {
        let (terms, length) = (self.terms(), self.window().length());
        let ahead = self.settings.pace.max(terms.ahead()).min(length);
        let wanted = ratio::ceil(terms.allows, ahead.as_micros() as u64, length.as_micros() as u64);
        wanted.div_ceil(self.fleet.load().size()).min(terms.capacity())
    }

    /// Gives a key an entry; `false` when it has one, or when the table is full.
    fn pool(&self, key: Key, now: Timestamp) -> bool {
        let hot = self.hot.pin();
        if hot.contains_key(&key) || self.hot_count.load(Ordering::Relaxed) >= self.settings.hot_keys {
            return false;
        }
        hot.insert(key, Arc::new(HotKey::new(now)));
        self.hot_count.fetch_add(1, Ordering::Relaxed);
        self.hot_gauge.inc();
        true
    }

    /// What hot keys have to say: overdraft, budget that expired, and what they need next.
    fn collect(&self, link: &mut Link, inbox: &Inbox, now: Timestamp, keys: &mut Vec<KeyTurn>) {
        let hot = self.hot.pin();
        for key in &inbox.touched {
            link.unsaid.remove(key);
            if let Some(entry) = hot.get(key) {
                entry.unqueue();
                keys.push(self.say(*key, entry, now));
            }
        }
        let mut returns = now + self.terms().frames().length();
        link.granted.retain(|key| {
            let Some(entry) = hot.get(key) else { return false };
            if keys.len() >= KEYS_PER_TURN {
                returns = now;
                return true;
            }
            if entry.has_expired(now) {
                keys.push(self.say(*key, entry, now));
            }
            let holds = entry.holds_budget();
            if holds {
                returns = returns.min(self.returns(entry));
            }
            holds
        });
        link.returns = returns;
    }

    /// When a key's budget should go back if it is not spent: at once where others may be refused for want of it.
    fn returns(&self, entry: &HotKey) -> Timestamp {
        let lag = if entry.is_scarce() {
            Duration::ZERO
        } else {
            self.leisure(&self.terms()) - self.settings.pace
        };
        entry.valid_until() + lag
    }

    /// All there is to say of a hot key.
    fn say(&self, key: Key, entry: &HotKey, now: Timestamp) -> KeyTurn {
        let give_back = entry.take_expired(&self.terms(), now);
        let overdraft = entry.take_untold();
        let turn = KeyTurn {
            ask: entry.ask(&self.outlook(entry, now), &self.frame(now).renewal, now),
            ..silent(key)
        };
        if !entry.take_unreported() {
            return KeyTurn {
                overdraft,
                give_back,
                ..turn
            };
        }
        // The store knows of nothing that was drawn, so nothing is given back and no overdraft is told apart.
        let drawn = entry.own(self.frame(now).index);
        KeyTurn {
            report: Some(self.used_of_share(key, now).plus(drawn)),
            ..turn
        }
    }

    /// Takes in the store's answer, or that there was none.
    pub(super) fn take_in(&self, number: usize, reply: Result<LimitReply, StoreFault>, now: Timestamp) {
        let partition = &self.partitions[number];
        partition.link().failed = reply.is_err();
        if let Ok(reply) = reply {
            let mut link = partition.link();
            if let Some(sent) = link.pending.take() {
                self.hear_epoch(&mut link, reply.epoch, partition, number);
                link.cursor = reply.cursor;
                link.quiet = if reply.log.is_empty() {
                    (link.quiet + 1).min(LISTEN_HALVED_MOST)
                } else {
                    0
                };
                self.hear_log(&mut link, &reply, &sent);
                self.stranded.inc_by(lost(&sent.turn, &reply));
                self.take_grants(&mut link, &sent, &reply, now);
            }
        }
        partition.wake();
    }

    /// A store in another life has forgotten everything: it is told again, of every key that is hot here.
    fn hear_epoch(&self, link: &mut Link, epoch: u64, partition: &Partition, number: usize) {
        let before = std::mem::replace(&mut link.epoch, epoch);
        if before == epoch || before == 0 {
            return;
        }
        link.news.clear();
        link.missed = false;
        let hot = self.hot.pin();
        let here = hot.iter().filter(|(key, _)| self.partition_of(**key) == number);
        for (key, entry) in here {
            entry.report_again();
            link.unsaid.insert(*key);
            if entry.queue() {
                partition.inbox().touched.push(*key);
            }
        }
    }

    /// Keys that others have pooled are taken in at the next turn; those that the store released may live on free
    /// shares again. What this very turn reported came after everything in the log.
    fn hear_log(&self, link: &mut Link, reply: &LimitReply, sent: &Outgoing) {
        link.news.extend(reply.log.iter().copied());
        // Of a life that forgot everything it is told again what is hot here.
        link.missed |= reply.missed && sent.turn.epoch == reply.epoch;
        link.behind = reply.more;
        if reply.more {
            return;
        }
        link.heard = reply.now;
        let number = usize::from(sent.turn.partition);
        let partition = &self.partitions[number];
        let mut news = std::mem::take(&mut link.news);
        if std::mem::take(&mut link.missed) {
            self.forget_all_but(&news, number);
        }
        let reported = sent.turn.keys.iter().filter(|turn| turn.report.is_some());
        for turn in reported {
            news.remove(&turn.key);
        }
        for (key, pooled) in news {
            if pooled {
                if !self.hot.pin().contains_key(&key) {
                    partition.inbox().announced.entry(key).or_insert(false);
                }
            } else {
                partition.inbox().announced.remove(&key);
                partition.shunned().remove(&key);
                self.forget(&key);
            }
        }
    }

    fn forget(&self, key: &Key) {
        if let Some(entry) = self.hot.pin().remove(key) {
            self.cool(*key, entry);
            self.hot_count.fetch_sub(1, Ordering::Relaxed);
            self.hot_gauge.dec();
        }
    }

    /// What a key used while it was hot counts against its free share again.
    fn cool(&self, key: Key, entry: &HotKey) {
        let index = self.frame_index();
        let own = entry.own(index);
        self.sketch.add(key.0, own.cur, index);
        if let Some(before) = index.checked_sub(1) {
            self.sketch.add(key.0, own.prev, before);
        }
    }

    /// Part of the log was missed: whatever key of the partition is not in it has been released meanwhile.
    fn forget_all_but(&self, news: &BTreeMap<Key, bool>, number: usize) {
        let hot = self.hot.pin();
        let here = hot.keys().filter(|key| self.partition_of(**key) == number);
        let gone: Vec<_> = here.filter(|key| !news.contains_key(key)).copied().collect();
        for key in gone {
            self.forget(&key);
        }
    }

    fn take_grants(&self, link: &mut Link, sent: &Outgoing, reply: &LimitReply, now: Timestamp) {
        self.seen
            .note_granted(reply.keys.iter().map(|answer| answer.granted).sum());
        let hot = self.hot.pin();
        let entries = sent.turn.keys.len() - sent.single;
        for (asked, answer) in sent.turn.keys.iter().zip(&reply.keys).take(entries) {
            if let Some(entry) = hot.get(&asked.key) {
                if answer.standing == Standing::Unreported {
                    // What was drawn before is reported with the rest, and this would be counted twice.
                    self.stranded.inc_by(answer.granted);
                    entry.report_again();
                    self.touch(asked.key, entry);
                    continue;
                }
                let stranded = entry.granted(&self.grant(asked, answer, entry, reply.now), now);
                self.stranded.inc_by(stranded);
                if answer.granted > 0 {
                    link.granted.push(asked.key);
                    link.returns = link.returns.min(self.returns(entry));
                }
                let frame = self.frame(now);
                self.overshoot.note(frame.index, answer.excess, frame.terms.capacity());
                if answer.standing == Standing::NotPooled {
                    self.forget(&asked.key);
                }
            }
        }
        link.granted.sort_unstable_by_key(|key| key.0);
        link.granted.dedup();
        let single = sent.turn.keys.iter().zip(&reply.keys).skip(entries);
        let mut coupons = HashMap::new();
        for (asked, answer) in single {
            let coupon: &mut Coupon = coupons.entry(asked.key).or_default();
            coupon.granted += answer.granted;
            coupon.valid_until = answer.valid_until;
            coupon.free_at = now + answer.wait;
        }
        self.partitions[usize::from(sent.turn.partition)].inbox().coupons = coupons;
    }

    /// When less was granted than asked for, the store is left alone until a fair lot has come together: asking
    /// for every single one as it comes would cost a call each. Where they come more seldom than that, it would not.
    fn grant(&self, asked: &KeyTurn, answer: &KeyReply, entry: &HotKey, now: Timestamp) -> Grant {
        let dry = answer.granted < asked.ask && answer.remaining == 0;
        let lot = self.settings.pace / SCARCE_OF_PACE;
        let seldom = entry.demand().lately().saturating_mul(lot.as_micros() as u64) < 1_000_000;
        let rest = if seldom { answer.wait } else { answer.wait.max(lot) };
        let terms = self.frame(now).terms;
        let until = |holds: bool, end: Timestamp| if holds { end } else { Timestamp::default() };
        // Whoever is refused until then has the next turn ask.
        let next_turn = now + self.leisure(&terms) + self.settings.pace;
        Grant {
            budget: answer.granted,
            lot: terms.lot(now, answer.valid_until),
            frame: terms.frames().index(now),
            valid_until: answer.valid_until - self.clock.uncertainty(),
            remaining: answer.remaining,
            wait: answer.wait,
            saturated_until: until(dry, now + rest.min(entry.looks_again_in())),
            // Where nothing is left, what is kept back for gateways that are silent may be used as well.
            covered: answer.excess == 0 && (answer.granted > 0 || answer.remaining > 0),
            dry_until: until(dry, next_turn),
            overrun_until: until(dry && !seldom && asked.ask / OVERRUN >= answer.granted, next_turn),
            scarce: answer.remaining <= answer.granted.max(terms.capacity() / SCARCE_OF_CAPACITY),
            may_join: !terms.mixes_lots(),
        }
    }
}

/// What was granted in an answer that nobody heard, at most: a turn that was applied before is answered without keys, and
/// so is one of another life, in which nothing was granted.
fn lost(turn: &LimitTurn, reply: &LimitReply) -> u64 {
    let applied_before = reply.keys.is_empty() && [0, reply.epoch].contains(&turn.epoch);
    let asks = turn.keys.iter().map(|key| key.ask);
    if applied_before { asks.sum() } else { 0 }
}

const fn silent(key: Key) -> KeyTurn {
    KeyTurn {
        key,
        report: None,
        overdraft: 0,
        give_back: None,
        ask: 0,
    }
}
