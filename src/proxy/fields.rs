//! Changes to the header fields of a message that is passed on, at the lowest price.
//!
//! Pingora's heads keep the spelling of each name in a second map. A change there parses the name anew and is made
//! twice, and neither map can be given room beforehand. So the second map is let go of where nobody would notice: where
//! every name is spelled as Pingora writes it without one, or where the client speaks HTTP/2, which has one spelling
//! only. All other messages are changed through Pingora's head, and keep their spelling.

use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, SERVER,
    SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, request, response};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::base::exchange::HeaderEdit;

/// A name that the gateway itself writes.
#[derive(Debug)]
pub(super) struct OwnName {
    name: HeaderName,
    /// The same. Pingora would copy that of a `HeaderName` for every message.
    text: &'static str,
}

impl OwnName {
    /// `text` must be in lower case.
    pub(super) const fn new(text: &'static str) -> Self {
        Self {
            name: HeaderName::from_static(text),
            text,
        }
    }

    pub(super) const fn text(&self) -> &'static str {
        self.text
    }

    pub(super) fn is_in(&self, fields: &HeaderMap) -> bool {
        fields.contains_key(&self.name)
    }
}

/// Header fields that can be changed.
pub(super) trait Fields {
    /// Replaces all values of a name of the gateway's own.
    fn put(&mut self, name: OwnName, value: HeaderValue) -> pingora::Result<()>;

    /// Makes a change that the chain asked for.
    fn edit(&mut self, edit: HeaderEdit) -> pingora::Result<()>;
}

impl Fields for HeaderMap {
    fn put(&mut self, name: OwnName, value: HeaderValue) -> pingora::Result<()> {
        self.insert(name.name, value);
        Ok(())
    }

    fn edit(&mut self, edit: HeaderEdit) -> pingora::Result<()> {
        match edit {
            HeaderEdit::Set(name, value) => drop(self.insert(name, value)),
            HeaderEdit::Add(name, value) => _ = self.append(name, value),
            HeaderEdit::Remove(name) => drop(self.remove(name)),
        }
        Ok(())
    }
}

/// Pingora's two heads change alike, and share no trait that says so.
macro_rules! fields_of_heads {
    ($($head:ty),+) => {
        $(impl Fields for $head {
            fn put(&mut self, name: OwnName, value: HeaderValue) -> pingora::Result<()> {
                self.insert_header(name.text, value)
            }

            fn edit(&mut self, edit: HeaderEdit) -> pingora::Result<()> {
                match edit {
                    HeaderEdit::Set(name, value) => self.insert_header(name, value),
                    HeaderEdit::Add(name, value) => self.append_header(name, value).map(|_| ()),
                    HeaderEdit::Remove(name) => {
                        self.remove_header(&name);
                        Ok(())
                    }
                }
            }
        })+
    };
}

fields_of_heads!(RequestHeader, ResponseHeader);

/// Takes a head out of where it stands, and leaves an empty one.
pub(super) fn taken(head: &mut RequestHeader) -> RequestHeader {
    let empty = Request::new(()).into_parts().0;
    std::mem::replace(head, empty.into())
}

/// Lets go of the spelling of a request's names, where nobody would notice.
pub(super) fn forget_usual_spelling(head: &mut RequestHeader) {
    if head.has_case()
        && let Some(parts) = unspelled(head)
    {
        *head = parts.into();
    }
}

/// Changes a request's fields; `room` is how many may come on top.
pub(super) fn of_request(
    head: &mut RequestHeader,
    room: usize,
    change: impl FnOnce(&mut dyn Fields) -> pingora::Result<()>,
) -> pingora::Result<()> {
    let Some(mut parts) = unspelled(head) else {
        return change(head);
    };
    parts.headers.reserve(room);
    let changed = change(&mut parts.headers);
    *head = parts.into();
    changed
}

/// A request's head without the spelling of its names, which leaves an empty one behind; none where that would show.
fn unspelled(head: &mut RequestHeader) -> Option<request::Parts> {
    // A target in another form than a path is kept beside the map, and would go with it.
    let is_path = head.raw_path().first() == Some(&b'/') && head.raw_path_is_utf8();
    if !is_path || !is_spelled_as_usual(head.case_header_iter(), &head.headers, |name| name.as_slice()) {
        return None;
    }
    Some(taken(head).into())
}

/// Changes an answer's fields; `room` is how many may come on top, `any_spelling` whether the client takes the names in
/// any spelling.
pub(super) fn of_answer(
    head: &mut ResponseHeader,
    room: usize,
    any_spelling: bool,
    change: impl FnOnce(&mut dyn Fields) -> pingora::Result<()>,
) -> pingora::Result<()> {
    let is_usual = any_spelling || is_spelled_as_usual(head.case_header_iter(), &head.headers, |name| name.as_slice());
    if !is_usual || head.get_reason_phrase() != head.status.canonical_reason() {
        return change(head);
    }
    let empty = Response::new(()).into_parts().0;
    let mut parts: response::Parts = std::mem::replace(head, empty.into()).into();
    parts.headers.reserve(room);
    let changed = change(&mut parts.headers);
    *head = parts.into();
    changed
}

/// Whether every name is written the way it would be if no spelling were kept. `spelled` holds the names in the order
/// of `fields`, or nothing where none is kept.
fn is_spelled_as_usual<'h, S: 'h>(
    spelled: impl Iterator<Item = (&'h S, &'h HeaderValue)>,
    fields: &HeaderMap,
    text: impl Fn(&'h S) -> &'h [u8],
) -> bool {
    spelled
        .zip(fields)
        .all(|((spelling, _), (name, _))| text(spelling) == usual(name).as_bytes())
}

/// A name as Pingora writes it where no spelling is kept.
fn usual(name: &HeaderName) -> &str {
    match *name {
        CONTENT_TYPE => "Content-Type",
        CONTENT_LENGTH => "Content-Length",
        DATE => "Date",
        SERVER => "Server",
        CONNECTION => "Connection",
        CACHE_CONTROL => "Cache-Control",
        SET_COOKIE => "Set-Cookie",
        TRANSFER_ENCODING => "Transfer-Encoding",
        CONTENT_ENCODING => "Content-Encoding",
        ACCEPT_RANGES => "Accept-Ranges",
        AGE => "Age",
        HOST => "Host",
        _ => name.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: OwnName = OwnName::new("x-request-id");

    fn answer(fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, Some(fields.len())).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn request(target: &str, fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut head = RequestHeader::build("POST", target.as_bytes(), Some(fields.len())).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn edits() -> Vec<HeaderEdit> {
        vec![
            HeaderEdit::Set(SERVER, HeaderValue::from_static("edge")),
            HeaderEdit::Add(SET_COOKIE, HeaderValue::from_static("b=2")),
            HeaderEdit::Remove(AGE),
            HeaderEdit::Add(HeaderName::from_static("x-new"), HeaderValue::from_static("1")),
        ]
    }

    fn change(fields: &mut dyn Fields) -> pingora::Result<()> {
        fields.put(ID, HeaderValue::from_static("req-1"))?;
        edits().into_iter().try_for_each(|edit| fields.edit(edit))
    }

    fn wire(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    const USUAL: [(&str, &str); 5] = [
        ("Server", "origin"),
        ("Age", "3"),
        ("Set-Cookie", "a=1"),
        ("x-lower", "yes"),
        ("Content-Length", "2"),
    ];

    #[test]
    fn an_answer_reads_the_same_whether_its_spelling_is_kept_or_not() {
        let (mut kept, mut dropped) = (answer(&USUAL), answer(&USUAL));
        change(&mut kept).unwrap();
        of_answer(&mut dropped, 8, false, change).unwrap();
        assert!(kept.has_case() && !dropped.has_case());
        let text = |head: &ResponseHeader| wire(|bytes| head.header_to_h1_wire(bytes));
        assert_eq!(text(&kept), text(&dropped));
        assert!(text(&kept).contains("x-request-id: req-1\r\n"), "{}", text(&kept));
    }

    #[test]
    fn a_request_reads_the_same_whether_its_spelling_is_kept_or_not() {
        let fields = [("Host", "shop.example.com"), ("Content-Length", "2")];
        let (mut kept, mut dropped) = (request("/a?b", &fields), request("/a?b", &fields));
        change(&mut kept).unwrap();
        of_request(&mut dropped, 8, change).unwrap();
        assert!(kept.has_case() && !dropped.has_case());
        let text = |head: &RequestHeader| wire(|bytes| head.header_to_h1_wire(bytes));
        assert_eq!(text(&kept), text(&dropped));
        assert_eq!((dropped.raw_path(), dropped.method.as_str()), (&b"/a?b"[..], "POST"));
    }

    #[test]
    fn a_spelling_of_its_own_stays() {
        for odd in ["ETag", "server", "DATE", "X-Powered-By"] {
            let mut head = answer(&[("Content-Type", "text/plain"), (odd, "1")]);
            of_answer(&mut head, 8, false, change).unwrap();
            let text = wire(|bytes| head.header_to_h1_wire(bytes));
            assert!(odd == "server" || text.contains(&format!("{odd}: 1\r\n")), "{text}");
            assert!(head.has_case(), "{odd}");
            of_answer(&mut head, 8, true, change).unwrap();
            assert!(!head.has_case(), "HTTP/2 has one spelling");
        }
        let mut head = request("/", &[("Host", "a"), ("User-Agent", "b")]);
        of_request(&mut head, 8, change).unwrap();
        assert!(wire(|bytes| head.header_to_h1_wire(bytes)).contains("User-Agent: b\r\n"));
    }

    #[test]
    fn a_reason_of_its_own_stays() {
        let mut head = answer(&USUAL);
        head.set_reason_phrase(Some("Fine")).unwrap();
        of_answer(&mut head, 8, true, change).unwrap();
        assert_eq!(head.get_reason_phrase(), Some("Fine"));
    }

    #[test]
    fn a_target_that_is_no_plain_path_stays() {
        for target in ["http://shop.example.com/a?b", "*"] {
            let mut head = request(target, &[("Host", "shop.example.com")]);
            of_request(&mut head, 8, change).unwrap();
            assert_eq!(head.raw_path(), target.as_bytes());
        }
        let mut head = RequestHeader::build("GET", b"/\xff", None).unwrap();
        of_request(&mut head, 8, change).unwrap();
        assert_eq!(head.raw_path(), b"/\xff");
    }

    /// What [`usual`] believes of Pingora.
    #[test]
    fn usual_names_are_those_that_pingora_writes() {
        let names = [
            "accept",
            "accept-encoding",
            "accept-ranges",
            "access-control-allow-origin",
            "age",
            "allow",
            "alt-svc",
            "authorization",
            "cache-control",
            "connection",
            "content-disposition",
            "content-encoding",
            "content-language",
            "content-length",
            "content-location",
            "content-range",
            "content-security-policy",
            "content-type",
            "cookie",
            "date",
            "etag",
            "expect",
            "expires",
            "forwarded",
            "host",
            "if-modified-since",
            "if-none-match",
            "last-modified",
            "link",
            "location",
            "origin",
            "pragma",
            "range",
            "referer",
            "referrer-policy",
            "retry-after",
            "server",
            "set-cookie",
            "strict-transport-security",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "user-agent",
            "vary",
            "via",
            "www-authenticate",
            "x-request-id",
        ];
        for name in names.map(HeaderName::from_static) {
            let mut head = ResponseHeader::build_no_case(200, None).unwrap();
            head.insert_header(&name, "1").unwrap();
            let text = wire(|bytes| head.header_to_h1_wire(bytes));
            assert_eq!(text, format!("{}: 1\r\n", usual(&name)));
        }
    }
}
