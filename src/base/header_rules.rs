//! Changes to a set of headers, as operators write them. All is checked and parsed at load; at request time values
//! are cloned, or filled in where they hold placeholders.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::exchange::{Effects, HeaderEdit, Request};
use super::misfit::Misfit;
use super::one_or_many::OneOrMany;
use super::template::{Part, Placeholder, Template};

/// What a header value may hold.
const PLACEHOLDERS: &[Placeholder] = &[
    Placeholder::ClientIp,
    Placeholder::RequestId,
    Placeholder::Host,
    Placeholder::Route,
    Placeholder::Scheme,
];

/// Headers to remove, to set and to add; applied in this order.
///
/// Values may hold `{client_ip}`, `{request_id}`, `{host}`, `{route}` and `{scheme}`. To write such a word as it is,
/// double the braces.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRules {
    /// Headers that get this one value, whatever they had.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Headers that get one more value beside those they have.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Headers that go, with all their values.
    #[serde(default)]
    pub remove: OneOrMany<String>,
}

/// Which way the headers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the upstream, with a request.
    ToUpstream,
    /// To the client, with an answer.
    ToClient,
}

/// Checked rules.
#[derive(Debug)]
pub struct HeaderChanges {
    direction: Direction,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Fixed(HeaderEdit),
    Filled(Kind, HeaderName, Template),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Set,
    Add,
}

impl HeaderRules {
    /// Checks names and values; gives all complaints at once.
    pub fn compile(self, direction: Direction) -> Result<HeaderChanges, Vec<Misfit>> {
        let Self { set, add, remove } = self;
        let mut draft = Draft {
            direction,
            changes: Vec::new(),
            misfits: Vec::new(),
        };
        let removed = draft.removals(remove.0);
        let set = draft.values("set", Kind::Set, set);
        draft.values("add", Kind::Add, add);
        let contradictions = set.intersection(&removed).map(|name| {
            Misfit::new(format!(
                "`{name}` is both set and removed; setting it replaces all its values"
            ))
            .under("set")
        });
        draft.misfits.extend(contradictions);
        if draft.misfits.is_empty() && draft.changes.is_empty() {
            draft
                .misfits
                .push(Misfit::new("it changes nothing: give `set`, `add` or `remove`"));
        }
        if draft.misfits.is_empty() {
            Ok(HeaderChanges {
                direction,
                changes: draft.changes,
            })
        } else {
            Err(draft.misfits)
        }
    }
}

impl HeaderChanges {
    /// Appends the edits for a request to those that go its way.
    pub fn apply(&self, request: &Request<'_>, effects: &mut Effects) {
        let edits = match self.direction {
            Direction::ToUpstream => &mut effects.to_upstream,
            Direction::ToClient => &mut effects.to_client,
        };
        edits.extend(self.changes.iter().map(|change| match change {
            Change::Fixed(edit) => edit.clone(),
            Change::Filled(kind, name, template) => fill(*kind, name, template, request),
        }));
    }
}

/// A value that no header can hold is not to be had from normalised parts. Should it be, the header goes: what the
/// client sent under the name must not pass for ours.
fn fill(kind: Kind, name: &HeaderName, template: &Template, request: &Request<'_>) -> HeaderEdit {
    match (kind, HeaderValue::try_from(template.fill(request))) {
        (Kind::Set, Ok(value)) => HeaderEdit::Set(name.clone(), value),
        (Kind::Add, Ok(value)) => HeaderEdit::Add(name.clone(), value),
        (_, Err(_)) => HeaderEdit::Remove(name.clone()),
    }
}

/// A header that a configuration may carry: its name is well-formed and it says nothing of one connection or of how
/// a message is framed.
///
/// Those headers hold for one hop, and the gateway writes them itself for each of its two: setting one by hand makes
/// the two ends disagree on where a message ends.
pub fn parse_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text
        .parse()
        .map_err(|_| format!("`{text}` is not a header name: use letters, digits and `-`, as in `x-edge`"))?;
    let why = match name.as_str() {
        "connection" | "keep-alive" | "te" | "trailer" | "upgrade" | "http2-settings" => {
            "it holds for one connection only, and the gateway writes it itself"
        }
        "content-length" | "transfer-encoding" => "it says where the message ends, which the gateway does itself",
        name if name.starts_with("proxy-") => "it is meant for the next proxy only and never passed on",
        _ => return Ok(name),
    };
    Err(format!("`{name}` cannot be changed: {why}"))
}

/// A header value as written. Bytes beyond ASCII are refused: what they mean is up to each reader.
pub fn parse_value(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text).ok().filter(|_| text.is_ascii());
    value.ok_or_else(|| "a header value holds visible ASCII characters and spaces only, and no line break".to_owned())
}

/// Rules on their way to being changes.
struct Draft {
    direction: Direction,
    changes: Vec<Change>,
    misfits: Vec<Misfit>,
}

impl Draft {
    fn removals(&mut self, names: Vec<String>) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        for (index, text) in names.into_iter().enumerate() {
            let parsed = parse_name(&text).and_then(|name| self.keeps_host(name));
            match parsed {
                Ok(name) => {
                    if seen.insert(name.as_str().to_owned()) {
                        self.changes.push(Change::Fixed(HeaderEdit::Remove(name)));
                    }
                }
                Err(why) => self.misfits.push(Misfit::new(why).under(index).under("remove")),
            }
        }
        seen
    }

    fn values(&mut self, key: &'static str, kind: Kind, values: BTreeMap<String, String>) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        for (text, value) in values {
            let parsed = parse_name(&text).and_then(|name| match kind {
                Kind::Set => Ok(name),
                Kind::Add => self.keeps_host(name),
            });
            let change = parsed.and_then(|name| {
                if !seen.insert(name.as_str().to_owned()) {
                    return Err(format!("`{name}` stands here twice, in two spellings"));
                }
                parse_change(kind, name, &value)
            });
            match change {
                Ok(change) => self.changes.push(change),
                Err(why) => self.misfits.push(Misfit::new(why).under(text.as_str()).under(key)),
            }
        }
        seen
    }

    /// A request has exactly one `host`: it may be set, and neither doubled nor removed.
    fn keeps_host(&self, name: HeaderName) -> Result<HeaderName, String> {
        if self.direction == Direction::ToUpstream && name == http::header::HOST {
            Err("a request has exactly one `host`: it can be set, but neither added nor removed".to_owned())
        } else {
            Ok(name)
        }
    }
}

fn parse_change(kind: Kind, name: HeaderName, value: &str) -> Result<Change, String> {
    let template = Template::parse(value, PLACEHOLDERS)?;
    for part in template.parts() {
        if let Part::Text(text) = part {
            parse_value(text)?;
        }
    }
    let Some(fixed) = template.as_static() else {
        return Ok(Change::Filled(kind, name, template));
    };
    let value = parse_value(fixed)?;
    Ok(Change::Fixed(match kind {
        Kind::Set => HeaderEdit::Set(name, value),
        Kind::Add => HeaderEdit::Add(name, value),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::Sample;

    fn rules(json: serde_json::Value) -> HeaderRules {
        serde_json::from_value(json).unwrap()
    }

    fn edits(json: serde_json::Value) -> Vec<HeaderEdit> {
        let mut effects = Effects::default();
        let changes = rules(json).compile(Direction::ToUpstream).unwrap();
        changes.apply(&Sample::new().request(), &mut effects);
        effects.to_upstream
    }

    fn faults(json: serde_json::Value) -> Vec<(String, String)> {
        let misfits = rules(json).compile(Direction::ToUpstream).unwrap_err();
        let path = |misfit: &Misfit| format!("{:?}", misfit.path);
        misfits
            .into_iter()
            .map(|misfit| (path(&misfit), misfit.message))
            .collect()
    }

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let edits = edits(serde_json::json!({
            "add": { "via": "1.1 {host}" },
            "set": { "X-Edge": "tidegate", "x-real-ip": "{client_ip}" },
            "remove": ["X-Debug", "x-debug"],
        }));
        let value = HeaderValue::from_static;
        assert_eq!(
            edits,
            [
                HeaderEdit::Remove(name("x-debug")),
                HeaderEdit::Set(name("x-edge"), value("tidegate")),
                HeaderEdit::Set(name("x-real-ip"), value("192.0.2.7")),
                HeaderEdit::Add(name("via"), value("1.1 shop.example.com")),
            ]
        );
    }

    #[test]
    fn headers_of_one_hop_are_refused_with_the_reason() {
        for (header, why) in [
            ("Connection", "one connection"),
            ("keep-alive", "one connection"),
            ("TE", "one connection"),
            ("trailer", "one connection"),
            ("upgrade", "one connection"),
            ("Content-Length", "where the message ends"),
            ("transfer-encoding", "where the message ends"),
            ("proxy-authorization", "next proxy"),
            ("x header", "not a header name"),
            ("", "not a header name"),
            (":authority", "not a header name"),
        ] {
            for json in [
                serde_json::json!({ "set": { header: "x" } }),
                serde_json::json!({ "add": { header: "x" } }),
                serde_json::json!({ "remove": [header] }),
            ] {
                let faults = faults(json);
                assert!(faults.len() == 1 && faults[0].1.contains(why), "{faults:?}");
            }
        }
    }

    #[test]
    fn the_host_of_a_request_can_be_set_and_nothing_else() {
        assert_eq!(
            edits(serde_json::json!({ "set": { "host": "origin.internal" } })).len(),
            1
        );
        for json in [
            serde_json::json!({ "add": { "host": "x" } }),
            serde_json::json!({ "remove": ["Host"] }),
        ] {
            assert!(faults(json)[0].1.contains("exactly one `host`"));
        }
        assert!(
            rules(serde_json::json!({ "remove": ["host"] }))
                .compile(Direction::ToClient)
                .is_ok()
        );
    }

    #[test]
    fn no_value_can_split_a_header() {
        for value in ["a\r\nx-evil: 1", "a\nb", "a\0b", "caf\u{e9}", "{host}\r\nb"] {
            let faults = faults(serde_json::json!({ "set": { "x-a": value } }));
            assert!(faults[0].1.contains("visible ASCII"), "{faults:?}");
        }
        let changes = rules(serde_json::json!({ "set": { "x-id": "{request_id}" } }));
        let changes = changes.compile(Direction::ToUpstream).unwrap();
        let mut effects = Effects::default();
        let sample = Sample::new();
        let request = Request {
            id: "a\r\nb",
            ..sample.request()
        };
        changes.apply(&request, &mut effects);
        assert_eq!(effects.to_upstream, [HeaderEdit::Remove(name("x-id"))]);
    }

    #[test]
    fn every_complaint_says_where_it_belongs() {
        let faults = faults(serde_json::json!({
            "set": { "X-A": "{hsot}", "x-b": "1", "X-C": "1", "x-c": "2" },
            "remove": ["x-ok", "te", "x-b"],
        }));
        let said: Vec<_> = faults.iter().map(|(path, why)| format!("{path} {why}")).collect();
        assert_eq!(said.len(), 4, "{said:#?}");
        assert!(said[0].starts_with(r#"[Key("remove"), Index(1)] `te`"#), "{}", said[0]);
        assert!(
            said[1].starts_with(r#"[Key("set"), Key("X-A")] `{hsot}`"#),
            "{}",
            said[1]
        );
        assert!(said[1].contains("did you mean `{host}`"), "{}", said[1]);
        assert!(said[2].contains("twice"), "{}", said[2]);
        assert!(said[3].contains("both set and removed"), "{}", said[3]);
        assert!(super::HeaderRules::default().compile(Direction::ToClient).is_err());
    }
}
