//! Leases: an attempt whose lease is lost changes nothing more, and no delivery is left without an attempt.

use modhost_storage::journal::{AttemptReport, Claim, Claimed, Disposition, Journal, State};

use super::journal::{Op, Point};
use super::*;
use crate::dispatch::leases::{HEARTBEAT_EVERY, LEASE};

/// Another host.
const OTHER: &str = "host-2";

impl World {
    /// Takes a running delivery over, as if this host had been suspended for longer than a lease and another host had
    /// claimed the delivery.
    async fn take_over(&self) -> Claimed {
        assert_eq!(self.journal.memory.reclaim(Some(OWNER)).await.unwrap(), 1);
        self.claim_as_other().await
    }

    async fn claim_as_other(&self) -> Claimed {
        let claim = Claim { tenant: "acme".into(), module: "Echo".into(), limit: 1, owner: OTHER.into(), lease: LEASE };
        let mut claimed = self.journal.memory.claim(claim).await.unwrap();
        assert_eq!(claimed.len(), 1);
        claimed.remove(0)
    }

    /// Completes an attempt of the other host.
    async fn complete_as_other(&self, claimed: &Claimed) {
        let report =
            AttemptReport { took: Duration::ZERO, version: None, outcome: "completed".to_owned(), log: Vec::new() };
        self.journal.memory.complete_attempt(&claimed.lease, report, Disposition::Completed).await.unwrap();
    }

    /// Asserts that the other host's outcome of a delivery is kept, and that this host no longer runs the delivery.
    async fn assert_others(&self, delivery: &DeliveryId, claimed: &Claimed) {
        let details = self.details(delivery).await;
        assert_eq!((details.summary.state, details.attempts.len()), (State::Running, 0));
        assert!(lock(&self.dispatcher.0.running).is_empty());
        self.complete_as_other(claimed).await;
        let details = self.details(delivery).await;
        assert_eq!((details.summary.state, details.attempts.len()), (State::Completed, 1));
        assert_eq!(details.attempts[0].owner, OTHER);
    }
}

#[tokio::test]
async fn cancels_running_attempt_when_its_lease_is_lost() {
    let world = World::new().await;
    let delivery = world.accepted(&question("evt_1", "Echo")).await;
    world.running(&delivery).await;
    let taken = world.take_over().await;
    world.settle().await;
    assert_eq!(world.modules.running(), std::slice::from_ref(&delivery), "the host has not detected the loss yet");
    world.advance(HEARTBEAT_EVERY).await;
    assert!(world.modules.running().is_empty());
    assert_eq!(world.platform.asked(), 0, "only the other attempt notifies the user");
    world.assert_others(&delivery, &taken).await;
}

#[tokio::test]
async fn cancels_finalization_when_its_lease_is_lost() {
    let world = World::new().await;
    let delivery = world.accepted(&question("evt_1", "Echo")).await;
    world.platform.hold();
    world.end(&delivery, failed(Retry::No)).await;
    assert_eq!(world.platform.asked(), 1, "the apology is in flight");
    let taken = world.take_over().await;
    world.advance(HEARTBEAT_EVERY).await;
    world.platform.release();
    world.settle().await;
    assert!(world.platform.written().is_empty());
    world.assert_others(&delivery, &taken).await;
}

/// Another host takes the delivery over while the outcome is being recorded.
#[tokio::test]
async fn discards_outcome_of_attempt_whose_lease_is_lost() {
    for beats in [false, true] {
        let world = World::new().await;
        let delivery = world.accepted(&event("evt_1", "Echo")).await;
        let mut held = world.journal.hold(Op::Complete, Point::Before);
        world.end(&delivery, answered()).await;
        assert!(held.is_reached());
        let taken = world.take_over().await;
        if beats {
            world.advance(HEARTBEAT_EVERY).await;
        }
        held.release();
        world.settle().await;
        world.assert_others(&delivery, &taken).await;
    }
}

/// The outcome is recorded, and a heartbeat reports the lease as lost before the journal has confirmed the outcome.
#[tokio::test]
async fn keeps_outcome_that_was_recorded_before_the_heartbeat() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    let mut held = world.journal.hold(Op::Complete, Point::After);
    world.end(&delivery, answered()).await;
    assert!(held.is_reached());
    world.advance(HEARTBEAT_EVERY).await;
    held.release();
    world.settle().await;
    let details = world.details(&delivery).await;
    assert_eq!((details.summary.state, details.attempts.len()), (State::Completed, 1));
    world.advance(LEASE * 2).await;
    assert_eq!(world.modules.starts_of(&delivery), 1);
    world.assert_idle(&["acme"]);
}

/// A heartbeat sent before an attempt ended must not cancel the next attempt at the same delivery.
#[tokio::test]
async fn keeps_next_attempt_when_late_heartbeat_reports_previous_lease_lost() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.running(&delivery).await;
    let mut held = world.journal.hold(Op::Heartbeat, Point::Before);
    world.advance(HEARTBEAT_EVERY).await;
    assert!(held.is_reached());
    world.end(&delivery, failed(Retry::After(Duration::ZERO))).await;
    world.advance(Duration::from_millis(50)).await;
    world.running(&delivery).await;
    held.release();
    world.settle().await;
    assert_eq!(world.modules.running(), std::slice::from_ref(&delivery));
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn keeps_attempt_running_while_heartbeats_fail() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.running(&delivery).await;
    world.journal.fail(Op::Heartbeat, Point::Before, None);
    for _ in 0..10 {
        world.advance(HEARTBEAT_EVERY).await;
    }
    // The lease has expired, and no other host has claimed the delivery.
    world.journal.recover();
    world.advance(HEARTBEAT_EVERY).await;
    assert_eq!(world.modules.running(), std::slice::from_ref(&delivery));
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    assert_eq!(world.modules.starts_of(&delivery), 1);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn cancels_attempt_when_heartbeats_recover_too_late() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.running(&delivery).await;
    world.journal.fail(Op::Heartbeat, Point::Before, None);
    world.advance(LEASE).await;
    assert_eq!(world.journal.memory.reclaim(None).await.unwrap(), 1, "its lease has expired");
    let taken = world.claim_as_other().await;
    world.advance(HEARTBEAT_EVERY).await;
    assert_eq!(world.modules.running(), std::slice::from_ref(&delivery), "no heartbeat succeeds");
    world.journal.recover();
    world.advance(HEARTBEAT_EVERY).await;
    assert!(world.modules.running().is_empty());
    world.assert_others(&delivery, &taken).await;
}

/// The host claims the delivery again after its lease expired: the previous attempt is canceled, and only the new one
/// runs.
#[tokio::test]
async fn cancels_attempt_when_its_host_claims_the_delivery_again() {
    let world = World::new().await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.running(&delivery).await;
    let first = world.modules.attempt_of(&delivery).unwrap();
    world.journal.fail(Op::Heartbeat, Point::Before, None);
    world.advance(LEASE).await;
    assert_eq!(world.journal.memory.reclaim(None).await.unwrap(), 1);
    world.dispatcher.rescan();
    world.settle().await;
    assert_eq!(world.modules.running(), std::slice::from_ref(&delivery));
    let second = world.modules.attempt_of(&delivery).unwrap();
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_eq!(world.dispatcher.in_flight(&"Echo".into()), 1);
    world.journal.recover();
    world.advance(HEARTBEAT_EVERY).await;
    world.end(&delivery, answered()).await;
    let details = world.details(&delivery).await;
    assert_eq!((details.summary.state, details.attempts.len()), (State::Completed, 1));
    assert_eq!(details.attempts[0].number, 2);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn takes_over_deliveries_of_a_host_that_is_gone() {
    let world = World::new().await;
    world.modules.pause("Echo");
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.claim_as_other().await;
    world.modules.resume("Echo");
    world.dispatcher.rescan();
    world.advance(LEASE - Duration::from_millis(1)).await;
    assert!(world.modules.running().is_empty(), "the other host may still be running");
    world.advance(HEARTBEAT_EVERY).await;
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    assert_eq!(world.modules.history(), [(delivery, 2)]);
    world.assert_idle(&["acme"]);
}

/// The outcome could not be recorded: the slot is free immediately, and the delivery runs again after its lease has
/// expired.
#[tokio::test]
async fn reruns_delivery_when_outcome_was_not_recorded() {
    let world = World::of(Setup { concurrency: 1, ..Setup::default() }).await;
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.journal.fail(Op::Complete, Point::Before, None);
    world.end(&delivery, answered()).await;
    world.journal.recover();
    assert_eq!(world.state(&delivery).await, State::Running);
    let other = world.accepted(&event("evt_2", "Echo")).await;
    world.end(&other, answered()).await;
    assert_eq!(world.state(&other).await, State::Completed, "the slot is free");

    world.advance(LEASE - Duration::from_millis(1)).await;
    assert_eq!(world.modules.starts_of(&delivery), 1);
    world.advance(HEARTBEAT_EVERY).await;
    world.end(&delivery, answered()).await;
    let details = world.details(&delivery).await;
    assert_eq!((details.summary.state, details.summary.attempts), (State::Completed, 2));
    world.assert_idle(&["acme"]);
}

/// The outcome is recorded, but the journal reports an error: nothing is repeated, and the chat continues.
#[tokio::test]
async fn continues_when_recorded_outcome_is_reported_as_failed() {
    let world = World::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    let [first, second] = ["evt_1", "evt_2"].map(|id| message("acme", id, "Echo", "chat_1"));
    let (first, second) = (world.accepted(&first).await, world.accepted(&second).await);
    world.journal.fail(Op::Complete, Point::After, None);
    world.end(&first, answered()).await;
    world.journal.recover();
    assert_eq!(world.state(&first).await, State::Completed);
    world.end(&second, answered()).await;
    world.advance(LEASE * 2).await;
    assert_eq!((world.modules.starts_of(&first), world.modules.starts_of(&second)), (1, 1));
    world.assert_idle(&["acme"]);
}

/// The result of a claim is lost: the journal has leased the delivery, and no attempt runs.
#[tokio::test]
async fn runs_delivery_of_lost_claim_when_its_lease_expires() {
    let world = World::new().await;
    world.journal.fail(Op::Claim, Point::After, None);
    let delivery = world.accepted(&event("evt_1", "Echo")).await;
    world.settle().await;
    world.journal.recover();
    assert_eq!(world.state(&delivery).await, State::Running);
    world.advance(LEASE - Duration::from_millis(1)).await;
    assert!(world.modules.running().is_empty());
    world.advance(HEARTBEAT_EVERY).await;
    world.end(&delivery, answered()).await;
    assert_eq!(world.state(&delivery).await, State::Completed);
    world.assert_idle(&["acme"]);
}

#[tokio::test]
async fn reruns_delivery_when_call_log_cannot_be_read() {
    let world = World::new().await;
    // The module is removed from the settings; the call log lists the steps to close.
    world.set_routes(&Setup::default().tenants, vec![module("Echo")]);
    let delivery = world.accepted(&question("evt_1", "Echo")).await;
    world.running(&delivery).await;
    world.end(&delivery, failed(Retry::Yes)).await;
    world.set_routes(&Setup::default().tenants, Vec::new());
    world.journal.fail(Op::Calls, Point::Before, None);
    world.advance(Duration::from_secs(5)).await;
    assert_eq!(world.state(&delivery).await, State::Running, "without the call log its steps would stay open");
    assert!(lock(&world.dispatcher.0.running).is_empty());
    world.journal.recover();
    world.advance(LEASE + HEARTBEAT_EVERY).await;
    assert_eq!(world.state(&delivery).await, State::Dead);
    assert_eq!(world.platform.written().last().unwrap(), &("sorry".to_owned(), true));
    world.assert_idle(&["acme"]);
}
