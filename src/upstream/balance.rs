//! Weighted round robin.
//!
//! The order is smooth, as nginx's: weights 5, 1, 1 give `a a b a c a a` and not `a a a a a b c`. It is worked
//! out once, so that a request costs one atomic increment.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest precomputed round; weights are scaled down to fit, the smallest to 1.
const ROUND_MAX: u64 = 65_536;

/// Whose turn it is.
#[derive(Debug)]
pub struct RoundRobin {
    round: Box<[u16]>,
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
            next: AtomicUsize::new(0),
        }
    }

    /// The servers in the order in which they should be tried now: a whole round, so each at least once.
    pub fn turns(&self) -> impl Iterator<Item = usize> + '_ {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.round.len()).map(move |step| usize::from(self.round[start.wrapping_add(step) % self.round.len()]))
    }
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
