//! From text to a tree. The one place that names the YAML library.
//!
//! The library says where a value stands only in its errors. So every value is touched twice: first by a probe that
//! fails on purpose without consuming anything, whose error carries the position, and then by the reader proper.
//! Two peculiarities follow. A probe of an alias does consume it, and its error carries the position of what the
//! alias stands for, which is further up: so it is known for what it is, and the value is shared, not read again.
//! And the entries of a map are read as a flat list of keys and values, because the library lets a key be probed
//! safely at the end of a map, and a value not.
//!
//! Refused here, one fault a file: what is not YAML, what is too large or too deep, several documents, tags, keys
//! that are not plain. Not judged here: what the keys mean.

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer as _, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};

use self::syntax::{character, check_brackets, check_syntax, clean, place};
use super::fault::Position;
use super::tree::{Entry, Kind, Node, excerpt};

mod syntax;

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Most values a file may stand for, each alias counted in full: room for a list of 90,000 networks, and the end of
/// a file in which ten aliases stand for ten aliases each.
const VALUES_MAX: usize = 100_000;

/// Deepest nesting of lists and maps. The formats here need fewer than ten levels.
pub const DEPTH_MAX: usize = 32;

/// What was read, and keys that stood twice in one map (the first is kept).
#[derive(Debug)]
pub struct Reading {
    /// The whole file.
    pub root: Arc<Node>,
    /// The others.
    pub repeated: Vec<Repeated>,
}

/// A key that stands in a map for the second time, or more.
#[derive(Debug)]
pub struct Repeated {
    /// The key, shortened.
    pub key: String,
    /// Where it stands now.
    pub position: Position,
    /// Where it stands first.
    pub first: Position,
}

/// Reads the text of one file.
pub fn read(text: &str) -> Result<Reading, (Position, String)> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes: at most {FILE_BYTES_MAX} are read", text.len());
        return Err((Position::START, message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_brackets(text)?;
    check_syntax(text)?;
    let mut reader = Reader::new(text);
    // An error at the very first character shows no position, so the library is given an empty line before it.
    let below = format!("\n{text}");
    let kind = serde_yaml::Deserializer::from_str(&below).deserialize_any(ReadValue { reader: &mut reader });
    let kind = kind.map_err(|error| {
        let message = reader.trouble.take().unwrap_or_else(|| clean(&error));
        (line_up(place(&error)), message)
    })?;
    if matches!(kind, Kind::Null) {
        return Err((Position::START, "the file is empty".to_owned()));
    }
    let root = node(reader.first.unwrap_or(Position::START), kind);
    if root.weight > VALUES_MAX {
        return Err((Position::START, TOO_MANY.to_owned()));
    }
    Ok(Reading {
        root: Arc::new(root),
        repeated: reader.repeated,
    })
}

/// Takes back the empty line that was put before the text.
fn line_up(position: Position) -> Position {
    Position {
        line: position.line.saturating_sub(1).max(1),
        ..position
    }
}

fn node(position: Position, kind: Kind) -> Node {
    let weight = match &kind {
        Kind::List(elements) => elements
            .iter()
            .fold(1, |sum, element| element.weight.saturating_add(sum)),
        Kind::Map(entries) => entries
            .iter()
            .fold(1, |sum, entry| entry.value.weight.saturating_add(sum)),
        _ => 1,
    };
    Node { position, kind, weight }
}

struct Reader<'t> {
    text: &'t str,
    /// Every finished value by its position, for the aliases that may stand for it. Of two at one place (a map and
    /// its first key) the first to be finished is kept: the inner one, which is the only one that can have an anchor.
    finished: HashMap<Position, Arc<Node>>,
    first: Option<Position>,
    last: Position,
    depth: usize,
    /// Values given out so far, entries copied by `<<` among them: whatever goes wrong, reading ends.
    values: usize,
    repeated: Vec<Repeated>,
    trouble: Option<String>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            finished: HashMap::new(),
            first: None,
            last: Position::START,
            depth: 0,
            values: 0,
            repeated: Vec::new(),
            trouble: None,
        }
    }

    /// Gives up on the file. The error takes the position of the value being read on its way up.
    fn refuse<E: de::Error>(&mut self, message: String) -> E {
        self.trouble = Some(message);
        E::custom("")
    }

    /// The next value of a list, or the next key or value of a map.
    fn next<'de, S: Source<'de>>(&mut self, source: &mut S, opens_map: bool) -> Result<Option<Arc<Node>>, S::Error> {
        let Some(probed) = probe(source)? else {
            return Ok(None);
        };
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(self.refuse(TOO_MANY.to_owned()));
        }
        // Only a tagged value has no position, and reading it refuses it.
        let position = probed.unwrap_or(self.last);
        if probed.is_some()
            && let Some(shared) = self.alias(position, opens_map)?
        {
            return Ok(Some(shared));
        }
        self.first.get_or_insert(position);
        self.last = position;
        let Some(kind) = source.take(ReadValue { reader: self })? else {
            return Ok(None);
        };
        let read = Arc::new(node(position, kind));
        if read.weight > VALUES_MAX {
            return Err(self.refuse(TOO_MANY.to_owned()));
        }
        self.finished.entry(position).or_insert_with(|| Arc::clone(&read));
        Ok(Some(read))
    }

    /// What an alias stands for, if the probe met one. Positions only grow, so one that does not is an alias's;
    /// the exceptions are a map, which begins where its first key does, and values of no length.
    fn alias<E: de::Error>(&mut self, position: Position, opens_map: bool) -> Result<Option<Arc<Node>>, E> {
        if position > self.last || self.first.is_none() {
            return Ok(None);
        }
        let found = self.finished.get(&position).cloned();
        if position == self.last {
            let anchored = matches!(character(self.text, position), Some('&' | '!'));
            return match found {
                Some(found) if anchored => Ok(Some(found)),
                None if anchored && !opens_map => Err(self.refuse(ENDLESS.to_owned())),
                _ => Ok(None),
            };
        }
        found.map(Some).ok_or_else(|| self.refuse(ENDLESS.to_owned()))
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, source: A) -> Result<Kind, A::Error> {
        let mut source = List(source);
        let mut elements = Vec::new();
        while let Some(element) = self.next(&mut source, false)? {
            elements.push(element);
        }
        Ok(Kind::List(elements))
    }

    fn map<'de, A: MapAccess<'de>>(&mut self, source: A) -> Result<Kind, A::Error> {
        let mut source = Map(source);
        let mut entries = Entries::default();
        let mut merged = Vec::new();
        while let Some(key) = self.next(&mut source, entries.list.is_empty())? {
            let Some(value) = self.next(&mut source, false)? else {
                return Err(self.refuse("a key without a value".to_owned()));
            };
            let Some(name) = key_text(&key) else {
                return Err(self.refuse(format!("a key must be text, not {}", key.describe())));
            };
            if name == "<<" {
                merged.push(value);
                continue;
            }
            let position = key.position;
            if let Err(earlier) = entries.add(Entry {
                key: name,
                position,
                value,
            }) {
                self.repeated.push(earlier);
            }
        }
        self.merge(&mut entries, &merged)?;
        Ok(Kind::Map(entries.list))
    }

    /// `<<: *defaults`: the entries of other maps, where this one has none of the same key.
    fn merge<E: de::Error>(&mut self, entries: &mut Entries, merged: &[Arc<Node>]) -> Result<(), E> {
        for value in merged {
            let maps = match &value.kind {
                Kind::List(maps) => maps.as_slice(),
                _ => std::slice::from_ref(value),
            };
            for map in maps {
                let Kind::Map(from) = &map.kind else {
                    return Err(self.refuse(format!("`<<` takes in maps, not {}", map.describe())));
                };
                self.values += from.len();
                if self.values > VALUES_MAX {
                    return Err(self.refuse(TOO_MANY.to_owned()));
                }
                for entry in from {
                    entries.add_if_new(entry);
                }
            }
        }
        Ok(())
    }
}

const TOO_MANY: &str = "the file stands for more than 100000 values, aliases counted in full";
const ENDLESS: &str = "an alias within what it stands for never ends";

/// The entries of a map being read, and where each key stands.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    places: HashMap<String, Position>,
}

impl Entries {
    fn add(&mut self, entry: Entry) -> Result<(), Repeated> {
        if let Some(&first) = self.places.get(&entry.key) {
            let (key, position) = (excerpt(&entry.key), entry.position);
            return Err(Repeated { key, position, first });
        }
        self.places.insert(entry.key.clone(), entry.position);
        self.list.push(entry);
        Ok(())
    }

    fn add_if_new(&mut self, entry: &Entry) {
        if !self.places.contains_key(&entry.key) {
            self.places.insert(entry.key.clone(), entry.position);
            self.list.push(entry.clone());
        }
    }
}

fn key_text(key: &Node) -> Option<String> {
    match &key.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Bool(_) | Kind::Unsigned(_) | Kind::Signed(_) | Kind::Float(_) => key.scalar(),
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    }
}

/// A list, or a map taken as a flat list of keys and values.
trait Source<'de> {
    type Error: de::Error;

    fn take<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error>;
}

struct List<A>(A);

impl<'de, A: SeqAccess<'de>> Source<'de> for List<A> {
    type Error = A::Error;

    fn take<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(seed)
    }
}

struct Map<A>(A);

impl<'de, A: MapAccess<'de>> Source<'de> for Map<A> {
    type Error = A::Error;

    fn take<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }
}

/// The position of the next value of `source`; nothing at its end, and no position for a value with a tag.
fn probe<'de, S: Source<'de>>(source: &mut S) -> Result<Option<Option<Position>>, S::Error> {
    let reached = Cell::new(false);
    match source.take(Probe(&reached)) {
        Ok(None) => Ok(None),
        Ok(Some(never)) => match never {},
        Err(error) if !reached.get() => Err(error),
        Err(error) => Ok(Some(shown_position(&error.to_string()).map(line_up))),
    }
}

/// The position at the end of an error's text: the library's own error type is out of sight within a seed.
fn shown_position(text: &str) -> Option<Position> {
    let (_, shown) = text.rsplit_once(" at line ")?;
    let (line, column) = shown.split_once(" column ")?;
    Some(Position {
        line: line.parse().ok()?,
        column: column.parse().ok()?,
    })
}

struct Probe<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = Infallible;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Infallible, D::Error> {
        self.0.set(true);
        deserializer.deserialize_enum("", &[], Refuse)
    }
}

/// Takes nothing, so that the library says where it was asked.
struct Refuse;

impl<'de> Visitor<'de> for Refuse {
    type Value = Infallible;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Infallible, A::Error> {
        Err(A::Error::custom(""))
    }
}

struct ReadValue<'r, 't> {
    reader: &'r mut Reader<'t>,
}

impl<'de> DeserializeSeed<'de> for ReadValue<'_, '_> {
    type Value = Kind;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ReadValue<'_, '_> {
    fn nested<E: de::Error>(self, read: impl FnOnce(&mut Reader<'_>) -> Result<Kind, E>) -> Result<Kind, E> {
        if self.reader.depth == DEPTH_MAX {
            return Err(self.reader.refuse(format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.reader.depth += 1;
        let kind = read(self.reader);
        self.reader.depth -= 1;
        kind
    }
}

impl<'de> Visitor<'de> for ReadValue<'_, '_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind::Unsigned(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Kind, E> {
        Ok(u64::try_from(number).map_or(Kind::Signed(number), Kind::Unsigned))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Kind, E> {
        Ok(Kind::Float(number as f64))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Kind, E> {
        Ok(Kind::Float(number as f64))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Kind, E> {
        Ok(Kind::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, source: A) -> Result<Kind, A::Error> {
        self.nested(|reader| reader.list(source))
    }

    fn visit_map<A: MapAccess<'de>>(self, source: A) -> Result<Kind, A::Error> {
        self.nested(|reader| reader.map(source))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, source: A) -> Result<Kind, A::Error> {
        let (tag, _) = source.variant::<String>()?;
        Err(self
            .reader
            .refuse(format!("tags have no meaning here: remove `!{}`", excerpt(&tag))))
    }
}

#[cfg(test)]
mod tests;
