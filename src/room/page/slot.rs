//! The placeholders of a waiting page: what they are called and what they become.
//!
//! A placeholder is either a text, the same for everyone who reads a language, or a value of one visitor. Texts
//! are filled in when a page is loaded, values when it is rendered.

use std::time::Duration;

use super::words::{self, TEXTS, Text};
use crate::base::name::Name;
use crate::base::negotiate::Language;
use crate::room::standing::{Notice, Standing, State};

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    Text(&'static Text),
    Value(Value),
}

impl Slot {
    /// The placeholder of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let value = VALUES.iter().find(|(known, ..)| *known == name);
        let text = || TEXTS.iter().find(|text| text.name == name);
        value
            .map(|(_, value, _)| Self::Value(*value))
            .or_else(|| text().map(|text| Self::Text(text)))
    }
}

/// The names of all placeholders, values before texts.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let values = VALUES.iter().map(|(name, ..)| *name);
    values.chain(TEXTS.iter().map(|text| text.name))
}

/// Something that differs from one visitor to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Room,
    State,
    Position,
    Ahead,
    Behind,
    ExpectedWait,
    HeardAt,
    HeardAtIso,
    NextPollMs,
    RefreshSeconds,
    Language,
    Title,
    Heading,
    Lead,
    Notice,
    NoticeKind,
    OpensAt,
    OpensAtIso,
    InLobby,
    QueuePrefix,
    AbandonAfter,
    WaitSeconds,
    Waited,
    JoinedAtIso,
    Progress,
}

/// Every value with its name and its meaning, as the documentation gives it.
pub(super) const VALUES: &[(&str, Value, &str)] = &[
    ("room", Value::Room, "the room's name"),
    ("state", Value::State, "`waiting`, `called` or `inside`"),
    ("position", Value::Position, "the place in line: `1,234`"),
    ("ahead", Value::Ahead, "how many are called before"),
    ("behind", Value::Behind, "how many are called after"),
    ("expected_wait", Value::ExpectedWait, "in words: `about 5 minutes`"),
    (
        "heard_at",
        Value::HeardAt,
        "when the place was last confirmed: `11:00:00 UTC`",
    ),
    ("heard_at_iso", Value::HeardAtIso, "the same for a `datetime` attribute"),
    (
        "next_poll_ms",
        Value::NextPollMs,
        "when to ask next, in milliseconds from now",
    ),
    (
        "refresh_seconds",
        Value::RefreshSeconds,
        "the same in seconds, at least 1",
    ),
    ("language", Value::Language, "`en` or `ko`, for the `lang` attribute"),
    ("title", Value::Title, "the tab's title, with the place in it"),
    ("heading", Value::Heading, "what is going on, in a few words"),
    ("lead", Value::Lead, "the same in a sentence"),
    (
        "notice",
        Value::Notice,
        "that the room is held or when it opens; otherwise empty",
    ),
    ("notice_kind", Value::NoticeKind, "`moving`, `opens`, `lobby` or `held`"),
    ("opens_at", Value::OpensAt, "when the room opens; empty when it is open"),
    ("opens_at_iso", Value::OpensAtIso, "the same for a `datetime` attribute"),
    (
        "in_lobby",
        Value::InLobby,
        "how many stand in the lobby, where nobody has a place yet; otherwise empty",
    ),
    (
        "queue_prefix",
        Value::QueuePrefix,
        "where the queue API stands: `/queue`",
    ),
    (
        "abandon_after",
        Value::AbandonAfter,
        "how long a place is kept without a sign of life: `5 minutes`",
    ),
    (
        "wait_seconds",
        Value::WaitSeconds,
        "the expected wait as a number; none when it is not known",
    ),
    (
        "waited",
        Value::Waited,
        "how long the visitor has waited: `12 minutes`; empty when that is not known",
    ),
    (
        "joined_at_iso",
        Value::JoinedAtIso,
        "when the place was taken, for a `datetime` attribute; empty when that is not known",
    ),
    (
        "progress",
        Value::Progress,
        "how much of the wait is over, 0 to 100; none when it is not known",
    ),
];

/// What is known when a page is filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'v> {
    pub(super) room: &'v Name,
    pub(super) language: Language,
    pub(super) standing: &'v Standing,
    pub(super) queue_prefix: &'v str,
    pub(super) abandon_after: Duration,
}

impl Value {
    /// Writes the value as it may stand in HTML, in text and in quoted attributes.
    pub(super) fn fill(self, view: &View<'_>, out: &mut String) {
        let (standing, language) = (view.standing, view.language);
        match self {
            Self::Room => push_escaped(view.room.as_str(), out),
            Self::State => out.push_str(standing.state.as_str()),
            Self::Position => push_place(position(standing), standing, out),
            Self::Ahead => push_place(standing.ahead, standing, out),
            Self::Behind => push_place(standing.behind, standing, out),
            Self::ExpectedWait => words::push_wait(standing.eta, language, out),
            Self::HeardAt => words::push_time(standing.as_of, out),
            Self::HeardAtIso => words::push_iso(standing.as_of, out),
            Self::NextPollMs => words::push_digits(millis(standing.next_poll), out),
            Self::RefreshSeconds => words::push_digits(refresh_seconds(standing.next_poll), out),
            Self::Language => out.push_str(language.tag()),
            Self::Title => match standing.state {
                State::Waiting if in_lobby(standing).is_some() => push_text(&words::LOBBY_HEADING, language, out),
                State::Waiting => words::push_title(position(standing), language, out),
                State::Called | State::Inside => push_text(&words::CALLED_HEADING, language, out),
            },
            Self::Heading => push_text(heading_and_lead(standing).0, language, out),
            Self::Lead => push_text(heading_and_lead(standing).1, language, out),
            Self::Notice => push_notice(standing.notice, language, out),
            Self::NoticeKind => out.push_str(notice_kind(standing.notice)),
            Self::OpensAt => {
                if let Notice::OpensAt(at) | Notice::Lobby { opens: at, .. } = standing.notice {
                    words::push_moment(at, language, out);
                }
            }
            Self::OpensAtIso => {
                if let Notice::OpensAt(at) | Notice::Lobby { opens: at, .. } = standing.notice {
                    words::push_iso(at, out);
                }
            }
            Self::InLobby => {
                if let Some(size) = in_lobby(standing) {
                    words::push_count(size, out);
                }
            }
            Self::QueuePrefix => push_escaped(view.queue_prefix, out),
            Self::AbandonAfter => words::push_span(view.abandon_after, language, out),
            Self::WaitSeconds | Self::Progress => {
                if let Some(Some(number)) = self.number(standing) {
                    words::push_digits(number, out);
                }
            }
            Self::Waited => {
                if let Some(waited) = waited(standing) {
                    words::push_span(waited, language, out);
                }
            }
            Self::JoinedAtIso => {
                if let Some(since) = standing.since {
                    words::push_iso(since, out);
                }
            }
        }
    }

    /// The value of what is a number to a template: some, of which none is known.
    pub(super) fn number(self, standing: &Standing) -> Option<Option<u64>> {
        match self {
            Self::Position => Some(placed(position(standing), standing)),
            Self::Ahead => Some(placed(standing.ahead, standing)),
            Self::Behind => Some(placed(standing.behind, standing)),
            Self::InLobby => Some(in_lobby(standing)),
            Self::WaitSeconds => Some(standing.eta.map(|eta| eta.as_secs())),
            Self::Progress => Some(progress(standing)),
            _ => None,
        }
    }
}

/// Writes text so that no part of it can be markup, in content or in an attribute between quotes.
pub(super) fn push_escaped(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(is_markup) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            _ => "&#39;",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// Nobody in a lobby has a place: any number might grow once it is shuffled.
const fn placed(number: u64, standing: &Standing) -> Option<u64> {
    match in_lobby(standing) {
        Some(_) => None,
        None => Some(number),
    }
}

fn push_place(number: u64, standing: &Standing, out: &mut String) {
    match placed(number, standing) {
        Some(number) => words::push_count(number, out),
        None => out.push('–'),
    }
}

const fn in_lobby(standing: &Standing) -> Option<u64> {
    match standing.notice {
        Notice::Lobby { size, .. } => Some(size),
        Notice::Moving | Notice::OpensAt(_) | Notice::Held => None,
    }
}

/// All of them are single bytes that are no part of any other character.
const fn is_markup(byte: u8) -> bool {
    matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'')
}

fn push_text(text: &Text, language: Language, out: &mut String) {
    push_escaped(text.in_language(language), out);
}

fn push_notice(notice: Notice, language: Language, out: &mut String) {
    match notice {
        Notice::Moving => {}
        Notice::OpensAt(at) | Notice::Lobby { opens: at, .. } => words::push_opens(at, language, out),
        Notice::Held => push_text(&words::HELD, language, out),
    }
}

const fn notice_kind(notice: Notice) -> &'static str {
    match notice {
        Notice::Moving => "moving",
        Notice::OpensAt(_) => "opens",
        Notice::Lobby { .. } => "lobby",
        Notice::Held => "held",
    }
}

/// Those inside need no more than to be told that the page is coming, as those who are called.
const fn heading_and_lead(standing: &Standing) -> (&'static Text, &'static Text) {
    match (standing.state, standing.notice) {
        (State::Called | State::Inside, _) => (&words::CALLED_HEADING, &words::CALLED_LEAD),
        (State::Waiting, Notice::OpensAt(_)) => (&words::LOBBY_HEADING, &words::LOBBY_LEAD),
        (State::Waiting, Notice::Lobby { .. }) => (&words::LOBBY_HEADING, &words::LOTTERY_LEAD),
        (State::Waiting, Notice::Moving | Notice::Held) => (&words::WAITING_HEADING, &words::WAITING_LEAD),
    }
}

const fn position(standing: &Standing) -> u64 {
    standing.ahead.saturating_add(1)
}

/// How long the visitor has waited, as of what is shown.
fn waited(standing: &Standing) -> Option<Duration> {
    standing.since.map(|since| standing.as_of.since(since))
}

/// How much of the wait is over, by time, in whole percents: what went by, of that and what is expected.
fn progress(standing: &Standing) -> Option<u64> {
    let (waited, left) = (waited(standing)?, standing.eta?);
    let whole = waited.as_secs().saturating_add(left.as_secs());
    match standing.state {
        State::Called | State::Inside => Some(100),
        State::Waiting => Some(
            waited
                .as_secs()
                .saturating_mul(100)
                .checked_div(whole)
                .unwrap_or(0)
                .min(99),
        ),
    }
}

/// A page that reloads itself may not do so at once, or the browser never comes to rest.
fn refresh_seconds(next_poll: Duration) -> u64 {
    millis(next_poll).div_ceil(1000).max(1)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
