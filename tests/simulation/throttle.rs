//! The whole protocol of throttling, played from seeds: many gateways, their clients, and a store that is late,
//! deaf, gone or empty. [`books`] says what must hold and checks it after every turn of the store.

mod books;
mod by_hand;
mod client;
mod network;
mod scenario;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::books::Figures;
use self::scenario::Scenario;

const SEEDS: u64 = 1_000;

#[test]
fn whatever_happens_the_limits_hold() {
    let seeds = crate::seeds(SEEDS);
    let swept = seeds.len() as u64 >= SEEDS;
    let total = sweep(&seeds);
    println!("{total:?}");
    let rehearsed = [total.admitted, total.by_fault, total.wipes, total.measured];
    assert!(
        !swept || rehearsed.iter().all(|n| *n > 50),
        "it was too easy: {total:?}"
    );
}

/// What happened in a run.
fn account(seed: u64) -> String {
    let scenario = Scenario {
        told: true,
        ..Scenario::draw(seed)
    };
    let books = world::play(&scenario);
    format!("{scenario:?}\n{}", books.account(120))
}

/// Plays the seeds on every core, and fails with an account of the first that broke something.
fn sweep(seeds: &[u64]) -> Figures {
    let (next, total, broken) = (
        AtomicUsize::new(0),
        Mutex::new(Figures::default()),
        Mutex::new(Vec::new()),
    );
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scenario = Scenario::draw(*seed);
                    let books = world::play(&scenario);
                    total.lock().unwrap().add(&books.figures);
                    if let Some(what) = books.broken {
                        broken.lock().unwrap().push((*seed, what));
                    }
                }
            });
        }
    });
    let mut broken = broken.into_inner().unwrap();
    broken.sort();
    for (seed, what) in &broken {
        println!("TIDEGATE_SIM_SEED={seed}: {what}");
    }
    if let Some((seed, what)) = broken.first() {
        println!("{}", account(*seed));
        panic!(
            "{} of {} seeds; TIDEGATE_SIM_SEED={seed}: {what}",
            broken.len(),
            seeds.len()
        );
    }
    total.into_inner().unwrap()
}
