//! Which names may stand where: the clock, the connection, the store's driver, the metrics, the pure floor.

use crate::source::{Fault, Named, Source, assert_none, foreign_paths, production_tree, words};

/// A name that has a home, and a reason to stay there.
struct Homed {
    /// Names as they stand in code.
    names: &'static [&'static str],
    /// Beginnings of the paths where they may stand.
    homes: &'static [&'static str],
    why: &'static str,
}

const HOMED: &[Homed] = &[
    Homed {
        names: &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"],
        homes: &["src/base/clock.rs"],
        why: "one file reads the clock and everything else is told what time it is; \
              whoever reads it alone cannot be simulated and is tested by sleeping.",
    },
    Homed {
        names: &["Session"],
        homes: &["src/proxy.rs", "src/proxy/"],
        why: "only proxy/ writes to the wire: a part that holds the connection can answer a client behind the back \
              of the chain, the log and the metrics.",
    },
    Homed {
        names: &["serde_yaml"],
        homes: &["src/config.rs", "src/config/"],
        why: "what operators write is read in one place, so that a fault always has a file, a line and a suggestion.",
    },
];

const REDIS_HOMES: &[&str] = &["src/store/redis", "src/store/script"];

const REDIS: &str = "the driver is the store's own affair; whoever talks to Redis past the contract escapes its \
                     deadline, its metrics and its fault policy, and cannot run on the embedded store.";

const METRICS_HOME: &str = "src/telemetry/metrics.rs";

/// What the crate `prometheus` may lend to the rest: a counter that was made and labelled elsewhere.
const HANDLES: &[&str] = &["Counter", "IntCounter", "Gauge", "IntGauge", "Histogram", "local"];

const METRICS: &str = "outside telemetry/metrics.rs a file may hold a finished handle (`prometheus::IntCounter` and its \
                       like) to count without a look-up, but names, labels and the registry stand in one file, where \
                       one can see that no label carries a client's value.";

/// Modules that decide and do nothing else.
const PURE: &[&str] = &["src/limiter.rs", "src/limiter/", "src/queue.rs", "src/queue/"];

/// The one file there that uses a crate of Pingora's: a sketch that reads no clock.
const SKETCH: &str = "src/limiter/sketch.rs";

const PURE_WHY: &str = "limiter/ and queue/ are arithmetic: (state, rule, cost, now) -> (decision, state). That is why \
                        they can be simulated from a seed and held against the scripts; anything that waits, logs or \
                        talks belongs to a caller.";

/// Parts of `std` that do something to the world.
const WORLDLY: &[&str] = &["io", "net", "fs", "env", "process", "thread"];

fn out_of_home(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for rule in HOMED.iter().filter(|rule| !stands_in(source, rule.homes)) {
        for name in rule.names {
            for offset in words(&source.production, name) {
                faults.push(source.fault(offset, format!("`{name}` outside {}", rule.homes.join(", ")), rule.why));
            }
        }
    }
    faults
}

fn redis_elsewhere(source: &Source) -> Vec<Fault> {
    if stands_in(source, REDIS_HOMES) {
        return Vec::new();
    }
    let fault = |path: Named| source.fault(path.offset, "`redis::` outside store/redis and store/script", REDIS);
    foreign_paths(source, "redis").into_iter().map(fault).collect()
}

fn metrics_elsewhere(source: &Source) -> Vec<Fault> {
    if source.path == METRICS_HOME {
        return Vec::new();
    }
    let is_handle = |path: &Named| {
        path.segments
            .first()
            .is_some_and(|name| HANDLES.contains(&name.as_str()))
    };
    foreign_paths(source, "prometheus")
        .into_iter()
        .filter(|path| !is_handle(path))
        .map(|path| {
            source.fault(
                path.offset,
                format!("`prometheus::{}`", path.segments.join("::")),
                METRICS,
            )
        })
        .collect()
}

fn impure(source: &Source) -> Vec<Fault> {
    if !stands_in(source, PURE) {
        return Vec::new();
    }
    let mut faults: Vec<Fault> = worldly_crates(source)
        .into_iter()
        .map(|(offset, name)| source.fault(offset, format!("`{name}` in a pure module"), PURE_WHY))
        .collect();
    for path in foreign_paths(source, "std") {
        if path
            .segments
            .first()
            .is_some_and(|part| WORLDLY.contains(&part.as_str()))
        {
            faults.push(source.fault(
                path.offset,
                format!("`std::{}` in a pure module", path.segments.join("::")),
                PURE_WHY,
            ));
        }
    }
    faults
}

/// Offsets and names of crates that a pure module may not use. `log` has a module of its name in limiter/, so only
/// what must be the crate counts: an import from it, or one of its macros.
fn worldly_crates(source: &Source) -> Vec<(usize, String)> {
    let code = &source.production;
    let mut found: Vec<(usize, String)> = Vec::new();
    for name in [
        "tokio",
        "redis",
        "prometheus",
        "pingora",
        "pingora_core",
        "pingora_proxy",
        "pingora_http",
        "pingora_limits",
    ] {
        if name == "pingora_limits" && source.path == SKETCH {
            continue;
        }
        found.extend(
            foreign_paths(source, name)
                .into_iter()
                .map(|path| (path.offset, name.to_owned())),
        );
    }
    for mark in [
        "use log::",
        "log::trace!",
        "log::debug!",
        "log::info!",
        "log::warn!",
        "log::error!",
    ] {
        let is_crate = |offset: &usize| !code[..*offset].ends_with("::");
        found.extend(
            code.match_indices(mark)
                .map(|(offset, _)| offset)
                .filter(is_crate)
                .map(|offset| (offset, "log".to_owned())),
        );
    }
    found
}

fn stands_in(source: &Source, homes: &[&str]) -> bool {
    homes.iter().any(|home| source.path.starts_with(home))
}

#[track_caller]
fn assert_kept(rule: fn(&Source) -> Vec<Fault>) {
    assert_none(&production_tree().iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn the_clock_the_connection_and_the_yaml_reader_stay_at_home() {
    assert_kept(out_of_home);
}

#[test]
fn only_the_store_talks_to_redis() {
    assert_kept(redis_elsewhere);
}

#[test]
fn metrics_are_made_in_one_file() {
    assert_kept(metrics_elsewhere);
}

#[test]
fn limiter_and_queue_are_pure() {
    assert_kept(impure);
}

/// How many faults `rule` finds in a snippet at `path`.
fn count(rule: fn(&Source) -> Vec<Fault>, path: &str, text: &str) -> usize {
    rule(&Source::new(path, text)).len()
}

#[test]
fn a_clock_read_elsewhere_is_a_fault() {
    assert_eq!(
        count(
            out_of_home,
            "src/room.rs",
            "fn f() { let t = std::time::Instant::now(); }"
        ),
        1
    );
    assert_eq!(
        count(
            out_of_home,
            "src/room.rs",
            "fn f() { let t = tokio::time::Instant::now(); }"
        ),
        1
    );
    assert_eq!(
        count(
            out_of_home,
            "src/room.rs",
            "use std::time::SystemTime;\nfn f() { SystemTime::now(); }"
        ),
        1
    );
    assert_eq!(count(out_of_home, "src/room.rs", "fn f() { jiff::Zoned::now(); }"), 1);
    assert_eq!(
        count(
            out_of_home,
            "src/base/clock.rs",
            "fn f() { Instant::now(); SystemTime::now(); }"
        ),
        0
    );
    assert_eq!(
        count(
            out_of_home,
            "src/room.rs",
            "/// Not `Instant::now`.\nfn f(now: Instant) { clock.now(); }"
        ),
        0
    );
}

#[test]
fn a_connection_held_elsewhere_is_a_fault() {
    assert_eq!(
        count(out_of_home, "src/plugins/jwt.rs", "use pingora_proxy::Session;"),
        1
    );
    assert_eq!(count(out_of_home, "src/server/admin.rs", "fn f(s: &mut Session) {}"), 1);
    assert_eq!(
        count(out_of_home, "src/proxy/filter.rs", "use pingora_proxy::Session;"),
        0
    );
    assert_eq!(
        count(out_of_home, "src/server/admin.rs", "fn f(s: &mut ServerSession) {}"),
        0
    );
}

#[test]
fn yaml_read_elsewhere_is_a_fault() {
    assert_eq!(
        count(
            out_of_home,
            "src/plugins/jwt.rs",
            "fn f() { serde_yaml::from_str(text) }"
        ),
        1
    );
    assert_eq!(count(out_of_home, "src/config/raw.rs", "use serde_yaml::Value;"), 0);
    assert_eq!(
        count(
            out_of_home,
            "src/plugins/jwt.rs",
            "#[cfg(test)]\nmod tests { use serde_yaml::from_str; }"
        ),
        0
    );
}

#[test]
fn a_driver_used_elsewhere_is_a_fault() {
    assert_eq!(
        count(redis_elsewhere, "src/throttle.rs", "use redis::{Client, cmd};"),
        2
    );
    assert_eq!(count(redis_elsewhere, "src/store/redis.rs", "use redis::Client;"), 0);
    assert_eq!(count(redis_elsewhere, "src/store/script.rs", "use redis::Script;"), 0);
    assert_eq!(
        count(redis_elsewhere, "src/server.rs", "use crate::store::redis::RedisStore;"),
        0
    );
}

#[test]
fn a_metric_made_elsewhere_is_a_fault() {
    assert_eq!(
        count(
            metrics_elsewhere,
            "src/throttle.rs",
            "use prometheus::{IntCounter, IntCounterVec, Registry};"
        ),
        2
    );
    assert_eq!(
        count(
            metrics_elsewhere,
            "src/throttle.rs",
            "fn f() { prometheus::register(x) }"
        ),
        1
    );
    assert_eq!(
        count(
            metrics_elsewhere,
            "src/throttle.rs",
            "use prometheus::{Histogram, IntCounter};"
        ),
        0
    );
    assert_eq!(count(metrics_elsewhere, METRICS_HOME, "use prometheus::Registry;"), 0);
}

#[test]
fn whatever_touches_the_world_is_a_fault_in_a_pure_module() {
    assert_eq!(count(impure, "src/limiter/window.rs", "use tokio::time::sleep;"), 1);
    assert_eq!(
        count(impure, "src/queue/order.rs", "use std::{fmt, io, net::IpAddr};"),
        2
    );
    assert_eq!(count(impure, "src/queue.rs", "fn f() { log::warn!(x) }"), 1);
    assert_eq!(
        count(
            impure,
            "src/limiter/window.rs",
            "use pingora_limits::estimator::Estimator;"
        ),
        1
    );
    assert_eq!(count(impure, SKETCH, "use pingora_limits::estimator::Estimator;"), 0);
    assert_eq!(
        count(
            impure,
            "src/limiter.rs",
            "pub mod log;\nuse self::log::Log;\nuse std::{fmt, time::Duration};"
        ),
        0
    );
    assert_eq!(count(impure, "src/store/memory.rs", "use tokio::sync::Mutex;"), 0);
}
