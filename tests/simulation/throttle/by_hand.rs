//! The hard ones, thought up by hand, and the seeds that once broke something.

use std::sync::Arc;
use std::time::Duration;

use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::limiter::terms::{Algorithm, Terms};
use tidegate::limiter::window::{Counts, Window};
use tidegate::store::limits::{Fleet, GatewayId, KeyTurn, LimitTurn};
use tidegate::store::memory::limits::MemoryLimits;
use tidegate::throttle::OnStoreFault;

use super::account;
use super::books::Figures;
use super::scenario::{Event, Plan, Scenario};
use super::world::{key, play};

/// One key and one limit, with nothing going wrong.
fn calm(seed: u64, gateways: usize, allows: u64, offered: f64) -> Scenario {
    Scenario {
        seed,
        told: true,
        gateways,
        window: Duration::from_secs(1),
        limits: vec![Plan {
            allows,
            tolerance: 0.0,
            on_fault: OnStoreFault::Local,
        }],
        pace: Duration::from_millis(50),
        partitions: 4,
        hot_keys: 1_000,
        keys: 1,
        zipf: 0.0,
        lopsided: 0.0,
        offered,
        delay: Duration::from_millis(2),
        lost: (0, 0),
        skew: Duration::from_secs(7_200),
        drift: 100,
        events: Vec::new(),
        calm_from: Duration::from_secs(5),
        lasts: Duration::from_secs(14),
    }
}

fn holds(scenario: &Scenario) -> Figures {
    let books = play(scenario);
    if let Some(what) = &books.broken {
        panic!("{}\nseed {}: {what}", books.account(60), scenario.seed);
    }
    books.figures
}

fn seed_holds(seed: u64) {
    let scenario = Scenario::draw(seed);
    if let Some(what) = play(&scenario).broken {
        panic!("{}\nTIDEGATE_SIM_SEED={seed}: {what}", account(seed));
    }
}

#[test]
fn an_overloaded_key_gets_its_limit_and_never_more() {
    for gateways in [1, 4, 16] {
        for lopsided in [0.0, 3.0] {
            let scenario = Scenario {
                lopsided,
                ..calm(1, gateways, 1_000, 10.0)
            };
            let figures = holds(&scenario);
            println!(
                "{gateways} gateways, lopsided {lopsided}: {} of 1000, {} calls",
                figures.least, figures.calls
            );
            assert!(figures.measured == 1 && figures.least >= 900, "{figures:?}");
        }
    }
}

#[test]
fn a_fresh_fleet_refuses_nobody_under_the_limit_before_it_has_shares() {
    for seed in 1..=10 {
        let figures = holds(&calm(seed, 4, 200, 0.5));
        assert_eq!(figures.refused + figures.by_fault, 0, "seed {seed}: {figures:?}");
    }
}

#[test]
fn a_gateway_that_was_frozen_for_twenty_seconds_does_not_use_what_it_had() {
    for seed in 1..=5 {
        holds(&Scenario {
            window: Duration::from_secs(10),
            events: vec![(Duration::from_secs(12), Event::Halt(1, Duration::from_secs(20)))],
            calm_from: Duration::from_secs(33),
            lasts: Duration::from_secs(70),
            ..calm(seed, 3, 300, 3.0)
        });
    }
}

#[test]
fn an_emptied_store_is_told_all_before_it_grants_anything() {
    for seed in 1..=20 {
        for lopsided in [0.0, 3.0] {
            let at = Duration::from_millis(6_000 + seed * 47);
            let figures = holds(&Scenario {
                lopsided,
                events: vec![(at, Event::Wipe)],
                calm_from: Duration::from_secs(8),
                ..calm(seed, 4, 200, 3.0)
            });
            assert!(figures.worst_of_loss <= 1_100, "{figures:?}");
        }
    }
}

#[test]
fn a_turn_that_was_meant_for_another_life_of_the_store_is_not_counted_in_this_one() {
    let start = Timestamp::from_secs(1_000);
    let store = MemoryLimits::shared(ManualClock::at(start));
    let window = Window::new(Duration::from_secs(60));
    let told = |gateway| {
        let fleet = store.note_alive_at(GatewayId(gateway), &Fleet::default(), start);
        Arc::new(fleet)
    };
    let said = |report, give_back, ask| KeyTurn {
        key: key(1),
        report,
        overdraft: 0,
        give_back,
        ask,
    };
    let turn = |gateway, sequence, epoch, said| LimitTurn {
        gateway: GatewayId(gateway),
        sequence,
        limit: "one".parse().unwrap(),
        terms: Terms {
            allows: 10,
            window,
            algorithm: Algorithm::SlidingWindow,
        },
        partition: 0,
        epoch,
        said_all: true,
        cursor: 0,
        fleet: told(gateway),
        keys: vec![said],
    };
    let nothing = Counts {
        index: window.index(start),
        prev: 0,
        cur: 0,
    };
    let first = store
        .apply_at(&turn(1, 1, 0, said(Some(nothing), None, 10)), start)
        .unwrap();
    assert_eq!(first.keys[0].granted, 10);
    let back = turn(1, 2, first.epoch, said(None, Some((nothing.index, 5)), 0));

    store.forget();
    let later = start + Duration::from_secs(2);
    let other = turn(2, 1, 0, said(Some(Counts { cur: 8, ..nothing }), None, 0));
    store.apply_at(&other, later).unwrap();
    let reply = store.apply_at(&back, later).unwrap();
    assert!(reply.keys.is_empty() && reply.epoch != first.epoch);
    let asked = store.apply_at(
        &turn(2, 2, reply.epoch, said(None, None, 10)),
        later + Duration::from_secs(1),
    );
    assert_eq!(
        asked.unwrap().keys[0].granted,
        2,
        "what was given back had been drawn from the store that is gone"
    );
}

#[test]
fn seed_1_a_request_that_hears_several_turns_waits_no_longer_than_the_deadline() {
    seed_holds(1);
}

#[test]
fn seed_35_a_reload_while_the_store_is_frozen() {
    seed_holds(35);
}

#[test]
fn seed_62_a_newcomer_and_a_full_table() {
    seed_holds(62);
}

#[test]
fn seed_303_three_small_limits_over_a_minute() {
    seed_holds(303);
}

#[test]
fn seed_307_a_gateway_with_nearly_all_the_load_draws_nearly_all_there_is() {
    seed_holds(307);
}
