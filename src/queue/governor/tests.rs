use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_secs(1_000_000);

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn range(min: &str, max: &str) -> Range {
    Range {
        min: rate(min),
        max: rate(max),
        by_latency: true,
        by_errors: true,
    }
}

/// Requests that all took so many milliseconds, some of which failed.
fn sample(requests: u64, failures: u64, millis: f64) -> Sample {
    Sample {
        requests,
        failures,
        log_latency: (requests - failures) as f64 * (millis * 1_000.0).ln(),
        busy: 0.0,
    }
}

/// One gateway's governor, the rate in force, and the time.
struct Bench {
    governor: Governor,
    range: Range,
    rate: Rate,
    now: Timestamp,
}

impl Bench {
    fn at(start: &str) -> Self {
        Self {
            governor: Governor::default(),
            range: range("10/s", "500/s"),
            rate: rate(start),
            now: START,
        }
    }

    fn second(&mut self, sample: Sample, waits: bool) -> Option<Reason> {
        self.now = self.now + Duration::from_secs(1);
        let proposal = self.governor.judge(&self.range, sample, (self.rate, waits), self.now)?;
        self.rate = proposal.rate;
        Some(proposal.reason)
    }

    /// The same for so many seconds; the rate then.
    fn seconds(&mut self, seconds: u64, sample: Sample) -> f64 {
        for _ in 0..seconds {
            self.second(sample, true);
        }
        self.rate.per_second()
    }
}

#[test]
fn a_service_that_is_well_is_given_more_up_to_the_highest_rate() {
    let mut bench = Bench::at("10/s");
    let double = bench.seconds(71, sample(100, 0, 50.0));
    assert!((19.0..=21.0).contains(&double), "{double}");
    assert_eq!(bench.seconds(400, sample(100, 0, 50.0)), 500.0);
}

#[test]
fn a_latency_that_doubles_lowers_the_rate_within_five_seconds() {
    let mut bench = Bench::at("200/s");
    bench.seconds(60, sample(100, 0, 50.0));
    let before = bench.rate.per_second();
    let after = bench.seconds(5, sample(100, 0, 100.0));
    assert!(after <= 0.8 * before, "{before} {after}");
    let lowest = bench.seconds(60, sample(100, 0, 110.0));
    assert!(lowest <= 0.2 * before, "and goes on lowering it: {lowest}");
}

#[test]
fn failures_lower_the_rate_within_five_seconds_and_it_comes_back_after_them() {
    let mut bench = Bench::at("400/s");
    bench.seconds(60, sample(100, 0, 50.0));
    let before = bench.rate.per_second();
    let after = bench.seconds(5, sample(100, 20, 50.0));
    assert!(after <= 0.8 * before, "{before} {after}");
    assert_eq!(bench.seconds(90, sample(100, 0, 50.0)), 500.0);
}

#[test]
fn each_signal_counts_only_where_it_is_asked_for() {
    let mut bench = Bench::at("400/s");
    bench.range.by_errors = false;
    bench.seconds(10, sample(100, 0, 50.0));
    let before = bench.rate;
    bench.second(sample(100, 90, 50.0), false);
    assert_eq!(bench.rate, before);
    bench.range.by_latency = false;
    assert_eq!(bench.second(sample(100, 0, 5_000.0), false), Some(Reason::Untried));
}

#[test]
fn nothing_is_tried_that_nobody_waits_for() {
    let mut bench = Bench::at("50/s");
    for _ in 0..100 {
        bench.second(sample(100, 0, 50.0), false);
    }
    assert_eq!(bench.rate, rate("50/s"));
}

#[test]
fn silence_is_no_proof_of_health() {
    let mut bench = Bench::at("50/s");
    for _ in 0..100 {
        assert_eq!(bench.second(Sample::default(), true), None);
    }
    // Four requests in five seconds are none; one a second is judged every five.
    let judged = (0..50).filter(|n| bench.second(sample(u64::from(n % 2 == 0), 0, 50.0), true).is_some());
    assert_eq!(judged.count(), 0);
    let judged = (0..50).filter(|_| bench.second(sample(1, 0, 50.0), true).is_some());
    assert!((8..=10).contains(&judged.count()));
}

#[test]
fn a_fast_service_may_be_three_times_slower_and_still_fast() {
    let mut bench = Bench::at("50/s");
    bench.seconds(60, sample(100, 0, 0.5));
    let before = bench.rate.per_second();
    assert!(bench.seconds(20, sample(100, 0, 1.5)) >= before);
}

#[test]
fn places_in_flight_that_are_nearly_taken_stop_the_rise() {
    let mut bench = Bench::at("50/s");
    let busy = Sample {
        busy: 0.9,
        ..sample(100, 0, 50.0)
    };
    assert_eq!(bench.seconds(60, busy), 50.0);
}

#[test]
fn a_service_that_became_faster_is_held_to_that_and_one_slower_for_long_is_taken_as_it_is() {
    let mut bench = Bench::at("50/s");
    bench.seconds(60, sample(100, 0, 100.0));
    bench.seconds(60, sample(100, 0, 20.0));
    let (_, baseline) = bench.governor.latency().unwrap();
    assert!((19_000.0..22_000.0).contains(&baseline), "{baseline}");
    bench.seconds(3_600, sample(100, 0, 60.0));
    assert_eq!(bench.rate.per_second(), 500.0);
}

#[test]
fn a_rate_is_spelled_so_that_a_small_step_shows() {
    let range = range("1/min", "500/s");
    for (per_second, expected) in [
        (137.2, "8232/min"),
        (42.0, "2520/min"),
        (0.5, "1800/h"),
        (900.0, "500/s"),
    ] {
        assert_eq!(spelled(&range, per_second, f64::floor), rate(expected));
    }
    assert_eq!(spelled(&range, 0.0, f64::floor), rate("1/min"));
}

#[test]
fn a_fall_of_another_gateway_is_waited_for_and_not_doubled() {
    let mut bench = Bench::at("100/s");
    bench.seconds(30, sample(100, 0, 50.0));
    bench.rate = rate("75/s");
    assert_eq!(bench.second(sample(100, 50, 50.0), true), Some(Reason::Calm));
    assert_eq!(bench.rate, rate("75/s"));
}

proptest! {
    #[test]
    fn no_proposal_is_outside_the_range(
        min in 1u64..1_000,
        more in 0u64..100_000,
        windows in (1u64..5_000, 1u64..5_000),
        seen in prop::collection::vec((0u64..200, 0.0f64..1.0, 0.001f64..1e6, 0u64..4_000_000, any::<bool>()), 1..200),
    ) {
        let one = |count: u64, millis| Rate {
            count: count.try_into().unwrap(),
            window: Duration::from_millis(millis),
        };
        let mut ends = [one(min, windows.0), one(min + more, windows.1)];
        ends.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
        let [min, max] = ends;
        let range = Range { min, max, by_latency: true, by_errors: true };
        let (mut governor, mut now, mut rate) = (Governor::default(), START, max);
        for (requests, failing, millis, gap, waits) in seen {
            now = now + Duration::from_micros(gap);
            let failures = (requests as f64 * failing) as u64;
            if let Some(proposal) = governor.judge(&range, sample(requests, failures, millis), (rate, waits), now) {
                rate = proposal.rate;
                prop_assert!((min.per_second()..=max.per_second()).contains(&rate.per_second()), "{rate}");
            }
        }
    }
}

/// A service that stands so many visitors at once. Up to four fifths of them it is as fast as ever; from there on it
/// grows slow, and beyond all of them it fails.
struct Service {
    stands: f64,
    visit: usize,
    inside: Vec<f64>,
    rng: fastrand::Rng,
}

impl Service {
    fn new(stands: f64, visit: usize, seed: u64) -> Self {
        Self {
            stands,
            visit,
            inside: vec![0.0; visit],
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn load(&self) -> f64 {
        self.inside.iter().sum::<f64>() / self.stands
    }

    /// A second in which so many come, each of whom asks once a second and stays for a visit. What a gateway sees
    /// that has the `share` of them.
    fn second(&mut self, come: f64, at: usize, share: f64) -> Sample {
        let slot = at % self.visit;
        self.inside[slot] = come;
        let load = self.load();
        let millis = 50.0 * (1.0 + 3.0 * ((load - 0.8) / 0.2).max(0.0));
        let requests = (load * self.stands * share) as u64;
        let failures = if load > 1.1 { requests / 2 } else { 0 };
        let noise: f64 = (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0;
        let spread = noise / (requests.max(1) as f64).sqrt();
        let answered = (requests - failures) as f64;
        Sample {
            requests,
            failures,
            log_latency: answered * ((millis * 1_000.0).ln() + spread),
            busy: 0.0,
        }
    }
}

/// Gateways that each see their part of a service and steer one rate, the lowest of their words; the load of each
/// second.
fn steer(gateways: usize, seconds: usize, service: &mut Service) -> Vec<f64> {
    let range = range("10/s", "500/s");
    let mut governors = vec![Governor::default(); gateways];
    let mut words = vec![range.min; gateways];
    let mut rate = range.min;
    let mut loads = Vec::new();
    for second in 0..seconds {
        let now = START + Duration::from_secs(second as u64);
        let seen = service.second(rate.per_second(), second, 1.0 / gateways as f64);
        // One after the other, as gateways turn: each hears what those before it have said.
        for (governor, mine) in governors.iter_mut().zip(0..) {
            if let Some(proposal) = governor.judge(&range, seen, (rate, true), now) {
                words[mine] = proposal.rate;
                let lower = |a: Rate, b: Rate| if a.per_second() < b.per_second() { a } else { b };
                rate = words.iter().copied().reduce(lower).unwrap();
            }
        }
        loads.push(service.load());
    }
    loads
}

/// Whatever the service stands, and however long a visit: the load finds the band between idle and too much, and
/// stays in it.
#[test]
fn a_simulated_service_is_filled_and_neither_drowned_nor_rocked() {
    for (gateways, stands, visit) in [
        (1, 3_000.0, 30),
        (4, 3_000.0, 30),
        (1, 1_000.0, 5),
        (3, 8_000.0, 60),
        (1, 20_000.0, 60),
        (2, 12_000.0, 300),
        (16, 20_000.0, 60),
    ] {
        for seed in 0..5 {
            let mut service = Service::new(stands, visit, seed);
            let loads = steer(gateways, 2_400, &mut service);
            let settled = &loads[1_200..];
            let mean = settled.iter().sum::<f64>() / settled.len() as f64;
            let most = settled.iter().copied().fold(0.0, f64::max);
            let least = settled.iter().copied().fold(f64::MAX, f64::min);
            let what = format!("{gateways} gateways, {stands} visitors of {visit} s, seed {seed}");
            println!("{what}: {least:.2} to {most:.2}, {mean:.2} on average");
            assert!(mean > 0.65, "{what}: {mean}");
            assert!(most < 1.1, "{what}: {most}");
            assert!(least > 0.4, "{what}: {least}");
        }
    }
}
