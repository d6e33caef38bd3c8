//! Text with placeholders for what is known of a request, as in `https://{host}{path}`.

use super::exchange::Request;

/// Largest edit distance at which an unknown name is taken for a slip of a known one.
const SLIP_MAX: usize = 3;

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// `{client_ip}`: the client's address, behind trusted proxies.
    ClientIp,
    /// `{request_id}`: the id under which the request is logged.
    RequestId,
    /// `{host}`: the host asked for, without port.
    Host,
    /// `{route}`: the name of the route; nothing where there is none.
    Route,
    /// `{scheme}`: `http` or `https`.
    Scheme,
    /// `{path}`: the normalised path.
    Path,
    /// `{query}`: the query with its `?`; nothing where there is none.
    Query,
}

impl Placeholder {
    /// The name between the braces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientIp => "client_ip",
            Self::RequestId => "request_id",
            Self::Host => "host",
            Self::Route => "route",
            Self::Scheme => "scheme",
            Self::Path => "path",
            Self::Query => "query",
        }
    }
}

/// One piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As written.
    Text(Box<str>),
    /// To be filled in.
    Placeholder(Placeholder),
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Parses `text`, in which the placeholders `known` may stand.
    ///
    /// A word of small letters and `_` in braces is a placeholder, and an error when it is not known. `{{word}}` is
    /// the text `{word}`. Any other brace is itself, so that JSON needs no escapes.
    pub fn parse(text: &str, known: &[Placeholder]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            literal.push_str(&rest[..open]);
            rest = &rest[open..];
            if let Some(word) = rest.strip_prefix('{').and_then(braced).filter(|_| escaped(rest)) {
                let end = word.len() + 4;
                literal.push_str(&rest[1..end - 1]);
                rest = &rest[end..];
            } else if let Some(word) = braced(rest) {
                let placeholder = find(word, known)?;
                push_text(&mut parts, &mut literal);
                parts.push(Part::Placeholder(placeholder));
                rest = &rest[word.len() + 2..];
            } else {
                literal.push('{');
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        push_text(&mut parts, &mut literal);
        Ok(Self(parts))
    }

    /// Its pieces, in order; texts are not empty and never stand side by side.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The text, when nothing is to be filled in.
    pub fn as_static(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for a request, its values as they are.
    pub fn fill(&self, request: &Request<'_>) -> String {
        let mut text = String::with_capacity(64);
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Placeholder(placeholder) => push_value(&mut text, *placeholder, request),
            }
        }
        text
    }
}

/// Appends what `placeholder` stands for.
pub fn push_value(text: &mut String, placeholder: Placeholder, request: &Request<'_>) {
    match placeholder {
        Placeholder::ClientIp => text.push_str(&request.client_ip.to_string()),
        Placeholder::RequestId => text.push_str(request.id),
        Placeholder::Host => text.push_str(request.host),
        Placeholder::Route => text.push_str(request.route.map_or("", |route| route.as_str())),
        Placeholder::Scheme => text.push_str(request.scheme.as_str()),
        Placeholder::Path => text.push_str(request.path),
        Placeholder::Query => {
            if let Some(query) = request.query {
                text.push('?');
                text.push_str(query);
            }
        }
    }
}

/// The word in braces at the start of `text`.
fn braced(text: &str) -> Option<&str> {
    let word = &text.strip_prefix('{')?;
    let word = &word[..word.find('}')?];
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_word.then_some(word)
}

/// Whether `text` starts with a word in double braces.
fn escaped(text: &str) -> bool {
    text.find('}').is_some_and(|close| text[close..].starts_with("}}"))
}

fn push_text(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal).into_boxed_str()));
    }
}

fn find(word: &str, known: &[Placeholder]) -> Result<Placeholder, String> {
    if let Some(placeholder) = known.iter().find(|placeholder| placeholder.name() == word) {
        return Ok(*placeholder);
    }
    let distance = |placeholder: &&Placeholder| strsim::osa_distance(placeholder.name(), word);
    let nearest = known
        .iter()
        .min_by_key(distance)
        .filter(|nearest| distance(nearest) <= SLIP_MAX);
    Err(match nearest {
        Some(nearest) => format!("`{{{word}}}` is not known here; did you mean `{{{}}}`?", nearest.name()),
        None => {
            let names: Vec<String> = known.iter().map(|known| format!("`{{{}}}`", known.name())).collect();
            format!("`{{{word}}}` is not known here; there are {}", names.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Placeholder::*;
    use super::*;
    use crate::base::exchange::sample::Sample;

    const ALL: &[Placeholder] = &[ClientIp, RequestId, Host, Route, Scheme, Path, Query];

    fn filled(text: &str) -> String {
        Template::parse(text, ALL).unwrap().fill(&Sample::new().request())
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(
            filled("{scheme}://{host}{path}{query}"),
            "https://shop.example.com/cart?item=7"
        );
        assert_eq!(
            filled("for={client_ip};id={request_id};{route}"),
            "for=192.0.2.7;id=req-1;shop"
        );
        assert_eq!(filled(""), "");
    }

    #[test]
    fn an_absent_query_brings_no_question_mark() {
        let sample = Sample {
            query: None,
            ..Sample::new()
        };
        let template = Template::parse("{path}{query}", ALL).unwrap();
        assert_eq!(template.fill(&sample.request()), "/cart");
    }

    #[test]
    fn braces_that_hold_no_word_are_themselves() {
        for text in [
            r#"{"group":{"a":1}}"#,
            "{",
            "}",
            "{}",
            "{ host }",
            "{Host}",
            "a{b",
            "{{",
            "{{}}",
        ] {
            assert_eq!(filled(text), text);
        }
        assert_eq!(filled("{{host}}={host}"), "{host}=shop.example.com");
        assert_eq!(filled("{{host}"), "{shop.example.com");
    }

    #[test]
    fn an_unknown_placeholder_names_the_nearest() {
        let fault = |text| Template::parse(text, &[ClientIp, Host]).unwrap_err();
        assert_eq!(
            fault("{clientip}"),
            "`{clientip}` is not known here; did you mean `{client_ip}`?"
        );
        assert_eq!(
            fault("{query}"),
            "`{query}` is not known here; there are `{client_ip}`, `{host}`"
        );
    }
}
