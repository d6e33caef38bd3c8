//! Cutting the builtin page into segments, once, so that filling it in is a few copies.
//!
//! Deliberately not a template language: no conditions, no loops. What the page shows in which state is a matter of
//! its style sheet, which looks at `data-state` and `data-notice`.

use super::slot::{Slot, Value, push_escaped};
use crate::base::negotiate::Language;

/// A piece of a page.
#[derive(Debug)]
pub(super) enum Segment {
    Literal(String),
    Value(Value),
}

impl Segment {
    /// How many bytes of a rendered page to keep ready for it. Only the longest sentences need more than a value's.
    pub(super) fn size_hint(&self) -> usize {
        match self {
            Self::Literal(text) => text.len(),
            Self::Value(_) => VALUE_BYTES,
        }
    }
}

/// What a value usually takes at most, in bytes.
const VALUE_BYTES: usize = 48;

/// The segments of a template in one language; none where a placeholder means nothing or does not end.
pub(super) fn cut(template: &str, language: Language) -> Option<Vec<Segment>> {
    let mut cutter = Cutter {
        language,
        segments: Vec::new(),
    };
    let mut rest = template;
    while let Some((before, inner)) = rest.split_once(OPEN) {
        let (name, after) = inner.split_once(CLOSE)?;
        cutter.literal(before);
        cutter.slot(Slot::named(name)?);
        rest = after;
    }
    cutter.literal(rest);
    Some(cutter.segments)
}

/// A sentence with its values: what is said, piece by piece. A sentence is plain text, and a test sees to it that the
/// names in it are right.
pub(super) fn pieces(sentence: &'static str) -> impl Iterator<Item = Result<&'static str, Value>> {
    let mut rest = sentence;
    std::iter::from_fn(move || {
        if let Some((name, after)) = rest.strip_prefix(OPEN).and_then(|inner| inner.split_once(CLOSE)) {
            rest = after;
            return match Slot::named(name) {
                Some(Slot::Value(value)) => Some(Err(value)),
                Some(Slot::Text(_)) | None => Some(Ok("")),
            };
        }
        let end = rest.find(OPEN).unwrap_or(rest.len());
        let (plain, after) = rest.split_at(end);
        rest = after;
        (!plain.is_empty()).then_some(Ok(plain))
    })
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

struct Cutter {
    language: Language,
    segments: Vec<Segment>,
}

impl Cutter {
    fn literal(&mut self, text: &str) {
        match self.segments.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Literal(literal)) => literal.push_str(text),
            Some(Segment::Value(_)) | None => self.segments.push(Segment::Literal(text.to_owned())),
        }
    }

    fn slot(&mut self, slot: Slot) {
        let text = match slot {
            Slot::Value(value) => return self.segments.push(Segment::Value(value)),
            Slot::Text(text) => text,
        };
        for piece in pieces(text.in_language(self.language)) {
            match piece {
                Err(value) => self.segments.push(Segment::Value(value)),
                Ok(plain) => {
                    let mut escaped = String::with_capacity(plain.len());
                    push_escaped(plain, &mut escaped);
                    self.literal(&escaped);
                }
            }
        }
    }
}
