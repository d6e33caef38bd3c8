//! Simulated visitors: each joins the queue, waits for the turn, looks round, perhaps buys, leaves, and some time later
//! comes again, so that there is always a queue to stand in.
//!
//! They come through the gateway's plain listener like everybody else, over a few connections. Nothing about them is
//! random but what their number makes of it.

mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::client::{Answer, Client, Jar};
use super::shop::VISITOR_COOKIE;
use crate::server::drain::stopped;

/// Most simulated visitors.
pub(super) const CROWD_MAX: u32 = 20_000;

/// The room that they queue for.
pub(super) const ROOM: &str = "opening";

/// Connections over which they ask about the queue, and over which they use the shop: when the shop is slow, nobody
/// who waits may lose the place for want of a connection.
const QUEUE_CONNECTIONS: usize = 16;
const SHOP_CONNECTIONS: usize = 64;

/// Visitors who come in a second at the beginning.
const COMING_PER_SEC: u32 = 200;

/// Pages that a visitor looks at, from and to.
const PAGES: (u32, u32) = (3, 6);
/// Between two of them, in milliseconds.
const PAUSE_MS: (u32, u32) = (1_500, 3_500);
/// Before a visitor who was called enters, and before one who was told something odd asks again.
const NOTICE_MS: (u32, u32) = (300, 1_500);
/// Before a visitor who left comes again.
const AWAY_MS: (u32, u32) = (10_000, 20_000);
/// One in so many buys.
const BUYS_ONE_IN: u32 = 4;

/// Whatever the gateway says, a visitor asks no more often and no more seldom than this.
const POLL_MS: (u64, u64) = (500, 60_000);

/// Sends so many visitors to the gateway until it is told to stop, or the process is: a gateway that drains should not
/// have to wait for visitors who are not real.
pub(super) async fn wait_in_line(visitors: u32, gateway: SocketAddr, mut stop: watch::Receiver<bool>) {
    let Ok((mut terminate, mut interrupt)) = signals() else {
        log::error!("the crowd stays away: it could not hear when to stop");
        return;
    };
    let queue = Arc::new(Client::new(gateway, QUEUE_CONNECTIONS));
    let shop = Arc::new(Client::new(gateway, SHOP_CONNECTIONS));
    let mut crowd = JoinSet::new();
    for number in 0..visitors.min(CROWD_MAX) {
        let visitor = Visitor {
            number,
            queue: Arc::clone(&queue),
            shop: Arc::clone(&shop),
            dice: Dice(u64::from(number)),
            jar: Jar::default(),
        };
        crowd.spawn(visitor.live());
    }
    tokio::select! {
        () = stopped(&mut stop) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn signals() -> std::io::Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

struct Visitor {
    number: u32,
    queue: Arc<Client>,
    shop: Arc<Client>,
    dice: Dice,
    jar: Jar,
}

/// Where a visitor stands, as far as a visitor cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Waiting,
    Called,
    Inside,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Standing {
    state: State,
    next_poll_ms: u64,
}

impl Visitor {
    async fn live(mut self) {
        let comes = Duration::from_secs(1).mul_f64(f64::from(self.number) / f64::from(COMING_PER_SEC));
        sleep(comes).await;
        loop {
            self.jar = Jar::default();
            self.jar
                .set(VISITOR_COOKIE, &format!("{:x}", u64::MAX - u64::from(self.number)));
            if self.come_in().await {
                self.look_round().await;
            }
            self.ask_queue(&Method::POST, "leave").await;
            self.pause(AWAY_MS).await;
        }
    }

    /// Queues, and says whether that led inside.
    async fn come_in(&mut self) -> bool {
        let mut standing = self.ask_queue(&Method::POST, "join").await;
        loop {
            standing = match standing {
                None => return false,
                Some(Standing {
                    state: State::Inside, ..
                }) => return true,
                Some(Standing {
                    state: State::Called, ..
                }) => {
                    self.pause(NOTICE_MS).await;
                    self.ask_queue(&Method::POST, "enter").await
                }
                Some(Standing { next_poll_ms, .. }) => {
                    sleep(Duration::from_millis(next_poll_ms.clamp(POLL_MS.0, POLL_MS.1))).await;
                    self.ask_queue(&Method::GET, "status").await
                }
            };
        }
    }

    async fn look_round(&mut self) {
        for _ in 0..self.dice.between(PAGES) {
            // A page that failed is looked at again, as people do.
            self.shop.ask(&Method::GET, "/tickets", &mut self.jar).await;
            self.pause(PAUSE_MS).await;
        }
        if self.dice.between((1, BUYS_ONE_IN)) == 1 {
            self.shop.ask(&Method::POST, "/tickets/buy", &mut self.jar).await;
        }
    }

    async fn ask_queue(&mut self, method: &Method, call: &str) -> Option<Standing> {
        let path = format!("/queue/{call}?room={ROOM}");
        let answer = self.queue.ask(method, &path, &mut self.jar).await?;
        standing(&answer)
    }

    async fn pause(&mut self, between: (u32, u32)) {
        sleep(Duration::from_millis(u64::from(self.dice.between(between)))).await;
    }
}

/// What an answer says of a place: of any status, since a refusal may tell it too.
fn standing(answer: &Answer) -> Option<Standing> {
    serde_json::from_slice(&answer.body).ok()
}

/// Numbers that look random: a counter through the finaliser of `SplitMix64` (Steele, Lea, Flood, 2014).
struct Dice(u64);

impl Dice {
    fn between(&mut self, (low, high): (u32, u32)) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let span = u64::from(high.saturating_sub(low)) + 1;
        low.saturating_add(u32::try_from(mixed % span).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Option<Standing> {
        standing(&Answer {
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn a_standing_is_read_out_of_answers_and_refusals_and_out_of_nothing_else() {
        let (state, next_poll_ms) = (State::Waiting, 2_000);
        let waiting = r#"{"room":"opening","state":"waiting","position":7,"eta_seconds":null,"next_poll_ms":2000}"#;
        assert_eq!(told(waiting), Some(Standing { state, next_poll_ms }));
        let conflict = r#"{"type":"about:blank","status":409,"state":"called","next_poll_ms":2000}"#;
        assert_eq!(told(conflict).map(|standing| standing.state), Some(State::Called));
        assert_eq!(told(r#"{"type":"about:blank","status":404}"#), None);
        assert_eq!(told(""), None);
    }

    #[test]
    fn dice_keep_to_their_bounds_and_reach_them() {
        let mut dice = Dice(7);
        let thrown: Vec<u32> = (0..500).map(|_| dice.between((3, 6))).collect();
        assert_eq!(thrown.iter().min(), Some(&3));
        assert_eq!(thrown.iter().max(), Some(&6));
        assert_eq!(dice.between((5, 5)), 5);
    }
}
