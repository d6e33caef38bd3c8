//! Rust as text: what is code, what is a test, which paths are named, where a function ends.
//!
//! This is no parser. It knows comments, strings, brackets and `use` trees, which is enough for rules about names
//! and sizes, and it relies on rustfmt for the rest (no blank inside `Instant::now`).

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// One file, in the three states in which rules look at it. Offsets are the same in all of them.
pub(crate) struct Source {
    /// From the root of the repository, with `/`: `src/base/clock.rs`.
    pub(crate) path: String,
    /// As written.
    pub(crate) text: String,
    /// Comments, strings and characters are blanks.
    pub(crate) code: String,
    /// What stands under `#[cfg(test)]` is blank too; all of it in a file of tests.
    pub(crate) production: String,
    /// Nothing of it is production code, because of where it stands or how it is declared.
    pub(crate) is_test: bool,
}

impl Source {
    /// Reads `text` as the file `path`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = without_comments_and_strings(text);
        let source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            production: without_tests(&code),
            code,
            is_test: false,
        };
        if is_test_path(path) { source.into_test() } else { source }
    }

    fn into_test(mut self) -> Self {
        self.production = blank(&self.code, 0, self.code.len());
        self.is_test = true;
        self
    }

    /// The module that the file is: `["store", "redis"]` for `src/store/redis.rs`, empty for the crate's root.
    pub(crate) fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        if matches!(inner, "lib" | "main") {
            Vec::new()
        } else {
            inner.split('/').map(str::to_owned).collect()
        }
    }

    /// The line of an offset, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        line_of(&self.text, offset)
    }

    /// A fault at `offset`.
    pub(crate) fn fault(&self, offset: usize, what: impl Into<String>, why: &'static str) -> Fault {
        Fault {
            place: format!("{}:{}", self.path, self.line(offset)),
            what: what.into(),
            why,
        }
    }
}

/// A broken rule.
#[derive(Debug)]
pub(crate) struct Fault {
    /// File and line.
    pub(crate) place: String,
    /// What stands there.
    pub(crate) what: String,
    /// Why it must not.
    pub(crate) why: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    why: {}", self.place, self.what, self.why)
    }
}

/// Fails with all faults, one below the other.
#[track_caller]
pub(crate) fn assert_none(faults: &[Fault]) {
    let list: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(faults.is_empty(), "{} broken:\n{}", faults.len(), list.join("\n"));
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All sources below `src/`. Files that a parent declares under `#[cfg(test)]` count as tests.
pub(crate) fn production_tree() -> Vec<Source> {
    let sources = tree("src");
    assert!(
        sources.len() > 10,
        "src/ holds {} files: this test looks in the wrong place",
        sources.len()
    );
    let of_tests: HashSet<Vec<String>> = sources.iter().flat_map(modules_of_tests).collect();
    let is_of_tests = |source: &Source| of_tests.iter().any(|module| source.module().starts_with(module));
    sources
        .into_iter()
        .map(|source| {
            if is_of_tests(&source) {
                source.into_test()
            } else {
                source
            }
        })
        .collect()
}

/// All sources below `tests/`, except the rules themselves: their snippets are faults on purpose.
pub(crate) fn test_tree() -> Vec<Source> {
    let mut sources = tree("tests");
    sources.retain(|source| !source.path.starts_with("tests/architecture"));
    sources
}

/// All sources below `benches/`.
pub(crate) fn bench_tree() -> Vec<Source> {
    tree("benches")
}

fn tree(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join(folder), &mut files);
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if !path.ends_with("node_modules") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let path = file
        .strip_prefix(root())
        .unwrap_or(file)
        .to_string_lossy()
        .replace('\\', "/");
    Source::new(&path, &text)
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The modules that `source` declares in files of their own under `#[cfg(test)]`.
fn modules_of_tests(source: &Source) -> Vec<Vec<String>> {
    let mut modules = Vec::new();
    for (start, end) in test_items(&source.code) {
        if let Some(name) = declared_module(&source.code[start..end]) {
            let mut module = source.module();
            module.push(name);
            modules.push(module);
        }
    }
    modules
}

/// `x` when `item` ends in `mod x;`.
fn declared_module(item: &str) -> Option<String> {
    let words: Vec<&str> = item.strip_suffix(';')?.split_whitespace().collect();
    match words.as_slice() {
        [.., "mod", name] => Some((*name).to_owned()),
        _ => None,
    }
}

fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    for (start, end) in test_items(code) {
        kept = blank(&kept, start, end);
    }
    kept
}

/// From each `#[cfg(test)]` to the end of the item below it: a `;` or the closing brace.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    const MARK: &str = "#[cfg(test)]";
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let start = from + found;
        let end = end_of_item(code.as_bytes(), start + MARK.len());
        items.push((start, end));
        from = end;
    }
    items
}

/// The offset after the `;` or the closing brace that ends the item around `at`.
fn end_of_item(code: &[u8], at: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return offset + 1,
            b'{' if depth == 0 => return closing(code, offset) + 1,
            _ => {}
        }
    }
    code.len()
}

/// The brace that closes the one at `open`; the end of the text when none does.
fn closing(code: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return offset;
        }
    }
    code.len().saturating_sub(1)
}

/// A function with a body.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// From the line of `fn` to the line of its closing brace.
    pub(crate) lines: usize,
}

/// All functions of `code` that have a body, nested ones as well.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for start in words(code, "fn") {
        let name = identifier(bytes, skip_blanks(bytes, start + 2));
        let end = end_of_item(bytes, start);
        if !name.is_empty() && bytes.get(end.saturating_sub(1)) == Some(&b'}') {
            let lines = line_of(code, end) - line_of(code, start) + 1;
            found.push(Function {
                name,
                start,
                end,
                lines,
            });
        }
    }
    found
}

/// Where `word` stands by itself, not as a part of a longer name.
pub(crate) fn words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let stands_alone = |&offset: &usize| {
        let before = offset.checked_sub(1).and_then(|i| bytes.get(i));
        let after = bytes.get(offset + word.len());
        !before.is_some_and(|b| is_name(*b)) && !after.is_some_and(|b| is_name(*b))
    };
    code.match_indices(word)
        .map(|(offset, _)| offset)
        .filter(stands_alone)
        .collect()
}

/// A path that is named somewhere: `["base", "clock", "Clock"]` after its root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) offset: usize,
    pub(crate) segments: Vec<String>,
}

/// All paths that begin with `start::`, those of grouped imports one by one.
pub(crate) fn paths(code: &str, start: &str) -> Vec<Named> {
    path_trees(code, start)
        .into_iter()
        .flat_map(|(_, _, named)| named)
        .collect()
}

/// Start, end and paths of each tree that begins with `start::`.
fn path_trees(code: &str, start: &str) -> Vec<(usize, usize, Vec<Named>)> {
    let bytes = code.as_bytes();
    let mut trees = Vec::new();
    for offset in words(code, start) {
        let after = offset + start.len();
        if code[after..].starts_with("::") && !code[..offset].ends_with("::") {
            let mut named = Vec::new();
            let end = expand(bytes, after + 2, &mut Vec::new(), &mut named);
            trees.push((offset, end, named));
        }
    }
    trees
}

/// Reads one branch of a `use` tree at `at`; gives the offset behind it.
fn expand(code: &[u8], at: usize, above: &mut Vec<String>, named: &mut Vec<Named>) -> usize {
    let at = skip_blanks(code, at);
    if code.get(at) == Some(&b'{') {
        return expand_group(code, at, above, named);
    }
    let name = match code.get(at) {
        Some(b'*') => "*".to_owned(),
        _ => identifier(code, at),
    };
    let end = at + name.len();
    above.push(name);
    let goes_on = code[end..].starts_with(b"::") && code.get(end + 2) != Some(&b'<');
    let end = if goes_on {
        expand(code, end + 2, above, named)
    } else {
        named.push(Named {
            offset: at,
            segments: above.clone(),
        });
        end
    };
    above.pop();
    end
}

fn expand_group(code: &[u8], open: usize, above: &mut Vec<String>, named: &mut Vec<Named>) -> usize {
    let close = closing(code, open);
    let mut at = skip_blanks(code, open + 1);
    while at < close {
        let end = expand(code, at, above, named);
        let comma = (end..close).find(|&i| code[i] == b',').unwrap_or(close);
        at = skip_blanks(code, comma + 1);
    }
    close + 1
}

/// The paths of this crate that `source` names in production code, from the crate's root: `crate::` and `super::`.
pub(crate) fn own_paths(source: &Source) -> Vec<Named> {
    let code = &source.production;
    let mut named = paths(code, "crate");
    for mut path in paths(code, "super") {
        let mut segments = source.module();
        let inline = enclosing_modules(code, path.offset);
        let ups = 1 + path.segments.iter().take_while(|segment| *segment == "super").count();
        segments.truncate(segments.len().saturating_sub(ups.saturating_sub(inline)));
        segments.extend(path.segments.drain(ups - 1..));
        named.push(Named {
            offset: path.offset,
            segments,
        });
    }
    named
}

/// How many modules in braces stand around `offset`.
fn enclosing_modules(code: &str, offset: usize) -> usize {
    let bytes = code.as_bytes();
    let around = |&start: &usize| {
        let end = end_of_item(bytes, start);
        bytes.get(end - 1) == Some(&b'}') && (start..end).contains(&offset)
    };
    words(code, "mod").iter().filter(|start| around(start)).count()
}

/// The paths into another crate that `source` names in production code. A module of this crate that is called the
/// same is not taken for it, as far as the file shows which is meant.
pub(crate) fn foreign_paths(source: &Source, name: &str) -> Vec<Named> {
    let code = &source.production;
    let is_ours = own_paths(source)
        .iter()
        .any(|path| path.segments.last().is_some_and(|last| last == name))
        || code.contains(&format!("mod {name};"));
    if is_ours {
        return Vec::new();
    }
    let own: Vec<(usize, usize)> = ["crate", "super", "self"]
        .iter()
        .flat_map(|start| path_trees(code, start))
        .map(|(start, end, _)| (start, end))
        .collect();
    let mut named = paths(code, name);
    named.retain(|path| !own.iter().any(|(start, end)| (start..end).contains(&&path.offset)));
    named
}

fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_comment(bytes, at).or_else(|| end_of_literal(bytes, at));
        if let Some(end) = end {
            wipe(&mut code[at..end]);
        }
        at = end.unwrap_or(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn end_of_comment(text: &[u8], at: usize) -> Option<usize> {
    if text[at..].starts_with(b"//") {
        return Some(find(text, at, b"\n").unwrap_or(text.len()));
    }
    if !text[at..].starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut end) = (1, at + 2);
    while depth > 0 && end < text.len() {
        let step = match &text[end..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        end += step;
    }
    Some(end)
}

fn end_of_literal(text: &[u8], at: usize) -> Option<usize> {
    match text[at] {
        b'"' => Some(end_of_quoted(text, at + 1, b'"')),
        b'\'' => end_of_char(text, at),
        b'r' | b'b' | b'c' if at == 0 || !is_name(text[at - 1]) => end_of_raw(text, at),
        _ => None,
    }
}

/// `r"…"`, `br#"…"#` and their like; a plain `b"…"` is left to its quote.
fn end_of_raw(text: &[u8], at: usize) -> Option<usize> {
    let prefix = text[at..].iter().take_while(|b| b"rbc".contains(b)).count();
    let hashes = text[at + prefix..].iter().take_while(|b| **b == b'#').count();
    let open = at + prefix + hashes;
    if prefix > 2 || text[at + prefix - 1] != b'r' || text.get(open) != Some(&b'"') {
        return None;
    }
    let mark = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    Some(find(text, open + 1, &mark).map_or(text.len(), |end| end + mark.len()))
}

/// A character, and not a lifetime: `'x'`, `'\n'`, `'é'`.
fn end_of_char(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at + 1) == Some(&b'\\') {
        return Some(end_of_quoted(text, at + 1, b'\''));
    }
    let width = match text.get(at + 1)? {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (text.get(at + 1 + width) == Some(&b'\'')).then_some(at + 2 + width)
}

fn end_of_quoted(text: &[u8], mut at: usize, quote: u8) -> usize {
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn find(text: &[u8], from: usize, mark: &[u8]) -> Option<usize> {
    text[from..]
        .windows(mark.len())
        .position(|window| window == mark)
        .map(|found| from + found)
}

fn wipe(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn blank(text: &str, start: usize, end: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    wipe(&mut bytes[start..end]);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

fn identifier(code: &[u8], at: usize) -> String {
    let name: Vec<u8> = code
        .iter()
        .skip(at)
        .take_while(|byte| is_name(**byte))
        .copied()
        .collect();
    String::from_utf8_lossy(&name).into_owned()
}

fn skip_blanks(code: &[u8], at: usize) -> usize {
    at + code
        .iter()
        .skip(at)
        .take_while(|byte| byte.is_ascii_whitespace())
        .count()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let text = r##"a("b // c"); /* d /* e */ f */ 'g'; '\''; "\"h"; r#"i"j"#; b"k"; // l"##;
    let code = without_comments_and_strings(text);
    let left: String = code.split_whitespace().collect();
    assert_eq!(left, "a();;;;;b;");
    assert_eq!(code.len(), text.len(), "offsets must stay");
}

#[test]
fn a_lifetime_opens_no_string() {
    let code = without_comments_and_strings("fn a<'x>(b: &'x str) -> &'static str { c('}') }");
    assert!(code.contains("&'static str { c("), "{code}");
    assert!(!code.contains("('}')"), "{code}");
}

#[test]
fn what_stands_under_cfg_test_is_no_production_code() {
    let source = Source::new(
        "src/a.rs",
        "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod tests { fn b() { { } } }\nfn c() {}",
    );
    assert!(source.production.contains("fn a"), "{}", source.production);
    assert!(source.production.contains("fn c"), "{}", source.production);
    assert!(!source.production.contains("fn b"), "{}", source.production);
    assert!(Source::new("src/a/tests.rs", "fn a() {}").is_test);
    assert!(!source.is_test);
}

#[test]
fn a_file_declared_under_cfg_test_is_found() {
    let parent = Source::new(
        "src/a/b.rs",
        "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod double;\nmod c;",
    );
    let expected: Vec<Vec<String>> = [["a", "b", "tests"], ["a", "b", "double"]]
        .iter()
        .map(|m| m.map(str::to_owned).to_vec())
        .collect();
    assert_eq!(modules_of_tests(&parent), expected);
}

#[test]
fn grouped_imports_are_read_one_by_one() {
    let code =
        "use crate::{\n    base::{clock::Clock, rate as r},\n    store,\n};\nfn f() { crate::room::go::<u8>(1) }";
    let joined: Vec<String> = paths(code, "crate")
        .iter()
        .map(|path| path.segments.join("::"))
        .collect();
    assert_eq!(joined, ["base::clock::Clock", "base::rate", "store", "room::go"]);
}

#[test]
fn super_is_read_from_where_it_stands() {
    let source = Source::new(
        "src/a/b.rs",
        "use super::c::D;\nuse super::super::e;\nmod i { use super::F; }",
    );
    let joined: Vec<String> = own_paths(&source).iter().map(|path| path.segments.join("::")).collect();
    assert_eq!(joined, ["a::c::D", "e", "a::b::F"]);
}

#[test]
fn a_module_is_not_taken_for_a_crate_of_its_name() {
    let of = |text| foreign_paths(&Source::new("src/a.rs", text), "redis").len();
    assert_eq!(of("use redis::Client;"), 1);
    assert_eq!(of("fn f() { redis::cmd() }"), 1);
    assert_eq!(of("use crate::store::{memory, redis::Store};"), 0);
    assert_eq!(of("use crate::store::redis;\nfn f() { redis::Store::new() }"), 0);
    assert_eq!(of("pub mod redis;\nfn f() { redis::Store::new() }"), 0);
}

#[test]
fn a_function_is_as_long_as_from_its_name_to_its_brace() {
    let code = "trait T { fn a(); }\nfn b(\n    c: [u8; 2],\n) {\n    d();\n}\n";
    let found: Vec<(String, usize)> = functions(code).into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(found, [("b".to_owned(), 5)]);
}
