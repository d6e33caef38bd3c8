//! One file of a configuration, through all its stages: whoever finds something wrong with it says where by a path,
//! and the document knows the line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::decode::{self, Struck};
use super::fault::{Fault, Position};
use super::read::{self, Repeated};
use super::schema;
use super::tree::{Kind, Node, Part};
use crate::base::misfit::{Misfit, Step};

/// A file that is YAML, whatever else may be wrong with it.
#[derive(Debug)]
pub struct Document {
    file: PathBuf,
    root: Arc<Node>,
    struck: Struck,
}

impl Document {
    /// Reads `text` as the content of `file`. Gives the document with its repeated keys as faults, or the one fault
    /// that kept it from being read.
    pub fn parse(file: PathBuf, text: &str) -> Result<(Self, Vec<Fault>), Fault> {
        match read::read(text) {
            Ok(reading) => {
                let document = Self {
                    file,
                    root: reading.root,
                    struck: Struck::default(),
                };
                let repeated = reading.repeated.iter();
                let faults = repeated.map(|repeated| document.repetition(repeated)).collect();
                Ok((document, faults))
            }
            Err((position, message)) => Err(Fault {
                file,
                position,
                path: String::new(),
                message,
                suggestion: None,
            }),
        }
    }

    /// Decodes the whole document. With faults, the value lacks what they are about, if there is a value at all.
    pub fn decode<T: DeserializeOwned + JsonSchema>(&mut self) -> (Option<T>, Vec<Fault>) {
        let decoded = decode::decode(&self.root, &schema::required_keys::<T>);
        let faults = decoded.faults.into_iter().map(|found| Fault {
            file: self.file.clone(),
            position: found.position,
            path: self.root.words(&found.path),
            message: found.message,
            suggestion: found.suggestion,
        });
        let faults = faults.collect();
        self.struck = decoded.struck;
        (decoded.value, faults)
    }

    /// The file, as the operator named it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A path that stands in this file, seen from where the process runs.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Where the value at `path` stands, or its key does; of what does not exist, its nearest surroundings.
    pub fn locate(&self, path: &[Step], part: Part) -> Position {
        self.root.locate(path, part)
    }

    /// The complaint of the part that was built from the value at `path`, as a fault of this file.
    pub fn fault(&self, path: &[Step], misfit: &Misfit) -> Fault {
        let path: Vec<_> = path.iter().chain(&misfit.path).cloned().collect();
        Fault {
            file: self.file.clone(),
            position: self.locate(&path, Part::Whole),
            path: self.root.words(&path),
            message: misfit.message.clone(),
            suggestion: None,
        }
    }

    /// A complaint about the key at the end of `path`.
    pub fn fault_of_key(&self, path: &[Step], message: impl Into<String>) -> Fault {
        Fault {
            position: self.locate(path, Part::Key),
            ..self.fault(path, &Misfit::new(message))
        }
    }

    fn repetition(&self, repeated: &Repeated) -> Fault {
        let path = self.root.path_to_key(repeated.first).unwrap_or_default();
        let message = format!("the key `{}` stands twice: first at {}", repeated.key, repeated.first);
        Fault {
            position: repeated.position,
            ..self.fault(path.split_last().map_or(&[], |(_, map)| map), &Misfit::new(message))
        }
    }

    /// The keys of the map at `path`, those with faulty values too.
    pub fn keys<'d>(&'d self, path: &[Step]) -> impl Iterator<Item = &'d str> + use<'d> {
        let entries = self.node(path).map_or(&[][..], Node::entries);
        entries.iter().map(|entry| entry.key.as_str())
    }

    /// The texts in the list at `path` with their own paths; what is no text is left out.
    pub fn texts(&self, path: &[Step]) -> Vec<(Vec<Step>, &str)> {
        let Some(node) = self.node(path) else { return Vec::new() };
        let elements: Vec<_> = match &node.kind {
            Kind::List(elements) => elements.iter().map(|element| &**element).collect(),
            _ => vec![node],
        };
        let texts = elements.into_iter().enumerate().filter_map(|(index, element)| {
            let path = path.iter().cloned().chain([Step::from(index)]).collect();
            Some((path, element.text()?))
        });
        texts.collect()
    }

    /// The decoded `elements` of the list at `path`, each with its index in the file: faulty ones were left out. What
    /// stands for a list of one has the index 0.
    pub fn written<'e, T>(
        &self,
        path: &[Step],
        elements: &'e [T],
    ) -> impl Iterator<Item = (usize, &'e T)> + use<'e, T> {
        self.indices(path).into_iter().zip(elements)
    }

    /// The same indices by themselves.
    pub fn indices(&self, path: &[Step]) -> Vec<usize> {
        match self.node(path).map(|node| &node.kind) {
            Some(Kind::List(nodes)) => {
                let kept = nodes.iter().enumerate().filter(|(_, node)| !self.struck.contain(node));
                kept.map(|(index, _)| index).collect()
            }
            Some(_) => vec![0],
            None => Vec::new(),
        }
    }

    /// Whether everything directly in the list or map at `path` was decoded: nothing faulty, no unknown key.
    pub fn is_whole(&self, path: &[Step]) -> bool {
        self.node(path).is_none_or(|node| self.struck.spare_all_of(node))
    }

    /// Whether everything at `path` was decoded, however deep it stands.
    pub fn is_whole_below(&self, path: &[Step]) -> bool {
        self.node(path).is_none_or(|node| self.struck.spare_all_below(node))
    }

    fn node(&self, path: &[Step]) -> Option<&Node> {
        path.iter()
            .try_fold(&*self.root, |node, step| match (step, &node.kind) {
                (Step::Key(key), _) => node.get(key),
                (Step::Index(index), Kind::List(elements)) => elements.get(*index).map(|element| &**element),
                (Step::Index(_), _) => Some(node),
            })
    }
}
