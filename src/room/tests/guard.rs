//! What a room says of a request when it cannot be asked about it.

use super::*;
use crate::queue::turn::Otherwise;
use crate::room::gather::CALLERS_MAX;
use crate::room::guard::Ruling;

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
    assert!(matches!(ruling, Ruling::Fault(_)), "no turn came in time: {ruling:?}");
    let join = Join {
        owner: None,
        otherwise: Otherwise::Wait,
        share: None,
    };
    let callers: Vec<_> = (0..CALLERS_MAX).map(|_| desk.room.gather().join(join)).collect();
    let ruling = desk.newcomer().await;
    assert!(matches!(ruling, Ruling::Fault(_)), "one caller too many: {ruling:?}");
    drop(callers);
    desk.unplug(true);
    desk.room.turn().await;
    let ruling = desk.newcomer().await;
    assert!(matches!(ruling, Ruling::Through(_)), "the store is away: {ruling:?}");
}
