use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use super::*;
use crate::base::clock::{Clock, VirtualClock};
use crate::store::memory::limits::MemoryLimits;
use crate::telemetry::metrics::METRICS;
use crate::throttle::{Decision, Limit, LimitRule, OnStoreFault, Settings, Throttles};

const CLIENTS: [Key; 2] = [Key(7 << 64 | 7), Key(8 << 64 | 8)];

const PATIENT: Patience = Patience {
    within: Duration::from_secs(60),
    queue: 1_000,
};

/// A gateway in front of a store of its own, which drives itself until `stop` is dropped.
struct Scene {
    limit: Arc<Limit>,
    _stop: watch::Sender<bool>,
}

impl Scene {
    async fn open(rate: &str) -> Self {
        let clock: Arc<dyn Clock> = VirtualClock::from(Timestamp::from_secs(1_000_000));
        let store = Arc::new(MemoryLimits::new(Arc::clone(&clock)));
        let settings = Settings {
            cold_slots: 1_024,
            partitions: 2,
            ..Settings::default()
        };
        let throttles = Throttles::new(settings, store, clock);
        throttles.begin_plan();
        let rule = LimitRule {
            name: "held".parse().unwrap(),
            rate: rate.parse().unwrap(),
            counting: crate::throttle::Counting::default(),
            tolerance: 0.0,
            on_fault: OnStoreFault::Local,
        };
        let limit = throttles.limit(rule).unwrap();
        throttles.commit_plan();
        throttles.say_alive().await;
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(throttles.drive(stopping));
        Self { limit, _stop: stop }
    }
}

/// One request as a step of a chain treats it: whether it was admitted, and how long that took.
async fn ask(limit: &Limit, key: Key, patience: Patience) -> (bool, Duration) {
    let came = limit.now();
    let decision = match limit.try_spend(key, 1, came) {
        spent @ Decision::Spent { .. } => spent,
        limited => match limit.join_line(key, 1, came, patience) {
            Some(place) => limit.hold(place, key, 1, came + patience.within).await.decision,
            None => limited,
        },
    };
    (matches!(decision, Decision::Spent { .. }), limit.now().since(came))
}

#[tokio::test(start_paused = true)]
async fn the_order_of_admission_is_the_order_of_arrival() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let scene = Scene::open("20/s").await;
        let admitted = Arc::new(Mutex::new([Vec::new(), Vec::new()]));
        let mut requests = JoinSet::new();
        for number in 0..150 {
            let (limit, admitted) = (Arc::clone(&scene.limit), Arc::clone(&admitted));
            let client = random.usize(..2);
            // Some lose their patience, and some go away.
            let impatient = random.u8(..5) == 0;
            let within = Duration::from_millis(if impatient { random.u64(1..900) } else { 60_000 });
            let task = requests.spawn(async move {
                if ask(&limit, CLIENTS[client], Patience { within, ..PATIENT }).await.0 {
                    admitted.lock().unwrap()[client].push(number);
                }
            });
            yield_now().await;
            if random.u8(..10) == 0 {
                task.abort();
            }
            sleep(Duration::from_millis(random.u64(..15))).await;
        }
        while requests.join_next().await.is_some() {}
        let admitted = admitted.lock().unwrap();
        assert!(admitted.iter().all(|of| of.len() > 30), "seed {seed}: {admitted:?}");
        assert!(admitted.iter().all(|of| of.is_sorted()), "seed {seed}: {admitted:?}");
        assert_eq!(scene.limit.counter().line.held(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn held_requests_get_what_the_limit_gives_and_no_more() {
    let scene = Scene::open("20/s").await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let limit = Arc::clone(&scene.limit);
        requests.spawn(async move { ask(&limit, CLIENTS[0], PATIENT).await });
        yield_now().await;
    }
    let mut waits: Vec<_> = requests
        .join_all()
        .await
        .into_iter()
        .map(|(admitted, wait)| {
            assert!(admitted);
            wait
        })
        .collect();
    waits.sort();
    for (position, wait) in waits.iter().enumerate() {
        let (least, most) = (position as f64 / 20.0 - 1.01, position as f64 / 20.0 + 1.0);
        let wait = wait.as_secs_f64();
        assert!((least..most).contains(&wait), "{position} waited {wait}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_longer_than_their_patience_and_nobody_in_vain() {
    let scene = Scene::open("5/min").await;
    for _ in 0..5 {
        assert!(ask(&scene.limit, CLIENTS[0], PATIENT).await.0);
    }
    // It is known by then that there is nothing for a minute.
    let short = Patience {
        within: Duration::from_secs(2),
        ..PATIENT
    };
    let (admitted, waited) = ask(&scene.limit, CLIENTS[0], short).await;
    assert!(!admitted && waited < Duration::from_millis(100), "{waited:?}");
    // Who stands behind others cannot know, and is let go when their time is up.
    let first = {
        let limit = Arc::clone(&scene.limit);
        tokio::spawn(async move {
            ask(
                &limit,
                CLIENTS[0],
                Patience {
                    within: Duration::from_secs(200),
                    ..PATIENT
                },
            )
            .await
        })
    };
    yield_now().await;
    let behind = scene.limit.join_line(CLIENTS[0], 1, scene.limit.now(), short).unwrap();
    let until = scene.limit.now() + short.within;
    let held = scene.limit.hold(behind, CLIENTS[0], 1, until).await;
    assert!(matches!(held.decision, Decision::Limited { .. }));
    assert_eq!(scene.limit.now(), until);
    assert!(first.await.unwrap().0);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake_though_there_is_budget() {
    let scene = Scene::open("5/min").await;
    let place = scene
        .limit
        .join_line(CLIENTS[0], 1, scene.limit.now(), PATIENT)
        .unwrap();
    let newcomer = |client| scene.limit.try_spend(client, 1, scene.limit.now());
    assert!(matches!(newcomer(CLIENTS[0]), Decision::Limited { .. }));
    assert!(
        matches!(newcomer(CLIENTS[1]), Decision::Spent { .. }),
        "another key has a line of its own"
    );
    drop(place);
    assert!(matches!(newcomer(CLIENTS[0]), Decision::Spent { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_told_at_least_what_those_ahead_will_take() {
    let scene = Scene::open("2/s").await;
    let _places: Vec<_> = (0..5)
        .map(|_| {
            scene
                .limit
                .join_line(CLIENTS[0], 1, scene.limit.now(), PATIENT)
                .unwrap()
        })
        .collect();
    let decision = scene.limit.try_spend(CLIENTS[0], 1, scene.limit.now());
    assert_eq!(
        decision,
        Decision::Limited {
            retry_after: Duration::from_secs(2)
        }
    );
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_and_a_place_left_is_free() {
    let line = Line::new(METRICS.throttle_held.with_label_values(&["bounded"]));
    let first = line.join(CLIENTS[0], 1, Timestamp::from_secs(1), 2).unwrap();
    let second = line.join(CLIENTS[0], 3, Timestamp::from_secs(1), 2).unwrap();
    assert!(
        line.join(CLIENTS[1], 1, Timestamp::from_secs(1), 2).is_none(),
        "the bound is of all keys together"
    );
    assert_eq!(line.ahead(CLIENTS[0]).unwrap().cost, 4);
    assert_eq!(METRICS.throttle_held.with_label_values(&["bounded"]).get(), 2);
    let moved = AtomicBool::new(false);
    let moving = async {
        second.is_first().await;
        moved.store(true, Ordering::Relaxed);
    };
    tokio::join!(moving, async {
        yield_now().await;
        assert!(!moved.load(Ordering::Relaxed), "somebody is ahead");
        drop(first);
    });
    assert!(line.join(CLIENTS[1], 1, Timestamp::from_secs(1), 2).is_some());
    drop(second);
    assert_eq!((line.held(), line.ahead(CLIENTS[0])), (0, None));
    assert!(line.keys().is_empty(), "nothing is kept for a key without a line");
    assert_eq!(METRICS.throttle_held.with_label_values(&["bounded"]).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_came_first_is_first_however_late_they_join() {
    let line = Line::new(METRICS.throttle_held.with_label_values(&["late"]));
    let at = Timestamp::from_secs;
    let second = line.join(CLIENTS[0], 1, at(2), 9).unwrap();
    assert!(second.leads());
    let third = line.join(CLIENTS[0], 1, at(2), 9).unwrap();
    let first = line.join(CLIENTS[0], 1, at(1), 9).unwrap();
    assert_eq!([first.leads(), second.leads(), third.leads()], [true, false, false]);
    drop(first);
    assert!(second.leads());
    drop(second);
    assert!(third.leads());
}
