//! A scenario, played: gateways that come and go, their clients, and what befalls the store.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate::base::clock::{Clock, Timestamp};
use tidegate::base::key::Key;
use tidegate::base::rate::Rate;
use tidegate::store::limits::{GatewayId, LimitStore};
use tidegate::store::memory::limits::MemoryLimits;
use tidegate::throttle::{Counting, LimitRule, Settings, Throttles};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::books::Books;
use super::client::{Request, quiet_key};
use super::network::{LocalClock, Site, StoreClock, Way, Weather};
use super::scenario::{Event, Scenario};

pub(crate) const STORE_TIMEOUT: Duration = Duration::from_millis(100);

/// Gateways reload within so long of each other.
pub(crate) const ROLLOUT: Duration = Duration::from_millis(500);

/// A gateway that runs.
pub(crate) struct Node {
    pub(crate) number: u64,
    pub(crate) throttles: Arc<Throttles>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dead: AtomicBool,
    pub(crate) halt: Arc<Halt>,
    cut: Arc<AtomicBool>,
    /// Per cent that its limits should allow by now.
    allows: AtomicU64,
    stop: watch::Sender<bool>,
}

/// Stops a gateway in the middle of whatever it does.
#[derive(Debug, Default)]
pub(crate) struct Halt(Mutex<(bool, Vec<Waker>)>);

impl Halt {
    pub(crate) fn is_on(&self) -> bool {
        self.0.lock().unwrap().0
    }

    fn set(&self, on: bool) {
        let mut halt = self.0.lock().unwrap();
        halt.0 = on;
        if !on {
            halt.1.drain(..).for_each(Waker::wake);
        }
    }
}

/// A task that stands still while its gateway is halted.
pub(crate) struct Halting<F>(pub(crate) Pin<Box<F>>, pub(crate) Arc<Halt>);

impl<F: Future<Output = ()>> Future for Halting<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut halt = self.1.0.lock().unwrap();
            if halt.0 {
                halt.1.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.0.as_mut().poll(context)
    }
}

/// The whole of it.
pub(crate) struct World {
    scenario: Scenario,
    site: Arc<Site>,
    books: Arc<Mutex<Books>>,
    began: Instant,
    random: fastrand::Rng,
    fleet: Vec<Arc<Node>>,
    /// Which gateway has the most load.
    shift: usize,
    /// Per cent of the load.
    load: u64,
    /// Per cent of the limits.
    allows: u64,
    next_number: u64,
    /// Sums of the weights of keys.
    keys: Vec<f64>,
    owed: Vec<f64>,
}

/// Plays a scenario to its end; what was broken, and the figures, are in the books.
pub(crate) fn play(scenario: &Scenario) -> Books {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(scenario.clone());
        world.run().await;
        let empty = Books::new(scenario);
        std::mem::replace(&mut *world.books.lock().unwrap(), empty)
    })
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let began = Instant::now();
        let books = Arc::new(Mutex::new(Books::new(&scenario)));
        let mut random = fastrand::Rng::with_seed(scenario.seed ^ 0x5eed);
        let site = Arc::new(Site {
            store: MemoryLimits::shared(Arc::new(StoreClock(began))),
            books: Arc::clone(&books),
            random: Mutex::new(random.fork()),
            reading: Mutex::new(fastrand::Rng::with_seed(scenario.seed)),
            weather: Mutex::new(Weather {
                delay: scenario.delay,
                lost: scenario.lost,
                frozen_until: began,
                gone_until: began,
            }),
        });
        let mut sum = 0.0;
        let weight = |n: usize| {
            sum += (n as f64).powf(-scenario.zipf);
            sum
        };
        let keys = (1..=scenario.keys).map(weight).collect();
        Self {
            scenario,
            site,
            books,
            began,
            random,
            fleet: Vec::new(),
            shift: 0,
            load: 100,
            allows: 100,
            next_number: 1,
            keys,
            owed: Vec::new(),
        }
    }

    async fn run(&mut self) {
        for _ in 0..self.scenario.gateways {
            self.join();
        }
        let step = Duration::from_millis(if self.scenario.window.as_secs() >= 10 { 10 } else { 3 });
        let mut events = std::mem::take(&mut self.scenario.events).into_iter().peekable();
        let mut calm = false;
        while self.began.elapsed() < self.scenario.lasts && self.books.lock().unwrap().broken.is_none() {
            while let Some((_, event)) = events.next_if(|(at, _)| *at <= self.began.elapsed()) {
                self.happen(event);
            }
            if !calm && self.began.elapsed() >= self.scenario.calm_from {
                calm = true;
                self.load = 100;
                self.site.weather.lock().unwrap().lost = (0, 0);
            }
            self.clients(step);
            self.books.lock().unwrap().look(&self.fleet);
            sleep(step).await;
        }
        let live = self.fleet.len();
        self.books.lock().unwrap().close(live);
    }

    fn join(&mut self) {
        let scenario = &self.scenario;
        let number = self.next_number;
        self.next_number += 1;
        let apart = scenario.skew.mul_f64(self.random.f64());
        let clock: Arc<dyn Clock> = Arc::new(LocalClock {
            began: Instant::now(),
            base: Timestamp::from_secs(1_000_000) + self.began.elapsed() + apart - scenario.skew / 2,
            drift: if scenario.drift == 0 {
                0
            } else {
                self.random.i64(-scenario.drift..=scenario.drift)
            },
        });
        let settings = Settings {
            pace: scenario.pace,
            hot_keys: scenario.hot_keys,
            cold_slots: 512,
            partitions: scenario.partitions,
            store_timeout: STORE_TIMEOUT,
            ..Settings::default()
        };
        let cut = Arc::new(AtomicBool::new(false));
        let way = Way {
            site: Arc::clone(&self.site),
            cut: Arc::clone(&cut),
        };
        // Spread over the numbers there are, since a gateway's number says when it probes.
        let id = GatewayId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let throttles = Throttles::of_gateway(id, settings, Arc::new(way) as Arc<dyn LimitStore>, Arc::clone(&clock));
        reload(&throttles, scenario, self.allows);
        let (stop, stopped) = watch::channel(false);
        let halt = Arc::new(Halt::default());
        let drive = Arc::clone(&throttles).drive(stopped);
        tokio::spawn(Halting(Box::pin(drive), Arc::clone(&halt)));
        self.books.lock().unwrap().note_join(id, number);
        self.owed.push(0.0);
        self.fleet.push(Arc::new(Node {
            number,
            throttles,
            clock,
            dead: AtomicBool::new(false),
            halt,
            cut,
            allows: AtomicU64::new(self.allows),
            stop,
        }));
    }

    fn happen(&mut self, event: Event) {
        let until = |span: Duration| Instant::now() + span;
        let victim = |place: usize| Arc::clone(&self.fleet[place % self.fleet.len()]);
        self.books.lock().unwrap().note_event(event);
        match event {
            Event::Freeze(span) => self.site.weather.lock().unwrap().frozen_until = until(span),
            Event::Gone(span) => self.site.weather.lock().unwrap().gone_until = until(span),
            Event::Slow(delay, span) => {
                let (site, usual) = (Arc::clone(&self.site), self.scenario.delay);
                site.weather.lock().unwrap().delay = delay;
                tokio::spawn(async move {
                    sleep(span).await;
                    site.weather.lock().unwrap().delay = usual;
                });
            }
            Event::Wipe => self.site.store.forget(),
            Event::Crash(place) => self.crash(place),
            Event::Join => self.join(),
            Event::Halt(place, span) => {
                let halt = Arc::clone(&victim(place).halt);
                halt.set(true);
                tokio::spawn(async move {
                    sleep(span).await;
                    halt.set(false);
                });
            }
            Event::Cut(place, span) => {
                let cut = Arc::clone(&victim(place).cut);
                cut.store(true, Ordering::Relaxed);
                tokio::spawn(async move {
                    sleep(span).await;
                    cut.store(false, Ordering::Relaxed);
                });
            }
            Event::Reload(per_cent) => self.reload(per_cent),
            Event::Load(per_cent) => self.load = per_cent,
            Event::Shift => self.shift += 1,
        }
    }

    fn crash(&mut self, place: usize) {
        if self.fleet.len() > 1 {
            let place = place % self.fleet.len();
            let node = self.fleet.remove(place);
            self.owed.remove(place);
            node.dead.store(true, Ordering::Relaxed);
            node.stop.send_replace(true);
            node.halt.set(false);
        }
    }

    fn reload(&mut self, per_cent: u64) {
        self.allows = per_cent;
        for node in &self.fleet {
            node.allows.store(per_cent, Ordering::Relaxed);
            let within = ROLLOUT.mul_f64(self.random.f64());
            let (node, scenario) = (Arc::clone(node), self.scenario.clone());
            tokio::spawn(async move {
                sleep(within).await;
                // A later reload may have overtaken this one.
                if node.allows.load(Ordering::Relaxed) == per_cent {
                    reload(&node.throttles, &scenario, per_cent);
                }
            });
        }
    }

    /// What clients ask for in one step.
    fn clients(&mut self, step: Duration) {
        let scenario = &self.scenario;
        let hottest = scenario.limits[0].allows as f64 / scenario.window.as_secs_f64() * scenario.offered;
        let total = self.keys[self.keys.len() - 1];
        let rate = hottest * total * self.load as f64 / 100.0;
        let places = self.fleet.len();
        let books = self.books.lock().unwrap();
        let settled = books.settled(books.now());
        drop(books);
        let weight = |place: usize| (((place + self.shift) % places + 1) as f64).powf(-scenario.lopsided);
        let weights: f64 = (0..places).map(weight).sum();
        for place in 0..places {
            let node = Arc::clone(&self.fleet[place]);
            self.owed[place] += rate * weight(place) / weights * step.as_secs_f64() * 2.0 * self.random.f64();
            while self.owed[place] >= 1.0 {
                self.owed[place] -= 1.0;
                let at = self.random.f64() * total;
                let number = self.keys.partition_point(|sum| *sum <= at).min(self.keys.len() - 1);
                Request::begin(&node, &self.books, key(number as u64));
            }
            // A client of its own for each gateway, at an eighth of its share.
            let least = scenario.limits.iter().map(|plan| plan.allows).min().unwrap_or(1);
            // A quarter is for gateways that come in the middle of a window.
            let share = 0.75 * least as f64 / places as f64;
            let odds = share / 8.0 / scenario.window.as_secs_f64() * step.as_secs_f64();
            if settled && share >= 32.0 && self.random.f64() < odds {
                Request::begin(&node, &self.books, quiet_key(node.number));
            }
        }
    }
}

pub(crate) fn key(number: u64) -> Key {
    Key((u128::from(number) << 64) | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn reload(throttles: &Throttles, scenario: &Scenario, per_cent: u64) {
    throttles.begin_plan();
    for (number, plan) in scenario.limits.iter().enumerate() {
        let allows = (plan.allows * per_cent / 100).max(1);
        let rate: Rate = format!("{allows}/{}ms", scenario.window.as_millis()).parse().unwrap();
        let rule = LimitRule {
            counting: Counting::default(),
            name: format!("limit-{number}").parse().unwrap(),
            rate,
            tolerance: plan.tolerance,
            on_fault: plan.on_fault,
        };
        throttles.limit(rule).unwrap();
    }
    throttles.commit_plan();
}
