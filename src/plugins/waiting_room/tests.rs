use std::collections::HashMap;
use std::time::Duration;

use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, REFRESH,
    RETRY_AFTER, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::base::clock::{Clock, ManualClock, Timestamp};
use crate::base::exchange::{HeaderEdit, Reply, Scheme};
use crate::base::secret::Keyring;
use crate::queue::terms::{Mode, Setting};
use crate::room::page::Page;
use crate::room::rule::{Capacity, ExemptPath, Rule};
use crate::store::memory::rooms::MemoryRooms;

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// A guarded route with room for one.
struct Route {
    clock: Arc<ManualClock>,
    room: Arc<Room>,
    plugin: WaitingRoom,
}

/// What came of one request.
struct Answer {
    reply: Option<Reply>,
    effects: Effects,
}

impl Answer {
    fn code(&self) -> u16 {
        self.reply.as_ref().map_or(0, |reply| reply.status.as_u16())
    }

    fn header(&self, wanted: HeaderName) -> Option<&str> {
        let reply = self.reply.as_ref()?;
        reply
            .headers
            .iter()
            .find(|(name, _)| *name == wanted)
            .and_then(|(_, value)| value.to_str().ok())
    }

    fn cookies(&self) -> String {
        let set = self.effects.to_client.iter().map(|edit| match edit {
            HeaderEdit::Add(SET_COOKIE, value) => value.to_str().unwrap().split(';').next().unwrap().to_owned(),
            other => panic!("{other:?}"),
        });
        set.collect::<Vec<_>>().join("; ")
    }

    fn body(&self) -> String {
        self.reply
            .as_ref()
            .map_or(String::new(), |reply| String::from_utf8_lossy(&reply.body).into_owned())
    }
}

impl Route {
    fn open(change: impl FnOnce(&mut Rule)) -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_800_000_000));
        let capacity = Capacity {
            visitors: Some(1),
            admit: None,
            pass: Duration::from_secs(600),
        };
        let mut rule = Rule::new("concert".parse().unwrap(), capacity);
        change(&mut rule);
        let store = Arc::new(MemoryRooms::new(Arc::<ManualClock>::clone(&clock)));
        let keyring = Arc::new(Keyring::random());
        let room = Room::new(rule, store, Arc::<ManualClock>::clone(&clock), keyring, Page::builtin());
        let plugin = WaitingRoom {
            room: Arc::clone(&room),
        };
        Self { clock, room, plugin }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            came: self.clock.now(),
            now: self.clock.now(),
            id: "1",
            route: None,
            method: &method,
            scheme: Scheme::Http,
            host: "shop.example.com",
            path,
            query: None,
            headers: &map,
            client_ip: "192.0.2.1".parse().unwrap(),
        };
        let mut effects = Effects::default();
        let reply = match self.plugin.request(&request, &mut effects) {
            Verdict::Continue => None,
            Verdict::Reply(reply) => Some(*reply),
            Verdict::Hold(mut future) => loop {
                tokio::select! {
                    biased;
                    verdict = &mut future => match verdict {
                        Verdict::Continue => break None,
                        Verdict::Reply(reply) => break Some(*reply),
                        Verdict::Hold(_) => panic!("held twice"),
                    },
                    () = self.room.turn() => {}
                }
            },
        };
        Answer { reply, effects }
    }

    async fn browse(&self, cookies: &str) -> Answer {
        self.ask(Method::GET, "/checkout", &[(ACCEPT, BROWSER), (COOKIE, cookies)])
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_room_goes_through_in_the_same_request_and_then_needs_no_store() {
    let route = Route::open(|_| ());
    let first = route.browse("").await;
    assert_eq!(first.code(), 0);
    let cookies = first.cookies();
    assert!(cookies.contains("tidegate-pass-concert=") && cookies.contains("tidegate-ticket-concert="));
    let again = route.browse(&cookies).await;
    assert_eq!((again.code(), again.cookies().as_str()), (0, ""));
    assert_eq!(route.room.snapshot().last, 1);
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_must_wait_gets_the_page_and_a_program_its_place_as_a_problem() {
    let route = Route::open(|_| ());
    route.browse("").await;
    let page = route.browse("").await;
    assert_eq!(page.code(), 200);
    assert_eq!(page.header(CONTENT_TYPE), Some("text/html; charset=utf-8"));
    assert_eq!(page.header(CACHE_CONTROL), Some("no-store"));
    assert_eq!(page.header(HeaderName::from_static("x-robots-tag")), Some("noindex"));
    assert!(
        page.header(CONTENT_SECURITY_POLICY)
            .unwrap()
            .contains("default-src 'none'")
    );
    assert!(page.cookies().starts_with("tidegate-ticket-concert="));
    let program = route
        .ask(Method::GET, "/checkout", &[(ACCEPT, "application/json")])
        .await;
    assert_eq!(program.code(), 503);
    assert!(program.header(RETRY_AFTER).is_some());
    assert!(program.body().contains("\"position\":2"), "{}", program.body());
    let same = route.browse(&page.cookies()).await;
    assert_eq!(
        (same.code(), same.cookies().as_str()),
        (200, ""),
        "the place is kept, no second is given"
    );
    assert_eq!(route.room.snapshot().waiting, 2);
}

#[tokio::test(start_paused = true)]
async fn a_post_without_a_ticket_goes_straight_in_or_nowhere() {
    let route = Route::open(|_| ());
    assert_eq!(route.ask(Method::POST, "/checkout", &[]).await.code(), 0);
    let refused = route.ask(Method::POST, "/checkout", &[(ACCEPT, BROWSER)]).await;
    assert_eq!(refused.code(), 503);
    assert_eq!(refused.header(CONTENT_TYPE), Some("application/problem+json"));
    assert!(refused.header(RETRY_AFTER).is_some());
    assert_eq!(route.room.snapshot().last, 1);
}

#[tokio::test(start_paused = true)]
async fn a_called_ticket_enters_by_itself_and_a_reload_gets_the_same_pass() {
    let route = Route::open(|_| ());
    let inside = route.browse("").await.cookies();
    let ticket = route.browse("").await.cookies();
    assert!(!inside.is_empty());
    route.room.leave(1);
    route.room.turn().await;
    let entered = route.browse(&ticket).await;
    assert_eq!(entered.code(), 0);
    route.clock.advance(Duration::from_secs(30));
    let reloaded = route.browse(&ticket).await;
    assert_eq!((reloaded.code(), reloaded.cookies()), (0, entered.cookies()));
    route.clock.advance(Duration::from_secs(120));
    assert_eq!(route.browse(&ticket).await.code(), 200, "later, it is a used ticket");
    assert_eq!(route.room.snapshot().inside, 1);
    assert_eq!(route.browse(&inside).await.code(), 200, "a pass given back is over");
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_is_used_lives_on_and_one_that_is_not_runs_out() {
    let route = Route::open(|_| ());
    let mut cookies = route.browse("").await.cookies();
    for _ in 0..20 {
        route.clock.advance(Duration::from_secs(300));
        let answer = route.browse(&cookies).await;
        assert_eq!(answer.code(), 0);
        assert!(answer.cookies().starts_with("tidegate-pass-concert="), "renewed");
        cookies = answer.cookies();
        route.room.turn().await;
    }
    assert_eq!(route.room.snapshot().inside, 1);
    route.clock.advance(Duration::from_secs(601));
    route.browse("").await;
    assert_eq!(
        route.browse(&cookies).await.code(),
        200,
        "its slot may be another's by now"
    );
}

#[tokio::test(start_paused = true)]
async fn preflights_exempt_paths_and_rooms_that_are_off_go_through() {
    let route = Route::open(|rule| rule.exempt = vec![ExemptPath::parse("/assets/**").unwrap()]);
    route.browse("").await;
    let preflight = [(ACCESS_CONTROL_REQUEST_METHOD, "POST")];
    assert_eq!(route.ask(Method::OPTIONS, "/checkout", &preflight).await.code(), 0);
    assert_eq!(route.ask(Method::OPTIONS, "/checkout", &[]).await.code(), 503);
    assert_eq!(
        route
            .ask(Method::GET, "/assets/a.css", &[(ACCEPT, BROWSER)])
            .await
            .code(),
        0
    );
    let off = route.room.set(Setting::Mode(Mode::Off));
    tokio::join!(off, route.room.turn()).0.unwrap();
    assert_eq!(route.browse("").await.code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_says_so_in_words_to_a_person_and_in_a_problem_to_a_program() {
    let route = Route::open(|rule| rule.terms.mode = Mode::Drain);
    let person = route.browse("").await;
    assert_eq!(
        (person.code(), person.header(CONTENT_TYPE)),
        (503, Some("text/plain; charset=utf-8"))
    );
    assert!(person.header(REFRESH).is_none() && person.header(RETRY_AFTER).is_some());
    let program = route.ask(Method::GET, "/", &[(ACCEPT, "application/json")]).await;
    assert_eq!(
        (program.code(), program.header(CONTENT_TYPE)),
        (503, Some("application/problem+json"))
    );
}

#[test]
fn an_unknown_room_is_refused_with_the_nearest_that_is_known() {
    let route = Route::open(|_| ());
    let rooms = HashMap::from([(route.room.name().clone(), Arc::clone(&route.room))]);
    let found = |name: &str| find(&rooms, &name.parse().unwrap());
    assert!(found("concert").is_ok());
    assert!(found("consert").unwrap_err().message.contains("`concert`"));
    assert!(found("sauna").unwrap_err().message.contains("under `rooms`"));
    assert!(serde_yaml::from_str::<Config>("{ room: concert }").is_ok());
    assert!(serde_yaml::from_str::<Config>("{ room: concert, rom: x }").is_err());
}
