//! Queries of Prometheus, as far as they speak of metrics and labels: do those exist?

use std::collections::BTreeSet;

use regex::Regex;

use crate::exported::{families, is_written};

/// Labels that Prometheus adds when it scrapes; `fleet` where it was told to.
const SCRAPED: [&str; 3] = ["instance", "job", "fleet"];

/// Labels whose values are words of the sources.
const WORDS: [&str; 6] = ["kind", "mode", "outcome", "reason", "script", "verdict"];

/// Everything in a query, and in the text that shows its result, that the binary does not export.
pub(crate) fn unknown(query: &str, shown_as: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: BTreeSet<String> = SCRAPED.map(str::to_owned).into();
    for selector in selectors(query) {
        match labels_of(&selector.metric) {
            Ok(labels) => {
                faults.extend(selector.misfits(&labels));
                known.extend(labels);
            }
            Err(fault) => faults.push(fault),
        }
    }
    let grouped = grouped(query, r"by|without|on|ignoring|group_left|group_right");
    faults.extend(
        grouped
            .difference(&known)
            .map(|label| format!("nothing here has the label `{label}` to group by")),
    );
    // What is summed up by some labels has no others left; `group_left` keeps those of what stands before it.
    let many = query.split("group_left").next().unwrap_or_default();
    let kept = self::grouped(many, "by");
    let left = if kept.is_empty() { &known } else { &kept };
    let shown = Regex::new(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}").unwrap();
    let shown = shown.captures_iter(shown_as).map(|label| label[1].to_owned());
    faults.extend(
        shown
            .filter(|label| !left.contains(label))
            .map(|label| format!("the result has no label `{label}` to show")),
    );
    faults
}

/// A metric of ours in a query, and what is between its braces.
struct Selector {
    metric: String,
    matchers: String,
}

fn selectors(query: &str) -> Vec<Selector> {
    let ours = Regex::new(r"\b(tidegate_\w+)(?:\{([^}]*)\})?").unwrap();
    let selector = |found: regex::Captures<'_>| Selector {
        metric: found[1].to_owned(),
        matchers: found.get(2).map_or("", |inside| inside.as_str()).to_owned(),
    };
    ours.captures_iter(query).map(selector).collect()
}

impl Selector {
    fn misfits(&self, labels: &BTreeSet<String>) -> Vec<String> {
        let matcher = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
        let mut faults = Vec::new();
        for found in matcher.captures_iter(&self.matchers) {
            let (label, values) = (&found[1], &found[2]);
            if !labels.contains(label) && !SCRAPED.contains(&label) {
                faults.push(format!("{} has no label `{label}`", self.metric));
            }
            if WORDS.contains(&label) {
                let strange = values.split('|').filter(|value| !is_written(value));
                faults.extend(strange.map(|value| format!("no {label} is called `{value}`")));
            }
        }
        faults
    }
}

/// The labels of an exported series: of a histogram's, those of its buckets, sum and count.
fn labels_of(series: &str) -> Result<BTreeSet<String>, String> {
    let families = families();
    let plain = families.get(series).filter(|family| !family.is_histogram);
    let part = ["_bucket", "_sum", "_count"]
        .into_iter()
        .find_map(|part| Some((families.get(series.strip_suffix(part)?)?, part)));
    let (family, part) = match (plain, part) {
        (Some(family), _) => (family, ""),
        (None, Some((family, part))) if family.is_histogram => (family, part),
        _ => return Err(format!("there is no series `{series}`")),
    };
    let edge = (part == "_bucket").then(|| "le".to_owned());
    Ok(family.labels.iter().cloned().chain(edge).collect())
}

fn grouped(query: &str, words: &str) -> BTreeSet<String> {
    let group = Regex::new(&format!(r"\b(?:{words})\s*\(([^)]*)\)")).unwrap();
    let labels = group.captures_iter(query).flat_map(|found| {
        found[1]
            .split(',')
            .map(|label| label.trim().to_owned())
            .collect::<Vec<_>>()
    });
    labels.filter(|label| !label.is_empty()).collect()
}

#[test]
fn a_query_of_what_there_is_has_no_fault() {
    for (query, shown_as) in [
        (
            "sum by (route) (rate(tidegate_requests_total{code=~\"5..\"}[5m]))",
            "{{route}}",
        ),
        (
            "histogram_quantile(0.9, sum by (le, room) (rate(tidegate_room_wait_seconds_bucket[5m])))",
            "{{room}}",
        ),
        (
            "tidegate_rejected_total{reason=~\"room_full|connections\"}",
            "{{ instance }} {{reason}}",
        ),
        ("up == 0", "{{ $labels.instance }}"),
        (
            "tidegate_fleet_gateways != on (fleet) group_left () count by (fleet) (up)",
            "{{ $labels.instance }}",
        ),
    ] {
        assert_eq!(unknown(query, shown_as), [""; 0], "{query}");
    }
}

#[test]
fn a_query_of_what_there_is_not_is_told_so() {
    for (query, shown_as) in [
        ("tidegate_request_total", ""),
        ("tidegate_request_seconds", ""),
        ("tidegate_store_up_count", ""),
        ("tidegate_requests_total{status=\"200\"}", ""),
        ("tidegate_throttle_total{verdict=\"admitted\"}", ""),
        ("tidegate_rejected_total{reason=~\"connections|no_such_reason\"}", ""),
        ("sum by (upstream) (tidegate_requests_total)", ""),
        ("sum by (route) (tidegate_requests_total)", "{{code}}"),
        ("tidegate_store_up", "{{ $labels.limit }}"),
        ("sum by (le) (tidegate_request_seconds_count)", ""),
    ] {
        assert_eq!(
            unknown(query, shown_as).len(),
            1,
            "{query}: {:?}",
            unknown(query, shown_as)
        );
    }
}
