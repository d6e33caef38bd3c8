//! A fleet of two gateways on one Redis, and everything that can happen to it. Whatever does: requests are answered, by
//! what the limits say, and at once; no client gets more than the fleet may give without a store; and afterwards the
//! fleet shares its limits again.

mod answers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::certificates::Authority;
use crate::support::client::plain;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually, soon};

/// What a client may have in an hour.
const LIMIT: u64 = 60;

/// A request waits for the store at most three times, 100 ms each; the rest is for a machine that has other things to
/// do.
const SLOWEST: Duration = Duration::from_millis(1_500);

/// Within this long after the store is back limits are shared again: an attempt to connect a second, and a call after
/// that; the rest is for the machine again.
const HEALED_WITHIN: Duration = Duration::from_secs(6);

/// For several servers to agree on another master, and then to heal.
const ELECTED_WITHIN: Duration = Duration::from_secs(20);

/// So long each client is there, at both gateways, while something happens to the store: then comes the next.
const CLIENT_STAYS: Duration = Duration::from_millis(250);

/// The first of these clients.
const FIRST_OF_LOAD: u64 = 1_000;

/// Two gateways, and requests at both of them until the test ends.
struct Fleet {
    gateways: [Gateway; 2],
    _origin: Origin,
    stop: Arc<AtomicBool>,
    load: Vec<JoinHandle<Tally>>,
}

/// What requests were answered.
#[derive(Debug, Default)]
struct Tally {
    admitted: BTreeMap<u64, u64>,
    statuses: BTreeMap<u16, u64>,
    slowest: Duration,
}

impl Fleet {
    async fn start(store: &str) -> Self {
        Self::with(|setup| setup.process(&format!("store: {{ redis: {store} }}"))).await
    }

    async fn with(configured: impl Fn(Setup) -> Setup) -> Self {
        let origin = Origin::saying("hello").await;
        let limit = format!("{{ name: each, key: {{ header: x-client }}, missing: reject, limit: {LIMIT}/h }}");
        let rules = origin.rules_with("", &format!("[rate_limit: {limit}]"));
        let setup = || configured(Setup::new(&rules)).process("throttle: { partitions: 4, cold_slots: 4096 }");
        let gateways = [setup().start().await, setup().start().await];
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let load = gateways
            .iter()
            .map(|gateway| tokio::spawn(load(gateway.url("/"), began, Arc::clone(&stop))));
        Self {
            load: load.collect(),
            gateways,
            _origin: origin,
            stop,
        }
    }

    async fn metric(&self, series: &str) -> [f64; 2] {
        [
            self.gateways[0].metric(series).await,
            self.gateways[1].metric(series).await,
        ]
    }

    /// Waits until both gateways say that the store does not answer.
    async fn is_cut_off(&self) {
        eventually("the gateways notice", PATIENCE, async || {
            (self.metric("tidegate_store_up").await == [0.0; 2]).then_some(())
        })
        .await;
        for gateway in &self.gateways {
            let answer = plain().get(gateway.admin_url("/readyz")).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }

    /// Waits until both are in touch with the store and know of each other, and gives how long that took.
    async fn is_whole(&self) -> Duration {
        self.is_whole_within(HEALED_WITHIN).await
    }

    async fn is_whole_within(&self, deadline: Duration) -> Duration {
        let start = Instant::now();
        let whole = async || {
            let up = self.metric("tidegate_store_up").await == [1.0; 2];
            (up && self.metric("tidegate_fleet_gateways").await == [2.0; 2]).then_some(())
        };
        eventually("the fleet is whole", deadline, whole).await;
        start.elapsed()
    }

    /// One client at both gateways gets all of a limit, and no more.
    async fn shares(&self, client: u64) {
        let mut admitted = 0;
        let whole = async || {
            for gateway in &self.gateways {
                admitted += u64::from(ask(&gateway.url("/"), client).await == 200);
            }
            (admitted >= LIMIT).then_some(())
        };
        eventually("a client gets what it may have", PATIENCE, whole).await;
        for _ in 0..10 {
            for gateway in &self.gateways {
                admitted += u64::from(ask(&gateway.url("/"), client).await == 200);
            }
        }
        assert_eq!(admitted, LIMIT, "one limit for the whole fleet");
    }

    /// Ends the requests and judges what they were answered.
    async fn end(self) -> [Gateway; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for load in self.load {
            let tally = soon("requests end", load).await.unwrap();
            for (client, admitted) in tally.admitted {
                *all.admitted.entry(client).or_default() += admitted;
            }
            for (status, count) in tally.statuses {
                *all.statuses.entry(status).or_default() += count;
            }
            all.slowest = all.slowest.max(tally.slowest);
        }
        let least = all.admitted.values().min();
        println!(
            "{:?}, at least {least:?} for a client, the slowest took {:?}",
            all.statuses, all.slowest
        );
        assert!(all.statuses.keys().all(|status| [200, 429].contains(status)), "{all:?}");
        assert!(all.slowest <= SLOWEST, "{all:?}");
        // The whole limit from the store, and then each gateway's share of it without one.
        assert!(all.admitted.values().all(|admitted| *admitted <= 2 * LIMIT), "{all:?}");
        self.gateways
    }
}

async fn load(url: String, began: Instant, stop: Arc<AtomicBool>) -> Tally {
    let (client, mut tally) = (plain(), Tally::default());
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let who = FIRST_OF_LOAD + (start.duration_since(began).as_millis() / CLIENT_STAYS.as_millis()) as u64;
        let answer = client.get(&url).header("x-client", who.to_string()).send().await;
        let status = answer.unwrap().status().as_u16();
        tally.slowest = tally.slowest.max(start.elapsed());
        *tally.statuses.entry(status).or_default() += 1;
        *tally.admitted.entry(who).or_default() += u64::from(status == 200);
        tokio::task::yield_now().await;
    }
    tally
}

async fn ask(url: &str, client: u64) -> u16 {
    let request = plain().get(url).header("x-client", client.to_string());
    request.send().await.unwrap().status().as_u16()
}

/// A fleet in good order, something that happens to its store, and what ends it. Ends with the gateways' logs.
async fn survives(
    mut server: Redis,
    happens: impl AsyncFn(&mut Redis),
    ends: impl AsyncFn(&mut Redis, &Fleet),
) -> Vec<String> {
    let fleet = Fleet::start(&format!("{{ urls: {} }}", server.url())).await;
    fleet.is_whole().await;
    fleet.shares(100).await;
    happens(&mut server).await;
    fleet.is_cut_off().await;
    ends(&mut server, &fleet).await;
    println!("whole again after {:?}", fleet.is_whole().await);
    fleet.shares(101).await;
    let gateways = fleet.end().await;
    gateways.iter().flat_map(|gateway| gateway.log.all()).collect()
}

fn count(log: &[String], text: &str) -> usize {
    log.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_store_that_is_down_at_the_start_is_waited_for_while_requests_are_served() {
    let Some(mut server) = Redis::stopped(&[]) else { return };
    let fleet = Fleet::start(&format!("{{ urls: {} }}", server.url())).await;
    fleet.is_cut_off().await;
    let answer = plain()
        .get(fleet.gateways[0].admin_url("/readyz"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.text().await.unwrap(),
        "ready, degraded: the store does not answer\n"
    );
    assert!(server.run());
    fleet.is_whole().await;
    fleet.shares(101).await;
    let gateways = fleet.end().await;
    for gateway in &gateways {
        let log = gateway.log.all();
        assert_eq!(count(&log, "the store does not answer"), 1, "{log:#?}");
        assert_eq!(count(&log, "no connection to the store"), 1, "{log:#?}");
        assert_eq!(count(&log, "connected to the store: Redis"), 1, "{log:#?}");
    }
}

#[tokio::test]
async fn a_store_that_comes_back_empty_does_not_start_limits_afresh() {
    let Some(server) = Redis::start(&[]) else { return };
    let log = survives(
        server,
        async |server| server.stop(),
        async |server, _| assert!(server.run()),
    )
    .await;
    assert_eq!(
        count(&log, "the store does not answer"),
        2,
        "once for each gateway: {log:#?}"
    );
    assert_eq!(count(&log, "the store answers again"), 2, "{log:#?}");
}

#[tokio::test]
async fn a_store_that_holds_still_is_not_waited_for() {
    let Some(server) = Redis::start(&[]) else { return };
    // Long enough for the connection to be given up, and for another not to come about.
    let ends = async |server: &mut Redis, fleet: &Fleet| {
        for gateway in &fleet.gateways {
            gateway.says("no connection to the store").await;
        }
        server.signal("CONT");
    };
    survives(server, async |server| server.signal("STOP"), ends).await;
}

#[tokio::test]
async fn answers_that_come_late_are_not_taken_for_others() {
    let Some(server) = Redis::start(&[]) else { return };
    survives(
        server,
        async |server| server.order(&["CLIENT PAUSE 800 ALL"]),
        async |_, _| {},
    )
    .await;
}

#[tokio::test]
async fn a_store_that_was_told_to_forget_its_scripts_gets_them_again() {
    let Some(server) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&format!("{{ urls: {} }}", server.url())).await;
    fleet.is_whole().await;
    for client in 100..103 {
        server.order(&["SCRIPT FLUSH"]);
        fleet.shares(client).await;
    }
    for gateway in fleet.end().await {
        let metrics = gateway.metrics().await;
        let mut faults = metrics
            .lines()
            .filter(|line| line.starts_with("tidegate_store_faults_total{"));
        assert!(faults.all(|line| line.ends_with(" 0")), "{metrics}");
    }
}

#[tokio::test]
async fn a_password_that_is_suddenly_asked_for_is_a_fault_like_others_and_nowhere_in_the_log() {
    let Some(server) = Redis::start(&[]) else { return };
    let happens = async |server: &mut Redis| {
        server.order(&["CONFIG SET requirepass hunter2", "CLIENT KILL TYPE normal"]);
    };
    let ends = async |server: &mut Redis, fleet: &Fleet| {
        eventually("somebody is refused", PATIENCE, async || {
            let log = || fleet.gateways.iter().flat_map(|gateway| gateway.log.all());
            log().any(|line| line.contains("it answers NOAUTH")).then_some(())
        })
        .await;
        server.order_as("hunter2", &["CONFIG SET requirepass -"]);
    };
    let log = survives(server, happens, ends).await;
    assert_eq!(count(&log, "hunter2"), 0);
}

#[tokio::test]
async fn a_store_that_becomes_a_replica_is_not_written_to() {
    let Some(server) = Redis::start(&[]) else { return };
    let happens = async |server: &mut Redis| server.order(&["REPLICAOF 127.0.0.1 1"]);
    survives(server, happens, async |server, _| server.order(&["REPLICAOF NO ONE"])).await;
}

#[tokio::test]
async fn a_store_without_memory_is_done_without() {
    let Some(server) = Redis::start(&[]) else { return };
    let happens = async |server: &mut Redis| server.order(&["CONFIG SET maxmemory 1mb"]);
    let log = survives(server, happens, async |server, _| {
        server.order(&["CONFIG SET maxmemory 0"])
    })
    .await;
    assert_eq!(count(&log, "the store does not answer (out_of_memory)"), 2, "{log:#?}");
}

#[tokio::test]
async fn a_store_with_no_room_for_a_connection_is_asked_again_later() {
    let Some(server) = Redis::start(&[]) else { return };
    // A connection that stays takes the only place.
    let happens = async |server: &mut Redis| {
        server.order_and_stay(&["CONFIG SET maxclients 1", "CLIENT KILL TYPE normal SKIPME yes"]);
    };
    let ends = async |server: &mut Redis, _: &Fleet| server.order_and_stay(&["CONFIG SET maxclients 1000"]);
    survives(server, happens, ends).await;
}

#[tokio::test]
async fn a_password_in_a_file_logs_in_and_so_does_a_user_by_a_socket_with_the_newer_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock");
    let socket = socket.to_str().unwrap();
    let user = "gateway on >hunter2 ~tidegate:* +@all";
    let Some(server) = Redis::start(&["--requirepass", "hunter3", "--unixsocket", socket]) else {
        return;
    };
    server.order_as("hunter3", &[&format!("ACL SETUSER {user}")]);
    let fleet = Fleet::with(|setup| {
        setup.file("secrets/redis", "hunter3\n").process(&format!(
            "store: {{ redis: {{ urls: {}, password: {{ file: secrets/redis }} }} }}",
            server.url()
        ))
    })
    .await;
    fleet.is_whole().await;
    fleet.shares(100).await;
    fleet.end().await;
    let url = format!("redis+unix://{socket}?user=gateway&pass=hunter2&protocol=resp3");
    // The shares of the first fleet are kept back until the hour is over, so the second counts by itself.
    let fleet = Fleet::start(&format!("{{ urls: \"{url}\", prefix: \"tidegate:again\" }}")).await;
    eventually("both are there", PATIENCE, async || {
        (fleet.metric("tidegate_store_up").await == [1.0; 2]).then_some(())
    })
    .await;
    fleet.shares(200).await;
    fleet.end().await;
}

/// The rights that deploy/README.md gives a gateway's user.
fn rights() -> &'static str {
    let readme = include_str!("../../deploy/README.md");
    let line = readme
        .lines()
        .find_map(|line| line.trim().strip_prefix("ACL SETUSER gateway on >PASSWORD "));
    line.expect("the line stands in deploy/README.md")
}

#[tokio::test]
async fn the_rights_that_the_guide_names_are_all_that_a_gateway_needs() {
    let Some(server) = Redis::start(&[]) else { return };
    server.order(&[
        "ACL LOG RESET",
        &format!("ACL SETUSER gateway on >hunter2 {}", rights()),
    ]);
    let origin = Origin::saying("hello").await;
    let kinds = [
        "",
        ", slices: 4",
        ", algorithm: sliding_log",
        ", algorithm: fixed_window",
        ", algorithm: token_bucket, burst: 9",
    ];
    let limits = kinds.iter().enumerate().map(|(number, kind)| {
        format!("{{ name: limit-{number}, key: {{ header: x-client }}, missing: skip, limit: 10/h{kind} }}")
    });
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }}, one_place_per: client_ip, max_places_per_network: 9 }}, \
         lobby: {{ capacity: {{ visitors: 1 }}, open: 2100-01-01T00:00:00Z, order: shuffle }} }}\n{}",
        origin.rules_with(
            "",
            &format!(
                "[rate_limit: [{}], waiting_room: {{ room: hall }}]",
                limits.collect::<Vec<_>>().join(", ")
            )
        )
    );
    let gateway = Setup::new(&rules)
        .file("tickets", &format!("{}\n", "5e".repeat(32)))
        .file("hashes", &"5f".repeat(32))
        .process("secrets: { tickets: { file: tickets }, hashes: { file: hashes } }")
        .process(&format!(
            "store: {{ redis: {{ urls: \"redis://gateway:hunter2@{}\" }} }}",
            server.address
        ))
        .start()
        .await;
    for _ in 0..20 {
        plain()
            .get(gateway.url("/"))
            .header("x-client", "busy")
            .send()
            .await
            .unwrap();
        plain()
            .post(gateway.url("/queue/join?room=lobby"))
            .send()
            .await
            .unwrap();
    }
    eventually("rooms and limits are asked for", PATIENCE, async || {
        let calls = async |script: &str| {
            gateway
                .metric(&format!("tidegate_store_calls_total{{script=\"{script}\"}}"))
                .await
        };
        let all = calls("room_turn").await > 2.0 && calls("limit_turn").await > 2.0 && calls("fleet_alive").await > 0.0;
        all.then_some(())
    })
    .await;
    let refused = server.ask("ACL LOG");
    assert!(!refused.contains("reason"), "{refused}");
    let metrics = gateway.metrics().await;
    assert!(
        !metrics.contains("kind=\"auth\"") && !metrics.contains("kind=\"refused\""),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let Some(server) = Redis::start(&[]) else { return };
    let all_but = rights().replace("+info", "");
    server.order(&[&format!("ACL SETUSER gateway on >hunter2 {all_but}")]);
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&origin.rules())
        .process(&format!(
            "store: {{ redis: {{ urls: \"redis://gateway:hunter2@{}\" }} }}",
            server.address
        ))
        .start()
        .await;
    gateway
        .says("it answers NOPERM: the gateway's user may not run `info`")
        .await;
}

#[tokio::test]
async fn sentinels_name_another_master_when_one_is_lost() {
    let Some(mut master) = Redis::start(&["--repl-diskless-sync-delay", "0"]) else {
        return;
    };
    let of = format!("127.0.0.1 {}", master.address.port());
    let Some(_replica) = Redis::start(&["--replicaof", &of]) else {
        return;
    };
    let Some(sentinel) = Redis::sentinel_of(&master) else {
        return;
    };
    eventually(
        "the sentinel knows the replica, which knows all",
        PATIENCE,
        async || {
            let known = sentinel.ask("INFO sentinel").contains("slaves=1");
            (known && master.ask("INFO replication").contains("state=online")).then_some(())
        },
    )
    .await;
    // The first sentinel is on a machine that lost its power: what goes there is not even refused.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sentinels = format!("[\"redis://{}\", {}]", silent.local_addr().unwrap(), sentinel.url());
    let urls = format!("{{ urls: {sentinels}, topology: sentinel, master_name: shop }}");
    let fleet = Fleet::start(&urls).await;
    fleet.is_whole().await;
    fleet.shares(100).await;
    master.stop();
    fleet.is_cut_off().await;
    println!("another master after {:?}", fleet.is_whole_within(ELECTED_WITHIN).await);
    fleet.shares(101).await;
    fleet.end().await;
}

/// Three servers with a third of the slots each, and one that follows the first.
async fn cluster() -> Option<Vec<Redis>> {
    let servers: Vec<_> = (0..4).filter_map(|_| Redis::of_cluster()).collect();
    let first = servers.first()?;
    for (index, slots) in ["0 5460", "5461 10922", "10923 16383"].iter().enumerate() {
        let epoch = format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1);
        servers[index].order(&[&format!("CLUSTER ADDSLOTSRANGE {slots}"), &epoch]);
    }
    for other in &servers[1..] {
        first.order(&[&format!(
            "CLUSTER MEET 127.0.0.1 {} {}",
            other.address.port(),
            other.bus
        )]);
    }
    eventually("the servers know each other", PATIENCE, async || {
        let knows = |server: &Redis| {
            let info = server.ask("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
        };
        servers.iter().all(knows).then_some(())
    })
    .await;
    servers[3].order(&[&format!("CLUSTER REPLICATE {}", first.ask("CLUSTER MYID"))]);
    eventually("the first is followed", PATIENCE, async || {
        first.ask("INFO replication").contains("state=online").then_some(())
    })
    .await;
    Some(servers)
}

#[tokio::test]
async fn a_cluster_shares_the_keys_and_goes_on_when_a_server_of_it_is_lost() {
    let Some(mut servers) = cluster().await else { return };
    let urls: Vec<_> = servers.iter().map(Redis::url).collect();
    let fleet = Fleet::start(&format!("{{ urls: [{}], topology: cluster }}", urls.join(", "))).await;
    fleet.is_whole().await;
    for client in 100..108 {
        fleet.shares(client).await;
    }
    for server in &servers[..3] {
        server.order(&["SCRIPT FLUSH"]);
    }
    fleet.shares(110).await;
    servers[0].stop();
    fleet.is_cut_off().await;
    println!("whole again after {:?}", fleet.is_whole_within(ELECTED_WITHIN).await);
    for client in 120..128 {
        fleet.shares(client).await;
    }
    let gateways = fleet.end().await;
    for gateway in &gateways {
        let log = gateway.log.all();
        assert!(count(&log, "the store does not answer") <= 3, "{log:#?}");
        assert!(
            !gateway.metrics().await.contains("kind=\"refused\""),
            "no call across slots"
        );
    }
}

/// Moves a slot of a cluster as its tools do, but key by key, and long enough between for everyone to meet it half way.
async fn move_slot(slot: usize, servers: &[Redis], half_way: impl AsyncFn()) {
    let owner = slot / 5_461;
    let (from, to) = (&servers[owner], &servers[(owner + 1) % 3]);
    let name = |server: &Redis| server.ask("CLUSTER MYID");
    to.order(&[&format!("CLUSTER SETSLOT {slot} IMPORTING {}", name(from))]);
    from.order(&[&format!("CLUSTER SETSLOT {slot} MIGRATING {}", name(to))]);
    let mut moved = 0;
    loop {
        let mut keys = redis::cmd("CLUSTER");
        let keys = keys.arg("GETKEYSINSLOT").arg(slot).arg(1);
        let keys: Vec<String> = keys.query(&mut from.connection()).unwrap();
        let Some(key) = keys.first() else { break };
        from.order(&[&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.address.port())]);
        moved += 1;
        half_way().await;
    }
    assert!(moved > 1, "some are here and some are there: {moved}");
    let taken = format!("CLUSTER SETSLOT {slot} NODE {}", name(to));
    for server in [to, from, &servers[(owner + 2) % 3]] {
        server.order(&[&taken]);
    }
}

/// A number in an answer, however that is written.
fn number(answer: &str) -> usize {
    answer.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[tokio::test]
async fn a_slot_that_moves_while_it_is_used_takes_no_other_along() {
    let Some(servers) = cluster().await else { return };
    let urls: Vec<_> = servers.iter().map(Redis::url).collect();
    servers[1].order(&["CONFIG SET maxmemory-policy allkeys-lru"]);
    let fleet = Fleet::start(&format!("{{ urls: [{}], topology: cluster }}", urls.join(", "))).await;
    fleet.is_whole().await;
    let slot = number(&servers[0].ask("CLUSTER KEYSLOT tidegate:{each/0}:any"));
    let met = || async {
        eventually("it is met half way", PATIENCE, async || {
            let met = fleet.metric("tidegate_store_faults_total{kind=\"moving\"}").await;
            met.iter().all(|count| *count > 0.0).then_some(())
        })
        .await;
    };
    eventually("keys are in the slot", PATIENCE, async || {
        let count = servers[slot / 5_461].ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}"));
        (number(&count) > 1).then_some(())
    })
    .await;
    move_slot(slot, &servers, met).await;
    fleet.is_whole().await;
    for client in 100..108 {
        fleet.shares(client).await;
    }
    for gateway in &fleet.end().await {
        let log = gateway.log.all();
        for fault in ["moving", "cluster_down", "refused"] {
            assert_eq!(count(&log, &format!("does not answer ({fault})")), 0, "{log:#?}");
        }
        let warned = format!("{}: the store evicts keys when it is full", servers[1].address);
        assert_eq!(count(&log, &warned), 1, "{log:#?}");
        assert_eq!(count(&log, "the store evicts keys"), 1, "{log:#?}");
    }
}

#[tokio::test]
async fn a_store_is_reached_by_tls_when_an_authority_vouches_for_it_and_else_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.sign(&["127.0.0.1"]);
    for (name, text) in [
        ("cert", &pair.cert),
        ("key", &pair.key),
        ("ca", &authority.pem),
        ("other", &other.pem),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let Some(server) = Redis::by_tls(&path("cert"), &path("key"), None) else {
        return;
    };
    let url = server.url().replace("redis://", "rediss://");
    let fleet = Fleet::start(&format!("{{ urls: {url}, ca: {} }}", path("ca"))).await;
    fleet.is_whole().await;
    fleet.shares(100).await;
    fleet.end().await;
    for store in [
        format!("{{ urls: {url}, ca: {} }}", path("other")),
        format!("{{ urls: {} }}", server.url()),
    ] {
        let fleet = Fleet::start(&store).await;
        fleet.is_cut_off().await;
        fleet.end().await;
    }
}

#[tokio::test]
async fn a_store_that_asks_for_a_certificate_is_shown_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (authority, other) = (Authority::new(), Authority::new());
    std::fs::write(path("ca"), &authority.pem).unwrap();
    let pairs = [("server", &authority), ("gateway", &authority), ("stranger", &other)];
    for (name, authority) in pairs {
        let pair = authority.sign(&["127.0.0.1"]);
        std::fs::write(path(&format!("{name}.pem")), pair.cert).unwrap();
        std::fs::write(path(&format!("{name}.key")), pair.key).unwrap();
    }
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca"));
    let Some(server) = Redis::by_tls(&cert, &key, Some(&ca)) else {
        return;
    };
    let url = server.url().replace("redis://", "rediss://");
    let shown = |name: &str| {
        format!(
            "cert: {}, key: {}",
            path(&format!("{name}.pem")),
            path(&format!("{name}.key"))
        )
    };
    let fleet = Fleet::start(&format!("{{ urls: {url}, ca: {ca}, {} }}", shown("gateway"))).await;
    fleet.is_whole().await;
    fleet.shares(100).await;
    fleet.end().await;
    for store in [
        format!("{{ urls: {url}, ca: {ca}, {} }}", shown("stranger")),
        format!("{{ urls: {url}, ca: {ca} }}"),
    ] {
        let fleet = Fleet::start(&store).await;
        fleet.is_cut_off().await;
        fleet.end().await;
    }
}
