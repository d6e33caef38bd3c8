use super::*;

fn rule(servers: &[(&str, u16)]) -> Rule {
    let second = Duration::from_secs(1);
    Rule {
        name: "shop".parse().unwrap(),
        servers: servers
            .iter()
            .map(|(text, weight)| ((*text).to_owned(), *weight))
            .collect(),
        timeouts: Timeouts {
            connect: second,
            read: second,
            write: second,
            idle: second,
        },
        attempts: 2,
        retry_budget: 0.1,
        in_flight: Some(1),
        release: Release::Client,
    }
}

#[test]
fn a_retry_goes_to_another_server() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]));
    let first = upstream.choose(&[]).unwrap();
    let second = upstream.choose(&[first.server]).unwrap();
    assert_ne!(first.server, second.server);
    assert!(upstream.may_retry(1));
    assert!(!upstream.may_retry(2));
}

#[test]
fn the_only_server_is_tried_again() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1)]));
    assert_eq!(upstream.choose(&[0]).unwrap().server, 0);
}

#[test]
fn a_name_that_leads_nowhere_gets_no_request() {
    let upstream = Upstreams::default().build(rule(&[("nowhere.invalid:80", 1), ("127.0.0.1:2", 1)]));
    assert!((0..4).all(|_| upstream.choose(&[]).unwrap().server == 1));
    let none = Upstreams::default().build(rule(&[("nowhere.invalid:80", 1)]));
    assert_eq!(none.choose(&[]), None);
}

#[test]
fn requests_in_flight_are_counted_across_plans() {
    let upstreams = Upstreams::default();
    let old = upstreams.build(rule(&[("127.0.0.1:1", 1)]));
    let held = old.admit().unwrap();
    let new = upstreams.build(rule(&[("127.0.0.1:9", 1)]));
    assert!(new.admit().is_none());
    drop(held);
    assert!(new.admit().is_some());
}

#[test]
fn servers_that_no_plan_uses_are_forgotten() {
    let upstreams = Upstreams::default();
    let old = upstreams.build(rule(&[("127.0.0.1:1", 1)]));
    let _new = upstreams.build(rule(&[("127.0.0.1:2", 1)]));
    assert_eq!(upstreams.servers().len(), 2);
    drop(old);
    assert_eq!(upstreams.servers().len(), 1);
}

#[test]
fn a_server_that_is_forgotten_is_shown_no_more() {
    let upstreams = Upstreams::default();
    let shown = |address: &str| {
        METRICS
            .render()
            .contains(&format!("upstream_healthy{{server=\"{address}\"}}"))
    };
    let (old, new) = ("127.0.0.1:4711", "127.0.0.1:4712");
    let before = upstreams.build(rule(&[(old, 1)]));
    let after = upstreams.build(rule(&[(old, 1), (new, 1)]));
    drop(before);
    upstreams.servers();
    assert!(shown(old) && shown(new));
    drop(after);
    let _after = upstreams.build(rule(&[(new, 1)]));
    upstreams.servers();
    assert!(!shown(old) && shown(new));
}
