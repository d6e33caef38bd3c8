//! What a run is about: drawn from its seed, and nothing else.

use std::time::Duration;

use tidegate::throttle::OnStoreFault;

/// Requests that one run makes at most, about: what keeps a thousand seeds within a minute.
const REQUESTS_MAX: f64 = 8_000.0;

/// One run: who asks for how much, through how many gateways, and what goes wrong meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Somebody wants to read what happened.
    pub(crate) told: bool,
    pub(crate) gateways: usize,
    pub(crate) window: Duration,
    /// The limits that every request has to pass, in this order.
    pub(crate) limits: Vec<Plan>,
    pub(crate) pace: Duration,
    pub(crate) partitions: u16,
    pub(crate) hot_keys: usize,
    pub(crate) keys: usize,
    /// Key `n` is asked for in proportion to `1 / n^zipf`.
    pub(crate) zipf: f64,
    /// Gateway `n` has load in proportion to `1 / n^lopsided`.
    pub(crate) lopsided: f64,
    /// What the fleet is asked for of the first key, in units of the first limit.
    pub(crate) offered: f64,
    /// Longest way of a message, one way.
    pub(crate) delay: Duration,
    /// Messages per thousand that are lost: on the way there, on the way back.
    pub(crate) lost: (u32, u32),
    /// How far apart the clocks of gateways are at most, and how much too fast or slow they run, in millionths.
    pub(crate) skew: Duration,
    pub(crate) drift: i64,
    /// What happens, by time from the start.
    pub(crate) events: Vec<(Duration, Event)>,
    /// From here on nothing goes wrong any more.
    pub(crate) calm_from: Duration,
    pub(crate) lasts: Duration,
}

/// A limit of the scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) allows: u64,
    pub(crate) tolerance: f64,
    pub(crate) on_fault: OnStoreFault,
}

/// What goes wrong, or changes. Gateways are named by their place among those that run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    /// The store stops for so long; what reached it is applied when it goes on.
    Freeze(Duration),
    /// The store refuses every call for so long.
    Gone(Duration),
    /// Messages take so long, for so long.
    Slow(Duration, Duration),
    /// The store is restarted, empty.
    Wipe,
    /// A gateway ends without a word.
    Crash(usize),
    Join,
    /// A gateway does nothing for so long, and then goes on.
    Halt(usize, Duration),
    /// The messages of one gateway are lost for so long.
    Cut(usize, Duration),
    /// Every limit now allows so many per cent of what it did at first.
    Reload(u64),
    /// So many per cent of the load.
    Load(u64),
    /// The load moves to other gateways.
    Shift,
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let window = Duration::from_millis(*pick(&mut random, &[100, 300, 1_000, 1_000, 2_000, 10_000, 60_000]));
        let gateways = match window.as_millis() {
            60_000 => random.usize(1..=3),
            10_000 => random.usize(1..=8),
            _ => *pick(&mut random, &[1, 2, 3, 4, 5, 8, 16, 64]),
        };
        let many = gateways > 8;
        let breakage = if many { 4.0 } else { 8.0 };
        let calm_from = Duration::from_secs_f64(breakage).max(window.mul_f64(1.5));
        let lasts = calm_from + Duration::from_secs(2) + window * 2 + window.max(Duration::from_secs(1)) * 2;
        let mut scenario = Self {
            seed,
            told: false,
            gateways,
            window,
            limits: Vec::new(),
            pace: Duration::from_millis(if window.as_secs() >= 10 { 100 } else { 50 }),
            partitions: *pick(&mut random, &[1, 1, 2, 4]),
            hot_keys: *pick(&mut random, &[2, 1_000, 1_000, 1_000]),
            keys: *pick(&mut random, &[1, 1, 3, 30]),
            zipf: *pick(&mut random, &[0.0, 1.0, 2.0]),
            lopsided: *pick(&mut random, &[0.0, 0.0, 1.0, 3.0, 20.0]),
            offered: *pick(&mut random, &[0.3, 0.9, 1.5, 3.0, 10.0]),
            delay: Duration::from_millis(*pick(&mut random, &[1, 2, 5, 20])),
            lost: (0, 0),
            skew: Duration::from_secs(*pick(&mut random, &[0, 1, 7_200])),
            drift: *pick(&mut random, &[0, 100]),
            events: Vec::new(),
            calm_from,
            lasts,
        };
        scenario.draw_limits(&mut random);
        scenario.draw_trouble(&mut random);
        scenario
    }

    fn draw_limits(&mut self, random: &mut fastrand::Rng) {
        let windows = self.lasts.as_secs_f64() / self.window.as_secs_f64();
        let spread: f64 = (1..=self.keys).map(|n| (n as f64).powf(-self.zipf)).sum();
        let most = REQUESTS_MAX / windows / spread / self.offered;
        let tolerance = *pick(random, &[0.0, 0.0, 0.05, 0.2]);
        let on_fault = *pick(
            random,
            &[
                OnStoreFault::Local,
                OnStoreFault::Local,
                OnStoreFault::Allow,
                OnStoreFault::Deny,
            ],
        );
        let allows = *pick(random, &[1, 5, 20, 100, 1_000, 3_000]);
        let allows = allows.min(most as u64).max(1);
        let number = *pick(random, &[1, 1, 1, 2, 3]);
        self.limits = (0..number)
            .map(|n| Plan {
                allows: if n == 0 { allows } else { 1 + random.u64(0..allows * 3) },
                tolerance,
                on_fault,
            })
            .collect();
    }

    fn draw_trouble(&mut self, random: &mut fastrand::Rng) {
        if random.u8(..3) == 0 {
            self.lost = (random.u32(..30), random.u32(..30));
        }
        for _ in 0..*pick(random, &[0, 1, 1, 2, 4]) {
            let at = self.calm_from.mul_f64(0.2 + 0.6 * random.f64());
            let left = self.calm_from - at;
            let lasts = left.mul_f64(random.f64()).max(Duration::from_millis(20));
            let gateway = random.usize(..64);
            let event = match random.u8(..11) {
                0 => Event::Freeze(lasts),
                1 => Event::Gone(lasts),
                2 => Event::Slow(Duration::from_millis(random.u64(5..120)), lasts),
                3 | 4 => Event::Wipe,
                5 => Event::Crash(gateway),
                6 => Event::Join,
                7 => Event::Halt(gateway, lasts),
                8 => Event::Cut(gateway, lasts),
                9 => Event::Reload(*pick(random, &[20, 50, 150, 300])),
                _ => Event::Shift,
            };
            self.events.push((at, event));
        }
        if random.u8(..4) == 0 {
            for _ in 0..3 {
                let at = self.calm_from.mul_f64(random.f64());
                self.events.push((at, Event::Load(*pick(random, &[0, 30, 300]))));
            }
        }
        self.events.sort_by_key(|(at, _)| *at);
    }

    /// Whether nothing ever happens to the fleet, the store or the limits.
    pub(crate) fn unbroken(&self) -> bool {
        self.lost == (0, 0) && self.only(|event| matches!(event, Event::Load(_) | Event::Shift))
    }

    /// Whether messages are never away for long.
    fn is_prompt(event: &Event) -> bool {
        !matches!(
            event,
            Event::Freeze(_) | Event::Slow(..) | Event::Halt(..) | Event::Cut(..)
        )
    }

    pub(crate) fn prompt(&self) -> bool {
        self.lost == (0, 0) && self.only(Self::is_prompt)
    }

    /// Whether nothing worse happens than that the store forgets.
    pub(crate) fn only_wipes(&self) -> bool {
        self.lost == (0, 0) && self.only(|event| matches!(event, Event::Load(_) | Event::Shift | Event::Wipe))
    }

    pub(crate) fn only(&self, harmless: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().all(|(_, event)| harmless(event))
    }
}

fn pick<'a, T>(random: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(..from.len())]
}
