use std::future::Future;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::api::{Bounds, QueueApi};
use super::page::Page;
use super::registry::Rooms;
use super::rule::{Capacity, OnStoreFault, OwnerKey, Rule};
use super::*;
use crate::base::clock::ManualClock;
use crate::base::exchange::{Reply, Request, Scheme};
use crate::store::memory::rooms::MemoryRooms;
use crate::store::rooms::{RoomReply, RoomTurn};

mod api;
mod events;
mod guard;
mod wall;
mod written;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A store that can be unplugged.
#[derive(Debug)]
struct Plug {
    memory: MemoryRooms,
    out: AtomicBool,
}

#[async_trait::async_trait]
impl RoomStore for Plug {
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault> {
        match self.out.load(Ordering::SeqCst) {
            true => Err(RoomFault::Unavailable),
            false => self.memory.room_turn(room, turn).await,
        }
    }
}

/// One gateway with a room for one visitor, and its queue API.
struct Desk {
    clock: Arc<ManualClock>,
    store: Arc<Plug>,
    keyring: Arc<Keyring>,
    rooms: Arc<Rooms>,
    room: Arc<Room>,
    api: QueueApi,
}

/// A browser: it keeps cookies.
#[derive(Debug, Clone, Default)]
struct Browser(Vec<(String, String)>);

impl Browser {
    fn take(&mut self, reply: &Reply) {
        for (_, value) in reply.headers.iter().filter(|(name, _)| *name == SET_COOKIE) {
            let text = value.to_str().unwrap();
            let (name, rest) = text.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.0.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn headers(&self) -> HeaderMap {
        let line: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = HeaderMap::new();
        if !line.is_empty() {
            headers.insert(COOKIE, HeaderValue::from_str(&line.join("; ")).unwrap());
        }
        headers
    }

    fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }
}

impl Desk {
    fn open(change: impl FnOnce(&mut Rule)) -> Self {
        let clock = ManualClock::at(START);
        Self::by(Arc::<ManualClock>::clone(&clock), clock, change)
    }

    /// The same with another clock for the store.
    fn by(of_store: Arc<dyn Clock>, clock: Arc<ManualClock>, change: impl FnOnce(&mut Rule)) -> Self {
        let memory = MemoryRooms::new(of_store);
        let store = Arc::new(Plug {
            memory,
            out: AtomicBool::new(false),
        });
        let keyring = Arc::new(Keyring::random());
        let rooms = Rooms::new(
            Arc::<Plug>::clone(&store),
            Arc::<ManualClock>::clone(&clock),
            Arc::clone(&keyring),
        );
        let mut rule = rule("concert");
        change(&mut rule);
        let mut reload = rooms.begin();
        let room = reload.room(rule, Page::builtin());
        reload.commit();
        let api = QueueApi::new("/queue", Arc::clone(&rooms), ample());
        Self {
            clock,
            store,
            keyring,
            rooms,
            room,
            api,
        }
    }

    fn request<'r>(&self, method: &'r Method, path: &'r str, headers: &'r HeaderMap) -> Request<'r> {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        Request {
            came: self.clock.now(),
            now: self.clock.now(),
            id: "1",
            route: None,
            method,
            scheme: Scheme::Http,
            host: "shop.example.com",
            path,
            query,
            headers,
            client_ip: "192.0.2.1".parse().unwrap(),
        }
    }

    async fn call(&self, method: Method, path: &str, browser: &mut Browser) -> (u16, Value) {
        let headers = browser.headers();
        let request = self.request(&method, path, &headers);
        let reply = self.driven(self.api.answer(&request)).await;
        browser.take(&reply);
        (
            reply.status.as_u16(),
            serde_json::from_slice(&reply.body).unwrap_or_default(),
        )
    }

    async fn post(&self, call: &str, browser: &mut Browser) -> (u16, Value) {
        self.call(Method::POST, &format!("/queue/{call}"), browser).await
    }

    async fn status(&self, browser: &mut Browser) -> (u16, Value) {
        self.call(Method::GET, "/queue/status", browser).await
    }

    async fn join(&self) -> Browser {
        let mut browser = Browser::default();
        assert_eq!(self.post("join?room=concert", &mut browser).await.0, 200);
        browser
    }

    /// Runs `task` with as many turns of the room as it waits for.
    async fn driven<T>(&self, task: impl Future<Output = T>) -> T {
        let mut task = std::pin::pin!(task);
        loop {
            tokio::select! {
                biased;
                done = &mut task => return done,
                () = self.room.turn() => {}
            }
        }
    }

    /// Time passes, with a turn a second.
    async fn after(&self, secs: u64) {
        for _ in 0..secs {
            self.clock.advance(Duration::from_secs(1));
            self.room.turn().await;
        }
    }

    fn unplug(&self, out: bool) {
        self.store.out.store(out, Ordering::SeqCst);
    }
}

/// Everyone here comes from one address, and at one moment.
fn ample() -> Bounds {
    let much = "1000000/s".parse().unwrap();
    Bounds {
        joins: much,
        polls: much,
        ..Bounds::default()
    }
}

fn rule(name: &str) -> Rule {
    let capacity = Capacity {
        visitors: Some(1),
        admit: None,
        pass: Duration::from_secs(600),
    };
    Rule::new(name.parse().unwrap(), capacity)
}

fn held() -> Rule {
    let mut rule = rule("concert");
    rule.terms.mode = Mode::Hold;
    rule
}

fn state(answer: &(u16, Value)) -> (u16, &str, u64) {
    let (status, body) = answer;
    (
        *status,
        body["state"].as_str().unwrap_or(""),
        body["position"].as_u64().unwrap_or(0),
    )
}

#[tokio::test(start_paused = true)]
async fn the_first_goes_straight_in_and_the_next_wait_their_turn() {
    let desk = Desk::open(|_| ());
    let mut first = Browser::default();
    assert_eq!(
        state(&desk.post("join?room=concert", &mut first).await),
        (200, "inside", 1)
    );
    assert!(first.holds("tidegate-pass-concert") && first.holds("tidegate-ticket-concert"));
    let mut second = Browser::default();
    let joined = desk.post("join?room=concert", &mut second).await;
    assert_eq!(state(&joined), (200, "waiting", 1));
    let body = joined.1;
    assert_eq!(
        (&body["ahead"], &body["behind"], &body["room"]),
        (&0.into(), &0.into(), &"concert".into())
    );
    assert!(body["eta_seconds"].is_null() || body["eta_seconds"].is_u64());
    assert!(body["next_poll_ms"].as_u64().unwrap() >= 750);
    let mut third = desk.join().await;
    assert_eq!(state(&desk.status(&mut third).await), (200, "waiting", 2));
    assert_eq!(state(&desk.post("enter", &mut second).await), (409, "waiting", 1));
    assert_eq!(desk.post("leave", &mut first).await.0, 204);
    desk.room.turn().await;
    assert_eq!(state(&desk.status(&mut second).await), (200, "called", 1));
    assert_eq!(state(&desk.status(&mut third).await), (200, "waiting", 1));
    assert_eq!(state(&desk.post("enter", &mut second).await), (200, "inside", 1));
    assert!(second.holds("tidegate-pass-concert"));
}

#[tokio::test(start_paused = true)]
async fn of_many_copies_of_a_ticket_one_enters() {
    let desk = Desk::open(|_| ());
    let mut inside = desk.join().await;
    let waiting = desk.join().await;
    desk.post("leave", &mut inside).await;
    desk.room.turn().await;
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(state(&desk.post("enter", &mut waiting.clone()).await).0);
    }
    assert_eq!(codes, [200, 409, 409, 409, 409]);
    assert_eq!(
        state(&desk.post("enter", &mut waiting.clone()).await),
        (409, "inside", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_join_gives_back_the_place_that_is_held() {
    let desk = Desk::open(|_| ());
    let mut inside = desk.join().await;
    let mut waiting = desk.join().await;
    desk.join().await;
    assert_eq!(
        state(&desk.post("join?room=concert", &mut waiting).await),
        (200, "waiting", 1)
    );
    assert_eq!(
        state(&desk.post("join?room=concert", &mut inside).await),
        (200, "inside", 1)
    );
    assert_eq!(desk.room.snapshot().last, 3);
}

#[tokio::test(start_paused = true)]
async fn too_late_and_too_silent_are_gone() {
    let desk = Desk::open(|_| ());
    let mut inside = desk.join().await;
    let mut called = desk.join().await;
    let mut silent = desk.join().await;
    desk.post("leave", &mut inside).await;
    desk.room.turn().await;
    desk.after(121).await;
    assert_eq!(desk.post("enter", &mut called).await.0, 410);
    assert_eq!(desk.status(&mut called).await.0, 410);
    assert_eq!(
        state(&desk.status(&mut silent).await),
        (200, "called", 1),
        "the slot went to the next"
    );
    assert_eq!(
        state(&desk.post("join?room=concert", &mut called).await),
        (200, "waiting", 1)
    );
    desk.after(301).await;
    assert_eq!(desk.status(&mut called).await.0, 410);
}

#[tokio::test(start_paused = true)]
async fn polls_cost_the_store_nothing_and_keep_the_place() {
    let desk = Desk::open(|rule| rule.terms.pass = Duration::from_secs(100_000));
    desk.join().await;
    let mut waiting = desk.join().await;
    for _ in 0..10 {
        desk.after(200).await;
        let headers = waiting.headers();
        let turns = desk.room.beat.lock().await.last;
        let request = Request {
            headers: &headers,
            ..blank(desk.clock.now(), "/queue/status")
        };
        assert_eq!(desk.api.answer(&request).await.status, StatusCode::OK);
        assert_eq!(desk.room.beat.lock().await.last, turns);
        desk.room.turn().await;
    }
    assert_eq!(state(&desk.status(&mut waiting).await), (200, "waiting", 1));
}

fn blank<'r>(now: Timestamp, path: &'r str) -> Request<'r> {
    static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Request {
        came: now,
        now,
        id: "1",
        route: None,
        method: &Method::GET,
        scheme: Scheme::Http,
        host: "shop.example.com",
        path,
        query: None,
        headers: &NONE,
        client_ip: "192.0.2.1".parse().unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_a_call_is_refused_as_a_problem() {
    let desk = Desk::open(|_| ());
    let mut nobody = Browser::default();
    for (method, path, expected) in [
        (Method::POST, "/queue/join?room=nowhere", 404),
        (Method::POST, "/queue/join", 400),
        (Method::GET, "/queue/join?room=concert", 405),
        (Method::POST, "/queue/status", 405),
        (Method::GET, "/queue/status", 404),
        (Method::GET, "/queue/status?room=concert", 404),
        (Method::POST, "/queue/enter?room=concert", 404),
        (Method::POST, "/queue/leave?room=concert", 204),
        (Method::GET, "/queue", 404),
        (Method::GET, "/queue/nothing", 404),
        (Method::OPTIONS, "/queue/join", 204),
    ] {
        let (status, body) = desk.call(method.clone(), path, &mut nobody).await;
        assert_eq!(status, expected, "{method} {path}");
        assert!(status == 204 || body["title"].is_string(), "{method} {path}: {body}");
    }
    assert!(desk.api.covers("/queue/x") && !desk.api.covers("/queues"));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_of_another_room_or_another_life_is_worth_nothing() {
    let desk = Desk::open(|_| ());
    desk.join().await;
    let mut waiting = desk.join().await;
    let mut reload = desk.rooms.begin();
    let other = reload.room(rule("other"), Page::builtin());
    reload.room(rule("concert"), Page::builtin());
    reload.commit();
    let forged = waiting
        .0
        .iter()
        .map(|(name, value)| (name.replace("concert", "other"), value.clone()))
        .collect();
    other.turn().await;
    assert_eq!(
        desk.call(Method::GET, "/queue/status?room=other", &mut Browser(forged))
            .await
            .0,
        404
    );
    let clock: Arc<ManualClock> = ManualClock::at(START + Duration::from_secs(1));
    let store = Arc::new(MemoryRooms::new(Arc::<ManualClock>::clone(&clock)));
    let reborn = Rooms::new(store, Arc::<ManualClock>::clone(&clock), Arc::clone(&desk.keyring));
    let mut reload = reborn.begin();
    let room = reload.room(rule("concert"), Page::builtin());
    reload.commit();
    let desk = Desk {
        api: QueueApi::new("/queue", Arc::clone(&reborn), ample()),
        rooms: reborn,
        room,
        clock,
        ..desk
    };
    assert_eq!(desk.status(&mut waiting).await.0, 410);
    assert_eq!(desk.post("enter", &mut waiting).await.0, 410);
    assert_eq!(
        state(&desk.post("join?room=concert", &mut waiting).await),
        (200, "inside", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_gets_the_same_place_and_the_same_pass_on_every_device() {
    let desk = Desk::open(|rule| rule.owner = Some(OwnerKey::new(|request| request.query_value("room").map(|_| 7))));
    let mut phone = desk.join().await;
    let mut laptop = Browser::default();
    assert_eq!(
        state(&desk.post("join?room=concert", &mut laptop).await),
        (200, "inside", 1)
    );
    assert_eq!(phone.0, laptop.0, "the same number, the same expiry: the same slips");
    desk.post("leave", &mut phone).await;
    desk.room.turn().await;
    assert_eq!(desk.room.snapshot().inside, 0);
    assert_eq!(
        desk.status(&mut laptop).await.0,
        410,
        "its pass has ended with the other"
    );
}

#[tokio::test(start_paused = true)]
async fn modes_are_heard_at_once_and_a_reload_takes_them_back() {
    let desk = Desk::open(|_| ());
    desk.join().await;
    let mut waiting = desk.join().await;
    desk.driven(desk.room.set(Setting::Mode(Mode::Off))).await.unwrap();
    assert_eq!(state(&desk.status(&mut waiting).await), (200, "inside", 1));
    assert_eq!(desk.room.snapshot().mode, Mode::Off);
    desk.driven(desk.room.set(Setting::Mode(Mode::Drain))).await.unwrap();
    assert_eq!(desk.post("join?room=concert", &mut Browser::default()).await.0, 503);
    assert_eq!(state(&desk.status(&mut waiting).await), (200, "waiting", 1));
    desk.driven(desk.room.set(Setting::Visitors(5))).await.unwrap();
    assert_eq!(desk.room.snapshot().capacity.visitors, Some(5));
    let mut reload = desk.rooms.begin();
    reload.room(held(), Page::builtin());
    drop(reload);
    desk.room.turn().await;
    assert_eq!(
        desk.room.snapshot().mode,
        Mode::Drain,
        "a reload that was given up changes nothing"
    );
    let mut reload = desk.rooms.begin();
    let same = reload.room(held(), Page::builtin());
    reload.commit();
    desk.room.turn().await;
    assert!(Arc::ptr_eq(&same, &desk.room));
    assert_eq!(desk.room.snapshot().mode, Mode::Hold);
    assert_eq!(desk.room.snapshot().capacity.visitors, Some(1));
}

#[tokio::test(start_paused = true)]
async fn with_the_store_away_places_are_still_shown_and_newcomers_follow_the_rule() {
    for (rule, expected) in [(OnStoreFault::Hold, 503), (OnStoreFault::Admit, 200)] {
        let desk = Desk::open(|written| written.on_store_fault = rule);
        desk.join().await;
        let mut waiting = desk.join().await;
        desk.unplug(true);
        assert_eq!(
            desk.post("join?room=concert", &mut Browser::default()).await.0,
            expected
        );
        let shown = if rule == OnStoreFault::Hold {
            "waiting"
        } else {
            "inside"
        };
        assert_eq!(state(&desk.status(&mut waiting).await), (200, shown, 1));
        desk.unplug(false);
        desk.room.turn().await;
        assert_eq!(desk.room.snapshot().last, 2);
        assert_eq!(state(&desk.status(&mut waiting).await), (200, "waiting", 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_driven_room_answers_joins_by_itself_and_stops_with_its_gateway() {
    let desk = Desk::open(|_| ());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let rooms = Arc::clone(&desk.rooms);
    let driver = tokio::spawn(async move { rooms.drive(async { drop(stopped.await) }).await });
    let join = Join {
        owner: None,
        otherwise: crate::queue::turn::Otherwise::Wait,
        share: None,
    };
    for number in 1..=3u64 {
        let joined = desk.room.join(join);
        // The tokio clock is paused and runs ahead; the room's own stands still unless it is told to move.
        let moving = async {
            loop {
                desk.clock.advance(Duration::from_millis(50));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let joined = tokio::select! { joined = joined => joined, () = moving => unreachable!() };
        assert!(
            matches!(joined, Ok(Joined::Place { number: given, .. }) if given == number),
            "{joined:?}"
        );
    }
    stop.send(()).unwrap();
    driver.await.unwrap();
}
