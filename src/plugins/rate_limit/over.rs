//! What a limited request gets: a ladder of rungs, tried in the order written, that always ends in an answer.
//!
//! `delay` holds the request until budget comes, `room` hands it to a waiting room, `reject` answers 429. Whatever no
//! rung took is rejected, so `reject` need not be written.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Visitor};

use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::unit::Span;
use crate::room::Room;
use crate::room::registry::find;
use crate::throttle::Patience;

/// How long a request may be held; longer, and its client has gone or gives up.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// How many requests of a limit one gateway may hold. Each keeps its connection and its head.
const QUEUE: RangeInclusive<usize> = 1..=10_000;

/// How many it may hold where nothing is said.
const QUEUE_DEFAULT: usize = 1_000;

/// One rung: what a request over the limit gets.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Over {
    /// The answer 429, and when to come back. Only as the last.
    Reject,
    /// It is held until there is budget again, first come, first served for each key: `{ delay: 2s }`.
    Delay(Delay),
    /// It is handed to this room: a visitor with a pass goes on and spends nothing here, everyone else gets what the
    /// room gives. The room admits by its own capacity.
    Room(Name),
}

/// How a limited request is held: `2s`, or `{ for: 2s, queue: 1000 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay {
    within: Span,
    queue: usize,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DelayInFull {
    /// Longest, from the moment at which the request came: up to 5min. A request that would surely wait longer is not
    /// held at all.
    #[serde(rename = "for")]
    within: Span,
    /// Most requests of this limit that one gateway holds at once, 1 to 10000. Default: 1000.
    #[serde(default = "queue")]
    #[schemars(range(min = 1, max = 10_000))]
    queue: usize,
}

const fn queue() -> usize {
    QUEUE_DEFAULT
}

impl<'de> Deserialize<'de> for Delay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;

        impl<'de> Visitor<'de> for TextOrMap {
            type Value = Delay;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration, or a map of `for` and `queue`")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Delay, D::Error> {
                let DelayInFull { within, queue } = DelayInFull::deserialize(inner)?;
                Ok(Delay { within, queue })
            }
        }

        deserializer.deserialize_newtype_struct("$tidegate::Shorthand:for", TextOrMap)
    }
}

impl JsonSchema for Delay {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Delay".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (span, in_full) = (
            generator.subschema_for::<Span>(),
            generator.subschema_for::<DelayInFull>(),
        );
        schemars::json_schema!({ "description": "How a limited request is held.", "anyOf": [span, in_full] })
    }
}

/// The rungs of one limit. What they leave over is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ladder<R> {
    /// First it is held.
    pub(super) delay: Option<Patience>,
    /// Then it is handed to a room.
    pub(super) room: Option<R>,
}

impl Ladder<Name> {
    /// With the wait that the algorithm itself brings. There can be no other.
    pub(super) fn leaking(self, leak: Option<Patience>) -> Result<Self, Vec<Misfit>> {
        if leak.is_some() && self.delay.is_some() {
            let message = "a leaky bucket holds requests by itself, as many as `burst`; leave `delay` out";
            return Err(vec![Misfit::new(message).under("over")]);
        }
        let delay = leak.or(self.delay);
        Ok(Self { delay, ..self })
    }

    /// The rungs as written, if they make sense in this order.
    pub(super) fn draft(written: &[Over]) -> Result<Self, Vec<Misfit>> {
        let mut misfits = Vec::new();
        if written.is_empty() {
            misfits.push(Misfit::new("the list is empty; write `reject`, or leave `over` out"));
        }
        let mut ladder = Self {
            delay: None,
            room: None,
        };
        for (index, rung) in written.iter().enumerate() {
            let earlier = &written[..index];
            misfits.extend(misplaced(rung, earlier).map(|misfit| misfit.under(index)));
            match rung {
                Over::Reject => {}
                Over::Room(name) => ladder.room = Some(name.clone()),
                Over::Delay(delay) => {
                    misfits.extend(delay.faults().map(|misfit| misfit.under("delay").under(index)));
                    ladder.delay = Some(Patience {
                        within: delay.within.0,
                        queue: delay.queue,
                    });
                }
            }
        }
        if misfits.is_empty() {
            Ok(ladder)
        } else {
            Err(misfits.into_iter().map(|misfit| misfit.under("over")).collect())
        }
    }

    /// The same with the room itself; `at` is where it stands in the list.
    pub(super) fn build(self, rooms: &HashMap<Name, Arc<Room>>) -> Result<Ladder<Arc<Room>>, Misfit> {
        let Self { delay, room } = self;
        let at = usize::from(delay.is_some());
        let room = room.map(|name| find(rooms, &name)).transpose();
        let room = room.map_err(|misfit| misfit.under("room").under(at).under("over"))?;
        Ok(Ladder { delay, room })
    }
}

/// Why a rung cannot stand behind those before it.
fn misplaced(rung: &Over, earlier: &[Over]) -> Option<Misfit> {
    let again = earlier
        .iter()
        .any(|other| std::mem::discriminant(other) == std::mem::discriminant(rung));
    let message = if again {
        let name = rung.name();
        format!("there is a `{name}` before it already; leave one of them out")
    } else if earlier.contains(&Over::Reject) {
        "nothing comes after `reject`: put it last, or leave it out, since a ladder ends in it anyway".to_owned()
    } else if earlier.iter().any(|other| matches!(other, Over::Room(_))) {
        match rung {
            Over::Delay(_) => {
                "a room takes every request, so nothing is left to hold: put `delay` before it".to_owned()
            }
            _ => "a room takes every request, so nothing is left to reject: leave `reject` out".to_owned(),
        }
    } else {
        return None;
    };
    Some(Misfit::new(message))
}

impl Over {
    const fn name(&self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Delay(_) => "delay",
            Self::Room(_) => "room",
        }
    }
}

impl Delay {
    fn faults(&self) -> impl Iterator<Item = Misfit> {
        let Span(within) = self.within;
        let never = within.is_zero().then(|| {
            Misfit::new(
                "a delay of nothing holds nobody; write how long a request may be held, as in `2s`, or `reject`",
            )
        });
        let long = (within > DELAY_MAX).then(|| {
            let message = format!("`{}` is longer than a client waits; write at most `5min`", self.within);
            Misfit::new(message)
        });
        let crowd = (!QUEUE.contains(&self.queue)).then(|| {
            let (least, most) = QUEUE.into_inner();
            Misfit::new(format!("`{}` must be between {least} and {most}", self.queue)).under("queue")
        });
        never.into_iter().chain(long).chain(crowd)
    }
}

#[cfg(test)]
mod tests;
