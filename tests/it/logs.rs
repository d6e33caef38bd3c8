//! What is written down: every request once, and nothing that could hurt whoever reads it.

use crate::support::client::{Raw, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Origin, answer};
use crate::support::{PATIENCE, eventually};

/// Words that stand where secrets stand. None of them may ever be written down.
const CANARIES: &[&str] = &[
    "canary-cookie",
    "canary-query",
    "canary-token",
    "canary-body",
    "canary-key",
];

#[tokio::test]
async fn every_request_is_a_line_whatever_is_in_it() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let hostile: &[&[u8]] = &[
        b"\"},{\"injected\":\"",
        b"\\",
        b"\\\"",
        b"\x1b[31mred\x1b[0m",
        b"\xe2\x80\xae",
        b"\xff\xfe",
        b"\xc3\x28",
        b"'; drop table",
        b"${jndi:ldap://a}",
        b"\t",
        b"%0d%0a",
        b"{{7*7}}",
    ];
    let long = vec![b'a'; 20_000];
    let values: Vec<&[u8]> = hostile.iter().copied().chain([long.as_slice()]).collect();
    // What cannot be read as a request at all is answered without an id, and has a line that says so.
    let (mut ids, mut unread) = (Vec::new(), 0);
    for value in &values {
        let mut client = Raw::connect(gateway.http()).await;
        let mut request = b"GET /x HTTP/1.1\r\nhost: a\r\nuser-agent: ".to_vec();
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\nreferer: ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n\r\n");
        assert!(client.send(request).await);
        let answer = client.answer().await;
        assert!([200, 400, 431].contains(&answer.status), "{}", answer.head);
        match answer.value("x-request-id") {
            Some(id) => ids.push(id.to_owned()),
            None => unread += 1,
        }
    }
    assert!(ids.len() > values.len() / 2, "most of them are requests");
    for path in ["/%22", "/a%20b", "/%ED%95%9C", "/..", "/%00", "/%0a%0d", "/last"] {
        let answer = Raw::connect(gateway.http()).await.get(path).await;
        ids.push(answer.value("x-request-id").unwrap().to_owned());
    }
    let mut lines = gateway.access_lines(ids.len() + unread).await;
    lines.retain(|line| line["reason"] != "malformed");
    let logged: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(logged, ids);
    assert_eq!(lines.last().unwrap()["path"], "/last");
    for line in &lines {
        assert!(line.get("injected").is_none());
        for key in [
            "time",
            "id",
            "client_ip",
            "method",
            "host",
            "path",
            "status",
            "duration",
        ] {
            assert!(line.get(key).is_some(), "{key} is missing from {line}");
        }
    }
    for line in gateway.access_log.all() {
        assert!(line.len() < 8192, "a line of {} bytes", line.len());
        let hidden = line
            .chars()
            .find(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}'));
        assert_eq!(hidden, None, "{line}");
    }
}

#[tokio::test]
async fn a_line_says_what_became_of_the_request() {
    let origin = Origin::scripted(|_| answer("201 Created", &[], "hello")).await;
    let gateway = Gateway::start(&origin.rules()).await;
    let posted = plain()
        .post(gateway.url("/things?x=1"))
        .body("12345")
        .send()
        .await
        .unwrap();
    let id = posted.headers()["x-request-id"].to_str().unwrap().to_owned();
    let line = gateway.access_lines(1).await.remove(0);
    for (key, value) in [
        ("id", id.as_str()),
        ("method", "POST"),
        ("path", "/things"),
        ("route", "all"),
        ("upstream", "app"),
    ] {
        assert_eq!(line[key], value);
    }
    assert_eq!(line["upstream_address"], origin.address.to_string());
    assert_eq!(
        (&line["status"], &line["bytes_sent"], &line["request_bytes"]),
        (&201.into(), &5.into(), &5.into())
    );
    assert!(line["duration"].as_f64().unwrap() >= line["upstream_seconds"].as_f64().unwrap());
    plain().get(gateway.url("/%00")).send().await.unwrap();
    assert_eq!(gateway.access_lines(2).await[1]["reason"], "bad_path");
}

#[tokio::test]
async fn no_secret_is_written_down() {
    let origin = Origin::saying("hello").await;
    let key = "c".repeat(64);
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }} }} }}\n{}",
        origin.rules_with("", "[rate_limit: { name: few, key: { header: x-key }, limit: 3/h, missing: skip }, waiting_room: { room: hall }]")
    );
    let hashes = "d".repeat(64);
    let setup = Setup::new(&rules)
        .file("tickets", &format!("{key}\n"))
        .file("hashes", &hashes);
    let secrets = "secrets: { tickets: { file: tickets }, hashes: { file: hashes } }";
    let gateway = setup.process(secrets).start().await;
    let mut slips = Vec::new();
    for path in [
        "/",
        "/queue/join?room=hall&t=canary-query",
        "/%00?canary-query",
        "/..?canary-query",
    ] {
        for _ in 0..2 {
            let cookie = format!("session=canary-cookie; {}", slips.join("; "));
            let request = plain()
                .post(gateway.url(path))
                .header("cookie", cookie)
                .header("x-key", "canary-key");
            let request = request
                .header("authorization", "Bearer canary-token")
                .header("accept", "text/html");
            let request = request.header("referer", "http://a/?canary-query").body("canary-body");
            let answer = request.send().await.unwrap();
            for line in answer.headers().get_all("set-cookie") {
                slips.push(line.to_str().unwrap().split(';').next().unwrap().to_owned());
            }
        }
    }
    assert!(slips.len() >= 2, "tickets and passes were given: {slips:?}");
    // What cannot be read at all is where a careless log quotes its client.
    for broken in [
        "GET / HTTP/1.1\r\ncookie canary-cookie\r\n\r\n",
        "canary-token\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: canary-body\r\n\r\n",
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(broken).await;
        client.rest().await;
    }
    gateway.signal("HUP");
    gateway.says("rules reloaded").await;
    gateway.access_lines(8).await;
    let metrics = gateway.metrics().await;
    let written = [
        gateway.log.all().join("\n"),
        gateway.access_log.all().join("\n"),
        metrics,
    ]
    .join("\n");
    for canary in CANARIES.iter().copied().chain([key.as_str(), hashes.as_str()]) {
        let line = written.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary} was written down");
    }
    for slip in &slips {
        let (_, value) = slip.split_once('=').unwrap();
        assert!(
            !written.contains(&value[..20.min(value.len())]),
            "a slip was written down"
        );
    }
}

#[tokio::test]
async fn a_log_file_is_written_on_after_it_was_moved_away() {
    let origin = Origin::saying("hello").await;
    let setup = Setup::new(&origin.rules()).process("access_log: { to: { file: access.log }, format: combined }");
    let gateway = setup.start().await;
    let current = gateway.dir().join("access.log");
    let ask = async |path: &str| plain().get(gateway.url(path)).send().await.unwrap().status().as_u16();
    let holds = async |text: &str| {
        eventually(text, PATIENCE, async || {
            let log = std::fs::read_to_string(&current).ok()?;
            log.contains(text).then_some(())
        })
        .await;
    };
    for (signal, said) in [("HUP", "rules reloaded"), ("USR1", "the access log is opened anew")] {
        assert_eq!(ask(&format!("/before-{signal}")).await, 200);
        holds(&format!("\"GET /before-{signal} HTTP/1.1\" 200 5 ")).await;
        let moved = gateway.dir().join(format!("access.log.{signal}"));
        std::fs::rename(&current, &moved).unwrap();
        gateway.signal(signal);
        gateway.says(said).await;
        assert_eq!(ask(&format!("/after-{signal}")).await, 200);
        holds(&format!("\"GET /after-{signal} HTTP/1.1\" 200 5 ")).await;
        assert!(
            !std::fs::read_to_string(moved)
                .unwrap()
                .contains(&format!("/after-{signal}"))
        );
    }
}

/// Whoever breaks connections off could fill a disk with lines that say nothing of the gateway.
#[tokio::test]
async fn a_client_that_breaks_off_is_no_event_whatever_it_was_answered() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules_with("", "[respond: { status: 403, body: \"no\" }]")).await;
    let count = 60;
    for n in 0..count {
        let mut client = Raw::connect(gateway.http()).await;
        let length = if n % 2 == 0 { 10 } else { 1_000_000 };
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nhello"
            ))
            .await;
        client.reset();
    }
    gateway.access_lines(count).await;
    let said = gateway.log.all();
    assert!(
        !said
            .iter()
            .any(|line| line.contains(" error ") || line.contains(" warn ")),
        "{said:#?}"
    );
    assert_eq!(
        gateway.metric("tidegate_rejected_total{reason=\"internal\"}").await,
        0.0
    );
}
