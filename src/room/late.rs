//! Answers of the store that come after their callers were told that none did, or to callers who have gone. What such a
//! turn gave is nobody's: no visitor holds a ticket of it, and it would be called in its turn and waited for in vain. So
//! it is given back.
//!
//! A place that belongs to an owner is left alone: the owner may have come again meanwhile, to any gateway, and been
//! given that very place.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use super::Room;
use crate::queue::turn::{Join, Joined};
use crate::store::rooms::{RoomFault, RoomReply};

/// Most late answers that a room listens for at once. One turn that fails with callers is one; after it nobody joins
/// until the store answers again.
const LATE_MAX: usize = 16;

/// A turn on its way. It stays so when its callers have been told that they need not wait.
pub(super) type Underway = Pin<Box<dyn Future<Output = Result<RoomReply, RoomFault>> + Send>>;

/// The turns whose answers may still come.
#[derive(Default)]
pub(super) struct Late {
    turns: Vec<LateTurn>,
}

struct LateTurn {
    joins: Vec<Join>,
    answer: Underway,
}

impl Late {
    /// Listens on for what becomes of these joins, if it matters and there is a place for it.
    pub(super) fn keep(&mut self, joins: Vec<Join>, answer: Underway) {
        if self.turns.len() < LATE_MAX && joins.iter().any(is_nobodys) {
            self.turns.push(LateTurn { joins, answer });
        }
    }

    /// The numbers that have been given to nobody in this life of the queue, as far as has been heard since the last
    /// time.
    pub(super) fn heard(&mut self, epoch: u64) -> Vec<u64> {
        let mut unheld = Vec::new();
        self.turns.retain_mut(|turn| match turn.look() {
            Poll::Pending => true,
            Poll::Ready(Ok(reply)) if reply.outcome.epoch == epoch => {
                let given = turn.joins.iter().zip(&reply.outcome.joins);
                unheld.extend(given.filter_map(|(join, joined)| nobodys_number(*join, *joined)));
                false
            }
            Poll::Ready(_) => false,
        });
        unheld
    }
}

impl LateTurn {
    /// Whoever drives the connection does so by itself: to look now and then, with each turn, is enough.
    fn look(&mut self) -> Poll<Result<RoomReply, RoomFault>> {
        self.answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Late({})", self.turns.len())
    }
}

/// A join that waits for its answer. Who is found to have gone when the answer is there never looks at it: the place in
/// it is given back when this is dropped.
pub(super) struct Joining<'r> {
    pub(super) room: &'r Room,
    pub(super) join: Join,
    pub(super) answer: oneshot::Receiver<Result<Joined, RoomFault>>,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        // From here on whoever answers finds nobody, and gives the place back.
        self.answer.close();
        if let Ok(Ok(joined)) = self.answer.try_recv() {
            let unheld = nobodys_number(self.join, joined);
            self.room.give_back(unheld.into_iter().collect());
        }
    }
}

fn is_nobodys(join: &Join) -> bool {
    join.owner.is_none()
}

/// The number that a join was given, if nobody but who asked can have it.
pub(super) fn nobodys_number(join: Join, joined: Joined) -> Option<u64> {
    match joined {
        Joined::Place { number, .. } if is_nobodys(&join) => Some(number),
        Joined::Place { .. } | Joined::Refused(_) => None,
    }
}
