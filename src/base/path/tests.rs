use proptest::prelude::*;

use super::*;

/// What becomes of a spelling of `/admin`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// It is `/admin`, and the rule for it applies.
    Same,
    /// It is refused.
    Refused(Ambiguous),
    /// It is a path of its own, in this spelling, to every server that reads paths as RFC 3986 does.
    Other(&'static str),
}

use Ambiguous::*;
use Fate::*;

const SPELLINGS: [(&str, Fate); 52] = [
    ("/admin", Same),
    ("/%61dmin", Same),
    ("/%61%64%6d%69%6e", Same),
    ("/%61%64%6D%69%6E", Same),
    ("//admin", Same),
    ("///admin", Same),
    ("/./admin", Same),
    ("/%2e/admin", Same),
    ("/%2E/admin", Same),
    ("/x/../admin", Same),
    ("/x/%2e%2e/admin", Same),
    ("/x/.%2e/admin", Same),
    ("/x/%2e./admin", Same),
    ("/x/y/../../admin", Same),
    ("/x//../admin", Same),
    ("/admin/x/..", Other("/admin/")),
    ("/admin/.", Other("/admin/")),
    ("/admin/", Other("/admin/")),
    ("/admin//", Other("/admin/")),
    ("/admin/./", Other("/admin/")),
    ("/admin;a=b", Other("/admin;a=b")),
    ("/;a=b/admin", Refused(Parameters)),
    ("/..;/admin", Refused(Parameters)),
    ("/.;/admin", Refused(Parameters)),
    ("/x/..;/admin", Refused(Parameters)),
    ("/x/%2e%2e;a=b/admin", Refused(Parameters)),
    ("/x/..%3b/admin", Refused(Parameters)),
    ("/../admin", Refused(AboveRoot)),
    ("/x/../../admin", Refused(AboveRoot)),
    ("/%2e%2e/admin", Refused(AboveRoot)),
    ("/%2fadmin", Refused(EncodedSlash)),
    ("/x%2F..%2fadmin", Refused(EncodedSlash)),
    ("/%5cadmin", Refused(Backslash)),
    ("/\\admin", Refused(Backslash)),
    ("/x\\..\\admin", Refused(Backslash)),
    ("/admin%00", Refused(Control)),
    ("/admin%00.html", Refused(Control)),
    ("/admin%09", Refused(Control)),
    ("/admin\t", Refused(Control)),
    ("/admin%0d%0a", Refused(Control)),
    ("/admin\u{7f}", Refused(Control)),
    ("/admin%20", Other("/admin%20")),
    ("/admin ", Refused(Delimiter)),
    ("/admin?", Refused(Delimiter)),
    ("/admin#x", Refused(Delimiter)),
    ("/ADMIN", Other("/ADMIN")),
    ("/admin.", Other("/admin.")),
    ("/%2561dmin", Other("/%2561dmin")),
    ("/%c0%afadmin", Refused(NotUtf8)),
    ("/%ef%bc%8fadmin", Other("/%EF%BC%8Fadmin")),
    ("/\u{ff41}dmin", Refused(NotUtf8)),
    ("http://host/admin", Refused(NotAbsolute)),
];

#[test]
fn no_spelling_of_a_path_slips_past_its_rule() {
    for (spelling, fate) in SPELLINGS {
        let judged = match normalise(spelling) {
            Ok(path) if path == "/admin" => Same,
            Ok(path) => match fate {
                Other(expected) if path == expected => fate,
                _ => panic!("{spelling} became {path}, expected {fate:?}"),
            },
            Err(why) => Refused(why),
        };
        assert_eq!(judged, fate, "{spelling}");
    }
}

#[test]
fn what_has_no_single_meaning_is_refused() {
    for (path, why) in [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("admin", NotAbsolute),
        ("/%", BadEscape),
        ("/%4", BadEscape),
        ("/%zz", BadEscape),
        ("/%+1", BadEscape),
        ("/%%41", BadEscape),
        ("/%7f", Control),
        ("/%ff", NotUtf8),
        ("/%80", NotUtf8),
        ("/%e2%82", NotUtf8),
        ("/%e2%82/x", NotUtf8),
        ("/%ed%a0%80", NotUtf8),
        ("/%f5%80%80%80", NotUtf8),
        ("/;", Parameters),
        ("/%3B/x", Parameters),
        ("/a/../..", AboveRoot),
    ] {
        assert_eq!(normalise(path), Err(why), "{path}");
    }
}

#[test]
fn ordinary_paths_are_borrowed() {
    for path in [
        "/",
        "/a/b.html",
        "/.well-known/acme-challenge/x",
        "/...",
        "/a/..b",
        "/%EA%B4%80%EB%A6%AC",
        "/a;v=1/b",
        "/a%20b",
        "/x|y[1]{z}",
    ] {
        assert!(
            matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path),
            "{path}"
        );
    }
}

#[test]
fn dot_segments_go_and_leave_their_slash() {
    for (path, normal) in [
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/.", "/"),
        ("//", "/"),
        ("/a/b/../../c/./d", "/c/d"),
        ("/a//../b", "/b"),
        ("/%7euser/%e2%82%ac", "/~user/%E2%82%AC"),
    ] {
        assert_eq!(normalise(path).unwrap(), normal, "{path}");
    }
}

#[test]
fn rules_see_the_characters_and_not_their_escapes() {
    assert_eq!(decode("/%40admin"), "/@admin");
    assert_eq!(decode("/%EA%B4%80"), "/\u{ad00}");
    assert_eq!(decode("/%2561"), "/%61");
    assert_eq!(decode("/%FF%"), "/%FF%");
}

/// Pieces from which hostile paths are made.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("..".to_owned()),
        Just("%2e".to_owned()),
        Just("%2F".to_owned()),
        Just("%25".to_owned()),
        Just("%61".to_owned()),
        Just("%e2%82%ac".to_owned()),
        Just("%c3".to_owned()),
        Just(";".to_owned()),
        Just("%3b".to_owned()),
        "[a-z0-9%~@]",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn normalising_is_idempotent_and_never_lengthens(raw in hostile()) {
        if let Ok(normal) = normalise(&raw) {
            prop_assert!(normal.len() <= raw.len());
            let twice = normalise(&normal).map(Cow::into_owned);
            prop_assert_eq!(twice, Ok(normal.clone().into_owned()));
            let dots = normal.split('/').any(|segment| matches!(segment, "." | ".."));
            prop_assert!(normal.starts_with('/') && !normal.contains("//") && !dots, "{}", normal);
            prop_assert!(normal.is_ascii() && !normal.bytes().any(|b| b.is_ascii_control()));
        }
    }

    #[test]
    fn an_escaped_unreserved_character_is_that_character(path in "(/[a-z0-9~_-]{1,5}){1,4}", at in any::<proptest::sample::Index>()) {
        let at = at.index(path.len());
        let byte = path.as_bytes()[at];
        prop_assume!(byte != b'/');
        let escaped = format!("{}%{byte:02x}{}", &path[..at], &path[at + 1..]);
        prop_assert_eq!(normalise(&escaped).unwrap(), path);
    }
}

#[test]
fn each_segment_loses_its_own_parameters_and_nothing_else() {
    for (path, bare) in [
        ("/checkout;a=1/order", "/checkout/order"),
        ("/checkout/order;jsessionid=1;v=2", "/checkout/order"),
        ("/a%3Bb/c;d", "/a/c"),
        ("/a;b%3Bc/", "/a/"),
        ("/a%3Ab=c,d", "/a%3Ab=c,d"),
    ] {
        assert_eq!(without_parameters(path), bare, "{path}");
    }
    assert!(matches!(without_parameters("/plain/path"), Cow::Borrowed(_)));
}

#[test]
fn a_prefix_begins_whole_segments_however_they_are_spelled() {
    for (prefix, path, rest) in [
        ("/api", "/api", Some("")),
        ("/api", "/api/users", Some("/users")),
        ("/api/", "/api/", Some("/")),
        ("/api", "/apis", None),
        ("/api", "/API", None),
        ("/a/b", "/a", None),
        ("/", "/", Some("/")),
        ("/", "/x/y", Some("/x/y")),
        ("/api", "/api;v=1/users;x=2", Some("/users;x=2")),
        ("/@me", "/%40me/x", Some("/x")),
        ("/%40me", "/@me", Some("")),
        ("/a b", "/a%20b/c", Some("/c")),
        ("/\u{d55c}", "/%ED%95%9C/x", Some("/x")),
        ("/caf%c3%a9", "/caf%C3%A9", Some("")),
    ] {
        let prefix = Prefix::parse(prefix).unwrap();
        assert_eq!(prefix.rest_of(path), rest, "{prefix:?} {path}");
    }
    for (wrong, why) in [
        ("api", "slash"),
        ("/a;v=1", "parameters"),
        ("/a%3b", "parameters"),
        ("/%2f", "encoded slash"),
    ] {
        let fault = Prefix::parse(wrong).unwrap_err();
        assert!(fault.contains(why), "{fault}");
    }
}
