//! Which files a pattern of the process file's `rules` means.

use std::fs;
use std::path::{Path, PathBuf};

/// Most files that one pattern may mean.
const MATCHES_MAX: usize = 1_000;

/// The files that `pattern` means, seen from `directory`, by name. In its last part `*` stands for any characters
/// and `?` for one; neither for a leading dot, so that an editor's hidden copies are not taken for rules.
pub fn files(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = directory.join(pattern);
    let (Some(parent), Some(last)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("`{pattern}` names no file"));
    };
    if pattern.rsplit_once('/').is_some_and(|(parents, _)| is_pattern(parents)) {
        return Err(format!("`{pattern}`: `*` and `?` may stand in the last part only"));
    }
    if !is_pattern(last) {
        return Ok(vec![path.clone()]);
    }
    let unreadable = |error: std::io::Error| format!("`{}` cannot be listed: {error}", parent.display());
    let mut matching = Vec::new();
    for entry in fs::read_dir(parent).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if name.to_str().is_some_and(|name| matches(last, name)) && parent.join(&name).is_file() {
            matching.push(parent.join(name));
        }
        if matching.len() > MATCHES_MAX {
            return Err(format!("`{pattern}` means more than {MATCHES_MAX} files"));
        }
    }
    matching.sort();
    match matching.is_empty() {
        true => Err(format!("`{pattern}` matches no file in `{}`", parent.display())),
        false => Ok(matching),
    }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Matches greedily and goes back to the last `*` only: at worst the product of both lengths, never exponential.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_names() {
        for (pattern, name) in [
            ("*.yaml", "shop.yaml"),
            ("a*b*c", "a-b-b-c"),
            ("?.yaml", "x.yaml"),
            ("*", "x"),
            (".*", ".x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.yaml", "shop.yml"),
            ("a*b", "a-b-c"),
            ("?.yaml", ".yaml"),
            ("*", ".hidden"),
            ("", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)));
    }

    #[test]
    fn only_files_of_the_last_part_are_meant_in_order() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("rules/old.yaml")).unwrap();
        for name in ["b.yaml", "a.yaml", ".c.yaml", "d.txt"] {
            fs::write(directory.path().join("rules").join(name), "").unwrap();
        }
        let found = files(directory.path(), "rules/*.yaml").unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.yaml", "b.yaml"]);
        assert!(
            files(directory.path(), "rules/*.json")
                .unwrap_err()
                .contains("matches no file")
        );
        assert!(
            files(directory.path(), "*/a.yaml")
                .unwrap_err()
                .contains("last part only")
        );
        assert_eq!(files(directory.path(), "absent.yaml").unwrap().len(), 1);
    }
}
