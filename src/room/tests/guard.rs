//! What a room says of a request when it cannot be asked about it.

use super::*;
use crate::queue::turn::Otherwise;
use crate::room::gather::CALLERS_MAX;
use crate::room::guard::Ruling;

const JOIN: Join = Join {
    owner: None,
    otherwise: Otherwise::Wait,
    share: None,
};

impl Desk {
    /// What becomes of a newcomer while nobody drives the room.
    async fn newcomer(&self) -> Ruling {
        self.room
            .admit(&blank(self.clock.now(), "/checkout"), Otherwise::Wait)
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_rush_opens_no_room_that_a_fault_of_the_store_would_open() {
    let desk = Desk::open(|rule| rule.on_store_fault = OnStoreFault::Admit);
    desk.room.turn().await;
    let ruling = desk.newcomer().await;
    assert!(matches!(ruling, Ruling::Fault), "no turn came in time: {ruling:?}");
    let callers: Vec<_> = (0..CALLERS_MAX).map(|_| desk.room.gather().join(JOIN)).collect();
    let ruling = desk.newcomer().await;
    assert!(matches!(ruling, Ruling::Fault), "one caller too many: {ruling:?}");
    drop(callers);
    desk.unplug(true);
    desk.room.turn().await;
    let ruling = desk.newcomer().await;
    assert!(matches!(ruling, Ruling::Through(_)), "the store is away: {ruling:?}");
}

/// The answer wakes who waits for it; a client that has gone is only then noticed.
#[tokio::test(start_paused = true)]
async fn a_place_whose_client_has_gone_when_the_answer_comes_is_given_back() {
    for owner in [None, Some(7)] {
        let desk = Desk::open(|_| ());
        let join = Join { owner, ..JOIN };
        let mut joining = Box::pin(desk.room.join(join));
        let asked = std::future::poll_fn(|cx| std::task::Poll::Ready(joining.as_mut().poll(cx)));
        assert!(asked.await.is_pending());
        desk.room.turn().await;
        assert_eq!(desk.room.snapshot().inside, 1);
        drop(joining);
        desk.room.turn().await;
        let kept = u64::from(owner.is_some());
        assert_eq!(
            desk.room.snapshot().inside,
            kept,
            "an owner may have come again meanwhile"
        );
        assert!(matches!(
            desk.driven(desk.room.join(JOIN)).await,
            Ok(Joined::Place { .. })
        ));
        desk.room.turn().await;
        assert_eq!(desk.room.snapshot().inside, 1, "an answer that was looked at is kept");
    }
}
