//! Whether the parts of a configuration fit each other: what no single value can know.
//!
//! Values that were faulty in themselves are missing here, so nothing is concluded from an absence that the tree
//! does not confirm. What a plugin's own settings mean is judged when the plugin is built, not here.

mod names;
mod process;
mod routes;
mod rules;
mod store;

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::document::Document;
use super::fault::Fault;
use super::load::RuleFile;
use super::raw::Process;
use super::spelling;
use crate::base::misfit::{Misfit, Step};
use crate::base::name::Name;
use crate::base::unit::Span;

/// Makes a path of keys and indices.
macro_rules! steps {
    ($($step:expr),* $(,)?) => { [$($crate::base::misfit::Step::from($step)),*] };
}
use steps;

/// What was found in one file.
#[derive(Debug)]
pub struct Findings<'d> {
    document: &'d Document,
    /// Reasons to refuse the configuration.
    pub faults: Vec<Fault>,
    /// What is unwise.
    pub warnings: Vec<Fault>,
}

/// Checks the process file.
pub fn process<'d>(document: &'d Document, process: &Process) -> Findings<'d> {
    let mut findings = Findings::of(document);
    process::check(&mut findings, process);
    findings
}

/// Checks the rule files, each by itself and all together, and against the process that they are for.
pub fn rules(files: &[RuleFile], process: Option<&Process>) -> Vec<Fault> {
    let mut faults = names::check(files);
    let upstreams = names::upstreams(files);
    let has_rooms = files.iter().any(|file| !file.rules.rooms.is_empty());
    let queue = process
        .filter(|_| has_rooms)
        .map(|process| process.queue.prefix.as_str());
    for file in files {
        let mut findings = Findings::of(&file.document);
        rules::check(&mut findings, &file.rules, &upstreams);
        store::rooms(&mut findings, process, &file.rules);
        routes::check(&mut findings, &file.rules.routes, &upstreams, queue);
        faults.extend(findings.faults);
    }
    faults
}

/// Least and greatest timeout.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

impl<'d> Findings<'d> {
    fn of(document: &'d Document) -> Self {
        Self {
            document,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn fault(&mut self, path: &[Step], message: impl Into<String>) {
        self.faults.push(self.document.fault(path, &Misfit::new(message)));
    }

    /// That there is such an upstream.
    fn upstream(&mut self, path: &[Step], upstream: &Name, known: &[&str]) {
        if known.contains(&upstream.as_str()) {
            return;
        }
        let message = format!("there is no upstream `{upstream}`");
        let mut fault = self.document.fault(path, &Misfit::new(message));
        fault.suggestion = spelling::nearest(upstream.as_str(), known.iter().copied()).map(str::to_owned);
        self.faults.push(fault);
    }

    fn warn(&mut self, path: &[Step], message: impl Into<String>) {
        self.warnings.push(self.document.fault(path, &Misfit::new(message)));
    }

    fn number(&mut self, path: &[Step], number: u64, bounds: RangeInclusive<u64>) {
        if !bounds.contains(&number) {
            let (least, most) = bounds.into_inner();
            let wanted = match most {
                u64::MAX => format!("be at least {least}"),
                _ => format!("be from {least} to {most}"),
            };
            self.fault(path, format!("`{number}` must {wanted}"));
        }
    }

    fn span(&mut self, path: &[Step], span: Span, bounds: RangeInclusive<Duration>) {
        if !bounds.contains(&span.0) {
            let (least, most) = bounds.into_inner();
            self.fault(path, format!("must be from {} to {}", written(least), written(most)));
        }
    }

    /// That a file is there and this process may read it. What is in it is for others to judge.
    fn readable(&mut self, path: &[Step], file: &Path) -> bool {
        let file = self.document.resolve(file);
        let opened = match std::fs::metadata(&file) {
            Ok(metadata) if !metadata.is_file() => Err("not a file".to_owned()),
            Ok(_) => File::open(&file).map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(()) => true,
            Err(reason) => {
                self.fault(path, format!("`{}` cannot be read: {reason}", file.display()));
                false
            }
        }
    }
}

/// A duration as an operator writes it: with its number, where a rate would leave out a 1, and none at all in seconds.
fn written(span: Duration) -> String {
    if span.is_zero() {
        return "0s".to_owned();
    }
    let text = Span(span).to_string();
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        text
    } else {
        format!("1{text}")
    }
}

/// Whether `path` is an absolute path of the plainest form: segments that are neither empty nor dots.
fn is_plain_path(path: &str) -> bool {
    let segment = |segment: &str| {
        let plain = segment
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\' | b'%'));
        plain && !matches!(segment, "" | "." | "..")
    };
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}
