//! Servers that fail while others of their upstream do not: nobody notices, and nobody is passed over for good.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::support::client::{Raw, plain};
use crate::support::gateway::Gateway;
use crate::support::origin::{Gate, Origin, Step, answer, send};
use crate::support::{PATIENCE, eventually};

/// An address that refuses connections for as long as nobody listens on this socket.
fn silent() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn rules(servers: &[SocketAddr], keys: &str) -> String {
    let servers: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
    let servers = servers.join(", ");
    format!(
        "upstreams: {{ app: {{ servers: [{servers}], {keys} }} }}\n\
         routes: [{{ name: all, chain: [], upstream: app }}]\n"
    )
}

async fn statuses(gateway: &Gateway, requests: usize) -> Vec<u16> {
    let client = plain();
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(client.get(gateway.url("/")).send().await.unwrap().status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn nobody_notices_that_one_of_two_servers_is_gone() {
    let origin = Origin::saying("hello").await;
    let (_gone, address) = silent();
    let gateway = Gateway::start(&rules(&[address, origin.address], "")).await;
    assert_eq!(statuses(&gateway, 300).await, [200; 300]);
    let metric = async |name: &str| gateway.metric(&format!("tidegate_{name}")).await;
    assert_eq!(metric(&format!("upstream_healthy{{server=\"{address}\"}}")).await, 0.0);
    assert_eq!(
        metric(&format!("upstream_healthy{{server=\"{}\"}}", origin.address)).await,
        1.0
    );
    assert_eq!(
        metric(&format!("upstream_ejections_total{{server=\"{address}\"}}")).await,
        1.0
    );
    let detours = metric("upstream_retries_total{upstream=\"app\"}").await;
    assert!((3.0..10.0).contains(&detours), "{detours}");
    gateway.says("is out: 3 requests in a row failed").await;
}

#[tokio::test]
async fn a_server_that_comes_back_gets_requests_again() {
    let origin = Origin::saying("hello").await;
    let (gone, address) = silent();
    let gateway = Gateway::start(&rules(&[address, origin.address], "eject: { after: 1, for: 100ms }")).await;
    assert_eq!(statuses(&gateway, 20).await, [200; 20]);
    let back = Origin::on(gone.listen(64).unwrap(), |_| answer("200 OK", &[], "back"));
    eventually("the server that was gone gets requests", PATIENCE, async || {
        assert_eq!(statuses(&gateway, 10).await, [200; 10]);
        (back.requests().len() > 10).then_some(())
    })
    .await;
    gateway.says("answers again").await;
    let series = format!("tidegate_upstream_healthy{{server=\"{address}\"}}");
    assert_eq!(gateway.metric(&series).await, 1.0);
}

/// Where all are out, all are in: an upstream that comes back is noticed by the next request.
#[tokio::test]
async fn servers_that_were_all_gone_are_asked_all_the_same() {
    let ((gone, first), (_gone, second)) = (silent(), silent());
    let gateway = Gateway::start(&rules(&[first, second], "eject: { for: 1day }")).await;
    assert_eq!(statuses(&gateway, 20).await, [502; 20]);
    let back = Origin::on(gone.listen(64).unwrap(), |_| answer("200 OK", &[], "back"));
    eventually("the upstream answers", PATIENCE, async || {
        (statuses(&gateway, 1).await == [200]).then_some(())
    })
    .await;
    assert_eq!(statuses(&gateway, 20).await, [200; 20]);
    assert!(back.requests().len() > 20);
}

/// What took the request is not asked a second time, but not many more times either.
#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_passed_over_too() {
    let origin = Origin::saying("hello").await;
    let broken = Origin::scripted(|_| vec![Step::Close]).await;
    let gateway = Gateway::start(&rules(&[broken.address, origin.address], "")).await;
    let failed = statuses(&gateway, 50).await.into_iter().filter(|status| *status == 502);
    assert_eq!((failed.count(), broken.requests().len()), (3, 3));
}

/// What a server says ahead of its answer.
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

#[tokio::test]
async fn a_server_that_dies_after_a_hint_has_not_answered() {
    let origin = Origin::saying("hello").await;
    let broken = Origin::scripted(|_| send(HINT).into_iter().chain([Step::Close]).collect()).await;
    let gateway = Gateway::start(&rules(&[broken.address, origin.address], "")).await;
    let failed = statuses(&gateway, 50).await.into_iter().filter(|status| *status == 502);
    assert_eq!((failed.count(), broken.requests().len()), (3, 3));
}

#[tokio::test]
async fn a_hint_is_passed_on_and_the_answer_behind_it_is_what_a_server_took() {
    let gate = Gate::closed();
    let opened = gate.clone();
    let slow = move |_: &_| {
        let hint = send(HINT).into_iter().chain([Step::Wait(opened.clone())]);
        hint.chain(answer("200 OK", &[], "hello")).collect()
    };
    let origin = Origin::scripted(slow).await;
    let gateway = Gateway::start(&rules(&[origin.address], "")).await;
    let answers = async || {
        let series = "tidegate_upstream_seconds_count{upstream=\"app\"}";
        gateway.metric(series).await
    };
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    let hint = client.head().await.unwrap();
    assert!(hint.contains(" 103 ") && hint.contains("/a.css"), "{hint}");
    assert_eq!(answers().await, 0.0, "before the answer");
    gate.open();
    assert_eq!(client.answer().await.body, "hello");
    assert_eq!(answers().await, 1.0);
}

#[tokio::test]
async fn whoever_wants_none_passed_over_says_so() {
    let origin = Origin::saying("hello").await;
    let (_gone, address) = silent();
    let keys = "eject: off, retry: { budget: 0% }";
    let gateway = Gateway::start(&rules(&[address, origin.address], keys)).await;
    let failed = statuses(&gateway, 20).await.into_iter().filter(|status| *status == 502);
    assert_eq!(failed.count(), 10);
}
