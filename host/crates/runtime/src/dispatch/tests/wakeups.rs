//! A delivery that can run starts without any time passing, whatever the scheduler is doing when it becomes ready.
//!
//! The clock stands still and the sweep is disabled, unless a test says otherwise.

use std::time::Duration;

use modhost_storage::journal::{Journal, NewDelivery, State};

use super::journal::{Op, Point};
use super::*;

#[tokio::test]
async fn runs_event_that_arrives_while_the_scheduler_sleeps() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

/// The scheduler has read the lanes and has not yet gone to sleep.
#[tokio::test]
async fn runs_event_recorded_while_the_scheduler_is_about_to_sleep() {
    for op in [Op::Lanes, Op::NextDue] {
        for point in [Point::Before, Point::After] {
            let host = TestHost::stopped(Setup::default()).await;
            let mut held = host.journal.hold(op, point);
            host.dispatcher.run();
            host.until("the scheduler to look", || held.is_reached()).await;
            let delivery = host.accepted(&event("evt_1", "Echo")).await;
            host.settle().await;
            assert!(host.modules.running().is_empty(), "the scheduler is held at {op:?} {point:?}");
            held.release();
            host.running(&delivery).await;
        }
    }
}

/// The claim of the lane took effect before the new delivery was recorded, and reports that the lane is empty.
#[tokio::test]
async fn runs_event_recorded_while_its_lane_is_claimed() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Claim, Point::After);
    let first = host.accepted(&event("evt_1", "Echo")).await;
    host.until("the claim", || held.is_reached()).await;
    let second = host.accepted(&event("evt_2", "Echo")).await;
    held.release();
    host.running(&first).await;
    host.running(&second).await;
}

/// The wake-up of an event comes after its delivery was claimed because of another event.
#[tokio::test]
async fn runs_event_once_when_its_wake_up_comes_after_its_claim() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Record, Point::After);
    let client = tokio::spawn({
        let dispatcher = host.dispatcher.clone();
        async move { dispatcher.accept(event("evt_1", "Echo")).await }
    });
    host.until("the commit", || held.is_reached()).await;
    let other = host.accepted(&event("evt_2", "Echo")).await;
    let delivery = DeliveryId::new(&event("evt_1", "Echo"), &"Echo".into());
    host.running(&delivery).await;
    host.running(&other).await;
    held.release();
    assert_eq!(client.await.unwrap().unwrap(), Accepted::Deliveries(vec![delivery.clone()]));
    host.settle().await;
    host.end(&delivery, answered()).await;
    host.end(&other, answered()).await;
    assert_eq!((host.modules.starts_of(&delivery), host.modules.starts_of(&other)), (1, 1));
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn runs_waiting_delivery_when_a_slot_becomes_free() {
    let host = TestHost::of(Setup { concurrency: 1, ..Setup::default() }).await;
    let (first, second) = (event("evt_1", "Echo"), event("evt_2", "Echo"));
    let (first, second) = (host.accepted(&first).await, host.accepted(&second).await);
    host.running(&first).await;
    host.settle().await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&first));
    host.end(&first, answered()).await;
    host.running(&second).await;
}

/// The slot becomes free while the scheduler reads the lanes.
#[tokio::test]
async fn runs_waiting_delivery_when_a_slot_becomes_free_while_lanes_are_read() {
    let host = TestHost::of(Setup { concurrency: 1, ..Setup::default() }).await;
    let (first, second) = (event("evt_1", "Echo"), event("evt_2", "Echo"));
    let (first, second) = (host.accepted(&first).await, host.accepted(&second).await);
    host.running(&first).await;
    let mut held = host.journal.hold(Op::NextDue, Point::After);
    host.dispatcher.rescan();
    host.until("the scheduler to look", || held.is_reached()).await;
    host.end(&first, answered()).await;
    held.release();
    host.running(&second).await;
}

#[tokio::test]
async fn claims_other_lanes_while_one_cannot_be_claimed() {
    let host = TestHost::of(Setup { modules: vec![module("Bad"), module("Good")], ..Setup::default() }).await;
    host.journal.lease_on_record(false);
    host.journal.fail(Op::Claim, Point::Before, Some("Bad"));
    let bad = host.accepted(&event("evt_0", "Bad")).await;
    for number in 1..=30 {
        let good = host.accepted(&event(&format!("evt_{number}"), "Good")).await;
        host.end(&good, answered()).await;
        assert_eq!(host.state(&good).await, State::Completed);
    }
    assert_eq!(
        host.journal.started(Op::Claim, Some("Bad")),
        1,
        "the lane is not claimed again before its delay has passed"
    );
    assert_eq!(host.state(&bad).await, State::Waiting);

    // 100 ms, 200 ms, 400 ms…, at most 30 s.
    for (tries, wait) in [(2, 100), (3, 200), (4, 400), (5, 800)] {
        host.advance(Duration::from_millis(wait - 1)).await;
        assert_eq!(host.journal.started(Op::Claim, Some("Bad")), tries - 1, "{wait} ms have not passed");
        host.advance(Duration::from_millis(1)).await;
        assert_eq!(host.journal.started(Op::Claim, Some("Bad")), tries, "after {wait} ms");
    }
    for _ in 0..10 {
        host.advance(Duration::from_secs(30)).await;
    }
    let tries = host.journal.started(Op::Claim, Some("Bad"));
    host.journal.recover();
    host.advance(Duration::from_secs(30)).await;
    assert_eq!(host.journal.started(Op::Claim, Some("Bad")), tries + 1);
    host.end(&bad, answered()).await;
    assert_eq!(host.state(&bad).await, State::Completed);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn retries_reading_lanes_after_a_failure() {
    let host = TestHost::stopped(Setup::default()).await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    // Simulates a wake-up that was lost with a previous scheduler.
    lock(&host.dispatcher.0.woken).clear();
    host.journal.fail(Op::Lanes, Point::Before, None);
    host.dispatcher.run();
    host.settle().await;
    assert!(host.modules.running().is_empty());
    host.journal.recover();
    host.advance(Duration::from_millis(100)).await;
    host.running(&delivery).await;
}

#[tokio::test]
async fn sweep_finds_and_runs_delivery_without_wake_up() {
    let host = TestHost::of(Setup { sweep_every: Duration::from_secs(30), ..Setup::default() }).await;
    let unnoticed = event("evt_1", "Echo");
    let delivery = DeliveryId::new(&unnoticed, &"Echo".into());
    let new = NewDelivery { id: delivery.clone(), module: "Echo".into(), ordered_chat: None, lease: None };
    host.journal.memory.record(Arc::new(unnoticed), vec![new]).await.unwrap();
    host.settle().await;
    assert!(host.modules.running().is_empty());
    host.advance(Duration::from_secs(30)).await;
    assert!(host.modules.running().is_empty(), "a single finding may be a wake-up in progress");
    host.advance(Duration::from_secs(1)).await;
    host.running(&delivery).await;
}

/// A delivery that the sweep finds once and that is scheduled meanwhile is not a missed wake-up.
#[tokio::test]
async fn sweep_ignores_delivery_with_wake_up_in_progress() {
    let host = TestHost::of(Setup { sweep_every: Duration::from_secs(30), ..Setup::default() }).await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Record, Point::After);
    let late = event("evt_1", "Echo");
    let delivery = DeliveryId::new(&late, &"Echo".into());
    let client = tokio::spawn({
        let (dispatcher, late) = (host.dispatcher.clone(), late.clone());
        async move { dispatcher.accept(late).await }
    });
    host.until("the commit", || held.is_reached()).await;
    host.advance(Duration::from_secs(30)).await;
    held.release();
    client.await.unwrap().unwrap();
    host.running(&delivery).await;
    host.advance(Duration::from_secs(1)).await;
    host.end(&delivery, answered()).await;
    assert_eq!(host.modules.starts_of(&delivery), 1);
}
