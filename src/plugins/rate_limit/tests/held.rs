//! Several limits and a line: what a held request holds, and when it ends. Time is tokio's paused clock, and the
//! gateway drives itself.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::*;
use crate::base::clock::{Clock, VirtualClock};

/// A gateway that drives itself.
struct Live {
    clock: Arc<VirtualClock>,
    throttles: Arc<Throttles>,
    _stop: watch::Sender<bool>,
}

impl Live {
    async fn open() -> Self {
        let clock = VirtualClock::from(Sample::new().request().now);
        let store = Arc::new(MemoryLimits::new(clock.clone()));
        let settings = Settings {
            cold_slots: 1_024,
            partitions: 2,
            ..Settings::default()
        };
        let throttles = Throttles::new(settings, store, clock.clone());
        throttles.say_alive().await;
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(Arc::clone(&throttles).drive(stopping));
        Self {
            clock,
            throttles,
            _stop: stop,
        }
    }

    fn plan<const N: usize>(&self, steps: [Value; N]) -> [Arc<RateLimit>; N] {
        build(&self.throttles, steps).map(Arc::new)
    }

    /// The status of one request (0: it goes on), and how long that took.
    fn ask(&self, plugin: &Arc<RateLimit>) -> JoinHandle<(u16, Duration)> {
        let (plugin, clock) = (Arc::clone(plugin), self.clock.clone());
        tokio::spawn(async move {
            let (sample, came) = (Sample::new(), clock.now());
            let request = Request {
                came,
                now: came,
                ..sample.request()
            };
            let mut effects = Effects::default();
            let mut verdict = plugin.request(&request, &mut effects);
            let status = loop {
                match verdict {
                    Verdict::Continue => break 0,
                    Verdict::Reply(reply) => break reply.status.as_u16(),
                    Verdict::Hold(decision) => verdict = decision.await,
                }
            };
            (status, clock.now().since(came))
        })
    }

    async fn answer(&self, plugin: &Arc<RateLimit>) -> (u16, Duration) {
        self.ask(plugin).await.unwrap()
    }
}

/// A limit by client address that holds for so long.
fn held(name: &str, rate: &str, span: &str) -> Value {
    limit(name, rate, json!({ "over": [{ "delay": { "for": span } }] }))
}

#[tokio::test(start_paused = true)]
async fn a_held_request_holds_no_budget_of_the_other_limits() {
    let live = Live::open().await;
    for (wide, narrow) in [("wide-a", "narrow-a"), ("wide-b", "narrow-b")] {
        let (all, each) = (limit(wide, "3/h", json!({})), held(narrow, "1/2s", "10s"));
        let written = if wide == "wide-a" {
            json!([all, each])
        } else {
            json!([each, all])
        };
        let [both, all] = live.plan([written, all]);
        assert_eq!(live.answer(&both).await.0, 0);
        let waiting = live.ask(&both);
        sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished());
        for _ in 0..2 {
            assert_eq!(live.answer(&all).await.0, 0, "two are left for others while one waits");
        }
        let (status, waited) = waiting.await.unwrap();
        assert_eq!(status, 429, "when its own budget came there was nothing left for all");
        assert!(waited > Duration::from_secs(1), "{waited:?}");
        assert_eq!(METRICS.throttle_held.with_label_values(&[narrow]).get(), 0);
        // What its own limit had granted it was given back.
        let [each] = live.plan([held(narrow, "1/2s", "10s")]);
        assert!(live.answer(&each).await.1 < Duration::from_millis(500));
    }
}

#[tokio::test(start_paused = true)]
async fn two_limits_that_hold_end_within_the_longer_patience() {
    let live = Live::open().await;
    let both = json!([held("first", "2/s", "4s"), held("second", "3/2s", "5s")]);
    let [both] = live.plan([both]);
    let requests: Vec<_> = (0..30).map(|_| live.ask(&both)).collect();
    let (mut admitted, mut longest) = (0, Duration::ZERO);
    for request in requests {
        let (status, waited) = request.await.unwrap();
        assert!(status == 0 || status == 429, "{status}");
        admitted += usize::from(status == 0);
        longest = longest.max(waited);
    }
    assert!(longest <= Duration::from_millis(5_200), "{longest:?}");
    // Three at once and three in every two seconds would be 10, and what is given back is sometimes spent late.
    assert!((5..=10).contains(&admitted), "{admitted}");
    for name in ["first", "second"] {
        assert_eq!(METRICS.throttle_held.with_label_values(&[name]).get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_holds_nobody() {
    let live = Live::open().await;
    let dry = json!({ "dry_run": true, "over": [{ "delay": { "for": "5s" } }] });
    let [dry] = live.plan([limit("dry-held", "1/min", dry)]);
    for _ in 0..3 {
        let (status, waited) = live.answer(&dry).await;
        assert_eq!((status, waited), (0, Duration::ZERO));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(counted("dry-held", "would_limit"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_rejects_does_not_overtake_those_whom_another_step_holds() {
    let live = Live::open().await;
    let (patient, strict) = (held("one-line", "1/2s", "10s"), limit("one-line", "1/2s", json!({})));
    let [patient, strict] = live.plan([patient, strict]);
    assert_eq!(live.answer(&patient).await.0, 0);
    let waiting = live.ask(&patient);
    yield_now().await;
    while !waiting.is_finished() {
        assert_eq!(live.answer(&strict).await.0, 429);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(waiting.await.unwrap().0, 0);
    assert_eq!((counted("one-line", "delayed"), counted("one-line", "expired")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_line_goes_to_the_next_rung() {
    let live = Live::open().await;
    let over = json!({ "over": [{ "delay": { "for": "60s", "queue": 2 } }, "reject"] });
    let [plugin] = live.plan([limit("crowded", "1/10s", over)]);
    assert_eq!(live.answer(&plugin).await.0, 0);
    let held = [live.ask(&plugin), live.ask(&plugin)];
    yield_now().await;
    let (status, waited) = live.answer(&plugin).await;
    assert_eq!((status, waited), (429, Duration::ZERO));
    for request in held {
        assert_eq!(request.await.unwrap().0, 0);
    }
}
