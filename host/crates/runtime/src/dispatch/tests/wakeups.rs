//! A delivery that can run starts without any time passing, whatever the scheduler is doing when it becomes ready.
//!
//! The clock stands still and the sweep is disabled, unless a test says otherwise.

use std::time::Duration;

use modhost_storage::journal::{Journal, NewDelivery, State};

use super::journal::{Op, Point};
use super::*;

#[tokio::test]
async fn runs_event_that_arrives_while_the_scheduler_sleeps() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    world.assert_idle(&["acme"]);
}

/// The scheduler has read the lanes and has not yet gone to sleep.
#[tokio::test]
async fn runs_event_recorded_while_the_scheduler_is_about_to_sleep() {
    for op in [Op::Lanes, Op::NextDue] {
        for point in [Point::Before, Point::After] {
            let world = World::stopped(Setup::default()).await;
            let mut held = world.journal.hold(op, point);
            world.dispatcher.run();
            world.until("the scheduler to look", || held.is_reached()).await;
            let delivery = world.accepted(&event("evt_1", "Echo")).await;
            world.settle().await;
            assert!(world.modules.running().is_empty(), "the scheduler is held at {op:?} {point:?}");
            held.release();
            world.running(&delivery).await;
        }
    }
}

/// The claim of the lane took effect before the new delivery was recorded, and reports that the lane is empty.
#[tokio::test]
async fn runs_event_recorded_while_its_lane_is_claimed() {
    let world = World::new().await;
    let mut held = world.journal.hold(Op::Claim, Point::After);
    let first = world.accepted(&event("evt_1", "Echo")).await;
    world.until("the claim", || held.is_reached()).await;
    let second = world.accepted(&event("evt_2", "Echo")).await;
    held.release();
    world.running(&first).await;
    world.running(&second).await;
}

/// The wake-up of an event comes after its delivery was claimed because of another event.
#[tokio::test]
async fn runs_event_once_when_its_wake_up_comes_after_its_claim() {
    let world = World::new().await;
    let mut held = world.journal.hold(Op::Record, Point::After);
    let client = tokio::spawn({
        let dispatcher = world.dispatcher.clone();
        async move { dispatcher.accept(event("evt_1", "Echo")).await }
    });
    world.until("the commit", || held.is_reached()).await;
    let other = world.accepted(&event("evt_2", "Echo")).await;
    let delivery = DeliveryId::new(&event("evt_1", "Echo"), &"Echo".into());
    world.running(&delivery).await;
    world.running(&other).await;
    held.release();
    assert_eq!(client.await.unwrap().unwrap(), Accepted::Deliveries(vec![delivery.clone()]));
    world.settle().await;
    world.end(&delivery, answered()).await;
    world.end(&other, answered()).await;
    assert_eq!((world.modules.starts_of(&delivery), world.modules.starts_of(&other)), (1, 1));
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn runs_waiting_delivery_when_a_slot_becomes_free() {
    let world = World::of(Setup { concurrency: 1, ..Setup::default() }).await;
    let (first, second) = (event("evt_1", "Echo"), event("evt_2", "Echo"));
    let (first, second) = (world.accepted(&first).await, world.accepted(&second).await);
    world.running(&first).await;
    world.settle().await;
    assert_eq!(world.modules.running(), std::slice::from_ref(&first));
    world.end(&first, answered()).await;
    world.running(&second).await;
}

/// The slot becomes free while the scheduler reads the lanes.
#[tokio::test]
async fn runs_waiting_delivery_when_a_slot_becomes_free_while_lanes_are_read() {
    let world = World::of(Setup { concurrency: 1, ..Setup::default() }).await;
    let (first, second) = (event("evt_1", "Echo"), event("evt_2", "Echo"));
    let (first, second) = (world.accepted(&first).await, world.accepted(&second).await);
    world.running(&first).await;
    let mut held = world.journal.hold(Op::NextDue, Point::After);
    world.dispatcher.rescan();
    world.until("the scheduler to look", || held.is_reached()).await;
    world.end(&first, answered()).await;
    held.release();
    world.running(&second).await;
}

#[tokio::test]
async fn claims_other_lanes_while_one_cannot_be_claimed() {
    let world = World::of(Setup { modules: vec![module("Bad"), module("Good")], ..Setup::default() }).await;
    world.journal.fail(Op::Claim, Point::Before, Some("Bad"));
    let bad = world.accepted(&event("evt_0", "Bad")).await;
    for number in 1..=30 {
        let good = world.accepted(&event(&format!("evt_{number}"), "Good")).await;
        world.end(&good, answered()).await;
        assert_eq!(world.state(&good).await, State::Completed);
    }
    assert_eq!(
        world.journal.begun(Op::Claim, Some("Bad")),
        1,
        "the lane is not claimed again before its delay has passed"
    );
    assert_eq!(world.state(&bad).await, State::Waiting);

    // 100 ms, 200 ms, 400 ms…, at most 30 s.
    for (tries, wait) in [(2, 100), (3, 200), (4, 400), (5, 800)] {
        world.advance(Duration::from_millis(wait - 1)).await;
        assert_eq!(world.journal.begun(Op::Claim, Some("Bad")), tries - 1, "{wait} ms have not passed");
        world.advance(Duration::from_millis(1)).await;
        assert_eq!(world.journal.begun(Op::Claim, Some("Bad")), tries, "after {wait} ms");
    }
    for _ in 0..10 {
        world.advance(Duration::from_secs(30)).await;
    }
    let tries = world.journal.begun(Op::Claim, Some("Bad"));
    world.journal.recover();
    world.advance(Duration::from_secs(30)).await;
    assert_eq!(world.journal.begun(Op::Claim, Some("Bad")), tries + 1);
    world.end(&bad, answered()).await;
    assert_eq!(world.state(&bad).await, State::Completed);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn retries_reading_lanes_after_a_failure() {
    let world = World::stopped(Setup::default()).await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    // Simulates a wake-up that was lost with a previous scheduler.
    lock(&world.dispatcher.0.woken).clear();
    world.journal.fail(Op::Lanes, Point::Before, None);
    world.dispatcher.run();
    world.settle().await;
    assert!(world.modules.running().is_empty());
    world.journal.recover();
    world.advance(Duration::from_millis(100)).await;
    world.running(&delivery).await;
}

#[tokio::test]
async fn sweep_finds_and_runs_delivery_without_wake_up() {
    let world = World::of(Setup { sweep_every: Duration::from_secs(30), ..Setup::default() }).await;
    let unnoticed = event("evt_1", "Echo");
    let delivery = DeliveryId::new(&unnoticed, &"Echo".into());
    let new = NewDelivery { id: delivery.clone(), module: "Echo".into(), one_at_a_time: None };
    world.journal.memory.record(Arc::new(unnoticed), vec![new]).await.unwrap();
    world.settle().await;
    assert!(world.modules.running().is_empty());
    world.advance(Duration::from_secs(30)).await;
    assert!(world.modules.running().is_empty(), "a single finding may be a wake-up in progress");
    world.advance(Duration::from_secs(1)).await;
    world.running(&delivery).await;
}

/// A delivery that the sweep finds once and that is scheduled meanwhile is not a missed wake-up.
#[tokio::test]
async fn sweep_ignores_delivery_with_wake_up_in_progress() {
    let world = World::of(Setup { sweep_every: Duration::from_secs(30), ..Setup::default() }).await;
    let mut held = world.journal.hold(Op::Record, Point::After);
    let late = event("evt_1", "Echo");
    let delivery = DeliveryId::new(&late, &"Echo".into());
    let client = tokio::spawn({
        let (dispatcher, late) = (world.dispatcher.clone(), late.clone());
        async move { dispatcher.accept(late).await }
    });
    world.until("the commit", || held.is_reached()).await;
    world.advance(Duration::from_secs(30)).await;
    held.release();
    client.await.unwrap().unwrap();
    world.running(&delivery).await;
    world.advance(Duration::from_secs(1)).await;
    world.end(&delivery, answered()).await;
    assert_eq!(world.modules.starts_of(&delivery), 1);
}
