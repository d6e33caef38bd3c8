//! Places followed as server-sent events: over both versions of HTTP, to their ends.

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::client::{Raw, builder, header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually, soon};

const STREAMS: &str = "tidegate_room_event_streams{room=\"hall\"}";

async fn hall_for_one(process: &str) -> (Origin, Gateway) {
    let origin = Origin::saying("hello").await;
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let gateway = Setup::new(&rules).process(process).start().await;
    (origin, gateway)
}

/// Joins and gives the ticket, as `name=value`.
async fn join(gateway: &Gateway) -> String {
    let answer = plain().post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    let line = header(&answer, "set-cookie").to_owned();
    line.split(';').next().unwrap().to_owned()
}

async fn leave(gateway: &Gateway, ticket: &str) {
    let request = plain().post(gateway.url("/queue/leave")).header("cookie", ticket);
    assert_eq!(request.send().await.unwrap().status(), 204);
}

async fn follow(gateway: &Gateway, client: &Client, ticket: &str) -> Response {
    let request = client.get(gateway.url("/queue/events")).header("cookie", ticket);
    request.send().await.unwrap()
}

/// The next event's document; none when the stream has ended well.
async fn event(stream: &mut Response) -> Option<Value> {
    loop {
        let piece = soon("an event", stream.chunk()).await.expect("an end without error")?;
        let text = String::from_utf8(piece.to_vec()).unwrap();
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) {
            return Some(serde_json::from_str(data).unwrap());
        }
    }
}

#[tokio::test]
async fn a_place_is_followed_to_its_call_over_both_versions_of_http() {
    let (_origin, gateway) = hall_for_one("").await;
    let inside = join(&gateway).await;
    let tickets = [join(&gateway).await, join(&gateway).await];
    let modern = builder().http2_prior_knowledge().build().unwrap();
    let mut first = follow(&gateway, &plain(), &tickets[0]).await;
    let mut second = follow(&gateway, &modern, &tickets[1]).await;
    assert_eq!(
        (first.version(), second.version()),
        (reqwest::Version::HTTP_11, reqwest::Version::HTTP_2)
    );
    for (stream, position) in [(&mut first, 1), (&mut second, 2)] {
        assert_eq!(stream.status(), 200);
        assert_eq!(header(stream, "content-type"), "text/event-stream");
        assert_eq!(header(stream, "cache-control"), "no-store");
        assert_eq!(event(stream).await.unwrap()["position"], position);
    }
    assert_eq!(gateway.metric(STREAMS).await, 2.0);
    leave(&gateway, &inside).await;
    assert_eq!(event(&mut first).await.unwrap()["state"], "called");
    assert_eq!(event(&mut second).await.unwrap()["position"], 1);
    // Who goes away is missed at once, whatever is spoken.
    drop((first, second));
    eventually("nobody follows any more", PATIENCE, async || {
        (gateway.metric(STREAMS).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_whole_when_the_process_stops_and_when_its_room_goes() {
    let (origin, mut gateway) = hall_for_one("").await;
    let _inside = join(&gateway).await;
    let ticket = join(&gateway).await;
    let mut stream = follow(&gateway, &plain(), &ticket).await;
    event(&mut stream).await.unwrap();
    std::fs::write(gateway.dir().join("rules/rules.yaml"), origin.rules()).unwrap();
    assert_eq!(event(&mut stream).await, None, "the room is gone");

    let (_origin, mut other) = hall_for_one("").await;
    let _inside = join(&other).await;
    let ticket = join(&other).await;
    let mut stream = follow(&other, &plain(), &ticket).await;
    event(&mut stream).await.unwrap();
    other.signal("TERM");
    assert_eq!(event(&mut stream).await, None, "the process stops");
    assert_eq!(other.exit_code(Duration::from_secs(10)).await, Some(0));
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(PATIENCE).await, Some(0));
}

#[tokio::test]
async fn streams_are_bounded_in_number_and_in_time() {
    let (_origin, gateway) = hall_for_one("queue: { events: { streams: 1, life: 2s } }").await;
    let _inside = join(&gateway).await;
    let ticket = join(&gateway).await;
    let mut stream = follow(&gateway, &plain(), &ticket).await;
    event(&mut stream).await.unwrap();
    let full = follow(&gateway, &plain(), &ticket).await;
    assert_eq!(full.status(), 503);
    assert!(header(&full, "retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(event(&mut stream).await, None, "its life is over");
    eventually("another stream", PATIENCE, async || {
        (follow(&gateway, &plain(), &ticket).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_goes_on_after_the_last_event() {
    let (_origin, gateway) = hall_for_one("").await;
    let answer = plain().post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    let lines = answer.headers().get_all("set-cookie").iter();
    let cookies: Vec<_> = lines
        .map(|line| line.to_str().unwrap().split(';').next().unwrap())
        .collect();
    let cookies = cookies.join("; ");
    let mut client = Raw::connect(gateway.http()).await;
    for _ in 0..2 {
        let asked = format!("GET /queue/events HTTP/1.1\r\nhost: a\r\ncookie: {cookies}\r\n\r\n");
        assert!(client.send(asked).await);
        let told = client.answer().await;
        assert_eq!(told.status, 200);
        assert!(told.body.contains("\"state\":\"inside\""), "{}", told.body);
    }
}
