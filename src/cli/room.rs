//! `tidegate room`: what a running gateway knows of the waiting rooms, and the operator's hand on them. What is said
//! to one gateway is heard by the fleet.

mod link;

use std::fmt::Write as _;
use std::num::NonZeroU64;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin::{self, Question, Silence};
use super::{Outcome, run, table};
use crate::base::name::Name;
use crate::base::rate::Rate;
use crate::queue::terms::Mode;
use crate::room::snapshot::{Forecast, MeasuredSnapshot, OpeningSnapshot, RoomSnapshot};

/// What the listener tells of, when it is the right one.
const OF: &str = "rooms";

/// What to do, and where.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    to: admin::Listener,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    #[command(flatten)]
    Ask(Action),
    /// Make a link that goes around a room for some time, for whoever opens it. Needs the secrets, and no gateway.
    Link(link::Options),
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// All rooms, a line each.
    List,
    /// One room: who waits, what it lets through, when the queue will be empty.
    Show(Which),
    /// Everyone new waits and nobody is called; passes go on working.
    Hold(Which),
    /// The capacity decides again: ends `hold`, `drain` and `off`.
    Open(Which),
    /// Nobody new is taken, and those who wait go on being called.
    Drain(Which),
    /// Nobody waits: everyone passes, counted by nobody.
    Off(Which),
    /// Another capacity. Those inside stay; what is not named stays as it is.
    Capacity(Capacity),
    /// Back to what the rule file says.
    Reset(Which),
    /// Ends one visitor's place or pass at every gateway. The access log has the number as `room_number`.
    Revoke(Revoke),
}

#[derive(Debug, Clone, Args)]
struct Which {
    /// The room, by its name in the rule files.
    name: Name,
}

#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("bounds").required(true).multiple(true)))]
struct Capacity {
    /// The room, by its name in the rule files.
    name: Name,
    /// Visitors called or inside at once.
    #[arg(long, group = "bounds")]
    visitors: Option<NonZeroU64>,
    /// Visitors called in a time, as in `50/s`.
    #[arg(long, group = "bounds")]
    admit: Option<Rate>,
}

#[derive(Debug, Clone, Args)]
struct Revoke {
    /// The room, by its name in the rule files.
    name: Name,
    /// The visitor's order number.
    number: NonZeroU64,
}

impl Action {
    fn question(&self) -> Question {
        let mode = |which: &Which, mode: Mode| about(&which.name, Some(json!({ "mode": mode })));
        match self {
            Self::List => Question {
                path: "/rooms".to_owned(),
                order: None,
                of: OF,
            },
            Self::Show(which) => about(&which.name, None),
            Self::Hold(which) => mode(which, Mode::Hold),
            Self::Open(which) => mode(which, Mode::Auto),
            Self::Drain(which) => mode(which, Mode::Drain),
            Self::Off(which) => mode(which, Mode::Off),
            Self::Capacity(capacity) => about(&capacity.name, Some(json!({ "capacity": capacity.order() }))),
            Self::Reset(which) => about(&which.name, Some(json!({ "reset": true }))),
            Self::Revoke(Revoke { name, number }) => about(name, Some(json!({ "revoke": number }))),
        }
    }
}

impl Capacity {
    fn order(&self) -> Map<String, Value> {
        let visitors = self.visitors.map(|visitors| ("visitors".to_owned(), json!(visitors)));
        let admit = self.admit.map(|rate| ("admit".to_owned(), json!(rate.to_string())));
        visitors.into_iter().chain(admit).collect()
    }
}

fn about(room: &Name, order: Option<Value>) -> Question {
    Question {
        path: format!("/rooms/{room}"),
        order,
        of: OF,
    }
}

/// Asks or orders once, and prints the rooms as they then are.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn carry_out(options: &Options) -> Outcome {
    let action = match &options.command {
        Command::Ask(action) => action,
        Command::Link(link) => return link::print(link),
    };
    let admin::Listener { admin, json } = options.to;
    match admin::ask(admin, &action.question()) {
        Ok(body) if json => println!("{body}"),
        Ok(body) => match said(action, &body) {
            Some(text) => print!("{text}"),
            None => return run::failed(&Silence::Strange { admin, of: OF }),
        },
        Err(silence) => return silence.outcome(),
    }
    Outcome::Done
}

/// The answer in words; none when it is no gateway's.
fn said(action: &Action, body: &str) -> Option<String> {
    if let Action::List = action {
        return serde_json::from_str(body).ok().map(|rooms: Vec<_>| list(&rooms));
    }
    let mut text = String::new();
    if let Action::Revoke(Revoke { number, .. }) = action {
        let answer: Value = serde_json::from_str(body).ok()?;
        let was = answer.get("revoked")?.get("was")?.as_str()?;
        // Writing to a string cannot fail.
        let _written = writeln!(text, "number {number}, which was {was}, is revoked");
    }
    let room = serde_json::from_str(body).ok()?;
    text.push_str(&show(&room));
    Some(text)
}

const COLUMNS: [&str; 10] = [
    "ROOM", "MODE", "OPENS IN", "WAITING", "CALLED", "INSIDE", "VISITORS", "ADMIT", "CALLS/S", "EMPTY IN",
];

fn list(rooms: &[RoomSnapshot]) -> String {
    if rooms.is_empty() {
        return "no rooms\n".to_owned();
    }
    let rows: Vec<_> = rooms.iter().map(row).collect();
    table::lines(COLUMNS, &rows, 2).concat()
}

fn row(room: &RoomSnapshot) -> [String; COLUMNS.len()] {
    [
        room.name.clone(),
        room.mode.as_str().to_owned(),
        room.opening
            .as_ref()
            .map_or_else(nothing, |opening| in_words(opening.in_seconds)),
        room.waiting.to_string(),
        room.called.to_string(),
        room.inside.to_string(),
        room.capacity.visitors.map_or_else(nothing, |most| most.to_string()),
        room.capacity.admit.clone().unwrap_or_else(nothing),
        room.forecast
            .calls_per_second
            .map_or_else(nothing, |calls| format!("{calls:.1}")),
        room.forecast.empty_in_seconds.map_or_else(nothing, in_words),
    ]
}

fn nothing() -> String {
    "-".to_owned()
}

fn show(room: &RoomSnapshot) -> String {
    let RoomSnapshot {
        waiting,
        called,
        inside,
        frontier,
        last,
        ..
    } = room;
    let visitors = room.capacity.visitors.map(|most| format!("{most} visitors at once"));
    let admit = room.capacity.admit.as_ref().map(|rate| format!("{rate} called"));
    let measured = room.capacity.measured.as_ref().map(measured);
    let capacity: Vec<_> = visitors.into_iter().chain(admit).chain(measured).collect();
    let lines = [
        ("room", room.name.clone()),
        ("mode", mode(room)),
        (
            "visitors",
            format!("{waiting} waiting, {called} called, {inside} inside"),
        ),
        ("capacity", capacity.join(", ")),
        ("forecast", forecast(&room.forecast, *waiting)),
        ("numbers", format!("given up to {last}, called up to {frontier}")),
        ("store", heard(room)),
    ];
    lines
        .iter()
        .map(|(label, text)| format!("{label:<10}{text}\n"))
        .collect()
}

fn mode(room: &RoomSnapshot) -> String {
    let mode = room.mode.as_str();
    match &room.opening {
        Some(OpeningSnapshot { at, in_seconds }) => format!("{mode}; opens at {at}, in {}", in_words(*in_seconds)),
        None => mode.to_owned(),
    }
}

fn measured(measured: &MeasuredSnapshot) -> String {
    let MeasuredSnapshot {
        min,
        max,
        upstream,
        judged,
    } = measured;
    let judged = judged.as_deref().unwrap_or("not known yet");
    format!("from {min} to {max} as upstream {upstream} bears it: {judged}")
}

fn forecast(forecast: &Forecast, waiting: u64) -> String {
    match (waiting, forecast.empty_in_seconds, forecast.calls_per_second) {
        (0, ..) => "nobody waits".to_owned(),
        (_, Some(secs), Some(calls)) => {
            let span = in_words(secs);
            format!("{waiting} waiting are {span} at {calls:.1} a second, as measured")
        }
        (..) => "nobody is being called".to_owned(),
    }
}

fn heard(room: &RoomSnapshot) -> String {
    let age = room.store.heard_seconds_ago.map(|secs| format!("{secs:.1} s ago"));
    match (room.store.answers, age) {
        (true, Some(age)) => format!("answers; heard {age}"),
        (_, Some(age)) => format!("does not answer; all this was so {age}"),
        (_, None) => "has not been heard yet".to_owned(),
    }
}

/// Nobody waits by the second for ten minutes, nor by the minute for a day.
fn in_words(secs: u64) -> String {
    let minutes = secs.div_ceil(60);
    match secs {
        0..60 => format!("{secs}s"),
        60..600 => format!("{}min {}s", secs / 60, secs % 60),
        600..7_200 => format!("{minutes}min"),
        7_200..86_400 => format!("{}h {}min", minutes / 60, minutes % 60),
        _ => format!("{}h", secs.div_ceil(3_600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::snapshot::{CapacitySnapshot, StoreSnapshot};

    fn room() -> RoomSnapshot {
        RoomSnapshot {
            name: "concert".to_owned(),
            mode: Mode::Auto,
            opening: None,
            waiting: 1_200,
            called: 3,
            inside: 97,
            frontier: 340,
            last: 1_540,
            capacity: CapacitySnapshot {
                visitors: Some(100),
                admit: None,
                measured: None,
            },
            forecast: Forecast {
                calls_per_second: Some(4.82),
                empty_in_seconds: Some(250),
            },
            store: StoreSnapshot {
                answers: true,
                heard_seconds_ago: Some(0.12),
            },
            lobby: None,
        }
    }

    #[test]
    fn a_list_has_a_line_for_each_room() {
        let expected = "\
ROOM     MODE  OPENS IN  WAITING  CALLED  INSIDE  VISITORS  ADMIT  CALLS/S  EMPTY IN
concert  auto         -     1200       3      97       100      -      4.8  4min 10s
";
        assert_eq!(list(&[room()]), expected);
        assert_eq!(list(&[]), "no rooms\n");
    }

    #[test]
    fn a_room_is_told_with_what_comes_of_its_queue() {
        let expected = "\
room      concert
mode      auto
visitors  1200 waiting, 3 called, 97 inside
capacity  100 visitors at once
forecast  1200 waiting are 4min 10s at 4.8 a second, as measured
numbers   given up to 1540, called up to 340
store     answers; heard 0.1 s ago
";
        assert_eq!(show(&room()), expected);
        let mut held = room();
        held.forecast.empty_in_seconds = None;
        held.store.answers = false;
        let text = show(&held);
        assert!(
            text.contains("nobody is being called") && text.contains("does not answer"),
            "{text}"
        );
    }

    #[test]
    fn a_room_that_is_not_open_yet_says_when_it_will_be() {
        let mut early = room();
        early.opening = Some(OpeningSnapshot {
            at: "2026-12-01T11:00:00Z".to_owned(),
            in_seconds: 7_500,
        });
        let text = show(&early);
        assert!(
            text.contains("mode      auto; opens at 2026-12-01T11:00:00Z, in 2h 5min\n"),
            "{text}"
        );
        assert!(list(&[early]).contains("auto   2h 5min  "));
    }

    #[test]
    fn an_order_says_only_what_was_said() {
        let name: Name = "concert".parse().unwrap();
        let capacity = Capacity {
            name: name.clone(),
            visitors: None,
            admit: Some("50/s".parse().unwrap()),
        };
        let question = Action::Capacity(capacity).question();
        assert_eq!(question.path, "/rooms/concert");
        assert_eq!(question.order, Some(json!({ "capacity": { "admit": "50/s" } })));
        assert_eq!(
            Action::Open(Which { name }).question().order,
            Some(json!({ "mode": "auto" }))
        );
    }
}
