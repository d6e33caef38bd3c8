//! Every plugin is one file, one line in the table, tests, and an example an operator can copy.

use crate::source::{Fault, Source, assert_none, production_tree, root};

const TABLE: &str = "src/plugins.rs";

const WHOLE: &str = "a plugin is finished when an operator can copy a file that uses it and a change that breaks it \
                     is noticed.";

const LISTED: &str = "the table in plugins.rs is the list of what a chain may contain; a file that is not in it is \
                      dead, however alive it looks.";

/// The modules that the table names, in its order.
fn listed(code: &str) -> Vec<String> {
    let Some((_, table)) = code.split_once("\nplugins! {") else {
        return Vec::new();
    };
    let table = table.split_once('}').map_or(table, |(inside, _)| inside);
    let module = |line: &str| {
        line.trim()
            .strip_suffix(',')?
            .rsplit_once(" in ")
            .map(|(_, module)| module.trim().to_owned())
    };
    table.lines().filter_map(module).collect()
}

/// The faults of a tree whose examples are `examples`, as paths from the root of the repository.
fn faults(tree: &[Source], examples: &[String]) -> Vec<Fault> {
    let table = tree.iter().find(|source| source.path == TABLE);
    let names = table.map(|source| listed(&source.production)).unwrap_or_default();
    if names.is_empty() {
        return vec![Fault {
            place: TABLE.to_owned(),
            what: "no table of plugins found".to_owned(),
            why: LISTED,
        }];
    }
    let mut faults: Vec<Fault> = names.iter().flat_map(|name| incomplete(name, tree, examples)).collect();
    faults.extend(tree.iter().filter_map(|source| unlisted(source, &names)));
    faults
}

fn incomplete(name: &str, tree: &[Source], examples: &[String]) -> Vec<Fault> {
    let (file, example) = (format!("src/plugins/{name}.rs"), format!("conf/examples/{name}.yaml"));
    let mut faults = Vec::new();
    match tree.iter().find(|source| source.path == file) {
        None => faults.push(Fault {
            place: file,
            what: "does not exist, and the table names it".to_owned(),
            why: WHOLE,
        }),
        Some(source) if !source.code.contains("mod tests") => {
            faults.push(Fault {
                place: file,
                what: "has no `mod tests`".to_owned(),
                why: WHOLE,
            });
        }
        Some(_) => {}
    }
    if !examples.contains(&example) {
        faults.push(Fault {
            place: example,
            what: format!("is missing: it shows how to use `{name}`"),
            why: WHOLE,
        });
    }
    faults
}

fn unlisted(source: &Source, names: &[String]) -> Option<Fault> {
    match source.module().as_slice() {
        [top, name] if top == "plugins" && !names.contains(name) => {
            Some(source.fault(0, "stands in no line of the table", LISTED))
        }
        _ => None,
    }
}

#[test]
fn every_plugin_has_a_file_tests_and_an_example() {
    let folder = root().join("conf/examples");
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let examples: Vec<String> = names
        .map(|entry| format!("conf/examples/{}", entry.file_name().to_string_lossy()))
        .collect();
    assert_none(&faults(&production_tree(), &examples));
}

const BAD_TABLE: &str = "macro_rules! plugins { ($x:ident in $y:ident,) => {} }\n";

fn tree(table: &str, files: &[(&str, &str)]) -> Vec<Source> {
    let mut sources = vec![Source::new(TABLE, &format!("{BAD_TABLE}\n{table}"))];
    sources.extend(files.iter().map(|(path, text)| Source::new(path, text)));
    sources
}

#[test]
fn a_whole_plugin_is_fine() {
    let tree = tree(
        "plugins! {\n    Access: Jwt in jwt,\n}\n",
        &[
            ("src/plugins/jwt.rs", "#[cfg(test)]\nmod tests;"),
            ("src/plugins/jwt/tests.rs", ""),
        ],
    );
    assert!(faults(&tree, &["conf/examples/jwt.yaml".to_owned()]).is_empty());
}

#[test]
fn each_missing_part_is_a_fault() {
    let table = "plugins! {\n    Access: Jwt in jwt,\n}\n";
    let example = ["conf/examples/jwt.yaml".to_owned()];
    let whole = ("src/plugins/jwt.rs", "#[cfg(test)]\nmod tests {}");
    assert_eq!(faults(&tree(table, &[]), &example).len(), 1, "no file");
    assert_eq!(
        faults(&tree(table, &[("src/plugins/jwt.rs", "// mod tests")]), &example).len(),
        1,
        "no tests"
    );
    assert_eq!(faults(&tree(table, &[whole]), &[]).len(), 1, "no example");
    assert_eq!(
        faults(&tree(table, &[whole, ("src/plugins/cors.rs", "mod tests;")]), &example).len(),
        1,
        "not listed"
    );
    assert_eq!(faults(&tree("", &[whole]), &example).len(), 1, "no table");
}
