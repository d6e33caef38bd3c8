//! What the algorithms promise, held against everything that gateways spent: some of it from free shares that nobody
//! sees, some from grants, while gateways come, go, report and give back.

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::limiter::ratio;
use crate::limiter::window::Window;

const GATEWAYS: usize = 5;

/// Frames with a known fleet; the first ones are over before anything happens.
const FRAMES: u64 = 40;

/// One key, its gateways, and all that was spent.
struct Scene {
    rng: Rng,
    terms: Terms,
    now: Timestamp,
    /// For each frame, who is in the fleet at its start.
    members: Vec<Vec<usize>>,
    /// What each gateway used of its free share.
    own: [Counts; GATEWAYS],
    usage: Option<Usage>,
    reported: Vec<usize>,
    /// Granted and not spent: until when it is good, its lot, and how much.
    unspent: Vec<(Timestamp, u64, u64)>,
    spent: Vec<(u64, u64)>,
}

impl Scene {
    fn new(seed: u64, terms: Terms) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut members = Vec::new();
        let mut fleet: Vec<usize> = (0..GATEWAYS).filter(|_| rng.bool()).collect();
        for _ in 0..FRAMES {
            if rng.u8(..3) == 0 {
                fleet = (0..GATEWAYS).filter(|_| rng.bool()).collect();
            }
            members.push(fleet.clone());
        }
        Self {
            now: terms.frames().start(10),
            rng,
            terms,
            members,
            own: [Counts::default(); GATEWAYS],
            usage: None,
            reported: Vec::new(),
            unspent: Vec::new(),
            spent: Vec::new(),
        }
    }

    fn shares(&self, gateway: usize) -> Shares {
        let frame = self.terms.frames().index(self.now);
        let of = |frame: u64| {
            let members = &self.members[(frame - self.terms.lag()) as usize];
            if members.contains(&gateway) {
                self.terms.free() / members.len() as u64
            } else {
                0
            }
        };
        Shares {
            prev: of(frame - 1),
            cur: of(frame),
            next: if self.terms.lag() > 0 { of(frame + 1) } else { 0 },
        }
    }

    /// The first frame since which the members are what they are.
    fn same_since(&self) -> usize {
        let frame = self.terms.frames().index(self.now) as usize;
        let members = &self.members[..=frame];
        members
            .iter()
            .rposition(|then| *then != members[frame])
            .map_or(0, |last| last + 1)
    }

    fn view(&self) -> View {
        let silent = (0..GATEWAYS).filter(|gateway| !self.reported.contains(gateway));
        let (terms, now) = (self.terms, self.now);
        let add = |sum: Reserve, gateway| sum.with(self.shares(gateway), &terms, now);
        View {
            terms,
            now,
            silent: silent.fold(Reserve::default(), add),
            same_since: Some(terms.frames().start(self.same_since() as u64)),
        }
    }

    fn amount(&mut self) -> u64 {
        let most = self.terms.capacity();
        match self.rng.u8(..3) {
            0 => self.rng.u64(..=most),
            1 => self.rng.u64(..=most / 8),
            _ => 1,
        }
    }

    /// Spends from the free share, if there is that much of it.
    fn spend_cold(&mut self, gateway: usize) {
        let cost = self.amount();
        let frame = self.terms.frames().index(self.now);
        let own = self.own[gateway].turned_to(frame);
        let next = Counts {
            cur: own.cur + cost,
            ..own
        };
        if self.shares(gateway).suffice(next, &self.terms, self.now) {
            self.own[gateway] = next;
            self.spent.push((self.now.as_micros(), cost));
        }
    }

    fn report(&mut self, gateway: usize) {
        let before = self.view();
        let (own, shares) = (self.own[gateway], self.shares(gateway));
        let used_before = own.turned_to(self.terms.frames().index(self.now)).prev;
        let unused = shares.prev.saturating_sub(used_before);
        let mut usage = self.usage.take().unwrap_or_else(|| Usage::fresh(&before, unused));
        usage.turn(&before);
        self.reported.push(gateway);
        usage.report(own, shares, &self.view());
        self.usage = Some(usage);
    }

    /// Draws; spends part of it at any moment at which that is allowed, and keeps the rest to be given back.
    fn draw(&mut self) {
        let ask = self.amount();
        let view = self.view();
        let Some(usage) = &mut self.usage else { return };
        usage.turn(&view);
        let left = usage.left(&view);
        let granted = ask.min(left);
        let valid_until = usage.grant(granted, left, &view);
        assert!(usage.count(&view) <= self.terms.capacity(), "T1: {usage:?} at {view:?}");
        let spent = if self.rng.bool() {
            granted
        } else {
            self.rng.u64(..=granted)
        };
        let latest = match self.terms.algorithm {
            // The bucket's promise is of the moments of grants.
            Algorithm::TokenBucket { .. } => self.now.as_micros() + 1,
            _ => valid_until.as_micros(),
        };
        let moment = self.rng.u64(self.now.as_micros()..latest);
        self.spent.push((moment, spent));
        let lot = self.terms.lot(self.now, valid_until);
        self.unspent.push((valid_until, lot, granted - spent));
    }

    fn give_back(&mut self) {
        let view = self.view();
        let Some(usage) = &mut self.usage else { return };
        usage.turn(&view);
        for (_, lot, unspent) in self
            .unspent
            .extract_if(.., |(valid_until, ..)| *valid_until <= view.now)
        {
            usage.give_back(lot, unspent, &view);
        }
    }

    fn play(&mut self) {
        let frames = self.terms.frames();
        let length = frames.length().as_micros() as u64;
        let end = frames.start(FRAMES - 2);
        for _ in 0..300 {
            let span = match self.rng.u8(..8) {
                0 => self.rng.u64(..length),
                1 => frames.end(self.now).since(self.now).as_micros() as u64 - 1,
                2 | 3 => self.rng.u64(..length / 10),
                4 => 1,
                _ => 0,
            };
            self.now = self.now + Duration::from_micros(span);
            if self.now >= end {
                return;
            }
            let gateway = self.rng.usize(..GATEWAYS);
            match self.rng.u8(..10) {
                0 if !self.reported.contains(&gateway) => self.report(gateway),
                1 | 2 => self.give_back(),
                3..6 if !self.reported.contains(&gateway) => self.spend_cold(gateway),
                _ => self.draw(),
            }
        }
    }

    /// Every span of `length` that ends with a spending, and what was spent in it.
    fn trailing(&self, length: u64) -> impl Iterator<Item = (u64, u64)> {
        self.spent.iter().map(move |(end, _)| {
            let within = self.spent.iter().filter(|(at, _)| at <= end && at + length > *end);
            (*end, within.map(|(_, cost)| cost).sum())
        })
    }
}

fn terms(allows: u64, micros: u64, algorithm: Algorithm) -> Terms {
    Terms {
        allows,
        window: Window::aligned(micros),
        algorithm,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_trailing_window_of_a_log_gets_more_than_the_limit(
        seed in any::<u64>(), allows in 1u64..400, micros in 100_000u64..3_000_000, slices in 1u64..65,
    ) {
        let algorithm = if slices == 1 { Algorithm::SlidingLog } else { Algorithm::Slices(slices) };
        let mut scene = Scene::new(seed, terms(allows, micros, algorithm));
        scene.play();
        for (end, spent) in scene.trailing(micros) {
            prop_assert!(spent <= allows, "{spent} of {allows} until {end}");
        }
    }

    #[test]
    fn no_fixed_window_gets_more_than_the_limit(
        seed in any::<u64>(), allows in 1u64..400, micros in 100_000u64..3_000_000,
    ) {
        let mut scene = Scene::new(seed, terms(allows, micros, Algorithm::FixedWindow));
        scene.play();
        for window in 10..FRAMES {
            let within = scene.spent.iter().filter(|(at, _)| at / micros == window);
            let spent: u64 = within.map(|(_, cost)| cost).sum();
            prop_assert!(spent <= allows, "{spent} of {allows} in window {window}");
        }
    }

    /// In any span at most the burst and what the rate brings meanwhile, rounded up.
    #[test]
    fn no_span_of_a_bucket_gets_more_than_burst_and_rate(
        seed in any::<u64>(), allows in 1u64..400, burst in 1u64..400, micros in 100_000u64..3_000_000,
    ) {
        let mut scene = Scene::new(seed, terms(allows, micros, Algorithm::TokenBucket { burst }));
        scene.play();
        scene.spent.sort_unstable();
        for (first, (start, _)) in scene.spent.iter().enumerate() {
            let mut sum = 0;
            for (end, cost) in &scene.spent[first..] {
                sum += cost;
                let most = burst + ratio::ceil(end - start, allows, micros);
                prop_assert!(sum <= most, "{sum} from {start} to {end}, at most {most}");
            }
        }
    }
}

/// A view of a fleet of one that has reported: nothing is kept back.
fn alone(terms: Terms, micros: u64) -> View {
    View {
        terms,
        now: Timestamp::from_micros(micros),
        silent: Reserve::default(),
        same_since: Some(Timestamp::default()),
    }
}

fn draw(usage: &mut Usage, ask: u64, view: &View) -> u64 {
    usage.turn(view);
    let left = usage.left(view);
    let granted = ask.min(left);
    usage.grant(granted, left, view);
    granted
}

#[test]
fn a_log_gives_back_each_unit_when_it_is_a_window_old() {
    let terms = terms(3, 6_400_000, Algorithm::SlidingLog);
    let start = 64_000_000;
    let mut usage = Usage::fresh(&alone(terms, start), 0);
    for late in [0, 1_000_000, 2_000_000] {
        assert_eq!(draw(&mut usage, 1, &alone(terms, start + late)), 1);
    }
    let view = alone(terms, start + 2_000_000);
    assert_eq!(draw(&mut usage, 1, &view), 0);
    // The first was good for 64 ms, because much remained, and counts from its end.
    let wait = usage.wait(&view);
    assert_eq!(wait, Duration::from_micros(6_400_000 + 64_000 - 2_000_000));
    let at = view.now.as_micros() + wait.as_micros() as u64;
    assert_eq!(draw(&mut usage, 2, &alone(terms, at - 1)), 0);
    assert_eq!(draw(&mut usage, 2, &alone(terms, at)), 1);
}

#[test]
fn a_log_has_no_more_entries_than_cells() {
    let terms = terms(1_000_000, 60_000_000, Algorithm::SlidingLog);
    let mut usage = Usage::fresh(&alone(terms, 0), 0);
    for step in 0..100_000 {
        draw(&mut usage, 7, &alone(terms, 600_000_000 + step * 3_000));
    }
    let Usage::Log(log) = &usage else { panic!("a log") };
    assert!(
        log.len() as u64 <= crate::limiter::terms::LOG_CELLS + 2,
        "{}",
        log.len()
    );
    let in_a_window = 7 * 60_000 / 3;
    assert!(
        (in_a_window..in_a_window * 103 / 100).contains(&log.sum()),
        "{} of {in_a_window}",
        log.sum()
    );
}

#[test]
fn slices_count_whole_and_one_more_than_their_number() {
    let terms = terms(4, 1_000_000, Algorithm::Slices(4));
    let mut usage = Usage::fresh(&alone(terms, 0), 0);
    assert_eq!(draw(&mut usage, 9, &alone(terms, 10_100_000)), 4);
    for (now, left) in [(11_000_000, 0), (11_249_999, 0), (11_250_000, 4)] {
        let view = alone(terms, now);
        usage.turn(&view);
        assert_eq!(usage.left(&view), left, "at {now}");
    }
}

#[test]
fn a_bucket_fills_at_its_rate_and_no_further_than_its_burst() {
    let terms = terms(10, 1_000_000, Algorithm::TokenBucket { burst: 25 });
    let mut usage = Usage::fresh(&alone(terms, 0), 0);
    let start = 50_000_000;
    assert_eq!(draw(&mut usage, 100, &alone(terms, start)), 25);
    assert_eq!(usage.wait(&alone(terms, start)), Duration::from_millis(100));
    assert_eq!(draw(&mut usage, 100, &alone(terms, start + 99_999)), 0);
    assert_eq!(draw(&mut usage, 100, &alone(terms, start + 350_000)), 3);
    assert_eq!(
        draw(&mut usage, 100, &alone(terms, start + 400_000)),
        1,
        "half a token was kept"
    );
    assert_eq!(draw(&mut usage, 100, &alone(terms, start + 9_000_000)), 25);
    let view = alone(terms, start + 9_000_000);
    usage.give_back(start + 8_900_000, 6, &view);
    assert_eq!(usage.left(&view), 5);
    usage.overdraw(8, &view);
    assert_eq!((usage.left(&view), usage.excess(&view)), (0, 3));
    assert_eq!(usage.wait(&view), Duration::from_millis(400));
}

#[test]
fn what_a_bucket_owes_is_owed_until_it_is_paid_however_long_nobody_asks() {
    let terms = terms(10, 1_000_000, Algorithm::TokenBucket { burst: 25 });
    let start = 50_000_000;
    let mut usage = Usage::fresh(&alone(terms, start), 0);
    let view = alone(terms, start);
    usage.overdraw(25 + 1_000, &view);
    assert_eq!(usage.owed_frames(&view), 40, "100 s, in frames of 2.5");
    assert_eq!(usage.wait(&view), Duration::from_millis(100_100));
    for (late, left) in [(99_000_000, 0), (100_500_000, 5), (200_000_000, 25)] {
        let mut later = usage.clone();
        let view = alone(terms, start + late);
        later.turn(&view);
        assert_eq!(
            (later.left(&view), later.owed_frames(&view) > 0),
            (left, left == 0),
            "after {late}"
        );
    }
    usage.overdraw(u64::from(u32::MAX), &view);
    assert_eq!(
        usage.wait(&view),
        Duration::from_secs(30 * 24 * 3600),
        "nobody is told more"
    );
}
