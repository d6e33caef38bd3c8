//! The manifests: they fit together, and what they mount is what the gateway reads.

use serde_yaml::Value;

use crate::{at, document, documents, entries, files, list, path, string};

fn manifests() -> Vec<Value> {
    let root = path("");
    let relative = |file: &std::path::PathBuf| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    let files = files("deploy/kubernetes", ".yaml");
    files.iter().flat_map(|file| documents(&relative(file))).collect()
}

/// The one manifest of a kind and name.
pub(crate) fn manifest(kind: &str, name: &str) -> Value {
    let wanted = |manifest: &&Value| at(manifest, "kind") == kind && at(manifest, "metadata.name") == name;
    let all = manifests();
    all.iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
        .clone()
}

fn deployment() -> Value {
    manifest("Deployment", "tidegate")
}

fn process() -> Value {
    let map = manifest("ConfigMap", "tidegate-process");
    serde_yaml::from_str(string(&at(&map, "data")["tidegate.yaml"])).unwrap()
}

fn port(name: &str) -> u64 {
    let deployment = deployment();
    let ports = list(at(&deployment, "spec.template.spec.containers.0.ports"));
    let port = ports.iter().find(|port| at(port, "name") == name);
    at(port.unwrap_or_else(|| panic!("no port {name}")), "containerPort")
        .as_u64()
        .unwrap()
}

#[test]
fn everything_selects_the_gateways() {
    let labels = at(&deployment(), "spec.template.metadata.labels").clone();
    for (manifest, selector) in [
        (deployment(), "spec.selector.matchLabels"),
        (manifest("Service", "tidegate"), "spec.selector"),
        (manifest("PodDisruptionBudget", "tidegate"), "spec.selector.matchLabels"),
        (manifest("NetworkPolicy", "tidegate"), "spec.podSelector.matchLabels"),
    ] {
        assert_eq!(*at(&manifest, selector), labels, "{selector}");
    }
    assert!(at(&deployment(), "spec.replicas").as_u64().unwrap() >= 2);
    assert_eq!(manifests().len(), 6);
}

#[test]
fn ports_are_those_of_the_process_file() {
    let process = process();
    let bound = |bind: &Value| string(bind).rsplit_once(':').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(bound(at(&process, "listeners.0.bind")), port("http"));
    assert_eq!(bound(at(&process, "admin.bind")), port("admin"));
}

/// The alerts go by the job's name, so both ways of scraping give the gateways that one.
#[test]
fn gateways_are_scraped_as_the_job_of_the_alerts() {
    let labels = at(&deployment(), "spec.template.metadata.labels").clone();
    let monitor = document("deploy/prometheus/podmonitor.yaml");
    assert_eq!(string(&labels[string(at(&monitor, "spec.jobLabel"))]), "tidegate");
    assert_eq!(*at(&monitor, "spec.selector.matchLabels"), labels);
    assert!(port(string(at(&monitor, "spec.podMetricsEndpoints.0.port"))) > 0);
    let discovered = document("deploy/prometheus/kubernetes.yaml");
    assert_eq!(at(&discovered, "scrape_configs.0.job_name"), "tidegate");
    let kept = string(at(&discovered, "scrape_configs.0.relabel_configs.0.regex"));
    let (name, named) = kept.split_once(';').unwrap();
    assert_eq!(string(&labels["app.kubernetes.io/name"]), name);
    assert!(port(named) > 0);
}

#[test]
fn probes_ask_the_operators_listener() {
    let deployment = deployment();
    let container = at(&deployment, "spec.template.spec.containers.0");
    for (probe, asked) in [
        ("startupProbe", "/readyz"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/healthz"),
    ] {
        assert_eq!(at(container, &format!("{probe}.httpGet.path")), asked, "{probe}");
        assert_eq!(at(container, &format!("{probe}.httpGet.port")), "admin", "{probe}");
    }
}

#[test]
fn the_operators_listener_is_no_service_and_prometheus_alone_reaches_it() {
    let service = manifest("Service", "tidegate");
    let ports: Vec<_> = list(at(&service, "spec.ports"))
        .iter()
        .map(|port| at(port, "targetPort").clone())
        .collect();
    assert_eq!(ports, ["http"]);
    let policy = manifest("NetworkPolicy", "tidegate");
    for rule in list(at(&policy, "spec.ingress")) {
        let ports = list(at(rule, "ports"));
        let admin = ports.iter().any(|allowed| at(allowed, "port") != "http");
        assert_eq!(rule.get("from").is_some(), admin, "{rule:?}");
    }
}

#[test]
fn a_gateway_may_do_nothing_it_need_not() {
    let deployment = deployment();
    let pod = at(&deployment, "spec.template.spec");
    let container = at(pod, "containers.0.securityContext");
    assert_eq!(*at(pod, "securityContext.runAsNonRoot"), true);
    assert_eq!(at(pod, "securityContext.seccompProfile.type"), "RuntimeDefault");
    assert_eq!(*at(pod, "automountServiceAccountToken"), false);
    assert_eq!(*at(container, "allowPrivilegeEscalation"), false);
    assert_eq!(*at(container, "readOnlyRootFilesystem"), true);
    assert_eq!(at(container, "capabilities.drop.0"), "ALL");
    assert!(at(pod, "containers.0.resources.limits.memory").is_string());
    let asked = at(pod, "containers.0.resources.requests.cpu")
        .as_str()
        .map(str::to_owned);
    assert_eq!(
        asked,
        at(&process(), "threads").as_u64().map(|threads| threads.to_string())
    );
}

/// A change of a mounted folder is a swap of a symlink, which reaches the gateway; of a single file it never would.
#[test]
fn what_is_mounted_are_whole_folders_of_maps_that_exist() {
    let deployment = deployment();
    let pod = at(&deployment, "spec.template.spec");
    let mounts = list(at(pod, "containers.0.volumeMounts"));
    for volume in list(at(pod, "volumes")) {
        let map = string(at(volume, "configMap.name"));
        assert!(!entries(at(&manifest("ConfigMap", map), "data")).is_empty());
        let mount = mounts
            .iter()
            .find(|mount| at(mount, "name") == at(volume, "name"))
            .unwrap();
        assert!(mount.get("subPath").is_none(), "{mount:?}");
    }
    let arguments = list(at(pod, "containers.0.args"));
    assert_eq!(arguments.last().unwrap(), "/etc/tidegate/process/tidegate.yaml");
}
