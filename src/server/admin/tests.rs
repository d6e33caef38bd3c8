use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::base::clock::{ManualClock, Timestamp};
use crate::base::secret::Keyring;
use crate::config::compile::Compiler;
use crate::config::document::Document;
use crate::config::load::RuleFile;
use crate::store::memory::limits::MemoryLimits;
use crate::store::memory::rooms::MemoryRooms;
use crate::throttle;

/// The operator's listener of a gateway with one room.
fn admin() -> Arc<Admin> {
    let clock: Arc<dyn Clock> = ManualClock::at(Timestamp::from_secs(1_800_000_000));
    let limits = Arc::new(MemoryLimits::new(Arc::clone(&clock)));
    let throttles = Throttles::new(throttle::Settings::default(), limits, Arc::clone(&clock));
    let store = Arc::new(MemoryRooms::new(Arc::clone(&clock)));
    let rooms = Rooms::new(store, Arc::clone(&clock), Arc::new(Keyring::random()));
    let compiler = Compiler::new(Arc::clone(&throttles), Arc::clone(&rooms), Arc::default(), "");
    let text = "rooms: { operated: { capacity: { visitors: 1 } } }\n";
    let (mut document, _) = Document::parse("rules.yaml".into(), text).unwrap();
    let rules = document.decode().0.unwrap();
    let prepared = compiler.prepare(vec![RuleFile { document, rules }]).unwrap();
    compiler.commit(prepared);
    Arc::new(Admin {
        throttles,
        rooms,
        clock,
        certificates: Vec::new(),
        readiness: Arc::default(),
    })
}

/// A connection whose system holds so many bytes that the other end has not taken, and whether it was kept in the end.
fn connect(admin: Arc<Admin>, held: usize) -> (DuplexStream, JoinHandle<bool>) {
    let (near, far) = duplex(held);
    let served = tokio::spawn(async move {
        let (_stop, stopping) = watch::channel(false);
        let session = ServerSession::new_http1(Box::new(near));
        admin.process_new_http(session, &stopping).await.is_some()
    });
    (far, served)
}

/// What was answered, as far as it came.
async fn answered(client: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_scraper_that_takes_nothing_gives_its_place_back() {
    let (mut scraper, served) = connect(admin(), 64);
    let begun = Instant::now();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(!served.await.unwrap(), "the connection was kept");
    assert_eq!(begun.elapsed().as_secs(), ANSWERED_WITHIN.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_leaves_the_connection_to_the_next_question() {
    let (mut scraper, served) = connect(admin(), 64);
    scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    let (answer, kept) = tokio::join!(answered(&mut scraper), served);
    assert!(answer.starts_with("HTTP/1.1 200 ") && kept.unwrap(), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_order_that_drips_is_not_waited_for() {
    let (mut client, _served) = connect(admin(), 1024);
    let head = "POST /rooms/operated HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut answers, mut drip) = tokio::io::split(client);
    let dripping = tokio::spawn(async move {
        while drip.write_all(b" ").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let begun = Instant::now();
    let mut answer = [0; 12];
    answers.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(begun.elapsed() < ANSWERED_WITHIN, "{:?}", begun.elapsed());
    dripping.abort();
}
