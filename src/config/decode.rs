//! From a tree to plain serde types, past every fault.
//!
//! A serde visitor gives up at the first error. So a value that fails is noted with its path and struck out, and the
//! whole file is decoded again without it, until a pass strikes out nothing more. What follows from a struck value
//! (a required key that seems missing, a struct that cannot be built without it) strikes out its surroundings
//! silently. Unknown keys never reach a visitor: `deserialize_struct` is told which keys there are.
//!
//! A value's identity is its address in the tree, which stays as it is meanwhile.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use self::access::Access;
use super::fault::{FAULTS_MAX, Position};
use super::tree::{Kind, Node};
use crate::base::misfit::Step;

mod access;
mod collection;
mod halt;
mod variant;

/// The newtype name by which a type says that text alone stands for a map of one key, the one after the colon:
/// `127.0.0.1:9000` for `{ address: 127.0.0.1:9000 }`.
const SHORTHAND: &str = "$tidegate::Shorthand:";

/// Most values looked at in all passes over one file together. Ten passes over the largest file, some hundred
/// thousand over a usual one; what has been found by then is listed.
const VISITS_MAX: usize = 1_000_000;

/// For the keys of a struct, sorted: which of them are required. Serde names only the first that is missing.
pub type RequiredKeys = HashMap<Vec<String>, Vec<String>>;

/// A fault and where in the tree it is.
#[derive(Debug)]
pub struct Found {
    /// The way to the value that is wrong.
    pub path: Vec<Step>,
    /// Where it stands, or its key does.
    pub position: Position,
    /// What is wrong.
    pub message: String,
    /// The nearest right spelling.
    pub suggestion: Option<String>,
}

/// What became of a file.
#[derive(Debug)]
pub struct Decoded<T> {
    /// All that could be decoded, without what was struck out; none if the root could not.
    pub value: Option<T>,
    /// What is wrong. If nothing is, the value is there and complete.
    pub faults: Vec<Found>,
    /// What was struck out.
    pub struck: Struck,
}

/// The addresses of values that are missing from what was decoded.
#[derive(Debug, Default)]
pub struct Struck {
    faulty: HashSet<usize>,
    unknown: HashSet<usize>,
}

impl Struck {
    /// Whether `node` was struck out for a fault in it.
    pub fn contain(&self, node: &Node) -> bool {
        self.faulty.contains(&address(node))
    }

    /// Whether everything directly in `node` was decoded.
    pub fn spare_all_of(&self, node: &Node) -> bool {
        let missing = |node: &Node| self.contain(node) || self.unknown.contains(&address(node));
        match &node.kind {
            Kind::List(elements) => !elements.iter().any(|element| missing(element)),
            Kind::Map(entries) => !entries.iter().any(|entry| missing(&entry.value)),
            _ => true,
        }
    }

    /// Whether everything in `node` was decoded, and everything in that.
    pub fn spare_all_below(&self, node: &Node) -> bool {
        self.spare_all_of(node)
            && match &node.kind {
                Kind::List(elements) => elements.iter().all(|element| self.spare_all_below(element)),
                Kind::Map(entries) => entries.iter().all(|entry| self.spare_all_below(&entry.value)),
                _ => true,
            }
    }
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

/// Decodes the tree under `root`.
pub fn decode<'d, T: Deserialize<'d>>(root: &'d Node, required: &dyn Fn() -> RequiredKeys) -> Decoded<T> {
    let run = Run {
        required,
        state: RefCell::default(),
    };
    let value = loop {
        let before = run.marks();
        let value = Access::root(root, &run).decode_root();
        let state = run.state.borrow();
        if state.visits > VISITS_MAX || state.faults.len() >= FAULTS_MAX {
            break None;
        }
        if state.marks == before {
            break value;
        }
    };
    let state = run.state.into_inner();
    Decoded {
        value,
        faults: state.faults,
        struck: state.struck,
    }
}

/// One decoding of a file, all its passes.
struct Run<'r> {
    required: &'r dyn Fn() -> RequiredKeys,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    faults: Vec<Found>,
    struck: Struck,
    required: Option<RequiredKeys>,
    /// How often anything was struck out or named. A pass that adds nothing is the last.
    marks: usize,
    visits: usize,
}

impl Run<'_> {
    fn is_struck(&self, node: &Node) -> bool {
        self.state.borrow().struck.contain(node)
    }

    fn marks(&self) -> usize {
        self.state.borrow().marks
    }

    fn strike(&self, node: &Node) {
        let mut state = self.state.borrow_mut();
        if state.struck.faulty.insert(address(node)) {
            state.marks += 1;
        }
    }

    fn record(&self, fault: Found) {
        let mut state = self.state.borrow_mut();
        state.marks += 1;
        state.faults.push(fault);
    }

    /// Whether the unknown key of `value` is named here for the first time.
    fn names(&self, value: &Node) -> bool {
        self.state.borrow_mut().struck.unknown.insert(address(value))
    }

    /// Counts a look at a value; false once there have been too many.
    fn visit(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.visits += 1;
        state.visits <= VISITS_MAX
    }

    /// Which of `fields` a struct must have, as far as the schema knows.
    fn required_of(&self, fields: &[&str]) -> Vec<String> {
        let mut sorted: Vec<_> = fields.iter().map(|&field| field.to_owned()).collect();
        sorted.sort();
        let mut state = self.state.borrow_mut();
        let required = state.required.get_or_insert_with(self.required);
        required.get(&sorted).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
