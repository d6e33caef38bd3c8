use super::*;

const BEFORE: &str = "\
rooms:
  prepared-old: { mode: hold, capacity: { visitors: 1 } }
  prepared-kept: { mode: hold, capacity: { visitors: 1 } }
routes:
  - name: prepared-first
    chain:
      - rate_limit: { name: prepared-gone, key: client_ip, limit: 1/s }
      - rate_limit: { name: prepared-stays, key: client_ip, limit: 1/s }
      - waiting_room: { room: prepared-old }
    upstream: app
upstreams: { app: { servers: [127.0.0.1:9000] } }
";

const AFTER: &str = "\
rooms:
  prepared-new: { mode: hold, capacity: { visitors: 1 } }
  prepared-kept: { mode: auto, capacity: { visitors: 2 } }
routes:
  - name: prepared-second
    chain:
      - rate_limit: { name: prepared-stays, key: client_ip, limit: 2/s }
      - rate_limit: { name: prepared-fresh, key: client_ip, limit: 1/s }
      - waiting_room: { room: prepared-new }
    upstream: app
upstreams: { app: { servers: [127.0.0.1:9000] } }
";

fn file(text: &str) -> RuleFile {
    let (mut document, repeated) = Document::parse("rules.yaml".into(), text).unwrap();
    let (rules, wrong) = document.decode();
    assert!(repeated.is_empty() && wrong.is_empty(), "{repeated:?} {wrong:?}");
    RuleFile {
        document,
        rules: rules.unwrap(),
    }
}

/// What is in force: rooms with how many they let in, and limits with how much they allow.
fn in_force(compiler: &Compiler) -> String {
    let rooms = compiler.rooms.all();
    let rooms = rooms
        .values()
        .map(|room| format!("{} {:?}", room.name(), room.rule().terms.mode));
    let limits = compiler.throttles.active();
    let limits = limits
        .iter()
        .map(|limit| format!("{} {}", limit.rule().name, limit.rule().rate.count));
    let mut all: Vec<_> = rooms.chain(limits).collect();
    all.sort_unstable();
    all.join(", ")
}

#[test]
fn until_a_plan_is_committed_the_one_before_keeps_its_rooms_and_its_limits() {
    let compiler = Compiler::rehearsal();
    let first = compiler.prepare(vec![file(BEFORE)]).unwrap();
    assert_eq!(compiler.commit(first).generation, 1);
    let before = "prepared-gone 1, prepared-kept Hold, prepared-old Hold, prepared-stays 1";
    assert_eq!(in_force(&compiler), before);
    let second = compiler.prepare(vec![file(AFTER)]).unwrap();
    assert_eq!(in_force(&compiler), before, "while its servers are asked for");
    assert_eq!(compiler.commit(second).generation, 2);
    assert_eq!(
        in_force(&compiler),
        "prepared-fresh 1, prepared-kept Auto, prepared-new Hold, prepared-stays 2"
    );
}

#[test]
fn a_plan_that_never_runs_leaves_nothing_behind_and_no_number_out() {
    let compiler = Compiler::rehearsal();
    let first = compiler.prepare(vec![file(BEFORE)]).unwrap();
    compiler.commit(first);
    let before = in_force(&compiler);
    let dropped = AFTER
        .replace("prepared-new", "prepared-never")
        .replace("prepared-fresh", "prepared-unused");
    drop(compiler.prepare(vec![file(&dropped)]).unwrap());
    assert_eq!(in_force(&compiler), before);
    let shown = METRICS.render();
    for name in ["prepared-never", "prepared-unused"] {
        assert!(!shown.contains(name), "{name} is shown");
    }
    let third = compiler.prepare(vec![file(AFTER)]).unwrap();
    assert_eq!(compiler.commit(third).generation, 2);
}

#[test]
fn a_route_of_refused_rules_is_not_shown() {
    let compiler = Compiler::rehearsal();
    let twins = "\
routes:
  - { name: prepared-twin, match: { path: /a }, chain: [respond: { status: 204 }] }
  - { name: prepared-other-twin, match: { path: /a }, chain: [respond: { status: 204 }] }
  - { name: prepared-single, match: { path: /b }, chain: [], upstream: prepared-app }
upstreams: { prepared-app: { servers: [127.0.0.1:9000] } }
";
    let faults = compiler.prepare(vec![file(twins)]).unwrap_err();
    assert_eq!(faults.count(), 1, "{faults}");
    let shown = METRICS.render();
    for name in ["prepared-twin", "prepared-single", "prepared-app"] {
        assert!(!shown.contains(name), "{name} is shown");
    }
}
