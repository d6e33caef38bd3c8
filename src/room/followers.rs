//! Who follows which place by events: a few streams for each, so that one ticket does not take them all.
//!
//! One more than may be ends the oldest, whose network may have gone without a word. It does so at its next look, within
//! a second; until then it counts, so that nobody holds many by opening them faster than that.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streams of one place that go on: a telephone, a desk and a spare tab of each.
pub(super) const STREAMS_PER_PLACE: usize = 4;

/// With those that are told to end and have not looked yet.
const ENDING_AND_ALL: usize = 2 * STREAMS_PER_PLACE;

/// The streams of a room, by number, each place's oldest first. Bounded by the streams of a gateway.
#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<HashMap<u64, VecDeque<Arc<AtomicBool>>>>);

/// One stream among those of its place, until it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    all: Arc<Followers>,
    number: u64,
    is_over: Arc<AtomicBool>,
}

impl Followers {
    /// One more for this place. None when as many have not even ended yet.
    pub(super) fn follow(self: &Arc<Self>, number: u64) -> Option<Follower> {
        let mut all = self.lock();
        let streams = all.entry(number).or_default();
        if streams.len() >= ENDING_AND_ALL {
            return None;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        streams.push_back(Arc::clone(&is_over));
        let most = streams.len().saturating_sub(STREAMS_PER_PLACE);
        for oldest in streams.iter().take(most) {
            oldest.store(true, Ordering::Release);
        }
        Some(Follower {
            all: Arc::clone(self),
            number,
            is_over,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, VecDeque<Arc<AtomicBool>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Whether newer streams of the same place took this one's.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(streams) = all.get_mut(&self.number) else {
            return;
        };
        streams.retain(|stream| !Arc::ptr_eq(stream, &self.is_over));
        if streams.is_empty() {
            all.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_may_be_ends_the_oldest_of_its_place_alone() {
        let all = Arc::new(Followers::default());
        let other = all.follow(8).unwrap();
        let streams: Vec<_> = (0..=STREAMS_PER_PLACE).map(|_| all.follow(7).unwrap()).collect();
        let over: Vec<_> = streams.iter().map(Follower::is_over).collect();
        assert_eq!(over, [true, false, false, false, false]);
        assert!(!other.is_over());
    }

    #[test]
    fn those_that_have_not_ended_yet_count_until_they_have() {
        let all = Arc::new(Followers::default());
        let mut streams: Vec<_> = std::iter::from_fn(|| all.follow(7)).collect();
        assert_eq!(streams.len(), ENDING_AND_ALL);
        streams.retain(|stream| !stream.is_over());
        assert_eq!(streams.len(), STREAMS_PER_PLACE);
        assert!(all.follow(7).is_some());
        streams.clear();
        assert!(all.lock().is_empty(), "what nobody follows is forgotten");
    }
}
