//! Where rules came from: the files, and a hash of what stood in them, so that a change can be told from a file that was
//! only touched, without reading a line of YAML again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::{ProcessFile, read_bounded, rule_files, rule_patterns};
use crate::config::read::FILE_BYTES_MAX;

/// The files of one reading of the rules.
#[derive(Debug, Default)]
pub struct Sources {
    rules: Vec<PathBuf>,
    pages: Vec<PathBuf>,
    digest: u64,
}

impl Sources {
    /// The rule files, and the pages that they name.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.rules.iter().chain(&self.pages)
    }

    /// Folders in which a change may mean other rules: those of the patterns, and those of all files that were read, whether
    /// they are there or not; where a folder is a link, where it points, too. And the folders of these, where they are
    /// made anew or pointed elsewhere.
    pub fn folders(&self, process: &ProcessFile) -> BTreeSet<PathBuf> {
        let patterns = rule_patterns(&process.document);
        let files = patterns.iter().chain(self.paths());
        let written = files
            .flat_map(|file| [Some(file.clone()), file.canonicalize().ok()])
            .flatten();
        let folders: BTreeSet<_> = written.filter_map(|file| folder_of(&file)).collect();
        let pointed = folders.iter().filter_map(|folder| folder.canonicalize().ok());
        let around = folders.iter().filter_map(|folder| folder_of(folder));
        pointed.chain(around).chain(folders.iter().cloned()).collect()
    }

    /// Whether there are other rule files by now, or another text in one of these. Reads all of them.
    pub fn have_changed(&self, process: &ProcessFile) -> bool {
        let rules = rule_files(&process.document, &mut Vec::new());
        let rules = rules.iter().map(|(_, file)| file);
        let mut hash = TextHash::default();
        rules.chain(&self.pages).for_each(|file| hash.read(file));
        hash.digest() != self.digest
    }
}

/// The folder that a path stands in; `.` for a name alone.
pub fn folder_of(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        parent.to_owned()
    })
}

/// What is read of the rules, while it is read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    sources: Sources,
    hash: TextHash,
}

impl Reading {
    /// A rule file, and its text; nothing where it could not be read.
    pub(super) fn note_rules(&mut self, file: &Path, text: &[u8]) {
        self.hash.note(file, text);
        self.sources.rules.push(file.to_owned());
    }

    /// All of it. Pages are read here before anyone else reads them: what is written later is a change.
    pub(super) fn with_pages(self, pages: Vec<PathBuf>) -> Sources {
        let Self { mut sources, mut hash } = self;
        pages.iter().for_each(|page| hash.read(page));
        sources.pages = pages;
        sources.digest = hash.digest();
        sources
    }
}

/// A hash of files with their names.
#[derive(Debug, Default)]
pub struct TextHash(DefaultHasher);

impl TextHash {
    /// Reads a file; one that cannot be read counts as empty. Beyond the bound, any file is refused.
    pub fn read(&mut self, file: &Path) {
        self.note(file, &read_bounded(file, FILE_BYTES_MAX).unwrap_or_default());
    }

    fn note(&mut self, file: &Path, text: &[u8]) {
        file.hash(&mut self.0);
        text.hash(&mut self.0);
    }

    /// The hash of all so far.
    pub fn digest(&self) -> u64 {
        self.0.finish()
    }
}
