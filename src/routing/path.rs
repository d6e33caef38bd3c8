//! One spelling for each path, so that no spelling slips past a rule.
//!
//! [`normalise`] gives the form that is logged and sent on. It does not decide about case or about trailing slashes:
//! `/Admin` and `/admin/` are other paths than `/admin`, here as in nginx. Behind a server that takes them for one, write
//! them all: `~ (?i)^/admin(/|$)` is a regex that does.
//!
//! Rules are compared with [`compared`]: escapes read, and segments without their `;` parameters, which some servers drop
//! and others do not. A rule for `/admin` takes `/admin;v=1` too, and the server gets what the client wrote.

use std::borrow::Cow;
use std::fmt;

use crate::base::digits::hexadecimal;
use crate::base::parameters::without_parameters;

/// Why a path has no single meaning. Shown to the client, so it never quotes the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ambiguous {
    /// It does not start with `/`.
    NotAbsolute,
    /// An encoded slash: a separator to some servers, a letter to others.
    EncodedSlash,
    /// A backslash, raw or encoded: a separator to some servers.
    Backslash,
    /// A control character, raw or encoded.
    Control,
    /// A raw space, `?` or `#`, at which some servers would end the path.
    Delimiter,
    /// A `%` without two hex digits.
    BadEscape,
    /// Raw bytes beyond ASCII, or escapes that are not UTF-8.
    NotUtf8,
    /// `..` beyond the root.
    AboveRoot,
    /// Parameters on a segment that disappears, as in `/..;/`.
    Parameters,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not start with a slash",
            Self::EncodedSlash => "the path holds an encoded slash",
            Self::Backslash => "the path holds a backslash",
            Self::Control => "the path holds a control character",
            Self::Delimiter => "the path holds a space, `?` or `#` that is not percent-encoded",
            Self::BadEscape => "the path holds a `%` that is not followed by two hex digits",
            Self::NotUtf8 => "the path is not percent-encoded UTF-8",
            Self::AboveRoot => "the path leads above the root",
            Self::Parameters => "the path holds parameters on an empty or dot segment",
        })
    }
}

impl std::error::Error for Ambiguous {}

/// The one spelling of a path, given without its query: unreserved characters decoded (once), other escapes in
/// upper case, repeated slashes merged, dot segments removed (RFC 3986, section 6.2.2, and nginx's
/// `merge_slashes`; slashes are merged first, so `/a//../b` is `/b`).
///
/// Borrowed when nothing changes; never longer than `raw`; normalising twice changes nothing more.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if is_normal(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let segments = raw.strip_prefix('/').ok_or(Ambiguous::NotAbsolute)?;
    let mut normal = String::with_capacity(raw.len());
    let mut ends_in_slash = true;
    for segment in segments.split('/') {
        let start = normal.len();
        normal.push('/');
        push_segment(&mut normal, segment)?;
        let written = &normal[start + 1..];
        ends_in_slash = matches!(written, "" | "." | "..");
        if written == ".." {
            normal.truncate(start);
            let parent = normal.rfind('/').ok_or(Ambiguous::AboveRoot)?;
            normal.truncate(parent);
        } else if ends_in_slash {
            normal.truncate(start);
        } else if vanishes_without_parameters(written) {
            return Err(Ambiguous::Parameters);
        }
    }
    if ends_in_slash {
        normal.push('/');
    }
    Ok(if normal == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(normal)
    })
}

/// A normalised path as rules see it: segments without parameters, all escapes read. It is never sent on.
pub(super) fn compared(path: &str) -> Cow<'_, str> {
    match without_parameters(path) {
        Cow::Borrowed(path) => decode(path),
        Cow::Owned(path) => Cow::Owned(decode(&path).into_owned()),
    }
}

/// What a normalised path spells once all escapes are read, so that `/@admin` and `/%40admin` are one path to a rule.
///
/// Escapes that are not UTF-8 stay as they are; [`normalise`] lets none through.
pub(super) fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        match escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(path), Cow::Owned)
}

/// Whether a path is beyond doubt in normal form already: the common case, in one pass over its bytes.
fn is_normal(raw: &[u8]) -> bool {
    let mut after_slash = false;
    for (index, &byte) in raw.iter().enumerate() {
        let fits = match byte {
            b'/' => !after_slash,
            b'.' | b';' => !after_slash,
            b'%' => false,
            _ => stays(byte),
        };
        if !fits || (index == 0 && byte != b'/') {
            return false;
        }
        after_slash = byte == b'/';
    }
    !raw.is_empty()
}

/// Whether a raw byte may stay as it is.
fn stays(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'?' | b'#' | b'%')
}

/// Appends one segment in normal form.
fn push_segment(normal: &mut String, segment: &str) -> Result<(), Ambiguous> {
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        match first {
            b'%' => rest = push_escape(normal, rest)?,
            b'\\' => return Err(Ambiguous::Backslash),
            b' ' | b'?' | b'#' => return Err(Ambiguous::Delimiter),
            byte if byte.is_ascii_control() => return Err(Ambiguous::Control),
            byte if byte.is_ascii() => {
                normal.push(char::from(*byte));
                rest = tail;
            }
            _ => return Err(Ambiguous::NotUtf8),
        }
    }
    Ok(())
}

/// Appends the character that `rest` starts to spell in escapes, and gives what follows it.
fn push_escape<'r>(normal: &mut String, rest: &'r [u8]) -> Result<&'r [u8], Ambiguous> {
    let byte = escape(rest).ok_or(Ambiguous::BadEscape)?;
    match byte {
        b'/' => Err(Ambiguous::EncodedSlash),
        b'\\' => Err(Ambiguous::Backslash),
        _ if byte.is_ascii_control() => Err(Ambiguous::Control),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            normal.push(char::from(byte));
            Ok(&rest[3..])
        }
        _ => {
            let escapes = character_length(rest, byte)? * 3;
            for byte in &rest[..escapes] {
                normal.push(char::from(byte.to_ascii_uppercase()));
            }
            Ok(&rest[escapes..])
        }
    }
}

/// How many escapes at the start of `rest` make one character of UTF-8.
fn character_length(rest: &[u8], first: u8) -> Result<usize, Ambiguous> {
    let length = match first {
        0x00..=0x7f => return Ok(1),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(Ambiguous::NotUtf8),
    };
    let mut character = [0; 4];
    for (index, byte) in character[..length].iter_mut().enumerate() {
        *byte = rest.get(3 * index..).and_then(escape).ok_or(Ambiguous::NotUtf8)?;
    }
    let valid = std::str::from_utf8(&character[..length]);
    valid.map(|_| length).map_err(|_| Ambiguous::NotUtf8)
}

/// The byte that an escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    hexadecimal(*high, *low)
}

/// Whether a server that drops `;` parameters would then drop the segment too.
fn vanishes_without_parameters(segment: &str) -> bool {
    let bare = without_parameters(segment);
    bare.len() < segment.len() && matches!(&*bare, "" | "." | "..")
}

#[cfg(test)]
mod tests;
