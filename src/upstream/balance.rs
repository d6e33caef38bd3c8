//! Weighted round robin.
//!
//! The order is smooth, as nginx's: weights 5, 1, 1 give `a a b a c a a` and not `a a a a a b c`. It is worked
//! out once, so that a request costs one atomic increment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{iter, mem};

use crate::base::mix::mix;

/// Longest precomputed round; weights are scaled down to fit, the smallest to 1.
const ROUND_MAX: u64 = 65_536;

/// How many places of the round are tried at random before every server is, in the order of the round. Who is passed over is
/// stood in for by all, then, and not by whoever comes next, who would have twice the load.
const SCATTERED: usize = 16;

/// Whose turn it is.
#[derive(Debug)]
pub struct RoundRobin {
    round: Box<[u16]>,
    servers: usize,
    next: AtomicUsize,
}

impl RoundRobin {
    /// A round over servers with these weights, each at least 1.
    pub fn new(weights: impl IntoIterator<Item = u16>) -> Self {
        let weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
        let divisor = weights.iter().copied().reduce(gcd).unwrap_or(1).max(1);
        let total: u64 = weights.iter().sum();
        let divisor = divisor.max(total.div_ceil(ROUND_MAX));
        let weights: Vec<i64> = weights.iter().map(|weight| (weight / divisor).max(1) as i64).collect();
        Self {
            round: smooth(&weights),
            servers: weights.len(),
            next: AtomicUsize::new(0),
        }
    }

    /// The servers in the order in which they should be tried now: whose turn it is, some others at random, by weight,
    /// and every server once more as the round has them, so each at least once.
    pub fn turns(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let length = self.round.len();
        let scattered = (1..=SCATTERED).map(move |step| scatter(start, step, length));
        let others = (1..length).map(move |step| start.wrapping_add(step) % length);
        let server = |place: usize| usize::from(self.round[place]);
        let tried = iter::once(start % length).chain(scattered).map(server);
        tried.chain(others.map(server).filter(unseen(self.servers)).take(self.servers))
    }
}

/// Whether one of `servers` comes for the first time. Mostly nobody is asked about, and then it costs no memory.
fn unseen(servers: usize) -> impl FnMut(&usize) -> bool + Clone {
    let mut seen = Vec::new();
    move |server| {
        seen.resize(servers, false);
        !mem::replace(&mut seen[*server], true)
    }
}

/// A place among `length` that has nothing to do with where the turns stand, nor with the place of the step before.
fn scatter(start: usize, step: usize, length: usize) -> usize {
    let mixed = mix(mix(start as u64).wrapping_add(step as u64));
    ((u128::from(mixed) * length as u128) >> 64) as usize
}

/// Each turn everyone gains their weight, the richest is served and pays the total.
fn smooth(weights: &[i64]) -> Box<[u16]> {
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let serve = |_| {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += weight;
        }
        let richest = (0..credit.len())
            .rev()
            .max_by_key(|&server| credit[server])
            .unwrap_or(0);
        credit[richest] -= total;
        richest as u16
    };
    (0..total).map(serve).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn served(weights: &[u16], requests: usize) -> Vec<usize> {
        let balance = RoundRobin::new(weights.iter().copied());
        (0..requests).map(|_| balance.turns().next().unwrap()).collect()
    }

    #[test]
    fn a_heavy_server_is_interleaved_with_light_ones() {
        assert_eq!(served(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_turns_whatever_their_size() {
        assert_eq!(served(&[1000, 1000], 4), [0, 1, 0, 1]);
    }

    #[test]
    fn a_round_names_every_server() {
        let balance = RoundRobin::new([3, 1, 2]);
        let mut names: Vec<_> = balance.turns().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, [0, 1, 2]);
    }

    #[test]
    fn every_server_is_named_soon_however_long_the_round() {
        for weights in [vec![1000, 999], vec![1, 1000, 7], vec![1; 300]] {
            let balance = RoundRobin::new(weights.iter().copied());
            for _ in 0..1_000 {
                let mut names: Vec<_> = balance.turns().collect();
                assert!(names.len() <= 1 + SCATTERED + weights.len(), "{}", names.len());
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), weights.len());
            }
        }
    }

    #[test]
    fn who_is_passed_over_is_stood_in_for_by_all_by_weight() {
        for (weights, gone) in [
            (vec![1, 1, 1], 1),
            (vec![1; 10], 3),
            (vec![4, 2, 2], 0),
            (vec![1, 3, 5], 2),
        ] {
            let balance = RoundRobin::new(weights.iter().copied());
            let mut served = vec![0.0; weights.len()];
            for _ in 0..9_000 {
                served[balance.turns().find(|server| *server != gone).unwrap()] += 1.0;
            }
            let rest: f64 = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>() - f64::from(weights[gone]);
            for (server, weight) in weights.iter().enumerate().filter(|(server, _)| *server != gone) {
                let due = 9_000.0 * f64::from(*weight) / rest;
                let share = served[server] / due;
                assert!((0.93..1.07).contains(&share), "{weights:?} without {gone}: {served:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(1u16..=50, 1..8)) {
            let total: usize = weights.iter().map(|w| usize::from(*w)).sum();
            let order = served(&weights, total * 3);
            for (server, weight) in weights.iter().enumerate() {
                let count = order.iter().filter(|s| **s == server).count();
                prop_assert_eq!(count, usize::from(*weight) * 3);
            }
        }
    }
}
