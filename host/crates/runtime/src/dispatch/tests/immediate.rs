//! Deliveries that start as their event is recorded, and those that have to wait their turn.

use modhost_storage::journal::Journal;

use super::journal::{Op, Point};
use super::*;
use crate::dispatch::leases::{HEARTBEAT_EVERY, LEASE};

#[tokio::test]
async fn starts_delivery_without_a_claim() {
    let host = TestHost::new().await;
    host.settle().await;
    for number in 0..3 {
        let delivery = host.accepted(&event(&format!("evt_{number}"), "Echo")).await;
        host.end(&delivery, answered()).await;
        assert_eq!(host.state(&delivery).await, State::Completed);
    }
    assert_eq!(host.journal.started(Op::Claim, None), 0);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn holds_the_run_slot_and_the_lease() {
    let host = TestHost::of(Setup { concurrency: 1, ..Setup::default() }).await;
    host.settle().await;
    let first = host.accepted(&event("evt_1", "Echo")).await;
    let second = host.accepted(&event("evt_2", "Echo")).await;
    host.running(&first).await;
    for _ in 0..5 {
        host.advance(HEARTBEAT_EVERY).await;
    }
    assert_eq!(host.modules.running(), std::slice::from_ref(&first), "the lease is extended, and there is one slot");
    host.end(&first, answered()).await;
    host.end(&second, answered()).await;
    assert_eq!((host.modules.starts_of(&first), host.modules.starts_of(&second)), (1, 1));
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn keeps_the_order_of_a_lane() {
    let host = TestHost::of(Setup { concurrency: 1, ..Setup::default() }).await;
    host.settle().await;
    let first = host.accepted(&event("evt_0", "Echo")).await;
    let mut waiting = Vec::new();
    for number in 1..6 {
        waiting.push(host.accepted(&event(&format!("evt_{number}"), "Echo")).await);
    }
    // A slot is free as the next event comes, but older deliveries wait for it.
    let mut held = host.journal.hold(Op::Claim, Point::Before);
    host.end(&first, answered()).await;
    host.until("the claim", || held.is_reached()).await;
    waiting.push(host.accepted(&event("evt_6", "Echo")).await);
    held.release();
    for delivery in &waiting {
        host.end(delivery, answered()).await;
    }
    let order: Vec<DeliveryId> = host.modules.history().into_iter().map(|(delivery, _)| delivery).skip(1).collect();
    assert_eq!(order, waiting);
}

/// A tenant that sends many events must not take each slot that becomes free before another tenant's delivery that waits.
#[tokio::test]
async fn takes_no_slot_that_another_tenant_waits_for() {
    let tenants = ["acme", "other"].map(|name| TenantSetup { name, concurrency: 16, max_deliveries: 1_000 });
    let setup = Setup { concurrency: 2, tenants: tenants.to_vec(), ..Setup::default() };
    let host = TestHost::of(setup).await;
    host.settle().await;
    let busy = async |number: u32| host.accepted(&message("acme", &format!("evt_{number}"), "Echo", "chat")).await;
    let running = [busy(0).await, busy(1).await];
    let quiet = host.accepted(&message("other", "evt_quiet", "Echo", "chat")).await;
    host.settle().await;
    // The event comes between the end of an attempt and the claim for the one that waits.
    let mut held = host.journal.hold(Op::Claim, Point::Before);
    host.end(&running[0], answered()).await;
    let late = busy(2).await;
    host.until("the claim", || held.is_reached()).await;
    assert!(!host.modules.running().contains(&late));
    held.release();
    host.end(&quiet, answered()).await;
    for delivery in [&running[1], &late] {
        host.end(delivery, answered()).await;
    }
    assert!(
        host.modules.history().iter().position(|(it, _)| *it == quiet)
            < host.modules.history().iter().position(|(it, _)| *it == late)
    );
    host.assert_idle(&["acme", "other"]);
}

#[tokio::test]
async fn starts_nothing_of_a_paused_module() {
    let host = TestHost::new().await;
    host.settle().await;
    host.modules.pause("Echo");
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.settle().await;
    assert_eq!(host.state(&delivery).await, State::Waiting);
    host.modules.resume("Echo");
    host.dispatcher.rescan();
    host.end(&delivery, answered()).await;
    host.assert_idle(&["acme"]);
}

/// The event is on disk with its lease, and the host doesn't know.
#[tokio::test]
async fn runs_delivery_whose_recording_was_reported_as_failed() {
    let host = TestHost::new().await;
    host.settle().await;
    host.journal.fail(Op::Record, Point::After, None);
    let sent = event("evt_1", "Echo");
    assert!(matches!(host.accept(&sent).await, Err(Refused::Journal(_))));
    host.journal.recover();
    host.assert_nothing_reserved();
    assert_eq!(host.accept(&sent).await.unwrap(), Accepted::Duplicate);
    let delivery = DeliveryId::new(&sent, &"Echo".into());
    host.advance(LEASE).await;
    host.advance(HEARTBEAT_EVERY).await;
    host.end(&delivery, answered()).await;
    assert_eq!(host.modules.starts_of(&delivery), 1);
    host.assert_idle(&["acme"]);
}

/// The next delivery of a chat waits for the one before, which starts at once.
#[tokio::test]
async fn keeps_the_order_of_a_chat() {
    let host = TestHost::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    host.settle().await;
    let [first, second, third] = ["evt_1", "evt_2", "evt_3"].map(|id| message("acme", id, "Echo", "chat_1"));
    let other = host.accepted(&message("acme", "evt_other", "Echo", "chat_2")).await;
    let (first, second) = (host.accepted(&first).await, host.accepted(&second).await);
    let third = host.accepted(&third).await;
    host.settle().await;
    assert_eq!(host.modules.running().len(), 2, "one of each chat");
    for delivery in [&first, &second, &third, &other] {
        host.end(delivery, answered()).await;
    }
    assert!(host.journal.backlog(&"acme".into()) == Backlog::default());
    host.assert_idle(&["acme"]);
}
