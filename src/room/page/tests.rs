use std::path::PathBuf;

use super::slot::{Slot, Value};
use super::words::TEXTS;
use super::*;
use crate::base::clock::Timestamp;
use crate::room::standing::{Notice, State};

const LANGUAGES: [Language; 2] = [Language::English, Language::Korean];

/// Two flights of a new connection at most, and few enough bytes for a rush. Everything that is seen stands in the
/// first flight (10 segments of 1,460 bytes); the script may come with the second.
const BUILTIN_BYTES_MAX: usize = 18_000;

/// What fits into the first flight with room left for the headers.
const FIRST_FLIGHT_BYTES: usize = 14_000;

fn standing() -> Standing {
    Standing {
        state: State::Waiting,
        ahead: 1_233,
        behind: 5_678,
        eta: Some(Duration::from_secs(24 * 60 + 1)),
        eta_range: Some((Duration::from_secs(22 * 60), Duration::from_secs(27 * 60))),
        next_poll: Duration::from_millis(4_300),
        notice: Notice::Moving,
        since: Some(Timestamp::from_secs(1_796_122_800 - 36 * 60)),
        as_of: Timestamp::from_secs(1_796_122_800),
    }
}

fn room() -> Name {
    "concert".parse().unwrap()
}

fn rendered(page: &Page, language: Language, standing: &Standing) -> String {
    String::from_utf8(page.render(&room(), language, standing).body.to_vec()).unwrap()
}

fn own(template: &str) -> Result<Page, TemplateFault> {
    let vars = [("event".to_owned(), "Rock & <Roll>".to_owned())];
    Page::own(template, &vars.into())
}

fn filled(template: &str, standing: &Standing) -> String {
    rendered(&own(template).unwrap(), Language::English, standing)
}

/// A fault as an operator reads it, without the file.
fn refused(template: &str) -> String {
    let TemplateFault {
        line,
        column,
        message,
        suggestion,
    } = own(template).unwrap_err();
    let suggestion = suggestion.map(|name| format!(", did you mean `{name}`?"));
    format!("{line}:{column}: {message}{}", suggestion.unwrap_or_default())
}

/// Every state under every notice, with and without an expected wait.
fn standings() -> impl Iterator<Item = Standing> {
    let opening = Notice::OpensAt(Timestamp::from_secs(1_796_122_800));
    let lobby = Notice::Lobby {
        opens: Timestamp::from_secs(1_796_122_800),
        size: 4_321,
    };
    let notices = [Notice::Moving, opening, lobby, Notice::Held];
    [State::Waiting, State::Called, State::Inside]
        .into_iter()
        .flat_map(move |state| {
            notices.into_iter().flat_map(move |notice| {
                [None, Some(Duration::from_secs(90))].map(|eta| Standing {
                    state,
                    notice,
                    eta,
                    ..standing()
                })
            })
        })
}

#[test]
fn what_is_seen_of_the_builtin_page_fits_into_the_first_flight_of_a_connection() {
    let longest = Standing {
        ahead: u64::MAX,
        behind: u64::MAX,
        eta: Some(Duration::from_secs(80_000)),
        notice: Notice::OpensAt(Timestamp::from_secs(1_796_122_800)),
        ..standing()
    };
    for language in LANGUAGES {
        let page = rendered(&Page::builtin(), language, &longest);
        let (size, seen) = (page.len(), page.find("<script>").unwrap());
        assert!(size <= BUILTIN_BYTES_MAX, "{size} bytes in {language:?}");
        assert!(
            seen <= FIRST_FLIGHT_BYTES,
            "{seen} bytes before the script in {language:?}"
        );
    }
}

#[test]
fn the_builtin_page_needs_nothing_from_elsewhere() {
    for language in LANGUAGES {
        let page = rendered(&Page::builtin(), language, &standing());
        for outside in ["http://", "https://", "src=", "url(", "@import", "//cdn"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let links = page.matches("<link").count();
        assert_eq!(links, page.matches(r#"<link rel="icon" href="data:,">"#).count());
    }
}

#[test]
fn the_builtin_page_says_where_a_visitor_stands_in_both_languages() {
    let page = Page::builtin().with_abandon_after(Duration::from_secs(120));
    let english = rendered(&page, Language::English, &standing());
    for said in [
        r#"<html lang="en">"#,
        "<title>No. 1,234 in line</title>",
        r#"<h1 id="heading">You are in line</h1>"#,
        r#"<strong id="position">1,234</strong>"#,
        r#"<span id="ahead">1,233</span>"#,
        r#"<span id="behind">5,678</span>"#,
        r#"<dd id="wait">about 25 minutes</dd>"#,
        r#"<time id="heard" datetime="2026-12-01T11:00:00Z">11:00:00 UTC</time>"#,
        "Your place is kept for 2 minutes",
        r#"data-status="/queue/status?room=concert""#,
        r#"data-next="4300""#,
        r#"<noscript><meta http-equiv="refresh" content="5"></noscript>"#,
    ] {
        assert!(english.contains(said), "{said}");
    }
    let korean = rendered(&page, Language::Korean, &standing());
    for said in [
        r#"<html lang="ko">"#,
        "<title>대기 순번 1,234번</title>",
        "접속 대기 중입니다",
        r#"<span id="ahead">1,233</span>명"#,
        "약 25분",
        "순번은 2분 동안 유지됩니다",
        "5초마다 자동으로",
    ] {
        assert!(korean.contains(said), "{said}");
    }
}

#[test]
fn every_state_and_notice_shows_and_leaves_no_placeholder_behind() {
    let template = include_str!("waiting.html");
    for inline in inline::find(template).unwrap() {
        assert!(!inline.content.contains("{{"));
    }
    for (standing, language) in standings().flat_map(|standing| LANGUAGES.map(|language| (standing, language))) {
        let page = rendered(&Page::builtin(), language, &standing);
        assert!(!page.contains("{{") && !page.contains("}}<"), "{standing:?}");
        assert!(page.contains(&format!(r#"<main data-state="{}""#, standing.state.as_str())));
        let called = page.contains("<title>It is your turn") || page.contains("<title>입장하실 차례입니다");
        assert_eq!(called, standing.state != State::Waiting);
        let opens = page.contains(r#"<time id="opens" datetime="2026-12-01T11:00:00Z">"#);
        assert_eq!(
            opens,
            matches!(standing.notice, Notice::OpensAt(_) | Notice::Lobby { .. })
        );
    }
}

#[test]
fn in_a_lobby_nobody_is_shown_a_place() {
    let page = own("{{title}}: {{position}} {{ahead}} {{behind}} {{in_lobby}} {{notice_kind}}").unwrap();
    let notice = Notice::Lobby {
        opens: Timestamp::from_secs(1_796_122_800),
        size: 4_321,
    };
    let standing = Standing { notice, ..standing() };
    let shown = rendered(&page, Language::English, &standing);
    assert_eq!(shown, "Not open yet: – – – 4,321 lobby");
}

#[test]
fn notices_are_sentences_in_both_languages() {
    let page = own("{{notice_kind}}: {{notice}}").unwrap();
    let opening = Notice::OpensAt(Timestamp::from_secs(1_796_122_800));
    for (notice, english, korean) in [
        (Notice::Moving, "moving: ", "moving: "),
        (
            opening,
            "opens: Opens on December 1, 2026 at 11:00 UTC",
            "opens: 2026년 12월 1일 11:00(UTC)에 열립니다",
        ),
        (
            Notice::Held,
            "held: The line is paused for the moment. Your place is kept.",
            "held: 지금은 잠시 입장을 멈춘 상태입니다. 순번은 그대로 유지됩니다.",
        ),
    ] {
        let standing = Standing { notice, ..standing() };
        assert_eq!(rendered(&page, Language::English, &standing), english);
        assert_eq!(rendered(&page, Language::Korean, &standing), korean);
    }
}

#[test]
fn every_variable_has_a_value_and_a_meaning() {
    let opening = Standing {
        notice: Notice::OpensAt(Timestamp::from_secs(1_796_122_800)),
        ..standing()
    };
    let lobby = Standing {
        notice: Notice::Lobby {
            opens: Timestamp::from_secs(1_796_122_800),
            size: 4_321,
        },
        ..standing()
    };
    for (name, meaning) in Page::variables() {
        let shown = [&opening, &lobby].map(|standing| filled(&format!("{{{{{name}}}}}"), standing));
        assert!(shown.iter().any(|value| !value.is_empty()), "{name}");
        assert!(!meaning.is_empty(), "{name}");
    }
}

#[test]
fn every_sentence_is_there_in_every_language_and_names_values_only() {
    for text in TEXTS {
        for language in LANGUAGES {
            let sentence = text.in_language(language);
            for inner in sentence.split("{{").skip(1) {
                let (name, _) = inner.split_once("}}").unwrap();
                assert!(matches!(Slot::named(name), Some(Slot::Value(_))), "{sentence}");
            }
            let unsaid = sentence.is_empty();
            let pieces = ["text.people", "text.opens_before", "text.opens_after"];
            assert!(!unsaid || pieces.contains(&text.name), "{} in {language:?}", text.name);
        }
    }
    let mut names = super::slot::names().collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), super::slot::names().count());
}

#[test]
fn a_value_cannot_become_markup() {
    let page = own(r#"<a href="{{queue_prefix}}" title='{{ queue_prefix }}'>{{queue_prefix}}</a>"#);
    let page = page.unwrap().with_queue_prefix(r#""><script>alert('&')</script>"#);
    let escaped = "&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;";
    assert_eq!(
        rendered(&page, Language::English, &standing()),
        format!(r#"<a href="{escaped}" title='{escaped}'>{escaped}</a>"#)
    );
    assert_eq!(
        filled("<h1>{{ vars.event }}</h1>", &standing()),
        "<h1>Rock &amp; &lt;Roll&gt;</h1>"
    );
}

#[test]
fn a_template_decides_loops_and_counts() {
    for (template, page) in [
        ("{% if ahead < 2000 %}soon{% else %}later{% endif %}", "soon"),
        (
            "{{ position }} {{ position|plain }} {{ (position or 0) + 1 }}",
            "1,234 1234 1,235",
        ),
        (
            "{% if state == 'waiting' and notice_kind != 'held' %}go{% endif %}",
            "go",
        ),
        ("{% for name in ['a', 'b'] %}{{ name|upper }}{% endfor %}", "AB"),
        (
            "{% if wait_seconds is none %}?{% else %}{{ wait_seconds // 60 }} min{% endif %}",
            "24 min",
        ),
        ("{{ progress|default('?') }} %", "59 %"),
        ("{{ waited }}", "36 minutes"),
        (
            "{% macro place(n) %}<b>{{ n }}</b>{% endmacro %}{{ place(position) }}",
            "<b>1,234</b>",
        ),
        ("{# not said #}{{ text.ahead }}", "Ahead of you"),
        ("{% if vars.event is defined %}yes{% endif %}", "yes"),
    ] {
        assert_eq!(filled(template, &standing()), page, "{template}");
    }
    let unknown = Standing {
        eta: None,
        since: None,
        ..standing()
    };
    assert_eq!(
        filled("{{ waited }}{% if progress is none %}?{% endif %}", &unknown),
        "?"
    );
}

#[test]
fn the_progress_is_what_went_by_of_the_whole_wait() {
    for (since, eta, progress) in [
        (Some(60), Some(60), "50"),
        (Some(0), Some(60), "0"),
        (Some(60), Some(0), "99"),
        (Some(0), Some(0), "0"),
        (None, Some(60), ""),
        (Some(60), None, ""),
    ] {
        let now = standing().as_of;
        let standing = Standing {
            since: since.map(|ago| now - Duration::from_secs(ago)),
            eta: eta.map(Duration::from_secs),
            ..standing()
        };
        let mut written = String::new();
        Value::Progress.fill(
            &View {
                room: &room(),
                language: Language::English,
                standing: &standing,
                queue_prefix: "",
                abandon_after: Duration::ZERO,
            },
            &mut written,
        );
        assert_eq!(written, progress, "{since:?} {eta:?}");
    }
}

#[test]
fn an_unknown_variable_is_refused_with_its_place_and_the_nearest_name() {
    for (template, fault) in [
        (
            "<p>\n  {{positon}}",
            "2:5: there is no variable `positon`, did you mean `position`?",
        ),
        (
            "{{ text.closng }}",
            "1:4: there is no variable `text.closng`, did you mean `text.closing`?",
        ),
        (
            "{{ vars.evnt }}",
            "1:4: there is no variable `vars.evnt`, did you mean `vars.event`?",
        ),
        (
            "positon {% if positon %}{% endif %}",
            "1:15: there is no variable `positon`, did you mean `position`?",
        ),
        (
            "{% if room == 'x' %}{{ nobody_knows }}{% endif %}",
            "1:24: there is no variable `nobody_knows`",
        ),
        (
            "{{ range(3) }}",
            "1:4: there is no variable `range`, did you mean `language`?",
        ),
    ] {
        assert_eq!(refused(template), fault, "{template}");
    }
}

#[test]
fn a_template_that_cannot_be_filled_in_is_refused_with_its_line() {
    for (template, fault) in [
        ("<p>\n{{ position ", "2:1: syntax error: "),
        ("\n\n{% if %}", "3:1: syntax error: "),
        ("{% endif %}", "1:1: syntax error: "),
        ("\n{{ position|money }}", "2:1: unknown filter: "),
        ("{% if state == 'called' %}\n{{ position / 0 }}{% endif %}", "2:1: "),
        ("\n{% set x = text %}{{ x.nothing }}", "2:1: undefined value"),
        (
            "{% include 'page' %}",
            "1:1: `include` is not known here: a page is one file",
        ),
        ("\n{%- import '/etc/passwd' as x %}", "2:1: `import` is not known here"),
    ] {
        let said = refused(template);
        assert!(said.starts_with(fault), "{template}: {said}");
    }
}

#[test]
fn a_page_ends_in_time_and_in_size() {
    let long = format!("{{% set a = '{}' %}}{}", "x".repeat(1000), "{{ a }}".repeat(263));
    assert!(
        refused(&long).contains("the page passes 262144 bytes"),
        "{}",
        refused(&long)
    );
    let digits = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]";
    let nested = format!(
        "{}{}",
        format!("{{% for i in {digits} %}}").repeat(9),
        "{% endfor %}".repeat(9)
    );
    assert!(refused(&nested).contains("fuel"), "{}", refused(&nested));
    assert!(refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").contains("recursion"));
}

#[test]
fn what_fails_after_all_shows_the_builtin_page_with_its_own_policy() {
    let page = own("{% if position == 77 %}{{ 1 // (position - 77) }}{% endif %}{{ position }}").unwrap();
    assert_eq!(rendered(&page, Language::English, &standing()), "1,234");
    let unlucky = Standing {
        ahead: 76,
        ..standing()
    };
    let sheet = page.render(&room(), Language::English, &unlucky);
    let builtin = Page::builtin().render(&room(), Language::English, &unlucky);
    assert_eq!((sheet.body, sheet.csp), (builtin.body, builtin.csp));
}

#[test]
fn a_script_is_kept_as_it_is_and_holds_no_value() {
    assert_eq!(
        refused("<p>\n<SCRIPT >\nlet p = {{position}};</script>"),
        "3:9: `{{ position }}` cannot stand inside `<script>`; put it into a `data-` attribute and read that"
    );
    assert!(refused("<style>p{width:{{ position|plain }}px}</style>").contains("inside `<style>`"));
    assert!(refused("<style>{% if x %}</style>").contains("`{%` means nothing inside `<style>`"));
    assert!(refused("{% raw %}<style>p{}</style>{% endraw %}").contains("leave out `{% raw %}`"));
    let kept = "<style>@media print{#nav{}}</style><script>let f = ({{a}}) => `${{b: 1}}`;\n{{</script>";
    assert_eq!(filled(kept, &standing()), kept);
    assert_eq!(
        refused("<script>\n\n</script>{{ xyzzy }}"),
        "3:13: there is no variable `xyzzy`"
    );
}

#[test]
fn a_script_from_elsewhere_is_refused() {
    let message = refused("\n<script defer src='/app.js'></script>");
    assert!(
        message.starts_with("2:1: a script from elsewhere does not run on this page"),
        "{message}"
    );
    assert_eq!(refused("<script>let a"), "1:1: `<script>` has no `</script>`");
    assert_eq!(refused("<style media='>'"), "1:1: `<style` has no `>`");
}

#[test]
fn a_template_that_is_too_large_is_refused() {
    assert!(own(&"x".repeat(TEMPLATE_BYTES_MAX)).is_ok());
    assert!(refused(&"x".repeat(TEMPLATE_BYTES_MAX + 1)).contains("262145 bytes is too large"));
    assert!(refused(&"<style></style>".repeat(33)).contains("33 scripts and style sheets are too many"));
}

fn policy_of(page: &Page) -> String {
    let sheet = page.render(&room(), Language::English, &standing());
    sheet.csp.to_str().unwrap().to_owned()
}

/// `printf %s 'CONTENT' | openssl dgst -sha256 -binary | base64`
#[test]
fn the_policy_names_each_inline_block_by_its_hash() {
    let page = own(
        "<style>a{}</style><!-- <script>no()</script> --><script data-x='>'>b()\r\nc()\rd()</script><style media=x>e{}</style>",
    );
    assert_eq!(
        policy_of(&page.unwrap()),
        "default-src 'none'; \
         style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk=' 'sha256-m9sGOvaSeazAMABnzn72cEGuTume/QEvVY8WWoYCj/s='; \
         script-src 'sha256-C9eJx0lZak1JsLEzZ43m1U2UGBK/UfhMy5loM4zWtJ4='; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    let bare = own("<p>{{position}}").unwrap();
    assert!(policy_of(&bare).contains("style-src 'none'; script-src 'none'; "));
}

#[test]
fn the_builtin_policy_allows_the_blocks_as_they_are_sent() {
    let page = Page::builtin();
    for (standing, language) in standings().flat_map(|standing| LANGUAGES.map(|language| (standing, language))) {
        let sent = rendered(&page, language, &standing);
        let inlines = inline::find(&sent).unwrap();
        assert_eq!(inlines.len(), 2);
        assert_eq!(inline::policy(&inlines).unwrap(), policy_of(&page));
        assert!(
            !sent.contains(" style=") && !sent.contains(" onload="),
            "the policy forbids both"
        );
    }
    let csp = policy_of(&page);
    assert!(
        !csp.contains("unsafe") && !csp.contains("'none'; script-src") && csp.len() < 512,
        "{csp}"
    );
}

#[test]
fn a_page_without_script_never_reloads_at_once() {
    for (next_poll, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
        let next_poll = Duration::from_millis(next_poll);
        let standing = Standing {
            next_poll,
            ..standing()
        };
        assert_eq!(filled("{{refresh_seconds}}", &standing), seconds);
    }
}

#[test]
fn the_queue_api_may_stand_elsewhere() {
    let page = Page::builtin().with_queue_prefix("/wait/here/");
    let sent = rendered(&page, Language::English, &standing());
    assert!(sent.contains(r#"data-status="/wait/here/status?room=concert""#));
}

#[test]
fn a_page_is_written_into_one_buffer_that_need_not_grow() {
    for (standing, language) in standings().flat_map(|standing| LANGUAGES.map(|language| (standing, language))) {
        let page = Page::builtin();
        let ready = page
            .builtin
            .segments(language)
            .iter()
            .map(Segment::size_hint)
            .sum::<usize>();
        let size = rendered(&page, language, &standing).len();
        assert!(size <= ready, "{size} > {ready}");
    }
}

#[test]
fn the_documentation_names_every_variable() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for (name, _) in Page::variables() {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_sample_of_an_operators_page_parses_and_shows_the_place() {
    let page = own(include_str!("../../../conf/pages/waiting.html")).unwrap();
    for language in LANGUAGES {
        let sent = rendered(&page, language, &standing());
        assert!(sent.contains("1,234") && sent.contains(language.tag()));
        assert!(sent.contains(r#"http-equiv="refresh" content="5""#));
    }
}

/// Writes the page in each language, with its values still open, for the browser test to fill in, where
/// `WAITING_PAGE_DIR` says; else into a directory that goes again.
#[test]
fn the_page_for_the_browser_test_is_written() {
    let passing = tempfile::tempdir().unwrap();
    let asked = std::env::var_os("WAITING_PAGE_DIR").map(PathBuf::from);
    let directory = asked.unwrap_or_else(|| passing.path().to_owned());
    std::fs::create_dir_all(&directory).unwrap();
    let name_of = |value: Value| {
        super::slot::VALUES
            .iter()
            .find(|(_, known, _)| *known == value)
            .unwrap()
            .0
    };
    let page = Page::builtin();
    for language in LANGUAGES {
        let segments = page.builtin.segments(language).iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Value(value) => format!("{{{{{}}}}}", name_of(*value)),
        });
        let file = directory.join(format!("builtin.{}.html", language.tag()));
        std::fs::write(file, segments.collect::<String>()).unwrap();
    }
    std::fs::write(directory.join("builtin.csp"), policy_of(&page)).unwrap();
}
