//! Limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use jiff::tz::TimeZone;
use tidegate::base::clock::{Clock, ManualClock, SystemClock, Timestamp};
use tidegate::base::key::Key;
use tidegate::base::name::Name;
use tidegate::limiter::terms::{Algorithm, Terms};
use tidegate::limiter::window::{Counts, Window};
use tidegate::store::limits::{Fleet, GatewayId, KeyTurn, LOG_READ_MAX, LimitReply, LimitTurn};
use tidegate::store::memory::limits::MemoryLimits;
use tidegate::store::memory::limits::partition::LOG_SLACK;
use tidegate::store::redis::RedisLimits;
use tidegate::store::redis::servers::{Access, Servers};
use tidegate::throttle::{Calendar, Period};

use super::server::Redis;

/// Conversations, and turns in each: 10,000 turns.
const CONVERSATIONS: u64 = 50;
const TURNS: usize = 200;

/// Far above what a call takes; a test must not fail because a machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a pooled key may cost a server at most, in bytes, with two gateways.
const BYTES_PER_KEY_MAX: u64 = 400;

pub(crate) fn store(server: &Redis, prefix: &str) -> RedisLimits {
    let clock: Arc<dyn Clock> = SystemClock::start();
    let access = Access {
        addresses: vec![server.url().parse().unwrap()],
        ..Access::default()
    };
    RedisLimits::new(Servers::new(&access, PATIENCE).unwrap(), prefix, PATIENCE, clock)
}

fn memory() -> MemoryLimits {
    MemoryLimits::shared(ManualClock::at(Timestamp::default()))
}

/// How the limit of a conversation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Sliding,
    Fixed,
    Calendar,
    Slices,
    Log,
    Bucket,
}

impl How {
    fn algorithm(self, rng: &mut Rng, most: u64) -> Algorithm {
        match self {
            Self::Sliding => Algorithm::SlidingWindow,
            Self::Calendar if rng.bool() => Algorithm::SlidingWindow,
            Self::Calendar | Self::Fixed => Algorithm::FixedWindow,
            Self::Slices => Algorithm::Slices(rng.u64(2..=64)),
            Self::Log => Algorithm::SlidingLog,
            Self::Bucket => Algorithm::TokenBucket {
                burst: rng.u64(1..=most),
            },
        }
    }
}

/// One gateway's side.
struct Gateway {
    id: GatewayId,
    sequence: u64,
    /// The epoch of each partition, and how far its log was read.
    heard: [(u64, u64); 2],
    fleet: Arc<Fleet>,
}

/// Both stores, several gateways, and the time.
struct Conversation {
    rng: Rng,
    memory: MemoryLimits,
    redis: RedisLimits,
    now: Timestamp,
    limit: Name,
    terms: Terms,
    calendar: Option<Calendar>,
    /// How often something was.
    granted: usize,
    gateways: Vec<Gateway>,
    keys: Vec<Key>,
}

impl Conversation {
    fn new(seed: u64, how: How, redis: RedisLimits) -> Self {
        let mut rng = Rng::with_seed(seed);
        let lengths = [
            1_000,
            7_919,
            1_000_000,
            60_000_000,
            86_400_000_000,
            400 * 86_400_000_000,
        ];
        let length = lengths[rng.usize(..lengths.len())] + rng.u64(..3);
        let most = [3, 100, 10_000, 1_000_000_000_000][rng.usize(..4)];
        let allows = rng.u64(1..=most);
        // No bucket that is written takes longer to fill than the longest window.
        let fills = allows.saturating_mul(3).min(most);
        let algorithm = how.algorithm(&mut rng, fills);
        let period = if rng.bool() { Period::Day } else { Period::Month };
        let calendar = (how == How::Calendar).then(|| Calendar::new(TimeZone::get("Europe/Berlin").unwrap(), period));
        let length = if how == How::Bucket {
            length.min(86_400_000_000)
        } else {
            length
        };
        let gateways = (0..rng.usize(1..5)).map(|_| Gateway {
            id: GatewayId(rng.u64(..)),
            sequence: 0,
            heard: [(0, 0); 2],
            fleet: Arc::default(),
        });
        Self {
            gateways: gateways.collect(),
            keys: (0..6).map(|_| Key(rng.u128(..))).collect(),
            memory: memory(),
            redis,
            now: Timestamp::from_micros(1_700_000_000_000_000 + rng.u64(..1 << 45)),
            limit: "per-client".parse().unwrap(),
            terms: Terms {
                allows,
                window: Window::new(Duration::from_micros(length)),
                algorithm,
            },
            calendar,
            granted: 0,
            rng,
        }
    }

    fn pass_time(&mut self) {
        let length = self.terms.frames().length();
        let span = match self.rng.u8(..10) {
            0 => length * 2 + Duration::from_micros(self.rng.u64(..1_000_000)),
            1 | 2 => length.mul_f64(self.rng.f64()),
            3 | 4 => Duration::from_micros(self.rng.u64(..3_000_000)),
            5 => Duration::ZERO,
            _ => Duration::from_micros(self.rng.u64(..60_000)),
        };
        self.now = self.now + span;
        // A gateway that is a little behind sends dates that are.
        let late = Duration::from_millis(self.rng.u64(..2_000));
        if let Some(calendar) = &self.calendar {
            self.terms.window = calendar.window(self.now - late);
        }
    }

    fn amount(&mut self) -> u64 {
        match self.rng.u8(..4) {
            0 => self.rng.u64(..=self.terms.allows),
            1 => self.rng.u64(..=self.terms.allows / 3),
            _ => self.rng.u64(..4),
        }
    }

    fn key_turn(&mut self) -> KeyTurn {
        let index = self.terms.frames().index(self.now);
        let back = self.rng.u64(..4).min(index);
        let counts = Counts {
            index: index - back,
            prev: self.amount(),
            cur: self.amount(),
        };
        KeyTurn {
            key: self.keys[self.rng.usize(..self.keys.len())],
            report: (self.rng.u8(..3) == 0).then_some(counts),
            overdraft: if self.rng.u8(..4) == 0 { self.amount() } else { 0 },
            give_back: (self.rng.u8(..4) == 0).then(|| (self.lot(), self.amount())),
            ask: if self.rng.bool() { self.amount() } else { 0 },
        }
    }

    /// The lot of a grant that might have been made lately.
    fn lot(&mut self) -> u64 {
        let length = (self.terms.frames().length().as_micros() as u64).max(1);
        let ago = match self.rng.u8(..3) {
            0 => self.rng.u64(..length * 3),
            _ => self.rng.u64(..length.min(200_000)),
        };
        let granted = Timestamp::from_micros(self.now.as_micros() - ago);
        let valid_until = self.terms.valid_until(self.rng.bool(), granted);
        self.terms.lot(granted, valid_until)
    }

    /// A turn as a gateway might send it: mostly the next one, sometimes again, sometimes after one was lost.
    fn turn(&mut self) -> (usize, LimitTurn) {
        let who = self.rng.usize(..self.gateways.len());
        let keys = (0..self.rng.usize(..8)).map(|_| self.key_turn()).collect();
        let partition = self.rng.usize(..2);
        let gateway = &mut self.gateways[who];
        let (epoch, cursor) = gateway.heard[partition];
        gateway.sequence += [0, 1, 1, 1, 1, 1, 1, 3][self.rng.usize(..8)];
        let turn = LimitTurn {
            gateway: gateway.id,
            sequence: gateway.sequence,
            limit: self.limit.clone(),
            terms: self.terms,
            partition: partition as u16,
            epoch: [epoch, epoch, epoch, 0, 7][self.rng.usize(..5)],
            said_all: self.rng.u8(..4) > 0,
            cursor: self.rng.u64(..=cursor).max(self.rng.u64(..=cursor)),
            fleet: Arc::clone(&gateway.fleet),
            keys,
        };
        (who, turn)
    }

    async fn say_alive(&mut self, who: usize) {
        let gateway = &self.gateways[who];
        let here = self.memory.note_alive_at(gateway.id, &gateway.fleet, self.now);
        let there = self.redis.note_alive_at(gateway.id, &gateway.fleet, self.now).await;
        assert_eq!(there, Ok(here.clone()), "the fleet, at {:?}", self.now);
        self.gateways[who].fleet = Arc::new(here);
    }

    async fn go_on(&mut self, number: usize) {
        self.pass_time();
        if self.rng.u8(..3) == 0 {
            let who = self.rng.usize(..self.gateways.len());
            self.say_alive(who).await;
        }
        let (who, turn) = self.turn();
        let here = self.memory.apply_at(&turn, self.now).unwrap();
        let there = self.redis.apply_at(&turn, self.now).await;
        assert_eq!(there.as_ref(), Ok(&here), "turn {number} at {:?}: {turn:?}", self.now);
        self.granted += here.keys.iter().filter(|key| key.granted > 0).count();
        if self.rng.u8(..10) > 0 {
            self.gateways[who].heard[usize::from(turn.partition)] = (here.epoch, here.cursor);
        }
    }
}

/// Random conversations go the same way in memory and in Redis.
async fn converse(counting: How) {
    let Some(server) = Redis::start(&[]) else { return };
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut granted = 0;
    for seed in first..first + CONVERSATIONS {
        eprintln!("SEED={seed}");
        let mut conversation = Conversation::new(seed, counting, store(&server, &format!("run{seed}")));
        conversation.say_alive(0).await;
        for number in 0..TURNS {
            conversation.go_on(number).await;
        }
        granted += conversation.granted;
    }
    eprintln!("{counting:?}: {granted} grants");
    assert!(
        granted > 1_000,
        "{counting:?}: only {granted} grants, so little was compared"
    );
}

#[tokio::test]
async fn a_sliding_window_is_the_same_in_memory_and_in_redis() {
    converse(How::Sliding).await;
}

#[tokio::test]
async fn a_fixed_window_is_the_same_in_memory_and_in_redis() {
    converse(How::Fixed).await;
}

#[tokio::test]
async fn windows_of_a_calendar_are_the_same_in_memory_and_in_redis() {
    converse(How::Calendar).await;
}

#[tokio::test]
async fn slices_are_the_same_in_memory_and_in_redis() {
    converse(How::Slices).await;
}

#[tokio::test]
async fn a_log_is_the_same_in_memory_and_in_redis() {
    converse(How::Log).await;
}

#[tokio::test]
async fn a_token_bucket_is_the_same_in_memory_and_in_redis() {
    converse(How::Bucket).await;
}

/// Far more changes of a fleet than are remembered, some of them of a gateway that is gone again at once.
#[tokio::test]
async fn a_long_history_of_a_fleet_is_the_same_in_memory_and_in_redis() {
    let Some(server) = Redis::start(&[]) else { return };
    let (memory, redis) = (memory(), store(&server, "history"));
    let seed = fastrand::u64(..1 << 32);
    eprintln!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut now = Timestamp::from_secs(1_700_000_000);
    let mut present = vec![GatewayId(rng.u64(..))];
    let mut most = 0;
    for _ in 0..600 {
        now = now + Duration::from_millis([500, 11_000, 11_000, 200_000, 20_000_000][rng.usize(..5)]);
        match rng.u8(..3) {
            0 if present.len() > 1 => drop(present.remove(rng.usize(..present.len()))),
            _ => present.push(GatewayId(rng.u64(..))),
        }
        let passes = rng.bool().then(|| GatewayId(rng.u64(..)));
        for who in present.iter().copied().chain(passes) {
            let here = memory.note_alive_at(who, &Fleet::default(), now);
            let there = redis.note_alive_at(who, &Fleet::default(), now).await;
            assert_eq!(there.as_ref(), Ok(&here), "the fleet, at {now:?}");
            most = most.max(here.timeline.len());
        }
        present.drain(..present.len().saturating_sub(12));
    }
    assert_eq!(most, 128, "as many changes as are remembered");
}

/// A key that is always in use, while the gateways that use it come and go.
#[tokio::test]
async fn who_reported_a_key_and_is_gone_is_forgotten_in_memory_and_in_redis() {
    let Some(server) = Redis::start(&[]) else { return };
    let (memory, redis) = (memory(), store(&server, "gone"));
    let mut now = Timestamp::from_secs(1_700_000_000);
    let mut epoch = 0;
    for gateway in (0..200).map(GatewayId) {
        let fleet = memory.note_alive_at(gateway, &Fleet::default(), now);
        let there = redis.note_alive_at(gateway, &Fleet::default(), now).await;
        assert_eq!(there.as_ref(), Ok(&fleet), "{gateway:?}");
        let turn = LimitTurn {
            gateway,
            fleet: Arc::new(fleet),
            ..of_keys(1, 0, epoch, vec![1])
        };
        let here = memory.apply_at(&turn, now).unwrap();
        assert_eq!(redis.apply_at(&turn, now).await.as_ref(), Ok(&here), "{gateway:?}");
        epoch = here.epoch;
        now = now + Duration::from_secs(7);
    }
    let mut server = server.connection();
    let partition = redis::cmd("KEYS")
        .arg("gone*")
        .query::<Vec<String>>(&mut server)
        .unwrap();
    let bytes = |key: &String| {
        let value = redis::cmd("HGET")
            .arg(key)
            .arg(&1_u128.to_be_bytes())
            .query::<Option<Vec<u8>>>(&mut server);
        value.ok().flatten().map_or(0, |value| value.len())
    };
    let most = partition.iter().map(bytes).max();
    assert!(most.is_some_and(|bytes| bytes > 0 && bytes < 700), "{most:?} bytes");
}

/// Fills a partition past its bound, lets all of it go, and then has some keys in use while many others come and go: the
/// log is cut again and again, and from its beginning one still hears of whatever is pooled, a part at a time.
#[tokio::test]
async fn a_full_partition_and_a_log_that_was_cut_off_are_the_same_in_memory_and_in_redis() {
    let Some(server) = Redis::start(&[]) else { return };
    let (memory, redis) = (memory(), store(&server, "full"));
    let mut now = Timestamp::from_secs(1_700_000_000);
    redis.note_alive_at(GatewayId(1), &Fleet::default(), now).await.unwrap();
    let mut sequence = 0;
    let mut both = async |keys: Vec<u128>, cursor: u64, epoch: u64, now: Timestamp| -> LimitReply {
        sequence += 1;
        let turn = of_keys(sequence, cursor, epoch, keys);
        let here = memory.apply_at(&turn, now).unwrap();
        assert_eq!(redis.apply_at(&turn, now).await.as_ref(), Ok(&here), "turn {sequence}");
        here
    };
    let mut cursor = 0;
    let epoch = both(Vec::new(), 0, 0, now).await.epoch;
    for chunk in 0..66_u128 {
        let keys = (chunk * 1_000..(chunk + 1) * 1_000).collect();
        cursor = both(keys, cursor, epoch, now).await.cursor;
    }
    now = now + Duration::from_secs(21);
    for _ in 0..1_030 {
        cursor = both(Vec::new(), cursor, epoch, now).await.cursor;
    }
    let lasting: Vec<u128> = (0..100).collect();
    let passing = |round: u128| 1_000 * (round + 1)..1_000 * (round + 1) + 500;
    for round in 0..20 {
        now = now + Duration::from_secs(10);
        cursor = both(lasting.clone(), cursor, epoch, now).await.cursor;
        cursor = both(passing(round).collect(), cursor, epoch, now).await.cursor;
        for _ in 0..10 {
            cursor = both(Vec::new(), cursor, epoch, now).await.cursor;
        }
    }
    let (mut heard, mut read, mut more) = (BTreeMap::new(), 0, true);
    cursor = 1;
    while more {
        let part = both(Vec::new(), cursor, epoch, now).await;
        assert_eq!(part.missed, read == 0, "the log should have been cut");
        assert!(part.log.len() <= LOG_READ_MAX);
        read += part.log.len();
        heard.extend(part.log);
        (cursor, more) = (part.cursor, part.more);
    }
    let pooled: Vec<_> = heard.into_iter().filter(|(_, pooled)| *pooled).collect();
    let there = lasting.into_iter().chain(passing(18)).chain(passing(19));
    assert_eq!(pooled, there.map(|key| (Key(key), true)).collect::<Vec<_>>());
    assert!(read <= 2 * pooled.len() + LOG_SLACK + 1_000, "{read} entries");
}

/// A key that is used up is to be had again when its windows have passed, not when the clock shows again what it showed.
#[tokio::test]
async fn a_clock_that_is_set_back_locks_nobody_out() {
    let Some(server) = Redis::start(&[]) else { return };
    let redis = store(&server, "back");
    let bucket = Algorithm::TokenBucket { burst: 100 };
    let algorithms = [
        Algorithm::SlidingWindow,
        Algorithm::FixedWindow,
        Algorithm::SlidingLog,
        Algorithm::Slices(4),
        bucket,
    ];
    for algorithm in algorithms {
        let memory = memory();
        let mut now = Timestamp::from_secs(1_700_000_000);
        let (mut epoch, mut granted) = (0, Vec::new());
        for sequence in 1..60 {
            now = now + Duration::from_secs(1);
            if sequence == 30 {
                now = now - Duration::from_secs(600);
            }
            let fleet = memory.note_alive_at(GatewayId(1), &Fleet::default(), now);
            let there = redis.note_alive_at(GatewayId(1), &Fleet::default(), now).await;
            assert_eq!(there.as_ref(), Ok(&fleet));
            let mut turn = of_keys(sequence, 0, epoch, vec![1]);
            (turn.terms.algorithm, turn.fleet) = (algorithm, Arc::new(fleet));
            turn.keys[0].ask = 1_000;
            let here = memory.apply_at(&turn, now).unwrap();
            assert_eq!(
                redis.apply_at(&turn, now).await.as_ref(),
                Ok(&here),
                "{algorithm:?} {sequence}"
            );
            epoch = here.epoch;
            granted.push(here.keys[0].granted);
        }
        let (before, after): (u64, u64) = (granted[..29].iter().sum(), granted[29..].iter().sum());
        assert!(before >= 150 && after >= 150, "{algorithm:?}: {granted:?}");
    }
}

fn of_keys(sequence: u64, cursor: u64, epoch: u64, keys: Vec<u128>) -> LimitTurn {
    let key_turn = |key| KeyTurn {
        key: Key(key),
        report: Some(Counts::default()),
        overdraft: 0,
        give_back: None,
        ask: 1,
    };
    LimitTurn {
        gateway: GatewayId(1),
        sequence,
        limit: "per-client".parse().unwrap(),
        terms: Terms {
            allows: 100,
            window: Window::new(Duration::from_secs(10)),
            algorithm: Algorithm::SlidingWindow,
        },
        partition: 0,
        epoch,
        said_all: true,
        cursor,
        fleet: Arc::default(),
        keys: keys.into_iter().map(key_turn).collect(),
    }
}

#[tokio::test]
async fn every_key_has_a_time_to_live_and_a_pooled_key_costs_what_we_say() {
    let Some(server) = Redis::start(&[]) else { return };
    let redis = store(&server, "cost");
    let now = SystemClock::start().now();
    redis.note_alive_at(GatewayId(1), &Fleet::default(), now).await.unwrap();
    let first = redis.apply_at(&of_keys(1, 0, 0, Vec::new()), now).await.unwrap();
    let (epoch, mut cursor) = (first.epoch, first.cursor);
    let before = used_memory(&server);
    server.order(&["CONFIG RESETSTAT"]);
    let mut rng = Rng::with_seed(1);
    for sequence in 2..22 {
        let keys = (0..1_000).map(|_| rng.u128(..)).collect();
        let turn = of_keys(sequence, cursor, epoch, keys);
        for gateway in [1, 2] {
            let turn = LimitTurn {
                gateway: GatewayId(gateway),
                ..turn.clone()
            };
            cursor = redis.apply_at(&turn, now).await.unwrap().cursor;
        }
    }
    println!("a turn of 1,000 keys takes {} us of the server", usec_per_call(&server));
    for keys in [vec![7], Vec::new()] {
        let count = keys.len();
        server.order(&["CONFIG RESETSTAT"]);
        for sequence in 30..230 {
            let turn = of_keys(sequence + 1_000 * (1 - count as u64), cursor, epoch, keys.clone());
            cursor = redis.apply_at(&turn, now).await.unwrap().cursor;
        }
        println!(
            "a turn of {count} keys takes {} us of the server",
            usec_per_call(&server)
        );
    }
    let bytes = (used_memory(&server) - before) / 20_000;
    println!("a pooled key costs {bytes} bytes");
    assert!(bytes <= BYTES_PER_KEY_MAX, "{bytes} bytes a pooled key");
    let mut connection = server.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in keys {
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
        assert!(ttl > 70_000, "{key} lives for {ttl} ms");
    }
}

/// Of the scripts since the statistics began.
pub(crate) fn usec_per_call(server: &Redis) -> String {
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.connection())
        .unwrap();
    let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
    line.split("usec_per_call=")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_owned()
}

pub(crate) fn used_memory(server: &Redis) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query(&mut server.connection())
        .unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}
