//! The image: it cannot be built in every place where the tests run, so the Dockerfile is read.

use std::collections::BTreeSet;

use regex::Regex;

use crate::{files, path, text};

const DOCKERFILE: &str = "deploy/Dockerfile";

struct Instruction {
    word: String,
    rest: String,
}

struct Stage {
    from: String,
    name: Option<String>,
    instructions: Vec<Instruction>,
}

fn instructions() -> Vec<Instruction> {
    let text = text(DOCKERFILE);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let instruction = |line: &str| {
        let (word, rest) = line.split_once(' ')?;
        let (word, rest) = (word.to_owned(), rest.trim().to_owned());
        Some(Instruction { word, rest })
    };
    whole.lines().filter_map(instruction).collect()
}

fn stages() -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for instruction in instructions() {
        if instruction.word == "FROM" {
            let words: Vec<_> = instruction.rest.split_whitespace().map(str::to_owned).collect();
            assert!(words.len() == 1 || (words.len() == 3 && words[1] == "AS"), "{words:?}");
            let (from, name) = (words[0].clone(), words.get(2).cloned());
            stages.push(Stage {
                from,
                name,
                instructions: Vec::new(),
            });
        } else {
            stages.last_mut().unwrap().instructions.push(instruction);
        }
    }
    stages
}

impl Stage {
    fn all<'s>(&'s self, word: &'s str) -> impl Iterator<Item = &'s str> {
        let wanted = self
            .instructions
            .iter()
            .filter(move |instruction| instruction.word == word);
        wanted.map(|instruction| instruction.rest.as_str())
    }

    /// What is copied from the repository.
    fn sources(&self) -> Vec<&str> {
        let copies = self.all("COPY").filter(|copy| !copy.starts_with("--from="));
        let sources = copies.flat_map(|copy| {
            let mut words: Vec<_> = copy.split_whitespace().collect();
            words.pop();
            words
        });
        sources.collect()
    }
}

#[test]
fn only_a_program_and_a_probe_reach_the_last_stage() {
    let stages = stages();
    let names: Vec<_> = stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
    let last = stages.last().unwrap();
    assert!(stages.len() > 1 && last.name.is_none());
    assert_eq!(last.all("RUN").count(), 0, "there is no shell");
    for copy in last.all("COPY") {
        let from = copy
            .strip_prefix("--from=")
            .and_then(|rest| rest.split_whitespace().next());
        assert!(from.is_some_and(|from| names.contains(&from)), "COPY {copy}");
    }
    assert!(
        last.all("COPY")
            .any(|copy| copy == "--from=build /tidegate /usr/local/bin/tidegate")
    );
    assert!(
        last.all("ENTRYPOINT")
            .any(|entry| entry == r#"["/usr/local/bin/tidegate"]"#)
    );
}

#[test]
fn it_does_not_run_as_root() {
    let stages = stages();
    let users: Vec<_> = stages.last().unwrap().all("USER").collect();
    let ids: Vec<u32> = users.last().unwrap().split(':').map(|id| id.parse().unwrap()).collect();
    assert!(ids.iter().all(|id| *id > 0), "{users:?}");
    let kubernetes = crate::document("deploy/kubernetes/deployment.yaml");
    let context = crate::at(&kubernetes, "spec.template.spec.securityContext");
    assert_eq!(crate::at(context, "runAsUser").as_u64(), Some(u64::from(ids[0])));
}

#[test]
fn its_health_is_asked_where_the_operators_listener_is() {
    let stages = stages();
    let checks: Vec<_> = stages.last().unwrap().all("HEALTHCHECK").collect();
    let admin = tidegate::config::raw::Admin::default().bind.0.port();
    assert!(
        checks[0].contains(&format!("http://127.0.0.1:{admin}/healthz")),
        "{checks:?}"
    );
    assert!(checks[0].contains("\"/bin/wget\""), "{checks:?}");
}

#[test]
fn it_is_compiled_by_the_compiler_of_the_repository() {
    let toolchain = text("rust-toolchain.toml");
    let channel = Regex::new(r#"channel = "([^"]+)""#).unwrap();
    let channel = channel.captures(&toolchain).unwrap()[1].to_owned();
    assert!(
        stages()[0].from.starts_with(&format!("rust:{channel}-")),
        "{}",
        stages()[0].from
    );
}

#[test]
fn every_base_has_a_tag() {
    for stage in stages() {
        let (_, tag) = stage.from.rsplit_once(':').unwrap_or_else(|| panic!("{}", stage.from));
        assert!(!tag.is_empty() && tag != "latest", "{}", stage.from);
    }
}

#[test]
fn what_is_copied_is_there_and_reaches_the_builder() {
    let ignore = text(".dockerignore");
    let let_in: BTreeSet<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), "what is not named stays out");
    for source in stages()[0].sources() {
        assert!(path(source).exists(), "COPY {source}");
        let inside = let_in.iter().any(|name| name.split('/').next() == Some(source));
        assert!(inside, "{source} is not let in by .dockerignore");
    }
}

/// Sources take in other files, and Cargo.toml names some: the builder needs them all.
#[test]
fn what_the_sources_need_is_copied() {
    let stages = stages();
    let copied = stages[0].sources();
    let included = Regex::new(r#"include_(?:str|bytes)!\("([^"]+)"\)"#).unwrap();
    let mut needed: Vec<_> = vec![path("Cargo.toml"), path("Cargo.lock"), path("tests/architecture.rs")];
    for file in files("src", ".rs") {
        let source = std::fs::read_to_string(&file).unwrap();
        let folder = file.parent().unwrap();
        let found = included.captures_iter(&source);
        needed.extend(found.map(|name| folder.join(&name[1]).canonicalize().unwrap()));
    }
    let named = Regex::new(r#"(?m)^path = "([^"]+)""#).unwrap();
    needed.extend(named.captures_iter(&text("Cargo.toml")).map(|name| path(&name[1])));
    for file in needed {
        let inside = copied
            .iter()
            .any(|source| file.starts_with(path(source).canonicalize().unwrap()));
        assert!(inside, "{} is not copied: {copied:?}", file.display());
    }
}
