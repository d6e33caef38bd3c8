use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{ACCEPT, COOKIE, REFRESH, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::*;
use crate::base::clock::{Clock as _, ManualClock, Timestamp};
use crate::base::exchange::{Effects, HeaderEdit, Reply, Scheme};
use crate::base::name::Name;
use crate::base::secret::Keyring;
use crate::queue::turn::Join;
use crate::room::api::{Bounds, QueueApi};
use crate::room::page::Page;
use crate::room::registry::Rooms;
use crate::room::rule::{Capacity, Challenge as Terms, Rule};
use crate::store::memory::rooms::MemoryRooms;
use crate::store::rooms::{RoomFault, RoomReply, RoomStore, RoomTurn};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const HTML: &str = "text/html,*/*;q=0.8";

/// A store that counts the joins it hears of.
#[derive(Debug)]
struct Counting {
    memory: MemoryRooms,
    joins: AtomicUsize,
}

#[async_trait::async_trait]
impl RoomStore for Counting {
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault> {
        let joins: &[Join] = &turn.turn.joins;
        self.joins.fetch_add(joins.len(), Ordering::SeqCst);
        self.memory.room_turn(room, turn).await
    }
}

struct Desk {
    clock: Arc<ManualClock>,
    store: Arc<Counting>,
    room: Arc<Room>,
    api: QueueApi,
}

/// What a request brings besides its method and path.
#[derive(Default, Clone)]
struct Shown {
    accept: &'static str,
    work: Option<String>,
    cookie: Option<String>,
    from: Option<&'static str>,
}

impl Desk {
    fn open(no_script: NoScript) -> Self {
        let clock = ManualClock::at(START);
        let store = Arc::new(Counting {
            memory: MemoryRooms::new(Arc::<ManualClock>::clone(&clock)),
            joins: AtomicUsize::new(0),
        });
        let keys = Arc::new(Keyring::random());
        let rooms = Rooms::new(Arc::<Counting>::clone(&store), Arc::<ManualClock>::clone(&clock), keys);
        let capacity = Capacity {
            visitors: Some(1),
            admit: None,
            pass: Duration::from_secs(600),
        };
        let mut rule = Rule::new("hall".parse().unwrap(), capacity);
        rule.challenge = Some(Terms { work: 8, no_script });
        let mut reload = rooms.begin();
        let room = reload.room(rule, Page::builtin());
        reload.commit();
        let api = QueueApi::new("/queue", rooms, Bounds::default());
        Self {
            clock,
            store,
            room,
            api,
        }
    }

    /// The answer to a request for the queue API, or for a guarded page; none when it may go on to the upstream.
    async fn ask(&self, method: Method, path: &str, shown: &Shown) -> Option<Reply> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(shown.accept));
        for (name, value) in [(TIDEGATE_WORK, &shown.work), (COOKIE, &shown.cookie)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let request = Request {
            came: self.clock.now(),
            now: self.clock.now(),
            id: "1",
            route: None,
            method: &method,
            scheme: Scheme::Http,
            host: "shop.example.com",
            path,
            query,
            headers: &headers,
            client_ip: shown.from.unwrap_or("192.0.2.1").parse().unwrap(),
        };
        let answer = async {
            if self.api.covers(path) {
                return Some(self.api.answer(&request).await);
            }
            let mut effects = Effects::default();
            let reply = self.room.receive(&request, &mut effects).await;
            let cookies = effects.to_client.into_iter().filter_map(|edit| match edit {
                HeaderEdit::Add(SET_COOKIE, value) => Some(value),
                _ => None,
            });
            reply.map(|reply| cookies.fold(reply, |reply, cookie| reply.header(SET_COOKIE, cookie)))
        };
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                biased;
                done = &mut answer => return done,
                () = self.room.turn() => {}
            }
        }
    }

    async fn join(&self, shown: &Shown) -> Reply {
        self.ask(Method::POST, "/queue/join?room=hall", shown).await.unwrap()
    }

    fn joins(&self) -> usize {
        self.store.joins.load(Ordering::SeqCst)
    }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

fn cookie(reply: &Reply) -> Option<String> {
    let (_, line) = reply.headers.iter().find(|(name, _)| *name == SET_COOKIE)?;
    Some(line.to_str().unwrap().split(';').next().unwrap().to_owned())
}

/// Solves what a program was told.
fn solution(reply: &Reply) -> String {
    let told = body(reply);
    let challenge = told["challenge"]["challenge"].as_str().unwrap();
    let bits = u32::try_from(told["challenge"]["bits"].as_u64().unwrap()).unwrap();
    let mut texts = (0_u64..).map(|nonce| format!("{challenge}.{nonce}"));
    texts
        .find(|text| work::zero_bits(digest(&SHA256, text.as_bytes()).as_ref()) >= bits)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_place_is_paid_for_before_the_store_hears_of_it() {
    let desk = Desk::open(NoScript::Wait);
    let refused = desk.join(&Shown::default()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let told = body(&refused);
    assert_eq!(
        (&told["status"], &told["room"], &told["challenge"]["algorithm"]),
        (&403.into(), &"hall".into(), &"sha-256".into())
    );
    assert_eq!(
        (
            &told["challenge"]["bits"],
            &told["challenge"]["good_for_ms"],
            &told["challenge"]["header"]
        ),
        (&8.into(), &120_000.into(), &"tidegate-work".into())
    );
    let guarded = desk.ask(Method::POST, "/show", &Shown::default()).await.unwrap();
    assert_eq!(guarded.status, StatusCode::FORBIDDEN);
    assert_eq!(desk.joins(), 0);
    let paid = Shown {
        work: Some(solution(&refused)),
        ..Shown::default()
    };
    let joined = desk.join(&paid).await;
    assert_eq!((joined.status, desk.joins()), (StatusCode::OK, 1));
    assert_eq!(body(&joined)["state"], "inside");
}

#[tokio::test(start_paused = true)]
async fn a_solution_is_taken_once_in_time_and_from_where_it_was_asked() {
    let desk = Desk::open(NoScript::Wait);
    let asked = desk.join(&Shown::default()).await;
    let paid = Shown {
        work: Some(solution(&asked)),
        ..Shown::default()
    };
    let elsewhere = Shown {
        from: Some("192.0.2.2"),
        ..paid.clone()
    };
    assert_eq!(desk.join(&elsewhere).await.status, StatusCode::FORBIDDEN);
    assert_eq!(desk.join(&paid).await.status, StatusCode::OK);
    let again = desk.join(&paid).await;
    assert_eq!((again.status, desk.joins()), (StatusCode::FORBIDDEN, 1));
    let late = Shown {
        work: Some(solution(&again)),
        ..Shown::default()
    };
    desk.clock.advance(LIFE);
    assert_eq!(desk.join(&late).await.status, StatusCode::FORBIDDEN);
    assert_eq!(desk.joins(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_ticket_or_a_pass_pays_nothing() {
    let desk = Desk::open(NoScript::Wait);
    let mut held = Vec::new();
    for _ in 0..2 {
        let asked = desk.join(&Shown::default()).await;
        let paid = Shown {
            work: Some(solution(&asked)),
            ..Shown::default()
        };
        held.push(cookie(&desk.join(&paid).await));
    }
    let visitor = Shown {
        accept: HTML,
        cookie: held.pop().unwrap(),
        ..Shown::default()
    };
    let page = desk.ask(Method::GET, "/show", &visitor).await.unwrap();
    assert!(text(&page).contains("You are in line"), "{}", text(&page));
    assert_eq!(body(&desk.join(&visitor).await)["state"], "waiting");
}

#[tokio::test(start_paused = true)]
async fn a_page_without_a_script_is_let_on_after_a_while_one_from_each_network_at_a_time() {
    let desk = Desk::open(NoScript::Wait);
    let browser = |cookie| Shown {
        accept: HTML,
        cookie,
        ..Shown::default()
    };
    let page = desk.ask(Method::GET, "/show", &browser(None)).await.unwrap();
    assert!(
        text(&page).contains(r#"<meta http-equiv="refresh" content="11">"#),
        "{}",
        text(&page)
    );
    let first = cookie(&page).unwrap();
    assert!(first.starts_with("tidegate-work-hall="), "{first}");
    let second = cookie(&desk.ask(Method::GET, "/show", &browser(None)).await.unwrap()).unwrap();
    desk.clock.advance(Duration::from_secs(4));
    let early = desk
        .ask(Method::GET, "/show", &browser(Some(first.clone())))
        .await
        .unwrap();
    assert!(text(&early).contains(r#"content="7">"#), "{}", text(&early));
    assert_eq!(cookie(&early).as_ref(), Some(&first), "the time runs on");
    desk.clock.advance(Duration::from_secs(6));
    assert_eq!(desk.joins(), 0);
    let program = Shown {
        cookie: Some(first.clone()),
        ..Shown::default()
    };
    assert_eq!(
        desk.join(&program).await.status,
        StatusCode::FORBIDDEN,
        "waiting is for pages"
    );
    assert_eq!(
        desk.ask(Method::GET, "/show", &browser(Some(first.clone()))).await,
        None
    );
    for used in [first, second] {
        let page = desk.ask(Method::GET, "/show", &browser(Some(used))).await.unwrap();
        assert!(text(&page).contains("One moment"), "one at a time");
    }
    assert_eq!(desk.joins(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_the_operator_says_so_nothing_goes_without_a_script() {
    let desk = Desk::open(NoScript::Refuse);
    let browser = Shown {
        accept: HTML,
        ..Shown::default()
    };
    let page = desk.ask(Method::GET, "/show", &browser).await.unwrap();
    assert_eq!(cookie(&page), None);
    assert!(page.headers.iter().all(|(name, _)| *name != REFRESH));
    assert!(text(&page).contains("<noscript></noscript>") && text(&page).contains(r#"data-no-script="refuse""#));
    let challenge = desk.join(&Shown::default()).await;
    let challenge = body(&challenge)["challenge"]["challenge"].as_str().unwrap().to_owned();
    desk.clock.advance(NO_SCRIPT_DELAY);
    let waited = Shown {
        cookie: Some(format!("tidegate-work-hall={challenge}")),
        ..browser
    };
    let page = desk.ask(Method::GET, "/show", &waited).await.unwrap();
    assert!(text(&page).contains("One moment"));
    assert_eq!(desk.joins(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_page_and_its_worker_run_under_a_policy_that_allows_nothing_else() {
    let desk = Desk::open(NoScript::Wait);
    let browser = Shown {
        accept: HTML,
        ..Shown::default()
    };
    let page = desk.ask(Method::GET, "/show", &browser).await.unwrap();
    let header = |reply: &Reply, name: &str| {
        let found = reply.headers.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap()
    };
    let policy = header(&page, "content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; ") && policy.ends_with("; worker-src 'self'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header(&page, "cache-control"), "no-store");
    assert!(!text(&page).contains("{{"), "{}", text(&page));
    assert!(page.body.len() < 14_000, "{}", page.body.len());
    let script = desk
        .ask(Method::GET, "/queue/work.js", &Shown::default())
        .await
        .unwrap();
    assert_eq!(script.status, StatusCode::OK);
    assert!(header(&script, "content-type").starts_with("text/javascript"));
}
