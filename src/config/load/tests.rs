use std::fs;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::clock::{Clock, SystemClock};

const PROCESS: &str = "listeners: [{ bind: 127.0.0.1:8080 }]\nrules: rules/*.yaml\n";

/// A directory with a process file and one rule file.
fn directory(process: &str, rules: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("rules")).unwrap();
    fs::write(directory.path().join("tidegate.yaml"), process).unwrap();
    fs::write(directory.path().join("rules/shop.yaml"), rules).unwrap();
    directory
}

fn load_from(directory: &tempfile::TempDir) -> Result<Loaded, String> {
    let here = format!("{}/", directory.path().display());
    load(&directory.path().join("tidegate.yaml")).map_err(|error| error.to_string().replace(&here, ""))
}

fn decode(text: &str) -> Vec<String> {
    match Document::parse("f".into(), text) {
        Err(fault) => vec![fault.to_string()],
        Ok((mut document, repeated)) => {
            let (rules, wrong) = document.decode::<Rules>();
            let mut faults: Vec<_> = repeated.into_iter().chain(wrong).collect();
            let files = [RuleFile {
                document,
                rules: rules.unwrap_or_default(),
            }];
            faults.extend(check::rules(&files, None));
            faults.iter().map(Fault::to_string).collect()
        }
    }
}

#[test]
fn twelve_faults_in_two_files_are_listed_at_once() {
    let process = "\
listeners:
  - { bind: 127.0.0.1:8080, http2: maybe }
  - bind: 127.0.0.1:8081
adnin: { bind: 127.0.0.1:9180 }
timeouts: { idle: 75 }
trusted_proxies: [10.0.0.0/8, 10.0.0.0/40]
rules: [rules/*.yaml, rules/*.yml]
";
    let rules = "\
upstreams:
  shop:
    servers: [127.0.0.1:9000]
    in_flight: 0
rooms:
  concert:
    capacity: { admit: 100/fortnight, visitors: 5 }
routes:
  - name: home
    matcher: { path: / }
    chain:
      - rate_limit: { name: each, key: client_ip, limit: 1/s }
      - ip_filter: { deny: 192.0.2.0/24 }
    upstream: shop
  - name: checkout
    match: { path: /checkout/** }
    chain: []
    upstream: shpo
  - name: home
    chain:
      - waiting_rom: { room: concert }
    upstream: shop
";
    let expected = "\
rules/shop.yaml:4:16: upstreams > shop > in_flight: `0` must be at least 1
rules/shop.yaml:7:24: rooms > concert > capacity > admit: `100/fortnight` is not a rate: write a count, `/`, and a window, as in `100/s`, `100/min`, `5/day` or `20/5s`
rules/shop.yaml:10:5: routes[0] \"home\": unknown key `matcher`, did you mean `match`?
rules/shop.yaml:13:9: routes[0] \"home\" > chain[1]: `ip_filter` (access) may not come after `rate_limit` (admission): the order is access, admission, transform
rules/shop.yaml:18:15: routes[1] \"checkout\" > upstream: there is no upstream `shpo`, did you mean `shop`?
rules/shop.yaml:19:11: routes[2] \"home\" > name: the route `home` exists already, at rules/shop.yaml:9:11: names are given once
rules/shop.yaml:21:9: routes[2] \"home\" > chain[0]: unknown key `waiting_rom`, did you mean `waiting_room`?
tidegate.yaml:2:36: listeners[0] > http2: expected `true` or `false`, found `maybe`
tidegate.yaml:4:1: unknown key `adnin`, did you mean `admin`?
tidegate.yaml:5:19: timeouts > idle: `75` is not a duration: write a whole number and a unit (ms, s, min, h, day), as in `250ms` or `10s`
tidegate.yaml:6:31: trusted_proxies[1]: `10.0.0.0/40` is not a network: write one as in `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`
tidegate.yaml:7:23: rules[1]: `rules/*.yml` matches no file in `rules`
12 faults";
    assert_eq!(load_from(&directory(process, rules)).unwrap_err(), expected);
}

/// Some show when a file is read, some when its parts are compared, some when they are built: nobody waits for a second
/// round.
#[test]
fn faults_of_certificates_are_listed_with_those_of_rules() {
    let process = "\
listeners:
  - bind: 127.0.0.1:8443
    tls: { certificates: [{ cert: a.pem, key: b.key }, { cert: b.key, key: b.key }], client_ca: b.key }
adnin: {}
rules: rules/*.yaml
";
    let rules = "\
rooms: { hall: { capacity: { visitors: none } } }
routes:
  - name: home
    match: { hosts: [\"a b\"], path: /x/*y }
    chain:
      - waiting_room: { room: hall }
      - ip_filter: { allow: 10.0.0.0/8, deny: 10.0.0.0/8, alow: 1 }
    upstream: shop
";
    let here = directory(process, rules);
    for pair in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed([format!("{pair}.example.com")]).unwrap();
        fs::write(here.path().join(format!("{pair}.pem")), made.cert.pem()).unwrap();
        fs::write(
            here.path().join(format!("{pair}.key")),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
    }
    let expected = "\
rules/shop.yaml:1:40: rooms > hall > capacity > visitors: expected a whole number from 0 to 18446744073709551615, found `none`
rules/shop.yaml:4:22: routes[0] \"home\" > match > hosts[0]: `a b` is not a host: the host holds a character that no host name has
rules/shop.yaml:4:36: routes[0] \"home\" > match > path: `/x/*y` is not a path pattern: `**` may only stand at the end, after a slash; for one segment write a name in braces, as in `{id}`
rules/shop.yaml:7:9: routes[0] \"home\" > chain[1]: `ip_filter` (access) may not come after `waiting_room` (admission): the order is access, admission, transform
rules/shop.yaml:7:59: routes[0] \"home\" > chain[1] > ip_filter: unknown key `alow`, did you mean `allow`?
rules/shop.yaml:8:15: routes[0] \"home\" > upstream: there is no upstream `shop`
tidegate.yaml:3:47: listeners[0] > tls > certificates[0] > key: `b.key`: it is not the key of `a.pem`
tidegate.yaml:3:64: listeners[0] > tls > certificates[1] > cert: `b.key`: there is no certificate in it
tidegate.yaml:3:97: listeners[0] > tls > client_ca: `b.key`: there is no certificate in it
tidegate.yaml:4:1: unknown key `adnin`, did you mean `admin`?
10 faults";
    assert_eq!(load_from(&here).unwrap_err(), expected);
}

#[test]
fn names_are_given_once_in_all_files_and_used_from_any() {
    let here = directory(PROCESS, "upstreams: { shop: { servers: 127.0.0.1:9000 } }\n");
    fs::write(
        here.path().join("rules/a.yaml"),
        "routes: [{ name: home, chain: [], upstream: shop }]\n",
    )
    .unwrap();
    assert_eq!(load_from(&here).unwrap().rules.len(), 2);
    fs::write(
        here.path().join("rules/b.yaml"),
        "upstreams: { shop: { servers: 127.0.0.1:9001 } }\n",
    )
    .unwrap();
    let faults = load_from(&here).unwrap_err();
    let expected = "rules/shop.yaml:1:14: upstreams > shop: the upstream `shop` exists already, at ";
    assert!(
        faults.starts_with(expected) && faults.contains("rules/b.yaml:1:14: names are given once"),
        "{faults}"
    );
}

#[test]
fn a_syntax_error_in_one_file_does_not_hide_the_faults_of_another() {
    let here = directory(PROCESS, "routes: [\n");
    fs::write(here.path().join("rules/other.yaml"), "rutes: []\n").unwrap();
    fs::write(here.path().join("rules/latin.yaml"), b"# a\n# caf\xe9\n").unwrap();
    let faults = load_from(&here).unwrap_err();
    for expected in [
        "rules/shop.yaml:2:1: not valid YAML",
        "rules/other.yaml:1:1: unknown key `rutes`, did you mean `routes`?",
        "rules/latin.yaml:2:6: not UTF-8 text from here on",
        "3 faults",
    ] {
        assert!(faults.contains(expected), "{expected}\n{faults}");
    }
}

#[test]
fn a_process_file_that_cannot_be_read_is_no_fault_of_its_content() {
    let here = directory(PROCESS, "routes: []\n");
    let absent = here.path().join("absent.yaml");
    assert!(matches!(load(&absent), Err(LoadError::Unreadable { .. })));
    assert!(matches!(load(here.path()), Err(LoadError::Unreadable { .. })));
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let here = directory(PROCESS, &"#".repeat(FILE_BYTES_MAX + 10));
    assert!(load_from(&here).unwrap_err().contains("at most 1048576 are read"));
}

#[test]
fn defaults_are_those_written_down() {
    let loaded = load_from(&directory(PROCESS, "routes: []\n")).unwrap();
    let process = &loaded.process.process;
    assert_eq!(process.admin.bind.to_string(), "127.0.0.1:9180");
    assert_eq!(process.max_body.0, 16 << 20);
    assert_eq!(process.timeouts.drain.0, Duration::from_secs(30));
    assert!(process.listeners[0].http2 && !process.listeners[0].proxy_protocol);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn servers_are_written_short_or_in_full() {
    let text = "upstreams:\n  a: { servers: h:1 }\n  b: { servers: { address: h:1, weight: 3 } }\n  c: { servers: [h:1, { address: g:2 }] }\n";
    let (mut document, _) = Document::parse("f".into(), text).unwrap();
    let (rules, faults) = document.decode::<Rules>();
    assert_eq!(faults, []);
    let shown = |name: &str| -> Vec<String> {
        let rules = rules.as_ref().unwrap();
        rules.upstreams[name]
            .servers
            .0
            .iter()
            .map(|server| format!("{} {}", server.address, server.weight))
            .collect()
    };
    assert_eq!(shown("a"), ["h:1 1"]);
    assert_eq!(shown("b"), ["h:1 3"]);
    assert_eq!(shown("c"), ["h:1 1", "g:2 1"]);
}

#[test]
fn loading_again_gives_the_same_and_notices_changes() {
    let rules = "upstreams: { shop: { servers: 127.0.0.1:9000 } }\nroutes: [{ name: home, chain: [{ methods: { allow: [GET] } }], upstream: shop }]\n";
    let here = directory(PROCESS, rules);
    let loaded = load_from(&here).unwrap();
    let shown = |files: &[RuleFile]| files.iter().map(|file| format!("{:?}", file.rules)).collect::<Vec<_>>();
    let again = || load_rules(&loaded.process, &Compiler::rehearsal()).0;
    assert_eq!(shown(&again().unwrap()), shown(&loaded.rules));
    assert_eq!(load_from(&here).unwrap().process.process, loaded.process.process);
    fs::write(here.path().join("rules/shop.yaml"), rules.replace("9000", "9001")).unwrap();
    assert_ne!(shown(&again().unwrap()), shown(&loaded.rules));
    fs::write(here.path().join("rules/shop.yaml"), rules.replace("9000", "port")).unwrap();
    assert!(matches!(again(), Err(LoadError::Faulty(_))));
}

#[test]
fn what_rules_came_from_is_known_and_so_is_whether_it_has_changed() {
    let page = |name: &str| format!("rooms: {{ hall: {{ capacity: {{ visitors: 1 }}, page: {name} }} }}\n");
    let here = directory(PROCESS, &page("hall.html"));
    let file = |name: &str| here.path().join("rules").join(name);
    let write = |name: &str, text: &str| fs::write(file(name), text).unwrap();
    write("hall.html", "<title>one</title>");
    let loaded = load_from(&here).unwrap();
    let paths = |sources: &Sources| sources.paths().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&loaded.sources), [file("shop.yaml"), file("hall.html")]);
    let mut sources = loaded.sources;
    let mut again = |what: &str| {
        assert!(sources.have_changed(&loaded.process), "{what}");
        sources = load_rules(&loaded.process, &Compiler::rehearsal()).1;
        assert!(!sources.have_changed(&loaded.process), "{what}, and was read");
        paths(&sources)
    };
    write("hall.html", "<title>two</title>");
    again("a page was written");
    write("more.yaml", "routes: []\n");
    again("a file came");
    write("shop.yaml", &page("other.html"));
    let missing = again("another page is named, which is not there");
    assert_eq!(missing, [file("more.yaml"), file("shop.yaml"), file("other.html")]);
    write("other.html", "<title>{{ posision }}</title>");
    again("that page came");
    write("shop.yaml", "rooms: {\n");
    again("nothing can be read of a file any more");
    fs::remove_file(file("more.yaml")).unwrap();
    assert_eq!(again("a file went"), [file("shop.yaml")]);
}

#[test]
fn the_queue_api_stands_under_a_normal_path_only() {
    let with = |prefix: &str| {
        let process = format!("{PROCESS}queue: {{ prefix: \"{prefix}\" }}\n");
        load_from(&directory(&process, "routes: []\n"))
    };
    for taken in ["/queue", "/a/b-c_d.e~f", "/.well-known"] {
        assert!(with(taken).is_ok(), "{taken}");
    }
    for wrong in [
        "", "/", "queue", "/queue/", "//queue", "/a//b", "/a/../b", "/a/.", "/a%2fb", "/a?b", "/a*", "/<b>", "/é",
    ] {
        let faults = with(wrong).err().unwrap_or_default();
        assert!(
            faults.contains(&format!("tidegate.yaml:3:18: queue > prefix: `{wrong}` must be")),
            "{wrong}: {faults}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let here = directory(
        &format!("{PROCESS}secrets: {{ hashes: {{ file: keys }} }}\n"),
        "routes: []\n",
    );
    let keys = here.path().join("keys");
    fs::write(&keys, "00112233445566778899aabbccddeeff".repeat(2)).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load_from(&here).unwrap().warnings, []);
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o640)).unwrap();
    let warnings = load_from(&here).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .to_string()
            .contains("tidegate.yaml:3:28: secrets > hashes > file: others than its owner")
    );
}

fn seconds(clock: &Arc<SystemClock>, work: impl FnOnce()) -> f64 {
    let before = clock.now();
    work();
    clock.now().as_micros().abs_diff(before.as_micros()) as f64 / 1e6
}

/// The largest files of their kinds, good and bad. Ten seconds are for the slowest machine and an unoptimised build;
/// what matters is that nothing here takes minutes.
#[test]
fn the_largest_files_end_within_a_bound() {
    let clock = SystemClock::start();
    let servers = |server: &str| {
        format!(
            "upstreams:\n  a:\n    servers:\n{}",
            format!("    - {server}\n").repeat(40_000)
        )
    };
    let fill = |text: &str| text.repeat(FILE_BYTES_MAX / text.len());
    for (what, text) in [
        ("servers", servers("10.0.0.0:8")),
        ("wrong servers", servers("10.0.0.0/80")),
        (
            "wrong routes",
            format!("routes:\n{}", "  - { nam: x }\n".repeat(15_000)),
        ),
        (
            "unknown keys",
            (0..30_000).map(|n| format!("key{n}: [1, 2]\n")).collect(),
        ),
        ("brackets", fill("[")),
        ("braces", fill("{a: ")),
        ("questions", fill("? ")),
        ("dashes", fill("- ")),
        ("colons", fill("a: ")),
        ("commas", format!("[{}]", fill("a,").split_off(8))),
        ("quotes", fill("\"")),
        ("anchors", fill("&a ")),
        ("aliases", format!("- &a x\n{}", fill("- *a\n").split_off(16))),
        ("one line", fill("x")),
        ("comments", fill("#\n")),
        ("documents", fill("---\n")),
    ] {
        let taken = seconds(&clock, || drop(decode(&text)));
        println!("{what}: {taken:.3} s");
        assert!(taken < 10.0, "{what}: {taken} s");
    }
}

/// Scraps of rule files, well and badly formed, at any depth.
fn scrap() -> impl Strategy<Value = String> {
    let words = "name|chain|routes|upstreams|rooms|servers|match|hosts|capacity|visitors|admit|respond|methods|upstream\
                 |127.0.0.1:9000|100/s|10m|true|7|-1|1.5|~|'x y'|\"q\"|&a|\\*a|!t|<<|\\?|\\||>|%|@|`|#|---|\\.\\.\\.|\t|\u{feff}|é|\u{2028}";
    let word = proptest::string::string_regex(&format!("({words})")).unwrap();
    let glue =
        proptest::string::string_regex("(: |:\n  |\n- |\n  - |, |\n|\n    | |\\{|\\}|\\[|\\]|: \\{ |: \\[)").unwrap();
    proptest::collection::vec((word, glue), 0..40).prop_map(|pieces| pieces.into_iter().map(|(a, b)| a + &b).collect())
}

proptest! {
    #[test]
    fn no_text_panics_or_lingers(text in any::<String>()) {
        let clock = SystemClock::start();
        let taken = seconds(&clock, || drop(decode(&text)));
        prop_assert!(taken < 1.0, "{} s", taken);
    }

    #[test]
    fn no_scrap_of_rules_panics_or_lingers(text in scrap()) {
        let clock = SystemClock::start();
        let taken = seconds(&clock, || drop(decode(&text)));
        prop_assert!(taken < 1.0, "{} s", taken);
    }

    #[test]
    fn every_fault_of_a_list_is_found(wrong in proptest::collection::vec(any::<bool>(), 1..60)) {
        let lines = wrong.iter().map(|wrong| if *wrong { "  - { name: x y, chain: [] }\n" } else { "  - { chain: 7 }\n" });
        let text = format!("routes:\n{}", lines.collect::<String>());
        let faults = decode(&text);
        let expected: usize = wrong.iter().map(|wrong| if *wrong { 1 } else { 2 }).sum();
        prop_assert_eq!(faults.len(), expected, "{}", faults.join("\n"));
    }

    #[test]
    fn bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let is_text = std::str::from_utf8(&bytes).is_ok();
        match parse(Path::new("f"), &bytes) {
            Ok(_) => prop_assert!(is_text),
            Err(fault) => prop_assert!(is_text != fault.message.starts_with("not UTF-8"), "{}", fault),
        }
    }
}
