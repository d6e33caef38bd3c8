use std::collections::BTreeMap;

use super::*;
use crate::base::name::Name;
use crate::base::one_or_many::OneOrMany;
use crate::base::rate::Rate;
use crate::config::read::read;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Over {
    Reject,
    Delay(String),
    Both(u8, bool),
    Named { room: Name, extra: Option<u16> },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: Name,
    limit: Rate,
    #[serde(default)]
    over: OneOrMany<Over>,
    #[serde(default)]
    deep: BTreeMap<Name, BTreeMap<Name, Vec<i8>>>,
    share: Option<f64>,
    letter: Option<char>,
    #[serde(default)]
    free: BTreeMap<String, serde_json::Value>,
}

fn faults(text: &str) -> Vec<String> {
    let root = read(text).unwrap().root;
    let decoded = decode::<Sample>(&root, &RequiredKeys::new);
    let shown = |found: &Found| {
        let nearest = found
            .suggestion
            .as_ref()
            .map_or(String::new(), |word| format!(" ({word}?)"));
        format!(
            "{} {}: {}{nearest}",
            found.position,
            root.words(&found.path),
            found.message
        )
    };
    let mut faults: Vec<_> = decoded.faults.iter().map(shown).collect();
    faults.sort();
    faults
}

fn value(text: &str) -> Sample {
    let root = read(text).unwrap().root;
    let decoded = decode(&root, &RequiredKeys::new);
    assert!(decoded.faults.is_empty(), "{:?}", decoded.faults);
    decoded.value.unwrap()
}

#[test]
fn every_shape_of_serde_is_decoded() {
    let sample = value(
        "name: a\nlimit: 5/s\nover: [reject, delay: 2s, { both: [7, true] }, { named: { room: r, extra: 9 } }]\n\
         deep: { x: { 80: [-1, 1] } }\nshare: 1\nletter: q\nfree: { a: [1, x, { b: -2.5 }] }\n",
    );
    let named = Over::Named {
        room: "r".parse().unwrap(),
        extra: Some(9),
    };
    assert_eq!(
        sample.over.0,
        [Over::Reject, Over::Delay("2s".into()), Over::Both(7, true), named]
    );
    assert_eq!(sample.deep["x"]["80"], [-1, 1]);
    assert_eq!((sample.share, sample.letter), (Some(1.0), Some('q')));
    assert_eq!(sample.free["a"], serde_json::json!([1, "x", { "b": -2.5 }]));
    assert_eq!(value("{ name: a, limit: 1/s, over: reject }").over.0, [Over::Reject]);
}

#[test]
fn faults_at_all_depths_are_found_in_one_go() {
    let text = "name: 7\nlimit: fast\nover: [rejct, delay, { delay: 3 }, { both: [300, 1] }, { named: { rom: r } }, { x: 1, y: 2 }]\n\
                deep: { a b: {}, x: { y: [], 80: [200, x], 81: 3 } }\nshare: half\nletter: qq\nnmae: x\n";
    let expected = [
        "1:7 name: expected text, found `7`: put it in quotes",
        "2:8 limit: `fast` is not a rate: write a count, `/`, and a window, as in `100/s`, `100/min`, `5/day` or `20/5s`",
        "3:15 over[1]: `delay` needs a value: write `delay: ...`",
        "3:31 over[2] > delay: expected text, found `3`: put it in quotes",
        "3:45 over[3] > both[0]: expected a whole number from 0 to 255, found `300`",
        "3:65 over[4] > named: missing key `room`",
        "3:67 over[4] > named: unknown key `rom` (room?)",
        "3:79 over[5]: expected a map of one key, one of `reject`, `delay`, `both`, `named`; found 2 keys (is what belongs to the first indented further?)",
        "3:8 over[0]: unknown word `rejct` (reject?)",
    ];
    let found = faults(text);
    for expected in expected {
        assert!(
            found.iter().any(|fault| fault == expected),
            "{expected}\n{}",
            found.join("\n")
        );
    }
    for part in [
        "4:9 deep > a b: ",
        "deep > x > 81: expected a list",
        "deep > x > 80[0]: expected a whole number from -128 to 127, found `200`",
        "deep > x > 80[1]: ",
        "deep > x > 81: expected a list",
        "5:8 share: expected a number",
        "6:9 letter: ",
        "7:1 : unknown key `nmae` (name?)",
    ] {
        assert!(
            found.iter().any(|fault| fault.contains(part)),
            "{part}\n{}",
            found.join("\n")
        );
    }
    assert_eq!(found.len(), 16, "{}", found.join("\n"));
}

#[test]
fn what_follows_from_a_fault_is_not_a_fault() {
    assert_eq!(faults("name: 7\nlimit: 1/s\n").len(), 1);
    assert_eq!(faults("name: a\nlimit: 1/s\nover: { delay: 3 }\n").len(), 1);
    assert_eq!(
        faults("[]"),
        [
            "1:1 : expected a map with keys out of `name`, `limit`, `over`, `deep`, `share`, `letter`, `free`, found a list"
        ]
    );
}

#[test]
fn what_is_left_is_decoded_and_what_was_struck_is_known() {
    let root = read("name: a\nlimit: 1/s\nover: [reject, rejct, { delay: x }]\n")
        .unwrap()
        .root;
    let decoded = decode::<Sample>(&root, &RequiredKeys::new);
    assert_eq!(decoded.value.unwrap().over.0, [Over::Reject, Over::Delay("x".into())]);
    let over = root.get("over").unwrap();
    assert!(!decoded.struck.spare_all_of(over) && !decoded.struck.contain(over));
}
