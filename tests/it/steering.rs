//! Waiting rooms as operators steer them: `tidegate room`, and what it says to the operator's listener.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::support::client::{browser, plain};
use crate::support::gateway::{Gateway, TIDEGATE};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

/// `tidegate room` with these arguments: the code it ends with, and what it says.
fn room(admin: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(TIDEGATE);
    command
        .arg("room")
        .args(arguments)
        .args(["--admin", &admin.to_string()]);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

async fn hall(origin: &Origin) -> Gateway {
    let room = "rooms: { hall: { capacity: { visitors: 1, admit: 100/s } } }";
    let routes = origin.rules_with("", "[waiting_room: { room: hall }]");
    Gateway::start(&format!("{room}\n{routes}")).await
}

#[tokio::test]
async fn a_room_is_shown_and_steered_from_the_command_line() {
    let origin = Origin::saying("hello").await;
    let gateway = hall(&origin).await;
    let admin = gateway.admin;
    let (code, said) = room(admin, &["list"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("ROOM") && said.contains("\nhall  auto"), "{said}");
    for (arguments, part) in [
        (&["hold", "hall"][..], "mode      hold"),
        (&["open", "hall"], "mode      auto"),
        (&["drain", "hall"], "mode      drain"),
        (&["off", "hall"], "mode      off"),
        (
            &["capacity", "hall", "--visitors", "7"],
            "capacity  7 visitors at once, 100/s called",
        ),
        (
            &["capacity", "hall", "--admit", "5/min"],
            "capacity  7 visitors at once, 5/min called",
        ),
        (&["reset", "hall"], "capacity  1 visitors at once, 100/s called"),
        (&["show", "hall"], "mode      auto"),
    ] {
        let (code, said) = room(admin, arguments);
        assert!(code == 0 && said.contains(part), "{arguments:?}: {code} {said}");
    }
    let (code, said) = room(admin, &["show", "hall", "--json"]);
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &shown["name"], &shown["store"]["answers"]),
        (0, &"hall".into(), &true.into())
    );
}

/// The whole way: what requests of a real upstream take becomes a rate.
#[tokio::test]
async fn a_measured_room_says_between_which_rates_and_why() {
    let origin = Origin::saying("hello").await;
    let room_rule = "rooms: { hall: { capacity: { admit: { min: 5/s, max: 50/s, upstream: app } } } }";
    let routes = origin.rules_with("", "[waiting_room: { room: hall }]");
    let gateway = Gateway::start(&format!("{room_rule}\n{routes}")).await;
    let visitor = browser();
    eventually("the upstream is judged", PATIENCE, async || {
        for _ in 0..30 {
            visitor
                .get(gateway.url("/"))
                .header("accept", "text/html")
                .send()
                .await
                .unwrap();
        }
        let (_, said) = room(gateway.admin, &["show", "hall"]);
        let begins = "capacity  5/s called, from 5/s to 50/s as upstream app bears it: ";
        (said.contains(begins) && !said.contains("not known yet")).then_some(())
    })
    .await;
    let metrics = gateway.metrics().await;
    assert!(
        metrics.contains("tidegate_room_proposed_rate{room=\"hall\"} 5\n"),
        "{metrics}"
    );
}

/// The origin is to answer while a command is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_a_code() {
    let origin = Origin::saying("hello").await;
    let gateway = hall(&origin).await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (admin, arguments, expected, part) in [
        (gateway.admin, &["show", "hal"][..], 1, "did you mean `hall`?"),
        (gateway.admin, &["hold", "x"], 1, "there is no room `x`"),
        (
            gateway.admin,
            &["revoke", "hall", "5"],
            1,
            "Number 5 of room hall holds neither",
        ),
        (gateway.admin, &["revoke", "hall", "0"], 2, "0"),
        (gateway.admin, &["capacity", "hall"], 2, "--visitors"),
        (
            gateway.admin,
            &["capacity", "hall", "--visitors", "1000000000001"],
            1,
            "from 1 to 1000000000000",
        ),
        (
            gateway.admin,
            &["capacity", "hall", "--admit", "fast"],
            2,
            "is not a rate",
        ),
        (gateway.admin, &["show", "a b"], 2, "is not a name"),
        (gateway.http(), &["list"], 3, "does not tell of rooms"),
        (nowhere, &["list"], 3, "no gateway answers on"),
    ] {
        let (code, said) = room(admin, arguments);
        assert!(code == expected && said.contains(part), "{arguments:?}: {code} {said}");
    }
}

#[tokio::test]
async fn a_visitor_is_found_in_the_access_log_and_revoked_by_number() {
    let origin = Origin::saying("hello").await;
    let gateway = hall(&origin).await;
    let visitor = browser();
    let show = async || {
        let page = visitor.get(gateway.url("/show")).header("accept", "text/html");
        page.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!((show().await.as_str(), show().await.as_str()), ("hello", "hello"));
    plain().post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    let lines = gateway.access_lines(3).await;
    let places = lines
        .iter()
        .map(|line| (line["room"].as_str(), line["room_number"].as_u64()));
    let expected = [1, 1, 2].map(|number| (Some("hall"), Some(number)));
    assert_eq!(places.collect::<Vec<_>>(), expected, "{lines:#?}");
    let (code, said) = room(gateway.admin, &["revoke", "hall", "1"]);
    assert!(
        code == 0 && said.contains("number 1, which was inside, is revoked"),
        "{said}"
    );
    assert_ne!(show().await, "hello", "the pass is over at once");
    let (code, said) = room(gateway.admin, &["revoke", "hall", "1"]);
    assert!(code == 1 && said.contains("neither a place nor a pass"), "{said}");
    eventually("the next is called", PATIENCE, async || {
        let (_, said) = room(gateway.admin, &["show", "hall"]);
        said.contains("called up to 2").then_some(())
    })
    .await;
}
