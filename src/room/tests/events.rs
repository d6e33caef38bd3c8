//! Places as streams of events.

use super::*;
use crate::room::events::{Events, Look};

impl Desk {
    async fn subscribe(&self, browser: &Browser) -> Result<Events, u16> {
        let headers = browser.headers();
        let request = self.request(&Method::GET, "/queue/events", &headers);
        let answer = self.driven(self.api.subscribe(&request)).await;
        answer.unwrap().map_err(|reply| reply.status.as_u16())
    }

    fn look(&self, events: &mut Events) -> Look {
        events.look(self.clock.now())
    }
}

/// The document in an event.
fn data(look: &Look) -> Value {
    let (Look::Say(text) | Look::Last(text)) = look else {
        panic!("{look:?} is no event")
    };
    assert!(text.ends_with("\n\n"), "{text:?}");
    let line = text.lines().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(line.unwrap()).unwrap()
}

/// A room with somebody inside, and so many who wait behind.
async fn queue_of(desk: &Desk, waiting: usize) -> (Browser, Vec<Browser>) {
    let inside = desk.join().await;
    let mut all = Vec::new();
    for _ in 0..waiting {
        all.push(desk.join().await);
    }
    (inside, all)
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_the_status_at_once_and_then_what_changes() {
    let desk = Desk::open(|_| ());
    let (mut inside, mut waiting) = queue_of(&desk, 2).await;
    let mut events = desk.subscribe(&waiting[1]).await.unwrap();
    let first = desk.look(&mut events);
    let Look::Say(text) = &first else { panic!("{first:?}") };
    assert!(text.starts_with("retry: "), "{text}");
    let mut told = data(&first);
    let mut asked = desk.status(&mut waiting[1]).await.1;
    // Every answer has its own jitter.
    for document in [&mut told, &mut asked] {
        document["next_poll_ms"] = Value::Null;
    }
    assert_eq!(told, asked, "an event is a status");
    desk.after(1).await;
    assert_eq!(desk.look(&mut events), Look::Quiet);
    desk.post("leave", &mut waiting[0]).await;
    desk.after(1).await;
    assert_eq!(data(&desk.look(&mut events))["position"], 1);
    desk.post("leave", &mut inside).await;
    desk.after(1).await;
    let called = desk.look(&mut events);
    assert_eq!(data(&called)["state"], "called");
    assert!(
        matches!(&called, Look::Say(text) if !text.contains("retry:")),
        "{called:?}"
    );
    desk.post("enter", &mut waiting[1]).await;
    let last = desk.look(&mut events);
    assert!(
        matches!(last, Look::Last(_)) && data(&last)["state"] == "inside",
        "{last:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_mere_move_far_back_is_not_told_every_second() {
    let desk = Desk::open(|_| ());
    let (_inside, mut waiting) = queue_of(&desk, 402).await;
    let mut far = desk.subscribe(&waiting[401]).await.unwrap();
    let mut near = desk.subscribe(&waiting[20]).await.unwrap();
    let (mut told_far, mut told_near) = (0, 0);
    for visitor in waiting.iter_mut().take(12) {
        desk.post("leave", visitor).await;
        desk.after(1).await;
        told_far += u32::from(desk.look(&mut far) != Look::Quiet);
        told_near += u32::from(desk.look(&mut near) != Look::Quiet);
    }
    assert_eq!(told_near, 12);
    assert!((6..=12).contains(&told_far), "four times in six seconds: {told_far}");
    assert!(told_far < told_near);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_news_is_kept_alive_and_keeps_the_place() {
    let desk = Desk::open(|rule| rule.terms.mode = Mode::Hold);
    let (_inside, mut waiting) = queue_of(&desk, 2).await;
    let mut events = desk.subscribe(&waiting[0]).await.unwrap();
    desk.look(&mut events);
    let mut heartbeats = 0;
    let mut silent = 0;
    // The life of a stream is at most 375 s; a place is given up after 300 s of silence.
    for _ in 0..6 * 60 {
        desk.after(1).await;
        match desk.look(&mut events) {
            // Nobody is called here, so that nothing changes.
            Look::Say(text) if text == ":\n\n" => heartbeats += 1,
            Look::Quiet => silent += 1,
            Look::Say(text) => assert!(text.starts_with("data: "), "{text}"),
            Look::Last(text) => panic!("{text}"),
            Look::End => {
                events = desk.subscribe(&waiting[0]).await.unwrap();
                desk.look(&mut events);
            }
        }
    }
    assert!(
        heartbeats >= 20 && silent > 300,
        "{heartbeats} heartbeats, {silent} silent"
    );
    assert_eq!(desk.status(&mut waiting[0]).await.0, 200, "it was as good as polling");
    assert_eq!(desk.status(&mut waiting[1]).await.0, 410, "who gave no sign is gone");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_given_up_is_told_last() {
    let desk = Desk::open(|_| ());
    let (_inside, mut waiting) = queue_of(&desk, 1).await;
    let mut events = desk.subscribe(&waiting[0]).await.unwrap();
    desk.look(&mut events);
    let ticket = waiting[0].clone();
    desk.post("leave", &mut waiting[0]).await;
    desk.after(1).await;
    let last = desk.look(&mut events);
    assert!(
        matches!(&last, Look::Last(text) if text.contains("event: gone\n")),
        "{last:?}"
    );
    assert_eq!(data(&last)["status"], 410);
    assert_eq!(desk.subscribe(&ticket).await.err(), Some(410));
    assert_eq!(desk.subscribe(&Browser::default()).await.err(), Some(404));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_time_and_with_its_room() {
    let desk = Desk::open(|_| ());
    let (_inside, waiting) = queue_of(&desk, 1).await;
    let mut events = desk.subscribe(&waiting[0]).await.unwrap();
    desk.look(&mut events);
    desk.clock.advance(Duration::from_secs(375));
    assert_eq!(desk.look(&mut events), Look::End);
    let mut events = desk.subscribe(&waiting[0]).await.unwrap();
    desk.rooms.begin().commit();
    assert_eq!(desk.look(&mut events), Look::End);
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_streams_and_no_more() {
    let mut desk = Desk::open(|_| ());
    let bounds = Bounds { streams: 2, ..ample() };
    desk.api = QueueApi::new("/queue", Arc::clone(&desk.rooms), bounds);
    let (_inside, waiting) = queue_of(&desk, 3).await;
    let first = desk.subscribe(&waiting[0]).await.unwrap();
    let _second = desk.subscribe(&waiting[1]).await.unwrap();
    let headers = waiting[2].headers();
    let request = desk.request(&Method::GET, "/queue/events", &headers);
    let full = desk.driven(desk.api.subscribe(&request)).await.unwrap().unwrap_err();
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(full.headers.iter().any(|(name, _)| *name == http::header::RETRY_AFTER));
    drop(first);
    assert!(desk.subscribe(&waiting[2]).await.is_ok());
}

/// The ticket that a stream's head sets.
fn renewed(events: &Events) -> Option<String> {
    let headers = events.headers();
    let line = headers
        .iter()
        .find(|(name, _)| *name == SET_COOKIE)?
        .1
        .to_str()
        .unwrap();
    let (name, rest) = line.split_once('=').unwrap();
    assert_eq!(name, "tidegate-ticket-concert");
    Some(rest.split(';').next().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn who_only_follows_streams_gets_the_ticket_anew_when_it_has_become_old() {
    let desk = Desk::open(|rule| rule.terms.pass = Duration::from_secs(100_000));
    let (_inside, mut waiting) = queue_of(&desk, 1).await;
    let mut events = desk.subscribe(&waiting[0]).await.unwrap();
    assert_eq!(renewed(&events), None, "it is a moment old");
    for _ in 0..4 {
        for _ in 0..200 {
            desk.after(1).await;
            desk.look(&mut events);
        }
        events = desk.subscribe(&waiting[0]).await.unwrap();
        let ticket = renewed(&events).expect("a ticket of now");
        assert_ne!(ticket, waiting[0].0[0].1);
        waiting[0].0[0].1 = ticket;
        assert_eq!(data(&desk.look(&mut events))["position"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_place_has_a_few_streams_and_a_newer_one_ends_the_oldest() {
    let desk = Desk::open(|_| ());
    let (_inside, waiting) = queue_of(&desk, 2).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(desk.subscribe(&waiting[0]).await.unwrap());
    }
    assert_eq!(
        desk.subscribe(&waiting[0]).await.err(),
        Some(429),
        "faster than they end"
    );
    let mut other = desk.subscribe(&waiting[1]).await.unwrap();
    assert!(matches!(desk.look(&mut other), Look::Say(_)));
    let looks: Vec<_> = streams.iter_mut().map(|stream| desk.look(stream)).collect();
    for look in &looks[..4] {
        assert_eq!(*look, Look::Last("retry: 60000\n\n".to_owned()));
    }
    assert!(looks[4..].iter().all(|look| data(look)["position"] == 1), "{looks:?}");
    streams.drain(..4);
    assert!(desk.subscribe(&waiting[0]).await.is_ok());
}
