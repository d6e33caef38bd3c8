//! The waiting page: what a browser gets instead of the page it asked for, until it is let in.
//!
//! Decides how a [`Standing`] looks to a person. A page is loaded once, with its texts in every language already in
//! place, and filled in for each visitor. It does not decide who gets it, nor with which status; whoever sends it adds
//! [`Sheet::csp`], `Cache-Control: no-store`, `X-Robots-Tag: noindex` and `Vary: Accept, Accept-Language,
//! Cookie`.
//!
//! The page that comes with Tidegate is one document without any outside asset, cut into pieces that are copied
//! together. Its script asks the queue API how things stand and reloads the page, which is the guarded URL itself, when
//! the visitor is called. Without JavaScript it reloads every poll interval. An operator's own page is a template with
//! conditions and filters ([`own`]), tried in every situation before it is taken. Nothing of a visitor stands inside a
//! script or style sheet, so the policy can name them by their hashes.

mod cut;
mod inline;
mod own;
pub(super) mod price;
mod slot;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use self::cut::Segment;
use self::own::Own;
use self::price::PricePage;
use self::slot::View;
use super::price::Price;
use super::standing::Standing;
use crate::base::name::Name;
use crate::base::negotiate::Language;

/// Longest template, in bytes, and longest page that may become of it. A page is sent to everyone who waits, every
/// few seconds to those without JavaScript: a larger one turns the waiting room into the rush it should prevent.
const TEMPLATE_BYTES_MAX: usize = 256 * 1024;

/// A waiting page, loaded once and filled in per visitor.
#[derive(Debug)]
pub struct Page {
    builtin: Builtin,
    price: PricePage,
    own: Option<Own>,
    queue_prefix: String,
    abandon_after: Duration,
}

/// The page for one visitor.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// HTML, in UTF-8.
    pub body: Bytes,
    /// The value of `Content-Security-Policy` that belongs to it.
    pub csp: HeaderValue,
}

/// What is wrong with an operator's template, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// The line, counted from 1.
    pub line: usize,
    /// The character in that line, counted from 1; 1 where nothing better is known.
    pub column: usize,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// The nearest spelling that would have been right.
    pub suggestion: Option<String>,
}

#[derive(Debug)]
struct Builtin {
    english: Vec<Segment>,
    korean: Vec<Segment>,
    csp: HeaderValue,
}

impl Page {
    /// The page that comes with Tidegate.
    pub fn builtin() -> Self {
        Self {
            builtin: Builtin::load(),
            price: PricePage::load(),
            own: None,
            queue_prefix: "/queue".to_owned(),
            abandon_after: Duration::from_secs(5 * 60),
        }
    }

    /// An operator's own page: HTML in the syntax of Jinja, with the variables that [`Page::variables`] lists, the
    /// texts of the builtin page as `text.name`, and `vars`, the operator's own values.
    ///
    /// Values are escaped for text and for attributes between quotes; they cannot stand in unquoted attributes or
    /// in event handlers. Inline scripts and style sheets are kept as they are and allowed by their hashes; everything
    /// from outside is blocked by the policy. Nothing can be included from elsewhere.
    ///
    /// # Errors
    /// A template above [`TEMPLATE_BYTES_MAX`], or one that fails in any situation that a visitor may be in: wrong
    /// syntax, a variable that means nothing, one inside a script or style sheet, a script with a `src`, a page that
    /// takes too long or gets too large.
    pub fn own(template: &str, vars: &BTreeMap<String, String>) -> Result<Self, TemplateFault> {
        let mut page = Self::builtin();
        page.own = Some(Own::load(template, vars)?);
        Ok(page)
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

    /// The page for one visitor. Should an operator's page fail after all, it is the builtin one.
    pub fn render(&self, room: &Name, language: Language, standing: &Standing) -> Sheet {
        let view = View {
            room,
            language,
            standing,
            queue_prefix: &self.queue_prefix,
            abandon_after: self.abandon_after,
        };
        let own = self.own.as_ref().and_then(|own| own.render(&view));
        own.unwrap_or_else(|| self.builtin.render(&view))
    }

    /// The page that pays the price of a place by itself.
    pub(super) fn price(&self, room: &Name, language: Language, price: &Price) -> Sheet {
        self.price.render(room, language, &self.queue_prefix, price)
    }

    /// The variables of a template, with their meanings.
    #[cfg(test)]
    fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
        slot::VALUES.iter().map(|(name, _, meaning)| (*name, *meaning))
    }
}

impl Builtin {
    #[expect(
        clippy::expect_used,
        reason = "the template is part of the program, and a test loads it"
    )]
    fn load() -> Self {
        let template = without_indents(include_str!("page/waiting.html"));
        let inlines = inline::find(&template).expect("the builtin page has whole scripts");
        let cut = |language| cut::cut(&template, language).expect("the builtin page has known placeholders");
        Self {
            english: cut(Language::English),
            korean: cut(Language::Korean),
            csp: inline::policy(&inlines).expect("the builtin page has a policy"),
        }
    }

    fn render(&self, view: &View<'_>) -> Sheet {
        let segments = self.segments(view.language);
        let mut page = String::with_capacity(segments.iter().map(Segment::size_hint).sum());
        for segment in segments {
            match segment {
                Segment::Literal(text) => page.push_str(text),
                Segment::Value(value) => value.fill(view, &mut page),
            }
        }
        Sheet {
            body: page.into(),
            csp: self.csp.clone(),
        }
    }

    fn segments(&self, language: Language) -> &[Segment] {
        match language {
            Language::English => &self.english,
            Language::Korean => &self.korean,
        }
    }
}

/// The indents are for those who read the source; a tenth of the page is not sent to everyone who waits.
fn without_indents(source: &str) -> String {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    lines.join("\n")
}

impl TemplateFault {
    /// A fault at a byte of a template.
    fn at(template: &str, at: usize, message: impl Into<String>) -> Self {
        let before = template.get(..at).unwrap_or("");
        let (line, last) = before.split('\n').enumerate().last().unwrap_or((0, ""));
        Self {
            line: line + 1,
            column: last.chars().count() + 1,
            message: message.into(),
            suggestion: None,
        }
    }
}
