//! One limit, many gateways, one store: what must hold of `used + reserved`, and of what is admitted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::base::clock::{Clock, Timestamp};
use tidegate::base::key::Key;
use tidegate::base::rate::Rate;
use tidegate::store::limits::{Fleet, GatewayId, LimitReply, LimitStore, LimitTurn, StoreFault};
use tidegate::store::memory::limits::MemoryLimits;
use tidegate::throttle::{Counting, Decision, LimitRule, OnStoreFault, Settings, Throttles};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::seeds;

const PACE: Duration = Duration::from_millis(50);

/// Tokio's paused clock as the gateway's: time passes when everyone waits.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000) + self.0.elapsed()
    }
}

/// A memory store behind a bad network, which checks after every turn that no count passes its limit.
#[derive(Debug)]
struct BadNetwork {
    store: MemoryLimits,
    random: Mutex<fastrand::Rng>,
    /// Per thousand calls: lost on the way there, lost on the way back.
    lost: (u32, u32),
    delay: Duration,
    /// Above the limit only by what gateways may have admitted ahead.
    tolerated: u64,
    calls: Mutex<u64>,
}

impl BadNetwork {
    fn chance(&self, per_thousand: u32) -> bool {
        self.random.lock().unwrap().u32(0..1000) < per_thousand
    }
}

#[async_trait]
impl LimitStore for BadNetwork {
    async fn limit_turn(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        *self.calls.lock().unwrap() += 1;
        let delay = self.delay.mul_f64(self.random.lock().unwrap().f64());
        sleep(delay).await;
        if self.chance(self.lost.0) {
            sleep(Duration::from_secs(1)).await;
        }
        let reply = self.store.apply(turn)?;
        for asked in &turn.keys {
            let count = self.store.count(turn, asked.key);
            assert!(
                count <= turn.terms.allows + self.tolerated,
                "T1: {count} of {} after {turn:?}",
                turn.terms.allows
            );
        }
        if self.chance(self.lost.1) {
            sleep(Duration::from_secs(1)).await;
        }
        Ok(reply)
    }

    async fn alive(&self, gateway: GatewayId, knew: &Fleet) -> Result<Fleet, StoreFault> {
        Ok(self.store.note_alive(gateway, knew))
    }
}

/// One run: who asks for how much, through how many gateways.
struct Scenario {
    seed: u64,
    gateways: usize,
    rate: &'static str,
    tolerance: f64,
    /// Requests per second over the fleet, and over how many keys they spread.
    offered: u64,
    keys: u64,
    /// All requests go to the first gateway.
    lopsided: bool,
    lost: (u32, u32),
    /// A gateway is replaced by a new one this often.
    churn: Option<Duration>,
    lasts: Duration,
}

/// What a run admitted: per key and aligned window of the limit.
struct Outcome {
    admitted: BTreeMap<(u64, u64), u64>,
    allows: u64,
    calls: u64,
}

impl Scenario {
    fn run(self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(self.play())
    }

    async fn play(self) -> Outcome {
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock(Instant::now()));
        let rate: Rate = self.rate.parse().unwrap();
        let store = Arc::new(BadNetwork {
            store: MemoryLimits::new(Arc::clone(&clock)),
            random: Mutex::new(fastrand::Rng::with_seed(self.seed)),
            lost: self.lost,
            delay: Duration::from_millis(2),
            tolerated: (rate.count.get() as f64 * self.tolerance) as u64,
            calls: Mutex::default(),
        });
        let admitted = Arc::new(Mutex::new(BTreeMap::new()));
        let mut fleet = Vec::new();
        for number in 0..self.gateways {
            fleet.push(self.gateway(number as u64, &store, &clock, &admitted));
        }
        let mut random = fastrand::Rng::with_seed(self.seed ^ 0xc0ffee);
        let end = Instant::now() + self.lasts;
        while Instant::now() < end {
            sleep(self.churn.unwrap_or(self.lasts).min(end - Instant::now())).await;
            if self.churn.is_some() {
                let victim = random.usize(0..fleet.len());
                fleet.remove(victim).send(true).unwrap();
                fleet.push(self.gateway(random.u64(..), &store, &clock, &admitted));
            }
        }
        let calls = *store.calls.lock().unwrap();
        let admitted = admitted.lock().unwrap().clone();
        Outcome {
            admitted,
            allows: rate.count.get(),
            calls,
        }
    }

    /// Starts a gateway with its clients; what it gives stops them all at once, as a crash would.
    fn gateway(
        &self,
        number: u64,
        store: &Arc<BadNetwork>,
        clock: &Arc<dyn Clock>,
        admitted: &Arc<Mutex<BTreeMap<(u64, u64), u64>>>,
    ) -> watch::Sender<bool> {
        let settings = Settings {
            pace: PACE,
            hot_keys: 10_000,
            cold_slots: 4_096,
            partitions: 4,
            ..Settings::default()
        };
        let throttles = Throttles::new(settings, Arc::clone(store) as Arc<dyn LimitStore>, Arc::clone(clock));
        throttles.begin_plan();
        let rate: Rate = self.rate.parse().unwrap();
        let rule = LimitRule {
            name: "one".parse().unwrap(),
            rate,
            counting: Counting::default(),
            tolerance: self.tolerance,
            on_fault: OnStoreFault::Deny,
        };
        let limit = throttles.limit(rule).unwrap();
        throttles.commit_plan();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&throttles).drive(stopped.clone()));

        let share = if !self.lopsided {
            self.offered / self.gateways as u64
        } else if number == 0 {
            self.offered
        } else {
            0
        };
        let (keys, clock, admitted) = (self.keys, Arc::clone(clock), Arc::clone(admitted));
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_mul(31).wrapping_add(number));
        let window = rate.window.as_micros() as u64;
        tokio::spawn(async move {
            let mut owed = 0.0;
            while !*stopped.borrow() {
                sleep(Duration::from_millis(2)).await;
                owed += share as f64 * 0.002 * 2.0 * random.f64();
                while owed >= 1.0 {
                    owed -= 1.0;
                    let key = random.u64(0..keys);
                    let note = {
                        let (admitted, clock) = (Arc::clone(&admitted), Arc::clone(&clock));
                        move || {
                            *admitted
                                .lock()
                                .unwrap()
                                .entry((key, clock.now().as_micros() / window))
                                .or_insert(0) += 1
                        }
                    };
                    let id = Key((u128::from(key) << 64) | u128::from(key));
                    match limit.try_spend(id, 1, clock.now()) {
                        Decision::Spent { .. } => note(),
                        Decision::Limited { .. } => {}
                        Decision::Draw => {
                            let (limit, now, stopped) = (Arc::clone(&limit), clock.now(), stopped.clone());
                            tokio::spawn(async move {
                                let spent = matches!(limit.draw(id, 1, now).await, Decision::Spent { .. });
                                if spent && !*stopped.borrow() {
                                    note();
                                }
                            });
                        }
                    }
                }
            }
        });
        stop
    }
}

impl Outcome {
    /// No aligned window of any key got more than `most`.
    fn assert_never_above(&self, most: f64, seed: u64) {
        for ((key, window), admitted) in &self.admitted {
            let bound = self.allows as f64 * most;
            assert!(
                *admitted as f64 <= bound,
                "seed {seed}: key {key} got {admitted} in window {window}, at most {bound}"
            );
        }
    }

    /// What each key got per window on average, leaving out `warm_up` windows and the last, as a share of the limit.
    fn average(&self, warm_up: u64) -> f64 {
        let first = self.admitted.keys().map(|(_, window)| *window).min().unwrap() + warm_up;
        let last = self.admitted.keys().map(|(_, window)| *window).max().unwrap();
        let counted = self
            .admitted
            .iter()
            .filter(|((_, window), _)| (first..last).contains(window));
        let keys = self
            .admitted
            .keys()
            .map(|(key, _)| *key)
            .collect::<std::collections::BTreeSet<_>>()
            .len() as f64;
        counted.map(|(_, admitted)| *admitted as f64).sum::<f64>() / (last - first) as f64 / keys / self.allows as f64
    }
}

fn hot_key(seed: u64, gateways: usize) -> Scenario {
    Scenario {
        seed,
        gateways,
        rate: "1000/s",
        tolerance: 0.0,
        offered: 10_000,
        keys: 1,
        lopsided: false,
        lost: (0, 0),
        churn: None,
        lasts: Duration::from_secs(14),
    }
}

#[test]
fn an_overloaded_key_gets_its_limit_and_never_more() {
    for seed in seeds(3) {
        for gateways in [1, 4, 16] {
            let outcome = hot_key(seed, gateways).run();
            outcome.assert_never_above(1.0, seed);
            let average = outcome.average(7);
            println!(
                "seed {seed}, {gateways} gateways: {average:.3} of the limit, {} calls",
                outcome.calls
            );
            assert!(
                average >= 0.9,
                "T6, seed {seed}: {gateways} gateways admit {average:.3} of the limit"
            );
        }
    }
}

#[test]
fn tolerance_bounds_the_overshoot() {
    for seed in seeds(3) {
        for gateways in [1, 4, 16] {
            let outcome = Scenario {
                tolerance: 0.05,
                ..hot_key(seed, gateways)
            }
            .run();
            outcome.assert_never_above(1.05, seed);
            assert!(
                outcome.average(7) >= 0.9,
                "T6, seed {seed}: {gateways} gateways admit {:.3}",
                outcome.average(7)
            );
        }
    }
}

#[test]
fn load_on_one_gateway_gets_the_whole_limit() {
    for seed in seeds(3) {
        let outcome = Scenario {
            lopsided: true,
            ..hot_key(seed, 4)
        }
        .run();
        outcome.assert_never_above(1.0, seed);
        assert!(
            outcome.average(7) >= 0.9,
            "T6, seed {seed}: {:.3} of the limit",
            outcome.average(7)
        );
    }
}

#[test]
fn lost_calls_and_replaced_gateways_never_admit_more() {
    for seed in seeds(3) {
        let outcome = Scenario {
            lost: (20, 20),
            churn: Some(Duration::from_millis(1_700)),
            lasts: Duration::from_secs(20),
            ..hot_key(seed, 5)
        }
        .run();
        outcome.assert_never_above(1.0, seed);
    }
}

#[test]
fn many_keys_at_several_times_their_limit_each_get_it() {
    for seed in seeds(2) {
        let outcome = Scenario {
            rate: "20/s",
            offered: 16_000,
            keys: 200,
            ..hot_key(seed, 4)
        }
        .run();
        outcome.assert_never_above(1.0, seed);
        let average = outcome.average(7);
        assert!(average >= 0.9, "T6, seed {seed}: {average:.3} of the limit");
    }
}

#[test]
fn quiet_keys_cost_the_store_nothing_and_lose_nothing() {
    for seed in seeds(2) {
        // 4,000 requests a second over 2,000 keys: 2 a second each, of 20 that are allowed and 5 that are free here.
        let outcome = Scenario {
            rate: "20/s",
            offered: 2_000,
            keys: 4_000,
            ..hot_key(seed, 1)
        }
        .run();
        let admitted: u64 = outcome.admitted.values().sum();
        println!("seed {seed}: {admitted} admitted, {} calls", outcome.calls);
        assert_eq!(outcome.calls, 0, "seed {seed}");
    }
}
