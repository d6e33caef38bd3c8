//! The fleet in compose: its parts know each other by names that exist, and nothing of it is published.

use regex::Regex;
use serde_yaml::Value;

use crate::{at, document, entries, list, path, string};

fn services() -> Value {
    at(&document("deploy/compose.yaml"), "services").clone()
}

fn texts<'v>(service: &'v Value, key: &str) -> Vec<&'v str> {
    let values = service.get(key).map_or(&[][..], list);
    values.iter().map(string).collect()
}

#[test]
fn images_are_pinned_and_healthy_is_something_one_can_ask() {
    let pinned = Regex::new(r"^[a-z/]+:v?\d+\.\d+\.\d+(-\w+)?$").unwrap();
    for (name, service) in entries(&services()) {
        let image = string(at(service, "image"));
        assert!(pinned.is_match(image), "{name}: {image}");
        assert_eq!(at(service, "healthcheck.test.0"), "CMD", "{name}");
    }
}

#[test]
fn ports_are_published_on_loopback_alone_and_the_operators_is_not() {
    for (name, service) in entries(&services()) {
        for port in texts(service, "ports") {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
            assert!(!port.ends_with(":9180"), "{name}: {port}");
        }
    }
}

#[test]
fn what_is_mounted_is_there() {
    let compose = document("deploy/compose.yaml");
    for (name, service) in entries(at(&compose, "services")) {
        for volume in texts(service, "volumes") {
            let (from, _) = volume.split_once(':').unwrap();
            match from.strip_prefix("./") {
                Some(file) => assert!(path("deploy").join(file).exists(), "{name}: {volume}"),
                None => assert!(at(&compose, "volumes").get(from).is_some(), "{name}: {volume}"),
            }
        }
    }
}

#[test]
fn redis_never_forgets_to_make_room() {
    let services = services();
    let command = texts(at(&services, "redis"), "command");
    let set = |option: &str| command.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    assert_eq!(set("--maxmemory-policy"), Some("noeviction"));
    assert_eq!(set("--appendonly"), Some("yes"));
    assert!(set("--maxmemory").is_some());
    assert!(string(at(&services, "redis.image")).starts_with("redis:7."));
}

#[test]
fn the_parts_know_each_other_by_names_that_exist() {
    let services = services();
    let names: Vec<_> = entries(&services).into_iter().map(|(name, _)| name).collect();
    let process = document("deploy/conf/tidegate.yaml");
    let rules = document("deploy/conf/rules/shop.yaml");
    let origin = string(at(&rules, "upstreams.shop.servers.0"));
    let store = string(at(&process, "store.redis.urls.0"))
        .strip_prefix("redis://")
        .unwrap();
    assert_eq!(store.split_once(':'), Some(("redis", "6379")));
    let (host, port) = origin.split_once(':').unwrap();
    assert!(names.contains(&host), "{origin}");
    let listening = crate::text("deploy/conf/origin.conf");
    assert!(listening.contains(&format!("listen {port};")), "{origin}");

    let scraped = document("deploy/prometheus/prometheus.yaml");
    let targets = texts(at(&scraped, "scrape_configs.0.static_configs.0"), "targets");
    let (_, admin) = string(at(&process, "admin.bind")).split_once(':').unwrap();
    let gateways = names.iter().filter(|name| name.starts_with("gateway-"));
    let gateways: Vec<_> = gateways.map(|name| format!("{name}:{admin}")).collect();
    assert_eq!(targets, gateways);
    assert!(gateways.len() >= 2, "a fleet");
    assert_eq!(
        at(&scraped, "scrape_configs.0.job_name"),
        "tidegate",
        "alerts ask for it"
    );
}
