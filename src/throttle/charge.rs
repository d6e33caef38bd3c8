//! Debits of what has been spent already: the bytes of an answer are known when it is over.
//!
//! Such a debit cannot be refused. On the sketch it simply counts; of a hot key it takes what budget there is, and the
//! rest is debt: it is told to the store with the next turn, or paid from the next grant, whichever comes first, and
//! nothing is admitted before.

use std::sync::atomic::{Ordering, fence};

use super::counter::Counter;
use crate::base::clock::Timestamp;
use crate::base::key::Key;

impl Counter {
    pub(super) fn charge(&self, key: Key, cost: u64, now: Timestamp) {
        let frame = self.frame(now);
        loop {
            let pooled = self.pooled.load(Ordering::SeqCst);
            if let Some(hot) = self.hot.pin().get(&key) {
                hot.debit(cost, frame.index, now);
                self.touch(key, hot);
                return;
            }
            let own = self.sketch.add(key.0, cost, frame.index).without(frame.noise);
            // A key that is pooled at this moment has perhaps been reported without this: see `try_spend`.
            fence(Ordering::SeqCst);
            if self.pooled.load(Ordering::SeqCst) != pooled && self.hot.pin().contains_key(&key) {
                self.sketch.take_back(key.0, cost, frame.index);
                continue;
            }
            if frame.terms.weigh(own, now) > frame.shares.usable(&frame.terms, now) / 2 {
                self.announce(key);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Clock;
    use crate::limiter::terms::Algorithm;
    use crate::throttle::hot::{Grant, HotKey};
    use crate::throttle::tests::{CLIENT, Scene, rule, small};
    use crate::throttle::{Counting, LimitRule};

    fn scene(rate: &str) -> Scene {
        Scene::new(rate, 0.0, small())
    }

    fn asks(scene: &Scene) -> bool {
        scene.request(CLIENT)
    }

    #[test]
    fn a_cold_key_pays_afterwards_and_waits_until_it_has() {
        let scene = scene("1000/min");
        assert!(asks(&scene), "nothing has been spent");
        scene.limit.charge(CLIENT, 1_499);
        assert!(!asks(&scene), "half as much again as the limit has been sent");
        // The window ends in 20 s, and 1500 x (1 - x) is below 1000 from a third of the next one on.
        scene.wait(Duration::from_secs(39));
        assert!(!asks(&scene));
        scene.wait(Duration::from_secs(3));
        assert!(asks(&scene));
    }

    #[test]
    fn a_hot_key_pays_its_debt_first() {
        let scene = scene("1000/min");
        for _ in 0..600 {
            assert!(asks(&scene));
            scene.wait(Duration::from_millis(1));
        }
        let hot = || scene.limit.counter().hot.pin().get(&CLIENT).cloned();
        assert!(hot().is_some(), "pooled by now");
        scene.limit.charge(CLIENT, 5_000);
        assert!(!hot().unwrap().holds_budget(), "what budget there was went into it");
        // The rest is told with the next turn.
        scene.wait(Duration::from_millis(200));
        assert!(!asks(&scene));
        // Of the 5600 that the store counts, less than 1000 weigh from 0.822 of the next window on: in 68.7 s.
        scene.wait(Duration::from_secs(60));
        assert!(!asks(&scene));
        scene.wait(Duration::from_secs(8));
        assert!(!asks(&scene));
        scene.wait(Duration::from_secs(3));
        assert!(asks(&scene));
    }

    #[test]
    fn a_bucket_makes_up_for_all_of_it() {
        let mut scene = scene("1000/s");
        let bucket = Counting {
            algorithm: Algorithm::TokenBucket { burst: 1_000 },
            ..Counting::default()
        };
        scene.replan(LimitRule {
            counting: bucket,
            ..rule("one", "1000/s", 0.0)
        });
        assert!(asks(&scene));
        scene.limit.charge(CLIENT, 100_000);
        for second in 0..98 {
            scene.wait(Duration::from_secs(1));
            assert!(second % 10 > 0 || !asks(&scene), "after {second} s");
        }
        scene.wait(Duration::from_secs(20));
        assert!(asks(&scene));
    }

    #[test]
    fn a_grant_that_was_under_way_pays_for_what_came_meanwhile() {
        let scene = scene("1000/min");
        let hot = HotKey::new(scene.clock.now());
        hot.debit(30, 1, scene.clock.now());
        let grant = Grant {
            budget: 100,
            lot: 1,
            frame: 1,
            valid_until: scene.clock.now() + Duration::from_secs(1),
            remaining: 0,
            wait: Duration::ZERO,
            saturated_until: Timestamp::default(),
            covered: false,
            scarce: false,
            dry_until: Timestamp::default(),
            overrun_until: Timestamp::default(),
            may_join: false,
        };
        hot.granted(&grant, scene.clock.now());
        assert_eq!(
            (hot.remaining(), hot.take_untold()),
            (70, 0),
            "it is not told and paid both"
        );
        hot.debit(90, 1, scene.clock.now());
        assert_eq!((hot.remaining(), hot.take_untold()), (0, 20));
    }
}
