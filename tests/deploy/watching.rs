//! Alerts and the dashboard: they ask for what the binary exports, and say what they mean.

use std::collections::BTreeSet;
use std::process::Command;

use regex::Regex;
use serde_json::Value as Json;

use crate::query::unknown;
use crate::{at, document, list, path, skip, string, text};

const DASHBOARD: &str = "deploy/grafana/dashboards/tidegate.json";
const ALERTS: &str = "deploy/prometheus/alerts.yaml";

struct Alert {
    name: String,
    expr: String,
    severity: String,
    summary: String,
    description: String,
}

fn alerts() -> Vec<Alert> {
    let file = document(ALERTS);
    let groups = list(at(&file, "groups"));
    let rules = groups.iter().flat_map(|group| list(at(group, "rules")));
    let words = |rule, keys| string(at(rule, keys)).to_owned();
    let alert = |rule| Alert {
        name: words(rule, "alert"),
        expr: words(rule, "expr"),
        severity: words(rule, "labels.severity"),
        summary: words(rule, "annotations.summary"),
        description: words(rule, "annotations.description"),
    };
    rules.map(alert).collect()
}

fn dashboard() -> Json {
    serde_json::from_str(&text(DASHBOARD)).unwrap()
}

/// Every query of the dashboard, with the legend of its result.
fn queries(value: &Json, found: &mut Vec<(String, String)>) {
    match value {
        Json::Object(map) => {
            let word = |key: &str| map.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
            for key in ["expr", "definition"] {
                if map.contains_key(key) {
                    found.push((word(key), word("legendFormat") + &word("titleFormat")));
                }
            }
            map.values().for_each(|value| queries(value, found));
        }
        Json::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

fn panels(dashboard: &Json) -> Vec<&Json> {
    dashboard["panels"].as_array().unwrap().iter().collect()
}

#[test]
fn alerts_ask_for_what_is_exported() {
    let faults = alerts().into_iter().flat_map(|alert| {
        let faults = unknown(&alert.expr, &(alert.summary + &alert.description));
        faults.into_iter().map(move |fault| format!("{}: {fault}", alert.name))
    });
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn an_alert_says_how_bad_it_is_and_what_to_do_first() {
    for alert in alerts() {
        assert!(alert.name.starts_with("Tidegate"), "{}", alert.name);
        assert!(
            ["critical", "warning", "info"].contains(&alert.severity.as_str()),
            "{}",
            alert.name
        );
        assert!(alert.summary.len() > 15 && alert.summary.len() < 140, "{}", alert.name);
        assert!(
            alert.description.to_lowercase().contains("first "),
            "{}: {}",
            alert.name,
            alert.description
        );
        assert!(
            alert.description.len() < 520,
            "{}: nobody reads so much at night",
            alert.name
        );
    }
}

#[test]
fn every_alert_is_seen_to_fire_by_its_tests() {
    let tests = text("deploy/prometheus/alerts_test.yaml");
    let fired = Regex::new(r#"value: 1, labels: 'ALERTS\{alertname="(\w+)""#).unwrap();
    let fired: BTreeSet<_> = fired.captures_iter(&tests).map(|alert| alert[1].to_owned()).collect();
    let alerts: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(fired, alerts);
}

#[test]
fn the_series_of_the_tests_are_series_that_are_exported() {
    let file = document("deploy/prometheus/alerts_test.yaml");
    let tests = list(at(&file, "tests"));
    let series = tests.iter().flat_map(|test| list(at(test, "input_series")));
    let faults = series.flat_map(|series| unknown(string(at(series, "series")), ""));
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn metrics_named_in_comments_and_texts_are_exported() {
    let named = Regex::new(r"tidegate_\w+").unwrap();
    for file in [ALERTS, "deploy/README.md"] {
        for name in named.find_iter(&text(file)) {
            let as_part = format!("{}_count", name.as_str());
            let known = unknown(name.as_str(), "").is_empty() || unknown(&as_part, "").is_empty();
            assert!(known, "{file}: {}", name.as_str());
        }
    }
}

#[test]
fn alerts_named_elsewhere_are_alerts() {
    let named = Regex::new(r"\bTidegate[A-Z]\w+").unwrap();
    let alerts: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    for file in ["deploy/README.md", "deploy/kubernetes/configmap.yaml"] {
        for name in named.find_iter(&text(file)) {
            assert!(alerts.contains(name.as_str()), "{file}: {}", name.as_str());
        }
    }
}

#[test]
fn the_dashboard_asks_for_what_is_exported() {
    let mut found = Vec::new();
    queries(&dashboard(), &mut found);
    assert!(found.len() > 40, "{}", found.len());
    let faults = found.iter().flat_map(|(query, legend)| {
        let faults = unknown(query, legend);
        faults.into_iter().map(move |fault| format!("{query}: {fault}"))
    });
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: another panel has its id"
        );
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"].as_str().is_some_and(|text| text.len() > 20),
            "{title}"
        );
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert!(
                target["legendFormat"].as_str().is_some_and(|text| !text.is_empty()),
                "{title}"
            );
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn panels_stand_beside_each_other_and_rows_are_not_empty() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let place = |panel: &Json, key: &str| panel["gridPos"][key].as_u64().unwrap();
    let span = |panel: &Json, from: &str, size: &str| place(panel, from)..place(panel, from) + place(panel, size);
    let meet = |a: std::ops::Range<u64>, b: std::ops::Range<u64>| a.start < b.end && b.start < a.end;
    for (index, a) in panels.iter().enumerate() {
        assert!(span(a, "x", "w").end <= 24, "{}", a["title"]);
        for b in &panels[index + 1..] {
            let overlap = meet(span(a, "x", "w"), span(b, "x", "w")) && meet(span(a, "y", "h"), span(b, "y", "h"));
            assert!(!overlap, "{} and {}", a["title"], b["title"]);
        }
    }
    let rows: Vec<_> = panels.iter().map(|panel| panel["type"] == "row").collect();
    assert!(rows[0] && !rows[rows.len() - 1]);
    assert!(rows.windows(2).all(|pair| pair != [true, true]), "a row without panels");
}

/// Prometheus itself reads them: as rules, since it has no other way to be asked without running.
#[test]
fn the_queries_of_the_dashboard_are_queries() {
    let mut found = Vec::new();
    queries(&dashboard(), &mut found);
    let rules = found.iter().filter(|(query, _)| !query.starts_with("label_values("));
    let rules = rules.enumerate().map(|(number, (query, _))| {
        let query = query
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*")
            .replace("$route", ".*");
        assert!(!query.contains('$'), "{query}");
        serde_json::json!({ "record": format!("panel:{number}"), "expr": query })
    });
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let rules = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules.collect::<Vec<_>>() }] });
    std::fs::write(file.path(), rules.to_string()).unwrap();
    match Command::new("promtool")
        .args(["check", "rules", "--lint=none"])
        .arg(file.path())
        .output()
    {
        Ok(said) => assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr)),
        Err(error) => skip(&format!("promtool cannot be run: {error}")),
    }
}

#[test]
fn grafana_finds_the_dashboard_and_the_data() {
    let provider = document("deploy/grafana/provisioning/dashboards/tidegate.yaml");
    let folder = string(at(&provider, "providers.0.options.path"));
    let compose = document("deploy/compose.yaml");
    let mounted = list(at(&compose, "services.grafana.volumes"));
    let mount = format!("./grafana/dashboards:{folder}:ro");
    assert!(mounted.iter().any(|volume| string(volume) == mount), "{mounted:?}");
    let home = string(at(
        &compose,
        "services.grafana.environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH",
    ));
    assert_eq!(home, format!("{folder}/tidegate.json"));
    assert!(path(DASHBOARD).is_file());
    let source = document("deploy/grafana/provisioning/datasources/prometheus.yaml");
    assert_eq!(at(&source, "datasources.0.url"), "http://prometheus:9090");
    let scraped = document("deploy/prometheus/prometheus.yaml");
    assert_eq!(
        at(&source, "datasources.0.jsonData.timeInterval"),
        at(&scraped, "global.scrape_interval")
    );
}
