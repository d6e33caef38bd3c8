//! The whole plugin before the real engine and a store in memory. Turns at the store are taken by hand, one whenever
//! a request is held, so each test sees which requests needed one.

mod held;

use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;

use serde_json::{Value, json};

use super::*;
use crate::base::clock::ManualClock;
use crate::base::exchange::sample::{Sample, steps};
use crate::base::exchange::{HeaderEdit, Reply};
use crate::plugins::Env;
use crate::store::limits::StoreFault;
use crate::store::memory::limits::MemoryLimits;
use crate::telemetry::metrics::METRICS;
use crate::throttle::{Settings, Throttles};

/// Turns that a held request may take until it is decided.
const TURNS_MAX: usize = 4;

struct Desk {
    throttles: Arc<Throttles>,
    store: Arc<MemoryLimits>,
    /// Instead of the store's answers.
    fault: Option<StoreFault>,
}

/// What became of one request.
struct Answer {
    reply: Option<Reply>,
    held: bool,
    effects: Effects,
}

impl Desk {
    /// A gateway alone before its store, at the moment of [`Sample`]: a minute begins.
    async fn open() -> Self {
        let clock = ManualClock::at(Sample::new().request().now);
        let store = Arc::new(MemoryLimits::new(clock.clone()));
        let settings = Settings {
            cold_slots: 1_024,
            partitions: 2,
            ..Settings::default()
        };
        let throttles = Throttles::new(settings, store.clone(), clock);
        throttles.say_alive().await;
        Self {
            throttles,
            store,
            fault: None,
        }
    }

    /// The steps of one plan, which now runs.
    fn plan<const N: usize>(&self, steps: [Value; N]) -> [RateLimit; N] {
        build(&self.throttles, steps)
    }

    /// All that is due is told to the store, and its answers are taken in.
    fn turn(&self) {
        for (number, limit, outgoing) in self.throttles.compose_due() {
            let reply = self.fault.map_or_else(|| self.store.apply(&outgoing.turn), Err);
            self.throttles.take_in(number, &limit, reply);
        }
    }

    /// Lets those who ask the store aside do so, and hear what it says.
    async fn answers_aside(&self) {
        for _ in 0..TURNS_MAX {
            tokio::task::yield_now().await;
            self.turn();
        }
        tokio::task::yield_now().await;
    }

    async fn ask(&self, plugin: &RateLimit) -> Answer {
        self.ask_as(plugin, Sample::new()).await
    }

    async fn ask_with(&self, plugin: &RateLimit, name: &'static str, value: &'static str) -> Answer {
        let mut sample = Sample::new();
        sample.headers.insert(name, HeaderValue::from_static(value));
        self.ask_as(plugin, sample).await
    }

    async fn ask_as(&self, plugin: &RateLimit, sample: Sample) -> Answer {
        let request = sample.request();
        let mut effects = Effects::default();
        let (reply, held) = self.decide(plugin.request(&request, &mut effects)).await;
        Answer { reply, held, effects }
    }

    /// The reply, if there is one, and whether the request was held for it.
    async fn decide(&self, verdict: Verdict<'_>) -> (Option<Reply>, bool) {
        match verdict {
            Verdict::Continue => (None, false),
            Verdict::Reply(reply) => (Some(*reply), false),
            Verdict::Hold(future) => (Box::pin(self.decide(self.wait(future).await)).await.0, true),
        }
    }

    async fn wait<T>(&self, mut future: impl Future<Output = T> + Unpin) -> T {
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(decided) = poll_once(&mut future).await {
                return decided;
            }
            self.turn();
        }
        panic!("undecided after {TURNS_MAX} turns")
    }
}

fn build<const N: usize>(throttles: &Throttles, steps: [Value; N]) -> [RateLimit; N] {
    let env = Env {
        throttles,
        rooms: &HashMap::new(),
    };
    throttles.begin_plan();
    let built = steps.map(|step| config(step).build(&env).unwrap());
    throttles.commit_plan();
    built
}

impl Answer {
    /// What the client is told under this name, of all values.
    fn told(&self, name: &str) -> String {
        let values = self.effects.to_client.iter().filter_map(|edit| match edit {
            HeaderEdit::Set(of, value) | HeaderEdit::Add(of, value) if of == name => value.to_str().ok(),
            _ => None,
        });
        values.collect::<Vec<_>>().join("|")
    }

    fn status(&self) -> Option<u16> {
        self.reply.as_ref().map(|reply| reply.status.as_u16())
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context))).await
}

/// What is written as one thing where a list may stand is a list of one; the configuration's reader knows that.
fn config(step: Value) -> Config {
    let listed = |value: Value| if value.is_array() { value } else { json!([value]) };
    let mut limits = listed(step);
    for limit in limits.as_array_mut().unwrap() {
        limit["key"] = listed(limit["key"].take());
    }
    serde_json::from_value(limits).unwrap()
}

/// A limit by client address, with `more` written beside the rest.
fn limit(name: &str, rate: &str, more: Value) -> Value {
    let mut limit = json!({ "name": name, "key": "client_ip", "limit": rate });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

fn counted(name: &str, verdict: &str) -> u64 {
    METRICS.throttle_total.with_label_values(&[name, verdict]).get()
}

#[tokio::test(start_paused = true)]
async fn the_third_of_two_is_refused_and_told_when_to_come_back() {
    let desk = Desk::open().await;
    let [plugin] = desk.plan([limit("plain", "2/min", json!({}))]);
    let first = desk.ask(&plugin).await;
    assert_eq!((first.status(), first.held), (None, false));
    assert_eq!(first.told("ratelimit"), "\"plain\";r=1;t=60");
    assert_eq!(first.told("ratelimit-policy"), "\"plain\";q=2;w=60");
    assert_eq!(desk.ask(&plugin).await.status(), None);
    // The first refusal asks the store; its answer then holds for those that follow.
    for held in [true, false] {
        let refused = desk.ask(&plugin).await;
        assert_eq!((refused.status(), refused.held), (Some(429), held));
        assert_eq!(refused.told("ratelimit"), "\"plain\";r=0;t=90");
        assert_eq!(refused.told("x-ratelimit-remaining"), "0");
        let reply = refused.reply.unwrap();
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["violated-policies"], json!(["plain"]));
        let mut headers = reply.headers.into_iter();
        let after = headers.find_map(|(name, value)| (name == "retry-after").then_some(value));
        let after: u64 = after.unwrap().to_str().unwrap().parse().unwrap();
        assert!((90..=100).contains(&after), "{after}");
    }
    assert_eq!((counted("plain", "allowed"), counted("plain", "limited")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_tells_what_it_holds_and_one_that_leaks_how_many_may_wait() {
    let desk = Desk::open().await;
    for (algorithm, rate, burst, left, policy) in [
        ("token_bucket", "100/s", 500, "r=499;t=1", "q=500;w=5"),
        ("leaky_bucket", "5/s", 20, "r=20;t=1", "q=20;w=4"),
    ] {
        let bucket = json!({ "algorithm": algorithm, "burst": burst });
        let [plugin] = desk.plan([limit(algorithm, rate, bucket)]);
        let answer = desk.ask(&plugin).await;
        assert_eq!(answer.status(), None);
        assert_eq!(answer.told("ratelimit"), format!("\"{algorithm}\";{left}"));
        assert_eq!(answer.told("ratelimit-policy"), format!("\"{algorithm}\";{policy}"));
        assert_eq!(answer.told("x-ratelimit-limit"), burst.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_costs_the_other_limits_nothing_in_either_way_of_deciding() {
    let desk = Desk::open().await;
    let (wide, last) = (limit("wide", "10/min", json!({})), limit("last", "10/min", json!({})));
    let all = json!([wide, limit("narrow", "1/min", json!({})), last]);
    let [all, wide, last] = desk.plan([all, wide, last]);
    assert_eq!(desk.ask(&all).await.status(), None);
    for held in [true, false] {
        let refused = desk.ask(&all).await;
        assert_eq!((refused.status(), refused.held), (Some(429), held));
        assert_eq!(refused.told("ratelimit"), "\"wide\";r=9;t=60, \"narrow\";r=0;t=120");
    }
    assert_eq!(desk.ask(&wide).await.told("x-ratelimit-remaining"), "8");
    assert_eq!(desk.ask(&last).await.told("x-ratelimit-remaining"), "8");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_held_has_spent_nothing() {
    let desk = Desk::open().await;
    let wide = limit("waited", "10/min", json!({}));
    let both = json!([wide, limit("drawn", "1/min", json!({}))]);
    let [both, wide] = desk.plan([both, wide]);
    assert_eq!(desk.ask(&both).await.status(), None);
    let sample = Sample::new();
    let (request, mut effects) = (sample.request(), Effects::default());
    let Verdict::Hold(mut future) = both.request(&request, &mut effects) else {
        panic!("decided without the store")
    };
    assert!(poll_once(&mut future).await.is_pending());
    // Two were let through, and one is held.
    assert_eq!(desk.ask(&wide).await.told("x-ratelimit-remaining"), "7");
    drop(future);
    assert_eq!(desk.ask(&wide).await.told("x-ratelimit-remaining"), "7");
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_headers_refuses_and_says_only_when_to_come_back() {
    let desk = Desk::open().await;
    let silent = limit("silent", "1/min", json!({ "headers": false }));
    let [alone, both] = desk.plan([silent.clone(), json!([silent, limit("told", "9/min", json!({}))])]);
    let first = desk.ask(&alone).await;
    assert!(first.reply.is_none() && first.effects.to_client.is_empty());
    let refused = desk.ask(&alone).await;
    assert_eq!(refused.status(), Some(429));
    assert!(refused.effects.to_client.is_empty());
    let reply = refused.reply.unwrap();
    assert!(reply.headers.iter().any(|(name, _)| name == "retry-after"));
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(!body.contains("silent") && !body.contains("min"), "{body}");
    let beside = desk.ask(&both).await;
    assert_eq!(beside.told("ratelimit-policy"), "\"told\";q=9;w=60");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_refuses_nobody_and_tells_nobody() {
    let desk = Desk::open().await;
    let [plugin] = desk.plan([limit("dry", "1/min", json!({ "dry_run": true }))]);
    for _ in 0..3 {
        let answer = desk.ask(&plugin).await;
        assert!(answer.reply.is_none() && answer.effects.to_client.is_empty());
        assert!(!answer.held, "nobody waits for the store");
        desk.answers_aside().await;
    }
    assert_eq!((counted("dry", "allowed"), counted("dry", "would_limit")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn who_lacks_the_key_gets_what_the_operator_chose() {
    let desk = Desk::open().await;
    let of = |missing: &str| {
        let lacked = json!({ "key": { "header": "x-client" }, "missing": missing });
        json!([limit("before", "10/min", json!({})), limit(missing, "1/min", lacked)])
    };
    let before = limit("before", "10/min", json!({}));
    let [skip, together, reject, before] = desk.plan([of("skip"), of("together"), of("reject"), before]);
    for _ in 0..3 {
        assert_eq!(desk.ask(&skip).await.status(), None);
    }
    assert_eq!(desk.ask(&together).await.status(), None);
    assert_eq!(desk.ask(&together).await.status(), Some(429));
    let rejected = desk.ask(&reject).await;
    assert_eq!(rejected.status(), Some(400));
    assert!(rejected.told("ratelimit-policy").contains("\"reject\";q=1;w=60"));
    assert_eq!(rejected.reply.unwrap().reason, "missing_key");
    // Three that skipped and one together: who was refused paid nothing.
    assert_eq!(desk.ask(&before).await.told("x-ratelimit-remaining"), "5");
}

#[tokio::test(start_paused = true)]
async fn without_its_store_a_limit_does_what_the_operator_chose() {
    let mut desk = Desk::open().await;
    let of = |choice: &str| limit(choice, "1/min", json!({ "on_store_fault": choice }));
    let [local, allow, deny] = desk.plan([of("local"), of("allow"), of("deny")]);
    desk.fault = Some(StoreFault::Unavailable);
    for plugin in [&local, &allow, &deny] {
        assert_eq!(desk.ask(plugin).await.status(), None, "within its free share");
    }
    assert_eq!(desk.ask(&local).await.status(), Some(429));
    assert_eq!(desk.ask(&allow).await.status(), None);
    let denied = desk.ask(&deny).await;
    assert_eq!(denied.status(), Some(503), "it is no fault of the client's");
    assert_eq!(denied.effects.limited.unwrap().limit.as_str(), "deny");
    assert_eq!(denied.reply.unwrap().reason, "store_fault");
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_what_is_written_or_what_its_header_says() {
    let desk = Desk::open().await;
    let by_header = json!({ "cost": { "header": "x-cost" } });
    let [fixed, by_header] = desk.plan([
        limit("fixed", "10/min", json!({ "cost": 5 })),
        limit("by-header", "10/min", by_header),
    ]);
    assert_eq!(desk.ask(&fixed).await.told("x-ratelimit-remaining"), "5");
    assert_eq!(desk.ask(&fixed).await.status(), None);
    assert_eq!(desk.ask(&fixed).await.status(), Some(429));
    assert_eq!(desk.ask(&by_header).await.told("x-ratelimit-remaining"), "9");
    assert_eq!(
        desk.ask_with(&by_header, "x-cost", "9")
            .await
            .told("x-ratelimit-remaining"),
        "0"
    );
    assert_eq!(desk.ask_with(&by_header, "x-cost", "junk").await.status(), Some(429));
}

#[tokio::test(start_paused = true)]
async fn what_never_fits_is_refused_without_a_time_to_come_back_and_costs_nothing() {
    let desk = Desk::open().await;
    let never = limit("never", "10/min", json!({ "cost": { "header": "x-cost" } }));
    let wide = limit("wide-too", "100/min", json!({}));
    let [both, wide] = desk.plan([json!([wide, never]), wide]);
    let refused = desk.ask_with(&both, "x-cost", "11").await;
    assert_eq!((refused.status(), refused.held), (Some(429), false));
    let reply = refused.reply.unwrap();
    assert!(
        reply
            .headers
            .iter()
            .all(|(name, _)| !name.as_str().contains("retry-after"))
    );
    assert_eq!(desk.ask(&wide).await.told("x-ratelimit-remaining"), "99");
    assert_eq!(
        desk.ask_with(&both, "x-cost", "10").await.status(),
        None,
        "just the limit fits"
    );
    assert_eq!(counted("never", "limited"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_an_answer_are_charged_when_it_is_over() {
    let desk = Desk::open().await;
    let [plugin] = desk.plan([limit("bytes", "1kB/min", json!({ "cost": "response_bytes" }))]);
    let mut first = desk.ask(&plugin).await;
    assert_eq!(first.told("x-ratelimit-remaining"), "999");
    let second = desk.ask(&plugin).await;
    assert_eq!(
        second.told("x-ratelimit-remaining"),
        "998",
        "under way, and not yet charged"
    );
    first.effects.at_end.pop().unwrap().run(700);
    let third = desk.ask(&plugin).await;
    assert_eq!(third.told("x-ratelimit-remaining"), "298");
    for answer in [second, third] {
        answer.effects.at_end.into_iter().for_each(|act| act.run(2_000));
    }
    let refused = desk.ask(&plugin).await;
    assert_eq!(refused.status(), Some(429));
    assert!(refused.effects.at_end.is_empty(), "a refusal is not charged");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_of_bytes_is_charged_for_answers_that_it_asks_the_store_about() {
    let desk = Desk::open().await;
    let trial = json!({ "cost": "response_bytes", "dry_run": true });
    let [plugin] = desk.plan([limit("dry-bytes", "1kB/min", trial)]);
    for _ in 0..2 {
        let answer = desk.ask(&plugin).await;
        assert!(!answer.held && answer.effects.at_end.len() == 1);
        answer.effects.at_end.into_iter().for_each(|act| act.run(990));
        desk.answers_aside().await;
    }
    assert!(desk.ask(&plugin).await.effects.at_end.is_empty());
    assert_eq!(
        (counted("dry-bytes", "allowed"), counted("dry-bytes", "would_limit")),
        (2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_does_not_apply_to_those_whom_it_excepts() {
    let desk = Desk::open().await;
    let client = Sample::new().client_ip;
    let of = |name: &str, except: &str| limit(name, "1/min", json!({ "except": [except] }));
    let [others, this] = desk.plan([of("others", "192.0.2.192/26"), of("this", &client.to_string())]);
    for (plugin, expected) in [(&others, Some(429)), (&this, None)] {
        assert_eq!(desk.ask(plugin).await.status(), None);
        assert_eq!(desk.ask(plugin).await.status(), expected);
    }
    assert_eq!((counted("this", "skipped"), counted("others", "skipped")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_example_builds() {
    let desk = Desk::open().await;
    let mut limits = 0;
    for example in [
        include_str!("../../../conf/examples/rate_limit.yaml"),
        include_str!("../../../conf/examples/rate_limit_algorithms.yaml"),
    ] {
        for step in steps::<Value>("rate_limit", example) {
            let [plugin] = desk.plan([step]);
            limits += plugin.rules.len();
        }
    }
    assert_eq!(limits, 19);
}
