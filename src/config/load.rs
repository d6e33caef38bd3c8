//! From the name of the process file to everything the operator wrote, or to everything that is wrong with it.

mod sources;

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::sources::Reading;
pub use self::sources::{Sources, TextHash, folder_of};
use super::compile::Compiler;
use super::document::Document;
use super::fault::{Fault, Faults, Position};
use super::raw::{Process, Rules};
use super::read::FILE_BYTES_MAX;
use super::{check, glob};
use crate::base::misfit::{Misfit, Step};

/// The process file, read and checked.
#[derive(Debug)]
pub struct ProcessFile {
    /// Where its values stand.
    pub document: Document,
    /// What it says.
    pub process: Process,
}

/// A rule file, read and checked.
#[derive(Debug)]
pub struct RuleFile {
    /// Where its values stand.
    pub document: Document,
    /// What it says.
    pub rules: Rules,
}

/// A whole configuration without faults.
#[derive(Debug)]
pub struct Loaded {
    /// The process file.
    pub process: ProcessFile,
    /// The rule files, in the order of the patterns that name them.
    pub rules: Vec<RuleFile>,
    /// Where the rules came from.
    pub sources: Sources,
    /// What is unwise, and no reason to refuse.
    pub warnings: Vec<Fault>,
}

/// Why a configuration was not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The process file could not be read at all.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The configuration is refused, with everything that is wrong with it.
    Faulty(Faults),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, reason } => write!(f, "{}: {reason}", file.display()),
            Self::Faulty(faults) => faults.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads the process file and the rule files it names, and checks all of it.
pub fn load(process_file: &Path) -> Result<Loaded, LoadError> {
    let unreadable = |error: io::Error| LoadError::Unreadable {
        file: process_file.to_owned(),
        reason: error.to_string(),
    };
    let bytes = read_bounded(process_file, FILE_BYTES_MAX).map_err(unreadable)?;
    let (mut document, mut faults) = parse(process_file, &bytes).map_err(only)?;
    let (process, found) = document.decode::<Process>();
    faults.extend(found);
    let mut warnings = Vec::new();
    if let Some(process) = &process {
        let findings = check::process(&document, process);
        faults.extend(findings.faults);
        warnings = findings.warnings;
    }
    let (rules, sources, found) = read_rules(&document, process.as_ref());
    faults.extend(found);
    match (Faults::of(faults), process) {
        (None, Some(process)) => Ok(Loaded {
            process: ProcessFile { document, process },
            rules,
            sources,
            warnings,
        }),
        (Some(faults), _) => Err(LoadError::Faulty(Compiler::rehearsal().faults(rules, faults))),
        (None, None) => Err(only(document.fault(&[], &Misfit::new("nothing in it can be used")))),
    }
}

/// Reads the rule files again, as they are now, and tells where they came from, whatever is wrong with them. The process
/// file stays as it was loaded. Of rules with faults, `compiler` says what else is wrong with them.
pub fn load_rules(process: &ProcessFile, compiler: &Compiler) -> (Result<Vec<RuleFile>, LoadError>, Sources) {
    let (rules, sources, faults) = read_rules(&process.document, Some(&process.process));
    let rules = match Faults::of(faults) {
        None => Ok(rules),
        Some(faults) => Err(LoadError::Faulty(compiler.faults(rules, faults))),
    };
    (rules, sources)
}

fn only(fault: Fault) -> LoadError {
    LoadError::Faulty(fault.into())
}

/// All rule files that can be read, with what can be decoded of them, and all their faults.
fn read_rules(process: &Document, settings: Option<&Process>) -> (Vec<RuleFile>, Sources, Vec<Fault>) {
    let (mut files, mut faults, mut reading) = (Vec::new(), Vec::new(), Reading::default());
    for (path, file) in rule_files(process, &mut faults) {
        let read = read_bounded(&file, FILE_BYTES_MAX);
        reading.note_rules(&file, read.as_deref().unwrap_or_default());
        let read = read.map_err(|error| {
            let message = format!("`{}` cannot be read: {error}", file.display());
            process.fault(&path, &Misfit::new(message))
        });
        match read.and_then(|bytes| parse(&file, &bytes)) {
            Err(fault) => faults.push(fault),
            Ok((mut document, found)) => {
                let (rules, wrong) = document.decode::<Rules>();
                faults.extend(found.into_iter().chain(wrong));
                let rules = rules.unwrap_or_default();
                files.push(RuleFile { document, rules });
            }
        }
    }
    faults.extend(check::rules(&files, settings));
    let sources = reading.with_pages(files.iter().flat_map(RuleFile::pages).collect());
    (files, sources, faults)
}

impl RuleFile {
    /// The pages that it names.
    fn pages(&self) -> impl Iterator<Item = PathBuf> {
        let pages = self.rules.rooms.values().filter_map(|room| room.page.as_ref());
        pages.map(|page| self.document.resolve(&page.template))
    }
}

/// What the process file says of where rules are: paths whose last part may be a pattern.
fn rule_patterns(process: &Document) -> Vec<PathBuf> {
    let patterns = process.texts(&[Step::from("rules")]).into_iter();
    patterns
        .map(|(_, pattern)| process.resolve(Path::new(pattern)))
        .collect()
}

/// The rule files that exist, each once, and the pattern that names it.
fn rule_files(process: &Document, faults: &mut Vec<Fault>) -> Vec<(Vec<Step>, PathBuf)> {
    let directory = process.resolve(Path::new(""));
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    for (path, pattern) in process.texts(&[Step::from("rules")]) {
        match glob::files(&directory, pattern) {
            Ok(found) => {
                let new = found.into_iter().filter(|file| seen.insert(file.clone()));
                files.extend(new.map(|file| (path.clone(), file)));
            }
            Err(message) => faults.push(process.fault(&path, &Misfit::new(message))),
        }
    }
    files
}

fn parse(file: &Path, bytes: &[u8]) -> Result<(Document, Vec<Fault>), Fault> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Document::parse(file.to_owned(), text),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let (line, last) = before.split('\n').enumerate().last().unwrap_or((0, ""));
            let position = Position {
                line: line + 1,
                column: last.chars().count() + 1,
            };
            Err(Fault {
                file: file.to_owned(),
                position,
                path: String::new(),
                message: "not UTF-8 text from here on".to_owned(),
                suggestion: None,
            })
        }
    }
}

/// Reads a file, or just so much of it that the bound of `most` bytes is seen to be passed. Only regular files are opened:
/// a pipe would have us wait for whoever writes into it.
///
/// # Errors
/// As the operating system gives them, and for what is no file.
pub fn read_bounded(file: &Path, most: usize) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
