use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::base::clock::{ManualClock, Timestamp, VirtualClock};
use crate::base::key::Key;
use crate::store::limits::StoreFault;
use crate::store::memory::limits::MemoryLimits;

/// One gateway in front of a store, turned by hand.
pub(super) struct Scene {
    pub(super) clock: Arc<ManualClock>,
    store: Arc<MemoryLimits>,
    throttles: Arc<Throttles>,
    pub(super) limit: Arc<Limit>,
}

pub(super) const CLIENT: Key = Key(7 << 64 | 7);

impl Scene {
    pub(super) fn new(rate: &str, tolerance: f64, settings: Settings) -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_000_000));
        let store = Arc::new(MemoryLimits::new(Arc::clone(&clock) as Arc<dyn Clock>));
        Self::at(clock, store, rate, tolerance, settings)
    }

    /// Two gateways that have known each other for a while.
    fn two(rate: &str) -> [Self; 2] {
        let clock = ManualClock::at(Timestamp::from_secs(1_000_000));
        let store = Arc::new(MemoryLimits::shared(Arc::clone(&clock) as Arc<dyn Clock>));
        let both = [(); 2].map(|()| Self::at(Arc::clone(&clock), Arc::clone(&store), rate, 0.0, small()));
        for _ in 0..20 {
            clock.advance(Duration::from_secs(1));
            let _said = both.each_ref().map(Scene::turn);
        }
        both
    }

    fn at(clock: Arc<ManualClock>, store: Arc<MemoryLimits>, rate: &str, tolerance: f64, settings: Settings) -> Self {
        let throttles = Throttles::new(
            settings,
            Arc::clone(&store) as Arc<dyn LimitStore>,
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        throttles.begin_plan();
        let limit = throttles.limit(rule("one", rate, tolerance)).unwrap();
        throttles.commit_plan();
        let scene = Self {
            clock,
            store,
            throttles,
            limit,
        };
        scene.say_alive();
        scene
    }

    /// A reload that brings this rule.
    pub(super) fn replan(&mut self, rule: LimitRule) {
        self.throttles.begin_plan();
        self.limit = self.throttles.limit(rule).unwrap();
        self.throttles.commit_plan();
    }

    fn say_alive(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(self.throttles.say_alive());
    }

    /// Takes the turns that are due, and tells of how many keys something was said.
    fn turn(&self) -> usize {
        self.say_alive();
        let mut said = 0;
        for (number, limit, outgoing) in self.throttles.compose_due() {
            said += outgoing.turn.keys.len();
            let reply = self.store.apply(&outgoing.turn);
            self.throttles.take_in(number, &limit, reply);
        }
        said
    }

    /// One request, which waits for the store where it must.
    pub(super) fn request(&self, key: Key) -> bool {
        let mut decision = self.limit.try_spend(key, 1, self.clock.now());
        for _ in 0..3 {
            if decision != Decision::Draw {
                break;
            }
            self.limit.counter().want_draw(key, 1);
            self.turn();
            decision = self.limit.try_spend(key, 1, self.clock.now());
            if decision == Decision::Draw {
                let coupon = self.limit.counter().spend_coupon(key, 1, self.clock.now());
                decision = coupon.unwrap_or(Decision::Draw);
            }
        }
        matches!(decision, Decision::Spent { .. })
    }

    pub(super) fn wait(&self, span: Duration) {
        self.clock.advance(span);
        self.turn();
    }
}

pub(super) fn rule(name: &str, rate: &str, tolerance: f64) -> LimitRule {
    let rate = rate.parse().unwrap();
    LimitRule {
        name: name.parse().unwrap(),
        rate,
        counting: Counting::default(),
        tolerance,
        on_fault: OnStoreFault::Local,
    }
}

pub(super) fn small() -> Settings {
    Settings {
        hot_keys: 100,
        cold_slots: 1_024,
        partitions: 2,
        ..Settings::default()
    }
}

#[test]
fn a_turn_speaks_of_so_many_keys_and_the_next_ones_of_the_rest() {
    let settings = Settings {
        hot_keys: 10_000,
        partitions: 1,
        ..small()
    };
    let scene = Scene::new("1000/min", 0.0, settings);
    let counter = scene.limit.counter();
    (0..1_500).for_each(|number| counter.announce(Key(number)));
    let mut turns = 0;
    while counter.hot_count.load(Ordering::Relaxed) < 1_500 {
        scene.clock.advance(counter.pace());
        for (number, limit, outgoing) in scene.throttles.compose_due() {
            assert!(outgoing.turn.keys.len() <= 512, "{}", outgoing.turn.keys.len());
            let reply = scene.store.apply(&outgoing.turn);
            scene.throttles.take_in(number, &limit, reply);
        }
        turns += 1;
        assert!(turns < 20, "the rest is not forgotten");
    }
}

#[test]
fn of_keys_in_steady_use_hardly_a_request_waits_for_the_store() {
    let settings = Settings {
        hot_keys: 1_000,
        cold_slots: 65_536,
        partitions: 16,
        ..Settings::default()
    };
    let scene = Scene::new("500/10s", 0.0, settings);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut waited, mut said) = (0, 0);
    // All of them outgrow half their share first, and then each wants a fifth of the limit.
    for (seconds, per_tick) in [(30, 750), (10, 250)] {
        (waited, said) = (0, 0);
        for _ in 0..seconds * 40 {
            for _ in 0..per_tick {
                let client = random.u128(..1_000);
                let key = Key(client << 64 | client);
                if scene.limit.try_spend(key, 1, scene.clock.now()) == Decision::Draw {
                    waited += 1;
                    scene.limit.counter().want_draw(key, 1);
                    said += scene.turn();
                }
            }
            scene.clock.advance(Duration::from_millis(25));
            said += scene.turn();
        }
    }
    assert!(waited < 100_000 / 100, "of 100,000 requests {waited}");
    assert!(said < 2 * 10 * 1_000, "each key twice a second at most: {said}");
}

#[test]
fn a_key_that_is_used_little_is_let_go_while_it_is_used() {
    let scene = Scene::new("100/s", 0.0, small());
    let hot = || {
        scene
            .limit
            .counter()
            .hot_count
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let ask = |seconds: u64, per_second: u64| {
        for _ in 0..seconds * per_second {
            assert!(scene.request(CLIENT), "it is within its limit");
            for _ in 0..4 {
                scene.wait(Duration::from_millis(250 / per_second));
            }
        }
    };
    ask(6, 50);
    assert_eq!(hot(), 1, "more than half its share");
    ask(4, 5);
    assert_eq!(hot(), 0, "a tenth of its share");
    ask(3, 50);
    assert_eq!(hot(), 1);
}

#[test]
fn a_client_gets_exactly_its_limit_at_any_speed() {
    for gap in [0, 1, 7, 13, 40] {
        for limit in [1, 2, 3, 5, 20, 100] {
            let scene = Scene::new(&format!("{limit}/min"), 0.0, small());
            let mut admitted = 0;
            for _ in 0..limit + 5 {
                admitted += u64::from(scene.request(CLIENT));
                scene.wait(Duration::from_millis(gap));
            }
            admitted += (0..limit + 5).map(|_| u64::from(scene.request(CLIENT))).sum::<u64>();
            assert_eq!(admitted, limit, "{limit} a minute, a request every {gap} ms");
        }
    }
}

#[test]
fn a_tolerant_limit_stays_within_its_tolerance() {
    for gap in [0, 3, 40] {
        let scene = Scene::new("100/min", 0.05, small());
        let mut admitted = 0;
        for _ in 0..200 {
            admitted += u64::from(scene.request(CLIENT));
            scene.wait(Duration::from_millis(gap));
        }
        assert!(
            (100..=105).contains(&admitted),
            "{admitted} of 100, a request every {gap} ms"
        );
    }
}

#[test]
fn many_threads_on_one_key_never_get_more_than_its_limit() {
    let scene = Scene::new("1000/min", 0.0, small());
    let admitted = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if scene.request(CLIENT) {
                        admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let admitted = admitted.into_inner();
    assert!((900..=1000).contains(&admitted), "{admitted} of 1000");
}

#[test]
fn what_is_given_back_was_never_spent() {
    let scene = Scene::new("10/min", 0.0, small());
    for _ in 0..100 {
        let Decision::Spent { receipt, .. } = scene.limit.try_spend(CLIENT, 1, scene.clock.now()) else {
            panic!("nothing has been spent");
        };
        scene.limit.give_back(CLIENT, 1, receipt);
    }
    assert_eq!((0..20).filter(|_| scene.request(CLIENT)).count(), 10);
}

#[test]
fn a_request_that_was_held_elsewhere_takes_nothing_back_of_what_was_counted_meanwhile() {
    let scene = Scene::new("10/s", 0.0, small());
    let came = scene.clock.now();
    (0..20).for_each(|_| scene.wait(Duration::from_secs(1)));
    let before = (0..4).filter(|_| scene.request(CLIENT)).count();
    let _late = scene.limit.try_spend(Key(9), 1, came);
    let after = (0..20).filter(|_| scene.request(CLIENT)).count();
    assert_eq!(
        (before, after),
        (4, 6),
        "admitted before and after somebody came with an old clock"
    );
}

#[test]
fn a_flood_of_keys_is_not_refused_and_takes_no_more_memory() {
    let scene = Scene::new("20/min", 0.0, small());
    for client in 0..60_000_u128 {
        let key = Key(client << 64 | client);
        assert!(scene.request(key), "client {client} was refused its first request");
        if client % 1_000 == 0 {
            scene.wait(Duration::from_millis(25));
        }
    }
    assert!(
        scene.limit.counter().hot.len() <= small().hot_keys,
        "{}",
        scene.limit.counter().hot.len()
    );
}

#[test]
fn a_client_that_is_used_up_stays_so_in_a_flood_of_new_keys() {
    let scene = Scene::new("5/min", 0.0, small());
    assert_eq!((0..20).filter(|_| scene.request(CLIENT)).count(), 5);
    for client in 100..3_000_u128 {
        scene.request(Key(client << 64 | client));
    }
    assert!(!scene.request(CLIENT));
}

#[test]
fn a_reload_that_changes_nothing_keeps_the_counts_and_one_that_changes_the_window_does_not() {
    let mut scene = Scene::new("10/min", 0.0, small());
    assert_eq!((0..20).filter(|_| scene.request(CLIENT)).count(), 10);
    for (rate, refused) in [("10/min", true), ("8/min", true), ("10/h", false)] {
        scene.replan(rule("one", rate, 0.0));
        assert_eq!(scene.request(CLIENT), !refused, "{rate}");
    }
}

#[test]
fn a_raised_limit_holds_for_those_who_are_being_refused() {
    let mut scene = Scene::new("5/h", 0.0, small());
    let admitted = |scene: &Scene, requests: usize| (0..requests).filter(|_| scene.request(CLIENT)).count();
    assert_eq!(admitted(&scene, 10), 5);
    for _ in 0..60 {
        scene.wait(Duration::from_secs(1));
        assert_eq!(admitted(&scene, 10), 0);
    }
    scene.replan(rule("one", "50/h", 0.0));
    scene.wait(Duration::from_millis(100));
    assert_eq!(admitted(&scene, 50), 45);
}

#[test]
fn one_name_is_one_limit() {
    let scene = Scene::new("10/min", 0.0, small());
    scene.throttles.begin_plan();
    let first = scene.throttles.limit(rule("shared", "10/min", 0.0)).unwrap();
    let second = scene.throttles.limit(rule("shared", "10/min", 0.0)).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let misfit = scene.throttles.limit(rule("shared", "20/min", 0.0)).unwrap_err();
    assert!(misfit.message.contains("`shared`"), "{}", misfit.message);
}

#[test]
fn limits_that_nobody_is_near_share_the_turns_in_which_they_listen() {
    let settings = Settings {
        partitions: 16,
        ..small()
    };
    let scene = Scene::new("10/min", 0.0, settings);
    let fleet = |size: u64| Fleet {
        timeline: vec![(Timestamp::default(), (0..size).map(GatewayId).collect())],
        ..Fleet::default()
    };
    let listen = |size| {
        scene
            .throttles
            .listen_every(&fleet(size), scene.throttles.active().len())
    };
    assert_eq!(listen(1), None, "there is nobody to listen to");
    assert_eq!(listen(2), Some(Duration::from_secs(1)));
    scene.throttles.begin_plan();
    for number in 0..12 {
        scene
            .throttles
            .limit(rule(&format!("limit-{number}"), "10/min", 0.0))
            .unwrap();
    }
    scene.throttles.commit_plan();
    assert_eq!(listen(2), Some(Duration::from_secs(6)), "192 partitions, 32 a second");
}

#[test]
fn a_refused_plan_changes_no_limit_that_runs() {
    let scene = Scene::new("10/min", 0.0, small());
    scene.throttles.begin_plan();
    drop(scene.throttles.limit(rule("one", "1/min", 0.0)).unwrap());
    scene.throttles.begin_plan();
    assert_eq!((0..20).filter(|_| scene.request(CLIENT)).count(), 10);
}

#[test]
fn a_refused_plan_shows_nothing_of_its_limits() {
    let scene = Scene::new("10/min", 0.0, small());
    let bound = || METRICS.throttle_overshoot_bound.with_label_values(&["kept"]).get();
    scene.throttles.begin_plan();
    scene.throttles.limit(rule("kept", "10/min", 0.05)).unwrap();
    scene.throttles.commit_plan();
    for begins_another in [false, true] {
        scene.throttles.begin_plan();
        scene.throttles.limit(rule("kept", "20/hour", 0.5)).unwrap();
        scene.throttles.limit(rule("drafted", "10/min", 0.5)).unwrap();
        assert_eq!(bound(), 0.05);
        if begins_another {
            scene.throttles.begin_plan();
        } else {
            scene.throttles.abandon_plan();
        }
        let shown = METRICS.render();
        assert!(!shown.contains("\"drafted\""), "{shown}");
        assert!(shown.contains("tidegate_throttle_total{limit=\"kept\",verdict=\"allowed\"} 0"));
    }
}

/// A store that never answers.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl LimitStore for Silent {
    async fn limit_turn(
        &self,
        _: &crate::store::limits::LimitTurn,
    ) -> Result<crate::store::limits::LimitReply, crate::store::limits::StoreFault> {
        std::future::pending().await
    }

    async fn alive(&self, _: GatewayId, _: &Fleet) -> Result<Fleet, crate::store::limits::StoreFault> {
        std::future::pending().await
    }
}

/// A store whose first calls of either kind break in the middle.
#[derive(Debug)]
struct Breaking {
    store: MemoryLimits,
    breaks: [AtomicU64; 2],
}

impl Breaking {
    fn count_down(&self, kind: usize) {
        let left = self.breaks[kind].fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "this is the panic that the test is about");
    }
}

#[async_trait::async_trait]
impl LimitStore for Breaking {
    async fn limit_turn(
        &self,
        turn: &crate::store::limits::LimitTurn,
    ) -> Result<crate::store::limits::LimitReply, StoreFault> {
        self.count_down(0);
        self.store.limit_turn(turn).await
    }

    async fn alive(&self, gateway: GatewayId, fleet: &Fleet) -> Result<Fleet, StoreFault> {
        self.count_down(1);
        self.store.alive(gateway, fleet).await
    }
}

#[tokio::test(start_paused = true)]
async fn limits_go_on_after_turns_that_panicked() {
    let clock = VirtualClock::from(Timestamp::from_secs(1_000_000));
    let store = Arc::new(Breaking {
        store: MemoryLimits::new(Arc::clone(&clock) as Arc<dyn Clock>),
        breaks: [AtomicU64::new(0), AtomicU64::new(2)],
    });
    let throttles = Throttles::new(
        small(),
        Arc::clone(&store) as Arc<dyn LimitStore>,
        Arc::clone(&clock) as _,
    );
    throttles.begin_plan();
    let limit = throttles.limit(rule("one", "10/min", 0.0)).unwrap();
    throttles.commit_plan();
    let (_running, stop) = watch::channel(false);
    tokio::spawn(Arc::clone(&throttles).drive(stop));
    let ask = async |key| match limit.try_spend(key, 1, clock.now()) {
        Decision::Draw => limit.draw(key, 1, clock.now()).await,
        decided => decided,
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    store.breaks[0].store(4, Ordering::SeqCst);
    for key in (1_000..1_010).map(Key) {
        for _ in 0..10 {
            let _may_wait_for_a_broken_turn = ask(key).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for key in (2_000..2_010).map(Key) {
        for _ in 0..10 {
            assert!(matches!(ask(key).await, Decision::Spent { .. }), "{key:?}");
        }
        assert!(matches!(ask(key).await, Decision::Limited { .. }), "{key:?}");
    }
    assert_eq!(store.breaks.each_ref().map(|left| left.load(Ordering::SeqCst)), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_store_each_rule_does_what_it_says() {
    let clock = ManualClock::at(Timestamp::from_secs(1_000_000));
    for (on_fault, expected) in [
        (OnStoreFault::Local, 10),
        (OnStoreFault::Allow, 30),
        (OnStoreFault::Deny, 0),
    ] {
        let throttles = Throttles::new(small(), Arc::new(Silent), Arc::clone(&clock) as Arc<dyn Clock>);
        throttles.begin_plan();
        let limit = throttles
            .limit(LimitRule {
                on_fault,
                ..rule("one", "10/min", 0.0)
            })
            .unwrap();
        throttles.commit_plan();
        let mut admitted = 0;
        for _ in 0..30 {
            let decision = match limit.try_spend(CLIENT, 1, clock.now()) {
                Decision::Draw => limit.draw(CLIENT, 1, clock.now()).await,
                decided => decided,
            };
            admitted += u64::from(matches!(decision, Decision::Spent { .. }));
        }
        assert_eq!(admitted, expected, "{on_fault:?}");
    }
}

#[test]
fn without_a_store_a_limit_that_allows_goes_on_refusing_nobody() {
    for (on_fault, admitted) in [(OnStoreFault::Allow, 10), (OnStoreFault::Deny, 0)] {
        let scene = Scene::new("10/min", 0.0, small());
        scene.throttles.begin_plan();
        let limit = scene.throttles.limit(LimitRule {
            on_fault,
            ..rule("one", "10/min", 0.0)
        });
        scene.throttles.commit_plan();
        assert_eq!((0..20).filter(|_| scene.request(CLIENT)).count(), 10);
        scene.throttles.take_in(0, &scene.limit, Err(StoreFault::Timeout));
        let limit = limit.unwrap();
        let spends = || matches!(limit.try_spend(CLIENT, 1, scene.clock.now()), Decision::Spent { .. });
        assert_eq!((0..10).filter(|_| spends()).count(), admitted, "{on_fault:?}");
    }
}

#[test]
fn keys_that_are_on_their_way_cut_nobody_off() {
    let scene = Scene::new("10/min", 0.0, small());
    for (fault, cuts_off) in [(StoreFault::Moving, false), (StoreFault::ClusterDown, true)] {
        scene.throttles.take_in(0, &scene.limit, Err(fault));
        assert_eq!(scene.throttles.is_cut_off(), cuts_off, "{fault}");
    }
}

#[test]
fn what_a_lost_answer_granted_and_what_nobody_fetched_is_stranded() {
    for (hot_keys, wanted) in [(100, None), (0, Some(5))] {
        let scene = Scene::new("1000/min", 0.0, Settings { hot_keys, ..small() });
        scene.throttles.begin_plan();
        let limit = scene.throttles.limit(rule("stranding", "1000/min", 0.0)).unwrap();
        scene.throttles.commit_plan();
        let (counter, before) = (limit.counter(), limit.counter().stranded.get());
        counter.want_draw(CLIENT, 5);
        let due = scene.throttles.compose_due();
        let asked: u64 = due
            .iter()
            .flat_map(|(_, _, sent)| &sent.turn.keys)
            .map(|key| key.ask)
            .sum();
        assert!(wanted.unwrap_or(asked) == asked && asked > 0);
        for (number, limit, outgoing) in due {
            assert!(scene.store.apply(&outgoing.turn).is_ok());
            scene.throttles.take_in(number, &limit, Err(StoreFault::Timeout));
        }
        assert_eq!(counter.stranded.get(), before, "the answer may come yet");
        scene.wait(counter.pace());
        assert_eq!(counter.stranded.get(), before + asked);
        if wanted.is_some() {
            counter.want_draw(CLIENT, 5);
            scene.wait(counter.pace());
            let fetched = counter.spend_coupon(CLIENT, 2, scene.clock.now());
            assert!(matches!(fetched, Some(Decision::Spent { .. })));
            counter.want_draw(CLIENT, 5);
            scene.wait(counter.pace());
            assert_eq!(counter.stranded.get(), before + asked + 3);
        }
    }
}

/// What a gateway holds counts as used, and when it will no longer count is tomorrow; but it comes back long before.
#[test]
fn what_another_gateway_held_in_vain_is_had_when_it_has_come_back() {
    let [left, taken] = Scene::two("100/day");
    let before = (0..30).filter(|_| left.request(CLIENT)).count();
    assert_eq!(before, 30, "within the limit");
    let burst = (0..150).filter(|_| taken.request(CLIENT)).count();
    assert!(burst < 70, "the other holds some: {burst}");
    let mut admitted = before + burst;
    for _ in 0..300 {
        taken.wait(Duration::from_secs(1));
        left.turn();
        admitted += usize::from(taken.request(CLIENT));
    }
    assert_eq!(admitted, 100);
}

#[test]
fn who_is_refused_for_what_another_gateway_has_not_said_yet_is_asked_back_soon() {
    let [one, other] = Scene::two("8/day");
    let before = (0..8).filter(|_| one.request(CLIENT)).count();
    assert!(before < 8, "the other's share is kept back");
    let refused = one.limit.try_spend(CLIENT, 1, one.clock.now());
    let soon = Duration::from_millis(1_100);
    assert!(
        matches!(refused, Decision::Limited { retry_after } if retry_after <= soon),
        "{refused:?}"
    );
    for _ in 0..3 {
        one.clock.advance(soon / 2);
        let _said = other.turn();
    }
    let after = (0..8).filter(|_| one.request(CLIENT)).count();
    assert_eq!(before + after, 8);
    let refused = one.limit.try_spend(CLIENT, 1, one.clock.now());
    assert!(
        matches!(refused, Decision::Limited { retry_after } if retry_after > soon),
        "{refused:?}"
    );
}

#[test]
fn a_fleet_that_is_replaced_again_and_again_still_gives_most_of_a_days_limit() {
    let mut fleet = Vec::from(Scene::two("1000/day"));
    let clock = Arc::clone(&fleet[0].clock);
    let second = |fleet: &[Scene]| {
        clock.advance(Duration::from_secs(1));
        fleet.iter().for_each(|gateway| _ = gateway.turn());
    };
    for _ in 0..3 * fleet.len() {
        let left = fleet.remove(0);
        fleet.push(Scene::at(Arc::clone(&clock), left.store, "1000/day", 0.0, small()));
        (0..10).for_each(|_| second(&fleet));
    }
    let mut admitted = 0;
    for _ in 0..300 {
        second(&fleet);
        admitted += fleet
            .iter()
            .map(|gateway| (0..5).filter(|_| gateway.request(CLIENT)).count())
            .sum::<usize>();
    }
    assert!(
        (875..=1_000).contains(&admitted),
        "{admitted} of 1,000 after three rollouts"
    );
}

#[test]
fn what_a_limit_showed_ends_with_it() {
    let scene = Scene::new("10/min", 0.0, small());
    let run = |rate: Option<&str>| {
        scene.throttles.begin_plan();
        let limit = rate.map(|rate| scene.throttles.limit(rule("shown", rate, 0.0)).unwrap());
        scene.throttles.commit_plan();
        limit
    };
    let limit = run(Some("10/min")).unwrap();
    scene.say_alive();
    for _ in 0..8 {
        let _spent = limit.try_spend(CLIENT, 1, scene.clock.now());
    }
    scene.turn();
    let hot = || METRICS.throttle_hot_keys.with_label_values(&["shown"]).get();
    assert_eq!(hot(), 1);
    drop((limit, run(Some("10/hour"))));
    assert_eq!(hot(), 0, "the limit counts from the start again");
    run(None);
    assert!(METRICS.throttle_hot_keys.remove_label_values(&["shown"]).is_err());
    assert!(METRICS.throttle_overshoot.remove_label_values(&["shown"]).is_err());
}
