//! How much one client network may ask of the queue API: so many joins, and so many of everything else, in so long.
//!
//! Looked at before a room is found or a signature checked, so that a flood is turned away for as little as an answer
//! costs. Counted on a sketch of a fixed size, by address, an IPv6 client by its /64; no fleet shares the counts, and
//! nobody's address is kept. A sketch may count too much where very many networks come at once, never too little.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::client_ip::{CLIENT_PREFIX_V6, fold};
use crate::base::clock::Timestamp;
use crate::base::rate::Rate;
use crate::base::secret::random_bytes;
use crate::limiter::sketch::Sketch;
use crate::limiter::window::Window;

/// Slots in a row of the sketch: 1.5 MiB in all. With 10,000 networks in a window, hardly one is counted too high.
const SLOTS: usize = 16_384;

/// What one kind of call may be asked for.
pub(super) struct Allowance {
    limit: u64,
    window: Window,
    sketch: Sketch,
    seed: [u8; 16],
    /// The latest window that slots have been made ready for.
    turned: AtomicU64,
    /// Held while slots are made ready, so that nobody counts in one that is about to be emptied.
    turning: Mutex<()>,
}

impl Allowance {
    /// So much for every network.
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            limit: rate.count.get(),
            window: Window::new(rate.window),
            sketch: Sketch::new(SLOTS),
            seed: random_bytes(),
            turned: AtomicU64::new(0),
            turning: Mutex::default(),
        }
    }

    /// Counts a call; where it is one too many, it is not counted.
    ///
    /// # Errors
    /// With the time after which one more would be allowed.
    pub(super) fn take(&self, client: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let index = self.window.index(now);
        self.turn(index);
        let network = self.network(client);
        let used = self.sketch.add(network, 1, index);
        if used.used(self.window, now) <= self.limit {
            return Ok(());
        }
        self.sketch.take_back(network, 1, index);
        let wait = used.wait(self.window, self.limit, 1, now);
        Err(wait.unwrap_or(self.window.length()))
    }

    fn network(&self, client: IpAddr) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        match fold(client, CLIENT_PREFIX_V6) {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.finish128().into()
    }

    /// Whoever comes first in a window empties the slots of the next, and after a pause those that the pause made old;
    /// whoever comes meanwhile waits. Nothing but that is done under the lock, once a window.
    fn turn(&self, index: u64) {
        if index <= self.turned.load(Ordering::Acquire) {
            return;
        }
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.turned.load(Ordering::Relaxed);
        if index > before {
            let old = (before + 2).max(index.saturating_sub(1));
            (old..=index + 1).for_each(|index| self.sketch.clear(index));
            self.turned.store(index, Ordering::Release);
        }
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowance")
            .field("limit", &self.limit)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn allowed(allowance: &Allowance, client: &str, calls: u32, now: Timestamp) -> u32 {
        let client = client.parse().unwrap();
        (0..calls).map(|_| u32::from(allowance.take(client, now).is_ok())).sum()
    }

    #[test]
    fn every_network_has_its_own_and_one_ipv6_network_is_one() {
        let allowance = Allowance::new("5/s".parse().unwrap());
        assert_eq!(allowed(&allowance, "192.0.2.1", 9, START), 5);
        assert_eq!(
            allowed(&allowance, "::ffff:192.0.2.1", 1, START),
            0,
            "the same in other clothes"
        );
        assert_eq!(allowed(&allowance, "192.0.2.2", 9, START), 5);
        assert_eq!(allowed(&allowance, "2001:db8::1", 3, START), 3);
        assert_eq!(allowed(&allowance, "2001:db8::ffff:1", 9, START), 2);
        assert_eq!(allowed(&allowance, "2001:db8:0:1::1", 9, START), 5);
    }

    #[test]
    fn who_keeps_calling_gets_the_rate_and_no_more() {
        let allowance = Allowance::new("10/s".parse().unwrap());
        for pause_secs in [0, 1, 2, 3, 4, 1_000] {
            let begin = START + Duration::from_secs(10_000 * (pause_secs + 1));
            let tenths = (0..100).map(|tenth| begin + tenth * Duration::from_millis(100));
            let calls: u32 = tenths.map(|now| allowed(&allowance, "192.0.2.1", 5, now)).sum();
            assert!((90..=110).contains(&calls), "{calls} in ten seconds");
            let after = begin + Duration::from_secs(10 + pause_secs);
            let most = if pause_secs < 2 { 1 } else { 10 };
            assert!(
                allowed(&allowance, "192.0.2.1", 20, after) >= most,
                "after {pause_secs} s"
            );
        }
    }

    #[test]
    fn a_pause_gives_nobody_more_however_many_come_at_its_end() {
        const CROWD: usize = 4;
        const ROUNDS: u64 = 300;
        let allowance = Allowance::new("50/s".parse().unwrap());
        let (gate, given) = (Barrier::new(CROWD), AtomicU64::new(0));
        let rush = || {
            for round in 1..=ROUNDS {
                let now = START + Duration::from_secs(10 * round);
                gate.wait();
                given.fetch_add(allowed(&allowance, "192.0.2.1", 50, now).into(), Ordering::Relaxed);
            }
        };
        thread::scope(|threads| (0..CROWD).for_each(|_| drop(threads.spawn(rush))));
        let given = given.into_inner();
        assert!(given <= 50 * ROUNDS, "{given} in {ROUNDS} windows of 50");
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let allowance = Allowance::new("10/s".parse().unwrap());
        let client = "192.0.2.1".parse().unwrap();
        assert_eq!(allowed(&allowance, "192.0.2.1", 10, START), 10);
        let wait = allowance.take(client, START).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{wait:?}");
        assert!(allowance.take(client, START + wait).is_ok());
    }

    #[test]
    fn ten_thousand_quiet_networks_are_hardly_in_each_others_way() {
        let allowance = Allowance::new("5/s".parse().unwrap());
        let refused = (0..10_000_u32).filter(|n| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
            (0..2).any(|_| allowance.take(address.into(), START).is_err())
        });
        let refused = refused.count();
        // Who meets two others in each of the four rows: less than one in ten thousand at these sizes. That more than
        // eight do has a chance of less than one in a million.
        assert!(refused <= 8, "{refused}, where one is to be expected");
    }
}
