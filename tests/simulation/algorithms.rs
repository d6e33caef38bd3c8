//! Every algorithm through four gateways at ten times its limit: what it promises holds of every span of what was
//! admitted, and nine tenths of the limit are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::base::clock::{Clock, Timestamp};
use tidegate::base::key::Key;
use tidegate::base::rate::Rate;
use tidegate::limiter::terms::Algorithm;
use tidegate::store::limits::LimitStore;
use tidegate::store::memory::limits::MemoryLimits;
use tidegate::throttle::{Counting, Decision, Limit, LimitRule, OnStoreFault, Patience, Settings, Throttles};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::seeds;

const GATEWAYS: u64 = 4;

/// What each run leaves out at its start: leases, and shares that are fixed a frame ahead.
const WARM_UP: Duration = Duration::from_secs(8);

const LASTS: Duration = Duration::from_secs(20);

/// Tokio's paused clock as the gateway's: time passes when everyone waits.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000) + self.0.elapsed()
    }
}

/// When each was admitted, in microseconds, in order.
type Log = Arc<Mutex<Vec<u64>>>;

struct Run {
    seed: u64,
    rate: &'static str,
    algorithm: Algorithm,
    offered: f64,
    /// Who finds no budget waits for so long.
    held: Option<Duration>,
}

impl Run {
    fn admitted(&self) -> Vec<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let clock: Arc<dyn Clock> = Arc::new(VirtualClock(Instant::now()));
            let store = Arc::new(MemoryLimits::new(Arc::clone(&clock)));
            let (stop, stopped) = watch::channel(false);
            let log = Log::default();
            for number in 0..GATEWAYS {
                let limit = self.gateway(&store, &clock, &stopped);
                let random = fastrand::Rng::with_seed(self.seed.wrapping_mul(31).wrapping_add(number));
                let clients = Clients {
                    limit,
                    held: self.held,
                    clock: Arc::clone(&clock),
                    log: Arc::clone(&log),
                };
                tokio::spawn(clients.ask(self.offered / GATEWAYS as f64, random));
            }
            sleep(LASTS).await;
            stop.send(true).unwrap();
            let mut log = log.lock().unwrap().clone();
            log.sort_unstable();
            log
        })
    }

    fn gateway(
        &self,
        store: &Arc<MemoryLimits>,
        clock: &Arc<dyn Clock>,
        stopped: &watch::Receiver<bool>,
    ) -> Arc<Limit> {
        let settings = Settings {
            hot_keys: 1_000,
            cold_slots: 4_096,
            partitions: 2,
            ..Settings::default()
        };
        let throttles = Throttles::new(settings, Arc::clone(store) as Arc<dyn LimitStore>, Arc::clone(clock));
        throttles.begin_plan();
        let rule = LimitRule {
            name: "one".parse().unwrap(),
            rate: self.rate.parse().unwrap(),
            counting: Counting {
                algorithm: self.algorithm,
                calendar: None,
                debits: false,
            },
            tolerance: 0.0,
            on_fault: OnStoreFault::Deny,
        };
        let limit = throttles.limit(rule).unwrap();
        throttles.commit_plan();
        tokio::spawn(throttles.drive(stopped.clone()));
        limit
    }
}

/// Clients of one gateway, all of one key.
#[derive(Clone)]
struct Clients {
    limit: Arc<Limit>,
    held: Option<Duration>,
    clock: Arc<dyn Clock>,
    log: Log,
}

impl Clients {
    async fn ask(self, per_second: f64, mut random: fastrand::Rng) {
        let step = Duration::from_millis(2);
        let mut owed = 0.0;
        loop {
            sleep(step).await;
            owed += per_second * step.as_secs_f64() * 2.0 * random.f64();
            while owed >= 1.0 {
                owed -= 1.0;
                tokio::spawn(self.clone().one());
            }
        }
    }

    async fn one(self) {
        let key = Key(7 << 64 | 7);
        let now = self.clock.now();
        let decision = match (self.limit.try_spend(key, 1, now), self.held) {
            (Decision::Draw, None) => self.limit.draw(key, 1, now).await,
            (Decision::Limited { retry_after }, Some(within)) if retry_after > within => return,
            (Decision::Draw | Decision::Limited { .. }, Some(within)) => {
                let patience = Patience { within, queue: 10_000 };
                let Some(place) = self.limit.join_line(key, 1, now, patience) else {
                    return;
                };
                self.limit.hold(place, key, 1, now + within).await.decision
            }
            (decided, _) => decided,
        };
        if matches!(decision, Decision::Spent { .. }) {
            self.log.lock().unwrap().push(self.clock.now().as_micros());
        }
    }
}

/// The most that any span of `length` got.
fn worst(log: &[u64], length: Duration) -> u64 {
    let length = length.as_micros() as u64;
    let within = |end: usize| end + 1 - log[..=end].partition_point(|at| at + length <= log[end]);
    (0..log.len()).map(|end| within(end) as u64).max().unwrap_or(0)
}

/// What was admitted after the warm-up, as a share of what the rate gives.
fn share(log: &[u64], rate: Rate) -> f64 {
    let begin = (Timestamp::from_secs(1_000_000) + WARM_UP).as_micros();
    let counted = log.len() - log.partition_point(|at| *at < begin);
    counted as f64 / (rate.per_second() * (LASTS - WARM_UP).as_secs_f64())
}

fn run(seed: u64, rate: &'static str, algorithm: Algorithm) -> (Vec<u64>, Rate, f64) {
    run_held(seed, rate, algorithm, None)
}

fn run_held(seed: u64, rate: &'static str, algorithm: Algorithm, held: Option<Duration>) -> (Vec<u64>, Rate, f64) {
    run_offered(seed, rate, algorithm, 10.0, held)
}

/// Offered so many times the limit.
fn run_offered(
    seed: u64,
    rate: &'static str,
    algorithm: Algorithm,
    times: f64,
    held: Option<Duration>,
) -> (Vec<u64>, Rate, f64) {
    let parsed: Rate = rate.parse().unwrap();
    let run = Run {
        seed,
        rate,
        algorithm,
        offered: parsed.per_second() * times,
        held,
    };
    let log = run.admitted();
    let share = share(&log, parsed);
    println!(
        "{algorithm:?}, {rate}, {times} x: {share:.3} of the limit, worst window {}",
        worst(&log, parsed.window)
    );
    (log, parsed, share)
}

#[test]
fn no_aligned_window_gets_more_than_a_fixed_window_allows() {
    for seed in seeds(2) {
        let (log, rate, share) = run(seed, "1000/s", Algorithm::FixedWindow);
        let window = rate.window.as_micros() as u64;
        for index in log[0] / window..=log[log.len() - 1] / window {
            let count = log.iter().filter(|at| *at / window == index).count() as u64;
            assert!(count <= rate.count.get(), "seed {seed}: {count} in window {index}");
        }
        assert!(share >= 0.9, "seed {seed}: {share:.3}");
    }
}

/// A window that is asked for just what it has: what one gateway holds in vain is refused at another.
#[test]
fn who_asks_for_just_the_limit_gets_nearly_all_of_it() {
    for seed in seeds(2) {
        for (rate, algorithm) in [
            ("300/s", Algorithm::SlidingWindow),
            ("1000/s", Algorithm::SlidingWindow),
            ("300/s", Algorithm::FixedWindow),
        ] {
            for (times, least) in [(1.0, 0.93), (1.2, 0.93), (2.0, 0.95), (100.0, 0.95)] {
                let (log, rate, share) = run_offered(seed, rate, algorithm, times, None);
                let window = rate.window.as_micros() as u64;
                for index in log[0] / window..=log[log.len() - 1] / window {
                    let count = log.iter().filter(|at| *at / window == index).count() as u64;
                    assert!(count <= rate.count.get(), "seed {seed}: {count} in window {index}");
                }
                assert!(share >= least, "seed {seed}, {times} x: {share:.3}");
            }
        }
    }
}

#[test]
fn no_trailing_window_gets_more_than_a_log_or_slices_allow() {
    for seed in seeds(2) {
        for (algorithm, least) in [
            (Algorithm::SlidingLog, 0.9),
            (Algorithm::Slices(20), 0.9 * 20.0 / 21.0),
            (Algorithm::Slices(4), 0.9 * 4.0 / 5.0),
        ] {
            for rate in ["1000/s", "40/2s"] {
                let (log, rate, share) = run(seed, rate, algorithm);
                let worst = worst(&log, rate.window);
                assert!(
                    worst <= rate.count.get(),
                    "seed {seed}, {algorithm:?}: {worst} of {}",
                    rate.count
                );
                assert!(share >= least, "seed {seed}, {algorithm:?}, {rate}: {share:.3}");
            }
        }
    }
}

#[test]
fn a_bucket_gives_its_burst_and_its_rate_and_no_more() {
    for seed in seeds(2) {
        for (rate, burst) in [("1000/s", 1000), ("1000/s", 50), ("1000/s", 3000), ("20/s", 5)] {
            let (log, rate, share) = run(seed, rate, Algorithm::TokenBucket { burst });
            // Between a grant and its spending the life of a budget may pass: at most 50 ms when little is left.
            for millis in [1, 10, 50, 200, 1_000, 5_000] {
                let span = Duration::from_millis(millis);
                let most = burst as f64 + rate.per_second() * (span + Duration::from_millis(50)).as_secs_f64() + 1.0;
                let worst = worst(&log, span);
                assert!(
                    worst as f64 <= most,
                    "seed {seed}, {rate}, {burst}: {worst} in {millis} ms, at most {most}"
                );
            }
            assert!(share >= 0.9, "seed {seed}, {rate}, {burst}: {share:.3}");
        }
    }
}

/// A leaky bucket is one of few tokens before a line.
#[test]
fn a_leaky_bucket_lets_go_evenly_and_at_its_rate() {
    for seed in seeds(2) {
        for (rate, drip, millis) in [("1000/s", 100, 200), ("20/s", 2, 2_000), ("5/s", 1, 2_000)] {
            let algorithm = Algorithm::TokenBucket { burst: drip };
            let (log, rate, share) = run_held(seed, rate, algorithm, Some(Duration::from_millis(millis)));
            for millis in [1, 100, 1_000] {
                let span = Duration::from_millis(millis);
                let most = drip as f64 + rate.per_second() * (span + Duration::from_millis(50)).as_secs_f64() + 1.0;
                let worst = worst(&log, span);
                assert!(
                    worst as f64 <= most,
                    "seed {seed}, {rate}: {worst} in {millis} ms, at most {most}"
                );
            }
            assert!(share >= 0.9, "seed {seed}, {rate}: {share:.3}");
        }
    }
}
