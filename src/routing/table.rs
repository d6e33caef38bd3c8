//! Which of many routes takes a request: the most specific one.
//!
//! What decides, in this order: the host (named > longer `*.suffix` > shorter > any), the path (as
//! [`PathPattern`] says), more header conditions, methods named rather than any, and the order written. Where the
//! most specific path has no route whose methods and headers fit, the next is tried, and after the last path of a
//! host the next host.
//!
//! A regex comes before `/prefix/**`, as in nginx: it looks at the whole path, a prefix at its beginning alone, and
//! whoever writes `~ /\.git` means it below every prefix. So a regex takes requests out of a prefix, and past the guards
//! that stand there; what a prefix guards and a regex may match, the regex has to guard too.
//!
//! Cost: a hash look-up for each host level, one for the exact path, one for each segment of the path that some
//! pattern goes as deep as; nothing grows with the number of routes but the regexes of a host, which are tried one
//! by one when no path without `/**` fits.

use std::collections::HashMap;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use self::tree::{Leaf, Paths};
use super::host::HostPattern;
use super::path;
use super::pattern::PathPattern;

mod tree;

/// What a request must look like for a route to take it.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// One of these hosts; empty means any.
    pub hosts: Vec<HostPattern>,
    /// This path.
    pub path: PathPattern,
    /// One of these methods; empty means any. GET stands for HEAD too, unless another route with the same host,
    /// path and headers names HEAD.
    pub methods: Vec<Method>,
    /// All of these: a header of the name has exactly this value (one of its values, where it has several).
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Two entries of which the second could never be chosen where the first is there too: same host, same path, same
/// headers, and no method that the first does not take.
#[derive(Debug, Clone)]
pub struct Clash {
    /// Index of the entry written first.
    pub first: usize,
    /// Index of the entry written later.
    pub second: usize,
    /// A host that both name; none when both take any.
    pub host: Option<HostPattern>,
    /// The path of the second.
    pub path: PathPattern,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no request can tell these two apart: both take path `{}`", self.path)?;
        match &self.host {
            Some(host) => write!(f, " on host `{host}`"),
            None => write!(f, " on any host"),
        }
    }
}

/// Routes, compiled for look-up. Immutable.
#[derive(Debug)]
pub struct Table<T> {
    entries: Vec<Entry<T>>,
    exact: HashMap<Box<str>, Paths>,
    below: HashMap<Box<str>, Paths>,
    /// Most labels of a suffix in `below`: longer ones need not be looked up, however long a client's host is.
    below_labels_max: usize,
    any: Paths,
}

#[derive(Debug)]
struct Entry<T> {
    headers: Vec<(HeaderName, HeaderValue)>,
    value: T,
}

/// A request as the table sees it.
struct Asked<'r> {
    path: &'r str,
    method: &'r Method,
    headers: &'r HeaderMap,
}

impl<T> Table<T> {
    /// Compiles entries in the order written, or gives every pair that cannot be told apart.
    pub fn build(entries: Vec<(Match, T)>) -> Result<Self, Vec<Clash>> {
        let (matches, values): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let matches: Vec<Match> = matches.into_iter().map(tidy).collect();
        let mut hosts: HashMap<Option<&HostPattern>, Vec<usize>> = HashMap::new();
        for (index, entry) in matches.iter().enumerate() {
            if entry.hosts.is_empty() {
                hosts.entry(None).or_default().push(index);
            }
            for host in &entry.hosts {
                hosts.entry(Some(host)).or_default().push(index);
            }
        }
        let mut table = Self::empty();
        let mut clashes = Vec::new();
        for (host, indexes) in hosts {
            let leaves = tree::leaves(&matches, &indexes);
            clashes.extend(leaves.iter().flat_map(|leaf| clashes_of(leaf, host, &matches)));
            table.place(host, Paths::new(leaves));
        }
        if !clashes.is_empty() {
            clashes.sort_by_key(|clash| (clash.first, clash.second));
            clashes.dedup_by_key(|clash| (clash.first, clash.second));
            return Err(clashes);
        }
        let headers = matches.into_iter().map(|entry| entry.headers);
        table.entries = headers
            .zip(values)
            .map(|(headers, value)| Entry { headers, value })
            .collect();
        Ok(table)
    }

    /// The same table of what `of` makes of the values, in the order written.
    pub fn map<U>(self, mut of: impl FnMut(T) -> U) -> Table<U> {
        let Self {
            entries,
            exact,
            below,
            below_labels_max,
            any,
        } = self;
        let entries = entries.into_iter().map(|Entry { headers, value }| Entry {
            headers,
            value: of(value),
        });
        Table {
            entries: entries.collect(),
            exact,
            below,
            below_labels_max,
            any,
        }
    }

    /// The route for a request, whose host and path are normalised.
    pub fn find(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Option<&T> {
        let path = &*path::compared(path);
        let asked = Asked { path, method, headers };
        self.find_counted(host, &asked, &mut 0)
    }

    /// [`Self::find`], adding to `steps` the hosts, nodes, regexes and routes it looked at.
    fn find_counted(&self, host: &str, asked: &Asked<'_>, steps: &mut usize) -> Option<&T> {
        let found = self.levels(host).find_map(|paths| {
            *steps += 1;
            paths?.first(asked.path, steps, |leaf, steps| {
                leaf.candidates.iter().find(|candidate| {
                    *steps += 1;
                    self.fits(candidate, asked)
                })
            })
        });
        found.map(|candidate| &self.entries[candidate.entry].value)
    }

    /// The paths of each level of the host, the most specific first; none where no route names the level.
    fn levels<'a>(&'a self, host: &'a str) -> impl Iterator<Item = Option<&'a Paths>> {
        let suffixes = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        let labels = if self.below.is_empty() {
            0
        } else {
            host.split('.').count() - 1
        };
        let too_long = labels.saturating_sub(self.below_labels_max);
        let below = suffixes
            .take(labels)
            .skip(too_long)
            .map(|suffix| self.below.get(suffix));
        std::iter::once(self.exact.get(host))
            .chain(below)
            .chain([Some(&self.any)])
    }

    fn fits(&self, candidate: &tree::Candidate, asked: &Asked<'_>) -> bool {
        let takes_method = candidate.methods.is_empty() || candidate.methods.contains(asked.method);
        let conditions = &self.entries[candidate.entry].headers;
        takes_method
            && conditions
                .iter()
                .all(|(name, value)| asked.headers.get_all(name).iter().any(|sent| sent == value))
    }

    fn empty() -> Self {
        Self {
            entries: Vec::new(),
            exact: HashMap::new(),
            below: HashMap::new(),
            below_labels_max: 0,
            any: Paths::default(),
        }
    }

    fn place(&mut self, host: Option<&HostPattern>, paths: Paths) {
        match host {
            None => self.any = paths,
            Some(HostPattern::Exact(host)) => {
                self.exact.insert(host.clone(), paths);
            }
            Some(HostPattern::Below(suffix)) => {
                self.below_labels_max = self.below_labels_max.max(suffix.split('.').count());
                self.below.insert(suffix.clone(), paths);
            }
        }
    }
}

/// Each host and each header condition once, in an order that makes equal sets equal lists.
fn tidy(mut entry: Match) -> Match {
    entry.hosts.sort();
    entry.hosts.dedup();
    entry
        .headers
        .sort_by(|(a, x), (b, y)| (a.as_str(), x.as_bytes()).cmp(&(b.as_str(), y.as_bytes())));
    entry.headers.dedup();
    entry
}

/// The candidates of one host and path that an earlier one leaves nothing to.
fn clashes_of(leaf: &Leaf, host: Option<&HostPattern>, matches: &[Match]) -> Vec<Clash> {
    let mut clashes = Vec::new();
    for (position, second) in leaf.candidates.iter().enumerate() {
        let covering = leaf.candidates[..position].iter().find(|first| {
            let same_headers = matches[first.entry].headers == matches[second.entry].headers;
            same_headers && covers(&first.methods, &second.methods)
        });
        clashes.extend(covering.map(|first| Clash {
            first: first.entry.min(second.entry),
            second: first.entry.max(second.entry),
            host: host.cloned(),
            path: matches[second.entry].path.clone(),
        }));
    }
    clashes
}

/// Whether `methods` takes whatever `others` takes; an empty list takes all.
fn covers(methods: &[Method], others: &[Method]) -> bool {
    methods.is_empty() || (!others.is_empty() && others.iter().all(|method| methods.contains(method)))
}

#[cfg(test)]
mod tests;
