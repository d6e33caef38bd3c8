//! What the waiting page says, in the languages it speaks: sentences, counts, spans and times.
//!
//! The script of the builtin page says the same things in the same words: it gets the sentences through `data-`
//! attributes. Only times are its own, because only the browser knows the visitor's time zone.

use std::fmt::{self, Write as _};
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::base::clock::Timestamp;
use crate::base::digits::{DIGITS_MAX, decimal};
use crate::base::negotiate::Language;

/// One sentence, or piece of one, in every language. It may contain placeholders itself. `{}` stands for what is
/// filled in by this module or by the script of a page; `|` parts the singular from the plural.
#[derive(Debug)]
pub(super) struct Text {
    /// The placeholder that stands for it.
    pub(super) name: &'static str,
    english: &'static str,
    korean: &'static str,
}

impl Text {
    pub(super) const fn in_language(&self, language: Language) -> &'static str {
        match language {
            Language::English => self.english,
            Language::Korean => self.korean,
        }
    }

    fn fill(&self, language: Language, value: impl FnOnce(&mut String), out: &mut String) {
        let (before, after) = around(self.in_language(language));
        out.push_str(before);
        value(out);
        out.push_str(after);
    }
}

/// Everything that is said in the same words to every visitor of a room.
pub(super) const TEXTS: &[&Text] = &[
    &WAITING_TITLE,
    &WAITING_HEADING,
    &WAITING_LEAD,
    &LOBBY_HEADING,
    &LOBBY_LEAD,
    &LOTTERY_LEAD,
    &text("text.in_lobby", "Waiting here", "현재 인원"),
    &CALLED_HEADING,
    &CALLED_LEAD,
    &OPENS_BEFORE,
    &OPENS_AFTER,
    &HELD,
    &ABOUT,
    &SOON,
    &LONG,
    &UNKNOWN,
    &HOURS,
    &MINUTES,
    &SECONDS,
    &text("text.position", "Your place in line", "나의 대기 순번"),
    &text("text.wait", "Expected wait", "예상 대기 시간"),
    &text("text.ahead", "Ahead of you", "내 앞 대기 인원"),
    &text("text.behind", "Behind you", "내 뒤 대기 인원"),
    &text("text.people", "", "명"),
    &text("text.progress", "How far you have come", "대기 진행 상황"),
    &text("text.countdown", "Time left", "남은 시간"),
    &text(
        "text.closing",
        "You can close this tab. Your place is kept for {{abandon_after}}: come back within that time and carry on where you were.",
        "이 창을 닫으셔도 순번은 {{abandon_after}} 동안 유지됩니다. 그 안에 다시 오시면 이어서 기다리실 수 있습니다.",
    ),
    &text(
        "text.by_itself",
        "This page updates by itself; there is no need to refresh.",
        "순번은 자동으로 갱신되니 새로고침하지 않으셔도 됩니다.",
    ),
    &text(
        "text.reloads",
        "This page reloads by itself (every {{refresh_seconds}} s).",
        "이 페이지는 {{refresh_seconds}}초마다 자동으로 새로고침됩니다.",
    ),
    &text("text.check_now", "Check now", "지금 확인하기"),
    &text("text.heard", "Last updated", "마지막 확인"),
    &text("text.room", "Waiting room", "대기실"),
    &text(
        "text.lost",
        "The line does not answer right now. Your place is kept, and we keep trying.",
        "지금은 대기열이 응답하지 않습니다. 순번은 그대로 유지되며, 계속 다시 시도하고 있습니다.",
    ),
    &text(
        "text.offline",
        "You are offline. Your place is kept for {{abandon_after}}, and this page goes on by itself once you are back.",
        "오프라인 상태입니다. 순번은 {{abandon_after}} 동안 유지되며, 다시 연결되면 자동으로 이어집니다.",
    ),
    &text(
        "text.chime",
        "Play a sound when it is my turn",
        "내 차례가 되면 소리로 알림",
    ),
    &text("text.chime_on", "A sound will call you", "소리 알림 켜짐"),
    &text("text.back", "Connected again.", "다시 연결되었습니다."),
    &text(
        "text.announce",
        "Your place in line: {}. Expected wait: {}.",
        "현재 대기 순번은 {}번, 예상 대기 시간은 {}입니다.",
    ),
];

/// What the page says that pays the price of a place.
pub(super) const PRICE_TEXTS: &[&Text] = &[
    &text("text.price_heading", "One moment, please", "잠시만 기다려 주세요"),
    &text(
        "text.price_lead",
        "Your browser does a little work for your place in line. It takes a few seconds, once.",
        "브라우저가 대기 순번을 받기 위해 간단한 계산을 하고 있습니다. 몇 초면 끝나며 한 번만 진행됩니다.",
    ),
    &text("text.price_progress", "How much of the work is done", "계산 진행 상황"),
    &text(
        "text.price_failed",
        "That did not work. Cookies must be allowed for this page.",
        "완료하지 못했습니다. 이 페이지에서 쿠키를 허용해 주세요.",
    ),
    &text("text.price_again", "Try again", "다시 시도하기"),
    &text(
        "text.price_wait",
        "Without JavaScript it takes some ten seconds: this page then loads itself again.",
        "자바스크립트가 꺼져 있으면 10초쯤 걸립니다. 잠시 후 페이지가 자동으로 새로고침됩니다.",
    ),
    &text(
        "text.price_refuse",
        "A place in line needs JavaScript: please switch it on and load this page again.",
        "대기 순번을 받으려면 자바스크립트가 필요합니다. 자바스크립트를 켜고 다시 열어 주세요.",
    ),
];

pub(super) const WAITING_TITLE: Text = text("text.waiting_title", "No. {} in line", "대기 순번 {}번");
pub(super) const WAITING_HEADING: Text = text("text.waiting_heading", "You are in line", "접속 대기 중입니다");
pub(super) const WAITING_LEAD: Text = text(
    "text.waiting_lead",
    "Many people are here right now, so we let everyone in one after another.",
    "지금 방문하신 분이 많아 순서대로 안내해 드리고 있습니다.",
);
pub(super) const LOBBY_HEADING: Text = text("text.lobby_heading", "Not open yet", "아직 시작 전입니다");
pub(super) const LOBBY_LEAD: Text = text(
    "text.lobby_lead",
    "You are early, and that is fine: once the doors open, everyone here is let in one after another.",
    "시작 시각이 되면 이곳에서 기다리시는 분들부터 순서대로 안내해 드립니다.",
);
pub(super) const LOTTERY_LEAD: Text = text(
    "text.lottery_lead",
    "The order is drawn by lot when the doors open. How early you came makes no difference.",
    "입장 순서는 시작 시각에 추첨으로 정해지며, 오신 순서와는 관계없습니다.",
);
pub(super) const CALLED_HEADING: Text = text("text.called_heading", "It is your turn", "입장하실 차례입니다");
pub(super) const CALLED_LEAD: Text = text(
    "text.called_lead",
    "The page is opening. This takes a moment.",
    "페이지를 여는 중입니다. 잠시만 기다려 주세요.",
);
pub(super) const HELD: Text = text(
    "text.held",
    "The line is paused for the moment. Your place is kept.",
    "지금은 잠시 입장을 멈춘 상태입니다. 순번은 그대로 유지됩니다.",
);
const OPENS_BEFORE: Text = text("text.opens_before", "Opens on ", "");
const OPENS_AFTER: Text = text("text.opens_after", "", "에 열립니다");
const ABOUT: Text = text("text.about", "about {}", "약 {}");
const SOON: Text = text("text.soon", "less than a minute", "1분 이내");
const LONG: Text = text("text.long", "more than a day", "하루 이상");
const UNKNOWN: Text = text("text.unknown", "not known yet", "계산 중");
const HOURS: Text = text("text.hours", "{} hour|{} hours", "{}시간");
const MINUTES: Text = text("text.minutes", "{} minute|{} minutes", "{}분");
const SECONDS: Text = text("text.seconds", "{} second|{} seconds", "{}초");

const fn text(name: &'static str, english: &'static str, korean: &'static str) -> Text {
    Text { name, english, korean }
}

/// A number with its thousands marked, which English and Korean do alike: `1,234,567`.
pub(super) fn push_count(count: u64, out: &mut String) {
    if count < 1000 {
        push_digits(count, out);
    } else {
        push_count(count / 1000, out);
        out.push(',');
        push_padded(count % 1000, 3, out);
    }
}

/// A number as machines read it.
pub(super) fn push_digits(number: u64, out: &mut String) {
    push_padded(number, 1, out);
}

/// A number in at least so many digits.
fn push_padded(number: u64, width: usize, out: &mut String) {
    let mut room = [0; DIGITS_MAX];
    let digits = decimal(number, width, &mut room);
    out.extend(digits.iter().map(|digit| char::from(*digit)));
}

/// The title of a waiting visitor's tab, so that the place can be read without going there.
pub(super) fn push_title(position: u64, language: Language, out: &mut String) {
    WAITING_TITLE.fill(language, |out| push_count(position, out), out);
}

/// An expected wait, no more exact than it can be known: whole minutes, above an hour tens of minutes, rounded up.
pub(super) fn push_wait(wait: Option<Duration>, language: Language, out: &mut String) {
    let Some(wait) = wait else {
        return out.push_str(UNKNOWN.in_language(language));
    };
    match wait.as_secs() {
        0..MINUTE => out.push_str(SOON.in_language(language)),
        seconds @ MINUTE..=DAY => {
            let step = if seconds <= HOUR { MINUTE } else { 10 * MINUTE };
            let rounded = seconds.next_multiple_of(step);
            ABOUT.fill(
                language,
                |out| push_span(Duration::from_secs(rounded), language, out),
                out,
            );
        }
        _ => out.push_str(LONG.in_language(language)),
    }
}

/// A span in its two largest units, cut off below them: `5 minutes`, `1 hour 30 minutes`, `45 seconds`.
pub(super) fn push_span(span: Duration, language: Language, out: &mut String) {
    let seconds = span.as_secs();
    let parts = [
        (seconds / HOUR, &HOURS),
        (seconds % HOUR / MINUTE, &MINUTES),
        (seconds % MINUTE, &SECONDS),
    ];
    let largest = parts.iter().position(|(amount, _)| *amount > 0).unwrap_or(2);
    for (index, (amount, unit)) in parts.into_iter().enumerate().skip(largest).take(2) {
        if index > largest && amount == 0 {
            break;
        }
        if index > largest {
            out.push(' ');
        }
        push_amount(amount, unit.in_language(language), out);
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn push_amount(amount: u64, forms: &str, out: &mut String) {
    let (singular, plural) = forms.split_once('|').unwrap_or((forms, forms));
    let (before, after) = around(if amount == 1 { singular } else { plural });
    out.push_str(before);
    push_count(amount, out);
    out.push_str(after);
}

fn around(text: &str) -> (&str, &str) {
    text.split_once("{}").unwrap_or((text, ""))
}

/// A time of day, in UTC because nothing better is known here.
pub(super) fn push_time(at: Timestamp, out: &mut String) {
    push_clock(&civil(at), out);
    out.push_str(" UTC");
}

/// A date and a time of day, in UTC.
pub(super) fn push_moment(at: Timestamp, language: Language, out: &mut String) {
    let format = match language {
        Language::English => "%B %-d, %Y at %H:%M UTC",
        Language::Korean => "%Y년 %-m월 %-d일 %H:%M(UTC)",
    };
    push(format_args!("{}", civil(at).strftime(format)), out);
}

/// The sentence that says when a room opens.
pub(super) fn push_opens(at: Timestamp, language: Language, out: &mut String) {
    out.push_str(OPENS_BEFORE.in_language(language));
    push_moment(at, language, out);
    out.push_str(OPENS_AFTER.in_language(language));
}

/// A moment as machines read it (RFC 3339), for `datetime` attributes.
pub(super) fn push_iso(at: Timestamp, out: &mut String) {
    let moment = civil(at);
    let parts = [
        (moment.year(), 4, '-'),
        (i16::from(moment.month()), 2, '-'),
        (i16::from(moment.day()), 2, 'T'),
    ];
    for (part, width, mark) in parts {
        push_padded(u64::from(part.unsigned_abs()), width, out);
        out.push(mark);
    }
    push_clock(&moment, out);
    out.push('Z');
}

fn push_clock(moment: &DateTime, out: &mut String) {
    for (part, mark) in [(moment.hour(), ":"), (moment.minute(), ":"), (moment.second(), "")] {
        push_padded(u64::from(part.unsigned_abs()), 2, out);
        out.push_str(mark);
    }
}

/// A moment in UTC. One beyond the calendar (the year 9999) is shown as its last one.
fn civil(at: Timestamp) -> DateTime {
    let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    Offset::UTC.to_datetime(moment)
}

#[expect(clippy::let_underscore_must_use, reason = "writing to a `String` cannot fail")]
fn push(written: fmt::Arguments<'_>, out: &mut String) {
    let _ = out.write_fmt(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn thousands_are_marked() {
        for (count, text) in [
            (0, "0"),
            (7, "7"),
            (999, "999"),
            (1000, "1,000"),
            (20_305, "20,305"),
            (1_000_001, "1,000,001"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(written(|out| push_count(count, out)), text);
        }
    }

    #[test]
    fn a_wait_is_said_in_both_languages_no_more_exactly_than_it_is_known() {
        for (seconds, english, korean) in [
            (Some(0), "less than a minute", "1분 이내"),
            (Some(59), "less than a minute", "1분 이내"),
            (Some(60), "about 1 minute", "약 1분"),
            (Some(61), "about 2 minutes", "약 2분"),
            (Some(3540), "about 59 minutes", "약 59분"),
            (Some(3600), "about 1 hour", "약 1시간"),
            (Some(3601), "about 1 hour 10 minutes", "약 1시간 10분"),
            (Some(7200), "about 2 hours", "약 2시간"),
            (Some(86_400), "about 24 hours", "약 24시간"),
            (Some(86_401), "more than a day", "하루 이상"),
            (Some(u64::MAX), "more than a day", "하루 이상"),
            (None, "not known yet", "계산 중"),
        ] {
            let wait = seconds.map(Duration::from_secs);
            assert_eq!(written(|out| push_wait(wait, Language::English, out)), english);
            assert_eq!(written(|out| push_wait(wait, Language::Korean, out)), korean);
        }
    }

    #[test]
    fn a_span_is_said_in_its_two_largest_units() {
        for (seconds, english, korean) in [
            (0, "0 seconds", "0초"),
            (1, "1 second", "1초"),
            (300, "5 minutes", "5분"),
            (90, "1 minute 30 seconds", "1분 30초"),
            (3600, "1 hour", "1시간"),
            (5405, "1 hour 30 minutes", "1시간 30분"),
            (3605, "1 hour", "1시간"),
        ] {
            let span = Duration::from_secs(seconds);
            assert_eq!(written(|out| push_span(span, Language::English, out)), english);
            assert_eq!(written(|out| push_span(span, Language::Korean, out)), korean);
        }
    }

    #[test]
    fn moments_are_told_in_utc_and_say_so() {
        let opening = Timestamp::from_secs(1_796_122_800);
        assert_eq!(written(|out| push_iso(opening, out)), "2026-12-01T11:00:00Z");
        assert_eq!(written(|out| push_time(opening, out)), "11:00:00 UTC");
        assert_eq!(
            written(|out| push_opens(opening, Language::English, out)),
            "Opens on December 1, 2026 at 11:00 UTC"
        );
        assert_eq!(
            written(|out| push_opens(opening, Language::Korean, out)),
            "2026년 12월 1일 11:00(UTC)에 열립니다"
        );
        let never = Timestamp::from_micros(u64::MAX);
        assert!(written(|out| push_iso(never, out)).starts_with("9999-12-3"));
    }
}
