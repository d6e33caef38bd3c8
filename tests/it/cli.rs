//! The command line: what it prints, and the codes it ends with.

use std::process::{Command, Output};

use crate::support::gateway::{Gateway, Setup, TIDEGATE};
use crate::support::origin::Origin;

const GOOD: &str = "routes: [{ name: a, chain: [respond: { status: 204 }] }]\n";

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(TIDEGATE).args(arguments).output().unwrap()
}

fn check(setup: &Setup) -> (Option<i32>, String) {
    let output = tidegate(&["check", "-c", setup.write().to_str().unwrap()]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let (code, said) = check(&Setup::new(GOOD));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("good, with 1 routes in 1 rule files"), "{said}");
}

#[test]
fn all_faults_are_listed_with_their_places() {
    let setup = Setup::new("routes:\n  - nam: a\n    chain: []\n")
        .file("rules/more.yaml", "upstreams: { b: { servers: [] } }\n");
    let (code, said) = check(&setup.process("max_bdy: 1MiB"));
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "rules.yaml:2:5: ",
        "did you mean `name`?",
        "more.yaml:1:",
        "tidegate.yaml:1:1: ",
        "did you mean `max_body`?",
        "faults",
    ] {
        assert!(said.contains(part), "{part} is missing from:\n{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_another_matter() {
    let output = tidegate(&["check", "-c", "/nowhere/tidegate.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/nowhere/tidegate.yaml: ")
    );
    assert_eq!(
        tidegate(&["run", "-c", "/nowhere/tidegate.yaml"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_gateway_with_faulty_rules_does_not_start() {
    let setup = Setup::new(GOOD).file("rules/more.yaml", "rotues: []\n");
    let output = tidegate(&["run", "-c", setup.write().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("more.yaml:1:1: ") && said.contains("did you mean `routes`?"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_fault() {
    let listener = "listeners: [{ bind: 127.0.0.1:0, tls: { certificates: { cert: a.pem, key: a.key } } }]";
    let setup = Setup::new(GOOD)
        .process(listener)
        .file("a.pem", "nothing")
        .file("a.key", "nothing");
    let (code, said) = check(&setup);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("certificates > cert: `") && said.contains("a.pem`: there is no"),
        "{said}"
    );
}

#[test]
fn a_check_leaves_no_log_behind_and_says_where_none_can_be() {
    let setup = Setup::new(GOOD).process("access_log: { to: { file: x.log } }");
    let (code, said) = check(&setup);
    assert_eq!(code, Some(0), "{said}");
    assert!(!setup.dir().join("x.log").exists());
    let (code, said) = check(&Setup::new(GOOD).process("access_log: { to: { file: logs/x.log } }"));
    assert_eq!(code, Some(1), "{said}");
    let place = "tidegate.yaml:1:27: access_log > to > file: `";
    assert!(
        said.contains(place) && said.contains("logs/x.log` cannot be written: there is no directory"),
        "{said}"
    );
}

#[test]
fn every_example_can_be_built() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples");
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue; // Process files; `tests/conf.rs` reads them.
        }
        let setup = Setup::new(GOOD).process(&format!("rules: [{}]", path.display()));
        let (code, said) = check(&setup);
        assert_eq!(code, Some(0), "{}: {said}", path.display());
        examples += 1;
    }
    assert!(examples >= 10, "only {examples}");
}

#[test]
fn a_ladder_that_leads_nowhere_is_told_with_its_place() {
    let limit = |name: &str, over: &str| {
        format!("      - rate_limit: {{ name: {name}, key: client_ip, limit: 1/s, over: {over} }}\n")
    };
    let rules = [
        "rooms: { sale: { capacity: { visitors: 1 } } }\nroutes:\n  - name: a\n    chain:\n".to_owned(),
        limit("a", "[{ delay: 1s }, { room: sail }]"),
        limit("b", "{ delay: 10min }"),
        limit("c", "[reject, { delay: 1s }]"),
        "      - respond: { status: 204 }\n".to_owned(),
    ];
    let (code, said) = check(&Setup::new(&rules.concat()));
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "rules.yaml:5:",
        "there is no room `sail`; did you mean `sale`?",
        "rules.yaml:6:",
        "write at most `5min`",
        "rules.yaml:7:",
        "nothing comes after `reject`",
    ] {
        assert!(said.contains(part), "{part} is missing from:\n{said}");
    }
}

#[test]
fn what_is_wrong_with_a_page_is_told_with_the_place_in_its_own_file() {
    let rules =
        "rooms: { hall: { capacity: { visitors: 1 }, page: { template: hall.html, vars: { event: Fair } } } }\n";
    let route = "routes: [{ name: a, chain: [waiting_room: { room: hall }, respond: { status: 204 }] }]\n";
    let setup = |page| Setup::new(&format!("{rules}{route}")).file("rules/hall.html", page);
    let (code, said) = check(&setup("<h1>{{ vars.event }}</h1>\n<p>{{ posision }}"));
    assert_eq!(code, Some(1), "{said}");
    let fault = "hall.html:2:7: rooms > hall > page: there is no variable `posision`, did you mean `position`?";
    assert!(said.contains(fault), "{said}");
    assert!(
        !said.contains("there is no room"),
        "the routes are not at fault:\n{said}"
    );
    let (code, said) = check(&setup("<h1>{{ vars.event }}</h1>\n<p>{{ position }}"));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_page_that_is_a_pipe_is_refused_and_not_waited_for() {
    let setup = Setup::new("rooms: { hall: { capacity: { visitors: 1 }, page: hall.html } }\n");
    let pipe = setup.dir().join("rules/hall.html");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let (code, said) = check(&setup);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be read: not a file"), "{said}");
}

#[test]
fn the_schemas_are_json() {
    for (file, key) in [("process", "listeners"), ("rules", "routes")] {
        let output = tidegate(&["schema", file]);
        assert_eq!(output.status.code(), Some(0));
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(schema["properties"].get(key).is_some(), "{file}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let taken = gateway.http();
    for process in [
        format!("listeners: [{{ bind: {taken} }}]"),
        format!("listeners: [{{ bind: {taken} }}]\nthreads: 4"),
        format!("admin: {{ bind: {taken} }}"),
    ] {
        let setup = Setup::new(GOOD).process(&process);
        let output = tidegate(&["run", "-c", setup.write().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{process}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains(&format!("cannot listen on {taken}: Address already in use")),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_asked_of_a_gateway_that_is_there() {
    let origin = Origin::saying("hello").await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Gateway::start(&origin.rules()).await;
    let strange = gateway.http();
    for (admin, part) in [(nowhere, "no gateway answers on"), (strange, "does not tell of limits")] {
        let output = tidegate(&["limits", "--admin", &admin.to_string()]);
        assert_eq!(output.status.code(), Some(3));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_command_that_is_none_is_explained() {
    let output = tidegate(&["rnu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("rnu"));
    assert!(tidegate(&["--version"]).status.success());
}
