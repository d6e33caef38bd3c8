//! Content negotiation (RFC 9110, section 12): what a client would rather have.
//!
//! Decides between the two answers a waiting room has, a page and a JSON document, and between the two languages
//! of the page. It reads headers leniently: a range that cannot be understood is passed over, and a header that
//! says nothing usable counts as one that was not sent.

/// How many ranges of one header are looked at; what follows is not read. Browsers send fewer than ten.
const RANGES_MAX: usize = 32;

/// Whether a client that sends this `Accept` header would rather have HTML than JSON.
///
/// HTML must be named, as `text/html` or at least `text/*`, and be no less welcome than JSON. Browsers name it.
/// `*/*` alone, as curl and most HTTP libraries send, and no header at all, mean JSON: a program that is happy
/// with anything can do more with a document than with a page. Every `+json` type counts as JSON.
pub fn prefers_html(accept: Option<&str>) -> bool {
    let mut html = Weighed::default();
    let mut json = Weighed::default();
    for range in ranges(accept.unwrap_or_default()).filter(Range::is_unrestricted) {
        let Some((kind, subtype)) = range.name.split_once('/') else {
            continue;
        };
        match (kind.trim_end(), subtype.trim_start()) {
            ("*", "*") => {
                html.note(Specificity::Any, range.quality);
                json.note(Specificity::Any, range.quality);
            }
            (kind, "*") if kind.eq_ignore_ascii_case("text") => html.note(Specificity::Family, range.quality),
            (kind, "*") if kind.eq_ignore_ascii_case("application") => json.note(Specificity::Family, range.quality),
            (kind, subtype) if is_html(kind, subtype) => html.note(Specificity::Exact, range.quality),
            (kind, subtype) if is_json(kind, subtype) => json.note(Specificity::Exact, range.quality),
            _ => {}
        }
    }
    html.specificity >= Specificity::Family && html.quality > 0 && html.quality >= json.quality
}

/// A language the waiting page speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English, also for everyone who asked for something else.
    English,
    /// Korean.
    Korean,
}

impl Language {
    /// The best of the two for an `Accept-Language` header.
    ///
    /// Regions and scripts do not matter (`ko-KR` is Korean, as in the lookup of RFC 4647); between equally
    /// welcome languages the one named first wins.
    pub fn negotiate(accept_language: Option<&str>) -> Self {
        let mut english = Weighed::default();
        let mut korean = Weighed::default();
        let mut korean_first = false;
        for range in ranges(accept_language.unwrap_or_default()) {
            let primary = range.name.split('-').next().unwrap_or_default();
            if primary == "*" {
                english.note(Specificity::Any, range.quality);
                korean.note(Specificity::Any, range.quality);
            } else if primary.eq_ignore_ascii_case("en") {
                english.note(Specificity::Exact, range.quality);
            } else if primary.eq_ignore_ascii_case("ko") {
                korean_first |= english.specificity < Specificity::Exact;
                korean.note(Specificity::Exact, range.quality);
            }
        }
        let tied = korean.quality == english.quality && korean_first;
        if korean.quality > 0 && (korean.quality > english.quality || tied) {
            Self::Korean
        } else {
            Self::English
        }
    }

    /// The language tag (RFC 5646), as for the `lang` attribute and `Content-Language`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Korean => "ko",
        }
    }
}

/// How closely a range names a thing. The closest range that matches decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    #[default]
    Unnamed,
    Any,
    Family,
    Exact,
}

/// How welcome one of the choices is, by the closest range seen so far; by the kindest among equally close ones.
#[derive(Debug, Clone, Copy, Default)]
struct Weighed {
    specificity: Specificity,
    quality: u16,
}

impl Weighed {
    fn note(&mut self, specificity: Specificity, quality: u16) {
        if specificity > self.specificity {
            *self = Self { specificity, quality };
        } else if specificity == self.specificity {
            self.quality = self.quality.max(quality);
        }
    }
}

fn is_html(kind: &str, subtype: &str) -> bool {
    kind.eq_ignore_ascii_case("text") && subtype.eq_ignore_ascii_case("html")
}

fn is_json(kind: &str, subtype: &str) -> bool {
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    kind.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json")
}

/// One element of a header: `name; parameters; q=0.5`.
struct Range<'h> {
    name: &'h str,
    parameters: &'h str,
    /// In thousandths: 0 is "not acceptable".
    quality: u16,
}

impl Range<'_> {
    /// Whether the range takes the type whatever its parameters. `text/html;level=2` asks for something else than
    /// we have; a `charset` we can always honour, since both answers are UTF-8 and say so.
    fn is_unrestricted(&self) -> bool {
        parameters(self.parameters)
            .take_while(|(key, _)| !key.eq_ignore_ascii_case("q"))
            .all(|(key, _)| key.is_empty() || key.eq_ignore_ascii_case("charset"))
    }
}

/// The ranges of a header that can be read, at most [`RANGES_MAX`] of all that stand there.
fn ranges(header: &str) -> impl Iterator<Item = Range<'_>> {
    split_outside_quotes(header, b',')
        .take(RANGES_MAX)
        .filter_map(|element| {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let name = name.trim();
            let quality = quality(parameters)?;
            (!name.is_empty()).then_some(Range {
                name,
                parameters,
                quality,
            })
        })
}

/// The quality among the parameters of a range, 1000 if none is given; none if it is there and means nothing.
fn quality(text: &str) -> Option<u16> {
    match parameters(text).find(|(key, _)| key.eq_ignore_ascii_case("q")) {
        Some((_, value)) => thousandths(value),
        None => Some(1000),
    }
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    split_outside_quotes(text, b';').map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.trim(), value.trim())
    })
}

/// `1`, `0.5`, and also `.5`, which old Java clients send. More than three digits are refused, as in the grammar.
fn thousandths(value: &str) -> Option<u16> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    if !digits || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction = fraction
        .bytes()
        .zip([100, 10, 1])
        .map(|(b, unit)| u16::from(b - b'0') * unit);
    let fraction = fraction.sum::<u16>();
    match whole {
        "" | "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

/// The parts of `text` between separators, leaving alone those that stand in a quoted string.
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match find_outside_quotes(text, separator) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

fn find_outside_quotes(text: &str, separator: u8) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    text.bytes().position(|byte| {
        if escaped {
            escaped = false;
        } else if quoted && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        }
        byte == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_browsers_send_is_html() {
        for accept in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
            "TEXT/HTML",
            "text/html;charset=utf-8",
            "text/*",
            "application/json, text/html",
            "application/*;q=0.9, text/html;q=0.9",
            "text/html;q=0.5, application/json;q=0.499",
            "text/html, application/json;q=0, */*",
            "image/png;x=\"a, application/json\", text/html;q=.2",
        ] {
            assert!(prefers_html(Some(accept)), "{accept}");
        }
    }

    #[test]
    fn what_programs_send_is_json() {
        for accept in [
            "",
            ",",
            "*/*",
            "*/*;q=0.8",
            "*",
            "application/json",
            "application/json, text/javascript, */*; q=0.01",
            "application/json, text/html;q=0.9",
            "application/vnd.api+json, text/html;q=0.9",
            "application/*, text/html;q=0.9",
            "text/html;q=0",
            "text/html;q=0, */*",
            "text/html;q=0.000",
            "text/html;q=0.5, */*;q=0.8",
            "text/*;q=0.5, */*",
            "text/html;level=1",
            "text/html;q=nonsense",
            "text/html;q=1.5",
            "text/html;q=0.1234",
            "text/plain",
            "texthtml",
            "x/y;z=\"text/html, text/html\"",
        ] {
            assert!(!prefers_html(Some(accept)), "{accept}");
        }
        assert!(!prefers_html(None));
    }

    #[test]
    fn the_closest_range_decides_not_the_largest() {
        assert!(!prefers_html(Some("text/*, text/html;q=0.1, application/json;q=0.2")));
        assert!(prefers_html(Some("text/*;q=0.1, text/html, application/json;q=0.2")));
    }

    #[test]
    fn nothing_is_read_past_the_last_range_looked_at() {
        let filler = "a/b,".repeat(RANGES_MAX - 1);
        assert!(prefers_html(Some(&format!("{filler}text/html"))));
        assert!(!prefers_html(Some(&format!("a/b,{filler}text/html"))));
    }

    #[test]
    fn korean_goes_to_those_who_would_rather_have_it() {
        for header in [
            "ko",
            "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7",
            "KO-kr",
            "fr, ko;q=0.1",
            "ko, en",
            "ko;q=0.8, en;q=0.8",
            "en;q=0.5, ko-KR;q=0.6",
            "en;q=0, *",
            "*;q=0.1, ko",
        ] {
            assert_eq!(Language::negotiate(Some(header)), Language::Korean, "{header}");
        }
    }

    #[test]
    fn english_goes_to_everyone_else() {
        for header in [
            "",
            "*",
            "fr-FR, de",
            "en-US,en;q=0.9,ko;q=0.8",
            "en, ko",
            "kok",
            "ko;q=0",
            "ko;q=0, *",
            "en;q=0",
            "ko;q=x",
            "k\u{f6}",
        ] {
            assert_eq!(Language::negotiate(Some(header)), Language::English, "{header}");
        }
        assert_eq!(Language::negotiate(None), Language::English);
    }

    proptest! {
        #[test]
        fn no_header_wins_html_without_naming_it(header in "\\PC{0,200}", terse in "[*/a-z;,=q.0-9\" \\\\-]{0,200}") {
            for text in [&header, &terse] {
                let named = text.to_lowercase().contains("html") || text.contains('*');
                prop_assert!(named || !prefers_html(Some(text)), "{}", text);
                let _ = Language::negotiate(Some(text));
            }
        }

        #[test]
        fn html_wins_exactly_when_it_is_welcome_and_no_worse(html in 0u16..=1000, json in 0u16..=1000, swapped: bool) {
            let name = |kind: &str, q: u16| format!("{kind};q={}.{:03}", q / 1000, q % 1000);
            let (html_range, json_range) = (name("text/html", html), name("application/json", json));
            let header = if swapped {
                format!("{json_range}, {html_range}")
            } else {
                format!("{html_range}, {json_range}")
            };
            prop_assert_eq!(prefers_html(Some(&header)), html > 0 && html >= json);
        }

        #[test]
        fn whatever_follows_the_better_language_does_not_matter(english in 0u16..1000, tail in "[a-z,; -]{0,40}") {
            // Only the tail's own `ko` or `en` could matter, and those are weaker than a plain `ko`.
            let header = format!("ko, en;q=0.{english:03}, x{tail};q=0.1");
            prop_assume!(!tail.contains("en"));
            prop_assert_eq!(Language::negotiate(Some(&header)), Language::Korean);
        }
    }
}
