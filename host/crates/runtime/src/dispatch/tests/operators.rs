//! Admin operations concurrent with claims: pause, resume, resend and drop.

use modhost_storage::journal::State;

use super::journal::{Op, Point};
use super::*;

#[tokio::test]
async fn starts_nothing_while_a_module_is_paused() {
    let host = TestHost::of(Setup { modules: vec![module("Echo"), module("Other")], ..Setup::default() }).await;
    host.modules.pause("Echo");
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    let other = host.accepted(&event("evt_2", "Other")).await;
    host.end(&other, answered()).await;
    host.advance(Duration::from_secs(60)).await;
    assert_eq!(host.journal.started(Op::Claim, Some("Echo")), 0);
    host.modules.resume("Echo");
    host.dispatcher.rescan();
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

/// A pause during a claim applies only to later deliveries.
#[tokio::test]
async fn finishes_claim_in_progress_when_module_is_paused() {
    for point in [Point::Before, Point::After] {
        let host = TestHost::of(Setup { concurrency: 1, ..Setup::default() }).await;
        host.journal.lease_on_record(false);
        let mut held = host.journal.hold(Op::Claim, point);
        let first = host.accepted(&event("evt_1", "Echo")).await;
        let second = host.accepted(&event("evt_2", "Echo")).await;
        host.until("the claim", || held.is_reached()).await;
        host.modules.pause("Echo");
        held.release();
        host.end(&first, answered()).await;
        host.settle().await;
        assert_eq!(host.state(&second).await, State::Waiting);
        host.modules.resume("Echo");
        host.dispatcher.rescan();
        host.end(&second, answered()).await;
        host.assert_idle(&["acme"]);
    }
}

/// A resume isn't missed while the scheduler reads the lanes.
#[tokio::test]
async fn starts_deliveries_when_module_is_resumed_while_lanes_are_read() {
    for op in [Op::Lanes, Op::NextDue] {
        let host = TestHost::new().await;
        host.modules.pause("Echo");
        let delivery = host.accepted(&event("evt_1", "Echo")).await;
        let mut held = host.journal.hold(op, Point::After);
        host.dispatcher.rescan();
        host.until("the scheduler to look", || held.is_reached()).await;
        host.modules.resume("Echo");
        host.dispatcher.rescan();
        held.release();
        host.running(&delivery).await;
    }
}

/// The version of a module is removed while its delivery is claimed: no attempt is counted.
#[tokio::test]
async fn returns_delivery_claimed_without_a_version() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Claim, Point::After);
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.until("the claim", || held.is_reached()).await;
    host.modules.remove_version("Echo");
    host.modules.pause("Echo");
    held.release();
    host.settle().await;
    let details = host.details(&delivery).await;
    assert_eq!((details.summary.state, details.summary.attempts), (State::Waiting, 0));
    assert!(lock(&host.dispatcher.0.running).is_empty());
    host.modules.resume("Echo");
    host.modules.serve_version("Echo");
    host.end(&delivery, answered()).await;
    assert_eq!(host.modules.history(), [(delivery, 1)]);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn drops_delivery_before_it_is_claimed() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Claim, Point::Before);
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.until("the claim", || held.is_reached()).await;
    let details = host.details(&delivery).await;
    assert!(host.dispatcher.drop_waiting(&details, "not needed").await.unwrap());
    held.release();
    host.settle().await;
    assert_eq!(host.state(&delivery).await, State::Dropped);
    assert!(host.modules.history().is_empty());
    assert_eq!(host.platform.written(), [("sorry".to_owned(), true)], "its user is notified");
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn does_not_drop_claimed_delivery() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Claim, Point::After);
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.until("the claim", || held.is_reached()).await;
    let details = host.details(&delivery).await;
    assert!(!host.dispatcher.drop_waiting(&details, "not needed").await.unwrap());
    held.release();
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn continues_chat_when_its_first_delivery_is_dropped() {
    let host = TestHost::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    host.modules.pause("Echo");
    let [first, second] = ["evt_1", "evt_2"].map(|id| message("acme", id, "Echo", "chat_1"));
    let (first, second) = (host.accepted(&first).await, host.accepted(&second).await);
    host.modules.resume("Echo");
    let mut held = host.journal.hold(Op::Claim, Point::Before);
    host.dispatcher.rescan();
    host.until("the claim", || held.is_reached()).await;
    let details = host.details(&first).await;
    assert!(host.dispatcher.drop_waiting(&details, "not needed").await.unwrap());
    held.release();
    host.end(&second, answered()).await;
    assert_eq!((host.state(&first).await, host.state(&second).await), (State::Dropped, State::Completed));
}

/// The operator disconnects after the change is on disk, and the rest of the operation still runs.
#[tokio::test]
async fn finishes_admin_operation_when_operator_disconnects() {
    let host = TestHost::new().await;
    host.modules.pause("Echo");
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    let details = host.details(&delivery).await;
    let mut held = host.journal.hold(Op::Drop, Point::After);
    let operator = tokio::spawn({
        let (dispatcher, inside) = (host.dispatcher.clone(), host.dispatcher.clone());
        async move { dispatcher.run_to_completion(async move { inside.drop_waiting(&details, "not needed").await }).await }
    });
    host.until("the commit", || held.is_reached()).await;
    operator.abort();
    assert!(operator.await.unwrap_err().is_cancelled());
    held.release();
    host.until("the user to be notified", || !host.platform.written().is_empty()).await;

    let details = host.details(&delivery).await;
    let mut held = host.journal.hold(Op::Resend, Point::After);
    let operator = tokio::spawn({
        let (dispatcher, inside) = (host.dispatcher.clone(), host.dispatcher.clone());
        async move { dispatcher.run_to_completion(async move { inside.resend(&details, false).await }).await }
    });
    host.until("the commit", || held.is_reached()).await;
    operator.abort();
    assert!(operator.await.unwrap_err().is_cancelled());
    host.modules.resume("Echo");
    held.release();
    host.running(&delivery).await;
}

#[tokio::test]
async fn resends_delivery_once() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.end(&delivery, failed(Retry::No)).await;
    let details = host.details(&delivery).await;
    let (one, other) = tokio::join!(host.dispatcher.resend(&details, false), host.dispatcher.resend(&details, false));
    assert_eq!((one.unwrap(), other.unwrap()), (true, false));
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    assert_eq!(
        host.modules.history(),
        [(delivery.clone(), 1), (delivery, 1)],
        "attempts count from 1 since the delivery was last sent"
    );
    assert_eq!(host.modules.evidence(), [false], "a resent delivery counts once");
    host.assert_idle(&["acme"]);
}

/// A delivery is resent while the scheduler claims its lane for another one.
#[tokio::test]
async fn runs_delivery_resent_during_a_claim() {
    for point in [Point::Before, Point::After] {
        let host = TestHost::new().await;
        host.journal.lease_on_record(false);
        let delivery = host.accepted(&event("evt_1", "Echo")).await;
        host.end(&delivery, failed(Retry::No)).await;
        let mut held = host.journal.hold(Op::Claim, point);
        let other = host.accepted(&event("evt_2", "Echo")).await;
        host.until("the claim", || held.is_reached()).await;
        let details = host.details(&delivery).await;
        assert!(host.dispatcher.resend(&details, false).await.unwrap());
        held.release();
        host.end(&delivery, answered()).await;
        host.end(&other, answered()).await;
        assert_eq!(host.modules.starts_of(&delivery), 2);
        host.assert_idle(&["acme"]);
    }
}

#[tokio::test]
async fn does_not_resend_delivery_that_has_not_ended() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let mut held = host.journal.hold(Op::Complete, Point::Before);
    host.end(&delivery, answered()).await;
    assert!(held.is_reached());
    let details = host.details(&delivery).await;
    assert!(!host.dispatcher.resend(&details, true).await.unwrap());
    held.release();
    host.settle().await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}
