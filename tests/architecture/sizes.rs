//! How long things may get. The list of exceptions is a ratchet: it may only shrink.

use crate::source::{Fault, Source, assert_none, functions, production_tree};

/// Lines of a function, from `fn` to its closing brace. Aim at 25.
const FUNCTION_LINES_MAX: usize = 70;

/// Lines of code in a file: no comments, no blank lines, no tests. Aim at 300.
const FILE_LINES_MAX: usize = 500;

/// Lines of `main.rs`, all of them.
const MAIN_LINES_MAX: usize = 80;

const WHY: &str = "what does not fit on a screen is read in parts and changed in one; find the second idea in it and \
                   give that a name.";

const RATCHET: &str = "an exception is a debt with an amount: it may be paid off and never grows, \
                       and a note of more than is owed would let it.";

const MAIN_WHY: &str =
    "main.rs parses, dispatches and exits with a code; a decision made there can be tested by nobody.";

/// A place that is longer than it should be, how long it is today, and why it stays.
struct Exception {
    path: &'static str,
    /// None: the file itself.
    function: Option<&'static str>,
    lines: usize,
    #[expect(dead_code, reason = "it is there to be read by whoever wants to add a line")]
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[];

/// Something that is too long, as found.
struct Long<'a> {
    source: &'a Source,
    function: Option<String>,
    offset: usize,
    lines: usize,
    max: usize,
}

fn too_long(source: &Source) -> Vec<Long<'_>> {
    let mut found = Vec::new();
    let lines = source.production.lines().filter(|line| !line.trim().is_empty()).count();
    if lines > FILE_LINES_MAX {
        found.push(Long {
            source,
            function: None,
            offset: 0,
            lines,
            max: FILE_LINES_MAX,
        });
    }
    for function in functions(&source.production) {
        if function.lines > FUNCTION_LINES_MAX {
            let (offset, lines) = (function.start, function.lines);
            found.push(Long {
                source,
                function: Some(function.name),
                offset,
                lines,
                max: FUNCTION_LINES_MAX,
            });
        }
    }
    found
}

fn faults(tree: &[Source], exceptions: &[Exception]) -> Vec<Fault> {
    let long: Vec<Long<'_>> = tree.iter().flat_map(too_long).collect();
    let excused = |long: &Long<'_>| exceptions.iter().find(|exception| is_about(exception, long));
    let mut faults = Vec::new();
    for one in &long {
        let what = match excused(one) {
            Some(exception) if one.lines > exception.lines => {
                format!("{} grew from {} to {} lines", name(one), exception.lines, one.lines)
            }
            Some(_) => continue,
            None => format!("{} is {} lines long; it stops at {}", name(one), one.lines, one.max),
        };
        faults.push(one.source.fault(one.offset, what, WHY));
    }
    faults.extend(exceptions.iter().filter_map(|exception| overstated(exception, &long)));
    faults
}

/// An exception that claims more than is there.
fn overstated(exception: &Exception, long: &[Long<'_>]) -> Option<Fault> {
    let now = long
        .iter()
        .filter(|one| is_about(exception, one))
        .map(|one| one.lines)
        .max();
    let what = match now {
        None => "is no longer too long: drop its exception".to_owned(),
        Some(lines) if lines < exception.lines => {
            format!("is down to {lines} lines: lower its exception from {}", exception.lines)
        }
        Some(_) => return None,
    };
    let place = exception.path.to_owned();
    Some(Fault {
        place,
        what: format!("`{}` {what}", exception.function.unwrap_or("the file")),
        why: RATCHET,
    })
}

fn is_about(exception: &Exception, long: &Long<'_>) -> bool {
    exception.path == long.source.path && exception.function == long.function.as_deref()
}

fn name(long: &Long<'_>) -> String {
    long.function
        .as_ref()
        .map_or_else(|| "the file".to_owned(), |function| format!("`{function}`"))
}

fn main_faults(source: &Source) -> Option<Fault> {
    let lines = source.text.lines().count();
    let is_over = source.path == "src/main.rs" && lines > MAIN_LINES_MAX;
    is_over.then(|| source.fault(0, format!("{lines} lines; at most {MAIN_LINES_MAX}"), MAIN_WHY))
}

#[test]
fn functions_and_files_stay_readable_at_one_sitting() {
    assert_none(&faults(&production_tree(), EXCEPTIONS));
}

#[test]
fn main_is_a_staircase() {
    assert_none(&production_tree().iter().filter_map(main_faults).collect::<Vec<_>>());
}

/// A file with one function that is `lines` long.
fn file_with_function(lines: usize) -> Source {
    Source::new(
        "src/a.rs",
        &format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2)),
    )
}

fn exception(lines: usize) -> Exception {
    Exception {
        path: "src/a.rs",
        function: Some("long"),
        lines,
        reason: "a snippet",
    }
}

#[test]
fn a_function_over_the_line_is_a_fault() {
    assert!(faults(&[file_with_function(FUNCTION_LINES_MAX)], &[]).is_empty());
    assert_eq!(faults(&[file_with_function(FUNCTION_LINES_MAX + 1)], &[]).len(), 1);
}

#[test]
fn a_file_counts_code_and_neither_comments_nor_tests() {
    let code = "x();\n".repeat(FILE_LINES_MAX);
    let idle = format!("// a\n\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
    assert!(faults(&[Source::new("src/a.rs", &format!("{code}{idle}"))], &[]).is_empty());
    assert_eq!(
        faults(&[Source::new("src/a.rs", &format!("{code}y();\n{idle}"))], &[]).len(),
        1
    );
}

#[test]
fn an_exception_excuses_exactly_what_is_there() {
    let long = || [file_with_function(90)];
    assert!(faults(&long(), &[exception(90)]).is_empty());
    assert_eq!(faults(&long(), &[exception(89)]).len(), 1, "it grew");
    assert_eq!(
        faults(&long(), &[exception(91)]).len(),
        1,
        "it shrank and the note did not"
    );
    assert_eq!(
        faults(&[file_with_function(20)], &[exception(90)]).len(),
        1,
        "it is needed no more"
    );
}

#[test]
fn a_main_over_the_line_is_a_fault() {
    let main = |lines: usize| main_faults(&Source::new("src/main.rs", &"x();\n".repeat(lines)));
    assert!(main(MAIN_LINES_MAX).is_none());
    assert!(main(MAIN_LINES_MAX + 1).is_some());
}
