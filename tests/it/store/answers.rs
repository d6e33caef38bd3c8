//! A store that is there and does not answer as it should: it loads, it is busy, its answers are lost, or garbage.

use crate::support::meddler::{Answers, Meddler};
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually};

use super::{Fleet, count, survives};

/// Times that answers are lost for a moment.
const LAPSES: usize = 5;

#[tokio::test]
async fn a_store_that_loads_its_data_is_asked_again_later() {
    let Some(server) = Redis::start(&[]) else { return };
    let happens = async |server: &mut Redis| {
        server.run_script("for i = 1, 20000 do redis.call('SET', 'other:' .. i, i) end");
        server.order(&["SAVE"]);
        server.stop();
        // It has its data after four seconds.
        server.add_arguments(&[
            "--key-load-delay",
            "200",
            "--loading-process-events-interval-bytes",
            "1024",
        ]);
        assert!(server.run());
    };
    let ends = async |_: &mut Redis, fleet: &Fleet| {
        for gateway in &fleet.gateways {
            gateway.says("it is still loading its data").await;
        }
    };
    survives(server, happens, ends).await;
}

#[tokio::test]
async fn a_store_that_runs_a_script_without_end_is_not_waited_for() {
    let Some(server) = Redis::start(&["--busy-reply-threshold", "50"]) else {
        return;
    };
    let happens = async |server: &mut Redis| {
        let mut connection = server.connection();
        std::thread::spawn(move || {
            // It ends with an error, which says that it was killed.
            let ended: redis::RedisResult<()> = redis::cmd("EVAL")
                .arg("while true do end")
                .arg(0)
                .query(&mut connection);
            drop(ended);
        });
    };
    let ends = async |server: &mut Redis, fleet: &Fleet| {
        eventually("a gateway hears that it is busy", PATIENCE, async || {
            let busy = fleet.metric("tidegate_store_faults_total{kind=\"busy\"}").await;
            (busy[0] + busy[1] > 0.0).then_some(())
        })
        .await;
        server.order(&["SCRIPT KILL"]);
    };
    survives(server, happens, ends).await;
}

/// A fleet behind a proxy that meddles with answers until both gateways have noticed.
async fn survives_answers_that(are: Answers) -> Vec<String> {
    let Some(server) = Redis::start(&[]) else {
        return Vec::new();
    };
    let meddler = Meddler::before(server.address).await;
    let fleet = Fleet::start(&format!("{{ urls: redis://{} }}", meddler.address)).await;
    fleet.is_whole().await;
    fleet.shares(100).await;
    meddler.let_answers(are);
    fleet.is_cut_off().await;
    meddler.let_answers(Answers::Arrive);
    println!("whole again after {:?}", fleet.is_whole().await);
    fleet.shares(101).await;
    let gateways = fleet.end().await;
    gateways.iter().flat_map(|gateway| gateway.log.all()).collect()
}

#[tokio::test]
async fn answers_that_are_lost_are_not_waited_for() {
    survives_answers_that(Answers::AreLost).await;
}

#[tokio::test]
async fn answers_that_are_garbage_end_the_connection_and_nothing_else() {
    let log = survives_answers_that(Answers::AreGarbage).await;
    assert_eq!(count(&log, "panicked"), 0, "{log:#?}");
}

#[tokio::test]
async fn answers_that_end_in_the_middle_are_not_taken_for_whole_ones() {
    survives_answers_that(Answers::AreCut).await;
}

#[tokio::test]
async fn what_was_told_while_answers_were_lost_is_counted_once() {
    let Some(server) = Redis::start(&[]) else { return };
    let meddler = Meddler::before(server.address).await;
    let fleet = Fleet::start(&format!("{{ urls: redis://{} }}", meddler.address)).await;
    fleet.is_whole().await;
    let missed = async || -> f64 {
        let missed = fleet.metric("tidegate_store_faults_total{kind=\"timeout\"}").await;
        missed.iter().sum()
    };
    for _ in 0..LAPSES {
        let before = missed().await;
        meddler.let_answers(Answers::AreLost);
        eventually("an answer is missed", PATIENCE, async || {
            (missed().await > before).then_some(())
        })
        .await;
        meddler.let_answers(Answers::Arrive);
        fleet.is_whole().await;
    }
    // Whoever comes now gets the whole limit: nothing of it is counted twice, and none of it forgotten.
    fleet.shares(102).await;
    fleet.end().await;
}
