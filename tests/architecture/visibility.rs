//! What is public, somebody else names.

use std::collections::{HashMap, HashSet};

use crate::source::{Fault, Source, assert_none, bench_tree, production_tree, test_tree};

const NAMED: &str = "the compiler tells of dead code only where nothing is public, and who reads a bound should know \
                     whether anybody else does: leave `pub` out, or write `pub(super)` or `pub(crate)`.";

/// What stands between `pub ` and the name. Types are left out: one may be public because it is a field's or a
/// result's, without being named.
const KINDS: &[&str] = &["const fn ", "async fn ", "fn ", "const ", "static "];

/// The public functions and constants of a file, with their offsets.
fn public(source: &Source) -> Vec<(usize, &str)> {
    let code = &source.production;
    let after = code
        .match_indices("pub ")
        .map(|(offset, mark)| (offset, &code[offset + mark.len()..]));
    let named = after.filter_map(|(offset, rest)| {
        let rest = KINDS.iter().find_map(|kind| rest.strip_prefix(kind))?;
        Some((offset, words(rest).next()?))
    });
    named.collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Whether `other` is another file than `source`, and none below it, which sees what is private there.
fn is_elsewhere(source: &Source, other: &str) -> bool {
    let below = source.path.strip_suffix(".rs").unwrap_or(&source.path);
    let rest = other.strip_prefix(below);
    !rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// What is public in `tree`, and named neither in another of its files nor in those of `users`.
fn unnamed(tree: &[Source], users: &[Source]) -> Vec<Fault> {
    let mut files: HashMap<&str, HashSet<&str>> = HashMap::new();
    for source in tree.iter().chain(users) {
        for word in words(&source.code) {
            files.entry(word).or_default().insert(&source.path);
        }
    }
    let faults = tree.iter().flat_map(|source| {
        let alone = public(source)
            .into_iter()
            .filter(|(_, name)| !files[name].iter().any(|other| is_elsewhere(source, other)));
        alone.map(|(offset, name)| source.fault(offset, format!("`pub` {name} is named in no other file"), NAMED))
    });
    faults.collect()
}

#[test]
fn what_is_public_is_named_elsewhere() {
    let users: Vec<Source> = test_tree().into_iter().chain(bench_tree()).collect();
    assert_none(&unnamed(&production_tree(), &users));
}

/// How many faults there are in `text` beside another file.
fn count(text: &str, (path, user): (&str, &str)) -> usize {
    unnamed(&[Source::new("src/a.rs", text)], &[Source::new(path, user)]).len()
}

#[test]
fn what_nobody_else_names_is_a_fault() {
    for item in [
        "const B: u8 = 1;",
        "fn B() {}",
        "const fn B() {}",
        "async fn B() {}",
        "static B: u8 = 1;",
    ] {
        let public = format!("pub {item} fn c() {{ B }}");
        assert_eq!(count(&public, ("src/c.rs", "fn c() {}")), 1, "{item}");
        assert_eq!(
            count(&public, ("src/a/tests.rs", "use super::B;")),
            1,
            "who stands below sees what is private"
        );
        assert_eq!(
            count(&public, ("src/c.rs", "// B, and \"B\"\nfn c() { BB }")),
            1,
            "{item}"
        );
        for user in ["src/c.rs", "src/ab.rs", "tests/it/main.rs"] {
            assert_eq!(count(&public, (user, "use x::B;")), 0, "{item} in {user}");
        }
        assert_eq!(count(item, ("src/c.rs", "")), 0, "{item} is private");
        assert_eq!(count(&format!("pub(crate) {item}"), ("src/c.rs", "")), 0, "{item}");
    }
}

#[test]
fn types_and_what_only_tests_see_are_no_faults() {
    assert_eq!(count("pub struct B; pub enum C {} pub mod d;", ("src/c.rs", "")), 0);
    assert_eq!(count("#[cfg(test)]\nmod tests { pub fn b() {} }", ("src/c.rs", "")), 0);
}
