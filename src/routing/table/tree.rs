//! The paths of one host: a map for exact paths, a tree of segments for patterns, a list of regexes.

use std::cmp::Reverse;
use std::collections::HashMap;

use http::Method;
use regex::Regex;

use super::Match;
use crate::routing::pattern::{PathPattern, Segment, Shape};

/// One path pattern with the entries that have it.
#[derive(Debug)]
pub(super) struct Leaf {
    pattern: PathPattern,
    /// Place among the patterns of the host, the most specific first.
    rank: usize,
    /// Best first.
    pub(super) candidates: Vec<Candidate>,
}

/// An entry as one of its hosts sees it.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Index into the table's entries.
    pub(super) entry: usize,
    /// The methods it takes, HEAD included where GET stands for it; empty means any.
    pub(super) methods: Vec<Method>,
}

/// All paths of one host.
#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: HashMap<Box<str>, Leaf>,
    root: Node,
    regexes: Vec<(Regex, Leaf)>,
}

/// What is reached by the same segments.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Takes a path that ends here.
    closed: Option<Leaf>,
    /// Takes a path that ends here or goes on.
    open: Option<Leaf>,
}

/// Groups the entries of one host by path pattern, the most specific first.
pub(super) fn leaves(matches: &[Match], indexes: &[usize]) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut by_path = indexes.to_vec();
    by_path.sort_by(|a, b| matches[*a].path.compare(&matches[*b].path));
    for entry in by_path {
        let Match { path, methods, .. } = &matches[entry];
        let methods = methods.clone();
        let candidate = Candidate { entry, methods };
        match home(&mut leaves, path) {
            Some(leaf) => leaf.candidates.push(candidate),
            None => leaves.push(Leaf {
                pattern: path.clone(),
                rank: leaves.len(),
                candidates: vec![candidate],
            }),
        }
    }
    for leaf in &mut leaves {
        rank_candidates(leaf, matches);
    }
    leaves
}

/// The leaf of an equal pattern. Equal patterns are equally specific, so only the last few leaves can be it.
fn home<'l>(leaves: &'l mut [Leaf], path: &PathPattern) -> Option<&'l mut Leaf> {
    let peers = leaves
        .iter_mut()
        .rev()
        .take_while(|leaf| leaf.pattern.compare(path).is_eq());
    peers.into_iter().find(|leaf| leaf.pattern.takes_the_same_as(path))
}

fn rank_candidates(leaf: &mut Leaf, matches: &[Match]) {
    for position in 0..leaf.candidates.len() {
        let Candidate { entry, methods } = &leaf.candidates[position];
        let headers = &matches[*entry].headers;
        let names_head = |other: &Candidate| {
            let Match {
                methods,
                headers: theirs,
                ..
            } = &matches[other.entry];
            theirs == headers && methods.contains(&Method::HEAD)
        };
        if methods.contains(&Method::GET) && !leaf.candidates.iter().any(names_head) {
            leaf.candidates[position].methods.push(Method::HEAD);
        }
    }
    leaf.candidates
        .sort_by_key(|c| (Reverse(matches[c.entry].headers.len()), c.methods.is_empty(), c.entry));
}

impl Paths {
    /// Files the leaves of one host, which are in order.
    pub(super) fn new(leaves: Vec<Leaf>) -> Self {
        let mut paths = Self::default();
        for leaf in leaves {
            if let Some(path) = leaf.pattern.exact() {
                paths.exact.insert(path.into_boxed_str(), leaf);
                continue;
            }
            match leaf.pattern.shape.clone() {
                Shape::Regex(regex) => paths.regexes.push((regex, leaf)),
                Shape::Segments { segments, is_open } => {
                    let node = paths.root.at(&segments);
                    *(if is_open { &mut node.open } else { &mut node.closed }) = Some(leaf);
                }
            }
        }
        paths
    }

    /// The candidate that `choose` takes from the most specific leaf that has one for it.
    pub(super) fn first<'p>(
        &'p self,
        path: &str,
        steps: &mut usize,
        choose: impl Fn(&'p Leaf, &mut usize) -> Option<&'p Candidate>,
    ) -> Option<&'p Candidate> {
        *steps += 1;
        if let Some(candidate) = self.exact.get(path).and_then(|leaf| choose(leaf, steps)) {
            return Some(candidate);
        }
        let mut best: Option<(usize, &Candidate)> = None;
        self.root.walk(below_root(path), steps, &mut |leaf, steps| {
            if best.is_none_or(|(rank, _)| leaf.rank < rank)
                && let Some(candidate) = choose(leaf, steps)
            {
                best = Some((leaf.rank, candidate));
            }
        });
        let regexes_rank = self.regexes.first().map_or(usize::MAX, |(_, leaf)| leaf.rank);
        let mut by_regex = || {
            self.regexes.iter().find_map(|(regex, leaf)| {
                *steps += 1;
                regex.is_match(path).then(|| choose(leaf, steps)).flatten()
            })
        };
        match best {
            Some((rank, candidate)) if rank < regexes_rank => Some(candidate),
            best => by_regex().or(best.map(|(_, candidate)| candidate)),
        }
    }
}

fn below_root(path: &str) -> Option<&str> {
    Some(path.strip_prefix('/').unwrap_or(path))
}

impl Node {
    /// The node that `segments` lead to, made where it is missing.
    fn at(&mut self, segments: &[Segment]) -> &mut Self {
        segments.iter().fold(self, |node, segment| match segment {
            Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
            Segment::Any => node.any.get_or_insert_default(),
        })
    }

    /// Visits every leaf that takes a path of which `rest` is still to come; none when it ends here.
    ///
    /// Each node is visited at most once, since one sequence of segments leads to it.
    fn walk<'n>(&'n self, rest: Option<&str>, steps: &mut usize, visit: &mut impl FnMut(&'n Leaf, &mut usize)) {
        *steps += 1;
        if let Some(leaf) = &self.open {
            visit(leaf, steps);
        }
        let Some(rest) = rest else {
            if let Some(leaf) = &self.closed {
                visit(leaf, steps);
            }
            return;
        };
        let (segment, rest) = rest
            .split_once('/')
            .map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
        if let Some(node) = self.literals.get(segment) {
            node.walk(rest, steps, visit);
        }
        if let Some(node) = self.any.as_ref().filter(|_| !segment.is_empty()) {
            node.walk(rest, steps, visit);
        }
    }
}
