//! Admin operations concurrent with claims: pause, resume, resend and drop.

use modhost_storage::journal::State;

use super::journal::{Op, Point};
use super::*;

#[tokio::test]
async fn starts_nothing_while_a_module_is_paused() {
    let world = World::of(Setup { modules: vec![module("Echo"), module("Other")], ..Setup::default() }).await;
    world.modules.pause("Echo");
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    let other = world.accepted(&event("evt_2", "Other")).await;
    world.end(&other, answered()).await;
    world.advance(Duration::from_secs(60)).await;
    assert_eq!(world.journal.begun(Op::Claim, Some("Echo")), 0);
    world.modules.resume("Echo");
    world.dispatcher.rescan();
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    world.assert_idle(&["acme"]);
}

/// A pause during a claim applies only to later deliveries.
#[tokio::test]
async fn finishes_claim_in_progress_when_module_is_paused() {
    for point in [Point::Before, Point::After] {
        let world = World::of(Setup { concurrency: 1, ..Setup::default() }).await;
        let mut held = world.journal.hold(Op::Claim, point);
        let first = world.accepted(&event("evt_1", "Echo")).await;
        let second = world.accepted(&event("evt_2", "Echo")).await;
        world.until("the claim", || held.is_reached()).await;
        world.modules.pause("Echo");
        held.release();
        world.end(&first, answered()).await;
        world.settle().await;
        assert_eq!(world.state(&second).await, State::Waiting);
        world.modules.resume("Echo");
        world.dispatcher.rescan();
        world.end(&second, answered()).await;
        world.assert_idle(&["acme"]);
    }
}

/// A resume isn't missed while the scheduler reads the lanes.
#[tokio::test]
async fn starts_deliveries_when_module_is_resumed_while_lanes_are_read() {
    for op in [Op::Lanes, Op::NextDue] {
        let world = World::new().await;
        world.modules.pause("Echo");
        let delivery = world.accepted(&event("evt_1", "Echo")).await;
        let mut held = world.journal.hold(op, Point::After);
        world.dispatcher.rescan();
        world.until("the scheduler to look", || held.is_reached()).await;
        world.modules.resume("Echo");
        world.dispatcher.rescan();
        held.release();
        world.running(&delivery).await;
    }
}

/// The version of a module is removed while its delivery is claimed: no attempt is counted.
#[tokio::test]
async fn returns_delivery_claimed_without_a_version() {
    let world = World::new().await;
    let mut held = world.journal.hold(Op::Claim, Point::After);
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.until("the claim", || held.is_reached()).await;
    world.modules.remove_version("Echo");
    world.modules.pause("Echo");
    held.release();
    world.settle().await;
    let details = world.details(&delivery).await;
    assert_eq!((details.summary.state, details.summary.attempts), (State::Waiting, 0));
    assert!(lock(&world.dispatcher.0.running).is_empty());
    world.modules.resume("Echo");
    world.modules.serve_version("Echo");
    world.end(&delivery, answered()).await;
    assert_eq!(world.modules.history(), [(delivery, 1)]);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn drops_delivery_before_it_is_claimed() {
    let world = World::new().await;
    let mut held = world.journal.hold(Op::Claim, Point::Before);
    let delivery = world.accepted(&question("evt_1", "Echo")).await;
    world.until("the claim", || held.is_reached()).await;
    let details = world.details(&delivery).await;
    assert!(world.dispatcher.drop_waiting(&details, "not needed").await.unwrap());
    held.release();
    world.settle().await;
    assert_eq!(world.state(&delivery).await, State::Dropped);
    assert!(world.modules.history().is_empty());
    assert_eq!(world.platform.written(), [("sorry".to_owned(), true)], "its user is notified");
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn does_not_drop_claimed_delivery() {
    let world = World::new().await;
    let mut held = world.journal.hold(Op::Claim, Point::After);
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.until("the claim", || held.is_reached()).await;
    let details = world.details(&delivery).await;
    assert!(!world.dispatcher.drop_waiting(&details, "not needed").await.unwrap());
    held.release();
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn continues_chat_when_its_first_delivery_is_dropped() {
    let world = World::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    world.modules.pause("Echo");
    let [first, second] = ["evt_1", "evt_2"].map(|id| message("acme", id, "Echo", "chat_1"));
    let (first, second) = (world.accepted(&first).await, world.accepted(&second).await);
    world.modules.resume("Echo");
    let mut held = world.journal.hold(Op::Claim, Point::Before);
    world.dispatcher.rescan();
    world.until("the claim", || held.is_reached()).await;
    let details = world.details(&first).await;
    assert!(world.dispatcher.drop_waiting(&details, "not needed").await.unwrap());
    held.release();
    world.end(&second, answered()).await;
    assert_eq!((world.state(&first).await, world.state(&second).await), (State::Dropped, State::Completed));
}

/// The operator disconnects after the change is on disk, and the rest of the operation still runs.
#[tokio::test]
async fn finishes_admin_operation_when_operator_disconnects() {
    let world = World::new().await;
    world.modules.pause("Echo");
    let delivery = world.accepted(&question("evt_1", "Echo")).await;
    let details = world.details(&delivery).await;
    let mut held = world.journal.hold(Op::Drop, Point::After);
    let operator = tokio::spawn({
        let (dispatcher, inside) = (world.dispatcher.clone(), world.dispatcher.clone());
        async move { dispatcher.complete(async move { inside.drop_waiting(&details, "not needed").await }).await }
    });
    world.until("the commit", || held.is_reached()).await;
    operator.abort();
    assert!(operator.await.unwrap_err().is_cancelled());
    held.release();
    world.until("the user to be notified", || !world.platform.written().is_empty()).await;

    let details = world.details(&delivery).await;
    let mut held = world.journal.hold(Op::Resend, Point::After);
    let operator = tokio::spawn({
        let (dispatcher, inside) = (world.dispatcher.clone(), world.dispatcher.clone());
        async move { dispatcher.complete(async move { inside.resend(&details, false).await }).await }
    });
    world.until("the commit", || held.is_reached()).await;
    operator.abort();
    assert!(operator.await.unwrap_err().is_cancelled());
    world.modules.resume("Echo");
    held.release();
    world.running(&delivery).await;
}

#[tokio::test]
async fn resends_delivery_once() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.end(&delivery, failed(Retry::No)).await;
    let details = world.details(&delivery).await;
    let (one, other) = tokio::join!(world.dispatcher.resend(&details, false), world.dispatcher.resend(&details, false));
    assert_eq!((one.unwrap(), other.unwrap()), (true, false));
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    assert_eq!(
        world.modules.history(),
        [(delivery.clone(), 1), (delivery, 1)],
        "attempts count from 1 since the delivery was last sent"
    );
    assert_eq!(world.modules.evidence(), [false], "a resent delivery counts once");
    world.assert_idle(&["acme"]);
}

/// A delivery is resent while the scheduler claims its lane for another one.
#[tokio::test]
async fn runs_delivery_resent_during_a_claim() {
    for point in [Point::Before, Point::After] {
        let world = World::new().await;
        let delivery = world.accepted(&event("evt_1", "Echo")).await;
        world.end(&delivery, failed(Retry::No)).await;
        let mut held = world.journal.hold(Op::Claim, point);
        let other = world.accepted(&event("evt_2", "Echo")).await;
        world.until("the claim", || held.is_reached()).await;
        let details = world.details(&delivery).await;
        assert!(world.dispatcher.resend(&details, false).await.unwrap());
        held.release();
        world.end(&delivery, answered()).await;
        world.end(&other, answered()).await;
        assert_eq!(world.modules.starts_of(&delivery), 2);
        world.assert_idle(&["acme"]);
    }
}

#[tokio::test]
async fn does_not_resend_delivery_that_has_not_ended() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.running(&delivery).await;
    let mut held = world.journal.hold(Op::Complete, Point::Before);
    world.end(&delivery, answered()).await;
    assert!(held.is_reached());
    let details = world.details(&delivery).await;
    assert!(!world.dispatcher.resend(&details, true).await.unwrap());
    held.release();
    world.settle().await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    world.assert_idle(&["acme"]);
}
