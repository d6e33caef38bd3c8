//! The way out: what has begun is finished, nothing new begins, and nobody waits for nothing.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::certificates::Authority;
use crate::support::client::{Raw, builder, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Gate, Origin, Step, answer, send};
use crate::support::{PATIENCE, eventually};

/// How long an idle process may take to end on a busy machine; on an idle one it is a few milliseconds.
const AT_ONCE: Duration = Duration::from_secs(2);

async fn slow_origin(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::scripted(move |_| {
        let mut script = vec![Step::Wait(gate.clone())];
        script.extend(answer("200 OK", &[], "finished"));
        script
    })
    .await
}

async fn refuses_connections(gateway: &Gateway) {
    let address = gateway.http();
    eventually("new connections are refused", PATIENCE, async || {
        TcpStream::connect(address).await.err()
    })
    .await;
}

#[tokio::test]
async fn an_idle_process_ends_at_once_and_says_that_all_is_well() {
    let origin = Origin::saying("hello").await;
    for signal in ["TERM", "INT", "QUIT"] {
        let mut gateway = Gateway::start(&origin.rules()).await;
        let begun = Instant::now();
        gateway.signal(signal);
        assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn kept_connections_are_closed_and_do_not_hold_the_process_up() {
    let origin = Origin::saying("hello").await;
    let mut gateway = Gateway::start(&origin.rules()).await;
    let mut kept = Raw::connect(gateway.http()).await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut silent = Raw::connect(gateway.http()).await;
    let begun = Instant::now();
    gateway.signal("TERM");
    kept.is_closed().await;
    silent.is_closed().await;
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_nothing_new_is_taken() {
    let gate = Gate::closed();
    let origin = slow_origin(&gate).await;
    let mut gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    origin.has_seen(1).await;
    gateway.signal("TERM");
    refuses_connections(&gateway).await;
    assert!(gateway.is_running());
    gate.open();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "finished"));
    assert_eq!(answer.value("connection"), Some("close"), "{}", answer.head);
    client.is_closed().await;
    let begun = Instant::now();
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
    assert!(
        begun.elapsed() < AT_ONCE,
        "it ends with its last request: {:?}",
        begun.elapsed()
    );
    assert_eq!(
        gateway.access_lines(1).await[0]["status"],
        200,
        "the last line of the log is written"
    );
}

#[tokio::test]
async fn an_answer_that_is_on_its_way_is_finished() {
    let gate = Gate::closed();
    let opened = gate.clone();
    let origin = Origin::scripted(move |_| {
        let mut script = send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun");
        script.push(Step::Wait(opened.clone()));
        script.extend(send("ended"));
        script
    })
    .await;
    let mut gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    client.head().await.unwrap();
    assert_eq!(client.take(5).await, b"begun");
    gateway.signal("TERM");
    refuses_connections(&gateway).await;
    gate.open();
    assert_eq!(client.take(5).await, b"ended");
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
}

#[tokio::test]
async fn in_its_grace_a_gateway_serves_on_and_only_says_that_it_is_not_ready() {
    let origin = Origin::saying("hello").await;
    let setup = Setup::new(&origin.rules()).process("timeouts: { grace: 1h }");
    let mut gateway = setup.start().await;
    let ready = gateway.admin_url("/readyz");
    gateway.signal("TERM");
    eventually("it says that it stops", PATIENCE, async || {
        let answer = plain().get(&ready).send().await.ok()?;
        (answer.status() == 503).then_some(())
    })
    .await;
    let answer = plain().get(gateway.url("/")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    gateway.signal("TERM");
    let code = gateway.exit_code(PATIENCE).await;
    assert_eq!(code, Some(0), "who asks twice does not want to wait");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let origin = slow_origin(&Gate::closed()).await;
    let mut gateway = Setup::new(&origin.rules())
        .process("timeouts: { drain: 500ms }")
        .start()
        .await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    origin.has_seen(1).await;
    let begun = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(500)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    assert!(client.try_answer(true).await.is_none());
}

#[tokio::test]
async fn streams_of_http2_are_finished_and_idle_connections_hold_nobody_up() {
    let gate = Gate::closed();
    let origin = slow_origin(&gate).await;
    let authority = Authority::new();
    let pair = authority.sign(&["shop.example.com"]);
    let listener = "listeners: [{ bind: 127.0.0.1:0, tls: { certificates: { cert: a.pem, key: a.key } } }]";
    let setup = Setup::new(&origin.rules())
        .file("a.pem", &pair.cert)
        .file("a.key", &pair.key);
    let mut gateway = setup.process(listener).start().await;
    let address = gateway.listener("https");
    let client = || {
        let root = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
        builder()
            .tls_certs_only([root])
            .resolve("shop.example.com", address)
            .build()
            .unwrap()
    };
    let url = format!("https://shop.example.com:{}", address.port());
    let (idle, busy) = (client(), client());
    assert_eq!(idle.get(format!("{url}/%00")).send().await.unwrap().status(), 400);
    let asked: Vec<_> = (0..3)
        .map(|n| tokio::spawn(busy.get(format!("{url}/{n}")).send()))
        .collect();
    origin.has_seen(3).await;
    gateway.signal("TERM");
    eventually("new connections are refused", PATIENCE, async || {
        TcpStream::connect(address).await.err()
    })
    .await;
    gate.open();
    for answer in asked {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
        assert_eq!(answer.text().await.unwrap(), "finished");
    }
    let begun = Instant::now();
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// What a client has been promised it gets, whatever the moment of the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_answer_is_cut_off_by_the_end() {
    let body = "0123456789".repeat(2000);
    let expected = body.len();
    let origin = Origin::scripted(move |_| answer("200 OK", &[], &body)).await;
    let mut gateway = Setup::new(&origin.rules()).process("threads: 2").start().await;
    let address = gateway.http();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let (mut client, mut answers) = (Raw::connect(address).await, 0);
                while client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await {
                    // An answer that has begun must come to its end; `try_answer` fails the test where it does not.
                    let Some(answer) = client.try_answer(true).await else {
                        break;
                    };
                    assert_eq!((answer.status, answer.body.len()), (200, expected));
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    origin.has_seen(200).await;
    gateway.signal("TERM");
    let mut answers = 0;
    for client in clients {
        answers += client.await.unwrap();
    }
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
    assert!(answers >= 200, "{answers}");
    assert!(
        origin.requests().len() - answers <= 8,
        "no more than the one request of each that came too late"
    );
}

#[tokio::test]
async fn who_asks_whether_it_is_ready_is_told_when_it_stops() {
    let gate = Gate::closed();
    let origin = slow_origin(&gate).await;
    let mut gateway = Gateway::start(&origin.rules()).await;
    let ready = gateway.admin_url("/readyz");
    assert_eq!(plain().get(&ready).send().await.unwrap().status(), 200);
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    origin.has_seen(1).await;
    gateway.signal("TERM");
    eventually("503 from /readyz", PATIENCE, async || {
        let answer = plain().get(&ready).send().await.ok()?;
        (answer.status() == 503).then_some(())
    })
    .await;
    gate.open();
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
}
