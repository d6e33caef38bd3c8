//! Tickets and passes that somebody made, altered, kept, copied or carried elsewhere: 1,000 of them, and none is taken.
//! And the ones that must be: those that were signed before the keys were rotated.

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tidegate::base::name::Name;
use tidegate::base::secret::Keyring;
use tidegate::queue::ticket::{Binding, Claim, Kind, SLIP_CHARS, sign, verify};

use crate::support::client::plain;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually};

const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
const HASHES: &str = "3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c";
const SECRETS: &str = "secrets: { tickets: { file: keys }, hashes: { file: hashes } }";
const NEWER: &str = "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3";

/// Where the visitor is whose ticket and pass everything below is made of.
const HOME: &str = "192.0.2.7";

/// Slips tried together.
const AT_ONCE: usize = 40;

fn keyring(text: &str) -> Keyring {
    Keyring::parse(text).unwrap()
}

fn name(room: &str) -> Name {
    room.parse().unwrap()
}

/// Two rooms for one visitor each, bound to the visitor's network.
async fn gateway(origin: &Origin) -> Gateway {
    let room = "{ capacity: { visitors: 1 }, bind: network }";
    let rules = format!(
        "rooms: {{ hall: {room}, annex: {room} }}\nupstreams: {{ app: {{ servers: [{}] }} }}\nroutes:\n  \
         - {{ name: hall, match: {{ path: /hall }}, chain: [waiting_room: {{ room: hall }}], upstream: app }}\n  \
         - {{ name: annex, match: {{ path: /annex }}, chain: [waiting_room: {{ room: annex }}], upstream: app }}\n",
        origin.address
    );
    let setup = Setup::new(&rules).file("keys", KEY).file("hashes", HASHES);
    let setup = setup.process(SECRETS).process("trusted_proxies: [127.0.0.0/8]");
    setup.start().await
}

/// One try: a cookie, shown from an address, and what it is.
struct Try {
    what: &'static str,
    kind: Kind,
    room: &'static str,
    slip: String,
    from: String,
}

fn from(request: RequestBuilder, address: &str) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

fn cookie(kind: Kind, room: &str, slip: &str) -> String {
    match kind {
        Kind::Ticket => format!("tidegate-ticket-{room}={slip}"),
        Kind::Pass => format!("tidegate-pass-{room}={slip}"),
        Kind::Link => format!("tidegate-link-{room}={slip}"),
    }
}

/// Whether the gateway takes it: the guarded page is shown, or the queue says that it knows the place.
async fn is_taken(gateway: &Gateway, client: &Client, tried: &Try) -> bool {
    let Try { kind, room, slip, .. } = tried;
    let cookie = cookie(*kind, room, slip);
    // A POST gets no new place when it is refused, so that a thousand tries do not make a queue.
    for (method, path) in [
        (Method::POST, format!("/{room}")),
        (Method::GET, format!("/queue/status?room={room}")),
        (Method::POST, format!("/queue/enter?room={room}")),
    ] {
        let request = from(client.request(method, gateway.url(&path)), &tried.from);
        let answer = request.header("cookie", &cookie).send().await.unwrap();
        if answer.status() == 200 {
            return true;
        }
    }
    false
}

/// Joins from [`HOME`] and gives the values of the cookies: the ticket, and the pass where there was room.
async fn join(gateway: &Gateway, room: &str) -> (String, Option<String>) {
    let url = gateway.url(&format!("/queue/join?room={room}"));
    let answer = from(plain().post(url), HOME).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let lines = answer.headers().get_all("set-cookie").iter();
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap().to_owned()).collect();
    let value = |prefix: &str| {
        let line = lines.iter().find(|line| line.starts_with(prefix))?;
        Some(line.split(['=', ';']).nth(1)?.to_owned())
    };
    (value("tidegate-ticket-").unwrap(), value("tidegate-pass-"))
}

fn altered(slip: &str, rng: &mut fastrand::Rng) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = slip.as_bytes().to_vec();
    let at = rng.usize(..bytes.len());
    match rng.u8(..4) {
        0 => _ = bytes.remove(at),
        1 => bytes.insert(at, LETTERS[rng.usize(..64)]),
        _ => {
            let other = LETTERS.iter().filter(|letter| **letter != bytes[at]);
            bytes[at] = *other.copied().collect::<Vec<_>>().get(rng.usize(..63)).unwrap();
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// What can be made without the gateway's key, or with it but of what is over or not there.
fn attacks(ticket: &str, pass: &str) -> Vec<Try> {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (ours, theirs) = (keyring(KEY), keyring(NEWER));
    let of_ticket = verify(&ours, Kind::Ticket, &name("hall"), ticket).unwrap();
    let of_pass = verify(&ours, Kind::Pass, &name("hall"), pass).unwrap();
    let both = [(Kind::Ticket, ticket, of_ticket), (Kind::Pass, pass, of_pass)];
    let mut tries = Vec::new();
    let mut add = |what, kind, slip: &str, from: String| {
        tries.push(Try {
            what,
            kind,
            room: "hall",
            slip: slip.to_owned(),
            from,
        });
    };
    let home = || HOME.to_owned();
    for _ in 0..70 {
        for (kind, slip, claim) in both {
            add("altered", kind, &altered(slip, &mut rng), home());
            let forged = sign(&theirs, kind, &name("hall"), &claim);
            add("signed by somebody else", kind, forged.reveal(), home());
            let elsewhere = sign(&ours, kind, &name("annex"), &claim);
            add("of another room", kind, elsewhere.reveal(), home());
            let epoch = claim.epoch ^ (1 + rng.u64(..1 << 40));
            let of_old = sign(&ours, kind, &name("hall"), &Claim { epoch, ..claim });
            add("of another life of the queue", kind, of_old.reveal(), home());
            let (a, b, c) = (rng.u8(..), rng.u8(..), rng.u8(..));
            add("a copy, shown from elsewhere", kind, slip, format!("10.{a}.{b}.{c}"));
        }
        let ago = std::time::Duration::from_millis(1 + rng.u64(..86_400_000));
        let expired = Claim {
            moment: of_ticket.moment - ago,
            ..of_pass
        };
        add(
            "expired",
            Kind::Pass,
            sign(&ours, Kind::Pass, &name("hall"), &expired).reveal(),
            home(),
        );
        add("a ticket as a pass", Kind::Pass, ticket, home());
        add("a pass as a ticket", Kind::Ticket, pass, home());
        let later = of_ticket.number + 1_000_000 + rng.u64(..1 << 40);
        let unborn = Claim {
            number: later,
            binding: Binding::to(None).within(1),
            ..of_ticket
        };
        add(
            "bound to nobody here",
            Kind::Ticket,
            sign(&ours, Kind::Ticket, &name("hall"), &unborn).reveal(),
            home(),
        );
        let text: String = (0..SLIP_CHARS).map(|_| rng.alphanumeric()).collect();
        add("made up", Kind::Pass, &text, home());
    }
    tries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_slips_that_are_not_somebodys_own_none_is_taken() {
    let origin = Origin::saying("hello").await;
    let gateway = Arc::new(gateway(&origin).await);
    let (_, pass) = join(&gateway, "hall").await;
    let pass = pass.expect("there is room for one");
    join(&gateway, "annex").await;
    let (ticket, none) = join(&gateway, "hall").await;
    assert_eq!(none, None, "the hall is full");
    let mut tries = attacks(&ticket, &pass);
    assert!(tries.len() >= 1_000, "{}", tries.len());
    for (kind, slip) in [(Kind::Ticket, &ticket), (Kind::Pass, &pass)] {
        let own = Try {
            what: "genuine",
            kind,
            room: "hall",
            slip: slip.clone(),
            from: HOME.to_owned(),
        };
        assert!(
            is_taken(&gateway, &plain(), &own).await,
            "{kind:?}: a test that refuses everything"
        );
    }
    let client = plain();
    let mut left = tries.len();
    while left > 0 {
        let some = tries.split_off(tries.len().saturating_sub(AT_ONCE));
        let answers: Vec<_> = some
            .into_iter()
            .map(|tried| {
                let (gateway, client) = (Arc::clone(&gateway), client.clone());
                tokio::spawn(async move { (tried.what, is_taken(&gateway, &client, &tried).await) })
            })
            .collect();
        for answer in answers {
            let (what, taken) = answer.await.unwrap();
            assert!(!taken, "taken: {what}");
        }
        left = tries.len();
    }
    assert_eq!(gateway.metric("tidegate_room_inside{room=\"hall\"}").await, 1.0);
}

#[tokio::test]
async fn a_ticket_and_a_pass_that_were_given_back_are_worth_nothing_again() {
    let origin = Origin::saying("hello").await;
    let gateway = gateway(&origin).await;
    let (ticket, pass) = join(&gateway, "hall").await;
    let own = |kind, slip: String| Try {
        what: "replayed",
        kind,
        room: "hall",
        slip,
        from: HOME.to_owned(),
    };
    let (ticket, pass) = (own(Kind::Ticket, ticket), own(Kind::Pass, pass.unwrap()));
    assert!(is_taken(&gateway, &plain(), &pass).await);
    let leave = from(plain().post(gateway.url("/queue/leave?room=hall")), HOME);
    let left = leave
        .header("cookie", cookie(Kind::Pass, "hall", &pass.slip))
        .send()
        .await;
    assert_eq!(left.unwrap().status(), 204);
    let (_, next) = eventually("the place is free", PATIENCE, async || {
        let joined = join(&gateway, "hall").await;
        joined.1.is_some().then_some(joined)
    })
    .await;
    assert!(next.is_some());
    for replayed in [ticket, pass] {
        assert!(!is_taken(&gateway, &plain(), &replayed).await, "{:?}", replayed.kind);
    }
}

#[tokio::test]
async fn keys_that_rotate_cost_nobody_the_place() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let start = async |keys: &str| {
        let store = format!("store: {{ redis: {{ urls: {}, timeout: 2s }} }}", server.url());
        let setup = Setup::new(&rules).file("keys", keys).file("hashes", HASHES);
        setup.process(SECRETS).process(&store).start().await
    };
    let before = start(KEY).await;
    let (_, pass) = join(&before, "hall").await;
    let (ticket, _) = join(&before, "hall").await;
    let rotated = start(&format!("{NEWER}\n{KEY}\n")).await;
    let status = async |gateway: &Gateway, kind, slip: &str| {
        let request = plain().get(gateway.url("/queue/status?room=hall"));
        let answer = request
            .header("cookie", cookie(kind, "hall", slip))
            .send()
            .await
            .unwrap();
        let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        told["state"].as_str().unwrap_or_default().to_owned()
    };
    for (kind, slip, state) in [
        (Kind::Ticket, &ticket, "waiting"),
        (Kind::Pass, &pass.unwrap(), "inside"),
    ] {
        let what = format!("{kind:?} of before the rotation");
        eventually(&what, PATIENCE, async || {
            (status(&rotated, kind, slip).await == state).then_some(())
        })
        .await;
    }
    let (newer, _) = join(&rotated, "hall").await;
    assert!(verify(&keyring(NEWER), Kind::Ticket, &name("hall"), &newer).is_some());
    assert!(verify(&keyring(KEY), Kind::Ticket, &name("hall"), &newer).is_none());
}
