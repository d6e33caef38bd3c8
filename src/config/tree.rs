//! A configuration file as a tree in which every value knows where it stands.

use std::sync::Arc;

use super::fault::Position;
use crate::base::misfit::Step;

/// One value and where it begins.
#[derive(Debug)]
pub struct Node {
    /// Where it was written; for what an alias stands for, where that was written.
    pub position: Position,
    /// What it is.
    pub kind: Kind,
    /// How many values it stands for, itself included, each alias counted in full.
    pub weight: usize,
}

/// The kinds of values that a file can hold.
#[derive(Debug)]
pub enum Kind {
    /// Nothing: a key without a value, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0 up.
    Unsigned(u64),
    /// A whole number below 0.
    Signed(i64),
    /// Any other number.
    Float(f64),
    /// Text, quoted or not.
    Text(String),
    /// A list.
    List(Vec<Arc<Node>>),
    /// Keys with values, in the order written; no key twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub position: Position,
    /// The value.
    pub value: Arc<Node>,
}

/// Which part of a path's last step is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The key itself.
    Key,
    /// What stands under it.
    Whole,
}

impl Node {
    /// The entries, if it is a map.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under `key`, if it is a map that has one.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for a sentence that says what was found: `the text`, `a list`.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Bool(_) | Kind::Unsigned(_) | Kind::Signed(_) | Kind::Float(_) | Kind::Text(_) => {
                format!("`{}`", self.scalar().unwrap_or_default())
            }
        }
    }

    /// The value as written, more or less, if it is neither nothing nor a list or map. At most one line of it.
    pub fn scalar(&self) -> Option<String> {
        match &self.kind {
            Kind::Bool(value) => Some(value.to_string()),
            Kind::Unsigned(number) => Some(number.to_string()),
            Kind::Signed(number) => Some(number.to_string()),
            Kind::Float(number) => Some(number.to_string()),
            Kind::Text(text) => Some(excerpt(text)),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The position of the deepest part of `path` that exists.
    ///
    /// A map of one key that stands for a list of one is entered without a step of its own, because whoever
    /// complains cannot know whether the operator wrote the brackets.
    pub fn locate(&self, path: &[Step], part: Part) -> Position {
        let (mut node, mut position) = (self, self.position);
        for (depth, step) in path.iter().enumerate() {
            match (step, &node.kind) {
                (Step::Index(index), Kind::List(elements)) => {
                    let Some(element) = elements.get(*index) else { break };
                    (node, position) = (element, element.position);
                }
                (Step::Index(_), _) => {}
                (Step::Key(key), _) => {
                    let Some(entry) = node.entry(key) else { break };
                    let last = depth + 1 == path.len();
                    position = if last && part == Part::Key {
                        entry.position
                    } else {
                        entry.value.position
                    };
                    node = &entry.value;
                }
            }
        }
        position
    }

    /// The path of the key that begins at `position`.
    pub fn path_to_key(&self, position: Position) -> Option<Vec<Step>> {
        let below = |step: Step, node: &Self| {
            let path = node.path_to_key(position)?;
            Some([vec![step], path].concat())
        };
        match &self.kind {
            Kind::Map(entries) => entries.iter().find_map(|entry| {
                let step = Step::from(entry.key.as_str());
                match entry.position == position {
                    true => Some(vec![step]),
                    false => below(step, &entry.value),
                }
            }),
            Kind::List(elements) => {
                let mut elements = elements.iter().enumerate();
                elements.find_map(|(index, element)| below(Step::from(index), element))
            }
            _ => None,
        }
    }

    /// `path` in words: `routes[2] "checkout" > chain[1] > rate_limit`. Elements count from 0; one that has a
    /// `name` is also called by it.
    pub fn words(&self, path: &[Step]) -> String {
        let (mut words, mut node) = (String::new(), Some(self));
        for step in path {
            match step {
                Step::Key(key) => {
                    words.push_str(if words.is_empty() { "" } else { " > " });
                    words.push_str(&excerpt(key));
                    node = node.and_then(|node| node.get(key));
                }
                Step::Index(index) => match node.map(|node| &node.kind) {
                    Some(Kind::List(elements)) => {
                        words.push_str(&format!("[{index}]"));
                        node = elements.get(*index).map(|element| &**element);
                        if let Some(name) = node.and_then(|node| node.get("name")).and_then(Node::text) {
                            words.push_str(&format!(" \"{}\"", excerpt(name)));
                        }
                    }
                    Some(_) => {}
                    None => words.push_str(&format!("[{index}]")),
                },
            }
        }
        words
    }
}

/// Longest piece of a file that a message repeats, in characters.
const EXCERPT_CHARS_MAX: usize = 80;

/// The first line of `text`, shortened: a message stays one line, whatever the file holds.
pub fn excerpt(text: &str) -> String {
    let shown: String = text
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .take_while(|c| !c.is_control())
        .collect();
    if shown.len() < text.len() { shown + "…" } else { shown }
}
