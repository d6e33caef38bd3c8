use serde_json::{Value, json};

use super::*;

fn draft(written: Value) -> Result<Ladder<Name>, Vec<Misfit>> {
    let rungs: Vec<Over> = serde_json::from_value(written).unwrap();
    Ladder::draft(&rungs)
}

/// The one fault of a ladder: where, and what.
fn fault(written: Value) -> (String, String) {
    Misfit::sole(draft(written).unwrap_err())
}

fn delay(span: &str) -> Value {
    json!({ "delay": { "for": span } })
}

#[test]
fn every_ladder_that_ends_is_taken() {
    let room = json!({ "room": "hall" });
    let held = Some(Patience {
        within: Duration::from_secs(2),
        queue: QUEUE_DEFAULT,
    });
    let hall: Option<Name> = Some("hall".parse().unwrap());
    for (written, expected_delay, expected_room) in [
        (json!(["reject"]), None, None),
        (json!([delay("2s")]), held, None),
        (json!([delay("2s"), "reject"]), held, None),
        (json!([room]), None, hall.clone()),
        (json!([delay("2s"), room]), held, hall.clone()),
    ] {
        let Ladder { delay, room } = draft(written.clone()).unwrap();
        assert_eq!((delay, room), (expected_delay, expected_room), "{written}");
    }
}

#[test]
fn the_long_form_says_among_how_many() {
    let ladder = draft(json!([{ "delay": { "for": "300ms", "queue": 7 } }])).unwrap();
    let expected = Patience {
        within: Duration::from_millis(300),
        queue: 7,
    };
    assert_eq!(ladder.delay, Some(expected));
}

#[test]
fn each_way_to_be_wrong_has_its_place_and_says_what_instead() {
    let room = json!({ "room": "hall" });
    for (written, place, part) in [
        (json!([]), "over", "write `reject`"),
        (json!(["reject", delay("2s")]), "over.1", "put it last"),
        (json!(["reject", "reject"]), "over.1", "leave one of them out"),
        (json!([delay("1s"), delay("2s")]), "over.1", "leave one of them out"),
        (json!([room, delay("2s")]), "over.1", "put `delay` before it"),
        (json!([room, "reject"]), "over.1", "leave `reject` out"),
        (json!([delay("0s")]), "over.0.delay", "write how long"),
        (json!([delay("301s")]), "over.0.delay", "at most `5min`"),
        (
            json!([{ "delay": { "for": "1s", "queue": 0 } }]),
            "over.0.delay.queue",
            "between 1 and 10000",
        ),
        (
            json!([{ "delay": { "for": "1s", "queue": 10_001 } }]),
            "over.0.delay.queue",
            "between 1 and 10000",
        ),
    ] {
        let (at, message) = fault(written.clone());
        assert_eq!(at, place, "{written}: {message}");
        assert!(message.contains(part), "{written}: {message}");
    }
    assert!(draft(json!([delay("5min")])).is_ok());
}

#[test]
fn every_fault_of_a_ladder_is_told_at_once() {
    let misfits = draft(json!(["reject", delay("0s"), { "room": "hall" }])).unwrap_err();
    assert_eq!(misfits.len(), 3, "{misfits:?}");
}

#[test]
fn a_room_must_be_one_of_the_plan() {
    let ladder = draft(json!([delay("2s"), { "room": "hall" }])).unwrap();
    let misfit = ladder.build(&HashMap::new()).unwrap_err();
    let path: Vec<crate::base::misfit::Step> = vec!["over".into(), 1.into(), "room".into()];
    assert_eq!(misfit.path, path);
    assert!(misfit.message.contains("there is no room `hall`"), "{}", misfit.message);
}
