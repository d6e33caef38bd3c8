//! The metrics that the binary exports, with their labels, as its one file of metrics declares them.
//!
//! A family without series does not show in `/metrics`, so what a process shows at one moment would not do.

use std::collections::BTreeMap;

use regex::Regex;
use tidegate::telemetry::metrics::METRICS;

use crate::{files, text};

/// One metric.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) labels: Vec<String>,
    pub(crate) is_histogram: bool,
}

/// All of them by their exported names.
pub(crate) fn families() -> BTreeMap<String, Family> {
    let source = text("src/telemetry/metrics.rs");
    let declared = Regex::new(r"(?m)^    (\w+): (\w+) = \w+\((?:&\[([^\]]*)\])?").unwrap();
    let family = |found: regex::Captures<'_>| {
        let labels = found.get(3).map_or("", |labels| labels.as_str());
        let labels = labels.split(',').map(|label| label.trim().trim_matches('"').to_owned());
        let family = Family {
            labels: labels.filter(|label| !label.is_empty()).collect(),
            is_histogram: found[2].contains("Histogram"),
        };
        (format!("tidegate_{}", &found[1]), family)
    };
    declared.captures_iter(&source).map(family).collect()
}

/// Whether a word stands in the sources as a literal, or as a verdict of limits: the values of labels such as `reason` do.
pub(crate) fn is_written(word: &str) -> bool {
    if text("src/throttle/tally.rs").contains(&format!("\n    {word},\n")) {
        return true;
    }
    let quoted = format!("\"{word}\"");
    let sources = files("src", ".rs");
    sources
        .iter()
        .any(|file| std::fs::read_to_string(file).unwrap().contains(&quoted))
}

#[test]
fn every_metric_is_read_from_its_declaration() {
    let source = text("src/telemetry/metrics.rs");
    let fields = Regex::new(r"(?m)^    (\w+): \w*(?:Counter|Gauge|Histogram)\w* =").unwrap();
    let fields: Vec<_> = fields
        .captures_iter(&source)
        .map(|field| format!("tidegate_{}", &field[1]))
        .collect();
    let families = families();
    assert!(fields.len() >= 27, "{fields:?}");
    let unread: Vec<_> = fields.iter().filter(|name| !families.contains_key(*name)).collect();
    assert!(unread.is_empty(), "declared in a way that is not read here: {unread:?}");
    assert_eq!(families.len(), fields.len());
}

#[test]
fn what_is_read_is_what_is_exported() {
    METRICS.request_seconds.with_label_values(&["a"]).observe(1.0);
    METRICS.throttle_total.with_label_values(&["a", "allowed"]).inc();
    let (families, shown) = (families(), METRICS.render());
    for name in shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = name.split_once(' ').unwrap();
        assert_eq!(families[name].is_histogram, kind == "histogram", "{name}");
    }
    assert_eq!(families["tidegate_throttle_total"].labels, ["limit", "verdict"]);
    assert!(
        shown.contains("tidegate_throttle_total{limit=\"a\",verdict=\"allowed\"} 1"),
        "{shown}"
    );
}
