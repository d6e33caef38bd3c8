use std::collections::HashMap;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::base::clock::{Clock, ManualClock, Timestamp};
use crate::base::exchange::{HeaderEdit, Reply, Scheme};
use crate::plugins::Env;
use crate::store::memory::limits::MemoryLimits;
use crate::throttle::{Settings, Throttles};

/// A plugin on the real engine, which is driven while the test runs. Time stands still.
struct Scene {
    plugin: RateLimit,
    _stop: watch::Sender<bool>,
}

impl Scene {
    async fn new(written: Value) -> Self {
        let clock: Arc<dyn Clock> = ManualClock::at(Timestamp::from_secs(1_000_020));
        let settings = Settings { hot_keys: 100, cold_slots: 1_024, partitions: 2, ..Settings::default() };
        let store = Arc::new(MemoryLimits::new(Arc::clone(&clock)));
        let throttles = Throttles::new(settings, store, clock);
        let config: Config = serde_json::from_value(written).unwrap();
        let (route, rooms) = ("checkout".parse().unwrap(), HashMap::new());
        throttles.begin_plan();
        let plugin = config.build(&Env { route: &route, earlier: &[], throttles: &throttles, rooms: &rooms }).unwrap();
        throttles.commit_plan();
        throttles.say_alive().await;
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(throttles.drive(stopped));
        Self { plugin, _stop: stop }
    }

    /// Asks once: the reply if there is one, and what the client is told.
    async fn ask(&self, headers: &HeaderMap) -> (Option<Reply>, Effects) {
        let mut effects = Effects::default();
        let reply = decided(self.plugin.request(&request(headers), &mut effects)).await;
        (reply, effects)
    }

    /// The statuses of so many requests; 200 for those that go on.
    async fn statuses(&self, requests: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..requests {
            let (reply, _) = self.ask(&HeaderMap::new()).await;
            statuses.push(reply.map_or(200, |reply| reply.status.as_u16()));
        }
        statuses
    }
}

async fn decided(mut verdict: Verdict<'_>) -> Option<Reply> {
    loop {
        match verdict {
            Verdict::Continue => return None,
            Verdict::Reply(reply) => return Some(*reply),
            Verdict::Hold(decision) => verdict = decision.await,
        }
    }
}

fn limit(name: &str, rate: &str, more: Value) -> Value {
    let mut limit = json!({ "name": name, "key": ["client_ip"], "limit": rate });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

fn request(headers: &HeaderMap) -> Request<'_> {
    Request {
        now: Timestamp::from_secs(1_000_020),
        id: "r-1",
        route: None,
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "shop.example.com",
        path: "/",
        query: None,
        headers,
        client_ip: [192, 0, 2, 1].into(),
    }
}

fn told(effects: &Effects, wanted: &str) -> String {
    let values = effects.to_client.iter().filter_map(|edit| match edit {
        HeaderEdit::Set(name, value) | HeaderEdit::Add(name, value) if name == wanted => value.to_str().ok(),
        HeaderEdit::Set(..) | HeaderEdit::Add(..) | HeaderEdit::Remove(_) => None,
    });
    values.collect::<Vec<_>>().join("|")
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_refused_and_told_when_to_come_back() {
    let scene = Scene::new(json!([limit("t1", "4/min", json!({}))])).await;
    let (reply, effects) = scene.ask(&HeaderMap::new()).await;
    assert!(reply.is_none());
    assert_eq!(told(&effects, "ratelimit-policy"), "\"t1\";q=4;w=60");
    assert_eq!(told(&effects, "ratelimit"), "\"t1\";r=3;t=60");
    assert_eq!(scene.statuses(4).await, [200, 200, 200, 429]);
    let (reply, effects) = scene.ask(&HeaderMap::new()).await;
    let reply = reply.unwrap();
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["violated-policies"], json!(["t1"]));
    assert_eq!(told(&effects, "x-ratelimit-limit"), "4");
    assert_eq!(told(&effects, "x-ratelimit-remaining"), "0");
    let retry = reply.headers.iter().find(|(name, _)| name == "retry-after").unwrap().1.to_str().unwrap();
    assert!((1..=80).contains(&retry.parse::<u64>().unwrap()), "{retry}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_costs_the_other_limits_nothing() {
    let limits = json!([limit("wide", "5/min", json!({})), limit("narrow", "2/min", json!({ "key": ["host"] }))]);
    let scene = Scene::new(limits).await;
    assert_eq!(scene.statuses(10).await, [200, 200, 429, 429, 429, 429, 429, 429, 429, 429]);
    let (_, effects) = scene.ask(&HeaderMap::new()).await;
    assert!(told(&effects, "ratelimit").starts_with("\"wide\";r=3;"), "{}", told(&effects, "ratelimit"));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_refuses_nobody_and_tells_nobody() {
    let scene = Scene::new(json!([limit("dry", "1/min", json!({ "dry_run": true }))])).await;
    for _ in 0..3 {
        let (reply, effects) = scene.ask(&HeaderMap::new()).await;
        assert!(reply.is_none() && effects.to_client.is_empty());
    }
    let count = |verdict| METRICS.throttle_total.with_label_values(&["dry", verdict]).get();
    assert_eq!((count("allowed"), count("would_limit")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn who_lacks_the_key_gets_what_the_operator_chose() {
    let of = |name: &str, missing: &str| {
        json!([limit(name, "1/min", json!({ "key": [{ "header": "x-client" }], "missing": missing }))])
    };
    assert_eq!(Scene::new(of("m1", "skip")).await.statuses(3).await, [200, 200, 200]);
    assert_eq!(Scene::new(of("m2", "together")).await.statuses(3).await, [200, 429, 429]);
    assert_eq!(Scene::new(of("m3", "reject")).await.statuses(2).await, [400, 400]);
}
