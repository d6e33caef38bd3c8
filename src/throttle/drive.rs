//! The loop that keeps all limits in touch with the store: windows are turned, partitions take their turns, and the
//! fleet is told that this gateway is alive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Throttles;
use super::counter::Counter;
use crate::base::clock::Timestamp;
use crate::base::resume::after_panics;
use crate::store::limits::{Fleet, StoreFault};
use crate::telemetry::metrics::METRICS;

/// How long urgent draws are gathered before they are sent together.
const GATHER: Duration = Duration::from_millis(1);

/// How often the store hears that this gateway is alive: thrice in a lease.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How often a store that did not answer is asked whether it is back, at most; a little later for some than for others,
/// so that a fleet does not ask as one.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// By how much the clocks of a cluster's servers may differ: a fifth of the shortest that budget lives.
const CLOCKS_PART_MOST: Duration = Duration::from_millis(10);

/// Turns of limits that nobody is near: of each partition so often, or of all together so many a second if that is less.
const LISTEN_EVERY_LEAST: Duration = Duration::from_secs(1);
const LISTENED_PER_SECOND: u32 = 32;

/// Calls of the store that a limit may make: `partitions` each pace, over time.
#[derive(Debug)]
pub(super) struct Calls {
    left: f64,
    most: f64,
    per_second: f64,
    last: Timestamp,
    /// Whose turn it is: when calls are short, partitions take them in rotation.
    next: usize,
}

impl Calls {
    pub(super) fn new(partitions: usize, pace: Duration, now: Timestamp) -> Self {
        let most = partitions as f64;
        Self {
            left: most,
            most,
            per_second: most / pace.as_secs_f64(),
            last: now,
            next: 0,
        }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        self.left = (self.left + now.since(self.last).as_secs_f64() * self.per_second).min(self.most);
        self.last = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

impl Throttles {
    /// Keeps the limits going until `stop` becomes true. Spawned once.
    pub async fn drive(self: Arc<Self>, stop: watch::Receiver<bool>) {
        after_panics("limits", || Arc::clone(&self).keep_going(stop.clone())).await;
    }

    async fn keep_going(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut pace = interval(self.settings.pace / 2);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive = interval(ALIVE_EVERY);
        let mut probe = interval(PROBE_EVERY + PROBE_EVERY.mul_f64(self.gateway.0 as f64 / u64::MAX as f64));
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                stopped = stop.changed() => if stopped.is_err() || *stop.borrow() { return },
                _ = alive.tick() => self.announce(),
                _ = probe.tick(), if self.is_cut_off() => self.announce(),
                _ = pace.tick() => self.turn_due(),
                () = self.urgent.notified() => {
                    sleep(GATHER).await;
                    self.turn_due();
                }
            }
        }
    }

    /// Says so in a task of its own: requests that need a turn do not wait for it. One at a time.
    fn announce(self: &Arc<Self>) {
        if !self.announcing.swap(true, Ordering::AcqRel) {
            let throttles = Arc::clone(self);
            tokio::spawn(async move {
                let _announcing = Raised(&throttles.announcing);
                throttles.say_alive().await;
            });
        }
    }

    /// Tells the store that this gateway is alive, and takes in who else is.
    pub async fn say_alive(self: &Arc<Self>) {
        let knew = self.fleet.load_full();
        let asked = self.clock.local();
        match self.timed("fleet_alive", self.store.alive(self.gateway, &knew)).await {
            Ok(fleet) => {
                self.clock.heard(asked, self.clock.local(), fleet.now);
                METRICS.fleet_gateways.set(fleet.size() as i64);
                self.tell_of_clocks(self.clock.take_parted());
                self.fleet.store(Arc::new(fleet));
                if !self.is_cut_off() || self.succeeds_now().await {
                    self.note_reached();
                }
                for limit in self.active() {
                    limit.counter().prepare(self.clock.now());
                }
            }
            Err(fault) => self.note_fault(fault),
        }
    }

    /// Takes the turn again that cut us off, if one did. A store may be several servers, and that one of them answers
    /// says nothing of the others.
    async fn succeeds_now(self: &Arc<Self>) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((counter, number)) = failed.and_then(|(counter, number)| Some((counter.upgrade()?, number))) else {
            return true;
        };
        if !counter.calls().take(self.clock.local()) || counter.partitions[number].busy.swap(true, Ordering::AcqRel) {
            return false;
        }
        let again = Arc::clone(self).turn(counter, number).await;
        matches!(again, Ok(()) | Err(StoreFault::Moving))
    }

    /// The servers of a cluster should agree on the time: budget is good until a moment that its own server names.
    fn tell_of_clocks(&self, parted: Duration) {
        METRICS.store_clock_skew_seconds.set(parted.as_secs_f64());
        let apart = parted > CLOCKS_PART_MOST;
        if apart && !self.clocks_part.swap(apart, Ordering::AcqRel) {
            log::warn!("the clocks of the store's servers differ by {parted:?}: limits give less than they may");
        }
        self.clocks_part.store(apart, Ordering::Release);
    }

    fn note_reached(&self) {
        METRICS.store_up.set(1);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.cut_off.swap(false, Ordering::AcqRel) {
            log::info!("the store answers again: limits are shared");
        }
    }

    /// Where only one partition's keys are not to be had, its turn alone has failed: it is sent again with the next pace.
    fn note_fault(&self, fault: StoreFault) {
        METRICS.store_faults_total.with_label_values(&[fault.as_str()]).inc();
        if fault == StoreFault::Moving {
            return;
        }
        METRICS.store_up.set(0);
        if !self.cut_off.swap(true, Ordering::AcqRel) {
            log::warn!("the store does not answer ({fault}): every limit does what its on_store_fault says");
        }
    }

    /// Sets out on every turn that is due and may be paid for; none waits for another.
    fn turn_due(self: &Arc<Self>) {
        // Before the store has said what time it is, its deadlines mean nothing here.
        let fleet = self.fleet.load();
        if self.is_cut_off() || fleet.timeline.is_empty() {
            return;
        }
        let (now, limits) = (self.clock.now(), self.active());
        let listen = self.listen_every(&fleet, limits.len());
        for limit in limits {
            let counter = limit.counter();
            counter.prepare(now);
            let partitions = counter.partitions.len();
            let mut calls = counter.calls();
            let mut short = false;
            let first = calls.next;
            for number in (first..partitions).chain(0..first) {
                let partition = &counter.partitions[number];
                if counter.is_due(partition, listen, now) && !partition.busy.load(Ordering::Acquire) {
                    if !calls.take(self.clock.local()) {
                        short = true;
                        break;
                    }
                    calls.next = (number + 1) % partitions;
                    partition.busy.store(true, Ordering::Release);
                    let turn = Arc::clone(self).turn(Arc::clone(counter), number);
                    tokio::spawn(async move {
                        let _noted = turn.await;
                    });
                }
            }
            counter.short_of_calls.store(short, Ordering::Relaxed);
        }
    }

    /// How often each partition of a limit that nobody is near listens to other gateways, if there are any.
    pub(super) fn listen_every(&self, fleet: &Fleet, limits: usize) -> Option<Duration> {
        let partitions = limits as u32 * u32::from(self.settings.partitions);
        let many = Duration::from_secs(1) * partitions / LISTENED_PER_SECOND;
        (fleet.size() > 1).then_some(many.max(LISTEN_EVERY_LEAST))
    }

    /// What every due partition of every limit has to say, for a test that takes the turns by hand.
    #[cfg(test)]
    pub(crate) fn compose_due(&self) -> Vec<(usize, Arc<super::Limit>, super::turn::Outgoing)> {
        let (now, limits) = (self.clock.now(), self.active());
        let listen = self.listen_every(&self.fleet.load(), limits.len());
        let mut due = Vec::new();
        for limit in limits {
            limit.counter().prepare(now);
            for number in 0..limit.counter().partitions.len() {
                if limit.counter().is_due(&limit.counter().partitions[number], listen, now) {
                    let outgoing = limit.counter().compose(number, now);
                    due.push((number, Arc::clone(&limit), outgoing));
                }
            }
        }
        due
    }

    /// The answer to one of [`Throttles::compose_due`].
    #[cfg(test)]
    pub(crate) fn take_in(
        &self,
        number: usize,
        limit: &super::Limit,
        reply: Result<crate::store::limits::LimitReply, StoreFault>,
    ) {
        match &reply {
            Ok(_) => self.note_reached(),
            Err(fault) => self.note_fault(*fault),
        }
        limit.counter().take_in(number, reply, self.clock.now());
    }

    /// Waits for a call of the store, at most as long as its deadline.
    async fn timed<T>(&self, script: &str, call: impl Future<Output = Result<T, StoreFault>>) -> Result<T, StoreFault> {
        let set_out = self.clock.local();
        let answer = timeout(self.settings.store_timeout, call).await;
        METRICS.store_calls_total.with_label_values(&[script]).inc();
        METRICS
            .store_seconds
            .with_label_values(&[script])
            .observe(self.clock.local().since(set_out).as_secs_f64());
        answer.unwrap_or(Err(StoreFault::Timeout))
    }

    /// One turn, at most as long as the store's deadline.
    async fn turn(self: Arc<Self>, counter: Arc<Counter>, number: usize) -> Result<(), StoreFault> {
        let mut turn = Turn::begin(&counter, number);
        let outgoing = counter.compose(number, counter.now());
        counter.seen.note_turn();
        let asked = self.clock.local();
        let reply = self.timed("limit_turn", self.store.limit_turn(&outgoing.turn)).await;
        if let Ok(reply) = &reply {
            self.clock.compare(asked, self.clock.local(), reply.now);
        }
        let outcome = reply.as_ref().map(drop).map_err(|fault| *fault);
        if let Err(fault) = outcome {
            if fault != StoreFault::Moving {
                let failed = (Arc::downgrade(&counter), number);
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
            }
            self.note_fault(fault);
        }
        turn.is_answered = true;
        counter.take_in(number, reply, counter.now());
        outcome
    }
}

/// A partition's turn. One that a panic ends is a turn whose answer was lost.
struct Turn<'a> {
    counter: &'a Counter,
    number: usize,
    is_answered: bool,
}

impl<'a> Turn<'a> {
    fn begin(counter: &'a Counter, number: usize) -> Self {
        Self {
            counter,
            number,
            is_answered: false,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let lost = Err(StoreFault::Timeout);
            self.counter.take_in(self.number, lost, self.counter.now());
        }
        self.counter.partitions[self.number]
            .busy
            .store(false, Ordering::Release);
    }
}

/// A flag that was raised, and is taken down with this, even by a panic.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
