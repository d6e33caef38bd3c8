//! What the queue API keeps of itself: how much a network may ask, who asks too early, what is expected.

use super::*;
use crate::telemetry::metrics::METRICS;

impl Desk {
    fn within(&mut self, joins: &str, polls: &str) {
        let bounds = Bounds {
            joins: joins.parse().unwrap(),
            polls: polls.parse().unwrap(),
            ..Bounds::default()
        };
        self.api = QueueApi::new("/queue", Arc::clone(&self.rooms), bounds);
    }

    /// Signs of life and callers that wait for a turn.
    fn gathered(&self) -> bool {
        let batch = self.room.gather().take();
        !batch.turn(self.room.rule().terms.clone(), 0).touches.is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn who_names_two_owners_gets_no_place_and_shows_nobodys_ticket() {
    let desk = Desk::open(|rule| {
        rule.owner = Some(OwnerKey::new(|request| match request.query_value("user") {
            Some("two") => Err(Keyless::Ambiguous),
            _ => Ok(7),
        }));
    });
    let mut visitor = desk.join().await;
    let (status, problem) = desk.post("join?room=concert&user=two", &mut visitor).await;
    assert_eq!((status, &problem["status"]), (400, &400.into()));
    assert_eq!(desk.post("join?room=concert", &mut visitor).await.0, 200);
    assert_eq!(desk.room.snapshot().inside, 1);
}

#[tokio::test(start_paused = true)]
async fn a_network_joins_and_polls_so_often_and_is_then_told_when_to_come() {
    let mut desk = Desk::open(|_| ());
    desk.within("3/s", "5/s");
    let mut visitors = vec![Browser::default(); 4];
    for visitor in &mut visitors[..3] {
        assert_eq!(desk.post("join?room=concert", visitor).await.0, 200);
    }
    let (status, problem) = desk.post("join?room=concert", &mut visitors[3]).await;
    assert_eq!((status, &problem["status"]), (429, &429.into()));
    for _ in 0..5 {
        assert_eq!(desk.status(&mut visitors[2]).await.0, 200);
    }
    assert_eq!(desk.status(&mut visitors[2]).await.0, 429);
    assert_eq!(
        desk.post("enter", &mut visitors[2]).await.0,
        429,
        "all but joins is one"
    );
    // Nothing is looked up and nothing verified for who asks too much, so nobody is told a place.
    assert_eq!(
        desk.call(Method::GET, "/queue/status?room=none", &mut Browser::default())
            .await
            .0,
        429
    );
    desk.clock.advance(Duration::from_secs(2));
    assert_eq!(desk.post("join?room=concert", &mut visitors[3]).await.0, 200);
    assert_eq!(desk.status(&mut visitors[2]).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn to_poll_early_is_answered_and_is_no_sign_of_life() {
    let desk = Desk::open(|_| ());
    let _inside = desk.join().await;
    let mut visitor = desk.join().await;
    let early = || METRICS.room_early_polls_total.with_label_values(&["concert"]).get();
    let before = early();
    let (_, told) = desk.status(&mut visitor).await;
    assert!(desk.gathered(), "the first poll is one");
    for _ in 0..10 {
        assert_eq!(desk.status(&mut visitor).await.1["position"], told["position"]);
    }
    assert!(!desk.gathered());
    assert!(early() >= before + 10, "others may count in this process too");
    desk.clock
        .advance(Duration::from_millis(told["next_poll_ms"].as_u64().unwrap()));
    assert_eq!(desk.status(&mut visitor).await.0, 200);
    assert!(desk.gathered(), "who comes when told to gives a sign of life");
}

#[tokio::test(start_paused = true)]
async fn a_join_with_a_ticket_gives_the_same_place_however_often_it_is_repeated() {
    let desk = Desk::open(|_| ());
    let _inside = desk.join().await;
    let mut visitor = desk.join().await;
    let last = desk.join().await;
    let tickets = visitor.clone();
    for _ in 0..3 {
        let (status, told) = desk.post("join?room=concert", &mut visitor).await;
        assert_eq!((status, told["position"].as_u64()), (200, Some(1)));
    }
    assert_eq!(format!("{visitor:?}"), format!("{tickets:?}"), "and no new ticket");
    assert_eq!(
        desk.status(&mut last.clone()).await.1["position"],
        2,
        "nobody was put between"
    );
    assert_eq!(desk.room.snapshot().waiting, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_comes_with_a_range_once_anything_is_known() {
    let desk = Desk::open(|rule| {
        rule.terms.visitors = None;
        rule.terms.admit = Some("1/s".parse().unwrap());
        rule.terms.claim_within = Duration::from_secs(3_600);
    });
    let mut visitors = Vec::new();
    for _ in 0..100 {
        visitors.push(desk.join().await);
    }
    desk.after(30).await;
    let (_, told) = desk.status(&mut visitors[99]).await;
    let eta = told["eta_seconds"].as_u64().unwrap();
    let range: Vec<u64> = serde_json::from_value(told["eta_range_seconds"].clone()).unwrap();
    let position = told["position"].as_u64().unwrap();
    let as_before = position * 30 / (100 - position);
    assert!(eta.abs_diff(as_before) < as_before / 5, "{told}");
    assert!(range.len() == 2 && range[0] < eta && eta < range[1], "{told}");
    assert!(range[0] > eta / 3 && range[1] < eta * 3, "{told}");

    let held = Desk::open(|rule| rule.terms.mode = Mode::Hold);
    let mut visitor = held.join().await;
    let (_, told) = held.status(&mut visitor).await;
    assert!(
        told["eta_seconds"].is_null() && told["eta_range_seconds"].is_null(),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_that_has_all_its_places_gets_no_more_until_one_of_them_is_free() {
    let desk = Desk::open(|rule| rule.places_per_network = Some(2));
    let mut inside = desk.join().await;
    let mut waiting = desk.join().await;
    let mut third = Browser::default();
    let crowded = || METRICS.room_crowded_total.with_label_values(&["concert"]).get();
    let before = crowded();
    let (status, problem) = desk.post("join?room=concert", &mut third).await;
    assert_eq!(status, 429);
    assert_eq!(problem["type"], "urn:tidegate:problem:places-per-network");
    assert_eq!(problem["places_per_network"], 2);
    assert!(third.0.is_empty(), "no ticket: {third:?}");
    assert!(crowded() > before);

    // Who has a place keeps it, and asking for it again is no second one.
    assert_eq!(state(&desk.post("join?room=concert", &mut waiting).await).1, "waiting");
    let headers = HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static("text/html"))]);
    let page = desk.request(&Method::GET, "/show", &headers);
    let ruling = desk.driven(desk.room.receive(&page, &mut Default::default())).await;
    let page = ruling.expect("nobody more goes through");
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.headers.iter().any(|(name, _)| *name == http::header::RETRY_AFTER));
    assert!(String::from_utf8_lossy(&page.body).contains("network"));

    assert_eq!(desk.post("leave", &mut inside).await.0, 204);
    assert_eq!(desk.post("join?room=concert", &mut third).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn however_many_cookies_are_named_after_rooms_each_room_is_looked_at_once_and_no_more_than_sixteen() {
    let desk = Desk::open(|_| ());
    let mut reload = desk.rooms.begin();
    (0..20).for_each(|room| drop(reload.room(rule(&format!("room-{room}")), Page::builtin())));
    reload.commit();
    let looked_at = |cookies: String| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(&cookies).unwrap());
        let rooms = desk
            .api
            .named_by_cookies(&desk.request(&Method::GET, "/queue/status", &headers));
        rooms.iter().map(|room| room.name().to_string()).collect::<Vec<_>>()
    };
    let same = "tidegate-ticket-room-1=;__Host-tidegate-ticket-room-2=;tidegate-ticket-none=;".repeat(400);
    assert_eq!(
        looked_at(format!("{same}tidegate-ticket-room-3=")),
        ["room-1", "room-3"]
    );
    let all: Vec<_> = (0..20).map(|room| format!("tidegate-ticket-room-{room}=")).collect();
    assert_eq!(looked_at(all.join(";")).len(), 16);
}
