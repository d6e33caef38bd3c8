//! The store, and the way there: messages are late, lost, or applied after nobody waits for them any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::base::clock::{Clock, Timestamp};
use tidegate::store::limits::{Fleet, GatewayId, LimitReply, LimitStore, LimitTurn, StoreFault};
use tidegate::store::memory::limits::MemoryLimits;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::throttle::books::Books;

/// The store's clock: tokio's, which is paused, so time passes when everyone waits.
#[derive(Debug)]
pub(crate) struct StoreClock(pub(crate) Instant);

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000) + self.0.elapsed()
    }
}

/// A gateway's own clock, which is wrong and runs at another speed.
#[derive(Debug)]
pub(crate) struct LocalClock {
    pub(crate) began: Instant,
    pub(crate) base: Timestamp,
    /// Millionths too fast.
    pub(crate) drift: i64,
}

impl Clock for LocalClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.began.elapsed();
        self.base + Duration::from_secs_f64(elapsed.as_secs_f64() * (1.0 + self.drift as f64 / 1e6))
    }
}

/// The store and how it is doing.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) store: MemoryLimits,
    pub(crate) books: Arc<Mutex<Books>>,
    pub(crate) random: Mutex<fastrand::Rng>,
    pub(crate) reading: Mutex<fastrand::Rng>,
    pub(crate) weather: Mutex<Weather>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    pub(crate) lost: (u32, u32),
    /// The store does nothing until then.
    pub(crate) frozen_until: Instant,
    pub(crate) gone_until: Instant,
}

/// One gateway's way to the store.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) site: Arc<Site>,
    pub(crate) cut: Arc<AtomicBool>,
}

/// How one message fares: how long it takes there and back, and whether it is lost.
struct Fate {
    there: Duration,
    back: Duration,
    lost_there: bool,
    lost_back: bool,
    /// A message that was lost on the way there may arrive late all the same.
    ghost: Option<Duration>,
}

impl Site {
    fn fate(&self) -> Fate {
        let weather = *self.weather.lock().unwrap();
        let mut random = self.random.lock().unwrap();
        let mut way = || weather.delay.mul_f64(random.f64());
        let (there, back) = (way(), way());
        let lost_there = random.u32(..1000) < weather.lost.0;
        Fate {
            there,
            back,
            lost_there,
            lost_back: random.u32(..1000) < weather.lost.1,
            ghost: (lost_there && random.bool()).then(|| Duration::from_millis(random.u64(..3_000))),
        }
    }

    /// The log comes a few entries at a time, and now and then from its beginning, as if it had been cut meanwhile.
    fn as_read(&self, mut reply: LimitReply, anew: bool) -> LimitReply {
        let most = self.reading.lock().unwrap().usize(1..8);
        let unread = reply.log.len().saturating_sub(most);
        reply.log.truncate(most);
        reply.cursor -= unread as u64;
        reply.more |= unread > 0;
        reply.missed |= anew;
        reply
    }

    /// Brings a message to the store, whether or not anyone still waits for the answer.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        cut: bool,
        apply: impl FnOnce(&Self) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let fate = self.fate();
        let (answer, answered) = oneshot::channel();
        let site = Arc::clone(self);
        let lost_there = fate.lost_there || cut;
        tokio::spawn(async move {
            sleep(fate.there + fate.ghost.unwrap_or_default()).await;
            if lost_there && (cut || fate.ghost.is_none()) {
                return sleep(Duration::from_secs(1)).await;
            }
            let frozen_until = site.weather.lock().unwrap().frozen_until;
            if frozen_until > Instant::now() {
                sleep_until(frozen_until).await;
            }
            let gone = site.weather.lock().unwrap().gone_until > Instant::now();
            let reply = if gone {
                Err(StoreFault::Unavailable)
            } else {
                apply(&site)
            };
            if fate.lost_back {
                sleep(Duration::from_secs(1)).await;
            }
            sleep(fate.back).await;
            drop(answer.send(reply));
        });
        answered.await.unwrap_or(Err(StoreFault::Timeout))
    }
}

#[async_trait]
impl LimitStore for Way {
    async fn limit_turn(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        self.site.books.lock().unwrap().note_call(turn);
        let mut turn = turn.clone();
        let apply = move |site: &Site| {
            let anew = site.reading.lock().unwrap().u32(..100) == 0;
            turn.cursor = if anew { 0 } else { turn.cursor };
            let reply = site.store.apply(&turn);
            site.books.lock().unwrap().check_turn(&site.store, &turn, &reply);
            reply.map(|reply| site.as_read(reply, anew))
        };
        self.site.call(self.cut.load(Ordering::Relaxed), apply).await
    }

    async fn alive(&self, gateway: GatewayId, knew: &Fleet) -> Result<Fleet, StoreFault> {
        let knew = knew.clone();
        let apply = move |site: &Site| Ok(site.store.note_alive(gateway, &knew));
        let fleet = self.site.call(self.cut.load(Ordering::Relaxed), apply).await?;
        self.site.books.lock().unwrap().note_fleet(gateway, &fleet);
        Ok(fleet)
    }
}
