//! Why the decoding of a value stopped.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::config::spelling;

/// Why the decoding of a value stopped. What is not `Recorded` becomes a fault at the innermost value that sees it.
#[derive(Debug)]
pub(super) enum Halt {
    /// A visitor's own sentence, and what may have been meant.
    Say(String, Option<String>),
    /// The value is of another kind than this.
    Expected(String),
    /// A struct lacks this key.
    Missing(&'static str),
    /// A fault further down; there is nothing more to say.
    Recorded,
}

impl Halt {
    pub(super) fn say(message: impl Into<String>) -> Self {
        Self::Say(message.into(), None)
    }

    /// `word` is none of `known`.
    pub(super) fn unknown(kind: &str, word: &str, known: &[&'static str]) -> Self {
        let nearest = spelling::nearest(word, known.iter().copied()).map(str::to_owned);
        let message = match &nearest {
            Some(_) => format!("unknown {kind} `{word}`"),
            None if known.is_empty() => format!("unknown {kind} `{word}`: none is known here"),
            None => format!(
                "unknown {kind} `{word}`: known here are {}",
                spelling::quoted(known.iter().copied())
            ),
        };
        Self::Say(message, nearest)
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Say(message, _) => f.write_str(message),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::Missing(key) => write!(f, "missing key `{key}`"),
            Self::Recorded => f.write_str("see the faults"),
        }
    }
}

impl std::error::Error for Halt {}

impl de::Error for Halt {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::say(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Expected(expected.to_string())
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Expected(expected.to_string())
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::say(format!("expected {expected}, found {length} elements"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("word", variant, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::say(format!("the key `{field}` stands twice"))
    }
}
