//! Waiting rooms as visitors meet them: the queue API, the page, and what no visitor can do.

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::client::{browser, builder, header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Origin, answer};
use crate::support::{PATIENCE, eventually};

/// What a browser says it would like.
const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// A hall with these keys, in front of everything.
fn rules(origin: &Origin, hall: &str) -> String {
    format!(
        "rooms: {{ hall: {{ {hall} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    )
}

async fn hall_for_one(origin: &Origin) -> Gateway {
    Gateway::start(&rules(origin, "capacity: { visitors: 1 }")).await
}

/// What a call of the queue API comes to.
struct Told {
    status: u16,
    body: Value,
}

impl Told {
    async fn of(answer: Response) -> Self {
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        Self {
            status,
            body: serde_json::from_str(&text).unwrap_or_default(),
        }
    }

    fn state(&self) -> (u16, &str) {
        (self.status, self.body["state"].as_str().unwrap_or_default())
    }
}

async fn call(gateway: &Gateway, client: &Client, call: &str) -> Told {
    let url = gateway.url(&format!("/queue/{call}"));
    let method = if call.starts_with("status") {
        Method::GET
    } else {
        Method::POST
    };
    Told::of(client.request(method, url).send().await.unwrap()).await
}

async fn join(gateway: &Gateway, client: &Client) -> Told {
    call(gateway, client, "join?room=hall").await
}

/// Waits until the visitor is in this state.
async fn becomes(gateway: &Gateway, client: &Client, state: &str) {
    let what = format!("the visitor is {state}");
    eventually(&what, PATIENCE, async || {
        (call(gateway, client, "status").await.body["state"] == state).then_some(())
    })
    .await;
}

fn page(gateway: &Gateway, client: &Client, path: &str) -> RequestBuilder {
    client.get(gateway.url(path)).header("accept", BROWSER)
}

async fn order(gateway: &Gateway, order: Value) -> Value {
    let answer = plain()
        .post(gateway.admin_url("/rooms/hall"))
        .json(&order)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// The cookies that an answer sets, as `name=value`, and in full.
fn cookies(answer: &Response) -> Vec<(String, String)> {
    let lines = answer
        .headers()
        .get_all("set-cookie")
        .iter()
        .map(|line| line.to_str().unwrap().to_owned());
    lines
        .map(|line| (line.split(';').next().unwrap().to_owned(), line))
        .collect()
}

/// Joins and gives the ticket, as `name=value`.
async fn ticket(gateway: &Gateway) -> String {
    let answer = plain().post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    cookies(&answer).swap_remove(0).0
}

async fn call_with(gateway: &Gateway, cookie: &str, name: &str) -> u16 {
    let method = if name == "status" { Method::GET } else { Method::POST };
    let request = plain()
        .request(method, gateway.url(&format!("/queue/{name}")))
        .header("cookie", cookie);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn the_queue_api_leads_from_joining_to_leaving() {
    let origin = Origin::saying("hello").await;
    let gateway = hall_for_one(&origin).await;
    let (first, second, third) = (browser(), browser(), browser());
    let told = join(&gateway, &first).await;
    assert_eq!(told.status, 200);
    if told.state().1 == "called" {
        assert_eq!(call(&gateway, &first, "enter").await.state(), (200, "inside"));
    }
    let told = join(&gateway, &second).await;
    assert_eq!(told.state(), (200, "waiting"));
    assert_eq!((&told.body["position"], &told.body["ahead"]), (&json!(1), &json!(0)));
    assert!(told.body["next_poll_ms"].as_u64().unwrap() >= 500, "{}", told.body);
    assert!(told.body.as_object().unwrap().contains_key("eta_seconds"));
    assert_eq!(join(&gateway, &third).await.body["position"], 2);
    assert_eq!(
        join(&gateway, &third).await.body["position"],
        2,
        "a second join gives back the place held"
    );
    assert_eq!(call(&gateway, &second, "enter").await.status, 409, "not yet");
    assert_eq!(call(&gateway, &first, "leave").await.status, 204);
    becomes(&gateway, &second, "called").await;
    assert_eq!(call(&gateway, &third, "status").await.body["position"], 1);
    assert_eq!(call(&gateway, &second, "enter").await.state(), (200, "inside"));
    assert_eq!(
        call(&gateway, &second, "enter").await.status,
        409,
        "a ticket is good for one pass"
    );
    assert_eq!(call(&gateway, &second, "status").await.state(), (200, "inside"));
    let answer = page(&gateway, &second, "/show").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "hello");
    assert_eq!(call(&gateway, &second, "leave").await.status, 204);
    assert_eq!(
        call(&gateway, &second, "status").await.status,
        404,
        "who left holds nothing any more"
    );
    becomes(&gateway, &third, "called").await;
}

#[tokio::test]
async fn calls_that_make_no_sense_are_told_so() {
    let origin = Origin::saying("hello").await;
    let gateway = hall_for_one(&origin).await;
    let ask = async |method: Method, path: &str| plain().request(method, gateway.url(path)).send().await.unwrap();
    for (method, path, status) in [
        (Method::GET, "/queue/status", 404),
        (Method::POST, "/queue/enter", 404),
        (Method::POST, "/queue/enter?room=hall", 404),
        (Method::POST, "/queue/leave?room=hall", 204),
        (Method::POST, "/queue/join", 400),
        (Method::POST, "/queue/join?room=nowhere", 404),
        (Method::GET, "/queue/join?room=hall", 405),
        (Method::POST, "/queue/status", 405),
        (Method::DELETE, "/queue/leave", 405),
        (Method::OPTIONS, "/queue/join", 204),
        (Method::GET, "/queue", 404),
        (Method::GET, "/queue/", 404),
        (Method::GET, "/queue/other", 404),
    ] {
        let answer = ask(method.clone(), path).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(header(&answer, "cache-control"), "no-store", "{method} {path}");
        if status >= 400 {
            assert_eq!(
                header(&answer, "content-type"),
                "application/problem+json",
                "{method} {path}"
            );
        }
        if status == 405 {
            assert!(!header(&answer, "allow").is_empty(), "{method} {path}");
        }
    }
    assert!(origin.requests().is_empty());
    assert_eq!(
        plain().get(gateway.url("/queues")).send().await.unwrap().status(),
        200,
        "another path"
    );
}

#[tokio::test]
async fn a_place_that_was_given_up_is_gone() {
    let origin = Origin::saying("hello").await;
    let gateway = hall_for_one(&origin).await;
    ticket(&gateway).await;
    let ticket = ticket(&gateway).await;
    assert_eq!(call_with(&gateway, &ticket, "status").await, 200);
    assert_eq!(call_with(&gateway, &ticket, "leave").await, 204);
    eventually("410 for a place given up", PATIENCE, async || {
        (call_with(&gateway, &ticket, "status").await == 410).then_some(())
    })
    .await;
    assert_eq!(call_with(&gateway, &ticket, "enter").await, 410);
}

#[tokio::test]
async fn a_browser_gets_the_page_and_a_program_gets_a_problem() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(
        &origin,
        "capacity: { visitors: 1 }, exempt: [/assets/**, /robots.txt]",
    ))
    .await;
    let inside = page(&gateway, &browser(), "/show").send().await.unwrap();
    assert_eq!(
        inside.text().await.unwrap(),
        "hello",
        "there is room for one, in the same request"
    );

    let waiting = page(&gateway, &plain(), "/show").send().await.unwrap();
    assert_eq!(waiting.status(), 200);
    assert!(header(&waiting, "content-type").starts_with("text/html"));
    assert_eq!(
        (header(&waiting, "cache-control"), header(&waiting, "x-robots-tag")),
        ("no-store", "noindex")
    );
    assert!(header(&waiting, "content-security-policy").contains("frame-ancestors 'none'"));
    assert!(waiting.text().await.unwrap().contains("You are in line"));
    let korean = page(&gateway, &plain(), "/show")
        .header("accept-language", "ko-KR")
        .send()
        .await
        .unwrap();
    assert!(korean.text().await.unwrap().contains("대기"));

    for accept in ["application/json", "*/*", "image/avif,*/*"] {
        let refused = plain()
            .get(gateway.url("/show"))
            .header("accept", accept)
            .send()
            .await
            .unwrap();
        assert_eq!(refused.status(), 503, "{accept}");
        assert_eq!(header(&refused, "content-type"), "application/problem+json", "{accept}");
        assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
        let problem: Value = refused.json().await.unwrap();
        assert!(problem["position"].as_u64().unwrap() >= 1, "{problem}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let request = plain()
            .request(method.clone(), gateway.url("/show"))
            .header("accept", BROWSER);
        let refused = request.send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), header(&refused, "content-type")),
            (503, "application/problem+json")
        );
        assert!(!header(&refused, "retry-after").is_empty());
        assert!(
            cookies(&refused).is_empty(),
            "{method}: a place that nobody would come for"
        );
    }
    for path in ["/assets/style.css", "/robots.txt"] {
        assert_eq!(
            page(&gateway, &plain(), path)
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap(),
            "hello",
            "{path}"
        );
    }
    let preflight = plain().request(Method::OPTIONS, gateway.url("/show"));
    let preflight = preflight
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 200);
    assert_eq!(page(&gateway, &plain(), "/assetsx").send().await.unwrap().status(), 200);
    assert_eq!(origin.requests().len(), 4);
}

#[tokio::test]
async fn a_page_asked_for_again_enters_as_soon_as_it_may() {
    let origin = Origin::saying("hello").await;
    let gateway = hall_for_one(&origin).await;
    let (first, second) = (browser(), browser());
    let see = async |client: &Client| {
        page(&gateway, client, "/show?x=1")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    assert_eq!(see(&first).await, "hello");
    assert_ne!(see(&second).await, "hello");
    assert_eq!(call(&gateway, &first, "leave").await.status, 204);
    eventually("the second gets in", PATIENCE, async || {
        (see(&second).await == "hello").then_some(())
    })
    .await;
    assert_eq!(origin.last().target(), "/show?x=1");
    for _ in 0..5 {
        assert_eq!(see(&second).await, "hello", "who is inside is not queued again");
    }
    assert_ne!(see(&first).await, "hello", "who left is outside");
}

#[tokio::test]
async fn cookies_are_for_the_gateway_alone() {
    let origin = Origin::scripted(|_| answer("200 OK", &["set-cookie: own=1"], "hello")).await;
    let gateway = hall_for_one(&origin).await;
    let entered = page(&gateway, &plain(), "/show").send().await.unwrap();
    let set = cookies(&entered);
    assert!(
        set.iter().any(|(cookie, _)| cookie == "own=1"),
        "the server's own cookie stays"
    );
    let ours: Vec<_> = set
        .iter()
        .filter(|(cookie, _)| cookie.starts_with("tidegate-"))
        .collect();
    assert_eq!(ours.len(), 2, "a ticket and a pass: {set:?}");
    for (_, line) in &ours {
        for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Max-Age="] {
            assert!(line.contains(attribute), "{line}");
        }
        assert!(!line.contains("Domain"), "{line}");
    }
    let shown = ours
        .iter()
        .map(|(cookie, _)| cookie.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    let request = page(&gateway, &plain(), "/show").header("cookie", format!("a=1; {shown}; b=2"));
    let again = request
        .header("tidegate-pass", "end")
        .header("tidegate-room", "hall")
        .send()
        .await
        .unwrap();
    assert_eq!(again.text().await.unwrap(), "hello");
    let request = origin.last();
    assert_eq!(request.value("cookie"), Some("a=1; b=2"));
    assert!(
        !request.head.to_ascii_lowercase().contains("tidegate-"),
        "{}",
        request.head
    );
}

#[tokio::test]
async fn a_service_ends_the_visit_of_whom_it_is_done_with() {
    let origin = Origin::scripted(|request| {
        let ended: &[&str] = if request.target() == "/paid" {
            &["tidegate-pass: end"]
        } else {
            &[]
        };
        answer("200 OK", ended, "hello")
    })
    .await;
    let gateway = hall_for_one(&origin).await;
    let see = async |client: &Client, path: &str| {
        let answer = page(&gateway, client, path).send().await.unwrap();
        assert_eq!(header(&answer, "tidegate-pass"), "", "it is for the gateway alone");
        let set = cookies(&answer)
            .into_iter()
            .map(|(cookie, _)| cookie)
            .collect::<Vec<_>>();
        (answer.text().await.unwrap() == "hello", set)
    };
    let (first, second) = (browser(), browser());
    let (inside, set) = see(&first, "/show").await;
    assert!(inside);
    let pass = set
        .iter()
        .find(|cookie| cookie.starts_with("tidegate-pass-hall="))
        .unwrap();
    assert!(!see(&second, "/show").await.0);

    let claimed = page(&gateway, &first, "/show")
        .header("tidegate-pass", "end")
        .send()
        .await
        .unwrap();
    assert_eq!(claimed.text().await.unwrap(), "hello");
    assert!(see(&first, "/show").await.0, "a client's own word ends nothing");

    let (inside, set) = see(&first, "/paid").await;
    assert!(inside);
    assert_eq!(
        set,
        ["tidegate-pass-hall="],
        "the cookie is cleared and nothing else is set"
    );
    let copied = plain().get(gateway.url("/show")).header("cookie", pass);
    let copied = copied.header("accept", BROWSER).send().await.unwrap();
    assert_ne!(
        copied.text().await.unwrap(),
        "hello",
        "a copy of the pass is worth nothing either"
    );
    eventually("the second gets in", PATIENCE, async || {
        see(&second, "/show").await.0.then_some(())
    })
    .await;
    assert!(!see(&first, "/show").await.0, "who comes again waits like everyone");
}

#[tokio::test]
async fn a_visit_of_one_request_can_end_with_it() {
    let origin = Origin::scripted(|_| answer("200 OK", &["tidegate-pass: end"], "hello")).await;
    let gateway = hall_for_one(&origin).await;
    for visitor in 0..3 {
        let answer = page(&gateway, &plain(), "/show").send().await.unwrap();
        let passes: Vec<_> = cookies(&answer)
            .into_iter()
            .map(|(cookie, _)| cookie)
            .filter(|cookie| cookie.starts_with("tidegate-pass-"))
            .collect();
        assert_eq!(passes, ["tidegate-pass-hall="], "no pass is given that is over already");
        assert_eq!(answer.text().await.unwrap(), "hello", "visitor {visitor}");
    }
}

/// Every single character of a slip counts, and a slip is good for one thing in one room.
#[tokio::test]
async fn a_forged_slip_is_worth_nothing() {
    let origin = Origin::saying("hello").await;
    let both = "rooms:\n  hall: { capacity: { visitors: 1 } }\n  annex: { capacity: { visitors: 1 } }\n";
    let routes = format!(
        "upstreams: {{ app: {{ servers: [{}] }} }}\nroutes:\n  \
         - {{ name: hall, match: {{ path: /hall }}, chain: [waiting_room: {{ room: hall }}], upstream: app }}\n  \
         - {{ name: annex, match: {{ path: /annex }}, chain: [waiting_room: {{ room: annex }}], upstream: app }}\n",
        origin.address
    );
    let gateway = Gateway::start(&format!("{both}{routes}")).await;
    let entered = page(&gateway, &plain(), "/hall").send().await.unwrap();
    let set = cookies(&entered);
    let pass = &set
        .iter()
        .find(|(cookie, _)| cookie.starts_with("tidegate-pass-hall="))
        .unwrap()
        .0;
    assert_eq!(
        page(&gateway, &plain(), "/annex")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "hello"
    );
    let ticket = ticket(&gateway).await;
    assert_eq!(call_with(&gateway, &ticket, "status").await, 200);

    let (name, value) = ticket.split_once('=').unwrap();
    for at in 0..value.len() {
        let mut forged = value.to_owned().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = format!("{name}={}", String::from_utf8(forged).unwrap());
        assert_eq!(call_with(&gateway, &forged, "status").await, 404, "character {at}");
    }
    for forged in [
        "",
        "A",
        &value[1..],
        &value[..value.len() - 1],
        &format!("{value}A"),
        &"A".repeat(value.len()),
    ] {
        assert_eq!(
            call_with(&gateway, &format!("{name}={forged}"), "status").await,
            404,
            "{forged}"
        );
    }

    let sees = async |path: &str, cookie: String| {
        let answer = page(&gateway, &plain(), path)
            .header("cookie", cookie)
            .send()
            .await
            .unwrap();
        answer.text().await.unwrap() == "hello"
    };
    let (_, good) = pass.split_once('=').unwrap();
    assert!(sees("/hall", pass.clone()).await);
    assert!(
        !sees("/annex", format!("tidegate-pass-annex={good}")).await,
        "a pass of another room"
    );
    assert!(
        !sees("/hall", format!("tidegate-pass-hall={value}")).await,
        "a ticket in place of a pass"
    );
    assert_eq!(
        call_with(&gateway, &format!("{name}={good}"), "status").await,
        404,
        "a pass in place of a ticket"
    );
    assert_eq!(
        call_with(&gateway, &format!("tidegate-ticket-annex={value}"), "status").await,
        404
    );
    let other = hall_for_one(&origin).await;
    assert_eq!(
        call_with(&other, &ticket, "status").await,
        404,
        "another gateway with a key of its own"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_called_ticket_used_fifty_times_at_once_gives_one_pass() {
    let origin = Origin::saying("hello").await;
    let setup = Setup::new(&rules(&origin, "capacity: { visitors: 1 }")).process("threads: 2");
    let gateway = setup.start().await;
    let first = browser();
    join(&gateway, &first).await;
    let ticket = ticket(&gateway).await;
    assert_eq!(call_with(&gateway, &ticket, "enter").await, 409);
    assert_eq!(call(&gateway, &first, "leave").await.status, 204);
    eventually("the ticket is called", PATIENCE, async || {
        let request = plain().get(gateway.url("/queue/status")).header("cookie", &ticket);
        (Told::of(request.send().await.unwrap()).await.state() == (200, "called")).then_some(())
    })
    .await;
    let tries: Vec<_> = (0..50)
        .map(|_| {
            let client = builder().pool_max_idle_per_host(0).build().unwrap();
            let request = client.post(gateway.url("/queue/enter")).header("cookie", &ticket);
            tokio::spawn(request.send())
        })
        .collect();
    let mut given = Vec::new();
    for answer in tries {
        let answer = answer.await.unwrap().unwrap();
        match answer.status().as_u16() {
            200 => given.push(cookies(&answer)),
            status => assert_eq!((status, cookies(&answer)), (409, Vec::new())),
        }
    }
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(gateway.metric("tidegate_room_inside{room=\"hall\"}").await, 1.0);
}

#[tokio::test]
async fn one_place_per_key_whatever_the_client_throws_away() {
    let origin = Origin::saying("hello").await;
    let hall = "capacity: { visitors: 1 }, one_place_per: { header: x-user }";
    let gateway = Gateway::start(&rules(&origin, hall)).await;
    let join = async |user: &str| {
        let request = plain()
            .post(gateway.url("/queue/join?room=hall"))
            .header("x-user", user);
        Told::of(request.send().await.unwrap()).await
    };
    join("zero").await;
    assert_eq!(join("one").await.body["position"], 1);
    assert_eq!(join("two").await.body["position"], 2);
    for _ in 0..3 {
        assert_eq!(join("one").await.body["position"], 1, "a new client with no cookies");
    }
    assert_eq!(join("three").await.body["position"], 3);
}

#[tokio::test]
async fn the_operator_holds_opens_and_closes_the_room() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin, "capacity: { visitors: 2 }")).await;
    let sees =
        async |client: &Client| page(&gateway, client, "/").send().await.unwrap().text().await.unwrap() == "hello";
    let (first, second, third) = (browser(), browser(), browser());
    assert!(sees(&first).await);

    assert_eq!(order(&gateway, json!({ "mode": "hold" })).await["mode"], "hold");
    assert!(!sees(&second).await, "everyone new waits");
    assert!(sees(&first).await, "who is inside goes on");
    assert_eq!(call(&gateway, &second, "status").await.body["notice"], "held");

    order(&gateway, json!({ "mode": "auto", "capacity": { "visitors": 1 } })).await;
    assert!(!sees(&second).await, "the room is full with one");
    let room = order(&gateway, json!({ "capacity": { "visitors": 2 } })).await;
    assert_eq!(room["capacity"]["visitors"], 2);
    eventually("the second gets in", PATIENCE, async || {
        sees(&second).await.then_some(())
    })
    .await;
    assert!(!sees(&third).await);

    order(&gateway, json!({ "mode": "drain" })).await;
    let refused = page(&gateway, &browser(), "/").send().await.unwrap();
    assert_eq!(refused.status(), 503, "nobody new gets a place");
    assert_eq!(
        call(&gateway, &third, "status").await.body["position"],
        1,
        "who waits keeps the place"
    );

    order(&gateway, json!({ "mode": "off" })).await;
    assert!(sees(&third).await && sees(&browser()).await, "nobody waits");

    let listed: Value = plain()
        .get(gateway.admin_url("/rooms"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["mode"]),
        (&json!("hall"), &json!("off"))
    );
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused() {
    let origin = Origin::saying("hello").await;
    let gateway = hall_for_one(&origin).await;
    let send = async |path: &str, kind: &str, body: &str| {
        let request = plain().post(gateway.admin_url(path)).header("content-type", kind);
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    let json = "application/json";
    assert_eq!(send("/rooms/nowhere", json, "{\"mode\": \"hold\"}").await, 404);
    assert_eq!(
        send("/rooms/hall", "text/plain", "{\"mode\": \"hold\"}").await,
        415,
        "what a web page could send"
    );
    let page = plain()
        .post(gateway.admin_url("/rooms/hall"))
        .header("content-type", json);
    let page = page.header("origin", format!("http://rebound.test:{}", gateway.admin.port()));
    let answered = page.body("{\"mode\": \"hold\"}").send().await.unwrap();
    assert_eq!(
        answered.status(),
        403,
        "what a page could whose name points here by now"
    );
    assert_eq!(send("/rooms/hall", json, "{\"mode\": \"shut\"}").await, 400);
    assert_eq!(send("/rooms/hall", json, "{\"mod\": \"hold\"}").await, 400);
    assert_eq!(
        send("/rooms/hall", json, "{\"capacity\": {\"visitors\": 0}}").await,
        400
    );
    assert_eq!(send("/rooms/hall", json, "{").await, 400);
    assert_eq!(send("/rooms/hall", json, &" ".repeat(20_000)).await, 413);
    assert_eq!(send("/rooms/hall", json, "{\"mode\": \"auto\"}").await, 200);
}

/// The room is full and held, and somebody waits. Any turn between two parts of the order would call.
#[tokio::test]
async fn an_order_is_heard_whole_or_not_at_all() {
    let origin = Origin::saying("hello").await;
    let gateway = hall_for_one(&origin).await;
    assert_eq!(join(&gateway, &browser()).await.state(), (200, "inside"));
    order(&gateway, json!({ "mode": "hold" })).await;
    let waiting = browser();
    assert_eq!(join(&gateway, &waiting).await.state(), (200, "waiting"));
    for _ in 0..5 {
        let told = json!({ "reset": true, "mode": "hold", "capacity": { "visitors": 100 } });
        let room = order(&gateway, told).await;
        let (mode, visitors) = (&room["mode"], &room["capacity"]["visitors"]);
        assert_eq!((mode, visitors), (&"hold".into(), &100.into()));
    }
    let status = call(&gateway, &waiting, "status").await;
    assert_eq!(status.state(), (200, "waiting"), "nobody was called meanwhile");
    order(&gateway, json!({ "mode": "auto" })).await;
    becomes(&gateway, &waiting, "called").await;
}
