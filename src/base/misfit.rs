//! What a part of the configuration says when it cannot be built: where, relative to itself, and why.

use std::fmt;

/// Before a message about a text that must not be repeated, because it may hold a password.
pub const UNQUOTED: char = '\u{1}';

/// One step of a path into a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The value under a key.
    Key(String),
    /// An element of a list, counted from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A value that is well-formed and still cannot be used. The configuration reader turns it into a fault with a
/// file, a line and a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// From the part that complains down to the value it complains of.
    pub path: Vec<Step>,
    /// What is wrong and what would be right, as a sentence without a full stop.
    pub message: String,
}

impl Misfit {
    /// A complaint about the part as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            message: message.into(),
        }
    }

    /// The same complaint, as seen from one level further up.
    #[must_use]
    pub fn under(mut self, step: impl Into<Step>) -> Self {
        self.path.insert(0, step.into());
        self
    }
}

#[cfg(test)]
impl Misfit {
    /// The one complaint of a list: where, as `0.key.1`, and what.
    pub(crate) fn sole(mut misfits: Vec<Self>) -> (String, String) {
        let misfit = misfits.pop().unwrap();
        assert!(misfits.is_empty(), "{misfits:?}");
        let steps = misfit.path.iter().map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Index(index) => index.to_string(),
        });
        (steps.collect::<Vec<_>>().join("."), misfit.message)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
