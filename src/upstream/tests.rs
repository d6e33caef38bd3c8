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
        eject: Some(Terms::default()),
        in_flight: Some(1),
        release: Release::Client,
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_000 + secs)
}

fn fail(upstream: &Upstream, server: usize, times: usize) {
    let address = upstream.servers[server].address(|_| true).unwrap();
    (0..times).for_each(|_| upstream.note_failure(Chosen { server, address }, at(0)));
}

/// The servers that the next requests go to, at a moment.
fn next(upstream: &Upstream, requests: usize, secs: u64) -> Vec<usize> {
    let choose = |_| upstream.choose(&[], at(secs)).unwrap().server;
    (0..requests).map(choose).collect()
}

#[test]
fn a_server_that_is_out_is_passed_over_until_one_request_has_tried_it() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]));
    fail(&upstream, 0, 2);
    assert!(next(&upstream, 4, 0).contains(&0), "two failures are not yet a row");
    fail(&upstream, 0, 1);
    assert_eq!(next(&upstream, 4, 9), [1; 4]);
    let after = next(&upstream, 8, 10);
    assert_eq!(after.iter().filter(|server| **server == 0).count(), 1, "{after:?}");
    let address = "127.0.0.1:1".parse().unwrap();
    upstream.note_server(Chosen { server: 0, address });
    assert!(next(&upstream, 4, 10).contains(&0));
}

#[test]
fn an_answer_in_between_starts_the_row_anew() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]));
    let address = "127.0.0.1:1".parse().unwrap();
    for _ in 0..5 {
        fail(&upstream, 0, 2);
        upstream.note_server(Chosen { server: 0, address });
    }
    assert!(next(&upstream, 4, 0).contains(&0));
}

#[test]
fn where_all_are_out_all_are_in_and_they_come_back_together() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1), ("127.0.0.1:3", 1)]));
    (0..3).for_each(|server| fail(&upstream, server, 3));
    let mut all = next(&upstream, 3, 1);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    let address = "127.0.0.1:2".parse().unwrap();
    upstream.note_server(Chosen { server: 1, address });
    let after = next(&upstream, 12, 1);
    let tried = |server| after.iter().filter(|chosen| **chosen == server).count();
    assert_eq!((tried(0), tried(2)), (1, 1), "each is tried once, and soon: {after:?}");
}

#[test]
fn nobody_is_passed_over_where_that_is_off() {
    let upstream = Upstreams::default().build(Rule {
        eject: None,
        ..rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)])
    });
    fail(&upstream, 0, 10);
    assert!(next(&upstream, 4, 0).contains(&0));
}

#[test]
fn a_detour_to_a_server_that_is_in_costs_no_budget() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]));
    let first = upstream.choose(&[], at(0)).unwrap();
    assert!((0..1_000).all(|_| upstream.may_go_elsewhere(&[first], at(0))));
    assert!(
        !upstream.may_go_elsewhere(&[first, first], at(0)),
        "more attempts than the rule has"
    );
    fail(&upstream, 1 - first.server, 3);
    let paid = (0..1_000)
        .filter(|_| upstream.may_go_elsewhere(&[first], at(0)))
        .count();
    assert_eq!(paid, 10, "what was saved up, and no more");
}

/// Another address of the same name is another way.
#[tokio::test]
async fn an_address_that_is_out_is_passed_over_among_those_of_its_name() {
    let upstreams = Upstreams::default();
    let upstream = upstreams.build(rule(&[("localhost:1", 1)]));
    let server = &upstream.servers[0];
    server.lead_to(&["127.0.0.1:1", "127.0.0.2:1"].map(|address| address.parse().unwrap()));
    let first = upstream.choose(&[], at(0)).unwrap();
    assert_ne!(upstream.choose(&[first], at(0)).unwrap().address, first.address);
    (0..3).for_each(|_| upstream.note_failure(first, at(0)));
    assert!((0..4).all(|_| upstream.choose(&[], at(0)).unwrap().address != first.address));
    server.lead_to(&["127.0.0.2:1".parse().unwrap()]);
    server.lead_to(&["127.0.0.1:1", "127.0.0.2:1"].map(|address| address.parse().unwrap()));
    assert!((0..4).any(|_| upstream.choose(&[], at(0)).unwrap().address == first.address));
}

#[test]
fn a_retry_goes_to_another_server() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]));
    let first = upstream.choose(&[], at(0)).unwrap();
    let second = upstream.choose(&[first], at(0)).unwrap();
    assert_ne!(first.server, second.server);
    assert!(upstream.may_retry(1));
    assert!(!upstream.may_retry(2));
}

#[test]
fn the_only_server_is_tried_again() {
    let upstream = Upstreams::default().build(rule(&[("127.0.0.1:1", 1)]));
    let only = upstream.choose(&[], at(0)).unwrap();
    assert_eq!(upstream.choose(&[only], at(0)), Some(only));
}

#[test]
fn a_name_that_leads_nowhere_gets_no_request() {
    let upstream = Upstreams::default().build(rule(&[("nowhere.invalid:80", 1), ("127.0.0.1:2", 1)]));
    assert!((0..4).all(|_| upstream.choose(&[], at(0)).unwrap().server == 1));
    let none = Upstreams::default().build(rule(&[("nowhere.invalid:80", 1)]));
    assert_eq!(none.choose(&[], at(0)), None);
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
