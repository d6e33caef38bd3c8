//! Trying a template before it is taken: every name that it uses, and every situation that a visitor may be in.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use minijinja::Error;

use super::{INLINE, Own, PAGE};
use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::base::negotiate::Language;
use crate::room::page::inline::Inline;
use crate::room::page::slot::{self, Slot, View};
use crate::room::page::{TemplateFault, words};
use crate::room::standing::{Notice, Standing, State};

/// How alike two names must be, in thousandths, before one is offered for the other.
const LIKENESS_MIN: u32 = 750;

/// That every name in the template means something. `blanked` is the template without its scripts.
pub(super) fn names(own: &Own, blanked: &str, vars: &BTreeMap<String, String>) -> Result<(), TemplateFault> {
    let template = own.engine.get_template(PAGE).map_err(|error| fault(&error))?;
    let used = template.undeclared_variables(true);
    let known = || {
        let values = slot::VALUES.iter().map(|(name, ..)| (*name).to_owned());
        let texts = words::TEXTS.iter().map(|text| text.name.to_owned());
        let vars = vars.keys().map(|name| format!("vars.{name}"));
        values.chain(texts).chain(vars)
    };
    let unknown = used
        .iter()
        .filter(|name| !name.starts_with(INLINE) && !["text", "vars"].contains(&name.as_str()))
        .filter(|name| !known().any(|known| known == **name));
    let faults = unknown.map(|name| TemplateFault {
        suggestion: nearest(name, known()),
        ..TemplateFault::at(
            blanked,
            place_of(name, blanked),
            format!("there is no variable `{name}`"),
        )
    });
    match faults.min_by_key(|fault| (fault.line, fault.column)) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

/// That the template is in one file: what it would include was never checked, and is not read again with it.
pub(super) fn is_whole(blanked: &str) -> Result<(), TemplateFault> {
    for (at, _) in blanked.match_indices("{%") {
        let statement = blanked[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let word = statement.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        if ["include", "import", "from", "extends"].contains(&word) {
            let message = format!("`{word}` is not known here: a page is one file");
            return Err(TemplateFault::at(blanked, at, message));
        }
    }
    Ok(())
}

/// That the template can be filled in for everyone.
pub(super) fn situations(own: &Own) -> Result<(), TemplateFault> {
    let room: Name = "room"
        .parse()
        .map_err(|message: String| TemplateFault::at("", 0, message))?;
    for standing in standings() {
        for language in [Language::English, Language::Korean] {
            let view = View {
                room: &room,
                language,
                standing: &standing,
                queue_prefix: "/queue",
                abandon_after: Duration::from_secs(300),
            };
            let page = own.write(&view).map_err(|error| fault(&error))?;
            if let Some(at) = String::from_utf8_lossy(&page).find(INLINE) {
                let message = "scripts and style sheets are kept as they are: leave out `{% raw %}` around them";
                return Err(TemplateFault::at(&String::from_utf8_lossy(&page), at, message));
            }
        }
    }
    Ok(())
}

/// Every state under every notice, with few and with many people, with and without what may be unknown.
fn standings() -> impl Iterator<Item = Standing> {
    let moment = Timestamp::from_secs(1_800_000_000);
    let states = [State::Waiting, State::Called, State::Inside];
    let notices = [Notice::Moving, Notice::OpensAt(moment), Notice::Held];
    let counts = [
        (0, None),
        (1, Some(Duration::ZERO)),
        (1_000_000, Some(Duration::from_secs(90_000))),
    ];
    states.into_iter().flat_map(move |state| {
        notices.into_iter().flat_map(move |notice| {
            counts.into_iter().map(move |(ahead, eta)| Standing {
                state,
                ahead,
                behind: ahead,
                eta,
                next_poll: Duration::from_secs(1),
                notice,
                since: eta.map(|_| moment),
                as_of: moment,
            })
        })
    })
}

/// A policy that allows a script by its hash cannot allow one that differs for each visitor, and escaping for HTML
/// protects nothing there. Braces that only look like a value are left as they are.
pub(super) fn holds_no_value(template: &str, inline: &Inline<'_>) -> Result<(), TemplateFault> {
    let opens = inline.content.match_indices("{{").map(|(at, _)| at);
    for open in opens {
        let inner = inline.content[open + 2..].split("}}").next().unwrap_or("").trim();
        let name = inner
            .split(|c: char| c.is_whitespace() || c == '|')
            .next()
            .unwrap_or("");
        if Slot::named(name).is_some() || name.starts_with("vars.") {
            let message = format!(
                "`{{{{ {name} }}}}` cannot stand inside `<{}>`; put it into a `data-` attribute and read that",
                inline.kind.tag()
            );
            return Err(TemplateFault::at(template, inline.range.start + open, message));
        }
    }
    match inline.content.find("{%") {
        Some(at) => {
            let message = format!(
                "`{{%` means nothing inside `<{}>`: it is kept as it is",
                inline.kind.tag()
            );
            Err(TemplateFault::at(template, inline.range.start + at, message))
        }
        None => Ok(()),
    }
}

/// What the engine complains of.
pub(super) fn fault(error: &Error) -> TemplateFault {
    let kind = error.kind().to_string();
    TemplateFault {
        line: error.line().unwrap_or(1),
        column: 1,
        message: match (error.source(), error.detail()) {
            (Some(source), _) => format!("{kind}: {source}"),
            (None, Some(detail)) => format!("{kind}: {detail}"),
            (None, None) => kind,
        },
        suggestion: None,
    }
}

fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let likeness = |known: &String| (strsim::jaro_winkler(known, name) * 1000.0) as u32;
    known
        .max_by_key(likeness)
        .filter(|known| likeness(known) >= LIKENESS_MIN)
}

/// Where a name stands first between braces, in bytes; at the start when it is written in another way.
fn place_of(name: &str, blanked: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let alone = |at: usize| {
        let (before, after) = (&blanked[..at], &blanked[at + name.len()..]);
        !before.ends_with(is_part) && !after.starts_with(|c| is_part(c) && c != '.')
    };
    let in_braces = |at: usize| {
        let before = &blanked[..at];
        let open = before.rfind("{{").max(before.rfind("{%"));
        let close = before.rfind("}}").max(before.rfind("%}"));
        open > close
    };
    let mut places = blanked.match_indices(name).map(|(at, _)| at);
    places.find(|at| alone(*at) && in_braces(*at)).unwrap_or(0)
}
