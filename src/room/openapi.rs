//! The queue API as an OpenAPI 3.1 document: what may be asked, and everything that may be answered. A test of the
//! running gateway holds it to that.

use serde_json::{Map, Value, json};

use super::document::{CROWDED_TYPE, NOTICES};
use super::price::TIDEGATE_WORK;
use super::standing::State;
use crate::base::name::NAME_BYTES_MAX;
use crate::queue::work::BITS_MAX;

/// The queue API under this prefix, such as `/queue`.
pub fn document(prefix: &str) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate queue API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Take a place in a waiting room, follow it, and go in.",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths(prefix.trim_end_matches('/')),
        "components": {
            "parameters": { "room": room(), "work": work() },
            "headers": headers(),
            "schemas": {
                "Standing": standing(),
                "Problem": problem(),
                "ProblemWithStanding": both(),
                "ProblemWithPrice": with_price(),
                "ProblemOfNetwork": of_network(),
            },
            "responses": responses(),
        },
    })
}

const ABOUT: &str = "A visitor is known by two cookies that the answers set, and that are to be sent back as they are: \
a ticket, `tidegate-ticket-ROOM`, which is the place in the queue, and a pass, `tidegate-pass-ROOM`, which lets in. Over \
TLS their names begin with `__Host-`. Nothing here may be cached. All calls take an empty body.";

/// The calls: path, method, what it does, whether a room must be named, its own answers.
fn paths(prefix: &str) -> Value {
    let status = [
        ("200", "StandingAndCookies"),
        ("404", "NothingHeld"),
        ("410", "Gone"),
        ("503", "Unavailable"),
    ];
    let events = [
        ("200", "Events"),
        ("404", "NothingHeld"),
        ("410", "Gone"),
        ("503", "Unavailable"),
    ];
    let join = [
        ("200", "StandingAndCookies"),
        ("400", "NoRoomNamed"),
        ("403", "Priced"),
        ("404", "NoSuchRoom"),
        ("429", "TooManyOrCrowded"),
        ("503", "Unavailable"),
    ];
    let enter = [
        ("200", "StandingAndCookies"),
        ("404", "NothingHeld"),
        ("409", "NotNow"),
        ("410", "Gone"),
        ("503", "Unavailable"),
    ];
    let leave = [("204", "Left"), ("404", "NothingHeld")];
    let mut paths = Map::new();
    let mut joins = call(
        "join",
        "Take a place, or get back the one held; straight in when there is room.",
        true,
        &join,
    );
    if let Some(parameters) = joins["parameters"].as_array_mut() {
        parameters.push(json!({ "$ref": "#/components/parameters/work" }));
    }
    let mut add = |path: &str, item: Value| drop(paths.insert(format!("{prefix}/{path}"), item));
    add("join", json!({ "post": joins }));
    add(
        "status",
        json!({
            "get": call("status", "Where the visitor stands. It is the sign of life that keeps the place.", false, &status),
            "head": call("statusHead", "The same without its body.", false, &[
                ("200", "Bodiless"), ("404", "BodilessProblem"), ("410", "BodilessProblem"), ("503", "BodilessProblem"),
            ]),
        }),
    );
    add(
        "events",
        json!({ "get": call("events", "The status as server-sent events, whenever it changed.", false, &events) }),
    );
    add(
        "enter",
        json!({ "post": call("enter", "A ticket that was called becomes a pass, once.", false, &enter) }),
    );
    add(
        "leave",
        json!({ "post": call("leave", "The place or the pass is given back.", false, &leave) }),
    );
    Value::Object(paths)
}

fn call(id: &str, summary: &str, needs_room: bool, own: &[(&str, &str)]) -> Value {
    let room = match needs_room {
        true => {
            json!({ "name": "room", "in": "query", "required": true, "description": "The room.", "schema": name() })
        }
        false => json!({ "$ref": "#/components/parameters/room" }),
    };
    let bodiless = id.ends_with("Head");
    let refused = [
        ("405", "WrongMethod"),
        ("414", "Refused"),
        ("429", "TooMany"),
        ("431", "Refused"),
    ];
    let refused = refused.map(|(status, answer)| (status, if bodiless { "BodilessProblem" } else { answer }));
    // What a call answers in a way of its own stands for what all do.
    let answers = refused.iter().chain(own).map(|(status, answer)| {
        let answer = json!({ "$ref": format!("#/components/responses/{answer}") });
        ((*status).to_owned(), answer)
    });
    let answers: Map<_, _> = answers.collect();
    json!({ "operationId": id, "summary": summary, "parameters": [room], "responses": answers })
}

fn name() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": NAME_BYTES_MAX,
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
    })
}

fn room() -> Value {
    json!({
        "name": "room",
        "in": "query",
        "description": "The room; without it, the first of which the request holds a ticket.",
        "schema": name(),
    })
}

fn work() -> Value {
    json!({
        "name": TIDEGATE_WORK.as_str(),
        "in": "header",
        "description": "What was found for the challenge of an earlier answer: `CHALLENGE.NUMBER`. It counts once.",
        "schema": { "type": "string" },
    })
}

fn headers() -> Value {
    let text =
        |description: &str, schema: Value| json!({ "description": description, "required": true, "schema": schema });
    json!({
        "CacheControl": text("Never kept.", json!({ "const": "no-store" })),
        "RequestId": text("The id under which the request is logged.", json!({ "type": "string" })),
        "RetryAfter": text("Seconds after which to come again, a little different for everyone.", json!({ "type": "integer", "minimum": 1 })),
        "Allow": text("The methods that the call takes.", json!({ "type": "string" })),
        "SetCookie": {
            "description": "A new ticket, a new pass, or both, a line each; none where nothing new was given. The ticket \
                            of one who waits is signed anew now and then: the last one counts. To leave sets both to \
                            nothing.",
            "schema": { "type": "string", "pattern": "^(__Host-)?tidegate-(ticket|pass)-" },
        },
    })
}

fn responses() -> Value {
    let problem = |description: &str, more: &[(&str, &str)]| {
        answer(description, more, Some(("application/problem+json", "Problem")))
    };
    let standing = ("application/json", "Standing");
    let cookies = [("Set-Cookie", "SetCookie")];
    let retry = [("Retry-After", "RetryAfter")];
    let mut events = answer(
        "The stream. It ends by itself now and then; clients come again.",
        &cookies,
        None,
    );
    events["content"] = json!({ "text/event-stream": { "schema": event() } });
    json!({
        "StandingAndCookies": answer("Where the visitor stands now.", &cookies, Some(standing)),
        "Events": events,
        "Left": answer("Given back, or nothing was held.", &cookies, None),
        "Bodiless": answer("As for GET.", &cookies, None),
        "BodilessProblem": answer("As for GET.", &[], None),
        "NoRoomNamed": problem("No room was named, or the request says in two ways whose place it would be.", &[]),
        "NoSuchRoom": problem("There is no such room.", &[]),
        "NothingHeld": problem("There is no such room, or the request holds no ticket of one.", &[]),
        "NotNow": answer(
            "It is not this ticket's turn yet, or it was used.",
            &[],
            Some(("application/problem+json", "ProblemWithStanding")),
        ),
        "Priced": answer(
            "A new place has a price in this room, and the request has not paid it: solve the challenge, and ask again.",
            &[],
            Some(("application/problem+json", "ProblemWithPrice")),
        ),
        "Gone": problem("The place was given up, or nobody came when it was called: join again.", &[]),
        "WrongMethod": problem("The call takes another method.", &[("Allow", "Allow")]),
        "Refused": problem("The request is larger than the gateway takes.", &[]),
        "TooMany": problem("The client's network asks too much.", &retry),
        "TooManyOrCrowded": answer(
            "The client's network asks too much, or has as many places in the room as it may.",
            &retry,
            Some(("application/problem+json", "ProblemOfNetwork")),
        ),
        "Unavailable": problem("The queue is closed or full, or cannot be reached, or there are too many streams.", &retry),
    })
}

/// One of the events that a stream is made of.
fn event() -> Value {
    let standing = json!({ "$ref": "#/components/schemas/Standing" });
    let gone = json!({ "$ref": "#/components/schemas/Problem" });
    json!({
        "type": "object",
        "description": "Each of the events. Lines that begin with a colon only keep the connection alive.",
        "required": ["data"],
        "properties": {
            "event": { "enum": ["message", "gone"], "description": "`gone`: the last one of a place that is gone." },
            "data": {
                "type": "string",
                "description": "In JSON: a `Standing`, and with `event: gone` a `Problem`.",
                "contentMediaType": "application/json",
                "contentSchema": { "anyOf": [standing, gone] },
            },
            "retry": { "type": "integer", "minimum": 1, "description": "Milliseconds after the end until the client comes again." },
        },
    })
}

fn answer(description: &str, more: &[(&str, &str)], content: Option<(&str, &str)>) -> Value {
    let always = [("Cache-Control", "CacheControl"), ("X-Request-Id", "RequestId")];
    let headers = always.iter().chain(more).map(|(name, component)| {
        let header = json!({ "$ref": format!("#/components/headers/{component}") });
        ((*name).to_owned(), header)
    });
    let headers: Map<_, _> = headers.collect();
    let mut answer = json!({ "description": description, "headers": headers });
    if let Some((kind, schema)) = content {
        answer["content"] = json!({ kind: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    }
    answer
}

fn standing() -> Value {
    let perhaps = |description: &str| json!({ "type": ["integer", "null"], "minimum": 0, "description": description });
    json!({
        "type": "object",
        "required": STANDING_MEMBERS,
        "properties": {
            "room": name(),
            "state": {
                "enum": [State::Waiting.as_str(), State::Called.as_str(), State::Inside.as_str()],
                "description": "`called`: enter now. `inside`: the pass is good.",
            },
            "position": {
                "type": ["integer", "null"], "minimum": 1,
                "description": "The place in the queue. It never grows. Null in a lobby, where nobody has one yet.",
            },
            "ahead": perhaps("Visitors who are called before; null in a lobby."),
            "behind": perhaps("Visitors who are called after; null in a lobby."),
            "in_lobby": count("With `notice: lobby`: how many stand in the lobby before it is shuffled."),
            "lobby": lot(),
            "eta_seconds": perhaps("The expected wait; null while nothing is known."),
            "eta_range_seconds": {
                "type": ["array", "null"], "items": { "type": "integer", "minimum": 0 }, "minItems": 2, "maxItems": 2,
                "description": "The least and the most that the wait is likely to be; null while nothing is known.",
            },
            "next_poll_ms": count("When to ask again, in milliseconds from now. To ask sooner brings nothing."),
            "notice": { "enum": NOTICES, "description": "What the room as a whole is doing." },
            "opens_at": { "type": "string", "format": "date-time", "description": "With `notice: opens` or `lobby`: when." },
            "as_of": { "type": "string", "format": "date-time", "description": "When this was last confirmed." },
        },
    })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn lot() -> Value {
    let from_one = |description: &str| json!({ "type": "integer", "minimum": 1, "description": description });
    json!({
        "type": "object",
        "description": "What the visitor drew, once the lobby has been shuffled. Anyone can compute it from the seed.",
        "required": ["number", "rank", "size", "seed"],
        "properties": {
            "number": from_one("The number in the lobby, in the order of arrival."),
            "rank": from_one("The rank in the lobby, in the order of calling."),
            "size": from_one("The numbers of the lobby, those included who had left."),
            "seed": { "type": "string", "pattern": "^[0-9a-f]{32}$", "description": "Drawn at the opening." },
        },
    })
}

/// What every standing has.
const STANDING_MEMBERS: [&str; 10] = [
    "room",
    "state",
    "position",
    "ahead",
    "behind",
    "eta_seconds",
    "eta_range_seconds",
    "next_poll_ms",
    "notice",
    "as_of",
];

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
        },
    })
}

fn both() -> Value {
    json!({
        "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "$ref": "#/components/schemas/Standing" },
        ],
    })
}

fn with_price() -> Value {
    let challenge = json!({
        "type": "object",
        "description": "Find a decimal number such that the hash of `CHALLENGE.NUMBER` starts with so many zero bits.",
        "required": ["algorithm", "bits", "challenge", "good_for_ms", "header"],
        "properties": {
            "algorithm": { "const": "sha-256" },
            "bits": { "type": "integer", "minimum": 1, "maximum": BITS_MAX, "description": "Zero bits at the beginning." },
            "challenge": { "type": "string", "minLength": 1 },
            "good_for_ms": count("How long the answer is taken, in milliseconds from now."),
            "header": { "const": TIDEGATE_WORK.as_str(), "description": "Where `CHALLENGE.NUMBER` is put." },
        },
    });
    json!({
        "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            {
                "type": "object",
                "required": ["room", "challenge"],
                "properties": { "room": name(), "challenge": challenge },
            },
        ],
    })
}

/// Two problems with one status: the first passes in seconds, the other when one of the network's visitors goes.
fn of_network() -> Value {
    let crowded = json!({
        "type": "object",
        "required": ["room", "places_per_network"],
        "properties": {
            "type": { "const": CROWDED_TYPE },
            "room": name(),
            "places_per_network": { "type": "integer", "minimum": 1, "description": "As many as the network has." },
        },
    });
    let asks_too_much = json!({ "type": "object", "properties": { "type": { "const": "about:blank" } } });
    json!({ "allOf": [{ "$ref": "#/components/schemas/Problem" }, { "oneOf": [crowded, asks_too_much] }] })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::name::Name;
    use crate::queue::lobby::Draw;
    use crate::queue::shuffle::Seed;
    use crate::room::document::{challenge, crowded, standing_alone};
    use crate::room::price::Price;
    use crate::room::replica::Lot;
    use crate::room::standing::{Notice, Standing};

    #[test]
    fn every_standing_that_is_told_is_described_to_its_last_member() {
        let room: Name = "front".parse().unwrap();
        let at = Timestamp::from_secs(1_800_000_000);
        let schema = standing();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let (seed, size) = (Seed(7), 300);
        let draw = Draw {
            seed,
            before: 0,
            size,
            at,
        };
        let lot = Lot {
            lobby: 8,
            rank: 9,
            draw,
        };
        let opens = at;
        let notices = [
            Notice::Moving,
            Notice::Held,
            Notice::OpensAt(at),
            Notice::Lobby { opens, size },
        ];
        let mut told = Vec::new();
        for (notice, lot) in notices
            .into_iter()
            .flat_map(|notice| [(notice, None), (notice, Some(lot))])
        {
            for eta in [None, Some(Duration::from_millis(1_500))] {
                let standing = Standing {
                    state: State::Waiting,
                    ahead: 41,
                    behind: 7,
                    eta,
                    eta_range: eta.map(|eta| (eta / 2, eta * 2)),
                    next_poll: Duration::from_secs(5),
                    notice,
                    since: None,
                    as_of: at,
                };
                let document: Value = serde_json::from_str(&standing_alone(&room, &standing, lot)).unwrap();
                let faults: Vec<_> = validator
                    .iter_errors(&document)
                    .map(|fault| fault.to_string())
                    .collect();
                assert!(faults.is_empty(), "{document}: {faults:?}");
                told.extend(document.as_object().unwrap().keys().cloned());
            }
        }
        let described = schema["properties"].as_object().unwrap();
        assert!(told.iter().all(|member| described.contains_key(member)), "{told:?}");
        assert!(described.keys().all(|member| told.contains(member)), "{described:?}");
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    /// A schema of the document, on its own feet.
    fn validator(schema: &str) -> jsonschema::Validator {
        let mut document = document("/queue");
        document["$ref"] = json!(format!("#/components/schemas/{schema}"));
        jsonschema::validator_for(&document).unwrap()
    }

    #[test]
    fn every_problem_of_a_join_is_described() {
        let room: Name = "front".parse().unwrap();
        let body = |reply: crate::base::exchange::Reply| serde_json::from_slice::<Value>(&reply.body).unwrap();
        let priced = body(challenge(
            &room,
            &Price {
                challenge: "abc".to_owned(),
                bits: 18,
                good_for: Duration::from_secs(300),
                again_in: None,
            },
        ));
        let crowded = body(crowded(&room, 3));
        let (price, network) = (validator("ProblemWithPrice"), validator("ProblemOfNetwork"));
        assert!(price.is_valid(&priced), "{priced}");
        assert!(network.is_valid(&crowded), "{crowded}");
        assert!(!price.is_valid(&crowded) && !network.is_valid(&json!({ "type": CROWDED_TYPE })));
        let plain = json!({ "type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "Later." });
        assert!(network.is_valid(&plain) && !price.is_valid(&plain));
    }

    #[test]
    fn the_calls_stand_under_the_prefix_and_every_reference_leads_somewhere() {
        let document = document("/line/of-people");
        let paths = document["paths"].as_object().unwrap();
        let expected = ["join", "status", "events", "enter", "leave"].map(|call| format!("/line/of-people/{call}"));
        assert_eq!(paths.len(), expected.len());
        assert!(expected.iter().all(|path| paths.contains_key(path)), "{paths:?}");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{found:?}");
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let components = document["components"].as_object().unwrap();
        for (kind, named) in components {
            for name in named.as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(found.contains(&reference), "{reference} is used nowhere");
            }
        }
    }
}
