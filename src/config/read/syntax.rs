//! What is no YAML, or no YAML that can be read in reasonable time.

use serde::de::{Deserializer, IgnoredAny};

use super::Refuse;
use crate::config::fault::Position;

/// Most brackets and braces that may be open at once, those in quotes and comments counted too.
const OPEN_MAX: usize = 128;

/// The library takes quadratic time for brackets within brackets: a megabyte of them would hold us for a quarter of a
/// minute. So they are counted first, without regard to quotes, because no real file comes near the bound.
pub(super) fn check_brackets(text: &str) -> Result<(), (Position, String)> {
    let mut open: usize = 0;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > OPEN_MAX {
            let line_start = text[..index].rfind('\n').map_or(0, |end| end + 1);
            let position = Position {
                line: text[..index].matches('\n').count() + 1,
                column: text[line_start..index].chars().count() + 1,
            };
            return Err((
                position,
                format!("more than {OPEN_MAX} brackets and braces are open here"),
            ));
        }
    }
    Ok(())
}

/// Finds what is no YAML at all, so that the reader need not tell such errors from its own.
pub(super) fn check_syntax(text: &str) -> Result<(), (Position, String)> {
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        if index > 0 {
            let start = document
                .deserialize_any(Refuse)
                .map_or_else(|error| place(&error), |never| match never {});
            return Err((
                start,
                "a second document begins here: write one document a file".to_owned(),
            ));
        }
        if let Err(error) = document.deserialize_ignored_any(IgnoredAny) {
            let position = place(&error);
            return Err((position, explain(&clean(&error), character(text, position))));
        }
    }
    Ok(())
}

pub(super) fn place(error: &serde_yaml::Error) -> Position {
    error.location().map_or(Position::START, |location| Position {
        line: location.line(),
        column: location.column(),
    })
}

/// The library's sentence without the first position in it, which the fault shows anyway.
pub(super) fn clean(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let Some(start) = text.find(" at line ").or_else(|| text.find(" at position ")) else {
        return text;
    };
    let end = text[start..].find(',').map_or(text.len(), |comma| start + comma);
    format!("{}{}", &text[..start], &text[end..])
}

fn explain(message: &str, found: Option<char>) -> String {
    match found {
        Some('\t') => "a tab cannot indent here: use spaces".to_owned(),
        Some('@' | '`' | '%') if message.contains("cannot start any token") => {
            format!("{message}: write the value in quotes")
        }
        _ if message == "unknown anchor" => {
            "an alias that stands for nothing: no anchor of this name before it".to_owned()
        }
        _ => format!("not valid YAML: {message}"),
    }
}

/// The character at a position; lines end where the library ends them.
pub(super) fn character(text: &str, position: Position) -> Option<char> {
    let mut lines = text.split(['\n', '\u{85}', '\u{2028}', '\u{2029}']);
    lines.nth(position.line - 1)?.chars().nth(position.column - 1)
}
