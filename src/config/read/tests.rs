use super::*;
use crate::base::misfit::Step;
use crate::config::tree::Part;

/// Every value of the tree as `line:column value`, depth first; keys as `line:column key:`.
fn shown(text: &str) -> String {
    fn walk(node: &Node, out: &mut Vec<String>) {
        match &node.kind {
            Kind::Null => out.push(format!("{} null", node.position)),
            Kind::List(elements) => {
                out.push(format!("{} [{}]", node.position, elements.len()));
                elements.iter().for_each(|element| walk(element, out));
            }
            Kind::Map(entries) => {
                out.push(format!("{} {{{}}}", node.position, entries.len()));
                for entry in entries {
                    out.push(format!("{} {}:", entry.position, entry.key));
                    walk(&entry.value, out);
                }
            }
            _ => out.push(format!("{} {}", node.position, node.scalar().unwrap())),
        }
    }
    let mut out = Vec::new();
    match read(text) {
        Ok(reading) => {
            walk(&reading.root, &mut out);
            out.extend(
                reading
                    .repeated
                    .iter()
                    .map(|again| format!("{}! {} as at {}", again.position, again.key, again.first)),
            );
        }
        Err((position, message)) => out.push(format!("{position}! {message}")),
    }
    out.join("; ")
}

#[test]
fn every_key_and_value_knows_its_place() {
    assert_eq!(
        shown("a: 1\nb:\n  - x\n  - c: true\n    d: {e: [ -2, 1.5]}\n"),
        "1:1 {2}; 1:1 a:; 1:4 1; 2:1 b:; \
        3:3 [2]; 3:5 x; 4:5 {2}; 4:5 c:; 4:8 true; 5:5 d:; 5:8 {1}; 5:9 e:; 5:12 [2]; 5:14 -2; 5:18 1.5"
    );
    assert_eq!(
        shown("k:\n- a\n- \n\"q u\": 'é'\nz: é # c\ny:\n"),
        "1:1 {4}; 1:1 k:; 2:1 [2]; 2:3 a; 3:2 null; \
        4:1 q u:; 4:8 é; 5:1 z:; 5:4 é; 6:1 y:; 6:3 null"
    );
    assert_eq!(shown("{a: {}, b, [c: d]: 1}"), "1:1! a key must be text, not a list");
    assert_eq!(
        shown("on: yes\n80: ~\ntext: |\n  two\n  lines\n"),
        "1:1 {3}; 1:1 on:; 1:5 yes; 2:1 80:; 2:5 null; \
        3:1 text:; 3:7 two…"
    );
}

#[test]
fn an_alias_is_the_value_it_stands_for() {
    assert_eq!(
        shown("a: &x {p: 1}\nb: *x\nc: [*x, *x, 2]\n"),
        "1:1 {3}; 1:1 a:; 1:4 {1}; 1:8 p:; 1:11 1; 2:1 b:; \
        1:4 {1}; 1:8 p:; 1:11 1; 3:1 c:; 3:4 [3]; 1:4 {1}; 1:8 p:; 1:11 1; 1:4 {1}; 1:8 p:; 1:11 1; 3:13 2"
    );
    assert_eq!(
        shown("&k key: 1\nb: *k\nc: [&s x, *s, *s]\n*s : 7\n"),
        "1:1 {4}; 1:1 key:; 1:9 1; 2:1 b:; 1:1 key; \
        3:1 c:; 3:4 [3]; 3:5 x; 3:5 x; 3:5 x; 3:5 x:; 4:6 7"
    );
    assert_eq!(
        shown("a: &e\nb: *e\nc: [&f , *f]\n"),
        "1:1 {3}; 1:1 a:; 1:4 null; 2:1 b:; 1:4 null; 3:1 c:; 3:4 [2]; \
        3:5 null; 3:5 null"
    );
}

#[test]
fn merged_entries_give_way_to_written_ones() {
    assert!(shown("- &a x\n- !t y\n").ends_with("remove `!t`"));
    let text = "base: &b {p: 1, q: 2}\nuse:\n  <<: *b\n  q: 3\n";
    assert!(
        shown(text).ends_with("3:3 {2}; 4:3 q:; 4:6 3; 1:11 p:; 1:14 1"),
        "{}",
        shown(text)
    );
    assert!(shown("a: {<<: 1}").ends_with("`<<` takes in maps, not `1`"));
}

#[test]
fn keys_that_stand_twice_are_all_named() {
    let text = "a: 1\nb: {c: 1, c: 2}\na: 3\n";
    let found = shown(text);
    assert!(found.contains("2:11! c as at 2:5"), "{found}");
    assert!(found.ends_with("3:1! a as at 1:1"), "{found}");
}

#[test]
fn what_is_not_one_plain_document_is_refused_where_it_goes_wrong() {
    for (text, expected) in [
        ("", "1:1! the file is empty"),
        ("# only a comment\n", "1:1! the file is empty"),
        ("---\n", "1:1! the file is empty"),
        (
            "a: 1\n---\nb: 2\n",
            "3:1! a second document begins here: write one document a file",
        ),
        ("a:\n\tb: 1\n", "2:1! a tab cannot indent here: use spaces"),
        (
            "a: [1, 2\nb: 3\n",
            "2:2! not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4",
        ),
        (
            "a: *nobody\n",
            "1:4! an alias that stands for nothing: no anchor of this name before it",
        ),
        ("a: !secret x\n", "1:4! tags have no meaning here: remove `!secret`"),
        ("a: !m {x: 1}\n", "1:4! tags have no meaning here: remove `!m`"),
        (
            "a: @x\n",
            "1:4! found character that cannot start any token, while scanning for the next token: write the value in quotes",
        ),
        ("\u{feff}a: [1]\n", "1:1 {1}; 1:1 a:; 1:4 [1]; 1:5 1"),
    ] {
        let found = shown(text);
        assert!(found.starts_with(expected), "{text:?}: {found}");
    }
}

#[test]
fn an_alias_to_what_holds_it_is_refused() {
    for text in [
        "a: &x [*x]\n",
        "a: &x {b: *x}\n",
        "&x\na: *x\n",
        "a: &x [1, [*x]]\n",
        "a: &x {b: 1, *x : 2}",
    ] {
        assert!(shown(text).ends_with(ENDLESS), "{text:?}: {}", shown(text));
    }
    for text in [
        "&a {*a : *a}",
        "&a\n*a : *a\n",
        "&a\n*a : 1\n",
        "&a {*a : 1, b: 2}",
        "- &a {*a : x}",
        "? &a\n: *a\n",
        "{?}",
        "[?]",
    ] {
        let _ = shown(text);
    }
}

#[test]
fn a_bomb_ends_quickly() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", "));
    }
    assert!(shown(&bomb).ends_with(TOO_MANY), "{}", shown(&bomb));
    let keys: String = (0..2000).map(|n| format!("  k{n}: 1\n")).collect();
    let merges = format!("a: &a\n{keys}b:\n{}", "  - <<: *a\n".repeat(1000));
    assert!(shown(&merges).ends_with(TOO_MANY));
}

#[test]
fn size_and_depth_have_bounds() {
    assert!(shown(&"#".repeat(FILE_BYTES_MAX + 1)).contains("at most 1048576 are read"));
    assert!(shown(&"[".repeat(60)).contains("not valid YAML"));
    assert_eq!(
        shown(&format!("é: x\n{}", "[".repeat(200))),
        "2:129! more than 128 brackets and braces are open here"
    );
    let deep = format!("a: {}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    assert!(shown(&deep).ends_with("nested more than 32 levels deep"));
    assert!(shown(&"- a\n".repeat(VALUES_MAX + 1)).ends_with(TOO_MANY));
}

#[test]
fn paths_are_found_and_put_in_words() {
    let text = "routes:\n  - name: home\n    chain:\n      - rate_limit: {limit: x}\n";
    let root = read(text).unwrap().root;
    let path = |steps: &[&str]| -> Vec<Step> {
        steps
            .iter()
            .map(|step| step.parse::<usize>().map_or_else(|_| Step::from(*step), Step::from))
            .collect()
    };
    let limit = path(&["routes", "0", "chain", "0", "rate_limit", "0", "limit"]);
    assert_eq!(root.words(&limit), "routes[0] \"home\" > chain[0] > rate_limit > limit");
    assert_eq!(root.locate(&limit, Part::Whole).to_string(), "4:29");
    assert_eq!(root.locate(&limit, Part::Key).to_string(), "4:22");
    assert_eq!(
        root.locate(&path(&["routes", "0", "nowhere"]), Part::Whole).to_string(),
        "2:5"
    );
    assert_eq!(root.locate(&path(&["routes", "7"]), Part::Whole).to_string(), "2:3");
}
