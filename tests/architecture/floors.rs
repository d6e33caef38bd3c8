//! Who may import whom.

use crate::source::{Fault, Source, assert_none, own_paths, production_tree};

/// Every module at the top of the crate and the floor it stands on. A module imports from lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("base", 0),
    ("limiter", 1),
    ("queue", 1),
    ("store", 2),
    ("telemetry", 2),
    ("throttle", 3),
    ("room", 3),
    ("routing", 3),
    ("upstream", 3),
    ("plugins", 4),
    ("plan", 5),
    ("config", 6),
    ("proxy", 7),
    ("server", 8),
    ("cli", 9),
];

const UPWARDS: &str = "a floor that reaches up makes a cycle: neither side can be read, tested or replaced alone. \
                       Move the shared word down, or hand the value in from above.";

const SIDEWAYS: &str = "modules on one floor are peers that do not know of each other; \
                        what two of them need belongs on a floor below both.";

const RAW_SETTINGS: &str = "what runs may not reach for what was written: a request sees the compiled plan and nothing \
                            else, so a reload can be refused or swapped whole.";

const PLUGIN_TO_PLUGIN: &str = "a plugin is one file that can be read, added and removed by itself; \
                                what two of them share belongs on a lower floor.";

const NAMED_PLUGIN: &str = "the request's path runs any chain through the contract in plugins.rs; \
                            a plugin it knows by name would be a special case that no chain shows.";

/// The faults of one file. `plugins` are the modules below `plugins`.
fn faults(source: &Source, plugins: &[String]) -> Vec<Fault> {
    let from = source.module();
    let Some(own) = from.first() else { return Vec::new() };
    let mut faults = Vec::new();
    for path in own_paths(source) {
        let fault = |(what, why)| source.fault(path.offset, what, why);
        faults.extend(misplaced(own, &path.segments).map(fault));
        faults.extend(names_a_plugin(&from, &path.segments, plugins).map(fault));
    }
    faults
}

/// What is wrong with a module `own` naming `to`, by their floors.
fn misplaced(own: &str, to: &[String]) -> Option<(String, &'static str)> {
    let target = to.first()?;
    if target == own {
        return None;
    }
    let (Some(here), Some(there)) = (floor(own), floor(target)) else {
        let unknown = if floor(own).is_none() { own } else { target };
        return Some((
            format!("`{unknown}` has no floor: give it one in tests/architecture/floors.rs"),
            UPWARDS,
        ));
    };
    let stands = format!("`{own}` stands on floor {here} and names `{target}` of floor {there}");
    if there > here {
        return Some((stands, UPWARDS));
    }
    if there == here {
        return Some((stands, SIDEWAYS));
    }
    (target == "config" && !matches!(own, "server" | "cli")).then_some((stands, RAW_SETTINGS))
}

/// What is wrong with the module `from` naming `to`, when that is a single plugin.
fn names_a_plugin(from: &[String], to: &[String], plugins: &[String]) -> Option<(String, &'static str)> {
    let [first, plugin, ..] = to else { return None };
    if first != "plugins" || !plugins.contains(plugin) {
        return None;
    }
    let what = format!("names the plugin `{plugin}`");
    match from {
        [top, own, ..] if top == "plugins" && own != plugin => Some((what, PLUGIN_TO_PLUGIN)),
        [top, ..] if top == "proxy" => Some((what, NAMED_PLUGIN)),
        _ => None,
    }
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn plugins_of(tree: &[Source]) -> Vec<String> {
    let plugin = |source: &Source| match source.module().as_slice() {
        [top, name] if top == "plugins" => Some(name.clone()),
        _ => None,
    };
    tree.iter().filter_map(plugin).collect()
}

#[test]
fn modules_import_from_lower_floors_only() {
    let tree = production_tree();
    let plugins = plugins_of(&tree);
    assert_none(
        &tree
            .iter()
            .flat_map(|source| faults(source, &plugins))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn every_floor_is_a_module_that_exists() {
    let tree = production_tree();
    for (module, _) in FLOORS {
        assert!(
            tree.iter().any(|source| source.path == format!("src/{module}.rs")),
            "src/{module}.rs is gone: drop its floor"
        );
    }
}

/// The reasons that a snippet at `path` gets.
fn whys(path: &str, text: &str) -> Vec<&'static str> {
    let plugins = ["jwt".to_owned(), "redirect".to_owned()];
    faults(&Source::new(path, text), &plugins)
        .iter()
        .map(|fault| fault.why)
        .collect()
}

#[test]
fn an_import_from_above_is_a_fault_however_it_is_written() {
    assert_eq!(whys("src/base/name.rs", "use crate::store::Store;"), [UPWARDS]);
    assert_eq!(
        whys("src/base/name.rs", "use crate::{base::rate, store::Store};"),
        [UPWARDS]
    );
    assert_eq!(
        whys("src/base/name.rs", "fn f() -> crate::plan::Plan { g() }"),
        [UPWARDS]
    );
    assert_eq!(whys("src/store.rs", "use super::proxy::Gateway;"), [UPWARDS]);
    assert_eq!(
        whys("src/store/redis.rs", "macro_rules! m { () => { $crate::cli::run() } }"),
        [UPWARDS]
    );
    assert_eq!(whys("src/base/name.rs", "use crate::novelty::X;"), [UPWARDS]);
}

#[test]
fn an_import_from_the_same_floor_is_a_fault() {
    assert_eq!(
        whys("src/limiter/window.rs", "use crate::queue::order::Order;"),
        [SIDEWAYS]
    );
    assert_eq!(whys("src/room.rs", "use crate::upstream::Pool;"), [SIDEWAYS]);
}

#[test]
fn imports_from_below_and_from_the_own_tree_are_fine() {
    let none: [&str; 0] = [];
    assert_eq!(
        whys(
            "src/room/page.rs",
            "use super::standing::State;\nuse crate::base::name::Name;"
        ),
        none
    );
    assert_eq!(
        whys(
            "src/room/page.rs",
            "use crate::room::standing::State;\nuse crate::store::rooms;"
        ),
        none
    );
    assert_eq!(whys("src/main.rs", "use tidegate::cli::run;"), none);
    assert_eq!(
        whys(
            "src/base/name.rs",
            "// as in crate::store::Store\nconst X: &str = \"crate::cli\";"
        ),
        none
    );
    assert_eq!(
        whys(
            "src/base/name.rs",
            "#[cfg(test)]\nmod tests { use crate::store::Store; }"
        ),
        none
    );
}

#[test]
fn only_the_server_and_the_commands_see_what_was_written() {
    assert_eq!(
        whys("src/proxy/accept.rs", "use crate::config::raw::Listener;"),
        [RAW_SETTINGS]
    );
    assert!(whys("src/server/reload.rs", "use crate::config::compile;").is_empty());
    assert!(whys("src/cli/check.rs", "use crate::config::compile;").is_empty());
}

#[test]
fn a_plugin_knows_no_other_plugin_and_the_path_of_a_request_knows_none() {
    assert_eq!(
        whys("src/plugins/jwt.rs", "use super::redirect::Config;"),
        [PLUGIN_TO_PLUGIN]
    );
    assert_eq!(
        whys("src/plugins/jwt/claims.rs", "use crate::plugins::redirect;"),
        [PLUGIN_TO_PLUGIN]
    );
    assert_eq!(
        whys("src/proxy/filter.rs", "use crate::plugins::jwt::Claims;"),
        [NAMED_PLUGIN]
    );
    assert!(
        whys(
            "src/plugins/jwt/claims.rs",
            "use super::Config;\nuse crate::plugins::{Plugin, jwt::X};"
        )
        .is_empty()
    );
    assert!(whys("src/proxy/filter.rs", "use crate::plugins::{Plugin, Verdict};").is_empty());
}
