//! Names across all rule files: each is given once.

use std::collections::HashMap;

use super::steps;
use crate::base::misfit::{Misfit, Step};
use crate::config::document::Document;
use crate::config::fault::Fault;
use crate::config::load::RuleFile;
use crate::config::tree::Part;

/// The names of all upstreams, those with faults of their own too.
pub(super) fn upstreams(files: &[RuleFile]) -> Vec<&str> {
    files
        .iter()
        .flat_map(|file| file.document.keys(&steps!["upstreams"]))
        .collect()
}

pub(super) fn check(files: &[RuleFile]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (section, what) in [("upstreams", "upstream"), ("rooms", "room")] {
        let mut given = Given::of(what);
        for file in files {
            for name in file.document.keys(&steps![section]) {
                given.add(&file.document, name, &steps![section, name], Part::Key);
            }
        }
        faults.extend(given.faults);
    }
    let mut given = Given::of("route");
    for file in files {
        for (index, route) in file.document.written(&steps!["routes"], &file.rules.routes) {
            given.add(
                &file.document,
                route.name.as_str(),
                &steps!["routes", index, "name"],
                Part::Whole,
            );
        }
    }
    faults.extend(given.faults);
    faults
}

/// The names of one kind, and where each was first given.
struct Given<'f> {
    what: &'static str,
    places: HashMap<&'f str, String>,
    faults: Vec<Fault>,
}

impl<'f> Given<'f> {
    fn of(what: &'static str) -> Self {
        Self {
            what,
            places: HashMap::new(),
            faults: Vec::new(),
        }
    }

    fn add(&mut self, document: &Document, name: &'f str, here: &[Step], part: Part) {
        if let Some(first) = self.places.get(name) {
            let message = format!(
                "the {} `{name}` exists already, at {first}: names are given once",
                self.what
            );
            let fault = match part {
                Part::Key => document.fault_of_key(here, message),
                Part::Whole => document.fault(here, &Misfit::new(message)),
            };
            self.faults.push(fault);
            return;
        }
        let place = format!("{}:{}", document.file().display(), document.locate(here, part));
        self.places.insert(name, place);
    }
}
