//! Whoever stops a gateway gives it the time that it takes to finish what it has begun.

use std::time::Duration;

use regex::Regex;
use serde_yaml::Value;

use crate::kubernetes::manifest;
use crate::{at, document, string, text};

/// The bound on a process's last moments: what requests get, and then the access log.
fn last_moments(process: &Value) -> Duration {
    let written = string(at(process, "timeouts.drain"));
    let drain: u64 = written.strip_suffix('s').unwrap().parse().unwrap();
    Duration::from_secs(drain) + flush()
}

/// As the sources say.
fn flush() -> Duration {
    let bound = Regex::new(r"FLUSH_WITHIN: Duration = Duration::from_secs\((\d+)\)").unwrap();
    let source = text("src/server.rs");
    Duration::from_secs(bound.captures(&source).unwrap()[1].parse().unwrap())
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or_else(|| panic!("not seconds: {value:?}")))
}

#[test]
fn compose_waits() {
    let needed = last_moments(&document("deploy/conf/tidegate.yaml"));
    let compose = document("deploy/compose.yaml");
    for gateway in ["gateway-1", "gateway-2"] {
        let given = string(at(&compose, &format!("services.{gateway}.stop_grace_period")));
        let given: u64 = given.strip_suffix('s').unwrap().parse().unwrap();
        assert!(Duration::from_secs(given) > needed, "{gateway}: {given}s of {needed:?}");
    }
}

#[test]
fn kubernetes_waits() {
    let map = manifest("ConfigMap", "tidegate-process");
    let process: Value = serde_yaml::from_str(string(&at(&map, "data")["tidegate.yaml"])).unwrap();
    let deployment = manifest("Deployment", "tidegate");
    let pod = at(&deployment, "spec.template.spec");
    let before = seconds(at(pod, "containers.0.lifecycle.preStop.sleep.seconds"));
    assert!(before >= Duration::from_secs(5), "nodes take seconds to hear of it");
    let given = seconds(at(pod, "terminationGracePeriodSeconds"));
    assert!(given > before + last_moments(&process), "{given:?}");
}

#[test]
fn systemd_waits_and_asks_in_the_right_way() {
    let unit = text("deploy/systemd/tidegate.service");
    let values = |key: &str| -> Vec<&str> {
        let lines = unit.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(found, _)| *found == key)
            .map(|(_, value)| value)
            .collect()
    };
    let given: u64 = values("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    let drain = tidegate::config::raw::Timeouts::default().drain.0;
    assert!(Duration::from_secs(given) > drain + flush(), "{given}");
    assert_eq!(values("KillSignal"), ["SIGTERM"]);
    assert_eq!(values("ExecReload").last(), Some(&"/bin/kill -HUP $MAINPID"));
    assert_eq!(values("CapabilityBoundingSet"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(values("NoNewPrivileges"), ["yes"]);
    assert_eq!(values("ProtectSystem"), ["strict"]);
    let files: usize = values("LimitNOFILE")[0].parse().unwrap();
    assert!(
        files > 2 * tidegate::config::raw::Limits::default().connections,
        "{files}"
    );
}
