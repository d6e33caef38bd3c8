//! Small things that add up: headers, statics, what is left half done, tests that wait.

use crate::source::{Fault, Source, assert_none, functions, production_tree, test_tree, words};

const STATICS_HOME: &str = "src/telemetry/metrics.rs";

/// Parts of a type's name that make a `static` of it change under its readers.
const MUTABLE: &[&str] = &[
    "Atomic",
    "Mutex",
    "RwLock",
    "Cell",
    "Once",
    "Lazy",
    "ArcSwap",
    "HashMap",
    "DashMap",
    "Notify",
    "Semaphore",
    "Sender",
];

const STATICS: &str = "state has one owner that hands it on; a static is state that every test shares and no reload \
                       replaces. The metrics registry is the one exception, because a metric that two parts count \
                       must be one metric.";

const HEADER: &str = "a module opens by saying what it decides and what it leaves to others; \
                      what cannot be said in a sentence is two modules.";

const MOD_RS: &str = "`foo.rs` stands beside `foo/`, so that the parent is seen next to its children \
                      and tabs are not all called the same.";

const UNFINISHED: &str = "main holds what is finished: what is half done is not merged, what is broken is mended, \
                          and what cannot run says so aloud.";

const SLEEP: &str = "a test that sleeps is slow when it passes and wrong when the machine is busy: move a manual clock, \
                     wait for an event, poll with a deadline in a function called `eventually`, or let tokio's clock \
                     be paused (`start_paused = true`, `tests/simulation/`), where a sleep takes no time at all.";

/// Where every runtime is built with tokio's clock paused.
const VIRTUAL_TIME: &str = "tests/simulation/";

/// What a test says of itself whose runtime has tokio's clock paused.
const PAUSED: &str = "start_paused = true";

fn shared_state(source: &Source) -> Vec<Fault> {
    if source.path == STATICS_HOME {
        return Vec::new();
    }
    let code = &source.production;
    let mut faults: Vec<Fault> = statics(code)
        .into_iter()
        .filter(|(_, declared)| declared.starts_with("mut ") || MUTABLE.iter().any(|word| declared.contains(word)))
        .map(|(offset, declared)| source.fault(offset, format!("`static {}`", declared.trim()), STATICS))
        .collect();
    faults.extend(
        code.match_indices("thread_local!")
            .map(|(offset, mark)| source.fault(offset, format!("`{mark}`"), STATICS)),
    );
    faults
}

/// What each `static` declares, from its name to the `=`: `X: Type`.
fn statics(code: &str) -> Vec<(usize, &str)> {
    let is_lifetime = |offset: usize| code[..offset].ends_with('\'');
    let declared = |offset: usize| {
        let rest = &code[offset + "static".len()..];
        rest[..rest.find(['=', ';']).unwrap_or(rest.len())].trim_start()
    };
    words(code, "static")
        .into_iter()
        .filter(|o| !is_lifetime(*o))
        .map(|o| (o, declared(o)))
        .collect()
}

fn headless(source: &Source) -> Option<Fault> {
    let opens = |mark| source.text.starts_with(mark);
    let is_named = opens("//! ") || opens("#![doc = include_str!(") || source.is_test;
    (!is_named).then(|| source.fault(0, "no `//!` in its first line, nor a README as its docs", HEADER))
}

fn mod_rs(source: &Source) -> Option<Fault> {
    source
        .path
        .ends_with("/mod.rs")
        .then(|| source.fault(0, "a `mod.rs`", MOD_RS))
}

fn unfinished(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for mark in ["#[ignore", "todo!(", "unimplemented!(", "dbg!("] {
        for (offset, _) in source.code.match_indices(mark) {
            faults.push(source.fault(offset, format!("`{mark}`"), UNFINISHED));
        }
    }
    faults
}

/// `sleep(` where production code does not stand: in test modules, and everywhere below `tests/`. Two kinds are no
/// faults: a poll, in a function called `eventually`; and a sleep of tokio's in virtual time, where the clock jumps
/// to the next timer as soon as every task waits, so that nothing is slow and nothing depends on the machine. A
/// thread's sleep knows nothing of that clock, and is a fault there too.
fn sleeping_tests(source: &Source) -> Vec<Fault> {
    let functions = functions(&source.code);
    let is_excused = |offset: usize| {
        let mut around = functions.iter().filter(|f| (f.start..f.end).contains(&offset));
        let polls = around.clone().any(|f| f.name == "eventually");
        let paused = around.any(|f| attributes(&source.code, f.start).contains(PAUSED));
        let of_a_thread = source.code[..offset].ends_with("thread::");
        polls || !of_a_thread && (paused || source.path.starts_with(VIRTUAL_TIME))
    };
    words(&source.code, "sleep")
        .into_iter()
        .filter(|offset| source.code[*offset..].starts_with("sleep("))
        .filter(|offset| !source.production[*offset..].starts_with("sleep("))
        .filter(|offset| !is_excused(*offset))
        .map(|offset| source.fault(offset, "`sleep(` in a test", SLEEP))
        .collect()
}

/// What stands between the item before and the `fn` at `start`: attributes and qualifiers.
fn attributes(code: &str, start: usize) -> &str {
    let before = code[..start].rfind(['}', ';']).map_or(0, |end| end + 1);
    &code[before..start]
}

#[test]
fn no_state_is_shared_behind_the_back() {
    assert_none(&production_tree().iter().flat_map(shared_state).collect::<Vec<_>>());
}

#[test]
fn every_module_says_what_it_is() {
    assert_none(&production_tree().iter().filter_map(headless).collect::<Vec<_>>());
}

#[test]
fn no_file_is_called_mod_rs() {
    assert_none(
        &production_tree()
            .iter()
            .chain(&test_tree())
            .filter_map(mod_rs)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_half_done() {
    assert_none(
        &production_tree()
            .iter()
            .chain(&test_tree())
            .flat_map(unfinished)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_test_sleeps() {
    assert_none(
        &production_tree()
            .iter()
            .chain(&test_tree())
            .flat_map(sleeping_tests)
            .collect::<Vec<_>>(),
    );
}

fn source(text: &str) -> Source {
    Source::new("src/a.rs", text)
}

#[test]
fn a_static_that_changes_is_a_fault() {
    let count = |text| shared_state(&source(text)).len();
    assert_eq!(count("static HITS: AtomicU64 = AtomicU64::new(0);"), 1);
    assert_eq!(
        count("pub(crate) static TABLE: Lazy<Table> = Lazy::new(Table::new);"),
        1
    );
    assert_eq!(count("fn f() { static SEEN: OnceLock<u8> = OnceLock::new(); }"), 1);
    assert_eq!(count("static mut DEPTH: u8 = 0;"), 1);
    assert_eq!(count("thread_local! { static X: u8 = 0; }"), 1);
    assert_eq!(
        count("static NAMES: &[&str] = &[];\n#[global_allocator]\nstatic A: MiMalloc = MiMalloc;"),
        0
    );
    assert_eq!(count("fn f(x: &'static AtomicU64, y: &'static str) {}"), 0);
    assert_eq!(
        shared_state(&Source::new(STATICS_HOME, "static M: Lazy<M> = Lazy::new(M::new);")).len(),
        0
    );
}

#[test]
fn a_module_without_a_header_is_a_fault() {
    assert!(headless(&source("use std::fmt;\n")).is_some());
    assert!(headless(&source("\n//! Late.\n")).is_some());
    assert!(headless(&source("")).is_some());
    assert!(headless(&source("//! What it decides.\n")).is_none());
    assert!(headless(&source("#![doc = include_str!(\"a/README.md\")]\n")).is_none());
    assert!(headless(&Source::new("src/a/tests.rs", "use super::*;\n")).is_none());
    assert!(headless(&Source::new("src/a/tests.rs", "")).is_none());
}

#[test]
fn a_mod_rs_is_a_fault() {
    assert!(mod_rs(&Source::new("src/a/mod.rs", "//! A.\n")).is_some());
    assert!(mod_rs(&Source::new("src/a/mode.rs", "//! A.\n")).is_none());
}

#[test]
fn what_is_half_done_is_a_fault_in_tests_too() {
    assert_eq!(unfinished(&source("fn f() { todo!() }")).len(), 1);
    assert_eq!(unfinished(&source("fn f() { dbg!(1); unimplemented!() }")).len(), 2);
    assert_eq!(
        unfinished(&Source::new(
            "tests/it/main.rs",
            "#[test]\n#[ignore = \"slow\"]\nfn f() {}"
        ))
        .len(),
        1
    );
    assert_eq!(
        unfinished(&source("// todo!()\nfn f() -> &str { \"dbg!(x)\" }")).len(),
        0
    );
}

#[test]
fn a_sleep_is_a_fault_in_a_test_and_nowhere_else() {
    let count = |path, text| sleeping_tests(&Source::new(path, text)).len();
    assert_eq!(count("tests/it/main.rs", "fn f() { std::thread::sleep(d) }"), 1);
    assert_eq!(
        count(
            "src/a.rs",
            "#[cfg(test)]\nmod tests { async fn f() { tokio::time::sleep(d).await } }"
        ),
        1
    );
    assert_eq!(count("src/a/tests.rs", "fn f() { sleep(d) }"), 1);
    assert_eq!(count("src/a.rs", "async fn f() { tokio::time::sleep(d).await }"), 0);
    assert_eq!(count("tests/it/support.rs", "fn eventually() { sleep(d) }"), 0);
    assert_eq!(count("tests/it/main.rs", "fn f() { asleep(d); no_sleep(d) }"), 0);
}

#[test]
fn a_sleep_in_virtual_time_is_no_fault_unless_a_thread_sleeps() {
    let count = |path, text| sleeping_tests(&Source::new(path, text)).len();
    let paused = |path, body: &str| {
        let before = "#[tokio::test]\nasync fn g() { a(); }\n";
        let test = format!("{before}#[tokio::test(start_paused = true)]\nasync fn f() {{ {body} }}");
        sleeping_tests(&Source::new(path, &test)).len()
    };
    assert_eq!(paused("src/a/tests.rs", "tokio::time::sleep(d).await"), 0);
    assert_eq!(paused("src/a/tests.rs", "std::thread::sleep(d)"), 1);
    assert_eq!(paused("src/a/tests.rs", "} fn h() { sleep(d)"), 1);
    assert_eq!(count("tests/simulation/a.rs", "async fn f() { sleep(d).await }"), 0);
    assert_eq!(count("tests/simulation/a.rs", "fn f() { thread::sleep(d) }"), 1);
}
