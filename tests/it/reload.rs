//! New rules while requests go on: applied whole, or refused whole and named.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::client::{Raw, browser, header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Origin, answer};
use crate::support::{PATIENCE, eventually};

/// How soon a saved file is in force.
const WITHIN: Duration = Duration::from_secs(1);

/// How often the rules change under load, and how many of these changes are broken.
const RELOADS: usize = 200;
const BROKEN_EVERY: usize = 10;

/// Rules that answer with their version, which two steps of the chain must agree on.
fn version(origin: &Origin, version: usize) -> String {
    origin.rules_with(
        "",
        &format!(
            "[request_headers: {{ set: {{ x-version: \"{version}\" }} }}, \
             response_headers: {{ set: {{ x-version: \"{version}\" }} }}]"
        ),
    )
}

/// Writes a file as editors do: beside it, and then into its place.
fn save(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

fn rules_file(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("rules/rules.yaml")
}

async fn current(gateway: &Gateway) -> String {
    header(&plain().get(gateway.url("/")).send().await.unwrap(), "x-version").to_owned()
}

async fn turns_to(gateway: &Gateway, version: &str) -> Duration {
    let begun = Instant::now();
    let what = format!("version {version} of the rules");
    eventually(&what, PATIENCE, async || {
        (current(gateway).await == version).then_some(())
    })
    .await;
    begun.elapsed()
}

async fn reloads(gateway: &Gateway, outcome: &str) -> f64 {
    gateway
        .metric(&format!("tidegate_config_reloads_total{{outcome=\"{outcome}\"}}"))
        .await
}

#[tokio::test]
async fn a_saved_file_is_in_force_within_a_second() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&version(&origin, 1)).await;
    assert_eq!(current(&gateway).await, "1");
    for (number, replace) in [(2, true), (3, false)] {
        let text = version(&origin, number);
        if replace {
            save(&rules_file(&gateway), &text);
        } else {
            std::fs::write(rules_file(&gateway), text).unwrap();
        }
        let took = turns_to(&gateway, &number.to_string()).await;
        assert!(took < WITHIN, "{took:?}");
    }
    assert_eq!(gateway.metric("tidegate_plan_generation").await, 3.0);
    assert_eq!(
        (reloads(&gateway, "applied").await, reloads(&gateway, "refused").await),
        (2.0, 0.0)
    );
}

#[tokio::test]
async fn a_new_file_and_one_that_goes_are_changes_too() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&version(&origin, 1)).await;
    let more = gateway.dir().join("rules/more.yaml");
    save(
        &more,
        "routes: [{ name: more, match: { path: /more }, chain: [respond: { status: 204 }] }]",
    );
    let status = async |wanted: u16| {
        eventually("the other file is heard of", PATIENCE, async || {
            let status = plain().get(gateway.url("/more")).send().await.unwrap().status();
            (status == wanted).then_some(())
        })
        .await;
    };
    status(204).await;
    std::fs::remove_file(more).unwrap();
    status(200).await;
}

#[tokio::test]
async fn a_hangup_reads_everything_again() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&version(&origin, 1)).await;
    gateway.signal("HUP");
    gateway.says("rules reloaded: plan 2 runs").await;
    assert_eq!(current(&gateway).await, "1");
}

/// Rules of a full room with a page in a directory of its own.
fn with_page(origin: &Origin) -> String {
    let room = "rooms: { hall: { mode: hold, capacity: { visitors: 1 }, page: pages/hall.html } }\n";
    let rules = origin.rules_with("", "[waiting_room: { room: hall }]");
    // Pages stand beside the file that names them.
    [room, &rules].concat()
}

async fn page_says(gateway: &Gateway, text: &str) {
    eventually(&format!("the page says {text}"), PATIENCE, async || {
        let asked = plain().get(gateway.url("/")).header("accept", "text/html");
        let page = asked.send().await.unwrap().text().await.unwrap();
        page.contains(text).then_some(())
    })
    .await;
}

fn save_page(gateway: &Gateway, text: &str) {
    let page = gateway.dir().join("rules/pages/hall.html");
    save(&page, &format!("<!doctype html><title>{text}</title>\n"));
}

#[tokio::test]
async fn a_page_that_was_refused_with_its_rules_is_heard_of_when_it_is_mended() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&version(&origin, 1)).await;
    std::fs::create_dir(gateway.dir().join("rules/pages")).unwrap();
    save_page(&gateway, "{{ posision }}");
    save(&rules_file(&gateway), &with_page(&origin));
    gateway.says("rules refused").await;
    gateway.says("1 fault").await;
    save_page(&gateway, "mended");
    page_says(&gateway, "mended").await;
}

/// As Kubernetes exchanges a mounted directory: a link to a link, of which the inner one is replaced.
#[tokio::test]
async fn a_directory_exchanged_by_its_link_is_heard_of() {
    let origin = Origin::saying("hello").await;
    let setup = Setup::new("").process("rules: [mounted/rules.yaml]");
    let setup = setup
        .file("v1/rules.yaml", &version(&origin, 1))
        .file("v2/rules.yaml", &version(&origin, 2));
    let mounted = setup.dir().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    symlink("../v1", mounted.join("..data")).unwrap();
    symlink("..data/rules.yaml", mounted.join("rules.yaml")).unwrap();
    let gateway = setup.start().await;
    assert_eq!(current(&gateway).await, "1");
    symlink("../v2", mounted.join("..next")).unwrap();
    std::fs::rename(mounted.join("..next"), mounted.join("..data")).unwrap();
    let took = turns_to(&gateway, "2").await;
    assert!(took < WITHIN, "{took:?}");
}

/// As a release is exchanged: the folder of the rules is itself the link.
#[tokio::test]
async fn a_folder_that_is_a_link_and_is_pointed_elsewhere_is_heard_of() {
    let origin = Origin::saying("hello").await;
    let setup = Setup::new("").process("rules: [current/*.yaml]");
    let setup = setup
        .file("v1/rules.yaml", &version(&origin, 1))
        .file("v2/rules.yaml", &version(&origin, 2));
    symlink("v1", setup.dir().join("current")).unwrap();
    let gateway = setup.start().await;
    assert_eq!(current(&gateway).await, "1");
    let next = gateway.dir().join("next");
    symlink("v2", &next).unwrap();
    std::fs::rename(next, gateway.dir().join("current")).unwrap();
    turns_to(&gateway, "2").await;
}

#[tokio::test]
async fn a_folder_that_was_empty_or_gone_for_a_while_is_heard_of_when_it_is_filled_again() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&version(&origin, 1)).await;
    let (folder, aside) = (gateway.dir().join("rules"), gateway.dir().join("aside"));
    let mut refused = 0.0;
    for number in [2, 4] {
        if number == 2 {
            std::fs::rename(rules_file(&gateway), &aside).unwrap();
        } else {
            std::fs::rename(&folder, gateway.dir().join("gone")).unwrap();
        }
        refused += 1.0;
        eventually("rules that are not there are refused", PATIENCE, async || {
            (reloads(&gateway, "refused").await >= refused).then_some(())
        })
        .await;
        let before = if number == 2 { "1" } else { "3" };
        assert_eq!(current(&gateway).await, before, "what runs goes on");
        std::fs::create_dir_all(&folder).unwrap();
        for number in [number, number + 1] {
            save(&rules_file(&gateway), &version(&origin, number));
            turns_to(&gateway, &number.to_string()).await;
        }
    }
}

#[tokio::test]
async fn broken_rules_are_refused_by_name_and_the_old_ones_stay() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&version(&origin, 1)).await;
    let broken = version(&origin, 2).replace("upstream: app", "upstrem: app");
    save(&rules_file(&gateway), &broken);
    eventually("the refusal is counted", PATIENCE, async || {
        (reloads(&gateway, "refused").await == 1.0).then_some(())
    })
    .await;
    gateway.says("rules refused, the old ones stay").await;
    let said = gateway.says("did you mean `upstream`?").await;
    assert!(said.contains("rules.yaml:8:5: "), "{said}");
    assert_eq!(current(&gateway).await, "1");
    save(&rules_file(&gateway), &version(&origin, 3));
    turns_to(&gateway, "3").await;
}

#[tokio::test]
async fn what_a_limit_has_counted_survives_a_reload() {
    let origin = Origin::saying("hello").await;
    let rules = |mark: &str| {
        origin.rules_with(
            "",
            &format!(
                "[rate_limit: {{ name: few, key: client_ip, limit: 3/h }}, \
                 response_headers: {{ set: {{ x-version: \"{mark}\" }} }}]"
            ),
        )
    };
    let gateway = Gateway::start(&rules("1")).await;
    let ask = async || plain().get(gateway.url("/")).send().await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask().await.status(), 200);
    }
    save(&rules_file(&gateway), &rules("2"));
    gateway.says("rules reloaded: plan 2 runs").await;
    let third = ask().await;
    assert_eq!((third.status().as_u16(), header(&third, "x-version")), (200, "2"));
    assert_eq!(ask().await.status(), 429);
}

#[tokio::test]
async fn a_room_keeps_its_queue_over_a_reload() {
    let origin = Origin::saying("hello").await;
    let rules = |status: u16| {
        format!(
            "rooms: {{ hall: {{ capacity: {{ visitors: 1 }}, status: {status} }} }}\n{}",
            origin.rules_with("", "[waiting_room: { room: hall }]")
        )
    };
    let gateway = Gateway::start(&rules(200)).await;
    let ask = async |client: &reqwest::Client| {
        let answer = client
            .get(gateway.url("/"))
            .header("accept", "text/html")
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap() == "hello")
    };
    let (first, second) = (browser(), browser());
    assert_eq!(ask(&first).await, (200, true));
    assert_eq!(ask(&second).await, (200, false), "the second waits");
    save(&rules_file(&gateway), &rules(202));
    gateway.says("rules reloaded: plan 2 runs").await;
    assert_eq!(ask(&first).await, (200, true), "the first is still inside");
    assert_eq!(
        ask(&second).await,
        (202, false),
        "the second still waits, under the new rule"
    );
    assert_eq!(ask(&browser()).await, (202, false));
    let status = second.get(gateway.url("/queue/status")).send().await.unwrap();
    assert_eq!(status.json::<serde_json::Value>().await.unwrap()["position"], 1);
}

/// What a client under load has seen.
#[derive(Default)]
struct Tally {
    by_version: BTreeMap<String, usize>,
    failures: String,
    last: usize,
}

impl Tally {
    /// The version in the answer must be the one that the server was sent, and never an older one than before.
    fn note(&mut self, answer: Option<(u16, String, String)>) {
        let Some((status, told, sent)) = answer else {
            return writeln!(self.failures, "no answer").unwrap();
        };
        let number = told.parse().unwrap_or(0);
        if status != 200 || told != sent || number < self.last {
            writeln!(
                self.failures,
                "{status}: told {told:?}, sent {sent:?}, after {}",
                self.last
            )
            .unwrap();
        }
        self.last = number;
        *self.by_version.entry(told).or_default() += 1;
    }
}

/// Asks again and again on one connection, or on a new one each time.
fn load(gateway: &Gateway, stop: &Arc<AtomicBool>, keep: bool) -> JoinHandle<Tally> {
    let (address, stop) = (gateway.http(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut tally = Tally::default();
        let mut client = Raw::connect(address).await;
        while !stop.load(Ordering::Relaxed) {
            if !keep {
                client = Raw::connect(address).await;
            }
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let answer = client.try_answer(true).await;
            let parts = answer.map(|answer| {
                let told = answer.value("x-version").unwrap_or_default().to_owned();
                (answer.status, told, answer.body)
            });
            tally.note(parts);
        }
        tally
    })
}

/// Rules behind a chain of links, in a directory that nobody watches: they change when a signal says so, and so every
/// change is counted once.
struct Versions {
    far: PathBuf,
}

impl Versions {
    fn new(setup: &Setup, first: &str) -> Self {
        let versions = Self {
            far: setup.dir().join("far"),
        };
        std::fs::create_dir(&versions.far).unwrap();
        versions.publish(1, first);
        symlink("../far/current/deep/rules.yaml", setup.dir().join("rules/linked.yaml")).unwrap();
        versions
    }

    fn publish(&self, number: usize, text: &str) {
        let directory = format!("v{number}");
        let deep = self.far.join(&directory).join("deep");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("rules.yaml"), text).unwrap();
        symlink(&directory, self.far.join("next")).unwrap();
        std::fs::rename(self.far.join("next"), self.far.join("current")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_request_fails_and_none_sees_half_of_a_reload() {
    let origin = Origin::scripted(|request| {
        let version = request.value("x-version").unwrap_or_default().to_owned();
        answer("200 OK", &[], &version)
    })
    .await;
    let setup = Setup::new("").process("threads: 2\naccess_log: { to: off }\nrules: [rules/linked.yaml]");
    let versions = Versions::new(&setup, &version(&origin, 1));
    let gateway = setup.start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [true, true, false].map(|keep| load(&gateway, &stop, keep)).into();
    let mut broken = 0;
    for number in 2..RELOADS + 2 {
        let is_broken = number % BROKEN_EVERY == 0;
        let text = version(&origin, number);
        versions.publish(
            number,
            &if is_broken {
                text.replace("chain", "chian")
            } else {
                text
            },
        );
        gateway.signal("HUP");
        broken += usize::from(is_broken);
        let done = number - 1;
        eventually("the reload is over", PATIENCE, async || {
            let (applied, refused) = (reloads(&gateway, "applied").await, reloads(&gateway, "refused").await);
            ((applied + refused) as usize >= done).then_some(())
        })
        .await;
    }
    assert_eq!(current(&gateway).await, (RELOADS + 1).to_string());
    stop.store(true, Ordering::Relaxed);
    let mut requests = 0;
    for client in clients {
        let tally = client.await.unwrap();
        assert_eq!(tally.failures, "");
        assert!(
            tally.by_version.len() > RELOADS / 10,
            "the load went on while the rules changed"
        );
        requests += tally.by_version.values().sum::<usize>();
    }
    assert_eq!(reloads(&gateway, "refused").await as usize, broken);
    println!("{requests} requests over {RELOADS} reloads, {broken} of them broken");
}

/// Were it asked for in the background, the first requests would find no server.
#[tokio::test]
async fn a_name_is_known_before_the_first_request_and_before_new_rules_run() {
    let origin = Origin::saying("hello").await;
    let port = origin.address.port();
    let rules = |server: &str| {
        format!(
            "upstreams: {{ app: {{ servers: [\"{server}\"] }} }}\nroutes: [{{ name: all, chain: [], upstream: app }}]\n"
        )
    };
    let gateway = Gateway::start(&rules(&format!("localhost:{port}"))).await;
    assert_eq!(Raw::connect(gateway.http()).await.get("/").await.status, 200);
    std::fs::write(gateway.dir().join("rules/rules.yaml"), rules("nowhere.invalid:80")).unwrap();
    gateway.says("plan 2 runs").await;
    gateway.says("server nowhere.invalid:80 cannot be resolved").await;
    assert_eq!(Raw::connect(gateway.http()).await.get("/").await.status, 502);
    std::fs::write(
        gateway.dir().join("rules/rules.yaml"),
        rules(&format!("localhost:{port}")),
    )
    .unwrap();
    gateway.says("plan 3 runs").await;
    assert_eq!(Raw::connect(gateway.http()).await.get("/").await.status, 200);
}
