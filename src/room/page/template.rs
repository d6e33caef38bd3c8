//! Cutting a template into segments, once, so that filling it in is a few copies.
//!
//! Deliberately not a template language: no conditions, no loops, no includes. What a page shows in which state is
//! a matter of style sheets that look at `data-state` and `data-notice`.

use super::inline::Inline;
use super::slot::{Slot, Value, push_escaped};
use crate::base::misfit::Misfit;
use crate::base::negotiate::Language;

/// Longest name between `{{` and `}}`, in bytes, spaces included.
const PLACEHOLDER_BYTES_MAX: usize = 64;

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

/// The segments of a template in one language. `inlines` are its scripts and style sheets, in which nothing is
/// filled in.
pub(super) fn cut(template: &str, inlines: &[Inline<'_>], language: Language) -> Result<Vec<Segment>, Misfit> {
    let mut cutter = Cutter {
        language,
        segments: Vec::new(),
    };
    let mut at = 0;
    while let Some(found) = template[at..].find(OPEN) {
        let open = at + found;
        cutter.literal(&template[at..open]);
        let place = Place { template, open };
        at = match inlines.iter().find(|inline| inline.range.contains(&open)) {
            Some(inline) => {
                place.refuse_in(inline)?;
                cutter.literal(OPEN);
                open + OPEN.len()
            }
            None => {
                let (name, end) = place.name()?;
                cutter.slot(place.slot(name)?);
                end
            }
        };
    }
    cutter.literal(&template[at..]);
    Ok(cutter.segments)
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// The line of a byte of a text, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

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
        match slot {
            Slot::Value(value) => self.segments.push(Segment::Value(value)),
            Slot::Text(text) => self.sentence(text.in_language(self.language)),
        }
    }

    /// A sentence is plain text with values in it; a test sees to it that their names are right.
    fn sentence(&mut self, sentence: &str) {
        let mut rest = sentence;
        while let Some((before, (name, after))) = rest
            .split_once(OPEN)
            .and_then(|(before, inner)| Some((before, inner.split_once(CLOSE)?)))
        {
            self.plain(before);
            if let Some(Slot::Value(value)) = Slot::named(name) {
                self.segments.push(Segment::Value(value));
            }
            rest = after;
        }
        self.plain(rest);
    }

    fn plain(&mut self, text: &str) {
        let mut escaped = String::with_capacity(text.len());
        push_escaped(text, &mut escaped);
        self.literal(&escaped);
    }
}

/// An opening `{{` in a template.
struct Place<'t> {
    template: &'t str,
    open: usize,
}

impl<'t> Place<'t> {
    /// The name up to `}}`, and where the text goes on.
    fn name(&self) -> Result<(&'t str, usize), Misfit> {
        let start = self.open + OPEN.len();
        let end = self.template[start..].find(CLOSE).map(|length| start + length);
        match end {
            Some(end) if end - start <= PLACEHOLDER_BYTES_MAX => {
                Ok((self.template[start..end].trim(), end + CLOSE.len()))
            }
            Some(_) | None => Err(self.misfit(format!(
                "`{{{{` is not closed by `}}}}` within {PLACEHOLDER_BYTES_MAX} bytes"
            ))),
        }
    }

    fn slot(&self, name: &str) -> Result<Slot, Misfit> {
        Slot::named(name).ok_or_else(|| {
            let hint = Slot::nearest(name).map(|near| format!("; did you mean `{{{{{near}}}}}`?"));
            let hint =
                hint.unwrap_or_else(|| format!("; known are {}", super::slot::names().collect::<Vec<_>>().join(", ")));
            self.misfit(format!("`{{{{{name}}}}}` is not a placeholder{hint}"))
        })
    }

    /// A policy that allows a script by its hash cannot allow one that differs for each visitor, and escaping for
    /// HTML protects nothing there. Braces that only look like a placeholder are left as they are.
    fn refuse_in(&self, inline: &Inline<'_>) -> Result<(), Misfit> {
        match self.name() {
            Ok((name, _)) if Slot::named(name).is_some() => Err(self.misfit(format!(
                "`{{{{{name}}}}}` cannot stand inside `<{}>`; put it into a `data-` attribute and read that",
                inline.kind.tag()
            ))),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn misfit(&self, message: String) -> Misfit {
        Misfit::new(format!("line {}: {message}", line_of(self.template, self.open)))
    }
}
