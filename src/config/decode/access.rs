//! Serde's way into the tree, with a trail behind it.

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use super::collection::{Alone, Elements, Entries, Shorthand};
use super::halt::Halt;
use super::variant::{Variant, Word};
use super::{Found, Run, SHORTHAND};
use crate::base::misfit::{Step, UNQUOTED};
use crate::base::one_or_many::ONE_OR_MANY;
use crate::config::fault::Position;
use crate::config::spelling;
use crate::config::tree::{Kind, Node, excerpt};

/// The way from the root to a value; kept on the stack, and written down only when there is a fault.
#[derive(Clone, Copy)]
pub(super) enum Trail<'t> {
    Root,
    Key(&'t Trail<'t>, &'t str),
    Index(&'t Trail<'t>, usize),
}

impl Trail<'_> {
    pub(super) fn steps(&self) -> Vec<Step> {
        let (mut steps, mut here) = (Vec::new(), self);
        loop {
            match here {
                Trail::Root => break,
                Trail::Key(above, key) => {
                    steps.push(Step::from(*key));
                    here = above;
                }
                Trail::Index(above, index) => {
                    steps.push(Step::from(*index));
                    here = above;
                }
            }
        }
        steps.reverse();
        steps
    }
}

/// How a value may be written besides the full way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    No,
    /// Anything but a list stands for a list of itself.
    One,
    /// Text stands for a map of this one key.
    Key(&'static str),
}

/// One value about to be decoded.
#[derive(Clone, Copy)]
pub(super) struct Access<'de, 't> {
    pub(super) node: &'de Node,
    pub(super) trail: Trail<'t>,
    pub(super) run: &'t Run<'t>,
    pub(super) short: Short,
}

pub(super) type Result<T> = std::result::Result<T, Halt>;

impl<'de, 't> Access<'de, 't> {
    pub(super) fn root(node: &'de Node, run: &'t Run<'t>) -> Self {
        Self {
            node,
            trail: Trail::Root,
            run,
            short: Short::No,
        }
    }

    fn short(self, short: Short) -> Self {
        Self { short, ..self }
    }

    /// Decodes a value below this one.
    pub(super) fn below<S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        node: &'de Node,
        trail: Trail<'_>,
    ) -> Result<S::Value> {
        if !self.run.visit() {
            return Err(Halt::Recorded);
        }
        let access = Access {
            node,
            trail,
            run: self.run,
            short: Short::No,
        };
        access.decode(seed)
    }

    /// Decodes this value. Some types complain only after their text has been visited; that is still about this
    /// value, not about what holds it.
    pub(super) fn decode<S: DeserializeSeed<'de>>(&self, seed: S) -> Result<S::Value> {
        if self.run.is_struck(self.node) {
            return Err(Halt::Recorded);
        }
        let result = seed.deserialize(*self);
        self.settle(result)
    }

    /// Decodes the root.
    pub(super) fn decode_root<T: serde::Deserialize<'de>>(&self) -> Option<T> {
        self.decode(std::marker::PhantomData).ok()
    }

    /// Turns an error that this value's visitor gave into a fault of this value.
    pub(super) fn settle<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Halt::Recorded) => Err(Halt::Recorded),
            Err(halt) => Err(self.fail(self.node.position, halt)),
            Ok(value) => Ok(value),
        }
    }

    fn fail(&self, position: Position, halt: Halt) -> Halt {
        let (message, suggestion) = match halt {
            Halt::Say(message, suggestion) => (self.naming_the_value(message), suggestion),
            Halt::Expected(what) => (
                format!("expected {}, found {}", plain(&what), self.node.describe()),
                None,
            ),
            Halt::Missing(key) => (format!("missing key `{key}`"), None),
            Halt::Recorded => return halt,
        };
        self.report(position, message, suggestion);
        self.run.strike(self.node);
        Halt::Recorded
    }

    pub(super) fn report(&self, position: Position, message: String, suggestion: Option<String>) {
        self.run.record(Found {
            path: self.trail.steps(),
            position,
            message,
            suggestion,
        });
    }

    /// Parsers of other crates say what is wrong with a text without repeating it.
    fn naming_the_value(&self, message: String) -> String {
        if let Some(message) = message.strip_prefix(UNQUOTED) {
            return message.to_owned();
        }
        match self.node.scalar() {
            Some(text) if !message.contains(&text) => format!("`{text}`: {message}"),
            _ => message,
        }
    }

    fn integer<V: Visitor<'de>>(self, least: i64, most: u64, visitor: V) -> Result<V::Value> {
        let wrong = || Halt::Expected(format!("a whole number from {least} to {most}"));
        let result = match self.node.kind {
            Kind::Unsigned(number) if number <= most => visitor.visit_u64(number),
            Kind::Signed(number) if number >= least => visitor.visit_i64(number),
            _ => Err(wrong()),
        };
        self.settle(result)
    }

    /// What is left to say of a struct whose visitor stopped.
    fn missing(&self, key: &str, fields: &[&str]) -> Halt {
        let mut absent = self.run.required_of(fields);
        absent.retain(|field| self.node.get(field).is_none());
        if absent.is_empty() && self.node.get(key).is_none() {
            absent.push(key.to_owned());
        }
        for key in absent {
            self.report(self.node.position, format!("missing key `{key}`"), None);
        }
        self.run.strike(self.node);
        Halt::Recorded
    }
}

/// Serde's words for a type, in an operator's.
fn plain(expected: &str) -> &str {
    match expected {
        "a string" | "a character" | "a borrowed string" => "text",
        "a sequence" => "a list",
        "a boolean" => "`true` or `false`",
        _ if expected.starts_with("a nonzero") => "a whole number from 1",
        other => other,
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            #[expect(clippy::allow_attributes, reason = "one macro for types of all widths")]
            #[allow(clippy::unnecessary_cast, trivial_numeric_casts)]
            self.integer(<$type>::MIN as i64, <$type>::MAX as u64, visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Access<'de, '_> {
    type Error = Halt;

    integers! {
        deserialize_i8: i8,
        deserialize_i16: i16,
        deserialize_i32: i32,
        deserialize_i64: i64,
        deserialize_u8: u8,
        deserialize_u16: u16,
        deserialize_u32: u32,
        deserialize_u64: u64,
    }

    serde::forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let result = match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Unsigned(number) => visitor.visit_u64(*number),
            Kind::Signed(number) => visitor.visit_i64(*number),
            Kind::Float(number) => visitor.visit_f64(*number),
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::List(elements) => visitor.visit_seq(Elements::of(&self, elements)),
            Kind::Map(entries) => visitor.visit_map(Entries::of(&self, entries, None)),
        };
        self.settle(result)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let result = match self.node.kind {
            Kind::Unsigned(number) => visitor.visit_f64(number as f64),
            Kind::Signed(number) => visitor.visit_f64(number as f64),
            Kind::Float(number) => visitor.visit_f64(number),
            _ => Err(Halt::Expected("a number".to_owned())),
        };
        self.settle(result)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let result = match &self.node.kind {
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::Bool(_) | Kind::Unsigned(_) | Kind::Signed(_) | Kind::Float(_) => {
                let found = self.node.describe();
                Err(Halt::say(format!("expected text, found {found}: put it in quotes")))
            }
            Kind::Null | Kind::List(_) | Kind::Map(_) => Err(Halt::Expected("text".to_owned())),
        };
        self.settle(result)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    /// An optional key is optional; its value, once the key is written, is not. A `tls:` with nothing below it
    /// must not pass for a listener without TLS.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let result = visitor.visit_some(self);
        self.settle(result)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        let short = match name.strip_prefix(SHORTHAND) {
            Some(key) => Short::Key(key),
            None if name == ONE_OR_MANY => Short::One,
            None => self.short,
        };
        let result = visitor.visit_newtype_struct(self.short(short));
        self.settle(result)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let result = match &self.node.kind {
            Kind::List(elements) => visitor.visit_seq(Elements::of(&self, elements)),
            Kind::Null => Err(Halt::Expected("a list".to_owned())),
            _ if self.short == Short::One => visitor.visit_seq(Alone(Some(self.short(Short::No)))),
            _ => Err(Halt::Expected("a list".to_owned())),
        };
        self.settle(result)
    }

    /// A list of fixed length cannot do without a struck element: it is struck out with it.
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value> {
        if let Kind::List(elements) = &self.node.kind
            && elements.iter().any(|element| self.run.is_struck(element))
        {
            self.run.strike(self.node);
            return Err(Halt::Recorded);
        }
        let result = match &self.node.kind {
            Kind::List(elements) if elements.len() == length => visitor.visit_seq(Elements::all_of(&self, elements)),
            _ => Err(Halt::Expected(format!("a list of {length}"))),
        };
        self.settle(result)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, length: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let result = match &self.node.kind {
            Kind::Map(entries) => visitor.visit_map(Entries::of(&self, entries, None)),
            _ => Err(Halt::Expected("a map".to_owned())),
        };
        self.settle(result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let before = self.run.marks();
        let result = match (&self.node.kind, self.short) {
            (Kind::Map(entries), _) => visitor.visit_map(Entries::of(&self, entries, Some(fields))),
            (Kind::Text(_), Short::Key(key)) => visitor.visit_map(Shorthand {
                key: Some(key),
                value: self.short(Short::No),
            }),
            _ if fields.is_empty() => Err(Halt::Expected("`{}`".to_owned())),
            _ => {
                let keys = spelling::quoted(fields.iter().copied());
                Err(Halt::Expected(format!("a map with keys out of {keys}")))
            }
        };
        match result {
            // Lists end early at a fault, so this struct has not been seen whole yet. It is struck out when it has.
            Err(Halt::Missing(_)) if self.run.marks() != before => Err(Halt::Recorded),
            Err(Halt::Missing(key)) => Err(self.missing(key, fields)),
            result => self.settle(result),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let one_of = || format!("one of {}", spelling::quoted(variants.iter().copied()));
        let result = match &self.node.kind {
            Kind::Text(text) if variants.contains(&text.as_str()) => visitor.visit_enum(Word(text)),
            Kind::Text(text) => Err(Halt::unknown("word", &excerpt(text), variants)),
            Kind::Map(entries) => match entries.as_slice() {
                [entry] if !variants.contains(&entry.key.as_str()) => {
                    let unknown = Halt::unknown("key", &excerpt(&entry.key), variants);
                    Err(self.fail(entry.position, unknown))
                }
                [entry] if self.run.is_struck(&entry.value) => {
                    self.run.strike(self.node);
                    Err(Halt::Recorded)
                }
                [entry] => visitor.visit_enum(Variant { access: self, entry }),
                entries => Err(Halt::say(format!(
                    "expected a map of one key, {}; found {} keys (is what belongs to the first indented further?)",
                    one_of(),
                    entries.len()
                ))),
            },
            _ => Err(Halt::Expected(one_of())),
        };
        self.settle(result)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }
}
