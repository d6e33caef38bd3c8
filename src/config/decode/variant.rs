//! The ways to write one of several things: a word, or a map of one key.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, VariantAccess, Visitor};

use super::access::{Access, Result, Short, Trail};
use super::halt::Halt;
use crate::config::tree::Entry;

/// A variant without a value.
pub(super) struct Word<'de>(pub(super) &'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Halt;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        Ok((seed.deserialize(BorrowedStrDeserializer::<Halt>::new(self.0))?, self))
    }
}

impl Word<'_> {
    fn bare<T>(&self) -> Result<T> {
        Err(Halt::say(format!("`{0}` needs a value: write `{0}: ...`", self.0)))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = Halt;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value> {
        self.bare()
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value> {
        self.bare()
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value> {
        self.bare()
    }
}

/// A variant with a value: a map of one key.
pub(super) struct Variant<'de, 't> {
    pub(super) access: Access<'de, 't>,
    pub(super) entry: &'de Entry,
}

impl<'de> EnumAccess<'de> for Variant<'de, '_> {
    type Error = Halt;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        Ok((
            seed.deserialize(BorrowedStrDeserializer::<Halt>::new(&self.entry.key))?,
            self,
        ))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Halt;

    fn unit_variant(self) -> Result<()> {
        Err(Halt::say(format!(
            "`{0}` takes no value: write `{0}` alone",
            self.entry.key
        )))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        let trail = Trail::Key(&self.access.trail, &self.entry.key);
        self.access.below(seed, &self.entry.value, trail)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value> {
        self.within(|value| value.deserialize_tuple(length, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.within(|value| value.deserialize_struct("", fields, visitor))
    }
}

impl<'de> Variant<'de, '_> {
    fn within<T>(&self, decode: impl FnOnce(Access<'de, '_>) -> Result<T>) -> Result<T> {
        decode(Access {
            node: &self.entry.value,
            trail: Trail::Key(&self.access.trail, &self.entry.key),
            run: self.access.run,
            short: Short::No,
        })
    }
}
