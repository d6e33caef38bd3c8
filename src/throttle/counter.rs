//! The counts of one limit on this gateway: the sketch for all keys, and the hot table for those that outgrew it.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::drive::Calls;
use super::fleet_clock::FleetClock;
use super::hot::{HotKey, HotSpend, Renewal};
use super::limit::{Decision, Receipt};
use super::line::Line;
use super::overshoot::Overshoot;
use super::partition::Partition;
use super::view::Seen;
use super::{LimitRule, Settings, Throttles};
use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::base::name::Name;
use crate::limiter::share::Shares;
use crate::limiter::sketch::Sketch;
use crate::limiter::terms::Terms;
use crate::limiter::window::{Counts, Window};
use crate::store::limits::{Fleet, GatewayId};
use crate::telemetry::metrics::METRICS;

/// Most requests of a limit that wait for the store at once; the next one is limited.
pub(super) const WAITING_MAX: usize = 10_000;

/// How a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// On the sketch, in this window.
    Cold(u64),
    /// From this lot of a hot key's budget.
    Hot(u64),
    /// Ahead of the budget of a hot key.
    Ahead,
    /// Not at all: the store did not answer, and the rule admits.
    Uncounted,
}

/// The frame that counts now, with this gateway's free shares in it and in the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) terms: Terms,
    /// Those of the terms, worked out.
    pub(super) frames: Window,
    pub(super) index: u64,
    pub(super) shares: Shares,
    /// Since when it has its share in this frame, if not from the start.
    joined: Option<Timestamp>,
    /// It came while this frame or the one before was under way.
    pub(super) newcomer: bool,
    /// What this gateway may admit ahead of any grant: its share of the tolerance, in both windows.
    overdraft: u64,
    /// None where a grant cannot prolong what is there.
    pub(super) renewal: Renewal,
    /// What every count on the sketch shows too much.
    pub(super) noise: Counts,
}

/// Counts of one limit.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) name: Name,
    pub(super) gateway: GatewayId,
    pub(super) settings: Settings,
    /// As it is now; how it counts never changes.
    rule: Mutex<LimitRule>,
    pub(super) clock: Arc<FleetClock>,
    pub(super) fleet: Arc<ArcSwap<Fleet>>,
    pub(super) urgent: Arc<Notify>,
    frame: ArcSwap<Frame>,
    /// The window whose slots of the sketch are empty; held while a window is turned.
    cleared: Mutex<u64>,
    pub(super) sketch: Sketch,
    pub(super) hot: HotTable,
    /// Counts insertions into the hot table, for requests that looked a moment too early.
    pub(super) pooled: AtomicU64,
    pub(super) hot_count: AtomicUsize,
    pub(super) partitions: Box<[Partition]>,
    /// What it may still ask of the store, all partitions together.
    calls: Mutex<Calls>,
    /// They were used up when turns last set out.
    pub(super) short_of_calls: AtomicBool,
    waiting: AtomicUsize,
    /// Those who are held until there is budget.
    pub(super) line: Line,
    pub(super) seen: Seen,
    pub(super) overshoot: Overshoot,
    cut_off: Arc<AtomicBool>,
    pub(super) hot_gauge: IntGauge,
    pub(super) overdrafts: IntCounter,
    pub(super) stranded: IntCounter,
}

/// Exact entries by key.
pub(super) type HotTable = papaya::HashMap<Key, Arc<HotKey>, BuildHasherDefault<AlreadyHashed>>;

impl Counter {
    pub(super) fn new(throttles: &Throttles, rule: &LimitRule) -> Self {
        let settings = throttles.settings;
        let label = [rule.name.as_str()];
        let now = throttles.clock.now();
        let terms = rule.terms(now);
        let index = terms.frames().index(now);
        let counter = Self {
            name: rule.name.clone(),
            gateway: throttles.gateway,
            settings,
            rule: Mutex::new(rule.clone()),
            clock: Arc::clone(&throttles.clock),
            fleet: Arc::clone(&throttles.fleet),
            urgent: Arc::clone(&throttles.urgent),
            frame: ArcSwap::from_pointee(Frame {
                terms,
                frames: terms.frames(),
                index,
                shares: Shares::default(),
                joined: None,
                newcomer: false,
                overdraft: 0,
                renewal: Renewal::default(),
                noise: Counts::default(),
            }),
            cleared: Mutex::new(index),
            sketch: Sketch::new(settings.cold_slots),
            hot: HotTable::default(),
            pooled: AtomicU64::new(0),
            hot_count: AtomicUsize::new(0),
            partitions: (0..settings.partitions.max(1)).map(|_| Partition::default()).collect(),
            calls: Mutex::new(Calls::new(
                usize::from(settings.partitions.max(1)),
                settings.pace,
                throttles.clock.local(),
            )),
            short_of_calls: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            line: Line::new(METRICS.throttle_held.with_label_values(&label)),
            seen: Seen::new(now),
            overshoot: Overshoot::default(),
            cut_off: Arc::clone(&throttles.cut_off),
            hot_gauge: METRICS.throttle_hot_keys.with_label_values(&label),
            overdrafts: METRICS.throttle_overdraft_total.with_label_values(&label),
            stranded: METRICS.throttle_stranded_total.with_label_values(&label),
        };
        counter.set_rule(rule);
        counter
    }

    pub(super) fn set_rule(&self, rule: &LimitRule) {
        let before = std::mem::replace(&mut *self.rule(), rule.clone());
        self.refresh_shares();
        if before.capacity() != rule.capacity() || before.rate != rule.rate {
            // What the store had under the other rule says nothing of what it has under this one.
            self.hot.pin().values().for_each(|entry| entry.look_again());
        }
    }

    /// Whether what is counted here means the same under another rule.
    pub(super) fn counts_like(&self, rule: &LimitRule) -> bool {
        let now = self.now();
        let own = self.rule();
        own.counting == rule.counting && own.terms(now).shape() == rule.terms(now).shape()
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rule(&self) -> MutexGuard<'_, LimitRule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_spend(&self, key: Key, cost: u64, now: Timestamp) -> Decision {
        let frame = self.frame(now);
        // A clock that is set back a little does not reopen a window that is over.
        let now = now.max(frame.terms.frames().start(frame.index));
        loop {
            let pooled = self.pooled.load(Ordering::SeqCst);
            let has_share = self.has_share(&frame, key);
            if let Some(hot) = self.hot.pin().get(&key) {
                return self.spend_hot(key, hot, cost, now);
            }
            if !has_share {
                return Decision::Draw;
            }
            let own = self.sketch.add(key.0, cost, frame.index).without(frame.noise);
            if !frame.shares.suffice(own, &frame.terms, now) {
                self.sketch.take_back(key.0, cost, frame.index);
                return Decision::Draw;
            }
            // A key that was pooled between the look into the hot table and the count on the sketch has perhaps
            // been reported without this request. The other side inserts, counts `pooled` up, and then reads the
            // sketch; so if `pooled` is unchanged here, behind the fence of the count, that reading is yet to come and
            // will see the count.
            if self.pooled.load(Ordering::SeqCst) != pooled && self.hot.pin().contains_key(&key) {
                self.sketch.take_back(key.0, cost, frame.index);
                continue;
            }
            let used = frame.terms.weigh(own, now);
            if used > frame.shares.usable(&frame.terms, now) / 2 {
                self.announce(key);
            }
            let remaining = frame.terms.capacity().saturating_sub(used);
            return spent(Path::Cold(frame.index), &frame.terms, remaining, now);
        }
    }

    fn spend_hot(&self, key: Key, hot: &HotKey, cost: u64, now: Timestamp) -> Decision {
        let frame = self.frame(now);
        let short = self.short_of_calls.load(Ordering::Relaxed);
        match hot.spend(cost, frame.overdraft, short, now) {
            HotSpend::Budget(lot) => {
                if hot.runs_low(cost) || hot.ends_soon(&frame.renewal, now) {
                    self.touch(key, hot);
                }
                spent(Path::Hot(lot), &frame.terms, hot.remaining(), now)
            }
            HotSpend::Overdraft => {
                hot.count(frame.index, cost);
                self.overdrafts.inc_by(cost);
                self.touch(key, hot);
                spent(Path::Ahead, &frame.terms, 0, now)
            }
            HotSpend::Limited(retry_after) => Decision::Limited { retry_after },
            HotSpend::Dry => Decision::Draw,
            HotSpend::Overrun => {
                self.touch(key, hot);
                Decision::Limited {
                    retry_after: self.settings.pace,
                }
            }
        }
    }

    /// Admits what this gateway's own share of the limit allows, for as long as nobody can tell more. What it drew
    /// before counts. A pooled key's spending is told to the store when that is back.
    pub(super) fn spend_locally(&self, key: Key, cost: u64, now: Timestamp) -> Decision {
        let frame = self.frame(now);
        let terms = &frame.terms;
        let share = (terms.capacity() / self.fleet.load().size()).max(1);
        let hot = self.hot.pin().get(&key).cloned();
        let mut own = self.sketch.read(key.0, frame.index).without(frame.noise);
        if let Some(hot) = &hot {
            own = own.plus(hot.own(frame.index));
        }
        let used = terms.weigh_alone(own, now).saturating_add(cost);
        if used > share {
            return Decision::Limited {
                retry_after: terms.wait_alone(own, share, cost, now),
            };
        }
        let path = match &hot {
            Some(hot) => {
                hot.spend_untold(frame.index, cost);
                self.touch(key, hot);
                Path::Ahead
            }
            None => {
                self.sketch.add(key.0, cost, frame.index);
                Path::Cold(frame.index)
            }
        };
        spent(path, terms, share - used, now)
    }

    pub(super) fn give_back(&self, key: Key, cost: u64, path: Path) {
        match path {
            // A key that was pooled meanwhile has been reported with this cost, so it is budget now.
            Path::Cold(index) => match self.hot.pin().get(&key) {
                Some(hot) => hot.give_back_budget(cost, index),
                None => self.sketch.take_back(key.0, cost, index),
            },
            Path::Hot(lot) => {
                if let Some(hot) = self.hot.pin().get(&key) {
                    hot.give_back_budget(cost, lot);
                }
            }
            Path::Ahead => {
                if let Some(hot) = self.hot.pin().get(&key) {
                    hot.give_back_overdraft(self.frame.load().index, cost);
                }
            }
            Path::Uncounted => {}
        }
    }

    /// The frame that counts at `now`. The first to see a new one turns to it. A request that was held comes with an old
    /// `now`, and turns nothing back.
    pub(super) fn frame(&self, now: Timestamp) -> Frame {
        let frame = **self.frame.load();
        if frame.frames.index(now) <= frame.index {
            return frame;
        }
        self.turn_on(now);
        **self.frame.load()
    }

    /// Makes the frame of `now` the one that counts. Its slots have usually been cleared beforehand.
    fn turn_on(&self, now: Timestamp) {
        let mut cleared = self.turning();
        let terms = self.rule().terms(now);
        let (index, last) = (terms.frames().index(now), self.frame.load().index);
        if index <= last {
            return;
        }
        if *cleared < index {
            self.sketch.clear(index);
            *cleared = index;
        }
        if index > last + 1 {
            self.sketch.clear(index - 1);
        }
        self.frame.store(Arc::new(self.frame_of(terms, index)));
    }

    /// The same for a clock that runs backwards by more than a moment: when the fleet's is first heard of, or is set back.
    fn turn_back(&self, now: Timestamp) {
        let mut cleared = self.turning();
        let terms = self.rule().terms(now);
        let index = terms.frames().index(now);
        if index + 1 >= self.frame.load().index {
            return;
        }
        self.hot.pin().values().for_each(|entry| entry.time_went_back());
        (0..3).for_each(|ahead| self.sketch.clear(index + ahead));
        *cleared = index;
        self.frame.store(Arc::new(self.frame_of(terms, index)));
    }

    fn turning(&self) -> MutexGuard<'_, u64> {
        self.cleared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame_of(&self, terms: Terms, index: u64) -> Frame {
        let (fleet, frames) = (self.fleet.load(), terms.frames());
        let tolerance = (terms.capacity() as f64 * self.rule().tolerance) as u64;
        let joined = |index| fleet.joined(self.gateway, &terms, index);
        let tolerated = |index| fleet.share(self.gateway, tolerance, frames.start(index));
        Frame {
            terms,
            frames,
            index,
            shares: fleet.shares(self.gateway, &terms, index),
            joined: joined(index),
            newcomer: joined(index).or_else(|| joined(index.checked_sub(1)?)).is_some(),
            overdraft: tolerated(index).min(tolerated(index.saturating_sub(1))),
            renewal: Renewal {
                within: terms.life(true) - terms.ahead(),
                before: frames.start(index + 1) - self.leisure(&terms),
            },
            noise: self.sketch.noise(index),
        }
    }

    /// Clears the slots of the next window ahead of time, and takes in what is known of the fleet and of its time. The
    /// driver calls this every turn.
    pub(super) fn prepare(&self, now: Timestamp) {
        let last = **self.frame.load();
        if last.frames.index(now) + 1 < last.index {
            self.turn_back(now);
        }
        let frame = self.frame(now);
        self.overshoot.note(frame.index, 0, frame.terms.capacity());
        {
            let mut cleared = self.turning();
            if *cleared <= frame.index {
                self.sketch.clear(frame.index + 1);
                *cleared = frame.index + 1;
            }
        }
        self.refresh_shares();
    }

    /// A gateway that was not sure of its shares when the window began may be by now.
    fn refresh_shares(&self) {
        let _turning = self.turning();
        let frame = **self.frame.load();
        let terms = self.rule().terms(frame.frames.start(frame.index));
        let fresh = self.frame_of(terms, frame.index);
        if fresh != frame {
            self.frame.store(Arc::new(fresh));
        }
    }

    /// Whether this gateway's free shares hold in a partition. One that came while the frame was under way has first to
    /// learn which keys are pooled: of those nothing was kept back for it.
    pub(super) fn is_member(&self, frame: &Frame, partition: &Partition) -> bool {
        let caught_up = |joined: Timestamp| partition.caught_up.load(Ordering::SeqCst) >= joined.as_micros();
        frame.joined.is_none_or(caught_up)
    }

    /// Whether this gateway may count a key on its free share.
    fn has_share(&self, frame: &Frame, key: Key) -> bool {
        let partition = self.partition(key);
        !frame.newcomer || self.is_member(frame, partition) && !partition.shunned().contains(&key)
    }

    pub(super) fn frame_index(&self) -> u64 {
        self.frame.load().index
    }

    pub(super) fn wait_in_line(&self) -> Option<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let place = Place(&self.waiting);
        (before < WAITING_MAX).then_some(place)
    }

    /// How many requests wait for the store.
    pub(super) fn drawing(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The terms, in the frame that counted last.
    pub(super) fn terms(&self) -> Terms {
        self.frame.load().terms
    }

    pub(super) fn window(&self) -> Window {
        self.terms().window
    }

    pub(super) fn pace(&self) -> Duration {
        self.settings.pace
    }

    pub(super) fn store_timeout(&self) -> Duration {
        self.settings.store_timeout
    }

    /// The time of the fleet, which all windows and deadlines here are in.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }
}

/// The keys of a counter that ends are hot no more; one of the same name may go on beside it for a moment.
impl Drop for Counter {
    fn drop(&mut self) {
        let hot = *self.hot_count.get_mut();
        self.hot_gauge.sub(i64::try_from(hot).unwrap_or(i64::MAX));
    }
}

pub(super) fn spent(path: Path, terms: &Terms, remaining: u64, now: Timestamp) -> Decision {
    Decision::Spent {
        receipt: Receipt(path),
        remaining,
        reset: terms.reset(remaining, now),
    }
}

/// A place among those who wait for the store.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Keys are hashes already; hashing them again would cost as much as the look-up.
#[derive(Debug, Default)]
pub(super) struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
