//! What is wrong with a configuration: one line for each fault, all of them at once.

use std::fmt;
use std::path::PathBuf;

/// Most faults that are listed. Nobody mends more at one sitting, and a file of nothing but faults must end quickly.
pub const FAULTS_MAX: usize = 200;

/// Where in a file, both counted from 1; a column is a character, not a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in that line.
    pub column: usize,
}

impl Position {
    /// The first character of a file: for faults about a file as a whole.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong, or, in a list of warnings, unwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Where in it.
    pub position: Position,
    /// The way down to the value, in words: `routes[2] "checkout" > match > path`. Empty for a whole file.
    pub path: String,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// The nearest spelling that would have been right.
    pub suggestion: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.position)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, ", did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// Faults in the order of their files, lines and columns, none of them twice, and at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    listed: Vec<Fault>,
    more: bool,
}

impl Faults {
    /// The list of `faults`; nothing if there are none. What exceeds [`FAULTS_MAX`] is left out, and that is said.
    pub fn of(mut faults: Vec<Fault>) -> Option<Self> {
        faults.sort();
        faults.dedup();
        let more = faults.len() > FAULTS_MAX;
        faults.truncate(FAULTS_MAX);
        (!faults.is_empty()).then_some(Self { listed: faults, more })
    }

    /// The faults that are listed.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.listed.iter()
    }

    /// How many are listed: 1 to [`FAULTS_MAX`].
    pub fn count(&self) -> usize {
        self.listed.len()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self {
            listed: vec![fault],
            more: false,
        }
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.listed {
            writeln!(f, "{fault}")?;
        }
        match (self.listed.len(), self.more) {
            (1, _) => f.write_str("1 fault"),
            (count, false) => write!(f, "{count} faults"),
            (count, true) => write!(f, "{count} faults, and more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(file: &str, line: usize, column: usize, message: &str) -> Fault {
        Fault {
            file: file.into(),
            position: Position { line, column },
            path: String::new(),
            message: message.to_owned(),
            suggestion: None,
        }
    }

    #[test]
    fn faults_are_listed_by_place_and_none_twice() {
        let list = vec![
            fault("b", 1, 1, "x"),
            fault("a", 9, 2, "y"),
            fault("a", 9, 1, "z"),
            fault("b", 1, 1, "x"),
        ];
        let shown = Faults::of(list).unwrap().to_string();
        assert_eq!(shown, "a:9:1: z\na:9:2: y\nb:1:1: x\n3 faults");
    }

    #[test]
    fn a_long_list_ends_and_says_so() {
        let list = (0..FAULTS_MAX + 1).map(|line| fault("a", line + 1, 1, "x")).collect();
        let faults = Faults::of(list).unwrap();
        assert_eq!(faults.count(), FAULTS_MAX);
        assert!(faults.to_string().ends_with("200 faults, and more"), "{faults}");
        assert_eq!(Faults::of(Vec::new()), None);
    }
}
