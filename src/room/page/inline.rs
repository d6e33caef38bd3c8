//! The scripts and style sheets written into a template, and the content security policy that allows exactly them.
//!
//! Looks at a template only as closely as it takes to find them. What it misses does not run, because the policy
//! allows nothing else; it never makes the policy wider than the template.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::digest::{SHA256, digest};

use super::TemplateFault;

/// How many inline scripts and style sheets a template may have; each puts a hash of 53 bytes into a header.
const INLINES_MAX: usize = 32;

/// What is written inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Style,
    Script,
}

impl Kind {
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Script => "script",
        }
    }
}

/// The content of a `<style>` or `<script>` element.
#[derive(Debug)]
pub(super) struct Inline<'t> {
    pub(super) kind: Kind,
    /// Where in the template, in bytes.
    pub(super) range: Range<usize>,
    pub(super) content: &'t str,
}

/// All inline scripts and style sheets of a template, in order. Comments are passed over.
pub(super) fn find(template: &str) -> Result<Vec<Inline<'_>>, TemplateFault> {
    // Lower-casing ASCII alone keeps every offset.
    let lower = template.to_ascii_lowercase();
    let refuse = |at: usize, why: String| TemplateFault::at(template, at, why);
    let mut inlines = Vec::new();
    let mut at = 0;
    while let Some(open) = lower[at..].find('<').map(|found| at + found) {
        let rest = &lower[open..];
        let Some(kind) = element(rest) else {
            at = open + comment_length(rest).unwrap_or(1);
            continue;
        };
        let tag = kind.tag();
        let start = open + tag_length(rest).ok_or_else(|| refuse(open, format!("`<{tag}` has no `>`")))?;
        if kind == Kind::Script
            && lower[open..start]
                .split_ascii_whitespace()
                .any(|word| word.starts_with("src"))
        {
            let why = "a script from elsewhere does not run on this page; write it between `<script>` and `</script>`";
            return Err(refuse(open, why.to_owned()));
        }
        let length = lower[start..].find(&format!("</{tag}"));
        let end = start + length.ok_or_else(|| refuse(open, format!("`<{tag}>` has no `</{tag}>`")))?;
        inlines.push(Inline {
            kind,
            range: start..end,
            content: &template[start..end],
        });
        at = end;
    }
    if inlines.len() > INLINES_MAX {
        let found = inlines.len();
        let why = format!("{found} scripts and style sheets are too many; join them into at most {INLINES_MAX}");
        return Err(refuse(0, why));
    }
    Ok(inlines)
}

/// The policy that lets a page run its own inline scripts and styles, ask its own host, and nothing more.
pub(super) fn policy(inlines: &[Inline<'_>]) -> Result<HeaderValue, TemplateFault> {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
        sources(inlines, Kind::Style),
        sources(inlines, Kind::Script),
    );
    HeaderValue::try_from(policy)
        .map_err(|fault| TemplateFault::at("", 0, format!("the page's security policy: {fault}")))
}

fn sources(inlines: &[Inline<'_>], kind: Kind) -> String {
    let hashes = inlines.iter().filter(|inline| inline.kind == kind).map(hash);
    let sources = hashes.collect::<Vec<_>>().join(" ");
    if sources.is_empty() {
        "'none'".to_owned()
    } else {
        sources
    }
}

/// A browser turns every line end into a line feed before it hashes, so a file from Windows is hashed that way too.
fn hash(inline: &Inline<'_>) -> String {
    let content = inline.content.replace("\r\n", "\n").replace('\r', "\n");
    let digest = digest(&SHA256, content.as_bytes());
    format!("'sha256-{}'", STANDARD.encode(digest.as_ref()))
}

fn element(rest: &str) -> Option<Kind> {
    [Kind::Style, Kind::Script].into_iter().find(|kind| {
        let after = rest[1..].strip_prefix(kind.tag());
        after.is_some_and(|after| after.starts_with(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/'))
    })
}

/// The length of a comment that stands at the start of `rest`; an unclosed one takes everything.
fn comment_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix("<!--")?;
    Some(
        inner
            .find("-->")
            .map_or(rest.len(), |end| "<!--".len() + end + "-->".len()),
    )
}

/// The length of an opening tag up to its `>`, which may also stand in quoted attributes.
fn tag_length(rest: &str) -> Option<usize> {
    let mut quote = None;
    let end = rest.bytes().position(|byte| {
        match quote {
            Some(open) if open == byte => quote = None,
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            Some(_) | None => {}
        }
        byte == b'>' && quote.is_none()
    });
    end.map(|end| end + 1)
}
