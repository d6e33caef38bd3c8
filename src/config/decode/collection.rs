//! The lists and maps of the tree, as serde goes through them.

use std::sync::Arc;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess};

use super::Found;
use super::access::{Access, Result, Trail};
use super::halt::Halt;
use crate::config::tree::{Entry, Node, excerpt};

/// The elements of a list that are not struck out.
pub(super) struct Elements<'de, 't> {
    list: &'t Access<'de, 't>,
    rest: std::iter::Enumerate<std::slice::Iter<'de, Arc<Node>>>,
    ends_at_faults: bool,
}

impl<'de, 't> Elements<'de, 't> {
    pub(super) fn of(list: &'t Access<'de, 't>, elements: &'de [Arc<Node>]) -> Self {
        Self {
            list,
            rest: elements.iter().enumerate(),
            ends_at_faults: true,
        }
    }

    /// All of them or none: for a list of fixed length.
    pub(super) fn all_of(list: &'t Access<'de, 't>, elements: &'de [Arc<Node>]) -> Self {
        Self {
            ends_at_faults: false,
            ..Self::of(list, elements)
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = Halt;

    /// After a fault the list ends for this pass, so that what stands beside the list is still looked at.
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let run = self.list.run;
        let Some((index, node)) = self.rest.find(|(_, node)| !run.is_struck(node)) else {
            return Ok(None);
        };
        let trail = Trail::Index(&self.list.trail, index);
        match self.list.below(seed, node, trail) {
            Err(Halt::Recorded) if self.ends_at_faults => Ok(None),
            result => result.map(Some),
        }
    }
}

/// A value that stands for a list of itself.
pub(super) struct Alone<'de, 't>(pub(super) Option<Access<'de, 't>>);

impl<'de> SeqAccess<'de> for Alone<'de, '_> {
    type Error = Halt;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.0.take().map(|access| access.decode(seed)).transpose()
    }
}

/// The entries of a map that are known and not struck out.
pub(super) struct Entries<'de, 't> {
    map: &'t Access<'de, 't>,
    rest: std::slice::Iter<'de, Entry>,
    fields: Option<&'static [&'static str]>,
    current: Option<&'de Entry>,
}

impl<'de, 't> Entries<'de, 't> {
    pub(super) fn of(map: &'t Access<'de, 't>, entries: &'de [Entry], fields: Option<&'static [&'static str]>) -> Self {
        Self {
            map,
            rest: entries.iter(),
            fields,
            current: None,
        }
    }

    fn is_known(&self, entry: &Entry) -> bool {
        let Some(fields) = self.fields else { return true };
        let known = fields.contains(&entry.key.as_str());
        if !known
            && self.map.run.names(&entry.value)
            && let Halt::Say(message, suggestion) = Halt::unknown("key", &excerpt(&entry.key), fields)
        {
            self.map.report(entry.position, message, suggestion);
        }
        known
    }

    /// A key that is not what the map's keys must be.
    fn wrong_key(&self, entry: &Entry, halt: &Halt) {
        let trail = Trail::Key(&self.map.trail, &entry.key);
        self.map.run.record(Found {
            path: trail.steps(),
            position: entry.position,
            message: halt.to_string(),
            suggestion: None,
        });
        self.map.run.strike(&entry.value);
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Halt;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let entry = loop {
            let Some(entry) = self.rest.next() else { return Ok(None) };
            if self.is_known(entry) && !self.map.run.is_struck(&entry.value) {
                break entry;
            }
        };
        self.current = Some(entry);
        seed.deserialize(BorrowedStrDeserializer::new(&entry.key))
            .map(Some)
            .map_err(|halt| {
                self.wrong_key(entry, &halt);
                Halt::Recorded
            })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let entry = self.current.take().ok_or_else(|| Halt::say("a value before its key"))?;
        let trail = Trail::Key(&self.map.trail, &entry.key);
        self.map.below(seed, &entry.value, trail)
    }

    /// As for lists: after a fault the map ends for this pass. (Structs do not come this way.)
    fn next_entry_seed<K: DeserializeSeed<'de>, V: DeserializeSeed<'de>>(
        &mut self,
        key: K,
        value: V,
    ) -> Result<Option<(K::Value, V::Value)>> {
        let entry = match self.next_key_seed(key) {
            Ok(Some(key)) => self.next_value_seed(value).map(|value| Some((key, value))),
            Ok(None) => Ok(None),
            Err(halt) => Err(halt),
        };
        match entry {
            Err(Halt::Recorded) => Ok(None),
            entry => entry,
        }
    }
}

/// Text that stands for a map of one key.
pub(super) struct Shorthand<'de, 't> {
    pub(super) key: Option<&'static str>,
    pub(super) value: Access<'de, 't>,
}

impl<'de> MapAccess<'de> for Shorthand<'de, '_> {
    type Error = Halt;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let key = self.key.take();
        key.map(|key| seed.deserialize(BorrowedStrDeserializer::new(key)))
            .transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        self.value.decode(seed)
    }
}
