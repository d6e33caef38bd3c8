//! The waiting page: what a browser gets instead of the page it asked for, until it is let in.
//!
//! Decides how a [`Standing`] looks to a person. A page is loaded once, with its texts in every language already in
//! place, and filled in for each visitor by copying. It does not decide who gets it, nor with which status; whoever
//! sends it adds [`Page::csp`], `Cache-Control: no-store`, `X-Robots-Tag: noindex` and `Vary: Accept, Accept-Language`.
//!
//! The page that comes with Tidegate is one document without any outside asset. Its script asks the queue API how
//! things stand and reloads the page, which is the guarded URL itself, when the visitor is called. Without
//! JavaScript it reloads every poll interval. Nothing of a visitor stands inside its script or style sheet, so the
//! policy can name both by their hashes.

mod inline;
mod slot;
mod template;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use self::slot::View;
use self::template::Segment;
use super::standing::Standing;
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::negotiate::Language;

/// Longest template, in bytes. A page is sent to everyone who waits, every few seconds to those without
/// JavaScript: a larger one turns the waiting room into the rush it should prevent.
pub const TEMPLATE_BYTES_MAX: usize = 256 * 1024;

/// A waiting page, parsed once and filled in per visitor.
#[derive(Debug)]
pub struct Page {
    english: Vec<Segment>,
    korean: Vec<Segment>,
    csp: HeaderValue,
    queue_prefix: String,
    abandon_after: Duration,
}

impl Page {
    /// The page that comes with Tidegate.
    #[expect(
        clippy::expect_used,
        reason = "the template is part of the program, and a test parses it"
    )]
    pub fn builtin() -> Self {
        Self::parse(include_str!("page/waiting.html")).expect("the builtin page parses")
    }

    /// An operator's own page: HTML with placeholders such as `{{position}}`, listed by [`Page::placeholders`].
    ///
    /// Values are escaped for text and for attributes between quotes; they cannot stand in unquoted attributes or
    /// in event handlers. Inline scripts and style sheets are allowed by their hashes, everything from outside is
    /// blocked by the policy. A template above [`TEMPLATE_BYTES_MAX`], a placeholder that means nothing (refused
    /// with the nearest that does), one inside a script or a style sheet, and a script with a `src` are misfits.
    pub fn parse(template: &str) -> Result<Self, Misfit> {
        let size = template.len();
        if size > TEMPLATE_BYTES_MAX {
            let message = format!(
                "a page of {size} bytes is too large to send to everyone who waits; the most is {TEMPLATE_BYTES_MAX}"
            );
            return Err(Misfit::new(message));
        }
        let inlines = inline::find(template)?;
        Ok(Self {
            english: template::cut(template, &inlines, Language::English)?,
            korean: template::cut(template, &inlines, Language::Korean)?,
            csp: inline::policy(&inlines)?,
            queue_prefix: "/queue".to_owned(),
            abandon_after: Duration::from_secs(5 * 60),
        })
    }

    /// The same page for a queue API that stands elsewhere than under `/queue`. Without a slash at the end.
    #[must_use]
    pub fn with_queue_prefix(mut self, prefix: &str) -> Self {
        prefix.trim_end_matches('/').clone_into(&mut self.queue_prefix);
        self
    }

    /// The same page for a room that keeps a place for another time than five minutes without a sign of life.
    #[must_use]
    pub fn with_abandon_after(mut self, abandon_after: Duration) -> Self {
        self.abandon_after = abandon_after;
        self
    }

    /// The page for one visitor, in UTF-8.
    pub fn render(&self, room: &Name, language: Language, standing: &Standing) -> Bytes {
        let view = View {
            room,
            language,
            standing,
            queue_prefix: &self.queue_prefix,
            abandon_after: self.abandon_after,
        };
        let segments = self.segments(language);
        let mut page = String::with_capacity(segments.iter().map(Segment::size_hint).sum());
        for segment in segments {
            match segment {
                Segment::Literal(text) => page.push_str(text),
                Segment::Value(value) => value.fill(&view, &mut page),
            }
        }
        page.into()
    }

    /// The value of `Content-Security-Policy` that belongs to this page.
    pub fn csp(&self) -> &HeaderValue {
        &self.csp
    }

    /// The values that a template may contain as `{{name}}`, with their meanings. Besides these there are the texts
    /// of the builtin page, as `{{text.name}}`.
    pub fn placeholders() -> impl Iterator<Item = (&'static str, &'static str)> {
        slot::VALUES.iter().map(|(name, _, meaning)| (*name, *meaning))
    }

    fn segments(&self, language: Language) -> &[Segment] {
        match language {
            Language::English => &self.english,
            Language::Korean => &self.korean,
        }
    }
}
