//! A room in this process's memory, on a machine whose clock is set while it runs.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::base::clock::WallClock;

const LATE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_room_opens_when_its_machine_learns_that_it_is_late() {
    let steady = ManualClock::at(START);
    let machine = Arc::new(AtomicU64::new(START.as_micros()));
    let read = Arc::clone(&machine);
    let told = move || Timestamp::from_micros(read.load(Ordering::SeqCst));
    let wall = WallClock::of(Arc::<ManualClock>::clone(&steady), told);
    let desk = Desk::by(Arc::<WallClock>::clone(&wall), steady, |rule| {
        rule.terms.open = Some(START + LATE);
    });
    let mut browser = desk.join().await;
    desk.after(5).await;
    assert_eq!(state(&desk.status(&mut browser).await).1, "waiting");
    machine.store((START + LATE).as_micros(), Ordering::SeqCst);
    assert!(wall.follow().is_some());
    desk.after(2).await;
    assert_ne!(state(&desk.status(&mut browser).await).1, "waiting");
}
