//! The paths that a route takes, and which of two patterns is the more specific.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};

use super::path;
use crate::base::unit;

/// Most segments of a pattern: it bounds the depth of the tree that is searched.
const PATTERN_SEGMENTS_MAX: usize = 64;

/// Largest compiled regex, in bytes; also the bound of the cache it may use while it matches.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A pattern for paths.
///
/// | written | takes |
/// |---|---|
/// | `/cart` | `/cart`, and not `/cart/` |
/// | `/users/{id}/orders` | one segment, not empty, for each pair of braces |
/// | `/shop/**` | `/shop`, `/shop/` and all that is below; may hold braces too |
/// | `~ \.php$` | whatever the regex finds a match in; anchor it with `^` and `$` |
///
/// The more specific of two patterns wins, whatever the order they are written in:
///
/// 1. a path without braces;
/// 2. one with braces: more literal segments first, then the one that is literal further to the left;
/// 3. regexes, in the order written;
/// 4. `/**`: more segments first, then as in 2.
///
/// Patterns are compared with what a normalised path spells: `/@me` takes `/%40me` too, and names beyond ASCII are
/// written as they are. What follows a `;` in a segment of the path is not looked at.
#[derive(Debug, Clone)]
pub struct PathPattern {
    text: Box<str>,
    pub(super) shape: Shape,
}

/// What a pattern is made of.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Segments from the root; `is_open` when anything may follow them.
    Segments { segments: Vec<Segment>, is_open: bool },
    /// An expression over the whole path.
    Regex(Regex),
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// This one.
    Literal(Box<str>),
    /// Any one that is not empty.
    Any,
}

impl Default for PathPattern {
    /// `/**`: every path.
    fn default() -> Self {
        let shape = Shape::Segments {
            segments: Vec::new(),
            is_open: true,
        };
        Self {
            text: "/**".into(),
            shape,
        }
    }
}

impl PathPattern {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// [`Ordering::Less`] when this one is the more specific; regexes are equal among themselves.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.specificity().cmp(&other.specificity())
    }

    /// Whether both take the same paths, as far as can be seen from their form: `/u/{id}` and `/u/{name}` do.
    pub fn takes_the_same_as(&self, other: &Self) -> bool {
        match (&self.shape, &other.shape) {
            (
                Shape::Segments { segments, is_open },
                Shape::Segments {
                    segments: theirs,
                    is_open: is_their_open,
                },
            ) => segments == theirs && is_open == is_their_open,
            (Shape::Regex(regex), Shape::Regex(theirs)) => regex.as_str() == theirs.as_str(),
            _ => false,
        }
    }

    /// Whether it only takes paths that are `prefix` or below it, as far as can be seen from its form; not of a regex.
    pub fn is_under(&self, prefix: &str) -> bool {
        let Shape::Segments { segments, .. } = &self.shape else {
            return false;
        };
        let mut segments = segments.iter();
        let mut wanted = prefix.trim_start_matches('/').split('/');
        wanted.all(|wanted| matches!(segments.next(), Some(Segment::Literal(text)) if **text == *wanted))
    }

    /// The one path it takes, decoded, when it takes only one.
    pub(super) fn exact(&self) -> Option<String> {
        let Shape::Segments {
            segments,
            is_open: false,
        } = &self.shape
        else {
            return None;
        };
        segments.iter().try_fold(String::new(), |path, segment| match segment {
            Segment::Literal(text) => Some(path + "/" + text),
            Segment::Any => None,
        })
    }

    /// Smaller is more specific.
    fn specificity(&self) -> (u8, Reverse<usize>, Reverse<usize>, Vec<bool>) {
        let Shape::Segments { segments, is_open } = &self.shape else {
            return (2, Reverse(0), Reverse(0), Vec::new());
        };
        let wild: Vec<bool> = segments.iter().map(|segment| *segment == Segment::Any).collect();
        let literals = wild.iter().filter(|is_any| !**is_any).count();
        match (is_open, literals == segments.len()) {
            (false, true) => (0, Reverse(0), Reverse(0), Vec::new()),
            (false, false) => (1, Reverse(0), Reverse(literals), wild),
            (true, _) => (3, Reverse(segments.len()), Reverse(literals), wild),
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = match text.strip_prefix('~') {
            Some(expression) => parse_regex(expression.trim()),
            None => parse_segments(text),
        };
        let shape = shape.map_err(|why| format!("`{text}` is not a path pattern: {why}"))?;
        let text = text.into();
        Ok(Self { text, shape })
    }
}

fn parse_regex(expression: &str) -> Result<Shape, String> {
    if expression.is_empty() {
        return Err("a regex must follow the `~`, as in `~ ^/item/[0-9]+$`".to_owned());
    }
    let regex = RegexBuilder::new(expression)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build();
    regex.map(Shape::Regex).map_err(|fault| match fault {
        regex::Error::CompiledTooBig(limit) => format!("the regex takes more than {limit} bytes when compiled"),
        other => other.to_string(),
    })
}

fn parse_segments(text: &str) -> Result<Shape, String> {
    let (path, is_open) = text.strip_suffix("/**").map_or((text, false), |path| (path, true));
    let segments = match path.strip_prefix('/') {
        Some(segments) => segments,
        None if path.is_empty() && is_open => return Ok(PathPattern::default().shape),
        None => return Err("write a path that starts with `/`, or `~` and a regex".to_owned()),
    };
    let count = segments.split('/').count();
    if count > PATTERN_SEGMENTS_MAX {
        return Err(format!(
            "it has {count} segments, at most {PATTERN_SEGMENTS_MAX} are allowed"
        ));
    }
    let segments = segments.split('/').enumerate().map(|(index, segment)| {
        if segment.is_empty() && (is_open || index + 1 < count) {
            return Err("it holds a repeated slash, which no normalised path does".to_owned());
        }
        parse_segment(segment)
    });
    let segments = segments.collect::<Result<_, _>>()?;
    Ok(Shape::Segments { segments, is_open })
}

fn parse_segment(segment: &str) -> Result<Segment, String> {
    if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        return match name {
            "" => Err("name what stands in the braces, as in `{id}`".to_owned()),
            _ if name.bytes().all(is_word) => Ok(Segment::Any),
            _ => Err(format!("`{{{name}}}` must hold a name of letters, digits, `_` and `-`")),
        };
    }
    if let Some(why) = misplaced(segment) {
        return Err(why.to_owned());
    }
    let as_sent = escape_beyond_ascii(segment);
    let normal = path::normalise(&as_sent).map_err(|fault| fault.to_string())?;
    Ok(Segment::Literal(path::decode(&normal)[1..].into()))
}

/// A character that means something elsewhere, and what to write instead.
fn misplaced(segment: &str) -> Option<&'static str> {
    if segment.contains('*') {
        Some("`**` may only stand at the end, after a slash; for one segment write a name in braces, as in `{id}`")
    } else if segment.contains(['{', '}']) {
        Some("braces stand for a whole segment; for a part of one use `~` and a regex")
    } else if segment.contains(['?', '#']) {
        Some("a query is not a part of the path; write `%3F` or `%23` for the character itself")
    } else if segment.contains(';') || segment.to_ascii_lowercase().contains("%3b") {
        Some("what follows a `;` in a segment is not compared; leave it out, and the path is taken with and without it")
    } else if matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..") {
        Some("it holds a dot segment, which no normalised path does")
    } else {
        None
    }
}

/// The segment as a path of its own, in the spelling a client would send.
fn escape_beyond_ascii(segment: &str) -> String {
    let mut path = String::from("/");
    for byte in segment.bytes() {
        if byte.is_ascii() && byte != b' ' {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

unit::text_type!(PathPattern, "PathPattern", r"^(/|~)");

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    #[test]
    fn the_more_specific_pattern_comes_first() {
        let ranked = [
            "/users/me/orders",
            "/users/me/{kind}",
            "/users/{id}/orders",
            "/{realm}/me/orders",
            "/users/{id}/{kind}",
            "/{realm}/{id}/{kind}",
            "~ ^/users",
            "/users/me/orders/**",
            "/users/{id}/orders/**",
            "/users/me/**",
            "/users/{id}/**",
            "/users/**",
            "/**",
        ];
        for pair in ranked.windows(2) {
            assert_eq!(pattern(pair[0]).compare(&pattern(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert_eq!(pattern("~ a").compare(&pattern("~ b")), Ordering::Equal);
    }

    #[test]
    fn the_names_in_braces_do_not_tell_patterns_apart() {
        assert!(pattern("/u/{id}").takes_the_same_as(&pattern("/u/{name}")));
        assert!(pattern("/%40me").takes_the_same_as(&pattern("/@me")));
        assert!(pattern("~  a").takes_the_same_as(&pattern("~ a")));
        assert!(!pattern("/u/{id}").takes_the_same_as(&pattern("/u/{id}/**")));
        assert!(!pattern("/u").takes_the_same_as(&pattern("/u/")));
    }

    #[test]
    fn what_stands_under_a_prefix_is_told_from_what_does_not() {
        for path in [
            "/queue",
            "/queue/**",
            "/queue/join",
            "/queue/{x}",
            "/queue/a/b/**",
            "/%71ueue",
        ] {
            assert!(pattern(path).is_under("/queue"), "{path}");
        }
        for path in ["/", "/**", "/queues", "/{x}/join", "/q/queue", "~ ^/queue"] {
            assert!(!pattern(path).is_under("/queue"), "{path}");
        }
        assert!(pattern("/a/b/c").is_under("/a/b") && !pattern("/a/**").is_under("/a/b"));
    }

    #[test]
    fn a_literal_is_kept_as_it_is_spelled_out() {
        for (text, path) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/a%20b", "/a b"),
            ("/a b", "/a b"),
            ("/\u{ad00}\u{b9ac}", "/\u{ad00}\u{b9ac}"),
            ("/%EA%B4%80", "/\u{ad00}"),
            ("/a%3Fb", "/a?b"),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            assert_eq!(pattern(text).exact().as_deref(), Some(path), "{text}");
        }
        assert_eq!(pattern("/a/{b}").exact(), None);
        assert_eq!(pattern("/a/**").exact(), None);
    }

    #[test]
    fn a_wrong_pattern_says_what_would_be_right() {
        let deep = "/a".repeat(PATTERN_SEGMENTS_MAX + 1);
        for (text, hint) in [
            ("", "starts with `/`"),
            ("admin", "starts with `/`"),
            ("**", "starts with `/`"),
            ("a/**", "starts with `/`"),
            ("/a//b", "repeated slash"),
            ("/a//**", "repeated slash"),
            ("/a/../b", "dot segment"),
            ("/a/%2e%2E/b", "dot segment"),
            ("/./b", "dot segment"),
            ("/a*", "`**` may only stand at the end"),
            ("/**/b", "`**` may only stand at the end"),
            ("/a/*", "write a name in braces"),
            ("/{}", "name what stands"),
            ("/{a b}", "letters, digits"),
            ("/v{n}", "a whole segment"),
            ("/a?b=c", "a query is not"),
            ("/a;v=1", "not compared"),
            ("/a%3bv", "not compared"),
            ("/a%2Fb", "encoded slash"),
            ("/a%", "two hex digits"),
            ("/a\\b", "backslash"),
            ("~", "a regex must follow"),
            ("~ (", "unclosed group"),
            ("~ (\\w{1000}){1000}", "when compiled"),
            (&deep, "segments, at most"),
        ] {
            let fault = text.parse::<PathPattern>().unwrap_err();
            assert!(fault.contains(hint) && fault.contains(text), "{text}: {fault}");
        }
    }
}
